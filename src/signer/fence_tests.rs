//! The fence on real threads (promise P1). Interleavings are loom's business (`fence_loom.rs`); here are the rules that loom
//! cannot show (panics, `Send`, the debug check) and many rounds on the machine's own memory model.
//!
//! Not for loom: its atomics exist only inside a model.
#![cfg(not(pilotlight_loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;

use super::{Fence, GateGuard, ShardIndex};
use crate::limits::FENCE_SHARDS;
use crate::secret::assert_not_impl;

// A section belongs to one thread, and to one place in it.
assert_not_impl!(GateGuard<'static>: Send, Sync, Clone);

fn shard(turn: usize) -> ShardIndex {
    ShardIndex::spread(turn)
}

#[test]
fn a_shard_has_its_cache_lines_for_itself() {
    assert_eq!(align_of::<super::Shard>(), 128);
    assert_eq!(size_of::<Fence>(), 128 * FENCE_SHARDS);
}

#[test]
fn an_open_fence_lets_any_number_in() {
    let fence = Fence::new();
    let gates: Vec<_> = (0..100)
        .chain([usize::MAX])
        .map(|turn| fence.enter(shard(turn)).unwrap())
        .collect();
    assert_eq!(gates.len(), 101);
    drop(gates);
    fence.close();
}

/// Else the links of a node would all meet in one word.
#[test]
fn consecutive_leases_have_shards_of_their_own() {
    let fence = Fence::new();
    let words = (7..7 + FENCE_SHARDS).map(|turn| &raw const *fence.shard(shard(turn)).unwrap());
    let mut words: Vec<_> = words.collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), FENCE_SHARDS);
}

#[test]
fn p1_a_closed_fence_lets_nobody_in_by_any_shard() {
    let fence = Fence::new();
    assert!((0..FENCE_SHARDS).all(|turn| fence.is_open(shard(turn))));
    fence.close();
    for turn in (0..2 * FENCE_SHARDS).chain([usize::MAX]) {
        assert!(!fence.is_open(shard(turn)));
        assert!(fence.enter(shard(turn)).is_none());
    }
}

#[test]
fn closing_again_is_closing() {
    let fence = Fence::new();
    fence.close();
    fence.close();
    assert!(fence.enter(shard(0)).is_none());
}

#[test]
fn p1_a_thread_that_panics_inside_a_gate_leaves_it() {
    let fence = Fence::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _gate = fence.enter(shard(3)).unwrap();
        panic!("inside the gate (this panic is part of the test)");
    }));
    assert!(panicked.is_err());
    fence.close(); // would hang
}

#[test]
#[cfg(debug_assertions)]
fn closing_from_inside_a_gate_is_caught_in_debug_builds() {
    let (fence, other) = (Fence::new(), Fence::new());
    let gate = other.enter(shard(0)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| fence.close())).is_err());
    assert!(fence.is_open(shard(0)), "and nothing was changed");
    drop(gate);
    fence.close();
}

#[test]
fn p1_close_returns_after_a_section_that_was_running() {
    let (fence, left) = (Arc::new(Fence::new()), Arc::new(AtomicBool::new(false)));
    let inside = Arc::new(Barrier::new(2));
    let writer = {
        let (fence, left, inside) = (Arc::clone(&fence), Arc::clone(&left), Arc::clone(&inside));
        thread::spawn(move || {
            let gate = fence.enter(shard(5)).unwrap();
            inside.wait();
            // Until the closer has begun; and then long enough that it spins and sleeps.
            while fence.is_open(shard(5)) {
                thread::yield_now();
            }
            for _ in 0..2_000 {
                thread::yield_now();
            }
            left.store(true, SeqCst);
            drop(gate);
        })
    };
    inside.wait();
    let closers: Vec<_> = (0..3)
        .map(|_| {
            let (fence, left) = (Arc::clone(&fence), Arc::clone(&left));
            thread::spawn(move || {
                fence.close();
                left.load(SeqCst)
            })
        })
        .collect();
    assert!(closers.into_iter().all(|closer| closer.join().unwrap()));
    writer.join().unwrap();
}

/// What the sections of one fence have done.
#[derive(Default)]
struct Tally {
    inside: AtomicUsize,
    begun: AtomicUsize,
}

/// Eight threads enter and leave without pause while one closes, fence after fence. Once `close` has returned, nobody is
/// inside and nothing begins any more.
#[test]
fn p1_nothing_begins_after_close_among_eight_busy_threads() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 4_000;
    let rounds: Arc<Vec<(Fence, Tally)>> = Arc::new(
        (0..ROUNDS)
            .map(|_| (Fence::new(), Tally::default()))
            .collect(),
    );
    let threads: Vec<_> = (0..THREADS)
        .map(|me| {
            let rounds = Arc::clone(&rounds);
            thread::spawn(move || {
                for (fence, tally) in rounds.iter() {
                    // Two threads a shard: they meet in one word too.
                    while let Some(gate) = fence.enter(shard(me / 2)) {
                        tally.inside.fetch_add(1, SeqCst);
                        let nth = tally.begun.fetch_add(1, SeqCst);
                        if nth % 16 == 0 {
                            // Preempted inside, as a real section may be.
                            thread::yield_now();
                        }
                        tally.inside.fetch_sub(1, SeqCst);
                        drop(gate);
                        if nth % 8 == 0 {
                            // On two cores the closer must get a turn, or the test takes minutes.
                            thread::yield_now();
                        }
                    }
                }
            })
        })
        .collect();
    let mut seen = Vec::with_capacity(ROUNDS);
    for (index, (fence, tally)) in rounds.iter().enumerate() {
        // In the thick of it, and at a different moment each round, with no clock and no sleep.
        while tally.begun.load(SeqCst) <= index % 7 {
            thread::yield_now();
        }
        for _ in 0..index % 40 * 25 {
            std::hint::spin_loop();
        }
        fence.close();
        let (inside, begun) = (tally.inside.load(SeqCst), tally.begun.load(SeqCst));
        assert_eq!(
            inside, 0,
            "round {index}: a section was running after close"
        );
        seen.push(begun);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    for (index, ((_, tally), seen)) in rounds.iter().zip(seen).enumerate() {
        let begun = tally.begun.load(SeqCst);
        assert_eq!(begun, seen, "round {index}: a section began after close");
    }
}
