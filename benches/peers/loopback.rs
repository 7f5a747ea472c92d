//! One link over loopback, the same code at both ends, the far one in a child process: how many messages a second go one way, and how
//! long one takes there and back while the node is idle and while it sends on another link as fast as it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::Effort;
use crate::bare::Echo;
use crate::child::{Child, processor_time};
use crate::ldk::{ECHO, ECHO_OF_LOAD, SINK};
use crate::node::{Distant, Link, Running, Stack, Who, message, runtime};
use crate::report::{Report, Row, Target, percentile};

/// Messages between two that come back, and how many of those may be on their way: LDK has no other bound on what it holds.
const BATCH: usize = 500;
const WINDOW: u64 = 4;

/// A node here with a link to one there.
struct Ends {
    runtime: Runtime,
    link: Arc<Link>,
    /// Another link, to make load.
    load: Option<Arc<Link>>,
    child: Child,
    _other: Option<Child>,
    _node: Running,
}

impl Ends {
    fn new(stack: Stack, loaded: bool) -> Self {
        let runtime = runtime();
        let mut node =
            runtime.block_on(Running::new(stack, Distant::new(1, Duration::ZERO, false)));
        let (child, link) = Self::link(&runtime, &mut node, stack, 2);
        let other = loaded.then(|| Self::link(&runtime, &mut node, stack, 3));
        let (other, load) = other.unzip();
        Self {
            runtime,
            link,
            load,
            child,
            _other: other,
            _node: node,
        }
    }

    fn link(runtime: &Runtime, node: &mut Running, stack: Stack, number: u8) -> (Child, Arc<Link>) {
        let mut child = Child::spawn(&format!("node {} {number}", stack.name()));
        let greeting = child.hear();
        let (address, id) = greeting.split_once(' ').unwrap();
        let (address, id) = (address.parse().unwrap(), id.parse().unwrap());
        let link = runtime.block_on(node.link(id, address));
        (child, Arc::new(link))
    }
}

/// Sends as fast as the window allows, until `enough` says so after a batch. Returns how many messages went, and how many have come
/// back in all, `from` before this.
async fn pour(link: &Link, kind: u16, from: u64, enough: impl Fn(u64) -> bool) -> (u64, u64) {
    let (sink, echo): (Bytes, Bytes) = (message(SINK), message(kind));
    let (mut sent, mut echoes) = (0, from);
    while !enough(sent) {
        link.send(BATCH, &sink, &echo).await;
        sent += BATCH as u64 + 1;
        echoes += 1;
        link.echoed(kind, echoes.saturating_sub(WINDOW)).await;
    }
    link.echoed(kind, echoes).await;
    (sent, echoes)
}

pub(crate) fn throughput(effort: Effort, report: &mut Report) {
    let count = effort.or(400_000, 2_000);
    let stacks = [Stack::Ours, Stack::Ldk];
    let ends = stacks.map(|stack| Ends::new(stack, false));
    let mut echoes = [0; 2];
    let (mut rates, mut costs) = ([vec![], vec![]], [vec![], vec![]]);
    // Once unmeasured: both sides' buffers and caches fill.
    for round in 0..=effort.rounds {
        for (at, ends) in ends.iter().enumerate() {
            let used = || processor_time("self") + ends.child.processor_time();
            let (start, before) = (Instant::now(), used());
            let pouring = pour(&ends.link, ECHO, echoes[at], |sent| sent >= count);
            let sent = ends.runtime.block_on(pouring);
            echoes[at] = sent.1;
            let sent = sent.0 as f64;
            if round > 0 {
                rates[at].push(sent / start.elapsed().as_secs_f64() / 1e6);
                costs[at].push((used() - before) * 1e9 / sent);
            }
        }
    }
    let [ours, ldk] = rates;
    let row = |what: &str, unit| Row::new("throughput", what, unit);
    let rate = row("loopback, 430 B, one way", "M/s").more_is_better();
    report.add(&rate.ours(ours.clone()).target(Target::Least(0.9)));
    let rate = row("loopback, 430 B, one way, beside LDK", "M/s").more_is_better();
    report.add(&rate.ours(ours).ldk(ldk).target(Target::Better(3.0)));
    let [ours, ldk] = costs;
    let cost = row("processor time of a message, both ends", "ns");
    report.add(&cost.ours(ours).ldk(ldk));
}

/// Round trips of single messages, in µs.
async fn round_trips(link: Arc<Link>, count: usize, from: u64) -> Vec<f64> {
    let (none, echo) = (message(SINK), message(ECHO));
    let mut took = Vec::with_capacity(count);
    for at in 1..=count as u64 {
        let start = Instant::now();
        link.send(0, &none, &echo).await;
        link.echoed(ECHO, from + at).await;
        took.push(start.elapsed().as_secs_f64() * 1e6);
    }
    took
}

impl Ends {
    fn round_trips(&self, who: Who, count: usize, sent: &mut u64) -> Vec<f64> {
        let trips = round_trips(Arc::clone(&self.link), count, *sent);
        *sent += count as u64;
        who.runs(&self.runtime, trips)
    }

    /// Round trips on one link while another is sent on as fast as it goes, of which so many messages have come back.
    fn round_trips_beside_load(
        &self,
        who: Who,
        count: usize,
        sent: &mut u64,
        poured: &mut u64,
    ) -> Vec<f64> {
        let (load, from) = (Arc::clone(self.load.as_ref().unwrap()), *poured);
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let pouring = self.runtime.spawn(async move {
            pour(&load, ECHO_OF_LOAD, from, |_| until.load(Ordering::Relaxed)).await
        });
        let took = self.round_trips(who, count, sent);
        stop.store(true, Ordering::Relaxed);
        *poured = self.runtime.block_on(pouring).unwrap().1;
        took
    }
}

/// Round trips of one kind.
struct Trips {
    what: &'static str,
    who: Who,
    loaded: bool,
    /// Of p50.
    target: Target,
}

const TRIPS: [Trips; 3] = [
    Trips {
        what: "round trip of a task, idle node",
        who: Who::Task,
        loaded: false,
        target: Target::Better(1.0),
    },
    Trips {
        what: "round trip of a thread beside the runtime, idle node",
        who: Who::Thread,
        loaded: false,
        target: Target::Better(1.0),
    },
    Trips {
        what: "round trip of a task beside a busy link",
        who: Who::Task,
        loaded: true,
        target: Target::None,
    },
];

/// p50 and p99.
const SHARES: [f64; 2] = [0.5, 0.99];

pub(crate) fn latency(effort: Effort, report: &mut Report) {
    let ends = [Stack::Ours, Stack::Ldk].map(|stack| Ends::new(stack, true));
    let echo = Echo::new();
    let (mut sent, mut poured) = ([0; 2], [0; 2]);
    for trips in TRIPS {
        let Trips { who, loaded, .. } = trips;
        let count = effort.or(if loaded { 1_000 } else { 4_000 }, 20);
        let (mut floors, mut figures) = (vec![], [vec![], vec![]]);
        for _ in 0..effort.rounds {
            if !loaded {
                // What a load leaves to others is the load's.
                floors.push(echo.round_trips(who, count));
            }
            for (at, ends) in ends.iter().enumerate() {
                let (sent, poured) = (&mut sent[at], &mut poured[at]);
                figures[at].push(if loaded {
                    ends.round_trips_beside_load(who, count, sent, poured)
                } else {
                    ends.round_trips(who, count, sent)
                });
            }
        }
        tell(&trips, &floors, &figures, report);
    }
}

/// Adds the rows of one kind: of each round its p50, and its p99.
fn tell(trips: &Trips, floors: &[Vec<f64>], [ours, ldk]: &[Vec<Vec<f64>>; 2], report: &mut Report) {
    for (share, target) in SHARES.into_iter().zip([trips.target, Target::None]) {
        let of = |rounds: &[Vec<f64>]| rounds.iter().map(|took| percentile(took, share)).collect();
        let what = format!("{}, p{:.0}", trips.what, share * 100.0);
        let row = Row::new("latency", what, "µs").ours(of(ours)).ldk(of(ldk));
        report.add(&row.floor(of(floors)).target(target));
    }
}
