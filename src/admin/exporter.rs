//! The Prometheus recorder of the daemon. An embedder installs its own recorder instead and needs nothing of this.

use super::error::AdminError;
use super::{exposition, process};
use crate::supervisor::Supervisor;
use crate::telemetry::{Kind, METRICS, describe, publish, publish_certificate, publish_peers};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// What renders the metrics of this process.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    /// When it was installed, since the Unix epoch: for a daemon, its start.
    started: Duration,
    per_peer: bool,
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
        Ok(Self {
            handle,
            started: process::unix_now(),
            per_peer: false,
        })
    }

    /// Whether it also writes the [series of single peers](crate::telemetry::PEER_METRICS): six for each peer, for at most
    /// [`PER_PEER_MAX`](crate::limits::PER_PEER_MAX) of them.
    #[must_use]
    pub fn per_peer(mut self, wanted: bool) -> Self {
        self.per_peer = wanted;
        self
    }

    /// The metrics of this moment in Prometheus's text format. `certificate_expires`: when the certificate ends that the signer
    /// dials in by, since the Unix epoch; `None` if it does not dial in.
    pub async fn render(
        &self,
        supervisor: &Supervisor,
        certificate_expires: Option<Duration>,
    ) -> String {
        // After the stop there are no peers; the rest still stands.
        let peers = supervisor.peers().await.unwrap_or_default();
        publish(&supervisor.snapshot());
        publish_peers(&peers);
        if let Some(expires) = certificate_expires {
            publish_certificate(expires);
        }
        let mut text = self.handle.render();
        text.push_str(&exposition::process(&process::usage(self.started)));
        if self.per_peer {
            text.push_str(&exposition::peers(&peers));
        }
        text
    }

    /// Gathers what histograms have been given; to be called every few seconds, so that nothing piles up between scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}
