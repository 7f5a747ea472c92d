//! Why an agent's dial or stream ended. Every end leads to another dial: who is wrong today may be right tomorrow.
//!
//! It never carries a macaroon or an answer; what a server said is cut short and stripped of control characters.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::error::{Culprit, Retry};
use crate::limits::AGENT_TEXT_MAX;
use crate::signer::gateway::{CredentialsError, MacaroonError};

/// Why a dial or a stream ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The certificate or the macaroon cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The macaroon's file holds none.
    #[error("the macaroon's file holds no macaroon: {0}")]
    Macaroon(#[from] MacaroonError),
    /// `HOST:PORT` is not that.
    #[error("`{0}` is not HOST:PORT")]
    Server(String),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The server shows another certificate than the one that was pinned.
    #[error(
        "the server shows another certificate than the one in the file: copy its present one, or find out who answers there"
    )]
    OtherCertificate,
    /// No TLS, or none that both know.
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    /// The server speaks TLS, but not HTTP/2.
    #[error("the server does not speak HTTP/2")]
    NoHttp2,
    /// HTTP/2 broke.
    #[error("HTTP/2 failed: {0}")]
    Http2(String),
    /// The server refused the call: a macaroon that it does not accept, or another signer that is there already.
    #[error("the server refused the call: {code}: {message}")]
    Denied {
        /// The gRPC status, in words.
        code: &'static str,
        /// The server's text.
        message: String,
    },
    /// The server refused the registration.
    #[error("the server refused the registration: {0}")]
    Rejected(String),
    /// The server ended the stream.
    #[error("the server ended the stream")]
    Ended,
    /// The server closed the connection without a word: it stopped, or has no place for this signer.
    #[error(
        "the server closed the connection: it has stopped, has no place for this signer, or lost its network"
    )]
    HungUp,
    /// A step took too long.
    #[error("{step} took longer than {limit:?}")]
    Late {
        /// Which.
        step: &'static str,
        /// Its limit.
        limit: Duration,
    },
    /// Nothing came back on the connection, not even the acknowledgement of a PING.
    #[error("the connection is dead: no acknowledgement of a PING")]
    Silent,
    /// The server takes no answers.
    #[error("the server does not read its answers")]
    Clogged,
    /// The key's holder panicked.
    #[error("the signer panicked on a request")]
    SignerPanicked,
}

impl AgentError {
    /// A short name, for events and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Credentials(_) => "credentials",
            Self::Macaroon(_) => "macaroon",
            Self::Server(_) => "server_name",
            Self::Connect(_) => "connect",
            Self::OtherCertificate => "other_certificate",
            Self::Tls(_) => "tls",
            Self::NoHttp2 => "no_http2",
            Self::Http2(_) => "http2",
            Self::Denied { .. } => "denied",
            Self::Rejected(_) => "rejected",
            Self::Ended => "ended",
            Self::HungUp => "hung_up",
            Self::Late { .. } => "late",
            Self::Silent => "silent",
            Self::Clogged => "clogged",
            Self::SignerPanicked => "signer_panicked",
        }
    }
    /// Whose fault it was; the server is the peer here.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::Credentials(error) => error.culprit(),
            Self::Macaroon(_) | Self::Server(_) | Self::OtherCertificate => Culprit::Operator,
            Self::SignerPanicked => Culprit::Signer,
            _ => Culprit::Peer,
        }
    }
    /// The rule that was broken.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Credentials(error) => error.rule(),
            Self::Macaroon(error) => error.rule(),
            Self::OtherCertificate | Self::Tls(_) | Self::NoHttp2 => {
                "signer protocol: TLS with the pinned certificate, ALPN h2"
            }
            Self::Late { .. } => {
                "limits: AGENT_REGISTRATION_DEADLINE, AGENT_PING_DEADLINE, CONNECT_DEADLINE"
            }
            Self::Silent => "limits: AGENT_PING_DEADLINE",
            Self::Clogged => "limits: AGENT_ANSWERS",
            _ => "signer protocol: SignCoordinatorStreams",
        }
    }
    /// Whether to try again. The agent itself always does.
    pub fn retry(&self) -> Retry {
        match self.culprit() {
            Culprit::Operator => Retry::Never,
            _ => Retry::Later,
        }
    }

    /// Whether dialling again helps only once somebody has changed something.
    pub(super) fn needs_an_operator(&self) -> bool {
        self.culprit() == Culprit::Operator
            || matches!(self, Self::Denied { .. } | Self::Rejected(_))
    }

    /// What has broken HTTP/2: a connection that was closed as a process closes it that ends, with no farewell in TLS or HTTP/2 and no
    /// failure either; or something else.
    pub(super) fn broken(error: &h2::Error) -> Self {
        use io::ErrorKind as K;
        match error.get_io().map(io::Error::kind) {
            // A reset is the same with something of ours unread.
            Some(K::UnexpectedEof | K::ConnectionReset | K::BrokenPipe) => Self::HungUp,
            _ => Self::Http2(error.to_string()),
        }
    }

    pub(super) fn denied(status: &tonic::Status) -> Self {
        use tonic::Code;
        let code = match status.code() {
            Code::Ok => return Self::Ended,
            Code::Unauthenticated => "unauthenticated",
            Code::PermissionDenied => "permission denied",
            Code::ResourceExhausted => "resource exhausted",
            Code::FailedPrecondition => "failed precondition",
            Code::Unavailable => "unavailable",
            Code::Unimplemented => "unimplemented",
            Code::AlreadyExists => "already exists",
            Code::Internal => "internal error",
            Code::DeadlineExceeded => "deadline exceeded",
            Code::Cancelled => "cancelled",
            Code::Aborted => "aborted",
            _ => "error",
        };
        Self::Denied {
            code,
            message: shorten(status.message()),
        }
    }

    pub(super) fn rejected(reason: &str) -> Self {
        Self::Rejected(shorten(reason))
    }
}

fn shorten(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(AGENT_TEXT_MAX)
        .collect()
}
