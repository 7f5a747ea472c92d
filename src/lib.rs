//! Safe-mode peer connections for a watch-only Lightning node: a BOLT 8 transport that outlives its signer.
//!
//! A watch-only node holds no keys; a signer does, and is not always there. This crate speaks BOLT 8 to peers, tags every peer
//! [gossip-only or channel-bearing](link::Tag), and follows the signer's presence as a [context](signer::SignerContext) that can be
//! cancelled. At that instant channel links are fenced off, torn down and their secrets wiped, while gossip links go on encrypting and
//! decrypting. When the signer returns, channel peers are dialled again, the most urgent first.
//!
//! ```text
//!   cli ──▶ admin ──▶ supervisor ──▶ link ──▶ brontide   wire   signer ──▶ secret  limits  node_id  error
//!                        │            │                            │
//!                        │            └── vault, book              └── the fence
//!                        └── every layer emits events: telemetry
//! ```
//!
//! # Where to begin
//! - [`Supervisor::builder`](supervisor::Supervisor::builder): all peers of one node. README has an example of the whole.
//! - [`SignerContext`](signer::SignerContext): whether a signer is there; a [`SignerSession`](signer::SignerSession) is the time
//!   that it is, and dropping it is the lapse.
//! - [`Inbox`](supervisor::Inbox) and [`LinkHandle`](link::LinkHandle): messages in and out.
//! - [`Event`](telemetry::Event): everything that happens; metrics and logs are fed from the same list.
//! - [`brontide`]: BOLT 8 without I/O, if that is all you need.
//!
//! What an embedder may replace: the signer ([`Signer`](signer::Signer)), the clock ([`Clock`](clock::Clock)), the peer book
//! ([`Book`](book::Book)), the resolver of names ([`Resolver`](link::Resolver)), and the recorder of the `metrics` facade.
//!
//! # Promises
//! Each has tests that carry its name (`p1_…`).
//! - **P1 Fence.** Once [`lapse()`](signer::SignerContext::lapse) has returned, no write to the socket of a link in the signer's scope
//!   and no delivery of a message from one begins or completes. It never waits for I/O, and its cost does not grow with the links.
//! - **P2 Retention.** Across a lapse and a return a gossip link loses, repeats and reorders nothing.
//! - **P3 Erasure.** Every copy of a torn-down link's secrets that this crate owns is wiped before the teardown is reported.
//! - **P4 No error.** The crate never originates BOLT 1 `error` (17).
//! - **P5 Signer-free means signer-free.** Without a signer nothing waits for it but bounded, parked inbound sockets.
//! - **P6 No stale epoch.** A link leased under a signer session dies with it; a late answer is never used.
//! - **P7 Floor.** While the signer is away, the number of live gossip links returns to the floor within seconds of a loss, as long as
//!   there are peers to dial: under a [throwaway key](link::Identity::Persona). When there are none, that is an event and a metric.
//! - **P8 Relight.** On return every channel peer with an address is dialled again without being asked, the most urgent first.
//! - **P9 Bounded.** Every queue, table, buffer, rate and wait has a bound in [`limits`].
//!
#![forbid(unsafe_code)]

pub mod address;
#[cfg(feature = "admin")]
pub mod admin;
pub mod book;
pub mod brontide;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod error;
mod hex;
pub mod limits;
pub mod link;
mod network;
pub mod node_id;
mod private;
mod routable;
pub mod secret;
pub mod signer;
pub mod supervisor;
pub mod telemetry;
mod vault;
pub mod wire;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
