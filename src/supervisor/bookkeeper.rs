//! Writes to the peer book in a task of its own, so that a slow disk holds up nobody but who asked to wait for it.
//!
//! What waits is one record a peer, the newest: bounded by the peers. A failed write is an event and is tried again with the
//! next; the peers in memory are unaffected.

use crate::book::{Book, BookError, PeerRecord};
use crate::node_id::NodeId;
use crate::telemetry::{Event, Telemetry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, oneshot};

/// The records that are not in the book yet.
#[derive(Default)]
pub(crate) struct BookKeeper {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    /// `None`: to be forgotten.
    records: BTreeMap<NodeId, Option<PeerRecord>>,
    /// Whose records are being written at the moment.
    writing: BTreeSet<NodeId>,
    flushes: Vec<(NodeId, Recorded)>,
}

/// Where somebody waits for a peer's record.
type Recorded = oneshot::Sender<Result<(), BookError>>;

impl BookKeeper {
    pub(crate) fn save(&self, record: PeerRecord) {
        self.lock().records.insert(record.node_id, Some(record));
        self.wake.notify_one();
    }

    pub(crate) fn forget(&self, peer: NodeId) {
        self.lock().records.insert(peer, None);
        self.wake.notify_one();
    }

    /// Tells `done` once all that was given of this peer is in the book, or why it is not. Another peer's record is no reason.
    pub(crate) fn flush(&self, peer: NodeId, done: Recorded) {
        let mut waiting = self.lock();
        if waiting.records.contains_key(&peer) || waiting.writing.contains(&peer) {
            waiting.flushes.push((peer, done));
            self.wake.notify_one();
        } else {
            // Who has gone does not want to know.
            let _ = done.send(Ok(()));
        }
    }

    /// Writes for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>, book: Arc<dyn Book>, telemetry: Telemetry) {
        loop {
            self.wake.notified().await;
            let (records, flushes) = {
                let mut waiting = self.lock();
                waiting.writing = waiting.records.keys().copied().collect();
                (std::mem::take(&mut waiting.records), std::mem::take(&mut waiting.flushes))
            };
            let mut failed = BTreeMap::new();
            for (peer, record) in records {
                let written = match record.clone() {
                    Some(record) => book.save(record).await,
                    None => book.remove(peer).await,
                };
                let mut waiting = self.lock();
                waiting.writing.remove(&peer);
                if let Err(error) = written {
                    // A newer record may have come meanwhile: it stays.
                    waiting.records.entry(peer).or_insert(record);
                    drop(waiting);
                    telemetry.emit(Event::BookFailed { detail: error.to_string() });
                    failed.insert(peer, error);
                }
            }
            for (peer, flush) in flushes {
                let _ = flush.send(failed.get(&peer).cloned().map_or(Ok(()), Err));
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
