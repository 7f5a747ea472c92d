//! The peer book on disk: what it keeps, what it refuses, and that a file which it refuses stays as it was.
//!
//! Read-only and full disks are real ones where the tests may mount a small tmpfs (root, on Linux). Elsewhere a folder without
//! write permission stands in for the first, and the second is left to the unit test in `src/book/sqlite.rs`; each says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "support/book_records.rs"]
mod book_records;
#[path = "support/small_disk.rs"]
mod small_disk;

use book_records::record;
use pilotlight::book::{Book, BookError, MemoryBook, PeerRecord, Sighting, SqliteBook};
use pilotlight::error::{Culprit, Retry};
use pilotlight::link::Tag;
use small_disk::Disk;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;

fn fresh() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.db");
    (folder, path)
}

/// The first `count` peers.
fn records(count: u32) -> Vec<PeerRecord> {
    (0..count).map(record).collect()
}

async fn all(book: &SqliteBook) -> Vec<PeerRecord> {
    let mut all = book.load().await.unwrap();
    all.sort_by_key(|record| record.weight);
    all
}

/// A book with so many peers, closed.
async fn filled(path: &Path, peers: u32) {
    let book = Arc::new(SqliteBook::open(path).unwrap());
    save_all(&book, records(peers)).await;
    Arc::into_inner(book).unwrap().close();
}

/// All at once, as the book may be asked.
async fn save_all(book: &Arc<SqliteBook>, records: Vec<PeerRecord>) {
    let mut saves = tokio::task::JoinSet::new();
    for record in records {
        let book = Arc::clone(book);
        saves.spawn(async move { book.save(record).await });
    }
    while let Some(saved) = saves.join_next().await {
        saved.unwrap().unwrap();
    }
}

/// The content of every file in the book's folder but its lock and SQLite's index of the log, which is made anew at each start.
fn files(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|file| !["lock", "db-shm"].contains(&file.extension().unwrap().to_str().unwrap()))
        .map(|file| (file.clone(), fs::read(&file).unwrap()))
        .filter(|(_, content)| !content.is_empty())
        .collect();
    files.sort();
    files
}

/// Opening fails, twice, and changes nothing.
#[track_caller]
fn refused(path: &Path) -> BookError {
    let before = files(path);
    let error = SqliteBook::open(path).unwrap_err();
    assert_eq!(SqliteBook::open(path).unwrap_err(), error);
    assert_eq!(files(path), before, "{error}");
    assert_eq!(error.path(), Some(path));
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    assert!(!error.what_to_do().is_empty() && !error.rule().is_empty());
    assert_eq!(error.culprit(), Culprit::Operator);
    error
}

fn seen(number: u32, last_seen: Option<u64>, failures: u32) -> Sighting {
    Sighting {
        node_id: record(number).node_id,
        last_seen,
        failures,
    }
}

async fn all_seen(book: &dyn Book) -> Vec<Sighting> {
    let mut all = book.sightings().await.unwrap();
    let number = |seen: &Sighting| (0..10).find(|n| record(*n).node_id == seen.node_id);
    all.sort_by_key(number);
    all
}

/// What both books must do.
async fn note_and_forget(book: &dyn Book) -> Vec<Sighting> {
    for record in records(4) {
        book.save(record).await.unwrap();
    }
    assert_eq!(all_seen(book).await, []);
    let first = [
        seen(0, Some(1_700_000_000), 0),
        seen(1, None, 7),
        seen(2, Some(0), u32::MAX),
        seen(3, Some(5), 5),
        // Not on record.
        seen(9, Some(1), 1),
    ];
    book.note(first.to_vec()).await.unwrap();
    assert_eq!(all_seen(book).await, first[..4]);
    let later = seen(0, Some(1_700_000_300), 2);
    book.note(vec![later]).await.unwrap();
    // A record that is written again keeps what was seen; one that is forgotten does not, even if it comes back.
    book.save(PeerRecord {
        weight: 0,
        tag: Some(Tag::GossipOnly),
        ..record(1)
    })
    .await
    .unwrap();
    book.remove(record(3).node_id).await.unwrap();
    book.save(record(3)).await.unwrap();
    let kept = vec![later, first[1], first[2]];
    assert_eq!(all_seen(book).await, kept);
    kept
}

/// The rows that were noted still match their checksums: else nothing could be loaded.
#[tokio::test]
async fn what_was_seen_of_peers_is_there_after_a_restart_and_leaves_their_records_alone() {
    note_and_forget(&MemoryBook::default()).await;
    let (_folder, path) = fresh();
    let book = SqliteBook::open(&path).unwrap();
    let kept = note_and_forget(&book).await;
    let records = all(&book).await;
    assert_eq!(records.len(), 4);
    // Too late for SQLite's integers, and a time that is not known takes none away.
    let odd = [seen(0, None, 3), seen(2, Some(u64::MAX), 1)];
    book.note(odd.to_vec()).await.unwrap();
    book.close();
    let book = SqliteBook::open(&path).unwrap();
    assert_eq!(all(&book).await, records);
    let far = i64::MAX.unsigned_abs();
    let expected = [
        seen(0, kept[0].last_seen, 3),
        kept[1],
        seen(2, Some(far), 1),
    ];
    assert_eq!(all_seen(&book).await, expected);
}

#[tokio::test]
async fn what_is_saved_is_there_after_a_restart() {
    let (_folder, path) = fresh();
    let book = SqliteBook::open(&path).unwrap();
    assert_eq!(book.path(), path);
    assert_eq!(all(&book).await, []);
    let mut expected = records(4);
    expected[1].addresses = vec![
        "[2001:db8::1]:9735".parse().unwrap(),
        "192.0.2.1:1".parse().unwrap(),
    ];
    expected[2].addresses.clear();
    expected[2].tag = Some(Tag::GossipOnly);
    expected[3].tag = Some(Tag::ChannelBearing);
    expected[3].weight = u32::MAX;
    for record in &expected {
        book.save(record.clone()).await.unwrap();
    }
    book.save(record(9)).await.unwrap();
    book.remove(record(9).node_id).await.unwrap();
    book.remove(record(10).node_id).await.unwrap();
    assert_eq!(all(&book).await, expected);
    book.close();

    let book = SqliteBook::open(&path).unwrap();
    assert_eq!(all(&book).await, expected);
    expected[3].tag = None;
    book.save(expected[3].clone()).await.unwrap();
    // Without waiting for it to close: the next one does.
    drop(book);
    assert_eq!(all(&SqliteBook::open(&path).unwrap()).await, expected);
}

#[tokio::test]
async fn the_files_are_the_owners_alone_and_a_book_that_is_not_is_refused() {
    let (folder, path) = fresh();
    let book = SqliteBook::open(&path).unwrap();
    book.save(record(1)).await.unwrap();
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.path());
            entry.file_name().into_string().unwrap()
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["peers.db", "peers.db-shm", "peers.db-wal", "peers.db.lock"]
    );
    book.close();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = refused(&path);
    assert!(
        matches!(error, BookError::TooOpen { mode: 0o640, .. }),
        "{error}"
    );
    assert!(error.what_to_do().contains("chmod 600"));
}

#[tokio::test]
async fn a_book_in_use_is_refused_and_the_one_that_has_it_goes_on() {
    let (_folder, path) = fresh();
    let book = SqliteBook::open(&path).unwrap();
    let error = SqliteBook::open(&path).unwrap_err();
    assert_eq!(error, BookError::InUse { path: path.clone() });
    assert_eq!(error.retry(), Retry::Later);
    book.save(record(1)).await.unwrap();
    book.close();
    assert_eq!(all(&SqliteBook::open(&path).unwrap()).await, [record(1)]);
}

#[tokio::test]
async fn a_write_that_another_program_holds_up_fails_in_time_and_may_be_tried_again() {
    let (_folder, path) = fresh();
    let book = SqliteBook::open(&path).unwrap();
    book.save(record(1)).await.unwrap();
    let shell = rusqlite::Connection::open(&path).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = book.save(record(2)).await.unwrap_err();
    assert_eq!(error, BookError::Locked { path: path.clone() });
    assert_eq!(error.retry(), Retry::Later);
    assert_eq!(all(&book).await, [record(1)]);
    shell.execute_batch("ROLLBACK").unwrap();
    book.save(record(2)).await.unwrap();
    assert_eq!(all(&book).await, [record(1), record(2)]);
}

#[tokio::test]
async fn a_file_with_a_page_of_rubbish_is_refused_and_left_as_it_is() {
    let (_folder, path) = fresh();
    filled(&path, 300).await;
    let length = fs::metadata(&path).unwrap().len();
    assert!(length > 5 * 4096, "{length}");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xa5; 4096], 3 * 4096).unwrap();
    let error = refused(&path);
    assert!(matches!(error, BookError::Corrupt { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Never);
    assert!(error.what_to_do().contains("backup"));
}

#[tokio::test]
async fn a_file_that_has_been_cut_short_is_refused_and_left_as_it_is() {
    let (_folder, path) = fresh();
    filled(&path, 300).await;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for length in [5 * 4096, 4096, 4000, 100, 50] {
        file.set_len(length).unwrap();
        let error = refused(&path);
        let told = matches!(
            error,
            BookError::Corrupt { .. } | BookError::NotABook { .. }
        );
        assert!(told, "{length}: {error}");
    }
}

#[tokio::test]
async fn a_log_that_has_lost_its_book_is_kept() {
    let (folder, path) = fresh();
    let book = SqliteBook::open(&path).unwrap();
    book.save(record(1)).await.unwrap();
    let log = fs::read(folder.path().join("peers.db-wal")).unwrap();
    book.close();
    fs::write(folder.path().join("peers.db-wal"), &log).unwrap();
    fs::write(&path, b"").unwrap();
    let error = refused(&path);
    assert!(matches!(error, BookError::Corrupt { .. }), "{error}");
    fs::remove_file(&path).unwrap();
    let error = refused(&path);
    assert!(matches!(error, BookError::Corrupt { .. }), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_foreign_file_is_refused_and_left_as_it_is() {
    let (folder, path) = fresh();
    fs::write(&path, "[[peers]]\nnode_id = 7\n".repeat(300)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(refused(&path), BookError::NotABook { .. }));

    for mode in ["DELETE", "WAL"] {
        fs::remove_file(&path).unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        let sql = format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE peers (node_id TEXT); INSERT INTO peers VALUES ('x');"
        );
        other.execute_batch(&sql).unwrap();
        // As if it had been killed: a log is left.
        let set = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        other.set_db_config(set, true).unwrap();
        drop(other);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(files(&path).len(), if mode == "WAL" { 2 } else { 1 });
        let error = refused(&path);
        assert!(matches!(error, BookError::NotABook { .. }), "{error}");
    }

    let error = SqliteBook::open(folder.path()).unwrap_err();
    assert!(matches!(error, BookError::NotABook { .. }), "{error}");
    let nowhere = folder.path().join("nowhere/peers.db");
    let error = SqliteBook::open(&nowhere).unwrap_err();
    assert!(matches!(error, BookError::File { .. }), "{error}");
}

#[tokio::test]
async fn a_book_of_a_newer_version_is_refused_and_left_as_it_is() {
    let (_folder, path) = fresh();
    filled(&path, 3).await;
    for in_log in [false, true] {
        let later = rusqlite::Connection::open(&path).unwrap();
        let set = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        later.set_db_config(set, in_log).unwrap();
        let sql = "ALTER TABLE peers ADD COLUMN later TEXT; PRAGMA user_version = 7;";
        later
            .execute_batch(if in_log { "DELETE FROM peers" } else { sql })
            .unwrap();
        drop(later);
        assert_eq!(files(&path).len(), if in_log { 2 } else { 1 });
        let error = refused(&path);
        let expected = BookError::Newer {
            path: path.clone(),
            found: 7,
            known: 2,
        };
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn a_row_with_a_flipped_bit_is_an_error_that_names_the_peer_and_is_left_as_it_is() {
    let name = record(0).node_id.to_string();
    for change in [
        "addresses = replace(addresses, '9735', '9734')",
        "addresses = ''",
        "tag = 'gossip-only'",
        "weight = 1",
        "checksum = zeroblob(8)",
        "node_id = zeroblob(33)",
        "node_id = CAST(unhex('02') || zeroblob(32) AS BLOB)",
    ] {
        let (_folder, path) = fresh();
        filled(&path, 1).await;
        let other = rusqlite::Connection::open(&path).unwrap();
        let changed = other.execute(&format!("UPDATE peers SET {change}"), []);
        assert_eq!(changed, Ok(1), "{change}");
        drop(other);
        let before = files(&path);
        let book = SqliteBook::open(&path).unwrap();
        let error = book.load().await.unwrap_err();
        book.close();
        assert!(
            matches!(error, BookError::Corrupt { .. }),
            "{change}: {error}"
        );
        let named = !change.starts_with("node_id");
        assert_eq!(error.to_string().contains(&name), named, "{error}");
        assert_eq!(files(&path), before, "{change}");
    }
}

#[tokio::test]
async fn what_the_roster_keeps_beside_a_record_survives_its_being_saved_again() {
    let (_folder, path) = fresh();
    filled(&path, 1).await;
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute("UPDATE peers SET last_seen = 1770000000, failures = 3", [])
        .unwrap();
    drop(other);
    filled(&path, 1).await;
    let other = rusqlite::Connection::open(&path).unwrap();
    let kept = other.query_row("SELECT last_seen, failures FROM peers", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    });
    assert_eq!(kept, Ok((1_770_000_000, 3)));
}

#[tokio::test]
async fn a_disk_that_is_read_only_is_an_error_and_the_book_stays_as_it_was() {
    let (folder, path) = fresh();
    // Which root may write to all the same.
    let is_root = rustix::process::geteuid().is_root();
    let instead = if is_root {
        "nothing stands in"
    } else {
        "a folder without write permission stands in"
    };
    let disk = Disk::mount(folder.path(), instead);
    if disk.is_none() && is_root {
        return;
    }
    filled(&path, 3).await;
    if let Some(disk) = &disk {
        disk.remount("ro");
    } else {
        for (file, mode) in [(path.as_path(), 0o400), (folder.path(), 0o500)] {
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    let error = refused(&path);
    assert!(matches!(error, BookError::ReadOnly { .. }), "{error}");
    match &disk {
        Some(disk) => disk.remount("rw"),
        None => fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap(),
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(all(&SqliteBook::open(&path).unwrap()).await, records(3));
}

#[tokio::test]
async fn a_disk_that_is_full_is_an_error_and_nothing_that_was_written_is_lost() {
    let (folder, path) = fresh();
    let instead = "that the book says of a full disk is shown by a bound of SQLite's alone, in src/book/sqlite.rs";
    let Some(disk) = Disk::mount(folder.path(), instead) else {
        return;
    };
    let book = SqliteBook::open(&path).unwrap();
    let mut kept = Vec::new();
    let error = loop {
        let next = record(u32::try_from(kept.len()).unwrap());
        match book.save(next.clone()).await {
            Ok(()) => kept.push(next),
            Err(error) => break error,
        }
    };
    assert_eq!(error, BookError::Full { path: path.clone() });
    assert_eq!(error.retry(), Retry::Later);
    println!("{} peers on 512 KiB, log included", kept.len());
    assert_eq!(all(&book).await, kept);
    disk.remount("size=4m");
    let next = record(u32::try_from(kept.len()).unwrap());
    book.save(next.clone()).await.unwrap();
    kept.push(next);
    book.close();

    disk.remount("size=512k");
    let rest = folder.path().join("rest.bin");
    let mut length = 1 << 20;
    while fs::write(&rest, vec![7; length]).is_err() {
        length -= 4096;
    }
    let error = refused(&path);
    assert_eq!(error, BookError::Full { path: path.clone() });
    fs::remove_file(&rest).unwrap();
    assert_eq!(all(&SqliteBook::open(&path).unwrap()).await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_peers_are_saved_together_and_all_there_at_the_next_start() {
    const PEERS: u32 = 10_000;
    let (_folder, path) = fresh();
    let (_empty_folder, empty) = fresh();
    filled(&empty, 0).await;
    let expected = records(PEERS);
    let begun = Instant::now();
    let book = Arc::new(SqliteBook::open(&path).unwrap());
    save_all(&book, expected.clone()).await;
    let saved = begun.elapsed();
    Arc::into_inner(book).unwrap().close();
    for (path, peers) in [(&empty, 0), (&path, 10_000)] {
        let begun = Instant::now();
        let book = SqliteBook::open(path).unwrap();
        let opened = begun.elapsed();
        let mut loaded = book.load().await.unwrap();
        let both = begun.elapsed();
        println!("{peers} peers: opened and checked in {opened:?}, loaded as well in {both:?}");
        loaded.sort_by_key(|record| record.weight);
        assert_eq!(loaded, expected[..peers]);
    }
    println!("{PEERS} peers saved at once, each durable, in {saved:?}");
}
