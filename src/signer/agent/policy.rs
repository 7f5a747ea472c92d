//! What the agent answers: ECDH with the node's key, and nothing else.
//!
//! For: a stolen server can ask for anything. This file says what it gets. It never asks the key; it only judges.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::super::gateway::proto::registration_response::RegistrationResponseType;
use super::super::gateway::proto::sign_coordinator_request::SignRequestType;
use super::super::gateway::proto::{
    KeyLocator, NODE_KEY_FAMILY, RegistrationResponse, SharedKeyRequest,
};
use super::report::Refusal;
use crate::node_id::{NodeId, Point};

/// Where lnd keeps the node's key.
const NODE_KEY: KeyLocator = KeyLocator {
    key_family: NODE_KEY_FAMILY,
    key_index: 0,
};

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server accepts the registration.
    Registered,
    /// It does not, and says why.
    Rejected(String),
    /// It wants to know whether anybody is there.
    Pong,
    /// The node key's ECDH with this point.
    Ecdh(Point),
    /// The same, as a proof that is bound to the certificate.
    Proof(Point),
    /// Answered with `signer_error`.
    Refuse(Refusal),
}

/// Judges what the server sent. `None` is a request of a kind that is not known, or of none.
pub(crate) fn judge(request: Option<SignRequestType>, node_id: NodeId) -> Verdict {
    use SignRequestType as T;
    match request {
        Some(T::RegistrationResponse(response)) => registration(response),
        Some(T::Ping(_)) => Verdict::Pong,
        Some(T::SharedKeyRequest(request)) => match shared_key(&request, node_id) {
            Ok(point) => Verdict::Ecdh(point),
            Err(refusal) => Verdict::Refuse(refusal),
        },
        Some(T::ProofRequest(request)) => match point(&request.ephemeral_pubkey) {
            Ok(point) => Verdict::Proof(point),
            Err(refusal) => Verdict::Refuse(refusal),
        },
        Some(
            T::SignMessageReq(_)
            | T::MuSig2SessionRequest(_)
            | T::MuSig2RegisterNoncesRequest(_)
            | T::MuSig2RegisterCombinedNonceRequest(_)
            | T::MuSig2GetCombinedNonceRequest(_)
            | T::MuSig2SignRequest(_)
            | T::MuSig2CombineSigRequest(_)
            | T::MuSig2CleanupRequest(_)
            | T::SignPsbtRequest(_),
        ) => Verdict::Refuse(Refusal::Signing),
        None => Verdict::Refuse(Refusal::Unknown),
    }
}

fn registration(response: RegistrationResponse) -> Verdict {
    match response.registration_response_type {
        Some(RegistrationResponseType::RegistrationComplete(_)) => Verdict::Registered,
        Some(RegistrationResponseType::RegistrationError(reason)) => Verdict::Rejected(reason),
        None => Verdict::Rejected("an empty answer to the registration".into()),
    }
}

/// The key that is asked for must be ours: no locator and no descriptor at all mean it too, as at lnd's signer.
fn shared_key(request: &SharedKeyRequest, node_id: NodeId) -> Result<Point, Refusal> {
    let locator = match (&request.key_loc, &request.key_desc) {
        (Some(_), Some(_)) => return Err(Refusal::TwoKeys),
        (locator, None) => locator.as_ref(),
        (None, Some(descriptor)) => {
            let raw = &descriptor.raw_key_bytes;
            if !raw.is_empty() && raw.as_slice() != node_id.as_bytes() {
                return Err(Refusal::OtherKey);
            }
            descriptor.key_loc.as_ref()
        }
    };
    if locator.is_some_and(|locator| *locator != NODE_KEY) {
        return Err(Refusal::OtherKey);
    }
    point(&request.ephemeral_pubkey)
}

fn point(bytes: &[u8]) -> Result<Point, Refusal> {
    Point::parse(bytes).map_err(|_| Refusal::NotAPoint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::unnecessary_wraps)]
    use super::super::super::gateway::proto::{KeyDescriptor, ProofRequest};
    use super::*;
    use crate::node_id::LocalKey;

    fn id(byte: u8) -> NodeId {
        LocalKey::from_bytes(&mut [byte; 32]).unwrap().node_id()
    }

    fn locator(key_family: i32, key_index: i32) -> Option<KeyLocator> {
        Some(KeyLocator {
            key_family,
            key_index,
        })
    }

    fn descriptor(raw_key_bytes: &[u8], key_loc: Option<KeyLocator>) -> Option<KeyDescriptor> {
        Some(KeyDescriptor {
            raw_key_bytes: raw_key_bytes.to_vec(),
            key_loc,
        })
    }

    fn ask(key_loc: Option<KeyLocator>, key_desc: Option<KeyDescriptor>) -> Verdict {
        let request = SharedKeyRequest {
            ephemeral_pubkey: id(2).as_bytes().to_vec(),
            key_loc,
            key_desc,
        };
        judge(Some(SignRequestType::SharedKeyRequest(request)), id(1))
    }

    #[test]
    fn the_node_key_is_answered_for_however_it_is_named() {
        let ecdh = Verdict::Ecdh(Point::try_from(id(2)).unwrap());
        let (ours, node) = (*id(1).as_bytes(), locator(6, 0));
        assert_eq!(ask(None, None), ecdh);
        assert_eq!(ask(node, None), ecdh);
        assert_eq!(ask(None, descriptor(&ours, node)), ecdh);
        assert_eq!(ask(None, descriptor(&ours, None)), ecdh);
        assert_eq!(ask(None, descriptor(&[], node)), ecdh);
        assert_eq!(ask(None, descriptor(&[], None)), ecdh);
    }

    #[test]
    fn another_key_is_refused_however_it_is_named() {
        let (ours, other) = (*id(1).as_bytes(), *id(3).as_bytes());
        let refused = Verdict::Refuse(Refusal::OtherKey);
        for wrong in [
            locator(6, 1),
            locator(6, -1),
            locator(0, 0),
            locator(7, 0),
            locator(-6, 0),
        ] {
            assert_eq!(ask(wrong, None), refused);
            assert_eq!(ask(None, descriptor(&ours, wrong)), refused);
            assert_eq!(ask(None, descriptor(&[], wrong)), refused);
        }
        for raw in [&other[..], &ours[..32], &[0][..], &[0; 65][..]] {
            assert_eq!(ask(None, descriptor(raw, locator(6, 0))), refused);
            assert_eq!(ask(None, descriptor(raw, None)), refused);
        }
    }

    #[test]
    fn two_keys_at_once_are_an_error_even_if_both_are_ours() {
        let node = locator(6, 0);
        assert_eq!(
            ask(node, descriptor(id(1).as_bytes(), node)),
            Verdict::Refuse(Refusal::TwoKeys)
        );
    }

    #[test]
    fn what_is_no_point_is_refused() {
        for bytes in [
            &[][..],
            &[2; 32][..],
            &[0; 33][..],
            &[0xff; 33][..],
            &[4; 65][..],
        ] {
            let request = SharedKeyRequest {
                ephemeral_pubkey: bytes.to_vec(),
                key_loc: None,
                key_desc: None,
            };
            let refused = Verdict::Refuse(Refusal::NotAPoint);
            assert_eq!(
                judge(Some(SignRequestType::SharedKeyRequest(request)), id(1)),
                refused
            );
            let request = ProofRequest {
                ephemeral_pubkey: bytes.to_vec(),
            };
            assert_eq!(
                judge(Some(SignRequestType::ProofRequest(request)), id(1)),
                refused
            );
        }
    }

    #[test]
    fn nothing_is_signed() {
        use SignRequestType as T;
        let body = bytes::Bytes::from_static(b"anything");
        for request in [
            T::SignMessageReq(body.clone()),
            T::MuSig2SessionRequest(body.clone()),
            T::MuSig2RegisterNoncesRequest(body.clone()),
            T::MuSig2RegisterCombinedNonceRequest(body.clone()),
            T::MuSig2GetCombinedNonceRequest(body.clone()),
            T::MuSig2SignRequest(body.clone()),
            T::MuSig2CombineSigRequest(body.clone()),
            T::MuSig2CleanupRequest(body.clone()),
            T::SignPsbtRequest(body.clone()),
        ] {
            assert_eq!(
                judge(Some(request), id(1)),
                Verdict::Refuse(Refusal::Signing)
            );
        }
        assert_eq!(judge(None, id(1)), Verdict::Refuse(Refusal::Unknown));
    }
}
