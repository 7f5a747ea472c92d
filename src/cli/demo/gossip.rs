//! The gossip and the channel messages that the far sides send.
//!
//! Gossip is real and signed: each peer announces one channel and itself, then restates its terms for ever. Each message says who
//! made it and as the how-manieth, so that a loss, a repetition and a change of order all show. The channel messages have the
//! types and lengths of BOLT 2 and random contents: nothing here keeps a channel.

use super::DemoError;
use super::cast::{Cast, Member};
use crate::node_id::NodeId;
use crate::wire::gossip::{
    ChannelAnnouncement, ChannelEnd, ChannelUpdate, Direction, GossipHeader, NodeAnnouncement,
};
use crate::wire::{BITCOIN_MAINNET, Features, MessageType, ShortChannelId};
use std::sync::Arc;

/// Timestamp of every peer's message number 0.
const FIRST_TIMESTAMP: u32 = 1_750_000_000;

/// Block of the first peer's funding transaction.
const FIRST_BLOCK: u32 = 800_000;

/// Every so many messages a peer describes itself again instead of its channel.
const NODE_EVERY: u32 = 16;

/// BOLT 2 § Committing Updates So Far.
const COMMITMENT_SIGNED: (u16, usize) = (132, 98);
/// BOLT 2 § Completing the Transition to the Updated State.
const REVOKE_AND_ACK: (u16, usize) = (133, 97);
/// BOLT 2 § Message Retransmission.
const CHANNEL_REESTABLISH: (u16, usize) = (136, 113);
/// BOLT 2 § The `open_channel` Message.
pub(super) const OPEN_CHANNEL: (u16, usize) = (32, 319);

/// Which gossip message: whose, and its number from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) origin: usize,
    pub(super) number: u32,
}

/// Makes one peer's gossip.
pub(super) struct Publisher {
    member: Arc<Member>,
    /// The other end of its channel.
    partner: Arc<Member>,
    channel: ShortChannelId,
    direction: Direction,
    number: u32,
}

impl Publisher {
    /// The publisher of `member`, whose channel is with the next peer in the cast.
    ///
    /// # Errors
    /// The cast is too small, or too large for block heights.
    pub(super) fn new(cast: &Cast, member: &Arc<Member>) -> Result<Self, DemoError> {
        let others = || cast.peers().filter(|other| other.index != member.index);
        let next = others()
            .find(|other| other.index > member.index)
            .or_else(|| others().next());
        let partner = next.ok_or(DemoError::Gossip)?;
        let block = u32::try_from(member.index)
            .map_err(|_| DemoError::Gossip)?
            .saturating_add(FIRST_BLOCK);
        Ok(Self {
            member: Arc::clone(member),
            partner: Arc::clone(partner),
            channel: ShortChannelId::new(block, 1, 0).ok_or(DemoError::Gossip)?,
            direction: Direction::from_ids(
                member.node_id().as_bytes(),
                partner.node_id().as_bytes(),
            ),
            number: 0,
        })
    }

    /// The next message, signed.
    ///
    /// # Errors
    /// The message cannot be built; that would be a bug.
    pub(super) fn next(&mut self) -> Result<(Stamp, Vec<u8>), DemoError> {
        self.number = self.number.saturating_add(1);
        let message = match self.number {
            1 => self.channel_announcement(),
            number if number % NODE_EVERY == 2 => self.node_announcement(),
            _ => self.channel_update(),
        };
        let stamp = Stamp {
            origin: self.member.index,
            number: self.number,
        };
        Ok((stamp, message.map_err(|_| DemoError::Gossip)?))
    }

    fn timestamp(&self) -> u32 {
        FIRST_TIMESTAMP.saturating_add(self.number)
    }

    fn channel_announcement(&self) -> Result<Vec<u8>, crate::wire::WireError> {
        let announcement = ChannelAnnouncement {
            chain_hash: BITCOIN_MAINNET,
            short_channel_id: self.channel,
            features: Features::empty(),
        };
        let end = |member: &Member| (Arc::clone(&member.key), Arc::clone(&member.funding));
        let (ours, theirs) = (end(&self.member), end(&self.partner));
        announcement.sign(
            ChannelEnd {
                node: &ours.0,
                funding: &ours.1,
            },
            ChannelEnd {
                node: &theirs.0,
                funding: &theirs.1,
            },
        )
    }

    fn node_announcement(&self) -> Result<Vec<u8>, crate::wire::WireError> {
        let announcement = NodeAnnouncement {
            timestamp: self.timestamp(),
            features: Features::gossip(),
            rgb: [0xff, 0x9d, 0x00],
            alias: self.member.name.to_owned(),
            addresses: Vec::new(),
        };
        announcement.sign(&self.member.key)
    }

    fn channel_update(&self) -> Result<Vec<u8>, crate::wire::WireError> {
        let update = ChannelUpdate {
            chain_hash: BITCOIN_MAINNET,
            short_channel_id: self.channel,
            timestamp: self.timestamp(),
            direction: self.direction,
            disabled: false,
            cltv_expiry_delta: 80,
            htlc_minimum_msat: 1,
            fee_base_msat: 1000,
            fee_proportional_millionths: self.number % 1000,
            htlc_maximum_msat: 1_000_000_000,
        };
        update.sign(&self.member.key)
    }
}

/// Reads whose gossip message this is, and which. `None` for any other message.
pub(super) fn stamp_of(cast: &Cast, message: &[u8]) -> Option<Stamp> {
    let numbered = |timestamp: u32| timestamp.checked_sub(FIRST_TIMESTAMP);
    let owner = |channel: ShortChannelId| {
        usize::try_from(channel.block().checked_sub(u64::from(FIRST_BLOCK))?).ok()
    };
    match GossipHeader::decode(message).ok()?? {
        GossipHeader::Channel {
            short_channel_id, ..
        } => Some(Stamp {
            origin: owner(short_channel_id)?,
            number: 1,
        }),
        GossipHeader::Node { node_id, timestamp } => {
            let member = cast.find(NodeId::parse(&node_id).ok()?)?;
            Some(Stamp {
                origin: member.index,
                number: numbered(timestamp)?,
            })
        }
        GossipHeader::Update {
            short_channel_id,
            timestamp,
            ..
        } => Some(Stamp {
            origin: owner(short_channel_id)?,
            number: numbered(timestamp)?,
        }),
    }
}

/// A `channel_reestablish`, as a peer sends it when it believes that it has a channel.
pub(super) fn channel_reestablish() -> Vec<u8> {
    shaped(CHANNEL_REESTABLISH)
}

/// A `commitment_signed`.
pub(super) fn commitment_signed() -> Vec<u8> {
    shaped(COMMITMENT_SIGNED)
}

/// A `revoke_and_ack`, the answer to it.
pub(super) fn revoke_and_ack() -> Vec<u8> {
    shaped(REVOKE_AND_ACK)
}

/// An `open_channel`.
pub(super) fn open_channel() -> Vec<u8> {
    shaped(OPEN_CHANNEL)
}

/// Whether a message is of BOLT 2: what only a node with its signer may exchange.
pub(super) fn is_channel_message(kind: MessageType) -> bool {
    [
        COMMITMENT_SIGNED,
        REVOKE_AND_ACK,
        CHANNEL_REESTABLISH,
        OPEN_CHANNEL,
    ]
    .iter()
    .any(|(of, _)| *of == kind.0)
}

/// Whether a message asks for a `revoke_and_ack`.
pub(super) fn is_commitment_signed(kind: MessageType) -> bool {
    kind.0 == COMMITMENT_SIGNED.0
}

/// Whether a message is a `revoke_and_ack`.
pub(super) fn is_revoke_and_ack(kind: MessageType) -> bool {
    kind.0 == REVOKE_AND_ACK.0
}

fn shaped((kind, length): (u16, usize)) -> Vec<u8> {
    let mut message = kind.to_be_bytes().to_vec();
    message.extend(std::iter::repeat_with(|| fastrand::u8(..)).take(length));
    message
}
