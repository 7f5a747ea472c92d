//! What a link feeds and drains once the handshake is over: messages in, frames out, and the other way round.
//!
//! ```text
//!           seal, open                    a tag that does not fit
//!   Live ───────────────▶ Live    Live ───────────────────────────▶ Ended(why)    any ── wipe ──▶ Ended(Wiped)
//! ```
//! A failure latches: both directions' secrets are wiped at once, no further byte is processed, every later call answers the same error. BOLT 8
//! offers no way to go on: the nonces of the two ends can no longer agree. Being `Ended` is having no keys: the state that
//! could encrypt does not exist any more.
//!
//! It never waits, never allocates per message on its way in, and can be neither printed nor cloned:
//! ```compile_fail
//! fn print(session: pilotlight::brontide::Session) { println!("{session:?}"); }
//! ```
//! ```compile_fail
//! fn print(session: pilotlight::brontide::Session) { println!("{session}"); }
//! ```
//! ```compile_fail
//! fn twice(session: &pilotlight::brontide::Session) -> pilotlight::brontide::Session { session.clone() }
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::BytesMut;

use super::{
    cipher::{Direction, NONCES_PER_KEY},
    framer::Framer,
};
use crate::{
    error::{Culprit, Retry},
    secret::Secret32,
};

/// One for a message's length and one for itself.
const NONCES_PER_MESSAGE: u64 = 2;

/// Messages under one key, which serves for 1000 nonces (BOLT 8 § Lightning Message Key Rotation).
pub const MESSAGES_PER_KEY: u64 = NONCES_PER_KEY / NONCES_PER_MESSAGE;

/// Why a session refuses, or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A message of ours over 65,535 bytes. Nothing was encrypted; the session goes on.
    #[error("a message of {length} bytes cannot be framed: 65535 is the most")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The tag of an encrypted length does not fit: bytes were changed, lost or repeated, or the keys differ.
    #[error("the tag of a frame's length does not fit")]
    HeaderTag,
    /// The tag of an encrypted message does not fit.
    #[error("the tag of a frame's message does not fit")]
    BodyTag,
    /// The AEAD library refused to encrypt, or a length that cannot be wrong was. A bug.
    #[error("the cipher refused")]
    Cipher,
    /// The secrets have been wiped.
    #[error("the session's secrets have been wiped")]
    Wiped,
}

impl SessionError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::HeaderTag | Self::BodyTag => Culprit::Peer,
            Self::TooLong { .. } | Self::Cipher | Self::Wiped => Culprit::Us,
        }
    }

    /// The rule that was broken.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "BOLT 8 § Lightning Message Specification: at most 65535 bytes",
            Self::HeaderTag => "BOLT 8 § Receiving and Decrypting Messages, step 3",
            Self::BodyTag => "BOLT 8 § Receiving and Decrypting Messages, step 5",
            Self::Cipher => "BOLT 8 § Encrypting and Sending Messages",
            Self::Wiped => "P3: a torn-down link has no secrets",
        }
    }

    /// Whether to try again. Never on this session; a new handshake may be tried.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }

    /// A short word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::HeaderTag => "bad_header_tag",
            Self::BodyTag => "bad_body_tag",
            Self::Cipher => "cipher",
            Self::Wiped => "wiped",
        }
    }
}

enum State {
    Live {
        send: Direction,
        receive: Direction,
        framer: Framer,
    },
    /// Why, and how many nonces each direction had used.
    Ended {
        why: SessionError,
        sent: u64,
        received: u64,
    },
}

/// Both directions of one link's encryption, made by a handshake only: [`Authenticated::into_session`](super::Authenticated::into_session).
#[must_use]
pub struct Session {
    state: State,
}

impl Session {
    /// Each direction gets the handshake's last chaining key as its own (BOLT 8 § Lightning Message Key Rotation, step 1).
    pub(super) fn new(
        chaining_key: &Secret32,
        sending_key: &Secret32,
        receiving_key: &Secret32,
    ) -> Self {
        Self {
            state: State::Live {
                send: Direction::new(chaining_key, sending_key),
                receive: Direction::new(chaining_key, receiving_key),
                framer: Framer::default(),
            },
        }
    }

    /// Encrypts `message` (at most [`MAX_MESSAGE_LEN`](super::MAX_MESSAGE_LEN) bytes) and appends the frame to `out`.
    ///
    /// # Errors
    /// [`SessionError::TooLong`], after which the session goes on; anything else is the session's end, and `out` is as it was.
    pub fn seal(&mut self, message: &[u8], out: &mut BytesMut) -> Result<(), SessionError> {
        let send = match &mut self.state {
            State::Live { send, .. } => send,
            State::Ended { why, .. } => return Err(*why),
        };
        match Framer::seal(send, message, out) {
            Ok(()) => Ok(()),
            Err(refused @ SessionError::TooLong { .. }) => Err(refused),
            Err(failure) => Err(self.end(failure)),
        }
    }

    /// Removes the next whole frame from the front of `input` and returns its message, decrypted in the same memory.
    /// `None`: more bytes are needed, [`Session::needed`] says how many. A length that is already whole is removed at once.
    ///
    /// # Errors
    /// Any is the session's end; what is left of `input` is of no use.
    pub fn open(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, SessionError> {
        let (receive, framer) = match &mut self.state {
            State::Live {
                receive, framer, ..
            } => (receive, framer),
            State::Ended { why, .. } => return Err(*why),
        };
        framer
            .open(receive, input)
            .map_err(|failure| self.end(failure))
    }

    /// How many more bytes make the next header or body whole, if `have` are there; 0 if [`Session::open`] can go on. 0 too once the session has ended.
    pub fn needed(&self, have: usize) -> usize {
        match &self.state {
            State::Live { framer, .. } => framer.needed(have),
            State::Ended { .. } => 0,
        }
    }

    /// Frees what only speeds up the next message (about 600 bytes a direction with AWS-LC). Call it when a link falls idle, not between the messages of a batch.
    pub fn rest(&mut self) {
        if let State::Live { send, receive, .. } = &mut self.state {
            send.rest();
            receive.rest();
        }
    }

    /// Wipes all secrets now. Every later call answers [`SessionError::Wiped`].
    pub fn wipe(&mut self) {
        self.end(SessionError::Wiped);
    }

    /// Whether the session has ended, by a failure or by [`Session::wipe`]: no secret is left and every call fails.
    pub fn is_failed(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// Messages encrypted so far.
    pub fn sent(&self) -> u64 {
        self.uses().0 / NONCES_PER_MESSAGE
    }

    /// Messages decrypted so far.
    pub fn received(&self) -> u64 {
        self.uses().1 / NONCES_PER_MESSAGE
    }

    /// Key rotations so far: of the sending key, of the receiving key.
    pub fn rotations(&self) -> (u64, u64) {
        let (sent, received) = self.uses();
        (sent / NONCES_PER_KEY, received / NONCES_PER_KEY)
    }

    /// Nonces used so far in each direction.
    fn uses(&self) -> (u64, u64) {
        match &self.state {
            State::Live { send, receive, .. } => (send.uses(), receive.uses()),
            State::Ended { sent, received, .. } => (*sent, *received),
        }
    }

    /// Drops the secrets, which wipes them.
    fn end(&mut self, why: SessionError) -> SessionError {
        let (sent, received) = self.uses();
        self.state = State::Ended {
            why,
            sent,
            received,
        };
        why
    }

    #[cfg(test)]
    pub(super) fn directions(&self) -> Option<(&Direction, &Direction)> {
        match &self.state {
            State::Live { send, receive, .. } => Some((send, receive)),
            State::Ended { .. } => None,
        }
    }
}
