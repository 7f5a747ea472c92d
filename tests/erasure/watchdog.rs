//! The allocator, and the secrets that it looks for.
//!
//! It looks at a block when it is freed, before the system has it back; a block that grows is a new one and a freed one. It allocates
//! nothing itself. Of each secret either half is looked for, at every byte.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[global_allocator]
static WATCHDOG: Watchdog = Watchdog;

struct Watchdog;

/// So many halves of secrets can be looked for at once.
const NEEDLES: usize = 512;
/// Bytes of a half.
pub(crate) const HALF: usize = 16;
/// What registered secrets are masked with. No secret here has this in it.
const MASK: u64 = 0xA5A5_5A5A_C3C3_3C3C;

/// The halves, masked, in two words each.
static WORDS: [[AtomicU64; 2]; NEEDLES] =
    [const { [AtomicU64::new(0), AtomicU64::new(0)] }; NEEDLES];
/// What each belongs to.
static OWNERS: [AtomicU8; NEEDLES] = [const { AtomicU8::new(0) }; NEEDLES];
static REGISTERED: AtomicUsize = AtomicUsize::new(0);
/// A bit for each value that the first two bytes of a half may have: most bytes of a block are passed over by it.
static FILTER: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
static WATCHES: AtomicBool = AtomicBool::new(false);

/// What was found: the owner of the half, and the size of the block.
static FOUND: [[AtomicUsize; 2]; 1024] =
    [const { [AtomicUsize::new(0), AtomicUsize::new(0)] }; 1024];
static FINDS: AtomicUsize = AtomicUsize::new(0);
/// Blocks that have been looked at.
static FREED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came. A block is only read, within its size, while it is still ours. A byte
// that was never written is read too, whose value is then whatever it is: a match with a registered secret is no accident.
unsafe impl GlobalAlloc for Watchdog {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if WATCHES.load(SeqCst) {
            look(block, layout.size());
        }
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Looks for every registered half in a block of that size.
fn look(block: *const u8, size: usize) {
    FREED.fetch_add(1, SeqCst);
    for at in 0..(size + 1).saturating_sub(HALF) {
        // SAFETY: `at + HALF <= size`, and the block is allocated until we return.
        let word = |offset: usize| unsafe { block.add(at + offset).cast::<u64>().read_unaligned() };
        let first = word(0);
        if !may_begin(first) {
            continue;
        }
        if let Some(owner) = owner_of([first, word(8)]) {
            let find = FINDS.fetch_add(1, SeqCst);
            if let Some(entry) = FOUND.get(find) {
                entry[0].store(usize::from(owner), SeqCst);
                entry[1].store(size, SeqCst);
            }
        }
    }
}

fn bit(word: u64) -> (usize, u64) {
    let low = word & 0xffff;
    (usize::try_from(low / 64).unwrap_or(0), 1 << (low % 64))
}

pub(crate) fn may_begin(word: u64) -> bool {
    let (entry, bit) = bit(word);
    FILTER[entry].load(SeqCst) & bit != 0
}

/// Whose half these two words are.
pub(crate) fn owner_of(words: [u64; 2]) -> Option<u8> {
    let count = REGISTERED.load(SeqCst);
    (0..count).find_map(|needle| {
        let [first, second] = &WORDS[needle];
        let same = first.load(SeqCst) ^ MASK == words[0] && second.load(SeqCst) ^ MASK == words[1];
        same.then(|| OWNERS[needle].load(SeqCst))
    })
}

/// Looks at what is freed for as long as it lives. One test at a time does.
pub(crate) struct Watch {
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

#[allow(
    clippy::unused_self,
    reason = "what is registered is of the whole process: who holds the watch may ask"
)]
impl Watch {
    /// Nothing is registered yet.
    pub(crate) fn begin() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        REGISTERED.store(0, SeqCst);
        FINDS.store(0, SeqCst);
        FREED.store(0, SeqCst);
        for word in &FILTER {
            word.store(0, SeqCst);
        }
        WATCHES.store(true, SeqCst);
        Self { _turn: turn }
    }

    /// Looks for that secret from now on. `owner`: a number for the test to know it again by.
    pub(crate) fn register(&self, owner: u8, secret: &[u8; 32]) {
        for half in [&secret[..HALF], &secret[HALF..]] {
            let at = REGISTERED.load(SeqCst);
            assert!(at < NEEDLES, "too many secrets");
            let word = |from: usize| u64::from_ne_bytes(half[from..from + 8].try_into().unwrap());
            let (entry, bit) = bit(word(0));
            WORDS[at][0].store(word(0) ^ MASK, SeqCst);
            WORDS[at][1].store(word(8) ^ MASK, SeqCst);
            OWNERS[at].store(owner, SeqCst);
            FILTER[entry].fetch_or(bit, SeqCst);
            REGISTERED.store(at + 1, SeqCst);
        }
    }

    /// What was found in freed blocks so far: the owner of the half, and the size of the block. The first 64.
    pub(crate) fn found(&self) -> Vec<(u8, usize)> {
        let finds = FINDS.load(SeqCst);
        assert!(finds <= FOUND.len(), "{finds} finds, more than are kept");
        let found = FOUND[..finds].iter();
        found
            .map(|[owner, size]| (u8::try_from(owner.load(SeqCst)).unwrap(), size.load(SeqCst)))
            .collect()
    }

    /// How many finds there were, and how many blocks have been looked at.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (FINDS.load(SeqCst), FREED.load(SeqCst))
    }
}

/// Overwrites what calls before this one have left on this thread's stack: the test's own doings are no finding.
#[inline(never)]
#[allow(clippy::large_stack_arrays, reason = "to overwrite what lies below")]
pub(crate) fn scrub() {
    let mut below = [0_u8; 256 * 1024];
    std::hint::black_box(&mut below);
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHES.store(false, SeqCst);
    }
}

#[test]
fn the_allocator_finds_a_secret_wherever_it_is_in_a_freed_block_and_none_that_was_wiped() {
    let watch = Watch::begin();
    let secret: [u8; 32] = std::array::from_fn(|at| u8::try_from((at * 7 + 13) & 0xff).unwrap());
    watch.register(9, &secret);
    drop(Box::new(secret));
    assert_eq!(watch.found(), [(9, 32), (9, 32)], "either half");
    // At an odd place of a larger block.
    let mut inside = vec![0_u8; 1000];
    inside[301..333].copy_from_slice(&secret);
    drop(inside);
    assert_eq!(watch.counts().0, 4);
    // A block that grows leaves its old place behind.
    let mut grows = Vec::with_capacity(32);
    grows.extend_from_slice(&secret);
    grows.reserve_exact(100_000);
    assert_eq!(watch.counts().0, 6);
    grows.fill(0);
    drop(grows);
    // Half of it wiped is half of it found.
    let mut half = Box::new(secret);
    half[..20].fill(0);
    drop(half);
    assert_eq!(watch.counts().0, 6, "neither half is whole");
    let mut half = Box::new(secret);
    half[..16].fill(0);
    drop(half);
    assert_eq!(watch.counts().0, 7);
    drop(pilotlight::secret::Secret32::build(|bytes| *bytes = secret));
    assert_eq!(watch.counts().0, 7, "our own type wipes");
}
