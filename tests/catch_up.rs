//! `gossip.auto_sync` on real links: each asks for what was missed, and one at a time for what the node's graph lacks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod rig;

use pilotlight::clock::{Clock, ManualClock};
use pilotlight::limits;
use pilotlight::link::Tag;
use pilotlight::link::catch_up::{ChannelGraph, ChannelSummary, wanted_since};
use pilotlight::link::raw::RawLink;
use pilotlight::supervisor::{PeerSpec, Redial};
use pilotlight::wire::range_details::{RangeDetails, RangeOption};
use pilotlight::wire::{
    BITCOIN_MAINNET, Features, GossipTimestampFilter, Init, MessageType, QueryChannelRange,
    QueryShortChannelIds, ReplyChannelRange, ReplyShortChannelIdsEnd, ShortChannelId,
};
use rig::{Far, Node, Reader, Wire, kind_of, within};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// Lacks what has an odd id, and remembers what it was asked.
#[derive(Default)]
struct Graph {
    asked: Mutex<Vec<ChannelSummary>>,
}

impl ChannelGraph for Graph {
    fn lacking(&self, channels: &[ChannelSummary]) -> Vec<ShortChannelId> {
        self.asked.lock().unwrap().extend(channels);
        let ids = channels.iter().map(|channel| channel.short_channel_id);
        ids.filter(|id| id.as_u64() % 2 == 1).collect()
    }
}

/// The next message of this type; others but pings are failures.
async fn expect(reader: &mut Reader, kind: MessageType) -> bytes::Bytes {
    let message = within("a message", reader.next()).await.unwrap();
    assert_eq!(kind_of(&message), kind.0);
    message
}

async fn link(node: &Node, far: &Far) -> Wire {
    let spec = PeerSpec::new(far.id, far.address).tagged(Tag::GossipOnly);
    node.supervisor.add_peer(spec).await.unwrap();
    within("the dial", far.accept()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_gossip_link_asks_for_what_was_missed_and_one_for_what_the_graph_lacks() {
    let clock = ManualClock::new();
    let graph = Arc::new(Graph::default());
    let known = Arc::clone(&graph);
    let (mut node, mut inbox) = Node::start(|builder| {
        builder
            .clock(Arc::new(clock.clone()))
            .redial(Redial::Hold)
            .auto_sync(true)
            .channel_graph(known)
    })
    .await;
    tokio::spawn(async move { while inbox.recv().await.is_some() {} });
    node.attach().await;
    let (one, two) = (Far::listen(1), Far::listen(2));
    let mut first = link(&node, &one).await;
    let filter = expect(&mut first.reader, MessageType::GOSSIP_TIMESTAMP_FILTER).await;
    let filter = GossipTimestampFilter::decode(&filter).unwrap();
    assert_eq!(filter.chain_hash, BITCOIN_MAINNET);
    assert_eq!(filter.first_timestamp, wanted_since(clock.unix(), None));
    assert_eq!(filter.timestamp_range, u32::MAX);
    let query = expect(&mut first.reader, MessageType::QUERY_CHANNEL_RANGE).await;
    let timestamps = RangeOption {
        timestamps: true,
        checksums: false,
    };
    assert_eq!(QueryChannelRange::option(&query).unwrap(), timestamps);
    // The second asks by time only: the first has the turn.
    let mut second = link(&node, &two).await;
    expect(&mut second.reader, MessageType::GOSSIP_TIMESTAMP_FILTER).await;
    // The first answers, in two parts.
    let part = |ids: std::ops::Range<u64>, block: u32, last: bool| {
        let details = RangeDetails {
            timestamps: ids
                .clone()
                .map(|id| [u32::try_from(id).unwrap(), 9])
                .collect(),
            checksums: Vec::new(),
        };
        ReplyChannelRange {
            chain_hash: BITCOIN_MAINNET,
            first_blocknum: block,
            number_of_blocks: 10,
            sync_complete: last,
            short_channel_ids: ids.map(ShortChannelId::from_u64).collect(),
        }
        .encode_with(&details)
    };
    first.writer.send(&part(0..700, 0, false)).await.unwrap();
    first.writer.send(&part(700..1400, 10, true)).await.unwrap();
    let end = ReplyShortChannelIdsEnd {
        chain_hash: BITCOIN_MAINNET,
        full_information: true,
    };
    let mut lacked = Vec::new();
    while lacked.len() < 700 {
        let query = expect(&mut first.reader, MessageType::QUERY_SHORT_CHANNEL_IDS).await;
        lacked.extend(
            QueryShortChannelIds::decode(&query)
                .unwrap()
                .short_channel_ids,
        );
        first.writer.send(&end.encode()).await.unwrap();
    }
    let odd = (0..1400).filter(|id| id % 2 == 1);
    assert_eq!(
        lacked,
        odd.map(ShortChannelId::from_u64).collect::<Vec<_>>()
    );
    {
        let asked = graph.asked.lock().unwrap();
        assert_eq!(asked.len(), 1400);
        assert_eq!(asked[3].timestamps, Some([3, 9]));
    }
    // Nobody has asked the second for anything more.
    second
        .writer
        .send(
            &pilotlight::wire::Ping {
                num_pong_bytes: 1,
                ignored: 0,
            }
            .encode(),
        )
        .await
        .unwrap();
    expect(&mut second.reader, MessageType::PONG).await;
}

/// A peer that does not answer loses its turn, and the next one is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_peer_that_serves_no_range_gives_its_turn_to_the_next() {
    let clock = ManualClock::new();
    let (mut node, mut inbox) = Node::start(|builder| {
        builder
            .clock(Arc::new(clock.clone()))
            .redial(Redial::Hold)
            .auto_sync(true)
            .channel_graph(Arc::new(Graph::default()))
    })
    .await;
    tokio::spawn(async move { while inbox.recv().await.is_some() {} });
    node.attach().await;
    let (one, two) = (Far::listen(1), Far::listen(2));
    let mut first = link(&node, &one).await;
    expect(&mut first.reader, MessageType::GOSSIP_TIMESTAMP_FILTER).await;
    expect(&mut first.reader, MessageType::QUERY_CHANNEL_RANGE).await;
    let nothing = ReplyChannelRange {
        chain_hash: BITCOIN_MAINNET,
        first_blocknum: 0,
        number_of_blocks: u32::MAX,
        sync_complete: true,
        short_channel_ids: Vec::new(),
    };
    first.writer.send(&nothing.encode()).await.unwrap();
    let ping = pilotlight::wire::Ping {
        num_pong_bytes: 1,
        ignored: 0,
    };
    first.writer.send(&ping.encode()).await.unwrap();
    expect(&mut first.reader, MessageType::PONG).await;
    clock.advance(limits::RANGE_RETRY);
    let mut second = link(&node, &two).await;
    expect(&mut second.reader, MessageType::GOSSIP_TIMESTAMP_FILTER).await;
    expect(&mut second.reader, MessageType::QUERY_CHANNEL_RANGE).await;
}

fn ping() -> Vec<u8> {
    pilotlight::wire::Ping {
        num_pong_bytes: 1,
        ignored: 0,
    }
    .encode()
}

/// Nothing but pongs come of pings: no query was on its way. Two, for a pong goes ahead of a query that is queued.
async fn asks_nothing(wire: &mut Wire) {
    for _ in 0..2 {
        wire.writer.send(&ping()).await.unwrap();
        expect(&mut wire.reader, MessageType::PONG).await;
    }
}

/// A node with its signer, which lacks much.
async fn ready(clock: &ManualClock) -> Node {
    let (mut node, mut inbox) = Node::start(|builder| {
        builder
            .clock(Arc::new(clock.clone()))
            .redial(Redial::Hold)
            .auto_sync(true)
            .channel_graph(Arc::new(Graph::default()))
    })
    .await;
    tokio::spawn(async move { while inbox.recv().await.is_some() {} });
    node.attach().await;
    node
}

/// Three peers that serve no range, the first by silence: each loses its turn for good, and the third is asked for everything by its filter,
/// once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_when_no_peer_serves_a_range_everything_is_asked_for_once() {
    let clock = ManualClock::new();
    let node = ready(&clock).await;
    let nothing = ReplyChannelRange {
        chain_hash: BITCOIN_MAINNET,
        first_blocknum: 0,
        number_of_blocks: u32::MAX,
        sync_complete: true,
        short_channel_ids: Vec::new(),
    };
    let mut wires = Vec::new();
    for number in 1..=4 {
        let far = Far::listen(number);
        let mut wire = link(&node, &far).await;
        expect(&mut wire.reader, MessageType::GOSSIP_TIMESTAMP_FILTER).await;
        expect(&mut wire.reader, MessageType::QUERY_CHANNEL_RANGE).await;
        if number == 1 {
            clock.advance(limits::QUERY_DEADLINE);
        } else {
            wire.writer.send(&nothing.encode()).await.unwrap();
        }
        if number == 3 {
            let filter = expect(&mut wire.reader, MessageType::GOSSIP_TIMESTAMP_FILTER).await;
            let filter = GossipTimestampFilter::decode(&filter).unwrap();
            assert_eq!(
                (filter.first_timestamp, filter.timestamp_range),
                (0, u32::MAX)
            );
        }
        // By its answer the link has seen the time, or what was sent before.
        asks_nothing(&mut wire).await;
        clock.advance(limits::RANGE_RETRY);
        wires.push(wire);
    }
    // Each is pinged, and its pong would be the moment to ask again: it is not asked.
    clock.advance(limits::PING_AFTER_MAX.saturating_sub(limits::RANGE_RETRY));
    let last = wires.last_mut().unwrap();
    let asked = expect(&mut last.reader, MessageType::PING).await;
    let asked = pilotlight::wire::Ping::decode(&asked).unwrap();
    let pong = asked.answer().expect("a pong is asked for");
    last.writer.send(&pong.encode()).await.unwrap();
    asks_nothing(last).await;
}

/// A link that bears a channel, and a peer that knows no gossip queries, are asked by time only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_only_gossip_peers_that_know_queries_are_asked_for_the_range() {
    let clock = ManualClock::new();
    let node = ready(&clock).await;
    let channel = Far::listen(1);
    let spec = PeerSpec::new(channel.id, channel.address).tagged(Tag::ChannelBearing);
    node.supervisor.add_peer(spec).await.unwrap();
    let mut wire = within("the dial", channel.accept()).await;
    expect(&mut wire.reader, MessageType::GOSSIP_TIMESTAMP_FILTER).await;
    asks_nothing(&mut wire).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = Arc::new(rig::key(2));
    let spec = PeerSpec::new(key.node_id(), listener.local_addr().unwrap());
    let adding = node.supervisor.add_peer(spec.tagged(Tag::GossipOnly));
    adding.await.unwrap();
    let (socket, _) = within("the dial", listener.accept()).await.unwrap();
    let raw = within("the handshake", RawLink::accept(socket, key)).await;
    let mut old = Wire::from(raw.unwrap());
    let mut init = Init::gossip(vec![BITCOIN_MAINNET]);
    init.features = Features::from_bits([1, 9, 13, 15, 45]);
    old.writer.send(&init.encode()).await.unwrap();
    expect(&mut old.reader, MessageType::INIT).await;
    expect(&mut old.reader, MessageType::GOSSIP_TIMESTAMP_FILTER).await;
    asks_nothing(&mut old).await;

    // The turn was nobody's: the next peer has it.
    let far = Far::listen(3);
    let mut wire = link(&node, &far).await;
    expect(&mut wire.reader, MessageType::GOSSIP_TIMESTAMP_FILTER).await;
    expect(&mut wire.reader, MessageType::QUERY_CHANNEL_RANGE).await;
}
