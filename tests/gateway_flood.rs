//! Strangers at the node's port, with the signer behind the real gateway: what they can make it do is bounded while it is there, and
//! nothing while it is away. The node's clock stands still unless the test moves it, so every figure here is exact.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/dialer.rs"]
mod dialer;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/station.rs"]
mod station;
#[path = "support/watched.rs"]
mod watched;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dialer::{Dialer, shared_key};
use pilotlight::brontide::InitiatorStart;
use pilotlight::clock::{Clock, ManualClock};
use pilotlight::limits;
use pilotlight::link::Tag;
use pilotlight::node_id::{LocalKey, Point};
use pilotlight::signer::gateway::budget::Meter;
use pilotlight::signer::{EcdhCall, Epoch, Purpose, SignerContext};
use pilotlight::telemetry::Event;
use proxy::Proxy;
use station::{Log, OneAtATime, Peers, Station, key, read_inbox, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// The node's key: the one that the scripted signer has.
fn node() -> LocalKey {
    dialer::key(7)
}

/// The point that a stranger's act one makes the node ask for.
fn ephemeral(number: u64) -> LocalKey {
    key(10_000 + number)
}

/// Sends a good act one from that address, and then nothing.
async fn stranger(number: u64, source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    let mut socket = soon("TCP", socket.connect(address)).await.unwrap();
    let start = InitiatorStart::new(key(9).node_id(), node().node_id(), ephemeral(number));
    // Whoever is turned away unread may be closed before it has written.
    let _ = socket.write_all(&start.unwrap().1).await;
    socket
}

/// An address of a /24 of its own.
fn elsewhere(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 100, number, 1)
}

fn ask(context: &SignerContext, number: u64) -> JoinHandle<bool> {
    let context = context.clone();
    let call = EcdhCall::new(ephemeral(number).point(), Purpose::ChannelDial);
    tokio::spawn(async move { context.ecdh(call).await.is_ok() })
}

fn throttled(event: &Event) -> Option<&'static str> {
    match event {
        Event::EcdhThrottled { scope } => Some(*scope),
        _ => None,
    }
}

/// A node that listens, with a scripted signer that is attached, on a clock that stands still.
struct Attached {
    station: Station,
    log: Log,
    clock: ManualClock,
    signer: Dialer,
    address: SocketAddr,
}

impl Attached {
    async fn new() -> Self {
        let clock = ManualClock::new();
        let (station, inbox) = Station::open(&node(), WINDOW, Arc::new(clock.clone())).await;
        read_inbox(inbox);
        let log = Log::of(&station.telemetry);
        let address = station.supervisor.listen(([127, 0, 0, 1], 0).into());
        let address = address.await.unwrap();
        let (gateway, macaroon) = (station.gateway.local_addr(), station.macaroon());
        let macaroon: &[(&str, &str)] = &[("macaroon", &macaroon)];
        let mut signer = Dialer::call(gateway, &station.certificate, macaroon).await;
        signer.register().await;
        station.until_live(1).await;
        Self {
            station,
            log,
            clock,
            signer,
            address,
        }
    }

    /// The signer is seen to take `service` for an ECDH: two in flight, answered one after the other.
    async fn slow(&mut self, service: Duration) -> Meter {
        let mut meter = Meter::new();
        // The proof came at once.
        meter.answered(self.clock.now(), self.clock.now(), 0);
        let sent = self.clock.now();
        let mut requests = Vec::new();
        let mut asking = Vec::new();
        for number in 0..2 {
            asking.push(ask(&self.station.context, number));
            requests.push(self.signer.hear_ecdh().await);
        }
        for (ahead, ((id, point), asking)) in requests.into_iter().zip(asking).enumerate() {
            self.clock.advance(service);
            self.signer.say(&shared_key(id, 7, point));
            assert!(soon("an answer", asking).await.unwrap());
            meter.answered(self.clock.now(), sent, ahead);
        }
        meter
    }

    /// The next question is for that point.
    async fn hears(&mut self, point: Point) -> u64 {
        let (id, asked) = self.signer.hear_ecdh().await;
        assert_eq!(asked, point);
        id
    }

    fn is_untouched(&self) {
        let live = self.station.context.state().live();
        assert_eq!(live.map(Epoch::get), Some(1));
        assert!(self.station.context.last_lapse().is_none());
    }
}

/// Nothing here takes so long on the node's clock.
const WINDOW: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn p9_strangers_have_half_of_the_signer_and_a_channel_dial_goes_before_them() {
    let mut node = Attached::new().await;
    let meter = node.slow(Duration::from_millis(200)).await;
    let half = meter.strangers_cap();
    assert!((2..10).contains(&half), "{half}");

    // Each from an address of its own, so that no bucket refuses it.
    let mut strangers = Vec::new();
    let mut asked = Vec::new();
    for number in 0..half {
        let number = number as u64 + 100;
        let source = elsewhere(u8::try_from(number).unwrap());
        strangers.push(stranger(number, source, node.address).await);
        let id = node.hears(ephemeral(number).point()).await;
        asked.push((id, ephemeral(number).point()));
    }
    // Their half is taken. Of the next, some may wait for it, and the others are refused by name.
    let (first, many) = (150, 30);
    for number in first..first + many {
        let source = elsewhere(u8::try_from(number).unwrap());
        strangers.push(stranger(number, source, node.address).await);
    }
    let refused = |scope: &str, log: &Log| log.count(|event| throttled(event) == Some(scope));
    // So many wait that the signer is busy for its 2 s with them, at half of its speed.
    let waiting = (0..100)
        .find(|waiting| meter.is_behind((half + waiting) * 2))
        .unwrap();
    let turned_away = usize::try_from(many).unwrap() - waiting;
    node.log.nth("refused", turned_away, throttled).await;

    // What is asked next is a channel dial's, though strangers have waited for longer.
    let channel = ask(&node.station.context, 200);
    let id = node.hears(ephemeral(200).point()).await;
    node.signer.say(&shared_key(id, 7, ephemeral(200).point()));
    assert!(soon("the channel dial", channel).await.unwrap());
    // And when one of the strangers' is answered, one of those who wait is next.
    let (id, point) = asked[0];
    node.signer.say(&shared_key(id, 7, point));
    let (_, next) = node.signer.hear_ecdh().await;
    let is_next = |number: u64| next == ephemeral(number).point();
    assert!((first..first + many).any(is_next));
    assert_eq!(refused("strangers", &node.log), turned_away);
    assert_eq!(refused("source", &node.log), 0);
    node.is_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_one_source_is_refused_before_the_signer_is_asked() {
    let mut node = Attached::new().await;
    let burst = u64::from(limits::ECDH_SOURCE_BURST);
    let mut strangers = Vec::new();
    for number in 0..burst {
        strangers.push(stranger(number, Ipv4Addr::LOCALHOST, node.address).await);
        node.hears(ephemeral(number).point()).await;
    }
    // The next are closed as they are accepted: no place, no event.
    for number in 0..20 {
        let mut declined = stranger(burst + number, Ipv4Addr::LOCALHOST, node.address).await;
        let mut byte = [0];
        let end = soon("the close", declined.read(&mut byte)).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    // Somebody else is served meanwhile: the next that the signer hears of.
    strangers.push(stranger(50, elsewhere(1), node.address).await);
    node.hears(ephemeral(50).point()).await;
    // And the source itself once it has earned one back, and no more than one.
    node.clock.advance(limits::ECDH_SOURCE_INTERVAL);
    strangers.push(stranger(60, Ipv4Addr::LOCALHOST, node.address).await);
    node.hears(ephemeral(60).point()).await;
    let mut declined = stranger(61, Ipv4Addr::LOCALHOST, node.address).await;
    let end = soon("the close", declined.read(&mut [0])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let told = |event: &Event| throttled(event).is_some() || turned_away(event).is_some();
    assert_eq!(node.log.count(told), 0, "a flood does not fill the events");
    node.is_untouched();
}

/// The label under which an inbound connection was turned away.
fn turned_away(event: &Event) -> Option<&'static str> {
    match event {
        Event::InboundFailed { failure, .. } => Some(*failure),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_flood_while_the_signer_is_away_calls_nobody_and_touches_no_link() {
    let clock = ManualClock::new();
    let (station, inbox) = Station::open(&node(), WINDOW, Arc::new(clock.clone())).await;
    let inbox = read_inbox(inbox);
    let log = Log::of(&station.telemetry);
    let listen = station.supervisor.listen(([127, 0, 0, 1], 0).into());
    let address = listen.await.unwrap();
    let gossip = Peers::listen(200, 2).await;
    station.want(&gossip, Tag::GossipOnly).await;
    let proxy = Proxy::start(station.gateway.local_addr());
    let holder = OneAtATime::quick(node());
    let agent = station.agent(proxy.address, holder.clone());
    let hears = async |number: u64| {
        gossip.gossip_up_to(number);
        for (id, _) in &gossip.places {
            inbox
                .until_true("gossip", |gossip| gossip.of.get(id) == Some(&number))
                .await;
        }
        assert_eq!(inbox.read(|gossip| gossip.out_of_turn), 0);
    };
    hears(10).await;

    // The agent lives and dials, and nothing passes.
    proxy.cut();
    proxy.fall_silent();
    let _ = station.until_lapsed(1).await;
    let before = (agent.report().ecdh, agent.report().proofs, holder.asked());
    let mut strangers = Vec::new();
    for round in 0..3_u64 {
        for subnet in 0..100_u8 {
            for host in 1..=3 {
                let source = Ipv4Addr::new(127, 100, subnet, host);
                strangers.push(stranger(u64::from(subnet), source, address).await);
            }
        }
        for number in 0..100_u64 {
            strangers.push(stranger(number, Ipv4Addr::LOCALHOST, address).await);
        }
        hears(20 + round * 10).await;
    }
    let all = strangers.len();
    let (_, failure) = log
        .nth("turned away", all - limits::PARKED_MAX, turned_away)
        .await;
    assert_eq!(failure, "signer_away");
    assert_eq!(station.supervisor.snapshot().parked, limits::PARKED_MAX);
    // Those who wait are closed in time too, unread.
    clock.advance(limits::PARKED_FOR);
    log.nth("closed", all, turned_away).await;
    hears(100).await;
    let after = (agent.report().ecdh, agent.report().proofs, holder.asked());
    assert_eq!(after, before);
    assert_eq!(log.count(|event| matches!(event, Event::Ecdh { .. })), 2);
    assert_eq!(gossip.seen.read(|seen| (seen.ups, seen.ended)), (2, 0));
    assert!(!station.context.is_live());

    // It is a flood that ends: the signer comes back to a node that works.
    proxy.speak();
    station.until_live(2).await;
    // A proof, and an act one.
    let _stranger = stranger(1, elsewhere(200), address).await;
    holder.until_asked(before.2 + 2).await;
}
