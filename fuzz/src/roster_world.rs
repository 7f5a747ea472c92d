//! The world around the supervisor's machine, which does what the drivers do: it dials when told to, reports how dials and links end,
//! brings strangers to the door, and takes the signer away and brings it back. What the machine is held to is in `promises`.
//!
//! Three drive it: the target `roster_ops` by the fuzzer's bytes, `tests/supervisor_machine.rs` by random numbers, and
//! `tests/models.rs` through every history of so many events. It needs the library and nothing else.
#![allow(
    dead_code,
    clippy::needless_pass_by_value,
    clippy::print_stderr,
    clippy::semicolon_if_nothing_returned,
    clippy::struct_excessive_bools,
    clippy::unchecked_time_subtraction,
    unreachable_pub,
    reason = "not every driver uses all, and the library's lints are for the library"
)]

// Named, because this file is a module of others too.
#[path = "roster_world/promises.rs"]
mod promises;

use pilotlight::address::KnownAddress;
use pilotlight::clock::Moment;
use pilotlight::link::{CloseReason, Direction, LinkId, Tag};
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::{EmbeddedSigner, Epoch, LapseReason, Signer, SignerContext};
use pilotlight::supervisor::machine::{Failure, Input, Policy, SupervisorMachine, Urgency};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// What a history is chosen by.
pub trait Choices {
    /// One of so many, of at most 256.
    fn below(&mut self, bound: usize) -> usize;
    fn flag(&mut self) -> bool;
    /// A number below this bound.
    fn number(&mut self, bound: u16) -> u16;
}

/// Sessions in one history, at the most.
const SESSIONS: usize = 208;

/// Eight peers, and our own key among theirs, so that both rules for duplicates are met.
static KEYS: LazyLock<(NodeId, Vec<NodeId>)> = LazyLock::new(|| {
    let key = |byte| LocalKey::from_bytes(&mut [byte; 32]).unwrap().node_id();
    let mut keys: Vec<NodeId> = (1..=9).map(key).collect();
    keys.sort();
    let own = keys.remove(4);
    (own, keys)
});

/// Epochs are the signer's to mint: one for each attach.
static EPOCHS: LazyLock<Vec<Epoch>> = LazyLock::new(|| {
    let key = || LocalKey::from_bytes(&mut [50; 32]).unwrap();
    let signer = Arc::new(EmbeddedSigner::from_key(key()));
    let context = SignerContext::new(signer.node_id());
    let mint = |_| {
        let challenge = context.challenge(&mut [9; 32]).unwrap();
        let answer = key().ecdh(&challenge.point());
        let proof = challenge.verify(answer).unwrap();
        let signer = Arc::clone(&signer) as Arc<dyn Signer>;
        let session = context.attach(proof, signer).unwrap();
        let epoch = session.epoch();
        let _ = session.lapse(LapseReason::Requested);
        epoch
    };
    (0..SESSIONS).map(mint).collect()
});

fn address(index: usize) -> KnownAddress {
    SocketAddr::from(([127, 0, 0, 1], 9000 + u16::try_from(index).unwrap())).into()
}

/// A link as the driver would have it: what has been done, and what the machine has said to it.
#[derive(Debug, Clone, Copy)]
pub struct WorldLink {
    pub peer: NodeId,
    pub outbound: bool,
    pub stage: Stage,
    pub persona: bool,
    /// Under the node's key without its signer.
    pub cached: bool,
    /// The session that was live when the dial began or the peer connected; a lapse of it ends the link or the handshake.
    session: Option<usize>,
    pub tag: Tag,
    pub close: Option<CloseReason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Dialing,
    /// Authenticated; waits for the verdict.
    Waiting,
    Refused(CloseReason),
    Admitted,
    Up,
}

/// Dials without a signer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Met {
    /// As the node, by the key at hand.
    pub as_node: u64,
    /// As a persona, of a channel peer.
    pub channel_peers: u64,
}

/// The world around the machine.
#[derive(Clone)]
pub struct World<C> {
    pub machine: SupervisorMachine,
    pub choices: C,
    pub now: Moment,
    pub links: BTreeMap<LinkId, WorldLink>,
    next_inbound: u64,
    epochs: &'static [Epoch],
    /// Sessions begun; the last of them is live if `live`.
    sessions: usize,
    pub live: bool,
    pub behind: bool,
    pub draining: bool,
    pub known: Vec<NodeId>,
    pub wanted: BTreeSet<NodeId>,
    pub relit: usize,
    /// The greatest number of a persona.
    pub personas: u64,
    /// Gossip links missing, as was last said.
    missing: usize,
    pub policy: Policy,
    pub met: Met,
    /// Whether the history is printed, for who looks into a failure.
    pub told: bool,
}

impl<C: Choices> World<C> {
    /// `seed` is that of the machine, which spreads its waits by it.
    pub fn new(policy: Policy, seed: u64, choices: C) -> Self {
        Self {
            machine: SupervisorMachine::new(KEYS.0, seed).with_policy(policy),
            choices,
            now: Moment::START,
            links: BTreeMap::new(),
            next_inbound: 1,
            epochs: &EPOCHS,
            sessions: 0,
            live: false,
            behind: false,
            draining: false,
            known: KEYS.1.clone(),
            wanted: BTreeSet::new(),
            relit: 0,
            personas: 0,
            missing: 0,
            policy,
            met: Met::default(),
            told: std::env::var_os("PILOTLIGHT_FUZZ_TELL").is_some(),
        }
    }

    pub fn feed(&mut self, input: Input) {
        let (live, behind) = (self.live, self.behind);
        let mut outputs = Vec::new();
        if self.told {
            eprintln!("{:?} {input:?}", self.now.since_start());
        }
        self.machine.handle(self.now, input, &mut outputs);
        for output in outputs {
            if self.told {
                eprintln!("    {output:?}");
            }
            self.obey(output, live, behind);
        }
        self.check();
    }

    fn pick_peer(&mut self) -> (usize, NodeId) {
        let index = self.choices.below(self.known.len());
        (index, self.known[index])
    }

    pub fn step(&mut self) {
        match self.choices.below(100) {
            0..8 => self.want(),
            8..10 => {
                let (_, peer) = self.pick_peer();
                self.unwant(peer);
            }
            10..15 => {
                let (_, peer) = self.pick_peer();
                let tag = self.random_tag();
                self.feed(Input::Tag(peer, tag));
            }
            15..17 => {
                let declared = self
                    .known
                    .clone()
                    .into_iter()
                    .filter(|_| self.choices.flag())
                    .collect();
                self.feed(Input::Declare(declared));
            }
            17..20 => {
                let (_, peer) = self.pick_peer();
                let urgency = self.random_urgency();
                self.feed(Input::Urgency(peer, urgency));
            }
            20..26 => self.switch_signer(),
            26 => {
                // As the driver: nobody is behind who is not there.
                self.behind = self.live && !self.behind;
                self.feed(Input::Behind(self.behind));
            }
            27..37 => self.pass_time(),
            37..47 => self.stranger(),
            97 => {
                let height = 799_000 + u32::from(self.choices.number(2000));
                self.feed(Input::Height(height));
            }
            98 => self.recall(),
            99 => self.be_of_use(),
            _ => self.progress(),
        }
    }

    fn want(&mut self) {
        let (index, _) = self.pick_peer();
        let tag = if self.choices.flag() {
            Some(self.random_tag())
        } else {
            None
        };
        let heavy = self.choices.flag();
        let weight = heavy.then(|| u32::from(self.choices.number(5)));
        self.ask_for(index, tag, weight);
    }

    /// The node wants one of the known peers.
    pub fn ask_for(&mut self, index: usize, tag: Option<Tag>, weight: Option<u32>) {
        let peer = self.known[index];
        self.wanted.insert(peer);
        let addresses = vec![address(index), address(index + 100)];
        self.feed(Input::Want {
            peer,
            addresses,
            tag,
            weight,
        });
    }

    pub fn unwant(&mut self, peer: NodeId) {
        self.wanted.remove(&peer);
        self.feed(Input::Unwant(peer));
    }

    /// What an earlier process has seen of a peer is told, at any time.
    fn recall(&mut self) {
        let (_, peer) = self.pick_peer();
        let seconds = u64::from(self.choices.number(5000));
        let seen_ago = self.choices.flag().then(|| Duration::from_secs(seconds));
        let failures = u32::from(self.choices.number(20));
        self.feed(Input::Recall {
            peer,
            seen_ago,
            failures,
        });
        let unix = self.now.since_start() + Duration::from_secs(1_700_000_000);
        if let Some(sighting) = self.machine.sighting(self.now, unix, peer) {
            assert!(
                sighting.node_id == peer
                    && sighting.last_seen.is_none_or(|at| at <= unix.as_secs())
            );
        }
    }

    /// A link brings more than pings and pongs; or one that is being dialled turns out to have no way.
    fn be_of_use(&mut self) {
        let now = self.now;
        let links: Vec<(LinkId, Stage)> = self
            .links
            .iter()
            .map(|(id, link)| (*id, link.stage))
            .collect();
        if links.is_empty() {
            return;
        }
        match links[self.choices.below(links.len())] {
            (id, Stage::Up) => self.feed(Input::Active(id, now)),
            (id, Stage::Dialing) if !self.is_stale(&self.links[&id]) => {
                self.fail(id, Failure::NoWay)
            }
            (id, _) => self.advance(id, 9),
        }
    }

    fn random_tag(&mut self) -> Tag {
        if self.choices.flag() {
            Tag::ChannelBearing
        } else {
            Tag::GossipOnly
        }
    }

    fn random_urgency(&mut self) -> Urgency {
        Urgency {
            pending_htlcs: u32::from(self.choices.number(3)),
            earliest_expiry_height: 800_000 + u32::from(self.choices.number(10)),
            csv_delay: self.choices.number(2000),
        }
    }

    pub fn switch_signer(&mut self) {
        if self.live {
            (self.live, self.behind) = (false, false);
            self.feed(Input::Lapsed);
            // Whoever waited for a place was authenticated under the session that is over.
            let waits = |link: &WorldLink| link.stage == Stage::Waiting;
            assert!(
                !self.links.values().any(waits),
                "a contender outlives a lapse"
            );
        } else if self.sessions < self.epochs.len() {
            self.sessions += 1;
            self.live = true;
            let epoch = self.epochs[self.sessions - 1];
            self.feed(Input::Attached(epoch));
        }
    }

    /// To the deadline, or somewhere.
    fn pass_time(&mut self) {
        let deadline = self.machine.deadline();
        self.now = match deadline {
            Some(at) if self.choices.flag() => self.now.max(at),
            _ => self
                .now
                .after(Duration::from_millis(u64::from(self.choices.number(3000)))),
        };
        self.tick();
    }

    pub fn tick(&mut self) {
        self.feed(Input::Tick);
        assert!(
            self.machine.deadline().is_none_or(|at| at > self.now),
            "what was due is done"
        );
    }

    /// A link's session is not the one that is live.
    pub fn is_stale(&self, link: &WorldLink) -> bool {
        !self.live || link.session != Some(self.sessions)
    }

    /// A peer dials us. The listener lets nobody in without a signer, but a lapse may come just after a handshake.
    fn stranger(&mut self) {
        if !self.live && !self.policy.cached_identity && self.choices.below(4) > 0 {
            return;
        }
        let (_, peer) = self.pick_peer();
        self.knock(peer);
    }

    pub fn knock(&mut self, peer: NodeId) {
        let link = LinkId::new(self.next_inbound);
        self.next_inbound += 2;
        let session = Some(self.sessions);
        let new = WorldLink {
            peer,
            outbound: false,
            persona: false,
            cached: !self.live,
            stage: Stage::Waiting,
            session,
            tag: Tag::GossipOnly,
            close: None,
        };
        self.links.insert(link, new);
        self.feed(Input::Authenticated {
            link,
            peer,
            direction: Direction::Inbound,
            address: address(200).address,
        });
    }

    /// Something happens to one of the links.
    fn progress(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let index = self.choices.below(self.links.len());
        let id = *self.links.keys().nth(index).unwrap();
        let fate = self.choices.below(10);
        self.advance(id, fate);
    }

    pub fn advance(&mut self, id: LinkId, fate: usize) {
        let link = self.links[&id];
        let stale = !self.live || link.session != Some(self.sessions);
        // A key at hand asks no signer for the handshake; a channel does, whatever it came up under.
        let lapsed = stale && !link.persona && (!link.cached || link.tag == Tag::ChannelBearing);
        match link.stage {
            Stage::Dialing if lapsed => self.fail(id, Failure::SignerAway),
            Stage::Dialing if link.close.is_some() => self.fail(id, Failure::Duplicate),
            Stage::Dialing => match fate {
                0..2 => self.fail(id, Failure::Unreachable),
                2 if self.choices.flag() => self.fail(id, Failure::Handshake),
                2 if self.choices.flag() => self.fail(id, Failure::WrongKey),
                2 => self.fail(id, Failure::Ours),
                _ => {
                    self.links.get_mut(&id).unwrap().stage = Stage::Waiting;
                    let direction = Direction::Outbound;
                    self.feed(Input::Authenticated {
                        link: id,
                        peer: link.peer,
                        direction,
                        address: address(0).address,
                    });
                }
            },
            // Only the verdict gets it out of here.
            Stage::Waiting => {}
            Stage::Refused(reason) => {
                let away = matches!(reason, CloseReason::SignerAway | CloseReason::HeldDown);
                self.fail(
                    id,
                    if away {
                        Failure::SignerAway
                    } else {
                        Failure::Duplicate
                    },
                );
            }
            Stage::Admitted | Stage::Up if lapsed && link.tag == Tag::ChannelBearing => {
                self.end(id, CloseReason::Lapse)
            }
            Stage::Admitted if link.close.is_some() && fate < 8 => {
                self.end(id, link.close.unwrap())
            }
            Stage::Admitted if fate < 2 => self.end(id, CloseReason::InitTimeout),
            Stage::Admitted => {
                self.links.get_mut(&id).unwrap().stage = Stage::Up;
                self.feed(Input::Up(id));
            }
            Stage::Up => match link.close {
                Some(reason) => self.end(id, reason),
                None if fate < 3 => self.end(id, CloseReason::PeerClosed),
                None => self.feed(Input::Alive(id)),
            },
        }
    }

    /// A link that was never admitted is over.
    pub fn fail(&mut self, link: LinkId, failure: Failure) {
        let gone = self.links.remove(&link).unwrap();
        self.feed(if gone.outbound {
            Input::DialFailed { link, failure }
        } else {
            Input::Withdrawn(link)
        });
    }

    pub fn end(&mut self, link: LinkId, reason: CloseReason) {
        self.links.remove(&link).unwrap();
        self.feed(Input::Ended { link, reason });
    }
}
