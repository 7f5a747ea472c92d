//! The book on disk. A thread of its own owns the database: callers hand it their changes, it writes all that wait in one
//! transaction, and answers each once that is on the disk.
//!
//! ```text
//!  save ─┐
//!  save ─┼─▶ calls ─▶ thread: begin, all that wait, commit, fsync ─▶ an answer for each
//!  remove┘
//! ```
//!
//! It never answers before the disk has, and never gives up on its own: a failed group is answered with the error, and the next
//! one is tried.

use super::store::{Change, Store};
use super::{Book, BookError, BookFuture, PeerRecord, Sighting};
use crate::limits;
use crate::node_id::NodeId;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// A peer book in a file: SQLite, with a write-ahead log beside it. One process at a time.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use pilotlight::book::{Book, SqliteBook};
/// let book = SqliteBook::open("/var/lib/pilotlight/peers.db")?;
/// println!("{} peers", book.load().await?.len());
/// # Ok(()) }
/// ```
pub struct SqliteBook {
    calls: mpsc::Sender<Call>,
    thread: JoinHandle<()>,
    /// The other end is the thread's.
    alive: watch::Receiver<()>,
    path: PathBuf,
}

enum Call {
    Ask(Question),
    Change(Change, Done),
}

/// What the thread is asked for, and where the answer goes.
enum Question {
    Records(Answer<Vec<PeerRecord>>),
    Sightings(Answer<Vec<Sighting>>),
}

type Answer<T> = oneshot::Sender<Result<T, BookError>>;

type Done = Answer<()>;

impl SqliteBook {
    /// Opens the book at `path`, or makes an empty one; its folder must be there. Beside it are `PATH.lock`, and `PATH-wal` and
    /// `PATH-shm` while it is open. It blocks while the file is checked, and for up to [`BOOK_LOCK_WAIT`](limits::BOOK_LOCK_WAIT)
    /// while another process closes it.
    ///
    /// # Errors
    /// The file is damaged, foreign, newer, open to others, read-only or in use, the disk is full, or the system gives no thread.
    /// A file that was there is left as it was.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, BookError> {
        let path = path.into();
        let store = Store::open(&path)?;
        let (calls, waiting) = mpsc::channel(limits::BOOK_CALLS);
        let (living, alive) = watch::channel(());
        let thread = std::thread::Builder::new()
            .name("peer-book".into())
            .spawn(move || {
                run(store, waiting);
                drop(living);
            })
            .map_err(|error| BookError::File {
                action: "start a thread for",
                path: path.clone(),
                detail: error.to_string(),
            })?;
        Ok(Self {
            calls,
            thread,
            alive,
            path,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the book has been dropped, all that it was asked has been answered, and its file is closed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut alive = self.alive.clone();
        async move { while alive.changed().await.is_ok() {} }
    }

    /// Closes the book, and blocks until its file is closed and its lock let go. Dropping it does the same without waiting.
    pub fn close(self) {
        drop(self.calls);
        // A thread that has panicked has let go of the file too.
        let _ = self.thread.join();
    }

    fn ask<T: Send + 'static>(&self, question: fn(Answer<T>) -> Question) -> BookFuture<'_, T> {
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            let call = Call::Ask(question(done));
            self.calls.send(call).await.map_err(|_| BookError::Closed)?;
            answer.await.unwrap_or(Err(BookError::Closed))
        })
    }

    fn change(&self, change: Change) -> BookFuture<'_, ()> {
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            let call = Call::Change(change, done);
            self.calls.send(call).await.map_err(|_| BookError::Closed)?;
            answer.await.unwrap_or(Err(BookError::Closed))
        })
    }
}

impl Book for SqliteBook {
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>> {
        self.ask(Question::Records)
    }

    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()> {
        self.change(Change::Save(record))
    }

    fn remove(&self, peer: NodeId) -> BookFuture<'_, ()> {
        self.change(Change::Remove(peer))
    }

    fn sightings(&self) -> BookFuture<'_, Vec<Sighting>> {
        self.ask(Question::Sightings)
    }

    fn note(&self, sightings: Vec<Sighting>) -> BookFuture<'_, ()> {
        self.change(Change::Note(sightings))
    }
}

impl fmt::Debug for SqliteBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SqliteBook");
        shown.field("path", &self.path).finish_non_exhaustive()
    }
}

fn run(mut store: Store, mut calls: mpsc::Receiver<Call>) {
    while let Some(first) = calls.blocking_recv() {
        let (changes, answers, question) = group(first, &mut calls);
        if !changes.is_empty() {
            let written = store.commit(&changes);
            for done in answers {
                // Who has gone does not want to know; the change is made all the same.
                let _ = done.send(written.clone());
            }
        }
        match question {
            Some(Question::Records(done)) => drop(done.send(store.load())),
            Some(Question::Sightings(done)) => drop(done.send(store.sightings())),
            None => {}
        }
    }
}

/// The changes that wait, up to [`BOOK_GROUP`](limits::BOOK_GROUP) of them or to the next question: it is answered after them.
fn group(
    first: Call,
    calls: &mut mpsc::Receiver<Call>,
) -> (Vec<Change>, Vec<Done>, Option<Question>) {
    let (mut changes, mut answers) = (Vec::new(), Vec::new());
    let mut next = Some(first);
    while let Some(call) = next {
        match call {
            Call::Ask(question) => return (changes, answers, Some(question)),
            Call::Change(change, done) => {
                changes.push(change);
                answers.push(done);
            }
        }
        next = if changes.len() < limits::BOOK_GROUP {
            calls.try_recv().ok()
        } else {
            None
        };
    }
    (changes, answers, None)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use super::*;
    use crate::node_id::LocalKey;

    fn record(number: u32) -> PeerRecord {
        let mut secret = [0x11; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        PeerRecord {
            node_id: LocalKey::from_bytes(&mut secret).unwrap().node_id(),
            addresses: vec!["192.0.2.1:9735".parse().unwrap(); limits::ADDRESSES_MAX],
            tag: None,
            weight: number,
        }
    }

    fn save(number: u32) -> (Call, oneshot::Receiver<Result<(), BookError>>) {
        let (done, answer) = oneshot::channel();
        (Call::Change(Change::Save(record(number)), done), answer)
    }

    #[test]
    fn what_waits_is_written_together_and_a_question_is_answered_after_it() {
        let (send, mut calls) = mpsc::channel(limits::BOOK_CALLS);
        let most = u32::try_from(limits::BOOK_GROUP).unwrap();
        let answers: Vec<_> = (0..most + 3)
            .map(|number| {
                let (call, answer) = save(number);
                send.try_send(call).unwrap_or_else(|_| panic!("full"));
                answer
            })
            .collect();
        let (done, mut loaded) = oneshot::channel();
        send.try_send(Call::Ask(Question::Records(done)))
            .unwrap_or_else(|_| panic!("full"));
        send.try_send(save(9999).0)
            .unwrap_or_else(|_| panic!("full"));
        let sizes: Vec<_> = std::iter::from_fn(|| {
            let (changes, _, load) = group(calls.try_recv().ok()?, &mut calls);
            Some((changes.len(), load.is_some()))
        })
        .collect();
        assert_eq!(sizes, [(limits::BOOK_GROUP, false), (3, true), (1, false)]);
        assert!(loaded.try_recv().is_err() && answers.len() == limits::BOOK_GROUP + 3);
    }

    /// `max_page_count` in place of a full disk, so that it is shown everywhere; `tests/book.rs` fills a real one.
    #[test]
    fn a_full_disk_fails_the_group_and_keeps_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let mut store = Store::open(&path).unwrap();
        store.commit(&[Change::Save(record(0))]).unwrap();
        store.limit_pages(8);
        let many: Vec<_> = (1..500).map(|n| Change::Save(record(n))).collect();
        assert_eq!(
            store.commit(&many).unwrap_err(),
            BookError::Full { path: path.clone() }
        );
        assert_eq!(store.load().unwrap(), [record(0)]);
        store.limit_pages(100_000);
        store.commit(&many).unwrap();
        drop(store);
        assert_eq!(Store::open(&path).unwrap().load().unwrap().len(), 500);
    }
}
