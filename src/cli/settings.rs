//! What the daemon runs with: defaults < the file < the environment < flags (clap lets a flag win over its variable).

use super::args::{
    FirewallChoice, GatewayArguments, GossipArguments, IdentityChoice, RedialChoice, RunArguments,
    SignerChoice, TorArguments, VARIABLES,
};
use super::config::{Config, ConfiguredPeer};
use super::failure::{Failure, nearest};
use super::logging::LogFormat;
use super::{peer_spec, span};
use crate::address::PeerAddress;
use crate::admin::DataDir;
use crate::limits;
use crate::node_id::NodeId;
use crate::signer::gateway::TlsIdentity;
use crate::supervisor::{IpNetwork, IpNetworkError};
use clap::ValueEnum;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// BOLT 1's port, on loopback until the operator says otherwise.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9735);
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9736);
const SIGNER_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9740);

/// All of it.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) data_dir: DataDir,
    pub(super) key_file: PathBuf,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) admin_hosts: Vec<String>,
    pub(super) scrape_needs_token: Option<bool>,
    pub(super) signer: SignerChoice,
    pub(super) gateway: GatewaySettings,
    pub(super) node_id: Option<NodeId>,
    /// `None`: as the answers are.
    pub(super) log: Option<LogFormat>,
    pub(super) peers: Vec<ConfiguredPeer>,
    pub(super) firewall: FirewallChoice,
    pub(super) identity: IdentityChoice,
    pub(super) gossip: GossipSettings,
    pub(super) max_session_age: Option<Duration>,
    pub(super) protected: Vec<IpNetwork>,
    pub(super) tor: TorSettings,
    /// Where the node tells others that it is.
    pub(super) announced: Vec<PeerAddress>,
    /// Whether the peer book's tags are right.
    pub(super) peers_declared: bool,
    /// Whether `/metrics` has series of single peers.
    pub(super) per_peer_metrics: bool,
}

/// The way to onion services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TorSettings {
    pub(super) proxy: Option<SocketAddr>,
    /// Every dial goes through the proxy.
    pub(super) everything: bool,
}

/// Gossip without a signer, and after it.
#[derive(Debug)]
pub(super) struct GossipSettings {
    pub(super) floor: usize,
    pub(super) redial: RedialChoice,
    pub(super) auto_sync: bool,
    pub(super) channel_peers: bool,
}

/// How a signer dials in.
#[derive(Debug)]
pub(super) struct GatewaySettings {
    pub(super) listen: SocketAddr,
    /// What the certificate names beside localhost and the loopback addresses, checked.
    pub(super) hosts: Vec<String>,
    pub(super) liveness_window: Duration,
}

/// The data directory of a command.
pub(super) fn data_dir(given: Option<PathBuf>) -> Result<DataDir, Failure> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let default = || {
        let base =
            absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
        Some(base.join("pilotlight"))
    };
    given.or_else(default).map(DataDir::at).ok_or_else(|| {
        Failure::usage(
            "no data directory: neither XDG_DATA_HOME nor HOME is set",
            "the environment",
            "give one with --data-dir",
        )
    })
}

/// The daemon's settings.
pub(super) fn resolve(given: Option<PathBuf>, run: RunArguments) -> Result<Settings, Failure> {
    check_environment()?;
    let config = load(run.config.as_deref())?;
    settle(config, given, run)
}

/// What a file of this text would make of it, with no flag given.
pub(super) fn of_text(path: &str, text: &str) -> Result<Settings, Failure> {
    let config = Config::parse(path, text.to_owned())?;
    settle(config, Some(PathBuf::new()), RunArguments::default())
}

fn settle(config: Config, given: Option<PathBuf>, run: RunArguments) -> Result<Settings, Failure> {
    let data_dir = data_dir(given.or_else(|| config.data_dir.clone()))?;
    let gateway = gateway(&run.gateway, run.liveness_window.as_deref(), &config)?;
    let node_id = match (&run.node_id, &config.node_id) {
        (Some(id), _) => Some(peer_spec::node_id(id, "--node-id")?),
        (None, Some(id)) => Some(peer_spec::node_id(id, config.path())?),
        (None, None) => None,
    };
    let key_file = run.key_file.or_else(|| config.key_file.clone());
    let log = config.log.as_ref();
    let log = log.map(|log| (log.get_ref().as_str(), config.place(log)));
    let firewall = config.firewall.as_ref();
    let firewall = firewall.map(|word| (word.get_ref().as_str(), config.place(word)));
    let identity = config.identity.as_ref();
    let identity = identity.map(|word| (word.get_ref().as_str(), config.place(word)));
    Ok(Settings {
        firewall: choice(None, firewall)?.unwrap_or_default(),
        identity: choice(run.identity, identity)?.unwrap_or_default(),
        gossip: gossip(&run.gossip, &config)?,
        max_session_age: max_session_age(&config)?,
        protected: protected(&config)?,
        tor: tor(&run.tor, &config)?,
        announced: config.announced.clone(),
        key_file: key_file.unwrap_or_else(|| data_dir.file("identity.key")),
        data_dir,
        listen: run.listen.or(config.listen).unwrap_or(LISTEN),
        admin: run.admin.or(config.admin).unwrap_or(ADMIN),
        signer: choice(run.signer, config.signer_kind())?.unwrap_or(SignerChoice::Embedded),
        gateway,
        log: choice(run.log, log)?,
        node_id,
        admin_hosts: config.admin_hosts,
        scrape_needs_token: config.scrape_needs_token,
        peers: config.known_peers,
        peers_declared: config.peers_declared,
        per_peer_metrics: config.metrics.per_peer,
    })
}

fn gossip(given: &GossipArguments, config: &Config) -> Result<GossipSettings, Failure> {
    let table = &config.gossip;
    let (floor, place) = match (given.gossip_floor, &table.floor) {
        (Some(floor), _) => (floor, "--gossip-floor".to_owned()),
        (None, Some(written)) => (*written.get_ref(), config.place(written)),
        (None, None) => (limits::GOSSIP_FLOOR, String::new()),
    };
    if floor > limits::GOSSIP_FLOOR_MAX {
        return Err(Failure::usage(
            format!(
                "a gossip floor of {floor} links is too high: {} is the most",
                limits::GOSSIP_FLOOR_MAX
            ),
            place,
            "give fewer; 5 is the default, and five peers relay all that there is",
        ));
    }
    let redial = table.redial.as_ref();
    let redial = redial.map(|word| (word.get_ref().as_str(), config.place(word)));
    Ok(GossipSettings {
        floor,
        redial: choice(given.gossip_redial, redial)?.unwrap_or_default(),
        auto_sync: given.gossip_auto_sync.or(table.auto_sync).unwrap_or(true),
        channel_peers: table.channel_peers,
    })
}

fn load(config: Option<&Path>) -> Result<Config, Failure> {
    Ok(config.map(Config::load).transpose()?.unwrap_or_default())
}

/// What a command on a gateway's files runs with: the data directory, and how the signer dials in.
pub(super) fn of_gateway(
    given: Option<PathBuf>,
    config: Option<&Path>,
    gateway_given: &GatewayArguments,
) -> Result<(DataDir, GatewaySettings), Failure> {
    check_environment()?;
    let config = load(config)?;
    let data_dir = data_dir(given.or_else(|| config.data_dir.clone()))?;
    Ok((data_dir, gateway(gateway_given, None, &config)?))
}

fn gateway(
    given: &GatewayArguments,
    window: Option<&str>,
    config: &Config,
) -> Result<GatewaySettings, Failure> {
    let written = config.signer_table();
    let table = written.as_ref().map(|(table, _)| *table);
    let listen = given
        .signer_listen
        .or_else(|| table?.listen)
        .unwrap_or(SIGNER_LISTEN);
    let (hosts, place) = match &written {
        Some((table, place)) if given.signer_host.is_empty() => (&table.hosts, place.as_str()),
        _ => (&given.signer_host, "--signer-host"),
    };
    let mut hosts = hosts.clone();
    for host in &hosts {
        TlsIdentity::check_host(host).map_err(|error| {
            Failure::usage(
                error.to_string(),
                place,
                "write a DNS name or an IP address, without a port",
            )
        })?;
    }
    let own = listen.ip().to_string();
    if !listen.ip().is_unspecified() && !listen.ip().is_loopback() && !hosts.contains(&own) {
        hosts.push(own);
    }
    let written = table.and_then(|table| table.liveness_window.as_ref());
    let liveness_window = match (window, written) {
        (Some(text), _) => liveness_window(text, "--liveness-window")?,
        (None, Some(text)) => liveness_window(text.get_ref(), &config.place(text))?,
        (None, None) => limits::LIVENESS_WINDOW,
    };
    Ok(GatewaySettings {
        listen,
        hosts,
        liveness_window,
    })
}

fn tor(given: &TorArguments, config: &Config) -> Result<TorSettings, Failure> {
    let settings = TorSettings {
        proxy: given.tor_proxy.or(config.tor.proxy),
        everything: given.tor_everything || config.tor.everything,
    };
    if settings.everything && settings.proxy.is_none() {
        return Err(Failure::usage(
            "everything shall be dialled through Tor, and no proxy is given",
            "tor.everything or --tor-everything",
            "give Tor's SOCKS5 proxy with --tor-proxy, such as 127.0.0.1:9050",
        ));
    }
    Ok(settings)
}

fn liveness_window(text: &str, place: &str) -> Result<Duration, Failure> {
    let window = span::parse(text, place)?;
    if window < limits::LIVENESS_WINDOW_MIN {
        return Err(Failure::usage(
            format!(
                "a liveness window of {text} is too short: below {} s a busy machine looks like a dead signer",
                limits::LIVENESS_WINDOW_MIN.as_secs()
            ),
            place,
            "give 1s or more; 3s is the default",
        ));
    }
    if window > limits::LIVENESS_WINDOW_MAX {
        return Err(Failure::usage(
            format!(
                "a liveness window of {text} is too long: for more than {} s channel links would stay up without a signer",
                limits::LIVENESS_WINDOW_MAX.as_secs()
            ),
            place,
            "give 60s or less; 3s is the default",
        ));
    }
    Ok(window)
}

fn max_session_age(config: &Config) -> Result<Option<Duration>, Failure> {
    let Some(written) = &config.vault.max_session_age else {
        return Ok(None);
    };
    let (text, place) = (written.get_ref(), config.place(written));
    let age = span::parse(text, &place)?;
    if age < limits::SESSION_AGE_MIN {
        let least = limits::SESSION_AGE_MIN.as_secs();
        return Err(Failure::usage(
            format!(
                "a session age of {text} is too short: every link would be made anew within {least} s"
            ),
            place,
            "give 10m or more, or leave it out: BOLT 8 sets no limit",
        ));
    }
    Ok(Some(age))
}

fn protected(config: &Config) -> Result<Vec<IpNetwork>, Failure> {
    let to_do = "write an IP address or a network, such as 192.0.2.7 or 2001:db8::/32";
    if let Some(beyond) = config.protected.get(limits::PROTECTED_MAX) {
        let what = format!("more than {} protected networks", limits::PROTECTED_MAX);
        let to_do = "put neighbouring ones together";
        return Err(Failure::usage(what, config.place(beyond), to_do));
    }
    let networks = config.protected.iter().map(|written| {
        let network = written.get_ref().parse();
        network.map_err(|error: IpNetworkError| {
            Failure::usage(error.to_string(), config.place(written), to_do)
        })
    });
    networks.collect()
}

/// A word that has few values: the flag's, or else the file's.
fn choice<T: ValueEnum>(
    flag: Option<T>,
    written: Option<(&str, String)>,
) -> Result<Option<T>, Failure> {
    let (None, Some((word, place))) = (&flag, written) else {
        return Ok(flag);
    };
    if let Ok(value) = T::from_str(word, false) {
        return Ok(Some(value));
    }
    let variants = T::value_variants().iter();
    let names: Vec<String> = variants
        .filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()))
        .collect();
    Err(Failure::usage(
        format!("unknown value {word:?}"),
        place,
        format!("write one of: {}", names.join(", ")),
    ))
}

/// A misspelt variable would otherwise be a setting that silently does nothing.
fn check_environment() -> Result<(), Failure> {
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("PILOTLIGHT_")) else {
            continue;
        };
        if !VARIABLES.contains(&name) {
            let like = nearest(name, VARIABLES).unwrap_or_default();
            return Err(Failure::usage(
                format!("unknown variable {name}; the nearest known one is {like}"),
                "the environment",
                format!("correct or unset it; known: {}", VARIABLES.join(", ")),
            ));
        }
    }
    Ok(())
}
