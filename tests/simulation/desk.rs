//! The supervisor's machine under watch: whatever goes in and comes out passes a second, independent account of what was promised,
//! which panics at the first word that is broken.
//!
//! The account knows the promises, not the machine: how long a backoff may be, who must be dialled, who must not, how many gossip
//! links there are. What it takes from the machine is compared with it, never believed.

use super::script::{HOUR, SECOND};
use pilotlight::address::KnownAddress;
use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::link::{CloseReason, Direction, LinkId, Tag};
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::supervisor::machine::{
    Failure, Input, Output, PeerState, Policy, SupervisorMachine, Urgency,
};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

/// Where a peer is.
pub type Address = KnownAddress;

/// A peer's addresses. Every three peers share a /16.
pub fn address(peer: usize, nth: usize) -> Address {
    let network = u16::try_from(peer / 3).unwrap().to_be_bytes();
    let host = u8::try_from(3 * nth + peer % 3 + 1).unwrap();
    KnownAddress::from(SocketAddr::from((
        [11 + network[0], network[1], 7, host],
        9735,
    )))
}

/// The most peers of any run.
pub const MOST_PEERS: usize = 20_000;

fn key(number: usize) -> LocalKey {
    let mut bytes = [0x33; 32];
    bytes[24..].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    LocalKey::from_bytes(&mut bytes).unwrap()
}

/// Our own key.
pub fn own() -> LocalKey {
    key(MOST_PEERS)
}

/// The peers' ids, worked out once for all runs.
pub fn ids(count: usize) -> &'static [NodeId] {
    static IDS: OnceLock<Vec<NodeId>> = OnceLock::new();
    static FEW: OnceLock<Vec<NodeId>> = OnceLock::new();
    let make = |count: usize| (0..count).map(|number| key(number).node_id()).collect();
    let ids = if count <= 100 {
        FEW.get_or_init(|| make(100))
    } else {
        IDS.get_or_init(|| make(MOST_PEERS))
    };
    &ids[..count]
}

/// How long a gossip peer that is there, answers and waits for nothing may be left out while the floor is short: a few rounds of
/// those who do not answer in `PERSONA_OVERDUE`. Where there are many of those, as long as they take in turn.
pub const FLOOR_WITHIN: Duration = Duration::from_secs(30);

/// How long after a return a channel peer may be without a dial: the teardown of its old link.
const DIALLED_WITHIN: Duration = Duration::from_secs(2);

/// How long a relight may take until it is said to be over: for every round of dials one connection, two acts and `init`.
const RELIT_WITHIN: Duration = Duration::from_secs(60);

/// Lines of a failing run that are shown.
const TRACE: usize = 120;

/// What is known of a peer.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub wanted: bool,
    said: Option<Tag>,
    addresses: Vec<Address>,
    wrong: u32,
    dialled: Option<Address>,
    weight: u32,
    urgency: Urgency,
    /// Failures of the peer's in a row, since the attach with this number.
    failures: (u32, u32),
    /// A failure cools down until then.
    cools: Wait,
    /// It has turned a persona away, and no other may come before then, though the signer has been back meanwhile.
    barred: Wait,
    /// It was not there, or went away: the floor may look for it from then on.
    sought_from: Option<Moment>,
    pub dial: Option<LinkId>,
    /// The admitted link under our own key.
    pub link: Option<Admitted>,
    pub persona: Option<LinkId>,
    persona_up: Option<Moment>,
    /// Inbound links, and a dial, whose handshake is done and that have no verdict.
    waiting: Vec<LinkId>,
    counts: bool,
    /// Dialled under our own key, or let in, under which session.
    tried: u32,
    hour: Hour,
    /// It has claimed a channel in this absence, so no persona dials it.
    pub suspect: bool,
}

/// A wait with jitter: it ends between the two.
#[derive(Debug, Clone, Copy, Default)]
struct Wait {
    least: Moment,
    most: Moment,
}

impl Wait {
    fn until(at: Moment) -> Self {
        Self {
            least: at,
            most: at,
        }
    }

    /// Both are waited for.
    fn and(self, other: Self) -> Self {
        Self {
            least: self.least.max(other.least),
            most: self.most.max(other.most),
        }
    }
}

/// What was counted of a peer in the hour with that number.
#[derive(Debug, Clone, Copy, Default)]
struct Hour {
    number: u64,
    dials: u32,
    wishes: u32,
    /// Links that have lived long enough to clear the backoff.
    stable: u32,
    /// Failures that were ours or the signer's.
    ours: u32,
    /// Dials before the end of a wait, because the floor was short.
    sought: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    pub id: LinkId,
    pub up: Option<Moment>,
    doomed: bool,
}

impl Known {
    fn is_dialable(&self) -> bool {
        self.wanted && !self.addresses.is_empty()
    }

    pub fn is_up(&self) -> bool {
        self.link.is_some_and(|link| link.up.is_some()) || self.persona_up.is_some()
    }

    /// The order of the dials, as far as it is promised.
    fn order(&self, tag: Tag) -> (bool, u32, Reverse<u32>) {
        let expiry = if self.urgency.pending_htlcs > 0 {
            self.urgency.earliest_expiry_height
        } else {
            u32::MAX
        };
        (tag == Tag::GossipOnly, expiry, Reverse(self.weight))
    }
}

#[derive(Debug, Clone, Copy)]
struct Link {
    peer: usize,
    persona: bool,
    outbound: bool,
    stage: Stage,
    /// Lapses before its handshake was done.
    lapses: u32,
}

/// What was seen of a dial or link that is over, beside who is to blame.
#[derive(Debug, Clone, Copy, Default)]
struct Fault {
    /// The peer has turned a persona away.
    refusal: bool,
    /// It was not there, or has gone away.
    gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialing,
    Waiting,
    Refused,
    Admitted,
    Up,
}

/// What was counted.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub inputs: u64,
    pub dials: u64,
    pub most_dials_an_hour: u32,
    pub lapses: u32,
    pub relights: u32,
    pub relit_peers: u64,
    pub personas: u64,
    pub most_dialing: usize,
    /// Dials before the end of a wait, because the floor was short.
    pub sought: u64,
}

/// Which peer an id is. The ids are the simulation's own, so eight of their bytes tell them apart.
struct Index(HashMap<u64, usize>);

impl Index {
    fn of(ids: &[NodeId]) -> Self {
        let numbered = ids.iter().enumerate();
        let index: HashMap<_, _> = numbered
            .map(|(number, id)| (Self::key(id), number))
            .collect();
        assert_eq!(index.len(), ids.len(), "two ids that look alike");
        Self(index)
    }

    fn key(id: &NodeId) -> u64 {
        u64::from_be_bytes(*id.as_bytes().last_chunk().unwrap())
    }
}

impl std::ops::Index<&NodeId> for Index {
    type Output = usize;

    fn index(&self, id: &NodeId) -> &usize {
        &self.0[&Self::key(id)]
    }
}

/// The machine and its account.
pub struct Desk {
    pub machine: SupervisorMachine,
    pub figures: Figures,
    pub trace: Option<VecDeque<String>>,
    peers: Vec<Known>,
    ids: &'static [NodeId],
    index: Index,
    links: HashMap<LinkId, Link>,
    policy: Policy,
    declared: bool,
    pub live: bool,
    behind: bool,
    /// Since when it is not, or since when the last backlog has been worked off.
    keeps_up_since: Moment,
    attaches: u32,
    /// Attaches in the hour with that number, and in the one before.
    attaches_an_hour: (u64, u32, u32),
    hold_down: HoldDown,
    /// Since when the return of the channel peers is due.
    return_due: Option<Moment>,
    /// The channel peers that have yet to come back or to fail since then; how many have.
    open: Open,
    floor_from: Option<Moment>,
    said_missing: usize,
    /// Since when the floor is short, if it is.
    short_since: Option<Moment>,
    pub gossip_up: usize,
    /// When a peer was last dialled before the end of its wait.
    sought_at: Option<Moment>,
    /// When the personas of the last hour were made.
    minted: VecDeque<Moment>,
    outputs: Vec<Output>,
}

/// A return that is not over.
#[derive(Debug, Default)]
struct Open {
    peers: BTreeSet<usize>,
    up: usize,
    failed: usize,
}

impl Open {
    fn came_up(&mut self, peer: usize) {
        self.up += usize::from(self.peers.remove(&peer));
    }

    fn failed(&mut self, peer: usize) {
        self.failed += usize::from(self.peers.remove(&peer));
    }
}

#[derive(Debug, Default)]
struct HoldDown {
    lapses: u32,
    last: Option<Moment>,
    until: Option<Moment>,
}

impl HoldDown {
    fn forget(&mut self, now: Moment) {
        if self
            .last
            .is_some_and(|last| now.since(last) >= limits::STABLE_AFTER)
        {
            self.lapses = 0;
        }
    }

    fn lapsed(&mut self, now: Moment) {
        self.forget(now);
        (self.lapses, self.last, self.until) = (self.lapses + 1, Some(now), None);
    }

    /// design.md § Return: 0, 1, 2, 4 … 60 s.
    fn attached(&mut self, now: Moment, longest: Duration) -> Duration {
        self.forget(now);
        let seconds = match self.lapses {
            0 | 1 => 0,
            lapses => 1_u64 << (lapses - 2).min(6),
        };
        let wait = Duration::from_secs(seconds).min(longest);
        self.until = (!wait.is_zero()).then(|| now.after(wait));
        wait
    }
}

impl Desk {
    pub fn new(count: usize, seed: u64, policy: Policy, trace: bool) -> Self {
        let ids = ids(count);
        Self {
            machine: SupervisorMachine::new(own().node_id(), seed).with_policy(policy),
            figures: Figures::default(),
            trace: trace.then(VecDeque::new),
            peers: vec![Known::default(); count],
            ids,
            index: Index::of(ids),
            links: HashMap::new(),
            policy,
            declared: false,
            live: false,
            behind: false,
            keeps_up_since: Moment::START,
            attaches: 0,
            attaches_an_hour: (0, 0, 0),
            hold_down: HoldDown::default(),
            return_due: None,
            open: Open::default(),
            floor_from: None,
            said_missing: 0,
            short_since: None,
            gossip_up: 0,
            sought_at: None,
            minted: VecDeque::new(),
            outputs: Vec::new(),
        }
    }

    pub fn id(&self, peer: usize) -> NodeId {
        self.ids[peer]
    }

    pub fn known(&self, peer: usize) -> &Known {
        &self.peers[peer]
    }

    pub fn peer_of(&self, id: NodeId) -> usize {
        self.index[&id]
    }

    pub fn tag(&self, peer: usize) -> Tag {
        self.peers[peer].said.unwrap_or(if self.declared {
            Tag::GossipOnly
        } else {
            Tag::ChannelBearing
        })
    }

    pub fn held_down(&self, now: Moment) -> bool {
        self.hold_down.until.is_some_and(|until| now < until)
    }

    pub fn return_due(&self) -> Option<Moment> {
        self.return_due
    }

    /// The number of the live session; of the last one, if none is live.
    pub fn session(&self) -> u32 {
        self.attaches
    }

    pub fn missing(&self) -> usize {
        self.policy.gossip_floor.saturating_sub(self.gossip_up)
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    pub fn note(&mut self, now: Moment, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() >= TRACE {
                trace.pop_front();
            }
            trace.push_back(format!("{:?} {}", now.since_start(), what()));
        }
    }

    /// Hands an input to the machine, checks what it says, and gives it to whoever acts.
    pub fn feed(&mut self, now: Moment, input: Input) -> Vec<Output> {
        self.figures.inputs += 1;
        self.note(now, || format!("{input:?}"));
        if self.floor_from.is_none() && !self.live {
            self.floor_from = Some(now.after(limits::PERSONA_GRACE));
        }
        let subject = match &input {
            Input::Unwant(peer) | Input::Urgency(peer, _) => Some(self.index[peer]),
            Input::DialFailed { link, .. } | Input::Ended { link, .. } | Input::Withdrawn(link) => {
                self.links.get(link).map(|link| link.peer)
            }
            _ => None,
        };
        let failed = self.before(now, &input);
        let ticked = matches!(input, Input::Tick);
        let lapsed = matches!(input, Input::Lapsed);
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.clear();
        self.machine.handle(now, input, &mut outputs);
        if self.trace.is_some() {
            for output in &outputs {
                self.note(now, || format!("    {output:?}"));
            }
        }
        let mut order = None;
        for output in &outputs {
            self.check_output(now, output, &mut order);
        }
        if let Some(failed) = failed {
            self.check_backoff(now, failed, &outputs);
        }
        if let Some(peer) = subject.filter(|peer| self.machine.peer(self.ids[*peer]).is_none()) {
            // Of a stranger that has gone nothing is remembered. Who is wanted is not forgotten: `check_peer` sees to that.
            let known = &mut self.peers[peer];
            (known.failures, known.wrong) = ((0, self.attaches), 0);
        }
        self.check_after(now, ticked);
        if lapsed {
            let mut links = self.links.iter();
            let waits = links.find(|(_, link)| link.stage == Stage::Waiting);
            assert!(
                waits.is_none(),
                "P6: nobody has answered {waits:?} at the lapse"
            );
        }
        outputs
    }

    /// Gives the list back, so that it need not be allocated anew.
    pub fn done(&mut self, outputs: Vec<Output>) {
        self.outputs = outputs;
    }

    /// Takes into account what happened. Gives what a peer's failure must lead to.
    fn before(&mut self, now: Moment, input: &Input) -> Option<Failed> {
        match input {
            Input::Want {
                peer,
                addresses,
                tag,
                weight,
            } => {
                let peer = self.index[peer];
                self.turn_hour(now, peer);
                let known = &mut self.peers[peer];
                known.hour.wishes += 1;
                known.wanted = true;
                (known.cools, known.barred) = (Wait::until(now), Wait::until(now));
                if !addresses.is_empty() {
                    (known.addresses, known.wrong) = (addresses.clone(), 0);
                }
                known.weight = weight.unwrap_or(known.weight);
                if let Some(tag) = tag {
                    self.say(peer, *tag);
                }
                self.refresh(peer);
            }
            Input::Unwant(peer) => {
                let peer = self.index[peer];
                let known = &mut self.peers[peer];
                (known.wanted, known.said, known.weight) = (false, None, 0);
                known.barred = Wait::until(now);
                known.addresses.clear();
                known.urgency = Urgency::default();
                self.open.peers.remove(&peer);
                self.refresh(peer);
            }
            Input::Tag(peer, tag) => self.say(self.index[peer], *tag),
            Input::Declare(list) => {
                self.declared = true;
                let listed: BTreeSet<_> = list.iter().copied().collect();
                for peer in 0..self.peers.len() {
                    if listed.contains(&self.ids[peer]) {
                        self.say(peer, Tag::ChannelBearing);
                    } else if self.peers[peer].said == Some(Tag::ChannelBearing) {
                        self.say(peer, Tag::GossipOnly);
                    }
                    self.doom_if_stray(peer);
                    self.refresh(peer);
                }
            }
            Input::Urgency(peer, urgency) => self.peers[self.index[peer]].urgency = *urgency,
            Input::Attached(_) => self.attached(now),
            Input::Lapsed => self.lapsed(now),
            Input::Behind(behind) => {
                self.behind = *behind;
                self.keeps_up_since = now;
            }
            Input::DialFailed { link, failure } => return self.dial_failed(now, *link, *failure),
            Input::Authenticated {
                link,
                peer,
                direction,
                ..
            } => self.authenticated(*link, self.index[peer], *direction),
            Input::Up(link) => self.up(now, *link),
            Input::Tick => {
                let over = self.hold_down.until.take_if(|until| *until <= now);
                if over.is_some() {
                    self.return_begins();
                }
            }
            Input::Ended { link, reason } => return self.ended(now, *link, *reason),
            Input::Withdrawn(link) => return self.withdrawn(now, *link),
            _ => {}
        }
        None
    }

    fn say(&mut self, peer: usize, tag: Tag) {
        self.peers[peer].said = Some(tag);
        self.doom_if_stray(peer);
        self.refresh(peer);
    }

    /// A link of a channel peer cannot live without a signer.
    fn doom_if_stray(&mut self, peer: usize) {
        if !self.live
            && self.tag(peer) == Tag::ChannelBearing
            && let Some(link) = &mut self.peers[peer].link
        {
            link.doomed = true;
        }
    }

    /// Whether a peer counts for the gossip floor.
    fn refresh(&mut self, peer: usize) {
        let gossip = self.tag(peer) == Tag::GossipOnly;
        let known = &mut self.peers[peer];
        let own = known
            .link
            .is_some_and(|link| link.up.is_some() && !link.doomed);
        let counts = gossip && (own || known.persona_up.is_some());
        self.gossip_up = self.gossip_up - usize::from(known.counts) + usize::from(counts);
        known.counts = counts;
    }

    fn attached(&mut self, now: Moment) {
        self.live = true;
        self.attaches += 1;
        let hour = now.since_start().as_secs() / 3600;
        let (last, count, before) = self.attaches_an_hour;
        self.attaches_an_hour = match hour - last {
            0 => (hour, count + 1, before),
            1 => (hour, 1, count),
            _ => (hour, 1, 0),
        };
        let wait = self.hold_down.attached(now, self.policy.hold_down);
        self.return_due = Some(now.after(wait));
        for peer in &mut self.peers {
            (peer.wrong, peer.suspect) = (0, false);
            peer.cools = Wait::until(now);
        }
        self.open = Open::default();
        if wait.is_zero() {
            self.return_begins();
        }
    }

    /// The return of every channel peer without a link that lives on.
    fn return_begins(&mut self) {
        let missing = |peer: &usize| {
            let known = &self.peers[*peer];
            let lives = known.link.is_some_and(|link| !link.doomed);
            known.is_dialable() && !lives && self.tag(*peer) == Tag::ChannelBearing
        };
        self.open = Open {
            peers: (0..self.peers.len()).filter(missing).collect(),
            ..Open::default()
        };
    }

    fn lapsed(&mut self, now: Moment) {
        (self.live, self.behind) = (false, false);
        self.open = Open::default();
        self.figures.lapses += 1;
        self.hold_down.lapsed(now);
        self.return_due = None;
        self.floor_from = Some(now.after(limits::PERSONA_GRACE));
        for peer in 0..self.peers.len() {
            self.doom_if_stray(peer);
            self.refresh(peer);
            if self.tag(peer) == Tag::ChannelBearing {
                // It waits for the signer now, and for nothing else.
                self.peers[peer].cools = Wait::until(now);
            }
        }
    }

    fn authenticated(&mut self, link: LinkId, peer: usize, direction: Direction) {
        let outbound = direction == Direction::Outbound;
        let entry = self.links.entry(link).or_insert(Link {
            peer,
            persona: false,
            outbound,
            stage: Stage::Waiting,
            lapses: 0,
        });
        (entry.stage, entry.lapses) = (Stage::Waiting, self.figures.lapses);
        if !entry.persona {
            self.peers[peer].waiting.push(link);
        }
    }

    fn up(&mut self, now: Moment, link: LinkId) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        entry.stage = Stage::Up;
        let (peer, persona) = (entry.peer, entry.persona);
        let known = &mut self.peers[peer];
        (known.wrong, known.cools) = (0, Wait::until(now));
        if persona {
            known.persona_up = Some(now);
        } else {
            if let Some(admitted) = known.link.as_mut().filter(|admitted| admitted.id == link) {
                admitted.up = Some(now);
                if !admitted.doomed {
                    self.open.came_up(peer);
                }
            }
            known.dial.take_if(|dial| *dial == link);
        }
        self.refresh(peer);
    }

    fn dial_failed(&mut self, now: Moment, link: LinkId, failure: Failure) -> Option<Failed> {
        let stage = self.links.get(&link)?.stage;
        if matches!(stage, Stage::Admitted | Stage::Up) {
            // It was let in as it died of its own accord.
            let away = failure == Failure::SignerAway;
            let reason = [CloseReason::Internal, CloseReason::Lapse][usize::from(away)];
            return self.ended(now, link, reason);
        }
        let gone = self.links.remove(&link)?;
        self.turn_hour(now, gone.peer);
        let blames = match failure {
            Failure::Unreachable | Failure::Handshake => Blame::Peer,
            Failure::WrongKey => {
                let known = &mut self.peers[gone.peer];
                let at = |address: &Address| known.dialled.as_ref() == Some(address);
                if let Some(nth) = known.addresses.iter().position(at) {
                    known.wrong |= 1 << nth;
                }
                let all = (1 << known.addresses.len()) - 1;
                if known.wrong == all {
                    Blame::Hopeless
                } else {
                    Blame::Peer
                }
            }
            Failure::Ours | Failure::NoWay => Blame::Us,
            Failure::SignerAway | Failure::Duplicate => Blame::Nobody,
        };
        if !gone.persona && blames != Blame::Nobody {
            self.open.failed(gone.peer);
        }
        let known = &mut self.peers[gone.peer];
        known.dial.take_if(|dial| *dial == link);
        known.waiting.retain(|waiting| *waiting != link);
        if gone.persona {
            known.persona = None;
        }
        let fault = Fault {
            refusal: gone.persona && failure == Failure::Handshake,
            gone: failure == Failure::Unreachable,
        };
        self.blame(now, gone.peer, link, blames, fault)
    }

    fn withdrawn(&mut self, now: Moment, link: LinkId) -> Option<Failed> {
        let stage = self.links.get(&link)?.stage;
        if matches!(stage, Stage::Admitted | Stage::Up) {
            return self.ended(now, link, CloseReason::Internal);
        }
        let gone = self.links.remove(&link)?;
        let waiting = &mut self.peers[gone.peer].waiting;
        waiting.retain(|waiting| *waiting != link);
        None
    }

    fn ended(&mut self, now: Moment, link: LinkId, reason: CloseReason) -> Option<Failed> {
        let gone = self.links.remove(&link)?;
        self.turn_hour(now, gone.peer);
        let known = &mut self.peers[gone.peer];
        known.suspect |= reason == CloseReason::Mistag;
        known.dial.take_if(|dial| *dial == link);
        let ended = if gone.persona {
            known.persona = None;
            None
        } else {
            known.link.take_if(|admitted| admitted.id == link)
        };
        let up = ended.map_or_else(
            || known.persona_up.take_if(|_| gone.persona),
            |ended| ended.up,
        );
        if up.is_some_and(|since| now.since(since) >= limits::STABLE_AFTER) {
            known.failures = (0, self.attaches);
            known.hour.stable += 1;
        }
        let succeeded = !known.waiting.is_empty() && !gone.persona;
        let fresh = ended.is_some_and(|ended| ended.up.is_none() && !ended.doomed);
        if fresh && !reason.is_ours() && !succeeded {
            self.open.failed(gone.peer);
        }
        self.refresh(gone.peer);
        let blames = match reason {
            _ if succeeded => Blame::Nobody,
            CloseReason::Lapse
            | CloseReason::SignerAway
            | CloseReason::Persona
            | CloseReason::Promoted => Blame::Nobody,
            reason if reason.is_ours() => Blame::Us,
            _ => Blame::Peer,
        };
        let left = matches!(
            reason,
            CloseReason::PeerClosed | CloseReason::Io | CloseReason::PongTimeout
        );
        let has_left = left && up.is_some_and(|since| now.since(since) >= limits::PERSONA_TAKEN);
        let fault = Fault {
            refusal: gone.persona && !has_left,
            gone: has_left,
        };
        self.blame(now, gone.peer, link, blames, fault)
    }

    /// How long the next dial must wait.
    fn blame(
        &mut self,
        now: Moment,
        peer: usize,
        link: LinkId,
        blame: Blame,
        fault: Fault,
    ) -> Option<Failed> {
        let attaches = self.attaches;
        let waits_for_signer = !self.live && self.tag(peer) == Tag::ChannelBearing;
        let known = &mut self.peers[peer];
        known.hour.ours += u32::from(blame == Blame::Us);
        if known.failures.1 != attaches {
            known.failures = (0, attaches);
        }
        let (least, most) = match blame {
            Blame::Nobody => return None,
            Blame::Us => {
                known.tried = attaches;
                (limits::BACKOFF_FIRST / 2, limits::OUR_BACKOFF_MAX)
            }
            Blame::Peer | Blame::Hopeless => {
                if blame == Blame::Hopeless {
                    known.failures.0 = 32;
                }
                let doubled = SECOND * 2_u32.pow(known.failures.0.min(20));
                known.failures.0 += 1;
                known.tried = attaches;
                let wait = doubled.min(HOUR);
                (wait / 2, wait)
            }
        };
        let wait = Wait {
            least: now.after(least),
            most: now.after(most),
        };
        // Who has another link, or is being dialled, waits for nothing.
        let busy = known.link.is_some() || known.dial.is_some();
        if !busy && !waits_for_signer {
            known.cools = known.cools.and(wait);
        }
        let of_peer = blame != Blame::Us;
        if fault.refusal && of_peer && !busy {
            known.barred = known.barred.and(wait);
        }
        let gone = fault.gone && of_peer;
        known.sought_from = gone.then(|| now.after(limits::FLOOR_AGAIN));
        Some(Failed {
            peer,
            link,
            least,
            most,
        })
    }

    /// P9: waits grow from 1 s to 1 h, with jitter, and neither faster nor slower.
    fn check_backoff(&self, now: Moment, failed: Failed, outputs: &[Output]) {
        let said = outputs.iter().find_map(|output| match output {
            Output::Failed { link, retry_in, .. } if *link == failed.link => *retry_in,
            _ => None,
        });
        let known = &self.peers[failed.peer];
        let busy = known.link.is_some() || known.dial.is_some() || known.persona.is_some();
        let waits = self
            .machine
            .peer(self.ids[failed.peer])
            .filter(|peer| known.wanted && !busy && peer.state() == PeerState::Backoff)
            .and_then(|peer| peer.due())
            .map(|due| due.since(now));
        for wait in said.into_iter().chain(waits) {
            assert!(
                (failed.least..=failed.most).contains(&wait),
                "P9: peer {} waits {wait:?} after a failure; promised were {:?} to {:?}",
                failed.peer,
                failed.least,
                failed.most
            );
        }
    }

    fn check_output(
        &mut self,
        now: Moment,
        output: &Output,
        order: &mut Option<(bool, u32, Reverse<u32>)>,
    ) {
        match output {
            Output::Dial {
                link,
                peer,
                address,
                tag,
                persona,
            } => {
                let peer = self.index[peer];
                self.check_dial(now, peer, *tag, *persona);
                if persona.is_none() {
                    let place = self.peers[peer].order(*tag);
                    assert!(
                        order.is_none_or(|last| last <= place),
                        "P8: peer {peer} is dialled after one that is less urgent"
                    );
                    *order = Some(place);
                }
                self.dialled(now, *link, peer, address.clone(), *persona);
            }
            Output::Admit { link, tag } => self.admitted(now, *link, *tag),
            Output::Refuse { link, .. } => {
                let entry = self.links.get_mut(link).expect("who is refused is there");
                assert_eq!(entry.stage, Stage::Waiting, "a verdict too many");
                entry.stage = Stage::Refused;
                self.peers[entry.peer]
                    .waiting
                    .retain(|waiting| waiting != link);
            }
            Output::Close { link, .. } => {
                assert!(self.links.contains_key(link), "what is closed is there");
            }
            Output::Retag { link, tag } => {
                assert!(!self.links[link].persona, "a persona's link is promoted");
                assert_eq!(self.tag(self.links[link].peer), *tag);
            }
            Output::FloorMissing { missing, .. } => {
                assert_ne!(*missing, self.said_missing, "said twice");
                self.said_missing = *missing;
            }
            Output::HeldDown { wait, .. } => {
                let until = self.hold_down.until;
                assert_eq!(until, Some(now.after(*wait)), "the hold-down's length");
            }
            Output::Relit { up, failed, .. } => self.check_relit(now, *up, *failed),
            Output::Failed {
                retry_in: Some(wait),
                ..
            } => assert!(*wait <= limits::BACKOFF_MAX, "P9: a wait of {wait:?}"),
            _ => {}
        }
    }

    fn check_dial(&mut self, now: Moment, peer: usize, tag: Tag, persona: Option<u64>) {
        let known = &self.peers[peer];
        assert!(known.is_dialable(), "a dial that nobody wants: peer {peer}");
        assert_eq!(tag, self.tag(peer), "dialled as what it is not");
        assert!(
            known.link.is_none(),
            "peer {peer} is dialled though it has a link"
        );
        assert!(
            known.dial.is_none() || persona.is_some(),
            "peer {peer} is dialled twice"
        );
        if persona.is_some() {
            assert!(!self.live, "a persona dials though the signer is there");
            assert_eq!(tag, Tag::GossipOnly, "a persona dials a channel peer");
            assert!(known.persona.is_none(), "two personas at peer {peer}");
            assert!(!known.suspect, "a persona dials who claims a channel");
            assert!(self.policy.personas, "personas are off");
            assert!(
                now >= known.barred.least,
                "peer {peer} has refused a persona, and meets one: {known:?}"
            );
            if now < known.cools.least {
                self.check_sought(now, peer);
            }
        } else {
            assert!(
                self.live,
                "P5: a dial that needs the signer, and none is there"
            );
            assert!(!self.behind, "a dial while the signer is behind");
            assert!(
                tag == Tag::GossipOnly || !self.held_down(now),
                "channel peer {peer} is dialled in a hold-down"
            );
        }
    }

    /// Before the end of its wait a peer is dialled only for a floor that is short, if it was only not there, and one at a time.
    fn check_sought(&self, now: Moment, peer: usize) {
        let known = &self.peers[peer];
        let from = known.sought_from;
        assert!(
            from.is_some_and(|from| from <= now),
            "P9: peer {peer} is dialled too soon: {known:?}"
        );
        let last = self.sought_at;
        assert!(
            last.is_none_or(|at| now.since(at) >= limits::FLOOR_SEEKS_EVERY),
            "P9: peers are sought at once"
        );
        let chosen = |known: &&Known| known.counts && known.wanted;
        assert!(
            self.peers.iter().filter(chosen).count() < self.policy.gossip_floor,
            "peer {peer} is sought though the floor is there"
        );
    }

    fn turn_hour(&mut self, now: Moment, peer: usize) {
        let hour = now.since_start().as_secs() / 3600;
        let known = &mut self.peers[peer];
        if known.hour.number != hour {
            known.hour = Hour {
                number: hour,
                ..Hour::default()
            };
        }
    }

    fn dialled(
        &mut self,
        now: Moment,
        link: LinkId,
        peer: usize,
        address: Address,
        persona: Option<u64>,
    ) {
        self.turn_hour(now, peer);
        let (_, this_hour, hour_before) = self.attaches_an_hour;
        let known = &mut self.peers[peer];
        known.dialled = Some(address);
        let is_sought = persona.is_some() && now < known.cools.least;
        let hour = &mut known.hour;
        hour.dials += 1;
        if is_sought {
            hour.sought += 1;
            self.figures.sought += 1;
            self.sought_at = Some(now);
        }
        // A wait that doubles from half a second at least makes 13 dials in an hour; each attach, wish and stable link starts it anew.
        let most = 16 * (1 + this_hour + hour_before + hour.wishes + hour.stable)
            + hour.ours
            + hour.sought;
        assert!(hour.dials <= most, "P9: peer {peer} in an hour: {hour:?}");
        self.figures.most_dials_an_hour = self.figures.most_dials_an_hour.max(hour.dials);
        self.figures.dials += 1;
        if let Some(number) = persona {
            known.persona = Some(link);
            if number > self.figures.personas {
                self.figures.personas = number;
                self.minted.push_back(now);
            }
            while self
                .minted
                .front()
                .is_some_and(|at| now.since(*at) >= limits::PERSONAS_PERIOD)
            {
                self.minted.pop_front();
            }
            assert!(
                self.minted.len() <= limits::PERSONAS_NEW,
                "P9: too many new personas"
            );
        } else {
            known.dial = Some(link);
            known.tried = self.attaches;
        }
        let new = Link {
            peer,
            persona: persona.is_some(),
            outbound: true,
            stage: Stage::Dialing,
            lapses: 0,
        };
        assert!(
            self.links.insert(link, new).is_none(),
            "a link's number is used twice"
        );
    }

    fn admitted(&mut self, now: Moment, link: LinkId, tag: Tag) {
        let entry = self.links.get_mut(&link).expect("who is admitted is there");
        assert_eq!(entry.stage, Stage::Waiting, "a verdict too many");
        entry.stage = Stage::Admitted;
        assert_eq!(
            entry.lapses, self.figures.lapses,
            "P6: let in on a handshake of a session that is over"
        );
        let (peer, persona) = (entry.peer, entry.persona);
        assert_eq!(tag, self.tag(peer), "admitted as what it is not");
        let channel = tag == Tag::ChannelBearing;
        assert!(
            self.live || !channel,
            "P5: a channel peer is let in without a signer"
        );
        assert!(
            !channel || !self.held_down(now),
            "a channel peer is let in in a hold-down"
        );
        assert!(
            !persona || !channel && !self.live,
            "a persona is promoted, or let in too late"
        );
        let attaches = self.attaches;
        let known = &mut self.peers[peer];
        if !persona {
            known.waiting.retain(|waiting| *waiting != link);
            assert!(known.link.is_none(), "two links of peer {peer}");
            known.tried = attaches;
            known.link = Some(Admitted {
                id: link,
                up: None,
                doomed: false,
            });
        }
        self.refresh(peer);
    }

    /// P8: a return is over when nobody's is open, and not before.
    fn check_relit(&mut self, now: Moment, up: usize, failed: usize) {
        assert!(up + failed > 0, "a relight of nobody");
        assert!(!self.held_down(now), "relit in a hold-down");
        let open = std::mem::take(&mut self.open);
        assert!(
            open.peers.is_empty(),
            "P8: relit without peers {:?}",
            open.peers
        );
        assert_eq!(
            (up, failed),
            (open.up, open.failed),
            "P8: who came back, and who failed"
        );
        self.figures.relights += 1;
        self.figures.relit_peers += up as u64;
    }

    fn check_after(&mut self, now: Moment, ticked: bool) {
        let dialing = self.machine.dialing();
        self.figures.most_dialing = self.figures.most_dialing.max(dialing);
        assert!(
            dialing <= limits::DIALS_IN_FLIGHT,
            "P9: {dialing} dials at once"
        );
        let load = self.machine.load();
        assert!(load.peers <= self.peers.len() && load.queue <= load.peers);
        assert!(load.timers <= load.peers, "P9: {load:?}");
        assert!(
            load.links <= self.links.len(),
            "P9: {load:?}, {} links",
            self.links.len()
        );
        if ticked {
            let next = self.machine.deadline();
            assert!(next.is_none_or(|at| at > now), "what was due is not done");
        }
        self.short_since = (self.missing() > 0).then(|| self.short_since.unwrap_or(now));
        self.check_floor_is_told(now);
        let over = self.open.peers.is_empty() && self.open.up + self.open.failed > 0;
        assert!(!over, "P8: everybody's return is over, and nobody says so");
        if let Some(due) = self.return_due.filter(|_| !self.behind) {
            let since = due.max(self.keeps_up_since);
            let late =
                now.since(since) > RELIT_WITHIN && self.machine.dialing() < limits::DIALS_IN_FLIGHT;
            assert!(
                !late || !self.machine.is_relighting(),
                "P8: the return never ends"
            );
        }
    }

    /// P7: what is missing of the floor is said at once.
    fn check_floor_is_told(&self, now: Moment) {
        let begun = self.floor_from.is_some_and(|from| from <= now);
        let missing = match (self.live, begun) {
            (true, _) => 0,
            (false, true) => self.missing(),
            (false, false) => return,
        };
        assert_eq!(
            self.said_missing, missing,
            "P7: what is said to be missing of the floor"
        );
    }

    /// What must hold of one peer between any two inputs.
    pub fn check_peer(&self, now: Moment, peer: usize) {
        let known = &self.peers[peer];
        let Some(shown) = self.machine.peer(self.ids[peer]) else {
            assert!(
                !known.wanted && known.link.is_none(),
                "peer {peer} is forgotten: {known:?}"
            );
            return;
        };
        assert_eq!(
            shown.link(),
            known.link.map(|link| link.id),
            "the link of peer {peer}"
        );
        assert_eq!(
            shown.persona_link(),
            known.persona,
            "the persona's link of peer {peer}"
        );
        assert_eq!(self.machine.tag_of(self.ids[peer]), self.tag(peer));
        if let Some(due) = shown.due() {
            assert!(
                self.machine.deadline().is_some_and(|at| at <= due),
                "a timer is forgotten"
            );
        }
        if !known.is_dialable() {
            return;
        }
        let state = shown.state();
        assert_ne!(
            state,
            PeerState::Idle,
            "P8: peer {peer} is wanted, and nothing is on its way"
        );
        let channel = self.tag(peer) == Tag::ChannelBearing;
        match state {
            PeerState::Awaited => assert!(
                self.behind || self.machine.dialing() == limits::DIALS_IN_FLIGHT,
                "peer {peer} is awaited though a place is free"
            ),
            PeerState::Backoff => {
                assert!(self.live, "peer {peer} is timed without a signer");
                let due = shown.due().expect("who waits waits for a time");
                assert!(due.since(now) <= limits::BACKOFF_MAX, "P9: too long a wait");
            }
            PeerState::Held => assert!(
                // Until the tick that ends it, which may be due at this very moment.
                !self.live || channel && self.hold_down.until.is_some(),
                "P8: peer {peer} is held, and the signer is there"
            ),
            _ => {}
        }
        if channel
            && self
                .return_due
                .is_some_and(|due| now.since(due) > DIALLED_WITHIN)
        {
            let lives = known.link.is_some_and(|link| !link.doomed);
            let on_the_way = known.tried == self.attaches || known.dial.is_some() || lives;
            let queued = state == PeerState::Awaited;
            assert!(
                on_the_way || queued || known.hour.wishes > 0,
                "P8: channel peer {peer} was not dialled after the return: {known:?}"
            );
        }
    }

    /// Whether as many gossip peers as the floor asks for are up, or are there for whoever dials them. Nobody is asked of those that no
    /// persona may meet.
    pub fn could_have_floor(&self, is_there: impl Fn(usize) -> bool) -> bool {
        let could = |peer: &usize| {
            let known = &self.peers[*peer];
            let may = || known.is_dialable() && !known.suspect;
            known.counts || self.tag(*peer) == Tag::GossipOnly && may() && is_there(*peer)
        };
        let wanted = self.policy.gossip_floor;
        (0..self.peers.len()).filter(could).take(wanted).count() == wanted
    }

    /// P7: nobody who could fill the floor is left out. `ready_since` says since when a peer is there and answers.
    pub fn check_floor(&self, now: Moment, ready_since: impl Fn(usize) -> Option<Moment>) {
        let Some(from) = self
            .floor_from
            .filter(|_| !self.live && self.policy.personas)
        else {
            return;
        };
        // Who waits has waited no longer than the floor has been short.
        let long = |since: &Moment| now.since(*since) > FLOOR_WITHIN;
        let Some(short_since) = self.short_since.filter(long) else {
            return;
        };
        let short_since = short_since.max(from);
        let may = |peer: &usize| {
            let known = &self.peers[*peer];
            let may = known.is_dialable() && !known.suspect && !known.is_up();
            may && self.tag(*peer) == Tag::GossipOnly
        };
        let waiting: Vec<usize> = (0..self.peers.len()).filter(may).collect();
        // Those who were not there are looked for in turn; of others, so many at once as are missing.
        let round = limits::PERSONA_OVERDUE * u32::try_from(waiting.len()).unwrap();
        let missing = u32::try_from(self.missing()).unwrap();
        let within = FLOOR_WITHIN.max(round / missing);
        for peer in waiting {
            let known = &self.peers[peer];
            let Some(ready) = ready_since(peer) else {
                continue;
            };
            let sought = known
                .sought_from
                .map(|from| from.max(short_since).after(round));
            let free = sought.map_or(known.cools.most, |sought| sought.min(known.cools.most));
            let since = ready.max(free).max(known.barred.most).max(short_since);
            assert!(
                now.since(since) <= within,
                "P7: {} gossip links are missing, and peer {peer} waits since {:?}: {known:?}",
                self.missing(),
                since.since_start()
            );
        }
    }

    /// Everything, for every peer.
    pub fn check_all(&self, now: Moment) {
        for peer in 0..self.peers.len() {
            self.check_peer(now, peer);
        }
        let up = self.peers.iter().filter(|peer| peer.counts).count();
        assert_eq!(up, self.gossip_up);
        let dials = |link: &&Link| link.outbound && !matches!(link.stage, Stage::Up);
        let dialing = self.links.values().filter(dials).count();
        assert_eq!(
            self.machine.dialing(),
            dialing,
            "places for dials, and dials"
        );
    }
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    peer: usize,
    link: LinkId,
    least: Duration,
    most: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    Peer,
    /// Somebody else answers at each of its addresses.
    Hopeless,
    Us,
    Nobody,
}

/// Which of a peer's addresses this is.
pub fn nth_address(peer: usize, at: &Address) -> usize {
    let nth = (0..3).find(|nth| address(peer, *nth) == *at);
    nth.expect("one of the peer's")
}
