//! The modes, and all peers: the supervisor's machine with two peers, one whose key is smaller than ours and one whose key is greater,
//! through every history of so many events. The world around it, and what is checked after each event (P4 to P9), is the fuzzer's.
//!
//! From every state that is met, two futures are followed: no signer comes, and the gossip floor is back (P7); one comes and stays, and
//! every wanted peer is up (P8). From a state of the drain, everything closes.

use super::canon::canonical;
use super::roster_world::{Choices, Stage, World, WorldLink};
use super::search::Model;
use pilotlight::link::{LinkId, Tag};
use pilotlight::node_id::NodeId;
use pilotlight::supervisor::machine::{Failure, Input, Policy};

/// Nothing is left to chance.
#[derive(Clone)]
struct Certain;

impl Choices for Certain {
    fn below(&mut self, _: usize) -> usize {
        unreachable!("a choice that is no step")
    }

    fn flag(&mut self) -> bool {
        unreachable!("a choice that is no step")
    }

    fn number(&mut self, _: u16) -> u16 {
        unreachable!("a choice that is no step")
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// The signer comes, or goes.
    Signer,
    /// The signer is behind, or no more.
    Behind,
    /// Time passes until something is due.
    Due,
    /// A second passes, or less if something is due before.
    Second,
    /// A peer dials us.
    Knock(NodeId),
    /// The node says the other thing of a peer.
    Tag(NodeId, Tag),
    /// The node wants a peer, or no more.
    Want(usize),
    /// A dial, a handshake or a link goes well.
    Well(LinkId),
    /// It does not.
    Badly(LinkId),
    /// Somebody else answers where the peer should.
    Stranger(LinkId),
    Drain,
}

#[derive(Clone)]
pub struct Roster(World<Certain>);

impl Roster {
    /// A channel peer and a gossip peer are wanted, and there is no signer yet.
    pub fn new(policy: Policy) -> Self {
        let mut world = World::new(policy, 1, Certain);
        // The neighbours of our own key in the order of keys.
        world.known = world.known[3..5].to_vec();
        let channel_peer = world.known[0];
        world.feed(Input::Declare(vec![channel_peer]));
        world.ask_for(0, Some(Tag::ChannelBearing), None);
        world.ask_for(1, Some(Tag::GossipOnly), None);
        Self(world)
    }

    /// The same, and later: the signer is there, both peers are up.
    pub fn lit(policy: Policy) -> Self {
        let mut roster = Self::new(policy);
        roster.0.switch_signer();
        roster.0.settle();
        roster
    }

    fn link_steps(&self, id: LinkId, link: &WorldLink, steps: &mut Vec<Step>) {
        match link.stage {
            Stage::Waiting => {}
            Stage::Refused(_) => steps.push(Step::Well(id)),
            Stage::Dialing if self.0.is_stale(link) && !link.persona && !link.cached => {
                steps.push(Step::Well(id));
            }
            Stage::Dialing => steps.extend([Step::Well(id), Step::Badly(id), Step::Stranger(id)]),
            Stage::Admitted | Stage::Up => steps.extend([Step::Well(id), Step::Badly(id)]),
        }
    }
}

impl Model for Roster {
    type Step = Step;

    fn steps(&self) -> Vec<Step> {
        let world = &self.0;
        let mut steps = vec![Step::Signer];
        if world.live {
            steps.push(Step::Behind);
        }
        if world.machine.deadline().is_some() {
            steps.push(Step::Due);
        }
        steps.push(Step::Second);
        for (index, peer) in world.known.iter().enumerate() {
            let links = world.links.values().filter(|link| link.peer == *peer);
            // A third link of a peer at once teaches nothing that the second does not.
            if links.count() < 3 && (world.live || world.policy.cached_identity) {
                steps.push(Step::Knock(*peer));
            }
            steps.push(Step::Tag(
                *peer,
                match world.machine.tag_of(*peer) {
                    Tag::GossipOnly => Tag::ChannelBearing,
                    Tag::ChannelBearing => Tag::GossipOnly,
                },
            ));
            steps.push(Step::Want(index));
        }
        for (id, link) in &world.links {
            self.link_steps(*id, link, &mut steps);
        }
        if !world.draining {
            steps.push(Step::Drain);
        }
        steps
    }

    fn take(&mut self, step: &Step) {
        let world = &mut self.0;
        match *step {
            Step::Signer => world.switch_signer(),
            Step::Behind => {
                world.behind = !world.behind;
                world.feed(Input::Behind(world.behind));
            }
            Step::Due => {
                let due = world.machine.deadline().unwrap();
                world.now = world.now.max(due);
                world.tick();
            }
            Step::Second => {
                let later = world.now.after(std::time::Duration::from_secs(1));
                let due = world.machine.deadline().unwrap_or(later);
                world.now = due.min(later).max(world.now);
                world.tick();
            }
            Step::Knock(peer) => world.knock(peer),
            Step::Tag(peer, tag) => world.feed(Input::Tag(peer, tag)),
            Step::Want(index) => {
                let peer = world.known[index];
                if world.wanted.contains(&peer) {
                    world.unwant(peer);
                } else {
                    world.ask_for(index, None, None);
                }
            }
            Step::Well(link) => world.advance(link, 9),
            Step::Badly(link) => world.advance(link, 0),
            Step::Stranger(link) => world.fail(link, Failure::WrongKey),
            Step::Drain => world.begin_drain(),
        }
    }

    fn canonical(&self) -> String {
        let world = &self.0;
        let links: Vec<(LinkId, bool, WorldLink)> = world
            .links
            .iter()
            .map(|(id, link)| (*id, world.is_stale(link), *link))
            .collect();
        let text = format!(
            "({:?}, {links:?}, {}, {}, {}, {:?})",
            world.machine, world.live, world.behind, world.draining, world.wanted
        );
        // What the dice will show, the numbers that are given next, and which session it is.
        let dropped = ["random", "lot", "next_link", "epoch", "session", "own_key"];
        canonical(&text, world.now.since_start(), &dropped)
    }

    fn look_ahead(&self) {
        if self.0.draining {
            let mut end = self.0.clone();
            return end.finish_drain();
        }
        let mut nobody_comes = self.0.clone();
        nobody_comes.settle_away();
        let mut somebody_stays = self.0.clone();
        somebody_stays.settle();
    }
}
