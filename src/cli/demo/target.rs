//! The file that a report goes to. Whether it can be written is found out before the demo runs, and it is there whole or not at all: it is
//! written beside its place and renamed into it. A report that is there already is replaced, as most tools do; an end before that leaves
//! it as it was.

use crate::cli::failure::Failure;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A place for the report.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    draft: PathBuf,
    file: File,
}

impl Target {
    /// Makes sure that there can be a file of that name, and begins it.
    ///
    /// # Errors
    /// It names something that is no file, or what may not be written.
    pub(super) fn prepare(path: &Path) -> Result<Self, Failure> {
        let refused = |error: io::Error| wrong(path, &error.to_string());
        // Of a link, what it leads to is replaced.
        let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let permissions = match fs::metadata(path) {
            Ok(there) if there.is_dir() => return Err(wrong(path, "it is a directory")),
            Ok(there) if !there.is_file() => return Err(wrong(path, "it is no regular file")),
            Ok(there) => {
                // Renaming asks only the directory: a file that is kept from writing is to be kept.
                OpenOptions::new()
                    .append(true)
                    .open(path)
                    .map_err(refused)?;
                Some(there.permissions())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(refused(error)),
        };
        let Some(name) = path.file_name() else {
            return Err(wrong(path, "it names no file"));
        };
        let mut draft_name = OsString::from(".");
        draft_name.push(name);
        draft_name.push(format!(".{:016x}", fastrand::u64(..)));
        let draft = path.with_file_name(draft_name);
        let file = OpenOptions::new().write(true).create_new(true).open(&draft);
        let target = Self {
            path: path.clone(),
            file: file.map_err(refused)?,
            draft,
        };
        if let Some(permissions) = permissions {
            target.file.set_permissions(permissions).map_err(refused)?;
        }
        Ok(target)
    }

    /// Where it will be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it there.
    ///
    /// # Errors
    /// The system refuses it; what was there is still there.
    pub(super) fn write(mut self, content: &str) -> Result<(), Failure> {
        let written = self
            .file
            .write_all(content.as_bytes())
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::rename(&self.draft, &self.path));
        written.map_err(|error| {
            Failure::failed(
                format!("the report could not be written: {error}"),
                self.path.display().to_string(),
                "see that there is room, and run the demo again",
            )
        })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Renamed away if all went well; else nobody is left to tell.
        let _ = fs::remove_file(&self.draft);
    }
}

fn wrong(path: &Path, why: &str) -> Failure {
    Failure::usage(
        format!("the report cannot be written there: {why}"),
        format!("--report {}", path.display()),
        "name a file in a directory that you may write to",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_report_is_there_whole_or_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let target = Target::prepare(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        drop(target);
        assert_eq!(
            (fs::read_to_string(&path).unwrap(), names(folder.path())),
            ("old".to_owned(), vec!["report.html".into()])
        );
        // Whoever has the old one open, or under another name, keeps it whole.
        let other = folder.path().join("other");
        fs::hard_link(&path, &other).unwrap();
        Target::prepare(&path).unwrap().write("new").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "old");
        fs::remove_file(&other).unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap(), names(folder.path())),
            ("new".to_owned(), vec!["report.html".into()])
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
    }

    #[test]
    fn what_a_link_leads_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (
            folder.path().join("report.html"),
            folder.path().join("link"),
        );
        fs::write(&path, "old").unwrap();
        symlink(&path, &link).unwrap();
        Target::prepare(&link).unwrap().write("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_cannot_be_written_is_told_before_anything_runs() {
        let folder = tempfile::tempdir().unwrap();
        for (path, why) in [
            (folder.path().to_owned(), "it is a directory"),
            (folder.path().join("nowhere/report.html"), "No such file"),
            (PathBuf::from("/dev/null"), "it is no regular file"),
            (PathBuf::from("/"), "it is a directory"),
            (PathBuf::from(""), "it names no file"),
        ] {
            let failure = Target::prepare(&path).unwrap_err();
            let problem = &failure.problem;
            assert!(problem.what.contains(why), "{path:?}: {problem:?}");
            assert!(problem.place.starts_with("--report"), "{problem:?}");
        }
        assert!(names(folder.path()).is_empty());
    }
}
