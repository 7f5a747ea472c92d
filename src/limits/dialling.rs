//! Of those whom we dial: the roster's size, addresses and names, dials under way, waits.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// Peers in the roster. The public graph has 17,000 nodes; ten times as many still fit in 100 MB.
pub const PEERS_MAX: usize = 200_000;

/// Addresses kept for one peer, at most 32. Nodes announce one to four.
pub const ADDRESSES_MAX: usize = 8;

/// Longest text that is looked at as an address: a DNS name has at most 255 bytes, and a port follows.
pub const ADDRESS_TEXT_MAX: usize = 262;

/// Lookups of names by the system at once. Each keeps a thread, for up to a minute where DNS is broken, and cannot be given up: a quarter
/// of those that tokio has for such calls leaves the others to files.
pub const LOOKUPS: usize = 128;

/// Answers of one lookup that are tried. A node has an address for each version of IP, some have two.
pub const RESOLVED_MAX: usize = 4;

/// How long the looking up of a peer's name may take, at each dial. A resolver that works answers in a fraction of a second; one that has
/// lost its upstream would have the dial wait for half a minute.
pub const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);

/// How long the connecting to a name's answers may take in all: two that keep silent, and a third that answers in time.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(25);

/// How long a proxy may take for a connection. Tor looks for an onion service for up to two minutes; one that is up is found in ten seconds, in
/// thirty when a circuit fails.
pub const PROXY_DEADLINE: Duration = Duration::from_secs(60);

/// Dials under way at once. Each is a socket and a task. Half of the 1,024 descriptors that a process is given where nobody has
/// asked for more; a relight of 1,000 peers takes two rounds, and a place is free again as soon as a link is up.
pub const DIALS_IN_FLIGHT: usize = 512;

/// First wait after a failed dial.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// Longest wait after failed dials. A peer that has been away for a day is found within the hour.
pub const BACKOFF_MAX: Duration = Duration::from_secs(3600);

/// Longest wait after failed dials that the peer is not to blame for: the signer refused its ECDH or was late, or we had no descriptor. A
/// thousand peers then cost some forty connections a second, and a signer that is put right is noticed within a fraction of one.
pub const OUR_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Such failures in a row, without a success between, after which the first success ends the waits of all who failed so. Fewer
/// say little of the others: a signer that refuses every other request makes two in a row.
pub const OUR_FAILURES: u32 = 16;

/// The wait of channel peers after the return of a signer that has lapsed twice of late; it doubles with each further lapse.
pub const HOLD_DOWN_FIRST: Duration = Duration::from_secs(1);

/// Longest such wait. A relight of a thousand peers takes some seconds: a signer that comes and goes more often than this would
/// spend all its time on handshakes.
pub const HOLD_DOWN_MAX: Duration = Duration::from_secs(60);

/// Longest rest of a hold-down for which the link of a channel peer that dialled us waits, its handshake done. A peer gives our
/// `init` at least [`INIT_DEADLINE`](super::INIT_DEADLINE); beyond this it is turned away before `init`, and dialled when the hold-down is over.
pub const HELD_DOWN_INBOUND: Duration = Duration::from_secs(4);

/// A link that has lived this long clears its peer's backoff; so much time without a lapse of the signer's clears the hold-down.
pub const STABLE_AFTER: Duration = Duration::from_secs(600);

/// Shortest `vault.max_session_age` of the daemon: that of a link that counts as stable, or backoffs would never be cleared.
pub const SESSION_AGE_MIN: Duration = STABLE_AFTER;
