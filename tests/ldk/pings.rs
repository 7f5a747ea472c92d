//! Liveness with LDK: its pings are answered exactly, with and without a signer, and it answers ours.

use std::sync::Arc;
use std::time::Duration;

use pilotlight::clock::ManualClock;
use pilotlight::link::{LinkHandle, Tag};
use pilotlight::telemetry::Event;

use crate::exchange::{check_quiet, linked, round_trips};
use crate::ldk_handlers::Records;
use crate::ldk_peer::LdkPeer;
use crate::live_node::Node;

/// LDK's own ping, several times: it would disconnect at the second tick without an answer.
async fn tick_and_await_pongs(node: &Node, ldk: &LdkPeer, link: &LinkHandle, ticks: usize) {
    let before = ldk
        .records
        .read(|records| records.control_count("Received Pong(Pong { byteslen: 0 })"));
    for tick in 1..=ticks {
        ldk.tick();
        let answered = move |records: &Records| {
            records.control_count("Received Pong(Pong { byteslen: 0 })") == before + tick
        };
        ldk.records
            .until_true("LDK's ping is answered", answered)
            .await;
        // LDK notes a pong in its log before it takes note of it itself.
        round_trips(node, ldk, link, 1).await;
        assert_eq!(ldk.peers(), 1);
    }
}

/// Pings that LDK would not send by itself, through LDK: each asks for another length.
async fn ask_for_lengths(node: &Node, ldk: &LdkPeer, lengths: &[u16]) {
    for length in lengths {
        let mut ping = vec![0, 18];
        ping.extend_from_slice(&length.to_be_bytes());
        ping.extend_from_slice(&[0, 3, 0, 0, 0]);
        let answer = format!("Received Pong(Pong {{ byteslen: {length} }})");
        let before = ldk.records.read(|records| records.control_count(&answer));
        ldk.send(node.id(), [ping]);
        ldk.records
            .until_true(&answer, |records| records.control_count(&answer) > before)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_the_pings_of_ldk_are_answered_exactly_with_and_without_a_signer() {
    let (mut node, ldk, link) = linked(20).await;
    let lengths = [0, 1, 2, 255, 256, 1000, 65_530, 65_531];
    tick_and_await_pongs(&node, &ldk, &link, 10).await;
    ask_for_lengths(&node, &ldk, &lengths).await;
    let _ = node.lapse();
    tick_and_await_pongs(&node, &ldk, &link, 10).await;
    ask_for_lengths(&node, &ldk, &lengths).await;
    // BOLT 1: a ping that asks for 65,532 or more is not answered. The next one shows that no answer came before its own.
    let pongs = |records: &Records| records.control_count("Received Pong(");
    let before = ldk.records.read(pongs);
    ldk.send(
        node.id(),
        [65_532, 65_535].map(|length: u16| [&[0, 18], &length.to_be_bytes()[..], &[0, 0]].concat()),
    );
    ask_for_lengths(&node, &ldk, &[7]).await;
    assert_eq!(ldk.records.read(pongs), before + 1);
    assert_eq!(before, 2 * (10 + lengths.len()));
    check_quiet(&node, &ldk);
    println!(
        "pings: {before} of LDK answered with exactly what each asked for, half of them without a signer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_ldk_answers_our_ping_with_and_without_a_signer() {
    let clock = ManualClock::new();
    let mut node = Node::start_with(21, |builder| builder.clock(Arc::new(clock.clone()))).await;
    let ldk = LdkPeer::new(121);
    let address = ldk.listen().await;
    node.connect(ldk.id(), address, Tag::GossipOnly).await;
    node.messages(ldk.id(), |kind| kind == 265, 1).await;
    for round in 1..=6 {
        if round == 4 {
            let _ = node.lapse();
        }
        // The longest silence that is borne, and less than what LDK has to answer.
        clock.advance(Duration::from_secs(61));
        let pongs = |events: &crate::live_node::Events| {
            events
                .0
                .iter()
                .filter(|event| matches!(event, Event::Pong { .. }))
                .count()
        };
        node.events
            .until_true("LDK's pong has come", |events| pongs(events) == round)
            .await;
    }
    let counts = ldk.records.read(|records| {
        (
            records.control_count("Received Ping("),
            records.control_count("Sent Pong"),
        )
    });
    assert_eq!(counts, (6, 6), "pings received and pongs sent");
    check_quiet(&node, &ldk);
    println!("pings: LDK answered 6 of ours, 3 of them while no signer was there");
}
