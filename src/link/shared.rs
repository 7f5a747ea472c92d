//! What a link's task, its handles, the vault and the reaper hold in common.
//!
//! A stuck task can keep neither a socket open nor a secret alive: the reaper reaches both through `LinkShared`. Two locks,
//! each held for microseconds, never across a wait: the session's (one batch of frames) and the scope's (one gate section).
//!
//! **Why a lease cannot slip past a lapse.** A task stores its lease under the scope's lock and looks at the fence afterwards;
//! the reaper runs after the fence is closed and looks at the lease under the same lock. Whoever comes second sees the other.

use super::delivery;
use super::driver::Env;
use super::firewall::{self, Outbound, Refusal, Situation};
use super::outbox::{Outbox, Ticket};
use super::wake::Wake;
use super::{CloseReason, Direction, Identity, LinkId, SendError, Tag};
use crate::address::PeerAddress;
use crate::brontide::Session;
use crate::clock::Moment;
use crate::limits;
use crate::node_id::NodeId;
use crate::signer::{Epoch, Lease, SignerAway};
use crate::telemetry::{self, Event};
use crate::wire::MessageType;
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

#[cfg(pilotlight_loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(pilotlight_loom))]
use std::sync::{Mutex, MutexGuard};

/// The two things that a lapse must reach: the socket and the secrets. Held by the link's task and by the vault, by nobody
/// else, so that both are gone when the link is.
pub(crate) struct LinkShared {
    pub(crate) state: Arc<LinkState>,
    pub(crate) socket: TcpStream,
    session: Mutex<Session>,
}

/// All the rest that is known of a link. Handles and queued messages hold it, for as long as they like.
pub(crate) struct LinkState {
    pub(crate) id: LinkId,
    pub(crate) peer: NodeId,
    pub(crate) address: PeerAddress,
    pub(crate) direction: Direction,
    pub(crate) identity: Identity,
    pub(crate) since: Moment,
    pub(crate) outbox: Outbox,
    /// What its messages may take of the node's inbox.
    pub(crate) inbox_share: Semaphore,
    pub(crate) counters: Counters,
    /// Wakes the link's task: something is queued, its alarm is due, or it shall close or probe.
    pub(crate) wake: Wake,
    pub(crate) env: Arc<Env>,
    /// What the log says of this link with each of its events; `None` if it says nothing.
    span: Option<Box<tracing::Span>>,
    /// What the link depends on. `None`: the server's scope. `Some`: the signer's.
    scope: Mutex<Option<Lease>>,
    close: Mutex<Option<CloseReason>>,
    tag: AtomicU8,
    stage: AtomicU8,
    flags: Flags,
}

/// What has happened on a link, or shall: a bit each.
#[derive(Default)]
struct Flags(AtomicU8);

impl Flags {
    /// The task shall find out whether the peer is alive.
    const PROBE: u8 = 1;
    /// The peer has said what gossip it wants.
    const FILTER_RECEIVED: u8 = 2;
    /// The node has received the link's beginning, so it shall receive its end.
    const TOLD: u8 = 4;
    /// A channel message has passed, so only the link's end ends the lease. Looked at and set under the scope's lock.
    const CARRIED: u8 = 8;

    fn set(&self, flag: u8) {
        self.0.fetch_or(flag, Ordering::AcqRel);
    }

    fn has(&self, flag: u8) -> bool {
        self.0.load(Ordering::Acquire) & flag != 0
    }

    /// Clears it. Whether it was set.
    fn take(&self, flag: u8) -> bool {
        self.0.fetch_and(!flag, Ordering::AcqRel) & flag != 0
    }
}

/// How far a link has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The handshake is done; the supervisor has not let it in yet.
    Authenticated,
    /// It is let in.
    Admitted,
    /// Both `init`s have passed.
    Up,
}

/// Counted by the link's task, read by snapshots.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) frames_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// When something other than a ping or a pong last came, in nanoseconds from the clock's start; 0 for never.
    pub(crate) active: AtomicU64,
    /// Unix seconds of the last announcement for the node; 0 for none.
    pub(crate) last_gossip: AtomicU64,
}

/// What became of a write.
pub(crate) enum Written {
    /// So many bytes are in the kernel.
    Bytes(usize),
    /// The kernel's buffer is full.
    WouldBlock,
    /// The link's lease is dead: nothing was written and nothing ever will be.
    Fenced,
    /// The connection is broken.
    Broken,
}

/// What a new link starts with.
pub(crate) struct Birth {
    pub(crate) id: LinkId,
    pub(crate) peer: NodeId,
    pub(crate) address: PeerAddress,
    pub(crate) direction: Direction,
    pub(crate) identity: Identity,
    /// The one that the handshake was made under. The supervisor decides whether the link keeps it.
    pub(crate) lease: Option<Lease>,
}

impl LinkShared {
    pub(crate) fn new(birth: Birth, socket: TcpStream, session: Session, env: Arc<Env>) -> Self {
        let state = LinkState {
            id: birth.id,
            peer: birth.peer,
            address: birth.address,
            direction: birth.direction,
            identity: birth.identity,
            since: env.clock.now(),
            outbox: Outbox::new(),
            inbox_share: delivery::share(),
            counters: Counters::default(),
            wake: Wake::default(),
            env,
            span: telemetry::link_span(birth.peer, birth.id, birth.direction, birth.identity),
            scope: Mutex::new(birth.lease),
            close: Mutex::new(None),
            // Until the supervisor has said otherwise: fail safe.
            tag: AtomicU8::new(tag_code(Tag::ChannelBearing)),
            stage: AtomicU8::new(Stage::Authenticated as u8),
            flags: Flags::default(),
        };
        Self {
            state: Arc::new(state),
            socket,
            session: Mutex::new(session),
        }
    }

    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wipes the secrets. Every later use of the session fails.
    pub(crate) fn wipe(&self) {
        self.session().wipe();
    }

    /// Resets the connection at once, whoever else holds the descriptor, and tells the task why.
    pub(crate) fn reset(&self, reason: CloseReason) {
        self.cut(reason);
        self.state.wake.wake();
    }

    /// [`reset`](Self::reset) without waking the task: it finds out by itself if it waits for the socket, and must be woken if it waits
    /// for something else.
    pub(crate) fn cut(&self, reason: CloseReason) {
        // The reason first: whoever sees the reset can also see why.
        self.state.outbox.end(reason);
        self.state.set_close(reason);
        reset_socket(&self.socket);
    }

    /// Puts the link into the scope that its peer's tag asks for. A link that cannot follow ends: reset if its session has lapsed,
    /// closed if it has carried channel messages and its peer bears no channel any more.
    pub(crate) fn follow_tag(&self, tag: Tag) {
        let state = &self.state;
        state.set_tag(tag);
        let follows = match tag {
            Tag::ChannelBearing => state.take_lease(false).is_ok(),
            Tag::GossipOnly => state.release_lease(),
        };
        if follows {
            return;
        }
        if tag == Tag::GossipOnly && state.dead_scope().is_none() {
            state.request_close(CloseReason::Demoted);
        } else {
            // Stored after the reaper had looked, perhaps: nobody else would come for it.
            self.wipe();
            self.reset(CloseReason::Lapse);
        }
    }

    /// Hands bytes to the kernel without waiting; inside the gate, and at most `GATE_WRITE_MAX`, when the link is leased.
    pub(crate) fn write(&self, bytes: &[u8]) -> Written {
        let scope = self.state.scope();
        // Counted inside the gate, so that the figure read after a lapse is final.
        let write = |part: &[u8]| {
            let result = self.socket.try_write(part);
            if let Ok(count) = result {
                self.state
                    .counters
                    .bytes_out
                    .fetch_add(count as u64, Ordering::Relaxed);
            }
            result
        };
        let result = match &*scope {
            Some(lease) => {
                let Some(_gate) = lease.enter() else {
                    return Written::Fenced;
                };
                write(bytes.get(..limits::GATE_WRITE_MAX).unwrap_or(bytes))
            }
            None => write(bytes),
        };
        match result {
            Ok(count) => Written::Bytes(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Written::WouldBlock,
            Err(_) => Written::Broken,
        }
    }
}

impl LinkState {
    /// Where the peer dialled from; `None`: we dialled.
    pub(crate) fn dialled_from(&self) -> Option<SocketAddr> {
        match (self.direction, &self.address) {
            (Direction::Inbound, PeerAddress::Ip(address)) => Some(*address),
            _ => None,
        }
    }

    fn scope(&self) -> MutexGuard<'_, Option<Lease>> {
        self.scope.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the link into the signer's scope, if it is not there yet. `carried`: because a channel message passes.
    ///
    /// # Errors
    /// No signer is there, or its session lapsed at this moment; then nothing may be sent or delivered that needs it.
    pub(crate) fn take_lease(&self, carried: bool) -> Result<Epoch, SignerAway> {
        let held = {
            let scope = self.scope();
            if carried {
                self.flags.set(Flags::CARRIED);
            }
            scope.clone()
        };
        let lease = if let Some(lease) = held {
            lease
        } else {
            let fresh = self.env.context.lease()?;
            self.scope().get_or_insert(fresh).clone()
        };
        // Looked at after it was stored: see the module's doc.
        if lease.is_live() {
            Ok(lease.epoch())
        } else {
            Err(SignerAway)
        }
    }

    /// Moves the link back into the server's scope. `false` when it has carried a channel message, or its session has lapsed
    /// (P6): then it must be closed.
    pub(crate) fn release_lease(&self) -> bool {
        let mut scope = self.scope();
        if self.flags.has(Flags::CARRIED) {
            return false;
        }
        let Some(lease) = scope.take() else {
            return true;
        };
        // A lapse that begins after this look finds the link released; one that began before it finds the lease in its place.
        let is_released = lease.enter().is_some();
        if !is_released {
            *scope = Some(lease);
        }
        is_released
    }

    /// The session that the link depends on; `None` in the server's scope.
    pub(crate) fn leased_under(&self) -> Option<Epoch> {
        self.scope().as_ref().map(Lease::epoch)
    }

    /// The session that the link depended on, if it has lapsed or is lapsing: then the link must end, if nobody has ended it yet.
    pub(crate) fn dead_scope(&self) -> Option<Epoch> {
        let scope = self.scope();
        let lease = scope.as_ref()?;
        // A session that is lapsing is dead too: its fence is on its way up.
        (!self.env.context.is_live() || !lease.is_live()).then(|| lease.epoch())
    }

    /// Makes what the node receives, if it may receive from this link now. For a leased link that happens inside the gate, and it is
    /// the moment of delivery: what is made there was delivered before the lapse, however late its receiver's thread goes on.
    pub(crate) fn deliver<T>(&self, make: impl FnOnce() -> T) -> Option<T> {
        let scope = self.scope();
        match &*scope {
            Some(lease) => lease.enter().map(|_gate| make()),
            None => Some(make()),
        }
    }

    /// Asks the link's task to close. The first reason stays, unless it is the one that hears the peer out: that gives way to any other.
    pub(crate) fn request_close(&self, reason: CloseReason) {
        self.set_close(reason);
        self.wake.wake();
    }

    fn set_close(&self, reason: CloseReason) {
        let mut close = self.close.lock().unwrap_or_else(PoisonError::into_inner);
        if close.is_none_or(|first| first == CloseReason::Persona) {
            *close = Some(reason);
        }
    }

    /// When the link was last of use: something other than a ping or a pong came.
    pub(crate) fn active(&self) -> Moment {
        Moment::from_start(Duration::from_nanos(
            self.counters.active.load(Ordering::Relaxed),
        ))
    }

    /// Why the link shall close, if it shall.
    pub(crate) fn close_requested(&self) -> Option<CloseReason> {
        *self.close.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when the link shall close.
    pub(crate) async fn closed(&self) -> CloseReason {
        loop {
            if let Some(reason) = self.close_requested() {
                return reason;
            }
            self.wake.woken().await;
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Authenticated,
            1 => Stage::Admitted,
            _ => Stage::Up,
        }
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    /// The node receives the link's beginning.
    pub(crate) fn set_told(&self) {
        self.flags.set(Flags::TOLD);
    }

    /// Whether the node has received the link's beginning.
    pub(crate) fn was_told(&self) -> bool {
        self.flags.has(Flags::TOLD)
    }

    /// Asks the task to find out whether the peer is alive.
    pub(crate) fn request_probe(&self) {
        self.flags.set(Flags::PROBE);
        self.wake.wake();
    }

    pub(crate) fn take_probe(&self) -> bool {
        self.flags.take(Flags::PROBE)
    }

    pub(crate) fn tag(&self) -> Tag {
        tag_of(self.tag.load(Ordering::Acquire))
    }

    pub(crate) fn set_tag(&self, tag: Tag) {
        self.tag.store(tag_code(tag), Ordering::Release);
        telemetry::retag(self.span.as_deref(), tag);
    }

    /// Emits an event of this link.
    pub(crate) fn emit(&self, event: Event) {
        self.env.telemetry.emit_in(self.span.as_deref(), event);
    }

    pub(crate) fn set_filter_received(&self) {
        self.flags.set(Flags::FILTER_RECEIVED);
    }

    /// What the firewall must know to judge a message that leaves now.
    pub(crate) fn situation(&self) -> Situation {
        Situation {
            signer_away: !self.env.context.is_live(),
            persona: self.identity == Identity::Persona,
            init_received: true,
            filter_received: self.flags.has(Flags::FILTER_RECEIVED),
            queries_served: self.env.settings.queries_served,
            custom_even_ok: self.env.settings.custom_even_ok,
            observe: self.env.settings.observe,
        }
    }

    /// Refuses at the door what could not leave anyway, so that the sender learns it at once.
    fn check_outbound(&self, message: &[u8]) -> Result<(), SendError> {
        let kind = match message {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => {
                return Err(SendError::Length {
                    length: message.len(),
                });
            }
        };
        if self.dead_scope().is_some() {
            // The reaper may not have come yet, but nothing leaves on this link any more (P1).
            return Err(SendError::Ended {
                reason: CloseReason::Lapse,
            });
        }
        let situation = self.situation();
        if firewall::is_link_owned(MessageType(kind)) {
            return Err(SendError::LinkOwned { kind });
        }
        match firewall::outbound(message, &situation) {
            Outbound::Refuse(Refusal::SignerAway) => Err(SendError::SignerAway { kind }),
            Outbound::Refuse(rule) => Err(SendError::Refused {
                kind,
                rule: rule.as_str(),
            }),
            Outbound::Pass | Outbound::PassWithLease => Ok(()),
        }
    }
}

/// Ends a TCP connection with RST, now, for every holder of its descriptor.
#[cfg(target_os = "linux")]
pub(crate) fn reset_socket(socket: &TcpStream) {
    // Linux sends RST when a connected TCP socket is connected to nowhere. It fails only on a socket that is not connected any
    // more, where nothing is left to do.
    if rustix::net::connect_unspec(socket).is_err() {
        let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Both);
    }
}

/// Ends a TCP connection for every holder of its descriptor: no more bytes either way at once, RST when the last holder closes.
#[cfg(not(target_os = "linux"))]
pub(crate) fn reset_socket(socket: &TcpStream) {
    let socket = socket2::SockRef::from(socket);
    let _ = socket.set_linger(Some(std::time::Duration::ZERO));
    let _ = socket.shutdown(std::net::Shutdown::Both);
}

fn tag_code(tag: Tag) -> u8 {
    match tag {
        Tag::GossipOnly => 0,
        Tag::ChannelBearing => 1,
    }
}

fn tag_of(code: u8) -> Tag {
    if code == 0 {
        Tag::GossipOnly
    } else {
        Tag::ChannelBearing
    }
}

/// A handle on one live link, to send on it. Cheap to clone. It outlives the link: then it says why the link ended.
#[derive(Clone)]
pub struct LinkHandle {
    pub(crate) state: Arc<LinkState>,
}

/// A queued message.
#[must_use = "queued is not sent: await flushed(), or drop it on purpose"]
pub struct Receipt {
    state: Arc<LinkState>,
    ticket: Ticket,
}

impl LinkHandle {
    /// With whom.
    pub fn peer(&self) -> NodeId {
        self.state.peer
    }

    /// The link's number.
    pub fn id(&self) -> LinkId {
        self.state.id
    }

    /// Which of our keys it was made with.
    pub fn identity(&self) -> Identity {
        self.state.identity
    }

    /// Queues a message (its 2-byte type first), waiting for room. `Ok` means queued: not written, not received.
    ///
    /// # Errors
    /// The link has ended, the firewall or the signer's absence forbids this type, or the length is not 2 to 65,535 bytes.
    pub async fn send(&self, message: impl Into<Bytes>) -> Result<Receipt, SendError> {
        let message = message.into();
        self.state.check_outbound(&message)?;
        let ticket = self.state.outbox.put(message).await?;
        Ok(self.receipt(ticket))
    }

    /// Queues a message if there is room now.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`SendError::Full`].
    pub fn try_send(&self, message: impl Into<Bytes>) -> Result<Receipt, SendError> {
        let message = message.into();
        self.state.check_outbound(&message)?;
        let ticket = self.state.outbox.try_put(message)?;
        Ok(self.receipt(ticket))
    }

    /// Why the link ended or is about to; `None` while it lives.
    pub fn closed(&self) -> Option<CloseReason> {
        self.state.close_requested()
    }

    /// Bytes of ciphertext handed to the kernel since `init`. After a lapse has returned, the figure of a leased link is final.
    pub fn bytes_written(&self) -> u64 {
        self.state.counters.bytes_out.load(Ordering::Relaxed)
    }

    /// Flushes what is queued and closes the link.
    pub fn close(&self) {
        self.state.request_close(CloseReason::Requested);
    }

    fn receipt(&self, ticket: Ticket) -> Receipt {
        self.state.wake.wake();
        Receipt {
            state: Arc::clone(&self.state),
            ticket,
        }
    }
}

impl std::fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkHandle")
            .field("peer", &self.state.peer)
            .field("link", &self.state.id)
            .finish()
    }
}

impl Receipt {
    /// Waits until the message has been handed to the kernel, or refused by the firewall because the mode changed while it
    /// waited (which is counted). It does not mean that the peer has it. Cancel safe.
    ///
    /// # Errors
    /// The link ended first.
    pub async fn flushed(self) -> Result<(), SendError> {
        self.state.outbox.flushed(self.ticket).await
    }
}
