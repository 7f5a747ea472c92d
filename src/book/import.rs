//! Peers as other nodes list them, read into records: what `lncli` and `lightning-cli` print, as JSON.
//!
//! | command | list | a peer | tag |
//! |---|---|---|---|
//! | `lncli listpeers` | `peers` | `pub_key`, `address` unless `inbound` | none: lnd does not say here who has channels |
//! | `lncli listchannels` | `channels` | `remote_pubkey` | channel-bearing |
//! | `lncli describegraph` | `nodes`, `edges` | `pub_key`, `addresses[].addr` | channel-bearing if an edge leads to our own node |
//! | `lightning-cli listpeers` | `peers` | `id`, `netaddr[]` | channel-bearing if `num_channels` is not 0 |
//! | `lightning-cli listpeerchannels` | `channels` | `peer_id` | channel-bearing |
//!
//! The names are those of lnd's `lightning.proto` and of Core Lightning's `doc/schemas`. Nobody is tagged gossip-only here: a file
//! tells what was, and a channel may have been opened since. This file never reads a file, resolves a name or dials.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::PeerRecord;
use crate::address::{AddressError, KnownAddress, PeerAddress};
use crate::error::{Culprit, Retry};
use crate::limits;
use crate::link::Tag;
use crate::node_id::{NodeId, POINT_LEN};
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// What a file held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// One record a peer, in the order of their node ids.
    pub records: Vec<PeerRecord>,
    /// What became of the rest.
    pub counts: Counts,
}

/// What was read, and what was left out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Entries in the list.
    pub entries: usize,
    /// Of those, peers that had one before: they are merged with it.
    pub repeated: usize,
    /// Of those, our own node.
    pub own: usize,
    /// Records that no address is known for. They can be awaited, not dialled.
    pub without_address: usize,
    /// Addresses that were left out, by why.
    pub skipped: Skipped,
}

/// Addresses that were left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Onion services of the kind that Tor does not carry any more, or whose checksum is wrong.
    pub tor: usize,
    /// Where a peer had dialled from: nobody listens there.
    pub inbound: usize,
    /// Nothing that can be dialled: no port, an address that stands for all or for many, or no address or name at all.
    pub unusable: usize,
    /// More than [`ADDRESSES_MAX`](limits::ADDRESSES_MAX) of one peer's.
    pub surplus: usize,
}

impl Skipped {
    /// All of them.
    pub fn total(&self) -> usize {
        [self.tor, self.inbound, self.unusable, self.surplus]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    fn add(&mut self, other: Self) {
        self.tor = self.tor.saturating_add(other.tor);
        self.inbound = self.inbound.saturating_add(other.inbound);
        self.unusable = self.unusable.saturating_add(other.unusable);
        self.surplus = self.surplus.saturating_add(other.surplus);
    }
}

/// Why a file cannot be imported. Nothing of it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file is longer than any that the commands print.
    #[error("{got} bytes are more than an import may have, {most}")]
    TooLong {
        /// Its length in bytes.
        got: usize,
        /// The bound.
        most: usize,
    },
    /// Not JSON, or not what the commands print.
    #[error("line {line}, column {column}: {detail}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// The column in bytes, from 1.
        column: usize,
        /// What is wrong there.
        detail: String,
    },
    /// None of the lists is there, or more than one.
    #[error("the file has {found}; it should have one of: peers, nodes, channels")]
    WhichList {
        /// The lists that are there.
        found: String,
    },
    /// More peers than the supervisor takes.
    #[error("the file names more than {most} peers")]
    TooMany {
        /// The bound.
        most: usize,
    },
}

impl ImportError {
    /// Whose fault it is: whoever wrote the file.
    pub fn culprit(&self) -> Culprit {
        Culprit::Operator
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "limits::IMPORT_FILE_MAX",
            Self::TooMany { .. } => "limits::PEERS_MAX",
            _ => {
                "JSON of lncli listpeers, listchannels or describegraph, or of lightning-cli listpeers or listpeerchannels"
            }
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

/// Reads one file. `own` is our own node: it is left out, and in a graph its neighbours are channel-bearing.
///
/// ```
/// use pilotlight::book::import;
/// let json = br#"{ "peers": [ {
///     "id": "0266e4598d1d3c415f572a8488830b60f7e744ed9235eb0b1ba93283b315c03518",
///     "connected": true, "num_channels": 1, "netaddr": [ "192.0.2.7:9735" ]
/// } ] }"#;
/// let import = import::read(json, None)?;
/// assert_eq!(import.records.len(), 1);
/// # Ok::<(), import::ImportError>(())
/// ```
///
/// # Errors
/// The file is too long, malformed, or none of those that are known; or it names too many peers.
pub fn read(json: &[u8], own: Option<NodeId>) -> Result<Import, ImportError> {
    if json.len() > limits::IMPORT_FILE_MAX {
        return Err(ImportError::TooLong {
            got: json.len(),
            most: limits::IMPORT_FILE_MAX,
        });
    }
    let file: File = serde_json::from_slice(json).map_err(|error| malformed(&error))?;
    let mut found = Gathered {
        own,
        records: BTreeMap::new(),
        counts: Counts::default(),
    };
    match (file.peers, file.nodes, file.channels) {
        (Some(peers), None, None) => {
            for peer in peers.0 {
                let (id, tag, addresses) = peer.judge();
                found.take(id, tag, addresses)?;
            }
        }
        (None, Some(nodes), None) => {
            for node in nodes.0 {
                found.take(node.pub_key.0, None, node.addresses.unwrap_or_default())?;
            }
            found.neighbours(&file.edges.unwrap_or_default().0);
        }
        (None, None, Some(channels)) => {
            for channel in channels.0 {
                let tag = Some(Tag::ChannelBearing);
                found.take(channel.peer.0, tag, Addresses::default())?;
            }
        }
        (peers, nodes, channels) => {
            let lists = [
                ("peers", peers.is_some()),
                ("nodes", nodes.is_some()),
                ("channels", channels.is_some()),
            ];
            let there: Vec<_> = lists
                .iter()
                .filter(|list| list.1)
                .map(|list| list.0)
                .collect();
            return Err(ImportError::WhichList {
                found: match there.as_slice() {
                    [] => "none of the known lists".into(),
                    there => there.join(" and "),
                },
            });
        }
    }
    Ok(found.finish())
}

/// The place is in the error already, and serde repeats it in its text.
fn malformed(error: &serde_json::Error) -> ImportError {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let place = format!(" at line {line} column {column}");
    ImportError::Malformed {
        line,
        column,
        detail: text.strip_suffix(&place).unwrap_or(&text).into(),
    }
}

struct Gathered {
    own: Option<NodeId>,
    records: BTreeMap<NodeId, PeerRecord>,
    counts: Counts,
}

impl Gathered {
    fn take(
        &mut self,
        node_id: NodeId,
        tag: Option<Tag>,
        addresses: Addresses,
    ) -> Result<(), ImportError> {
        self.counts.entries = self.counts.entries.saturating_add(1);
        if self.own == Some(node_id) {
            self.counts.own = self.counts.own.saturating_add(1);
            return Ok(());
        }
        self.counts.skipped.add(addresses.skipped);
        if let Some(known) = self.records.get_mut(&node_id) {
            self.counts.repeated = self.counts.repeated.saturating_add(1);
            // The only tag there is.
            known.tag = known.tag.or(tag);
            for address in addresses.usable {
                keep(&mut known.addresses, address, &mut self.counts.skipped);
            }
            return Ok(());
        }
        if self.records.len() >= limits::PEERS_MAX {
            return Err(ImportError::TooMany {
                most: limits::PEERS_MAX,
            });
        }
        let record = PeerRecord {
            node_id,
            addresses: addresses.usable,
            tag,
            weight: 0,
        };
        self.records.insert(node_id, record);
        Ok(())
    }

    fn neighbours(&mut self, edges: &[Edge]) {
        let Some(own) = self.own else {
            return;
        };
        let own = own.to_string();
        for edge in edges {
            let other = match (edge.node1_pub.is(&own), edge.node2_pub.is(&own)) {
                (true, false) => &edge.node2_pub,
                (false, true) => &edge.node1_pub,
                _ => continue,
            };
            // Text that is no node id names nobody in the list.
            if let Ok(other) = other.0.parse::<NodeId>()
                && let Some(record) = self.records.get_mut(&other)
            {
                record.tag = Some(Tag::ChannelBearing);
            }
        }
    }

    fn finish(mut self) -> Import {
        let records: Vec<_> = self.records.into_values().collect();
        let without = records.iter().filter(|peer| peer.addresses.is_empty());
        self.counts.without_address = without.count();
        Import {
            records,
            counts: self.counts,
        }
    }
}

/// Adds an address unless it is there already or there are enough.
fn keep(addresses: &mut Vec<KnownAddress>, address: KnownAddress, skipped: &mut Skipped) {
    if addresses.contains(&address) {
        return;
    }
    if addresses.len() < limits::ADDRESSES_MAX {
        addresses.push(address);
    } else {
        skipped.surplus = skipped.surplus.saturating_add(1);
    }
}

// What follows mirrors the files. Fields that are not named here are skipped unread.

#[derive(Deserialize)]
#[serde(expecting = "an object with `peers`, `nodes` or `channels`")]
struct File {
    peers: Option<List<Peer>>,
    nodes: Option<List<Node>>,
    channels: Option<List<Channel>>,
    edges: Option<List<Edge>>,
}

/// An entry of `peers`, lnd's or Core Lightning's.
#[derive(Deserialize)]
struct Peer {
    #[serde(rename = "pub_key", alias = "id")]
    node_id: Id,
    address: Option<Addresses>,
    #[serde(default)]
    inbound: bool,
    netaddr: Option<Addresses>,
    num_channels: Option<u64>,
    /// Core Lightning's before v23.02.
    channels: Option<List<IgnoredAny>>,
}

impl Peer {
    fn judge(self) -> (NodeId, Option<Tag>, Addresses) {
        let channels = self.num_channels.is_some_and(|channels| channels > 0)
            || self.channels.is_some_and(|channels| !channels.0.is_empty());
        let mut addresses = self.address.or(self.netaddr).unwrap_or_default();
        if self.inbound {
            let dialled_from = addresses.skipped.total();
            let inbound = dialled_from.saturating_add(addresses.usable.len());
            addresses = Addresses::default();
            addresses.skipped.inbound = inbound;
        }
        let tag = channels.then_some(Tag::ChannelBearing);
        (self.node_id.0, tag, addresses)
    }
}

#[derive(Deserialize)]
struct Node {
    pub_key: Id,
    addresses: Option<Addresses>,
}

#[derive(Deserialize)]
struct Channel {
    #[serde(rename = "remote_pubkey", alias = "peer_id")]
    peer: Id,
}

#[derive(Deserialize)]
struct Edge {
    node1_pub: Name,
    node2_pub: Name,
}

/// A node id whose point is not looked at: a graph names each of its nodes many times.
struct Name(Box<str>);

impl Name {
    fn is(&self, id: &str) -> bool {
        self.0.eq_ignore_ascii_case(id)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        if text.0.len() == 2 * POINT_LEN {
            Ok(Self(text.0.into()))
        } else {
            Err(D::Error::custom("a node id has 66 hex digits"))
        }
    }
}

struct Id(NodeId);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.0.parse().map(Self).map_err(D::Error::custom)
    }
}

/// A text, borrowed from the file where it can be.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A list of no more than [`IMPORT_ENTRIES_MAX`](limits::IMPORT_ENTRIES_MAX) entries.
struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    if entries.len() >= limits::IMPORT_ENTRIES_MAX {
                        let most = limits::IMPORT_ENTRIES_MAX;
                        return Err(A::Error::custom(format!("more than {most} entries")));
                    }
                    entries.push(entry);
                }
                Ok(List(entries))
            }
        }

        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

/// The addresses of a peer: one text, or a list of texts or of `{ "addr": text }`. Judged as they are read, since a node may
/// announce thousands.
#[derive(Default)]
struct Addresses {
    usable: Vec<KnownAddress>,
    skipped: Skipped,
}

impl Addresses {
    fn judge(&mut self, text: &str) {
        let Self { usable, skipped } = self;
        let unusable = &mut skipped.unusable;
        if text.len() > limits::ADDRESS_TEXT_MAX {
            *unusable = unusable.saturating_add(1);
            return;
        }
        match text.parse::<PeerAddress>() {
            Ok(address) => keep(usable, KnownAddress::learned(address), skipped),
            Err(AddressError::Onion { .. }) => skipped.tor = skipped.tor.saturating_add(1),
            Err(_) => *unusable = unusable.saturating_add(1),
        }
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or a list of addresses")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let mut addresses = Addresses::default();
                addresses.judge(text);
                Ok(addresses)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut addresses = Addresses::default();
                while let Some(entry) = seq.next_element::<Entry<'de>>()? {
                    let (Entry::Bare(text) | Entry::Named { addr: text }) = entry;
                    addresses.judge(&text.0);
                }
                Ok(addresses)
            }
        }

        #[derive(Deserialize)]
        #[serde(untagged, expecting = "an address is a text, or an object with `addr`")]
        enum Entry<'a> {
            Bare(#[serde(borrow)] Text<'a>),
            Named {
                #[serde(borrow)]
                addr: Text<'a>,
            },
        }

        deserializer.deserialize_any(Any)
    }
}
