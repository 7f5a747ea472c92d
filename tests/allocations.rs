//! The hot path allocates nothing for a message in steady state, in either direction: two nodes over loopback in this process, whose
//! global allocator counts. Small messages in bulk, and one at a time with the link idle between them.
//!
//! A target of its own: what other tests allocate at the same time would be counted too.
#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; this one counts and passes on to the system's"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking and prints its figures"
)]

use bytes::Bytes;
use pilotlight::limits;
use pilotlight::link::{LinkHandle, Tag};
use pilotlight::node_id::LocalKey;
use pilotlight::signer::{EmbeddedSigner, Signer, SignerContext, SignerSession};
use pilotlight::supervisor::{Inbound, Inbox, PeerSpec, Supervisor};
use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts what is asked of the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

fn count(size: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(size as u64, Ordering::Relaxed);
}

// SAFETY: every call is passed on as it came, so what `System` promises holds; counting touches two atomics and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// An odd custom type: it passes in every mode and asks for no lease.
const CUSTOM: u16 = 32_769;
/// BOLT 2 `revoke_and_ack`: its link is in the signer's scope, so it is written and delivered inside the gate.
const CHANNEL: u16 = 133;

struct Node {
    supervisor: Supervisor,
    inbox: Inbox,
    _session: SignerSession,
}

impl Node {
    async fn new(number: u8) -> Self {
        let key = LocalKey::from_bytes(&mut [number; 32]).unwrap();
        let signer = Arc::new(EmbeddedSigner::from_key(key));
        let context = SignerContext::new(signer.node_id());
        let (supervisor, inbox) = Supervisor::builder(context.clone()).start().await.unwrap();
        let proof = context.prove(&*signer, &mut [7; 32]).await.unwrap();
        let session = context.attach(proof, signer).unwrap();
        Self {
            supervisor,
            inbox,
            _session: session,
        }
    }

    async fn up(&mut self) -> LinkHandle {
        loop {
            if let Inbound::Up { link, .. } = self.inbox.recv().await.unwrap() {
                return link;
            }
        }
    }

    async fn receive(&mut self, count: u64) {
        let mut received = 0;
        while received < count {
            if let Inbound::Message(_) = self.inbox.recv().await.unwrap() {
                received += 1;
            }
        }
    }
}

fn message(kind: u16, length: usize) -> Bytes {
    let mut message = kind.to_be_bytes().to_vec();
    message.resize(length, 7);
    message.into()
}

/// As many messages at once as a node may leave waiting and still count as one that takes them as they come: however its threads are
/// scheduled, none is copied then. At most 64.
fn batch(length: usize) -> u64 {
    let fit = (limits::INBOX_PROMPT - 1) / (length + limits::INBOX_OVERHEAD);
    fit.min(64) as u64
}

async fn bulk(link: &LinkHandle, to: &mut Node, message: &Bytes, messages: u64) {
    let batch = batch(message.len());
    for _ in 0..messages.div_ceil(batch) {
        for _ in 0..batch {
            drop(link.send(message.clone()).await.unwrap());
        }
        to.receive(batch).await;
    }
}

async fn one_by_one(link: &LinkHandle, to: &mut Node, message: &Bytes, rounds: u64) {
    for _ in 0..rounds {
        drop(link.send(message.clone()).await.unwrap());
        to.receive(1).await;
    }
}

/// Allocations and bytes of `work`, for each of so many messages.
async fn cost(messages: u64, what: &str, work: impl Future<Output = ()>) -> f64 {
    let before = (
        ALLOCATIONS.load(Ordering::Relaxed),
        BYTES.load(Ordering::Relaxed),
    );
    work.await;
    let made = ALLOCATIONS.load(Ordering::Relaxed) - before.0;
    let bytes = BYTES.load(Ordering::Relaxed) - before.1;
    println!("{what}: {made} allocations, {bytes} bytes for {messages} messages");
    made as f64 / messages as f64
}

#[test]
fn the_hot_path_allocates_nothing_for_a_message_in_steady_state() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let test = async {
        let (mut alice, mut bob) = (Node::new(1).await, Node::new(2).await);
        let address = bob.supervisor.listen("127.0.0.1:0".parse().unwrap()).await;
        let spec = PeerSpec::new(bob.supervisor.node_id(), address.unwrap());
        alice
            .supervisor
            .add_peer(spec.tagged(Tag::ChannelBearing))
            .await
            .unwrap();
        let (to_bob, _to_alice) = (alice.up().await, bob.up().await);
        for (kind, length) in [(CUSTOM, 430), (CUSTOM, 8_000), (CHANNEL, 138)] {
            let message = message(kind, length);
            bulk(&to_bob, &mut bob, &message, 64 * 50).await;
            let what = format!("{length} bytes of type {kind}, in bulk");
            let many = 64 * 200;
            let made = cost(many, &what, bulk(&to_bob, &mut bob, &message, many)).await;
            assert!(made < 0.02, "{what}: {made} allocations a message");
            one_by_one(&to_bob, &mut bob, &message, 50).await;
            let what = format!("{length} bytes of type {kind}, one by one");
            let made = cost(500, &what, one_by_one(&to_bob, &mut bob, &message, 500)).await;
            assert!(made < 0.02, "{what}: {made} allocations a message");
        }
    };
    runtime.block_on(async {
        let hung = tokio::time::timeout(Duration::from_secs(120), test).await;
        assert!(hung.is_ok(), "hung");
    });
}
