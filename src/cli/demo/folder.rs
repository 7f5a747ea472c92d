//! A directory of the demo's own, for what an operator would carry from the node to the signer: certificate and macaroon.
//!
//! Nobody else may look into it, and it goes with its owner, however the demo ends. It never takes a directory that is there.

use super::DemoError;
use crate::private;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The directory. Dropping it removes it, with all that is in it.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes it, below the system's directory for temporary files.
    ///
    /// # Errors
    /// The system refuses it, or gives no randomness for its name.
    pub(super) fn make() -> Result<Self, DemoError> {
        let mut draw = [0; 8];
        getrandom::fill(&mut draw).map_err(|_| DemoError::Entropy)?;
        let name = format!("pilotlight-demo-{:016x}", u64::from_le_bytes(draw));
        let path = std::env::temp_dir().join(name);
        // Fails if anything has that name, a link included.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| refused(&path, source))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a new file in, which only its owner may read.
    ///
    /// # Errors
    /// The system refuses it.
    pub(super) fn put(&self, name: &str, content: &[u8]) -> Result<PathBuf, DemoError> {
        let path = self.path.join(name);
        private::make(&path, content).map_err(|source| refused(&path, source))?;
        Ok(path)
    }
}

fn refused(path: &Path, source: io::Error) -> DemoError {
    DemoError::Folder {
        path: path.into(),
        source,
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody is left to tell. What would stay is worth nothing: its gateway is gone.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_private_and_goes_with_its_owner() {
        let folder = Folder::make().unwrap();
        let path = folder.path().to_path_buf();
        let file = folder.put("signer.macaroon", b"secret").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&file)), (0o700, 0o600));
        assert!(folder.put("signer.macaroon", b"other").is_err());
        drop(folder);
        assert!(!path.exists());
    }
}
