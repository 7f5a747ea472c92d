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

/// What a book's calls return.
pub type BookFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BookError>> + Send + 'a>>;

/// Where peers are remembered. All calls may be made from several tasks at once.
pub trait Book: Send + Sync + 'static {
    /// Every peer on record.
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>>;

    /// Puts a peer on record, in place of what was there. Done means durable.
    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()>;

    /// Forgets a peer. Done means durable.
    fn remove(&self, peer: NodeId) -> BookFuture<'_, ()>;
}
