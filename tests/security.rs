//! `SECURITY.md` names tests that there are. What it says of them is for its readers to judge.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The words in backquotes that are the names of functions: nothing but lower case, digits and at least three underscores.
fn named(text: &str) -> BTreeSet<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|word| {
            let fits =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            word.bytes().all(fits) && word.matches('_').count() >= 3
        })
        .collect()
}

fn rust_files(folder: PathBuf, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The functions that are tests: `#[test]` or `#[tokio::test]`, perhaps with more attributes, before their `fn`.
fn tests(source: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && is_test
        {
            found.extend(rest.split('(').next());
            is_test = false;
        }
    }
    found
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let page = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let mut source = String::new();
    for folder in ["src", "tests"] {
        rust_files(root().join(folder), &mut source);
    }
    let (named, tests) = (named(&page), tests(&source));
    assert!(
        named.len() > 40 && tests.len() > 500,
        "{} of {}",
        named.len(),
        tests.len()
    );
    let missing: Vec<_> = named.difference(&tests).collect();
    assert!(missing.is_empty(), "no such test: {missing:?}");
}

#[test]
fn every_row_of_a_threat_names_a_test() {
    let page = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let threats = page.split("## Who attacks").nth(1).unwrap();
    let threats = threats.split("\n## ").next().unwrap();
    let rows: Vec<_> = threats
        .lines()
        .filter(|line| line.starts_with("| ") && !line.contains("| shown by |"))
        .collect();
    assert!(rows.len() > 20);
    for row in rows {
        assert!(!named(row).is_empty(), "{row}");
    }
}

#[test]
fn a_name_is_told_from_other_words() {
    let text = "`p9_a_flood_of_pings` stops `identity = \"cached\"`, `Cargo.lock` and `a_b`";
    assert_eq!(named(text), BTreeSet::from(["p9_a_flood_of_pings"]));
    let source = "#[tokio::test(flavor = \"multi_thread\")]\nasync fn one_is() {}\nfn two_is_not() {}\n#[test]\n#[ignore]\nfn three_is() {}";
    assert_eq!(tests(source), BTreeSet::from(["one_is", "three_is"]));
}
