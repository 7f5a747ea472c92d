//! Every message type of BOLTs 1, 2, 4 and 7: its name, its plane, and whether it needs the signer.
//!
//! The table is the vocabulary that the firewall, the metrics and the logs share. It never says what may pass.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use super::WireError;

/// What a message is about; also the metric label `plane`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Plane {
    /// BOLT 1: set-up, keepalive, warnings and errors.
    Control,
    /// BOLT 7: announcements, updates, queries and filters, signed by others or by nobody.
    Gossip,
    /// BOLT 2, and BOLT 7's `announcement_signatures`: about one channel.
    Channel,
    /// BOLT 4: onion messages.
    Onion,
    /// BOLT 1: blobs that peers keep for each other.
    Storage,
    /// Whatever the BOLTs do not assign.
    Custom,
}

impl Plane {
    /// A lower-case word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Gossip => "gossip",
            Self::Channel => "channel",
            Self::Onion => "onion",
            Self::Storage => "storage",
            Self::Custom => "custom",
        }
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One row of [`MESSAGE_TYPES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeInfo {
    /// The type's number.
    pub number: u16,
    /// The name that the BOLT gives it.
    pub name: &'static str,
    /// What it is about.
    pub plane: Plane,
    /// Where it is defined.
    pub section: &'static str,
}

const fn row(number: u16, name: &'static str, plane: Plane, section: &'static str) -> TypeInfo {
    TypeInfo {
        number,
        name,
        plane,
        section,
    }
}

const B1_STORAGE: &str = "BOLT 1 § Peer Storage";
const B1_ERROR: &str = "BOLT 1 § The error and warning Messages";
const B1_PING: &str = "BOLT 1 § The ping and pong Messages";
const B2_TX: &str = "BOLT 2 § Interactive Transaction Construction";
const B2_V1: &str = "BOLT 2 § Channel Establishment v1";
const B2_V2: &str = "BOLT 2 § Channel Establishment v2";
const B2_CLOSE: &str = "BOLT 2 § Channel Close";
const B2_SPLICE: &str = "BOLT 2 § Channel Splicing";
const B2_NORMAL: &str = "BOLT 2 § Normal Operation";
const B2_FREE: &str = "BOLT 2, number not assigned";
const B7_QUERY: &str = "BOLT 7 § Query Messages";

/// Every type that this crate knows, by number. 37, 129 and 137 lie among the channel messages and are not assigned; they
/// are in the table so that a peer that uses one is treated as using BOLT 2, which is the safe side.
pub const MESSAGE_TYPES: &[TypeInfo] = &[
    row(1, "warning", Plane::Control, B1_ERROR),
    row(2, "stfu", Plane::Channel, "BOLT 2 § Channel Quiescence"),
    row(7, "peer_storage", Plane::Storage, B1_STORAGE),
    row(9, "peer_storage_retrieval", Plane::Storage, B1_STORAGE),
    row(16, "init", Plane::Control, "BOLT 1 § The init Message"),
    row(17, "error", Plane::Control, B1_ERROR),
    row(18, "ping", Plane::Control, B1_PING),
    row(19, "pong", Plane::Control, B1_PING),
    row(32, "open_channel", Plane::Channel, B2_V1),
    row(33, "accept_channel", Plane::Channel, B2_V1),
    row(34, "funding_created", Plane::Channel, B2_V1),
    row(35, "funding_signed", Plane::Channel, B2_V1),
    row(36, "channel_ready", Plane::Channel, B2_V1),
    row(37, "channel_37", Plane::Channel, B2_FREE),
    row(38, "shutdown", Plane::Channel, B2_CLOSE),
    row(39, "closing_signed", Plane::Channel, B2_CLOSE),
    row(40, "closing_complete", Plane::Channel, B2_CLOSE),
    row(41, "closing_sig", Plane::Channel, B2_CLOSE),
    row(64, "open_channel2", Plane::Channel, B2_V2),
    row(65, "accept_channel2", Plane::Channel, B2_V2),
    row(66, "tx_add_input", Plane::Channel, B2_TX),
    row(67, "tx_add_output", Plane::Channel, B2_TX),
    row(68, "tx_remove_input", Plane::Channel, B2_TX),
    row(69, "tx_remove_output", Plane::Channel, B2_TX),
    row(70, "tx_complete", Plane::Channel, B2_TX),
    row(71, "tx_signatures", Plane::Channel, B2_TX),
    row(72, "tx_init_rbf", Plane::Channel, B2_TX),
    row(73, "tx_ack_rbf", Plane::Channel, B2_TX),
    row(74, "tx_abort", Plane::Channel, B2_TX),
    row(77, "splice_locked", Plane::Channel, B2_SPLICE),
    row(80, "splice_init", Plane::Channel, B2_SPLICE),
    row(81, "splice_ack", Plane::Channel, B2_SPLICE),
    row(127, "start_batch", Plane::Channel, B2_SPLICE),
    row(128, "update_add_htlc", Plane::Channel, B2_NORMAL),
    row(129, "channel_129", Plane::Channel, B2_FREE),
    row(130, "update_fulfill_htlc", Plane::Channel, B2_NORMAL),
    row(131, "update_fail_htlc", Plane::Channel, B2_NORMAL),
    row(132, "commitment_signed", Plane::Channel, B2_NORMAL),
    row(133, "revoke_and_ack", Plane::Channel, B2_NORMAL),
    row(134, "update_fee", Plane::Channel, B2_NORMAL),
    row(135, "update_fail_malformed_htlc", Plane::Channel, B2_NORMAL),
    row(
        136,
        "channel_reestablish",
        Plane::Channel,
        "BOLT 2 § Message Retransmission",
    ),
    row(137, "channel_137", Plane::Channel, B2_FREE),
    row(
        256,
        "channel_announcement",
        Plane::Gossip,
        "BOLT 7 § The channel_announcement Message",
    ),
    row(
        257,
        "node_announcement",
        Plane::Gossip,
        "BOLT 7 § The node_announcement Message",
    ),
    row(
        258,
        "channel_update",
        Plane::Gossip,
        "BOLT 7 § The channel_update Message",
    ),
    row(
        259,
        "announcement_signatures",
        Plane::Channel,
        "BOLT 7 § The announcement_signatures Message",
    ),
    row(261, "query_short_channel_ids", Plane::Gossip, B7_QUERY),
    row(262, "reply_short_channel_ids_end", Plane::Gossip, B7_QUERY),
    row(263, "query_channel_range", Plane::Gossip, B7_QUERY),
    row(264, "reply_channel_range", Plane::Gossip, B7_QUERY),
    row(265, "gossip_timestamp_filter", Plane::Gossip, B7_QUERY),
    row(
        513,
        "onion_message",
        Plane::Onion,
        "BOLT 4 § Onion Messages",
    ),
];

/// The first number of BOLT 1's custom range.
pub const FIRST_CUSTOM: u16 = 32_768;

/// A message's type: the first two bytes, big-endian (BOLT 1 § Lightning Message Format).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageType(pub u16);

impl MessageType {
    /// `warning`
    pub const WARNING: Self = Self(1);
    /// `init`
    pub const INIT: Self = Self(16);
    /// `error`
    pub const ERROR: Self = Self(17);
    /// `ping`
    pub const PING: Self = Self(18);
    /// `pong`
    pub const PONG: Self = Self(19);
    /// `open_channel`
    pub const OPEN_CHANNEL: Self = Self(32);
    /// `open_channel2`
    pub const OPEN_CHANNEL2: Self = Self(64);
    /// `channel_reestablish`
    pub const CHANNEL_REESTABLISH: Self = Self(136);
    /// `channel_announcement`
    pub const CHANNEL_ANNOUNCEMENT: Self = Self(256);
    /// `node_announcement`
    pub const NODE_ANNOUNCEMENT: Self = Self(257);
    /// `channel_update`
    pub const CHANNEL_UPDATE: Self = Self(258);
    /// `query_short_channel_ids`
    pub const QUERY_SHORT_CHANNEL_IDS: Self = Self(261);
    /// `reply_short_channel_ids_end`
    pub const REPLY_SHORT_CHANNEL_IDS_END: Self = Self(262);
    /// `query_channel_range`
    pub const QUERY_CHANNEL_RANGE: Self = Self(263);
    /// `reply_channel_range`
    pub const REPLY_CHANNEL_RANGE: Self = Self(264);
    /// `gossip_timestamp_filter`
    pub const GOSSIP_TIMESTAMP_FILTER: Self = Self(265);

    /// The type of a whole message.
    ///
    /// # Errors
    /// [`WireError::NoType`] when there are fewer than two bytes.
    pub fn of(message: &[u8]) -> Result<Self, WireError> {
        message
            .first_chunk::<2>()
            .map(|bytes| Self(u16::from_be_bytes(*bytes)))
            .ok_or(WireError::NoType {
                length: message.len(),
            })
    }

    /// The table's row, if the BOLTs (or this table) know the type.
    pub fn info(self) -> Option<&'static TypeInfo> {
        MESSAGE_TYPES
            .binary_search_by_key(&self.0, |row| row.number)
            .ok()
            .and_then(|at| MESSAGE_TYPES.get(at))
    }

    /// Whether it tells of a node or a channel (BOLT 7), and not of what is asked for or was given.
    pub fn is_announcement(self) -> bool {
        matches!(
            self,
            Self::CHANNEL_ANNOUNCEMENT | Self::NODE_ANNOUNCEMENT | Self::CHANNEL_UPDATE
        )
    }

    /// Whether the table knows the type.
    pub fn is_known(self) -> bool {
        self.info().is_some()
    }

    /// BOLT 1's odd/even rule: an unknown odd type may be ignored, an unknown even one closes the connection.
    pub fn is_odd(self) -> bool {
        self.0 & 1 == 1
    }

    /// Whether the number is in BOLT 1's custom range, 32768 to 65535.
    pub fn is_custom_range(self) -> bool {
        self.0 >= FIRST_CUSTOM
    }

    /// What the message is about; `Custom` when the table does not know it.
    pub fn plane(self) -> Plane {
        self.info().map_or(Plane::Custom, |info| info.plane)
    }

    /// Whether a node can act on it, or may send it, only with its keys at hand: every channel message, onion messages
    /// (forwarding one takes an ECDH with the node key) and peer storage (blobs are sealed under a key derived from it).
    pub fn needs_signer(self) -> bool {
        matches!(self.plane(), Plane::Channel | Plane::Onion | Plane::Storage)
    }

    /// The BOLT's section, or the rule for what it does not assign.
    pub fn section(self) -> &'static str {
        self.info()
            .map_or("BOLT 1 § Lightning Message Format", |info| info.section)
    }

    /// A name of bounded variety for logs and the metric label `type`: the BOLT's own, or one of `custom_odd`,
    /// `custom_even`, `unknown_odd`, `unknown_even`.
    pub fn label(self) -> &'static str {
        match (self.info(), self.is_custom_range(), self.is_odd()) {
            (Some(info), _, _) => info.name,
            (None, true, true) => "custom_odd",
            (None, true, false) => "custom_even",
            (None, false, true) => "unknown_odd",
            (None, false, false) => "unknown_even",
        }
    }

    /// A buffer that starts with this type, with room for `body` more bytes.
    pub(super) fn begin(self, body: usize) -> Vec<u8> {
        let mut message = Vec::with_capacity(body.saturating_add(2));
        message.extend_from_slice(&self.0.to_be_bytes());
        message
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.label(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_a_search_finds_every_row() {
        assert!(MESSAGE_TYPES.is_sorted_by(|a, b| a.number < b.number));
        for info in MESSAGE_TYPES {
            assert_eq!(MessageType(info.number).info(), Some(info));
        }
    }

    #[test]
    fn names_are_unique_and_fit_for_a_metric_label() {
        let mut names: Vec<_> = MESSAGE_TYPES.iter().map(|info| info.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), MESSAGE_TYPES.len());
        assert!(names.iter().all(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        }));
    }

    #[test]
    fn what_the_bolts_do_not_assign_is_custom_and_labelled_by_its_parity() {
        for (number, label) in [
            (3, "unknown_odd"),
            (4, "unknown_even"),
            (32_767, "unknown_odd"),
            (32_768, "custom_even"),
            (65_535, "custom_odd"),
        ] {
            let kind = MessageType(number);
            assert_eq!((kind.label(), kind.plane()), (label, Plane::Custom));
            assert!(!kind.is_known() && !kind.needs_signer());
        }
    }

    #[test]
    fn control_and_gossip_never_need_the_signer() {
        for info in MESSAGE_TYPES {
            let free = matches!(info.plane, Plane::Control | Plane::Gossip);
            assert_eq!(
                MessageType(info.number).needs_signer(),
                !free,
                "{}",
                info.name
            );
        }
    }
}
