//! What a soak tells: a line a round, and a summary. With `--json` each is an object.

use super::figures::{Sample, Trend};
use super::node::Node;
use super::{Options, usage};
use crate::cli::output::{Output, Style};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// One round: with a signer, without, and its return.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    number: u64,
    at: Duration,
    pub(super) fence: Duration,
    pub(super) teardown: Duration,
    /// `None`: not in time.
    pub(super) relight: Option<Duration>,
    links: usize,
    messages: u64,
    resident_bytes: f64,
    descriptors: f64,
    breaches: u64,
}

/// All rounds.
#[derive(Default)]
pub(super) struct Summary {
    /// When all links were up for the first time.
    pub(super) began: Option<Instant>,
    samples: Vec<Sample>,
    rounds: u64,
    /// The longest of each.
    fence: Duration,
    teardown: Duration,
    relight: Duration,
    messages: (u64, u64),
    rotations: u64,
    missed: u64,
    broken: Vec<(&'static str, u64, String)>,
    trend: Option<Trend>,
    took: Duration,
}

impl Summary {
    pub(super) fn elapsed(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// Looks at what the process uses now.
    pub(super) fn sample(&mut self) {
        let now = usage(Duration::ZERO);
        let value = |metric| now.of(metric).unwrap_or_default();
        self.samples.push(Sample {
            at: self.elapsed(),
            resident_bytes: value("process_resident_memory_bytes"),
            descriptors: value("process_open_fds"),
        });
    }

    /// Adds up what is left to be added up.
    pub(super) fn close(&mut self, node: &Node, options: &Options) {
        self.messages = node.look(|links| (links.messages_in, links.messages_out));
        (_, self.rotations, self.missed) = node.told();
        self.broken = node.breaches.all();
        self.trend = Trend::of(&self.samples, options.warm_up());
        self.took = self.elapsed();
    }

    /// No promise was broken, and nothing grew. Too short a run says nothing of growth, which is then not held against it.
    pub(super) fn held(&self) -> bool {
        let flat = self
            .trend
            .is_none_or(|trend| trend.memory_is_flat() && trend.descriptors_are_flat());
        self.rounds > 0 && self.broken.is_empty() && self.missed == 0 && flat
    }

    fn json(&self, options: &Options) -> Value {
        let broken: Vec<_> = self
            .broken
            .iter()
            .map(|(promise, times, first)| json!({ "promise": promise, "times": times, "first": first }))
            .collect();
        json!({
            "event": "summary",
            "held": self.held(),
            "seed": options.seed,
            "peers": options.peers,
            "channel_peers": options.channels(),
            "took_s": self.took.as_secs_f64(),
            "rounds": self.rounds,
            "fence_us_max": micros(self.fence),
            "teardown_ms_max": millis(self.teardown),
            "relight_ms_max": millis(self.relight),
            "messages_in": self.messages.0,
            "messages_out": self.messages.1,
            "rotations": self.rotations,
            "events_missed": self.missed,
            "broken": broken,
            "usage": self.trend.map(|trend| trend.json()),
        })
    }
}

impl Round {
    pub(super) fn new(summary: &Summary) -> Self {
        let newest = summary.samples.last();
        Self {
            number: summary.rounds.saturating_add(1),
            at: summary.elapsed(),
            fence: Duration::ZERO,
            teardown: Duration::ZERO,
            relight: None,
            links: 0,
            messages: 0,
            resident_bytes: newest.map_or(0.0, |sample| sample.resident_bytes),
            descriptors: newest.map_or(0.0, |sample| sample.descriptors),
            breaches: 0,
        }
    }

    pub(super) fn close(&mut self, node: &Node, summary: &mut Summary) {
        let links = node.supervisor.snapshot().links;
        self.links = links.gossip_only + links.channel_bearing;
        self.messages = node.look(|links| links.messages_in.saturating_add(links.messages_out));
        self.breaches = node.breaches.count();
        summary.rounds = self.number;
        summary.fence = summary.fence.max(self.fence);
        summary.teardown = summary.teardown.max(self.teardown);
        summary.relight = summary.relight.max(self.relight.unwrap_or_default());
    }

    fn json(&self) -> Value {
        json!({
            "event": "round",
            "round": self.number,
            "at_s": self.at.as_secs_f64(),
            "links": self.links,
            "fence_us": micros(self.fence),
            "teardown_ms": millis(self.teardown),
            "relight_ms": self.relight.map(millis),
            "messages": self.messages,
            "resident_bytes": self.resident_bytes,
            "descriptors": self.descriptors,
            "breaches": self.breaches,
        })
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn begins(output: &Output, options: &Options) {
    let all = json!({
        "event": "begins", "seed": options.seed, "peers": options.peers, "channel_peers": options.channels(),
        "for_s": options.time.as_secs_f64(), "lapse_every_s": options.round.as_secs_f64(),
    });
    output.answer(&all, |_| {
        format!(
            "{} peers on loopback, {} of them with channels, for {:?}, a lapse every {:?} (seed {})",
            options.peers,
            options.channels(),
            options.time,
            options.round,
            options.seed
        )
    });
}

pub(super) fn round(output: &Output, round: &Round) {
    output.answer(&round.json(), |_| {
        let relight = round
            .relight
            .map_or("not".to_owned(), |took| format!("in {:.1} ms", millis(took)));
        format!(
            "round {:>4}  {:>7.1} s  fence {:.1} µs, teardown {:.1} ms, relit {relight}; {} links, {} messages, {:.1} MiB, {} descriptors, {} breaches",
            round.number,
            round.at.as_secs_f64(),
            micros(round.fence),
            millis(round.teardown),
            round.links,
            round.messages,
            round.resident_bytes / MIB,
            round.descriptors,
            round.breaches
        )
    });
}

pub(super) fn ends(output: &Output, options: &Options, summary: &Summary) {
    output.answer(&summary.json(options), |_| {
        let mut lines = vec![format!(
            "{} rounds in {:.0} s: {} messages to the node and {} from it, {} keys replaced",
            summary.rounds,
            summary.took.as_secs_f64(),
            summary.messages.0,
            summary.messages.1,
            summary.rotations
        )];
        lines.push(format!(
            "at the most: fence {:.1} µs, teardown {:.1} ms, relight {:.1} ms",
            micros(summary.fence),
            millis(summary.teardown),
            millis(summary.relight)
        ));
        lines.push(summary.trend.map_or(
            "memory and descriptors: too few rounds after the warm-up to tell".to_owned(),
            |trend| {
                format!(
                    "memory {:.1} MiB, slope {:+.2} MiB an hour over {:.0} s after the warm-up: {}; descriptors {} at first, {} at last: {}",
                    trend.resident_bytes / MIB,
                    trend.bytes_a_second * 3600.0 / MIB,
                    trend.span.as_secs_f64(),
                    flat(trend.memory_is_flat()),
                    trend.descriptors.0,
                    trend.descriptors.1,
                    flat(trend.descriptors_are_flat())
                )
            },
        ));
        if summary.missed > 0 {
            lines.push(format!("{} events were missed: ECDHs among them may not be counted", summary.missed));
        }
        for (promise, times, first) in &summary.broken {
            lines.push(output.styled(Style::Bad, &format!("{promise} broken {times} times, first: {first}")));
        }
        lines.push(if summary.held() {
            output.styled(Style::Good, "all promises held")
        } else {
            output.styled(Style::Bad, "not all held")
        });
        lines.join("\n")
    });
}

fn flat(is_flat: bool) -> &'static str {
    if is_flat { "flat" } else { "NOT flat" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            rounds: 1,
            ..Summary::default()
        }
    }

    #[test]
    fn a_breach_a_leak_a_missed_event_and_no_round_at_all_do_not_hold() {
        assert!(summary().held());
        assert!(!Summary::default().held(), "nothing was tried");
        let missed = Summary {
            missed: 1,
            ..summary()
        };
        let broken = Summary {
            broken: vec![("P1", 1, "how".to_owned())],
            ..summary()
        };
        let leaks = Trend {
            samples: 10,
            span: Duration::from_secs(3600),
            bytes_a_second: MIB,
            resident_bytes: 100.0 * MIB,
            descriptors: (60.0, 60.0),
        };
        let leaking = Summary {
            trend: Some(leaks),
            ..summary()
        };
        let steady = Trend {
            bytes_a_second: 0.0,
            ..leaks
        };
        let of_descriptors = Summary {
            trend: Some(Trend {
                descriptors: (60.0, 600.0),
                ..steady
            }),
            ..summary()
        };
        for bad in [missed, broken, leaking, of_descriptors] {
            assert!(!bad.held());
        }
    }
}
