//! `pilotlight demo`, run as a user runs it: it exits 0, every promise that it checks holds, its figures are numbers, and it leaves
//! nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Keys, urgencies and the jitter of the node come from it; a failure says so too.
const SEED: &str = "7";

/// The demo, with a directory of its own for temporary files.
fn demo(temporary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
    command
        .arg("demo")
        .args(arguments)
        .env("TMPDIR", temporary)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (bool, String) {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path(), arguments)
        .output()
        .expect("the binary runs");
    assert_empty(temporary.path());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.success(), text)
}

/// The credentials of the demo are gone with it.
fn assert_empty(folder: &Path) {
    let left: Vec<_> = folder.read_dir().unwrap().map(Result::unwrap).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
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

    assert_eq!(report["lapse"]["reason"], "stream_closed");
    assert_eq!(report["lapse"]["dropped"], 6);
    assert_eq!(report["lapse"]["retained"], 8);
    assert_eq!(report["lapse"]["far_sides_reset"], 6);
    for figure in [
        "/lapse/noticed_ms",
        "/lapse/fence_us",
        "/lapse/teardown_ms",
        "/lapse/last_far_end_ms",
        "/relight/took_ms",
        "/signer/ecdh_over_tls_us",
        "/signer/ecdh_computation_us",
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
    assert_eq!(report["signer"]["calls_while_away"], 0);
    let agents = report["signer"]["agents"].as_array().expect("agents");
    assert_eq!(agents.len(), 2, "one before the cut, one after: {agents:?}");
    assert_eq!(
        agents[0]["ecdh"], 14,
        "a handshake with each peer: {agents:?}"
    );
    for agent in agents {
        assert_eq!(
            (&agent["attached"], &agent["proofs"]),
            (&1.into(), &1.into())
        );
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

#[test]
fn an_interrupted_demo_takes_its_credentials_with_it() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = demo(temporary.path(), &["--seed", SEED])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = lines.by_ref().find(|line| {
        let line = line.as_ref().expect("UTF-8");
        line.contains("A signer dials in")
    });
    assert!(started.is_some(), "the signer dials in");
    let folders: Vec<_> = temporary.path().read_dir().unwrap().collect();
    assert_eq!(folders.len(), 1, "its credentials are there: {folders:?}");
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(
        rest.iter().any(|line| line.contains("it was interrupted")),
        "{rest:?}"
    );
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_empty(temporary.path());
}

#[test]
fn without_a_place_for_credentials_it_says_so() {
    let (success, text) = {
        let nowhere = Path::new("/nonexistent/pilotlight");
        let output = demo(nowhere, &["--json"]).output().unwrap();
        (output.status.success(), output.stdout)
    };
    let report: Value = serde_json::from_slice(&text).expect("JSON");
    assert!(!success && report["passed"] == false, "{report}");
    let error = report["error"].as_str().expect("an error");
    assert!(
        error
            .contains("no private directory for certificate and macaroon: /nonexistent/pilotlight"),
        "{error}"
    );
}
