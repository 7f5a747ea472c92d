//! `init`: the first message each way (BOLT 1 § The init Message).
//!
//! Reads and writes it; whether the features will do is the link's decision.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::cursor::Cursor;
use super::tlv::{self, Known};
use super::{ChainHash, Features, MessageType, WireError};

const NETWORKS: u64 = 1;
const REMOTE_ADDR: u64 = 3;

/// What one side says of itself before anything else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Init {
    /// The OR of `globalfeatures` and `features`.
    pub features: Features,
    /// The chains of interest; empty when the peer did not say. A record with no chain in it reads as no record.
    pub networks: Vec<ChainHash>,
    /// The address descriptor (BOLT 7) under which the sender sees us, unparsed: it is hearsay.
    pub remote_addr: Option<Vec<u8>>,
}

impl Init {
    /// What Pilotlight sends on a gossip link and on a persona's: [`Features::gossip`] and the chains.
    pub fn gossip(networks: Vec<ChainHash>) -> Self {
        Self::with_features(Features::gossip(), networks)
    }

    /// What the node sends under its own identity, with the features that the embedder supports.
    pub fn with_features(features: Features, networks: Vec<ChainHash>) -> Self {
        Self {
            features,
            networks,
            remote_addr: None,
        }
    }

    /// Whether there may be a chain in common: one is, or one side did not say.
    pub fn may_share_a_chain(&self, ours: &[ChainHash]) -> bool {
        self.networks.is_empty()
            || ours.is_empty()
            || self.networks.iter().any(|chain| ours.contains(chain))
    }

    /// Reads a whole message.
    ///
    /// # Errors
    /// A field that is cut short, or an extension that breaks BOLT 1's rules for TLV streams.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::of_type(message, MessageType::INIT)?;
        let mut features = Features::from_wire(cursor.prefixed("globalfeatures")?)?;
        features.merge(&Features::from_wire(cursor.prefixed("features")?)?);
        let mut networks = Vec::new();
        let mut remote_addr = None;
        tlv::decode(cursor.rest(), |kind, value| match kind {
            NETWORKS => {
                let (chains, []) = value.as_chunks::<32>() else {
                    return Err(WireError::TlvLength {
                        kind,
                        length: value.len(),
                    });
                };
                networks = chains.to_vec();
                Ok(Known::Yes)
            }
            REMOTE_ADDR => {
                remote_addr = Some(value.to_vec());
                Ok(Known::Yes)
            }
            _ => Ok(Known::No),
        })?;
        Ok(Self {
            features,
            networks,
            remote_addr,
        })
    }

    /// The whole message. `globalfeatures` is left empty: it is there for readers older than BOLT 9's merged bits.
    ///
    /// A list of networks that would not fit the message (over 2,000 chains) makes a message that the transport refuses.
    pub fn encode(&self) -> Vec<u8> {
        let features = self.features.to_wire();
        let mut out = MessageType::INIT.begin(features.len().saturating_add(48));
        out.extend_from_slice(&[0, 0]);
        // `Features` is bounded by what this length can say.
        let length = u16::try_from(features.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&features);
        if !self.networks.is_empty() {
            tlv::encode(NETWORKS, self.networks.as_flattened(), &mut out);
        }
        if let Some(addr) = &self.remote_addr {
            tlv::encode(REMOTE_ADDR, addr, &mut out);
        }
        out
    }
}
