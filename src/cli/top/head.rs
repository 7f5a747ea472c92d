//! The head of the screen: the mode, as large as there is room for, and what is to be known of signer, links, peers and last lapse.

use super::draw::{short, time};
use super::letters;
use super::model::{Model, Reach};
use super::theme::{Theme, cut};
use crate::cli::words::{age, expiry, signer_line, text};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use serde_json::Value;

/// The head with the mode in large needs so many columns, and a screen of so many rows.
const LARGE: (u16, u16) = (66, 18);

/// The fewest columns that the mode takes there.
const MODE_WIDTH: usize = 26;

/// Columns of a fact's name.
const NAME: usize = 8;

fn is_large(screen: Rect) -> bool {
    screen.width >= LARGE.0 && screen.height >= LARGE.1
}

/// Rows that it takes of such a screen.
pub(super) fn rows(screen: Rect) -> u16 {
    match screen.height {
        _ if is_large(screen) => 6,
        ..8 => 1,
        8..14 => 2,
        _ => 5,
    }
}

/// Draws it. `now` is ours, in Unix seconds.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme, now: f64) {
    let screen = frame.area();
    if is_large(screen) {
        draw_large(frame, area, model, theme, now);
    } else {
        draw_small(frame, area, model, theme, now);
    }
}

/// The word for the mode, and how it is to look.
fn mode(model: &Model, theme: Theme) -> (String, Style) {
    match (&model.reach, &model.info) {
        (Reach::Lost { .. }, _) => ("no daemon".to_owned(), theme.bad()),
        (Reach::Answers, Some(info)) => {
            let mode = text(info, "/mode");
            let style = match mode.as_str() {
                "live" => theme.good(),
                "safe" | "waiting" => theme.warning(),
                _ => theme.bad(),
            };
            (mode, style)
        }
        _ => ("asking".to_owned(), theme.dim()),
    }
}

fn draw_large(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme, now: f64) {
    let (word, style) = mode(model, theme);
    let mut left: Vec<Line<'_>> = Vec::new();
    if let Some(rows) = letters::large(&word.to_uppercase()).filter(|_| theme.is_unicode()) {
        left.extend(rows.map(|row| Line::styled(row, style)));
    } else {
        let word = format!("  {}  ", spaced(&word));
        let blank = " ".repeat(word.chars().count());
        let rows = [blank.clone(), word, blank];
        left.extend(rows.map(|row| Line::styled(row, style.reversed())));
    }
    let width = left.iter().map(Line::width).max().unwrap_or_default();
    let width = width.max(MODE_WIDTH);
    left.extend(under_mode(model, theme, now));
    let [mode_area, _, facts_area] = Layout::horizontal([
        Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)),
        Constraint::Length(2),
        Constraint::Min(0),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(left), mode_area);
    let facts = facts(model, theme, now, (usize::from(facts_area.width), true));
    frame.render_widget(Paragraph::new(facts), facts_area);
}

fn draw_small(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme, now: f64) {
    let (word, style) = mode(model, theme);
    let beside = match (&model.reach, &model.info) {
        (Reach::Lost { since, .. }, _) => format!("for {}; asking again", age(now - since)),
        (_, Some(info)) => format!(
            "for {}, {}",
            since(info, "/since", model.daemon_time(now)),
            session(info)
        ),
        _ => String::new(),
    };
    let mut lines = vec![Line::from(vec![
        Span::styled(format!(" {} ", word.to_uppercase()), style.reversed()),
        Span::raw(format!(" {beside}")),
    ])];
    lines.extend(facts(model, theme, now, (usize::from(area.width), false)));
    lines.retain(|line| line.width() > 0);
    frame.render_widget(Paragraph::new(lines), area);
}

/// `L I V E`
fn spaced(word: &str) -> String {
    let letters: Vec<String> = word.to_uppercase().chars().map(String::from).collect();
    letters.join(" ")
}

/// What stands under the mode: since when, the session, the node.
fn under_mode<'a>(model: &Model, theme: Theme, now: f64) -> Vec<Line<'a>> {
    let Some(info) = &model.info else {
        return Vec::new();
    };
    let here = model.daemon_time(now);
    let seen = match &model.reach {
        Reach::Lost { .. } => format!("was {} at {}", text(info, "/mode"), time(model.answered)),
        _ => format!("for {}, {}", since(info, "/since", here), session(info)),
    };
    let node = format!("node {}", short(&text(info, "/node_id")));
    let version = format!("{} UTC, v{}", time(here), text(info, "/version"));
    vec![
        Line::raw(seen),
        Line::styled(node, theme.dim()),
        Line::styled(version, theme.dim()),
    ]
}

fn session(info: &Value) -> String {
    let epoch = info.get("epoch").and_then(Value::as_u64);
    epoch.map_or_else(
        || "no signer yet".to_owned(),
        |epoch| format!("epoch {epoch}"),
    )
}

/// How long ago that time of the daemon's was.
fn since(value: &Value, path: &str, now: f64) -> String {
    let then = value.pointer(path).and_then(Value::as_f64);
    then.map_or_else(|| "-".to_owned(), |then| age(now - then))
}

/// What is to be known beside the mode, in lines of at most `width`; one line each if there is little room.
fn facts<'a>(
    model: &Model,
    theme: Theme,
    now: f64,
    (width, is_roomy): (usize, bool),
) -> Vec<Line<'a>> {
    let more = if is_roomy { 2 } else { 1 };
    if let Reach::Lost { since, problem } = &model.reach {
        let gone = format!("for {}; asked again and again", age(now - since));
        let facts = [
            ("gone", gone.as_str(), 1),
            ("what", &problem.what, more),
            ("where", &problem.place, 1),
            ("to do", &problem.what_to_do, more),
        ];
        // Without much room, how long is beside the mode.
        let facts = facts.into_iter().skip(usize::from(!is_roomy));
        return facts
            .flat_map(|(name, value, rows)| fact(name, value, width, rows, theme))
            .collect();
    }
    let Some(info) = &model.info else {
        return Vec::new();
    };
    let here = model.daemon_time(now);
    let mut lines = fact("signer", &signer(info, here), width, more, theme);
    lines.resize(more, Line::raw(""));
    lines.extend(fact("links", &links(info), width, 1, theme));
    lines.extend(fact("peers", &peers(info), width, 1, theme));
    lines.extend(fact("lapse", &lapse(info, here), width, more, theme));
    lines
}

/// Where the signer is, since when, how long that may go on, and who was refused in its place.
fn signer(info: &Value, now: f64) -> String {
    let mut said = signer_line(info);
    let is_attached = info.pointer("/signer/attached").and_then(Value::as_bool) == Some(true);
    if is_attached && text(info, "/mode") == "live" {
        said = format!("{said}, for {}", since(info, "/since", now));
    }
    let left = info.pointer("/chain/htlc_deadline/blocks_left");
    if let Some(left) = left.and_then(Value::as_i64).filter(|_| !is_attached) {
        said = format!("{said}; first HTLC {}", expiry(left));
    }
    if let Some(refusal @ Value::Object(_)) = info.pointer("/signer/last_refusal") {
        let (ago, reason) = (since(refusal, "/at", now), text(refusal, "/reason"));
        said = format!("{said}; refused one {ago} ago: {reason}");
    }
    said
}

/// Live links by tag and identity.
fn links(info: &Value) -> String {
    format!(
        "{} channel-bearing, {} gossip-only, {} persona",
        text(info, "/links/channel_bearing"),
        text(info, "/links/gossip_only"),
        text(info, "/links/persona"),
    )
}

/// Peers by state; states without a peer are left out.
fn peers(info: &Value) -> String {
    let states = info.get("peers").and_then(Value::as_object);
    let states = states.into_iter().flatten().filter(|(state, count)| {
        *state != "total" && count.as_u64().is_some_and(|count| count > 0)
    });
    let states: Vec<String> = states
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    let total = text(info, "/peers/total");
    if states.is_empty() {
        total
    } else {
        format!("{total}: {}", states.join(", "))
    }
}

fn lapse(info: &Value, now: f64) -> String {
    match info.get("last_lapse") {
        Some(lapse @ Value::Object(_)) => format!(
            "{} ago: {}, fence {} µs, teardown {} ms, {} dropped, {} retained",
            since(lapse, "/at", now),
            text(lapse, "/reason"),
            text(lapse, "/fence_us"),
            text(lapse, "/teardown_ms"),
            text(lapse, "/dropped"),
            text(lapse, "/retained")
        ),
        _ => "none".to_owned(),
    }
}

/// A fact, its name before it, on at most `rows` lines.
fn fact<'a>(name: &str, value: &str, width: usize, rows: usize, theme: Theme) -> Vec<Line<'a>> {
    let width = width.saturating_sub(NAME);
    let mut parts: Vec<String> = Vec::new();
    for word in value.split_whitespace() {
        let fits = |part: &String| {
            let together = part.chars().count() + 1 + word.chars().count();
            together <= width
        };
        let full = parts.len() >= rows;
        match parts.last_mut().filter(|part| full || fits(part)) {
            Some(part) => {
                part.push(' ');
                part.push_str(word);
            }
            None => parts.push(word.to_owned()),
        }
    }
    let lines = parts.iter().enumerate().map(|(number, part)| {
        let name = if number == 0 { name } else { "" };
        Line::from(vec![
            Span::styled(format!("{name:<NAME$}"), theme.dim()),
            Span::raw(cut(part, width)),
        ])
    });
    lines.collect()
}
