//! The command line. Every setting of the daemon that has a flag has an environment variable too.

#![allow(
    clippy::doc_markdown,
    reason = "clap shows these comments to people, backticks and all"
)]

use crate::cli::logging::LogFormat;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Safe-mode peer connections for a watch-only Lightning node.
#[derive(Debug, Parser)]
#[command(
    name = "pilotlight",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 no daemon runs on the data directory."
)]
pub(super) struct Arguments {
    /// Print JSON, errors included
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Where the daemon keeps its key, its tokens and its address [default: $XDG_DATA_HOME/pilotlight or ~/.local/share/pilotlight]
    #[arg(long, global = true, value_name = "DIR", env = "PILOTLIGHT_DATA_DIR")]
    pub(super) data_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what this is for: a node and its peers on loopback, a signer that goes and returns, the promises checked
    Demo(DemoArguments),
    /// Try endurance: a node and many peers on loopback for hours, a signer that goes and returns, memory and promises watched
    Soak(SoakArguments),
    /// Run the daemon
    Run(RunArguments),
    /// Show the daemon's mode, links and last lapse
    Info {
        /// Print the address of the status page, with the token that reads after the #: whoever has it can read
        #[arg(long)]
        url: bool,
    },
    /// Show what happens, as it happens, until the daemon stops
    Events(EventsArguments),
    /// Watch the daemon: mode, signer, every peer over time, the last events
    Top(TopArguments),
    /// Say at which block the node is, and when its own newest channel update was signed
    #[command(group(clap::ArgGroup::new("said").required(true).multiple(true)))]
    Chain {
        /// The newest block's height
        #[arg(long, value_name = "N", group = "said")]
        height: Option<u32>,
        /// When that update was signed, in seconds since 1970
        #[arg(long, value_name = "SECONDS", group = "said")]
        own_update_at: Option<u64>,
    },
    /// The peers of the running daemon
    Peer {
        #[command(subcommand)]
        command: PeerCommand,
    },
    /// Bake the macaroon that lets a signer on another machine in
    Bake(BakeArguments),
    /// Be the signer: hold the node's key, dial the node, answer
    Agent(AgentArguments),
    /// Show whose node id a key file is, or make one with a new key
    Key {
        /// The key file; - reads the key's 64 hex digits from standard input
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
        /// Make the file, with a new key
        #[arg(long)]
        new: bool,
    },
    /// The signer session of the running daemon, and the certificate that a signer dials
    Signer {
        #[command(subcommand)]
        command: SignerCommand,
    },
}

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Repeat the demo with this seed
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Write the run to a file too, as a page for a browser; a file that is there is replaced
    #[arg(long, value_name = "FILE.html", conflicts_with = "serve")]
    pub(super) report: Option<PathBuf>,
    /// Go on until interrupted, with a status page and metrics, and check nothing
    #[arg(long)]
    pub(super) serve: bool,
    /// Where to serve them
    #[arg(
        long,
        value_name = "IP:PORT",
        requires = "serve",
        default_value = "127.0.0.1:9736"
    )]
    pub(super) admin: SocketAddr,
    /// How long a round is, with a lapse and a return; 1s to 1d
    #[arg(
        long,
        value_name = "DURATION",
        requires = "serve",
        default_value = "1m"
    )]
    pub(super) round: String,
}

#[derive(Debug, Args)]
pub(super) struct SoakArguments {
    /// How many peers, a fifth of them with channels; 2 to 5000
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u16).range(2..=5000))]
    pub(super) peers: u16,
    /// How long, from all links up on
    #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
    pub(super) time: String,
    /// How often the signer goes; 1s to 1h
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(super) lapse_every: String,
    /// Repeat the soak with these keys and this jitter
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    /// Show only events of this kind, such as signer_lapsed; may be given more than once
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(super) kind: Vec<String>,
    /// Begin with those that the daemon still keeps
    #[arg(long)]
    pub(super) history: bool,
    /// Go on when the daemon stops, and wait for it to be back
    #[arg(long)]
    pub(super) follow: bool,
}

#[derive(Debug, Args)]
pub(super) struct TopArguments {
    /// Show it once, as lines, and end
    #[arg(long)]
    pub(super) once: bool,
    /// How often to ask the daemon, such as 500ms; 100ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub(super) interval: String,
}

#[derive(Debug, Args, Default)]
pub(super) struct RunArguments {
    /// A TOML file with settings and peers
    #[arg(long, value_name = "FILE", env = "PILOTLIGHT_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Where to listen for peers [default: 127.0.0.1:9735]
    #[arg(long, value_name = "IP:PORT", env = "PILOTLIGHT_LISTEN")]
    pub(super) listen: Option<SocketAddr>,
    /// Where to listen for commands, over HTTP [default: 127.0.0.1:9736]
    #[arg(long, value_name = "IP:PORT", env = "PILOTLIGHT_ADMIN")]
    pub(super) admin: Option<SocketAddr>,
    /// Where the node's key is [default: embedded]
    #[arg(long, value_enum, env = "PILOTLIGHT_SIGNER")]
    pub(super) signer: Option<SignerChoice>,
    /// The node's id. Needed with a gateway; with an embedded signer its key must be this node's
    #[arg(long, value_name = "ID", env = "PILOTLIGHT_NODE_ID")]
    pub(super) node_id: Option<String>,
    /// The node's key: the embedded signer's, made at the first start, or the copy that --identity cached uses [default: identity.key in the data directory]
    #[arg(long, value_name = "FILE", env = "PILOTLIGHT_KEY_FILE")]
    pub(super) key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) tor: TorArguments,
    #[command(flatten)]
    pub(super) gateway: GatewayArguments,
    /// A signer that dialled in and shows no life for so long is gone; 1s to 60s [default: 3s]
    #[arg(
        long,
        value_name = "DURATION",
        env = "PILOTLIGHT_LIVENESS_WINDOW",
        help_heading = GATEWAY_HEADING
    )]
    pub(super) liveness_window: Option<String>,
    /// As whom to speak to gossip peers, and to who dials us, while no signer is there [default: persona]
    #[arg(long, value_enum, env = "PILOTLIGHT_IDENTITY")]
    pub(super) identity: Option<IdentityChoice>,
    #[command(flatten)]
    pub(super) gossip: GossipArguments,
    /// How to write the log to standard error; RUST_LOG says how much [default: text, or json with --json]
    #[arg(long, value_enum, env = "PILOTLIGHT_LOG")]
    pub(super) log: Option<LogFormat>,
}

/// The way to onion services.
#[derive(Debug, Args, Default)]
pub(super) struct TorArguments {
    /// Tor's SOCKS5 proxy, such as 127.0.0.1:9050: onion services are dialled through it
    #[arg(long, value_name = "IP:PORT", env = "PILOTLIGHT_TOR_PROXY")]
    pub(super) tor_proxy: Option<SocketAddr>,
    /// Dial everything through the proxy, which then looks names up too
    #[arg(long, env = "PILOTLIGHT_TOR_EVERYTHING")]
    pub(super) tor_everything: bool,
}

/// Gossip without a signer, and after it.
#[expect(
    clippy::struct_field_names,
    reason = "clap makes the flags of the fields' names"
)]
#[derive(Debug, Args, Default)]
pub(super) struct GossipArguments {
    /// Gossip links that there shall be while no signer is there; 0 to 100 [default: 5]
    #[arg(long, value_name = "N", env = "PILOTLIGHT_GOSSIP_FLOOR")]
    pub(super) gossip_floor: Option<usize>,
    /// What becomes of gossip links that are lost while no signer is there [default: persona]
    #[arg(long, value_enum, env = "PILOTLIGHT_GOSSIP_REDIAL")]
    pub(super) gossip_redial: Option<RedialChoice>,
    /// Whether each gossip link asks for what was missed [default: true]
    #[arg(long, value_name = "true|false", env = "PILOTLIGHT_GOSSIP_AUTO_SYNC")]
    pub(super) gossip_auto_sync: Option<bool>,
}

const GATEWAY_HEADING: &str = "With --signer gateway";

/// Where a signer dials in.
#[derive(Debug, Args, Default)]
pub(super) struct GatewayArguments {
    /// Where to listen for the signer [default: 127.0.0.1:9740]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "PILOTLIGHT_SIGNER_LISTEN",
        help_heading = GATEWAY_HEADING
    )]
    pub(super) signer_listen: Option<SocketAddr>,
    /// A name or address under which the signer dials, for the certificate, beside localhost, loopback and --signer-listen
    #[arg(
        long,
        value_name = "HOST",
        env = "PILOTLIGHT_SIGNER_HOSTS",
        value_delimiter = ',',
        help_heading = GATEWAY_HEADING
    )]
    pub(super) signer_host: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct BakeArguments {
    /// Where to write it [default: signer.macaroon in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    pub(super) force: bool,
    /// How long it is good, such as 90d; for ever if not given
    #[arg(long, value_name = "DURATION")]
    pub(super) expires: Option<String>,
    /// The only address from which it is good
    #[arg(long, value_name = "ADDR")]
    pub(super) ip: Option<IpAddr>,
    /// Make every macaroon that was baked before worthless
    #[arg(long)]
    pub(super) rotate_root_key: bool,
    /// The daemon's TOML file, for where the signer dials
    #[arg(long, value_name = "FILE", env = "PILOTLIGHT_CONFIG")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) gateway: GatewayArguments,
}

#[derive(Debug, Args)]
pub(super) struct RenewArguments {
    /// A further name or address under which the signer dials. The names of the present certificate and the configured ones are kept
    #[arg(
        long,
        value_name = "HOST",
        env = "PILOTLIGHT_SIGNER_HOSTS",
        value_delimiter = ','
    )]
    pub(super) host: Vec<String>,
    /// Where the daemon listens for the signer: its address is named too
    #[arg(long, value_name = "IP:PORT", env = "PILOTLIGHT_SIGNER_LISTEN")]
    pub(super) signer_listen: Option<SocketAddr>,
    /// Keep no name but those that are given or configured: a signer that dials another is locked out
    #[arg(long)]
    pub(super) drop_other_names: bool,
    /// The daemon's TOML file, for where the signer dials
    #[arg(long, value_name = "FILE", env = "PILOTLIGHT_CONFIG")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct AgentArguments {
    /// Where the node listens for its signer
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) connect: String,
    /// The node's key, as `pilotlight key` makes it; - reads its 64 hex digits from standard input
    #[arg(long, value_name = "FILE|-")]
    pub(super) key: PathBuf,
    /// The node's certificate: signer.cert of its data directory, or lnd's tls.cert
    #[arg(long, value_name = "FILE", default_value = "signer.cert")]
    pub(super) certificate: PathBuf,
    /// The macaroon that `pilotlight bake` wrote, or lnd's
    #[arg(long, value_name = "FILE", default_value = "signer.macaroon")]
    pub(super) macaroon: PathBuf,
}

/// What the firewall does while no signer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum FirewallChoice {
    /// Refuse what needs the signer
    #[default]
    Enforce,
    /// Refuse channel messages, count the rest
    Observe,
}

/// As whom the node speaks while no signer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum IdentityChoice {
    /// Under a throwaway key, to gossip peers that it dials
    #[default]
    Persona,
    /// As itself, with a copy of the node's key on this machine, for gossip only
    Cached,
}

/// What becomes of lost gossip links while no signer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum RedialChoice {
    /// They are dialled under a throwaway key
    #[default]
    Persona,
    /// They wait for the signer
    Hold,
}

/// Where the node's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SignerChoice {
    /// In this process, from a file
    Embedded,
    /// Elsewhere: it dials in
    Gateway,
}

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Keep a link with a peer up
    Add(PeerAdd),
    /// Want nothing of a peer any more, and close its link
    Rm {
        /// The peer's node id
        id: String,
    },
    /// Say what a peer is
    Tag {
        /// The peer's node id
        id: String,
        /// gossip-only or channel-bearing
        tag: String,
    },
    /// Say how urgently a channel peer is needed back: it is dialled before the others, and told of as its HTLCs come close to their expiry
    Urgency(PeerUrgency),
    /// Show every peer
    List,
    /// Take in what another node lists: the JSON of lncli listpeers, listchannels or describegraph, or of lightning-cli listpeers or listpeerchannels
    Import {
        /// The file; - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Take every address as if you had given it by hand, those of a local network too
        #[arg(long)]
        private: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct PeerAdd {
    /// Who and where; HOST is an IP address, a DNS name or a Tor v3 onion service
    #[arg(value_name = "ID@HOST:PORT")]
    pub(super) peer: String,
    /// A further address of the same peer; they are tried in turn
    #[arg(long = "address", value_name = "HOST:PORT")]
    pub(super) addresses: Vec<String>,
    /// gossip-only or channel-bearing
    #[arg(long)]
    pub(super) tag: String,
    /// How much the peer matters among its like; higher is dialled first
    #[arg(long, value_name = "N")]
    pub(super) weight: Option<u32>,
}

/// What is not given stays as it was.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("urgency").required(true).multiple(true)))]
pub(super) struct PeerUrgency {
    /// The peer's node id
    pub(super) id: String,
    /// HTLCs with it that are not settled
    #[arg(long, value_name = "N", group = "urgency")]
    pub(super) pending_htlcs: Option<u32>,
    /// The block height at which the first of them expires
    #[arg(long, value_name = "HEIGHT", group = "urgency")]
    pub(super) earliest_expiry_height: Option<u32>,
    /// Blocks that a cheated party has to react
    #[arg(long, value_name = "BLOCKS", group = "urgency")]
    pub(super) csv_delay: Option<u16>,
}

#[derive(Debug, Args)]
pub(super) struct LapseArguments {
    /// Plan it: show which HTLCs are pending, and wait for the node's word. Interrupting leaves all as it is
    #[arg(long)]
    pub(super) drain: bool,
    /// Give the word in the node's stead: do not wait
    #[arg(long, requires = "drain")]
    pub(super) yes: bool,
    /// How long to wait for the word; 1s to 24h. Without it by then, nothing has changed, and the exit code is 1 [default: 10m]
    #[arg(
        long,
        value_name = "DURATION",
        requires = "drain",
        conflicts_with = "yes"
    )]
    pub(super) timeout: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct AbsenceWord {
    /// The absence's number, as `signer lapse --drain`, `info` and the event `absence_planned` show it
    #[arg(value_name = "N")]
    pub(super) absence: u64,
}

#[derive(Debug, Subcommand)]
pub(super) enum SignerCommand {
    /// End the signer session: links in its scope are torn down
    Lapse(LapseArguments),
    /// Give the node's word that a planned absence of the signer may begin
    Agree(AbsenceWord),
    /// Give the node's word that a planned absence of the signer must not begin now
    Refuse {
        #[command(flatten)]
        word: AbsenceWord,
        /// Why, for whoever planned it
        #[arg(long, value_name = "TEXT", default_value = "no reason was given")]
        why: String,
    },
    /// Begin a new session with the embedded signer
    Attach,
    /// Make a new certificate and key for the address at which a signer dials in
    RenewCertificate(RenewArguments),
}

/// The environment variables that are settings, for telling a misspelt one.
pub(super) const VARIABLES: &[&str] = &[
    "PILOTLIGHT_DATA_DIR",
    "PILOTLIGHT_CONFIG",
    "PILOTLIGHT_LISTEN",
    "PILOTLIGHT_ADMIN",
    "PILOTLIGHT_SIGNER",
    "PILOTLIGHT_NODE_ID",
    "PILOTLIGHT_KEY_FILE",
    "PILOTLIGHT_SIGNER_LISTEN",
    "PILOTLIGHT_SIGNER_HOSTS",
    "PILOTLIGHT_LIVENESS_WINDOW",
    "PILOTLIGHT_IDENTITY",
    "PILOTLIGHT_GOSSIP_FLOOR",
    "PILOTLIGHT_GOSSIP_REDIAL",
    "PILOTLIGHT_GOSSIP_AUTO_SYNC",
    "PILOTLIGHT_LOG",
    "PILOTLIGHT_TOR_PROXY",
    "PILOTLIGHT_TOR_EVERYTHING",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;
    use std::collections::BTreeSet;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_variable_that_a_flag_reads_is_known() {
        let command = Arguments::command();
        let run = command.find_subcommand("run").unwrap();
        let bake = command.find_subcommand("bake").unwrap();
        let signer = command.find_subcommand("signer").unwrap();
        let renew = signer.find_subcommand("renew-certificate").unwrap();
        let arguments = command.get_arguments().chain(
            [run, bake, renew]
                .into_iter()
                .flat_map(clap::Command::get_arguments),
        );
        let read: BTreeSet<_> = arguments
            .filter_map(|argument| argument.get_env()?.to_str())
            .collect();
        assert_eq!(read, VARIABLES.iter().copied().collect());
    }
}
