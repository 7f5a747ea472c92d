//! The firewall's table on live links (design.md § Firewall): a gossip link that has outlived its signer, over real sockets, row
//! by row in both directions. `firewall_table.rs` has the table itself; here it is obeyed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/node.rs"]
mod node;
#[path = "support/signers.rs"]
mod signers;

use std::collections::BTreeMap;
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use node::{Far, Got, Node, clog, init, kind_of, message, number_of};
use pilotlight::limits;
use pilotlight::link::{CloseReason, LinkHandle, SendError};
use pilotlight::supervisor::{Builder, Mode};
use pilotlight::telemetry::Event;
use pilotlight::wire::{
    BITCOIN_MAINNET, ErrorMessage, GossipTimestampFilter, Pong, QueryChannelRange,
    QueryShortChannelIds, ReplyChannelRange, ReplyShortChannelIdsEnd, ShortChannelId, Warning,
};

/// Every channel message that closes a link whose signer is away, `channel_reestablish` apart.
fn channel_types() -> impl Iterator<Item = u16> {
    [2_u16, 77, 80, 81, 137, 259]
        .into_iter()
        .chain(33..=41)
        .chain(65..=74)
        .chain(127..=135)
}

/// A node in safe mode with one gossip link that it has kept, and the link's far side.
async fn retained() -> (Node, Far, LinkHandle) {
    retained_by(|builder| builder).await
}

async fn retained_by(make: impl FnOnce(Builder) -> Builder) -> (Node, Far, LinkHandle) {
    let mut node = Node::live_with(make).await;
    let (far, link) = node.accept(1).await;
    let report = node.lapse().await;
    assert_eq!((report.dropped, report.retained), (0, 1));
    assert_eq!(node.supervisor.mode(), Mode::Safe);
    node.watch.mark();
    (node, far, link)
}

/// The far side sees the connection closed in good order, after at most a warning; the node learns the reason, and nothing else.
async fn closes(node: &mut Node, far: &mut Far, link: &LinkHandle, reason: CloseReason) {
    let (said, end) = far.rest().await;
    assert_eq!(end, Got::Eof);
    assert!(said.len() <= 1, "{said:?}");
    assert!(said.iter().all(|said| kind_of(said) == 1), "{said:?}");
    assert_eq!(node.next_down().await, (link.id(), reason));
    assert_eq!(node.watch.link_down(link.id()).await, reason);
}

/// The message reaches the node unchanged, and the link stays.
async fn delivers(node: &mut Node, far: &mut Far, message: &[u8]) {
    far.send(message).await;
    let delivered = node.next_message().await;
    assert_eq!(delivered.bytes, message);
    assert_eq!(delivered.peer, far.id);
    assert_eq!(far.settle().await, Vec::<bytes::Bytes>::new());
}

/// Nothing has reached the node so far: what is sent now is what comes next.
async fn nothing_was_delivered(node: &mut Node, far: &mut Far) {
    delivers(node, far, &message(256, b"a mark")).await;
}

#[tokio::test]
async fn p4_a_second_init_closes_the_link() {
    let (mut node, mut far, link) = retained().await;
    far.send(&init()).await;
    closes(&mut node, &mut far, &link, CloseReason::Protocol).await;
    assert_eq!(node.watch.refused(16).await, "closed");
}

#[tokio::test]
async fn a_ping_is_answered_with_exactly_as_many_bytes_as_it_asks_for() {
    let (mut node, mut far, _) = retained().await;
    for bytes in [0, 1, 2, 255, 256, 65_530, 65_531] {
        assert_eq!(far.ping(bytes).await, Vec::<bytes::Bytes>::new());
    }
    for bytes in [65_532, 65_535] {
        let ping = [&[0, 18], &u16::to_be_bytes(bytes)[..], &[0, 0]].concat();
        far.send(&ping).await;
        // The pong that comes is the one of the next ping: `ping` checks its length.
        assert_eq!(far.settle().await, Vec::<bytes::Bytes>::new());
    }
    // Padding is of no interest, however much of it there is.
    far.send(&[vec![0, 18, 0, 7, 0xff, 0], vec![1; 0xff00]].concat())
        .await;
    assert_eq!(far.expect(19).await.len(), 4 + 7);
    nothing_was_delivered(&mut node, &mut far).await;
}

#[tokio::test]
async fn a_pong_goes_ahead_of_queued_gossip() {
    let (mut node, mut far, link) = retained().await;
    let filter = GossipTimestampFilter::since(BITCOIN_MAINNET, 0).encode();
    delivers(&mut node, &mut far, &filter).await;
    let queued = clog(&link).await;
    let frames =
        |view: Vec<pilotlight::supervisor::PeerView>| view[0].link.as_ref().unwrap().frames_in;
    let before = frames(node.supervisor.peers().await.unwrap());
    far.send(&[0, 18, 0, 5, 0, 0]).await;
    while frames(node.supervisor.peers().await.unwrap()) == before {
        tokio::task::yield_now().await;
    }
    let mut gossip = 0;
    let pong_after = loop {
        match far.receive().await {
            Got::Message(message) if kind_of(&message) == 19 => break gossip,
            Got::Message(message) => assert_eq!(number_of(&message), gossip),
            end => panic!("{end:?}"),
        }
        gossip += 1;
    };
    // The link's own queue holds a megabyte, which the pong has overtaken; what was encrypted before it went first.
    let overtaken = queued - pong_after;
    assert!(overtaken > 20, "overtook {overtaken} of {queued}");
    while gossip < queued {
        assert_eq!(number_of(&far.expect(256).await), gossip);
        gossip += 1;
    }
}

#[tokio::test]
async fn a_silent_peer_is_pinged_and_its_pong_keeps_the_link() {
    let (mut node, mut far, link) = retained().await;
    for _ in 0..3 {
        node.watch.mark();
        node.clock.advance(limits::PING_AFTER_MAX);
        let ping = far.expect(18).await;
        let asked = u16::from_be_bytes([ping[2], ping[3]]);
        // Another length answers another ping.
        far.send(&Pong { ignored: asked + 1 }.encode()).await;
        assert_eq!(far.settle().await, Vec::<bytes::Bytes>::new());
        assert_eq!(
            node.watch
                .count(|event| matches!(event, Event::Pong { .. })),
            0
        );
        node.clock.advance(Duration::from_secs(1));
        far.send(&Pong { ignored: asked }.encode()).await;
        let rtt = node
            .watch
            .until("the pong", |event| match event {
                Event::Pong { rtt, .. } => Some(*rtt),
                _ => None,
            })
            .await;
        assert_eq!(rtt, Duration::from_secs(1));
    }
    node.clock.advance(limits::PING_AFTER_MAX);
    far.expect(18).await;
    node.clock.advance(limits::PONG_DEADLINE);
    closes(&mut node, &mut far, &link, CloseReason::PongTimeout).await;
}

#[tokio::test]
async fn a_warning_and_an_error_about_one_channel_reach_the_node_and_the_link_stays() {
    let (mut node, mut far, _) = retained().await;
    let warning = Warning::new("a \x1b[31mtale").encode();
    delivers(&mut node, &mut far, &warning).await;
    let error = ErrorMessage {
        channel_id: [3; 32],
        data: b"gone".to_vec(),
    };
    delivers(&mut node, &mut far, &error.encode()).await;
    let complaints: Vec<_> = node
        .watch
        .since_mark()
        .iter()
        .filter_map(|event| match event {
            Event::PeerComplained { error, text, .. } => Some((*error, text.clone())),
            _ => None,
        })
        .collect();
    let expected = [(false, "a \\x1b[31mtale".to_owned()), (true, "gone".into())];
    assert_eq!(complaints, expected);
}

#[tokio::test]
async fn an_error_about_all_channels_reaches_the_node_and_then_the_link_closes() {
    let (mut node, mut far, link) = retained().await;
    let error = ErrorMessage {
        channel_id: [0; 32],
        data: b"all of it".to_vec(),
    };
    far.send(&error.encode()).await;
    assert_eq!(node.next_message().await.bytes, error.encode());
    closes(&mut node, &mut far, &link, CloseReason::ErrorReceived).await;
}

#[tokio::test]
async fn p2_gossip_and_answers_reach_the_node() {
    let (mut node, mut far, _) = retained().await;
    for kind in [256, 257, 258, 262, 264, 265] {
        delivers(&mut node, &mut far, &message(kind, &[7; 400])).await;
    }
    assert_eq!(
        node.watch
            .count(|event| matches!(event, Event::Refused { .. })),
        0
    );
}

fn queries() -> (Vec<u8>, Vec<u8>) {
    let ids = QueryShortChannelIds {
        chain_hash: BITCOIN_MAINNET,
        short_channel_ids: vec![ShortChannelId::from_u64(7)],
    };
    let range = QueryChannelRange {
        chain_hash: BITCOIN_MAINNET,
        first_blocknum: 100,
        number_of_blocks: 50,
    };
    (ids.encode(), range.encode())
}

#[tokio::test]
async fn queries_that_nobody_serves_get_an_answer_that_says_so() {
    let (mut node, mut far, _) = retained().await;
    let (ids, range) = queries();
    far.send(&ids).await;
    let end = ReplyShortChannelIdsEnd::decode(&far.expect(262).await).unwrap();
    assert_eq!(
        (end.chain_hash, end.full_information),
        (BITCOIN_MAINNET, false)
    );
    far.send(&range).await;
    let reply = ReplyChannelRange::decode(&far.expect(264).await).unwrap();
    assert_eq!((reply.first_blocknum, reply.number_of_blocks), (100, 50));
    assert!(reply.short_channel_ids.is_empty());
    assert_eq!(far.settle().await, Vec::<bytes::Bytes>::new());
    nothing_was_delivered(&mut node, &mut far).await;
}

#[tokio::test]
async fn queries_that_the_node_serves_reach_it() {
    let (mut node, mut far, link) =
        retained_by(|builder| builder.serves_gossip_queries(true)).await;
    let (ids, range) = queries();
    delivers(&mut node, &mut far, &ids).await;
    delivers(&mut node, &mut far, &range).await;
    // And its answers may leave.
    let end = ReplyShortChannelIdsEnd {
        chain_hash: BITCOIN_MAINNET,
        full_information: true,
    };
    let receipt = link.send(end.encode()).await.unwrap();
    receipt.flushed().await.unwrap();
    assert_eq!(far.expect(262).await, end.encode());
}

#[tokio::test]
async fn p4_who_would_open_a_channel_gets_a_warning_and_keeps_the_link() {
    let (mut node, mut far, _) = retained().await;
    for kind in [32, 64] {
        far.send(&message(kind, &[0; 300])).await;
        let warning = Warning::decode(&far.expect(1).await).unwrap();
        assert!(warning.text().contains("signer away"), "{}", warning.text());
        assert!(warning.is_all_zero());
        assert_eq!(node.watch.refused(kind).await, "warned");
    }
    nothing_was_delivered(&mut node, &mut far).await;
}

#[tokio::test]
async fn p9_warnings_are_limited_to_a_burst_of_five_and_one_a_second() {
    let (mut node, mut far, _) = retained().await;
    for _ in 0..20 {
        far.send(&message(32, &[])).await;
    }
    assert_eq!(far.settle().await.len(), 5);
    let warned = |event: &Event| {
        matches!(
            event,
            Event::Refused {
                action: "warned",
                ..
            }
        )
    };
    assert_eq!(node.watch.count(warned), 20, "all are counted");
    node.clock.advance(limits::WARNING_INTERVAL * 2);
    for _ in 0..20 {
        far.send(&message(64, &[])).await;
    }
    assert_eq!(far.settle().await.len(), 2);
    nothing_was_delivered(&mut node, &mut far).await;
}

#[tokio::test]
async fn p4_every_channel_message_closes_the_link_and_none_is_delivered() {
    let mut node = Node::live().await;
    let mut links = Vec::new();
    for (number, kind) in (1..).zip(channel_types()) {
        links.push((kind, node.accept(number).await));
    }
    assert_eq!(links.len(), 34);
    assert_eq!(node.lapse().await.retained, links.len());
    for (kind, (mut far, link)) in links {
        node.watch.mark();
        far.send(&message(kind, &[0; 64])).await;
        let reason = CloseReason::ChannelMessage;
        closes(&mut node, &mut far, &link, reason).await;
        assert_eq!(node.watch.refused(kind).await, "closed");
    }
}

#[tokio::test]
async fn p4_channel_reestablish_closes_the_link_without_a_word_and_casts_suspicion() {
    let (mut node, mut far, link) = retained().await;
    far.send(&message(136, &[0; 96])).await;
    let (said, end) = far.rest().await;
    assert_eq!((said.len(), end), (0, Got::Eof), "{said:?}");
    assert_eq!(node.next_down().await, (link.id(), CloseReason::Mistag));
    node.watch.link_down(link.id()).await;
    let id = far.id;
    let suspected = |event: &Event| *event == Event::MistagSuspected { peer: id };
    assert_eq!(node.watch.count(suspected), 1);
    let changed = |event: &Event| matches!(event, Event::Tagged { .. });
    assert_eq!(
        node.watch.count(changed),
        0,
        "the tag is the node's to change"
    );
}

#[tokio::test]
async fn storage_and_onion_messages_are_dropped_and_the_link_stays() {
    let (mut node, mut far, _) = retained().await;
    for kind in [7, 9, 513] {
        far.send(&message(kind, &[0; 1000])).await;
        assert_eq!(far.settle().await, Vec::<bytes::Bytes>::new());
        assert_eq!(node.watch.refused(kind).await, "dropped");
    }
    nothing_was_delivered(&mut node, &mut far).await;
}

#[tokio::test]
async fn an_unknown_odd_type_is_ignored_and_a_custom_one_reaches_the_node() {
    let (mut node, mut far, _) = retained().await;
    for kind in [3, 11, 139, 511, 515, 32_767] {
        far.send(&message(kind, b"what is this")).await;
        assert_eq!(far.settle().await, Vec::<bytes::Bytes>::new());
    }
    nothing_was_delivered(&mut node, &mut far).await;
    for kind in [32_769, 65_535] {
        delivers(&mut node, &mut far, &message(kind, b"custom")).await;
    }
}

#[tokio::test]
async fn p4_an_unknown_even_type_closes_the_link() {
    let kinds = [0, 4, 138, 260, 266, 512, 32_766, 32_768, 65_534];
    let mut node = Node::live().await;
    let mut links = Vec::new();
    for (number, kind) in (1..).zip(kinds) {
        links.push((kind, node.accept(number).await));
    }
    node.lapse().await;
    for (kind, (mut far, link)) in links {
        node.watch.mark();
        far.send(&message(kind, b"even")).await;
        closes(&mut node, &mut far, &link, CloseReason::Protocol).await;
        assert_eq!(node.watch.refused(kind).await, "closed");
    }
}

#[tokio::test]
async fn a_custom_even_type_reaches_a_node_that_understands_it() {
    let (mut node, mut far, link) =
        retained_by(|builder| builder.understands_custom_types(true)).await;
    delivers(&mut node, &mut far, &message(32_768, b"even")).await;
    let receipt = link.send(message(40_000, b"even")).await.unwrap();
    receipt.flushed().await.unwrap();
    far.expect(40_000).await;
}

#[tokio::test]
async fn a_message_without_a_type_closes_the_link() {
    for short in [&[][..], &[1]] {
        let (mut node, mut far, link) = retained().await;
        far.send(short).await;
        closes(&mut node, &mut far, &link, CloseReason::Protocol).await;
    }
}

#[tokio::test]
async fn p5_what_may_not_leave_is_refused_at_once_and_nothing_is_on_the_wire() {
    let (mut node, mut far, link) = retained().await;
    let away = |kind| SendError::SignerAway { kind };
    let refused = |kind, rule| SendError::Refused { kind, rule };
    let mut expected: Vec<SendError> = channel_types().map(away).collect();
    expected.extend([17, 32, 64, 136, 7, 9, 513].map(away));
    expected.extend([16, 18, 19].map(|kind| SendError::LinkOwned { kind }));
    expected.extend([256, 257, 258].map(|kind| refused(kind, "no_filter")));
    expected.extend([0, 4, 138, 512, 32_768].map(|kind| refused(kind, "unknown_even")));
    for error in expected {
        let kind = match error {
            SendError::SignerAway { kind }
            | SendError::Refused { kind, .. }
            | SendError::LinkOwned { kind } => kind,
            ref other => panic!("{other}"),
        };
        let message = message(kind, &[0; 64]);
        assert_eq!(link.send(message.clone()).await.err(), Some(error.clone()));
        assert_eq!(link.try_send(message).err(), Some(error));
    }
    for length in [0, 1] {
        let short = vec![0; length];
        assert_eq!(
            link.send(short).await.err(),
            Some(SendError::Length { length })
        );
    }
    let length = 65_536;
    let long = message(257, &vec![0; length - 2]);
    delivers(&mut node, &mut far, &message(265, &[0; 40])).await;
    assert_eq!(
        link.send(long).await.err(),
        Some(SendError::Length { length })
    );
    assert_eq!(far.settle().await, Vec::<bytes::Bytes>::new());
}

#[tokio::test]
async fn what_may_leave_does() {
    let (mut node, mut far, link) = retained().await;
    for kind in [1, 3, 261, 262, 263, 264, 265, 32_769] {
        let sent = message(kind, &[0; 64]);
        let receipt = link.send(sent.clone()).await.unwrap();
        receipt.flushed().await.unwrap();
        assert_eq!(far.expect(kind).await, sent);
    }
    delivers(&mut node, &mut far, &message(265, &[0; 40])).await;
    for kind in [256, 257, 258] {
        let receipt = link.send(message(kind, &[0; 64])).await.unwrap();
        receipt.flushed().await.unwrap();
        far.expect(kind).await;
    }
}

#[tokio::test]
async fn p4_the_node_itself_may_send_an_error_while_its_signer_is_there() {
    let mut node = Node::live().await;
    let (mut far, link) = node.accept(1).await;
    far.may_get_error = true;
    let error = ErrorMessage {
        channel_id: [9; 32],
        data: b"the node says so".to_vec(),
    };
    let receipt = link.send(error.encode()).await.unwrap();
    receipt.flushed().await.unwrap();
    assert_eq!(far.expect(17).await, error.encode());
}

/// The table is asked again when a message leaves: what was queued in `Live` may not leave in `Safe`.
#[tokio::test]
async fn p4_what_was_queued_before_the_lapse_is_judged_when_it_would_leave() {
    let mut node = Node::live().await;
    let (mut far, link) = node.accept(1).await;
    delivers(&mut node, &mut far, &message(265, &[0; 40])).await;
    let gossip = clog(&link).await;
    let mut late = Vec::new();
    for kind in [17, 32, 64, 7, 9, 513] {
        // There is room for a small message when there is none for a large one.
        let queued = link.try_send(message(kind, &[0; 34]));
        late.push((kind, queued.expect("room for a few bytes")));
    }
    let report = node.lapse().await;
    assert_eq!((report.dropped, report.retained), (0, 1));
    let mut received = 0;
    while received < gossip {
        assert_eq!(number_of(&far.expect(256).await), received);
        received += 1;
    }
    for (kind, receipt) in late {
        let settled = receipt.flushed().await;
        assert!(
            matches!(settled, Err(SendError::Refused { kind: refused, .. }) if refused == kind),
            "{settled:?}"
        );
        assert_eq!(node.watch.refused(kind).await, "not_sent");
    }
    assert_eq!(far.settle().await, Vec::<bytes::Bytes>::new());
}

/// How often each was counted: the message's name and what was done, or would have been.
fn refusals(snapshotter: &Snapshotter) -> BTreeMap<(String, String), u64> {
    let mut counted = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        if let ("pilotlight_messages_refused_total", DebugValue::Counter(count)) =
            (key.name(), value)
        {
            let label = |name: &str| {
                let mut labels = key.labels().filter(|label| label.key() == name);
                labels.next().unwrap().value().to_owned()
            };
            counted.insert((label("type"), label("action")), count);
        }
    }
    counted
}

/// `firewall = "observe"`: without a signer all but channel messages passes, and what would have been done is counted; channel messages
/// close the link as ever, and what no signer has signed does not leave.
#[tokio::test]
async fn a_firewall_that_observes_counts_what_it_would_do_and_acts_on_channel_messages_alone() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let (mut node, mut far, link) = retained_by(|builder| builder.observes_only(true)).await;
    // What the firewall drops or answers itself is the node's to see.
    for kind in [7, 9, 513] {
        delivers(&mut node, &mut far, &message(kind, b"aside")).await;
    }
    let query = QueryChannelRange {
        chain_hash: BITCOIN_MAINNET,
        first_blocknum: 0,
        number_of_blocks: 1,
    };
    delivers(&mut node, &mut far, &query.encode()).await;
    // And what it would not let leave, leaves.
    let _ = link.try_send(message(513, b"aside")).unwrap();
    assert_eq!(kind_of(&far.expect(513).await), 513);
    let would: u64 = refusals(&seen)
        .iter()
        .filter(|((_, action), _)| action.starts_with("would_"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(would, 5, "{:?}", refusals(&seen));
    // Channel messages neither come in nor go out.
    assert!(link.try_send(message(128, b"add")).is_err());
    far.send(&message(128, b"add")).await;
    closes(&mut node, &mut far, &link, CloseReason::ChannelMessage).await;
    let closed = refusals(&seen);
    assert!(
        closed
            .keys()
            .any(|(name, action)| name == "update_add_htlc" && action == "closed"),
        "{closed:?}"
    );
}
