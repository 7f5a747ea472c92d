//! The secrets of a gateway on disk: files that only their owner may read, replaced whole or not at all.
//!
//! For: the TLS key and certificate, and the root key of the macaroons. It never repairs permissions, never prints what a file
//! holds, and never leaves half a file under the name of a whole one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::macaroon::RootKey;
use crate::error::{Culprit, Retry};
use crate::hex;
use crate::limits::CREDENTIAL_FILE_MAX;
use crate::private;
use crate::secret::Secret32;

/// Why a certificate, a key or a macaroon cannot be used. Each says what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// There is no such file.
    #[error("no file at {path}")]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// `read`, `write`, `replace`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may read or write it (checked on Unix only).
    #[error(
        "{path} is open to others (mode {mode:03o}): run `chmod 600 {path}`, and renew what it holds if others could read it"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is another user's, who may change it at will (checked on Unix only).
    #[error(
        "{path} belongs to user {owner}, and this process is user {user}: run this as that user, or `chown {user} {path}` and renew what it holds if you do not know how it came there"
    )]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// The number of the user that asked for it.
        user: u32,
    },
    /// It does not hold what it should.
    #[error("{path} holds no {expected}: restore it from a copy, or renew it")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The key is not that of the certificate: a renewal was cut short.
    #[error("{certificate} and {key} do not belong together: renew the certificate")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A host that cannot stand in a certificate.
    #[error("`{host}` is neither a host name nor an address")]
    Host {
        /// The host.
        host: String,
    },
    /// The TLS library would not make or take a certificate.
    #[error("no certificate can be made or used: {0}")]
    Tls(String),
    /// A text that should be a certificate in PEM is none.
    #[error("not a certificate in PEM")]
    NotPem,
    /// The system gave no randomness.
    #[error("the system gives no random bytes: {0}")]
    NoEntropy(String),
}

impl CredentialsError {
    /// Whose fault it was: whoever keeps the files, but for the last resort.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::NoEntropy(_) | Self::Tls(_) => Culprit::Us,
            _ => Culprit::Operator,
        }
    }
    /// The rule that was broken.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Host { .. } => {
                "RFC 5280 § 4.2.1.6: a subject alternative name is a DNS name or an address"
            }
            Self::NotPem => "RFC 7468: textual encoding of certificates",
            _ => "credentials: the daemon's own regular files of mode 0600 that belong together",
        }
    }
    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

/// The file's bytes, if it is ours and nobody else may read it.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    read(path, true)
}

/// The file's bytes. For what is no secret.
pub(in crate::signer) fn read_public(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    read(path, false)
}

fn read(path: &Path, private: bool) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => CredentialsError::NotFound { path: path.into() },
        _ => CredentialsError::File {
            action: "read",
            path: path.into(),
            source,
        },
    };
    let too_long = || CredentialsError::Content {
        path: path.into(),
        expected: "credential of a sensible size",
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(too_long());
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if private {
        #[cfg(unix)]
        check_access(path, &metadata, rustix::process::geteuid().as_raw())?;
    }
    // In its full size at once: a buffer that grew would leave copies behind. One byte more shows that a file is too long.
    let mut bytes = Zeroizing::new(vec![0; CREDENTIAL_FILE_MAX + 1]);
    let mut filled = 0;
    while let Some(space) = bytes.get_mut(filled..).filter(|space| !space.is_empty()) {
        match file.read(space) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    if filled > CREDENTIAL_FILE_MAX {
        return Err(too_long());
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(unix)]
fn check_access(path: &Path, metadata: &fs::Metadata, user: u32) -> Result<(), CredentialsError> {
    use std::os::unix::fs::MetadataExt;
    let owner = metadata.uid();
    if owner != user {
        return Err(CredentialsError::ForeignOwner {
            path: path.into(),
            owner,
            user,
        });
    }
    match private::too_open(metadata, 0o077) {
        None => Ok(()),
        Some(mode) => Err(CredentialsError::TooOpen {
            path: path.into(),
            mode,
        }),
    }
}

/// Replaces the file, or makes it, with mode 0600: whoever looks sees the old bytes or the new ones, also after a power cut.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CredentialsError> {
    let failed = |action| {
        move |source| CredentialsError::File {
            action,
            path: path.into(),
            source,
        }
    };
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".new-{}", std::process::id()));
    let fresh = path.with_file_name(name);
    // Left over from a process that died here and had our id.
    let _ = fs::remove_file(&fresh);
    let written = private::make(&fresh, bytes)
        .map_err(failed("write"))
        .and_then(|()| fs::rename(&fresh, path).map_err(failed("replace")));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written?;
    private::sync_folder_of(path).map_err(failed("write"))
}

/// The root key's file: its name in decimal, a space, 64 hex digits, an end of line.
impl RootKey {
    /// Loads the root key, or makes one if there is no file. The flag says whether it was made.
    ///
    /// # Errors
    /// [`CredentialsError`]; a file that is open to others or not exactly a root key is refused.
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<(Self, bool), CredentialsError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(CredentialsError::NotFound { .. }) => {
                let key = Self::draw(0)?;
                key.save(path)?;
                Ok((key, true))
            }
            loaded => loaded.map(|key| (key, false)),
        }
    }

    /// Loads the root key.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, CredentialsError> {
        let path = path.as_ref();
        let text = read_private(path)?;
        Self::parse(&text).ok_or_else(|| CredentialsError::Content {
            path: path.into(),
            expected: "root key",
        })
    }

    /// Replaces the root key: every macaroon that was baked with the old one is worth nothing from then on.
    ///
    /// # Errors
    /// [`CredentialsError`]; the old key is then still in force.
    pub fn rotate(path: impl AsRef<Path>) -> Result<Self, CredentialsError> {
        let path = path.as_ref();
        let next = Self::load(path)?.successor()?;
        next.save(path)?;
        Ok(next)
    }

    /// The key that comes after this one. It counts once it is saved.
    pub(crate) fn successor(&self) -> Result<Self, CredentialsError> {
        Self::draw(self.id().wrapping_add(1))
    }

    fn draw(id: u64) -> Result<Self, CredentialsError> {
        let key = Secret32::try_build(|bytes| getrandom::fill(bytes.as_mut_slice()))
            .map_err(|error| CredentialsError::NoEntropy(error.to_string()))?;
        Ok(Self::new(id, key))
    }

    /// Puts this key in the place of whichever is there.
    pub(crate) fn save(&self, path: &Path) -> Result<(), CredentialsError> {
        let name = self.id().to_string();
        let mut text = Zeroizing::new(Vec::with_capacity(name.len() + 66));
        text.extend_from_slice(name.as_bytes());
        text.push(b' ');
        text.extend_from_slice(hex::encode(self.secret().expose()).as_bytes());
        text.push(b'\n');
        write_private(path, &text)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text.strip_suffix(b"\n").unwrap_or(text)).ok()?;
        let (id, digits) = text.split_once(' ')?;
        if digits.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let key = Secret32::try_build(|bytes| {
            hex::decode_to(digits.as_bytes(), bytes.as_mut_slice()).ok_or(())
        });
        Some(Self::new(id.parse().ok()?, key.ok()?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_root_key_is_made_once_private_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("macaroon.root");
        let (made, new) = RootKey::load_or_generate(&path).unwrap();
        assert!(new);
        #[cfg(unix)]
        assert_eq!(mode(&path), 0o600);
        let (read, new) = RootKey::load_or_generate(&path).unwrap();
        assert!(!new && read.secret() == made.secret() && read.id() == made.id());
    }

    #[test]
    fn a_rotated_root_key_has_another_name_and_other_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("macaroon.root");
        let (old, _) = RootKey::load_or_generate(&path).unwrap();
        let new = RootKey::rotate(&path).unwrap();
        assert!(new.id() == old.id() + 1 && new.secret() != old.secret());
        assert!(RootKey::load(&path).unwrap().secret() == new.secret());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_root_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("macaroon.root");
        for content in [
            "",
            "0",
            "0 ",
            "0 zz",
            &format!("+1 {}", "0".repeat(64)),
            &format!("1 {}", "g".repeat(64)),
            &"0".repeat(100_000),
        ] {
            write_private(&path, content.as_bytes()).unwrap();
            assert!(
                matches!(RootKey::load(&path), Err(CredentialsError::Content { .. })),
                "{content:.20}"
            );
        }
        assert!(matches!(
            RootKey::load(folder.path()),
            Err(CredentialsError::Content { .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_another_user_owns_is_refused() {
        use std::os::unix::fs::{MetadataExt, chown};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("macaroon.root");
        RootKey::load_or_generate(&path).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        let owner = metadata.uid();
        assert!(check_access(&path, &metadata, owner).is_ok());
        let refused = check_access(&path, &metadata, owner + 1);
        assert!(
            matches!(refused, Err(CredentialsError::ForeignOwner { user, .. }) if user == owner + 1),
            "{refused:?}"
        );
        // Only root can give a file away; elsewhere the above is all that can be tried.
        if chown(&path, Some(65_534), None).is_ok() {
            let read = RootKey::load(&path).map(|_| ());
            assert!(
                matches!(
                    read,
                    Err(CredentialsError::ForeignOwner { owner: 65_534, .. })
                ),
                "{read:?}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("macaroon.root");
        RootKey::load_or_generate(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            RootKey::load(&path),
            Err(CredentialsError::TooOpen { mode: 0o640, .. })
        ));
    }
}
