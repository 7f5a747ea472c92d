//! The node's own requests beside ECDH: a person takes minutes, and no peer waits for him.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

#[test]
fn signing_has_a_limit_of_its_own() {
    let mut bench = Bench::live();
    bench.sign(0);
    assert_eq!(bench.pass(119_900), []);
    assert_eq!(bench.pass(100), [Output::Stalled(true)]);
    let out = bench.receive(3, Body::Answer(Kind::Pass(13)));
    assert_eq!(out, [Output::Stalled(false), Output::Answered(Ticket(0))]);
}

#[test]
fn requests_that_wait_for_a_person_take_no_place_of_an_ecdh_and_have_a_bound_of_their_own() {
    let mut bench = Bench::live();
    // A signer of a second each: four places.
    for ticket in 0..8 {
        bench.submit(ticket, Class::ChannelDial);
    }
    for id in 3..11 {
        bench.pass(1000);
        bench.answer(id);
    }
    assert_eq!(bench.machine.meter().cap(), limits::ECDH_IN_FLIGHT_MIN);
    let count = u64::try_from(limits::SIGNING_IN_FLIGHT).unwrap();
    for ticket in 100..100 + count {
        assert!(matches!(bench.sign(ticket)[..], [Output::Send(..)]));
    }
    assert_eq!(bench.sign(200), [], "one more than a person is asked");
    assert!(!bench.machine.is_behind());
    let sent = (0..4)
        .flat_map(|ticket| bench.submit(300 + ticket, Class::Inbound))
        .filter(|output| matches!(output, Output::Send(..)))
        .count();
    assert_eq!(sent, 2, "half are strangers', as ever");
    for ticket in 400..402 {
        let out = bench.submit(ticket, Class::ChannelDial);
        assert!(matches!(out[..], [Output::Send(..)]), "{out:?}");
    }
    let out = bench.receive(11, Body::Answer(Kind::Pass(13)));
    assert!(matches!(
        out[..],
        [Output::Answered(Ticket(100)), Output::Send(_, Ticket(200))]
    ));
}

#[test]
fn a_persons_pause_says_nothing_of_what_the_signer_bears() {
    let mut bench = Bench::live_after(50);
    bench.sign(0);
    for ticket in 1..4 {
        bench.submit(ticket, Class::ChannelDial);
    }
    // In order, as lnd's: the ECDH wait behind the person.
    bench.pass(4000);
    bench.receive(3, Body::Answer(Kind::Pass(13)));
    for id in 4..7 {
        bench.now += 1;
        bench.answer(id);
    }
    assert_eq!(bench.machine.meter().service(), None);
    // The next are measured again, and from when the signer was free.
    bench.pass(1000);
    for ticket in 10..14 {
        bench.submit(ticket, Class::ChannelDial);
    }
    bench.now += 50;
    for id in 7..11 {
        bench.now += 1;
        bench.answer(id);
    }
    let service = bench.machine.meter().service().unwrap();
    assert!(service < Duration::from_millis(10), "{service:?}");
}
