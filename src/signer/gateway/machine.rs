//! One signer's stream: what it must say next, which requests it owes an answer to, and when it is dead.
//!
//! ```text
//!                 lnd: complete, then challenge
//!   registering ───────────────────────────────▶ proving ──right──▶ contending ──seated──▶ live
//!        │        agent: challenge, complete later   │                  │                   │
//!        └──────────── late, wrong ──────────────────┴──── refused ─────┴── closed, silent ─┴──▶ ended
//! ```
//!
//! The registration is request 1; every later id is used once. Answers may come in any order. Of what is queued, the
//! highest [`Class`] goes first, strangers have half of the places in flight, and a request that nobody waits for any more is not
//! sent at all, or, once sent, keeps its place until the signer is done with it.
//!
//! Pure: inputs and `now` in; outputs and the next deadline out. It never reads a clock, never sees a point or a secret, and
//! never keeps more than `limits` says. A bug in it replays from a list of inputs.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::budget::{Meter, Throttle};
use super::queue::Queue;
use crate::clock::Moment;
use crate::limits;

pub use super::queue::{Class, Ticket};
pub use super::terms::{Body, End, Failure, Input, Kind, Oddity, Output, Phase, Registrant};

/// A request that the signer has not answered.
#[derive(Debug, Clone, Copy)]
struct Flight {
    what: What,
    kind: Kind,
    stranger: bool,
    sent: Moment,
    /// Unanswered when it was sent.
    ahead: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Challenge,
    Ping,
    For(Ticket, Moment),
    /// Nobody waits for it any more.
    Orphan,
}

#[derive(Debug, Clone, Copy)]
struct Contest {
    until: Moment,
    /// It has answered something since it was contested.
    progress: bool,
}

/// The machine of one stream.
#[derive(Debug)]
pub struct StreamMachine {
    phase: Phase,
    registrant: Registrant,
    window: Duration,
    next_id: u64,
    queue: Queue,
    flights: BTreeMap<u64, Flight>,
    /// Given up after [`limits::SIGNER_ABANDON_AFTER`]: an answer is late all the same, not a broken protocol.
    abandoned: BTreeMap<u64, Kind>,
    /// Deadlines of what is in flight.
    expiries: BTreeSet<(Moment, u64)>,
    strangers: usize,
    meter: Meter,
    /// When this phase must be over.
    step_by: Moment,
    last_life: Moment,
    last_answer: Moment,
    /// Since when the oldest flight is the oldest.
    head_since: Moment,
    http_pinged: Moment,
    stalled: bool,
    contest: Option<Contest>,
    oddities: u32,
}

/// The id of the registration, and of the answer to it.
const REGISTRATION: u64 = 1;

impl StreamMachine {
    /// A stream that has just been opened with a valid macaroon. `window`: `signer.liveness_window`.
    pub fn new(now: Moment, window: Duration) -> Self {
        Self {
            phase: Phase::Registering,
            registrant: Registrant::Lnd,
            window: window.max(limits::LIVENESS_WINDOW_MIN),
            next_id: REGISTRATION + 1,
            queue: Queue::new(),
            flights: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            expiries: BTreeSet::new(),
            strangers: 0,
            meter: Meter::new(),
            step_by: now.after(limits::GATEWAY_STEP_DEADLINE),
            last_life: now,
            last_answer: now,
            head_since: now,
            http_pinged: now,
            stalled: false,
            contest: None,
            oddities: 0,
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What the signer has been seen to bear.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Unanswered requests.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Requests that have not been sent yet.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether new dials should wait.
    pub fn is_behind(&self) -> bool {
        self.meter.is_behind(self.queue.len() + self.flights.len())
    }

    /// When [`Input::Tick`] is due; `None` once it has ended.
    pub fn next_deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Ended => return None,
            Phase::Registering | Phase::Proving => return Some(self.step_by),
            // The seat decides within the contest's deadline; until then the stream must live.
            Phase::Contending => return Some(self.life_due()),
            Phase::Live => {}
        }
        let mut due = self.life_due();
        if let Some(contest) = self.contest {
            due = due.min(contest.until);
        }
        if let Some((at, _)) = self.expiries.first() {
            due = due.min(*at);
        }
        if let Some(at) = self.queue.next_expiry() {
            due = due.min(at);
        }
        match self.flights.values().next() {
            None => due = due.min(self.ping_at()),
            Some(head) => {
                if !self.stalled {
                    due = due.min(self.head_since.after(head.kind.stalled_after()));
                }
                if head.what == What::Orphan {
                    due = due.min(head.sent.after(head.kind.abandon_after()));
                }
            }
        }
        Some(due)
    }

    /// Takes an input; says what is to be done, in order.
    pub fn step(&mut self, now: Moment, input: Input, out: &mut Vec<Output>) {
        if self.phase == Phase::Ended {
            if let Input::Submit { ticket, .. } = input {
                out.push(Output::Failed(ticket, Failure::Away));
            }
            return;
        }
        match input {
            Input::Received { reply_to, body } => self.received(now, reply_to, body, out),
            Input::Verified(right) => self.verified(now, right, out),
            Input::Seated => self.seated(now, out),
            Input::Refused => self.refuse(out),
            Input::Bar => self.bar(out),
            Input::Submit {
                ticket,
                kind,
                class,
                deadline,
            } => self.submit(now, ticket, kind, class, deadline, out),
            Input::Cancel(ticket) => self.cancel(ticket),
            Input::PingAcked => self.last_life = now,
            Input::Contest => self.begin_contest(now, out),
            Input::Closed => self.end(End::Closed, out),
            Input::Clogged => self.deny(End::Clogged, out),
            Input::Lapsed => self.end(End::Lapsed, out),
            Input::Tick => {}
        }
        self.tick(now, out);
        self.dispatch(now, out);
    }

    fn received(&mut self, now: Moment, reply_to: u64, body: Body, out: &mut Vec<Output>) {
        if self.phase == Phase::Registering {
            match body {
                Body::Registration(registrant) if reply_to == REGISTRATION => {
                    self.registered(now, registrant, out);
                }
                _ => self.deny(End::RegistrationWrong, out),
            }
            return;
        }
        let Some(flight) = self.flights.get(&reply_to).copied() else {
            return self.stray(now, reply_to, body, out);
        };
        let fits = body == Body::Error || body == Body::Answer(flight.kind);
        self.land(now, reply_to, flight, fits);
        if fits {
            self.shows_life(now, out);
        }
        match flight.what {
            What::Challenge if body == Body::Error => self.unproven(End::ProofRefused, out),
            What::Challenge if fits => out.push(Output::Verify),
            What::Challenge => self.unproven(End::ProofWrong, out),
            What::Ping => {}
            What::For(ticket, _) if fits => out.push(Output::Answered(ticket)),
            What::For(ticket, _) => out.push(Output::Failed(ticket, Failure::WrongType)),
            What::Orphan => out.push(Output::Odd(Oddity::Late)),
        }
        if !fits {
            self.odd(Oddity::WrongType, out);
        }
    }

    fn registered(&mut self, now: Moment, registrant: Registrant, out: &mut Vec<Output>) {
        self.registrant = registrant;
        if registrant == Registrant::Lnd {
            out.push(Output::Complete);
        }
        self.phase = Phase::Proving;
        self.last_life = now;
        self.step_by = now.after(limits::GATEWAY_STEP_DEADLINE);
        let kind = match registrant {
            Registrant::Lnd => Kind::Ecdh,
            Registrant::Agent => Kind::Proof,
        };
        self.send_challenge(now, kind, out);
    }

    fn send_challenge(&mut self, now: Moment, kind: Kind, out: &mut Vec<Output>) {
        if let Some(id) = self.take_off(now, What::Challenge, kind, false) {
            out.push(Output::SendChallenge(id, kind));
        }
    }

    fn verified(&mut self, now: Moment, right: bool, out: &mut Vec<Output>) {
        match (self.phase, right) {
            (Phase::Proving, true) => {
                self.phase = Phase::Contending;
                self.last_life = now;
                self.http_ping(now, out);
                out.push(Output::Contend);
            }
            (Phase::Live, true) => self.end_contest(true, out),
            (_, true) => {}
            (_, false) => self.unproven(End::ProofWrong, out),
        }
    }

    /// A challenge was not met. An incumbent loses its contest by that; without one it is only asked what it can answer.
    fn unproven(&mut self, end: End, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Proving => self.deny(end, out),
            Phase::Live => self.end_contest(false, out),
            Phase::Registering | Phase::Contending | Phase::Ended => {}
        }
    }

    fn seated(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.phase == Phase::Contending {
            self.phase = Phase::Live;
            self.last_life = now;
            self.head_since = now;
            if self.registrant == Registrant::Agent {
                out.push(Output::Complete);
            }
        }
    }

    fn refuse(&mut self, out: &mut Vec<Output>) {
        if self.phase == Phase::Contending {
            self.deny(End::Refused, out);
        }
    }

    fn bar(&mut self, out: &mut Vec<Output>) {
        if self.phase == Phase::Registering {
            self.deny(End::Barred, out);
        }
    }

    /// Ends a stream that is not live; says so in the protocol's own words where it still can.
    fn deny(&mut self, end: End, out: &mut Vec<Output>) {
        let completed = self.phase != Phase::Registering && self.registrant == Registrant::Lnd;
        if !completed {
            out.push(Output::Deny(end));
        }
        self.end(end, out);
    }

    fn begin_contest(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.phase != Phase::Live || self.contest.is_some() {
            return;
        }
        self.contest = Some(Contest {
            until: now.after(limits::CONTEST_DEADLINE),
            progress: false,
        });
        self.http_ping(now, out);
        self.send_challenge(now, Kind::Ecdh, out);
    }

    fn end_contest(&mut self, alive: bool, out: &mut Vec<Output>) {
        if self.contest.take().is_some() {
            out.push(if alive { Output::Alive } else { Output::Dead });
        }
    }

    fn shows_life(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.last_life = now;
        self.last_answer = now;
        if let Some(contest) = &mut self.contest {
            contest.progress = true;
        }
        if std::mem::take(&mut self.stalled) {
            out.push(Output::Stalled(false));
        }
    }

    fn submit(
        &mut self,
        now: Moment,
        ticket: Ticket,
        kind: Kind,
        class: Class,
        deadline: Moment,
        out: &mut Vec<Output>,
    ) {
        let failure = if self.phase != Phase::Live {
            Some(Failure::Away)
        } else if deadline <= now {
            Some(Failure::Late)
        } else {
            self.full(class).map(Failure::Throttled)
        };
        match failure {
            Some(failure) => out.push(Output::Failed(ticket, failure)),
            None => self.queue.push(ticket, kind, class, deadline),
        }
    }

    /// Why no request of this class can be queued.
    fn full(&self, class: Class) -> Option<Throttle> {
        if self.queue.len() >= limits::SIGNER_QUEUE {
            return Some(Throttle::Queue);
        }
        if class != Class::Inbound {
            return None;
        }
        let waiting = self.queue.strangers();
        // They have half of the signer, so that each waits for two.
        let share = waiting.saturating_add(self.strangers).saturating_mul(2);
        let full = waiting >= limits::SIGNER_QUEUE_STRANGERS || self.meter.is_behind(share);
        full.then_some(Throttle::Strangers)
    }

    fn cancel(&mut self, ticket: Ticket) {
        if self.queue.remove(ticket) {
            return;
        }
        let flight = self
            .flights
            .iter_mut()
            .find(|(_, flight)| matches!(flight.what, What::For(held, _) if held == ticket));
        if let Some((id, flight)) = flight
            && let What::For(_, deadline) = flight.what
        {
            self.expiries.remove(&(deadline, *id));
            flight.what = What::Orphan;
        }
    }

    fn dispatch(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.phase != Phase::Live {
            return;
        }
        let cap = self.meter.cap();
        while self.flights.len() < cap {
            let strangers_too = self.strangers < self.meter.strangers_cap();
            let Some(next) = self.queue.pop(strangers_too) else {
                return;
            };
            let what = What::For(next.ticket, next.deadline);
            let stranger = next.class == Class::Inbound;
            if let Some(id) = self.take_off(now, what, next.kind, stranger) {
                self.expiries.insert((next.deadline, id));
                out.push(Output::Send(id, next.ticket));
            } else {
                out.push(Output::Failed(next.ticket, Failure::Away));
            }
        }
    }

    /// Ids are never reused: `None` when all 2⁶⁴ are gone.
    fn take_off(&mut self, now: Moment, what: What, kind: Kind, stranger: bool) -> Option<u64> {
        let id = self.next_id;
        self.next_id = id.checked_add(1)?;
        if self.flights.is_empty() {
            self.head_since = now;
        }
        let ahead = self.flights.len();
        self.strangers += usize::from(stranger);
        let flight = Flight {
            what,
            kind,
            stranger,
            sent: now,
            ahead,
        };
        self.flights.insert(id, flight);
        Some(id)
    }

    fn land(&mut self, now: Moment, id: u64, flight: Flight, measured: bool) {
        if self.flights.keys().next() == Some(&id) {
            self.head_since = now;
        }
        self.flights.remove(&id);
        self.strangers -= usize::from(flight.stranger);
        if let What::For(_, deadline) = flight.what {
            self.expiries.remove(&(deadline, id));
        }
        // How long a person takes to sign says nothing of ECDH.
        if measured && !matches!(flight.kind, Kind::Pass(_)) {
            self.meter.answered(now, flight.sent, flight.ahead);
        }
    }

    /// An answer to nothing that is in flight.
    fn stray(&mut self, now: Moment, reply_to: u64, body: Body, out: &mut Vec<Output>) {
        if let Some(kind) = self.abandoned.get(&reply_to).copied()
            && (body == Body::Error || body == Body::Answer(kind))
        {
            self.abandoned.remove(&reply_to);
            self.shows_life(now, out);
            return out.push(Output::Odd(Oddity::Late));
        }
        let oddity = match body {
            Body::Nothing => Oddity::Empty,
            Body::Registration(_) => Oddity::WrongType,
            _ if reply_to >= self.next_id || reply_to == 0 => Oddity::Unknown,
            _ => Oddity::Repeated,
        };
        self.odd(oddity, out);
    }

    fn abandon(&mut self, now: Moment, id: u64, flight: Flight) {
        self.land(now, id, flight, false);
        self.abandoned.insert(id, flight.kind);
        if self.abandoned.len() > limits::SIGNER_ABANDONED {
            self.abandoned.pop_first();
        }
    }

    fn odd(&mut self, oddity: Oddity, out: &mut Vec<Output>) {
        out.push(Output::Odd(oddity));
        self.oddities = self.oddities.saturating_add(1);
        if self.oddities > limits::SIGNER_ODDITIES_MAX {
            self.deny(End::Odd, out);
        }
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Registering if self.step_by <= now => self.deny(End::RegistrationLate, out),
            Phase::Proving if self.step_by <= now => self.deny(End::ProofLate, out),
            Phase::Registering | Phase::Proving | Phase::Ended => {}
            Phase::Contending | Phase::Live if self.last_life.after(self.window) <= now => {
                self.deny(End::Silent, out);
            }
            Phase::Contending => self.keep_alive(now, out),
            Phase::Live => {
                self.keep_alive(now, out);
                self.tick_live(now, out);
            }
        }
    }

    /// When the next PING is due, or the stream is dead.
    fn life_due(&self) -> Moment {
        let ping = self.http_pinged.after(self.window / 3);
        ping.min(self.last_life.after(self.window))
    }

    fn keep_alive(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.http_pinged.after(self.window / 3) <= now {
            self.http_ping(now, out);
        }
    }

    fn http_ping(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.http_pinged = now;
        out.push(Output::HttpPing);
    }

    fn tick_live(&mut self, now: Moment, out: &mut Vec<Output>) {
        if let Some(contest) = self.contest
            && contest.until <= now
        {
            self.end_contest(contest.progress, out);
        }
        while let Some(ticket) = self.queue.pop_expired(now) {
            out.push(Output::Failed(ticket, Failure::Late));
        }
        while let Some((at, id)) = self.expiries.first().copied()
            && at <= now
        {
            self.expiries.remove(&(at, id));
            if let Some(flight) = self.flights.get_mut(&id)
                && let What::For(ticket, _) = std::mem::replace(&mut flight.what, What::Orphan)
            {
                out.push(Output::Failed(ticket, Failure::Late));
            }
        }
        if let Some(head) = self.flights.values().next()
            && !self.stalled
            && self.head_since.after(head.kind.stalled_after()) <= now
        {
            self.stalled = true;
            out.push(Output::Stalled(true));
        }
        while let Some((id, head)) = self
            .flights
            .first_key_value()
            .map(|(id, head)| (*id, *head))
            && head.what == What::Orphan
            && head.sent.after(head.kind.abandon_after()) <= now
        {
            self.abandon(now, id, head);
        }
        if self.flights.is_empty()
            && self.queue.is_empty()
            && self.ping_at() <= now
            && let Some(id) = self.take_off(now, What::Ping, Kind::Ping, false)
        {
            out.push(Output::SendPing(id));
        }
    }

    /// Only when nothing is in flight: lnd's signer answers in order, and a ping would wait behind the rest.
    fn ping_at(&self) -> Moment {
        self.last_answer.max(self.head_since).after(self.window)
    }

    fn end(&mut self, end: End, out: &mut Vec<Output>) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        self.contest = None;
        for ticket in self.queue.drain() {
            out.push(Output::Failed(ticket, Failure::Away));
        }
        for flight in std::mem::take(&mut self.flights).into_values() {
            if let What::For(ticket, _) = flight.what {
                out.push(Output::Failed(ticket, Failure::Away));
            }
        }
        self.expiries.clear();
        self.abandoned.clear();
        self.strangers = 0;
        if std::mem::take(&mut self.stalled) {
            out.push(Output::Stalled(false));
        }
        out.push(Output::End(end));
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
