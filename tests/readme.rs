//! README says what the code does: its metrics, its commands, its bounds. `PILOTLIGHT_BLESS=1` writes the table of metrics anew.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use pilotlight::telemetry::{Kind, METRICS};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

const BEGIN: &str = "<!-- metrics: made by tests/readme.rs -->\n";
const END: &str = "<!-- end of metrics -->\n";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

fn table() -> String {
    let mut table = String::from("| metric | kind | labels | says |\n|---|---|---|---|\n");
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let (name, labels, help) = (metric.name, labels.join(", "), metric.help);
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    table
}

#[test]
fn readme_lists_every_metric_and_no_other() {
    let readme = std::fs::read_to_string(path()).unwrap();
    let (before, rest) = readme
        .split_once(BEGIN)
        .expect("README marks where its metrics begin");
    let (listed, after) = rest
        .split_once(END)
        .expect("README marks where its metrics end");
    let table = table();
    if std::env::var_os("PILOTLIGHT_BLESS").is_some() {
        std::fs::write(path(), format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(
        listed, table,
        "PILOTLIGHT_BLESS=1 cargo test --test readme writes it anew"
    );
}

/// Every command of README's shell blocks is one that the binary has, with those flags.
#[test]
fn readme_shows_commands_that_exist() {
    let readme = std::fs::read_to_string(path()).unwrap();
    let mut tried = 0;
    let mut in_shell = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            in_shell = line.starts_with("```sh");
            continue;
        }
        let command = line
            .strip_prefix("cargo run --release -- ")
            .or_else(|| line.strip_prefix("pilotlight "));
        let Some(command) = command.filter(|_| in_shell) else {
            continue;
        };
        // `--help` ends every command before it does anything, after its words have been understood.
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = Command::new(env!("CARGO_BIN_EXE_pilotlight"))
            .args(&words)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        tried += 1;
    }
    assert!(
        tried >= 8,
        "only {tried} commands found: has README's form changed?"
    );
}
