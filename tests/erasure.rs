//! P3, measured: an allocator of this binary looks at every block that is freed and tells if it still holds a secret that a test has
//! registered; and the process's own memory is searched once all is over. What libraries leave is in `SECURITY.md`, with the figures
//! that `cargo test --test erasure -- --nocapture` prints.
//!
//! The secrets are known because one end of each handshake is the test's, with an ephemeral key that it chose: BOLT 8 then gives all
//! that the other end has. They are kept masked here, so that the search does not find its own list.
#![allow(
    unsafe_code,
    reason = "an allocator that looks at what is freed cannot be written without it"
)]
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "../fuzz/src/bolt8.rs"]
#[allow(unreachable_pub, missing_docs)]
mod bolt8;
#[path = "support/dialer.rs"]
mod dialer;
#[path = "support/station.rs"]
mod station;
#[path = "support/watched.rs"]
mod watched;

#[path = "erasure/libraries.rs"]
mod libraries;
#[path = "erasure/node.rs"]
mod node;
#[path = "erasure/search.rs"]
mod search;
#[path = "erasure/session.rs"]
mod session;
#[path = "erasure/watchdog.rs"]
mod watchdog;
