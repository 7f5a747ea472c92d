//! Attach, lapse and take-over: the seat and the machines of up to three streams, as the gateway's drivers join them, through every order
//! of what signers say, of what drivers find in their mail, and of time.
//!
//! What a driver does with an output is `signer/gateway/stream.rs` in short. The signer's context is a counter here that refuses what
//! the real one refuses; the real one is under loom (`src/signer/context_loom.rs`).
//!
//! From every state that is met, three futures are followed: all signers do what they should, and one of them is the signer; all fall
//! silent, and nothing of them is left; an operator's lapse, after which the same two hold.

use super::canon::canonical;
use super::search::Model;
use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::signer::gateway::machine::{
    Body, Class, End, Failure, Input, Kind, Output, Phase, Registrant, StreamMachine, Ticket,
};
use pilotlight::signer::gateway::seat::{MacaroonId, Seat, StreamId, Verdict};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Streams in one history; each has the macaroon of its turn.
const MACAROONS: [MacaroonId; 3] = [[1; 32], [2; 32], [1; 32]];
const REGISTRANTS: [Registrant; 3] = [Registrant::Lnd, Registrant::Agent, Registrant::Lnd];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Attach,
    Contest,
    Refuse,
}

#[derive(Debug, Clone)]
struct Stream {
    machine: StreamMachine,
    mail: VecDeque<Control>,
    /// What its signer owes an answer to.
    owed: BTreeMap<u64, Kind>,
    asked: BTreeMap<Ticket, u64>,
    /// The newest epoch when its challenge was made.
    challenged_after: u64,
    /// A proof, and the newest epoch when it was asked for.
    proof: Option<u64>,
    session: Option<u64>,
    has_been_live: bool,
    /// Since the contest began, its signer has done nothing that it should not.
    met: Option<Met>,
    /// Its machine has ended; its driver has not been dropped yet.
    ended: bool,
}

/// What an incumbent has done since it was contested.
#[derive(Debug, Clone, Copy)]
struct Met {
    since: Moment,
    proved: bool,
    failed: bool,
}

#[derive(Debug, Clone)]
pub struct Gateway {
    now: Moment,
    seat: Seat,
    streams: BTreeMap<StreamId, Stream>,
    opened: usize,
    next_ticket: u64,
    /// Sessions begun, and whose the live one is.
    newest: u64,
    live: Option<(u64, StreamId)>,
    take_overs: Vec<(Moment, MacaroonId)>,
}

#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A signer dials in, with a macaroon.
    Dial,
    Register(StreamId),
    /// It answers the oldest or the newest thing that it owes; an ECDH rightly or wrongly.
    Answer {
        stream: StreamId,
        oldest: bool,
        right: bool,
    },
    Error(StreamId),
    Acknowledge(StreamId),
    Close(StreamId),
    /// A driver reads its mail.
    Mail(StreamId),
    /// A driver hears that its session is over.
    Hear(StreamId),
    /// A driver that is at its end is dropped.
    Drop(StreamId),
    /// The node asks for an ECDH.
    Ask,
    /// An operator ends the session.
    Lapse,
    /// Time passes until something is due.
    Due,
}

impl Gateway {
    pub fn new() -> Self {
        Self {
            now: Moment::START,
            seat: Seat::new(),
            streams: BTreeMap::new(),
            opened: 0,
            next_ticket: 0,
            newest: 0,
            live: None,
            take_overs: Vec::new(),
        }
    }

    /// The same, and later: the first to dial in is the signer.
    pub fn held() -> Self {
        let mut gateway = Self::new();
        gateway.dial();
        while let Some(step) = gateway.drivers_step().or_else(|| gateway.signers_step()) {
            gateway.take(&step);
        }
        assert_eq!(gateway.live, Some((1, StreamId(0))));
        gateway
    }

    fn dial(&mut self) {
        let stream = Stream {
            machine: StreamMachine::new(self.now, limits::LIVENESS_WINDOW),
            mail: VecDeque::new(),
            owed: BTreeMap::new(),
            asked: BTreeMap::new(),
            challenged_after: 0,
            proof: None,
            session: None,
            has_been_live: false,
            met: None,
            ended: false,
        };
        self.streams.insert(StreamId(self.opened as u64), stream);
        self.opened += 1;
    }

    fn stream(&mut self, id: StreamId) -> &mut Stream {
        self.streams.get_mut(&id).unwrap()
    }

    fn macaroon(id: StreamId) -> MacaroonId {
        MACAROONS[usize::try_from(id.0).unwrap()]
    }

    /// One input to a stream's machine, and all that follows from it.
    fn feed(&mut self, id: StreamId, input: Input, right: bool) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let now = self.now;
            let stream = self.stream(id);
            if stream.ended {
                return;
            }
            let mut out = Vec::new();
            stream.machine.step(now, input, &mut out);
            for output in out {
                if let Some(follows) = self.perform(id, output, right) {
                    next = Some(follows);
                }
            }
        }
    }

    fn perform(&mut self, id: StreamId, output: Output, right: bool) -> Option<Input> {
        let (now, newest) = (self.now, self.newest);
        let stream = self.stream(id);
        match output {
            Output::SendChallenge(number, kind) => {
                stream.challenged_after = newest;
                stream.owed.insert(number, kind);
            }
            Output::SendPing(number) => {
                stream.owed.insert(number, Kind::Ping);
            }
            Output::Send(number, ticket) => {
                assert!(stream.session.is_some(), "asked without a session");
                stream.owed.insert(number, Kind::Ecdh);
                let epoch = stream.session.unwrap();
                stream.asked.insert(ticket, epoch);
            }
            Output::Verify => {
                if let Some(met) = &mut stream.met {
                    met.proved |= right;
                    met.failed |= !right;
                }
                if right && stream.session.is_none() {
                    stream.proof = Some(stream.challenged_after);
                }
                return Some(Input::Verified(right));
            }
            Output::Contend => {
                assert!(stream.proof.is_some(), "it contends without a proof");
                let verdict = self.seat.contend(now, id, Self::macaroon(id));
                self.tell(verdict);
            }
            Output::Answered(ticket) => {
                let epoch = stream.asked.remove(&ticket).expect("answered twice");
                assert_eq!(stream.session, Some(epoch), "an answer of another session");
            }
            Output::Failed(ticket, failure) => {
                let asked = stream.asked.remove(&ticket).is_some();
                // Who hears that the signer is away finds its session over.
                let over = stream.session.is_none();
                assert!(failure != Failure::Away || !asked || over, "away too early");
            }
            Output::Alive => {
                stream.met = None;
                let verdict = self.seat.alive(id);
                if let Some(verdict) = verdict {
                    self.tell(verdict);
                }
            }
            Output::Dead => return self.dead(id),
            Output::End(end) => self.finish(id, end),
            _ => {}
        }
        None
    }

    /// The incumbent has lost the contest by its own account.
    fn dead(&mut self, id: StreamId) -> Option<Input> {
        let now = self.now;
        let met = self.stream(id).met.take().expect("a contest");
        let in_time = now < met.since.after(limits::CONTEST_DEADLINE);
        assert!(met.failed || !in_time, "a contest is lost before its time");
        assert!(
            !met.proved || met.failed,
            "who has answered rightly is taken for dead"
        );
        let newcomer = self.seat.dead(now, id)?;
        self.lapse(id);
        let macaroon = Self::macaroon(newcomer);
        let since = now.since_start().saturating_sub(limits::TAKE_OVER_INTERVAL);
        let lately = |(at, of): &&(Moment, MacaroonId)| *of == macaroon && at.since_start() > since;
        assert_eq!(
            self.take_overs.iter().filter(lately).count(),
            0,
            "it takes over too often"
        );
        self.take_overs.push((now, macaroon));
        self.tell(Verdict::Attach(newcomer));
        Some(Input::Lapsed)
    }

    fn finish(&mut self, id: StreamId, _: End) {
        self.lapse(id);
        self.stream(id).ended = true;
    }

    /// A stream's session is over, if it has one.
    fn lapse(&mut self, id: StreamId) {
        if let Some(epoch) = self.stream(id).session.take() {
            self.live.take_if(|(live, _)| *live == epoch);
        }
    }

    fn tell(&mut self, verdict: Verdict) {
        let (id, control) = match verdict {
            Verdict::Attach(id) => (id, Control::Attach),
            Verdict::Challenge(id) => (id, Control::Contest),
            Verdict::Refuse(id, _) => (id, Control::Refuse),
        };
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.mail.push_back(control);
            assert!(
                stream.mail.len() <= 4,
                "a driver is told more than it has room for"
            );
        }
    }

    fn mail(&mut self, id: StreamId) {
        let (now, stream) = (self.now, self.stream(id));
        match stream.mail.pop_front().unwrap() {
            Control::Attach => self.attach(id),
            Control::Contest => {
                let is_new = stream.machine.phase() == Phase::Live && stream.met.is_none();
                if is_new {
                    stream.met = Some(Met {
                        since: now,
                        proved: false,
                        failed: false,
                    });
                }
                self.feed(id, Input::Contest, true);
            }
            Control::Refuse => self.feed(id, Input::Refused, true),
        }
    }

    /// As `SignerContext::attach` does it: one session at a time, and a proof is of the time since the newest.
    fn attach(&mut self, id: StreamId) {
        let (newest, live) = (self.newest, self.live);
        let Some(after) = self.stream(id).proof.take() else {
            return;
        };
        assert_eq!(self.seat.holder(), Some(id), "attached without the seat");
        assert_eq!(live, None, "two signers at once");
        if after != newest {
            return self.feed(id, Input::Refused, true);
        }
        self.newest += 1;
        self.live = Some((self.newest, id));
        let epoch = self.newest;
        let stream = self.stream(id);
        assert!(!stream.has_been_live, "a stream is the signer twice");
        (stream.session, stream.has_been_live) = (Some(epoch), true);
        self.feed(id, Input::Seated, true);
    }

    fn answer(&mut self, id: StreamId, oldest: bool, right: bool, error: bool) {
        let stream = self.stream(id);
        let owed = if oldest {
            stream.owed.pop_first()
        } else {
            stream.owed.pop_last()
        };
        let (reply_to, kind) = owed.unwrap();
        let body = if error {
            Body::Error
        } else {
            Body::Answer(kind)
        };
        let is_challenge = error && kind != Kind::Ping;
        if let Some(met) = stream.met.as_mut().filter(|_| is_challenge) {
            met.failed = true;
        }
        self.feed(id, Input::Received { reply_to, body }, right);
    }

    fn due(&self) -> Option<Moment> {
        let deadlines = self.streams.values().filter(|stream| !stream.ended);
        deadlines
            .filter_map(|stream| stream.machine.next_deadline())
            .min()
    }

    fn pass_to(&mut self, due: Moment) {
        self.now = self.now.max(due);
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            self.feed(id, Input::Tick, true);
            let stream = &self.streams[&id];
            let next = stream.machine.next_deadline();
            assert!(next.is_none_or(|at| at > self.now), "what was due is done");
        }
    }

    fn drop_driver(&mut self, id: StreamId) {
        self.lapse(id);
        self.streams.remove(&id);
        let verdict = self.seat.left(id);
        if let Some(verdict) = verdict {
            self.tell(verdict);
        }
    }

    fn ask(&mut self) {
        let Some((_, id)) = self.live else {
            return;
        };
        self.next_ticket += 1;
        let submit = Input::Submit {
            ticket: Ticket(self.next_ticket),
            kind: Kind::Ecdh,
            class: Class::ChannelDial,
            deadline: self.now.after(limits::ACT_DEADLINE),
        };
        self.feed(id, submit, true);
    }

    fn hears_late(&self, stream: &Stream) -> bool {
        stream.session.is_some() && stream.session != self.live.map(|(epoch, _)| epoch)
    }

    fn operator(&mut self) {
        self.live = None;
    }

    /// Drivers run whenever they can.
    fn drivers_step(&self) -> Option<Step> {
        self.streams.iter().find_map(|(id, stream)| {
            if stream.ended {
                Some(Step::Drop(*id))
            } else if self.hears_late(stream) {
                Some(Step::Hear(*id))
            } else {
                (!stream.mail.is_empty()).then_some(Step::Mail(*id))
            }
        })
    }

    /// What a signer that does what it should does next.
    fn signers_step(&self) -> Option<Step> {
        self.streams.iter().find_map(|(id, stream)| {
            let id = *id;
            if stream.machine.phase() == Phase::Registering {
                return Some(Step::Register(id));
            }
            let (oldest, right) = (true, true);
            let answer = Step::Answer {
                stream: id,
                oldest,
                right,
            };
            (!stream.owed.is_empty()).then_some(answer)
        })
    }

    /// Everybody does what he should, for a while. One is the signer then, if any is there.
    fn all_is_well(&mut self) {
        let until = self.now.after(Duration::from_secs(20));
        while self.now < until {
            if let Some(step) = self.drivers_step().or_else(|| self.signers_step()) {
                self.take(&step);
            } else if let Some(due) = self.due() {
                self.pass_to(due);
                let ids: Vec<StreamId> = self.streams.keys().copied().collect();
                for id in ids {
                    self.feed(id, Input::PingAcked, true);
                }
            } else {
                break;
            }
        }
        let left: Vec<Phase> = self
            .streams
            .values()
            .map(|stream| stream.machine.phase())
            .collect();
        assert!(
            left.iter().all(|phase| *phase == Phase::Live),
            "undecided: {left:?}"
        );
        assert!(left.len() <= 1, "two are the signer");
        assert_eq!(
            self.live.map(|(_, id)| id),
            self.streams.keys().next().copied()
        );
        assert_eq!(self.seat.holder(), self.streams.keys().next().copied());
    }

    /// Nobody says anything any more.
    fn all_is_silent(&mut self) {
        let until = self.now.after(Duration::from_secs(20));
        while self.now < until {
            if let Some(step) = self.drivers_step() {
                self.take(&step);
            } else if let Some(due) = self.due() {
                self.pass_to(due);
            } else {
                break;
            }
        }
        assert!(self.streams.is_empty(), "a silent stream stays");
        assert_eq!((self.live, self.seat.holder()), (None, None));
    }

    fn check(&self) {
        let sessions = self
            .streams
            .values()
            .filter(|stream| !self.hears_late(stream));
        assert!(sessions.filter(|stream| stream.session.is_some()).count() <= 1);
        for (id, stream) in &self.streams {
            let live = stream.machine.phase() == Phase::Live;
            assert_eq!(
                live,
                stream.session.is_some(),
                "live without a session, or not live with one"
            );
            assert!(
                !live || self.seat.holder() == Some(*id),
                "live without the seat"
            );
            assert_eq!(stream.ended, stream.machine.phase() == Phase::Ended);
        }
        if let Some((epoch, id)) = self.live {
            assert_eq!(
                self.streams[&id].session,
                Some(epoch),
                "a session that nobody holds"
            );
        }
    }
}

impl Model for Gateway {
    type Step = Step;

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.opened < MACAROONS.len() {
            steps.push(Step::Dial);
        }
        for (id, stream) in &self.streams {
            let stream_id = *id;
            if stream.ended {
                steps.push(Step::Drop(stream_id));
                continue;
            }
            if stream.machine.phase() == Phase::Registering {
                steps.push(Step::Register(stream_id));
            }
            if !stream.owed.is_empty() {
                for right in [true, false] {
                    let answer = |oldest| Step::Answer {
                        stream: stream_id,
                        oldest,
                        right,
                    };
                    steps.push(answer(true));
                    if stream.owed.len() > 1 {
                        steps.push(answer(false));
                    }
                }
                steps.push(Step::Error(stream_id));
            }
            if !stream.mail.is_empty() {
                steps.push(Step::Mail(stream_id));
            }
            if self.hears_late(stream) {
                steps.push(Step::Hear(stream_id));
            }
            steps.push(Step::Acknowledge(stream_id));
            steps.push(Step::Close(stream_id));
        }
        if self.live.is_some() {
            steps.extend([Step::Ask, Step::Lapse]);
        }
        if self.due().is_some() {
            steps.push(Step::Due);
        }
        steps
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Dial => self.dial(),
            Step::Register(id) => {
                let registrant = REGISTRANTS[usize::try_from(id.0).unwrap()];
                let body = Body::Registration(registrant);
                self.feed(id, Input::Received { reply_to: 1, body }, true);
            }
            Step::Answer {
                stream,
                oldest,
                right,
            } => self.answer(stream, oldest, right, false),
            Step::Error(id) => self.answer(id, true, false, true),
            Step::Acknowledge(id) => self.feed(id, Input::PingAcked, true),
            Step::Close(id) => self.feed(id, Input::Closed, true),
            Step::Mail(id) => self.mail(id),
            Step::Hear(id) => self.feed(id, Input::Lapsed, true),
            Step::Drop(id) => self.drop_driver(id),
            Step::Ask => self.ask(),
            Step::Lapse => self.operator(),
            Step::Due => self.pass_to(self.due().unwrap()),
        }
        self.check();
    }

    fn canonical(&self) -> String {
        canonical(&format!("{self:?}"), self.now.since_start(), &["now"])
    }

    fn look_ahead(&self) {
        for lapses in [false, true] {
            let mut state = self.clone();
            if lapses {
                state.operator();
            }
            state.clone().all_is_well();
            state.all_is_silent();
        }
    }
}
