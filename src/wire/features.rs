//! Feature bits (BOLT 9): bit 0 is the lowest bit of the last byte on the wire.
//!
//! Knows which bits are assigned and which ones a gossip link offers; never decides whether a link lives.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use super::WireError;

/// What a link offers that carries gossip only, and every persona: all odd, so nothing is demanded. LDK closes a link whose
/// `init` lacks one of them (`limits.md` § LDK as a test peer).
///
/// `option_data_loss_protect`, `gossip_queries`, `var_onion_optin`, `option_static_remotekey`, `payment_secret`, `option_channel_type`.
pub const GOSSIP_BITS: [u16; 6] = [1, 7, 9, 13, 15, 45];

/// What a persona never offers: dual funding, quiescence, onion messages, peer storage, splicing. Each invites traffic that needs the node's key.
pub const NEVER_ON_A_PERSONA: [u16; 5] = [29, 35, 39, 43, 63];

/// The odd bits of BOLT 9's assigned features, and of those that are in wide use before they are merged. A peer that *demands*
/// one of them demands something of channels or payments that this crate knows to be harmless to gossip.
pub const ASSIGNED_BITS: [u16; 25] = [
    1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 35, 37, 39, 43, 45, 47, 49, 51, 61, 63,
];

/// The longest feature field, in bytes: its length on the wire is a `u16`.
pub const MAX_BYTES: usize = 65_535;

/// A set of feature bits. Two sets are equal when they hold the same bits, however they were padded.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Features {
    /// Lowest bits first, and no zero byte at the end: equality is the derived one.
    little_endian: Vec<u8>,
}

impl Features {
    /// No bits.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Exactly these bits.
    pub fn from_bits(bits: impl IntoIterator<Item = u16>) -> Self {
        let mut features = Self::empty();
        for bit in bits {
            features.set(bit);
        }
        features
    }

    /// What Pilotlight offers on a gossip link and on a persona's: [`GOSSIP_BITS`].
    pub fn gossip() -> Self {
        Self::from_bits(GOSSIP_BITS)
    }

    /// Everything in [`ASSIGNED_BITS`]: the known set for a link that never opens a channel.
    pub fn assigned() -> Self {
        Self::from_bits(ASSIGNED_BITS)
    }

    /// Reads a field as it is on the wire; leading zero bytes mean nothing.
    ///
    /// # Errors
    /// [`WireError::TooLong`] over [`MAX_BYTES`].
    pub fn from_wire(big_endian: &[u8]) -> Result<Self, WireError> {
        if big_endian.len() > MAX_BYTES {
            return Err(WireError::TooLong {
                what: "feature field",
                length: big_endian.len(),
                limit: MAX_BYTES,
            });
        }
        let mut features = Self {
            little_endian: big_endian.iter().rev().copied().collect(),
        };
        features.trim();
        Ok(features)
    }

    /// The field as it is sent: as few bytes as the highest bit needs (BOLT 1: SHOULD use the minimum length).
    pub fn to_wire(&self) -> Vec<u8> {
        self.little_endian.iter().rev().copied().collect()
    }

    /// Adds a bit.
    pub fn set(&mut self, bit: u16) {
        let at = usize::from(bit / 8);
        if self.little_endian.len() <= at {
            self.little_endian.resize(at.saturating_add(1), 0);
        }
        if let Some(byte) = self.little_endian.get_mut(at) {
            *byte |= 1 << (bit % 8);
        }
    }

    /// Removes a bit.
    pub fn clear(&mut self, bit: u16) {
        if let Some(byte) = self.little_endian.get_mut(usize::from(bit / 8)) {
            *byte &= !(1 << (bit % 8));
        }
        self.trim();
    }

    /// Whether exactly this bit is set.
    pub fn has(&self, bit: u16) -> bool {
        self.little_endian
            .get(usize::from(bit / 8))
            .is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    }

    /// Whether the feature is offered: either bit of the pair that `bit` belongs to (BOLT 1: *offered*).
    pub fn offers(&self, bit: u16) -> bool {
        self.has(bit) || self.has(bit ^ 1)
    }

    /// Whether no bit is set.
    pub fn is_empty(&self) -> bool {
        self.little_endian.is_empty()
    }

    /// Adds every bit of `other` (BOLT 1: the two bitmaps of `init` are combined by logical OR).
    pub fn merge(&mut self, other: &Self) {
        if self.little_endian.len() < other.little_endian.len() {
            self.little_endian.resize(other.little_endian.len(), 0);
        }
        for (mine, theirs) in self.little_endian.iter_mut().zip(&other.little_endian) {
            *mine |= theirs;
        }
    }

    /// Whether every bit is also in `other`.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.little_endian.iter().enumerate().all(|(at, byte)| {
            let allowed = other.little_endian.get(at).copied().unwrap_or(0);
            byte & !allowed == 0
        })
    }

    /// The lowest even bit that `known` does not know, in either form: BOLT 1 closes the connection for it.
    pub fn requires_unknown(&self, known: &Self) -> Option<u32> {
        self.bits()
            .filter(|bit| bit % 2 == 0)
            .find(|bit| !u16::try_from(*bit).is_ok_and(|bit| known.offers(bit)))
    }

    /// Every bit, lowest first. A hostile peer may set bits up to 524,279.
    pub fn bits(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..)
            .step_by(8)
            .zip(&self.little_endian)
            .flat_map(|(first, byte)| {
                (0..8)
                    .filter(move |bit| byte & (1 << bit) != 0)
                    .map(move |bit| first.saturating_add(bit))
            })
    }

    fn trim(&mut self) {
        let used = self
            .little_endian
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last.saturating_add(1));
        self.little_endian.truncate(used);
    }
}

/// How many bits `Debug` shows: a peer chooses how many there are.
const SHOWN: usize = 64;

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        list.entries(self.bits().take(SHOWN));
        if self.bits().nth(SHOWN).is_some() {
            list.finish_non_exhaustive()
        } else {
            list.finish()
        }
    }
}
