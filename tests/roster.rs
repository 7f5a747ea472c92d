//! Who is dialled again, when and where, on real sockets; the clock is moved by hand. What the machine alone decides is shown in
//! `supervisor_machine.rs`.
#![allow(
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::similar_names,
    clippy::match_wild_err_arm,
    clippy::needless_pass_by_value,
    clippy::single_match_else,
    clippy::unchecked_time_subtraction,
    reason = "a test prints its seed and its figures, and tells its story in one go"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod rig;

use pilotlight::book::{Book, BookFuture, MemoryBook, PeerRecord};
use pilotlight::clock::{Clock, ManualClock};
use pilotlight::limits;
use pilotlight::link::Tag;
use pilotlight::node_id::NodeId;
use pilotlight::supervisor::{ConnectError, Mode, PeerSpec, PeerState, RosterError, Urgency};
use pilotlight::telemetry::Event;
use rig::{Far, Node, event, key, until, within};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers act one with a whole act two that no key of the peer's has made.
async fn impostor() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut one = [0; 50];
            if socket.read_exact(&mut one).await.is_ok() {
                let mut two = [0; 50];
                two[1..34].copy_from_slice(key(99).node_id().as_bytes());
                let _ = socket.write_all(&two).await;
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_node_key_is_not_a_timeout() {
    let clock = ManualClock::new();
    let (mut node, _inbox) = Node::start(|builder| builder.clock(Arc::new(clock.clone()))).await;
    node.attach().await;
    let mut events = node.supervisor.events();
    let wrong = impostor().await;
    let far = Far::listen(1);
    // Nobody but the impostor: the longest wait at once.
    let alone = Far::listen(2).id;
    let spec = PeerSpec::new(alone, wrong).tagged(Tag::GossipOnly);
    let error = within("the first dial", node.supervisor.connect(spec))
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            ConnectError::Failed {
                failure: "protocol",
                ..
            }
        ),
        "{error}"
    );
    let retry = event(&mut events, "the failure", |event| match event {
        Event::DialFailed { peer, retry_in, .. } if peer == alone => Some(retry_in),
        _ => None,
    })
    .await
    .unwrap();
    assert!(retry >= limits::BACKOFF_MAX / 2, "{retry:?}");
    // With another address: on to that after an ordinary wait.
    let spec = PeerSpec {
        addresses: vec![wrong.into(), far.address.into()],
        ..PeerSpec::new(far.id, wrong).tagged(Tag::GossipOnly)
    };
    node.supervisor.add_peer(spec).await.unwrap();
    let retry = event(&mut events, "the failure", |event| match event {
        Event::DialFailed { peer, retry_in, .. } if peer == far.id => Some(retry_in),
        _ => None,
    })
    .await
    .unwrap();
    assert!(retry <= limits::BACKOFF_FIRST, "{retry:?}");
    clock.advance(limits::BACKOFF_FIRST);
    let _wire = within("the dial of the right address", far.accept()).await;
    event(&mut events, "the link", |event| {
        matches!(event, Event::LinkUp { peer, address, .. } if peer == far.id && address == far.address)
            .then_some(())
    })
    .await;
}

/// A signer that has lapsed twice: channel peers wait, gossip peers do not, and it is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_the_return_of_a_signer_that_flaps_does_not_drag_its_channel_peers_along() {
    let clock = ManualClock::new();
    let (mut node, _inbox) = Node::start(|builder| {
        builder
            .clock(Arc::new(clock.clone()))
            .hold_down(limits::HOLD_DOWN_MAX)
    })
    .await;
    let address = node
        .supervisor
        .listen("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let (channel, gossip) = (Far::listen(1), Far::listen(2));
    let caller = Far::listen(3);
    let mut events = node.supervisor.events();
    for _ in 0..2 {
        node.attach().await;
        // The driver has seen it, and answers after the change of the mode: a lapse before that would change nothing.
        event(&mut events, "the attach", |event| {
            matches!(event, Event::SignerAttached { .. }).then_some(())
        })
        .await;
        node.supervisor.pending().await.unwrap();
        let _ = node.lapse();
        event(&mut events, "the lapse", |event| {
            matches!(event, Event::ModeChanged { to: Mode::Safe, .. }).then_some(())
        })
        .await;
    }
    node.attach().await;
    let wait = event(&mut events, "the hold-down", |event| match event {
        Event::HeldDown { lapses, wait } => {
            assert_eq!(lapses, 2);
            Some(wait)
        }
        _ => None,
    })
    .await;
    assert_eq!(wait, Duration::from_secs(1));
    let spec = PeerSpec::new(channel.id, channel.address).tagged(Tag::ChannelBearing);
    let error = within("an answer", node.supervisor.connect(spec))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::HeldDown { .. }), "{error}");
    println!("{error}");
    let spec = PeerSpec::new(gossip.id, gossip.address).tagged(Tag::GossipOnly);
    let (link, _wire) = tokio::join!(node.supervisor.connect(spec), gossip.accept());
    assert!(link.is_ok(), "gossip peers wait for nothing");
    // A channel peer that dials us is authenticated and waits; with the end of the hold-down it gets its `init`.
    node.supervisor.promote(caller.id).await.unwrap();
    let greeting = tokio::spawn(async move { caller.dial(node_id(), address).await });
    event(&mut events, "the handshake", |event| {
        matches!(event, Event::Handshake { result: "ok", direction, .. }
            if direction == pilotlight::link::Direction::Inbound)
        .then_some(())
    })
    .await;
    assert!(!greeting.is_finished());
    let state = |peers: Vec<pilotlight::supervisor::PeerView>| {
        peers
            .into_iter()
            .find(|peer| peer.node_id == channel.id)
            .map(|peer| peer.state)
    };
    assert_eq!(
        state(node.supervisor.peers().await.unwrap()),
        Some(PeerState::Held)
    );
    clock.advance(wait);
    let _theirs = within("the inbound link", greeting).await.unwrap();
    let _ours = within("the dial of the channel peer", channel.accept()).await;
    until("both channel links", || {
        node.supervisor.snapshot().links.channel_bearing == 2
    })
    .await;
}

/// Waits until the book says of its only peer that it has been seen at a time.
async fn noted(book: &MemoryBook, at: Option<Duration>) {
    within("the note", async {
        loop {
            let seen = book.sightings().await.unwrap();
            if seen.first().and_then(|seen| seen.last_seen) == at.map(|at| at.as_secs()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The book is written to every few minutes while a peer is there, and at the end. The next start dials first whom this one has met.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_peers_were_seen_is_noted_seldom_and_at_the_end_and_orders_the_next_start() {
    let clock = ManualClock::new();
    let book = Arc::new(MemoryBook::default());
    let mut peers: Vec<Far> = (1..=3).map(Far::listen).collect();
    peers.sort_by_key(|far| far.id);
    // Without what is noted, it would come last.
    let met = peers.pop().unwrap();
    let start = || {
        Node::start(|builder| {
            builder
                .clock(Arc::new(clock.clone()))
                .book(Arc::clone(&book) as Arc<dyn Book>)
        })
    };
    let (mut node, inbox) = start().await;
    node.attach().await;
    let spec = PeerSpec::new(met.id, met.address).tagged(Tag::GossipOnly);
    let (link, wire) = tokio::join!(node.supervisor.connect(spec), met.accept());
    link.unwrap();
    // So near the end that a ping, which nobody answers here, does not end the link before that.
    let rest = Duration::from_secs(10);
    clock.advance(limits::SIGHTINGS_EVERY.checked_sub(rest).unwrap());
    node.supervisor.peers().await.unwrap();
    noted(&book, None).await;
    clock.advance(rest);
    noted(&book, Some(clock.unix())).await;
    clock.advance(rest);
    // Else the drain waits, by a clock that stands still, for the peer to close.
    drop(wire);
    within("the drain", node.supervisor.drain()).await;
    noted(&book, Some(clock.unix())).await;
    drop((node, inbox));

    for far in &peers {
        let record = PeerRecord {
            node_id: far.id,
            addresses: vec![far.address.into()],
            tag: None,
            weight: 0,
        };
        book.save(record).await.unwrap();
    }
    let (mut node, _inbox) = start().await;
    let mut events = node.supervisor.events();
    node.attach().await;
    let first = event(&mut events, "the first dial", |event| match event {
        Event::Dialing { peer, .. } => Some(peer),
        _ => None,
    })
    .await;
    assert_eq!(first, met.id);
}

/// As many peers as may be known: whoever is told of a further one hears it. The channel peers that the node vouches for have no bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_full_roster_says_so() {
    let full = Full::default();
    let (node, _inbox) = Node::start(|builder| builder.book(Arc::new(full))).await;
    let (known, stranger) = (Full::peer(0), key(1).node_id());
    let urgency = Urgency {
        pending_htlcs: 1,
        earliest_expiry_height: 900_000,
        csv_delay: 144,
    };
    let say = |peer| node.supervisor.set_urgency(peer, urgency);
    assert_eq!(say(known).await, Ok(()));
    assert_eq!(say(stranger).await, Err(RosterError::RosterFull));
    let spec = PeerSpec::new(stranger, SocketAddr::from(([127, 0, 0, 1], 9)));
    let refused = node.supervisor.add_peer(spec.clone()).await;
    assert_eq!(refused, Err(RosterError::RosterFull));
    let own = PeerSpec::new(
        node.supervisor.node_id(),
        SocketAddr::from(([127, 0, 0, 1], 9)),
    );
    let refused = node.supervisor.add_peer(own).await;
    assert_eq!(refused, Err(RosterError::OwnKey));
    let error = node.supervisor.connect(spec).await.unwrap_err();
    assert_eq!(error, ConnectError::RosterFull);
    let pending = node.supervisor.pending().await.unwrap();
    assert_eq!(pending.peers.len(), 1, "{pending:?}");
    // One goes, one comes.
    assert!(node.supervisor.remove_peer(Full::peer(1)).await.unwrap());
    assert_eq!(say(stranger).await, Ok(()));
    node.supervisor.promote(key(2).node_id()).await.unwrap();
    let peers = node.supervisor.peers().await.unwrap();
    assert_eq!(peers.len(), limits::PEERS_MAX + 1);
    assert!(peers.iter().any(|peer| peer.node_id == key(2).node_id()));
}

/// A book that has as many peers as there may be.
#[derive(Default)]
struct Full(MemoryBook);

impl Full {
    /// The points of the curve beyond a number, in their order: a key each would take seconds.
    fn peers() -> impl Iterator<Item = NodeId> {
        (0_u64..).filter_map(|number| {
            let mut bytes = [2; 33];
            bytes[25..].copy_from_slice(&number.to_be_bytes());
            NodeId::parse(&bytes).ok()
        })
    }

    fn peer(number: usize) -> NodeId {
        Self::peers().nth(number).unwrap()
    }
}

impl Book for Full {
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>> {
        let records = Self::peers()
            .take(limits::PEERS_MAX)
            .map(|node_id| PeerRecord {
                node_id,
                addresses: Vec::new(),
                tag: None,
                weight: 0,
            });
        Box::pin(std::future::ready(Ok(records.collect())))
    }

    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()> {
        self.0.save(record)
    }

    fn remove(&self, peer: NodeId) -> BookFuture<'_, ()> {
        self.0.remove(peer)
    }
}

fn node_id() -> pilotlight::node_id::NodeId {
    key(rig::NODE).node_id()
}
