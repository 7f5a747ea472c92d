//! Of gossip while no signer is there and after: the floor, personas, the catch-up.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{ACT_DEADLINE, INIT_DEADLINE};
use std::time::Duration;

/// Gossip links that there shall be while no signer is there, unless the operator says otherwise. Five peers relay all that there is, and two
/// that are slow or lie do not matter.
pub const GOSSIP_FLOOR: usize = 5;

/// Highest `gossip.floor` of the daemon. More than this is no floor but a crawl of the network, at every lapse, from one address.
pub const GOSSIP_FLOOR_MAX: usize = 100;

/// How long after a lapse or the start no persona dials. A signer that is gone for an instant, or attaches right after the start, costs
/// nothing; gossip still flows within a second.
pub const PERSONA_GRACE: Duration = Duration::from_millis(250);

/// After this a persona's dial that is not up does not count for the gossip floor any more, and another peer is dialled beside it.
/// A peer that is up answers three round trips in less.
pub const PERSONA_OVERDUE: Duration = Duration::from_secs(2);

/// The same for a dial by way of Tor, which has a circuit to build first: five seconds and the round trips of one for an address, ten for
/// an onion service that is up, and no more than [`PROXY_DEADLINE`](super::PROXY_DEADLINE). Shorter, and each such dial would set off another.
pub const PERSONA_OVERDUE_BY_PROXY: Duration = Duration::from_secs(15);

/// A persona's link that its peer ends sooner than this after it came up was refused. Whoever turns somebody away for what it says of itself
/// does so when it has heard that.
pub const PERSONA_TAKEN: Duration = INIT_DEADLINE;

/// While the gossip floor is short and nobody else is left to be dialled, whoever was only not there is looked for again after this, however
/// long it would have to wait otherwise: a network that is back is noticed within a minute. One connection attempt in half a minute
/// is less than any node makes that has lost a peer it wants.
pub const FLOOR_AGAIN: Duration = Duration::from_secs(30);

/// Between two such dials, of all peers together: a network that is gone costs one connection attempt a second, however many peers
/// there are.
pub const FLOOR_SEEKS_EVERY: Duration = Duration::from_secs(1);

/// How long a persona's link stays beside the node's own link with the same peer once that is up: by then the peer has taken the gossip
/// filter that the node sent there at once, so nothing falls between the two. A peer whose messages take longer would not have got
/// through a handshake, for an act has no more.
pub const PERSONA_OVERLAP: Duration = ACT_DEADLINE;

/// How long a persona's link that is to go waits for the pong that follows all that its peer had sent. As an act: whoever needs longer is
/// not heard out, beyond what is here already.
pub const PERSONA_FAREWELL: Duration = ACT_DEADLINE;

/// What such a link still reads of a peer that did not answer: more than Linux holds for one connection unless told otherwise (6 MiB). A
/// peer that never stops sending cannot keep the link.
pub const LAST_READ_MAX: usize = 8 << 20;

/// New personas in [`PERSONAS_PERIOD`]; a signer that goes more often meets the last one again. Every new key at one address is a
/// line in somebody's log.
pub const PERSONAS_NEW: usize = 4;

/// See [`PERSONAS_NEW`].
pub const PERSONAS_PERIOD: Duration = Duration::from_secs(3600);

/// Candidates for the gossip floor that are looked through for one in a network that no gossip comes from yet.
pub const PERSONA_CHOICE: usize = 64;

/// How far back a catch-up asks at least. LDK serves its backlog only to a filter that begins more than six hours ago.
pub const CATCH_UP_AT_LEAST: Duration = Duration::from_secs(6 * 3600);

/// How much further back it asks: clocks differ, and gossip travels for up to an hour.
pub const CATCH_UP_MARGIN: Duration = Duration::from_secs(3600);

/// A time without gossip that counts as a gap. The network is never silent for a minute; a node with one slow peer may be for some.
pub const GOSSIP_GAP: Duration = Duration::from_secs(600);

/// How long after a gap every link that comes up asks from before it. The first peer that answers may be one that has missed the same.
pub const CATCH_UP_SHARED: Duration = Duration::from_secs(3600);

/// Longest wait for an answer to a range query or to a query of channels, or for the next part of it. Serving 65 KB takes a second; LDK
/// never ends the answer to the latter.
pub const QUERY_DEADLINE: Duration = Duration::from_secs(30);

/// Parts of the answer to one range query. 50,000 channels with their timestamps take some 15 of the largest.
pub const RANGE_REPLIES_MAX: usize = 1000;

/// Channels that one answer may list: five times as many as there are.
pub const RANGE_IDS_MAX: usize = 250_000;

/// Channels that the node lacks and that are asked for after one range query, 8 bytes each. More is no catch-up but another network.
pub const QUERIED_IDS_MAX: usize = 100_000;

/// Channels in one query. lnd asks for as many; the answer is some 400 KB.
pub const QUERY_BATCH: usize = 500;

/// After a range query was served none is made for this long: what is new comes by the filters.
pub const RANGE_AGAIN: Duration = Duration::from_secs(3600);

/// After one that was not served, the next peer is asked no sooner.
pub const RANGE_RETRY: Duration = Duration::from_secs(10);

/// Peers that serve no range, in a row, after which everything is asked for by a filter from 0, once.
pub const DUMP_AFTER: u32 = 3;
