//! The terminal: taken, and given back however this ends. A panic, of any thread, gives it back before it is told of; so does every
//! signal that ends or stops a process, but SIGKILL and SIGSTOP.

use super::feed::News;
use super::look::Key;
use crate::cli::failure::Failure;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, enable_raw_mode};
use ratatui::{DefaultTerminal, Frame};
use rustix::process::{Signal, getpid, kill_process};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

static PANICKED: AtomicBool = AtomicBool::new(false);

/// The terminal in raw mode, on its other screen. Dropping it gives it back.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes it. From now on a panic gives it back first.
    pub(super) fn take() -> Result<Self, Failure> {
        let taken = ratatui::try_init();
        let terminal = taken.map_err(|error| {
            ratatui::restore();
            failed(&error)
        })?;
        let given_back = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::Relaxed);
            given_back(panic);
        }));
        Ok(Self { terminal })
    }

    /// Gives it back and stops the process, as the shell expects of a job that is sent to the background; takes it again when it goes
    /// on.
    pub(super) fn suspend(&mut self) -> Result<(), Failure> {
        let mut stop = || -> io::Result<()> {
            ratatui::try_restore()?;
            self.terminal.show_cursor()?;
            // Nothing can catch this one; what asked for it was caught.
            kill_process(getpid(), Signal::STOP)?;
            enable_raw_mode()?;
            execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
            // What was drawn before is forgotten, so that all is drawn anew: `clear` would ask the terminal where its cursor is, and whoever
            // reads the keyboard would get the answer.
            self.terminal.swap_buffers();
            Ok(())
        };
        stop().map_err(|error| failed(&error))
    }

    pub(super) fn draw(&mut self, with: impl FnOnce(&mut Frame<'_>)) -> Result<(), Failure> {
        self.terminal
            .draw(with)
            .map(drop)
            .map_err(|error| failed(&error))
    }
}

/// Whether a thread of this process has panicked since the terminal was taken.
pub(super) fn has_panicked() -> bool {
    PANICKED.load(Ordering::Relaxed)
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After a panic it has been given back, and what was told of the panic is not to be written over. The cursor is shown as
        // `terminal` goes.
        if !has_panicked() {
            // Nothing is left to be done for a terminal that is gone.
            let _ = ratatui::try_restore();
        }
    }
}

fn failed(error: &io::Error) -> Failure {
    Failure::failed(
        format!("the terminal cannot be used: {error}"),
        "standard output",
        "use --once for lines, or pipe it through cat",
    )
}

/// Reads the keyboard until the terminal or its reader is gone.
pub(super) fn read(sender: &SyncSender<News>) {
    while let Ok(event) = event::read() {
        let news = match event {
            Event::Key(event) if is_suspend(event) => Some(News::Suspend),
            Event::Key(event) => key(event).map(News::Key),
            Event::Resize(..) => Some(News::Resized),
            _ => None,
        };
        if news.is_some_and(|news| sender.send(news).is_err()) {
            return;
        }
    }
}

/// Ctrl-Z, which a terminal in raw mode makes no signal of.
fn is_suspend(event: KeyEvent) -> bool {
    event.kind == KeyEventKind::Press
        && event.code == KeyCode::Char('z')
        && event.modifiers == KeyModifiers::CONTROL
}

fn key(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let with = |modifier| event.modifiers.contains(modifier);
    Some(match event.code {
        KeyCode::Char('c' | 'd') if with(KeyModifiers::CONTROL) => Key::Interrupt,
        KeyCode::Char(_) if with(KeyModifiers::CONTROL) || with(KeyModifiers::ALT) => return None,
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_c_is_not_a_letter() {
        let press = |letter, modifiers| key(KeyEvent::new(KeyCode::Char(letter), modifiers));
        assert_eq!(press('c', KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(press('c', KeyModifiers::NONE), Some(Key::Char('c')));
        assert_eq!(press('Q', KeyModifiers::SHIFT), Some(Key::Char('Q')));
        assert_eq!(press('z', KeyModifiers::CONTROL), None);
        let suspends = |modifiers| is_suspend(KeyEvent::new(KeyCode::Char('z'), modifiers));
        assert!(suspends(KeyModifiers::CONTROL) && !suspends(KeyModifiers::NONE));
    }
}
