//! Lower-case hex of what may be a secret.
//!
//! It never leaves a copy behind: what it writes has its full size at once and is wiped, and what it reads goes where it belongs.
//! A digit is worked out by arithmetic, not by a table whose cache lines would tell.

#[cfg(any(feature = "admin", feature = "gateway"))]
use zeroize::Zeroizing;

/// The digits of some bytes, in their order.
pub(crate) fn digits(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.map(|nibble| match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    })
}

/// The value of one digit, in either case.
pub(crate) fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// All of them at once.
#[cfg(any(feature = "admin", feature = "gateway"))]
pub(crate) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().saturating_mul(2)));
    text.extend(digits(bytes).map(char::from));
    text
}

/// `None` for what is no hex, or not exactly as long as `to`.
#[cfg(feature = "gateway")]
pub(crate) fn decode_to(text: &[u8], to: &mut [u8]) -> Option<()> {
    if text.len() != to.len().checked_mul(2)? {
        return None;
    }
    for (byte, pair) in to.iter_mut().zip(text.chunks_exact(2)) {
        for digit in pair {
            *byte = *byte << 4 | value(*digit)?;
        }
    }
    Some(())
}

#[cfg(all(test, feature = "gateway"))]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back_and_nothing_else_is_read() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = encode(&bytes);
        assert_eq!(text.get(..8), Some("00010203"));
        let mut back = vec![0; 256];
        assert_eq!(
            decode_to(text.to_uppercase().as_bytes(), &mut back),
            Some(())
        );
        assert_eq!(back, bytes);
        for wrong in ["", "0", "000", "0g", "+1", "é"] {
            assert_eq!(decode_to(wrong.as_bytes(), &mut [0]), None, "{wrong}");
        }
    }
}
