//! One direction of a session: a key, its nonce, its own chaining key, and the rotation at 1000.
//!
//! Both secrets live in one 64-byte box, chaining key first, so that a rotation overwrites them where they are: the old key is
//! gone the moment the new one exists. The two directions share nothing. Two published stacks kept one chaining key for both,
//! pass every published vector (which rotate one direction only) and break once both have rotated.
//!
//! This file never frames, never reads a length and never decides what a failure means.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroize;

use super::aead::{self, KEY_LEN, Refused, TAG_LEN};
use crate::secret::{Secret, Secret32};

/// BOLT 8 § Lightning Message Key Rotation: a key is replaced when its nonce has reached 1000. A message uses two nonces.
pub(super) const NONCES_PER_KEY: u64 = 1000;

/// The first half of HKDF (RFC 5869), after which salt and input key material are no longer needed.
///
/// BOLT 8 § Handshake State: "evaluated with a zero-length `info` field … implicitly return 64 bytes".
pub(super) struct Extracted(Hkdf<Sha256>);

impl Extracted {
    pub(super) fn new(salt: &[u8], ikm: &[u8]) -> Self {
        let (mut prk, hkdf) = Hkdf::extract(Some(salt), ikm);
        prk.as_mut_slice().zeroize();
        Self(hkdf)
    }

    pub(super) fn expand_into(self, out: &mut [u8; 2 * KEY_LEN]) -> Result<(), Refused> {
        self.0.expand(&[], out).map_err(|_| Refused)
    }
}

/// Sends or receives, never both.
pub(super) struct Direction {
    /// `ck || k`.
    secrets: Secret<{ 2 * KEY_LEN }>,
    /// Nonces used so far, under all keys: the nonce and the number of messages follow from it.
    uses: u64,
    /// The key made ready for use, from the first use after a rest or a rotation. Not in a box: a link that sends a message now and then
    /// would allocate for each.
    ready: Option<aead::Key>,
}

impl Direction {
    pub(super) fn new(chaining_key: &Secret32, key: &Secret32) -> Self {
        let secrets = Secret::build(|both| {
            let (ck, k) = both.split_at_mut(KEY_LEN);
            ck.copy_from_slice(chaining_key.expose());
            k.copy_from_slice(key.expose());
        });
        Self {
            secrets,
            uses: 0,
            ready: None,
        }
    }

    /// Encrypts in place with the next nonce; a zero-length slice is passed as the associated data (BOLT 8).
    pub(super) fn seal(&mut self, data: &mut [u8]) -> Result<[u8; TAG_LEN], Refused> {
        let nonce = self.nonce();
        let tag = self.key()?.seal(nonce, &[], data)?;
        self.advance()?;
        Ok(tag)
    }

    /// Decrypts in place with the next nonce. After a failure the caller must let this direction go.
    pub(super) fn open(&mut self, data: &mut [u8], tag: &[u8]) -> Result<(), Refused> {
        let nonce = self.nonce();
        self.key()?.open(nonce, &[], data, tag)?;
        self.advance()
    }

    /// Nonces used so far, under all keys.
    pub(super) fn uses(&self) -> u64 {
        self.uses
    }

    /// Gives back what a ready key costs (about 600 bytes); the next use makes it anew.
    pub(super) fn rest(&mut self) {
        self.ready = None;
    }

    fn nonce(&self) -> u64 {
        self.uses % NONCES_PER_KEY
    }

    fn key(&mut self) -> Result<&aead::Key, Refused> {
        match &mut self.ready {
            Some(key) => Ok(key),
            empty => {
                let (_, key) = split(self.secrets.expose()).ok_or(Refused)?;
                Ok(empty.insert(aead::Key::new(key)?))
            }
        }
    }

    fn advance(&mut self) -> Result<(), Refused> {
        self.uses = self.uses.checked_add(1).ok_or(Refused)?;
        if self.nonce() == 0 {
            self.rotate()?;
        }
        Ok(())
    }

    /// BOLT 8 § Lightning Message Key Rotation: "`ck', k' = HKDF(ck, k)`. Reset the nonce for the key to `n = 0`".
    fn rotate(&mut self) -> Result<(), Refused> {
        let (ck, k) = split(self.secrets.expose()).ok_or(Refused)?;
        let extracted = Extracted::new(ck, k);
        self.ready = None;
        extracted.expand_into(self.secrets.expose_mut())
    }

    #[cfg(test)]
    pub(super) fn chaining_key_and_key(&self) -> (&[u8], &[u8]) {
        self.secrets.expose().split_at(KEY_LEN)
    }

    #[cfg(test)]
    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }
}

/// The two halves of a pair that HKDF makes. Never `None`: the lengths say so.
pub(super) fn split(pair: &[u8; 2 * KEY_LEN]) -> Option<(&[u8; KEY_LEN], &[u8; KEY_LEN])> {
    let (first, rest) = pair.split_first_chunk()?;
    Some((first, rest.first_chunk()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::{
        super::tests::{hex, secret, vectors},
        *,
    };

    fn direction() -> Direction {
        Direction::new(&secret(vectors::CK), &secret(vectors::SK))
    }

    fn use_up(direction: &mut Direction, nonces: u64) {
        for _ in 0..nonces {
            direction.seal(&mut []).unwrap();
        }
    }

    fn secrets(direction: &Direction) -> (String, String) {
        let (ck, key) = direction.chaining_key_and_key();
        (hex(ck), hex(key))
    }

    /// The published values after each rotation, each at exactly the thousandth use and not one sooner.
    #[test]
    fn rotates_at_the_thousandth_use() {
        let mut direction = direction();
        let mut before = (vectors::CK.to_owned(), vectors::SK.to_owned());
        for (ck, key) in vectors::ROTATIONS {
            use_up(&mut direction, NONCES_PER_KEY - 1);
            assert_eq!(secrets(&direction), before);
            use_up(&mut direction, 1);
            before = ((*ck).to_owned(), (*key).to_owned());
            assert_eq!(secrets(&direction), before);
            assert_eq!(direction.nonce(), 0);
        }
    }

    #[test]
    fn a_rotation_overwrites_the_old_key_where_it_was() {
        let mut direction = direction();
        let before = direction.secrets.expose().as_ptr();
        use_up(&mut direction, NONCES_PER_KEY);
        assert_eq!(before, direction.secrets.expose().as_ptr());
        assert!(direction.ready.is_none(), "the old key is not kept ready");
    }

    /// A rest between any two uses changes no byte.
    #[test]
    fn resting_changes_nothing() {
        let (mut restless, mut resting) = (direction(), direction());
        for _ in 0..2 * NONCES_PER_KEY + 3 {
            let (mut a, mut b) = ([7; 9], [7; 9]);
            let tag = restless.seal(&mut a).unwrap();
            assert_eq!(tag, resting.seal(&mut b).unwrap());
            assert_eq!(a, b);
            resting.rest();
            assert!(resting.ready.is_none());
        }
    }

    #[test]
    fn a_refused_tag_does_not_use_up_a_nonce() {
        let mut direction = direction();
        assert_eq!(direction.open(&mut [1, 2], &[0; TAG_LEN]), Err(Refused));
        assert_eq!(direction.uses, 0);
    }
}
