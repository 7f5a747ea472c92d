//! What is said of the dependencies is what `Cargo.lock` has: the statement on cryptographic crates, and the bill of materials.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// Name and version of every package of `Cargo.lock`, and its hash; ours has none.
fn locked() -> BTreeMap<(String, String), Option<String>> {
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let text = |package: &toml::Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    packages
        .iter()
        .map(|package| {
            let key = (
                text(package, "name").unwrap(),
                text(package, "version").unwrap(),
            );
            (key, text(package, "checksum"))
        })
        .collect()
}

/// What the name of a cryptographic crate is, or begins or ends with.
const NAMES: [&str; 31] = [
    "aead",
    "aes",
    "argon2",
    "blake",
    "block-buffer",
    "chacha",
    "cipher",
    "digest",
    "ed25519",
    "elliptic",
    "getrandom",
    "hkdf",
    "hmac",
    "hybrid-array",
    "inout",
    "k256",
    "keccak",
    "noise",
    "openssl",
    "pbkdf",
    "pem",
    "pkcs",
    "poly1305",
    "rand",
    "rcgen",
    "ring",
    "sha",
    "sha1",
    "sha2",
    "sha3",
    "snow",
];
const PARTS: [&str; 13] = [
    "25519",
    "aws-lc",
    "bitcoin_hashes",
    "crypto",
    "curve",
    "macaroon",
    "rustls",
    "secp256k1",
    "signature",
    "subtle",
    "universal-hash",
    "webpki",
    "zeroize",
];

fn is_cryptographic(name: &str) -> bool {
    let named = |known: &&str| {
        name == *known
            || name.starts_with(&format!("{known}-"))
            || name.starts_with(&format!("{known}_"))
    };
    NAMES.iter().any(named)
        || PARTS.iter().any(|part| name.contains(part))
        || ["chacha", "sha", "blake"].iter().any(|stem| {
            name.strip_prefix(stem)
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        })
}

/// The statement: name and versions of each crate.
fn stated() -> BTreeMap<String, BTreeSet<String>> {
    let statement: toml::Table = read(".ci/supply-chain/crypto.toml").parse().unwrap();
    let crates = statement["crate"].as_array().unwrap();
    let mut stated = BTreeMap::new();
    for entry in crates {
        for key in ["use", "role", "review", "rely"] {
            assert!(
                !entry[key].as_str().unwrap().is_empty(),
                "{key} of {entry:?}"
            );
        }
        let versions = entry["versions"].as_array().unwrap();
        let versions = versions
            .iter()
            .map(|version| version.as_str().unwrap().to_owned());
        let name = entry["name"].as_str().unwrap().to_owned();
        let before = stated.insert(name.clone(), versions.collect());
        assert_eq!(before, None, "{name} is there twice");
    }
    stated
}

#[test]
fn the_statement_names_every_cryptographic_crate_of_the_lock_file() {
    let (locked, stated) = (locked(), stated());
    let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, version) in locked.keys() {
        if is_cryptographic(name) || stated.contains_key(name) {
            there
                .entry(name.clone())
                .or_default()
                .insert(version.clone());
        }
    }
    assert!(there.len() > 30, "{there:?}");
    assert_eq!(
        stated, there,
        "read what has changed, and say so in crypto.toml"
    );
}

#[test]
fn the_bill_of_materials_is_that_of_the_lock_file() {
    let locked = locked();
    let bill: serde_json::Value =
        serde_json::from_str(&read(".ci/supply-chain/sbom.json")).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    let text =
        |component: &serde_json::Value, key: &str| component[key].as_str().unwrap().to_owned();
    let components = bill["components"].as_array().unwrap();
    assert!(components.len() > 150, "{}", components.len());
    let mut names = BTreeSet::new();
    for component in components {
        let key = (text(component, "name"), text(component, "version"));
        let hash = component["hashes"][0]["content"]
            .as_str()
            .map(str::to_owned);
        let expected = locked
            .get(&key)
            .unwrap_or_else(|| panic!("{key:?} is not in Cargo.lock"));
        assert_eq!(hash, *expected, "{key:?}");
        assert_eq!(
            text(component, "purl"),
            format!("pkg:cargo/{}@{}", key.0, key.1)
        );
        names.insert(key.0);
    }
    // All that the manifest asks for by default is in it; what they ask for in turn, the stage `supply_chain` compares.
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    for name in manifest["dependencies"].as_table().unwrap().keys() {
        let is_of_the_portable_backend = name == "chacha20poly1305";
        assert_eq!(names.contains(name), !is_of_the_portable_backend, "{name}");
    }
    let ours = &bill["metadata"]["component"];
    let version = manifest["package"]["version"].as_str();
    assert_eq!(
        (ours["name"].as_str(), ours["version"].as_str()),
        (Some("pilotlight"), version)
    );
}

#[test]
fn a_cryptographic_crate_is_known_by_its_name() {
    for name in [
        "sha2",
        "sha-1",
        "chacha20",
        "blake3",
        "aes-gcm",
        "x25519-dalek",
        "rustls-webpki",
        "aws-lc-rs",
        "rand_core",
        "ring",
    ] {
        assert!(is_cryptographic(name), "{name}");
    }
    for name in [
        "tokio",
        "sharded-slab",
        "derive_more",
        "randomly",
        "string_cache",
        "hashbrown",
    ] {
        assert!(!is_cryptographic(name), "{name}");
    }
}
