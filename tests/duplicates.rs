//! Duplicates, per pair of keys (design.md § The link's driver): opposite directions, the link dialled by the smaller key stays; same
//! direction, the newest; before a newcomer is refused the incumbent is pinged, and replaced if it is silent for 2 s. A link's end
//! is reported before its successor's first message.
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
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/signers.rs"]
mod signers;

use std::time::Duration;

use acts::Wire;
use node::{
    Door, Far, Got, INSTANT, NODE, Node, clog, id, init, just_before, kind_of, message, soon,
};
use pilotlight::limits;
use pilotlight::link::{CloseReason, Direction, LinkHandle};
use pilotlight::supervisor::{Inbound, PeerSpec};
use pilotlight::telemetry::Event;
use proxy::Proxy;

/// The number of a peer whose key is larger than the node's, or smaller.
fn peer(larger: bool) -> u16 {
    (1..100)
        .find(|number| (id(*number) > id(NODE)) == larger)
        .expect("half of all keys are")
}

/// A newcomer that has sent its `init` and one message, which it may do before it knows whether it is let in.
async fn newcomer(node: &Node, number: u16) -> Far {
    let mut far = Far::dial(node.address, number, node.id()).await;
    far.try_send(&init()).await;
    far.try_send(&message(256, b"first")).await;
    far
}

/// The newcomer has taken the incumbent's place: the node hears of the old link's end first, then of the new one and its message.
async fn replaced(node: &mut Node, old: &LinkHandle, new: &mut Far) -> LinkHandle {
    let reason = CloseReason::Duplicate;
    assert_eq!(node.next_down().await, (old.id(), reason));
    let link = node.next_up().await;
    assert_ne!(link.id(), old.id());
    let first = node.next_message().await;
    assert_eq!((first.link, &first.bytes[2..]), (link.id(), &b"first"[..]));
    new.expect(16).await;
    new.settle().await;
    assert_eq!(old.closed(), Some(reason));
    link
}

/// The newcomer is turned away without a byte; the incumbent notices nothing but a ping.
async fn refused(node: &mut Node, old: &mut Far, new: &mut Far) {
    let ping = old.expect(18).await;
    let answer = [
        &[0, 19],
        &ping[2..4],
        &vec![0; usize::from(u16::from_be_bytes([ping[2], ping[3]]))],
    ]
    .concat();
    old.send(&answer).await;
    let (said, _) = new.rest().await;
    assert_eq!(said, Vec::<bytes::Bytes>::new());
    old.settle().await;
    let sent = message(256, b"still here");
    old.send(&sent).await;
    assert_eq!(node.next_message().await.bytes, sent);
}

#[tokio::test]
async fn of_two_links_that_the_peer_dialled_the_newest_stays() {
    for larger in [false, true] {
        let mut node = Node::live().await;
        let number = peer(larger);
        let (mut old, mut link) = node.accept(number).await;
        for _ in 0..5 {
            let mut new = newcomer(&node, number).await;
            link = replaced(&mut node, &link, &mut new).await;
            assert_eq!(old.rest().await, (Vec::new(), Got::Eof));
            old = new;
        }
        assert_eq!(node.supervisor.snapshot().links.gossip_only, 1);
    }
}

#[tokio::test]
async fn the_peer_s_dial_replaces_ours_if_its_key_is_the_smaller() {
    let mut node = Node::live().await;
    let number = peer(false);
    let (mut old, link) = node.dial(number).await;
    let mut new = newcomer(&node, number).await;
    replaced(&mut node, &link, &mut new).await;
    assert_eq!(old.rest().await, (Vec::new(), Got::Eof));
}

#[tokio::test]
async fn the_peer_s_dial_is_refused_if_its_key_is_the_larger_and_our_link_lives() {
    let mut node = Node::live().await;
    let number = peer(true);
    let (mut old, _link) = node.dial(number).await;
    let mut new = newcomer(&node, number).await;
    refused(&mut node, &mut old, &mut new).await;
    assert_eq!(
        node.watch.inbound_failed().await,
        ("not_admitted", "not admitted: duplicate".into())
    );
}

/// Its `init` is as good a sign of life as a pong.
#[tokio::test]
async fn an_incumbent_that_comes_up_while_a_newcomer_waits_has_shown_life() {
    let mut node = Node::live().await;
    let number = peer(true);
    let door = Door::open().await;
    let spec = PeerSpec::new(id(number), door.address);
    node.supervisor.add_peer(spec).await.unwrap();
    let mut old = door.accept(number).await;
    old.expect(16).await;
    let mut new = newcomer(&node, number).await;
    let done = |event: &Event| {
        matches!(
            event,
            Event::Handshake {
                direction: Direction::Inbound,
                ..
            }
        )
    };
    node.watch.until_count("the handshake", 1, done).await;
    for _ in 0..3 {
        node.supervisor.peers().await.unwrap();
    }
    old.send(&init()).await;
    node.next_up().await;
    let (said, _) = new.rest().await;
    assert_eq!(said, Vec::<bytes::Bytes>::new());
    old.settle().await;
}

/// Both have dialled, and neither has sent `init` yet: the link that must go is closed all the same, or each would wait for the other.
#[tokio::test]
async fn an_incumbent_that_waits_for_its_peer_s_init_makes_room_at_once() {
    let mut node = Node::live().await;
    let number = peer(false);
    let door = Door::open().await;
    let spec = PeerSpec::new(id(number), door.address);
    node.supervisor.add_peer(spec).await.unwrap();
    let mut old = door.accept(number).await;
    let mut new = newcomer(&node, number).await;
    let link = node.next_up().await;
    assert_eq!(&node.next_message().await.bytes[2..], b"first");
    new.expect(16).await;
    new.settle().await;
    let (said, _) = old.rest().await;
    assert!(said.iter().all(|said| kind_of(said) == 16));
    assert_eq!(link.closed(), None);
}

/// The peer has rebooted: its old link does not answer, and must not keep it out.
#[tokio::test]
async fn p9_an_incumbent_that_is_silent_for_two_seconds_is_replaced() {
    let mut node = Node::live().await;
    let number = peer(true);
    let (mut old, link) = node.dial(number).await;
    let mut new = newcomer(&node, number).await;
    old.expect(18).await;
    node.clock.advance(just_before(limits::PROBE_DEADLINE));
    // A turn of the supervisor.
    node.supervisor.peers().await.unwrap();
    assert_eq!(link.closed(), None);
    node.clock.advance(INSTANT);
    replaced(&mut node, &link, &mut new).await;
    assert_eq!(old.rest().await, (Vec::new(), Got::Eof));
}

/// It does not even read: what waits for it must not keep it out either.
#[tokio::test]
async fn p9_an_incumbent_that_does_not_read_is_replaced_without_waiting_for_it() {
    for larger in [false, true] {
        let mut node = Node::live().await;
        let number = peer(larger);
        let (mut old, link) = node.dial(number).await;
        old.send(&message(265, &[0; 40])).await;
        node.next_message().await;
        clog(&link).await;
        let mut new = newcomer(&node, number).await;
        if larger {
            let done = |event: &Event| {
                matches!(
                    event,
                    Event::Handshake {
                        direction: Direction::Inbound,
                        ..
                    }
                )
            };
            node.watch.until_count("the handshake", 1, done).await;
            // The supervisor takes its turns until it has nothing to do.
            for _ in 0..3 {
                node.supervisor.peers().await.unwrap();
            }
            node.clock.advance(limits::PROBE_DEADLINE);
        }
        replaced(&mut node, &link, &mut new).await;
        // What it gets in the end is whole, if not all.
        let (said, _) = old.rest().await;
        assert!(said.iter().all(|said| [256, 18].contains(&kind_of(said))));
    }
}

/// Several contenders while the incumbent's end waits for the node: the newest is let in, and the node hears it all in order.
#[tokio::test]
async fn of_several_newcomers_the_newest_is_let_in() {
    let mut node = Node::live().await;
    let number = peer(true);
    let (mut old, link) = node.dial(number).await;
    let mut first = newcomer(&node, number).await;
    old.expect(18).await;
    let mut second = newcomer(&node, number).await;
    let (said, _) = first.rest().await;
    assert_eq!(said, Vec::<bytes::Bytes>::new());
    node.clock.advance(limits::PROBE_DEADLINE);
    replaced(&mut node, &link, &mut second).await;
}

/// A contender that has gone by the time its turn comes must not leave the peer without a link for good.
#[tokio::test]
async fn a_contender_that_gave_up_leaves_room_for_the_next_dial() {
    let mut node = Node::live().await;
    let number = peer(true);
    let door = Door::open().await;
    let spec = PeerSpec::new(id(number), door.address);
    node.supervisor.add_peer(spec).await.unwrap();
    let mut old = door.accept(number).await;
    old.greet().await;
    let link = node.next_up().await;
    let new = newcomer(&node, number).await;
    old.expect(18).await;
    drop(new);
    node.clock.advance(limits::PROBE_DEADLINE);
    assert_eq!(node.next_down().await.0, link.id());
    // The dead newcomer is found out, and the peer is dialled again after its backoff.
    let again = node.pass_time_until(Duration::from_millis(100), async {
        let mut far = door.accept(number).await;
        far.greet().await;
        far
    });
    let mut again = again.await;
    while direction(&node, number).await != Some(Direction::Outbound) {
        node.next().await;
    }
    again.settle().await;
}

/// The older of the two is admitted and told to go before it has run at all: it goes, though its peer never sends it an `init`.
#[tokio::test]
async fn of_two_links_whose_handshakes_end_in_one_instant_the_newest_is_let_in_at_once() {
    let mut node = Node::live().await;
    let mut wires = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::connect(node.address).await;
        let (three, authenticated) = wire.reach_act_three(1, node.id()).await;
        wires.push((wire, three, authenticated));
    }
    // No turn for the node between these two.
    for (wire, three, _) in &wires {
        assert_eq!(wire.socket.try_write(three).unwrap(), three.len());
    }
    let (wire, _, authenticated) = wires.pop().unwrap();
    let session = authenticated.into_session();
    let mut new = acts::Framed { wire, session };
    new.send(&init()).await;
    new.send(&message(256, b"first")).await;
    let link = node.next_up().await;
    assert_eq!(node.next_message().await.link, link.id());
    let (mut old, _, _) = wires.pop().unwrap();
    old.rest().await;
    assert_eq!(link.closed(), None);
}

/// What each side says of its link with the other: who dialled.
async fn direction(node: &Node, other: u16) -> Option<Direction> {
    let peers = node.supervisor.peers().await.unwrap();
    let peer = peers.iter().find(|peer| peer.node_id == id(other))?;
    Some(peer.link.as_ref()?.direction)
}

/// Waits until this side has one link with the other, dialled from where it must be.
async fn settled(node: &Node, other: u16, expected: Direction) -> LinkHandle {
    let look = async {
        loop {
            if direction(node, other).await == Some(expected)
                && let Some(link) = node.supervisor.link(id(other)).await.unwrap()
                && node.supervisor.snapshot().links.gossip_only == 1
            {
                return link;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("one link", look).await
}

/// Rounds of two nodes that dial each other, and how many run at once.
const ROUNDS: u16 = 1000;
const AT_ONCE: u16 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_that_dial_each_other_at_once_both_keep_the_smaller_key_s_link() {
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..AT_ONCE {
        workers.spawn(async move {
            let rounds = (worker..ROUNDS).step_by(usize::from(AT_ONCE));
            let mut done = 0;
            for round in rounds {
                dial_each_other(round).await;
                done += 1;
            }
            done
        });
    }
    let mut done = 0;
    while let Some(rounds) = workers.join_next().await {
        done += rounds.unwrap();
    }
    assert_eq!(done, ROUNDS);
}

/// Two nodes, in the same instant. Which of their signers answers first, and how much later the other, differs from round to round.
async fn dial_each_other(round: u16) {
    let (one, two) = (2000 + round, 3000 + round);
    let smaller_first = id(one) < id(two);
    let (small, large) = if smaller_first {
        (one, two)
    } else {
        (two, one)
    };
    let mut a = Node::live_as(small).await;
    let mut b = Node::live_as(large).await;
    let gates = [a.signer.gated(), b.signer.gated()];
    let dial = |from: &Node, number: u16, to: &Node| {
        let (supervisor, spec) = (
            from.supervisor.clone(),
            PeerSpec::new(id(number), to.address),
        );
        tokio::spawn(async move { supervisor.connect(spec).await })
    };
    let (from_a, from_b) = (dial(&a, large, &b), dial(&b, small, &a));
    // Both dials are under way when each node waits for its signer to answer the other's act one.
    let asked = async { tokio::join!(a.signer.until_asked(1), b.signer.until_asked(1)) };
    soon("both are dialled", asked).await;
    for gate in if round.is_multiple_of(2) {
        [0, 1]
    } else {
        [1, 0]
    } {
        gates[gate].add_permits(100);
        for _ in 0..(round / 2) % 25 {
            tokio::task::yield_now().await;
        }
    }
    let both = async { tokio::join!(from_a, from_b) };
    let (from_a, from_b) = soon("both dials", both).await;
    let (from_a, from_b) = (from_a.unwrap(), from_b.unwrap());
    // Each is told of a link or that its own dial was one too many.
    assert!(
        from_a.is_ok() || from_b.is_ok(),
        "round {round}: {from_a:?}, {from_b:?}"
    );
    let at_a = settled(&a, large, Direction::Outbound).await;
    let at_b = settled(&b, small, Direction::Inbound).await;
    // Each end's link is the other's: what goes in here comes out there.
    exchange(&at_a, &mut b, &at_b, round).await;
    exchange(&at_b, &mut a, &at_a, round).await;
    for (node, other, link, expected) in [
        (&a, large, &at_a, Direction::Outbound),
        (&b, small, &at_b, Direction::Inbound),
    ] {
        assert_eq!(direction(node, other).await, Some(expected), "{round}");
        let now = node.supervisor.link(id(other)).await.unwrap();
        assert_eq!(now.map(|now| now.id()), Some(link.id()), "{round}");
        assert_eq!(link.closed(), None, "round {round}");
    }
    let errors = |event: &Event| matches!(event, Event::PeerComplained { .. });
    assert_eq!((a.watch.count(errors), b.watch.count(errors)), (0, 0));
}

async fn exchange(link: &LinkHandle, to: &mut Node, its: &LinkHandle, round: u16) {
    let sent = message(261, &[&round.to_be_bytes()[..], &[0; 40]].concat());
    let receipt = link.send(sent.clone()).await.unwrap();
    soon("the kernel", receipt.flushed()).await.unwrap();
    loop {
        if let Inbound::Message(message) = to.next().await {
            assert_eq!(message.bytes, sent);
            assert_eq!(message.link, its.id(), "it came on another connection");
            return;
        }
    }
}

/// A node that has rebooted dials while its old link still stands at the other end, for no word of its end has come through: the old
/// one is pinged, and 2 s later the new one is let in.
#[tokio::test]
async fn p9_a_rebooted_node_is_not_refused_because_its_old_link_still_stands() {
    let mut node = Node::live().await;
    // Its dial does not win by the rule of the keys.
    let number = peer(true);
    let before = Node::live_as(number).await;
    let path = Proxy::start(before.address);
    let spec = PeerSpec::new(id(number), path.address);
    let old = soon("the dial", node.supervisor.connect(spec))
        .await
        .unwrap();
    assert_eq!(node.next_up().await.id(), old.id());
    path.fall_silent();
    drop(before);
    let after = Node::live_as(number).await;
    let (supervisor, spec) = (
        after.supervisor.clone(),
        PeerSpec::new(node.id(), node.address),
    );
    let dial = tokio::spawn(async move { supervisor.connect(spec).await });
    let authenticated = |event: &Event| {
        matches!(
            event,
            Event::Handshake {
                direction: Direction::Inbound,
                ..
            }
        )
    };
    node.watch
        .until_count("the handshake", 1, authenticated)
        .await;
    for _ in 0..3 {
        node.supervisor.peers().await.unwrap();
    }
    node.clock.advance(just_before(limits::PROBE_DEADLINE));
    node.supervisor.peers().await.unwrap();
    assert_eq!(old.closed(), None, "the old link has 2 s to answer");
    node.clock.advance(INSTANT);
    assert_eq!(node.next_down().await, (old.id(), CloseReason::Duplicate));
    let new = node.next_up().await;
    assert_eq!(direction(&node, number).await, Some(Direction::Inbound));
    let far = soon("the dial", dial).await.unwrap().unwrap();
    assert_eq!((far.closed(), new.closed()), (None, None));
}
