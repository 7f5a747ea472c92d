//! What a person sees: lines with the time, and on a terminal a small table below them that is redrawn.
//!
//! Never writes escape sequences to anything but a terminal, nor colours where `NO_COLOR` is set or `TERM` is `dumb`. A closed
//! pipe is nobody's fault: what cannot be written is dropped.

use super::lock;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Columns that a cell of the table takes.
const CELL: usize = 37;

/// Lines that are kept: ten times those of one story.
const TOLD: usize = 1000;

/// How something is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
    Warm,
}

impl Ink {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "1;31",
            Self::Warm => "1;33",
        }
    }
}

/// One peer's cell in the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) state: &'static str,
    pub(super) up: bool,
    /// Messages from the peer and to it.
    pub(super) counts: (u64, u64),
}

/// Where the story is told.
pub(super) struct Screen {
    started: Instant,
    kind: Kind,
    colour: bool,
    table: Mutex<Table>,
    told: Mutex<Vec<String>>,
}

/// What is drawn below the lines.
#[derive(Debug, Clone, Copy, Default)]
struct Table {
    /// The lines that it takes, just above the cursor.
    drawn: usize,
    /// No more is drawn.
    frozen: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Silent,
    Lines,
    Terminal,
}

impl Screen {
    /// On standard output; `silent` writes nothing.
    pub(super) fn new(silent: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = std::io::stdout().is_terminal() && !dumb;
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let kind = match (silent, terminal) {
            (true, _) => Kind::Silent,
            (false, true) => Kind::Terminal,
            (false, false) => Kind::Lines,
        };
        Self {
            started: Instant::now(),
            kind,
            colour,
            table: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Whether somebody watches: then the story goes at a human pace.
    pub(super) fn is_watched(&self) -> bool {
        self.kind == Kind::Terminal
    }

    /// Since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What happened, with the time.
    pub(super) fn say(&self, ink: Ink, text: &str) {
        let at = self.elapsed().as_secs_f64();
        self.keep(format!("{at:5.1} s  {text}"));
        let time = self.paint(Ink::Dim, &format!("{at:5.1} s"));
        self.print(&format!("{time}  {}", self.paint(ink, text)));
    }

    /// More about it, below it.
    pub(super) fn add(&self, text: &str) {
        let line = format!("         {text}");
        self.print(&line);
        self.keep(line);
    }

    fn keep(&self, line: String) {
        let mut told = lock(&self.told);
        if told.len() < TOLD {
            told.push(line);
        }
    }

    /// What was told so far, without colours.
    pub(super) fn told(&self) -> Vec<String> {
        lock(&self.told).clone()
    }

    /// A line without the time.
    pub(super) fn line(&self, ink: Ink, text: &str) {
        self.print(&self.paint(ink, text));
    }

    /// Text in that ink, where there is colour.
    pub(super) fn paint(&self, ink: Ink, text: &str) -> String {
        if self.colour && ink != Ink::Plain && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", ink.code())
        } else {
            text.to_owned()
        }
    }

    /// Draws the table anew; only on a terminal.
    pub(super) fn draw(&self, headings: (&str, &str), left: &[Lane], right: &[Lane]) {
        if self.kind != Kind::Terminal {
            return;
        }
        let rows = left.len().max(right.len());
        let mut out = String::from("\n");
        let heading = format!("  {:<37}{}", headings.0, headings.1);
        let _ = writeln!(out, "{}", self.paint(Ink::Bold, &heading));
        for row in 0..rows {
            let cell = |lanes: &[Lane]| {
                lanes
                    .get(row)
                    .map_or_else(|| " ".repeat(CELL), |lane| self.cell(lane))
            };
            let _ = writeln!(out, "  {}{}", cell(left), cell(right));
        }
        let mut table = lock(&self.table);
        if !table.frozen {
            self.write(&format!("{}{out}", erase(table.drawn)));
            table.drawn = rows.saturating_add(2);
        }
    }

    /// Takes the table away for good.
    pub(super) fn freeze(&self) {
        let mut table = lock(&self.table);
        self.write(&erase(table.drawn));
        *table = Table {
            drawn: 0,
            frozen: true,
        };
    }

    fn cell(&self, lane: &Lane) -> String {
        let ink = if lane.up { Ink::Good } else { Ink::Warm };
        let state = self.paint(ink, &format!("{:<9}", lane.state));
        let counts = format!("in {:>5} out {:>5}  ", lane.counts.0, lane.counts.1);
        format!("{:<9}{state}{}", lane.name, self.paint(Ink::Dim, &counts))
    }

    fn print(&self, line: &str) {
        let mut table = lock(&self.table);
        self.write(&format!("{}{line}\n", erase(table.drawn)));
        table.drawn = 0;
    }

    fn write(&self, text: &str) {
        if self.kind == Kind::Silent {
            return;
        }
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Goes up that many lines and clears all below.
fn erase(lines: usize) -> String {
    if lines == 0 {
        String::new()
    } else {
        format!("\x1b[{lines}A\x1b[J")
    }
}
