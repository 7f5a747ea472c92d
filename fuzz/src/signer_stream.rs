//! The gateway's machine of one stream against a signer that says anything in any order at any time, and a node that asks for much.
//!
//! The driver's part is played as the driver plays it: an answer to a challenge is verified at once, a proved stream is seated or not.

use super::at_the_door;
use super::feed::Feed;
use super::firewall::is_a_label;
use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::signer::gateway::machine::{
    Body, Class, Failure, Input, Kind, Output, Phase, Registrant, StreamMachine, Ticket,
};
use pilotlight::signer::gateway::read_message;
use std::collections::BTreeMap;
use std::time::Duration;

/// Events in one run.
const MOST: usize = 500;

/// What the node asked for and has not been told of.
struct Asked {
    kind: Kind,
    deadline: Moment,
    /// The id that it was sent under, and when.
    sent: Option<(u64, Moment)>,
}

impl Asked {
    /// When it is given up, deadline or not: it holds a place.
    fn given_up(&self) -> Option<Moment> {
        let longest = match self.kind {
            Kind::Pass(_) => limits::SIGNING_ABANDON_AFTER,
            Kind::Ecdh | Kind::Proof | Kind::Ping => limits::SIGNER_ABANDON_AFTER,
        };
        self.sent.map(|(_, at)| at.after(longest))
    }

    /// By when whoever asked has been told.
    fn told_by(&self) -> Moment {
        self.given_up().unwrap_or(self.deadline).min(self.deadline)
    }
}

struct Stream {
    machine: StreamMachine,
    now: Moment,
    asked: BTreeMap<Ticket, Asked>,
    next_ticket: u64,
    /// The greatest id that went out, and what was asked with it last.
    last_id: u64,
    registrant: Option<Registrant>,
    completed: bool,
    proved: bool,
}

/// A window, then ops: 0 an answer to one of the last ids, 1 to any id, 2 a registration, 3 the node asks, 4 it asks a lot, 5 it takes back, 6 a
/// PING is acknowledged, 7 a contest, 8 the deadline comes, 9 time passes, 10 the end, of one kind or
/// another, 11 a message as it is encoded, 12 what stands at the door.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let window = Duration::from_millis(u64::from(feed.u16()));
    let mut stream = Stream {
        machine: StreamMachine::new(Moment::START, window),
        now: Moment::START,
        asked: BTreeMap::new(),
        next_ticket: 0,
        last_id: 1,
        registrant: None,
        completed: false,
        proved: false,
    };
    for _ in 0..MOST {
        if feed.is_empty() {
            break;
        }
        stream.op(&mut feed);
        stream.punctual();
    }
    stream.step(&mut feed, Input::Closed);
    assert_eq!(stream.machine.phase(), Phase::Ended);
    assert!(stream.asked.is_empty(), "a request that nobody was told of");
}

fn kind(feed: &mut Feed<'_>) -> Kind {
    match feed.below(4) {
        0 => Kind::Ecdh,
        1 => Kind::Proof,
        2 => Kind::Ping,
        _ => Kind::Pass(u32::from(feed.u8())),
    }
}

fn body(feed: &mut Feed<'_>) -> Body {
    match feed.below(5) {
        0 => Body::Nothing,
        1 => Body::Error,
        2 => Body::Registration(registrant(feed)),
        _ => Body::Answer(kind(feed)),
    }
}

fn registrant(feed: &mut Feed<'_>) -> Registrant {
    if feed.flag() {
        Registrant::Agent
    } else {
        Registrant::Lnd
    }
}

impl Stream {
    fn op(&mut self, feed: &mut Feed<'_>) {
        match feed.below(13) {
            0 => {
                let back = u64::from(feed.u8());
                let reply_to = self.last_id.saturating_sub(back);
                let body = body(feed);
                self.step(feed, Input::Received { reply_to, body });
            }
            1 => {
                let (reply_to, body) = (feed.u64(), body(feed));
                self.step(feed, Input::Received { reply_to, body });
            }
            2 => {
                let registrant = registrant(feed);
                let body = Body::Registration(registrant);
                self.step(feed, Input::Received { reply_to: 1, body });
            }
            3 => self.submit(feed, 1),
            4 => {
                let many = 1 + u16::from(feed.u8()) * 4;
                self.submit(feed, many);
            }
            5 => {
                let ticket = Ticket(self.next_ticket.saturating_sub(u64::from(feed.u8())));
                // Whoever takes it back is told nothing any more.
                self.asked.remove(&ticket);
                self.step(feed, Input::Cancel(ticket));
            }
            6 => self.step(feed, Input::PingAcked),
            7 => self.step(feed, Input::Contest),
            8 => {
                self.now = self
                    .now
                    .max(self.machine.next_deadline().unwrap_or(self.now));
                self.step(feed, Input::Tick);
            }
            9 => {
                self.now = self.now.after(Duration::from_millis(u64::from(feed.u16())));
                self.step(feed, Input::Tick);
            }
            11 => {
                let registrant = self.registrant.unwrap_or(Registrant::Agent);
                if let Some((reply_to, body)) = read_message(feed.bytes(), registrant)
                    && !matches!(body, Body::Registration(_))
                {
                    self.step(feed, Input::Received { reply_to, body });
                }
            }
            12 => at_the_door::knock(&mut Feed::new(feed.bytes())),
            _ => {
                let end = match feed.below(16) {
                    0 => Input::Closed,
                    1 => Input::Clogged,
                    2 => Input::Lapsed,
                    3 => Input::Bar,
                    _ => Input::Tick,
                };
                self.step(feed, end);
            }
        }
    }

    fn submit(&mut self, feed: &mut Feed<'_>, many: u16) {
        let kind = match feed.below(4) {
            3 => Kind::Pass(7),
            _ => Kind::Ecdh,
        };
        let class = match kind {
            Kind::Pass(_) => Class::Node,
            _ => [Class::ChannelDial, Class::GossipDial, Class::Inbound][feed.below(3)],
        };
        let wait = Duration::from_millis(u64::from(feed.u16()));
        for _ in 0..many {
            self.next_ticket += 1;
            let ticket = Ticket(self.next_ticket);
            let deadline = self.now.after(wait);
            let asked = Asked {
                kind,
                deadline,
                sent: None,
            };
            self.asked.insert(ticket, asked);
            let submit = Input::Submit {
                ticket,
                kind,
                class,
                deadline,
            };
            self.step(feed, submit);
        }
    }

    fn step(&mut self, feed: &mut Feed<'_>, input: Input) {
        let (mut out, before) = (Vec::new(), self.machine.phase());
        if let Input::Received {
            reply_to: 1,
            body: Body::Registration(registrant),
        } = input
            && before == Phase::Registering
        {
            self.registrant = Some(registrant);
        }
        self.machine.step(self.now, input, &mut out);
        let mut next = None;
        for output in &out {
            match *output {
                Output::Verify => next = Some(Input::Verified(feed.u8() % 8 < 7)),
                Output::Contend => {
                    assert!(self.proved, "who has proved nothing contends for the seat");
                    let seated = feed.u8() % 8 < 7;
                    next = Some(if seated {
                        Input::Seated
                    } else {
                        Input::Refused
                    });
                }
                ref other => self.obey(before, input, other),
            }
        }
        self.check(before);
        if let Some(next) = next {
            self.proved |= next == Input::Verified(true);
            self.step(feed, next);
        }
    }

    /// Nobody waits longer than he wanted, nor longer than a place is held.
    fn punctual(&self) {
        let overdue = |asked: &&Asked| asked.told_by() <= self.now;
        assert_eq!(self.asked.values().filter(overdue).count(), 0, "overdue");
    }

    fn obey(&mut self, before: Phase, input: Input, output: &Output) {
        match *output {
            Output::Send(id, ticket) => {
                assert!(
                    self.completed,
                    "asked before the registration was completed"
                );
                self.fresh(id);
                let asked = self
                    .asked
                    .get_mut(&ticket)
                    .expect("sent, and nobody waits for it");
                assert!(asked.sent.replace((id, self.now)).is_none(), "sent twice");
            }
            Output::SendChallenge(id, _) | Output::SendPing(id) => self.fresh(id),
            Output::Complete => {
                assert!(!self.completed, "completed twice");
                self.completed = true;
                assert!(self.registrant == Some(Registrant::Lnd) || self.proved);
            }
            Output::Answered(ticket) => self.answered(input, ticket),
            Output::Failed(ticket, failure) => {
                let asked = self.asked.remove(&ticket).expect("told twice, or unasked");
                assert!(
                    failure != Failure::Late || asked.told_by() <= self.now,
                    "late before its time"
                );
            }
            Output::End(end) => {
                assert_ne!(before, Phase::Ended, "ended twice");
                is_a_label(end.as_str());
            }
            Output::Odd(oddity) => is_a_label(oddity.as_str()),
            _ => assert_ne!(before, Phase::Ended, "something after the end"),
        }
    }

    /// P6: an answer is used by who asked for it, once, in its time.
    fn answered(&mut self, input: Input, ticket: Ticket) {
        let asked = self
            .asked
            .remove(&ticket)
            .expect("answered twice, or unasked");
        let Input::Received { reply_to, body } = input else {
            panic!("an answer that nobody gave");
        };
        let sent = asked.sent.map(|(id, _)| id);
        assert_eq!(sent, Some(reply_to), "another's answer");
        assert!(body == Body::Error || body == Body::Answer(asked.kind));
    }

    fn fresh(&mut self, id: u64) {
        assert!(id > self.last_id, "an id is used twice");
        self.last_id = id;
    }

    /// P9, and what a tick must have done.
    fn check(&self, before: Phase) {
        let machine = &self.machine;
        let ended = machine.phase() == Phase::Ended;
        assert_eq!(machine.next_deadline().is_none(), ended);
        assert!(before != Phase::Ended || ended, "it came back");
        assert!(machine.queued() <= limits::SIGNER_QUEUE);
        let in_flight = limits::ECDH_IN_FLIGHT_MAX + limits::SIGNING_IN_FLIGHT + 4;
        assert!(machine.in_flight() <= in_flight);
        assert!(machine.meter().cap() <= limits::ECDH_IN_FLIGHT_MAX);
        assert!(machine.queued() + machine.in_flight() > 0 || !machine.is_behind());
        if machine.phase() == Phase::Live {
            assert!(self.proved, "live without a proof");
        }
        if ended {
            assert!(self.asked.is_empty(), "ended, and a request is not told of");
        }
    }
}
