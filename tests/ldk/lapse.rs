//! What real LDK peers see as the signer goes and comes back: gossip goes on, channel links end without a word and return.

use pilotlight::link::{CloseReason, Direction, LinkHandle, SendError, Tag};
use pilotlight::signer::Epoch;
use pilotlight::supervisor::{Mode, PeerState, Urgency};
use pilotlight::telemetry::Event;

use crate::exchange::{as_ldk_serves, check_graph, check_quiet, filter_of_a_week, linked, send_all};
use crate::ldk_handlers::Records;
use crate::ldk_peer::LdkPeer;
use crate::live_node::{Events, Node, is_custom, is_gossip, kind};
use crate::numbered::{assert_same, numbered, stream};
use crate::signed_region::Region;

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
    messages.iter().filter(|message| wanted(kind(message))).cloned().collect()
}

fn progress(node: &Node, ldk: &LdkPeer) -> (usize, usize) {
    let from_ldk = node.received.read(|received| received.messages.len());
    (from_ldk, ldk.records.read(|records| records.gossip.len() + records.custom.len()))
}

/// Waits until `more` messages have come each way since `before`, and the keys of both directions were replaced `rotations`
/// times.
async fn advance(node: &Node, ldk: &LdkPeer, more: usize, rotations: u64) {
    let (from_ldk, to_ldk) = progress(node, ldk);
    let counts = |events: &Events| (events.rotations(Direction::Inbound), events.rotations(Direction::Outbound));
    let before = node.events.read(counts);
    node.received.until_true("more from LDK", |received| received.messages.len() >= from_ldk + more).await;
    let enough = |records: &Records| records.gossip.len() + records.custom.len() >= to_ldk + more;
    ldk.records.until_true("more to LDK", enough).await;
    let rotated = |events: &Events| {
        let now = counts(events);
        now.0 >= before.0 + rotations && now.1 >= before.1 + rotations
    };
    node.events.until_true("keys are replaced", rotated).await;
}

/// Traffic flows each way all the time while the signer goes and comes back three times.
async fn exchange_across_lapses(mut node: Node, ldk: LdkPeer, link: LinkHandle) -> usize {
    let (ours, theirs) = (Region::new(3, 50, 200), Region::new(4, 50, 200));
    ldk.learn(&theirs.announcements());
    send_all(&link, &[filter_of_a_week()]).await;
    node.messages(ldk.id(), is_gossip, 200).await;
    ldk.settle().await;

    let to_ldk = mixed(&ours, 3, 9);
    let mut from_ldk = mixed(&theirs, 4, 9);
    // These LDK has served already.
    from_ldk.retain(|message| kind(message) != 256);
    let sending = tokio::spawn({
        let (link, to_ldk) = (link.clone(), to_ldk.clone());
        async move { send_all(&link, &to_ldk).await }
    });
    // LDK's share goes in portions, so that some is announced in every mode.
    let portions: Vec<Vec<Vec<u8>>> = from_ldk.chunks(from_ldk.len().div_ceil(6)).map(<[_]>::to_vec).collect();
    let announce = |portion: &[Vec<u8>]| {
        ldk.send(node.id(), only(portion, is_custom));
        ldk.broadcast(&only(portion, is_gossip));
    };
    let _ = announce;
    for pair in portions.chunks(2) {
        hand_over(&node, &ldk, &pair[0]);
        advance(&node, &ldk, 100, 0).await;
        let lapse = node.lapse();
        assert_eq!(node.supervisor.mode(), Mode::Safe);
        if let Some(portion) = pair.get(1) {
            hand_over(&node, &ldk, portion);
        }
        advance(&node, &ldk, 300, 0).await;
        let epoch: Epoch = lapse.epoch;
        let torn_down = |event: &Event| matches!(event, Event::SignerLapsed(report) if report.epoch == epoch);
        let Event::SignerLapsed(report) = node.event("the lapse is reported", torn_down).await else { unreachable!() };
        assert_eq!((report.dropped, report.retained), (0, 1));
        node.attach().await;
        assert_eq!(node.supervisor.mode(), Mode::Live);
    }
    sending.await.unwrap();
    let all_there = |records: &Records| records.gossip.len() + records.custom.len() >= to_ldk.len();
    ldk.records.until_true("all reach LDK", all_there).await;
    let gossip = node.messages(ldk.id(), is_gossip, 200 + only(&from_ldk, is_gossip).len()).await;
    let custom = node.messages(ldk.id(), is_custom, only(&from_ldk, is_custom).len()).await;
    assert_same("gossip from LDK", &gossip[200..], &only(&from_ldk, is_gossip));
    assert_same("custom from LDK", &custom, &only(&from_ldk, is_custom));
    let (arrived, numbers, refused) =
        ldk.records.read(|records| (records.gossip.clone(), records.custom.clone(), records.refused.clone()));
    assert_same("gossip to LDK", &arrived, &only(&to_ldk, is_gossip));
    assert_same("custom to LDK", &numbers, &only(&to_ldk, is_custom));
    assert_eq!(refused, Vec::<String>::new());
    check_graph(&ldk.graph, &ours, 9, 0);
    check_graph(&ldk.graph, &theirs, 9, 0);
    check_quiet(&node, &ldk);
    to_ldk.len() + from_ldk.len()
}

fn hand_over(node: &Node, ldk: &LdkPeer, portion: &[Vec<u8>]) {
    ldk.send(node.id(), only(portion, is_custom));
    ldk.broadcast(&only(portion, is_gossip));
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_gossip_with_an_ldk_that_we_dialled_goes_on_across_lapses() {
    let (node, ldk, link) = linked(40).await;
    let count = exchange_across_lapses(node, ldk, link).await;
    println!("lapse, outbound gossip link: {count} messages across three lapses and returns, none lost or twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_gossip_with_an_ldk_that_dialled_us_goes_on_across_lapses() {
    let (node, ldk) = (Node::start(41).await, LdkPeer::new(141));
    let address = node.listen().await;
    ldk.dial(node.id(), address).await;
    let (link, _) = node.link_with(ldk.id(), 1).await;
    node.messages(ldk.id(), |kind| kind == 265, 1).await;
    let count = exchange_across_lapses(node, ldk, link).await;
    println!("lapse, inbound gossip link: {count} messages across three lapses and returns, none lost or twice");
}
