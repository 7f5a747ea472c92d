//! `pilotlight soak`, run as a user runs it, but for seconds: every round is told, its figures are numbers, the promises hold, and what is
//! asked for wrongly is refused. Whether memory stays flat for an hour is for the hour to show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use serde_json::Value;
use std::process::{Command, Output};

fn soak(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pilotlight"))
        .arg("soak")
        .args(arguments)
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("each line is an object"))
        .collect()
}

#[test]
fn a_short_soak_tells_every_round_and_holds_every_promise() {
    let output = soak(&[
        "--json",
        "--peers",
        "20",
        "--for",
        "6s",
        "--lapse-every",
        "1s",
        "--seed",
        "7",
    ]);
    let lines = lines(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{lines:?} {said}");
    let [begins, rounds @ .., summary] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(begins["event"], "begins");
    assert_eq!(
        (&begins["peers"], &begins["channel_peers"]),
        (&20.into(), &4.into())
    );
    assert!(rounds.len() >= 4, "{lines:?}");
    for (number, round) in (1_u64..).zip(rounds) {
        assert_eq!(
            (&round["event"], &round["round"]),
            (&"round".into(), &number.into())
        );
        assert_eq!(
            (&round["links"], &round["breaches"]),
            (&20.into(), &0.into())
        );
        for figure in ["fence_us", "teardown_ms", "relight_ms", "resident_bytes"] {
            assert!(round[figure].as_f64().unwrap() > 0.0, "{figure}: {round}");
        }
        // Two ends of a link and a port each, at the least.
        assert!(round["descriptors"].as_f64().unwrap() >= 60.0, "{round}");
    }
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["held"], true);
    assert_eq!(summary["rounds"], rounds.len());
    assert_eq!(summary["broken"], Value::Array(Vec::new()));
    for figure in ["messages_in", "messages_out"] {
        assert!(summary[figure].as_u64().unwrap() >= 20, "{summary}");
    }
    assert_eq!(summary["usage"]["descriptors_flat"], true, "{summary}");
}

#[test]
fn a_soak_for_people_says_the_same_in_words() {
    let output = soak(&["--peers", "5", "--for", "1s", "--lapse-every", "1s"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.starts_with("5 peers on loopback, 1 of them with channels"),
        "{text}"
    );
    assert!(
        text.contains("round    1") && text.contains("0 breaches"),
        "{text}"
    );
    assert!(
        text.contains("too few rounds after the warm-up to tell"),
        "{text}"
    );
    assert!(text.trim_end().ends_with("all promises held"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for wrong in [
        ["--peers", "1"],
        ["--peers", "5001"],
        ["--lapse-every", "10ms"],
        ["--lapse-every", "2h"],
        ["--for", "soon"],
    ] {
        let output = soak(&wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty(), "{wrong:?}");
    }
}
