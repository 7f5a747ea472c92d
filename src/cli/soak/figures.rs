//! What the process used over the soak, and whether that stayed flat. Pure arithmetic on samples.

use serde_json::{Value, json};
use std::time::Duration;

/// Descriptors that a process may come to hold without losing any: a log, a resolver, an event queue.
const SPARE_DESCRIPTORS: f64 = 16.0;
/// Memory may grow by a twentieth of itself, or by this, over all that was measured: an allocator's ways.
const SPARE_SHARE: f64 = 0.05;
const SPARE_BYTES: f64 = 8.0 * 1024.0 * 1024.0;
/// Fewer samples after the warm-up say nothing of a slope.
const SAMPLES_MIN: usize = 4;

/// Taken once a round, at the same point of it: before the lapse, all links up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Since the beginning.
    pub(super) at: Duration,
    pub(super) resident_bytes: f64,
    pub(super) descriptors: f64,
}

/// What the samples after the warm-up say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trend {
    pub(super) samples: usize,
    /// From the first to the last of them.
    pub(super) span: Duration,
    /// The line of least squares through the resident memory, in bytes a second.
    pub(super) bytes_a_second: f64,
    pub(super) resident_bytes: f64,
    pub(super) descriptors: (f64, f64),
}

impl Trend {
    /// Of the samples from `warm_up` on; `None` if there are too few.
    pub(super) fn of(samples: &[Sample], warm_up: Duration) -> Option<Self> {
        let warm: Vec<_> = samples
            .iter()
            .filter(|sample| sample.at >= warm_up)
            .collect();
        let (first, last) = (warm.first()?, warm.last()?);
        if warm.len() < SAMPLES_MIN {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "a soak takes no 2⁵³ samples")]
        let count = warm.len() as f64;
        let mean =
            |of: &dyn Fn(&Sample) -> f64| warm.iter().map(|sample| of(sample)).sum::<f64>() / count;
        let time = |sample: &Sample| sample.at.as_secs_f64();
        let (middle, level) = (mean(&time), mean(&|sample| sample.resident_bytes));
        let spread = mean(&|sample| (time(sample) - middle).powi(2));
        let together = mean(&|sample| (time(sample) - middle) * (sample.resident_bytes - level));
        Some(Self {
            samples: warm.len(),
            span: last.at.saturating_sub(first.at),
            bytes_a_second: if spread > 0.0 { together / spread } else { 0.0 },
            resident_bytes: level,
            descriptors: (first.descriptors, last.descriptors),
        })
    }

    /// How much the line rises over the span, in bytes.
    fn growth(&self) -> f64 {
        self.bytes_a_second * self.span.as_secs_f64()
    }

    pub(super) fn memory_is_flat(&self) -> bool {
        self.growth() <= SPARE_BYTES.max(self.resident_bytes * SPARE_SHARE)
    }

    pub(super) fn descriptors_are_flat(&self) -> bool {
        self.descriptors.1 <= self.descriptors.0 + SPARE_DESCRIPTORS
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "samples": self.samples,
            "span_s": self.span.as_secs_f64(),
            "slope_bytes_per_hour": self.bytes_a_second * 3600.0,
            "growth_bytes": self.growth(),
            "resident_bytes": self.resident_bytes,
            "memory_flat": self.memory_is_flat(),
            "descriptors_first": self.descriptors.0,
            "descriptors_last": self.descriptors.1,
            "descriptors_flat": self.descriptors_are_flat(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn samples(bytes: impl Fn(f64) -> f64) -> Vec<Sample> {
        (0..10_u32)
            .map(|round| Sample {
                at: Duration::from_secs(30 * u64::from(round)),
                resident_bytes: bytes(f64::from(round)),
                descriptors: 3000.0,
            })
            .collect()
    }

    const MIB: f64 = 1024.0 * 1024.0;

    #[test]
    fn what_grows_during_the_warm_up_only_is_flat() {
        let warming = samples(|round| 100.0 * MIB + 50.0 * MIB * round.min(3.0));
        let trend = Trend::of(&warming, Duration::from_secs(90)).unwrap();
        assert_eq!((trend.samples, trend.span), (7, Duration::from_secs(180)));
        assert!(trend.bytes_a_second.abs() < 1.0);
        assert!(trend.memory_is_flat() && trend.descriptors_are_flat());
    }

    #[test]
    fn what_grows_steadily_is_not_flat_and_its_slope_is_right() {
        let growing = samples(|round| 100.0 * MIB + 3.0 * MIB * round);
        let trend = Trend::of(&growing, Duration::ZERO).unwrap();
        assert!((trend.bytes_a_second - MIB / 10.0).abs() < 1.0, "{trend:?}");
        assert!(!trend.memory_is_flat());
    }

    #[test]
    fn a_few_samples_say_nothing() {
        let few = samples(|_| MIB);
        assert_eq!(Trend::of(&few, Duration::from_secs(210)), None);
    }

    #[test]
    fn descriptors_that_leak_are_not_flat() {
        let mut leaking = samples(|_| MIB);
        for (lost, sample) in (0_u32..).zip(&mut leaking) {
            sample.descriptors += f64::from(lost) * 2.0;
        }
        assert!(
            !Trend::of(&leaking, Duration::ZERO)
                .unwrap()
                .descriptors_are_flat()
        );
    }
}
