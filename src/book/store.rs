//! The database of a book on disk: opened, checked, read and written. One thread owns it (`sqlite.rs`).
//!
//! Nothing is written before the file is known to be a peer book of a known version, and whole: until then even the checkpoint
//! that SQLite makes on closing is off. A file that fails the check is never changed.

use super::schema;
use super::{BookError, PeerRecord, Sighting};
use crate::address::{AddressOrigin, KnownAddress, PeerAddress};
use crate::limits;
use crate::link::Tag;
use crate::node_id::{NodeId, POINT_LEN};
use crate::private::{self, Lock};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior, params};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const LOAD: &str = "SELECT node_id, addresses, tag, weight, checksum, learned FROM peers LIMIT ?1";

const SAVE: &str = "INSERT INTO peers (node_id, addresses, tag, weight, checksum, learned) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (node_id) \
    DO UPDATE SET addresses = ?2, tag = ?3, weight = ?4, checksum = ?5, learned = ?6";

/// Of those about whom anything is known: at the first start with an imported graph that is nobody.
const SIGHTINGS: &str = "SELECT node_id, last_seen, failures FROM peers \
    WHERE last_seen IS NOT NULL OR failures > 0 LIMIT ?1";

/// A sighting without a time takes none away.
const NOTE: &str =
    "UPDATE peers SET last_seen = coalesce(?2, last_seen), failures = ?3 WHERE node_id = ?1";

const REMOVE: &str = "DELETE FROM peers WHERE node_id = ?1";

/// Bytes of a row's checksum: a flipped bit goes unseen once in 2^64.
const CHECKSUM_LEN: usize = 8;

/// A change to the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Save(PeerRecord),
    Remove(NodeId),
    Note(Vec<Sighting>),
}

/// An open book. The connection is closed before the lock is let go.
pub(super) struct Store {
    path: PathBuf,
    connection: Connection,
    _lock: Lock,
}

impl Store {
    /// Opens the book at `path`, or makes it.
    pub(super) fn open(path: &Path) -> Result<Self, BookError> {
        let lock = lock(path)?;
        make_if_missing(path)?;
        let connection = connect(path).map_err(|error| failed("open", path, &error))?;
        let mut store = Self {
            path: path.to_path_buf(),
            connection,
            _lock: lock,
        };
        store.check()?;
        store
            .configure()
            .map_err(|error| failed("set up", path, &error))?;
        Ok(store)
    }

    /// Every peer on record.
    pub(super) fn load(&self) -> Result<Vec<PeerRecord>, BookError> {
        let bound = limits::PEERS_MAX;
        let failed = |error| failed("read", &self.path, &error);
        let mut select = self.connection.prepare(LOAD).map_err(failed)?;
        let mut rows = select
            .query([i64::try_from(bound).unwrap_or(i64::MAX).saturating_add(1)])
            .map_err(failed)?;
        let mut records = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            if records.len() == bound {
                return Err(BookError::TooMany {
                    path: self.path.clone(),
                    most: bound,
                });
            }
            records.push(record(row).map_err(|detail| self.corrupt(detail))?);
        }
        Ok(records)
    }

    /// What was last seen of the peers on record. What this version cannot make sense of is as if it had not been noted.
    pub(super) fn sightings(&self) -> Result<Vec<Sighting>, BookError> {
        let failed = |error| failed("read", &self.path, &error);
        let mut select = self.connection.prepare(SIGHTINGS).map_err(failed)?;
        let bound = i64::try_from(limits::PEERS_MAX).unwrap_or(i64::MAX);
        let mut rows = select.query([bound]).map_err(failed)?;
        let mut seen = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            seen.extend(sighting(row).map_err(failed)?);
        }
        Ok(seen)
    }

    /// Writes all of `changes`, or none. They are on the disk when this returns.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), BookError> {
        let path = &self.path;
        write(&mut self.connection, changes).map_err(|error| failed("write", path, &error))
    }

    /// Looks whether the file is a peer book that may be written to. It writes nothing.
    fn check(&self) -> Result<(), BookError> {
        let failed = |error| failed("read", &self.path, &error);
        let pragma = |name| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .map_err(failed)
        };
        if pragma("page_count")? > 0 {
            if pragma("application_id")? != i64::from(schema::APPLICATION_ID) {
                return Err(BookError::NotABook {
                    path: self.path.clone(),
                    detail: "it is another program's database".into(),
                });
            }
            let (found, known) = (pragma("user_version")?, schema::known());
            if found > known {
                return Err(BookError::Newer {
                    path: self.path.clone(),
                    found,
                    known,
                });
            }
            let verdict: String = self
                .connection
                .pragma_query_value(None, "quick_check", |row| row.get(0))
                .map_err(failed)?;
            if verdict != "ok" {
                return Err(self.corrupt(verdict));
            }
        }
        if self.connection.is_readonly("main").map_err(failed)? {
            return Err(BookError::ReadOnly {
                path: self.path.clone(),
                detail: "the system opens it for reading only".into(),
            });
        }
        Ok(())
    }

    fn configure(&mut self) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        // The first version is written with a rollback journal, so that the file itself says from its first commit on whose it is.
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Nothing but a full flush is durable on macOS; elsewhere these do nothing.
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "checkpoint_fullfsync", true)?;
        schema::migrate(connection, schema::MIGRATIONS)?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
            let mode: String = row.get(0)?;
            if mode == "wal" {
                Ok(())
            } else {
                Err(rusqlite::Error::InvalidQuery)
            }
        })?;
        for statement in [LOAD, SAVE, REMOVE, SIGHTINGS, NOTE] {
            connection.prepare(statement)?;
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Ok(())
    }

    fn corrupt(&self, detail: String) -> BookError {
        BookError::Corrupt {
            path: self.path.clone(),
            detail,
        }
    }

    /// A disk that is full once the database has `pages`: for tests, where no real one can be had.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        let most: u32 = self
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, |row| row.get(0))
            .unwrap_or_default();
        assert!(most >= pages);
    }
}

fn write(connection: &mut Connection, changes: &[Change]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    apply(&transaction, changes)?;
    transaction.commit()
}

fn apply(transaction: &Transaction<'_>, changes: &[Change]) -> rusqlite::Result<()> {
    let mut save = transaction.prepare(SAVE)?;
    let mut remove = transaction.prepare(REMOVE)?;
    let mut note = transaction.prepare(NOTE)?;
    for change in changes {
        match change {
            Change::Save(record) => {
                let id = record.node_id.as_bytes();
                let addresses = lines(&record.addresses, AddressOrigin::ByHand);
                let learned = lines(&record.addresses, AddressOrigin::Learned);
                let tag = record.tag.map(Tag::as_str);
                let checksum = checksum(id, [&addresses, &learned], tag, record.weight);
                save.execute(params![
                    id.as_slice(),
                    addresses,
                    tag,
                    record.weight,
                    checksum.as_slice(),
                    learned
                ])?
            }
            Change::Remove(peer) => remove.execute([peer.as_bytes().as_slice()])?,
            Change::Note(sightings) => {
                let mut noted = 0;
                for seen in sightings {
                    let at = seen
                        .last_seen
                        .map(|at| i64::try_from(at).unwrap_or(i64::MAX));
                    let id = seen.node_id.as_bytes().as_slice();
                    noted += note.execute(params![id, at, seen.failures])?;
                }
                noted
            }
        };
    }
    Ok(())
}

/// One address a line, of those that `origin` has given. What is over the bound is left out: the supervisor keeps no more either.
fn lines(addresses: &[KnownAddress], origin: AddressOrigin) -> String {
    let mut lines = String::new();
    let kept = addresses.iter().take(limits::ADDRESSES_MAX);
    for known in kept.filter(|known| known.origin == origin) {
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(&known.address.to_string());
    }
    lines
}

/// The addresses that such lines hold; `None`: one of them is none.
fn addresses(lines: &str, origin: AddressOrigin) -> Option<Vec<KnownAddress>> {
    let read = |line: &str| {
        // An embedder may have put down an IP address that no person would be allowed to write; so it is read.
        let ip = line.parse::<SocketAddr>().map(PeerAddress::Ip);
        let address = ip.or_else(|_| line.parse()).ok()?;
        Some(KnownAddress { address, origin })
    };
    lines.lines().map(read).collect()
}

/// A row as a record, or what is wrong with it.
fn record(row: &Row<'_>) -> Result<PeerRecord, String> {
    let wrong = |error: rusqlite::Error| format!("a row cannot be read: {error}");
    let id: [u8; POINT_LEN] = row.get(0).map_err(wrong)?;
    let node_id = NodeId::known(id).ok_or("a row is of no peer")?;
    let wrong = |what: &dyn fmt::Display| format!("the row of peer {node_id}: {what}");
    let get = |error: rusqlite::Error| wrong(&error);
    let text: String = row.get(1).map_err(get)?;
    let label: Option<String> = row.get(2).map_err(get)?;
    let (weight, sum): (u32, [u8; CHECKSUM_LEN]) =
        (row.get(3).map_err(get)?, row.get(4).map_err(get)?);
    let learned: String = row.get(5).map_err(get)?;
    if sum != checksum(&id, [&text, &learned], label.as_deref(), weight) {
        return Err(wrong(&"it does not match its checksum"));
    }
    let known = [
        (&text, AddressOrigin::ByHand),
        (&learned, AddressOrigin::Learned),
    ];
    let known = known.map(|(text, origin)| addresses(text, origin));
    let addresses: Option<Vec<_>> = known.into_iter().collect();
    let addresses = addresses.ok_or_else(|| wrong(&"no address"))?.concat();
    let tag = label.map(|label| {
        let mut tags = Tag::ALL.into_iter();
        tags.find(|tag| tag.as_str() == label)
            .ok_or_else(|| wrong(&"no tag"))
    });
    Ok(PeerRecord {
        node_id,
        addresses,
        tag: tag.transpose()?,
        weight,
    })
}

/// `None`: of no peer.
fn sighting(row: &Row<'_>) -> rusqlite::Result<Option<Sighting>> {
    let (at, failures): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
    Ok(NodeId::known(row.get(0)?).map(|node_id| Sighting {
        node_id,
        last_seen: at.and_then(|at| u64::try_from(at).ok()),
        failures: failures.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX)),
    }))
}

/// Over what is saved of a peer: accidents are found, an enemy is not kept out.
fn checksum(
    id: &[u8; POINT_LEN],
    [addresses, learned]: [&str; 2],
    tag: Option<&str>,
    weight: u32,
) -> [u8; CHECKSUM_LEN] {
    let mut sha = Sha256::new();
    sha.update(id);
    sha.update(weight.to_be_bytes());
    sha.update(tag.unwrap_or_default());
    // What is a tag and what an address is never in doubt: IP addresses, of which alone the first version knew, begin with a digit or
    // a bracket, tags with neither, and anything else is set apart.
    if !addresses.starts_with(|first: char| first.is_ascii_digit() || first == '[')
        && !addresses.is_empty()
    {
        sha.update([0]);
    }
    sha.update(addresses);
    if !learned.is_empty() {
        sha.update([0]);
        sha.update(learned);
    }
    let mut sum = [0; CHECKSUM_LEN];
    for (to, from) in sum.iter_mut().zip(sha.finalize()) {
        *to = from;
    }
    sum
}

/// Keeps every other process out, for as long as the file that is returned stays open.
///
/// The lock is on a file of its own: closing a descriptor of the database would let go of the locks that SQLite holds on it.
fn lock(path: &Path) -> Result<Lock, BookError> {
    // One that is just being closed, in this process or another, is waited for.
    match Lock::within(&beside(path, ".lock"), limits::BOOK_LOCK_WAIT) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(BookError::InUse {
            path: path.to_path_buf(),
        }),
        Err(error) => Err(refused("lock", path, &error)),
    }
}

/// Makes an empty file, private and known to its folder for good, or looks at the one that is there.
fn make_if_missing(path: &Path) -> Result<(), BookError> {
    let length = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            return Err(BookError::NotABook {
                path: path.to_path_buf(),
                detail: "it is no file".into(),
            });
        }
        Ok(metadata) => {
            check_mode(path, &metadata)?;
            Some(metadata.len())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(refused("look at", path, &error)),
    };
    // SQLite would delete the log of a database that is empty: it may be all that is left.
    let log = beside(path, "-wal");
    if length.is_none_or(|length| length == 0) && fs::metadata(&log).is_ok_and(|log| log.len() > 0)
    {
        return Err(BookError::Corrupt {
            path: path.to_path_buf(),
            detail: format!(
                "it is empty or gone, while its log {} is not",
                log.display()
            ),
        });
    }
    if length.is_some() {
        return Ok(());
    }
    let failed = |error| refused("make", path, &error);
    private::make(path, &[]).map_err(failed)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.busy_timeout(limits::BOOK_LOCK_WAIT)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// What SQLite says, as an error of the book's.
fn failed(action: &'static str, path: &Path, error: &rusqlite::Error) -> BookError {
    let (path, detail) = (path.to_path_buf(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => BookError::NotABook { path, detail },
        Some(ErrorCode::DatabaseCorrupt) => BookError::Corrupt { path, detail },
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            BookError::ReadOnly { path, detail }
        }
        Some(ErrorCode::DiskFull) => BookError::Full { path },
        // Memory that is mapped, or a file that is made longer: the system has no word of its own for a full disk then.
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full(&path) => {
            BookError::Full { path }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => BookError::Locked { path },
        // A table or a column that is not as this version has made it.
        Some(ErrorCode::Unknown | ErrorCode::ConstraintViolation) => {
            BookError::Corrupt { path, detail }
        }
        _ => BookError::File {
            action,
            path,
            detail,
        },
    }
}

/// What the system says, as an error of the book's.
fn refused(action: &'static str, path: &Path, error: &io::Error) -> BookError {
    let (path, detail) = (path.to_path_buf(), error.to_string());
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            BookError::ReadOnly { path, detail }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BookError::Full { path },
        _ => BookError::File {
            action,
            path,
            detail,
        },
    }
}

fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(folder(path)).is_ok_and(|disk| disk.f_bavail == 0)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The file beside the book whose name is the book's with `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path
        .file_name()
        .unwrap_or_else(|| OsStr::new("book"))
        .to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), BookError> {
    match private::too_open(metadata, 0o077) {
        None => Ok(()),
        Some(mode) => Err(BookError::TooOpen {
            path: path.to_path_buf(),
            mode,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::node_id::LocalKey;

    /// A book as the first version wrote it: its table, its statement and its checksum, spelled out.
    fn write_version_one(path: &Path, rows: &[(NodeId, &str, Option<&str>, u32)]) {
        private::make(path, &[]).unwrap();
        let mut connection = Connection::open(path).unwrap();
        let first = schema::MIGRATIONS.get(..1).unwrap();
        schema::migrate(&mut connection, first).unwrap();
        assert_eq!(schema::version(&connection).unwrap(), 1);
        for (id, addresses, tag, weight) in rows {
            let mut sha = Sha256::new();
            sha.update(id.as_bytes());
            sha.update(weight.to_be_bytes());
            sha.update(tag.unwrap_or_default());
            sha.update(addresses);
            let sum = sha.finalize();
            let save = "INSERT INTO peers (node_id, addresses, tag, weight, checksum) VALUES (?1, ?2, ?3, ?4, ?5)";
            let sum = sum.get(..CHECKSUM_LEN).unwrap();
            let row = params![id.as_bytes().as_slice(), addresses, tag, weight, sum];
            connection.execute(save, row).unwrap();
        }
    }

    #[test]
    fn a_book_of_the_first_version_is_read_whole_and_what_is_in_it_is_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let id = |number| LocalKey::from_bytes(&mut [number; 32]).unwrap().node_id();
        // The last is one that no person may write: an embedder's.
        let rows = [
            (
                id(1),
                "192.168.1.1:9735\n[2001:db8::1]:9735",
                Some("channel-bearing"),
                7,
            ),
            (id(2), "", None, 0),
            (id(3), "0.0.0.0:0", Some("gossip-only"), 1),
        ];
        write_version_one(&path, &rows);
        let mut store = Store::open(&path).unwrap();
        assert_eq!(schema::version(&store.connection).unwrap(), schema::known());
        let mut known = store.load().unwrap();
        known.sort_by_key(|record| record.weight);
        let written = |record: &PeerRecord| lines(&record.addresses, AddressOrigin::ByHand);
        let texts: Vec<_> = known.iter().map(written).collect();
        assert_eq!(
            texts,
            ["", "0.0.0.0:0", "192.168.1.1:9735\n[2001:db8::1]:9735"]
        );
        assert!(
            known
                .iter()
                .all(|record| lines(&record.addresses, AddressOrigin::Learned).is_empty())
        );
        assert_eq!(
            known
                .iter()
                .map(|record| record.node_id)
                .collect::<Vec<_>>(),
            [id(2), id(3), id(1)]
        );
        // What is new goes in beside it, and comes back with who has said it.
        let onion = crate::address::OnionService::of_key([5; 32]);
        let name: PeerAddress = "node.example:1".parse().unwrap();
        let record = PeerRecord {
            node_id: id(4),
            addresses: vec![
                name.into(),
                KnownAddress::learned(PeerAddress::Onion {
                    service: onion,
                    port: 2,
                }),
            ],
            tag: None,
            weight: 9,
        };
        store.commit(&[Change::Save(record.clone())]).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let kept = store.load().unwrap();
        assert_eq!(kept.len(), 4);
        assert!(kept.contains(&record));
        // Whose word it was is under the checksum too.
        let swap = "UPDATE peers SET addresses = learned, learned = addresses WHERE weight = 9";
        assert_eq!(store.connection.execute(swap, []).unwrap(), 1);
        let error = store.load().unwrap_err();
        assert!(matches!(error, BookError::Corrupt { .. }), "{error}");
    }
}
