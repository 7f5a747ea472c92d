//! A process that runs out of something: descriptors, memory; a wall clock that jumps. After each the links live, nothing is lost, and an
//! event tells of it where there is something to tell.
//!
//! What the book itself does on a full disk is in `tests/book.rs`, a node that never reads in `tests/p9_bounds.rs`, slow clients of the admin address in
//! `tests/admin_attack.rs` and `tests/daemon.rs`. What lowers a limit of the process does so in a child of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "support/node.rs"]
#[allow(unreachable_pub, missing_docs)]
mod node;
#[path = "support/signers.rs"]
#[allow(unreachable_pub, missing_docs)]
mod signers;
#[path = "support/small_disk.rs"]
mod small_disk;

use node::{Far, Got, Node, id, init, just_before, kind_of, message, number_of, soon};
use pilotlight::book::{Book as _, SqliteBook};
use pilotlight::clock::{Clock, ManualClock, Moment, Sleep};
use pilotlight::limits;
use pilotlight::link::Tag;
use pilotlight::supervisor::{Inbound, PeerSpec};
use pilotlight::telemetry::Event;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use small_disk::Disk;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::TcpStream;

/// A type that nobody has assigned, which the node gets.
const CUSTOM: u16 = 32_769;
const CHILD: &str = "PILOTLIGHT_TEST_CHILD";

/// Runs this test again, alone in a process of its own; `true` there. By way of a shell, which can have it outlive SIGXFSZ.
fn is_child(name: &str) -> bool {
    if std::env::var_os(CHILD).is_some_and(|child| child == name) {
        return true;
    }
    let output = Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn run(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(story);
}

fn limit_to(resource: Resource, current: u64) {
    let maximum = getrlimit(resource).maximum;
    let limit = Rlimit {
        current: Some(current),
        maximum,
    };
    setrlimit(resource, limit).unwrap();
}

/// Numbered messages each way arrive, all and in order.
async fn talks(node: &mut Node, far: &mut Far, link: &pilotlight::link::LinkHandle, messages: u8) {
    for number in 0..messages {
        far.send(&message(CUSTOM, &[number])).await;
        assert_eq!(node.next_message().await.bytes, message(CUSTOM, &[number]));
        drop(link.try_send(message(CUSTOM, &[number])).unwrap());
        assert_eq!(&far.expect(CUSTOM).await[..], message(CUSTOM, &[number]));
    }
}

#[test]
fn links_outlive_a_process_without_descriptors_and_those_that_waited_come_in() {
    if !is_child("links_outlive_a_process_without_descriptors_and_those_that_waited_come_in") {
        return;
    }
    run(async {
        let mut node = Node::live().await;
        let (mut far, link) = node.accept(1).await;
        let door = node::Door::open().await;
        limit_to(Resource::Nofile, 64);
        let mut hogs = Vec::new();
        while let Ok(hog) = File::open("/dev/null") {
            hogs.push(hog);
        }
        assert!(!hogs.is_empty());
        node.watch.mark();

        // One for the stranger's own end, and none is left for ours.
        drop(hogs.pop());
        let socket = TcpStream::connect(node.address).await.unwrap();
        let (failure, detail) = node.watch.inbound_failed().await;
        assert_eq!(failure, "accept", "{detail}");
        talks(&mut node, &mut far, &link, 10).await;
        // It is tried again and again, and told once.
        for _ in 0..20 {
            node.clock.advance(limits::ACCEPT_PAUSE);
            talks(&mut node, &mut far, &link, 1).await;
        }
        let accept = |event: &Event| {
            matches!(
                event,
                Event::InboundFailed {
                    failure: "accept",
                    ..
                }
            )
        };
        assert_eq!(node.watch.count(accept), 1);
        // A dial fails, by no fault of the peer's.
        let spec = PeerSpec::new(id(2), door.address).tagged(Tag::GossipOnly);
        node.supervisor.add_peer(spec).await.unwrap();
        let (failure, detail) = node.watch.dial_failed().await;
        assert_eq!(failure, "connect", "{detail}");
        talks(&mut node, &mut far, &link, 10).await;

        // Some come free: who waited is let in, and the dial is made again.
        hogs.clear();
        let dialled = node.pass_time_until(limits::ACCEPT_PAUSE, door.accept(2));
        let mut dialled = dialled.await;
        dialled.greet().await;
        assert_eq!(node.next_up().await.peer(), id(2));
        drop(socket);
        let (mut late, late_link) = node.accept(3).await;
        talks(&mut node, &mut late, &late_link, 10).await;
        talks(&mut node, &mut far, &link, 10).await;
        assert!(link.closed().is_none());
    });
}

#[test]
fn a_peer_that_floods_a_node_that_does_not_read_stays_within_the_memory_that_there_is() {
    let name = "a_peer_that_floods_a_node_that_does_not_read_stays_within_the_memory_that_there_is";
    if !is_child(name) {
        return;
    }
    run(async {
        let mut node = Node::live().await;
        let (mut far, link) = node.accept(1).await;
        // What is taken now, and room for every bound of one link: the inbox, the outbox, what libraries need.
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        let taken = pages * rustix::param::page_size() as u64;
        let room = 3 * (limits::INBOX_BYTES + limits::OUTBOX_BYTES) as u64;
        limit_to(Resource::As, taken + room);

        let mut sent = 0;
        loop {
            let flood = message(256, &[&number_bytes(sent)[..], &vec![7; SIZE]].concat());
            let mut sending = std::pin::pin!(far.link.send(&flood));
            // The node shares this thread: a message that is not gone after so many turns of its will not go before the node reads.
            let turns = async {
                for _ in 0..2000 {
                    tokio::task::yield_now().await;
                }
            };
            let gone = tokio::select! {
                biased;
                gone = &mut sending => Some(gone),
                () = turns => None,
            };
            if let Some(gone) = gone {
                gone.unwrap();
                sent += 1;
                let bytes = u64::from(sent) * SIZE as u64;
                assert!(bytes < 4 * room, "the peer was never stopped");
                continue;
            }
            // That the node does not read is told. Then it does: the rest goes, and all are there, in order.
            node.clock.advance(limits::INBOX_STALLED_AFTER);
            assert!(node.watch.until("a stall", stall).await);
            node.watch.mark();
            let (gone, ()) = tokio::join!(sending, all_come(&mut node, sent));
            gone.unwrap();
            assert!(!node.watch.until("its end", stall).await);
            break;
        }
        println!("{sent} messages of 30 kB until the peer was stopped; all came, in order");
        assert!(link.closed().is_none());
        talks(&mut node, &mut far, &link, 10).await;
        // What could not be had in memory would have ended the process.
        assert!(sent as usize * SIZE > limits::INBOX_PER_LINK / 2);
    });
}

/// What is told of a node that does not read.
fn stall(event: &Event) -> Option<bool> {
    match event {
        Event::InboxStalled { stalled } => Some(*stalled),
        _ => None,
    }
}

/// Bytes of a message of the flood.
const SIZE: usize = 30_000;

fn number_bytes(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// The messages of the flood come, in order, up to that number.
async fn all_come(node: &mut Node, last: u32) {
    for expected in 0..=last {
        match node.next().await {
            Inbound::Message(got) => assert_eq!(number_of(&got.bytes), expected),
            other => panic!("{other:?}"),
        }
    }
}

/// Peers are added until the book fails, while the link beside goes on; then there is room, and the book has all of them in the end.
async fn fills(path: &Path, little: impl FnOnce(), room: impl FnOnce()) {
    let book = Arc::new(SqliteBook::open(path).unwrap());
    little();
    let kept = Arc::clone(&book);
    let mut node = Node::live_with(|builder| builder.book(kept)).await;
    let (mut far, link) = node.accept(1).await;
    // Nobody is there: what matters is that they are known.
    let spec = |number| PeerSpec::new(id(number), SocketAddr::from(([127, 0, 0, 1], 9)));
    let failed = |event: &Event| matches!(event, Event::BookFailed { .. });
    let mut peers = 100;
    while node.watch.count(failed) == 0 {
        peers += 1;
        assert!(peers < node::NODE, "it was never full");
        node.supervisor.add_peer(spec(peers)).await.unwrap();
        if peers % 50 == 0 {
            talks(&mut node, &mut far, &link, 1).await;
        }
    }
    talks(&mut node, &mut far, &link, 10).await;
    assert_eq!(node.lapse().await.retained, 1);
    node.attach().await;
    talks(&mut node, &mut far, &link, 10).await;

    room();
    peers += 1;
    node.supervisor.add_peer(spec(peers)).await.unwrap();
    drop(link);
    let left = peers - 100;
    let all_written = async {
        loop {
            let there = book.load().await.unwrap();
            let known = |number| there.iter().any(|record| record.node_id == id(number));
            if (101..=peers).all(known) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("all are written", all_written).await;
    println!("{left} peers: some were taken, then none, then all");
}

#[tokio::test]
async fn a_full_disk_is_told_and_what_it_did_not_take_is_written_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let instead = "a file that may not grow stands in, and no file system says that it is full";
    let Some(disk) = Disk::mount(folder.path(), instead) else {
        return;
    };
    let little = || {
        let rest = folder.path().join("rest.bin");
        let mut most = 512 * 1024;
        while std::fs::write(&rest, vec![7; most]).is_err() {
            most -= 16 * 1024;
        }
        std::fs::write(&rest, vec![7; most - 128 * 1024]).unwrap();
    };
    let room = || disk.remount("size=8m");
    fills(&folder.path().join("peers.db"), little, room).await;
}

/// What needs no disk of its own, so that every user's run has it: no file of the process may grow (EFBIG), and then it may.
#[test]
fn a_file_that_may_not_grow_is_told_and_what_it_did_not_take_is_written_when_it_may() {
    if !is_child("a_file_that_may_not_grow_is_told_and_what_it_did_not_take_is_written_when_it_may")
    {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let before = getrlimit(Resource::Fsize).maximum.unwrap_or(u64::MAX);
    let little = || limit_to(Resource::Fsize, 128 * 1024);
    let room = || limit_to(Resource::Fsize, before);
    run(fills(&folder.path().join("peers.db"), little, room));
}

/// A clock whose wall a test moves, in seconds, while its line goes on as it was.
struct Jumping {
    inner: ManualClock,
    ahead: Arc<AtomicI64>,
}

impl Clock for Jumping {
    fn now(&self) -> Moment {
        self.inner.now()
    }

    fn unix(&self) -> Duration {
        let ahead = self.ahead.load(SeqCst);
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 {
            self.inner.unix().saturating_sub(by)
        } else {
            self.inner.unix() + by
        }
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        self.inner.sleep_until(at)
    }
}

/// Nothing is told of it: nothing is decided by the wall's time, and a jump is no more to be seen from here than time that has passed.
#[tokio::test]
async fn a_wall_clock_that_jumps_moves_no_deadline_and_ends_no_link() {
    let (steady, offset) = (ManualClock::new(), Arc::new(AtomicI64::new(0)));
    let wall = Arc::new(Jumping {
        inner: steady.clone(),
        ahead: Arc::clone(&offset),
    });
    let mut node = Node::live_with(|builder| builder.clock(wall)).await;
    let (mut far, link) = node.accept(1).await;
    node.watch.mark();
    let year = 365 * 86_400;
    for jump in [year, -year, 30 * year, -60 * year, 1, -1, 0] {
        offset.store(jump, SeqCst);
        // It is woken, and has heard nothing: who took the wall's time for silence would ping.
        for number in 0..3 {
            drop(link.try_send(message(CUSTOM, &[number])).unwrap());
            far.expect(CUSTOM).await;
        }
        talks(&mut node, &mut far, &link, 3).await;
        far.send(&message(256, &[7; 400])).await;
        assert_eq!(node.next_message().await.kind(), 256);
        let snapshot = node.supervisor.snapshot();
        assert_eq!(snapshot.links.gossip_only, 1);
        assert_eq!(node.lapse().await.retained, 1);
        node.attach().await;
    }
    let ended = |event: &Event| matches!(event, Event::LinkDown { .. });
    assert_eq!(node.watch.count(ended), 0);
    // The keepalive is where it was: a ping after a minute of silence at the most, and the link's end when nobody answers it.
    offset.store(-year, SeqCst);
    steady.advance(just_before(limits::PING_AFTER_MIN));
    assert!(link.closed().is_none());
    steady.advance(limits::PING_AFTER_MAX);
    assert_eq!(kind_of(&far.expect(18).await), 18);
    offset.store(year, SeqCst);
    steady.advance(just_before(limits::PONG_DEADLINE));
    // Still there: the deadline is the line's.
    for number in 0..3 {
        drop(link.try_send(message(CUSTOM, &[number])).unwrap());
        far.expect(CUSTOM).await;
    }
    steady.advance(Duration::from_secs(1));
    assert_eq!(far.receive().await, Got::Eof);
    let mut again = Far::dial(node.address, 5, node.id()).await;
    again.send(&init()).await;
    again.expect(16).await;
}
