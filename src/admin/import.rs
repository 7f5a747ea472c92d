//! Many peers in one request, as `pilotlight peer import` sends them: already read. It never reads a file and never looks a name up.

use super::access::Refusal;
use super::handlers::{Answer, Asked, address, node_id, not_taken, read, tag};
use crate::address::{AddressOrigin, KnownAddress};
use crate::supervisor::{PeerSpec, RosterError};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    peers: Vec<Imported>,
    /// The operator vouches for the addresses, as if each had been added by hand.
    #[serde(default)]
    by_hand: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Imported {
    node_id: String,
    #[serde(default)]
    addrs: Vec<String>,
    tag: Option<String>,
}

/// Takes all of them that there is room for or, if one is malformed, none.
pub(super) async fn import_peers(
    State(admin): Asked,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let body: Batch = read(
        body,
        r#"{"peers":[{"node_id":"02…","addrs":["192.0.2.1:9735"],"tag":"channel-bearing"}]}"#,
    )?;
    let origin = if body.by_hand {
        AddressOrigin::ByHand
    } else {
        AddressOrigin::Learned
    };
    let specs = body.peers.iter().map(|peer| spec(peer, origin));
    let specs = specs.collect::<Result<Vec<_>, _>>()?;
    let (mut taken, mut full) = (0_usize, 0_usize);
    for spec in specs {
        match admin.supervisor.add_peer(spec).await {
            Ok(()) => taken = taken.saturating_add(1),
            // A list of the whole graph has the node itself in it.
            Err(RosterError::OwnKey) => {}
            // Who is known already, further down the list, may still have news.
            Err(RosterError::RosterFull) => full = full.saturating_add(1),
            Err(error @ RosterError::Stopped(_)) => return Err(not_taken(error)),
        }
    }
    Ok(Json(json!({ "taken": taken, "full": full })).into_response())
}

fn spec(peer: &Imported, origin: AddressOrigin) -> Result<PeerSpec, Refusal> {
    let known = |text: &String| {
        let address = address(text, "field addrs")?;
        Ok(KnownAddress { address, origin })
    };
    Ok(PeerSpec {
        node_id: node_id(&peer.node_id, "field node_id")?,
        addresses: peer.addrs.iter().map(known).collect::<Result<_, _>>()?,
        tag: peer.tag.as_deref().map(tag).transpose()?,
        weight: None,
    })
}
