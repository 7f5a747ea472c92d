//! BOLT 8 said once more, from the text of the specification, as plainly as can be: the judge of ours, and the peer on the other
//! side. It shares no code with the library, only the primitives' crates, and it is not in a hurry.
//!
//! The names are the specification's (`h`, `ck`, `e`, `re`, `s`, `rs`, `temp_k2`, `sk`, `rk`).

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _,
    aead::{Aead as _, Payload},
};
use hkdf::Hkdf;
use secp256k1::{PublicKey, SECP256K1, SecretKey, ecdh::SharedSecret};
use sha2::{Digest as _, Sha256};

/// Why an act is refused: BOLT 8's *Receiver Actions*, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Length,
    Version,
    Ciphertext,
    Point,
    Tag,
}

impl Refusal {
    /// The word of BOLT 8's test vectors, in lower case.
    pub fn word(self, act: u8) -> String {
        let what = match self {
            Self::Length => "read_failed",
            Self::Version => "bad_version",
            Self::Ciphertext => "bad_ciphertext",
            Self::Point => "bad_pubkey",
            Self::Tag => "bad_tag",
        };
        format!("act{act}_{what}")
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn hkdf(salt: &[u8; 32], ikm: &[u8]) -> ([u8; 32], [u8; 32]) {
    let mut okm = [0; 64];
    Hkdf::<Sha256>::new(Some(salt), ikm)
        .expand(&[], &mut okm)
        .unwrap();
    (okm[..32].try_into().unwrap(), okm[32..].try_into().unwrap())
}

fn ecdh(k: &SecretKey, rk: &PublicKey) -> [u8; 32] {
    SharedSecret::new(rk, k).secret_bytes()
}

/// "the nonce `n` encoded as 32 zero bits, followed by a *little-endian* 64-bit value"
fn nonce(n: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&n.to_le_bytes());
    nonce
}

fn encrypt_with_ad(k: &[u8; 32], n: u64, ad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let payload = Payload {
        msg: plaintext,
        aad: ad,
    };
    ChaCha20Poly1305::new(&(*k).into())
        .encrypt(&nonce(n).into(), payload)
        .unwrap()
}

fn decrypt_with_ad(k: &[u8; 32], n: u64, ad: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
    let payload = Payload {
        msg: ciphertext,
        aad: ad,
    };
    ChaCha20Poly1305::new(&(*k).into())
        .decrypt(&nonce(n).into(), payload)
        .ok()
}

pub fn public(k: &SecretKey) -> PublicKey {
    PublicKey::from_secret_key(SECP256K1, k)
}

/// The secret key of a byte 32 times, as BOLT 8's test vectors have theirs; neither of none nor beyond the order.
pub fn secret(byte: u8) -> SecretKey {
    SecretKey::from_byte_array([byte.clamp(1, 254); 32]).unwrap()
}

/// What both sides keep: § Handshake State.
#[derive(Clone)]
struct State {
    ck: [u8; 32],
    h: [u8; 32],
}

impl State {
    /// § Handshake State Initialization, of the responder's static key.
    fn new(rs: &PublicKey) -> Self {
        let ck = sha256(&[b"Noise_XK_secp256k1_ChaChaPoly_SHA256"]);
        let h = sha256(&[&ck, b"lightning"]);
        let h = sha256(&[&h, &rs.serialize()]);
        Self { ck, h }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.h = sha256(&[&self.h, data]);
    }

    fn mix_key(&mut self, ss: &[u8; 32]) -> [u8; 32] {
        let (ck, temp_k) = hkdf(&self.ck, ss);
        self.ck = ck;
        temp_k
    }

    /// The second half of acts one and two, on the side that sends: an empty plaintext's tag.
    fn seal_empty(&mut self, temp_k: &[u8; 32]) -> Vec<u8> {
        let c = encrypt_with_ad(temp_k, 0, &self.h, &[]);
        self.mix_hash(&c);
        c
    }

    fn open_empty(&mut self, temp_k: &[u8; 32], c: &[u8]) -> Result<(), Refusal> {
        decrypt_with_ad(temp_k, 0, &self.h, c).ok_or(Refusal::Tag)?;
        self.mix_hash(c);
        Ok(())
    }

    fn split(&self, initiator: bool) -> Transport {
        let (sk, rk) = hkdf(&self.ck, &[]);
        let half = |k| Half {
            ck: self.ck,
            k,
            n: 0,
        };
        let (send, receive) = if initiator { (sk, rk) } else { (rk, sk) };
        Transport {
            send: half(send),
            receive: half(receive),
            length: None,
        }
    }
}

/// Version, ephemeral key and tag of act one or two.
fn read_act(act: &[u8]) -> Result<(PublicKey, &[u8]), Refusal> {
    if act.len() != 50 {
        return Err(Refusal::Length);
    }
    if act[0] != 0 {
        return Err(Refusal::Version);
    }
    let re = PublicKey::from_slice(&act[1..34]).map_err(|_| Refusal::Point)?;
    Ok((re, &act[34..]))
}

fn write_act(e: &PublicKey, c: &[u8]) -> [u8; 50] {
    let mut act = [0; 50];
    act[1..34].copy_from_slice(&e.serialize());
    act[34..].copy_from_slice(c);
    act
}

/// The dialling side.
#[derive(Clone)]
pub struct Initiator {
    state: State,
    s: SecretKey,
    e: SecretKey,
    re: Option<PublicKey>,
    temp_k2: [u8; 32],
}

impl Initiator {
    /// § Act One, Sender Actions.
    pub fn dial(s: SecretKey, e: SecretKey, rs: &PublicKey) -> (Self, [u8; 50]) {
        Self::dial_misled(s, e, rs, rs)
    }

    /// The same to one whose signer answers with another key: see [`Responder::misled`].
    pub fn dial_misled(
        s: SecretKey,
        e: SecretKey,
        rs: &PublicKey,
        answers: &PublicKey,
    ) -> (Self, [u8; 50]) {
        let mut state = State::new(rs);
        state.mix_hash(&public(&e).serialize());
        let temp_k1 = state.mix_key(&ecdh(&e, answers));
        let c = state.seal_empty(&temp_k1);
        let act = write_act(&public(&e), &c);
        let initiator = Self {
            state,
            s,
            e,
            re: None,
            temp_k2: [0; 32],
        };
        (initiator, act)
    }

    /// § Act Two, Receiver Actions.
    pub fn act_two(&mut self, act: &[u8]) -> Result<(), Refusal> {
        let (re, c) = read_act(act)?;
        self.state.mix_hash(&re.serialize());
        let temp_k2 = self.state.mix_key(&ecdh(&self.e, &re));
        self.state.open_empty(&temp_k2, c)?;
        (self.re, self.temp_k2) = (Some(re), temp_k2);
        Ok(())
    }

    /// § Act Three, Sender Actions.
    pub fn act_three(self) -> ([u8; 66], Transport) {
        let s = public(&self.s).serialize();
        self.act_three_saying(&s)
    }

    /// The same by one who encrypts these 33 bytes where its static key should be, and does all else as it should.
    pub fn act_three_saying(mut self, claimed: &[u8; 33]) -> ([u8; 66], Transport) {
        let c = encrypt_with_ad(&self.temp_k2, 1, &self.state.h, claimed);
        self.state.mix_hash(&c);
        let re = self.re.expect("act two has passed");
        let temp_k3 = self.state.mix_key(&ecdh(&self.s, &re));
        let t = encrypt_with_ad(&temp_k3, 0, &self.state.h, &[]);
        let mut act = [0; 66];
        act[1..50].copy_from_slice(&c);
        act[50..].copy_from_slice(&t);
        (act, self.state.split(true))
    }
}

/// The dialled side.
#[derive(Clone)]
pub struct Responder {
    state: State,
    s: SecretKey,
    e: SecretKey,
    temp_k2: [u8; 32],
}

impl Responder {
    pub fn new(s: SecretKey, e: SecretKey) -> Self {
        Self {
            state: State::new(&public(&s)),
            s,
            e,
            temp_k2: [0; 32],
        }
    }

    /// One whose static key is `rs`, and whose signer answers with another key: what it then takes is what fits that answer.
    pub fn misled(rs: &PublicKey, answers: SecretKey, e: SecretKey) -> Self {
        Self {
            state: State::new(rs),
            ..Self::new(answers, e)
        }
    }

    /// § Act One, Receiver Actions; § Act Two, Sender Actions.
    pub fn act_one(&mut self, act: &[u8]) -> Result<[u8; 50], Refusal> {
        let (re, c) = read_act(act)?;
        self.state.mix_hash(&re.serialize());
        let temp_k1 = self.state.mix_key(&ecdh(&self.s, &re));
        self.state.open_empty(&temp_k1, c)?;
        let e = public(&self.e);
        self.state.mix_hash(&e.serialize());
        self.temp_k2 = self.state.mix_key(&ecdh(&self.e, &re));
        let c = self.state.seal_empty(&self.temp_k2.clone());
        Ok(write_act(&e, &c))
    }

    /// § Act Three, Receiver Actions.
    pub fn act_three(mut self, act: &[u8]) -> Result<(PublicKey, Transport), Refusal> {
        if act.len() != 66 {
            return Err(Refusal::Length);
        }
        if act[0] != 0 {
            return Err(Refusal::Version);
        }
        let (c, t) = act[1..].split_at(49);
        let rs = decrypt_with_ad(&self.temp_k2, 1, &self.state.h, c).ok_or(Refusal::Ciphertext)?;
        self.state.mix_hash(c);
        let rs = PublicKey::from_slice(&rs).map_err(|_| Refusal::Point)?;
        let temp_k3 = self.state.mix_key(&ecdh(&self.e, &rs));
        decrypt_with_ad(&temp_k3, 0, &self.state.h, t).ok_or(Refusal::Tag)?;
        Ok((rs, self.state.split(false)))
    }
}

/// One direction: § Lightning Message Specification, § Lightning Message Key Rotation.
#[derive(Clone)]
struct Half {
    ck: [u8; 32],
    k: [u8; 32],
    n: u64,
}

impl Half {
    /// "a key is to be rotated after a party encrypts or decrypts 1000 times with it"
    fn key(&mut self) -> ([u8; 32], u64) {
        if self.n == 1000 {
            (self.ck, self.k) = hkdf(&self.ck, &self.k);
            self.n = 0;
        }
        self.n += 1;
        (self.k, self.n - 1)
    }
}

/// Both directions after the handshake.
#[derive(Clone)]
pub struct Transport {
    send: Half,
    receive: Half,
    /// The length of the body that comes next.
    length: Option<usize>,
}

/// Which tag does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Header,
    Body,
}

impl Transport {
    pub fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        let length = u16::try_from(message.len()).expect("the caller keeps to 65535 bytes");
        let (k, n) = self.send.key();
        let mut frame = encrypt_with_ad(&k, n, &[], &length.to_be_bytes());
        let (k, n) = self.send.key();
        frame.extend(encrypt_with_ad(&k, n, &[], message));
        frame
    }

    /// Goes on as if so many messages had been sealed.
    pub fn pass_over(&mut self, messages: u16) {
        for _ in 0..2 * u32::from(messages) {
            self.send.key();
        }
    }

    /// The other end's state: what we seal it opens.
    pub fn mirrored(&self) -> Self {
        Self {
            send: self.receive.clone(),
            receive: self.send.clone(),
            length: None,
        }
    }

    /// Takes the next message off the front of `stream`; `None` while bytes are missing.
    pub fn open(&mut self, stream: &mut &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        let length = if let Some(length) = self.length {
            length
        } else {
            let Some((header, rest)) = stream.split_at_checked(18) else {
                return Ok(None);
            };
            let (k, n) = self.receive.key();
            let length = decrypt_with_ad(&k, n, &[], header).ok_or(Broken::Header)?;
            *stream = rest;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            *self.length.insert(length)
        };
        let Some((body, rest)) = stream.split_at_checked(length + 16) else {
            return Ok(None);
        };
        let (k, n) = self.receive.key();
        let message = decrypt_with_ad(&k, n, &[], body).ok_or(Broken::Body)?;
        *stream = rest;
        self.length = None;
        Ok(Some(message))
    }
}
