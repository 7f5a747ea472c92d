//! What the tests of the promises share: a node with a signer in this process, far sides on real loopback sockets that count every
//! byte they receive, numbered messages, seeds that are printed, and a guard against hanging. Nothing here sleeps.
#![allow(
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::similar_names,
    clippy::match_wild_err_arm,
    clippy::needless_pass_by_value,
    clippy::single_match_else,
    clippy::unchecked_time_subtraction,
    reason = "a test prints its seed and its figures, and tells its story in one go"
)]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use bytes::{Bytes, BytesMut};
use pilotlight::brontide::{FRAME_OVERHEAD, Session};
use pilotlight::link::raw::RawLink;
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::{
    EmbeddedSigner, Lapse, LapseReason, Signer, SignerContext, SignerSession,
};
use pilotlight::supervisor::{Builder, Inbox, Redial, Supervisor};
use pilotlight::telemetry::{Event, EventStream, Next};
use pilotlight::wire::{BITCOIN_MAINNET, GossipTimestampFilter, Init};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;

/// A custom type of the odd kind: to the node and from it in every mode, and no reason for a lease.
pub const CUSTOM: u16 = 32_769;
/// `channel_update`: gossip.
pub const GOSSIP: u16 = 258;
/// `revoke_and_ack`: a message of BOLT 2, so its link depends on the signer from here on.
pub const CHANNEL: u16 = 133;

/// Fails a test that hangs. No test passes or fails by how long something took.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(120), future).await {
        Ok(output) => output,
        Err(_) => panic!("hung: {what}"),
    }
}

/// Lets other tasks run until `done`.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    within(what, async {
        while !done() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The seed of a test: its own, or the one in `PILOTLIGHT_SEED`. Printed, so that a failure can be replayed.
pub fn seed(test: &str, default: u64) -> u64 {
    let seed = std::env::var("PILOTLIGHT_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default);
    println!("{test}: PILOTLIGHT_SEED={seed}");
    seed
}

/// A runtime of its own, so that far sides go on when the node's workers are stuck.
pub fn runtime(name: &str, workers: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name(name)
        .enable_all()
        .build()
        .unwrap()
}

/// Raises the soft limit on descriptors to what is `wanted`, as far as the hard limit allows, and says how many there may be.
pub fn descriptors(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let raised = limit.maximum.unwrap_or(u64::MAX).min(wanted);
    match setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(raised),
            maximum: limit.maximum,
        },
    ) {
        Ok(()) => raised,
        Err(_) => current,
    }
}

/// How many links a test may make: `wanted`, or fewer, and then it says so.
pub fn affordable_links(wanted: usize) -> usize {
    // Two ends and a listener each, and the rest of the process.
    let needed = |links: usize| links as u64 * 3 + 200;
    let have = descriptors(needed(wanted));
    let links = wanted.min(usize::try_from(have.saturating_sub(200) / 3).unwrap_or(wanted));
    if links < wanted {
        println!("only {have} descriptors: {links} links instead of {wanted}");
    }
    links
}

/// The key with a number; each number has its own.
pub fn key(number: u64) -> LocalKey {
    let mut bytes = [0x11; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    LocalKey::from_bytes(&mut bytes).unwrap()
}

/// A message of `kind` that carries `number` and is `length` bytes long in all, at least 10.
pub fn numbered(kind: u16, number: u64, length: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(length.max(10));
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&number.to_be_bytes());
    message.resize(length.max(10), 0);
    message
}

/// The number that [`numbered`] put in.
pub fn number_of(message: &[u8]) -> u64 {
    u64::from_be_bytes(message[2..10].try_into().unwrap())
}

/// The BOLT 1 type.
pub fn kind_of(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// The node under test.
pub struct Node {
    pub supervisor: Supervisor,
    pub context: SignerContext,
    pub signer: Arc<EmbeddedSigner>,
    pub session: Option<SignerSession>,
}

/// The node's key.
pub const NODE: u64 = 0;

impl Node {
    /// Starts a node without a signer session.
    pub async fn start(change: impl FnOnce(Builder) -> Builder) -> (Self, Inbox) {
        let signer = Arc::new(EmbeddedSigner::from_key(key(NODE)));
        let context = SignerContext::new(signer.node_id());
        let builder = Supervisor::builder(context.clone())
            .seed(1)
            .seed(1)
            // What these add is shown where a test asks for it.
            .hold_down(Duration::ZERO)
            .redial(Redial::Hold);
        let (supervisor, inbox) = change(builder).start().await.unwrap();
        (
            Self {
                supervisor,
                context,
                signer,
                session: None,
            },
            inbox,
        )
    }

    pub fn id(&self) -> NodeId {
        self.context.node_id()
    }

    /// Begins a signer session.
    pub async fn attach(&mut self) {
        static FRESH: AtomicU64 = AtomicU64::new(1);
        let mut entropy = [0x22; 32];
        entropy[24..].copy_from_slice(&FRESH.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let proof = self
            .context
            .prove(&*self.signer, &mut entropy)
            .await
            .unwrap();
        self.session = Some(
            self.context
                .attach(proof, Arc::clone(&self.signer) as Arc<dyn Signer>)
                .unwrap(),
        );
    }

    /// Ends the signer session.
    pub fn lapse(&mut self) -> Lapse {
        self.session
            .take()
            .unwrap()
            .lapse(LapseReason::Requested)
            .unwrap()
    }

    /// Waits until the newest lapse has been reported: all secrets are wiped, all connections reset.
    pub async fn torn_down(&self, dropped: usize, retained: usize) {
        let epoch = self.context.last_lapse().unwrap().epoch;
        let mut reported = None;
        until("the lapse's report", || {
            reported = self
                .supervisor
                .snapshot()
                .last_lapse
                .filter(|_| self.context.last_lapse().unwrap().epoch == epoch);
            reported.is_some()
        })
        .await;
        let report = reported.unwrap();
        assert_eq!(
            (report.dropped, report.retained),
            (dropped, retained),
            "links dropped and retained"
        );
    }
}

/// The next event that `pick` wants. Fails if events were missed.
pub async fn event<T>(
    events: &mut EventStream,
    what: &str,
    mut pick: impl FnMut(Event) -> Option<T>,
) -> T {
    within(what, async {
        loop {
            match events.next().await.expect("the supervisor is gone") {
                Next::Event(recorded) => {
                    if let Some(found) = pick(recorded.event) {
                        return found;
                    }
                }
                Next::Missed(missed) => panic!("{missed} events missed while waiting for {what}"),
                _ => {}
            }
        }
    })
    .await
}

/// A peer: a key and a place where it listens.
pub struct Far {
    pub id: NodeId,
    pub address: SocketAddr,
    key: Arc<LocalKey>,
    listener: TcpListener,
}

/// Buffers of a far side's sockets, in bytes; `None`: the system's.
#[derive(Clone, Copy, Default)]
pub struct Buffers {
    pub send: Option<u32>,
    pub receive: Option<u32>,
}

impl Far {
    pub fn listen(number: u64) -> Self {
        Self::listen_with(number, Buffers::default())
    }

    pub fn listen_with(number: u64, buffers: Buffers) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // What a listener has, its connections get.
        if let Some(size) = buffers.send {
            socket.set_send_buffer_size(size).unwrap();
        }
        if let Some(size) = buffers.receive {
            socket.set_recv_buffer_size(size).unwrap();
        }
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let key = Arc::new(key(number));
        Self {
            id: key.node_id(),
            address: listener.local_addr().unwrap(),
            key,
            listener,
        }
    }

    /// Takes one connection of the node as far as `init` both ways.
    pub async fn accept(&self) -> Wire {
        let (socket, _) = self.listener.accept().await.unwrap();
        self.greet(socket).await.unwrap()
    }

    /// As [`accept`](Self::accept), but a connection that fails is the next one's chance.
    pub async fn accept_any(&self) -> Wire {
        loop {
            let (socket, _) = self.listener.accept().await.unwrap();
            if let Some(wire) = self.greet(socket).await {
                return wire;
            }
        }
    }

    async fn greet(&self, socket: tokio::net::TcpStream) -> Option<Wire> {
        let link = RawLink::accept(socket, Arc::clone(&self.key)).await.ok()?;
        Wire::from(link).greeted().await.ok()
    }

    /// Dials the node, as far as `init` both ways.
    pub async fn dial(&self, node: NodeId, address: SocketAddr) -> Wire {
        let link = RawLink::connect(address, Arc::clone(&self.key), node)
            .await
            .unwrap();
        Wire::from(link).greeted().await.unwrap()
    }
}

/// The far end of a link. It does nothing by itself: no pong, no reading ahead.
pub struct Wire {
    pub reader: Reader,
    pub writer: Writer,
}

/// The receiving half of a far end.
pub struct Reader {
    half: OwnedReadHalf,
    session: Arc<Mutex<Session>>,
    buffer: BytesMut,
    /// The key that the other side showed.
    pub remote: NodeId,
    /// Its `init`.
    pub init: Bytes,
    /// Bytes received after the handshake.
    pub received: u64,
}

/// The sending half of a far end. Dropping it closes that direction.
pub struct Writer {
    half: OwnedWriteHalf,
    session: Arc<Mutex<Session>>,
    buffer: BytesMut,
}

impl From<RawLink> for Wire {
    fn from(link: RawLink) -> Self {
        let remote = link.remote();
        let (socket, session, ahead) = link.into_parts();
        assert!(ahead.is_empty(), "a handshake reads its acts and no more");
        let (read, write) = socket.into_split();
        let session = Arc::new(Mutex::new(session));
        let reader = Reader {
            half: read,
            remote,
            init: Bytes::new(),
            session: Arc::clone(&session),
            buffer: BytesMut::new(),
            received: 0,
        };
        Self {
            reader,
            writer: Writer {
                half: write,
                session,
                buffer: BytesMut::new(),
            },
        }
    }
}

impl Wire {
    async fn greeted(mut self) -> io::Result<Self> {
        self.writer
            .send(&Init::gossip(vec![BITCOIN_MAINNET]).encode())
            .await?;
        let first = self
            .reader
            .next()
            .await
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Init::decode(&first).map_err(io::Error::other)?;
        self.reader.init = first;
        Ok(self)
    }

    /// Asks for all gossip, so that the node may relay it.
    pub async fn ask_for_gossip(&mut self) {
        let filter = GossipTimestampFilter {
            chain_hash: BITCOIN_MAINNET,
            first_timestamp: 0,
            timestamp_range: u32::MAX,
        };
        self.writer.send(&filter.encode()).await.unwrap();
    }

    /// Key rotations so far, of the far end's sending key and of its receiving key.
    pub fn rotations(&self) -> (u64, u64) {
        self.reader.rotations()
    }
}

impl Reader {
    /// The next message; `None` when the connection has ended, in whatever way.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let opened = self
                .session
                .lock()
                .unwrap()
                .open(&mut self.buffer)
                .expect("every frame authenticates");
            if let Some(message) = opened {
                return Some(message.freeze());
            }
            self.buffer.reserve(64 * 1024);
            match self.half.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.received += count as u64,
            }
        }
    }

    /// Takes every byte to the end of the connection, without a look at it, and says how many there were in all.
    pub async fn drain(&mut self) -> u64 {
        let mut sink = vec![0; 64 * 1024];
        loop {
            match self.half.read(&mut sink).await {
                Ok(0) | Err(_) => return self.received,
                Ok(count) => self.received += count as u64,
            }
        }
    }

    pub fn rotations(&self) -> (u64, u64) {
        self.session.lock().unwrap().rotations()
    }
}

impl Writer {
    /// Encrypts a message; [`flush`](Self::flush) writes it.
    pub fn queue(&mut self, message: &[u8]) {
        self.session
            .lock()
            .unwrap()
            .seal(message, &mut self.buffer)
            .unwrap();
    }

    /// Bytes that are queued.
    pub fn queued(&self) -> usize {
        self.buffer.len()
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        self.half.write_all_buf(&mut self.buffer).await
    }

    pub async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.queue(message);
        self.flush().await
    }

    /// Writes as much of what is queued as the kernel takes now, and says how much.
    pub fn flush_now(&mut self) -> io::Result<usize> {
        let mut written = 0;
        while !self.buffer.is_empty() {
            match self.half.try_write(&self.buffer) {
                Ok(count) => {
                    let _ = self.buffer.split_to(count);
                    written += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    pub async fn writable(&self) {
        self.half.writable().await.unwrap();
    }
}

/// What a message of `length` bytes takes on the wire.
pub fn on_the_wire(length: usize) -> u64 {
    (length + FRAME_OVERHEAD) as u64
}
