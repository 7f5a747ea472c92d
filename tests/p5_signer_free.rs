//! Promise P5: while no signer is there, what needs one fails at once, strangers wait in a bounded place, nothing that they send
//! causes a signer call, and live links are served as ever.
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

use std::net::{IpAddr, Ipv4Addr};

use acts::{Framed, Wire, act_one, act_three, act_two};
use node::{Door, Far, Got, INSTANT, Node, id, just_before, message, soon};
use pilotlight::brontide::AwaitActTwo;
use pilotlight::limits;
use pilotlight::link::{Direction, LinkHandle, SendError, Tag};
use pilotlight::supervisor::{ConnectError, Mode, PeerSpec, PeerState};
use pilotlight::telemetry::Event;
use signers::Manner;

/// A node without a signer: it never had one, or it has lost it and kept one gossip link.
async fn signerless(lost: bool) -> (Node, Option<(Far, LinkHandle)>) {
    if !lost {
        let node = Node::waiting().await;
        assert_eq!(node.supervisor.mode(), Mode::Waiting);
        return (node, None);
    }
    let mut node = Node::live().await;
    let link = node.accept(900).await;
    node.lapse().await;
    assert_eq!(node.supervisor.mode(), Mode::Safe);
    node.watch.mark();
    (node, Some(link))
}

/// The live link, if there is one, answers as ever.
async fn is_served(live: &mut Option<(Far, LinkHandle)>) {
    if let Some((far, link)) = live {
        assert_eq!(far.settle().await, Vec::<bytes::Bytes>::new());
        assert_eq!(link.closed(), None);
    }
}

/// An address of a /24 of its own, which the test has all addresses of.
fn address(subnet: usize, host: u8) -> IpAddr {
    let subnet = u16::try_from(subnet).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 1 + subnet[0], subnet[1], host).into()
}

async fn parked(node: &mut Node, now: usize) {
    node.watch
        .until("so many are parked", |event| {
            (*event == Event::Parked { now }).then_some(())
        })
        .await;
}

/// Sockets that fill every place.
async fn fill_the_parking(node: &mut Node) -> Vec<Wire> {
    let mut wires = Vec::new();
    for place in 0..limits::PARKED_MAX {
        let subnet = place / limits::PARKED_PER_SUBNET;
        let host = 1 + u8::try_from(place % limits::PARKED_PER_SUBNET).unwrap();
        wires.push(Wire::connect_from(address(subnet, host), node.address).await);
    }
    parked(node, limits::PARKED_MAX).await;
    wires
}

#[tokio::test]
async fn p5_a_dial_fails_at_once_and_is_held() {
    for lost in [false, true] {
        let (mut node, mut live) = signerless(lost).await;
        let door = Door::open().await;
        for tag in [Tag::GossipOnly, Tag::ChannelBearing] {
            // The second and the third attempt fail as the first does.
            for _ in 0..3 {
                let spec = PeerSpec::new(id(1), door.address).tagged(tag);
                let refused = soon("an answer", node.supervisor.connect(spec)).await;
                assert_eq!(refused.err(), Some(ConnectError::SignerAway));
            }
        }
        let peers = node.supervisor.peers().await.unwrap();
        let held = peers.iter().find(|peer| peer.node_id == id(1)).unwrap();
        assert_eq!(held.state, PeerState::Held);
        let dialled = |event: &Event| matches!(event, Event::Dialing { .. });
        assert_eq!(node.watch.count(dialled), 0);
        is_served(&mut live).await;
        // It is held, not forgotten.
        node.attach().await;
        let (_far, link) = tokio::join!(
            async {
                let mut far = door.accept(1).await;
                far.greet().await;
                far
            },
            node.next_up()
        );
        assert_eq!(link.peer(), id(1));
    }
}

#[tokio::test]
async fn p5_who_waits_for_a_dial_is_told_at_once_when_the_signer_goes() {
    let mut node = Node::live().await;
    let door = Door::open().await;
    let spec = PeerSpec::new(id(1), door.address).tagged(Tag::ChannelBearing);
    let supervisor = node.supervisor.clone();
    let dial = tokio::spawn(async move { supervisor.connect(spec).await });
    let socket = door.socket().await;
    node.lapse().await;
    let outcome = soon("an answer", dial).await.unwrap();
    assert_eq!(outcome.err(), Some(ConnectError::SignerAway));
    drop(socket);
}

#[tokio::test]
async fn p5_a_peer_lost_while_the_signer_is_away_is_held_and_asking_for_it_fails_at_once() {
    let mut node = Node::live().await;
    let (far, link) = node.dial(1).await;
    node.lapse().await;
    let address = far.link.socket().local_addr().unwrap();
    let spec = PeerSpec::new(id(1), address);
    let kept = soon("an answer", node.supervisor.connect(spec.clone())).await;
    assert_eq!(kept.unwrap().id(), link.id(), "a live link is an answer");
    drop(far);
    node.next_down().await;
    node.watch.link_down(link.id()).await;
    for _ in 0..2 {
        let refused = soon("an answer", node.supervisor.connect(spec.clone())).await;
        assert_eq!(refused.err(), Some(ConnectError::SignerAway));
    }
}

#[tokio::test]
async fn p5_what_only_the_signer_can_answer_for_is_refused_at_once() {
    let (_node, mut live) = signerless(true).await;
    let (_, link) = live.as_ref().unwrap();
    for kind in [32, 36, 128, 136, 513, 17] {
        let refused = soon("an answer", link.send(message(kind, &[0; 64]))).await;
        assert_eq!(refused.err(), Some(SendError::SignerAway { kind }));
    }
    is_served(&mut live).await;
}

#[tokio::test]
async fn p5_nothing_that_a_stranger_sends_causes_a_signer_call() {
    for lost in [false, true] {
        let (mut node, mut live) = signerless(lost).await;
        let asked = node.signer.asked();
        let (_, one) = act_one(1, node.id());
        let offers: [&[u8]; 5] = [&[], &one, &[0xff; 50], &[0; 4000], &one[..49]];
        let mut wires = Vec::new();
        for (subnet, offer) in offers.into_iter().enumerate() {
            let mut wire = Wire::connect_from(address(subnet, 1), node.address).await;
            wire.write(offer).await;
            wires.push(wire);
        }
        parked(&mut node, offers.len()).await;
        is_served(&mut live).await;
        node.clock.advance(limits::PARKED_FOR);
        for mut wire in wires {
            assert_eq!(wire.rest().await, [0_u8; 0]);
        }
        assert_eq!(node.signer.asked(), asked);
        is_served(&mut live).await;
    }
}

#[tokio::test]
async fn p5_p9_the_parking_is_bounded_in_all_and_for_each_subnet() {
    for lost in [false, true] {
        let (mut node, mut live) = signerless(lost).await;
        let first = Wire::connect_from(address(0, 1), node.address).await;
        let second = Wire::connect_from(address(0, 2), node.address).await;
        parked(&mut node, 2).await;
        let mut third = Wire::connect_from(address(0, 200), node.address).await;
        assert_eq!(third.rest().await, [0_u8; 0]);
        let (failure, detail) = node.watch.inbound_failed().await;
        assert_eq!(failure, "signer_away");
        assert!(detail.contains("no place left"), "{detail}");
        drop((first, second));
        parked(&mut node, 0).await;

        node.watch.mark();
        let wires = fill_the_parking(&mut node).await;
        let mut late = Wire::connect_from(address(1000, 1), node.address).await;
        assert_eq!(late.rest().await, [0_u8; 0]);
        is_served(&mut live).await;
        // A place that comes free can be had.
        node.watch.mark();
        drop(wires);
        parked(&mut node, 0).await;
        node.watch.mark();
        let _one = Wire::connect_from(address(1000, 1), node.address).await;
        parked(&mut node, 1).await;
        is_served(&mut live).await;
    }
}

#[tokio::test]
async fn p5_whoever_is_parked_is_closed_after_four_seconds() {
    for lost in [false, true] {
        let (mut node, mut live) = signerless(lost).await;
        let mut wires = fill_the_parking(&mut node).await;
        node.clock.advance(just_before(limits::PARKED_FOR));
        is_served(&mut live).await;
        let gone = |event: &Event| matches!(event, Event::InboundFailed { .. });
        assert_eq!(node.watch.count(gone), 0);
        node.clock.advance(INSTANT);
        for wire in &mut wires {
            assert_eq!(wire.rest().await, [0_u8; 0]);
        }
        node.watch
            .until_count("all are closed", limits::PARKED_MAX, gone)
            .await;
        is_served(&mut live).await;
    }
}

/// design.md section 4: 5 s − parked − the signer's round trip − 1 s: what the last signer took for an answer is left for the next one's.
#[tokio::test]
async fn p5_whoever_is_parked_is_closed_so_much_earlier_as_the_signer_took_for_an_answer() {
    let mut node = Node::live().await;
    let round_trip = std::time::Duration::from_millis(1_500);
    node.signer
        .behave(Manner::Slow(node.clock.clone(), round_trip));
    // A stranger whose ECDH takes that long, and never goes on.
    let (mut wire, _) = waiting_for_ecdh(&node, &[address(0, 1)]).await.remove(0);
    node.clock.advance(round_trip);
    let _two: [u8; 50] = wire.read().await;
    drop(wire);
    node.watch
        .until("its end", |event| {
            matches!(event, Event::InboundFailed { .. }).then_some(())
        })
        .await;
    node.lapse().await;
    node.watch.mark();
    let mut late = Wire::connect_from(address(1, 1), node.address).await;
    parked(&mut node, 1).await;
    node.clock
        .advance(just_before(limits::PARKED_FOR.saturating_sub(round_trip)));
    // Somebody else's round trip shows that the node had the time to close it.
    let mut other = Wire::connect_from(address(2, 1), node.address).await;
    parked(&mut node, 2).await;
    let gone = |event: &Event| matches!(event, Event::InboundFailed { .. });
    assert_eq!(node.watch.count(gone), 0);
    node.clock.advance(INSTANT);
    assert_eq!(late.rest().await, [0_u8; 0]);
    node.clock.advance(limits::PARKED_FOR);
    assert_eq!(other.rest().await, [0_u8; 0]);
}

#[tokio::test]
async fn p5_whoever_is_parked_goes_on_when_the_signer_comes() {
    for lost in [false, true] {
        let (mut node, mut live) = signerless(lost).await;
        let wires = fill_the_parking(&mut node).await;
        let remote = node.id();
        let mut tasks = tokio::task::JoinSet::new();
        for (number, wire) in (1..).zip(wires) {
            tasks.spawn(async move {
                let mut framed = wire.initiate(number, remote).await;
                framed.send(&node::init()).await;
                framed
            });
        }
        node.clock.advance(limits::PARKED_FOR / 2);
        node.attach().await;
        for _ in 0..limits::PARKED_MAX {
            node.next_up().await;
        }
        let framed = soon("the handshakes", tasks.join_all()).await;
        assert_eq!(framed.len(), limits::PARKED_MAX);
        let peers = node.supervisor.peers().await.unwrap();
        let links = peers.iter().filter_map(|peer| peer.link.as_ref());
        assert!(
            links
                .clone()
                .all(|link| link.direction == Direction::Inbound)
        );
        assert_eq!(links.count(), limits::PARKED_MAX + usize::from(lost));
        is_served(&mut live).await;
    }
}

/// Strangers whose handshakes wait for their ECDH, each from the given place.
async fn waiting_for_ecdh(node: &Node, from: &[IpAddr]) -> Vec<(Wire, AwaitActTwo)> {
    let asked = node.signer.asked();
    let mut wires = Vec::new();
    for (number, source) in (1..).zip(from) {
        let mut wire = Wire::connect_from(*source, node.address).await;
        let (state, one) = act_one(number, node.id());
        wire.write(&one).await;
        wires.push((wire, state));
    }
    let all = asked + from.len();
    soon("all are asked for", node.signer.until_asked(all)).await;
    wires
}

/// Acts two and three, with the state that act one left.
async fn finish(mut wire: Wire, state: AwaitActTwo, number: u16) -> Framed {
    let two = wire.read::<50>().await;
    let (three, authenticated) = act_three(state, &two, number);
    wire.write(&three).await;
    let session = authenticated.into_session();
    Framed { wire, session }
}

#[tokio::test]
async fn p5_a_stranger_s_handshake_that_a_lapse_stops_goes_on_under_the_next_session() {
    let mut node = Node::live().await;
    let _gate = node.signer.gated();
    let (wire, state) = waiting_for_ecdh(&node, &[address(0, 1)]).await.remove(0);
    node.clock.advance(limits::PARKED_FOR / 2);
    node.lapse().await;
    parked(&mut node, 1).await;
    assert_eq!(node.signer.held(), 0, "nobody waits for the old session");
    node.clock.advance(just_before(limits::PARKED_FOR / 2));
    node.signer.behave(Manner::Answer);
    let asked = node.signer.asked();
    node.attach().await;
    let mut framed = finish(wire, state, 1).await;
    framed.send(&node::init()).await;
    assert_eq!(node.next_up().await.peer(), id(1));
    assert_eq!(node.signer.asked(), asked + 1, "asked once more, for it");
    parked(&mut node, 0).await;
}

#[tokio::test]
async fn p5_a_stranger_s_handshake_that_a_lapse_stops_has_four_seconds_from_its_act_one() {
    let mut node = Node::live().await;
    let _gate = node.signer.gated();
    let (mut wire, _) = waiting_for_ecdh(&node, &[address(0, 1)]).await.remove(0);
    node.clock.advance(limits::PARKED_FOR / 4 * 3);
    node.lapse().await;
    parked(&mut node, 1).await;
    node.clock.advance(just_before(limits::PARKED_FOR / 4));
    let mut live = None;
    is_served(&mut live).await;
    let gone = |event: &Event| matches!(event, Event::InboundFailed { .. });
    assert_eq!(node.watch.count(gone), 0);
    node.clock.advance(INSTANT);
    assert_eq!(wire.rest().await, [0_u8; 0]);
    assert_eq!(node.watch.inbound_failed().await.0, "signer_away");
    let ended = |event: &Event| match event {
        Event::Handshake { result, .. } => Some(*result),
        _ => None,
    };
    let result = node.watch.until("the handshake's end", ended).await;
    assert_eq!(result, "signer_away");
}

#[tokio::test]
async fn p5_a_stranger_who_was_still_silent_when_the_signer_went_is_parked_too() {
    let mut node = Node::live().await;
    let mut wire = Wire::connect(node.address).await;
    let (state, one) = act_one(1, node.id());
    wire.write(&one[..20]).await;
    node.lapse().await;
    parked(&mut node, 1).await;
    node.attach().await;
    wire.write(&one[20..]).await;
    let mut framed = finish(wire, state, 1).await;
    framed.send(&node::init()).await;
    assert_eq!(node.next_up().await.peer(), id(1));
}

#[tokio::test]
async fn p5_p9_of_one_subnet_two_handshakes_are_parked_at_a_lapse_and_the_others_closed() {
    let mut node = Node::live().await;
    let _gate = node.signer.gated();
    let from: Vec<IpAddr> = (1..=5).map(|host| address(0, host)).collect();
    let wires = waiting_for_ecdh(&node, &from).await;
    node.lapse().await;
    let refused = |event: &Event| matches!(event, Event::InboundFailed { failure: "signer_away", detail, .. } if detail.contains("no place left"));
    node.watch.until_count("three are closed", 3, refused).await;
    parked(&mut node, limits::PARKED_PER_SUBNET).await;
    drop(wires);
}

/// Half of those who were parked have begun their handshakes, the others still wait for a turn, when the signer goes again.
#[tokio::test]
async fn p5_p9_a_handshake_that_a_lapse_stops_is_closed_when_the_parking_is_full() {
    let mut node = Node::waiting().await;
    let gate = node.signer.gated();
    let mut wires = Vec::new();
    for (number, mut wire) in (1..).zip(fill_the_parking(&mut node).await) {
        let (state, one) = act_one(number, node.id());
        wire.write(&one).await;
        wires.push((wire, state, number));
    }
    node.attach().await;
    node.supervisor.declare_channel_peers([]).await.unwrap();
    let half = limits::UNPARKED_HANDSHAKES;
    soon("half of them", node.signer.until_asked(half)).await;
    parked(&mut node, limits::PARKED_MAX - half).await;
    let one_more = waiting_for_ecdh(&node, &[address(1000, 1)]).await;
    node.lapse().await;
    let (failure, detail) = node.watch.inbound_failed().await;
    assert_eq!(failure, "signer_away");
    assert!(detail.contains("no place left"), "{detail}");
    parked(&mut node, limits::PARKED_MAX).await;
    let gone = |event: &Event| matches!(event, Event::InboundFailed { .. });
    assert_eq!(node.watch.count(gone), 1, "one too many, one is closed");
    drop((gate, one_more, wires));
}

#[tokio::test]
async fn p5_a_dial_that_waits_for_its_ecdh_fails_at_once_and_is_repeated_at_the_return() {
    for tag in [Tag::GossipOnly, Tag::ChannelBearing] {
        let mut node = Node::live().await;
        let _gate = node.signer.gated();
        let door = Door::open().await;
        let spec = PeerSpec::new(id(1), door.address).tagged(tag);
        let supervisor = node.supervisor.clone();
        let dial = tokio::spawn(async move { supervisor.connect(spec).await });
        let mut wire = Wire {
            socket: door.socket().await,
        };
        let one = wire.read::<50>().await;
        wire.write(&act_two(1, &one).1).await;
        soon("the signer is asked", node.signer.until_asked(1)).await;
        node.lapse().await;
        let outcome = soon("an answer", dial).await.unwrap();
        assert_eq!(outcome.err(), Some(ConnectError::SignerAway));
        assert_eq!(wire.rest().await, [0_u8; 0]);
        node.signer.behave(Manner::Answer);
        node.attach().await;
        let mut far = door.accept(1).await;
        far.greet().await;
        assert_eq!(node.next_up().await.peer(), id(1));
    }
}

#[tokio::test]
async fn p5_the_mode_is_told_also_when_a_session_was_too_short_to_be_seen() {
    let mut node = Node::waiting().await;
    // Both before the supervisor has had a turn.
    node.attach_now();
    let epoch = node.lapse_now();
    node.lapsed(epoch).await;
    assert_eq!(node.supervisor.mode(), Mode::Safe);
    let (from, to) = node
        .watch
        .until("the mode", |event| match event {
            Event::ModeChanged { from, to } => Some((*from, *to)),
            _ => None,
        })
        .await;
    assert_eq!((from, to), (Mode::Waiting, Mode::Safe));
    let mut far = Wire::connect(node.address).await;
    parked(&mut node, 1).await;
    node.clock.advance(limits::PARKED_FOR);
    assert_eq!(far.rest().await, [0_u8; 0]);
    assert_eq!(node.attach().await.get(), 2);
    let (mut far, _) = node.accept(1).await;
    assert_eq!(far.ping(3).await, Vec::<bytes::Bytes>::new());
    node.lapse().await;
    // Nobody has declared anything: the stranger was channel-bearing.
    assert_eq!(far.rest().await, (Vec::new(), Got::Reset));
}
