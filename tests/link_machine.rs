//! The machine of one link: its transition table, printed and compared with `tests/tables/link.txt` (after a change of policy, run
//! with `PILOTLIGHT_BLESS=1` and review the file's diff), and what must hold through long random conversations, which are replayed
//! from their seed.
#![allow(
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::similar_names,
    clippy::match_wild_err_arm,
    clippy::needless_pass_by_value,
    clippy::single_match_else,
    clippy::unchecked_time_subtraction,
    reason = "a test prints its seed and its figures, and tells its story in one go"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use fastrand::Rng;
use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::link::CloseReason;
use pilotlight::link::firewall::Outbound;
use pilotlight::link::machine::{Ambient, Due, LinkMachine, Received, Settings};
use pilotlight::wire::{
    BITCOIN_MAINNET, BITCOIN_REGTEST, ErrorMessage, GossipTimestampFilter, Init, MessageType, Ping,
    Pong, QueryChannelRange, Warning,
};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// The largest `num_pong_bytes` that is answered (BOLT 1).
const LARGEST_PONG: u16 = 65_531;

const SETTINGS: Settings = Settings {
    persona: false,
    queries_served: false,
    custom_even_ok: false,
    observe: false,
    max_age: None,
};
const PERSONA: Settings = Settings {
    persona: true,
    ..SETTINGS
};

fn machine(settings: Settings, now: Moment, seed: u64) -> LinkMachine {
    LinkMachine::new(settings, vec![BITCOIN_MAINNET], now, seed)
}

fn init() -> Vec<u8> {
    Init::gossip(vec![BITCOIN_MAINNET]).encode()
}

fn live(now: Moment) -> Ambient {
    Ambient {
        now,
        signer_away: false,
    }
}

fn away(now: Moment) -> Ambient {
    Ambient {
        now,
        signer_away: true,
    }
}

fn at(millis: u64) -> Moment {
    Moment::from_start(Duration::from_millis(millis))
}

/// A link that is up at the clock's start.
fn up(seed: u64) -> LinkMachine {
    let mut machine = machine(SETTINGS, Moment::START, seed);
    assert!(matches!(
        machine.receive(live(Moment::START), &init()),
        Received::Up(_)
    ));
    machine
}

fn typed(kind: u16) -> Vec<u8> {
    let mut message = kind.to_be_bytes().to_vec();
    message.extend([0; 100]);
    message
}

// --- keepalive and deadlines ---

#[test]
fn an_init_that_does_not_come_closes_the_link_after_five_seconds() {
    let mut machine = machine(SETTINGS, at(1000), 1);
    assert_eq!(machine.deadline(), at(6000));
    assert_eq!(machine.expire(at(5999)), Due::Nothing);
    assert_eq!(
        machine.expire(at(6000)),
        Due::Close(CloseReason::InitTimeout)
    );
}

#[test]
fn a_silence_of_thirty_to_sixty_seconds_is_pinged_and_the_links_spread() {
    let mut patience = Vec::new();
    for seed in 0..1000 {
        let mut machine = up(seed);
        let deadline = machine.deadline();
        let silence = deadline.since(Moment::START);
        assert!(
            silence >= Duration::from_secs(30) && silence <= Duration::from_secs(60),
            "{silence:?}"
        );
        assert_eq!(
            machine.expire(Moment::from_start(
                silence.checked_sub(Duration::from_nanos(1)).unwrap()
            )),
            Due::Nothing
        );
        assert!(matches!(machine.expire(deadline), Due::Ping { .. }));
        patience.push(silence);
    }
    for third in 0..3 {
        let from = Duration::from_secs(30 + 10 * third);
        let share = patience
            .iter()
            .filter(|it| **it >= from && **it < from + Duration::from_secs(10))
            .count();
        assert!(
            share > 250,
            "{share} of 1000 pings in the seconds from {from:?}"
        );
    }
}

#[test]
fn an_unanswered_ping_closes_the_link_thirty_seconds_later_whatever_else_comes() {
    let mut machine = up(1);
    let pinged = machine.deadline();
    let Due::Ping { pong_bytes } = machine.expire(pinged) else {
        panic!("a ping is due")
    };
    let until = pinged.after(Duration::from_secs(30));
    assert_eq!(machine.deadline(), until);
    // Gossip is a sign of life but no answer; neither is a pong of another length.
    let later = pinged.after(Duration::from_secs(29));
    assert!(matches!(
        machine.receive(live(later), &typed(258)),
        Received::Deliver { .. }
    ));
    let other = Pong {
        ignored: pong_bytes + 1,
    }
    .encode();
    assert_eq!(machine.receive(live(later), &other), Received::Ignored);
    assert_eq!(machine.deadline(), until);
    assert_eq!(machine.expire(until), Due::Close(CloseReason::PongTimeout));
}

#[test]
fn the_pong_that_was_asked_for_begins_a_new_silence() {
    let mut machine = up(1);
    let pinged = machine.deadline();
    let Due::Ping { pong_bytes } = machine.expire(pinged) else {
        panic!("a ping is due")
    };
    assert!(pong_bytes > 0, "a length that tells it from others");
    let answered = pinged.after(Duration::from_millis(80));
    let pong = Pong {
        ignored: pong_bytes,
    }
    .encode();
    assert_eq!(
        machine.receive(live(answered), &pong),
        Received::PongArrived {
            rtt: Duration::from_millis(80)
        }
    );
    let silence = machine.deadline().since(answered);
    assert!(silence >= limits::PING_AFTER_MIN && silence <= limits::PING_AFTER_MAX);
    // Once more is once too often.
    assert_eq!(machine.receive(live(answered), &pong), Received::Ignored);
}

/// The node takes nothing, so nothing is read, the pong that is there included: that is no fault of the peer.
#[test]
fn a_silence_of_our_own_is_excused() {
    let mut machine = up(1);
    let pinged = machine.deadline();
    let Due::Ping { pong_bytes } = machine.expire(pinged) else {
        panic!("a ping is due")
    };
    let later = pinged.after(Duration::from_secs(600));
    machine.resume(later);
    assert_eq!(machine.expire(later), Due::Nothing);
    assert_eq!(machine.deadline(), later.after(limits::PONG_DEADLINE));
    let pong = Pong {
        ignored: pong_bytes,
    }
    .encode();
    assert!(matches!(
        machine.receive(live(later), &pong),
        Received::PongArrived { .. }
    ));
}

/// The pong of a ping that was under way says nothing of what the peer sent after it.
#[test]
fn p7_the_last_call_is_answered_by_its_own_pong_only() {
    for seed in 0..2000 {
        let mut machine = up(seed);
        let Due::Ping { pong_bytes: first } = machine.expire(machine.deadline()) else {
            panic!("no ping");
        };
        let now = at(100);
        let Due::Ping { pong_bytes: last } = machine.last_call(now) else {
            panic!("no ping");
        };
        let earlier = Pong { ignored: first }.encode();
        assert_eq!(
            machine.receive(live(now), &earlier),
            Received::Ignored,
            "seed {seed}"
        );
        let pong = Pong { ignored: last }.encode();
        assert!(matches!(
            machine.receive(live(now), &pong),
            Received::PongArrived { .. }
        ));
    }
}

#[test]
fn a_probe_pings_at_once_and_only_once() {
    let mut machine = up(1);
    assert!(matches!(machine.probe(at(1)), Due::Ping { .. }));
    assert_eq!(machine.probe(at(2)), Due::Nothing);
    assert_eq!(machine.deadline(), at(30_001));
    let mut early = self::machine(SETTINGS, Moment::START, 1);
    assert_eq!(
        early.probe(at(1)),
        Due::Nothing,
        "before init nothing is sent"
    );
}

// --- random conversations ---

/// What peers may send: well formed and not, of every plane.
fn random_message(random: &mut Rng) -> Vec<u8> {
    match random.u8(..16) {
        0 => init(),
        1 => Init::gossip(vec![BITCOIN_REGTEST]).encode(),
        2 => Ping {
            num_pong_bytes: random.u16(..),
            ignored: random.u16(..100),
        }
        .encode(),
        3 => Pong {
            ignored: random.u16(..300),
        }
        .encode(),
        4 => Warning::new("so there").encode(),
        5 => typed(random.choice([1, 16, 17, 18, 19, 261, 263, 265]).unwrap()),
        6 => QueryChannelRange {
            chain_hash: BITCOIN_MAINNET,
            first_blocknum: 0,
            number_of_blocks: 9,
        }
        .encode(),
        7 => GossipTimestampFilter {
            chain_hash: BITCOIN_MAINNET,
            first_timestamp: 0,
            timestamp_range: 9,
        }
        .encode(),
        8 => typed(random.choice([32, 64]).unwrap()),
        9 => typed(random.choice([2, 33, 65, 77, 127, 136, 137, 259]).unwrap()),
        10 => (0..random.usize(..4)).map(|_| random.u8(..)).collect(),
        11 => typed(random.choice([256, 257, 258]).unwrap()),
        12 => typed(random.u16(..)),
        13 => ErrorMessage {
            channel_id: [random.u8(..2); 32],
            data: vec![],
        }
        .encode(),
        _ => (0..random.usize(..200)).map(|_| random.u8(..)).collect(),
    }
}

/// What the machine would have its driver send.
fn said(received: &Received) -> Option<&[u8]> {
    match received {
        Received::Answer(message) => Some(message),
        Received::Refused { warning, .. } | Received::Close { warning, .. } => warning.as_deref(),
        _ => None,
    }
}

#[test]
fn whatever_comes_the_machine_keeps_its_word() {
    let first = std::env::var("PILOTLIGHT_SEED")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let seeds = first.map_or(0..2000, |seed| seed..seed + 1);
    println!("seeds {seeds:?}");
    let mut warnings_in_all = 0;
    for seed in seeds {
        let mut random = Rng::with_seed(seed);
        let settings = Settings {
            persona: random.bool(),
            queries_served: random.bool(),
            custom_even_ok: random.bool(),
            observe: random.bool(),
            max_age: None,
        };
        let mut now = Moment::START;
        let mut machine = machine(settings, now, seed);
        let mut warnings: VecDeque<Moment> = VecDeque::new();
        for step in 0..200 {
            now = now.after(Duration::from_millis(random.u64(..400)));
            let context = format!("seed {seed}, step {step}");
            match machine.expire(now) {
                Due::Close(reason) => {
                    assert_eq!(
                        reason == CloseReason::InitTimeout,
                        !machine.is_up(),
                        "{context}"
                    );
                    break;
                }
                Due::Ping { pong_bytes } => {
                    assert!(machine.is_up() && pong_bytes <= LARGEST_PONG, "{context}");
                }
                Due::Nothing => assert!(machine.deadline() > now, "{context}"),
            }
            let was_up = machine.is_up();
            let message = if step == 0 && random.u8(..10) > 0 {
                init()
            } else {
                random_message(&mut random)
            };
            let signer_away = random.bool();
            let received = machine.receive(Ambient { now, signer_away }, &message);
            let kind = MessageType::of(&message).map_or(0, |kind| kind.0);
            if !was_up {
                let closes = matches!(received, Received::Close { deliver: false, .. });
                assert!(
                    closes || matches!(received, Received::Up(_)),
                    "{context}: before init nothing is delivered"
                );
            }
            if let Received::Deliver { lease: true } = received {
                assert!(
                    !signer_away && !settings.persona,
                    "{context}: type {kind} needs the signer"
                );
            }
            if let Received::Pong { bytes } = received {
                assert!(kind == 18 && bytes <= LARGEST_PONG, "{context}");
            }
            if let Some(message) = said(&received) {
                let kind = MessageType::of(message).unwrap();
                assert_ne!(kind, MessageType::ERROR, "P4: never an error");
                if kind == MessageType::WARNING {
                    warnings.push_back(now);
                    warnings_in_all += 1;
                }
            }
            // A burst, and then one a second: in any stretch of n seconds at most n and the burst.
            for (earlier, since) in warnings.iter().enumerate() {
                let stretch = now.since(*since).as_secs();
                let many = (warnings.len() - earlier) as u64;
                assert!(
                    many <= stretch + u64::from(limits::WARNING_BURST),
                    "{context}: {many} warnings in {stretch} s"
                );
            }
            // What the node would send is judged by the same state.
            let sent = machine.send(Ambient { now, signer_away }, &typed(17));
            assert!(!signer_away || sent != Outbound::Pass, "P4: {context}");
            // The machine can be asked on after a close; the driver does not.
        }
    }
    assert!(
        first.is_some() || warnings_in_all > 5000,
        "the conversations are worth something: {warnings_in_all} warnings"
    );
}

#[test]
fn p4_warnings_come_in_a_burst_of_five_and_then_one_a_second() {
    let mut machine = up(1);
    let mut warned = |millis: u64| {
        matches!(
            machine.receive(away(at(millis)), &typed(32)),
            Received::Refused {
                warning: Some(_),
                ..
            }
        )
    };
    assert_eq!((0..20).filter(|_| warned(0)).count(), 5);
    assert!(!warned(999));
    assert!(warned(1000));
    assert!(!warned(1999));
    assert!(warned(2000));
    // After a rest the burst is whole again, and not more.
    assert_eq!((0..20).filter(|_| warned(60_000)).count(), 5);
    assert_eq!(
        (0..50_u64)
            .filter(|tenth| warned(60_100 + tenth * 100))
            .count(),
        5
    );
}

// --- the table ---

/// An answer without what differs from run to run.
fn name(received: &Received) -> String {
    let warned = |warning: &Option<Vec<u8>>| if warning.is_some() { ", warning" } else { "" };
    match received {
        Received::Up(_) => "up".into(),
        Received::Deliver { lease: true } => "deliver under a lease".into(),
        Received::Deliver { lease: false } => "deliver".into(),
        Received::Pong { bytes } => format!("pong of {bytes}"),
        Received::PongArrived { .. } => "pong arrived".into(),
        Received::Answer(answer) => format!("answer {}", MessageType::of(answer).unwrap().0),
        Received::Refused { action, warning } => format!("{action}{}", warned(warning)),
        Received::Ignored => "ignored".into(),
        Received::Close {
            deliver,
            reason,
            warning,
        } => {
            format!(
                "close {reason}{}{}",
                if *deliver { ", delivered" } else { "" },
                warned(warning)
            )
        }
        other => panic!("{other:?} has no name in the table"),
    }
}

fn due_name(due: Due) -> String {
    match due {
        Due::Nothing => "-".into(),
        Due::Ping { .. } => "ping".into(),
        Due::Close(reason) => format!("close {reason}"),
    }
}

/// What the table has rows for.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let error = |channel| {
        ErrorMessage {
            channel_id: [channel; 32],
            data: b"oh".to_vec(),
        }
        .encode()
    };
    let ping = |num_pong_bytes| {
        Ping {
            num_pong_bytes,
            ignored: 0,
        }
        .encode()
    };
    let mut long = init();
    long.resize(limits::INIT_MAX + 1, 0);
    vec![
        ("init", init()),
        (
            "init of another chain",
            Init::gossip(vec![BITCOIN_REGTEST]).encode(),
        ),
        ("init cut short", init()[..5].to_vec()),
        ("init too long", long),
        ("one byte", vec![0]),
        ("warning", Warning::new("hm").encode()),
        ("error of a channel", error(1)),
        ("error of all channels", error(0)),
        ("ping for 8", ping(8)),
        ("ping for 65531", ping(65_531)),
        ("ping for 65532", ping(65_532)),
        ("ping cut short", ping(8)[..3].to_vec()),
        ("pong as asked", vec![]),
        ("pong of another length", Pong { ignored: 60_000 }.encode()),
        ("channel_update", typed(258)),
        ("query_channel_range", {
            QueryChannelRange {
                chain_hash: BITCOIN_MAINNET,
                first_blocknum: 0,
                number_of_blocks: 9,
            }
            .encode()
        }),
        ("gossip_timestamp_filter", {
            GossipTimestampFilter {
                chain_hash: BITCOIN_MAINNET,
                first_timestamp: 0,
                timestamp_range: 9,
            }
            .encode()
        }),
        ("open_channel", typed(32)),
        ("funding_created", typed(34)),
        ("channel_reestablish", typed(136)),
        ("peer_storage", typed(7)),
        ("onion_message", typed(513)),
        ("unknown odd", typed(1001)),
        ("unknown even", typed(1000)),
        ("custom odd", typed(32_769)),
        ("custom even", typed(32_768)),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    AwaitInit,
    Up,
    Pinged,
}

/// A machine in a stage of the table, at a time that lies before its deadline, and the pong that it waits for.
fn staged(stage: Stage, settings: Settings) -> (LinkMachine, Moment, u16) {
    let mut machine = machine(settings, Moment::START, 3);
    if stage == Stage::AwaitInit {
        return (machine, at(1), 1);
    }
    machine.receive(live(at(1)), &init());
    if stage == Stage::Up {
        return (machine, at(2), 1);
    }
    let now = machine.deadline();
    let Due::Ping { pong_bytes } = machine.expire(now) else {
        panic!("a ping is due")
    };
    (machine, now, pong_bytes)
}

fn print_table() -> String {
    let mut table = String::from(
        "# What a link's machine does: phase, input, output. Live and away are with and without a signer.\n\
         # Printed by tests/link_machine.rs; PILOTLIGHT_BLESS=1 writes it anew.\n",
    );
    let stages = [
        (Stage::AwaitInit, "awaits init"),
        (Stage::Up, "up"),
        (Stage::Pinged, "up, ping unanswered"),
    ];
    for (stage, title) in stages {
        writeln!(table, "\n{title}").unwrap();
        writeln!(table, "  {:<24} {:<36} {:<36} persona", "", "live", "away").unwrap();
        for (label, message) in messages() {
            let verdict = |settings: Settings, signer_away: bool| {
                let (mut machine, now, pong) = staged(stage, settings);
                let message = if message.is_empty() {
                    Pong { ignored: pong }.encode()
                } else {
                    message.clone()
                };
                name(&machine.receive(Ambient { now, signer_away }, &message))
            };
            let (live, away, persona) = (
                verdict(SETTINGS, false),
                verdict(SETTINGS, true),
                verdict(PERSONA, true),
            );
            writeln!(table, "  {label:<24} {live:<36} {away:<36} {persona}").unwrap();
        }
        let (mut machine, now, _) = staged(stage, SETTINGS);
        writeln!(table, "  {:<24} {}", "probe", due_name(machine.probe(now))).unwrap();
        let (mut machine, _, _) = staged(stage, SETTINGS);
        let deadline = machine.deadline();
        writeln!(
            table,
            "  {:<24} {}",
            "the deadline passes",
            due_name(machine.expire(deadline))
        )
        .unwrap();
    }
    table
}

#[test]
fn the_transition_table_is_the_reviewed_one() {
    let table = print_table();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/link.txt");
    if std::env::var_os("PILOTLIGHT_BLESS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (now, then)) in table.lines().zip(reviewed.lines()).enumerate() {
        assert_eq!(
            now,
            then,
            "line {} of {}; PILOTLIGHT_BLESS=1 writes it anew",
            number + 1,
            path.display()
        );
    }
    assert_eq!(
        table.lines().count(),
        reviewed.lines().count(),
        "{}",
        path.display()
    );
}

/// `vault.max_session_age`: between eight and nine tenths of it with a signer, at it without, and soon after a signer's return.
#[test]
fn a_session_is_made_anew_before_it_is_too_old_or_ends_as_it_is() {
    let max_age = Duration::from_secs(1000);
    let settings = Settings {
        max_age: Some(max_age),
        ..SETTINGS
    };
    let at = |seconds| Moment::START.after(Duration::from_secs(seconds));
    let ambient = |seconds, signer_away| Ambient {
        now: at(seconds),
        signer_away,
    };
    let aged = Some(CloseReason::SessionAge);
    let mut renewals = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let mut machine = machine(settings, Moment::START, seed);
        assert_eq!(machine.age(ambient(799, false)), None);
        let renewal = machine.age_deadline().unwrap();
        assert!(renewal >= at(800) && renewal <= at(900), "{renewal:?}");
        renewals.insert(renewal);
        // Nobody is there to make it anew: it lives on to its very age, and is looked at on the way.
        assert_eq!(machine.age(ambient(901, true)), None);
        assert!(machine.age_deadline().unwrap() <= at(951));
        assert_eq!(machine.age(ambient(999, true)), None);
        assert_eq!(machine.age_deadline(), Some(at(1000)));
        assert_eq!(machine.age(ambient(999, false)), aged, "a signer is back");
        assert_eq!(machine.age(ambient(1000, true)), aged);
        // A throwaway key is at hand at any time: its link never lives to that age.
        let persona = Settings {
            persona: true,
            ..settings
        };
        let mut machine = LinkMachine::new(persona, vec![BITCOIN_MAINNET], Moment::START, seed);
        let renewal = machine.age_deadline().unwrap();
        assert_eq!(machine.age(ambient(799, true)), None);
        let at_renewal = Ambient {
            now: renewal,
            signer_away: true,
        };
        assert_eq!(machine.age(at_renewal), aged);
    }
    assert!(renewals.len() > 90, "links do not do so in one instant");
    let mut ageless = machine(SETTINGS, Moment::START, 1);
    assert_eq!(ageless.age_deadline(), None);
    assert_eq!(ageless.age(ambient(u64::from(u32::MAX), false)), None);
}

/// Gossip queries: a burst, then what is earned back; what may ask for the whole graph costs more; nothing else costs anything.
#[test]
fn p9_gossip_queries_have_a_bound_that_honest_peers_do_not_meet() {
    let flooded = |received: &Received| {
        matches!(
            received,
            Received::Close {
                reason: CloseReason::QueryFlood,
                deliver: false,
                warning: Some(_)
            }
        )
    };
    let costs = [
        (261, 1),
        (263, limits::QUERY_OF_ALL),
        (265, limits::QUERY_OF_ALL),
    ];
    for ambient in [live, away] {
        for (kind, cost) in costs {
            let mut machine = up(1);
            let message = match kind {
                263 => QueryChannelRange {
                    chain_hash: BITCOIN_MAINNET,
                    first_blocknum: 0,
                    number_of_blocks: 1,
                }
                .encode(),
                265 => GossipTimestampFilter::since(BITCOIN_MAINNET, 1).encode(),
                _ => {
                    let mut query = 261_u16.to_be_bytes().to_vec();
                    query.extend(BITCOIN_MAINNET);
                    query.extend([0, 1, 0]);
                    query
                }
            };
            for number in 0..limits::QUERY_BURST / cost {
                assert!(
                    !flooded(&machine.receive(ambient(at(0)), &message)),
                    "{kind}: {number}"
                );
            }
            assert!(
                flooded(&machine.receive(ambient(at(0)), &message)),
                "{kind}"
            );
            // What is answered, and gossip itself, cost nothing.
            for other in [256, 257, 258, 262, 264] {
                assert!(
                    !flooded(&machine.receive(ambient(at(0)), &typed(other))),
                    "{other}"
                );
            }
            let earned = u64::from(cost.div_ceil(limits::QUERIES_A_SECOND)) * 1000;
            assert!(
                flooded(&machine.receive(ambient(at(earned - 1)), &message)),
                "{kind}"
            );
            assert!(
                !flooded(&machine.receive(ambient(at(earned)), &message)),
                "{kind}"
            );
        }
    }
    // An eclair that catches up with 40,000 channels, a hundred a query, as fast as the answers come; again after each reconnection.
    let mut machine = up(2);
    let mut query = 261_u16.to_be_bytes().to_vec();
    query.extend(BITCOIN_MAINNET);
    query.extend([0, 1, 0]);
    for number in 0..400 {
        assert!(!flooded(&machine.receive(live(at(number)), &query)));
    }
}
