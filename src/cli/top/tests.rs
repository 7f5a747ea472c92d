//! What `top` shows, on a terminal of ratatui's for tests: pictures that are kept in `tests/tables/top.txt`, and what must hold for any
//! size, any keys and whatever the daemon says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::draw;
use super::look::Key;
use super::model::{Model, Reach};
use super::theme::Theme;
use crate::admin::Problem;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

/// 2026-01-01 00:02:00 UTC.
const NOW: f64 = 1_767_225_720.0;
/// When the signer lapsed.
const LAPSE: f64 = NOW - 45.0;

fn id(number: u8) -> String {
    format!("02{}", format!("{number:02x}").repeat(32))
}

fn peer(number: u8, tag: &str, state: &str) -> Value {
    json!({
        "node_id": id(number), "addr": format!("192.0.2.{number}:9735"), "tag": tag, "weight": 0, "state": state,
        "identity": null, "direction": null, "since": null, "frames_in": null, "frames_out": null, "last_gossip_at": null,
    })
}

fn up(number: u8, tag: &str, identity: &str, since: f64) -> Value {
    let mut peer = peer(number, tag, "up");
    let more = json!({
        "identity": identity, "direction": if number.is_multiple_of(2) { "inbound" } else { "outbound" }, "since": since,
        "frames_in": 1_234 * u64::from(number), "frames_out": 12, "last_gossip_at": NOW - 3.0,
    });
    peer.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    peer
}

/// Six gossip peers that stay, one that comes back under a persona, five channel peers.
fn peers(is_live: bool) -> Value {
    let mut peers: Vec<Value> = (1..=6)
        .map(|number| up(number, "gossip-only", "node", NOW - 600.0))
        .collect();
    peers.push(if is_live {
        up(7, "gossip-only", "node", NOW - 600.0)
    } else {
        up(7, "gossip-only", "persona", LAPSE + 15.0)
    });
    peers.extend((8..=12).map(|number| {
        if is_live {
            up(number, "channel-bearing", "node", NOW - 600.0)
        } else {
            peer(number, "channel-bearing", "held")
        }
    }));
    Value::Array(peers)
}

fn info(mode: &str, now: f64, lapse: Option<f64>) -> Value {
    let is_live = mode == "live";
    let since = lapse.unwrap_or(NOW - 3600.0);
    let from = json!({ "addr": "192.0.2.99:41234", "macaroon": "8a7b", "software": "pilotlight" });
    json!({
        "node_id": id(0xee), "mode": mode, "epoch": 3, "since": since, "now": now, "version": "0.1.0", "parked": 0,
        "signer": {
            "kind": "gateway", "attached": is_live, "listen": "192.0.2.1:9740", "behind": false,
            "from": if is_live { from } else { Value::Null }, "last_refusal": null,
        },
        "links": { "gossip_only": if is_live { 7 } else { 6 }, "channel_bearing": if is_live { 5 } else { 0 }, "persona": u8::from(!is_live) },
        "peers": { "total": 12, "up": if is_live { 12 } else { 7 }, "dialing": 0, "backoff": 0, "held": if is_live { 0 } else { 5 }, "awaited": 0, "idle": 0 },
        "last_lapse": lapse.map(|at| json!({
            "at": at, "reason": "stream_closed", "fence_us": 3.1, "teardown_ms": 1.2, "dropped": 5, "retained": 7,
        })),
    })
}

fn live() -> Model {
    let mut model = Model::new();
    model.status(NOW, info("live", NOW, None), &peers(true));
    model
}

/// The story until now: a lapse, a gossip link that is lost and comes back under a persona.
fn safe() -> Model {
    let mut model = Model::new();
    let before = LAPSE - 1.0;
    model.status(before, info("live", before, None), &peers(true));
    let mode = json!({ "event": "mode_changed", "at": LAPSE, "from": "live", "to": "safe" });
    model.event(mode);
    for number in 8..=12 {
        model.event(json!({
            "event": "link_down", "at": LAPSE, "node_id": id(number), "link": number, "tag": "channel-bearing", "reason": "lapse",
            "direction": "outbound", "identity": "node",
        }));
    }
    model.event(json!({
        "event": "signer_lapsed", "at": LAPSE, "epoch": 3, "reason": "stream_closed", "fence_us": 3.1, "teardown_ms": 1.2,
        "dropped": 5, "retained": 7,
    }));
    model.event(json!({
        "event": "link_down", "at": LAPSE + 12.0, "node_id": id(7), "link": 7, "tag": "gossip-only", "reason": "io",
        "direction": "outbound", "identity": "node",
    }));
    model.event(json!({ "event": "dialing", "at": LAPSE + 14.0, "node_id": id(7), "addr": "192.0.2.7:9735", "identity": "persona" }));
    model.event(json!({
        "event": "link_up", "at": LAPSE + 15.0, "node_id": id(7), "link": 13, "addr": "192.0.2.7:9735", "tag": "gossip-only",
        "direction": "outbound", "identity": "persona",
    }));
    model.status(NOW, info("safe", NOW, Some(LAPSE)), &peers(false));
    model
}

fn lost() -> Model {
    let mut model = safe();
    model.lost(NOW + 2.0, Problem::new(
        "no daemon runs there: nothing answers at 127.0.0.1:9736, which its admin.addr names (connection refused)",
        "/home/node/.local/share/pilotlight",
        "start it with `pilotlight run`, or name its data directory with --data-dir",
    ));
    model
}

fn picture(model: &mut Model, (width, height): (u16, u16), theme: Theme, now: f64) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw::draw(frame, model, theme, now))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(width));
    rows.fold(String::new(), |mut picture, row| {
        let row: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        writeln!(picture, "|{row}|").unwrap();
        picture
    })
}

fn press(model: &mut Model, keys: &str) {
    for letter in keys.chars() {
        let key = match letter {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Escape,
            '\u{8}' => Key::Backspace,
            letter => Key::Char(letter),
        };
        assert!(model.key(key), "{letter:?} must not end it");
    }
}

const UNICODE: fn() -> Theme = || Theme::new(true, true);
const ASCII: fn() -> Theme = || Theme::new(false, false);

#[test]
fn the_pictures_are_as_they_were() {
    let mut all = String::from(
        "What `pilotlight top` shows, printed by src/cli/top/tests.rs; PILOTLIGHT_BLESS=1 writes it anew.\n",
    );
    let mut take = |name: &str, picture: String| {
        writeln!(all, "\n# {name}\n{picture}").unwrap();
    };
    take(
        "live, 80 × 24",
        picture(&mut live(), (80, 24), UNICODE(), NOW),
    );
    take(
        "safe, 80 × 24",
        picture(&mut safe(), (80, 24), UNICODE(), NOW),
    );
    take(
        "safe, 132 × 40",
        picture(&mut safe(), (132, 40), UNICODE(), NOW),
    );
    take(
        "safe, ASCII, 80 × 24",
        picture(&mut safe(), (80, 24), ASCII(), NOW),
    );
    take(
        "safe, 50 × 16",
        picture(&mut safe(), (50, 16), UNICODE(), NOW),
    );
    take(
        "safe, 30 × 10",
        picture(&mut safe(), (30, 10), UNICODE(), NOW),
    );
    take(
        "no daemon, 80 × 24",
        picture(&mut lost(), (80, 24), UNICODE(), NOW + 62.0),
    );
    take(
        "no daemon, 30 × 10",
        picture(&mut lost(), (30, 10), UNICODE(), NOW + 62.0),
    );
    take(
        "before anything is known, 80 × 24",
        picture(&mut Model::new(), (80, 24), UNICODE(), NOW),
    );
    let mut model = safe();
    press(&mut model, "/persona");
    take(
        "a filter is typed, 80 × 24",
        picture(&mut model, (80, 24), UNICODE(), NOW),
    );
    press(&mut model, "\nj\n");
    take(
        "more of one peer, 80 × 24",
        picture(&mut model, (80, 24), UNICODE(), NOW),
    );
    press(&mut model, "\u{1b}?");
    take(
        "help, 80 × 24",
        picture(&mut model, (80, 24), UNICODE(), NOW),
    );

    compare(&all);
}

/// With the pictures that are kept; or keeps these.
fn compare(all: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tables/top.txt");
    if std::env::var_os("PILOTLIGHT_BLESS").is_some() {
        std::fs::write(&path, all).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (kept, now)) in kept.lines().zip(all.lines()).enumerate() {
        assert_eq!(kept, now, "line {} of {}", number + 1, path.display());
    }
    assert_eq!(kept.lines().count(), all.lines().count());
}

#[test]
fn all_that_matters_is_on_eighty_by_twenty_four() {
    let picture = picture(&mut safe(), (80, 24), ASCII(), NOW);
    for said in [
        "link_down 5 times",
        "S A F E",
        "epoch 3",
        "not attached",
        "0 channel-bearing, 6 gossip-only, 1 persona",
        "12: 5 held, 7 up",
        "45 s ago: stream_closed",
        "fence 3.1",
        "teardown 1.2 ms",
        "5 dropped",
        "7 retained",
        &id(12)[..12],
        "persona",
        "held",
        "signer_lapsed",
        "q quit",
        "? help",
    ] {
        assert!(picture.contains(said), "{said} is not on\n{picture}");
    }
}

/// How long the node can be without its signer is what decides at night.
#[test]
fn a_deadline_is_shown_while_no_signer_is_there() {
    let shown = |mode: &str, left: i64| {
        let mut info = info(mode, NOW, Some(LAPSE));
        info["chain"] = json!({ "htlc_deadline": { "blocks_left": left } });
        let mut model = Model::new();
        model.status(NOW, info, &peers(mode == "live"));
        picture(&mut model, (80, 24), ASCII(), NOW)
    };
    for (left, said) in [
        (36, "first HTLC expires in 36"),
        (-7, "first HTLC expired 7 blocks"),
    ] {
        let safe = shown("safe", left);
        assert!(safe.contains(said), "{said} is not on\n{safe}");
        assert!(!shown("live", left).contains("HTLC"));
    }
}

/// The row of that peer.
fn row(picture: &str, number: u8) -> &str {
    let short = &id(number)[..12];
    picture
        .lines()
        .find(|row| row.starts_with(&format!("|{short}")))
        .unwrap()
}

#[test]
fn the_history_of_each_peer_shows_what_became_of_it_and_the_lapse_goes_across() {
    let picture = picture(&mut safe(), (80, 40), ASCII(), NOW);
    // Ten seconds a sign, the last from NOW on; the lapse was 45 s before.
    let end = |number| {
        row(&picture, number)
            .trim_end_matches('|')
            .chars()
            .rev()
            .take(7)
            .collect::<Vec<_>>()
    };
    let history = |number| end(number).into_iter().rev().collect::<String>();
    assert_eq!(history(1), "#|#####", "retained\n{picture}");
    assert_eq!(history(12), "#|-----", "held\n{picture}");
    assert_eq!(
        history(7),
        "#|x++++",
        "lost, then under a persona\n{picture}"
    );
    let heading = picture.lines().find(|row| row.contains("STATE")).unwrap();
    assert_eq!(&heading[heading.len() - 7..], "v     |", "{heading}");
}

#[test]
fn what_was_before_it_was_opened_is_drawn_from_when_the_link_came_up() {
    let mut model = Model::new();
    model.status(
        NOW,
        info("live", NOW, None),
        &json!([up(1, "gossip-only", "node", NOW - 25.0)]),
    );
    let picture = picture(&mut model, (80, 24), ASCII(), NOW);
    assert!(row(&picture, 1).ends_with(" ####|"), "{picture}");
}

#[test]
fn an_answer_that_is_older_than_an_event_does_not_undo_it() {
    let mut model = live();
    let down = json!({ "event": "link_down", "at": NOW + 2.0, "node_id": id(1), "reason": "io" });
    model.event(down);
    model.status(NOW + 1.0, info("live", NOW + 1.0, None), &peers(true));
    let picture = picture(&mut model, (80, 24), ASCII(), NOW + 2.5);
    assert!(row(&picture, 1).ends_with("#x|"), "{picture}");
}

#[test]
fn a_daemon_whose_clock_differs_is_shown_by_its_own() {
    let mut model = Model::new();
    model.status(NOW - 5000.0, info("live", NOW, None), &peers(true));
    let picture = picture(&mut model, (80, 24), ASCII(), NOW - 4990.0);
    assert!(picture.contains("for 60 min"), "{picture}");
    assert!(picture.contains("00:02:10 UTC"), "{picture}");
}

#[test]
fn a_daemon_that_is_gone_is_told_plainly_and_what_it_does_is_unknown_until_it_is_back() {
    let mut model = lost();
    model.lost(
        NOW + 40.0,
        Problem::new("still no daemon runs there", "here", "wait"),
    );
    assert!(
        matches!(&model.reach, Reach::Lost { since, problem } if *since == NOW + 2.0 && problem.place == "here")
    );
    let gone = picture(&mut model, (80, 24), ASCII(), NOW + 50.0);
    for said in [
        "N O   D A E M O N",
        "for 48 s",
        "still no daemon runs there",
        "was safe at 00:02:00",
    ] {
        assert!(gone.contains(said), "{said} is not on\n{gone}");
    }
    model.status(
        NOW + 60.0,
        info("live", NOW + 60.0, Some(LAPSE)),
        &peers(true),
    );
    let back = picture(&mut model, (80, 24), ASCII(), NOW + 60.0);
    assert!(back.contains("L I V E"), "{back}");
    assert!(
        row(&back, 1).ends_with("##     #|") || row(&back, 1).ends_with("#      #|"),
        "{back}"
    );
}

#[test]
fn keys_sort_filter_and_pick_out() {
    let mut model = safe();
    let first = |model: &Model| model.rows()[0].id.clone();
    assert_eq!(first(&model), id(8), "held channel peers are the worst");
    press(&mut model, "s");
    assert_eq!(first(&model), id(1), "by id");
    press(&mut model, "r");
    assert_eq!(first(&model), id(12), "by id, reversed");
    press(&mut model, "/CHAN held");
    assert_eq!(model.rows().len(), 5);
    press(&mut model, "q");
    assert_eq!(
        (model.rows().len(), model.look.filter.as_str()),
        (0, "CHAN heldq"),
        "a letter, here"
    );
    press(&mut model, "\u{8}\u{1b}");
    assert_eq!(model.rows().len(), 12);
    model.key(Key::Down);
    assert_eq!(model.look.selected, Some(id(12)));
    model.key(Key::End);
    assert_eq!(model.look.selected, Some(id(1)));
    press(&mut model, "r");
    model.key(Key::Up);
    assert_eq!(
        model.look.selected,
        Some(id(1)),
        "the pick goes with the peer, and was the first"
    );
    press(&mut model, "??");
    assert!(!model.look.help);
    assert!(!model.key(Key::Char('q')) && !model.key(Key::Interrupt));
}

#[test]
fn who_is_picked_out_is_in_sight() {
    let mut model = live();
    for key in [
        Key::End,
        Key::Home,
        Key::PageDown,
        Key::PageDown,
        Key::PageUp,
        Key::Down,
        Key::Up,
    ] {
        model.key(key);
        let picture = picture(&mut model, (80, 18), ASCII(), NOW);
        let selected = model.look.selected.clone().unwrap();
        assert!(picture.contains(&selected[..12]), "{key:?}\n{picture}");
    }
}

#[test]
fn colour_is_left_out_where_none_is_wanted() {
    let coloured = |theme: Theme| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let mut model = safe();
        terminal
            .draw(|frame| draw::draw(frame, &mut model, theme, NOW))
            .unwrap();
        let cells = &terminal.backend().buffer().content;
        cells
            .iter()
            .any(|cell| cell.fg != ratatui::style::Color::Reset)
    };
    assert!(coloured(UNICODE()) && !coloured(Theme::new(false, true)));
    // The palette's dark grey is the background's own colour in some.
    assert_eq!(UNICODE().dim().fg, None);
}

#[test]
fn what_a_peer_says_steers_no_terminal_here_either() {
    let mut model = live();
    model.event(json!({ "event": "peer_complained", "at": NOW, "node_id": id(1), "kind": "warning", "text": "\u{1b}[2J\u{9b}2Jx" }));
    let picture = picture(&mut model, (80, 24), ASCII(), NOW);
    assert!(
        picture.contains("peer_complained") && !picture.contains(['\u{1b}', '\u{9b}']),
        "{picture}"
    );
}

/// Any JSON, and more often than not with the names that are looked for.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        prop::sample::select(vec![
            "live",
            "up",
            "held",
            "persona",
            "link_up",
            "link_down",
            "signer_lapsed",
            "dialing"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 12, |inner| {
        let name = prop::sample::select(vec![
            "node_id",
            "state",
            "since",
            "at",
            "event",
            "mode",
            "last_lapse",
            "signer",
            "peers",
            "now",
            "identity",
            "tag",
            "from",
            "last_refusal",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        prop::sample::select(vec![
            Key::Up,
            Key::Down,
            Key::PageUp,
            Key::PageDown,
            Key::Home,
            Key::End,
            Key::Enter,
            Key::Escape,
            Key::Backspace,
        ]),
        prop::sample::select("sre/?+-jkx".chars().collect::<Vec<_>>()).prop_map(Key::Char),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_draws_at_any_size_whatever_the_daemon_says_and_the_user_presses(
        values in prop::collection::vec(any_value(), 0..12),
        keys in prop::collection::vec(any_key(), 0..20),
        size in (1_u16..150, 1_u16..50),
        now in prop_oneof![any::<f64>(), NOW..NOW + 100.0],
        unicode: bool,
    ) {
        let mut model = if unicode { Model::new() } else { safe() };
        let theme = Theme::new(true, unicode);
        let mut keys = keys.into_iter();
        for (turn, value) in values.into_iter().enumerate() {
            match turn % 3 {
                0 => model.event(value),
                1 => model.status(now, value.clone(), &value),
                _ => model.status(now, value.clone(), &Value::Array(vec![value])),
            }
            model.key(keys.next().unwrap_or(Key::Down));
            picture(&mut model, size, theme, now);
        }
        for key in keys {
            model.key(key);
            picture(&mut model, size, theme, now);
        }
    }
}
