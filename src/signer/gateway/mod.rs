//! The signer dials in: a gRPC server that speaks lnd's `SignCoordinatorStreams`, and makes the caller's stream the signer session.
//!
//! - `proto`: the messages.
//! - `macaroon`, `caveat`: the token that a signer shows, and what narrows it.

mod caveat;
mod macaroon;
pub(crate) mod proto;

pub use caveat::Caveat;
pub use macaroon::{Macaroon, MacaroonError, Occasion, Op, RootKey, SIGNER_ACTION, SIGNER_ENTITY};
