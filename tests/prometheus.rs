//! The real Prometheus scrapes the real daemon through a lapse and a return, and every query of the dashboards and every alert is put to
//! it. Needs Debian's package `prometheus`; `bash .ci/run prometheus` installs it and runs this.
//!
//! The node's signer is an agent in a process of its own, its peers are LDK's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "support/daemon.rs"]
#[allow(dead_code)]
mod daemon;
#[path = "support/dashboards.rs"]
#[allow(dead_code)]
mod dashboards;
#[path = "support/ldk_handlers.rs"]
#[allow(dead_code)]
mod ldk_handlers;
#[path = "support/ldk_peer.rs"]
#[allow(dead_code)]
mod ldk_peer;
#[path = "support/prometheus.rs"]
#[allow(dead_code)]
mod prometheus;
#[path = "support/signed_region.rs"]
#[allow(dead_code)]
mod signed_region;
#[path = "support/watched.rs"]
#[allow(dead_code)]
mod watched;

use daemon::{Daemon, pilotlight};
use dashboards::{DASHBOARDS, Query, alerts, fill, path, queries, selectors, text};
use ldk_peer::LdkPeer;
use pilotlight::node_id::{LocalKey, NodeId};
use prometheus::{Prometheus, promtool};
use signed_region::Region;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Queries that find nothing here, and why that is right.
const EMPTY_QUERIES: [(&str, &str); 4] = [
    (
        "pilotlight.json: Pong round trip: A",
        "a ping leaves after half a minute of silence",
    ),
    (
        "pilotlight.json: Pong round trip: B",
        "a ping leaves after half a minute of silence",
    ),
    (
        "pilotlight.json: Signers turned away: B",
        "the agent sends nothing odd",
    ),
    ("pilotlight.json: Bans: B", "nobody on loopback is banned"),
];

/// Series that are not there here, and why that is right.
const NO_SERIES: [(&str, &str); 6] = [
    (
        "pilotlight_signer_oddities_total",
        "the agent sends nothing odd",
    ),
    ("pilotlight_bans_total", "nobody on loopback is banned"),
    (
        "state=\"idle\"",
        "every peer here has an address and is wanted",
    ),
    (
        "state=\"not_dialable\"",
        "every peer here has an address that may be dialled",
    ),
    (
        "state=\"awaited\"",
        "a dial begins within milliseconds here",
    ),
    ("state=\"dialing\"", "a handshake takes milliseconds here"),
];

/// The signer: `pilotlight agent` with the node's key.
struct Agent {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Agent {
    fn provisioned(daemon: &Daemon, key: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.key");
        fs::write(&file, format!("{key:02x}").repeat(32)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        daemon.ask(&["bake", "--force"]);
        for name in ["signer.cert", "signer.macaroon"] {
            fs::copy(daemon.data.join(name), folder.path().join(name)).unwrap();
        }
        Self {
            folder,
            child: None,
        }
    }

    fn start(&mut self, daemon: &Daemon) {
        let mut command: Command = pilotlight();
        command
            .current_dir(self.folder.path())
            .args(["agent", "--json", "--key", "node.key", "--connect"])
            .arg(daemon.text("signer_listen"))
            .stdout(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        daemon.ask_until(&["info"], |info| info["mode"] == "live");
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The daemon, its signer and its peers.
struct Stage {
    daemon: Daemon,
    agent: Agent,
    node: NodeId,
    /// Gossip-only: one that stays, one that drops its link, and one that claims a channel.
    gossip: [LdkPeer; 3],
    channel: LdkPeer,
    region: Region,
}

const KEY: u8 = 77;

impl Stage {
    async fn set() -> Self {
        let node = LocalKey::from_bytes(&mut [KEY; 32]).unwrap().node_id();
        let daemon = Daemon::start_with(|command, folder| {
            let config = folder.join("p.toml");
            fs::write(&config, "[metrics]\nper_peer = true\n").unwrap();
            command.arg("--config").arg(config);
            command.args(["--signer", "gateway", "--signer-listen", "127.0.0.1:0"]);
            command.args(["--node-id", &node.to_string()]);
        });
        let mut agent = Agent::provisioned(&daemon, KEY);
        agent.start(&daemon);
        let stage = Self {
            daemon,
            agent,
            node,
            gossip: [211, 212, 214].map(LdkPeer::new),
            channel: LdkPeer::new(213),
            region: Region::new(9, 4, 3),
        };
        for peer in &stage.gossip {
            stage.add(peer.id(), peer.listen().await, "gossip-only");
        }
        let channel = stage.channel.id();
        stage.add(channel, stage.channel.listen().await, "channel-bearing");
        for peer in &stage.gossip {
            stage.until_state(peer.id(), "up");
        }
        stage.until_state(channel, "up");
        // Nobody is there.
        let nobody = LocalKey::from_bytes(&mut [99; 32]).unwrap().node_id();
        stage.add(nobody, "127.0.0.1:1".parse().unwrap(), "gossip-only");
        // What only a node knows.
        let chain = r#"{"height":850000,"own_update_at":1700000000}"#;
        let token = stage.daemon.token("admin.token");
        let answer = stage.daemon.request("POST", "/v1/chain", &token, chain);
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = channel.to_string();
        let urgency = ["--pending-htlcs", "2", "--earliest-expiry-height", "850100"];
        stage
            .daemon
            .ask(&[&["peer", "urgency", &id][..], &urgency].concat());
        stage
    }

    fn add(&self, id: NodeId, address: SocketAddr, tag: &str) {
        let peer = format!("{id}@{address}");
        self.daemon.ask(&["peer", "add", &peer, "--tag", tag]);
    }

    fn until_state(&self, id: NodeId, state: &str) {
        let id = id.to_string();
        self.daemon.ask_until(&["peer", "list"], |peers| {
            let peers = peers.as_array().unwrap();
            peers
                .iter()
                .any(|peer| peer["node_id"] == *id && peer["state"] == state)
        });
    }

    /// A round of gossip from the peer that stays.
    fn gossip(&self, round: u32) {
        self.gossip[0].send(self.node, self.region.updates(round));
    }

    /// A stranger who is no Lightning node.
    fn stranger(&self, at: &str) {
        let mut socket = TcpStream::connect(self.daemon.text(at)).unwrap();
        let _ = socket.write_all(&[0x47; 64]);
    }
}

/// BOLT 2 `open_channel`, which a gossip peer is warned for without a signer, and its link stays.
fn open_channel() -> Vec<u8> {
    let mut message = 32_u16.to_be_bytes().to_vec();
    message.resize(300, 1);
    message
}

/// A lapse and a return, each phase for as long as it takes Prometheus to see it.
fn play(stage: &mut Stage, prometheus: &Prometheus) {
    let counted = |metric: &str, least: u32| prometheus.until_some(&format!("{metric} >= {least}"));
    stage.stranger("listen");
    stage.stranger("signer_listen");
    stage.gossip(1);
    counted(
        "sum(pilotlight_frames_total{direction=\"inbound\", plane=\"gossip\"})",
        6,
    );
    counted("sum(pilotlight_inbound_failed_total)", 1);
    counted("sum(count_over_time(up[1m]))", 4);

    stage.agent.kill();
    counted("pilotlight_mode{mode=\"safe\"}", 1);
    counted("pilotlight_teardown_duration_seconds_count", 1);
    for times in 1..=2 {
        stage.gossip[0].send(stage.node, [open_channel()]);
        let warned = "pilotlight_messages_refused_total{type=\"open_channel\"}";
        counted(warned, times);
    }
    stage.gossip[1].manager.disconnect_all_peers();
    counted("sum(pilotlight_links{identity=\"persona\"})", 1);
    stage.gossip[2].reestablish(stage.node);
    counted("pilotlight_mistags_suspected_total", 1);
    stage.gossip(2);

    stage.agent.start(&stage.daemon);
    stage.until_state(stage.channel.id(), "up");
    counted("pilotlight_relight_duration_seconds_count", 1);
    counted("pilotlight_mode{mode=\"live\"}", 1);
    stage.gossip(3);
    // What happened last must be in the queries over a stretch of time too.
    for moved in [
        "pilotlight_frames_total{direction=\"inbound\", plane=\"gossip\"}",
        "pilotlight_relight_duration_seconds_count",
        "pilotlight_ecdh_duration_seconds_count",
    ] {
        prometheus.until_some(&format!("sum(increase({moved}[5s])) > 0"));
    }
}

/// Puts every query to Prometheus; what is wrong with each.
fn wrong(prometheus: &Prometheus, queries: &[Query], stage: &Stage, seconds: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    let instance = stage.daemon.text("admin");
    let node_id = stage.gossip[0].id().to_string();
    let excused = |place: &str| EMPTY_QUERIES.iter().any(|(empty, _)| place == *empty);
    for Query {
        place,
        expr,
        legend,
    } in queries
    {
        let windows = ["10s".to_owned(), format!("{seconds}s")];
        let filled = fill(
            expr,
            instance,
            &node_id,
            &windows[usize::from(expr.contains("$__range"))],
        );
        let found = match prometheus.query_range(&filled, seconds) {
            Ok(found) => found,
            Err(error) => {
                wrong.push(format!("{place}: {error}: {filled}"));
                continue;
            }
        };
        let is_some = found
            .iter()
            .any(|series| series.values.iter().any(|value| !value.is_nan()));
        if !is_some && !excused(place) {
            wrong.push(format!("{place}: nothing found: {filled}"));
        }
        for label in legend {
            if found
                .iter()
                .any(|series| !series.labels.contains_key(label))
            {
                wrong.push(format!("{place}: a series without {label}: {filled}"));
            }
        }
    }
    wrong
}

/// Each selector of each query on its own, for any peer: an `or`, an `and` or a comparison could hide one that finds nothing.
fn unknown(prometheus: &Prometheus, queries: &[Query], stage: &Stage, seconds: u64) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut all: Vec<_> = queries
        .iter()
        .flat_map(|query| selectors(&query.expr))
        .map(|selector| fill(&selector.written, stage.daemon.text("admin"), ".+", "10s"))
        .collect();
    all.sort();
    all.dedup();
    for selector in all {
        let found = prometheus.query_range(&selector, seconds);
        let excused = NO_SERIES.iter().any(|(part, _)| selector.contains(part));
        if !excused && found.as_ref().is_ok_and(Vec::is_empty) || found.is_err() {
            unknown.push(format!("{selector}: {found:?}"));
        }
    }
    unknown
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's package prometheus: bash .ci/run prometheus"]
async fn every_query_and_alert_finds_what_it_asks_for_through_a_lapse_and_a_return() {
    let began = Instant::now();
    let mut stage = Stage::set().await;
    let prometheus = Prometheus::start(stage.daemon.text("admin"), &path("alerts.yaml"));
    play(&mut stage, &prometheus);

    let seconds = began.elapsed().as_secs() + 2;
    let mut all: Vec<Query> = DASHBOARDS.iter().flat_map(|file| queries(file)).collect();
    let panels = wrong(&prometheus, &all, &stage, seconds);
    assert!(panels.is_empty(), "{}", panels.join("\n"));
    let shown = all.len();
    all.extend(alerts().into_iter().map(|alert| Query {
        place: alert.name,
        expr: alert.expr,
        legend: Vec::new(),
    }));
    let unknown = unknown(&prometheus, &all, &stage, seconds);
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));

    // Prometheus has evaluated every alert, and the one that must never fire has not.
    let rules = prometheus.rules();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), alerts().len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let never = "ALERTS{alertname=\"PilotlightChannelLinkInSafeMode\", alertstate=\"firing\"}";
    assert!(prometheus.query_range(never, seconds).unwrap().is_empty());
    let fires = "ALERTS{alertname=\"PilotlightOwnUpdateOld\", alertstate=\"firing\"}";
    assert!(
        !prometheus.query_range(fires, seconds).unwrap().is_empty(),
        "alerts are evaluated"
    );
    println!(
        "{shown} queries and {} alerts answered from {seconds} s of a lapse and a return",
        rules.len()
    );

    let metrics = stage.daemon.request("GET", "/metrics", "", "").body;
    let checked = promtool(&["check", "metrics"], &path(""), &metrics);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        checked.status.success() && said.is_empty(),
        "promtool check metrics: {said}"
    );
}

/// A restart begins the count of sessions anew, and is none itself: three sessions, a restart, half a minute without a signer, one more.
#[test]
#[ignore = "needs Debian's package prometheus: bash .ci/run prometheus"]
fn the_panel_of_sessions_counts_no_restart() {
    let panels = queries("pilotlight.json");
    let panel = panels
        .iter()
        .find(|query| query.place.contains("Sessions begun"));
    let expr = fill(&panel.unwrap().expr, "node", "", "600s");
    let folder = tempfile::tempdir().unwrap();
    let case = format!(
        "rule_files: []\nevaluation_interval: 15s\ntests:\n  - interval: 15s\n    input_series:\n      \
         - series: 'pilotlight_signer_epoch{{instance=\"node\", job=\"pilotlight\"}}'\n        \
           values: '0x9 1x5 2x5 3x5 0x2 1x6'\n    promql_expr_test:\n      \
         - expr: '{expr}'\n        eval_time: 9m30s\n        exp_samples:\n          - value: 4\n"
    );
    fs::write(folder.path().join("case.yaml"), case).unwrap();
    let output = promtool(&["test", "rules", "case.yaml"], folder.path(), "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{expr}: {said}");
}

#[test]
#[ignore = "needs Debian's package prometheus: bash .ci/run prometheus"]
fn promtool_takes_the_rules_and_the_configuration_and_every_case_of_the_alerts_holds() {
    for arguments in [
        &["check", "rules", "alerts.yaml"][..],
        &["check", "config", "prometheus.yaml"],
        &["test", "rules", "alerts_test.yaml"],
    ] {
        let output = promtool(arguments, &path(""), "");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "promtool {arguments:?}: {said}");
    }
    assert!(text("alerts_test.yaml").matches("- name:").count() >= 2 * alerts().len());
}
