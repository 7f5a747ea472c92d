//! The peer book: what is remembered of each peer. In memory, on disk (feature `book`), or wherever an embedder keeps it.
//!
//! The supervisor writes to the book and never waits for it, with one exception: a promotion to channel-bearing is on record
//! before the first channel message leaves. `import` (feature `book`) reads what other nodes say of their peers.

mod error;
#[cfg(feature = "book")]
pub mod import;
mod memory;
#[cfg(feature = "book")]
mod schema;
#[cfg(feature = "book")]
mod sqlite;
#[cfg(feature = "book")]
mod store;

pub use error::BookError;
pub use memory::MemoryBook;
#[cfg(feature = "book")]
pub use sqlite::SqliteBook;

use crate::address::KnownAddress;
use crate::link::Tag;
use crate::node_id::NodeId;
use std::future::Future;
use std::pin::Pin;

/// What the book keeps of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Who.
    pub node_id: NodeId,
    /// Where it was found, the best first; at most [`ADDRESSES_MAX`](crate::limits::ADDRESSES_MAX).
    pub addresses: Vec<KnownAddress>,
    /// What the node said of it; `None` when it said nothing.
    pub tag: Option<Tag>,
    /// How much the peer matters among its like; higher first.
    pub weight: u32,
}

/// What was last seen of a peer. It serves the order of dialling after a restart, and is nobody's word: it may be some minutes old, or
/// lost in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Of whom.
    pub node_id: NodeId,
    /// When a link with it was last up, in whole seconds since the Unix epoch; `None`: not as far as is known.
    pub last_seen: Option<u64>,
    /// Failures of the peer's in a row, since a link with it has last been stable.
    pub failures: u32,
}

/// What a book's calls return.
pub type BookFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BookError>> + Send + 'a>>;

/// Where peers are remembered. All calls may be made from several tasks at once.
pub trait Book: Send + Sync + 'static {
    /// Every peer on record.
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>>;

    /// Puts a peer on record, in place of what was there. Done means durable.
    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()>;

    /// Forgets a peer, and what was seen of it. Done means durable.
    fn remove(&self, peer: NodeId) -> BookFuture<'_, ()>;

    /// What was last seen of the peers on record, those left out of whom nothing was. A book need not keep it.
    fn sightings(&self) -> BookFuture<'_, Vec<Sighting>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Puts down what was seen of peers on record, and nothing of others; the rest of their records stays as it is. It is called every
    /// [`SIGHTINGS_EVERY`](crate::limits::SIGHTINGS_EVERY) and at the end, with at most [`BOOK_GROUP`](crate::limits::BOOK_GROUP) peers a
    /// call. A book need not keep it.
    fn note(&self, sightings: Vec<Sighting>) -> BookFuture<'_, ()> {
        drop(sightings);
        Box::pin(std::future::ready(Ok(())))
    }
}
