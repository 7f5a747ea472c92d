//! The rules of this source tree that no compiler or lint checks: docs on every file, purity of what decides, sizes,
//! the one way that dependencies point, and what no file may name. Each rule is shown to bite on a bad snippet.
//!
//! It reads tokens, not text (`source_wall/lex.rs`), so prose about `async` is not `async`. That clippy's own wall
//! bites is shown by `lint_wall.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "source_wall/lex.rs"]
mod lex;
#[path = "source_wall/rules.rs"]
mod rules;

use rules::File;
use std::fs;
use std::path::Path;

/// Folders that hold nothing of ours.
const NOT_OURS: [&str; 3] = [".git", "target", "node_modules"];

/// Every text file of the tree below `folder`, as its path from the crate's root and its content.
fn text_files(folder: &str, found: &mut Vec<(String, String)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut entries: Vec<_> = fs::read_dir(root.join(folder))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry
            .file_name()
            .into_string()
            .expect("a file name in UTF-8");
        let path = if folder.is_empty() {
            name.clone()
        } else {
            format!("{folder}/{name}")
        };
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) {
            text_files(&path, found);
        } else if kind.is_file()
            && let Ok(text) = String::from_utf8(fs::read(entry.path()).unwrap())
        {
            found.push((path, text));
        }
    }
}

fn tree() -> Vec<(String, String)> {
    let mut found = Vec::new();
    text_files("", &mut found);
    found
}

fn is_rust(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

fn assert_none(found: &[String]) {
    assert!(
        found.is_empty(),
        "the source wall found {}:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn every_rust_file_keeps_the_rules() {
    let tree = tree();
    let files: Vec<_> = tree.iter().filter(|(path, _)| is_rust(path)).collect();
    for known in [
        "src/lib.rs",
        "src/main.rs",
        "src/error.rs",
        "tests/source_wall.rs",
        "benches/lapse.rs",
    ] {
        assert!(
            files.iter().any(|(path, _)| path == known),
            "the walk missed {known}"
        );
    }
    let found: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| rules::check(&File::new(path, text)))
        .collect();
    assert_none(&found);
}

#[test]
fn every_pure_file_is_where_the_rules_look_for_it() {
    let tree = tree();
    let root = tree.iter().find(|(path, _)| path == "src/lib.rs").unwrap();
    let declared = File::new(&root.0, &root.1);
    let declared = rules::declared_modules(&declared);
    for (module, pure) in rules::PURE_FILES {
        let there = tree.iter().any(|(path, _)| path == pure);
        assert!(
            there || !declared.contains(module),
            "`mod {module}` is declared, but {pure} is not there: move the rule with the file"
        );
    }
}

/// Hosts of package registries, spelt in halves so that this file does not name them either.
fn registry_hosts() -> Vec<String> {
    let halves = [
        ("crates", "io"),
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("debian", "org"),
    ];
    halves
        .iter()
        .map(|(name, suffix)| format!("{name}.{suffix}"))
        .collect()
}

fn names_a_host(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for host in registry_hosts().iter().filter(|host| line.contains(*host)) {
            found.push(format!(
                "{path}:{}: names the registry host {host}",
                number + 1
            ));
        }
    }
    found
}

/// `Cargo.lock` is cargo's: it writes its registry's index into every entry.
#[test]
fn no_file_names_a_registry_host() {
    let found: Vec<String> = tree()
        .iter()
        .filter(|(path, _)| !path.ends_with("Cargo.lock"))
        .flat_map(|(path, text)| names_a_host(path, text))
        .collect();
    assert_none(&found);
}

#[test]
fn a_registry_host_is_found() {
    let line = format!("first\nindex = \"https://static.{}/\"", registry_hosts()[0]);
    assert_eq!(names_a_host("a.toml", &line).len(), 1);
    assert!(names_a_host("a.toml", "crates-io is cargo's own name for it").is_empty());
}

/// Asserts that `rule` finds `expected` breaches in `source`, were it at `path`.
#[track_caller]
fn bites(rule: fn(&File<'_>) -> Vec<String>, path: &str, source: &str, expected: usize) {
    let found = rule(&File::new(path, source));
    assert_eq!(found.len(), expected, "{path}: {found:?}");
}

#[test]
fn a_file_without_docs_is_found() {
    bites(
        rules::opens_with_docs,
        "src/a.rs",
        "use std::fs;\n//! too late",
        1,
    );
    bites(rules::opens_with_docs, "src/a.rs", "/// the next item's", 1);
    bites(rules::opens_with_docs, "src/a.rs", "", 1);
    bites(
        rules::opens_with_docs,
        "src/a.rs",
        "\n//! what it is for\n",
        0,
    );
}

#[test]
fn async_in_a_pure_module_is_found() {
    let sneaky = "fn f() { let x = async { 1 }; x.await }";
    for pure in [
        "src/brontide/cipher.rs",
        "src/wire/mod.rs",
        "src/link/machine.rs",
        "src/supervisor/machine.rs",
        "src/link/firewall.rs",
        "src/limits.rs",
        "src/limits/link.rs",
        "src/secret.rs",
        "src/node_id.rs",
    ] {
        bites(rules::no_async_when_pure, pure, sneaky, 2);
        bites(
            rules::no_async_when_pure,
            pure,
            "// async\nfn f() -> &'static str { \"x.await\" }",
            0,
        );
    }
    bites(rules::no_async_when_pure, "src/link/driver.rs", sneaky, 0);
}

#[test]
fn a_pure_module_without_the_denied_lints_is_found() {
    let rule = rules::denies_lints_when_pure;
    let both = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
    bites(rule, "src/wire/init.rs", both, 0);
    bites(rule, "src/wire/init.rs", "//! docs", 2);
    bites(
        rule,
        "src/wire/init.rs",
        "// #![deny(clippy::disallowed_methods, clippy::disallowed_types)]",
        2,
    );
    bites(
        rule,
        "src/wire/init.rs",
        "#![deny(clippy::disallowed_methods)]",
        1,
    );
    // An outer attribute covers one item only.
    bites(
        rule,
        "src/wire/init.rs",
        "#[deny(clippy::disallowed_methods, clippy::disallowed_types)] fn f() {}",
        2,
    );
    bites(
        rule,
        "src/wire/init.rs",
        &format!("{both}\n#[allow(clippy::disallowed_types)] fn f() {{}}"),
        1,
    );
    bites(
        rule,
        "src/wire/init.rs",
        &format!("{both}\n#[expect(clippy::disallowed_methods)] fn f() {{}}"),
        1,
    );
    bites(rule, "src/link/driver.rs", "//! docs", 0);
}

#[test]
fn an_acting_crate_in_a_pure_module_is_found() {
    let rule = rules::no_acting_crate_when_pure;
    bites(
        rule,
        "src/link/machine.rs",
        "use tokio::sync::{mpsc, oneshot};",
        2,
    );
    bites(
        rule,
        "src/link/machine.rs",
        "fn f() { ::getrandom::fill(b) }",
        1,
    );
    bites(
        rule,
        "src/link/machine.rs",
        "#[cfg(test)] mod tests { fn f() { tokio::spawn(g()) } }",
        0,
    );
    bites(
        rule,
        "src/link/machine.rs",
        "/// like tokio::spawn\nfn rand() { let tokio = 1; }",
        0,
    );
    bites(rule, "src/link/driver.rs", "use tokio::sync::mpsc;", 0);
}

#[test]
fn unsafe_and_a_root_that_permits_it_are_found() {
    bites(rules::no_unsafe, "src/a.rs", "fn f() { unsafe { g() } }", 1);
    bites(
        rules::no_unsafe,
        "src/a.rs",
        "#![forbid(unsafe_code)] // unsafe",
        0,
    );
    bites(
        rules::roots_forbid_unsafe,
        "src/main.rs",
        "#![deny(unsafe_code)] fn main() {}",
        1,
    );
    bites(
        rules::roots_forbid_unsafe,
        "src/lib.rs",
        "// #![forbid(unsafe_code)]",
        1,
    );
    bites(
        rules::roots_forbid_unsafe,
        "src/lib.rs",
        "#![forbid(unsafe_code)]",
        0,
    );
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let most = "fn f() {}\n".repeat(rules::MAX_FILE_LINES);
    bites(rules::short_enough, "src/a.rs", &most, 0);
    bites(
        rules::short_enough,
        "src/a.rs",
        &format!("{most}fn g() {{}}\n"),
        1,
    );
    let tests = format!("#[cfg(test)]\n#[allow(dead_code)]\nmod tests {{\n{most}}}\n");
    bites(
        rules::short_enough,
        "src/a.rs",
        &format!("{most}{tests}"),
        0,
    );
    let live = tests.replace("cfg(test)", "cfg(not(test))");
    bites(rules::short_enough, "src/a.rs", &format!("{most}{live}"), 1);
}

#[test]
fn a_long_function_is_found() {
    let body = "    g();\n".repeat(rules::MAX_FUNCTION_LINES - 2);
    bites(
        rules::short_functions,
        "src/a.rs",
        &format!("fn f(a: [u8; 2]) -> u8 {{\n{body}}}"),
        0,
    );
    bites(
        rules::short_functions,
        "src/a.rs",
        &format!("fn f(a: [u8; 2]) -> u8 {{\n{body}    g();\n}}"),
        1,
    );
    // Braces in strings and comments are no braces.
    bites(
        rules::short_functions,
        "src/a.rs",
        &format!("fn f() {{\n let x = \"}}\"; // }}\n{body}    g();\n}}"),
        1,
    );
    bites(
        rules::short_functions,
        "src/a.rs",
        &format!("trait T {{ fn f(&self);\n{body}}}"),
        0,
    );
    bites(
        rules::short_functions,
        "src/a.rs",
        &format!("struct S {{ f: fn(u8),\n{body}{body} }}"),
        0,
    );
}

#[test]
fn an_exit_outside_main_is_found() {
    let rule = rules::exits_only_in_main;
    bites(
        rule,
        "src/cli/run.rs",
        "fn f() { std::process::exit(1) }",
        1,
    );
    bites(
        rule,
        "src/cli/run.rs",
        "use std::{fs, process::{self, exit}};",
        1,
    );
    bites(
        rule,
        "src/cli/run.rs",
        "use std::process; fn f() { process::abort() }",
        1,
    );
    bites(rule, "src/cli/run.rs", "use std::process::*;", 1);
    bites(
        rule,
        "src/cli/run.rs",
        "use std::process::ExitCode; fn f() { gate.exit() }",
        0,
    );
    bites(rule, "src/main.rs", "fn f() { std::process::exit(1) }", 0);
}

#[test]
fn what_is_left_to_do_is_found() {
    bites(
        rules::nothing_left_to_do,
        "tests/a.rs",
        "fn f() { todo!() } fn g() { unimplemented!(\"x\") }",
        2,
    );
    bites(
        rules::nothing_left_to_do,
        "src/a.rs",
        "fn todo() { let s = \"todo!()\"; }",
        0,
    );
}

#[test]
fn a_dependency_that_points_up_is_found() {
    let rule = rules::layers_point_down;
    bites(
        rule,
        "src/link/driver.rs",
        "use crate::supervisor::Supervisor;",
        1,
    );
    bites(
        rule,
        "src/link/driver.rs",
        "use crate::{wire::types as t, cli::{run, info}};",
        2,
    );
    bites(
        rule,
        "src/link/driver.rs",
        "fn f() -> crate::admin::Server { g() }",
        1,
    );
    bites(
        rule,
        "src/link/driver.rs",
        "use super::super::supervisor;",
        1,
    );
    bites(rule, "src/secret.rs", "use super::wire;", 1);
    bites(rule, "src/brontide/session.rs", "use crate::wire::Init;", 1);
    bites(rule, "src/clock.rs", "use crate::signer::Epoch;", 1);
    bites(
        rule,
        "src/telemetry/event.rs",
        "use crate::admin::Server;",
        1,
    );
    bites(rule, "src/vault.rs", "use crate::supervisor::Roster;", 1);
    // A re-export at the root would hide which layer it is from.
    bites(rule, "src/link/driver.rs", "use crate::Supervisor;", 1);
    bites(rule, "src/unheard/of.rs", "use crate::limits::MAX;", 1);
    bites(rule, "src/lib.rs", "pub mod wire; mod unheard;", 1);
    bites(
        rule,
        "src/main.rs",
        "fn main() { pilotlight::supervisor::run() }",
        1,
    );
}

#[test]
fn a_dependency_that_points_down_is_not() {
    let rule = rules::layers_point_down;
    bites(
        rule,
        "src/link/driver.rs",
        "use crate::{brontide::Session, signer::{Lease, Epoch}, limits, telemetry::Event, clock::Clock};",
        0,
    );
    bites(
        rule,
        "src/link/driver.rs",
        "use super::machine::Machine; pub(crate) fn f() {} pub(super) fn g() {}",
        0,
    );
    bites(rule, "src/secret.rs", "use crate::node_id::NodeId;", 0);
    bites(rule, "src/vault.rs", "use crate::link::LinkId;", 0);
    bites(
        rule,
        "src/wire/mod.rs",
        "#[cfg(test)] mod tests { use super::*; use crate::supervisor::X; }",
        0,
    );
    bites(
        rule,
        "src/wire/mod.rs",
        "mod inner { use super::super::limits; use super::Y; }",
        0,
    );
    bites(
        rule,
        "src/main.rs",
        "fn main() { pilotlight::cli::main() }",
        0,
    );
}
