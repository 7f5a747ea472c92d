//! The stream's machine, message by message.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::node_id::LocalKey;
use crate::signer::gateway::proto::registration_response::RegistrationResponseType;
use crate::signer::gateway::proto::{
    ProofRequest, RegistrationComplete, RegistrationResponse, SharedKeyRequest,
};
use proptest::prelude::*;

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

fn machine() -> StreamMachine {
    StreamMachine::new(key(1).node_id(), [9; 32])
}

fn request(request_id: u64, content: SignRequestType) -> SignCoordinatorRequest {
    SignCoordinatorRequest {
        request_id,
        sign_request_type: Some(content),
    }
}

fn ecdh(id: u64) -> SignCoordinatorRequest {
    let shared_key = SharedKeyRequest {
        ephemeral_pubkey: key(2).node_id().as_bytes().to_vec(),
        key_loc: None,
        key_desc: None,
    };
    request(id, SignRequestType::SharedKeyRequest(shared_key))
}

fn outputs(machine: &mut StreamMachine) -> Vec<(u64, SignResponseType)> {
    std::iter::from_fn(|| machine.next_output())
        .map(|answer| (answer.ref_request_id, answer.sign_response_type.unwrap()))
        .collect()
}

fn secret() -> SharedSecret {
    SharedSecret::take(&mut [5; 32])
}

#[test]
fn a_pong_overtakes_everything_and_waits_for_no_ecdh() {
    let mut machine = machine();
    for id in 2..50 {
        assert_eq!(machine.receive(ecdh(id)), Step::Go);
    }
    let first = machine.next_job().unwrap();
    machine.done(first, Some(secret()));
    assert_eq!(
        machine.receive(request(50, SignRequestType::Ping(true))),
        Step::Go
    );
    let sent = outputs(&mut machine);
    assert_eq!(sent.first(), Some(&(50, SignResponseType::Pong(true))));
    assert_eq!(sent.get(1).map(|answer| answer.0), Some(2));
    assert_eq!(sent.len(), 2);
}

#[test]
fn answers_go_out_as_they_are_ready_under_the_id_of_their_question() {
    let mut machine = machine();
    for id in [7, 8, 9] {
        machine.receive(ecdh(id));
    }
    let jobs: Vec<_> = std::iter::from_fn(|| machine.next_job()).collect();
    for job in jobs.into_iter().rev() {
        machine.done(job, Some(secret()));
    }
    let ids: Vec<_> = outputs(&mut machine)
        .into_iter()
        .map(|answer| answer.0)
        .collect();
    assert_eq!(ids, [9, 8, 7]);
}

#[test]
fn a_proof_is_bound_to_the_certificate_and_an_ecdh_is_not() {
    let mut machine = machine();
    let proof = ProofRequest {
        ephemeral_pubkey: key(2).node_id().as_bytes().to_vec(),
    };
    machine.receive(request(2, SignRequestType::ProofRequest(proof)));
    machine.receive(ecdh(3));
    while let Some(job) = machine.next_job() {
        machine.done(job, Some(secret()));
    }
    let sent = outputs(&mut machine);
    let (
        Some((2, SignResponseType::ProofResponse(proof))),
        Some((3, SignResponseType::SharedKeyResponse(plain))),
    ) = (sent.first(), sent.get(1))
    else {
        panic!("{sent:?}");
    };
    assert_eq!(proof.answer, bind(&secret(), &[9; 32]).expose());
    assert_eq!(plain.shared_key, [5; 32]);
}

#[test]
fn a_failed_ecdh_and_one_too_many_are_errors_of_their_request_only() {
    let mut machine = machine();
    for id in 0..=AGENT_JOBS as u64 {
        assert_eq!(machine.receive(ecdh(id + 2)), Step::Go);
    }
    let job = machine.next_job().unwrap();
    machine.done(job, None);
    let sent = outputs(&mut machine);
    let texts: Vec<_> = sent
        .into_iter()
        .map(|(id, answer)| match answer {
            SignResponseType::SignerError(error) => (id, error.error),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        texts,
        [
            (AGENT_JOBS as u64 + 2, Refusal::Busy.as_str().to_owned()),
            (2, Refusal::SignerFailed.as_str().to_owned()),
        ]
    );
}

#[test]
fn the_registration_is_answered_once() {
    let complete = || {
        let complete =
            RegistrationResponseType::RegistrationComplete(RegistrationComplete::default());
        let response = RegistrationResponse {
            registration_response_type: Some(complete),
        };
        request(1, SignRequestType::RegistrationResponse(response))
    };
    let error = |text: &str| {
        let error = RegistrationResponseType::RegistrationError(text.into());
        let response = RegistrationResponse {
            registration_response_type: Some(error),
        };
        request(1, SignRequestType::RegistrationResponse(response))
    };
    let mut machine = machine();
    assert!(!machine.is_registered());
    assert_eq!(machine.receive(error("no")), Step::Rejected("no".into()));
    assert_eq!(machine.receive(complete()), Step::Registered);
    assert!(machine.is_registered());
    assert_eq!(machine.receive(complete()), Step::Go);
    assert_eq!(machine.receive(error("late")), Step::Go);
}

#[test]
fn a_server_that_asks_and_does_not_read_is_left() {
    let mut machine = machine();
    let steps: Vec<_> = (0..=AGENT_ANSWERS as u64)
        .map(|id| machine.receive(request(id, SignRequestType::Ping(true))))
        .collect();
    assert_eq!(
        steps.iter().position(|step| *step == Step::Clogged),
        Some(AGENT_ANSWERS)
    );
}

proptest! {
    #[test]
    fn the_backoff_grows_to_its_bound_and_is_spread(failures in 0_u32..100, draw: u64) {
        let wait = backoff(failures, draw);
        let whole = backoff(failures, u64::MAX / 2).max(wait);
        prop_assert!(wait >= AGENT_BACKOFF_FIRST / 2 && whole <= AGENT_BACKOFF_MAX);
        if failures > 10 {
            prop_assert!(wait >= AGENT_BACKOFF_MAX / 2);
        }
        // The first wait too: policy is not undone by arithmetic.
        let distinct: std::collections::BTreeSet<_> = (0..64_u64).map(|i| backoff(failures, draw.wrapping_add(i * 997))).collect();
        prop_assert!(distinct.len() > 60);
    }

    #[test]
    fn every_request_is_answered_exactly_once(kinds in proptest::collection::vec(0_u8..4, 0..200), fail: bool) {
        let mut machine = machine();
        for (id, kind) in kinds.iter().enumerate() {
            let id = id as u64 + 2;
            let asked = match kind {
                0 => ecdh(id),
                1 => request(id, SignRequestType::Ping(true)),
                2 => request(id, SignRequestType::SignMessageReq(bytes::Bytes::new())),
                _ => SignCoordinatorRequest { request_id: id, sign_request_type: None },
            };
            prop_assert_eq!(machine.receive(asked), Step::Go);
        }
        let mut answered = Vec::new();
        loop {
            let jobs: Vec<_> = std::iter::from_fn(|| machine.next_job()).collect();
            prop_assert!(jobs.len() <= AGENT_ECDH_AT_ONCE);
            let done = jobs.is_empty();
            for job in jobs {
                machine.done(job, (!fail).then(secret));
            }
            answered.extend(outputs(&mut machine).into_iter().map(|answer| answer.0));
            if done { break; }
        }
        answered.sort_unstable();
        let expected: Vec<_> = (2..kinds.len() as u64 + 2).collect();
        prop_assert_eq!(answered, expected);
    }
}
