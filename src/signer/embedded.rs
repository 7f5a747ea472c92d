//! A signer that is a key in this process: the embedder's default, the demo's, and the cached identity.
//!
//! For: who keeps the key next to the node, by choice. It loads the key from a file that only its owner may read, or makes
//! such a file. The file holds 64 hex digits and, if you like, an end of line. It never writes over a file, never prints a key, and
//! never answers for a key that it could not read in full.

use std::fs::File;
use std::future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::{EcdhCall, EcdhFuture, Signer};
use crate::error::{Culprit, Retry};
use crate::hex;
use crate::node_id::{LocalKey, NodeId};
use crate::private;
use crate::secret::Secret32;

/// Hex digits in a key file.
const HEX_LEN: usize = 64;
/// One byte more than the longest key file with a Windows end of line: enough to see that a file is too long.
const READ_LEN: usize = HEX_LEN + 3;

/// Answers ECDH with a key that this process holds; its answer is ready at once (some 30 µs of arithmetic).
///
/// ```
/// use pilotlight::signer::{EmbeddedSigner, KeyFileError, Signer};
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("identity.key");
/// let made = EmbeddedSigner::generate(&path)?;
/// let loaded = EmbeddedSigner::load(&path)?;
/// assert_eq!(made.node_id(), loaded.node_id());
/// assert!(matches!(EmbeddedSigner::generate(&path), Err(KeyFileError::Exists { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EmbeddedSigner {
    key: LocalKey,
}

/// Why a key file gave no key, or could not be made. Each names the file; the text says what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// There is no such file.
    #[error("no key file at {path}: give the right path, or have a new key made there")]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// It is there and cannot be read.
    #[error(
        "cannot read the key file {path}: {source}; let the user that runs this own it (chown) with mode 600 (chmod)"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{path} is not a regular file: a key file holds 64 hex digits")]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// Others than its owner may read or write it (checked on Unix only).
    #[error(
        "the key file {path} is open to others (mode {mode:03o}): run `chmod 600 {path}`, and think of the key as known if others could read it"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold 64 characters.
    #[error("the key file {path} holds {}, a key is 64 hex digits and nothing else but one end of line", characters(*found))]
    Length {
        /// The file.
        path: PathBuf,
        /// How many bytes there are before the end of line; `None`: more than were read.
        found: Option<usize>,
    },
    /// One of them is not a hex digit.
    #[error(
        "the key file {path} has something else than a hex digit at position {position} of 64: restore it from a copy"
    )]
    NotHex {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        position: usize,
    },
    /// The key is zero.
    #[error(
        "the key in {path} is zero, which is no key: restore it from a copy, or move it away and have a new one made"
    )]
    Zero {
        /// The file.
        path: PathBuf,
    },
    /// The number is not below the order of the curve.
    #[error("the number in {path} is too large for a secp256k1 key: restore it from a copy")]
    OutOfRange {
        /// The file.
        path: PathBuf,
    },
    /// A key was to be made where a file is already; it was left alone.
    #[error("{path} exists and is not overwritten: load it, or move it away first")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The new file could not be made or written in full.
    #[error(
        "cannot write a new key file {path}: {source}; check that its directory exists, is writable and has room"
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gives no random bytes for a new key: {0}")]
    NoEntropy(String),
}

fn characters(found: Option<usize>) -> String {
    found.map_or_else(
        || format!("more than {} characters", READ_LEN - 1),
        |found| format!("{found} characters"),
    )
}

impl KeyFileError {
    /// Whose fault it was: whoever keeps the file.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::NoEntropy(_) => Culprit::Us,
            _ => Culprit::Operator,
        }
    }
    /// The rule that was broken.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Zero { .. } | Self::OutOfRange { .. } => "secp256k1: a secret key is in 1..n",
            _ => "key file: 64 hex digits in a regular file of mode 0600",
        }
    }
    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl EmbeddedSigner {
    /// A signer for this key.
    pub fn from_key(key: LocalKey) -> Self {
        Self { key }
    }

    /// The key itself, for who answers with it without a signer.
    pub fn into_key(self) -> LocalKey {
        self.key
    }

    /// Loads the key from a file.
    ///
    /// # Errors
    /// [`KeyFileError`]; nothing is answered for a file that is open to others or not exactly a key.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let text = read_private(path)?;
        let key = parse(path, &text)?;
        Ok(Self { key })
    }

    /// Reads a key from a stream: up to the first end of line, or to the stream's end. `name` stands for the stream in errors. The
    /// stream should not buffer: what stays in a buffer is wiped by nobody.
    ///
    /// # Errors
    /// [`KeyFileError`]; what does not hold exactly a key is refused.
    pub fn from_stream(
        mut stream: impl Read,
        name: impl AsRef<Path>,
    ) -> Result<Self, KeyFileError> {
        let name = name.as_ref();
        let text = read_text(&mut stream, true).map_err(|source| KeyFileError::Unreadable {
            path: name.into(),
            source,
        })?;
        let key = parse(name, &text)?;
        Ok(Self { key })
    }

    /// Makes a new key and a new file for it, with mode 0600 from the moment it exists. An existing file is left alone.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`], [`KeyFileError::Unwritable`], [`KeyFileError::NoEntropy`]; a file that could not be written in
    /// full is removed again.
    pub fn generate(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let (secret, key) = draw()?;
        write_new(path, &encode(&secret))?;
        Ok(Self { key })
    }

    /// Loads the key, or makes one if there is no file. The flag says whether it was made: worth a line in a log.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<(Self, bool), KeyFileError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(KeyFileError::NotFound { .. }) => Self::generate(path).map(|signer| (signer, true)),
            loaded => loaded.map(|signer| (signer, false)),
        }
    }
}

impl Signer for EmbeddedSigner {
    fn node_id(&self) -> NodeId {
        self.key.node_id()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        Box::pin(future::ready(Ok(self.key.ecdh(&call.point))))
    }
}

impl std::fmt::Debug for EmbeddedSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedSigner")
            .field("node_id", &self.node_id())
            .finish_non_exhaustive()
    }
}

/// A fresh secret and its key. A draw that is no key (2⁻¹²⁸) is an error rather than a loop: a source that gives such
/// bytes is broken.
fn draw() -> Result<(Secret32, LocalKey), KeyFileError> {
    let secret = Secret32::try_build(|bytes| getrandom::fill(bytes.as_mut_slice()))
        .map_err(|error| KeyFileError::NoEntropy(error.to_string()))?;
    let mut copy = Zeroizing::new(*secret.expose());
    let key = LocalKey::from_bytes(&mut copy)
        .map_err(|error| KeyFileError::NoEntropy(error.to_string()))?;
    Ok((secret, key))
}

/// The file's text, up to one byte more than a key file may have.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::NotFound { path: path.into() },
        _ => KeyFileError::Unreadable {
            path: path.into(),
            source,
        },
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(KeyFileError::NotAFile { path: path.into() });
    }
    let mut file = File::open(path).map_err(unreadable)?;
    // The bits of what was opened, not of what the path names by now.
    check_mode(path, &file.metadata().map_err(unreadable)?)?;
    read_text(&mut file, false).map_err(unreadable)
}

/// Up to one byte more than a key has, so that too long a text is seen to be too long.
fn read_text(source: &mut impl Read, one_line: bool) -> io::Result<Zeroizing<Vec<u8>>> {
    // Made in its full size at once: a buffer that grew would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(READ_LEN));
    let mut part = Zeroizing::new([0_u8; READ_LEN]);
    let mut source = source.take(READ_LEN as u64);
    loop {
        match source.read(part.as_mut_slice()) {
            Ok(0) => return Ok(text),
            Ok(read) => text.extend_from_slice(part.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let end = text.iter().position(|byte| *byte == b'\n');
        if one_line && let Some(end) = end {
            // What a read brought beyond it is not of the key. It is wiped with the rest: that is the whole buffer, used or not.
            text.truncate(end + 1);
            return Ok(text);
        }
    }
}

fn check_mode(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeyFileError> {
    match private::too_open(metadata, 0o077) {
        None => Ok(()),
        Some(mode) => Err(KeyFileError::TooOpen {
            path: path.into(),
            mode,
        }),
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<LocalKey, KeyFileError> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
    if digits.len() != HEX_LEN {
        return Err(KeyFileError::Length {
            path: path.into(),
            found: (text.len() < READ_LEN).then_some(digits.len()),
        });
    }
    let mut bytes = Zeroizing::new([0_u8; 32]);
    for (index, (byte, pair)) in bytes.iter_mut().zip(digits.chunks_exact(2)).enumerate() {
        for (nibble, digit) in pair.iter().enumerate() {
            let value = hex::value(*digit).ok_or_else(|| KeyFileError::NotHex {
                path: path.into(),
                position: 2 * index + nibble + 1,
            })?;
            *byte = *byte << 4 | value;
        }
    }
    let zero = bytes.iter().fold(0, |all, byte| all | byte) == 0;
    LocalKey::from_bytes(&mut bytes).map_err(|_| {
        let path = path.into();
        if zero {
            KeyFileError::Zero { path }
        } else {
            KeyFileError::OutOfRange { path }
        }
    })
}

/// The key as the file has it: 64 lower-case hex digits and an end of line.
fn encode(secret: &Secret32) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(HEX_LEN + 1));
    text.extend(hex::digits(secret.expose()));
    text.push(b'\n');
    text
}

fn write_new(path: &Path, text: &[u8]) -> Result<(), KeyFileError> {
    let unwritable = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.into() },
        _ => KeyFileError::Unwritable {
            path: path.into(),
            source,
        },
    };
    // A node that has shown its id must not forget its key: the name, too, is made to last.
    private::make(path, text).map_err(unwritable)
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
