//! What the signer's ECDH may be spent on: a token bucket for each source of strangers, and a meter of how much the signer bears.
//!
//! The signer is one device far away. Who asks it for too much at once starves the peers that matter, so that the number
//! of requests in flight follows what it is seen to do: enough to keep it busy over the round trip, and never more than it
//! answers in two seconds.
//!
//! ```text
//!   floor    the least a request takes: round trip + one ECDH
//!   service  the time between two answers while the signer has work: one ECDH, or less if it computes several at once
//!   cap      = min(2 × floor / service + 8, 2 s / service), within 4 … 1024; 256 before anything is measured
//! ```
//!
//! Pure: `now` is an argument. It never calls a signer, keeps no more than a bounded number of sources, and never grows with a
//! flood.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Moment;
use crate::limits;

/// Why a stranger's request was refused before the signer was asked. The words are labels of `ecdh_throttled_total{scope}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Throttle {
    /// This source has used up its tokens.
    Source,
    /// More sources than are told apart: they share one bucket, and it is empty.
    Sources,
    /// The strangers' half of the signer is taken, for longer than an act may last.
    Strangers,
    /// Everything that may wait for the signer is waiting.
    Queue,
}

impl Throttle {
    /// A lower-case word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sources => "sources",
            Self::Strangers => "strangers",
            Self::Queue => "queue",
        }
    }
}

/// What one party easily has all addresses of is one source: an IPv4 address, or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Source {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => Self::V6(ip.octets().first_chunk().copied().unwrap_or_default()),
        }
    }
}

/// A token bucket, kept as the one moment when it will be full again (the generic cell rate algorithm of ITU-T I.371).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    full_at: Moment,
}

impl Bucket {
    pub(super) fn take(&mut self, now: Moment, burst: u32, interval: Duration) -> bool {
        let has = self.has(now, burst, interval);
        if has {
            let used = self.full_at.since(now);
            self.full_at = now.after(used).after(interval);
        }
        has
    }

    fn has(self, now: Moment, burst: u32, interval: Duration) -> bool {
        let room = interval.saturating_mul(burst.saturating_sub(1));
        self.full_at.since(now) <= room
    }

    fn is_full(self, now: Moment) -> bool {
        self.full_at <= now
    }
}

/// The token buckets of all sources.
#[derive(Debug, Default)]
pub struct Sources {
    buckets: HashMap<Source, Bucket>,
    /// Shared by whoever comes when the table is full.
    overflow: Bucket,
    swept_at: Moment,
}

impl Sources {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one token of this source.
    ///
    /// # Errors
    /// [`Throttle::Source`] or [`Throttle::Sources`] when there is none: the signer must not be asked.
    pub fn take(&mut self, now: Moment, ip: IpAddr) -> Result<(), Throttle> {
        let source = Source::of(ip);
        if !self.buckets.contains_key(&source) && self.buckets.len() >= limits::ECDH_SOURCES {
            self.sweep(now);
        }
        if self.buckets.contains_key(&source) || self.buckets.len() < limits::ECDH_SOURCES {
            let bucket = self.buckets.entry(source).or_default();
            let taken = bucket.take(now, limits::ECDH_SOURCE_BURST, limits::ECDH_SOURCE_INTERVAL);
            return taken.then_some(()).ok_or(Throttle::Source);
        }
        let taken = self.overflow.take(
            now,
            limits::ECDH_OVERFLOW_BURST,
            limits::ECDH_OVERFLOW_INTERVAL,
        );
        taken.then_some(()).ok_or(Throttle::Sources)
    }

    /// Whether [`take`](Self::take) would give this source a token now. Takes none.
    pub fn has(&self, now: Moment, ip: IpAddr) -> bool {
        match self.buckets.get(&Source::of(ip)) {
            Some(bucket) => {
                bucket.has(now, limits::ECDH_SOURCE_BURST, limits::ECDH_SOURCE_INTERVAL)
            }
            // A full table may have room once it is swept: that is found out when the token is taken.
            None => true,
        }
    }

    /// Sources that are remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no source is remembered.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Forgets the sources whose bucket is full again: they are as good as new. At most once in the time of a token, so that
    /// a flood from ever new addresses does not pay for a walk of the table each.
    fn sweep(&mut self, now: Moment) {
        if now.since(self.swept_at) < limits::ECDH_SOURCE_INTERVAL && self.swept_at > Moment::START
        {
            return;
        }
        self.swept_at = now;
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }
}

/// What one signer is seen to bear. One for each session: another signer is another path and another device.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    floor: Option<Duration>,
    service: Option<Duration>,
    last_answer: Moment,
}

/// Weight of a new sample in the service time: one part in this many.
const SERVICE_WEIGHT: u32 = 16;
/// By what part of the difference the floor follows slower answers to lone requests.
const FLOOR_WEIGHT: u32 = 8;

impl Meter {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An answer has come to a request that was sent at `sent`, when `ahead` others were unanswered.
    pub fn answered(&mut self, now: Moment, sent: Moment, ahead: usize) {
        let took = now.since(sent);
        let floor = match self.floor {
            None => took,
            Some(floor) if took < floor => took,
            // Only a lone request says what the path takes: others have waited in the queue, too.
            Some(floor) if ahead == 0 => {
                floor.saturating_add(took.saturating_sub(floor) / FLOOR_WEIGHT)
            }
            Some(floor) => floor,
        };
        // The signer could begin once the request had arrived and the answer before it was out. A lone request says
        // only that it takes no longer than that.
        if ahead == 0 {
            self.service = self.service.map(|service| service.min(took));
        } else {
            let began = self.last_answer.max(sent.after(floor));
            // More than this changes nothing that is decided by it, and a single pause would be felt for long.
            let sample = now.since(began).min(limits::ECDH_BACKLOG);
            self.service = Some(self.service.map_or(sample, |service| {
                let kept = service.saturating_mul(SERVICE_WEIGHT - 1);
                kept.saturating_add(sample) / SERVICE_WEIGHT
            }));
        }
        self.floor = Some(floor);
        self.last_answer = now;
    }

    /// An answer has come that says nothing of ECDH: what was behind it could not begin before.
    pub fn heard(&mut self, now: Moment) {
        self.last_answer = now;
    }

    /// The least that a request takes; `None` before the first answer.
    pub fn floor(&self) -> Option<Duration> {
        self.floor
    }

    /// The time that the signer adds with each request; `None` before two were in flight together.
    pub fn service(&self) -> Option<Duration> {
        self.service
    }

    /// How many requests may be in flight.
    pub fn cap(&self) -> usize {
        let (Some(floor), Some(service)) = (self.floor, self.service) else {
            return limits::ECDH_IN_FLIGHT_FIRST;
        };
        let nanos = service.as_nanos().max(1);
        let busy = (floor.as_nanos().saturating_mul(2) / nanos).saturating_add(8);
        let bearable = limits::ECDH_BACKLOG.as_nanos() / nanos;
        usize::try_from(busy.min(bearable))
            .unwrap_or(usize::MAX)
            .clamp(limits::ECDH_IN_FLIGHT_MIN, limits::ECDH_IN_FLIGHT_MAX)
    }

    /// How many of them may be strangers': half, at least one.
    pub fn strangers_cap(&self) -> usize {
        (self.cap() / 2).max(1)
    }

    /// How long the last of `requests` will have waited for the signer.
    pub fn backlog(&self, requests: usize) -> Duration {
        let count = u32::try_from(requests).unwrap_or(u32::MAX);
        self.service.unwrap_or_default().saturating_mul(count)
    }

    /// Whether new dials should wait: what is queued keeps the signer busy for longer than [`limits::ECDH_BACKLOG`].
    pub fn is_behind(&self, requests: usize) -> bool {
        self.backlog(requests) > limits::ECDH_BACKLOG
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
