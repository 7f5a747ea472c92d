//! An incumbent that is challenged while it is slow, answers in another order, or waits for a person.

use std::collections::BTreeMap;

use super::*;

#[test]
fn the_challenge_of_a_contest_that_is_over_is_not_taken_for_the_next_ones() {
    let mut bench = Bench::live();
    for ticket in 0..4 {
        bench.submit(ticket, Class::ChannelDial);
    }
    // A second each, in order: the contest is won by work done.
    assert_eq!(
        bench.step(Input::Contest),
        [Output::SendChallenge(7, Kind::Ecdh)]
    );
    bench.pass(1000);
    bench.answer(3);
    assert_eq!(bench.pass(1000), [Output::Alive]);
    bench.answer(4);
    assert_eq!(
        bench.step(Input::Contest),
        [Output::SendChallenge(8, Kind::Ecdh)]
    );
    bench.answer(5);
    bench.answer(6);
    assert_eq!(
        bench.answer(7),
        [Output::Odd(Oddity::Late)],
        "the first challenge's: nothing to verify"
    );
    assert_eq!(bench.answer(8), [Output::Verify]);
    assert_eq!(bench.step(Input::Verified(true)), [Output::Alive]);
}

#[test]
fn a_standstill_of_our_own_in_a_contest_costs_the_incumbent_nothing() {
    let mut bench = Bench::live();
    bench.step(Input::Contest);
    bench.now += 4000;
    // The answer lies unread; what was read first must not end the contest.
    assert_eq!(bench.step(Input::PingAcked), []);
    assert_eq!(bench.answer(3), [Output::Verify]);
    assert_eq!(bench.step(Input::Verified(true)), [Output::Alive]);

    let mut half_open = Bench::live();
    half_open.step(Input::Contest);
    half_open.now += 4000;
    half_open.step(Input::Tick);
    half_open.now += 999;
    assert_eq!(half_open.step(Input::Tick), []);
    half_open.now += 1;
    half_open.step(Input::Tick);
    assert_eq!(half_open.machine.phase(), Phase::Ended);
}

#[test]
fn the_right_answer_to_a_challenge_counts_even_if_its_verdict_comes_when_the_time_is_over() {
    for right in [true, false] {
        let mut bench = Bench::live();
        bench.step(Input::Contest);
        bench.pass(1900);
        bench.now += 100;
        assert_eq!(bench.answer(3), [Output::Verify]);
        let verdict = if right { Output::Alive } else { Output::Dead };
        assert_eq!(bench.step(Input::Verified(right)), [verdict]);
    }
}

#[test]
fn an_incumbent_that_waits_for_a_person_keeps_its_place_while_its_connection_lives() {
    let mut prompting = Bench::live();
    prompting.sign(0);
    prompting.step(Input::Contest);
    assert_eq!(prompting.pass(2000), [Output::Alive]);

    let mut half_open = Bench::live();
    half_open.sign(0);
    half_open.step(Input::Contest);
    half_open.now += 2000;
    assert_eq!(half_open.step(Input::Tick), [Output::Dead]);

    // Nobody waits for it any more.
    let mut late = Bench::live();
    late.sign(0);
    late.pass(180_000);
    late.step(Input::Contest);
    assert_eq!(late.pass(2000), [Output::Dead]);

    // What is asked first is no person's business.
    let mut stuck = Bench::live();
    stuck.submit(1, Class::ChannelDial);
    stuck.sign(0);
    stuck.step(Input::Contest);
    assert_eq!(stuck.pass(2000), [Output::Dead]);
}

/// What an honest signer does next, and what befalls it.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// It answers one of what it has, by this place in the row.
    Answers(usize),
    Contest,
    Asked(bool),
    Waits(u64),
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        4 => (0_usize..4).prop_map(Turn::Answers),
        2 => Just(Turn::Contest),
        4 => any::<bool>().prop_map(Turn::Asked),
        4 => (1_u64..1500).prop_map(Turn::Waits),
        1 => (5_000_u64..20_000).prop_map(Turn::Waits),
    ]
}

/// An honest signer and its driver, as far as they matter: the driver knows only the latest challenge.
struct Honest {
    bench: Bench,
    owes: BTreeMap<u64, Kind>,
    challenge: Option<u64>,
    contested: bool,
    worked: bool,
    stalled: bool,
    ticket: u64,
}

impl Honest {
    fn new() -> Self {
        Self {
            bench: Bench::live(),
            owes: BTreeMap::new(),
            challenge: None,
            contested: false,
            worked: false,
            stalled: false,
            ticket: 0,
        }
    }

    fn step(&mut self, input: Input) {
        let answers = match input {
            Input::Received { reply_to, .. } => Some(reply_to),
            _ => None,
        };
        let stalled_before = self.stalled;
        let mut flips = 0;
        for output in self.bench.step(input) {
            match output {
                Output::SendChallenge(id, kind) => {
                    self.challenge = Some(id);
                    self.owes.insert(id, kind);
                }
                Output::Send(id, ticket) => {
                    let signing = ticket.0 % 2 == 1;
                    let kind = if signing { Kind::Pass(13) } else { Kind::Ecdh };
                    self.owes.insert(id, kind);
                }
                Output::SendPing(id) => {
                    self.owes.insert(id, Kind::Ping);
                }
                Output::Verify => {
                    let right = answers.is_some() && self.challenge.take() == answers;
                    assert!(right, "it answers rightly");
                    self.step(Input::Verified(right));
                }
                Output::Alive => assert!(std::mem::take(&mut self.contested)),
                Output::Dead => {
                    assert!(std::mem::take(&mut self.contested));
                    assert!(!self.worked, "it has answered since it was challenged");
                }
                Output::Stalled(stalled) => {
                    assert_ne!(self.stalled, stalled, "they take turns");
                    self.stalled = stalled;
                    flips += 1;
                }
                Output::End(end) => panic!("{end:?}"),
                _ => {}
            }
        }
        assert!(flips <= 1, "from {stalled_before} and back at once");
    }

    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Answers(place) => {
                let Some((&id, &kind)) = self.owes.iter().nth(place) else {
                    return;
                };
                self.owes.remove(&id);
                self.worked = true;
                let body = Body::Answer(kind);
                self.step(Input::Received { reply_to: id, body });
            }
            Turn::Contest => {
                self.worked &= self.contested;
                self.contested = true;
                self.step(Input::Contest);
            }
            Turn::Asked(signing) => {
                self.ticket += 2;
                let (ticket, kind) = if signing {
                    (self.ticket + 1, Kind::Pass(13))
                } else {
                    (self.ticket, Kind::Ecdh)
                };
                self.step(Input::Submit {
                    ticket: Ticket(ticket),
                    kind,
                    class: Class::Node,
                    deadline: at(self.bench.now + 5000),
                });
            }
            Turn::Waits(millis) => {
                let until = self.bench.now + millis;
                while self.bench.now < until {
                    self.bench.now = until.min(self.bench.now + 100);
                    self.step(Input::PingAcked);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However slow and in whatever order it answers: who has answered since the challenge keeps its place, each contest has one
    /// outcome, and a stall begins and ends in turns.
    #[test]
    fn p9_no_contest_is_lost_by_a_signer_that_answers(turns in prop::collection::vec(any_turn(), 0..200)) {
        let mut honest = Honest::new();
        for turn in turns {
            honest.take(turn);
        }
        honest.take(Turn::Waits(2000));
        prop_assert!(!honest.contested, "a contest without an outcome");
    }
}
