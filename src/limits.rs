//! Every bound of the crate, each with the argument for its value.
//!
//! A hostile peer meets one of these, never memory growth, a panic or a stall of another link (P9).
//!
//! One file a subject; every bound is named from here.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod admin;
mod admission;
mod agent;
mod book;
mod dialling;
mod fence;
mod gossip;
mod link;
mod node;
mod signer;

pub use self::admin::*;
pub use self::admission::*;
pub use self::agent::*;
pub use self::book::*;
pub use self::dialling::*;
pub use self::fence::*;
pub use self::gossip::*;
pub use self::link::*;
pub use self::node::*;
pub use self::signer::*;
