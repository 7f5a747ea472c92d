//! The challenge that a signer answers before it is attached.
//!
//! For: an epoch begins only for who can use the node's identity key. The challenge is one ECDH for a fresh random point
//! *e·G*; *e* is used once, here, to work out the expected answer `SHA256(compressed(e·NodeId))`, and is wiped before the
//! question leaves. It never asks anybody: the answer comes as data, so that a gateway can ask in its own way.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::context::SignerContext;
use super::epoch::Epoch;
use super::error::ProofError;
use crate::node_id::{LocalKey, NodeId, Point};
use crate::secret::{Secret32, SharedSecret};

/// A question that only the identity key can answer. Made by [`SignerContext::challenge`].
///
/// Holds the expected answer, which is wiped when this is dropped or verified; one attempt consumes it.
#[must_use = "a challenge proves nothing until it is verified"]
pub struct Challenge {
    context: SignerContext,
    after: Option<Epoch>,
    point: Point,
    expected: SharedSecret,
}

/// Evidence that somebody could use this node's identity key just now; good for one [`SignerContext::attach`].
///
/// It can only be had from [`Challenge::verify`], is bound to the context that set the challenge and to the epoch that comes
/// next, and is spent by the attempt to attach: there is no way to copy it.
#[must_use = "a proof is for SignerContext::attach"]
pub struct Proof {
    pub(super) context: SignerContext,
    pub(super) after: Option<Epoch>,
}

#[cfg(all(test, pilotlight_loom))]
impl Proof {
    /// For a model, which has no time for a challenge: that of a context that has never had a session.
    pub(crate) fn of(context: &SignerContext) -> Self {
        Self {
            context: context.clone(),
            after: None,
        }
    }
}

impl Challenge {
    /// `entropy` becomes *e* and is wiped, whatever the outcome.
    pub(super) fn new(
        context: SignerContext,
        after: Option<Epoch>,
        entropy: &mut [u8; 32],
    ) -> Result<Self, ProofError> {
        let ephemeral = LocalKey::from_bytes(entropy).map_err(|_| ProofError::Entropy)?;
        let expected = ephemeral.ecdh(&Point::try_from(context.node_id())?);
        let point = ephemeral.point();
        Ok(Self {
            context,
            after,
            point,
            expected,
        })
    }

    /// The point *e·G* to ask the candidate's ECDH for.
    pub fn point(&self) -> Point {
        self.point
    }

    /// The node whose key must answer.
    pub fn node_id(&self) -> NodeId {
        self.context.node_id()
    }

    /// Like [`Challenge::verify`], for an answer that was [bound](bind) to the certificate with this digest: one that was given
    /// to a server with another certificate is wrong.
    ///
    /// # Errors
    /// [`ProofError::WrongAnswer`]; the candidate must then be challenged anew.
    pub fn verify_bound(
        mut self,
        answer: SharedSecret,
        certificate_digest: &[u8; 32],
    ) -> Result<Proof, ProofError> {
        self.expected = bind(&self.expected, certificate_digest);
        self.verify(answer)
    }

    /// Compares, in constant time, and mints the proof. Both secrets are wiped.
    ///
    /// # Errors
    /// [`ProofError::WrongAnswer`]; the candidate must then be challenged anew.
    pub fn verify(self, answer: SharedSecret) -> Result<Proof, ProofError> {
        let right = self.expected.ct_eq(&answer);
        drop(answer);
        if right {
            Ok(Proof {
                context: self.context,
                after: self.after,
            })
        } else {
            Err(ProofError::WrongAnswer)
        }
    }
}

/// What [`bind`] hashes first, so that its result is never that of another use of the same secret.
const BINDING: &[u8; 26] = b"pilotlight signer proof v1";

/// The answer to a challenge, bound to the certificate that the server showed in the TLS handshake of this connection:
/// `SHA256("pilotlight signer proof v1" ‖ ECDH ‖ SHA256(certificate))`, all three of fixed length.
///
/// Who relays the question from a server with another certificate cannot use the answer there. Whoever can ask for the plain
/// ECDH still can: a proof is one of access.
pub fn bind(shared: &SharedSecret, certificate_digest: &[u8; 32]) -> SharedSecret {
    let mut hash = Sha256::new();
    hash.update(BINDING);
    hash.update(shared.expose());
    hash.update(certificate_digest);
    let mut digest = hash.finalize();
    let bound = Secret32::build(|bytes| bytes.copy_from_slice(&digest));
    digest.as_mut_slice().zeroize();
    SharedSecret::from(bound)
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge")
            .field("node_id", &self.node_id())
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("node_id", &self.context.node_id())
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}
