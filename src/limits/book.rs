//! Of the peer book, and of what is imported into it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// How long the peer book may take to record a promotion, and to write what is left when the supervisor stops. A disk that needs longer is broken.
pub const BOOK_DEADLINE: Duration = Duration::from_secs(5);

/// How long the peer book waits for a program that holds its database: less than half of [`BOOK_DEADLINE`], so that a second try fits in.
pub const BOOK_LOCK_WAIT: Duration = Duration::from_secs(2);

/// Calls that may wait for the peer book's thread; further callers wait before their call. Some 200 bytes each.
pub const BOOK_CALLS: usize = 1024;

/// Most writes in one transaction of the peer book, and most that the supervisor asks for at once. One `fsync` for all of them is what a group is for, and 256 rows are written in a few milliseconds; a larger group would only make the first of it wait.
pub const BOOK_GROUP: usize = 256;

/// How often the peer book notes when peers were last seen: a crash loses that much of it, and 10,000 links then cost one row a link in 5 minutes.
pub const SIGHTINGS_EVERY: Duration = Duration::from_secs(300);

/// Failures that count of those recalled from the peer book: the next wait is at most 17 minutes, for it may have been our own network that failed.
pub const FAILURES_RECALLED: u32 = 10;

/// Longest file that is read for an import. `lncli describegraph` of the main chain is some 50 MB.
pub const IMPORT_FILE_MAX: usize = 256 * 1024 * 1024;

/// Most entries in one list of such a file. The public graph has 17,000 nodes and 40,000 channels.
pub const IMPORT_ENTRIES_MAX: usize = 1_000_000;
