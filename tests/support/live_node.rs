//! A node that embeds this crate: its supervisor, its signer, and all that its inbox and its event stream have brought.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use pilotlight::link::{CloseReason, Direction, LinkHandle, LinkId, Message, Tag};
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::{
    EmbeddedSigner, Lapse, LapseReason, Signer, SignerContext, SignerSession,
};
use pilotlight::supervisor::{Builder, Inbound, Inbox, PeerSpec, Supervisor};
use pilotlight::telemetry::{Event, EventStream, Next};

use crate::ldk_handlers::MARKER;
use crate::watched::Watched;

/// Fixes the jitter of every node here.
const SEED: u64 = 7;

/// What the node has received, in order.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) ups: Vec<(LinkHandle, Bytes)>,
    pub(crate) messages: Vec<(NodeId, LinkId, Bytes)>,
    pub(crate) downs: Vec<(NodeId, LinkId, CloseReason)>,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ups {:?}, downs {:?}, messages {}",
            self.ups,
            self.downs,
            self.messages.len()
        )
    }
}

impl Received {
    /// The messages from one peer whose type `wanted` accepts, in order.
    pub(crate) fn from(&self, peer: NodeId, wanted: impl Fn(u16) -> bool) -> Vec<Vec<u8>> {
        self.messages
            .iter()
            .filter(|(from, _, bytes)| *from == peer && wanted(kind(bytes)))
            .map(|(_, _, bytes)| bytes.to_vec())
            .collect()
    }

    /// How many links with `peer` have come up.
    pub(crate) fn ups_of(&self, peer: NodeId) -> usize {
        self.ups
            .iter()
            .filter(|(link, _)| link.peer() == peer)
            .count()
    }
}

/// What the node was told, in order.
#[derive(Default)]
pub(crate) struct Events(pub(crate) Vec<Event>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(Event::name).collect();
        write!(f, "events {names:?}")
    }
}

impl Events {
    /// How often the keys of one direction have been rotated, over all links.
    pub(crate) fn rotations(&self, wanted: Direction) -> u64 {
        let times = |event: &Event| match event {
            Event::KeyRotated { direction, times } if *direction == wanted => *times,
            _ => 0,
        };
        self.0.iter().map(times).sum()
    }

    /// How many messages were refused, by the firewall or the fence.
    pub(crate) fn refused(&self) -> usize {
        self.0
            .iter()
            .filter(|event| matches!(event, Event::Refused { .. }))
            .count()
    }
}

/// The type of a whole message.
pub(crate) fn kind(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// Whether a type is an announcement of BOLT 7.
pub(crate) fn is_gossip(kind: u16) -> bool {
    (256..=258).contains(&kind)
}

/// Whether a type is for custom messages, markers apart.
pub(crate) fn is_custom(kind: u16) -> bool {
    (32768..MARKER).contains(&kind)
}

/// A running node.
pub(crate) struct Node {
    pub(crate) supervisor: Supervisor,
    pub(crate) received: Arc<Watched<Received>>,
    pub(crate) events: Arc<Watched<Events>>,
    signer: Arc<EmbeddedSigner>,
    session: Option<SignerSession>,
    proofs: u8,
}

impl Node {
    /// A node in `Live` without channel peers.
    pub(crate) async fn start(seed: u8) -> Self {
        Self::start_with(seed, |builder| builder).await
    }

    /// As [`start`](Self::start), built differently.
    pub(crate) async fn start_with(seed: u8, adjust: impl FnOnce(Builder) -> Builder) -> Self {
        let key = LocalKey::from_bytes(&mut [seed; 32]).unwrap();
        let signer = Arc::new(EmbeddedSigner::from_key(key));
        let context = SignerContext::new(signer.node_id());
        let builder = adjust(Supervisor::builder(context).seed(SEED));
        let (supervisor, inbox) = builder.start().await.unwrap();
        let events = Arc::new(Watched::default());
        tokio::spawn(record_events(supervisor.events(), Arc::clone(&events)));
        let received = Arc::new(Watched::default());
        tokio::spawn(record_inbox(inbox, Arc::clone(&received)));
        let mut node = Self {
            supervisor,
            received,
            events,
            signer,
            session: None,
            proofs: 0,
        };
        node.attach().await;
        node.supervisor.declare_channel_peers([]).await.unwrap();
        node
    }

    pub(crate) fn id(&self) -> NodeId {
        self.signer.node_id()
    }

    /// The signer comes: with proof, as always.
    pub(crate) async fn attach(&mut self) {
        self.proofs += 1;
        let mut entropy = [self.proofs; 32];
        let context: &SignerContext = self.supervisor.context();
        let proof = context.prove(&*self.signer, &mut entropy).await.unwrap();
        let signer: Arc<dyn Signer> = self.signer.clone();
        self.session = Some(context.attach(proof, signer).unwrap());
    }

    /// The signer goes.
    pub(crate) fn lapse(&mut self) -> Lapse {
        let session = self.session.take().expect("the signer is there");
        session
            .lapse(LapseReason::Requested)
            .expect("it has not lapsed yet")
    }

    pub(crate) async fn connect(&self, peer: NodeId, address: SocketAddr, tag: Tag) -> LinkHandle {
        let spec = PeerSpec::new(peer, address).tagged(tag);
        self.supervisor.connect(spec).await.unwrap()
    }

    pub(crate) async fn listen(&self) -> SocketAddr {
        self.supervisor
            .listen("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap()
    }

    /// Waits for the `nth` link with `peer` (from 1) and gives it with the peer's `init`.
    pub(crate) async fn link_with(&self, peer: NodeId, nth: usize) -> (LinkHandle, Bytes) {
        let find = |received: &Received| {
            received
                .ups
                .iter()
                .filter(|(link, _)| link.peer() == peer)
                .nth(nth - 1)
                .cloned()
        };
        self.received.until("a link comes up", find).await
    }

    /// Waits for the end of a link, and says why it ended.
    pub(crate) async fn end_of(&self, link: &LinkHandle) -> CloseReason {
        let id = link.id();
        let find = |received: &Received| {
            received
                .downs
                .iter()
                .find(|(_, down, _)| *down == id)
                .map(|(_, _, reason)| *reason)
        };
        self.received.until("a link goes down", find).await
    }

    /// Waits until `count` messages of a kind have come from `peer`; gives all there are.
    pub(crate) async fn messages(
        &self,
        peer: NodeId,
        wanted: fn(u16) -> bool,
        count: usize,
    ) -> Vec<Vec<u8>> {
        let what = format!("{count} messages from {peer}");
        let enough = |received: &Received| {
            let found = received
                .messages
                .iter()
                .filter(|(from, _, bytes)| *from == peer && wanted(kind(bytes)));
            found.count() >= count
        };
        self.received.until_true(&what, enough).await;
        self.received.read(|received| received.from(peer, wanted))
    }

    /// Waits for an event.
    pub(crate) async fn event(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let find = |events: &Events| events.0.iter().find(|event| wanted(event)).cloned();
        self.events.until(what, find).await
    }
}

async fn record_inbox(mut inbox: Inbox, received: Arc<Watched<Received>>) {
    while let Some(inbound) = inbox.recv().await {
        received.change(|received| match inbound {
            Inbound::Up { link, init } => received.ups.push((link, init)),
            Inbound::Message(Message { peer, link, bytes }) => {
                received.messages.push((peer, link, bytes));
            }
            Inbound::Down { peer, link, reason } => received.downs.push((peer, link, reason)),
            _ => {}
        });
    }
}

async fn record_events(mut stream: EventStream, events: Arc<Watched<Events>>) {
    while let Some(next) = stream.next().await {
        match next {
            Next::Event(recorded) => events.change(|events| events.0.push(recorded.event)),
            Next::Missed(count) => panic!("{count} events missed: the figures would be wrong"),
            _ => {}
        }
    }
}
