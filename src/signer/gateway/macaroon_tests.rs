//! Macaroons against libmacaroons' published signatures, against the bytes that lnd's bakery writes, and against bytes that
//! nobody should send.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn root(id: u64) -> RootKey {
    RootKey::new(id, Secret32::build(|bytes| bytes.fill(7)))
}

fn occasion() -> Occasion<'static> {
    Occasion {
        entity: SIGNER_ENTITY,
        action: SIGNER_ACTION,
        now: Duration::from_secs(1_800_000_000),
        source: [192, 0, 2, 1].into(),
    }
}

/// libmacaroons, README: the same chain in every implementation's tests.
#[test]
fn signatures_are_those_of_libmacaroons() {
    let mut macaroon = Macaroon::sign(
        b"this is our super secret key; only we should know it",
        Some(b"http://mybank/".to_vec()),
        b"we used our secret key".to_vec(),
    );
    assert_eq!(
        hex(macaroon.signature.expose()),
        "e3d9e02908526c4c0039ae15114115d97fdd68bf2ba379b342aaf0f617d0552f"
    );
    for (condition, signature) in [
        (
            "account = 3735928559",
            "1efe4763f290dbce0c1d08477367e11f4eee456a64933cf662d79772dbb82128",
        ),
        (
            "time < 2020-01-01T00:00",
            "b5f06c8c8ef92f6c82c6ff282cd1f8bd1849301d09a2db634ba182536a611c49",
        ),
        (
            "email = alice@example.org",
            "ddf553e46083e55b8d71ab822be3d8fcf21d6bf19c40d617bb9fb438934474b6",
        ),
    ] {
        macaroon.restrict_raw(condition.into()).unwrap();
        assert_eq!(hex(macaroon.signature.expose()), signature);
    }
}

/// libmacaroons, `test/serialization`: version 2, secret `this is the key`.
#[test]
fn the_binary_form_is_that_of_libmacaroons() {
    let mut macaroon = Macaroon::sign(
        b"this is the key",
        Some(b"http://example.org/".to_vec()),
        b"keyid".to_vec(),
    );
    macaroon
        .restrict_raw(b"account = 3735928559".to_vec())
        .unwrap();
    macaroon.restrict_raw(b"user = alice".to_vec()).unwrap();
    // `AgETaHR0cDovL2V4YW1wbGUub3JnLwIFa2V5aWQAAhRhY2NvdW50ID0gMzczNTkyODU1OQACDHVzZXIgPSBhbGljZQAABiBL6WfNHqDGsmuvakqU7psFsViG2guoXoxCqTyNDhJe_A`
    let published = format!(
        "02{}{}00{}00{}0000{}",
        "0113687474703a2f2f6578616d706c652e6f72672f",
        "02056b65796964",
        "02146163636f756e74203d2033373335393238353539",
        "020c75736572203d20616c696365",
        "06204be967cd1ea0c6b26baf6a4a94ee9b05b15886da0ba85e8c42a93c8d0e125efc"
    );
    assert_eq!(hex(&macaroon.to_bytes()), published);
    let read = Macaroon::from_hex(&published).unwrap();
    read.verify_signature(b"this is the key").unwrap();
    assert_eq!(
        read.verify_signature(b"this is not the key"),
        Err(MacaroonError::WrongSignature)
    );
}

/// `lncli bakemacaroon remotesigner:generate` writes version byte, `lnd`, then 03 0a10<nonce> 1201"0" 1a<op>; only the location
/// differs here.
#[test]
fn the_identifier_is_that_of_lnds_bakery() {
    let macaroon = Macaroon::bake(&root(0), [0xab; 16], &[Op::remote_signer()]);
    let op = format!("0a0c{}1208{}", hex(b"remotesigner"), hex(b"generate"));
    let identifier = format!("030a10{}1201301a18{op}", "ab".repeat(16));
    assert_eq!(hex(&macaroon.identifier), identifier);
    let text = macaroon.to_hex();
    assert!(
        text.starts_with(&format!(
            "02010a{}0230{identifier}00000620",
            hex(b"pilotlight")
        )),
        "{}",
        *text
    );
}

#[test]
fn what_was_baked_is_accepted_and_nothing_else() {
    let root = root(3);
    let macaroon = Macaroon::bake(
        &root,
        [1; 16],
        &[Op::new("info", "read"), Op::remote_signer()],
    );
    let shown = Macaroon::from_hex(&macaroon.to_hex()).unwrap();
    assert_eq!(shown.verify(&root, &occasion()), Ok(()));
    for (entity, action) in [("remotesigner", "read"), ("info", "generate"), ("", "")] {
        let other = Occasion {
            entity,
            action,
            ..occasion()
        };
        assert_eq!(
            shown.verify(&root, &other),
            Err(MacaroonError::WrongPermission)
        );
    }
    let rotated = RootKey::new(4, Secret32::build(|bytes| bytes.fill(7)));
    assert_eq!(
        shown.verify(&rotated, &occasion()),
        Err(MacaroonError::OtherRootKey)
    );
    let forged = RootKey::new(3, Secret32::build(|bytes| bytes.fill(8)));
    assert_eq!(
        shown.verify(&forged, &occasion()),
        Err(MacaroonError::WrongSignature)
    );
}

#[test]
fn every_caveat_must_hold() {
    let root = root(0);
    let bake = || Macaroon::bake(&root, [1; 16], &[Op::remote_signer()]);
    let verdict = |condition: &str| {
        let mut macaroon = bake();
        macaroon.restrict_raw(condition.into()).unwrap();
        macaroon.verify(&root, &occasion())
    };
    assert_eq!(verdict("time-before 2027-01-15T08:00:01Z"), Ok(()));
    // The moment itself is too late, as in the bakery.
    assert_eq!(
        verdict("time-before 2027-01-15T08:00:00Z"),
        Err(MacaroonError::Expired)
    );
    assert_eq!(verdict("ipaddr 192.0.2.1"), Ok(()));
    assert_eq!(verdict("ipaddr ::ffff:192.0.2.1"), Ok(()));
    assert_eq!(
        verdict("ipaddr 192.0.2.2"),
        Err(MacaroonError::WrongAddress)
    );
    for unknown in [
        "",
        "time-before",
        "time-before soon",
        "lnd-custom x",
        "ipaddr  192.0.2.1",
    ] {
        assert_eq!(
            verdict(unknown),
            Err(MacaroonError::UnknownCaveat),
            "{unknown:?}"
        );
    }
    let mut both = bake();
    both.restrict(&Caveat::IpAddr([192, 0, 2, 1].into()))
        .unwrap();
    both.restrict(&Caveat::TimeBefore(Duration::from_secs(5)))
        .unwrap();
    assert_eq!(both.verify(&root, &occasion()), Err(MacaroonError::Expired));
}

#[test]
fn a_caveat_that_is_taken_off_is_missed() {
    let root = root(0);
    let mut macaroon = Macaroon::bake(&root, [1; 16], &[Op::remote_signer()]);
    macaroon
        .restrict(&Caveat::TimeBefore(Duration::from_secs(5)))
        .unwrap();
    macaroon.caveats.clear();
    assert_eq!(
        macaroon.verify(&root, &occasion()),
        Err(MacaroonError::WrongSignature)
    );
}

#[test]
fn a_third_party_caveat_is_refused() {
    let mut bytes = Macaroon::bake(&root(0), [1; 16], &[]).to_bytes().to_vec();
    let tail = bytes.split_off(bytes.len() - 35);
    bytes.extend_from_slice(&[FIELD_IDENTIFIER, 1, b'x', FIELD_VERIFICATION_ID, 1, b'y', 0]);
    bytes.extend_from_slice(&tail);
    assert_eq!(
        Macaroon::parse(&bytes).unwrap_err(),
        MacaroonError::Malformed("it has a third-party caveat")
    );
}

#[test]
fn the_bounds_hold() {
    let mut macaroon = Macaroon::bake(&root(0), [1; 16], &[]);
    for _ in 0..MACAROON_CAVEATS {
        macaroon.restrict_raw(b"x".to_vec()).unwrap();
    }
    assert_eq!(
        macaroon.restrict_raw(b"x".to_vec()),
        Err(MacaroonError::TooLarge)
    );
    assert!(Macaroon::parse(&macaroon.to_bytes()).is_ok());
    assert_eq!(
        Macaroon::parse(&vec![2; MACAROON_MAX + 1]).unwrap_err(),
        MacaroonError::TooLarge
    );
    assert_eq!(
        Macaroon::from_hex(&"0".repeat(2 * MACAROON_MAX + 2)).unwrap_err(),
        MacaroonError::TooLarge
    );
    assert_eq!(Macaroon::from_hex("0").unwrap_err(), MacaroonError::NotHex);
    assert_eq!(Macaroon::from_hex("é").unwrap_err(), MacaroonError::NotHex);
    assert_eq!(Macaroon::from_hex("+2").unwrap_err(), MacaroonError::NotHex);
    assert!(matches!(
        Macaroon::from_hex(""),
        Err(MacaroonError::Malformed(_))
    ));
}

proptest! {
    #[test]
    fn reads_what_it_writes(nonce: [u8; 16], id: u64, entity in "[a-z]{0,200}", conditions in proptest::collection::vec("[ -~]{0,100}", 0..16)) {
        let root = root(id);
        let mut macaroon = Macaroon::bake(&root, nonce, &[Op::new(entity, "generate")]);
        for condition in conditions {
            macaroon.restrict_raw(condition.into_bytes()).unwrap();
        }
        let bytes = macaroon.to_bytes();
        let read = Macaroon::parse(&bytes).unwrap();
        prop_assert_eq!(&*read.to_bytes(), &*bytes);
        prop_assert_eq!(read.verify_signature(root.key.expose()), Ok(()));
        let again = Macaroon::from_hex(&read.to_hex().to_uppercase()).unwrap();
        prop_assert_eq!(&*again.to_bytes(), &*bytes);
    }

    #[test]
    fn a_changed_bit_is_never_accepted(bit in 0_usize..8 * 200, nonce: [u8; 16]) {
        let root = root(0);
        let mut macaroon = Macaroon::bake(&root, nonce, &[Op::remote_signer()]);
        macaroon.restrict(&Caveat::IpAddr([192, 0, 2, 1].into())).unwrap();
        let mut bytes = macaroon.to_bytes().to_vec();
        let location = 1..13; // The hint is not signed: its text may change, its frame may not.
        let at = bit / 8 % bytes.len();
        bytes[at] ^= 1 << (bit % 8);
        if let Ok(read) = Macaroon::parse(&bytes) {
            let verdict = read.verify(&root, &occasion());
            prop_assert!(verdict.is_err() || location.contains(&at));
        }
    }

    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..256), text in "\\PC{0,64}") {
        let _ = Macaroon::parse(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        if let Ok(read) = Macaroon::parse(&bytes) {
            let _ = read.verify(&root(0), &occasion());
        }
        let _ = Macaroon::from_hex(&text);
    }
}
