//! The peer book: what is remembered of each peer. In memory here; an embedder may keep its own.
//!
//! The supervisor writes to the book and never waits for it, with one exception: a promotion to channel-bearing is on record
//! before the first channel message leaves.

use crate::error::{Culprit, Retry};
use crate::link::Tag;
use crate::node_id::NodeId;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

/// What the book keeps of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Who.
    pub node_id: NodeId,
    /// Where it was found, the best first; at most [`ADDRESSES_MAX`](crate::limits::ADDRESSES_MAX).
    pub addresses: Vec<SocketAddr>,
    /// What the node said of it; `None` when it said nothing.
    pub tag: Option<Tag>,
    /// How much the peer matters among its like; higher first.
    pub weight: u32,
}

/// What a book's calls return.
pub type BookFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BookError>> + Send + 'a>>;

/// The book could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer book: {0}")]
pub struct BookError(pub String);

impl BookError {
    /// Whose fault it is: whoever looks after the disk.
    pub fn culprit(&self) -> Culprit {
        Culprit::Operator
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        "a book that can be read and written"
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        Retry::Later
    }
}

/// Where peers are remembered. All calls may be made from several tasks at once.
pub trait Book: Send + Sync + 'static {
    /// Every peer on record.
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>>;

    /// Puts a peer on record, in place of what was there. Done means durable.
    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()>;

    /// Forgets a peer. Done means durable.
    fn remove(&self, peer: NodeId) -> BookFuture<'_, ()>;
}

/// A book that lasts as long as the process.
#[derive(Default)]
pub struct MemoryBook {
    peers: Mutex<BTreeMap<NodeId, PeerRecord>>,
}

impl Book for MemoryBook {
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>> {
        let peers = self
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        Box::pin(std::future::ready(Ok(peers)))
    }

    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()> {
        self.peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.node_id, record);
        Box::pin(std::future::ready(Ok(())))
    }

    fn remove(&self, peer: NodeId) -> BookFuture<'_, ()> {
        self.peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&peer);
        Box::pin(std::future::ready(Ok(())))
    }
}
