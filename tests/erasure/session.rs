//! Handshakes and sessions without I/O: both roles, finished, failed and in a panic; three rotations each way.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;
use hkdf::Hkdf;
use pilotlight::brontide::{AwaitActOne, InitiatorStart, MESSAGES_PER_KEY, Session};
use pilotlight::node_id::{LocalKey, Point};
use sha2::{Digest, Sha256};

use crate::search::{Residue, search};
use crate::watchdog::{Watch, scrub};

/// Whose a registered secret is, in what is printed.
pub(crate) const KEY: u8 = 1;
pub(crate) const HANDSHAKE: u8 = 2;

fn hkdf(salt: &[u8; 32], ikm: &[u8]) -> ([u8; 32], [u8; 32]) {
    let mut okm = [0; 64];
    let hkdf = Hkdf::<Sha256>::new(Some(salt), ikm);
    hkdf.expand(&[], &mut okm).unwrap();
    (okm[..32].try_into().unwrap(), okm[32..].try_into().unwrap())
}

/// Registers, as that owner's, all the secrets of a handshake with these ECDHs, in the order `es`, `ee`, `se`, and of `rotations` keys that follow each way.
/// The transport's keys are the next owner's, and their successors the one's after. From BOLT 8's text: none of them needs the hash of the transcript.
pub(crate) fn register_as(watch: &Watch, owner: u8, ecdhs: [[u8; 32]; 3], rotations: usize) {
    let mut ck: [u8; 32] = Sha256::digest("Noise_XK_secp256k1_ChaChaPoly_SHA256").into();
    for shared in ecdhs {
        let (next, temp) = hkdf(&ck, &shared);
        ck = next;
        for secret in [&shared, &ck, &temp] {
            watch.register(owner, secret);
        }
    }
    let (sk, rk) = hkdf(&ck, &[]);
    for key in [sk, rk] {
        watch.register(owner + 1, &key);
        let (mut ck, mut key) = (ck, key);
        for _ in 0..rotations {
            (ck, key) = hkdf(&ck, &key);
            watch.register(owner + 2, &ck);
            watch.register(owner + 2, &key);
        }
    }
}

fn key(number: u8) -> LocalKey {
    LocalKey::from_bytes(&mut bytes(number)).unwrap()
}

/// The secret key of that number.
pub(crate) fn bytes(number: u8) -> [u8; 32] {
    Sha256::digest([number, 0x70, 0x33]).into()
}

fn shared(key: &LocalKey, point: &Point) -> [u8; 32] {
    *key.ecdh(point).expose()
}

/// Registers what two ends with keys of these numbers have between them: static and ephemeral of who dials, then of who answers.
fn register_pair(watch: &Watch, [s, e, rs, re]: [u8; 4], rotations: usize) {
    for number in [s, e, rs, re] {
        watch.register(KEY, &bytes(number));
    }
    let (s, e, rs, re) = (key(s), key(e), key(rs), key(re));
    let ecdhs = [
        shared(&e, &rs.point()),
        shared(&e, &re.point()),
        shared(&s, &re.point()),
    ];
    register_as(watch, HANDSHAKE, ecdhs, rotations);
    scrub();
}

const NUMBERS: [u8; 4] = [11, 12, 13, 14];

/// A whole handshake between two ends of ours.
fn sessions() -> (Session, Session) {
    let [s, e, rs, re] = NUMBERS;
    let (dialling, answering) = (key(s), key(rs));
    let (one, act_one) =
        InitiatorStart::new(dialling.node_id(), answering.node_id(), key(e)).unwrap();
    let two = AwaitActOne::new(answering.node_id(), key(re))
        .act_one(&act_one)
        .unwrap();
    let secret = answering.ecdh(&two.request().point);
    let (three, act_two) = two.resume(secret).unwrap();
    let one = one.act_two(&act_two).unwrap();
    let secret = dialling.ecdh(&one.request().point);
    let (act_three, ours) = one.resume(secret).unwrap();
    let theirs = three.act_three(&act_three).unwrap();
    (ours.into_session(), theirs.into_session())
}

/// So many messages each way.
fn talk(ours: &mut Session, theirs: &mut Session, messages: u64) {
    let mut wire = BytesMut::new();
    for number in 0..messages {
        for ours_speak in [true, false] {
            let (from, to) = if ours_speak {
                (&mut *ours, &mut *theirs)
            } else {
                (&mut *theirs, &mut *ours)
            };
            from.seal(&number.to_be_bytes(), &mut wire).unwrap();
            let message = to.open(&mut wire).unwrap().unwrap();
            assert_eq!(&message[..], &number.to_be_bytes());
        }
    }
}

const ROTATIONS: usize = 3;

fn all_messages() -> u64 {
    MESSAGES_PER_KEY * ROTATIONS as u64 + 1
}

/// What a test demands of all that ran: nothing in a freed block; and says what the search of the memory has found.
#[track_caller]
pub(crate) fn judge(watch: &Watch, what: &str) -> Residue {
    let (_, freed) = watch.counts();
    let residue = search();
    println!(
        "{what}: {freed} blocks freed, none with a secret; left in the heap {}, elsewhere (stacks) {} halves",
        residue.heap(),
        residue.elsewhere()
    );
    assert_eq!(watch.found(), [], "secrets in freed blocks: owner and size");
    residue
}

#[test]
fn p3_handshake_and_session_leave_no_secret_in_a_freed_block_through_three_rotations() {
    let watch = Watch::begin();
    register_pair(&watch, NUMBERS, ROTATIONS);
    let (mut ours, mut theirs) = sessions();
    talk(&mut ours, &mut theirs, all_messages());
    assert_eq!(ours.rotations(), (3, 3));
    drop((ours, theirs));
    assert_eq!(judge(&watch, "session dropped").heap(), 0);
}

#[test]
fn p3_a_wiped_a_resting_and_a_failed_session_leave_none() {
    let watch = Watch::begin();
    register_pair(&watch, NUMBERS, ROTATIONS);
    let (mut ours, mut theirs) = sessions();
    talk(&mut ours, &mut theirs, 3);
    // The key objects of the AEAD are given back, and made again.
    ours.rest();
    theirs.rest();
    talk(&mut ours, &mut theirs, 3);
    ours.wipe();
    assert!(theirs.open(&mut BytesMut::from(&[0; 100][..])).is_err());
    assert!(ours.is_failed() && theirs.is_failed());
    // Neither is dropped yet.
    assert_eq!(judge(&watch, "session wiped").heap(), 0);
    drop((ours, theirs));
}

#[test]
fn p3_a_handshake_that_fails_or_is_given_up_leaves_none() {
    let watch = Watch::begin();
    register_pair(&watch, NUMBERS, 0);
    let [s, e, rs, re] = NUMBERS;
    let (dialling, answering) = (key(s), key(rs));
    let begin = || InitiatorStart::new(dialling.node_id(), answering.node_id(), key(e)).unwrap();
    let answer = |act_one: &[u8; 50]| {
        let two = AwaitActOne::new(answering.node_id(), key(re));
        let two = two.act_one(act_one).unwrap();
        let secret = answering.ecdh(&two.request().point);
        two.resume(secret).unwrap()
    };
    // Given up at each step.
    drop(begin());
    let (one, act_one) = begin();
    let (three, act_two) = answer(&act_one);
    drop((one, three));
    let (one, _) = begin();
    drop(one.act_two(&act_two).unwrap());
    // Refused: a bit of each act changed.
    let (one, act_one) = begin();
    let (three, mut act_two) = answer(&act_one);
    act_two[49] ^= 1;
    assert!(one.act_two(&act_two).is_err());
    assert!(three.act_three(&[0; 66]).is_err());
    // The signer answers wrongly.
    let two = AwaitActOne::new(answering.node_id(), key(re));
    let two = two.act_one(&act_one).unwrap();
    assert!(two.resume(dialling.ecdh(&answering.point())).is_err());
    drop((dialling, answering));
    assert_eq!(judge(&watch, "handshakes given up").heap(), 0);
}

#[test]
fn p3_a_panic_wipes_on_its_way_out() {
    let watch = Watch::begin();
    register_pair(&watch, NUMBERS, 1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let (mut ours, mut theirs) = sessions();
        talk(&mut ours, &mut theirs, MESSAGES_PER_KEY + 1);
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(judge(&watch, "session in a panic").heap(), 0);
}
