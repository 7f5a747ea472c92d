//! The vectors of BOLT 1's appendices A, B and C, every one, with the namespaces `n1` and `n2` that appendix B supposes; and one
//! `channel_update` of mainnet.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::gossip::{Direction, GossipHeader};
use super::tlv::{self, Known};
use super::{BITCOIN_MAINNET, BigSize, Features, Init, ShortChannelId, WireError};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).expect("hex")).unwrap())
        .collect();
    assert_eq!(digits.len() % 2, 0, "half a byte in {text}");
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[test]
fn bigsize_reads_and_writes_appendix_a() {
    let cases = [
        (0, "00"),
        (252, "fc"),
        (253, "fd00fd"),
        (65_535, "fdffff"),
        (65_536, "fe00010000"),
        (4_294_967_295, "feffffffff"),
        (4_294_967_296, "ff0000000100000000"),
        (u64::MAX, "ffffffffffffffffff"),
    ];
    for (value, bytes) in cases {
        let bytes = hex(bytes);
        assert_eq!(BigSize::decode(&bytes), Ok((BigSize(value), &[][..])));
        let mut out = Vec::new();
        BigSize(value).encode(&mut out);
        assert_eq!(out, bytes, "{value}");
    }
}

#[test]
fn bigsize_refuses_what_appendix_a_calls_not_canonical() {
    for (bytes, value) in [
        ("fd00fc", 0xfc),
        ("fe0000ffff", 0xffff),
        ("ff00000000ffffffff", 0xffff_ffff),
    ] {
        assert_eq!(
            BigSize::decode(&hex(bytes)),
            Err(WireError::NotMinimal { value }),
            "{bytes}"
        );
    }
}

#[test]
fn bigsize_refuses_the_short_reads_of_appendix_a() {
    for bytes in ["fd00", "feffff", "ffffffffff", "", "fd", "fe", "ff"] {
        assert!(
            matches!(
                BigSize::decode(&hex(bytes)),
                Err(WireError::Truncated {
                    message: "bigsize",
                    ..
                })
            ),
            "{bytes}"
        );
    }
}

/// What a namespace of appendix B can say.
#[derive(Debug, PartialEq, Eq)]
enum Field {
    Amount(u64),
    Scid(ShortChannelId),
    Point([u8; 33], u64, u64),
    CltvDelta(u16),
    CltvExpiry(u32),
}

/// A truncated integer of at most `most` bytes: no leading zero byte (BOLT 1 § Fundamental Types).
fn truncated(kind: u64, value: &[u8], most: usize) -> Result<u64, WireError> {
    let refused = WireError::TlvLength {
        kind,
        length: value.len(),
    };
    if value.len() > most || value.first() == Some(&0) {
        return Err(refused);
    }
    Ok(value
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn exact<const N: usize>(kind: u64, value: &[u8]) -> Result<[u8; N], WireError> {
    value.try_into().map_err(|_| WireError::TlvLength {
        kind,
        length: value.len(),
    })
}

fn n1(stream: &[u8]) -> Result<Vec<Field>, WireError> {
    let mut fields = Vec::new();
    tlv::decode(stream, |kind, value| {
        fields.push(match kind {
            1 => Field::Amount(truncated(kind, value, 8)?),
            2 => Field::Scid(ShortChannelId::from_u64(u64::from_be_bytes(exact(
                kind, value,
            )?))),
            3 => {
                let value: [u8; 49] = exact(kind, value)?;
                let point: [u8; 33] = value[..33].try_into().unwrap();
                secp256k1::PublicKey::from_slice(&point).map_err(|_| WireError::Invalid {
                    message: "n1",
                    what: "node_id is not a valid point",
                })?;
                Field::Point(
                    point,
                    u64::from_be_bytes(value[33..41].try_into().unwrap()),
                    u64::from_be_bytes(value[41..].try_into().unwrap()),
                )
            }
            254 => Field::CltvDelta(u16::from_be_bytes(exact(kind, value)?)),
            _ => return Ok(Known::No),
        });
        Ok(Known::Yes)
    })?;
    Ok(fields)
}

fn n2(stream: &[u8]) -> Result<Vec<Field>, WireError> {
    let mut fields = Vec::new();
    tlv::decode(stream, |kind, value| {
        fields.push(match kind {
            0 => Field::Amount(truncated(kind, value, 8)?),
            11 => Field::CltvExpiry(u32::try_from(truncated(kind, value, 4)?).unwrap()),
            _ => return Ok(Known::No),
        });
        Ok(Known::Yes)
    })?;
    Ok(fields)
}

fn kind_of(error: &WireError) -> &'static str {
    match error {
        WireError::Truncated { .. } => "truncated",
        WireError::NotMinimal { .. } => "not minimal",
        WireError::TlvTruncated { .. } => "value truncated",
        WireError::TlvUnknownEven { .. } => "unknown even",
        WireError::TlvOutOfOrder { .. } => "out of order",
        WireError::TlvLength { .. } => "length",
        WireError::Invalid { .. } => "invalid",
        other => panic!("not an error of a stream: {other}"),
    }
}

const POINT: &str = "023da092f6980e58d2c037173180e9a465476026ee50f96695963e8efe436f54eb";

#[test]
fn streams_that_no_namespace_accepts() {
    let value_truncated = format!("0f fd0201 {}", "00".repeat(512));
    let cases = [
        ("fd", "truncated"),
        ("fd01", "truncated"),
        ("fd0001 00", "not minimal"),
        ("fd0101", "truncated"),
        ("0f fd", "truncated"),
        ("0f fd26", "truncated"),
        ("0f fd2602", "value truncated"),
        ("0f fd0001 00", "not minimal"),
        (&value_truncated, "value truncated"),
        ("12 00", "unknown even"),
        ("fd0102 00", "unknown even"),
        ("fe01000002 00", "unknown even"),
        ("ff0100000000000002 00", "unknown even"),
    ];
    for (stream, reason) in cases {
        for namespace in [n1, n2] {
            let error = namespace(&hex(stream)).expect_err(stream);
            assert_eq!(kind_of(&error), reason, "{stream}");
        }
    }
}

#[test]
fn streams_that_n1_refuses() {
    let points = [
        format!("03 21 {POINT}"),
        format!("03 29 {POINT} 0000000000000001"),
        format!("03 30 {POINT} 0000000000000001 00000000000001"),
        format!("03 32 {POINT} 0000000000000001 000000000000000001"),
    ];
    let not_a_point = format!("03 31 04{} 0000000000000001 0000000000000002", &POINT[2..]);
    let mut cases = vec![
        ("01 09 ffffffffffffffffff", "length"),
        ("01 01 00", "length"),
        ("01 02 0001", "length"),
        ("01 03 000100", "length"),
        ("01 04 00010000", "length"),
        ("01 05 0001000000", "length"),
        ("01 06 000100000000", "length"),
        ("01 07 00010000000000", "length"),
        ("01 08 0001000000000000", "length"),
        ("02 07 01010101010101", "length"),
        ("02 09 010101010101010101", "length"),
        ("fd00fe 00", "length"),
        ("fd00fe 01 01", "length"),
        ("fd00fe 03 010101", "length"),
        ("00 00", "unknown even"),
        ("02 08 0000000000000226 01 01 2a", "out of order"),
        (
            "02 08 0000000000000231 02 08 0000000000000451",
            "out of order",
        ),
        ("1f 00 0f 01 2a", "out of order"),
        ("1f 00 1f 01 2a", "out of order"),
        (&not_a_point, "invalid"),
    ];
    cases.extend(points.iter().map(|stream| (stream.as_str(), "length")));
    for (stream, reason) in cases {
        let error = n1(&hex(stream)).expect_err(stream);
        assert_eq!(kind_of(&error), reason, "{stream}");
    }
}

#[test]
fn a_type_after_the_highest_one_is_out_of_order_in_n2() {
    let error = n2(&hex("ffffffffffffffffff 00 00 00")).unwrap_err();
    assert_eq!(
        error,
        WireError::TlvOutOfOrder {
            previous: u64::MAX,
            next: 0
        }
    );
}

const IGNORED: [&str; 7] = [
    "",
    "21 00",
    "fd0201 00",
    "fd00fd 00",
    "fd00ff 00",
    "fe02000001 00",
    "ff0200000000000001 00",
];

#[test]
fn streams_that_every_namespace_reads_and_ignores() {
    for stream in IGNORED {
        assert_eq!(n1(&hex(stream)), Ok(vec![]), "{stream}");
        assert_eq!(n2(&hex(stream)), Ok(vec![]), "{stream}");
    }
}

fn n1_successes() -> Vec<(String, Field)> {
    let mut cases: Vec<(String, Field)> = vec![("01 00".into(), Field::Amount(0))];
    for bytes in 1..=8_u32 {
        let value = 1_u64 << (8 * (bytes - 1));
        let digits = usize::try_from(2 * bytes).unwrap();
        cases.push((
            format!("01 {bytes:02x} {value:0digits$x}"),
            Field::Amount(value),
        ));
    }
    let scid = ShortChannelId::new(0, 0, 550).unwrap();
    cases.push(("02 08 0000000000000226".into(), Field::Scid(scid)));
    cases.push((
        format!("03 31 {POINT} 0000000000000001 0000000000000002"),
        Field::Point(hex(POINT).try_into().unwrap(), 1, 2),
    ));
    cases.push(("fd00fe 02 0226".into(), Field::CltvDelta(550)));
    cases
}

#[test]
fn streams_that_n1_reads() {
    for (stream, field) in n1_successes() {
        assert_eq!(n1(&hex(&stream)), Ok(vec![field]), "{stream}");
    }
    assert_eq!(
        n2(&hex("00 01 2a 0b 02 0226")),
        Ok(vec![Field::Amount(42), Field::CltvExpiry(550)])
    );
}

#[test]
fn an_invalid_stream_spoils_a_valid_one_and_a_higher_valid_one_does_not() {
    for (valid, field) in n1_successes() {
        for invalid in ["fd", "fd2602", "fe01000002 00", "1f fd26"] {
            let both = [hex(&valid), hex(invalid)].concat();
            assert!(n1(&both).is_err(), "{valid} {invalid}");
        }
        let both = [hex(&valid), hex("fe02000001 00")].concat();
        assert_eq!(n1(&both), Ok(vec![field]), "{valid}");
    }
}

#[test]
fn init_accepts_the_extensions_of_appendix_c() {
    for message in ["001000000000", "001000000000c9012acb0104"] {
        assert_eq!(
            Init::decode(&hex(message)),
            Ok(Init::default()),
            "{message}"
        );
    }
}

#[test]
fn init_refuses_the_extensions_of_appendix_c() {
    for (message, reason) in [
        ("00100000000001", "truncated"),
        ("001000000000ca012a", "unknown even"),
        ("001000000000c90101c90102", "out of order"),
    ] {
        let error = Init::decode(&hex(message)).expect_err(message);
        assert_eq!(kind_of(&error), reason, "{message}");
    }
}

#[test]
fn init_merges_its_two_bitmaps_and_reads_its_records() {
    let chain = "43".repeat(32);
    let message = hex(&format!(
        "0010 0001 02 0002 0080 01 20 {chain} 03 03 010203 05 00"
    ));
    let init = Init::decode(&message).unwrap();
    assert_eq!(init.features, Features::from_bits([1, 7]));
    assert_eq!(init.networks, vec![[0x43; 32]]);
    assert_eq!(init.remote_addr, Some(vec![1, 2, 3]));
    assert!(init.may_share_a_chain(&[[0x42; 32], [0x43; 32]]));
    assert!(!init.may_share_a_chain(&[[0x42; 32]]));
    assert_eq!(
        init.encode(),
        hex(&format!("0010 0000 0001 82 01 20 {chain} 03 03 010203"))
    );
}

#[test]
fn init_refuses_part_of_a_chain() {
    let error = Init::decode(&hex("001000000000 01 02 ffff")).unwrap_err();
    assert_eq!(error, WireError::TlvLength { kind: 1, length: 2 });
}

#[test]
fn a_header_of_mainnet_is_read() {
    // Core Lightning's test data, 2021.
    let message = hex(
        "0102 5996b1cc2a6c6dbea17888a55d5a12f60eb7ef560f4681d675d466c6ce05fe98
         57860ca2289e6d2399d9b7bcdc6e41dc4e6234a16bd39a4d43dc4c310bf80cbe
         6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000
         0a95730004d50001 6119a4df 01 01 0028 00000000000003e8 000003e8 00000001 000000000f75d320",
    );
    assert_eq!(
        GossipHeader::decode(&message),
        Ok(Some(GossipHeader::Update {
            chain_hash: BITCOIN_MAINNET,
            short_channel_id: "693619x1237x1".parse().unwrap(),
            timestamp: 0x6119_a4df,
            direction: Direction::TwoToOne,
            disabled: false,
        }))
    );
    assert!(GossipHeader::decode(&message[..100]).is_err());
}
