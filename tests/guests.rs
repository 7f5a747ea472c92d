//! How many links strangers may have, and which of them goes for a newcomer: the supervisor's machine alone, as a table of cases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::link::{CloseReason, Direction, LinkId, Tag};
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::{EmbeddedSigner, Epoch, Signer, SignerContext};
use pilotlight::supervisor::machine::{Input, Output, SupervisorMachine};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

fn peer(number: u64) -> NodeId {
    let mut bytes = [0x33; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    LocalKey::from_bytes(&mut bytes).unwrap().node_id()
}

/// An address in a network of its own.
fn apart(number: u64) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, high, low, 1).into()
}

/// A session of the signer's.
fn epoch() -> Epoch {
    let own = || LocalKey::from_bytes(&mut [0x44; 32]).unwrap();
    let signer = Arc::new(EmbeddedSigner::from_key(own()));
    let context = SignerContext::new(signer.node_id());
    let challenge = context.challenge(&mut [9; 32]).unwrap();
    let answer = own().ecdh(&challenge.point());
    let proof = challenge.verify(answer).expect("the key's own answer");
    context.attach(proof, signer).unwrap().epoch()
}

/// A machine whose clock a test moves, with a signer and no channel peers.
struct Bench {
    machine: SupervisorMachine,
    now: Moment,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            machine: SupervisorMachine::new(peer(0), 1),
            now: Moment::START,
        };
        bench.take(Input::Declare(Vec::new()));
        bench
    }

    /// With a signer, and a node that has not declared its channel peers.
    fn undeclared() -> Self {
        let mut bench = Self {
            machine: SupervisorMachine::new(peer(0), 1),
            now: Moment::START,
        };
        bench.take(Input::Attached(epoch()));
        bench
    }

    fn take(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.machine.handle(self.now, input, &mut out);
        out
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }

    /// A peer dials us: its link's number, and the links that go for it.
    fn come(&mut self, number: u64, ip: IpAddr) -> Result<Vec<LinkId>, CloseReason> {
        let link = LinkId::new(2 * number + 1);
        let outputs = self.take(Input::Authenticated {
            link,
            peer: peer(number),
            direction: Direction::Inbound,
            address: SocketAddr::new(ip, 1).into(),
        });
        let mut gone = Vec::new();
        let mut admitted = Err(CloseReason::Internal);
        for output in outputs {
            match output {
                Output::Admit { link: of, .. } if of == link => admitted = Ok(()),
                Output::Refuse { link: of, reason } if of == link => admitted = Err(reason),
                Output::Close { link, reason } => {
                    assert_eq!(reason, CloseReason::Evicted);
                    gone.push(link);
                }
                _ => {}
            }
        }
        self.take(Input::Up(link));
        admitted.map(|()| gone)
    }

    fn end(&mut self, number: u64) {
        self.take(Input::Ended {
            link: LinkId::new(2 * number + 1),
            reason: CloseReason::Evicted,
        });
    }
}

fn link(number: u64) -> LinkId {
    LinkId::new(2 * number + 1)
}

const ALL: u64 = limits::STRANGERS_MAX as u64;

/// All strangers' places are taken, each from a network of its own, one a second: peers 1 to 100.
fn full() -> Bench {
    let mut bench = Bench::new();
    for number in 1..=ALL {
        assert_eq!(bench.come(number, apart(number)), Ok(vec![]));
        bench.pass(1);
    }
    bench
}

#[test]
fn p9_the_stranger_that_is_idle_the_longest_goes_for_a_newcomer() {
    let mut bench = full();
    // The first two have been of use; the third has not.
    for number in [1, 2] {
        bench.take(Input::Active(link(number), bench.now));
    }
    assert_eq!(bench.come(ALL + 1, apart(ALL + 1)), Ok(vec![link(3)]));
    // It has not ended yet, and is not told twice.
    assert_eq!(bench.come(ALL + 2, apart(ALL + 2)), Ok(vec![link(4)]));
    bench.end(3);
    bench.end(4);
    assert_eq!(bench.machine.guests().count(), limits::STRANGERS_MAX);
    // A place that comes free costs nobody his.
    bench.end(5);
    assert_eq!(bench.come(ALL + 3, apart(ALL + 3)), Ok(vec![]));
    assert_eq!(bench.come(ALL + 4, apart(ALL + 4)), Ok(vec![link(6)]));
}

#[test]
fn whom_the_node_wants_or_has_a_channel_with_is_never_closed_for_a_newcomer() {
    let mut bench = full();
    bench.take(Input::Want {
        peer: peer(1),
        addresses: vec![],
        tag: None,
        weight: None,
    });
    bench.take(Input::Tag(peer(2), Tag::GossipOnly));
    bench.take(Input::Tag(peer(3), Tag::ChannelBearing));
    // Two are protected now, so two more fit; who has merely been spoken of is not.
    for number in 1..=2 {
        assert_eq!(bench.come(ALL + number, apart(ALL + number)), Ok(vec![]));
    }
    assert_eq!(bench.come(ALL + 3, apart(ALL + 3)), Ok(vec![link(2)]));
    assert_eq!(bench.come(ALL + 4, apart(ALL + 4)), Ok(vec![link(4)]));
    // Nor does such a newcomer cost anybody his place.
    bench.take(Input::Want {
        peer: peer(900),
        addresses: vec![],
        tag: None,
        weight: None,
    });
    assert_eq!(bench.come(900, apart(900)), Ok(vec![]));
}

#[test]
fn p9_an_address_and_a_network_cost_only_themselves() {
    let mut bench = Bench::new();
    bench.come(1, apart(1)).unwrap();
    let ip = |host| IpAddr::from(Ipv4Addr::new(192, 0, 2, host));
    let per_address = limits::STRANGERS_PER_ADDRESS as u64;
    for number in 10..10 + per_address {
        assert_eq!(bench.come(number, ip(1)), Ok(vec![]));
    }
    assert_eq!(bench.come(100, ip(1)), Ok(vec![link(10)]));
    let rest = (limits::STRANGERS_PER_SUBNET - limits::STRANGERS_PER_ADDRESS) as u64;
    for number in 0..rest {
        let host = u8::try_from(number).unwrap() + 2;
        assert_eq!(bench.come(200 + number, ip(host)), Ok(vec![]));
    }
    assert_eq!(bench.come(300, ip(99)), Ok(vec![link(11)]));
}

/// Tor's daemon dials from there, on behalf of all who come through it.
#[test]
fn the_machines_own_address_may_have_all_places() {
    let mut bench = Bench::new();
    for number in 1..=ALL {
        assert_eq!(bench.come(number, Ipv4Addr::LOCALHOST.into()), Ok(vec![]));
    }
    let gone = bench.come(ALL + 1, Ipv4Addr::LOCALHOST.into());
    assert_eq!(gone, Ok(vec![link(1)]));
}

/// Whoever comes from a network that the operator protects costs nobody a link, is not counted, and is not closed for others.
#[test]
fn whoever_comes_from_a_protected_network_is_free_of_the_bounds() {
    let protected = "192.0.2.0/24".parse().unwrap();
    let mut bench = Bench::new();
    bench.machine = SupervisorMachine::new(peer(0), 1).protecting([protected].into());
    bench.take(Input::Declare(Vec::new()));
    let friend = |host| IpAddr::from(Ipv4Addr::new(192, 0, 2, host));
    // The longest idle of all, and more of one address and network than strangers may be.
    for number in 500..600 {
        assert_eq!(
            bench.come(number, friend(u8::try_from(number % 4).unwrap())),
            Ok(vec![])
        );
    }
    bench.pass(1);
    for number in 1..=ALL {
        assert_eq!(bench.come(number, apart(number)), Ok(vec![]));
        bench.pass(1);
    }
    assert_eq!(bench.come(ALL + 1, apart(ALL + 1)), Ok(vec![link(1)]));
    assert_eq!(bench.come(700, friend(9)), Ok(vec![]));
    assert_eq!(bench.come(ALL + 2, apart(ALL + 2)), Ok(vec![link(2)]));
}

/// Links in all: beyond the bound nobody who dials us is let in but whom the node wants, and a place that comes free can be had.
#[test]
fn p9_beyond_all_links_only_whom_the_node_wants_is_let_in() {
    let mut bench = Bench::new();
    let wanted = |number| Input::Want {
        peer: peer(number),
        addresses: vec![],
        tag: None,
        weight: None,
    };
    let most = limits::LINKS_MAX as u64;
    for number in 1..=most {
        bench.take(wanted(number));
        assert_eq!(bench.come(number, apart(number)), Ok(vec![]));
    }
    let stranger = most + 1;
    assert_eq!(bench.come(stranger, apart(1)), Err(CloseReason::Refused));
    bench.take(wanted(most + 2));
    assert_eq!(bench.come(most + 2, apart(2)), Ok(vec![]));
    bench.end(1);
    assert_eq!(bench.come(stranger, apart(1)), Err(CloseReason::Refused));
    bench.end(2);
    assert_eq!(bench.come(stranger, apart(1)), Ok(vec![]));
}

/// A node that has not declared its channel peers is flooded, each peer from a network of its own and for ever of use. The links have a bound,
/// and nobody is closed who has a channel, may have one, or is wanted: those whom the book knows, those to whom the node has spoken of a
/// channel, and whoever has been there for less than it takes to.
#[test]
fn p9_before_channel_peers_are_declared_a_flood_of_unknown_peers_has_a_bound() {
    let mut bench = Bench::undeclared();
    // Tags of the book count for nothing but caution: both are wanted.
    let book = |number, tag| Input::Want {
        peer: peer(number),
        addresses: vec![],
        tag,
        weight: None,
    };
    bench.take(book(1, Some(Tag::ChannelBearing)));
    bench.take(book(2, None));
    for number in 1..=3 {
        assert_eq!(bench.come(number, apart(number)), Ok(vec![]));
    }
    // The node has sent the third a channel message.
    bench.take(Input::Tag(peer(3), Tag::ChannelBearing));
    let mut since: Vec<(Moment, LinkId)> = Vec::new();
    let mut gone = BTreeSet::new();
    for number in 10..2000 {
        let newcomers = bench.come(number, apart(number)).unwrap();
        for link in newcomers {
            let (came, _) = since.iter().find(|(_, of)| *of == link).unwrap();
            let there = bench.now.since(*came);
            assert!(there >= limits::UNKNOWN_FOR, "it was there for {there:?}");
            assert!(gone.insert(link));
        }
        since.push((bench.now, link(number)));
        // Each says something all the time: it is no reason to stay.
        let talking: Vec<LinkId> = bench.machine.guests().collect();
        for link in talking {
            bench.take(Input::Active(link, bench.now));
        }
        let there = since.len() - gone.len();
        assert!(there <= limits::STRANGERS_MAX + limits::UNKNOWN_MAX);
        bench.now = bench.now.after(Duration::from_millis(200));
    }
    assert!(gone.len() > 1700, "{} have gone", gone.len());
    // Declared, they are strangers, and the bound on those holds.
    bench.take(Input::Declare(vec![peer(1), peer(3)]));
    let newcomers = bench.come(3000, apart(3000)).unwrap();
    let left = since.len() - gone.len() - newcomers.len() + 1;
    assert_eq!(left, limits::STRANGERS_MAX);
    let ours: Vec<LinkId> = (1..=3).map(link).collect();
    assert!(
        !gone
            .iter()
            .chain(&newcomers)
            .any(|link| ours.contains(link))
    );
}

/// So many at once that there is no time to find out: an address, and a network, cost only themselves, and of all the first goes.
#[test]
fn p9_unknown_peers_that_come_at_once_cost_their_own_address_and_network_first() {
    let mut bench = Bench::undeclared();
    let ip = |host| IpAddr::from(Ipv4Addr::new(192, 0, 2, host));
    bench.come(1, apart(1)).unwrap();
    let per_address = limits::UNKNOWN_PER_ADDRESS as u64;
    for number in 10..10 + per_address {
        assert_eq!(bench.come(number, ip(1)), Ok(vec![]));
    }
    assert_eq!(bench.come(30, ip(1)), Ok(vec![link(10)]));
    for number in per_address..limits::UNKNOWN_PER_SUBNET as u64 {
        let host = u8::try_from(number).unwrap() + 2;
        assert_eq!(bench.come(100 + number, ip(host)), Ok(vec![]));
    }
    assert_eq!(bench.come(200, ip(99)), Ok(vec![link(11)]));
    // From everywhere: the oldest of all, once all places are taken.
    let taken = limits::UNKNOWN_PER_SUBNET as u64 + 1;
    for number in taken..limits::UNKNOWN_MAX as u64 {
        assert_eq!(bench.come(1000 + number, apart(1000 + number)), Ok(vec![]));
    }
    assert_eq!(bench.come(2000, apart(2000)), Ok(vec![link(1)]));
    // Tor's daemon dials on behalf of all who come through it.
    let mut bench = Bench::undeclared();
    for number in 1..=limits::UNKNOWN_MAX as u64 {
        assert_eq!(bench.come(number, Ipv4Addr::LOCALHOST.into()), Ok(vec![]));
    }
}
