//! A signer that is behind for minutes: its answers are late, and its stream goes on.
#![allow(clippy::panic)]

use std::collections::VecDeque;

use super::*;

/// One answer a second, in order, while six requests a second are wanted: behind for half an hour, and honest all the time.
#[test]
fn thousands_of_late_answers_of_a_slow_signer_are_counted_and_are_no_broken_protocol() {
    let mut bench = Bench::live();
    let (mut at_signer, mut ticket, mut late, mut answered) = (VecDeque::new(), 0, 0, 0);
    for _ in 0..2000 {
        let mut said = bench.pass(1000);
        for _ in 0..6 {
            ticket += 1;
            said.extend(bench.submit(ticket, Class::ChannelDial));
        }
        // The signer's own queue: what it was asked it answers, however long that takes.
        if let Some(id) = at_signer.pop_front() {
            said.extend(bench.answer(id));
        }
        for output in said {
            match output {
                Output::Send(id, _) => at_signer.push_back(id),
                Output::Odd(Oddity::Late) => late += 1,
                Output::Odd(other) => panic!("{other:?}"),
                Output::Answered(_) => answered += 1,
                _ => {}
            }
        }
        assert_eq!(bench.machine.phase(), Phase::Live);
        assert!(bench.machine.flights.abandoned() <= limits::SIGNER_ABANDONED);
    }
    assert_eq!(late + answered, 1999 + usize::from(at_signer.is_empty()));
    assert!(late > 150, "the backlog of the beginning was late: {late}");
}

/// A signer that has forgotten nothing: a thousand and more answers, each more than a minute late.
#[test]
fn answers_that_come_after_they_were_given_up_are_late_and_each_only_once() {
    let mut bench = Bench::live();
    let mut ids = Vec::new();
    for round in 0..6 {
        for number in 0..250 {
            let said = bench.submit(round * 1000 + number, Class::ChannelDial);
            ids.extend(said.iter().filter_map(|output| match output {
                Output::Send(id, _) => Some(*id),
                _ => None,
            }));
        }
        bench.pass(61_000);
    }
    assert_eq!(ids.len(), 1500);
    assert_eq!(bench.machine.in_flight(), 0, "all were given up");
    for id in &ids {
        let late = [Output::Odd(Oddity::Late)];
        assert!(bench.answer(*id).ends_with(&late), "{id}");
    }
    assert_eq!(bench.machine.phase(), Phase::Live);
    assert_eq!(bench.answer(ids[7]), [Output::Odd(Oddity::Repeated)]);
}

#[test]
fn a_connection_that_takes_nothing_more_is_the_end() {
    let mut bench = Bench::live();
    bench.submit(1, Class::ChannelDial);
    assert_eq!(
        bench.step(Input::Clogged),
        [
            Output::End(End::Clogged),
            Output::Failed(Ticket(1), Failure::Away)
        ]
    );
}

/// A signer that answers in any order, and has lost one request.
#[test]
fn one_that_is_never_answered_is_one_stall_whatever_else_is_answered() {
    let mut bench = Bench::live();
    bench.submit(0, Class::ChannelDial);
    let mut said = bench.pass(5000);
    for number in 1..=100 {
        said.extend(bench.submit(number, Class::ChannelDial));
        said.extend(bench.pass(100));
        said.extend(bench.answer(3 + number));
    }
    let stalls = |said: &[Output]| -> Vec<Output> {
        let stall = |output: &&Output| matches!(output, Output::Stalled(_));
        said.iter().filter(stall).copied().collect()
    };
    assert_eq!(stalls(&said), [Output::Stalled(true)]);
    assert_eq!(
        bench.answer(3),
        [Output::Stalled(false), Output::Odd(Oddity::Late)]
    );
}

/// A signer that answers in any order and loses a ping, a challenge and some ECDH.
#[test]
fn whatever_is_never_answered_loses_its_place_in_the_end_also_behind_one_that_is_older() {
    let mut bench = Bench::live();
    // The oldest is one of a person's, which takes longer than all of the others.
    bench.sign(0);
    bench.step(Input::Contest);
    for ticket in 1..=4 {
        bench.submit(ticket, Class::ChannelDial);
    }
    assert_eq!(bench.machine.in_flight(), 6);
    bench.pass(59_900);
    assert_eq!(bench.machine.in_flight(), 6);
    bench.pass(100);
    assert_eq!(bench.machine.in_flight(), 1, "the person's");
    for id in 4..9 {
        let late = [Output::Odd(Oddity::Late)];
        assert!(bench.answer(id).ends_with(&late), "{id}");
    }

    let mut pinged = Bench::live();
    assert_eq!(pinged.pass(3000), [Output::SendPing(3)]);
    let said = pinged.pass(63_000);
    assert!(said.contains(&Output::SendPing(4)), "{said:?}");
}
