//! What a hostile peer does to an act that is otherwise honest. Honest keys and tags come first, so that inputs get past the tag;
//! what the act must then lead to is for the restatement of BOLT 8 to say.

use super::bolt8;
use super::feed::Feed;

/// One twist of one act.
#[derive(Debug, Clone)]
pub enum Twist {
    Honest,
    Version(u8),
    /// Another ephemeral or encrypted key of these bytes.
    Key(Vec<u8>),
    Flip(u16, u8),
    Length(u8),
    /// These bytes and nothing of ours.
    Raw(Vec<u8>),
    /// A key of the curve that is none of the sender's, in place of its ephemeral.
    Foreign(u8),
}

impl Twist {
    pub fn read(feed: &mut Feed<'_>) -> Self {
        match feed.below(7) {
            1 => Self::Version(feed.u8()),
            2 => Self::Key(feed.bytes().to_vec()),
            3 => Self::Flip(feed.u16(), feed.u8()),
            4 => Self::Length(feed.u8()),
            5 => Self::Raw(feed.bytes().to_vec()),
            6 => Self::Foreign(feed.u8()),
            _ => Self::Honest,
        }
    }

    /// The act as it goes out.
    pub fn apply(&self, honest: &[u8]) -> Vec<u8> {
        let mut act = honest.to_vec();
        match self {
            Self::Honest => {}
            Self::Version(version) => act[0] = *version,
            Self::Key(bytes) => overwrite(&mut act[1..34], bytes),
            Self::Flip(offset, bit) => {
                let at = usize::from(*offset) % act.len();
                act[at] ^= 1 << (bit % 8);
            }
            Self::Length(length) => act.resize(usize::from(*length), 0),
            Self::Raw(bytes) => act.clone_from(bytes),
            Self::Foreign(byte) => {
                let key = bolt8::public(&bolt8::secret(*byte)).serialize();
                act[1..34].copy_from_slice(&key);
            }
        }
        act
    }

    /// The same, with the act's own length: what a stream of bytes cannot help but have.
    pub fn apply_within(&self, honest: &[u8]) -> Vec<u8> {
        let mut act = self.apply(honest);
        act.resize(honest.len(), 0);
        act
    }
}

pub fn overwrite(place: &mut [u8], bytes: &[u8]) {
    for (to, from) in place.iter_mut().zip(bytes) {
        *to = *from;
    }
}
