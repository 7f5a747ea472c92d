//! Many links at once: what they hold while they idle, how soon the far sides see them all end, whether a ping's round trip grows with
//! them or with others' handshakes, and how long a fence, a relight and a start take.
//!
//! Each measurement runs in a process of its own, with the far sides in another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lightning_net_tokio::SocketDescriptor;
use pilotlight::book::{Book, PeerRecord, SqliteBook};
use pilotlight::link::{LinkHandle, Tag};
use pilotlight::signer::{LapseReason, SignerContext};
use pilotlight::supervisor::{PeerSpec, Redial, Supervisor};
use pilotlight::telemetry::{Event, Next};
use tokio::runtime::Runtime;

use crate::Effort;
use crate::bare;
use crate::child::{Child, measure, processor_time, raise_descriptors};
use crate::crowd::{address, key};
use crate::ldk::Ldk;
use crate::node::{Distant, Ours, Running, Stack, ldk_dial, ldk_listen, runtime, runtime_of};
use crate::report::{Report, Row, Target, percentile};

/// BOLT 2 `revoke_and_ack`.
const CHANNEL: u16 = 133;
const NODE: u64 = 20_000_000;
/// Links that are kept busy: a hundred are as busy as the machine gets.
const BUSY: u64 = 100;

/// A measurement in a process of its own. The figures' meaning is the asker's.
pub(crate) fn run(what: &str, stack: Stack, number: u64) -> Vec<f64> {
    match what {
        "idle" => measure_idle(stack, number),
        "teardown" => measure_teardown(stack, number),
        "closing" => measure_closing(stack, number),
        "pings" => measure_pings(stack, number),
        "signer" => measure_signer(stack, number),
        "fence" => measure_fence(number),
        "fence_apart" => measure_fence_apart(number),
        "gates" => bare::measure_gates(number),
        "gates_apart" => bare::measure_gates_apart(number, BUSY),
        "resets" => bare::measure_resets(number),
        "closings" => bare::measure_closings(number),
        "waits" => bare::measure_waits(number),
        "relight" => measure_relight(number),
        "start" => measure_start(number),
        "scale" => measure_scale(number),
        _ => panic!("measure {what}?"),
    }
}

/// A node with links to a crowd.
struct Network {
    runtime: Runtime,
    node: Running,
    crowd: Child,
    port: u16,
    links: u64,
}

impl Network {
    /// A node that is about to know the crowd.
    fn new(stack: Stack, links: u64, signer: Arc<Distant>) -> Self {
        Self::on(runtime(), stack, links, signer)
    }

    fn on(runtime: Runtime, stack: Stack, links: u64, signer: Arc<Distant>) -> Self {
        raise_descriptors(links);
        let node = runtime.block_on(Running::new(stack, signer));
        let mut crowd = Child::spawn(&format!("crowd {links}"));
        let port = crowd.hear().parse().unwrap();
        Self {
            runtime,
            node,
            crowd,
            port,
            links,
        }
    }

    /// With every link up, and at rest.
    fn up(stack: Stack, links: u64, tag: Tag) -> Self {
        let mut network = Self::new(stack, links, Distant::new(NODE, Duration::ZERO, false));
        network.introduce(tag);
        network.light();
        network.until_up(1);
        std::thread::sleep(Duration::from_millis(500));
        network
    }

    /// Tells our node of all peers; LDK has no such list.
    fn introduce(&mut self, tag: Tag) {
        let Running::Ours(node) = &self.node else {
            return;
        };
        self.runtime.block_on(async {
            for number in 1..=self.links {
                let address = address(number, self.port);
                let spec = PeerSpec::new(key(number).node_id(), address).tagged(tag);
                node.supervisor.add_peer(spec).await.unwrap();
            }
            // Commands are done in order: when this one is answered, every peer is known.
            let known = node.supervisor.peers().await.unwrap().len();
            assert_eq!(known as u64, self.links);
        });
    }

    /// Has every link come up. Ours: by attaching the signer.
    fn light(&mut self) -> Duration {
        let start = Instant::now();
        match &mut self.node {
            Running::Ours(node) => self.runtime.block_on(node.attach()),
            Running::Ldk(node) => {
                let dials = dial_all(node, self.links, self.port);
                self.runtime.block_on(dials);
            }
        }
        start.elapsed()
    }

    /// Waits until the far sides have seen `times` beginnings of every link.
    fn until_up(&mut self, times: u64) {
        let wanted = times * self.links;
        assert_eq!(self.crowd.ask(&format!("up {wanted}")), "yes");
    }

    /// Waits until neither side does anything: they have used no tick of a processor for a while.
    fn until_at_rest(&self) {
        let used = || processor_time("self") + self.crowd.processor_time();
        // Ten seconds at most: a machine that never rests is measured as it is.
        for _ in 0..50 {
            let before = used();
            std::thread::sleep(Duration::from_millis(200));
            if used() <= before {
                return;
            }
        }
    }

    fn until_ended(&mut self, times: u64) {
        let wanted = times * self.links;
        assert_eq!(self.crowd.ask(&format!("ended {wanted}")), "yes");
    }

    /// Ends every link: ours by a lapse.
    fn end_all(&mut self) {
        match &mut self.node {
            Running::Ours(node) => {
                let session = node.session.take().unwrap();
                let _ = session.lapse(LapseReason::Requested).unwrap();
            }
            Running::Ldk(node) => {
                // Its descriptors wake tasks.
                let _inside = self.runtime.enter();
                node.manager.disconnect_all_peers();
            }
        }
    }

    fn ours(&mut self) -> (&Runtime, &mut Ours) {
        match &mut self.node {
            Running::Ours(node) => (&self.runtime, node),
            Running::Ldk(_) => panic!("not a node of ours"),
        }
    }
}

async fn dial_all(node: &Ldk<SocketDescriptor>, links: u64, port: u16) {
    let up = || node.messages.peers.load(Ordering::Acquire);
    for number in 1..=links {
        // About as many at once as our node dials.
        while number - up() > 256 {
            node.messages.news.notified().await;
        }
        ldk_dial(node, key(number).node_id(), address(number, port)).await;
    }
    while up() < links {
        node.messages.news.notified().await;
    }
}

/// Ends of TCP connections that the kernel keeps in this network namespace.
pub(crate) struct Connections(u64);

impl Connections {
    /// Other programs' connections that may come meanwhile.
    const OTHERS: u64 = 20;

    /// Established ones, and, since Linux 6.10, those whose far side has closed: an end is closed when its FIN or RST has left.
    pub(crate) fn count() -> Self {
        let table = std::fs::read_to_string("/proc/net/snmp").unwrap();
        let mut lines = table.lines().filter(|line| line.starts_with("Tcp: "));
        let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
        let place = names.split(' ').position(|name| name == "CurrEstab");
        let number = numbers.split(' ').nth(place.unwrap()).unwrap();
        Self(number.parse().unwrap())
    }

    /// Waits until so many ends are closed, but for a few.
    pub(crate) fn until_fewer_by(self, ends: u64) {
        let left = (self.0 + Self::OTHERS).saturating_sub(ends);
        let start = Instant::now();
        while Self::count().0 > left {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "other programs open connections: {} ends are left",
                Self::count().0
            );
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Bytes of this process that are in memory and its own.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024.0
}

/// Waits until the process holds the same for a second: handshakes are over, buffers are given back.
pub(crate) fn settled() -> f64 {
    let mut before = resident();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = resident();
        if (now - before).abs() < 64.0 * 1024.0 {
            return now;
        }
        before = now;
    }
}

/// Bytes a link, and bytes a peer that is only known.
fn measure_idle(stack: Stack, links: u64) -> Vec<f64> {
    let signer = Distant::new(NODE, Duration::ZERO, false);
    let mut network = Network::new(stack, links, signer);
    let before = settled();
    network.introduce(Tag::GossipOnly);
    let known = settled();
    network.light();
    network.until_up(1);
    let idle = settled();
    let each = |bytes: f64| bytes / links as f64;
    vec![each(idle - known), each(known - before)]
}

/// Milliseconds: of the call that ends all links, and until the last far side has seen its end.
fn measure_teardown(stack: Stack, links: u64) -> Vec<f64> {
    let mut network = Network::up(stack, links, Tag::ChannelBearing);
    let start = Instant::now();
    network.end_all();
    let call = start.elapsed();
    network.until_ended(1);
    vec![
        call.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3,
    ]
}

/// Milliseconds until the kernel has closed the node's end of the last connection, while the far sides are stopped: as where they have
/// processors of their own.
fn measure_closing(stack: Stack, links: u64) -> Vec<f64> {
    let mut network = Network::up(stack, links, Tag::ChannelBearing);
    network.crowd.stop();
    // A reset closes the far end too, an orderly end leaves it for the far side to close.
    let ends = match stack {
        Stack::Ours => 2 * links,
        Stack::Ldk => links,
    };
    let open = Connections::count();
    let start = Instant::now();
    network.end_all();
    open.until_fewer_by(ends);
    vec![start.elapsed().as_secs_f64() * 1e3]
}

/// The median round trip of a peer's pings, in µs, among so many links.
fn measure_pings(stack: Stack, links: u64) -> Vec<f64> {
    let mut network = Network::up(stack, links, Tag::GossipOnly);
    let _warm: Vec<f64> = serde_json::from_str(&network.crowd.ask("ping 100")).unwrap();
    let took: Vec<f64> = serde_json::from_str(&network.crowd.ask("ping 800")).unwrap();
    vec![percentile(&took, 0.5)]
}

/// Round trips of a live peer's pings in µs: p50 and the longest while so many strangers' handshakes wait 200 ms for the key, and both
/// before.
fn measure_signer(stack: Stack, strangers: u64) -> Vec<f64> {
    let signer = Distant::new(NODE, Duration::ZERO, true);
    let mut network = Network::new(stack, 1, signer);
    network.introduce(Tag::GossipOnly);
    network.light();
    network.until_up(1);
    let (address, id) = match &network.node {
        Running::Ours(node) => network.runtime.block_on(async {
            let address = node.supervisor.listen("127.0.0.1:0".parse().unwrap()).await;
            (address.unwrap(), node.supervisor.node_id())
        }),
        Running::Ldk(node) => {
            node.keys.slow.store(true, Ordering::Relaxed);
            let address = network.runtime.block_on(ldk_listen(node));
            (address, node.node_id())
        }
    };
    let quiet: Vec<f64> = serde_json::from_str(&network.crowd.ask("ping 200")).unwrap();
    let order = format!("strangers {address} {id} {strangers}");
    let took: Vec<f64> = serde_json::from_str(&network.crowd.ask(&order)).unwrap();
    let both = |took: &[f64]| [percentile(took, 0.5), percentile(took, 1.0)];
    [both(&took), both(&quiet)].concat()
}

/// Lapses of which the fence is measured: fewer where each tears down thousands of links.
fn fences_of(links: u64) -> u64 {
    if links > 1000 { 6 } else { 60 }
}

/// The same where each thread has a processor: a few of a hundred are the kernel's own doing, and p99 must tell how few.
fn fences_apart_of(links: u64) -> u64 {
    if links > 1000 { 6 } else { 300 }
}

/// Microseconds of lapses' fences: the idle ones' first, then as many with every link busy.
fn measure_fence(links: u64) -> Vec<f64> {
    let signer = Distant::new(NODE, Duration::ZERO, false);
    let mut network = Network::new(Stack::Ours, links, signer);
    network.introduce(Tag::ChannelBearing);
    let samples = fences_of(links);
    let fence = |sample| {
        network.light();
        network.until_up(sample + 1);
        let busy = (sample >= samples).then(|| busy(&mut network));
        if busy.is_some() {
            // The lapse shall not come just when this thread has had its processor back.
            std::thread::sleep(Duration::from_millis(25));
        } else {
            // The far sides have seen their links up before the node has done all that belongs to it.
            network.until_at_rest();
        }
        let fence = lapse(&mut network);
        drop(busy);
        network.until_ended(sample + 1);
        fence
    };
    (0..2 * samples).map(fence).collect()
}

/// The same with busy links, where each thread that runs has a processor: the node has one for its links, and the far sides are stopped while
/// the kernel takes what is sent to them. On two processors nobody else has any work. Only lapses of links that were busy: a machine that
/// has other things to do leaves the node without a processor now and then.
fn measure_fence_apart(links: u64) -> Vec<f64> {
    let signer = Distant::new(NODE, Duration::ZERO, false);
    let mut network = Network::on(runtime_of(1), Stack::Ours, links, signer);
    network.introduce(Tag::ChannelBearing);
    let fence = |sample| {
        network.light();
        network.until_up(sample + 1);
        network.crowd.stop();
        let busy = busy(&mut network);
        let before = busy.written();
        std::thread::sleep(Duration::from_millis(5));
        let is_busy = busy.written() > before;
        let fence = lapse(&mut network);
        drop(busy);
        network.crowd.go_on();
        network.until_ended(sample + 1);
        is_busy.then_some(fence)
    };
    (0..fences_apart_of(links)).filter_map(fence).collect()
}

/// Lapses the session. Microseconds until the fence was up.
fn lapse(network: &mut Network) -> f64 {
    let (_, node) = network.ours();
    let session = node.session.take().unwrap();
    let lapse = session.lapse(LapseReason::Requested).unwrap();
    lapse.fence.as_secs_f64() * 1e6
}

/// Links that are written to as fast as it goes, until this is dropped.
struct Busy {
    stop: Arc<AtomicBool>,
    handles: Vec<LinkHandle>,
}

impl Busy {
    /// Bytes that have left on them.
    fn written(&self) -> u64 {
        self.handles.iter().map(LinkHandle::bytes_written).sum()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// So many of the node's links, or all. The far sides may have seen their beginnings a moment before the node.
fn handles(network: &mut Network, most: u64) -> Vec<LinkHandle> {
    let links = network.links.min(most);
    let (runtime, node) = network.ours();
    runtime.block_on(async {
        let mut handles = Vec::new();
        for number in 1..=links {
            let peer = key(number).node_id();
            handles.push(loop {
                if let Some(handle) = node.supervisor.link(peer).await.unwrap() {
                    break handle;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            });
        }
        handles
    })
}

fn busy(network: &mut Network) -> Busy {
    let stop = Arc::new(AtomicBool::new(false));
    let mut message = CHANNEL.to_be_bytes().to_vec();
    message.resize(430, 0);
    let message = Bytes::from(message);
    // The others are there.
    let handles = handles(network, BUSY);
    let (runtime, _) = network.ours();
    for chunk in handles.chunks(handles.len().div_ceil(2)) {
        let (chunk, stop, message) = (chunk.to_vec(), Arc::clone(&stop), message.clone());
        runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                for handle in &chunk {
                    // A full queue is as busy as it gets.
                    let _ = handle.try_send(message.clone());
                }
                tokio::task::yield_now().await;
            }
        });
    }
    runtime.block_on(async {
        while handles.iter().any(|handle| handle.bytes_written() < 10_000) {
            tokio::task::yield_now().await;
        }
    });
    Busy { stop, handles }
}

/// Milliseconds from the attach of a signer 50 ms away until every link is up again, as the node says.
fn measure_relight(links: u64) -> Vec<f64> {
    let signer = Distant::new(NODE, Duration::from_millis(50), false);
    let mut network = Network::new(Stack::Ours, links, signer);
    network.introduce(Tag::ChannelBearing);
    network.light();
    network.until_up(1);
    let (_, node) = network.ours();
    drop(node.session.take());
    network.until_ended(1);
    let (runtime, node) = network.ours();
    let took = runtime.block_on(async {
        let mut events = node.supervisor.events();
        node.attach().await;
        loop {
            // The end of a relight is the newest event, so it is never among those that a slow listener misses.
            if let Next::Event(recorded) = events.next().await.unwrap()
                && let Event::Relit {
                    took, up, failed, ..
                } = recorded.event
            {
                assert_eq!((up as u64, failed), (links, 0));
                return took.unwrap();
            }
        }
    });
    network.until_up(2);
    vec![took.as_secs_f64() * 1e3]
}

/// Milliseconds until a node with so many peers in its book, and with none, knows them.
fn measure_start(peers: u64) -> Vec<f64> {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let start = |book: &str| {
        let path = folder.path().join(book);
        runtime.block_on(async {
            let start = Instant::now();
            let context = SignerContext::new(key(NODE).node_id());
            let book = Arc::new(SqliteBook::open(path).unwrap());
            let builder = Supervisor::builder(context).redial(Redial::Hold);
            let (supervisor, _inbox) = builder.book(book).start().await.unwrap();
            let known = supervisor.peers().await.unwrap().len();
            (start.elapsed().as_secs_f64() * 1e3, known as u64)
        })
    };
    let full = SqliteBook::open(folder.path().join("full")).unwrap();
    runtime.block_on(async {
        let saves: Vec<_> = (1..=peers)
            .map(|number| {
                full.save(PeerRecord {
                    node_id: key(number).node_id(),
                    addresses: vec![address(number, 9735).into()],
                    tag: Some(Tag::GossipOnly),
                    weight: 0,
                })
            })
            .collect();
        for save in saves {
            save.await.unwrap();
        }
    });
    let closed = full.closed();
    drop(full);
    runtime.block_on(closed);
    let (_, none) = start("empty");
    assert_eq!(none, 0);
    let (empty, _) = start("empty");
    let (took, known) = start("full");
    assert_eq!(known, peers);
    vec![took - empty, took]
}

/// What a node with so many links costs: nanoseconds of processor time a message on ten of them, µs of a lapse's fence, ms until the last
/// far side has seen its end, ms until all are up again, bytes a link, ms of a start that knows as many peers.
fn measure_scale(links: u64) -> Vec<f64> {
    let signer = Distant::new(NODE, Duration::ZERO, false);
    let mut network = Network::new(Stack::Ours, links, signer);
    network.introduce(Tag::ChannelBearing);
    let known = settled();
    network.light();
    network.until_up(1);
    let each = (settled() - known) / links as f64;
    let message = message_cost(&mut network);
    let start = Instant::now();
    let (_, node) = network.ours();
    let session = node.session.take().unwrap();
    let lapse = session.lapse(LapseReason::Requested).unwrap();
    network.until_ended(1);
    let teardown = start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    network.light();
    network.until_up(2);
    let relight = start.elapsed().as_secs_f64() * 1e3;
    let fence = lapse.fence.as_secs_f64() * 1e6;
    let start = measure_start(links)[1];
    vec![message, fence, teardown, relight, each, start]
}

/// Nanoseconds of this process's time for a message that it sends: on ten links in turn, the others idle.
fn message_cost(network: &mut Network) -> f64 {
    const MESSAGES: usize = 200_000;
    let handles = handles(network, 10);
    let (runtime, _) = network.ours();
    let mut message = CHANNEL.to_be_bytes().to_vec();
    message.resize(430, 0);
    let message = Bytes::from(message);
    runtime.block_on(async {
        let send = async |messages: usize| {
            let mut last = Vec::new();
            for at in 0..messages {
                let receipt = handles[at % handles.len()].send(message.clone()).await;
                if at + handles.len() >= messages {
                    last.push(receipt.unwrap());
                }
            }
            for receipt in last {
                receipt.flushed().await.unwrap();
            }
        };
        send(MESSAGES / 10).await;
        let before = processor_time("self");
        send(MESSAGES).await;
        (processor_time("self") - before) * 1e9 / MESSAGES as f64
    })
}

/// Both stacks in turn, so often: the figures of either, by place.
fn in_turn(what: &str, number: u64, rounds: usize) -> [Vec<Vec<f64>>; 2] {
    let mut figures: [Vec<Vec<f64>>; 2] = Default::default();
    for _ in 0..rounds {
        for (stack, figures) in [Stack::Ours, Stack::Ldk].iter().zip(&mut figures) {
            let found = measure(&format!("{what} {} {number}", stack.name()));
            figures.resize(found.len(), vec![]);
            for (place, figure) in figures.iter_mut().zip(found) {
                place.push(figure);
            }
        }
    }
    figures
}

pub(crate) fn idle(effort: Effort, report: &mut Report) {
    for links in effort.or([1_000, 10_000].as_slice(), &[50]) {
        let [mut ours, mut ldk] = in_turn("idle", *links, effort.rounds);
        let ours_known = ours.remove(1);
        let row = Row::new("idle", format!("idle link, resident, of {links}"), "B");
        let waits = each("waits", *links, effort.rounds);
        let row = row.ours(ours.remove(0)).floor(waits).ldk(ldk.remove(0));
        // At rest it holds no key object of the backend: with those it might be 3 KiB.
        report.add(&row.target(Target::Most(2.0 * 1024.0)));
        let row = Row::new("idle", format!("known peer, resident, of {links}"), "B");
        report.add(&row.ours(ours_known));
    }
}

pub(crate) fn teardown(effort: Effort, report: &mut Report) {
    for links in effort.or([1_000, 10_000].as_slice(), &[50]) {
        let [mut ours, mut ldk] = in_turn("teardown", *links, effort.rounds);
        let resets = each("resets", *links, effort.rounds);
        let row = Row::new("teardown", format!("last of {links} links closed"), "ms");
        let row = row.ours(ours.remove(1)).floor(resets).ldk(ldk.remove(1));
        report.add(&row.target(Target::Better(2.0)));
        let row = Row::new("teardown", format!("call that ends {links} links"), "ms");
        report.add(&row.ours(ours.remove(0)).ldk(ldk.remove(0)));
        let [mut ours, mut ldk] = in_turn("closing", *links, effort.rounds);
        let closings = each("closings", *links, effort.rounds);
        let what = format!("last of {links} links closed, far sides stopped");
        let row = Row::new("teardown", what, "ms");
        let row = row.ours(ours.remove(0)).floor(closings).ldk(ldk.remove(0));
        report.add(&row.target(Target::Better(2.0)));
    }
}

pub(crate) fn pings(effort: Effort, report: &mut Report) {
    let (few, many) = effort.or((32, 5_000), (8, 50));
    let [few_ours, few_ldk] = in_turn("pings", few, effort.rounds);
    let [many_ours, many_ldk] = in_turn("pings", many, effort.rounds);
    for (links, ours, ldk) in [(few, &few_ours, &few_ldk), (many, &many_ours, &many_ldk)] {
        let row = Row::new(
            "pings",
            format!("ping round trip among {links} links"),
            "µs",
        );
        report.add(&row.ours(ours[0].clone()).ldk(ldk[0].clone()));
    }
    let grown = |few: &[Vec<f64>], many: &[Vec<f64>]| {
        many[0].iter().zip(&few[0]).map(|(a, b)| a / b).collect()
    };
    let row = Row::new("pings", format!("the same, {many} over {few}"), "×");
    let row = row
        .ours(grown(&few_ours, &many_ours))
        .ldk(grown(&few_ldk, &many_ldk));
    report.add(&row.target(Target::Most(1.2)));
}

pub(crate) fn slow_signer(effort: Effort, report: &mut Report) {
    let [ours, ldk] = in_turn("signer", 8, effort.rounds);
    // Unchanged: a hundredth of what they wait for is not to be seen in any.
    let rows = [
        (
            "pong while 8 handshakes wait 200 ms for the key, p50",
            Target::None,
        ),
        ("the longest of them", Target::Most(2_000.0)),
    ];
    for (at, (what, target)) in rows.into_iter().enumerate() {
        // The floor is our own before they wait.
        let row = Row::new("signer", what, "µs").floor(ours[at + 2].clone());
        let row = row.ours(ours[at].clone()).ldk(ldk[at].clone());
        report.add(&row.target(target));
    }
}

/// A percentile of each round's figures.
fn shares(rounds: &[Vec<f64>], share: f64) -> Vec<f64> {
    let of = |figures: &Vec<f64>| percentile(figures, share);
    rounds.iter().map(of).collect()
}

/// The same of the gates' figures, in each round of that wait which did best.
fn best_waits(rounds: &[Vec<f64>], share: f64) -> Vec<f64> {
    let best = |figures: &Vec<f64>| {
        let waits = figures.chunks(figures.len() / bare::Wait::ALL.len());
        waits
            .map(|wait| percentile(wait, share))
            .fold(f64::MAX, f64::min)
    };
    rounds.iter().map(best).collect()
}

fn fences(links: u64, effort: Effort, report: &mut Report) {
    let rounds = |order: String, rounds: usize| -> Vec<Vec<f64>> {
        (0..rounds).map(|_| measure(&order)).collect()
    };
    let all = rounds(format!("fence ours {links}"), effort.rounds);
    let half = |at: usize| -> Vec<Vec<f64>> {
        let half = |all: &Vec<f64>| all.chunks(all.len() / 2).nth(at).unwrap().to_vec();
        all.iter().map(half).collect()
    };
    let row = Row::new("own", format!("fence, p99, {links} idle links"), "µs");
    report.add(&row.ours(shares(&half(0), 0.99)).target(Target::Most(10.0)));
    let samples = effort.or(360, 12);
    let gates = rounds(format!("gates ours {samples}"), effort.rounds);
    let row = Row::new("own", format!("fence, p50, {links} busy links"), "µs");
    report.add(
        &row.ours(shares(&half(1), 0.5))
            .floor(best_waits(&gates, 0.5)),
    );
    let row = Row::new("own", format!("fence, p99, {links} busy links"), "µs");
    let row = row
        .ours(shares(&half(1), 0.99))
        .floor(best_waits(&gates, 0.99));
    report.add(&row.target(Target::Most(50.0)));
    let mut apart = rounds(format!("fence_apart ours {links}"), effort.rounds);
    let busy: usize = apart.iter().map(Vec::len).sum();
    let all = effort.rounds as u64 * fences_apart_of(links);
    eprintln!("of {all} lapses with a processor each, {busy} came while the links were busy");
    apart.retain(|fences| 2 * fences.len() as u64 > fences_apart_of(links));
    if apart.is_empty() {
        eprintln!("too busy with other things for busy links with a processor each");
        return;
    }
    let gates = rounds(format!("gates_apart ours {samples}"), effort.rounds);
    for (name, share, target) in [
        ("p50", 0.5, Target::None),
        ("p99", 0.99, Target::Most(50.0)),
    ] {
        let what = format!("fence, {name}, {links} busy links, a processor each");
        let row = Row::new("own", what, "µs").ours(shares(&apart, share));
        report.add(&row.floor(best_waits(&gates, share)).target(target));
    }
}

/// The first figure of a process of its own, so often.
fn each(what: &str, number: u64, rounds: usize) -> Vec<f64> {
    (0..rounds)
        .map(|_| measure(&format!("{what} ours {number}"))[0])
        .collect()
}

pub(crate) fn own(effort: Effort, report: &mut Report) {
    for links in effort.or([100, 10_000].as_slice(), &[20]) {
        fences(*links, effort, report);
    }
    let each = |what: &str, number: u64| each(what, number, effort.rounds);
    let peers = effort.or(1_000, 20);
    let row = Row::new("own", format!("relight {peers}, signer 50 ms away"), "ms");
    let row = row
        .ours(each("relight", peers))
        .target(Target::Most(1000.0));
    report.add(&row);
    let peers = effort.or(10_000, 100);
    let row = Row::new(
        "own",
        format!("start with {peers} known peers, over none"),
        "ms",
    );
    report.add(&row.ours(each("start", peers)).target(Target::Most(100.0)));
}
