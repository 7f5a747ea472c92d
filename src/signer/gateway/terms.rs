//! The words of a stream's [machine](super::machine): what happens to it, what it says, how it ends.
//!
//! Pure. It never holds a point, an answer or a secret.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::budget::Throttle;
use super::queue::{Class, Ticket};
use crate::clock::Moment;
use crate::limits;

/// What a request asks for, and so which answer fits: the field's name in `SignCoordinatorRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `shared_key_request`.
    Ecdh,
    /// `proof_request`: an ECDH whose answer is bound to the certificate, which only our agent knows.
    Proof,
    /// `ping`.
    Ping,
    /// A request of the node's that is only passed on, by its field number (5 to 13).
    Pass(u32),
}

impl Kind {
    /// Whether the signer computes an ECDH for it.
    pub(super) fn is_ecdh(self) -> bool {
        matches!(self, Self::Ecdh | Self::Proof)
    }

    pub(super) fn is_pass(self) -> bool {
        matches!(self, Self::Pass(_))
    }

    pub(super) fn stalled_after(self) -> Duration {
        match self {
            Self::Ecdh | Self::Proof | Self::Ping => limits::SIGNER_STALLED_AFTER,
            Self::Pass(_) => limits::SIGNING_STALLED_AFTER,
        }
    }

    pub(super) fn abandon_after(self) -> Duration {
        match self {
            Self::Ecdh | Self::Proof | Self::Ping => limits::SIGNER_ABANDON_AFTER,
            Self::Pass(_) => limits::SIGNING_ABANDON_AFTER,
        }
    }
}

/// In which order a registrant proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Registrant {
    /// lnd's signer takes nothing but a registration response first: completed, then challenged.
    Lnd,
    /// Our own agent: challenged first.
    Agent,
}

/// What a message of the signer's holds, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// `sign_registration`.
    Registration(Registrant),
    /// An answer of this kind.
    Answer(Kind),
    /// `signer_error`.
    Error,
    /// Nothing that we know.
    Nothing,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A message came.
    Received {
        /// Its `ref_request_id`.
        reply_to: u64,
        /// What it holds.
        body: Body,
    },
    /// Whether the answer that an [`Output::Verify`] was about is that of the identity key.
    Verified(bool),
    /// The seat is this stream's, and the session is attached.
    Seated,
    /// The seat went to another, or the session could not be attached.
    Refused,
    /// Its registration is not to be considered.
    Bar,
    /// Somebody wants an answer.
    Submit {
        /// By which the answer is handed back.
        ticket: Ticket,
        /// What for.
        kind: Kind,
        /// How much it matters.
        class: Class,
        /// After it nobody wants the answer.
        deadline: Moment,
    },
    /// Nobody wants it any more.
    Cancel(Ticket),
    /// An HTTP/2 PING was acknowledged.
    PingAcked,
    /// A newcomer has proved itself: this one must show life within [`limits::CONTEST_DEADLINE`].
    Contest,
    /// The stream ended or broke.
    Closed,
    /// Its connection takes no more of what it is sent.
    Clogged,
    /// The session was ended from outside.
    Lapsed,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send `registration_complete`.
    Complete,
    /// Send `registration_error`.
    Deny(End),
    /// Send a challenge: a fresh point, as this kind of request.
    SendChallenge(u64, Kind),
    /// Send `ping`.
    SendPing(u64),
    /// Send an HTTP/2 PING, unless one is unanswered.
    HttpPing,
    /// Send the request of this ticket under this id.
    Send(u64, Ticket),
    /// The message at hand answers the latest challenge: compare, and say [`Input::Verified`] next.
    Verify,
    /// The proof is good: ask for the seat, and say [`Input::Seated`] or [`Input::Refused`].
    Contend,
    /// The message at hand is this ticket's answer (or its `signer_error`).
    Answered(Ticket),
    /// There will be no answer.
    Failed(Ticket, Failure),
    /// The contest is over: this one lives.
    Alive,
    /// The contest is over: this one is dead.
    Dead,
    /// A request has headed the queue for too long while the stream is alive; or no longer so.
    Stalled(bool),
    /// The message at hand fits nothing; it is ignored and counted.
    Odd(Oddity),
    /// The stream is over: lapse. What still waited fails after it.
    End(End),
}

/// Why a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A bound was met before the signer was asked.
    Throttled(Throttle),
    /// Its deadline passed; or it has been with the signer for [`limits::SIGNER_ABANDON_AFTER`] ([`limits::SIGNING_ABANDON_AFTER`] for a
    /// request of the node's own), which is longer than any deadline that the gateway itself sets.
    Late,
    /// The signer answered something else.
    WrongType,
    /// The stream ended.
    Away,
}

/// A message that fits nothing. The words are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Oddity {
    /// Its request's deadline had passed.
    Late,
    /// Its request is answered already, or was given up long ago.
    Repeated,
    /// No request of that id was ever sent.
    Unknown,
    /// It answers another type than was asked.
    WrongType,
    /// It holds nothing that is known.
    Empty,
}

impl Oddity {
    /// A lower-case word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Repeated => "repeated",
            Self::Unknown => "unknown_id",
            Self::WrongType => "wrong_type",
            Self::Empty => "empty",
        }
    }
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// No registration within [`limits::GATEWAY_STEP_DEADLINE`].
    RegistrationLate,
    /// The first message was no registration, or not under id 1.
    RegistrationWrong,
    /// No answer to the challenge in time.
    ProofLate,
    /// A wrong answer to the challenge.
    ProofWrong,
    /// `signer_error` to the challenge.
    ProofRefused,
    /// It is another node's, by its own word, or held off.
    Barred,
    /// The seat went to another.
    Refused,
    /// The signer closed its stream, or the connection broke.
    Closed,
    /// No life for a liveness window.
    Silent,
    /// [`limits::SIGNER_OUTGOING`] requests wait to be read, while its connection is alive.
    Clogged,
    /// The session was ended from outside: an operator, a take-over, a drain.
    Lapsed,
    /// Too many messages that fit nothing: see [`limits::SIGNER_ODDITIES_MAX`].
    Odd,
}

impl End {
    /// A lower-case word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RegistrationLate => "registration_late",
            Self::RegistrationWrong => "registration_wrong",
            Self::ProofLate => "proof_late",
            Self::ProofWrong => "proof_wrong",
            Self::ProofRefused => "proof_refused",
            Self::Barred => "barred",
            Self::Refused => "refused",
            Self::Closed => "stream_closed",
            Self::Silent => "liveness_lost",
            Self::Clogged => "clogged",
            Self::Lapsed => "lapsed",
            Self::Odd => "protocol_broken",
        }
    }
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Its registration is awaited.
    Registering,
    /// The answer to its challenge is awaited.
    Proving,
    /// It has proved itself and waits for the seat.
    Contending,
    /// It is the signer session.
    Live,
    /// It is over.
    Ended,
}
