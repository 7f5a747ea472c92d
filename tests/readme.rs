//! README lists what the code has: its metrics, its settings, its HTTP paths, its commands. `PILOTLIGHT_BLESS=1` writes the table of
//! metrics anew. Bounds and defaults that README tells in prose are not compared.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use pilotlight::limits::PER_PEER_MAX;
use pilotlight::telemetry::{METRICS, Metric, PEER_METRICS, PROCESS_METRICS};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

const BEGIN: &str = "<!-- metrics: made by tests/readme.rs -->\n";
const END: &str = "<!-- end of metrics -->\n";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

fn table() -> String {
    let mut text = rows_of(METRICS);
    text.push_str("\nWith `metrics.per_peer = true` also these, six series a peer, of at most 5,000 peers, those with links first:\n\n");
    text.push_str(&rows_of(PEER_METRICS));
    text.push_str(
        "\nThe daemon's `/metrics` has these of its process, under Prometheus's usual names:\n\n",
    );
    text.push_str(&rows_of(PROCESS_METRICS));
    text
}

fn rows_of(metrics: &[Metric]) -> String {
    let mut table = String::from("| metric | kind | labels | says |\n|---|---|---|---|\n");
    for metric in metrics {
        let kind = metric.kind.as_str();
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
    assert_eq!(PER_PEER_MAX, 5_000, "README tells the bound in prose");
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
    let mut commands = Vec::new();
    for line in readme.lines() {
        if line.starts_with("```") {
            in_shell = line.starts_with("```sh");
        } else if in_shell {
            let command = line
                .strip_prefix("cargo run --release -- ")
                .or_else(|| line.strip_prefix("pilotlight "));
            commands.extend(command);
        } else {
            let shown = code(line).into_iter();
            commands.extend(shown.filter_map(|code| code.strip_prefix("pilotlight ")));
        }
    }
    for command in commands {
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
        tried >= 20,
        "only {tried} commands found: has README's form changed?"
    );
}

/// What a README's line shows as code.
fn code(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

fn source(file: &str) -> String {
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The texts of a list of constants in the source.
fn listed(file: &str, name: &str) -> Vec<String> {
    let source = source(file);
    let (_, list) = source.split_once(name).expect("the list is there");
    let (_, list) = list.split_once("= &[").expect("a list");
    let (list, _) = list.split_once("];").expect("its end");
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The rows of the table under this head, without the head.
fn rows(readme: &str, head: &str) -> Vec<String> {
    let (_, table) = readme.split_once(head).expect("the table is there");
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(str::to_owned).collect()
}

#[test]
fn readme_lists_every_setting_and_no_other() {
    let readme = std::fs::read_to_string(path()).unwrap();
    let rows = rows(&readme, "| key | flag | variable | default |");
    let column = |number: usize| {
        let mut cells: Vec<String> = rows
            .iter()
            .filter_map(|row| {
                code(row.split('|').nth(number)?)
                    .first()
                    .map(ToString::to_string)
            })
            .collect();
        cells.sort();
        cells
    };
    let mut keys = listed("src/cli/config.rs", "const KEYS");
    let signer = listed("src/cli/config.rs", "const SIGNER_KEYS");
    // The kind has the row of the table that it is in.
    let signer = signer.iter().filter(|key| *key != "kind");
    keys.extend(signer.map(|key| format!("signer.{key}")));
    let vault = listed("src/cli/config.rs", "const VAULT_KEYS");
    keys.extend(vault.iter().map(|key| format!("vault.{key}")));
    let metrics = listed("src/cli/config.rs", "const METRICS_KEYS");
    keys.extend(metrics.iter().map(|key| format!("metrics.{key}")));
    let tor = listed("src/cli/config.rs", "const TOR_KEYS");
    keys.extend(tor.iter().map(|key| format!("tor.{key}")));
    let gossip = listed("src/cli/config.rs", "const GOSSIP_KEYS");
    keys.extend(gossip.iter().map(|key| format!("gossip.{key}")));
    keys.retain(|key| !["peers", "tor", "vault", "metrics", "gossip"].contains(&key.as_str()));
    keys.push("[[peers]]".to_owned());
    keys.sort();
    assert_eq!(column(1), keys);
    let mut variables = listed("src/cli/args.rs", "const VARIABLES");
    variables.sort();
    assert_eq!(column(3), variables);
    let help = Command::new(env!("CARGO_BIN_EXE_pilotlight"))
        .args(["run", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut flags: Vec<String> = help
        .split_whitespace()
        .filter(|word| {
            word.starts_with("--")
                && !word.ends_with(']')
                && !["--json", "--help", "--version"].contains(word)
        })
        .map(str::to_owned)
        .collect();
    flags.sort();
    flags.dedup();
    assert_eq!(column(2), flags);
}

#[test]
fn readme_lists_every_http_path_and_no_other() {
    let readme = std::fs::read_to_string(path()).unwrap();
    let server = source("src/admin/server.rs");
    let mut there: Vec<&str> = server
        .split(".route(")
        .skip(1)
        .map(|rest| rest.split('"').nth(1).unwrap())
        .collect();
    there.sort_unstable();
    there.dedup();
    let rows = rows(&readme, "| path | does |");
    let first = rows.iter().map(|row| row.split('|').nth(1).unwrap());
    let mut listed: Vec<&str> = first
        .flat_map(code)
        .map(|call| call.split_whitespace().last().unwrap())
        .collect();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed, there);
}
