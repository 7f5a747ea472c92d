//! What real LDK peers see as the signer goes and comes back: gossip goes on, channel links end without a word and return.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use pilotlight::link::{CloseReason, Direction, LinkHandle, SendError, Tag};
use pilotlight::signer::Epoch;
use pilotlight::supervisor::{Mode, PeerState, Urgency};
use pilotlight::telemetry::Event;

use crate::exchange::{
    as_ldk_serves, check_graph, check_quiet, filter_of_a_week, linked, round_trips, send_all,
};
use crate::ldk_handlers::Records;
use crate::ldk_peer::LdkPeer;
use crate::live_node::{Events, Node, is_custom, is_gossip, kind};
use crate::numbered::{assert_same, numbered, stream};
use crate::signed_region::Region;
use crate::watched::HANG_GUARD;

/// Gossip and custom messages for one direction, mixed.
fn mixed(region: &Region, number: u8, rounds: u32) -> Vec<Vec<u8>> {
    let mut gossip = region.whole();
    gossip.extend((1..=rounds).flat_map(|round| region.updates(round)));
    let custom = stream(number, u32::try_from(gossip.len() / 8).unwrap());
    let mut mixed = Vec::new();
    let mut custom = custom.into_iter();
    for (index, message) in gossip.into_iter().enumerate() {
        mixed.push(message);
        if index % 8 == 7 {
            mixed.extend(custom.next());
        }
    }
    mixed
}

fn only(messages: &[Vec<u8>], wanted: fn(u16) -> bool) -> Vec<Vec<u8>> {
    messages
        .iter()
        .filter(|message| wanted(kind(message)))
        .cloned()
        .collect()
}

/// What one side sends, and how much of it has been handed over.
struct Flow {
    messages: Vec<Vec<u8>>,
    handed: usize,
}

impl Flow {
    fn next(&mut self, count: usize) -> &[Vec<u8>] {
        let from = self.handed;
        self.handed = self.messages.len().min(from + count);
        &self.messages[from..self.handed]
    }
}

/// Traffic between a node and an LDK, both ways at once.
struct Traffic {
    node: Node,
    ldk: LdkPeer,
    sender: UnboundedSender<Vec<Vec<u8>>>,
    to_ldk: Flow,
    from_ldk: Flow,
}

impl Traffic {
    /// Both hand over their next `count` messages.
    fn hand_over(&mut self, count: usize) {
        self.sender.send(self.to_ldk.next(count).to_vec()).unwrap();
        let portion = self.from_ldk.next(count);
        self.ldk.send(self.node.id(), only(portion, is_custom));
        self.ldk.broadcast(&only(portion, is_gossip));
    }

    /// Waits until all but `left` of what has been handed over have arrived, both ways.
    async fn arrive(&self, left: usize) {
        let to_ldk = self.to_ldk.handed - left;
        let enough = |records: &Records| records.gossip.len() + records.custom.len() >= to_ldk;
        self.ldk
            .records
            .until_true("messages reach LDK", enough)
            .await;
        let (from_ldk, peer) = (SERVED + self.from_ldk.handed - left, self.ldk.id());
        self.node
            .messages(peer, |kind| is_gossip(kind) || is_custom(kind), from_ldk)
            .await;
    }

    fn rotations(&self) -> (u64, u64) {
        self.node.events.read(|events| {
            (
                events.rotations(Direction::Outbound),
                events.rotations(Direction::Inbound),
            )
        })
    }

    /// The signer goes and returns while messages are on their way each time. Gives the keys replaced in between.
    async fn lapse_and_return(&mut self) -> (u64, u64) {
        self.hand_over(400);
        self.arrive(300).await;
        let lapse = self.node.lapse();
        assert_eq!(self.node.supervisor.mode(), Mode::Safe);
        let before = self.rotations();
        self.hand_over(1100);
        // A thousand messages that were handed over in `Safe`: two keys of each direction.
        self.arrive(100).await;
        let rotated = |events: &Events| {
            let now = (
                events.rotations(Direction::Outbound),
                events.rotations(Direction::Inbound),
            );
            now.0 >= before.0 + 2 && now.1 >= before.1 + 2
        };
        self.node
            .events
            .until_true("keys are replaced without a signer", rotated)
            .await;
        let after = self.rotations();
        let reported = |event: &Event| matches!(event, Event::SignerLapsed(report) if report.epoch == lapse.epoch);
        let Event::SignerLapsed(report) = self.node.event("the lapse is reported", reported).await
        else {
            unreachable!()
        };
        assert_eq!((report.dropped, report.retained), (0, 1));
        self.node.attach().await;
        assert_eq!(self.node.supervisor.mode(), Mode::Live);
        (after.0 - before.0, after.1 - before.1)
    }
}

/// Channel announcements that LDK serves at the start.
const SERVED: usize = 200;

/// Traffic flows each way all the time while the signer goes and comes back three times.
async fn exchange_across_lapses(node: Node, ldk: LdkPeer, link: LinkHandle) -> String {
    let (ours, theirs) = (Region::new(3, 50, SERVED), Region::new(4, 50, SERVED));
    ldk.learn(&theirs.announcements());
    send_all(&link, &[filter_of_a_week()]).await;
    node.messages(ldk.id(), is_gossip, SERVED).await;
    round_trips(&node, &ldk, &link, 3).await;

    let to_ldk = Flow {
        messages: mixed(&ours, 3, 9),
        handed: 0,
    };
    let mut from_ldk = Flow {
        messages: mixed(&theirs, 4, 9),
        handed: 0,
    };
    // These LDK has served already.
    from_ldk.messages.retain(|message| kind(message) != 256);
    let (sender, mut portions) = unbounded_channel::<Vec<Vec<u8>>>();
    let sending = tokio::spawn(async move {
        while let Some(portion) = portions.recv().await {
            send_all(&link, &portion).await;
        }
    });
    let mut traffic = Traffic {
        node,
        ldk,
        sender,
        to_ldk,
        from_ldk,
    };
    let mut rotations = (0, 0);
    for _ in 0..3 {
        let (sent, received) = traffic.lapse_and_return().await;
        rotations = (rotations.0 + sent, rotations.1 + received);
    }
    traffic.hand_over(usize::MAX / 2);
    traffic.arrive(0).await;
    let Traffic {
        node,
        ldk,
        sender,
        to_ldk,
        from_ldk,
    } = traffic;
    drop(sender);
    sending.await.unwrap();
    check_arrivals(&node, &ldk, &to_ldk.messages, &from_ldk.messages);
    check_graph(&ldk.graph, &ours, 9, 0);
    check_graph(&ldk.graph, &theirs, 9, 0);
    check_quiet(&node, &ldk);
    format!(
        "{} messages to LDK and {} from it across three lapses and returns, none lost or twice or out of order; {} sending \
         and {} receiving keys replaced while no signer was there",
        to_ldk.messages.len(),
        from_ldk.messages.len() + SERVED,
        rotations.0,
        rotations.1
    )
}

fn check_arrivals(node: &Node, ldk: &LdkPeer, to_ldk: &[Vec<u8>], from_ldk: &[Vec<u8>]) {
    let received = |wanted: fn(u16) -> bool| {
        node.received
            .read(|received| received.from(ldk.id(), wanted))
    };
    assert_same(
        "gossip from LDK",
        &received(is_gossip)[SERVED..],
        &only(from_ldk, is_gossip),
    );
    assert_same(
        "custom from LDK",
        &received(is_custom),
        &only(from_ldk, is_custom),
    );
    ldk.records.read(|records| {
        assert_same("gossip to LDK", &records.gossip, &only(to_ldk, is_gossip));
        assert_same("custom to LDK", &records.custom, &only(to_ldk, is_custom));
        assert_eq!(
            records.refused,
            Vec::<String>::new(),
            "P2PGossipSync takes every one"
        );
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_gossip_with_an_ldk_that_we_dialled_goes_on_across_lapses() {
    let (node, ldk, link) = linked(40).await;
    let figures = exchange_across_lapses(node, ldk, link).await;
    println!("lapse, outbound gossip link: {figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_gossip_with_an_ldk_that_dialled_us_goes_on_across_lapses() {
    let (node, ldk) = (Node::start(41).await, LdkPeer::new(141));
    let address = node.listen().await;
    ldk.dial(node.id(), address).await;
    let (link, _) = node.link_with(ldk.id(), 1).await;
    node.messages(ldk.id(), |kind| kind == 265, 1).await;
    let figures = exchange_across_lapses(node, ldk, link).await;
    println!("lapse, inbound gossip link: {figures}");
}

/// What LDK has heard of an end: nothing but the end.
fn check_silent_end(ldk: &LdkPeer) {
    ldk.records.read(|records| {
        assert!(
            records.errors.is_empty(),
            "handle_error was never called: {:?}",
            records.errors
        );
        assert!(records.heard_no_complaint(), "{:?}", records.control);
        assert_eq!(records.channel_calls, Vec::<&str>::new());
    });
}

/// Waits until the supervisor shows a peer in a state; it hears of a link's end a little after the node does.
async fn shows(node: &Node, peer: &LdkPeer, wanted: PeerState) {
    let wait = async {
        loop {
            let peers = node.supervisor.peers().await.unwrap();
            let view = peers
                .iter()
                .find(|view| view.node_id == peer.id())
                .expect("the peer is known");
            if view.state == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG_GUARD, wait)
        .await
        .expect("the peer reaches the state");
}

/// Sends numbered messages until the link ends; gives how many were taken, and why no more.
async fn send_until_the_end(link: LinkHandle) -> (u32, SendError) {
    for number in 0.. {
        if let Err(error) = link.send(numbered(9, number)).await {
            return (number, error);
        }
    }
    unreachable!()
}

/// A node with three channel-bearing LDK peers of different urgency, and a gossip-only one beside them.
struct Neighbourhood {
    node: Node,
    channels: [LdkPeer; 3],
    gossip: LdkPeer,
    gossip_link: LinkHandle,
}

impl Neighbourhood {
    async fn new() -> Self {
        let node = Node::start(42).await;
        let channels = [LdkPeer::new(142), LdkPeer::new(143), LdkPeer::new(144)];
        for (ldk, earliest_expiry_height) in channels.iter().zip([900_300, 900_100, 900_200]) {
            let address = ldk.listen().await;
            node.connect(ldk.id(), address, Tag::ChannelBearing).await;
            ldk.introduced(1).await;
            let urgency = Urgency {
                pending_htlcs: 1,
                earliest_expiry_height,
                csv_delay: 144,
            };
            node.supervisor
                .set_urgency(ldk.id(), urgency)
                .await
                .unwrap();
        }
        let gossip = LdkPeer::new(145);
        let address = gossip.listen().await;
        let gossip_link = node.connect(gossip.id(), address, Tag::GossipOnly).await;
        gossip.introduced(1).await;
        Self {
            node,
            channels,
            gossip,
            gossip_link,
        }
    }

    /// The signer goes while the first channel peer is being sent to; gives the lapsed session.
    async fn lapse(&mut self, nth: usize) -> Epoch {
        let busy = &self.channels[0];
        let (link, _) = self.node.link_with(busy.id(), nth).await;
        let already = busy.records.read(|records| records.custom.len());
        let sending = tokio::spawn(send_until_the_end(link.clone()));
        busy.records
            .until_true("traffic flows", |records| {
                records.custom.len() >= already + 50
            })
            .await;
        let lapse = self.node.lapse();
        let written = link.bytes_written();
        self.await_silent_ends(nth).await;
        let (taken, error) = sending.await.unwrap();
        assert_eq!(
            error,
            SendError::Ended {
                reason: CloseReason::Lapse
            }
        );
        assert_eq!(
            link.bytes_written(),
            written,
            "P1: nothing is written once lapse has returned"
        );
        // What LDK has is the beginning of what was sent: nothing is missing before the end.
        let came = self.channels[0]
            .records
            .read(|records| records.custom[already..].to_vec());
        let sent = stream(9, u32::try_from(came.len()).unwrap());
        assert_same("numbered messages before the lapse", &came, &sent);
        assert!(came.len() <= usize::try_from(taken).unwrap());
        lapse.epoch
    }

    /// Every channel peer sees the end of its `nth` link and nothing else; the gossip peer sees nothing.
    async fn await_silent_ends(&self, nth: usize) {
        for ldk in &self.channels {
            ldk.disconnected(nth).await;
            let (link, _) = self.node.link_with(ldk.id(), nth).await;
            assert_eq!(self.node.end_of(&link).await, CloseReason::Lapse);
            check_silent_end(ldk);
            assert_eq!(ldk.peers(), 0);
            shows(&self.node, ldk, PeerState::Held).await;
        }
        assert_eq!(self.gossip.peers(), 1);
    }

    /// The signer returns; gives how long the relight took.
    async fn relight(&mut self, lapsed: Epoch, nth: usize) -> Duration {
        let reported =
            |event: &Event| matches!(event, Event::SignerLapsed(report) if report.epoch == lapsed);
        let Event::SignerLapsed(report) = self.node.event("the lapse is reported", reported).await
        else {
            unreachable!()
        };
        assert_eq!((report.dropped, report.retained), (3, 1));
        self.node.attach().await;
        for ldk in &self.channels {
            ldk.introduced(nth + 1).await;
            self.node.link_with(ldk.id(), nth + 1).await;
        }
        let relit = |event: &Event| matches!(event, Event::Relit { epoch, .. } if *epoch > lapsed);
        let Event::Relit {
            took, up, failed, ..
        } = self.node.event("all are back", relit).await
        else {
            unreachable!()
        };
        assert_eq!((up, failed), (3, 0));
        took.expect("some came back")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_p8_channel_bearing_ldk_peers_are_cut_off_without_an_error_and_dialled_again_unasked() {
    const RETURNS: usize = 4;
    let mut around = Neighbourhood::new().await;
    let mut relights = Vec::new();
    for nth in 1..=RETURNS {
        let lapsed = around.lapse(nth).await;
        relights.push(around.relight(lapsed, nth).await);
    }
    let Neighbourhood {
        node: _node,
        gossip,
        gossip_link,
        ..
    } = around;
    send_all(&gossip_link, &stream(8, 10)).await;
    gossip
        .records
        .until_true("the gossip link lives", |records| {
            records.custom.len() == 10
        })
        .await;
    check_silent_end(&gossip);
    assert_eq!(
        gossip
            .records
            .read(|records| (records.connected.len(), records.disconnected.len())),
        (1, 0)
    );
    println!(
        "lapse, channel-bearing: 3 LDK peers cut off {RETURNS} times without error or warning, dialled again unasked and back \
         after {relights:?}; the gossip-only LDK beside them stayed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_reestablish_without_a_signer_ends_the_gossip_link_and_ldk_gets_no_error() {
    let (mut node, ldk, link) = linked(43).await;
    let _ = node.lapse();
    ldk.reestablish(node.id());
    ldk.disconnected(1).await;
    assert_eq!(node.end_of(&link).await, CloseReason::Mistag);
    let suspected =
        |event: &Event| matches!(event, Event::MistagSuspected { peer } if *peer == ldk.id());
    node.event("a wrong tag is suspected", suspected).await;
    check_silent_end(&ldk);
    assert!(
        node.received
            .read(|received| received.from(ldk.id(), |kind| kind == 136).is_empty())
    );
    let peers = node.supervisor.peers().await.unwrap();
    assert_eq!(
        peers[0].tag,
        Tag::GossipOnly,
        "only the node may change a tag"
    );

    // With a signer the node gets it, and the link is in the signer's scope from then on.
    node.attach().await;
    ldk.introduced(2).await;
    let (link, _) = node.link_with(ldk.id(), 2).await;
    ldk.reestablish(node.id());
    node.messages(ldk.id(), |kind| kind == 136, 1).await;
    node.event("the link takes a lease", |event| {
        matches!(event, Event::Leased { .. })
    })
    .await;
    let _ = node.lapse();
    ldk.disconnected(2).await;
    assert_eq!(node.end_of(&link).await, CloseReason::Lapse);
    check_silent_end(&ldk);
    println!(
        "reestablish: without a signer it ends the link, with one it binds the link to the signer; LDK heard no error"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_an_ldk_serves_its_graph_to_our_filter_with_and_without_a_signer() {
    let mut node = Node::start(44).await;
    let region = Region::new(5, 60, 300);
    let served = as_ldk_serves(&region);
    for (seed, signer_there) in [(146, true), (147, false)] {
        let ldk = LdkPeer::new(seed);
        ldk.learn(&region.whole());
        let address = ldk.listen().await;
        let link = node.connect(ldk.id(), address, Tag::GossipOnly).await;
        if !signer_there {
            let _ = node.lapse();
        }
        send_all(&link, &[filter_of_a_week()]).await;
        assert_same(
            "the served graph",
            &node.messages(ldk.id(), is_gossip, served.len()).await,
            &served,
        );
        check_silent_end(&ldk);
    }
    println!(
        "filter: LDK served its graph of {} messages with a signer, and another LDK without one",
        served.len()
    );
}
