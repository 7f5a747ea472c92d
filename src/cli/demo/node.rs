//! The node of the demo, as an embedder would write it: a supervisor, a gateway where its signer dials in, and what is done with the
//! inbox.
//!
//! It relays every gossip message that it receives to every other peer that asked for gossip, answers commitments, and records
//! what it was handed and when. It keeps no graph, no channel and no key.

use super::cast::{Cast, Kind};
use super::folder::Folder;
use super::gossip::{self, Stamp};
use super::{DemoError, lock};
use crate::clock::{Clock, SystemClock};
use crate::link::{CloseReason, LinkHandle, LinkId, Message};
use crate::signer::agent::AgentConfig;
use crate::signer::gateway::{
    Gateway, GatewayConfig, Macaroon, Op, RootKey, TlsFiles, TlsIdentity,
};
use crate::signer::{Epoch, SignerContext};
use crate::supervisor::{Inbound, Inbox, Supervisor};
use crate::telemetry::{Event, EventStream, Next};
use crate::wire::queries::GossipTimestampFilter;
use crate::wire::{BITCOIN_MAINNET, MessageType};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Journal entries that a relay takes at a time.
const RELAY_BATCH: usize = 64;

/// How long the signer may show no life. Longer than the default: the story ends a connection and never goes silent, and what it
/// shows must not depend on how busy the machine is.
const LIVENESS_WINDOW: Duration = Duration::from_secs(20);

/// One link, as the node knows it.
pub(super) struct NodeLink {
    /// The peer's place in the cast.
    pub(super) peer: usize,
    pub(super) handle: LinkHandle,
    /// Gossip that this link brought, in order.
    pub(super) delivered: Vec<Stamp>,
    pub(super) channel_messages: u64,
    /// The types that were delivered.
    pub(super) kinds: BTreeSet<u16>,
    /// When the newest delivery of a message began.
    pub(super) last_delivery: Option<Instant>,
    /// Where in the journal the relay to this link began; `None` before the peer asked.
    pub(super) relayed_from: Option<usize>,
    pub(super) down: Option<CloseReason>,
}

/// All gossip that the node has, in the order in which it came.
pub(super) struct Journal {
    entries: Mutex<Vec<(Stamp, Bytes)>>,
    length: watch::Sender<usize>,
}

impl Journal {
    fn len(&self) -> usize {
        *self.length.borrow()
    }

    fn push(&self, stamp: Stamp, message: Bytes) {
        let mut entries = lock(&self.entries);
        entries.push((stamp, message));
        self.length.send_replace(entries.len());
    }

    /// What a peer is to be sent from entry `from` on: everything but its own.
    pub(super) fn for_peer(&self, from: usize, peer: usize) -> Vec<Stamp> {
        let entries = lock(&self.entries);
        entries
            .iter()
            .skip(from)
            .map(|(stamp, _)| *stamp)
            .filter(|stamp| stamp.origin != peer)
            .collect()
    }

    /// How many those are.
    pub(super) fn count_for_peer(&self, from: usize, peer: usize) -> usize {
        let entries = lock(&self.entries);
        entries
            .iter()
            .skip(from)
            .filter(|(stamp, _)| stamp.origin != peer)
            .count()
    }

    fn batch(&self, from: usize) -> Vec<(Stamp, Bytes)> {
        lock(&self.entries)
            .iter()
            .skip(from)
            .take(RELAY_BATCH)
            .cloned()
            .collect()
    }
}

/// The node.
pub(super) struct Node {
    pub(super) supervisor: Supervisor,
    pub(super) gateway: Gateway,
    pub(super) journal: Arc<Journal>,
    cast: Arc<Cast>,
    links: Mutex<Vec<NodeLink>>,
    events: Mutex<Vec<Event>>,
    missed: AtomicU64,
    pulse: watch::Sender<u64>,
}

impl Node {
    /// Starts the node, without a signer: its gateway listens for one. Gives what a signer needs to dial in, with the files for it
    /// in `folder`.
    ///
    /// # Errors
    /// The system refuses what the supervisor, the gateway or their files need.
    pub(super) async fn start(
        cast: &Arc<Cast>,
        folder: &Folder,
        pulse: &watch::Sender<u64>,
    ) -> Result<(Arc<Self>, AgentConfig), DemoError> {
        let context = SignerContext::new(cast.node_id()?);
        let building = Supervisor::builder(context.clone()).seed(cast.seed);
        let (supervisor, inbox) = building.start().await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (config, files) = open(folder, clock.unix())?;
        let gateway = Gateway::start(config, context, supervisor.telemetry(), clock).await?;
        let signer = AgentConfig {
            server: gateway.local_addr().to_string(),
            ..files
        };
        let node = Arc::new(Self {
            gateway,
            journal: Arc::new(Journal {
                entries: Mutex::default(),
                length: watch::Sender::new(0),
            }),
            cast: Arc::clone(cast),
            links: Mutex::default(),
            events: Mutex::default(),
            missed: AtomicU64::new(0),
            pulse: pulse.clone(),
            supervisor,
        });
        tokio::spawn(Arc::clone(&node).listen_to(node.supervisor.events()));
        tokio::spawn(Arc::clone(&node).receive(inbox));
        Ok((node, signer))
    }

    /// The signer session that is live, if it is known to the node.
    pub(super) fn session(&self) -> Option<Epoch> {
        let live = self.supervisor.context().state().live()?;
        self.event(|event| match event {
            Event::SignerAttached { epoch, .. } if *epoch == live => Some(live),
            _ => None,
        })
    }

    /// ECDHs for which its handshakes have asked since the lapse of that session was reported.
    pub(super) fn asked_since(&self, lapsed: Epoch) -> usize {
        self.events(|events| {
            let reported =
                |event: &Event| matches!(event, Event::SignerLapsed(report) if report.epoch == lapsed);
            let since = events.iter().skip_while(|event| !reported(event));
            since
                .filter(|event| matches!(event, Event::Ecdh { .. }))
                .count()
        })
    }

    /// ECDHs for which its handshakes have asked: how long each took that was answered, and how many were not.
    pub(super) fn ecdhs(&self) -> (Vec<Duration>, usize) {
        self.events(|events| {
            let asked = events.iter().filter_map(|event| match event {
                Event::Ecdh { result, took, .. } => Some((*result == "ok").then_some(*took)),
                _ => None,
            });
            let (answered, not): (Vec<_>, Vec<_>) = asked.partition(Option::is_some);
            (answered.into_iter().flatten().collect(), not.len())
        })
    }

    /// Looks at every link so far, ended ones too.
    pub(super) fn look<T>(&self, with: impl FnOnce(&[NodeLink]) -> T) -> T {
        with(&lock(&self.links))
    }

    /// The newest link with a peer.
    pub(super) fn newest<T>(&self, peer: usize, with: impl FnOnce(&NodeLink) -> T) -> Option<T> {
        self.look(|links| links.iter().rev().find(|link| link.peer == peer).map(with))
    }

    /// Whether that peer has a live link.
    pub(super) fn is_up(&self, peer: usize) -> bool {
        self.newest(peer, |link| link.down.is_none())
            .unwrap_or(false)
    }

    /// Looks at the events so far.
    pub(super) fn events<T>(&self, with: impl FnOnce(&[Event]) -> T) -> T {
        with(&lock(&self.events))
    }

    /// The first event so far of which `pick` makes something.
    pub(super) fn event<T>(&self, pick: impl FnMut(&Event) -> Option<T>) -> Option<T> {
        self.events(|events| events.iter().find_map(pick))
    }

    /// Events that were lost because they came too fast to be recorded.
    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    fn beat(&self) {
        self.pulse.send_modify(|beat| *beat = beat.wrapping_add(1));
    }

    async fn listen_to(self: Arc<Self>, mut events: EventStream) {
        while let Some(next) = events.next().await {
            match next {
                // Refusals come by the hundred and are not needed.
                Next::Event(recorded) if matches!(recorded.event, Event::Refused { .. }) => {}
                Next::Event(recorded) => {
                    lock(&self.events).push(recorded.event);
                    self.beat();
                }
                Next::CaughtUp => {}
                Next::Missed(count) => {
                    self.missed.fetch_add(count, Ordering::Relaxed);
                }
            }
        }
    }

    async fn receive(self: Arc<Self>, mut inbox: Inbox) {
        loop {
            // A delivery begins when the inbox is polled, and is over when this code has the message.
            let mut began = Instant::now();
            let next = {
                let mut receiving = pin!(inbox.recv());
                poll_fn(|context| {
                    began = Instant::now();
                    receiving.as_mut().poll(context)
                })
                .await
            };
            match next {
                Some(Inbound::Up { link, .. }) => self.up(link),
                Some(Inbound::Message(message)) => self.take(&message, began),
                Some(Inbound::Down { link, reason, .. }) => {
                    self.with(link, |link| link.down = Some(reason));
                }
                None => return,
            }
            self.beat();
        }
    }

    fn with(&self, link: LinkId, change: impl FnOnce(&mut NodeLink)) {
        if let Some(link) = lock(&self.links)
            .iter_mut()
            .rev()
            .find(|known| known.handle.id() == link)
        {
            change(link);
        }
    }

    fn up(&self, handle: LinkHandle) {
        let Some(member) = self.cast.find(handle.peer()) else {
            return;
        };
        send(
            &handle,
            GossipTimestampFilter::since(BITCOIN_MAINNET, 0).encode(),
        );
        if member.kind == Kind::Channel {
            send(&handle, gossip::channel_reestablish());
        }
        lock(&self.links).push(NodeLink {
            peer: member.index,
            handle,
            delivered: Vec::new(),
            channel_messages: 0,
            kinds: BTreeSet::new(),
            last_delivery: None,
            relayed_from: None,
            down: None,
        });
    }

    fn take(&self, message: &Message, began: Instant) {
        let kind = MessageType(message.kind());
        let stamp = gossip::stamp_of(&self.cast, &message.bytes);
        self.with(message.link, |link| {
            link.last_delivery = Some(began);
            link.kinds.insert(kind.0);
            link.channel_messages = link
                .channel_messages
                .saturating_add(u64::from(gossip::is_channel_message(kind)));
            link.delivered.extend(stamp);
            if gossip::is_commitment_signed(kind) {
                send(&link.handle, gossip::revoke_and_ack());
                send(&link.handle, gossip::commitment_signed());
            }
            if kind == MessageType::GOSSIP_TIMESTAMP_FILTER && link.relayed_from.is_none() {
                let from = self.journal.len();
                link.relayed_from = Some(from);
                tokio::spawn(relay(
                    link.handle.clone(),
                    link.peer,
                    Arc::clone(&self.journal),
                    from,
                ));
            }
        });
        if let Some(stamp) = stamp {
            // Copied: a slice would keep the link's whole read buffer.
            self.journal
                .push(stamp, Bytes::copy_from_slice(&message.bytes));
        }
    }
}

/// Queues what the link takes; what it refuses is counted by the link and shows in the checks.
fn send(link: &LinkHandle, message: Vec<u8>) {
    drop(link.try_send(message));
}

/// Sends a peer all gossip of others, in the order of the journal, until its link ends.
async fn relay(link: LinkHandle, peer: usize, journal: Arc<Journal>, from: usize) {
    let mut length = journal.length.subscribe();
    let mut next = from;
    loop {
        length.mark_unchanged();
        let batch = journal.batch(next);
        if batch.is_empty() {
            if length.changed().await.is_err() {
                return;
            }
            continue;
        }
        next = next.saturating_add(batch.len());
        for (_, message) in batch.into_iter().filter(|(stamp, _)| stamp.origin != peer) {
            match link.send(message).await {
                Ok(queued) => drop(queued),
                Err(_) => return,
            }
        }
    }
}

/// Makes the gateway's secrets, as the first start of a daemon does, and bakes a macaroon for the signer. The address is not known yet.
fn open(folder: &Folder, now: Duration) -> Result<(GatewayConfig, AgentConfig), DemoError> {
    let tls = TlsFiles::in_directory(folder.path());
    let (identity, _) = TlsIdentity::load_or_generate(&tls, &[], now)?;
    let (root_key, _) = RootKey::load_or_generate(folder.path().join("macaroon.root"))?;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|_| DemoError::Entropy)?;
    let macaroon = Macaroon::bake(&root_key, nonce, &[Op::remote_signer()]);
    let agent = AgentConfig {
        server: String::new(),
        certificate: tls.certificate,
        macaroon: folder.put("signer.macaroon", &macaroon.to_bytes())?,
    };
    let gateway = GatewayConfig {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        identity,
        root_key,
        liveness_window: LIVENESS_WINDOW,
    };
    Ok((gateway, agent))
}
