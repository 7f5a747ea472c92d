//! Files that only their owner may read: made 0600, looked at before they are trusted, locked against other processes.
//!
//! For: keys, tokens, credentials, the peer book. What is wrong with one is said by whoever asked, in the words of its own error.
//! It never repairs permissions, and never writes over a file.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
#[cfg(any(feature = "admin", feature = "book"))]
use std::time::{Duration, Instant};

/// For writing; a file that is made with it is 0600 from its first moment.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// The permission bits, if one of `forbidden` is among them. Nothing is known of them but on Unix.
#[cfg(unix)]
pub(crate) fn too_open(metadata: &Metadata, forbidden: u32) -> Option<u32> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    (mode & forbidden != 0).then_some(mode)
}

#[cfg(not(unix))]
pub(crate) fn too_open(_: &Metadata, _: u32) -> Option<u32> {
    None
}

/// Makes a file that is not there yet: whole and on the disk, or not at all.
///
/// # Errors
/// The system's; `AlreadyExists` for a file that is there, which stays as it is.
pub(crate) fn make(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = options().create_new(true).open(path)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder_of(path))
        .inspect_err(|_| {
            // Half a key is worse than none. This process made the file just now, so nothing of anybody's is lost.
            let _ = std::fs::remove_file(path);
        })
}

/// Makes a new or changed name in a folder last through a power cut.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
pub(crate) fn sync_folder_of(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Keeps every other process out for as long as it lives. It ends with the process, however that ends.
#[cfg(any(feature = "admin", feature = "book"))]
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Between two looks at a lock that another process has.
#[cfg(any(feature = "admin", feature = "book"))]
const LOOK_AGAIN: Duration = Duration::from_millis(5);

#[cfg(any(feature = "admin", feature = "book"))]
impl Lock {
    /// Takes the lock on a file of its own, which is made if need be. `None` when another has held it for all of `wait`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn within(path: &Path, wait: Duration) -> io::Result<Option<Self>> {
        use rustix::fs::{FlockOperation, flock};
        let file = options().create(true).truncate(false).open(path)?;
        let begun = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < wait => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_made_private_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        make(&path, b"one").unwrap();
        assert_eq!(too_open(&path.metadata().unwrap(), 0o177), None);
        let again = make(&path, b"two").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
    }

    #[cfg(any(feature = "admin", feature = "book"))]
    #[test]
    fn a_lock_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::within(&path, Duration::ZERO).unwrap().unwrap();
        assert!(Lock::within(&path, Duration::ZERO).unwrap().is_none());
        drop(first);
        assert!(Lock::within(&path, Duration::ZERO).unwrap().is_some());
    }
}
