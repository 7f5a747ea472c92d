//! The gateway's side of the protocol's messages: what it writes, and what it makes of what it reads.
//!
//! It never keeps a secret outside of a type that wipes it; what the codec leaves in its buffers is beyond it.

use bytes::Bytes;

use super::machine::{Body, Kind, Registrant};
use super::proto::registration_response::RegistrationResponseType;
use super::proto::sign_coordinator_request::SignRequestType;
use super::proto::sign_coordinator_response::SignResponseType;
use super::proto::{
    KeyDescriptor, KeyLocator, NODE_KEY_FAMILY, ProofRequest, REGISTRATION_ID,
    RegistrationComplete, RegistrationResponse, SharedKeyRequest, SignCoordinatorRequest,
    SignCoordinatorResponse,
};
use crate::limits;
use crate::node_id::{NodeId, Point};
use crate::secret::{Secret32, SharedSecret};

/// What a message of the signer's holds.
pub(super) enum Content {
    Secret(SharedSecret),
    /// The answer to a `proof_request`.
    Proof(Secret32),
    Pass(Bytes),
    Error(String),
}

/// What the machine must know of a message, and what it holds. A shared key of the wrong length is an answer without content.
pub(super) fn read(
    message: SignCoordinatorResponse,
    registrant: Registrant,
) -> (Body, Option<Content>) {
    use SignResponseType as T;
    let Some(response) = message.sign_response_type else {
        return (Body::Nothing, None);
    };
    let pass = |field, body| {
        let body = Some(Content::Pass(body));
        (Body::Answer(Kind::Pass(field)), body)
    };
    match response {
        T::SignerRegistration(registration) => {
            let empty = registration.registration_challenge.is_empty()
                && registration.registration_info.is_empty();
            if empty {
                (Body::Nothing, None)
            } else {
                (Body::Registration(registrant), None)
            }
        }
        T::Pong(_) => (Body::Answer(Kind::Ping), None),
        T::SharedKeyResponse(answer) => {
            let secret = secret(&answer.shared_key).map(SharedSecret::from);
            (Body::Answer(Kind::Ecdh), secret.map(Content::Secret))
        }
        T::ProofResponse(answer) => {
            let content = secret(&answer.answer).map(Content::Proof);
            (Body::Answer(Kind::Proof), content)
        }
        T::SignMessageResp(body) => pass(5, body),
        T::MuSig2SessionResponse(body) => pass(6, body),
        T::MuSig2RegisterNoncesResponse(body) => pass(7, body),
        T::MuSig2RegisterCombinedNonceResponse(body) => pass(8, body),
        T::MuSig2GetCombinedNonceResponse(body) => pass(9, body),
        T::MuSig2SignResponse(body) => pass(10, body),
        T::MuSig2CombineSigResponse(body) => pass(11, body),
        T::MuSig2CleanupResponse(body) => pass(12, body),
        T::SignPsbtResponse(body) => pass(13, body),
        T::SignerError(error) => {
            let text = error.error.chars().filter(|c| !c.is_control());
            let text = text.take(limits::SIGNER_TEXT_MAX).collect();
            (Body::Error, Some(Content::Error(text)))
        }
    }
}

fn secret(bytes: &[u8]) -> Option<Secret32> {
    let bytes: &[u8; 32] = bytes.try_into().ok()?;
    Some(Secret32::build(|to| to.copy_from_slice(bytes)))
}

fn request(request_id: u64, content: SignRequestType) -> SignCoordinatorRequest {
    SignCoordinatorRequest {
        request_id,
        sign_request_type: Some(content),
    }
}

fn registration(answer: RegistrationResponseType) -> SignCoordinatorRequest {
    let response = RegistrationResponse {
        registration_response_type: Some(answer),
    };
    request(
        REGISTRATION_ID,
        SignRequestType::RegistrationResponse(response),
    )
}

pub(super) fn complete() -> SignCoordinatorRequest {
    // lnd's signer checks neither field; the name is what lnd's own watch-only node gives.
    registration(RegistrationResponseType::RegistrationComplete(
        RegistrationComplete {
            signature: String::new(),
            registration_info: "watchOnlyNode".to_owned(),
        },
    ))
}

pub(super) fn registration_error(text: String) -> SignCoordinatorRequest {
    registration(RegistrationResponseType::RegistrationError(text))
}

pub(super) fn ping(id: u64) -> SignCoordinatorRequest {
    request(id, SignRequestType::Ping(true))
}

pub(super) fn proof(id: u64, point: Point) -> SignCoordinatorRequest {
    let ephemeral_pubkey = point.as_bytes().to_vec();
    request(
        id,
        SignRequestType::ProofRequest(ProofRequest { ephemeral_pubkey }),
    )
}

/// As lnd asks for an ECDH of its node key: the key itself and its locator, and no `key_loc` beside the descriptor.
pub(super) fn ecdh(id: u64, point: Point, node: NodeId) -> SignCoordinatorRequest {
    let locator = KeyLocator {
        key_family: NODE_KEY_FAMILY,
        key_index: 0,
    };
    let descriptor = KeyDescriptor {
        raw_key_bytes: node.as_bytes().to_vec(),
        key_loc: Some(locator),
    };
    let content = SharedKeyRequest {
        ephemeral_pubkey: point.as_bytes().to_vec(),
        key_loc: None,
        key_desc: Some(descriptor),
    };
    request(id, SignRequestType::SharedKeyRequest(content))
}

/// `None` for a field that is none of the node's requests.
pub(super) fn pass(id: u64, field: u32, body: Bytes) -> Option<SignCoordinatorRequest> {
    use SignRequestType as T;
    let content = match field {
        5 => T::SignMessageReq(body),
        6 => T::MuSig2SessionRequest(body),
        7 => T::MuSig2RegisterNoncesRequest(body),
        8 => T::MuSig2RegisterCombinedNonceRequest(body),
        9 => T::MuSig2GetCombinedNonceRequest(body),
        10 => T::MuSig2SignRequest(body),
        11 => T::MuSig2CombineSigRequest(body),
        12 => T::MuSig2CleanupRequest(body),
        13 => T::SignPsbtRequest(body),
        _ => return None,
    };
    Some(request(id, content))
}
