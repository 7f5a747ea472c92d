//! P7: while no signer is there, gossip links that are missing of the floor are dialled under a throwaway key, and replaced by the
//! node's own links after the signer's return, with nothing lost between the two. On real sockets; the clock is moved by hand. What the
//! machine decides in long histories is shown in `supervisor_machine.rs`.
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

use pilotlight::clock::ManualClock;
use pilotlight::limits;
use pilotlight::link::{CloseReason, Identity, LinkHandle, SendError, Tag};
use pilotlight::node_id::NodeId;
use pilotlight::supervisor::{
    Builder, ConnectError, Inbound, Inbox, PeerSpec, PeerState, PeerView, Redial,
};
use pilotlight::telemetry::{Event, EventStream, Next};
use pilotlight::wire::{Init, MessageType, Ping};
use rig::{
    CHANNEL, Far, GOSSIP, Node, Reader, Wire, Writer, event, kind_of, number_of, numbered, until,
    within,
};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

/// A node with a floor of so many links, and its clock.
async fn node(floor: usize, change: impl FnOnce(Builder) -> Builder) -> (Node, Inbox, ManualClock) {
    let clock = ManualClock::new();
    let (node, inbox) = Node::start(|builder| {
        let builder = builder
            .clock(Arc::new(clock.clone()))
            .redial(Redial::Persona)
            .gossip_floor(floor);
        change(builder)
    })
    .await;
    (node, inbox, clock)
}

/// A peer that takes every connection, tells who came, and closes it when told to.
struct Host {
    id: NodeId,
    spec: PeerSpec,
    /// The key of whoever connected, its `init`, and what closes the connection.
    came: mpsc::UnboundedReceiver<(NodeId, Init, mpsc::Sender<()>)>,
}

impl Host {
    fn open(number: u64, tag: Tag) -> Self {
        let far = Far::listen(number);
        let (tell, came) = mpsc::unbounded_channel();
        let (id, spec) = (far.id, PeerSpec::new(far.id, far.address).tagged(tag));
        tokio::spawn(async move {
            loop {
                let Wire { reader, writer } = far.accept_any().await;
                let (close, mut closed) = mpsc::channel(1);
                let init = Init::decode(&reader.init).unwrap();
                if tell.send((reader.remote, init, close)).is_err() {
                    return;
                }
                tokio::spawn(async move {
                    tokio::select! {
                        () = answer_pings(reader, Arc::new(Mutex::new(writer))) => {}
                        Some(()) = closed.recv() => {}
                    }
                });
            }
        });
        Self { id, spec, came }
    }

    async fn next(&mut self) -> (NodeId, Init, mpsc::Sender<()>) {
        within("a connection", self.came.recv()).await.unwrap()
    }
}

/// Reads to the end of a connection, and answers pings as BOLT 1 asks.
async fn answer_pings(mut reader: Reader, writer: Arc<Mutex<Writer>>) {
    while let Some(message) = reader.next().await {
        if kind_of(&message) == MessageType::PING.0 {
            let pong = Ping::decode(&message).unwrap().answer().unwrap();
            let _ = writer.lock().await.send(&pong.encode()).await;
        }
    }
}

/// A far end that answers pings, and may be written to.
fn talking(wire: Wire) -> Arc<Mutex<Writer>> {
    let Wire { reader, writer } = wire;
    let writer = Arc::new(Mutex::new(writer));
    tokio::spawn(answer_pings(reader, Arc::clone(&writer)));
    writer
}

async fn linked(events: &mut EventStream, identity: Identity, count: usize) -> Vec<NodeId> {
    let mut peers = Vec::new();
    event(events, "links up", |event| {
        match event {
            Event::LinkUp {
                peer, identity: of, ..
            } if of == identity => peers.push(peer),
            _ => {}
        }
        (peers.len() == count).then_some(())
    })
    .await;
    peers
}

async fn missing(events: &mut EventStream, wanted: usize) {
    event(events, "the floor", |event| {
        matches!(event, Event::GossipFloor { missing, .. } if missing == wanted).then_some(())
    })
    .await;
}

fn receive(mut inbox: Inbox) {
    tokio::spawn(async move { while inbox.recv().await.is_some() {} });
}

/// No signer since the start: once the grace is over a persona dials, and gossip flows; the clock has moved by a quarter of a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_start_without_a_signer_has_gossip_within_a_second() {
    let (node, mut inbox, clock) = node(1, |builder| builder).await;
    let mut events = node.supervisor.events();
    let far = Far::listen(1);
    let spec = PeerSpec::new(far.id, far.address).tagged(Tag::GossipOnly);
    node.supervisor.add_peer(spec).await.unwrap();
    // The driver has taken it up.
    let _ = node.supervisor.peers().await.unwrap();
    assert!(limits::PERSONA_GRACE < Duration::from_secs(1));
    clock.advance(limits::PERSONA_GRACE);
    let Wire {
        mut reader,
        mut writer,
    } = within("a persona's dial", far.accept()).await;
    assert_ne!(reader.remote, node.id(), "the peer is not told who we are");
    let offered = Init::decode(&reader.init).unwrap().features;
    for bit in [29, 35, 39, 43, 63] {
        assert!(!offered.has(bit), "bit {bit} says that a node speaks");
    }
    for bit in [1, 7, 9, 13, 15, 45] {
        assert!(offered.has(bit), "bit {bit} is what peers insist on");
    }
    let link = match within("the link", inbox.recv()).await.unwrap() {
        Inbound::Up { link, .. } => link,
        other => panic!("{other:?}"),
    };
    assert_eq!(link.identity(), Identity::Persona);
    writer.send(&numbered(GOSSIP, 1, 200)).await.unwrap();
    match within("gossip", inbox.recv()).await.unwrap() {
        Inbound::Message(message) => assert_eq!(number_of(&message.bytes), 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.supervisor.snapshot().links.persona, 1);
    while let Some(next) = events.try_next() {
        let asked =
            matches!(&next, Next::Event(recorded) if matches!(recorded.event, Event::Ecdh { .. }));
        assert!(!asked, "a signer was asked");
    }
    // Neither a channel message nor the node's own gossip leaves on it, nor with a filter.
    let refused = link
        .try_send(numbered(CHANNEL, 1, 20))
        .map(drop)
        .unwrap_err();
    assert!(
        matches!(
            refused,
            SendError::SignerAway { .. } | SendError::Refused { .. }
        ),
        "{refused}"
    );
    for kind in [256, 257, GOSSIP] {
        let refused = link.try_send(numbered(kind, 1, 20)).map(drop).unwrap_err();
        assert!(matches!(refused, SendError::Refused { .. }), "{refused}");
    }
    // A channel message on it closes it: whatever the mode is, nobody answers for channels here.
    writer.send(&numbered(CHANNEL, 1, 20)).await.unwrap();
    while reader.next().await.is_some() {}
    match within("the end", inbox.recv()).await.unwrap() {
        Inbound::Down { reason, .. } => assert_eq!(reason, CloseReason::ChannelMessage),
        other => panic!("{other:?}"),
    }
}

/// A loss is made good from the peers that there are, channel peers never; who was lost is dialled again too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_the_floor_returns_after_a_loss_and_no_channel_peer_meets_a_persona() {
    let (mut node, inbox, clock) = node(3, |builder| builder).await;
    receive(inbox);
    let mut gossip: Vec<Host> = (1..=3)
        .map(|number| Host::open(number, Tag::GossipOnly))
        .collect();
    let mut channel = Host::open(10, Tag::ChannelBearing);
    node.attach().await;
    let mut events = node.supervisor.events();
    for host in gossip.iter().chain([&channel]) {
        node.supervisor.add_peer(host.spec.clone()).await.unwrap();
    }
    linked(&mut events, Identity::Node, 4).await;
    let mut closers = Vec::new();
    for host in &mut gossip {
        let (key, _, close) = host.next().await;
        assert_eq!(key, node.id());
        closers.push(close);
    }
    assert_eq!(channel.next().await.0, node.id());
    // The driver has heard of all of them.
    within("all up", async {
        let is_up = |peer: PeerView| peer.state == PeerState::Up;
        while !node
            .supervisor
            .peers()
            .await
            .unwrap()
            .into_iter()
            .all(is_up)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let _ = node.lapse();
    node.torn_down(1, 3).await;
    // Two more that the node comes to know in the absence: not needed yet.
    let mut reserve: Vec<Host> = (4..=5)
        .map(|number| Host::open(number, Tag::GossipOnly))
        .collect();
    for host in &reserve {
        node.supervisor.add_peer(host.spec.clone()).await.unwrap();
    }
    let _ = node.supervisor.peers().await.unwrap();
    clock.advance(limits::PERSONA_GRACE);
    let _ = node.supervisor.peers().await.unwrap();
    assert_eq!(
        node.supervisor.snapshot().links.persona,
        0,
        "the floor is whole"
    );
    // One is lost: a reserve takes its place at once, and the lost one is dialled again after its backoff.
    closers[0].send(()).await.unwrap();
    let replaced = linked(&mut events, Identity::Persona, 1).await;
    assert!(reserve.iter().any(|host| host.id == replaced[0]));
    clock.advance(limits::BACKOFF_FIRST);
    let again = linked(&mut events, Identity::Persona, 1).await;
    assert_eq!(again, [gossip[0].id]);
    let (persona, ..) = gossip[0].next().await;
    assert_ne!(persona, node.id());
    let of_reserve = reserve
        .iter_mut()
        .find(|host| host.id == replaced[0])
        .unwrap();
    assert_eq!(of_reserve.next().await.0, persona, "one persona an absence");
    let links = node.supervisor.snapshot().links;
    assert_eq!((links.gossip_only, links.persona), (2, 2));
    assert!(
        channel.came.try_recv().is_err(),
        "a channel peer met a persona"
    );
    // A promotion in the absence ends the persona's link: it may carry no channel.
    node.supervisor.promote(gossip[0].id).await.unwrap();
    let reason = event(&mut events, "its end", |event| match event {
        Event::LinkDown {
            peer,
            identity: Identity::Persona,
            reason,
            ..
        } if peer == gossip[0].id => Some(reason),
        _ => None,
    })
    .await;
    assert_eq!(reason, CloseReason::Promoted);
}

/// A persona is never with a channel peer: its link ends at once when the node says that the peer is one, though the peer answers nothing;
/// also when the link was about to go, and was hearing the peer out. The clock stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_promotion_ends_a_personas_link_at_once() {
    for is_leaving in [false, true] {
        let (mut node, inbox, clock) = node(1, |builder| builder).await;
        receive(inbox);
        let far = Far::listen(1);
        let spec = PeerSpec::new(far.id, far.address).tagged(Tag::GossipOnly);
        node.supervisor.add_peer(spec).await.unwrap();
        let _ = node.supervisor.peers().await.unwrap();
        clock.advance(limits::PERSONA_GRACE);
        let mut wire = within("the persona", far.accept()).await;
        let persona = link_as(&node, far.id, Identity::Persona).await;
        let mut own = None;
        if is_leaving {
            node.attach().await;
            own = Some(within("the own link", far.accept()).await);
            let _ = link_as(&node, far.id, Identity::Node).await;
            clock.advance(limits::PERSONA_OVERLAP);
            // The ping whose pong it waits for, and which does not come.
            while kind_of(&within("the ping", wire.reader.next()).await.unwrap())
                != MessageType::PING.0
            {}
        }
        node.supervisor.promote(far.id).await.unwrap();
        within("the end of the persona's link", wire.reader.drain()).await;
        assert_eq!(persona.closed(), Some(CloseReason::Promoted));
        drop(own);
    }
}

/// Told to, a persona meets a channel peer too. That link bears no channel, not even when the signer is back and the node's own link
/// with the same peer does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_channel_peer_meets_a_persona_if_told_to_and_no_channel_message_passes_on_it() {
    let (mut node, mut inbox, clock) =
        node(1, |builder| builder.personas_meet_channel_peers(true)).await;
    let far = Far::listen(1);
    let spec = PeerSpec::new(far.id, far.address).tagged(Tag::ChannelBearing);
    node.supervisor.add_peer(spec).await.unwrap();
    let _ = node.supervisor.peers().await.unwrap();
    clock.advance(limits::PERSONA_GRACE);
    let Wire {
        mut reader,
        mut writer,
    } = within("a persona's dial", far.accept()).await;
    assert_ne!(reader.remote, node.id(), "the peer is not told who we are");
    let persona = link_as(&node, far.id, Identity::Persona).await;
    let refused = |link: &LinkHandle| {
        let refused = link.try_send(numbered(CHANNEL, 1, 20)).map(drop);
        let refused = refused.unwrap_err();
        assert!(
            matches!(
                refused,
                SendError::SignerAway { .. } | SendError::Refused { .. }
            ),
            "{refused}"
        );
    };
    refused(&persona);
    let links = node.supervisor.snapshot().links;
    assert_eq!((links.channel_bearing, links.persona), (0, 1));
    // The node's own link is a channel's from its first byte; the persona's is none still.
    node.attach().await;
    let own_wire = within("the own link", far.accept()).await;
    assert_eq!(own_wire.reader.remote, node.id());
    let own = link_as(&node, far.id, Identity::Node).await;
    let _ = own.try_send(numbered(CHANNEL, 1, 20)).unwrap();
    refused(&persona);
    let links = node.supervisor.snapshot().links;
    assert_eq!((links.channel_bearing, links.persona), (1, 1));
    // Nor does one come in on it: that closes it, and it only.
    writer.send(&numbered(CHANNEL, 2, 20)).await.unwrap();
    while reader.next().await.is_some() {}
    loop {
        match within("the end", inbox.recv()).await.unwrap() {
            Inbound::Down { link, reason, .. } => {
                assert_eq!((link, reason), (persona.id(), CloseReason::ChannelMessage));
                break;
            }
            Inbound::Message(message) => panic!("delivered: {message:?}"),
            _ => {}
        }
    }
    assert!(own.closed().is_none());
}

/// Nobody to dial: an event says how many links are missing, and another when they are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_what_is_missing_of_the_floor_is_told() {
    let (mut node, inbox, clock) = node(2, |builder| builder).await;
    receive(inbox);
    let mut events = node.supervisor.events();
    node.attach().await;
    event(&mut events, "the attach", |event| {
        matches!(event, Event::SignerAttached { .. }).then_some(())
    })
    .await;
    let _ = node.lapse();
    until("the absence is seen", || {
        node.supervisor.mode() == pilotlight::supervisor::Mode::Safe
    })
    .await;
    let _ = node.supervisor.peers().await.unwrap();
    clock.advance(limits::PERSONA_GRACE);
    missing(&mut events, 2).await;
    let hosts: Vec<Host> = (1..=2)
        .map(|number| Host::open(number, Tag::GossipOnly))
        .collect();
    for host in &hosts {
        node.supervisor.add_peer(host.spec.clone()).await.unwrap();
    }
    missing(&mut events, 0).await;
    let asked = node.supervisor.connect(hosts[0].spec.clone()).await;
    assert!(
        matches!(asked, Err(ConnectError::SignerAway)),
        "who asks for the node's own link hears at once that there is none"
    );
    // The signer's return is no loss.
    node.attach().await;
    linked(&mut events, Identity::Node, 2).await;
}

/// With `hold`, and for a node that announces only onion addresses, no persona ever dials; what is missing is still told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_no_persona_dials_where_the_operator_forbids_it() {
    for held in [true, false] {
        let (node, inbox, clock) = node(1, |builder| {
            if held {
                builder.redial(Redial::Hold)
            } else {
                builder.only_onion_addresses(true)
            }
        })
        .await;
        receive(inbox);
        let (mut events, mut all) = (node.supervisor.events(), node.supervisor.events());
        let mut host = Host::open(1, Tag::GossipOnly);
        node.supervisor.add_peer(host.spec.clone()).await.unwrap();
        let _ = node.supervisor.peers().await.unwrap();
        clock.advance(limits::PERSONA_GRACE);
        missing(&mut events, 1).await;
        clock.advance(Duration::from_secs(3600));
        let _ = node.supervisor.peers().await.unwrap();
        assert!(host.came.try_recv().is_err());
        while let Some(next) = all.try_next() {
            assert!(
                !matches!(&next, Next::Event(recorded) if matches!(recorded.event, Event::Dialing { .. })),
                "{next:?}"
            );
        }
    }
}

/// The peer sends every message on each link that it has at that moment, as gossip goes: the node misses none, because its own
/// link is up before the persona's goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_persona_is_replaced_after_return_and_nothing_falls_between() {
    let (mut node, mut inbox, clock) = node(1, |builder| builder).await;
    let far = Far::listen(1);
    let spec = PeerSpec::new(far.id, far.address).tagged(Tag::GossipOnly);
    node.supervisor.add_peer(spec).await.unwrap();
    let _ = node.supervisor.peers().await.unwrap();
    clock.advance(limits::PERSONA_GRACE);
    let first = within("the persona", far.accept()).await;
    assert_ne!(first.reader.remote, node.id());
    // Counts what is sent; stops when told.
    let sent = Arc::new(AtomicU64::new(0));
    let (add, mut added) = mpsc::unbounded_channel::<Arc<Mutex<Writer>>>();
    let (stop, mut stopped) = mpsc::channel::<()>(1);
    let counter = Arc::clone(&sent);
    tokio::spawn(async move {
        let mut wires = vec![talking(first)];
        while stopped.try_recv().is_err() {
            wires.extend(added.try_recv());
            let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
            let message = numbered(GOSSIP, number, 100);
            let mut alive = Vec::new();
            for wire in wires {
                if wire.lock().await.send(&message).await.is_ok() {
                    alive.push(wire);
                }
            }
            wires = alive;
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    });
    let (mut got, mut ups, mut downs) = (BTreeSet::new(), Vec::new(), Vec::new());
    let (mut before, mut both) = (0_u64, HashSet::new());
    let (mut attached, mut passed) = (false, false);
    let mut stop_at = None;
    loop {
        match within("gossip", inbox.recv()).await.unwrap() {
            Inbound::Up { link, .. } => ups.push((link.id(), link.identity())),
            Inbound::Down { link, reason, .. } => {
                assert_eq!(
                    ups.len(),
                    2,
                    "the own link is up before the persona's goes: {reason:?}"
                );
                downs.push((link, reason));
                stop_at = Some(sent.load(Ordering::Relaxed) + 200);
            }
            Inbound::Message(message) => {
                got.insert(number_of(&message.bytes));
                if ups.len() == 2 && downs.is_empty() {
                    both.insert(message.link);
                }
                before += u64::from(ups.len() == 1);
            }
            other => panic!("{other:?}"),
        }
        if before > 200 && !attached {
            attached = true;
            // Whether or not the supervisor has heard yet that the persona's link is up.
            node.attach().await;
            let own = within("the own link", far.accept()).await;
            assert_eq!(own.reader.remote, node.id());
            add.send(talking(own)).unwrap();
        }
        // Both links have brought something: time passes, once, and the persona's goes.
        if both.len() == 2 && !passed {
            passed = true;
            let _ = link_as(&node, far.id, Identity::Node).await;
            clock.advance(limits::PERSONA_OVERLAP);
        }
        if stop_at.is_some_and(|at| got.last().is_some_and(|last| *last >= at)) {
            break;
        }
    }
    stop.send(()).await.unwrap();
    let last = *got.last().unwrap();
    let gaps: Vec<u64> = (1..=last).filter(|number| !got.contains(number)).collect();
    assert_eq!(gaps, [0_u64; 0], "of {last} messages");
    println!("{last} messages, none missing");
    let identities: Vec<Identity> = ups.iter().map(|(_, identity)| *identity).collect();
    assert_eq!(identities, [Identity::Persona, Identity::Node]);
    assert_eq!(downs, [(ups[0].0, CloseReason::Persona)]);
    let links = node.supervisor.snapshot().links;
    assert_eq!((links.gossip_only, links.persona), (1, 0));
}

/// Long messages, so that few fill what can be filled.
const LENGTH: usize = 60_000;

/// The link that the supervisor has with a peer, once it is one of this kind.
async fn link_as(node: &Node, peer: NodeId, identity: Identity) -> LinkHandle {
    within("the link", async {
        loop {
            let link = node.supervisor.link(peer).await.unwrap();
            if let Some(link) = link.filter(|link| link.identity() == identity) {
                return link;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

async fn send_all(writer: &mut Writer, last: u64) {
    for number in 1..=last {
        let message = numbered(GOSSIP, number, LENGTH);
        writer.send(&message).await.unwrap();
    }
}

/// The node is so slow that much of what its peer sent under the persona is unread when the persona's link is to go: all of it is
/// delivered first. A peer that answers the last ping is heard out to the last byte that it had sent, wherever that was; of one that
/// does not, what had arrived is delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_personas_link_that_goes_delivers_what_its_peer_had_sent() {
    /// More than a link may have in the inbox.
    const FULL: u64 = (limits::INBOX_PER_LINK / LENGTH) as u64 + 1;
    for answers in [true, false] {
        // More than any buffer between the two holds; and what fits into the smallest.
        let last = FULL + if answers { 250 } else { 4 };
        let (mut node, mut inbox, clock) = node(1, |builder| builder).await;
        let far = Far::listen(1);
        let spec = PeerSpec::new(far.id, far.address).tagged(Tag::GossipOnly);
        node.supervisor.add_peer(spec).await.unwrap();
        let _ = node.supervisor.peers().await.unwrap();
        clock.advance(limits::PERSONA_GRACE);
        let mut wire = within("the persona", far.accept()).await;
        let persona = link_as(&node, far.id, Identity::Persona).await;
        let mut silent = if answers {
            let Wire { reader, mut writer } = wire;
            // The pong comes after all this, for the writer is the sender's until then.
            let writer = tokio::spawn(async move {
                send_all(&mut writer, last).await;
                answer_pings(reader, Arc::new(Mutex::new(writer))).await;
            });
            drop(writer);
            None
        } else {
            within("all is sent", send_all(&mut wire.writer, last)).await;
            Some(wire)
        };
        node.attach().await;
        let _own = within("the own link", far.accept()).await;
        let _ = link_as(&node, far.id, Identity::Node).await;
        clock.advance(limits::PERSONA_OVERLAP);
        until("the persona's link is asked to go", || {
            persona.closed() == Some(CloseReason::Persona)
        })
        .await;
        if let Some(wire) = &mut silent {
            // The link has asked for the pong that does not come.
            while kind_of(&within("the ping", wire.reader.next()).await.unwrap())
                != MessageType::PING.0
            {}
            clock.advance(limits::PERSONA_FAREWELL);
        }
        let mut expected = 1;
        loop {
            match within("the persona's last words", inbox.recv())
                .await
                .unwrap()
            {
                Inbound::Message(message) if message.link == persona.id() => {
                    assert_eq!(number_of(&message.bytes), expected);
                    expected += 1;
                }
                Inbound::Down { link, reason, .. } => {
                    assert_eq!((link, reason), (persona.id(), CloseReason::Persona));
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(expected, last + 1, "answers: {answers}");
        drop(silent);
    }
}
