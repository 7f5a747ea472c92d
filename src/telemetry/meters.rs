//! The metrics of design.md § 6, through the `metrics` facade: whichever recorder the process has installed gets them.
//!
//! Three sources: events ([`record`]), the counters of frames ([`FrameMeters`], too frequent to be events), and what the
//! supervisor shows when somebody asks ([`publish`], [`publish_peers`]). [`METRICS`] lists every metric; nothing
//! outside the list is ever recorded. A label's value comes from an enum or a table of this crate, never from a peer.

use super::list::{CONFLICT, ECDH_BOUNDS, Kind, METRICS, THROTTLED};
use super::{Event, LapseReport};
use crate::link::{Direction, Identity, Tag};
use crate::signer::{Epoch, LapseReason};
use crate::supervisor::{Mode, PeerState, PeerView, Snapshot};
use crate::wire::Plane;
use metrics::{Counter, counter, gauge, histogram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

    /// Adds what a link has counted, and empties its tally. Touches only the counters that have something to add.
    pub fn add(&self, tally: &mut Tally) {
        for (counters, counts) in self.frames.iter().zip(&mut tally.frames) {
            for (counter, count) in counters.iter().zip(counts) {
                take(counter, count);
            }
        }
        for (counter, count) in self.bytes.iter().zip(&mut tally.bytes) {
            take(counter, count);
        }
    }

    /// Notes that gossip came at this Unix second.
    pub fn gossip_came(&self, second: u64) {
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

fn take(counter: &Counter, count: &mut u32) {
    if *count > 0 {
        counter.increment(std::mem::take(count).into());
    }
}

/// What one link has counted in one batch and not handed on yet: far less than 4 GiB. Plain numbers of its own: a message costs two additions, and only a batch
/// touches the counters that all links share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    frames: [[u32; PLANES.len()]; 2],
    bytes: [u32; 2],
    announced: bool,
}

impl Tally {
    /// Counts one message of so many bytes of plaintext.
    pub fn count(&mut self, direction: Direction, plane: Plane, bytes: usize) {
        let planes = self.frames.get_mut(direction as usize);
        if let Some(frames) = planes.and_then(|planes| planes.get_mut(plane as usize)) {
            *frames = frames.saturating_add(1);
        }
        if let Some(total) = self.bytes.get_mut(direction as usize) {
            *total = total.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// Notes that an announcement came for the node.
    pub fn announce(&mut self) {
        self.announced = true;
    }

    /// Whether one has come since this was last asked.
    pub fn take_announced(&mut self) -> bool {
        std::mem::take(&mut self.announced)
    }

    /// Whether nothing is counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Messages counted in one direction.
    pub fn frames(&self, direction: Direction) -> u64 {
        let planes = self.frames.get(direction as usize);
        planes.map_or(0, |planes| planes.iter().copied().map(u64::from).sum())
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
    for scope in ECDH_BOUNDS {
        counter!("pilotlight_ecdh_throttled_total", "scope" => scope).increment(0);
    }
    // What an alert waits for must be there before it moves: Prometheus sees no increase in a series that begins at 1.
    counter!("pilotlight_signers_refused_total", "reason" => CONFLICT).increment(0);
    counter!("pilotlight_inbound_failed_total", "reason" => THROTTLED).increment(0);
    gauge!("pilotlight_signer_stalled").set(0.0);
    gauge!("pilotlight_inbox_stalled").set(0.0);
    floor_missing(0);
    for name in [
        "pilotlight_peers_retained_total",
        "pilotlight_mistags_suspected_total",
        "pilotlight_book_errors_total",
        "pilotlight_events_missed_total",
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
    if now.block_height.is_some() {
        let left = now.htlc_deadline.map(|soonest| soonest.blocks_left as f64);
        // Without a deadline it is below no threshold.
        gauge!("pilotlight_htlc_deadline_blocks_min").set(left.unwrap_or(f64::NAN));
    }
    if let Some(age) = now.own_update_age {
        gauge!("pilotlight_own_update_age_seconds").set(age.as_secs_f64());
    }
    gauge!("pilotlight_build_info", "version" => env!("CARGO_PKG_VERSION"), "commit" => COMMIT)
        .set(1.0);
}

/// Sets how many peers there are of each kind: as [`publish`], from what [`Supervisor::peers`](crate::supervisor::Supervisor::peers)
/// gives.
#[allow(clippy::cast_precision_loss, reason = "a count of peers")]
pub fn publish_peers(peers: &[PeerView]) {
    for tag in Tag::ALL {
        for state in PeerState::ALL {
            let there = peers
                .iter()
                .filter(|peer| peer.tag == tag && peer.state == state)
                .count();
            gauge!("pilotlight_peers", "tag" => tag.as_str(), "state" => state.as_str())
                .set(there as f64);
        }
    }
}

/// Sets when the certificate ends by which a signer that dials in knows the node, since the Unix epoch.
pub fn publish_certificate(expires: Duration) {
    gauge!("pilotlight_signer_certificate_expiry_timestamp_seconds").set(expires.as_secs_f64());
}

/// Counts one refused message.
pub(super) fn refused(name: &'static str, action: &'static str) {
    counter!("pilotlight_messages_refused_total", "type" => name, "action" => action).increment(1);
}

/// Counts an event.
pub(crate) fn record(event: &Event) {
    match event {
        Event::SignerLapsed(report) => lapsed(report),
        Event::Relit { took, .. } => relit(*took),
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
        Event::Refused { name, action, .. } => refused(name, action),
        Event::MistagSuspected { .. } => {
            counter!("pilotlight_mistags_suspected_total").increment(1);
        }
        Event::InboxStalled { stalled } => is_stalled("pilotlight_inbox_stalled", *stalled),
        Event::BookFailed { .. } => counter!("pilotlight_book_errors_total").increment(1),
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
        | Event::HtlcDeadline(_)
        | Event::AbsencePlanned { .. }
        | Event::AbsenceOver { .. }
        | Event::Dialing { .. }
        | Event::LinkUp { .. }
        | Event::Leased { .. }
        | Event::Tagged { .. }
        | Event::PeerComplained { .. }
        | Event::Parked { .. }
        | Event::ListenerBehind { .. }
        | Event::Drained { .. } => {}
    }
}

fn relit(took: Option<Duration>) {
    if let Some(took) = took {
        histogram!("pilotlight_relight_duration_seconds").record(took);
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
        Event::SignerStalled { stalled } => is_stalled("pilotlight_signer_stalled", *stalled),
        Event::SignerOdd { oddity } => {
            counter!("pilotlight_signer_oddities_total", "kind" => *oddity).increment(1);
        }
        Event::EcdhThrottled { scope } => {
            counter!("pilotlight_ecdh_throttled_total", "scope" => *scope).increment(1);
        }
        _ => {}
    }
}

#[cfg(feature = "admin")]
pub(super) fn events_missed(events: u64) {
    counter!("pilotlight_events_missed_total").increment(events);
}

fn is_stalled(gauge: &'static str, stalled: bool) {
    gauge!(gauge).set(f64::from(u8::from(stalled)));
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
