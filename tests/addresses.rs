//! What a dial does with a peer's address: names, onion services and proxies, and the addresses that are never dialled. On real sockets
//! of loopback; the clock is moved by hand. What a text means as an address is shown in `src/address.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::similar_names,
    reason = "tests fail by panicking"
)]

#[path = "support/socks.rs"]
mod proxy;
mod rig;

use pilotlight::address::{AddressOrigin, DnsName, KnownAddress, OnionService, PeerAddress};
use pilotlight::clock::ManualClock;
use pilotlight::limits;
use pilotlight::link::{Identity, Resolver, Resolving, Tag};
use pilotlight::node_id::NodeId;
use pilotlight::signer::{EmbeddedSigner, Signer, SignerContext, SignerSession};
use pilotlight::supervisor::{
    Builder, ConnectError, Inbox, PeerSpec, PeerState, StartError, Supervisor,
};
use pilotlight::telemetry::{Event, EventStream};
use proxy::Socks;
use rig::{Far, Node, event, key, until, within};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// A resolver that answers as the test says, and notes what it is asked.
#[derive(Clone, Default)]
struct Names {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Default)]
enum Answer {
    #[default]
    No,
    Never,
    These(Vec<SocketAddr>),
}

impl Names {
    fn say(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Resolver for Names {
    fn resolve<'a>(&'a self, name: &'a DnsName, port: u16) -> Resolving<'a> {
        self.asked.lock().unwrap().push(format!("{name}:{port}"));
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(async move {
            match answer {
                Answer::No => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
                Answer::Never => std::future::pending().await,
                Answer::These(addresses) => Ok(addresses),
            }
        })
    }
}

/// A node whose signer is there, which has no channels.
async fn live(change: impl FnOnce(Builder) -> Builder) -> (Node, ManualClock, EventStream) {
    let (mut node, clock) = away(change).await;
    node.attach().await;
    node.supervisor.declare_channel_peers([]).await.unwrap();
    let events = node.supervisor.events();
    (node, clock, events)
}

/// A node whose signer is not there.
async fn away(change: impl FnOnce(Builder) -> Builder) -> (Node, ManualClock) {
    let clock = ManualClock::new();
    let (node, inbox) = Node::start(|builder| change(builder.clock(Arc::new(clock.clone())))).await;
    receive(inbox);
    (node, clock)
}

fn receive(mut inbox: Inbox) {
    tokio::spawn(async move { while inbox.recv().await.is_some() {} });
}

/// Another node, all of it ours and real, that takes whoever dials it.
struct Other {
    id: NodeId,
    address: SocketAddr,
    _session: SignerSession,
    supervisor: Supervisor,
}

impl Other {
    async fn start(number: u64) -> Self {
        let signer = Arc::new(EmbeddedSigner::from_key(key(number)));
        let context = SignerContext::new(signer.node_id());
        let (supervisor, inbox) = Supervisor::builder(context.clone()).start().await.unwrap();
        receive(inbox);
        let proof = context.prove(&*signer, &mut [7; 32]).await.unwrap();
        let session = context.attach(proof, signer).unwrap();
        supervisor.declare_channel_peers([]).await.unwrap();
        Self {
            id: supervisor.node_id(),
            address: supervisor.listen(loopback(0)).await.unwrap(),
            _session: session,
            supervisor,
        }
    }

    /// The keys of who is linked with it.
    async fn guests(&self) -> Vec<NodeId> {
        let peers = self.supervisor.peers().await.unwrap();
        let linked = peers.iter().filter(|peer| peer.link.is_some());
        linked.map(|peer| peer.node_id).collect()
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn name(port: u16) -> PeerAddress {
    format!("node.example:{port}").parse().unwrap()
}

fn onion(number: u8) -> PeerAddress {
    let service = OnionService::of_key([number; 32]);
    PeerAddress::Onion {
        service,
        port: 9735,
    }
}

fn spec(peer: NodeId, address: impl Into<KnownAddress>) -> PeerSpec {
    PeerSpec::new(peer, address).tagged(Tag::GossipOnly)
}

/// The label of the next failed dial.
async fn failure(events: &mut EventStream) -> &'static str {
    event(events, "a failed dial", |event| match event {
        Event::DialFailed { failure, .. } => Some(failure),
        _ => None,
    })
    .await
}

async fn link_up(events: &mut EventStream) -> (PeerAddress, Identity) {
    event(events, "a link", |event| match event {
        Event::LinkUp {
            address, identity, ..
        } => Some((address, identity)),
        _ => None,
    })
    .await
}

async fn state(node: &Node, peer: NodeId) -> PeerState {
    let peers = node.supervisor.peers().await.unwrap();
    peers.iter().find(|of| of.node_id == peer).unwrap().state
}

fn failed_as(label: &str) -> impl Fn(&ConnectError) -> bool {
    move |error| matches!(error, ConnectError::Failed { failure, .. } if *failure == label)
}

#[tokio::test]
async fn a_name_is_looked_up_at_each_dial_and_its_answers_are_tried_in_turn() {
    let names = Names::default();
    let (node, clock, mut events) = live(|with| with.resolver(Arc::new(names.clone()))).await;
    let far = Other::start(2).await;
    let port = far.address.port();
    let error = node.supervisor.connect(spec(far.id, name(port))).await;
    let error = error.unwrap_err();
    assert!(failed_as("resolve")(&error), "{error}");
    assert!(error.to_string().contains("no such name"), "{error}");
    assert_eq!(state(&node, far.id).await, PeerState::Backoff);

    // Nobody listens at the first; the port of an answer is not looked at.
    names.say(Answer::These(vec![
        SocketAddr::from(([127, 0, 0, 9], port)),
        loopback(1),
    ]));
    clock.advance(limits::BACKOFF_FIRST);
    let (address, _) = link_up(&mut events).await;
    assert_eq!(address, name(port));
    assert_eq!(names.asked(), vec![format!("node.example:{port}"); 2]);
    let peers = node.supervisor.peers().await.unwrap();
    assert_eq!(peers[0].address, Some(name(port)));
}

#[tokio::test]
async fn the_system_knows_localhost() {
    let (node, _, _) = live(|with| with).await;
    let far = Other::start(2).await;
    let address: PeerAddress = format!("localhost:{}", far.address.port()).parse().unwrap();
    let connecting = node.supervisor.connect(spec(far.id, address));
    within("the link", connecting).await.unwrap();
}

#[tokio::test]
async fn a_resolver_that_keeps_silent_is_given_up() {
    let names = Names::default();
    names.say(Answer::Never);
    let (node, clock, _) = live(|with| with.resolver(Arc::new(names.clone()))).await;
    let connecting = node.supervisor.connect(spec(key(2).node_id(), name(9735)));
    let giving_up = async {
        until("the question", || !names.asked().is_empty()).await;
        clock.advance(limits::RESOLVE_DEADLINE);
    };
    let (connected, ()) = within("the end", async { tokio::join!(connecting, giving_up) }).await;
    let error = connected.unwrap_err();
    assert!(failed_as("resolve")(&error), "{error}");
}

/// Whoever writes a list could have the node dial into its own network by a name. The same name, given by hand, is dialled.
#[tokio::test]
async fn a_learned_name_that_leads_into_our_own_network_is_not_dialled() {
    let names = Names::default();
    let (node, _, mut events) = live(|with| with.resolver(Arc::new(names.clone()))).await;
    let far = Other::start(2).await;
    let port = far.address.port();
    names.say(Answer::These(vec![far.address]));
    let learned = KnownAddress::learned(name(port));
    let error = node.supervisor.connect(spec(far.id, learned)).await;
    let error = error.unwrap_err();
    assert!(failed_as("not_routable")(&error), "{error}");
    assert_eq!(failure(&mut events).await, "not_routable");
    assert_eq!(far.guests().await, []);
    let connecting = node.supervisor.connect(spec(far.id, name(port)));
    within("the link", connecting).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_dialled_is_said_to_be_so_at_once() {
    let (node, _, mut events) = live(|with| with).await;
    let far = Other::start(2).await;
    for address in [
        KnownAddress::from(onion(1)),
        KnownAddress::learned(onion(1)),
        KnownAddress::learned(far.address),
    ] {
        let peer = key(3).node_id();
        let error = node.supervisor.connect(spec(peer, address)).await;
        assert_eq!(error.unwrap_err(), ConnectError::NotDialable);
        assert_eq!(state(&node, peer).await, PeerState::NotDialable);
        node.supervisor.remove_peer(peer).await.unwrap();
    }
    // Of several addresses those are dialled that can be.
    let spec = PeerSpec {
        addresses: vec![onion(1).into(), far.address.into()],
        ..spec(far.id, onion(1))
    };
    let connecting = node.supervisor.connect(spec);
    within("the link", connecting).await.unwrap();
    assert_eq!(link_up(&mut events).await.0, far.address);
    assert_eq!(far.guests().await, [node.id()]);
}

#[tokio::test]
async fn what_the_operator_gives_replaces_everything_and_what_is_learned_only_what_was_learned() {
    // Without a signer, and with no persona to dial: nobody is.
    let (node, _) = away(|with| with).await;
    let peer = key(2).node_id();
    let learned = |text: &str| KnownAddress::learned(text.parse::<PeerAddress>().unwrap());
    let by_hand = |text: &str| KnownAddress::from(text.parse::<PeerAddress>().unwrap());
    let mine = by_hand("127.0.0.1:1");
    for (given, expected) in [
        (vec![learned("1.1.1.1:1")], vec![learned("1.1.1.1:1")]),
        (vec![mine.clone()], vec![mine.clone()]),
        (
            vec![learned("1.1.1.1:1"), learned("127.0.0.1:1")],
            vec![mine.clone(), learned("1.1.1.1:1")],
        ),
        (
            vec![learned("1.1.1.2:1")],
            vec![mine.clone(), learned("1.1.1.2:1")],
        ),
        (
            vec![learned("1.1.1.3:1"), by_hand("127.0.0.1:2")],
            vec![by_hand("127.0.0.1:2"), learned("1.1.1.3:1")],
        ),
    ] {
        let spec = PeerSpec {
            addresses: given,
            ..PeerSpec::new(peer, mine.clone())
        };
        node.supervisor.add_peer(spec).await.unwrap();
        let peers = node.supervisor.peers().await.unwrap();
        assert_eq!(peers[0].addresses, expected);
    }
    let origins = [AddressOrigin::ByHand, AddressOrigin::Learned].map(AddressOrigin::as_str);
    assert_eq!(origins, ["by_hand", "learned"]);
}

/// Not even by hand: it could only be refused, again and again.
#[tokio::test]
async fn we_never_dial_ourselves() {
    let names = Names::default();
    let announced: PeerAddress = "me.example:9735".parse().unwrap();
    let (node, _, mut events) = live(|with| {
        let with = with.resolver(Arc::new(names.clone()));
        with.announces([announced.clone(), onion(9)])
    })
    .await;
    let own = node.supervisor.listen(loopback(0)).await.unwrap();
    names.say(Answer::These(vec![own]));
    for (number, address) in (20..).zip([own.into(), announced, name(own.port())]) {
        let peer = key(number).node_id();
        let error = node.supervisor.connect(spec(peer, address)).await;
        let error = error.unwrap_err();
        assert!(failed_as("own_address")(&error), "{error}");
        assert_eq!(failure(&mut events).await, "own_address");
    }
    assert_eq!(names.asked(), [format!("node.example:{}", own.port())]);
}

#[tokio::test]
async fn an_onion_service_is_reached_through_the_proxy() {
    let socks = Socks::start().await;
    let (node, _, mut events) = live(|with| with.tor_proxy(Some(socks.address))).await;
    let far = Other::start(2).await;
    socks.leads(&onion(1), far.address);
    let connecting = node.supervisor.connect(spec(far.id, onion(1)));
    let link = within("the link", connecting).await.unwrap();
    assert_eq!(link_up(&mut events).await, (onion(1), Identity::Node));
    assert_eq!(far.guests().await, [node.id()]);
    let asked = socks.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, onion(1).to_string());
    let (username, password) = &asked[0].circuit;
    assert!(username.len() == 32 && password.len() == 32);
    assert_eq!(link.peer(), far.id);
    // IP addresses go straight.
    let straight = Other::start(3).await;
    let connecting = node.supervisor.connect(spec(straight.id, straight.address));
    within("the link", connecting).await.unwrap();
    assert_eq!(socks.asked().len(), 1);
}

#[tokio::test]
async fn with_everything_through_the_proxy_this_machine_looks_up_no_name() {
    let socks = Socks::start().await;
    let names = Names::default();
    let (node, _, _) = live(|with| {
        with.tor_proxy(Some(socks.address))
            .everything_through_tor(true)
            .resolver(Arc::new(names.clone()))
    })
    .await;
    let far = Other::start(2).await;
    socks.leads(&name(9735), far.address);
    socks.leads(&"127.0.0.1:7", far.address);
    for address in [name(9735), loopback(7).into()] {
        let connecting = node.supervisor.connect(spec(far.id, address.clone()));
        within("the link", connecting).await.unwrap();
        assert_eq!(socks.asked().last().unwrap().target, address.to_string());
        node.supervisor.remove_peer(far.id).await.unwrap();
        until_idle(&node).await;
    }
    assert_eq!(names.asked(), [""; 0]);
    let all = socks.asked();
    assert_eq!(all[0].circuit, all[1].circuit, "one identity, one circuit");
    // Without a proxy that cannot be.
    let context = SignerContext::new(key(1).node_id());
    let starting = Supervisor::builder(context).everything_through_tor(true);
    let error = starting.start().await.map(drop).unwrap_err();
    assert!(matches!(error, StartError::NoProxy), "{error}");
}

async fn until_idle(node: &Node) {
    within("the link's end", async {
        while !node.supervisor.peers().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A node that is an onion service: its personas go through the proxy, even to IP addresses, each in a circuit of its own.
#[tokio::test]
async fn p7_a_hidden_node_s_personas_have_circuits_of_their_own() {
    let socks = Socks::start().await;
    let (mut node, clock) = away(|with| {
        with.tor_proxy(Some(socks.address))
            .announces([onion(9)])
            .redial(pilotlight::supervisor::Redial::Persona)
            .gossip_floor(1)
    })
    .await;
    let mut events = node.supervisor.events();
    let far = Other::start(2).await;
    socks.leads(&far.address, far.address);
    socks.leads(&onion(1), far.address);
    node.supervisor
        .add_peer(spec(far.id, far.address))
        .await
        .unwrap();
    let mut circuits = BTreeSet::new();
    for absences in 1..=2 {
        node.supervisor.peers().await.unwrap();
        clock.advance(limits::PERSONA_GRACE);
        let (address, identity) = link_up(&mut events).await;
        assert_eq!((address, identity), (far.address.into(), Identity::Persona));
        let asked = socks.asked();
        assert_eq!(asked.len(), absences);
        assert_eq!(asked[absences - 1].target, far.address.to_string());
        circuits.insert(asked[absences - 1].circuit.clone());
        assert!(!far.guests().await.contains(&node.id()));
        if absences == 2 {
            break;
        }
        // The node itself goes straight: it is asked to hide its personas, not itself.
        node.attach().await;
        let (_, identity) = link_up(&mut events).await;
        assert_eq!(identity, Identity::Node);
        assert_eq!(socks.asked().len(), absences);
        clock.advance(limits::STABLE_AFTER);
        let _ = node.lapse();
        // Its link lives on; only a lost one is replaced by a persona.
        node.supervisor.peers().await.unwrap();
        for guest in far.guests().await {
            far.supervisor.remove_peer(guest).await.unwrap();
        }
        event(
            &mut events,
            "the node's own link's end",
            |event| match event {
                Event::LinkDown { identity, .. } => (identity == Identity::Node).then_some(()),
                _ => None,
            },
        )
        .await;
        node.supervisor.peers().await.unwrap();
        clock.advance(limits::BACKOFF_FIRST);
    }
    assert_eq!(circuits.len(), 2, "each persona has a circuit of its own");
}

/// A proxy that is down keeps nobody from a peer that has another address too, nor does a machine without IPv6.
#[tokio::test]
async fn where_no_way_leads_the_peer_is_dialled_at_its_next_address() {
    let nobody = Far::listen(5).address;
    let other = Other::start(2).await;
    let (node, clock, mut events) = live(|with| with.tor_proxy(Some(nobody))).await;
    let spec = PeerSpec {
        addresses: vec![onion(1).into(), other.address.into()],
        ..spec(other.id, onion(1))
    };
    node.supervisor.add_peer(spec).await.unwrap();
    assert_eq!(failure(&mut events).await, "proxy");
    clock.advance(limits::BACKOFF_FIRST);
    let (address, _) = link_up(&mut events).await;
    assert_eq!(address, PeerAddress::from(other.address));
}

#[tokio::test]
async fn what_is_wrong_with_the_proxy_is_not_held_against_the_peer() {
    // It does not know the service.
    let socks = Socks::start().await;
    let (node, _, _) = live(|with| with.tor_proxy(Some(socks.address))).await;
    let peer = key(2).node_id();
    let error = node.supervisor.connect(spec(peer, onion(1))).await;
    assert!(failed_as("proxy_refused")(&error.unwrap_err()));
    // It would have two identities share a circuit.
    let socks = Socks::choosing(0).await;
    let (node, _, _) = live(|with| with.tor_proxy(Some(socks.address))).await;
    let error = node.supervisor.connect(spec(peer, onion(1))).await;
    let error = error.unwrap_err();
    assert!(failed_as("proxy")(&error), "{error}");
    assert!(error.to_string().contains("identities apart"), "{error}");
    assert_eq!(socks.asked(), []);
    // It is not there.
    let nobody = Far::listen(5).address;
    let (node, _, mut events) = live(|with| with.tor_proxy(Some(nobody))).await;
    node.supervisor
        .add_peer(spec(peer, onion(1)))
        .await
        .unwrap();
    assert_eq!(failure(&mut events).await, "proxy");
}
