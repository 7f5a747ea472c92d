//! What the supervisor's machine costs as the roster grows: a wish, and a link that comes and goes.

use super::desk::{address, ids};
use super::epochs;
use fastrand::Rng;
use pilotlight::clock::Moment;
use pilotlight::link::{CloseReason, Direction, LinkId, Tag};
use pilotlight::supervisor::machine::{Input, Output, SupervisorMachine};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Of so many rounds the middle one counts.
const ROUNDS: usize = 5;

/// For `peers` wishes, and for one input of those that make and end a link: the median of some rounds.
pub fn measure(peers: usize) -> (Duration, Duration) {
    let (mut wishes, mut steps) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut random = Rng::with_seed(round as u64);
        let (wish, step) = once(peers, &mut random);
        wishes.push(wish);
        steps.push(step);
    }
    wishes.sort_unstable();
    steps.sort_unstable();
    (wishes[ROUNDS / 2], steps[ROUNDS / 2])
}

/// Processor time of this thread: others run beside it.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap();
    Duration::new(u64::try_from(time.tv_sec).unwrap(), nanos)
}

fn once(peers: usize, random: &mut Rng) -> (Duration, Duration) {
    let ids = ids(peers);
    let mut machine = SupervisorMachine::new(super::desk::own().node_id(), random.u64(..));
    let (now, mut out) = (Moment::START, Vec::new());
    let mut wishes: Vec<Input> = (0..peers)
        .map(|peer| Input::Want {
            peer: ids[peer],
            addresses: vec![address(peer, 0)],
            tag: Some(Tag::GossipOnly),
            weight: None,
        })
        .collect();
    random.shuffle(&mut wishes);
    let begun = cpu();
    for wish in wishes {
        machine.handle(now, wish, &mut out);
        out.clear();
    }
    let wish = cpu() - begun;
    machine.handle(now, Input::Attached(epochs(0)), &mut out);
    let mut order: Vec<usize> = (0..peers).collect();
    random.shuffle(&mut order);
    let (mut inputs, mut admitted) = (0_u32, 0);
    let begun = cpu();
    for (nth, peer) in order.iter().enumerate() {
        let link = LinkId::new(2 * nth as u64 + 1);
        out.clear();
        let came = Input::Authenticated {
            link,
            peer: ids[*peer],
            direction: Direction::Inbound,
            address: address(*peer, 0).address,
        };
        machine.handle(now, came, &mut out);
        admitted += usize::from(out.iter().any(|did| matches!(did, Output::Admit { .. })));
        machine.handle(now, Input::Up(link), &mut out);
        let reason = CloseReason::PeerClosed;
        machine.handle(now, Input::Ended { link, reason }, &mut out);
        inputs += 3;
    }
    let step = (cpu() - begun) / inputs;
    assert_eq!(admitted, peers, "every link is let in");
    assert_eq!(machine.load().peers, peers);
    (wish, step)
}
