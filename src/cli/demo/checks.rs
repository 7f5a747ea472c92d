//! The promises, checked on recordings. Pure: evidence in, verdicts out; the tests below feed it bad recordings.
//!
//! A check must be able to fail, so evidence that is empty fails it too: nothing is proved by links that carried nothing.

use super::gossip::Stamp;
use std::collections::BTreeSet;
use std::time::Duration;

/// Faults that are spelled out under a failed check; the rest are counted.
const FAULTS_SHOWN: usize = 4;

/// One promise and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// Its number in design.md § Promises.
    pub(super) promise: &'static str,
    /// What must hold.
    pub(super) claim: &'static str,
    /// What was measured.
    pub(super) figure: String,
    /// What speaks against it; empty if it holds.
    pub(super) faults: Vec<String>,
}

impl Check {
    pub(super) fn passed(&self) -> bool {
        self.faults.is_empty()
    }

    fn new(
        promise: &'static str,
        claim: &'static str,
        figure: String,
        mut faults: Vec<String>,
    ) -> Self {
        if faults.len() > FAULTS_SHOWN {
            let more = faults.len().saturating_sub(FAULTS_SHOWN);
            faults.truncate(FAULTS_SHOWN);
            faults.push(format!("and {more} more"));
        }
        Self {
            promise,
            claim,
            figure,
            faults,
        }
    }
}

/// A channel link that the lapse fenced off.
#[derive(Debug, Clone, Default)]
pub(super) struct Fenced {
    pub(super) name: &'static str,
    /// What the node had handed to the kernel when the fence was up, before `lapse` returned, and at the very end.
    pub(super) written_at_fence: u64,
    pub(super) written_at_end: u64,
    /// What the far side has read.
    pub(super) far_bytes: u64,
    /// Channel messages that had passed, both ways.
    pub(super) channel_messages: u64,
    /// From the moment when the fence was up to the beginning of the last delivery from this link, if that came later.
    pub(super) delivered_after: Option<Duration>,
    /// Messages that the link's handle took from the node after that.
    pub(super) accepted_after: usize,
    /// The far side saw the connection end with a reset.
    pub(super) far_reset: bool,
}

/// P1: nothing moves on a fenced link once the fence is up; `lapse` returns no earlier.
pub(super) fn fence(links: &[Fenced], expected: usize, dropped: usize) -> Check {
    let mut faults = Vec::new();
    if links.len() != expected || dropped != expected {
        let fenced = links.len();
        faults.push(format!(
            "{fenced} links were fenced and {dropped} reported as dropped, not {expected}"
        ));
    }
    for link in links {
        let name = link.name;
        if link.written_at_end != link.written_at_fence {
            let more = link.written_at_end.saturating_sub(link.written_at_fence);
            faults.push(format!(
                "{name}: {more} bytes were written after the fence was up"
            ));
        }
        if link.far_bytes > link.written_at_fence {
            let more = link.far_bytes.saturating_sub(link.written_at_fence);
            faults.push(format!(
                "{name}: the far side has {more} bytes beyond the last one"
            ));
        }
        if let Some(late) = link.delivered_after {
            faults.push(format!(
                "{name}: a message was delivered {} µs after the fence was up",
                late.as_micros()
            ));
        }
        if link.accepted_after > 0 {
            faults.push(format!(
                "{name}: {} messages were accepted for sending afterwards",
                link.accepted_after
            ));
        }
        if !link.far_reset {
            faults.push(format!("{name}: the far side did not see a reset"));
        }
        if link.channel_messages == 0 || link.far_bytes == 0 {
            faults.push(format!(
                "{name}: carried no channel message, so it shows nothing"
            ));
        }
    }
    let sum = |of: fn(&Fenced) -> u64| links.iter().map(of).sum::<u64>();
    let late_bytes = sum(|link| {
        link.written_at_end
            .max(link.far_bytes)
            .saturating_sub(link.written_at_fence)
    });
    let late_deliveries = links
        .iter()
        .filter(|link| link.delivered_after.is_some())
        .count();
    let figure = format!(
        "{late_bytes} bytes, {late_deliveries} deliveries on {} links that had carried {} channel messages, {} bytes",
        links.len(),
        sum(|link| link.channel_messages),
        sum(|link| link.written_at_fence),
    );
    Check::new(
        "P1",
        "once the fence was up, no byte and no delivery on a channel link",
        figure,
        faults,
    )
}

/// A gossip link that lived through the lapse and the return.
#[derive(Debug, Clone, Default)]
pub(super) struct Retained {
    pub(super) name: &'static str,
    /// Connections that the far side had in all.
    pub(super) connections: usize,
    /// The connection ended before the checks.
    pub(super) ended: bool,
    /// What the far side sent, and what the node's inbox gave.
    pub(super) sent: Vec<Stamp>,
    pub(super) delivered: Vec<Stamp>,
    /// What the node had to relay, and what the far side received.
    pub(super) relayed: Vec<Stamp>,
    pub(super) received: Vec<Stamp>,
    /// Messages while the signer was away, to the node and from it.
    pub(super) in_safe: (usize, usize),
}

/// Gossip messages on the retained links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// To the node, and from it.
    pub(super) whole: (usize, usize),
    /// The part of them while the signer was away.
    pub(super) safe: (usize, usize),
}

impl Totals {
    pub(super) fn of(links: &[Retained]) -> Self {
        let total = |of: fn(&Retained) -> usize| links.iter().map(of).sum::<usize>();
        Self {
            whole: (
                total(|link| link.delivered.len()),
                total(|link| link.received.len()),
            ),
            safe: (total(|link| link.in_safe.0), total(|link| link.in_safe.1)),
        }
    }
}

/// P2: retained links lose, repeat and reorder nothing, in either direction.
pub(super) fn retention(links: &[Retained], expected: usize, rotations: u64) -> Check {
    let mut faults = Vec::new();
    if links.len() != expected {
        faults.push(format!(
            "{} links were retained, not {expected}",
            links.len()
        ));
    }
    for link in links {
        let name = link.name;
        if link.ended || link.connections != 1 {
            faults.push(format!(
                "{name}: the link did not last ({} connections)",
                link.connections
            ));
        }
        if link.in_safe.0 == 0 || link.in_safe.1 == 0 {
            faults.push(format!(
                "{name}: no gossip in both directions while the signer was away"
            ));
        }
        faults.extend(
            compare(&link.sent, &link.delivered)
                .map(|fault| format!("{name} to the node: {fault}")),
        );
        faults.extend(numbered(&link.sent).map(|fault| format!("{name} to the node: {fault}")));
        faults.extend(
            compare(&link.relayed, &link.received).map(|fault| format!("node to {name}: {fault}")),
        );
    }
    let Totals { whole, safe } = Totals::of(links);
    let figure = format!(
        "{} in and {} out on {} links ({} and {} without a signer), {rotations} key rotations",
        whole.0,
        whole.1,
        links.len(),
        safe.0,
        safe.1
    );
    Check::new(
        "P2",
        "every numbered gossip message once and in order, across lapse and return",
        figure,
        faults,
    )
}

/// The first difference between what went in and what came out.
fn compare(sent: &[Stamp], came: &[Stamp]) -> Option<String> {
    let at = sent
        .iter()
        .zip(came)
        .position(|(sent, came)| sent != came)
        .unwrap_or(sent.len().min(came.len()));
    let name = |stamp: &Stamp| format!("message {} of peer {}", stamp.number, stamp.origin);
    match (sent.get(at), came.get(at)) {
        (None, None) => None,
        (Some(lost), None) => Some(format!(
            "{} is missing ({} sent, {} came)",
            name(lost),
            sent.len(),
            came.len()
        )),
        (due, Some(found)) => {
            let what = if came.iter().take(at).any(|earlier| earlier == found) {
                "came twice"
            } else {
                "is out of order"
            };
            let due = due.map_or("nothing".to_owned(), name);
            Some(format!("{} {what} (due at place {at}: {due})", name(found)))
        }
    }
}

/// A far side's own messages are numbered without a gap: else a loss could hide in its record.
fn numbered(sent: &[Stamp]) -> Option<String> {
    let pairs = sent.iter().zip(sent.iter().skip(1));
    let gap = pairs
        .into_iter()
        .find(|(one, next)| one.number.checked_add(1) != Some(next.number));
    gap.map(|(one, next)| format!("the record jumps from {} to {}", one.number, next.number))
}

/// P4: nobody ever received an `error` (17).
pub(super) fn no_error(messages: u64, errors: u64, connections: usize) -> Check {
    let mut faults = Vec::new();
    if errors > 0 {
        faults.push(format!("{errors} messages of type 17 reached a far side"));
    }
    if messages == 0 {
        faults.push("no message reached any far side, so it shows nothing".to_owned());
    }
    let figure = format!(
        "{errors} of {messages} messages that the far sides received, on {connections} connections"
    );
    Check::new("P4", "no error (17) reached anybody", figure, faults)
}

/// The first signer session's ECDHs, counted where they are asked for, where they pass and where they are computed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Books {
    /// The node's handshakes: answers that they got, and questions that got none.
    pub(super) node: (usize, usize),
    /// The agent's own report: ECDHs and proofs that it answered, and requests that it refused or failed on.
    pub(super) agent_ecdh: u64,
    pub(super) agent_proofs: u64,
    pub(super) agent_refused: u64,
    /// Uses of the key.
    pub(super) key: usize,
}

impl Books {
    /// What does not agree, if anything does not.
    fn fault(self) -> Option<String> {
        let Self {
            node,
            agent_ecdh,
            agent_proofs,
            agent_refused,
            key,
        } = self;
        let agree = node == (usize::try_from(agent_ecdh).ok()?, 0)
            && key as u64 == agent_ecdh.saturating_add(agent_proofs)
            && agent_refused == 0;
        let shows = agent_ecdh > 0 && agent_proofs == 1;
        (!agree || !shows).then(|| {
            format!(
                "the books differ or are empty: the node got {} answers and {} refusals, the agent gave {agent_ecdh} and {agent_proofs} proofs and refused {agent_refused}, the key was used {key} times",
                node.0, node.1
            )
        })
    }
}

/// What happened while no signer was there.
#[derive(Debug, Clone, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state machine in disguise"
)]
pub(super) struct Absence {
    /// Uses of the node's key.
    pub(super) signer_calls: usize,
    /// ECDHs that the node's handshakes asked for.
    pub(super) asked: usize,
    /// What both sides had counted before; it must be the same.
    pub(super) books: Books,
    /// Inbound connections that waited.
    pub(super) parked: usize,
    /// How a dial that was asked for ended: after how long, and with [`SignerAway`](crate::supervisor::ConnectError::SignerAway)?
    pub(super) dial_refused: Option<Duration>,
    /// A stranger's `open_channel`: warnings it got, whether the node was handed it, whether its link lives.
    pub(super) open_warnings: usize,
    pub(super) open_delivered: bool,
    pub(super) open_link_lives: bool,
    /// A gossip peer's `channel_reestablish`: the link is closed, nothing was said on it, the event was emitted.
    pub(super) mistag_closed: bool,
    pub(super) mistag_warnings: usize,
    pub(super) mistag_event: bool,
}

/// A dial that is refused "at once" is refused within this time, even on a machine that is busy with other things.
const AT_ONCE: Duration = Duration::from_secs(1);

/// P5: without a signer nothing waits for one, and nobody can cause a call of it.
pub(super) fn signer_free(absence: &Absence) -> Check {
    let mut faults = Vec::new();
    let mut expect = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    expect(
        absence.signer_calls == 0,
        format!("the node's key was used {} times", absence.signer_calls),
    );
    expect(
        absence.asked == 0,
        format!("the node asked for {} ECDHs", absence.asked),
    );
    let books = absence.books.fault();
    expect(books.is_none(), books.unwrap_or_default());
    expect(
        absence.parked == 1,
        format!("{} inbound connections were parked, not 1", absence.parked),
    );
    expect(
        absence.dial_refused.is_some_and(|took| took < AT_ONCE),
        "a dial did not fail at once with SignerAway".to_owned(),
    );
    expect(
        absence.open_warnings == 1,
        format!(
            "open_channel was answered by {} warnings, not 1",
            absence.open_warnings
        ),
    );
    expect(
        !absence.open_delivered,
        "open_channel was handed to the node".to_owned(),
    );
    expect(
        absence.open_link_lives,
        "open_channel ended its link".to_owned(),
    );
    expect(
        absence.mistag_closed,
        "channel_reestablish did not close its link".to_owned(),
    );
    expect(
        absence.mistag_warnings == 0,
        "channel_reestablish was answered".to_owned(),
    );
    expect(
        absence.mistag_event,
        "no event says that a tag may be wrong".to_owned(),
    );
    let took = absence.dial_refused.unwrap_or_default();
    let figure = format!(
        "{} signer calls ({} ECDHs and {} proof before, by both sides' books), {} parked, a dial refused in {} µs",
        absence.signer_calls,
        absence.books.agent_ecdh,
        absence.books.agent_proofs,
        absence.parked,
        took.as_micros()
    );
    Check::new(
        "P5",
        "without a signer nothing asks it or waits for it",
        figure,
        faults,
    )
}

/// Which session each live link depends on, after the return.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases {
    /// The session that began with the return.
    pub(super) epoch: u64,
    pub(super) channel: Vec<(&'static str, Option<u64>)>,
    pub(super) gossip: Vec<(&'static str, Option<u64>)>,
    /// Handles of links of the old session that still took a message.
    pub(super) old_handles_alive: usize,
}

/// P6: a link leased under a session dies with it.
pub(super) fn epochs(leases: &Leases, channel: usize) -> Check {
    let mut faults = Vec::new();
    if leases.channel.len() != channel {
        faults.push(format!(
            "{} channel links live, not {channel}",
            leases.channel.len()
        ));
    }
    for (name, lease) in &leases.channel {
        if *lease != Some(leases.epoch) {
            faults.push(format!(
                "{name}: leased under {lease:?}, not session {}",
                leases.epoch
            ));
        }
    }
    for (name, lease) in &leases.gossip {
        if lease.is_some() {
            faults.push(format!("{name}: a gossip link is leased under {lease:?}"));
        }
    }
    if leases.old_handles_alive > 0 {
        faults.push(format!(
            "{} handles of the old session still take messages",
            leases.old_handles_alive
        ));
    }
    let newest = leases
        .channel
        .iter()
        .filter(|(_, lease)| *lease == Some(leases.epoch))
        .count();
    let figure = format!(
        "{newest} of {channel} channel links leased under session {}, the newest",
        leases.epoch
    );
    Check::new("P6", "no link of the old session lives", figure, faults)
}

/// A gossip link that went while no signer was there, and what took its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Floor {
    pub(super) name: &'static str,
    /// Gossip links that there shall be.
    pub(super) wanted: usize,
    /// The most that the node said were missing in the absence, and the last that it said.
    pub(super) most_missing: usize,
    pub(super) missing_at_last: usize,
    /// From the loss until none was missing.
    pub(super) back_after: Option<Duration>,
    /// The key that the peer met meanwhile was the node's.
    pub(super) met_the_node: bool,
    /// Channel peers that met a persona.
    pub(super) channel_peers_met: usize,
    /// The node's own link was up before the persona's ended, and the persona's ended for it.
    pub(super) own_first: bool,
    /// What the peer sent on either link, in the order of its making, and what the node's inbox gave of it, from whichever link.
    pub(super) sent: Vec<Stamp>,
    pub(super) delivered: BTreeSet<Stamp>,
    /// The part that came under the persona.
    pub(super) under_persona: usize,
}

/// A floor that comes back "within seconds" does so within this time, even on a machine that is busy with other things. The first wait
/// after a loss takes up to a second of it.
const SECONDS: Duration = Duration::from_secs(20);

/// P7: a gossip link that is lost in an absence is made good under a persona, and replaced at the return with nothing lost between.
pub(super) fn floor(floor: &Floor) -> Check {
    let mut faults = Vec::new();
    let mut expect = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    let name = floor.name;
    expect(
        floor.most_missing > 0,
        "the loss was not told, so it shows nothing".to_owned(),
    );
    expect(
        floor.missing_at_last == 0,
        format!(
            "{} links of {} were still missing",
            floor.missing_at_last, floor.wanted
        ),
    );
    expect(
        floor.back_after.is_some_and(|took| took < SECONDS),
        format!("the floor did not come back within {} s", SECONDS.as_secs()),
    );
    expect(
        !floor.met_the_node,
        format!("{name} met the node's own key without a signer"),
    );
    expect(
        floor.channel_peers_met == 0,
        format!("{} channel peers met a persona", floor.channel_peers_met),
    );
    expect(
        floor.own_first,
        format!("{name}: the persona's link did not end for the node's own, after that was up"),
    );
    expect(
        floor.under_persona > 0,
        format!("{name}: no gossip came under the persona, so it shows nothing"),
    );
    let lost = floor
        .sent
        .iter()
        .filter(|stamp| !floor.delivered.contains(stamp));
    let lost: Vec<u32> = lost.map(|stamp| stamp.number).collect();
    let first = lost.first().copied().unwrap_or_default();
    expect(
        lost.is_empty(),
        format!(
            "{name}: {} messages fell between the links, the first is {first}",
            lost.len()
        ),
    );
    faults.extend(numbered(&floor.sent).map(|fault| format!("{name}: {fault}")));
    let back = floor.back_after.map_or("never".to_owned(), |took| {
        format!("after {:.0} ms", millis(took))
    });
    let figure = format!(
        "{} of {} missing at most, none {back}; {} messages of {name} under a persona and across its replacement, {} lost",
        floor.most_missing,
        floor.wanted,
        floor.sent.len(),
        lost.len()
    );
    Check::new(
        "P7",
        "a lost gossip link replaced by a persona, and that by the node's own, without a gap",
        figure,
        faults,
    )
}

/// How the channel peers came back.
#[derive(Debug, Clone, Default)]
pub(super) struct Relight {
    /// The order that is due.
    pub(super) due: Vec<&'static str>,
    /// The order in which the node dialled, gossip peers included.
    pub(super) dialled: Vec<&'static str>,
    /// Who has a second connection from the node, that is up.
    pub(super) up: Vec<&'static str>,
    /// From the signer's attach to the last of them.
    pub(super) took: Option<Duration>,
}

/// P8: all channel peers are re-dialled unasked, the most urgent first.
pub(super) fn relight(relight: &Relight) -> Check {
    let mut faults = Vec::new();
    for (place, due) in relight.due.iter().enumerate() {
        if !relight.up.contains(due) {
            faults.push(format!("{due} did not come back"));
        }
        let dialled = relight.dialled.get(place).unwrap_or(&"nobody");
        if dialled != due {
            faults.push(format!(
                "dial {} went to {dialled}; {due} was more urgent",
                place.saturating_add(1)
            ));
        }
    }
    if relight.took.is_none() || relight.due.is_empty() {
        faults.push("the return was never complete".to_owned());
    }
    let took = relight.took.map_or("never all".to_owned(), |took| {
        format!("{:.1} ms after attach", millis(took))
    });
    let order: Vec<&str> = relight
        .dialled
        .iter()
        .take(relight.due.len())
        .copied()
        .collect();
    let figure = format!(
        "{} of {} up, {took}; dialled {}",
        relight.up.len(),
        relight.due.len(),
        order.join(" ")
    );
    Check::new(
        "P8",
        "every channel peer re-dialled unasked, the most urgent first",
        figure,
        faults,
    )
}

/// Milliseconds, with a fraction.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
