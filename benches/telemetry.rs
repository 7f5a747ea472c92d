//! What telemetry costs a message of 430 bytes, the average of gossip: its own operations beside the session's, and a link over loopback
//! with the daemon's recorder and with none.
//!
//! `cargo bench --bench telemetry`. All figures are processor time of one thread, so that a busy machine disturbs the ratios little. The
//! last lines give telemetry's share of a message, which must be under 5 %: medians of rounds that alternate.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::unchecked_time_subtraction,
    clippy::semicolon_if_nothing_returned
)]

#[path = "peers/shake.rs"]
mod shake;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use pilotlight::brontide::FRAME_OVERHEAD;
use pilotlight::clock::{Clock, SystemClock};
use pilotlight::link::raw::RawLink;
use pilotlight::link::{Direction, Tag};
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::{EmbeddedSigner, Signer, SignerContext, SignerSession};
use pilotlight::supervisor::{Inbound, Inbox, PeerSpec, Supervisor};
use pilotlight::telemetry::{Event, Tally, Telemetry};
use pilotlight::wire::{Init, Plane};
use rustix::time::{ClockId, clock_gettime};
use shake::{key, shake};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const SIZE: usize = 430;
/// A `channel_update`, which a link without a channel may carry.
const GOSSIP: u16 = 258;
/// Messages that one read brings: one, which is the worst, and what a full read of this size holds.
const BATCHES: [u64; 2] = [1, 32];
/// Encryptions between two rotations of a key are 1,000, and a message takes two.
const ROTATION: u64 = 500;
/// Messages of one measured stretch on a link.
const STRETCH: u64 = 5_000;
/// Rounds of which the medians are taken.
const ROUNDS: usize = 31;
/// The most that telemetry may take of a message.
const SHARE: f64 = 0.05;

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(now.tv_nsec).unwrap();
    Duration::new(u64::try_from(now.tv_sec).unwrap(), nanos)
}

fn message() -> Vec<u8> {
    let mut message = GOSSIP.to_be_bytes().to_vec();
    message.resize(SIZE, 7);
    message
}

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new().build_recorder()
}

/// What a link's task does for telemetry with `messages`, which come in batches.
fn operations(telemetry: &Telemetry, clock: &SystemClock, messages: u64, batch: u64) {
    let mut tally = Tally::default();
    for number in 1..=messages {
        tally.count(
            Direction::Inbound,
            black_box(Plane::Gossip),
            black_box(SIZE),
        );
        if number % batch == 0 {
            black_box(tally.frames(Direction::Inbound));
            telemetry.frames().add(&mut tally);
            telemetry.frames().gossip_came(clock.unix().as_secs());
        }
        if number % ROTATION == 0 {
            telemetry.emit(Event::KeyRotated {
                direction: Direction::Inbound,
                times: 1,
            });
        }
    }
}

/// Processor time of the operations for so many messages, with the daemon's recorder or with none.
fn time_operations(with: bool, messages: u64, batch: u64) -> Duration {
    let recorder = recorder();
    let clock = SystemClock::new();
    let run = || {
        let telemetry = Telemetry::new(Arc::new(SystemClock::new()));
        let started = cpu();
        operations(&telemetry, &clock, messages, batch);
        cpu() - started
    };
    if with {
        metrics::with_local_recorder(&recorder, run)
    } else {
        run()
    }
}

/// Processor time of decrypting so many messages: the least that any link does for one.
fn time_session(messages: u64) -> Duration {
    let (mut sender, mut receiver) = shake(&key(1), &key(2));
    let message = message();
    let mut wire = BytesMut::with_capacity(16 * (SIZE + FRAME_OVERHEAD));
    let mut spent = Duration::ZERO;
    let mut left = messages;
    while left > 0 {
        let now = left.min(16);
        for _ in 0..now {
            sender.seal(&message, &mut wire).unwrap();
        }
        let started = cpu();
        for _ in 0..now {
            black_box(receiver.open(&mut wire).unwrap().unwrap());
        }
        spent += cpu() - started;
        left -= now;
    }
    spent
}

/// A node with one gossip link, whose far side sends as many messages as it is asked for, on a thread of its own.
struct Line {
    runtime: Runtime,
    inbox: Inbox,
    asks: mpsc::UnboundedSender<u64>,
    recorder: Option<PrometheusRecorder>,
    _kept: (Supervisor, SignerSession),
}

impl Line {
    fn new(with: bool) -> Self {
        let recorder = with.then(recorder);
        let guard = recorder
            .as_ref()
            .map(|recorder| metrics::set_default_local_recorder(recorder));
        // All of the node runs on this thread: its processor time is the node's, and the recorder that is the thread's is too.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (asks, asked) = mpsc::unbounded_channel();
        let far = Arc::new(key(9));
        let id = far.node_id();
        let address = far_side(far, asked);
        let (inbox, kept) = runtime.block_on(node(id, address));
        drop(guard);
        Self {
            runtime,
            inbox,
            asks,
            recorder,
            _kept: kept,
        }
    }

    /// Processor time of receiving so many messages.
    fn time(&mut self, messages: u64) -> Duration {
        let _guard = self
            .recorder
            .as_ref()
            .map(|recorder| metrics::set_default_local_recorder(recorder));
        self.asks.send(messages).unwrap();
        let inbox = &mut self.inbox;
        self.runtime.block_on(async {
            let started = cpu();
            let mut come = 0;
            while come < messages {
                if let Inbound::Message(message) = inbox.recv().await.unwrap() {
                    black_box(message);
                    come += 1;
                }
            }
            cpu() - started
        })
    }

    /// The same for messages that come one at a time, each after the one before was received.
    fn time_singly(&mut self, messages: u64) -> Duration {
        (0..messages).map(|_| self.time(1)).sum()
    }
}

/// Starts a node, and waits until its link is up.
async fn node(peer: NodeId, address: std::net::SocketAddr) -> (Inbox, (Supervisor, SignerSession)) {
    let signer = Arc::new(EmbeddedSigner::from_key(key(8)));
    let context = SignerContext::new(signer.node_id());
    let (supervisor, mut inbox) = Supervisor::builder(context.clone()).start().await.unwrap();
    let proof = context.prove(&*signer, &mut [5; 32]).await.unwrap();
    let session = context.attach(proof, signer).unwrap();
    supervisor.declare_channel_peers([]).await.unwrap();
    let spec = PeerSpec::new(peer, address).tagged(Tag::GossipOnly);
    supervisor.add_peer(spec).await.unwrap();
    while !matches!(inbox.recv().await.unwrap(), Inbound::Up { .. }) {}
    (inbox, (supervisor, session))
}

fn far_side(key: Arc<LocalKey>, mut asked: mpsc::UnboundedReceiver<u64>) -> std::net::SocketAddr {
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            let (socket, _) = listener.accept().await.unwrap();
            let mut link = RawLink::accept(socket, key).await.unwrap();
            link.send(&Init::gossip(vec![]).encode()).await.unwrap();
            let message = message();
            while let Some(mut left) = asked.recv().await {
                while left > 0 {
                    let now = left.min(64);
                    for _ in 0..now {
                        link.queue(&message).unwrap();
                    }
                    // The bench is over when the node is gone.
                    if link.flush().await.is_err() {
                        return;
                    }
                    left -= now;
                }
            }
        });
    });
    address.recv().unwrap()
}

fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("telemetry");
    for batch in BATCHES {
        for (name, with) in [("recorder", true), ("none", false)] {
            let id = BenchmarkId::new(format!("operations_{name}"), batch);
            group.bench_function(id, |b| {
                b.iter_custom(|rounds| time_operations(with, rounds, batch))
            });
        }
    }
    group.bench_function("session_open", |b| b.iter_custom(time_session));
    for (name, with) in [("recorder", true), ("none", false)] {
        let mut line = Line::new(with);
        group.bench_function(format!("link_{name}"), |b| {
            b.iter_custom(|rounds| line.time(rounds))
        });
    }
    group.finish();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Nanoseconds a message.
fn each(spent: Duration, messages: u64) -> f64 {
    spent.as_secs_f64() * 1e9 / messages as f64
}

/// Telemetry's share of a message, from rounds that alternate, so that what disturbs one disturbs its neighbours too: of the session's part
/// where messages come 32 at once, and of the link's where they come one at a time. The greater one.
fn shares(rounds: usize, stretch: u64) -> f64 {
    let (mut with, mut without) = (Line::new(true), Line::new(false));
    let mut columns: [Vec<f64>; 6] = Default::default();
    let mut ratios: [Vec<f64>; 4] = Default::default();
    let singles = stretch / 20;
    for _ in 0..rounds {
        let [one, many] = BATCHES.map(|batch| each(time_operations(true, stretch, batch), stretch));
        let session = each(time_session(stretch), stretch);
        let flood = each(with.time(stretch), stretch);
        let bare = each(without.time(stretch), stretch);
        let single = each(with.time_singly(singles), singles);
        for (column, value) in columns
            .iter_mut()
            .zip([one, many, session, flood, bare, single])
        {
            column.push(value);
        }
        for (column, value) in
            ratios
                .iter_mut()
                .zip([many / session, many / flood, one / single, flood / bare])
        {
            column.push(value);
        }
    }
    let [one, many, session, flood, bare, single] = columns.map(median);
    let [of_session, of_flood, of_single, recorder] = ratios.map(median);
    let percent = |share: f64| share * 100.0;
    println!("a message of {SIZE} bytes, medians of {rounds} rounds of {stretch}, processor time:");
    println!("  telemetry, 32 messages at once     {many:8.1} ns");
    println!("  telemetry, one at a time           {one:8.1} ns");
    println!("  the session's decryption alone     {session:8.1} ns");
    println!(
        "  received on a link, many at once   {flood:8.1} ns, {bare:8.1} ns without a recorder (x {recorder:.3})"
    );
    println!("  received on a link, one at a time  {single:8.1} ns");
    println!(
        "telemetry's share: many at once {:.2} % of the session's part and {:.2} % of the link's, one at a time {:.2} % of the link's",
        percent(of_session),
        percent(of_flood),
        percent(of_single)
    );
    of_session.max(of_single)
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    measure(&mut criterion);
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--test") {
        shares(1, 100);
        return;
    }
    let share = shares(ROUNDS, STRETCH);
    assert!(share < SHARE, "telemetry takes {share:.3} of a message");
}
