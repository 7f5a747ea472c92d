//! A daemon that is killed during an absence of its signer, and started again: the peer book and a persona bring the gossip floor back,
//! and nobody waits for the signer. With the real binary and peers on real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod rig;
#[path = "support/daemon.rs"]
#[allow(
    dead_code,
    reason = "shared with tests/daemon.rs, which uses all of it"
)]
mod support;

use pilotlight::limits;
use pilotlight::node_id::NodeId;
use rig::{Far, Wire, key};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use support::{Daemon, HANG, lines_of, pilotlight};
use tokio::sync::mpsc;

/// More peers than the floor needs.
const PEERS: u64 = 8;

/// A peer that takes every connection and tells which key came.
fn open(number: u64, told: mpsc::UnboundedSender<NodeId>) -> (NodeId, String) {
    let far = Far::listen(number);
    let (id, place) = (far.id, format!("{}@{}", far.id, far.address));
    tokio::spawn(async move {
        loop {
            let Wire { mut reader, writer } = far.accept_any().await;
            let _ = told.send(reader.remote);
            tokio::spawn(async move {
                while reader.next().await.is_some() {}
                drop(writer);
            });
        }
    });
    (id, place)
}

/// A daemon on this directory that waits for a signer which never comes.
fn start(data: &Path) -> Daemon {
    Daemon::start_on(data, |command, folder| {
        let file = folder.join("pilotlight.toml");
        // What the operator has said of the peers stands in the book, and the book is right.
        std::fs::write(&file, "peers_declared = true\n").unwrap();
        command.arg("--config").arg(file);
        command.args(["--signer", "gateway", "--signer-listen", "127.0.0.1:0"]);
        command.args(["--node-id", &key(rig::NODE).node_id().to_string()]);
    })
}

/// All events from the daemon's start until the floor is whole: as many links under a persona as there shall be.
fn until_whole(daemon: &Daemon) -> Vec<Value> {
    let mut following = pilotlight()
        .args(["events", "--json", "--history", "--data-dir"])
        .arg(&daemon.data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = lines_of(following.stdout.take().unwrap());
    let mut events: Vec<Value> = Vec::new();
    while ups(&events).count() < limits::GOSSIP_FLOOR {
        let line = lines.recv_timeout(HANG).expect("the floor comes back");
        events.push(serde_json::from_str(&line).unwrap());
    }
    following.kill().unwrap();
    following.wait().unwrap();
    events
}

fn ups(events: &[Value]) -> impl Iterator<Item = &Value> {
    events
        .iter()
        .filter(|event| event["event"] == "link_up" && event["identity"] == "persona")
}

fn at(event: &Value) -> f64 {
    event["at"].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_daemon_killed_in_an_absence_has_its_floor_back_after_the_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (told, mut came) = mpsc::unbounded_channel();
    let mut daemon = start(&data);
    let mut known = BTreeSet::new();
    for number in 1..=PEERS {
        let (id, place) = open(number, told.clone());
        daemon.ask(&["peer", "add", &place, "--tag", "gossip-only"]);
        known.insert(id.to_string());
    }
    until_whole(&daemon);
    let mut keys = BTreeSet::new();
    for _ in 0..limits::GOSSIP_FLOOR {
        keys.insert(came.recv().await.unwrap());
    }
    assert_eq!(keys.len(), 1, "one persona an absence");
    daemon.signal("-KILL");
    assert!(!daemon.ended().success());
    drop(daemon);
    while came.try_recv().is_ok() {}

    // Nobody says anything to the new one: the book does.
    let daemon = start(&data);
    let events = until_whole(&daemon);
    let peers: BTreeSet<&str> = ups(&events)
        .map(|event| event["node_id"].as_str().unwrap())
        .collect();
    assert_eq!(peers.len(), limits::GOSSIP_FLOOR);
    assert!(peers.iter().all(|peer| known.contains(*peer)));
    // The way there: listening, the grace, one dial of each, and its link. Nothing failed and was waited out.
    let first = |name: &str| events.iter().find(|event| event["event"] == name);
    for absent in ["dial_failed", "signer_attached", "link_down"] {
        assert_eq!(first(absent), None);
    }
    for peer in &peers {
        let dials = events
            .iter()
            .filter(|event| event["event"] == "dialing" && event["node_id"] == *peer);
        assert_eq!(dials.count(), 1, "{peer}");
    }
    let info = daemon.ask(&["info"]);
    assert_eq!(info["mode"], "waiting");
    let dialled = at(first("dialing").unwrap());
    let whole = ups(&events).map(at).fold(0.0, f64::max);
    let since = info["since"].as_f64().unwrap();
    for _ in 0..limits::GOSSIP_FLOOR {
        let key = came.recv().await.unwrap();
        assert!(!keys.contains(&key), "a new process has a new persona");
    }
    println!(
        "restart in an absence: {:.0} ms from the start to the first dial (grace {} ms), floor of {} whole after {:.0} ms; asked for: 2000 ms",
        (dialled - since) * 1e3,
        limits::PERSONA_GRACE.as_millis(),
        limits::GOSSIP_FLOOR,
        (whole - since) * 1e3,
    );
    assert!(limits::PERSONA_GRACE < Duration::from_secs(1));
}
