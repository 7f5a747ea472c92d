//! How it looks: the model on a terminal of any size. Pure but for the place in the list, which it keeps in the model.
//!
//! ```text
//!  head     the mode in large; signer, links, peers, last lapse
//!  table    the peers, a row each: state, tag, identity, counts, history
//!  events   the last ones
//!  foot     the keys
//! ```

use super::model::{Model, Told};
use super::theme::{Theme, cut};
use super::{head, overlay, table};
use crate::cli::words::{clock, event_fields, text};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use serde_json::Value;

/// Draws everything. `now` is ours, in Unix seconds.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, theme: Theme, now: f64) {
    let area = frame.area();
    let events = match area.height {
        ..14 => 0,
        14..24 => 4,
        24..36 => 6,
        _ => 10,
    };
    let [top, middle, below, last] = Layout::vertical([
        Constraint::Length(head::rows(area)),
        Constraint::Min(0),
        Constraint::Length(events),
        Constraint::Length(u16::from(area.height > 4)),
    ])
    .areas(area);
    head::draw(frame, top, model, theme, now);
    table::draw(frame, middle, model, theme, now);
    draw_events(frame, below, model, theme);
    draw_foot(frame, last, model, theme);
    overlay::draw(frame, area, model, theme, now);
}

/// Enough of a node id to know it by.
pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// The time of day of that moment, to the second.
pub(super) fn time(at: f64) -> String {
    clock(at).chars().take(8).collect()
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    if area.height == 0 {
        return;
    }
    let which = if model.look.all_events {
        "all events"
    } else {
        "events"
    };
    let missed = match model.missed {
        0 => String::new(),
        missed => format!(", {missed} came too fast to be shown"),
    };
    let title = theme.rule(&format!("{which}{missed}"), area.width);
    let mut lines = vec![Line::styled(title, theme.dim())];
    let room = usize::from(area.height.saturating_sub(1));
    let events = model.events();
    let newest = events.iter().skip(events.len().saturating_sub(room));
    lines.extend(newest.map(|told| event_row(told, theme, usize::from(area.width))));
    if events.is_empty() {
        lines.push(Line::styled("nothing has happened yet", theme.dim()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// What is said of an event first, because the end of a line may be cut off.
const FIRST: [&str; 10] = [
    "node_id",
    "from",
    "to",
    "reason",
    "failure",
    "dropped",
    "retained",
    "identity",
    "tag",
    "direction",
];

/// One event on one line: whose, and what matters first.
pub(super) fn event_row<'a>(told: &Told, theme: Theme, width: usize) -> Line<'a> {
    let Told { event, times } = told;
    let at = event.get("at").and_then(Value::as_f64);
    let at = at.map_or_else(|| " ".repeat(8), time);
    let name = text(event, "/event");
    let mut rest = event.clone();
    let mut fields = String::new();
    if *times > 1 {
        fields = format!(" {times} times, the last:");
    }
    if let Value::Object(rest) = &mut rest {
        for field in FIRST {
            let Some(value) = rest.remove(field) else {
                continue;
            };
            let said = match (field, &value) {
                ("node_id", Value::String(id)) => format!(" {}", short(id)),
                _ => event_fields(&Value::Object(
                    [(field.to_owned(), value)].into_iter().collect(),
                )),
            };
            fields.push_str(&said);
        }
    }
    fields.push_str(&event_fields(&rest));
    let room = width.saturating_sub(at.chars().count() + name.chars().count() + 1);
    Line::from(vec![
        Span::styled(at, theme.dim()),
        Span::raw(" "),
        Span::styled(name.clone(), style_of(&name, event, theme)),
        Span::raw(cut(&fields, room)),
    ])
}

/// What an operator must see stands out.
fn style_of(name: &str, event: &Value, theme: Theme) -> Style {
    let is = |field: &str, value: &str| event.get(field).and_then(Value::as_str) == Some(value);
    match name {
        "signer_lapsed" | "signer_stalled" | "inbox_stalled" | "mistag_suspected"
        | "book_failed" => theme.bad(),
        "signer_attached" | "relit" | "link_up" => theme.good(),
        "mode_changed" if is("to", "live") => theme.good(),
        "mode_changed" | "held_down" | "signer_refused" | "signer_taken_over" | "gossip_floor"
        | "link_down" | "dial_failed" | "banned" | "missed" | "listener_behind"
        | "peer_complained" => theme.warning(),
        _ => Style::new(),
    }
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let look = &model.look;
    let line = if look.editing {
        Line::from(vec![
            Span::styled(" filter ", Style::new().reversed()),
            Span::raw(format!(" {}_", look.filter)),
            Span::styled("  Enter keep  Esc clear", theme.dim()),
        ])
    } else {
        let reversed = if look.reversed { ", reversed" } else { "" };
        let filter = if look.filter.is_empty() {
            "/ filter".to_owned()
        } else {
            format!("/ filter: {} (Esc clears)", look.filter)
        };
        let arrows = if theme.is_unicode() {
            "↑↓"
        } else {
            "arrows"
        };
        let keys = [
            "q quit".to_owned(),
            "? help".to_owned(),
            filter,
            format!("s sort: {}{reversed}", look.order.name()),
            format!("{arrows} Enter a peer"),
            "+- history".to_owned(),
            "e events".to_owned(),
        ];
        Line::styled(cut(&keys.join("  "), usize::from(area.width)), theme.dim())
    };
    frame.render_widget(Paragraph::new(line), area);
}
