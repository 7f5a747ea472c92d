//! How a supervisor is made: what an embedder may replace, and the start of its tasks.

use super::bookkeeper::BookKeeper;
use super::driver::{Channels, Driver};
use super::error::StartError;
use super::inbox::Inbox;
use super::listener::Doorway;
use super::machine::Policy;
use super::{Shared, Supervisor, reaper};
use crate::address::PeerAddress;
use crate::book::{Book, MemoryBook};
use crate::clock::{Clock, SystemClock};
use crate::limits;
use crate::link::alarms::Alarms;
use crate::link::catch_up::{ChannelGraph, SyncDesk};
use crate::link::delivery::Deliveries;
use crate::link::driver::{Env, NodeSettings};
use crate::link::reach::{Reach, Ways};
use crate::link::socks::Circuit;
use crate::link::{Resolver, SystemResolver};
use crate::network::IpNetwork;
use crate::node_id::LocalKey;
use crate::signer::SignerContext;
use crate::telemetry::Telemetry;
use crate::vault::Vault;
use crate::wire::{BITCOIN_MAINNET, ChainHash, Features};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What becomes of gossip links that are lost or missing while no signer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Redial {
    /// They are dialled under a throwaway key.
    #[default]
    Persona,
    /// They wait for the signer. What is missing of the gossip floor is still told.
    Hold,
}

/// How a supervisor is made: see [`Supervisor::builder`].
#[must_use]
pub struct Builder {
    context: SignerContext,
    clock: Arc<dyn Clock>,
    book: Arc<dyn Book>,
    settings: NodeSettings,
    policy: Policy,
    redial: Redial,
    only_onion: bool,
    ways: Ways,
    cached: Option<LocalKey>,
    graph: Option<Arc<dyn ChannelGraph>>,
    seed: Option<u64>,
}

impl Builder {
    pub(super) fn new(context: SignerContext) -> Self {
        Self {
            context,
            clock: Arc::new(SystemClock::new()),
            book: Arc::new(MemoryBook::default()),
            settings: NodeSettings {
                features: Features::gossip(),
                networks: vec![BITCOIN_MAINNET],
                queries_served: false,
                custom_even_ok: false,
                observe: false,
                max_session_age: None,
                protected: Arc::default(),
                auto_sync: false,
            },
            policy: Policy::default(),
            redial: Redial::Persona,
            only_onion: false,
            ways: Ways {
                resolver: Arc::new(SystemResolver::default()),
                proxy: None,
                everything: false,
                personas: false,
                announced: Vec::new(),
            },
            cached: None,
            graph: None,
            seed: None,
        }
    }

    /// Networks whose strangers are free of the bounds on strangers' links and are never banned, at most
    /// [`PROTECTED_MAX`](limits::PROTECTED_MAX): a monitor's, a friend's. The bounds on handshakes and on the signer's time hold for them
    /// too. Default: none.
    pub fn protected(mut self, networks: impl IntoIterator<Item = IpNetwork>) -> Self {
        let networks = networks.into_iter().take(limits::PROTECTED_MAX);
        self.settings.protected = networks.collect();
        self
    }

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

    /// Whether the firewall only counts what it would do to gossip links while no signer is there, and acts on channel messages alone.
    /// Default: no. For trying it out: the node is then handed, and may send, what it would otherwise be spared.
    pub fn observes_only(mut self, observes: bool) -> Self {
        self.settings.observe = observes;
        self
    }

    /// How old a link's session secrets may become. With a signer the link is closed and made anew between eight and nine tenths of
    /// this age, each link at a moment of its own; without, it is closed at it, its secrets wiped. Default: any age, as in BOLT 8.
    pub fn max_session_age(mut self, age: Option<Duration>) -> Self {
        self.settings.max_session_age = age;
        self
    }

    /// Longest wait of channel peers after the return of a signer that has lapsed again and again of late. It grows with such lapses (0,
    /// 1, 2, 4 … s) and is forgotten after ten minutes without one. Default: [`HOLD_DOWN_MAX`](limits::HOLD_DOWN_MAX); zero: none.
    pub fn hold_down(mut self, longest: Duration) -> Self {
        self.policy.hold_down = longest;
        self
    }

    /// Gossip links that there shall be while no signer is there. What is missing is dialled under a persona: a throwaway key, for
    /// gossip only, never with a channel peer. A persona is not anonymity: it comes from the same address at the same moment.
    /// Default: [`GOSSIP_FLOOR`](limits::GOSSIP_FLOOR).
    pub fn gossip_floor(mut self, links: usize) -> Self {
        self.policy.gossip_floor = links;
        self
    }

    /// What becomes of gossip links that are lost or missing while no signer is there. Default: [`Redial::Persona`].
    pub fn redial(mut self, redial: Redial) -> Self {
        self.redial = redial;
        self
    }

    /// The node announces only onion addresses: then a persona dials only through the [proxy](Self::tor_proxy), in a circuit of its own, and
    /// never without one, for it would show where the node is. Default: no, unless it [announces](Self::announces) only such.
    pub fn only_onion_addresses(mut self, only: bool) -> Self {
        self.only_onion = only;
        self
    }

    /// Where the node says that it is: it never dials itself there. Where it listens need not be repeated. Default: nowhere.
    pub fn announces(mut self, addresses: impl IntoIterator<Item = PeerAddress>) -> Self {
        let addresses = addresses.into_iter();
        self.ways.announced = addresses.take(limits::ADDRESSES_MAX).collect();
        self
    }

    /// A SOCKS5 proxy to Tor. Onion services are dialled through it, the node's key and each persona under a username and password of
    /// their own, which gives them circuits of their own. Default: none, and onion services are not dialled.
    pub fn tor_proxy(mut self, proxy: Option<SocketAddr>) -> Self {
        self.ways.proxy = proxy;
        self
    }

    /// Whether every dial goes through the proxy. Names are then resolved by it, and never by this machine. Default: no.
    pub fn everything_through_tor(mut self, everything: bool) -> Self {
        self.ways.everything = everything;
        self
    }

    /// Brings another resolver of names than the system's.
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.ways.resolver = resolver;
        self
    }

    /// Whether channel peers may be met under a persona too, for gossip. Default: no. A peer that knows this node's address may then guess
    /// who comes.
    pub fn personas_meet_channel_peers(mut self, meet: bool) -> Self {
        self.policy.channel_peers = meet;
        self
    }

    /// Holds the node's own key here too, beside the signer that has it (`identity = "cached"`). While no signer is there, whoever dials us
    /// and gossip peers that we dial then meet the node itself, and no persona is used. It never begins a signer session and no link under it
    /// bears a channel: a channel peer that dials us is turned away before `init`.
    ///
    /// **The price is the whole point of a remote signer**: whoever breaks into this process has the node's identity, and can speak for it
    /// to every peer for ever. It is wiped when the supervisor ends. Default: none.
    pub fn cached_identity(mut self, key: LocalKey) -> Self {
        self.cached = Some(key);
        self
    }

    /// Brings the node's channel graph, so that a catch-up also asks for channels that it lacks: see [`ChannelGraph`]. Without one it asks
    /// only for what is newer than the last gossip. Of use with [`auto_sync`](Self::auto_sync).
    pub fn channel_graph(mut self, graph: Arc<dyn ChannelGraph>) -> Self {
        self.graph = Some(graph);
        self
    }

    /// Whether each gossip link asks its peer, once it is up, for the gossip that the node has missed: a `gossip_timestamp_filter` from the
    /// last gossip seen or six hours ago, whichever is earlier, and an hour before that. Default: no, the node asks itself.
    pub fn auto_sync(mut self, asks: bool) -> Self {
        self.settings.auto_sync = asks;
        self
    }

    /// Fixes what is otherwise drawn at random (jitter), for tests that must replay.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    fn check_identity(&self) -> Result<(), StartError> {
        let expected = self.context.node_id();
        match self.cached.as_ref().map(LocalKey::node_id) {
            Some(found) if found != expected => Err(StartError::OtherIdentity { expected, found }),
            _ => Ok(()),
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            personas: self.redial == Redial::Persona
                && (!self.is_hidden() || self.ways.proxy.is_some()),
            onions: self.ways.proxy.is_some(),
            personas_by_proxy: self.ways.everything || self.is_hidden(),
            cached_identity: self.cached.is_some(),
            ..self.policy
        }
    }

    /// The node shall be found as an onion service only.
    fn is_hidden(&self) -> bool {
        let announced = &self.ways.announced;
        let onions = announced.iter().filter(|address| address.is_onion());
        self.only_onion || (!announced.is_empty() && onions.count() == announced.len())
    }

    fn reach(&self) -> Result<Reach, StartError> {
        if self.ways.everything && self.ways.proxy.is_none() {
            return Err(StartError::NoProxy);
        }
        let circuit = Circuit::new().ok_or_else(|| io::Error::other("no randomness"))?;
        let personas = self.is_hidden();
        let ways = self.ways.clone();
        Ok(Reach::new(Ways { personas, ..ways }, circuit))
    }

    /// Starts the supervisor on the current tokio runtime. A recorder for the crate's metrics, if there is to be one, must be
    /// installed before. It stops when the last [`Supervisor`] is dropped, or after a drain.
    ///
    /// # Errors
    /// The book cannot be read, the cached identity is another node's, or the system refuses a thread or randomness.
    pub async fn start(self) -> Result<(Supervisor, Inbox), StartError> {
        let reach = self.reach()?;
        self.check_identity()?;
        let (known, policy) = (self.book.load().await?, self.policy());
        let sightings = self.book.sightings().await?;
        let seed = self.seed.map_or_else(random_seed, Ok)?;
        let telemetry = Telemetry::new(Arc::clone(&self.clock));
        let (inbox, deliveries) = Deliveries::new(Arc::clone(&self.clock), telemetry.clone());
        let (reports, reported) = mpsc::channel(limits::COMMANDS);
        let (commands, commanded) = mpsc::channel(limits::COMMANDS);
        let (lapsing, lapsed) = watch::channel(self.context.last_lapse().map(|lapse| lapse.epoch));
        let (stop, stopped) = watch::channel(false);
        let env = Arc::new(Env {
            clock: Arc::clone(&self.clock),
            telemetry: telemetry.clone(),
            context: self.context,
            vault: Vault::default(),
            alarms: Alarms::default(),
            inbox,
            reports,
            lapsed,
            settings: self.settings,
            reach,
            cached: self.cached.map(Arc::new),
            sync: Arc::new(SyncDesk::new(self.graph)),
            seed,
        });
        let shared = Arc::new(Shared::new(Arc::clone(&env), stop));
        let channels = Channels {
            commands: commanded,
            reports: reported,
            signer: env.context.subscribe(),
        };
        reaper::start(
            Arc::clone(&env),
            lapsing,
            Arc::clone(&shared.last_lapse),
            stopped,
        )?;
        let keeper = Arc::new(BookKeeper::default());
        let (relighting, relit) = watch::channel(None);
        let mut driver = Driver::new(
            Arc::clone(&env),
            Arc::clone(&shared),
            Arc::clone(&keeper),
            relighting,
            policy,
        );
        driver.recall(known, &sightings);
        let writing = tokio::spawn(Arc::clone(&keeper).run(self.book, telemetry.clone()));
        let (stop, clock) = (Arc::clone(&shared), self.clock);
        tokio::spawn(async move {
            driver.run(channels).await;
            stop.stop.send_replace(true);
            settle(&keeper, &*clock).await;
            writing.abort();
        });
        let inbox = Inbox::new(deliveries, shared.stop.subscribe(), telemetry);
        let doorway = Arc::new(Doorway::new(env, relit, Arc::clone(&shared.watchman)));
        Ok((
            Supervisor {
                commands,
                shared,
                doorway,
            },
            inbox,
        ))
    }
}

/// Waits for the book to have what is left.
async fn settle(keeper: &BookKeeper, clock: &dyn Clock) {
    tokio::select! {
        () = keeper.settle() => {}
        () = clock.sleep_until(clock.now().after(limits::BOOK_DEADLINE)) => {
            tracing::error!("the peer book did not write in time what was left");
        }
    }
}

fn random_seed() -> io::Result<u64> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(u64::from_le_bytes(seed))
}
