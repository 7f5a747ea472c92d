//! The planted bugs in `tests/mutants` are up to date: each still applies, and names a test that there is. That the test catches it is shown
//! by `tests/mutants/run`, which builds the library anew for each: `.ci/run mutants` runs it, and `.ci/run mutant`, in every run, for one of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn patches() -> Vec<PathBuf> {
    let listed = fs::read_dir(root().join("tests/mutants")).unwrap();
    let files = listed.map(|entry| entry.unwrap().path());
    let mut patches: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|kind| kind == "patch"))
        .collect();
    patches.sort();
    patches
}

#[test]
fn there_is_a_planted_bug_of_each_kind() {
    let patches = patches();
    let names: Vec<_> = patches
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "error_for_warning",
            "error_on_teardown",
            "fence_check_dropped",
            "nonce_kept_at_rotation",
            "secret_not_wiped",
            "stale_epoch_accepted",
        ]
    );
}

#[test]
fn every_planted_bug_still_applies() {
    for patch in patches() {
        let checked = Command::new("git")
            .args(["apply", "--check"])
            .arg(&patch)
            .current_dir(root())
            .output()
            .expect("git is there");
        assert!(
            checked.status.success(),
            "{}: {}",
            patch.display(),
            String::from_utf8_lossy(&checked.stderr)
        );
        // `git apply` passes over files outside the repository that it is called in.
        let text = fs::read_to_string(&patch).unwrap();
        let changed: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("+++ b/"))
            .collect();
        assert!(
            !changed.is_empty() && changed.iter().all(|file| file.starts_with("src/")),
            "{text}"
        );
    }
}

#[test]
fn every_planted_bug_names_a_test_that_there_is() {
    for patch in patches() {
        let content = fs::read_to_string(&patch).unwrap();
        let named = content
            .lines()
            .find_map(|line| line.strip_prefix("Caught by: --test "));
        let (file, function) = named.expect("it names a test").split_once(' ').unwrap();
        let (module, name) = function.rsplit_once("::").unwrap_or(("", function));
        let source = match module {
            "" => format!("tests/{file}.rs"),
            module => format!("tests/{file}/{module}.rs"),
        };
        let source = fs::read_to_string(root().join(source)).unwrap();
        assert!(
            source.contains(&format!("fn {name}(")),
            "{}: {function}",
            patch.display()
        );
    }
}
