//! A book for tests, demonstrations and embedders that bring the peers anew at each start. It never touches a disk.

use super::{Book, BookFuture, PeerRecord, Sighting};
use crate::node_id::NodeId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A book that lasts as long as the process.
#[derive(Default)]
pub struct MemoryBook {
    peers: Mutex<BTreeMap<NodeId, Entry>>,
}

struct Entry {
    record: PeerRecord,
    seen: Option<Sighting>,
}

impl MemoryBook {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Entry>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book for MemoryBook {
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>> {
        let peers = self.lock();
        let records = peers.values().map(|entry| entry.record.clone()).collect();
        Box::pin(std::future::ready(Ok(records)))
    }

    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()> {
        let mut peers = self.lock();
        let seen = peers.get(&record.node_id).and_then(|entry| entry.seen);
        peers.insert(record.node_id, Entry { record, seen });
        Box::pin(std::future::ready(Ok(())))
    }

    fn remove(&self, peer: NodeId) -> BookFuture<'_, ()> {
        self.lock().remove(&peer);
        Box::pin(std::future::ready(Ok(())))
    }
    fn sightings(&self) -> BookFuture<'_, Vec<Sighting>> {
        let seen = self
            .lock()
            .values()
            .filter_map(|entry| entry.seen)
            .collect();
        Box::pin(std::future::ready(Ok(seen)))
    }

    fn note(&self, sightings: Vec<Sighting>) -> BookFuture<'_, ()> {
        let mut peers = self.lock();
        for sighting in sightings {
            if let Some(entry) = peers.get_mut(&sighting.node_id) {
                entry.seen = Some(sighting);
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
