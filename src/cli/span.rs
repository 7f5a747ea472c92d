//! A span of time as the command line has it: a whole number and a unit, such as `90d` or `500ms`.

use super::failure::Failure;
use std::time::Duration;

/// The units, and what each is in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Longest span that makes sense: a hundred years.
const LONGEST: Duration = Duration::from_secs(36_525 * 86_400);

/// Reads a span; `place` is where it stands, for the error.
pub(super) fn parse(text: &str, place: &str) -> Result<Duration, Failure> {
    let wrong = |what: &str| {
        let shown: String = text.chars().take(40).collect();
        Failure::usage(
            format!("malformed duration {shown:?}: {what}"),
            place,
            "write a whole number and a unit: 500ms, 3s, 5m, 12h or 90d",
        )
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let Some((_, milliseconds)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(wrong(if unit.is_empty() {
            "the unit is missing"
        } else {
            "the unit is unknown"
        }));
    };
    if number.is_empty() {
        return Err(wrong("the number is missing"));
    }
    let span = number.parse::<u64>().ok();
    let span = span.and_then(|number| number.checked_mul(*milliseconds));
    span.map(Duration::from_millis)
        .filter(|span| *span <= LONGEST)
        .ok_or_else(|| wrong("it is longer than a hundred years"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("500ms", 500),
            ("3s", 3_000),
            ("5m", 300_000),
            ("12h", 43_200_000),
            ("90d", 7_776_000_000),
        ] {
            assert_eq!(
                parse(text, "").unwrap(),
                Duration::from_millis(milliseconds)
            );
        }
    }

    #[test]
    fn an_error_says_which_part_is_wrong() {
        for (text, part) in [
            ("", "unit is missing"),
            ("3", "unit is missing"),
            ("s", "number is missing"),
            ("-3s", "unit is unknown"),
            ("1.5s", "unit is unknown"),
            ("3 s", "unit is unknown"),
            ("3weeks", "unit is unknown"),
            ("36526d", "a hundred years"),
            ("99999999999999999999d", "a hundred years"),
        ] {
            let failure = parse(text, "--expires").unwrap_err();
            assert!(failure.problem.what.contains(part), "{:?}", failure.problem);
            assert_eq!(failure.problem.place, "--expires");
        }
    }
}
