//! What is printed: tables for people, JSON for scripts. Colours only on a terminal, and never with `NO_COLOR`.

use super::failure::Failure;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};

/// Where answers and errors go, and how.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) json: bool,
    colours: bool,
}

/// How a word is set off on a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Style {
    Bold,
    Good,
    Warning,
    Bad,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            colours: !json && colours(&std::io::stdout()),
        }
    }

    /// Prints a line, at once. `false`: nobody reads any more.
    pub(super) fn line(text: &str) -> bool {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .is_ok()
    }

    /// Prints a value as JSON on one line, or what `human` makes of it.
    pub(super) fn answer(&self, value: &Value, human: impl FnOnce(&Value) -> String) {
        Self::line(&if self.json {
            value.to_string()
        } else {
            human(value)
        });
    }

    /// Prints an error.
    pub(super) fn failure(&self, failure: &Failure) {
        let problem = &failure.problem;
        let text = if self.json {
            json!({ "error": problem }).to_string()
        } else {
            format!(
                "error: {}\n  where: {}\n  what to do: {}",
                problem.what, problem.place, problem.what_to_do
            )
        };
        // There is nowhere else to say it.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Says something beside the answer, to people: on standard error.
    pub(super) fn remark(text: &str) {
        // There is nowhere else to say it.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Sets a text off, if the terminal can.
    pub(super) fn styled(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Bold => "1",
            Style::Good => "32",
            Style::Warning => "33",
            Style::Bad => "31",
        };
        if self.colours {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Columns as wide as their widest cell, two spaces apart.
    pub(super) fn table(&self, heads: &[&str], rows: &[Vec<String>]) -> String {
        let width = |column: usize| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells
                .chain(heads.get(column).map(|head| head.len()))
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> = cells
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            padded.join("  ").trim_end().to_owned()
        };
        let head = self.styled(Style::Bold, &line(&mut heads.iter().copied()));
        let body = rows
            .iter()
            .map(|row| line(&mut row.iter().map(String::as_str)));
        std::iter::once(head)
            .chain(body)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Whether a stream is for eyes that want colours (no-color.org).
pub(super) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_and_aligned() {
        let output = Output {
            json: false,
            colours: false,
        };
        let rows = [
            vec!["a".to_owned(), "long".to_owned()],
            vec!["bcd".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            output.table(&["ID", "T"], &rows),
            "ID   T\na    long\nbcd  x"
        );
    }

    #[test]
    fn a_terminal_gets_a_bold_head() {
        let output = Output {
            json: false,
            colours: true,
        };
        assert_eq!(output.table(&["ID"], &[]), "\u{1b}[1mID\u{1b}[0m");
    }
}
