//! The kept inputs of every fuzz target, over the same bodies that the fuzzer runs; and that the targets, their seeds and
//! `fuzz/README.md` agree. `PILOTLIGHT_BLESS=1` writes the seeds and README's table anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::print_stdout,
    clippy::similar_names,
    clippy::struct_excessive_bools,
    clippy::too_many_lines,
    missing_docs,
    unreachable_pub
)]

#[path = "fuzz_replay/seeds.rs"]
mod seeds;
#[path = "fuzz_replay/signer_seeds.rs"]
mod signer_seeds;
#[path = "../fuzz/src/lib.rs"]
mod targets;
#[path = "vectors/bolt8.rs"]
mod vectors;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use targets::TARGETS;

/// What all corpora together may take, in bytes: they are cloned by everybody, and replayed in every run of the tests.
const CORPORA_MAX: usize = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn blessed() -> bool {
    std::env::var_os("PILOTLIGHT_BLESS").is_some()
}

/// Every kept input of a target, by name.
fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    inputs(&fuzz().join("corpus").join(target))
}

fn inputs(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect()
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let mut kept = corpus(name);
    // What a fuzzer has gathered beside it: for `fuzz/run coverage`.
    let gathered = std::env::var_os("PILOTLIGHT_FUZZ_CORPUS").map(|all| Path::new(&all).join(name));
    if let Some(folder) = gathered.filter(|folder| folder.is_dir()) {
        kept.extend(inputs(&folder));
    }
    for (input, bytes) in &kept {
        // The last name printed is the one that fails.
        println!("{name}/{input}, {} bytes", bytes.len());
        (target.run)(bytes);
    }
    println!("{name}: {} inputs", kept.len());
}

macro_rules! replayed {
    ($($target:ident),+ $(,)?) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )+

        /// The targets that have a test here.
        const REPLAYED: &[&str] = &[$(stringify!($target)),+];
    };
}

replayed!(
    framer,
    wire,
    cipher_rotation,
    handshake_initiator,
    handshake_responder,
    firewall,
    handshake_differential,
    link_ops,
    roster_ops,
    signer_stream,
    agent_stream,
    session_ops,
    credentials,
    config,
    book,
);

#[test]
fn every_target_is_a_file_a_binary_a_corpus_and_a_test() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, REPLAYED);
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &names {
        assert!(manifest.contains(&format!(
            "[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n"
        )));
        let file = fuzz().join("fuzz_targets").join(format!("{name}.rs"));
        let expected = format!(
            "//! See `src/{name}.rs`.\n#![no_main]\nlibfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::{name}::run(input));\n"
        );
        assert_eq!(std::fs::read_to_string(file).unwrap(), expected);
    }
    assert_eq!(manifest.matches("[[bin]]").count(), names.len());
    for folder in ["fuzz_targets", "corpus"] {
        let entries = std::fs::read_dir(fuzz().join(folder)).unwrap();
        assert_eq!(
            entries.count(),
            names.len(),
            "{folder}: what belongs to no target"
        );
    }
}

#[test]
fn seeds_are_as_they_are_made_and_what_is_kept_is_small_and_named_by_behaviour() {
    let mut all = 0;
    for target in TARGETS {
        let folder = fuzz().join("corpus").join(target.name);
        let seeds: BTreeMap<String, Vec<u8>> = seeds::of(target.name).into_iter().collect();
        assert!(seeds.len() > 3, "{} has hardly a seed", target.name);
        if blessed() {
            std::fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in &seeds {
                std::fs::write(folder.join(name), bytes).unwrap();
            }
        }
        let kept = corpus(target.name);
        for (name, bytes) in &seeds {
            assert!(
                kept.get(name) == Some(bytes),
                "{}/{name} is not as it is made",
                target.name
            );
        }
        for (name, bytes) in &kept {
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let hash = name.len() >= 40;
            assert!(
                name.chars().all(word) && !hash,
                "{name} does not name a behaviour"
            );
            all += bytes.len();
        }
    }
    println!("all corpora: {all} bytes");
    assert!(all < CORPORA_MAX, "the corpora take {all} bytes");
}

const BEGIN: &str = "<!-- targets: made by tests/fuzz_replay.rs -->\n";
const END: &str = "<!-- end of targets -->\n";

#[test]
fn the_readme_lists_every_target_with_its_promise_and_no_other() {
    let path = fuzz().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    let mut table = String::from("| target | promises |\n|---|---|\n");
    for target in TARGETS {
        writeln!(table, "| `{}` | {} |", target.name, target.promise).unwrap();
    }
    if blessed() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(listed, table, "PILOTLIGHT_BLESS=1 writes it anew");
}

/// What a fuzzer does, without its guidance: seeds cut, changed and spliced. A few of each in every run of the tests; as many as
/// `PILOTLIGHT_FUZZ_ROUNDS` says by hand. An input that breaks a promise is printed.
#[test]
fn seeds_that_are_cut_changed_and_spliced_break_no_promise() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let rounds = number("PILOTLIGHT_FUZZ_ROUNDS").unwrap_or(40);
    let seed = number("PILOTLIGHT_SEED").unwrap_or(6);
    println!("PILOTLIGHT_SEED={seed}");
    for target in TARGETS {
        let kept: Vec<Vec<u8>> = corpus(target.name).into_values().collect();
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..rounds {
            let input = mutated(&kept, &mut random);
            let run = std::panic::AssertUnwindSafe(|| (target.run)(&input));
            if let Err(panic) = std::panic::catch_unwind(run) {
                println!("{}: {input:?}", target.name);
                std::panic::resume_unwind(panic);
            }
        }
        println!("{}: {rounds} inputs", target.name);
    }
}

/// One of these, or two, with a few changes.
fn mutated(kept: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = kept[random.usize(..kept.len())].clone();
    for _ in 0..=random.usize(..4) {
        let at = random.usize(..=input.len());
        match random.u8(..6) {
            0 => input.truncate(at),
            1 => input.insert(at, random.u8(..)),
            2 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            3 if at < input.len() => input[at] = random.u8(..),
            4 => {
                let other = &kept[random.usize(..kept.len())];
                input.truncate(at);
                input.extend(&other[random.usize(..=other.len())..]);
            }
            _ => {
                let tail = input.split_off(at);
                input.extend(
                    tail.iter()
                        .take(random.usize(..40))
                        .copied()
                        .collect::<Vec<u8>>(),
                );
                input.extend(&tail);
            }
        }
    }
    input.truncate(4096);
    input
}

/// The judge is judged first: with the published keys it gives the published acts.
#[test]
fn the_restatement_of_bolt_8_gives_the_published_acts() {
    use targets::bolt8::{Initiator, Responder, public, secret};
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    let [s, e, rs, re] = [0x11, 0x12, 0x21, 0x22].map(secret);
    let (mut initiator, act_one) = Initiator::dial(s, e, &public(&rs));
    assert_eq!(hex(&act_one), vectors::ACT_ONE);
    let mut responder = Responder::new(rs, re);
    let act_two = responder.act_one(&act_one).unwrap();
    assert_eq!(hex(&act_two), vectors::ACT_TWO);
    initiator.act_two(&act_two).unwrap();
    let (act_three, mut alice) = initiator.act_three();
    assert_eq!(hex(&act_three), vectors::ACT_THREE);
    let (caller, _) = responder.act_three(&act_three).unwrap();
    assert_eq!(hex(&caller.serialize()), vectors::INITIATOR_ID);
    let published: BTreeMap<u64, &str> = vectors::OUTPUTS.iter().copied().collect();
    for number in 0..=1001 {
        let frame = alice.seal(b"hello");
        if let Some(expected) = published.get(&number) {
            assert_eq!(hex(&frame), *expected, "message {number}");
        }
    }
}
