//! What can be wrong with a message's bytes, whose fault that is, and which rule says so.
//!
//! Holds no peer data but numbers, so that an error can be logged as it is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::types::MessageType;
use crate::error::{Culprit, Retry};

/// Why bytes are not the message they claim to be, or why a message cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer than the two bytes of a type.
    #[error("a message of {length} bytes has no type")]
    NoType {
        /// Bytes that were there, 0 or 1.
        length: usize,
    },
    /// The bytes end inside a field.
    #[error("{message} ends inside its {field}")]
    Truncated {
        /// The message or structure being read.
        message: &'static str,
        /// The field that was cut.
        field: &'static str,
    },
    /// A decoder was given another message than its own.
    #[error("expected {expected}, got {got}")]
    WrongType {
        /// What the decoder reads.
        expected: MessageType,
        /// What the bytes say.
        got: MessageType,
    },
    /// A `BigSize` that fits in fewer bytes.
    #[error("bigsize {value} is not minimally encoded")]
    NotMinimal {
        /// The value that was read.
        value: u64,
    },
    /// TLV types must increase strictly; a repeat is out of order too.
    #[error("TLV type {next} follows {previous}: types must increase strictly")]
    TlvOutOfOrder {
        /// The record before.
        previous: u64,
        /// The offending record.
        next: u64,
    },
    /// An even TLV type that the reader does not know.
    #[error("unknown even TLV type {kind}")]
    TlvUnknownEven {
        /// The record's type.
        kind: u64,
    },
    /// A TLV length that points past the end of the message.
    #[error("TLV type {kind} claims {length} bytes, {remaining} remain")]
    TlvTruncated {
        /// The record's type.
        kind: u64,
        /// The length that it claims, in bytes.
        length: u64,
        /// The bytes that remain.
        remaining: usize,
    },
    /// A known TLV type whose length is not one that its encoding can have.
    #[error("TLV type {kind} cannot have {length} bytes")]
    TlvLength {
        /// The record's type.
        kind: u64,
        /// Its length, in bytes.
        length: usize,
    },
    /// A field that is well formed and holds a value its rule forbids.
    #[error("{message}: {what}")]
    Invalid {
        /// The message or structure being read.
        message: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Something we build would not fit.
    #[error("{what} of {length} is over the limit of {limit}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length, in bytes or in the field's own unit.
        length: usize,
        /// The most that fits.
        limit: usize,
    },
    /// Something we were asked to build that no receiver may accept.
    #[error("{what}")]
    Unsendable {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Both ends of a channel announcement are the same node.
    #[error("both ends of the channel have one node id")]
    SameNode,
}

impl WireError {
    /// Whose fault: the peer's when bytes were read, ours when a message was being built.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::TooLong { .. }
            | Self::Unsendable { .. }
            | Self::SameNode
            | Self::WrongType { .. } => Culprit::Us,
            Self::NoType { .. }
            | Self::Truncated { .. }
            | Self::NotMinimal { .. }
            | Self::TlvOutOfOrder { .. }
            | Self::TlvUnknownEven { .. }
            | Self::TlvTruncated { .. }
            | Self::TlvLength { .. }
            | Self::Invalid { .. } => Culprit::Peer,
        }
    }

    /// The section of the BOLTs that was broken.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NoType { .. }
            | Self::Truncated { .. }
            | Self::WrongType { .. }
            | Self::TooLong { .. } => "BOLT 1 § Lightning Message Format",
            Self::NotMinimal { .. } => "BOLT 1 § Appendix A: BigSize",
            Self::TlvOutOfOrder { .. }
            | Self::TlvUnknownEven { .. }
            | Self::TlvTruncated { .. }
            | Self::TlvLength { .. } => "BOLT 1 § Type-Length-Value Format",
            Self::Invalid { .. } => "BOLT 7 § Query Messages",
            Self::Unsendable { .. } => "BOLT 7 § The node_announcement Message",
            Self::SameNode => "BOLT 7 § The channel_announcement Message",
        }
    }

    /// The same bytes always fail again.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}
