//! The signer's presence as a context that can be revoked.
//!
//! For: one [`SignerContext`] a node, cloned to whoever must know whether a signer is there. [`attach`](SignerContext::attach)
//! begins an [`Epoch`] and gives its [`SignerSession`]; the session's drop is the lapse. [`lease`](SignerContext::lease) is how a
//! link comes to depend on the session; [`ecdh`](SignerContext::ecdh) is how a handshake asks it.
//!
//! ```text
//!            attach                     lapse begins                 fence up
//!   vacant ─────────▶ live(n) ───────────────────────▶ lapsing(n) ──────────────▶ vacant (last = n)
//!              leases are given            refused: no lease, no ECDH; attach and lapse wait
//! ```
//!
//! It never waits for I/O, never calls a signer or drops one under a lock, never holds a lock across an `await`, needs no runtime,
//! and spawns nothing: tearing down links is the supervisor's, after the fence is up.
//!
//! # What a lapse does, in order
//! 1. Under the slot's lock: the session leaves the slot, so that nobody takes a new lease of it.
//! 2. The fence is closed: no gate section of that epoch runs or will run ([`fence`]).
//! 3. The state is published; ECDH calls in flight and subscribers are woken. Subscribers are few by contract (the supervisor,
//!    an operator's status): links do not subscribe, the reaper finds them.
//! 4. The signer is dropped: last, outside all locks, since its `Drop` is somebody else's code.
//!
//! # Locks
//! `publishing` before `slot`; each is held for a few instructions (`publishing` for waking subscribers). A publication
//! sends the state that the slot holds *then*, so that two of them can overtake each other and the last word is still right.

use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

#[cfg(pilotlight_loom)]
use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
#[cfg(not(pilotlight_loom))]
use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::watch;

use super::epoch::{Epoch, Lapse, LapseReason, SignerState};
use super::error::{AttachError, EcdhError, ProofError, SignerAway};
use super::fence::{self, Fence, GateGuard, ShardIndex};
use super::proof::{Challenge, Proof};
use super::{EcdhCall, Purpose, Signer};
use crate::node_id::NodeId;
use crate::secret::SharedSecret;

/// Whether a signer is there, for everybody who must know. Cheap to clone; all clones are one context.
///
/// ```
/// use std::sync::Arc;
/// use pilotlight::node_id::LocalKey;
/// use pilotlight::signer::{EmbeddedSigner, LapseReason, Signer, SignerContext};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let signer = Arc::new(EmbeddedSigner::from_key(LocalKey::from_bytes(&mut [7; 32]).unwrap()));
/// let context = SignerContext::new(signer.node_id());
/// assert!(context.lease().is_err(), "no signer yet");
///
/// let proof = context.prove(&*signer, &mut [9; 32]).await.unwrap(); // use real randomness
/// let session = context.attach(proof, signer).unwrap();
/// let lease = context.lease().unwrap();
/// assert!(lease.is_live());
///
/// let lapse = session.lapse(LapseReason::Requested).unwrap();
/// assert_eq!(lapse.epoch.get(), 1);
/// assert!(!lease.is_live(), "and never will be again");
/// # });
/// ```
#[derive(Clone)]
pub struct SignerContext {
    inner: Arc<Inner>,
}

struct Inner {
    node_id: NodeId,
    /// Whether a lease can be had: the cheap answer to the common question. Written under the slot's lock.
    live: AtomicBool,
    slot: Mutex<Slot>,
    /// A lapse has completed.
    settled: Condvar,
    /// Taken before the slot's lock, to publish.
    publishing: Mutex<()>,
    published: watch::Sender<SignerState>,
    /// ECDHs that somebody waits for.
    asking: AtomicUsize,
    /// The shortest answer of the newest session that has given one.
    pace: Mutex<Option<(Epoch, Duration)>>,
}

struct Slot {
    /// What is, or is about to be, published. Stays `Live` while the session is lapsing: `Away` means that the fence is up.
    state: SignerState,
    phase: Phase,
    draining: bool,
    last_lapse: Option<Lapse>,
}

enum Phase {
    Vacant,
    Live(Current),
    /// Some thread is closing this epoch's fence, and will settle.
    Lapsing(Epoch),
}

struct Current {
    session: Arc<SessionShared>,
    signer: Arc<dyn Signer>,
    behind: Option<watch::Receiver<bool>>,
}

/// What the leases of one epoch share. A new one for each, so that an old lease refers for ever to its own closed fence.
struct SessionShared {
    epoch: Epoch,
    fence: Fence,
    /// Deals out the fence's shards in turn.
    leases: AtomicUsize,
    /// Wakes the ECDH calls in flight, when it turns true. A level, not an edge: no call can miss it.
    ended: watch::Sender<bool>,
}

impl SignerContext {
    /// A context for this node, with no signer yet.
    pub fn new(node_id: NodeId) -> Self {
        Self {
            inner: Arc::new(Inner {
                node_id,
                live: AtomicBool::new(false),
                slot: Mutex::new(Slot {
                    state: SignerState::Never,
                    phase: Phase::Vacant,
                    draining: false,
                    last_lapse: None,
                }),
                settled: Condvar::new(),
                publishing: Mutex::new(()),
                published: watch::Sender::new(SignerState::Never),
                asking: AtomicUsize::new(0),
                pace: Mutex::new(None),
            }),
        }
    }

    /// The node whose key the signer must hold.
    pub fn node_id(&self) -> NodeId {
        self.inner.node_id
    }

    /// Whether a lease can be had at this moment: one atomic load. Turns false as the first thing in a lapse, before the
    /// fence is up.
    pub fn is_live(&self) -> bool {
        self.inner.live.load(Ordering::Acquire)
    }

    /// The state. `Away` is said only once the fence is up.
    pub fn state(&self) -> SignerState {
        self.slot().state
    }

    /// How the last session ended; `None` while none has.
    pub fn last_lapse(&self) -> Option<Lapse> {
        self.slot().last_lapse
    }

    /// A view of the state that can be awaited. It may skip states that do not last; the last one is always seen.
    ///
    /// A lapse wakes every subscriber before it returns: for the few that must know, not one for each link.
    pub fn subscribe(&self) -> watch::Receiver<SignerState> {
        self.inner.published.subscribe()
    }

    /// A question that only the identity key can answer. `entropy` is 32 fresh random bytes; it is wiped.
    ///
    /// # Errors
    /// [`ProofError::Entropy`] for bytes that are no secret key (practically never).
    pub fn challenge(&self, entropy: &mut [u8; 32]) -> Result<Challenge, ProofError> {
        let after = self.state().newest();
        Challenge::new(self.clone(), after, entropy)
    }

    /// Challenges a signer that can be asked directly. It may never answer: the caller bounds the time.
    ///
    /// # Errors
    /// [`ProofError`], when the signer is another node's, answers wrongly or not at all.
    pub async fn prove(
        &self,
        signer: &dyn Signer,
        entropy: &mut [u8; 32],
    ) -> Result<Proof, ProofError> {
        let challenge = self.challenge(entropy)?;
        let offered = signer.node_id();
        if offered != self.node_id() {
            return Err(ProofError::OtherNode {
                expected: self.node_id(),
                offered,
            });
        }
        let call = EcdhCall::new(challenge.point(), Purpose::Proof);
        let answer = signer.ecdh(call).await?;
        challenge.verify(answer)
    }

    /// Begins a new epoch with this signer. The session that it gives must be kept: dropping it is the lapse.
    ///
    /// May wait for a lapse in progress to complete (its fence, not its teardown).
    ///
    /// # Errors
    /// [`AttachError`]; the proof is spent either way.
    pub fn attach(
        &self,
        proof: Proof,
        signer: Arc<dyn Signer>,
    ) -> Result<SignerSession, AttachError> {
        let Proof { context, after } = proof;
        if !Arc::ptr_eq(&context.inner, &self.inner) {
            return Err(AttachError::ProofOfAnother);
        }
        let offered = signer.node_id();
        if offered != self.node_id() {
            return Err(AttachError::OtherNode {
                expected: self.node_id(),
                offered,
            });
        }
        // Asked here, outside the lock and on the thread of whoever attaches it: it is the signer's own code.
        let behind = signer.behind();
        let epoch = self.begin(after, signer, behind)?;
        self.publish();
        Ok(SignerSession {
            context: self.clone(),
            epoch,
        })
    }

    /// A refused `signer` is dropped after the lock: a parameter outlives the locals.
    fn begin(
        &self,
        after: Option<Epoch>,
        signer: Arc<dyn Signer>,
        behind: Option<watch::Receiver<bool>>,
    ) -> Result<Epoch, AttachError> {
        let mut slot = self.slot();
        while let Phase::Lapsing(_) = slot.phase {
            slot = self.wait_settled(slot);
        }
        if slot.draining {
            return Err(AttachError::Draining);
        }
        if let Phase::Live(current) = &slot.phase {
            return Err(AttachError::Occupied {
                live: current.session.epoch,
            });
        }
        let last = slot.state.newest();
        if let Some(last) = last.filter(|last| after != Some(*last)) {
            return Err(AttachError::ProofOutdated { last });
        }
        let epoch = Epoch::after(last).ok_or(AttachError::EpochsExhausted)?;
        let session = Arc::new(SessionShared {
            epoch,
            fence: Fence::new(),
            leases: AtomicUsize::new(0),
            ended: watch::Sender::new(false),
        });
        slot.state = SignerState::Live(epoch);
        slot.phase = Phase::Live(Current {
            session,
            signer,
            behind,
        });
        self.inner.live.store(true, Ordering::Release);
        Ok(epoch)
    }

    /// Ends whichever session is live. When it has returned, the fence is up: no leased write or delivery runs or will run.
    ///
    /// `None` when no session was live, or another caller was already ending it; then that lapse is complete too. Waits
    /// for the gate sections that are running, never for I/O. The signer is dropped on this thread, at the end, if nobody else
    /// holds it. Must not be called inside a gate.
    pub fn lapse(&self, reason: LapseReason) -> Option<Lapse> {
        self.end(None, reason)
    }

    /// The same, if this one is live: another is not touched.
    pub(crate) fn lapse_of(&self, epoch: Epoch, reason: LapseReason) -> Option<Lapse> {
        self.end(Some(epoch), reason)
    }

    /// Ends the live session, if any, and refuses every later one: for draining.
    pub fn shut_down(&self) -> Option<Lapse> {
        self.slot().draining = true;
        self.lapse(LapseReason::Shutdown)
    }

    /// Proof that a session is live, to be held by a link that depends on it.
    ///
    /// # Errors
    /// [`SignerAway`], at once, when none is.
    pub fn lease(&self) -> Result<Lease, SignerAway> {
        self.current().map(|(lease, _)| lease)
    }

    /// Asks the signer for one ECDH. At a lapse it fails at once, however long the signer takes; an answer of an old epoch
    /// is never returned. The lease is of the epoch that answered.
    ///
    /// Dropping the future gives up the question; nothing is left behind. A panic of the signer's own code passes to the
    /// caller's task.
    ///
    /// # Errors
    /// [`EcdhError::SignerAway`] when no session is live, or it lapsed meanwhile; [`EcdhError::Signer`] when it failed.
    pub async fn ecdh(&self, call: EcdhCall) -> Result<(SharedSecret, Lease), EcdhError> {
        let (lease, signer) = self.current()?;
        let _asking = Asking::begin(&self.inner.asking);
        let mut ended = lease.session.ended.subscribe();
        let answer = tokio::select! {
            biased;
            // The sender lives in the lease's own session, so an error cannot be; it would mean an end all the same.
            _ = ended.wait_for(|ended| *ended) => return Err(SignerAway.into()),
            answer = signer.ecdh(call) => answer,
        };
        // Between the end of the session and its wake-up there is a moment: an answer that falls into it is dropped,
        // which wipes it, and so is a late error.
        if !lease.is_live() {
            return Err(SignerAway.into());
        }
        Ok((answer?, lease))
    }

    /// ECDHs that are asked of the signer and not answered, those that wait in its own queue included.
    pub fn ecdh_in_flight(&self) -> usize {
        self.inner.asking.load(Ordering::Relaxed)
    }

    /// Whether the live session's signer would refuse a stranger who dials from there.
    pub(crate) fn declines(&self, source: IpAddr) -> bool {
        self.current()
            .is_ok_and(|(_, signer)| signer.declines(source))
    }

    /// Notes how long an answer of that session took: the shortest of a session is what the way to it takes.
    pub(crate) fn answered_in(&self, epoch: Epoch, took: Duration) {
        let mut pace = self.pace();
        match &mut *pace {
            Some((of, shortest)) if *of == epoch => *shortest = took.min(*shortest),
            Some((of, _)) if *of > epoch => {}
            other => *other = Some((epoch, took)),
        }
    }

    /// How long the newest signer that has answered took for it at the least: its round trip, and one ECDH. 0 before any has.
    pub(crate) fn round_trip(&self) -> Duration {
        self.pace().map_or(Duration::ZERO, |(_, shortest)| shortest)
    }

    fn pace(&self) -> MutexGuard<'_, Option<(Epoch, Duration)>> {
        self.inner
            .pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the signer of that session is behind, to be followed. `None`: it never is, or the session is over.
    pub(crate) fn behind(&self, epoch: Epoch) -> Option<watch::Receiver<bool>> {
        match &self.slot().phase {
            Phase::Live(current) if current.session.epoch == epoch => current.behind.clone(),
            _ => None,
        }
    }

    fn current(&self) -> Result<(Lease, Arc<dyn Signer>), SignerAway> {
        if !self.is_live() {
            return Err(SignerAway);
        }
        match &self.slot().phase {
            Phase::Live(current) => Ok((Lease::new(&current.session), Arc::clone(&current.signer))),
            Phase::Vacant | Phase::Lapsing(_) => Err(SignerAway),
        }
    }

    /// The lapse of one epoch, or of any.
    fn end(&self, only: Option<Epoch>, reason: LapseReason) -> Option<Lapse> {
        fence::assert_outside_gates();
        let at = Instant::now();
        let Some(Current {
            session, signer, ..
        }) = self.take(only)
        else {
            // Somebody else ended it; perhaps it is still on its way to say so.
            self.publish();
            return None;
        };
        session.fence.close();
        let lapse = Lapse {
            epoch: session.epoch,
            reason,
            fence: at.elapsed(),
            at,
        };
        self.settle(lapse);
        session.ended.send_replace(true);
        self.publish();
        drop_contained(signer);
        Some(lapse)
    }

    /// Takes the session out of the slot, so that this thread is the one to end it. `None`, after any lapse of it that
    /// is in progress is complete, when there is none to end.
    fn take(&self, only: Option<Epoch>) -> Option<Current> {
        let wanted = |epoch: Epoch| only.is_none_or(|only| only == epoch);
        let mut slot = self.slot();
        match std::mem::replace(&mut slot.phase, Phase::Vacant) {
            Phase::Live(current) if wanted(current.session.epoch) => {
                slot.phase = Phase::Lapsing(current.session.epoch);
                self.inner.live.store(false, Ordering::Release);
                Some(current)
            }
            Phase::Lapsing(epoch) if wanted(epoch) => {
                slot.phase = Phase::Lapsing(epoch);
                while matches!(slot.phase, Phase::Lapsing(still) if still == epoch) {
                    slot = self.wait_settled(slot);
                }
                None
            }
            other => {
                slot.phase = other;
                None
            }
        }
    }

    fn settle(&self, lapse: Lapse) {
        let mut slot = self.slot();
        slot.state = SignerState::Away {
            last: lapse.epoch,
            reason: lapse.reason,
        };
        slot.last_lapse = Some(lapse);
        slot.phase = Phase::Vacant;
        drop(slot);
        self.inner.settled.notify_all();
    }

    /// Makes the slot's state, as it is now, the one that subscribers see.
    fn publish(&self) {
        let _turn = self
            .inner
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        self.inner.published.send_if_modified(|published| {
            let changed = *published != state;
            *published = state;
            changed
        });
    }

    /// A poisoned lock is as good as any: no user code runs under it, and its value is whole between any two statements
    /// that could panic.
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.inner
            .slot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_settled<'a>(&self, slot: MutexGuard<'a, Slot>) -> MutexGuard<'a, Slot> {
        self.inner
            .settled
            .wait(slot)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one ECDH for as long as somebody waits for it.
struct Asking<'a>(&'a AtomicUsize);

impl<'a> Asking<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Drops a signer, and keeps a panic of its destructor from turning a lapse into an abort (a lapse may run while another
/// panic unwinds). The panic hook has reported it by then.
fn drop_contained(signer: Arc<dyn Signer>) {
    let _ = catch_unwind(AssertUnwindSafe(move || drop(signer)));
}

impl fmt::Debug for SignerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignerContext")
            .field("node_id", &self.node_id())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// The time between a signer's attaching and its lapse. Not `Clone`: one holder, whose end is the session's end.
///
/// Dropping it is the lapse, for whatever reason it is dropped, a panic's unwinding included (`panic = "unwind"`; with
/// `abort` the process is gone, and its links with it). A session that leaks (`mem::forget`, a cycle of `Arc`s) never
/// drops: only the liveness check of whoever speaks to the signer ends it then, through [`SignerContext::lapse`].
///
/// ```compile_fail
/// fn copy(session: pilotlight::signer::SignerSession) {
///     let _second = session.clone(); // no such method: there is one holder
/// }
/// ```
#[must_use = "dropping the session is the lapse"]
pub struct SignerSession {
    context: SignerContext,
    epoch: Epoch,
}

impl SignerSession {
    /// Its number.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether it has not been ended yet, by a take-over or on request.
    pub fn is_live(&self) -> bool {
        self.context.is_live() && self.context.state().live() == Some(self.epoch)
    }

    /// Ends it, with a reason. `None` when somebody else has ended it; that lapse is complete then.
    pub fn lapse(self, reason: LapseReason) -> Option<Lapse> {
        self.context.end(Some(self.epoch), reason)
    }
}

impl Drop for SignerSession {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() {
            LapseReason::Panicked
        } else {
            LapseReason::Dropped
        };
        // After `lapse` this finds the epoch gone, and does nothing. The state tells subscribers the rest.
        let _ = self.context.end(Some(self.epoch), reason);
    }
}

impl fmt::Debug for SignerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignerSession")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Proof that a signer session was live when this was taken; what a link in the signer's scope holds.
///
/// Only [`SignerContext::lease`] and [`SignerContext::ecdh`] give one. It dies with its epoch and never revives, whoever
/// attaches later. A clone shares its gate: a lease's clones are meant for one link.
#[derive(Clone)]
pub struct Lease {
    session: Arc<SessionShared>,
    shard: ShardIndex,
}

impl Lease {
    fn new(session: &Arc<SessionShared>) -> Self {
        // `Relaxed`: the number only spreads the load; nothing is ordered by it.
        let turn = session.leases.fetch_add(1, Ordering::Relaxed);
        Self {
            session: Arc::clone(session),
            shard: ShardIndex::spread(turn),
        }
    }

    /// The session that it is of.
    pub fn epoch(&self) -> Epoch {
        self.session.epoch
    }

    /// Whether its session is live. `true` may be outdated when it is read: only a gate holds a lapse off. `false` is for
    /// ever.
    ///
    /// A link that stores its lease under a mutex and asks *afterwards* cannot be overlooked by who lapses and then scans
    /// under the same mutex: either the scan sees the lease, or the link sees `false`.
    pub fn is_live(&self) -> bool {
        self.session.fence.is_open(self.shard)
    }

    /// Begins a gate section, or `None` if the session has lapsed. For what may be done inside, see [`fence`].
    pub(crate) fn enter(&self) -> Option<GateGuard<'_>> {
        self.session.fence.enter(self.shard)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("epoch", &self.epoch())
            .field("live", &self.is_live())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;

#[cfg(all(test, pilotlight_loom))]
#[path = "context_loom.rs"]
mod loom_models;
