//! The peers, a row each, with as many columns as there is room for, and their history in what is left.

use super::draw::short;
use super::lane::{Standing, Window};
use super::model::{Model, Peer, Reach};
use super::theme::Theme;
use crate::cli::words::short_age;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// The fewest columns that the history takes before another column of the table goes.
const HISTORY: usize = 12;

/// The most: one screen of it is enough.
const HISTORY_MAX: usize = 240;

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Peer,
    State,
    Tag,
    Identity,
    Direction,
    Since,
    In,
    Out,
    Gossip,
    Address,
}

/// In the order in which they stand; with the width, and how much each is wanted: the higher goes first where there is no room.
const COLUMNS: [(Column, &str, usize, u8); 10] = [
    (Column::Peer, "PEER", 12, 0),
    (Column::State, "STATE", 7, 1),
    (Column::Tag, "TAG", 7, 2),
    (Column::Identity, "ID", 7, 3),
    (Column::Direction, "DIR", 3, 6),
    (Column::Since, "UP", 4, 4),
    (Column::In, "IN", 5, 7),
    (Column::Out, "OUT", 5, 8),
    (Column::Gossip, "GOSSIP", 6, 5),
    (Column::Address, "ADDRESS", 21, 9),
];

/// Which columns there is room for, and how wide the history is then.
fn fitting(width: usize) -> (Vec<(Column, &'static str, usize)>, usize) {
    for wanted in (0..=9).rev() {
        let columns: Vec<_> = COLUMNS
            .iter()
            .filter(|(_, _, _, want)| *want <= wanted)
            .map(|(column, name, width, _)| (*column, *name, *width))
            .collect();
        let taken: usize = columns.iter().map(|(_, _, width)| width + 1).sum();
        let history = width.saturating_sub(taken);
        if history >= HISTORY || wanted == 0 {
            return (columns, history.min(HISTORY_MAX));
        }
    }
    (Vec::new(), 0)
}

/// Draws it. `now` is ours, in Unix seconds.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &mut Model, theme: Theme, now: f64) {
    if area.height == 0 {
        return;
    }
    let room = usize::from(area.height.saturating_sub(1));
    model.scroll(room);
    let (columns, history) = fitting(usize::from(area.width));
    let window = Window {
        now: model.daemon_time(now),
        step: model.look.step(),
        columns: history,
    };
    let rows = model.rows();
    let mut lines = vec![heading(model, &columns, &window, rows.len(), theme)];
    let lapses: Vec<bool> = lapse_columns(model, &window);
    let shown = rows.iter().skip(model.look.top).take(room);
    lines.extend(shown.map(|peer| row(model, peer, &columns, &window, &lapses, theme)));
    if rows.is_empty() {
        let said = match (&model.reach, model.peers.len()) {
            (Reach::Answers, 0) => "no peers: add one with `pilotlight peer add`".to_owned(),
            (Reach::Answers, all) => format!("none of {all} peers fits the filter"),
            _ => String::new(),
        };
        lines.push(Line::styled(said, theme.dim()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// In which columns of the history a lapse was.
pub(super) fn lapse_columns(model: &Model, window: &Window) -> Vec<bool> {
    let mut columns = vec![false; window.columns];
    for lapse in &model.lapses {
        let column = window.column(*lapse);
        if let Some(mark) = column.and_then(|column| columns.get_mut(column)) {
            *mark = true;
        }
    }
    columns
}

/// The names of the columns, and over the history what a column is and where lapses and returns were.
fn heading<'a>(
    model: &Model,
    columns: &[(Column, &'static str, usize)],
    window: &Window,
    rows: usize,
    theme: Theme,
) -> Line<'a> {
    let names = columns.iter().map(|(column, name, width)| {
        let name = match column {
            Column::Peer if rows > model.look.page => format!(
                "PEER {}-{}/{rows}",
                model.look.top.saturating_add(1),
                model.look.top.saturating_add(model.look.page).min(rows)
            ),
            _ => (*name).to_owned(),
        };
        pad(&name, *width)
    });
    let mut spans = vec![Span::styled(names.collect::<String>(), Style::new().bold())];
    let scale = format!("{} a sign", short_age(f64::from(window.step)));
    let mut scale: Vec<Span<'_>> = scale
        .chars()
        .chain(std::iter::repeat(' '))
        .take(window.columns)
        .map(|letter| Span::styled(letter.to_string(), theme.dim()))
        .collect();
    let (lapse, attach) = theme.marks();
    let lapses = model.lapses.iter().map(|at| (*at, lapse, theme.bad()));
    let attaches = model.attaches.iter().map(|at| (*at, attach, theme.good()));
    for (at, sign, style) in attaches.chain(lapses) {
        let column = window.column(at);
        if let Some(place) = column.and_then(|column| scale.get_mut(column)) {
            *place = Span::styled(sign, style);
        }
    }
    spans.extend(scale);
    Line::from(spans)
}

fn row<'a>(
    model: &Model,
    peer: &Peer,
    columns: &[(Column, &'static str, usize)],
    window: &Window,
    lapses: &[bool],
    theme: Theme,
) -> Line<'a> {
    // Of a daemon that is gone, what it said last is shown as it was then.
    let (standing, as_of) = match model.reach {
        Reach::Answers => (peer.standing(), window.now),
        Reach::Asking | Reach::Lost { .. } => (Standing::Unknown, model.answered),
    };
    let cells = columns.iter().map(|(column, _, width)| {
        let style = match column {
            Column::Peer => Style::new(),
            Column::State => theme.style(standing),
            Column::Tag if peer.is_channel_bearing() => Style::new().bold(),
            Column::Identity if peer.standing() == Standing::Persona => {
                theme.style(Standing::Persona)
            }
            _ => theme.dim(),
        };
        Span::styled(pad(&cell(*column, peer, as_of), *width), style)
    });
    let mut spans: Vec<Span<'_>> = cells.collect();
    spans.extend(history(model, peer, window, lapses, theme));
    let is_selected = model.look.selected.as_ref() == Some(&peer.id);
    let style = if is_selected {
        Style::new().reversed()
    } else {
        Style::new()
    };
    Line::from(spans).style(style)
}

/// How a peer has stood, a sign a column, with lapses across.
pub(super) fn history<'a>(
    model: &Model,
    peer: &Peer,
    window: &Window,
    lapses: &[bool],
    theme: Theme,
) -> Vec<Span<'a>> {
    let lane = model.lane(&peer.id);
    let columns = lane.map_or_else(Vec::new, |lane| lane.columns(window));
    let signs = columns.into_iter().zip(lapses).map(|(standing, lapse)| {
        if *lapse {
            let (sign, style) = theme.lapse();
            Span::styled(sign, style)
        } else {
            Span::styled(theme.sign(standing), theme.style(standing))
        }
    });
    signs.collect()
}

fn cell(column: Column, peer: &Peer, now: f64) -> String {
    let age = |then: Option<f64>| then.map_or_else(|| "-".to_owned(), |then| short_age(now - then));
    let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    match column {
        Column::Peer => short(&peer.id),
        Column::State => peer.state.clone(),
        // The first part tells them apart.
        Column::Tag => peer.tag.split('-').next().unwrap_or_default().to_owned(),
        Column::Identity => word(&peer.identity),
        Column::Direction => word(&peer.direction).trim_end_matches("bound").to_owned(),
        Column::Since => age(peer.since),
        Column::In => count(peer.frames_in),
        Column::Out => count(peer.frames_out),
        Column::Gossip => age(peer.last_gossip_at),
        Column::Address => peer.addr.clone(),
    }
}

/// A count in five characters: `999`, `1.2k`, `123k`, `1.2M`.
fn count(count: Option<u64>) -> String {
    let Some(count) = count else {
        return "-".to_owned();
    };
    let units = [
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ];
    let unit = units.into_iter().find(|(size, _)| count >= *size);
    match unit {
        None => count.to_string(),
        Some((size, unit)) if count / size < 10 => {
            format!("{}.{}{unit}", count / size, count % size * 10 / size)
        }
        Some((size, unit)) => format!("{}{unit}", count / size),
    }
}

/// Exactly `width` characters and a space.
fn pad(text: &str, width: usize) -> String {
    let cut: String = text.chars().take(width).collect();
    format!("{cut:<width$} ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_takes_five_characters_at_most() {
        for (given, shown) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.0k"),
            (1_234, "1.2k"),
            (99_999, "99k"),
            (999_999, "999k"),
            (1_950_000, "1.9M"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(count(Some(given)), shown);
        }
        assert_eq!(count(None), "-");
    }

    #[test]
    fn the_history_goes_before_a_column_that_is_wanted_less() {
        let names = |width| {
            fitting(width)
                .0
                .iter()
                .map(|(_, name, _)| *name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(200).len(), COLUMNS.len());
        assert_eq!(names(30), ["PEER"]);
        assert_eq!(names(50), ["PEER", "STATE", "TAG", "ID"]);
        for width in 0..300 {
            let (columns, history) = fitting(width);
            let taken: usize = columns.iter().map(|(_, _, width)| width + 1).sum();
            let is_all = columns.len() == 1 || history >= HISTORY && taken + history <= width;
            assert!(is_all, "{width}: {columns:?}, {history}");
        }
    }
}
