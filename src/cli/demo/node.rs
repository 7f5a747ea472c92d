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
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Gossip links that there shall be without a signer: all but the one that the story closes on purpose.
pub(super) const FLOOR: usize = 7;

/// Journal entries that a relay takes at a time.
const RELAY_BATCH: usize = 64;

/// How long the signer may show no life. Longer than the default: the story ends a connection and never goes silent, and what it
/// shows must not depend on how busy the machine is.
const LIVENESS_WINDOW: Duration = Duration::from_secs(20);

/// The longest that channel peers wait because the signer comes and goes. Shorter than the default: where the story repeats, it goes
/// every minute, which no signer should.
const HOLD_DOWN: Duration = Duration::from_secs(4);

/// One link, as the node knows it.
pub(super) struct NodeLink {
    /// The peer's place in the cast.
    pub(super) peer: usize,
    pub(super) handle: LinkHandle,
    /// Gossip that this link brought, in order; and how much of it is forgotten.
    pub(super) delivered: Vec<Stamp>,
    pub(super) forgotten: usize,
    pub(super) channel_messages: u64,
    /// The types that were delivered.
    pub(super) kinds: BTreeSet<u16>,
    /// When the newest delivery of a message began.
    pub(super) last_delivery: Option<Instant>,
    /// Where in the journal the relay to this link began; `None` before the peer asked.
    pub(super) relayed_from: Option<usize>,
    pub(super) down: Option<CloseReason>,
    /// When the node heard of its beginning, and of its end.
    pub(super) up_at: Instant,
    pub(super) down_at: Option<Instant>,
}

/// Entries of the journal that a demo that goes on keeps: far more than a relay is behind.
const KEPT: usize = 4096;

/// All gossip that the node has, in the order in which it came.
pub(super) struct Journal {
    entries: Mutex<Entries>,
    /// Those that are forgotten count too.
    length: watch::Sender<usize>,
}

#[derive(Default)]
struct Entries {
    kept: VecDeque<(Stamp, Bytes)>,
    /// How many there were before the first of these.
    forgotten: usize,
}

impl Entries {
    /// From entry `from` on, as far as they are kept.
    fn since(&self, from: usize) -> impl Iterator<Item = &(Stamp, Bytes)> {
        self.kept.iter().skip(from.saturating_sub(self.forgotten))
    }
}

impl Journal {
    fn len(&self) -> usize {
        *self.length.borrow()
    }

    fn push(&self, stamp: Stamp, message: Bytes) {
        let mut entries = lock(&self.entries);
        entries.kept.push_back((stamp, message));
        let length = entries.forgotten.saturating_add(entries.kept.len());
        self.length.send_replace(length);
    }

    /// What a peer is to be sent from entry `from` on: everything but its own.
    pub(super) fn for_peer(&self, from: usize, peer: usize) -> Vec<Stamp> {
        let entries = lock(&self.entries);
        entries
            .since(from)
            .map(|(stamp, _)| *stamp)
            .filter(|stamp| stamp.origin != peer)
            .collect()
    }

    /// How many those are.
    pub(super) fn count_for_peer(&self, from: usize, peer: usize) -> usize {
        let entries = lock(&self.entries);
        entries
            .since(from)
            .filter(|(stamp, _)| stamp.origin != peer)
            .count()
    }

    /// Some of the entries from `from` on, and where the next ones begin.
    fn batch(&self, from: usize) -> (Vec<(Stamp, Bytes)>, usize) {
        let entries = lock(&self.entries);
        let batch: Vec<_> = entries.since(from).take(RELAY_BATCH).cloned().collect();
        let next = from.max(entries.forgotten).saturating_add(batch.len());
        (batch, next)
    }

    fn forget(&self) {
        let mut entries = lock(&self.entries);
        let gone = entries.kept.len().saturating_sub(KEPT);
        entries.kept.drain(..gone);
        entries.forgotten = entries.forgotten.saturating_add(gone);
    }
}

/// What is to be known of the gateway's secrets.
pub(super) struct Credentials {
    /// SHA-256 of the certificate, in DER.
    pub(super) certificate: [u8; 32],
    /// Since the Unix epoch.
    pub(super) expires: Duration,
    pub(super) root_key: u64,
}

/// The node.
pub(super) struct Node {
    pub(super) supervisor: Supervisor,
    pub(super) gateway: Gateway,
    pub(super) journal: Arc<Journal>,
    pub(super) credentials: Credentials,
    cast: Arc<Cast>,
    links: Mutex<Vec<NodeLink>>,
    /// The newest gossip of each peer's that it has been handed.
    known: Mutex<BTreeMap<usize, BTreeSet<u32>>>,
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
        let building = Supervisor::builder(context.clone())
            .seed(cast.seed)
            .hold_down(HOLD_DOWN)
            .gossip_floor(FLOOR);
        let (supervisor, inbox) = building.start().await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (config, files) = open(folder, clock.unix())?;
        let credentials = Credentials {
            certificate: config.identity.certificate_digest(),
            expires: config.identity.expires(),
            root_key: config.root_key.id(),
        };
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
            credentials,
            cast: Arc::clone(cast),
            links: Mutex::default(),
            known: Mutex::default(),
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

    /// Forgets what only the checks would need: the gossip that came, links that have ended, and events from before the last attach.
    pub(super) fn forget(&self) {
        self.journal.forget();
        let mut links = lock(&self.links);
        links.retain(|link| link.down.is_none());
        for link in links.iter_mut() {
            link.forgotten = link.forgotten.saturating_add(link.delivered.len());
            link.delivered = Vec::new();
        }
        let mut events = lock(&self.events);
        let attached = |event: &Event| matches!(event, Event::SignerAttached { .. });
        let newest = events.iter().rposition(attached).unwrap_or(0);
        events.drain(..newest);
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
                    self.with(link, |link| {
                        (link.down, link.down_at) = (Some(reason), Some(Instant::now()));
                    });
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
            forgotten: 0,
            channel_messages: 0,
            kinds: BTreeSet::new(),
            last_delivery: None,
            relayed_from: None,
            down: None,
            up_at: Instant::now(),
            down_at: None,
        });
    }

    /// Whether it has not been handed that gossip before, as far back as matters: two links with one peer are seconds apart at most.
    fn is_new(&self, stamp: Stamp) -> bool {
        let mut known = lock(&self.known);
        let of_peer = known.entry(stamp.origin).or_default();
        let is_new = of_peer.insert(stamp.number);
        if of_peer.len() > KEPT {
            of_peer.pop_first();
        }
        is_new
    }

    fn take(&self, message: &Message, began: Instant) {
        let kind = MessageType(message.kind());
        let stamp = gossip::stamp_of(&self.cast, &message.bytes);
        // Of two links with one peer both bring it: it is relayed once. Before it counts as delivered: once all is, all that is to be
        // relayed is in the journal.
        if let Some(stamp) = stamp.filter(|stamp| self.is_new(*stamp)) {
            // Copied: a slice would keep the link's whole read buffer.
            self.journal
                .push(stamp, Bytes::copy_from_slice(&message.bytes));
        }
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
        let (batch, after) = journal.batch(next);
        if batch.is_empty() {
            if length.changed().await.is_err() {
                return;
            }
            continue;
        }
        next = after;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_forgets_goes_on_where_it_was() {
        let journal = Journal {
            entries: Mutex::default(),
            length: watch::Sender::new(0),
        };
        let stamp = |number| Stamp { origin: 1, number };
        let all = 3 * u32::try_from(KEPT).unwrap_or_default();
        for number in 0..all {
            journal.push(stamp(number), Bytes::new());
        }
        journal.forget();
        let length = journal.len();
        assert_eq!(
            (length, lock(&journal.entries).kept.len()),
            (3 * KEPT, KEPT)
        );
        journal.push(stamp(all), Bytes::new());
        assert_eq!(
            journal.for_peer(length, 2),
            [stamp(all)],
            "as if nothing was forgotten"
        );
        assert_eq!(journal.count_for_peer(length - 1, 2), 2);
        let (batch, next) = journal.batch(length);
        assert_eq!((batch.len(), next), (1, length + 1));
        // Who is further behind than what is kept goes on with the oldest of it.
        let (batch, next) = journal.batch(0);
        let first = batch.first().map(|(stamp, _)| stamp.number as usize);
        assert_eq!((first, next), (Some(2 * KEPT), 2 * KEPT + RELAY_BATCH));
    }
}
