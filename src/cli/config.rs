//! The configuration file. An error names the file, the line, the key, and for an unknown key the nearest known one.

use super::failure::{Failure, nearest};
use super::peer_spec;
use crate::admin::HostPort;
use crate::link::Tag;
use crate::node_id::NodeId;
use serde::Deserialize;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys at the top, as the README lists them.
const KEYS: &[&str] = &[
    "admin",
    "admin_hosts",
    "data_dir",
    "key_file",
    "listen",
    "log",
    "node_id",
    "peers",
    "scrape_needs_token",
    "signer",
];

/// The keys of a `[[peers]]`.
const PEER_KEYS: &[&str] = &["address", "id", "tag", "weight"];

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
    pub(super) signer: Option<Spanned<String>>,
    pub(super) node_id: Option<String>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) log: Option<Spanned<String>>,
    #[serde(default)]
    peers: Vec<Spanned<WrittenPeer>>,
    /// The peers, read.
    #[serde(skip)]
    pub(super) known_peers: Vec<ConfiguredPeer>,
    #[serde(skip)]
    source: Source,
}

#[derive(Debug, Deserialize)]
struct WrittenPeer {
    id: String,
    address: String,
    tag: String,
    weight: Option<u32>,
}

/// A peer of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfiguredPeer {
    pub(super) id: NodeId,
    pub(super) address: HostPort,
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

    fn parse(path: &str, text: String) -> Result<Self, Failure> {
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
        let mut config: Self = toml::from_str(&source.text).map_err(|error| wrong(&error))?;
        for peer in std::mem::take(&mut config.peers) {
            let place = source.at(&peer.span());
            config.known_peers.push(read_peer(peer.get_ref(), &place)?);
        }
        config.source = source;
        Ok(config)
    }

    /// Where a value stands, for an error about it.
    pub(super) fn place(&self, value: &Spanned<String>) -> String {
        self.source.at(&value.span())
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
    let spec = peer_spec::peer(&format!("{}@{}", peer.id, peer.address), place)?;
    let tag = peer_spec::tag(&peer.tag, place)?;
    Ok(ConfiguredPeer {
        id: spec.id,
        address: spec.address,
        tag,
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
