//! How the daemon's values look to a person: one line each, and nothing in it that a terminal would obey.

use serde_json::Value;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the signer is and whether it is attached, of `/v1/info`.
pub(super) fn signer_line(info: &Value) -> String {
    let flag = |path: &str| info.pointer(path).and_then(Value::as_bool) == Some(true);
    let attached = if flag("/signer/attached") {
        "attached"
    } else {
        "not attached"
    };
    let kind = text(info, "/signer/kind");
    if kind != "gateway" {
        return format!("{kind}, {attached}");
    }
    let from = match info.pointer("/signer/from") {
        Some(caller @ Value::Object(_)) => format!(
            " from {} ({}, macaroon {})",
            text(caller, "/addr"),
            text(caller, "/software"),
            text(caller, "/macaroon")
        ),
        _ => String::new(),
    };
    let behind = if flag("/signer/behind") {
        "; it is behind: new dials wait"
    } else {
        ""
    };
    format!(
        "dials in at {}, {attached}{from}{behind}",
        text(info, "/signer/listen")
    )
}

/// When an HTLC expires, of the blocks that are left: below 0 it has.
pub(super) fn expiry(left: i64) -> String {
    let blocks = left.unsigned_abs();
    let unit = if blocks == 1 { "block" } else { "blocks" };
    match left {
        1.. => format!("expires in {blocks} {unit}"),
        0 => "expires now".to_owned(),
        _ => format!("expired {blocks} {unit} ago"),
    }
}

/// What a lapse did.
pub(super) fn lapse_line(lapse: &Value) -> String {
    format!(
        "{}, fence {} µs, teardown {} ms, {} links dropped, {} retained",
        text(lapse, "/reason"),
        text(lapse, "/fence_us"),
        text(lapse, "/teardown_ms"),
        text(lapse, "/dropped"),
        text(lapse, "/retained")
    )
}

/// `12:34:56.789 link_up node_id=… tag=gossip-only`, in UTC.
pub(super) fn event_line(event: &Value) -> String {
    let at = event.get("at").and_then(Value::as_f64).unwrap_or_default();
    format!(
        "{} {}{}",
        clock(at),
        text(event, "/event"),
        event_fields(event)
    )
}

/// What an event says beside its name and time: ` node_id=… tag=gossip-only`.
pub(super) fn event_fields(event: &Value) -> String {
    let fields = event.as_object().into_iter().flatten();
    let fields =
        fields.filter(|(name, value)| !matches!(name.as_str(), "at" | "event") && !value.is_null());
    fields.fold(String::new(), |mut said, (name, value)| {
        // Writing to a string does not fail.
        let _ = write!(said, " {name}={}", quoted(value));
        said
    })
}

/// The time of day in UTC, to the millisecond.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "milliseconds of one day, at most 86,400,000"
)]
pub(super) fn clock(at: f64) -> String {
    const DAY: f64 = 86_400_000.0;
    let milliseconds = (at * 1000.0).round().rem_euclid(DAY) as u64;
    let seconds = milliseconds / 1000;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        milliseconds % 1000
    )
}

/// A value that stands among others: what has spaces is quoted, and so is what a terminal would obey.
fn quoted(value: &Value) -> String {
    match value {
        Value::String(text)
            if !text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) =>
        {
            text.clone()
        }
        other => harmless(&other.to_string()),
    }
}

/// A value without quotes, `-` for none.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => harmless(text),
        other => other.to_string(),
    }
}

/// Control characters as their escapes: JSON leaves those above 0x7e as they are.
fn harmless(text: &str) -> String {
    text.chars().fold(String::new(), |mut safe, letter| {
        if letter.is_control() {
            safe.extend(letter.escape_unicode());
        } else {
            safe.push(letter);
        }
        safe
    })
}

/// What is at that place, `-` if nothing is.
pub(super) fn text(value: &Value, path: &str) -> String {
    value.pointer(path).map_or_else(|| "-".to_owned(), word)
}

/// How long ago a time of the daemon's was: `12 s`, `3 min`, `5 h`, `2 d`.
pub(super) fn ago(value: &Value, path: &str) -> String {
    let then = value.pointer(path).and_then(Value::as_f64);
    then.map_or_else(|| "-".to_owned(), |then| age(unix_now() - then))
}

/// Unix seconds.
pub(super) fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// So many seconds: `12 s`, `3 min`, `5 h`, `2 d`.
pub(super) fn age(seconds: f64) -> String {
    let (span, unit) = in_units(seconds);
    let unit = if unit == "m" { "min" } else { unit };
    format!("{span:.0} {unit}")
}

/// The same in a narrow column: `12s`, `3m`, `5h`, `2d`.
pub(super) fn short_age(seconds: f64) -> String {
    let (span, unit) = in_units(seconds);
    format!("{span:.0}{unit}")
}

fn in_units(seconds: f64) -> (f64, &'static str) {
    match seconds.max(0.0) {
        short if short < 120.0 => (short, "s"),
        minutes if minutes < 7_200.0 => (minutes / 60.0, "m"),
        hours if hours < 172_800.0 => (hours / 3600.0, "h"),
        days => (days / 86_400.0, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_readable_line() {
        let event = json!({ "at": 86_400.0 + 3_723.25, "event": "link_up", "node_id": "02ab", "link": 3, "epoch": null });
        assert_eq!(
            event_line(&event),
            "01:02:03.250 link_up link=3 node_id=02ab"
        );
        let event = json!({
            "at": 0.0, "event": "signer_refused", "addr": "192.0.2.1:5", "reason": "macaroon_expired",
            "detail": "the macaroon has expired",
        });
        assert_eq!(
            event_line(&event),
            "00:00:00.000 signer_refused addr=192.0.2.1:5 detail=\"the macaroon has expired\" reason=macaroon_expired"
        );
    }

    #[test]
    fn an_htlc_that_has_expired_is_said_to_have() {
        for (left, said) in [
            (36, "expires in 36 blocks"),
            (1, "expires in 1 block"),
            (0, "expires now"),
            (-1, "expired 1 block ago"),
            (i64::MIN, "expired 9223372036854775808 blocks ago"),
        ] {
            assert_eq!(expiry(left), said);
        }
    }

    #[test]
    fn a_time_is_never_a_thousand_milliseconds() {
        assert_eq!(clock(86_399.999_6), "00:00:00.000");
        assert_eq!(clock(59.999_6), "00:01:00.000");
        assert_eq!(clock(1_767_225_600.123), "00:00:00.123");
    }

    #[test]
    fn what_a_peer_says_does_not_steer_the_terminal() {
        for text in ["\u{1b}[2J", "\u{9b}2J", "a b\u{9b}2J", "a\rb", "\u{7f}"] {
            let event = json!({ "at": 0.0, "event": text, "text": text });
            let line = event_line(&event);
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(line.contains("\\u"), "{line:?}");
        }
    }

    #[test]
    fn a_time_is_shown_as_an_age() {
        for (seconds, shown, short) in [
            (5.0, "5 s", "5s"),
            (600.0, "10 min", "10m"),
            (36_000.0, "10 h", "10h"),
            (864_000.0, "10 d", "10d"),
            (-50.0, "0 s", "0s"),
        ] {
            assert_eq!(
                ago(&json!({ "since": unix_now() - seconds }), "/since"),
                shown
            );
            assert_eq!(
                (age(seconds), short_age(seconds)),
                (shown.to_owned(), short.to_owned())
            );
        }
        assert_eq!(ago(&json!({}), "/since"), "-");
    }
}
