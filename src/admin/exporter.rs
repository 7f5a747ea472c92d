//! The Prometheus recorder of the daemon. An embedder installs its own recorder instead and needs nothing of this.

use super::error::AdminError;
use crate::supervisor::Supervisor;
use crate::telemetry::{Kind, METRICS, describe, publish};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// What renders the metrics of this process.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
}

impl Exporter {
    /// Becomes the process's recorder, with the buckets of [`METRICS`]. Before the supervisor starts: the counters of frames keep
    /// to the recorder that they find.
    ///
    /// # Errors
    /// The process has a recorder already.
    pub fn install() -> Result<Self, AdminError> {
        let mut builder = PrometheusBuilder::new();
        for metric in METRICS
            .iter()
            .filter(|metric| metric.kind == Kind::Histogram)
        {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.buckets)
                .map_err(|error| AdminError::Recorder(error.to_string()))?;
        }
        let handle = builder
            .install_recorder()
            .map_err(|error| AdminError::Recorder(error.to_string()))?;
        describe();
        Ok(Self { handle })
    }

    /// The metrics of this moment in Prometheus's text format.
    pub fn render(&self, supervisor: &Supervisor) -> String {
        publish(&supervisor.snapshot());
        self.handle.render()
    }

    /// Gathers what histograms have been given; to be called every few seconds, so that nothing piles up between scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}
