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
use std::time::{Duration, Instant};

/// Keys, urgencies and the jitter of the node come from it; a failure says so too.
const SEED: &str = "7";

/// What has not happened by then does not happen.
const HANG: Duration = Duration::from_secs(120);

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
    assert_eq!(promises, ["P1", "P2", "P4", "P5", "P6", "P7", "P8"]);
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
        "/floor/back_ms",
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
        8,
        "six channel peers, then the two gossip peers whose links were closed: {dialled:?}"
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
    assert_eq!(text.matches("\n  pass  P").count(), 7, "{text}");
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

/// The data of a report, as the page's script reads them.
fn data_of(page: &str) -> Value {
    let (_, data) = page
        .split_once("<script type=\"application/json\" id=\"recording\">")
        .expect("the block of data");
    let (data, _) = data.split_once("</script>").expect("its end");
    serde_json::from_str(data).expect("JSON")
}

/// The events of that kind.
fn events<'a>(data: &'a Value, kind: &str) -> Vec<&'a Value> {
    let events = data["events"].as_array().expect("events");
    events
        .iter()
        .filter(|event| event["event"] == kind)
        .collect()
}

#[test]
fn a_report_shows_everybody_and_what_became_of_them_and_needs_nothing_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.html");
    std::fs::write(&path, "an older one").unwrap();
    let (success, text) = run(&["--json", "--seed", SEED, "--report", path.to_str().unwrap()]);
    let told: Value = serde_json::from_str(&text).expect("JSON");
    assert!(success, "{told:#}");
    assert_eq!(told["report"], path.to_str().unwrap());
    assert_eq!(
        folder.path().read_dir().unwrap().count(),
        1,
        "no draft is left"
    );
    let page = std::fs::read_to_string(&path).unwrap();
    assert_alone(&page);

    let data = data_of(&page);
    let names: Vec<&str> = data["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| peer["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 15, "{names:?}");
    for name in ["Alder", "Hazel", "Juniper", "Willow", "Yew", "a stranger"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    let at = |event: &Value| event["at"].as_f64().expect("a time");
    let (from, until) = (number(&data, "/from"), number(&data, "/until"));
    let lapse = events(&data, "signer_lapsed");
    let attached = events(&data, "signer_attached");
    assert_eq!((lapse.len(), attached.len()), (1, 2));
    let times = [from, at(attached[0]), at(lapse[0]), at(attached[1]), until];
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(
        (&lapse[0]["dropped"], &lapse[0]["retained"]),
        (&6.into(), &8.into())
    );
    // Each channel peer goes down by the lapse and comes up after the return.
    for peer in data["peers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|peer| peer["tag"] == "channel-bearing")
    {
        let its = |kind| -> Vec<f64> {
            let its = events(&data, kind)
                .into_iter()
                .filter(|event| event["node_id"] == peer["node_id"]);
            its.map(at).collect()
        };
        let (ups, downs) = (its("link_up"), its("link_down"));
        assert_eq!((ups.len(), downs.len()), (2, 1), "{peer}");
        assert!(
            ups[0] <= downs[0] && downs[0] <= ups[1] && at(attached[1]) <= ups[1],
            "{peer}: {ups:?}, {downs:?}"
        );
    }
    // The checks are those that were printed, in the data and for the eye.
    assert_eq!(data["demo"]["checks"], told["checks"]);
    assert_eq!(
        page.matches("<span class=\"verdict\">pass</span>").count(),
        told["checks"].as_array().unwrap().len()
    );
    assert!(page.contains("--seed 7") && page.contains("A signer dials in over TLS"));
}

/// No address of anything else, and a policy that would forbid it.
fn assert_alone(page: &str) {
    for part in ["src=", "http://", "https://", "@import", "url("] {
        // SVG's namespace is a name, and nobody fetches it.
        let found: Vec<&str> = page
            .match_indices(part)
            .map(|(at, _)| &page[at..(at + 40).min(page.len())])
            .collect();
        let other: Vec<_> = found
            .iter()
            .filter(|found| !found.starts_with("http://www.w3.org/2000/svg"))
            .collect();
        assert!(other.is_empty(), "{other:?}");
    }
    assert!(
        page.contains("default-src 'none'; script-src 'sha256-") && !page.contains("unsafe-inline")
    );
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_the_demo_runs() {
    let folder = tempfile::tempdir().unwrap();
    for place in [
        folder.path().to_owned(),
        folder.path().join("nowhere/run.html"),
    ] {
        let output = demo(folder.path(), &["--json", "--report"])
            .arg(&place)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty(), "nothing ran: {output:?}");
        let said: Value = serde_json::from_slice(&output.stderr).expect("JSON");
        assert_eq!(
            said["error"]["where"],
            format!("--report {}", place.display())
        );
    }
    assert_empty(folder.path());
}

#[test]
fn a_demo_that_goes_on_serves_its_page_and_its_commands_round_after_round_and_ends_in_good_order() {
    let temporary = tempfile::tempdir().unwrap();
    let arguments = [
        "--serve",
        "--admin",
        "127.0.0.1:0",
        "--round",
        "1s",
        "--json",
        "--seed",
        SEED,
    ];
    let mut child = demo(temporary.path(), &arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).expect("JSON");
    assert_eq!(
        (&first["event"], &first["seed"]),
        (&"serving".into(), &7.into())
    );
    let url = first["url"].as_str().unwrap();
    assert!(
        url.contains("/#token=") && !url.contains('?'),
        "the token is in the fragment only"
    );
    let ask = |arguments: &[&str]| -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
        let command = command.args(arguments).args([
            "--json",
            "--data-dir",
            first["data_dir"].as_str().unwrap(),
        ]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let began = Instant::now();
    let until = |wanted: &dyn Fn(&Value) -> bool| loop {
        let info = ask(&["info"]);
        if wanted(&info) {
            return info;
        }
        assert!(began.elapsed() < HANG, "{info:#}");
    };
    until(&|info| info["mode"] == "live" && info["links"]["channel_bearing"] == 6);
    until(&|info| info["mode"] == "safe" && info["links"]["channel_bearing"] == 0);
    // The third session is the second return.
    let info =
        until(&|info| info["epoch"].as_u64() >= Some(3) && info["links"]["channel_bearing"] == 6);
    assert_eq!(info["signer"]["kind"], "gateway");
    assert_eq!(
        ask(&["top", "--once"])["peers"].as_array().unwrap().len(),
        14
    );
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(rest, ["{\"event\":\"stopped\"}"]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_empty(temporary.path());
}

#[test]
fn a_demo_cannot_be_served_where_somebody_else_listens() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(
        temporary.path(),
        &["--json", "--serve", "--admin", &address],
    )
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(said["error"]["where"], format!("--admin {address}"));
    assert_empty(temporary.path());
    let output = demo(temporary.path(), &["--json", "--serve", "--round", "10ms"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
