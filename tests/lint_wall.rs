//! Shows that clippy's wall around the pure modules bites: a throw-away crate with this crate's `.clippy.toml` has, for
//! every entry of that file, a pure module that uses it, and a driver that uses all of them.
//!
//! Slow (it checks tokio once) and in need of clippy, so a plain `cargo test` leaves it out: `.ci/run` runs it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::fs;
use std::path::Path;
use std::process::Command;

/// A use of each banned function: its path, and an expression that calls it (`at` is a `tokio::time::Instant`).
const CALLS: &[(&str, &str)] = &[
    ("std::time::Instant::now", "std::time::Instant::now()"),
    ("std::time::SystemTime::now", "std::time::SystemTime::now()"),
    ("tokio::time::Instant::now", "tokio::time::Instant::now()"),
    (
        "tokio::time::sleep",
        "tokio::time::sleep(std::time::Duration::ZERO)",
    ),
    ("tokio::time::sleep_until", "tokio::time::sleep_until(at)"),
    (
        "tokio::time::timeout",
        "tokio::time::timeout(std::time::Duration::ZERO, std::future::ready(()))",
    ),
    (
        "tokio::time::interval",
        "tokio::time::interval(std::time::Duration::ZERO)",
    ),
    (
        "std::thread::sleep",
        "std::thread::sleep(std::time::Duration::ZERO)",
    ),
    ("std::thread::spawn", "std::thread::spawn(|| ())"),
    ("tokio::spawn", "tokio::spawn(std::future::ready(()))"),
    (
        "tokio::task::spawn",
        "tokio::task::spawn(std::future::ready(()))",
    ),
    (
        "tokio::task::spawn_blocking",
        "tokio::task::spawn_blocking(|| ())",
    ),
    ("getrandom::fill", "getrandom::fill(&mut [])"),
];

const DENY: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The `path = "…"` and `reason = "…"` of every entry of the list `name` in `.clippy.toml`.
fn banned(name: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join(".clippy.toml")).unwrap();
    let list = text
        .split(&format!("\n{name} = ["))
        .nth(1)
        .unwrap()
        .split("\n]")
        .next()
        .unwrap();
    let value = |line: &str, key: &str| {
        Some(
            line.split(&format!("{key} = \""))
                .nth(1)?
                .split('"')
                .next()?
                .to_owned(),
        )
    };
    let entries = list.lines().filter(|line| line.contains("path = "));
    entries
        .map(|line| {
            (
                value(line, "path").unwrap(),
                value(line, "reason").expect("a ban has a reason"),
            )
        })
        .collect()
}

/// A module for each ban, and the reason that clippy has to give for refusing it.
fn offences() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, reason) in banned("disallowed-methods") {
        let call = CALLS.iter().find(|(banned, _)| *banned == path);
        let (_, call) =
            call.unwrap_or_else(|| panic!("{path} is banned without a proof: add a call to CALLS"));
        let argument = if call.contains("(at)") {
            "at: tokio::time::Instant"
        } else {
            ""
        };
        found.push((
            format!("pub fn offend({argument}) {{ drop({call}) }}"),
            reason,
        ));
    }
    for (path, reason) in banned("disallowed-types") {
        found.push((format!("pub fn offend(_: &{path}) {{}}"), reason));
    }
    found
}

/// The `[lints]` of our own manifest, so that what the wall has to overrule is what it overrules here.
fn lints() -> String {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let tables = manifest
        .split("\n[")
        .filter(|table| table.starts_with("lints."));
    tables.fold(String::new(), |all, table| all + "[" + table + "\n")
}

/// Writes a crate with a module `m0`, `m1` … for each offence, `top` at the head of each.
fn write_crate(folder: &Path, offences: &[(String, String)], top: &str) {
    let manifest = format!(
        "[package]\nname = \"wall\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\ngetrandom = \"0.4\"\n\
         tokio = {{ version = \"1\", features = [\"rt-multi-thread\", \"net\", \"time\"] }}\n{}",
        lints()
    );
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    for name in [".clippy.toml", "Cargo.lock"] {
        fs::copy(root().join(name), folder.join(name)).unwrap();
    }
    for (number, (source, _)) in offences.iter().enumerate() {
        fs::write(
            folder.join(format!("src/m{number}.rs")),
            format!("{top}\n{source}\n"),
        )
        .unwrap();
    }
    let modules: Vec<_> = (0..offences.len())
        .map(|number| format!("pub mod m{number};\n"))
        .collect();
    fs::write(folder.join("src/lib.rs"), modules.concat()).unwrap();
}

/// Runs clippy in `folder`; whether it passed, and what it said.
fn clippy(folder: &Path) -> (bool, String) {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command
        .args(["clippy", "--offline", "--quiet", "--color", "never"])
        .current_dir(folder);
    command.env(
        "CARGO_TARGET_DIR",
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("lint_wall_target"),
    );
    command.env_remove("RUSTFLAGS").env_remove("CLIPPY_ARGS");
    let output = command.output().expect("cargo clippy starts");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
#[ignore = "runs clippy on a crate of its own; .ci/run runs it"]
fn every_ban_bites_in_a_pure_module_and_spares_a_driver() {
    let offences = offences();
    assert!(offences.len() > 10, "{offences:?}");
    let folder = tempfile::tempdir().unwrap();

    write_crate(folder.path(), &offences, DENY);
    let (passed, said) = clippy(folder.path());
    assert!(
        !passed,
        "clippy let banned calls pass in pure modules:\n{said}"
    );
    for (number, (source, reason)) in offences.iter().enumerate() {
        let place = format!("src/m{number}.rs:");
        let told = said.split("\n\n").any(|block| {
            block.starts_with("error: use of a disallowed")
                && block.contains(&place)
                && block.contains(reason.as_str())
        });
        assert!(
            told,
            "clippy did not refuse `{source}` for \"{reason}\":\n{said}"
        );
    }

    write_crate(folder.path(), &offences, "");
    let (passed, said) = clippy(folder.path());
    assert!(
        passed,
        "clippy refused in a driver what only pure modules must not do:\n{said}"
    );
    assert!(!said.contains("disallowed"), "{said}");
}

#[test]
fn every_ban_has_a_proof() {
    assert_eq!(
        offences().len(),
        banned("disallowed-methods").len() + banned("disallowed-types").len()
    );
}
