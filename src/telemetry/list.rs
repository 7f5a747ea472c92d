//! The metrics of design.md § 6: every one that there is, with its kind, its unit, its labels and what it says. README's tables, the
//! recorder's buckets and the tests of the dashboards are made from these lists.

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from zero at the start.
    Counter,
    /// Up and down.
    Gauge,
    /// Many values, gathered in buckets.
    Histogram,
}

impl Kind {
    /// The word of the Prometheus text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things, or 0 and 1.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    pub(super) fn facade(self) -> metrics::Unit {
        match self {
            Self::Count => metrics::Unit::Count,
            Self::Seconds => metrics::Unit::Seconds,
            Self::Bytes => metrics::Unit::Bytes,
        }
    }
}

/// One row of [`METRICS`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// Whether it is there from the start, with zeroes, once `describe` and `publish` have been called. The others have too many
    /// combinations of labels and appear when they first happen.
    pub from_start: bool,
    /// For a histogram: the upper bounds of its buckets, which whoever installs the recorder sets.
    pub buckets: &'static [f64],
}

const fn counter_row(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    let (kind, unit) = (Kind::Counter, Unit::Count);
    Metric {
        name,
        kind,
        unit,
        labels,
        help,
        from_start: true,
        buckets: &[],
    }
}

const fn gauge_row(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    let (kind, unit) = (Kind::Gauge, Unit::Count);
    Metric {
        name,
        kind,
        unit,
        labels,
        help,
        from_start: true,
        buckets: &[],
    }
}

const fn seconds_row(name: &'static str, buckets: &'static [f64], help: &'static str) -> Metric {
    let (kind, unit) = (Kind::Histogram, Unit::Seconds);
    Metric {
        name,
        kind,
        unit,
        labels: &[],
        help,
        from_start: true,
        buckets,
    }
}

const fn later(row: Metric) -> Metric {
    Metric {
        from_start: false,
        ..row
    }
}

const fn in_unit(unit: Unit, row: Metric) -> Metric {
    Metric { unit, ..row }
}

/// 1 µs to 10 ms: a fence is microseconds when its threads run, a scheduler's slice when one does not.
const FENCE: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2,
];
/// 1 ms to 5 s: 10,000 links take about a tenth of a second.
const TEARDOWN: &[f64] = &[
    1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// 10 ms to 5 min: from a few peers nearby to a thousand, some of which do not answer.
const RELIGHT: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];
/// 1 ms to 15 s: from loopback to three acts that each just make their deadline.
const HANDSHAKE: &[f64] = &[
    1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0,
];
/// 25 µs to 5 s: from a key in this process to an act's deadline.
const ECDH: &[f64] = &[
    2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// 100 µs to the pong's deadline.
const PONG: &[f64] = &[
    1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Every metric, in the order of the README's table.
pub const METRICS: &[Metric] = &[
    gauge_row(
        "pilotlight_mode",
        &["mode"],
        "1 for the mode that the node is in, 0 for the others.",
    ),
    gauge_row(
        "pilotlight_signer_attached",
        &[],
        "1 while a signer session is live.",
    ),
    gauge_row(
        "pilotlight_signer_epoch",
        &[],
        "Number of the newest signer session, live or not; 0 before the first.",
    ),
    counter_row(
        "pilotlight_signer_lapses_total",
        &["reason"],
        "Signer sessions that have ended, by why.",
    ),
    in_unit(
        Unit::Seconds,
        counter_row(
            "pilotlight_signer_away_seconds_total",
            &[],
            "Seconds without a live signer session, the present absence included.",
        ),
    ),
    gauge_row(
        "pilotlight_links",
        &["tag", "direction", "identity"],
        "Live links.",
    ),
    gauge_row(
        "pilotlight_peers",
        &["tag", "state"],
        "Peers that the node knows, by where they stand.",
    ),
    counter_row(
        "pilotlight_peers_dropped_total",
        &["tag", "reason"],
        "Links torn down by a lapse, by their peer's tag and the lapse's reason.",
    ),
    counter_row(
        "pilotlight_peers_retained_total",
        &[],
        "Links that lived on through a lapse, added up over all lapses.",
    ),
    later(counter_row(
        "pilotlight_links_closed_total",
        &["tag", "reason"],
        "Links that have ended, lapses included.",
    )),
    seconds_row(
        "pilotlight_fence_duration_seconds",
        FENCE,
        "From the call for a lapse until no leased write or delivery runs.",
    ),
    seconds_row(
        "pilotlight_teardown_duration_seconds",
        TEARDOWN,
        "From the call for a lapse until the last reset.",
    ),
    seconds_row(
        "pilotlight_relight_duration_seconds",
        RELIGHT,
        "From attach until every channel peer that accepted a connection is up.",
    ),
    counter_row(
        "pilotlight_frames_total",
        &["direction", "plane"],
        "Messages, by what they are about.",
    ),
    in_unit(
        Unit::Bytes,
        counter_row(
            "pilotlight_frame_bytes_total",
            &["direction"],
            "Bytes of plaintext in messages.",
        ),
    ),
    later(counter_row(
        "pilotlight_messages_refused_total",
        &["type", "action"],
        "Messages refused by the firewall or the fence, by type and by what was done.",
    )),
    counter_row(
        "pilotlight_mistags_suspected_total",
        &[],
        "Times a gossip-only peer sent channel_reestablish while no signer was there.",
    ),
    counter_row(
        "pilotlight_key_rotations_total",
        &["direction"],
        "Rotations of session keys.",
    ),
    later(counter_row(
        "pilotlight_handshakes_total",
        &["direction", "identity", "result"],
        "Handshakes, by how they ended.",
    )),
    seconds_row(
        "pilotlight_handshake_duration_seconds",
        HANDSHAKE,
        "From the TCP connection until the handshake ended, well or badly.",
    ),
    later(counter_row(
        "pilotlight_ecdh_requests_total",
        &["source", "result"],
        "ECDHs asked of the signer, by who dialled and how it ended.",
    )),
    counter_row(
        "pilotlight_ecdh_throttled_total",
        &["scope"],
        "ECDHs refused before the signer was asked, by the bound that was met.",
    ),
    gauge_row(
        "pilotlight_signer_stalled",
        &[],
        "1 while a request heads the signer's queue for too long though its connection is alive.",
    ),
    later(counter_row(
        "pilotlight_signers_refused_total",
        &["reason"],
        "Connections to the gateway that were turned away, by why.",
    )),
    later(counter_row(
        "pilotlight_signer_oddities_total",
        &["kind"],
        "Messages of the signer's that fitted no request and were ignored.",
    )),
    gauge_row(
        "pilotlight_ecdh_in_flight",
        &[],
        "ECDHs that handshakes wait for, those in the signer's queue included.",
    ),
    seconds_row(
        "pilotlight_ecdh_duration_seconds",
        ECDH,
        "How long the signer took for an ECDH, or until it was given up.",
    ),
    later(in_unit(
        Unit::Seconds,
        gauge_row(
            "pilotlight_signer_certificate_expiry_timestamp_seconds",
            &[],
            "When the certificate ends that a signer dials in by, in Unix time; only where one dials in.",
        ),
    )),
    gauge_row(
        "pilotlight_vault_sessions",
        &["tag"],
        "Live links' session secrets in the vault.",
    ),
    in_unit(
        Unit::Seconds,
        gauge_row(
            "pilotlight_vault_oldest_session_seconds",
            &[],
            "Age of the oldest of them; 0 when there is none.",
        ),
    ),
    later(counter_row(
        "pilotlight_redials_total",
        &["identity", "result"],
        "Dials, first ones included: ok, or why there is no link.",
    )),
    later(counter_row(
        "pilotlight_inbound_failed_total",
        &["reason"],
        "Inbound connections that did not become links, by why; those that were turned away unread among them.",
    )),
    gauge_row(
        "pilotlight_bans",
        &[],
        "Addresses and nodes that are banned for a time.",
    ),
    later(counter_row(
        "pilotlight_bans_total",
        &["scope", "offence"],
        "Bans that have begun, by what is banned and by what was done last.",
    )),
    gauge_row(
        "pilotlight_parked_handshakes",
        &[],
        "Inbound sockets that wait for a signer, or for their turn at one that has returned.",
    ),
    seconds_row(
        "pilotlight_pong_rtt_seconds",
        PONG,
        "From a ping to its pong.",
    ),
    gauge_row(
        "pilotlight_gossip_floor_missing",
        &[],
        "While no signer is there: live gossip links that are missing of the gossip floor.",
    ),
    in_unit(
        Unit::Seconds,
        gauge_row(
            "pilotlight_gossip_last_message_timestamp_seconds",
            &[],
            "When an announcement of a node or channel last came, in Unix time; 0 when none has.",
        ),
    ),
    counter_row(
        "pilotlight_book_errors_total",
        &[],
        "Times that a peer was not written to the peer book.",
    ),
    gauge_row(
        "pilotlight_inbox_stalled",
        &[],
        "1 from when a link has waited for too long for the node to receive until the node receives again.",
    ),
    counter_row(
        "pilotlight_events_missed_total",
        &[],
        "Events that slow readers of the event stream have missed.",
    ),
    later(gauge_row(
        "pilotlight_htlc_deadline_blocks_min",
        &[],
        "Blocks up to the first expiry of a pending HTLC; below 0 once it has expired, NaN while none is pending. There once the node has said its height.",
    )),
    later(in_unit(
        Unit::Seconds,
        gauge_row(
            "pilotlight_own_update_age_seconds",
            &[],
            "Age of the node's own newest channel update. There once the node has said when that was signed.",
        ),
    )),
    gauge_row(
        "pilotlight_build_info",
        &["version", "commit"],
        "1, with the build in its labels.",
    ),
];

/// What `/metrics` also says of each peer with `metrics.per_peer`, written from the supervisor's own list: a series ends with what it
/// tells of, which the facade has no way to do. At most [`PER_PEER_MAX`](crate::limits::PER_PEER_MAX) peers, those with links first.
pub const PEER_METRICS: &[Metric] = &[
    later(gauge_row(
        "pilotlight_peer_up",
        &["node_id", "tag"],
        "1 while a link with the peer is up.",
    )),
    later(gauge_row(
        "pilotlight_peer_state",
        &["node_id", "state"],
        "1, with where the peer stands in its label.",
    )),
    later(gauge_row(
        "pilotlight_peer_identity",
        &["node_id", "identity"],
        "1, with the key in its label that the peer's link was made with; none without a link.",
    )),
    later(counter_row(
        "pilotlight_peer_frames_total",
        &["node_id", "direction"],
        "Messages on the peer's link; from zero on with each new link.",
    )),
    later(in_unit(
        Unit::Seconds,
        gauge_row(
            "pilotlight_peer_last_gossip_timestamp_seconds",
            &["node_id"],
            "When an announcement last came on the peer's link, in Unix time; none while none has.",
        ),
    )),
];

/// What `/metrics` says of the process, under the names that Prometheus's own clients give it. All but the start only on Linux.
pub const PROCESS_METRICS: &[Metric] = &[
    in_unit(
        Unit::Seconds,
        counter_row(
            "process_cpu_seconds_total",
            &[],
            "Time on a processor, the kernel's on its behalf included.",
        ),
    ),
    in_unit(
        Unit::Bytes,
        gauge_row(
            "process_resident_memory_bytes",
            &[],
            "Memory of the process that is in RAM.",
        ),
    ),
    in_unit(
        Unit::Bytes,
        gauge_row(
            "process_virtual_memory_bytes",
            &[],
            "Addresses that the process has taken.",
        ),
    ),
    gauge_row(
        "process_open_fds",
        &[],
        "Open descriptors: each link takes one.",
    ),
    gauge_row(
        "process_max_fds",
        &[],
        "Descriptors that the process may have open.",
    ),
    gauge_row("process_threads", &[], "Threads of the process."),
    in_unit(
        Unit::Seconds,
        gauge_row(
            "process_start_time_seconds",
            &[],
            "When the daemon started, in Unix time.",
        ),
    ),
];

/// The values of `scope` in `ecdh_throttled_total`: the bounds that the gateway has.
pub(super) const ECDH_BOUNDS: [&str; 4] = ["source", "sources", "strangers", "queue"];

/// The reason for which a second signer is turned away while the first one answers.
pub(super) const CONFLICT: &str = "signer_conflict";

/// The reason for which who dials from an address that has used up its share of the signer's time is turned away unread.
pub(crate) const THROTTLED: &str = "ecdh_throttled";
