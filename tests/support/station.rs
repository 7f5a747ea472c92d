//! A node whose signer dials in, on real sockets: its gateway with fresh credentials, its supervisor, and peers who answer dials for
//! ever and say what they saw.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests fail by panicking, and each target uses its share of the helpers"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotlight::clock::{Clock, SystemClock};
use pilotlight::link::Tag;
use pilotlight::link::raw::{RawError, RawLink};
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::secret::Secret32;
use pilotlight::signer::agent::{Agent, AgentConfig};
use pilotlight::signer::gateway::{
    Gateway, GatewayConfig, Macaroon, Op, RootKey, TlsFiles, TlsIdentity,
};
use pilotlight::signer::{
    EcdhCall, EcdhFuture, EmbeddedSigner, Epoch, Lapse, Signer, SignerContext, SignerError,
    SignerState,
};
use pilotlight::supervisor::{Inbound, Inbox, PeerSpec, Supervisor};
use pilotlight::telemetry::{Event, Next, Recorded, Telemetry};
use pilotlight::wire::{BITCOIN_MAINNET, Init};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::watched::{HANG_GUARD, Watched};

/// The key with a number; each number has its own.
pub(crate) fn key(number: u64) -> LocalKey {
    let mut bytes = [7; 32];
    bytes[16..24].copy_from_slice(&number.to_be_bytes());
    LocalKey::from_bytes(&mut bytes).unwrap()
}

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG_GUARD, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {HANG_GUARD:?}"))
}

/// The node: its gateway listens, its supervisor runs.
pub(crate) struct Station {
    pub(crate) context: SignerContext,
    pub(crate) gateway: Gateway,
    pub(crate) supervisor: Supervisor,
    pub(crate) telemetry: Telemetry,
    pub(crate) certificate: Vec<u8>,
    folder: tempfile::TempDir,
}

impl Station {
    /// The node of `key`.
    pub(crate) async fn open(
        key: &LocalKey,
        window: Duration,
        clock: Arc<dyn Clock>,
    ) -> (Self, Inbox) {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles::in_directory(folder.path());
        // Agents look at the machine's clock, whatever the node's is.
        let now = SystemClock::new().unix();
        let (identity, _) = TlsIdentity::load_or_generate(&files, &[], now).unwrap();
        let certificate = identity.certificate().to_vec();
        let root_key = RootKey::new(0, Secret32::build(|bytes| bytes.fill(7)));
        let macaroon = Macaroon::bake(&root_key, [1; 16], &[Op::remote_signer()]);
        std::fs::write(folder.path().join("macaroon"), macaroon.to_bytes()).unwrap();
        let context = SignerContext::new(key.node_id());
        let builder = Supervisor::builder(context.clone());
        let builder = builder.clock(Arc::clone(&clock)).seed(7);
        let (supervisor, inbox) = builder.start().await.unwrap();
        let telemetry = supervisor.telemetry();
        let config = GatewayConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            identity,
            root_key,
            liveness_window: window,
        };
        let gateway = Gateway::start(config, context.clone(), telemetry.clone(), clock)
            .await
            .unwrap();
        let station = Self {
            context,
            gateway,
            supervisor,
            telemetry,
            certificate,
            folder,
        };
        (station, inbox)
    }

    /// What an agent is given that dials `server`: the gateway, or a proxy before it.
    pub(crate) fn agent_config(&self, server: SocketAddr) -> AgentConfig {
        AgentConfig {
            server: server.to_string(),
            certificate: self.folder.path().join("signer.cert"),
            macaroon: self.folder.path().join("macaroon"),
        }
    }

    pub(crate) fn agent(&self, server: SocketAddr, signer: Arc<dyn Signer>) -> Agent {
        Agent::start(self.agent_config(server), signer)
    }

    pub(crate) fn macaroon(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("macaroon")).unwrap();
        Macaroon::parse(&bytes).unwrap().to_hex().to_string()
    }

    /// Waits until the session of that number is live.
    pub(crate) async fn until_live(&self, epoch: u64) {
        let mut states = self.context.subscribe();
        let live = states.wait_for(|state| state.live().map(Epoch::get) == Some(epoch));
        soon("a live signer", live).await.unwrap();
    }

    /// Waits until a session has ended; says how.
    pub(crate) async fn until_lapsed(&self, epoch: u64) -> Lapse {
        let mut states = self.context.subscribe();
        let ended = |state: &SignerState| {
            state
                .newest()
                .is_some_and(|newest| newest.get() > epoch || state.live().is_none())
        };
        soon("a lapse", states.wait_for(ended)).await.unwrap();
        self.context.last_lapse().unwrap()
    }

    /// Wants links with these peers kept up.
    pub(crate) async fn want(&self, peers: &Peers, tag: Tag) {
        for (id, address) in &peers.places {
            let spec = PeerSpec::new(*id, *address).tagged(tag);
            self.supervisor.add_peer(spec).await.unwrap();
        }
        // Commands are done in order: when this one is answered, every peer is known.
        let known = self.supervisor.peers().await.unwrap().len();
        assert!(known >= peers.places.len());
    }
}

/// Every event so far.
pub(crate) struct Log {
    events: Arc<Watched<Events>>,
}

#[derive(Debug, Default)]
struct Events {
    all: Vec<Recorded>,
    missed: u64,
}

impl Log {
    pub(crate) fn of(telemetry: &Telemetry) -> Self {
        let mut stream = telemetry.subscribe();
        let events = Arc::<Watched<Events>>::default();
        let log = Arc::clone(&events);
        tokio::spawn(async move {
            while let Some(next) = stream.next().await {
                log.change(|events| match next {
                    Next::Event(recorded) => events.all.push(recorded),
                    Next::Missed(count) => events.missed += count,
                    _ => {}
                });
            }
        });
        Self { events }
    }

    /// Waits for the `nth` event, from 1, of which `pick` makes something; with the time when it was recorded.
    pub(crate) async fn nth<T>(
        &self,
        what: &str,
        nth: usize,
        pick: impl Fn(&Event) -> Option<T>,
    ) -> (Duration, T) {
        let find = |events: &Events| {
            assert_eq!(events.missed, 0, "events missed: a test would be wrong");
            let picked = |recorded: &Recorded| Some((recorded.at, pick(&recorded.event)?));
            events.all.iter().filter_map(picked).nth(nth - 1)
        };
        self.events.until(what, find).await
    }

    /// How many such events there have been so far.
    pub(crate) fn count(&self, like: impl Fn(&Event) -> bool) -> usize {
        self.events.read(|events| {
            assert_eq!(events.missed, 0, "events missed: a test would be wrong");
            let found = events.all.iter().filter(|recorded| like(&recorded.event));
            found.count()
        })
    }
}

/// What peers have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Handshakes that were done, and links that have ended since.
    pub(crate) ups: usize,
    pub(crate) ended: usize,
    pub(crate) messages: usize,
    /// Handshakes that were not: an act that came late or not at all, or wrong.
    pub(crate) failed: Vec<String>,
    /// Of those, how many timed out on an act.
    pub(crate) late: usize,
}

/// Peers who answer every dial, each at a port of its own, and give 5 s for an act.
pub(crate) struct Peers {
    pub(crate) places: Vec<(NodeId, SocketAddr)>,
    pub(crate) seen: Arc<Watched<Seen>>,
    say: watch::Sender<u64>,
}

impl Peers {
    /// `count` peers, whose keys are numbered from `first`.
    pub(crate) async fn listen(first: u64, count: usize) -> Self {
        let mut places = Vec::new();
        let seen = Arc::<Watched<Seen>>::default();
        let (say, said) = watch::channel(0);
        for number in first..first + count as u64 {
            let key = Arc::new(key(number));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            places.push((key.node_id(), listener.local_addr().unwrap()));
            tokio::spawn(serve(listener, key, Arc::clone(&seen), said.clone()));
        }
        Self { places, seen, say }
    }

    /// Each peer sends gossip up to that number on each of its links, from 1, once each.
    pub(crate) fn gossip_up_to(&self, number: u64) {
        self.say.send_replace(number);
    }

    pub(crate) async fn until(&self, what: &str, holds: impl FnMut(&Seen) -> bool) {
        self.seen.until_true(what, holds).await;
    }
}

/// Answers dials for ever, each beside the others: a half-open link must not keep out the next.
async fn serve(
    listener: TcpListener,
    key: Arc<LocalKey>,
    seen: Arc<Watched<Seen>>,
    said: watch::Receiver<u64>,
) {
    while let Ok((socket, _)) = listener.accept().await {
        let (key, seen, said) = (Arc::clone(&key), Arc::clone(&seen), said.clone());
        tokio::spawn(async move {
            match RawLink::accept(socket, key).await {
                Ok(link) => {
                    seen.change(|seen| seen.ups += 1);
                    live(link, &seen, said).await;
                    seen.change(|seen| seen.ended += 1);
                }
                Err(error) => seen.change(|seen| {
                    if let RawError::Handshake(failure) = &error {
                        seen.late += usize::from(failure.label() == "timeout");
                    }
                    seen.failed.push(error.to_string());
                }),
            }
        });
    }
}

async fn live(mut link: RawLink, seen: &Watched<Seen>, mut said: watch::Receiver<u64>) {
    let init = Init::gossip(vec![BITCOIN_MAINNET]).encode();
    if link.send(&init).await.is_err() {
        return;
    }
    let mut number = 0;
    loop {
        let more = async {
            let upto = said.wait_for(|said| *said > number).await;
            upto.map(|upto| *upto)
        };
        tokio::select! {
            message = link.receive() => match message {
                Ok(Some(_)) => seen.change(|seen| seen.messages += 1),
                Ok(None) | Err(_) => return,
            },
            more = more => {
                let Ok(upto) = more else { return };
                while number < upto {
                    number += 1;
                    if link.send(&gossip(number)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// A `channel_announcement` in size and type, with a number in it.
pub(crate) fn gossip(number: u64) -> Vec<u8> {
    let mut message = vec![1, 0];
    message.extend_from_slice(&number.to_be_bytes());
    message.resize(430, 0);
    message
}

/// What the node's inbox has brought from each peer: how many messages of gossip, and whether each came in its turn.
#[derive(Debug, Default)]
pub(crate) struct Gossip {
    pub(crate) of: std::collections::HashMap<NodeId, u64>,
    pub(crate) out_of_turn: usize,
}

/// Reads the inbox for ever.
pub(crate) fn read_inbox(mut inbox: Inbox) -> Arc<Watched<Gossip>> {
    let gossip = Arc::<Watched<Gossip>>::default();
    let read = Arc::clone(&gossip);
    tokio::spawn(async move {
        while let Some(inbound) = inbox.recv().await {
            let Inbound::Message(message) = inbound else {
                continue;
            };
            let number = u64::from_be_bytes(message.bytes[2..10].try_into().unwrap());
            read.change(|gossip| {
                let last = gossip.of.entry(message.peer).or_default();
                *last += 1;
                gossip.out_of_turn += usize::from(number != *last);
            });
        }
    });
    gossip
}

/// A key's holder that computes one ECDH at a time, in the order of the questions, each once there is a permit for it.
pub(crate) struct OneAtATime {
    inner: EmbeddedSigner,
    turn: tokio::sync::Mutex<()>,
    asked: watch::Sender<usize>,
    answered: watch::Sender<usize>,
    /// `None`: no permit is needed.
    permits: Option<Semaphore>,
}

impl OneAtATime {
    pub(crate) fn quick(key: LocalKey) -> Arc<Self> {
        Self::with(key, None)
    }

    /// Answers nothing until it is [allowed](Self::allow) to.
    pub(crate) fn held(key: LocalKey) -> Arc<Self> {
        Self::with(key, Some(Semaphore::new(0)))
    }

    fn with(key: LocalKey, permits: Option<Semaphore>) -> Arc<Self> {
        Arc::new(Self {
            inner: EmbeddedSigner::from_key(key),
            turn: tokio::sync::Mutex::new(()),
            asked: watch::Sender::new(0),
            answered: watch::Sender::new(0),
            permits,
        })
    }

    pub(crate) fn allow(&self, answers: usize) {
        self.permits.as_ref().unwrap().add_permits(answers);
    }

    /// Questions so far, the proofs' among them.
    pub(crate) fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    pub(crate) fn answered(&self) -> usize {
        *self.answered.borrow()
    }

    pub(crate) async fn until_asked(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        let enough = asked.wait_for(|asked| *asked >= count);
        soon("questions", enough).await.unwrap();
    }
}

impl Signer for OneAtATime {
    fn node_id(&self) -> NodeId {
        self.inner.node_id()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        self.asked.send_modify(|asked| *asked += 1);
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            if let Some(permits) = &self.permits {
                let closed = |_| SignerError::Unavailable("closed".into());
                permits.acquire().await.map_err(closed)?.forget();
            }
            let answer = self.inner.ecdh(call).await;
            self.answered.send_modify(|answered| *answered += 1);
            answer
        })
    }
}
