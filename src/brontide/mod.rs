//! BOLT 8: encrypted and authenticated transport, without I/O.
//!
//! A handshake is three acts, each a step of a type that the step consumes; it yields an [`Authenticated`], and that a [`Session`], which seals and opens messages.
//! Nothing here reads a socket, a clock or random bytes, spawns, waits, or calls whoever holds the static key: bytes and replies come in as arguments.
//!
//! ```
//! use bytes::BytesMut;
//! use pilotlight::{brontide::{AwaitActOne, InitiatorStart}, node_id::LocalKey};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = |byte: u8| LocalKey::from_bytes(&mut [byte; 32]);
//! let (alice, bob) = (key(1)?, key(2)?); // static keys: in real life, elsewhere
//!
//! let (a, act_one) = InitiatorStart::new(alice.node_id(), bob.node_id(), key(3)?)?;
//! let b = AwaitActOne::new(bob.node_id(), key(4)?).act_one(&act_one)?;
//! let reply = bob.ecdh(&b.request().point); // asked of a signer
//! let (b, act_two) = b.resume(reply)?;
//! let a = a.act_two(&act_two)?;
//! let reply = alice.ecdh(&a.request().point); // asked of a signer
//! let (act_three, a) = a.resume(reply)?;
//! let b = b.act_three(&act_three)?;
//! assert_eq!((a.remote(), b.remote()), (bob.node_id(), alice.node_id()));
//!
//! let (mut a, mut b) = (a.into_session(), b.into_session());
//! let mut wire = BytesMut::new();
//! a.seal(b"hello", &mut wire)?;
//! assert_eq!(b.open(&mut wire)?.as_deref(), Some(&b"hello"[..]));
//! # Ok(()) }
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod aead;
mod cipher;
mod framer;
mod handles;
mod handshake;
mod noise;
mod session;
#[cfg(test)]
mod tests;

pub use framer::{FRAME_OVERHEAD, HEADER_LEN, MAX_FRAME_LEN, MAX_MESSAGE_LEN};
pub use handshake::{
    ACT_ONE_LEN, ACT_THREE_LEN, ACT_TWO_LEN, Act, Authenticated, AwaitActOne, AwaitActThree,
    AwaitActTwo, EcdhRequest, HandshakeError, InitiatorEcdh, InitiatorStart, ResponderEcdh, Role,
};
pub use session::{MESSAGES_PER_KEY, Session, SessionError};
