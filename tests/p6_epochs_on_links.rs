//! Promise P6 on live links: a link leased under epoch n dies with epoch n, a late ECDH answer of an old session is never used, and
//! whatever the bursts of lapses and returns, what was torn down comes back under the newest session only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/acts.rs"]
mod acts;
#[path = "support/node.rs"]
mod node;
#[path = "support/signers.rs"]
mod signers;

use acts::{Framed, Wire, act_one, act_three, act_two};
use node::{Door, Far, Got, Node, id, message, soon};
use pilotlight::link::{CloseReason, Tag};
use pilotlight::supervisor::PeerSpec;
use pilotlight::telemetry::Event;
use tokio::net::TcpStream;

/// The session that the peer's link depends on.
async fn leased_under(node: &Node, number: u16) -> Option<u64> {
    let peers = node.supervisor.peers().await.unwrap();
    let peer = peers.iter().find(|peer| peer.node_id == id(number))?;
    Some(peer.link.as_ref()?.leased_under?.get())
}

/// Every dial of a channel peer is answered under the session of its own time.
#[tokio::test]
async fn p6_a_link_dies_with_the_session_that_it_was_leased_under() {
    let mut node = Node::waiting().await;
    node.supervisor
        .declare_channel_peers([id(1)])
        .await
        .unwrap();
    let door = Door::open().await;
    let spec = PeerSpec::new(id(1), door.address);
    node.supervisor.add_peer(spec).await.unwrap();
    for epoch in 1..=5 {
        assert_eq!(node.attach().await.get(), epoch);
        let mut far = door.accept(1).await;
        far.greet().await;
        let link = node.next_up().await;
        assert_eq!(leased_under(&node, 1).await, Some(epoch));
        far.send(&message(136, b"back")).await;
        assert_eq!(&node.next_message().await.bytes[2..], b"back");
        let report = node.lapse().await;
        assert_eq!((report.epoch.get(), report.dropped), (epoch, 1));
        assert_eq!(far.rest().await, (Vec::new(), Got::Reset));
        assert_eq!(node.next_down().await, (link.id(), CloseReason::Lapse));
    }
}

/// Strangers' handshakes hang in their ECDH when the session ends. The old signer's answers come when the next session is live, and
/// they are wrong: whoever used one would make no act two.
#[tokio::test]
async fn p6_a_late_answer_is_not_used_and_the_next_session_is_asked_anew() {
    let mut node = Node::live().await;
    let (mut live, _) = node.accept(900).await;
    let old = std::sync::Arc::clone(&node.signer);
    let asked = old.asked();
    let gate = old.gated();
    old.behave(signers::Manner::WrongGate(std::sync::Arc::clone(&gate)));
    let mut wires = Vec::new();
    for number in 1..=8_u8 {
        // Each of another /24, so that all of them may wait.
        let source = std::net::Ipv4Addr::new(127, 1, number, 1).into();
        let mut wire = Wire::connect_from(source, node.address).await;
        let (state, one) = act_one(number.into(), node.id());
        wire.write(&one).await;
        wires.push((wire, state, u16::from(number)));
    }
    soon("they are asked", old.until_asked(asked + 8)).await;
    node.signer = signers::Scripted::new(node::key(node::NODE));
    let epoch = node.lapse_now();
    gate.add_permits(8);
    assert_eq!(node.attach_now().get(), epoch.get() + 1);
    node.lapsed(epoch).await;
    let mut up = Vec::new();
    for (mut wire, state, number) in wires {
        let two = wire.read::<50>().await;
        let (three, authenticated) = act_three(state, &two, number);
        wire.write(&three).await;
        let session = authenticated.into_session();
        let mut framed = Framed { wire, session };
        framed.send(&node::init()).await;
        assert_eq!(node.next_up().await.peer(), id(number));
        up.push(framed);
    }
    assert_eq!(old.held(), 0, "nobody waits for an old answer");
    assert_eq!((old.asked(), node.signer.asked()), (asked + 8, 8));
    live.settle().await;
}

/// The answer is there already when the session ends: the handshake's task has not had its turn yet.
#[tokio::test]
async fn p6_an_answer_that_came_in_time_is_not_used_after_the_lapse() {
    let mut node = Node::live().await;
    let gate = node.signer.gated();
    let mut wire = Wire::connect(node.address).await;
    wire.write(&act_one(1, node.id()).1).await;
    soon("it is asked", node.signer.until_asked(1)).await;
    // No turn for the task between these two.
    gate.add_permits(1);
    let epoch = node.lapse_now();
    node.lapsed(epoch).await;
    node.watch
        .until("it is parked", |event| {
            (*event == Event::Parked { now: 1 }).then_some(())
        })
        .await;
    node.clock.advance(pilotlight::limits::PARKED_FOR);
    assert_eq!(wire.rest().await, [0_u8; 0], "not a byte of act two");
    assert_eq!(node.watch.inbound_failed().await.0, "signer_away");
    assert_eq!(node.signer.asked(), 1);
}

/// A stranger whom the node has a channel with: the link that follows is of the session that answered.
#[tokio::test]
async fn p6_a_handshake_that_went_on_under_the_next_session_is_leased_under_it() {
    let mut node = Node::waiting().await;
    node.attach().await;
    let gate = node.signer.gated();
    let mut wire = Wire::connect(node.address).await;
    let (state, one) = act_one(1, node.id());
    wire.write(&one).await;
    soon("it is asked", node.signer.until_asked(1)).await;
    let epoch = node.lapse_now();
    node.lapsed(epoch).await;
    node.signer.behave(signers::Manner::Answer);
    assert_eq!(node.attach().await.get(), 2);
    gate.add_permits(1);
    let two = wire.read::<50>().await;
    let (three, authenticated) = act_three(state, &two, 1);
    wire.write(&three).await;
    let session = authenticated.into_session();
    let mut framed = Framed { wire, session };
    framed.send(&node::init()).await;
    node.next_up().await;
    assert_eq!(leased_under(&node, 1).await, Some(2));
    let report = node.lapse().await;
    assert_eq!((report.epoch.get(), report.dropped), (2, 1));
}

/// A dial of ours, stopped in act three.
#[tokio::test]
async fn p6_a_late_answer_makes_no_act_three() {
    for tag in [Tag::GossipOnly, Tag::ChannelBearing] {
        let mut node = Node::live().await;
        let gate = node.signer.gated();
        let door = Door::open().await;
        let spec = PeerSpec::new(id(1), door.address).tagged(tag);
        node.supervisor.add_peer(spec).await.unwrap();
        let mut wire = Wire {
            socket: door.socket().await,
        };
        let one = wire.read::<50>().await;
        wire.write(&act_two(1, &one).1).await;
        soon("it is asked", node.signer.until_asked(1)).await;
        let epoch = node.lapse_now();
        gate.add_permits(1);
        assert_eq!(wire.rest().await, [0_u8; 0], "not a byte of act three");
        node.lapsed(epoch).await;
        assert_eq!(node.watch.dial_failed().await.0, "signer_away");
        // And it is dialled again, unasked, when the signer is back.
        node.signer.behave(signers::Manner::Answer);
        assert_eq!(node.attach().await.get(), 2);
        let mut far = door.accept(1).await;
        far.greet().await;
        node.next_up().await;
        let leased = (tag == Tag::ChannelBearing).then_some(2);
        assert_eq!(leased_under(&node, 1).await, leased);
    }
}

/// The last act is on its way when the session ends: the link would be of an old epoch.
#[tokio::test]
async fn p6_a_channel_peer_s_handshake_that_outlives_its_session_makes_no_link() {
    let mut node = Node::waiting().await;
    node.attach().await;
    let mut wire = Wire::connect(node.address).await;
    let (three, _) = wire.reach_act_three(1, node.id()).await;
    node.lapse_now();
    node.attach_now();
    // The node may have closed already.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut wire.socket, &three).await;
    assert_eq!(wire.rest().await, [0_u8; 0], "no init under an old lease");
    let up = |event: &Event| matches!(event, Event::LinkUp { .. });
    assert_eq!(node.watch.count(up), 0);
}

#[tokio::test]
async fn p6_a_burst_of_lapses_and_returns_ends_with_every_channel_peer_back_under_the_newest_session()
 {
    const PEERS: u16 = 6;
    let mut node = Node::waiting().await;
    node.supervisor
        .declare_channel_peers((1..=PEERS).map(id))
        .await
        .unwrap();
    let (reached, mut newest) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=PEERS {
        let door = Door::open().await;
        let spec = PeerSpec::new(id(number), door.address);
        node.supervisor.add_peer(spec).await.unwrap();
        let reached = reached.clone();
        tasks.spawn(async move { answer_for_ever(door, number, reached).await });
    }
    let mut epoch = 0;
    for round in 0..30_u32 {
        epoch = node.attach_now().get();
        // A different number of turns each time, so that the burst cuts into every phase.
        for _ in 0..round * 3 {
            tokio::task::yield_now().await;
        }
        node.lapse_now();
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
    }
    epoch += 1;
    assert_eq!(node.attach_now().get(), epoch);
    let mut back = std::collections::BTreeSet::new();
    while back.len() < usize::from(PEERS) {
        // The node's own list says who is up under which session; each `init` that a far side sees is a reason to look.
        let look = soon("the peers come back", async {
            tokio::select! {
                _ = newest.recv() => {}
                _ = node.inbox.recv() => {}
            }
        });
        look.await;
        for number in 1..=PEERS {
            if leased_under(&node, number).await == Some(epoch) {
                back.insert(number);
            }
        }
    }
    tasks.abort_all();
}

/// Answers each dial, one at a time, and keeps the link until it ends.
async fn answer_for_ever(
    door: Door,
    number: u16,
    reached: tokio::sync::mpsc::UnboundedSender<u16>,
) {
    let serve = async |socket: TcpStream| {
        let key = std::sync::Arc::new(node::key(number));
        let Ok(link) = pilotlight::link::raw::RawLink::accept(socket, key).await else {
            return;
        };
        let mut far = Far::new(number, link);
        far.try_send(&node::init()).await;
        while let Got::Message(_) = far.receive().await {
            let _ = reached.send(number);
        }
    };
    while let Ok((socket, _)) = door.listener.accept().await {
        serve(socket).await;
    }
}
