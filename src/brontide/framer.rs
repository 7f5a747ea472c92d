//! Bytes to messages and back, in place, bounded (BOLT 8 § Lightning Message Specification).
//!
//! A frame is an encrypted 2-byte big-endian length with its tag (18 bytes), then the encrypted message with its tag. The
//! length is decrypted as soon as its 18 bytes are there and remembered until the body is whole. A body is never copied on its way in:
//! what is handed out is a slice of the buffer that it arrived in. On its way out it is copied once, into the caller's buffer.
//!
//! This file never holds a key and never remembers a failure: see `session.rs`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::{Buf, BytesMut};

use super::{
    aead::{Refused, TAG_LEN},
    cipher::Direction,
    session::SessionError,
};

/// Longest message in bytes: "The *maximum* size of *any* Lightning message MUST NOT exceed `65535` bytes" (BOLT 8).
pub const MAX_MESSAGE_LEN: usize = 65_535;
/// The encrypted length and its tag, in bytes.
pub const HEADER_LEN: usize = LENGTH_LEN + TAG_LEN;
/// What a frame adds to its message, in bytes.
pub const FRAME_OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Longest frame in bytes: "a total maximum packet length of … `65569` bytes" (BOLT 8).
pub const MAX_FRAME_LEN: usize = MAX_MESSAGE_LEN + FRAME_OVERHEAD;

const LENGTH_LEN: usize = size_of::<u16>();

/// Where the reader is within the stream.
#[derive(Default)]
pub(super) struct Framer {
    /// The length of the body that is awaited; `None` while a header is.
    body: Option<u16>,
}

impl Framer {
    /// How many bytes the next header or body takes, tag included.
    fn wanted(&self) -> usize {
        self.body
            .map_or(HEADER_LEN, |length| usize::from(length) + TAG_LEN)
    }

    /// How many more bytes make the next header or body whole.
    pub(super) fn needed(&self, have: usize) -> usize {
        self.wanted().saturating_sub(have)
    }

    /// Appends the frame of `message` to `out`. After a failure `out` is as it was.
    pub(super) fn seal(
        direction: &mut Direction,
        message: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), SessionError> {
        let length = u16::try_from(message.len()).map_err(|_| SessionError::TooLong {
            length: message.len(),
        })?;
        let before = out.len();
        out.reserve(FRAME_OVERHEAD + message.len());
        let sealed = seal_part(direction, &length.to_be_bytes(), out)
            .and_then(|()| seal_part(direction, message, out));
        sealed.map_err(|Refused| {
            out.truncate(before);
            SessionError::Cipher
        })
    }

    /// Removes the next whole frame from the front of `input` and returns its message; `None` while bytes are missing.
    pub(super) fn open(
        &mut self,
        direction: &mut Direction,
        input: &mut BytesMut,
    ) -> Result<Option<BytesMut>, SessionError> {
        let length = match self.body {
            Some(length) => length,
            None => match open_header(direction, input)? {
                Some(length) => *self.body.insert(length),
                None => return Ok(None),
            },
        };
        let whole = self.wanted();
        if input.len() < whole {
            return Ok(None);
        }
        let mut frame = input.split_to(whole);
        let (body, tag) = frame
            .split_at_mut_checked(usize::from(length))
            .ok_or(SessionError::Cipher)?;
        direction
            .open(body, tag)
            .map_err(|Refused| SessionError::BodyTag)?;
        frame.truncate(usize::from(length));
        self.body = None;
        Ok(Some(frame))
    }
}

fn seal_part(direction: &mut Direction, plain: &[u8], out: &mut BytesMut) -> Result<(), Refused> {
    let start = out.len();
    out.extend_from_slice(plain);
    let tag = direction.seal(out.get_mut(start..).ok_or(Refused)?)?;
    out.extend_from_slice(&tag);
    Ok(())
}

fn open_header(
    direction: &mut Direction,
    input: &mut BytesMut,
) -> Result<Option<u16>, SessionError> {
    let Some(header) = input.first_chunk_mut::<HEADER_LEN>() else {
        return Ok(None);
    };
    let Some((length, tag)) = header.split_first_chunk_mut::<LENGTH_LEN>() else {
        return Ok(None);
    };
    direction
        .open(length, tag)
        .map_err(|Refused| SessionError::HeaderTag)?;
    let length = u16::from_be_bytes(*length);
    input.advance(HEADER_LEN);
    Ok(Some(length))
}
