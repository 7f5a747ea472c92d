//! Every fault of the network in every phase, on real sockets: between the node and an unmodified LDK, and between the gateway and
//! the agent that brings the node's key. What becomes of each is asserted, and a cell of a table; `--nocapture` shows it.
//!
//! A fault strikes at a byte, never at a time; the node's clock and the agent's are the test's, and stand still but where a deadline
//! must pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "support/dialer.rs"]
mod dialer;
#[path = "support/ldk_handlers.rs"]
#[allow(dead_code)]
mod ldk_handlers;
#[path = "support/ldk_peer.rs"]
#[allow(dead_code)]
mod ldk_peer;
#[path = "support/ldk_round_trips.rs"]
mod ldk_round_trips;
#[path = "support/live_node.rs"]
#[allow(dead_code)]
mod live_node;
#[path = "support/numbered.rs"]
mod numbered;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/signed_region.rs"]
#[allow(dead_code)]
mod signed_region;
#[path = "support/station.rs"]
mod station;
#[path = "support/watched.rs"]
mod watched;

#[path = "faults/failures.rs"]
mod failures;
#[path = "faults/ldk.rs"]
mod ldk;
#[path = "faults/ldk_cell.rs"]
mod ldk_cell;
#[path = "faults/signer.rs"]
mod signer;
#[path = "faults/table.rs"]
mod table;
