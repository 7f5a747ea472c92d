//! What the world holds the supervisor's machine to: each of its outputs as it comes, everything after every input, and in the end that
//! whoever is wanted is up.

use super::{Choices, Stage, World, WorldLink};
use pilotlight::limits;
use pilotlight::link::{CloseReason, LinkId, Tag};
use pilotlight::node_id::NodeId;
use pilotlight::supervisor::machine::{Failure, Input, Output, PeerState, Policy};

impl<C: Choices> World<C> {
    /// Does what the machine says, as the drivers would, and looks whether it may say so. The signer as it was before the input.
    pub(super) fn obey(&mut self, output: Output, live: bool, behind: bool) {
        match output {
            Output::Dial {
                link,
                peer,
                tag,
                persona,
                ..
            } => {
                assert!(!behind, "a new dial while the signer is behind");
                self.personas = self.personas.max(persona.unwrap_or_default());
                self.dial(link, peer, tag, persona.is_some(), live);
            }
            Output::Admit { link, tag } => self.admit(link, tag, live),
            Output::Refuse { link, reason } => {
                let link = self.links.get_mut(&link).unwrap();
                assert_eq!(
                    link.stage,
                    Stage::Waiting,
                    "a verdict for a link that waits for none"
                );
                link.stage = Stage::Refused(reason);
            }
            Output::Close { link, reason } => {
                let link = self.links.get_mut(&link).expect("what is closed is there");
                link.close.get_or_insert(reason);
            }
            Output::Probe(link) => assert!(self.links.contains_key(&link)),
            Output::Retag { link, tag } => self.retag(link, tag, live),
            Output::Relit { up, failed, .. } => {
                self.relit += 1;
                assert!(up + failed > 0 && up + failed <= self.known.len());
            }
            Output::FloorMissing { missing, wanted } => {
                assert!(missing != self.missing && missing <= wanted);
                assert!(missing == 0 || (!live && !self.draining));
                self.missing = missing;
            }
            Output::Failed {
                retry_in: Some(delay),
                ..
            } => {
                assert!(delay >= limits::BACKOFF_FIRST / 2 && delay <= limits::BACKOFF_MAX);
            }
            _ => {}
        }
    }

    fn dial(&mut self, link: LinkId, peer: NodeId, tag: Tag, persona: bool, live: bool) {
        assert!(!self.draining, "a dial while draining");
        self.may_dial(live, peer, tag, persona);
        assert!(
            tag == Tag::GossipOnly || self.machine.held_down_until().is_none(),
            "a channel peer is dialled during a hold-down"
        );
        assert!(self.wanted.contains(&peer), "a dial that nobody wants");
        assert!(link.get().is_multiple_of(2));
        let new = WorldLink {
            peer,
            outbound: true,
            persona,
            cached: !persona && !live,
            stage: Stage::Dialing,
            session: Some(self.sessions),
            tag,
            close: None,
        };
        assert!(
            self.links.insert(link, new).is_none(),
            "a link number is used twice"
        );
    }

    fn admit(&mut self, link: LinkId, tag: Tag, live: bool) {
        assert!(!self.draining, "admitted while draining");
        assert!(
            live || tag == Tag::GossipOnly,
            "a channel peer was admitted without a signer"
        );
        assert!(
            tag == Tag::GossipOnly || self.machine.held_down_until().is_none(),
            "a channel peer was admitted during a hold-down"
        );
        let WorldLink { peer, persona, .. } = self.links[&link];
        let rivals = |link: &&WorldLink| {
            link.peer == peer
                && link.persona == persona
                && matches!(link.stage, Stage::Admitted | Stage::Up)
        };
        assert!(
            !persona || (!live && tag == Tag::GossipOnly),
            "a persona is let in while the signer is there, or promoted"
        );
        assert_eq!(
            self.links.values().filter(rivals).count(),
            0,
            "two incumbents"
        );
        let link = self.links.get_mut(&link).unwrap();
        assert_eq!(
            link.stage,
            Stage::Waiting,
            "a verdict for a link that waits for none"
        );
        (link.stage, link.tag) = (Stage::Admitted, tag);
        if tag == Tag::ChannelBearing && (link.cached || !link.outbound) {
            // Its lease is taken now: no channel was spoken of before.
            link.session = Some(self.sessions);
        }
    }

    fn retag(&mut self, link: LinkId, tag: Tag, live: bool) {
        let link = self.links.get_mut(&link).unwrap();
        assert!(!link.persona, "a persona's link is never promoted");
        let lapsed = !live || link.session != Some(self.sessions);
        if link.tag == Tag::ChannelBearing && lapsed {
            // What the reaper comes for it comes for, whatever the tag says by then.
            link.close.get_or_insert(CloseReason::Lapse);
        }
        link.tag = tag;
        // As the driver does it: without a signer the link cannot move into its scope.
        if tag == Tag::ChannelBearing && !live {
            link.close.get_or_insert(CloseReason::SignerAway);
        }
    }

    /// With a signer everybody is dialled as the node. Without, gossip peers alone are, where its key is at hand; where it is not, a
    /// persona dials where personas may, and a channel peer only if told to.
    fn may_dial(&mut self, live: bool, peer: NodeId, tag: Tag, persona: bool) {
        if live {
            assert!(!persona, "a persona dials though the signer is there");
            return;
        }
        assert_eq!(
            tag,
            Tag::GossipOnly,
            "a channel is dialled without a signer"
        );
        let gossip = self.machine.tag_of(peer) == Tag::GossipOnly;
        let Policy {
            cached_identity,
            personas,
            channel_peers,
            ..
        } = self.policy;
        if persona {
            assert!(personas, "a persona dials though none may");
            assert!(
                !cached_identity,
                "a persona dials though the key is at hand"
            );
            assert!(gossip || channel_peers, "a persona dials a channel peer");
            self.met.channel_peers += u64::from(!gossip);
        } else {
            assert!(cached_identity, "a dial as the node without its key");
            assert!(gossip, "a channel peer meets the node without its signer");
            self.met.as_node += 1;
        }
    }

    /// Whether a peer may have a link while no signer is there.
    fn may_be_met(&self, peer: NodeId) -> bool {
        let Policy {
            cached_identity,
            personas,
            channel_peers,
            ..
        } = self.policy;
        let gossip = self.machine.tag_of(peer) == Tag::GossipOnly;
        if cached_identity {
            gossip
        } else {
            personas && (gossip || channel_peers)
        }
    }

    /// What must hold after every input.
    pub(super) fn check(&self) {
        let dialing = self
            .links
            .values()
            .filter(|link| link.outbound && link.stage != Stage::Up)
            .count();
        assert_eq!(
            self.machine.dialing(),
            dialing,
            "places for dials: taken, and dials under way"
        );
        assert!(dialing <= limits::DIALS_IN_FLIGHT);
        let mut due = Vec::new();
        for (id, peer) in self.machine.peers() {
            due.extend(peer.due());
            self.check_links_of(id, peer.state(), peer.link(), peer.persona_link());
            self.check_state_of(id, peer.state());
        }
        let due = due
            .into_iter()
            .chain(self.machine.held_down_until())
            .chain(self.machine.floor_due());
        assert_eq!(
            self.machine.deadline(),
            due.min().filter(|_| !self.draining),
            "the deadline is the earliest of the peers', or the end of the hold-down, and in a drain there is none"
        );
        self.check_load();
    }

    /// A peer has one link of the node's and one of a persona's, and the machine knows which.
    fn check_links_of(
        &self,
        id: NodeId,
        state: PeerState,
        link: Option<LinkId>,
        persona_link: Option<LinkId>,
    ) {
        let incumbents: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| {
                link.peer == id
                    && !link.persona
                    && matches!(link.stage, Stage::Admitted | Stage::Up)
            })
            .map(|(link, _)| *link)
            .collect();
        let persona = self
            .links
            .iter()
            .find(|(_, link)| link.peer == id && link.persona)
            .filter(|(_, link)| !matches!(link.stage, Stage::Refused(_)) || !self.live);
        let persona_is_up = persona.is_some_and(|(_, link)| link.stage == Stage::Up);
        if let Some((link, _)) = persona {
            assert_eq!(persona_link, Some(*link), "the persona's link");
        }
        assert!(incumbents.len() <= 1, "two incumbents");
        assert_eq!(
            link,
            incumbents.first().copied(),
            "the admitted link is the incumbent"
        );
        if let Some(link) = incumbents.first() {
            assert_eq!(self.machine.owner(*link), Some(id));
            assert_eq!(
                state == PeerState::Up,
                self.links[link].stage == Stage::Up || persona_is_up
            );
        }
    }

    /// A peer is in a state that fits the signer and the places for dials.
    fn check_state_of(&self, id: NodeId, state: PeerState) {
        if self.wanted.contains(&id) && !self.draining {
            assert_ne!(state, PeerState::Idle, "a wanted peer is up or on its way");
        }
        if !self.live {
            let waits = matches!(state, PeerState::Awaited | PeerState::Backoff);
            let speaks = self.policy.cached_identity && self.may_be_met(id);
            assert!(
                !waits || speaks,
                "without a signer a dial as the node is held, not timed"
            );
            assert!(
                !speaks || state != PeerState::Held,
                "held though the key is at hand"
            );
        }
        if state == PeerState::Awaited {
            assert!(
                self.behind || self.machine.dialing() == limits::DIALS_IN_FLIGHT,
                "awaited though a place is free"
            );
        }
    }

    /// The machine holds no more than there is, and every link is somebody's.
    fn check_load(&self) {
        let load = self.machine.load();
        assert!(
            load.links <= self.links.len(),
            "what is no link any more is held"
        );
        assert!(load.peers <= self.known.len() && load.queue <= load.peers);
        assert_eq!(self.machine.is_behind(), self.behind);
        for (id, link) in &self.links {
            let owned = self.machine.owner(*id) == Some(link.peer);
            assert!(
                owned || matches!(link.stage, Stage::Refused(_)),
                "a link that nobody owns"
            );
        }
    }

    /// No signer comes, and every peer behaves: then the gossip floor must come back as far as there are peers for it, within seconds of
    /// the last failure's wait.
    pub fn settle_away(&mut self) {
        if self.live {
            self.switch_signer();
        }
        let floor = self.policy.gossip_floor;
        for _ in 0..10_000 {
            let moving = self.links.iter().find(|(_, link)| {
                let stale = !link.persona && link.tag == Tag::ChannelBearing;
                let busy = link.stage != Stage::Up || link.close.is_some() || stale;
                busy && link.stage != Stage::Waiting
            });
            match (moving.map(|(id, _)| *id), self.machine.deadline()) {
                (Some(id), _) => self.advance(id, 9),
                (None, Some(at)) => {
                    self.now = self.now.max(at);
                    self.feed(Input::Tick);
                }
                (None, None) => break,
            }
        }
        let may_be_met = |id: &&NodeId| self.may_be_met(**id);
        let candidates = self.wanted.iter().filter(may_be_met).count();
        let gossip = |id| self.policy.channel_peers || self.machine.tag_of(id) == Tag::GossipOnly;
        let up = self
            .machine
            .peers()
            .filter(|(id, peer)| gossip(*id) && peer.state() == PeerState::Up)
            .count();
        let least = if self.policy.cached_identity {
            candidates
        } else {
            floor.min(candidates)
        };
        assert!(
            up >= least,
            "{up} gossip links; the floor is {floor}, and there are {candidates} peers for it"
        );
        assert_eq!(
            self.missing,
            floor.saturating_sub(up),
            "what is missing is told"
        );
        let hours = self.now.since_start().as_secs() / 3600 + 1;
        assert!(self.personas <= hours * limits::PERSONAS_NEW as u64);
    }

    /// A signer comes and stays, and every peer behaves: then everybody wanted must come up.
    pub fn settle(&mut self) {
        if !self.live {
            self.switch_signer();
        }
        self.behind = false;
        self.feed(Input::Behind(false));
        for _ in 0..10_000 {
            let busy: Vec<LinkId> = self
                .links
                .iter()
                .filter(|(_, link)| link.stage != Stage::Up || link.close.is_some())
                .map(|(id, _)| *id)
                .collect();
            let stale: Vec<LinkId> = self
                .links
                .iter()
                .filter(|(_, link)| {
                    link.session != Some(self.sessions) && link.tag == Tag::ChannelBearing
                })
                .map(|(id, _)| *id)
                .collect();
            let moving: Vec<LinkId> = busy
                .into_iter()
                .chain(stale)
                .filter(|id| self.links[id].stage != Stage::Waiting)
                .collect();
            match moving.first() {
                Some(id) => self.advance(*id, 9),
                None if self.machine.deadline().is_some() => {
                    self.now = self.now.max(self.machine.deadline().unwrap());
                    self.feed(Input::Tick);
                }
                None => break,
            }
        }
        let personas = self.links.values().filter(|link| link.persona).count();
        assert_eq!(
            personas, 0,
            "personas stay though every peer has a link of the node's own"
        );
        for (id, peer) in self
            .machine
            .peers()
            .filter(|(id, _)| self.wanted.contains(id))
        {
            assert_eq!(
                peer.state(),
                PeerState::Up,
                "{id} is wanted, everything works, and it is not up"
            );
        }
    }

    /// The node drains, while all goes on around it.
    pub fn drain(&mut self) {
        self.begin_drain();
        for _ in 0..200 {
            self.step();
        }
        self.finish_drain();
    }

    pub fn begin_drain(&mut self) {
        self.draining = true;
        self.feed(Input::Drain);
    }

    /// Nothing is timed any more, and whatever is left has been told to close.
    pub fn finish_drain(&mut self) {
        assert_eq!(self.machine.deadline(), None);
        while let Some((id, link)) = self.links.iter().next().map(|(id, link)| (*id, *link)) {
            assert!(
                link.close.is_some() || matches!(link.stage, Stage::Refused(_)),
                "{link:?} is not closed by the drain"
            );
            match link.stage {
                Stage::Dialing | Stage::Refused(_) => self.fail(id, Failure::Duplicate),
                Stage::Waiting => panic!("no verdict in a drain"),
                Stage::Admitted | Stage::Up => self.end(id, CloseReason::Draining),
            }
        }
        assert_eq!(self.machine.dialing(), 0);
    }
}
