//! Who sits on the one place that a signer has: the incumbent, or a newcomer that has proved itself too.
//!
//! ```text
//!            contend              contend              dead, silent, gone
//!   vacant ───────────▶ held(a) ───────────▶ contested(a, b) ───────────────▶ held(b)
//!      ▲   ◀─────────────          ◀───────────────────────
//!              gone                     a alive, b gone
//! ```
//!
//! Only who has a valid macaroon *and* a proof of the key contends. The incumbent is challenged first: a signer that answers keeps
//! its place, so that two healthy signers do not swap; a half-open stream does not keep out the signer that returns. It also holds
//! off who has failed its proof.
//!
//! Pure: `now` is an argument. It never lapses a session itself and never tells whose macaroon it was: it sees a digest.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Moment;
use crate::limits;
use crate::node_id::NodeId;

/// One signer's stream, numbered by the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What tells macaroons apart: a digest, so that a log cannot give one away.
pub type MacaroonId = [u8; 32];

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This stream has the place: attach.
    Attach(StreamId),
    /// Ask this stream, the incumbent, for a sign of life.
    Challenge(StreamId),
    /// This stream does not get the place.
    Refuse(StreamId, Refusal),
}

/// Why a signer with a valid macaroon and proof was refused the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The incumbent answered its challenge: `signer_conflict`.
    Conflict,
    /// Another newcomer's challenge is under way.
    Contested,
    /// This macaroon has taken over less than a minute ago.
    TooSoon,
}

impl Refusal {
    /// A lower-case word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "signer_conflict",
            Self::Contested => "take_over_under_way",
            Self::TooSoon => "take_over_too_soon",
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Vacant,
    Held(StreamId),
    Contested {
        incumbent: StreamId,
        newcomer: StreamId,
        macaroon: MacaroonId,
    },
}

/// The place.
#[derive(Debug, Clone)]
pub struct Seat {
    state: State,
    /// When each macaroon last took over; entries older than the interval are as good as none.
    take_overs: HashMap<MacaroonId, Moment>,
}

impl Default for Seat {
    fn default() -> Self {
        Self::new()
    }
}

impl Seat {
    /// Nobody sits.
    pub fn new() -> Self {
        Self {
            state: State::Vacant,
            take_overs: HashMap::new(),
        }
    }

    /// Who sits; the incumbent while it is contested.
    pub fn holder(&self) -> Option<StreamId> {
        match self.state {
            State::Vacant => None,
            State::Held(id) | State::Contested { incumbent: id, .. } => Some(id),
        }
    }

    /// A stream whose macaroon and proof are good wants the place.
    pub fn contend(&mut self, now: Moment, stream: StreamId, macaroon: MacaroonId) -> Verdict {
        match self.state {
            State::Vacant => {
                self.state = State::Held(stream);
                Verdict::Attach(stream)
            }
            State::Held(incumbent) | State::Contested { incumbent, .. } if incumbent == stream => {
                Verdict::Attach(stream)
            }
            State::Contested { .. } => Verdict::Refuse(stream, Refusal::Contested),
            State::Held(_) if self.took_over_lately(now, macaroon) => {
                Verdict::Refuse(stream, Refusal::TooSoon)
            }
            State::Held(incumbent) => {
                self.state = State::Contested {
                    incumbent,
                    newcomer: stream,
                    macaroon,
                };
                Verdict::Challenge(incumbent)
            }
        }
    }

    /// The incumbent has answered.
    pub fn alive(&mut self, stream: StreamId) -> Option<Verdict> {
        match self.state {
            State::Contested {
                incumbent,
                newcomer,
                ..
            } if incumbent == stream => {
                self.state = State::Held(incumbent);
                Some(Verdict::Refuse(newcomer, Refusal::Conflict))
            }
            _ => None,
        }
    }

    /// The incumbent has not answered in time, or wrongly. Its session is to be lapsed, and then the newcomer, which has the place
    /// now, attached.
    pub fn dead(&mut self, now: Moment, stream: StreamId) -> Option<StreamId> {
        match self.state {
            State::Contested {
                incumbent,
                newcomer,
                macaroon,
            } if incumbent == stream => {
                self.remember(now, macaroon);
                self.state = State::Held(newcomer);
                Some(newcomer)
            }
            _ => None,
        }
    }

    /// A stream has ended, whichever.
    pub fn left(&mut self, stream: StreamId) -> Option<Verdict> {
        match self.state {
            State::Held(holder) if holder == stream => {
                self.state = State::Vacant;
                None
            }
            State::Contested {
                incumbent,
                newcomer,
                ..
            } if incumbent == stream => {
                self.state = State::Held(newcomer);
                Some(Verdict::Attach(newcomer))
            }
            State::Contested {
                incumbent,
                newcomer,
                ..
            } if newcomer == stream => {
                self.state = State::Held(incumbent);
                None
            }
            _ => None,
        }
    }

    fn took_over_lately(&self, now: Moment, macaroon: MacaroonId) -> bool {
        self.take_overs
            .get(&macaroon)
            .is_some_and(|at| now.since(*at) < limits::TAKE_OVER_INTERVAL)
    }

    /// The table holds one entry for each take-over of the last minute, and a take-over takes seconds: it stays small.
    fn remember(&mut self, now: Moment, macaroon: MacaroonId) {
        self.take_overs
            .retain(|_, at| now.since(*at) < limits::TAKE_OVER_INTERVAL);
        self.take_overs.insert(macaroon, now);
    }
}

/// Who is held off after a failed proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// What it showed.
    pub macaroon: MacaroonId,
    /// Where it comes from.
    pub source: IpAddr,
    /// Whose key it says that it holds: an agent with the wrong key does not keep out the one with the right key beside it.
    pub claim: Option<NodeId>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    until: Moment,
    last: Moment,
}

/// Who has failed its proof, and until when it is not listened to.
#[derive(Debug, Default)]
pub struct HoldOffs {
    failures: HashMap<Candidate, Failures>,
}

impl HoldOffs {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long this candidate must still stay away; `None` when it may try.
    pub fn remaining(&self, now: Moment, candidate: &Candidate) -> Option<Duration> {
        let failures = self.failures.get(candidate)?;
        Some(failures.until.since(now)).filter(|left| !left.is_zero())
    }

    /// A proof failed. Gives the time for which the candidate is now held off: 1, 2, 4 … 60 s.
    pub fn failed(&mut self, now: Moment, candidate: Candidate) -> Duration {
        self.failures
            .retain(|_, seen| now.since(seen.last) < limits::HOLD_OFF_FORGET);
        if self.failures.len() >= limits::HOLD_OFFS && !self.failures.contains_key(&candidate) {
            // The one that may try soonest loses least by being forgotten.
            let soonest = self.failures.iter().min_by_key(|(_, seen)| seen.until);
            if let Some(soonest) = soonest.map(|(candidate, _)| *candidate) {
                self.failures.remove(&soonest);
            }
        }
        let count = self.failures.get(&candidate).map_or(0, |seen| seen.count);
        let doubled = 2_u32.saturating_pow(count.min(16));
        let wait = limits::HOLD_OFF_FIRST
            .saturating_mul(doubled)
            .min(limits::HOLD_OFF_MAX);
        let failures = Failures {
            count: count.saturating_add(1),
            until: now.after(wait),
            last: now,
        };
        self.failures.insert(candidate, failures);
        wait
    }

    /// A proof was good: all is forgiven.
    pub fn passed(&mut self, candidate: &Candidate) {
        self.failures.remove(candidate);
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.failures.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }
}

#[cfg(test)]
#[path = "seat_tests.rs"]
mod tests;
