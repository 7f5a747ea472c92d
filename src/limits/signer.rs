//! Of the signer: who may be at the gateway's door, what it is asked for, and how long its answers may take.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// Signer's clients that are not attached: TLS handshakes, registrations and proofs under way at once. Each is a socket, a TLS
/// session and a task, some 60 KiB; a node has one signer and perhaps a spare, and both redial at most once a second.
pub const GATEWAY_NEWCOMERS: usize = 32;

/// Of those, kept free for sources from which a signer has attached before: strangers at the door must not keep out the signer that
/// returns. As many as one source may have.
pub const GATEWAY_NEWCOMERS_RESERVED: usize = GATEWAY_NEWCOMERS_PER_SOURCE;

/// Sources that are remembered as those of signers. A node has one signer and perhaps a spare, at addresses that change now and then.
pub const GATEWAY_KNOWN_SOURCES: usize = 16;

/// Of all newcomers, from one source: an IPv4 address or an IPv6 /64. A signer that redials after a cut has its old connection and the new one.
pub const GATEWAY_NEWCOMERS_PER_SOURCE: usize = 8;

/// Signer's clients that have shown a valid macaroon and are not attached: registrations, proofs, contests, and the ends of those that
/// failed. Only who holds a macaroon of the operator's gets in here; a node has one signer and perhaps a spare.
pub const GATEWAY_CALLERS: usize = 16;

/// Flow-control window of a signer's stream and of its connection: some 1,600 ECDH answers.
pub const GATEWAY_WINDOW: u32 = 64 * 1024;

/// Longest list of a signer's headers: a macaroon of the largest size in hex, and what gRPC adds.
pub const GATEWAY_HEADERS_MAX: u32 = 16 * 1024;

/// Bytes that HTTP/2 holds for a signer that does not read.
pub const GATEWAY_SEND_BUFFER: usize = 1 << 20;

/// Refusals at the signer's door that are told as events in a row, of those with a macaroon of ours and of all others each. Beyond it
/// they are only counted, so that strangers cannot push what matters out of the event stream.
pub const GATEWAY_REFUSAL_EVENTS: u32 = 64;

/// After that, one is told in this time.
pub const GATEWAY_REFUSAL_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for a newcomer's next step: its TLS handshake, its HTTP/2 preface, its call with a registration, its proof; and for the
/// last bytes of a stream that has ended. lnd's signer gives 5 s for the same.
pub const GATEWAY_STEP_DEADLINE: Duration = Duration::from_secs(5);

/// Longest request of the node's own that is passed to its signer. lnd's limit is 4 MiB; a PSBT with a hundred inputs is 100 KiB, the
/// rest is small.
pub const GATEWAY_MESSAGE_MAX: usize = 1 << 20;

/// Longest message that a signer may send: a signed PSBT is larger than the one that was to be signed, by some 110 bytes an input of
/// at least 70. The largest request can be answered.
pub const GATEWAY_ANSWER_MAX: usize = 3 * GATEWAY_MESSAGE_MAX;

/// Default of `signer.liveness_window`: a signer that shows no life for this long is gone. A third of it is two round trips of the
/// worst path there is (satellite, Tor), and 3 s is what a channel peer may wait for its HTLC to be failed without harm.
pub const LIVENESS_WINDOW: Duration = Duration::from_secs(3);

/// Shortest `signer.liveness_window`: below it a busy machine's scheduling looks like a dead signer.
pub const LIVENESS_WINDOW_MIN: Duration = Duration::from_secs(1);

/// Longest `signer.liveness_window` of the daemon. So long may channel links stay up after their signer has died: longer, and the
/// promise that a lapse fences them would be a matter of the configuration. Twenty times the default bears any pause that a signer
/// which is alive makes.
pub const LIVENESS_WINDOW_MAX: Duration = Duration::from_secs(60);

/// How long an ECDH may head the queue before the signer is said to be stalled. The slowest hardware signers take 1 s.
pub const SIGNER_STALLED_AFTER: Duration = Duration::from_secs(10);

/// The same for signing: a person may have to press a button.
pub const SIGNING_STALLED_AFTER: Duration = Duration::from_secs(120);

/// Longest wait for a signing request of the node's, over any number of signer sessions.
pub const SIGNING_DEADLINE: Duration = Duration::from_secs(180);

/// Requests of the node's own that its signer works on at once: each may be as large as a message may be, and a person may have to
/// press a button for each.
pub const SIGNING_IN_FLIGHT: usize = 16;

/// How long an incumbent signer has to answer when a newcomer has proved itself.
pub const CONTEST_DEADLINE: Duration = Duration::from_secs(2);

/// One take-over for each macaroon in this time: two signers that both believe to be the only one do not swap for ever.
pub const TAKE_OVER_INTERVAL: Duration = Duration::from_secs(60);

/// First time for which a macaroon and source is held off after a failed proof; doubled each time.
pub const HOLD_OFF_FIRST: Duration = Duration::from_secs(1);

/// Longest such time. lnd's signer waits as long between its attempts.
pub const HOLD_OFF_MAX: Duration = Duration::from_secs(60);

/// A macaroon and source that has not failed for this long is forgotten.
pub const HOLD_OFF_FORGET: Duration = Duration::from_secs(600);

/// Pairs of macaroon and source that are remembered as failed. Only holders of a valid macaroon get in here.
pub const HOLD_OFFS: usize = 1024;

/// Sources of strangers' handshakes that are told apart. 4,096 entries are 200 KiB.
pub const ECDH_SOURCES: usize = 4096;

/// Inbound handshakes that one source may begin in a row. A peer makes one; eight allow for several nodes behind one address.
pub const ECDH_SOURCE_BURST: u32 = 8;

/// After that, one is earned back in this time.
pub const ECDH_SOURCE_INTERVAL: Duration = Duration::from_secs(1);

/// The same for all sources together that are too many to be told apart.
pub const ECDH_OVERFLOW_BURST: u32 = 64;

/// After that, they earn one back in this time: twenty a second, what the slowest signers bear beside the node's own.
pub const ECDH_OVERFLOW_INTERVAL: Duration = Duration::from_millis(50);

/// ECDH requests in flight before the signer's speed is known. Over 50 ms to a signer of 0.2 ms, a round trip holds 250.
pub const ECDH_IN_FLIGHT_FIRST: usize = 256;

/// Fewest ECDH requests in flight: below it a single slow answer stalls everything.
pub const ECDH_IN_FLIGHT_MIN: usize = 4;

/// Most ECDH requests in flight: 80 bytes each on the wire, and 200 ms × 5,000/s.
pub const ECDH_IN_FLIGHT_MAX: usize = 1024;

/// Longest time that queued ECDH may keep the signer busy before new dials and strangers wait: less than half of the 5 s that an
/// act may take.
pub const ECDH_BACKLOG: Duration = Duration::from_secs(2);

/// Requests that may wait for the signer, of all kinds. Four rounds of [`DIALS_IN_FLIGHT`](super::DIALS_IN_FLIGHT); a waiting request is 200 bytes and
/// its handshake's.
pub const SIGNER_QUEUE: usize = 2048;

/// Of those, strangers'.
pub const SIGNER_QUEUE_STRANGERS: usize = 256;

/// A request that nobody waits for any more keeps its place in flight for this long: the signer may still be working on it.
pub const SIGNER_ABANDON_AFTER: Duration = Duration::from_secs(60);

/// The same for signing.
pub const SIGNING_ABANDON_AFTER: Duration = Duration::from_secs(600);

/// Requests that were given up and are still known, so that an answer to one is late and not a sign of a broken protocol: a signer
/// that is behind for a quarter of an hour, with [`ECDH_IN_FLIGHT_FIRST`] given up a minute. 40 bytes each.
pub const SIGNER_ABANDONED: usize = 4096;

/// Bytes of the node's own requests that its signer's connection has not taken yet: as many as may be in flight, in full size.
pub const SIGNING_UNSENT: usize = SIGNING_IN_FLIGHT * GATEWAY_MESSAGE_MAX;

/// Answers to nothing, or of the wrong type, before a signer is said to have broken its protocol. A correct one sends none; one
/// that answers twice is forgiven for a while.
pub const SIGNER_ODDITIES_MAX: u32 = 1000;

/// One of those is forgiven in this time: a duplicate now and then does not end a session of months, and an event a minute floods
/// no log.
pub const SIGNER_ODDITY_INTERVAL: Duration = Duration::from_secs(60);

/// Requests that are on their way to the signer and that its connection has not taken yet: as many as may be in flight, and pings.
pub const SIGNER_OUTGOING: usize = 2 * ECDH_IN_FLIGHT_MAX;

/// Characters of a signer's error that are kept: a few lines of a log.
pub const SIGNER_TEXT_MAX: usize = 512;

/// Longest macaroon, in bytes. lnd's own, with every permission that it knows, takes some 300; a few caveats are 40 each.
pub const MACAROON_MAX: usize = 4096;

/// Most caveats in a macaroon: each costs a hash, and one of each kind is all that makes sense.
pub const MACAROON_CAVEATS: usize = 32;

/// Longest file that may hold a certificate, a key or a macaroon: a certificate with a hundred names is still shorter.
pub const CREDENTIAL_FILE_MAX: usize = 64 * 1024;

/// What small HTTP/2 frames may cost on a signer's stream before they are read: `h2` charges a frame with what it lacks to 256
/// bytes, and its default breaks the connection after a burst of some 150 answers. A flow-control window of 64 KiB holds 1,600
/// ECDH answers of 41 bytes, which cost 215 each: half a MiB allows for as many as the window does.
pub const SIGNER_FRAME_BUDGET: usize = 512 * 1024;
