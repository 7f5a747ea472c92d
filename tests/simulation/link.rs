//! Our end of a simulated link: what `link::driver` and `link::task` do between the machine and a socket, without the socket.

use super::links::{Event, Link, Links, MILLI, Stage, Step, Told};
use super::script::{Fate, Manners, SECOND, up_to};
use super::wire::{Packet, Wire};
use bytes::Bytes;
use pilotlight::limits;
use pilotlight::link::firewall::Outbound;
use pilotlight::link::machine::{Ambient, Due, LinkMachine, Received, Settings};
use pilotlight::link::outbox::{Outbox, Taken};
use pilotlight::link::{CloseReason, LinkId, Tag, catch_up};
use pilotlight::signer::Lease;
use pilotlight::supervisor::machine::Failure;
use pilotlight::wire::{
    BITCOIN_MAINNET, GossipTimestampFilter, Init, MessageType, Ping, Plane, Pong,
};
use std::collections::VecDeque;
use std::time::Duration;

impl Links {
    fn new_link(&self, peer: usize, outbound: bool, persona: bool, stage: Stage) -> Link {
        Link {
            peer,
            persona,
            outbound,
            stage,
            session: None,
            lease: None,
            carried: false,
            tag: Tag::ChannelBearing,
            machine: None,
            outbox: Outbox::new(),
            control: VecDeque::new(),
            pongs: VecDeque::new(),
            close: None,
            probe: false,
            probing: false,
            on_record: false,
            promoting: false,
            alarm: None,
            turning: false,
            queued: 0,
            taken: 0,
            heard: 0,
            active: self.now(),
            nth: 0,
        }
    }

    // --- the handshake ---

    pub fn dial(&mut self, id: LinkId, peer: usize, nth: usize, persona: bool) {
        let mut link = self.new_link(peer, true, persona, Stage::Shaking);
        link.nth = nth;
        self.report.links += 1;
        if !persona {
            let lease = self.context.lease().ok();
            link.session = lease.as_ref().map(Lease::epoch);
            link.lease = lease.filter(|_| self.desk.tag(peer) == Tag::ChannelBearing);
        }
        let gone = !persona && link.session.is_none();
        self.links.insert(id, link);
        if gone {
            return self.fails(id, Failure::SignerAway);
        }
        let temper = self.tempers[peer];
        let fate = if self.paradise {
            Fate::Answered
        } else {
            temper.fate(nth, self.is_there(peer) && self.path(peer))
        };
        let trip = temper.round_trip;
        let (after, step) = match fate {
            Fate::Refused => (trip, Step::Fails(Failure::Unreachable)),
            Fate::Lost => (limits::CONNECT_DEADLINE, Step::Fails(Failure::Unreachable)),
            Fate::WrongKey => (2 * trip, Step::Fails(Failure::WrongKey)),
            Fate::Silent => (trip + limits::ACT_DEADLINE, Step::Fails(Failure::Handshake)),
            Fate::Answered => (trip, Step::Connected),
        };
        self.agenda.after(after, Event::Step(id, step));
        if temper.dials && self.random.u8(..4) == 0 {
            let soon = up_to(&mut self.random, trip);
            self.agenda.after(soon, Event::Inbound(peer));
        }
    }

    /// A peer dials us: parked, unread, while no signer is there.
    pub fn inbound(&mut self, peer: usize) {
        let speaks = matches!(
            self.manners(peer),
            Manners::Honest | Manners::Hostile | Manners::NoInit
        );
        if !speaks || !self.is_there(peer) || !self.path(peer) {
            return;
        }
        let live = self.context.state().live();
        let parked = |link: &&Link| link.stage == Stage::Parked;
        let place = self.links.values().filter(parked).count() < limits::PARKED_MAX;
        if live.is_none() && !place {
            return;
        }
        let id = self.next_inbound();
        self.report.links += 1;
        let stage = live.map_or(Stage::Parked, |_| Stage::Shaking);
        let mut link = self.new_link(peer, false, false, stage);
        link.session = live;
        self.links.insert(id, link);
        let trip = self.tempers[peer].round_trip;
        if live.is_some() {
            self.agenda.after(trip, Event::Step(id, Step::Ask));
        } else {
            self.agenda
                .after(limits::PARKED_FOR, Event::Step(id, Step::Unpark));
        }
    }

    pub fn step(&mut self, id: LinkId, step: Step) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let (peer, persona, outbound) = (link.peer, link.persona, link.outbound);
        match (link.stage, step) {
            (Stage::Parked, Step::Unpark) => {
                self.links.remove(&id);
                return;
            }
            (Stage::Parked, Step::Connected) => {
                if let Some(epoch) = self.context.state().live() {
                    (link.stage, link.session) = (Stage::Shaking, Some(epoch));
                    self.agenda.after(MILLI, Event::Step(id, Step::Ask));
                }
                return;
            }
            (Stage::Shaking, _) => {}
            _ => return,
        }
        let trip = self.tempers[peer].round_trip;
        let reachable = self.is_there(peer) && self.path(peer);
        match step {
            Step::Fails(failure) => self.fails(id, failure),
            _ if !reachable => {
                let late = Step::Fails(Failure::Handshake);
                self.agenda
                    .after(limits::ACT_DEADLINE, Event::Step(id, late));
            }
            Step::Connected => {
                let next = if persona { Step::Done } else { Step::Ask };
                self.agenda.after(trip, Event::Step(id, next));
            }
            Step::Ask => self.ask(id),
            Step::Answered => {
                let session = self.links[&id].session;
                let lease = self.context.lease().ok();
                // A late answer of an old session is never used.
                let Some(lease) = lease.filter(|lease| Some(lease.epoch()) == session) else {
                    return self.fails(id, Failure::SignerAway);
                };
                self.links.get_mut(&id).unwrap().lease = Some(lease);
                let after = if outbound { Duration::ZERO } else { trip };
                self.agenda.after(after, Event::Step(id, Step::Done));
            }
            Step::Done => self.shaken(id),
            Step::Unpark => {}
        }
    }

    /// P5: nobody asks a signer that is not there.
    fn ask(&mut self, id: LinkId) {
        let session = self.links[&id].session;
        if self.context.state().live() != session {
            return self.fails(id, Failure::SignerAway);
        }
        assert!(
            self.context.is_live() && session.is_some(),
            "P5: an absent signer is asked"
        );
        let slow = if self.random.u8(..100) == 0 { 20 } else { 1 };
        let takes = 10 * MILLI + up_to(&mut self.random, 100 * slow * MILLI);
        let step = if self.is_sick() {
            Step::Fails(Failure::Ours)
        } else {
            Step::Answered
        };
        self.agenda.after(takes, Event::Step(id, step));
    }

    fn shaken(&mut self, id: LinkId) {
        let link = self.links.get_mut(&id).unwrap();
        link.stage = Stage::Waiting;
        let (peer, persona, outbound) = (link.peer, link.persona, link.outbound);
        let is_dead = link.lease.as_ref().is_some_and(|lease| !lease.is_live());
        let temper = &self.tempers[peer];
        let slow = temper.silent && temper.round_trip > 300 * MILLI;
        let half = temper.round_trip / 2;
        let wire = Wire::new(peer, persona, half, !outbound, slow);
        self.wires.insert(id, wire);
        if self.manners(peer) != Manners::NoInit {
            self.agenda.after(half, Event::FarTurn(id));
        }
        self.tell(Told::Authenticated(id));
        if is_dead {
            self.reset(id, CloseReason::Lapse);
        }
    }

    /// The end of what never was a link.
    pub fn fails(&mut self, id: LinkId, failure: Failure) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if !matches!(link.stage, Stage::Shaking | Stage::Waiting) {
            return;
        }
        link.stage = Stage::Over;
        let outbound = link.outbound;
        self.hang_up(id, false);
        self.tell(if outbound {
            Told::DialFailed(id, failure)
        } else {
            Told::InboundFailed(id)
        });
    }

    // --- what the supervisor says ---

    fn blame(reason: CloseReason) -> Failure {
        match reason {
            CloseReason::SignerAway | CloseReason::HeldDown | CloseReason::Lapse => {
                Failure::SignerAway
            }
            _ => Failure::Duplicate,
        }
    }

    pub fn refuse(&mut self, id: LinkId, reason: CloseReason) {
        self.fails(id, Self::blame(reason));
    }

    pub fn close(&mut self, id: LinkId, reason: CloseReason) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        match link.stage {
            Stage::Shaking => {
                let step = Step::Fails(Self::blame(reason));
                self.agenda.after(MILLI, Event::Step(id, step));
            }
            Stage::Waiting | Stage::Admitted | Stage::Up => {
                link.close.get_or_insert(reason);
                self.wake(id);
            }
            Stage::Parked | Stage::Over => {}
        }
    }

    pub fn admit(&mut self, id: LinkId, tag: Tag) {
        let (now, seed) = (self.now(), self.machine_seed(id));
        let settings = self.settings;
        let Some(link) = self
            .links
            .get_mut(&id)
            .filter(|link| link.stage == Stage::Waiting)
        else {
            return;
        };
        link.stage = Stage::Admitted;
        let settings = Settings {
            persona: link.persona,
            ..settings
        };
        link.machine = Some(LinkMachine::new(settings, vec![BITCOIN_MAINNET], now, seed));
        link.control
            .push_back(Init::gossip(vec![BITCOIN_MAINNET]).encode());
        self.follow_tag(id, tag);
        self.wake(id);
        self.arm(id, false);
    }

    /// Into the signer's scope or out of it. Who cannot follow ends.
    pub fn follow_tag(&mut self, id: LinkId, tag: Tag) {
        let fresh = self.context.lease().ok();
        let link = self.links.get_mut(&id).unwrap();
        link.tag = tag;
        let held_is_live = link.lease.as_ref().is_some_and(Lease::is_live);
        match tag {
            Tag::ChannelBearing => {
                if link.lease.is_none() {
                    link.lease = fresh;
                }
                if !link.lease.as_ref().is_some_and(Lease::is_live) {
                    self.reset(id, CloseReason::Lapse);
                }
            }
            Tag::GossipOnly if link.lease.is_none() => {}
            Tag::GossipOnly if held_is_live && !link.carried => link.lease = None,
            Tag::GossipOnly if held_is_live => {
                link.close.get_or_insert(CloseReason::Demoted);
                self.wake(id);
            }
            Tag::GossipOnly => self.reset(id, CloseReason::Lapse),
        }
    }

    /// The connection is reset at once; the task only finds out.
    pub fn reset(&mut self, id: LinkId, reason: CloseReason) {
        let link = self.links.get_mut(&id).unwrap();
        if matches!(link.stage, Stage::Over | Stage::Parked | Stage::Shaking) {
            return;
        }
        link.close.get_or_insert(reason);
        link.outbox.end(reason);
        self.hang_up(id, false);
        self.wake(id);
    }

    /// Our end of the connection closes.
    fn hang_up(&mut self, id: LinkId, peacefully: bool) {
        let now = self.now();
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.ours_open) else {
            return;
        };
        wire.ours_open = false;
        wire.back.clear();
        let packet = if peacefully { Packet::Fin } else { Packet::Rst };
        wire.out.push(now.after(wire.trip), packet);
        self.arm(id, true);
    }

    // --- the task ---

    pub fn wake(&mut self, id: LinkId) {
        let by = up_to(&mut self.random, MILLI);
        if let Some(link) = self.links.get_mut(&id).filter(|link| !link.turning) {
            link.turning = true;
            self.agenda.after(by, Event::Turn(id));
        }
    }

    fn ambient(&self) -> Ambient {
        Ambient {
            now: self.now(),
            signer_away: !self.context.is_live(),
        }
    }

    pub fn turn(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.turning = false;
        match (link.stage, link.close) {
            (Stage::Waiting, Some(reason)) => self.fails(id, Self::blame(reason)),
            (Stage::Admitted | Stage::Up, _) => {
                if let Err(reason) = self.round(id) {
                    self.end(id, reason);
                }
            }
            _ => {}
        }
    }

    fn round(&mut self, id: LinkId) -> Result<(), CloseReason> {
        let ambient = self.ambient();
        let link = self.links.get_mut(&id).unwrap();
        if let Some(reason) = link.close {
            return Err(reason);
        }
        let machine = link.machine.as_mut().unwrap();
        if let Some(reason) = machine.age(ambient) {
            return Err(reason);
        }
        if std::mem::take(&mut link.probe) {
            link.probing = true;
            let due = machine.probe(ambient.now);
            Self::act(link, due)?;
        }
        self.pump(id)?;
        let link = self.links.get_mut(&id).unwrap();
        let due = link.machine.as_mut().unwrap().expire(ambient.now);
        if due != Due::Nothing {
            Self::act(link, due)?;
            self.pump(id)?;
        }
        self.set_alarm(id);
        Ok(())
    }

    fn act(link: &mut Link, due: Due) -> Result<(), CloseReason> {
        match due {
            Due::Nothing => {}
            Due::Ping { pong_bytes } => link.control.push_back(
                Ping {
                    num_pong_bytes: pong_bytes,
                    ignored: 0,
                }
                .encode(),
            ),
            Due::Close(reason) => return Err(reason),
        }
        Ok(())
    }

    /// Set anew only when it would ring too late.
    fn set_alarm(&mut self, id: LinkId) {
        let now = self.now();
        let link = self.links.get_mut(&id).unwrap();
        let deadline = link.machine.as_ref().unwrap().deadline();
        assert!(deadline > now, "what is due is done");
        if link.alarm.is_none_or(|at| at > deadline) {
            link.alarm = Some(deadline);
            self.agenda.at(deadline, Event::Alarm(id));
        }
    }

    pub fn alarm(&mut self, id: LinkId) {
        let now = self.now();
        let Some(link) = self
            .links
            .get_mut(&id)
            .filter(|link| link.alarm == Some(now))
        else {
            return;
        };
        link.alarm = None;
        if link
            .machine
            .as_ref()
            .is_some_and(|machine| machine.deadline() <= now)
        {
            self.turn(id);
        } else if matches!(link.stage, Stage::Admitted | Stage::Up) {
            self.set_alarm(id);
        }
    }

    fn is_dead(&self, id: LinkId) -> bool {
        self.links[&id]
            .lease
            .as_ref()
            .is_some_and(|lease| !lease.is_live())
    }

    /// Pongs, then our own messages, then the node's.
    fn pump(&mut self, id: LinkId) -> Result<(), CloseReason> {
        loop {
            let ambient = self.ambient();
            let link = self.links.get_mut(&id).unwrap();
            let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.ours_open) else {
                return Err(CloseReason::Io);
            };
            if wire.out.is_full() {
                wire.out.blocked = true;
                return Ok(());
            }
            if let Some(bytes) = link.pongs.pop_front() {
                let pong = Pong { ignored: bytes }.encode();
                self.write(id, pong, false)?;
                continue;
            }
            if let Some(message) = link.control.pop_front() {
                self.write(id, message, false)?;
                continue;
            }
            if link.promoting {
                return Ok(());
            }
            let machine = link.machine.as_ref().unwrap();
            let held = |message: &[u8]| {
                !link.on_record && machine.send(ambient, message) == Outbound::PassWithLease
            };
            match link.outbox.take_unless(held) {
                Taken::Nothing => {
                    link.outbox.settle();
                    return Ok(());
                }
                Taken::Held => {
                    link.promoting = true;
                    self.tell(Told::Promote(id));
                    return Ok(());
                }
                Taken::Message(message) => self.write_from_node(id, &message)?,
            }
        }
    }

    fn write_from_node(&mut self, id: LinkId, message: &[u8]) -> Result<(), CloseReason> {
        let ambient = self.ambient();
        let link = self.links.get_mut(&id).unwrap();
        let number = link.taken;
        link.taken += 1;
        let allowed = match link.machine.as_ref().unwrap().send(ambient, message) {
            Outbound::Pass => true,
            Outbound::PassWithLease => link.on_record && self.take_lease(id),
            Outbound::Refuse(_) => false,
        };
        if allowed {
            return self.write(id, message.to_vec(), true);
        }
        if self.is_dead(id) {
            return Err(CloseReason::Lapse);
        }
        let kind = MessageType::of(message).unwrap();
        self.links[&id].outbox.refuse_taken(kind.0);
        self.report.refused += 1;
        self.wires.get_mut(&id).unwrap().refused.push_back(number);
        Ok(())
    }

    fn take_lease(&mut self, id: LinkId) -> bool {
        let fresh = self.context.lease().ok();
        let link = self.links.get_mut(&id).unwrap();
        link.carried = true;
        if link.lease.is_none() {
            link.lease = fresh;
        }
        link.lease.as_ref().is_some_and(Lease::is_live)
    }

    /// The gate, and what no link of ours may ever say.
    fn write(&mut self, id: LinkId, message: Vec<u8>, nodes: bool) -> Result<(), CloseReason> {
        let live = self.context.state().live();
        let now = self.now();
        let link = &self.links[&id];
        if self.is_dead(id) {
            return Err(CloseReason::Lapse);
        }
        if let Some(lease) = &link.lease {
            assert_eq!(
                Some(lease.epoch()),
                live,
                "P1: a write under a session that is over"
            );
        }
        let kind = MessageType::of(&message).unwrap();
        if kind == MessageType::ERROR {
            assert!(
                nodes && live.is_some() && !link.persona,
                "P4: an error that nobody asked for"
            );
        }
        let on_channel = kind.plane() == Plane::Channel;
        if on_channel {
            assert!(
                link.lease.is_some(),
                "P6: a channel message without a lease: {kind:?}"
            );
            assert!(!link.persona, "a persona speaks of channels");
        }
        assert!(
            live.is_some() || !kind.needs_signer(),
            "P5: type {} leaves, and needs the signer",
            kind.0
        );
        let wire = self.wires.get_mut(&id).unwrap();
        let slow = if wire.slow { message.len() as u64 } else { 0 };
        let due = now
            .after(wire.trip)
            .after(Duration::from_micros(self.random.u64(..500) + 40 * slow));
        wire.out.seal(due, message, false);
        self.report.frames += 1;
        self.arm(id, true);
        Ok(())
    }

    /// The task's end. If its session is over, the reaper comes first.
    pub fn end(&mut self, id: LinkId, reason: CloseReason) {
        let is_dead = self.is_dead(id);
        let reaped = self.reaped();
        let link = self.links.get_mut(&id).unwrap();
        let lapsed = is_dead.then_some(CloseReason::Lapse);
        let reason = link.close.or(lapsed).unwrap_or(reason);
        if link
            .lease
            .as_ref()
            .is_some_and(|lease| is_dead && reaped < Some(lease.epoch()))
        {
            link.close = Some(reason);
            return;
        }
        link.outbox.close(reason);
        if !reason.is_abortive() {
            // Last words, as far as the kernel takes them at once.
            let _ = self.pump(id);
        }
        let link = self.links.get_mut(&id).unwrap();
        (link.stage, link.machine) = (Stage::Over, None);
        link.outbox.end(reason);
        self.hang_up(id, !reason.is_abortive());
        self.tell(Told::Ended(id, reason));
    }

    // --- what comes ---

    pub fn arrive(&mut self, id: LinkId) {
        let now = self.now();
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.back.armed = false;
        }
        let mut came = false;
        loop {
            let Some(wire) = self.wires.get(&id).filter(|wire| wire.ours_open) else {
                return;
            };
            let reads = self
                .links
                .get(&id)
                .is_some_and(|link| matches!(link.stage, Stage::Admitted | Stage::Up));
            // What the path holds back arrives when it is mended.
            if !reads || !self.path(wire.peer) {
                return;
            }
            let Some(packet) = self.wires.get_mut(&id).unwrap().back.pop(now) else {
                break;
            };
            came = true;
            let taken = match packet {
                Packet::Fin => Err(CloseReason::PeerClosed),
                Packet::Rst => Err(CloseReason::Io),
                Packet::Frame { forged: true, .. } => Err(CloseReason::Transport),
                Packet::Frame { number, bytes, .. } => {
                    let wire = self.wires.get_mut(&id).unwrap();
                    assert_eq!(
                        number, wire.back.opened,
                        "P2: a frame is lost or out of order"
                    );
                    wire.back.opened += 1;
                    self.report.frames += 1;
                    self.take(id, &bytes)
                }
            };
            if let Err(reason) = taken {
                return self.end(id, reason);
            }
        }
        self.arm(id, false);
        let Some(link) = self.links.get_mut(&id).filter(|_| came) else {
            return;
        };
        if std::mem::take(&mut link.probing) {
            self.tell(Told::Alive(id));
        }
        self.wake(id);
    }

    fn take(&mut self, id: LinkId, message: &[u8]) -> Result<(), CloseReason> {
        let ambient = self.ambient();
        if ambient.signer_away && self.is_dead(id) {
            return Err(CloseReason::Lapse);
        }
        let link = self.links.get_mut(&id).unwrap();
        let kind = MessageType::of(message).unwrap_or(MessageType(0));
        if kind.plane() != Plane::Control {
            link.active = ambient.now;
        }
        match link.machine.as_mut().unwrap().receive(ambient, message) {
            Received::Up(_) => self.came_up(id),
            Received::Deliver { lease } => {
                if lease && !self.take_lease(id) {
                    self.report.refused += 1;
                    return Err(CloseReason::SignerAway);
                }
                self.deliver(id, kind, message);
            }
            Received::Pong { bytes } => link.pongs.push_back(bytes),
            Received::Answer(answer) => link.control.push_back(answer),
            Received::Refused { warning, .. } => {
                link.control.extend(warning);
                self.report.refused += 1;
            }
            Received::Close {
                reason, warning, ..
            } => {
                assert!(link.control.len() < 5_000, "P9: answers pile up");
                link.control.extend(warning);
                return Err(reason);
            }
            _ => {}
        }
        Ok(())
    }

    /// P1, P2: to the node, under a live lease or none, and nothing is missing.
    fn deliver(&mut self, id: LinkId, kind: MessageType, message: &[u8]) {
        let live = self.context.state().live();
        let wall = self.wall();
        let link = self.links.get_mut(&id).unwrap();
        if let Some(lease) = &link.lease {
            assert_eq!(
                Some(lease.epoch()),
                live,
                "P1: a delivery under a session that is over"
            );
        }
        let away = live.is_none() || link.persona;
        assert!(
            !away || !kind.needs_signer(),
            "P5: type {} is delivered",
            kind.0
        );
        if let Some(number) = numbered(message) {
            assert_eq!(
                number, link.heard,
                "P2: a message is lost, repeated or out of order"
            );
            link.heard += 1;
            self.report.messages.1 += 1;
        }
        if kind.plane() == Plane::Gossip {
            self.last_gossip = Some(wall);
        }
    }

    fn came_up(&mut self, id: LinkId) {
        let link = self.links.get_mut(&id).unwrap();
        link.stage = Stage::Up;
        let for_gossip = link.persona || link.tag == Tag::GossipOnly;
        self.tell(Told::Up(id));
        let soon = up_to(&mut self.random, 10 * SECOND);
        self.agenda.after(soon, Event::NodeTurn(id));
        if for_gossip {
            let request = self.catch_up();
            self.links.get_mut(&id).unwrap().control.push_back(request);
        }
    }

    /// What a gossip link asks for as it comes up, whatever the wall clock says.
    fn catch_up(&self) -> Vec<u8> {
        let (wall, last) = (self.wall(), self.last_gossip);
        let since = catch_up::wanted_since(wall, last);
        let request = GossipTimestampFilter::since(BITCOIN_MAINNET, since).encode();
        let filter = GossipTimestampFilter::decode(&request).unwrap();
        let from = Duration::from_secs(u64::from(filter.first_timestamp));
        let least = wall.saturating_sub(limits::CATCH_UP_AT_LEAST);
        assert!(
            from < least,
            "LDK serves nothing to a filter of less than six hours"
        );
        assert!(
            last.is_none_or(|last| from < last),
            "gossip falls into a gap"
        );
        request
    }

    // --- the node ---

    pub fn node_turn(&mut self, id: LinkId) {
        let ambient = self.ambient();
        let Some(link) = self
            .links
            .get_mut(&id)
            .filter(|link| link.stage == Stage::Up)
        else {
            return;
        };
        let channel = link.tag == Tag::ChannelBearing;
        let (kind, count, size) = match self.random.u8(..100) {
            0..50 => (258, self.random.u64(1..10), 130),
            50..65 if channel => (133, self.random.u64(1..4), 90),
            // It speaks of a channel to a gossip peer now and then, and so says that there is one.
            65 => (133, 1, 90),
            66..68 => (17, 1, 90),
            68..80 => (32_769, 1, 40),
            // More than the queue holds.
            80 => (258, 40, 60_000),
            _ => (258, 0, 0),
        };
        for _ in 0..count {
            let link = self.links.get_mut(&id).unwrap();
            let message = numbered_message(kind, link.queued, size);
            let machine = link.machine.as_ref().unwrap();
            if matches!(machine.send(ambient, &message), Outbound::Refuse(_)) {
                self.report.refused += 1;
                continue;
            }
            // A full queue is an error to the sender, never a skip.
            if link.outbox.try_put(Bytes::from(message)).is_ok() {
                link.queued += 1;
                self.report.messages.0 += 1;
            }
        }
        self.wake(id);
        let next = super::script::between(&mut self.random, 5 * SECOND, 600 * SECOND);
        self.agenda.after(next, Event::NodeTurn(id));
    }

    /// P2, at the end: whatever was queued on a link that lives has arrived.
    pub fn check_all_arrived(&self) {
        for (id, link) in &self.links {
            let Some(wire) = self.wires.get(id).filter(|_| link.stage == Stage::Up) else {
                continue;
            };
            if wire.out.is_empty() && wire.far_open {
                let heard = wire.far.heard + wire.refused.len() as u64;
                assert_eq!(
                    heard, link.queued,
                    "P2: a message to peer {} is lost",
                    link.peer
                );
            }
        }
    }

    /// Puts the next arrival on the agenda.
    pub fn arm(&mut self, id: LinkId, far: bool) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let pipe = if far { &mut wire.out } else { &mut wire.back };
        if pipe.armed {
            return;
        }
        if let Some(due) = pipe.due() {
            pipe.armed = true;
            self.agenda.at(due, Event::Arrive(id, far));
        }
    }
}

/// A message whose first eight bytes after its type are its number.
pub fn numbered_message(kind: u16, number: u64, size: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(size + 10);
    message.extend_from_slice(&kind.to_be_bytes());
    if kind == 17 {
        // For some channel, with a text.
        message.extend_from_slice(&[7; 24]);
        message.extend_from_slice(&number.to_be_bytes());
        message.extend_from_slice(&[0, 0]);
        return message;
    }
    message.extend_from_slice(&number.to_be_bytes());
    message.resize(size, 0x55);
    message
}

/// The number of a message that has one.
pub fn numbered(message: &[u8]) -> Option<u64> {
    let kind = u16::from_be_bytes([*message.first()?, *message.get(1)?]);
    let at = match kind {
        258 | 133 | 32_769 => 2,
        17 => 26,
        _ => return None,
    };
    Some(u64::from_be_bytes(
        message.get(at..at + 8)?.try_into().ok()?,
    ))
}
