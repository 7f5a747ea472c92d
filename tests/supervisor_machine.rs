//! The supervisor's machine: its transition table, printed and compared with `tests/tables/supervisor.txt` (after a change of
//! policy, run with `PILOTLIGHT_BLESS=1` and review the file's diff), and what must hold after every input of long random
//! histories, which are replayed from their seed.
#![allow(
    clippy::print_stdout,
    clippy::redundant_closure_for_method_calls,
    clippy::semicolon_if_nothing_returned,
    clippy::too_many_lines,
    clippy::similar_names,
    clippy::match_wild_err_arm,
    clippy::needless_pass_by_value,
    clippy::single_match_else,
    clippy::unchecked_time_subtraction,
    reason = "a test prints its seed and its figures, and tells its story in one go"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../fuzz/src/roster_world.rs"]
mod roster_world;

use fastrand::Rng;
use pilotlight::address::{KnownAddress, OnionService, PeerAddress};
use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::link::{CloseReason, Direction, LinkId, Tag};
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::{EmbeddedSigner, Epoch, LapseReason, Signer, SignerContext};
use pilotlight::supervisor::machine::{
    Failure, Input, Output, PeerState, Policy, SupervisorMachine, Urgency,
};
use roster_world::{Choices, World};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

/// Our own key: neither the smallest nor the greatest among the peers', so that both rules for duplicates are met.
fn own() -> NodeId {
    let mut keys: Vec<NodeId> = (1..=40).map(|byte| key(byte).node_id()).collect();
    keys.sort();
    keys[20]
}

/// Peers, none of which is us.
fn peers(count: usize) -> Vec<NodeId> {
    (1..=40)
        .map(|byte| key(byte).node_id())
        .filter(|id| *id != own())
        .take(count)
        .collect()
}

/// As many peers as there are numbers.
fn numbered(number: usize) -> NodeId {
    let mut bytes = [0x33; 32];
    bytes[24..].copy_from_slice(&(number as u64).to_be_bytes());
    LocalKey::from_bytes(&mut bytes).unwrap().node_id()
}

fn address(index: usize) -> KnownAddress {
    SocketAddr::from(([127, 0, 0, 1], 9000 + u16::try_from(index).unwrap())).into()
}

/// Epochs are the signer's to mint: one for each attach.
fn epochs(count: usize) -> Vec<Epoch> {
    let signer = Arc::new(EmbeddedSigner::from_key(key(50)));
    let context = SignerContext::new(signer.node_id());
    let mint = |_| {
        let challenge = context.challenge(&mut [9; 32]).unwrap();
        let answer = key(50).ecdh(&challenge.point());
        let proof = challenge.verify(answer).unwrap();
        let session = context
            .attach(proof, Arc::clone(&signer) as Arc<dyn Signer>)
            .unwrap();
        let epoch = session.epoch();
        let _ = session.lapse(LapseReason::Requested);
        epoch
    };
    (0..count).map(mint).collect()
}

/// A machine, driven by hand.
struct Desk {
    machine: SupervisorMachine,
    now: Moment,
    epochs: Vec<Epoch>,
    attached: usize,
}

/// Without personas: what the node does under its own key.
const OWN_KEY_ONLY: Policy = Policy {
    hold_down: limits::HOLD_DOWN_MAX,
    gossip_floor: 0,
    personas: false,
    channel_peers: false,
    cached_identity: false,
    onions: false,
    personas_by_proxy: false,
};

impl Desk {
    fn new() -> Self {
        Self::with(OWN_KEY_ONLY)
    }

    fn with(policy: Policy) -> Self {
        static MINTED: OnceLock<Vec<Epoch>> = OnceLock::new();
        Self {
            machine: SupervisorMachine::new(own(), 7).with_policy(policy),
            now: Moment::START,
            // Each costs two multiplications on the curve, and the table takes a thousand desks.
            epochs: MINTED.get_or_init(|| epochs(6)).clone(),
            attached: 0,
        }
    }

    fn feed(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.machine.handle(self.now, input, &mut out);
        out
    }

    fn attach(&mut self) -> Vec<Output> {
        self.attached += 1;
        let epoch = self.epochs[self.attached - 1];
        self.feed(Input::Attached(epoch))
    }

    fn want(&mut self, peer: NodeId, index: usize, tag: Tag) -> Vec<Output> {
        self.feed(Input::Want {
            peer,
            addresses: vec![address(index)],
            tag: Some(tag),
            weight: None,
        })
    }

    fn authenticated(&mut self, link: LinkId, peer: NodeId, direction: Direction) -> Vec<Output> {
        self.feed(Input::Authenticated {
            link,
            peer,
            direction,
            address: address(0).address,
        })
    }

    fn bring_up(&mut self, link: LinkId, peer: NodeId) -> Vec<Output> {
        self.authenticated(link, peer, Direction::Outbound);
        self.feed(Input::Up(link))
    }

    fn state(&self, peer: NodeId) -> Option<PeerState> {
        self.machine.peer(peer).map(|peer| peer.state())
    }
}

/// The dials among outputs, in their order.
fn dials(outputs: &[Output]) -> Vec<(LinkId, NodeId)> {
    let dial = |output: &Output| match output {
        Output::Dial { link, peer, .. } => Some((*link, *peer)),
        _ => None,
    };
    outputs.iter().filter_map(dial).collect()
}

fn relit(outputs: &[Output]) -> Option<(usize, usize)> {
    outputs.iter().find_map(|output| match output {
        Output::Relit { up, failed, .. } => Some((*up, *failed)),
        _ => None,
    })
}

fn retry(outputs: &[Output]) -> Option<Duration> {
    outputs.iter().find_map(|output| match output {
        Output::Failed { retry_in, .. } => *retry_in,
        _ => None,
    })
}

// --- relight ---

/// Soonest expiry first; then the heaviest; then the shortest delay; gossip peers last, whatever is said of them.
#[test]
fn p8_on_return_peers_are_dialled_in_the_order_of_their_urgency() {
    let mut desk = Desk::new();
    let ids = peers(7);
    let htlcs = |height| Urgency {
        pending_htlcs: 1,
        earliest_expiry_height: height,
        csv_delay: 144,
    };
    let idle = |csv_delay| Urgency {
        csv_delay,
        ..Urgency::default()
    };
    // In the order in which they must be dialled.
    let said = [
        (htlcs(800_001), 0, Tag::ChannelBearing),
        (htlcs(800_009), 9, Tag::ChannelBearing),
        (htlcs(800_009), 1, Tag::ChannelBearing),
        (idle(2016), 5, Tag::ChannelBearing),
        (idle(144), 2, Tag::ChannelBearing),
        // An expiry without HTLCs says nothing.
        (
            Urgency {
                earliest_expiry_height: 1,
                csv_delay: 1000,
                ..Urgency::default()
            },
            2,
            Tag::ChannelBearing,
        ),
        (htlcs(1), 100, Tag::GossipOnly),
    ];
    for index in [3, 6, 0, 5, 2, 4, 1] {
        let (urgency, weight, tag) = said[index];
        let addresses = vec![address(index)];
        let outputs = desk.feed(Input::Want {
            peer: ids[index],
            addresses,
            tag: Some(tag),
            weight: Some(weight),
        });
        assert_eq!(dials(&outputs), [], "no signer yet");
        assert_eq!(desk.state(ids[index]), Some(PeerState::Held));
        desk.feed(Input::Urgency(ids[index], urgency));
    }
    let order: Vec<NodeId> = dials(&desk.attach())
        .into_iter()
        .map(|(_, peer)| peer)
        .collect();
    assert_eq!(order, ids);
}

/// More peers than may be dialled at once: the least urgent are shown as awaited, and go as places come free.
#[test]
fn p8_who_finds_no_place_is_awaited_and_goes_when_one_comes_free() {
    let mut desk = Desk::new();
    let count = limits::DIALS_IN_FLIGHT + 3;
    let ids: Vec<NodeId> = (0..count).map(numbered).collect();
    for (index, id) in ids.iter().enumerate() {
        let weight = Some(u32::try_from(count - index).unwrap());
        let addresses = vec![address(0)];
        desk.feed(Input::Want {
            peer: *id,
            addresses,
            tag: Some(Tag::ChannelBearing),
            weight,
        });
    }
    let first = dials(&desk.attach());
    assert_eq!(
        first.iter().map(|(_, peer)| *peer).collect::<Vec<_>>(),
        ids[..limits::DIALS_IN_FLIGHT]
    );
    assert_eq!(desk.machine.dialing(), limits::DIALS_IN_FLIGHT);
    for id in &ids[limits::DIALS_IN_FLIGHT..] {
        assert_eq!(desk.state(*id), Some(PeerState::Awaited));
    }
    // A link that is up, and a dial that failed, give their places back.
    let (link, peer) = first[0];
    assert_eq!(
        dials(&desk.bring_up(link, peer))[0].1,
        ids[limits::DIALS_IN_FLIGHT]
    );
    let (link, _) = first[1];
    let next = desk.feed(Input::DialFailed {
        link,
        failure: Failure::Unreachable,
    });
    assert_eq!(dials(&next)[0].1, ids[limits::DIALS_IN_FLIGHT + 1]);
    // Urgency counts in the queue too.
    let last = *ids.last().unwrap();
    let urgency = Urgency {
        pending_htlcs: 1,
        earliest_expiry_height: 1,
        csv_delay: 0,
    };
    desk.feed(Input::Urgency(last, urgency));
    assert_eq!(desk.state(last), Some(PeerState::Awaited));
    // A lapse leaves nobody in the queue.
    desk.feed(Input::Lapsed);
    assert_eq!(desk.state(last), Some(PeerState::Held));
}

/// However a dial fails, it is not counted among those under way any more; one of a persona no more than one of the node's.
#[test]
fn p9_a_dial_gives_its_place_back_however_it_fails() {
    let failures = [
        Failure::Unreachable,
        Failure::Handshake,
        Failure::WrongKey,
        Failure::SignerAway,
        Failure::Duplicate,
        Failure::Ours,
        Failure::NoWay,
    ];
    for (failure, unwanted) in failures.into_iter().flat_map(|f| [(f, false), (f, true)]) {
        let mut own = Desk::new();
        own.attach();
        let dialled = own.want(numbered(1), 1, Tag::ChannelBearing);
        for (mut desk, outputs) in [(own, dialled), away(3, address)] {
            let dialled = dials(&outputs);
            assert_eq!(desk.machine.dialing(), dialled.len());
            let (link, peer) = dialled[0];
            if unwanted {
                desk.feed(Input::Unwant(peer));
            }
            let again = dials(&desk.feed(Input::DialFailed { link, failure }));
            let now = dialled.len() - 1 + again.len();
            assert_eq!(desk.machine.dialing(), now, "{failure:?}, {unwanted}");
        }
    }
}

#[test]
fn p8_a_relight_counts_who_came_back_and_who_did_not_and_waits_for_nobody_else() {
    let mut desk = Desk::new();
    let ids = peers(4);
    desk.attach();
    for (index, id) in ids.iter().enumerate() {
        let tag = if index == 3 {
            Tag::GossipOnly
        } else {
            Tag::ChannelBearing
        };
        let link = dials(&desk.want(*id, index, tag))[0].0;
        desk.bring_up(link, *id);
    }
    desk.feed(Input::Lapsed);
    let links: Vec<LinkId> = ids
        .iter()
        .filter_map(|id| desk.machine.peer(*id).unwrap().link())
        .collect();
    assert_eq!(desk.attach(), [], "the old links' ends are still to come");
    let mut again = Vec::new();
    for link in &links[..3] {
        again.extend(dials(&desk.feed(Input::Ended {
            link: *link,
            reason: CloseReason::Lapse,
        })));
    }
    assert_eq!(again.len(), 3, "each is dialled without being asked");
    assert_eq!(relit(&desk.bring_up(again[0].0, again[0].1)), None);
    assert_eq!(
        relit(&desk.feed(Input::DialFailed {
            link: again[1].0,
            failure: Failure::Unreachable
        })),
        None
    );
    assert_eq!(desk.state(again[1].1), Some(PeerState::Backoff));
    assert_eq!(relit(&desk.bring_up(again[2].0, again[2].1)), Some((2, 1)));
    assert_eq!(
        desk.state(ids[3]),
        Some(PeerState::Up),
        "the gossip peer had no part in it"
    );
}

/// A session that comes while dials of the one before are still under way: their ends are late news, not failures of the peers.
#[test]
fn p8_a_quick_return_counts_the_peers_that_were_being_dialled() {
    let mut desk = Desk::new();
    let ids = peers(2);
    desk.attach();
    let dialling = dials(&desk.want(ids[0], 0, Tag::ChannelBearing))[0].0;
    let admitted = dials(&desk.want(ids[1], 1, Tag::ChannelBearing))[0].0;
    desk.authenticated(admitted, ids[1], Direction::Outbound);
    desk.feed(Input::Lapsed);
    assert_eq!(relit(&desk.attach()), None);
    let first = desk.feed(Input::DialFailed {
        link: dialling,
        failure: Failure::SignerAway,
    });
    // Its `init` was on the way when the session lapsed: it does not count as back.
    assert_eq!(relit(&desk.feed(Input::Up(admitted))), None);
    let second = desk.feed(Input::Ended {
        link: admitted,
        reason: CloseReason::Lapse,
    });
    assert_eq!(relit(&desk.bring_up(dials(&first)[0].0, ids[0])), None);
    assert_eq!(
        relit(&desk.bring_up(dials(&second)[0].0, ids[1])),
        Some((2, 0))
    );
}

/// A peer that closes before `init` has not come back. That the link of an earlier session ends so says nothing of this one.
#[test]
fn p8_a_link_that_ends_before_init_is_a_failure_of_its_own_session_only() {
    for before in [false, true] {
        let mut desk = Desk::new();
        let peer = peers(1)[0];
        desk.want(peer, 0, Tag::ChannelBearing);
        let link = dials(&desk.attach())[0].0;
        desk.authenticated(link, peer, Direction::Outbound);
        if before {
            desk.feed(Input::Lapsed);
            assert_eq!(relit(&desk.attach()), None);
        }
        let reason = CloseReason::PeerClosed;
        let outputs = desk.feed(Input::Ended { link, reason });
        assert_eq!(relit(&outputs), (!before).then_some((0, 1)));
        if before {
            desk.now = desk.machine.deadline().unwrap();
            let link = dials(&desk.feed(Input::Tick))[0].0;
            assert_eq!(relit(&desk.bring_up(link, peer)), Some((1, 0)));
        }
    }
}

/// Two channel peers are awaited. What the node gives as the address of one of them leads nowhere any more: it is not waited for, once
/// a dial that was under way to its old address is over.
#[test]
fn p8_a_relight_waits_for_nobody_who_cannot_be_dialled_any_more() {
    let at = |text: &str| KnownAddress::learned(text.parse::<PeerAddress>().unwrap());
    for is_dialling in [false, true] {
        let mut desk = Desk::new();
        let ids = peers(2);
        let want = |peer, text: &str| Input::Want {
            peer,
            addresses: vec![at(text)],
            tag: Some(Tag::ChannelBearing),
            weight: None,
        };
        for peer in &ids {
            desk.feed(want(*peer, "1.1.1.1:1"));
        }
        let dialled = dials(&desk.attach());
        let link_of = |peer| dialled.iter().find(|(_, of)| *of == peer).unwrap().0;
        // A dial of an earlier session ends: it is made again as soon as the signer keeps up.
        desk.feed(Input::Behind(true));
        let link = link_of(ids[1]);
        let failure = Failure::SignerAway;
        if !is_dialling {
            desk.feed(Input::DialFailed { link, failure });
            assert_eq!(desk.state(ids[1]), Some(PeerState::Awaited));
        }
        let back = desk.bring_up(link_of(ids[0]), ids[0]);
        assert_eq!(relit(&back), None);
        let mut outputs = desk.feed(want(ids[1], "10.0.0.1:1"));
        if is_dialling {
            assert_eq!(relit(&outputs), None, "that dial may still succeed");
            outputs = desk.feed(Input::DialFailed { link, failure });
        }
        assert_eq!(relit(&outputs), Some((1, 0)));
        assert!(!desk.machine.is_relighting());
        assert_eq!(desk.state(ids[1]), Some(PeerState::NotDialable));
    }
}

// --- hold-down ---

/// Brings the signer back, and takes it away again, so many times, a second for each session.
fn flap(desk: &mut Desk, times: usize) {
    for _ in 0..times {
        desk.attached = 0;
        desk.attach();
        desk.now = desk.now.after(Duration::from_secs(1));
        desk.feed(Input::Lapsed);
    }
    desk.attached = 0;
}

/// What a return says of a hold-down, and when it is over.
fn held_down(outputs: &[Output]) -> Option<Duration> {
    outputs.iter().find_map(|output| match output {
        Output::HeldDown { wait, .. } => Some(*wait),
        _ => None,
    })
}

#[test]
fn p8_channel_peers_wait_longer_the_more_the_signer_flaps_and_gossip_peers_do_not() {
    let expected = [0, 0, 1, 2, 4, 8, 16, 32, 60, 60];
    for (lapses, seconds) in expected.into_iter().enumerate() {
        let mut desk = Desk::new();
        let ids = peers(2);
        desk.feed(Input::Want {
            peer: ids[0],
            addresses: vec![address(0)],
            tag: Some(Tag::ChannelBearing),
            weight: None,
        });
        flap(&mut desk, lapses);
        // The first dial of each session is still under way when the next begins: its end is late news.
        if let Some(dial) = (lapses > 0).then_some(LinkId::new(2)) {
            desk.feed(Input::DialFailed {
                link: dial,
                failure: Failure::SignerAway,
            });
        }
        desk.want(ids[1], 1, Tag::GossipOnly);
        let outputs = desk.attach();
        let wait = Duration::from_secs(seconds);
        let dialled: Vec<NodeId> = dials(&outputs).into_iter().map(|(_, peer)| peer).collect();
        if wait.is_zero() {
            assert_eq!(held_down(&outputs), None, "{lapses} lapses");
            assert_eq!(dialled, ids, "{lapses} lapses: all at once");
            continue;
        }
        assert_eq!(held_down(&outputs), Some(wait), "{lapses} lapses");
        assert_eq!(
            dialled,
            [ids[1]],
            "{lapses} lapses: the gossip peer waits for nothing"
        );
        assert_eq!(desk.state(ids[0]), Some(PeerState::Held));
        assert!(desk.machine.is_relighting());
        desk.now = desk.now.after(wait - Duration::from_nanos(1));
        assert_eq!(desk.feed(Input::Tick), [], "not a moment too early");
        desk.now = desk.now.after(Duration::from_nanos(1));
        let released = dials(&desk.feed(Input::Tick));
        assert_eq!(released.len(), 1);
        assert_eq!(released[0].1, ids[0]);
        // The clock of the relight runs from here.
        desk.now = desk.now.after(Duration::from_millis(7));
        let up = desk.bring_up(released[0].0, ids[0]);
        let took = up.iter().find_map(|output| match output {
            Output::Relit { took, .. } => *took,
            _ => None,
        });
        assert_eq!(took, Some(Duration::from_millis(7)));
    }
}

#[test]
fn a_hold_down_is_forgotten_after_ten_minutes_without_a_lapse_and_ends_with_the_session() {
    for (quiet, wait) in [
        (limits::STABLE_AFTER - Duration::from_secs(1), Some(8)),
        (limits::STABLE_AFTER, None),
    ] {
        let mut desk = Desk::new();
        flap(&mut desk, 5);
        desk.now = desk.now.after(quiet);
        assert_eq!(held_down(&desk.attach()), wait.map(Duration::from_secs));
    }
    let mut desk = Desk::new();
    flap(&mut desk, 5);
    assert!(held_down(&desk.attach()).is_some());
    desk.feed(Input::Lapsed);
    assert_eq!(desk.machine.held_down_until(), None);
    assert_eq!(desk.machine.deadline(), None, "nothing is timed");
}

/// A channel peer that dials us: its link waits if it will wait so long, else it is turned away before `init`.
#[test]
fn p8_an_inbound_channel_link_waits_out_the_hold_down_too() {
    for (lapses, waits) in [(3, true), (4, true), (5, false)] {
        let mut desk = Desk::new();
        let peer = peers(1)[0];
        desk.feed(Input::Tag(peer, Tag::ChannelBearing));
        flap(&mut desk, lapses);
        let wait = held_down(&desk.attach()).unwrap();
        let outputs = desk.authenticated(LinkId::new(1), peer, Direction::Inbound);
        if !waits {
            let refused = Output::Refuse {
                link: LinkId::new(1),
                reason: CloseReason::HeldDown,
            };
            assert_eq!(outputs, [refused]);
            continue;
        }
        assert_eq!(outputs, [], "{lapses} lapses");
        // It dials again: the newer link is the one that it means.
        let outputs = desk.authenticated(LinkId::new(3), peer, Direction::Inbound);
        assert_eq!(
            outputs,
            [Output::Refuse {
                link: LinkId::new(1),
                reason: CloseReason::Duplicate,
            }]
        );
        desk.feed(Input::Withdrawn(LinkId::new(1)));
        desk.now = desk.now.after(wait);
        let outputs = desk.feed(Input::Tick);
        assert_eq!(
            outputs,
            [Output::Admit {
                link: LinkId::new(3),
                tag: Tag::ChannelBearing,
            }]
        );
    }
    // A lapse turns it away at once.
    let mut desk = Desk::new();
    let peer = peers(1)[0];
    flap(&mut desk, 3);
    desk.attach();
    desk.authenticated(LinkId::new(1), peer, Direction::Inbound);
    assert!(desk.feed(Input::Lapsed).contains(&Output::Refuse {
        link: LinkId::new(1),
        reason: CloseReason::Lapse,
    }));
}

/// Who is turned away, or waits and goes, has not been let in: nothing of it stays among those that are.
#[test]
fn p9_a_link_that_a_hold_down_keeps_out_is_no_guest() {
    for (lapses, turned_away) in [(3, false), (5, true)] {
        let mut desk = Desk::new();
        let peer = peers(1)[0];
        desk.feed(Input::Tag(peer, Tag::ChannelBearing));
        flap(&mut desk, lapses);
        desk.attach();
        for number in 0..10 {
            let link = LinkId::new(2 * number + 1);
            let outputs = desk.authenticated(link, peer, Direction::Inbound);
            let refused = outputs.contains(&Output::Refuse {
                link,
                reason: CloseReason::HeldDown,
            });
            assert_eq!(refused, turned_away);
            desk.feed(Input::Withdrawn(link));
        }
        assert_eq!(desk.machine.guests().count(), 0, "{lapses} lapses");
        // Its tag changes: what never was a link takes nobody's place.
        desk.feed(Input::Tag(peer, Tag::GossipOnly));
        let link = LinkId::new(101);
        let admitted = Output::Admit {
            link,
            tag: Tag::GossipOnly,
        };
        assert_eq!(
            desk.authenticated(link, peer, Direction::Inbound),
            [admitted]
        );
        assert_eq!(desk.machine.guests().count(), 1);
    }
}

/// What the node says of a peer meanwhile counts at once.
/// Its link is there already: were another dialled beside it, it would wait unanswered for as long as that one lives.
#[test]
fn p9_a_link_that_waits_out_a_hold_down_is_let_in_when_its_peer_bears_no_channel_any_more() {
    let mut desk = Desk::new();
    let peer = peers(1)[0];
    flap(&mut desk, 3);
    desk.attach();
    assert_eq!(dials(&desk.want(peer, 0, Tag::ChannelBearing)), []);
    let link = LinkId::new(1);
    assert_eq!(desk.authenticated(link, peer, Direction::Inbound), []);
    let outputs = desk.feed(Input::Tag(peer, Tag::GossipOnly));
    assert_eq!(dials(&outputs), []);
    let tag = Tag::GossipOnly;
    assert!(outputs.contains(&Output::Admit { link, tag }));
}

#[test]
fn a_peer_that_becomes_a_channel_peer_is_held_down_and_one_that_is_none_any_more_is_not() {
    let mut desk = Desk::new();
    let peer = peers(1)[0];
    flap(&mut desk, 3);
    desk.attach();
    assert_eq!(dials(&desk.want(peer, 0, Tag::ChannelBearing)), []);
    assert_eq!(desk.state(peer), Some(PeerState::Held));
    let link = dials(&desk.feed(Input::Tag(peer, Tag::GossipOnly)))[0].0;
    let failure = Failure::Unreachable;
    desk.feed(Input::DialFailed { link, failure });
    assert_eq!(desk.state(peer), Some(PeerState::Backoff));
    desk.feed(Input::Tag(peer, Tag::ChannelBearing));
    assert_eq!(desk.state(peer), Some(PeerState::Held));
    desk.now = desk.machine.deadline().unwrap();
    assert_eq!(dials(&desk.feed(Input::Tick)).len(), 1);
}

// --- backoff ---

#[test]
fn backoff_doubles_with_jitter_to_a_bound_and_ends_with_an_attach() {
    let mut desk = Desk::new();
    let peer = peers(1)[0];
    desk.attach();
    let mut link = dials(&desk.want(peer, 0, Tag::GossipOnly))[0].0;
    let mut waits = Vec::new();
    for failures in 0..20_u32 {
        let outputs = desk.feed(Input::DialFailed {
            link,
            failure: Failure::Unreachable,
        });
        let wait = retry(&outputs).unwrap();
        let doubled = limits::BACKOFF_FIRST
            .saturating_mul(2_u32.pow(failures))
            .min(limits::BACKOFF_MAX);
        assert!(
            wait >= doubled / 2 && wait <= doubled,
            "failure {failures}: {wait:?} of {doubled:?}"
        );
        assert_eq!(desk.machine.deadline(), Some(desk.now.after(wait)));
        // Not a moment too early.
        desk.now = desk.now.after(wait - Duration::from_nanos(1));
        assert_eq!(desk.feed(Input::Tick), []);
        desk.now = desk.now.after(Duration::from_nanos(1));
        link = dials(&desk.feed(Input::Tick))[0].0;
        waits.push(wait);
    }
    assert!(waits[19] <= limits::BACKOFF_MAX);
    // It fails once more, the signer goes and comes back: dialled at once, and the next wait is the first again.
    desk.feed(Input::DialFailed {
        link,
        failure: Failure::Handshake,
    });
    assert_eq!(desk.state(peer), Some(PeerState::Backoff));
    desk.feed(Input::Lapsed);
    assert_eq!(desk.state(peer), Some(PeerState::Held));
    assert_eq!(
        desk.machine.deadline(),
        None,
        "nothing is timed while the signer is away"
    );
    let link = dials(&desk.attach())[0].0;
    let outputs = desk.feed(Input::DialFailed {
        link,
        failure: Failure::Unreachable,
    });
    assert!(retry(&outputs).unwrap() <= limits::BACKOFF_FIRST);
}

/// A link that we ended ourselves, however often, is no failure of its peer: it is dialled again as soon as ever.
#[test]
fn what_we_ended_ourselves_is_not_held_against_the_peer() {
    let mut desk = Desk::new();
    let peer = peers(1)[0];
    desk.attach();
    let mut link = dials(&desk.want(peer, 0, Tag::GossipOnly))[0].0;
    for reason in [CloseReason::SessionAge, CloseReason::Requested].repeat(4) {
        desk.bring_up(link, peer);
        desk.feed(Input::Ended { link, reason });
        assert_eq!(desk.sighting(peer).map(|(_, failures)| failures), Some(0));
        let due = desk.machine.deadline().unwrap();
        assert!(due.since(desk.now) <= limits::BACKOFF_FIRST, "{reason}");
        desk.now = due;
        link = dials(&desk.feed(Input::Tick))[0].0;
    }
}

/// The waits of many peers that failed in one instant do not end in one instant: they fill the second half of the interval.
#[test]
fn backoffs_spread() {
    let mut waits = Vec::new();
    for seed in 0..1000 {
        let mut machine = SupervisorMachine::new(own(), seed);
        let mut out = Vec::new();
        let peer = peers(1)[0];
        machine.handle(Moment::START, Input::Attached(epochs(1)[0]), &mut out);
        let want = Input::Want {
            peer,
            addresses: vec![address(0)],
            tag: None,
            weight: None,
        };
        machine.handle(Moment::START, want, &mut out);
        let link = dials(&out)[0].0;
        machine.handle(
            Moment::START,
            Input::DialFailed {
                link,
                failure: Failure::Unreachable,
            },
            &mut out,
        );
        waits.push(retry(&out).unwrap());
    }
    let (half, all) = (limits::BACKOFF_FIRST / 2, limits::BACKOFF_FIRST);
    for tenth in 0..10 {
        let from = half + (all - half) * tenth / 10;
        let to = half + (all - half) * (tenth + 1) / 10;
        let share = waits
            .iter()
            .filter(|wait| **wait >= from && **wait <= to)
            .count();
        assert!(
            (50..200).contains(&share),
            "{share} of 1000 waits in tenth {tenth}"
        );
    }
}

/// Whatever the number of failures: the waits of a thousand peers fill the second half of the interval evenly, to the nanosecond.
#[test]
fn backoffs_spread_at_every_length() {
    let mut waits: BTreeMap<u32, Vec<Duration>> = BTreeMap::new();
    let mut desk = Desk::new();
    desk.attach();
    let mut failing: Vec<(LinkId, NodeId, u32)> = (0..limits::DIALS_IN_FLIGHT)
        .map(|number| {
            let (link, peer) = dials(&desk.want(numbered(number), 0, Tag::GossipOnly))[0];
            (link, peer, 0)
        })
        .collect();
    let mut failures: BTreeMap<NodeId, u32> = BTreeMap::new();
    while let Some((link, peer, failed)) = failing.pop() {
        let failure = Failure::Unreachable;
        let wait = retry(&desk.feed(Input::DialFailed { link, failure })).unwrap();
        waits.entry(failed).or_default().push(wait);
        failures.insert(peer, failed + 1);
        while failing.is_empty() && failures.values().any(|failed| *failed < 14) {
            desk.now = desk.machine.deadline().unwrap();
            for (link, peer) in dials(&desk.feed(Input::Tick)) {
                failing.push((link, peer, failures[&peer]));
            }
        }
    }
    for (failed, waits) in waits.range(..14) {
        assert!(waits.len() >= limits::DIALS_IN_FLIGHT);
        let all = limits::BACKOFF_FIRST
            .saturating_mul(2_u32.pow(*failed))
            .min(limits::BACKOFF_MAX);
        let half = all / 2;
        for tenth in 0..10 {
            let (from, to) = (half + half * tenth / 10, half + half * (tenth + 1) / 10);
            let share = waits
                .iter()
                .filter(|wait| **wait >= from && **wait <= to)
                .count();
            let even = waits.len() / 10;
            assert!(
                (even / 2..even * 2).contains(&share),
                "failure {failed}: {share} of {} waits in tenth {tenth}",
                waits.len()
            );
        }
        let fractions: BTreeSet<u32> = waits.iter().map(Duration::subsec_nanos).collect();
        assert!(
            fractions.len() > waits.len() * 9 / 10,
            "whole seconds spread nothing"
        );
    }
}

// --- what an earlier process has seen ---

impl Desk {
    fn recall(&mut self, peer: NodeId, seen_ago: Option<u64>, failures: u32) {
        let seen_ago = seen_ago.map(Duration::from_secs);
        let recall = Input::Recall {
            peer,
            seen_ago,
            failures,
        };
        assert_eq!(
            self.feed(recall),
            [],
            "nothing is done for what is recalled"
        );
    }

    fn sighting(&self, peer: NodeId) -> Option<(Option<u64>, u32)> {
        let unix = NOON + self.now.since_start();
        let seen = self.machine.sighting(self.now, unix, peer)?;
        assert_eq!(seen.node_id, peer);
        Some((seen.last_seen, seen.failures))
    }
}

/// Since the Unix epoch, when a desk's clock starts.
const NOON: Duration = Duration::from_secs(1_700_000_000);

/// Who matters more still comes first, however long ago it was seen.
#[test]
fn p8_of_peers_that_matter_alike_the_one_seen_last_is_dialled_first_and_one_never_seen_last() {
    let mut desk = Desk::new();
    let ids = peers(5);
    // In the order in which they must be dialled: against that of their keys.
    let seen = [None, None, Some(90_000), Some(3_600), Some(60)];
    for (index, (id, seen)) in ids.iter().zip(seen).enumerate() {
        desk.feed(Input::Want {
            peer: *id,
            addresses: vec![address(index)],
            tag: Some(Tag::ChannelBearing),
            weight: Some(u32::from(index == 0)),
        });
        if seen.is_some() {
            desk.recall(*id, seen, 0);
        }
    }
    let order: Vec<NodeId> = dials(&desk.attach())
        .into_iter()
        .map(|dial| dial.1)
        .collect();
    assert_eq!(order, [ids[0], ids[4], ids[3], ids[2], ids[1]]);
}

/// The same while a signer is there and the places are taken: a recall moves a peer that is queued already.
#[test]
fn a_recalled_peer_moves_up_in_the_queue() {
    let mut desk = Desk::new();
    let ids = peers(3);
    desk.attach();
    desk.feed(Input::Behind(true));
    for (index, id) in ids.iter().enumerate() {
        desk.want(*id, index, Tag::GossipOnly);
    }
    desk.recall(ids[2], Some(5), 0);
    let order: Vec<NodeId> = dials(&desk.feed(Input::Behind(false)))
        .into_iter()
        .map(|dial| dial.1)
        .collect();
    assert_eq!((order.len(), order[0]), (3, ids[2]));
    assert_eq!(desk.machine.load().queue, 0);
}

#[test]
fn p7_personas_meet_first_who_has_failed_least_and_of_those_who_has_been_met_before() {
    let mut desk = Desk::with(Policy {
        gossip_floor: 1,
        personas: true,
        ..OWN_KEY_ONLY
    });
    let ids = peers(4);
    for (index, id) in ids.iter().enumerate() {
        desk.want(*id, index, Tag::GossipOnly);
    }
    desk.recall(ids[0], Some(1), 3);
    desk.recall(ids[1], Some(1), 1);
    desk.recall(ids[3], Some(500_000), 0);
    let mut order = Vec::new();
    desk.now = desk.machine.deadline().unwrap();
    let mut outputs = desk.feed(Input::Tick);
    while let Some((link, peer)) = dials(&outputs).first().copied() {
        order.push(peer);
        outputs = desk.feed(Input::DialFailed {
            link,
            failure: Failure::Unreachable,
        });
    }
    assert_eq!(order, [ids[3], ids[2], ids[1], ids[0]]);
}

/// What was recalled never delays a first dial; it makes the wait after the next failure longer, to a bound, and an attach ends it.
#[test]
fn recalled_failures_count_in_the_wait_after_the_next_one_until_a_signer_comes() {
    let failure = Failure::Unreachable;
    for (recalled, counted) in [(0, 0), (4, 4), (10, 10), (11, 10), (u32::MAX, 10)] {
        let mut desk = Desk::with(Policy {
            gossip_floor: 1,
            personas: true,
            ..OWN_KEY_ONLY
        });
        let peer = peers(1)[0];
        desk.want(peer, 0, Tag::GossipOnly);
        desk.recall(peer, None, recalled);
        desk.now = desk.machine.deadline().unwrap();
        let link = dials(&desk.feed(Input::Tick))[0].0;
        let wait = retry(&desk.feed(Input::DialFailed { link, failure })).unwrap();
        let longest = Duration::from_secs(1 << counted);
        assert!(
            wait <= longest && wait >= longest / 2,
            "{recalled}: {wait:?}"
        );
        assert_eq!(desk.sighting(peer), Some((None, counted + 1)));
        let link = dials(&desk.attach())[0].0;
        assert_eq!(desk.sighting(peer), Some((None, 0)));
        let wait = retry(&desk.feed(Input::DialFailed { link, failure })).unwrap();
        assert!(wait <= limits::BACKOFF_FIRST, "{recalled}: {wait:?}");
    }
}

#[test]
fn what_was_seen_of_a_peer_is_told_as_it_is_now() {
    let mut desk = Desk::new();
    let (peer, failure) = (peers(1)[0], Failure::Unreachable);
    let at = |desk: &Desk| NOON.as_secs() + desk.now.since_start().as_secs();
    desk.now = Moment::from_start(Duration::from_secs(100));
    assert_eq!(desk.sighting(peer), None, "a stranger is not on record");
    desk.want(peer, 0, Tag::GossipOnly);
    assert_eq!(desk.sighting(peer), Some((None, 0)));
    desk.recall(peer, Some(1_000), 2);
    let before = at(&desk) - 1_000;
    assert_eq!(desk.sighting(peer), Some((Some(before), 2)));
    desk.now = desk.now.after(Duration::from_secs(50));
    assert_eq!(
        desk.sighting(peer),
        Some((Some(before), 2)),
        "it stays when it was"
    );
    let link = dials(&desk.attach())[0].0;
    desk.feed(Input::DialFailed { link, failure });
    assert_eq!(desk.sighting(peer), Some((Some(before), 1)));
    desk.now = desk.machine.deadline().unwrap();
    let link = dials(&desk.feed(Input::Tick))[0].0;
    desk.bring_up(link, peer);
    desk.now = desk.now.after(Duration::from_secs(7));
    assert_eq!(
        desk.sighting(peer),
        Some((Some(at(&desk)), 1)),
        "it is there"
    );
    // What an earlier process knew counts for nothing any more.
    desk.recall(peer, Some(0), 9);
    desk.now = desk.now.after(limits::STABLE_AFTER);
    assert_eq!(
        desk.sighting(peer),
        Some((Some(at(&desk)), 0)),
        "it is stable"
    );
    let (gone, reason) = (at(&desk), CloseReason::PeerClosed);
    desk.feed(Input::Ended { link, reason });
    desk.now = desk.now.after(Duration::from_secs(9));
    desk.recall(peer, Some(0), 9);
    assert_eq!(desk.sighting(peer), Some((Some(gone), 1)), "it was there");
    desk.feed(Input::Unwant(peer));
    desk.feed(Input::Tag(peer, Tag::GossipOnly));
    assert!(
        desk.sighting(peer).is_some(),
        "what the node said of it is on record"
    );
}

/// Somebody else at an address is no reason to wait for the peer there: its other addresses are tried in turn. When there is none
/// left, the wait is the longest at once.
#[test]
fn where_somebody_else_answers_a_peer_is_not_dialled_again_while_it_has_other_addresses() {
    let mut desk = Desk::new();
    let peer = peers(1)[0];
    desk.attach();
    let dialled = |outputs: &[Output]| {
        outputs.iter().find_map(|output| match output {
            Output::Dial { link, address, .. } => Some((*link, address.clone())),
            _ => None,
        })
    };
    let addresses: Vec<KnownAddress> = (0..3).map(address).collect();
    let want = Input::Want {
        peer,
        addresses: addresses.clone(),
        tag: None,
        weight: None,
    };
    let mut next = dialled(&desk.feed(want.clone()));
    let mut order = Vec::new();
    for failure in [
        Failure::WrongKey,
        Failure::Unreachable,
        Failure::Handshake,
        Failure::WrongKey,
        Failure::Unreachable,
        Failure::Unreachable,
    ] {
        let (link, at) = next.unwrap();
        order.push(at.clone());
        let wait = retry(&desk.feed(Input::DialFailed { link, failure })).unwrap();
        assert!(
            wait < limits::BACKOFF_MAX / 2,
            "{failure:?} at {at:?}: {wait:?}"
        );
        desk.now = desk.now.after(wait);
        next = dialled(&desk.feed(Input::Tick));
    }
    let expected = [0, 1, 2, 1, 2, 2].map(|index| addresses[index].clone());
    assert_eq!(order, expected);
    let (link, at) = next.unwrap();
    assert_eq!(at, addresses[2]);
    let failure = Failure::WrongKey;
    let wait = retry(&desk.feed(Input::DialFailed { link, failure })).unwrap();
    assert!(
        wait >= limits::BACKOFF_MAX / 2 && wait <= limits::BACKOFF_MAX,
        "{wait:?}"
    );
    // Asked for by name, or after an attach: all of them may be right again.
    let (link, at) = dialled(&desk.feed(want)).unwrap();
    assert_eq!(at, addresses[0]);
    desk.feed(Input::DialFailed { link, failure });
    desk.feed(Input::Lapsed);
    let (link, _) = dialled(&desk.attach()).unwrap();
    let failure = Failure::Unreachable;
    let wait = retry(&desk.feed(Input::DialFailed { link, failure })).unwrap();
    assert!(wait <= limits::BACKOFF_FIRST);
}

// --- the signer's backlog ---

#[test]
fn p9_no_dial_begins_while_the_signer_is_behind_and_all_go_on_when_it_is_not() {
    let mut desk = Desk::new();
    let ids = peers(4);
    desk.attach();
    let under_way = dials(&desk.want(ids[0], 0, Tag::ChannelBearing))[0].0;
    assert_eq!(desk.feed(Input::Behind(true)), [], "what goes on goes on");
    assert_eq!(desk.state(ids[0]), Some(PeerState::Dialing));
    for (index, tag) in [(1, Tag::GossipOnly), (2, Tag::ChannelBearing)] {
        assert_eq!(dials(&desk.want(ids[index], index, tag)), []);
        assert_eq!(desk.state(ids[index]), Some(PeerState::Awaited));
    }
    // Neither a place that comes free, nor the end of a wait, nor a second word of the same kind lets one begin.
    let failed = desk.feed(Input::DialFailed {
        link: under_way,
        failure: Failure::Unreachable,
    });
    desk.now = desk.now.after(retry(&failed).unwrap());
    assert_eq!(dials(&desk.feed(Input::Tick)), []);
    assert_eq!(dials(&desk.feed(Input::Behind(true))), []);
    // The most urgent first, as ever.
    let order: Vec<NodeId> = dials(&desk.feed(Input::Behind(false)))
        .into_iter()
        .map(|(_, peer)| peer)
        .collect();
    assert_eq!(order.len(), 3);
    assert_eq!(order[2], ids[1], "the gossip peer is the last");
}

#[test]
fn p5_a_lapse_ends_the_pause_and_the_next_session_begins_without_it() {
    let mut desk = Desk::new();
    let peer = peers(1)[0];
    desk.attach();
    desk.feed(Input::Behind(true));
    desk.want(peer, 0, Tag::ChannelBearing);
    assert_eq!(desk.feed(Input::Lapsed), [Output::Held(peer)]);
    assert_eq!(desk.state(peer), Some(PeerState::Held));
    assert_eq!(dials(&desk.attach()).len(), 1);
    // A session that is behind from its first moment on.
    let mut desk = Desk::new();
    desk.want(peer, 0, Tag::ChannelBearing);
    desk.feed(Input::Behind(true));
    assert_eq!(dials(&desk.attach()), []);
    assert_eq!(desk.state(peer), Some(PeerState::Awaited));
}

// --- failures that are ours or the signer's ---

/// The wait after each of so many failures of ours in a row.
fn our_failures(desk: &mut Desk, peer: NodeId, count: u32) -> Vec<Duration> {
    let mut link = dials(&desk.want(peer, 0, Tag::GossipOnly))[0].0;
    let mut waits = Vec::new();
    for _ in 0..count {
        let failure = Failure::Ours;
        let wait = retry(&desk.feed(Input::DialFailed { link, failure })).unwrap();
        desk.now = desk.now.after(wait);
        link = dials(&desk.feed(Input::Tick))[0].0;
        waits.push(wait);
    }
    let failure = Failure::Ours;
    desk.feed(Input::DialFailed { link, failure });
    waits
}

#[test]
fn what_the_signer_fails_is_not_held_against_the_peer() {
    let mut desk = Desk::new();
    let peer = peers(1)[0];
    desk.attach();
    for (failures, wait) in our_failures(&mut desk, peer, 12).into_iter().enumerate() {
        let doubled = limits::BACKOFF_FIRST
            .saturating_mul(2_u32.pow(u32::try_from(failures).unwrap()))
            .min(limits::OUR_BACKOFF_MAX);
        assert!(wait >= doubled / 2 && wait <= doubled, "{wait:?}");
    }
    // The peer's own first failure after all of this is a first failure.
    desk.now = desk.machine.deadline().unwrap();
    let link = dials(&desk.feed(Input::Tick))[0].0;
    let failed = desk.feed(Input::DialFailed {
        link,
        failure: Failure::Unreachable,
    });
    assert!(retry(&failed).unwrap() <= limits::BACKOFF_FIRST);
    // And a new session begins anew.
    desk.feed(Input::Lapsed);
    let link = dials(&desk.attach())[0].0;
    let failed = desk.feed(Input::DialFailed {
        link,
        failure: Failure::Ours,
    });
    assert!(retry(&failed).unwrap() <= limits::BACKOFF_FIRST);
}

/// A signer that refuses everything, with a thousand peers wanted: fewer than fifty connections a second once the waits have grown.
#[test]
fn p9_a_signer_that_refuses_everything_makes_no_storm_of_dials() {
    let mut desk = Desk::new();
    desk.attach();
    let ids: Vec<NodeId> = (0..1000).map(numbered).collect();
    let mut failing = std::collections::VecDeque::new();
    for id in &ids {
        failing.extend(dials(&desk.want(*id, 0, Tag::ChannelBearing)));
    }
    let mut dialled = 0;
    let (settled, over) = (Duration::from_secs(120), Duration::from_secs(220));
    loop {
        while let Some((link, _)) = failing.pop_front() {
            dialled += usize::from(desk.now.since_start() > settled);
            let failure = Failure::Ours;
            failing.extend(dials(&desk.feed(Input::DialFailed { link, failure })));
        }
        desk.now = desk.machine.deadline().unwrap();
        if desk.now.since_start() > over {
            break;
        }
        failing.extend(dials(&desk.feed(Input::Tick)));
    }
    println!("{dialled} dials in 100 s");
    assert!((3000..5000).contains(&dialled), "{dialled} dials in 100 s");
    // The first that works brings all of them back at once, up to the places there are.
    let (link, peer) = loop {
        desk.now = desk.machine.deadline().unwrap();
        if let Some(dial) = dials(&desk.feed(Input::Tick)).first() {
            break *dial;
        }
    };
    let released = dials(&desk.authenticated(link, peer, Direction::Outbound));
    assert!(released.len() > limits::DIALS_IN_FLIGHT - 50);
    assert_eq!(desk.machine.dialing(), limits::DIALS_IN_FLIGHT);
}

/// A stranger who gets through does not set off dials of ours; nor does a success after a few failures only.
#[test]
fn only_a_dial_that_works_after_a_run_of_failures_ends_the_waits() {
    for (failures, direction, ends) in [
        (limits::OUR_FAILURES, Direction::Outbound, true),
        (limits::OUR_FAILURES, Direction::Inbound, false),
        (limits::OUR_FAILURES - 1, Direction::Outbound, false),
    ] {
        let mut desk = Desk::new();
        let ids = peers(3);
        desk.attach();
        let works = dials(&desk.want(ids[1], 1, Tag::GossipOnly))[0].0;
        our_failures(&mut desk, ids[0], failures - 1);
        assert_eq!(desk.state(ids[0]), Some(PeerState::Backoff));
        let outputs = match direction {
            Direction::Outbound => desk.authenticated(works, ids[1], direction),
            Direction::Inbound => desk.authenticated(LinkId::new(1), ids[2], direction),
        };
        assert_eq!(!dials(&outputs).is_empty(), ends);
    }
}

/// No proxy, no IPv6: the peer is not to blame, and its next address is dialled, under either key.
#[test]
fn where_we_have_no_way_the_next_address_is_dialled_and_nothing_is_held_against_the_peer() {
    let mut desk = Desk::with(Policy {
        personas: true,
        gossip_floor: 1,
        ..OWN_KEY_ONLY
    });
    let peer = numbered(1);
    desk.feed(Input::Want {
        peer,
        addresses: vec![address(1), address(2)],
        tag: Some(Tag::GossipOnly),
        weight: None,
    });
    let place = |outputs: &[Output]| {
        outputs.iter().find_map(|output| match output {
            Output::Dial { link, address, .. } => Some((*link, address.clone())),
            _ => None,
        })
    };
    desk.now = desk.now.after(limits::PERSONA_GRACE);
    let mut dialled = place(&desk.feed(Input::Tick));
    let mut places = Vec::new();
    for turn in 0..8 {
        let (link, place_of) = dialled.expect("a dial");
        places.push(place_of);
        let failure = Failure::NoWay;
        let failed = desk.feed(Input::DialFailed { link, failure });
        dialled = if turn == 3 {
            place(&desk.attach())
        } else {
            desk.now = desk.now.after(retry(&failed).expect("a time"));
            place(&desk.feed(Input::Tick))
        };
    }
    let in_turn = [address(1), address(2)].into_iter().cycle();
    assert_eq!(places, in_turn.take(8).collect::<Vec<_>>());
    // The peer's own first failure is its first.
    let (link, _) = dialled.expect("a dial");
    let failure = Failure::Unreachable;
    let failed = desk.feed(Input::DialFailed { link, failure });
    assert!(retry(&failed).expect("a time") <= limits::BACKOFF_FIRST);
}

// --- personas and the gossip floor ---

/// A machine that is away with so many gossip peers known and a floor of three. Each peer has its address from `at`.
fn away(count: usize, at: impl Fn(usize) -> KnownAddress) -> (Desk, Vec<Output>) {
    let mut desk = Desk::with(Policy {
        gossip_floor: 3,
        personas: true,
        ..OWN_KEY_ONLY
    });
    for index in 0..count {
        desk.feed(Input::Want {
            peer: numbered(index),
            addresses: vec![at(index)],
            tag: Some(Tag::GossipOnly),
            weight: None,
        });
    }
    assert_eq!(desk.machine.dialing(), 0, "a signer may be about to come");
    desk.now = desk.now.after(limits::PERSONA_GRACE);
    let outputs = desk.feed(Input::Tick);
    (desk, outputs)
}

/// The numbers of the personas that dial.
fn personas(outputs: &[Output]) -> Vec<u64> {
    let persona = |output: &Output| match output {
        Output::Dial { persona, .. } => *persona,
        _ => None,
    };
    outputs.iter().filter_map(persona).collect()
}

/// A node that has just been set up: no signer, no peer, and nobody says anything.
#[test]
fn p7_what_is_missing_is_told_even_if_nothing_is_heard_from_the_start() {
    let mut desk = Desk::with(Policy {
        gossip_floor: 5,
        ..Policy::default()
    });
    assert_eq!(desk.machine.deadline(), Some(Moment::START), "at once");
    assert_eq!(desk.feed(Input::Tick), []);
    desk.now = desk.machine.deadline().expect("the absence has begun");
    assert_eq!(desk.now, Moment::START.after(limits::PERSONA_GRACE));
    let told = Output::FloorMissing {
        missing: 5,
        wanted: 5,
    };
    assert_eq!(desk.feed(Input::Tick), [told]);
    assert_eq!(desk.machine.deadline(), None);
}

#[test]
fn p7_only_what_is_missing_is_dialled_and_a_peer_that_keeps_silent_is_not_waited_for() {
    let (mut desk, outputs) = away(10, address);
    assert_eq!(personas(&outputs), [1, 1, 1]);
    assert!(outputs.contains(&Output::FloorMissing {
        missing: 3,
        wanted: 3
    }));
    let dialled = dials(&outputs);
    // Two come up, the third says nothing: another is dialled beside it.
    for (link, peer) in &dialled[..2] {
        assert_eq!(personas(&desk.bring_up(*link, *peer)), [0_u64; 0]);
    }
    desk.now = desk.now.after(limits::PERSONA_OVERDUE);
    assert_eq!(personas(&desk.feed(Input::Tick)), [1]);
    // One refuses: the next is dialled in the same instant.
    let failure = Failure::Unreachable;
    let link = dialled[2].0;
    assert_eq!(
        personas(&desk.feed(Input::DialFailed { link, failure })),
        [0_u64; 0]
    );
}

/// By way of Tor a circuit has to be built first: neither an onion service nor, where all personas go that way, an address is given up so
/// soon.
#[test]
fn p7_a_dial_by_way_of_tor_is_waited_for_longer() {
    let onion = |index: usize| {
        let service = OnionService::of_key([u8::try_from(index).unwrap() + 1; 32]);
        KnownAddress::from(PeerAddress::Onion {
            service,
            port: 9735,
        })
    };
    for (personas_by_proxy, at) in [
        (false, &onion as &dyn Fn(usize) -> KnownAddress),
        (true, &address),
    ] {
        let mut desk = Desk::with(Policy {
            gossip_floor: 1,
            personas: true,
            onions: true,
            personas_by_proxy,
            ..OWN_KEY_ONLY
        });
        for index in 0..2 {
            desk.feed(Input::Want {
                peer: numbered(index),
                addresses: vec![at(index)],
                tag: Some(Tag::GossipOnly),
                weight: None,
            });
        }
        desk.now = desk.now.after(limits::PERSONA_GRACE);
        assert_eq!(personas(&desk.feed(Input::Tick)), [1]);
        let begun = desk.now;
        desk.now = begun.after(limits::PERSONA_OVERDUE);
        assert_eq!(personas(&desk.feed(Input::Tick)), [0_u64; 0]);
        desk.now = begun.after(limits::PERSONA_OVERDUE_BY_PROXY);
        assert_eq!(personas(&desk.feed(Input::Tick)), [1], "beside the other");
    }
}

/// Where there are others to be dialled an onion service comes after them, and one that was lost and keeps silent does not leave the floor short
/// for long.
#[test]
fn p7_a_silent_onion_service_keeps_no_other_peer_from_being_dialled() {
    let at = |index: usize| {
        if index > 0 {
            return address(index);
        }
        let service = OnionService::of_key([9; 32]);
        KnownAddress::from(PeerAddress::Onion {
            service,
            port: 9735,
        })
    };
    let mut desk = Desk::with(Policy {
        gossip_floor: 1,
        personas: true,
        onions: true,
        ..OWN_KEY_ONLY
    });
    for index in 0..3 {
        desk.feed(Input::Want {
            peer: numbered(index),
            addresses: vec![at(index)],
            tag: Some(Tag::GossipOnly),
            // The onion service is the heaviest.
            weight: Some(3 - u32::try_from(index).unwrap()),
        });
    }
    desk.now = desk.now.after(limits::PERSONA_GRACE);
    let dialled = dials(&desk.feed(Input::Tick));
    assert_eq!(dialled.len(), 1);
    assert_eq!(dialled[0].1, numbered(1));
    // That one refuses, and the onion service is lost: it goes first, and after two seconds another beside it.
    let back = desk.attach();
    let failure = Failure::SignerAway;
    let link = dialled[0].0;
    desk.feed(Input::DialFailed { link, failure });
    let (link, onion) = *dials(&back)
        .iter()
        .find(|(_, peer)| *peer == numbered(0))
        .unwrap();
    desk.bring_up(link, onion);
    desk.feed(Input::Lapsed);
    for (link, _) in dials(&back).into_iter().filter(|(_, of)| *of != onion) {
        desk.feed(Input::DialFailed { link, failure });
    }
    desk.now = desk.now.after(limits::PERSONA_GRACE);
    assert_eq!(dials(&desk.feed(Input::Tick)), [], "the floor is whole");
    let reason = CloseReason::PeerClosed;
    let beside = dials(&desk.feed(Input::Ended { link, reason }));
    assert_eq!(
        beside[0].1,
        numbered(1),
        "at once, while the lost one cools down"
    );
    let link = beside[0].0;
    let failure = Failure::Unreachable;
    let next = dials(&desk.feed(Input::DialFailed { link, failure }));
    assert_eq!(next[0].1, numbered(2));
    // That one keeps silent. The lost one is dialled again, and keeps silent too: the first gets its turn in two seconds.
    let begun = desk.now;
    let mut after = Vec::new();
    while desk.now < begun.after(limits::BACKOFF_FIRST + limits::PERSONA_OVERDUE) {
        desk.now = desk.now.after(Duration::from_millis(250));
        after.extend(dials(&desk.feed(Input::Tick)));
    }
    let order: Vec<NodeId> = after.iter().map(|(_, peer)| *peer).collect();
    assert_eq!(order, [onion, numbered(1)]);
}

/// The node has said meanwhile that the peer bears a channel. Only who dials us again and again waits for its refusal; our own dial ends at
/// once, and is made again when the signer returns.
#[test]
fn a_dial_of_ours_under_the_cached_identity_to_a_peer_that_was_promoted_ends_at_once() {
    let mut desk = Desk::with(Policy {
        cached_identity: true,
        ..OWN_KEY_ONLY
    });
    desk.feed(Input::Declare(vec![]));
    let peer = peers(1)[0];
    let dialled = dials(&desk.want(peer, 0, Tag::GossipOnly));
    let (link, _) = dialled[0];
    desk.feed(Input::Tag(peer, Tag::ChannelBearing));
    // It dials us, too: the first time it is refused at once.
    let inbound = LinkId::new(1);
    let reason = CloseReason::SignerAway;
    let outputs = desk.authenticated(inbound, peer, Direction::Inbound);
    assert!(outputs.contains(&Output::Refuse {
        link: inbound,
        reason
    }));
    desk.feed(Input::Withdrawn(inbound));
    let outputs = desk.authenticated(link, peer, Direction::Outbound);
    assert!(outputs.contains(&Output::Refuse { link, reason }));
    let failure = Failure::SignerAway;
    desk.feed(Input::DialFailed { link, failure });
    assert_eq!(desk.state(peer), Some(PeerState::Held));
    assert_eq!(dials(&desk.attach())[0].1, peer);
}

/// A peer that claims a channel may be mis-tagged: a mere suspicion changes no tag, and no persona dials it in this absence.
#[test]
fn p7_a_peer_that_claims_a_channel_meets_no_persona() {
    let (mut desk, outputs) = away(3, address);
    let (link, peer) = dials(&outputs)[0];
    desk.bring_up(link, peer);
    let reason = CloseReason::Mistag;
    assert_eq!(dials(&desk.feed(Input::Ended { link, reason })), []);
    desk.now = desk.now.after(Duration::from_secs(3600));
    assert!(
        !dials(&desk.feed(Input::Tick))
            .iter()
            .any(|(_, of)| *of == peer)
    );
    assert_eq!(desk.machine.tag_of(peer), Tag::GossipOnly);
    // Nor when the node asks for it: only the signer's return, with the node's own key.
    let want = Input::Want {
        peer,
        addresses: vec![],
        tag: None,
        weight: None,
    };
    assert_eq!(dials(&desk.feed(want)), []);
    assert!(dials(&desk.attach()).iter().any(|(_, of)| *of == peer));
}

/// Whoever was lost is dialled again though enough others are left; nobody else is, also when he alone would bring another network.
#[test]
fn p7_a_lost_peer_alone_is_dialled_again_when_the_floor_is_there() {
    let mut desk = Desk::with(Policy {
        gossip_floor: 3,
        personas: true,
        ..OWN_KEY_ONLY
    });
    // The first two are in one network, everybody else is in one of his own.
    for index in 0..60_u8 {
        let address = SocketAddr::from(([192, index.max(1), 0, 1], 9735));
        desk.feed(Input::Want {
            peer: numbered(index.into()),
            addresses: vec![address.into()],
            tag: Some(Tag::GossipOnly),
            weight: None,
        });
    }
    let dialled = dials(&desk.attach());
    let link_of = |index| {
        let of = |(_, peer): &&(LinkId, NodeId)| *peer == numbered(index);
        dialled.iter().find(of).unwrap().0
    };
    for index in 0..4 {
        let (link, peer) = (link_of(index), numbered(index));
        desk.feed(Input::Authenticated {
            link,
            peer,
            direction: Direction::Outbound,
            address: desk.machine.peer(peer).unwrap().addresses()[0]
                .address
                .clone(),
        });
        desk.feed(Input::Up(link));
    }
    desk.feed(Input::Lapsed);
    for index in 4..60 {
        desk.feed(Input::DialFailed {
            link: link_of(index),
            failure: Failure::SignerAway,
        });
    }
    desk.now = desk.now.after(limits::PERSONA_GRACE);
    assert_eq!(dials(&desk.feed(Input::Tick)), []);
    let link = link_of(0);
    let reason = CloseReason::PeerClosed;
    assert_eq!(dials(&desk.feed(Input::Ended { link, reason })), []);
    desk.now = desk.now.after(limits::BACKOFF_FIRST);
    let again: Vec<_> = dials(&desk.feed(Input::Tick))
        .into_iter()
        .map(|(_, peer)| peer)
        .collect();
    assert_eq!(again, [numbered(0)]);
}

/// A link that has not come up was not lost with the network: while the floor is there, nobody dials its peer under a persona.
#[test]
fn p7_a_peer_whose_link_had_not_come_up_is_no_lost_one() {
    let mut desk = Desk::with(Policy {
        gossip_floor: 1,
        personas: true,
        ..OWN_KEY_ONLY
    });
    let ids = peers(2);
    desk.attach();
    let up = dials(&desk.want(ids[0], 0, Tag::GossipOnly))[0].0;
    desk.bring_up(up, ids[0]);
    let link = dials(&desk.want(ids[1], 1, Tag::GossipOnly))[0].0;
    desk.authenticated(link, ids[1], Direction::Outbound);
    desk.feed(Input::Lapsed);
    desk.now = desk.now.after(limits::PERSONA_GRACE);
    assert_eq!(dials(&desk.feed(Input::Tick)), []);
    let reason = CloseReason::InitTimeout;
    desk.feed(Input::Ended { link, reason });
    desk.now = desk.now.after(limits::BACKOFF_MAX);
    assert_eq!(dials(&desk.feed(Input::Tick)), []);
}

/// Who has dialled us may have done so to be the only one we hear from: the floor is of peers that the node wants.
#[test]
fn p7_strangers_do_not_keep_the_floor_from_being_dialled() {
    let mut desk = Desk::with(Policy {
        gossip_floor: 3,
        personas: true,
        ..OWN_KEY_ONLY
    });
    desk.feed(Input::Declare(vec![]));
    let dialled = desk.attach();
    assert_eq!(dials(&dialled), []);
    for stranger in 1..=3_u8 {
        let link = LinkId::new(2 * u64::from(stranger) + 1);
        desk.feed(Input::Authenticated {
            link,
            peer: numbered(usize::from(stranger)),
            direction: Direction::Inbound,
            address: SocketAddr::from(([192, stranger, 0, 1], 9735)).into(),
        });
        desk.feed(Input::Up(link));
    }
    desk.feed(Input::Lapsed);
    // One of those who are wanted is in a network that a stranger is in too: that says nothing against it.
    for index in 0..3_u8 {
        desk.feed(Input::Want {
            peer: numbered(10 + usize::from(index)),
            addresses: vec![SocketAddr::from(([192, 3 + index, 0, 2], 9735)).into()],
            tag: Some(Tag::GossipOnly),
            weight: None,
        });
    }
    desk.now = desk.now.after(limits::PERSONA_GRACE);
    let outputs = desk.feed(Input::Tick);
    assert_eq!(personas(&outputs), [1, 1, 1]);
    // Nothing is missing meanwhile: gossip comes, from whomever.
    let told = |output: &Output| matches!(output, Output::FloorMissing { .. });
    assert!(!outputs.iter().any(told), "{outputs:?}");
}

/// All but two of a hundred peers are in one network: those two are among the first that are dialled.
#[test]
fn p7_the_floor_spans_distinct_networks_as_far_as_there_are_any() {
    for seed in 0..20_usize {
        let at = |index: usize| {
            let third = u8::try_from(index).unwrap();
            let second = if index == seed {
                7
            } else if index == seed + 20 {
                8
            } else {
                9
            };
            SocketAddr::from(([192, second, third, 1], 9735)).into()
        };
        let (_, outputs) = away(60, at);
        let networks: BTreeSet<u8> = outputs
            .iter()
            .filter_map(|output| match output {
                Output::Dial { address, .. } => match address.address.ip()? {
                    IpAddr::V4(ip) => Some(ip.octets()[1]),
                    IpAddr::V6(_) => None,
                },
                _ => None,
            })
            .collect();
        assert_eq!(networks, BTreeSet::from([7, 8, 9]));
    }
}

/// One persona an absence; the same one when the signer only flaps; never more than four new ones in an hour.
#[test]
fn p7_a_persona_is_kept_across_flaps_and_new_ones_are_few() {
    let (mut desk, outputs) = away(3, address);
    let mut used = BTreeSet::from_iter(personas(&outputs));
    assert_eq!(used, BTreeSet::from([1]));
    let mut absence = |desk: &mut Desk, live_for: Duration| {
        desk.attached = 0;
        desk.attach();
        let open: Vec<LinkId> = desk
            .machine
            .peers()
            .filter_map(|(_, peer)| peer.persona_link())
            .collect();
        for link in open {
            desk.feed(Input::DialFailed {
                link,
                failure: Failure::Duplicate,
            });
        }
        desk.now = desk.now.after(live_for);
        desk.feed(Input::Lapsed);
        let own: Vec<LinkId> = desk
            .machine
            .peers()
            .filter_map(|(id, _)| {
                (1..2000)
                    .map(LinkId::new)
                    .find(|link| desk.machine.owner(*link) == Some(id))
            })
            .collect();
        for link in own {
            desk.feed(Input::DialFailed {
                link,
                failure: Failure::SignerAway,
            });
        }
        desk.now = desk.now.after(limits::PERSONA_GRACE);
        let of = personas(&desk.feed(Input::Tick));
        assert_eq!(of.len(), 3);
        used.extend(of);
        *used.last().unwrap()
    };
    for _ in 0..5 {
        assert_eq!(absence(&mut desk, Duration::from_secs(30)), 1, "it flaps");
    }
    // Sessions of ten minutes and more: each absence is one of its own, up to four in an hour.
    let long: Vec<u64> = (0..9)
        .map(|_| absence(&mut desk, limits::STABLE_AFTER))
        .collect();
    assert_eq!(long[..3], [2, 3, 4]);
    assert!(long[8] > 4, "{long:?}");
    assert!(long.windows(2).all(|pair| pair[1] - pair[0] <= 1));
    assert_eq!(
        long.iter().collect::<BTreeSet<_>>().len(),
        usize::try_from(long[8] - 1).unwrap()
    );
    println!("{long:?}");
}

/// A new key is no way round a refusal: who has turned a persona away is not met by the next absence's before that wait is over, though
/// the node itself has been there meanwhile. Where nobody answered, nothing was refused.
#[test]
fn p7_a_peer_that_refuses_a_persona_meets_no_other_before_the_wait_is_over() {
    for failure in [Failure::Handshake, Failure::Unreachable] {
        let (mut desk, outputs) = away(1, address);
        let (mut link, peer) = dials(&outputs)[0];
        let until = loop {
            let wait = retry(&desk.feed(Input::DialFailed { link, failure })).unwrap();
            let until = desk.now.after(wait);
            // Longer than a session that makes the next absence one of its own.
            if wait > limits::STABLE_AFTER * 3 / 2 {
                break until;
            }
            let looked_for = desk.now.after(limits::FLOOR_AGAIN);
            let next = match failure {
                Failure::Handshake => until,
                _ => until.min(looked_for),
            };
            assert_eq!(desk.machine.deadline(), Some(next), "{failure:?}");
            desk.now = until;
            let again = desk.feed(Input::Tick);
            assert_eq!(personas(&again), [1], "the same persona in one absence");
            link = dials(&again)[0].0;
        };
        let own = dials(&desk.attach())[0].0;
        desk.bring_up(own, peer);
        desk.now = desk.now.after(limits::STABLE_AFTER);
        desk.feed(Input::Tick);
        desk.feed(Input::Lapsed);
        let reason = CloseReason::PeerClosed;
        desk.feed(Input::Ended { link: own, reason });
        let dialled = loop {
            desk.now = desk.machine.deadline().unwrap();
            let outputs = desk.feed(Input::Tick);
            if let Some(persona) = personas(&outputs).first() {
                assert_eq!(*persona, 2);
                break desk.now;
            }
        };
        if failure == Failure::Handshake {
            assert_eq!(dialled, until);
        } else {
            assert!(dialled < until);
        }
    }
}

/// Who has kept a persona's link for a while and then goes away has refused nothing: the next absence may meet it. Who ends it at once, or
/// breaks the protocol on it, does not want it.
#[test]
fn p7_only_a_persona_that_is_turned_away_is_kept_away() {
    let (soon, late) = (limits::PERSONA_TAKEN / 2, limits::PERSONA_TAKEN);
    let cases = [
        (late, CloseReason::PeerClosed, true),
        (late, CloseReason::Io, true),
        (late, CloseReason::PongTimeout, true),
        (soon, CloseReason::PeerClosed, false),
        (soon, CloseReason::Io, false),
        (late, CloseReason::Protocol, false),
        (late, CloseReason::QueryFlood, false),
    ];
    for (lived, reason, went_away) in cases {
        let (mut desk, outputs) = away(1, address);
        let (mut link, peer) = dials(&outputs)[0];
        let until = loop {
            desk.bring_up(link, peer);
            desk.now = desk.now.after(lived);
            desk.feed(Input::Ended { link, reason });
            let due = desk.machine.peer(peer).unwrap().due().unwrap();
            if due.since(desk.now) > limits::STABLE_AFTER {
                break due;
            }
            desk.now = due;
            link = dials(&desk.feed(Input::Tick))[0].0;
        };
        let own = dials(&desk.attach())[0].0;
        desk.bring_up(own, peer);
        desk.feed(Input::Lapsed);
        let reason = CloseReason::PeerClosed;
        desk.feed(Input::Ended { link: own, reason });
        let dialled = loop {
            desk.now = desk.machine.deadline().unwrap();
            if !personas(&desk.feed(Input::Tick)).is_empty() {
                break desk.now;
            }
        };
        assert_eq!(dialled < until, went_away, "{reason:?} after {lived:?}");
        assert!(went_away || dialled == until, "{reason:?} after {lived:?}");
    }
}

/// Who was dialled when until `end`, in a network that is back at some moment, and takes nobody anywhere before it.
fn dials_until(
    desk: &mut Desk,
    mut outputs: Vec<Output>,
    back: Moment,
    end: Moment,
) -> Vec<(Moment, NodeId)> {
    let mut dialled = Vec::new();
    loop {
        let mut open = VecDeque::from(dials(&outputs));
        while let Some((link, peer)) = open.pop_front() {
            dialled.push((desk.now, peer));
            let then = if desk.now >= back {
                desk.bring_up(link, peer)
            } else {
                let failure = Failure::Unreachable;
                desk.feed(Input::DialFailed { link, failure })
            };
            open.extend(dials(&then));
        }
        match desk.machine.deadline().filter(|at| *at <= end) {
            Some(at) => desk.now = at,
            None => return dialled,
        }
        outputs = desk.feed(Input::Tick);
    }
}

/// After hours without a network every peer has failed often enough to wait for an hour. As many as the floor needs are found within seconds all
/// the same, and the search for them is no storm: nobody is dialled twice in half a minute, and one a second of all.
#[test]
fn p7_a_network_that_is_back_after_hours_is_noticed_within_seconds() {
    const HOUR: Duration = Duration::from_secs(3600);
    const COUNT: usize = 60;
    let (mut desk, outputs) = away(COUNT, address);
    let back = desk.now.after(6 * HOUR);
    let dialled = dials_until(&mut desk, outputs, back, back.after(HOUR));
    let late: Vec<&(Moment, NodeId)> = dialled.iter().filter(|(at, _)| *at >= back).collect();
    assert_eq!(late.len(), 3, "as many as the floor needs, and no more");
    let took = late[2].0.since(back);
    assert!(took <= 3 * limits::FLOOR_SEEKS_EVERY, "{took:?}");
    // Once the doubled waits are long.
    let steady = back.since_start().saturating_sub(HOUR);
    let hour: Vec<&(Moment, NodeId)> = dialled
        .iter()
        .filter(|(at, _)| *at < back && at.since_start() >= steady)
        .collect();
    // One a second, and the few whose hour is over.
    let most = usize::try_from(HOUR.as_secs()).unwrap() + 3 * COUNT;
    assert!(
        hour.len() <= most && hour.len() > most / 2,
        "{}",
        hour.len()
    );
    for peer in (0..COUNT).map(numbered) {
        let times: Vec<Moment> = hour
            .iter()
            .filter(|(_, of)| *of == peer)
            .map(|(at, _)| *at)
            .collect();
        let gaps = times.windows(2).map(|pair| pair[1].since(pair[0]));
        assert!(gaps.min().unwrap() >= limits::FLOOR_AGAIN, "{times:?}");
    }
}

/// A search is for the floor: when that is there, a peer that is gone waits as long as it must.
#[test]
fn p9_nobody_is_looked_for_while_the_floor_is_there_or_the_signer_or_in_a_drain() {
    let ended: [fn(&mut Desk); 3] = [
        |desk| {
            // One more is wanted, and comes up: the floor is there.
            let peer = numbered(7);
            let link = dials(&desk.want(peer, 7, Tag::GossipOnly))[0].0;
            desk.bring_up(link, peer);
        },
        |desk| {
            desk.attach();
        },
        |desk| {
            desk.feed(Input::Drain);
        },
    ];
    for end in ended {
        let (mut desk, outputs) = away(3, address);
        let dialled = dials(&outputs);
        for (link, peer) in &dialled[..2] {
            desk.bring_up(*link, *peer);
        }
        let (mut link, peer) = dialled[2];
        loop {
            let failure = Failure::Unreachable;
            desk.feed(Input::DialFailed { link, failure });
            let due = desk.machine.peer(peer).unwrap().due().unwrap();
            let next = desk.machine.deadline().unwrap();
            if due.since(desk.now) > 2 * limits::FLOOR_AGAIN {
                assert_eq!(next, desk.now.after(limits::FLOOR_AGAIN));
                break;
            }
            desk.now = due;
            link = dials(&desk.feed(Input::Tick))[0].0;
        }
        end(&mut desk);
        let next = desk.machine.floor_due();
        assert_eq!(next, None, "nobody is looked for");
    }
}

/// A link that was let in before the drain, and comes up before it has heard of it, does not set the clock of the persona beside it.
#[test]
fn p9_what_comes_up_in_a_drain_is_timed_no_more() {
    let (mut desk, outputs) = away(1, address);
    let (persona, peer) = dials(&outputs)[0];
    desk.bring_up(persona, peer);
    let own = dials(&desk.attach())[0].0;
    desk.authenticated(own, peer, Direction::Outbound);
    let closed = desk.feed(Input::Drain);
    let reason = CloseReason::Draining;
    for link in [own, persona] {
        assert!(closed.contains(&Output::Close { link, reason }));
    }
    assert_eq!(desk.feed(Input::Up(own)), []);
    assert_eq!(desk.machine.deadline(), None);
}

// --- a lapse and those who contend for a place ---

/// Whoever waits for the place of an incumbent was authenticated under the session that ends: were it kept, a quick return would let it
/// in, dead, and the peer's dial would come late.
#[test]
fn p6_a_lapse_refuses_every_contender_and_a_quick_return_dials_at_once() {
    let mut desk = Desk::new();
    let smaller = *peers(30).iter().find(|id| own() < **id).unwrap();
    let greater = *peers(30).iter().find(|id| own() > **id).unwrap();
    let mut incumbents = Vec::new();
    desk.attach();
    for (index, peer) in [smaller, greater].into_iter().enumerate() {
        let link = dials(&desk.want(peer, index, Tag::ChannelBearing))[0].0;
        desk.bring_up(link, peer);
        incumbents.push((link, peer));
    }
    // One contends while the incumbent is probed, one while it is closed.
    let probed = desk.authenticated(LinkId::new(1), smaller, Direction::Inbound);
    assert!(matches!(probed[..], [Output::Probe(_)]));
    let closed = desk.authenticated(LinkId::new(3), greater, Direction::Inbound);
    assert!(matches!(closed[..], [Output::Close { .. }]));
    let mut refused: Vec<LinkId> = desk
        .feed(Input::Lapsed)
        .iter()
        .filter_map(|output| match output {
            Output::Refuse { link, reason } => {
                assert_eq!(*reason, CloseReason::Lapse);
                Some(*link)
            }
            _ => None,
        })
        .collect();
    refused.sort();
    assert_eq!(refused, [LinkId::new(1), LinkId::new(3)]);
    assert_eq!(desk.machine.deadline(), None, "nobody is probed any more");
    desk.attach();
    for (link, peer) in incumbents {
        let reason = CloseReason::Lapse;
        let outputs = desk.feed(Input::Ended { link, reason });
        assert!(
            matches!(outputs[..], [Output::Dial { peer: of, .. }] if of == peer),
            "dialled at once, and no dead contender admitted: {outputs:?}"
        );
    }
    // Their own ends are late news.
    for link in refused {
        assert_eq!(desk.feed(Input::Withdrawn(link)), []);
    }
}

/// Whoever waits for a place and goes is not let in when the place is free: nobody is there, and the peer is dialled.
#[test]
fn a_contender_that_has_gone_is_not_let_in_when_the_incumbent_ends() {
    for (direction, number) in [(Direction::Inbound, 1), (Direction::Outbound, 2)] {
        let mut desk = Desk::new();
        desk.attach();
        let smaller = |id: &&NodeId| own() < **id;
        let peer = *peers(30).iter().find(smaller).unwrap();
        let (incumbent, contender) = match direction {
            Direction::Inbound => {
                let link = dials(&desk.want(peer, 0, Tag::GossipOnly))[0].0;
                desk.bring_up(link, peer);
                (link, LinkId::new(number))
            }
            Direction::Outbound => {
                let contender = dials(&desk.want(peer, 0, Tag::GossipOnly))[0].0;
                desk.authenticated(LinkId::new(1), peer, Direction::Inbound);
                desk.feed(Input::Up(LinkId::new(1)));
                (LinkId::new(1), contender)
            }
        };
        let outputs = desk.authenticated(contender, peer, direction);
        let waits = |output: &Output| !matches!(output, Output::Refuse { .. });
        assert!(outputs.iter().all(waits), "it waits: {outputs:?}");
        desk.feed(match direction {
            Direction::Inbound => Input::Withdrawn(contender),
            Direction::Outbound => Input::DialFailed {
                link: contender,
                failure: Failure::Handshake,
            },
        });
        let reason = CloseReason::PeerClosed;
        let link = incumbent;
        assert_eq!(desk.feed(Input::Ended { link, reason }), []);
        desk.now = desk.machine.deadline().unwrap();
        assert_eq!(dials(&desk.feed(Input::Tick)).len(), 1);
    }
}

// --- the table ---

/// The name of an output, without what differs from run to run.
fn name(output: &Output) -> String {
    match output {
        Output::Dial {
            persona: Some(_), ..
        } => "dial as persona".into(),
        Output::Dial { tag, .. } => format!("dial {tag}"),
        Output::Admit { tag, .. } => format!("admit {tag}"),
        Output::Refuse { reason, .. } => format!("refuse {reason}"),
        Output::Close { reason, .. } => format!("close {reason}"),
        Output::Retag { tag, .. } => format!("retag {tag}"),
        Output::Tagged { tag, .. } => format!("tagged {tag}"),
        Output::Failed {
            retry_in: Some(_), ..
        } => "failed, retry".into(),
        Output::Failed { retry_in: None, .. } => "failed".into(),
        Output::Relit { up, failed, .. } => format!("relit {up}+{failed}"),
        Output::Probe(_) => "probe".into(),
        Output::Save(_) => "save".into(),
        Output::Forget(_) => "forget".into(),
        Output::Held(_) => "held".into(),
        Output::FloorMissing { missing, .. } => format!("floor lacks {missing}"),
        Output::HeldDown { lapses, .. } => format!("held down after {lapses}"),
        other => panic!("{other:?} has no name in the table"),
    }
}

/// One of the states that a peer can be in, and the link that it is about.
struct Case {
    desk: Desk,
    peer: NodeId,
    link: LinkId,
}

const CASES: [&str; 26] = [
    "unknown, live",
    "idle, live",
    "held",
    "awaited, signer behind",
    "dialling",
    "backoff",
    "backoff, ours",
    "awaits init",
    "up, channel",
    "up, gossip",
    "up, newcomer probed",
    "up, newcomer next",
    "held down",
    "held down, newcomer waits",
    "away, unknown",
    "away, link doomed",
    "away, gossip up",
    "away, gossip lost",
    "away, suspect",
    "away, persona dials",
    "away, persona overdue",
    "away, persona cools down",
    "away, persona up",
    "back, persona dials",
    "back, persona stays",
    "draining, up",
];

/// The states of a gossip peer while no signer is there, with a floor of one link.
fn persona_case(name: &str, peer: NodeId) -> Case {
    let mut desk = Desk::with(Policy {
        gossip_floor: 1,
        personas: true,
        ..OWN_KEY_ONLY
    });
    desk.attach();
    let own = dials(&desk.want(peer, 0, Tag::GossipOnly))[0].0;
    desk.bring_up(own, peer);
    desk.feed(Input::Lapsed);
    desk.now = desk.now.after(limits::PERSONA_GRACE);
    desk.feed(Input::Tick);
    let case = |desk, link| Case { desk, peer, link };
    if name == "away, gossip up" {
        return case(desk, own);
    }
    let reason = if name == "away, suspect" {
        CloseReason::Mistag
    } else {
        CloseReason::PeerClosed
    };
    desk.feed(Input::Ended { link: own, reason });
    if name == "away, gossip lost" || name == "away, suspect" {
        return case(desk, own);
    }
    desk.now = desk.machine.deadline().unwrap();
    let link = dials(&desk.feed(Input::Tick))[0].0;
    match name {
        "away, persona dials" => {}
        "away, persona overdue" => {
            desk.now = desk.now.after(limits::PERSONA_OVERDUE);
            desk.feed(Input::Tick);
        }
        "away, persona cools down" => {
            let failure = Failure::Unreachable;
            desk.feed(Input::DialFailed { link, failure });
        }
        "back, persona dials" => drop(desk.attach()),
        _ => drop(desk.bring_up(link, peer)),
    }
    if name == "back, persona stays" {
        let own = dials(&desk.attach())[0].0;
        desk.bring_up(own, peer);
    }
    case(desk, link)
}

/// Brings a machine into a state of the table. The peer is one for which our own key is the smaller, so that our dials win.
fn case(name: &str) -> Case {
    let mut desk = Desk::new();
    let peer = *peers(30).iter().find(|id| own() < **id).unwrap();
    let mut link = LinkId::new(2);
    let tag = if name == "up, gossip" {
        Tag::GossipOnly
    } else {
        Tag::ChannelBearing
    };
    if name.contains("persona") || name.starts_with("away, gossip") || name == "away, suspect" {
        return persona_case(name, peer);
    }
    if name.starts_with("held down") {
        // Back after its second lapse.
        desk.want(peer, 0, tag);
        for _ in 0..2 {
            desk.attach();
            desk.feed(Input::Lapsed);
        }
        desk.feed(Input::DialFailed {
            link,
            failure: Failure::SignerAway,
        });
        desk.attach();
        if name == "held down, newcomer waits" {
            desk.authenticated(LinkId::new(1), peer, Direction::Inbound);
        }
        return Case { desk, peer, link };
    }
    if name == "held" {
        desk.want(peer, 0, tag);
        return Case { desk, peer, link };
    }
    desk.attach();
    match name {
        "unknown, live" => return Case { desk, peer, link },
        "away, unknown" => {
            desk.feed(Input::Lapsed);
            return Case { desk, peer, link };
        }
        "up, newcomer next" => {
            // The peer dialled, and dials again.
            link = LinkId::new(7);
            desk.feed(Input::Tag(peer, tag));
            desk.authenticated(link, peer, Direction::Inbound);
            desk.feed(Input::Up(link));
            desk.authenticated(LinkId::new(1), peer, Direction::Inbound);
            return Case { desk, peer, link };
        }
        "awaited, signer behind" => {
            desk.feed(Input::Behind(true));
            desk.want(peer, 0, tag);
            return Case { desk, peer, link };
        }
        "idle, live" => {
            desk.feed(Input::Want {
                peer,
                addresses: vec![],
                tag: Some(tag),
                weight: None,
            });
            return Case { desk, peer, link };
        }
        _ => link = dials(&desk.want(peer, 0, tag))[0].0,
    }
    match name {
        "dialling" => {}
        "backoff" => drop(desk.feed(Input::DialFailed {
            link,
            failure: Failure::Unreachable,
        })),
        "backoff, ours" => drop(desk.feed(Input::DialFailed {
            link,
            failure: Failure::Ours,
        })),
        "awaits init" => drop(desk.authenticated(link, peer, Direction::Outbound)),
        _ => drop(desk.bring_up(link, peer)),
    }
    match name {
        "up, newcomer probed" => drop(desk.authenticated(LinkId::new(1), peer, Direction::Inbound)),
        "away, link doomed" => drop(desk.feed(Input::Lapsed)),
        "draining, up" => drop(desk.feed(Input::Drain)),
        _ => {}
    }
    Case { desk, peer, link }
}

/// Every input that the table has a row for, about the case's peer and link.
fn inputs(case: &Case) -> Vec<(String, Input)> {
    let (peer, link) = (case.peer, case.link);
    let mut inputs = vec![
        (
            "want".to_owned(),
            Input::Want {
                peer,
                addresses: vec![address(9)],
                tag: None,
                weight: None,
            },
        ),
        (
            "recall".to_owned(),
            Input::Recall {
                peer,
                seen_ago: Some(Duration::from_secs(60)),
                failures: 3,
            },
        ),
        ("unwant".to_owned(), Input::Unwant(peer)),
        (
            "tag channel-bearing".to_owned(),
            Input::Tag(peer, Tag::ChannelBearing),
        ),
        (
            "tag gossip-only".to_owned(),
            Input::Tag(peer, Tag::GossipOnly),
        ),
        ("declare none".to_owned(), Input::Declare(vec![])),
        ("declare it".to_owned(), Input::Declare(vec![peer])),
        (
            "urgency".to_owned(),
            Input::Urgency(
                peer,
                Urgency {
                    pending_htlcs: 1,
                    earliest_expiry_height: 800_000,
                    csv_delay: 144,
                },
            ),
        ),
        ("attached".to_owned(), Input::Attached(case.desk.epochs[3])),
        ("lapsed".to_owned(), Input::Lapsed),
        ("signer behind".to_owned(), Input::Behind(true)),
        ("signer keeps up".to_owned(), Input::Behind(false)),
    ];
    for failure in [
        Failure::Unreachable,
        Failure::Handshake,
        Failure::WrongKey,
        Failure::SignerAway,
        Failure::Duplicate,
        Failure::Ours,
        Failure::NoWay,
    ] {
        inputs.push((
            format!("dial failed: {failure:?}").to_lowercase(),
            Input::DialFailed { link, failure },
        ));
    }
    for (direction, number) in [(Direction::Outbound, link.get()), (Direction::Inbound, 3)] {
        let link = LinkId::new(number);
        let input = Input::Authenticated {
            link,
            peer,
            direction,
            address: address(0).address,
        };
        inputs.push((format!("authenticated {}", direction.as_str()), input));
    }
    inputs.push(("up".to_owned(), Input::Up(link)));
    inputs.push(("alive".to_owned(), Input::Alive(link)));
    inputs.push(("of use".to_owned(), Input::Active(link, case.desk.now)));
    for reason in [
        CloseReason::PeerClosed,
        CloseReason::Lapse,
        CloseReason::Duplicate,
        CloseReason::Mistag,
        CloseReason::SessionAge,
    ] {
        inputs.push((format!("ended: {reason}"), Input::Ended { link, reason }));
    }
    inputs.push((
        "newcomer withdrawn".to_owned(),
        Input::Withdrawn(LinkId::new(1)),
    ));
    inputs.push(("two seconds pass".to_owned(), Input::Tick));
    inputs.push(("an hour passes".to_owned(), Input::Tick));
    inputs.push(("drain".to_owned(), Input::Drain));
    inputs
}

fn print_table() -> String {
    let mut table = String::from(
        "# What the supervisor's machine does: state of a peer, input, then outputs and the peer's state after it.\n\
         # Printed by tests/supervisor_machine.rs; PILOTLIGHT_BLESS=1 writes it anew.\n\
         # Our own key is the smaller one: of two links in opposite directions, the one that we dialled stays.\n",
    );
    for name_of_case in CASES {
        let shown = case(name_of_case);
        let at = shown
            .desk
            .state(shown.peer)
            .map_or("unknown", PeerState::as_str);
        writeln!(table, "\n{name_of_case} ({at})").unwrap();
        for (label, input) in inputs(&shown) {
            let Case { mut desk, peer, .. } = case(name_of_case);
            match label.as_str() {
                "two seconds pass" => desk.now = desk.now.after(Duration::from_secs(2)),
                "an hour passes" => desk.now = desk.now.after(Duration::from_secs(3600)),
                _ => {}
            }
            let outputs = desk.feed(input);
            let names: Vec<String> = outputs.iter().map(name).collect();
            let names = if names.is_empty() {
                "-".to_owned()
            } else {
                names.join("; ")
            };
            let after = desk.state(peer).map_or("unknown", PeerState::as_str);
            writeln!(table, "  {label:<26} {after:<9} {names}").unwrap();
        }
    }
    table
}

#[test]
fn the_transition_table_is_the_reviewed_one() {
    compare(&print_table(), "supervisor.txt");
}

/// Compares with what was reviewed, or writes it down when asked to.
fn compare(table: &str, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/tables")
        .join(file);
    if std::env::var_os("PILOTLIGHT_BLESS").is_some() {
        std::fs::write(&path, table).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (now, then)) in table.lines().zip(reviewed.lines()).enumerate() {
        assert_eq!(
            now,
            then,
            "line {} of {}; PILOTLIGHT_BLESS=1 writes it anew",
            number + 1,
            path.display()
        );
    }
    assert_eq!(
        table.lines().count(),
        reviewed.lines().count(),
        "{}",
        path.display()
    );
}

// --- random histories ---

/// A history by random numbers.
impl Choices for Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.usize(..bound)
    }

    fn flag(&mut self) -> bool {
        self.bool()
    }

    fn number(&mut self, bound: u16) -> u16 {
        self.u16(..bound)
    }
}

fn policy(seed: u64) -> Policy {
    // The signer of a history flaps all the time: some do not mind, or little.
    let hold_down = [
        Duration::ZERO,
        Duration::from_secs(2),
        limits::HOLD_DOWN_MAX,
    ];
    Policy {
        hold_down: hold_down[usize::try_from(seed % 3).unwrap()],
        gossip_floor: usize::try_from(seed % 5).unwrap(),
        personas: seed % 5 > 1,
        channel_peers: seed % 7 > 3,
        cached_identity: seed % 4 == 1,
        onions: !seed.is_multiple_of(2),
        personas_by_proxy: seed % 6 == 5,
    }
}

/// One history, from its beginning; `told` prints it.
fn history(seed: u64, told: bool) -> World<Rng> {
    let mut world = World::new(policy(seed), seed, Rng::with_seed(seed));
    world.told = told;
    for _ in 0..400 {
        world.step();
    }
    if !seed.is_multiple_of(3) {
        world.settle_away();
    }
    world.settle();
    if seed.is_multiple_of(2) {
        world.drain();
    }
    world
}

#[test]
fn whatever_happens_the_machine_keeps_its_word() {
    let first = std::env::var("PILOTLIGHT_SEED")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let seeds = first.map_or(0..200, |seed| seed..seed + 1);
    let (mut relit, mut personas, mut as_node, mut channel_peers) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        let Ok(world) = std::panic::catch_unwind(|| history(seed, first.is_some())) else {
            panic!("PILOTLIGHT_SEED={seed} tells this history");
        };
        relit += world.relit;
        personas += world.personas;
        as_node += world.met.as_node;
        channel_peers += world.met.channel_peers;
    }
    println!(
        "seeds {seeds:?}: {relit} relights; without a signer {personas} personas, {as_node} dials as the node, {channel_peers} of channel peers"
    );
    assert!(
        first.is_some() || (relit > 200 && as_node > 200 && channel_peers > 200),
        "the histories are worth something"
    );
}
