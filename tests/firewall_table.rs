//! The firewall's whole table, printed and compared with `tests/tables/firewall.txt`, and what must hold of it for all 65,536
//! types. After a change of policy, run with `PILOTLIGHT_BLESS=1` and review the file's diff.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::fmt::Write as _;
use std::path::Path;

use pilotlight::link::firewall::{
    CloseReason, Inbound, Outbound, Refusal, Situation, inbound, is_link_owned, needs_lease,
    outbound, row_name, would, would_refuse,
};
use pilotlight::wire::features::{GOSSIP_BITS, NEVER_ON_A_PERSONA};
use pilotlight::wire::{
    BITCOIN_REGTEST, ErrorMessage, Features, Init, MessageType, Ping, Plane, Pong,
    QueryChannelRange, QueryShortChannelIds, ReplyChannelRange, ReplyShortChannelIdsEnd,
    ShortChannelId, Warning, types::MESSAGE_TYPES,
};

/// A link whose `init` has come, in the five settings that design.md speaks of and three refinements of them.
fn situations() -> Vec<(&'static str, Situation)> {
    let live = Situation {
        init_received: true,
        ..Situation::default()
    };
    let away = Situation {
        signer_away: true,
        ..live
    };
    vec![
        ("before init", Situation::default()),
        ("live", live),
        ("away", away),
        (
            "away+filter",
            Situation {
                filter_received: true,
                ..away
            },
        ),
        (
            "away+served",
            Situation {
                queries_served: true,
                ..away
            },
        ),
        (
            "away+custom",
            Situation {
                custom_even_ok: true,
                ..away
            },
        ),
        (
            "away+observe",
            Situation {
                observe: true,
                ..away
            },
        ),
        (
            "live persona",
            Situation {
                persona: true,
                ..live
            },
        ),
        (
            "away persona",
            Situation {
                persona: true,
                ..away
            },
        ),
    ]
}

/// All 128 situations.
fn every_situation() -> impl Iterator<Item = Situation> {
    (0..128_u8).map(|bits| Situation {
        signer_away: bits & 1 != 0,
        persona: bits & 2 != 0,
        init_received: bits & 4 != 0,
        filter_received: bits & 8 != 0,
        queries_served: bits & 16 != 0,
        custom_even_ok: bits & 32 != 0,
        observe: bits & 64 != 0,
    })
}

fn error(channel_id: [u8; 32]) -> Vec<u8> {
    ErrorMessage {
        channel_id,
        data: b"gone".to_vec(),
    }
    .encode()
}

/// The messages whose verdict depends on more than their type.
fn special_messages() -> Vec<(&'static str, Vec<u8>)> {
    let chain_hash = BITCOIN_REGTEST;
    let splicing = Features::from_bits(GOSSIP_BITS.into_iter().chain([63]));
    let ping = |num_pong_bytes| {
        Ping {
            num_pong_bytes,
            ignored: 4,
        }
        .encode()
    };
    let reply = |short_channel_ids| {
        ReplyChannelRange {
            chain_hash,
            first_blocknum: 0,
            number_of_blocks: 9,
            sync_complete: true,
            short_channel_ids,
        }
        .encode()
    };
    let end = |full_information| {
        ReplyShortChannelIdsEnd {
            chain_hash,
            full_information,
        }
        .encode()
    };
    let query = QueryChannelRange {
        chain_hash,
        first_blocknum: 0,
        number_of_blocks: 9,
    };
    let query_ids = QueryShortChannelIds {
        chain_hash,
        short_channel_ids: vec![ShortChannelId::from_u64(1)],
    };
    vec![
        ("no type at all", vec![0]),
        ("init, gossip bits", Init::gossip(vec![chain_hash]).encode()),
        (
            "init, splicing too",
            Init::with_features(splicing, vec![]).encode(),
        ),
        ("init, cut short", vec![0, 16, 0]),
        ("ping for 0", ping(0)),
        ("ping for 65531", ping(65_531)),
        ("ping for 65532", ping(65_532)),
        ("ping, cut short", vec![0, 18, 0]),
        ("pong", Pong { ignored: 3 }.encode()),
        ("pong, cut short", vec![0, 19, 0]),
        ("warning", Warning::new("slow down").encode()),
        ("warning, cut short", vec![0, 1, 0]),
        ("error, one channel", error([7; 32])),
        ("error, all channels", error([0; 32])),
        ("error, cut short", vec![0, 17, 0]),
        ("261", query_ids.encode()),
        ("261, cut short", vec![1, 5, 0]),
        ("263", query.encode()),
        ("263, cut short", vec![1, 7, 0]),
        ("262, full", end(true)),
        ("262, empty", end(false)),
        ("264, one id", reply(vec![ShortChannelId::from_u64(1)])),
        ("264, empty", reply(vec![])),
    ]
}

/// One message of every known type, and of each kind of unknown type. A body of zeros is long enough for all of them.
fn plain_messages() -> Vec<(String, Vec<u8>)> {
    let special: Vec<u16> = vec![1, 16, 17, 18, 19, 261, 262, 263, 264];
    MESSAGE_TYPES
        .iter()
        .map(|info| info.number)
        .filter(|number| !special.contains(number))
        .chain([3, 4, 40_001, 40_000])
        .map(|number| {
            (
                format!("{number} {}", MessageType(number).label()),
                message(number),
            )
        })
        .collect()
}

fn message(number: u16) -> Vec<u8> {
    let mut message = number.to_be_bytes().to_vec();
    message.resize(120, 0);
    message
}

fn show_inbound(verdict: Inbound) -> String {
    match verdict {
        Inbound::Deliver => "deliver".into(),
        Inbound::ForLink => "for link".into(),
        Inbound::Ignore => "ignore".into(),
        Inbound::Pong { num_pong_bytes } => format!("pong {num_pong_bytes}"),
        Inbound::AnswerUnserved => "answer unserved".into(),
        Inbound::WarnNotDelivered => "warn".into(),
        Inbound::Drop => "drop".into(),
        Inbound::CloseAfterDelivery => "deliver, CLOSE".into(),
        Inbound::Close(reason) => format!("CLOSE {}", reason.as_str()),
    }
}

fn show_outbound(verdict: Outbound) -> String {
    match verdict {
        Outbound::Pass => "pass".into(),
        Outbound::PassWithLease => "pass, lease".into(),
        Outbound::Refuse(reason) => format!("no: {}", reason.as_str()),
    }
}

fn print_direction(title: &str, out: &mut String, verdict: impl Fn(&[u8], &Situation) -> String) {
    let situations = situations();
    write!(out, "{title:<34}").unwrap();
    for (name, _) in &situations {
        write!(out, "{name:<26}").unwrap();
    }
    trim_line(out);
    let special = special_messages()
        .into_iter()
        .map(|(name, message)| (name.to_owned(), message));
    for (name, message) in special.chain(plain_messages()) {
        write!(out, "{name:<34}").unwrap();
        for (_, situation) in &situations {
            write!(out, "{:<26}", verdict(&message, situation)).unwrap();
        }
        trim_line(out);
    }
    out.push('\n');
}

fn trim_line(out: &mut String) {
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

/// Every type's row, as runs of numbers of one parity.
fn print_rows(out: &mut String) {
    writeln!(out, "types, as runs of one parity         row").unwrap();
    let mut runs: Vec<(u16, u16, &str)> = Vec::new();
    for parity in [0, 1] {
        let first = runs.len();
        for number in (parity..=u16::MAX).step_by(2) {
            let name = row_name(MessageType(number));
            match runs[first..].last_mut() {
                Some(run) if run.2 == name => run.1 = number,
                _ => runs.push((number, number, name)),
            }
        }
    }
    for (from, to, name) in runs {
        let parity = if from % 2 == 0 { "even" } else { "odd" };
        writeln!(out, "{parity:<5} {from:>5} to {to:>5}{:17}{name}", "").unwrap();
    }
}

fn print_table() -> String {
    let mut out = String::from(
        "The firewall (design.md § Firewall), printed by tests/firewall_table.rs. Do not edit: PILOTLIGHT_BLESS=1 cargo test --test firewall_table\n\n",
    );
    print_direction("INBOUND", &mut out, |message, situation| {
        show_inbound(inbound(message, situation))
    });
    print_direction("OUTBOUND", &mut out, |message, situation| {
        show_outbound(outbound(message, situation))
    });
    print_rows(&mut out);
    out.push_str("\ntakes a lease:");
    for number in (0..=u16::MAX).filter(|number| needs_lease(MessageType(*number))) {
        write!(out, " {number}").unwrap();
    }
    out.push_str("\nthe link's own:");
    for number in (0..=u16::MAX).filter(|number| is_link_owned(MessageType(*number))) {
        write!(out, " {number}").unwrap();
    }
    out.push('\n');
    out
}

#[test]
fn the_table_is_the_one_that_was_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/firewall.txt");
    let now = print_table();
    if std::env::var_os("PILOTLIGHT_BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (is, was)) in now.lines().zip(reviewed.lines()).enumerate() {
        assert_eq!(is, was, "line {} of {}", line + 1, path.display());
    }
    assert_eq!(now.lines().count(), reviewed.lines().count(), "lines");
}

/// Bodies of several shapes: a verdict on a signer-bound message must not depend on them.
fn bodies(number: u16) -> [Vec<u8>; 3] {
    let mut ones = message(number);
    ones[2..].fill(0xff);
    [number.to_be_bytes().to_vec(), message(number), ones]
}

#[test]
fn p5_without_the_signer_nothing_that_needs_it_is_delivered_or_sent() {
    for number in 0..=u16::MAX {
        let kind = MessageType(number);
        if !kind.needs_signer() && !needs_lease(kind) {
            continue;
        }
        // A firewall that observes lets storage and onion messages pass: that is what it is for.
        let acts = |it: &Situation| !it.observe || it.persona || kind.plane() == Plane::Channel;
        for situation in every_situation()
            .filter(|it| it.signer_away || it.persona)
            .filter(acts)
        {
            for message in bodies(number) {
                let came = inbound(&message, &situation);
                assert!(
                    !matches!(came, Inbound::Deliver | Inbound::CloseAfterDelivery),
                    "{kind} {situation:?}: {came:?}"
                );
                let left = outbound(&message, &situation);
                assert!(
                    matches!(left, Outbound::Refuse(_)),
                    "{kind} {situation:?}: {left:?}"
                );
            }
        }
    }
}

#[test]
fn a_lease_is_asked_for_exactly_on_the_channel_plane_but_to_open() {
    for number in 0..=u16::MAX {
        let kind = MessageType(number);
        let channel = kind.plane() == Plane::Channel && number != 32 && number != 64;
        assert_eq!(needs_lease(kind), channel, "{kind}");
        for situation in every_situation() {
            let left = outbound(&number.to_be_bytes(), &situation);
            let free = situation.init_received && !situation.signer_away && !situation.persona;
            assert_eq!(left == Outbound::PassWithLease, channel && free, "{kind}");
        }
    }
}

#[test]
fn every_type_that_is_known_has_a_row_and_every_row_is_of_known_types() {
    for number in 0..=u16::MAX {
        let kind = MessageType(number);
        let by_parity = ["unknown odd", "unknown even", "custom odd", "custom even"];
        assert_eq!(
            kind.is_known(),
            !by_parity.contains(&row_name(kind)),
            "{kind}"
        );
    }
}

#[test]
fn p4_error_leaves_only_from_the_node_with_its_signer() {
    for situation in every_situation() {
        let free = situation.init_received && !situation.signer_away && !situation.persona;
        let left = outbound(&error([1; 32]), &situation);
        assert_eq!(left == Outbound::Pass, free, "{situation:?}");
    }
}

#[test]
fn init_comes_first_and_once_in_every_mode() {
    let init = Init::gossip(vec![BITCOIN_REGTEST]).encode();
    for situation in every_situation() {
        let verdict = if situation.init_received {
            Inbound::Close(CloseReason::SecondInit)
        } else {
            Inbound::ForLink
        };
        assert_eq!(inbound(&init, &situation), verdict);
        if situation.init_received {
            continue;
        }
        for number in (0..=u16::MAX).filter(|number| *number != 16) {
            assert_eq!(
                inbound(&number.to_be_bytes(), &situation),
                Inbound::Close(CloseReason::InitExpected)
            );
            assert_eq!(
                outbound(&number.to_be_bytes(), &situation),
                Outbound::Refuse(Refusal::BeforeInit)
            );
        }
    }
}

#[test]
fn unknown_even_types_close_in_every_mode_unless_the_embedder_knows_them() {
    for situation in every_situation().filter(|it| it.init_received) {
        for number in (0..=u16::MAX)
            .step_by(2)
            .filter(|number| !MessageType(*number).is_known())
        {
            let registered = situation.custom_even_ok && number >= 32_768;
            let verdict = if registered {
                Inbound::Deliver
            } else {
                Inbound::Close(CloseReason::UnknownEven)
            };
            assert_eq!(
                inbound(&number.to_be_bytes(), &situation),
                verdict,
                "{number}"
            );
            let left = outbound(&number.to_be_bytes(), &situation);
            assert_eq!(left == Outbound::Pass, registered && !situation.persona);
        }
    }
}

#[test]
fn a_persona_announces_nothing_and_offers_only_what_gossip_needs() {
    for situation in every_situation().filter(|it| it.persona) {
        for number in [256_u16, 257, 258] {
            assert!(matches!(
                outbound(&number.to_be_bytes(), &situation),
                Outbound::Refuse(_)
            ));
        }
        for bit in NEVER_ON_A_PERSONA.into_iter().chain([0, 6, 17, 23]) {
            let bits = Features::from_bits(GOSSIP_BITS.into_iter().chain([bit]));
            let init = Init::with_features(bits, vec![]).encode();
            assert_eq!(
                outbound(&init, &situation),
                Outbound::Refuse(Refusal::Persona)
            );
        }
        let init = Init::gossip(vec![BITCOIN_REGTEST]).encode();
        assert_eq!(outbound(&init, &situation), Outbound::Pass);
    }
}

#[test]
fn with_the_signer_the_node_gets_and_sends_what_the_bolts_name() {
    let live = Situation {
        init_received: true,
        ..Situation::default()
    };
    for info in MESSAGE_TYPES
        .iter()
        .filter(|info| info.plane != Plane::Control)
    {
        assert_eq!(inbound(&message(info.number), &live), Inbound::Deliver);
        assert!(!matches!(
            outbound(&message(info.number), &live),
            Outbound::Refuse(_)
        ));
    }
}

#[test]
fn every_unserved_query_gets_an_answer_that_may_leave() {
    let ids = QueryShortChannelIds {
        chain_hash: BITCOIN_REGTEST,
        short_channel_ids: vec![],
    };
    let range = QueryChannelRange {
        chain_hash: BITCOIN_REGTEST,
        first_blocknum: 1,
        number_of_blocks: u32::MAX,
    };
    for query in [ids.encode(), range.encode()] {
        for situation in every_situation().filter(|it| it.init_received) {
            let answered = inbound(&query, &situation) == Inbound::AnswerUnserved;
            let unserved = !situation.queries_served && !situation.observe;
            let expected = situation.persona || situation.signer_away && unserved;
            assert_eq!(answered, expected, "{situation:?}");
            let answer = pilotlight::wire::queries::unserved_answer(&query)
                .unwrap()
                .unwrap();
            assert_eq!(outbound(&answer, &situation), Outbound::Pass);
        }
    }
}

/// `firewall = "observe"`: all that is let pass is counted under the name of what would have been done, and nothing else is; what
/// BOLT 2 and BOLT 1 say holds as ever, and so does all of a persona's link and all that passes while a signer is there.
#[test]
fn a_firewall_that_observes_acts_on_channel_messages_only_and_says_what_it_lets_pass() {
    let mut let_pass = std::collections::BTreeSet::new();
    for strict in every_situation().filter(|it| !it.observe) {
        let situation = Situation {
            observe: true,
            ..strict
        };
        let plain = (0..700).chain(32_700..32_900).map(message);
        for message in plain.chain(special_messages().into_iter().map(|(_, message)| message)) {
            let (acts, observes) = (inbound(&message, &strict), inbound(&message, &situation));
            let would = would(&message, &situation);
            assert_eq!(would.is_some(), acts != observes, "{situation:?}");
            if let Some(would) = would {
                assert!(situation.signer_away && !situation.persona);
                assert_eq!(observes, Inbound::Deliver);
                let_pass.insert(would);
            }
            let (acts, observes) = (outbound(&message, &strict), outbound(&message, &situation));
            let would = would_refuse(&message, &situation);
            assert_eq!(would, acts != observes, "{situation:?}");
            if would {
                assert!(situation.signer_away && !situation.persona);
                assert_eq!(observes, Outbound::Pass);
            }
            let kind = MessageType::of(&message).unwrap_or(MessageType(0));
            let on_channels = kind.plane() == Plane::Channel || kind == MessageType::ERROR;
            assert!(!on_channels || !would, "{kind}");
        }
    }
    let names = ["would_answer", "would_drop", "would_ignore"];
    assert_eq!(let_pass.into_iter().collect::<Vec<_>>(), names);
}
