//! Signed gossip (BOLT 7): builders for the demo and the tests, and readers of the header fields that tell messages apart.
//!
//! A signature covers the double SHA-256 of everything after the signatures. It is ECDSA with the nonce of RFC 6979 and low *s*:
//! the same message and key give the same bytes. This file never verifies a signature and never keeps a graph: that is the
//! embedder's business.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::cursor::Cursor;
use super::{ChainHash, Features, MAX_MESSAGE, MessageType, WireError};
use crate::node_id::LocalKey;

/// A compressed public key, as it stands in gossip.
pub type PublicKeyBytes = [u8; 33];

/// The bytes of one compact signature.
const SIGNATURE: usize = 64;

/// The bytes of a node's alias (BOLT 7 § The `node_announcement` Message).
const ALIAS: usize = 32;

/// Which output funds a channel: block height, index of the transaction, index of its output (BOLT 7 § Definition of
/// `short_channel_id`), in 24, 24 and 16 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortChannelId(u64);

impl ShortChannelId {
    /// `None` if the block or the transaction index does not fit in 24 bits.
    pub fn new(block: u32, transaction: u32, output: u16) -> Option<Self> {
        if block >= 1 << 24 || transaction >= 1 << 24 {
            return None;
        }
        Some(Self(
            u64::from(block) << 40 | u64::from(transaction) << 16 | u64::from(output),
        ))
    }

    /// From its number on the wire; every number is one.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// Its number on the wire.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The height of the block.
    pub const fn block(self) -> u64 {
        self.0 >> 40
    }

    /// The transaction's index in the block.
    pub const fn transaction(self) -> u64 {
        self.0 >> 16 & 0xff_ffff
    }

    /// The output's index in the transaction.
    pub const fn output(self) -> u64 {
        self.0 & 0xffff
    }
}

impl fmt::Display for ShortChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}x{}x{}",
            self.block(),
            self.transaction(),
            self.output()
        )
    }
}

impl fmt::Debug for ShortChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not `BLOCKxTRANSACTIONxOUTPUT` in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a short channel id is written as 539268x845x1: block (24 bits), transaction (24 bits), output (16 bits)"
)]
pub struct ShortChannelIdError;

impl FromStr for ShortChannelId {
    type Err = ShortChannelIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (block, rest) = text.split_once('x').ok_or(ShortChannelIdError)?;
        let (transaction, output) = rest.split_once('x').ok_or(ShortChannelIdError)?;
        Self::new(number(block)?, number(transaction)?, number(output)?).ok_or(ShortChannelIdError)
    }
}

/// Plain decimal digits: `u32::from_str` would take a sign too.
fn number<T: FromStr>(text: &str) -> Result<T, ShortChannelIdError> {
    if !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(ShortChannelIdError);
    }
    text.parse().map_err(|_| ShortChannelIdError)
}

/// Which end of a channel speaks: node 1 is the one with the smaller id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From node 1 to node 2 (`channel_flags` bit 0 clear).
    OneToTwo,
    /// From node 2 to node 1 (bit 0 set).
    TwoToOne,
}

impl Direction {
    /// The direction in which `sender` speaks on a channel with `other`.
    pub fn from_ids(sender: &PublicKeyBytes, other: &PublicKeyBytes) -> Self {
        if sender <= other {
            Self::OneToTwo
        } else {
            Self::TwoToOne
        }
    }
}

/// The two keys with which one end of a channel signs its announcement.
#[derive(Clone, Copy)]
pub struct ChannelEnd<'a> {
    /// The node's identity.
    pub node: &'a LocalKey,
    /// The key in the funding output.
    pub funding: &'a LocalKey,
}

/// What a `channel_announcement` says beside the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelAnnouncement {
    /// The chain of the funding transaction.
    pub chain_hash: ChainHash,
    /// The channel.
    pub short_channel_id: ShortChannelId,
    /// The channel's features, usually none.
    pub features: Features,
}

impl ChannelAnnouncement {
    /// The whole message, signed four times; the ends may come in either order.
    ///
    /// # Errors
    /// [`WireError::SameNode`] for a channel with oneself, [`WireError::TooLong`] if the features do not fit.
    pub fn sign(&self, a: ChannelEnd<'_>, b: ChannelEnd<'_>) -> Result<Vec<u8>, WireError> {
        let (id_a, id_b) = (a.node.node_id(), b.node.node_id());
        // BOLT 7: node_id_1 is the lesser of the two compressed keys, in ascending lexicographic order.
        let (one, id_1, two, id_2) = match id_a.cmp(&id_b) {
            std::cmp::Ordering::Less => (a, id_a, b, id_b),
            std::cmp::Ordering::Greater => (b, id_b, a, id_a),
            std::cmp::Ordering::Equal => return Err(WireError::SameNode),
        };
        let mut signed = Vec::new();
        push_features(&self.features, &mut signed)?;
        signed.extend_from_slice(&self.chain_hash);
        signed.extend_from_slice(&self.short_channel_id.as_u64().to_be_bytes());
        signed.extend_from_slice(id_1.as_bytes());
        signed.extend_from_slice(id_2.as_bytes());
        signed.extend_from_slice(one.funding.node_id().as_bytes());
        signed.extend_from_slice(two.funding.node_id().as_bytes());
        assemble(
            MessageType::CHANNEL_ANNOUNCEMENT,
            &[one.node, two.node, one.funding, two.funding],
            &signed,
        )
    }
}

/// What a `node_announcement` says beside the node's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAnnouncement {
    /// Unix seconds; a later one replaces an earlier one.
    pub timestamp: u32,
    /// The node's features.
    pub features: Features,
    /// The node's colour.
    pub rgb: [u8; 3],
    /// The node's name, at most 32 bytes of UTF-8.
    pub alias: String,
    /// Where the node listens; may be empty. Sent with IPv4 before IPv6, as BOLT 7 asks.
    pub addresses: Vec<SocketAddr>,
}

impl NodeAnnouncement {
    /// The whole message, signed.
    ///
    /// # Errors
    /// [`WireError::TooLong`] if the alias, the features or the addresses do not fit; [`WireError::Unsendable`] for port 0.
    pub fn sign(&self, node: &LocalKey) -> Result<Vec<u8>, WireError> {
        let mut alias = [0; ALIAS];
        alias
            .get_mut(..self.alias.len())
            .ok_or(WireError::TooLong {
                what: "alias",
                length: self.alias.len(),
                limit: ALIAS,
            })?
            .copy_from_slice(self.alias.as_bytes());
        let addresses = encode_addresses(&self.addresses)?;
        let mut signed = Vec::new();
        push_features(&self.features, &mut signed)?;
        signed.extend_from_slice(&self.timestamp.to_be_bytes());
        signed.extend_from_slice(node.node_id().as_bytes());
        signed.extend_from_slice(&self.rgb);
        signed.extend_from_slice(&alias);
        push_prefixed(&addresses, "addresses", &mut signed)?;
        assemble(MessageType::NODE_ANNOUNCEMENT, &[node], &signed)
    }
}

/// What a `channel_update` says: one end's terms for forwarding over its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelUpdate {
    /// The chain of the funding transaction.
    pub chain_hash: ChainHash,
    /// The channel.
    pub short_channel_id: ShortChannelId,
    /// Unix seconds; a later one replaces an earlier one.
    pub timestamp: u32,
    /// Which end speaks.
    pub direction: Direction,
    /// Whether the end forwards nothing for now.
    pub disabled: bool,
    /// Blocks subtracted from an HTLC's expiry.
    pub cltv_expiry_delta: u16,
    /// The least that is forwarded, in millisatoshi.
    pub htlc_minimum_msat: u64,
    /// The flat fee, in millisatoshi.
    pub fee_base_msat: u32,
    /// The proportional fee, in millionths.
    pub fee_proportional_millionths: u32,
    /// The most that is forwarded, in millisatoshi; at most the channel's capacity.
    pub htlc_maximum_msat: u64,
}

impl ChannelUpdate {
    /// The whole message, signed by the end that speaks.
    ///
    /// # Errors
    /// None today; the length is checked as every message's is.
    pub fn sign(&self, node: &LocalKey) -> Result<Vec<u8>, WireError> {
        let mut signed = Vec::with_capacity(72);
        signed.extend_from_slice(&self.chain_hash);
        signed.extend_from_slice(&self.short_channel_id.as_u64().to_be_bytes());
        signed.extend_from_slice(&self.timestamp.to_be_bytes());
        // message_flags: bit 0 is `must_be_one`, for htlc_maximum_msat.
        signed.push(1);
        signed.push(u8::from(self.direction == Direction::TwoToOne) | u8::from(self.disabled) << 1);
        signed.extend_from_slice(&self.cltv_expiry_delta.to_be_bytes());
        signed.extend_from_slice(&self.htlc_minimum_msat.to_be_bytes());
        signed.extend_from_slice(&self.fee_base_msat.to_be_bytes());
        signed.extend_from_slice(&self.fee_proportional_millionths.to_be_bytes());
        signed.extend_from_slice(&self.htlc_maximum_msat.to_be_bytes());
        assemble(MessageType::CHANNEL_UPDATE, &[node], &signed)
    }
}

fn push_prefixed(bytes: &[u8], what: &'static str, out: &mut Vec<u8>) -> Result<(), WireError> {
    let length = u16::try_from(bytes.len()).map_err(|_| WireError::TooLong {
        what,
        length: bytes.len(),
        limit: usize::from(u16::MAX),
    })?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn push_features(features: &Features, out: &mut Vec<u8>) -> Result<(), WireError> {
    push_prefixed(&features.to_wire(), "features", out)
}

/// Address descriptors (BOLT 7 § The `node_announcement` Message): type 1 is IPv4, type 2 is IPv6, in ascending order of type.
fn encode_addresses(addresses: &[SocketAddr]) -> Result<Vec<u8>, WireError> {
    let mut sorted: Vec<&SocketAddr> = addresses.iter().collect();
    sorted.sort_by_key(|address| address.is_ipv6());
    let mut out = Vec::new();
    for address in sorted {
        if address.port() == 0 {
            return Err(WireError::Unsendable {
                what: "an announced address has port 0",
            });
        }
        match address.ip() {
            IpAddr::V4(ip) => {
                out.push(1);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(2);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&address.port().to_be_bytes());
    }
    Ok(out)
}

fn assemble(kind: MessageType, signers: &[&LocalKey], signed: &[u8]) -> Result<Vec<u8>, WireError> {
    let digest: [u8; 32] = Sha256::digest(Sha256::digest(signed)).into();
    let mut out = kind.begin(
        signers
            .len()
            .saturating_mul(SIGNATURE)
            .saturating_add(signed.len()),
    );
    for signer in signers {
        out.extend_from_slice(&signer.sign(&digest));
    }
    out.extend_from_slice(signed);
    if out.len() > MAX_MESSAGE {
        return Err(WireError::TooLong {
            what: "message",
            length: out.len(),
            limit: MAX_MESSAGE,
        });
    }
    Ok(out)
}

/// The fields of an announcement that tell it from every other. Nothing here is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GossipHeader {
    /// A channel exists (256).
    Channel {
        /// The chain of the funding transaction.
        chain_hash: ChainHash,
        /// The channel.
        short_channel_id: ShortChannelId,
    },
    /// A node describes itself (257).
    Node {
        /// The node.
        node_id: PublicKeyBytes,
        /// Unix seconds.
        timestamp: u32,
    },
    /// One end of a channel states its terms (258).
    Update {
        /// The chain of the funding transaction.
        chain_hash: ChainHash,
        /// The channel.
        short_channel_id: ShortChannelId,
        /// Unix seconds.
        timestamp: u32,
        /// Which end speaks.
        direction: Direction,
        /// Whether it forwards nothing for now.
        disabled: bool,
    },
}

impl GossipHeader {
    /// Reads the header of a 256, 257 or 258; `Ok(None)` for any other message.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when the message ends before the fields read here, [`WireError::NoType`] below two bytes.
    pub fn decode(message: &[u8]) -> Result<Option<Self>, WireError> {
        let kind = MessageType::of(message)?;
        let signatures: usize = match kind {
            MessageType::CHANNEL_ANNOUNCEMENT => 4,
            MessageType::NODE_ANNOUNCEMENT | MessageType::CHANNEL_UPDATE => 1,
            _ => return Ok(None),
        };
        let mut cursor = Cursor::of_type(message, kind)?;
        cursor.bytes(signatures.saturating_mul(SIGNATURE), "signatures")?;
        let header = match kind {
            MessageType::CHANNEL_ANNOUNCEMENT => {
                cursor.prefixed("features")?;
                Self::Channel {
                    chain_hash: cursor.array("chain_hash")?,
                    short_channel_id: ShortChannelId(cursor.u64("short_channel_id")?),
                }
            }
            MessageType::NODE_ANNOUNCEMENT => {
                cursor.prefixed("features")?;
                let timestamp = cursor.u32("timestamp")?;
                Self::Node {
                    node_id: cursor.array("node_id")?,
                    timestamp,
                }
            }
            _ => Self::decode_update(&mut cursor)?,
        };
        Ok(Some(header))
    }

    fn decode_update(cursor: &mut Cursor<'_>) -> Result<Self, WireError> {
        let chain_hash = cursor.array("chain_hash")?;
        let short_channel_id = ShortChannelId(cursor.u64("short_channel_id")?);
        let timestamp = cursor.u32("timestamp")?;
        cursor.u8("message_flags")?;
        let flags = cursor.u8("channel_flags")?;
        Ok(Self::Update {
            chain_hash,
            short_channel_id,
            timestamp,
            direction: if flags & 1 == 0 {
                Direction::OneToTwo
            } else {
                Direction::TwoToOne
            },
            disabled: flags & 2 != 0,
        })
    }

    /// When the message says it was made, in Unix seconds; a channel announcement does not say.
    pub fn timestamp(&self) -> Option<u32> {
        match self {
            Self::Channel { .. } => None,
            Self::Node { timestamp, .. } | Self::Update { timestamp, .. } => Some(*timestamp),
        }
    }
}
