//! The seeded simulation: months of a node whose signer comes and goes, on a virtual clock, with the promises asserted after every step.
//!
//! `links` runs the real link machines, firewall and outboxes over a simulated network in which every frame is numbered; `roster` runs
//! the supervisor's machine alone, with thousands of peers. What happens is drawn from a seed, so that a failure replays from it: the
//! failing test prints the command. README says how it is run for nights.
#![allow(
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::similar_names,
    clippy::match_wild_err_arm,
    clippy::needless_pass_by_value,
    clippy::single_match_else,
    clippy::unchecked_time_subtraction,
    clippy::struct_excessive_bools,
    clippy::cast_precision_loss,
    clippy::redundant_closure_for_method_calls,
    clippy::struct_field_names,
    clippy::collapsible_match,
    reason = "a test prints its seed and its figures, and tells its story in one go"
)]
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "simulation/agenda.rs"]
mod agenda;
#[path = "simulation/cost.rs"]
mod cost;
#[path = "simulation/desk.rs"]
mod desk;
#[path = "simulation/far.rs"]
mod far;
#[path = "simulation/link.rs"]
mod link;
#[path = "simulation/links.rs"]
mod links;
#[path = "simulation/report.rs"]
mod report;
#[path = "simulation/roster.rs"]
mod roster;
#[path = "simulation/script.rs"]
mod script;
#[path = "simulation/wire.rs"]
mod wire;

use links::Links;
use pilotlight::signer::{EmbeddedSigner, Epoch, LapseReason, Signer, SignerContext};
use report::Report;
use roster::Roster;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How large a run is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) peers: usize,
    /// In hours, for there are tests of less than a day.
    pub(crate) hours: u64,
}

impl Scale {
    pub(crate) fn lasts(self) -> Duration {
        Duration::from_secs(self.hours * 3600)
    }
}

/// Epochs are the signer's to mint: one for each attach.
pub(crate) fn epochs(nth: usize) -> Epoch {
    static MINTED: OnceLock<(SignerContext, Arc<EmbeddedSigner>, Mutex<Vec<Epoch>>)> =
        OnceLock::new();
    let (context, signer, minted) = MINTED.get_or_init(|| {
        let signer = Arc::new(EmbeddedSigner::from_key(desk::own()));
        let context = SignerContext::new(signer.node_id());
        (context, signer, Mutex::default())
    });
    let mut minted = minted.lock().unwrap();
    while minted.len() <= nth {
        let challenge = context.challenge(&mut [9; 32]).unwrap();
        let answer = desk::own().ecdh(&challenge.point());
        let proof = challenge.verify(answer).unwrap();
        let session = context
            .attach(proof, Arc::clone(signer) as Arc<dyn Signer>)
            .unwrap();
        minted.push(session.epoch());
        let _ = session.lapse(LapseReason::Requested);
    }
    minted[nth]
}

/// What a run comes to: its figures, its last steps, and the panic that ended it.
struct Outcome {
    report: Report,
    trace: Vec<String>,
    panic: Option<Box<dyn std::any::Any + Send>>,
}

/// A kind of run.
type Run = fn(u64, Scale, bool) -> Outcome;

fn roster_run(seed: u64, scale: Scale, trace: bool) -> Outcome {
    let mut run = Roster::new(seed, scale, trace);
    let panic = catch_unwind(AssertUnwindSafe(|| run.run(scale.lasts()))).err();
    Outcome {
        trace: run.desk.trace.take().map(Vec::from).unwrap_or_default(),
        report: run.report,
        panic,
    }
}

fn links_run(seed: u64, scale: Scale, trace: bool) -> Outcome {
    let mut run = Links::new(seed, scale, trace);
    let panic = catch_unwind(AssertUnwindSafe(|| run.run(scale.lasts()))).err();
    Outcome {
        trace: run.desk.trace.take().map(Vec::from).unwrap_or_default(),
        report: run.report,
        panic,
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds `first..first + count`, two at a time, and prints what they show. At the first that fails it prints how to replay it.
fn simulate(kind: &str, run: Run, first: u64, count: u64, scale: Scale) -> Report {
    let next = AtomicU64::new(first);
    let end = first + count;
    let failed = AtomicU64::new(u64::MAX);
    let all = Mutex::new(Report::new(scale));
    // Whoever ends a run from outside must know what to replay, too.
    let running = Mutex::new(BTreeMap::new());
    let (worker, watched) = mpsc::channel::<()>();
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(4);
    std::thread::scope(|scope| {
        let running = &running;
        scope.spawn(move || {
            while watched.recv_timeout(SLOW) == Err(RecvTimeoutError::Timeout) {
                for (seed, begun) in &*running.lock().unwrap() {
                    let begun: &Instant = begun;
                    if begun.elapsed() >= SLOW {
                        println!("{}", still_runs(kind, *seed, scale, begun.elapsed()));
                    }
                }
            }
        });
        for worker in vec![worker; workers] {
            let (next, failed, all) = (&next, &failed, &all);
            scope.spawn(move || {
                // The watch ends with the last of them.
                let _worker = worker;
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failed.load(Ordering::Relaxed) < seed {
                        return;
                    }
                    running.lock().unwrap().insert(seed, Instant::now());
                    let Outcome { report, panic, .. } = run(seed, scale, false);
                    running.lock().unwrap().remove(&seed);
                    if panic.is_some() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                        return;
                    }
                    println!("{kind}, seed {seed}: {}", report.text());
                    all.lock().unwrap().add(&report);
                }
            });
        }
    });
    let seed = failed.into_inner();
    if seed != u64::MAX {
        replay(kind, run, seed, scale);
    }
    let all = all.into_inner().unwrap();
    println!(
        "{kind}, {count} seeds from {first}, {} peers, {} hours each: {}",
        scale.peers,
        scale.hours,
        all.text()
    );
    all
}

/// A seed that has run for so long is named, and again after each such time.
const SLOW: Duration = Duration::from_secs(60);

fn still_runs(kind: &str, seed: u64, scale: Scale, time: Duration) -> String {
    let command = command(kind, seed, scale);
    format!("{kind}, seed {seed} has run for {time:.0?}; to replay it: {command}")
}

/// What runs one seed anew.
fn command(kind: &str, seed: u64, scale: Scale) -> String {
    format!(
        "PILOTLIGHT_FIRST_SEED={seed} PILOTLIGHT_SEEDS=1 PILOTLIGHT_PEERS={} PILOTLIGHT_HOURS={} \
         cargo test --config profile.dev.opt-level=2 --test simulation -- --ignored --nocapture {kind}",
        scale.peers, scale.hours
    )
}

/// Runs a seed that failed once more, with its last steps on record.
fn replay(kind: &str, run: Run, seed: u64, scale: Scale) -> ! {
    // First, should somebody not wait for the end.
    println!(
        "{kind}, seed {seed} fails; to replay it: {}",
        command(kind, seed, scale)
    );
    let Outcome { trace, panic, .. } = run(seed, scale, true);
    println!("the end of seed {seed}:\n{}", trace.join("\n"));
    println!("to replay it: {}", command(kind, seed, scale));
    match panic {
        Some(panic) => resume_unwind(panic),
        None => panic!(
            "seed {seed} failed, and does not when it is replayed: the simulation is not pure"
        ),
    }
}

/// As many seeds, peers and hours as the environment says, or as CI runs.
fn for_nights(kind: &str, run: Run, seeds: u64, scale: Scale) -> Report {
    let scale = Scale {
        peers: number("PILOTLIGHT_PEERS")
            .map_or(scale.peers, |peers| usize::try_from(peers).unwrap()),
        hours: number("PILOTLIGHT_HOURS").unwrap_or(scale.hours),
    };
    let first = number("PILOTLIGHT_FIRST_SEED").unwrap_or(0);
    simulate(
        kind,
        run,
        first,
        number("PILOTLIGHT_SEEDS").unwrap_or(seeds),
        scale,
    )
}

#[test]
fn p7_p8_p9_a_roster_of_hundreds_keeps_its_word_for_days() {
    let scale = Scale {
        peers: 300,
        hours: 48,
    };
    let all = simulate("roster", roster_run, 1000, 4, scale);
    assert!(all.relights() > 0);
}

/// Else a seed would be worth nothing.
#[test]
fn a_seed_replays_exactly() {
    let scale = Scale {
        peers: 20,
        hours: 3,
    };
    for run in [links_run as Run, roster_run] {
        let [once, again] = [7, 7].map(|seed| run(seed, scale, true));
        assert!(once.panic.is_none() && again.panic.is_none());
        assert!(once.trace.len() > 50);
        assert_eq!(once.trace, again.trace);
        assert_eq!(once.report.text(), again.report.text());
        assert_ne!(once.report.text(), run(8, scale, false).report.text());
    }
}

#[test]
fn p1_to_p9_fifty_links_keep_their_word_for_hours() {
    let scale = Scale {
        peers: 50,
        hours: 6,
    };
    let all = simulate("links", links_run, 1000, 8, scale);
    assert!(all.relights() > 0);
}

/// What ten thousand peers cost the machine, and that ten times as many as a thousand do not cost a hundred times as much.
#[test]
#[ignore = "measures; run by name, optimised: cargo test --config profile.dev.opt-level=2 --test simulation -- --ignored --nocapture cost"]
fn cost_of_a_wish_and_of_a_step() {
    let [few, many] = [1_000_usize, 10_000].map(|peers| {
        let (wishes, step) = cost::measure(peers);
        println!(
            "{peers} peers: all wishes {wishes:?}, one step {step:?} (medians of processor time)"
        );
        (wishes, step)
    });
    assert!(many.0 < 40 * few.0, "a wish walks over all peers");
    assert!(many.1 < 10 * few.1, "a step walks over all peers");
}

#[test]
#[ignore = "run by .ci/run simulation, and for nights"]
fn links() {
    let scale = Scale {
        peers: 50,
        hours: 48,
    };
    for_nights("links", links_run, 200, scale);
}

#[test]
#[ignore = "run by .ci/run simulation, and for nights"]
fn roster() {
    let scale = Scale {
        peers: 10_000,
        hours: 30 * 24,
    };
    for_nights("roster", roster_run, 20, scale);
}
