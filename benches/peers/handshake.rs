//! A handshake, both sides in one thread: ours, the sum of the primitives that no implementation can do without, and LDK's. In processor time of
//! the thread.

use std::hint::black_box;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use pilotlight::brontide::Session;
use secp256k1::ecdh::SharedSecret;
use secp256k1::{PublicKey, SECP256K1, SecretKey};
use sha2::{Digest, Sha256};

use crate::Effort;
use crate::child::thread_time;
use crate::ldk::Pair;
use crate::report::{Report, Row, Target};
use crate::shake::{key, shake};

/// The two ends of a session.
pub(crate) fn sessions() -> (Session, Session) {
    shake(&key(1), &key(2))
}

pub(crate) fn measure(effort: Effort, report: &mut Report) {
    let (alice, bob) = (key(1), key(2));
    let mut pair = Pair::new();
    let (mut ours, mut floor, mut ldk) = (Vec::new(), Vec::new(), Vec::new());
    let (turns, times) = (effort.rounds * effort.or(20, 1), effort.or(20, 1));
    for _ in 0..turns {
        let micros = |start: f64| (thread_time() - start) * 1e6 / f64::from(times);
        let start = thread_time();
        for _ in 0..times {
            let _ = black_box(shake(&alice, &bob));
        }
        ours.push(micros(start));
        let start = thread_time();
        for _ in 0..times {
            primitives();
        }
        floor.push(micros(start));
        let mut took = 0.0;
        for _ in 0..times {
            let start = thread_time();
            let (a, b) = pair.shake();
            took += thread_time() - start;
            // LDK takes a second connection of the same peer only when the first is gone.
            pair.hang_up(&a, &b);
        }
        ldk.push(took * 1e6 / f64::from(times));
    }
    let row = Row::new("handshake", "handshake, both sides", "µs")
        .ours(ours.clone())
        .ldk(ldk)
        .target(Target::Better(1.0));
    report.add(&row);
    let row = Row::new(
        "handshake",
        "handshake, over the sum of its primitives",
        "µs",
    )
    .ours(ours)
    .floor(floor)
    .target(Target::Floor(1.06));
    report.add(&row);
}

/// BOLT 8's acts as bare calls of the same libraries: 2 keys made, 6 ECDHs, 4 points decoded, 8 HKDFs, 4 tags made and 4 checked (each
/// under a fresh key), and the running hash of either side.
fn primitives() {
    let secret = |byte| SecretKey::from_byte_array(black_box([byte; 32])).unwrap();
    let (s, e) = (secret(1), secret(3));
    let (rs, re) = (secret(2), secret(4));
    // Made outside of a handshake in real life, and here of no weight: only one of the four public keys is computed twice.
    let ephemeral = [
        PublicKey::from_secret_key(SECP256K1, &e),
        PublicKey::from_secret_key(SECP256K1, &re),
    ];
    for point in [ephemeral[0], ephemeral[1]] {
        let bytes = point.serialize();
        for _ in 0..2 {
            black_box(PublicKey::from_slice(black_box(&bytes)).unwrap());
        }
    }
    let [a, b] = &ephemeral;
    for (secret, point) in [(&e, b), (&rs, a), (&e, b), (&re, a), (&s, b), (&re, a)] {
        black_box(SharedSecret::new(black_box(point), secret));
    }
    let mut secrets = [0; 64];
    for _ in 0..8 {
        let hkdf = Hkdf::<Sha256>::new(Some(&secrets[..32]), black_box(&[7; 32]));
        hkdf.expand(&[], &mut secrets).unwrap();
    }
    for length in [0_usize, 0, 33, 0] {
        seal_and_open(&secrets, length);
    }
    let mut hash = [0_u8; 32];
    // Of either side: prologue, the responder's key, then key and tag of acts one and two, ciphertext and tag of act three.
    for length in [9_usize, 33, 33, 16, 33, 16, 49, 16].repeat(2) {
        let mut state = Sha256::new();
        state.update(hash);
        state.update(&[0; 64][..length]);
        hash = state.finalize().into();
    }
    black_box((secrets, hash));
}

fn seal_and_open(secrets: &[u8; 64], length: usize) {
    let mut data = [0; 33];
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let key = || LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &secrets[32..]).unwrap());
    let (data, hash) = (&mut data[..length], &secrets[..32]);
    let tag = key()
        .seal_in_place_separate_tag(nonce(), Aad::from(hash), data)
        .unwrap();
    key()
        .open_in_place_separate_tag(nonce(), Aad::from(hash), tag.as_ref(), data)
        .unwrap();
    black_box(data);
}
