//! What is a sign of life, when its absence is the end, and when a signer is only stalled.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn silence_for_a_window_is_the_end_and_any_sign_of_life_is_not() {
    let mut bench = Bench::live();
    bench.listen(2999);
    bench.step(Input::PingAcked);
    bench.listen(2999);
    assert_eq!(bench.now, 5998);
    assert_eq!(bench.machine.phase(), Phase::Live);
    bench.now = 5999;
    assert_eq!(bench.step(Input::Tick), [Output::End(End::Silent)]);
}

/// The process stands still: what was acknowledged meanwhile is still to be read.
#[test]
fn a_standstill_of_our_own_is_no_lapse_and_hides_a_dead_signer_for_a_third_of_a_window_only() {
    // Before a PING went out, and after it.
    for listened in [999, 1001] {
        let stood_still = || {
            let mut bench = Bench::live();
            bench.listen(listened);
            bench.now += 60_000;
            bench.step(Input::Tick);
            assert_eq!(bench.machine.phase(), Phase::Live);
            bench
        };
        let mut living = stood_still();
        living.step(Input::PingAcked);
        living.listen(2999);
        assert_eq!(living.machine.phase(), Phase::Live);

        let mut dead = stood_still();
        dead.listen(999);
        assert_eq!(dead.machine.phase(), Phase::Live);
        dead.listen(1);
        assert_eq!(dead.machine.phase(), Phase::Ended);
    }
}

#[test]
fn a_machine_that_is_always_late_still_finds_out_that_its_signer_is_silent() {
    let mut bench = Bench::live();
    let mut late = 0;
    while bench.machine.phase() == Phase::Live && late < 10 {
        bench.now += 2500;
        bench.step(Input::Tick);
        late += 1;
    }
    assert_eq!(late, 2, "silent for 5 s");
}

#[test]
fn a_ping_goes_out_every_third_of_the_window() {
    let mut machine = StreamMachine::new(at(0), WINDOW);
    let body = Body::Registration(Registrant::Lnd);
    let mut out = Vec::new();
    machine.step(at(0), Input::Received { reply_to: 1, body }, &mut out);
    let body = Body::Answer(Kind::Ecdh);
    machine.step(at(0), Input::Received { reply_to: 2, body }, &mut out);
    machine.step(at(0), Input::Verified(true), &mut out);
    machine.step(at(0), Input::Seated, &mut out);
    let mut pinged = Vec::new();
    for _ in 0..3 {
        let due = machine.next_deadline().unwrap();
        out.clear();
        machine.step(due, Input::Tick, &mut out);
        if out.contains(&Output::HttpPing) {
            pinged.push(due);
        }
    }
    assert_eq!(pinged, [at(1000), at(2000)]);
    assert_eq!(machine.phase(), Phase::Ended, "at 3000, unanswered");
}

#[test]
fn slow_in_order_with_400_queued_is_neither_a_lapse_nor_a_stall() {
    let mut bench = Bench::live();
    for ticket in 0..400 {
        bench.submit(ticket, Class::ChannelDial);
    }
    let mut answered = 0;
    for id in 3..403 {
        bench.now += 5;
        let out = bench.answer(id);
        answered += usize::from(out.contains(&Output::Answered(Ticket(id - 3))));
        assert!(
            !out.iter()
                .any(|o| matches!(o, Output::End(_) | Output::Stalled(_)))
        );
    }
    assert_eq!(answered, 400);
    assert_eq!(bench.machine.phase(), Phase::Live);
}

#[test]
fn a_signer_that_never_answers_is_stalled_not_lapsed_while_pings_are_acknowledged() {
    let mut bench = Bench::live();
    bench.submit(0, Class::ChannelDial);
    let out = bench.pass(9_900);
    assert!(!out.contains(&Output::Stalled(true)));
    assert_eq!(bench.pass(100), [Output::Stalled(true)]);
    assert_eq!(bench.pass(30_000), [], "said once");
    assert_eq!(bench.machine.phase(), Phase::Live);
    assert_eq!(
        bench.answer(3),
        [Output::Stalled(false), Output::Odd(Oddity::Late)]
    );
}

#[test]
fn protocol_pings_only_when_nothing_is_in_flight() {
    let mut bench = Bench::live();
    assert_eq!(bench.pass(3000), [Output::SendPing(3)]);
    assert_eq!(bench.receive(3, Body::Answer(Kind::Ping)), []);
    bench.submit(0, Class::ChannelDial);
    assert_eq!(bench.pass(4000), []);
    assert_eq!(bench.answer(4), [Output::Answered(Ticket(0))]);
    assert_eq!(bench.pass(3000), [Output::SendPing(5)]);
}

#[test]
fn an_orphan_that_is_never_answered_is_given_up_in_the_end() {
    let mut bench = Bench::live();
    bench.submit(0, Class::ChannelDial);
    bench.pass(60_000);
    assert!(bench.machine.in_flight() <= 1, "at most a ping");
    assert_eq!(
        bench.answer(3),
        [Output::Stalled(false), Output::Odd(Oddity::Late)]
    );
    assert_eq!(bench.answer(3), [Output::Odd(Oddity::Repeated)]);
}
