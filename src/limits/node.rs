//! Of what the node and its operator are told and asked: absences, events, commands, the end.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// Blocks up to the first expiry of a pending HTLC at which it is told that no signer is there, the widest first: a day, half a day, a
/// quarter. An HTLC must be failed or claimed on the chain some dozens of blocks before (LDK and lnd begin 18 and 10 blocks before), so at
/// the last mark there is a night left to bring the signer back.
pub const HTLC_MARKS: [u32; 3] = [144, 72, 36];

/// Default wait for the node's word before a planned absence of the signer: most HTLCs are settled within minutes.
pub const ABSENCE_WAIT: Duration = Duration::from_secs(600);

/// Longest such wait: a day, by when the operator's plan is another one.
pub const ABSENCE_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often what is pending is looked at meanwhile, for whoever has asked for the absence.
pub const ABSENCE_LOOK: Duration = Duration::from_secs(1);

/// Bytes of a node's reason to refuse a planned absence that are kept: a line of a log.
pub const ABSENCE_TEXT_MAX: usize = 256;

/// How far in the future the time of an own update may lie, clocks being what they are. Beyond it the number is in another unit.
pub const OWN_UPDATE_AHEAD: Duration = Duration::from_secs(2 * 3600);

/// Peers of which `/metrics` has series of their own, where that is asked for: six each, 30,000 in all, which one Prometheus takes from
/// some thirty nodes. Those with links come first.
pub const PER_PEER_MAX: usize = 5_000;

/// Events that a slow listener may fall behind before it is told how many it missed.
pub const EVENTS_BUFFER: usize = 4096;

/// Events of the node and its signer that are kept for listeners who come later: a hundred lapses and returns, at four to five events
/// each. 112 bytes each, and what they have in boxes.
pub const EVENTS_KEPT: usize = 512;

/// Events of peers that are kept likewise, apart from those, so that peers who come and go push out no lapse: a lapse and a return with a
/// thousand peers make some 4,000. Under 1 MiB, and what they have in boxes.
pub const PEER_EVENTS_KEPT: usize = 8192;

/// Requests that may wait for the supervisor's driver. A full queue makes callers wait, which is all a caller may do.
pub const COMMANDS: usize = 1024;

/// How long a drain may take before the links that are left are reset.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
