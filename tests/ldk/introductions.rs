//! Handshake and `init` with LDK, either side dialling: both learn who the other is and what it offers.

use pilotlight::link::{CloseReason, Direction, Tag};
use pilotlight::supervisor::PeerSpec;
use pilotlight::telemetry::Event;
use pilotlight::wire::{BITCOIN_MAINNET, Init};

use crate::ldk_peer::{LdkPeer, ldk_key};
use crate::live_node::Node;

/// What both ends know of each other once a link is up.
async fn check_introductions(node: &Node, ldk: &LdkPeer, direction: Direction) -> Vec<u16> {
    let (link, init) = node.link_with(ldk.id(), 1).await;
    assert_eq!(link.peer(), ldk.id());
    let theirs = Init::decode(&init).unwrap();
    for bit in [0, 7, 8, 12, 14, 44] {
        assert!(
            theirs.features.has(bit),
            "LDK's init has bit {bit}: {:?}",
            theirs.features
        );
    }
    assert_eq!(theirs.networks, [BITCOIN_MAINNET]);

    ldk.introduced(1).await;
    let introduction = ldk.records.read(|records| records.connected[0].clone());
    assert_eq!(introduction.peer, ldk_key(node.id()));
    assert_eq!(introduction.inbound, direction == Direction::Outbound);
    assert_eq!(
        introduction.networks.unwrap(),
        [bitcoin::constants::ChainHash::BITCOIN]
    );
    let bits = |(byte, flags): (usize, &u8)| {
        (0..8)
            .filter(|bit| flags >> bit & 1 == 1)
            .map(|bit| byte * 8 + bit)
            .collect()
    };
    let ours: Vec<Vec<usize>> = introduction.features.iter().enumerate().map(bits).collect();
    let ours: Vec<u16> = ours
        .concat()
        .into_iter()
        .map(|bit| u16::try_from(bit).unwrap())
        .collect();
    assert_eq!(ours, [1, 7, 9, 13, 15, 45]);
    assert_eq!(
        ldk.manager
            .peer_by_node_id(&ldk_key(node.id()))
            .unwrap()
            .counterparty_node_id,
        ldk_key(node.id())
    );
    assert!(
        ldk.records
            .read(crate::ldk_handlers::Records::heard_no_complaint)
    );
    ours
}

#[tokio::test(flavor = "multi_thread")]
async fn we_dial_ldk_and_both_ends_know_each_other() {
    let (node, ldk) = (Node::start(1).await, LdkPeer::new(101));
    let address = ldk.listen().await;
    let link = node.connect(ldk.id(), address, Tag::GossipOnly).await;
    assert_eq!(link.peer(), ldk.id());
    let ours = check_introductions(&node, &ldk, Direction::Outbound).await;
    println!(
        "we dialled LDK {}; it takes our features {ours:?}",
        ldk.id()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ldk_dials_us_and_both_ends_know_each_other() {
    let (node, ldk) = (Node::start(2).await, LdkPeer::new(102));
    let address = node.listen().await;
    ldk.dial(node.id(), address).await;
    let ours = check_introductions(&node, &ldk, Direction::Inbound).await;
    println!(
        "LDK {} dialled us; it takes our features {ours:?}",
        ldk.id()
    );
}

/// Why the default offers what it offers.
#[tokio::test(flavor = "multi_thread")]
async fn ldk_refuses_a_node_that_offers_less() {
    for missing in [1, 9, 13, 15, 45] {
        let offered = [1, 7, 9, 13, 15, 45]
            .into_iter()
            .filter(|bit| *bit != missing);
        let node = Node::start_with(3, |builder| builder.features(offered)).await;
        let ldk = LdkPeer::new(103);
        let address = node.listen().await;
        ldk.dial(node.id(), address).await;
        // Our side is up when LDK's init has come; LDK then drops us without a word.
        let (link, _) = node.link_with(ldk.id(), 1).await;
        assert!(
            matches!(
                node.end_of(&link).await,
                CloseReason::PeerClosed | CloseReason::Io
            ),
            "bit {missing}"
        );
        assert!(
            ldk.records.read(|records| records.connected.is_empty()),
            "bit {missing}"
        );
    }
    println!("LDK closes a link that lacks any of 1, 9, 13, 15, 45");
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_an_ldk_that_dials_while_no_signer_is_there_waits_and_gets_through_on_its_return() {
    let (mut node, ldk) = (Node::start(4).await, LdkPeer::new(104));
    let address = node.listen().await;
    let _ = node.lapse();
    ldk.dial(node.id(), address).await;
    node.event("the connection is parked", |event| {
        matches!(event, Event::Parked { now: 1 })
    })
    .await;
    let asked = node.events.read(|events| {
        events
            .0
            .iter()
            .filter(|event| matches!(event, Event::Ecdh { .. }))
            .count()
    });
    assert_eq!(asked, 0, "no signer was asked for a stranger");
    node.attach().await;
    check_introductions(&node, &ldk, Direction::Inbound).await;
    println!("LDK dialled while no signer was there, was parked, and got through on its return");
}

/// The first thing that an embedder does after attaching its signer.
#[tokio::test(flavor = "multi_thread")]
async fn a_dial_right_after_the_signer_is_attached_is_not_held() {
    let mut node = Node::start(5).await;
    for round in 0..50 {
        let ldk = LdkPeer::new(150 + round);
        let address = ldk.listen().await;
        let _ = node.lapse();
        node.attach().await;
        let spec = PeerSpec::new(ldk.id(), address).tagged(Tag::GossipOnly);
        let link = node.supervisor.connect(spec).await;
        assert!(link.is_ok(), "round {round}: {link:?}");
    }
    println!("a dial right after attach went through 50 times");
}
