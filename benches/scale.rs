//! How what a node does grows with its links: cost of a message, fence, lapse, relight, memory and start at 10, 100, 1,000 and 10,000,
//! and the exponent of the growth: 0 is flat, 1 is linear.
//!
//! `cargo bench --bench scale`; small and quick with `-- --test`. `PILOTLIGHT_BENCH_ROUNDS` (3) is the number of runs at each size, of
//! which the medians are shown. Every run has a process of its own, and the far sides another.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench fails by panicking and prints what it has measured; the parts are shared with `peers`, which uses all of them"
)]

#[path = "peers/bare.rs"]
mod bare;
#[path = "peers/child.rs"]
mod child;
#[path = "peers/crowd.rs"]
mod crowd;
#[path = "peers/effort.rs"]
mod effort;
#[path = "peers/ldk.rs"]
mod ldk;
#[path = "peers/links.rs"]
mod links;
#[path = "peers/node.rs"]
mod node;
#[path = "peers/picture.rs"]
mod picture;
#[path = "peers/report.rs"]
mod report;
#[path = "peers/shake.rs"]
mod shake;

use effort::Effort;
use report::{machine, median, number};

/// What is measured, in this order, and its unit.
const FIGURES: [(&str, &str); 6] = [
    ("processor time of a message sent", "ns"),
    ("fence", "µs"),
    ("lapse, last far side", "ms"),
    ("relight", "ms"),
    ("idle link, resident", "B"),
    ("start with as many known peers", "ms"),
];

fn main() {
    if let Some(order) = child::order() {
        child::run(&order);
        return;
    }
    let test = std::env::args().any(|argument| argument == "--test");
    let rounds = std::env::var("PILOTLIGHT_BENCH_ROUNDS");
    let rounds = rounds.map_or(3, |rounds| rounds.parse().expect("a number of rounds"));
    let effort = Effort { rounds, test };
    let sizes = effort.or([10, 100, 1_000, 10_000].as_slice(), &[10, 20]);
    let measured: Vec<Vec<f64>> = sizes.iter().map(|links| at(*links, effort)).collect();
    println!("\n{}\n", machine());
    let heads: Vec<String> = sizes.iter().map(|links| number(*links as f64)).collect();
    println!("| links | {} | grows as |", heads.join(" | "));
    println!("|---|{}--:|", "--:|".repeat(sizes.len()));
    for (place, (what, unit)) in FIGURES.iter().enumerate() {
        let figures: Vec<f64> = measured.iter().map(|figures| figures[place]).collect();
        let cells: Vec<String> = figures.iter().map(|figure| number(*figure)).collect();
        println!(
            "| {what}, {unit} | {} | n^{:.2} |",
            cells.join(" | "),
            exponent(sizes, &figures)
        );
    }
    if !test {
        judge(&measured);
    }
    println!("Success");
}

/// What the growth must not exceed, from the smallest size to the largest.
fn judge(measured: &[Vec<f64>]) {
    let [first, .., last] = measured else {
        panic!("one size has no growth");
    };
    let verdict = |met| if met { "met" } else { "not met" };
    let cost = last[0] / first[0];
    println!(
        "\nmessage cost grows {cost:.2} ×: {} (1.2 ×)",
        verdict(cost <= 1.2)
    );
    // A link's own part: what all links share weighs most on a few.
    let memory = last[4] / first[4];
    println!(
        "a link's memory grows {memory:.2} ×: {} (1 ×, linear)",
        verdict(memory <= 1.0)
    );
    let start = last[5];
    println!(
        "start takes {start:.1} ms: {} (100 ms)",
        verdict(start <= 100.0)
    );
}

/// The medians at one size.
fn at(links: u64, effort: Effort) -> Vec<f64> {
    let runs: Vec<Vec<f64>> = (0..effort.or(effort.rounds, 1))
        .map(|_| child::measure(&format!("scale ours {links}")))
        .collect();
    eprintln!("{links}: {runs:?}");
    (0..FIGURES.len())
        .map(|place| median(&runs.iter().map(|run| run[place]).collect::<Vec<_>>()))
        .collect()
}

/// The slope of the best line through the logarithms.
fn exponent(sizes: &[u64], figures: &[f64]) -> f64 {
    let points: Vec<(f64, f64)> = sizes
        .iter()
        .zip(figures)
        .map(|(size, figure)| ((*size as f64).ln(), figure.max(1e-9).ln()))
        .collect();
    let count = points.len() as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let above: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let below: f64 = points.iter().map(|p| (p.0 - x) * (p.0 - x)).sum();
    above / below
}
