//! The signer's stream over a network that falls silent, cuts, closes and delays: real gateway, real agent, lnd's words by a
//! scripted signer, and a supervisor with real peers behind them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "support/dialer.rs"]
mod dialer;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/station.rs"]
mod station;
#[path = "support/watched.rs"]
mod watched;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dialer::{Dialer, completed, registration, shared_key};
use pilotlight::clock::{Clock, ManualClock, SystemClock};
use pilotlight::limits;
use pilotlight::link::Tag;
use pilotlight::link::raw::RawLink;
use pilotlight::node_id::LocalKey;
use pilotlight::signer::agent::{Agent, AgentState};
use pilotlight::signer::{
    EcdhCall, EcdhError, EmbeddedSigner, Epoch, LapseReason, Purpose, SignerError,
};
use pilotlight::telemetry::{Event, LapseReport};
use proxy::Proxy;
use station::{Log, OneAtATime, Peers, Station, key, read_inbox, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Half of the round trip to a signer on the other side of a continent.
const ONE_WAY: Duration = Duration::from_millis(25);
const CHANNEL_PEERS: usize = 3;

/// The node's key: the one that the scripted signer has.
fn node() -> LocalKey {
    dialer::key(7)
}

fn signer() -> Arc<EmbeddedSigner> {
    Arc::new(EmbeddedSigner::from_key(node()))
}

/// A scripted signer with lnd's words, attached.
async fn lnd(station: &Station, server: SocketAddr) -> Dialer {
    let mut dialer = call(station, server).await;
    dialer.register().await;
    dialer
}

async fn call(station: &Station, server: SocketAddr) -> Dialer {
    let macaroon = station.macaroon();
    Dialer::call(server, &station.certificate, &[("macaroon", &macaroon)]).await
}

fn lapsed(event: &Event) -> Option<LapseReport> {
    match event {
        Event::SignerLapsed(report) => Some(report.clone()),
        _ => None,
    }
}

/// Three channel peers, one gossip peer, and the node that wants links with them.
struct Lit {
    station: Station,
    log: Log,
    channel: Peers,
    gossip: Peers,
    heard: Arc<watched::Watched<station::Gossip>>,
}

impl Lit {
    async fn open(window: Duration, clock: Arc<dyn Clock>) -> Self {
        let (station, inbox) = Station::open(&node(), window, clock).await;
        let log = Log::of(&station.telemetry);
        let heard = read_inbox(inbox);
        let channel = Peers::listen(100, CHANNEL_PEERS).await;
        let gossip = Peers::listen(200, 1).await;
        station.want(&channel, Tag::ChannelBearing).await;
        station.want(&gossip, Tag::GossipOnly).await;
        Self {
            station,
            log,
            channel,
            gossip,
            heard,
        }
    }

    async fn until_relit(&self, times: usize) {
        let (_, (up, failed)) = self
            .log
            .nth("a relight", times, |event| match event {
                Event::Relit { up, failed, .. } => Some((*up, *failed)),
                _ => None,
            })
            .await;
        assert_eq!((up, failed), (CHANNEL_PEERS, 0));
        let ups = CHANNEL_PEERS * times;
        self.channel
            .until("they are back", |seen| seen.ups == ups)
            .await;
    }

    async fn until_gossip_is_up(&self) {
        self.gossip.gossip_up_to(1);
        self.hears(1).await;
    }

    /// The gossip link brings what is said on it, up to that number.
    async fn hears(&self, number: u64) {
        self.gossip.gossip_up_to(number);
        let id = self.gossip.places[0].0;
        self.heard
            .until_true("gossip", |gossip| gossip.of.get(&id) == Some(&number))
            .await;
        assert_eq!(self.heard.read(|gossip| gossip.out_of_turn), 0);
    }

    /// Every channel link has ended, and the gossip link has not.
    async fn torn_down(&self) {
        self.channel
            .until("torn down", |seen| seen.ended == CHANNEL_PEERS)
            .await;
        self.hears(2).await;
        assert_eq!(self.gossip.seen.read(|seen| (seen.ups, seen.ended)), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_whose_connection_is_half_open_lapses_at_the_end_of_its_window() {
    let clock = ManualClock::new();
    let window = limits::LIVENESS_WINDOW_MIN;
    let lit = Lit::open(window, Arc::new(clock.clone())).await;
    let proxy = Proxy::start(lit.station.gateway.local_addr());
    let agent = lit.station.agent(proxy.address, signer());
    lit.until_relit(1).await;
    lit.until_gossip_is_up().await;

    proxy.fall_silent();
    let silent_at = clock.unix();
    // PINGs go out on the way, and nothing answers them. A driver that has not waited for its next moment again would be late
    // by more than a scheduler's whim, and take it for a standstill of the whole process.
    for _ in 0..9 {
        let sleepers = clock.sleepers();
        clock.advance(window / 10);
        let waits_again = async {
            while clock.sleepers() < sleepers {
                tokio::task::yield_now().await;
            }
        };
        soon("it waits again", waits_again).await;
        assert!(lit.station.context.is_live());
    }
    clock.advance(window / 10);
    let lapse = lit.station.until_lapsed(1).await;
    assert_eq!(lapse.reason, LapseReason::LivenessLost);
    let (at, report) = lit.log.nth("the report", 1, lapsed).await;
    assert_eq!(at, silent_at + window);
    assert_eq!((report.dropped, report.retained), (CHANNEL_PEERS, 1));
    lit.torn_down().await;
    // The connection is still open at its other end, and the agent there knows nothing yet.
    proxy.until_open(1).await;
    assert_eq!(*agent.state().borrow(), AgentState::Attached);

    let _returned = lit
        .station
        .agent(lit.station.gateway.local_addr(), signer());
    lit.station.until_live(2).await;
    lit.until_relit(2).await;
}

/// The incumbent's connection is half-open and its window long: the challenge finds out in 2 s.
async fn replaces(lit: &Lit, proxy: &Proxy, returns: impl AsyncFn() -> Option<Agent>) {
    lit.until_relit(1).await;
    lit.until_gossip_is_up().await;
    proxy.fall_silent();
    let silenced = Instant::now();
    let _returned = returns().await;
    lit.station.until_live(2).await;
    let lapse = lit.station.context.last_lapse().unwrap();
    assert_eq!(lapse.epoch.get(), 1);
    assert_eq!(lapse.reason, LapseReason::TakenOver);
    assert!(lapse.at.duration_since(silenced) < HALF_OPEN_WINDOW);
    let (_, report) = lit.log.nth("the report", 1, lapsed).await;
    assert_eq!((report.dropped, report.retained), (CHANNEL_PEERS, 1));
    lit.torn_down().await;
    lit.until_relit(2).await;
}

/// Far longer than the challenge of an incumbent: what ends the session before it is not the window.
const HALF_OPEN_WINDOW: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_returning_agent_replaces_its_half_open_self_as_soon_as_that_fails_its_challenge() {
    let lit = Lit::open(HALF_OPEN_WINDOW, Arc::new(SystemClock::new())).await;
    let gateway = lit.station.gateway.local_addr();
    let proxy = Proxy::start(gateway);
    let _half_open = lit.station.agent(proxy.address, signer());
    replaces(&lit, &proxy, async || {
        Some(lit.station.agent(gateway, signer()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returning_lnd_replaces_its_half_open_self_as_soon_as_that_fails_its_challenge() {
    let lit = Lit::open(HALF_OPEN_WINDOW, Arc::new(SystemClock::new())).await;
    let gateway = lit.station.gateway.local_addr();
    let proxy = Proxy::start(gateway);
    let half_open = lnd(&lit.station, proxy.address).await;
    let serving = tokio::spawn(serve_ecdh(half_open));
    replaces(&lit, &proxy, async || {
        let returned = lnd(&lit.station, gateway).await;
        tokio::spawn(serve_ecdh(returned));
        None
    })
    .await;
    // What it sees in the end is the end of its connection, once that passes again.
    proxy.speak();
    soon("the end of the old one", serving).await.unwrap();
}

/// Answers every question in its order, for as long as there are any.
async fn serve_ecdh(mut signer: Dialer) -> usize {
    let mut answered = 0;
    while let Some((id, point)) = signer.next_ecdh().await {
        signer.say(&shared_key(id, 7, point));
        answered += 1;
    }
    answered
}

/// How often the second signer tries.
const ATTEMPTS: usize = 20;

fn conflict(event: &Event) -> Option<()> {
    match event {
        Event::SignerRefused { failure, .. } => {
            assert_eq!(*failure, "signer_conflict");
            Some(())
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_healthy_agents_do_not_swap() {
    // The gateway's time stands still: nothing here is late.
    let clock = Arc::new(ManualClock::new());
    let (station, _inbox) = Station::open(&node(), limits::LIVENESS_WINDOW, clock).await;
    let log = Log::of(&station.telemetry);
    let gateway = station.gateway.local_addr();
    let first = station.agent(gateway, signer());
    station.until_live(1).await;
    let (config, clock) = (station.agent_config(gateway), ManualClock::new());
    let second = Agent::start_with(config, signer(), Arc::new(clock.clone()));
    let mut state = second.state();
    for attempt in 1..=ATTEMPTS {
        log.nth("named", attempt, conflict).await;
        let waits = state.wait_for(|state| matches!(state, AgentState::Waiting { .. }));
        let AgentState::Waiting {
            failure,
            detail,
            retry_in,
        } = soon("a refusal", waits).await.unwrap().clone()
        else {
            panic!("not waiting");
        };
        assert_eq!(failure, "rejected", "{detail}");
        assert!(detail.contains("another signer is attached"), "{detail}");
        // It goes on as soon as it may, for ever.
        let waits = async {
            while clock.sleepers() == 0 {
                tokio::task::yield_now().await;
            }
        };
        soon("it waits", waits).await;
        clock.advance(retry_in);
    }
    assert_eq!(station.context.state().live().map(Epoch::get), Some(1));
    assert!(station.context.last_lapse().is_none());
    assert_eq!(second.report().attached, 0);
    assert_eq!((first.report().dials, first.report().attached), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_healthy_lnds_do_not_swap() {
    let clock = Arc::new(ManualClock::new());
    let (station, _inbox) = Station::open(&node(), limits::LIVENESS_WINDOW, clock).await;
    let log = Log::of(&station.telemetry);
    let gateway = station.gateway.local_addr();
    let first = lnd(&station, gateway).await;
    station.until_live(1).await;
    let serving = tokio::spawn(serve_ecdh(first));
    for attempt in 1..=ATTEMPTS {
        let mut second = call(&station, gateway).await;
        second.say(&registration());
        assert_eq!(second.hear().await.unwrap(), completed());
        let (id, point) = second.hear_ecdh().await;
        second.say(&shared_key(id, 7, point));
        // gRPC's ALREADY_EXISTS.
        assert_eq!(second.hear().await, Err("status 6".to_owned()));
        log.nth("named", attempt, conflict).await;
    }
    assert_eq!(station.context.state().live().map(Epoch::get), Some(1));
    assert!(station.context.last_lapse().is_none());
    drop(station);
    assert_eq!(soon("the end", serving).await.unwrap(), ATTEMPTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_with_handshakes_in_mid_ecdh_hangs_nothing() {
    let clock = Arc::new(ManualClock::new());
    let lit = Lit::open(limits::LIVENESS_WINDOW, clock).await;
    let station = &lit.station;
    let node_at = station.supervisor.listen(([127, 0, 0, 1], 0).into());
    let node_at = node_at.await.unwrap();
    let proxy = Proxy::start(station.gateway.local_addr());
    let holder = OneAtATime::held(node());
    let agent = station.agent(proxy.address, holder.clone());
    // The proof.
    holder.allow(1);
    station.until_live(1).await;
    let context = station.context.clone();
    let asking = tokio::spawn(async move {
        let call = EcdhCall::new(key(1).point(), Purpose::ChannelDial);
        context.ecdh(call).await.map(|_| ())
    });
    let stranger = tokio::spawn(RawLink::connect(
        node_at,
        Arc::new(key(300)),
        node().node_id(),
    ));
    // The proof, all peers' dials, the embedder's question, the stranger's act one.
    holder.until_asked(1 + CHANNEL_PEERS + 1 + 1 + 1).await;

    proxy.cut();
    assert_eq!(
        station.until_lapsed(1).await.reason,
        LapseReason::StreamClosed
    );
    let failed = soon("the question fails at once", asking).await.unwrap();
    assert!(
        matches!(failed, Err(EcdhError::SignerAway(_))),
        "{failed:?}"
    );
    proxy.until_open(0).await;
    let again = |state: &AgentState| matches!(state, AgentState::Waiting { .. });
    soon("the agent sees it", agent.state().wait_for(again))
        .await
        .unwrap();

    // The old questions' answers go nowhere, the new ones' arrive.
    holder.allow(1000);
    station.until_live(2).await;
    lit.until_relit(1).await;
    lit.until_gossip_is_up().await;
    // Its act one has been read, so its question is asked again under the new session.
    let stranger = soon("the stranger's handshake", stranger).await.unwrap();
    assert!(stranger.is_ok(), "{:?}", stranger.err());
}

/// Asks that many ECDH at once of a signer 50 ms away that takes 5 ms for each, in order. How many were answered; the others have
/// failed by their own deadline.
///
/// With a `clock` of its own the gateway's time passes by the work of the signer alone: a crowded machine makes nothing late.
async fn over_50_ms(requests: usize, window: Duration, clock: Option<ManualClock>) -> usize {
    let gateways: Arc<dyn Clock> = match &clock {
        Some(clock) => Arc::new(clock.clone()),
        None => Arc::new(SystemClock::new()),
    };
    let (station, _inbox) = Station::open(&node(), window, gateways).await;
    let proxy = Proxy::start(station.gateway.local_addr());
    proxy.delay(ONE_WAY);
    let mut signer = lnd(&station, proxy.address).await;
    station.until_live(1).await;
    let serving = tokio::spawn(async move {
        while let Some((id, point)) = signer.next_ecdh().await {
            // Works for 5 ms, as a slow device does; its connection is another thread's.
            let work = tokio::task::spawn_blocking(move || {
                let began = Instant::now();
                let mut answer = Vec::new();
                while began.elapsed() < Duration::from_millis(5) {
                    answer = shared_key(id, 7, point);
                }
                answer
            });
            signer.say(&work.await.unwrap());
            if let Some(clock) = &clock {
                clock.advance(Duration::from_millis(5));
            }
        }
    });
    let asking: Vec<_> = (0..requests)
        .map(|_| {
            let context = station.context.clone();
            let call = EcdhCall::new(key(1).point(), Purpose::ChannelDial);
            tokio::spawn(async move { context.ecdh(call).await })
        })
        .collect();
    let expected = key(1).ecdh(&node().point());
    let mut answered = 0;
    for asking in asking {
        match soon("an answer or a failure", asking).await.unwrap() {
            Ok((secret, lease)) => {
                assert!(lease.is_live() && secret.ct_eq(&expected));
                answered += 1;
            }
            Err(EcdhError::Signer(SignerError::Unavailable(_))) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(station.context.state().live().map(Epoch::get), Some(1));
    assert!(station.context.last_lapse().is_none(), "a false lapse");
    serving.abort();
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_signer_far_away_with_400_queued_is_no_lapse() {
    // Two windows' worth of work.
    let clock = ManualClock::new();
    let answered = over_50_ms(400, limits::LIVENESS_WINDOW_MIN, Some(clock)).await;
    assert_eq!(answered, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_signer_far_away_cannot_do_in_an_acts_time_fails_and_the_rest_does_not() {
    let requests = 1500;
    let answered = over_50_ms(requests, limits::LIVENESS_WINDOW, None).await;
    println!("{answered} of {requests} answered in time");
    // 5 s at 5 ms each are 1,000 at most.
    assert!(0 < answered && answered <= 1100, "{answered}");
}

/// Sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.into_split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_delays_each_byte_keeps_their_order_and_passes_ends_on() {
    let proxy = Proxy::start(echo().await);
    proxy.delay(ONE_WAY);
    let mut socket = TcpStream::connect(proxy.address).await.unwrap();
    for _ in 0..3 {
        let sent = Instant::now();
        socket.write_all(b"x").await.unwrap();
        assert_eq!(soon("it comes back", socket.read_u8()).await.unwrap(), b'x');
        assert!(sent.elapsed() >= 2 * ONE_WAY);
    }
    // More than a round trip's worth of lock-step chunks: on the way at once, or this takes a minute.
    let sent: Vec<u8> = (0..8_u32 << 20).map(|at| (at % 251) as u8).collect();
    let (mut read, mut write) = socket.into_split();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut came = Vec::new();
    soon("all of it", read.read_to_end(&mut came))
        .await
        .unwrap();
    writing.await.unwrap();
    assert!(came == expected, "{} of {}", came.len(), expected.len());
    assert_eq!(proxy.passed(), [expected.len() + 3; 2]);
    proxy.until_open(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_falls_silent_cuts_and_closes() {
    let proxy = Proxy::start(echo().await);
    let dial = async || {
        let mut socket = TcpStream::connect(proxy.address).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        assert_eq!(soon("it comes back", socket.read_u8()).await.unwrap(), b'x');
        socket
    };
    let mut silent = dial().await;
    proxy.fall_silent();
    let before = proxy.passed();
    silent.write_all(b"y").await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(proxy.passed(), before);
    proxy.speak();
    assert_eq!(soon("it comes back", silent.read_u8()).await.unwrap(), b'y');
    proxy.cut();
    let end = soon("an end", silent.read_u8()).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    let mut closed = dial().await;
    proxy.close();
    let mut rest = Vec::new();
    assert_eq!(
        soon("an end", closed.read_to_end(&mut rest)).await.unwrap(),
        0
    );
    drop(closed);
    proxy.until_open(0).await;
}
