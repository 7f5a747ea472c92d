//! The gateway and the agent against the libraries that lnd is built on: grpc-go, Go's TLS, macaroon.v2 and the macaroon bakery.
//!
//! lnd itself is not here. `tests/interop` holds a signer and a watch-only node that use those libraries as lnd does, with a
//! proto of their own. They are built by each run from Debian's packages, so these tests are for `bash .ci/run interop`; a plain
//! `cargo test` leaves them out. Run without Go they fail.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print their figures"
)]

#[path = "interop_go/agent.rs"]
mod agent;
#[path = "support/dialer.rs"]
mod dialer;
#[path = "interop_go/gateway.rs"]
mod gateway;
#[path = "support/go.rs"]
mod go;
#[path = "interop_go/macaroons.rs"]
mod macaroons;
