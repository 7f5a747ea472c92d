//! The operator's hand on the signer: cancels and restores the session of one that lives in this process; cancels that of one that
//! dials in, shows where it does, and has its door take new credentials from their files.
//!
//! It never opens a door itself: whoever has one brings it as a [`SignerDoor`].

use super::error::Problem;
use crate::error::{Culprit, Retry};
use crate::limits;
use crate::signer::{
    AttachError, Epoch, Lapse, LapseReason, ProofError, Signer, SignerContext, SignerSession,
};
use crate::telemetry::Refusal;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// Where a signer dials in, as its operator sees it. The daemon's is a gateway.
pub trait SignerDoor: Send + Sync + 'static {
    /// What is to be shown of it. Must not wait.
    fn view(&self) -> DoorView;

    /// Takes certificate, key and root key anew from their files, for later connections. May read files.
    ///
    /// # Errors
    /// What is wrong with the files; nothing has changed then.
    fn reload(&self) -> Result<DoorView, Problem>;
}

/// What is shown of a [`SignerDoor`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorView {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names and addresses under which signers are told to dial it.
    pub hosts: Vec<String>,
    /// Whether more is asked of the signer than it answers in good time.
    pub behind: bool,
    /// SHA-256 of the certificate that it shows, in DER.
    pub certificate_sha256: [u8; 32],
    /// When that certificate ends, since the Unix epoch.
    pub certificate_expires: Duration,
    /// Which of its root keys, counted from 0, macaroons must be of.
    pub root_key: u64,
    /// Who is attached.
    pub attached: Option<Caller>,
    /// The last one that was turned away.
    pub last_refusal: Option<Refusal>,
}

/// A signer that has dialled in and is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Where it dials from.
    pub address: SocketAddr,
    /// What its operator tells its macaroon by.
    pub macaroon: String,
    /// What it is: `pilotlight`, or taken to be `lnd`.
    pub software: &'static str,
}

/// Where the signer is.
enum Place {
    Here(Arc<dyn Signer>),
    DialsIn(Arc<dyn SignerDoor>),
    /// It is brought by whoever embeds this.
    Elsewhere,
}

/// The daemon's hand on its signer.
pub struct SignerControl {
    context: SignerContext,
    /// Only one that is here can be attached; any can be lapsed.
    place: Place,
    /// The embedded signer's session. Dropping it would be the lapse.
    session: Mutex<Option<SignerSession>>,
}

/// Why the signer was not attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The signer is not in this process.
    #[error("the signer is not in this process: it attaches by itself")]
    NotEmbedded,
    /// The signer dials in.
    #[error("the signer dials in by itself, at {listen}")]
    DialsIn {
        /// Where.
        listen: SocketAddr,
    },
    /// There is no door whose files could be read again.
    #[error("no signer dials in here: there are no credentials to take anew")]
    NoDoor,
    /// The files of the door are not as they should be.
    #[error("{}", .0.what)]
    Files(Problem),
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
            Self::NotEmbedded | Self::DialsIn { .. } | Self::NoDoor | Self::Files(_) => {
                Culprit::Operator
            }
            Self::NoEntropy => Culprit::Us,
            Self::TimedOut => Culprit::Signer,
            Self::Proof(error) => error.culprit(),
            Self::Attach(error) => error.culprit(),
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NotEmbedded | Self::DialsIn { .. } | Self::NoDoor | Self::NoEntropy => {
                "design.md § The daemon's face"
            }
            Self::Files(_) => "credentials: regular files of mode 0600 that belong together",
            Self::TimedOut => "limits::ACT_DEADLINE",
            Self::Proof(error) => error.rule(),
            Self::Attach(error) => error.rule(),
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotEmbedded | Self::DialsIn { .. } | Self::NoDoor | Self::Files(_) => {
                Retry::Never
            }
            Self::NoEntropy | Self::TimedOut => Retry::Later,
            Self::Proof(error) => error.retry(),
            Self::Attach(error) => error.retry(),
        }
    }
}

impl SignerControl {
    /// For a signer in this process.
    pub fn embedded(context: SignerContext, signer: Arc<dyn Signer>) -> Self {
        Self::new(context, Place::Here(signer))
    }

    /// For a signer that dials in at this door and attaches by itself.
    pub fn dialling_in(context: SignerContext, door: Arc<dyn SignerDoor>) -> Self {
        Self::new(context, Place::DialsIn(door))
    }

    /// For a signer that comes from elsewhere and attaches itself.
    pub fn remote(context: SignerContext) -> Self {
        Self::new(context, Place::Elsewhere)
    }

    fn new(context: SignerContext, place: Place) -> Self {
        Self {
            context,
            place,
            session: Mutex::new(None),
        }
    }

    /// A word for where the signer is: `embedded`, `gateway`, `remote`.
    pub fn kind(&self) -> &'static str {
        match &self.place {
            Place::Here(_) => "embedded",
            Place::DialsIn(_) => "gateway",
            Place::Elsewhere => "remote",
        }
    }

    /// The door at which the signer dials in, if it does.
    pub fn door(&self) -> Option<DoorView> {
        match &self.place {
            Place::DialsIn(door) => Some(door.view()),
            Place::Here(_) | Place::Elsewhere => None,
        }
    }

    /// Has the door take its credentials anew from their files. Reads files: not for a thread that must not wait.
    ///
    /// # Errors
    /// [`ControlError::NoDoor`], [`ControlError::Files`]; nothing has changed then.
    pub fn reload(&self) -> Result<DoorView, ControlError> {
        match &self.place {
            Place::DialsIn(door) => door.reload().map_err(ControlError::Files),
            Place::Here(_) | Place::Elsewhere => Err(ControlError::NoDoor),
        }
    }

    /// Challenges the embedded signer and attaches it.
    ///
    /// # Errors
    /// [`ControlError`]; [`AttachError::Occupied`] when a session is live already.
    pub async fn attach(&self) -> Result<Epoch, ControlError> {
        let signer = match &self.place {
            Place::Here(signer) => Arc::clone(signer),
            Place::DialsIn(door) => {
                let listen = door.view().listen;
                return Err(ControlError::DialsIn { listen });
            }
            Place::Elsewhere => return Err(ControlError::NotEmbedded),
        };
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
        assert_eq!(control.reload(), Err(ControlError::NoDoor));
        assert_eq!((control.kind(), control.door()), ("remote", None));
    }
}
