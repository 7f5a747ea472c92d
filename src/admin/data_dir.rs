//! The data directory: the two tokens, the address of the running daemon, and the lock that keeps it the only one.
//!
//! ```text
//!  DIR/ 0700   lock   identity.key 0600   readonly.token 0600   admin.token 0600   admin.addr (while a daemon runs)
//!            with a gateway also, all 0600:   signer.cert   signer.key   macaroon.root   signer.macaroon
//! ```
//!
//! It never prints a token and never repairs permissions: a file that others could read is an error that says what to do.

use super::error::AdminError;
use crate::hex;
use crate::limits;
use crate::private::{self, Lock};
use crate::secret::Secret;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// Hex digits in a token: 32 random bytes.
const TOKEN_LEN: usize = 64;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// To read.
    ReadOnly,
    /// To read and to change.
    Admin,
}

impl TokenKind {
    /// The name of its file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::ReadOnly => "readonly.token",
            Self::Admin => "admin.token",
        }
    }
}

/// A token: compared in constant time, wiped on drop, never printed.
pub struct Token(Secret<TOKEN_LEN>);

impl Token {
    /// Whether `presented` is this token. Takes the same time for every text of the right length.
    pub fn matches(&self, presented: &[u8]) -> bool {
        let Ok(mut presented) = <[u8; TOKEN_LEN]>::try_from(presented) else {
            return false;
        };
        self.0.ct_eq(&Secret::take(&mut presented))
    }

    /// The value of an `Authorization` header that presents it.
    pub fn bearer(&self) -> Zeroizing<String> {
        let digits = self.0.expose().iter().map(|digit| char::from(*digit));
        let mut header = Zeroizing::new(String::with_capacity("Bearer ".len() + TOKEN_LEN));
        header.push_str("Bearer ");
        header.extend(digits);
        header
    }

    fn draw() -> Result<Self, AdminError> {
        let mut random = Zeroizing::new([0; TOKEN_LEN / 2]);
        getrandom::fill(random.as_mut_slice())
            .map_err(|error| AdminError::NoEntropy(error.to_string()))?;
        Ok(Self(Secret::build(|text| {
            for (place, digit) in text.iter_mut().zip(hex::digits(random.as_slice())) {
                *place = digit;
            }
        })))
    }
}

/// A daemon's data directory.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

/// Keeps every other daemon out of a data directory, and takes this one's address out of it when it ends.
pub struct Occupation {
    dir: DataDir,
    /// Held for its lock, which ends with the process, however that ends.
    _lock: Lock,
}

impl DataDir {
    /// The directory as it is; nothing is made or checked.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the directory (0700), if it is not there, and checks that nobody else may write to it.
    ///
    /// # Errors
    /// It cannot be made or looked at, or others may write to it.
    pub fn prepare(&self) -> Result<(), AdminError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&self.path)
            .map_err(AdminError::file("make the data directory", &self.path))?;
        let metadata = fs::metadata(&self.path).map_err(AdminError::file("look at", &self.path))?;
        check_mode(&self.path, &metadata, 0o022, 0o700)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Becomes the one daemon on this directory.
    ///
    /// # Errors
    /// Another one is, or the lock file cannot be opened.
    pub fn occupy(&self) -> Result<Occupation, AdminError> {
        let path = self.file("lock");
        // A command that asks whether a daemon is there holds the lock for a moment.
        let locked = Lock::within(&path, limits::DATA_DIR_LOCK_WAIT);
        match locked.map_err(AdminError::file("lock", &path))? {
            Some(lock) => Ok(Occupation {
                dir: self.clone(),
                _lock: lock,
            }),
            None => Err(AdminError::Occupied {
                path: self.path.clone(),
            }),
        }
    }

    /// Whether a daemon holds this directory now. One that was killed holds it no more, while its `admin.addr` may still be there and
    /// its port may be somebody else's: no token may go there.
    pub fn is_occupied(&self) -> bool {
        let Ok(lock) = File::open(self.file("lock")) else {
            return false;
        };
        flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// A token that is there.
    ///
    /// # Errors
    /// There is none, it is open to others, or it is not a token.
    pub fn token(&self, kind: TokenKind) -> Result<Token, AdminError> {
        let path = self.file(kind.file_name());
        let mut file = File::open(&path).map_err(AdminError::file("read the token", &path))?;
        let metadata = file
            .metadata()
            .map_err(AdminError::file("look at", &path))?;
        check_mode(&path, &metadata, 0o077, 0o600)?;
        let mut text = Zeroizing::new([0_u8; TOKEN_LEN + 2]);
        let length = read_up_to(&mut file, text.as_mut_slice())
            .map_err(AdminError::file("read the token", &path))?;
        let written = text.get(..length).unwrap_or_default();
        let written = written.strip_suffix(b"\n").unwrap_or(written);
        match <[u8; TOKEN_LEN]>::try_from(written) {
            Ok(mut digits) if digits.iter().all(u8::is_ascii_hexdigit) => {
                Ok(Token(Secret::take(&mut digits)))
            }
            Ok(mut digits) => {
                digits.zeroize();
                Err(AdminError::NotAToken { path })
            }
            Err(_) => Err(AdminError::NotAToken { path }),
        }
    }

    /// A token that is there, or a new one.
    ///
    /// # Errors
    /// As [`token`](Self::token), or a new file cannot be written.
    pub fn token_or_new(&self, kind: TokenKind) -> Result<Token, AdminError> {
        let path = self.file(kind.file_name());
        let token = Token::draw()?;
        let mut line = Zeroizing::new([b'\n'; TOKEN_LEN + 1]);
        for (to, digit) in line.iter_mut().zip(token.0.expose()) {
            *to = *digit;
        }
        match private::make(&path, line.as_slice()) {
            Ok(()) => Ok(token),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.token(kind),
            Err(error) => Err(AdminError::file("write the token", &path)(error)),
        }
    }

    /// Where the running daemon takes commands; `None` when no daemon runs, as far as the directory tells.
    ///
    /// # Errors
    /// The file is there and cannot be read. A file that makes no sense counts as none.
    pub fn admin_address(&self) -> Result<Option<SocketAddr>, AdminError> {
        let path = self.file("admin.addr");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidData
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(AdminError::file("read", &path)(error)),
        }
    }
}

impl Occupation {
    /// Tells the commands where the daemon is. An address that stands for all is written as loopback.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn announce(&self, mut address: SocketAddr) -> Result<(), AdminError> {
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let (path, draft) = (self.dir.file("admin.addr"), self.dir.file("admin.addr.new"));
        // Renamed into place: no command reads half an address.
        fs::write(&draft, format!("{address}\n"))
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(AdminError::file("write", &path))
    }
}

impl Drop for Occupation {
    fn drop(&mut self) {
        // It is gone already if it was never announced; a stale one is recognised by its commands.
        let _ = fs::remove_file(self.dir.file("admin.addr"));
    }
}

fn check_mode(
    path: &Path,
    metadata: &fs::Metadata,
    forbidden: u32,
    wanted: u32,
) -> Result<(), AdminError> {
    match private::too_open(metadata, forbidden) {
        None => Ok(()),
        Some(mode) => Err(AdminError::TooOpen {
            path: path.to_path_buf(),
            mode,
            wanted,
        }),
    }
}

fn read_up_to(file: &mut File, into: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = into.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => length = length.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
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
    use std::os::unix::fs::PermissionsExt;

    fn fresh() -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::at(folder.path().join("data"));
        dir.prepare().unwrap();
        (folder, dir)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_token_is_made_once_private_and_read_again() {
        let (_folder, dir) = fresh();
        assert_eq!(mode(dir.path()), 0o700);
        let made = dir.token_or_new(TokenKind::Admin).unwrap();
        assert_eq!(mode(&dir.file("admin.token")), 0o600);
        let text = fs::read(dir.file("admin.token")).unwrap();
        let again = dir.token_or_new(TokenKind::Admin).unwrap();
        assert!(made.matches(text.trim_ascii_end()) && again.matches(text.trim_ascii_end()));
        let other = dir.token_or_new(TokenKind::ReadOnly).unwrap();
        assert!(!other.matches(text.trim_ascii_end()));
        assert!(!made.matches(b"") && !made.matches(&[b'0'; 64]) && !made.matches(&[b'0'; 65]));
        assert_eq!(made.bearer().len(), 7 + 64);
    }

    #[test]
    fn a_token_file_that_others_may_read_is_an_error_that_says_what_to_do() {
        let (_folder, dir) = fresh();
        dir.token_or_new(TokenKind::ReadOnly).unwrap();
        let path = dir.file("readonly.token");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = dir.token_or_new(TokenKind::ReadOnly).err().unwrap();
        assert!(
            matches!(error, AdminError::TooOpen { mode: 0o640, .. }),
            "{error}"
        );
        assert!(
            error.problem().what_to_do.contains("chmod 600"),
            "{:?}",
            error.problem()
        );
    }

    #[test]
    fn a_file_that_is_no_token_is_refused() {
        let (_folder, dir) = fresh();
        dir.token_or_new(TokenKind::ReadOnly).unwrap();
        for wrong in [
            String::new(),
            "z".repeat(64),
            "a".repeat(63),
            "a".repeat(66),
        ] {
            fs::write(dir.file("readonly.token"), &wrong).unwrap();
            let refused = matches!(
                dir.token(TokenKind::ReadOnly),
                Err(AdminError::NotAToken { .. })
            );
            assert!(refused, "{wrong:?}");
        }
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let (_folder, dir) = fresh();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(
            dir.prepare(),
            Err(AdminError::TooOpen { mode: 0o770, .. })
        ));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        dir.prepare().unwrap();
    }

    #[test]
    fn one_daemon_occupies_a_directory_and_takes_its_address_with_it() {
        let (_folder, dir) = fresh();
        let occupation = dir.occupy().unwrap();
        assert!(matches!(dir.occupy(), Err(AdminError::Occupied { .. })));
        assert_eq!(dir.admin_address().unwrap(), None);
        occupation
            .announce("0.0.0.0:9736".parse().unwrap())
            .unwrap();
        assert_eq!(
            dir.admin_address().unwrap(),
            Some("127.0.0.1:9736".parse().unwrap())
        );
        drop(occupation);
        assert_eq!(dir.admin_address().unwrap(), None);
        dir.occupy().unwrap();
    }
}
