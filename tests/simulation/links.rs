//! The roster with its links: the real machine, firewall and outbox of each link over a simulated network, and a supervisor's driver
//! that hears of everything a little late, as the real one does.
//!
//! The signer's context and its leases are the real ones too: what is written or delivered under a lease is checked against them.

use super::agenda::Agenda;
use super::desk::{Desk, address, nth_address};
use super::report::Report;
use super::script::{self, Cut, DAY, HOUR, MINUTE, Manners, SECOND, Temper, between, up_to};
use super::wire::Wire;
use super::{Scale, desk};
use fastrand::Rng;
use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::link::machine::{LinkMachine, Settings};
use pilotlight::link::outbox::Outbox;
use pilotlight::link::{CloseReason, Direction, LinkId, Tag};
use pilotlight::signer::{
    EmbeddedSigner, Epoch, LapseReason, Lease, Signer, SignerContext, SignerSession,
};
use pilotlight::supervisor::machine::{Failure, Input, Output, Policy, Urgency};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub const MILLI: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy)]
pub enum Event {
    Signer(bool),
    /// The supervisor's driver looks at the signer.
    Look,
    /// The links of a session that is over are wiped and reset.
    Reaper(Epoch),
    /// The driver takes the next report.
    Report,
    Step(LinkId, Step),
    /// A link's task takes its turn.
    Turn(LinkId),
    Alarm(LinkId),
    /// Packets have arrived; `true`: at the far end.
    Arrive(LinkId, bool),
    FarTurn(LinkId),
    NodeTurn(LinkId),
    /// A peer goes or comes.
    Edge(usize),
    /// A partition is over.
    Heal(usize),
    Inbound(usize),
    Recorded(LinkId),
    Whim,
    /// The node has changed its mind about a peer again.
    Regret(usize),
    Audit,
}

/// How a handshake goes on.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// TCP is there, and act one is on its way.
    Connected,
    /// The signer is asked.
    Ask,
    /// It has answered.
    Answered,
    /// The last act has come, or gone.
    Done,
    Fails(Failure),
    /// An inbound connection that waits for a signer has waited for long enough.
    Unpark,
}

#[derive(Debug, Clone, Copy)]
pub enum Told {
    Authenticated(LinkId),
    Up(LinkId),
    Alive(LinkId),
    Promote(LinkId),
    DialFailed(LinkId, Failure),
    InboundFailed(LinkId),
    Ended(LinkId, CloseReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Parked,
    Shaking,
    Waiting,
    Admitted,
    Up,
    /// It has reported its end.
    Over,
}

/// Our end of a link.
pub struct Link {
    pub peer: usize,
    pub persona: bool,
    pub outbound: bool,
    pub stage: Stage,
    /// The session that its handshake asks.
    pub session: Option<Epoch>,
    pub lease: Option<Lease>,
    pub carried: bool,
    pub tag: Tag,
    pub machine: Option<LinkMachine>,
    pub outbox: Outbox,
    pub control: VecDeque<Vec<u8>>,
    pub pongs: VecDeque<u16>,
    pub close: Option<CloseReason>,
    pub probe: bool,
    pub probing: bool,
    pub on_record: bool,
    pub promoting: bool,
    pub alarm: Option<Moment>,
    pub turning: bool,
    /// Numbers what the node sends; numbers what it is to hear next.
    pub queued: u64,
    /// Of those, how many have been taken.
    pub taken: u64,
    pub heard: u64,
    pub active: Moment,
    pub nth: usize,
}

/// One run.
pub struct Links {
    pub desk: Desk,
    pub agenda: Agenda<Event>,
    pub random: Rng,
    pub tempers: Vec<Temper>,
    cuts: Vec<Cut>,
    pub links: BTreeMap<LinkId, Link>,
    pub wires: BTreeMap<LinkId, Wire>,
    told: VecDeque<Told>,
    signer: Arc<EmbeddedSigner>,
    pub context: SignerContext,
    session: Option<SignerSession>,
    /// The session that the driver knows of.
    seen: Option<Epoch>,
    /// The newest session whose links are torn down.
    reaped: Option<Epoch>,
    next_inbound: u64,
    pub paradise: bool,
    sick_until: Moment,
    returning: BTreeSet<usize>,
    pub settings: Settings,
    /// The wall clock is off by so much.
    pub wall_off: i64,
    pub last_gossip: Option<Duration>,
    seed: u64,
    pub report: Report,
    /// Whether the floor could be there, as was seen at that moment of that absence.
    could: Option<(Moment, u32, bool)>,
}

impl Links {
    pub fn new(seed: u64, scale: Scale, trace: bool) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x11_4b);
        let policy = Policy {
            // Without one, a return may come before the links of the session before are gone.
            hold_down: [limits::HOLD_DOWN_MAX, 4 * SECOND, Duration::ZERO][random.usize(..3)],
            gossip_floor: [limits::GOSSIP_FLOOR, 2, 9][random.usize(..3)],
            ..Policy::default()
        };
        let settings = Settings {
            persona: false,
            queries_served: random.bool(),
            custom_even_ok: false,
            observe: random.u8(..8) == 0,
            max_age: (random.u8(..4) == 0).then_some(2 * HOUR),
        };
        let signer = Arc::new(EmbeddedSigner::from_key(desk::own()));
        let mut links = Self {
            desk: Desk::new(scale.peers, seed, policy, trace),
            agenda: Agenda::new(),
            tempers: (0..scale.peers)
                .map(|_| Temper::draw(&mut random, 100))
                .collect(),
            cuts: script::cuts(&mut random, scale.lasts()),
            links: BTreeMap::new(),
            wires: BTreeMap::new(),
            told: VecDeque::new(),
            context: SignerContext::new(signer.node_id()),
            signer,
            session: None,
            seen: None,
            reaped: None,
            next_inbound: 1,
            paradise: false,
            sick_until: Moment::START,
            returning: BTreeSet::new(),
            settings,
            wall_off: 0,
            last_gossip: None,
            seed,
            random,
            report: Report::new(scale),
            could: None,
        };
        links.plan(scale.lasts());
        links
    }

    fn plan(&mut self, end: Duration) {
        for (at, comes) in script::signer(&mut self.random, end) {
            self.agenda.at(at, Event::Signer(comes));
        }
        for number in 0..self.cuts.len() {
            self.agenda.at(self.cuts[number].to, Event::Heal(number));
        }
        for peer in 0..self.tempers.len() {
            if self.tempers[peer].cycle.is_some() {
                let (_, until) = self.tempers[peer].is_there(Moment::START);
                self.agenda.at(until, Event::Edge(peer));
            }
            if self.tempers[peer].dials {
                let first = up_to(&mut self.random, HOUR);
                self.agenda.after(first, Event::Inbound(peer));
            }
        }
        self.agenda.after(MINUTE, Event::Whim);
        self.agenda.after(MINUTE, Event::Audit);
    }

    pub fn now(&self) -> Moment {
        self.agenda.now()
    }

    pub fn wall(&self) -> Duration {
        let start = 1_767_225_600 + i64::try_from(self.now().since_start().as_secs()).unwrap();
        Duration::from_secs(u64::try_from(start + self.wall_off).unwrap())
    }

    /// To the end, and then until all is well.
    pub fn run(&mut self, end: Duration) {
        for peer in 0..self.tempers.len() {
            if self.tempers[peer].wanted {
                self.want(peer);
            }
        }
        let channel = |peer: &usize| self.tempers[*peer].tag == Tag::ChannelBearing;
        let declared = (0..self.tempers.len()).filter(channel);
        let declared = declared.map(|peer| self.desk.id(peer)).collect();
        self.feed(Input::Declare(declared));
        self.pass(Moment::from_start(end));
        self.settle();
        self.report.close(self.desk.figures.clone());
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
                self.look();
                if self.desk.machine.deadline().is_some_and(|at| at <= next) {
                    self.feed(Input::Tick);
                }
            }
            steps += 1;
            if steps.is_multiple_of(1_000) {
                self.desk.check_all(self.now());
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
            Event::Look => self.look(),
            Event::Reaper(epoch) => self.reap(epoch),
            Event::Report => {
                self.look();
                self.hear();
            }
            Event::Step(link, step) => self.step(link, step),
            Event::Turn(link) => self.turn(link),
            Event::Alarm(link) => self.alarm(link),
            Event::Arrive(link, true) => self.arrive_far(link),
            Event::Arrive(link, false) => self.arrive(link),
            Event::FarTurn(link) => self.far_turn(link),
            Event::NodeTurn(link) => self.node_turn(link),
            Event::Edge(peer) => self.edge(peer),
            Event::Heal(number) => self.heal(number),
            Event::Inbound(peer) => self.inbound(peer),
            Event::Recorded(link) => {
                if let Some(entry) = self.links.get_mut(&link) {
                    (entry.on_record, entry.promoting) = (true, false);
                    self.wake(link);
                }
            }
            Event::Whim => self.whim(),
            Event::Regret(peer) => self.regret(peer),
            Event::Audit => self.audit(),
        }
    }

    fn audit(&mut self) {
        let now = self.now();
        self.desk.check_all(now);
        self.desk.check_floor(now, |peer| self.ready_since(peer));
        if !self.desk.live {
            let lives = |peer: usize| {
                self.wires.values().any(|wire| {
                    wire.peer == peer && wire.ours_open && wire.far_open && wire.far.is_up
                }) && self.path(peer)
            };
            let up = (0..self.tempers.len())
                .filter(|peer| self.desk.tag(*peer) == Tag::GossipOnly && lives(*peer))
                .count();
            let wanted = self.desk.policy().gossip_floor;
            self.report.sample(up >= wanted);
        }
        self.agenda.after(10 * SECOND, Event::Audit);
    }

    // --- the signer ---

    fn attach(&mut self) {
        if self.session.is_some() {
            return;
        }
        let challenge = self.context.challenge(&mut [9; 32]).unwrap();
        let answer = desk::own().ecdh(&challenge.point());
        let proof = challenge.verify(answer).unwrap();
        let signer = Arc::clone(&self.signer) as Arc<dyn Signer>;
        self.session = Some(self.context.attach(proof, signer).unwrap());
        let now = self.now();
        self.desk.note(now, || "-- the signer attaches".to_owned());
        self.soon(Event::Look);
        // Those who are parked ask one by one.
        let parked: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.stage == Stage::Parked)
            .map(|(id, _)| *id)
            .collect();
        for link in parked {
            let later = MILLI + up_to(&mut self.random, limits::PARKED_GIVE_WAY);
            self.agenda.after(later, Event::Step(link, Step::Connected));
        }
    }

    fn lapse(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let epoch = session.epoch();
        let _ = session.lapse(LapseReason::Requested);
        let now = self.now();
        self.desk
            .note(now, || "-- the signer lapses: the fence is up".to_owned());
        self.soon(Event::Look);
        let later = up_to(&mut self.random, 60 * MILLI);
        self.agenda.after(later, Event::Reaper(epoch));
    }

    /// Mostly at once, and at times after the supervisor has done something else.
    fn soon(&mut self, event: Event) {
        let late = if self.random.u8(..50) == 0 { 60 } else { 2 };
        let by = up_to(&mut self.random, late * MILLI);
        self.agenda.after(by, event);
    }

    /// As the driver does it: the watch may have skipped states.
    fn look(&mut self) {
        let live = self.context.state().live();
        if live == self.seen {
            return;
        }
        if self.seen.take().is_some() {
            self.returning.clear();
            self.feed(Input::Lapsed);
            self.desk.check_all(self.now());
        }
        if let Some(epoch) = live {
            self.seen = Some(epoch);
            self.feed(Input::Attached(epoch));
            let there = |peer: &usize| {
                let known = self.desk.known(*peer);
                let channel = self.desk.tag(*peer) == Tag::ChannelBearing;
                channel && known.wanted && known.link.is_none() && self.ready_since(*peer).is_some()
            };
            self.returning = (0..self.tempers.len()).filter(there).collect();
            self.desk.check_all(self.now());
        }
    }

    /// P6: after this no link of the session is left.
    fn reap(&mut self, epoch: Epoch) {
        self.reaped = self.reaped.max(Some(epoch));
        let hit: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| {
                link.lease
                    .as_ref()
                    .is_some_and(|lease| lease.epoch() <= epoch)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in hit {
            self.reset(id, CloseReason::Lapse);
        }
        let shaking: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.stage == Stage::Shaking)
            .filter(|(_, link)| link.session.is_some_and(|session| session <= epoch))
            .map(|(id, _)| *id)
            .collect();
        for id in shaking {
            self.fails(id, Failure::SignerAway);
        }
    }

    // --- the supervisor's driver ---

    pub fn tell(&mut self, told: Told) {
        self.told.push_back(told);
        self.soon(Event::Report);
    }

    pub fn feed(&mut self, input: Input) {
        let now = self.now();
        let outputs = self.desk.feed(now, input);
        for output in &outputs {
            self.obey(output);
        }
        self.desk.done(outputs);
    }

    fn hear(&mut self) {
        let Some(told) = self.told.pop_front() else {
            return;
        };
        let peer = match told {
            Told::Authenticated(link) => self.tell_authenticated(link),
            Told::Up(link) => {
                let peer = self.links.get(&link).map(|entry| entry.peer);
                self.feed(Input::Up(link));
                if let Some(peer) = peer {
                    self.came_back(link, peer);
                }
                peer
            }
            Told::Alive(link) => {
                self.feed(Input::Alive(link));
                None
            }
            Told::Promote(link) => {
                let peer = self.links.get(&link).map(|entry| entry.peer);
                if let Some(peer) = peer {
                    self.feed(Input::Tag(self.desk.id(peer), Tag::ChannelBearing));
                    self.will_regret(peer);
                    let later = up_to(&mut self.random, 20 * MILLI);
                    self.agenda.after(later, Event::Recorded(link));
                }
                peer
            }
            Told::DialFailed(link, failure) => {
                let gone = self.links.remove(&link).map(|entry| entry.peer);
                if let Some(peer) = gone
                    && !matches!(failure, Failure::SignerAway | Failure::Duplicate)
                {
                    self.returning.remove(&peer);
                }
                self.feed(Input::DialFailed { link, failure });
                gone
            }
            Told::InboundFailed(link) => {
                let gone = self.links.remove(&link).map(|entry| entry.peer);
                self.feed(Input::Withdrawn(link));
                gone
            }
            Told::Ended(link, reason) => {
                let gone = self.links.remove(&link).map(|entry| entry.peer);
                self.feed(Input::Ended { link, reason });
                gone
            }
        };
        if let Some(peer) = peer {
            self.desk.check_peer(self.now(), peer);
        }
    }

    fn tell_authenticated(&mut self, link: LinkId) -> Option<usize> {
        let entry = self.links.get(&link)?;
        let peer = entry.peer;
        let direction = if entry.outbound {
            Direction::Outbound
        } else {
            // The machine must know who was of use when.
            let guests: Vec<LinkId> = self.desk.machine.guests().collect();
            for guest in guests {
                if let Some(active) = self.links.get(&guest).map(|guest| guest.active) {
                    self.feed(Input::Active(guest, active));
                }
            }
            Direction::Inbound
        };
        self.feed(Input::Authenticated {
            link,
            peer: self.desk.id(peer),
            direction,
            address: address(peer, self.links[&link].nth).address,
        });
        Some(peer)
    }

    fn came_back(&mut self, link: LinkId, peer: usize) {
        let lives = self
            .desk
            .known(peer)
            .link
            .is_some_and(|known| known.id == link);
        if lives && self.returning.remove(&peer) && self.returning.is_empty() {
            let due = self.desk.return_due().unwrap_or_default();
            self.report.relit(self.now().since(due));
        }
    }

    fn obey(&mut self, output: &Output) {
        match output {
            Output::Dial {
                link,
                peer,
                address: to,
                persona,
                ..
            } => {
                let peer = self.desk.peer_of(*peer);
                let nth = nth_address(peer, to);
                self.dial(*link, peer, nth, persona.is_some());
            }
            Output::Admit { link, tag } => self.admit(*link, *tag),
            Output::Refuse { link, reason } => self.refuse(*link, *reason),
            Output::Close { link, reason } => self.close(*link, *reason),
            Output::Probe(link) => {
                if let Some(entry) = self.links.get_mut(link) {
                    entry.probe = true;
                    self.wake(*link);
                }
            }
            Output::Retag { link, tag } => {
                let there = self.links.get(link);
                if there.is_some_and(|entry| entry.stage != Stage::Over) {
                    self.follow_tag(*link, *tag);
                }
            }
            _ => {}
        }
    }

    // --- the world ---

    pub fn want(&mut self, peer: usize) {
        let temper = self.tempers[peer];
        let weight = Some(self.random.u32(..5));
        self.feed(Input::Want {
            peer: self.desk.id(peer),
            addresses: (0..temper.addresses)
                .map(|nth| address(peer, nth))
                .collect(),
            tag: Some(temper.tag),
            weight,
        });
    }

    /// Whether packets pass between us and a peer's host.
    pub fn path(&self, peer: usize) -> bool {
        let now = self.now();
        let is_cut = self
            .cuts
            .iter()
            .any(|cut| cut.from <= now && now < cut.to && cut.hits(peer));
        self.paradise || !is_cut
    }

    pub fn is_there(&self, peer: usize) -> bool {
        self.paradise || self.tempers[peer].is_there(self.now()).0
    }

    pub fn manners(&self, peer: usize) -> Manners {
        if self.paradise {
            Manners::Honest
        } else {
            self.tempers[peer].manners
        }
    }

    /// Looked at anew once a second, and at a lapse.
    fn could_have_floor(&mut self) -> bool {
        let (now, session) = (self.now(), self.desk.session());
        if self.desk.live {
            self.could = None;
            return false;
        }
        let fresh = |(at, of, _): &(Moment, u32, bool)| *of == session && now.since(*at) < SECOND;
        if let Some((_, _, could)) = self.could.filter(fresh) {
            return could;
        }
        let is_there =
            |peer| self.manners(peer) == Manners::Honest && self.is_there(peer) && self.path(peer);
        let could = self.desk.could_have_floor(is_there);
        self.could = Some((now, session, could));
        could
    }

    fn ready_since(&self, peer: usize) -> Option<Moment> {
        if self.paradise {
            return Some(Moment::START);
        }
        script::ready_since(&self.tempers[peer], &self.cuts, peer, self.now())
    }

    pub fn is_sick(&self) -> bool {
        self.now() < self.sick_until
    }

    pub fn reaped(&self) -> Option<Epoch> {
        self.reaped
    }

    pub fn next_inbound(&mut self) -> LinkId {
        self.next_inbound += 2;
        LinkId::new(self.next_inbound - 2)
    }

    pub fn machine_seed(&self, link: LinkId) -> u64 {
        link.get() ^ self.seed
    }

    fn edge(&mut self, peer: usize) {
        let now = self.now();
        let temper = self.tempers[peer];
        let (there, until) = temper.is_there(now);
        self.agenda
            .at(until.after(Duration::from_nanos(1)), Event::Edge(peer));
        if self.paradise {
            return;
        }
        let wires: Vec<LinkId> = self.wires_of(peer);
        if there {
            // Who is back dials soon, at times at the very moment that we do.
            if temper.dials {
                let soon = up_to(&mut self.random, 5 * SECOND);
                self.agenda.after(soon, Event::Inbound(peer));
            }
            for link in wires {
                self.arm(link, true);
            }
        } else {
            for link in wires {
                self.far_ends(link, !temper.silent);
            }
        }
    }

    pub fn wires_of(&self, peer: usize) -> Vec<LinkId> {
        let of = |(id, wire): (&LinkId, &Wire)| (wire.peer == peer).then_some(*id);
        self.wires.iter().filter_map(of).collect()
    }

    fn heal(&mut self, number: usize) {
        let cut = self.cuts[number];
        let wires: Vec<LinkId> = self
            .wires
            .iter()
            .filter(|(_, wire)| cut.hits(wire.peer))
            .map(|(id, _)| *id)
            .collect();
        for link in wires {
            self.arm(link, true);
            self.arm(link, false);
        }
    }

    fn whim(&mut self) {
        if self.paradise {
            // A link that is closed for a whim is missing for a moment.
            return;
        }
        let next = between(&mut self.random, SECOND, 2 * HOUR);
        self.agenda.after(next, Event::Whim);
        let peer = self.random.usize(..self.tempers.len());
        let id = self.desk.id(peer);
        let whim = self.random.u8(..12);
        match whim {
            0 | 1 => {
                let urgency = Urgency {
                    pending_htlcs: self.random.u32(..3),
                    earliest_expiry_height: self.random.u32(800_000..800_100),
                    csv_delay: self.random.u16(..2000),
                };
                self.feed(Input::Urgency(id, urgency));
            }
            2 => {
                let tag = [Tag::GossipOnly, Tag::ChannelBearing][self.random.usize(..2)];
                self.feed(Input::Tag(id, tag));
            }
            3 => self.feed(Input::Unwant(id)),
            4 | 5 => self.want(peer),
            6 => {
                let lasts = between(&mut self.random, SECOND, HOUR / 4);
                self.sick_until = self.now().after(lasts);
            }
            7 => {
                // The wall clock is set: forward, or back. The monotonic clock is not.
                let step = i64::try_from(between(&mut self.random, SECOND, 3 * DAY).as_secs());
                let sign = if self.random.bool() { 1 } else { -1 };
                self.wall_off += sign * step.unwrap();
            }
            8 if self.seen.is_some() => {
                let behind = !self.desk.machine.is_behind();
                self.feed(Input::Behind(behind));
            }
            9 => self.inbound(peer),
            _ if self.seen.is_some() && self.desk.machine.is_behind() => {
                self.feed(Input::Behind(false));
            }
            _ => {}
        }
        if matches!(whim, 2 | 3) {
            self.will_regret(peer);
        }
        self.desk.check_peer(self.now(), peer);
    }

    /// Channels are opened, and closed again: else there would be no gossip peers left after some days, nor any at all.
    fn will_regret(&mut self, peer: usize) {
        let later = between(&mut self.random, MINUTE, 4 * HOUR);
        self.agenda.after(later, Event::Regret(peer));
    }

    /// A peer is again what it was in the beginning.
    fn regret(&mut self, peer: usize) {
        if self.paradise {
            return;
        }
        let temper = self.tempers[peer];
        let known = self.desk.known(peer);
        if temper.wanted && !known.wanted {
            self.want(peer);
        } else if known.wanted && self.desk.tag(peer) != temper.tag {
            self.feed(Input::Tag(self.desk.id(peer), temper.tag));
        }
        self.desk.check_peer(self.now(), peer);
    }

    /// Everybody is there and behaves: after a return everybody is back; if all gossip links break in an absence the floor is there again
    /// within seconds; and after the next return everybody is back once more.
    fn settle(&mut self) {
        self.paradise = true;
        self.sick_until = self.now();
        for link in self.wires.keys().copied().collect::<Vec<_>>() {
            self.arm(link, true);
            self.arm(link, false);
        }
        self.lapse();
        self.pass(self.now().after(MINUTE));
        self.returns();
        self.lapse();
        self.pass(self.now().after(SECOND));
        for link in self.wires.keys().copied().collect::<Vec<_>>() {
            self.far_ends(link, true);
        }
        self.pass(self.now().after(15 * SECOND));
        let candidate = |peer: &usize| {
            let known = self.desk.known(*peer);
            known.wanted && !known.suspect && self.desk.tag(*peer) == Tag::GossipOnly
        };
        let candidates = (0..self.tempers.len()).filter(candidate).count();
        let floor = self.desk.policy().gossip_floor.min(candidates);
        let up = self.desk.gossip_up;
        assert!(
            up >= floor,
            "P7: all are there, and {up} gossip links of {floor}"
        );
        self.returns();
        self.check_all_arrived();
    }

    fn returns(&mut self) {
        self.attach();
        self.look();
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
