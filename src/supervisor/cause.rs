//! Why a dial did not lead to a link, in words for people, and what it says of the peer.

use super::ConnectError;
use super::machine::Failure;
use crate::brontide::{Act, HandshakeError};
use crate::error::Culprit;
use crate::link::{CloseReason, HandshakeFailure};
use crate::signer::EcdhError;

/// Why a dial did not lead to a link.
pub(super) enum Cause {
    Failed(HandshakeFailure),
    /// Admitted, and ended before it was up.
    Ended(HandshakeFailure, CloseReason),
}

impl Cause {
    pub(super) fn label(&self) -> &'static str {
        let (Self::Failed(failure) | Self::Ended(failure, _)) = self;
        failure.label()
    }

    pub(super) fn detail(&self) -> String {
        let (Self::Failed(failure) | Self::Ended(failure, _)) = self;
        failure.to_string()
    }

    /// What it says of the peer.
    pub(super) fn blame(failure: &HandshakeFailure) -> Failure {
        match failure {
            HandshakeFailure::NotAdmitted(CloseReason::SignerAway | CloseReason::HeldDown)
            | HandshakeFailure::Lapsed
            | HandshakeFailure::Ecdh(EcdhError::SignerAway(_)) => Failure::SignerAway,
            HandshakeFailure::NotAdmitted(_) => Failure::Duplicate,
            // Whoever answers there is not the peer.
            HandshakeFailure::Protocol(
                HandshakeError::Tag { act: Act::Two }
                | HandshakeError::Point { act: Act::Two }
                | HandshakeError::Version { act: Act::Two, .. },
            )
            | HandshakeFailure::OwnAddress(_) => Failure::WrongKey,
            failure if failure.has_no_way() => Failure::NoWay,
            failure if failure.culprit() != Culprit::Peer => Failure::Ours,
            failure if failure.was_connected() => Failure::Handshake,
            _ => Failure::Unreachable,
        }
    }

    pub(super) fn error(&self) -> ConnectError {
        let away = match self {
            Self::Failed(failure) => Self::blame(failure) == Failure::SignerAway,
            Self::Ended(_, reason) => {
                matches!(reason, CloseReason::Lapse | CloseReason::SignerAway)
            }
        };
        if away {
            return ConnectError::SignerAway;
        }
        ConnectError::Failed {
            failure: self.label(),
            detail: self.detail(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::io;

    /// Where IPv6 is switched off Linux says so with one of two codes; a lack of descriptors is no matter of the address.
    #[test]
    fn a_machine_without_ipv6_has_no_way_and_one_without_descriptors_is_at_fault() {
        let failed = |code: Errno| {
            let error = io::Error::from_raw_os_error(code.raw_os_error());
            Cause::blame(&HandshakeFailure::Connect(error))
        };
        assert_eq!(failed(Errno::ADDRNOTAVAIL), Failure::NoWay);
        assert_eq!(failed(Errno::AFNOSUPPORT), Failure::NoWay);
        assert_eq!(failed(Errno::MFILE), Failure::Ours);
        assert_eq!(failed(Errno::CONNREFUSED), Failure::Unreachable);
        assert_eq!(Cause::blame(&HandshakeFailure::NoProxy), Failure::NoWay);
    }
}
