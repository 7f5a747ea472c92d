//! Public keys as the network writes them, and a private key held in this process.
//!
//! [`NodeId`] is a name: 33 bytes that are known to be a point of the curve. [`Point`] is the same, already decoded, for ECDH.
//! [`LocalKey`] is a private key that never leaves its box: an ephemeral key, or the identity of the embedded signer. This file
//! never makes randomness (a key is made from bytes that the caller drew) and never knows what a key is used for.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use secp256k1::{Message, PublicKey, SecretKey, ecdh};

use crate::secret::{Secret, SharedSecret};

/// Length in bytes of a compressed point.
pub const POINT_LEN: usize = 33;

/// Why some bytes or some text is no node id. Whose fault that is, the layer that read them knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeIdError {
    /// Not 33 bytes, or not 66 characters of text.
    #[error("a node id is 33 bytes (66 hex digits); these are {got}")]
    Length {
        /// Bytes or characters found.
        got: usize,
    },
    /// Text that is not hexadecimal.
    #[error("a node id is written in hex digits")]
    NotHex,
    /// Not a compressed point of secp256k1.
    #[error("not a point of secp256k1 in compressed form")]
    NotAPoint,
}

impl NodeIdError {
    /// The rule that was broken.
    pub fn rule(&self) -> &'static str {
        "BOLT 1 § Fundamental Types: point, a 33-byte elliptic curve point (compressed encoding)"
    }
}

/// A node's name: its public key in compressed form, known to be a valid point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; POINT_LEN]);

impl NodeId {
    /// Accepts exactly 33 bytes that decode to a point of the curve.
    ///
    /// # Errors
    /// [`NodeIdError::Length`] or [`NodeIdError::NotAPoint`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NodeIdError> {
        Point::parse(bytes).map(Self::from)
    }

    /// Takes back what was a `NodeId` when it was written: whoever calls holds a checksum of it. To look at the point again costs
    /// 8 µs, which ten thousand known peers would have every start wait for.
    #[cfg(feature = "book")]
    pub(crate) fn known(bytes: [u8; POINT_LEN]) -> Option<Self> {
        matches!(bytes, [2 | 3, ..]).then_some(Self(bytes))
    }

    /// The compressed point.
    pub fn as_bytes(&self) -> &[u8; POINT_LEN] {
        &self.0
    }
}

impl From<Point> for NodeId {
    fn from(point: Point) -> Self {
        Self(point.bytes)
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let mut bytes = [0; POINT_LEN];
        if text.len() != 2 * POINT_LEN {
            return Err(NodeIdError::Length { got: text.len() });
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = pair
                .iter()
                .try_fold(0, |high, digit| Some(high << 4 | hex_digit(*digit)?))
                .ok_or(NodeIdError::NotHex)?;
        }
        Self::parse(&bytes)
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A point of the curve, decoded once: what an ECDH is asked about.
#[derive(Clone, Copy)]
pub struct Point {
    bytes: [u8; POINT_LEN],
    key: PublicKey,
}

impl Point {
    /// Accepts exactly 33 bytes that decode to a point of the curve.
    ///
    /// # Errors
    /// [`NodeIdError::Length`] or [`NodeIdError::NotAPoint`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NodeIdError> {
        let bytes: [u8; POINT_LEN] = bytes
            .try_into()
            .map_err(|_| NodeIdError::Length { got: bytes.len() })?;
        let key =
            PublicKey::from_byte_array_compressed(bytes).map_err(|_| NodeIdError::NotAPoint)?;
        Ok(Self { bytes, key })
    }

    /// The compressed point.
    pub fn as_bytes(&self) -> &[u8; POINT_LEN] {
        &self.bytes
    }
}

impl TryFrom<NodeId> for Point {
    type Error = NodeIdError;

    /// Decodes the point again. That cannot fail for a [`NodeId`], but this file would rather say so than panic.
    fn try_from(id: NodeId) -> Result<Self, NodeIdError> {
        Self::parse(&id.0)
    }
}

impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Point {}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&NodeId::from(*self), f)
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The bytes are no private key: zero, or not below the order of the curve. One draw in 2^128 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a private key of secp256k1: zero, or not below the order of the curve")]
pub struct LocalKeyError;

/// A private key in this process, with its public half. Boxed, wiped on drop, not printable, not clonable.
///
/// ```compile_fail
/// let key = pilotlight::node_id::LocalKey::from_bytes(&mut [7; 32]).unwrap();
/// println!("{key:?}"); // no Debug
/// ```
/// ```compile_fail
/// let key = pilotlight::node_id::LocalKey::from_bytes(&mut [7; 32]).unwrap();
/// let second = key.clone(); // no Clone
/// ```
#[must_use]
pub struct LocalKey {
    // `SecretKey` is `Copy`: it is only ever borrowed out of its box, so that there is one place to wipe.
    secret: Box<SecretKey>,
    public: Point,
}

impl LocalKey {
    /// Takes a private key over from `source`, which is wiped whatever the outcome.
    ///
    /// # Errors
    /// [`LocalKeyError`] if the bytes are no private key.
    pub fn from_bytes(source: &mut [u8; 32]) -> Result<Self, LocalKeyError> {
        let bytes = Secret::take(source);
        let mut on_stack =
            SecretKey::from_byte_array(*bytes.expose()).map_err(|_| LocalKeyError)?;
        let secret = Box::new(on_stack);
        on_stack.non_secure_erase();
        let key = PublicKey::from_secret_key_global(&secret);
        Ok(Self {
            secret,
            public: Point {
                bytes: key.serialize(),
                key,
            },
        })
    }

    /// The public half, as a name.
    pub fn node_id(&self) -> NodeId {
        NodeId::from(self.public)
    }

    /// The public half, decoded.
    pub fn point(&self) -> Point {
        self.public
    }

    /// SHA-256 of the compressed product of `point` and this key (BOLT 8 § Handshake State, `ECDH`).
    pub fn ecdh(&self, point: &Point) -> SharedSecret {
        let mut product = ecdh::SharedSecret::new(&point.key, &self.secret);
        let secret = Secret::build(|bytes| bytes.copy_from_slice(product.as_ref()));
        product.non_secure_erase();
        SharedSecret::from(secret)
    }

    /// Signs a 32-byte digest: a compact ECDSA signature, deterministic (RFC 6979), low *s*. Gossip is signed with it (BOLT 7).
    pub fn sign(&self, digest: &[u8; 32]) -> [u8; 64] {
        self.secret
            .sign_ecdsa(Message::from_digest(*digest))
            .serialize_compact()
    }
}

impl Drop for LocalKey {
    fn drop(&mut self) {
        // A volatile write and a fence: what the name warns of is copies elsewhere, and there are none.
        self.secret.non_secure_erase();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::secret::assert_not_impl;
    use std::fmt::{Debug, Display};

    assert_not_impl!(LocalKey: Debug, Display, Clone, Copy, PartialEq);

    const GENERATOR: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    #[test]
    fn a_node_id_reads_what_it_writes() {
        let id: NodeId = GENERATOR.parse().unwrap();
        assert_eq!(id.to_string(), GENERATOR);
        assert_eq!(format!("{id:?}"), GENERATOR);
        assert_eq!(GENERATOR.to_uppercase().parse(), Ok(id));
        assert_eq!(NodeId::parse(id.as_bytes()), Ok(id));
        assert_eq!(Point::try_from(id).map(NodeId::from), Ok(id));
    }

    #[test]
    fn what_is_no_node_id_is_refused_by_name() {
        assert_eq!("02".parse::<NodeId>(), Err(NodeIdError::Length { got: 2 }));
        assert_eq!(
            GENERATOR.replace('b', "g").parse::<NodeId>(),
            Err(NodeIdError::NotHex)
        );
        assert_eq!(
            GENERATOR.replacen("02", "+2", 1).parse::<NodeId>(),
            Err(NodeIdError::NotHex)
        );
        assert_eq!("é".repeat(33).parse::<NodeId>(), Err(NodeIdError::NotHex));
        assert_eq!(
            GENERATOR.replacen("02", "04", 1).parse::<NodeId>(),
            Err(NodeIdError::NotAPoint)
        );
        assert_eq!(
            format!("02{}", "ff".repeat(32)).parse::<NodeId>(),
            Err(NodeIdError::NotAPoint)
        );
        assert_eq!(
            NodeId::parse(&[2; 32]),
            Err(NodeIdError::Length { got: 32 })
        );
        assert_eq!(NodeId::parse(&[]), Err(NodeIdError::Length { got: 0 }));
    }

    #[test]
    fn a_key_is_taken_over_and_its_source_wiped() {
        let mut one = [0; 32];
        one[31] = 1;
        let key = LocalKey::from_bytes(&mut one).unwrap();
        assert_eq!(one, [0; 32]);
        assert_eq!(key.node_id().to_string(), GENERATOR);
    }

    #[test]
    fn what_is_no_key_is_refused_and_wiped_too() {
        assert!(LocalKey::from_bytes(&mut [0; 32]).is_err());
        let mut order = [0xff; 32];
        assert!(LocalKey::from_bytes(&mut order).is_err());
        assert_eq!(order, [0; 32]);
    }

    #[test]
    fn ecdh_is_the_same_from_both_ends_and_is_the_hash_of_the_compressed_point() {
        use sha2::{Digest, Sha256};
        let (mut two, mut three, mut six) = ([0; 32], [0; 32], [0; 32]);
        (two[31], three[31], six[31]) = (2, 3, 6);
        let a = LocalKey::from_bytes(&mut two).unwrap();
        let b = LocalKey::from_bytes(&mut three).unwrap();
        let product = LocalKey::from_bytes(&mut six).unwrap();
        assert!(a.ecdh(&b.point()).ct_eq(&b.ecdh(&a.point())));
        let expected: [u8; 32] = Sha256::digest(product.node_id().as_bytes()).into();
        assert_eq!(a.ecdh(&b.point()).expose(), &expected);
    }
}
