//! What goes wrong in this layer, and the one shape in which an operator is told: what, where, what to do.

use crate::error::{Culprit, Retry};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What a person or a script is told of an error; the `error` of every JSON answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What went wrong.
    pub what: String,
    /// Which file, field, flag, address or path it is about.
    #[serde(rename = "where")]
    pub place: String,
    /// What to do about it.
    pub what_to_do: String,
}

impl Problem {
    /// From three texts.
    pub fn new(
        what: impl Into<String>,
        place: impl Into<String>,
        to_do: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            place: place.into(),
            what_to_do: to_do.into(),
        }
    }
}

/// Why the admin address or the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The address is in use, or not this machine's.
    #[error("cannot listen for commands on {address}: {source}")]
    Bind {
        /// Where it should have.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The data directory, or a file in it, cannot be made, read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others than the owner may read or change what must be private.
    #[error("{} is open to others (mode {mode:03o})", path.display())]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// A token file does not hold 64 hex digits.
    #[error("{} does not hold a token: 64 hex digits", path.display())]
    NotAToken {
        /// The file.
        path: PathBuf,
    },
    /// Another daemon runs with this data directory.
    #[error("another daemon runs on {}", path.display())]
    Occupied {
        /// The data directory.
        path: PathBuf,
    },
    /// The system gave no randomness.
    #[error("the system gives no random bytes for a token: {0}")]
    NoEntropy(String),
    /// A metrics recorder is installed already, or its settings are wrong.
    #[error("the metrics recorder cannot be installed: {0}")]
    Recorder(String),
}

impl AdminError {
    pub(super) fn file(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::NoEntropy(_) | Self::Recorder(_) => Culprit::Us,
            _ => Culprit::Operator,
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Bind { .. } | Self::Recorder(_) => "design.md § The daemon's face",
            _ => "data directory: 0700, one daemon; token files: 0600, 64 hex digits",
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Bind { .. } | Self::Occupied { .. } | Self::NoEntropy(_) => Retry::Later,
            _ => Retry::Never,
        }
    }

    /// For the operator.
    pub fn problem(&self) -> Problem {
        let what = self.to_string();
        match self {
            Self::Bind { address, .. } => Problem::new(
                what,
                format!("--admin {address}"),
                "stop whatever has the port, or give another address (port 0: any free one)",
            ),
            Self::File { path, .. } => Problem::new(
                what,
                path.display().to_string(),
                "let the user that runs this own the directory and write to it, or give another with --data-dir",
            ),
            Self::TooOpen { path, wanted, .. } => Problem::new(
                what,
                path.display().to_string(),
                format!(
                    "run `chmod {wanted:o} {}`; if others could read a token, remove its file and start again: a new one is made",
                    path.display()
                ),
            ),
            Self::NotAToken { path } => Problem::new(
                what,
                path.display().to_string(),
                "remove the file and start the daemon again: a new token is made",
            ),
            Self::Occupied { path } => Problem::new(
                what,
                path.display().to_string(),
                "stop the other daemon, or give this one a directory of its own with --data-dir",
            ),
            Self::NoEntropy(_) | Self::Recorder(_) => Problem::new(
                what,
                "this process",
                "this is not your doing: please report it",
            ),
        }
    }
}
