//! The configuration file. An error names the file, the line, the key, and for an unknown key the nearest known one.

use super::failure::{Failure, nearest};
use super::peer_spec;
use crate::address::PeerAddress;
use crate::limits;
use crate::link::Tag;
use crate::node_id::NodeId;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys at the top, as the README lists them.
const KEYS: &[&str] = &[
    "admin",
    "admin_hosts",
    "announces",
    "data_dir",
    "firewall",
    "gossip",
    "identity",
    "key_file",
    "listen",
    "log",
    "metrics",
    "node_id",
    "peers",
    "peers_declared",
    "protected",
    "scrape_needs_token",
    "signer",
    "tor",
    "vault",
];

/// The keys of a `[[peers]]`.
const PEER_KEYS: &[&str] = &["address", "addresses", "id", "tag", "weight"];

/// The keys of a `[signer]`.
pub(super) const SIGNER_KEYS: &[&str] = &["hosts", "kind", "listen", "liveness_window"];

/// The keys of a `[tor]`.
const TOR_KEYS: &[&str] = &["everything", "proxy"];

/// The keys of a `[vault]`.
const VAULT_KEYS: &[&str] = &["max_session_age"];

/// The keys of a `[gossip]`.
const GOSSIP_KEYS: &[&str] = &["auto_sync", "channel_peers", "floor", "redial"];

/// The keys of a `[metrics]`.
const METRICS_KEYS: &[&str] = &["per_peer"];

/// The file as it is written; what is absent is `None`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Config {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    /// Further names under which the admin address may be addressed.
    #[serde(default)]
    pub(super) admin_hosts: Vec<String>,
    /// Whether `/metrics` and `/readyz` need a token even on loopback, or none even elsewhere.
    pub(super) scrape_needs_token: Option<bool>,
    signer: Option<Spanned<WrittenSigner>>,
    pub(super) node_id: Option<String>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) log: Option<Spanned<String>>,
    pub(super) firewall: Option<Spanned<String>>,
    pub(super) identity: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) gossip: GossipTable,
    #[serde(default)]
    pub(super) vault: VaultTable,
    #[serde(default)]
    pub(super) metrics: MetricsTable,
    #[serde(default)]
    pub(super) tor: TorTable,
    /// Where the node tells others that it is.
    #[serde(default)]
    announces: Vec<Spanned<String>>,
    /// The same, read.
    #[serde(skip)]
    pub(super) announced: Vec<PeerAddress>,
    /// Whether the operator says that the peer book's tags are right.
    #[serde(default)]
    pub(super) peers_declared: bool,
    /// Networks whose strangers are free of the bounds on strangers.
    #[serde(default)]
    pub(super) protected: Vec<Spanned<String>>,
    #[serde(default)]
    peers: Vec<Spanned<WrittenPeer>>,
    /// The peers, read.
    #[serde(skip)]
    pub(super) known_peers: Vec<ConfiguredPeer>,
    #[serde(skip)]
    source: Source,
}

/// A word, or a table with that word as its `kind`.
#[derive(Debug)]
enum WrittenSigner {
    Word(String),
    Table(SignerTable),
}

/// A `[signer]`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct SignerTable {
    kind: Option<Spanned<String>>,
    pub(super) listen: Option<SocketAddr>,
    #[serde(default)]
    pub(super) hosts: Vec<String>,
    pub(super) liveness_window: Option<Spanned<String>>,
}

/// A `[tor]`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TorTable {
    pub(super) proxy: Option<SocketAddr>,
    #[serde(default)]
    pub(super) everything: bool,
}

/// A `[vault]`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct VaultTable {
    pub(super) max_session_age: Option<Spanned<String>>,
}

/// A `[gossip]`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct GossipTable {
    pub(super) floor: Option<Spanned<usize>>,
    pub(super) redial: Option<Spanned<String>>,
    pub(super) auto_sync: Option<bool>,
    /// Whether channel peers may meet a persona too.
    #[serde(default)]
    pub(super) channel_peers: bool,
}

/// A `[metrics]`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct MetricsTable {
    /// Whether `/metrics` has series of single peers.
    #[serde(default)]
    pub(super) per_peer: bool,
}

impl<'de> Deserialize<'de> for WrittenSigner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = WrittenSigner;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"embedded\", \"gateway\" or a table")
            }

            fn visit_str<E>(self, word: &str) -> Result<WrittenSigner, E> {
                Ok(WrittenSigner::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenSigner, A::Error> {
                SignerTable::deserialize(MapAccessDeserializer::new(map)).map(WrittenSigner::Table)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize)]
struct WrittenPeer {
    id: String,
    address: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
    tag: String,
    weight: Option<u32>,
}

/// A peer of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfiguredPeer {
    pub(super) id: NodeId,
    /// At least one.
    pub(super) addresses: Vec<PeerAddress>,
    pub(super) tag: Tag,
    pub(super) weight: Option<u32>,
}

/// For errors: the file, and its text to count lines in.
#[derive(Debug, Default, Clone)]
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn at(&self, span: &Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or_default();
        format!("{}, line {}", self.path, before.matches('\n').count() + 1)
    }
}

impl Config {
    /// Reads a file.
    pub(super) fn load(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(
                format!("cannot read the configuration: {error}"),
                path.display().to_string(),
                "give a TOML file that this user can read with --config, or none for the defaults",
            )
        })?;
        Self::parse(&path.display().to_string(), text)
    }

    /// Reads its text; `path` is for errors.
    pub(super) fn parse(path: &str, text: String) -> Result<Self, Failure> {
        let source = Source {
            path: path.to_owned(),
            text,
        };
        let wrong = |error: &toml::de::Error| {
            let place = error
                .span()
                .map_or_else(|| source.path.clone(), |span| source.at(&span));
            Failure::usage(
                error.message().to_owned(),
                place,
                "see the README's table of settings",
            )
        };
        let table = DeTable::parse(&source.text).map_err(|error| wrong(&error))?;
        check_keys(&source, table.get_ref(), KEYS)?;
        for peer in tables(table.get_ref(), "peers") {
            check_keys(&source, peer, PEER_KEYS)?;
        }
        for (name, keys) in [
            ("signer", SIGNER_KEYS),
            ("tor", TOR_KEYS),
            ("vault", VAULT_KEYS),
            ("gossip", GOSSIP_KEYS),
            ("metrics", METRICS_KEYS),
        ] {
            let written = table.get_ref().get(name);
            if let Some(written) = written.and_then(|written| written.get_ref().as_table()) {
                check_keys(&source, written, keys)?;
            }
        }
        let mut config: Self = toml::from_str(&source.text).map_err(|error| wrong(&error))?;
        for text in std::mem::take(&mut config.announces) {
            let place = source.at(&text.span());
            let address = peer_spec::peer_address(text.get_ref(), &place)?;
            config.announced.push(address);
        }
        for peer in std::mem::take(&mut config.peers) {
            let place = source.at(&peer.span());
            config.known_peers.push(read_peer(peer.get_ref(), &place)?);
        }
        config.source = source;
        Ok(config)
    }

    /// Where a value stands, for an error about it.
    pub(super) fn place<T>(&self, value: &Spanned<T>) -> String {
        self.source.at(&value.span())
    }

    /// The word that says where the signer is, and where it stands.
    pub(super) fn signer_kind(&self) -> Option<(&str, String)> {
        let signer = self.signer.as_ref()?;
        match signer.get_ref() {
            WrittenSigner::Word(word) => Some((word, self.place(signer))),
            WrittenSigner::Table(table) => {
                let kind = table.kind.as_ref()?;
                Some((kind.get_ref(), self.place(kind)))
            }
        }
    }

    /// The `[signer]`, if there is one, and where it stands.
    pub(super) fn signer_table(&self) -> Option<(&SignerTable, String)> {
        let signer = self.signer.as_ref()?;
        match signer.get_ref() {
            WrittenSigner::Word(_) => None,
            WrittenSigner::Table(table) => Some((table, self.place(signer))),
        }
    }

    /// The file itself, for an error about it.
    pub(super) fn path(&self) -> &str {
        &self.source.path
    }
}

fn tables<'a, 'i>(table: &'a DeTable<'i>, key: &str) -> Vec<&'a DeTable<'i>> {
    let entry = table.iter().find(|(name, _)| name.get_ref() == key);
    match entry.map(|(_, value)| value.get_ref()) {
        Some(DeValue::Array(items)) => items
            .iter()
            .filter_map(|item| item.get_ref().as_table())
            .collect(),
        _ => Vec::new(),
    }
}

fn check_keys(source: &Source, table: &DeTable<'_>, known: &[&str]) -> Result<(), Failure> {
    for (key, _) in table {
        let name: &str = key.get_ref();
        if known.contains(&name) {
            continue;
        }
        let like = nearest(name, known).map_or_else(String::new, |like| {
            format!("; the nearest known one is {like:?}")
        });
        return Err(Failure::usage(
            format!("unknown key {name:?}{like}"),
            source.at(&key.span()),
            format!("correct or remove it; known here: {}", known.join(", ")),
        ));
    }
    Ok(())
}

fn read_peer(peer: &WrittenPeer, place: &str) -> Result<ConfiguredPeer, Failure> {
    let written: Vec<_> = peer.address.iter().chain(&peer.addresses).collect();
    let most = limits::ADDRESSES_MAX;
    if written.is_empty() || written.len() > most {
        return Err(Failure::usage(
            format!("the peer has {} addresses", written.len()),
            place,
            format!("give one as address, or up to {most} as addresses"),
        ));
    }
    let mut addresses = Vec::new();
    for text in written {
        addresses.push(peer_spec::peer_address(text, place)?);
    }
    Ok(ConfiguredPeer {
        id: peer_spec::node_id(&peer.id, place)?,
        addresses,
        tag: peer_spec::tag(&peer.tag, place)?,
        weight: peer.weight,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const ID: &str = "03864ef025fde8fb587d989186ce6a4a186895ee44a926bfc370e2c366597a3f8f";

    fn failure(text: &str) -> (String, String) {
        let problem = Config::parse("p.toml", text.to_owned())
            .unwrap_err()
            .problem;
        (problem.what, problem.place)
    }

    #[test]
    fn the_readme_lists_every_key_and_variable() {
        let readme = include_str!("../../README.md");
        let tables = ["peers", "tor", "vault", "gossip", "metrics"];
        let keys = KEYS.iter().filter(|key| !tables.contains(key));
        let keys = keys.chain(PEER_KEYS);
        let variables = crate::cli::args::VARIABLES;
        for name in keys.chain(variables) {
            assert!(readme.contains(&format!("`{name}`")), "{name}");
        }
        for key in TOR_KEYS {
            assert!(readme.contains(&format!("`tor.{key}`")), "{key}");
        }
        for key in VAULT_KEYS {
            assert!(readme.contains(&format!("`vault.{key}`")), "{key}");
        }
        for key in GOSSIP_KEYS {
            assert!(readme.contains(&format!("`gossip.{key}`")), "{key}");
        }
        for key in METRICS_KEYS {
            assert!(readme.contains(&format!("`metrics.{key}`")), "{key}");
        }
        for key in SIGNER_KEYS.iter().filter(|key| **key != "kind") {
            assert!(readme.contains(&format!("`signer.{key}`")), "{key}");
        }
        assert!(readme.contains("`[[peers]]`") && readme.contains("`[signer]`"));
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = format!(
            "listen = \"127.0.0.1:1\"\nadmin = \"[::1]:2\"\nadmin_hosts = [\"n.lan\"]\nscrape_needs_token = true\n\
             [[peers]]\nid = \"{ID}\"\naddress = \"node.example:9735\"\ntag = \"channel-bearing\"\nweight = 3\n"
        );
        let config = Config::parse("p.toml", text).unwrap();
        assert_eq!(config.listen, Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(
            (config.admin_hosts.len(), config.scrape_needs_token),
            (1, Some(true))
        );
        let peer = &config.known_peers[0];
        assert_eq!(
            (peer.id.to_string().as_str(), peer.tag, peer.weight),
            (ID, Tag::ChannelBearing, Some(3))
        );
    }

    #[test]
    fn the_signer_is_a_word_or_a_table() {
        let word = Config::parse("p.toml", "\nsigner = \"gateway\"\n".to_owned()).unwrap();
        assert_eq!(
            word.signer_kind(),
            Some(("gateway", "p.toml, line 2".to_owned()))
        );
        assert!(word.signer_table().is_none());
        let text = "[signer]\nkind = \"gateway\"\nlisten = \"192.0.2.1:9740\"\nhosts = [\"n.lan\"]\n\nliveness_window = \"5s\"\n";
        let table = Config::parse("p.toml", text.to_owned()).unwrap();
        assert_eq!(
            table.signer_kind(),
            Some(("gateway", "p.toml, line 2".to_owned()))
        );
        let (signer, _) = table.signer_table().unwrap();
        assert_eq!(signer.listen, Some("192.0.2.1:9740".parse().unwrap()));
        assert_eq!(signer.hosts, ["n.lan"]);
        let window = signer.liveness_window.as_ref().unwrap();
        assert_eq!(
            (window.get_ref().as_str(), table.place(window).as_str()),
            ("5s", "p.toml, line 6")
        );
        assert_eq!(
            failure("[signer]\nkind = \"gateway\"\nlissten = \"a\"\n"),
            (
                "unknown key \"lissten\"; the nearest known one is \"listen\"".to_owned(),
                "p.toml, line 3".to_owned()
            )
        );
        assert_eq!(failure("signer = 3\n").1, "p.toml, line 1");
        assert_eq!(failure("[signer]\n\nlisten = 3\n").1, "p.toml, line 3");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
        let (what, place) = failure("# first\nlisten = \"127.0.0.1:1\"\nlissten = 3\n");
        assert_eq!(
            what,
            "unknown key \"lissten\"; the nearest known one is \"listen\""
        );
        assert_eq!(place, "p.toml, line 3");
        let (what, place) = failure(&format!(
            "\n[[peers]]\nid = \"{ID}\"\nadress = \"a:1\"\ntag = \"gossip-only\"\n"
        ));
        assert_eq!(
            (what.as_str(), place.as_str()),
            (
                "unknown key \"adress\"; the nearest known one is \"address\"",
                "p.toml, line 4"
            )
        );
        assert_eq!(failure("qqqq = 1").0, "unknown key \"qqqq\"");
        let (what, place) = failure("[metrics]\nper_pier = true\n");
        assert_eq!(
            (what.as_str(), place.as_str()),
            (
                "unknown key \"per_pier\"; the nearest known one is \"per_peer\"",
                "p.toml, line 2"
            )
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line() {
        assert_eq!(failure("\nlisten = 5\n").1, "p.toml, line 2");
        assert_eq!(failure("a = \n").1, "p.toml, line 1");
        let (what, place) = failure(&format!(
            "[[peers]]\nid = \"{ID}\"\naddress = \"nohost\"\ntag = \"gossip-only\"\n"
        ));
        assert!(
            what.contains("PORT is missing") && place.starts_with("p.toml, line 1"),
            "{what} {place}"
        );
        let (what, _) = failure(&format!(
            "[[peers]]\nid = \"{ID}\"\naddress = \"h:1\"\ntag = \"chanel\"\n"
        ));
        assert!(what.contains("unknown tag"), "{what}");
        assert!(
            failure(&format!("[[peers]]\nid = \"{ID}\"\n"))
                .0
                .contains("missing field")
        );
    }
}
