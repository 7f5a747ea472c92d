//! P1: once `lapse()` has returned, no write to the socket of a link in the signer's scope and no delivery of a message from one
//! begins or completes, whatever tasks are stuck and however many links there are. On real sockets.
//!
//! Each round has links of every kind: declared, promoted, leased by a channel message; dialled and inbound; idle, with far sides
//! that do not read, with tasks that write and far sides that send as fast as they can. In half of the rounds workers of the node's
//! runtime are stuck in the node's code, the inbox's consumer among them. A thread of its own lapses the session at a random point
//! of the traffic and notes how many bytes of each link the kernel holds. Then:
//! - no far side ever receives more of its link than that (it counts every byte after the handshake, to the connection's end);
//! - every far side of a leased link sees its connection end, while the stuck workers are still stuck;
//! - no `recv()` that begins later gives a message of a leased link, and no `send()` that begins later is taken;
//! - gossip links lose nothing in either direction and go on.
//!
//! Seen red: with `LinkShared::write` writing also where `lease.enter()` refuses, far sides receive more than was noted; with
//! `Inbox::deliver` not asking `may_deliver()`, messages of leased links come out of the inbox after the lapse; with
//! `LinkState::check_outbound` not looking at the lease, messages are queued after the lapse; with `reset_socket` doing
//! nothing, the far sides of links whose tasks are stuck never see the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod rig;

use fastrand::Rng;
use pilotlight::link::{CloseReason, LinkHandle, SendError, Tag};
use pilotlight::node_id::NodeId;
use pilotlight::signer::LapseReason;
use pilotlight::supervisor::{Inbound, Inbox, PeerSpec};
use pilotlight::telemetry::Event;
use rig::{CHANNEL, CUSTOM, Far, GOSSIP, Node, Wire, kind_of, number_of, numbered, runtime, until, within};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Ends a gossip stream: its number is how many came before it.
const LAST: u16 = 32_771;

/// What happens on a leased link besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Idle,
    /// The node writes all the time, and the far side does not read until the lapse has returned.
    StuckReader,
    /// The node writes all the time, and the far side reads it.
    BusyWriter,
    /// The far side writes all the time, and reads.
    BusySender,
    /// Both write all the time, and read.
    Both,
}

impl Role {
    fn node_writes(self) -> bool {
        matches!(self, Self::StuckReader | Self::BusyWriter | Self::Both)
    }

    fn far_writes(self) -> bool {
        matches!(self, Self::BusySender | Self::Both)
    }
}

/// How far a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    LinksComeUp,
    Traffic,
    LapseHasReturned,
}

/// One round's size and kind.
#[derive(Clone, Copy)]
struct Plan {
    leased: usize,
    gossip: usize,
    /// Of ten links, how many are busy.
    busy_of_ten: usize,
    /// Workers of the node's runtime that get stuck, the inbox's consumer's first. It has four.
    stuck_workers: usize,
}

/// What tasks on both sides look at.
#[derive(Default)]
struct Stage {
    /// Messages that busy writers have queued and the consumer has received.
    progress: AtomicU64,
    /// `lapse()` has returned.
    returned: AtomicBool,
    /// The consumer has received the end of every gossip stream.
    consumed: AtomicBool,
    /// There has been traffic enough. A stuck worker keeps the one task that tokio would have run on it next, whichever that is;
    /// were it the listener's, no more links would come up.
    may_stick: AtomicBool,
    stuck: AtomicUsize,
    released: Mutex<bool>,
    release: Condvar,
    violations: Mutex<Vec<String>>,
    leased: Mutex<HashSet<NodeId>>,
}

impl Stage {
    /// Blocks this thread, a worker of the node's runtime, until the test lets it go.
    fn get_stuck(&self) {
        self.stuck.fetch_add(1, SeqCst);
        let mut released = self.released.lock().unwrap();
        while !*released {
            released = self.release.wait(released).unwrap();
        }
    }

    fn let_go(&self) {
        *self.released.lock().unwrap() = true;
        self.release.notify_all();
    }

    fn violated(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }
}

/// Lets stuck workers go when a test fails, or the drop of their runtime would wait for ever.
struct LetGo(Arc<Stage>);

impl Drop for LetGo {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// A leased link as the test sees it.
struct Leased {
    handle: LinkHandle,
    /// Ends with the connection: the bytes that the far side received in all.
    far: JoinHandle<u64>,
    role: Role,
}

/// What the far side does with a leased link.
async fn far_of_leased(wire: Wire, role: Role, mut phase: watch::Receiver<Phase>) -> u64 {
    let Wire { mut reader, mut writer } = wire;
    let mut traffic = phase.clone();
    let sending = tokio::spawn(async move {
        let mut number = 0;
        traffic.wait_for(|phase| *phase != Phase::LinksComeUp).await.unwrap();
        while role.far_writes() {
            for _ in 0..16 {
                writer.queue(&numbered(if number % 2 == 0 { CUSTOM } else { CHANNEL }, number, 200));
                number += 1;
            }
            if writer.flush().await.is_err() {
                break;
            }
        }
        writer
    });
    if role == Role::StuckReader {
        phase.wait_for(|phase| *phase == Phase::LapseHasReturned).await.unwrap();
    }
    let received = reader.drain().await;
    // Held until now: its drop would close the connection from this side.
    drop(sending.await);
    received
}

/// A gossip stream from the far side: numbers from 0 until it is told, then [`LAST`].
async fn far_of_gossip(wire: Wire, finish: watch::Receiver<bool>) {
    let Wire { mut reader, mut writer } = wire;
    let sending = tokio::spawn(async move {
        let mut number = 0;
        while !(*finish.borrow() && number > 100) {
            writer.send(&numbered(GOSSIP, number, 300)).await.expect("a gossip link lives on");
            number += 1;
        }
        writer.send(&numbered(LAST, number, 10)).await.unwrap();
        writer
    });
    let mut expected = 0;
    loop {
        let message = reader.next().await.expect("a gossip link lives on");
        assert_eq!(number_of(&message), expected, "lost, repeated or out of order");
        if kind_of(&message) == LAST {
            break;
        }
        expected += 1;
    }
    drop(sending.await.unwrap());
}

/// The node's side of a gossip stream.
async fn near_of_gossip(link: LinkHandle, finish: watch::Receiver<bool>) {
    let mut number = 0;
    while !(*finish.borrow() && number > 100) {
        let _ = link.send(numbered(CUSTOM, number, 300)).await.expect("a gossip link lives on");
        number += 1;
        if number % 64 == 0 {
            link.send(numbered(CUSTOM, number, 300)).await.unwrap().flushed().await.expect("a gossip link lives on");
            number += 1;
        }
    }
    link.send(numbered(LAST, number, 10)).await.unwrap().flushed().await.unwrap();
}

/// The node's consumer. It judges each delivery by whether the lapse had returned *before* the call that gave it.
async fn consume(mut inbox: Inbox, stage: Arc<Stage>, mut sticks: bool, gossip: usize) {
    let mut expected: HashMap<NodeId, u64> = HashMap::new();
    let (mut finished, mut received) = (0, 0);
    while finished < gossip {
        let began_after = stage.returned.load(SeqCst);
        // Both ways to receive; a drained queue is waited on.
        let item = match if received % 2 == 0 { inbox.try_recv() } else { None } {
            Some(item) => item,
            None => inbox.recv().await.expect("the supervisor runs"),
        };
        let Inbound::Message(message) = item else { continue };
        received += 1;
        stage.progress.fetch_add(1, SeqCst);
        if stage.leased.lock().unwrap().contains(&message.peer) {
            if began_after {
                stage.violated(format!("a message of leased link {} was received after the lapse", message.link));
            }
        } else {
            let expected = expected.entry(message.peer).or_default();
            assert_eq!(number_of(&message.bytes), *expected, "lost, repeated or out of order");
            *expected += 1;
            finished += usize::from(message.kind() == LAST);
        }
        if sticks && stage.may_stick.load(SeqCst) {
            sticks = false;
            stage.get_stuck();
        }
    }
    stage.consumed.store(true, SeqCst);
    // It goes on receiving, so that nobody's end waits for it.
    while inbox.recv().await.is_some() {}
}

/// Writes numbered messages until the link refuses.
async fn write_busily(link: LinkHandle, stage: Arc<Stage>, mut random: Rng) {
    for number in 0.. {
        let length = if random.u8(..) == 0 { 65_535 } else { random.usize(10..1400) };
        let kind = if random.bool() { CHANNEL } else { CUSTOM };
        let began_after = stage.returned.load(SeqCst);
        match link.send(numbered(kind, number, length)).await {
            Ok(_) if began_after => stage.violated(format!("link {} took a message after the lapse", link.id())),
            Ok(_) => {}
            Err(SendError::Ended { reason: CloseReason::Lapse } | SendError::SignerAway { .. }) => return,
            Err(other) => return stage.violated(format!("a send failed with {other:?}")),
        }
        stage.progress.fetch_add(1, SeqCst);
        if number % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn role_of(index: usize, plan: Plan) -> Role {
    const BUSY: [Role; 4] = [Role::StuckReader, Role::BusyWriter, Role::BusySender, Role::Both];
    if index % 10 < plan.busy_of_ten { BUSY[index % 4] } else { Role::Idle }
}

/// Brings one link up, inbound or outbound. The far task ends with the connection.
async fn bring_up<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    far: Far,
    node: Arc<Node>,
    inbound: Option<std::net::SocketAddr>,
    tag: Tag,
    far_runtime: Handle,
    then: impl FnOnce(Wire) -> F + Send + 'static,
) -> (LinkHandle, JoinHandle<T>) {
    let (id, address, node_id) = (far.id, far.address, node.id());
    let mut events = node.supervisor.events();
    let task = far_runtime.spawn(async move {
        let wire = match inbound {
            Some(address) => far.dial(node_id, address).await,
            None => far.accept().await,
        };
        drop(far);
        then(wire).await
    });
    if inbound.is_some() {
        // The far side dials: the link is there as soon as the node has its `init`.
        rig::event(&mut events, "an inbound link", |event| match event {
            Event::LinkUp { peer, .. } if peer == id => Some(()),
            _ => None,
        })
        .await;
        loop {
            if let Some(link) = node.supervisor.link(id).await.unwrap() {
                return (link, task);
            }
            tokio::task::yield_now().await;
        }
    }
    let link = node.supervisor.connect(PeerSpec::new(id, address).tagged(tag)).await.unwrap();
    (link, task)
}

/// Makes all leased links, by every way that leads to a lease.
async fn leased_links(
    node: &Arc<Node>,
    plan: Plan,
    far_runtime: &Handle,
    phase: &watch::Receiver<Phase>,
    stage: &Stage,
) -> Vec<Leased> {
    let listening = node.supervisor.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let fars: Vec<Far> = far_runtime.block_in(|| (0..plan.leased).map(|index| Far::listen(index as u64 + 1)).collect());
    let declared = |index: usize| index % 5 > 1;
    let ids: Vec<NodeId> = fars.iter().map(|far| far.id).collect();
    stage.leased.lock().unwrap().extend(ids.iter().copied());
    let channel_peers = ids.iter().enumerate().filter(|(index, _)| declared(*index)).map(|(_, id)| *id);
    node.supervisor.declare_channel_peers(channel_peers).await.unwrap();
    // Fewer at once than the doorway takes.
    let places = Arc::new(Semaphore::new(32));
    let mut tasks = Vec::new();
    for (index, far) in fars.into_iter().enumerate() {
        let (node, places, phase, far_runtime) =
            (Arc::clone(node), Arc::clone(&places), phase.clone(), far_runtime.clone());
        let role = role_of(index, plan);
        tasks.push(tokio::spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let id = far.id;
            let inbound = (index % 3 == 0).then_some(listening);
            let tag = if declared(index) { Tag::ChannelBearing } else { Tag::GossipOnly };
            let then = move |wire| far_of_leased(wire, role, phase);
            let (handle, far) = bring_up(far, Arc::clone(&node), inbound, tag, far_runtime, then).await;
            match index % 5 {
                0 => node.supervisor.promote(id).await.unwrap(),
                1 => handle.send(numbered(CHANNEL, 0, 50)).await.unwrap().flushed().await.unwrap(),
                _ => {}
            }
            Leased { handle, far, role }
        }));
    }
    let mut links = Vec::new();
    for task in tasks {
        links.push(task.await.unwrap());
    }
    links
}

/// To make sockets where their runtime is.
trait BlockIn {
    fn block_in<T>(&self, work: impl FnOnce() -> T) -> T;
}

impl BlockIn for Handle {
    fn block_in<T>(&self, work: impl FnOnce() -> T) -> T {
        let _inside = self.enter();
        work()
    }
}

/// Lapses on a thread of its own at a random point, and takes down, as soon as `lapse()` has returned, what each link had written.
fn lapse_at(target: u64, stage: &Arc<Stage>, plan: Plan, node: &Node, near: &Handle, links: &[LinkHandle]) -> Vec<u64> {
    let started = Instant::now();
    let mut turns = 0_u64;
    let mut wait_for = |what: &str, done: &mut dyn FnMut() -> bool| {
        while !done() {
            assert!(started.elapsed().as_secs() < 120, "hung: {what}");
            turns += 1;
            if turns % 1000 == 0 {
                // A worker that gets stuck may be the one that watched the sockets: something new to do wakes another.
                near.spawn(async {});
            }
            thread::yield_now();
        }
    };
    wait_for("traffic", &mut || stage.progress.load(SeqCst) >= target);
    // One after the other, the inbox's consumer first. What stays undone in their queues from now on is tokio's affair.
    stage.may_stick.store(true, SeqCst);
    for stuck in 1..=plan.stuck_workers {
        wait_for("workers to get stuck", &mut || stage.stuck.load(SeqCst) >= stuck);
        if stuck < plan.stuck_workers {
            let stage = Arc::clone(stage);
            near.spawn(async move { stage.get_stuck() });
        }
    }
    for _ in 0..target % 500 {
        thread::yield_now();
    }
    let lapse = node.context.lapse(LapseReason::Requested);
    stage.returned.store(true, SeqCst);
    let written = links.iter().map(LinkHandle::bytes_written).collect();
    assert!(lapse.is_some(), "a session was live");
    for link in links {
        for kind in [CUSTOM, CHANNEL, GOSSIP] {
            if link.try_send(numbered(kind, 0, 10)).is_ok() {
                stage.violated(format!("link {} took a message of type {kind} after the lapse", link.id()));
            }
        }
    }
    written
}

fn round(plan: Plan, seed: u64) {
    let begun = Instant::now();
    let mut random = Rng::with_seed(seed);
    let (near, far) = (runtime("near", 4), runtime("far", 2));
    let stage = Arc::new(Stage::default());
    let _let_go = LetGo(Arc::clone(&stage));
    let (phase, on_phase) = watch::channel(Phase::LinksComeUp);
    let (finish, on_finish) = watch::channel(false);
    let (mut node, inbox) = near.block_on(Node::start(|builder| builder));
    near.block_on(node.attach());
    let session = node.session.take().unwrap();
    let node = Arc::new(node);

    // Links.
    let consumer = near.spawn(consume(inbox, Arc::clone(&stage), plan.stuck_workers > 0, plan.gossip));
    let leased = near.block_on(within("leased links", async {
        let (node, stage, far) = (Arc::clone(&node), Arc::clone(&stage), far.handle().clone());
        tokio::spawn(async move { leased_links(&node, plan, &far, &on_phase, &stage).await }).await.unwrap()
    }));
    let gossip = near.block_on(within("gossip links", async {
        let mut gossip = Vec::new();
        for index in 0..plan.gossip {
            let peer = far.handle().block_in(|| Far::listen(1_000_000 + index as u64));
            let finish = on_finish.clone();
            let then = move |wire| far_of_gossip(wire, finish);
            let made = bring_up(peer, Arc::clone(&node), None, Tag::GossipOnly, far.handle().clone(), then);
            let (link, task) = made.await;
            gossip.push((tokio::spawn(near_of_gossip(link.clone(), on_finish.clone())), task, link));
        }
        gossip
    }));
    let peers = near.block_on(node.supervisor.peers()).unwrap();
    let leases = peers.iter().filter(|peer| peer.link.as_ref().is_some_and(|link| link.leased_under.is_some())).count();
    assert_eq!(leases, plan.leased, "every link that should be is in the signer's scope, and no other");

    // Traffic, and workers that get stuck in the node's own code.
    phase.send_replace(Phase::Traffic);
    for link in leased.iter().filter(|link| link.role.node_writes()) {
        near.spawn(write_busily(link.handle.clone(), Arc::clone(&stage), random.fork()));
    }

    // The lapse, from yet another thread.
    let target = stage.progress.load(SeqCst) + random.u64(1..1000);
    let handles: Vec<LinkHandle> = leased.iter().map(|link| link.handle.clone()).collect();
    let written = {
        let (stage, node, near) = (Arc::clone(&stage), Arc::clone(&node), near.handle().clone());
        thread::spawn(move || lapse_at(target, &stage, plan, &node, &near, &handles)).join().unwrap()
    };
    phase.send_replace(Phase::LapseHasReturned);

    // Every far side of a leased link sees the end, with workers still stuck, and has received no more than was noted.
    let mut total = 0;
    for (link, written) in leased.into_iter().zip(written) {
        let received = far.block_on(within("the far side's end", link.far)).unwrap();
        assert!(
            received <= written,
            "link {} ({:?}): {received} bytes reached the far side, of {written} when the lapse returned",
            link.handle.id(),
            link.role,
        );
        assert_eq!(link.handle.bytes_written(), written, "counted after the lapse");
        total += received;
    }
    stage.let_go();

    // Gossip goes on, and nothing of it is lost.
    finish.send_replace(true);
    for (near_task, far_task, link) in gossip {
        near.block_on(within("the node's gossip", near_task)).unwrap();
        far.block_on(within("the far side's gossip", far_task)).unwrap();
        drop(link);
    }
    near.block_on(until("all gossip received", || stage.consumed.load(SeqCst)));
    near.block_on(node.torn_down(plan.leased, plan.gossip));
    drop(session);
    drop(node);
    near.block_on(within("the consumer's end", consumer)).unwrap();
    let violations = stage.violations.lock().unwrap();
    assert!(violations.is_empty(), "{} violations, the first: {}", violations.len(), violations[0]);
    println!("  {:?} {} leased and {} gossip links: {total} bytes reached the far sides of leased links", begun.elapsed(), plan.leased, plan.gossip);
}

#[test]
fn p1_nothing_passes_on_a_leased_link_after_a_lapse_has_returned() {
    let seed = rig::seed("p1_nothing_passes", 0x0051_7eaf);
    let leased = rig::affordable_links(28).saturating_sub(3);
    for turn in 0..10 {
        let plan = Plan { leased, gossip: 3, busy_of_ten: 8, stuck_workers: turn % 4 };
        round(plan, seed.wrapping_add(turn as u64));
    }
}

#[test]
fn p1_nothing_passes_on_a_thousand_leased_links_either() {
    let seed = rig::seed("p1_a_thousand", 0x1000);
    let leased = rig::affordable_links(1010).saturating_sub(10);
    round(Plan { leased, gossip: 10, busy_of_ten: 2, stuck_workers: 2 }, seed);
}

/// No worker of the node's runtime can run anything: the fence, the wiping and the resets need none.
#[test]
fn p1_a_lapse_needs_no_worker_of_the_node() {
    let (near, far) = (runtime("near", 2), runtime("far", 2));
    let stage = Arc::new(Stage::default());
    let _let_go = LetGo(Arc::clone(&stage));
    let (phase, on_phase) = watch::channel(Phase::LinksComeUp);
    let (mut node, mut inbox) = near.block_on(Node::start(|builder| builder));
    near.block_on(node.attach());
    let session = node.session.take().unwrap();
    let node = Arc::new(node);
    let plan = Plan { leased: 20, gossip: 0, busy_of_ten: 8, stuck_workers: 2 };
    let leased = near.block_on(within("links", async {
        let (node, stage, far) = (Arc::clone(&node), Arc::clone(&stage), far.handle().clone());
        tokio::spawn(async move { leased_links(&node, plan, &far, &on_phase, &stage).await }).await.unwrap()
    }));
    for link in leased.iter().filter(|link| link.role.node_writes()) {
        near.spawn(write_busily(link.handle.clone(), Arc::clone(&stage), Rng::with_seed(1)));
    }
    phase.send_replace(Phase::Traffic);
    near.block_on(until("both workers stuck", {
        let stuck = |stage: &Arc<Stage>| {
            let stage = Arc::clone(stage);
            async move { stage.get_stuck() }
        };
        near.spawn(stuck(&stage));
        near.spawn(stuck(&stage));
        let stage = Arc::clone(&stage);
        move || stage.stuck.load(SeqCst) == 2
    }));
    let lapse = session.lapse(LapseReason::Requested).unwrap();
    println!("  fence: {:?}", lapse.fence);
    stage.returned.store(true, SeqCst);
    phase.send_replace(Phase::LapseHasReturned);
    while let Some(item) = inbox.try_recv() {
        assert!(!matches!(item, Inbound::Message(_)), "received after the lapse: {item:?}");
    }
    for link in leased {
        let written = link.handle.bytes_written();
        let received = far.block_on(within("the far side's end", link.far)).unwrap();
        assert!(received <= written, "{received} bytes of {written}");
        assert!(link.handle.try_send(numbered(CUSTOM, 0, 10)).is_err());
    }
    assert_eq!(stage.stuck.load(SeqCst), 2);
    assert!(!*stage.released.lock().unwrap(), "they were stuck all the while");
    stage.let_go();
    assert_eq!(*stage.violations.lock().unwrap(), Vec::<String>::new());
}
