//! `pilotlight top`: the running daemon at a glance, kept current.
//!
//! - `feed`: asks the daemon and follows its events, in threads of its own;
//! - `model`, `look`, `lane`: what is to be seen, pure;
//! - `draw`, `head`, `table`, `overlay`, `letters`, `theme`: how it looks on a terminal;
//! - `terminal`: takes the terminal, and gives it back however this ends;
//! - `lines`: the same where there is no terminal.
//!
//! It only reads, with the token that may only read. It goes on while no daemon answers.

mod draw;
mod feed;
mod head;
mod lane;
mod letters;
mod lines;
mod look;
mod model;
mod overlay;
mod table;
mod terminal;
mod theme;

#[cfg(test)]
mod tests;

use super::args::TopArguments;
use super::client::Client;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::span;
use super::words::unix_now;
use feed::News;
use model::Model;
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use terminal::Screen;
use theme::Theme;

/// How often the daemon may be asked: a tenth of a second costs it a snapshot of all peers, and an hour is long enough to sleep.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// The clock on the screen goes on by seconds.
const TICK: Duration = Duration::from_secs(1);

/// Between two drawings, however much happens; a key is answered at once.
const FRAME: Duration = Duration::from_millis(100);

/// Shows it until the user has seen enough.
pub(super) fn run(
    client: &Client,
    arguments: &TopArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let interval = interval(&arguments.interval)?;
    if arguments.once {
        return lines::once(client, output);
    }
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if output.json || is_dumb || !is_terminal {
        return lines::keep(client, interval, output);
    }
    let mut screen = Screen::take()?;
    let news = feed::start(client, interval)?;
    watch(&mut screen, &news)
}

fn interval(text: &str) -> Result<Duration, Failure> {
    let (shortest, longest) = INTERVALS;
    let interval = span::parse(text, "--interval")?;
    if (shortest..=longest).contains(&interval) {
        Ok(interval)
    } else {
        Err(Failure::usage(
            format!("an interval of {text} is too short or too long"),
            "--interval",
            "write a duration from 100ms to 1h",
        ))
    }
}

/// Draws what there is, takes in what comes, until a key or a signal says to leave.
fn watch(screen: &mut Screen, news: &Receiver<News>) -> Result<Exit, Failure> {
    let theme = Theme::of_the_environment();
    let mut model = Model::new();
    loop {
        screen.draw(|frame| draw::draw(frame, &mut model, theme, unix_now()))?;
        let drawn = Instant::now();
        let mut deadline = drawn + TICK;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (is_key, goes_on) = match news.recv_timeout(left) {
                Ok(News::Suspend) => {
                    screen.suspend()?;
                    (true, true)
                }
                Ok(news) => (
                    matches!(news, News::Key(_) | News::Resized),
                    take(&mut model, news),
                ),
                Err(RecvTimeoutError::Timeout) => break,
                // Nobody is left to tell anything: they have all panicked.
                Err(RecvTimeoutError::Disconnected) => (false, false),
            };
            if !goes_on {
                return ended();
            }
            if is_key {
                break;
            }
            deadline = deadline.min(drawn + FRAME);
        }
    }
}

/// How it ends: well, unless what ended it was a panic elsewhere.
fn ended() -> Result<Exit, Failure> {
    if terminal::has_panicked() {
        return Err(Failure::failed(
            "a part of it has panicked, as told above",
            "pilotlight top",
            "this is not your doing: please report it",
        ));
    }
    Ok(Exit::Ok)
}

/// `false`: to leave.
fn take(model: &mut Model, news: News) -> bool {
    match news {
        News::Status { asked, info, peers } => model.status(asked, info, &peers),
        News::Event(event) => model.event(event),
        News::Lost { at, problem } => model.lost(at, problem),
        News::Key(key) => return model.key(key),
        News::Resized | News::Suspend => {}
        News::Stop => return false,
    }
    true
}
