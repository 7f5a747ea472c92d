//! What a running daemon tells of itself: series of single peers in `/metrics`, spans in its log, and no secret in either. The daemon is
//! the binary, the peers are LDK's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::format_collect
)]

#[path = "support/daemon.rs"]
#[allow(dead_code)]
mod daemon;
#[path = "support/ldk_handlers.rs"]
#[allow(dead_code)]
mod ldk_handlers;
#[path = "support/ldk_peer.rs"]
#[allow(dead_code)]
mod ldk_peer;
#[path = "support/signed_region.rs"]
#[allow(dead_code)]
mod signed_region;
#[path = "support/watched.rs"]
#[allow(dead_code)]
mod watched;

use daemon::{Daemon, HANG, lines_of, pilotlight};
use ldk_peer::LdkPeer;
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::telemetry::PEER_METRICS;
use serde_json::Value;
use signed_region::Region;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Adds a peer that LDK plays, and waits until its link is up.
fn add(daemon: &Daemon, id: NodeId, address: std::net::SocketAddr, tag: &str) {
    let peer = format!("{id}@{address}");
    daemon.ask(&["peer", "add", &peer, "--tag", tag]);
    daemon.ask_until(&["peer", "list"], |peers| state(peers, id) == "up");
}

fn state(peers: &Value, id: NodeId) -> String {
    let id = id.to_string();
    let peer = peers
        .as_array()
        .unwrap()
        .iter()
        .find(|peer| peer["node_id"] == *id);
    peer.map_or(String::new(), |peer| {
        peer["state"].as_str().unwrap().to_owned()
    })
}

/// Asks for the metrics until all of these lines begin some line of theirs.
fn metrics_until(daemon: &Daemon, lines: &[String]) -> String {
    let started = Instant::now();
    loop {
        let text = daemon.request("GET", "/metrics", "", "").body;
        let there = |line: &&String| text.lines().any(|found| found.starts_with(line.as_str()));
        let missing: Vec<_> = lines.iter().filter(|line| !there(line)).collect();
        if missing.is_empty() {
            return text;
        }
        assert!(started.elapsed() < HANG, "{missing:?} not in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn single_peers_have_series_where_that_is_asked_for_and_lose_them_with_their_link() {
    let daemon = Daemon::start_with(|command, folder| {
        let path = folder.join("p.toml");
        fs::write(&path, "[metrics]\nper_peer = true\n").unwrap();
        command.arg("--config").arg(path);
    });
    let (gossip, channel) = (LdkPeer::new(201), LdkPeer::new(202));
    let (at, there) = (gossip.listen().await, channel.listen().await);
    add(&daemon, gossip.id(), at, "gossip-only");
    add(&daemon, channel.id(), there, "channel-bearing");
    let node: NodeId = daemon.text("node_id").parse().unwrap();
    gossip.send(node, Region::new(1, 4, 3).updates(1));
    let one = format!("node_id=\"{}\"", gossip.id());
    let other = format!("node_id=\"{}\"", channel.id());
    let text = metrics_until(
        &daemon,
        &[
            format!("pilotlight_peer_up{{{one},tag=\"gossip-only\"}} 1"),
            format!("pilotlight_peer_up{{{other},tag=\"channel-bearing\"}} 1"),
            format!("pilotlight_peer_state{{{other},state=\"up\"}} 1"),
            format!("pilotlight_peer_identity{{{other},identity=\"node\"}} 1"),
            format!("pilotlight_peer_frames_total{{{one},direction=\"inbound\"}} "),
            format!("pilotlight_peer_last_gossip_timestamp_seconds{{{one}}} 1"),
            "pilotlight_peers{tag=\"gossip-only\",state=\"up\"} 1".to_owned(),
        ],
    );
    let silent = format!("pilotlight_peer_last_gossip_timestamp_seconds{{{other}}}");
    assert!(!text.contains(&silent), "it has sent no gossip");
    // Every family is there, with its help and with those labels that the list has.
    for metric in PEER_METRICS {
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)));
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{}{{", metric.name)));
        let labels: Vec<&str> = line.unwrap().split(['{', ',', '}']).skip(1).collect();
        for (label, there) in metric.labels.iter().zip(labels) {
            assert!(there.starts_with(&format!("{label}=\"")), "{line:?}");
        }
    }

    daemon.ask(&["signer", "lapse"]);
    let text = metrics_until(
        &daemon,
        &[
            format!("pilotlight_peer_up{{{other},tag=\"channel-bearing\"}} 0"),
            format!("pilotlight_peer_state{{{other},state=\"held\"}} 1"),
            format!("pilotlight_peer_up{{{one},tag=\"gossip-only\"}} 1"),
        ],
    );
    for name in ["identity", "frames_total"] {
        let gone = format!("pilotlight_peer_{name}{{{other}");
        assert!(!text.contains(&gone), "{gone} outlives its link");
    }
    assert!(!text.contains(&format!("pilotlight_peer_state{{{other},state=\"up\"}}")));

    daemon.ask(&["peer", "rm", &gossip.id().to_string()]);
    let text = daemon.request("GET", "/metrics", "", "").body;
    assert!(!text.contains(&one), "a peer that is gone has series");
}

#[test]
fn without_being_asked_for_no_node_id_is_in_the_metrics() {
    let daemon = Daemon::start();
    let id = "03864ef025fde8fb587d989186ce6a4a186895ee44a926bfc370e2c366597a3f8f";
    let peer = format!("{id}@127.0.0.1:1");
    daemon.ask(&["peer", "add", &peer, "--tag", "gossip-only"]);
    let text = daemon.request("GET", "/metrics", "", "").body;
    assert!(text.contains("process_resident_memory_bytes"), "{text}");
    assert!(!text.contains("node_id=") && !text.contains(id), "{text}");
}

/// The log at its most talkative: each line of a link's is in a span with the peer's node id and tag, and none has a secret.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_span_for_every_link_and_never_a_secret() {
    let mut said = String::new();
    let mut daemon = Daemon::start_with(|command, _| {
        command
            .args(["--log", "json"])
            .env("RUST_LOG", "trace")
            .stderr(Stdio::piped());
    });
    let lines = lines_of(daemon.stderr());
    let ldk = LdkPeer::new(203);
    let address = ldk.listen().await;
    add(&daemon, ldk.id(), address, "gossip-only");
    let id = ldk.id().to_string();
    daemon.ask(&["peer", "tag", &id, "channel-bearing"]);
    daemon.ask(&["signer", "lapse"]);
    daemon.ask_until(&["peer", "list"], |peers| state(peers, ldk.id()) == "held");

    let mut spans = BTreeSet::new();
    loop {
        let line = lines.recv_timeout(HANG).expect("the link's end is logged");
        said.push_str(&line);
        let Ok(entry) = serde_json::from_str::<Value>(&line) else {
            panic!("not JSON: {line}");
        };
        let (event, span) = (&entry["event"], &entry["span"]);
        if span["name"] == "link" {
            assert_eq!(span["node_id"], *id, "{line}");
            assert_eq!(
                (&span["direction"], &span["identity"]),
                (&"outbound".into(), &"node".into())
            );
            spans.insert((event.to_string(), span["tag"].to_string()));
        }
        if *event == "link_down" {
            break;
        }
    }
    let has = |event: &str, tag: &str| spans.contains(&(format!("{event:?}"), format!("{tag:?}")));
    assert!(has("link_up", "gossip-only"), "{spans:?}");
    assert!(has("link_down", "channel-bearing"), "{spans:?}");

    for file in ["identity.key", "readonly.token", "admin.token"] {
        let secret = fs::read(daemon.data.join(file)).unwrap();
        assert_unsaid(file, &secret, &said);
    }
}

/// A secret stands in a log in no form in which somebody might have written it: as text, as hex, as a list of bytes, or escaped.
#[track_caller]
fn assert_unsaid(name: &str, secret: &[u8], said: &str) {
    let text = String::from_utf8_lossy(secret).trim().to_owned();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{:?}", &secret[..8]);
    let escaped: String = secret[..8]
        .iter()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect();
    assert!(text.chars().count() >= 16, "{name}: {text:?}");
    for form in [
        text,
        hex.to_uppercase(),
        hex,
        list.trim_matches(['[', ']']).to_owned(),
        escaped,
    ] {
        assert!(!said.contains(&form), "{name} is in the log");
    }
}

/// The libraries between the signer and the node log too, and the macaroon is in a header of theirs.
#[test]
fn the_logs_of_a_signer_that_dials_in_and_of_its_node_never_have_a_secret() {
    let key = [78; 32];
    let node = LocalKey::from_bytes(&mut key.clone()).unwrap().node_id();
    let loud = |command: &mut Command| {
        command.env("RUST_LOG", "trace").stderr(Stdio::piped());
    };
    let mut daemon = Daemon::start_with(|command, _| {
        command.args(["--log", "json", "--signer", "gateway"]);
        command.args(["--signer-listen", "127.0.0.1:0", "--node-id"]);
        command.arg(node.to_string());
        loud(command);
    });
    let log = lines_of(daemon.stderr());
    daemon.ask(&["bake", "--force"]);
    let file = daemon.data.parent().unwrap().join("node.key");
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(&file, digits).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut agent = pilotlight();
    agent.args(["agent", "--json", "--connect", daemon.text("signer_listen")]);
    agent.arg("--key").arg(&file);
    for (flag, name) in [
        ("--certificate", "signer.cert"),
        ("--macaroon", "signer.macaroon"),
    ] {
        agent.arg(flag).arg(daemon.data.join(name));
    }
    loud(agent.stdout(Stdio::null()));
    let mut agent = agent.spawn().unwrap();
    let of_agent = lines_of(agent.stderr.take().unwrap());
    daemon.ask_until(&["info"], |info| info["mode"] == "live");
    agent.kill().unwrap();
    agent.wait().unwrap();
    let (mut said, mut of_node) = (String::new(), String::new());
    while let Ok(line) = of_agent.recv_timeout(HANG) {
        said.push_str(&line);
    }
    while !of_node.contains("\"signer_lapsed\"") {
        of_node.push_str(&log.recv_timeout(HANG).expect("the lapse is logged"));
    }
    for log in [said, of_node] {
        assert!(log.contains("h2::hpack"), "as talkative as can be: {log}");
        assert_unsaid("the key", &key, &log);
        let read = |name: &str| fs::read(daemon.data.join(name)).unwrap();
        let macaroon = read("signer.macaroon");
        // What makes it good is its signature, at its end (libmacaroons' format 2).
        assert_unsaid("the macaroon", &macaroon[macaroon.len() - 32..], &log);
        let root = String::from_utf8(read("macaroon.root")).unwrap();
        let root = root.split_whitespace().last().unwrap();
        assert_unsaid("the root key", root.as_bytes(), &log);
        for line in String::from_utf8(read("signer.key")).unwrap().lines() {
            if !line.starts_with("-----") {
                assert_unsaid("the certificate's key", line.as_bytes(), &log);
            }
        }
    }
}
