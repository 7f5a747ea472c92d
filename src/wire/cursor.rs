//! Reads big-endian fields from the front of a slice, checking every length.
//!
//! Never indexes, never copies a body, never allocates.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::WireError;
use super::types::MessageType;

/// What is left of a message, and the message's name for errors.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes`; `message` is named in every error.
    pub(super) fn new(bytes: &'a [u8], message: &'static str) -> Self {
        Self {
            rest: bytes,
            message,
        }
    }

    /// Checks that a whole message is of type `expected` and stands after the type.
    pub(super) fn of_type(message: &'a [u8], expected: MessageType) -> Result<Self, WireError> {
        let got = MessageType::of(message)?;
        if got != expected {
            return Err(WireError::WrongType { expected, got });
        }
        let mut cursor = Self::new(message, expected.label());
        cursor.bytes(2, "type")?;
        Ok(cursor)
    }

    /// Takes the next `count` bytes.
    pub(super) fn bytes(
        &mut self,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(WireError::Truncated {
                message: self.message,
                field,
            })?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes a field of fixed size.
    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], WireError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireError::Truncated {
                message: self.message,
                field,
            })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.array::<1>(field).map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// Takes a `u16` length and that many bytes.
    pub(super) fn prefixed(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let length = usize::from(self.u16(field)?);
        self.bytes(length, field)
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }
}
