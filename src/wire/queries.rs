//! Gossip queries, the empty answers to them, and the timestamp filter (BOLT 7 § Query Messages).
//!
//! A query that the node does not serve is still answered, by [`unserved_answer`]: BOLT 7 says MUST, and a peer that waits for
//! an answer would otherwise ask nobody else. This file never looks anything up.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::cursor::Cursor;
use super::{ChainHash, MAX_MESSAGE, MessageType, ShortChannelId, WireError};

/// The only encoding of short channel ids that BOLT 7 still allows: uncompressed.
const UNCOMPRESSED: u8 = 0;
/// What it no longer allows.
const ZLIB: u8 = 1;

/// Asks for everything about some channels (261).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryShortChannelIds {
    /// The chain that the ids are of.
    pub chain_hash: ChainHash,
    /// The channels asked for.
    pub short_channel_ids: Vec<ShortChannelId>,
}

impl QueryShortChannelIds {
    /// Reads a whole message; its optional query flags are ignored.
    ///
    /// # Errors
    /// A field that is cut short, an encoding other than the uncompressed one, or a broken id.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::of_type(message, MessageType::QUERY_SHORT_CHANNEL_IDS)?;
        let chain_hash = cursor.array("chain_hash")?;
        let ids = cursor.prefixed("encoded_short_ids")?;
        Ok(Self {
            chain_hash,
            short_channel_ids: decode_ids(ids, "query_short_channel_ids")?,
        })
    }

    /// The whole message. Ids beyond the 8,187 that fit are left out: ask again for the rest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MessageType::QUERY_SHORT_CHANNEL_IDS.begin(
            self.short_channel_ids
                .len()
                .saturating_mul(8)
                .saturating_add(35),
        );
        out.extend_from_slice(&self.chain_hash);
        push_ids(&self.short_channel_ids, &mut out);
        out
    }
}

/// Ends the answer to a 261 (262).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyShortChannelIdsEnd {
    /// The chain that was asked about.
    pub chain_hash: ChainHash,
    /// Whether the sender keeps up-to-date information on that chain.
    pub full_information: bool,
}

impl ReplyShortChannelIdsEnd {
    /// Reads a whole message.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when a field is cut short.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::of_type(message, MessageType::REPLY_SHORT_CHANNEL_IDS_END)?;
        Ok(Self {
            chain_hash: cursor.array("chain_hash")?,
            full_information: cursor.u8("full_information")? != 0,
        })
    }

    /// The whole message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MessageType::REPLY_SHORT_CHANNEL_IDS_END.begin(33);
        out.extend_from_slice(&self.chain_hash);
        out.push(u8::from(self.full_information));
        out
    }
}

/// Asks which channels were opened in a range of blocks (263).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryChannelRange {
    /// The chain.
    pub chain_hash: ChainHash,
    /// The first block's height.
    pub first_blocknum: u32,
    /// How many blocks, 1 or more.
    pub number_of_blocks: u32,
}

impl QueryChannelRange {
    /// Reads a whole message; its optional query option is ignored.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when a field is cut short.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::of_type(message, MessageType::QUERY_CHANNEL_RANGE)?;
        Ok(Self {
            chain_hash: cursor.array("chain_hash")?,
            first_blocknum: cursor.u32("first_blocknum")?,
            number_of_blocks: cursor.u32("number_of_blocks")?,
        })
    }

    /// The whole message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MessageType::QUERY_CHANNEL_RANGE.begin(40);
        out.extend_from_slice(&self.chain_hash);
        out.extend_from_slice(&self.first_blocknum.to_be_bytes());
        out.extend_from_slice(&self.number_of_blocks.to_be_bytes());
        out
    }
}

/// Answers a 263, in one or more parts (264).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyChannelRange {
    /// The chain that was asked about.
    pub chain_hash: ChainHash,
    /// The first block that this part covers.
    pub first_blocknum: u32,
    /// How many blocks it covers.
    pub number_of_blocks: u32,
    /// Whether it is the last part.
    pub sync_complete: bool,
    /// The channels opened in those blocks.
    pub short_channel_ids: Vec<ShortChannelId>,
}

impl ReplyChannelRange {
    /// Reads a whole message; its optional timestamps and checksums are ignored.
    ///
    /// # Errors
    /// A field that is cut short, an encoding other than the uncompressed one, or a broken id.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::of_type(message, MessageType::REPLY_CHANNEL_RANGE)?;
        let chain_hash = cursor.array("chain_hash")?;
        let first_blocknum = cursor.u32("first_blocknum")?;
        let number_of_blocks = cursor.u32("number_of_blocks")?;
        let sync_complete = cursor.u8("sync_complete")? != 0;
        let ids = cursor.prefixed("encoded_short_ids")?;
        Ok(Self {
            chain_hash,
            first_blocknum,
            number_of_blocks,
            sync_complete,
            short_channel_ids: decode_ids(ids, "reply_channel_range")?,
        })
    }

    /// The whole message. Ids beyond the 8,186 that fit are left out: send another part.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MessageType::REPLY_CHANNEL_RANGE.begin(
            self.short_channel_ids
                .len()
                .saturating_mul(8)
                .saturating_add(44),
        );
        out.extend_from_slice(&self.chain_hash);
        out.extend_from_slice(&self.first_blocknum.to_be_bytes());
        out.extend_from_slice(&self.number_of_blocks.to_be_bytes());
        out.push(u8::from(self.sync_complete));
        push_ids(&self.short_channel_ids, &mut out);
        out
    }
}

/// Says which gossip a peer may relay to the sender; before it, none (265).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GossipTimestampFilter {
    /// The chain.
    pub chain_hash: ChainHash,
    /// The earliest timestamp wanted, in Unix seconds.
    pub first_timestamp: u32,
    /// How many seconds from there.
    pub timestamp_range: u32,
}

impl GossipTimestampFilter {
    /// Wants everything from `first_timestamp` on.
    pub fn since(chain_hash: ChainHash, first_timestamp: u32) -> Self {
        Self {
            chain_hash,
            first_timestamp,
            timestamp_range: u32::MAX,
        }
    }

    /// Whether a message of that timestamp is wanted.
    pub fn wants(&self, timestamp: u32) -> bool {
        timestamp
            .checked_sub(self.first_timestamp)
            .is_some_and(|after| after < self.timestamp_range)
    }

    /// Reads a whole message.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when a field is cut short.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::of_type(message, MessageType::GOSSIP_TIMESTAMP_FILTER)?;
        Ok(Self {
            chain_hash: cursor.array("chain_hash")?,
            first_timestamp: cursor.u32("first_timestamp")?,
            timestamp_range: cursor.u32("timestamp_range")?,
        })
    }

    /// The whole message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MessageType::GOSSIP_TIMESTAMP_FILTER.begin(40);
        out.extend_from_slice(&self.chain_hash);
        out.extend_from_slice(&self.first_timestamp.to_be_bytes());
        out.extend_from_slice(&self.timestamp_range.to_be_bytes());
        out
    }
}

/// The answer to a query that nobody serves: to a 261 a 262 with `full_information` = 0, to a 263 one empty and final 264 that
/// covers the whole range. `Ok(None)` for any other message.
///
/// # Errors
/// A query that is cut short; BOLT 1 closes the connection for it.
pub fn unserved_answer(query: &[u8]) -> Result<Option<Vec<u8>>, WireError> {
    match MessageType::of(query)? {
        MessageType::QUERY_SHORT_CHANNEL_IDS => {
            // Only the chain is read: an answer that knows nothing does not depend on how the ids are encoded.
            let mut cursor = Cursor::of_type(query, MessageType::QUERY_SHORT_CHANNEL_IDS)?;
            let chain_hash = cursor.array("chain_hash")?;
            cursor.prefixed("encoded_short_ids")?;
            let answer = ReplyShortChannelIdsEnd {
                chain_hash,
                full_information: false,
            };
            Ok(Some(answer.encode()))
        }
        MessageType::QUERY_CHANNEL_RANGE => {
            let query = QueryChannelRange::decode(query)?;
            let answer = ReplyChannelRange {
                chain_hash: query.chain_hash,
                first_blocknum: query.first_blocknum,
                // A range of none breaks BOLT 7; an answer must cover at least the first block.
                number_of_blocks: query.number_of_blocks.max(1),
                sync_complete: true,
                short_channel_ids: Vec::new(),
            };
            Ok(Some(answer.encode()))
        }
        _ => Ok(None),
    }
}

fn push_ids(ids: &[ShortChannelId], out: &mut Vec<u8>) {
    // The list is the last field: what is left of a message, after its length and its encoding type, is for ids.
    let room = MAX_MESSAGE.saturating_sub(out.len().saturating_add(3)) / 8;
    let ids = ids.get(..room).unwrap_or(ids);
    // Inside 16 bits, because the message is.
    let length = u16::try_from(ids.len().saturating_mul(8).saturating_add(1)).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(UNCOMPRESSED);
    for id in ids {
        out.extend_from_slice(&id.as_u64().to_be_bytes());
    }
}

/// BOLT 7 § Query Messages: nothing but the uncompressed encoding is left.
pub(super) fn refuse_encoding(encoding: u8, message: &'static str) -> Result<(), WireError> {
    let what = match encoding {
        UNCOMPRESSED => return Ok(()),
        ZLIB => "it is compressed with zlib (encoding 1), which BOLT 7 no longer allows",
        _ => "its encoding is unknown: BOLT 7 has 0, uncompressed",
    };
    Err(WireError::Invalid { message, what })
}

fn decode_ids(field: &[u8], message: &'static str) -> Result<Vec<ShortChannelId>, WireError> {
    let (encoding, ids) = field.split_first().ok_or(WireError::Truncated {
        message,
        field: "encoding_type",
    })?;
    refuse_encoding(*encoding, message)?;
    let (ids, []) = ids.as_chunks::<8>() else {
        return Err(WireError::Invalid {
            message,
            what: "short channel ids are not a whole number",
        });
    };
    Ok(ids
        .iter()
        .map(|id| ShortChannelId::from_u64(u64::from_be_bytes(*id)))
        .collect())
}
