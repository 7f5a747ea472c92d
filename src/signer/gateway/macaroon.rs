//! Macaroons: bearer tokens that a signer shows, in the binary form (version 2) that lnd reads and writes.
//!
//! For: the gateway bakes one for its signer and checks the one that a call carries. The signature is a chain of HMAC-SHA256,
//! from a key derived of the root key, over the identifier and each caveat (Birgisson et al., "Macaroons", 2014, § V; bytes as
//! in libmacaroons' `doc/format.txt`). The identifier is that of the bakery that lnd uses: a byte 3, then a protobuf with a
//! nonce, the root key's name and the permitted operations.
//!
//! It never stores a key, asks for the time or draws randomness; it never takes third-party caveats; it never prints a macaroon:
//! who holds one may use it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::caveat::Caveat;
use crate::error::{Culprit, Retry};
use crate::hex;
use crate::limits::{MACAROON_CAVEATS, MACAROON_MAX};
use crate::secret::Secret32;

/// What this crate's macaroons permit: to be this node's remote signer. lnd's own words for it.
pub const SIGNER_ENTITY: &str = "remotesigner";
/// See [`SIGNER_ENTITY`].
pub const SIGNER_ACTION: &str = "generate";
/// The hint in a macaroon that names its maker; it is not signed, and nothing depends on it.
const LOCATION: &[u8] = b"pilotlight";

const VERSION: u8 = 2;
const FIELD_END: u8 = 0;
const FIELD_LOCATION: u8 = 1;
const FIELD_IDENTIFIER: u8 = 2;
const FIELD_VERIFICATION_ID: u8 = 4;
const FIELD_SIGNATURE: u8 = 6;

/// The bakery's version of identifiers (`macaroon-bakery` v3, `bakery/internal/macaroonpb`).
const ID_VERSION: u8 = 3;

/// libmacaroons' `macaroons-key-generator`, as an HMAC key.
const KEY_GENERATOR: [u8; 32] = *b"macaroons-key-generator\0\0\0\0\0\0\0\0\0";

/// The secret that a gateway's macaroons are signed with, and its name.
pub struct RootKey {
    id: u64,
    key: Secret32,
}

impl RootKey {
    /// A root key with the name under which its macaroons mention it. A rotation takes the next name.
    pub fn new(id: u64, key: Secret32) -> Self {
        Self { id, key }
    }

    /// Its name.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn secret(&self) -> &Secret32 {
        &self.key
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Something that a macaroon permits: an action on an entity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Op {
    /// The entity, such as `remotesigner`.
    pub entity: String,
    /// The actions on it, such as `generate`.
    pub actions: Vec<String>,
}

impl Op {
    /// One action on one entity.
    pub fn new(entity: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            entity: entity.into(),
            actions: vec![action.into()],
        }
    }

    /// What lnd asks of a remote signer: `remotesigner`, `generate`.
    pub fn remote_signer() -> Self {
        Self::new(SIGNER_ENTITY, SIGNER_ACTION)
    }
}

/// The bakery's identifier, after its version byte.
#[derive(Clone, PartialEq, Eq, Message)]
struct Identifier {
    #[prost(bytes = "vec", tag = "1")]
    nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    storage_id: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    ops: Vec<IdentifierOp>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct IdentifierOp {
    #[prost(string, tag = "1")]
    entity: String,
    #[prost(string, repeated, tag = "2")]
    actions: Vec<String>,
}

/// A call that shows a macaroon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occasion<'a> {
    /// The entity that is to be acted on.
    pub entity: &'a str,
    /// The action.
    pub action: &'a str,
    /// The wall clock, as time since the Unix epoch.
    pub now: Duration,
    /// Where the call comes from.
    pub source: IpAddr,
}

/// A bearer token, not printable. Its signature, without which the rest is of no use, is wiped on drop.
///
/// ```
/// use pilotlight::secret::Secret32;
/// use pilotlight::signer::gateway::{Caveat, Macaroon, Occasion, Op, RootKey};
/// use std::time::Duration;
///
/// let root = RootKey::new(0, Secret32::build(|bytes| bytes.fill(7)));
/// let mut macaroon = Macaroon::bake(&root, [9; 16], &[Op::remote_signer()]);
/// macaroon.restrict(&Caveat::TimeBefore(Duration::from_secs(2_000_000_000)))?;
///
/// let occasion = Occasion {
///     entity: "remotesigner",
///     action: "generate",
///     now: Duration::from_secs(1_900_000_000),
///     source: [192, 0, 2, 1].into(),
/// };
/// let shown = Macaroon::from_hex(&macaroon.to_hex())?;
/// shown.verify(&root, &occasion)?;
/// let later = Occasion { now: Duration::from_secs(2_000_000_000), ..occasion };
/// assert_eq!(shown.verify(&root, &later).unwrap_err().label(), "macaroon_expired");
/// # Ok::<(), pilotlight::signer::gateway::MacaroonError>(())
/// ```
#[must_use]
pub struct Macaroon {
    location: Option<Vec<u8>>,
    identifier: Vec<u8>,
    caveats: Vec<Vec<u8>>,
    signature: Secret32,
}

/// What an operator tells his macaroons apart by, such as `1f3a90c2 of root key 0`. Nobody can use a macaroon that he knows by
/// name only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacaroonName {
    root_key: Option<u64>,
    digest: [u8; 4],
}

impl fmt::Display for MacaroonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.digest {
            write!(f, "{byte:02x}")?;
        }
        match self.root_key {
            Some(id) => write!(f, " of root key {id}"),
            None => f.write_str(" of an unnamed root key"),
        }
    }
}

/// Why a macaroon is not accepted, or none. The text is safe for logs and for the caller: it holds nothing of the macaroon.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MacaroonError {
    /// The call carries none.
    #[error("the call carries no macaroon")]
    Missing,
    /// It is not an even number of hex digits.
    #[error("the macaroon is not in hex")]
    NotHex,
    /// It is longer than [`MACAROON_MAX`], or has more caveats than [`MACAROON_CAVEATS`].
    #[error("the macaroon is too large")]
    TooLarge,
    /// The bytes are not a macaroon of version 2.
    #[error("the macaroon is malformed: {0}")]
    Malformed(&'static str),
    /// It was baked with another root key, or before the last rotation.
    #[error("the macaroon was baked with another root key")]
    OtherRootKey,
    /// Its signature is not that of its content.
    #[error("the macaroon's signature is wrong")]
    WrongSignature,
    /// It does not permit this.
    #[error("the macaroon does not permit {SIGNER_ENTITY}:{SIGNER_ACTION}")]
    WrongPermission,
    /// Its time is over.
    #[error("the macaroon has expired")]
    Expired,
    /// It is for another address.
    #[error("the macaroon is for another address")]
    WrongAddress,
    /// It has a condition that is not understood, and so not met.
    #[error("the macaroon has a caveat that is not understood")]
    UnknownCaveat,
}

impl MacaroonError {
    /// A short name: the label of `signers_refused_total{reason}`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Missing => "macaroon_missing",
            Self::NotHex | Self::TooLarge | Self::Malformed(_) => "macaroon_malformed",
            Self::OtherRootKey => "macaroon_root_key",
            Self::WrongSignature => "macaroon_signature",
            Self::WrongPermission => "macaroon_permission",
            Self::Expired => "macaroon_expired",
            Self::WrongAddress => "macaroon_address",
            Self::UnknownCaveat => "macaroon_caveat",
        }
    }
    /// Whose fault it was: whoever handed the signer its macaroon, or the signer itself.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::Missing
            | Self::OtherRootKey
            | Self::WrongPermission
            | Self::Expired
            | Self::WrongAddress
            | Self::UnknownCaveat => Culprit::Operator,
            Self::NotHex | Self::TooLarge | Self::Malformed(_) | Self::WrongSignature => {
                Culprit::Signer
            }
        }
    }
    /// The rule that was broken.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Missing | Self::NotHex => {
                "signer protocol: metadata `macaroon` is lower-case hex of a binary macaroon"
            }
            Self::TooLarge => "limits: MACAROON_MAX, MACAROON_CAVEATS",
            Self::Malformed(_) => "libmacaroons doc/format.txt: version 2 binary",
            Self::OtherRootKey | Self::WrongSignature => "Macaroons § V: the chain of HMACs",
            Self::WrongPermission => "lnd: remotesigner, generate",
            Self::Expired | Self::WrongAddress | Self::UnknownCaveat => {
                "Macaroons § V: every caveat must hold"
            }
        }
    }
    /// Whether the macaroon's signature was found right before it was refused: what it says of itself is then true.
    pub(super) fn is_of_a_signed_one(&self) -> bool {
        matches!(
            self,
            Self::WrongPermission | Self::Expired | Self::WrongAddress | Self::UnknownCaveat
        )
    }
    /// Whether the same macaroon may be shown again.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl Macaroon {
    /// Makes a macaroon that permits `ops`. `nonce` tells it from the others of the same root key; draw it at random.
    pub fn bake(root: &RootKey, nonce: [u8; 16], ops: &[Op]) -> Self {
        let content = Identifier {
            nonce: nonce.to_vec(),
            storage_id: root.id.to_string().into_bytes(),
            ops: ops
                .iter()
                .cloned()
                .map(|Op { entity, actions }| IdentifierOp { entity, actions })
                .collect(),
        };
        let mut identifier = vec![ID_VERSION];
        identifier.extend_from_slice(&content.encode_to_vec());
        Self::sign(root.key.expose(), Some(LOCATION.to_vec()), identifier)
    }

    fn sign(root: &[u8], location: Option<Vec<u8>>, identifier: Vec<u8>) -> Self {
        let signature = hmac(derive(root).expose(), &identifier);
        Self {
            location,
            identifier,
            caveats: Vec::new(),
            signature,
        }
    }

    /// Narrows it by one condition. Whoever holds a macaroon may do that; nobody can take it back.
    ///
    /// # Errors
    /// [`MacaroonError::TooLarge`] with [`MACAROON_CAVEATS`] caveats.
    pub fn restrict(&mut self, caveat: &Caveat) -> Result<(), MacaroonError> {
        self.restrict_raw(caveat.to_string().into_bytes())
    }

    fn restrict_raw(&mut self, condition: Vec<u8>) -> Result<(), MacaroonError> {
        if self.caveats.len() >= MACAROON_CAVEATS {
            return Err(MacaroonError::TooLarge);
        }
        self.signature = hmac(self.signature.expose(), &condition);
        self.caveats.push(condition);
        Ok(())
    }

    /// Checks the signature, in constant time, and then the permission and every caveat.
    ///
    /// # Errors
    /// [`MacaroonError`]. What the macaroon says is looked at only when its signature is right; its root key's name, without
    /// which there is no signature to check, is the exception.
    pub fn verify(&self, root: &RootKey, occasion: &Occasion<'_>) -> Result<(), MacaroonError> {
        let identifier = self.parse_identifier()?;
        if identifier.storage_id != root.id.to_string().as_bytes() {
            return Err(MacaroonError::OtherRootKey);
        }
        self.verify_signature(root.key.expose())?;
        let permitted = identifier.ops.iter().any(|op| {
            op.entity == occasion.entity
                && op.actions.iter().any(|action| action == occasion.action)
        });
        if !permitted {
            return Err(MacaroonError::WrongPermission);
        }
        for condition in &self.caveats {
            match Caveat::parse(condition) {
                Some(Caveat::TimeBefore(end)) if occasion.now < end => {}
                Some(Caveat::TimeBefore(_)) => return Err(MacaroonError::Expired),
                Some(Caveat::IpAddr(ip)) if occasion.source.to_canonical() == ip => {}
                Some(Caveat::IpAddr(_)) => return Err(MacaroonError::WrongAddress),
                None => return Err(MacaroonError::UnknownCaveat),
            }
        }
        Ok(())
    }

    fn verify_signature(&self, root: &[u8]) -> Result<(), MacaroonError> {
        let mut expected = hmac(derive(root).expose(), &self.identifier);
        for condition in &self.caveats {
            expected = hmac(expected.expose(), condition);
        }
        if expected.ct_eq(&self.signature) {
            Ok(())
        } else {
            Err(MacaroonError::WrongSignature)
        }
    }

    /// A name for this macaroon that is no secret and that no caveat changes: the SHA-256 of its identifier. For counting what
    /// its holder does.
    pub fn fingerprint(&self) -> [u8; 32] {
        use sha2::Digest;
        Sha256::digest(&self.identifier).into()
    }

    /// The same for people: its root key and the first bytes of the [fingerprint](Self::fingerprint).
    pub fn name(&self) -> MacaroonName {
        let storage_id = self.parse_identifier().ok().map(|id| id.storage_id);
        let digits = storage_id.and_then(|id| String::from_utf8(id).ok());
        MacaroonName {
            root_key: digits.and_then(|digits| digits.parse().ok()),
            digest: self
                .fingerprint()
                .first_chunk()
                .copied()
                .unwrap_or_default(),
        }
    }

    fn parse_identifier(&self) -> Result<Identifier, MacaroonError> {
        let malformed = MacaroonError::Malformed("its identifier is not a bakery's");
        match self.identifier.split_first() {
            Some((&ID_VERSION, content)) => Identifier::decode(content).map_err(|_| malformed),
            _ => Err(malformed),
        }
    }

    /// The binary form.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // In its full size at once: a vector that grew would leave copies behind.
        let mut out = Zeroizing::new(Vec::with_capacity(self.encoded_len()));
        out.push(VERSION);
        if let Some(location) = &self.location {
            put(&mut out, FIELD_LOCATION, location);
        }
        put(&mut out, FIELD_IDENTIFIER, &self.identifier);
        out.push(FIELD_END);
        for condition in &self.caveats {
            put(&mut out, FIELD_IDENTIFIER, condition);
            out.push(FIELD_END);
        }
        out.push(FIELD_END);
        put(&mut out, FIELD_SIGNATURE, self.signature.expose());
        out
    }

    /// An upper bound: every length is written in at most three bytes.
    fn encoded_len(&self) -> usize {
        let caveats: usize = self.caveats.iter().map(|caveat| caveat.len() + 5).sum();
        let location = self.location.as_ref().map_or(0, Vec::len);
        location + self.identifier.len() + caveats + 64
    }

    /// The binary form in lower-case hex, as a call's metadata carries it.
    pub fn to_hex(&self) -> Zeroizing<String> {
        hex::encode(&self.to_bytes())
    }

    /// Reads the hex of a binary macaroon; both cases are taken.
    ///
    /// # Errors
    /// [`MacaroonError::NotHex`], [`MacaroonError::TooLarge`], [`MacaroonError::Malformed`].
    pub fn from_hex(text: &str) -> Result<Self, MacaroonError> {
        if text.len() > 2 * MACAROON_MAX {
            return Err(MacaroonError::TooLarge);
        }
        let mut bytes = Zeroizing::new(vec![0; text.len() / 2]);
        hex::decode_to(text.as_bytes(), &mut bytes).ok_or(MacaroonError::NotHex)?;
        Self::parse(&bytes)
    }

    /// Reads the binary form. Nothing is checked but the form.
    ///
    /// # Errors
    /// [`MacaroonError::TooLarge`], [`MacaroonError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, MacaroonError> {
        if bytes.len() > MACAROON_MAX {
            return Err(MacaroonError::TooLarge);
        }
        let mut reader = Reader(bytes);
        if reader.byte()? != VERSION {
            return Err(MacaroonError::Malformed("it is not of version 2"));
        }
        let location = reader.optional(FIELD_LOCATION)?.map(<[u8]>::to_vec);
        let identifier = reader.field(FIELD_IDENTIFIER)?.to_vec();
        reader.end()?;
        let mut caveats = Vec::new();
        while reader.peek() != Some(FIELD_END) {
            if caveats.len() >= MACAROON_CAVEATS {
                return Err(MacaroonError::TooLarge);
            }
            // Where a third party is to be found; a first-party caveat may carry one too, for nothing.
            reader.optional(FIELD_LOCATION)?;
            caveats.push(reader.field(FIELD_IDENTIFIER)?.to_vec());
            if reader.peek() == Some(FIELD_VERIFICATION_ID) {
                return Err(MacaroonError::Malformed("it has a third-party caveat"));
            }
            reader.end()?;
        }
        reader.end()?;
        let signature = reader.field(FIELD_SIGNATURE)?;
        let signature = Secret32::try_build(|bytes| {
            let source: &[u8; 32] = signature
                .try_into()
                .map_err(|_| MacaroonError::Malformed("its signature has not 32 bytes"))?;
            bytes.copy_from_slice(source);
            Ok(())
        })?;
        if !reader.0.is_empty() {
            return Err(MacaroonError::Malformed("bytes follow its signature"));
        }
        Ok(Self {
            location,
            identifier,
            caveats,
            signature,
        })
    }
}

impl fmt::Debug for Macaroon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Macaroon")
            .field("caveats", &self.caveats.len())
            .finish_non_exhaustive()
    }
}

/// A field of the binary form: its number, its length as a varint, its bytes.
fn put(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(0x80 | length.to_le_bytes()[0] & 0x7f);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0]);
    out.extend_from_slice(bytes);
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Result<u8, MacaroonError> {
        let (first, rest) = self
            .0
            .split_first()
            .ok_or(MacaroonError::Malformed("it ends early"))?;
        self.0 = rest;
        Ok(*first)
    }

    fn end(&mut self) -> Result<(), MacaroonError> {
        match self.byte()? {
            FIELD_END => Ok(()),
            _ => Err(MacaroonError::Malformed("a field is out of order")),
        }
    }

    fn optional(&mut self, field: u8) -> Result<Option<&'a [u8]>, MacaroonError> {
        if self.peek() == Some(field) {
            self.field(field).map(Some)
        } else {
            Ok(None)
        }
    }

    fn field(&mut self, field: u8) -> Result<&'a [u8], MacaroonError> {
        if self.byte()? != field {
            return Err(MacaroonError::Malformed("a field is missing"));
        }
        let length = self.varint()?;
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(MacaroonError::Malformed("it ends early"))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Two bytes are enough for [`MACAROON_MAX`]; a third allows for a writer that pads.
    fn varint(&mut self) -> Result<usize, MacaroonError> {
        let mut value = 0;
        for shift in [0, 7, 14] {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(MacaroonError::Malformed("a length is too large"))
    }
}

fn derive(root: &[u8]) -> Secret32 {
    hmac(&KEY_GENERATOR, root)
}

fn hmac(key: &[u8; 32], message: &[u8]) -> Secret32 {
    // RFC 2104: a key is padded with zeroes to the block's 64 bytes. Done here, so that no length can be refused.
    let mut block = Zeroizing::new([0_u8; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(message);
    let mut tag = mac.finalize().into_bytes();
    let secret = Secret32::build(|bytes| bytes.copy_from_slice(&tag));
    tag.as_mut_slice().zeroize();
    secret
}

#[cfg(test)]
#[path = "macaroon_tests.rs"]
mod tests;
