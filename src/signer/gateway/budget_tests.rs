//! The budget: buckets refill and stay bounded, the meter finds the signer's speed and the cap that keeps it busy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Moment {
    Moment::from_start(Duration::from_millis(millis))
}

fn ip(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x7f00_0000 | number))
}

#[test]
fn a_source_gets_its_burst_then_one_a_second() {
    let mut sources = Sources::new();
    for _ in 0..limits::ECDH_SOURCE_BURST {
        assert_eq!(sources.take(at(5), ip(1)), Ok(()));
    }
    assert_eq!(sources.take(at(5), ip(1)), Err(Throttle::Source));
    assert_eq!(
        sources.take(at(5), ip(2)),
        Ok(()),
        "another source has its own"
    );
    assert_eq!(sources.take(at(1004), ip(1)), Err(Throttle::Source));
    assert_eq!(sources.take(at(1005), ip(1)), Ok(()));
    assert_eq!(sources.take(at(1005), ip(1)), Err(Throttle::Source));
}

#[test]
fn an_ipv6_network_and_a_mapped_address_are_one_source() {
    let mut sources = Sources::new();
    for host in 0..limits::ECDH_SOURCE_BURST {
        let ip: IpAddr = format!("2001:db8::{host:x}").parse().unwrap();
        assert_eq!(sources.take(at(1), ip), Ok(()));
    }
    let same: IpAddr = "2001:db8::ffff:1".parse().unwrap();
    assert_eq!(sources.take(at(1), same), Err(Throttle::Source));
    let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
    assert_eq!(sources.take(at(1), other), Ok(()));
    assert_eq!(sources.take(at(1), ip(9)), Ok(()));
    let mapped: IpAddr = "::ffff:127.0.0.9".parse().unwrap();
    sources.take(at(1), mapped).unwrap();
    assert_eq!(sources.len(), 3);
}

#[test]
fn p9_a_flood_from_everywhere_meets_a_bound_and_the_table_does_not_grow() {
    let mut sources = Sources::new();
    let mut passed = 0;
    let flood = 10_000 + u32::try_from(limits::ECDH_SOURCES).unwrap();
    for number in 0..flood {
        passed += u32::from(sources.take(at(10), ip(number)).is_ok());
        assert!(sources.len() <= limits::ECDH_SOURCES);
    }
    let bound = u32::try_from(limits::ECDH_SOURCES).unwrap() + limits::ECDH_OVERFLOW_BURST;
    assert_eq!(passed, bound);
    // A second and a bit later the table has room again.
    assert_eq!(sources.take(at(2000), ip(99_999)), Ok(()));
    assert_eq!(sources.len(), 1);
}

/// A signer that computes one ECDH at a time, `service` each, `rtt` away; driven as the machine drives it.
fn run(meter: &mut Meter, requests: usize, rtt: u64, service: u64, start: u64) -> u64 {
    let (mut waiting, mut now, mut free_at) = (requests, start, start);
    let mut flight: std::collections::VecDeque<(u64, u64, usize)> =
        std::collections::VecDeque::new();
    while waiting > 0 || !flight.is_empty() {
        while waiting > 0 && flight.len() < meter.cap() {
            let begins = free_at.max(now + rtt / 2);
            free_at = begins + service;
            flight.push_back((now, free_at + rtt / 2, flight.len()));
            waiting -= 1;
        }
        let (sent, back, ahead) = flight.pop_front().unwrap();
        now = back;
        let micros = |at| Moment::from_start(Duration::from_micros(at));
        meter.answered(micros(now), micros(sent), ahead);
    }
    now
}

#[test]
fn a_signer_far_away_is_kept_busy() {
    for (rtt, service) in [
        (50_000, 200),
        (50_000, 1_000),
        (200_000, 500),
        (1_000, 100),
        (100, 5_000),
    ] {
        let mut meter = Meter::new();
        let start = run(&mut meter, 1, rtt, service, 1_000_000);
        let end = run(&mut meter, 1_000, rtt, service, start);
        let ideal = rtt + 1_000 * service;
        println!(
            "rtt {rtt} µs, ECDH {service} µs: {} µs, ideal {ideal} µs, cap {}, service {:?}",
            end - start,
            meter.cap(),
            meter.service()
        );
        assert!(
            end - start <= ideal * 8 / 5 + rtt,
            "{} for an ideal of {ideal}",
            end - start
        );
    }
}

#[test]
fn a_slow_signer_is_never_given_more_than_two_seconds_of_work() {
    let mut meter = Meter::new();
    run(&mut meter, 300, 20_000, 250_000, 0);
    assert_eq!(meter.cap(), 8);
    assert_eq!(meter.strangers_cap(), 4);
    assert!(!meter.is_behind(8));
    assert!(meter.is_behind(9));
    run(&mut meter, 300, 20_000, 3_000_000, 200_000_000);
    assert_eq!(meter.cap(), limits::ECDH_IN_FLIGHT_MIN);
}

#[test]
fn the_floor_follows_a_path_that_has_become_longer_and_not_the_queue() {
    let mut meter = Meter::new();
    run(&mut meter, 200, 10_000, 1_000, 0);
    let floor = meter.floor().unwrap();
    assert_eq!(
        floor,
        Duration::from_millis(11),
        "loaded answers do not raise it"
    );
    let mut now = 10_000_000;
    for _ in 0..60 {
        now = run(&mut meter, 1, 100_000, 1_000, now + 1_000_000);
    }
    assert!(meter.floor().unwrap() > Duration::from_millis(99));
}

#[test]
fn one_long_pause_holds_nothing_back_for_long() {
    let mut meter = Meter::new();
    meter.answered(at(50), at(0), 0);
    meter.answered(at(60_000), at(100), 1);
    assert_eq!(meter.service(), Some(limits::ECDH_BACKLOG));
    assert!(!meter.is_behind(1), "one alone is never too much");
    // The next that is alone shows that it takes no longer than that.
    meter.answered(at(70_050), at(70_000), 0);
    assert_eq!(meter.service(), Some(Duration::from_millis(50)));
    assert_eq!(meter.cap(), 10);
}

#[test]
fn before_anything_is_measured_nothing_is_held_back() {
    let meter = Meter::new();
    assert_eq!(meter.cap(), limits::ECDH_IN_FLIGHT_FIRST);
    assert!(!meter.is_behind(usize::MAX));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Over any time a source passes at most its burst and what it has earned since.
    #[test]
    fn p9_no_pattern_of_arrivals_beats_the_bucket(gaps in prop::collection::vec(0_u64..3_000, 1..200)) {
        let mut sources = Sources::new();
        let (mut now, mut passed) = (0, 0_u64);
        for gap in gaps {
            now += gap;
            passed += u64::from(sources.take(at(now), ip(1)).is_ok());
            prop_assert!(passed <= u64::from(limits::ECDH_SOURCE_BURST) + now / 1000);
        }
    }

    /// Whatever is measured, the cap stays within its bounds and nothing overflows.
    #[test]
    fn p9_the_cap_is_bounded(samples in prop::collection::vec((any::<u64>(), any::<u64>(), 0_usize..3), 0..50)) {
        let mut meter = Meter::new();
        for (now, sent, ahead) in samples {
            let moment = |nanos| Moment::from_start(Duration::from_nanos(nanos));
            meter.answered(moment(now), moment(sent), ahead);
            prop_assert!((limits::ECDH_IN_FLIGHT_MIN..=limits::ECDH_IN_FLIGHT_MAX).contains(&meter.cap()) || meter.cap() == limits::ECDH_IN_FLIGHT_FIRST);
            prop_assert!(meter.strangers_cap() >= 1 && meter.strangers_cap() <= meter.cap());
            let _ = meter.is_behind(usize::MAX);
        }
    }
}

/// Whoever takes connections asks before a token is taken: it must be told what the taking would say.
#[test]
fn p9_whether_a_source_has_a_token_is_what_taking_one_says_and_costs_none() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sources = Sources::new();
        let mut now = 0;
        for _ in 0..2_000 {
            now += random.u64(0..400);
            let source = ip(random.u32(0..3));
            let has = sources.has(at(now), source);
            assert_eq!(sources.has(at(now), source), has, "asking takes nothing");
            if random.bool() {
                assert_eq!(
                    sources.take(at(now), source).is_ok(),
                    has,
                    "seed {seed}, {now} ms"
                );
            }
        }
    }
}
