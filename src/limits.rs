//! Every bound of the crate, each with the argument for its value.
//!
//! A hostile peer meets one of these, never memory growth, a panic or a stall of another link (P9).
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
/// holds at most four times the memory that it is counted with.
pub const KEEP_SHARE: usize = 4;

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

/// Handshakes under way at once for strangers who dialled us. Each holds a socket and about a kilobyte, and may cost one ECDH.
/// A newcomer who finds none free takes that of the oldest that is silent, so 64 need not be many: an honest peer's first act
/// comes one round trip after its connection, and 64 others would have to come in that time to push it out.
pub const INBOUND_HANDSHAKES: usize = 64;

/// Of those, from one address (IPv6: one /64). A peer makes one; eight allow for several nodes behind one address, as
/// [`ECDH_SOURCE_BURST`] does. Whoever shares an address with a flood loses places to it, and nobody else does.
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

/// Lookups of names by the system at once. Each keeps a thread, for up to a minute where DNS is broken, and cannot be given up: a quarter
/// of those that tokio has for such calls leaves the others to files.
pub const LOOKUPS: usize = 128;

/// Answers of one lookup that are tried. A node has an address for each version of IP, some have two.
pub const RESOLVED_MAX: usize = 4;

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
/// `init` at least [`INIT_DEADLINE`]; beyond this it is turned away before `init`, and dialled when the hold-down is over.
pub const HELD_DOWN_INBOUND: Duration = Duration::from_secs(4);

/// A link that has lived this long clears its peer's backoff; so much time without a lapse of the signer's clears the hold-down.
pub const STABLE_AFTER: Duration = Duration::from_secs(600);

/// Shortest `vault.max_session_age` of the daemon: that of a link that counts as stable, or backoffs would never be cleared.
pub const SESSION_AGE_MIN: Duration = STABLE_AFTER;
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

/// Peers in the roster. The public graph has 17,000 nodes; ten times as many still fit in 100 MB.
pub const PEERS_MAX: usize = 200_000;

/// Peers of which `/metrics` has series of their own, where that is asked for: six each, 30,000 in all, which one Prometheus takes from
/// some thirty nodes. Those with links come first.
pub const PER_PEER_MAX: usize = 5_000;

/// Addresses kept for one peer, at most 32. Nodes announce one to four.
pub const ADDRESSES_MAX: usize = 8;

/// Events that a slow listener may fall behind before it is told how many it missed.
pub const EVENTS_BUFFER: usize = 4096;

/// Events of the node and its signer that are kept for listeners who come later: a hundred lapses and returns, at four to five events
/// each. 200 bytes each.
pub const EVENTS_KEPT: usize = 512;

/// Events of peers that are kept likewise, apart from those, so that peers who come and go push out no lapse: a lapse and a return with a
/// thousand peers make some 4,000. Under 2 MiB.
pub const PEER_EVENTS_KEPT: usize = 8192;

/// Requests that may wait for the supervisor's driver. A full queue makes callers wait, which is all a caller may do.
pub const COMMANDS: usize = 1024;

/// How long a closed connection is read on, so that closing it does not take back what the peer has not read yet.
pub const LINGER: Duration = Duration::from_secs(1);

/// How long the peer book may take to record a promotion, and to write what is left when the supervisor stops. A disk that needs longer is broken.
pub const BOOK_DEADLINE: Duration = Duration::from_secs(5);

/// How long a daemon that starts waits for its data directory: a command that asks whether one runs holds the lock for microseconds.
pub const DATA_DIR_LOCK_WAIT: Duration = Duration::from_millis(100);

/// How long a command waits for the credentials of a gateway: who works on them is done in a blink; after this time it hangs.
pub const CREDENTIALS_LOCK_WAIT: Duration = Duration::from_secs(10);

/// How long the peer book waits for a program that holds its database: less than half of [`BOOK_DEADLINE`], so that a second try fits in.
pub const BOOK_LOCK_WAIT: Duration = Duration::from_secs(2);

/// Calls that may wait for the peer book's thread; further callers wait before their call. Some 200 bytes each.
pub const BOOK_CALLS: usize = 1024;

/// Most writes in one transaction of the peer book, and most that the supervisor asks for at once. One `fsync` for all of them is what a group is for, and 256 rows are written in a few milliseconds; a larger group would only make the first of it wait.
pub const BOOK_GROUP: usize = 256;

/// How often the peer book notes when peers were last seen: a crash loses that much of it, and 10,000 links then cost one row a link in 5 minutes.
pub const SIGHTINGS_EVERY: Duration = Duration::from_secs(300);

/// Failures that count of those recalled from the peer book: the next wait is at most 17 minutes, for it may have been our own network that failed.
pub const FAILURES_RECALLED: u32 = 10;

/// Longest file that is read for an import. `lncli describegraph` of the main chain is some 50 MB.
pub const IMPORT_FILE_MAX: usize = 256 * 1024 * 1024;

/// Most entries in one list of such a file. The public graph has 17,000 nodes and 40,000 channels.
pub const IMPORT_ENTRIES_MAX: usize = 1_000_000;

/// Longest text that is looked at as an address: a DNS name has at most 255 bytes, and a port follows.
pub const ADDRESS_TEXT_MAX: usize = 262;

/// After an accept has failed for want of descriptors or memory: long enough for some to come free.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a drain may take before the links that are left are reset.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Connections to the admin address at once. A scraper, a page and a few commands need ten; when all are taken, a newcomer takes the
/// place of the one that has asked for nothing for the longest. None of them costs a link anything.
pub const ADMIN_CONNECTIONS: usize = 64;

/// Of those, event streams: they are for ever, and must leave room for the command that ends the trouble.
pub const ADMIN_EVENT_STREAMS: usize = 32;

/// How long a newcomer waits for the place of a connection that was told to leave, before another is told. It leaves as soon as its
/// task runs.
pub const ADMIN_PLACE_WAIT: Duration = Duration::from_millis(20);

/// Bytes that the kernel holds for an admin client that does not read: a few thousand events. Left to itself it holds 4 MiB each.
pub const ADMIN_SEND_BUFFER: usize = 256 * 1024;

/// How long an admin client may take for a request's head, and how long it may be idle between two. It is on the same machine or
/// in the same rack.
pub const ADMIN_HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of a request's head. hyper's least is 8 KiB; a token takes 64 bytes.
pub const ADMIN_HEAD_MAX: usize = 16 * 1024;

/// Bytes of a request's body. A peer takes 200.
pub const ADMIN_BODY_MAX: usize = 16 * 1024;

/// How long an admin request may take, the resolving of a name and the teardown after a lapse included.
pub const ADMIN_REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// How long the looking up of a peer's name may take, at each dial. A resolver that works answers in a fraction of a second; one that has
/// lost its upstream would have the dial wait for half a minute.
pub const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);

/// Events that wait for one listener at the admin address, in front of [`EVENTS_BUFFER`]: what one write may carry.
pub const ADMIN_EVENTS: usize = 16;

/// How long the admin address waits at its end for answers that are on their way. They are short; a client that reads nothing is not
/// worth more of a shutdown.
pub const ADMIN_FAREWELL: Duration = Duration::from_secs(1);

/// How often a quiet event stream shows that it is alive. Proxies give up after 30 s and more.
pub const ADMIN_EVENTS_KEEPALIVE: Duration = Duration::from_secs(15);

/// Longest admin connection that takes nothing of what is written to it, before the kernel gives it up.
pub const ADMIN_STALL: Duration = Duration::from_secs(30);

/// Shards of a [fence](crate::signer), each an atomic on a cache line of its own.
///
/// A leased write or delivery costs two atomic additions on its link's shard; they are slow only when another core has
/// just touched the same line. With `w` threads that are inside or entering gates at once and shards dealt out in
/// turn, a thread shares its line with `(w − 1) / 16` others: under one up to 16 workers, which is where tokio's worker
/// threads are on the machines that run a node, and at 64 workers still only four. On the other side, a lapse touches
/// every shard twice and an epoch allocates them all: 16 lines are at most some 3 µs of cache misses and 2 KiB, whatever
/// the number of links is.
#[cfg(not(pilotlight_loom))]
pub const FENCE_SHARDS: usize = 16;

/// Shards of a fence under loom: the fewest that show a fence of which one shard is closed and another not yet. loom's
/// work grows exponentially with each.
#[cfg(pilotlight_loom)]
pub const FENCE_SHARDS: usize = 2;

/// How often a closing fence looks at an occupied shard before it gives its processor away.
///
/// A gate section is a system call that does not block (a write of at most 16 KiB: some 5 µs) or a hand-over of a
/// buffer (under 1 µs). A look with its spin hint takes some 10–40 ns, so 256 of them cover a section that runs on another
/// core, and waste little when the section's thread is not running at all.
pub const FENCE_SPINS: u32 = 256;

/// How often a closing fence then yields its processor before it sleeps between looks.
///
/// A yield lets a preempted gate section run on this core if the scheduler is a fair one: one or two are enough, some
/// tens allow for a crowded machine. They are bounded because under a real-time policy a yield never lets a thread of
/// lower priority run, and a closer that only yielded would then starve the very section that it waits for.
pub const FENCE_YIELDS: u32 = 64;

/// How long a closing fence sleeps between looks once it has spun and yielded, in microseconds.
///
/// It gets here only when a section's thread has not run for dozens of yields, so a scheduler's slice (1–4 ms) is the
/// scale: 50 µs (Linux adds about as much timer slack) is a small part of that, and takes under a hundredth of a core.
pub const FENCE_SLEEP_MICROS: u64 = 50;

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

/// Requests that may wait for the signer, of all kinds. Four rounds of [`DIALS_IN_FLIGHT`]; a waiting request is 200 bytes and
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

/// What small HTTP/2 frames may cost on a signer's stream before they are read: `h2` charges a frame with what it lacks to 256
/// bytes, and its default breaks the connection after a burst of some 150 answers. A flow-control window of 64 KiB holds 1,600
/// ECDH answers of 41 bytes, which cost 215 each: half a MiB allows for as many as the window does.
pub const SIGNER_FRAME_BUDGET: usize = 512 * 1024;
