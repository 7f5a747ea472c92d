//! Of those who dial us: handshakes, strangers' links, parked sockets, bans.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// After an accept has failed for want of descriptors or memory: long enough for some to come free.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Handshakes under way at once for strangers who dialled us. Each holds a socket and about a kilobyte, and may cost one ECDH.
/// A newcomer who finds none free takes that of the oldest that is silent, so 64 need not be many: an honest peer's first act
/// comes one round trip after its connection, and 64 others would have to come in that time to push it out.
pub const INBOUND_HANDSHAKES: usize = 64;

/// Of those, from one address (IPv6: one /64). A peer makes one; eight allow for several nodes behind one address, as
/// [`ECDH_SOURCE_BURST`](super::ECDH_SOURCE_BURST) does. Whoever shares an address with a flood loses places to it, and nobody else does.
pub const HANDSHAKES_PER_ADDRESS: usize = 8;

/// Of those, from one /24 (IPv4) or /48 (IPv6): a quarter, so that a party must have four networks before newcomers displace
/// anybody else's silent handshake.
pub const HANDSHAKES_PER_SUBNET: usize = INBOUND_HANDSHAKES / 4;

/// Of those, from 127.0.0.1 or `::1`, from where a Tor daemon or a proxy of this machine dials on behalf of everybody who comes
/// through it: half, so that neither side can take all places from the other.
pub const HANDSHAKES_OF_MANY: usize = INBOUND_HANDSHAKES / 2;

/// Links in all, those whose handshake is done and dials under way: as many as the public graph has nodes. Beyond it nobody who dials
/// us is let in but whom the node wants. Each takes a descriptor: of the 1,024 that a process is given where nobody has asked for more,
/// the bounds on strangers (links, handshakes, parked sockets: 228) and on dials leave some 280 for links that the node wants;
/// whoever wants more raises the process's limit.
pub const LINKS_MAX: usize = 16_384;

/// Links of strangers: peers that dialled us, that the node does not want and has no channel with. What they bring is gossip, which
/// five links bring as well; a hundred leave room for those who look for a node to open a channel with.
pub const STRANGERS_MAX: usize = 100;

/// Of those, from one address (IPv6: one /64): several nodes behind one address. 127.0.0.1 and `::1` are free of it and of
/// [`STRANGERS_PER_SUBNET`]: a node behind Tor has all its peers from there.
pub const STRANGERS_PER_ADDRESS: usize = 4;

/// Of those, from one /24 (IPv4) or /48 (IPv6): with an eighth, a party needs eight networks to displace others than itself.
pub const STRANGERS_PER_SUBNET: usize = 12;

/// How long a peer that dials us counts as one that may have a channel, while nothing is known of it and the node has not declared its
/// channel peers. The first that a channel says on a new connection is a `channel_reestablish` (BOLT 2), one message each way: a peer to
/// which the node has sent none by then is counted as a stranger.
pub const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// Links of such peers: a node whose channel peers come all at once, at a hundred a second, has some hundred of them for as long as a
/// message takes each way. Beyond it the one that came first goes.
pub const UNKNOWN_MAX: usize = 256;

/// Of those, from one address (IPv6: one /64), as of handshakes; 127.0.0.1 and `::1` are free of it and of [`UNKNOWN_PER_SUBNET`].
pub const UNKNOWN_PER_ADDRESS: usize = HANDSHAKES_PER_ADDRESS;

/// Of those, from one /24 (IPv4) or /48 (IPv6): an eighth, as of strangers.
pub const UNKNOWN_PER_SUBNET: usize = UNKNOWN_MAX / 8;

/// Networks whose strangers an operator may exempt from the bounds on strangers and from bans: his own, his friends', a monitor's.
pub const PROTECTED_MAX: usize = 256;

/// Score at which a stranger is banned. The offences' points, in hundredths of a ban, are in `supervisor::conduct`.
pub const BAN_SCORE: u32 = 100;

/// In which a score of [`BAN_SCORE`] sinks to nothing: a peer that dials with an old node id, at most once an hour after a while,
/// is not banned for long.
pub const SCORE_SINKS_IN: Duration = Duration::from_secs(3600);

/// First ban. Long enough that a flood pays with ten minutes of silence for what a second of it costs; short enough for those who
/// share an address with one.
pub const BAN_FIRST: Duration = Duration::from_secs(600);

/// Longest ban: addresses change hands.
pub const BAN_MAX: Duration = Duration::from_secs(24 * 3600);

/// Strangers of whom something is held in memory, addresses and nodes together: some 100 bytes each.
pub const CONDUCT_ACCOUNTS: usize = 4096;

/// Inbound sockets that may wait for a signer at once: those that came while none was there, of which no byte is read, and those
/// whose handshake a lapse has stopped before it had its ECDH.
pub const PARKED_MAX: usize = 64;

/// Handshakes under way at once for sockets that had been parked: half of the places, so that a returning signer is not busy with
/// strangers first.
pub const UNPARKED_HANDSHAKES: usize = INBOUND_HANDSHAKES / 2;

/// How long sockets that were parked wait for the channel peers' return before they may ask the signer: their acts are there at once, those
/// of our own dials only after two round trips, and a slow signer answers in the order of asking. A quarter of [`PARKED_FOR`].
pub const PARKED_GIVE_WAY: Duration = Duration::from_secs(1);

/// Parked sockets from one /24 (IPv4) or /48 (IPv6), so that one network cannot take all places.
pub const PARKED_PER_SUBNET: usize = 2;

/// How long an inbound socket may be parked, from its connection or its act one on, at a signer that answers at once: an act's 5 s less
/// 1 s for the wire. What the signer took for an answer the last time is taken off.
pub const PARKED_FOR: Duration = Duration::from_secs(4);
