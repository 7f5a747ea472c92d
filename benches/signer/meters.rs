//! The crate's counters, as the metrics facade gives them to whoever installs a recorder: this one keeps counters only, so that its
//! own memory does not grow with what it counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};

/// Every counter by its name and labels.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Counts {
    /// Installs the recorder of this process.
    pub(crate) fn install() -> Self {
        let counts = Self::default();
        metrics::set_global_recorder(counts.clone()).unwrap();
        counts
    }

    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        let counters = self.0.lock().unwrap();
        let read = |(name, value): (&String, &Arc<AtomicU64>)| (name.clone(), value.load(SeqCst));
        counters.iter().map(read).collect()
    }

    /// Outbound handshakes that did not become links.
    pub(crate) fn failed_handshakes(&self) -> u64 {
        let failed = |name: &str| {
            name.starts_with("handshakes_total{")
                && name.contains("direction=outbound")
                && !name.contains("result=ok")
        };
        let all = self.all();
        all.iter()
            .filter(|(name, _)| failed(name))
            .map(|(_, value)| value)
            .sum()
    }

    /// Prints what a flood moves.
    pub(crate) fn print_since(&self, before: &BTreeMap<String, u64>) {
        const TOLD: [&str; 6] = [
            "handshakes_total{direction=inbound",
            "inbound",
            "ecdh_throttled_total",
            "ecdh_requests_total",
            "signer_lapses_total",
            "signers_refused_total",
        ];
        for (name, value) in self.all() {
            let moved = value - before.get(&name).copied().unwrap_or(0);
            if moved > 0 && TOLD.iter().any(|told| name.starts_with(told)) {
                println!("    {name} +{moved}");
            }
        }
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.all(), f)
    }
}

impl metrics::Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let name = key.name().trim_start_matches("pilotlight_");
        let name = format!("{name}{{{}}}", labels.join(","));
        let mut counters = self.0.lock().unwrap();
        Counter::from_arc(Arc::clone(counters.entry(name).or_default()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
