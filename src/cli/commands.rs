//! The commands that ask the running daemon: one call each, and how its answer looks to a person.

use super::absence::chain_line;
use super::args::{PeerAdd, PeerUrgency};
use super::client::Client;
use super::failure::{Exit, Failure};
use super::output::{Output, Style};
use super::peer_spec;
use super::words::{ago, lapse_line, signer_line, text};
use crate::link::Tag;
use serde_json::{Value, json};
use std::fmt::Write as _;

pub(super) fn info(client: &Client, output: &Output) -> Result<Exit, Failure> {
    let info = client.get("/v1/info")?;
    output.answer(&info, |info| describe(info, output));
    Ok(Exit::Ok)
}

/// The status page's address with the token. Only ever printed when asked for: `run` does not, because its output ends up in logs.
pub(super) fn page_url(client: &Client, output: &Output) -> Result<Exit, Failure> {
    let url = client.page_url()?;
    let answer = json!({ "url": url.as_str() });
    output.answer(&answer, |_| url.to_string());
    Ok(Exit::Ok)
}

/// `/v1/info`, for people.
pub(super) fn describe(info: &Value, output: &Output) -> String {
    let mode = text(info, "/mode");
    let style = match mode.as_str() {
        "live" => Style::Good,
        "draining" => Style::Bad,
        _ => Style::Warning,
    };
    let epoch = info.pointer("/epoch").and_then(Value::as_u64).map_or_else(
        || "no signer yet".to_owned(),
        |epoch| format!("epoch {epoch}"),
    );
    let last = match info.pointer("/last_lapse") {
        Some(lapse @ Value::Object(_)) => {
            format!("{} ago: {}", ago(lapse, "/at"), lapse_line(lapse))
        }
        _ => "none".to_owned(),
    };
    let rows = [
        ("node id", text(info, "/node_id")),
        (
            "mode",
            format!(
                "{} for {} ({epoch})",
                output.styled(style, &mode),
                ago(info, "/since")
            ),
        ),
        ("signer", signer_line(info)),
        ("links", links_line(info)),
        ("peers", peers_line(info)),
        (
            "chain",
            info.pointer("/chain").map(chain_line).unwrap_or_default(),
        ),
        ("last lapse", last),
        ("version", text(info, "/version")),
    ];
    let mut rows = rows.map(|(name, value)| format!("{name:<10}  {value}"));
    if let (Some(refusal @ Value::Object(_)), [_, _, signer, ..]) =
        (info.pointer("/signer/last_refusal"), rows.as_mut_slice())
    {
        // Under the signer's own line: it says why none is attached.
        let _ = write!(
            signer,
            "\n{:<10}  last refused {} ago: {} ({}), from {}",
            "",
            ago(refusal, "/at"),
            text(refusal, "/detail"),
            text(refusal, "/reason"),
            text(refusal, "/addr")
        );
    }
    rows.join("\n")
}

fn links_line(info: &Value) -> String {
    let count = |path: &str| text(info, path);
    format!(
        "{} gossip-only, {} channel-bearing, {} under a persona",
        count("/links/gossip_only"),
        count("/links/channel_bearing"),
        count("/links/persona")
    )
}

fn peers_line(info: &Value) -> String {
    let count = |path: &str| text(info, path);
    format!(
        "{} ({} up, {} dialing, {} backoff, {} held, {} awaited)",
        count("/peers/total"),
        count("/peers/up"),
        count("/peers/dialing"),
        count("/peers/backoff"),
        count("/peers/held"),
        count("/peers/awaited")
    )
}

pub(super) fn list_peers(client: &Client, output: &Output) -> Result<Exit, Failure> {
    let peers = client.get("/v1/peers")?;
    output.answer(&peers, |peers| {
        let peers: Vec<&Value> = peers.as_array().into_iter().flatten().collect();
        if peers.is_empty() {
            "no peers".to_owned()
        } else {
            peer_table(peers, output)
        }
    });
    Ok(Exit::Ok)
}

/// Entries of `/v1/peers`, for people.
pub(super) fn peer_table(peers: Vec<&Value>, output: &Output) -> String {
    let rows: Vec<Vec<String>> = peers.into_iter().map(peer_row).collect();
    output.table(&PEER_HEADS, &rows)
}

const PEER_HEADS: [&str; 9] = [
    "NODE ID",
    "STATE",
    "TAG",
    "ADDRESS",
    "WEIGHT",
    "DIRECTION",
    "UP FOR",
    "IN",
    "OUT",
];

fn peer_row(peer: &Value) -> Vec<String> {
    let paths = [
        "/node_id",
        "/state",
        "/tag",
        "/addr",
        "/weight",
        "/direction",
        "/since",
        "/frames_in",
        "/frames_out",
    ];
    paths
        .map(|path| {
            if path == "/since" {
                ago(peer, path)
            } else {
                text(peer, path)
            }
        })
        .to_vec()
}

/// A change of one peer, its arguments checked.
pub(super) struct PeerCall {
    method: &'static str,
    path: String,
    body: Option<Value>,
}

impl PeerCall {
    pub(super) fn add(add: &PeerAdd) -> Result<Self, Failure> {
        let spec = peer_spec::peer(&add.peer, "argument ID@HOST:PORT")?;
        let tag = peer_spec::tag(&add.tag, "--tag")?;
        let mut addresses = vec![spec.address.to_string()];
        for text in &add.addresses {
            addresses.push(peer_spec::peer_address(text, "--address")?.to_string());
        }
        let mut body =
            json!({ "node_id": spec.id.to_string(), "addrs": addresses, "tag": tag.as_str() });
        if let (Some(weight), Some(fields)) = (add.weight, body.as_object_mut()) {
            fields.insert("weight".to_owned(), json!(weight));
        }
        Ok(Self {
            method: "POST",
            path: "/v1/peers".to_owned(),
            body: Some(body),
        })
    }

    pub(super) fn remove(id: &str) -> Result<Self, Failure> {
        Ok(Self {
            method: "DELETE",
            path: path_of(id)?,
            body: None,
        })
    }

    pub(super) fn tag(id: &str, tag: &str) -> Result<Self, Failure> {
        let tag: Tag = peer_spec::tag(tag, "argument TAG")?;
        Ok(Self {
            method: "PATCH",
            path: path_of(id)?,
            body: Some(json!({ "tag": tag.as_str() })),
        })
    }

    pub(super) fn urgency(urgency: &PeerUrgency) -> Result<Self, Failure> {
        let mut body = json!({});
        let said = [
            ("pending_htlcs", urgency.pending_htlcs),
            ("earliest_expiry_height", urgency.earliest_expiry_height),
            ("csv_delay", urgency.csv_delay.map(u32::from)),
        ];
        for (name, value) in said {
            if let (Some(value), Some(fields)) = (value, body.as_object_mut()) {
                fields.insert(name.to_owned(), json!(value));
            }
        }
        Ok(Self {
            method: "PATCH",
            path: path_of(&urgency.id)?,
            body: Some(body),
        })
    }

    pub(super) fn make(self, client: &Client, output: &Output) -> Result<Exit, Failure> {
        let answer = client.change(self.method, &self.path, self.body.as_ref())?;
        output.answer(&answer, |answer| match answer.get("removed") {
            Some(_) => format!("{} removed", text(answer, "/removed")),
            None => output.table(&PEER_HEADS, &[peer_row(answer)]),
        });
        Ok(Exit::Ok)
    }
}

fn path_of(id: &str) -> Result<String, Failure> {
    Ok(format!(
        "/v1/peers/{}",
        peer_spec::node_id(id, "argument ID")?
    ))
}

pub(super) fn attach(client: &Client, output: &Output) -> Result<Exit, Failure> {
    let answer = client.change("POST", "/v1/signer/attach", None)?;
    output.answer(&answer, |answer| {
        format!("the signer is attached: epoch {}", text(answer, "/epoch"))
    });
    Ok(Exit::Ok)
}
