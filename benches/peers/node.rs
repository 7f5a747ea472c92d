//! A node of either kind, with a handler that counts and sends back: what both ends of a loopback measurement are.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use lightning_net_tokio::{SocketDescriptor, setup_inbound, setup_outbound};
use pilotlight::link::{LinkHandle, LinkId, Tag};
use pilotlight::node_id::NodeId;
use pilotlight::signer::{
    EcdhCall, EcdhFuture, EmbeddedSigner, Purpose, Signer, SignerContext, SignerSession,
};
use pilotlight::supervisor::{Inbound, Inbox, PeerSpec, Redial, Supervisor};
use tokio::net::{TcpListener, TcpStream};

use crate::crowd::key;
use crate::ldk::{ECHOED, ECHOED_OF_LOAD, Echoes, Ldk, Messages, SINK, SLOW, Whole, ldk_id};

/// Whose code a node runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    Ours,
    Ldk,
}

impl Stack {
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "ours" => Self::Ours,
            "ldk" => Self::Ldk,
            _ => panic!("no stack {name}"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Ldk => "ldk",
        }
    }
}

/// A message that is counted, or sent back, of 430 bytes.
pub(crate) fn message(kind: u16) -> Bytes {
    let mut message = kind.to_be_bytes().to_vec();
    message.resize(430, 7);
    message.into()
}

/// A key in this process behind so much network, or that takes its time with strangers.
pub(crate) struct Distant {
    inner: EmbeddedSigner,
    round_trip: Duration,
    slow_for_strangers: bool,
}

impl Distant {
    pub(crate) fn new(number: u64, round_trip: Duration, slow_for_strangers: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: EmbeddedSigner::from_key(key(number)),
            round_trip,
            slow_for_strangers,
        })
    }
}

impl Signer for Distant {
    fn node_id(&self) -> NodeId {
        self.inner.node_id()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        let stranger = matches!(call.purpose, Purpose::Inbound { .. });
        let wait = if stranger && self.slow_for_strangers {
            SLOW
        } else {
            self.round_trip
        };
        if wait.is_zero() {
            return self.inner.ecdh(call);
        }
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            self.inner.ecdh(call).await
        })
    }
}

/// What the node has received.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) sunk: AtomicU64,
    pub(crate) echoed: Echoes,
}

/// A node of ours. Made inside a runtime.
pub(crate) struct Ours {
    pub(crate) supervisor: Supervisor,
    pub(crate) context: SignerContext,
    pub(crate) signer: Arc<Distant>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) session: Option<SignerSession>,
}

impl Ours {
    /// A node that knows no peers, with no signer yet, and counts what it receives.
    pub(crate) async fn new(signer: Arc<Distant>) -> Self {
        Self::with(signer, None).await
    }

    /// The same, but what is to be sent back it sends back.
    pub(crate) async fn answering(signer: Arc<Distant>) -> Self {
        Self::with(signer, Some(HashMap::new())).await
    }

    async fn with(signer: Arc<Distant>, links: Option<HashMap<LinkId, LinkHandle>>) -> Self {
        let context = SignerContext::new(signer.node_id());
        let (supervisor, inbox) = Supervisor::builder(context.clone())
            .redial(Redial::Hold)
            .gossip_floor(0)
            .hold_down(Duration::ZERO)
            .start()
            .await
            .unwrap();
        let seen = Arc::new(Seen::default());
        tokio::spawn(receive(inbox, links, Arc::clone(&seen)));
        Self {
            supervisor,
            context,
            signer,
            seen,
            session: None,
        }
    }

    pub(crate) async fn attach(&mut self) {
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).unwrap();
        let proof = self.context.prove(&*self.signer, &mut entropy).await;
        let signer = Arc::clone(&self.signer) as Arc<dyn Signer>;
        self.session = Some(self.context.attach(proof.unwrap(), signer).unwrap());
    }
}

/// `links`: of a node that answers. It must find its links; what that takes is the node's, not the library's.
async fn receive(
    mut inbox: Inbox,
    mut links: Option<HashMap<LinkId, LinkHandle>>,
    seen: Arc<Seen>,
) {
    while let Some(inbound) = inbox.recv().await {
        match inbound {
            Inbound::Up { link, .. } => {
                if let Some(links) = &mut links {
                    links.insert(link.id(), link);
                }
            }
            Inbound::Down { link, .. } => {
                if let Some(links) = &mut links {
                    links.remove(&link);
                }
            }
            Inbound::Message(message) => match message.kind() {
                SINK => {
                    seen.sunk.fetch_add(1, Ordering::Relaxed);
                }
                ECHOED | ECHOED_OF_LOAD => seen.echoed.count(message.kind()),
                kind => {
                    let mut answer = BytesMut::with_capacity(message.bytes.len());
                    answer.put_u16(kind + 2);
                    answer.put_slice(&message.bytes[2..]);
                    let link = &links.as_ref().unwrap()[&message.link];
                    let sent = link.send(answer).await;
                    drop(sent.unwrap());
                }
            },
            _ => {}
        }
    }
}

/// LDK writes message by message and leaves Nagle's algorithm on, which would have single messages wait for delayed acknowledgements.
pub(crate) fn without_delay(socket: TcpStream) -> std::net::TcpStream {
    socket.set_nodelay(true).unwrap();
    socket.into_std().unwrap()
}

/// Accepts connections for an LDK node.
pub(crate) async fn ldk_listen(node: &Ldk<SocketDescriptor>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let manager = Arc::clone(&node.manager);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(setup_inbound(Arc::clone(&manager), without_delay(socket)));
        }
    });
    address
}

pub(crate) async fn ldk_dial(node: &Ldk<SocketDescriptor>, peer: NodeId, address: SocketAddr) {
    let socket = TcpStream::connect(address).await.unwrap();
    tokio::spawn(setup_outbound(
        Arc::clone(&node.manager),
        ldk_id(peer),
        without_delay(socket),
    ));
}

/// A far side: listens, says where and who it is, and runs until its input ends.
pub(crate) fn run(stack: Stack, number: u8) {
    let runtime = runtime();
    let (address, id, _node) = runtime.block_on(async {
        match stack {
            Stack::Ours => {
                let signer = Distant::new(number.into(), Duration::ZERO, false);
                let mut node = Ours::answering(signer).await;
                node.supervisor.declare_channel_peers([]).await.unwrap();
                node.attach().await;
                let address = node.supervisor.listen("127.0.0.1:0".parse().unwrap()).await;
                let id = node.supervisor.node_id();
                (address.unwrap(), id, Running::Ours(node))
            }
            Stack::Ldk => {
                let node = Ldk::new(number);
                let address = ldk_listen(&node).await;
                (address, node.node_id(), Running::Ldk(node))
            }
        }
    });
    println!("{address} {id}");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A node of either kind.
pub(crate) enum Running {
    Ours(Ours),
    Ldk(Ldk<SocketDescriptor>),
}

/// With a thread for each processor.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    runtime_of(std::thread::available_parallelism().map_or(1, usize::from))
}

pub(crate) fn runtime_of(threads: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
}

/// Who sends and waits for what comes back.
#[derive(Clone, Copy)]
pub(crate) enum Who {
    /// A task of the runtime: tokio wakes the link's on the same thread.
    Task,
    /// A thread beside it: the kernel must wake a thread of the runtime for what this sends, and this for what comes back.
    Thread,
}

impl Who {
    pub(crate) fn runs<T: Send + 'static>(
        self,
        runtime: &tokio::runtime::Runtime,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self {
            Self::Task => runtime.block_on(runtime.spawn(work)).unwrap(),
            Self::Thread => runtime.block_on(work),
        }
    }
}

/// A link of a node of either kind, to send on it.
pub(crate) enum Link {
    Ours {
        handle: LinkHandle,
        seen: Arc<Seen>,
    },
    Ldk {
        manager: Arc<crate::ldk::Manager<SocketDescriptor>>,
        messages: Arc<Messages>,
        peer: NodeId,
    },
}

impl Running {
    pub(crate) async fn new(stack: Stack, signer: Arc<Distant>) -> Self {
        match stack {
            Stack::Ours => Self::Ours(Ours::new(signer).await),
            Stack::Ldk => Self::Ldk(Ldk::new(1)),
        }
    }

    /// Dials and waits until the link is up.
    pub(crate) async fn link(&mut self, peer: NodeId, address: SocketAddr) -> Link {
        match self {
            Self::Ours(node) => {
                if node.session.is_none() {
                    node.supervisor.declare_channel_peers([]).await.unwrap();
                    node.attach().await;
                }
                let spec = PeerSpec::new(peer, address).tagged(Tag::GossipOnly);
                let handle = node.supervisor.connect(spec).await.unwrap();
                Link::Ours {
                    handle,
                    seen: Arc::clone(&node.seen),
                }
            }
            Self::Ldk(node) => {
                let before = node.messages.peers.load(Ordering::Acquire);
                ldk_dial(node, peer, address).await;
                while node.messages.peers.load(Ordering::Acquire) == before {
                    node.messages.news.notified().await;
                }
                Link::Ldk {
                    manager: Arc::clone(&node.manager),
                    messages: Arc::clone(&node.messages),
                    peer,
                }
            }
        }
    }
}

impl Link {
    /// Sends `batch` messages that are counted, and one that comes back.
    pub(crate) async fn send(&self, batch: usize, sink: &Bytes, echo: &Bytes) {
        let kind = u16::from_be_bytes([echo[0], echo[1]]);
        match self {
            Self::Ours { handle, .. } => {
                for _ in 0..batch {
                    drop(handle.send(sink.clone()).await.unwrap());
                }
                drop(handle.send(echo.clone()).await.unwrap());
            }
            Self::Ldk {
                manager,
                messages,
                peer,
            } => {
                let peer = ldk_id(*peer);
                let sinks = (0..batch).map(|_| (peer, Whole(SINK, sink.clone())));
                let all = sinks.chain([(peer, Whole(kind, echo.clone()))]);
                messages.outgoing.lock().unwrap().extend(all);
                manager.process_events();
            }
        }
    }

    /// Waits until so many that were sent with this type have come back.
    pub(crate) async fn echoed(&self, kind: u16, count: u64) {
        match self {
            Self::Ours { seen, .. } => seen.echoed.until(kind, count).await,
            Self::Ldk { messages, .. } => messages.echoed.until(kind, count).await,
        }
    }
}
