//! From a TCP connection to a link and to its end: connect, handshake, admission, then [`LinkTask`] until it closes. The handshake of
//! who dialled us is [`caller`](super::caller)'s.
//!
//! One task for a link's beginning and one for its life. Nothing but its own handshake waits for the signer. A lapse does not need the
//! task at all: the fence stops its writes and deliveries, the reaper wipes and resets, and the task only finds out.

use super::alarms::Alarms;
use super::catch_up::SyncDesk;
use super::delivery::{Deliveries, Delivery};
use super::handshake::{Acts, Done, HandshakeFailure, StaticKey, ephemeral};
use super::reach::{Reach, Target};
use super::shared::{Birth, LinkShared, LinkState, Stage, reset_socket};
use super::socks::Circuit;
use super::task::LinkTask;
use super::{CloseReason, Direction, Identity, LinkHandle, LinkId};
use crate::address::{KnownAddress, PeerAddress};
use crate::book::BookError;
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::network::IpNetwork;
use crate::node_id::{LocalKey, NodeId};
use crate::signer::{Epoch, Lease, Purpose, SignerContext};
use crate::telemetry::{Event, Telemetry};
use crate::vault::Vault;
use crate::wire::Features;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

/// What the links of one supervisor share.
pub(crate) struct Env {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
    pub(crate) context: SignerContext,
    pub(crate) vault: Vault,
    /// When links are to be woken.
    pub(crate) alarms: Alarms,
    pub(crate) inbox: Deliveries,
    pub(crate) reports: mpsc::Sender<Report>,
    /// The newest session that has lapsed. Raised by the reaper, after the fence and off the caller of `lapse`.
    pub(crate) lapsed: watch::Receiver<Option<Epoch>>,
    pub(crate) settings: NodeSettings,
    /// How dials leave this machine.
    pub(crate) reach: Reach,
    /// Who asks for what the node has missed.
    pub(crate) sync: Arc<SyncDesk>,
    /// The node's own key, if it is held here too: for what needs no more than that while no signer is there.
    pub(crate) cached: Option<Arc<LocalKey>>,
    /// Spreads what many links would otherwise do in one instant.
    pub(crate) seed: u64,
}

/// What the node says of itself to its peers.
#[expect(
    clippy::struct_excessive_bools,
    reason = "choices that do not depend on one another"
)]
#[derive(Debug, Clone)]
pub(crate) struct NodeSettings {
    pub(crate) features: Features,
    pub(crate) networks: Vec<[u8; 32]>,
    pub(crate) queries_served: bool,
    pub(crate) custom_even_ok: bool,
    pub(crate) observe: bool,
    pub(crate) max_session_age: Option<Duration>,
    /// Whoever dials from there is free of the bounds on strangers, and is not banned.
    pub(crate) protected: Arc<[IpNetwork]>,
    /// Each gossip link asks for what was missed as soon as it is up.
    pub(crate) auto_sync: bool,
}

/// What a link's task tells the supervisor.
pub(crate) enum Report {
    /// The handshake is done; the task waits for the verdict.
    Authenticated {
        link: LinkId,
        peer: NodeId,
        address: PeerAddress,
        direction: Direction,
        verdict: oneshot::Sender<Verdict>,
    },
    /// Both `init`s have passed.
    Up { link: LinkId, handle: LinkHandle },
    /// The peer has shown life after a probe.
    Alive { link: LinkId },
    /// The node sends its first channel message to a gossip-only peer: put the promotion on record, then answer.
    Promote {
        peer: NodeId,
        recorded: oneshot::Sender<Result<(), BookError>>,
    },
    /// A dial ended before the link was up.
    DialFailed {
        link: LinkId,
        failure: HandshakeFailure,
    },
    /// An inbound connection ended before it was a link.
    InboundFailed {
        link: LinkId,
        address: SocketAddr,
        failure: HandshakeFailure,
    },
    /// An admitted link ended; its secrets are wiped and the node has been told.
    Ended { link: LinkId, reason: CloseReason },
}

/// The supervisor's answer to `Authenticated`. Before it admits a link it has put it into the scope that its peer's tag asks for.
pub(crate) enum Verdict {
    Admit,
    Refuse(CloseReason),
}

/// A dial to make.
pub(crate) struct DialOrder {
    pub(crate) link: LinkId,
    pub(crate) peer: NodeId,
    pub(crate) address: KnownAddress,
    pub(crate) as_whom: DialAs,
    /// Set when the handshake is done: from then on the link reports its own end, even if its task panics.
    pub(crate) authenticated: Arc<AtomicBool>,
}

/// Under which of our keys a dial is made.
pub(crate) enum DialAs {
    /// The node's own.
    Node {
        /// What the signer is told that its ECDH is for.
        purpose: Purpose,
        /// For a channel-bearing peer: the lease that the link is in the scope of from its first byte.
        lease: Option<Lease>,
    },
    /// A throwaway key; `None`: the system gave no randomness for one. No signer is asked, and no session's end touches it.
    Persona(Option<Persona>),
    /// The node's own, from the copy that is held here, while no signer is there. It takes no lease, so it never bears a channel.
    Cached(Arc<LocalKey>),
}

/// A throwaway identity.
#[derive(Clone)]
pub(crate) struct Persona {
    key: Arc<LocalKey>,
    /// Its own way through the proxy.
    circuit: Circuit,
}

impl Persona {
    /// `None`: the system gives no randomness.
    pub(crate) fn new() -> Option<Self> {
        let key = Arc::new(ephemeral().ok()?);
        let circuit = Circuit::new()?;
        Some(Self { key, circuit })
    }
}

impl DialAs {
    pub(crate) fn identity(&self) -> Identity {
        match self {
            Self::Node { .. } | Self::Cached(_) => Identity::Node,
            Self::Persona(_) => Identity::Persona,
        }
    }
}

impl Env {
    /// Reports to the supervisor. It never waits for a link, so this never waits for long.
    pub(crate) async fn report(&self, report: Report) {
        // A failure means that the supervisor is gone, and with it everybody who could care.
        let _ = self.reports.send(report).await;
    }

    /// Ends as soon as the session `epoch` has lapsed and its links are torn down, or the supervisor is gone.
    pub(super) async fn until_lapse(&self, epoch: Epoch) {
        let mut lapsed = self.lapsed.clone();
        // An error means that the reaper is gone, and the supervisor with it.
        let _ = lapsed
            .wait_for(|newest| newest.is_some_and(|newest| newest >= epoch))
            .await;
    }

    /// Runs a dial's handshake under the node's own key, and ends it when the session that it started under lapses: the dial is
    /// repeated when the signer is back, from its beginning.
    async fn under_signer(
        &self,
        work: Pin<&mut impl Future<Output = Result<Connected, HandshakeFailure>>>,
    ) -> Result<Connected, HandshakeFailure> {
        let Ok(epoch) = self.context.lease().map(|lease| lease.epoch()) else {
            return Err(HandshakeFailure::Lapsed);
        };
        tokio::select! {
            biased;
            () = self.until_lapse(epoch) => Err(HandshakeFailure::Lapsed),
            result = work => result,
        }
    }
}

/// A connection whose handshake is done.
pub(super) struct Connected {
    pub(super) socket: TcpStream,
    /// What it is connected to.
    pub(super) reached: PeerAddress,
    pub(super) done: Done,
}

/// Dials a peer and asks for the link's admission. `None`: there is no link, and the supervisor has been told why. `cancel` gives the dial
/// up, as long as its handshake is not done.
///
/// Hundreds are under way at a time, so what one is ordered to do is kept once: whatever is given to a future, that future has room for.
pub(crate) fn dial(
    env: Arc<Env>,
    order: DialOrder,
    cancel: oneshot::Receiver<CloseReason>,
) -> impl Future<Output = Option<Admitted>> + Send {
    let origin = Origin {
        link: order.link,
        address: order.address.address.clone(),
        direction: Direction::Outbound,
        identity: order.as_whom.identity(),
    };
    async move {
        // It ends with all that it was handed, before anybody is told how.
        let linking = async {
            let connected = reach_peer(&env, &origin, &order, cancel).await?;
            order.authenticated.store(true, Ordering::Release);
            // The key or the lease that it was made under is not this dial's any more.
            drop(order);
            establish(&env, connected, &origin).await
        };
        match linking.await {
            Ok(admitted) => Some(admitted),
            Err(failure) => {
                let link = origin.link;
                env.report(Report::DialFailed { link, failure }).await;
                None
            }
        }
    }
}

/// Connects and shakes hands, unless the dial is given up or the session that it asks lapses.
async fn reach_peer(
    env: &Env,
    origin: &Origin,
    order: &DialOrder,
    cancel: oneshot::Receiver<CloseReason>,
) -> Result<Connected, HandshakeFailure> {
    // Set when the connection is there: before that no handshake begins.
    let started = OnceLock::new();
    let asks_signer = matches!(order.as_whom, DialAs::Node { .. });
    let cancelled = async {
        match cancel.await {
            Ok(reason) => reason,
            Err(_) => std::future::pending().await,
        }
    };
    // Its secrets are gone before anybody is told how it ended.
    let connected = {
        let mut work = pin!(shake(env, order, &started));
        tokio::select! {
            reason = cancelled => Err(HandshakeFailure::NotAdmitted(reason)),
            connected = async {
                if asks_signer {
                    env.under_signer(work.as_mut()).await
                } else {
                    work.as_mut().await
                }
            } => connected,
        }
    };
    if let Some(started) = started.get() {
        note_handshake(env, origin, *started, connected.as_ref().err());
    }
    connected
}

/// Connects and goes through the acts as initiator.
async fn shake(
    env: &Env,
    order: &DialOrder,
    started: &OnceLock<Moment>,
) -> Result<Connected, HandshakeFailure> {
    let (key, circuit) = match &order.as_whom {
        DialAs::Node { .. } => (StaticKey::Signer(env.context.clone()), None),
        DialAs::Persona(persona) => {
            let persona = persona.as_ref().ok_or(HandshakeFailure::Entropy)?;
            (
                StaticKey::Local(Arc::clone(&persona.key)),
                Some(&persona.circuit),
            )
        }
        DialAs::Cached(key) => (StaticKey::Local(Arc::clone(key)), None),
    };
    let target = Target {
        known: &order.address,
        persona: circuit,
    };
    let (socket, reached) = env.reach.connect(&*env.clock, target).await?;
    prepare(&socket);
    let _ = started.set(env.clock.now());
    let asks_signer = matches!(key, StaticKey::Signer(_));
    let acts = Acts {
        socket: &socket,
        clock: &*env.clock,
        // What it is told of is what the signer is asked.
        observer: asks_signer.then_some(&env.telemetry),
    };
    let (purpose, lease) = match &order.as_whom {
        DialAs::Node { purpose, lease } => (*purpose, lease.clone()),
        DialAs::Persona(_) | DialAs::Cached(_) => (Purpose::GossipDial, None),
    };
    let done = acts.initiate(&key, order.peer, purpose, lease).await?;
    Ok(Connected {
        socket,
        reached,
        done,
    })
}

/// A message must leave when it is written, not when the kernel has gathered more.
pub(super) fn prepare(socket: &TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY is not to be had: messages may leave late");
    }
}

pub(super) fn note_handshake(
    env: &Env,
    origin: &Origin,
    started: Moment,
    failure: Option<&HandshakeFailure>,
) {
    env.telemetry.emit(Event::Handshake {
        direction: origin.direction,
        identity: origin.identity,
        result: failure.map_or("ok", HandshakeFailure::label),
        took: env.clock.now().since(started),
    });
}

/// Where a link comes from.
pub(super) struct Origin {
    pub(super) link: LinkId,
    /// Where it was dialled, or dialled from.
    pub(super) address: PeerAddress,
    pub(super) direction: Direction,
    pub(super) identity: Identity,
}

/// Puts the link into the vault and asks for admission. An error means that it was not let in.
pub(super) async fn establish(
    env: &Arc<Env>,
    connected: Connected,
    origin: &Origin,
) -> Result<Admitted, HandshakeFailure> {
    let Connected {
        socket,
        reached,
        done,
    } = connected;
    let peer = done.authenticated.remote();
    // The handshake's own lease is the one to start with: had its session lapsed since, the link would be of an old epoch (P6).
    let birth = Birth {
        id: origin.link,
        peer,
        address: origin.address.clone(),
        direction: origin.direction,
        identity: origin.identity,
        lease: done.lease,
    };
    let shared = Arc::new(LinkShared::new(
        birth,
        socket,
        done.authenticated.into_session(),
        Arc::clone(env),
    ));
    let mut obituary = Obituary::new(&shared);
    let is_wanted = env.vault.insert(Arc::clone(&shared));
    // A lapse since the lease was taken, or the supervisor's stop, may have passed the vault before this link was in it.
    if !is_wanted || shared.state.dead_scope().is_some() {
        shared.wipe();
        shared.reset(if is_wanted {
            CloseReason::Lapse
        } else {
            CloseReason::Draining
        });
    }
    let refused = admission(env, &shared.state, reached).await;
    if let Some(reason) = refused {
        drop(shared);
        obituary.reason = reason;
        // A stranger whom we turn away is not waited for.
        drop(obituary.bury());
        let lapsed = reason == CloseReason::Lapse;
        return Err(if lapsed {
            HandshakeFailure::Lapsed
        } else {
            HandshakeFailure::NotAdmitted(reason)
        });
    }
    Ok(Admitted { shared, obituary })
}

/// Asks the supervisor whether a link is let in. `Some`: why it is not, or why it ended meanwhile.
async fn admission(env: &Env, state: &LinkState, reached: PeerAddress) -> Option<CloseReason> {
    let (verdict, answer) = oneshot::channel();
    env.report(Report::Authenticated {
        link: state.id,
        peer: state.peer,
        address: reached,
        direction: state.direction,
        verdict,
    })
    .await;
    tokio::select! {
        biased;
        verdict = answer => match verdict {
            Ok(Verdict::Admit) => None,
            Ok(Verdict::Refuse(reason)) => Some(reason),
            Err(_) => Some(CloseReason::Draining),
        },
        reason = state.closed() => Some(reason),
    }
}

/// A link that has been let in. It ends at once if it is dropped.
pub(crate) struct Admitted {
    shared: Arc<LinkShared>,
    obituary: Obituary,
}

impl Admitted {
    /// Runs the link to its end and reports the end. What is awaited here is in memory for as long as the link lives, so it is no more
    /// than that takes: what comes before it and what comes after it are in boxes of their own.
    pub(crate) fn live(self) -> impl Future<Output = ()> + Send {
        let Self { shared, obituary } = self;
        let mut task = LinkTask::new(shared);
        async move {
            let reason = task.run().await;
            Box::pin(end(task, obituary, reason)).await;
        }
    }
}

/// Lets the link that came of a dial or a call live in a task of its own. Handshakes take kilobytes; what a task has room for it has for
/// as long as it lives.
pub(crate) fn live_on(admitted: Option<Admitted>) {
    if let Some(admitted) = admitted {
        tokio::spawn(admitted.live());
    }
}

/// A link's last words, and the report of its end.
async fn end(task: LinkTask, mut obituary: Obituary, reason: CloseReason) {
    let env = Arc::clone(&obituary.state.env);
    let env = &env;
    let dead = obituary.state.dead_scope();
    if let Some(epoch) = dead {
        // The task may have met the closed fence before the reaper met the link: it is the reaper's to count.
        env.until_lapse(epoch).await;
    }
    obituary.reason = reason;
    obituary.state.outbox.close(reason);
    let undelivered = task.finish(reason).await;
    let closing = obituary.bury();
    // What a dead scope has not delivered is never delivered.
    for delivery in undelivered.into_iter().filter(|_| dead.is_none()) {
        let room = tokio::select! {
            biased;
            room = env.inbox.room_for(&delivery) => room,
            // The supervisor has gone, and leaves no task behind that waits for the node.
            () = env.reports.closed() => break,
        };
        env.inbox.send(delivery, room.ok());
    }
    obituary.publish();
    if reason == CloseReason::Draining {
        // A drain is over when the peers have taken what was flushed, or have had the time to. Elsewhere nobody waits for that.
        linger(env, closing).await;
        obituary.report().await;
    } else {
        obituary.report().await;
        linger(env, closing).await;
    }
}

/// Ends a connection whose secrets are wiped: with RST at once, or with FIN, so that what was flushed still arrives. `Some`: it was
/// closed in peace, and may be read on for a while.
fn end_connection(shared: Arc<LinkShared>, reason: CloseReason) -> Option<Arc<LinkShared>> {
    if reason.is_abortive() {
        reset_socket(&shared.socket);
        return None;
    }
    // It fails only where the connection is gone already.
    let _ = socket2::SockRef::from(&shared.socket).shutdown(std::net::Shutdown::Write);
    Some(shared)
}

/// Reads and throws away until the peer has closed too, for at most a second: closing with unread bytes would send RST and could
/// take back what the peer has not read yet.
async fn linger(env: &Env, closing: Option<Arc<LinkShared>>) {
    let Some(shared) = closing else {
        return;
    };
    let deadline = env.clock.sleep_until(env.clock.now().after(limits::LINGER));
    let drain = async {
        let mut sink = [0; 1024];
        while shared.socket.readable().await.is_ok() {
            // A peer that never stops sending must not keep the deadline from being looked at.
            tokio::task::coop::consume_budget().await;
            match shared.socket.try_read(&mut sink) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    tokio::select! {
        () = drain => {}
        () = deadline => {}
    }
}

/// Sees to it that a link's end is known and its secrets are wiped, even if its task panics.
struct Obituary {
    state: Arc<LinkState>,
    /// `None` once the link is buried.
    shared: Option<Arc<LinkShared>>,
    reason: CloseReason,
}

impl Obituary {
    fn new(shared: &Arc<LinkShared>) -> Self {
        Self {
            state: Arc::clone(&shared.state),
            shared: Some(Arc::clone(shared)),
            reason: CloseReason::Internal,
        }
    }

    /// Wipes the secrets before anybody hears of the end (P3), then ends the connection. A node that does not listen keeps neither.
    fn bury(&mut self) -> Option<Arc<LinkShared>> {
        let shared = self.shared.take()?;
        shared.wipe();
        self.state.outbox.end(self.reason);
        // This also takes the task's waker, with which a handle would hold the task's memory.
        self.state.request_close(self.reason);
        self.state.env.vault.remove(self.state.id);
        end_connection(shared, self.reason)
    }

    /// Tells the node.
    fn publish(&self) {
        let (env, state, reason) = (&self.state.env, &self.state, self.reason);
        if state.stage() == Stage::Up {
            state.emit(Event::LinkDown {
                peer: state.peer,
                link: state.id,
                tag: state.tag(),
                direction: state.direction,
                identity: state.identity,
                reason,
            });
            env.inbox.send(
                Delivery::Down {
                    state: Arc::clone(state),
                    reason,
                },
                None,
            );
        } else if let Some(address) = state.dialled_from()
            && state.stage() == Stage::Admitted
        {
            // Of a dial that ends so early the supervisor tells.
            let failure = HandshakeFailure::BeforeInit(reason);
            let (label, detail) = (failure.label(), failure.to_string());
            state.emit(Event::InboundFailed {
                address,
                failure: label,
                detail,
            });
        }
    }

    /// Tells the supervisor, after the node: a successor is admitted only when the node's queue has the end.
    async fn report(self) {
        let (env, state, reason) = (&self.state.env, &self.state, self.reason);
        let (link, failure) = (state.id, HandshakeFailure::Panicked);
        let report = match (state.stage(), state.dialled_from()) {
            (Stage::Authenticated, Some(address)) => Report::InboundFailed {
                link,
                address,
                failure,
            },
            (Stage::Authenticated, None) => Report::DialFailed { link, failure },
            _ => Report::Ended { link, reason },
        };
        env.report(report).await;
    }
}

impl Drop for Obituary {
    /// A task that panicked, or was dropped, has not buried its link.
    fn drop(&mut self) {
        if self.shared.is_none() {
            return;
        }
        drop(self.bury());
        let orphan = Self {
            state: Arc::clone(&self.state),
            shared: None,
            reason: self.reason,
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            if std::thread::panicking() {
                Telemetry::link_panicked(self.state.id);
            }
            orphan.publish();
            runtime.spawn(orphan.report());
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that a call's future takes.
    fn size_of_future<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// A link holds its task for as long as it lives, with room for the largest step of it. The runtime adds 104 bytes and rounds up
    /// to 128: up to 408 that makes 512, and with a word more a link costs 128 more. The pinned compiler makes it 384.
    #[test]
    fn p9_a_link_s_task_is_small() {
        let size = size_of_future(Admitted::live);
        assert!(size <= 408, "{size} bytes: box what is rare");
    }

    /// A relight has hundreds of dials under way, and what they took is not given back to the system. The pinned compiler makes it 1,880.
    #[test]
    fn p9_a_dial_is_no_larger_than_it_must_be() {
        let size = size_of_future(|(env, order, cancel)| dial(env, order, cancel));
        assert!(
            size <= 2_048,
            "{size} bytes: what has it been handed twice?"
        );
    }
}
