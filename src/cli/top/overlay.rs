//! What lies over the rest when it is asked for: the keys and signs, and more of one peer.

use super::draw::event_row;
use super::lane::{Standing, Window};
use super::model::{Model, Peer, Told};
use super::table;
use super::theme::Theme;
use crate::cli::words::age;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use serde_json::Value;

const KEYS: [(&str, &str); 12] = [
    ("q, Ctrl-C", "quit"),
    ("up, down, j, k", "pick out a peer"),
    ("PgUp, PgDn", "a page up or down"),
    ("Home, End", "the first, the last"),
    ("Enter", "more of the peer; again: back"),
    (
        "/",
        "filter by id, address, tag, state, identity, direction",
    ),
    ("Esc", "clear the filter, then the pick"),
    ("s", "sort by the next column"),
    ("r", "reverse the order"),
    ("+, -", "a sign of the history is a shorter, longer time"),
    ("e", "all events, or those that matter"),
    ("?", "this; any key: back"),
];

const SIGNS: [(Standing, &str); 6] = [
    (Standing::Up, "up"),
    (Standing::Persona, "up under a persona"),
    (Standing::Dialing, "being dialled, or next"),
    (Standing::Held, "held until the signer is back"),
    (Standing::Down, "down, or waiting after a failure"),
    (Standing::Idle, "idle, or not to be dialled"),
];

/// Draws what is asked for, if anything is.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme, now: f64) {
    if model.look.help {
        show(frame, area, " keys and signs ", help(theme), theme);
    } else if model.look.detail {
        let selected = model.look.selected.as_ref();
        let peer = model.peers.iter().find(|peer| Some(&peer.id) == selected);
        let lines = peer.map_or_else(
            || vec![Line::raw("the daemon does not list this peer any more")],
            |peer| {
                detail(
                    model,
                    peer,
                    theme,
                    now,
                    usize::from(area.width).saturating_sub(4),
                )
            },
        );
        show(frame, area, " peer ", lines, theme);
    }
}

/// In the middle, as large as it needs and there is room for.
fn show(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>, theme: Theme) {
    let wide = lines.iter().map(Line::width).max().unwrap_or_default();
    let size = |needed: usize, there: u16| {
        let needed = u16::try_from(needed.saturating_add(2)).unwrap_or(u16::MAX);
        needed.min(there)
    };
    let (width, height) = (
        size(wide.saturating_add(2), area.width),
        size(lines.len(), area.height),
    );
    let place = Rect {
        x: area.x + area.width.saturating_sub(width) / 2,
        y: area.y + area.height.saturating_sub(height) / 2,
        width,
        height,
    };
    let mut block = Block::bordered().title(title.to_owned());
    if !theme.is_unicode() {
        block = block.border_set(ASCII);
    }
    let inner = block.inner(place);
    frame.render_widget(Clear, place);
    frame.render_widget(block, place);
    let inner = Rect {
        x: inner.x.saturating_add(1).min(inner.right()),
        width: inner.width.saturating_sub(2),
        ..inner
    };
    frame.render_widget(Paragraph::new(lines), inner);
}

const ASCII: ratatui::symbols::border::Set<'_> = ratatui::symbols::border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

fn help<'a>(theme: Theme) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'_>> = KEYS
        .iter()
        .map(|(key, does)| Line::raw(format!("{key:<15} {does}")))
        .collect();
    lines.push(Line::raw(""));
    let sign = |sign, style, says: &str| {
        Line::from(vec![
            Span::styled(sign, style),
            Span::raw(format!("{:<15}{says}", "")),
        ])
    };
    lines.extend(
        SIGNS
            .iter()
            .map(|(standing, says)| sign(theme.sign(*standing), theme.style(*standing), says)),
    );
    let (lapse, style) = theme.lapse();
    lines.push(sign(lapse, style, "the signer lapsed"));
    let (lapsed, attached) = theme.marks();
    let says = format!("{attached} a signer attached, {lapsed} lapsed: above the history");
    lines.push(Line::raw(says));
    lines
}

fn detail<'a>(model: &Model, peer: &Peer, theme: Theme, now: f64, width: usize) -> Vec<Line<'a>> {
    let now = model.daemon_time(now);
    let since = |then: Option<f64>| then.map_or_else(|| "-".to_owned(), |then| age(now - then));
    let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let count =
        |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let facts = [
        ("node id", peer.id.clone()),
        ("address", peer.addr.clone()),
        ("tag", format!("{}, weight {}", peer.tag, peer.weight)),
        ("state", peer.state.clone()),
        ("identity", word(&peer.identity)),
        ("direction", word(&peer.direction)),
        ("up for", since(peer.since)),
        (
            "messages",
            format!(
                "{} in, {} out",
                count(peer.frames_in),
                count(peer.frames_out)
            ),
        ),
        (
            "gossip",
            match peer.last_gossip_at {
                Some(_) => format!("{} ago", since(peer.last_gossip_at)),
                None => "none".to_owned(),
            },
        ),
    ];
    let mut lines: Vec<Line<'_>> = facts
        .into_iter()
        .map(|(name, value)| {
            Line::from(vec![
                Span::styled(format!("{name:<10}"), theme.dim()),
                Span::raw(value),
            ])
        })
        .collect();
    let window = Window {
        now,
        step: model.look.step(),
        columns: width,
    };
    let lapses = table::lapse_columns(model, &window);
    lines.push(Line::raw(""));
    lines.push(Line::from(table::history(
        model, peer, &window, &lapses, theme,
    )));
    lines.push(Line::raw(""));
    let is_its = |told: &&Told| told.event.get("node_id").and_then(Value::as_str) == Some(&peer.id);
    let its: Vec<&Told> = model.events().iter().rev().filter(is_its).take(8).collect();
    lines.extend(its.iter().rev().map(|told| event_row(told, theme, width)));
    lines
}
