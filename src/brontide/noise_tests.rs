//! What snow is given in place of secrets, and that none of them passes through it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::*;
use crate::brontide::tests::{Seeded, hex, recorded, unhex, vectors};
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
fn there_is_no_ecdh_and_no_hkdf_after_the_last() {
    let (engine, ..) = parts();
    let mut table = engine.table.lock();
    let shared = || SharedSecret::take(&mut [1; 32]);
    assert!(table.store_shared(shared()).is_ok());
    let latest = table.store_shared(shared()).unwrap();
    assert_eq!(latest, table.handle(Kind::Shared, 2));
    assert_eq!(table.store_shared(shared()), Err("one ECDH too many"));
    // One for each of the acts and the split's, though this one is no split.
    for index in 0..3 {
        let ck = table.handle(Kind::First, index);
        assert!(table.hkdf(&ck, &latest).is_ok());
    }
    let ck = table.handle(Kind::First, 3);
    assert_eq!(table.hkdf(&ck, &latest), Err("one HKDF too many"));
    drop(table);
    // The split, before its time.
    let (engine, ..) = parts();
    let mut table = engine.table.lock();
    let (ck, shared) = (table.handle(Kind::First, 0), table.handle(Kind::Shared, 0));
    assert!(table.hkdf(&ck, &[]).is_ok());
    let ck = table.handle(Kind::First, 1);
    assert_eq!(table.hkdf(&ck, &shared), Err("one HKDF too many"));
}

/// `snow` takes the length of every buffer from here. It does not ask for each of these today.
#[test]
fn snow_is_told_the_names_and_lengths_of_bolt_8_and_finds_no_key_and_no_randomness() {
    let (engine, hash, cipher) = parts();
    let curve = Secp256k1 {
        half: Half::Unset,
        public: [0; POINT_LEN],
        table: engine.table.clone(),
    };
    let names = [curve.name(), cipher.name(), hash.name()].join("_");
    assert_eq!(format!("Noise_XK_{names}"), PROTOCOL_NAME);
    let lengths = [curve.pub_len(), curve.priv_len(), curve.dh_len()];
    assert_eq!(lengths, [33, 33, 32]);
    assert_eq!((hash.hash_len(), hash.block_len()), (32, 64));
    assert!(curve.privkey().is_empty());
    assert!(NoRandom.try_fill_bytes(&mut [0; 32]).is_err());
}

#[test]
fn a_hash_that_is_reset_forgets_what_it_was_given() {
    let (_, mut hash, _) = parts();
    hash.input(b"something else");
    hash.reset();
    hash.input(b"abc");
    let mut out = [0; HASH_LEN];
    hash.result(&mut out);
    assert_eq!(out, *Sha256::digest(b"abc"));
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
