//! TLV streams (BOLT 1 § Type-Length-Value Format).
//!
//! The reader enforces what holds in every namespace: minimal types and lengths, strictly increasing types, values that are
//! there, no unknown even type. What a known type's value must look like is the caller's to check.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{BigSize, WireError};

/// Whether a reader knows a record's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The record was read.
    Yes,
    /// The type means nothing to the reader: skipped when odd, refused when even.
    No,
}

/// Walks a stream to the end of `bytes` and shows every record to `read`, in order.
///
/// # Errors
/// The first broken rule, or whatever `read` returns. Records before it have been shown: keep nothing of a stream that fails.
pub fn decode<'a>(
    mut bytes: &'a [u8],
    mut read: impl FnMut(u64, &'a [u8]) -> Result<Known, WireError>,
) -> Result<(), WireError> {
    let mut previous: Option<u64> = None;
    while !bytes.is_empty() {
        let (BigSize(kind), rest) = BigSize::decode(bytes)?;
        if let Some(previous) = previous
            && kind <= previous
        {
            return Err(WireError::TlvOutOfOrder {
                previous,
                next: kind,
            });
        }
        previous = Some(kind);
        let (BigSize(length), rest) = BigSize::decode(rest)?;
        let (value, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or(WireError::TlvTruncated {
                kind,
                length,
                remaining: rest.len(),
            })?;
        if read(kind, value)? == Known::No && kind % 2 == 0 {
            return Err(WireError::TlvUnknownEven { kind });
        }
        bytes = rest;
    }
    Ok(())
}

/// Appends one record. The caller writes records in increasing order of type.
pub fn encode(kind: u64, value: &[u8], out: &mut Vec<u8>) {
    BigSize(kind).encode(out);
    // A `usize` has at most 64 bits on every target that Rust supports.
    BigSize(u64::try_from(value.len()).unwrap_or(u64::MAX)).encode(out);
    out.extend_from_slice(value);
}
