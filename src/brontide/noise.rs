//! The Noise state machine (`snow`) with BOLT 8's primitives, and nothing secret inside it.
//!
//! `snow` keeps the order of the tokens, the transcript hash and the nonces. It wipes nothing, so it is given nothing that needs
//! wiping: where Noise has a chaining key, a cipher key or an ECDH result, `snow` holds a *handle*, 32 public bytes that say
//! "not a secret" and a number. Its calls come back to the [`Dh`], [`Hash`] and [`Cipher`] of this file, which look the handle up in the
//! handshake's own table of wiped boxes (`handles.rs`). A handle that the table does not know, or that stands for a value of another kind,
//! or for one that is not the latest, is a fault: the step fails, and so does every later one.
//!
//! ```text
//!   snow                         this file                          the table (wiped when the handshake ends, in any way)
//!   dh(e, rs)          ───▶      LocalKey::ecdh               ───▶  Shared 0
//!   hkdf(h0, Shared 0) ───▶      HKDF(protocol hash, es)      ───▶  Pair 0 = ck ‖ temp_k1
//!   Cipher::set(Second 0), encrypt … ───▶ AEAD under temp_k1
//!   …                                                               Shared 1, Pair 1, Shared 2, Pair 2
//!   hkdf(First 2, "")  ───▶      HKDF(ck, zero)               ───▶  Pair 3 = the two transport keys
//! ```
//! The one value that Noise mixes in and that is no handle is the first chaining key, which is the hash of the protocol's name: public.
//!
//! The static key is elsewhere. [`Dh::set`] is given its 33 public bytes; its `dh` answers for the one point whose reply was put
//! into the table, once, and for no other. This file never asks anyone for an ECDH with it, and never makes randomness.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use sha2::{Digest, Sha256};
use snow::{
    Builder, Error, HandshakeState,
    params::{CipherChoice, DHChoice, HashChoice, NoiseParams},
    resolvers::CryptoResolver,
    types::{Cipher, Dh, Hash, Random},
};

use super::{
    aead::{self, KEY_LEN, TAG_LEN},
    cipher::split,
    handles::{HASH_LEN, Kind, PROTOCOL_NAME, SharedTable, Table},
};
use crate::{
    node_id::{LocalKey, NodeId, POINT_LEN, Point},
    secret::{Secret, Secret32, SharedSecret},
};

/// The protocol's name with a curve whose name `snow` can parse. Only the pattern is taken from it.
const PARSED_NAME: &str = "Noise_XK_25519_ChaChaPoly_SHA256";
/// BOLT 8 § Handshake State Initialization, step 3.
const PROLOGUE: &[u8] = b"lightning";
/// SHA-256's block. `snow` only asks for it to compute HMAC, which it is not let do.
const BLOCK_LEN: usize = 64;

/// Why a step of the handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepError {
    /// A tag did not fit, after `opened` that did in the same step.
    Tag { opened: u8 },
    /// The other side's key is no point of the curve.
    Point,
    /// A bug of ours or of `snow`'s.
    Fault(&'static str),
}

/// What the handshake leaves: the last chaining key, and the keys of the two directions.
pub(super) struct TransportKeys {
    pub(super) chaining_key: Secret32,
    pub(super) initiator_to_responder: Secret32,
    pub(super) responder_to_initiator: Secret32,
}

/// One handshake: `snow`, and the table that its handles stand for.
pub(super) struct Engine {
    // Boxed: about 1 KiB that would be moved at every step, and would widen the future of whoever awaits the signer.
    noise: Box<HandshakeState>,
    table: SharedTable,
}

impl Engine {
    pub(super) fn initiator(
        local: NodeId,
        remote: NodeId,
        ephemeral: LocalKey,
    ) -> Result<Self, StepError> {
        let table = SharedTable::new(ephemeral);
        let noise = builder(&table, &local)
            .and_then(|builder| builder.remote_public_key(remote.as_bytes()))
            .and_then(Builder::build_initiator);
        Self::built(noise, table)
    }

    pub(super) fn responder(local: NodeId, ephemeral: LocalKey) -> Result<Self, StepError> {
        let table = SharedTable::new(ephemeral);
        let noise = builder(&table, &local).and_then(Builder::build_responder);
        Self::built(noise, table)
    }

    fn built(noise: Result<HandshakeState, Error>, table: SharedTable) -> Result<Self, StepError> {
        match noise {
            Ok(noise) => Ok(Self {
                noise: Box::new(noise),
                table,
            }),
            Err(_) => Err(StepError::Fault("snow would not build the handshake")),
        }
    }

    /// Remembers the other side's ephemeral key decoded, so that it is decoded once.
    pub(super) fn remember(&self, point: Point) {
        self.table.lock().peer = Some(point);
    }

    /// The signer's reply for `point`: the static key's one answer.
    pub(super) fn answer(&self, point: Point, reply: SharedSecret) {
        self.table.lock().answer = Some((point, reply));
    }

    /// Writes the next act, without its version byte, into exactly `out`.
    pub(super) fn write(&mut self, out: &mut [u8]) -> Result<(), StepError> {
        let expected = out.len();
        let written = self.noise.write_message(&[], out);
        match self.outcome(written)? {
            length if length == expected => Ok(()),
            _ => Err(StepError::Fault("an act of another length was written")),
        }
    }

    /// Reads the next act, without its version byte.
    pub(super) fn read(&mut self, act: &[u8]) -> Result<(), StepError> {
        self.table.lock().opened = 0;
        let read = self.noise.read_message(act, &mut []);
        match self.outcome(read)? {
            0 => Ok(()),
            _ => Err(StepError::Fault("an act carried a payload")),
        }
    }

    /// The other side's static key: known from the start to the initiator, from act three to the responder.
    pub(super) fn remote(&self) -> Result<NodeId, StepError> {
        const UNKNOWN: StepError = StepError::Fault("the handshake ended without a remote key");
        let remote = self.noise.get_remote_static().ok_or(UNKNOWN)?;
        match self.table.lock().peer {
            Some(peer) if peer.as_bytes().as_slice() == remote => Ok(NodeId::from(peer)),
            _ => NodeId::parse(remote).map_err(|_| UNKNOWN),
        }
    }

    /// The transport keys, from the table: `snow` holds handles for them.
    pub(super) fn into_keys(self) -> Result<TransportKeys, StepError> {
        let table = self.table.lock();
        match (table.complete, table.pairs.as_slice()) {
            (true, [.., last, transport]) => keys(last, transport),
            _ => None,
        }
        .ok_or(StepError::Fault("the handshake is not complete"))
    }

    fn outcome(&self, step: Result<usize, Error>) -> Result<usize, StepError> {
        let table = self.table.lock();
        match (table.fault, step) {
            (Some(fault), _) => Err(StepError::Fault(fault)),
            (None, Ok(length)) => Ok(length),
            (None, Err(Error::Decrypt)) => Err(StepError::Tag {
                opened: table.opened,
            }),
            (None, Err(Error::Dh)) => Err(StepError::Point),
            (None, Err(_)) => Err(StepError::Fault("snow refused the step")),
        }
    }
}

impl Drop for Engine {
    /// However a handshake ends, its secrets end with it. `snow`'s handles then stand for nothing.
    fn drop(&mut self) {
        self.table.lock().wipe();
    }
}

fn builder<'a>(table: &SharedTable, local: &'a NodeId) -> Result<Builder<'a>, Error> {
    let mut params: NoiseParams = PARSED_NAME.parse()?;
    PROTOCOL_NAME.clone_into(&mut params.name);
    Builder::with_resolver(params, Box::new(Resolver(table.clone())))
        .local_private_key(local.as_bytes())?
        .prologue(PROLOGUE)
}

fn keys(last: &Secret<64>, transport: &Secret<64>) -> Option<TransportKeys> {
    let (chaining_key, _) = split(last.expose())?;
    let (forth, back) = split(transport.expose())?;
    Some(TransportKeys {
        chaining_key: Secret::build(|bytes| bytes.copy_from_slice(chaining_key)),
        initiator_to_responder: Secret::build(|bytes| bytes.copy_from_slice(forth)),
        responder_to_initiator: Secret::build(|bytes| bytes.copy_from_slice(back)),
    })
}

struct Resolver(SharedTable);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(NoRandom))
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(Secp256k1 {
            half: Half::Unset,
            public: [0; POINT_LEN],
            table: self.0.clone(),
        }))
    }

    fn resolve_hash(&self, _: &HashChoice) -> Option<Box<dyn Hash>> {
        Some(Box::new(HashSha256 {
            state: Sha256::new(),
            table: self.0.clone(),
        }))
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        Some(Box::new(ChaChaPoly {
            key: [0; KEY_LEN],
            table: self.0.clone(),
        }))
    }
}

/// The ephemeral key is handed to the handshake ready made: there is nothing to draw.
struct NoRandom;

impl Random for NoRandom {
    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::Rng)
    }
}

enum Half {
    Unset,
    /// The static key, which is elsewhere.
    Static,
    /// The ephemeral key, which is in the table.
    Ephemeral,
}

struct Secp256k1 {
    half: Half,
    public: [u8; POINT_LEN],
    table: SharedTable,
}

impl Dh for Secp256k1 {
    fn name(&self) -> &'static str {
        "secp256k1"
    }

    fn pub_len(&self) -> usize {
        POINT_LEN
    }

    fn priv_len(&self) -> usize {
        POINT_LEN
    }

    /// Not a private key: the public half of the static key that lives elsewhere.
    fn set(&mut self, public: &[u8]) {
        witness(public);
        match public.try_into() {
            Ok(public) => (self.half, self.public) = (Half::Static, public),
            Err(_) => self.table.poison("a static key of another length"),
        }
    }

    /// Takes up the ephemeral key that the table was made with.
    fn generate(&mut self, _: &mut dyn Random) -> Result<(), Error> {
        let public = self.table.lock().ephemeral.as_ref().map(LocalKey::node_id);
        let public = public.ok_or(Error::Rng)?;
        (self.half, self.public) = (Half::Ephemeral, *public.as_bytes());
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        witness(&self.public);
        &self.public
    }

    /// There is none here. `snow` asks for it only to generate a pair for its caller.
    fn privkey(&self) -> &[u8] {
        &[]
    }

    /// The handle of the result, in `out`'s first 32 bytes. `pubkey` is the point and padding.
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        witness(pubkey);
        let mut table = self.table.lock();
        let point = pubkey.get(..POINT_LEN).unwrap_or_default();
        let shared = match self.half {
            Half::Unset => Err("an ECDH without a key"),
            Half::Static => table.ecdh_elsewhere(point).map(Some),
            Half::Ephemeral => table.ecdh_ephemeral(point),
        };
        let handle = match shared {
            Ok(Some(shared)) => table.store_shared(shared),
            Ok(None) => return Err(Error::Dh),
            Err(fault) => Err(fault),
        };
        let stored = handle.and_then(|handle| put(out, &handle));
        stored.map_err(|fault| {
            table.poison(fault);
            Error::Dh
        })
    }

    /// SHA-256 of the compressed product, not the product.
    fn dh_len(&self) -> usize {
        HASH_LEN
    }
}

struct HashSha256 {
    state: Sha256,
    table: SharedTable,
}

impl Hash for HashSha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        BLOCK_LEN
    }

    fn hash_len(&self) -> usize {
        HASH_LEN
    }

    fn reset(&mut self) {
        self.state.reset();
    }

    fn input(&mut self, data: &[u8]) {
        witness(data);
        self.state.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash: [u8; HASH_LEN] = self.state.finalize_reset().into();
        if let Err(fault) = put(out, &hash) {
            self.table.poison(fault);
        }
        witness(out);
    }

    /// `snow` calls this from its own HKDF only, which is replaced below: with handles it would compute nonsense.
    fn hmac(&mut self, _: &[u8], _: &[u8], _: &mut [u8]) {
        self.table.poison("HMAC outside HKDF");
    }

    fn hkdf(
        &mut self,
        chaining_key: &[u8],
        input_key_material: &[u8],
        outputs: usize,
        out1: &mut [u8],
        out2: &mut [u8],
        _: &mut [u8],
    ) {
        witness(chaining_key);
        witness(input_key_material);
        let mut table = self.table.lock();
        let made = match outputs {
            2 => table.hkdf(chaining_key, input_key_material),
            _ => Err("BOLT 8 only knows HKDF with two outputs"),
        };
        let stored = made.and_then(|(first, second)| put(out1, &first).and(put(out2, &second)));
        if let Err(fault) = stored {
            table.poison(fault);
        }
        witness(out1);
        witness(out2);
    }
}

/// `key` is a handle. The default is none.
struct ChaChaPoly {
    key: [u8; KEY_LEN],
    table: SharedTable,
}

impl ChaChaPoly {
    fn key(&self, table: &Table) -> Result<aead::Key, &'static str> {
        let key = table
            .resolve(Kind::Second, &self.key)
            .ok_or("an unknown cipher key")?;
        aead::Key::new(key).map_err(|_| "the AEAD refused a key")
    }

    fn seal(
        &self,
        nonce: u64,
        ad: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<(), &'static str> {
        const SHORT: &str = "no room for a ciphertext";
        let (data, rest) = out.split_at_mut_checked(plain.len()).ok_or(SHORT)?;
        let tag = rest.first_chunk_mut::<TAG_LEN>().ok_or(SHORT)?;
        data.copy_from_slice(plain);
        let key = self.key(&self.table.lock())?;
        *tag = key
            .seal(nonce, ad, data)
            .map_err(|_| "the AEAD refused to encrypt")?;
        Ok(())
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_LEN]) {
        witness(key);
        self.key = *key;
    }

    /// Cannot fail by its signature: a fault leaves zeroes in `out` and poisons the table, and so the step.
    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        witness(authtext);
        witness(plaintext);
        if let Err(fault) = self.seal(nonce, authtext, plaintext, out) {
            out.fill(0);
            self.table.poison(fault);
        }
        witness(out);
        out.len().min(plaintext.len().saturating_add(TAG_LEN))
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        witness(authtext);
        witness(ciphertext);
        let mut table = self.table.lock();
        let key = self.key(&table).map_err(|fault| {
            table.poison(fault);
            Error::Decrypt
        })?;
        let (data, tag) = ciphertext
            .split_last_chunk::<TAG_LEN>()
            .ok_or(Error::Decrypt)?;
        let out = out.get_mut(..data.len()).ok_or(Error::Decrypt)?;
        out.copy_from_slice(data);
        key.open(nonce, authtext, out, tag)
            .map_err(|_| Error::Decrypt)?;
        table.opened = table.opened.saturating_add(1);
        witness(out);
        Ok(out.len())
    }

    /// BOLT 8 rotates by HKDF, not by Noise's rekey.
    fn rekey(&mut self) {
        self.table.poison("Noise's rekey");
    }
}

/// Writes 32 bytes to the front of one of `snow`'s wider buffers.
fn put(out: &mut [u8], bytes: &[u8; HASH_LEN]) -> Result<(), &'static str> {
    let front = out
        .first_chunk_mut::<HASH_LEN>()
        .ok_or("a buffer too short for a hash")?;
    *front = *bytes;
    Ok(())
}

/// Everything that passes between `snow` and this file passes here. Under test it is recorded and searched for secrets.
#[inline]
fn witness(bytes: &[u8]) {
    #[cfg(test)]
    super::tests::record(bytes);
    #[cfg(not(test))]
    let _ = bytes;
}

#[cfg(test)]
#[path = "noise_tests.rs"]
mod tests;
