//! Each check on good recordings and on bad ones: a check that cannot fail proves nothing.
//! Each check is fed the recording of a good run, and then one of each way in which a run can be bad.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn stamps(origin: usize, numbers: impl IntoIterator<Item = u32>) -> Vec<Stamp> {
    numbers
        .into_iter()
        .map(|number| Stamp { origin, number })
        .collect()
}

fn fenced(name: &'static str) -> Fenced {
    Fenced {
        name,
        written_at_fence: 1000,
        written_at_end: 1000,
        far_bytes: 990,
        channel_messages: 10,
        delivered_after: None,
        accepted_after: 0,
        far_reset: true,
    }
}

fn assert_fault(check: &Check, says: &str) {
    assert!(!check.passed(), "{} should fail: {says}", check.promise);
    assert!(
        check.faults.iter().any(|fault| fault.contains(says)),
        "{:?} does not say {says:?}",
        check.faults
    );
}

/// A good link and one that `spoil` has spoilt.
fn fence_with(spoil: impl FnOnce(&mut Fenced)) -> Check {
    let mut bad = fenced("Birch");
    spoil(&mut bad);
    fence(&[fenced("Alder"), bad], 2, 2)
}

#[test]
fn p1_passes_when_all_bytes_were_written_before_the_fence() {
    assert_eq!(fence_with(|_| {}).faults, Vec::<String>::new());
    assert!(
        fence_with(|link| link.far_bytes = link.written_at_fence).passed(),
        "to the last byte"
    );
}

#[test]
fn p1_fails_for_anything_that_moves_after_the_fence() {
    assert_fault(
        &fence_with(|link| link.written_at_end += 1),
        "Birch: 1 bytes were written",
    );
    assert_fault(
        &fence_with(|link| link.far_bytes = 1001),
        "Birch: the far side has 1 bytes beyond",
    );
    assert_fault(
        &fence_with(|link| link.delivered_after = Some(Duration::from_micros(7))),
        "delivered 7 µs after",
    );
    assert_fault(
        &fence_with(|link| link.accepted_after = 1),
        "1 messages were accepted",
    );
    assert_fault(
        &fence_with(|link| link.far_reset = false),
        "did not see a reset",
    );
}

#[test]
fn p1_counts_what_moved_in_its_figure() {
    let check = fence_with(|link| {
        link.far_bytes = 1007;
        link.delivered_after = Some(Duration::ZERO);
    });
    assert!(
        check.figure.starts_with("7 bytes, 1 deliveries on 2 links"),
        "{}",
        check.figure
    );
}

#[test]
fn p1_fails_when_there_is_nothing_to_see() {
    assert_fault(
        &fence_with(|link| link.channel_messages = 0),
        "shows nothing",
    );
    assert_fault(&fence_with(|link| link.far_bytes = 0), "shows nothing");
    assert_fault(&fence(&[fenced("Alder")], 2, 2), "1 links were fenced");
    assert_fault(&fence(&[fenced("Alder")], 1, 0), "0 reported as dropped");
    assert_fault(&fence(&[], 1, 1), "0 links were fenced");
}

fn retained() -> Retained {
    Retained {
        name: "Oak",
        connections: 1,
        ended: false,
        sent: stamps(9, 1..=5),
        delivered: stamps(9, 1..=5),
        relayed: [stamps(1, 3..=6), stamps(2, 1..=4)].concat(),
        received: [stamps(1, 3..=6), stamps(2, 1..=4)].concat(),
        in_safe: (2, 3),
    }
}

fn retention_with(spoil: impl FnOnce(&mut Retained)) -> Check {
    let mut bad = retained();
    spoil(&mut bad);
    retention(&[bad], 1, 0)
}

#[test]
fn p2_passes_when_both_ends_have_the_same_list() {
    assert_eq!(retention_with(|_| {}).faults, Vec::<String>::new());
}

#[test]
fn p2_fails_for_a_loss_a_repetition_and_a_change_of_order_in_either_direction() {
    assert_fault(
        &retention_with(|link| {
            link.delivered.remove(2);
        }),
        "Oak to the node: message 4 of peer 9 is out of order",
    );
    assert_fault(
        &retention_with(|link| link.delivered.truncate(4)),
        "message 5 of peer 9 is missing",
    );
    assert_fault(
        &retention_with(|link| link.delivered.push(link.delivered[0])),
        "message 1 of peer 9 came twice",
    );
    assert_fault(
        &retention_with(|link| link.received.swap(0, 1)),
        "node to Oak: message 4 of peer 1 is out of order",
    );
    assert_fault(
        &retention_with(|link| link.received.insert(3, link.received[1])),
        "message 4 of peer 1 came twice",
    );
    assert_fault(
        &retention_with(|link| link.received.truncate(7)),
        "message 4 of peer 2 is missing (8 sent, 7 came)",
    );
    assert_fault(&retention_with(|link| link.received.clear()), "is missing");
}

#[test]
fn p2_fails_when_a_loss_is_hidden_in_the_record_of_what_was_sent() {
    let hide = |link: &mut Retained| {
        link.sent.remove(2);
        link.delivered.remove(2);
    };
    assert_fault(&retention_with(hide), "the record jumps from 2 to 4");
}

#[test]
fn p2_fails_for_a_link_that_did_not_last_or_carried_nothing() {
    assert_fault(&retention_with(|link| link.ended = true), "did not last");
    assert_fault(
        &retention_with(|link| link.connections = 2),
        "did not last (2 connections)",
    );
    assert_fault(
        &retention_with(|link| link.in_safe = (0, 3)),
        "no gossip in both directions",
    );
    assert_fault(
        &retention_with(|link| link.in_safe = (2, 0)),
        "no gossip in both directions",
    );
    assert_fault(&retention(&[], 1, 0), "0 links were retained, not 1");
}

#[test]
fn p4_fails_for_one_error_and_for_silence() {
    assert!(no_error(100, 0, 3).passed());
    assert_fault(&no_error(100, 1, 3), "1 messages of type 17");
    assert_fault(&no_error(0, 0, 3), "shows nothing");
}

fn absence() -> Absence {
    Absence {
        signer_calls: 0,
        asked: 0,
        books: Books {
            node: (14, 0),
            agent_ecdh: 14,
            agent_proofs: 1,
            agent_refused: 0,
            key: 15,
        },
        parked: 1,
        dial_refused: Some(Duration::from_micros(40)),
        open_warnings: 1,
        open_delivered: false,
        open_link_lives: true,
        mistag_closed: true,
        mistag_warnings: 0,
        mistag_event: true,
    }
}

#[test]
fn p5_fails_for_each_thing_that_needs_the_signer_or_is_not_refused() {
    let with = |spoil: fn(&mut Absence)| {
        let mut bad = absence();
        spoil(&mut bad);
        signer_free(&bad)
    };
    assert_eq!(with(|_| {}).faults, Vec::<String>::new());
    assert_fault(&with(|bad| bad.signer_calls = 1), "used 1 times");
    assert_fault(&with(|bad| bad.asked = 1), "asked for 1 ECDHs");
    assert_fault(&with(|bad| bad.parked = 0), "0 inbound connections");
    assert_fault(&with(|bad| bad.dial_refused = None), "did not fail at once");
    assert_fault(
        &with(|bad| bad.dial_refused = Some(AT_ONCE)),
        "did not fail at once",
    );
    assert_fault(&with(|bad| bad.open_warnings = 0), "0 warnings");
    assert_fault(&with(|bad| bad.open_delivered = true), "handed to the node");
    assert_fault(&with(|bad| bad.open_link_lives = false), "ended its link");
    assert_fault(&with(|bad| bad.mistag_closed = false), "did not close");
    assert_fault(&with(|bad| bad.mistag_warnings = 1), "was answered");
    assert_fault(&with(|bad| bad.mistag_event = false), "no event");
}

#[test]
fn p5_fails_when_the_node_the_agent_and_the_key_do_not_tell_the_same() {
    let with = |spoil: fn(&mut Books)| {
        let mut bad = absence();
        spoil(&mut bad.books);
        signer_free(&bad)
    };
    assert_fault(&with(|books| books.node.0 = 13), "the books differ");
    assert_fault(&with(|books| books.node.1 = 1), "and 1 refusals");
    assert_fault(&with(|books| books.agent_ecdh = 15), "the agent gave 15");
    assert_fault(&with(|books| books.agent_refused = 1), "refused 1");
    assert_fault(&with(|books| books.key = 16), "used 16 times");
    assert_fault(
        &with(|books| {
            books.agent_proofs = 2;
            books.key = 16;
        }),
        "2 proofs",
    );
    let none = |books: &mut Books| {
        (books.node, books.agent_ecdh, books.key) = ((0, 0), 0, 1);
    };
    assert_fault(&with(none), "are empty");
}

#[test]
fn p6_fails_for_a_link_or_a_handle_of_the_old_session() {
    let good = Leases {
        epoch: 2,
        channel: vec![("Alder", Some(2)), ("Birch", Some(2))],
        gossip: vec![("Oak", None)],
        old_handles_alive: 0,
    };
    assert_eq!(epochs(&good, 2).faults, Vec::<String>::new());
    assert_fault(&epochs(&good, 3), "2 channel links live, not 3");
    let with = |spoil: fn(&mut Leases)| {
        let mut bad = good.clone();
        spoil(&mut bad);
        epochs(&bad, 2)
    };
    assert_fault(
        &with(|bad| bad.channel[1].1 = Some(1)),
        "Birch: leased under Some(1)",
    );
    assert_fault(
        &with(|bad| bad.channel[1].1 = None),
        "Birch: leased under None",
    );
    assert_fault(
        &with(|bad| bad.gossip[0].1 = Some(2)),
        "Oak: a gossip link is leased",
    );
    assert_fault(&with(|bad| bad.old_handles_alive = 1), "1 handles");
}

#[test]
fn p8_fails_for_a_peer_that_stays_away_and_for_the_wrong_order() {
    let good = Relight {
        due: vec!["Fir", "Alder", "Elm"],
        dialled: vec!["Fir", "Alder", "Elm", "Willow"],
        up: vec!["Alder", "Elm", "Fir"],
        took: Some(Duration::from_millis(3)),
    };
    assert_eq!(relight(&good).faults, Vec::<String>::new());
    let with = |spoil: fn(&mut Relight)| {
        let mut bad = good.clone();
        spoil(&mut bad);
        relight(&bad)
    };
    assert_fault(&with(|bad| bad.up.truncate(2)), "Fir did not come back");
    assert_fault(
        &with(|bad| bad.dialled.swap(0, 1)),
        "dial 1 went to Alder; Fir was more urgent",
    );
    assert_fault(&with(|bad| bad.dialled.swap(2, 3)), "dial 3 went to Willow");
    assert_fault(&with(|bad| bad.dialled.clear()), "dial 1 went to nobody");
    assert_fault(&with(|bad| bad.took = None), "never complete");
    assert_fault(
        &relight(&Relight {
            took: Some(Duration::ZERO),
            ..Relight::default()
        }),
        "never complete",
    );
}

#[test]
fn only_a_few_faults_are_spelled_out() {
    let many = (0..20).map(|number| format!("fault {number}")).collect();
    let check = Check::new("P0", "", String::new(), many);
    assert_eq!(check.faults.len(), FAULTS_SHOWN + 1);
    assert_eq!(check.faults.last().map(String::as_str), Some("and 16 more"));
}

fn floor_with(spoil: impl FnOnce(&mut Floor)) -> Check {
    let mut record = Floor {
        name: "Maple",
        wanted: 7,
        most_missing: 1,
        missing_at_last: 0,
        back_after: Some(Duration::from_millis(800)),
        met_the_node: false,
        channel_peers_met: 0,
        own_first: true,
        sent: stamps(8, 10..20),
        delivered: stamps(8, 1..20).into_iter().collect(),
        under_persona: 6,
    };
    spoil(&mut record);
    floor(&record)
}

#[test]
fn p7_passes_when_the_floor_came_back_and_nothing_fell_between() {
    assert_eq!(floor_with(|_| {}).faults, Vec::<String>::new());
}

#[test]
fn p7_fails_for_a_gap_a_link_that_is_missing_and_a_key_that_should_not_be_shown() {
    let gap = |floor: &mut Floor| {
        floor.delivered.remove(&Stamp {
            origin: 8,
            number: 14,
        });
    };
    assert_fault(
        &floor_with(gap),
        "Maple: 1 messages fell between the links, the first is 14",
    );
    assert_fault(
        &floor_with(|floor| floor.sent = stamps(8, [10, 11, 13])),
        "the record jumps from 11 to 13",
    );
    assert_fault(&floor_with(|floor| floor.most_missing = 0), "not told");
    assert_fault(
        &floor_with(|floor| floor.missing_at_last = 1),
        "1 links of 7 were still missing",
    );
    assert_fault(
        &floor_with(|floor| floor.back_after = None),
        "did not come back",
    );
    assert_fault(
        &floor_with(|floor| floor.back_after = Some(SECONDS)),
        "did not come back",
    );
    assert_fault(
        &floor_with(|floor| floor.met_the_node = true),
        "met the node's own key",
    );
    assert_fault(
        &floor_with(|floor| floor.channel_peers_met = 1),
        "1 channel peers met",
    );
    assert_fault(&floor_with(|floor| floor.own_first = false), "did not end");
    assert_fault(
        &floor_with(|floor| floor.under_persona = 0),
        "shows nothing",
    );
}
