//! The commands that ask the running daemon: one call each, and how its answer looks to a person.

use super::absence::chain_line;
use super::args::{PeerAdd, PeerUrgency};
use super::client::Client;
use super::failure::{Exit, Failure};
use super::output::{Output, Style};
use super::peer_spec;
use crate::link::Tag;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::BufRead;
use std::time::{SystemTime, UNIX_EPOCH};

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

fn describe(info: &Value, output: &Output) -> String {
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

fn signer_line(info: &Value) -> String {
    let flag = |path: &str| info.pointer(path).and_then(Value::as_bool) == Some(true);
    let attached = if flag("/signer/attached") {
        "attached"
    } else {
        "not attached"
    };
    let kind = text(info, "/signer/kind");
    if kind != "gateway" {
        return format!("{kind}, {attached}");
    }
    let from = match info.pointer("/signer/from") {
        Some(caller @ Value::Object(_)) => format!(
            " from {} ({}, macaroon {})",
            text(caller, "/addr"),
            text(caller, "/software"),
            text(caller, "/macaroon")
        ),
        _ => String::new(),
    };
    let behind = if flag("/signer/behind") {
        "; it is behind: new dials wait"
    } else {
        ""
    };
    format!(
        "dials in at {}, {attached}{from}{behind}",
        text(info, "/signer/listen")
    )
}

pub(super) fn lapse_line(lapse: &Value) -> String {
    format!(
        "{}, fence {} µs, teardown {} ms, {} links dropped, {} retained",
        text(lapse, "/reason"),
        text(lapse, "/fence_us"),
        text(lapse, "/teardown_ms"),
        text(lapse, "/dropped"),
        text(lapse, "/retained")
    )
}

pub(super) fn list_peers(client: &Client, output: &Output) -> Result<Exit, Failure> {
    let peers = client.get("/v1/peers")?;
    output.answer(&peers, |peers| {
        let rows: Vec<Vec<String>> = peers
            .as_array()
            .into_iter()
            .flatten()
            .map(peer_row)
            .collect();
        if rows.is_empty() {
            "no peers".to_owned()
        } else {
            output.table(&PEER_HEADS, &rows)
        }
    });
    Ok(Exit::Ok)
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

/// Prints events until the daemon stops or nobody reads any more.
pub(super) fn events(client: &Client, output: &Output) -> Result<Exit, Failure> {
    let stream = client.stream("/v1/events")?;
    for line in stream.lines() {
        let line = line.map_err(|error| {
            Failure::failed(
                format!("the event stream broke: {error}"),
                "/v1/events",
                "start the command again",
            )
        })?;
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        let reads = match serde_json::from_str::<Value>(data) {
            Ok(event) if !output.json => Output::line(&event_line(&event)),
            _ => Output::line(data),
        };
        if !reads {
            break;
        }
    }
    Ok(Exit::Ok)
}

/// `12:34:56.789 link_up node_id=… tag=gossip-only`, in UTC.
fn event_line(event: &Value) -> String {
    let at = event.get("at").and_then(Value::as_f64).unwrap_or_default();
    let (day, milliseconds) = (at.rem_euclid(86_400.0), (at.fract() * 1000.0).round());
    let (hours, minutes, seconds) = (
        (day / 3600.0).floor(),
        (day / 60.0).floor() % 60.0,
        day.floor() % 60.0,
    );
    let fields = event.as_object().into_iter().flatten();
    let fields =
        fields.filter(|(name, value)| !matches!(name.as_str(), "at" | "event") && !value.is_null());
    let fields: Vec<String> = fields
        .map(|(name, value)| format!(" {name}={}", quoted(value)))
        .collect();
    let fields = fields.concat();
    format!(
        "{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03} {}{fields}",
        text(event, "/event")
    )
}

/// A value that stands among others: what has spaces is quoted.
fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) if !text.contains(char::is_whitespace) => text.clone(),
        other => other.to_string(),
    }
}

/// A value without quotes, `-` for none.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn text(value: &Value, path: &str) -> String {
    value.pointer(path).map_or_else(|| "-".to_owned(), word)
}

/// How long ago a time of the daemon's was: `12 s`, `3 min`, `5 h`, `2 d`.
fn ago(value: &Value, path: &str) -> String {
    let Some(then) = value.pointer(path).and_then(Value::as_f64) else {
        return "-".to_owned();
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let seconds = (now - then).max(0.0);
    let (span, unit) = match seconds {
        short if short < 120.0 => (short, "s"),
        minutes if minutes < 7_200.0 => (minutes / 60.0, "min"),
        hours if hours < 172_800.0 => (hours / 3600.0, "h"),
        days => (days / 86_400.0, "d"),
    };
    format!("{span:.0} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_readable_line() {
        let event = json!({ "at": 86_400.0 + 3_723.25, "event": "link_up", "node_id": "02ab", "link": 3, "epoch": null });
        assert_eq!(
            event_line(&event),
            "01:02:03.250 link_up link=3 node_id=02ab"
        );
        let event = json!({
            "at": 0.0, "event": "signer_refused", "addr": "192.0.2.1:5", "reason": "macaroon_expired",
            "detail": "the macaroon has expired",
        });
        assert_eq!(
            event_line(&event),
            "00:00:00.000 signer_refused addr=192.0.2.1:5 detail=\"the macaroon has expired\" reason=macaroon_expired"
        );
    }

    #[test]
    fn a_time_is_shown_as_an_age() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        for (age, shown) in [
            (5.0, "5 s"),
            (600.0, "10 min"),
            (36_000.0, "10 h"),
            (864_000.0, "10 d"),
            (-50.0, "0 s"),
        ] {
            assert_eq!(ago(&json!({ "since": now - age }), "/since"), shown);
        }
        assert_eq!(ago(&json!({}), "/since"), "-");
    }
}
