//! What the gateway needs to be given: the certificate that it shows, and who judges macaroons.
//!
//! It never reads a file.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use zeroize::Zeroizing;

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

/// Why a macaroon was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// There is none.
    #[error("no macaroon in the call's metadata")]
    Missing,
    /// There is more than one.
    #[error("more than one macaroon in the call's metadata")]
    Several,
    /// It is no hex, or no binary macaroon.
    #[error("the macaroon cannot be read")]
    Malformed,
    /// Its signature is not of our root key.
    #[error("the macaroon was not baked here, or its root key has been rotated")]
    Signature,
    /// Its time is over.
    #[error("the macaroon has expired")]
    Expired,
    /// It is bound to another address.
    #[error("the macaroon is for another address")]
    Address,
    /// It does not allow this.
    #[error("permission denied: the macaroon does not allow remotesigner:generate")]
    Permission,
    /// It has a caveat that is not known, so that it cannot be met.
    #[error("the macaroon has a caveat that is not known")]
    Caveat,
}

impl Denial {
    /// A lower-case word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "macaroon_missing",
            Self::Several => "macaroon_several",
            Self::Malformed => "macaroon_malformed",
            Self::Signature => "macaroon_signature",
            Self::Expired => "macaroon_expired",
            Self::Address => "macaroon_address",
            Self::Permission => "macaroon_permission",
            Self::Caveat => "macaroon_caveat",
        }
    }

    pub(super) fn status(self) -> tonic::Status {
        match self {
            Self::Permission | Self::Address | Self::Caveat => {
                tonic::Status::permission_denied(self.to_string())
            }
            _ => tonic::Status::unauthenticated(self.to_string()),
        }
    }
}

/// Who judges macaroons.
pub trait Gatekeeper: Send + Sync + 'static {
    /// Whether this binary macaroon allows entity `remotesigner`, action `generate`, from this address at this time (since the
    /// Unix epoch).
    ///
    /// # Errors
    /// Why not.
    fn check(&self, macaroon: &[u8], source: IpAddr, now: Duration) -> Result<(), Denial>;
}
