//! A node under test on real sockets of loopback, with a clock and a signer that the test commands, and far sides to talk to it.
//!
//! Nothing here sleeps or depends on timing: a test awaits an event, a message or the end of a stream, under a guard that only
//! tells a hang from a slow machine. Every far side checks promise P4 on all that it receives.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking, and each target uses its share of the helpers"
)]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilotlight::clock::ManualClock;
use pilotlight::link::raw::{RawError, RawLink};
use pilotlight::link::{CloseReason, LinkHandle, LinkId, Message, SendError};
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::{Epoch, LapseReason, SignerContext, SignerSession};
use pilotlight::supervisor::{Builder, Inbound, Inbox, Mode, PeerSpec, Supervisor};
use pilotlight::telemetry::{Event, EventStream, LapseReport, Next};
use pilotlight::wire::{BITCOIN_MAINNET, Init, Ping};
use tokio::net::{TcpListener, TcpStream};

use crate::signers::Scripted;

/// Far longer than anything here takes: when it passes, something hangs.
const HANG: Duration = Duration::from_secs(60);

/// The least that a clock can be moved by.
pub(crate) const INSTANT: Duration = Duration::from_nanos(1);

/// The last instant before a deadline.
pub(crate) fn just_before(deadline: Duration) -> Duration {
    deadline.saturating_sub(INSTANT)
}

/// Awaits what must come.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(HANG, future).await {
        Ok(output) => output,
        Err(tokio::time::error::Elapsed { .. }) => panic!("hangs: {what}"),
    }
}

/// A secret key, by number from 1.
pub(crate) fn key(number: u16) -> LocalKey {
    let mut bytes = [0; 32];
    bytes[30..].copy_from_slice(&number.to_be_bytes());
    LocalKey::from_bytes(&mut bytes).expect("a small number is a secret key")
}

/// The public key of [`key`].
pub(crate) fn id(number: u16) -> NodeId {
    key(number).node_id()
}

/// A whole message: its type, then its body.
pub(crate) fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), body].concat()
}

/// The type of a whole message.
pub(crate) fn kind_of(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// The number of the node's own key.
pub(crate) const NODE: u16 = 1000;

/// All events of a node since its start, and a mark: waits look at what came after the mark.
pub(crate) struct Watch {
    stream: EventStream,
    seen: Vec<Event>,
    from: usize,
}

impl Watch {
    pub(crate) fn new(stream: EventStream) -> Self {
        Self {
            stream,
            seen: Vec::new(),
            from: 0,
        }
    }

    fn take(&mut self, next: Next) {
        match next {
            Next::Event(recorded) => self.seen.push(recorded.event),
            other => panic!("the test is too slow for its events: {other:?}"),
        }
    }

    /// Later waits look only at what comes from here on.
    pub(crate) fn mark(&mut self) {
        self.drain();
        self.from = self.seen.len();
    }

    fn drain(&mut self) {
        while let Some(next) = self.stream.try_next() {
            self.take(next);
        }
    }

    /// The first event after the mark of which `pick` makes something.
    pub(crate) async fn until<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let mut at = self.from;
        loop {
            while let Some(event) = self.seen.get(at) {
                if let Some(found) = pick(event) {
                    return found;
                }
                at += 1;
            }
            match tokio::time::timeout(HANG, self.stream.next()).await {
                Ok(Some(next)) => self.take(next),
                Ok(None) => panic!("no more events, and none was: {what}; {:#?}", self.seen),
                Err(late) => panic!("{late}: {what}; {:#?}", self.seen),
            }
        }
    }

    /// Waits for so many such events after the mark.
    pub(crate) async fn until_count(
        &mut self,
        what: &str,
        count: usize,
        like: impl Fn(&Event) -> bool,
    ) {
        while self.seen[self.from..]
            .iter()
            .filter(|event| like(event))
            .count()
            < count
        {
            match tokio::time::timeout(HANG, self.stream.next()).await {
                Ok(Some(next)) => self.take(next),
                _ => panic!("hangs: {what}; {:#?}", &self.seen[self.from..]),
            }
        }
    }

    /// How many such events there have been since the mark, up to now.
    pub(crate) fn count(&mut self, like: impl Fn(&Event) -> bool) -> usize {
        self.drain();
        self.seen[self.from..]
            .iter()
            .filter(|event| like(event))
            .count()
    }

    /// All events since the mark, up to now.
    pub(crate) fn since_mark(&mut self) -> &[Event] {
        self.drain();
        &self.seen[self.from..]
    }

    pub(crate) async fn link_down(&mut self, link: LinkId) -> CloseReason {
        self.until("the link's end", |event| match event {
            Event::LinkDown {
                link: of, reason, ..
            } if *of == link => Some(*reason),
            _ => None,
        })
        .await
    }

    /// The label and the words of the next inbound connection that fails.
    pub(crate) async fn inbound_failed(&mut self) -> (&'static str, String) {
        self.until("an inbound connection fails", |event| match event {
            Event::InboundFailed {
                failure, detail, ..
            } => Some((*failure, detail.clone())),
            _ => None,
        })
        .await
    }

    /// The label and the words of the next dial that fails.
    pub(crate) async fn dial_failed(&mut self) -> (&'static str, String) {
        self.until("a dial fails", |event| match event {
            Event::DialFailed {
                failure, detail, ..
            } => Some((*failure, detail.to_string())),
            _ => None,
        })
        .await
    }

    /// The first message of this type that is refused on any link: what was done.
    pub(crate) async fn refused(&mut self, kind: u16) -> &'static str {
        self.until("a refusal", |event| match event {
            Event::Refused {
                kind: of, action, ..
            } if *of == kind => Some(*action),
            _ => None,
        })
        .await
    }
}

/// A node under test.
pub(crate) struct Node {
    pub(crate) supervisor: Supervisor,
    pub(crate) inbox: Inbox,
    pub(crate) watch: Watch,
    pub(crate) clock: ManualClock,
    pub(crate) signer: Arc<Scripted>,
    pub(crate) address: SocketAddr,
    number: u16,
    session: Option<SignerSession>,
    entropy: u8,
}

impl Node {
    /// A node that listens; no signer yet.
    pub(crate) async fn waiting() -> Self {
        Self::of(NODE, |builder| builder).await
    }

    /// A node that listens, whose signer is there and has been told which channel peers there are: none.
    pub(crate) async fn live() -> Self {
        Self::live_with(|builder| builder).await
    }

    /// The same, for the key of that number.
    pub(crate) async fn live_as(number: u16) -> Self {
        let mut node = Self::of(number, |builder| builder).await;
        node.attach().await;
        let declared = node.supervisor.declare_channel_peers([]).await;
        declared.expect("the supervisor runs");
        node
    }

    /// The same, made otherwise.
    pub(crate) async fn live_with(make: impl FnOnce(Builder) -> Builder) -> Self {
        let mut node = Self::of(NODE, make).await;
        node.attach().await;
        node.supervisor
            .declare_channel_peers([])
            .await
            .expect("the supervisor runs");
        node
    }

    /// The node whose key has that number; no signer yet.
    pub(crate) async fn of(number: u16, make: impl FnOnce(Builder) -> Builder) -> Self {
        let signer = Scripted::new(key(number));
        let clock = ManualClock::new();
        let builder = Supervisor::builder(SignerContext::new(id(number)))
            .clock(Arc::new(clock.clone()))
            .seed(u64::from(number))
            .hold_down(Duration::ZERO);
        let (supervisor, inbox) = make(builder).start().await.expect("it starts");
        let watch = Watch::new(supervisor.events());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = supervisor.listen(any).await.expect("a free port");
        Self {
            supervisor,
            inbox,
            watch,
            clock,
            signer,
            address,
            number,
            session: None,
            entropy: 0,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.supervisor.node_id()
    }

    /// Attaches the signer, whatever it does with questions: the proof is made with the key itself.
    pub(crate) fn attach_now(&mut self) -> Epoch {
        self.entropy += 1;
        let context = self.supervisor.context();
        let challenge = context.challenge(&mut [self.entropy; 32]).expect("entropy");
        let answer = key(self.number).ecdh(&challenge.point());
        let proof = challenge.verify(answer).expect("the right key");
        let signer = Arc::clone(&self.signer);
        let session = context.attach(proof, signer).expect("no signer is there");
        let epoch = session.epoch();
        self.session = Some(session);
        epoch
    }

    /// Attaches the signer, and waits until the supervisor knows.
    pub(crate) async fn attach(&mut self) -> Epoch {
        let epoch = self.attach_now();
        self.watch
            .until("the supervisor knows of the signer", |event| {
                matches!(event, Event::SignerAttached { epoch: of, .. } if *of == epoch)
                    .then_some(())
            })
            .await;
        // Its answer comes after the change of the mode: a lapse before that would change nothing.
        let _ = self.supervisor.pending().await;
        epoch
    }

    /// Ends the session; the supervisor and the reaper may not know yet.
    pub(crate) fn lapse_now(&mut self) -> Epoch {
        let session = self.session.take().expect("a signer is there");
        let lapse = session.lapse(LapseReason::Requested);
        lapse.expect("the session was live").epoch
    }

    /// Ends the session, and waits until all that depended on it is gone.
    pub(crate) async fn lapse(&mut self) -> LapseReport {
        self.watch.mark();
        let epoch = self.lapse_now();
        let report = self.lapsed(epoch).await;
        self.watch
            .until("safe mode", |event| {
                matches!(event, Event::ModeChanged { to: Mode::Safe, .. }).then_some(())
            })
            .await;
        report
    }

    pub(crate) async fn lapsed(&mut self, epoch: Epoch) -> LapseReport {
        self.watch
            .until("the lapse's report", |event| match event {
                Event::SignerLapsed(report) if report.epoch == epoch => Some(report.clone()),
                _ => None,
            })
            .await
    }

    /// Moves the clock on, step by step, until `future` is ready: for deadlines that are set at a moment that the test cannot see.
    pub(crate) async fn pass_time_until<F: Future>(&self, step: Duration, future: F) -> F::Output {
        let clock = self.clock.clone();
        let pass = async {
            loop {
                tokio::task::yield_now().await;
                clock.advance(step);
            }
        };
        tokio::select! {
            biased;
            output = soon("what time brings", future) => output,
            () = pass => unreachable!("it goes on for ever"),
        }
    }

    /// What comes next into the inbox.
    pub(crate) async fn next(&mut self) -> Inbound {
        soon("the inbox", self.inbox.recv())
            .await
            .expect("the supervisor runs")
    }

    /// The next thing in the inbox, which must be a message.
    pub(crate) async fn next_message(&mut self) -> Message {
        match self.next().await {
            Inbound::Message(message) => message,
            other => panic!("a message was due, not {other:?}"),
        }
    }

    /// The next thing in the inbox, which must be a new link.
    pub(crate) async fn next_up(&mut self) -> LinkHandle {
        match self.next().await {
            Inbound::Up { link, .. } => link,
            other => panic!("a new link was due, not {other:?}"),
        }
    }

    /// The next thing in the inbox, which must be the end of a link.
    pub(crate) async fn next_down(&mut self) -> (LinkId, CloseReason) {
        match self.next().await {
            Inbound::Down { link, reason, .. } => (link, reason),
            other => panic!("a link's end was due, not {other:?}"),
        }
    }

    /// A far side with the key of that number that has dialled in; both `init`s have passed.
    pub(crate) async fn accept(&mut self, number: u16) -> (Far, LinkHandle) {
        let mut far = Far::dial(self.address, number, self.id()).await;
        far.greet().await;
        let link = self.next_up().await;
        assert_eq!(link.peer(), far.id);
        (far, link)
    }

    /// A far side that the node has dialled; both `init`s have passed.
    pub(crate) async fn dial(&mut self, number: u16) -> (Far, LinkHandle) {
        let door = Door::open().await;
        let spec = PeerSpec::new(id(number), door.address);
        let (far, link) = tokio::join!(
            async {
                let mut far = door.accept(number).await;
                far.greet().await;
                far
            },
            soon("the dial", self.supervisor.connect(spec))
        );
        let link = link.expect("the far side answers");
        assert_eq!(self.next_up().await.id(), link.id());
        (far, link)
    }
}

/// Where a far side waits to be dialled.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Door {
    pub(crate) async fn open() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(any).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        Self { listener, address }
    }

    /// The next connection, as it comes.
    pub(crate) async fn socket(&self) -> TcpStream {
        let (socket, _) = soon("a dial", self.listener.accept())
            .await
            .expect("it listens");
        socket
    }

    /// The next connection, its handshake done.
    pub(crate) async fn accept(&self, number: u16) -> Far {
        let socket = self.socket().await;
        let link = soon("acts", RawLink::accept(socket, Arc::new(key(number)))).await;
        Far::new(number, link.expect("a good handshake"))
    }
}

/// What a far side sees next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Message(Bytes),
    /// The connection was closed between two frames.
    Eof,
    /// The connection was reset.
    Reset,
}

/// The other end of a link, scripted by the test. It answers nothing by itself.
pub(crate) struct Far {
    pub(crate) id: NodeId,
    pub(crate) link: RawLink,
    /// The node itself, while its signer is there, may send what Pilotlight never does.
    pub(crate) may_get_error: bool,
}

impl Far {
    pub(crate) fn new(number: u16, link: RawLink) -> Self {
        Self {
            id: id(number),
            link,
            may_get_error: false,
        }
    }

    /// Dials, up to the end of the handshake.
    pub(crate) async fn dial(address: SocketAddr, number: u16, node: NodeId) -> Self {
        let link = RawLink::connect(address, Arc::new(key(number)), node);
        let link = soon("acts", link).await.expect("a good handshake");
        Self::new(number, link)
    }

    /// Both `init`s.
    pub(crate) async fn greet(&mut self) -> Init {
        self.send(&init()).await;
        let theirs = self.expect(16).await;
        Init::decode(&theirs).expect("a good init")
    }

    pub(crate) async fn send(&mut self, message: &[u8]) {
        soon("the kernel's buffer", self.link.send(message))
            .await
            .expect("the connection stands");
    }

    /// As [`send`](Self::send), where the node may already have closed.
    pub(crate) async fn try_send(&mut self, message: &[u8]) {
        let _ = soon("the kernel's buffer", self.link.send(message)).await;
    }

    /// What comes next. Promise P4: never an `error` of Pilotlight's own.
    pub(crate) async fn receive(&mut self) -> Got {
        match soon("the node speaks or closes", self.link.receive()).await {
            Ok(Some(message)) => {
                let error = kind_of(&message) == 17;
                assert!(!error || self.may_get_error, "P4: {message:?}");
                Got::Message(message)
            }
            Ok(None) => Got::Eof,
            Err(RawError::Io(_)) => Got::Reset,
            Err(other) => panic!("{other}"),
        }
    }

    /// The next message, which must be of this type.
    pub(crate) async fn expect(&mut self, kind: u16) -> Bytes {
        match self.receive().await {
            Got::Message(message) if kind_of(&message) == kind => message,
            other => panic!("type {kind} was due, not {other:?}"),
        }
    }

    /// All that still comes, and how it ends.
    pub(crate) async fn rest(&mut self) -> (Vec<Bytes>, Got) {
        let mut messages = Vec::new();
        loop {
            match self.receive().await {
                Got::Message(message) => messages.push(message),
                end => return (messages, end),
            }
        }
    }

    /// Asks for a pong of that length, and gives back what came before it.
    pub(crate) async fn ping(&mut self, num_pong_bytes: u16) -> Vec<Bytes> {
        let ping = Ping {
            num_pong_bytes,
            ignored: 0,
        };
        self.send(&ping.encode()).await;
        let mut before = Vec::new();
        loop {
            match self.receive().await {
                Got::Message(message) if kind_of(&message) == 19 => {
                    assert_eq!(message.len(), usize::from(num_pong_bytes) + 4);
                    return before;
                }
                Got::Message(message) => before.push(message),
                end => panic!("the link ended: {end:?}, after {before:?}"),
            }
        }
    }

    /// All that the node has to say to what was sent so far, and proof that the link stands. Two pings: a pong overtakes the
    /// answers of its own batch, and a link reads on only when it has written them.
    pub(crate) async fn settle(&mut self) -> Vec<Bytes> {
        let mut said = self.ping(11).await;
        said.extend(self.ping(12).await);
        said
    }
}

/// An `init` that the node takes.
pub(crate) fn init() -> Vec<u8> {
    Init::gossip(vec![BITCOIN_MAINNET]).encode()
}

/// Queues numbered gossip until neither the queue nor the kernel takes more, because the far side does not read. Returns how
/// many messages are queued. The last megabyte of them is in the link's own queue.
pub(crate) async fn clog(link: &LinkHandle) -> u32 {
    let mut queued: u32 = 0;
    let mut full = 0;
    while full < 1000 {
        let mut body = vec![0; 30_000];
        body[..4].copy_from_slice(&queued.to_be_bytes());
        match link.try_send(message(256, &body)) {
            Ok(_) => (queued, full) = (queued + 1, 0),
            Err(SendError::Full) => {
                full += 1;
                tokio::task::yield_now().await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    queued
}

/// The number that [`clog`] wrote into a message.
pub(crate) fn number_of(message: &[u8]) -> u32 {
    u32::from_be_bytes([message[2], message[3], message[4], message[5]])
}
