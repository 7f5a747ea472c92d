//! A disk of half a megabyte that a test may fill, where it may mount one (root, on Linux).

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk of its own at `at`, until it is dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None`: this user may not mount one. `instead` says what then stands in for it, and `.ci/run` shows that in its summary. Root is
    /// refused by some containers; whatever else keeps root from mounting is a failure.
    pub(crate) fn mount(at: &Path, instead: &str) -> Option<Self> {
        let disk = Self(at.to_path_buf());
        let options = ["-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs"];
        let Err(why) = disk.run("mount", &options) else {
            return Some(disk);
        };
        std::mem::forget(disk);
        let forbidden = ["permission denied", "not permitted", "superuser"];
        let is_forbidden = forbidden
            .iter()
            .any(|word| why.to_lowercase().contains(word));
        assert!(
            is_forbidden || !rustix::process::geteuid().is_root(),
            "root can mount no disk: {why}"
        );
        remark(&format!("no disk can be mounted here ({why}): {instead}"));
        None
    }

    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        self.run("mount", &["-o", &options]).unwrap();
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Result<(), String> {
        let run = Command::new(command)
            .args(arguments)
            .arg(&self.0)
            .env("LC_ALL", "C")
            .output()
            .map_err(|error| format!("{command}: {error}"))?;
        if run.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&run.stderr);
        Err(said.lines().next().unwrap_or_default().to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.run("umount", &["-l"]);
    }
}

/// A line for the summary of `.ci/run`, which names the file for it; a test that passes prints nothing.
fn remark(what: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("{test}: {what}");
    if let Some(file) = std::env::var_os("PILOTLIGHT_REMARKS") {
        let file = OpenOptions::new().create(true).append(true).open(file);
        let line = format!("test {test}: {what}\n");
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}
