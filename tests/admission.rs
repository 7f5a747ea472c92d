//! Strangers at the door, on real sockets of many loopback addresses: silent ones keep nobody out, whoever has many places loses one
//! first, and what one address has done is held against that address alone.
//!
//! The node's clock stands still unless a test moves it: whoever gets in does so because others lose their places, not because they
//! time out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::missing_panics_doc
)]

#[path = "support/node.rs"]
mod node;
#[path = "support/signers.rs"]
mod signers;

use node::{Far, Got, Node, id, message, soon};
use pilotlight::limits;
use pilotlight::link::CloseReason;
use pilotlight::supervisor::{Banned, Inbound, Offence, PeerSpec};
use pilotlight::telemetry::Event;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A connection to the node from an address of loopback.
async fn from(source: IpAddr, node: &Node) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source, 0)).unwrap();
    soon("a connection", socket.connect(node.address))
        .await
        .unwrap()
}

/// The address with that number in the network with that number.
fn place(subnet: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(127, subnet, 0, host).into()
}

/// As many silent connections, from as many addresses in each of so many networks in turn.
async fn silent(count: usize, subnets: u8, hosts: u8, node: &Node) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    let mut places = (1..=hosts)
        .flat_map(|host| (1..=subnets).map(move |subnet| place(subnet, host)))
        .collect::<Vec<_>>()
        .into_iter()
        .cycle();
    for _ in 0..count {
        sockets.push(from(places.next().unwrap(), node).await);
    }
    sockets
}

/// How many of these the node has closed, once so many have been.
async fn closed(sockets: &mut [TcpStream], count: usize) -> Vec<usize> {
    let mut gone = Vec::new();
    soon("connections closed", async {
        while gone.len() < count {
            for (index, socket) in sockets.iter_mut().enumerate() {
                let mut byte = [0];
                if !gone.contains(&index) && matches!(socket.try_read(&mut byte), Ok(0)) {
                    gone.push(index);
                }
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    gone.sort_unstable();
    gone
}

#[tokio::test]
async fn p9_silent_sockets_from_one_address_delay_nobody() {
    for count in [50, 64, 200] {
        let mut node = Node::live().await;
        let mut sockets = silent(count, 1, 1, &node).await;
        let (mut far, _link) = node.accept(1).await;
        far.settle().await;
        let lost = count - limits::HANDSHAKES_PER_ADDRESS;
        let gone = closed(&mut sockets, lost).await;
        // The oldest of that address, and nobody else's.
        assert_eq!(gone, (0..lost).collect::<Vec<_>>(), "{count}");
    }
}

#[tokio::test]
async fn p9_silent_sockets_from_many_networks_delay_nobody() {
    for count in [50, 64, 200] {
        let mut node = Node::live().await;
        // The honest peer's own address is among those that send nothing.
        let mut sockets = silent(count, 200, 1, &node).await;
        sockets.push(from(Ipv4Addr::LOCALHOST.into(), &node).await);
        let mut honest = Vec::new();
        for number in 1..=3 {
            let (mut far, _link) = node.accept(number).await;
            far.settle().await;
            honest.push(far);
        }
        let lost = (count + 2).saturating_sub(limits::INBOUND_HANDSHAKES);
        assert!(closed(&mut sockets, lost).await.len() >= lost, "{count}");
    }
}

/// 200 sockets of four networks want every place: they push out one another, and not the one that came before them all and is slow.
#[tokio::test]
async fn p9_who_has_few_places_loses_none_to_who_has_many() {
    let mut node = Node::live().await;
    let mut slow = from(place(250, 1), &node).await;
    let mut sockets = silent(200, 4, 50, &node).await;
    let mut honest = Vec::new();
    for number in 1..=3 {
        let (mut far, _link) = node.accept(number).await;
        far.settle().await;
        honest.push(far);
    }
    closed(&mut sockets, 200 - limits::INBOUND_HANDSHAKES + 1).await;
    let mut byte = [0];
    assert!(
        slow.try_read(&mut byte).is_err(),
        "the slow one keeps its place"
    );
    node.clock.advance(limits::ACT_DEADLINE);
    assert_eq!(
        soon("its own deadline", slow.read(&mut byte))
            .await
            .unwrap(),
        0
    );
}

/// A hundred strangers have links; the next costs the one its link that has been of use the longest ago, in peace, and no channel of
/// anybody fails (P4).
#[tokio::test]
async fn p9_a_stranger_too_many_costs_the_one_its_link_that_is_idle_the_longest() {
    let mut node = Node::live().await;
    let mut fars = Vec::new();
    for number in 1..=u16::try_from(limits::STRANGERS_MAX).unwrap() {
        fars.push(node.accept(number).await);
    }
    node.clock.advance(std::time::Duration::from_secs(1));
    let (first, _) = &mut fars[0];
    first.send(&message(32_769, b"of use")).await;
    node.next_message().await;
    let mut late = Far::dial(node.address, 900, node.id()).await;
    late.greet().await;
    let (far, link) = &mut fars[1];
    assert_eq!(far.rest().await, (vec![], Got::Eof));
    // Which of the two the node hears of first is not said.
    let mut told = [node.next().await, node.next().await];
    told.sort_by_key(|told| matches!(told, Inbound::Up { .. }));
    assert!(
        matches!(&told, [Inbound::Down { link: down, reason: CloseReason::Evicted, .. }, Inbound::Up { link: up, .. }]
            if *down == link.id() && up.peer() == late.id),
        "{told:?}"
    );
    assert_eq!(node.watch.link_down(link.id()).await, CloseReason::Evicted);
    late.settle().await;
    fars[0].0.settle().await;
    fars[2].0.settle().await;
}

/// The bans that have begun so far, in order.
fn bans(node: &mut Node) -> Vec<Banned> {
    let events = node.watch.since_mark().iter();
    events
        .filter_map(|event| match event {
            Event::Banned { who, .. } => Some(*who),
            _ => None,
        })
        .collect()
}

/// Broken act ones from one address: it is turned away unread, at no cost to the signer, and nobody else is; then it may come again.
#[tokio::test]
async fn p9_an_address_that_breaks_handshakes_is_banned_for_a_time() {
    let mut node = Node::live().await;
    let bad = place(9, 9);
    let acts = limits::BAN_SCORE.div_ceil(Offence::Handshake.points().1);
    for _ in 0..acts {
        let mut socket = from(bad, &node).await;
        // Version 0, and a point that is none.
        let mut act = [0xff; 50];
        act[0] = 0;
        socket.write_all(&act).await.unwrap();
        let mut byte = [0];
        let end = soon("the refusal", socket.read(&mut byte)).await;
        assert!(matches!(end, Ok(0) | Err(_)));
    }
    let banned = |event: &Event| match event {
        Event::Banned { who, lasts, .. } => Some((*who, *lasts)),
        _ => None,
    };
    let (who, lasts) = node.watch.until("a ban", banned).await;
    assert_eq!((who, lasts), (Banned::Address(bad), limits::BAN_FIRST));
    assert_eq!(node.supervisor.snapshot().bans, 1);
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(from(bad, &node).await);
    }
    // Closed at once: the clock stands still.
    closed(&mut sockets, 20).await;
    // A neighbour and a peer elsewhere are served.
    let neighbour = from(place(9, 10), &node).await;
    let (mut far, _link) = node.accept(1).await;
    far.settle().await;
    let mut byte = [0];
    assert!(neighbour.try_read(&mut byte).is_err(), "it has a place");
    assert_eq!(bans(&mut node), [who], "a ban is told once");
    node.clock.advance(lasts);
    assert_eq!(node.supervisor.snapshot().bans, 0);
    let back = from(bad, &node).await;
    let (mut far, _link) = node.accept(2).await;
    far.settle().await;
    assert!(back.try_read(&mut byte).is_err(), "it has a place again");
}

/// A node that floods with pings is not let in for a time, from wherever it comes; one that the node wants is only closed.
#[tokio::test]
async fn p9_a_node_that_floods_is_banned_unless_the_node_wants_it() {
    let mut node = Node::live().await;
    let floods = limits::BAN_SCORE.div_ceil(Offence::PingFlood.points().0);
    for number in [1, 2] {
        if number == 2 {
            let spec = PeerSpec {
                addresses: Vec::new(),
                ..PeerSpec::new(id(2), node.address)
            };
            node.supervisor.add_peer(spec).await.unwrap();
        }
        for _ in 0..floods {
            let (mut far, link) = node.accept(number).await;
            let ping = pilotlight::wire::Ping {
                num_pong_bytes: 65_531,
                ignored: 0,
            };
            for _ in 0..40 {
                far.try_send(&ping.encode()).await;
            }
            assert_eq!(node.next_down().await, (link.id(), CloseReason::PingFlood));
        }
    }
    let (mut far, _link) = node.accept(2).await;
    far.settle().await;
    assert_eq!(bans(&mut node), [Banned::Node(id(1))]);
    node.watch.mark();
    let mut far = Far::dial(node.address, 1, node.id()).await;
    assert!(matches!(far.rest().await.1, Got::Eof | Got::Reset));
    let (failure, words) = node.watch.inbound_failed().await;
    assert_eq!(failure, "not_admitted");
    assert!(words.contains("banned"), "{words}");
    node.clock.advance(limits::BAN_FIRST);
    let (mut far, _link) = node.accept(1).await;
    far.settle().await;
}

/// A stranger for whom the signer has nothing left is closed as it is accepted: no place, no task, no event, no question to the signer.
#[tokio::test]
async fn p9_a_stranger_whom_the_signer_declines_costs_an_accept_and_no_more() {
    let mut node = Node::live().await;
    let bad = place(9, 9);
    node.signer.decline(Some(bad));
    let asked = node.signer.asked();
    node.watch.mark();
    let mut sockets = Vec::new();
    for _ in 0..100 {
        let mut socket = from(bad, &node).await;
        // What they send is not read: the close may overtake it.
        let _ = socket.write_all(&[0; 50]).await;
        sockets.push(socket);
    }
    soon("all are closed", async {
        for socket in &mut sockets {
            let mut byte = [0];
            assert!(matches!(socket.read(&mut byte).await, Ok(0) | Err(_)));
        }
    })
    .await;
    let told = |event: &Event| {
        matches!(
            event,
            Event::InboundFailed { .. }
                | Event::Handshake { .. }
                | Event::Ecdh { .. }
                | Event::EcdhThrottled { .. }
        )
    };
    assert_eq!(node.watch.count(told), 0, "nothing is told of any");
    assert_eq!(node.signer.asked(), asked);
    // Others are served, and so is it once the signer has time for it.
    let (mut far, _link) = node.accept(1).await;
    far.settle().await;
    node.signer.decline(None);
    let back = from(bad, &node).await;
    let (mut far, _link) = node.accept(2).await;
    far.settle().await;
    let mut byte = [0];
    assert!(back.try_read(&mut byte).is_err(), "it has a place");
}

/// Whoever dials from a network that the operator protects is closed for what it does wrong, and never banned.
#[tokio::test]
async fn a_protected_address_is_never_banned() {
    let friend = place(9, 9);
    let mut node = Node::live_with(|builder| builder.protected([friend.into()])).await;
    let acts = 2 * limits::BAN_SCORE.div_ceil(Offence::Handshake.points().1);
    for source in [friend, place(9, 10)] {
        for _ in 0..acts {
            let mut socket = from(source, &node).await;
            let mut act = [0xff; 50];
            act[0] = 0;
            let _ = socket.write_all(&act).await;
            let mut byte = [0];
            let end = soon("the refusal", socket.read(&mut byte)).await;
            assert!(matches!(end, Ok(0) | Err(_)));
        }
    }
    let banned = |event: &Event| match event {
        Event::Banned { who, .. } => Some(*who),
        _ => None,
    };
    let who = node.watch.until("a ban", banned).await;
    assert_eq!(who, Banned::Address(place(9, 10)));
    assert_eq!(bans(&mut node), [who]);
    assert_eq!(node.supervisor.snapshot().bans, 1);
}
