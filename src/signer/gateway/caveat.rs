//! First-party caveats: the conditions in a macaroon that narrow what it permits.
//!
//! For: `time-before` and `ipaddr`, with the text that lnd and its bakery write. A condition that is not understood is not met:
//! whoever added it meant to forbid something. It never asks for the time; it is told.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A condition that this crate can add and check.
///
/// ```
/// use pilotlight::signer::gateway::Caveat;
/// use std::time::Duration;
///
/// let caveat = Caveat::TimeBefore(Duration::from_secs(1_900_000_000));
/// assert_eq!(caveat.to_string(), "time-before 2030-03-17T17:46:40Z");
/// assert_eq!(Caveat::parse(caveat.to_string().as_bytes()), Some(caveat));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Caveat {
    /// Good until this moment, not at it; time since the Unix epoch, printed in whole seconds or in nanoseconds.
    TimeBefore(Duration),
    /// Good from this address only. An IPv4 address written as IPv6 is the same address.
    IpAddr(IpAddr),
}

impl Caveat {
    /// Reads a condition. `None`: it is none of ours, or not written as it should be.
    pub fn parse(condition: &[u8]) -> Option<Self> {
        let (name, value) = std::str::from_utf8(condition).ok()?.split_once(' ')?;
        match name {
            "time-before" => parse_rfc3339(value).map(Self::TimeBefore),
            "ipaddr" => value
                .parse()
                .ok()
                .map(|ip: IpAddr| Self::IpAddr(ip.to_canonical())),
            _ => None,
        }
    }
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeBefore(at) => {
                f.write_str("time-before ")?;
                write_rfc3339(f, *at)
            }
            Self::IpAddr(ip) => write!(f, "ipaddr {}", ip.to_canonical()),
        }
    }
}

const DAY: u64 = 86_400;

/// RFC 3339 § 5.6, in UTC. Years beyond 9999 cannot be written and become the last second of 9999.
fn write_rfc3339(f: &mut fmt::Formatter<'_>, at: Duration) -> fmt::Result {
    /// 9999-12-31T23:59:59Z.
    const LAST: u64 = 253_402_300_799;
    let seconds = at.as_secs().min(LAST);
    let (year, month, day) = civil(seconds / DAY);
    let of_day = seconds % DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    write!(
        f,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    )?;
    if at.subsec_nanos() != 0 {
        write!(f, ".{:09}", at.subsec_nanos())?;
    }
    f.write_str("Z")
}

/// The date that lies this many days after 1970-01-01, in the Gregorian calendar: years are counted from March, so that the
/// leap day is a year's last, in eras of 400 years (146,097 days).
fn civil(days: u64) -> (u64, u64, u64) {
    // 719,468 days from 0000-03-01 to 1970-01-01. `days` is at most 2^64 / 86,400: no overflow.
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Days from 1970-01-01 to a date, negative before it. The inverse of [`civil`]; the date is checked by the caller.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Exactly `width` decimal digits at the front, and what follows them.
fn digits(text: &str, width: usize) -> Option<(i64, &str)> {
    let (number, rest) = text.split_at_checked(width)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

/// Time since the Unix epoch; a moment before it is the epoch itself, which is past too. A leap second (`:60`) is refused, as
/// Go's `time` does.
pub(super) fn parse_rfc3339(text: &str) -> Option<Duration> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (hour, rest) = digits(rest.strip_prefix('T')?, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let (nanos, rest) = fraction(rest)?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
        - offset(rest)?;
    Some(u64::try_from(seconds).map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanos)))
}

/// An optional fraction of a second, in nanoseconds; digits beyond the ninth are cut off.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let Some(text) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(end)?;
    if number.is_empty() {
        return None;
    }
    let nanos = number
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |nanos, byte| nanos * 10 + u32::from(byte - b'0'));
    Some((nanos, rest))
}

/// `Z`, or how many seconds local time is ahead of UTC.
fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, text) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let (hours, rest) = digits(text, 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(':')?, 2)?;
    (hours < 24 && minutes < 60 && rest.is_empty()).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> Option<Duration> {
        match Caveat::parse(format!("time-before {text}").as_bytes()) {
            Some(Caveat::TimeBefore(at)) => Some(at),
            _ => None,
        }
    }

    #[test]
    fn times_are_read_as_go_writes_them() {
        assert_eq!(time("1970-01-01T00:00:00Z"), Some(Duration::ZERO));
        assert_eq!(
            time("2000-02-29T12:00:01.5Z"),
            Some(Duration::new(951_825_601, 500_000_000))
        );
        assert_eq!(
            time("2026-11-22T13:30:00+01:30"),
            time("2026-11-22T12:00:00Z")
        );
        assert_eq!(
            time("2026-11-22T06:30:00-05:30"),
            time("2026-11-22T12:00:00Z")
        );
        assert_eq!(
            time("2030-01-01T00:00:00.123456789Z").map(|at| at.subsec_nanos()),
            Some(123_456_789)
        );
        assert_eq!(time("1969-12-31T23:59:59Z"), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_no_time_is_no_caveat() {
        for wrong in [
            "",
            "2026",
            "2026-11-22",
            "2026-11-22T12:00:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T12:60:00Z",
            "2026-11-22T12:00:60Z",
            "2026-11-22T12:00:00.Z",
            "2026-11-22T12:00:00z",
            "2026-11-22 12:00:00Z",
            "2026-11-22T12:00:00+1:00",
            "2026-11-22T12:00:00Z ",
            "+026-11-22T12:00:00Z",
            "２026-11-22T12:00:00Z",
        ] {
            assert_eq!(time(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_address_is_an_address_however_it_is_written() {
        let v4 = Caveat::parse(b"ipaddr 192.0.2.7");
        assert_eq!(v4, Some(Caveat::IpAddr([192, 0, 2, 7].into())));
        assert_eq!(Caveat::parse(b"ipaddr ::ffff:192.0.2.7"), v4);
        assert_eq!(Caveat::parse(b"ipaddr 192.0.2"), None);
        assert_eq!(Caveat::parse(b"iprange 192.0.2.0/24"), None);
        assert_eq!(Caveat::parse(b"ipaddr"), None);
        assert_eq!(Caveat::parse(b"\xff"), None);
    }

    proptest! {
        #[test]
        fn a_time_reads_as_it_was_written(seconds in 0_u64..=253_402_300_799, nanos in 0_u32..1_000_000_000) {
            let caveat = Caveat::TimeBefore(Duration::new(seconds, nanos));
            prop_assert_eq!(Caveat::parse(caveat.to_string().as_bytes()), Some(caveat));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in "time-before [0-9TZ:.+-]{0,40}") {
            let _ = Caveat::parse(&bytes);
            let _ = Caveat::parse(text.as_bytes());
        }
    }
}
