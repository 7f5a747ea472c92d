//! Against LDK, unmodified: what a real peer sees over real TCP while the signer is there, goes and comes back.
//!
//! Run with `--nocapture` for a line of figures from each test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "support/ldk_handlers.rs"]
mod ldk_handlers;
#[path = "support/ldk_peer.rs"]
mod ldk_peer;
#[path = "support/ldk_round_trips.rs"]
mod ldk_round_trips;
#[path = "support/live_node.rs"]
mod live_node;
#[path = "support/numbered.rs"]
mod numbered;
#[path = "support/signed_region.rs"]
mod signed_region;
#[path = "support/socks.rs"]
mod socks;
#[path = "support/watched.rs"]
mod watched;

#[path = "ldk/exchange.rs"]
mod exchange;
#[path = "ldk/introductions.rs"]
mod introductions;
#[path = "ldk/lapse.rs"]
mod lapse;
#[path = "ldk/persona.rs"]
mod persona;
#[path = "ldk/pings.rs"]
mod pings;
#[path = "ldk/proxy.rs"]
mod proxy;
#[path = "ldk/real_gossip.rs"]
mod real_gossip;
