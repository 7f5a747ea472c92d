//! A disk of half a megabyte that a test may fill, where it may mount one (root, on Linux).

use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk of its own at `at`, until it is dropped. `None`: this user may not mount one.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn mount(at: &Path) -> Option<Self> {
        let disk = Self(at.to_path_buf());
        disk.run(
            "mount",
            &["-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs"],
        )
        .then_some(disk)
    }

    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(self.run("mount", &["-o", &options]));
    }

    fn run(&self, command: &str, arguments: &[&str]) -> bool {
        let run = Command::new(command).args(arguments).arg(&self.0).output();
        run.is_ok_and(|done| done.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.run("umount", &["-l"]);
    }
}
