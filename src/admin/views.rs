//! The JSON of the supervisor's snapshots and events. Times are Unix seconds, to the millisecond.

use super::control::{DoorView, SignerControl};
use crate::hex;
use crate::signer::Epoch;
use crate::supervisor::{
    AbsenceRequest, HtlcDeadline, LapseView, PeerState, PeerView, Pending, PendingPeer, Snapshot,
};
use crate::telemetry::{Event, LapseReport, Recorded, micros, millis};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// `/v1/info`.
pub(crate) fn info(snapshot: &Snapshot, peers: &[PeerView], control: &SignerControl) -> Value {
    json!({
        "node_id": snapshot.node_id.to_string(),
        "mode": snapshot.mode.as_str(),
        "epoch": snapshot.epoch.map(Epoch::get),
        "since": seconds(snapshot.since),
        "now": seconds(snapshot.at),
        "signer": signer(control, snapshot.signer_attached),
        "links": {
            "gossip_only": snapshot.links.gossip_only,
            "channel_bearing": snapshot.links.channel_bearing,
            "persona": snapshot.links.persona,
        },
        "peers": peer_counts(peers),
        "parked": snapshot.parked,
        "last_lapse": snapshot.last_lapse.as_ref().map(last_lapse),
        "chain": chain(snapshot),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// Adds a field to an object.
pub(super) fn add(object: &mut Value, name: &str, value: Option<Value>) {
    if let Value::Object(map) = object {
        map.insert(name.to_owned(), value.unwrap_or_default());
    }
}

/// `chain` of `/v1/info`: what the node has said of it, and the first HTLC to expire.
pub(super) fn chain(snapshot: &Snapshot) -> Value {
    json!({
        "height": snapshot.block_height,
        "own_update_at": snapshot.own_update_at.map(seconds),
        "own_update_age_s": snapshot.own_update_age.map(|age| age.as_secs()),
        "htlc_deadline": snapshot.htlc_deadline.as_ref().map(deadline),
    })
}

fn deadline(deadline: &HtlcDeadline) -> Value {
    json!({
        "node_id": deadline.peer.to_string(),
        "expiry_height": deadline.expiry_height,
        "blocks_left": deadline.blocks_left,
    })
}

/// What an absence of the signer would leave hanging.
pub(super) fn pending(pending: &Pending) -> Value {
    let peer = |peer: &PendingPeer| {
        json!({
            "node_id": peer.node_id.to_string(),
            "pending_htlcs": peer.urgency.pending_htlcs,
            "earliest_expiry_height": peer.urgency.earliest_expiry_height,
            "blocks_left": peer.blocks_left,
            "csv_delay": peer.urgency.csv_delay,
        })
    };
    json!({
        "height": pending.block_height,
        "htlcs": pending.htlcs,
        "peers": pending.peers.iter().map(peer).collect::<Vec<_>>(),
    })
}

/// `planned_absence` of `/v1/info`.
pub(super) fn planned(request: &AbsenceRequest) -> Value {
    json!({ "absence": request.number(), "pending": pending(request.pending()) })
}

/// `signer` of `/v1/info`: where it is, whether it is attached, and for one that dials in, its door.
fn signer(control: &SignerControl, attached: bool) -> Value {
    let mut value = control.door().as_ref().map_or_else(|| json!({}), door);
    if let Value::Object(map) = &mut value {
        map.insert("kind".to_owned(), json!(control.kind()));
        map.insert("attached".to_owned(), json!(attached));
    }
    value
}

/// The door at which a signer dials in.
pub(super) fn door(door: &DoorView) -> Value {
    json!({
        "listen": door.listen.to_string(),
        "hosts": door.hosts,
        "behind": door.behind,
        "certificate_sha256": hex::encode(&door.certificate_sha256).as_str(),
        "certificate_expires": door.certificate_expires.as_secs(),
        "root_key": door.root_key,
        "from": door.attached.as_ref().map(|caller| json!({
            "addr": caller.address.to_string(), "macaroon": caller.macaroon, "software": caller.software,
        })),
        "last_refusal": door.last_refusal.as_ref().map(|refusal| json!({
            "at": seconds(refusal.at), "addr": refusal.address.to_string(), "reason": refusal.reason,
            "detail": refusal.detail,
        })),
    })
}

fn peer_counts(peers: &[PeerView]) -> Value {
    let mut counts = Map::from_iter([("total".to_owned(), json!(peers.len()))]);
    for state in PeerState::ALL {
        let there = peers.iter().filter(|peer| peer.state == state).count();
        counts.insert(state.as_str().to_owned(), json!(there));
    }
    Value::Object(counts)
}

fn last_lapse(lapse: &LapseView) -> Value {
    json!({
        "at": seconds(lapse.at),
        "reason": lapse.reason.as_str(),
        "fence_us": micros(lapse.fence),
        "teardown_ms": millis(lapse.teardown),
        "dropped": lapse.dropped,
        "retained": lapse.retained,
    })
}

/// One entry of `/v1/peers`.
pub(crate) fn peer(peer: &PeerView) -> Value {
    let link = peer.link.as_ref();
    json!({
        "node_id": peer.node_id.to_string(),
        "addr": peer.address.as_ref().map(ToString::to_string),
        "addrs": peer.addresses.iter().map(|known| known.address.to_string()).collect::<Vec<_>>(),
        "tag": peer.tag.as_str(),
        "weight": peer.weight,
        "pending_htlcs": peer.urgency.pending_htlcs,
        "earliest_expiry_height": peer.urgency.earliest_expiry_height,
        "csv_delay": peer.urgency.csv_delay,
        "state": peer.state.as_str(),
        "identity": link.map(|link| link.identity.as_str()),
        "direction": link.map(|link| link.direction.as_str()),
        "since": link.map(|link| seconds(link.since)),
        "frames_in": link.map(|link| link.frames_in),
        "frames_out": link.map(|link| link.frames_out),
        "last_gossip_at": link.and_then(|link| link.last_gossip_at).map(seconds),
    })
}

/// What a lapse did, as the answer to who asked for it.
pub(super) fn lapse(report: &LapseReport) -> Value {
    json!({
        "epoch": report.epoch.get(),
        "reason": report.reason.as_str(),
        "fence_us": micros(report.fence),
        "teardown_ms": millis(report.teardown),
        "dropped": report.dropped,
        "retained": report.retained,
    })
}

/// One event of `/v1/events`: `at`, `event`, and what the event says.
pub(crate) fn event(recorded: &Recorded) -> Value {
    let mut value = fields(&recorded.event);
    if let Value::Object(map) = &mut value {
        map.insert("at".to_owned(), json!(seconds(recorded.at)));
        map.insert("event".to_owned(), json!(recorded.event.name()));
    }
    value
}

fn fields(event: &Event) -> Value {
    match event {
        Event::Listening { address } | Event::GatewayListening { address } => {
            json!({ "addr": address.to_string() })
        }
        Event::SignerRefused { .. }
        | Event::SignerTakenOver { .. }
        | Event::SignerStalled { .. }
        | Event::SignerOdd { .. }
        | Event::EcdhThrottled { .. } => at_gateway(event),
        Event::ModeChanged { from, to } => json!({ "from": from.as_str(), "to": to.as_str() }),
        Event::SignerAttached { epoch, away } => {
            json!({ "epoch": epoch.get(), "away_ms": away.map(millis) })
        }
        Event::SignerLapsed(report) => lapse(report),
        Event::Relit {
            epoch,
            took,
            up,
            failed,
        } => {
            json!({ "epoch": epoch.get(), "took_ms": took.map(millis), "up": up, "failed": failed })
        }
        Event::GossipFloor { missing, wanted } => json!({ "missing": missing, "wanted": wanted }),
        Event::HtlcDeadline(_) | Event::AbsencePlanned { .. } | Event::AbsenceOver { .. } => {
            urgent(event)
        }
        Event::HeldDown { lapses, wait } => json!({ "lapses": lapses, "wait_ms": millis(*wait) }),
        Event::Dialing { .. } | Event::DialFailed { .. } | Event::InboundFailed { .. } => {
            attempt(event)
        }
        Event::LinkUp { .. }
        | Event::LinkDown { .. }
        | Event::Leased { .. }
        | Event::Refused { .. } => on_link(event),
        Event::Handshake {
            direction,
            identity,
            result,
            took,
        } => json!({
            "direction": direction.as_str(), "identity": identity.as_str(), "result": result, "took_ms": millis(*took),
        }),
        Event::Ecdh {
            source,
            result,
            took,
        } => {
            json!({ "source": source.as_str(), "result": result, "took_us": micros(*took) })
        }
        Event::Tagged { peer, tag } => json!({ "node_id": peer.to_string(), "tag": tag.as_str() }),
        Event::MistagSuspected { peer } => json!({ "node_id": peer.to_string() }),
        Event::PeerComplained { peer, error, text } => {
            json!({ "node_id": peer.to_string(), "kind": if *error { "error" } else { "warning" }, "text": text })
        }
        Event::Banned { .. } => banned(event),
        Event::Pong { peer, rtt } => json!({ "node_id": peer.to_string(), "rtt_ms": millis(*rtt) }),
        Event::KeyRotated { direction, times } => {
            json!({ "direction": direction.as_str(), "times": times })
        }
        Event::Parked { now } => json!({ "now": now }),
        Event::BookFailed { detail } => json!({ "detail": detail }),
        Event::InboxStalled { stalled } => json!({ "stalled": stalled }),
        Event::ListenerBehind { missed } => json!({ "missed": missed }),
        Event::Drained { closed, overran } => json!({ "closed": closed, "overran": overran }),
    }
}

/// What presses: deadlines, and an absence that is planned.
fn urgent(event: &Event) -> Value {
    match event {
        Event::HtlcDeadline(near) => {
            let mut value = deadline(&near.soonest);
            add(&mut value, "within", Some(json!(near.within)));
            add(&mut value, "peers", Some(json!(near.peers)));
            value
        }
        Event::AbsencePlanned {
            number,
            htlcs,
            peers,
            soonest,
        } => json!({
            "absence": number, "htlcs": htlcs, "peers": peers, "blocks_left": soonest.map(|soonest| soonest.blocks_left),
        }),
        Event::AbsenceOver { number, outcome } => json!({ "absence": number, "outcome": outcome }),
        _ => json!({}),
    }
}

/// What happens where the signer dials in.
fn at_gateway(event: &Event) -> Value {
    match event {
        Event::SignerRefused {
            address,
            failure,
            detail,
            macaroon,
        } => json!({
            "addr": address.to_string(), "reason": failure, "detail": detail, "macaroon": macaroon,
        }),
        Event::SignerTakenOver { from, to } => {
            json!({ "from": from.to_string(), "to": to.to_string() })
        }
        Event::SignerStalled { stalled } => json!({ "stalled": stalled }),
        Event::SignerOdd { oddity } => json!({ "oddity": oddity }),
        Event::EcdhThrottled { scope } => json!({ "scope": scope }),
        _ => json!({}),
    }
}

/// A ban that begins.
fn banned(event: &Event) -> Value {
    let Event::Banned {
        who,
        offence,
        lasts,
    } = event
    else {
        return Value::Null;
    };
    json!({
        "scope": who.kind(), "who": who.to_string(), "offence": offence.as_str(), "lasts_s": lasts.as_secs(),
    })
}

/// The events of connections that are not links yet.
fn attempt(event: &Event) -> Value {
    match event {
        Event::Dialing {
            peer,
            address,
            identity,
        } => json!({
            "node_id": peer.to_string(), "addr": address.to_string(), "identity": identity.as_str(),
        }),
        Event::DialFailed {
            peer,
            address,
            identity,
            failure,
            detail,
            retry_in,
        } => json!({
            "node_id": peer.to_string(), "addr": address.to_string(), "identity": identity.as_str(), "failure": failure, "detail": detail,
            "retry_in_ms": retry_in.map(millis),
        }),
        Event::InboundFailed {
            address,
            failure,
            detail,
        } => {
            json!({ "addr": address.to_string(), "failure": failure, "detail": detail })
        }
        _ => json!({}),
    }
}

/// The events of one link.
fn on_link(event: &Event) -> Value {
    match event {
        Event::LinkUp {
            peer,
            link,
            address,
            tag,
            direction,
            identity,
        } => json!({
            "node_id": peer.to_string(), "link": link.get(), "addr": address.to_string(), "tag": tag.as_str(),
            "direction": direction.as_str(), "identity": identity.as_str(),
        }),
        Event::LinkDown {
            peer,
            link,
            tag,
            direction,
            identity,
            reason,
        } => json!({
            "node_id": peer.to_string(), "link": link.get(), "tag": tag.as_str(),
            "direction": direction.as_str(), "identity": identity.as_str(), "reason": reason.as_str(),
        }),
        Event::Leased { peer, link, epoch } => {
            json!({ "node_id": peer.to_string(), "link": link.get(), "epoch": epoch.get() })
        }
        Event::Refused {
            peer,
            link,
            kind,
            name,
            action,
        } => json!({
            "node_id": peer.to_string(), "link": link.get(), "type": kind, "name": name, "action": action,
        }),
        _ => json!({}),
    }
}

fn seconds(since_epoch: Duration) -> f64 {
    Duration::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signer::LapseReason;

    #[test]
    fn an_event_has_its_name_its_time_and_its_words() {
        let report = LapseReport {
            epoch: Epoch::FIRST,
            reason: LapseReason::Requested,
            fence: Duration::from_nanos(12_345),
            teardown: Duration::from_micros(1_500),
            dropped: 2,
            channel_bearing: 2,
            retained: 3,
        };
        let recorded = Recorded {
            at: Duration::from_micros(1_767_225_600_123_456),
            event: Event::SignerLapsed(report),
            number: Some(1),
        };
        let expected = json!({
            "at": 1_767_225_600.123, "event": "signer_lapsed", "epoch": 1, "reason": "requested", "fence_us": 12.345,
            "teardown_ms": 1.5, "dropped": 2, "retained": 3,
        });
        assert_eq!(event(&recorded), expected);
    }
}
