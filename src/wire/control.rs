//! `ping`, `pong`, `warning` and `error` (BOLT 1 § Control Messages, § The error and warning Messages).
//!
//! Reads and writes them; never prints a peer's text as it came. Nothing in this crate originates `error` (promise P4): the
//! type exists to read what peers send.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;

use super::cursor::Cursor;
use super::{MAX_MESSAGE, MessageType, WireError};

/// From this `num_pong_bytes` on a ping asks for no answer: such a pong would not fit a message.
pub const NO_PONG_FROM: u16 = 65_532;

/// The most text of a peer that one log line or event carries, in characters: enough for every message that today's
/// implementations send, and far less than the 64 KiB that a hostile peer may.
pub const SHOWN_TEXT: usize = 256;

/// Type, channel id and length: what comes before a warning's or an error's text.
const TEXT_AT: usize = 2 + 32 + 2;

/// A probe for liveness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// How many bytes the answer must hold; none is due from [`NO_PONG_FROM`] on.
    pub num_pong_bytes: u16,
    /// How many bytes of padding this message carries. What they are is of no interest: they are sent as zeros.
    pub ignored: u16,
}

impl Ping {
    /// Reads a whole message.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when a field or the padding is not all there.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::of_type(message, MessageType::PING)?;
        let num_pong_bytes = cursor.u16("num_pong_bytes")?;
        let ignored = skip_padding(&mut cursor)?;
        Ok(Self {
            num_pong_bytes,
            ignored,
        })
    }

    /// The whole message. Padding that would not fit a message is cut to what does.
    pub fn encode(&self) -> Vec<u8> {
        let most = u16::MAX - 6;
        let ignored = self.ignored.min(most);
        let mut out = MessageType::PING.begin(usize::from(ignored).saturating_add(4));
        out.extend_from_slice(&self.num_pong_bytes.to_be_bytes());
        push_padding(ignored, &mut out);
        out
    }

    /// The answer that is due: exactly `num_pong_bytes` zeros, or nothing from [`NO_PONG_FROM`] on.
    pub fn answer(&self) -> Option<Pong> {
        (self.num_pong_bytes < NO_PONG_FROM).then_some(Pong {
            ignored: self.num_pong_bytes,
        })
    }
}

/// The answer to a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// How many bytes of padding it carries; its sender was told how many. They are sent as zeros.
    pub ignored: u16,
}

impl Pong {
    /// Reads a whole message.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when the length or the padding is not all there.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::of_type(message, MessageType::PONG)?;
        let ignored = skip_padding(&mut cursor)?;
        Ok(Self { ignored })
    }

    /// The whole message: `ignored + 4` bytes. Padding that would not fit a message is cut to what does.
    pub fn encode(&self) -> Vec<u8> {
        let ignored = self.ignored.min(NO_PONG_FROM - 1);
        let mut out = MessageType::PONG.begin(usize::from(ignored).saturating_add(2));
        push_padding(ignored, &mut out);
        out
    }
}

fn skip_padding(cursor: &mut Cursor<'_>) -> Result<u16, WireError> {
    let length = cursor.u16("byteslen")?;
    cursor.bytes(usize::from(length), "ignored")?;
    Ok(length)
}

fn push_padding(length: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&length.to_be_bytes());
    out.resize(out.len().saturating_add(usize::from(length)), 0);
}

/// A diagnosis that fails nothing: the only refusal that this crate sends (promise P4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The channel, or all zeros when it is about none in particular.
    pub channel_id: [u8; 32],
    /// What the sender says, as it came.
    pub data: Vec<u8>,
}

impl Warning {
    /// A warning about no channel in particular. Text over the message's limit is cut when it is sent.
    pub fn new(text: &str) -> Self {
        Self {
            channel_id: [0; 32],
            data: text.as_bytes().to_vec(),
        }
    }

    /// Reads a whole message; a length beyond the end is cut to what is there.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when the channel id or the length is not all there.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let (channel_id, data) = decode_text(message, MessageType::WARNING)?;
        Ok(Self { channel_id, data })
    }

    /// The whole message.
    pub fn encode(&self) -> Vec<u8> {
        encode_text(MessageType::WARNING, &self.channel_id, &self.data)
    }

    /// Whether it names no channel in particular.
    pub fn is_all_zero(&self) -> bool {
        self.channel_id == [0; 32]
    }

    /// The text, fit for a log: see [`printable`].
    pub fn text(&self) -> String {
        printable(&self.data, SHOWN_TEXT)
    }
}

/// A peer's statement that a channel, or with an all-zero id every channel, has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorMessage {
    /// The channel, or all zeros for every channel with the sender.
    pub channel_id: [u8; 32],
    /// What the sender says, as it came.
    pub data: Vec<u8>,
}

impl ErrorMessage {
    /// Reads a whole message; a length beyond the end is cut to what is there.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when the channel id or the length is not all there.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let (channel_id, data) = decode_text(message, MessageType::ERROR)?;
        Ok(Self { channel_id, data })
    }

    /// The whole message, for the embedder, who alone may send one.
    pub fn encode(&self) -> Vec<u8> {
        encode_text(MessageType::ERROR, &self.channel_id, &self.data)
    }

    /// Whether it is about every channel with the sender.
    pub fn is_all_zero(&self) -> bool {
        self.channel_id == [0; 32]
    }

    /// The text, fit for a log: see [`printable`].
    pub fn text(&self) -> String {
        printable(&self.data, SHOWN_TEXT)
    }
}

/// Errors and warnings end what they speak of, so they are read as leniently as BOLT 1 long asked ("truncate `len` to the
/// remainder of the packet"): a bad length must not hide which channel has failed.
fn decode_text(message: &[u8], expected: MessageType) -> Result<([u8; 32], Vec<u8>), WireError> {
    let mut cursor = Cursor::of_type(message, expected)?;
    let channel_id = cursor.array::<32>("channel_id")?;
    let length = usize::from(cursor.u16("len")?).min(cursor.remaining());
    Ok((channel_id, cursor.bytes(length, "data")?.to_vec()))
}

fn encode_text(kind: MessageType, channel_id: &[u8; 32], data: &[u8]) -> Vec<u8> {
    let data = data.get(..MAX_MESSAGE - TEXT_AT).unwrap_or(data);
    let mut out = kind.begin(data.len().saturating_add(34));
    out.extend_from_slice(channel_id);
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// A peer's bytes as text for a log: printable ASCII as it is, everything else and the backslash escaped as `\xNN`, at most
/// `limit` characters, then the number of bytes that were left out (BOLT 1: SHOULD NOT print out `data` verbatim).
pub fn printable(data: &[u8], limit: usize) -> String {
    let mut text = String::new();
    for (at, byte) in data.iter().enumerate() {
        let plain = matches!(byte, 0x20..=0x7e) && *byte != b'\\';
        let width = if plain { 1 } else { 4 };
        if text.len().saturating_add(width) > limit {
            let left = data.len().saturating_sub(at);
            // Writing to a `String` cannot fail.
            let _ = write!(text, "... ({left} bytes more)");
            break;
        }
        if plain {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
