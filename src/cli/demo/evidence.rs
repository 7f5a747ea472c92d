//! What the node recorded and what the far sides recorded, put side by side for the checks.

use super::DemoError;
use super::cast::Kind;
use super::checks::{self, Absence, Check, Fenced, Floor, Leases, Relight, Retained, Totals};
use super::far::{End, Far};
use super::node::FLOOR;
use super::recording::Recording;
use super::signer::median;
use super::stage::Stage;
use super::story::{LEAVER, MISTAGGED};
use crate::link::LinkHandle;
use crate::link::{CloseReason, Identity};
use crate::signer::agent::AgentReport;
use crate::signer::{Epoch, Lapse};
use crate::telemetry::{Event, LapseReport};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The moment of the lapse.
pub(super) struct Cut {
    pub(super) lapse: Lapse,
    /// From the cut of the signer's connection to the lapse.
    pub(super) noticed: Duration,
    pub(super) links: Vec<CutLink>,
    /// Uses of the node's key when the fence was up.
    pub(super) uses: usize,
    /// The last word of the agent whose connection it was.
    pub(super) agent: AgentReport,
    /// Gossip until then: see `Stage::gossip_counts`.
    pub(super) counts: Vec<(usize, usize)>,
    pub(super) after: Aftermath,
    /// From a gossip peer's leave until its loss was made good.
    pub(super) floor_back: Option<Duration>,
}

/// What followed from it.
pub(super) struct Aftermath {
    pub(super) report: LapseReport,
    /// From the lapse until the last far side saw its connection end.
    pub(super) last_end: Duration,
    /// Far sides that saw a reset, rather than another end.
    pub(super) resets: usize,
}

/// A channel link that was live at the lapse.
pub(super) struct CutLink {
    pub(super) peer: usize,
    pub(super) handle: LinkHandle,
    /// Bytes written when the fence was up.
    pub(super) written: u64,
    /// Messages that the handle took after that.
    pub(super) accepted_after: usize,
}

/// Records of links, taken before the drain.
pub(super) struct Links {
    fenced: Vec<Fenced>,
    retained: Vec<Retained>,
    floor: Floor,
    relight: Relight,
}

/// How it went.
pub(super) struct Outcome {
    pub(super) cut: Cut,
    pub(super) checks: Vec<Check>,
    pub(super) order: Vec<&'static str>,
    /// The channel peers, in the order in which the far sides accepted their second connections.
    pub(super) arrived: Vec<&'static str>,
    /// Events that came too fast to be recorded.
    pub(super) missed: u64,
    pub(super) relight: Option<Duration>,
    /// From a gossip peer's leave until none was missing of the floor.
    pub(super) floor_back: Option<Duration>,
    pub(super) rotations: u64,
    /// On the retained links.
    pub(super) gossip: Totals,
    pub(super) far_messages: u64,
    pub(super) signer: Signer,
    /// Whether all that was sent arrived in time to be compared.
    pub(super) settled: bool,
    /// The run until the drain, for a report.
    pub(super) recording: Recording,
}

/// What the signer did.
pub(super) struct Signer {
    /// Where it dialled in.
    pub(super) address: SocketAddr,
    /// Each of its agents' own report, in order.
    pub(super) agents: Vec<AgentReport>,
    /// Uses of the node's key, in all and while no signer was attached.
    pub(super) uses: usize,
    pub(super) uses_away: usize,
    /// An ECDH as the node's handshakes had it, over TLS, and its computation: medians.
    pub(super) round_trip: Duration,
    pub(super) computation: Duration,
}

impl Outcome {
    /// Judges what was recorded; the drain is over.
    pub(super) fn judge(
        stage: &Stage<'_>,
        cut: Cut,
        absence: &Absence,
        leases: &Leases,
        links: &Links,
        (settled, recording): (bool, Recording),
    ) -> Self {
        let count = |kind| stage.cast.of(kind).count();
        let total = |of: fn(&super::far::Seen) -> u64| -> u64 {
            stage
                .fars
                .iter()
                .map(|far| far.look(|seen| seen.iter().map(of).sum::<u64>()))
                .sum()
        };
        let far_messages = total(|seen| seen.messages_in);
        let connections = stage.fars.iter().map(|far| far.look(<[_]>::len)).sum();
        let rotations = stage.node.events(|events| {
            let times = events.iter().filter_map(|event| match event {
                Event::KeyRotated { times, .. } => Some(*times),
                _ => None,
            });
            times.sum()
        });
        let checks = vec![
            checks::fence(
                &links.fenced,
                count(Kind::Channel),
                cut.after.report.dropped,
            ),
            // The mis-tagged peer's link was closed on purpose, and another peer closed its own.
            checks::retention(
                &links.retained,
                count(Kind::Gossip).saturating_sub(2),
                rotations,
            ),
            checks::no_error(far_messages, total(|seen| seen.errors_in), connections),
            checks::signer_free(absence),
            checks::epochs(leases, count(Kind::Channel)),
            checks::floor(&links.floor),
            checks::relight(&links.relight),
        ];
        Self {
            floor_back: cut.floor_back,
            cut,
            checks,
            order: links.relight.dialled.clone(),
            arrived: arrived(stage),
            missed: stage.node.missed(),
            relight: links.relight.took,
            rotations,
            gossip: Totals::of(&links.retained),
            far_messages,
            signer: Signer {
                address: stage.node.gateway.local_addr(),
                agents: stage.signer.gone().to_vec(),
                uses: stage.signer.key.uses(),
                uses_away: absence.signer_calls,
                round_trip: median(stage.node.ecdhs().0),
                computation: stage.signer.key.computation(),
            },
            settled,
            recording,
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.checks.iter().all(Check::passed)
    }
}

/// Puts the links' records side by side. `at_return` is the gossip until the signer returned.
pub(super) fn collect(
    stage: &Stage<'_>,
    cut: &Cut,
    epoch: Epoch,
    at_return: &[(usize, usize)],
) -> Links {
    let fenced = cut
        .links
        .iter()
        .filter_map(|link| Some(fenced(stage, cut, link, far_of(stage, link.peer)?)))
        .collect();
    let gossip = stage
        .fars
        .iter()
        .filter(|far| far.member.kind == Kind::Gossip);
    let retained = gossip
        .zip(cut.counts.iter().zip(at_return))
        .filter(|(far, _)| ![MISTAGGED, LEAVER].contains(&far.member.name))
        .map(|(far, (before, after))| {
            let in_safe = (
                after.0.saturating_sub(before.0),
                after.1.saturating_sub(before.1),
            );
            retained(stage, far, in_safe)
        })
        .collect();
    let channel = stage.cast.of(Kind::Channel);
    let relight = Relight {
        due: stage.cast.by_urgency(),
        dialled: dialled(stage, epoch),
        up: channel
            .filter(|member| stage.is_linked(member) && connections(stage, member.index) == 2)
            .map(|member| member.name)
            .collect(),
        took: stage.relit(epoch),
    };
    Links {
        fenced,
        retained,
        floor: floor(stage, cut),
        relight,
    }
}

/// How many gossip links the node said were missing, each time, since the lapse.
pub(super) fn missing(stage: &Stage<'_>, cut: &Cut) -> Vec<usize> {
    stage.node.events(|events| {
        let lapsed = |event: &Event| matches!(event, Event::SignerLapsed(report) if report.epoch == cut.lapse.epoch);
        let since = events.iter().skip_while(|event| !lapsed(event));
        since
            .filter_map(|event| match event {
                Event::GossipFloor { missing, .. } => Some(*missing),
                _ => None,
            })
            .collect()
    })
}

/// What became of the gossip link that its peer closed in the absence.
fn floor(stage: &Stage<'_>, cut: &Cut) -> Floor {
    let Ok(far) = stage.far(LEAVER) else {
        return Floor::default();
    };
    let missing = missing(stage, cut);
    let node = stage.node.supervisor.node_id();
    // The first connection is the one that it closed.
    let (sent, met_the_node) = far.look(|seen| {
        let after: BTreeSet<_> = seen.iter().skip(1).flat_map(|seen| &seen.sent).collect();
        let second = seen.get(1).and_then(|seen| seen.remote);
        (after.into_iter().copied().collect(), second == Some(node))
    });
    stage.node.look(|links| {
        let of_peer = || links.iter().filter(|link| link.peer == far.member.index);
        let persona = of_peer().find(|link| link.handle.identity() == Identity::Persona);
        let own = of_peer().rfind(|link| link.handle.identity() == Identity::Node);
        let own_first = persona.zip(own).is_some_and(|(persona, own)| {
            persona.down == Some(CloseReason::Persona)
                && persona.down_at.is_some_and(|ended| own.up_at < ended)
        });
        let met = links.iter().filter(|link| {
            link.handle.identity() == Identity::Persona
                && stage.kind(link.peer) != Some(Kind::Gossip)
        });
        Floor {
            name: LEAVER,
            wanted: FLOOR,
            most_missing: missing.iter().copied().max().unwrap_or_default(),
            missing_at_last: missing.last().copied().unwrap_or_default(),
            back_after: cut.floor_back,
            met_the_node,
            channel_peers_met: met.count(),
            own_first,
            sent,
            delivered: of_peer().flat_map(|link| link.delivered.clone()).collect(),
            under_persona: persona.map_or(0, |link| link.delivered.len()),
        }
    })
}

fn fenced(stage: &Stage<'_>, cut: &Cut, link: &CutLink, far: &Far) -> Fenced {
    let (last, messages) = stage.node.look(|links| {
        let known = links
            .iter()
            .find(|known| known.handle.id() == link.handle.id());
        known.map_or((None, 0), |known| {
            (known.last_delivery, known.channel_messages)
        })
    });
    let fence_up = cut.lapse.at + cut.lapse.fence;
    // The first connection is the one that the lapse ended.
    let first = far.look(|seen| seen.first().cloned()).unwrap_or_default();
    Fenced {
        name: far.member.name,
        written_at_fence: link.written,
        written_at_end: link.handle.bytes_written(),
        far_bytes: first.bytes_in,
        channel_messages: messages.saturating_add(first.channel_messages_in),
        delivered_after: last.and_then(|last| last.checked_duration_since(fence_up)),
        accepted_after: link.accepted_after,
        far_reset: matches!(first.ended, Some((_, End::Reset))),
    }
}

fn retained(stage: &Stage<'_>, far: &Far, in_safe: (usize, usize)) -> Retained {
    let peer = far.member.index;
    let (delivered, from) = stage
        .node
        .newest(peer, |link| (link.delivered.clone(), link.relayed_from))
        .unwrap_or_default();
    let (ended, sent, received) = far.newest(|seen| {
        (
            seen.ended.is_some(),
            seen.sent.clone(),
            seen.received.clone(),
        )
    });
    Retained {
        name: far.member.name,
        connections: connections(stage, peer),
        ended,
        sent,
        delivered,
        relayed: from
            .map(|from| stage.node.journal.for_peer(from, peer))
            .unwrap_or_default(),
        received,
        in_safe,
    }
}

/// Nobody makes gossip any more, and all of it is where it should be. First what comes to the node, from channel peers too: what is to be
/// relayed is known only when all of it has come.
pub(super) fn is_settled(stage: &Stage<'_>) -> bool {
    let has_come = |far: &Arc<Far>| {
        let delivered = stage
            .node
            .newest(far.member.index, |link| link.delivered.len())
            .unwrap_or_default();
        far.newest(|seen| seen.ended.is_some() || seen.sent.len() == delivered)
    };
    let is_relayed = |far: &Arc<Far>| {
        let peer = far.member.index;
        let from = stage.node.newest(peer, |link| link.relayed_from).flatten();
        let relayed = from.map_or(0, |from| stage.node.journal.count_for_peer(from, peer));
        far.newest(|seen| seen.received.len() == relayed)
    };
    let mut of_gossip = stage
        .fars
        .iter()
        .filter(|far| far.member.kind == Kind::Gossip);
    stage
        .fars
        .iter()
        .all(|far| far.newest(|seen| !seen.publishes))
        && stage.fars.iter().all(has_come)
        && of_gossip.all(is_relayed)
}

/// The channel peers in the order in which their second connection began, as they saw it.
fn arrived(stage: &Stage<'_>) -> Vec<&'static str> {
    let channel = stage
        .fars
        .iter()
        .filter(|far| far.member.kind == Kind::Channel);
    let mut back: Vec<(Instant, &'static str)> = channel
        .filter_map(|far| Some((far.look(|seen| seen.get(1)?.began)?, far.member.name)))
        .collect();
    back.sort_unstable();
    back.into_iter().map(|(_, name)| name).collect()
}

/// Which session each link depends on now.
///
/// # Errors
/// The supervisor has stopped.
pub(super) async fn leases(
    stage: &Stage<'_>,
    cut: &Cut,
    epoch: Epoch,
) -> Result<Leases, DemoError> {
    let mut leases = Leases {
        epoch: epoch.get(),
        ..Leases::default()
    };
    for peer in stage.node.supervisor.peers().await? {
        let (Some(member), Some(link)) = (stage.cast.find(peer.node_id), peer.link) else {
            continue;
        };
        let entry = (member.name, link.leased_under.map(Epoch::get));
        if member.kind == Kind::Channel {
            leases.channel.push(entry);
        } else {
            leases.gossip.push(entry);
        }
    }
    let gossip = super::gossip::commitment_signed;
    leases.old_handles_alive = cut
        .links
        .iter()
        .filter(|link| link.handle.try_send(gossip()).is_ok())
        .count();
    Ok(leases)
}

/// Whom the node dialled after that session began, in order.
pub(super) fn dialled(stage: &Stage<'_>, epoch: Epoch) -> Vec<&'static str> {
    stage.node.events(|events| {
        let since = events.iter().skip_while(
            |event| !matches!(event, Event::SignerAttached { epoch: began, .. } if *began == epoch),
        );
        let peers = since.filter_map(|event| match event {
            Event::Dialing { peer, .. } => stage.cast.find(*peer),
            _ => None,
        });
        peers.map(|member| member.name).collect()
    })
}

fn far_of<'a>(stage: &'a Stage<'_>, peer: usize) -> Option<&'a Arc<Far>> {
    stage.fars.iter().find(|far| far.member.index == peer)
}

fn connections(stage: &Stage<'_>, peer: usize) -> usize {
    far_of(stage, peer).map_or(0, |far| far.look(<[_]>::len))
}
