//! Acts one to three of BOLT 8, both roles, as types: every step consumes the state it leaves.
//!
//! ```text
//!   initiator   InitiatorStart ─act one─▶ AwaitActTwo ─act two in─▶ InitiatorEcdh ─reply in, act three out─▶ Authenticated
//!   responder   AwaitActOne ─act one in─▶ ResponderEcdh ─reply in, act two out─▶ AwaitActThree ─act three in─▶ Authenticated
//! ```
//! The static key is elsewhere. Noise XK needs exactly one ECDH with it: the initiator's in act three, after act two has proved that
//! the peer is live and genuine; the responder's in act one, before its tag can be checked. There the machine stops in a state that
//! holds an [`EcdhRequest`], and the caller resumes it with the reply. It can wait there for as long as the caller lets it.
//!
//! A failed step leaves no state to go on with, and whatever secrets there were are wiped. An [`Authenticated`] is proof that all three acts passed:
//! nothing else makes one. This file never calls a signer, never reads a socket, a clock or random bytes.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use super::{
    noise::{Engine, StepError, TransportKeys},
    session::Session,
};
use crate::{
    error::{Culprit, Retry},
    node_id::{LocalKey, NodeId, POINT_LEN, Point},
    secret::SharedSecret,
};

/// BOLT 8 § Authenticated Key Exchange Handshake Specification: act one is exactly 50 bytes.
pub const ACT_ONE_LEN: usize = 50;
/// Act two is exactly 50 bytes.
pub const ACT_TWO_LEN: usize = 50;
/// Act three is exactly 66 bytes.
pub const ACT_THREE_LEN: usize = 66;
/// BOLT 8 § Handshake Versioning: the only version there is. `snow` does not see this byte.
const VERSION: u8 = 0;

/// One of the three messages of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// `-> e, es`
    One,
    /// `<- e, ee`
    Two,
    /// `-> s, se`
    Three,
}

impl Act {
    /// How many bytes it is, version included: what to read before the step is taken.
    pub const fn size(self) -> usize {
        match self {
            Self::One => ACT_ONE_LEN,
            Self::Two => ACT_TWO_LEN,
            Self::Three => ACT_THREE_LEN,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "act one",
            Self::Two => "act two",
            Self::Three => "act three",
        })
    }
}

/// Which side of the handshake this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It dialled.
    Initiator,
    /// It was dialled.
    Responder,
}

/// Why a handshake failed, and in which act. BOLT 8 wants every one of them answered by closing the connection, "without any further messages".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The act is short or long, mostly because the connection ended in its middle.
    #[error("{act} is {expected} bytes, got {got}")]
    Length {
        /// Which act.
        act: Act,
        /// Bytes that make it.
        expected: usize,
        /// Bytes there were.
        got: usize,
    },
    /// The act's first byte is not 0.
    #[error("{act} has the unknown version {version}")]
    Version {
        /// Which act.
        act: Act,
        /// Its first byte.
        version: u8,
    },
    /// The key in the act is no point of the curve: ephemeral in acts one and two, static in act three.
    #[error("the key in {act} is no point of secp256k1")]
    Point {
        /// Which act.
        act: Act,
    },
    /// The encrypted static key in act three fails its tag.
    #[error("the encrypted key in {act} fails its tag")]
    Ciphertext {
        /// Which act.
        act: Act,
    },
    /// The act's last tag does not fit: in act one the caller does not know our key, in act two the answer is not from the node that was dialled (or it does not
    /// hold its key), in act three the caller does not hold the key that it names. A signer that answers an ECDH wrongly looks like this too, on the responder's side.
    #[error("the tag of {act} does not fit")]
    Tag {
        /// Which act.
        act: Act,
    },
    /// The Noise engine did what it never should. A bug.
    #[error("the handshake engine failed in {act}: {what}")]
    Internal {
        /// Which act.
        act: Act,
        /// What it did.
        what: &'static str,
    },
}

impl HandshakeError {
    /// The act that failed.
    pub fn act(&self) -> Act {
        match *self {
            Self::Length { act, .. }
            | Self::Version { act, .. }
            | Self::Point { act }
            | Self::Ciphertext { act }
            | Self::Tag { act }
            | Self::Internal { act, .. } => act,
        }
    }

    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::Internal { .. } => Culprit::Us,
            _ => Culprit::Peer,
        }
    }

    /// The rule that was broken, a numbered step of BOLT 8's *Receiver Actions*.
    pub fn rule(&self) -> &'static str {
        match (self, self.act()) {
            (Self::Internal { .. }, _) => "BOLT 8 § Handshake Exchange",
            (Self::Length { .. }, Act::One) => {
                "BOLT 8 § Act One, Receiver Actions 1: exactly 50 bytes"
            }
            (Self::Length { .. }, Act::Two) => {
                "BOLT 8 § Act Two, Receiver Actions 1: exactly 50 bytes"
            }
            (Self::Length { .. }, Act::Three) => {
                "BOLT 8 § Act Three, Receiver Actions 1: exactly 66 bytes"
            }
            (Self::Version { .. }, Act::One) => {
                "BOLT 8 § Act One, Receiver Actions 3: unrecognized handshake version"
            }
            (Self::Version { .. }, Act::Two) => {
                "BOLT 8 § Act Two, Receiver Actions 3: unrecognized handshake version"
            }
            (Self::Version { .. }, Act::Three) => {
                "BOLT 8 § Act Three, Receiver Actions 3: unrecognized handshake version"
            }
            (Self::Point { .. }, Act::One) => {
                "BOLT 8 § Act One, Receiver Actions 2: re is a point on the curve"
            }
            (Self::Point { .. }, Act::Two) => {
                "BOLT 8 § Act Two, Receiver Actions 5: re is a point on the curve"
            }
            (Self::Point { .. }, Act::Three) => {
                "BOLT 8 § Act Three, Receiver Actions 6: rs is a point on the curve"
            }
            (Self::Ciphertext { .. }, _) => {
                "BOLT 8 § Act Three, Receiver Actions 4: decryptWithAD(temp_k2, 1, h, c)"
            }
            (Self::Tag { .. }, Act::One) => {
                "BOLT 8 § Act One, Receiver Actions 7: decryptWithAD(temp_k1, 0, h, c)"
            }
            (Self::Tag { .. }, Act::Two) => {
                "BOLT 8 § Act Two, Receiver Actions 7: decryptWithAD(temp_k2, 0, h, c)"
            }
            (Self::Tag { .. }, Act::Three) => {
                "BOLT 8 § Act Three, Receiver Actions 8: decryptWithAD(temp_k3, 0, h, t)"
            }
        }
    }

    /// Whether a new handshake may succeed: a peer may be repaired, or its address be another's today; a bug stays.
    pub fn retry(&self) -> Retry {
        match self.culprit() {
            Culprit::Us => Retry::Never,
            _ => Retry::Later,
        }
    }

    /// A short word for metrics, the one that BOLT 8's test vectors use (in lower case).
    pub fn label(&self) -> &'static str {
        match (self, self.act()) {
            (Self::Internal { .. }, _) => "internal",
            (Self::Length { .. }, Act::One) => "act1_read_failed",
            (Self::Length { .. }, Act::Two) => "act2_read_failed",
            (Self::Length { .. }, Act::Three) => "act3_read_failed",
            (Self::Version { .. }, Act::One) => "act1_bad_version",
            (Self::Version { .. }, Act::Two) => "act2_bad_version",
            (Self::Version { .. }, Act::Three) => "act3_bad_version",
            (Self::Point { .. }, Act::One) => "act1_bad_pubkey",
            (Self::Point { .. }, Act::Two) => "act2_bad_pubkey",
            (Self::Point { .. }, Act::Three) => "act3_bad_pubkey",
            (Self::Ciphertext { .. }, _) => "act3_bad_ciphertext",
            (Self::Tag { .. }, Act::One) => "act1_bad_tag",
            (Self::Tag { .. }, Act::Two) => "act2_bad_tag",
            (Self::Tag { .. }, Act::Three) => "act3_bad_tag",
        }
    }

    fn of(act: Act, step: StepError) -> Self {
        match (act, step) {
            (Act::Three, StepError::Tag { opened: 0 }) => Self::Ciphertext { act },
            (_, StepError::Tag { .. }) => Self::Tag { act },
            (_, StepError::Point) => Self::Point { act },
            (_, StepError::Fault(what)) => Self::Internal { act, what },
        }
    }
}

/// The one thing that a handshake needs the static key for: its ECDH with `point`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct EcdhRequest {
    /// The other side's ephemeral key.
    pub point: Point,
}

/// The dialling side before act one. There is nothing to hold: [`InitiatorStart::new`] sends at once.
#[derive(Debug)]
pub enum InitiatorStart {}

impl InitiatorStart {
    /// Makes act one: `local` dials `remote`, whose key must be known, with an `ephemeral` key that was never used before.
    ///
    /// # Errors
    /// [`HandshakeError::Internal`] only.
    #[expect(
        clippy::new_ret_no_self,
        reason = "the state that it makes is the one after act one"
    )]
    pub fn new(
        local: NodeId,
        remote: NodeId,
        ephemeral: LocalKey,
    ) -> Result<(AwaitActTwo, [u8; ACT_ONE_LEN]), HandshakeError> {
        let failed = |step| HandshakeError::of(Act::One, step);
        let mut engine = Engine::initiator(local, remote, ephemeral).map_err(failed)?;
        let mut act = [VERSION; ACT_ONE_LEN];
        let [_, body @ ..] = &mut act;
        engine.write(body).map_err(failed)?;
        Ok((
            AwaitActTwo {
                engine,
                local,
                remote,
            },
            act,
        ))
    }
}

/// The dialling side, act one sent.
#[must_use]
pub struct AwaitActTwo {
    engine: Engine,
    local: NodeId,
    remote: NodeId,
}

impl AwaitActTwo {
    /// Checks act two: after it, the peer is known to be live and to hold the key that was dialled.
    ///
    /// # Errors
    /// Any [`HandshakeError`] of act two but `Ciphertext`.
    pub fn act_two(mut self, act: &[u8]) -> Result<InitiatorEcdh, HandshakeError> {
        let body = versioned(Act::Two, act)?;
        let point = ephemeral_point(Act::Two, body)?;
        self.engine.remember(point);
        self.engine
            .read(body)
            .map_err(|step| HandshakeError::of(Act::Two, step))?;
        Ok(InitiatorEcdh {
            waiting: self,
            point,
        })
    }
}

/// The dialling side, waiting for the static key's ECDH.
#[must_use]
pub struct InitiatorEcdh {
    waiting: AwaitActTwo,
    point: Point,
}

impl InitiatorEcdh {
    /// What to ask the holder of the static key.
    pub fn request(&self) -> EcdhRequest {
        EcdhRequest { point: self.point }
    }

    /// Makes act three from the reply, and with it the session. A wrong reply shows only at the other side, which closes.
    ///
    /// # Errors
    /// [`HandshakeError::Internal`] only.
    pub fn resume(
        self,
        reply: SharedSecret,
    ) -> Result<([u8; ACT_THREE_LEN], Authenticated), HandshakeError> {
        let failed = |step| HandshakeError::of(Act::Three, step);
        let AwaitActTwo {
            mut engine,
            local,
            remote,
        } = self.waiting;
        let mut act = [VERSION; ACT_THREE_LEN];
        let [_, body @ ..] = &mut act;
        engine.answer(self.point, reply);
        engine.write(body).map_err(failed)?;
        let keys = engine.into_keys().map_err(failed)?;
        Ok((
            act,
            Authenticated {
                keys,
                local,
                remote,
                role: Role::Initiator,
            },
        ))
    }
}

/// The dialled side, before act one.
#[must_use]
pub struct AwaitActOne {
    local: NodeId,
    ephemeral: LocalKey,
}

impl AwaitActOne {
    /// Awaits a caller of `local`, to be answered with an `ephemeral` key that was never used before.
    pub fn new(local: NodeId, ephemeral: LocalKey) -> Self {
        Self { local, ephemeral }
    }

    /// Checks what can be checked of act one without the static key: length, version, point. Its tag has to wait for the reply.
    /// The state after it is small, so that many can be parked: no Noise engine has been made yet.
    ///
    /// # Errors
    /// [`HandshakeError::Length`], `Version` or `Point`, of act one.
    pub fn act_one(self, act: &[u8]) -> Result<ResponderEcdh, HandshakeError> {
        let point = ephemeral_point(Act::One, versioned(Act::One, act)?)?;
        let act = act.try_into().map_err(|_| wrong_length(Act::One, act))?;
        Ok(ResponderEcdh {
            start: self,
            act,
            point,
        })
    }
}

/// The dialled side, waiting for the static key's ECDH.
#[must_use]
pub struct ResponderEcdh {
    start: AwaitActOne,
    act: [u8; ACT_ONE_LEN],
    point: Point,
}

impl ResponderEcdh {
    /// What to ask the holder of the static key. Nothing proves yet that the caller knows this node.
    pub fn request(&self) -> EcdhRequest {
        EcdhRequest { point: self.point }
    }

    /// Checks act one's tag with the reply and makes act two.
    ///
    /// # Errors
    /// [`HandshakeError::Tag`] of act one: the caller does not know our key. `Internal` otherwise.
    pub fn resume(
        self,
        reply: SharedSecret,
    ) -> Result<(AwaitActThree, [u8; ACT_TWO_LEN]), HandshakeError> {
        let AwaitActOne { local, ephemeral } = self.start;
        let failed = |step| HandshakeError::of(Act::One, step);
        let mut engine = Engine::responder(local, ephemeral).map_err(failed)?;
        engine.remember(self.point);
        engine.answer(self.point, reply);
        let [_, body @ ..] = &self.act;
        engine.read(body).map_err(failed)?;
        let mut act = [VERSION; ACT_TWO_LEN];
        let [_, body @ ..] = &mut act;
        engine
            .write(body)
            .map_err(|step| HandshakeError::of(Act::Two, step))?;
        Ok((AwaitActThree { engine, local }, act))
    }
}

/// The dialled side, act two sent.
#[must_use]
pub struct AwaitActThree {
    engine: Engine,
    local: NodeId,
}

impl AwaitActThree {
    /// Checks act three, which names the caller and proves that it holds that key.
    ///
    /// # Errors
    /// Any [`HandshakeError`] of act three.
    pub fn act_three(mut self, act: &[u8]) -> Result<Authenticated, HandshakeError> {
        let failed = |step| HandshakeError::of(Act::Three, step);
        let body = versioned(Act::Three, act)?;
        self.engine.read(body).map_err(failed)?;
        let remote = self.engine.remote().map_err(failed)?;
        let keys = self.engine.into_keys().map_err(failed)?;
        Ok(Authenticated {
            keys,
            local: self.local,
            remote,
            role: Role::Responder,
        })
    }
}

/// Proof that a handshake passed: who is at the other end, and the keys to talk to them. Only the last step of either role makes one.
///
/// ```compile_fail
/// fn print(proof: pilotlight::brontide::Authenticated) { println!("{proof:?}"); }
/// ```
#[must_use]
pub struct Authenticated {
    keys: TransportKeys,
    local: NodeId,
    remote: NodeId,
    role: Role,
}

impl Authenticated {
    /// The peer, which has proved that it holds this key.
    pub fn remote(&self) -> NodeId {
        self.remote
    }

    /// The key that this end has used: the node's, or a persona's.
    pub fn local(&self) -> NodeId {
        self.local
    }

    /// Which side this end is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// BOLT 8 § Act Three: "`sk` is the key to be used by the initiator to encrypt messages to the responder"; the responder has them the other way round.
    pub fn into_session(self) -> Session {
        let forth = &self.keys.initiator_to_responder;
        let back = &self.keys.responder_to_initiator;
        let (sending, receiving) = match self.role {
            Role::Initiator => (forth, back),
            Role::Responder => (back, forth),
        };
        Session::new(&self.keys.chaining_key, sending, receiving)
    }
}

/// The act without its version byte, if it has the right length and version.
fn versioned(act: Act, bytes: &[u8]) -> Result<&[u8], HandshakeError> {
    match bytes {
        _ if bytes.len() != act.size() => Err(wrong_length(act, bytes)),
        [VERSION, body @ ..] => Ok(body),
        [version, ..] => Err(HandshakeError::Version {
            act,
            version: *version,
        }),
        [] => Err(wrong_length(act, bytes)),
    }
}

fn wrong_length(act: Act, bytes: &[u8]) -> HandshakeError {
    HandshakeError::Length {
        act,
        expected: act.size(),
        got: bytes.len(),
    }
}

/// The key that acts one and two begin with.
fn ephemeral_point(act: Act, body: &[u8]) -> Result<Point, HandshakeError> {
    let point = body.get(..POINT_LEN).unwrap_or_default();
    Point::parse(point).map_err(|_| HandshakeError::Point { act })
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
