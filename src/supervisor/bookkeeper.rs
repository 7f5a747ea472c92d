//! Writes to the peer book in a task of its own, so that a slow disk holds up nobody but who asked to wait for it.
//!
//! What waits is one record a peer, the newest: bounded by the peers. A failed write is an event and is tried again with the
//! next; the peers in memory are unaffected. What was seen of peers is written after the records, a group at a time, so that a record
//! which somebody waits for never waits for more than one group of it.

use crate::book::{Book, BookError, PeerRecord, Sighting};
use crate::limits;
use crate::node_id::NodeId;
use crate::telemetry::{Event, Telemetry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

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
    /// What was seen of peers, the newest.
    sightings: BTreeMap<NodeId, Sighting>,
    /// Whose records are being written at the moment.
    writing: BTreeSet<NodeId>,
    flushes: Vec<(NodeId, Recorded)>,
    /// Who waits until all that was given has been written or has failed to be.
    last: Vec<oneshot::Sender<()>>,
}

/// Where somebody waits for a peer's record.
type Recorded = oneshot::Sender<Result<(), BookError>>;

impl BookKeeper {
    pub(crate) fn save(&self, record: PeerRecord) {
        self.lock().records.insert(record.node_id, Some(record));
        self.wake.notify_one();
    }

    pub(crate) fn forget(&self, peer: NodeId) {
        let mut waiting = self.lock();
        waiting.records.insert(peer, None);
        waiting.sightings.remove(&peer);
        self.wake.notify_one();
    }

    pub(crate) fn note(&self, sightings: impl Iterator<Item = Sighting>) {
        let sightings = sightings.map(|seen| (seen.node_id, seen));
        self.lock().sightings.extend(sightings);
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

    /// Waits until all that was given before has been written, or has failed to be (which is an event).
    pub(crate) async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        self.lock().last.push(done);
        self.wake.notify_one();
        let _ = settled.await;
    }

    /// Writes for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>, book: Arc<dyn Book>, telemetry: Telemetry) {
        loop {
            self.wake.notified().await;
            let (records, flushes, last) = {
                let mut waiting = self.lock();
                waiting.writing = waiting.records.keys().copied().collect();
                let Waiting {
                    records,
                    flushes,
                    last,
                    ..
                } = &mut *waiting;
                (
                    std::mem::take(records),
                    std::mem::take(flushes),
                    std::mem::take(last),
                )
            };
            let failed = self.write(&book, records, &telemetry).await;
            for (peer, flush) in flushes {
                let _ = flush.send(failed.get(&peer).cloned().map_or(Ok(()), Err));
            }
            if self.write_sightings(&book, &telemetry).await {
                self.lock().last.extend(last);
                self.wake.notify_one();
                continue;
            }
            for done in last {
                let _ = done.send(());
            }
        }
    }

    /// Writes one group of what was seen. `true`: there is more, and no reason why it should fail.
    async fn write_sightings(&self, book: &Arc<dyn Book>, telemetry: &Telemetry) -> bool {
        let group: Vec<Sighting> = {
            let waiting = &mut self.lock().sightings;
            let group = std::iter::from_fn(|| waiting.pop_first());
            group
                .take(limits::BOOK_GROUP)
                .map(|(_, seen)| seen)
                .collect()
        };
        if group.is_empty() {
            return false;
        }
        let Err(error) = book.note(group.clone()).await else {
            return !self.lock().sightings.is_empty();
        };
        {
            let waiting = &mut self.lock().sightings;
            for seen in group {
                // A newer one may have come meanwhile: it stays.
                waiting.entry(seen.node_id).or_insert(seen);
            }
        }
        telemetry.emit(Event::BookFailed {
            detail: error.to_string(),
        });
        false
    }

    /// Writes these, several at once: a book that flushes to a disk does so for all of them together. Returns who failed.
    async fn write(
        &self,
        book: &Arc<dyn Book>,
        records: BTreeMap<NodeId, Option<PeerRecord>>,
        telemetry: &Telemetry,
    ) -> BTreeMap<NodeId, BookError> {
        let mut failed = BTreeMap::new();
        let mut records = records.into_iter();
        let mut writes = JoinSet::new();
        loop {
            while writes.len() < limits::BOOK_GROUP
                && let Some((peer, record)) = records.next()
            {
                let book = Arc::clone(book);
                writes.spawn(async move {
                    let written = match record.clone() {
                        Some(record) => book.save(record).await,
                        None => book.remove(peer).await,
                    };
                    (peer, record, written)
                });
            }
            let Some(done) = writes.join_next().await else {
                return failed;
            };
            let (peer, record, written) = match done {
                Ok(done) => done,
                Err(gone) => match gone.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime ends: nothing more is written.
                    Err(_) => return failed,
                },
            };
            let mut waiting = self.lock();
            waiting.writing.remove(&peer);
            if let Err(error) = written {
                // A newer record may have come meanwhile: it stays.
                waiting.records.entry(peer).or_insert(record);
                drop(waiting);
                telemetry.emit(Event::BookFailed {
                    detail: error.to_string(),
                });
                failed.insert(peer, error);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
