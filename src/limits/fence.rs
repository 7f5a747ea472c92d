//! Of the fence: its shards, and how its closing waits.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// Shards of a [fence](crate::signer), each an atomic on a cache line of its own.
///
/// A leased write or delivery costs two atomic additions on its link's shard; they are slow only when another core has
/// just touched the same line. With `w` threads that are inside or entering gates at once and shards dealt out in
/// turn, a thread shares its line with `(w − 1) / 16` others: under one up to 16 workers, which is where tokio's worker
/// threads are on the machines that run a node, and at 64 workers still only four. On the other side, a lapse touches
/// every shard twice and an epoch allocates them all: 16 lines are at most some 3 µs of cache misses and 2 KiB, whatever
/// the number of links is.
#[cfg(not(pilotlight_loom))]
pub const FENCE_SHARDS: usize = 16;

/// Shards of a fence under loom: the fewest that show a fence of which one shard is closed and another not yet. loom's
/// work grows exponentially with each.
#[cfg(pilotlight_loom)]
pub const FENCE_SHARDS: usize = 2;

/// How often a closing fence looks at occupied shards, all together, before it gives its processor away.
///
/// A gate section is a system call that does not block (a write of at most 16 KiB: some 5 µs, on loopback up to 15) or a
/// hand-over of a buffer (under 1 µs). A look with its spin hint takes some 10–40 ns, so 1,024 of them cover a section that runs
/// on another core. Fewer are dear: where others wait for this processor, a yield gives it back milliseconds later. When the
/// section's thread is not running at all they waste a hundredth of that.
pub const FENCE_SPINS: u32 = 1024;

/// How often a closing fence then yields its processor before it sleeps between looks.
///
/// A yield lets a preempted gate section run on this core if the scheduler is a fair one: one or two are enough, some
/// tens allow for a crowded machine. They are bounded because under a real-time policy a yield never lets a thread of
/// lower priority run, and a closer that only yielded would then starve the very section that it waits for.
pub const FENCE_YIELDS: u32 = 64;

/// How long a closing fence sleeps between looks once it has spun and yielded, in microseconds.
///
/// It gets here only when a section's thread has not run for dozens of yields, so a scheduler's slice (1–4 ms) is the
/// scale: 50 µs (Linux adds about as much timer slack) is a small part of that, and takes under a hundredth of a core.
pub const FENCE_SLEEP_MICROS: u64 = 50;
