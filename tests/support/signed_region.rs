//! A region of a made-up network: its channels, their terms and its nodes, signed with keys that this file makes.

use std::time::{SystemTime, UNIX_EPOCH};

use pilotlight::node_id::LocalKey;
use pilotlight::wire::gossip::{
    ChannelAnnouncement, ChannelEnd, ChannelUpdate, Direction, NodeAnnouncement,
};
use pilotlight::wire::{BITCOIN_MAINNET, Features, ShortChannelId};

/// Unix seconds by the machine's clock: LDK refuses updates that are two weeks old or a day ahead by its own.
pub(crate) fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u32::try_from(since.as_secs()).unwrap()
}

struct Channel {
    scid: ShortChannelId,
    a: usize,
    b: usize,
}

/// Nodes and channels between them. Two regions with different numbers have nothing in common.
pub(crate) struct Region {
    number: u8,
    nodes: Vec<LocalKey>,
    funding: [LocalKey; 2],
    channels: Vec<Channel>,
    epoch: u32,
}

fn key(region: u8, index: usize) -> LocalKey {
    let mut bytes = [0; 32];
    bytes[0] = region;
    bytes[24..].copy_from_slice(&u64::try_from(index + 1).unwrap().to_be_bytes());
    LocalKey::from_bytes(&mut bytes).unwrap()
}

impl Region {
    pub(crate) fn new(number: u8, nodes: usize, channels: usize) -> Self {
        let channel = |index: usize| {
            // Each round over the nodes pairs them at a greater distance.
            let distance = 1 + index / nodes % (nodes - 1);
            let block = 600_000 + 1_000 * u32::from(number);
            let scid = ShortChannelId::new(block, u32::try_from(index).unwrap(), 0).unwrap();
            Channel {
                scid,
                a: index % nodes,
                b: (index % nodes + distance) % nodes,
            }
        };
        Self {
            number,
            nodes: (0..nodes).map(|index| key(number, index)).collect(),
            funding: [key(number, 1_000_000), key(number, 1_000_001)],
            channels: (0..channels).map(channel).collect(),
            // Every later round of this region is still not ahead of LDK's clock by a day.
            epoch: now() - 3_600,
        }
    }

    /// The timestamp that messages of a round carry.
    pub(crate) fn timestamp(&self, round: u32) -> u32 {
        self.epoch + round
    }

    pub(crate) fn scids(&self) -> Vec<u64> {
        self.channels
            .iter()
            .map(|channel| channel.scid.as_u64())
            .collect()
    }

    pub(crate) fn node_ids(&self) -> Vec<[u8; 33]> {
        self.nodes
            .iter()
            .map(|node| *node.node_id().as_bytes())
            .collect()
    }

    /// One `channel_announcement` for each channel.
    pub(crate) fn announcements(&self) -> Vec<Vec<u8>> {
        let [one, two] = &self.funding;
        let announce = |channel: &Channel| {
            let announcement = ChannelAnnouncement {
                chain_hash: BITCOIN_MAINNET,
                short_channel_id: channel.scid,
                features: Features::empty(),
            };
            let a = ChannelEnd {
                node: &self.nodes[channel.a],
                funding: one,
            };
            let b = ChannelEnd {
                node: &self.nodes[channel.b],
                funding: two,
            };
            announcement.sign(a, b).unwrap()
        };
        self.channels.iter().map(announce).collect()
    }

    /// Two `channel_update`s for each channel; a later round replaces an earlier one.
    pub(crate) fn updates(&self, round: u32) -> Vec<Vec<u8>> {
        let mut updates = Vec::with_capacity(2 * self.channels.len());
        for channel in &self.channels {
            for (from, to) in [(channel.a, channel.b), (channel.b, channel.a)] {
                let (from, to) = (&self.nodes[from], &self.nodes[to]);
                let update = ChannelUpdate {
                    chain_hash: BITCOIN_MAINNET,
                    short_channel_id: channel.scid,
                    timestamp: self.timestamp(round),
                    direction: Direction::from_ids(
                        from.node_id().as_bytes(),
                        to.node_id().as_bytes(),
                    ),
                    disabled: false,
                    cltv_expiry_delta: 40,
                    htlc_minimum_msat: 1,
                    fee_base_msat: round,
                    fee_proportional_millionths: 100,
                    htlc_maximum_msat: 990_000_000,
                };
                updates.push(update.sign(from).unwrap());
            }
        }
        updates
    }

    /// One `node_announcement` for each node; a later round replaces an earlier one.
    pub(crate) fn descriptions(&self, round: u32) -> Vec<Vec<u8>> {
        let describe = |(index, node): (usize, &LocalKey)| {
            let announcement = NodeAnnouncement {
                timestamp: self.timestamp(round),
                features: Features::from_bits([7, 9, 15]),
                rgb: [self.number, 0, 0],
                alias: format!("region {} node {index} round {round}", self.number),
                addresses: vec!["203.0.113.7:9735".parse().unwrap()],
            };
            announcement.sign(node).unwrap()
        };
        self.nodes.iter().enumerate().map(describe).collect()
    }

    /// Everything of the first round, each channel before its updates and each node after its channels.
    pub(crate) fn whole(&self) -> Vec<Vec<u8>> {
        [self.announcements(), self.updates(0), self.descriptions(0)].concat()
    }
}
