//! Colours and signs, and what stands in for them: `NO_COLOR`, and a terminal that has ASCII only.

use super::lane::Standing;
use ratatui::style::{Color, Modifier, Style};

/// What the terminal can show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    colours: bool,
    unicode: bool,
}

impl Theme {
    pub(super) fn new(colours: bool, unicode: bool) -> Self {
        Self { colours, unicode }
    }

    /// As the environment says: `NO_COLOR` (no-color.org), and POSIX's order of the locale's variables.
    pub(super) fn of_the_environment() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL")
            .or_else(|| set("LC_CTYPE"))
            .or_else(|| set("LANG"));
        let locale = locale.unwrap_or_default().to_lowercase();
        let unicode = locale.contains("utf-8") || locale.contains("utf8");
        Self::new(set("NO_COLOR").is_none(), unicode)
    }

    pub(super) fn is_unicode(self) -> bool {
        self.unicode
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    pub(super) fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    pub(super) fn warning(self) -> Style {
        self.coloured(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    pub(super) fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// What matters less. No colour: the palette's dark grey is the background's own in some (Solarized's).
    pub(super) fn dim(self) -> Style {
        if self.colours {
            Style::new().add_modifier(Modifier::DIM)
        } else {
            Style::new()
        }
    }

    /// How a peer stands, as a sign that tells it without colour.
    pub(super) fn sign(self, standing: Standing) -> &'static str {
        let (unicode, ascii) = match standing {
            Standing::Unknown => (" ", " "),
            Standing::Up => ("█", "#"),
            Standing::Persona => ("▓", "+"),
            Standing::Idle => ("·", "."),
            Standing::Dialing => ("▂", "~"),
            Standing::Held => ("░", "-"),
            Standing::Down => ("×", "x"),
        };
        if self.unicode { unicode } else { ascii }
    }

    pub(super) fn style(self, standing: Standing) -> Style {
        match standing {
            Standing::Unknown | Standing::Idle => self.dim(),
            Standing::Up => self.good(),
            Standing::Persona => self.coloured(Color::Cyan),
            Standing::Dialing | Standing::Held => self.coloured(Color::Yellow),
            Standing::Down => self.bad(),
        }
    }

    /// A lapse, across all lanes.
    pub(super) fn lapse(self) -> (&'static str, Style) {
        (if self.unicode { "┃" } else { "|" }, self.bad())
    }

    /// The signs of a lapse and of a return, above the lanes.
    pub(super) fn marks(self) -> (&'static str, &'static str) {
        if self.unicode {
            ("▼", "▲")
        } else {
            ("v", "^")
        }
    }

    /// A line across, with a title in it.
    pub(super) fn rule(self, title: &str, width: u16) -> String {
        let dash = if self.unicode { "─" } else { "-" };
        let width = usize::from(width);
        let title = cut(&format!("{dash}{dash} {title} "), width);
        let rest = width.saturating_sub(title.chars().count());
        title + &dash.repeat(rest)
    }
}

/// At most `width` characters; what is cut off shows as two dots, which every terminal has.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    kept + &"..".chars().take(width).collect::<String>()
}
