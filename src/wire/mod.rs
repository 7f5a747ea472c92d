//! BOLT 1, 2, 4 and 7 vocabulary: what a message is called, what it needs, and exact codecs for the few that a link itself reads.
//!
//! | file | what it knows |
//! |---|---|
//! | `types.rs` | every message type of the BOLTs: name, plane, need of the signer |
//! | `bigsize.rs`, `tlv.rs` | BOLT 1's variable integer and record stream |
//! | `features.rs`, `init.rs` | feature bits and the `init` message |
//! | `control.rs` | `ping`, `pong`, `warning`, `error` |
//! | `queries.rs` | gossip queries, their empty answers, and the timestamp filter |
//! | `gossip.rs` | building signed announcements; reading their headers |
//!
//! `decode` takes a whole message with its two-byte type and `encode` gives one. Every length is checked against the bytes that
//! are there; no input panics. A known message that is too short is an error (BOLT 1: the connection MUST be closed); an
//! extension after the fields is ignored (BOLT 1: MAY), except in `init`, whose records are part of the message.
//!
//! This layer never reads a clock, opens a socket, draws randomness or decides what may pass: that is `link::firewall`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod bigsize;
pub mod control;
mod cursor;
mod error;
pub mod features;
pub mod gossip;
pub mod init;
pub mod queries;
pub mod range_details;
pub mod tlv;
pub mod types;

pub use bigsize::BigSize;
pub use control::{ErrorMessage, Ping, Pong, Warning};
pub use error::WireError;
pub use features::Features;
pub use gossip::ShortChannelId;
pub use init::Init;
pub use queries::{
    GossipTimestampFilter, QueryChannelRange, QueryShortChannelIds, ReplyChannelRange,
    ReplyShortChannelIdsEnd,
};
pub use types::{MessageType, Plane};

/// The longest message, type included, in bytes (BOLT 1 § Lightning Message Format: the transport's length field has 16 bits).
pub const MAX_MESSAGE: usize = 65_535;

/// Identifies a chain: the hash of its genesis block, in the byte order of the wire.
pub type ChainHash = [u8; 32];

/// The genesis hash of bitcoin's main chain (BOLT 0 § Glossary: `chain_hash`), as it is sent.
pub const BITCOIN_MAINNET: ChainHash = [
    0x6f, 0xe2, 0x8c, 0x0a, 0xb6, 0xf1, 0xb3, 0x72, 0xc1, 0xa6, 0xa2, 0x46, 0xae, 0x63, 0xf7, 0x4f,
    0x93, 0x1e, 0x83, 0x65, 0xe1, 0x5a, 0x08, 0x9c, 0x68, 0xd6, 0x19, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// The genesis hash of bitcoin's regression-test chain, as it is sent.
pub const BITCOIN_REGTEST: ChainHash = [
    0x06, 0x22, 0x6e, 0x46, 0x11, 0x1a, 0x0b, 0x59, 0xca, 0xaf, 0x12, 0x60, 0x43, 0xeb, 0x5b, 0xbf,
    0x28, 0xc3, 0x4f, 0x3a, 0x5e, 0x33, 0x2a, 0x1f, 0xc7, 0xb2, 0xb7, 0x3c, 0xf1, 0x88, 0x91, 0x0f,
];

#[cfg(test)]
mod properties;
#[cfg(test)]
mod vectors;
