//! What goes wrong with a peer book: what, where, and what to do about it.

use crate::error::{Culprit, Retry};
use std::path::{Path, PathBuf};

/// The book could not do what it was asked. Whatever it is, the file on disk is left as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// The file belongs to something else.
    #[error("{} is not a peer book: {detail}", path.display())]
    NotABook {
        /// The file.
        path: PathBuf,
        /// What gives it away.
        detail: String,
    },
    /// The file is a peer book that has been damaged.
    #[error("the peer book {} is corrupted: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damage shows.
        detail: String,
    },
    /// A later version of this software has written the file.
    #[error(
        "the peer book {} is of version {found}; this software knows versions up to {known}",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest known here.
        known: i64,
    },
    /// Another process keeps its peers there.
    #[error("the peer book {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Another program has locked the database for longer than the book waits.
    #[error("the peer book {} is locked by another program", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder cannot be written to.
    #[error("the peer book {} cannot be written to: {detail}", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What the system says.
        detail: String,
    },
    /// There is no room left on its disk.
    #[error("the disk of the peer book {} is full", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or change it.
    #[error("the peer book {} is open to others (mode {mode:03o})", path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds more peers than the supervisor takes.
    #[error("the peer book {} holds more than {most} peers", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// The bound.
        most: usize,
    },
    /// The system refuses something else.
    #[error("cannot {action} the peer book {}: {detail}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        detail: String,
    },
    /// The book has been closed, or its thread is gone.
    #[error("the peer book has been closed")]
    Closed,
    /// From a book of an embedder's own.
    #[error("the peer book: {0}")]
    Other(String),
}

impl BookError {
    /// Whose fault it is: mostly whoever looks after the disk.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::Closed => Culprit::Us,
            _ => Culprit::Operator,
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NotABook { .. } | Self::Corrupt { .. } | Self::Newer { .. } => {
                "a damaged, foreign or newer file is never changed"
            }
            Self::InUse { .. } | Self::Locked { .. } => "one process a book",
            Self::TooOpen { .. } => "a book is its owner's alone: 0600",
            Self::TooMany { .. } => "limits::PEERS_MAX",
            _ => "a book that can be read and written",
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::InUse { .. }
            | Self::Locked { .. }
            | Self::Full { .. }
            | Self::ReadOnly { .. }
            | Self::File { .. }
            | Self::Other(_) => Retry::Later,
            _ => Retry::Never,
        }
    }

    /// Which file it is about; `None` when the error does not say.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::NotABook { path, .. }
            | Self::Corrupt { path, .. }
            | Self::Newer { path, .. }
            | Self::InUse { path }
            | Self::Locked { path }
            | Self::ReadOnly { path, .. }
            | Self::Full { path }
            | Self::TooOpen { path, .. }
            | Self::TooMany { path, .. }
            | Self::File { path, .. } => Some(path),
            Self::Closed | Self::Other(_) => None,
        }
    }

    /// What the operator can do about it.
    pub fn what_to_do(&self) -> String {
        match self {
            Self::NotABook { .. } => {
                "move the file away, or give another path; it was not changed".into()
            }
            Self::Corrupt { path, .. } => format!(
                "it was not changed: keep a copy, then put a backup in its place, or move it and {}-wal away to begin with an empty book",
                path.display()
            ),
            Self::Newer { .. } => {
                "run the newer software, or move the file away to begin with an empty book; it was not changed".into()
            }
            Self::InUse { .. } => {
                "stop the other process, or give this one a book of its own".into()
            }
            Self::Locked { .. } => "close the program that has the database open".into(),
            Self::ReadOnly { .. } => {
                "let the user that runs this write to the file and to its folder".into()
            }
            Self::Full { .. } => "make room; what could not be written is tried again".into(),
            Self::TooOpen { path, .. } => format!("run `chmod 600 {}`", path.display()),
            Self::TooMany { .. } => "remove peers from it, or begin with an empty book".into(),
            Self::File { .. } => {
                "check the disk, and that the user that runs this owns the folder".into()
            }
            Self::Closed => "open the book again".into(),
            Self::Other(_) => "see to whatever keeps the book".into(),
        }
    }
}
