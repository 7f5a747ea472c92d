//! How a command ends: its exit code, and for an error what, where and what to do.

use crate::admin::{AdminError, Problem};
use std::process::ExitCode;

/// The exit codes, as the module's doc lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Ok,
    Failed,
    Usage,
    NoDaemon,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoDaemon => 3,
        })
    }
}

/// An error that ends a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) problem: Problem,
}

impl Failure {
    /// What was asked could not be done.
    pub(super) fn failed(
        what: impl Into<String>,
        place: impl Into<String>,
        to_do: impl Into<String>,
    ) -> Self {
        Self {
            exit: Exit::Failed,
            problem: Problem::new(what, place, to_do),
        }
    }

    /// What was asked makes no sense.
    pub(super) fn usage(
        what: impl Into<String>,
        place: impl Into<String>,
        to_do: impl Into<String>,
    ) -> Self {
        Self {
            exit: Exit::Usage,
            problem: Problem::new(what, place, to_do),
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        let exit = match error {
            AdminError::TooOpen { .. } | AdminError::NotAToken { .. } => Exit::Usage,
            _ => Exit::Failed,
        };
        Self {
            exit,
            problem: error.problem(),
        }
    }
}

/// The known word that is most like `word`, if any is like it at all.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), *candidate));
    scored
        .filter(|(score, _)| *score > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
