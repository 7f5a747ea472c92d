//! `pilotlight demo --json`, run as a user runs it: it exits 0, every promise that it checks holds, and its figures are numbers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use serde_json::Value;
use std::process::{Command, Stdio};

/// Keys, urgencies and the jitter of the node come from it; a failure says so too.
const SEED: &str = "7";

fn run(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pilotlight"))
        .arg("demo")
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.success(), text)
}

fn number(value: &Value, path: &str) -> f64 {
    value
        .pointer(path)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{path} is no number in {value:#}"))
}

#[test]
fn every_promise_holds_on_what_the_far_sides_saw() {
    let (success, text) = run(&["--json", "--seed", SEED]);
    assert_eq!(text.lines().count(), 1, "one JSON object: {text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    for check in checks {
        assert_eq!(check["passed"], true, "{check:#}\nof {report:#}");
        assert_eq!(check["faults"], Value::Array(Vec::new()));
    }
    let promises: Vec<&str> = checks
        .iter()
        .filter_map(|check| check["promise"].as_str())
        .collect();
    assert_eq!(promises, ["P1", "P2", "P4", "P5", "P6", "P8"]);
    assert!(success, "exit code 0: {report:#}");
    assert_eq!(report["passed"], true);
    assert_eq!(report["settled"], true);
    assert_eq!(report["seed"], 7);

    assert_eq!(report["lapse"]["dropped"], 6);
    assert_eq!(report["lapse"]["retained"], 8);
    assert_eq!(report["lapse"]["far_sides_reset"], 6);
    for figure in [
        "/lapse/fence_us",
        "/lapse/teardown_ms",
        "/lapse/last_far_end_ms",
        "/relight/took_ms",
        "/seconds",
    ] {
        assert!(number(&report, figure) > 0.0, "{figure} in {report:#}");
    }
    for figure in [
        "/gossip/in",
        "/gossip/out",
        "/gossip/in_without_signer",
        "/gossip/out_without_signer",
        "/key_rotations",
    ] {
        assert!(number(&report, figure) >= 1.0, "{figure} in {report:#}");
    }
    let dialled = report["relight"]["dialled"].as_array().expect("names");
    assert_eq!(
        dialled.len(),
        7,
        "six channel peers, then the gossip peer whose link was closed: {dialled:?}"
    );
}

#[test]
fn a_person_gets_plain_lines_where_there_is_no_terminal() {
    let (success, text) = run(&["--seed", SEED]);
    assert!(success, "{text}");
    assert!(
        !text.contains('\x1b'),
        "no escape sequence in a pipe: {text}"
    );
    assert!(text.contains("--seed 7"), "says how to repeat it: {text}");
    assert_eq!(text.matches("\n  pass  P").count(), 6, "{text}");
}
