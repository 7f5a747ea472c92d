//! HTLC deadlines and a planned absence, with the real binary: what is said by command is shown and told, a planned lapse waits for the
//! node's word, and interrupting it leaves everything as it was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "support/daemon.rs"]
#[allow(
    dead_code,
    reason = "shared with tests/daemon.rs, which uses all of it"
)]
mod support;

use pilotlight::node_id::{LocalKey, NodeId};
use serde_json::{Value, json};
use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;
use support::{Daemon, HANG, lines_of, pilotlight};

fn id(number: u8) -> NodeId {
    LocalKey::from_bytes(&mut [number; 32]).unwrap().node_id()
}

/// A daemon with two channel peers that nobody answers for.
fn daemon() -> Daemon {
    let daemon = Daemon::start();
    for number in [1, 2] {
        let peer = format!("{}@127.0.3.{number}:1", id(number));
        daemon.ask(&["peer", "add", &peer, "--tag", "channel-bearing"]);
    }
    daemon
}

fn urgency(daemon: &Daemon, number: u8, htlcs: &str, height: &str) -> Value {
    let id = id(number).to_string();
    daemon.ask(&[
        "peer",
        "urgency",
        &id,
        "--pending-htlcs",
        htlcs,
        "--earliest-expiry-height",
        height,
    ])
}

/// A command that goes on, and what it prints.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(daemon: &Daemon, arguments: &[&str]) -> Self {
        let mut child = pilotlight()
            .args(arguments)
            .arg("--json")
            .arg("--data-dir")
            .arg(&daemon.data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line that is as wanted.
    fn until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(HANG).expect("a line");
            let value = serde_json::from_str(&line).unwrap();
            if wanted(&value) {
                return value;
            }
        }
    }

    fn event(&self, name: &str) -> Value {
        self.until(|event| event["event"] == name)
    }

    /// Its exit code, and the error that it printed, if it did.
    fn ended(mut self) -> (Option<i32>, String) {
        let errors = lines_of(self.child.stderr.take().unwrap());
        let error: Vec<String> = errors.iter().collect();
        (self.child.wait().unwrap().code(), error.concat())
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Events from now on: the stream says when it is there.
fn events(daemon: &Daemon) -> Running {
    let events = Running::start(daemon, &["events"]);
    // The stream's first words are no event: something must happen until it is seen.
    let seen = std::cell::Cell::new(false);
    while !seen.get() {
        daemon.ask(&["signer", "lapse"]);
        daemon.ask(&["signer", "attach"]);
        seen.set(
            events
                .lines
                .recv_timeout(std::time::Duration::from_millis(50))
                .is_ok(),
        );
    }
    events
}

#[test]
fn deadlines_are_shown_and_told_while_no_signer_is_there() {
    let daemon = daemon();
    let shown = urgency(&daemon, 1, "2", "900");
    assert_eq!(
        (&shown["pending_htlcs"], &shown["earliest_expiry_height"]),
        (&json!(2), &json!(900))
    );
    urgency(&daemon, 2, "1", "1000");
    assert_eq!(
        daemon.ask(&["info"])["chain"],
        json!({ "height": null, "own_update_at": null, "own_update_age_s": null, "htlc_deadline": null })
    );
    let chain = daemon.ask(&["chain", "--height", "850", "--own-update-at", "1700000000"]);
    // Its age grows between two answers.
    let but_age = |chain: &Value| {
        let mut chain = chain.clone();
        chain.as_object_mut().unwrap().remove("own_update_age_s");
        chain
    };
    daemon.ask_until(&["info"], |info| but_age(&info["chain"]) == but_age(&chain));
    assert_eq!(
        chain["htlc_deadline"],
        json!({ "node_id": id(1).to_string(), "expiry_height": 900, "blocks_left": 50 })
    );
    assert!(chain["own_update_age_s"].as_u64().unwrap() > 60_000_000);
    let metrics = daemon.request("GET", "/metrics", "", "").body;
    assert!(
        metrics.contains("\npilotlight_htlc_deadline_blocks_min 50\n"),
        "{metrics}"
    );
    let age = metrics
        .lines()
        .find_map(|line| line.strip_prefix("pilotlight_own_update_age_seconds "));
    assert!(age.unwrap().parse::<f64>().unwrap() > 60e6, "{age:?}");
    let events = Running::start(&daemon, &["events"]);
    // Nothing is told with a signer; as it goes, what is near is.
    let mut told = None;
    while told.is_none() {
        daemon.ask(&["signer", "lapse"]);
        let height = daemon.ask(&["info"])["chain"]["height"].as_u64().unwrap() + 1;
        daemon.ask(&["chain", "--height", &height.to_string()]);
        // The stream may have come too late for the first: another deadline is another chance.
        urgency(&daemon, 1, "2", &(height + 40).to_string());
        told = events
            .lines
            .recv_timeout(std::time::Duration::from_millis(200))
            .ok();
        daemon.ask(&["signer", "attach"]);
    }
    // The first line may be what is looked for.
    let first = told.and_then(|line| serde_json::from_str::<Value>(&line).ok());
    let first = first.filter(|event| event["event"] == "htlc_deadline");
    let event = first.unwrap_or_else(|| events.event("htlc_deadline"));
    assert_eq!(
        (&event["within"], &event["peers"], &event["node_id"]),
        (&json!(72), &json!(1), &json!(id(1).to_string()))
    );
}

#[test]
fn what_makes_no_sense_is_refused_and_says_why() {
    let daemon = daemon();
    let token = daemon.token("admin.token");
    let path = format!("/v1/peers/{}", id(1));
    for (method, path, body, says) in [
        (
            "PATCH",
            path.as_str(),
            r#"{"pending_htlcs":1}"#,
            "not said when the first of them expires",
        ),
        (
            "PATCH",
            &path,
            r#"{"earliest_expiry_height":1700000000}"#,
            "no block height",
        ),
        ("PATCH", &path, r#"{"csv_delay":70000}"#, "invalid value"),
        (
            "POST",
            "/v1/chain",
            r#"{"height":1700000000}"#,
            "no block height",
        ),
        (
            "POST",
            "/v1/chain",
            r#"{"own_update_at":1767225600000}"#,
            "in the future",
        ),
        ("POST", "/v1/chain", "{}", "nothing is said"),
        (
            "POST",
            "/v1/signer/lapse",
            r#"{"drain":true,"timeout_s":0}"#,
            "1 second at least",
        ),
        (
            "POST",
            "/v1/signer/lapse",
            r#"{"drain":true,"timeout_s":90000}"#,
            "a day at most",
        ),
        (
            "POST",
            "/v1/signer/lapse",
            r#"{"yes":true}"#,
            "planned absence",
        ),
        (
            "POST",
            "/v1/signer/lapse",
            r#"{"drian":true}"#,
            "unknown field",
        ),
        ("POST", "/v1/signer/lapse", "drain", "expected value"),
    ] {
        let answer = daemon.request(method, path, &token, body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.what().contains(says), "{body}: {answer:?}");
    }
    let answer = daemon.request(
        "POST",
        "/v1/signer/word",
        &token,
        r#"{"absence":1,"go":true}"#,
    );
    assert_eq!(
        (answer.status, answer.what().as_str()),
        (409, "absence 1 is not planned")
    );
    // A signer that may read may not give the word.
    let reads = daemon.token("readonly.token");
    assert_eq!(
        daemon
            .request("POST", "/v1/signer/word", &reads, "{}")
            .status,
        403
    );
    assert_eq!(
        daemon.request("POST", "/v1/chain", &reads, "{}").status,
        403
    );
    assert_eq!(daemon.ask(&["info"])["mode"], "live");
}

#[test]
fn wrong_arguments_are_refused_before_anything_is_asked() {
    let daemon = daemon();
    for (arguments, place) in [
        (
            &["signer", "lapse", "--drain", "--timeout", "25h"][..],
            "--timeout",
        ),
        (
            &["signer", "lapse", "--drain", "--timeout", "500ms"],
            "--timeout",
        ),
        (
            &["signer", "lapse", "--drain", "--timeout", "soon"],
            "--timeout",
        ),
    ] {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        assert_eq!(daemon.run(&arguments).problem(2).1, place, "{arguments:?}");
    }
    for arguments in [
        &["signer", "lapse", "--yes"][..],
        &["chain"],
        &["peer", "urgency", "02"],
    ] {
        assert_eq!(daemon.run(arguments).code, 2, "{arguments:?}");
    }
    assert_eq!(daemon.ask(&["info"])["mode"], "live");
}

#[test]
fn a_planned_lapse_waits_for_the_nodes_word() {
    let daemon = daemon();
    urgency(&daemon, 1, "2", "900");
    daemon.ask(&["chain", "--height", "850"]);
    let plan = Running::start(&daemon, &["signer", "lapse", "--drain"]);
    let planned = plan.until(|line| line.get("planned").is_some());
    let pending = &planned["pending"];
    assert_eq!(
        (&pending["htlcs"], &pending["height"]),
        (&json!(2), &json!(850))
    );
    assert_eq!(pending["peers"][0]["blocks_left"], 50);
    let info = daemon.ask(&["info"]);
    assert_eq!(
        (&info["mode"], &info["planned_absence"]["absence"]),
        (&json!("live"), &planned["planned"])
    );
    // A second one is refused; what is settled meanwhile is shown.
    let (what, _, to_do) = daemon
        .run(&["signer", "lapse", "--drain", "--json"])
        .problem(1);
    assert!(
        what.contains("planned already") && to_do.contains("agree"),
        "{what}: {to_do}"
    );
    urgency(&daemon, 1, "0", "0");
    assert_eq!(
        plan.until(|line| line["pending"]["htlcs"] == 0)["pending"]["peers"],
        json!([])
    );
    assert_eq!(daemon.ask(&["info"])["mode"], "live");
    let number = planned["planned"].to_string();
    assert_eq!(daemon.ask(&["signer", "agree", &number])["go"], true);
    let lapsed = plan.until(|line| line.get("lapsed").is_some());
    assert_eq!(
        (&lapsed["lapsed"]["reason"], &lapsed["lapsed"]["epoch"]),
        (&json!("planned"), &json!(1))
    );
    assert_eq!(plan.ended().0, Some(0));
    let info = daemon.ask_until(&["info"], |info| info["last_lapse"]["reason"] == "planned");
    assert_eq!(
        (&info["mode"], &info["planned_absence"]),
        (&json!("safe"), &Value::Null)
    );
    // It can be attached again, and with --yes the word is not waited for.
    daemon.ask(&["signer", "attach"]);
    let ended = daemon.run(&["signer", "lapse", "--drain", "--yes", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        (&lines[0]["pending"]["htlcs"], &lines[1]["lapsed"]["reason"]),
        (&json!(0), &json!("planned"))
    );
    let (what, ..) = daemon
        .run(&["signer", "lapse", "--drain", "--json"])
        .problem(1);
    assert_eq!(what, "no signer session is live");
}

#[test]
fn an_interrupted_a_refused_and_a_late_plan_leave_all_as_it_was() {
    let daemon = daemon();
    let events = events(&daemon);
    let before = daemon.ask(&["info"])["epoch"].clone();
    let as_it_was = |outcome: &str| {
        assert_eq!(events.event("absence_over")["outcome"], outcome);
        let info = daemon.ask(&["info"]);
        assert_eq!(
            (&info["mode"], &info["epoch"], &info["planned_absence"]),
            (&json!("live"), &before, &Value::Null)
        );
    };
    // Killed: it cannot say goodbye.
    let mut plan = Running::start(&daemon, &["signer", "lapse", "--drain"]);
    plan.until(|line| line.get("planned").is_some());
    plan.kill();
    as_it_was("withdrawn");
    let plan = Running::start(&daemon, &["signer", "lapse", "--drain"]);
    let number = plan.until(|line| line.get("planned").is_some())["planned"].to_string();
    daemon.ask(&[
        "signer",
        "refuse",
        &number,
        "--why",
        "a payment is on its way",
    ]);
    let (code, error) = plan.ended();
    assert!(
        code == Some(1) && error.contains("a payment is on its way"),
        "{code:?} {error}"
    );
    as_it_was("refused");
    let plan = Running::start(&daemon, &["signer", "lapse", "--drain", "--timeout", "1s"]);
    plan.until(|line| line.get("planned").is_some());
    let (code, error) = plan.ended();
    assert!(
        code == Some(1) && error.contains("has not given its word within 1 s"),
        "{code:?} {error}"
    );
    as_it_was("withdrawn");
}
