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
//! sent at all, or, once sent, keeps its place until the signer is done with it. The node's own requests have places of their own:
//! a person takes minutes for one, and peers wait seconds.
//!
//! A stream is dead when a window has passed without life, and it was listened to meanwhile: when this process itself stood still,
//! the acknowledgement may lie unread in a socket, and the signer has a third of a window more.
//!
//! Pure: inputs and `now` in; outputs and the next deadline out. It never reads a clock, never sees a point or a secret, and
//! never keeps more than `limits` says. A bug in it replays from a list of inputs.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::budget::{Bucket, Meter, Throttle};
use super::flights::{Flight, Flights, What};
use super::queue::{Queue, Queued};
use crate::clock::Moment;
use crate::limits;

pub use super::queue::{Class, Ticket};
pub use super::terms::{Body, End, Failure, Input, Kind, Oddity, Output, Phase, Registrant};

#[derive(Debug, Clone, Copy)]
struct Contest {
    until: Moment,
    /// The id of its challenge.
    challenge: Option<u64>,
    /// It has answered something since it was contested.
    progress: bool,
    /// It has acknowledged a PING since.
    acknowledged: bool,
}

/// The machine of one stream.
#[derive(Debug, Clone)]
pub struct StreamMachine {
    phase: Phase,
    registrant: Registrant,
    window: Duration,
    next_id: u64,
    queue: Queue,
    flights: Flights,
    meter: Meter,
    /// When this phase must be over.
    step_by: Moment,
    /// When it is dead, unless it shows life.
    dead_at: Moment,
    /// It was given more time, because we were late; once until it shows life.
    excused: bool,
    last_answer: Moment,
    http_pinged: Moment,
    stalled: bool,
    contest: Option<Contest>,
    oddities: Bucket,
}

/// The id of the registration, and of the answer to it.
const REGISTRATION: u64 = 1;

impl StreamMachine {
    /// A stream that has just been opened with a valid macaroon. `window`: `signer.liveness_window`.
    pub fn new(now: Moment, window: Duration) -> Self {
        let window = window.max(limits::LIVENESS_WINDOW_MIN);
        Self {
            phase: Phase::Registering,
            registrant: Registrant::Lnd,
            window,
            next_id: REGISTRATION + 1,
            queue: Queue::new(),
            flights: Flights::new(now),
            meter: Meter::new(),
            step_by: now.after(limits::GATEWAY_STEP_DEADLINE),
            dead_at: now.after(window),
            excused: false,
            last_answer: now,
            http_pinged: now,
            stalled: false,
            contest: None,
            oddities: Bucket::default(),
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
        self.meter
            .is_behind(self.queue.ecdh() + self.flights.ecdh())
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
        let stalled_at = (!self.stalled).then(|| self.flights.stalled_at()).flatten();
        let ping_at = self.flights.is_empty().then(|| self.ping_at());
        let others = [
            self.contest.map(|contest| contest.until),
            self.flights.next_deadline(),
            self.queue.next_expiry(),
            stalled_at,
            ping_at,
        ];
        others.into_iter().flatten().chain([self.life_due()]).min()
    }

    /// Takes an input; says what is to be done, in order.
    pub fn step(&mut self, now: Moment, input: Input, out: &mut Vec<Output>) {
        if self.phase == Phase::Ended {
            if let Input::Submit { ticket, .. } = input {
                out.push(Output::Failed(ticket, Failure::Away));
            }
            return;
        }
        if self
            .next_deadline()
            .is_some_and(|due| due.after(self.window / 3) < now)
        {
            self.excuse(now);
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
            Input::PingAcked => self.acknowledged(now),
            Input::Contest => self.begin_contest(now, out),
            Input::Closed => self.end(End::Closed, out),
            Input::Clogged => self.deny(End::Clogged, out),
            Input::Lapsed => self.end(End::Lapsed, out),
            Input::Tick => {}
        }
        // What the message at hand is worth comes first, and brings its own time along.
        if out.last() == Some(&Output::Verify) {
            return;
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
        let Some(flight) = self.flights.get(reply_to) else {
            return self.stray(now, reply_to, body, out);
        };
        let fits = body == Body::Error || body == Body::Answer(flight.kind);
        self.measure(now, &flight, fits);
        self.flights.land(now, reply_to);
        if fits {
            self.shows_life(now);
        }
        self.ease(now, out);
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
            self.odd(now, Oddity::WrongType, out);
        }
    }

    fn registered(&mut self, now: Moment, registrant: Registrant, out: &mut Vec<Output>) {
        self.registrant = registrant;
        if registrant == Registrant::Lnd {
            out.push(Output::Complete);
        }
        self.phase = Phase::Proving;
        self.lives(now);
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
            if let Some(contest) = &mut self.contest {
                contest.challenge = Some(id);
            }
        }
    }

    fn verified(&mut self, now: Moment, right: bool, out: &mut Vec<Output>) {
        match (self.phase, right) {
            (Phase::Proving, true) => {
                self.phase = Phase::Contending;
                self.lives(now);
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
            self.lives(now);
            self.flights.restart(now);
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
            challenge: None,
            progress: false,
            acknowledged: false,
        });
        self.http_ping(now, out);
        self.send_challenge(now, Kind::Ecdh, out);
    }

    /// A challenge that was not needed is answered later, perhaps during the next contest: it is not to be taken for that one's.
    fn end_contest(&mut self, alive: bool, out: &mut Vec<Output>) {
        if let Some(contest) = self.contest.take() {
            if let Some(id) = contest.challenge {
                self.flights.orphan(id);
            }
            out.push(if alive { Output::Alive } else { Output::Dead });
        }
    }

    /// The time of a contest is over without an answer to its challenge. A signer that works its queue off lives; so does one that
    /// waits for a person and has acknowledged a PING: lnd's answers nothing else meanwhile.
    fn judge(&mut self, contest: Contest, out: &mut Vec<Output>) {
        let waits = contest.acknowledged && self.flights.is_at_a_pass();
        self.end_contest(contest.progress || waits, out);
    }

    fn acknowledged(&mut self, now: Moment) {
        self.lives(now);
        if let Some(contest) = &mut self.contest {
            contest.acknowledged = true;
        }
    }

    fn lives(&mut self, now: Moment) {
        self.dead_at = now.after(self.window);
        self.excused = false;
    }

    /// We are late ourselves, and what came meanwhile lies unread: it gets time to be read. Only once, so that a machine that is always late still finds out.
    fn excuse(&mut self, now: Moment) {
        if !std::mem::replace(&mut self.excused, true) {
            let grace = now.after(self.window / 3);
            self.dead_at = self.dead_at.max(grace);
            if let Some(contest) = &mut self.contest {
                contest.until = contest.until.max(grace);
            }
        }
    }

    fn shows_life(&mut self, now: Moment) {
        self.lives(now);
        self.last_answer = now;
        if let Some(contest) = &mut self.contest {
            contest.progress = true;
        }
    }

    /// The stall is over if what heads the queue now does not do so for too long.
    fn ease(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.stalled && self.flights.stalled_at().is_none_or(|at| now < at) {
            self.stalled = false;
            out.push(Output::Stalled(false));
        }
    }

    /// How long a person takes to sign says nothing of ECDH, nor does the time of an ECDH that waited behind him.
    fn measure(&mut self, now: Moment, flight: &Flight, fits: bool) {
        if fits && flight.kind.is_ecdh() && !self.flights.beside_a_pass(flight) {
            self.meter.answered(now, flight.sent, flight.ahead);
        } else {
            self.meter.heard(now);
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
        let share = waiting
            .saturating_add(self.flights.strangers())
            .saturating_mul(2);
        let full = waiting >= limits::SIGNER_QUEUE_STRANGERS || self.meter.is_behind(share);
        full.then_some(Throttle::Strangers)
    }

    fn cancel(&mut self, ticket: Ticket) {
        if !self.queue.remove(ticket) {
            self.flights.cancel(ticket);
        }
    }

    fn dispatch(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.phase != Phase::Live {
            return;
        }
        while self.flights.passes() < limits::SIGNING_IN_FLIGHT
            && let Some(next) = self.queue.pop_pass()
        {
            self.launch(now, next, out);
        }
        let cap = self.meter.cap();
        while self.flights.ecdh() < cap {
            let strangers_too = self.flights.strangers() < self.meter.strangers_cap();
            let Some(next) = self.queue.pop_ecdh(strangers_too) else {
                return;
            };
            self.launch(now, next, out);
        }
    }

    fn launch(&mut self, now: Moment, next: Queued, out: &mut Vec<Output>) {
        let what = What::For(next.ticket, next.deadline);
        let stranger = next.class == Class::Inbound;
        out.push(match self.take_off(now, what, next.kind, stranger) {
            Some(id) => Output::Send(id, next.ticket),
            None => Output::Failed(next.ticket, Failure::Away),
        });
    }

    /// Ids are never reused: `None` when all 2⁶⁴ are gone.
    fn take_off(&mut self, now: Moment, what: What, kind: Kind, stranger: bool) -> Option<u64> {
        let id = self.next_id;
        self.next_id = id.checked_add(1)?;
        self.flights.take_off(now, id, what, kind, stranger);
        Some(id)
    }

    /// An answer to nothing that is in flight.
    fn stray(&mut self, now: Moment, reply_to: u64, body: Body, out: &mut Vec<Output>) {
        if self.flights.take_abandoned(reply_to, body) {
            self.meter.heard(now);
            self.shows_life(now);
            self.ease(now, out);
            return out.push(Output::Odd(Oddity::Late));
        }
        let oddity = match body {
            Body::Nothing => Oddity::Empty,
            Body::Registration(_) => Oddity::WrongType,
            _ if reply_to >= self.next_id || reply_to == 0 => Oddity::Unknown,
            _ => Oddity::Repeated,
        };
        self.odd(now, oddity, out);
    }

    fn odd(&mut self, now: Moment, oddity: Oddity, out: &mut Vec<Output>) {
        out.push(Output::Odd(oddity));
        let forgiven = self.oddities.take(
            now,
            limits::SIGNER_ODDITIES_MAX,
            limits::SIGNER_ODDITY_INTERVAL,
        );
        if !forgiven {
            self.deny(End::Odd, out);
        }
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Registering if self.step_by <= now => self.deny(End::RegistrationLate, out),
            Phase::Proving if self.step_by <= now => self.deny(End::ProofLate, out),
            Phase::Registering | Phase::Proving | Phase::Ended => {}
            Phase::Contending | Phase::Live if self.dead_at <= now => {
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
        ping.min(self.dead_at)
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
            self.judge(contest, out);
        }
        while let Some(ticket) = self.queue.pop_expired(now) {
            out.push(Output::Failed(ticket, Failure::Late));
        }
        while let Some(ticket) = self.flights.pop_expired(now) {
            out.push(Output::Failed(ticket, Failure::Late));
        }
        if !self.stalled && self.flights.stalled_at().is_some_and(|at| at <= now) {
            self.stalled = true;
            out.push(Output::Stalled(true));
        }
        for ticket in self.flights.give_up(now) {
            out.push(Output::Failed(ticket, Failure::Late));
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
        self.last_answer
            .max(self.flights.head_since())
            .after(self.window)
    }

    fn end(&mut self, end: End, out: &mut Vec<Output>) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        self.contest = None;
        // The lapse first: who hears that his request failed must find its session over.
        out.push(Output::End(end));
        for ticket in self.queue.drain().into_iter().chain(self.flights.drain()) {
            out.push(Output::Failed(ticket, Failure::Away));
        }
        if std::mem::take(&mut self.stalled) {
            out.push(Output::Stalled(false));
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
