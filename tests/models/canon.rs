//! One text for all states that differ only in what cannot matter: when they are, how links are numbered, in which order a hash table
//! lists its entries, and what the dice will show.
//!
//! It is made of the state's own `Debug` text, so that a field that is added to a machine is part of the state without being named
//! here. What is left out stands in `canonical`.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// The canonical form of `text`, a `Debug` text, at the moment `now`. `dropped` are fields that are left out.
pub fn canonical(text: &str, now: Duration, dropped: &[&str]) -> String {
    let sorted = Reader::new(text, dropped).value();
    let now = i128::try_from(now.as_nanos()).unwrap();
    let moments = replaced(&sorted, "Moment(", |inside| {
        format!("Moment({})", nanoseconds(inside) - now)
    });
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    replaced(&moments, "LinkId(", |inside| {
        let next = names.len();
        let name = *names.entry(inside.to_owned()).or_insert(next);
        format!("LinkId({name})")
    })
}

/// 128 bits of it. That two of some millions of states are taken for one is a matter of 2⁻⁸⁰.
pub fn fingerprint(canonical: &str) -> (u64, u64) {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, canonical).hash(&mut hasher);
        hasher.finish()
    };
    (half(1), half(2))
}

/// Every `open…)` replaced.
fn replaced(text: &str, open: &str, mut by: impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(open) {
        let (inside, tail) = after.split_once(')').unwrap();
        out.push_str(before);
        out.push_str(&by(inside));
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// What `Duration` prints, in nanoseconds.
fn nanoseconds(text: &str) -> i128 {
    let at = text
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .unwrap();
    let (number, unit) = text.split_at(at);
    let digits = match unit {
        "s" => 9,
        "ms" => 6,
        "µs" => 3,
        "ns" => 0,
        other => panic!("a duration in {other}"),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    format!("{whole}{fraction:0<digits$}").parse().unwrap()
}

/// Reads a `Debug` text, sorts what stands in braces, and leaves fields out.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    dropped: &'a [&'a str],
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, dropped: &'a [&'a str]) -> Self {
        Self {
            text,
            at: 0,
            dropped,
        }
    }

    /// Up to the comma or the bracket that ends it.
    fn value(&mut self) -> String {
        let mut out = String::new();
        while let Some(byte) = self.text.as_bytes().get(self.at).copied() {
            match byte {
                b',' | b')' | b']' | b'}' => break,
                b'(' | b'[' | b'{' => {
                    self.at += 1;
                    let mut items = self.items();
                    if byte == b'{' {
                        items.sort();
                    }
                    out.push(char::from(byte));
                    out.push_str(&items.join(","));
                    out.push(char::from(self.text.as_bytes()[self.at]));
                    self.at += 1;
                }
                _ => {
                    let start = self.at;
                    let plain = |c: char| !"(,)[]{}".contains(c);
                    let length = self.text[start..].find(|c| !plain(c));
                    self.at = length.map_or(self.text.len(), |length| start + length);
                    out.push_str(&self.text[start..self.at]);
                }
            }
        }
        out
    }

    fn items(&mut self) -> Vec<String> {
        let mut items = Vec::new();
        loop {
            let item = self.value();
            let item = item.trim();
            let name = item.split(':').next().unwrap_or_default();
            if !item.is_empty() && !self.dropped.contains(&name) {
                items.push(item.to_owned());
            }
            if self.text.as_bytes()[self.at] != b',' {
                return items;
            }
            self.at += 1;
        }
    }
}

#[test]
fn what_cannot_matter_is_the_same_and_what_can_is_not() {
    let text = |now: u64, link: u64, late: &str| {
        let at = pilotlight::clock::Moment::from_start(Duration::from_millis(now));
        format!(
            "State {{ random: Rng({now}), at: {at:?}, links: {{LinkId({link}): [2, 1], {late}}} }}"
        )
    };
    let of = |now, link, late| {
        canonical(
            &text(now, link, late),
            Duration::from_millis(now),
            &["random"],
        )
    };
    let one = of(5, 7, "B: 1, A: Some(3)");
    assert_eq!(one, of(1500, 9, "A: Some(3), B: 1"));
    assert_eq!(
        one,
        "State {at: Moment(0),links: {A: Some(3),B: 1,LinkId(0): [2,1]}}"
    );
    assert_ne!(one, of(5, 7, "B: 2, A: Some(3)"));
    let earlier = canonical(
        &text(5, 7, "B: 1, A: Some(3)"),
        Duration::from_millis(4),
        &["random"],
    );
    assert_ne!(one, earlier);
    assert_eq!(nanoseconds("1.000000007s"), 1_000_000_007);
    assert_eq!(nanoseconds("2.5ms"), 2_500_000);
}
