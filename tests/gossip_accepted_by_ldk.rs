//! Gossip that this crate builds and signs, read and verified by LDK: `ln::msgs` decodes it, writes the same bytes again, and
//! `NetworkGraph` checks every signature before it takes it in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Network;
use lightning::ln::msgs::{self, RoutingMessageHandler, SocketAddress};
use lightning::routing::gossip::{NetworkGraph, NodeId, P2PGossipSync};
use lightning::routing::utxo::UtxoLookup;
use lightning::util::logger::{Logger, Record};
use lightning::util::ser::{LengthReadable, Writeable};

use pilotlight::node_id::LocalKey;
use pilotlight::wire::gossip::{
    ChannelAnnouncement, ChannelEnd, ChannelUpdate, Direction, GossipHeader, NodeAnnouncement,
};
use pilotlight::wire::{
    BITCOIN_MAINNET, BITCOIN_REGTEST, Features, Init, MessageType, ShortChannelId, WireError,
};

struct Silent;

impl Logger for Silent {
    fn log(&self, _record: Record<'_>) {}
}

type Graph = NetworkGraph<Arc<Silent>>;

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

fn id(key: &LocalKey) -> [u8; 33] {
    *key.node_id().as_bytes()
}

/// LDK refuses updates that are two weeks older than the wall clock.
fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u32::try_from(since.as_secs()).unwrap()
}

fn scid() -> ShortChannelId {
    ShortChannelId::new(539_268, 845, 1).unwrap()
}

fn announce(a: &LocalKey, b: &LocalKey) -> Vec<u8> {
    let (funding_a, funding_b) = (key(11), key(12));
    ChannelAnnouncement {
        chain_hash: BITCOIN_REGTEST,
        short_channel_id: scid(),
        features: Features::empty(),
    }
    .sign(
        ChannelEnd {
            node: a,
            funding: &funding_a,
        },
        ChannelEnd {
            node: b,
            funding: &funding_b,
        },
    )
    .unwrap()
}

fn update(direction: Direction, timestamp: u32) -> ChannelUpdate {
    ChannelUpdate {
        chain_hash: BITCOIN_REGTEST,
        short_channel_id: scid(),
        timestamp,
        direction,
        disabled: false,
        cltv_expiry_delta: 40,
        htlc_minimum_msat: 1,
        fee_base_msat: 1_000,
        fee_proportional_millionths: 100,
        htlc_maximum_msat: 990_000_000,
    }
}

fn describe() -> NodeAnnouncement {
    NodeAnnouncement {
        timestamp: now(),
        features: Features::from_bits([7, 9, 15]),
        rgb: [0xff, 0x99, 0],
        alias: "pilotlight-0".to_owned(),
        addresses: vec![
            "[2001:db8::1]:9735".parse().unwrap(),
            "203.0.113.7:9735".parse().unwrap(),
        ],
    }
}

/// Decodes a message's body as LDK does, and checks that LDK writes the same bytes.
fn read<M: LengthReadable + Writeable>(message: &[u8]) -> M {
    let mut body = &message[2..];
    let read = M::read_from_fixed_length_buffer(&mut body).expect("LDK decodes it");
    assert!(body.is_empty());
    assert_eq!(read.encode(), &message[2..]);
    read
}

fn graph_with_channel() -> (Graph, LocalKey, LocalKey) {
    let graph = NetworkGraph::new(Network::Regtest, Arc::new(Silent));
    let (a, b) = (key(1), key(2));
    // Given in the wrong order on purpose: the builder sorts them.
    let (one, two) = if id(&a) < id(&b) { (a, b) } else { (b, a) };
    let message: msgs::ChannelAnnouncement = read(&announce(&two, &one));
    graph
        .update_channel_from_announcement::<Arc<dyn UtxoLookup>>(&message, &None)
        .expect("four signatures hold");
    (graph, one, two)
}

#[test]
fn ldk_takes_in_a_channel_its_nodes_and_both_updates() {
    let (graph, one, two) = graph_with_channel();
    for (direction, signer) in [(Direction::OneToTwo, &one), (Direction::TwoToOne, &two)] {
        let message = update(direction, now()).sign(signer).unwrap();
        graph.update_channel(&read(&message)).unwrap();
    }
    for node in [&one, &two] {
        let message = describe().sign(node).unwrap();
        graph
            .update_node_from_announcement(&read(&message))
            .unwrap();
    }
    let graph = graph.read_only();
    let channel = graph.channel(scid().as_u64()).unwrap();
    assert_eq!(channel.node_one.as_slice(), id(&one));
    assert_eq!(
        channel.one_to_two.as_ref().unwrap().htlc_maximum_msat,
        990_000_000
    );
    assert!(channel.two_to_one.is_some());
    let node = graph.node(&NodeId::from_slice(&id(&one)).unwrap()).unwrap();
    let info = node.announcement_info.as_ref().unwrap();
    assert_eq!(info.alias().to_string(), "pilotlight-0");
    assert_eq!(info.rgb(), [0xff, 0x99, 0]);
    assert_eq!(
        info.addresses()[0],
        SocketAddress::TcpIpV4 {
            addr: [203, 0, 113, 7],
            port: 9735
        }
    );
    assert_eq!(info.addresses().len(), 2);
}

#[test]
fn ldk_relays_them_on_through_its_gossip_sync() {
    let (graph, one, _) = graph_with_channel();
    let sync = P2PGossipSync::new(&graph, None::<Arc<dyn UtxoLookup>>, Arc::new(Silent));
    let message = update(Direction::OneToTwo, now()).sign(&one).unwrap();
    assert!(sync.handle_channel_update(None, &read(&message)).unwrap());
    let nameless = NodeAnnouncement {
        addresses: vec![],
        ..describe()
    };
    let message = nameless.sign(&one).unwrap();
    assert!(
        sync.handle_node_announcement(None, &read(&message))
            .unwrap()
    );
}

#[test]
fn ldk_refuses_a_message_that_another_key_signed() {
    let (graph, one, two) = graph_with_channel();
    let message = update(Direction::OneToTwo, now()).sign(&two).unwrap();
    assert!(graph.update_channel(&read(&message)).is_err());
    let mut message = update(Direction::OneToTwo, now()).sign(&one).unwrap();
    *message.last_mut().unwrap() ^= 1;
    assert!(graph.update_channel(&read(&message)).is_err());
}

#[test]
fn one_message_and_one_key_give_the_same_bytes() {
    let (one, two) = (key(1), key(2));
    assert_eq!(announce(&one, &two), announce(&one, &two));
    let first = update(Direction::OneToTwo, 7).sign(&one).unwrap();
    assert_eq!(first, update(Direction::OneToTwo, 7).sign(&one).unwrap());
    assert_ne!(first, update(Direction::OneToTwo, 8).sign(&one).unwrap());
}

#[test]
fn headers_tell_what_was_built() {
    let (one, two) = (key(1), key(2));
    assert_eq!(
        GossipHeader::decode(&announce(&one, &two)),
        Ok(Some(GossipHeader::Channel {
            chain_hash: BITCOIN_REGTEST,
            short_channel_id: scid()
        }))
    );
    let mut terms = update(Direction::TwoToOne, 99);
    terms.disabled = true;
    assert_eq!(
        GossipHeader::decode(&terms.sign(&two).unwrap()),
        Ok(Some(GossipHeader::Update {
            chain_hash: BITCOIN_REGTEST,
            short_channel_id: scid(),
            timestamp: 99,
            direction: Direction::TwoToOne,
            disabled: true
        }))
    );
    let described = describe();
    assert_eq!(
        GossipHeader::decode(&described.sign(&one).unwrap()),
        Ok(Some(GossipHeader::Node {
            node_id: id(&one),
            timestamp: described.timestamp
        }))
    );
    assert_eq!(GossipHeader::decode(&[0, 18, 0, 0]), Ok(None));
}

#[test]
fn what_no_receiver_would_accept_is_not_built() {
    let one = key(1);
    let end = ChannelEnd {
        node: &one,
        funding: &one,
    };
    let channel = ChannelAnnouncement {
        chain_hash: BITCOIN_REGTEST,
        short_channel_id: scid(),
        features: Features::empty(),
    };
    assert_eq!(channel.sign(end, end), Err(WireError::SameNode));
    let named = |alias: &str| NodeAnnouncement {
        alias: alias.to_owned(),
        ..describe()
    };
    assert!(named(&"a".repeat(32)).sign(&one).is_ok());
    assert!(matches!(
        named(&"a".repeat(33)).sign(&one),
        Err(WireError::TooLong { .. })
    ));
    let deaf = NodeAnnouncement {
        addresses: vec!["203.0.113.7:0".parse().unwrap()],
        ..describe()
    };
    assert!(matches!(deaf.sign(&one), Err(WireError::Unsendable { .. })));
}

#[test]
fn ldk_reads_our_init_and_we_read_its() {
    let ours = Init::gossip(vec![BITCOIN_MAINNET, BITCOIN_REGTEST]);
    let bytes = ours.encode();
    let mut body = &bytes[2..];
    let theirs = msgs::Init::read_from_fixed_length_buffer(&mut body).unwrap();
    assert!(theirs.features.supports_data_loss_protect());
    assert!(theirs.features.supports_gossip_queries());
    assert!(theirs.features.supports_variable_length_onion());
    assert!(theirs.features.supports_static_remote_key());
    assert!(theirs.features.supports_payment_secret());
    assert!(theirs.features.supports_channel_type());
    assert!(!theirs.features.requires_unknown_bits());
    let networks = theirs.networks.clone().unwrap();
    assert_eq!(
        networks,
        [Network::Bitcoin, Network::Regtest]
            .map(bitcoin::constants::ChainHash::using_genesis_block_const)
    );
    let again = [&MessageType::INIT.0.to_be_bytes()[..], &theirs.encode()].concat();
    assert_eq!(Init::decode(&again), Ok(ours));
}
