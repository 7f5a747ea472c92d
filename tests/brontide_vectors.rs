//! BOLT 8's test vectors, by name, through the public surface: success and failure of both roles, and the frames across two rotations.
//!
//! What only the inside shows (`ss`, `ck`, temporary keys) is checked by the unit tests of `src/brontide/noise.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::format_collect
)]

use bytes::BytesMut;
use pilotlight::{
    brontide::{Act, Authenticated, AwaitActOne, HandshakeError, InitiatorStart, Role},
    error::{Culprit, Retry},
    node_id::{LocalKey, NodeId},
};

#[path = "vectors/bolt8.rs"]
mod vectors;
use vectors::{
    ACT_ONE, ACT_THREE, ACT_TWO, INITIATOR_ID, INITIATOR_REFUSALS, KEYS, MESSAGE, OUTPUTS,
    RESPONDER_ID, RESPONDER_REFUSALS, Refusal,
};

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(hex: &str) -> LocalKey {
    LocalKey::from_bytes(&mut bytes(hex).try_into().unwrap()).unwrap()
}

fn id(hex: &str) -> NodeId {
    hex.parse().unwrap()
}

/// Our static key, and what the other side sends, as a vector gives them. What we answer is returned.
fn initiate(
    local: &LocalKey,
    ephemeral: &str,
    remote: NodeId,
    acts: &[&str],
) -> (Vec<String>, Result<Authenticated, HandshakeError>) {
    let (state, one) = InitiatorStart::new(local.node_id(), remote, key(ephemeral)).unwrap();
    let mut sent = vec![hex(&one)];
    let done = state.act_two(&bytes(acts[0])).and_then(|state| {
        let reply = local.ecdh(&state.request().point);
        let (three, proof) = state.resume(reply)?;
        sent.push(hex(&three));
        Ok(proof)
    });
    (sent, done)
}

fn respond(
    local: &LocalKey,
    ephemeral: &str,
    acts: &[&str],
) -> (Vec<String>, Result<Authenticated, HandshakeError>) {
    let mut sent = Vec::new();
    let state = AwaitActOne::new(local.node_id(), key(ephemeral));
    let done = state
        .act_one(&bytes(acts[0]))
        .and_then(|state| {
            let reply = local.ecdh(&state.request().point);
            state.resume(reply)
        })
        .and_then(|(state, two)| {
            sent.push(hex(&two));
            state.act_three(&bytes(acts[1]))
        });
    (sent, done)
}

fn initiator(acts: &[&str]) -> (Vec<String>, Result<Authenticated, HandshakeError>) {
    initiate(
        &key(KEYS.initiator_static),
        KEYS.initiator_ephemeral,
        id(RESPONDER_ID),
        acts,
    )
}

fn responder(acts: &[&str]) -> (Vec<String>, Result<Authenticated, HandshakeError>) {
    respond(&key(KEYS.responder_static), KEYS.responder_ephemeral, acts)
}

#[test]
fn transport_initiator_successful_handshake() {
    let (sent, done) = initiator(&[ACT_TWO]);
    assert_eq!(sent, [ACT_ONE, ACT_THREE]);
    let proof = done.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(proof.local(), id(INITIATOR_ID));
    assert_eq!(proof.remote(), id(RESPONDER_ID));
    assert_eq!(proof.role(), Role::Initiator);
}

#[test]
fn transport_responder_successful_handshake() {
    let (sent, done) = responder(&[ACT_ONE, ACT_THREE]);
    assert_eq!(sent, [ACT_TWO]);
    let proof = done.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(proof.local(), id(RESPONDER_ID));
    assert_eq!(proof.remote(), id(INITIATOR_ID));
    assert_eq!(proof.role(), Role::Responder);
}

/// The vector refuses as it should: the act, whose fault it is, the rule, and the document's own name for it.
fn refuses(vectors: &[Refusal], name: &str, expected: HandshakeError, rule: &str) {
    let vector = vectors.iter().find(|vector| vector.name == name).unwrap();
    let run = match name.split_once("initiator") {
        Some(_) => initiator,
        None => responder,
    };
    let (_, done) = run(vector.acts);
    let error = done.err().expect("the vector has to fail");
    assert_eq!(error, expected);
    assert_eq!(error.act().size(), [50, 50, 66][vector.act - 1]);
    assert_eq!(error.label(), vector.error.to_lowercase());
    assert_eq!(error.culprit(), Culprit::Peer);
    assert_eq!(error.retry(), Retry::Later);
    assert!(error.rule().starts_with(rule), "{}", error.rule());
}

macro_rules! refusals {
    ($($test:ident: $vectors:ident $name:literal, $expected:expr, $rule:literal;)+) => {
        $(#[test]
        fn $test() {
            refuses($vectors, $name, $expected, $rule);
        })+

        #[test]
        fn every_failing_vector_has_a_test_of_its_name() {
            let tested = [$($name),+];
            let given = INITIATOR_REFUSALS.iter().chain(RESPONDER_REFUSALS);
            assert_eq!(given.map(|vector| vector.name).collect::<Vec<_>>(), tested);
        }
    };
}

refusals! {
    transport_initiator_act2_short_read_test:
        INITIATOR_REFUSALS "transport-initiator act2 short read test",
        HandshakeError::Length { act: Act::Two, expected: 50, got: 49 },
        "BOLT 8 § Act Two, Receiver Actions 1";
    transport_initiator_act2_bad_version_test:
        INITIATOR_REFUSALS "transport-initiator act2 bad version test",
        HandshakeError::Version { act: Act::Two, version: 1 },
        "BOLT 8 § Act Two, Receiver Actions 3";
    transport_initiator_act2_bad_key_serialization_test:
        INITIATOR_REFUSALS "transport-initiator act2 bad key serialization test",
        HandshakeError::Point { act: Act::Two },
        "BOLT 8 § Act Two, Receiver Actions 5";
    transport_initiator_act2_bad_mac_test:
        INITIATOR_REFUSALS "transport-initiator act2 bad MAC test",
        HandshakeError::Tag { act: Act::Two },
        "BOLT 8 § Act Two, Receiver Actions 7";
    transport_responder_act1_short_read_test:
        RESPONDER_REFUSALS "transport-responder act1 short read test",
        HandshakeError::Length { act: Act::One, expected: 50, got: 49 },
        "BOLT 8 § Act One, Receiver Actions 1";
    transport_responder_act1_bad_version_test:
        RESPONDER_REFUSALS "transport-responder act1 bad version test",
        HandshakeError::Version { act: Act::One, version: 1 },
        "BOLT 8 § Act One, Receiver Actions 3";
    transport_responder_act1_bad_key_serialization_test:
        RESPONDER_REFUSALS "transport-responder act1 bad key serialization test",
        HandshakeError::Point { act: Act::One },
        "BOLT 8 § Act One, Receiver Actions 2";
    transport_responder_act1_bad_mac_test:
        RESPONDER_REFUSALS "transport-responder act1 bad MAC test",
        HandshakeError::Tag { act: Act::One },
        "BOLT 8 § Act One, Receiver Actions 7";
    transport_responder_act3_bad_version_test:
        RESPONDER_REFUSALS "transport-responder act3 bad version test",
        HandshakeError::Version { act: Act::Three, version: 1 },
        "BOLT 8 § Act Three, Receiver Actions 3";
    transport_responder_act3_short_read_test:
        RESPONDER_REFUSALS "transport-responder act3 short read test",
        HandshakeError::Length { act: Act::Three, expected: 66, got: 65 },
        "BOLT 8 § Act Three, Receiver Actions 1";
    transport_responder_act3_bad_mac_for_ciphertext_test:
        RESPONDER_REFUSALS "transport-responder act3 bad MAC for ciphertext test",
        HandshakeError::Ciphertext { act: Act::Three },
        "BOLT 8 § Act Three, Receiver Actions 4";
    transport_responder_act3_bad_rs_test:
        RESPONDER_REFUSALS "transport-responder act3 bad rs test",
        HandshakeError::Point { act: Act::Three },
        "BOLT 8 § Act Three, Receiver Actions 6";
    transport_responder_act3_bad_mac_test:
        RESPONDER_REFUSALS "transport-responder act3 bad MAC test",
        HandshakeError::Tag { act: Act::Three },
        "BOLT 8 § Act Three, Receiver Actions 8";
}

/// Outputs 0, 1, 500, 501, 1000, 1001: before, at and after two rotations. The other end reads them all.
#[test]
fn transport_message_test() {
    let message = bytes(MESSAGE);
    let mut sender = initiator(&[ACT_TWO]).1.ok().unwrap().into_session();
    let mut receiver = responder(&[ACT_ONE, ACT_THREE])
        .1
        .ok()
        .unwrap()
        .into_session();
    let (last, _) = OUTPUTS.iter().max().unwrap();
    for index in 0..=*last {
        let mut frame = BytesMut::new();
        sender.seal(&message, &mut frame).unwrap();
        if let Some((_, expected)) = OUTPUTS.iter().find(|(at, _)| *at == index) {
            assert_eq!(hex(&frame), *expected, "output {index}");
        }
        assert_eq!(receiver.open(&mut frame).unwrap().unwrap(), message);
    }
    let checked: Vec<u64> = OUTPUTS.iter().map(|(index, _)| *index).collect();
    assert_eq!(checked, [0, 1, 500, 501, 1000, 1001]);
    assert_eq!((sender.sent(), sender.rotations()), (1002, (2, 0)));
    assert_eq!((receiver.received(), receiver.rotations()), (1002, (0, 2)));
}

/// The whole document as data, where it lies beside the project: every case, every step, every output.
#[test]
fn the_shared_file_of_vectors_replays_wholesale() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/data/bolt8-vectors.json"
    );
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("skipped: {path} is not there");
        return;
    };
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut cases = 0;
    for role in ["initiator", "responder"] {
        for case in document[role].as_array().unwrap() {
            replay(case);
            cases += 1;
        }
    }
    assert_eq!(cases, 15);
    let messages = &document["messages"];
    let mut session = initiator(&[ACT_TWO]).1.ok().unwrap().into_session();
    for index in 0..messages["count"].as_u64().unwrap() {
        let mut frame = BytesMut::new();
        let message = bytes(messages["message"].as_str().unwrap());
        session.seal(&message, &mut frame).unwrap();
        if let Some(expected) = messages["outputs"][index.to_string()].as_str() {
            assert_eq!(hex(&frame), expected);
        }
    }
}

fn replay(case: &serde_json::Value) {
    let text = |name: &str| case[name].as_str().unwrap();
    let steps = case["steps"].as_array().unwrap();
    let all = |name: &str| -> Vec<&str> {
        let of_kind = steps.iter().filter_map(|step| step[name].as_str());
        of_kind.collect()
    };
    let (local, inputs) = (key(text("ls_priv")), all("input"));
    assert_eq!(local.node_id(), id(text("ls_pub")));
    assert_eq!(key(text("e_priv")).node_id(), id(text("e_pub")));
    let (sent, done) = match text("role") {
        "initiator" => initiate(&local, text("e_priv"), id(text("rs_pub")), &inputs),
        _ => respond(&local, text("e_priv"), &inputs),
    };
    assert_eq!(sent, all("output"), "{}", text("name"));
    let label = done.err().map(|error| error.label().to_uppercase());
    assert_eq!(label.as_deref(), case["error"].as_str(), "{}", text("name"));
}
