//! What a signer and its gateway read of files and of a call's metadata, before anybody has proved anything: macaroons and their caveats,
//! certificates, hosts, a key.

use super::at_the_door::source;
use super::feed::Feed;
use pilotlight::error::{Culprit, Retry};
use pilotlight::limits::{MACAROON_CAVEATS, MACAROON_MAX};
use pilotlight::node_id::LocalKey;
use pilotlight::secret::Secret32;
use pilotlight::signer::gateway::{
    Caveat, Macaroon, MacaroonError, Occasion, Op, PinnedCertificate, RootKey, TlsIdentity,
    read_certificate,
};
use pilotlight::signer::{EmbeddedSigner, KeyFileError, Signer};
use std::net::IpAddr;
use std::time::Duration;

/// What it is, then the text: 0 a macaroon, 1 one in hex, 2 how one of ours is baked, narrowed and forged, 3 a caveat, 4 a certificate in PEM,
/// 5 one in DER, 6 what is in one of ours, 7 a host, 8 a key file.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    match feed.below(9) {
        0 => shown(Macaroon::parse(feed.rest())),
        1 => shown(Macaroon::from_hex(&String::from_utf8_lossy(feed.rest()))),
        2 => macaroon(&mut feed),
        3 => caveat(feed.rest()),
        4 => pem(feed.rest()),
        5 => certificate(feed.rest()),
        6 => certificate_of_ours(&mut feed),
        7 => host(&String::from_utf8_lossy(feed.rest())),
        _ => key_file(feed.rest()),
    }
}

fn root(byte: u8) -> RootKey {
    RootKey::new(u64::from(byte), Secret32::build(|bytes| bytes.fill(byte)))
}

/// What reads is written the same. Nobody baked it, so it is worth nothing here but to who has copied a signature: libFuzzer sees what one is
/// compared with.
fn shown(read: Result<Macaroon, MacaroonError>) {
    let macaroon = match read {
        Ok(macaroon) => macaroon,
        Err(error) => return refused(&error),
    };
    let again = Macaroon::parse(&macaroon.to_bytes()).expect("written, it does not read");
    assert_eq!(again.fingerprint(), macaroon.fingerprint());
    assert_eq!(again.name(), macaroon.name());
    assert!(macaroon.to_bytes().len() <= MACAROON_MAX);
    let text = macaroon.to_hex();
    assert!(Macaroon::from_hex(&text).is_ok());
    let occasion = Occasion {
        entity: "remotesigner",
        action: "generate",
        now: Duration::ZERO,
        source: [127, 0, 0, 1].into(),
    };
    if let Err(error) = macaroon.verify(&root(1), &occasion) {
        return refused(&error);
    }
    // Then it is a right one in all: the same is worth nothing to another root key, nor narrowed to a time that is over.
    refused(&macaroon.verify(&root(2), &occasion).unwrap_err());
    let mut narrowed = macaroon;
    if narrowed
        .restrict(&Caveat::TimeBefore(Duration::ZERO))
        .is_ok()
    {
        let verdict = narrowed.verify(&root(1), &occasion);
        assert_eq!(verdict, Err(MacaroonError::Expired));
    }
}

fn refused(error: &MacaroonError) {
    assert!(error.label().starts_with("macaroon_") && !error.rule().is_empty());
    assert!(matches!(
        error.culprit(),
        Culprit::Operator | Culprit::Signer
    ));
    assert!(error.retry() == Retry::Never && error.to_string().contains("macaroon"));
}

/// A macaroon that we baked is good exactly where its caveats say so, and is nothing after any change of a bit.
fn macaroon(feed: &mut Feed<'_>) {
    let (baked_of, shown_to) = (feed.u8() % 3, feed.u8() % 3);
    let op = if feed.flag() {
        Op::remote_signer()
    } else {
        Op::new("remotesigner", "read")
    };
    let may = op == Op::remote_signer();
    let mut baked = Macaroon::bake(&root(baked_of), [feed.u8(); 16], &[op]);
    let now = Duration::from_secs(u64::from(feed.u16()));
    let from = source(feed);
    let mut good = may && baked_of == shown_to;
    for number in 0..feed.below(40) {
        if number == MACAROON_CAVEATS {
            let more = Caveat::TimeBefore(Duration::ZERO);
            assert_eq!(baked.restrict(&more), Err(MacaroonError::TooLarge));
            break;
        }
        let caveat = if feed.flag() {
            Caveat::TimeBefore(Duration::from_secs(u64::from(feed.u16())))
        } else {
            Caveat::IpAddr(source(feed))
        };
        good &= match caveat {
            Caveat::TimeBefore(end) => now < end,
            Caveat::IpAddr(ip) => ip == from,
            _ => unreachable!("no such caveat was made"),
        };
        baked.restrict(&caveat).unwrap();
    }
    let occasion = Occasion {
        entity: "remotesigner",
        action: "generate",
        now,
        source: from,
    };
    let root = root(shown_to);
    let verdict = baked.verify(&root, &occasion);
    assert_eq!(verdict.is_ok(), good, "{verdict:?}");
    if let Err(error) = verdict {
        refused(&error);
    }
    let mut bytes = baked.to_bytes().to_vec();
    let at = usize::from(feed.u16()) % bytes.len();
    bytes[at] ^= 1 << (feed.u8() % 8);
    // The location, behind its number and its length, is a hint that nobody signs.
    let is_hint = (3..13).contains(&at);
    if let Ok(forged) = Macaroon::parse(&bytes) {
        let verdict = forged.verify(&root, &occasion);
        assert!(is_hint || verdict.is_err(), "a forged macaroon is taken");
        assert_eq!(verdict.is_ok(), is_hint && good);
    }
}

/// What is a condition of ours is written so that it reads the same; what is none is forbidden.
fn caveat(text: &[u8]) {
    /// 9999-12-31T23:59:59Z: what comes after cannot be written.
    const LAST: u64 = 253_402_300_799;
    let Some(caveat) = Caveat::parse(text) else {
        return;
    };
    let written = caveat.to_string();
    let again = Caveat::parse(written.as_bytes()).expect("written, it does not read");
    match (caveat, again) {
        (Caveat::TimeBefore(at), Caveat::TimeBefore(again)) => {
            assert_eq!(again.as_secs(), at.as_secs().min(LAST));
            assert_eq!(again.subsec_nanos(), at.subsec_nanos());
            assert!(text.starts_with(b"time-before "));
        }
        _ => assert_eq!(caveat, again),
    }
}

/// A certificate is what stands between two lines, and it is not printed.
fn pem(text: &[u8]) {
    match PinnedCertificate::from_pem(text) {
        Ok(pinned) => {
            assert!(text.windows(10).any(|window| window == b"-----BEGIN"));
            assert!(pinned == pinned.clone() && format!("{pinned:?}").len() < 40);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.rule().is_empty());
            assert_eq!(
                (error.culprit(), error.retry()),
                (Culprit::Operator, Retry::Never)
            );
        }
    }
}

/// Whatever the bytes: names that stand in them, and a time that can be.
fn certificate(der: &[u8]) {
    let (names, end) = read_certificate(der);
    let held: usize = names.iter().flatten().map(|name| name.len() / 8).sum();
    assert!(held <= der.len(), "more names than bytes");
    assert!(end.is_none_or(|end| end < Duration::from_secs(260_000_000_000)));
}

/// An element of DER, its length as X.690 has it.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        Ok(byte) => out.extend([0x81, byte]),
        Err(_) => {
            let [.., high, low] = length.to_be_bytes();
            out.extend([0x82, high, low]);
        }
    }
    out.extend(content);
    out
}

const SEQUENCE: u8 = 0x30;

/// A certificate whose names and end are the input's gives these.
fn certificate_of_ours(feed: &mut Feed<'_>) {
    let (mut names, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..feed.below(6) {
        match feed.below(4) {
            0 => {
                let address: [u8; 4] = std::array::from_fn(|_| feed.u8());
                names.extend(element(0x87, &address));
                expected.push(IpAddr::from(address).to_string());
            }
            1 => {
                let address: [u8; 16] = std::array::from_fn(|_| feed.u8());
                names.extend(element(0x87, &address));
                expected.push(IpAddr::from(address).to_string());
            }
            // A name of a kind that we do not have.
            2 => names.extend(element(0x81, feed.bytes())),
            _ => {
                let name = String::from_utf8_lossy(feed.bytes()).into_owned();
                names.extend(element(0x82, name.as_bytes()));
                expected.push(name);
            }
        }
    }
    let digits: String = (0..6).fold(String::new(), |digits, _| {
        digits + &format!("{:02}", feed.u8() % 100)
    });
    let (long, critical, versioned) = (feed.flag(), feed.flag(), feed.flag());
    let (tag, year, text) = if long {
        let year = format!("{}{}", 19 + feed.u8() % 3, &digits[..2]);
        (0x18, year.clone(), format!("{year}{}Z", &digits[2..]))
    } else {
        let century = if &digits[..2] < "50" { 20 } else { 19 };
        let year = format!("{century}{}", &digits[..2]);
        (0x17, year, format!("{digits}Z"))
    };
    let extension = [
        element(0x06, &[0x55, 0x1d, 0x11]),
        if critical { vec![1, 1, 0xff] } else { vec![] },
        element(0x04, &element(SEQUENCE, &names)),
    ];
    // Another extension stands before it.
    let extensions = [
        element(SEQUENCE, &element(0x06, &[0x55, 0x1d, 0x0f])),
        element(SEQUENCE, &extension.concat()),
    ];
    let time = element(tag, text.as_bytes());
    let fields = [
        if versioned {
            vec![0xa0, 3, 2, 1, 2]
        } else {
            vec![]
        },
        element(2, &[1]),
        element(SEQUENCE, b"algorithm"),
        element(SEQUENCE, b"issuer"),
        element(SEQUENCE, &[&time[..], &time].concat()),
        element(SEQUENCE, b"subject"),
        element(SEQUENCE, b"key"),
        element(0xa3, &element(SEQUENCE, &extensions.concat())),
    ];
    let der = element(SEQUENCE, &element(SEQUENCE, &fields.concat()));
    let rfc3339 = format!(
        "time-before {year}-{}-{}T{}:{}:{}Z",
        &digits[2..4],
        &digits[4..6],
        &digits[6..8],
        &digits[8..10],
        &digits[10..]
    );
    let end = match Caveat::parse(rfc3339.as_bytes()) {
        Some(Caveat::TimeBefore(end)) => Some(end),
        _ => None,
    };
    assert_eq!(read_certificate(&der), (Some(expected), end));
}

/// What may stand in a certificate: an address, or a name without a port.
fn host(text: &str) {
    let checked = TlsIdentity::check_host(text);
    if text.parse::<IpAddr>().is_ok() {
        assert!(checked.is_ok(), "{text}");
    }
    if text.is_empty() || text.len() > 300 || text.contains([':', '/', ' ', '@']) {
        let refused = checked.is_err() || text.parse::<IpAddr>().is_ok();
        assert!(refused, "{text} is a host");
    }
}

/// A text is a key, or an error that says what is wrong with it and never what it says.
fn key_file(text: &[u8]) {
    let line = text.split_inclusive(|byte| *byte == b'\n').next();
    let line = line.unwrap_or_default();
    let digits = line.strip_suffix(b"\n").unwrap_or(line);
    let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
    let hex = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let expected = hex.and_then(|hex| {
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).unwrap();
            *byte = u8::from_str_radix(pair, 16).unwrap();
        }
        LocalKey::from_bytes(&mut bytes).ok()
    });
    match EmbeddedSigner::from_stream(text, "a stream") {
        Ok(signer) => {
            let expected = expected.expect("a key of no text");
            assert_eq!(signer.node_id(), expected.node_id());
            assert!(format!("{signer:?}").contains(&signer.node_id().to_string()));
            assert_eq!(signer.into_key().node_id(), expected.node_id());
        }
        Err(error) => {
            assert!(expected.is_none(), "{error}");
            let not_a_key = matches!(
                error,
                KeyFileError::Zero { .. } | KeyFileError::OutOfRange { .. }
            );
            assert_eq!(not_a_key, hex.is_some());
            assert!(!error.rule().is_empty() && error.to_string().contains("a stream"));
            let told = (error.culprit(), error.retry());
            assert_eq!(told, (Culprit::Operator, Retry::Never));
        }
    }
}
