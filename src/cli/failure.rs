//! How a command ends: its exit code, and for an error what, where and what to do.

use crate::admin::{AdminError, Problem};
use crate::book::BookError;
use crate::signer::KeyFileError;
use crate::signer::gateway::CredentialsError;
use std::path::Path;
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

impl From<BookError> for Failure {
    fn from(error: BookError) -> Self {
        type E = BookError;
        let exit = match &error {
            E::NotABook { .. }
            | E::Corrupt { .. }
            | E::Newer { .. }
            | E::TooOpen { .. }
            | E::TooMany { .. } => Exit::Usage,
            _ => Exit::Failed,
        };
        let place = error.path().map_or_else(
            || "the peer book".to_owned(),
            |path| path.display().to_string(),
        );
        Self {
            exit,
            problem: Problem::new(error.to_string(), place, error.what_to_do()),
        }
    }
}

impl From<CredentialsError> for Failure {
    fn from(error: CredentialsError) -> Self {
        type E = CredentialsError;
        let what = error.to_string();
        let place = |path: &Path| path.display().to_string();
        match &error {
            E::NotFound { path } => Self::usage(
                what,
                place(path),
                "give the right path, or copy the file there",
            ),
            E::File { path, .. } => Self::usage(
                what,
                place(path),
                "let the user that runs this own the file and its directory",
            ),
            E::TooOpen { path, .. } => Self::usage(
                what,
                place(path),
                format!(
                    "run `chmod 600 {}`, and renew what it holds",
                    path.display()
                ),
            ),
            E::Content { path, .. } => Self::usage(
                what,
                place(path),
                "restore it from a copy; or move it away, and a new one is made: the signer then needs a new certificate or macaroon",
            ),
            E::Mismatch { certificate, .. } => Self::usage(
                what,
                place(certificate),
                "run `pilotlight signer renew-certificate`, and give the signer the new certificate",
            ),
            E::Host { .. } => Self::usage(
                what,
                "the certificate's hosts",
                "write a DNS name or an IP address, without a port",
            ),
            _ => Self::failed(
                what,
                "this process",
                "this is not your doing: please report it",
            ),
        }
    }
}

/// A key that cannot be used; `other` says how another one is given.
pub(super) fn bad_key(error: &KeyFileError, path: &Path, other: &str) -> Failure {
    let path = path.display();
    let to_do = match error {
        KeyFileError::Unreadable { .. } | KeyFileError::Unwritable { .. } => {
            format!("let the user that runs this own {path} and its directory, or {other}")
        }
        KeyFileError::TooOpen { .. } => {
            format!("run `chmod 600 {path}`, and think of the key as known if others could read it")
        }
        KeyFileError::NotFound { .. } => {
            format!("give the right path, or make a key with `pilotlight key --new {path}`")
        }
        KeyFileError::NoEntropy(_) => {
            "start again; if it stays, the system's randomness is broken".to_owned()
        }
        _ => format!(
            "restore {path} from a copy; or move it away, and a new key is made, with which the node has another id"
        ),
    };
    Failure::usage(error.to_string(), path.to_string(), to_do)
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
