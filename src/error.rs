//! Vocabulary that every layer's error shares: whose fault it was and what a caller may do about it.
//!
//! Each layer has one error enum of its own; this file only holds what they all answer with.

use std::fmt;
use std::io;

/// Whose misdeed or misfortune an error reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Culprit {
    /// This process: a bug, or a bound of our own.
    Us,
    /// The other end of a connection, or the network between.
    Peer,
    /// Whatever answers ECDH for the node.
    Signer,
    /// Whoever wrote the configuration, the flag or the file.
    Operator,
}

/// What a caller may do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call may succeed later; wait as the backoff says.
    Later,
    /// The same call may succeed once a signer is attached.
    WhenSignerReturns,
    /// The same call will fail again until somebody changes something.
    Never,
}

/// Of an `accept` that failed: the connection at the head of the queue was gone before it was taken. That says nothing of the next.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

impl Culprit {
    /// A lower-case word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Peer => "peer",
            Self::Signer => "signer",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
