//! A book for tests, demonstrations and embedders that bring the peers anew at each start. It never touches a disk.

use super::{Book, BookFuture, PeerRecord};
use crate::node_id::NodeId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A book that lasts as long as the process.
#[derive(Default)]
pub struct MemoryBook {
    peers: Mutex<BTreeMap<NodeId, PeerRecord>>,
}

impl MemoryBook {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, PeerRecord>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book for MemoryBook {
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>> {
        let peers = self.lock().values().cloned().collect();
        Box::pin(std::future::ready(Ok(peers)))
    }

    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()> {
        self.lock().insert(record.node_id, record);
        Box::pin(std::future::ready(Ok(())))
    }

    fn remove(&self, peer: NodeId) -> BookFuture<'_, ()> {
        self.lock().remove(&peer);
        Box::pin(std::future::ready(Ok(())))
    }
}
