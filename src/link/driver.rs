//! From a TCP connection to a link and to its end: connect, handshake, admission, then [`LinkTask`] until it closes.
//!
//! One task a link. Nothing but its own handshake waits for the signer. A lapse does not need the task at all: the fence stops
//! its writes and deliveries, the reaper wipes and resets, and the task only finds out.

use super::handshake::{Acts, Done, HandshakeFailure, StaticKey};
use super::shared::{Birth, LinkShared, LinkState, reset_socket};
use super::task::LinkTask;
use super::{CloseReason, Direction, Identity, LinkHandle, LinkId, Tag};
use crate::book::BookError;
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::node_id::{LocalKey, NodeId};
use crate::signer::{Epoch, Lease, SignerContext};
use crate::telemetry::{Event, Telemetry};
use crate::vault::Vault;
use crate::wire::Features;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// What the links of one supervisor share.
pub(crate) struct Env {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
    pub(crate) context: SignerContext,
    pub(crate) vault: Vault,
    pub(crate) inbox: mpsc::Sender<Delivery>,
    pub(crate) reports: mpsc::Sender<Report>,
    /// The newest session that has lapsed. Raised by the reaper, after the fence and off the caller of `lapse`.
    pub(crate) lapsed: watch::Receiver<Option<Epoch>>,
    pub(crate) settings: NodeSettings,
    /// Spreads what many links would otherwise do in one instant.
    pub(crate) seed: u64,
}

/// What the node says of itself to its peers.
#[derive(Debug, Clone)]
pub(crate) struct NodeSettings {
    pub(crate) features: Features,
    pub(crate) networks: Vec<[u8; 32]>,
    pub(crate) queries_served: bool,
    pub(crate) custom_even_ok: bool,
}

/// What goes into the node's inbox, in the order in which the node shall see it.
pub(crate) enum Delivery {
    Up { state: Arc<LinkState>, init: Bytes },
    Message { state: Arc<LinkState>, bytes: Bytes },
    Down { state: Arc<LinkState>, reason: CloseReason },
}

/// What a link's task tells the supervisor.
pub(crate) enum Report {
    /// The handshake is done; the task waits for the verdict.
    Authenticated {
        link: LinkId,
        peer: NodeId,
        address: SocketAddr,
        direction: Direction,
        verdict: oneshot::Sender<Verdict>,
    },
    /// Both `init`s have passed.
    Up { link: LinkId, handle: LinkHandle },
    /// The peer has shown life after a probe.
    Alive { link: LinkId },
    /// The node sends its first channel message to a gossip-only peer: put the promotion on record, then answer.
    Promote { peer: NodeId, recorded: oneshot::Sender<Result<(), BookError>> },
    /// A dial ended before the link was up.
    DialFailed { link: LinkId, failure: HandshakeFailure },
    /// An inbound connection ended before it was a link.
    InboundFailed { link: LinkId, address: SocketAddr, failure: HandshakeFailure },
    /// An admitted link ended; its secrets are wiped and the node has been told.
    Ended { link: LinkId, reason: CloseReason },
}

/// The supervisor's answer to `Authenticated`.
pub(crate) enum Verdict {
    Admit { tag: Tag },
    Refuse(CloseReason),
}

/// A dial to make.
pub(crate) struct DialOrder {
    pub(crate) link: LinkId,
    pub(crate) peer: NodeId,
    pub(crate) address: SocketAddr,
    /// For a channel-bearing peer: the lease that the link is in the scope of from its first byte.
    pub(crate) lease: Option<Lease>,
    /// Gives the dial up, as long as the link is not admitted.
    pub(crate) cancel: oneshot::Receiver<CloseReason>,
}

impl Env {
    /// Reports to the supervisor. It never waits for a link, so this never waits for long.
    pub(crate) async fn report(&self, report: Report) {
        // A failure means that the supervisor is gone, and with it everybody who could care.
        let _ = self.reports.send(report).await;
    }

    /// Ends as soon as the session `epoch` has lapsed and its links are torn down, or the supervisor is gone.
    async fn until_lapse(&self, epoch: Epoch) {
        let mut lapsed = self.lapsed.clone();
        // An error means that the reaper is gone, and the supervisor with it.
        let _ = lapsed.wait_for(|newest| newest.is_some_and(|newest| newest >= epoch)).await;
    }

    /// A fresh ephemeral key from the system's randomness.
    pub(crate) fn ephemeral() -> Result<LocalKey, HandshakeFailure> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| HandshakeFailure::Entropy)?;
        LocalKey::from_bytes(&mut seed).map_err(|_| HandshakeFailure::Entropy)
    }

    /// Runs a handshake under the node's own key, and ends it when the session that it started under lapses.
    async fn under_signer(
        &self,
        work: impl Future<Output = Result<Connected, HandshakeFailure>>,
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
struct Connected {
    socket: TcpStream,
    done: Done,
}

/// Dials a peer and runs the link until it ends.
pub(crate) async fn dial(env: Arc<Env>, order: DialOrder) {
    let DialOrder { link, peer, address, lease, cancel } = order;
    let work = async {
        let socket = connect(&*env.clock, address).await?;
        let started = env.clock.now();
        let acts = Acts { socket: &socket, clock: &*env.clock, observer: Some(&env.telemetry) };
        let key = StaticKey::Signer(env.context.clone());
        let result = acts.initiate(&key, peer, Env::ephemeral()?, lease).await;
        note_handshake(&env, Direction::Outbound, started, result.as_ref().err());
        Ok(Connected { done: result?, socket })
    };
    let origin = Origin { link, address, direction: Direction::Outbound };
    let cancelled = async {
        match cancel.await {
            Ok(reason) => reason,
            Err(_) => std::future::pending().await,
        }
    };
    let connected = tokio::select! {
        reason = cancelled => Err(HandshakeFailure::NotAdmitted(reason)),
        connected = env.under_signer(work) => connected,
    };
    let result = match connected {
        Ok(connected) => establish(&env, connected, origin).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = result {
        env.report(Report::DialFailed { link, failure }).await;
    }
}

/// Answers a peer that dialled us and runs the link until it ends. `slot` is the place among the handshakes under way.
pub(crate) async fn accept(env: Arc<Env>, link: LinkId, socket: TcpStream, address: SocketAddr, slot: OwnedSemaphorePermit) {
    let work = async {
        let started = env.clock.now();
        prepare(&socket);
        let acts = Acts { socket: &socket, clock: &*env.clock, observer: Some(&env.telemetry) };
        let key = StaticKey::Signer(env.context.clone());
        let result = acts.respond(&key, Env::ephemeral()?).await;
        note_handshake(&env, Direction::Inbound, started, result.as_ref().err());
        Ok(Connected { done: result?, socket })
    };
    let origin = Origin { link, address, direction: Direction::Inbound };
    let connected = env.under_signer(work).await;
    drop(slot);
    let result = match connected {
        Ok(connected) => establish(&env, connected, origin).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = result {
        env.report(Report::InboundFailed { link, address, failure }).await;
    }
}

async fn connect(clock: &dyn Clock, address: SocketAddr) -> Result<TcpStream, HandshakeFailure> {
    let deadline = clock.sleep_until(clock.now().after(limits::CONNECT_DEADLINE));
    let socket = tokio::select! {
        result = TcpStream::connect(address) => result.map_err(HandshakeFailure::Connect)?,
        () = deadline => return Err(HandshakeFailure::ConnectTimeout),
    };
    prepare(&socket);
    Ok(socket)
}

/// A message must leave when it is written, not when the kernel has gathered more.
fn prepare(socket: &TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY is not to be had: messages may leave late");
    }
}

fn note_handshake(env: &Env, direction: Direction, started: Moment, failure: Option<&HandshakeFailure>) {
    env.telemetry.emit(Event::Handshake {
        direction,
        identity: Identity::Node,
        result: failure.map_or("ok", HandshakeFailure::label),
        took: env.clock.now().since(started),
    });
}

/// Where a link comes from.
#[derive(Clone, Copy)]
struct Origin {
    link: LinkId,
    address: SocketAddr,
    direction: Direction,
}

/// Asks for admission, then runs the link. An error means that it never became one.
async fn establish(env: &Arc<Env>, connected: Connected, origin: Origin) -> Result<(), HandshakeFailure> {
    let Connected { socket, done } = connected;
    let peer = done.authenticated.remote();
    let (verdict, answer) = oneshot::channel();
    env.report(Report::Authenticated {
        link: origin.link,
        peer,
        address: origin.address,
        direction: origin.direction,
        verdict,
    })
    .await;
    let tag = match answer.await {
        Ok(Verdict::Admit { tag }) => tag,
        Ok(Verdict::Refuse(reason)) => return Err(HandshakeFailure::NotAdmitted(reason)),
        Err(_) => return Err(HandshakeFailure::NotAdmitted(CloseReason::Draining)),
    };
    // The handshake's own lease is the one to keep: had its session lapsed since, the link would be of an old epoch (P6).
    let lease = done.lease.filter(|_| tag == Tag::ChannelBearing);
    let birth = Birth {
        id: origin.link,
        peer,
        address: origin.address,
        direction: origin.direction,
        identity: Identity::Node,
        tag,
        lease,
    };
    let session = done.authenticated.into_session();
    let shared = Arc::new(LinkShared::new(birth, socket, session, Arc::clone(env)));
    run(env, shared).await;
    Ok(())
}

/// Runs an admitted link to its end and reports the end.
async fn run(env: &Arc<Env>, shared: Arc<LinkShared>) {
    let mut obituary = Obituary {
        env: Arc::clone(env),
        state: Arc::clone(&shared.state),
        shared: Some(Arc::clone(&shared)),
        reason: CloseReason::Internal,
        was_up: false,
    };
    let is_wanted = env.vault.insert(Arc::clone(&shared));
    // A lapse since the lease was taken, or the supervisor's stop, may have passed the vault before this link was in it.
    if !is_wanted || shared.state.dead_scope().is_some() {
        shared.wipe();
        shared.reset(if is_wanted { CloseReason::Lapse } else { CloseReason::Draining });
    }
    let mut task = LinkTask::new(Arc::clone(&shared));
    drop(shared);
    let reason = task.run().await;
    if let Some(epoch) = obituary.state.dead_scope() {
        // The task may have met the closed fence before the reaper met the link: it is the reaper's to count.
        env.until_lapse(epoch).await;
    }
    obituary.reason = reason;
    obituary.was_up = task.was_up();
    let undelivered = task.finish(reason).await;
    obituary.bury();
    for delivery in undelivered {
        let _ = env.inbox.send(delivery).await;
    }
    obituary.publish().await;
}

/// Ends a connection whose secrets are wiped: with RST at once, or with FIN, so that what was flushed still arrives.
fn end_connection(env: &Arc<Env>, shared: Arc<LinkShared>, reason: CloseReason) {
    if reason.is_abortive() {
        reset_socket(&shared.socket);
        return;
    }
    // It fails only where the connection is gone already.
    let _ = socket2::SockRef::from(&shared.socket).shutdown(std::net::Shutdown::Write);
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let env = Arc::clone(env);
        runtime.spawn(async move { linger(&env, &shared).await });
    }
}

/// Reads and throws away until the peer has closed too, for at most a second: closing with unread bytes would send RST and could
/// take back what the peer has not read yet.
async fn linger(env: &Env, shared: &LinkShared) {
    let deadline = env.clock.sleep_until(env.clock.now().after(Duration::from_secs(1)));
    let drain = async {
        let mut sink = [0; 1024];
        while shared.socket.readable().await.is_ok() {
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
    env: Arc<Env>,
    state: Arc<LinkState>,
    /// `None` once the link is buried.
    shared: Option<Arc<LinkShared>>,
    reason: CloseReason,
    was_up: bool,
}

impl Obituary {
    /// Wipes the secrets before anybody hears of the end (P3), then ends the connection. A node that does not listen keeps neither.
    fn bury(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        shared.wipe();
        self.state.outbox.end(self.reason);
        self.state.request_close(self.reason);
        self.env.vault.remove(self.state.id);
        end_connection(&self.env, shared, self.reason);
    }

    /// Tells the node, then the supervisor: a successor is admitted only when the node has been told.
    async fn publish(self) {
        let (env, state, reason) = (&self.env, &self.state, self.reason);
        if self.was_up {
            env.telemetry.emit(Event::LinkDown {
                peer: state.peer,
                link: state.id,
                tag: state.tag(),
                direction: state.direction,
                identity: state.identity,
                reason,
            });
            let _ = env.inbox.send(Delivery::Down { state: Arc::clone(state), reason }).await;
        }
        env.report(Report::Ended { link: state.id, reason }).await;
    }
}

impl Drop for Obituary {
    /// A task that panicked has not buried its link.
    fn drop(&mut self) {
        if self.shared.is_none() {
            return;
        }
        self.bury();
        let orphan = Self {
            env: Arc::clone(&self.env),
            state: Arc::clone(&self.state),
            shared: None,
            reason: self.reason,
            was_up: self.was_up,
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(orphan.publish());
        }
    }
}
