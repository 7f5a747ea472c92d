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
        #[allow(
            clippy::unnecessary_wraps,
            reason = "the other backend can fail, and the two are one interface"
        )]
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn unhex<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    }

    /// RFC 8439 § 2.8.2 has a nonce with a non-zero first word, which BOLT 8 never makes; § A.5 has not.
    #[test]
    fn nonces_are_32_zero_bits_and_a_little_endian_counter() {
        assert_eq!(nonce_bytes(0), [0; 12]);
        assert_eq!(nonce_bytes(1), [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            nonce_bytes(0x0807_0605_0403_0201),
            [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
        );
    }

    /// RFC 8439 § A.5.
    #[test]
    fn opens_the_rfc_s_ciphertext() {
        let key = unhex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0");
        let ad: [u8; 12] = unhex("f33388860000000000004e91");
        let tag: [u8; 16] = unhex("eead9d67890cbb22392336fea1851f38");
        let mut data: [u8; 32] =
            unhex("64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2");
        let key = Key::new(&key).unwrap();
        // Only the first 32 of 265 bytes: the keystream is checked, the tag is not.
        let mut plain = data;
        let _ = key.seal(0x0807_0605_0403_0201, &ad, &mut plain).unwrap();
        assert_eq!(&plain, b"Internet-Drafts are draft docume");
        assert_eq!(
            key.open(0x0807_0605_0403_0201, &ad, &mut data, &tag),
            Err(Refused)
        );
    }

    #[cfg(feature = "aead-aws-lc")]
    mod both_backends {
        use super::super::{Refused, TAG_LEN, aws_lc, rustcrypto};
        use proptest::prelude::*;

        fn agree(raw: &[u8; 32], nonce: u64, ad: &[u8], plain: &[u8]) {
            let first = aws_lc::Key::new(raw).unwrap();
            let second = rustcrypto::Key::new(raw).unwrap();
            let (mut a, mut b) = (plain.to_vec(), plain.to_vec());
            let tag = first.seal(nonce, ad, &mut a).unwrap();
            assert_eq!(tag, second.seal(nonce, ad, &mut b).unwrap());
            assert_eq!(a, b);
            // Each opens what the other sealed.
            first.open(nonce, ad, &mut b, &tag).unwrap();
            second.open(nonce, ad, &mut a, &tag).unwrap();
            assert_eq!((a.as_slice(), b.as_slice()), (plain, plain));
        }

        fn both_refuse(raw: &[u8; 32], nonce: u64, ad: &[u8], data: &[u8], tag: &[u8]) {
            let first = aws_lc::Key::new(raw).unwrap();
            let second = rustcrypto::Key::new(raw).unwrap();
            let refused = Err(Refused);
            assert_eq!(first.open(nonce, ad, &mut data.to_vec(), tag), refused);
            assert_eq!(second.open(nonce, ad, &mut data.to_vec(), tag), refused);
        }

        #[test]
        fn give_the_same_bytes_at_every_small_length_and_the_largest() {
            for length in (0..=300).chain([1400, 16_384, 65_535]) {
                let plain: Vec<u8> = (0..=250).cycle().take(length).collect();
                let nonce = u64::try_from(length).unwrap();
                agree(&[7; 32], nonce, &[], &plain);
                agree(&[7; 32], u64::MAX - nonce, &[9; 32], &plain);
            }
        }

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(128))]

            #[test]
            fn give_the_same_bytes(
                raw: [u8; 32], nonce: u64,
                ad in proptest::collection::vec(any::<u8>(), 0..64),
                plain in proptest::collection::vec(any::<u8>(), 0..2048),
            ) {
                agree(&raw, nonce, &ad, &plain);
            }

            #[test]
            fn refuse_the_same_bytes(
                raw: [u8; 32], nonce in 0..u64::MAX,
                ad in proptest::collection::vec(any::<u8>(), 1..64),
                plain in proptest::collection::vec(any::<u8>(), 1..256),
                at: proptest::sample::Index, bit in 0..8_u32,
            ) {
                let mut data = plain;
                let tag = aws_lc::Key::new(&raw).unwrap().seal(nonce, &ad, &mut data).unwrap();
                let flip = |bytes: &[u8]| {
                    let mut bytes = bytes.to_vec();
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                    bytes
                };
                both_refuse(&raw, nonce, &ad, &flip(&data), &tag);
                both_refuse(&raw, nonce, &ad, &data, &flip(&tag));
                both_refuse(&raw, nonce, &flip(&ad), &data, &tag);
                both_refuse(&raw, nonce + 1, &ad, &data, &tag);
                both_refuse(&raw, nonce, &ad, &data, &tag[..TAG_LEN - 1]);
                both_refuse(&raw, nonce, &ad, &data, &[]);
            }
        }
    }
}
