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
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::{
        super::tests::{Seeded, hex, recorded, unhex, vectors},
        *,
    };
    use vectors::{ACT_ONE, ACT_THREE, ACT_TWO, CK, KEYS, MIXED, RK, SK};

    fn key(hex: &str) -> LocalKey {
        LocalKey::from_bytes(&mut unhex(hex).try_into().unwrap()).unwrap()
    }

    fn initiator() -> Engine {
        let local = key(KEYS.initiator_static).node_id();
        let remote = key(KEYS.responder_static).node_id();
        Engine::initiator(local, remote, key(KEYS.initiator_ephemeral))
            .ok()
            .unwrap()
    }

    fn responder() -> Engine {
        let local = key(KEYS.responder_static).node_id();
        Engine::responder(local, key(KEYS.responder_ephemeral))
            .ok()
            .unwrap()
    }

    /// An act without its version byte.
    fn body(act: &str) -> Vec<u8> {
        unhex(act)[1..].to_vec()
    }

    fn point_of(body: &[u8]) -> Point {
        Point::parse(&body[..POINT_LEN]).unwrap()
    }

    fn answered(engine: &Engine, local: &LocalKey, point: Point) {
        engine.answer(point, local.ecdh(&point));
    }

    /// `ss`, `ck` and the temporary key of one act, as the table holds them.
    fn mixed(engine: &Engine, act: usize) -> [String; 3] {
        let table = engine.table.lock();
        assert_eq!((table.shared.len(), table.pairs.len() >= act), (act, true));
        let (ck, temp) = split(table.pairs[act - 1].expose()).unwrap();
        [hex(table.shared[act - 1].expose()), hex(ck), hex(temp)]
    }

    fn published(act: usize) -> [String; 3] {
        let mixed = &MIXED[act - 1];
        [mixed.shared, mixed.chaining_key, mixed.cipher_key].map(str::to_owned)
    }

    fn transport(keys: &TransportKeys) -> [String; 3] {
        [
            &keys.chaining_key,
            &keys.initiator_to_responder,
            &keys.responder_to_initiator,
        ]
        .map(|secret| hex(secret.expose()))
    }

    #[test]
    fn the_initiator_s_internals_are_the_published_ones() {
        let mut engine = initiator();
        let mut act = [0; 49];
        engine.write(&mut act).unwrap();
        assert_eq!(act.as_slice(), body(ACT_ONE));
        assert_eq!(mixed(&engine, 1), published(1));
        engine.read(&body(ACT_TWO)).unwrap();
        assert_eq!(mixed(&engine, 2), published(2));
        answered(
            &engine,
            &key(KEYS.initiator_static),
            point_of(&body(ACT_TWO)),
        );
        let mut act = [0; 65];
        engine.write(&mut act).unwrap();
        assert_eq!(act.as_slice(), body(ACT_THREE));
        assert_eq!(mixed(&engine, 3), published(3));
        assert_eq!(transport(&engine.into_keys().ok().unwrap()), [CK, SK, RK]);
    }

    #[test]
    fn the_responder_s_internals_are_the_published_ones() {
        let mut engine = responder();
        answered(
            &engine,
            &key(KEYS.responder_static),
            point_of(&body(ACT_ONE)),
        );
        engine.read(&body(ACT_ONE)).unwrap();
        assert_eq!(mixed(&engine, 1), published(1));
        let mut act = [0; 49];
        engine.write(&mut act).unwrap();
        assert_eq!(act.as_slice(), body(ACT_TWO));
        assert_eq!(mixed(&engine, 2), published(2));
        engine.read(&body(ACT_THREE)).unwrap();
        assert_eq!(mixed(&engine, 3), published(3));
        assert_eq!(transport(&engine.into_keys().ok().unwrap()), [CK, SK, RK]);
    }

    /// Both sides of one handshake; what the tables hold at its end, and the private keys that went in.
    fn handshake_with_secrets(private: [[u8; 32]; 4]) -> Vec<Vec<u8>> {
        let [s_i, e_i, s_r, e_r] = private.map(|mut key| LocalKey::from_bytes(&mut key).unwrap());
        let (id_i, id_r) = (s_i.node_id(), s_r.node_id());
        let mut a = Engine::initiator(id_i, id_r, e_i).ok().unwrap();
        let mut b = Engine::responder(id_r, e_r).ok().unwrap();
        let (mut one, mut two, mut three) = ([0; 49], [0; 49], [0; 65]);
        a.write(&mut one).unwrap();
        answered(&b, &s_r, point_of(&one));
        b.read(&one).unwrap();
        b.write(&mut two).unwrap();
        a.read(&two).unwrap();
        answered(&a, &s_i, point_of(&two));
        a.write(&mut three).unwrap();
        b.read(&three).unwrap();
        assert_eq!((a.remote(), b.remote()), (Ok(id_r), Ok(id_i)));
        let mut secrets: Vec<Vec<u8>> = private.iter().map(|key| key.to_vec()).collect();
        for engine in [&a, &b] {
            let table = engine.table.lock();
            assert_eq!((table.shared.len(), table.pairs.len()), (3, 4));
            secrets.extend(table.shared.iter().map(|shared| shared.expose().to_vec()));
            let halves = table.pairs.iter().flat_map(|pair| pair.expose().chunks(32));
            secrets.extend(halves.map(<[u8]>::to_vec));
        }
        let (a, b) = (a.into_keys().ok().unwrap(), b.into_keys().ok().unwrap());
        assert_eq!(transport(&a), transport(&b));
        secrets
    }

    /// Whether any 16 bytes in a row of a secret occur in what passed.
    fn leaks(passed: &[Vec<u8>], secret: &[u8]) -> bool {
        let parts: Vec<&[u8]> = secret.windows(16).collect();
        let mut windows = passed.iter().flat_map(|bytes| bytes.windows(16));
        windows.any(|window| parts.contains(&window))
    }

    #[test]
    fn no_secret_ever_passes_through_snow() {
        let published = [
            KEYS.initiator_static,
            KEYS.initiator_ephemeral,
            KEYS.responder_static,
            KEYS.responder_ephemeral,
        ];
        let mut random = Seeded(8);
        let mut all = vec![published.map(|key| unhex(key).try_into().unwrap())];
        all.extend((0..8).map(|_| std::array::from_fn(|_| random.bytes32())));
        for private in all {
            let (secrets, passed) = recorded(|| handshake_with_secrets(private));
            assert_eq!(secrets.len(), 4 + 2 * (3 + 8));
            for secret in &secrets {
                assert!(!leaks(&passed, secret));
            }
            // The net is not empty: public values and handles were caught in it, and a secret would be.
            let public = LocalKey::from_bytes(&mut private[0].clone()).unwrap();
            assert!(leaks(&passed, public.node_id().as_bytes()));
            assert!(leaks(&passed, &Sha256::digest(PROTOCOL_NAME)));
            assert!(passed.len() > 100);
            assert!(leaks(
                &[[&[0; 3], secrets[9].as_slice()].concat()],
                &secrets[9]
            ));
        }
    }

    #[test]
    fn the_published_secrets_are_among_those_searched_for() {
        let private = [
            KEYS.initiator_static,
            KEYS.initiator_ephemeral,
            KEYS.responder_static,
            KEYS.responder_ephemeral,
        ];
        let secrets = handshake_with_secrets(private.map(|key| unhex(key).try_into().unwrap()));
        let mixed = MIXED
            .iter()
            .flat_map(|m| [m.shared, m.chaining_key, m.cipher_key]);
        for known in mixed.chain([CK, SK, RK]).chain(private) {
            assert!(secrets.contains(&unhex(known)));
        }
    }

    fn is_wiped(table: &SharedTable) -> bool {
        let table = table.lock();
        let empty = table.shared.is_empty() && table.pairs.is_empty();
        empty && table.ephemeral.is_none() && table.answer.is_none() && table.fault.is_some()
    }

    #[test]
    fn the_table_is_wiped_however_the_handshake_ends() {
        // Let go before it began, and in the middle with a reply that was not used.
        let engine = initiator();
        let table = engine.table.clone();
        assert!(!is_wiped(&table));
        drop(engine);
        assert!(is_wiped(&table));

        let mut engine = initiator();
        let table = engine.table.clone();
        engine.write(&mut [0; 49]).unwrap();
        engine.read(&body(ACT_TWO)).unwrap();
        answered(
            &engine,
            &key(KEYS.initiator_static),
            point_of(&body(ACT_TWO)),
        );
        drop(engine);
        assert!(is_wiped(&table));

        // Completed; and asked for keys too soon.
        let mut engine = initiator();
        let table = engine.table.clone();
        engine.write(&mut [0; 49]).unwrap();
        engine.read(&body(ACT_TWO)).unwrap();
        answered(
            &engine,
            &key(KEYS.initiator_static),
            point_of(&body(ACT_TWO)),
        );
        engine.write(&mut [0; 65]).unwrap();
        assert!(engine.into_keys().is_ok());
        assert!(is_wiped(&table));

        let engine = responder();
        let table = engine.table.clone();
        assert!(matches!(engine.into_keys(), Err(StepError::Fault(_))));
        assert!(is_wiped(&table));
    }

    #[test]
    fn the_static_key_answers_for_one_point_and_once() {
        let local = key(KEYS.responder_static);
        let (act, other) = (body(ACT_ONE), key(KEYS.initiator_static).point());
        let fault = StepError::Fault("the static key was asked for a point that nobody answered");

        let mut engine = responder();
        assert_eq!(engine.read(&act), Err(fault), "no reply at all");

        let mut engine = responder();
        engine.answer(other, local.ecdh(&other));
        assert_eq!(engine.read(&act), Err(fault), "a reply for another point");

        let engine = responder();
        answered(&engine, &local, point_of(&act));
        let mut table = engine.table.lock();
        assert!(table.ecdh_elsewhere(&act[..POINT_LEN]).is_ok());
        assert!(table.ecdh_elsewhere(&act[..POINT_LEN]).is_err());
    }

    #[test]
    fn a_fault_stays_whatever_is_tried_next() {
        let mut engine = responder();
        let fault = engine.read(&body(ACT_ONE)).unwrap_err();
        answered(
            &engine,
            &key(KEYS.responder_static),
            point_of(&body(ACT_ONE)),
        );
        assert_eq!(engine.read(&body(ACT_ONE)), Err(fault));
        assert_eq!(engine.write(&mut [0; 49]), Err(fault));
    }

    /// An initiator after act one, and its parts as `snow` has them.
    fn parts() -> (Engine, HashSha256, ChaChaPoly) {
        let mut engine = initiator();
        engine.write(&mut [0; 49]).unwrap();
        let (state, table) = (Sha256::new(), engine.table.clone());
        let hash = HashSha256 { state, table };
        let table = engine.table.clone();
        let cipher = ChaChaPoly {
            key: [0; KEY_LEN],
            table,
        };
        (engine, hash, cipher)
    }

    fn faults(engine: &mut Engine) -> bool {
        matches!(engine.read(&body(ACT_TWO)), Err(StepError::Fault(_)))
    }

    #[test]
    fn a_cipher_key_that_is_no_handle_is_a_fault() {
        let other = {
            let table = SharedTable::new(key(KEYS.responder_static));
            table.lock().handle(Kind::Second, 0)
        };
        let (engine, ..) = parts();
        let table = engine.table.lock();
        let right = table.handle(Kind::Second, 0);
        let chaining = table.handle(Kind::First, 0);
        let unmade = table.handle(Kind::Second, 1);
        let mut secret = [0; KEY_LEN];
        secret.copy_from_slice(&unhex(MIXED[0].cipher_key));
        drop(table);
        for wrong in [[0; KEY_LEN], other, chaining, unmade, secret] {
            let (mut engine, _, mut cipher) = parts();
            cipher.set(&wrong);
            let mut out = [9; 36];
            assert_eq!(cipher.encrypt(0, &[], &[5; 20], &mut out), 36);
            assert_eq!(out, [0; 36], "nothing is left that looks like a ciphertext");
            assert!(faults(&mut engine));
            let (mut engine, _, mut cipher) = parts();
            cipher.set(&wrong);
            assert!(cipher.decrypt(0, &[], &[5; 20], &mut [0; 4]).is_err());
            assert!(faults(&mut engine));
        }
        let (mut engine, _, mut cipher) = parts();
        cipher.set(&right);
        assert_eq!(cipher.encrypt(0, &[], &[5; 20], &mut [0; 36]), 36);
        assert!(!faults(&mut engine), "the right handle is none");
    }

    #[test]
    fn a_ciphertext_without_room_is_a_fault_and_no_panic() {
        for (plain, room) in [(20, 35), (20, 19), (1, 0), (0, 15)] {
            let (mut engine, _, mut cipher) = parts();
            let handle = engine.table.lock().handle(Kind::Second, 0);
            cipher.set(&handle);
            let written = cipher.encrypt(0, &[], &vec![5; plain], &mut vec![0; room]);
            assert_eq!(written, room);
            assert!(faults(&mut engine));
        }
    }

    #[test]
    fn an_hkdf_that_bolt_8_does_not_make_is_a_fault() {
        let (engine, ..) = parts();
        let table = engine.table.lock();
        let (ck, shared) = (table.handle(Kind::First, 0), table.handle(Kind::Shared, 0));
        let public = table.protocol_hash;
        drop(table);
        let wrong: [(&[u8], &[u8], usize); 6] = [
            (&public, &shared, 2),   // the public chaining key, but not the first time
            (&[0; 32], &shared, 2),  // no handle
            (&ck, &[0; 32], 2),      // no handle
            (&shared, &ck, 2),       // of the wrong kind
            (&ck, &shared, 3),       // three outputs
            (&ck[..31], &shared, 2), // a short handle
        ];
        for (salt, ikm, outputs) in wrong {
            let (mut engine, mut hash, _) = parts();
            let (mut one, mut two, mut three) = ([0; 64], [0; 64], [0; 64]);
            hash.hkdf(salt, ikm, outputs, &mut one, &mut two, &mut three);
            assert_eq!((one, two, three), ([0; 64], [0; 64], [0; 64]));
            assert!(faults(&mut engine));
        }
        let (mut engine, mut hash, mut cipher) = parts();
        hash.hmac(&[1], &[2], &mut [0; 32]);
        assert!(faults(&mut engine));
        let (mut other, ..) = parts();
        cipher.table = other.table.clone();
        cipher.rekey();
        assert!(faults(&mut other));
    }

    #[test]
    fn the_first_chaining_key_is_the_protocol_s_name_and_nothing_else() {
        for salt in [[0; 32], Sha256::digest(PARSED_NAME).into()] {
            let engine = initiator();
            let mut table = engine.table.lock();
            let point = key(KEYS.responder_static).point();
            let shared = key(KEYS.initiator_ephemeral).ecdh(&point);
            let shared = table.store_shared(shared).unwrap();
            assert_eq!(table.hkdf(&salt, &shared), Err("an unknown chaining key"));
            let public = table.protocol_hash;
            assert!(table.hkdf(&public, &shared).is_ok());
        }
    }

    #[test]
    fn a_handle_says_what_it_is_and_whose() {
        let engine = initiator();
        let handle = engine.table.lock().handle(Kind::Second, 2);
        assert_eq!(&handle[..14], b"not a secret: ");
        assert_eq!(handle[14..16], [Kind::Second as u8, 2]);
        let public = key(KEYS.initiator_ephemeral).node_id();
        assert_eq!(handle[16..], public.as_bytes()[1..17]);
    }
}
