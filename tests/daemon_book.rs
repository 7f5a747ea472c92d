//! The daemon's peer book, with the real binary: peers outlive it however it ends, a book that it cannot use stops it before
//! anything is dialled and is left as it was, and other nodes' lists of peers are taken in.
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

use pilotlight::book::{Book, PeerRecord, SqliteBook};
use pilotlight::limits;
use pilotlight::node_id::{LocalKey, NodeId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;
use support::{Daemon, Ended, HANG, pilotlight, run_on};

fn id(number: u32) -> NodeId {
    let mut key = [0x21; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    LocalKey::from_bytes(&mut key).unwrap().node_id()
}

/// A data directory that outlives the daemons on it.
fn data() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    (folder, data)
}

fn start(data: &Path) -> Daemon {
    Daemon::start_on(data, |_, _| {})
}

/// Starts with a configuration file.
fn start_with(data: &Path, configuration: &str) -> Daemon {
    Daemon::start_on(data, |command, folder| {
        let file = folder.join("pilotlight.toml");
        fs::write(&file, configuration).unwrap();
        command.arg("--config").arg(file);
    })
}

fn stop(mut daemon: Daemon) {
    daemon.signal("-TERM");
    assert!(daemon.ended().success());
}

/// The daemon does not start; how it ends, with nothing in the book changed.
fn refused(data: &Path, code: i32) -> (String, String, String) {
    let book = data.join("peers.db");
    let before = fs::read(&book).unwrap();
    let ended = Ended::of(&mut run_on(data));
    assert_eq!(fs::read(&book).unwrap(), before);
    assert_eq!(ended.stdout, "", "nothing was started");
    let problem = ended.problem(code);
    assert_eq!(problem.1, book.display().to_string());
    problem
}

fn add(daemon: &Daemon, number: u32, tag: &str) {
    let peer = format!("{}@127.0.3.{number}:1", id(number));
    let weight = number.to_string();
    daemon.ask(&["peer", "add", &peer, "--tag", tag, "--weight", &weight]);
}

/// Address, tag and weight of each peer, as the daemon says.
fn peers(daemon: &Daemon) -> BTreeMap<String, (String, String, u64)> {
    let list = daemon.ask(&["peer", "list"]);
    let text = |peer: &Value, name: &str| peer[name].as_str().unwrap_or_default().to_owned();
    let peers = list.as_array().unwrap().iter();
    peers
        .map(|peer| {
            let told = (
                text(peer, "addr"),
                text(peer, "tag"),
                peer["weight"].as_u64().unwrap(),
            );
            (text(peer, "node_id"), told)
        })
        .collect()
}

fn expected(numbers: &[(u32, &str)]) -> BTreeMap<String, (String, String, u64)> {
    let told = numbers.iter().map(|(number, tag)| {
        let told = (
            format!("127.0.3.{number}:1"),
            (*tag).to_owned(),
            u64::from(*number),
        );
        (id(*number).to_string(), told)
    });
    told.collect()
}

fn warnings(daemon: &Daemon) -> Vec<String> {
    serde_json::from_value(daemon.started["warnings"].clone()).unwrap()
}

#[test]
fn peers_survive_a_restart_and_their_tags_wait_to_be_confirmed() {
    let (_folder, data) = data();
    let daemon = start(&data);
    assert_eq!(warnings(&daemon), [""; 0]);
    add(&daemon, 1, "gossip-only");
    add(&daemon, 2, "channel-bearing");
    add(&daemon, 3, "gossip-only");
    daemon.ask(&["peer", "rm", &id(3).to_string()]);
    let both = expected(&[(1, "gossip-only"), (2, "channel-bearing")]);
    assert_eq!(peers(&daemon), both);
    // At once: what was not written yet is written on the way out.
    stop(daemon);

    let daemon = start(&data);
    let cautious = expected(&[(1, "channel-bearing"), (2, "channel-bearing")]);
    assert_eq!(peers(&daemon), cautious);
    let said = warnings(&daemon);
    assert!(
        said[0].contains("2 peers") && said[0].contains("peers_declared"),
        "{said:?}"
    );
    stop(daemon);

    let daemon = start_with(&data, "peers_declared = true\n");
    assert_eq!(peers(&daemon), both);
    assert_eq!(warnings(&daemon), [""; 0]);
    stop(daemon);
}

/// The daemon ends only when its book is closed: with a book that another program holds up, it waits for it.
#[test]
fn what_was_not_written_yet_is_written_before_the_daemon_ends() {
    // A machine that is too busy to let go of the book before the daemon gives it up has shown nothing: once more.
    while !ended_while_the_book_was_held_up() {}
}

/// `false`: the book was held up for too long.
fn ended_while_the_book_was_held_up() -> bool {
    let (_folder, data) = data();
    let mut daemon = start(&data);
    let shell = rusqlite::Connection::open(data.join("peers.db")).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let held = Instant::now();
    add(&daemon, 1, "channel-bearing");
    daemon.signal("-TERM");
    let draining = daemon.next_line().unwrap();
    assert!(draining.contains("draining"), "{draining}");
    // Its address is gone: the drain is over, and only the book is left.
    while data.join("admin.addr").exists() {
        assert!(held.elapsed() < HANG);
    }
    shell.execute_batch("ROLLBACK").unwrap();
    let in_time = held.elapsed() < limits::BOOK_LOCK_WAIT / 2;
    drop(shell);
    assert!(daemon.ended().success());
    let daemon = start(&data);
    let kept = peers(&daemon);
    stop(daemon);
    assert!(
        !in_time || kept == expected(&[(1, "channel-bearing")]),
        "{kept:?}"
    );
    in_time
}

#[test]
fn a_peer_of_the_configuration_is_confirmed_but_not_demoted_by_it() {
    let (_folder, data) = data();
    let configuration = format!(
        "[[peers]]\nid = \"{}\"\naddress = \"127.0.3.1:1\"\ntag = \"gossip-only\"\nweight = 1\n",
        id(1)
    );
    let as_written = expected(&[(1, "gossip-only")]);
    let is = |wanted: BTreeMap<_, _>| {
        move |daemon: &Daemon| {
            let begun = Instant::now();
            while peers(daemon) != wanted {
                assert!(begun.elapsed() < HANG, "{:?}", peers(daemon));
            }
        }
    };
    for _ in 0..2 {
        let daemon = start_with(&data, &configuration);
        is(as_written.clone())(&daemon);
        assert_eq!(warnings(&daemon), [""; 0]);
        stop(daemon);
    }
    let daemon = start_with(&data, &configuration);
    is(as_written)(&daemon);
    daemon.ask(&["peer", "tag", &id(1).to_string(), "channel-bearing"]);
    stop(daemon);
    let daemon = start_with(&data, &configuration);
    is(expected(&[(1, "channel-bearing")]))(&daemon);
    assert!(warnings(&daemon)[0].contains("stays channel-bearing"));
    stop(daemon);
}

#[test]
fn peers_survive_a_kill() {
    const PEERS: u32 = 20;
    let (_folder, data) = data();
    let mut daemon = start(&data);
    for number in 1..=PEERS {
        add(&daemon, number, "channel-bearing");
    }
    // The supervisor does not wait for the book: what is in it, another reader sees.
    let reader = rusqlite::Connection::open(data.join("peers.db")).unwrap();
    let count = "SELECT count(*) FROM peers WHERE tag = 'channel-bearing'";
    let begun = Instant::now();
    while reader.query_row(count, [], |row| row.get(0)) != Ok(PEERS) {
        assert!(begun.elapsed() < HANG);
    }
    daemon.signal("-KILL");
    assert!(!daemon.ended().success());
    drop(reader);
    let daemon = start(&data);
    let all: Vec<_> = (1..=PEERS)
        .map(|number| (number, "channel-bearing"))
        .collect();
    assert_eq!(peers(&daemon), expected(&all));
}

#[test]
fn a_second_daemon_on_the_same_book_is_refused() {
    let (_folder, data) = data();
    let daemon = start(&data);
    add(&daemon, 1, "channel-bearing");
    let (what, _, _) = Ended::of(&mut run_on(&data)).problem(1);
    assert!(what.contains("another daemon runs on"), "{what}");
    assert_eq!(peers(&daemon), expected(&[(1, "channel-bearing")]));
    stop(daemon);
    // Whoever it is that has it.
    let book = SqliteBook::open(data.join("peers.db")).unwrap();
    let (what, _, to_do) = refused(&data, 1);
    assert!(what.contains("in use by another process"), "{what}");
    assert!(to_do.contains("stop the other process"), "{to_do}");
    book.close();
    stop(start(&data));
}

#[tokio::test]
async fn a_book_that_is_damaged_foreign_or_newer_stops_the_start_and_is_left_alone() {
    let (_folder, data) = data();
    stop(start(&data));
    let path = data.join("peers.db");
    let book = SqliteBook::open(&path).unwrap();
    for number in 0..300 {
        let record = PeerRecord {
            node_id: id(number),
            addresses: vec!["127.0.3.1:1".parse().unwrap(); 4],
            tag: None,
            weight: 0,
        };
        book.save(record).await.unwrap();
    }
    book.close();
    let whole = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();

    file.write_all_at(&[0xa5; 4096], 3 * 4096).unwrap();
    let (what, _, to_do) = refused(&data, 2);
    assert!(what.contains("is corrupted"), "{what}");
    assert!(to_do.contains("put a backup in its place"), "{to_do}");

    file.write_all_at(&whole, 0).unwrap();
    // `user_version` in the header of SQLite's file format.
    file.write_all_at(&9_u32.to_be_bytes(), 60).unwrap();
    let (what, _, to_do) = refused(&data, 2);
    assert!(what.contains("is of version 9"), "{what}");
    assert!(to_do.contains("newer software"), "{to_do}");

    file.write_all_at(b"not a database at all", 0).unwrap();
    let (what, _, _) = refused(&data, 2);
    assert!(what.contains("is not a peer book"), "{what}");

    file.write_all_at(&whole, 0).unwrap();
    let daemon = start(&data);
    assert_eq!(peers(&daemon).len(), 300);
}

/// A list of the fixtures, on loopback: what is imported is dialled.
fn listing(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/import")
        .join(file);
    let text = fs::read_to_string(path).unwrap();
    text.replace("192.0.2.", "127.0.2.")
        .replace("[2001:db8::", "[::ffff:127.0.2.")
}

#[test]
fn what_other_nodes_list_is_imported() {
    let daemon = Daemon::start();
    let file = daemon.data.join("peers.json");
    let path = file.to_str().unwrap();
    fs::write(&file, listing("lightning-cli-listpeers.json")).unwrap();
    let answer = daemon.ask(&["peer", "import", "--private", path]);
    let expected = json!({
        "file": path, "entries": 4, "imported": 3, "channel_bearing": 3,
        "left_out": { "own": 0, "without_address_or_channel": 1 },
        "addresses_left_out": { "tor": 1, "inbound": 0, "unusable": 0, "surplus": 0, "private": 0 },
    });
    assert_eq!(answer, expected);
    let list = peers(&daemon);
    assert_eq!(list.len(), 3);
    assert!(list.values().all(|(_, tag, _)| tag == "channel-bearing"));
    assert!(
        list.values()
            .any(|(address, _, _)| address == "127.0.2.1:9735")
    );

    // Once more, and another list of the same peers: what is known stays, what is new is added.
    assert_eq!(daemon.ask(&["peer", "import", "--private", path]), expected);
    assert_eq!(peers(&daemon), list);
    fs::write(&file, listing("lncli-listchannels.json")).unwrap();
    let said = daemon.run(&["peer", "import", "--private", path]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout
            .starts_with("imported 2 peers, 2 of them channel-bearing, of 3 entries\n"),
        "{said:?}"
    );
    assert_eq!(peers(&daemon).len(), 4);
}

#[test]
fn a_list_cannot_have_the_daemon_dial_into_its_own_network() {
    let daemon = Daemon::start();
    let file = daemon.data.join("peers.json");
    let node = |number: u32, address: &str| json!({ "pub_key": id(number).to_string(), "addresses": [{ "network": "tcp", "addr": address }] });
    let nodes = [
        node(7, "127.0.0.1:22"),
        node(8, "10.255.255.1:9735"),
        node(9, "[fd00::1]:9735"),
    ];
    fs::write(&file, json!({ "nodes": nodes, "edges": [] }).to_string()).unwrap();
    let path = file.to_str().unwrap();
    let answer = daemon.ask(&["peer", "import", path]);
    assert_eq!(answer["addresses_left_out"]["private"], 3, "{answer}");
    assert_eq!(answer["imported"], 0, "{answer}");
    assert_eq!(peers(&daemon).len(), 0);
    assert_eq!(
        daemon.ask(&["peer", "import", "--private", path])["imported"],
        3
    );
}

#[test]
fn a_graph_from_standard_input_is_imported_in_batches() {
    const NODES: u32 = 700;
    let daemon = Daemon::start();
    let own = daemon.text("node_id").to_owned();
    let node = |id: &str, address: &str| json!({ "pub_key": id, "addresses": [{ "network": "tcp", "addr": address }] });
    let mut nodes: Vec<Value> = (0..NODES)
        .map(|number| {
            node(
                &id(number).to_string(),
                &format!("127.7.{}.{}:1", number / 200, number % 200 + 1),
            )
        })
        .collect();
    nodes.push(node(&own, "127.7.9.9:1"));
    let edge = |other: u32| json!({ "node1_pub": own, "node2_pub": id(other).to_string() });
    let graph = json!({ "nodes": nodes, "edges": [edge(3), edge(4)] });

    let mut import = pilotlight();
    import
        .args(["peer", "import", "--private", "-", "--json", "--data-dir"])
        .arg(&daemon.data);
    let mut child = import
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(graph.to_string().as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["imported"], NODES);
    assert_eq!(
        (&answer["channel_bearing"], &answer["left_out"]["own"]),
        (&json!(2), &json!(1))
    );
    let channels = peers(&daemon);
    assert_eq!(channels.len(), usize::try_from(NODES).unwrap());
    let channels: Vec<_> = channels
        .iter()
        .filter(|(_, peer)| peer.1 == "channel-bearing")
        .map(|(id, _)| id.clone())
        .collect();
    let mut neighbours = vec![id(3).to_string(), id(4).to_string()];
    neighbours.sort();
    assert_eq!(channels, neighbours);
}

#[test]
fn a_list_that_cannot_be_imported_is_refused_before_a_daemon_is_looked_for() {
    let (folder, data) = data();
    let file = folder.path().join("peers.json");
    let import = || {
        let mut command = pilotlight();
        command
            .args(["peer", "import", "--json", "--data-dir"])
            .arg(&data)
            .arg(&file);
        Ended::of(&mut command)
    };
    let (what, place, _) = import().problem(2);
    assert!(what.contains("cannot read the file"), "{what}");
    assert_eq!(place, file.display().to_string());
    fs::write(&file, "{\"peers\": [\n  {\"id\": \"02ab\"}\n]}").unwrap();
    let (what, place, to_do) = import().problem(2);
    assert!(
        what.starts_with("line 2, column") && what.contains("66 hex digits"),
        "{what}"
    );
    assert_eq!(place, file.display().to_string());
    assert!(to_do.contains("lncli listpeers"), "{to_do}");
    fs::write(&file, "{\"peers\": []}").unwrap();
    import().problem(3);
}
