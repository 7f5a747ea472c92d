//! P8: on return, every channel peer that a lapse tore down is dialled again without being asked, the most urgent first, whatever
//! else the node wanted meanwhile. Peers that refuse the connection wait with backoff and hold up nobody. On real sockets; the
//! clock is moved by hand. The order among more peers than may be dialled at once is shown in `supervisor_machine.rs`.
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

use fastrand::Rng;
use pilotlight::clock::ManualClock;
use pilotlight::limits;
use pilotlight::link::Tag;
use pilotlight::node_id::NodeId;
use pilotlight::supervisor::{Inbound, Inbox, PeerSpec, PeerState, Urgency};
use pilotlight::telemetry::{Event, EventStream, Next};
use rig::{Far, Node, Wire, event, within};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// A peer that takes every connection, for as long as its task lives, and reads it to its end.
fn serve(far: Far) {
    let far = Arc::new(far);
    tokio::spawn(async move {
        loop {
            let Wire { mut reader, writer } = far.accept_any().await;
            tokio::spawn(async move {
                reader.drain().await;
                drop(writer);
            });
        }
    });
}

/// The node receives, so that nothing waits for it.
fn receive(mut inbox: Inbox) {
    tokio::spawn(async move {
        while let Some(Inbound::Up { .. } | Inbound::Down { .. }) = inbox.recv().await {}
    });
}

/// An address where nobody listens.
async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

async fn links_up(events: &mut EventStream, mut missing: HashSet<NodeId>) {
    event(events, "links up", |event| {
        if let Event::LinkUp { peer, .. } = event {
            missing.remove(&peer);
        }
        missing.is_empty().then_some(())
    })
    .await;
}

async fn states(node: &Node) -> HashMap<NodeId, PeerState> {
    node.supervisor
        .peers()
        .await
        .unwrap()
        .into_iter()
        .map(|peer| (peer.node_id, peer.state))
        .collect()
}

/// Fifty channel peers with what the node says of their urgency, in the order in which they must be dialled.
fn ranked(ids: &[NodeId], random: &mut Rng) -> Vec<(NodeId, u32, Urgency)> {
    let mut ranked: Vec<_> = ids
        .iter()
        .map(|id| {
            let urgency = Urgency {
                pending_htlcs: random.u32(..2),
                earliest_expiry_height: random.u32(800_000..800_010),
                csv_delay: 144,
            };
            (*id, random.u32(..5), urgency)
        })
        .collect();
    let expiry = |urgency: &Urgency| {
        if urgency.pending_htlcs > 0 {
            urgency.earliest_expiry_height
        } else {
            u32::MAX
        }
    };
    // The same words in the test's own terms: soonest expiry, then weight, then the key.
    ranked.sort_by_key(|(id, weight, urgency)| (expiry(urgency), std::cmp::Reverse(*weight), *id));
    ranked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_channel_peers_come_back_unasked_in_the_order_of_their_urgency() {
    let mut random = Rng::with_seed(rig::seed("p8_relight", 8));
    let clock = ManualClock::new();
    let (mut node, inbox) = Node::start(|builder| builder.clock(Arc::new(clock.clone()))).await;
    receive(inbox);
    let fars: Vec<Far> = (1..=50).map(Far::listen).collect();
    let addresses: HashMap<NodeId, SocketAddr> =
        fars.iter().map(|far| (far.id, far.address)).collect();
    let ids: Vec<NodeId> = fars.iter().map(|far| far.id).collect();
    fars.into_iter().for_each(serve);
    let gossip = Far::listen(60);
    let (gossip_id, gossip_address) = (gossip.id, gossip.address);
    serve(gossip);
    // Peers that refuse, and one that accepts and says nothing.
    let refused: Vec<NodeId> = (70..75).map(|number| Far::listen(number).id).collect();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_id = Far::listen(80).id;

    node.attach().await;
    let mut events = node.supervisor.events();
    node.supervisor
        .declare_channel_peers(ids.iter().chain(&refused).chain([&silent_id]).copied())
        .await
        .unwrap();
    let ranked = ranked(&ids, &mut random);
    let mut shuffled = ranked.clone();
    random.shuffle(&mut shuffled);
    for (id, weight, urgency) in shuffled {
        node.supervisor
            .add_peer(PeerSpec::new(id, addresses[&id]).weighing(weight))
            .await
            .unwrap();
        node.supervisor.set_urgency(id, urgency).await.unwrap();
    }
    node.supervisor
        .add_peer(PeerSpec::new(gossip_id, gossip_address).tagged(Tag::GossipOnly))
        .await
        .unwrap();
    links_up(
        &mut events,
        ids.iter().copied().chain([gossip_id]).collect(),
    )
    .await;
    // They were never up, and are wanted all the same.
    let _ = node.lapse();
    for id in &refused {
        node.supervisor
            .add_peer(PeerSpec::new(*id, refusing().await))
            .await
            .unwrap();
    }
    node.supervisor
        .add_peer(PeerSpec::new(silent_id, silent.local_addr().unwrap()))
        .await
        .unwrap();
    let mut down = 0;
    event(&mut events, "links down", |event| {
        down += usize::from(matches!(event, Event::LinkDown { .. }));
        (down == ids.len()).then_some(())
    })
    .await;
    node.torn_down(ids.len(), 1).await;
    within("all held", async {
        while states(&node)
            .await
            .values()
            .filter(|state| **state == PeerState::Held)
            .count()
            < 56
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(states(&node).await[&gossip_id], PeerState::Up);

    // The signer returns; nothing else is said.
    let mut order = Vec::new();
    let mut failed = HashSet::new();
    let mut up = HashSet::new();
    node.attach().await;
    event(&mut events, "the relight", |event| {
        match event {
            Event::Dialing { peer, .. } => order.push(peer),
            Event::DialFailed { peer, retry_in, .. } => {
                let wait = retry_in.expect("the next dial is timed");
                assert!(
                    wait >= limits::BACKOFF_FIRST / 2 && wait <= limits::BACKOFF_FIRST,
                    "{wait:?}"
                );
                failed.insert(peer);
            }
            Event::LinkUp { peer, .. } => drop(up.insert(peer)),
            Event::Relit { .. } => {
                panic!("a peer that accepted the connection is still in its handshake")
            }
            _ => {}
        }
        (up.len() == ids.len() && failed.len() == refused.len()).then_some(())
    })
    .await;
    let expected: Vec<NodeId> = ranked.iter().map(|(id, ..)| *id).collect();
    let is_ranked = |id: &&NodeId| addresses.contains_key(*id);
    assert_eq!(
        order.iter().filter(is_ranked).copied().collect::<Vec<_>>(),
        expected,
        "dialled most urgent first"
    );
    assert_eq!(order.len(), 56, "each once");
    assert_eq!(failed, refused.iter().copied().collect());
    let now = states(&node).await;
    assert!(refused.iter().all(|id| now[id] == PeerState::Backoff));
    assert_eq!(now[&silent_id], PeerState::Dialing);

    // The one that says nothing gets an act's time, not more. The relight is over then, and says who came back.
    let (_held, _) = silent.accept().await.unwrap();
    let over = within("the relight's end", async {
        loop {
            match events.try_next() {
                Some(Next::Event(recorded)) => {
                    if let Event::Relit { up, failed, .. } = recorded.event {
                        return (up, failed);
                    }
                }
                Some(Next::Missed(missed)) => panic!("{missed} events missed"),
                _ => {
                    clock.advance(limits::ACT_DEADLINE / 10);
                    tokio::task::yield_now().await;
                }
            }
        }
    })
    .await;
    assert_eq!(over, (ids.len(), refused.len() + 1));
}
