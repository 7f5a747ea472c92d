//! What a signer far away costs, and what strangers can make it cost: a relight of 1,000 channel peers behind 50 ms of network, and
//! floods of 10,000 strangers' acts one a second.
//!
//! `cargo bench --bench signer`; one part with `-- relight` or `-- flood`, a small run with `-- --test`. Settings, by environment:
//! `PILOTLIGHT_BENCH_PEERS` (1000), `…_ROUNDS` (5), `…_RATE` (10000 acts a second), `…_SECONDS` (20).
//!
//! Real parts on loopback: gateway, agent, TLS, a proxy that delays by 25 ms each way, BOLT 8 peers who give 5 s for an act. Node and
//! peers are in this process, the strangers in a child process of it. A part fails if a promise is broken (an act deadline missed, a
//! lapse, a signer call while away, memory that grows); times are told as ratios, because they are a machine's.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

#[path = "signer/flood.rs"]
mod flood;
#[path = "signer/meters.rs"]
mod meters;
#[path = "../tests/support/proxy.rs"]
mod proxy;
#[path = "../tests/support/station.rs"]
mod station;
#[path = "../tests/support/watched.rs"]
mod watched;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flood::{Child, Spread};
use meters::Counts;
use pilotlight::clock::SystemClock;
use pilotlight::limits;
use pilotlight::link::Tag;
use pilotlight::signer::agent::Agent;
use pilotlight::signer::{EmbeddedSigner, Epoch, LapseReason, SignerContext};
use pilotlight::supervisor::Supervisor;
use pilotlight::telemetry::{Event, Next, Telemetry};
use proxy::Proxy;
use station::{Gossip, OneAtATime, Peers, Station, key, read_inbox, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use watched::Watched;

const ONE_WAY: Duration = Duration::from_millis(25);
const RTT: Duration = Duration::from_millis(50);
/// The node's key, and the first of the peers'.
const NODE: u64 = 1;
const CHANNEL: u64 = 1_000;
const GOSSIP: u64 = 100_000;
/// Live gossip links during a flood, and how often each brings a message.
const GOSSIP_PEERS: usize = 20;
const GOSSIP_EVERY: Duration = Duration::from_millis(10);
/// More than the resident memory of a process moves by itself: arenas, buffers of links that came back.
const FLAT: u64 = 24 << 20;

struct Settings {
    peers: usize,
    rounds: usize,
    rate: u32,
    seconds: u64,
    filter: Option<String>,
    test: bool,
}

impl Settings {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let test = arguments.iter().any(|argument| argument == "--test");
        let filter = arguments
            .into_iter()
            .find(|argument| !argument.starts_with('-'));
        let setting = |name: &str, full: u64, small: u64| {
            let given = std::env::var(format!("PILOTLIGHT_BENCH_{name}")).ok();
            let default = if test { small } else { full };
            given.map_or(default, |text| text.parse().expect(name))
        };
        Self {
            peers: setting("PEERS", 1000, 100) as usize,
            rounds: setting("ROUNDS", 5, 1) as usize,
            rate: setting("RATE", 10_000, 2_000) as u32,
            seconds: setting("SECONDS", 20, 2),
            filter,
            test,
        }
    }

    fn wants(&self, part: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| part.contains(filter.as_str()))
    }
}

fn main() {
    if let Some(order) = std::env::var_os(flood::ORDER) {
        flood::run(order.to_str().unwrap());
        return;
    }
    let settings = Settings::read();
    raise_descriptors(settings.peers);
    let counts = Counts::install();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine: {cores} cores, load {}", load());
    if settings.wants("relight") {
        runtime.block_on(relight(&settings, &counts));
    }
    if settings.wants("flood") {
        for spread in [Spread::One, Spread::Loopback] {
            runtime.block_on(flooded(&settings, &counts, spread));
        }
    }
    println!("load at the end: {}", load());
    if settings.test {
        println!("Success");
    }
}

// --- a node that is lit -------------------------------------------------------------------------------------------------

/// A node with channel peers, and a signer 50 ms away that computes one ECDH at a time.
struct Lit {
    station: Station,
    channel: Peers,
    heard: Arc<Watched<Gossip>>,
    holder: Arc<OneAtATime>,
    proxy: Proxy,
    agent: Agent,
    relights: mpsc::UnboundedReceiver<Relit>,
    epoch: u64,
}

#[derive(Debug, Clone, Copy)]
struct Relit {
    took: Duration,
    up: usize,
    failed: usize,
}

impl Lit {
    async fn new(peers: usize, first: u64) -> (Self, Duration) {
        let clock = Arc::new(SystemClock::new());
        let window = limits::LIVENESS_WINDOW;
        let (station, inbox) = Station::open(&key(NODE), window, clock).await;
        let relights = relights(&station.telemetry);
        let channel = Peers::listen(first, peers).await;
        station.want(&channel, Tag::ChannelBearing).await;
        let proxy = Proxy::start(station.gateway.local_addr());
        proxy.delay(ONE_WAY);
        let holder = OneAtATime::quick(key(NODE));
        let agent = station.agent(proxy.address, holder.clone());
        let mut lit = Self {
            station,
            channel,
            heard: read_inbox(inbox),
            holder,
            proxy,
            agent,
            relights,
            epoch: 1,
        };
        let took = lit.relit().await;
        (lit, took)
    }

    /// How long the relight took that ends now.
    async fn relit(&mut self) -> Duration {
        let relit = soon("a relight", self.relights.recv()).await.unwrap();
        let Relit { took, up, failed } = relit;
        assert_eq!((up, failed), (self.channel.places.len(), 0));
        took
    }

    /// Ends the session; the agent dials again, and all come back.
    async fn again(&mut self) -> Duration {
        self.lapse();
        self.relit().await
    }

    fn lapse(&mut self) {
        let _ = self.station.context.lapse(LapseReason::Requested).unwrap();
        self.epoch += 1;
    }

    /// Calls that the signer has had, and those that its agent has answered.
    fn called(&self) -> (usize, u64) {
        (self.holder.asked(), self.agent.report().ecdh)
    }

    /// The same, when what was on its way to the signer at the end of a session has come: strangers of a flood are told of no end.
    async fn settled(&self) -> (usize, u64) {
        let mut called = self.called();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let before = std::mem::replace(&mut called, self.called());
            if before == called {
                return called;
            }
        }
    }

    /// No session has ended but those that were told to.
    fn no_other_lapse(&self) {
        let state = self.station.context.state();
        assert_eq!(state.live().map(Epoch::get), Some(self.epoch), "a lapse");
        let last = self.station.context.last_lapse();
        assert!(last.is_none_or(|lapse| lapse.reason == LapseReason::Requested));
    }

    /// No peer has waited for longer than an act may take.
    fn no_act_was_late(&self) {
        self.channel.seen.read(|seen| {
            assert_eq!(seen.late, 0, "act deadlines missed: {:?}", seen.failed);
        });
    }
}

/// Follows the events on a thread of its own, which the node's tasks cannot starve.
fn relights(telemetry: &Telemetry) -> mpsc::UnboundedReceiver<Relit> {
    let mut events = telemetry.subscribe();
    let (tell, told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            while let Some(next) = events.next().await {
                let Next::Event(recorded) = next else {
                    continue;
                };
                if let Event::Relit {
                    took: Some(took),
                    up,
                    failed,
                    ..
                } = recorded.event
                    && tell.send(Relit { took, up, failed }).is_err()
                {
                    return;
                }
            }
        });
    });
    told
}

// --- relight ------------------------------------------------------------------------------------------------------------

async fn relight(settings: &Settings, counts: &Counts) {
    let peers = settings.peers;
    let ecdh = bare_ecdh();
    let rtt = round_trip().await;
    println!(
        "\nrelight: {peers} channel peers, {} rounds",
        settings.rounds
    );
    row("one ECDH on this machine, bare", ecdh);
    row("a round trip through the proxy", rtt);

    let near = near(settings).await;
    row("relight, signer in the process", near);

    let failures = counts.failed_handshakes();
    let (mut lit, first) = Lit::new(peers, CHANNEL).await;
    let mut took = vec![first];
    while took.len() < settings.rounds {
        took.push(lit.again().await);
    }
    lit.no_other_lapse();
    lit.no_act_was_late();
    assert_eq!(counts.failed_handshakes(), failures, "{counts:?}");
    let answered = lit.holder.answered();
    assert!(answered >= took.len() * peers, "{answered} ECDH");
    let far = median(&mut took);
    println!("  each round: {took:?}");
    row("relight, signer 50 ms away", far);
    let least = RTT + ecdh * peers as u32;
    row("RTT + peers × ECDH", least);
    let one_by_one = RTT * peers as u32;
    row("one at a time: peers × RTT", one_by_one);
    let added = far.saturating_sub(near);
    row("what the distance adds", added);
    ratio("relight / (RTT + peers × ECDH)", far, least);
    ratio("added / (RTT + peers × ECDH)", added, least);
    ratio("one at a time / relight", one_by_one, far);
    println!(
        "  acts that missed a deadline: 0; handshakes that failed: 0 of {}",
        took.len() * peers
    );
}

/// The same with the key in the process: what the handshakes themselves cost, at both ends.
async fn near(settings: &Settings) -> Duration {
    let signer = Arc::new(EmbeddedSigner::from_key(key(NODE)));
    let context = SignerContext::new(key(NODE).node_id());
    let builder = Supervisor::builder(context.clone()).seed(7);
    let (supervisor, inbox) = builder.start().await.unwrap();
    let _heard = read_inbox(inbox);
    let mut relights = relights(&supervisor.telemetry());
    let channel = Peers::listen(CHANNEL, settings.peers).await;
    for (id, address) in &channel.places {
        let spec = pilotlight::supervisor::PeerSpec::new(*id, *address).tagged(Tag::ChannelBearing);
        supervisor.add_peer(spec).await.unwrap();
    }
    supervisor.peers().await.unwrap();
    let mut took = Vec::new();
    for round in 1..=settings.rounds {
        let mut entropy = [round as u8; 32];
        let proof = context.prove(&*signer, &mut entropy).await.unwrap();
        let session = context.attach(proof, signer.clone()).unwrap();
        let relit = soon("a relight", relights.recv()).await.unwrap();
        assert_eq!((relit.up, relit.failed), (settings.peers, 0));
        took.push(relit.took);
        session.lapse(LapseReason::Requested);
        let ended = settings.peers * round;
        channel.until("torn down", |seen| seen.ended == ended).await;
    }
    median(&mut took)
}

fn bare_ecdh() -> Duration {
    let (ours, theirs) = (key(NODE), key(2).point());
    let mut took: Vec<_> = (0..500)
        .map(|_| {
            let began = Instant::now();
            let _ = std::hint::black_box(ours.ecdh(std::hint::black_box(&theirs)));
            began.elapsed()
        })
        .collect();
    median(&mut took)
}

async fn round_trip() -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    proxy.delay(ONE_WAY);
    let mut near = TcpStream::connect(proxy.address).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    let mut took = Vec::new();
    for _ in 0..11 {
        let began = Instant::now();
        near.write_all(&[0]).await.unwrap();
        let byte = far.read_u8().await.unwrap();
        far.write_all(&[byte]).await.unwrap();
        near.read_u8().await.unwrap();
        took.push(began.elapsed());
    }
    median(&mut took)
}

// --- floods -------------------------------------------------------------------------------------------------------------

async fn flooded(settings: &Settings, counts: &Counts, spread: Spread) {
    let Settings {
        peers,
        rate,
        seconds,
        rounds,
        ..
    } = *settings;
    println!(
        "\nflood from {spread}: {rate} acts one a second for {seconds} s, {peers} channel peers, {GOSSIP_PEERS} gossip links"
    );
    let (mut lit, first) = Lit::new(peers, CHANNEL).await;
    let mut calm = vec![first];
    while calm.len() < rounds {
        calm.push(lit.again().await);
    }
    let calm = median(&mut calm);
    row("relight without a flood", calm);
    let node = lit.station.supervisor.listen(([127, 0, 0, 1], 0).into());
    let node = node.await.unwrap();
    let target = (node, key(NODE).node_id());

    let gossip = Talk::start(&lit).await;
    let half = Duration::from_secs(seconds) / 2;

    // The signer is there: first left alone with the flood, then it leaves and returns in the midst of it.
    let before = (counts.all(), lit.holder.asked(), resident());
    let mut child = Child::start(target, spread, rate, seconds);
    child.has_begun().await;
    tokio::time::sleep(half).await;
    lit.no_other_lapse();
    let calls = lit.holder.asked() - before.1;
    let middle = resident();
    let mut stormy = Vec::new();
    while stormy.len() < rounds && !child.is_over() {
        stormy.push(lit.again().await);
    }
    let report = child.ended().await;
    lit.no_other_lapse();
    lit.no_act_was_late();
    println!("  signer there: {report}");
    println!(
        "    signer calls for strangers in the first {half:?}: {calls}, {:.0} a second",
        calls as f64 / half.as_secs_f64()
    );
    counts.print_since(&before.0);
    memory(before.2, middle, resident());
    println!("    each round in the flood: {stormy:?}");
    let stormy = median(&mut stormy);
    row("relight in the flood", stormy);
    ratio("relight in the flood / without", stormy, calm);
    gossip.goes_on().await;

    // The signer is away: the agent is alive and dials, and the network lets nothing through.
    lit.proxy.fall_silent();
    lit.lapse();
    let called = lit.settled().await;
    let before = (counts.all(), resident());
    let mut child = Child::start(target, spread, rate, seconds);
    child.has_begun().await;
    tokio::time::sleep(half).await;
    let middle = resident();
    gossip.goes_on().await;
    assert!(!lit.station.context.is_live());
    assert_eq!(lit.called(), called, "the signer was called");
    lit.proxy.cut();
    lit.proxy.speak();
    let returned = lit.relit().await;
    let was_flooded = !child.is_over();
    let report = child.ended().await;
    lit.no_other_lapse();
    lit.no_act_was_late();
    println!("  signer away: {report}");
    println!("    signer calls while away: 0");
    counts.print_since(&before.0);
    memory(before.1, middle, resident());
    row("relight at the return", returned);
    ratio("relight at the return / without", returned, calm);
    println!("    the flood went on at the return: {was_flooded}");
    gossip.end().await;
}

/// Gossip links that bring a message every 10 ms each, in order.
struct Talk {
    peers: Arc<Peers>,
    heard: Arc<Watched<Gossip>>,
    telling: tokio::task::JoinHandle<()>,
    said: Arc<std::sync::atomic::AtomicU64>,
}

impl Talk {
    async fn start(lit: &Lit) -> Self {
        let peers = Arc::new(Peers::listen(GOSSIP, GOSSIP_PEERS).await);
        lit.station.want(&peers, Tag::GossipOnly).await;
        peers
            .until("gossip links", |seen| seen.ups == GOSSIP_PEERS)
            .await;
        let said = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let (told, say) = (Arc::clone(&said), Arc::clone(&peers));
        let telling = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(GOSSIP_EVERY);
            loop {
                ticks.tick().await;
                let next = told.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                say.gossip_up_to(next);
            }
        });
        Self {
            peers,
            heard: Arc::clone(&lit.heard),
            telling,
            said,
        }
    }

    /// All that has been said so far arrives, in order, on the links of the start.
    async fn goes_on(&self) {
        let said = self.said.load(std::sync::atomic::Ordering::SeqCst);
        let ids: Vec<_> = self.peers.places.iter().map(|(id, _)| *id).collect();
        let heard = |of: &HashMap<_, u64>| ids.iter().all(|id| of.get(id) >= Some(&said));
        self.heard
            .until_true("gossip goes on", |gossip| heard(&gossip.of))
            .await;
        assert_eq!(self.heard.read(|gossip| gossip.out_of_turn), 0);
        let seen = self.peers.seen.read(|seen| (seen.ups, seen.ended));
        assert_eq!(seen, (GOSSIP_PEERS, 0), "gossip links have ended");
    }

    async fn end(self) {
        self.telling.abort();
        self.goes_on().await;
        let said = self.said.load(std::sync::atomic::Ordering::SeqCst);
        println!(
            "  gossip links: {GOSSIP_PEERS} of {GOSSIP_PEERS} still up, {said} messages on each, none lost"
        );
    }
}

// --- figures ------------------------------------------------------------------------------------------------------------

fn median(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

fn row(what: &str, took: Duration) {
    println!("  {what:<34} {:>10.3} ms", took.as_secs_f64() * 1000.0);
}

fn ratio(what: &str, of: Duration, to: Duration) {
    println!(
        "  {what:<34} {:>10.2} ×",
        of.as_secs_f64() / to.as_secs_f64()
    );
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

fn memory(before: u64, middle: u64, after: u64) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "    resident: {:.1} MiB before, {:.1} in the middle, {:.1} after",
        mib(before),
        mib(middle),
        mib(after)
    );
    assert!(after < middle + FLAT, "memory grows with the flood");
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// A link takes two descriptors here, its listener one more.
fn raise_descriptors(links: usize) {
    let wanted = links as u64 * 3 + 4000;
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
