//! What the daemon runs with: defaults < the file < the environment < flags (clap lets a flag win over its variable).

use super::args::{RunArguments, SignerChoice, VARIABLES};
use super::config::{Config, ConfiguredPeer};
use super::failure::{Failure, nearest};
use super::logging::LogFormat;
use super::peer_spec;
use crate::admin::DataDir;
use crate::node_id::NodeId;
use clap::ValueEnum;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// BOLT 1's port, on loopback until the operator says otherwise.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9735);
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9736);

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
    pub(super) node_id: Option<NodeId>,
    pub(super) log: LogFormat,
    pub(super) peers: Vec<ConfiguredPeer>,
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
    let config = run
        .config
        .as_deref()
        .map(Config::load)
        .transpose()?
        .unwrap_or_default();
    let data_dir = data_dir(given.or_else(|| config.data_dir.clone()))?;
    let node_id = match (&run.node_id, &config.node_id) {
        (Some(id), _) => Some(peer_spec::node_id(id, "--node-id")?),
        (None, Some(id)) => Some(peer_spec::node_id(id, config.path())?),
        (None, None) => None,
    };
    let key_file = run.key_file.or_else(|| config.key_file.clone());
    Ok(Settings {
        key_file: key_file.unwrap_or_else(|| data_dir.file("identity.key")),
        data_dir,
        listen: run.listen.or(config.listen).unwrap_or(LISTEN),
        admin: run.admin.or(config.admin).unwrap_or(ADMIN),
        signer: choice(run.signer, config.signer.as_ref(), &config)?
            .unwrap_or(SignerChoice::Embedded),
        log: choice(run.log, config.log.as_ref(), &config)?.unwrap_or_default(),
        node_id,
        admin_hosts: config.admin_hosts,
        scrape_needs_token: config.scrape_needs_token,
        peers: config.known_peers,
    })
}

/// A word that has few values: the flag's, or else the file's.
fn choice<T: ValueEnum>(
    flag: Option<T>,
    written: Option<&toml::Spanned<String>>,
    config: &Config,
) -> Result<Option<T>, Failure> {
    let (None, Some(word)) = (&flag, written) else {
        return Ok(flag);
    };
    if let Ok(value) = T::from_str(word.get_ref(), false) {
        return Ok(Some(value));
    }
    let variants = T::value_variants().iter();
    let names: Vec<String> = variants
        .filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()))
        .collect();
    Err(Failure::usage(
        format!("unknown value {:?}", word.get_ref()),
        config.place(word),
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
