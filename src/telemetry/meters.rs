//! The metrics of design.md § 6, through the `metrics` facade: whichever recorder the process has installed gets them.
//!
//! Three sources: events ([`record`]), the counters of frames ([`FrameMeters`], too frequent to be events), and a snapshot of
//! the supervisor taken when somebody asks ([`publish`]). [`METRICS`] lists every metric; nothing outside the list is ever
//! recorded. A label's value comes from an enum or a table of this crate, never from a peer.

use super::{Event, LapseReport};
use crate::link::{Direction, Identity, Tag};
use crate::signer::{Epoch, LapseReason};
use crate::supervisor::{Mode, Snapshot};
use crate::wire::Plane;
use metrics::{Counter, counter, gauge, histogram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from zero at the start.
    Counter,
    /// Up and down.
    Gauge,
    /// Many values, gathered in buckets.
    Histogram,
}

impl Kind {
    /// The word of the Prometheus text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things, or 0 and 1.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    fn facade(self) -> metrics::Unit {
        match self {
            Self::Count => metrics::Unit::Count,
            Self::Seconds => metrics::Unit::Seconds,
            Self::Bytes => metrics::Unit::Bytes,
        }
    }
}

/// One row of [`METRICS`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// Whether it is there from the start, with zeroes, once [`describe`] and [`publish`] have been called. The others have too many
    /// combinations of labels and appear when they first happen.
    pub from_start: bool,
    /// For a histogram: the upper bounds of its buckets, which whoever installs the recorder sets.
    pub buckets: &'static [f64],
}

const fn counter_row(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    let (kind, unit) = (Kind::Counter, Unit::Count);
    Metric {
        name,
        kind,
        unit,
        labels,
        help,
        from_start: true,
        buckets: &[],
    }
}

const fn gauge_row(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    let (kind, unit) = (Kind::Gauge, Unit::Count);
    Metric {
        name,
        kind,
        unit,
        labels,
        help,
        from_start: true,
        buckets: &[],
    }
}

const fn seconds_row(name: &'static str, buckets: &'static [f64], help: &'static str) -> Metric {
    let (kind, unit) = (Kind::Histogram, Unit::Seconds);
    Metric {
        name,
        kind,
        unit,
        labels: &[],
        help,
        from_start: true,
        buckets,
    }
}

const fn later(row: Metric) -> Metric {
    Metric {
        from_start: false,
        ..row
    }
}

const fn in_unit(unit: Unit, row: Metric) -> Metric {
    Metric { unit, ..row }
}

/// 1 µs to 10 ms: a fence is microseconds when its threads run, a scheduler's slice when one does not.
const FENCE: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2,
];
/// 1 ms to 5 s: 10,000 links take about a tenth of a second.
const TEARDOWN: &[f64] = &[
    1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// 10 ms to 5 min: from a few peers nearby to a thousand, some of which do not answer.
const RELIGHT: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];
/// 1 ms to 15 s: from loopback to three acts that each just make their deadline.
const HANDSHAKE: &[f64] = &[
    1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0,
];
/// 25 µs to 5 s: from a key in this process to an act's deadline.
const ECDH: &[f64] = &[
    2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// 100 µs to the pong's deadline.
const PONG: &[f64] = &[
    1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Every metric, in the order of the README's table.
pub const METRICS: &[Metric] = &[
    gauge_row(
        "pilotlight_mode",
        &["mode"],
        "1 for the mode that the node is in, 0 for the others.",
    ),
    gauge_row(
        "pilotlight_signer_attached",
        &[],
        "1 while a signer session is live.",
    ),
    gauge_row(
        "pilotlight_signer_epoch",
        &[],
        "Number of the newest signer session, live or not; 0 before the first.",
    ),
    counter_row(
        "pilotlight_signer_lapses_total",
        &["reason"],
        "Signer sessions that have ended, by why.",
    ),
    in_unit(
        Unit::Seconds,
        counter_row(
            "pilotlight_signer_away_seconds_total",
            &[],
            "Seconds without a live signer session, the present absence included.",
        ),
    ),
    gauge_row(
        "pilotlight_links",
        &["tag", "direction", "identity"],
        "Live links.",
    ),
    counter_row(
        "pilotlight_peers_dropped_total",
        &["tag", "reason"],
        "Links torn down by a lapse, by their peer's tag and the lapse's reason.",
    ),
    counter_row(
        "pilotlight_peers_retained_total",
        &[],
        "Links that lived on through a lapse, added up over all lapses.",
    ),
    later(counter_row(
        "pilotlight_links_closed_total",
        &["tag", "reason"],
        "Links that have ended, lapses included.",
    )),
    seconds_row(
        "pilotlight_fence_duration_seconds",
        FENCE,
        "From the call for a lapse until no leased write or delivery runs.",
    ),
    seconds_row(
        "pilotlight_teardown_duration_seconds",
        TEARDOWN,
        "From the call for a lapse until the last reset.",
    ),
    seconds_row(
        "pilotlight_relight_duration_seconds",
        RELIGHT,
        "From attach until every channel peer that accepted a connection is up.",
    ),
    counter_row(
        "pilotlight_frames_total",
        &["direction", "plane"],
        "Messages, by what they are about.",
    ),
    in_unit(
        Unit::Bytes,
        counter_row(
            "pilotlight_frame_bytes_total",
            &["direction"],
            "Bytes of plaintext in messages.",
        ),
    ),
    later(counter_row(
        "pilotlight_messages_refused_total",
        &["type", "action"],
        "Messages refused by the firewall or the fence, by type and by what was done.",
    )),
    counter_row(
        "pilotlight_mistags_suspected_total",
        &[],
        "Times a gossip-only peer sent channel_reestablish while no signer was there.",
    ),
    counter_row(
        "pilotlight_key_rotations_total",
        &["direction"],
        "Rotations of session keys.",
    ),
    later(counter_row(
        "pilotlight_handshakes_total",
        &["direction", "identity", "result"],
        "Handshakes, by how they ended.",
    )),
    seconds_row(
        "pilotlight_handshake_duration_seconds",
        HANDSHAKE,
        "From the TCP connection until the handshake ended, well or badly.",
    ),
    later(counter_row(
        "pilotlight_ecdh_requests_total",
        &["source", "result"],
        "ECDHs asked of the signer, by who dialled and how it ended.",
    )),
    later(counter_row(
        "pilotlight_ecdh_throttled_total",
        &["scope"],
        "ECDHs refused before the signer was asked, by the bound that was met.",
    )),
    gauge_row(
        "pilotlight_signer_stalled",
        &[],
        "1 while a request heads the signer's queue for too long though its connection is alive.",
    ),
    later(counter_row(
        "pilotlight_signers_refused_total",
        &["reason"],
        "Connections to the gateway that were turned away, by why.",
    )),
    later(counter_row(
        "pilotlight_signer_oddities_total",
        &["kind"],
        "Messages of the signer's that fitted no request and were ignored.",
    )),
    gauge_row(
        "pilotlight_ecdh_in_flight",
        &[],
        "ECDHs that handshakes wait for, those in the signer's queue included.",
    ),
    seconds_row(
        "pilotlight_ecdh_duration_seconds",
        ECDH,
        "How long the signer took for an ECDH, or until it was given up.",
    ),
    gauge_row(
        "pilotlight_vault_sessions",
        &["tag"],
        "Live links' session secrets in the vault.",
    ),
    in_unit(
        Unit::Seconds,
        gauge_row(
            "pilotlight_vault_oldest_session_seconds",
            &[],
            "Age of the oldest of them; 0 when there is none.",
        ),
    ),
    later(counter_row(
        "pilotlight_redials_total",
        &["identity", "result"],
        "Dials, first ones included: ok, or why there is no link.",
    )),
    later(counter_row(
        "pilotlight_inbound_failed_total",
        &["reason"],
        "Inbound connections that did not become links, by why; those that were turned away unread among them.",
    )),
    gauge_row(
        "pilotlight_bans",
        &[],
        "Addresses and nodes that are banned for a time.",
    ),
    later(counter_row(
        "pilotlight_bans_total",
        &["scope", "offence"],
        "Bans that have begun, by what is banned and by what was done last.",
    )),
    gauge_row(
        "pilotlight_parked_handshakes",
        &[],
        "Inbound sockets that wait for a signer, or for their turn at one that has returned.",
    ),
    seconds_row(
        "pilotlight_pong_rtt_seconds",
        PONG,
        "From a ping to its pong.",
    ),
    gauge_row(
        "pilotlight_gossip_floor_missing",
        &[],
        "While no signer is there: live gossip links that are missing of the gossip floor.",
    ),
    in_unit(
        Unit::Seconds,
        gauge_row(
            "pilotlight_gossip_last_message_timestamp_seconds",
            &[],
            "When gossip last came, in Unix time; 0 when none has.",
        ),
    ),
    gauge_row(
        "pilotlight_build_info",
        &["version", "commit"],
        "1, with the build in its labels.",
    ),
];

/// The commit that the crate was built from, if the build said so (`PILOTLIGHT_COMMIT`).
pub(crate) const COMMIT: &str = match option_env!("PILOTLIGHT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

const PLANES: [Plane; 6] = [
    Plane::Control,
    Plane::Gossip,
    Plane::Channel,
    Plane::Onion,
    Plane::Storage,
    Plane::Custom,
];

/// Counters of frames and bytes: resolved once, because they are touched for every message. They belong to the recorder that
/// was installed when they were made, that is when the supervisor started; without one they count nothing.
pub struct FrameMeters {
    frames: [[Counter; 6]; 2],
    bytes: [Counter; 2],
    /// Unix seconds; 0 for never.
    last_gossip: AtomicU64,
}

impl FrameMeters {
    pub(crate) fn new() -> Self {
        let frames = |direction: Direction| {
            PLANES.map(|plane| {
                counter!("pilotlight_frames_total", "direction" => direction.as_str(), "plane" => plane.as_str())
            })
        };
        let bytes = |direction: Direction| counter!("pilotlight_frame_bytes_total", "direction" => direction.as_str());
        Self {
            frames: Direction::ALL.map(frames),
            bytes: Direction::ALL.map(bytes),
            last_gossip: AtomicU64::new(0),
        }
    }

    /// Counts one message of so many bytes of plaintext.
    pub(crate) fn count(&self, direction: Direction, plane: Plane, bytes: usize) {
        let frames = self
            .frames
            .get(direction as usize)
            .and_then(|planes| planes.get(plane as usize));
        if let (Some(frames), Some(total)) = (frames, self.bytes.get(direction as usize)) {
            frames.increment(1);
            total.increment(bytes as u64);
        }
    }

    /// Notes that gossip came at this Unix second.
    pub(crate) fn gossip_came(&self, second: u64) {
        // Read first: written once a second, so that links do not pull one cache line to and fro.
        if self.last_gossip.load(Ordering::Relaxed) < second {
            self.last_gossip.fetch_max(second, Ordering::Relaxed);
        }
    }

    /// When gossip last came on any link, since the Unix epoch.
    pub(crate) fn last_gossip_at(&self) -> Option<Duration> {
        let second = self.last_gossip.load(Ordering::Relaxed);
        (second > 0).then(|| Duration::from_secs(second))
    }
}

/// Tells the recorder that is installed what every metric means, and lets those with few labels begin at zero.
pub fn describe() {
    for metric in METRICS {
        let unit = metric.unit.facade();
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, unit, metric.help),
            Kind::Histogram => {
                metrics::describe_histogram!(metric.name, unit, metric.help);
                let _ = histogram!(metric.name);
            }
        }
    }
    for reason in LapseReason::ALL {
        counter!("pilotlight_signer_lapses_total", "reason" => reason.as_str()).increment(0);
        for tag in Tag::ALL {
            dropped(tag, *reason, 0);
        }
    }
    for direction in Direction::ALL {
        counter!("pilotlight_key_rotations_total", "direction" => direction.as_str()).increment(0);
    }
    gauge!("pilotlight_signer_stalled").set(0.0);
    floor_missing(0);
    for name in [
        "pilotlight_peers_retained_total",
        "pilotlight_mistags_suspected_total",
    ] {
        counter!(name).increment(0);
    }
}

fn dropped(tag: Tag, reason: LapseReason, links: usize) {
    counter!("pilotlight_peers_dropped_total", "tag" => tag.as_str(), "reason" => reason.as_str())
        .increment(links as u64);
}

/// Sets what is read off a snapshot, when somebody is about to read the metrics.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts and ages; 2⁵³ of anything is out of reach"
)]
pub fn publish(now: &Snapshot) {
    for mode in Mode::ALL {
        gauge!("pilotlight_mode", "mode" => mode.as_str())
            .set(f64::from(u8::from(now.mode == mode)));
    }
    gauge!("pilotlight_signer_attached").set(f64::from(u8::from(now.signer_attached)));
    gauge!("pilotlight_signer_epoch").set(now.epoch.map_or(0, Epoch::get) as f64);
    counter!("pilotlight_signer_away_seconds_total").absolute(now.signer_away.as_secs());
    for kind in &now.links_by_kind {
        gauge!("pilotlight_links", "tag" => kind.tag.as_str(), "direction" => kind.direction.as_str(),
            "identity" => kind.identity.as_str())
        .set(kind.links as f64);
    }
    for tag in Tag::ALL {
        let sessions: usize = now
            .links_by_kind
            .iter()
            .filter(|kind| kind.tag == tag)
            .map(|kind| kind.links)
            .sum();
        gauge!("pilotlight_vault_sessions", "tag" => tag.as_str()).set(sessions as f64);
    }
    gauge!("pilotlight_vault_oldest_session_seconds").set(now.oldest_session.as_secs_f64());
    gauge!("pilotlight_bans").set(now.bans as f64);
    gauge!("pilotlight_parked_handshakes").set(now.parked as f64);
    gauge!("pilotlight_ecdh_in_flight").set(now.ecdh_in_flight as f64);
    let gossip = now.last_gossip_at.unwrap_or_default();
    gauge!("pilotlight_gossip_last_message_timestamp_seconds").set(gossip.as_secs_f64());
    gauge!("pilotlight_build_info", "version" => env!("CARGO_PKG_VERSION"), "commit" => COMMIT)
        .set(1.0);
}

/// Counts one refused message.
pub(super) fn refused(name: &'static str, action: &'static str) {
    counter!("pilotlight_messages_refused_total", "type" => name, "action" => action).increment(1);
}

/// Counts an event.
pub(crate) fn record(event: &Event) {
    match event {
        Event::SignerLapsed(report) => lapsed(report),
        Event::Relit { took, .. } => {
            if let Some(took) = took {
                histogram!("pilotlight_relight_duration_seconds").record(*took);
            }
        }
        Event::LinkUp {
            direction: Direction::Outbound,
            identity,
            ..
        } => redialled(*identity, "ok"),
        Event::DialFailed { .. } => dial_failed(event),
        Event::GossipFloor { missing, .. } => floor_missing(*missing),
        Event::InboundFailed { failure, .. } => inbound_failed(failure),
        Event::LinkDown { tag, reason, .. } => {
            counter!("pilotlight_links_closed_total", "tag" => tag.as_str(), "reason" => reason.as_str()).increment(1);
        }
        Event::Refused { name, action, .. } => {
            refused(name, action);
        }
        Event::MistagSuspected { .. } => {
            counter!("pilotlight_mistags_suspected_total").increment(1);
        }
        Event::KeyRotated { direction, times } => {
            counter!("pilotlight_key_rotations_total", "direction" => direction.as_str())
                .increment(*times);
        }
        Event::Handshake {
            direction,
            identity,
            result,
            took,
        } => {
            counter!("pilotlight_handshakes_total", "direction" => direction.as_str(), "identity" => identity.as_str(),
                "result" => *result)
            .increment(1);
            histogram!("pilotlight_handshake_duration_seconds").record(*took);
        }
        Event::Ecdh {
            source,
            result,
            took,
        } => {
            counter!("pilotlight_ecdh_requests_total", "source" => source.as_str(), "result" => *result).increment(1);
            histogram!("pilotlight_ecdh_duration_seconds").record(*took);
        }
        Event::Pong { rtt, .. } => histogram!("pilotlight_pong_rtt_seconds").record(*rtt),
        Event::Banned { .. }
        | Event::SignerRefused { .. }
        | Event::SignerStalled { .. }
        | Event::SignerOdd { .. }
        | Event::EcdhThrottled { .. } => record_refusal(event),
        Event::GatewayListening { .. }
        | Event::SignerTakenOver { .. }
        | Event::Listening { .. }
        | Event::ModeChanged { .. }
        | Event::SignerAttached { .. }
        | Event::HeldDown { .. }
        | Event::Dialing { .. }
        | Event::LinkUp { .. }
        | Event::Leased { .. }
        | Event::Tagged { .. }
        | Event::PeerComplained { .. }
        | Event::Parked { .. }
        | Event::BookFailed { .. }
        | Event::Drained { .. } => {}
    }
}

fn lapsed(report: &LapseReport) {
    counter!("pilotlight_signer_lapses_total", "reason" => report.reason.as_str()).increment(1);
    dropped(Tag::ChannelBearing, report.reason, report.channel_bearing);
    dropped(
        Tag::GossipOnly,
        report.reason,
        report.dropped.saturating_sub(report.channel_bearing),
    );
    counter!("pilotlight_peers_retained_total").increment(report.retained as u64);
    histogram!("pilotlight_fence_duration_seconds").record(report.fence);
    histogram!("pilotlight_teardown_duration_seconds").record(report.teardown);
}

/// What the gateway says, and who is banned.
fn record_refusal(event: &Event) {
    match event {
        Event::Banned { who, offence, .. } => {
            counter!("pilotlight_bans_total", "scope" => who.kind(), "offence" => offence.as_str())
                .increment(1);
        }
        Event::SignerRefused { failure, .. } => signer_refused(failure),
        Event::SignerStalled { stalled } => {
            gauge!("pilotlight_signer_stalled").set(f64::from(u8::from(*stalled)));
        }
        Event::SignerOdd { oddity } => {
            counter!("pilotlight_signer_oddities_total", "kind" => *oddity).increment(1);
        }
        Event::EcdhThrottled { scope } => {
            counter!("pilotlight_ecdh_throttled_total", "scope" => *scope).increment(1);
        }
        _ => {}
    }
}

pub(super) fn signer_refused(failure: &'static str) {
    counter!("pilotlight_signers_refused_total", "reason" => failure).increment(1);
}

pub(super) fn inbound_failed(reason: &'static str) {
    counter!("pilotlight_inbound_failed_total", "reason" => reason).increment(1);
}

fn dial_failed(event: &Event) {
    if let Event::DialFailed {
        identity, failure, ..
    } = event
    {
        redialled(*identity, failure);
    }
}

#[allow(clippy::cast_precision_loss, reason = "a count of links")]
fn floor_missing(missing: usize) {
    gauge!("pilotlight_gossip_floor_missing").set(missing as f64);
}

fn redialled(identity: Identity, result: &'static str) {
    counter!("pilotlight_redials_total", "identity" => identity.as_str(), "result" => result)
        .increment(1);
}

#[cfg(test)]
#[path = "meters_tests.rs"]
mod tests;
