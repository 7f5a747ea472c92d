//! What the supervisor keeps of one peer: what the node wants of it, against what is. Plain data; it decides nothing across peers.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::floor::Standing;
use super::seen::Seen;
use crate::address::{AddressOrigin, KnownAddress, PeerAddress};
use crate::book::PeerRecord;
use crate::clock::Moment;
use crate::limits;
use crate::link::{Direction, LinkId, Tag};
use crate::node_id::NodeId;
use std::cmp::Reverse;
use std::time::Duration;

/// How urgently a channel peer is needed back. The node supplies it; all zero when it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Urgency {
    /// HTLCs that are not settled.
    pub pending_htlcs: u32,
    /// Block height at which the first of them expires. Counts only with pending HTLCs.
    pub earliest_expiry_height: u32,
    /// Blocks that a cheated party has to react.
    pub csv_delay: u16,
}

/// Where a peer stands, as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerState {
    /// A link is up.
    Up,
    /// A connection, a handshake or an `init` is under way.
    Dialing,
    /// The next dial waits after a failure.
    Backoff,
    /// The next dial waits for the signer, or for the end of the hold-down after it has come and gone too often.
    Held,
    /// It is in the queue of those to be dialled.
    Awaited,
    /// None of its addresses can be dialled: onion services without a proxy, or learned addresses that are not globally routable.
    NotDialable,
    /// Nothing is under way: no address is known, or the node does not want a link.
    Idle,
}

impl PeerState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Up,
        Self::Dialing,
        Self::Backoff,
        Self::Held,
        Self::Awaited,
        Self::NotDialable,
        Self::Idle,
    ];

    /// The label in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Dialing => "dialing",
            Self::Backoff => "backoff",
            Self::Held => "held",
            Self::Awaited => "awaited",
            Self::NotDialable => "not_dialable",
            Self::Idle => "idle",
        }
    }
}

/// One peer.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that do not depend on one another"
)]
pub struct Peer {
    /// What it is to the gossip floor.
    pub(super) standing: Standing,
    /// The node wants a link with it kept up.
    pub(super) wanted: bool,
    /// What the node said of it.
    pub(super) said: Option<Tag>,
    /// Those that the operator has given come first.
    pub(super) addresses: Vec<KnownAddress>,
    /// Those of them, by bit, that may be dialled.
    pub(super) dialable: u32,
    pub(super) next_address: usize,
    /// Where the newest dial went.
    pub(super) dialled: Option<PeerAddress>,
    /// Where that led to, once the peer has answered there.
    pub(super) reached: Option<PeerAddress>,
    /// Addresses, by bit, at which somebody answered who is not the peer.
    pub(super) wrong: u32,
    pub(super) weight: u32,
    pub(super) urgency: Urgency,
    pub(super) wait: Wait,
    /// After failures of the peer's.
    pub(super) backoff: Backoff,
    /// After failures of ours or the signer's.
    pub(super) strain: Backoff,
    /// After it was turned away because only the signer may let it in.
    pub(super) rebuffs: Backoff,
    /// A dial of ours that is under way.
    pub(super) dial: Option<LinkId>,
    /// The admitted link.
    pub(super) incumbent: Option<Incumbent>,
    /// An authenticated link that waits for the incumbent's end, for a probe of it, or for the end of the hold-down.
    pub(super) contender: Option<Contender>,
    /// The timer that is set for this peer.
    pub(super) timer: Option<Moment>,
    /// A link under a persona, or a dial for one: beside the node's own.
    pub(super) persona: Option<PersonaLink>,
    /// A failure to cool down before the next dial under a persona.
    pub(super) persona_until: Option<Moment>,
    /// It was the peer that turned the last persona away: then the next one, whatever its key, waits that long too.
    pub(super) persona_refused: bool,
    /// What is left of that wait while a signer is there: the next absence takes it up.
    pub(super) persona_barred: Option<Moment>,
    /// It was last not there, or went away: the floor may look for it again from then on, before its wait is over.
    pub(super) sought_from: Option<Moment>,
    /// Its gossip link was lost while no signer was there.
    pub(super) lost: bool,
    /// It has claimed a channel while no signer was there: it may be mis-tagged, so no persona dials it in this absence.
    pub(super) suspect: bool,
    /// Its place among peers that matter alike.
    pub(super) lot: u32,
    /// When a link with it was last up, before the one that is; recalled from the book at a start.
    pub(super) seen: Option<Seen>,
    /// Where a stranger dialled from.
    pub(super) seen_at: Option<PeerAddress>,
}

/// A link under a persona. The peer is never told who we are.
#[derive(Debug, Clone, Copy)]
pub(super) struct PersonaLink {
    pub(super) id: LinkId,
    /// Since both `init`s have passed.
    pub(super) up_since: Option<Moment>,
    /// A dial that is not up by then is not counted on any more.
    pub(super) overdue_at: Option<Moment>,
    /// The node's own link is up: this one ends then.
    pub(super) retire_at: Option<Moment>,
}

/// What is seen of this node's own part in its dials, the signer's included.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OurSide {
    /// The signer has more to do than it should: no new dial begins.
    pub(super) behind: bool,
    /// Dials in a row that failed through us or the signer.
    pub(super) failures: u32,
}

/// What the next dial waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Wait {
    /// Nothing.
    #[default]
    None,
    /// The signer.
    Held,
    /// A place among the dials under way, or a signer that keeps up.
    Queued(DialKey),
    /// A failure to cool down; `ours`: one that the peer is not to blame for.
    Backoff { until: Moment, ours: bool },
}

impl Wait {
    pub(super) fn is_over(self, now: Moment) -> bool {
        matches!(self, Self::Backoff { until, .. } if until <= now)
    }
}

/// The order of dialling: channel peers first, among them the soonest expiry, then the heaviest; among peers that matter alike who was
/// seen last, and who was never seen at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DialKey {
    gossip: bool,
    expiry: u32,
    weight: Reverse<u32>,
    csv_delay: u16,
    seen: Reverse<Option<Seen>>,
}

impl DialKey {
    pub(super) fn of(tag: Tag, peer: &Peer) -> Self {
        let urgency = peer.urgency;
        Self {
            gossip: tag == Tag::GossipOnly,
            expiry: if urgency.pending_htlcs > 0 {
                urgency.earliest_expiry_height
            } else {
                u32::MAX
            },
            weight: Reverse(peer.weight),
            // A short delay leaves little time to answer a cheat; none at all says that there is no channel.
            csv_delay: if urgency.csv_delay == 0 {
                u16::MAX
            } else {
                urgency.csv_delay
            },
            seen: Reverse(peer.seen),
        }
    }
}

/// The link that holds a peer's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incumbent {
    pub(super) id: LinkId,
    pub(super) direction: Direction,
    /// Since both `init`s have passed.
    pub(super) up_since: Option<Moment>,
    /// The signer session that it depended on has lapsed: its end is on the way.
    pub(super) doomed: bool,
}

/// A link that would take its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contender {
    pub(super) link: LinkId,
    pub(super) direction: Direction,
    /// `Some`: refused if the incumbent shows life before then. `None`: takes its place once the incumbent has ended and no
    /// hold-down is on.
    pub(super) probe_until: Option<Moment>,
}

/// Waits that double with every failure.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// As if it had failed often enough for the longest wait: trying sooner cannot help.
    pub(super) fn hopeless() -> Self {
        Self {
            failures: u32::BITS,
        }
    }

    /// As if it had failed so often.
    pub(super) fn after(failures: u32) -> Self {
        Self { failures }
    }

    /// Failures in a row.
    pub(super) fn failures(self) -> u32 {
        self.failures
    }

    /// The next wait: between half of the doubled wait and all of it, in whole nanoseconds, so that the first waits spread too.
    pub(super) fn next(&mut self, longest: Duration, random: &mut fastrand::Rng) -> Duration {
        let doubled = limits::BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let nanos = u64::try_from(doubled.min(longest).as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random.u64(nanos / 2..=nanos))
    }
}

/// The place of an address in a set of addresses.
fn bit(index: usize) -> u32 {
    let shift = u32::try_from(index).unwrap_or(u32::MAX);
    1_u32.checked_shl(shift).unwrap_or_default()
}

fn has(set: u32, index: usize) -> bool {
    set & bit(index) != 0
}

impl Peer {
    /// The peer as the book keeps it.
    pub fn record(&self, node_id: NodeId) -> PeerRecord {
        PeerRecord {
            node_id,
            addresses: self.addresses.clone(),
            tag: self.said,
            weight: self.weight,
        }
    }

    /// Whether an address is known that may be dialled.
    pub fn is_dialable(&self) -> bool {
        self.dialable != 0
    }

    /// Every address that is known, the operator's first.
    pub fn addresses(&self) -> &[KnownAddress] {
        &self.addresses
    }

    /// Where it will be dialled next, or where it dialled from, or else where it would be if it could.
    pub fn shown_address(&self) -> Option<&PeerAddress> {
        let first = self.addresses.first();
        let known = self.address().map(|known| &known.address);
        known
            .or(self.seen_at.as_ref())
            .or(first.map(|known| &known.address))
    }

    /// How much it matters among its like.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// How urgently it is needed back.
    pub fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// Its admitted link.
    pub fn link(&self) -> Option<LinkId> {
        self.incumbent.map(|incumbent| incumbent.id)
    }

    /// Its admitted link, or the one under a persona.
    pub(super) fn any_link(&self) -> Option<LinkId> {
        self.link().or(self.persona_link())
    }

    /// Its link under a persona, or the dial for one.
    pub fn persona_link(&self) -> Option<LinkId> {
        self.persona.map(|persona| persona.id)
    }

    /// Those of its links that are up: its own first, then the one under a persona.
    pub(super) fn up(&self) -> impl Iterator<Item = LinkId> + use<> {
        let own = self.incumbent.filter(|own| own.up_since.is_some());
        let persona = self.persona.filter(|persona| persona.up_since.is_some());
        let persona = persona.map(|persona| persona.id);
        own.map(|own| own.id).into_iter().chain(persona)
    }

    /// Its admitted link, the dial that is under way beside it, and the persona's.
    pub(super) fn links(&self) -> impl Iterator<Item = LinkId> + use<> {
        let admitted = self.link();
        let beside = self.dial.filter(|dial| admitted != Some(*dial));
        admitted
            .into_iter()
            .chain(beside)
            .chain(self.persona_link())
    }

    /// Whether it may be dialled under a persona, for what is known of it alone.
    pub(super) fn may_be_met_as_persona(&self) -> bool {
        let waits = self.persona.is_some() || self.persona_until.is_some();
        self.is_missing() && !waits && !self.suspect
    }

    /// From when on it may be dialled under a persona though it has a failure to cool down.
    pub(super) fn may_be_sought_from(&self) -> Option<Moment> {
        let waits = self.persona.is_none() && self.persona_until.is_some();
        let may = waits && self.is_missing() && !self.suspect && !self.persona_refused;
        self.sought_from.filter(|_| may)
    }

    /// Where it stands.
    pub fn state(&self) -> PeerState {
        match self.persona {
            Some(persona) if persona.up_since.is_some() => return PeerState::Up,
            Some(_) if self.incumbent.is_none() => return PeerState::Dialing,
            _ => {}
        }
        match (self.incumbent, self.dial, self.wait) {
            (
                Some(Incumbent {
                    up_since: Some(_), ..
                }),
                _,
                _,
            ) => PeerState::Up,
            (Some(_), _, _) | (None, Some(_), _) => PeerState::Dialing,
            (None, None, Wait::Held) => PeerState::Held,
            (None, None, Wait::Queued(_)) => PeerState::Awaited,
            (None, None, Wait::Backoff { .. }) => PeerState::Backoff,
            (None, None, Wait::None) if self.wanted && self.is_out_of_reach() => {
                PeerState::NotDialable
            }
            (None, None, Wait::None) => PeerState::Idle,
        }
    }

    /// The next address to dial: of those that may be, the first in turn at which nobody else has answered; the first in turn if
    /// somebody has at all of them.
    pub(super) fn address(&self) -> Option<&KnownAddress> {
        let count = self.addresses.len();
        let first = self.next_address.checked_rem(count)?;
        let in_turn = |step: usize| first.saturating_add(step).checked_rem(count);
        let mut dialable = (0..count)
            .filter_map(in_turn)
            .filter(|index| has(self.dialable, *index));
        let mut right = dialable.clone().filter(|index| !has(self.wrong, *index));
        self.addresses.get(right.next().or(dialable.next())?)
    }

    /// Takes these addresses. What the operator gives replaces all that was known; what is learned replaces what was learned before.
    /// `onions`: whether onion services can be dialled.
    pub(super) fn set_addresses(&mut self, addresses: Vec<KnownAddress>, onions: bool) {
        let by_hand = |known: &KnownAddress| known.origin == AddressOrigin::ByHand;
        let given = addresses.iter().any(by_hand);
        self.addresses.retain(|known| by_hand(known) && !given);
        let (first, then): (Vec<_>, Vec<_>) = addresses.into_iter().partition(by_hand);
        for known in first.into_iter().chain(then) {
            let is_new = !self
                .addresses
                .iter()
                .any(|other| other.address == known.address);
            if is_new && self.addresses.len() < limits::ADDRESSES_MAX {
                self.addresses.push(known);
            }
        }
        self.dialable = 0;
        for (index, known) in self.addresses.iter().enumerate() {
            if known.is_dialable(onions) {
                self.dialable |= bit(index);
            }
        }
        self.next_address = 0;
        self.wrong = 0;
    }

    /// Addresses are known, and none of them may be dialled.
    pub(super) fn is_out_of_reach(&self) -> bool {
        !self.addresses.is_empty() && self.dialable == 0
    }

    /// Somebody else has answered where it was dialled. `true`: so it is at every address.
    pub(super) fn is_elsewhere(&mut self) -> bool {
        let index = self
            .addresses
            .iter()
            .position(|known| self.dialled.as_ref() == Some(&known.address));
        self.wrong |= index.map(bit).unwrap_or_default();
        self.dialable & !self.wrong == 0
    }

    /// Nothing is held against it or its addresses any more.
    pub(super) fn absolve(&mut self) {
        self.backoff = Backoff::default();
        self.strain = Backoff::default();
        self.rebuffs = Backoff::default();
        self.wrong = 0;
        self.suspect = false;
    }

    /// Wanted, dialable, and without a link or a dial.
    pub(super) fn is_missing(&self) -> bool {
        self.wanted && self.incumbent.is_none() && self.dial.is_none() && self.is_dialable()
    }

    /// Without a link that lives on: a dial that is under way at a lapse fails with it.
    pub(super) fn will_be_missing(&self) -> bool {
        let ends = self.incumbent.is_none_or(|incumbent| incumbent.doomed);
        self.wanted && self.is_dialable() && ends
    }

    /// Whether the book has it.
    pub(super) fn is_on_record(&self) -> bool {
        self.wanted || self.said.is_some()
    }

    /// Since when a link with it has been up, its own or a persona's; the longer of the two.
    pub(super) fn up_since(&self) -> Option<Moment> {
        let own = self.incumbent.and_then(|incumbent| incumbent.up_since);
        let persona = self.persona.and_then(|persona| persona.up_since);
        own.into_iter().chain(persona).min()
    }

    pub(super) fn is_forgettable(&self) -> bool {
        !self.is_on_record()
            && self.incumbent.is_none()
            && self.dial.is_none()
            && self.contender.is_none()
            && self.persona.is_none()
            && self.urgency == Urgency::default()
    }

    /// A link has been authenticated there.
    pub(super) fn met_at(&mut self, address: PeerAddress, direction: Direction) {
        match direction {
            Direction::Inbound => self.seen_at = Some(address),
            Direction::Outbound => self.reached = Some(address),
        }
    }

    /// When the machine must look at this peer again, unless it drains.
    pub fn due(&self) -> Option<Moment> {
        let wait = match self.wait {
            Wait::Backoff { until, .. } => Some(until),
            Wait::None | Wait::Held | Wait::Queued(_) => None,
        };
        let probe = self.contender.and_then(|contender| contender.probe_until);
        let persona = self
            .persona
            .into_iter()
            .flat_map(|link| [link.overdue_at, link.retire_at]);
        [wait, probe, self.persona_until]
            .into_iter()
            .chain(persona)
            .flatten()
            .min()
    }
}
