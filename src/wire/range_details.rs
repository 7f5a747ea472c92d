//! The optional parts of `query_channel_range` (263) and `reply_channel_range` (264): when each channel was last updated, and a checksum
//! of what was said then (BOLT 7 § The `query_channel_range` and `reply_channel_range` Messages).
//!
//! [`queries`](super::queries) has the messages themselves.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::cursor::Cursor;
use super::queries::{QueryChannelRange, ReplyChannelRange, refuse_encoding};
use super::tlv::{self, Known};
use super::{BigSize, MessageType, WireError};

/// `query_option` of a 263.
const QUERY_OPTION: u64 = 1;
/// `timestamps_tlv` of a 264.
const TIMESTAMPS: u64 = 1;
/// `checksums_tlv` of a 264.
const CHECKSUMS: u64 = 3;

/// What a 263 asks for beside the ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RangeOption {
    /// When the two updates of each channel were made (bit 0).
    pub timestamps: bool,
    /// Their checksums (bit 1).
    pub checksums: bool,
}

/// What a 264 says beside the ids, in their order; empty when it does not say it. The first of each pair is of `node_id_1`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeDetails {
    /// Unix seconds; 0: there is no update.
    pub timestamps: Vec<[u32; 2]>,
    /// CRC32C of the updates without signature and timestamp; 0: there is none.
    pub checksums: Vec<[u32; 2]>,
}

impl QueryChannelRange {
    /// The whole message, which asks for more than ids.
    pub fn encode_with(&self, option: RangeOption) -> Vec<u8> {
        let mut out = self.encode();
        let flags = u64::from(option.timestamps) | u64::from(option.checksums) << 1;
        if flags != 0 {
            let mut value = Vec::new();
            BigSize(flags).encode(&mut value);
            tlv::encode(QUERY_OPTION, &value, &mut out);
        }
        out
    }

    /// What a whole message asks for beside the ids. Bits that are unknown mean nothing.
    ///
    /// # Errors
    /// A field or a record that is cut short or malformed.
    pub fn option(message: &[u8]) -> Result<RangeOption, WireError> {
        let mut cursor = Cursor::of_type(message, MessageType::QUERY_CHANNEL_RANGE)?;
        cursor.array::<32>("chain_hash")?;
        cursor.u32("first_blocknum")?;
        cursor.u32("number_of_blocks")?;
        let mut option = RangeOption::default();
        tlv::decode(cursor.rest(), |kind, value| {
            if kind != QUERY_OPTION {
                return Ok(Known::No);
            }
            let (BigSize(flags), []) = BigSize::decode(value)? else {
                let length = value.len();
                return Err(WireError::TlvLength { kind, length });
            };
            option = RangeOption {
                timestamps: flags & 1 != 0,
                checksums: flags & 2 != 0,
            };
            Ok(Known::Yes)
        })?;
        Ok(option)
    }
}

impl ReplyChannelRange {
    /// The whole message with details. It must have as many of a kind as ids, or none, and few enough ids: 2,700 with both fit.
    pub fn encode_with(&self, details: &RangeDetails) -> Vec<u8> {
        let mut out = self.encode();
        let pairs = |pairs: &[[u32; 2]], prefix: &[u8]| {
            let words = pairs.iter().flatten().flat_map(|word| word.to_be_bytes());
            prefix.iter().copied().chain(words).collect::<Vec<u8>>()
        };
        if !details.timestamps.is_empty() {
            tlv::encode(TIMESTAMPS, &pairs(&details.timestamps, &[0]), &mut out);
        }
        if !details.checksums.is_empty() {
            tlv::encode(CHECKSUMS, &pairs(&details.checksums, &[]), &mut out);
        }
        out
    }

    /// What a whole message says beside the ids.
    ///
    /// # Errors
    /// A field or a record that is cut short or malformed, an encoding other than the uncompressed one, or not as many as ids.
    pub fn details(message: &[u8]) -> Result<RangeDetails, WireError> {
        let mut cursor = Cursor::of_type(message, MessageType::REPLY_CHANNEL_RANGE)?;
        cursor.array::<32>("chain_hash")?;
        cursor.u32("first_blocknum")?;
        cursor.u32("number_of_blocks")?;
        cursor.u8("sync_complete")?;
        let ids = cursor.prefixed("encoded_short_ids")?.len() / 8;
        let mut details = RangeDetails::default();
        tlv::decode(cursor.rest(), |kind, value| {
            match kind {
                TIMESTAMPS => {
                    let (encoding, value) = value
                        .split_first()
                        .ok_or(WireError::TlvLength { kind, length: 0 })?;
                    refuse_encoding(*encoding, "reply_channel_range")?;
                    details.timestamps = words(kind, value, ids)?;
                }
                CHECKSUMS => details.checksums = words(kind, value, ids)?,
                _ => return Ok(Known::No),
            }
            Ok(Known::Yes)
        })?;
        Ok(details)
    }
}

/// Two words for each id.
fn words(kind: u64, value: &[u8], ids: usize) -> Result<Vec<[u32; 2]>, WireError> {
    let length = value.len();
    let (pairs, []) = value.as_chunks::<8>() else {
        return Err(WireError::TlvLength { kind, length });
    };
    if pairs.len() != ids {
        return Err(WireError::TlvLength { kind, length });
    }
    let pair = |[a, b, c, d, e, f, g, h]: &[u8; 8]| {
        [
            u32::from_be_bytes([*a, *b, *c, *d]),
            u32::from_be_bytes([*e, *f, *g, *h]),
        ]
    };
    Ok(pairs.iter().map(pair).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::ShortChannelId;

    fn reply(ids: u64) -> ReplyChannelRange {
        ReplyChannelRange {
            chain_hash: [7; 32],
            first_blocknum: 1,
            number_of_blocks: 2,
            sync_complete: true,
            short_channel_ids: (0..ids).map(ShortChannelId::from_u64).collect(),
        }
    }

    #[test]
    fn a_query_says_what_it_asks_for_in_the_bytes_of_bolt_7() {
        let query = QueryChannelRange {
            chain_hash: [7; 32],
            first_blocknum: 0,
            number_of_blocks: u32::MAX,
        };
        for (timestamps, checksums, tail) in [
            (false, false, &[][..]),
            (true, false, &[1, 1, 1]),
            (false, true, &[1, 1, 2]),
            (true, true, &[1, 1, 3]),
        ] {
            let option = RangeOption {
                timestamps,
                checksums,
            };
            let message = query.encode_with(option);
            assert_eq!(message.get(42..).unwrap(), tail);
            assert_eq!(QueryChannelRange::option(&message).unwrap(), option);
            assert_eq!(QueryChannelRange::decode(&message).unwrap(), query);
        }
    }

    #[test]
    fn details_come_back_as_they_were_and_must_fit_the_ids() {
        let details = RangeDetails {
            timestamps: vec![[1, 2], [3, 0]],
            checksums: vec![[5, 6], [7, 0]],
        };
        let message = reply(2).encode_with(&details);
        assert_eq!(ReplyChannelRange::details(&message).unwrap(), details);
        assert_eq!(ReplyChannelRange::decode(&message).unwrap(), reply(2));
        let bare = reply(2).encode();
        assert_eq!(
            ReplyChannelRange::details(&bare).unwrap(),
            RangeDetails::default()
        );
        // One pair for three ids.
        let wrong = reply(3).encode_with(&details);
        assert!(matches!(
            ReplyChannelRange::details(&wrong),
            Err(WireError::TlvLength { .. })
        ));
        for end in reply(2).encode().len() + 1..message.len() {
            let cut = message.get(..end).unwrap();
            let whole_records =
                ReplyChannelRange::details(cut).is_ok_and(|it| it.checksums.is_empty());
            assert!(whole_records || ReplyChannelRange::details(cut).is_err());
        }
    }

    #[test]
    fn compressed_timestamps_are_refused_by_name() {
        let details = RangeDetails {
            timestamps: vec![[1, 2]],
            checksums: Vec::new(),
        };
        let mut message = reply(1).encode_with(&details);
        let at = message.len() - 9;
        *message.get_mut(at).unwrap() = 1;
        let error = ReplyChannelRange::details(&message).unwrap_err();
        assert!(error.to_string().contains("zlib"), "{error}");
    }
}
