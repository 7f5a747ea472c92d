//! What is recorded is what [`METRICS`] lists, in kind and labels, and any recorder gets it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::float_cmp
)]

use super::*;
use crate::address::PeerAddress;
use crate::link::{CloseReason, LinkId};
use crate::node_id::{LocalKey, NodeId};
use crate::signer::SignerContext;
use crate::supervisor::{Banned, Offence, Supervisor, Urgency};
use crate::telemetry::{Metric, PEER_METRICS, PROCESS_METRICS, Unit};
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use std::collections::{BTreeMap, BTreeSet};

fn peer() -> NodeId {
    LocalKey::from_bytes(&mut [7; 32]).unwrap().node_id()
}

/// Records with a recorder of one's own, as an embedder's would be, and returns what it has seen.
fn recorded(work: impl FnOnce()) -> Snapshotter {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, work);
    seen
}

type Seen = BTreeMap<(String, Vec<(String, String)>), (MetricKind, DebugValue)>;

fn values(seen: &Snapshotter) -> Seen {
    let entry = |(key, _, _, value): (metrics_util::CompositeKey, _, _, DebugValue)| {
        let (kind, key) = key.into_parts();
        let mut labels: Vec<_> = key
            .labels()
            .map(|label| (label.key().to_owned(), label.value().to_owned()))
            .collect();
        labels.sort();
        ((key.name().to_owned(), labels), (kind, value))
    };
    seen.snapshot().into_vec().into_iter().map(entry).collect()
}

fn counted(seen: &Seen, name: &str, labels: &[(&str, &str)]) -> u64 {
    let mut labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    labels.sort();
    match seen.get(&(name.to_owned(), labels.clone())) {
        Some((_, DebugValue::Counter(value))) => *value,
        other => panic!("{name} {labels:?}: {other:?}"),
    }
}

fn lapse() -> Event {
    Event::SignerLapsed(LapseReport {
        epoch: Epoch::FIRST,
        reason: LapseReason::Requested,
        fence: Duration::from_micros(3),
        teardown: Duration::from_millis(2),
        dropped: 5,
        channel_bearing: 4,
        retained: 9,
    })
}

/// One of each that the gateway and the listener record.
fn gateway_events() -> Vec<Event> {
    vec![
        Event::Banned {
            who: Banned::Address([192, 0, 2, 1].into()),
            offence: Offence::Handshake,
            lasts: Duration::from_secs(600),
        },
        Event::InboundFailed {
            address: ([192, 0, 2, 1], 9735).into(),
            failure: "handshakes_full",
            detail: String::new(),
        },
        Event::SignerRefused {
            address: ([127, 0, 0, 1], 1).into(),
            failure: "macaroon_missing",
            macaroon: None,
            detail: Box::default(),
        },
        Event::SignerTakenOver {
            from: ([127, 0, 0, 1], 1).into(),
            to: ([127, 0, 0, 1], 2).into(),
        },
        Event::SignerStalled { stalled: true },
        Event::InboxStalled { stalled: true },
        Event::SignerOdd { oddity: "late" },
        Event::EcdhThrottled { scope: "source" },
        Event::BookFailed {
            detail: String::new(),
        },
        Event::GossipFloor {
            missing: 2,
            wanted: 5,
        },
    ]
}

fn dial_failed() -> Event {
    Event::DialFailed {
        peer: peer(),
        address: Box::new("192.0.2.1:9735".parse().unwrap()),
        identity: Identity::Node,
        failure: "connect",
        detail: Box::default(),
        retry_in: None,
    }
}

fn events() -> Vec<Event> {
    let (peer, link) = (peer(), LinkId(2));
    let address: PeerAddress = "192.0.2.1:9735".parse().unwrap();
    let (tag, identity) = (Tag::ChannelBearing, Identity::Node);
    let took = Duration::from_millis(10);
    vec![
        lapse(),
        Event::Relit {
            epoch: Epoch::FIRST,
            took: Some(took),
            up: 3,
            failed: 1,
        },
        Event::LinkUp {
            peer,
            link,
            address: address.clone(),
            tag,
            direction: Direction::Outbound,
            identity,
        },
        Event::LinkUp {
            peer,
            link,
            address,
            tag,
            direction: Direction::Inbound,
            identity,
        },
        dial_failed(),
        Event::LinkDown {
            peer,
            link,
            tag,
            direction: Direction::Inbound,
            identity,
            reason: CloseReason::Lapse,
        },
        Event::Refused {
            peer,
            link,
            kind: 128,
            name: "update_add_htlc",
            action: "closed",
        },
        Event::MistagSuspected { peer },
        Event::KeyRotated {
            direction: Direction::Outbound,
            times: 3,
        },
        Event::Handshake {
            direction: Direction::Inbound,
            identity,
            result: "ok",
            took,
        },
        Event::Ecdh {
            source: Direction::Inbound,
            result: "ok",
            took,
        },
        Event::Pong { peer, rtt: took },
    ]
}

#[test]
fn every_recorded_metric_is_in_the_table_with_its_kind_and_labels_and_every_row_is_recorded() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let snapshot = runtime.block_on(async {
        let (supervisor, _inbox) = Supervisor::builder(SignerContext::new(peer()))
            .seed(1)
            .start()
            .await
            .unwrap();
        // What only the node knows.
        supervisor.set_block_height(800_000).await.unwrap();
        supervisor.set_own_update(Duration::from_secs(1));
        supervisor.snapshot()
    });
    let seen = recorded(|| {
        describe();
        let _meters = FrameMeters::new();
        publish(&snapshot);
        publish_peers(&[]);
        publish_certificate(Duration::from_secs(1));
        events().iter().chain(&gateway_events()).for_each(record);
        #[cfg(feature = "admin")]
        events_missed(3);
    });
    let mut found = BTreeSet::new();
    for ((name, labels), (kind, _)) in values(&seen) {
        let row = METRICS
            .iter()
            .find(|row| row.name == name)
            .unwrap_or_else(|| panic!("{name} is not in METRICS"));
        let expected = match kind {
            MetricKind::Counter => Kind::Counter,
            MetricKind::Gauge => Kind::Gauge,
            MetricKind::Histogram => Kind::Histogram,
        };
        assert_eq!(row.kind, expected, "{name}");
        let mut names: Vec<_> = row.labels.to_vec();
        names.sort_unstable();
        assert_eq!(
            labels
                .iter()
                .map(|(key, _)| key.as_str())
                .collect::<Vec<_>>(),
            names,
            "{name}"
        );
        found.insert(name);
    }
    let all: BTreeSet<_> = METRICS.iter().map(|row| row.name.to_owned()).collect();
    assert_eq!(
        all.difference(&found).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "never recorded"
    );
}

#[test]
fn what_is_there_from_the_start_needs_no_event() {
    let seen = values(&recorded(|| {
        describe();
        let _meters = FrameMeters::new();
    }));
    for row in METRICS
        .iter()
        .filter(|row| row.from_start && row.kind == Kind::Histogram)
    {
        assert!(
            seen.keys().any(|(name, _)| name == row.name),
            "{}",
            row.name
        );
    }
    assert_eq!(
        counted(
            &seen,
            "pilotlight_signer_lapses_total",
            &[("reason", "requested")]
        ),
        0
    );
    // What an alert waits for.
    for (name, reason) in [
        ("pilotlight_signers_refused_total", "signer_conflict"),
        ("pilotlight_inbound_failed_total", "ecdh_throttled"),
    ] {
        assert_eq!(counted(&seen, name, &[("reason", reason)]), 0);
    }
    assert_eq!(
        counted(
            &seen,
            "pilotlight_frames_total",
            &[("direction", "inbound"), ("plane", "gossip")]
        ),
        0
    );
    for bound in ECDH_BOUNDS {
        let name = "pilotlight_ecdh_throttled_total";
        assert_eq!(counted(&seen, name, &[("scope", bound)]), 0);
    }
    let refused = "pilotlight_signers_refused_total";
    assert_eq!(counted(&seen, refused, &[("reason", CONFLICT)]), 0);
    assert_eq!(counted(&seen, "pilotlight_book_errors_total", &[]), 0);
}

#[test]
fn a_lapse_is_counted_by_tag_and_reason() {
    let seen = values(&recorded(|| record(&lapse())));
    let dropped = |tag| {
        counted(
            &seen,
            "pilotlight_peers_dropped_total",
            &[("tag", tag), ("reason", "requested")],
        )
    };
    assert_eq!((dropped("channel-bearing"), dropped("gossip-only")), (4, 1));
    assert_eq!(counted(&seen, "pilotlight_peers_retained_total", &[]), 9);
    assert_eq!(
        counted(
            &seen,
            "pilotlight_signer_lapses_total",
            &[("reason", "requested")]
        ),
        1
    );
}

#[test]
fn frames_are_counted_by_direction_and_plane() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let meters = metrics::with_local_recorder(&recorder, FrameMeters::new);
    let (mut one, mut other) = (Tally::default(), Tally::default());
    assert!(one.is_empty());
    for (number, plane) in PLANES.into_iter().enumerate() {
        for _ in 0..=number {
            one.count(Direction::Inbound, plane, 10);
        }
    }
    other.count(Direction::Outbound, Plane::Gossip, 7);
    assert_eq!(
        (
            one.frames(Direction::Inbound),
            one.frames(Direction::Outbound)
        ),
        (21, 0)
    );
    meters.add(&mut one);
    meters.add(&mut other);
    assert!(one.is_empty() && other.is_empty(), "nothing is added twice");
    meters.add(&mut one);
    let seen = values(&seen);
    for (number, plane) in PLANES.into_iter().enumerate() {
        let labels = [("direction", "inbound"), ("plane", plane.as_str())];
        assert_eq!(
            counted(&seen, "pilotlight_frames_total", &labels),
            number as u64 + 1,
            "{plane}"
        );
    }
    assert_eq!(
        counted(
            &seen,
            "pilotlight_frame_bytes_total",
            &[("direction", "inbound")]
        ),
        210
    );
    assert_eq!(
        counted(
            &seen,
            "pilotlight_frame_bytes_total",
            &[("direction", "outbound")]
        ),
        7
    );
}

#[test]
fn the_last_gossip_never_goes_back() {
    let meters = FrameMeters::new();
    assert_eq!(meters.last_gossip_at(), None);
    meters.gossip_came(20);
    meters.gossip_came(10);
    assert_eq!(meters.last_gossip_at(), Some(Duration::from_secs(20)));
}

#[test]
fn the_table_is_well_formed() {
    let mut names = BTreeSet::new();
    for row in METRICS.iter().chain(PEER_METRICS) {
        assert!(row.name.starts_with("pilotlight_"), "{}", row.name);
    }
    for row in METRICS.iter().chain(PEER_METRICS).chain(PROCESS_METRICS) {
        let Metric { name, kind, .. } = *row;
        assert!(names.insert(name), "{name} twice");
        assert!(row.help.ends_with('.'), "{name}");
        assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert_eq!(kind == Kind::Histogram, !row.buckets.is_empty(), "{name}");
        assert!(row.buckets.is_sorted(), "{name}");
        let base = name.trim_end_matches("_total");
        assert_eq!(
            row.unit == Unit::Seconds,
            base.ends_with("_seconds"),
            "{name}"
        );
        assert_eq!(row.unit == Unit::Bytes, base.ends_with("_bytes"), "{name}");
    }
    let frames: Vec<_> = PLANES.iter().map(|plane| *plane as usize).collect();
    assert_eq!(
        frames,
        [0, 1, 2, 3, 4, 5],
        "count() indexes by the plane's own number"
    );
}

#[test]
fn histograms_fit_what_they_measure() {
    let span = |name: &str| {
        let row = METRICS.iter().find(|row| row.name == name).unwrap();
        (row.buckets[0], *row.buckets.last().unwrap())
    };
    assert_eq!(span("pilotlight_fence_duration_seconds"), (1e-6, 1e-2));
    assert_eq!(span("pilotlight_teardown_duration_seconds"), (1e-3, 5.0));
    assert_eq!(span("pilotlight_relight_duration_seconds"), (0.01, 300.0));
    let act = crate::limits::ACT_DEADLINE.as_secs_f64();
    assert!(span("pilotlight_ecdh_duration_seconds").1 >= act);
    assert!(span("pilotlight_handshake_duration_seconds").1 >= 3.0 * act);
    let pong = crate::limits::PONG_DEADLINE.as_secs_f64();
    assert!(span("pilotlight_pong_rtt_seconds").1 >= pong);
}

/// An alert must find the series before it moves, and telemetry must not depend on the gateway to name it.
#[cfg(feature = "gateway")]
#[test]
fn the_gateway_s_words_are_those_that_are_announced() {
    use crate::signer::gateway::budget::Throttle;
    use crate::signer::gateway::seat::Refusal;
    let bounds = [
        Throttle::Source,
        Throttle::Sources,
        Throttle::Strangers,
        Throttle::Queue,
    ];
    assert_eq!(bounds.map(Throttle::as_str), ECDH_BOUNDS);
    assert_eq!(Refusal::Conflict.as_str(), CONFLICT);
}

/// The node's HTLCs: the least that is left, below 0 once it has expired; NaN, which no threshold is above, while none is pending.
#[test]
fn the_soonest_deadline_is_published_once_the_height_is_known() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let urgency = |pending_htlcs, earliest_expiry_height| Urgency {
        pending_htlcs,
        earliest_expiry_height,
        csv_delay: 144,
    };
    let steps = runtime.block_on(async {
        let (supervisor, _inbox) = Supervisor::builder(SignerContext::new(peer()))
            .seed(1)
            .start()
            .await
            .unwrap();
        let other = LocalKey::from_bytes(&mut [8; 32]).unwrap().node_id();
        supervisor
            .set_urgency(other, urgency(2, 900))
            .await
            .unwrap();
        let mut steps = vec![supervisor.snapshot()];
        supervisor.set_block_height(850).await.unwrap();
        steps.push(supervisor.snapshot());
        supervisor.set_block_height(907).await.unwrap();
        steps.push(supervisor.snapshot());
        supervisor
            .set_urgency(other, urgency(0, 900))
            .await
            .unwrap();
        steps.push(supervisor.snapshot());
        steps
    });
    let shown: Vec<_> = steps
        .iter()
        .map(|snapshot| {
            let seen = values(&recorded(|| publish(snapshot)));
            let name = "pilotlight_htlc_deadline_blocks_min".to_owned();
            match seen.get(&(name, Vec::new())) {
                Some((_, DebugValue::Gauge(value))) => Some(value.into_inner().to_string()),
                _ => None,
            }
        })
        .collect();
    let expected = [None, Some("50"), Some("-7"), Some("NaN")].map(|text| text.map(str::to_owned));
    assert_eq!(shown, expected);
}
