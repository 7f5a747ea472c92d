//! How the daemon reaches its peers where its configuration says how: through `tor.proxy`, and under a persona by `gossip.channel_peers`. The
//! real binary on both sides, over real sockets of loopback; between them a real SOCKS5 proxy that stands for Tor.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/socks.rs"]
mod socks;
#[path = "support/daemon.rs"]
#[allow(
    dead_code,
    reason = "shared with tests/daemon.rs, which uses all of it"
)]
mod support;

use pilotlight::address::{OnionService, PeerAddress};
use pilotlight::node_id::LocalKey;
use serde_json::Value;
use socks::Socks;
use std::fs;
use support::Daemon;

/// A daemon with a configuration, whose signer is in the process.
fn configured(configuration: &str) -> Daemon {
    Daemon::start_with(|command, folder| {
        let file = folder.join("pilotlight.toml");
        fs::write(&file, configuration).unwrap();
        command.arg("--config").arg(file);
    })
}

/// The same, whose signer would have to dial in, and does not.
fn without_signer(configuration: &str) -> Daemon {
    let node = LocalKey::from_bytes(&mut [61; 32]).unwrap().node_id();
    Daemon::start_with(|command, folder| {
        let file = folder.join("pilotlight.toml");
        fs::write(&file, configuration).unwrap();
        command.arg("--config").arg(file);
        command.args(["--signer", "gateway", "--signer-listen", "127.0.0.1:0"]);
        command.args(["--node-id", &node.to_string()]);
    })
}

/// What a daemon says of its only peer.
fn only_peer(daemon: &Daemon) -> Value {
    let peers = daemon.ask(&["peer", "list"]);
    assert_eq!(peers.as_array().unwrap().len(), 1, "{peers}");
    peers[0].clone()
}

fn until_state(daemon: &Daemon, state: &str) -> Value {
    daemon.ask_until(&["peer", "list"], |peers| peers[0]["state"] == state)[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_onion_peer_is_not_dialable_without_a_proxy_and_is_linked_through_tor_proxy() {
    let far = Daemon::start();
    let onion = PeerAddress::Onion {
        service: OnionService::of_key([7; 32]),
        port: 9735,
    };
    let peer = format!("{}@{onion}", far.text("node_id"));
    let add = ["peer", "add", &peer, "--tag", "gossip-only"];

    let without = Daemon::start();
    without.ask(&add);
    let shown = only_peer(&without);
    assert_eq!(shown["state"], "not_dialable", "{shown}");
    assert_eq!(shown["addr"], onion.to_string());
    let told = without.run(&["peer", "list"]);
    assert!(told.stdout.contains("not_dialable"), "{told:?}");

    let socks = Socks::start().await;
    socks.leads(&onion, far.text("listen").parse().unwrap());
    let with = configured(&format!("[tor]\nproxy = \"{}\"\n", socks.address));
    with.ask(&add);
    let shown = until_state(&with, "up");
    assert_eq!(
        (&shown["addr"], &shown["identity"]),
        (&onion.to_string().into(), &"node".into())
    );
    let guest = until_state(&far, "up");
    assert_eq!(guest["node_id"], with.text("node_id"));
    let asked = socks.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].target, onion.to_string());
}

#[test]
fn a_persona_meets_a_channel_peer_where_gossip_channel_peers_says_so_and_nowhere_else() {
    for meets in [false, true] {
        let far = Daemon::start();
        let node = without_signer(&format!("[gossip]\nfloor = 1\nchannel_peers = {meets}\n"));
        let peer = format!("{}@{}", far.text("node_id"), far.text("listen"));
        node.ask(&["peer", "add", &peer, "--tag", "channel-bearing"]);
        if meets {
            let shown = until_state(&node, "up");
            assert_eq!(shown["identity"], "persona", "{shown}");
            assert_eq!(shown["tag"], "channel-bearing");
            let guest = until_state(&far, "up");
            assert_ne!(guest["node_id"], node.text("node_id"));
            continue;
        }
        // A gossip peer, added after it, meets the persona: by then the channel peer has been passed over.
        let gossip = Daemon::start();
        let peer = format!("{}@{}", gossip.text("node_id"), gossip.text("listen"));
        node.ask(&["peer", "add", &peer, "--tag", "gossip-only"]);
        let is_up = |peers: &Value| {
            let mut peers = peers.as_array().unwrap().iter();
            peers.any(|peer| peer["identity"] == "persona" && peer["state"] == "up")
        };
        let peers = node.ask_until(&["peer", "list"], is_up);
        let of = |tag: &str| {
            let peers = peers.as_array().unwrap();
            let found = peers.iter().find(|peer| peer["tag"] == tag).unwrap();
            found["state"].clone()
        };
        assert_eq!(
            (of("channel-bearing"), of("gossip-only")),
            ("held".into(), "up".into())
        );
        assert_eq!(far.ask(&["peer", "list"]).as_array().unwrap().len(), 0);
    }
}
