//! What may pass on a link: design.md § Firewall as a table, and one function each way that reads it.
//!
//! The table acts on every link while the signer is away (`Waiting`, `Safe`) and on a persona's link always; otherwise messages go
//! to the node and come from it, and only BOLT 1's own rules hold: `init` first and once, pings, an all-zero error, unknown even
//! types. An embedder may have it [`observe`](Situation::observe): then it acts on channel messages only and lets the rest pass, and
//! [`would`] and [`would_refuse`] say what it has let pass. `tests/tables/firewall.txt` is the whole of it, printed by a test: a
//! change of policy is a diff of that file.
//!
//! Never sends, counts, waits or keeps state: a verdict depends on the message and the [`Situation`] alone. It cannot tell gossip
//! that the node has newly signed from gossip that it relays; while the signer is away there is nobody to sign.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ops::RangeInclusive;

use crate::wire::control::{ErrorMessage, Ping, Pong, Warning};
use crate::wire::queries::{ReplyChannelRange, ReplyShortChannelIdsEnd, unserved_answer};
use crate::wire::types::FIRST_CUSTOM;
use crate::wire::{Features, Init, MessageType};

/// What a verdict depends on beside the message. Each is a fact of its own: the table ranges over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state machine in disguise"
)]
pub struct Situation {
    /// The mode is `Waiting` or `Safe`.
    pub signer_away: bool,
    /// The link was dialled under a throwaway key.
    pub persona: bool,
    /// The peer's `init` has come.
    pub init_received: bool,
    /// The peer has sent `gossip_timestamp_filter` (265): it wants relayed gossip.
    pub filter_received: bool,
    /// The node answers 261 and 263 itself.
    pub queries_served: bool,
    /// The embedder has registered custom types: even ones from 32768 on are known to it.
    pub custom_even_ok: bool,
    /// `firewall = "observe"`: without a signer only what BOLT 2 says is refused, and BOLT 1's own rules hold. A persona's link is
    /// none of this: what it refuses would speak for the node.
    pub observe: bool,
}

impl Situation {
    /// Whether the table acts, rather than the node.
    fn firewalled(self) -> bool {
        self.signer_away || self.persona
    }

    /// Whether the table lets pass what is no channel message.
    fn observes(self) -> bool {
        self.observe && self.signer_away && !self.persona
    }

    fn acting(self) -> Self {
        Self {
            observe: false,
            ..self
        }
    }
}

/// What to do with a message that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum Inbound {
    /// Hand it to the node.
    Deliver,
    /// It is the link's own affair: the first `init`, or a `pong`. It is not handed to the node.
    ForLink,
    /// Nothing: BOLT 1 lets an unknown odd type, and a ping that asks for too much, pass unanswered.
    Ignore,
    /// Answer with a `pong` of exactly this many bytes, ahead of other traffic.
    Pong {
        /// How many bytes of padding, below 65532.
        num_pong_bytes: u16,
    },
    /// A gossip query that nobody serves: send [`unserved_answer`]. It is not handed to the node.
    AnswerUnserved,
    /// A stranger would open a channel: answer with a warning, "signer away", and hand nothing to the node.
    WarnNotDelivered,
    /// Neither delivered nor answered; counted.
    Drop,
    /// Hand it to the node, then close the link.
    CloseAfterDelivery,
    /// Close the link; the message is not handed to the node.
    Close(CloseReason),
}

/// Why a message closes its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    /// It has no type, or a known message is too short for its fields (BOLT 1 § Lightning Message Format).
    Malformed,
    /// Something else came before `init` (BOLT 1 § The init Message).
    InitExpected,
    /// A second `init`.
    SecondInit,
    /// A channel message without the signer: BOLT 2 has no way to skip one.
    ChannelMessage,
    /// A `channel_reestablish` without the signer: the peer believes that it has a channel with us; its tag may be wrong.
    ChannelReestablish,
    /// An unknown even type (BOLT 1 § Lightning Message Format).
    UnknownEven,
}

impl CloseReason {
    /// A lower-case word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::InitExpected => "init_expected",
            Self::SecondInit => "second_init",
            Self::ChannelMessage => "channel_message",
            Self::ChannelReestablish => "channel_reestablish",
            Self::UnknownEven => "unknown_even",
        }
    }
}

/// What to do with a message that would leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum Outbound {
    /// Send it.
    Pass,
    /// Send it once the link holds a lease.
    PassWithLease,
    /// Do not send it; tell the sender why.
    Refuse(Refusal),
}

/// Why a message must not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// It has no type.
    Malformed,
    /// The peer's `init` has not come: nothing but our own may precede it (BOLT 1 § The init Message).
    BeforeInit,
    /// It needs the signer, or speaks for the node, and the signer is away.
    SignerAway,
    /// A persona never sends it.
    Persona,
    /// The peer has not asked for relayed gossip (BOLT 7 § Query Messages).
    NoFilter,
    /// An unknown even type that nobody has registered (BOLT 1 § Lightning Message Format).
    UnknownEven,
}

impl Refusal {
    /// A lower-case word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BeforeInit => "before_init",
            Self::SignerAway => "signer_away",
            Self::Persona => "persona",
            Self::NoFilter => "no_filter",
            Self::UnknownEven => "unknown_even",
        }
    }
}

/// How a row treats a message that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Init,
    Ping,
    Pong,
    Warning,
    Error,
    ToNode,
    /// To the node, or answered as unserved.
    Query,
    /// To the node with a signer; a warning without.
    Warn,
    /// To the node with a signer; closes without.
    Close(CloseReason),
    /// To the node with a signer; dropped without.
    Drop,
    /// To the node with a signer; ignored without.
    Ignore,
    UnknownEven,
}

/// How a row treats a message that would leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Init,
    Pass,
    /// Only the node's own, under its identity and with its signer.
    NodeWithSigner,
    /// The same, and no channel message.
    NodeAside,
    /// Relayed gossip: after the peer's filter, and never on a persona's link.
    Relay,
    /// An answer to a query; on a persona's link only the empty one.
    Answer,
    /// Needs the signer and makes the link depend on it.
    Lease,
    UnknownEven,
}

/// One row of the table.
struct Row {
    name: &'static str,
    types: &'static [RangeInclusive<u16>],
    inbound: In,
    outbound: Out,
}

/// design.md § Firewall, row by row; gossip first, because that is what mostly comes. Types in no row are unknown: see
/// [`UNKNOWN`].
const TABLE: &[Row] = &[
    Row {
        name: "announcement",
        types: &[256..=258],
        inbound: In::ToNode,
        outbound: Out::Relay,
    },
    Row {
        name: "query",
        types: &[261..=261, 263..=263],
        inbound: In::Query,
        outbound: Out::Pass,
    },
    Row {
        name: "query answer",
        types: &[262..=262, 264..=264],
        inbound: In::ToNode,
        outbound: Out::Answer,
    },
    Row {
        name: "filter",
        types: &[265..=265],
        inbound: In::ToNode,
        outbound: Out::Pass,
    },
    Row {
        name: "init",
        types: &[16..=16],
        inbound: In::Init,
        outbound: Out::Init,
    },
    Row {
        name: "ping",
        types: &[18..=18],
        inbound: In::Ping,
        outbound: Out::Pass,
    },
    Row {
        name: "pong",
        types: &[19..=19],
        inbound: In::Pong,
        outbound: Out::Pass,
    },
    Row {
        name: "warning",
        types: &[1..=1],
        inbound: In::Warning,
        outbound: Out::Pass,
    },
    Row {
        name: "error",
        types: &[17..=17],
        inbound: In::Error,
        outbound: Out::NodeWithSigner,
    },
    Row {
        name: "open channel",
        types: &[32..=32, 64..=64],
        inbound: In::Warn,
        outbound: Out::NodeWithSigner,
    },
    Row {
        name: "channel_reestablish",
        types: &[136..=136],
        inbound: In::Close(CloseReason::ChannelReestablish),
        outbound: Out::Lease,
    },
    Row {
        name: "channel",
        types: &[
            2..=2,
            33..=41,
            65..=74,
            77..=77,
            80..=81,
            127..=135,
            137..=137,
            259..=259,
        ],
        inbound: In::Close(CloseReason::ChannelMessage),
        outbound: Out::Lease,
    },
    Row {
        name: "storage, onion",
        types: &[7..=7, 9..=9, 513..=513],
        inbound: In::Drop,
        outbound: Out::NodeAside,
    },
];

/// The rows for what [`TABLE`] does not name: unknown odd, custom odd, unknown even, custom even.
const UNKNOWN: [Row; 4] = [
    Row {
        name: "unknown odd",
        types: &[],
        inbound: In::Ignore,
        outbound: Out::Pass,
    },
    Row {
        name: "custom odd",
        types: &[],
        inbound: In::ToNode,
        outbound: Out::Pass,
    },
    Row {
        name: "unknown even",
        types: &[],
        inbound: In::UnknownEven,
        outbound: Out::UnknownEven,
    },
    Row {
        name: "custom even",
        types: &[],
        inbound: In::UnknownEven,
        outbound: Out::UnknownEven,
    },
];

fn row(kind: MessageType) -> &'static Row {
    let [unknown_odd, custom_odd, unknown_even, custom_even] = &UNKNOWN;
    let unknown = match (kind.is_odd(), kind.is_custom_range()) {
        (true, false) => unknown_odd,
        (true, true) => custom_odd,
        (false, false) => unknown_even,
        (false, true) => custom_even,
    };
    TABLE
        .iter()
        .find(|row| row.types.iter().any(|range| range.contains(&kind.0)))
        .unwrap_or(unknown)
}

/// The name of the table's row for a type.
pub fn row_name(kind: MessageType) -> &'static str {
    row(kind).name
}

/// The lease rule (design.md § Link, scope, fence): whether a message of this type, in either direction, puts the link in the
/// signer's scope. True of every BOLT 2 message but `open_channel` (32, 64), and of `announcement_signatures` (259), which no
/// link carries that has not carried BOLT 2 messages before it.
pub fn needs_lease(kind: MessageType) -> bool {
    row(kind).outbound == Out::Lease
}

/// Whether only the link itself may originate the type: it sends `init` once and pings and pongs by its own clock, so a node
/// that sends one would break the conversation. The link asks this of what the node would send, before [`outbound`].
pub fn is_link_owned(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::INIT | MessageType::PING | MessageType::PONG
    )
}

/// The verdict on a whole message that came.
pub fn inbound(message: &[u8], situation: &Situation) -> Inbound {
    let situation = *situation;
    let Ok(kind) = MessageType::of(message) else {
        return Inbound::Close(CloseReason::Malformed);
    };
    let row = row(kind);
    if !situation.init_received && row.inbound != In::Init {
        return Inbound::Close(CloseReason::InitExpected);
    }
    let firewalled = situation.firewalled();
    match row.inbound {
        In::Init if situation.init_received => Inbound::Close(CloseReason::SecondInit),
        In::Init => well_formed(Init::decode(message).is_ok(), Inbound::ForLink),
        In::Ping => match Ping::decode(message) {
            Ok(ping) => ping.answer().map_or(Inbound::Ignore, |pong| Inbound::Pong {
                num_pong_bytes: pong.ignored,
            }),
            Err(_) => Inbound::Close(CloseReason::Malformed),
        },
        In::Pong => well_formed(Pong::decode(message).is_ok(), Inbound::ForLink),
        In::Warning => well_formed(Warning::decode(message).is_ok(), Inbound::Deliver),
        In::Error => match ErrorMessage::decode(message) {
            // Every channel with the sender has failed: nothing is left to talk about (lnd, CLN and LDK close too).
            Ok(error) if error.is_all_zero() => Inbound::CloseAfterDelivery,
            Ok(_) => Inbound::Deliver,
            Err(_) => Inbound::Close(CloseReason::Malformed),
        },
        In::Query => inbound_query(message, situation),
        In::UnknownEven if known_custom(kind, situation) => Inbound::Deliver,
        In::UnknownEven => Inbound::Close(CloseReason::UnknownEven),
        In::Warn if firewalled => Inbound::WarnNotDelivered,
        In::Close(reason) if firewalled => Inbound::Close(reason),
        In::Drop if firewalled && !situation.observes() => Inbound::Drop,
        In::Ignore if firewalled && !situation.observes() => Inbound::Ignore,
        In::ToNode | In::Warn | In::Close(_) | In::Drop | In::Ignore => Inbound::Deliver,
    }
}

/// With a signer the node sees every query. Without, those that nobody serves are answered as such; and so they are on a
/// persona's link always, where the node's own answers could not leave.
fn inbound_query(message: &[u8], situation: Situation) -> Inbound {
    let to_node = if situation.signer_away {
        situation.queries_served && !situation.persona
    } else {
        !situation.persona
    };
    if to_node {
        return Inbound::Deliver;
    }
    let unserved = if situation.observes() {
        Inbound::Deliver
    } else {
        Inbound::AnswerUnserved
    };
    well_formed(matches!(unserved_answer(message), Ok(Some(_))), unserved)
}

/// What the table would have done with a message that it has let pass, because it only observes: a label.
pub fn would(message: &[u8], situation: &Situation) -> Option<&'static str> {
    if !situation.observes() {
        return None;
    }
    let strictly = inbound(message, &situation.acting());
    if strictly == inbound(message, situation) {
        return None;
    }
    match strictly {
        Inbound::Drop => Some("would_drop"),
        Inbound::Ignore => Some("would_ignore"),
        Inbound::AnswerUnserved => Some("would_answer"),
        _ => None,
    }
}

/// Whether the table would have refused a message that it lets leave, because it only observes.
pub fn would_refuse(message: &[u8], situation: &Situation) -> bool {
    situation.observes()
        && matches!(outbound(message, situation), Outbound::Pass)
        && matches!(outbound(message, &situation.acting()), Outbound::Refuse(_))
}

fn well_formed(is: bool, then: Inbound) -> Inbound {
    if is {
        then
    } else {
        Inbound::Close(CloseReason::Malformed)
    }
}

fn known_custom(kind: MessageType, situation: Situation) -> bool {
    situation.custom_even_ok && kind.0 >= FIRST_CUSTOM
}

/// The verdict on a whole message that would leave, whoever made it. What the node would send must pass [`is_link_owned`] first.
pub fn outbound(message: &[u8], situation: &Situation) -> Outbound {
    let situation = *situation;
    let Ok(kind) = MessageType::of(message) else {
        return Outbound::Refuse(Refusal::Malformed);
    };
    let row = row(kind);
    if !situation.init_received && row.outbound != Out::Init {
        return Outbound::Refuse(Refusal::BeforeInit);
    }
    // On a persona's link that is the better reason: the signer's return would not change it.
    let barred = if situation.persona {
        Some(Refusal::Persona)
    } else {
        situation.signer_away.then_some(Refusal::SignerAway)
    };
    match row.outbound {
        Out::Init => outbound_init(message, situation),
        Out::NodeAside if situation.observes() => Outbound::Pass,
        Out::NodeWithSigner | Out::NodeAside => barred.map_or(Outbound::Pass, Outbound::Refuse),
        Out::Lease => barred.map_or(Outbound::PassWithLease, Outbound::Refuse),
        Out::Relay if situation.persona => Outbound::Refuse(Refusal::Persona),
        Out::Relay
            if situation.signer_away && !situation.filter_received && !situation.observes() =>
        {
            Outbound::Refuse(Refusal::NoFilter)
        }
        Out::Answer if situation.persona && !says_nothing(message) => {
            Outbound::Refuse(Refusal::Persona)
        }
        Out::Pass | Out::Relay | Out::Answer => Outbound::Pass,
        // Nothing that a persona offers could have negotiated it (BOLT 1: MUST NOT send without).
        Out::UnknownEven if known_custom(kind, situation) && !situation.persona => Outbound::Pass,
        Out::UnknownEven => Outbound::Refuse(Refusal::UnknownEven),
    }
}

/// A persona offers exactly what a gossip link may: any other bit invites what it can never answer.
fn outbound_init(message: &[u8], situation: Situation) -> Outbound {
    match Init::decode(message) {
        Err(_) => Outbound::Refuse(Refusal::Malformed),
        Ok(init) if situation.persona && !init.features.is_subset_of(&Features::gossip()) => {
            Outbound::Refuse(Refusal::Persona)
        }
        Ok(_) => Outbound::Pass,
    }
}

/// Whether it is the answer of one who knows nothing: what [`Inbound::AnswerUnserved`] sends, which a persona may send too,
/// because BOLT 7 says that a query MUST be answered and such an answer tells nothing of the node.
fn says_nothing(message: &[u8]) -> bool {
    ReplyShortChannelIdsEnd::decode(message).is_ok_and(|reply| !reply.full_information)
        || ReplyChannelRange::decode(message).is_ok_and(|reply| reply.short_channel_ids.is_empty())
}
