//! Of a signer's agent, the other end of the gateway's stream.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// First wait of an agent before it dials again, before jitter. The node's channels wait for it, and one dial costs the server a
/// handshake: a quarter of a second is short for the one and long for the other.
pub const AGENT_BACKOFF_FIRST: Duration = Duration::from_millis(250);

/// Longest wait of an agent before it dials again. lnd's signer waits for up to 60 s; half of that is what a node's channels need not wait longer than after a long absence.
pub const AGENT_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How long an agent must have been attached for its next wait to be the first one again. A server that takes it and hangs up within
/// a third of the longest wait has not taken it.
pub const AGENT_STABLE: Duration = Duration::from_secs(10);

/// Answers between an agent's machine and the wire. Few, because a pong cannot overtake them.
pub const AGENT_PIPE: usize = 16;

/// Characters of a server's text that an agent keeps: two node ids and what is said of them.
pub const AGENT_TEXT_MAX: usize = 400;

/// How long the server may take to answer an agent's registration: a proof and the challenge of an incumbent (2 s) lie between,
/// each with its own deadline at the server.
pub const AGENT_REGISTRATION_DEADLINE: Duration = Duration::from_secs(15);

/// How often an agent sends an HTTP/2 PING. lnd's server calls more than one in 5 s abuse.
pub const AGENT_PING_INTERVAL: Duration = Duration::from_secs(10);

/// How long the acknowledgement of an agent's PING may take. A path that is slower than this is of no use for handshakes of 5 s.
pub const AGENT_PING_DEADLINE: Duration = Duration::from_secs(10);

/// ECDH requests that may wait at an agent: twice what a gateway has in flight.
pub const AGENT_JOBS: usize = 2048;

/// ECDH that an agent asks its key's holder for at once. A key in the process needs one a core; a device that is a round trip
/// away needs them in flight.
pub const AGENT_ECDH_AT_ONCE: usize = 32;

/// Answers and pongs that may wait at an agent for a server that does not read: 50 bytes each.
pub const AGENT_ANSWERS: usize = 4096;
