//! The signer dials in: a gRPC server that speaks lnd's `SignCoordinatorStreams`, and makes the caller's stream the signer session.
//!
//! - `proto`: the messages.
//! - `macaroon`, `caveat`: the token that a signer shows, and what narrows it.
//! - `credentials`, `tls`: root key, certificate and key on disk; the gateway's end of TLS, and the pin of a signer's end.

mod caveat;
pub(super) mod credentials;
mod macaroon;
pub(crate) mod proto;
pub(crate) mod tls;

pub use caveat::Caveat;
pub use credentials::CredentialsError;
pub use macaroon::{Macaroon, MacaroonError, Occasion, Op, RootKey, SIGNER_ACTION, SIGNER_ENTITY};
pub use tls::{PinnedCertificate, TlsFiles, TlsIdentity};
