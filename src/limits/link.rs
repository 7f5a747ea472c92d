//! Of one link: its handshake, its keepalive, what may wait on it, what its peer may ask for.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// Longest wait for one act of a handshake, the signer's ECDH included. lnd and LDK give 5 s and 10 s: the lower serves both,
/// because the other side will have left by then.
pub const ACT_DEADLINE: Duration = Duration::from_secs(5);

/// Longest wait for a TCP connection. Linux alone would try for over two minutes; a Lightning peer that is up answers in
/// under a second, one behind Tor in under ten.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait for the peer's `init` once the handshake is done. One round trip and no computation: the deadline of an act.
pub const INIT_DEADLINE: Duration = Duration::from_secs(5);

/// Longest `init` that is read. Features take 20 to 30 bytes and each network 32; 4 KiB is a hundred networks.
pub const INIT_MAX: usize = 4096;

/// Shortest silence after which a link is pinged. BOLT 1 asks for at most one ping in 30 s.
pub const PING_AFTER_MIN: Duration = Duration::from_secs(30);

/// Longest silence after which a link is pinged: spread over 30 s so that ten thousand links do not ping in one instant.
pub const PING_AFTER_MAX: Duration = Duration::from_secs(60);

/// How long a ping may stay unanswered before the link is closed. A pong needs one round trip; 30 s is what lnd gives.
pub const PONG_DEADLINE: Duration = Duration::from_secs(30);

/// How long an incumbent link has to show life before a newcomer of the same peer replaces it.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// Bytes that may wait in one link's outbox, bodies and [`OUTBOX_OVERHEAD`] together: sixteen messages of the largest size.
/// A sender waits for room beyond it.
pub const OUTBOX_BYTES: usize = 1 << 20;

/// What one queued message costs beside its body. Keeps a flood of empty messages within the bound too.
pub const OUTBOX_OVERHEAD: usize = 64;

/// Tickets of refused messages that one link remembers for whoever asks whether they were flushed. Who asks after 64 further
/// refusals is told that they were.
pub const REFUSED_TICKETS: usize = 64;

/// Bytes that may wait for the node, over all links: messages and what each costs beside its body. At 430 bytes a gossip message
/// this is 24,000 of them, over an hour of mainnet; beyond it links stop reading, and TCP pushes back on the peers.
pub const INBOX_BYTES: usize = 16 << 20;

/// Of those, from one link: a quarter, so that no flood on one link takes all. 6,000 gossip messages: as many as a peer has in
/// twenty minutes. A link that has its share stops reading; the others find room, and go on to read and answer pings.
pub const INBOX_PER_LINK: usize = INBOX_BYTES / 4;

/// What one message in the inbox costs beside its body. Bounds a flood of empty messages too: 65,000.
pub const INBOX_OVERHEAD: usize = 256;

/// What of a read waits for the node is copied out if it is less than this share of the read's buffer: so a message in the inbox
/// holds at most four times the memory that it is counted with, those of [`INBOX_PROMPT`] aside.
pub const KEEP_SHARE: usize = 4;

/// Bytes in the inbox up to which the node counts as one that takes messages as they come: then none is copied. At the least that a
/// message is counted with these are 254, each of which may hold a buffer of 32 KiB: 8 MiB for a moment, whatever the peers send.
pub const INBOX_PROMPT: usize = 64 * 1024;

/// How long a link waits for room in the inbox before the node is said not to receive. As long as for a signer: no burst takes a node
/// ten seconds.
pub const INBOX_STALLED_AFTER: Duration = Duration::from_secs(10);

/// Bytes taken from a socket at a time. Larger reads bring nothing (measured), smaller ones cost system calls.
pub const READ_CHUNK: usize = 16 * 1024;

/// Bytes handed to the kernel in one gate section. A lapse waits for the running sections: this keeps one at microseconds.
pub const GATE_WRITE_MAX: usize = 16 * 1024;

/// Bytes of ciphertext that are gathered before they are written. 64 KiB is where coalescing stops to pay (measured); one frame
/// of the largest size may stand above it.
pub const WRITE_BUFFER: usize = 64 * 1024;

/// Answers (pongs, replies to queries, warnings) that may wait for a peer that does not read, before we stop reading from it. One
/// read may bring some hundreds more; a pong waits as its length, not its bytes.
pub const ANSWERS_MAX: usize = 64;

/// Pong bytes that one link may ask for in a row: sixteen of the largest. A ping of 40 bytes asks for up to 65,565.
pub const PONG_BURST: u32 = 16 * 65_536;

/// Pong bytes that are earned back in a second. An honest peer asks for a few hundred in 30 s; whoever asks for more than this is
/// closed.
pub const PONG_BYTES_A_SECOND: u32 = 65_536;

/// What one link's gossip queries may cost in a row, in units of a `query_short_channel_ids` (261). An honest peer asks once through the
/// whole graph, each query after the answer to the one before: eclair in some 400 queries of 100 channels, lnd in 80 of 500. Five times
/// that is nobody's need; every query costs the peer forty bytes, and the node up to a megabyte.
pub const QUERY_BURST: u32 = 2048;

/// What of it is earned back in a second: as much as a slow link needs to go on for ever with its queries one after the other.
pub const QUERIES_A_SECOND: u32 = 2;

/// What a `query_channel_range` (263) or a `gossip_timestamp_filter` (265) costs: either may ask for the whole graph. 64 in a row, and
/// then four a minute.
pub const QUERY_OF_ALL: u32 = 32;

/// What every pong costs beside its padding: a flood of pings for nothing is closed too, at about a thousand a second.
pub const PONG_OVERHEAD: u32 = 64;

/// Refusals and complaints of one link that are told as events in a row. Beyond it they are only counted, so that one peer cannot push what
/// matters out of the event stream.
pub const REFUSAL_EVENTS: u32 = 64;

/// Warnings we send on one link in a row. Beyond it refusals are counted, not said.
pub const WARNING_BURST: u32 = 5;

/// After a burst, one warning is earned back in this time.
pub const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// How long a closed connection is read on, so that closing it does not take back what the peer has not read yet.
pub const LINGER: Duration = Duration::from_secs(1);
