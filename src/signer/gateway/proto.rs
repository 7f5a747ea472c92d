//! The messages of `watchonly.proto`: the generated code, and what it lacks.
//!
//! For: gateway and agent. Answers that hold a secret are wiped when they are dropped and printed without it. What the codec
//! leaves in its own buffers is beyond this file. It never decides what a message means.

use std::fmt;

use zeroize::Zeroize;

#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, dead_code)]
#[path = "watchonlyrpc.rs"]
mod watchonlyrpc;

pub(crate) use watchonlyrpc::*;

/// The one call that there is.
pub(crate) const METHOD: &str = "/watchonlyrpc.WatchOnly/SignCoordinatorStreams";
/// The metadata key under which the signer's macaroon travels, in lower-case hex.
pub(crate) const MACAROON_KEY: &str = "macaroon";
/// The metadata key by which Pilotlight's own agent says that it answers a [`ProofRequest`]; its value is [`AGENT_VALUE`].
pub(crate) const AGENT_KEY: &str = "pilotlight-agent";
/// See [`AGENT_KEY`].
pub(crate) const AGENT_VALUE: &str = "1";
/// The metadata key by which our agent says whose key it holds: a node id in hex, so that a mistake is named before anything is asked.
pub(crate) const NODE_KEY: &str = "pilotlight-node";
/// What lnd's signer puts into its registration, and so does ours.
pub(crate) const REGISTRATION_CHALLENGE: &[u8] = b"registrationChallenge";
/// See [`REGISTRATION_CHALLENGE`].
pub(crate) const REGISTRATION_INFO: &str = "outboundSigner";
/// The id of the registration and of its answer; requests have ids from 2 on.
pub(crate) const REGISTRATION_ID: u64 = 1;
/// lnd's family of the node's identity key (`keychain.KeyFamilyNodeKey`); its index is 0.
pub(crate) const NODE_KEY_FAMILY: i32 = 6;

impl fmt::Debug for SharedKeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKeyResponse").finish_non_exhaustive()
    }
}

impl fmt::Debug for ProofResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofResponse").finish_non_exhaustive()
    }
}

impl Drop for SharedKeyResponse {
    fn drop(&mut self) {
        self.shared_key.zeroize();
    }
}

impl Drop for ProofResponse {
    fn drop(&mut self) {
        self.answer.zeroize();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use prost::Message;
    use sign_coordinator_request::SignRequestType;
    use sign_coordinator_response::SignResponseType;

    fn hex(bytes: &[u8]) -> String {
        bytes
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    #[test]
    fn a_node_key_ecdh_has_the_bytes_that_lnd_sends() {
        let request = SharedKeyRequest {
            ephemeral_pubkey: vec![2; 33],
            key_loc: None,
            key_desc: Some(KeyDescriptor {
                raw_key_bytes: vec![3; 33],
                key_loc: Some(KeyLocator {
                    key_family: NODE_KEY_FAMILY,
                    key_index: 0,
                }),
            }),
        };
        let expected = format!("0a21{}1a270a21{}12020806", "02".repeat(33), "03".repeat(33));
        assert_eq!(hex(&request.encode_to_vec()), expected);
    }

    #[test]
    fn a_registration_has_the_bytes_that_lnd_sends() {
        let message = SignCoordinatorResponse {
            ref_request_id: REGISTRATION_ID,
            sign_response_type: Some(SignResponseType::SignerRegistration(SignerRegistration {
                registration_challenge: REGISTRATION_CHALLENGE.to_vec(),
                registration_info: REGISTRATION_INFO.into(),
            })),
        };
        let expected = format!(
            "080112270a15{}120e{}",
            hex(REGISTRATION_CHALLENGE),
            hex(REGISTRATION_INFO.as_bytes())
        );
        assert_eq!(hex(&message.encode_to_vec()), expected);
    }

    #[test]
    fn an_empty_sub_message_that_is_passed_through_is_still_present() {
        let message = SignCoordinatorResponse {
            ref_request_id: 9,
            sign_response_type: Some(SignResponseType::MuSig2CleanupResponse(bytes::Bytes::new())),
        };
        assert_eq!(hex(&message.encode_to_vec()), "08096200");
        let ping = SignCoordinatorRequest {
            request_id: 2,
            sign_request_type: Some(SignRequestType::Ping(true)),
        };
        assert_eq!(hex(&ping.encode_to_vec()), "08021801");
    }

    #[test]
    fn answers_are_printed_without_their_secret() {
        let shared = SignResponseType::SharedKeyResponse(SharedKeyResponse {
            shared_key: vec![7; 32],
        });
        let proof = SignResponseType::ProofResponse(ProofResponse {
            answer: vec![7; 32],
        });
        assert_eq!(
            format!("{shared:?}"),
            "SharedKeyResponse(SharedKeyResponse { .. })"
        );
        assert_eq!(format!("{proof:?}"), "ProofResponse(ProofResponse { .. })");
    }
}
