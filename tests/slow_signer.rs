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
use node::{Door, Far, Node, id, message, soon};
use pilotlight::limits;
use pilotlight::link::LinkHandle;
use pilotlight::supervisor::PeerSpec;
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
    goes_on(&mut node, &mut far, &link).await;

    // They fail with the act's deadline, and not before.
    node.clock
        .advance(limits::ACT_DEADLINE - Duration::from_nanos(1));
    goes_on(&mut node, &mut far, &link).await;
    let failed = |event: &Event| {
        matches!(
            event,
            Event::InboundFailed { .. } | Event::DialFailed { .. }
        )
    };
    assert_eq!(node.watch.count(failed), 0);
    node.clock.advance(Duration::from_nanos(1));
    for mut wire in stuck.inbound.into_iter().chain(stuck.outbound) {
        assert_eq!(wire.rest().await, [0_u8; 0]);
    }
    let late = |event: &Event| match event {
        Event::InboundFailed {
            failure, detail, ..
        } => (*failure, &**detail) == ("signer_late", "the signer did not answer within 5 s in act 2"),
        Event::DialFailed {
            failure, detail, ..
        } => (*failure, &**detail) == ("signer_late", "the signer did not answer within 5 s in act 3"),
        _ => false,
    };
    node.watch
        .until_count("each says which act", usize::from(EACH_WAY * 2), late)
        .await;
    assert_eq!(node.signer.held(), 0);
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
