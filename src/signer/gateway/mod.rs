//! The signer dials in: a gRPC server that speaks lnd's `SignCoordinatorStreams`, and makes the caller's stream the signer session.
//!
//! - `budget`: what the signer's ECDH may be spent on.
//! - `machine`, `queue`: one signer's stream.
//! - `proto`: the messages.
//! - `seat`: who sits on the one place, and who is held off.

pub mod budget;
pub mod machine;
pub(crate) mod proto;
mod queue;
pub mod seat;
