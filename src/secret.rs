//! Bytes that must not outlive their use: wiped on drop, never printed, never copied by accident, compared in constant time.
//!
//! A secret is a type, not a habit. The bytes of a [`Secret`] live on the heap, so that moving one moves a pointer and leaves
//! nothing behind on the stack. There is no `Debug`, no `Display` and no `Clone`, so a secret cannot reach a log, an error or a second owner:
//!
//! ```compile_fail
//! let secret = pilotlight::secret::Secret32::build(|bytes| bytes.fill(7));
//! println!("{secret:?}"); // no Debug
//! ```
//! ```compile_fail
//! let secret = pilotlight::secret::Secret32::build(|bytes| bytes.fill(7));
//! println!("{secret}"); // no Display
//! ```
//! ```compile_fail
//! let secret = pilotlight::secret::Secret32::build(|bytes| bytes.fill(7));
//! let second = secret.clone(); // no Clone
//! ```
//!
//! It never generates randomness and never decides what a secret is for. What the stack, the registers or a library may keep of
//! bytes on their way in or out is beyond this type; [`Secret::build`] and [`Secret::take`] exist to leave as little as can be.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// `N` secret bytes, boxed, wiped on drop.
#[must_use]
pub struct Secret<const N: usize>(Box<[u8; N]>);

/// A key, a chaining key or a hash: 32 secret bytes.
pub type Secret32 = Secret<32>;

impl<const N: usize> Secret<N> {
    /// Makes a secret by writing it where it will live, from zeroes: nothing passes through a value that nobody wipes.
    pub fn build(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// Like [`Secret::build`], for a `fill` that can fail; what it had written by then is wiped.
    ///
    /// # Errors
    /// Whatever `fill` returns.
    pub fn try_build<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// Takes the bytes over from `source` and wipes them there.
    pub fn take(source: &mut [u8; N]) -> Self {
        let secret = Self::build(|bytes| bytes.copy_from_slice(source));
        source.zeroize();
        secret
    }

    /// Makes the bytes readable. The name is long enough to be found in a review.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Makes the bytes writable where they are, to be replaced by their successors.
    pub(crate) fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }

    /// Overwrites the bytes with zeroes now. Dropping does the same.
    pub fn wipe(&mut self) {
        self.0.zeroize();
    }

    /// Compares in a time that does not depend on the bytes.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// Compares in constant time: [`Secret::ct_eq`].
impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other)
    }
}

impl<const N: usize> Eq for Secret<N> {}

/// What an ECDH yields: the SHA-256 of the compressed product point (BOLT 8 § Handshake State, `ECDH`).
///
/// ```compile_fail
/// let reply = pilotlight::secret::SharedSecret::take(&mut [7; 32]);
/// println!("{reply:?}"); // no Debug
/// ```
#[must_use]
pub struct SharedSecret(Secret32);

impl SharedSecret {
    /// Takes over the 32 bytes that a signer answered, and wipes them at their source.
    pub fn take(source: &mut [u8; 32]) -> Self {
        Self(Secret32::take(source))
    }

    /// Makes the bytes readable.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// Compares in a time that does not depend on the bytes.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0)
    }
}

impl From<Secret32> for SharedSecret {
    fn from(secret: Secret32) -> Self {
        Self(secret)
    }
}

/// Fails to compile if the type implements any of the traits: with two candidates for `Ambiguous<_>` inference gives up.
#[cfg(test)]
macro_rules! assert_not_impl {
    ($type:ty: $($forbidden:path),+ $(,)?) => {$(
        const _: fn() = || {
            trait Ambiguous<A> {
                fn probe() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            #[allow(dead_code)]
            struct Forbidden;
            impl<T: ?Sized + $forbidden> Ambiguous<Forbidden> for T {}
            let _ = <$type as Ambiguous<_>>::probe;
        };
    )+};
}
#[cfg(test)]
pub(crate) use assert_not_impl;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use std::fmt::{Debug, Display, LowerHex};

    assert_not_impl!(Secret32: Debug, Display, LowerHex, Clone, Copy, AsRef<[u8]>);
    assert_not_impl!(SharedSecret: Debug, Display, LowerHex, Clone, Copy, AsRef<[u8]>);

    #[test]
    fn takes_over_and_wipes_the_source() {
        let mut source = [7; 32];
        let secret = Secret32::take(&mut source);
        assert_eq!(source, [0; 32]);
        assert_eq!(secret.expose(), &[7; 32]);
    }

    #[test]
    fn wipes_where_it_is() {
        let mut secret = Secret::<64>::build(|bytes| bytes.fill(9));
        secret.wipe();
        assert_eq!(secret.expose(), &[0; 64]);
    }

    #[test]
    fn compares_by_value() {
        let a = Secret32::build(|bytes| bytes.fill(1));
        let b = Secret32::build(|bytes| bytes.fill(1));
        let c = Secret32::build(|bytes| bytes[31] = 1);
        assert!(a == b && a.ct_eq(&b));
        assert!(a != c && !a.ct_eq(&c));
    }

    #[test]
    fn a_failed_build_yields_only_the_error() {
        let failed: Result<Secret32, &str> = Secret::try_build(|bytes| {
            bytes.fill(3);
            Err("no")
        });
        assert_eq!(failed.err(), Some("no"));
    }

    #[test]
    fn moving_a_secret_does_not_move_its_bytes() {
        let secret = Secret32::build(|bytes| bytes.fill(5));
        let before = secret.expose().as_ptr();
        let moved = [secret];
        assert_eq!(before, moved[0].expose().as_ptr());
    }
}
