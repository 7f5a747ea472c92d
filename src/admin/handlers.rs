//! What each path does. Reads come from snapshots; changes go through the supervisor's own calls.

use super::access::Refusal;
use super::control::ControlError;
use super::server::Admin;
use super::{absence, events, views};
use crate::address::{KnownAddress, PeerAddress};
use crate::limits;
use crate::link::Tag;
use crate::node_id::NodeId;
use crate::signer::{AttachError, Epoch};
use crate::supervisor::{Mode, PeerSpec, PeerView, RosterError, Stopped, Urgency};
use crate::telemetry::{Event, EventStream, LapseReport, Next};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) type Answer = Result<Response, Refusal>;
pub(super) type Asked = State<Arc<Admin>>;

pub(super) async fn healthz() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

pub(super) async fn readyz(State(admin): Asked) -> Response {
    let mode = admin.supervisor.mode();
    let status = if mode == Mode::Draining {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (status, Json(json!({ "mode": mode.as_str() }))).into_response()
}

pub(super) async fn metrics(State(admin): Asked) -> Answer {
    let Some(exporter) = &admin.exporter else {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "this process keeps its metrics elsewhere",
            "/metrics",
            "ask the recorder that the embedder has installed",
        ));
    };
    let expires = admin.signer.door().map(|door| door.certificate_expires);
    let mut response = exporter
        .render(&admin.supervisor, expires)
        .await
        .into_response();
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Ok(response)
}

pub(super) async fn info(State(admin): Asked) -> Answer {
    // After the stop there are no peers; the rest still stands.
    let peers = admin.supervisor.peers().await.unwrap_or_default();
    let snapshot = admin.supervisor.snapshot();
    let mut info = views::info(&snapshot, &peers, &admin.signer);
    let planned = admin.supervisor.planned_absence();
    views::add(
        &mut info,
        "planned_absence",
        planned.as_ref().map(views::planned),
    );
    Ok(Json(info).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HowMany {
    limit: Option<usize>,
}

pub(super) async fn peers(
    State(admin): Asked,
    query: Result<Query<HowMany>, QueryRejection>,
) -> Answer {
    let Query(HowMany { limit }) =
        query.map_err(|error| bad(error.body_text(), "the query", "give limit=N, or nothing"))?;
    let mut peers = admin.supervisor.peers().await.map_err(stopped)?;
    if let Some(limit) = limit.filter(|limit| *limit < peers.len()) {
        // Those that a person would ask for first.
        peers.sort_by_key(|peer| (peer.tag != Tag::ChannelBearing, peer.link.is_none()));
        peers.truncate(limit);
    }
    Ok(Json(Value::Array(peers.iter().map(views::peer).collect())).into_response())
}

pub(super) async fn event_stream(State(admin): Asked, headers: HeaderMap) -> Answer {
    let Ok(place) = Arc::clone(&admin.streams).try_acquire_owned() else {
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "{} event streams are open already",
                limits::ADMIN_EVENT_STREAMS
            ),
            "/v1/events",
            "close some: status pages, `pilotlight events`",
        ));
    };
    let last_seen = headers.get("last-event-id");
    let telemetry = admin.supervisor.telemetry();
    Ok(events::respond(
        &telemetry,
        last_seen,
        admin.stop.clone(),
        place,
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPeer {
    node_id: String,
    addr: Option<String>,
    #[serde(default)]
    addrs: Vec<String>,
    tag: String,
    weight: Option<u32>,
}

pub(super) async fn add_peer(State(admin): Asked, body: Result<Bytes, BytesRejection>) -> Answer {
    let body: NewPeer = read(
        body,
        r#"{"node_id":"02…","addr":"192.0.2.1:9735","tag":"gossip-only","weight":1}"#,
    )?;
    let node_id = node_id(&body.node_id, "field node_id")?;
    let tag = tag(&body.tag)?;
    let addresses = addresses(&body)?;
    let known = find(&admin, node_id).await?.is_some();
    let spec = PeerSpec {
        node_id,
        addresses,
        tag: Some(tag),
        weight: body.weight,
    };
    admin.supervisor.add_peer(spec).await.map_err(not_taken)?;
    let Some(peer) = find(&admin, node_id).await? else {
        return Err(unknown_peer(node_id));
    };
    let status = if known {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(views::peer(&peer))).into_response())
}

/// One of `addr`, several of `addrs`, or both.
fn addresses(body: &NewPeer) -> Result<Vec<KnownAddress>, Refusal> {
    let one = body.addr.iter().map(|text| (text, "field addr"));
    let more = body.addrs.iter().map(|text| (text, "field addrs"));
    let written: Vec<_> = one.chain(more).collect();
    let most = limits::ADDRESSES_MAX;
    if written.is_empty() || written.len() > most {
        return Err(bad(
            format!("{} addresses", written.len()),
            "fields addr and addrs",
            format!("give one to {most}"),
        ));
    }
    let read = |(text, place): (&String, &str)| address(text, place).map(KnownAddress::from);
    written.into_iter().map(read).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerChange {
    tag: Option<String>,
    weight: Option<u32>,
    pending_htlcs: Option<u32>,
    earliest_expiry_height: Option<u32>,
    csv_delay: Option<u16>,
}

impl PeerChange {
    fn is_empty(&self) -> bool {
        self.tag.is_none() && self.weight.is_none() && !self.speaks_of_urgency()
    }

    fn speaks_of_urgency(&self) -> bool {
        self.pending_htlcs.is_some()
            || self.earliest_expiry_height.is_some()
            || self.csv_delay.is_some()
    }

    /// What it makes of a peer's urgency. What it does not say stays as it was.
    fn urgency(&self, before: Urgency) -> Result<Option<Urgency>, Refusal> {
        if !self.speaks_of_urgency() {
            return Ok(None);
        }
        let urgency = Urgency {
            pending_htlcs: self.pending_htlcs.unwrap_or(before.pending_htlcs),
            earliest_expiry_height: self
                .earliest_expiry_height
                .unwrap_or(before.earliest_expiry_height),
            csv_delay: self.csv_delay.unwrap_or(before.csv_delay),
        };
        let to_do = "give the block height at which the first of them expires";
        let place = "field earliest_expiry_height";
        if urgency.earliest_expiry_height >= absence::HEIGHT_END {
            let what = "this is no block height: it is above 499999999";
            return Err(bad(what, place, to_do));
        }
        if urgency.pending_htlcs > 0 && urgency.earliest_expiry_height == 0 {
            let what = "HTLCs are pending, and it is not said when the first of them expires";
            return Err(bad(what, place, to_do));
        }
        Ok(Some(urgency))
    }
}

pub(super) async fn change_peer(
    State(admin): Asked,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let body: PeerChange = read(body, r#"{"tag":"channel-bearing"}"#)?;
    let id = node_id(&id, "the path")?;
    let tag = body.tag.as_deref().map(tag).transpose()?;
    if body.is_empty() {
        return Err(bad(
            "nothing to change",
            "the body",
            "give tag, weight, pending_htlcs, earliest_expiry_height or csv_delay",
        ));
    }
    let Some(before) = find(&admin, id).await? else {
        return Err(unknown_peer(id));
    };
    if let Some(urgency) = body.urgency(before.urgency)? {
        admin
            .supervisor
            .set_urgency(id, urgency)
            .await
            .map_err(not_taken)?;
    }
    if body.weight.is_some() {
        let spec = PeerSpec {
            node_id: id,
            addresses: Vec::new(),
            tag: None,
            weight: body.weight,
        };
        admin.supervisor.add_peer(spec).await.map_err(not_taken)?;
    }
    match tag {
        Some(Tag::ChannelBearing) => admin.supervisor.promote(id).await.map_err(stopped)?,
        Some(Tag::GossipOnly) => admin.supervisor.demote(id).await.map_err(stopped)?,
        None => {}
    }
    match find(&admin, id).await? {
        Some(peer) => Ok(Json(views::peer(&peer)).into_response()),
        None => Err(unknown_peer(id)),
    }
}

pub(super) async fn remove_peer(State(admin): Asked, Path(id): Path<String>) -> Answer {
    let id = node_id(&id, "the path")?;
    if admin.supervisor.remove_peer(id).await.map_err(stopped)? {
        Ok(Json(json!({ "removed": id.to_string() })).into_response())
    } else {
        Err(unknown_peer(id))
    }
}

pub(super) async fn lapse(State(admin): Asked, body: Result<Bytes, BytesRejection>) -> Answer {
    let wish = absence::Wish::read(body)?;
    if wish.drain {
        return absence::plan(&admin, wish).await;
    }
    // Subscribed before: the report cannot be missed.
    let events = admin.supervisor.events();
    let Some(lapse) = admin.signer.lapse() else {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "no signer session is live",
            "/v1/signer/lapse",
            "nothing: there is nothing to cancel",
        ));
    };
    match report_of(events, lapse.epoch).await {
        Some(report) => Ok(Json(views::lapse(&report)).into_response()),
        // The reaper went with the supervisor; the fence was up all the same.
        None => Ok(
            Json(json!({ "epoch": lapse.epoch.get(), "reason": lapse.reason.as_str() }))
                .into_response(),
        ),
    }
}

pub(super) async fn report_of(mut events: EventStream, epoch: Epoch) -> Option<LapseReport> {
    loop {
        match events.next().await? {
            Next::Event(recorded) => match recorded.event {
                Event::SignerLapsed(report) if report.epoch >= epoch => return Some(report),
                _ => {}
            },
            Next::Missed(_) | Next::CaughtUp => {}
        }
    }
}

pub(super) async fn attach(State(admin): Asked) -> Answer {
    match admin.signer.attach().await {
        Ok(epoch) => Ok(Json(json!({ "epoch": epoch.get() })).into_response()),
        Err(error) => Err(uncontrolled(error, "/v1/signer/attach")),
    }
}

pub(super) async fn reload(State(admin): Asked) -> Answer {
    const PLACE: &str = "/v1/signer/reload";
    let signer = Arc::clone(&admin.signer);
    // It reads files.
    match tokio::task::spawn_blocking(move || signer.reload()).await {
        Ok(Ok(door)) => Ok(Json(views::door(&door)).into_response()),
        Ok(Err(error)) => Err(uncontrolled(error, PLACE)),
        Err(_) => Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the credentials were not read to the end",
            PLACE,
            "see the daemon's log, and report what it says of a panic",
        )),
    }
}

fn uncontrolled(error: ControlError, place: &str) -> Refusal {
    let (status, to_do) = match &error {
        ControlError::NotEmbedded | ControlError::DialsIn { .. } => {
            (StatusCode::CONFLICT, "let the signer dial in again")
        }
        ControlError::NoDoor => (
            StatusCode::CONFLICT,
            "nothing: an embedded signer has no certificate and no macaroons",
        ),
        ControlError::Attach(AttachError::Draining) => {
            (StatusCode::SERVICE_UNAVAILABLE, "start the daemon again")
        }
        ControlError::Attach(AttachError::Occupied { .. }) => {
            (StatusCode::CONFLICT, "nothing, or lapse it first")
        }
        ControlError::Attach(_) => (StatusCode::CONFLICT, "try again"),
        ControlError::Files(_) => (StatusCode::INTERNAL_SERVER_ERROR, ""),
        _ => (StatusCode::BAD_GATEWAY, "check the signer and its key"),
    };
    match error {
        ControlError::Files(problem) => Refusal { status, problem },
        error => Refusal::new(status, error.to_string(), place, to_do),
    }
}

pub(super) async fn not_found(uri: Uri) -> Refusal {
    let place: String = uri.path().chars().take(80).collect();
    let to_do = "see /, /v1/info, /v1/peers, /v1/events, /metrics, /healthz, /readyz";
    Refusal::new(StatusCode::NOT_FOUND, "there is nothing here", place, to_do)
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let what = format!(
        "{} is not for this path",
        method.as_str().chars().take(20).collect::<String>()
    );
    let place: String = uri.path().chars().take(80).collect();
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        what,
        place,
        "see the README's table of paths",
    )
}

pub(super) fn read<T: DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
    example: &str,
) -> Result<T, Refusal> {
    let to_do = || format!("send JSON such as {example}");
    let body =
        body.map_err(|error| Refusal::new(error.status(), error.body_text(), "the body", to_do()))?;
    serde_json::from_slice(&body).map_err(|error| bad(format!("{error}"), "the body", to_do()))
}

async fn find(admin: &Admin, id: NodeId) -> Result<Option<PeerView>, Refusal> {
    let peers = admin.supervisor.peers().await.map_err(stopped)?;
    Ok(peers.into_iter().find(|peer| peer.node_id == id))
}

pub(super) fn node_id(text: &str, place: &str) -> Result<NodeId, Refusal> {
    text.parse().map_err(|error| {
        bad(
            format!("{error}"),
            place,
            "give the 66 hex digits of the peer's node id",
        )
    })
}

pub(super) fn address(text: &str, place: &str) -> Result<PeerAddress, Refusal> {
    text.parse().map_err(|error| {
        bad(
            format!("{error}"),
            place,
            "write HOST:PORT, such as 192.0.2.1:9735",
        )
    })
}

pub(super) fn tag(text: &str) -> Result<Tag, Refusal> {
    text.parse().map_err(|error| {
        bad(
            format!("{error}"),
            "field tag",
            "write gossip-only or channel-bearing",
        )
    })
}

pub(super) fn bad(
    what: impl Into<String>,
    place: impl Into<String>,
    to_do: impl Into<String>,
) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, what, place, to_do)
}

fn unknown_peer(id: NodeId) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "no such peer",
        id.to_string(),
        "see `pilotlight peer list`",
    )
}

pub(super) fn not_taken(error: RosterError) -> Refusal {
    match error {
        RosterError::RosterFull => Refusal::new(
            StatusCode::INSUFFICIENT_STORAGE,
            format!("there are {} peers already", limits::PEERS_MAX),
            error.rule(),
            "remove peers that are not needed",
        ),
        RosterError::OwnKey => bad(
            "this is the node's own id: it is never dialled",
            "field node_id",
            "give a peer's",
        ),
        RosterError::Stopped(error) => stopped(error),
    }
}

pub(super) fn stopped(error: Stopped) -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        error.to_string(),
        "this daemon",
        "start it again",
    )
}
