//! What a lapse costs with 100 and 1,000 channel links on real loopback sockets: raising the fence (idle links, then busy ones), tearing
//! all links down, and bringing them back.
//!
//! `cargo bench --bench lapse`; one figure with `-- fence/1000`. The far sides run in this process, so a link takes two descriptors:
//! the bench raises the soft limit and says so if the hard one is too low. The fence is to be flat in the number of links; the
//! teardown ends when the far sides have seen their ends, the relight when the supervisor says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pilotlight::link::raw::RawLink;
use pilotlight::link::{LinkHandle, Tag};
use pilotlight::node_id::LocalKey;
use pilotlight::signer::{EmbeddedSigner, LapseReason, Signer, SignerContext, SignerSession};
use pilotlight::supervisor::{Inbound, PeerSpec, Supervisor};
use pilotlight::telemetry::{Event, Next};
use pilotlight::wire::Init;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// A channel message: BOLT 2 `revoke_and_ack`.
const CHANNEL: u16 = 133;

/// A node with channel links to far sides that answer every dial again.
struct Network {
    runtime: Runtime,
    context: SignerContext,
    signer: Arc<EmbeddedSigner>,
    supervisor: Supervisor,
    session: Option<SignerSession>,
    links: usize,
    far: Arc<FarSides>,
}

/// What the far sides have seen.
#[derive(Default)]
struct FarSides {
    ended: AtomicUsize,
    news: Notify,
}

fn key(number: u64) -> LocalKey {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    LocalKey::from_bytes(&mut bytes).unwrap()
}

/// Answers dials for ever; each link is read until it ends.
async fn serve(listener: TcpListener, key: Arc<LocalKey>, far: Arc<FarSides>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            return;
        };
        let Ok(mut link) = RawLink::accept(socket, Arc::clone(&key)).await else {
            continue;
        };
        if link.send(&Init::gossip(vec![]).encode()).await.is_ok() {
            while let Ok(Some(message)) = link.receive().await {
                black_box(message);
            }
        }
        far.ended.fetch_add(1, Ordering::Relaxed);
        far.news.notify_one();
    }
}

impl Network {
    fn new(links: usize) -> Self {
        raise_descriptors(links);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let signer = Arc::new(EmbeddedSigner::from_key(key(0)));
        let context = SignerContext::new(signer.node_id());
        let far = Arc::new(FarSides::default());
        let supervisor = runtime.block_on(async {
            let (supervisor, mut inbox) =
                Supervisor::builder(context.clone()).start().await.unwrap();
            tokio::spawn(async move {
                while let Some(inbound) = inbox.recv().await {
                    if let Inbound::Message(message) = inbound {
                        black_box(message);
                    }
                }
            });
            for number in 1..=links as u64 {
                let key = Arc::new(key(number));
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let spec = PeerSpec::new(key.node_id(), listener.local_addr().unwrap())
                    .tagged(Tag::ChannelBearing);
                tokio::spawn(serve(listener, key, Arc::clone(&far)));
                supervisor.add_peer(spec).await.unwrap();
            }
            // Commands are done in order: when this one is answered, every peer is known.
            assert_eq!(supervisor.peers().await.unwrap().len(), links);
            supervisor
        });
        Self {
            runtime,
            context,
            signer,
            supervisor,
            session: None,
            links,
            far,
        }
    }

    /// Attaches the signer and waits until every link is up. Returns how long the relight took.
    fn light(&mut self) -> Duration {
        self.runtime.block_on(async {
            let mut events = self.supervisor.events();
            let mut entropy = [0; 32];
            getrandom::fill(&mut entropy).unwrap();
            let proof = self
                .context
                .prove(&*self.signer, &mut entropy)
                .await
                .unwrap();
            self.session = Some(self.context.attach(proof, self.signer.clone()).unwrap());
            loop {
                // The end of a relight is the newest event, so it is never among those that a slow listener misses.
                if let Next::Event(recorded) = events.next().await.unwrap()
                    && let Event::Relit {
                        took, up, failed, ..
                    } = recorded.event
                {
                    assert_eq!((up, failed), (self.links, 0));
                    return took.unwrap();
                }
            }
        })
    }

    /// Ends the session. Returns how long the fence took, and how long until the last far side had seen its end.
    fn lapse(&mut self) -> (Duration, Duration) {
        let before = self.far.ended.load(Ordering::Relaxed);
        let started = Instant::now();
        let lapse = self
            .session
            .take()
            .unwrap()
            .lapse(LapseReason::Requested)
            .unwrap();
        self.runtime.block_on(async {
            while self.far.ended.load(Ordering::Relaxed) < before + self.links {
                self.far.news.notified().await;
            }
        });
        (lapse.fence, started.elapsed())
    }

    fn handles(&self) -> Vec<LinkHandle> {
        self.runtime.block_on(async {
            let mut handles = Vec::new();
            for number in 1..=self.links as u64 {
                handles.extend(self.supervisor.link(key(number).node_id()).await.unwrap());
            }
            handles
        })
    }
}

/// A link takes two descriptors here, its listener one more.
fn raise_descriptors(links: usize) {
    let wanted = links as u64 * 3 + 200;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = rustix::process::Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        let enough = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).is_ok();
        assert!(
            enough,
            "{links} links need {wanted} descriptors, and the limit is {limit:?}: ulimit -n {wanted}"
        );
    }
}

fn fence(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fence");
    for links in [100, 1000] {
        let mut network = Network::new(links);
        group.bench_function(BenchmarkId::new("idle", links), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| lit_lapse(&mut network).0).sum());
        });
        group.bench_function(BenchmarkId::new("busy", links), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| busy_lapse(&mut network)).sum());
        });
    }
    group.finish();
}

fn lit_lapse(network: &mut Network) -> (Duration, Duration) {
    network.light();
    network.lapse()
}

/// A lapse while every link is being written to as fast as it goes.
fn busy_lapse(network: &mut Network) -> Duration {
    network.light();
    let handles = network.handles();
    let stop = Arc::new(AtomicBool::new(false));
    let mut message = CHANNEL.to_be_bytes().to_vec();
    message.resize(430, 0);
    let message = Bytes::from(message);
    for chunk in handles.chunks(handles.len().div_ceil(4)) {
        let (chunk, stop, message) = (chunk.to_vec(), Arc::clone(&stop), message.clone());
        network.runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                for handle in &chunk {
                    // A full queue is as busy as it gets.
                    let _ = handle.try_send(message.clone());
                }
                tokio::task::yield_now().await;
            }
        });
    }
    network.runtime.block_on(async {
        while handles.iter().any(|handle| handle.bytes_written() < 10_000) {
            tokio::task::yield_now().await;
        }
    });
    let (fence, _) = network.lapse();
    stop.store(true, Ordering::Relaxed);
    fence
}

fn teardown(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("teardown");
    group.sample_size(10);
    for links in [100, 1000] {
        let mut network = Network::new(links);
        group.bench_function(BenchmarkId::new("last_far_side", links), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| lit_lapse(&mut network).1).sum());
        });
        group.bench_function(BenchmarkId::new("relight", links), |bencher| {
            bencher.iter_custom(|rounds| {
                let relight = |_| {
                    let took = network.light();
                    network.lapse();
                    took
                };
                (0..rounds).map(relight).sum()
            });
        });
    }
    group.finish();
}

fn quick() -> Criterion {
    // A round lights and tears down every link, so few of them are many handshakes.
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(2))
}

criterion_group!(name = benches; config = quick(); targets = fence, teardown);
criterion_main!(benches);
