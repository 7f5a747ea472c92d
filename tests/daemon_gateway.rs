//! A daemon whose signer is another process: it waits for it, lets it in, loses it, and lets it in again. Wrong credentials, wrong
//! keys and wrong words are refused by name, and the daemon goes on as it was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[allow(dead_code, reason = "tests/daemon.rs uses the rest of it")]
#[path = "support/daemon.rs"]
mod support;

use pilotlight::admin::DataDir;
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::gateway::{TlsFiles, TlsIdentity};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use support::{Daemon, Ended, HANG, lines_of, pilotlight};

fn id(number: u8) -> NodeId {
    LocalKey::from_bytes(&mut [number; 32]).unwrap().node_id()
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn write(path: &Path, text: impl AsRef<[u8]>, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A daemon that waits for the signer of node `number`.
fn gateway_of(number: u8) -> Daemon {
    gateway_with(number, |_| {})
}

fn gateway_with(number: u8, change: impl FnOnce(&mut Command)) -> Daemon {
    Daemon::start_with(|command, _| {
        command.args(["--signer", "gateway", "--signer-listen", "127.0.0.1:0"]);
        command.args(["--node-id", &id(number).to_string()]);
        change(command);
    })
}

/// What the operator carries to the signer's machine, and the key that is there.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn with_key(number: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = format!("{number:02x}").repeat(32);
        write(&folder.path().join("node.key"), key, 0o600);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The two files, as the data directory has them now.
    fn copy_from(&self, daemon: &Daemon) {
        for name in ["signer.cert", "signer.macaroon"] {
            fs::copy(daemon.data.join(name), self.path(name)).unwrap();
        }
    }

    /// Bakes, copies.
    fn provisioned(number: u8, daemon: &Daemon) -> Self {
        let machine = Self::with_key(number);
        daemon.ask(&["bake", "--force"]);
        machine.copy_from(daemon);
        machine
    }

    fn command(&self, daemon: &Daemon) -> Command {
        let mut command = pilotlight();
        command
            .current_dir(self.folder.path())
            .args(["agent", "--json", "--key", "node.key", "--connect"])
            .arg(daemon.text("signer_listen"));
        command
    }

    fn agent(&self, daemon: &Daemon) -> AgentProcess {
        AgentProcess::start(&mut self.command(daemon))
    }
}

/// `pilotlight agent`, running.
struct AgentProcess {
    child: Child,
    lines: Receiver<String>,
}

impl AgentProcess {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(HANG).expect("the agent says more");
        serde_json::from_str(&line).unwrap()
    }

    /// The next event of this name.
    fn until(&self, name: &str) -> Value {
        let started = Instant::now();
        loop {
            let event = self.next();
            if event["event"] == name {
                return event;
            }
            assert!(started.elapsed() < HANG, "no {name}, but {event}");
        }
    }

    /// The next end of an attempt, by its reason.
    fn until_refused(&self, reason: &str) -> String {
        let started = Instant::now();
        loop {
            let event = self.until("waiting");
            let detail = event["detail"].as_str().unwrap().to_owned();
            if event["reason"] == reason {
                return detail;
            }
            assert!(started.elapsed() < HANG, "no {reason}, but {event}");
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    fn kill(mut self) {
        self.signal("-KILL");
        self.child.wait().unwrap();
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until_mode(daemon: &Daemon, mode: &str, epoch: impl Into<Value>) -> Value {
    let epoch = epoch.into();
    daemon.ask_until(&["info"], |info| {
        info["mode"] == mode && info["epoch"] == epoch
    })
}

/// The first session has ended, for this reason. The mode changes first; the report follows once all is torn down.
fn until_lapsed(daemon: &Daemon, reason: &str) -> Value {
    let info = daemon.ask_until(&["info"], |info| !info["last_lapse"].is_null());
    assert_eq!(info["last_lapse"]["reason"], reason);
    assert_eq!((&info["mode"], &info["epoch"]), (&"safe".into(), &1.into()));
    info
}

/// Waits until the daemon has counted a signer that was refused for this reason.
fn until_counted(daemon: &Daemon, reason: &str) {
    let sample = format!("pilotlight_signers_refused_total{{reason=\"{reason}\"}} ");
    let started = Instant::now();
    loop {
        let metrics = daemon.request("GET", "/metrics", "", "").body;
        if metrics.lines().any(|line| line.starts_with(&sample)) {
            return;
        }
        assert!(started.elapsed() < HANG, "no {reason}: {metrics}");
    }
}

#[test]
fn p5_the_daemon_waits_for_its_signer_and_serves_all_else() {
    let daemon = gateway_of(1);
    assert_eq!(daemon.started["mode"], "waiting");
    assert_eq!(daemon.started["node_id"], id(1).to_string());
    assert_eq!(daemon.started["warnings"], serde_json::json!([]));
    for file in ["signer.cert", "signer.key", "macaroon.root"] {
        assert_eq!(mode_of(&daemon.data.join(file)), 0o600, "{file}");
    }
    assert!(
        !daemon.data.join("identity.key").exists(),
        "the key is elsewhere"
    );

    let info = daemon.ask(&["info"]);
    let signer = &info["signer"];
    assert_eq!(
        (&signer["kind"], &signer["attached"], &signer["behind"]),
        (&"gateway".into(), &false.into(), &false.into())
    );
    assert_eq!(signer["listen"], daemon.text("signer_listen"));
    assert!(
        signer["from"].is_null() && info["epoch"].is_null(),
        "{info}"
    );
    let shown = daemon.run(&["info"]).stdout;
    assert!(shown.contains("not attached") && shown.contains(daemon.text("signer_listen")));
    assert_eq!(daemon.request("GET", "/readyz", "", "").status, 200);
    let peer = format!("{}@127.0.0.1:1", id(9));
    daemon.ask(&["peer", "add", &peer, "--tag", "channel-bearing"]);
    let peers = daemon.ask(&["peer", "list"]);
    assert_eq!(peers[0]["state"], "held", "{peers}");

    let (what, _, to_do) = daemon.run(&["signer", "attach", "--json"]).problem(1);
    assert!(what.contains("dials in by itself"), "{what}");
    assert!(what.contains(daemon.text("signer_listen")) && to_do.contains("dial in"));
    let token = daemon.token("admin.token");
    assert_eq!(
        daemon
            .request("POST", "/v1/signer/attach", &token, "")
            .status,
        409
    );
    assert_eq!(
        daemon.run(&["signer", "lapse", "--json"]).problem(1).0,
        "no signer session is live"
    );
}

#[test]
fn an_agent_attaches_is_killed_and_attaches_again_without_a_restart_of_the_daemon() {
    let daemon = gateway_of(1);
    let machine = Machine::provisioned(1, &daemon);
    let first = machine.agent(&daemon);
    assert_eq!(first.next()["node_id"], id(1).to_string());
    first.until("attached");
    let info = until_mode(&daemon, "live", 1);
    assert_eq!(info["signer"]["attached"], true);
    assert_eq!(info["signer"]["from"]["software"], "pilotlight");
    assert!(
        daemon
            .run(&["info"])
            .stdout
            .contains(", attached from 127.0.0.1:")
    );

    first.kill();
    let info = until_lapsed(&daemon, "stream_closed");
    assert_eq!(info["signer"]["attached"], false);

    let second = machine.agent(&daemon);
    second.until("attached");
    until_mode(&daemon, "live", 2);

    // Ended by command, it comes back by itself.
    let lapse = daemon.ask(&["signer", "lapse"]);
    assert_eq!(
        (&lapse["epoch"], &lapse["reason"]),
        (&2.into(), &"requested".into())
    );
    until_mode(&daemon, "live", 3);

    second.signal("-TERM");
    let report = second.until("stopped");
    assert_eq!(report["attached"], 2, "{report}");
    assert!(report["proofs"].as_u64() >= Some(2), "{report}");
    until_mode(&daemon, "safe", 3);
}

#[test]
fn a_signer_that_hangs_is_given_up_and_let_in_again_when_it_goes_on() {
    let daemon = gateway_with(1, |command| {
        command.args(["--liveness-window", "2s"]);
    });
    let machine = Machine::provisioned(1, &daemon);
    let agent = machine.agent(&daemon);
    agent.until("attached");
    // A crowded machine may make it look dead before it is: then it has been let in again.
    let live = daemon.ask_until(&["info"], |info| info["mode"] == "live");
    agent.signal("-STOP");
    daemon.ask_until(&["info"], |info| {
        info["mode"] == "safe" && info["last_lapse"]["reason"] == "liveness_lost"
    });
    agent.signal("-CONT");
    daemon.ask_until(&["info"], |info| {
        info["mode"] == "live" && info["epoch"].as_u64() > live["epoch"].as_u64()
    });
}

#[test]
fn a_second_signer_is_refused_while_the_first_one_answers() {
    let daemon = gateway_of(1);
    let machine = Machine::provisioned(1, &daemon);
    let first = machine.agent(&daemon);
    first.until("attached");
    until_mode(&daemon, "live", 1);
    let second = machine.agent(&daemon);
    second.until("waiting");
    until_counted(&daemon, "signer_conflict");
    let info = daemon.ask(&["info"]);
    assert_eq!((&info["mode"], &info["epoch"]), (&"live".into(), &1.into()));
    // It goes on trying, and is there when the first one is not.
    drop(first);
    until_mode(&daemon, "live", 2);
}

#[test]
fn a_key_on_standard_input_is_enough() {
    let daemon = gateway_of(1);
    let machine = Machine::provisioned(1, &daemon);
    let mut command = pilotlight();
    command
        .args(["agent", "--json", "--key", "-", "--connect"])
        .arg(daemon.text("signer_listen"))
        .arg("--certificate")
        .arg(machine.path("signer.cert"))
        .arg("--macaroon")
        .arg(machine.path("signer.macaroon"))
        .stdin(Stdio::piped());
    let mut agent = AgentProcess::start(&mut command);
    let mut stdin = agent.child.stdin.take().unwrap();
    // The pipe stays open: one line is all that is waited for.
    writeln!(stdin, "{}", "01".repeat(32)).unwrap();
    agent.until("attached");
    until_mode(&daemon, "live", 1);
}

#[test]
fn a_renewed_certificate_is_shown_at_once_and_the_old_pin_is_refused_by_name() {
    let daemon = gateway_of(1);
    let machine = Machine::provisioned(1, &daemon);
    let agent = machine.agent(&daemon);
    agent.until("attached");
    until_mode(&daemon, "live", 1);

    let before = daemon.ask(&["info"])["signer"]["certificate_sha256"].clone();
    let renewed = daemon.ask(&["signer", "renew-certificate", "--host", "node.example"]);
    assert_eq!(renewed["daemon_runs"], true);
    assert_eq!(renewed["hosts"], serde_json::json!(["node.example"]));
    assert_ne!(renewed["sha256"], before);
    let info = daemon.ask(&["info"]);
    assert_eq!(info["signer"]["certificate_sha256"], renewed["sha256"]);
    assert_eq!((&info["mode"], &info["epoch"]), (&"live".into(), &1.into()));

    daemon.ask(&["signer", "lapse"]);
    let detail = agent.until_refused("other_certificate");
    assert!(detail.contains("another certificate"), "{detail}");
    // The files are read again at every dial.
    machine.copy_from(&daemon);
    agent.until("attached");
    until_mode(&daemon, "live", 2);
    until_counted(&daemon, "tls_certificate_refused");
}

#[test]
fn a_rotated_root_key_makes_every_earlier_macaroon_worthless_at_once() {
    let daemon = gateway_of(1);
    let machine = Machine::provisioned(1, &daemon);
    let agent = machine.agent(&daemon);
    agent.until("attached");
    until_mode(&daemon, "live", 1);
    let rotated = daemon.ask(&["bake", "--force", "--rotate-root-key"]);
    assert_eq!(
        (
            &rotated["root_key"],
            &rotated["root_key_rotated"],
            &rotated["daemon_runs"]
        ),
        (&1.into(), &true.into(), &true.into())
    );
    let info = daemon.ask(&["info"]);
    assert_eq!(
        (&info["mode"], &info["signer"]["root_key"]),
        (&"live".into(), &1.into())
    );

    daemon.ask(&["signer", "lapse"]);
    let detail = agent.until_refused("denied");
    assert!(detail.contains("another root key"), "{detail}");
    until_counted(&daemon, "macaroon_root_key");
    machine.copy_from(&daemon);
    agent.until("attached");
    until_mode(&daemon, "live", 2);
}

#[test]
fn a_macaroon_that_is_for_elsewhere_or_over_is_refused_by_name() {
    let daemon = gateway_of(1);
    for (arguments, label, words) in [
        (["--ip", "192.0.2.9"], "macaroon_address", "another address"),
        (["--expires", "1ms"], "macaroon_expired", "expired"),
    ] {
        let machine = Machine::with_key(1);
        let baked = daemon.ask(&[&["bake", "--force"], arguments.as_slice()].concat());
        machine.copy_from(&daemon);
        if let Some(end) = baked["expires"].as_u64() {
            // Whole seconds: what was baked for a moment is good until the next but one.
            let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
            while now() < end {
                std::thread::yield_now();
            }
        }
        let agent = machine.agent(&daemon);
        let detail = agent.until_refused("denied");
        assert!(detail.contains(words), "{detail}");
        until_counted(&daemon, label);
    }
    assert_eq!(daemon.ask(&["info"])["mode"], "waiting");
}

#[test]
fn the_signer_of_another_node_is_refused_by_name_and_the_daemon_stays_as_it_is() {
    let daemon = gateway_of(1);
    let mut events = pilotlight();
    events
        .arg("events")
        .arg("--data-dir")
        .arg(&daemon.data)
        .stdout(Stdio::piped());
    let mut events = events.spawn().unwrap();
    let seen = lines_of(events.stdout.take().unwrap());

    let right = Machine::provisioned(1, &daemon);
    let wrong = Machine::with_key(2);
    wrong.copy_from(&daemon);
    let impostor = wrong.agent(&daemon);
    let refusal = impostor.until("waiting")["detail"].to_string();
    let words = format!("the signer holds the key of node {}", id(2));
    let named = refusal.contains(&words) || refusal.contains("held off");
    assert!(named, "{refusal}");
    assert_eq!(daemon.ask(&["info"])["mode"], "waiting");
    until_counted(&daemon, "other_node");
    // Its later attempts are refused too, and the stream of events is open by one of them.
    let line = loop {
        let line = seen.recv_timeout(HANG).expect("an event");
        if line.contains("signer_refused") {
            break line;
        }
    };
    assert!(
        line.contains(" addr=127.0.0.1:") && line.contains(" reason="),
        "{line}"
    );
    events.kill().unwrap();
    events.wait().unwrap();

    drop(impostor);
    // With a macaroon of its own: the impostor's is held off.
    daemon.ask(&["bake", "--force"]);
    right.copy_from(&daemon);
    let agent = right.agent(&daemon);
    agent.until("attached");
    until_mode(&daemon, "live", 1);
    let impostor = wrong.agent(&daemon);
    impostor.until("waiting");
    assert_eq!(daemon.ask(&["info"])["mode"], "live");
    assert_eq!(daemon.ask(&["info"])["epoch"], 1);
}

#[test]
fn a_key_is_made_once_and_shown_by_its_node_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.key");
    let typo = Ended::of(pilotlight().args(["key", "--json"]).arg(&path)).problem(2);
    assert!(
        typo.0.contains("no key file") && typo.2.contains("pilotlight key --new"),
        "{typo:?}"
    );
    assert!(!path.exists(), "looking makes nothing");
    let made = Ended::of(pilotlight().args(["key", "--new"]).arg(&path));
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.stderr.contains("made a new key"), "{made:?}");
    assert_eq!(mode_of(&path), 0o600);
    let node: NodeId = made.stdout.trim().parse().expect("the id, alone");
    let again = Ended::of(pilotlight().args(["key", "--json"]).arg(&path)).json();
    assert_eq!(
        (&again["node_id"], &again["made"]),
        (&node.to_string().into(), &false.into())
    );
    let kept = fs::read(&path).unwrap();
    let twice = Ended::of(pilotlight().args(["key", "--new", "--json"]).arg(&path)).problem(2);
    assert!(twice.0.contains(&node.to_string()), "{twice:?}");
    assert_eq!(fs::read(&path).unwrap(), kept);
    let mut command = pilotlight();
    command.current_dir(folder.path()).args(["key", "-"]);
    let piped = Ended::of(command.stdin(fs::File::open(&path).unwrap()));
    assert_eq!(
        (piped.code, piped.stdout.trim()),
        (0, node.to_string().as_str())
    );
    assert!(!folder.path().join("-").exists());
}

/// `bake`, `signer renew-certificate` and the like on this data directory.
fn offline(data: &Path, arguments: &[&str]) -> Ended {
    let mut command = pilotlight();
    Ended::of(
        command
            .args(arguments)
            .arg("--json")
            .arg("--data-dir")
            .arg(data),
    )
}

#[test]
fn a_renewed_certificate_keeps_the_names_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let baked = offline(&data, &["bake", "--signer-listen", "192.0.2.1:9740"]).json();
    assert_eq!(baked["warnings"], serde_json::json!([]));
    let renew = |more: &[&str]| {
        let mut arguments = vec!["signer", "renew-certificate"];
        arguments.extend(more);
        offline(&data, &arguments).json()
    };
    let named = |renewed: &Value, hosts: &[&str]| {
        let mut names: Vec<&str> = renewed["hosts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|host| host.as_str().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, hosts);
    };
    named(
        &renew(&["--host", "node.example"]),
        &["192.0.2.1", "node.example"],
    );
    named(&renew(&[]), &["192.0.2.1", "node.example"]);
    // With the running daemon's beside them.
    let daemon = Daemon::start_on(&data, |command, _| {
        command.args(["--signer", "gateway", "--signer-listen", "127.0.0.1:0"]);
        command.args([
            "--node-id",
            &id(1).to_string(),
            "--signer-host",
            "daemon.example",
        ]);
    });
    let all = ["192.0.2.1", "daemon.example", "node.example"];
    named(&renew(&[]), &all);
    assert_eq!(
        daemon.ask(&["bake", "--force"])["warnings"],
        serde_json::json!([])
    );
    drop(daemon);
    // A pair that was torn apart is mended with the names that it had.
    fs::write(
        data.join("signer.key"),
        fs::read(data.join("signer.cert")).unwrap(),
    )
    .unwrap();
    named(
        &renew(&["--signer-listen", "192.0.2.2:1"]),
        &["192.0.2.1", "192.0.2.2", "daemon.example", "node.example"],
    );
    // Names go when that is asked for, and it is said which.
    let fewer = renew(&["--drop-other-names", "--host", "node.example"]);
    named(&fewer, &["node.example"]);
    assert_eq!(
        fewer["dropped_hosts"].as_array().unwrap().len(),
        3,
        "{fewer}"
    );

    let lacking = offline(&data, &["bake", "--force", "--signer-host", "x.example"]).json();
    let warning = lacking["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("does not name x.example"), "{warning}");
}

#[test]
fn a_pair_that_was_torn_apart_is_named_with_the_whole_command_that_mends_it() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    offline(folder.path(), &["bake"]).json();
    offline(other.path(), &["bake"]).json();
    fs::copy(
        other.path().join("signer.key"),
        folder.path().join("signer.key"),
    )
    .unwrap();
    let (what, _, to_do) = offline(
        folder.path(),
        &["bake", "--force", "--signer-host", "node.example"],
    )
    .problem(2);
    assert!(what.contains("do not belong together"), "{what}");
    let command = format!(
        "`pilotlight signer renew-certificate --data-dir {} --host node.example`",
        folder.path().display()
    );
    assert!(to_do.contains(&command), "{to_do}");
}

#[test]
fn a_rotation_whose_macaroon_cannot_be_written_does_not_happen() {
    let folder = tempfile::tempdir().unwrap();
    offline(folder.path(), &["bake"]).json();
    let root = folder.path().join("macaroon.root");
    let before = fs::read(&root).unwrap();
    let (what, _, to_do) = offline(
        folder.path(),
        &[
            "bake",
            "--rotate-root-key",
            "--force",
            "--out",
            "/nonexistent/m",
        ],
    )
    .problem(2);
    assert!(
        what.contains("/nonexistent/m") && to_do.contains("--out"),
        "{what}"
    );
    assert_eq!(
        fs::read(&root).unwrap(),
        before,
        "the earlier macaroons are still good"
    );
    // A place that nothing can be renamed to is found too late; that is said.
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    let out = taken.display().to_string();
    let late = offline(
        folder.path(),
        &["bake", "--rotate-root-key", "--force", "--out", &out],
    );
    let (what, _, _) = late.problem(2);
    assert!(what.contains("the root key is another now"), "{what}");
    assert_ne!(fs::read(&root).unwrap(), before);
    let left = fs::read_dir(folder.path()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.contains(".draft")));
}

#[test]
fn commands_at_once_leave_credentials_that_belong_together() {
    for _ in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let start = |command: &mut Command| {
            command
                .arg("--data-dir")
                .arg(&data)
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        let bakes: Vec<Child> = (0..4)
            .map(|number| {
                let out = folder.path().join(number.to_string());
                start(pilotlight().args(["bake", "--out"]).arg(out))
            })
            .collect();
        for mut bake in bakes {
            assert!(bake.wait().unwrap().success());
        }
        TlsIdentity::load(&TlsFiles::in_directory(&data)).unwrap();
        let rotations: Vec<Child> = (0..3)
            .map(|number| {
                let out = folder.path().join(number.to_string());
                start(
                    pilotlight()
                        .args(["bake", "--rotate-root-key", "--force", "--out"])
                        .arg(out),
                )
            })
            .collect();
        for mut rotation in rotations {
            assert!(rotation.wait().unwrap().success());
        }
        let root = fs::read_to_string(data.join("macaroon.root")).unwrap();
        assert!(root.starts_with("3 "), "each rotation counts");
    }
}

#[test]
fn an_agent_says_each_thing_once_and_with_json_nothing_else() {
    let daemon = gateway_of(1);
    let machine = Machine::provisioned(1, &daemon);
    // A certificate of another: refused at every dial, by this side.
    let other = tempfile::tempdir().unwrap();
    offline(other.path(), &["bake"]).json();
    fs::copy(
        other.path().join("signer.cert"),
        machine.path("signer.cert"),
    )
    .unwrap();
    fs::set_permissions(
        machine.path("signer.macaroon"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let mut agent = AgentProcess::start(machine.command(&daemon).stderr(Stdio::piped()));
    let warned = agent.next();
    assert_eq!(warned["event"], "warning");
    assert!(
        warned["detail"].as_str().unwrap().contains("mode 644"),
        "{warned}"
    );
    assert_eq!(agent.next()["event"], "started");
    let mut last = Value::Null;
    for _ in 0..4 {
        let event = agent.next();
        assert_ne!(event, last, "said twice");
        last = event;
    }
    agent.signal("-TERM");
    agent.until("stopped");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut agent.child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn a_signer_with_old_files_is_named_in_the_log_and_in_info() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let daemon = gateway_with(1, |command| {
        command.stderr(fs::File::create(&log).unwrap());
    });
    let machine = Machine::provisioned(1, &daemon);
    // The macaroon of another data directory: one that nobody copied over.
    let other = tempfile::tempdir().unwrap();
    offline(other.path(), &["bake"]).json();
    fs::copy(
        other.path().join("signer.macaroon"),
        machine.path("signer.macaroon"),
    )
    .unwrap();
    let agent = machine.agent(&daemon);
    agent.until_refused("denied");
    agent.until_refused("denied");
    until_counted(&daemon, "macaroon_signature");
    let lines = |reason: &str| {
        let said = fs::read_to_string(&log).unwrap();
        let lines = said
            .lines()
            .filter(|line| line.contains("WARN") && line.contains(reason));
        lines.count()
    };
    assert_eq!(
        lines("macaroon_signature"),
        1,
        "once, and not at every dial"
    );
    let info = daemon.ask(&["info"]);
    assert_eq!(
        info["signer"]["last_refusal"]["reason"], "macaroon_signature",
        "{info}"
    );
    let shown = daemon.run(&["info"]).stdout;
    assert!(
        shown.contains("last refused") && shown.contains("(macaroon_signature), from 127.0.0.1:"),
        "{shown}"
    );
    // And a certificate that nobody copied over.
    fs::copy(
        other.path().join("signer.cert"),
        machine.path("signer.cert"),
    )
    .unwrap();
    agent.until_refused("other_certificate");
    until_counted(&daemon, "tls_certificate_refused");
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("it does not take our certificate"), "{said}");
}

#[test]
fn a_daemon_that_hangs_is_said_to_hang() {
    let daemon = gateway_of(1);
    daemon.signal("-STOP");
    let ended = daemon.run(&["info", "--json"]);
    daemon.signal("-CONT");
    let (what, _, _) = ended.problem(1);
    assert!(
        what.contains("did not answer within") && what.contains("hangs"),
        "{what}"
    );
}

#[test]
fn baking_needs_no_daemon_and_a_daemon_takes_what_was_baked() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let bake = |arguments: &[&str]| {
        let mut command = pilotlight();
        Ended::of(
            command
                .args(["bake", "--data-dir"])
                .arg(&data)
                .args(arguments),
        )
    };
    let baked = bake(&[
        "--json",
        "--signer-host",
        "node.example",
        "--expires",
        "90d",
    ])
    .json();
    assert_eq!(baked["daemon_runs"], false);
    let agent = baked["agent"].as_str().unwrap();
    assert!(agent.contains("--connect node.example:9740 "), "{agent}");
    for file in [
        "signer.cert",
        "signer.key",
        "signer.macaroon",
        "macaroon.root",
    ] {
        assert_eq!(mode_of(&data.join(file)), 0o600, "{file}");
    }
    let again = bake(&["--json"]).problem(2);
    assert!(
        again.0.contains("not written over") && again.2.contains("--force"),
        "{again:?}"
    );
    let forced = bake(&["--force", "--ip", "192.0.2.1"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    for part in [
        "signer.macaroon",
        "signer.cert",
        "from 192.0.2.1 only",
        "pilotlight agent --connect",
    ] {
        assert!(forced.stdout.contains(part), "{part}: {}", forced.stdout);
    }
    let renewed = Ended::of(
        pilotlight()
            .args([
                "signer",
                "renew-certificate",
                "--host",
                "node.example",
                "--data-dir",
            ])
            .arg(&data),
    );
    assert!(
        renewed
            .stdout
            .contains("names        localhost, 127.0.0.1, ::1, node.example"),
        "{renewed:?}"
    );
    let certificate = fs::read(data.join("signer.cert")).unwrap();

    let mut command = pilotlight();
    command.args([
        "run",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    command.args(["--signer", "gateway", "--signer-listen", "127.0.0.1:0"]);
    command.args([
        "--signer-host",
        "node.example,other.example",
        "--node-id",
        &id(1).to_string(),
    ]);
    let mut child = command
        .arg("--data-dir")
        .arg(&data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let started = lines_of(child.stdout.take().unwrap())
        .recv_timeout(HANG)
        .unwrap();
    let started: Value = serde_json::from_str(&started).unwrap();
    let warning = started["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("does not name other.example"), "{warning}");
    assert!(warning.contains("renew-certificate") && warning.contains("--host other.example"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        fs::read(data.join("signer.cert")).unwrap(),
        certificate,
        "what is there is kept"
    );
}

#[test]
fn the_settings_come_from_file_environment_and_flags() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let daemon = Daemon::start_with(|command, folder| {
        let path = folder.join("p.toml");
        let text = format!(
            "node_id = \"{}\"\n[signer]\nkind = \"gateway\"\nlisten = \"{taken}\"\nhosts = [\"file.example\"]\nliveness_window = \"7s\"\n",
            id(1)
        );
        fs::write(&path, text).unwrap();
        command.arg("--config").arg(path);
        command.env("PILOTLIGHT_SIGNER_HOSTS", "a.example,192.0.2.7");
        command.env("PILOTLIGHT_LIVENESS_WINDOW", "2s");
        command.args(["--signer-listen", "127.0.0.1:0"]);
    });
    let signer = daemon.ask(&["info"])["signer"].clone();
    assert_eq!(
        signer["hosts"],
        serde_json::json!(["a.example", "192.0.2.7"])
    );
    assert_ne!(signer["listen"], taken);
    // Renewed without words, the running daemon's names are kept.
    let renewed = daemon.ask(&["signer", "renew-certificate"]);
    assert_eq!(renewed["hosts"], signer["hosts"]);
}

#[test]
fn reloading_needs_the_admin_token_and_files_that_are_right() {
    let daemon = gateway_of(1);
    let (reads, changes) = (daemon.token("readonly.token"), daemon.token("admin.token"));
    let reload = |token: &str| daemon.request("POST", "/v1/signer/reload", token, "");
    assert_eq!(reload("").status, 401);
    assert_eq!(reload(&reads).status, 403);
    let answer = reload(&changes);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["listen"], daemon.text("signer_listen"));

    let root = daemon.data.join("macaroon.root");
    let kept = fs::read(&root).unwrap();
    write(&root, "nonsense", 0o600);
    let broken = reload(&changes);
    assert_eq!(broken.status, 500);
    assert!(
        broken.what().contains("holds no root key"),
        "{}",
        broken.what()
    );
    write(&root, &kept, 0o640);
    assert!(reload(&changes).what().contains("open to others"));
    write(&root, &kept, 0o600);

    let machine = Machine::provisioned(1, &daemon);
    machine.agent(&daemon).until("attached");

    let embedded = Daemon::start();
    let token = embedded.token("admin.token");
    let answer = embedded.request("POST", "/v1/signer/reload", &token, "");
    assert_eq!(answer.status, 409);
    assert!(answer.what().contains("no signer dials in here"));
    assert_eq!(embedded.ask(&["info"])["signer"]["kind"], "embedded");
    assert!(
        embedded
            .run(&["info"])
            .stdout
            .contains("signer      embedded, attached")
    );
    assert_eq!(embedded.ask(&["bake"])["daemon_runs"], false);
}

#[test]
fn an_expired_certificate_is_spoken_of_at_the_start_and_renewed_while_the_daemon_runs() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    let daemon = Daemon::start_with(|command, folder| {
        let data = folder.join("data");
        DataDir::at(&data).prepare().unwrap();
        let then = now.saturating_sub(Duration::from_secs(500 * 86_400));
        TlsIdentity::renew(&TlsFiles::in_directory(&data), &[], then).unwrap();
        command.args(["--signer", "gateway", "--signer-listen", "127.0.0.1:0"]);
        command.args(["--node-id", &id(1).to_string()]);
    });
    let warning = daemon.started["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("certificate expired on 2"), "{warning}");
    assert!(warning.contains("renew-certificate"), "{warning}");
    let ends = || {
        let info = daemon.ask(&["info"]);
        info["signer"]["certificate_expires"].as_u64().unwrap()
    };
    assert!(ends() < now.as_secs());
    daemon.ask(&["signer", "renew-certificate"]);
    assert!(ends() > now.as_secs());
}

#[test]
fn an_agent_says_in_plain_lines_what_it_does() {
    let daemon = gateway_of(1);
    let machine = Machine::provisioned(1, &daemon);
    let mut command = pilotlight();
    command
        .current_dir(machine.folder.path())
        .args(["agent", "--key", "node.key", "--connect"])
        .arg(daemon.text("signer_listen"));
    let agent = AgentProcess::start(&mut command);
    let until = |words: &str| {
        let started = Instant::now();
        loop {
            let line = agent.lines.recv_timeout(HANG).expect("a line");
            if line.starts_with(words) {
                return line;
            }
            assert!(started.elapsed() < HANG, "no {words}, but {line}");
        }
    };
    until(&format!("the signer of {}", id(1)));
    until("attached");
    agent.signal("-INT");
    let report = until("stopped; answered ");
    assert!(report.ends_with("attached 1 times in 1 dials"), "{report}");
}

/// `run --signer gateway` with this, which is expected to fail.
fn run_fails(arguments: &[&str], config: &str, code: i32) -> (String, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.toml");
    fs::write(&path, config).unwrap();
    let mut command = pilotlight();
    command
        .args([
            "run",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ])
        .args(["--signer-listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"))
        .arg("--config")
        .arg(path)
        .args(arguments);
    let ended = Ended::of(&mut command).problem(code);
    if code == 2 {
        assert!(
            !folder.path().join("data/signer.cert").exists(),
            "nothing is made"
        );
    }
    ended
}

#[test]
fn a_gateway_with_wrong_settings_is_refused_by_name() {
    let node = id(1).to_string();
    let gateway = ["--signer", "gateway", "--node-id", node.as_str()];
    let with = |more: &[&'static str]| [gateway.as_slice(), more].concat();

    let (what, place, to_do) = run_fails(&["--signer", "gateway"], "", 2);
    assert!(what.contains("no trust on first use"), "{what}");
    assert!(
        place == "--node-id" && to_do.contains("pilotlight key"),
        "{place} {to_do}"
    );
    for (window, part) in [
        ("999ms", "too short"),
        ("0s", "too short"),
        ("61s", "too long"),
        ("36525d", "too long"),
        ("3", "unit is missing"),
        ("soon", "unit is unknown"),
    ] {
        let (what, place, _) = run_fails(
            &[gateway.as_slice(), &["--liveness-window", window]].concat(),
            "",
            2,
        );
        assert!(
            what.contains(part) && place == "--liveness-window",
            "{window}: {what} {place}"
        );
    }
    for host in ["node.example:9740", "https://node.example", "a b", ""] {
        let (what, place, _) = run_fails(
            &[gateway.as_slice(), &["--signer-host", host]].concat(),
            "",
            2,
        );
        assert!(
            what.contains("neither a host name nor an address"),
            "{host}: {what}"
        );
        assert_eq!(place, "--signer-host");
    }
    let (what, place, _) = run_fails(&gateway, "[signer]\nhost = \"a\"\n", 2);
    assert_eq!(
        what,
        "unknown key \"host\"; the nearest known one is \"hosts\""
    );
    assert!(place.ends_with("p.toml, line 2"), "{place}");
    let (what, place, _) = run_fails(&with(&[]), "[signer]\n\nliveness_window = \"5\"\n", 2);
    assert!(
        what.contains("unit is missing") && place.ends_with("line 3"),
        "{what} {place}"
    );
    let (_, place, to_do) = run_fails(&["--node-id", &node], "[signer]\nkind = \"usb\"\n", 2);
    assert!(
        place.ends_with("line 2") && to_do.contains("embedded, gateway"),
        "{place} {to_do}"
    );

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let mut command = pilotlight();
    command
        .args([
            "run",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ])
        .args(gateway)
        .args(["--signer-listen", &taken, "--data-dir"])
        .arg(folder.path().join("data"));
    let (what, place, _) = Ended::of(&mut command).problem(1);
    assert!(
        what.contains("in use") && place == format!("--signer-listen {taken}"),
        "{what} {place}"
    );
}

#[test]
fn gateway_files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let baked = Ended::of(pilotlight().args(["bake", "--data-dir"]).arg(&data));
    assert_eq!(baked.code, 0, "{baked:?}");
    let run = || {
        let mut command = pilotlight();
        command.args([
            "run",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        command.args([
            "--signer",
            "gateway",
            "--node-id",
            &id(1).to_string(),
            "--data-dir",
        ]);
        Ended::of(command.arg(&data)).problem(2)
    };
    let key = data.join("signer.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (what, place, to_do) = run();
    assert!(what.contains("open to others (mode 644)"), "{what}");
    assert!(
        place.ends_with("signer.key") && to_do.contains("chmod 600"),
        "{place} {to_do}"
    );
    write(&key, "no key", 0o600);
    assert!(run().0.contains("holds no private key"));
    fs::remove_file(data.join("signer.cert")).unwrap();
    let (what, _, to_do) = run();
    assert!(
        what.contains("do not belong together") || what.contains("holds no"),
        "{what}"
    );
    assert!(!to_do.is_empty());
}

/// `agent` with this, which is expected to fail before it dials.
fn agent_fails(machine: &Machine, arguments: &[&str]) -> (String, String, String) {
    let mut command = pilotlight();
    command
        .current_dir(machine.folder.path())
        .args(["agent", "--json"])
        .args(arguments);
    Ended::of(&mut command).problem(2)
}

#[test]
fn an_agent_with_wrong_words_or_files_says_what_to_do() {
    let machine = Machine::with_key(1);
    let baked = Ended::of(
        pilotlight()
            .args(["bake", "--data-dir"])
            .arg(machine.path("data")),
    );
    assert_eq!(baked.code, 0, "{baked:?}");
    let dial = ["--connect", "127.0.0.1:1", "--key"];
    let with_key = |key: &'static str| [dial.as_slice(), &[key]].concat();

    let (what, place, to_do) = agent_fails(&machine, &with_key("node.key"));
    assert!(what.contains("cannot read signer.cert"), "{what}");
    assert!(
        place == "signer.cert" && to_do.contains("--certificate"),
        "{place} {to_do}"
    );
    fs::copy(
        machine.path("data/signer.cert"),
        machine.path("signer.cert"),
    )
    .unwrap();
    let (what, _, to_do) = agent_fails(&machine, &with_key("node.key"));
    assert!(
        what.contains("cannot read signer.macaroon") && to_do.contains("--macaroon"),
        "{what}"
    );
    write(&machine.path("signer.macaroon"), "text", 0o600);
    assert!(
        agent_fails(&machine, &with_key("node.key"))
            .0
            .contains("holds no macaroon")
    );
    fs::copy(
        machine.path("data/signer.macaroon"),
        machine.path("signer.macaroon"),
    )
    .unwrap();

    let (what, _, to_do) = agent_fails(&machine, &with_key("nothing.key"));
    assert!(
        what.contains("no key file") && to_do.contains("pilotlight key"),
        "{what} {to_do}"
    );
    let secret = "11".repeat(32);
    write(&machine.path("open.key"), &secret, 0o640);
    let (what, _, to_do) = agent_fails(&machine, &with_key("open.key"));
    assert!(
        what.contains("open to others (mode 640)") && to_do.contains("chmod 600"),
        "{what}"
    );
    assert!(!what.contains(&secret));
    write(&machine.path("short.key"), "11", 0o600);
    assert!(
        agent_fails(&machine, &with_key("short.key"))
            .0
            .contains("holds 2 characters")
    );
    for wrong in ["127.0.0.1", "127.0.0.1:0", ":9740", "a b:1"] {
        let (what, place, to_do) =
            agent_fails(&machine, &["--connect", wrong, "--key", "node.key"]);
        assert!(
            what.contains("malformed address") && place == "--connect",
            "{wrong}: {what}"
        );
        assert!(to_do.contains("9740"), "{to_do}");
    }
}

#[test]
fn garbage_on_standard_input_is_no_key() {
    let machine = Machine::with_key(1);
    let baked = Ended::of(
        pilotlight()
            .args(["bake", "--data-dir"])
            .arg(machine.folder.path().join("data")),
    );
    assert_eq!(baked.code, 0, "{baked:?}");
    for (text, part) in [
        ("", "holds 0 characters"),
        ("correct horse battery staple\n", "holds 28 characters"),
        (&"zz".repeat(32), "position 1 of 64"),
        (&"00".repeat(32), "is zero"),
    ] {
        let mut command = pilotlight();
        command
            .current_dir(machine.path("data"))
            .args(["agent", "--json", "--connect", "127.0.0.1:1", "--key", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let ended = Ended {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        let (what, place, _) = ended.problem(2);
        assert!(
            what.contains(part) && place == "standard input",
            "{what} {place}"
        );
        assert!(!what.contains("key file"), "{what}");
    }
}

#[test]
fn a_macaroon_or_certificate_with_wrong_words_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let fails = |arguments: &[&str]| {
        let mut command = pilotlight();
        let ended = Ended::of(
            command
                .args(arguments)
                .arg("--json")
                .arg("--data-dir")
                .arg(&data),
        );
        assert!(!data.exists(), "nothing is made: {arguments:?}");
        ended.problem(2)
    };
    let (what, place, _) = fails(&["bake", "--expires", "ninety"]);
    assert!(
        what.contains("malformed duration") && place == "--expires",
        "{what} {place}"
    );
    assert!(
        fails(&["bake", "--expires", "0d"])
            .0
            .contains("good for no time")
    );
    assert!(fails(&["bake", "--ip", "node.example"]).0.contains("--ip"));
    assert!(
        fails(&["bake", "--signer-host", "a:1"])
            .0
            .contains("neither a host name")
    );
    assert!(
        fails(&["signer", "renew-certificate", "--host", "a:1"])
            .0
            .contains("neither a host name")
    );
    let blocked = folder.path().join("file");
    fs::write(&blocked, "").unwrap();
    let mut command = pilotlight();
    let ended = Ended::of(
        command
            .args(["bake", "--json", "--out"])
            .arg(blocked.join("m"))
            .arg("--data-dir")
            .arg(&data),
    );
    assert!(ended.problem(2).2.contains("--out"));
}
