//! One signer's stream: the transition table, answers in any order and of any wrongness, liveness, stalls, contests, bounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeSet;
use std::fmt::Write;

use proptest::prelude::*;

use super::*;

#[path = "machine_contest_tests.rs"]
mod contest;
#[path = "machine_liveness_tests.rs"]
mod liveness;
#[path = "machine_signing_tests.rs"]
mod signing;
#[path = "machine_slow_tests.rs"]
mod slow;

const WINDOW: Duration = Duration::from_secs(3);

fn at(millis: u64) -> Moment {
    Moment::from_start(Duration::from_millis(millis))
}

/// A machine and what it has said last.
struct Bench {
    machine: StreamMachine,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            machine: StreamMachine::new(at(0), WINDOW),
            now: 0,
        }
    }

    fn live() -> Self {
        Self::live_after(0)
    }

    /// Live, over a path on which a proof takes so long.
    fn live_after(millis: u64) -> Self {
        let mut bench = Self::new();
        bench.register(Registrant::Lnd);
        bench.now += millis;
        bench.answer(2);
        bench.step(Input::Verified(true));
        bench.step(Input::Seated);
        assert_eq!(bench.machine.phase(), Phase::Live);
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.machine.step(at(self.now), input, &mut out);
        out.retain(|output| *output != Output::HttpPing);
        out
    }

    fn register(&mut self, registrant: Registrant) -> Vec<Output> {
        let body = Body::Registration(registrant);
        self.step(Input::Received { reply_to: 1, body })
    }

    fn receive(&mut self, reply_to: u64, body: Body) -> Vec<Output> {
        self.step(Input::Received { reply_to, body })
    }

    fn answer(&mut self, id: u64) -> Vec<Output> {
        self.receive(id, Body::Answer(Kind::Ecdh))
    }

    fn submit(&mut self, ticket: u64, class: Class) -> Vec<Output> {
        self.step(Input::Submit {
            ticket: Ticket(ticket),
            kind: Kind::Ecdh,
            class,
            deadline: at(self.now + 5000),
        })
    }

    /// Somebody wants a signature, which a person has to agree to.
    fn sign(&mut self, ticket: u64) -> Vec<Output> {
        self.step(Input::Submit {
            ticket: Ticket(ticket),
            kind: Kind::Pass(13),
            class: Class::Node,
            deadline: at(self.now + 180_000),
        })
    }

    /// Time passes, every deadline is kept, and nothing comes.
    fn listen(&mut self, millis: u64) {
        let until = self.now + millis;
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= at(until)) {
            self.now = u64::try_from(due.since(at(0)).as_millis()).unwrap();
            self.step(Input::Tick);
        }
        self.now = until;
        self.step(Input::Tick);
    }

    /// Time passes in steps of 100 ms, with PINGs acknowledged.
    fn pass(&mut self, millis: u64) -> Vec<Output> {
        let mut out = Vec::new();
        for _ in 0..millis / 100 {
            self.now += 100;
            out.extend(self.step(Input::PingAcked));
        }
        out
    }
}

#[test]
fn lnds_signer_is_completed_then_challenged_and_our_agent_the_other_way_round() {
    let mut lnd = Bench::new();
    assert_eq!(
        lnd.register(Registrant::Lnd),
        [Output::Complete, Output::SendChallenge(2, Kind::Ecdh)]
    );
    assert_eq!(lnd.answer(2), [Output::Verify]);
    assert_eq!(lnd.step(Input::Verified(true)), [Output::Contend]);
    assert_eq!(lnd.step(Input::Seated), []);

    let mut agent = Bench::new();
    assert_eq!(
        agent.register(Registrant::Agent),
        [Output::SendChallenge(2, Kind::Proof)]
    );
    assert_eq!(
        agent.receive(2, Body::Answer(Kind::Proof)),
        [Output::Verify]
    );
    assert_eq!(agent.step(Input::Verified(true)), [Output::Contend]);
    assert_eq!(agent.step(Input::Seated), [Output::Complete]);
}

#[test]
fn a_wrong_proof_ends_the_stream_and_says_so_only_where_that_is_understood() {
    let mut lnd = Bench::new();
    lnd.register(Registrant::Lnd);
    lnd.answer(2);
    assert_eq!(
        lnd.step(Input::Verified(false)),
        [Output::End(End::ProofWrong)]
    );
    let mut agent = Bench::new();
    agent.register(Registrant::Agent);
    assert_eq!(
        agent.receive(2, Body::Error),
        [
            Output::Deny(End::ProofRefused),
            Output::End(End::ProofRefused)
        ]
    );
    let mut barred = Bench::new();
    assert_eq!(
        barred.step(Input::Bar),
        [Output::Deny(End::Barred), Output::End(End::Barred)]
    );
    assert_eq!(Bench::live().step(Input::Bar), [], "too late");
}

#[test]
fn nothing_and_half_a_registration_are_dropped_at_the_deadline() {
    let mut silent = Bench::new();
    assert_eq!(silent.machine.next_deadline(), Some(at(5000)));
    silent.now = 5000;
    assert_eq!(
        silent.step(Input::Tick),
        [
            Output::Deny(End::RegistrationLate),
            Output::End(End::RegistrationLate)
        ]
    );
    assert_eq!(silent.machine.next_deadline(), None);
    let mut mute = Bench::new();
    mute.register(Registrant::Lnd);
    mute.now = 5000;
    assert_eq!(mute.step(Input::Tick), [Output::End(End::ProofLate)]);
}

#[test]
fn a_first_message_that_is_no_registration_is_refused() {
    for (reply_to, body) in [
        (2, Body::Registration(Registrant::Lnd)),
        (0, Body::Registration(Registrant::Lnd)),
        (1, Body::Nothing),
        (1, Body::Answer(Kind::Ping)),
        (1, Body::Error),
    ] {
        let mut bench = Bench::new();
        assert_eq!(
            bench.receive(reply_to, body),
            [
                Output::Deny(End::RegistrationWrong),
                Output::End(End::RegistrationWrong)
            ]
        );
    }
}

#[test]
fn answers_come_in_any_order_and_only_once() {
    let mut bench = Bench::live();
    for ticket in 0..3 {
        assert_eq!(
            bench.submit(ticket, Class::ChannelDial),
            [Output::Send(3 + ticket, Ticket(ticket))]
        );
    }
    assert_eq!(bench.answer(5), [Output::Answered(Ticket(2))]);
    assert_eq!(bench.answer(3), [Output::Answered(Ticket(0))]);
    assert_eq!(bench.answer(3), [Output::Odd(Oddity::Repeated)]);
    assert_eq!(bench.answer(99), [Output::Odd(Oddity::Unknown)]);
    assert_eq!(bench.answer(0), [Output::Odd(Oddity::Unknown)]);
    assert_eq!(
        bench.receive(4, Body::Nothing).len(),
        2,
        "failed and counted"
    );
    assert_eq!(bench.machine.in_flight(), 0);
    let ids: Vec<_> = (0..3)
        .map(|t| bench.submit(t, Class::ChannelDial))
        .collect();
    assert_eq!(ids[0], [Output::Send(6, Ticket(0))], "ids are never reused");
}

#[test]
fn a_wrong_type_fails_its_request_and_a_signer_error_answers_it() {
    let mut bench = Bench::live();
    bench.submit(0, Class::ChannelDial);
    bench.submit(1, Class::ChannelDial);
    assert_eq!(
        bench.receive(3, Body::Answer(Kind::Ping)),
        [
            Output::Failed(Ticket(0), Failure::WrongType),
            Output::Odd(Oddity::WrongType)
        ]
    );
    assert_eq!(bench.receive(4, Body::Error), [Output::Answered(Ticket(1))]);
    assert_eq!(
        bench.register(Registrant::Lnd),
        [Output::Odd(Oddity::WrongType)],
        "a second registration"
    );
}

#[test]
fn a_late_answer_is_ignored_and_counted_and_its_place_is_free_again() {
    let mut bench = Bench::live();
    bench.submit(0, Class::ChannelDial);
    let out = bench.pass(5000);
    assert_eq!(out, [Output::Failed(Ticket(0), Failure::Late)]);
    assert_eq!(
        bench.machine.in_flight(),
        1,
        "the signer may be at it still"
    );
    assert_eq!(bench.answer(3), [Output::Odd(Oddity::Late)]);
    assert_eq!(bench.machine.in_flight(), 0);
}

#[test]
fn a_cancelled_request_is_not_sent_or_keeps_its_place() {
    let mut bench = Bench::live();
    bench.submit(0, Class::ChannelDial);
    assert_eq!(bench.step(Input::Cancel(Ticket(0))), []);
    assert_eq!(bench.machine.in_flight(), 1);
    assert_eq!(bench.answer(3), [Output::Odd(Oddity::Late)]);
    for ticket in 1..=u64::try_from(limits::ECDH_IN_FLIGHT_FIRST).unwrap() {
        bench.submit(ticket, Class::ChannelDial);
    }
    assert_eq!(bench.submit(9999, Class::ChannelDial), []);
    assert_eq!(bench.machine.queued(), 1);
    bench.step(Input::Cancel(Ticket(9999)));
    assert_eq!(bench.machine.queued(), 0);
}

#[test]
fn channel_peers_go_first_and_strangers_have_half() {
    let mut bench = Bench::live_after(50);
    let cap = limits::ECDH_IN_FLIGHT_FIRST;
    let strangers = u64::try_from(cap).unwrap();
    let sent: usize = (0..strangers)
        .map(|ticket| bench.submit(ticket, Class::Inbound).len())
        .sum();
    assert_eq!(sent, cap / 2);
    assert_eq!(
        bench.submit(1000, Class::ChannelDial),
        [Output::Send(3 + strangers / 2, Ticket(1000))],
        "the other half is free"
    );
    for ticket in 1001..1001 + strangers / 2 - 1 {
        bench.submit(ticket, Class::ChannelDial);
    }
    assert_eq!(bench.submit(2000, Class::GossipDial), []);
    assert_eq!(bench.submit(2001, Class::ChannelDial), []);
    assert_eq!(bench.submit(2002, Class::Node), []);
    let order: Vec<Ticket> = (3..255)
        .flat_map(|id| {
            bench.now += if id == 3 { 51 } else { 1 };
            bench.answer(id)
        })
        .filter_map(|output| match output {
            Output::Send(_, ticket) => Some(ticket),
            _ => None,
        })
        .collect();
    assert_eq!(order[..3], [Ticket(2002), Ticket(2001), Ticket(2000)]);
}

#[test]
fn p9_strangers_beyond_their_queue_are_refused_and_nobody_else_is() {
    let mut bench = Bench::live();
    let mut refused = 0;
    for ticket in 0..10_000 {
        let throttled = Output::Failed(Ticket(ticket), Failure::Throttled(Throttle::Strangers));
        refused += usize::from(bench.submit(ticket, Class::Inbound) == [throttled]);
    }
    let taken = limits::SIGNER_QUEUE_STRANGERS + limits::ECDH_IN_FLIGHT_FIRST / 2;
    assert_eq!(refused, 10_000 - taken);
    assert!(matches!(
        bench.submit(99_999, Class::ChannelDial)[..],
        [Output::Send(..)]
    ));
}

#[test]
fn a_contest_is_won_by_the_right_answer_or_by_work_done_and_lost_by_silence_or_a_wrong_answer() {
    let mut right = Bench::live();
    assert_eq!(
        right.step(Input::Contest),
        [Output::SendChallenge(3, Kind::Ecdh)]
    );
    assert_eq!(right.answer(3), [Output::Verify]);
    assert_eq!(right.step(Input::Verified(true)), [Output::Alive]);

    let mut wrong = Bench::live();
    wrong.step(Input::Contest);
    wrong.answer(3);
    assert_eq!(wrong.step(Input::Verified(false)), [Output::Dead]);

    let mut silent = Bench::live();
    silent.step(Input::Contest);
    assert_eq!(silent.pass(1900), []);
    assert_eq!(silent.pass(100), [Output::Dead], "PINGs alone do not count");

    let mut busy = Bench::live();
    busy.submit(0, Class::ChannelDial);
    busy.step(Input::Contest);
    busy.answer(3);
    assert_eq!(busy.pass(2000), [Output::Alive], "it works its queue off");
}

#[test]
fn the_end_fails_everything_that_waits_and_what_comes_after() {
    let mut bench = Bench::live();
    let all = u64::try_from(limits::ECDH_IN_FLIGHT_FIRST + 3).unwrap();
    for ticket in 0..all {
        bench.submit(ticket, Class::ChannelDial);
    }
    let out = bench.step(Input::Closed);
    let failed = out
        .iter()
        .filter(|output| matches!(output, Output::Failed(_, Failure::Away)))
        .count();
    assert_eq!(u64::try_from(failed).unwrap(), all);
    // The lapse comes first: who hears of a failure finds its session over.
    assert_eq!(out.first(), Some(&Output::End(End::Closed)));
    assert_eq!(
        bench.submit(0, Class::Node),
        [Output::Failed(Ticket(0), Failure::Away)]
    );
}

#[test]
fn p9_a_flood_of_nonsense_ends_the_stream() {
    let mut bench = Bench::live();
    let mut count = 0;
    while bench.machine.phase() == Phase::Live {
        bench.receive(77, Body::Nothing);
        count += 1;
    }
    assert_eq!(count, limits::SIGNER_ODDITIES_MAX + 1);
}

#[test]
fn a_duplicate_a_minute_ends_no_session_of_months() {
    let mut bench = Bench::live();
    for _ in 0..3 * limits::SIGNER_ODDITIES_MAX {
        bench.now += 60_000;
        bench.step(Input::PingAcked);
        bench.receive(1, Body::Nothing);
    }
    assert_eq!(bench.machine.phase(), Phase::Live);
}

/// A machine that has gone so many phases.
fn reach(phase: usize) -> Bench {
    let mut bench = Bench::new();
    let steps = [
        Input::Received {
            reply_to: 1,
            body: Body::Registration(Registrant::Lnd),
        },
        Input::Verified(true),
        Input::Seated,
        Input::Closed,
    ];
    for input in &steps[..phase] {
        bench.step(*input);
    }
    bench
}

/// What the machine must do: see `transition_table`.
const TABLE: &str = "\
            regist.     answer      error       right       wrong       seated      refused     closed      lapsed      +5 s
Registering Proving     Ended       Ended       ·           ·           ·           ·           Ended       Ended       Ended
Proving     ·           ·           Ended       Contending  Ended       ·           ·           Ended       Ended       Ended
Contending  ·           ·           ·           ·           ·           Live        Ended       Ended       Ended       Ended
Live        ·           ·           ·           ·           ·           ·           ·           Ended       Ended       Ended
Ended       ·           ·           ·           ·           ·           ·           ·           ·           ·           ·";

/// The table that reviewers read. Columns are inputs, rows phases, cells the phase after.
#[test]
fn transition_table() {
    let ecdh = Body::Answer(Kind::Ecdh);
    let inputs: [(&str, u64, Input); 10] = [
        (
            "regist.",
            0,
            Input::Received {
                reply_to: 1,
                body: Body::Registration(Registrant::Lnd),
            },
        ),
        (
            "answer",
            0,
            Input::Received {
                reply_to: 2,
                body: ecdh,
            },
        ),
        (
            "error",
            0,
            Input::Received {
                reply_to: 2,
                body: Body::Error,
            },
        ),
        ("right", 0, Input::Verified(true)),
        ("wrong", 0, Input::Verified(false)),
        ("seated", 0, Input::Seated),
        ("refused", 0, Input::Refused),
        ("closed", 0, Input::Closed),
        ("lapsed", 0, Input::Lapsed),
        ("+5 s", 5000, Input::Tick),
    ];
    let mut table = format!("{:<12}", "");
    for (name, _, _) in &inputs {
        write!(table, "{name:<12}").unwrap();
    }
    for row in 0..5 {
        table = table.trim_end().to_owned();
        let phase = format!("{:?}", reach(row).machine.phase());
        write!(table, "\n{phase:<12}").unwrap();
        for (_, wait, input) in &inputs {
            let mut bench = reach(row);
            let before = bench.machine.phase();
            bench.listen(*wait);
            bench.step(*input);
            let after = bench.machine.phase();
            let cell = if after == before {
                "·".to_owned()
            } else {
                format!("{after:?}")
            };
            write!(table, "{cell:<12}").unwrap();
        }
    }
    let table = table.trim_end();
    assert_eq!(table.trim_start(), TABLE);
}

fn any_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        1 => Just(Body::Registration(Registrant::Lnd)),
        4 => Just(Body::Answer(Kind::Ecdh)),
        1 => Just(Body::Answer(Kind::Ping)),
        1 => Just(Body::Answer(Kind::Pass(5))),
        1 => Just(Body::Error),
        1 => Just(Body::Nothing),
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => (0_u64..400, any_body()).prop_map(|(reply_to, body)| Input::Received { reply_to, body }),
        8 => (0_u8..4, 0_u64..8000).prop_map(|(class, millis)| Input::Submit {
            ticket: Ticket(0),
            kind: Kind::Ecdh,
            class: [Class::Node, Class::ChannelDial, Class::GossipDial, Class::Inbound][usize::from(class)],
            deadline: at(millis),
        }),
        2 => (0_u64..300).prop_map(|ticket| Input::Cancel(Ticket(ticket))),
        2 => Just(Input::PingAcked),
        1 => any::<bool>().prop_map(Input::Verified),
        1 => Just(Input::Contest),
        2 => Just(Input::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every request has exactly one outcome, no id is used twice, in flight stays under the cap, deadlines move on.
    #[test]
    fn every_request_has_one_outcome_and_no_id_is_used_twice(
        steps in prop::collection::vec((any_input(), 0_u64..40), 0..300)
    ) {
        let mut bench = Bench::live();
        let (mut open, mut ids, mut tickets) = (BTreeSet::new(), BTreeSet::new(), 0);
        for (mut input, gap) in steps {
            bench.now += gap;
            match &mut input {
                Input::Submit { ticket, deadline, .. } => {
                    *ticket = Ticket(tickets);
                    *deadline = deadline.after(Duration::from_millis(bench.now));
                    open.insert(Ticket(tickets));
                    tickets += 1;
                }
                Input::Cancel(ticket) => {
                    open.remove(ticket);
                }
                _ => {}
            }
            let live = bench.machine.phase() == Phase::Live;
            let queued_after = bench.now;
            let mut said = bench.step(input);
            if said.last() == Some(&Output::Verify) {
                said.extend(bench.step(Input::Verified(gap % 2 == 0)));
            }
            for output in said {
                match output {
                    Output::Answered(ticket) | Output::Failed(ticket, _) => prop_assert!(open.remove(&ticket), "{:?}", output),
                    Output::Send(id, _) | Output::SendPing(id) | Output::SendChallenge(id, _) => prop_assert!(ids.insert(id)),
                    _ => {}
                }
            }
            prop_assert!(bench.machine.in_flight() <= limits::ECDH_IN_FLIGHT_MAX + 1);
            if live && bench.machine.phase() == Phase::Live {
                prop_assert!(bench.machine.next_deadline().unwrap() > at(queued_after));
            }
        }
        for output in bench.step(Input::Closed) {
            if let Output::Failed(ticket, _) = output {
                prop_assert!(open.remove(&ticket));
            }
        }
        prop_assert!(open.is_empty(), "left without an outcome: {:?}", open);
    }
}
