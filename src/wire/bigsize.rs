//! `BigSize`: BOLT 1's variable-length unsigned integer (BOLT 1 § Appendix A).
//!
//! Reads only the minimal encoding of a value; a longer one is an error, never repaired.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::WireError;
use super::cursor::Cursor;

/// An unsigned integer that takes 1, 3, 5 or 9 bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BigSize(pub u64);

impl BigSize {
    /// Reads one from the front; returns it and what follows.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when the bytes end inside it, [`WireError::NotMinimal`] when fewer bytes would do.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let mut cursor = Cursor::new(bytes, "bigsize");
        let (value, least) = match cursor.u8("first byte")? {
            0xfd => (u64::from(cursor.u16("two bytes")?), 0xfd),
            0xfe => (u64::from(cursor.u32("four bytes")?), 0x1_0000),
            0xff => (cursor.u64("eight bytes")?, 0x1_0000_0000),
            small => (u64::from(small), 0),
        };
        if value < least {
            return Err(WireError::NotMinimal { value });
        }
        Ok((Self(value), cursor.rest()))
    }

    /// Appends the minimal encoding.
    pub fn encode(self, out: &mut Vec<u8>) {
        if let Ok(small) = u8::try_from(self.0)
            && small < 0xfd
        {
            out.push(small);
        } else if let Ok(short) = u16::try_from(self.0) {
            out.push(0xfd);
            out.extend_from_slice(&short.to_be_bytes());
        } else if let Ok(word) = u32::try_from(self.0) {
            out.push(0xfe);
            out.extend_from_slice(&word.to_be_bytes());
        } else {
            out.push(0xff);
            out.extend_from_slice(&self.0.to_be_bytes());
        }
    }
}
