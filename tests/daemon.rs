//! The daemon as a user meets it: the real binary, its commands, its HTTP address and its end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::similar_names
)]

#[path = "support/daemon.rs"]
mod support;

use pilotlight::admin::{AdminServer, DataDir, Parts, Settings, SignerControl, TokenKind};
use pilotlight::limits;
use pilotlight::link::raw::RawLink;
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::SignerContext;
use pilotlight::supervisor::Supervisor;
use pilotlight::telemetry::{METRICS, Metric, PROCESS_METRICS};
use pilotlight::wire::{BITCOIN_MAINNET, Features, Init, MessageType, Ping};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::Arc;
use support::{Daemon, Ended, HANG, http, lines_of, pilotlight};

fn key(number: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [number; 32]).unwrap()
}

fn id(number: u8) -> NodeId {
    key(number).node_id()
}

fn mode_of(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A peer on loopback that says `init` and then reads until its link ends.
struct FarSide {
    spec: String,
    ended: tokio::task::JoinHandle<Vec<u16>>,
}

impl FarSide {
    async fn listen(number: u8) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let spec = format!("{}@{}", id(number), listener.local_addr().unwrap());
        let ended = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut link = RawLink::accept(socket, Arc::new(key(number)))
                .await
                .unwrap();
            let init = Init::with_features(Features::gossip(), vec![BITCOIN_MAINNET]);
            link.send(&init.encode()).await.unwrap();
            let mut kinds = Vec::new();
            while let Ok(Some(message)) = link.receive().await {
                kinds.push(MessageType::of(&message).unwrap().0);
            }
            kinds
        });
        Self { spec, ended }
    }

    /// The types of all that came before the link ended.
    async fn received(self) -> Vec<u16> {
        tokio::time::timeout(HANG, self.ended)
            .await
            .expect("the link ends")
            .unwrap()
    }
}

#[test]
fn it_starts_on_embedded_defaults_with_private_files_and_says_where_it_is() {
    let daemon = Daemon::start();
    assert_eq!(mode_of(&daemon.data), 0o700);
    for file in ["identity.key", "readonly.token", "admin.token"] {
        assert_eq!(mode_of(&daemon.data.join(file)), 0o600, "{file}");
    }
    assert_ne!(daemon.token("readonly.token"), daemon.token("admin.token"));
    assert_eq!(daemon.started["mode"], "live");
    let addr = fs::read_to_string(daemon.data.join("admin.addr")).unwrap();
    assert_eq!(addr.trim(), daemon.text("admin"));

    let info = daemon.ask(&["info"]);
    assert_eq!(info["node_id"], daemon.started["node_id"]);
    assert_eq!((&info["mode"], &info["epoch"]), (&"live".into(), &1.into()));
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert!(info["last_lapse"].is_null() && info["since"].is_number());
    let shown = daemon.run(&["info"]);
    assert!(
        shown.stdout.contains("mode        live for") && !shown.stdout.contains('\u{1b}'),
        "{shown:?}"
    );
}

#[test]
fn the_address_of_the_page_brings_the_token_that_reads_and_is_printed_only_when_asked_for() {
    let daemon = Daemon::start();
    let (admin, token) = (daemon.text("admin"), daemon.token("readonly.token"));
    let url = format!("http://{admin}/#token={token}");
    assert_eq!(daemon.run(&["info", "--url"]).stdout, format!("{url}\n"));
    assert_eq!(daemon.ask(&["info", "--url"])["url"], url);
    assert!(!daemon.started.to_string().contains(&token));
    let page = daemon.request("GET", "/", "", "");
    assert_eq!(page.status, 200);
    for part in [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "content-type: text/html",
    ] {
        assert!(page.head.contains(part), "{part}: {}", page.head);
    }
    assert!(!page.head.contains("unsafe-inline") && !page.head.contains("access-control"));
    assert!(
        !page.body.contains(&token),
        "the page itself is the same for all"
    );
}

#[test]
fn a_daemon_keeps_its_identity_across_starts() {
    let mut first = Daemon::start();
    let key = fs::read(first.data.join("identity.key")).unwrap();
    let node = first.text("node_id").to_owned();
    first.signal("-TERM");
    assert!(first.ended().success());
    let second = Daemon::start_with(|command, folder| {
        let path = folder.join("my.key");
        fs::write(&path, &key).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        command
            .arg("--key-file")
            .arg(path)
            .args(["--node-id", &node]);
    });
    assert_eq!(second.text("node_id"), node);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_added_shown_tagged_and_removed_and_a_lapse_drops_only_channel_peers() {
    let daemon = Daemon::start();
    let (gossip, channel) = (FarSide::listen(1).await, FarSide::listen(2).await);
    let added = daemon.ask(&["peer", "add", &gossip.spec, "--tag", "gossip-only"]);
    assert_eq!(
        (&added["node_id"], &added["tag"]),
        (&id(1).to_string().into(), &"gossip-only".into())
    );
    let table = daemon.run(&[
        "peer",
        "add",
        &channel.spec,
        "--tag",
        "gossip-only",
        "--weight",
        "7",
    ]);
    assert!(
        table.code == 0 && table.stdout.starts_with("NODE ID"),
        "{table:?}"
    );

    let tagged = daemon.ask(&["peer", "tag", &id(2).to_string(), "channel-bearing"]);
    assert_eq!(
        (&tagged["tag"], &tagged["weight"]),
        (&"channel-bearing".into(), &7.into())
    );
    let up = daemon.ask_until(&["peer", "list"], |peers| {
        peers
            .as_array()
            .unwrap()
            .iter()
            .filter(|peer| peer["state"] == "up")
            .count()
            == 2
    });
    let ours = up
        .as_array()
        .unwrap()
        .iter()
        .find(|peer| peer["node_id"] == id(2).to_string())
        .unwrap();
    assert_eq!(
        (&ours["identity"], &ours["direction"]),
        (&"node".into(), &"outbound".into())
    );
    assert!(
        ours["since"].is_number() && ours["frames_out"].as_u64() >= Some(1),
        "{ours}"
    );
    assert!(daemon.run(&["peer", "list"]).stdout.lines().count() == 3);

    let lapse = daemon.ask(&["signer", "lapse"]);
    assert_eq!(
        (&lapse["epoch"], &lapse["reason"]),
        (&1.into(), &"requested".into())
    );
    assert_eq!(
        (&lapse["dropped"], &lapse["retained"]),
        (&1.into(), &1.into())
    );
    assert!(
        !channel.received().await.contains(&17),
        "P4: never an error"
    );
    let info = daemon.ask(&["info"]);
    assert_eq!(info["mode"], "safe");
    assert_eq!(
        (
            &info["links"]["gossip_only"],
            &info["last_lapse"]["dropped"]
        ),
        (&1.into(), &1.into())
    );
    let states = daemon.ask_until(&["peer", "list"], |peers| {
        peers
            .as_array()
            .unwrap()
            .iter()
            .any(|peer| peer["state"] == "held")
    });
    assert_eq!(states.as_array().unwrap().len(), 2);

    let removed = daemon.ask(&["peer", "rm", &id(1).to_string()]);
    assert_eq!(removed["removed"], id(1).to_string());
    let kinds = gossip.received().await;
    assert_eq!(kinds.first(), Some(&16), "init first");
    assert!(
        kinds.contains(&265),
        "the daemon asks for gossip: {kinds:?}"
    );
    assert_eq!(daemon.ask(&["peer", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn the_signer_session_is_ended_and_restored() {
    let daemon = Daemon::start();
    let words = daemon.run(&["signer", "attach", "--json"]).problem(1);
    assert!(words.0.contains("epoch 1"), "{words:?}");
    assert!(
        daemon
            .run(&["signer", "lapse"])
            .stdout
            .starts_with("epoch 1 has ended: requested")
    );
    let (what, place, _) = daemon.run(&["signer", "lapse", "--json"]).problem(1);
    assert_eq!(
        (what.as_str(), place.as_str()),
        ("no signer session is live", "/v1/signer/lapse")
    );
    assert_eq!(daemon.ask(&["signer", "attach"])["epoch"], 2);
    daemon.ask_until(&["info"], |info| {
        info["mode"] == "live" && info["epoch"] == 2
    });
    assert_eq!(daemon.ask(&["signer", "lapse"])["epoch"], 2);
    assert_eq!(
        daemon.run(&["signer", "attach"]).stdout,
        "the signer is attached: epoch 3\n"
    );
}

#[test]
fn in_safe_mode_every_read_works() {
    let daemon = Daemon::start();
    daemon.ask(&["signer", "lapse"]);
    let token = daemon.token("readonly.token");
    assert_eq!(daemon.request("GET", "/healthz", "", "").status, 200);
    let ready = daemon.request("GET", "/readyz", "", "");
    assert_eq!(
        (ready.status, ready.json()["mode"].as_str()),
        (200, Some("safe"))
    );
    for path in ["/metrics", "/v1/info", "/v1/peers"] {
        assert_eq!(
            daemon.request("GET", path, &token, "").status,
            200,
            "{path}"
        );
    }
}

#[test]
fn only_the_right_token_in_the_right_place_opens() {
    let daemon = Daemon::start();
    let (reads, changes) = (daemon.token("readonly.token"), daemon.token("admin.token"));
    let wrong = "0".repeat(64);
    for token in ["", "x", &wrong] {
        let answer = daemon.request("GET", "/v1/info", token, "");
        assert_eq!(answer.status, 401, "{token}");
        assert!(answer.head.contains("www-authenticate: bearer") && !answer.what().is_empty());
        assert_eq!(
            daemon.request("POST", "/v1/signer/lapse", token, "").status,
            401
        );
    }
    let forbidden = daemon.request("POST", "/v1/signer/lapse", &reads, "");
    assert_eq!(
        (forbidden.status, forbidden.what().as_str()),
        (403, "this token may only read")
    );
    assert_eq!(daemon.ask(&["info"])["mode"], "live", "nothing was done");

    for query in [format!("token={reads}"), format!("access_token={changes}")] {
        let answer = daemon.request("GET", &format!("/v1/info?{query}"), "", "");
        assert_eq!(
            (answer.status, answer.what().as_str()),
            (400, "a token is never taken from a URL")
        );
        assert_eq!(
            daemon
                .request("GET", &format!("/v1/info?{query}"), &reads, "")
                .status,
            400
        );
    }
    for token in [&reads, &changes] {
        let answer = daemon.request("GET", "/v1/info", token, "");
        assert_eq!(answer.status, 200);
        assert!(
            answer.head.contains("cache-control: no-store"),
            "{}",
            answer.head
        );
    }
}

#[test]
fn a_name_that_is_not_the_daemons_is_refused_before_anything_else() {
    let daemon = Daemon::start_with(|command, folder| {
        let path = folder.join("p.toml");
        fs::write(&path, "admin_hosts = [\"node.lan\"]\n").unwrap();
        command.arg("--config").arg(path);
    });
    let get = |path: &str, host: &str| {
        let answer = daemon.http(&format!(
            "GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
        ));
        (
            answer.status,
            answer.head.contains("cache-control: no-store"),
        )
    };
    for path in ["/healthz", "/metrics", "/v1/info", "/nothing"] {
        assert_eq!(get(path, "Host: evil.example\r\n"), (421, true), "{path}");
        assert_eq!(
            get(path, "Host: localhost\r\nHost: localhost\r\n").0,
            421,
            "{path}"
        );
        assert_eq!(get(path, "").0, 421, "{path}");
    }
    for host in ["localhost", "node.lan:9736", "127.0.0.1"] {
        assert_eq!(
            get("/healthz", &format!("Host: {host}\r\n")).0,
            200,
            "{host}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_answered_in_json() {
    let daemon = Daemon::start();
    let token = daemon.token("admin.token");
    let peer = |fields: &str| daemon.request("POST", "/v1/peers", &token, fields);
    let node = id(1).to_string();
    for (body, part) in [
        ("", "EOF"),
        ("{}", "missing field"),
        (
            r#"{"node_id":"02","addr":"a:1","tag":"gossip-only","nodeid":1}"#,
            "unknown field `nodeid`",
        ),
        (
            r#"{"node_id":"02","addr":"a:1","tag":"gossip-only"}"#,
            "a node id is 33 bytes",
        ),
        (
            &format!(r#"{{"node_id":"{node}","addr":"1.2.3.4","tag":"gossip-only"}}"#),
            "PORT is missing",
        ),
        (
            &format!(r#"{{"node_id":"{node}","addr":"0.0.0.0:1","tag":"gossip-only"}}"#),
            "not the address of one machine",
        ),
        (
            &format!(r#"{{"node_id":"{node}","addr":"1.2.3.4:1","tag":"chan"}}"#),
            "unknown tag",
        ),
    ] {
        let answer = peer(body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.what().contains(part), "{body}: {}", answer.what());
    }
    let own = format!(
        r#"{{"node_id":"{}","addr":"1.2.3.4:1","tag":"gossip-only"}}"#,
        daemon.text("node_id")
    );
    assert!(peer(&own).what().contains("own id"));
    assert_eq!(peer(&" ".repeat(20_000)).status, 413);
    let unknown = daemon.request(
        "PATCH",
        &format!("/v1/peers/{node}"),
        &token,
        r#"{"tag":"gossip-only"}"#,
    );
    assert_eq!(
        (unknown.status, unknown.what().as_str()),
        (404, "no such peer")
    );
    assert_eq!(
        daemon
            .request("DELETE", &format!("/v1/peers/{node}"), &token, "")
            .status,
        404
    );
    assert_eq!(
        daemon
            .request("PATCH", "/v1/peers/02", &token, r#"{"weight":1}"#)
            .status,
        400
    );
    assert_eq!(daemon.request("GET", "/v2", &token, "").status, 404);
    assert_eq!(
        daemon.request("GET", "/v2", "", "").what(),
        "there is nothing here"
    );
    let wrong_method = daemon.request("POST", "/v1/info", &token, "");
    assert_eq!(
        (wrong_method.status, wrong_method.what().as_str()),
        (405, "POST is not for this path")
    );
    assert_eq!(daemon.ask(&["info"])["peers"]["total"], 0);
}

/// What `/metrics` may have where it is not asked for single peers.
fn listed() -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().chain(PROCESS_METRICS)
}

/// The name of a sample's metric, without what a histogram adds.
fn family(sample: &str) -> &str {
    let name = sample.split(['{', ' ']).next().unwrap();
    let histogram = |suffix| {
        let base = name.strip_suffix(suffix)?;
        listed().any(|metric| metric.name == base).then_some(base)
    };
    ["_bucket", "_sum", "_count"]
        .into_iter()
        .find_map(histogram)
        .unwrap_or(name)
}

#[test]
fn metrics_are_those_of_the_table_and_no_others() {
    let daemon = Daemon::start();
    daemon.ask(&["signer", "lapse"]);
    let answer = daemon.request("GET", "/metrics", "", "");
    assert!(
        answer.head.contains("text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    let mut found = BTreeSet::new();
    for line in answer.body.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (keyword, name, rest) = (
                words.next().unwrap(),
                words.next().unwrap(),
                words.next().unwrap(),
            );
            let row = listed()
                .find(|metric| metric.name == name)
                .unwrap_or_else(|| panic!("unknown: {line}"));
            match keyword {
                "HELP" => assert_eq!(rest, row.help),
                "TYPE" => assert_eq!(rest, row.kind.as_str(), "{name}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (_, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        let name = family(line);
        let row = listed()
            .find(|metric| metric.name == name)
            .unwrap_or_else(|| panic!("unknown: {line}"));
        for label in row.labels {
            assert!(line.contains(&format!("{label}=\"")), "{label}: {line}");
        }
        found.insert(name.to_owned());
    }
    let must = listed()
        .filter(|metric| metric.from_start)
        .map(|metric| metric.name);
    let missing: Vec<_> = must.filter(|name| !found.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for line in [
        "pilotlight_mode{mode=\"safe\"} 1",
        "pilotlight_signer_attached 0",
        "pilotlight_signer_epoch 1",
        "pilotlight_signer_lapses_total{reason=\"requested\"} 1",
        "pilotlight_fence_duration_seconds_count 1",
        "pilotlight_fence_duration_seconds_bucket{le=\"0.000001\"}",
    ] {
        assert!(
            answer.body.lines().any(|found| found.starts_with(line)),
            "{line}"
        );
    }
}

#[test]
fn the_metrics_need_a_token_where_the_operator_says_so() {
    let daemon = Daemon::start_with(|command, folder| {
        let path = folder.join("p.toml");
        fs::write(&path, "scrape_needs_token = true\n").unwrap();
        command.arg("--config").arg(path);
    });
    assert_eq!(daemon.request("GET", "/metrics", "", "").status, 401);
    assert_eq!(daemon.request("GET", "/readyz", "", "").status, 401);
    assert_eq!(daemon.request("GET", "/healthz", "", "").status, 200);
    let token = daemon.token("readonly.token");
    assert_eq!(daemon.request("GET", "/metrics", &token, "").status, 200);
}

#[test]
fn the_event_stream_shows_a_lapse_and_ends_with_the_daemon() {
    let mut daemon = Daemon::start();
    for json in [true, false] {
        let mut command = pilotlight();
        command
            .arg("events")
            .arg("--data-dir")
            .arg(&daemon.data)
            .stdout(Stdio::piped());
        if json {
            command.arg("--json");
        }
        let mut child = command.spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        // The stream is open once an event of ours is in it; until then one more is made.
        let lapse = loop {
            daemon.ask(&["signer", "lapse"]);
            daemon.ask(&["signer", "attach"]);
            let lapse = lines.try_iter().find(|line| line.contains("signer_lapsed"));
            if let Some(lapse) = lapse {
                break lapse;
            }
        };
        if json {
            let event: serde_json::Value = serde_json::from_str(&lapse).unwrap();
            assert_eq!(
                (&event["event"], &event["reason"]),
                (&"signer_lapsed".into(), &"requested".into())
            );
            assert!(
                event["at"].is_number() && event["fence_us"].is_number(),
                "{event}"
            );
            child.kill().unwrap();
        } else {
            assert!(
                lapse.contains(" signer_lapsed ") && lapse.contains("reason=requested"),
                "{lapse}"
            );
            daemon.signal("-TERM");
            assert!(daemon.ended().success());
        }
        let status = child.wait().unwrap();
        assert!(
            json || status.success(),
            "the stream ended with the daemon: {status}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hold_every_admin_place_hurt_neither_a_link_nor_the_end() {
    let mut daemon = Daemon::start();
    let node = daemon.text("node_id").parse().unwrap();
    let address = daemon.text("listen").parse().unwrap();
    let mut link = RawLink::connect(address, Arc::new(key(1)), node)
        .await
        .unwrap();
    let init = Init::with_features(Features::gossip(), vec![BITCOIN_MAINNET]);
    link.send(&init.encode()).await.unwrap();
    daemon.ask_until(&["info"], |info| info["links"]["gossip_only"] == 1);

    // One asks for events and never reads them; the others never say what they want.
    let token = daemon.token("readonly.token");
    let admin = daemon.text("admin").to_owned();
    let mut clients: Vec<_> = (0..limits::ADMIN_CONNECTIONS)
        .map(|_| std::net::TcpStream::connect(&admin).unwrap())
        .collect();
    let ask = format!(
        "GET /v1/events HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    clients[0].write_all(ask.as_bytes()).unwrap();

    let ping = Ping {
        num_pong_bytes: 9,
        ignored: 0,
    };
    link.send(&ping.encode()).await.unwrap();
    let pong = tokio::time::timeout(HANG, async {
        loop {
            let message = link.receive().await.unwrap().expect("the link lives");
            if MessageType::of(&message).unwrap() == MessageType::PONG {
                return message.len();
            }
        }
    });
    assert_eq!(pong.await.unwrap(), 2 + 2 + 9);
    daemon.signal("-TERM");
    assert!(daemon.ended().success(), "no client is waited for");
    drop(clients);
}

#[test]
fn a_signal_drains_says_so_and_leaves_no_address() {
    for signal in ["-TERM", "-INT"] {
        let mut daemon = Daemon::start();
        daemon.signal(signal);
        assert_eq!(daemon.next_line().unwrap(), r#"{"event":"draining"}"#);
        assert_eq!(daemon.next_line().unwrap(), r#"{"event":"stopped"}"#);
        assert_eq!(daemon.ended().code(), Some(0));
        assert!(!daemon.data.join("admin.addr").exists());
        assert_eq!(daemon.run(&["info"]).code, 3);
    }
}

#[tokio::test]
async fn a_draining_daemon_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::at(folder.path().join("data"));
    dir.prepare().unwrap();
    let context = SignerContext::new(id(1));
    let (supervisor, _inbox) = Supervisor::builder(context.clone())
        .seed(1)
        .start()
        .await
        .unwrap();
    let settings = Settings {
        address: "127.0.0.1:0".parse().unwrap(),
        hosts: Vec::new(),
        scrape_needs_token: None,
    };
    let server = AdminServer::bind(settings).await.unwrap();
    let address = server.address().to_string();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let parts = Parts {
        supervisor: supervisor.clone(),
        signer: Arc::new(SignerControl::remote(context)),
        exporter: None,
        read_only: dir.token_or_new(TokenKind::ReadOnly).unwrap(),
        admin: dir.token_or_new(TokenKind::Admin).unwrap(),
    };
    tokio::spawn(server.serve(parts, stopped));
    let ready = || {
        let address = address.clone();
        let request =
            format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        tokio::task::spawn_blocking(move || http(&address, &request))
    };
    let before = ready().await.unwrap();
    assert_eq!(
        (before.status, before.json()["mode"].as_str()),
        (200, Some("waiting"))
    );
    supervisor.drain().await;
    let after = ready().await.unwrap();
    assert_eq!(
        (after.status, after.json()["mode"].as_str()),
        (503, Some("draining"))
    );
}

#[test]
fn without_a_daemon_every_command_says_so_and_exits_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        Ended::of(
            pilotlight()
                .args(arguments)
                .arg("--json")
                .arg("--data-dir")
                .arg(folder.path()),
        )
    };
    let node = id(1).to_string();
    let spec = format!("{node}@127.0.0.1:1");
    let commands: [&[&str]; 9] = [
        &["info"],
        &["top", "--once"],
        &["events"],
        &["peer", "list"],
        &["peer", "add", &spec, "--tag", "gossip-only"],
        &["peer", "tag", &node, "gossip-only"],
        &["peer", "rm", &node],
        &["signer", "lapse"],
        &["signer", "attach"],
    ];
    for command in commands {
        let (what, place, to_do) = run(command).problem(3);
        assert!(what.starts_with("no daemon runs there"), "{what}");
        assert_eq!(place, folder.path().display().to_string());
        assert!(to_do.contains("pilotlight run"), "{to_do}");
    }
    // A daemon that was killed leaves its address behind.
    let mut killed = Daemon::start();
    killed.signal("-KILL");
    killed.ended();
    let left = fs::read_to_string(killed.data.join("admin.addr")).unwrap();
    // Whoever takes its port now must not be handed a token.
    let squatter = std::net::TcpListener::bind(left.trim()).unwrap();
    squatter.set_nonblocking(true).unwrap();
    let (what, _, _) = killed.run(&["info", "--json"]).problem(3);
    assert!(what.contains("has ended without a word"), "{what}");
    assert!(squatter.accept().is_err(), "nobody may have connected");
    let human = killed.run(&["info"]);
    assert!(
        human.stderr.starts_with("error: no daemon runs there") && human.stdout.is_empty(),
        "{human:?}"
    );
}

#[test]
fn a_malformed_argument_is_named_before_a_daemon_is_looked_for() {
    let run = |arguments: &[&str]| {
        Ended::of(
            pilotlight()
                .args(arguments)
                .args(["--json", "--data-dir", "/nonexistent"]),
        )
    };
    let node = id(1).to_string();
    for (spec, part) in [
        (node.clone(), "no @ separates"),
        (format!("{node}@host"), "PORT is missing"),
        (format!("{node}@host:99999"), "PORT \"99999\""),
        (format!("{node}@:1"), "HOST is missing"),
        ("02@host:1".to_owned(), "ID: a node id"),
    ] {
        let (what, _, to_do) = run(&["peer", "add", &spec, "--tag", "gossip-only"]).problem(2);
        assert!(what.contains(part), "{spec}: {what}");
        assert!(to_do.contains("@192.0.2.1:9735"), "an example: {to_do}");
    }
    assert!(
        run(&["peer", "tag", &node, "chanel"])
            .problem(2)
            .0
            .contains("unknown tag")
    );
    assert!(
        run(&["peer", "rm", "zz"])
            .problem(2)
            .0
            .contains("malformed node id")
    );
    assert!(run(&["peer", "lsit"]).problem(2).0.contains("lsit"));
    let human = Ended::of(pilotlight().args(["peer", "add", "x"]));
    assert_eq!(human.code, 2);
    assert!(human.stderr.contains("--tag"), "{human:?}");
    let help = Ended::of(pilotlight().arg("--help"));
    assert!(
        help.code == 0 && help.stdout.contains("Exit codes"),
        "{help:?}"
    );
}

/// `run` with a configuration, which is expected to fail.
fn fails_with(config: &str, arguments: &[&str], code: i32) -> (String, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.toml");
    fs::write(&path, config).unwrap();
    let mut command = pilotlight();
    command.args([
        "run",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    command
        .arg(folder.path().join("data"))
        .arg("--config")
        .arg(&path)
        .args(arguments);
    Ended::of(&mut command).problem(code)
}

#[test]
fn a_configuration_that_is_wrong_is_named_with_its_line() {
    let (what, place, to_do) = fails_with("log = \"text\"\nlissten = \"127.0.0.1:1\"\n", &[], 2);
    assert_eq!(
        what,
        "unknown key \"lissten\"; the nearest known one is \"listen\""
    );
    assert!(
        place.ends_with("p.toml, line 2") && to_do.contains("admin_hosts"),
        "{place} {to_do}"
    );
    let peer = format!(
        "[[peers]]\nid = \"{}\"\naddress = \"host\"\ntag = \"gossip-only\"\n",
        id(1)
    );
    assert!(fails_with(&peer, &[], 2).0.contains("PORT is missing"));
    assert!(
        fails_with("signer = \"usb\"", &[], 2)
            .2
            .contains("embedded, gateway")
    );
    let (what, place, to_do) = fails_with("\nfirewall = \"observing\"", &[], 2);
    assert!(
        what.contains("observing")
            && place.ends_with("line 2")
            && to_do.contains("enforce, observe"),
        "{what} {place} {to_do}"
    );
    for (age, says) in [
        ("9m", "too short"),
        ("never", "the unit is unknown"),
        ("0s", "too short"),
    ] {
        let (what, place, _) = fails_with(&format!("[vault]\nmax_session_age = \"{age}\""), &[], 2);
        assert!(
            what.contains(says) && place.ends_with("line 2"),
            "{age}: {what} {place}"
        );
    }
    let (what, place, to_do) =
        fails_with("protected = [\n\"192.0.2.7\",\n\"192.0.2.1/24\"]", &[], 2);
    assert!(
        what.contains("192.0.2.1/24") && place.ends_with("line 3") && to_do.contains("192.0.2.7"),
        "{what} {place} {to_do}"
    );
    assert!(
        fails_with("listen = 1", &[], 2)
            .1
            .ends_with("p.toml, line 1")
    );
    let missing = Ended::of(pilotlight().args(["run", "--json", "--config", "/nonexistent.toml"]));
    assert_eq!(missing.problem(2).1, "/nonexistent.toml");
    let misspelt = Ended::of(
        pilotlight()
            .args(["run", "--json"])
            .env("PILOTLIGHT_LISTN", "x"),
    );
    assert!(
        misspelt
            .problem(2)
            .0
            .ends_with("the nearest known one is PILOTLIGHT_LISTEN")
    );
    let filter = Ended::of(
        pilotlight()
            .args(["run", "--json"])
            .env("RUST_LOG", "info=pilotlight=x"),
    );
    assert!(filter.problem(2).0.contains("RUST_LOG"));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let daemon = Daemon::start_with(|command, folder| {
        let path = folder.join("p.toml");
        let peer = format!(
            "[[peers]]\nid = \"{}\"\naddress = \"127.0.0.1:1\"\ntag = \"gossip-only\"\nweight = 5\n",
            id(1)
        );
        fs::write(
            &path,
            format!("listen = \"{taken}\"\nsigner = \"gateway\"\n{peer}"),
        )
        .unwrap();
        command
            .env("PILOTLIGHT_CONFIG", path)
            .env("PILOTLIGHT_LISTEN", &taken)
            .env("PILOTLIGHT_SIGNER", "embedded");
    });
    assert_ne!(daemon.text("listen"), taken);
    let peers = daemon.ask_until(&["peer", "list"], |peers| {
        !peers.as_array().unwrap().is_empty()
    });
    assert_eq!(
        (&peers[0]["weight"], &peers[0]["addr"]),
        (&5.into(), &"127.0.0.1:1".into())
    );
    let by_environment = Ended::of(
        pilotlight()
            .args(["info", "--json"])
            .env("PILOTLIGHT_DATA_DIR", &daemon.data),
    );
    assert_eq!(by_environment.json()["mode"], "live");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let folder = tempfile::tempdir().unwrap();
        let other = if flag == "--listen" {
            "--admin"
        } else {
            "--listen"
        };
        let mut command = pilotlight();
        command
            .args([
                "run",
                "--json",
                flag,
                &taken,
                other,
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(folder.path());
        let (what, place, to_do) = Ended::of(&mut command).problem(1);
        assert!(what.contains(&taken) && what.contains("in use"), "{what}");
        assert_eq!(place, format!("{flag} {taken}"));
        assert!(to_do.contains("another address"), "{to_do}");
    }
}

#[test]
fn a_data_directory_serves_one_daemon() {
    let daemon = Daemon::start();
    let mut second = pilotlight();
    second
        .args([
            "run",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(&daemon.data);
    assert!(
        Ended::of(&mut second)
            .problem(1)
            .0
            .starts_with("another daemon runs")
    );
    assert_eq!(
        daemon.ask(&["info"])["mode"],
        "live",
        "the first one's address is still there"
    );
}

/// `run` on a data directory in which `prepare` has put something.
fn run_on(prepare: impl FnOnce(&std::path::Path), code: i32) -> (String, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    DataDir::at(&data).prepare().unwrap();
    prepare(&data);
    let mut command = pilotlight();
    command
        .args([
            "run",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(&data);
    Ended::of(&mut command).problem(code)
}

fn write(path: &std::path::Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_file_that_cannot_be_used_is_named_and_left_alone() {
    let good = "11".repeat(32);
    for (text, mode, part) in [
        ("not a key", 0o600, "holds 9 characters"),
        (&"zz".repeat(32), 0o600, "something else than a hex digit"),
        (&"00".repeat(32), 0o600, "is zero"),
        (&good, 0o644, "chmod 600"),
    ] {
        let (what, place, _) = run_on(|data| write(&data.join("identity.key"), text, mode), 2);
        assert!(what.contains(part), "{what}");
        assert!(place.ends_with("identity.key"), "{place}");
        assert!(!what.contains(&good), "no key in an error");
    }
    let (what, _, _) = run_on(|data| fs::create_dir(data.join("identity.key")).unwrap(), 2);
    assert!(what.contains("is not a regular file"), "{what}");
    let (what, _, to_do) = fails_with("", &["--node-id", &id(9).to_string()], 2);
    assert!(
        what.contains(&format!("not of {}", id(9))) && to_do.contains("--node-id"),
        "{what}"
    );
}

#[test]
fn token_files_must_stay_private() {
    let token = "ab".repeat(32);
    let (what, place, to_do) = run_on(|data| write(&data.join("admin.token"), &token, 0o640), 2);
    assert!(
        what.contains("open to others (mode 640)") && place.ends_with("admin.token"),
        "{what}"
    );
    assert!(to_do.contains("chmod 600"), "{to_do}");
    assert!(
        run_on(
            |data| write(&data.join("readonly.token"), "short", 0o600),
            2
        )
        .0
        .contains("does not hold a token")
    );
    let (what, _, to_do) = run_on(
        |data| fs::set_permissions(data, fs::Permissions::from_mode(0o777)).unwrap(),
        2,
    );
    assert!(
        what.contains("mode 777") && to_do.contains("chmod 700"),
        "{what}"
    );

    let daemon = Daemon::start();
    fs::set_permissions(
        daemon.data.join("readonly.token"),
        fs::Permissions::from_mode(0o604),
    )
    .unwrap();
    assert!(
        daemon
            .run(&["info", "--json"])
            .problem(2)
            .0
            .contains("mode 604"),
        "a command refuses it too"
    );
}
