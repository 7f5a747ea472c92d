//! Key files: what is read, what is refused and by which error, what is made.
#![cfg(not(pilotlight_loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::node_id::Point;
use crate::secret::assert_not_impl;
use crate::signer::Purpose;

assert_not_impl!(EmbeddedSigner: Clone, std::fmt::Display);

const SEVENS: &str = "0707070707070707070707070707070707070707070707070707070707070707";
/// The order of the curve: the smallest number that is too large.
const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

fn sevens() -> NodeId {
    LocalKey::from_bytes(&mut [7; 32]).unwrap().node_id()
}

fn set_mode(path: &Path, mode: u32) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
}

/// A private file with this text, in a directory of its own.
fn file(text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity.key");
    fs::write(&path, text).unwrap();
    set_mode(&path, 0o600);
    (directory, path)
}

fn refusal(text: impl AsRef<[u8]>) -> KeyFileError {
    let (_directory, path) = file(text);
    let error = EmbeddedSigner::load(&path).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains(path.to_str().unwrap()),
        "{said} does not name the file"
    );
    assert_eq!(error.culprit(), Culprit::Operator);
    error
}

#[test]
fn reads_64_hex_digits_in_either_case_with_or_without_an_end_of_line() {
    for end in ["", "\n", "\r\n"] {
        let (_directory, path) = file(format!("{SEVENS}{end}"));
        assert_eq!(EmbeddedSigner::load(&path).unwrap().node_id(), sevens());
    }
    let mixed = "ABCDEFabcdef".to_owned() + &SEVENS[12..];
    let (_first, upper) = file(mixed.to_uppercase());
    let (_second, lower) = file(mixed.to_lowercase());
    let (upper, lower) = (EmbeddedSigner::load(&upper), EmbeddedSigner::load(&lower));
    assert_eq!(upper.unwrap().node_id(), lower.unwrap().node_id());
}

#[test]
fn answers_bolt_8s_ecdh_at_once() {
    let signer = EmbeddedSigner::from_key(LocalKey::from_bytes(&mut [7; 32]).unwrap());
    let other = LocalKey::from_bytes(&mut [8; 32]).unwrap();
    let mut answer = signer.ecdh(EcdhCall::new(other.point(), Purpose::GossipDial));
    let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Ok(secret)) = answer.as_mut().poll(&mut nobody) else {
        unreachable!("a key in this process is never awaited");
    };
    let theirs = other.ecdh(&Point::try_from(signer.node_id()).unwrap());
    assert!(secret.ct_eq(&theirs));
}

#[test]
fn refuses_what_is_not_64_digits_and_says_how_many_there_are() {
    let length = |text: &str| match refusal(text) {
        KeyFileError::Length { found, .. } => found,
        other => unreachable!("{other}"),
    };
    assert_eq!(length(""), Some(0));
    assert_eq!(length("\n"), Some(0));
    assert_eq!(length(&SEVENS[1..]), Some(63));
    assert_eq!(length(&format!("{SEVENS}0")), Some(65));
    assert_eq!(length(&format!("{SEVENS}\n\n")), Some(65));
    assert_eq!(length(&SEVENS.repeat(1_000)), None);
    assert!(refusal("07").to_string().contains("holds 2 characters"));
    assert!(
        refusal(SEVENS.repeat(9))
            .to_string()
            .contains("more than 66 characters")
    );
}

#[test]
fn refuses_what_is_not_hex_and_says_where() {
    for (position, digit) in [(1, "g"), (2, "/"), (33, ":"), (64, "`")] {
        let mut text = SEVENS.to_owned();
        text.replace_range(position - 1..position, digit);
        let error = refusal(&text);
        assert!(
            matches!(error, KeyFileError::NotHex { position: at, .. } if at == position),
            "{error}"
        );
        assert!(
            !error.to_string().contains("0707"),
            "an error must not print the key"
        );
    }
    // Not text at all.
    assert!(matches!(
        refusal([0xff; 64]),
        KeyFileError::NotHex { position: 1, .. }
    ));
}

#[test]
fn refuses_numbers_that_are_no_keys() {
    assert!(matches!(refusal("0".repeat(64)), KeyFileError::Zero { .. }));
    assert!(matches!(refusal(ORDER), KeyFileError::OutOfRange { .. }));
    assert!(matches!(
        refusal("f".repeat(64)),
        KeyFileError::OutOfRange { .. }
    ));
}

#[test]
fn tells_a_missing_file_from_one_that_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let missing = EmbeddedSigner::load(directory.path().join("none")).unwrap_err();
    assert!(
        matches!(missing, KeyFileError::NotFound { .. }),
        "{missing}"
    );
    let folder = EmbeddedSigner::load(directory.path()).unwrap_err();
    assert!(matches!(folder, KeyFileError::NotAFile { .. }), "{folder}");
}

#[test]
#[cfg(unix)]
fn tells_a_file_that_cannot_be_reached_from_one_that_is_not_there() {
    let (directory, path) = file(SEVENS);
    // A file where a directory is expected: unreadable for root too, which permission bits are not.
    let below = path.join("identity.key");
    let error = EmbeddedSigner::load(&below).unwrap_err();
    assert!(matches!(error, KeyFileError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("chmod"), "{error}");
    drop(directory);
}

#[test]
#[cfg(unix)]
fn refuses_a_file_that_others_may_open() {
    for open in [0o640, 0o604, 0o620, 0o602, 0o601, 0o644, 0o777] {
        let (_directory, path) = file(SEVENS);
        set_mode(&path, open);
        let error = EmbeddedSigner::load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::TooOpen { mode, .. } if mode == open));
        let said = error.to_string();
        assert!(
            said.contains(&format!("{open:03o}")) && said.contains("chmod 600"),
            "{said}"
        );
        // It is not touched: whether to trust it again is the operator's decision.
        assert!(EmbeddedSigner::load(&path).is_err());
    }
    for private in [0o600, 0o400, 0o700] {
        let (_directory, path) = file(SEVENS);
        set_mode(&path, private);
        assert!(EmbeddedSigner::load(&path).is_ok());
    }
}

#[test]
fn makes_a_private_file_that_it_reads_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity.key");
    let made = EmbeddedSigner::generate(&path).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let bits = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(bits & 0o777, 0o600);
    }
    let text = fs::read(&path).unwrap();
    assert_eq!(text.len(), HEX_LEN + 1);
    assert_eq!(
        EmbeddedSigner::load(&path).unwrap().node_id(),
        made.node_id()
    );
    let other = EmbeddedSigner::generate(directory.path().join("other.key")).unwrap();
    assert_ne!(other.node_id(), made.node_id());
}

#[test]
fn never_writes_over_a_file() {
    let (_directory, path) = file("somebody's");
    let error = EmbeddedSigner::generate(&path).unwrap_err();
    assert!(matches!(error, KeyFileError::Exists { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    // Nor because it cannot be read as a key.
    assert!(EmbeddedSigner::load_or_generate(&path).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"somebody's");
}

#[test]
fn says_when_there_is_no_place_for_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let error = EmbeddedSigner::generate(directory.path().join("none/identity.key")).unwrap_err();
    assert!(matches!(error, KeyFileError::Unwritable { .. }), "{error}");
}

#[test]
fn makes_a_key_the_first_time_and_loads_it_after_that() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity.key");
    let (first, made) = EmbeddedSigner::load_or_generate(&path).unwrap();
    assert!(made);
    let (second, made) = EmbeddedSigner::load_or_generate(&path).unwrap();
    assert!(!made);
    assert_eq!(first.node_id(), second.node_id());
}

#[test]
fn what_is_printed_is_the_public_half() {
    let (_directory, path) = file(SEVENS);
    let printed = format!("{:?}", EmbeddedSigner::load(&path).unwrap());
    assert!(printed.contains(&sevens().to_string()), "{printed}");
    assert!(!printed.contains("0707"), "{printed}");
}

#[test]
fn reads_a_key_from_a_stream_up_to_its_first_end_of_line() {
    /// Gives its text, and then must not be asked again: a terminal would wait.
    struct Terminal(Option<String>);
    impl Read for Terminal {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let text = self.0.take().expect("nothing is waited for after a line");
            into[..text.len()].copy_from_slice(text.as_bytes());
            Ok(text.len())
        }
    }
    let terminal = Terminal(Some(format!("{SEVENS}\n")));
    let read = EmbeddedSigner::from_stream(terminal, "standard input").unwrap();
    assert_eq!(read.node_id(), sevens());
    let read = EmbeddedSigner::from_stream(SEVENS.as_bytes(), "standard input").unwrap();
    assert_eq!(read.node_id(), sevens());
    // However much of what follows comes with it.
    for rest in ["more", &"more\n".repeat(100)] {
        let text = format!("{SEVENS}\n{rest}");
        let read = EmbeddedSigner::from_stream(text.as_bytes(), "standard input").unwrap();
        assert_eq!(read.node_id(), sevens());
    }
    for (text, part) in [
        ("", "holds 0 characters"),
        ("garbage", "holds 7 characters"),
        (&"z".repeat(64), "position 1 of 64"),
        (&"0".repeat(64), "is zero"),
        (&"1".repeat(1_000_000), "more than 66 characters"),
    ] {
        let said = EmbeddedSigner::from_stream(text.as_bytes(), "standard input")
            .unwrap_err()
            .to_string();
        assert!(
            said.contains(part) && said.contains("standard input"),
            "{said}"
        );
    }
}
