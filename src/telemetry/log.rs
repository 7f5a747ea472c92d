//! The events in the log: what an operator must see as `info` or `warn`, the rest as `debug`. The former under the names that
//! `/v1/events` has, one field each, so that who searches JSON lines finds there what the event stream and the metrics say.

use super::event::{Event, LapseReport};
use std::time::Duration;

/// Milliseconds, to the microsecond.
pub(crate) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// Microseconds, to the nanosecond.
pub(crate) fn micros(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e9).round() / 1e3
}

impl Event {
    /// Writes the event to the log. `unsaid`: a stranger's refusal is to be said, and so many like it were not.
    pub(super) fn log(&self, unsaid: Option<u64>) {
        match self {
            Self::SignerRefused { macaroon, .. } if macaroon.is_some() || unsaid.is_some() => {
                self.log_of_refused(unsaid);
            }
            Self::SignerLapsed(_)
            | Self::SignerTakenOver { .. }
            | Self::SignerStalled { .. }
            | Self::ModeChanged { .. }
            | Self::SignerAttached { .. }
            | Self::HeldDown { .. }
            | Self::Relit { .. } => self.log_of_signer(),
            Self::GossipFloor { .. }
            | Self::HtlcDeadline(_)
            | Self::AbsencePlanned { .. }
            | Self::AbsenceOver { .. } => self.log_of_absence(),
            Self::LinkUp { .. }
            | Self::LinkDown { .. }
            | Self::Tagged { .. }
            | Self::MistagSuspected { .. }
            | Self::Banned { .. } => self.log_of_peer(),
            Self::Listening { .. }
            | Self::GatewayListening { .. }
            | Self::BookFailed { .. }
            | Self::InboxStalled { .. }
            | Self::ListenerBehind { .. }
            | Self::Drained { .. } => self.log_of_node(),
            _ => {
                let event = self.name();
                tracing::debug!(event, details = ?self);
            }
        }
    }

    /// It may be the operator's own signer, with an old file: that is said, but strangers must not fill the log.
    fn log_of_refused(&self, unsaid: Option<u64>) {
        let event = self.name();
        let Self::SignerRefused {
            address,
            failure,
            detail,
            macaroon,
        } = self
        else {
            return;
        };
        let (addr, macaroon) = (address, macaroon.as_deref());
        if macaroon.is_some() {
            tracing::warn!(event, %addr, macaroon, reason = failure, detail, "a signer was refused");
        } else {
            tracing::warn!(event, %addr, reason = failure, detail, unsaid, "a signer was refused; more of the same is said once a minute");
        }
    }

    /// The signer's coming and going.
    fn log_of_signer(&self) {
        let event = self.name();
        match self {
            Self::SignerLapsed(report) => lapsed(event, report),
            Self::SignerTakenOver { from, to } => {
                tracing::warn!(event, %from, %to, "another signer has taken the place of one that did not answer");
            }
            Self::SignerStalled { stalled: true } => {
                let said = "the signer's connection is alive, and the signer does not answer";
                tracing::warn!(event, stalled = true, "{said}");
            }
            Self::SignerStalled { stalled } => tracing::info!(event, stalled),
            Self::ModeChanged { from, to } => {
                tracing::info!(event, from = from.as_str(), to = to.as_str());
            }
            Self::SignerAttached { epoch, away } => {
                tracing::info!(event, epoch = epoch.get(), away_ms = away.map(millis));
            }
            Self::HeldDown { lapses, wait } => {
                let wait_ms = millis(*wait);
                tracing::warn!(
                    event,
                    lapses,
                    wait_ms,
                    "the signer comes and goes: channel peers wait"
                );
            }
            Self::Relit {
                epoch,
                took,
                up,
                failed,
            } => {
                tracing::info!(
                    event,
                    epoch = epoch.get(),
                    took_ms = took.map(millis),
                    up,
                    failed
                );
            }
            _ => {}
        }
    }

    /// What an absence of the signer leads to, and one that is planned.
    fn log_of_absence(&self) {
        let event = self.name();
        match self {
            Self::GossipFloor {
                missing: 0, wanted, ..
            } => tracing::info!(event, missing = 0, wanted),
            Self::GossipFloor { missing, wanted } => {
                tracing::warn!(event, missing, wanted, "gossip comes over too few links");
            }
            Self::HtlcDeadline(near) => tracing::warn!(
                event,
                node_id = %near.soonest.peer,
                blocks_left = near.soonest.blocks_left,
                expiry_height = near.soonest.expiry_height,
                within = near.within,
                peers = near.peers,
                "HTLCs come close to their expiry, and no signer is there"
            ),
            Self::AbsencePlanned {
                number,
                htlcs,
                peers,
                soonest,
            } => {
                let blocks_left = soonest.map(|soonest| soonest.blocks_left);
                tracing::info!(event, absence = number, htlcs, peers, blocks_left);
            }
            Self::AbsenceOver { number, outcome } => {
                tracing::info!(event, absence = number, outcome);
            }
            _ => {}
        }
    }

    /// What happens to a peer.
    fn log_of_peer(&self) {
        let event = self.name();
        match self {
            Self::LinkUp {
                peer,
                link,
                address,
                tag,
                direction,
                identity,
            } => {
                let (tag, direction) = (tag.as_str(), direction.as_str());
                let (link, identity) = (link.get(), identity.as_str());
                tracing::info!(event, node_id = %peer, link, addr = %address, tag, direction, identity);
            }
            Self::LinkDown {
                peer,
                link,
                tag,
                direction,
                identity,
                reason,
            } => {
                let (tag, direction) = (tag.as_str(), direction.as_str());
                let (link, identity) = (link.get(), identity.as_str());
                let reason = reason.as_str();
                tracing::info!(event, node_id = %peer, link, tag, direction, identity, reason);
            }
            Self::Tagged { peer, tag } => {
                tracing::info!(event, node_id = %peer, tag = tag.as_str());
            }
            Self::MistagSuspected { peer } => {
                tracing::warn!(event, node_id = %peer, "a gossip-only peer claims a channel");
            }
            Self::Banned {
                who,
                offence,
                lasts,
            } => {
                let (scope, offence, lasts_s) = (who.kind(), offence.as_str(), lasts.as_secs());
                tracing::info!(event, scope, %who, offence, lasts_s);
            }
            _ => {}
        }
    }

    /// What happens to the node itself.
    fn log_of_node(&self) {
        let event = self.name();
        match self {
            Self::Listening { address } | Self::GatewayListening { address } => {
                tracing::info!(event, addr = %address);
            }
            Self::BookFailed { detail } => tracing::error!(event, detail, "the peer book failed"),
            Self::InboxStalled { stalled: true } => {
                let said = "the node does not receive: links have stopped reading";
                tracing::warn!(event, stalled = true, "{said}");
            }
            Self::InboxStalled { stalled } => tracing::info!(event, stalled),
            Self::ListenerBehind { missed } => {
                tracing::warn!(event, missed, "a reader of the event stream is too slow");
            }
            Self::Drained { closed, overran } => tracing::info!(event, closed, overran),
            _ => {}
        }
    }
}

fn lapsed(event: &str, report: &LapseReport) {
    tracing::warn!(
        event,
        epoch = report.epoch.get(),
        reason = report.reason.as_str(),
        fence_us = micros(report.fence),
        teardown_ms = millis(report.teardown),
        dropped = report.dropped,
        retained = report.retained,
        "the signer session ended"
    );
}
