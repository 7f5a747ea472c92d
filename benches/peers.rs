//! Side by side with LDK, in one run: the cost of a message, of a handshake, of a link that idles, of a lapse, of coming back. The peer
//! is the newest stable `lightning`: its `PeerManager` in memory, and with `lightning-net-tokio` over loopback.
//!
//! `cargo bench --bench peers` prints the whole table; some parts with `-- messages idle`; each part once, quickly, with `-- --test`.
//! `PILOTLIGHT_BENCH_ROUNDS` (5) is the number of runs of each measurement. Ours and the peer's take turns within a round, and a ratio
//! is the median of the rounds' ratios, so that a machine that is busy with other things says little else. What was measured is kept in
//! `target/peers/` as `table.json`, `table.md` and `table.svg`; parts that are measured again replace their rows.
//!
//! The far side is a child process. Idle memory and teardown are measured in a process of their own, which refuses to begin when the
//! limit on descriptors is too low.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench fails by panicking, and prints what it has measured"
)]

#[path = "peers/bare.rs"]
mod bare;
#[path = "peers/child.rs"]
mod child;
#[path = "peers/crowd.rs"]
mod crowd;
#[path = "peers/effort.rs"]
mod effort;
#[path = "peers/handshake.rs"]
mod handshake;
#[path = "peers/ldk.rs"]
mod ldk;
#[path = "peers/links.rs"]
mod links;
#[path = "peers/loopback.rs"]
mod loopback;
#[path = "peers/messages.rs"]
mod messages;
#[path = "peers/node.rs"]
mod node;
#[path = "peers/picture.rs"]
mod picture;
#[path = "peers/report.rs"]
mod report;
#[path = "peers/shake.rs"]
mod shake;

use effort::Effort;
use report::Report;

/// A part of the table: its name, and what measures it.
type Part = (&'static str, fn(Effort, &mut Report));

const PARTS: [Part; 9] = [
    ("messages", messages::measure),
    ("handshake", handshake::measure),
    ("throughput", loopback::throughput),
    ("latency", loopback::latency),
    ("idle", links::idle),
    ("teardown", links::teardown),
    ("pings", links::pings),
    ("signer", links::slow_signer),
    ("own", links::own),
];

fn main() {
    if let Some(order) = child::order() {
        child::run(&order);
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let test = arguments.iter().any(|argument| argument == "--test");
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let rounds = std::env::var("PILOTLIGHT_BENCH_ROUNDS");
    let rounds = rounds.map_or(5, |rounds| rounds.parse().expect("a number of rounds"));
    let effort = Effort {
        rounds: if test { 1 } else { rounds },
        test,
    };
    for name in &wanted {
        assert!(
            PARTS.iter().any(|(part, _)| part == name),
            "no part '{name}'; there are: {}",
            PARTS.map(|(part, _)| part).join(", ")
        );
    }
    let mut report = Report::new(test);
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name) {
            eprintln!("{name} …");
            report.begin(name);
            measure(effort, &mut report);
        }
    }
    report.print();
    println!("Success");
}
