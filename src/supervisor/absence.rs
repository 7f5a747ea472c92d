//! A planned absence of the signer: what is pending is reported, the node gives its word, and only then does the session end.
//!
//! ```text
//!   operator ──plan_absence──▶ PlannedAbsence ── what is pending
//!                                   │ word                          ▲ go_ahead, refuse
//!                                   ▼                               │
//!                                 lapse              AbsenceRequest ┴── the node
//! ```
//!
//! While it is planned nothing changes: links, dials and messages go on, and HTLCs may come and go. Whoever planned it and drops it has
//! changed nothing. It is the node that knows whether an HTLC can still be settled first: this module waits for its word and asks
//! nothing of the signer.

use super::commands::Command;
use super::deadlines::HtlcDeadline;
use super::{Mode, Stopped, Supervisor, Urgency};
use crate::error::{Culprit, Retry};
use crate::limits;
use crate::node_id::NodeId;
use crate::signer::{Epoch, Lapse, LapseReason, SignerAway};
use crate::telemetry::Event;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// What an absence of the signer would leave hanging, as the node has told it ([`Supervisor::set_urgency`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pending {
    /// The node's block height, if it has said one.
    pub block_height: Option<u32>,
    /// HTLCs that are not settled, over all peers.
    pub htlcs: u64,
    /// The peers that they are with, the soonest expiry first.
    pub peers: Vec<PendingPeer>,
}

/// A peer with HTLCs that are not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingPeer {
    /// Who.
    pub node_id: NodeId,
    /// What the node has said.
    pub urgency: Urgency,
    /// Blocks up to the first expiry, once the height is known; 0 and less: it has expired.
    pub blocks_left: Option<i64>,
}

impl Pending {
    pub(super) fn new(block_height: Option<u32>, peers: Vec<PendingPeer>) -> Self {
        let htlcs = peers
            .iter()
            .map(|peer| u64::from(peer.urgency.pending_htlcs))
            .sum();
        Self {
            block_height,
            htlcs,
            peers,
        }
    }

    /// The soonest expiry, once the height is known.
    pub fn deadline(&self) -> Option<HtlcDeadline> {
        let first = self.peers.first()?;
        Some(HtlcDeadline {
            peer: first.node_id,
            expiry_height: first.urgency.earliest_expiry_height,
            blocks_left: first.blocks_left?,
        })
    }
}

impl PendingPeer {
    pub(super) fn new((node_id, urgency, blocks_left): (NodeId, Urgency, Option<i64>)) -> Self {
        Self {
            node_id,
            urgency,
            blocks_left,
        }
    }
}

/// What the node says to a planned absence.
#[derive(Debug, Clone)]
enum Word {
    GoAhead,
    Refused(String),
}

/// Why there is no planned absence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No signer session is live: there is nothing to end.
    #[error("no signer session is live")]
    SignerAway,
    /// One at a time.
    #[error("absence {number} is planned already")]
    Planned {
        /// Its number.
        number: u64,
    },
    /// The supervisor is draining: the session ends with it.
    #[error("the supervisor is draining")]
    Draining,
    /// The supervisor has stopped.
    #[error("the supervisor has stopped")]
    Stopped,
}

impl PlanError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::SignerAway | Self::Planned { .. } => Culprit::Operator,
            Self::Draining | Self::Stopped => Culprit::Us,
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::SignerAway => SignerAway.rule(),
            Self::Planned { .. } => "one planned absence at a time",
            Self::Draining | Self::Stopped => "design.md § Modes",
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::SignerAway => Retry::WhenSignerReturns,
            Self::Planned { .. } => Retry::Later,
            Self::Draining | Self::Stopped => Retry::Never,
        }
    }
}

impl From<Stopped> for PlanError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Why there is no word to wait for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoWord {
    /// The node does not want the signer to go now.
    #[error("the node refuses: {0}")]
    Refused(String),
    /// The session for which it was planned has ended by itself.
    #[error("the signer session has ended meanwhile")]
    SignerAway,
}

/// The one planned absence of a supervisor, if there is one.
pub(super) struct Absences {
    current: watch::Sender<Option<AbsenceRequest>>,
    numbers: AtomicU64,
}

impl Absences {
    /// Numbered as it takes the one place, so that a later one has the higher number: by that the node tells what it has seen.
    fn begin(&self, pending: Arc<Pending>) -> Result<AbsenceRequest, PlanError> {
        let mut begun = Err(PlanError::Stopped);
        self.current.send_if_modified(|current| {
            if let Some(other) = current {
                let number = other.number;
                begun = Err(PlanError::Planned { number });
                return false;
            }
            let request = AbsenceRequest {
                number: self.numbers.fetch_add(1, Ordering::Relaxed),
                pending,
                word: watch::Sender::new(None),
            };
            *current = Some(request.clone());
            begun = Ok(request);
            true
        });
        begun
    }
}

impl Default for Absences {
    fn default() -> Self {
        Self {
            current: watch::Sender::new(None),
            numbers: AtomicU64::new(1),
        }
    }
}

/// A planned absence, as whoever planned it holds it. Dropping it withdraws it: everything is then as it was.
///
/// ```
/// # use pilotlight::node_id::LocalKey;
/// # use pilotlight::signer::{EmbeddedSigner, LapseReason, Signer, SignerContext};
/// # use pilotlight::supervisor::{Mode, Supervisor, Urgency};
/// # use std::sync::Arc;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let signer = Arc::new(EmbeddedSigner::from_key(LocalKey::from_bytes(&mut [7; 32])?));
/// # let peer = LocalKey::from_bytes(&mut [8; 32])?.node_id();
/// # let context = SignerContext::new(signer.node_id());
/// # let (supervisor, _inbox) = Supervisor::builder(context.clone()).start().await?;
/// # let session = context.attach(context.prove(&*signer, &mut [9; 32]).await?, signer)?;
/// // What the node knows of its channels.
/// let urgency = Urgency { pending_htlcs: 2, earliest_expiry_height: 850_100, csv_delay: 144 };
/// supervisor.set_urgency(peer, urgency).await?;
/// supervisor.set_block_height(850_000).await?;
///
/// // The node's side: it settles what it can, and gives its word.
/// let mut requests = supervisor.absence_requests();
/// tokio::spawn(async move {
///     while let Some(request) = requests.next().await {
///         println!("{} HTLCs are pending", request.pending().htlcs);
///         request.go_ahead();
///     }
/// });
///
/// // The operator's side.
/// let mut absence = supervisor.plan_absence().await?;
/// assert_eq!(absence.pending().deadline().map(|deadline| deadline.blocks_left), Some(100));
/// absence.word().await?;
/// let lapse = absence.lapse().ok_or("the session had ended")?;
/// assert_eq!((lapse.reason, supervisor.mode()), (LapseReason::Planned, Mode::Safe));
/// # drop(session);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it withdraws it"]
pub struct PlannedAbsence {
    supervisor: Supervisor,
    request: AbsenceRequest,
    epoch: Epoch,
    outcome: &'static str,
}

impl PlannedAbsence {
    /// Its number, from 1: by which the node names it.
    pub fn number(&self) -> u64 {
        self.request.number
    }

    /// The session that it would end.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What was pending when it was planned.
    pub fn pending(&self) -> &Pending {
        &self.request.pending
    }

    /// Waits for the node's word, for as long as it takes. Cancel safe.
    ///
    /// # Errors
    /// [`NoWord`]: the node refuses, or the session has ended by itself.
    pub async fn word(&mut self) -> Result<(), NoWord> {
        let epoch = self.epoch;
        let mut said = self.request.word.subscribe();
        let mut signer = self.supervisor.context().subscribe();
        let word = tokio::select! {
            biased;
            _ = signer.wait_for(|state| state.live() != Some(epoch)) => None,
            word = said.wait_for(Option::is_some) => word.ok().and_then(|word| word.clone()),
        };
        match word {
            Some(Word::GoAhead) => Ok(()),
            Some(Word::Refused(why)) => {
                self.outcome = "refused";
                Err(NoWord::Refused(why))
            }
            None => {
                self.outcome = "signer_away";
                Err(NoWord::SignerAway)
            }
        }
    }

    /// Ends the session, for the reason [`LapseReason::Planned`]; whether the node has given its word is the caller's to mind. `None`: it
    /// had ended before; another session is not touched.
    pub fn lapse(mut self) -> Option<Lapse> {
        let lapse = self
            .supervisor
            .context()
            .lapse_of(self.epoch, LapseReason::Planned);
        self.outcome = if lapse.is_some() {
            "lapsed"
        } else {
            "signer_away"
        };
        lapse
    }
}

impl Drop for PlannedAbsence {
    fn drop(&mut self) {
        let number = self.request.number;
        let shared = &self.supervisor.shared;
        shared.absences.current.send_if_modified(|current| {
            current
                .take_if(|planned| planned.number == number)
                .is_some()
        });
        let outcome = self.outcome;
        shared
            .env
            .telemetry
            .emit(Event::AbsenceOver { number, outcome });
    }
}

impl fmt::Debug for PlannedAbsence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlannedAbsence")
            .field("number", &self.request.number)
            .field("epoch", &self.epoch)
            .field("pending", &self.request.pending)
            .finish_non_exhaustive()
    }
}

/// A planned absence, as the node sees it. The first word counts.
#[derive(Debug, Clone)]
pub struct AbsenceRequest {
    number: u64,
    pending: Arc<Pending>,
    word: watch::Sender<Option<Word>>,
}

impl AbsenceRequest {
    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What was pending when it was planned.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// The signer may go now. `false`: another word was given before.
    #[allow(
        clippy::must_use_candidate,
        reason = "the node has said what it has to say"
    )]
    pub fn go_ahead(&self) -> bool {
        self.say(Word::GoAhead)
    }

    /// The signer must not go now. Of `why`, [`ABSENCE_TEXT_MAX`](limits::ABSENCE_TEXT_MAX) bytes are kept, made fit for a log. `false`:
    /// another word was given before.
    #[allow(
        clippy::must_use_candidate,
        reason = "the node has said what it has to say"
    )]
    pub fn refuse(&self, why: &str) -> bool {
        let fit = |character: &char| !character.is_control();
        let mut kept = String::new();
        for character in why.chars().filter(fit) {
            if kept.len() + character.len_utf8() > limits::ABSENCE_TEXT_MAX {
                break;
            }
            kept.push(character);
        }
        self.say(Word::Refused(kept))
    }

    fn say(&self, word: Word) -> bool {
        self.word.send_if_modified(|said| {
            let first = said.is_none();
            if first {
                *said = Some(word);
            }
            first
        })
    }
}

/// The absences that are planned from now on, for the node.
pub struct AbsenceRequests {
    current: watch::Receiver<Option<AbsenceRequest>>,
    seen: u64,
}

impl AbsenceRequests {
    /// The next one, the one that is planned now included. `None` once the supervisor is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<AbsenceRequest> {
        let seen = self.seen;
        let unseen = |request: &Option<AbsenceRequest>| {
            request
                .as_ref()
                .is_some_and(|request| request.number > seen)
        };
        let request = self.current.wait_for(unseen).await.ok()?.clone()?;
        self.seen = request.number;
        Some(request)
    }
}

impl Supervisor {
    /// Plans an absence of the signer: reports what is pending, and asks the node for its word. Nothing changes until
    /// [`PlannedAbsence::lapse`].
    ///
    /// # Errors
    /// [`PlanError`].
    pub async fn plan_absence(&self) -> Result<PlannedAbsence, PlanError> {
        let context = self.context();
        if self.mode() == Mode::Draining {
            return Err(PlanError::Draining);
        }
        let epoch = context.state().live().filter(|_| context.is_live());
        let epoch = epoch.ok_or(PlanError::SignerAway)?;
        let pending = Arc::new(self.pending().await?);
        let request = self.shared.absences.begin(Arc::clone(&pending))?;
        self.shared.env.telemetry.emit(Event::AbsencePlanned {
            number: request.number,
            htlcs: pending.htlcs,
            peers: pending.peers.len(),
            soonest: pending.deadline(),
        });
        Ok(PlannedAbsence {
            supervisor: self.clone(),
            request,
            epoch,
            outcome: "withdrawn",
        })
    }

    /// The absences that are planned, for whoever gives the node's word.
    pub fn absence_requests(&self) -> AbsenceRequests {
        AbsenceRequests {
            current: self.shared.absences.current.subscribe(),
            seen: 0,
        }
    }

    /// The absence that is planned now, if one is.
    pub fn planned_absence(&self) -> Option<AbsenceRequest> {
        self.shared.absences.current.borrow().clone()
    }

    /// What an absence of the signer would leave hanging.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn pending(&self) -> Result<Pending, Stopped> {
        self.ask(|found| Command::Pending { found }).await
    }
}
