//! Safe-mode peer connections for a watch-only Lightning node: a BOLT 8 transport that outlives its signer.
#![forbid(unsafe_code)]

#[cfg(feature = "admin")]
pub mod admin;
pub mod book;
pub mod brontide;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod error;
pub mod limits;
pub mod link;
pub mod node_id;
pub mod secret;
pub mod signer;
pub mod supervisor;
pub mod telemetry;
mod vault;
pub mod wire;
