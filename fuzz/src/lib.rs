//! The bodies of the fuzz targets: functions of bytes that panic when a promise is broken.
//!
//! Compiled twice: as the library of the fuzz workspace, whose targets call them, and as a module of `tests/fuzz_replay.rs`, which
//! replays the kept inputs over them in a plain `cargo test`. So nothing here needs a fuzzer, and nothing here is in the library.
//!
//! An input is read from its front, a byte or a number at a time (see [`feed`]), so that the generator of the seeds can write one
//! and a mutation in the middle leaves what comes before it as it was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    missing_docs,
    unreachable_pub,
    reason = "a body panics when a promise is broken: that is how the fuzzer hears of it"
)]

pub mod agent_stream;
pub mod at_the_door;
pub mod bolt8;
pub mod book;
pub mod cipher_rotation;
pub mod config;
pub mod credentials;
pub mod feed;
pub mod firewall;
pub mod framer;
pub mod handshake_differential;
pub mod handshake_initiator;
pub mod handshake_responder;
pub mod link_ops;
pub mod pair;
pub mod protobuf;
pub mod roster_ops;
pub mod roster_world;
pub mod session_ops;
pub mod signer_stream;
pub mod talk;
pub mod twist;
pub mod wire;

/// One target: its name is that of its module, of its file in `fuzz_targets/` and of its folder in `corpus/`.
pub struct Target {
    pub name: &'static str,
    /// What it promises, as `README.md` has it.
    pub promise: &'static str,
    /// Takes one input; panics when the promise is broken.
    pub run: fn(&[u8]),
}

pub const TARGETS: &[Target] = &[
    Target {
        name: "framer",
        promise: "A stream split anyhow is the same messages; a changed byte ends the session at its frame, for good, and nothing after it is read.",
        run: framer::run,
    },
    Target {
        name: "wire",
        promise: "No bytes make a decoder panic; what decodes encodes to something that decodes to the same, and fits a message.",
        run: wire::run,
    },
    Target {
        name: "cipher_rotation",
        promise: "Both directions, through any number of rotations in any interleaving, bring what was sent, and some bursts of each run are byte for byte what a plain restatement of BOLT 8 gives.",
        run: cipher_rotation::run,
    },
    Target {
        name: "handshake_initiator",
        promise: "Ours dials a peer that may lie in act two or hold another key, with a signer that may lie: act for act the bytes and the refusals of the restatement; then both ends have the keys.",
        run: handshake_initiator::run,
    },
    Target {
        name: "handshake_responder",
        promise: "Ours is dialled by a peer that may lie in acts one and three, its encrypted key included: act for act the bytes and the refusals of the restatement; then both ends have the keys.",
        run: handshake_responder::run,
    },
    Target {
        name: "firewall",
        promise: "Whatever the bytes, without a signer and on a persona's link nothing that needs the signer reaches the node or leaves, and `error` never leaves (P4, P5).",
        run: firewall::run,
    },
    Target {
        name: "handshake_differential",
        promise: "Ours and LDK's `PeerManager`, facing the same hostile peer in either role, take and refuse the same frames and the same acts, and give the same pongs; of an act of the input's bytes alone, which may be right for one end's keys and not for the other's, ours thinks as the restatement of BOLT 8 does.",
        run: handshake_differential::run,
    },
    Target {
        name: "link_ops",
        promise: "One link's machine, through any conversation with times: nothing before `init`, no lease without a signer, warnings and pongs within their bounds, a deadline that is kept (P4, P9).",
        run: link_ops::run,
    },
    Target {
        name: "roster_ops",
        promise: "All peers, through any history of links, strangers, lapses and returns: the supervisor's promises hold after every event, and everybody wanted comes up in the end (P5 to P9).",
        run: roster_ops::run,
    },
    Target {
        name: "signer_stream",
        promise: "The gateway's machine against any messages in any order at any time: every request is told of once, no answer is used for another, nothing before the proof, every bound holds (P6, P9).",
        run: signer_stream::run,
    },
    Target {
        name: "agent_stream",
        promise: "The agent's machine against a server that asks for anything in any order: ECDH with the node's key and nothing else is answered, each request once, pongs first, as our gateway and lnd read it, and every bound holds (P9).",
        run: agent_stream::run,
    },
    Target {
        name: "session_ops",
        promise: "The signer's context through any history of challenges, proofs, sessions, leases and questions: one session at a time, each with a proof of its own time and place; no lease and no answer outlives its session (P5, P6).",
        run: session_ops::run,
    },
    Target {
        name: "credentials",
        promise: "A macaroon, a caveat, a certificate, a host or a key of any text is read as what it is, or refused with a reason; a macaroon of ours is good exactly where its caveats say so, and after no change of what is signed.",
        run: credentials::run,
    },
    Target {
        name: "config",
        promise: "A configuration file of any text is settings, or an error that says what, in which line, and what to do.",
        run: config::run,
    },
    Target {
        name: "book",
        promise: "What another node prints of its peers is records within their bounds, or an error with its place.",
        run: book::run,
    },
];
