//! How many instructions the hot path takes, counted by valgrind's callgrind and compared with the figures that are checked in
//! (`benches/counts.txt`): more or less by 3 % fails. Time on a shared machine says nothing of a change so small; a count is the same
//! on each run.
//!
//! `.ci/run counts` builds it the way that the figures were taken and runs it. After a change that is meant, `PILOTLIGHT_BLESS=1`
//! in front writes the figures anew. They hold for the pinned compiler on x86-64 with AVX2; valgrind has no SHA extensions, so
//! a handshake's hashing counts for more here than it costs.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench fails by panicking, and prints what it has counted"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::process::Command;

use bytes::BytesMut;
use pilotlight::brontide::{AwaitActOne, HEADER_LEN, InitiatorStart, Session};
use pilotlight::node_id::LocalKey;

const FIGURES: &str = include_str!("counts.txt");
const WHERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/counts.txt");
/// By how much a count may differ from its figure.
const MAY_DIFFER: f64 = 0.03;
/// Messages in a count, rotations of the key among them.
const MESSAGES: usize = 2_000;

const COUNTED: [&str; 4] = ["encrypt", "decrypt", "frame", "handshake"];

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

/// Both sides of a handshake, their ephemeral keys made before.
#[inline(never)]
fn counted_handshake(
    (alice, bob): (&LocalKey, &LocalKey),
    ephemeral: (LocalKey, LocalKey),
) -> (Session, Session) {
    let a = InitiatorStart::new(alice.node_id(), bob.node_id(), ephemeral.0);
    let (a, one) = a.unwrap();
    let b = AwaitActOne::new(bob.node_id(), ephemeral.1).act_one(&one);
    let b = b.unwrap_or_else(|_| unreachable!());
    let reply = bob.ecdh(&b.request().point);
    let (b, two) = b.resume(reply).unwrap();
    let a = a.act_two(&two).unwrap_or_else(|_| unreachable!());
    let reply = alice.ecdh(&a.request().point);
    let (three, a) = a.resume(reply).unwrap();
    let b = b.act_three(&three).unwrap_or_else(|_| unreachable!());
    (a.into_session(), b.into_session())
}

#[inline(never)]
fn counted_encrypt(session: &mut Session, message: &[u8], out: &mut BytesMut) {
    for _ in 0..MESSAGES {
        out.clear();
        session.seal(black_box(message), out).unwrap();
    }
}

#[inline(never)]
fn counted_decrypt(session: &mut Session, wire: &mut BytesMut) {
    for _ in 0..MESSAGES {
        black_box(session.open(wire).unwrap().unwrap());
    }
}

/// The shortest messages, of which each header and each body comes by itself: what framing costs beside the cipher.
#[inline(never)]
fn counted_frame(session: &mut Session, wire: &mut BytesMut, buffer: &mut BytesMut) {
    for _ in 0..MESSAGES {
        buffer.clear();
        buffer.extend_from_slice(&wire.split_to(HEADER_LEN));
        assert!(session.open(buffer).unwrap().is_none());
        let body = session.needed(0);
        buffer.extend_from_slice(&wire.split_to(body));
        black_box(session.open(buffer).unwrap().unwrap());
    }
}

/// What is counted, after all that is not.
fn run(what: &str) {
    let keys = (key(1), key(2));
    let ephemeral = (key(3), key(4));
    let (mut a, mut b) = counted_handshake((&keys.0, &keys.1), ephemeral);
    let length = if what == "frame" { 2 } else { 430 };
    let message = vec![7; length];
    let mut wire = BytesMut::with_capacity(MESSAGES * (length + 34));
    match what {
        "handshake" => {}
        "encrypt" => counted_encrypt(&mut a, &message, &mut wire),
        "decrypt" | "frame" => {
            for _ in 0..MESSAGES {
                a.seal(&message, &mut wire).unwrap();
            }
            if what == "decrypt" {
                counted_decrypt(&mut b, &mut wire);
            } else {
                counted_frame(&mut b, &mut wire, &mut BytesMut::with_capacity(4096));
            }
        }
        _ => panic!("what is {what}?"),
    }
}

/// Instructions of one message or handshake.
fn count(what: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect=counts::counted_{what}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--count", what])
        .output()
        .expect("valgrind (Debian's package valgrind)");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .unwrap_or_else(|| panic!("callgrind says no count: {text}"));
    let collected: u64 = collected.1.trim().parse().unwrap();
    assert!(collected > 0, "callgrind has not found counted_{what}");
    let times = if what == "handshake" { 1 } else { MESSAGES };
    collected / times as u64
}

fn figure(what: &str) -> u64 {
    let line = FIGURES
        .lines()
        .find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no figure for {what} in {WHERE}"))
        .parse()
        .unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--count") {
        run(arguments.get(at + 1).expect("what to count"));
        return;
    }
    if arguments.iter().any(|argument| argument == "--test") {
        for what in COUNTED {
            run(what);
        }
        println!("Success");
        return;
    }
    let blessed = std::env::var_os("PILOTLIGHT_BLESS").is_some();
    let (mut lines, mut off) = (String::new(), Vec::new());
    for what in COUNTED {
        let count = count(what);
        let _ = writeln!(lines, "{what} {count}");
        if blessed {
            continue;
        }
        let figure = figure(what);
        let differs = count as f64 / figure as f64 - 1.0;
        println!(
            "{what}: {count} instructions, {figure} checked in, {:+.2} %",
            differs * 100.0
        );
        if differs.abs() > MAY_DIFFER {
            off.push(what);
        }
    }
    if blessed {
        std::fs::write(WHERE, &lines).unwrap();
        print!("{lines}");
    }
    assert!(
        off.is_empty(),
        "{} off by more than {} %: mend it, or write the figures anew with PILOTLIGHT_BLESS=1 and say why",
        off.join(", "),
        MAY_DIFFER * 100.0
    );
    println!("Success");
}
