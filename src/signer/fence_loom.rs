//! loom's models of the fence (promise P1): every interleaving, and every value that a relaxed load may see.
//!
//! ```text
//! RUSTFLAGS="--cfg pilotlight_loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test --release --lib --no-default-features --features aead-aws-lc loom_models
//! ```
//! What is written in a gate is written `Relaxed`: loom may then show an old value to whoever has no happens-before with the
//! writer, so that a missing `Acquire` or `Release` in the fence fails here. They never sleep and use no real time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{Fence, ShardIndex};

/// A link's socket as the far side sees it: sections that began, and sections that ended.
#[derive(Default)]
struct Wire {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Wire {
    /// One leased write. Each writer has a wire of its own, so plain stores do.
    fn write(&self, fence: &Fence, shard: usize) -> bool {
        let Some(_gate) = fence.enter(ShardIndex::spread(shard)) else {
            return false;
        };
        self.begun.store(1, Relaxed);
        self.ended.store(1, Relaxed);
        true
    }

    /// What can be seen after `close`: the number of sections, none of them half done.
    fn settled(&self) -> usize {
        let (begun, ended) = (self.begun.load(Relaxed), self.ended.load(Relaxed));
        assert_eq!(
            begun, ended,
            "a section was running, or could not be seen in full, after close"
        );
        begun
    }
}

/// Bounded to three preemptions, as loom's authors advise: without a bound these pass too, but take minutes.
/// `LOOM_MAX_PREEMPTIONS` sets another.
fn among_three_threads(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

#[test]
fn p1_an_enterer_completes_before_close_returns_or_is_refused() {
    loom::model(|| {
        let (fence, wire) = (Arc::new(Fence::new()), Arc::new(Wire::default()));
        let writer = {
            let (fence, wire) = (Arc::clone(&fence), Arc::clone(&wire));
            thread::spawn(move || wire.write(&fence, 0))
        };
        fence.close();
        let seen = wire.settled();
        assert!(fence.enter(ShardIndex::spread(0)).is_none());
        assert!(fence.enter(ShardIndex::spread(1)).is_none());
        let wrote = writer.join().unwrap();
        assert_eq!(
            seen,
            usize::from(wrote),
            "a section began after close had returned"
        );
        assert_eq!(wire.settled(), seen);
    });
}

#[test]
fn p1_close_waits_for_every_shard() {
    among_three_threads(|| {
        let fence = Arc::new(Fence::new());
        let writers: Vec<_> = (0..2)
            .map(|shard| {
                let (fence, wire) = (Arc::clone(&fence), Arc::new(Wire::default()));
                let theirs = Arc::clone(&wire);
                (wire, thread::spawn(move || theirs.write(&fence, shard)))
            })
            .collect();
        fence.close();
        let seen: Vec<_> = writers.iter().map(|(wire, _)| wire.settled()).collect();
        for ((_, writer), seen) in writers.into_iter().zip(seen) {
            assert_eq!(usize::from(writer.join().unwrap()), seen);
        }
    });
}

#[test]
fn p1_close_waits_for_every_section_of_one_shard() {
    among_three_threads(|| {
        let fence = Arc::new(Fence::new());
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (fence, wire) = (Arc::clone(&fence), Arc::new(Wire::default()));
                let theirs = Arc::clone(&wire);
                (wire, thread::spawn(move || theirs.write(&fence, 0)))
            })
            .collect();
        fence.close();
        let seen: Vec<_> = writers.iter().map(|(wire, _)| wire.settled()).collect();
        for ((_, writer), seen) in writers.into_iter().zip(seen) {
            assert_eq!(usize::from(writer.join().unwrap()), seen);
        }
    });
}

/// Both close; the second gives up waiting after one look (see there why), but where it does not, it may rely on the same.
#[test]
fn p1_each_of_two_closers_returns_only_when_the_gates_are_empty() {
    among_three_threads(|| {
        let (fence, wire) = (Arc::new(Fence::new()), Arc::new(Wire::default()));
        let writer = {
            let (fence, wire) = (Arc::clone(&fence), Arc::clone(&wire));
            thread::spawn(move || wire.write(&fence, 0))
        };
        let closer = {
            let (fence, wire) = (Arc::clone(&fence), Arc::clone(&wire));
            thread::spawn(move || fence.close_within_one_look().then(|| wire.settled()))
        };
        fence.close();
        let seen = wire.settled();
        assert!(fence.enter(ShardIndex::spread(0)).is_none());
        if let Some(theirs) = closer.join().unwrap() {
            assert_eq!(theirs, seen, "the closers disagree");
        }
        assert_eq!(usize::from(writer.join().unwrap()), seen);
    });
}

/// A link is promoted: it stores its lease under its mutex and asks afterwards whether the lease is live. The reaper closes the
/// fence and then looks at each link under that mutex. A link that neither noticed would keep a dead lease for ever.
#[test]
fn p1_a_link_promoted_during_a_lapse_notices_or_is_found() {
    loom::model(|| {
        let (fence, link) = (Arc::new(Fence::new()), Arc::new(Mutex::new(false)));
        let promotion = {
            let (fence, link) = (Arc::clone(&fence), Arc::clone(&link));
            thread::spawn(move || {
                let shard = ShardIndex::spread(0);
                if !fence.is_open(shard) {
                    return false;
                }
                *link.lock().unwrap() = true;
                fence.is_open(shard)
            })
        };
        fence.close();
        let found = *link.lock().unwrap();
        let looks_live = promotion.join().unwrap();
        assert!(
            found || !looks_live,
            "a leased link that looks live escaped the reaper"
        );
    });
}

#[test]
fn who_is_refused_sees_what_the_closer_did_before() {
    loom::model(|| {
        let (fence, reason) = (Arc::new(Fence::new()), Arc::new(AtomicUsize::new(0)));
        let writer = {
            let (fence, reason) = (Arc::clone(&fence), Arc::clone(&reason));
            thread::spawn(move || {
                if fence.enter(ShardIndex::spread(0)).is_none() {
                    assert_eq!(reason.load(Relaxed), 7);
                }
            })
        };
        reason.store(7, Relaxed);
        fence.close();
        writer.join().unwrap();
    });
}
