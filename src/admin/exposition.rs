//! The metrics that no recorder keeps, in Prometheus's text format: those of single peers, which must vanish with their peer, and
//! those of the process, which are read when somebody asks.

use super::process::Usage;
use crate::limits;
use crate::supervisor::{LinkView, PeerState, PeerView};
use crate::telemetry::{Metric, PEER_METRICS, PROCESS_METRICS};
use std::fmt::{Display, Write as _};

/// The series of every peer, at most [`PER_PEER_MAX`](limits::PER_PEER_MAX) of them: those with links first.
pub(super) fn peers(peers: &[PeerView]) -> String {
    let (linked, others): (Vec<_>, Vec<_>) = peers.iter().partition(|peer| peer.link.is_some());
    let shown: Vec<&PeerView> = linked
        .into_iter()
        .chain(others)
        .take(limits::PER_PEER_MAX)
        .collect();
    let mut text = String::new();
    for metric in PEER_METRICS {
        head(&mut text, metric);
        for peer in &shown {
            of_peer(&mut text, metric.name, peer);
        }
    }
    text
}

/// What one metric says of one peer: nothing, one series or two.
fn of_peer(text: &mut String, metric: &str, peer: &PeerView) {
    let node_id = peer.node_id.to_string();
    let mut say = |label: (&str, &str), value: &dyn Display| {
        sample(text, metric, &[("node_id", &node_id), label], value);
    };
    let link = peer.link.as_ref();
    match metric {
        "pilotlight_peer_up" => {
            let up = u8::from(peer.state == PeerState::Up);
            say(("tag", peer.tag.as_str()), &up);
        }
        "pilotlight_peer_state" => say(("state", peer.state.as_str()), &1),
        "pilotlight_peer_identity" => {
            if let Some(link) = link {
                say(("identity", link.identity.as_str()), &1);
            }
        }
        "pilotlight_peer_frames_total" => {
            if let Some(link) = link {
                say(("direction", "inbound"), &link.frames_in);
                say(("direction", "outbound"), &link.frames_out);
            }
        }
        "pilotlight_peer_last_gossip_timestamp_seconds" => {
            if let Some(LinkView {
                last_gossip_at: Some(at),
                ..
            }) = link
            {
                sample(text, metric, &[("node_id", &node_id)], &at.as_secs());
            }
        }
        _ => {}
    }
}

/// The series of the process.
pub(super) fn process(usage: &Usage) -> String {
    let mut text = String::new();
    for metric in PROCESS_METRICS {
        let value = usage.of(metric.name);
        if let Some(value) = value {
            head(&mut text, metric);
            sample(&mut text, metric.name, &[], &value);
        }
    }
    text
}

fn head(text: &mut String, metric: &Metric) {
    let (name, kind) = (metric.name, metric.kind.as_str());
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
}

/// Label values are ids and words of this crate: nothing in them needs escaping.
fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: &dyn Display) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(label, value)| format!("{label}=\"{value}\""))
        .collect();
    let labels = match labels.as_slice() {
        [] => String::new(),
        labels => format!("{{{}}}", labels.join(",")),
    };
    let _ = writeln!(text, "{name}{labels} {value}");
}
