//! A signer that is slow, silent, failing or wrong holds up the handshake that asked it, and nothing else: no other link's pong, no
//! other handshake, not the supervisor.
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

use std::time::Duration;

use acts::{Wire, act_one, act_two};
use node::{Door, Far, INSTANT, Node, id, just_before, message, soon};
use pilotlight::limits;
use pilotlight::link::{Direction, LinkHandle, Tag};
use pilotlight::signer::Purpose;
use pilotlight::supervisor::{PeerSpec, PeerState};
use pilotlight::telemetry::Event;
use signers::Manner;

/// Handshakes that hang in their ECDH, half of them dialled by us.
struct Stuck {
    inbound: Vec<Wire>,
    outbound: Vec<Wire>,
}

const EACH_WAY: u16 = 4;

async fn stick(node: &mut Node) -> Stuck {
    let asked = node.signer.asked();
    let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
    for number in 1..=EACH_WAY {
        let mut wire = Wire::connect(node.address).await;
        wire.write(&act_one(number, node.id()).1).await;
        inbound.push(wire);
    }
    for number in 11..=10 + EACH_WAY {
        let door = Door::open().await;
        let spec = PeerSpec::new(id(number), door.address);
        node.supervisor.add_peer(spec).await.unwrap();
        let mut wire = Wire {
            socket: door.socket().await,
        };
        let one = wire.read::<50>().await;
        wire.write(&act_two(number, &one).1).await;
        outbound.push(wire);
    }
    let all = usize::from(EACH_WAY * 2);
    soon("all are asked", node.signer.until_asked(asked + all)).await;
    assert_eq!(node.signer.held(), all);
    node.watch.mark();
    Stuck { inbound, outbound }
}

/// Pongs, gossip both ways, and the supervisor itself, while the stuck handshakes stay stuck.
async fn goes_on(node: &mut Node, far: &mut Far, link: &LinkHandle) {
    let all = usize::from(EACH_WAY * 2);
    for round in 0..50_u8 {
        assert_eq!(far.ping(u16::from(round)).await, Vec::<bytes::Bytes>::new());
        let sent = message(256, &[round; 400]);
        far.send(&sent).await;
        assert_eq!(node.next_message().await.bytes, sent);
        let receipt = link.send(message(261, &[round; 40])).await.unwrap();
        soon("the kernel", receipt.flushed()).await.unwrap();
        assert_eq!(far.expect(261).await[2], round);
        assert!(
            soon("the supervisor", node.supervisor.link(far.id))
                .await
                .unwrap()
                .is_some()
        );
        assert_eq!(node.signer.held(), all, "the stuck ones are still pending");
    }
}

#[tokio::test]
async fn handshakes_that_wait_for_ever_for_their_ecdh_delay_no_other_link() {
    let mut node = Node::live().await;
    let (mut far, link) = node.accept(900).await;
    node.signer.behave(Manner::Never);
    let stuck = stick(&mut node).await;
    let all = usize::from(EACH_WAY * 2);
    assert_eq!(node.supervisor.snapshot().ecdh_in_flight, all);
    goes_on(&mut node, &mut far, &link).await;

    // They fail with the act's deadline, and not before.
    node.clock.advance(just_before(limits::ACT_DEADLINE));
    goes_on(&mut node, &mut far, &link).await;
    let failed = |event: &Event| {
        matches!(
            event,
            Event::InboundFailed { .. } | Event::DialFailed { .. }
        )
    };
    assert_eq!(node.watch.count(failed), 0);
    node.clock.advance(INSTANT);
    for mut wire in stuck.inbound.into_iter().chain(stuck.outbound) {
        assert_eq!(wire.rest().await, [0_u8; 0]);
    }
    let late = |event: &Event| match event {
        Event::InboundFailed {
            failure, detail, ..
        } => {
            (*failure, &**detail)
                == (
                    "signer_late",
                    "the signer did not answer within 5 s in act 2",
                )
        }
        Event::DialFailed {
            failure, detail, ..
        } => {
            (*failure, &**detail)
                == (
                    "signer_late",
                    "the signer did not answer within 5 s in act 3",
                )
        }
        _ => false,
    };
    node.watch
        .until_count("each says which act", usize::from(EACH_WAY * 2), late)
        .await;
    assert_eq!(node.signer.held(), 0);
    assert_eq!(node.supervisor.snapshot().ecdh_in_flight, 0);
    far.settle().await;

    // The signer wakes up: everything works again.
    node.signer.behave(Manner::Answer);
    let (mut other, _) = node.accept(901).await;
    other.settle().await;
}

#[tokio::test]
async fn a_handshake_that_waits_200_ms_for_its_ecdh_delays_no_other_link_and_then_completes() {
    let mut node = Node::live().await;
    let (mut far, link) = node.accept(900).await;
    let wait = Duration::from_millis(200);
    node.signer.behave(Manner::Slow(node.clock.clone(), wait));
    let stuck = stick(&mut node).await;
    goes_on(&mut node, &mut far, &link).await;
    node.clock.advance(wait);
    for mut wire in stuck.inbound {
        wire.read::<50>().await;
    }
    for mut wire in stuck.outbound {
        wire.read::<66>().await;
    }
    assert_eq!(node.signer.held(), 0);
    far.settle().await;
}

#[tokio::test]
async fn a_signer_that_refuses_fails_the_handshake_by_name() {
    let mut node = Node::live().await;
    let (mut far, _) = node.accept(900).await;
    node.signer.behave(Manner::Fail);
    let mut wire = Wire::connect(node.address).await;
    wire.write(&act_one(1, node.id()).1).await;
    assert_eq!(wire.rest().await, [0_u8; 0]);
    let (failure, detail) = node.watch.inbound_failed().await;
    assert_eq!(
        (failure, &*detail),
        ("signer", "the signer refuses: policy")
    );

    let door = Door::open().await;
    let spec = PeerSpec::new(id(2), door.address);
    node.supervisor.add_peer(spec).await.unwrap();
    let mut wire = Wire {
        socket: door.socket().await,
    };
    let one = wire.read::<50>().await;
    wire.write(&act_two(2, &one).1).await;
    assert_eq!(wire.rest().await, [0_u8; 0]);
    let (failure, detail) = node.watch.dial_failed().await;
    assert_eq!(
        (failure, &*detail),
        ("signer", "the signer refuses: policy")
    );
    far.settle().await;
}

/// A responder sees at once that the answer is not that of its key; an initiator's peer sees it.
#[tokio::test]
async fn a_signer_that_answers_wrongly_makes_no_link() {
    let mut node = Node::live().await;
    let (mut far, _) = node.accept(900).await;
    node.signer.behave(Manner::Wrong);
    let mut wire = Wire::connect(node.address).await;
    wire.write(&act_one(1, node.id()).1).await;
    assert_eq!(wire.rest().await, [0_u8; 0]);
    let (failure, detail) = node.watch.inbound_failed().await;
    assert_eq!(
        (failure, &*detail),
        ("protocol", "the tag of act one does not fit")
    );

    let door = Door::open().await;
    let spec = PeerSpec::new(id(2), door.address);
    node.supervisor.add_peer(spec).await.unwrap();
    let mut wire = Wire {
        socket: door.socket().await,
    };
    let one = wire.read::<50>().await;
    let (state, two) = act_two(2, &one);
    wire.write(&two).await;
    let three = wire.read::<66>().await;
    assert!(state.act_three(&three).is_err());
    drop(wire);
    let (_, detail) = node.watch.dial_failed().await;
    assert!(
        detail.contains("closed") || detail.contains("io"),
        "{detail}"
    );
    far.settle().await;
}

/// A dial that has come as far as its ECDH.
async fn ask_for(node: &mut Node, number: u16, tag: Tag) -> (Door, Wire) {
    let door = Door::open().await;
    let asked = node.signer.asked();
    let spec = PeerSpec::new(id(number), door.address).tagged(tag);
    node.supervisor.add_peer(spec).await.unwrap();
    let mut wire = Wire {
        socket: door.socket().await,
    };
    let one = wire.read::<50>().await;
    wire.write(&act_two(number, &one).1).await;
    soon("the signer is asked", node.signer.until_asked(asked + 1)).await;
    (door, wire)
}

async fn states(node: &Node, numbers: std::ops::Range<u16>) -> Vec<PeerState> {
    let peers = node.supervisor.peers().await.unwrap();
    let state = |number: u16| peers.iter().find(|peer| peer.node_id == id(number));
    numbers.map(|number| state(number).unwrap().state).collect()
}

#[tokio::test]
async fn no_dial_begins_while_the_signer_is_behind_and_they_begin_as_soon_as_it_is_not() {
    let mut node = Node::live().await;
    node.signer.bears(4);
    let gate = node.signer.gated();
    let mut dials = Vec::new();
    for number in 1..5 {
        dials.push(ask_for(&mut node, number, Tag::GossipOnly).await);
    }
    node.watch.mark();
    let door = Door::open().await;
    for (number, tag) in [(5, Tag::GossipOnly), (6, Tag::ChannelBearing)] {
        let spec = PeerSpec::new(id(number), door.address).tagged(tag);
        node.supervisor.add_peer(spec).await.unwrap();
    }
    assert_eq!(states(&node, 1..5).await, [PeerState::Dialing; 4]);
    assert_eq!(states(&node, 5..7).await, [PeerState::Awaited; 2]);
    let dialled = |event: &Event| matches!(event, Event::Dialing { .. });
    assert_eq!(node.watch.count(dialled), 0);
    // A stranger has bounds of his own.
    let mut stranger = Wire::connect(node.address).await;
    stranger.write(&act_one(7, node.id()).1).await;
    soon("he is asked for", node.signer.until_asked(5)).await;

    // Five are too many, four still are, three are not.
    gate.add_permits(1);
    soon("an answer", node.signer.until_held(4)).await;
    assert_eq!(states(&node, 5..7).await, [PeerState::Awaited; 2]);
    gate.add_permits(1);
    node.watch.until_count("both begin", 2, dialled).await;
    let first = node.watch.until("the first", |event| match event {
        Event::Dialing { peer, .. } => Some(*peer),
        _ => None,
    });
    assert_eq!(first.await, id(6), "the channel peer");

    // A lapse ends the pause, and the next session begins without it.
    let waiting = ask_for(&mut node, 8, Tag::GossipOnly).await;
    node.watch.mark();
    let held = PeerSpec::new(id(9), door.address);
    node.supervisor.add_peer(held).await.unwrap();
    assert_eq!(states(&node, 9..10).await, [PeerState::Awaited]);
    node.lapse().await;
    assert_eq!(states(&node, 9..10).await, [PeerState::Held]);
    node.attach().await;
    node.watch
        .until("it is dialled", |event| match event {
            Event::Dialing { peer, .. } if *peer == id(9) => Some(()),
            _ => None,
        })
        .await;
    drop((dials, waiting));
}

#[tokio::test]
async fn the_signer_is_told_what_each_ecdh_is_for() {
    let mut node = Node::live().await;
    let _gate = node.signer.gated();
    let _channel = ask_for(&mut node, 1, Tag::ChannelBearing).await;
    let _gossip = ask_for(&mut node, 2, Tag::GossipOnly).await;
    let mut stranger = Wire::connect(node.address).await;
    stranger.write(&act_one(3, node.id()).1).await;
    soon("he is asked for", node.signer.until_asked(3)).await;
    let source = stranger.socket.local_addr().unwrap().ip();
    assert_eq!(
        node.signer.purposes(),
        [
            Purpose::ChannelDial,
            Purpose::GossipDial,
            Purpose::Inbound { source },
        ]
    );
}

/// A bound that was met is told apart from a signer that fails, and is nobody's fault.
#[tokio::test]
async fn a_request_that_the_signer_has_no_room_for_is_told_as_throttled() {
    let mut node = Node::live().await;
    node.signer.behave(Manner::Throttle);
    let mut wire = Wire::connect(node.address).await;
    wire.write(&act_one(1, node.id()).1).await;
    assert_eq!(wire.rest().await, [0_u8; 0]);
    assert_eq!(node.watch.inbound_failed().await.0, "throttled");
    let (_door, mut wire) = ask_for(&mut node, 2, Tag::GossipOnly).await;
    assert_eq!(wire.rest().await, [0_u8; 0]);
    let failed = |event: &Event| match event {
        Event::DialFailed {
            failure, retry_in, ..
        } => Some((*failure, *retry_in)),
        _ => None,
    };
    let (failure, retry_in) = node.watch.until("the dial fails", failed).await;
    assert_eq!(failure, "throttled");
    assert!(retry_in.unwrap() <= limits::BACKOFF_FIRST);
    for direction in [Direction::Inbound, Direction::Outbound] {
        let counted = |event: &Event| matches!(event, Event::Ecdh { source, result: "throttled", .. } if *source == direction);
        node.watch.until_count("both are counted", 1, counted).await;
    }
}

/// A node that has lost its signer, a channel peer that it wants back, and a stranger who waits with his act one sent.
async fn one_of_each() -> (Node, Far, Door, Wire) {
    let mut node = Node::live().await;
    let (far, _) = node.accept(900).await;
    let door = Door::open().await;
    node.lapse().await;
    let spec = PeerSpec::new(id(1), door.address).tagged(Tag::ChannelBearing);
    node.supervisor.add_peer(spec).await.unwrap();
    let mut stranger = Wire::connect(node.address).await;
    stranger.write(&act_one(2, node.id()).1).await;
    node.watch
        .until("he is parked", |event| {
            (*event == Event::Parked { now: 1 }).then_some(())
        })
        .await;
    (node, far, door, stranger)
}

#[tokio::test]
async fn p8_who_was_parked_asks_the_signer_only_after_the_channel_peers() {
    let (mut node, mut far, door, mut stranger) = one_of_each().await;
    let asked = node.signer.asked();
    node.attach().await;
    let mut wire = Wire {
        socket: door.socket().await,
    };
    let one = wire.read::<50>().await;
    // His act one is here, the channel peer's act two is not: he could ask, if he were let.
    for _ in 0..10 {
        far.settle().await;
    }
    assert_eq!(node.signer.asked(), asked);
    let (state, two) = act_two(1, &one);
    wire.write(&two).await;
    let three = wire.read::<66>().await;
    let session = state.act_three(&three).unwrap().into_session();
    let mut framed = acts::Framed { wire, session };
    framed.send(&node::init()).await;
    stranger.read::<50>().await;
    let purposes = node.signer.purposes().split_off(asked);
    assert!(
        matches!(
            purposes[..],
            [Purpose::ChannelDial, Purpose::Inbound { .. }]
        ),
        "{purposes:?}"
    );
}

/// A channel peer that takes the connection and says nothing holds the others up for a second, and no longer.
#[tokio::test]
async fn p8_who_was_parked_waits_for_a_silent_channel_peer_for_a_bounded_time() {
    let (mut node, mut far, door, mut stranger) = one_of_each().await;
    let asked = node.signer.asked();
    node.attach().await;
    let _silent = door.socket().await;
    far.settle().await;
    assert_eq!(node.signer.asked(), asked);
    node.pass_time_until(limits::PARKED_GIVE_WAY / 10, stranger.read::<50>())
        .await;
    assert_eq!(node.signer.asked(), asked + 1);
}
