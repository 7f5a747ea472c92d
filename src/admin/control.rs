//! Holds the session of the signer that lives in this process, so that an operator can cancel and restore it.

use crate::error::{Culprit, Retry};
use crate::limits;
use crate::signer::{
    AttachError, Epoch, Lapse, LapseReason, ProofError, Signer, SignerContext, SignerSession,
};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// The daemon's hand on its signer.
pub struct SignerControl {
    context: SignerContext,
    /// `None`: the signer is not in this process; it can be lapsed, not attached.
    embedded: Option<Arc<dyn Signer>>,
    /// The embedded signer's session. Dropping it would be the lapse.
    session: Mutex<Option<SignerSession>>,
}

/// Why the signer was not attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The signer is not in this process.
    #[error("the signer is not in this process: it attaches itself when it dials in")]
    NotEmbedded,
    /// The system gave no randomness for the challenge.
    #[error("the system gives no random bytes for a challenge")]
    NoEntropy,
    /// The signer took too long to answer.
    #[error("the signer did not answer the challenge in time")]
    TimedOut,
    /// The signer did not prove that it can use the node's key.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// It proved that, and was refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl ControlError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::NotEmbedded => Culprit::Operator,
            Self::NoEntropy => Culprit::Us,
            Self::TimedOut => Culprit::Signer,
            Self::Proof(error) => error.culprit(),
            Self::Attach(error) => error.culprit(),
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NotEmbedded | Self::NoEntropy => "design.md § The daemon's face",
            Self::TimedOut => "limits::ACT_DEADLINE",
            Self::Proof(error) => error.rule(),
            Self::Attach(error) => error.rule(),
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotEmbedded => Retry::Never,
            Self::NoEntropy | Self::TimedOut => Retry::Later,
            Self::Proof(error) => error.retry(),
            Self::Attach(error) => error.retry(),
        }
    }
}

impl SignerControl {
    /// For a signer in this process.
    pub fn embedded(context: SignerContext, signer: Arc<dyn Signer>) -> Self {
        Self {
            context,
            embedded: Some(signer),
            session: Mutex::new(None),
        }
    }

    /// For a signer that comes from elsewhere and attaches itself.
    pub fn remote(context: SignerContext) -> Self {
        Self {
            context,
            embedded: None,
            session: Mutex::new(None),
        }
    }

    /// Challenges the embedded signer and attaches it.
    ///
    /// # Errors
    /// [`ControlError`]; [`AttachError::Occupied`] when a session is live already.
    pub async fn attach(&self) -> Result<Epoch, ControlError> {
        let signer = self.embedded.clone().ok_or(ControlError::NotEmbedded)?;
        let mut entropy = Zeroizing::new([0; 32]);
        getrandom::fill(entropy.as_mut_slice()).map_err(|_| ControlError::NoEntropy)?;
        let proving = self.context.prove(&*signer, &mut entropy);
        let proof = tokio::time::timeout(limits::ACT_DEADLINE, proving)
            .await
            .map_err(|_| ControlError::TimedOut)??;
        let session = self.context.attach(proof, signer)?;
        let epoch = session.epoch();
        // The one before has ended, or this one could not have begun; its drop, outside the lock, does nothing.
        let _ended = self
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(session);
        Ok(epoch)
    }

    /// Ends whichever session is live; when it returns the fence is up. `None`: none was.
    pub fn lapse(&self) -> Option<Lapse> {
        let lapse = self.context.lapse(LapseReason::Requested);
        let _ended = self
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        lapse
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::node_id::LocalKey;
    use crate::signer::EmbeddedSigner;

    #[tokio::test]
    async fn a_session_is_restored_under_the_next_epoch_and_never_twice_at_once() {
        let signer = Arc::new(EmbeddedSigner::from_key(
            LocalKey::from_bytes(&mut [3; 32]).unwrap(),
        ));
        let context = SignerContext::new(signer.node_id());
        let control = SignerControl::embedded(context.clone(), signer);
        assert_eq!(control.attach().await.unwrap().get(), 1);
        assert!(matches!(
            control.attach().await,
            Err(ControlError::Attach(AttachError::Occupied { .. }))
        ));
        assert!(context.is_live(), "the refused one took nothing away");
        assert_eq!(control.lapse().unwrap().epoch.get(), 1);
        assert!(control.lapse().is_none());
        assert_eq!(control.attach().await.unwrap().get(), 2);
        assert!(
            context.is_live(),
            "the first session's end is not the second's"
        );
    }

    #[tokio::test]
    async fn a_lapse_of_the_old_session_racing_an_attach_leaves_the_new_one() {
        let signer = Arc::new(EmbeddedSigner::from_key(
            LocalKey::from_bytes(&mut [3; 32]).unwrap(),
        ));
        let context = SignerContext::new(signer.node_id());
        let control = SignerControl::embedded(context.clone(), signer);
        control.attach().await.unwrap();
        let _ = context.lapse(LapseReason::LivenessLost);
        assert_eq!(control.attach().await.unwrap().get(), 2);
        assert!(context.is_live());
    }

    #[tokio::test]
    async fn a_signer_from_elsewhere_can_only_be_lapsed() {
        let signer = EmbeddedSigner::from_key(LocalKey::from_bytes(&mut [3; 32]).unwrap());
        let control = SignerControl::remote(SignerContext::new(signer.node_id()));
        assert_eq!(control.attach().await, Err(ControlError::NotEmbedded));
        assert!(control.lapse().is_none());
    }
}
