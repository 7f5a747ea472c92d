//! The protocol's messages and the certificate as bytes, for `fuzz/` only: their codecs are private, and an embedder never sees either.
//!
//! It never decides what a message means: that is `messages`'.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::machine::{Body, Registrant};
use super::messages;
use super::proto::SignCoordinatorResponse;
use super::tls;
use crate::node_id::{NodeId, Point};

/// What a message of a signer's is to its stream's [machine](super::machine::StreamMachine): the request that it answers, and what it
/// says. `None`: no message.
pub fn read_message(encoded: &[u8], registrant: Registrant) -> Option<(u64, Body)> {
    let message = SignCoordinatorResponse::decode(encoded).ok()?;
    let reply_to = message.ref_request_id;
    Some((reply_to, messages::read(message, registrant).0))
}

/// What a gateway says to its signer.
#[derive(Debug, Clone)]
pub enum Saying {
    /// The registration is accepted.
    Complete,
    /// It is not.
    Denied(String),
    /// Is anybody there?
    Ping,
    /// An ECDH of this node's key.
    Ecdh(Point, NodeId),
    /// The same, as a proof.
    Proof(Point),
    /// A request of the node's own, by its field.
    Pass(u32, Bytes),
}

/// The message that says it; the id is that of a request, and nothing to the two answers to a registration. `None` for a field that is
/// none of the node's requests.
pub fn write_message(id: u64, saying: Saying) -> Option<Vec<u8>> {
    let message = match saying {
        Saying::Complete => messages::complete(),
        Saying::Denied(text) => messages::registration_error(text),
        Saying::Ping => messages::ping(id),
        Saying::Ecdh(point, node) => messages::ecdh(id, point, node),
        Saying::Proof(point) => messages::proof(id, point),
        Saying::Pass(field, body) => messages::pass(id, field, body)?,
    };
    Some(message.encode_to_vec())
}

/// The names in a certificate, and when it ends, as time since the Unix epoch; `None` for what is not read.
pub fn read_certificate(der: &[u8]) -> (Option<Vec<String>>, Option<Duration>) {
    (tls::alternative_names(der), tls::not_after(der))
}
