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
/// hand-over of a buffer (under 1 µs). A look with its spin hint takes some 10–40 ns, so 1,024 of them cover all but the longest
/// sections that run on another core. When the section's thread is not running at all they waste a hundredth of a scheduler's slice.
pub const FENCE_SPINS: u32 = 1024;

/// How long a closing fence sleeps between looks once it has spun, in microseconds.
///
/// It gets here when a section is a long one, or its thread has lost its processor, or shares this one. A sleep gives the processor away
/// as a yield does, and asks for it back by a timer; who yields where others wait gets it back after their slices, 1–4 ms later. Linux
/// adds its timer slack, 50 µs by default. Much shorter sleeps are longer waits: measured at 5 µs without slack, the thread that woke so
/// often kept the section's from its processor, and p99 rose from some 4 to 11 ms.
pub const FENCE_SLEEP_MICROS: u64 = 20;
