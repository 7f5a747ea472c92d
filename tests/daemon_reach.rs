//! What the settings of the daemon do to its links: whether and how a peer is reached without a signer, through `tor.proxy` or not, what is
//! asked of it and what it may say. The real binary over real sockets of loopback; a real SOCKS5 proxy stands for Tor.
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
use pilotlight::limits;
use pilotlight::link::raw::RawLink;
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::wire::{BITCOIN_MAINNET, Init, MessageType, Ping};
use serde_json::Value;
use socks::Socks;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use support::{Daemon, HANG};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn key(number: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [number; 32]).unwrap()
}

/// The node's key, for a daemon that is told to hold a copy of it.
fn key_file(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("node.key");
    fs::write(&file, format!("{NODE:02x}").repeat(32)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

/// A daemon with a configuration, whose signer is in the process.
fn configured(configuration: &str) -> Daemon {
    Daemon::start_with(|command, folder| {
        let file = folder.join("pilotlight.toml");
        fs::write(&file, configuration).unwrap();
        command.arg("--config").arg(file);
    })
}

const NODE: u8 = 61;

/// The same, whose signer would have to dial in, and does not.
fn without_signer(configuration: &str) -> Daemon {
    let node = key(NODE).node_id();
    Daemon::start_with(|command, folder| {
        let file = folder.join("pilotlight.toml");
        fs::write(&file, configuration).unwrap();
        command.arg("--config").arg(file);
        command.arg("--key-file").arg(key_file(folder));
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

/// A gossip peer that the test plays.
struct Far {
    id: NodeId,
    key: Arc<LocalKey>,
    listener: TcpListener,
}

impl Far {
    async fn listen() -> Self {
        let key = Arc::new(key(62));
        Self {
            id: key.node_id(),
            key,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    fn is_known_to(&self, daemon: &Daemon) {
        let peer = format!("{}@{}", self.id, self.listener.local_addr().unwrap());
        daemon.ask(&["peer", "add", &peer, "--tag", "gossip-only"]);
    }

    /// The daemon's link, once both `init`s have passed.
    async fn accept(&self) -> RawLink {
        let greeting = async {
            let (socket, _) = self.listener.accept().await.unwrap();
            let mut link = RawLink::accept(socket, Arc::clone(&self.key))
                .await
                .unwrap();
            let init = Init::gossip(vec![BITCOIN_MAINNET]).encode();
            link.send(&init).await.unwrap();
            let first = link.receive().await.unwrap().unwrap();
            assert_eq!(MessageType::of(&first).unwrap(), MessageType::INIT);
            link
        };
        tokio::time::timeout(HANG, greeting).await.expect("a link")
    }
}

/// What the daemon has sent up to its answers to two pings: what it asks for as a link comes up is among it.
async fn said(link: &mut RawLink) -> Vec<MessageType> {
    let ping = Ping {
        num_pong_bytes: 1,
        ignored: 0,
    };
    let mut said = Vec::new();
    for _ in 0..2 {
        link.send(&ping.encode()).await.unwrap();
        loop {
            let receiving = tokio::time::timeout(HANG, link.receive()).await;
            let message = receiving.expect("an answer").unwrap().unwrap();
            match MessageType::of(&message).unwrap() {
                MessageType::PONG => break,
                kind => said.push(kind),
            }
        }
    }
    said
}

/// Without a signer a gossip peer is met under a persona, asked for what was missed; under the node's own key, where a copy is held; or held.
#[tokio::test(flavor = "multi_thread")]
async fn what_identity_and_gossip_say_is_what_a_gossip_peer_meets_without_a_signer() {
    let filter = vec![MessageType::GOSSIP_TIMESTAMP_FILTER];
    for (configuration, identity, asked) in [
        ("", "persona", filter.clone()),
        ("gossip.auto_sync = false", "persona", Vec::new()),
        ("identity = \"cached\"", "node", filter),
    ] {
        let node = without_signer(configuration);
        let far = Far::listen().await;
        far.is_known_to(&node);
        let mut link = far.accept().await;
        let is_node = link.remote() == key(NODE).node_id();
        assert_eq!(is_node, identity == "node", "{configuration}");
        assert_eq!(said(&mut link).await, asked, "{configuration}");
        let shown = until_state(&node, "up");
        assert_eq!(shown["identity"], identity, "{configuration}");
        assert_eq!(node.ask(&["info"])["mode"], "waiting");
    }
    let node = without_signer("gossip.redial = \"hold\"");
    let far = Far::listen().await;
    far.is_known_to(&node);
    until_state(&node, "held");
    // The floor has been looked at, and is told to lack all: nobody was dialled for it.
    let metrics = || node.request("GET", "/metrics", "", "").body;
    let begun = std::time::Instant::now();
    while !metrics().contains("\npilotlight_gossip_floor_missing 5") {
        assert!(begun.elapsed() < HANG, "{}", metrics());
    }
    assert_eq!(only_peer(&node)["state"], "held");
}

/// What a gossip peer says that it should not, without a signer: refused and counted, or let pass and counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_that_observes_counts_what_it_would_do() {
    for (configuration, action) in [("", "dropped"), ("firewall = \"observe\"", "would_drop")] {
        let node = configured(configuration);
        let far = Far::listen().await;
        far.is_known_to(&node);
        let mut link = far.accept().await;
        until_state(&node, "up");
        node.ask(&["signer", "lapse"]);
        let onion_message = [&513_u16.to_be_bytes()[..], &[0; 40]].concat();
        link.send(&onion_message).await.unwrap();
        said(&mut link).await;
        let metrics = node.request("GET", "/metrics", "", "").body;
        let counted: Vec<&str> = metrics
            .lines()
            .filter(|line| line.starts_with("pilotlight_messages_refused_total{"))
            .collect();
        let expected = format!("action=\"{action}\"");
        assert!(
            counted.len() == 1 && counted[0].contains(&expected) && counted[0].ends_with(" 1"),
            "{configuration}: {counted:?}"
        );
    }
}

/// A peer with an IP address is dialled through the proxy where `tor.everything` says so, and past it where it does not.
#[tokio::test(flavor = "multi_thread")]
async fn tor_everything_sends_peers_with_ip_addresses_through_the_proxy_too() {
    for everything in [false, true] {
        let far = Daemon::start();
        let listening = far.text("listen");
        let socks = Socks::start().await;
        socks.leads(&listening, listening.parse().unwrap());
        let node = configured(&format!(
            "[tor]\nproxy = \"{}\"\neverything = {everything}\n",
            socks.address
        ));
        let peer = format!("{}@{listening}", far.text("node_id"));
        node.ask(&["peer", "add", &peer, "--tag", "gossip-only"]);
        until_state(&node, "up");
        let asked: Vec<String> = socks.asked().into_iter().map(|dial| dial.target).collect();
        let expected: &[String] = if everything {
            &[listening.to_owned()]
        } else {
            &[]
        };
        assert_eq!(asked, expected, "everything = {everything}");
    }
}

/// Where the node says that it is, it dials nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_announces_it_does_not_dial() {
    let far = Far::listen().await;
    let address = far.listener.local_addr().unwrap();
    let node = configured(&format!("announces = [\"{address}\"]\n"));
    far.is_known_to(&node);
    until_state(&node, "backoff");
    let listener = far.listener.into_std().unwrap();
    let came = listener.accept().map_err(|error| error.kind());
    assert_eq!(came.unwrap_err(), std::io::ErrorKind::WouldBlock);
}

/// Garbage for a handshake, from an address of `protected` and from one that is not: both are turned away, the second is banned.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_dials_from_a_protected_network_is_never_banned() {
    let node = configured("protected = [\"127.0.9.0/24\"]\n");
    let listening = node.text("listen").parse().unwrap();
    let bans = || {
        let metrics = node.request("GET", "/metrics", "", "").body;
        let bans = metrics
            .lines()
            .find_map(|line| line.strip_prefix("pilotlight_bans "));
        bans.unwrap_or("none").to_owned()
    };
    for (host, expected) in [([127, 0, 9, 1], "0"), ([127, 0, 8, 1], "1")] {
        for _ in 0..limits::BAN_SCORE / 10 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((host, 0).into()).unwrap();
            let mut socket = socket.connect(listening).await.unwrap();
            let mut act = [0xff; 50];
            act[0] = 0;
            // Whoever is banned is closed unread.
            let _ = socket.write_all(&act).await;
            let end = tokio::time::timeout(HANG, socket.read(&mut [0])).await;
            assert!(matches!(end.expect("the refusal"), Ok(0) | Err(_)));
        }
        assert_eq!(bans(), expected, "{host:?}");
    }
}
