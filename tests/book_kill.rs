//! A process that keeps a peer book is killed at any moment, more than 200 times: the book opens each time, and what was reported
//! as done is there.
//!
//! The test is both processes: it starts itself again with [`ROLE`] set. The child writes, closes and opens the book without a
//! pause and says on its output what is done; the parent kills it after a random time, from the start of the process on, so
//! that the making of the file, commits, checkpoints and recovery are all cut short.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "support/book_records.rs"]
mod book_records;

use book_records::record;
use pilotlight::book::{Book, PeerRecord, Sighting, SqliteBook};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const KILLS: usize = 240;
/// Peers that the child writes to at once.
const PEERS: u32 = 6;
/// Holds the path of the book and, for each peer, the number of changes that it has been through.
const ROLE: &str = "PILOTLIGHT_BOOK_KILL_CHILD";
/// A new file every so many rounds: its making is part of what is killed.
const ROUNDS_A_FILE: usize = 12;
/// Nothing here takes that long: it only keeps a broken run from hanging.
const HANG_GUARD: Duration = Duration::from_secs(60);

/// What the book says of peer `number` after so many changes: every fifth one takes it off.
fn after(number: u32, changes: u32) -> Option<PeerRecord> {
    (!changes.is_multiple_of(5)).then(|| PeerRecord {
        weight: changes,
        ..record(number)
    })
}

/// What is noted of peer `number` after so many changes.
fn seen_after(number: u32, changes: u32) -> Option<Sighting> {
    after(number, changes).map(|record| Sighting {
        node_id: record.node_id,
        last_seen: Some(u64::from(changes)),
        failures: changes,
    })
}

/// Writes until it is killed.
async fn child(path: &Path, mut changes: Vec<u32>) {
    let begun = Instant::now();
    while begun.elapsed() < HANG_GUARD {
        let book = Arc::new(SqliteBook::open(path).unwrap());
        let mut writers = tokio::task::JoinSet::new();
        for (number, first) in (0..PEERS).zip(changes.clone()) {
            let book = Arc::clone(&book);
            writers.spawn(async move {
                for change in first + 1..=first + 8 {
                    match after(number, change) {
                        Some(record) => book.save(record).await.unwrap(),
                        None => book.remove(record(number).node_id).await.unwrap(),
                    }
                    if let Some(seen) = seen_after(number, change) {
                        book.note(vec![seen]).await.unwrap();
                    }
                    // One write to a pipe: a killed process leaves whole lines.
                    let done = format!("done {number} {change}\n");
                    std::io::stdout().write_all(done.as_bytes()).unwrap();
                    std::io::stdout().flush().unwrap();
                }
            });
        }
        while let Some(written) = writers.join_next().await {
            written.unwrap();
        }
        for changes in &mut changes {
            *changes += 8;
        }
        Arc::into_inner(book).unwrap().close();
    }
}

/// Starts the child, kills it after `after`, and returns the lines that it has got out.
fn run_and_kill(path: &Path, changes: &[u32], after: Duration) -> String {
    let counts: Vec<_> = changes.iter().map(u32::to_string).collect();
    let role = format!("{} {}", counts.join(","), path.display());
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_book_survives_kill_9_at_any_moment",
            "--nocapture",
        ])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Not a wait for something: the moment of the kill.
    std::thread::sleep(after);
    let ended = process.try_wait().unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    let (mut output, mut errors) = (String::new(), String::new());
    process
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    process
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(ended, None, "the child ended by itself: {errors}");
    output
}

/// Takes over what the child has reported.
fn reported(output: &str, changes: &mut [u32]) -> usize {
    let lines = output.lines().filter_map(|line| line.strip_prefix("done "));
    lines
        .map(|line| {
            let (number, change) = line.split_once(' ').unwrap();
            let at = &mut changes[number.parse::<usize>().unwrap()];
            let change = change.parse().unwrap();
            assert_eq!(change, *at + 1, "reported out of order: {line}");
            *at = change;
        })
        .count()
}

#[derive(Debug, Default)]
struct Tally {
    reports: usize,
    /// Rounds in which the child had not reported anything yet.
    early: usize,
    /// Changes that were on the disk, but not reported yet.
    ahead: usize,
    /// Of those, the ones that were not noted yet.
    unnoted: usize,
    logs: usize,
}

/// The book is as the last reported change of each peer left it, or as the next one would, which was under way. So is what was noted:
/// it follows the record. `noted`: the change that it was last known to be of.
async fn judge(path: &Path, changes: &mut [u32], noted: &mut [u32], tally: &mut Tally) {
    let book = SqliteBook::open(path).unwrap();
    let loaded = book.load().await.unwrap();
    let sightings = book.sightings().await.unwrap();
    book.close();
    for ((number, changes), noted) in (0..).zip(changes).zip(noted) {
        let peer = record(number).node_id;
        let found = loaded.iter().find(|record| record.node_id == peer).cloned();
        if found != after(number, *changes) {
            assert_eq!(
                found,
                after(number, *changes + 1),
                "peer {number}: change {changes} was reported as done"
            );
            *changes += 1;
            tally.ahead += 1;
        }
        let seen = sightings.iter().find(|seen| seen.node_id == peer).copied();
        if seen == seen_after(number, *changes) {
            *noted = *changes;
        } else {
            assert!(
                found.is_some() && *noted < *changes,
                "peer {number}: {seen:?}"
            );
            assert_eq!(seen, seen_after(number, *noted), "peer {number}: noted");
            tally.unnoted += 1;
        }
    }
    assert!(loaded.len() <= usize::try_from(PEERS).unwrap());
}

#[tokio::test]
async fn a_book_survives_kill_9_at_any_moment() {
    if let Ok(role) = std::env::var(ROLE) {
        let (counts, path) = role.split_once(' ').unwrap();
        let changes = counts.split(',').map(|count| count.parse().unwrap());
        return child(Path::new(path), changes.collect()).await;
    }
    let seed = std::env::var("PILOTLIGHT_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}: PILOTLIGHT_SEED={seed} draws the same moments again");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut tally = Tally::default();
    let (mut path, mut changes, mut noted) = (PathBuf::new(), Vec::new(), Vec::new());
    for round in 0..KILLS {
        if round % ROUNDS_A_FILE == 0 {
            path = folder.path().join(format!("peers-{round}.db"));
            changes = vec![0; usize::try_from(PEERS).unwrap()];
            noted.clone_from(&changes);
        }
        let moment = Duration::from_micros(random.u64(1_000..80_000));
        let output = run_and_kill(&path, &changes, moment);
        let before = changes.clone();
        let reports = reported(&output, &mut changes);
        for ((noted, before), now) in noted.iter_mut().zip(before).zip(&changes) {
            if before != *now {
                *noted = *now;
            }
        }
        tally.reports += reports;
        tally.early += usize::from(reports == 0);
        let log = path.with_extension("db-wal");
        tally.logs += usize::from(log.metadata().is_ok_and(|log| log.len() > 0));
        judge(&path, &mut changes, &mut noted, &mut tally).await;
    }
    println!("{KILLS} kills in {:?}: {tally:?}", begun.elapsed());
    assert!(tally.reports > 0, "no change was ever done: {tally:?}");
    assert!(tally.logs > 0, "no kill left a log: {tally:?}");
}
