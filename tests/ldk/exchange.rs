//! Five thousand messages each way with LDK: signed gossip that LDK verifies and keeps, and numbered custom messages.

use lightning::routing::gossip::NodeId as LdkNodeId;
use pilotlight::link::{Direction, LinkHandle, Tag};
use pilotlight::wire::{BITCOIN_MAINNET, GossipTimestampFilter};

use crate::ldk_handlers::{Graph, Records};
use crate::ldk_peer::LdkPeer;
pub(crate) use crate::ldk_round_trips::round_trips;
use crate::live_node::{Node, is_custom, is_gossip};
use crate::numbered::{assert_same, stream};
use crate::signed_region::{Region, now};

/// Asks for everything: LDK serves its graph only if the filter begins more than six hours ago.
pub(crate) fn filter_of_a_week() -> Vec<u8> {
    let first_timestamp = now() - 7 * 24 * 3600;
    GossipTimestampFilter {
        chain_hash: BITCOIN_MAINNET,
        first_timestamp,
        timestamp_range: u32::MAX,
    }
    .encode()
}

pub(crate) async fn send_all(link: &LinkHandle, messages: &[Vec<u8>]) {
    let mut last = None;
    for message in messages {
        last = Some(link.send(message.clone()).await.unwrap());
    }
    if let Some(receipt) = last {
        receipt.flushed().await.unwrap();
    }
}

/// Puts gossip in the order in which LDK serves it: channels by id, each followed by its updates; then nodes by id.
pub(crate) fn as_ldk_serves(region: &Region) -> Vec<Vec<u8>> {
    let (announcements, updates) = (region.announcements(), region.updates(0));
    let mut served = Vec::new();
    for (announcement, pair) in announcements.iter().zip(updates.chunks(2)) {
        let mut pair = pair.to_vec();
        // channel_flags, of which bit 0 is the direction, stand after signature, chain, channel id, time and message_flags.
        pair.sort_by_key(|update| update[2 + 64 + 32 + 8 + 4 + 1] & 1);
        served.push(announcement.clone());
        served.extend(pair);
    }
    let mut descriptions: Vec<_> = region
        .node_ids()
        .into_iter()
        .zip(region.descriptions(0))
        .collect();
    descriptions.sort();
    served.extend(descriptions.into_iter().map(|(_, description)| description));
    served
}

/// The graph holds the region as of these rounds: every channel with both directions, every node.
pub(crate) fn check_graph(graph: &Graph, region: &Region, updates: u32, descriptions: u32) {
    let graph = graph.read_only();
    for scid in region.scids() {
        let channel = graph.channel(scid).expect("the channel is known");
        for direction in [&channel.one_to_two, &channel.two_to_one] {
            let terms = direction.as_ref().expect("its terms are known");
            assert_eq!(
                (terms.last_update, terms.fees.base_msat),
                (region.timestamp(updates), updates)
            );
        }
    }
    for id in region.node_ids() {
        let node = graph
            .node(&LdkNodeId::from_slice(&id).unwrap())
            .expect("the node is known");
        let info = node.announcement_info.as_ref().expect("it is described");
        assert_eq!(info.last_update(), region.timestamp(descriptions));
    }
}

/// A node, an LDK that serves it gossip, and the link between them.
pub(crate) async fn linked(seed: u8) -> (Node, LdkPeer, LinkHandle) {
    let (node, ldk) = (Node::start(seed).await, LdkPeer::new(100 + seed));
    let address = ldk.listen().await;
    let link = node.connect(ldk.id(), address, Tag::GossipOnly).await;
    ldk.introduced(1).await;
    // LDK's own filter, which it sends to every peer with gossip_queries.
    node.messages(ldk.id(), |kind| kind == 265, 1).await;
    (node, ldk, link)
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_five_thousand_signed_gossip_messages_each_way_are_verified_and_kept_by_ldk() {
    let (node, ldk, link) = linked(10).await;
    let (ours, theirs) = (Region::new(1, 100, 500), Region::new(2, 100, 500));

    // LDK serves what it knew of old.
    ldk.learn(&theirs.whole());
    send_all(&link, &[filter_of_a_week()]).await;
    let served = as_ldk_serves(&theirs);
    assert_same(
        "the served graph",
        &node.messages(ldk.id(), is_gossip, served.len()).await,
        &served,
    );
    round_trips(&node, &ldk, &link, 3).await;

    // Then both announce at once: 1,600 + 3,000 + 400 to LDK, 3,000 + 400 from it, 5,000 in all each way.
    let later = |region: &Region| {
        let rounds = (1..=3).flat_map(|round| region.updates(round));
        rounds
            .chain((1..=4).flat_map(|round| region.descriptions(round)))
            .collect::<Vec<_>>()
    };
    let to_ldk = [ours.whole(), later(&ours)].concat();
    let from_ldk = [served, later(&theirs)].concat();
    assert_eq!((to_ldk.len(), from_ldk.len()), (5000, 5000));
    ldk.broadcast(&later(&theirs));
    send_all(&link, &to_ldk).await;
    ldk.records
        .until_true("5,000 announcements reach LDK", |records| {
            records.gossip.len() >= 5000
        })
        .await;
    let came = node.messages(ldk.id(), is_gossip, 5000).await;

    assert_same("gossip from LDK", &came, &from_ldk);
    let (arrived, refused) = ldk
        .records
        .read(|records| (records.gossip.clone(), records.refused.clone()));
    assert_same("gossip to LDK", &arrived, &to_ldk);
    assert_eq!(
        refused,
        Vec::<String>::new(),
        "P2PGossipSync takes every one: signed, new, in order"
    );
    check_graph(&ldk.graph, &ours, 3, 4);
    check_graph(&ldk.graph, &theirs, 3, 4);
    assert_eq!(ldk.graph.read_only().channels().len(), 1000);
    assert_eq!(ldk.graph.read_only().nodes().len(), 200);
    check_quiet(&node, &ldk);
    let (sent, received) = rotations(&node);
    assert!(
        sent >= 10 && received >= 10,
        "{sent} and {received} rotations"
    );
    let pings = ldk
        .records
        .read(|records| records.control_count("Sent Ping"));
    println!(
        "gossip: 5,000 each way, in order, none lost or twice; LDK's graph has 1,000 channels, 2,000 updates, 200 nodes; \
         {sent} sending and {received} receiving keys replaced; {pings} pings of LDK answered"
    );
}

/// Nothing was refused, nobody complained, the link is still the first.
pub(crate) fn check_quiet(node: &Node, ldk: &LdkPeer) {
    assert!(ldk.records.read(Records::heard_no_complaint));
    assert_eq!(
        ldk.records
            .read(|records| (records.connected.len(), records.disconnected.len())),
        (1, 0)
    );
    assert_eq!(node.events.read(crate::live_node::Events::refused), 0);
    assert_eq!(
        node.received
            .read(|received| (received.ups_of(ldk.id()), received.downs.len())),
        (1, 0)
    );
}

fn rotations(node: &Node) -> (u64, u64) {
    node.events.read(|events| {
        (
            events.rotations(Direction::Outbound),
            events.rotations(Direction::Inbound),
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_five_thousand_numbered_messages_each_way_at_once_arrive_in_order() {
    let (node, ldk, link) = linked(11).await;
    let (to_ldk, from_ldk) = (stream(1, 5000), stream(2, 5000));
    ldk.send(node.id(), from_ldk.clone());
    send_all(&link, &to_ldk).await;
    ldk.records
        .until_true("5,000 messages reach LDK", |records| {
            records.custom.len() >= 5000
        })
        .await;
    let came = node.messages(ldk.id(), is_custom, 5000).await;
    assert_same("messages from LDK", &came, &from_ldk);
    assert_same(
        "messages to LDK",
        &ldk.records.read(|records| records.custom.clone()),
        &to_ldk,
    );
    check_quiet(&node, &ldk);
    let (sent, received) = rotations(&node);
    assert!(
        sent >= 10 && received >= 10,
        "{sent} and {received} rotations"
    );
    let bytes = |messages: &[Vec<u8>]| messages.iter().map(Vec::len).sum::<usize>();
    println!(
        "custom: 5,000 each way at once ({} and {} bytes), in order, none lost or twice; {sent} sending and {received} \
         receiving keys replaced",
        bytes(&to_ldk),
        bytes(&from_ldk)
    );
}

/// LDK stops reading while more than a dozen of its messages wait to be written. If we stopped reading whenever ours wait,
/// each would wait for the other for ever.
#[tokio::test(flavor = "multi_thread")]
async fn p2_two_full_pipes_and_a_ping_in_between_do_not_wait_for_each_other() {
    let (node, ldk, link) = linked(12).await;
    let large = |stream: u8, number: u16| {
        let mut message = 32_769_u16.to_be_bytes().to_vec();
        message.extend_from_slice(&number.to_be_bytes());
        message.resize(60_000, stream);
        message
    };
    // 24 MB each way: more than any kernel buffers of a loopback connection.
    let to_ldk: Vec<_> = (0..400).map(|number| large(1, number)).collect();
    let mut from_ldk = Vec::new();
    for number in 0..400 {
        from_ldk.push(large(2, number));
        if number % 10 == 0 {
            // A ping for one byte, in the stream.
            from_ldk.push(vec![0, 18, 0, 1, 0, 0]);
        }
    }
    ldk.send(node.id(), from_ldk.clone());
    send_all(&link, &to_ldk).await;
    ldk.records
        .until_true("400 large messages reach LDK", |records| {
            records.custom.len() >= 400
        })
        .await;
    let came = node.messages(ldk.id(), is_custom, 400).await;
    from_ldk.retain(|message| message.len() > 6);
    assert_same("messages from LDK", &came, &from_ldk);
    assert_same(
        "messages to LDK",
        &ldk.records.read(|records| records.custom.clone()),
        &to_ldk,
    );
    ldk.records
        .until_true("40 pongs", |records| {
            records.control_count("Received Pong(Pong { byteslen: 1 })") == 40
        })
        .await;
    check_quiet(&node, &ldk);
    println!(
        "full pipes: 24 MB each way at once with 40 pings in between, all there, all answered"
    );
}
