//! One link's machine through any conversation, with times: what it promises is checked after every event.

use super::feed::Feed;
use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::link::CloseReason;
use pilotlight::link::firewall::Outbound;
use pilotlight::link::machine::{Ambient, Due, LinkMachine, Received, Settings};
use pilotlight::wire::{BITCOIN_MAINNET, Features, Init, MessageType, Ping, Pong};
use std::collections::VecDeque;
use std::time::Duration;

/// Events in one run.
const MOST: usize = 400;

/// A feature that no BOLT has assigned, which the node understands if a fact says so.
const ALSO_KNOWN: u16 = 130;

struct Link {
    machine: LinkMachine,
    persona: bool,
    observes: bool,
    now: Moment,
    warned: VecDeque<Moment>,
    ponged: VecDeque<(Moment, u64)>,
    queried: VecDeque<(Moment, u64)>,
    /// The ping that the machine waits for an answer to, and when it was asked for.
    asked: Option<(u16, Moment)>,
    /// When what ages is due at the latest.
    ends: Option<Moment>,
    /// The peer has asked for gossip.
    filtered: bool,
}

/// A byte of facts, then ops: 0 a message of the input's, 1 `init`, 2 a ping for so many bytes, 3 the pong that is awaited, 4 another pong, 5 the
/// clock goes to the deadline, 6 it goes on, 7 a probe, 8 a last call, 9 reading resumes, 10 the node sends. Each has the signer there or not.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let facts = feed.u8();
    let fact = |bit: u8| facts >> bit & 1 == 1;
    let max_age = fact(4).then_some(Duration::from_secs(3600));
    let settings = Settings {
        persona: fact(0),
        queries_served: fact(1),
        custom_even_ok: fact(2),
        observe: fact(3),
        max_age,
    };
    let seed = u64::from(feed.u8());
    let machine = LinkMachine::new(settings, vec![BITCOIN_MAINNET], Moment::START, seed);
    let mut also = Features::empty();
    also.set(ALSO_KNOWN);
    let mut link = Link {
        machine: if fact(5) {
            machine.knowing(&also)
        } else {
            machine
        },
        persona: settings.persona,
        observes: settings.observe,
        now: Moment::START,
        warned: VecDeque::new(),
        ponged: VecDeque::new(),
        queried: VecDeque::new(),
        asked: None,
        ends: max_age.map(|age| Moment::START.after(age)),
        filtered: false,
    };
    for _ in 0..MOST {
        if feed.is_empty() || link.step(&mut feed) {
            return;
        }
    }
}

impl Link {
    /// One event. `true`: the link is closed.
    fn step(&mut self, feed: &mut Feed<'_>) -> bool {
        let (op, away) = (feed.below(11), feed.flag());
        match op {
            0 => self.receive(away, feed.bytes()),
            1 => self.receive(away, &Init::gossip(vec![BITCOIN_MAINNET]).encode()),
            2 => {
                let (num_pong_bytes, ignored) = (feed.u16(), u16::from(feed.u8()));
                let ping = Ping {
                    num_pong_bytes,
                    ignored,
                };
                self.receive(away, &ping.encode())
            }
            3 => {
                let ignored = self.asked.map_or(0, |(bytes, _)| bytes);
                self.receive(away, &Pong { ignored }.encode())
            }
            4 => self.receive(
                away,
                &Pong {
                    ignored: feed.u16(),
                }
                .encode(),
            ),
            5 => {
                self.now = self.now.max(self.machine.deadline());
                self.expire(away)
            }
            6 => {
                let millis = u64::from(feed.u16());
                self.now = self.now.after(Duration::from_millis(millis));
                self.expire(away)
            }
            7 => {
                let due = self.machine.probe(self.now);
                self.due(due)
            }
            8 => {
                let due = self.machine.last_call(self.now);
                self.due(due)
            }
            9 => {
                self.machine.resume(self.now);
                false
            }
            _ => self.send(away, feed.bytes()),
        }
    }

    fn receive(&mut self, signer_away: bool, message: &[u8]) -> bool {
        let was_up = self.machine.is_up();
        let ambient = Ambient {
            now: self.now,
            signer_away,
        };
        let would = self.machine.would(ambient, message);
        let received = self.machine.receive(ambient, message);
        let kind = MessageType::of(message).map_or(0, |kind| kind.0);
        assert_eq!(self.machine.heard(), self.now);
        match &received {
            Received::Up(_) => assert!(!was_up && self.machine.is_up() && kind == 16),
            Received::Close { .. } => {}
            _ => assert!(was_up, "before init nothing is delivered or answered"),
        }
        let is_delivered = matches!(received, Received::Deliver { .. });
        match received {
            // Whoever only observes says what it would have done, and else there is nothing to say.
            Received::Deliver { .. } if would.is_some() => {
                assert!(self.observes, "{kind}: {would:?}");
            }
            Received::Deliver { lease: true } => {
                assert!(!signer_away && !self.persona, "{kind} needs the signer");
            }
            Received::Pong { bytes } => self.pong(kind, bytes),
            Received::PongArrived { rtt } => {
                let (_, since) = self.asked.take().expect("an answer to nothing");
                assert!(kind == 19 && rtt == self.now.since(since));
            }
            Received::Answer(ref answer) => {
                let answer = MessageType::of(answer).unwrap().0;
                assert!(matches!((kind, answer), (261, 262) | (263, 264)));
            }
            _ => {}
        }
        if was_up && !matches!(received, Received::Close { .. }) {
            self.query(kind);
        }
        self.filtered |= kind == 265 && is_delivered;
        assert_eq!(self.machine.filter_received(), self.filtered);
        if let Received::Refused { warning, .. } | Received::Close { warning, .. } = &received {
            self.says(warning.as_deref());
        }
        matches!(received, Received::Close { .. })
    }

    /// P9: what one peer's pings may cost.
    fn pong(&mut self, kind: u16, bytes: u16) {
        assert!(kind == 18 && bytes < 65_532);
        let cost = u64::from(bytes) + u64::from(limits::PONG_OVERHEAD);
        self.ponged.push_back((self.now, cost));
        let (burst, rate) = (limits::PONG_BURST, limits::PONG_BYTES_A_SECOND);
        self.bounded(&self.ponged, burst, rate, "pongs beyond the bound");
    }

    /// P9: what one peer's gossip queries may cost, whoever answers them.
    fn query(&mut self, kind: u16) {
        let cost = match kind {
            261 => 1,
            263 | 265 => u64::from(limits::QUERY_OF_ALL),
            _ => return,
        };
        self.queried.push_back((self.now, cost));
        let (burst, rate) = (limits::QUERY_BURST, limits::QUERIES_A_SECOND);
        self.bounded(&self.queried, burst, rate, "queries beyond the bound");
    }

    /// Never more than a burst and what has been earned since, from whenever it is counted.
    fn bounded(&self, spent: &VecDeque<(Moment, u64)>, burst: u32, rate: u32, what: &str) {
        for (index, (since, _)) in spent.iter().enumerate() {
            let sum: u64 = spent.iter().skip(index).map(|(_, cost)| cost).sum();
            let millis = u64::try_from(self.now.since(*since).as_millis()).unwrap();
            let earned = millis * u64::from(rate) / 1000 + 1;
            assert!(sum <= earned + u64::from(burst), "{what}");
        }
    }

    /// P4: a warning or nothing; a burst of them, and then one a second.
    fn says(&mut self, warning: Option<&[u8]>) {
        let Some(warning) = warning else { return };
        assert_eq!(MessageType::of(warning), Ok(MessageType::WARNING));
        self.warned.push_back(self.now);
        for (index, since) in self.warned.iter().enumerate() {
            let many = u64::try_from(self.warned.len() - index).unwrap();
            let seconds = self.now.since(*since).as_secs();
            assert!(
                many <= seconds + u64::from(limits::WARNING_BURST),
                "too many warnings"
            );
        }
    }

    fn expire(&mut self, signer_away: bool) -> bool {
        let due = self.machine.expire(self.now);
        if self.due(due) {
            return true;
        }
        let ambient = Ambient {
            now: self.now,
            signer_away,
        };
        let old = self.machine.age(ambient);
        if let Some(end) = self.ends {
            assert!(
                old.is_some() || self.now < end,
                "secrets older than they may become"
            );
        }
        assert!(old.is_none_or(|reason| reason == CloseReason::SessionAge));
        assert!(
            old.is_some() || self.machine.deadline() > self.now,
            "what was due is done"
        );
        old.is_some()
    }

    fn due(&mut self, due: Due) -> bool {
        match due {
            Due::Nothing => false,
            Due::Ping { pong_bytes } => {
                assert!(self.machine.is_up() || pong_bytes < 65_532);
                let fresh = self.asked.is_none_or(|(bytes, _)| bytes != pong_bytes);
                assert!(fresh, "the pong of the last ping would answer this one");
                self.asked = Some((pong_bytes, self.now));
                false
            }
            Due::Close(reason) => {
                let expected = if self.machine.is_up() {
                    CloseReason::PongTimeout
                } else {
                    CloseReason::InitTimeout
                };
                assert_eq!(reason, expected);
                true
            }
        }
    }

    fn send(&mut self, signer_away: bool, message: &[u8]) -> bool {
        let ambient = Ambient {
            now: self.now,
            signer_away,
        };
        let verdict = self.machine.send(ambient, message);
        let kind = MessageType::of(message).map_or(0, |kind| kind.0);
        if signer_away || self.persona {
            let barred = kind == 17 || kind == 136 || kind == 32 || kind == 64;
            assert!(!barred || matches!(verdict, Outbound::Refuse(_)));
            assert_ne!(verdict, Outbound::PassWithLease);
        }
        assert!(self.machine.is_up() || kind == 16 || matches!(verdict, Outbound::Refuse(_)));
        let passes = !matches!(verdict, Outbound::Refuse(_));
        assert!(!passes || self.observes || !self.machine.would_refuse(ambient, message));
        false
    }
}
