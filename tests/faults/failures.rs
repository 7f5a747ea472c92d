//! Which failures a fault can lead to in each phase, at either end: no cell may show another. More than one where two things race.

use std::fmt::{Debug, Display};
use std::io;

use pilotlight::brontide::{Act, HandshakeError};
use pilotlight::limits;
use pilotlight::link::{CloseReason, Direction, HandshakeFailure};
use pilotlight::signer::agent::AgentError;
use rustix::io::Errno;
use rustls::{AlertDescription, Error as Tls};

use crate::ldk;
use crate::proxy::Fault;
use crate::signer::Phase;

/// How far into what it strikes a fault does so: so much arrives of what is cut.
pub(crate) const INSIDE: usize = 5;

fn reset() -> io::Error {
    io::Error::from_raw_os_error(Errno::CONNRESET.raw_os_error())
}

/// Of these, the one that was told in that label and those words.
pub(crate) fn one_of<E: Display + Debug>(
    can_be: Vec<E>,
    label: impl Fn(&E) -> &'static str,
    (told, detail): (&'static str, &str),
) -> E {
    let expected = format!("{can_be:?}");
    let mut all = can_be.into_iter();
    let found = all.find(|error| label(error) == told && error.to_string() == detail);
    found.unwrap_or_else(|| panic!("{told}, {detail}: it can only be one of {expected}"))
}

/// A handshake between the node and LDK, as the node tells of it.
pub(crate) fn of_handshake(
    role: ldk::Role,
    phase: ldk::Phase,
    fault: Fault,
) -> Vec<HandshakeFailure> {
    use ldk::{Phase as P, Role as R};
    // What the node awaits then, and whether that is what the fault strikes; else it is what LDK awaits.
    let (act, is_struck) = match (role, phase) {
        (R::WeDial, P::ActOne) => (2, false),
        (R::WeDial, P::ActTwo) => (2, true),
        (R::WeDial, P::ActThree | P::Return) => return before_init(fault, false),
        (R::TheyDial, P::ActOne) => (1, true),
        (R::TheyDial, P::ActTwo | P::Return) => (3, false),
        (R::TheyDial, P::ActThree) => (3, true),
        (_, P::Init) => return before_init(fault, true),
        (_, other) => panic!("no hands are shaken in {other:?}"),
    };
    match fault {
        Fault::Flip | Fault::Reorder if is_struck => spoilt(act),
        // LDK closes, having read all that was sent.
        Fault::Flip | Fault::Reorder => vec![HandshakeFailure::Closed { act, received: 0 }],
        Fault::Cut => {
            let received = if is_struck { INSIDE } else { 0 };
            vec![HandshakeFailure::Closed { act, received }]
        }
        Fault::Reset => {
            let source = reset();
            vec![HandshakeFailure::Io { act, source }]
        }
        Fault::HalfOpen => vec![HandshakeFailure::Timeout { act }],
        Fault::Drip | Fault::Delay | Fault::Narrow => Vec::new(),
    }
}

/// What is wrong with an act in whose key some bits are.
fn spoilt(act: u8) -> Vec<HandshakeFailure> {
    let of_ephemeral = |act| {
        // Half of all numbers are points.
        vec![HandshakeError::Point { act }, HandshakeError::Tag { act }]
    };
    let errors = match act {
        1 => of_ephemeral(Act::One),
        2 => of_ephemeral(Act::Two),
        _ => vec![HandshakeError::Ciphertext { act: Act::Three }],
    };
    errors.into_iter().map(HandshakeFailure::Protocol).collect()
}

/// The node has done its acts, and awaits LDK's `init`. `is_struck`: as above.
fn before_init(fault: Fault, is_struck: bool) -> Vec<HandshakeFailure> {
    let reasons: &[CloseReason] = match fault {
        Fault::Flip | Fault::Reorder if is_struck => &[CloseReason::Transport],
        // LDK resets what it closes when our `init` has come and is not read.
        Fault::Flip | Fault::Reorder => &[CloseReason::PeerClosed, CloseReason::Io],
        Fault::Cut => &[CloseReason::PeerClosed],
        Fault::Reset => &[CloseReason::Io],
        Fault::HalfOpen => &[CloseReason::InitTimeout],
        Fault::Drip | Fault::Delay | Fault::Narrow => &[],
    };
    let reasons = reasons.iter().copied();
    reasons.map(HandshakeFailure::BeforeInit).collect()
}

/// The end of a link between them, as the node tells of it.
pub(crate) fn of_link(
    phase: ldk::Phase,
    direction: Direction,
    fault: Fault,
) -> &'static [CloseReason] {
    match (fault, direction) {
        (Fault::Flip | Fault::Reorder, Direction::Inbound) => &[CloseReason::Transport],
        // LDK closes. There is nothing behind a ping; what comes behind a message makes a reset of it, unless it is read.
        (Fault::Flip | Fault::Reorder, Direction::Outbound) if phase == ldk::Phase::Idle => {
            &[CloseReason::PeerClosed]
        }
        (Fault::Flip | Fault::Reorder, Direction::Outbound) => {
            &[CloseReason::PeerClosed, CloseReason::Io]
        }
        (Fault::Cut, _) => &[CloseReason::PeerClosed],
        (Fault::Reset, _) => &[CloseReason::Io],
        (Fault::HalfOpen, _) => &[CloseReason::PongTimeout],
        (Fault::Drip | Fault::Delay | Fault::Narrow, _) => &[],
    }
}

/// The agent's connection, as the agent tells of it.
pub(crate) fn of_agent(phase: Phase, fault: Fault) -> Vec<AgentError> {
    use Phase as P;
    // Who finds out what is wrong: the agent, or the gateway, which says so in TLS; and the agent hears it, unless something of its
    // own comes behind what is wrong, and makes a reset of the end.
    let seen = || AgentError::Http2(Tls::DecryptError.to_string());
    let heard = || {
        let alert = Tls::AlertReceived(AlertDescription::BadRecordMac);
        AgentError::Http2(alert.to_string())
    };
    match (fault, phase) {
        (Fault::Flip | Fault::Reorder, P::Hello | P::Answer) => {
            let error = io::Error::new(io::ErrorKind::InvalidData, Tls::DecryptError);
            vec![AgentError::Tls(error)]
        }
        (Fault::Cut, P::Hello | P::Answer) => {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
            vec![AgentError::Tls(error)]
        }
        (Fault::Reset, P::Hello | P::Answer) => vec![AgentError::Tls(reset())],
        (Fault::HalfOpen, P::Hello | P::Answer) => vec![AgentError::Late {
            step: "the TLS handshake",
            limit: limits::CONNECT_DEADLINE,
        }],
        (Fault::HalfOpen, P::Call | P::Proof | P::Return) => vec![AgentError::Late {
            step: "the registration",
            limit: limits::AGENT_REGISTRATION_DEADLINE,
        }],
        (Fault::HalfOpen, P::Idle | P::Transfer | P::Lapse) => vec![AgentError::Silent],
        (Fault::Flip | Fault::Reorder, P::Call | P::Proof | P::Transfer) => {
            vec![heard(), AgentError::HungUp]
        }
        (Fault::Flip | Fault::Reorder, P::Idle) => vec![heard()],
        (Fault::Flip | Fault::Reorder, P::Lapse | P::Return) => vec![seen()],
        (Fault::Cut | Fault::Reset, _) => vec![AgentError::HungUp],
        // The gateway's last words come, however late.
        (Fault::Drip | Fault::Delay | Fault::Narrow, P::Lapse) => vec![AgentError::Ended],
        (Fault::Drip | Fault::Delay | Fault::Narrow, _) => Vec::new(),
    }
}

/// A signer that does not get as far as the seat, as the gateway tells of it: a label, and whether it knows whose macaroon it was.
pub(crate) fn of_gateway(phase: Phase, fault: Fault) -> &'static [(&'static str, bool)] {
    use Phase as P;
    match (fault, phase) {
        // Once the session is live, its end is a lapse.
        (Fault::Drip | Fault::Delay | Fault::Narrow, _) | (_, P::Idle | P::Transfer | P::Lapse) => {
            &[]
        }
        (Fault::HalfOpen, P::Hello | P::Answer | P::Call) => &[("tls_late", false)],
        (_, P::Hello | P::Answer | P::Call) => &[("tls_broken", false)],
        (Fault::HalfOpen, P::Proof) => &[("proof_late", true)],
        (_, P::Proof) => &[("stream_closed", true)],
        // What is struck are its first words behind the handshake: what has come by then of the agent's call, nobody knows.
        (Fault::HalfOpen, P::Return) => &[
            ("http2_late", false),
            ("call_late", false),
            ("registration_late", true),
            ("proof_late", true),
        ],
        (_, P::Return) => &[
            ("http2", false),
            ("no_call", false),
            ("stream_closed", true),
        ],
    }
}
