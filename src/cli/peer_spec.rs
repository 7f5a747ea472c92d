//! A peer as the command line has it: `ID@HOST:PORT`. An error says which part is wrong and shows a right one.

use super::failure::Failure;
use crate::address::{AddressError, PeerAddress};
use crate::link::Tag;
use crate::node_id::NodeId;

/// A well-formed one.
const EXAMPLE: &str =
    "03864ef025fde8fb587d989186ce6a4a186895ee44a926bfc370e2c366597a3f8f@192.0.2.1:9735";

/// Who and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerSpec {
    pub(super) id: NodeId,
    pub(super) address: PeerAddress,
}

/// Reads `ID@HOST:PORT`; `place` is where it stands, for the error.
pub(super) fn peer(text: &str, place: &str) -> Result<PeerSpec, Failure> {
    let malformed = |what: String| {
        Failure::usage(
            format!("malformed peer {:?}: {what}", shown(text)),
            place,
            format!("write ID@HOST:PORT, such as {EXAMPLE}"),
        )
    };
    let Some((id, address)) = text.split_once('@') else {
        return Err(malformed("no @ separates ID from HOST:PORT".into()));
    };
    if id.is_empty() {
        return Err(malformed("ID is missing".into()));
    }
    let id = id
        .parse()
        .map_err(|error| malformed(format!("ID: {error}")))?;
    let address = address
        .parse()
        .map_err(|error: AddressError| malformed(error.to_string()))?;
    Ok(PeerSpec { id, address })
}

/// Reads a peer's `HOST:PORT`.
pub(super) fn peer_address(text: &str, place: &str) -> Result<PeerAddress, Failure> {
    text.parse().map_err(|error: AddressError| {
        Failure::usage(
            format!("malformed address {:?}: {error}", shown(text)),
            place,
            "write HOST:PORT, such as 192.0.2.1:9735",
        )
    })
}

/// Reads `HOST:PORT`, of something that usually has this port; it is given back as it should be written.
pub(super) fn address(text: &str, place: &str, port: u16) -> Result<String, Failure> {
    match text.parse::<PeerAddress>() {
        Ok(address) if address.is_onion() => Err(Failure::usage(
            format!(
                "{:?} is an onion service: no signer is dialled there",
                shown(text)
            ),
            place,
            format!("write HOST:PORT, such as 192.0.2.1:{port}"),
        )),
        Ok(address) => Ok(address.to_string()),
        Err(AddressError::NoPort) => Err(Failure::usage(
            format!("malformed address {:?}: PORT is missing", shown(text)),
            place,
            format!("write HOST:PORT, such as 192.0.2.1:{port}"),
        )),
        Err(error) => Err(Failure::usage(
            format!("malformed address {:?}: {error}", shown(text)),
            place,
            format!("write HOST:PORT, such as 192.0.2.1:{port}"),
        )),
    }
}

/// Reads a node id.
pub(super) fn node_id(text: &str, place: &str) -> Result<NodeId, Failure> {
    text.parse().map_err(|error| {
        Failure::usage(
            format!("malformed node id {:?}: {error}", shown(text)),
            place,
            "give its 66 hex digits",
        )
    })
}

/// Reads a tag.
pub(super) fn tag(text: &str, place: &str) -> Result<Tag, Failure> {
    text.parse().map_err(|error: crate::link::UnknownTag| {
        Failure::usage(
            error.to_string(),
            place,
            "write gossip-only or channel-bearing",
        )
    })
}

fn shown(text: &str) -> String {
    text.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_example_is_right() {
        let spec = peer(EXAMPLE, "").unwrap();
        assert_eq!(format!("{}@{}", spec.id, spec.address), EXAMPLE);
    }

    #[test]
    fn an_error_names_the_part_and_shows_a_right_one() {
        let (id, _) = EXAMPLE.split_once('@').unwrap();
        for (text, part) in [
            (String::new(), "no @"),
            (id.to_owned(), "no @"),
            ("@h:1".to_owned(), "ID is missing"),
            ("02ab@h:1".to_owned(), "ID: a node id is 33 bytes"),
            (format!("{}@h:1", "0".repeat(66)), "ID: not a point"),
            (format!("{id}@"), "PORT is missing"),
            (format!("{id}@:1"), "HOST is missing"),
            (format!("{id}@h:0"), "PORT \"0\""),
            (format!("{id}@h h:1"), "HOST \"h h\""),
        ] {
            let failure = peer(&text, "here").unwrap_err();
            assert!(
                failure.problem.what.contains(part),
                "{text}: {}",
                failure.problem.what
            );
            assert!(failure.problem.what_to_do.contains(EXAMPLE));
        }
    }
}
