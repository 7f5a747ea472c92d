//! The daemon's face over HTTP: health, metrics, status, events, and control of peers and signer.
//!
//! ```text
//!  TCP ── bounded ── Host ── site ── token ── handler ── Supervisor, SignerControl
//! ```
//!
//! Plain HTTP, meant for loopback. Each request passes the Host allow-list; reading needs `readonly.token`, changing needs
//! `admin.token`, both files of the [`DataDir`]; a token in a query and a request from another site's page are refused. `/healthz` and the
//! status page's own files, which hold no data, are open; `/metrics` and `/readyz` are open on loopback unless told otherwise. All reads
//! work in every mode. It holds a lock that a link needs for no longer than it takes to copy a few events, and never waits for a slow
//! client with more than that client's own connection.

mod absence;
mod access;
mod control;
mod data_dir;
mod error;
mod events;
mod exporter;
mod exposition;
mod handlers;
mod import;
mod page;
mod process;
mod seats;
mod server;
mod views;

pub use control::{Caller, ControlError, DoorView, SignerControl, SignerDoor};
pub use data_dir::{DataDir, Token, TokenKind};
pub use error::{AdminError, Problem};
pub use exporter::Exporter;
pub use page::recorded;
#[cfg(feature = "cli")]
pub(crate) use process::usage;
pub use server::{AdminServer, Parts, Settings};
#[cfg(feature = "cli")]
pub(crate) use views::{event as event_json, info as info_json, peer as peer_json};
