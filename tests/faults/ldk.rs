//! The node and an unmodified LDK, a faulty network between them, and a second LDK beside it whose link must feel nothing.

use std::sync::Arc;
use std::time::Duration;

use pilotlight::clock::ManualClock;
use pilotlight::link::{
    CloseReason, Direction, HandshakeFailure, Identity, LinkHandle, SendError, Tag,
};
use pilotlight::node_id::NodeId;
use pilotlight::signer::Epoch;
use pilotlight::supervisor::{Mode, PeerSpec};
use pilotlight::telemetry::Event;
use tokio::task::JoinHandle;

use crate::failures::{self, INSIDE};
use crate::ldk_handlers::Records;
use crate::ldk_peer::{LdkPeer, ldk_key};
use crate::ldk_round_trips::round_trips;
use crate::live_node::{Events, Node, is_custom};
use crate::numbered::{assert_same, numbered, stream};
use crate::proxy::{Fault, Place, Proxy, Way};
use crate::table::fill;
use crate::watched::HANG_GUARD;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The node dials LDK.
    WeDial,
    /// LDK dials the node.
    TheyDial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    ActOne,
    ActTwo,
    ActThree,
    Init,
    /// Nothing is said but a ping.
    Idle,
    TransferIn,
    TransferOut,
    /// Around the last message under a key: message 500.
    RotationIn,
    RotationOut,
    /// Gossip goes on, and no signer is there.
    Lapse,
    /// The channel link's handshake as the signer has come back.
    Return,
}

const PHASES: [(Phase, &str); 11] = [
    (Phase::ActOne, "act 1"),
    (Phase::ActTwo, "act 2"),
    (Phase::ActThree, "act 3"),
    (Phase::Init, "init"),
    (Phase::Idle, "idle"),
    (Phase::TransferIn, "transfer in"),
    (Phase::TransferOut, "transfer out"),
    (Phase::RotationIn, "rotation in"),
    (Phase::RotationOut, "rotation out"),
    (Phase::Lapse, "lapse"),
    (Phase::Return, "return"),
];

/// A second of the node's clock.
const STEP: Duration = Duration::from_secs(1);
/// Where an hour may have to pass, as before a peer is dialled again in whose place somebody else has answered. Shorter than any pong may take.
const LONG_STEP: Duration = Duration::from_secs(10);
/// A faulty network is not slower than this for longer than a few steps: below every deadline.
const LATE: u32 = 3;
/// What a narrow way passes in a tenth of a second.
const SHARE: usize = 64;
const WIDER_SHARE: usize = 4096;
/// Of a transfer that the kernel does not take at once.
const WIDEST_SHARE: usize = 128 * 1024;
/// The receive buffers of a narrow network: less than one large message.
const NARROW_BUFFER: u32 = 8192;
/// Messages of 60,000 bytes: more than any kernel takes of them.
const FLOOD: u32 = 500;
const LARGE: usize = 60_000;
/// Messages of a transfer, and how far into them the fault strikes.
const MESSAGES: u32 = 300;
const INTO: usize = 20_000;
/// BOLT 8: a message uses two nonces of a thousand.
const MESSAGES_PER_KEY: u64 = 500;

struct Cell {
    role: Role,
    phase: Phase,
    fault: Fault,
    node: Node,
    clock: ManualClock,
    ldk: LdkPeer,
    proxy: Proxy,
    beside: LdkPeer,
    beside_link: LinkHandle,
    /// Events before this one are of no interest to who waits.
    mark: usize,
}

impl Cell {
    async fn open(role: Role, phase: Phase, fault: Fault) -> Self {
        let clock = ManualClock::new();
        let time = Arc::new(clock.clone());
        let node = Node::start_with(50, |builder| builder.clock(time).gossip_floor(2)).await;
        let (ldk, beside) = (LdkPeer::new(150), LdkPeer::new(151));
        let address = beside.listen().await;
        let beside_link = node.connect(beside.id(), address, Tag::GossipOnly).await;
        beside.introduced(1).await;
        let target = match role {
            Role::WeDial => ldk.listen().await,
            Role::TheyDial => node.listen().await,
        };
        let held_by_kernel = (fault == Fault::Narrow).then_some(NARROW_BUFFER);
        let proxy = Proxy::start_with(target, held_by_kernel);
        let mut cell = Self {
            role,
            phase,
            fault,
            node,
            clock,
            ldk,
            proxy,
            beside,
            beside_link,
            mark: 0,
        };
        cell.mark();
        cell
    }

    /// The proxy's name for a direction of the node's.
    fn way(&self, direction: Direction) -> Way {
        match (self.role, direction) {
            (Role::WeDial, Direction::Outbound) | (Role::TheyDial, Direction::Inbound) => Way::Up,
            _ => Way::Down,
        }
    }

    fn arm(&self, direction: Direction, at: usize) {
        let way = self.way(direction);
        self.proxy.arm(way, Place::At(at), self.fault);
    }

    fn arm_ahead(&self, direction: Direction, ahead: usize) {
        let way = self.way(direction);
        self.proxy.arm_ahead(way, ahead, self.fault);
    }

    fn mark(&mut self) {
        self.mark = self.node.events.read(|events| events.0.len());
    }

    /// Events are of interest again from the first loss on: whoever dials next may have done so while the test still saw to the loss.
    fn mark_loss(&mut self) {
        let (peer, from) = (self.ldk.id(), self.mark);
        let is_loss = |event: &Event| match event {
            Event::LinkDown { peer: of, .. } => *of == peer,
            event => failed(event).is_some(),
        };
        let loss = self
            .node
            .events
            .read(|events| events.0[from..].iter().position(is_loss));
        self.mark += loss.expect("there has been a loss") + 1;
    }

    /// Who begins: the node is told of the peer, or LDK dials.
    async fn begin(&self, tag: Tag) {
        match self.role {
            Role::WeDial => {
                let spec = PeerSpec::new(self.ldk.id(), self.proxy.address).tagged(tag);
                self.node.supervisor.add_peer(spec).await.unwrap();
            }
            Role::TheyDial => self.ldk.dial(self.node.id(), self.proxy.address).await,
        }
    }

    /// The first event since the mark of which `pick` makes something.
    fn seen<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> Option<T> {
        let from = self.mark;
        self.node
            .events
            .read(|events| events.0[from..].iter().find_map(&pick))
    }

    /// How the handshake before the first failure since the mark has ended, as it is counted.
    fn counted(&self) -> &'static str {
        let result = |event: &Event| match event {
            Event::Handshake { result, .. } => Some(*result),
            _ => None,
        };
        self.node.events.read(|events| {
            let since = events.0[self.mark..].iter();
            let until = since.take_while(|event| failed(event).is_none()).count();
            let all = events.0[..self.mark + until].iter().rev();
            all.filter_map(result).next().expect("there has been one")
        })
    }

    async fn until<T>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let from = self.mark;
        let what = format!("{:?} {:?}: {what}", self.role, self.fault);
        self.node
            .events
            .until(&what, |events| events.0[from..].iter().find_map(&pick))
            .await
    }

    /// Lets that time pass at the node, and the link beside go on: it is given the time to, so that nothing there is late.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        round_trips(&self.node, &self.beside, &self.beside_link, 1).await;
    }

    /// Lets time pass, so much at a time, until such an event: for what only a deadline brings about.
    async fn pass_until<T>(
        &self,
        what: &str,
        step: Duration,
        pick: impl Fn(&Event) -> Option<T>,
    ) -> T {
        let wait = async {
            loop {
                if let Some(found) = self.seen(&pick) {
                    return found;
                }
                self.pass(step).await;
            }
        };
        let guarded = tokio::time::timeout(HANG_GUARD, wait).await;
        guarded.unwrap_or_else(|_| panic!("{:?} {:?}: {what}", self.role, self.fault))
    }

    /// What a fault brings about: at once, or, of a half-open connection, when a deadline has passed.
    async fn consequence<T>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        match self.fault {
            Fault::HalfOpen => self.pass_until(what, STEP, pick).await,
            _ => self.until(what, pick).await,
        }
    }

    /// Sees a mild fault through: what is late comes, what is narrow gets its share, until `done`.
    async fn see_through<T>(&self, share: usize, mut done: JoinHandle<T>) -> T {
        self.struck().await;
        match self.fault {
            Fault::Delay => {
                for _ in 0..LATE {
                    self.pass(STEP).await;
                }
                assert!(!done.is_finished(), "it was not late");
                self.proxy.release();
            }
            Fault::Narrow => {
                // Time passes with the bytes, not with the turns of this loop: while the kernel or a task takes its time over them,
                // the node's clock must not run on to a deadline.
                for shares in 1.. {
                    self.proxy.grant(share);
                    tokio::select! {
                        done = &mut done => return done.unwrap(),
                        () = self.proxy.until_squeezed(shares * share) => {}
                    }
                    self.pass(STEP / 10).await;
                }
            }
            _ => {}
        }
        let done = tokio::time::timeout(HANG_GUARD, done).await;
        done.expect("it is seen through").unwrap()
    }

    async fn struck(&self) {
        let struck = tokio::time::timeout(HANG_GUARD, self.proxy.until_struck(1)).await;
        struck.unwrap_or_else(|_| panic!("{:?} {:?}: never struck", self.role, self.fault));
    }

    /// As [`see_through`](Self::see_through), until such an event.
    async fn see_through_to<T: Send + 'static>(
        &self,
        what: &'static str,
        pick: impl Fn(&Event) -> Option<T> + Send + Sync + 'static,
    ) -> T {
        let (events, from) = (Arc::clone(&self.node.events), self.mark);
        let done = tokio::spawn(async move {
            events
                .until(what, |events| events.0[from..].iter().find_map(&pick))
                .await
        });
        self.see_through(SHARE, done).await
    }

    /// Waits for the link that is up under that key, and gives it.
    async fn up(&self, identity: Identity) -> LinkHandle {
        let peer = self.ldk.id();
        let link = self.until("a link", up_of(peer, identity)).await;
        let find = |received: &crate::live_node::Received| {
            let mut ups = received.ups.iter().map(|(link, _)| link);
            ups.find(|handle| handle.id() == link).cloned()
        };
        self.node.received.until("the link's handle", find).await
    }

    /// LDK gives up what it takes for a living connection: its timer would do so in time. Nobody hears of it while the connection is
    /// half-open; and there must be no other yet, which it would give up as well.
    fn ldk_gives_up(&self) {
        if self.fault == Fault::HalfOpen {
            for _ in 0..8 {
                self.ldk.tick();
            }
        }
    }

    /// The same of a link, once LDK has seen its end. It may not see one while it does not read: its timer finds out, here at once.
    async fn ldk_sees_the_end(&self) {
        let gave_up = async {
            while self.ldk.records.read(|all| all.disconnected.is_empty()) {
                self.ldk.tick();
                tokio::task::yield_now().await;
            }
        };
        let gave_up = tokio::time::timeout(HANG_GUARD, gave_up).await;
        gave_up.expect("LDK sees the end");
    }

    /// After a loss: the connection is made anew, by whoever dials.
    async fn again(&mut self, identity: Identity) -> LinkHandle {
        self.mark_loss();
        self.redialled(identity).await
    }

    /// Whoever dials does so until there is a link.
    async fn redialled(&mut self, identity: Identity) -> LinkHandle {
        let peer = self.ldk.id();
        loop {
            match self.role {
                Role::TheyDial => self.ldk.dial(self.node.id(), self.proxy.address).await,
                Role::WeDial => {
                    let dialing = move |event: &Event| match event {
                        Event::Dialing {
                            peer: of,
                            identity: by,
                            ..
                        } if *of == peer && *by == identity => Some(()),
                        _ => None,
                    };
                    self.pass_until("another dial", LONG_STEP, dialing).await;
                }
            }
            let up = up_of(peer, identity);
            let ended = self.until("its end", |event| {
                failed(event).map(|_| false).or(up(event).map(|_| true))
            });
            if ended.await {
                return self.up(identity).await;
            }
            // LDK has not yet seen the end of the one before, and takes no second connection.
            self.mark_loss();
        }
    }

    /// LDK sends to whoever the node is to it now, and all of it arrives.
    async fn hears(&self) {
        // The node knows of the link before LDK does.
        let own = ldk_key(self.node.id());
        let stranger = |all: &Records| {
            let newest = all.connected.last().map(|introduced| introduced.peer);
            newest.filter(|peer| *peer != own)
        };
        let key = self
            .ldk
            .records
            .until("LDK knows the persona", stranger)
            .await;
        let persona = NodeId::parse(&key.serialize()).unwrap();
        let (come, _) = self.counts();
        let theirs = stream(5, 20);
        self.ldk.send(persona, theirs.clone());
        let come_now = come + theirs.len();
        self.node.messages(self.ldk.id(), is_custom, come_now).await;
        assert_same("to the persona", &self.come()[come..], &theirs);
    }

    /// Numbered messages each way arrive, all of them and in order.
    async fn talk(&self, link: &LinkHandle) {
        round_trips(&self.node, &self.ldk, link, 2).await;
        let (come, gone) = self.counts();
        let (theirs, ours) = (stream(1, 20), stream(2, 20));
        self.ldk.send(self.node.id(), theirs.clone());
        for message in &ours {
            drop(link.send(message.clone()).await.unwrap());
        }
        self.arrive(come + theirs.len(), gone + ours.len()).await;
        assert_same("to the node", &self.come()[come..], &theirs);
        assert_same("to LDK", &self.gone()[gone..], &ours);
    }

    async fn arrive(&self, come: usize, gone: usize) {
        self.node.messages(self.ldk.id(), is_custom, come).await;
        let enough = |records: &Records| records.custom.len() >= gone;
        self.ldk.records.until_true("messages", enough).await;
    }

    /// What has come to the node, and to LDK.
    fn come(&self) -> Vec<Vec<u8>> {
        let peer = self.ldk.id();
        self.node.received.read(|all| all.from(peer, is_custom))
    }

    fn gone(&self) -> Vec<Vec<u8>> {
        self.ldk.records.read(|records| records.custom.clone())
    }

    fn counts(&self) -> (usize, usize) {
        (self.come().len(), self.gone().len())
    }

    /// The link is up, and nothing is on its way: LDK has done all that it does at the beginning.
    async fn settled(&self, tag: Tag) -> LinkHandle {
        self.begin(tag).await;
        let link = self.up(Identity::Node).await;
        self.ldk.introduced(1).await;
        round_trips(&self.node, &self.ldk, &link, 3).await;
        link
    }

    /// The link's end as the node tells of it, and that the reason is one that a fault in that direction can have.
    async fn loss(&self, link: &LinkHandle, direction: Direction) -> &'static str {
        if self.fault == Fault::HalfOpen {
            self.ldk_sees_the_end().await;
        }
        let id = link.id();
        let reason = self
            .consequence("the link's end", move |event| match event {
                Event::LinkDown {
                    link: of, reason, ..
                } if *of == id => Some(*reason),
                _ => None,
            })
            .await;
        let can_be = failures::of_link(self.phase, direction, self.fault);
        assert!(
            can_be.contains(&reason),
            "{reason}: it can only be one of {can_be:?}"
        );
        assert_eq!(
            self.node.end_of(link).await,
            reason,
            "what the node is told"
        );
        if self.fault != Fault::HalfOpen {
            self.ldk_sees_the_end().await;
        }
        reason.as_str()
    }

    /// The signer comes back. Until then nobody has asked for it, with success or without.
    async fn signer_returns(&mut self) {
        let asked = self.node.events.read(|events| {
            let lapsed = |event: &&Event| matches!(event, Event::SignerLapsed(_));
            let since = events.0.iter().rev().take_while(|event| !lapsed(event));
            since
                .filter(|event| matches!(event, Event::Ecdh { .. }))
                .count()
        });
        assert_eq!(asked, 0, "the signer was asked while it was away");
        self.node.attach().await;
    }

    /// All that must hold of every cell.
    async fn check(&self, struck: usize) {
        assert_eq!(self.proxy.struck(), struck);
        round_trips(&self.node, &self.beside, &self.beside_link, 1).await;
        assert!(self.beside_link.closed().is_none(), "the link beside");
        self.beside.records.read(|records| {
            let ends = (records.connected.len(), records.disconnected.len());
            assert_eq!(ends, (1, 0), "the link beside");
            assert!(records.heard_no_complaint());
        });
        // P4, and no warning either: a fault of the network is nobody's fault.
        assert!(self.ldk.records.read(Records::heard_no_complaint));
        self.nothing_is_left().await;
    }

    /// Of what the fault has ended nothing is left: no link, no question to the signer, no socket that waits for one.
    async fn nothing_is_left(&self) {
        let held = || {
            let now = self.node.supervisor.snapshot();
            let links = now.links.gossip_only + now.links.channel_bearing;
            (links, now.ecdh_in_flight, now.parked)
        };
        let wait = async {
            while held() != (2, 0, 0) {
                round_trips(&self.node, &self.beside, &self.beside_link, 1).await;
            }
        };
        let guarded = tokio::time::timeout(HANG_GUARD, wait).await;
        guarded.unwrap_or_else(|_| {
            panic!(
                "{:?} {:?}: links, questions and parked: {:?}",
                self.role,
                self.fault,
                held()
            )
        });
    }
}

fn up_of(peer: NodeId, identity: Identity) -> impl Fn(&Event) -> Option<pilotlight::link::LinkId> {
    move |event| match event {
        Event::LinkUp {
            peer: of,
            link,
            identity: by,
            ..
        } if *of == peer && *by == identity => Some(*link),
        _ => None,
    }
}

/// What is told of a handshake that failed, whoever dialled: a label, and words.
fn failed(event: &Event) -> Option<(&'static str, String)> {
    match event {
        Event::DialFailed {
            failure, detail, ..
        }
        | Event::InboundFailed {
            failure, detail, ..
        } => Some((failure, detail.clone())),
        _ => None,
    }
}

/// Strikes while hands are shaken.
async fn shaking(cell: &mut Cell, direction: Direction, at: usize) -> String {
    cell.arm(direction, at);
    cell.begin(Tag::GossipOnly).await;
    shaken(cell).await
}

/// A handshake that has begun and is struck: how it ends.
async fn shaken(cell: &mut Cell) -> String {
    cell.struck().await;
    if cell.fault.is_mild() {
        let peer = cell.ldk.id();
        cell.see_through_to("the link is up", up_of(peer, Identity::Node))
            .await;
        assert_eq!(cell.seen(failed), None);
        let link = cell.up(Identity::Node).await;
        // What was narrow is wide enough for a talk.
        cell.proxy.grant(1 << 20);
        cell.talk(&link).await;
        return "up".to_owned();
    }
    cell.ldk_gives_up();
    let (label, detail) = cell.consequence("a handshake fails", failed).await;
    let can_be = failures::of_handshake(cell.role, cell.phase, cell.fault);
    let failure = failures::one_of(can_be, HandshakeFailure::label, (label, &detail));
    let (result, shown) = match failure {
        HandshakeFailure::BeforeInit(_) => ("ok", label.to_owned()),
        HandshakeFailure::Closed { act, received } => {
            let shown = format!("{label}, {received} of act {act}");
            (label, shown)
        }
        HandshakeFailure::Io { act, .. } | HandshakeFailure::Timeout { act } => {
            (label, format!("{label}, act {act}"))
        }
        HandshakeFailure::Protocol(error) => (label, format!("{label}, {}", error.act())),
        other => panic!("{other}"),
    };
    assert_eq!(cell.counted(), result, "what is counted");
    // Who dials again may have got through by now.
    let up = up_of(cell.ldk.id(), Identity::Node);
    let has_failed = |event: &Event| failed(event).map(|_| true).or(up(event).map(|_| false));
    assert_eq!(cell.seen(has_failed), Some(true), "it was never up");
    let link = cell.again(Identity::Node).await;
    cell.talk(&link).await;
    format!("refused ({shown}), up again")
}

/// A link that only keeps itself alive: the fault strikes its ping.
async fn idle(cell: &mut Cell) -> String {
    let link = cell.settled(Tag::GossipOnly).await;
    cell.mark();
    cell.arm_ahead(Direction::Outbound, 0);
    while cell.proxy.struck() == 0 {
        cell.pass(STEP).await;
    }
    if cell.fault.is_mild() {
        let peer = cell.ldk.id();
        let pong = move |event: &Event| match event {
            Event::Pong { peer: of, .. } if *of == peer => Some(()),
            _ => None,
        };
        cell.see_through_to("the pong", pong).await;
        cell.proxy.grant(1 << 20);
        cell.talk(&link).await;
        assert!(link.closed().is_none());
        return "retained".to_owned();
    }
    let reason = cell.loss(&link, Direction::Outbound).await;
    let link = cell.again(Identity::Node).await;
    cell.talk(&link).await;
    format!("lost ({reason}), up again")
}

/// Strikes a transfer of these messages in one direction, so many bytes into it. `identity`: whose link takes the place of one that is
/// lost; `None`: nobody's, for now.
async fn transfer(
    cell: &mut Cell,
    link: &LinkHandle,
    direction: Direction,
    ahead: usize,
    messages: Vec<Vec<u8>>,
) -> Option<&'static str> {
    cell.mark();
    let (come, gone) = cell.counts();
    cell.arm_ahead(direction, ahead);
    let inbound = direction == Direction::Inbound;
    if inbound {
        cell.ldk.send(cell.node.id(), messages.clone());
    } else {
        let (link, messages) = (link.clone(), messages.clone());
        // Whoever sends on a link that ends is told so.
        tokio::spawn(async move {
            for message in messages {
                if link.send(message).await.is_err() {
                    return;
                }
            }
        });
    }
    cell.struck().await;
    let all = messages.len();
    if cell.fault.is_mild() {
        let (received, records) = (
            Arc::clone(&cell.node.received),
            Arc::clone(&cell.ldk.records),
        );
        let peer = cell.ldk.id();
        let done = tokio::spawn(async move {
            if inbound {
                let whole =
                    |r: &crate::live_node::Received| r.from(peer, is_custom).len() >= come + all;
                received.until_true("the transfer", whole).await;
            } else {
                let whole = |r: &Records| r.custom.len() >= gone + all;
                records.until_true("the transfer", whole).await;
            }
        });
        cell.see_through(WIDER_SHARE, done).await;
        let (theirs, ours) = (cell.come()[come..].to_vec(), cell.gone()[gone..].to_vec());
        assert_same(
            "the transfer",
            if inbound { &theirs } else { &ours },
            &messages,
        );
        cell.proxy.grant(1 << 20);
        cell.talk(link).await;
        assert!(link.closed().is_none());
        return None;
    }
    let reason = cell.loss(link, direction).await;
    let (theirs, ours) = (cell.come()[come..].to_vec(), cell.gone()[gone..].to_vec());
    let arrived = if inbound { theirs } else { ours };
    assert!(arrived.len() < all, "the fault has struck nothing");
    assert_same("what came before", &arrived, &messages[..arrived.len()]);
    Some(reason)
}

async fn plain_transfer(cell: &mut Cell, direction: Direction) -> String {
    let link = cell.settled(Tag::GossipOnly).await;
    let messages = stream(3, MESSAGES);
    match transfer(cell, &link, direction, INTO, messages).await {
        None => "retained".to_owned(),
        Some(reason) => {
            let link = cell.again(Identity::Node).await;
            cell.talk(&link).await;
            format!("lost ({reason}), up again")
        }
    }
}

/// A flood on a narrow way: the kernel takes no more, the outbox is full, whoever sends waits, and all else goes on. Then it gets
/// through, all of it and in order.
async fn flood(cell: &mut Cell) -> String {
    let link = cell.settled(Tag::GossipOnly).await;
    let large = |number| {
        let mut message = numbered(6, number);
        message.resize(LARGE, 0);
        message
    };
    let (come, gone) = cell.counts();
    cell.arm_ahead(Direction::Outbound, INTO);
    let (mut queued, mut heard, mut theirs) = (0, 0, stream(3, FLOOD).into_iter());
    loop {
        match link.try_send(large(queued)).map(drop) {
            Ok(()) => queued += 1,
            Err(SendError::Full) => {
                let before = link.bytes_written();
                cell.ldk.send(cell.node.id(), theirs.next());
                heard += 1;
                cell.node
                    .messages(cell.ldk.id(), is_custom, come + heard)
                    .await;
                // What came has been read, and before it was handed on the kernel was asked to take more: it has refused.
                if link.bytes_written() == before {
                    break;
                }
            }
            Err(other) => panic!("{other}"),
        }
        assert!(queued < FLOOD, "the kernel takes it all");
    }
    cell.struck().await;
    let sent = stream(3, FLOOD);
    assert_same("while it waited", &cell.come()[come..], &sent[..heard]);
    // Whoever sends waits, while all else goes on.
    let waits = link.clone();
    let mut last = Box::pin(async move { waits.send(large(queued)).await.map(drop) });
    tokio::select! {
        biased;
        sent = &mut last => panic!("it has not waited for room: {sent:?}"),
        () = round_trips(&cell.node, &cell.beside, &cell.beside_link, 1) => {}
    }
    let last = tokio::spawn(last);
    let ours: Vec<_> = (0..=queued).map(large).collect();
    let records = Arc::clone(&cell.ldk.records);
    let all = gone + ours.len();
    let done = tokio::spawn(async move {
        let whole = |records: &Records| records.custom.len() >= all;
        records.until_true("the flood", whole).await;
    });
    cell.see_through(WIDEST_SHARE, done).await;
    last.await.unwrap().unwrap();
    assert_same("the flood", &cell.gone()[gone..], &ours);
    cell.proxy.grant(1 << 20);
    cell.talk(&link).await;
    assert!(link.closed().is_none());
    "waited, retained".to_owned()
}

/// How often a key of that direction has been replaced, on any link.
fn rotations(cell: &Cell, direction: Direction) -> u64 {
    cell.node.events.read(|events| events.rotations(direction))
}

/// Messages that the first link has carried in that direction: `init`, and all that the other end was handed.
fn frames(cell: &Cell, direction: Direction) -> u64 {
    let peer = cell.ldk.id();
    let handed = match direction {
        // LDK pings by itself among many messages.
        Direction::Inbound => {
            let pings = cell.ldk.records.read(|all| all.control_count("Sent Ping"));
            pings
                + cell
                    .node
                    .received
                    .read(|all| all.from(peer, |_| true).len())
        }
        Direction::Outbound => cell
            .ldk
            .records
            .read(|all| all.markers + all.custom.len() + all.control_count("Received Pong")),
    };
    1 + u64::try_from(handed).unwrap()
}

/// The fault strikes half in the last message under a key, and half in the first under the next.
async fn rotation(cell: &mut Cell, direction: Direction) -> String {
    let link = cell.settled(Tag::GossipOnly).await;
    let small = |number: u64| [&32_769_u16.to_be_bytes()[..], &number.to_be_bytes()].concat();
    let frame = 18 + small(0).len() + 16;
    let mut number = 0;
    loop {
        let left = MESSAGES_PER_KEY - 1 - frames(cell, direction);
        if left == 0 {
            break;
        }
        let some: Vec<_> = (number..number + left.min(20)).map(small).collect();
        number += left.min(20);
        let (come, gone) = cell.counts();
        if direction == Direction::Inbound {
            let come = come + some.len();
            cell.ldk.send(cell.node.id(), some);
            cell.arrive(come, gone).await;
        } else {
            let gone = gone + some.len();
            for message in some {
                drop(link.send(message).await.unwrap());
            }
            cell.arrive(come, gone).await;
        }
        let answered =
            |all: &Records| all.control_count("Sent Ping") == all.control_count("Received Pong");
        cell.ldk.records.until_true("pongs", answered).await;
    }
    assert_eq!(rotations(cell, direction), 0, "499 do not replace it");
    let last_and_first: Vec<_> = (0..2).map(small).collect();
    let outcome = transfer(cell, &link, direction, frame - INSIDE, last_and_first).await;
    match outcome {
        None => {
            let replaced =
                |events: &Events| Some(events.rotations(direction)).filter(|times| *times > 0);
            let times = cell.node.events.until("a rotation", replaced).await;
            assert_eq!(times, 1, "the 500th replaces it");
            "retained".to_owned()
        }
        Some(reason) => {
            let link = cell.again(Identity::Node).await;
            cell.talk(&link).await;
            format!("lost ({reason}), up again")
        }
    }
}

/// The signer has gone; gossip goes on, until the fault strikes it.
async fn lapse(cell: &mut Cell) -> String {
    let link = cell.settled(Tag::GossipOnly).await;
    cell.mark();
    let lapsed = cell.node.lapse().epoch;
    let report = cell.until("the lapse", report_of(lapsed)).await;
    assert_eq!(report, (0, 2), "dropped and retained");
    assert_eq!(cell.node.supervisor.mode(), Mode::Safe);
    let messages = stream(4, MESSAGES);
    let outcome = transfer(cell, &link, Direction::Inbound, INTO, messages).await;
    match (outcome, cell.role) {
        (None, _) => "retained".to_owned(),
        (Some(reason), Role::WeDial) => {
            cell.again(Identity::Persona).await;
            cell.hears().await;
            cell.mark();
            cell.signer_returns().await;
            let own = cell.redialled(Identity::Node).await;
            cell.talk(&own).await;
            format!("lost ({reason}), persona, up again")
        }
        (Some(reason), Role::TheyDial) => {
            cell.mark();
            cell.ldk.dial(cell.node.id(), cell.proxy.address).await;
            let parked = |event: &Event| matches!(event, Event::Parked { now: 1 }).then_some(());
            cell.until("it waits for the signer", parked).await;
            cell.signer_returns().await;
            let own = cell.up(Identity::Node).await;
            cell.talk(&own).await;
            format!("lost ({reason}), parked, up again")
        }
    }
}

/// Links that were dropped and retained.
fn report_of(lapsed: Epoch) -> impl Fn(&Event) -> Option<(usize, usize)> {
    move |event| match event {
        Event::SignerLapsed(report) if report.epoch == lapsed => {
            Some((report.dropped, report.retained))
        }
        _ => None,
    }
}

/// The channel link comes back with the signer, and is struck where it has just been leased.
async fn returns(cell: &mut Cell) -> String {
    let declared = cell.node.supervisor.declare_channel_peers([cell.ldk.id()]);
    declared.await.unwrap();
    let link = cell.settled(Tag::ChannelBearing).await;
    cell.mark();
    let lapsed = cell.node.lapse().epoch;
    let report = cell.until("the lapse", report_of(lapsed)).await;
    assert_eq!(report, (1, 1), "dropped and retained");
    assert_eq!(cell.node.end_of(&link).await, CloseReason::Lapse);
    cell.ldk.disconnected(1).await;
    // Act three of who dials, act two of who answers: written under the new lease.
    let at = match cell.role {
        Role::WeDial => 50 + INSIDE,
        Role::TheyDial => INSIDE,
    };
    cell.arm(Direction::Outbound, at);
    cell.mark();
    cell.signer_returns().await;
    if cell.role == Role::TheyDial {
        cell.ldk.dial(cell.node.id(), cell.proxy.address).await;
    }
    let outcome = shaken(cell).await;
    if cell.role == Role::WeDial {
        let relit = |event: &Event| match event {
            Event::Relit { up, failed, .. } => Some((*up, *failed)),
            _ => None,
        };
        let newest = |events: &Events| events.0.iter().rev().find_map(relit);
        let relit = cell.node.events.until("a relight", newest).await;
        let expected = if cell.fault.is_mild() { (1, 0) } else { (0, 1) };
        assert_eq!(relit, expected, "P8 says how it went");
    }
    outcome
}

async fn cell(role: Role, phase: Phase, fault: Fault) -> String {
    use Direction::{Inbound, Outbound};
    let mut cell = Cell::open(role, phase, fault).await;
    let we_dial = role == Role::WeDial;
    let (initiator, responder) = if we_dial {
        (Outbound, Inbound)
    } else {
        (Inbound, Outbound)
    };
    let cell = &mut cell;
    let outcome = match phase {
        Phase::ActOne => shaking(cell, initiator, INSIDE).await,
        Phase::ActTwo => shaking(cell, responder, INSIDE).await,
        Phase::ActThree => shaking(cell, initiator, 50 + INSIDE).await,
        Phase::Init => {
            let acts = if we_dial { 50 } else { 50 + 66 };
            shaking(cell, Inbound, acts + INSIDE).await
        }
        Phase::Idle => idle(cell).await,
        Phase::TransferIn => plain_transfer(cell, Inbound).await,
        Phase::TransferOut if fault == Fault::Narrow => flood(cell).await,
        Phase::TransferOut => plain_transfer(cell, Outbound).await,
        Phase::RotationIn => rotation(cell, Inbound).await,
        Phase::RotationOut => rotation(cell, Outbound).await,
        Phase::Lapse => lapse(cell).await,
        Phase::Return => returns(cell).await,
    };
    cell.check(1).await;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_every_phase_of_a_link_that_the_node_dials_hurts_that_link_alone() {
    let title = "the node dials LDK";
    fill(title, &PHASES, |phase, fault| {
        cell(Role::WeDial, phase, fault)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_every_phase_of_a_link_that_ldk_dials_hurts_that_link_alone() {
    let title = "LDK dials the node";
    fill(title, &PHASES, |phase, fault| {
        cell(Role::TheyDial, phase, fault)
    })
    .await;
}
