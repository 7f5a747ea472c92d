//! A search through all that the process may write: the heap, what C has allocated and freed, and the stacks.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::watchdog::{HALF, may_begin, owner_of};

/// Halves of registered secrets that are still somewhere, by whose they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Residue {
    /// In memory that came from an allocator, Rust's or C's, freed or not.
    heap: BTreeMap<u8, usize>,
    /// On the stacks of threads, and in whatever else is mapped.
    elsewhere: BTreeMap<u8, usize>,
}

impl Residue {
    pub(crate) fn heap_of(&self, owner: u8) -> usize {
        self.heap.get(&owner).copied().unwrap_or_default()
    }

    pub(crate) fn heap(&self) -> usize {
        self.heap.values().sum()
    }

    pub(crate) fn elsewhere(&self) -> usize {
        self.elsewhere.values().sum()
    }
}

/// glibc gives each of its arenas a region that begins at a multiple of this.
const ARENA: u64 = 64 << 20;

/// Searches what is mapped for writing, the buffer of the search apart.
pub(crate) fn search() -> Residue {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut residue = Residue::default();
    let mut buffer = vec![0; 1 << 20];
    let own = buffer.as_ptr() as u64..buffer.as_ptr() as u64 + buffer.len() as u64;
    for line in maps.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (from, to) = fields[0].split_once('-').unwrap();
        let from = u64::from_str_radix(from, 16).unwrap();
        let to = u64::from_str_radix(to, 16).unwrap();
        if !fields[1].starts_with("rw") {
            continue;
        }
        let is_heap = fields.get(5) == Some(&"[heap]") || from % ARENA == 0;
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap().min(buffer.len());
            if memory.read_exact_at(&mut buffer[..length], at).is_err() {
                break;
            }
            for owner in halves(&buffer[..length], at, &own) {
                let found = if is_heap {
                    &mut residue.heap
                } else {
                    &mut residue.elsewhere
                };
                *found.entry(owner).or_default() += 1;
            }
            // The last bytes again, for a half that lies across the border.
            at += length as u64;
            if at < to {
                at -= (HALF - 1) as u64;
            }
        }
    }
    // It has seen the secrets too.
    buffer.fill(0);
    residue
}

fn halves(bytes: &[u8], from: u64, own: &std::ops::Range<u64>) -> Vec<u8> {
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let places = 0..(bytes.len() + 1).saturating_sub(HALF);
    places
        .filter(|at| !own.contains(&(from + *at as u64)))
        .filter(|at| may_begin(word(*at)))
        .filter_map(|at| owner_of([word(at), word(at + 8)]))
        .collect()
}

#[test]
fn the_search_finds_what_lies_in_the_heap() {
    let watch = crate::watchdog::Watch::begin();
    let secret: [u8; 32] = std::array::from_fn(|at| u8::try_from((at * 11 + 5) & 0xff).unwrap());
    watch.register(1, &secret);
    let kept = Box::new(secret);
    assert!(search().heap_of(1) >= 2, "both halves of it");
    drop(kept);
}
