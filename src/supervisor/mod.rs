//! All peers of one node: who is dialled, admitted, torn down and brought back. This is what an embedder holds.
//!
//! ```text
//!             attach+proof                 lapse
//!  Waiting ────────────────▶ Live ◀────────────────▶ Safe        any ──▶ Draining ──▶ stopped
//! ```
//!
//! [`machine`] decides (pure); `driver` acts; `reaper` tears down after a lapse, on a thread of its own; `listener` takes inbound
//! connections.

mod admission;
mod bookkeeper;
pub(crate) mod driver;
mod inbox;
mod listener;
pub mod machine;
mod reaper;
mod roster;
mod view;

pub use inbox::{Inbound, Inbox};
pub use roster::{PeerState, Urgency};
pub use view::{LapseView, LinkCounts, LinkView, LinksOfKind, PeerView, Snapshot};

use crate::book::{Book, BookError, MemoryBook};
use crate::clock::{Clock, Moment, SystemClock};
use crate::error::{Culprit, Retry};
use crate::limits;
use crate::link::delivery::Deliveries;
use crate::link::driver::{Env, NodeSettings};
use crate::link::{LinkHandle, Tag};
use crate::node_id::NodeId;
use crate::signer::SignerContext;
use crate::telemetry::{Event, EventStream, Telemetry};
use crate::vault::Vault;
use crate::wire::{BITCOIN_MAINNET, ChainHash, Features};
use bookkeeper::BookKeeper;
use driver::{Channels, Command, Driver};
use listener::Doorway;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use view::Surroundings;

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
    /// Where; tried in this order, at most [`ADDRESSES_MAX`](limits::ADDRESSES_MAX).
    pub addresses: Vec<SocketAddr>,
    /// What the node says of it.
    pub tag: Option<Tag>,
    /// How much it matters among its like; 0 at first.
    pub weight: Option<u32>,
}

impl PeerSpec {
    /// A peer at one address.
    pub fn new(node_id: NodeId, address: SocketAddr) -> Self {
        Self { node_id, addresses: vec![address], tag: None, weight: None }
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

/// Why [`Supervisor::connect`] gave no link. The peer stays wanted all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No signer is there: the dial is held until it returns.
    #[error("no signer is there: the peer is dialled when it returns")]
    SignerAway,
    /// The attempt failed; the next follows with backoff.
    #[error("{detail} (it is tried again)")]
    Failed {
        /// A label.
        failure: &'static str,
        /// In words.
        detail: String,
    },
    /// No address is known.
    #[error("no address is known for this peer: give one")]
    NoAddress,
    /// No further peer is taken in.
    #[error("{} peers are known, and that is the most: remove some", limits::PEERS_MAX)]
    RosterFull,
    /// The peer is the node itself.
    #[error("this key is the node's own: it is no peer of itself")]
    OwnKey,
    /// The peer was removed meanwhile.
    #[error("the peer was removed")]
    Removed,
    /// The supervisor is draining.
    #[error("the supervisor is draining")]
    Draining,
    /// The supervisor has stopped.
    #[error("the supervisor has stopped")]
    Stopped,
}

impl ConnectError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::SignerAway => Culprit::Signer,
            Self::Failed { .. } => Culprit::Peer,
            Self::NoAddress | Self::OwnKey | Self::RosterFull | Self::Removed => Culprit::Operator,
            Self::Draining | Self::Stopped => Culprit::Us,
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::SignerAway => "design.md P5",
            Self::Failed { .. } => "BOLT 8 § Handshake Exchange",
            Self::NoAddress | Self::OwnKey | Self::Removed => "design.md § Architecture",
            Self::RosterFull => "limits::PEERS_MAX",
            Self::Draining | Self::Stopped => "design.md § Modes",
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::SignerAway => Retry::WhenSignerReturns,
            Self::Failed { .. } => Retry::Later,
            Self::NoAddress | Self::OwnKey | Self::RosterFull | Self::Removed => Retry::Never,
            Self::Draining | Self::Stopped => Retry::Never,
        }
    }
}

/// The supervisor has stopped: drained, or its runtime is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor has stopped")]
pub struct Stopped;

/// Why the supervisor did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The peer book could not be read.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The system gave no thread or no randomness.
    #[error("the system refuses what the supervisor needs: {0}")]
    System(#[from] io::Error),
}

/// Why the supervisor does not listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for peers on {address}: {source}")]
pub struct ListenError {
    /// Where it should have.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// How a supervisor is made: see [`Supervisor::builder`].
#[must_use]
pub struct Builder {
    context: SignerContext,
    clock: Arc<dyn Clock>,
    book: Arc<dyn Book>,
    settings: NodeSettings,
    seed: Option<u64>,
}

impl Builder {
    /// Brings another clock than the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Brings another peer book than one in memory.
    pub fn book(mut self, book: Arc<dyn Book>) -> Self {
        self.book = book;
        self
    }

    /// What the node offers in `init` under its own identity, as BOLT 9 numbers it. Default: what gossip needs.
    pub fn features(mut self, bits: impl IntoIterator<Item = u16>) -> Self {
        self.settings.features = Features::from_bits(bits);
        self
    }

    /// The chains that the node follows. Default: bitcoin's main chain. None: any.
    pub fn networks(mut self, networks: impl IntoIterator<Item = ChainHash>) -> Self {
        self.settings.networks = networks.into_iter().collect();
        self
    }

    /// Whether the node answers gossip queries (261, 263) itself also while no signer is there. Default: no.
    pub fn serves_gossip_queries(mut self, serves: bool) -> Self {
        self.settings.queries_served = serves;
        self
    }

    /// Whether the node understands custom messages of even types (32768 and above). Default: no.
    pub fn understands_custom_types(mut self, understands: bool) -> Self {
        self.settings.custom_even_ok = understands;
        self
    }

    /// Fixes what is otherwise drawn at random (jitter), for tests that must replay.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the supervisor on the current tokio runtime. A recorder for the crate's metrics, if there is to be one, must be
    /// installed before. It stops when the last [`Supervisor`] is dropped, or after a drain.
    ///
    /// # Errors
    /// The book cannot be read, or the system refuses a thread or randomness.
    pub async fn start(self) -> Result<(Supervisor, Inbox), StartError> {
        let known = self.book.load().await?;
        let seed = match self.seed {
            Some(seed) => seed,
            None => random_seed()?,
        };
        let telemetry = Telemetry::new(Arc::clone(&self.clock));
        let (inbox, deliveries) = Deliveries::new();
        let (reports, reported) = mpsc::channel(limits::COMMANDS);
        let (commands, commanded) = mpsc::channel(limits::COMMANDS);
        let (lapsing, lapsed) = watch::channel(self.context.last_lapse().map(|lapse| lapse.epoch));
        let (stop, stopped) = watch::channel(false);
        let env = Arc::new(Env {
            clock: Arc::clone(&self.clock),
            telemetry: telemetry.clone(),
            context: self.context,
            vault: Vault::default(),
            inbox,
            reports,
            lapsed,
            settings: self.settings,
            seed,
        });
        let shared = Arc::new(Shared::new(Arc::clone(&env), stop));
        let channels = Channels { commands: commanded, reports: reported, signer: env.context.subscribe() };
        reaper::start(Arc::clone(&env), lapsing, Arc::clone(&shared.last_lapse), stopped)?;
        let keeper = Arc::new(BookKeeper::default());
        let driver = Driver::new(Arc::clone(&env), Arc::clone(&shared), Arc::clone(&keeper), known);
        let clock = self.clock;
        let writing = tokio::spawn(Arc::clone(&keeper).run(self.book, telemetry.clone()));
        let stop = Arc::clone(&shared);
        tokio::spawn(async move {
            driver.run(channels).await;
            stop.stop.send_replace(true);
            tokio::select! {
                () = keeper.settle() => {}
                () = clock.sleep_until(clock.now().after(limits::BOOK_DEADLINE)) => {
                    tracing::error!("the peer book did not write in time what was left");
                }
            }
            writing.abort();
        });
        let inbox = Inbox::new(deliveries, shared.stop.subscribe(), telemetry);
        let doorway = Arc::new(Doorway::new(env));
        Ok((Supervisor { commands, shared, doorway }, inbox))
    }
}

fn random_seed() -> io::Result<u64> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(u64::from_le_bytes(seed))
}

/// What the driver and the handles share.
pub(crate) struct Shared {
    env: Arc<Env>,
    draining: AtomicBool,
    mode: Mutex<Said>,
    last_lapse: reaper::LastLapse,
    stop: watch::Sender<bool>,
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
        let (since, entered) = (env.clock.unix(), env.clock.now());
        let said = Said { mode: Mode::Waiting, since, entered, away: Duration::ZERO };
        Self {
            env,
            draining: AtomicBool::new(false),
            mode: Mutex::new(said),
            last_lapse: reaper::LastLapse::default(),
            stop,
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
            std::mem::replace(&mut *said, Said { mode: to, since, entered, away }).mode
        };
        self.env.telemetry.emit(Event::ModeChanged { from, to });
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
        Builder {
            context,
            clock: Arc::new(SystemClock::new()),
            book: Arc::new(MemoryBook::default()),
            settings: NodeSettings {
                features: Features::gossip(),
                networks: vec![BITCOIN_MAINNET],
                queries_served: false,
                custom_even_ok: false,
            },
            seed: None,
        }
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
        let listener = TcpListener::bind(address).await.map_err(|source| ListenError { address, source })?;
        let bound = listener.local_addr().map_err(|source| ListenError { address, source })?;
        self.shared.env.telemetry.emit(Event::Listening { address: bound });
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
        self.command(Command::Want { spec, done: Some(done) }).await.map_err(|_| ConnectError::Stopped)?;
        outcome.await.unwrap_or(Err(ConnectError::Stopped))
    }

    /// Wants a link with a peer kept up, without waiting.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn add_peer(&self, spec: PeerSpec) -> Result<(), Stopped> {
        self.command(Command::Want { spec, done: None }).await
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
    pub async fn declare_channel_peers(&self, peers: impl IntoIterator<Item = NodeId>) -> Result<(), Stopped> {
        let peers = peers.into_iter().collect();
        self.ask(|done| Command::Declare { peers, done }).await
    }

    /// Says that the node has a channel with a peer: a live link moves into the signer's scope.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn promote(&self, peer: NodeId) -> Result<(), Stopped> {
        self.ask(|done| Command::Tag { peer, tag: Tag::ChannelBearing, done }).await
    }

    /// Says that the node has no channel with a peer: a live link leaves the signer's scope, or is closed if it has carried a
    /// channel message.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn demote(&self, peer: NodeId) -> Result<(), Stopped> {
        self.ask(|done| Command::Tag { peer, tag: Tag::GossipOnly, done }).await
    }

    /// Says how urgently a channel peer is needed back after an absence.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub async fn set_urgency(&self, peer: NodeId, urgency: Urgency) -> Result<(), Stopped> {
        self.ask(|done| Command::Urgency { peer, urgency, done }).await
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
        let said = *self.shared.mode.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.shared.last_lapse.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let around = Surroundings {
            mode: self.mode(),
            since: said.since,
            last,
            parked: self.doorway.parked(),
            signer_away: said.away_until(env.clock.now()),
        };
        Snapshot::new(env, around)
    }

    /// Everything that happens, from now on.
    pub fn events(&self) -> EventStream {
        self.shared.env.telemetry.subscribe()
    }

    /// Dials no more, admits no more, flushes and closes every link, then stops. Links that are not closed within
    /// [`DRAIN_DEADLINE`](limits::DRAIN_DEADLINE) are reset. The signer session is ended last.
    pub async fn drain(&self) {
        let _ = self.ask(|done| Command::Drain { done }).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
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
        f.debug_struct("Supervisor").field("node_id", &self.node_id()).field("mode", &self.mode()).finish_non_exhaustive()
    }
}
