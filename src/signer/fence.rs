//! The gates that make a lapse take effect everywhere at once (promise P1).
//!
//! For: a write or a delivery that is allowed only while a signer session is live happens inside a gate of that session's
//! fence. When [`Fence::close`] has returned, every such section has ended and none can begin, whichever tasks are stuck and
//! however many links hold a lease. It costs the same with one link as with 10,000.
//!
//! ```text
//!            enter: +2                         each shard is one word: sections << 1 | closed
//!   open ◀──────────────▶ open, occupied
//!    │       leave: −2         │
//!    │ close: |1               │ close: |1
//!    ▼                         ▼  leave: −2
//!  closed ◀───────────────── closed, occupied        no way back: an epoch has a fence of its own
//! ```
//!
//! It never waits for I/O, never allocates after it is made, never runs user code, and is never opened again.
//!
//! # Rules inside a gate
//! Only calls that do not block; at most 16 KiB a write; no user code, tracing, metrics, waking, no drop of a signer
//! session: a section that closed its own fence would wait for itself. Debug builds check this last rule.
//!
//! # Memory orderings
//! Everything that matters happens to one word, a shard, and all changes to it are read-modify-writes. These form one
//! total order, in which each sees the latest value; so no `SeqCst` is needed, and the argument needs no second variable:
//!
//! - *Refusal.* An `enter` after `close`'s `fetch_or` in that order sees the bit and is refused. There is no window between
//!   check and entry: the addition is the check.
//! - *Completion.* An `enter` before the `fetch_or` has its count in the word, and `close` waits for zero. Leaving is a
//!   `Release`; later changes of the word, being read-modify-writes, continue its release sequence; so `close`'s `Acquire` look that
//!   finds zero synchronises with **every** section that ever left the shard. Work done in a gate happens before `close`
//!   returns.
//! - *Containment.* Entering is an `Acquire`, leaving a `Release`: the section's work cannot move out of it at either end.
//! - *Consequence.* The `fetch_or` is a `Release` and the looks of [`Fence::is_open`] and of a refused `enter` are
//!   `Acquire`: who is refused sees all that the closer did before it closed.
//!
//! # Liveness: what bounds the wait of `close`
//! Once the bit is set, the count can rise only by threads that had already looked and not yet added: `enter` looks before
//! it adds, so each thread adds at most once after that, is refused, and takes it back in its next instruction. A storm of
//! late writers therefore cannot keep a shard occupied. What remains is the sections that were running; they do not block
//! (see the rules), so each ends after the microseconds of its own work *when its thread runs*. `close` spins while
//! a section on another core would need that long; then sleeps between looks, which lets a section run that was preempted on this
//! core (a usual case on two cores), even if `close` was called with a higher real-time priority. It does not yield: a scheduler that
//! shares fairly gives the processor back only after the others' slices. Nothing waits for `close`: no section needs a lock that the
//! closer holds.
//! A thread that panics inside a gate leaves it while it unwinds; a guard that is leaked (`mem::forget`) would block
//! `close` for ever, so the guard stays inside the crate.

#[cfg(pilotlight_loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(pilotlight_loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

use std::marker::PhantomData;

#[cfg(not(pilotlight_loom))]
use crate::limits::FENCE_SLEEP_MICROS;
use crate::limits::{FENCE_SHARDS, FENCE_SPINS};

/// The lowest bit of a shard: nobody enters any more.
const CLOSED: usize = 1;
/// One section, in the bits above.
const SECTION: usize = 2;

/// One gate. Aligned to two cache lines of 64 bytes: x86 fetches them in pairs, and some 64-bit ARM cores have lines of 128.
#[repr(align(128))]
struct Shard(AtomicUsize);

/// The gates of one epoch: open when made, closed once and for ever.
pub(crate) struct Fence {
    shards: [Shard; FENCE_SHARDS],
}

/// Which gate of a fence somebody uses. Any number is valid: it is taken modulo the number of shards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardIndex(usize);

impl ShardIndex {
    /// Spreads consecutive numbers over the shards in turn.
    pub(crate) fn spread(turn: usize) -> Self {
        Self(turn)
    }
}

/// A running section. While it lives, [`Fence::close`] does not return.
///
/// Not `Send`: a section belongs to one thread, holds for microseconds, and must not survive an `await`.
#[must_use = "the gate is left when the guard is dropped"]
pub(crate) struct GateGuard<'a> {
    shard: &'a Shard,
    not_send: PhantomData<*const ()>,
}

impl Fence {
    /// An open fence.
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard(AtomicUsize::new(0))),
        }
    }

    fn shard(&self, index: ShardIndex) -> Option<&Shard> {
        self.shards.get(index.0 % FENCE_SHARDS)
    }

    /// Whether the gate is open at this moment. `true` is a hint, which may be outdated when it is read (only
    /// [`enter`](Self::enter) answers for longer); `false` is for ever.
    pub(crate) fn is_open(&self, index: ShardIndex) -> bool {
        self.shard(index)
            .is_some_and(|shard| shard.0.load(Ordering::Acquire) & CLOSED == 0)
    }

    /// Begins a section, or `None` if the fence is closed (or just closing). Never blocks.
    pub(crate) fn enter(&self, index: ShardIndex) -> Option<GateGuard<'_>> {
        let shard = self.shard(index)?;
        // The look keeps late-comers from disturbing a shard that is being closed (liveness, above). It decides nothing.
        if shard.0.load(Ordering::Acquire) & CLOSED != 0 {
            return None;
        }
        let before = shard.0.fetch_add(SECTION, Ordering::Acquire);
        // Made before the check, so that a refusal takes its count back by the same drop as any other end.
        let guard = GateGuard::count_in(shard);
        (before & CLOSED == 0).then_some(guard)
    }

    /// Closes every gate, then waits until all are empty. After it returns, no guard is held and none can be had.
    ///
    /// May be called again and from several threads at once: each call returns only when the gates are empty. Must not
    /// be called inside a gate. For what bounds the wait, see the module's documentation.
    pub(crate) fn close(&self) {
        assert_outside_gates();
        self.raise();
        let mut spins = FENCE_SPINS;
        for shard in &self.shards {
            wait_until_empty(shard, &mut spins);
        }
    }

    /// All bits first: the sections end side by side while this thread turns to the next shard.
    fn raise(&self) {
        for shard in &self.shards {
            shard.0.fetch_or(CLOSED, Ordering::Release);
        }
    }

    /// [`close`](Self::close) with a wait of one look a shard; whether that was enough. For a model's second closer: loom's
    /// scheduler is not fair, and lets two waiting closers yield to each other for ever.
    #[cfg(all(test, pilotlight_loom))]
    fn close_within_one_look(&self) -> bool {
        self.raise();
        self.shards.iter().all(is_empty)
    }
}

fn is_empty(shard: &Shard) -> bool {
    shard.0.load(Ordering::Acquire) < SECTION
}

/// `spins`: what is left to all shards together.
#[cfg(not(pilotlight_loom))]
fn wait_until_empty(shard: &Shard, spins: &mut u32) {
    while *spins > 0 {
        if is_empty(shard) {
            return;
        }
        *spins -= 1;
        std::hint::spin_loop();
    }
    while !is_empty(shard) {
        std::thread::sleep(std::time::Duration::from_micros(FENCE_SLEEP_MICROS));
    }
}

#[cfg(pilotlight_loom)]
fn wait_until_empty(shard: &Shard, _spins: &mut u32) {
    while !is_empty(shard) {
        loom::thread::yield_now();
    }
}

impl<'a> GateGuard<'a> {
    /// The guard for a count that is already in the shard.
    fn count_in(shard: &'a Shard) -> Self {
        held::entered();
        Self {
            shard,
            not_send: PhantomData,
        }
    }
}

impl Drop for GateGuard<'_> {
    fn drop(&mut self) {
        // `Release`: what the section did happens before the look that finds the shard empty.
        self.shard.0.fetch_sub(SECTION, Ordering::Release);
        held::left();
    }
}

/// In debug builds, panics if this thread is inside a gate (of any fence): closing one's own fence from inside would wait for
/// ever. Release builds trust the rule. Called before anything is changed, so the panic leaves all as it was.
pub(crate) fn assert_outside_gates() {
    debug_assert!(
        !held::any(),
        "a fence was closed inside a gate: it would wait for itself"
    );
}

/// How many sections this thread is in; only debug builds count. Not under loom, whose threads share one real thread.
mod held {
    #[cfg(all(debug_assertions, not(pilotlight_loom)))]
    mod count {
        use std::cell::Cell;
        thread_local!(static HELD: Cell<usize> = const { Cell::new(0) });

        // `try_with`: a section in a destructor of the thread's own locals is not counted, rather than a panic.
        pub(super) fn change(by: isize) {
            let _ = HELD.try_with(|held| held.set(held.get().saturating_add_signed(by)));
        }
        pub(super) fn any() -> bool {
            HELD.try_with(|held| held.get() > 0).unwrap_or(false)
        }
    }
    #[cfg(not(all(debug_assertions, not(pilotlight_loom))))]
    mod count {
        pub(super) fn change(_by: isize) {}
        pub(super) fn any() -> bool {
            false
        }
    }

    pub(super) fn entered() {
        count::change(1);
    }
    pub(super) fn left() {
        count::change(-1);
    }
    pub(super) fn any() -> bool {
        count::any()
    }
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;

#[cfg(all(test, pilotlight_loom))]
#[path = "fence_loom.rs"]
mod loom_models;
