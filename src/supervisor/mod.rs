//! All peers of one node: who is dialled, admitted, torn down and brought back. This is what an embedder holds.
//!
//! ```text
//!             attach+proof                 lapse
//!  Waiting ────────────────▶ Live ◀────────────────▶ Safe        any ──▶ Draining ──▶ stopped
//! ```
//!
//! [`machine`] decides (pure); `driver` acts; `reaper` tears down after a lapse, on a thread of its own; `listener` takes inbound
//! connections.

mod absence;
mod admission;
mod bookkeeper;
mod builder;
mod cause;
mod commands;
mod conduct;
mod deadlines;
mod dialling;
pub(crate) mod driver;
mod error;
mod floor;
mod guests;
mod hold_down;
mod inbox;
mod listener;
pub mod machine;
mod orders;
mod peers;
mod reaper;
mod relight;
mod roster;
mod seek;
mod seen;
mod view;
mod waits;
mod watchman;
mod wishes;

pub use crate::network::{IpNetwork, IpNetworkError};
pub use absence::{
    AbsenceRequest, AbsenceRequests, NoWord, Pending, PendingPeer, PlanError, PlannedAbsence,
};
pub use builder::{Builder, Redial};
pub use conduct::{Banned, Offence};
pub use deadlines::{DeadlinesNear, HtlcDeadline};
pub use error::{ConnectError, ListenError, RosterError, StartError, Stopped};
pub use inbox::{Inbound, Inbox};
pub use roster::{PeerState, Urgency};
pub use view::{LapseView, LinkCounts, LinkView, LinksOfKind, PeerView, Snapshot};

use crate::address::KnownAddress;
use crate::clock::Moment;
use crate::link::driver::Env;
use crate::link::{LinkHandle, Tag};
use crate::node_id::NodeId;
use crate::signer::SignerContext;
use crate::telemetry::{Event, EventStream, Telemetry};
use absence::Absences;
use commands::Command;
use listener::Doorway;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use view::{ChainView, Surroundings};
use watchman::Watchman;

/// What the node can do at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// No signer since the start.
    Waiting,
    /// A signer session is live.
    Live,
    /// The signer has lapsed.
    Safe,
    /// Links are being flushed and closed; nothing new begins.
    Draining,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Live, Self::Safe, Self::Draining];

    /// The label in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::Safe => "safe",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A peer that the node wants a link with. What is `None` or empty stays as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    /// Who.
    pub node_id: NodeId,
    /// Where; tried in this order, at most [`ADDRESSES_MAX`](crate::limits::ADDRESSES_MAX). If one of them is given by hand, they
    /// replace all that was known; if all are learned, they replace what was learned before and come after what was given by hand.
    pub addresses: Vec<KnownAddress>,
    /// What the node says of it.
    pub tag: Option<Tag>,
    /// How much it matters among its like; 0 at first.
    pub weight: Option<u32>,
}

impl PeerSpec {
    /// A peer at one address: a [`SocketAddr`] or a [`PeerAddress`](crate::address::PeerAddress), given by hand; or a
    /// [`KnownAddress`], which says who gave it.
    pub fn new(node_id: NodeId, address: impl Into<KnownAddress>) -> Self {
        Self {
            node_id,
            addresses: vec![address.into()],
            tag: None,
            weight: None,
        }
    }

    /// With a tag.
    #[must_use]
    pub fn tagged(mut self, tag: Tag) -> Self {
        self.tag = Some(tag);
        self
    }

    /// With a weight.
    #[must_use]
    pub fn weighing(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }
}

/// What the driver and the handles share.
pub(crate) struct Shared {
    env: Arc<Env>,
    draining: AtomicBool,
    mode: Mutex<Said>,
    last_lapse: reaper::LastLapse,
    chain: Mutex<ChainView>,
    absences: Absences,
    stop: watch::Sender<bool>,
    watchman: Arc<Watchman>,
}

/// The mode that was said last.
#[derive(Clone, Copy)]
struct Said {
    mode: Mode,
    /// Since when, since the Unix epoch.
    since: Duration,
    /// The same on the monotonic line.
    entered: Moment,
    /// How long no signer had been there before that.
    away: Duration,
}

impl Said {
    /// How long no signer has been there, up to `now`.
    fn away_until(&self, now: Moment) -> Duration {
        match self.mode {
            Mode::Waiting | Mode::Safe => self.away.saturating_add(now.since(self.entered)),
            Mode::Live | Mode::Draining => self.away,
        }
    }
}

impl Shared {
    fn new(env: Arc<Env>, stop: watch::Sender<bool>) -> Self {
        let watchman = Arc::new(Watchman::new(
            Arc::clone(&env.clock),
            env.telemetry.clone(),
            Arc::clone(&env.settings.protected),
        ));
        let bans = Arc::clone(&watchman);
        env.reach
            .personas_avoid(Box::new(move |ip| bans.bars_address(ip)));
        let (since, entered) = (env.clock.unix(), env.clock.now());
        let said = Said {
            mode: Mode::Waiting,
            since,
            entered,
            away: Duration::ZERO,
        };
        Self {
            env,
            draining: AtomicBool::new(false),
            mode: Mutex::new(said),
            last_lapse: reaper::LastLapse::default(),
            chain: Mutex::default(),
            absences: Absences::default(),
            stop,
            watchman,
        }
    }

    fn mode(&self) -> Mode {
        if self.draining.load(Ordering::Acquire) {
            return Mode::Draining;
        }
        let state = self.env.context.state();
        match (state.live(), state.newest()) {
            (Some(_), _) if self.env.context.is_live() => Mode::Live,
            (_, Some(_)) => Mode::Safe,
            (_, None) => Mode::Waiting,
        }
    }

    /// Says so if the mode is not the one that was last said.
    fn note_mode(&self) {
        let to = self.mode();
        let from = {
            let mut said = self.mode.lock().unwrap_or_else(PoisonError::into_inner);
            if said.mode == to {
                return;
            }
            let (since, entered) = (self.env.clock.unix(), self.env.clock.now());
            let away = said.away_until(entered);
            std::mem::replace(
                &mut *said,
                Said {
                    mode: to,
                    since,
                    entered,
                    away,
                },
            )
            .mode
        };
        self.env.telemetry.emit(Event::ModeChanged { from, to });
    }

    /// What the node has said of the chain and of its own updates.
    fn chain(&self) -> MutexGuard<'_, ChainView> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.note_mode();
    }
}

/// A running supervisor. Cheap to clone; the last clone's drop stops it and closes all links.
#[derive(Clone)]
pub struct Supervisor {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    doorway: Arc<Doorway>,
}

impl Supervisor {
    /// Begins to make a supervisor for the node whose signer `context` follows.
    pub fn builder(context: SignerContext) -> Builder {
        Builder::new(context)
    }

    /// The signer's presence: attach to it, lapse it, follow it.
    pub fn context(&self) -> &SignerContext {
        &self.shared.env.context
    }

    /// The node.
    pub fn node_id(&self) -> NodeId {
        self.shared.env.context.node_id()
    }

    /// What the node can do at the moment.
    pub fn mode(&self) -> Mode {
        self.shared.mode()
    }

    /// Listens for peers; several addresses may be listened on. Returns the address, with the port that port 0 stands for.
    ///
    /// # Errors
    /// The address is in use, or not this machine's.
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ListenError { address, source })?;
        let bound = listener
            .local_addr()
            .map_err(|source| ListenError { address, source })?;
        let env = &self.shared.env;
        env.reach.listens(bound);
        env.telemetry.emit(Event::Listening { address: bound });
        tokio::spawn(Arc::clone(&self.doorway).serve(listener, self.shared.stop.subscribe()));
        Ok(bound)
    }

    /// Wants a link with a peer kept up, and waits for the first attempt. An error does not take the wish back: the peer is dialled
    /// again with backoff, or when the signer returns.
    ///
    /// # Errors
    /// [`ConnectError::SignerAway`], at once, when no signer is there; else what went wrong.
    pub async fn connect(&self, spec: PeerSpec) -> Result<LinkHandle, ConnectError> {
        let (done, outcome) = oneshot::channel();
        self.command(Command::Want { spec, done })
            .await
            .map_err(|_| ConnectError::Stopped)?;
        outcome.await.unwrap_or(Err(ConnectError::Stopped))
    }

    /// Wants a link with a peer kept up, without waiting for it.
    ///
    /// # Errors
    /// The peer is not known and as many are as may be ([`PEERS_MAX`](crate::limits::PEERS_MAX)), it is the node itself, or the
    /// supervisor has stopped.
    pub async fn add_peer(&self, spec: PeerSpec) -> Result<(), RosterError> {
        self.ask(|done| Command::Add { spec, done }).await?
    }

    /// Wants nothing of a peer any more, and closes its link. `false`: it was not known.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn remove_peer(&self, peer: NodeId) -> Result<bool, Stopped> {
        self.ask(|done| Command::Unwant { peer, done }).await
    }

    /// Says, once in each process, which peers the node has channels with: exactly these. Until then every peer of which nothing
    /// was said counts as channel-bearing.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn declare_channel_peers(
        &self,
        peers: impl IntoIterator<Item = NodeId>,
    ) -> Result<(), Stopped> {
        let peers = peers.into_iter().collect();
        self.ask(|done| Command::Declare { peers, done }).await
    }

    /// Says that the node has a channel with a peer: a live link moves into the signer's scope.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn promote(&self, peer: NodeId) -> Result<(), Stopped> {
        self.ask(|done| Command::Tag {
            peer,
            tag: Tag::ChannelBearing,
            done,
        })
        .await
    }

    /// Says that the node has no channel with a peer: a live link leaves the signer's scope, or is closed if it has carried a
    /// channel message.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn demote(&self, peer: NodeId) -> Result<(), Stopped> {
        self.ask(|done| Command::Tag {
            peer,
            tag: Tag::GossipOnly,
            done,
        })
        .await
    }

    /// Says how urgently a channel peer is needed back after an absence. It lasts as long as this process.
    ///
    /// # Errors
    /// The peer is not known and as many are as may be ([`PEERS_MAX`](crate::limits::PEERS_MAX)), it is the node itself, or the
    /// supervisor has stopped.
    pub async fn set_urgency(&self, peer: NodeId, urgency: Urgency) -> Result<(), RosterError> {
        self.ask(|done| Command::Urgency {
            peer,
            urgency,
            done,
        })
        .await?
    }

    /// Says at which block the node is: what is left to the first expiry of a pending HTLC ([`set_urgency`](Self::set_urgency)) is shown
    /// and, while no signer is there, told as it comes to 144, 72 and 36 blocks ([`Event::HtlcDeadline`]). May go back.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn set_block_height(&self, height: u32) -> Result<(), Stopped> {
        self.ask(|done| Command::Height { height, done }).await
    }

    /// Says when the node's own newest `channel_update` was signed, as time since the Unix epoch: peers forget a channel of which no
    /// update has come for two weeks (BOLT 7), and without a signer there is none.
    pub fn set_own_update(&self, at: Duration) {
        self.shared.chain().own_update_at = Some(at);
    }

    /// The live link with a peer, if there is one.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn link(&self, peer: NodeId) -> Result<Option<LinkHandle>, Stopped> {
        self.ask(|found| Command::Link { peer, found }).await
    }

    /// Every peer.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn peers(&self) -> Result<Vec<PeerView>, Stopped> {
        self.ask(|found| Command::Peers { found }).await
    }

    /// The whole at a glance. Never waits, and works in every mode.
    pub fn snapshot(&self) -> Snapshot {
        let env = &self.shared.env;
        let said = *self
            .shared
            .mode
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let last = self
            .shared
            .last_lapse
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let around = Surroundings {
            mode: self.mode(),
            since: said.since,
            last,
            parked: self.doorway.parked(),
            bans: self.doorway.bans(),
            signer_away: said.away_until(env.clock.now()),
            chain: *self.shared.chain(),
        };
        Snapshot::new(env, around)
    }

    /// Everything that happens, from now on.
    pub fn events(&self) -> EventStream {
        self.shared.env.telemetry.subscribe()
    }

    /// The events that are still kept, of a number greater than `after`, and everything that happens from then on. Most kinds are kept
    /// for a while, see [`Recorded::number`](crate::telemetry::Recorded::number).
    pub fn events_after(&self, after: u64) -> EventStream {
        self.shared.env.telemetry.subscribe_after(after)
    }

    /// Where its events go in: for a gateway, so that what happens there is seen, counted and logged with the rest.
    pub fn telemetry(&self) -> Telemetry {
        self.shared.env.telemetry.clone()
    }

    /// Dials no more, admits no more, flushes and closes every link, then stops. Links that are not closed within
    /// [`DRAIN_DEADLINE`](crate::limits::DRAIN_DEADLINE) are reset. The signer session is ended last.
    pub async fn drain(&self) {
        let _ = self.ask(|done| Command::Drain { done }).await;
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (done, answer) = oneshot::channel();
        self.command(command(done)).await?;
        answer.await.map_err(|_| Stopped)
    }

    async fn command(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("node_id", &self.node_id())
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}
