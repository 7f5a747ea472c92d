//! Many peers in one request, as `pilotlight peer import` sends them: already read, with addresses that need no lookup. It never
//! reads a file.

use super::access::Refusal;
use super::handlers::{Answer, Asked, bad, node_id, read, stopped, tag};
use crate::supervisor::PeerSpec;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;
use std::net::SocketAddr;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    peers: Vec<Imported>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Imported {
    node_id: String,
    #[serde(default)]
    addrs: Vec<String>,
    tag: Option<String>,
}

/// Takes all of them or, if one is malformed, none.
pub(super) async fn import_peers(
    State(admin): Asked,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let body: Batch = read(
        body,
        r#"{"peers":[{"node_id":"02…","addrs":["192.0.2.1:9735"],"tag":"channel-bearing"}]}"#,
    )?;
    let specs = body.peers.iter().map(spec).collect::<Result<Vec<_>, _>>()?;
    let taken = specs.len();
    for spec in specs {
        admin.supervisor.add_peer(spec).await.map_err(stopped)?;
    }
    Ok(Json(json!({ "taken": taken })).into_response())
}

fn spec(peer: &Imported) -> Result<PeerSpec, Refusal> {
    let address = |text: &String| {
        text.parse::<SocketAddr>().map_err(|_| {
            bad(
                format!(
                    "{:?} is no address",
                    text.chars().take(80).collect::<String>()
                ),
                "field addrs",
                "write IP:PORT, such as 192.0.2.1:9735",
            )
        })
    };
    Ok(PeerSpec {
        node_id: node_id(&peer.node_id, "field node_id")?,
        addresses: peer.addrs.iter().map(address).collect::<Result<_, _>>()?,
        tag: peer.tag.as_deref().map(tag).transpose()?,
        weight: None,
    })
}
