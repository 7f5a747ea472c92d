//! The tables of a book on disk, and how an older file is brought up to date. It never touches a file of a newer version:
//! whoever calls has looked at the version before.

use rusqlite::{Connection, TransactionBehavior};

/// What tells a peer book from other databases (`PRAGMA application_id`): `PLPB`.
pub(super) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"PLPB");

/// The versions, oldest first; a file's `user_version` is the number of those that it has been through. What is here has been
/// released and never changes: a new version is a new entry.
///
/// `addresses` is text, one address a line, so that a later version may know more kinds of them. `last_seen` (seconds since
/// the Unix epoch) and `failures` are noted every few minutes; a saved record leaves them as they are. `checksum` is over the
/// columns before it: SQLite sees a broken page, and not a flipped bit in a text. Those two are not under it: whatever they say, all
/// that can come of it is another order of dialling.
///
/// Version 2 tells what was learned from what the operator gave: `addresses` are the operator's, as all of an older book are, for an
/// import left private ones out unless told otherwise.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE peers (
        node_id BLOB NOT NULL PRIMARY KEY CHECK (length(node_id) = 33),
        addresses TEXT NOT NULL,
        tag TEXT CHECK (tag IN ('gossip-only', 'channel-bearing')),
        weight INTEGER NOT NULL CHECK (weight BETWEEN 0 AND 4294967295),
        checksum BLOB NOT NULL CHECK (length(checksum) = 8),
        last_seen INTEGER CHECK (last_seen >= 0),
        failures INTEGER CHECK (failures >= 0)
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE peers ADD COLUMN learned TEXT NOT NULL DEFAULT '';
",
];

/// The version that this software writes.
pub(super) fn known() -> i64 {
    count(MIGRATIONS)
}

/// The version of an open database; 0: none yet.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Takes a database through what it has not been through, each step whole or not at all.
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let mut at = version(connection)?;
    while let Some(step) = usize::try_from(at).ok().and_then(|at| steps.get(at)) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        at = at.saturating_add(1);
        transaction.pragma_update(None, "user_version", at)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()?;
    }
    Ok(())
}

fn count(steps: &[&str]) -> i64 {
    i64::try_from(steps.len()).unwrap_or(i64::MAX)
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

    fn columns(connection: &Connection) -> i64 {
        let count = "SELECT count(*) FROM pragma_table_info('peers')";
        connection.query_row(count, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_older_book_goes_through_the_later_versions_only() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        assert_eq!(version(&connection).unwrap(), known());
        let before = columns(&connection);
        let later = [MIGRATIONS, &["ALTER TABLE peers ADD COLUMN note TEXT"]].concat();
        for _ in 0..2 {
            migrate(&mut connection, &later).unwrap();
            assert_eq!(version(&connection).unwrap(), known() + 1);
            assert_eq!(columns(&connection), before + 1);
        }
    }

    #[test]
    fn a_version_that_fails_halfway_leaves_the_one_before() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let before = columns(&connection);
        let broken = "ALTER TABLE peers ADD COLUMN note TEXT; CREATE TABLE peers (a);";
        let later = [MIGRATIONS, &[broken]].concat();
        migrate(&mut connection, &later).unwrap_err();
        assert_eq!(version(&connection).unwrap(), known());
        assert_eq!(columns(&connection), before);
    }
}
