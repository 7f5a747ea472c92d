//! What the gateway shows, and what it says to whom it does not let in.
//!
//! It never reads a file.

use std::fmt;

use zeroize::Zeroizing;

use super::macaroon::MacaroonError;

/// The server's certificate and its key, in DER.
pub struct ServerIdentity {
    /// The certificate. Its SHA-256 is what our own agent binds its proof to.
    pub certificate: Vec<u8>,
    /// The private key (PKCS #8).
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").finish_non_exhaustive()
    }
}

/// The label of `signers_refused_total{reason}` for a macaroon that was refused.
pub(super) fn label(error: &MacaroonError) -> &'static str {
    match error {
        MacaroonError::Missing => "macaroon_missing",
        MacaroonError::NotHex | MacaroonError::TooLarge | MacaroonError::Malformed(_) => {
            "macaroon_malformed"
        }
        MacaroonError::OtherRootKey => "macaroon_root_key",
        MacaroonError::WrongSignature => "macaroon_signature",
        MacaroonError::WrongPermission => "macaroon_permission",
        MacaroonError::Expired => "macaroon_expired",
        MacaroonError::WrongAddress => "macaroon_address",
        MacaroonError::UnknownCaveat => "macaroon_caveat",
    }
}

/// What lnd's signer sees on its first receive.
pub(super) fn status(error: &MacaroonError) -> tonic::Status {
    match error {
        MacaroonError::WrongPermission
        | MacaroonError::WrongAddress
        | MacaroonError::UnknownCaveat => tonic::Status::permission_denied(error.to_string()),
        _ => tonic::Status::unauthenticated(error.to_string()),
    }
}
