//! Writes to the peer book in a task of its own, so that a slow disk holds up nobody but who asked to wait for it.
//!
//! What waits is one record a peer, the newest: bounded by the peers. A failed write is an event and is tried again with the
//! next; the peers in memory are unaffected.

use crate::book::{Book, BookError, PeerRecord};
use crate::node_id::NodeId;
use crate::telemetry::{Event, Telemetry};
use std::collections::BTreeMap;
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
    flushes: Vec<oneshot::Sender<Result<(), BookError>>>,
}

impl BookKeeper {
    pub(crate) fn save(&self, record: PeerRecord) {
        self.lock().records.insert(record.node_id, Some(record));
        self.wake.notify_one();
    }

    pub(crate) fn forget(&self, peer: NodeId) {
        self.lock().records.insert(peer, None);
        self.wake.notify_one();
    }

    /// Tells `done` once all that was given before is in the book, or why it is not.
    pub(crate) fn flush(&self, done: oneshot::Sender<Result<(), BookError>>) {
        self.lock().flushes.push(done);
        self.wake.notify_one();
    }

    /// Writes for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>, book: Arc<dyn Book>, telemetry: Telemetry) {
        loop {
            self.wake.notified().await;
            let Waiting { records, flushes } = std::mem::take(&mut *self.lock());
            let mut result = Ok(());
            for (peer, record) in records {
                let written = match record.clone() {
                    Some(record) => book.save(record).await,
                    None => book.remove(peer).await,
                };
                if let Err(error) = written {
                    telemetry.emit(Event::BookFailed { detail: error.to_string() });
                    // A newer record may have come meanwhile: it stays.
                    self.lock().records.entry(peer).or_insert(record);
                    result = Err(error);
                }
            }
            for flush in flushes {
                let _ = flush.send(result.clone());
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
