//! The signer dials in: a gRPC server that speaks lnd's `SignCoordinatorStreams`, and makes the caller's stream the signer session.
//!
//! - `proto`: the messages.

pub(crate) mod proto;
