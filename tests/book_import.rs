//! What other nodes print of their peers, read into records: the files under `tests/import/`, written for these tests after lnd's
//! `lightning.proto` and Core Lightning's `doc/schemas`, and files that are wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use pilotlight::address::{KnownAddress, PeerAddress};
use pilotlight::book::PeerRecord;
use pilotlight::book::import::{Counts, Import, ImportError, Skipped, read};
use pilotlight::limits;
use pilotlight::link::Tag;
use pilotlight::node_id::{LocalKey, NodeId};
use std::fmt::Write as _;

/// The node whose private key is `number`.
fn node(number: u8) -> NodeId {
    let mut key = [0; 32];
    key[31] = number;
    LocalKey::from_bytes(&mut key).unwrap().node_id()
}

fn learned(text: &str) -> KnownAddress {
    KnownAddress::learned(text.parse::<PeerAddress>().unwrap())
}

fn peer(number: u8, addresses: &[&str], tag: Option<Tag>) -> PeerRecord {
    PeerRecord {
        node_id: node(number),
        addresses: addresses.iter().map(|text| learned(text)).collect(),
        tag,
        weight: 0,
    }
}

fn sorted(mut records: Vec<PeerRecord>) -> Vec<PeerRecord> {
    records.sort_by_key(|record| record.node_id);
    records
}

#[track_caller]
fn assert_imports(json: &str, own: Option<NodeId>, records: Vec<PeerRecord>, counts: Counts) {
    let import = read(json.as_bytes(), own).unwrap();
    let records = sorted(records);
    assert_eq!(import, Import { records, counts });
}

const CHANNELS: Option<Tag> = Some(Tag::ChannelBearing);

#[test]
fn lnd_peers_are_read_with_the_addresses_that_we_dialled() {
    assert_imports(
        include_str!("import/lncli-listpeers.json"),
        None,
        vec![
            peer(1, &["192.0.2.1:9735"], None),
            peer(2, &["[2001:db8::2]:9735"], None),
            peer(3, &[], None),
            peer(4, &[], None),
        ],
        Counts {
            entries: 4,
            without_address: 2,
            skipped: Skipped {
                tor: 1,
                inbound: 1,
                ..Skipped::default()
            },
            ..Counts::default()
        },
    );
}

#[test]
fn lnd_channels_make_their_peers_channel_bearing() {
    assert_imports(
        include_str!("import/lncli-listchannels.json"),
        None,
        vec![peer(2, &[], CHANNELS), peer(3, &[], CHANNELS)],
        Counts {
            entries: 3,
            repeated: 1,
            without_address: 2,
            ..Counts::default()
        },
    );
}

#[test]
fn a_graph_is_read_without_our_own_node_and_its_neighbours_are_channel_bearing() {
    let graph = include_str!("import/lncli-describegraph.json");
    let second = peer(2, &["192.0.2.2:9735", "node.example.com:9735"], None);
    let skipped = Skipped {
        tor: 1,
        unusable: 2,
        ..Skipped::default()
    };
    let counts = Counts {
        entries: 4,
        without_address: 2,
        skipped,
        ..Counts::default()
    };
    let first = peer(1, &["192.0.2.1:9735", "[2001:db8::1]:9735"], None);
    let all = vec![
        first,
        second.clone(),
        peer(3, &[], None),
        peer(4, &[], None),
    ];
    assert_imports(graph, None, all, counts);
    let tagged = PeerRecord {
        tag: CHANNELS,
        ..second
    };
    let others = vec![tagged, peer(3, &[], CHANNELS), peer(4, &[], None)];
    assert_imports(graph, Some(node(1)), others, Counts { own: 1, ..counts });
}

#[test]
fn core_lightning_peers_are_channel_bearing_when_they_have_channels() {
    assert_imports(
        include_str!("import/lightning-cli-listpeers.json"),
        None,
        vec![
            peer(1, &["192.0.2.1:9735"], CHANNELS),
            peer(2, &[], CHANNELS),
            peer(3, &[], None),
            peer(5, &["192.0.2.5:9735"], CHANNELS),
        ],
        Counts {
            entries: 4,
            without_address: 2,
            skipped: Skipped {
                tor: 1,
                ..Skipped::default()
            },
            ..Counts::default()
        },
    );
}

#[test]
fn core_lightning_channels_make_their_peers_channel_bearing() {
    assert_imports(
        include_str!("import/lightning-cli-listpeerchannels.json"),
        None,
        vec![peer(1, &[], CHANNELS), peer(4, &[], CHANNELS)],
        Counts {
            entries: 2,
            without_address: 2,
            ..Counts::default()
        },
    );
}

fn listed(entries: &[String]) -> String {
    format!(r#"{{"peers":[{}]}}"#, entries.join(","))
}

#[test]
fn a_peer_that_is_listed_twice_is_one_record_with_all_that_was_said() {
    let id = node(1);
    let json = listed(&[
        format!(r#"{{"id":"{id}","num_channels":1,"netaddr":["192.0.2.1:9735"]}}"#),
        format!(
            r#"{{"id":"{id}","num_channels":0,"netaddr":["192.0.2.1:9735","192.0.2.9:9735"]}}"#
        ),
    ]);
    let counts = Counts {
        entries: 2,
        repeated: 1,
        ..Counts::default()
    };
    let record = peer(1, &["192.0.2.1:9735", "192.0.2.9:9735"], CHANNELS);
    assert_imports(&json, None, vec![record], counts);
}

#[test]
fn addresses_of_every_kind_are_told_apart() {
    let long = format!("{}:9735", "a".repeat(300));
    let cases = [
        ("192.0.2.1:9735", "usable"),
        ("[::1]:9735", "usable"),
        (
            "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:9735",
            "usable",
        ),
        ("expyuzz4wqqyqhjn.onion:9735", "tor"),
        ("abc.onion:9735", "tor"),
        ("ABC.ONION:9735", "tor"),
        ("node.example.com:9735", "usable"),
        ("localhost:9735", "usable"),
        ("node.example.com:0", "unusable"),
        ("node.example.com:99999", "unusable"),
        ("node.example.com", "unusable"),
        ("0.0.0.0:9735", "unusable"),
        ("[::]:9735", "unusable"),
        ("224.0.0.1:9735", "unusable"),
        ("255.255.255.255:9735", "unusable"),
        ("192.0.2.1:0", "unusable"),
        ("192.0.2:9735", "unusable"),
        ("/var/run/lightning.sock", "unusable"),
        ("a b:9735", "unusable"),
        ("", "unusable"),
        (&long, "unusable"),
    ];
    for (text, expected) in cases {
        let json = listed(&[format!(r#"{{"pub_key":"{}","address":"{text}"}}"#, node(1))]);
        let import = read(json.as_bytes(), None).unwrap();
        let skipped = import.counts.skipped;
        let found = [
            ("usable", import.records[0].addresses.len()),
            ("tor", skipped.tor),
            ("unusable", skipped.unusable),
        ];
        for (kind, count) in found {
            assert_eq!(count, usize::from(kind == expected), "{text}: {kind}");
        }
    }
}

#[test]
fn of_very_many_addresses_the_first_are_kept_and_the_others_counted() {
    let mut many = String::new();
    for number in 0..9000 {
        write!(many, r#""192.0.{}.{}:9735","#, number / 250, number % 250).unwrap();
    }
    let json = listed(&[format!(
        r#"{{"id":"{}","netaddr":[{}]}}"#,
        node(1),
        many.trim_end_matches(',')
    )]);
    let import = read(json.as_bytes(), None).unwrap();
    assert_eq!(import.records[0].addresses.len(), limits::ADDRESSES_MAX);
    assert_eq!(import.counts.skipped.surplus, 9000 - limits::ADDRESSES_MAX);
}

#[test]
fn what_is_malformed_is_refused_with_its_place() {
    let id = node(1);
    let off_curve = format!("02{}05", "0".repeat(62));
    let cases = [
        (String::new(), 1, 0, "EOF"),
        ("{\n  \"peers\": [\n".into(), 3, 0, "EOF"),
        ("{\n  \"peers\": [}".into(), 2, 13, "expected value"),
        ("{\"peers\":7}".into(), 1, 10, "expected a list"),
        ("7".into(), 1, 1, "an object with `peers`"),
        (
            "{\"peers\":[{\"num_channels\":1}]}".into(),
            1,
            28,
            "missing field `pub_key`",
        ),
        (
            "{\"peers\":[\n{\"id\":\"02ab\"}]}".into(),
            2,
            13,
            "66 hex digits",
        ),
        (
            listed(&[format!(r#"{{"id":"{}"}}"#, "z".repeat(66))]),
            1,
            85,
            "hex digits",
        ),
        (
            listed(&[format!(r#"{{"id":"{off_curve}"}}"#)]),
            1,
            85,
            "not a point",
        ),
        (
            listed(&[format!(r#"{{"id":"{id}","pub_key":"{id}"}}"#)]),
            1,
            94,
            "duplicate field",
        ),
        (
            listed(&[format!(r#"{{"id":"{id}","netaddr":[5]}}"#)]),
            1,
            98,
            "an address is a text",
        ),
        (
            listed(&[format!(r#"{{"id":"{id}","num_channels":-1}}"#)]),
            1,
            102,
            "invalid value",
        ),
        (
            r#"{"nodes":[],"edges":[{"node1_pub":"","node2_pub":""}]}"#.into(),
            1,
            36,
            "66 hex",
        ),
        ("[".repeat(100_000), 1, 3, "expected a string"),
        (
            format!("{{\"other\":{}", "[".repeat(100_000)),
            1,
            100_009,
            "EOF",
        ),
        ("\u{feff}{}".into(), 1, 1, "expected value"),
    ];
    let mut misplaced = Vec::new();
    for (json, line, column, detail) in cases {
        let shown: String = json.chars().take(120).collect();
        match read(json.as_bytes(), None) {
            Err(ImportError::Malformed {
                line: at,
                column: in_it,
                detail: found,
            }) => {
                assert!(found.contains(detail), "{shown}: {found}");
                assert!(!found.contains("at line"), "{shown}: {found}");
                if (at, in_it) != (line, column) {
                    misplaced.push(format!("{shown}: {found} at {at}:{in_it}"));
                }
            }
            other => panic!("{shown}: {other:?}"),
        }
    }
    assert_eq!(misplaced, [""; 0]);
    assert!(matches!(
        read(b"{\"peers\":[\"\xff\"]}", None),
        Err(ImportError::Malformed { .. })
    ));
}

#[test]
fn a_file_with_none_of_the_lists_or_with_two_of_them_is_refused() {
    for (json, found) in [
        ("{}", "none of the known lists"),
        (r#"{"payments":[]}"#, "none of the known lists"),
        (r#"{"peers":[],"channels":[]}"#, "peers and channels"),
        (r#"{"peers":[],"nodes":[]}"#, "peers and nodes"),
    ] {
        let error = read(json.as_bytes(), None).unwrap_err();
        assert_eq!(
            error,
            ImportError::WhichList {
                found: found.into()
            }
        );
    }
}

#[test]
fn a_list_with_too_many_entries_and_a_file_that_is_too_long_are_refused() {
    let one = format!(r#"{{"node1_pub":"{0}","node2_pub":"{0}"}}"#, node(1));
    // Only the list is long: 40 MB would be slow to build of edges.
    let many = vec!["0"; limits::IMPORT_ENTRIES_MAX + 1].join(",");
    let json = format!(
        r#"{{"nodes":[],"edges":[{one}],"peers":[{{"id":"{}","channels":[{many}]}}]}}"#,
        node(1)
    );
    let error = read(json.as_bytes(), None).unwrap_err();
    let ImportError::Malformed { detail, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        detail,
        &format!("more than {} entries", limits::IMPORT_ENTRIES_MAX)
    );
    let long = vec![b' '; limits::IMPORT_FILE_MAX + 1];
    assert!(matches!(
        read(&long, None),
        Err(ImportError::TooLong { .. })
    ));
}
