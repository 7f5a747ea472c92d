//! Macaroons of ours read by Go's libraries, and theirs by ours.

use std::path::Path;
use std::time::Duration;

use pilotlight::clock::{Clock, SystemClock};
use pilotlight::secret::Secret32;
use pilotlight::signer::gateway::{Caveat, Macaroon, MacaroonError, Occasion, Op, RootKey};
use serde_json::{Value, json};

use crate::dialer::root;
use crate::go::{arguments, finish};

const HOUR: Duration = Duration::from_secs(3600);

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

async fn check(file: &Path, more: &[&str]) -> Value {
    let root = hex(7);
    let file = file.to_str().unwrap();
    let given = ["check", "-root", &root, "-file", file];
    let mut lines = finish("macaroons", &arguments(&[&given, more].concat())).await;
    lines.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn what_we_bake_is_read_and_judged_by_gos_libraries() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("macaroon");
    let now = SystemClock::new().unix();
    let until = Caveat::TimeBefore(now + HOUR);
    let here = Caveat::IpAddr([127, 0, 0, 1].into());
    let mut macaroon = Macaroon::bake(
        &root(),
        [0xab; 16],
        &[Op::remote_signer(), Op::new("info", "read")],
    );
    macaroon.restrict(&until).unwrap();
    macaroon.restrict(&here).unwrap();
    std::fs::write(&file, macaroon.to_bytes()).unwrap();
    let checked = check(&file, &[]).await;
    let expected = json!({
        "event": "checked",
        "version": 2,
        "location": "pilotlight",
        "id_version": 3,
        "nonce": "ab".repeat(16),
        "root": "0",
        "ops": ["remotesigner:generate", "info:read"],
        "caveats": [until.to_string(), here.to_string()],
        "chain": "yes",
        "allowed": "yes",
        "same_bytes": true,
    });
    assert_eq!(checked, expected);
    let denied = |checked: &Value| checked["allowed"] != "yes";
    assert!(denied(&check(&file, &["-op", "remotesigner:read"]).await));
    assert!(denied(&check(&file, &["-source", "127.0.0.2"]).await));
    let other = check(&file, &["-root", &hex(8)]).await;
    assert!(denied(&other) && other["chain"] != "yes", "{other}");
    let renamed = check(&file, &["-id", "1"]).await;
    assert!(denied(&renamed) && renamed["chain"] == "yes", "{renamed}");

    let past = Caveat::TimeBefore(now.checked_sub(HOUR).unwrap());
    macaroon.restrict(&past).unwrap();
    std::fs::write(&file, macaroon.to_bytes()).unwrap();
    let expired = check(&file, &[]).await;
    let why = expired["allowed"].as_str().unwrap();
    assert!(why.contains("macaroon has expired"), "{expired}");
    assert_eq!(expired["chain"], "yes");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn what_gos_bakery_makes_is_verified_by_us() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("macaroon");
    let path = file.to_str().unwrap();
    let root_hex = hex(7);
    let now = SystemClock::new().unix();
    let bake = async |more: &[&str]| {
        let given = ["bake", "-root", &root_hex, "-file", path];
        finish("macaroons", &arguments(&[&given, more].concat())).await;
        let bytes = std::fs::read(&file).unwrap();
        let macaroon = Macaroon::parse(&bytes).unwrap();
        assert_eq!(*macaroon.to_bytes(), bytes, "written as it was read");
        macaroon
    };
    let here = Occasion {
        entity: "remotesigner",
        action: "generate",
        now,
        source: [127, 0, 0, 1].into(),
    };
    let plain = bake(&[]).await;
    assert_eq!(plain.verify(&root(), &here), Ok(()));
    let forged = RootKey::new(0, Secret32::build(|bytes| bytes.fill(8)));
    assert_eq!(
        plain.verify(&forged, &here),
        Err(MacaroonError::WrongSignature)
    );
    let rotated = RootKey::new(1, Secret32::build(|bytes| bytes.fill(7)));
    assert_eq!(
        plain.verify(&rotated, &here),
        Err(MacaroonError::OtherRootKey)
    );

    let until = Caveat::TimeBefore(now + HOUR).to_string();
    let narrow = bake(&["-caveats", &format!("{until},ipaddr 127.0.0.1")]).await;
    assert_eq!(narrow.verify(&root(), &here), Ok(()));
    let late = Occasion {
        now: now + 2 * HOUR,
        ..here
    };
    assert_eq!(narrow.verify(&root(), &late), Err(MacaroonError::Expired));
    let source = [127, 0, 0, 2].into();
    let elsewhere = Occasion { source, ..here };
    assert_eq!(
        narrow.verify(&root(), &elsewhere),
        Err(MacaroonError::WrongAddress)
    );

    let reader = bake(&["-op", "info:read"]).await;
    assert_eq!(
        reader.verify(&root(), &here),
        Err(MacaroonError::WrongPermission)
    );
    let custom = bake(&["-caveats", "lnd-custom middleware x"]).await;
    assert_eq!(
        custom.verify(&root(), &here),
        Err(MacaroonError::UnknownCaveat)
    );
}
