//! Lower-case hex of what may be a secret.
//!
//! It never leaves a copy behind: what it writes has its full size at once and is wiped, and what it reads goes where it belongs.

use zeroize::Zeroizing;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(super) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().saturating_mul(2)));
    for nibble in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        let digit = DIGITS.get(usize::from(nibble)).copied();
        text.push(char::from(digit.unwrap_or_default()));
    }
    text
}

/// Both cases are taken. `None` for what is no hex, or not exactly as long as `to`.
pub(super) fn decode_to(text: &[u8], to: &mut [u8]) -> Option<()> {
    if text.len() != to.len().checked_mul(2)? {
        return None;
    }
    for (byte, pair) in to.iter_mut().zip(text.chunks_exact(2)) {
        for digit in pair {
            let value = u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
            *byte = *byte << 4 | value;
        }
    }
    Some(())
}

#[cfg(test)]
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
