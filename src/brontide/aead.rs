//! The AEAD seam: ChaCha20-Poly1305 (RFC 8439, IETF nonces) from one of two libraries, the same bytes from either.
//!
//! `aead-aws-lc` wins over `aead-rustcrypto` when both are on; neither is a compile error. Everything is in place and detached:
//! the caller owns the buffer and the 16-byte tag. This file never counts nonces and never keeps a key: see `cipher.rs` for both.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// Length in bytes of a key.
pub(crate) const KEY_LEN: usize = 32;
/// Length in bytes of a Poly1305 tag.
pub(crate) const TAG_LEN: usize = 16;
const NONCE_LEN: usize = 12;

/// The tag does not fit the bytes, or the library will not take them. No library says more, and none should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

#[cfg(feature = "aead-aws-lc")]
pub(crate) use aws_lc::Key;
#[cfg(all(feature = "aead-rustcrypto", not(feature = "aead-aws-lc")))]
pub(crate) use rustcrypto::Key;

#[cfg(not(any(feature = "aead-aws-lc", feature = "aead-rustcrypto")))]
compile_error!("pilotlight needs an AEAD: enable the feature `aead-aws-lc` or `aead-rustcrypto`");

/// BOLT 8 § Handshake State: "nonce `n` encoded as 32 zero bits, followed by a *little-endian* 64-bit value".
fn nonce_bytes(counter: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    let (_, low) = nonce.split_at_mut(NONCE_LEN - size_of::<u64>());
    low.copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// AWS-LC: assembly for every common CPU. Its key object lives in memory of its own (about 600 bytes), which it zeroes when freed.
#[cfg(feature = "aead-aws-lc")]
mod aws_lc {
    use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    use super::{KEY_LEN, Refused, TAG_LEN, nonce_bytes};

    /// A key made ready for use.
    pub(crate) struct Key(LessSafeKey);

    impl Key {
        pub(crate) fn new(raw: &[u8; KEY_LEN]) -> Result<Self, Refused> {
            let key = UnboundKey::new(&CHACHA20_POLY1305, raw).map_err(|_| Refused)?;
            Ok(Self(LessSafeKey::new(key)))
        }

        /// Encrypts `data` where it is and returns its tag.
        pub(crate) fn seal(
            &self,
            nonce: u64,
            ad: &[u8],
            data: &mut [u8],
        ) -> Result<[u8; TAG_LEN], Refused> {
            let nonce = Nonce::assume_unique_for_key(nonce_bytes(nonce));
            let tag = self
                .0
                .seal_in_place_separate_tag(nonce, Aad::from(ad), data)
                .map_err(|_| Refused)?;
            tag.as_ref().try_into().map_err(|_| Refused)
        }

        /// Checks `tag` and decrypts `data` where it is; on failure what `data` holds is nobody's message.
        pub(crate) fn open(
            &self,
            nonce: u64,
            ad: &[u8],
            data: &mut [u8],
            tag: &[u8],
        ) -> Result<(), Refused> {
            let nonce = Nonce::assume_unique_for_key(nonce_bytes(nonce));
            self.0
                .open_in_place_separate_tag(nonce, Aad::from(ad), tag, data)
                .map(|_| ())
                .map_err(|_| Refused)
        }
    }
}

/// RustCrypto: portable, no C. Its key object wipes itself (feature `zeroize`).
#[cfg(any(feature = "aead-rustcrypto", test))]
#[cfg_attr(
    all(feature = "aead-aws-lc", not(test)),
    allow(dead_code, reason = "when both backends are on, the other wins")
)]
mod rustcrypto {
    use chacha20poly1305::{
        ChaCha20Poly1305, KeyInit as _, Tag,
        aead::{AeadInOut as _, Nonce},
    };

    use super::{KEY_LEN, Refused, TAG_LEN, nonce_bytes};

    /// A key made ready for use.
    pub(crate) struct Key(ChaCha20Poly1305);

    impl Key {
        pub(crate) fn new(raw: &[u8; KEY_LEN]) -> Result<Self, Refused> {
            Ok(Self(ChaCha20Poly1305::new(raw.into())))
        }

        /// Encrypts `data` where it is and returns its tag.
        pub(crate) fn seal(
            &self,
            nonce: u64,
            ad: &[u8],
            data: &mut [u8],
        ) -> Result<[u8; TAG_LEN], Refused> {
            let nonce = Nonce::<ChaCha20Poly1305>::from(nonce_bytes(nonce));
            self.0
                .encrypt_inout_detached(&nonce, ad, data.into())
                .map(Into::into)
                .map_err(|_| Refused)
        }

        /// Checks `tag` and decrypts `data` where it is; on failure what `data` holds is nobody's message.
        pub(crate) fn open(
            &self,
            nonce: u64,
            ad: &[u8],
            data: &mut [u8],
            tag: &[u8],
        ) -> Result<(), Refused> {
            let nonce = Nonce::<ChaCha20Poly1305>::from(nonce_bytes(nonce));
            let tag = Tag::try_from(tag).map_err(|_| Refused)?;
            self.0
                .decrypt_inout_detached(&nonce, ad, data.into(), &tag)
                .map_err(|_| Refused)
        }
    }
}
