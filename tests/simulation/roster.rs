//! The roster alone: the supervisor's machine with thousands of peers for a month, and a world that makes dials succeed and fail, links
//! end, the signer come and go and parts of the network fall away.

use super::agenda::Agenda;
use super::desk::{Address, Desk, address, nth_address};
use super::report::Report;
use super::script::{self, Cut, Fate, HOUR, MINUTE, Manners, SECOND, Temper, between, up_to};
use super::{Scale, epochs};
use fastrand::Rng;
use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::link::{CloseReason, Direction, LinkId, Tag};
use pilotlight::supervisor::machine::{Failure, Input, Output, Policy, Urgency};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);

/// After every step whatever it can have changed is checked. After so many, one peer more, in turn, to find what it should not have
/// changed, or should have and did not.
const NEXT: u32 = 4;

/// And after so many, as at every attach and lapse, all peers and what is counted over them.
const EVERYBODY: u32 = 100_000;

/// Of a step with more outputs than this, which is one that concerns all peers, so many are looked at.
const NAMED: usize = 64;

#[derive(Debug, Clone, Copy)]
enum Event {
    Signer(bool),
    /// A partition begins.
    Cut(usize),
    /// A dial is over without a handshake.
    Fails(LinkId, Failure),
    Authenticated(LinkId),
    Up(LinkId),
    Ends(LinkId, CloseReason),
    /// A newcomer, or a dial that was turned away, is gone.
    Gone(LinkId, Failure),
    Alive(LinkId),
    /// A peer dials us.
    Inbound(usize),
    InboundDone(usize, u32),
    /// The node changes its mind about something.
    Whim,
    Keeps(bool),
    Audit,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    peer: usize,
    persona: bool,
    outbound: bool,
    stage: Stage,
    /// The session that it depends on; `None`: it lives on.
    leased: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialing,
    Waiting,
    Refused,
    Admitted,
    Up,
}

/// As many of all peers come and go within hours as of a thousand.
fn restless(scale: Scale) -> u32 {
    let share = 100_000 / scale.peers.max(1_000);
    u32::try_from(share).unwrap()
}

/// One run.
pub struct Roster {
    pub desk: Desk,
    agenda: Agenda<Event>,
    random: Rng,
    tempers: Vec<Temper>,
    cuts: Vec<Cut>,
    links: HashMap<LinkId, Link>,
    /// Who is looked at next, though nothing has happened to it.
    turn: usize,
    next_inbound: u64,
    /// Every peer is there and behaves.
    paradise: bool,
    /// All that the signer is asked fails until then.
    sick_until: Moment,
    /// Who is to come back since the last return, of those that are there.
    returning: BTreeSet<usize>,
    pub report: Report,
    /// Whether the floor could be there, as was seen at that moment of that absence.
    could: Option<(Moment, u32, bool)>,
}

impl Roster {
    pub fn new(seed: u64, scale: Scale, trace: bool) -> Self {
        let mut random = Rng::with_seed(seed);
        let policy = Policy {
            // Without one, a return may come before the links of the session before are gone.
            hold_down: [limits::HOLD_DOWN_MAX, 4 * SECOND, Duration::ZERO][random.usize(..3)],
            // A large one is short more often, and costs more dials; the largest is the daemon's.
            gossip_floor: [
                limits::GOSSIP_FLOOR,
                (scale.peers / 20).min(limits::GOSSIP_FLOOR_MAX / 2),
                (scale.peers / 8).min(limits::GOSSIP_FLOOR_MAX),
            ][random.usize(..3)],
            ..Policy::default()
        };
        let tempers: Vec<Temper> = (0..scale.peers)
            .map(|_| Temper::draw(&mut random, restless(scale)))
            .collect();
        let end = scale.lasts();
        let mut agenda = Agenda::new();
        for (at, comes) in script::signer(&mut random, end) {
            agenda.at(at, Event::Signer(comes));
        }
        let cuts = script::cuts(&mut random, end);
        for (number, cut) in cuts.iter().enumerate() {
            agenda.at(cut.from, Event::Cut(number));
        }
        for (peer, temper) in tempers
            .iter()
            .enumerate()
            .filter(|(_, temper)| temper.dials)
        {
            let (_, until) = temper.is_there(Moment::START);
            agenda.at(
                until.min(Moment::from_start(up_to(&mut random, 6 * HOUR))),
                Event::Inbound(peer),
            );
        }
        agenda.after(MINUTE, Event::Whim);
        agenda.after(MINUTE, Event::Audit);
        Self {
            desk: Desk::new(scale.peers, seed, policy, trace),
            agenda,
            random,
            tempers,
            cuts,
            links: HashMap::new(),
            turn: 0,
            next_inbound: 1,
            paradise: false,
            sick_until: Moment::START,
            returning: BTreeSet::new(),
            report: Report::new(scale),
            could: None,
        }
    }

    /// To the end, and then until all is well.
    pub fn run(&mut self, end: Duration) {
        for peer in 0..self.tempers.len() {
            if self.tempers[peer].wanted {
                self.want(peer);
            }
        }
        let declared =
            (0..self.tempers.len()).filter(|peer| self.tempers[*peer].tag == Tag::ChannelBearing);
        let declared = declared.map(|peer| self.desk.id(peer)).collect();
        self.feed(Input::Declare(declared));
        self.pass(Moment::from_start(end));
        self.settle();
        self.report.close(self.desk.figures.clone());
    }

    fn now(&self) -> Moment {
        self.agenda.now()
    }

    fn pass(&mut self, until: Moment) {
        let mut steps = 0_u32;
        loop {
            let planned = self.agenda.next();
            let due = self.desk.machine.deadline();
            let Some(next) = planned
                .into_iter()
                .chain(due)
                .min()
                .filter(|at| *at <= until)
            else {
                break;
            };
            let possible = self.could_have_floor();
            self.report
                .pass(&self.desk, possible, self.agenda.now(), next);
            if planned.is_some_and(|at| at <= next) {
                if let Some(event) = self.agenda.take() {
                    self.happens(event);
                }
            } else {
                self.agenda.pass(next);
                self.feed(Input::Tick);
            }
            steps += 1;
            if steps.is_multiple_of(EVERYBODY) {
                self.desk.check_all(self.now());
            } else if steps.is_multiple_of(NEXT) {
                self.turn = (self.turn + 1) % self.tempers.len();
                self.check(self.turn);
            }
        }
        let possible = self.could_have_floor();
        self.report
            .pass(&self.desk, possible, self.agenda.now(), until);
        self.agenda.pass(until);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Signer(true) => self.attach(),
            Event::Signer(false) => self.lapse(),
            Event::Cut(number) => self.cut(number),
            Event::Fails(link, failure) => {
                if self
                    .links
                    .get(&link)
                    .is_some_and(|link| link.stage == Stage::Dialing)
                {
                    self.over(link, failure);
                }
            }
            Event::Gone(link, failure) => self.over(link, failure),
            Event::Authenticated(link) => self.authenticated(link),
            Event::Up(link) => self.up(link),
            Event::Ends(link, reason) => {
                // What was to go wrong with a link that is up does so no more.
                let is_up = |link: &Link| link.stage == Stage::Up;
                let is_well = self.paradise && self.links.get(&link).is_some_and(is_up);
                if !is_well || reason.is_ours() {
                    self.ends(link, reason);
                }
            }
            Event::Alive(link) => {
                if self
                    .links
                    .get(&link)
                    .is_some_and(|link| link.stage == Stage::Up)
                {
                    self.feed(Input::Alive(link));
                }
            }
            Event::Inbound(peer) => self.inbound(peer),
            Event::InboundDone(peer, session) => self.inbound_done(peer, session),
            Event::Whim => self.whim(),
            Event::Keeps(behind) => {
                if self.desk.live {
                    self.feed(Input::Behind(behind));
                }
            }
            Event::Audit => {
                let now = self.now();
                self.desk.check_floor(now, |peer| self.ready_since(peer));
                self.agenda.after(10 * SECOND, Event::Audit);
            }
        }
    }

    fn feed(&mut self, input: Input) {
        let now = self.now();
        let outputs = self.desk.feed(now, input);
        for output in &outputs {
            self.obey(output);
        }
        self.check_named(&outputs);
        self.desk.done(outputs);
    }

    /// Whoever the machine has spoken of is what it should be.
    fn check_named(&self, outputs: &[Output]) {
        for output in outputs.iter().take(NAMED) {
            if let Output::Dial { peer, .. }
            | Output::Failed { peer, .. }
            | Output::Tagged { peer, .. }
            | Output::Held(peer) = output
            {
                self.check(self.desk.peer_of(*peer));
            } else if let Output::Admit { link, .. }
            | Output::Refuse { link, .. }
            | Output::Close { link, .. } = output
                && let Some(entry) = self.links.get(link)
            {
                self.check(entry.peer);
            }
        }
    }

    fn check(&self, peer: usize) {
        self.desk.check_peer(self.now(), peer);
    }

    fn want(&mut self, peer: usize) {
        let temper = self.tempers[peer];
        let input = Input::Want {
            peer: self.desk.id(peer),
            addresses: (0..temper.addresses)
                .map(|nth| address(peer, nth))
                .collect(),
            tag: Some(temper.tag),
            weight: Some(self.random.u32(..5)),
        };
        self.feed(input);
    }

    fn attach(&mut self) {
        if self.desk.live {
            return;
        }
        let epoch = epochs(self.desk.session() as usize);
        self.feed(Input::Attached(epoch));
        let there = |peer: &usize| {
            let known = self.desk.known(*peer);
            let channel = self.desk.tag(*peer) == Tag::ChannelBearing;
            channel && known.wanted && known.link.is_none() && self.ready_since(*peer).is_some()
        };
        self.returning = (0..self.tempers.len()).filter(there).collect();
        self.desk.check_all(self.now());
    }

    fn lapse(&mut self) {
        if !self.desk.live {
            return;
        }
        let session = self.desk.session();
        self.returning.clear();
        self.feed(Input::Lapsed);
        for (id, link) in self.links_in_order() {
            let soon = up_to(&mut self.random, 100 * MILLI);
            match link.stage {
                Stage::Dialing if !link.persona => {
                    self.agenda
                        .after(soon / 20, Event::Fails(id, Failure::SignerAway));
                }
                Stage::Admitted | Stage::Up if link.leased == Some(session) => {
                    self.agenda.after(soon, Event::Ends(id, CloseReason::Lapse));
                }
                _ => {}
            }
        }
        self.desk.check_all(self.now());
    }

    /// Every link, so that a run replays from its seed.
    fn links_in_order(&self) -> Vec<(LinkId, Link)> {
        let mut links: Vec<_> = self.links.iter().map(|(id, link)| (*id, *link)).collect();
        links.sort_unstable_by_key(|(id, _)| *id);
        links
    }

    /// Whoever is cut off for long loses his links: we find out by a ping.
    fn cut(&mut self, number: usize) {
        let cut = self.cuts[number];
        if cut.to.since(cut.from) < MINUTE {
            return;
        }
        for (id, link) in self.links_in_order() {
            if cut.hits(link.peer) {
                let found = MINUTE / 2 + up_to(&mut self.random, MINUTE);
                self.agenda
                    .after(found, Event::Ends(id, CloseReason::PongTimeout));
            }
        }
    }

    /// Since when a peer is there, answers and lets us in; `None` if it does not.
    fn ready_since(&self, peer: usize) -> Option<Moment> {
        if self.paradise {
            return Some(Moment::START);
        }
        script::ready_since(&self.tempers[peer], &self.cuts, peer, self.now())
    }

    /// Looked at anew every ten seconds, and at a lapse.
    fn could_have_floor(&mut self) -> bool {
        let (now, session) = (self.now(), self.desk.session());
        if self.desk.live {
            self.could = None;
            return false;
        }
        if self.desk.missing() == 0 {
            return true;
        }
        let fresh =
            |(at, of, _): &(Moment, u32, bool)| *of == session && now.since(*at) < 10 * SECOND;
        if let Some((_, _, could)) = self.could.filter(fresh) {
            return could;
        }
        let honest = |peer: usize| self.tempers[peer].manners == Manners::Honest || self.paradise;
        let is_there = |peer| honest(peer) && self.is_reachable(peer);
        let could = self.desk.could_have_floor(is_there);
        self.could = Some((now, session, could));
        could
    }

    fn is_reachable(&self, peer: usize) -> bool {
        let now = self.now();
        let is_there = || self.tempers[peer].is_there(now).0;
        self.paradise || is_there() && !script::is_cut(&self.cuts, peer, now)
    }

    fn obey(&mut self, output: &Output) {
        match output {
            Output::Dial {
                link,
                peer,
                address,
                persona,
                ..
            } => {
                let peer = self.desk.peer_of(*peer);
                self.dial(*link, peer, address, persona.is_some());
            }
            Output::Admit { link, tag } => {
                let session = self.desk.session();
                let entry = self.links.get_mut(link).unwrap();
                entry.stage = Stage::Admitted;
                entry.leased = (*tag == Tag::ChannelBearing).then_some(session);
                let temper = &self.tempers[entry.peer];
                if temper.manners == Manners::NoInit && !self.paradise {
                    self.agenda.after(
                        limits::INIT_DEADLINE,
                        Event::Ends(*link, CloseReason::InitTimeout),
                    );
                } else {
                    self.agenda.after(temper.round_trip, Event::Up(*link));
                }
            }
            Output::Refuse { link, reason } => {
                self.links.get_mut(link).unwrap().stage = Stage::Refused;
                let away = matches!(
                    reason,
                    CloseReason::SignerAway | CloseReason::HeldDown | CloseReason::Lapse
                );
                let failure = if away {
                    Failure::SignerAway
                } else {
                    Failure::Duplicate
                };
                let soon = up_to(&mut self.random, 2 * MILLI);
                self.agenda.after(soon, Event::Gone(*link, failure));
            }
            Output::Close { link, reason } => self.close(*link, *reason),
            Output::Probe(link) => {
                let peer = self.links[link].peer;
                if self.is_reachable(peer) {
                    self.agenda
                        .after(self.tempers[peer].round_trip, Event::Alive(*link));
                }
            }
            Output::Retag { link, tag } => self.retag(*link, *tag),
            _ => {}
        }
    }

    fn close(&mut self, link: LinkId, reason: CloseReason) {
        let soon = up_to(&mut self.random, 5 * MILLI);
        let event = match self.links[&link].stage {
            Stage::Dialing => Event::Fails(link, Failure::Duplicate),
            Stage::Admitted | Stage::Up => Event::Ends(link, reason),
            Stage::Waiting | Stage::Refused => return,
        };
        self.agenda.after(soon, event);
    }

    fn retag(&mut self, link: LinkId, tag: Tag) {
        let (live, session) = (self.desk.live, self.desk.session());
        let entry = self.links.get_mut(&link).unwrap();
        let stale = entry
            .leased
            .is_some_and(|leased| !live || leased != session);
        if stale || tag == Tag::ChannelBearing && !live {
            self.agenda
                .after(MILLI, Event::Ends(link, CloseReason::Lapse));
        } else {
            entry.leased = (tag == Tag::ChannelBearing).then_some(session);
        }
    }

    fn dial(&mut self, link: LinkId, peer: usize, to: &Address, persona: bool) {
        let temper = self.tempers[peer];
        let new = Link {
            peer,
            persona,
            outbound: true,
            stage: Stage::Dialing,
            leased: None,
        };
        self.links.insert(link, new);
        let nth = nth_address(peer, to);
        let trip = temper.round_trip;
        let signer = if persona {
            Duration::ZERO
        } else {
            10 * MILLI + up_to(&mut self.random, 100 * MILLI)
        };
        let fate = if self.paradise {
            Fate::Answered
        } else {
            temper.fate(nth, self.is_reachable(peer))
        };
        let sick = !persona && self.now() < self.sick_until;
        let fails = |failure| Event::Fails(link, failure);
        let (after, event) = match fate {
            Fate::Refused => (trip, fails(Failure::Unreachable)),
            Fate::Lost => (limits::CONNECT_DEADLINE, fails(Failure::Unreachable)),
            Fate::WrongKey => (2 * trip, fails(Failure::WrongKey)),
            Fate::Silent => (trip + limits::ACT_DEADLINE, fails(Failure::Handshake)),
            Fate::Answered if sick => (2 * trip + signer, fails(Failure::Ours)),
            Fate::Answered => (3 * trip + signer, Event::Authenticated(link)),
        };
        self.agenda.after(after, event);
    }

    fn authenticated(&mut self, link: LinkId) {
        let Some(entry) = self
            .links
            .get_mut(&link)
            .filter(|entry| entry.stage == Stage::Dialing)
        else {
            return;
        };
        let peer = entry.peer;
        entry.stage = Stage::Waiting;
        self.feed(Input::Authenticated {
            link,
            peer: self.desk.id(peer),
            direction: Direction::Outbound,
            address: address(peer, 0).address,
        });
        self.check(peer);
    }

    fn up(&mut self, link: LinkId) {
        let Some(entry) = self
            .links
            .get_mut(&link)
            .filter(|entry| entry.stage == Stage::Admitted)
        else {
            return;
        };
        let peer = entry.peer;
        entry.stage = Stage::Up;
        self.feed(Input::Up(link));
        self.came_back(peer);
        self.check(peer);
        let now = self.now();
        let temper = self.tempers[peer];
        let (_, until) = temper.is_there(now);
        let (at, reason) = if temper.manners == Manners::Hostile {
            let reasons = [
                CloseReason::Protocol,
                CloseReason::PingFlood,
                CloseReason::Mistag,
                CloseReason::PeerClosed,
            ];
            let reason = match reasons[self.random.usize(..4)] {
                CloseReason::Mistag if self.desk.live => CloseReason::PeerClosed,
                reason => reason,
            };
            (
                now.after(between(&mut self.random, SECOND, HOUR))
                    .min(until),
                reason,
            )
        } else if temper.silent {
            (
                until.after(MINUTE / 2 + up_to(&mut self.random, MINUTE)),
                CloseReason::PongTimeout,
            )
        } else {
            (until, CloseReason::PeerClosed)
        };
        if !self.paradise {
            self.agenda.at(at, Event::Ends(link, reason));
        }
    }

    fn came_back(&mut self, peer: usize) {
        if self.returning.remove(&peer) && self.returning.is_empty() {
            let due = self.desk.return_due().unwrap_or_default();
            self.report.relit(self.now().since(due));
        }
    }

    /// The end of a link that is let in.
    fn ends(&mut self, link: LinkId, reason: CloseReason) {
        let Some(entry) = self.links.get(&link).copied() else {
            return;
        };
        if !matches!(entry.stage, Stage::Admitted | Stage::Up) {
            return;
        }
        self.links.remove(&link);
        self.feed(Input::Ended { link, reason });
        self.check(entry.peer);
    }

    /// The end of a dial or of a newcomer that was never let in.
    fn over(&mut self, link: LinkId, failure: Failure) {
        let Some(entry) = self.links.remove(&link) else {
            return;
        };
        if !matches!(failure, Failure::SignerAway | Failure::Duplicate) {
            self.returning.remove(&entry.peer);
        }
        self.feed(if entry.outbound {
            Input::DialFailed { link, failure }
        } else {
            Input::Withdrawn(link)
        });
        self.check(entry.peer);
    }

    /// A peer dials us if it has no link; some dial at the very moment that they come back.
    fn inbound(&mut self, peer: usize) {
        let temper = self.tempers[peer];
        let (there, until) = temper.is_there(self.now());
        if temper.cycle.is_some() && !there {
            self.agenda.at(until, Event::Inbound(peer));
            return;
        }
        let again = self.now().after(up_to(&mut self.random, 4 * HOUR));
        let next = if until <= again {
            // It comes back when it has been away.
            temper.is_there(until).1
        } else {
            again
        };
        self.agenda.at(next, Event::Inbound(peer));
        let speaks = matches!(
            temper.manners,
            Manners::Honest | Manners::Hostile | Manners::NoInit
        );
        // Some have lost a link that we still hold for good.
        let has_lost = self.random.u8(..8) == 0 && !self.paradise;
        let dials = has_lost || !self.desk.known(peer).is_up();
        if dials && speaks && self.desk.live && self.is_reachable(peer) {
            let session = self.desk.session();
            self.agenda
                .after(3 * temper.round_trip, Event::InboundDone(peer, session));
        }
    }

    fn inbound_done(&mut self, peer: usize, session: u32) {
        // A lapse ends every handshake that needs the signer; one that comes now may be a moment too late for that.
        let late = self.random.u8(..4) == 0;
        let live = self.desk.live && session == self.desk.session();
        if !live && !late {
            return;
        }
        let link = LinkId::new(self.next_inbound);
        self.next_inbound += 2;
        let new = Link {
            peer,
            persona: false,
            outbound: false,
            stage: Stage::Waiting,
            leased: None,
        };
        self.links.insert(link, new);
        self.feed(Input::Authenticated {
            link,
            peer: self.desk.id(peer),
            direction: Direction::Inbound,
            address: address(peer, 0).address,
        });
        self.check(peer);
    }

    fn whim(&mut self) {
        let next = between(&mut self.random, SECOND, 2 * HOUR);
        self.agenda.after(next, Event::Whim);
        let peer = self.random.usize(..self.tempers.len());
        let id = self.desk.id(peer);
        match self.random.u8(..10) {
            0 | 1 => {
                let urgency = Urgency {
                    pending_htlcs: self.random.u32(..3),
                    earliest_expiry_height: self.random.u32(800_000..800_100),
                    csv_delay: self.random.u16(..2000),
                };
                self.feed(Input::Urgency(id, urgency));
            }
            2 | 3 => {
                let tag = [Tag::GossipOnly, Tag::ChannelBearing][self.random.usize(..2)];
                self.feed(Input::Tag(id, tag));
            }
            4 => self.feed(Input::Unwant(id)),
            5 => self.want(peer),
            6 if self.desk.live => {
                self.feed(Input::Behind(true));
                let lasts = between(&mut self.random, MILLI, MINUTE);
                self.agenda.after(lasts, Event::Keeps(false));
            }
            7 => {
                let lasts = between(&mut self.random, SECOND, HOUR / 4);
                self.sick_until = self.now().after(lasts);
            }
            _ => {}
        }
        self.check(peer);
    }

    /// Everybody is there and behaves: after a return everybody is back; if all gossip links break in an absence the floor is there again
    /// within seconds; and after the next return everybody is back once more.
    fn settle(&mut self) {
        self.paradise = true;
        self.sick_until = self.now();
        self.lapse();
        self.pass(self.now().after(MINUTE));
        self.returns();
        self.lapse();
        self.pass(self.now().after(SECOND));
        for (link, _) in self.links_in_order() {
            self.ends(link, CloseReason::PeerClosed);
        }
        self.pass(self.now().after(15 * SECOND));
        let candidate =
            |peer: &usize| self.desk.known(*peer).wanted && self.desk.tag(*peer) == Tag::GossipOnly;
        let candidates = (0..self.tempers.len()).filter(candidate).count();
        let floor = self.desk.policy().gossip_floor.min(candidates);
        let up = self.desk.gossip_up;
        assert!(
            up >= floor,
            "P7: all are there, and {up} gossip links of {floor}"
        );
        self.returns();
    }

    fn returns(&mut self) {
        self.attach();
        if self.desk.machine.is_behind() {
            self.feed(Input::Behind(false));
        }
        self.pass(self.now().after(12 * MINUTE));
        for peer in 0..self.tempers.len() {
            let known = self.desk.known(peer);
            let own = known.link.is_some_and(|link| link.up.is_some());
            assert!(
                own || !known.wanted,
                "P8: all are there, and peer {peer} has no link: {known:?}"
            );
            assert!(known.persona.is_none(), "a persona stays at peer {peer}");
        }
        self.desk.check_all(self.now());
    }
}
