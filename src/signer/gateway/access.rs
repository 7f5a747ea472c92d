//! What the gateway says to whom it does not let in.
//!
//! It never says more than which of his own files the caller should look at.

use super::macaroon::MacaroonError;
use super::machine::End;

/// What lnd's signer sees on its first receive.
pub(super) fn status(error: &MacaroonError) -> tonic::Status {
    match error {
        MacaroonError::WrongPermission
        | MacaroonError::WrongAddress
        | MacaroonError::UnknownCaveat => tonic::Status::permission_denied(error.to_string()),
        _ => tonic::Status::unauthenticated(error.to_string()),
    }
}

/// The status of a stream that ended before it was the signer session. lnd's signer dials again whatever it is; people read it.
pub(super) fn farewell(end: End, detail: String) -> tonic::Status {
    let code = match end {
        End::Refused => tonic::Code::AlreadyExists,
        End::ProofWrong | End::ProofRefused | End::Barred => tonic::Code::PermissionDenied,
        End::RegistrationWrong | End::Odd | End::Closed => tonic::Code::InvalidArgument,
        End::RegistrationLate | End::ProofLate | End::Silent | End::Clogged => {
            tonic::Code::DeadlineExceeded
        }
        End::Lapsed => tonic::Code::Unavailable,
    };
    tonic::Status::new(code, detail)
}
