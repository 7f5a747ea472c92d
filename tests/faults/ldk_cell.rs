//! What every cell of the matrix between the node and LDK has: the two, the faulty network between them, and a second LDK beside it.

use std::sync::Arc;
use std::time::Duration;

use pilotlight::clock::ManualClock;
use pilotlight::link::{Direction, Identity, LinkHandle, LinkId, Tag};
use pilotlight::node_id::NodeId;
use pilotlight::supervisor::PeerSpec;
use pilotlight::telemetry::Event;
use tokio::task::JoinHandle;

use crate::failures;
use crate::ldk::{Phase, Role};
use crate::ldk_handlers::Records;
use crate::ldk_peer::{LdkPeer, ldk_key};
use crate::ldk_round_trips::round_trips;
use crate::live_node::{Node, Received, is_custom};
use crate::numbered::{assert_same, stream};
use crate::proxy::{Fault, Place, Proxy, Way};
use crate::watched::HANG_GUARD;

/// A second of the node's clock.
pub(crate) const STEP: Duration = Duration::from_secs(1);
/// Where an hour may have to pass, as before a peer is dialled again in whose place somebody else has answered. Shorter than any pong may take.
const LONG_STEP: Duration = Duration::from_secs(10);
/// A faulty network is not slower than this for longer than a few steps: below every deadline.
const LATE: u32 = 3;
/// What a narrow way passes in a tenth of a second.
const SHARE: usize = 64;
/// The receive buffers of a narrow network: less than one large message.
const NARROW_BUFFER: u32 = 8192;

/// One cell: what takes part in it.
pub(crate) struct Cell {
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    pub(crate) fault: Fault,
    pub(crate) node: Node,
    pub(crate) clock: ManualClock,
    pub(crate) ldk: LdkPeer,
    pub(crate) proxy: Proxy,
    pub(crate) beside: LdkPeer,
    pub(crate) beside_link: LinkHandle,
    /// Events before this one are of no interest to who waits.
    pub(crate) mark: usize,
}

impl Cell {
    pub(crate) async fn open(role: Role, phase: Phase, fault: Fault) -> Self {
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
    pub(crate) fn way(&self, direction: Direction) -> Way {
        match (self.role, direction) {
            (Role::WeDial, Direction::Outbound) | (Role::TheyDial, Direction::Inbound) => Way::Up,
            _ => Way::Down,
        }
    }

    pub(crate) fn arm(&self, direction: Direction, at: usize) {
        let way = self.way(direction);
        self.proxy.arm(way, Place::At(at), self.fault);
    }

    pub(crate) fn arm_ahead(&self, direction: Direction, ahead: usize) {
        let way = self.way(direction);
        self.proxy.arm_ahead(way, ahead, self.fault);
    }

    pub(crate) fn mark(&mut self) {
        self.mark = self.node.events.read(|events| events.0.len());
    }

    /// Events are of interest again from the first loss on: whoever dials next may have done so while the test still saw to the loss.
    pub(crate) fn mark_loss(&mut self) {
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
    pub(crate) async fn begin(&self, tag: Tag) {
        match self.role {
            Role::WeDial => {
                let spec = PeerSpec::new(self.ldk.id(), self.proxy.address).tagged(tag);
                self.node.supervisor.add_peer(spec).await.unwrap();
            }
            Role::TheyDial => self.ldk.dial(self.node.id(), self.proxy.address).await,
        }
    }

    /// The first event since the mark of which `pick` makes something.
    pub(crate) fn seen<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> Option<T> {
        let from = self.mark;
        self.node
            .events
            .read(|events| events.0[from..].iter().find_map(&pick))
    }

    /// How the handshake before the first failure since the mark has ended, as it is counted.
    pub(crate) fn counted(&self) -> &'static str {
        let result = |event: &Event| match event {
            Event::Handshake { result, .. } => Some(*result),
            _ => None,
        };
        self.node.events.read(|events| {
            let since = events.0[self.mark..].iter();
            let until = since.take_while(|event| failed(event).is_none()).count();
            let mut all = events.0[..self.mark + until].iter().rev();
            all.find_map(result).expect("there has been one")
        })
    }

    pub(crate) async fn until<T>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let from = self.mark;
        let what = format!("{:?} {:?}: {what}", self.role, self.fault);
        self.node
            .events
            .until(&what, |events| events.0[from..].iter().find_map(&pick))
            .await
    }

    /// Lets that time pass at the node, and the link beside go on: it is given the time to, so that nothing there is late.
    pub(crate) async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        round_trips(&self.node, &self.beside, &self.beside_link, 1).await;
    }

    /// Lets time pass, so much at a time, until such an event: for what only a deadline brings about.
    pub(crate) async fn pass_until<T>(
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
    pub(crate) async fn consequence<T>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        match self.fault {
            Fault::HalfOpen => self.pass_until(what, STEP, pick).await,
            _ => self.until(what, pick).await,
        }
    }

    /// Sees a mild fault through: what is late comes, what is narrow gets its share, until `done`.
    pub(crate) async fn see_through<T>(&self, share: usize, mut done: JoinHandle<T>) -> T {
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

    pub(crate) async fn struck(&self) {
        let struck = tokio::time::timeout(HANG_GUARD, self.proxy.until_struck(1)).await;
        struck.unwrap_or_else(|_| panic!("{:?} {:?}: never struck", self.role, self.fault));
    }

    /// As [`see_through`](Self::see_through), until such an event.
    pub(crate) async fn see_through_to<T: Send + 'static>(
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
    pub(crate) async fn up(&self, identity: Identity) -> LinkHandle {
        let peer = self.ldk.id();
        let link = self.until("a link", up_of(peer, identity)).await;
        let find = |received: &Received| {
            let mut ups = received.ups.iter().map(|(link, _)| link);
            ups.find(|handle| handle.id() == link).cloned()
        };
        self.node.received.until("the link's handle", find).await
    }

    /// LDK gives up what it takes for a living connection: its timer would do so in time. Nobody hears of it while the connection is
    /// half-open; and there must be no other yet, which it would give up as well.
    pub(crate) fn ldk_gives_up(&self) {
        if self.fault == Fault::HalfOpen {
            for _ in 0..8 {
                self.ldk.tick();
            }
        }
    }

    /// The same of a link, once LDK has seen its end. It may not see one while it does not read: its timer finds out, here at once.
    pub(crate) async fn ldk_sees_the_end(&self) {
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
    pub(crate) async fn again(&mut self, identity: Identity) -> LinkHandle {
        self.mark_loss();
        self.redialled(identity).await
    }

    /// Whoever dials does so until there is a link.
    pub(crate) async fn redialled(&mut self, identity: Identity) -> LinkHandle {
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
    pub(crate) async fn hears(&self) {
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
    pub(crate) async fn talk(&self, link: &LinkHandle) {
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

    pub(crate) async fn arrive(&self, come: usize, gone: usize) {
        self.node.messages(self.ldk.id(), is_custom, come).await;
        let enough = |records: &Records| records.custom.len() >= gone;
        self.ldk.records.until_true("messages", enough).await;
    }

    /// What has come to the node, and to LDK.
    pub(crate) fn come(&self) -> Vec<Vec<u8>> {
        let peer = self.ldk.id();
        self.node.received.read(|all| all.from(peer, is_custom))
    }

    pub(crate) fn gone(&self) -> Vec<Vec<u8>> {
        self.ldk.records.read(|records| records.custom.clone())
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.come().len(), self.gone().len())
    }

    /// The link is up, and nothing is on its way: LDK has done all that it does at the beginning.
    pub(crate) async fn settled(&self, tag: Tag) -> LinkHandle {
        self.begin(tag).await;
        let link = self.up(Identity::Node).await;
        self.ldk.introduced(1).await;
        round_trips(&self.node, &self.ldk, &link, 3).await;
        link
    }

    /// The link's end as the node tells of it, and that the reason is one that a fault in that direction can have.
    pub(crate) async fn loss(&self, link: &LinkHandle, direction: Direction) -> &'static str {
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
    pub(crate) async fn signer_returns(&mut self) {
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
    pub(crate) async fn check(&self, struck: usize) {
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
    pub(crate) async fn nothing_is_left(&self) {
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

pub(crate) fn up_of(peer: NodeId, identity: Identity) -> impl Fn(&Event) -> Option<LinkId> {
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
pub(crate) fn failed(event: &Event) -> Option<(&'static str, String)> {
    match event {
        Event::DialFailed {
            failure, detail, ..
        } => Some((failure, detail.to_string())),
        Event::InboundFailed {
            failure, detail, ..
        } => Some((failure, detail.clone())),
        _ => None,
    }
}
