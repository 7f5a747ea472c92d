//! What is told of HTLCs that come close to their expiry while no signer is there: the supervisor's machine alone, as a list of
//! cases. The node's words go in (HTLCs, heights), the marks that are told come out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::{EmbeddedSigner, LapseReason, Signer, SignerContext};
use pilotlight::supervisor::Urgency;
use pilotlight::supervisor::machine::{Input, Output, SupervisorMachine};
use std::collections::HashMap;
use std::sync::Arc;

fn peer(number: u8) -> NodeId {
    LocalKey::from_bytes(&mut [number; 32]).unwrap().node_id()
}

fn urgency(pending_htlcs: u32, earliest_expiry_height: u32) -> Urgency {
    Urgency {
        pending_htlcs,
        earliest_expiry_height,
        csv_delay: 144,
    }
}

/// Told: the mark, how many peers, whose is the soonest, and the blocks that are left to it.
type Told = (u32, usize, NodeId, i64);

struct Bench {
    machine: SupervisorMachine,
    context: SignerContext,
    signer: Arc<EmbeddedSigner>,
}

impl Bench {
    /// No signer has come yet.
    fn waiting() -> Self {
        let signer = Arc::new(EmbeddedSigner::from_key(
            LocalKey::from_bytes(&mut [200; 32]).unwrap(),
        ));
        Self {
            machine: SupervisorMachine::new(signer.node_id(), 1),
            context: SignerContext::new(signer.node_id()),
            signer,
        }
    }

    /// A signer has come and gone.
    fn safe() -> Self {
        let mut bench = Self::waiting();
        bench.attach();
        assert_eq!(bench.lapse(), []);
        bench
    }

    fn take(&mut self, input: Input) -> Vec<Told> {
        let mut out = Vec::new();
        self.machine.handle(Moment::START, input, &mut out);
        let told = |output| match output {
            Output::Deadlines(near) => {
                let soonest = near.soonest;
                Some((near.within, near.peers, soonest.peer, soonest.blocks_left))
            }
            _ => None,
        };
        out.into_iter().filter_map(told).collect()
    }

    fn attach(&mut self) -> Vec<Told> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut entropy = [9; 32];
        let proving = self.context.prove(&*self.signer, &mut entropy);
        let proof = runtime.block_on(proving).unwrap();
        let signer = Arc::clone(&self.signer);
        let session = self.context.attach(proof, signer).unwrap();
        let epoch = session.epoch();
        let _ = session.lapse(LapseReason::Requested);
        self.take(Input::Attached(epoch))
    }

    fn lapse(&mut self) -> Vec<Told> {
        self.take(Input::Lapsed)
    }

    fn height(&mut self, height: u32) -> Vec<Told> {
        self.take(Input::Height(height))
    }

    fn htlc(&mut self, number: u8, expiry: u32) -> Vec<Told> {
        self.take(Input::Urgency(peer(number), urgency(1, expiry)))
    }
}

#[test]
fn each_mark_is_told_once_as_it_is_passed() {
    let mut bench = Bench::safe();
    assert_eq!(bench.htlc(1, 1000), []);
    let mut told = Vec::new();
    for height in 700..1100 {
        told.extend(bench.height(height));
    }
    let marks = limits::HTLC_MARKS.map(|mark| (mark, 1, peer(1), i64::from(mark)));
    assert_eq!(told, marks);
    assert_eq!(marks.map(|told| told.0), [144, 72, 36]);
    assert_eq!(
        bench.machine.soonest_deadline().unwrap().blocks_left,
        1000 - 1099
    );
}

#[test]
fn nothing_is_told_while_a_signer_is_there_and_what_is_near_is_told_as_it_goes() {
    let mut bench = Bench::safe();
    bench.attach();
    bench.htlc(1, 1000);
    bench.htlc(2, 1010);
    for height in 700..950 {
        assert_eq!(bench.height(height), []);
    }
    // 51 and 61 blocks are left: both are within the middle mark, told together; the widest says nothing more.
    assert_eq!(bench.lapse(), [(72, 2, peer(1), 51)]);
    // In the same absence, and in the next one, each is told once.
    assert_eq!(bench.height(950), []);
    bench.attach();
    assert_eq!(bench.lapse(), []);
    assert_eq!(bench.height(964), [(36, 1, peer(1), 36)]);
}

#[test]
fn a_height_that_jumps_tells_of_the_sharpest_mark_alone() {
    let mut bench = Bench::safe();
    bench.htlc(1, 1000);
    assert_eq!(bench.height(800), []);
    assert_eq!(bench.height(990), [(36, 1, peer(1), 10)]);
    assert_eq!(bench.height(991), []);
    // Several peers, each at its own mark, in one event a mark.
    let mut bench = Bench::safe();
    for (number, expiry) in [(1, 1000), (2, 1001), (3, 1050), (4, 1120), (5, 1500)] {
        assert_eq!(bench.htlc(number, expiry), []);
    }
    let told = bench.height(990);
    let expected = [
        (144, 1, peer(4), 130),
        (72, 1, peer(3), 60),
        (36, 2, peer(1), 10),
    ];
    assert_eq!(told, expected);
}

#[test]
fn blocks_that_a_reorganisation_takes_back_and_gives_again_tell_nothing_twice() {
    let mut bench = Bench::safe();
    bench.htlc(1, 1000);
    assert_eq!(bench.height(857), [(144, 1, peer(1), 143)]);
    for height in [850, 857, 855, 927] {
        assert_eq!(bench.height(height), [], "{height}");
    }
    assert_eq!(bench.height(928), [(72, 1, peer(1), 72)]);
    assert_eq!(bench.height(920), []);
    assert_eq!(bench.height(928), []);
    assert_eq!(bench.machine.soonest_deadline().unwrap().blocks_left, 72);
}

#[test]
fn another_expiry_is_another_deadline_and_none_pending_is_none() {
    let mut bench = Bench::safe();
    bench.height(900);
    assert_eq!(bench.htlc(1, 1000), [(144, 1, peer(1), 100)]);
    // The same is said again, with another HTLC behind it.
    let again = Input::Urgency(peer(1), urgency(5, 1000));
    assert_eq!(bench.take(again), []);
    // The first was settled; the next one expires later, but near enough.
    assert_eq!(bench.htlc(1, 1001), [(144, 1, peer(1), 101)]);
    assert_eq!(bench.take(Input::Urgency(peer(1), urgency(0, 1001))), []);
    assert_eq!(bench.machine.soonest_deadline(), None);
    assert_eq!(bench.height(990), []);
    // Of a peer that the node has taken off nothing is urgent.
    bench.htlc(2, 1020);
    bench.take(Input::Unwant(peer(2)));
    assert_eq!(bench.machine.soonest_deadline(), None);
    assert_eq!(bench.machine.pending().count(), 0);
    assert_eq!(bench.height(1000), []);
}

#[test]
fn what_is_told_before_the_first_signer_is_told_again_in_its_absence() {
    let mut bench = Bench::waiting();
    bench.height(900);
    assert_eq!(bench.htlc(1, 1000), [(144, 1, peer(1), 100)]);
    assert_eq!(bench.height(901), []);
    bench.attach();
    assert_eq!(bench.lapse(), [(144, 1, peer(1), 99)]);
}

#[test]
fn without_a_height_nothing_is_told_and_nothing_once_it_drains() {
    let mut bench = Bench::safe();
    assert_eq!(bench.htlc(1, 10), []);
    assert_eq!(bench.machine.soonest_deadline(), None);
    bench.take(Input::Drain);
    assert_eq!(bench.height(5), []);
}

/// Any words of the node's, in any order: at each moment the soonest is the soonest of all that is pending, nothing is told while a signer
/// is there, no mark of a deadline twice, and none is left out that should have been told.
#[test]
fn whatever_the_node_says_no_mark_is_told_twice_and_none_is_missed() {
    for seed in 0..200_u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::safe();
        let (mut height, mut live) = (1000_u32, false);
        let mut pending: HashMap<u8, (u32, Option<u32>)> = HashMap::new();
        bench.height(height);
        for step in 0..300 {
            let told = match random.u8(..10) {
                0 => {
                    live = !live;
                    if live { bench.attach() } else { bench.lapse() }
                }
                1..4 => {
                    let number = random.u8(1..6);
                    let expiry = height + random.u32(0..200);
                    if pending.get(&number).is_none_or(|it| it.0 != expiry) {
                        pending.insert(number, (expiry, None));
                    }
                    bench.htlc(number, expiry)
                }
                4 => {
                    let number = random.u8(1..6);
                    pending.remove(&number);
                    bench.take(Input::Urgency(peer(number), urgency(0, 0)))
                }
                _ => {
                    height = height.saturating_add(random.u32(0..60)).saturating_sub(20);
                    bench.height(height)
                }
            };
            let mut expected: HashMap<u32, usize> = HashMap::new();
            for (expiry, last) in pending.values_mut().filter(|_| !live) {
                let left = i64::from(*expiry) - i64::from(height);
                let mark = [36, 72, 144]
                    .into_iter()
                    .find(|mark| left <= i64::from(*mark));
                if let Some(mark) = mark.filter(|mark| last.is_none_or(|last| *mark < last)) {
                    *last = Some(mark);
                    *expected.entry(mark).or_default() += 1;
                }
            }
            let told: HashMap<u32, usize> = told.into_iter().map(|it| (it.0, it.1)).collect();
            assert_eq!(told, expected, "seed {seed}, step {step}");
            let soonest = bench.machine.soonest_deadline().map(|it| it.expiry_height);
            let first = pending.values().map(|it| it.0).min();
            assert_eq!(soonest, first, "seed {seed}, step {step}");
        }
    }
}
