//! `pilotlight run`: puts the daemon together from the library's parts, runs it, and ends it on a signal.
//!
//! The daemon has no node: it keeps links up and gossip flowing, and counts what arrives.

use super::args::{FirewallChoice, IdentityChoice, RedialChoice, SignerChoice};
use super::book;
use super::config::ConfiguredPeer;
use super::demo;
use super::failure::{Exit, Failure, bad_key};
use super::gateway::{self, Door};
use super::logging::{self, LogFormat};
use super::output::Output;
use super::settings::Settings;
use super::signals::Signals;
use super::soak;
use crate::admin::{self, AdminServer, DataDir, Exporter, Parts, SignerControl, TokenKind};
use crate::clock::{Clock, SystemClock};
use crate::node_id::{LocalKey, NodeId};
use crate::signer::{EmbeddedSigner, KeyFileError, Signer, SignerContext};
use crate::supervisor::{
    Builder, Inbound, Inbox, ListenError, PeerSpec, Redial, RosterError, Supervisor,
};
use serde_json::json;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Runs until a signal says to stop.
pub(super) fn run(settings: Settings, output: &Output) -> Result<Exit, Failure> {
    if settings.signer == SignerChoice::Gateway && settings.node_id.is_none() {
        return Err(no_node_id());
    }
    let log = settings.log.unwrap_or(if output.json {
        LogFormat::Json
    } else {
        LogFormat::Text
    });
    logging::start(log)?;
    settings.data_dir.prepare()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| refused(&error))?;
    let ended = runtime.block_on(daemon(settings, output));
    // What still runs has been told to end, or is not to be waited for.
    runtime.shutdown_background();
    ended
}

/// Plays the demo on a runtime of its own.
pub(super) fn demo(options: demo::Options) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| refused(&error))?;
    runtime.block_on(demo::run(options))
}

/// Soaks on a runtime of its own.
pub(super) fn soak(options: soak::Options, output: &Output) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| refused(&error))?;
    runtime.block_on(soak::run(options, output))
}

async fn daemon(settings: Settings, output: &Output) -> Result<Exit, Failure> {
    let occupation = settings.data_dir.occupy()?;
    let mut signals = Signals::new()?;
    let source = Source::load(&settings)?;
    let kept = book::open(&settings).await?;
    let exporter = Exporter::install()?.per_peer(settings.per_peer_metrics);
    let context = SignerContext::new(source.node_id());
    // One clock: a deadline that one part sets is kept by another.
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let server = AdminServer::bind(admin_settings(&settings)).await?;
    let admin_address = server.address();
    let declared = kept.tags.declared.clone();
    let starting = building(&settings, &context, &clock)?;
    let (supervisor, inbox) = start_supervisor(starting.book(kept.book), declared).await?;
    let messages = Arc::new(AtomicU64::new(0));
    tokio::spawn(count_messages(inbox, Arc::clone(&messages)));

    let listening = supervisor
        .listen(settings.listen)
        .await
        .map_err(|error| not_listening(&error))?;
    let (control, mut remarks) = source.start(&settings, context, &supervisor, clock).await?;

    remarks.extend(kept.tags.remarks());
    let (stop, stopped) = watch::channel(false);
    let shown = Started {
        dir: settings.data_dir.clone(),
        listening,
        admin: admin_address,
        signer: control.door().map(|door| door.listen),
        remarks,
    };
    let parts = parts(&settings.data_dir, &supervisor, control, exporter)?;
    let serving = tokio::spawn(server.serve(parts, stopped));
    tokio::spawn(add_peers(
        supervisor.clone(),
        kept.tags.apply(settings.peers),
    ));
    occupation.announce(admin_address)?;
    shown.announce(output, &supervisor);

    signals.next().await;
    say(output, "draining", "draining; another signal ends at once");
    let drained = tokio::select! {
        () = supervisor.drain() => true,
        () = signals.next() => false,
    };
    stop.send_replace(true);
    // The address goes before the process does; a command that comes now finds no daemon.
    drop(occupation);
    if !drained {
        return Err(Failure::failed(
            "ended by a second signal, before the links were flushed",
            "this daemon",
            "nothing: peers see a reset connection",
        ));
    }
    let _ = serving.await;
    kept.closing.finish().await;
    let counted = messages.load(Ordering::Relaxed);
    say(
        output,
        "stopped",
        &format!("stopped; {counted} messages had come for the node"),
    );
    Ok(Exit::Ok)
}

/// Starts the supervisor with the peers of the book, and says which peers have channels, if that is known.
async fn start_supervisor(
    starting: Builder,
    declared: Option<Vec<NodeId>>,
) -> Result<(Supervisor, Inbox), Failure> {
    let (supervisor, inbox) = starting.start().await.map_err(|error| refused(&error))?;
    if let Some(peers) = declared {
        let declaring = supervisor.declare_channel_peers(peers).await;
        declaring.map_err(|error| refused(&error))?;
    }
    Ok((supervisor, inbox))
}

/// Where the node's key is, and what is needed to use it.
enum Source {
    Embedded(Arc<EmbeddedSigner>),
    Gateway(NodeId, Box<gateway::Credentials>),
}

impl Source {
    fn load(settings: &Settings) -> Result<Self, Failure> {
        match (settings.signer, settings.node_id) {
            (SignerChoice::Embedded, _) => load_signer(settings).map(Self::Embedded),
            (SignerChoice::Gateway, Some(node_id)) => {
                let files = gateway::Files::of(&settings.data_dir);
                let lock = files.lock()?;
                let credentials = files.load_or_generate(&lock, &settings.gateway.hosts)?;
                Ok(Self::Gateway(node_id, Box::new(credentials)))
            }
            (SignerChoice::Gateway, None) => Err(no_node_id()),
        }
    }

    fn node_id(&self) -> NodeId {
        match self {
            Self::Embedded(signer) => signer.node_id(),
            Self::Gateway(node_id, _) => *node_id,
        }
    }

    /// Attaches the embedded signer, or opens the door at which one dials in; and what is to be said of that door.
    async fn start(
        self,
        settings: &Settings,
        context: SignerContext,
        supervisor: &Supervisor,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<SignerControl>, Vec<String>), Failure> {
        match self {
            Self::Embedded(signer) => {
                let control = SignerControl::embedded(context, signer);
                control.attach().await.map_err(|error| refused(&error))?;
                Ok((Arc::new(control), Vec::new()))
            }
            Self::Gateway(_, credentials) => {
                let (settings, own) = (&settings.gateway, context.clone());
                let door = Door::open(*credentials, settings, own, supervisor, clock).await?;
                let remarks = door.remarks();
                let control = SignerControl::dialling_in(context, door);
                Ok((Arc::new(control), remarks))
            }
        }
    }
}

fn no_node_id() -> Failure {
    Failure::usage(
        "with --signer gateway the node's id must be given: there is no trust on first use",
        "--node-id",
        "give the id that `pilotlight key FILE` shows where the key is",
    )
}

fn load_signer(settings: &Settings) -> Result<Arc<EmbeddedSigner>, Failure> {
    let path = &settings.key_file;
    let (signer, made) = EmbeddedSigner::load_or_generate(path)
        .map_err(|error| bad_key(&error, path, "give another file with --key-file"))?;
    if made {
        tracing::info!(path = %path.display(), node_id = %signer.node_id(), "made a new identity key: keep a copy of it");
    }
    match settings.node_id {
        Some(wanted) if wanted != signer.node_id() => Err(Failure::usage(
            format!("the key is that of {}, not of {wanted}", signer.node_id()),
            path.display().to_string(),
            "correct --node-id, or give the right key with --key-file",
        )),
        _ => Ok(Arc::new(signer)),
    }
}

/// The supervisor as the operator wants it.
fn building(
    settings: &Settings,
    context: &SignerContext,
    clock: &Arc<dyn Clock>,
) -> Result<Builder, Failure> {
    let gossip = &settings.gossip;
    let building = Supervisor::builder(context.clone())
        .clock(Arc::clone(clock))
        .observes_only(settings.firewall == FirewallChoice::Observe)
        .max_session_age(settings.max_session_age)
        .tor_proxy(settings.tor.proxy)
        .everything_through_tor(settings.tor.everything)
        .announces(settings.announced.clone())
        .protected(settings.protected.iter().copied())
        .gossip_floor(gossip.floor)
        .redial(match gossip.redial {
            RedialChoice::Persona => Redial::Persona,
            RedialChoice::Hold => Redial::Hold,
        })
        .auto_sync(gossip.auto_sync)
        .personas_meet_channel_peers(gossip.channel_peers);
    Ok(match cached_identity(settings, context.node_id())? {
        Some(key) => building.cached_identity(key),
        None => building,
    })
}

/// The copy of the node's key that it uses while no signer is there, if the operator has chosen so. It is never made here: a new key
/// would be another node's.
fn cached_identity(settings: &Settings, node: NodeId) -> Result<Option<LocalKey>, Failure> {
    if settings.identity != IdentityChoice::Cached {
        return Ok(None);
    }
    let path = &settings.key_file;
    let advice = "with `identity = \"cached\"` a copy of the node's key must be there: give it with --key-file, or leave the setting out";
    let key = EmbeddedSigner::load(path).map_err(|error| match error {
        KeyFileError::NotFound { .. } => {
            Failure::usage(error.to_string(), path.display().to_string(), advice)
        }
        error => bad_key(&error, path, "give another file with --key-file"),
    })?;
    if key.node_id() != node {
        return Err(Failure::usage(
            format!("the key is that of {}, not of {node}", key.node_id()),
            path.display().to_string(),
            advice,
        ));
    }
    tracing::warn!(path = %path.display(), "the node's key is held on this machine, also while the signer is away: who breaks in has it");
    Ok(Some(key.into_key()))
}

fn admin_settings(settings: &Settings) -> admin::Settings {
    if !settings.admin.ip().is_loopback() {
        tracing::warn!(address = %settings.admin, "the admin address is not loopback, and it is plain HTTP: put TLS in front of it");
    }
    admin::Settings {
        address: settings.admin,
        hosts: settings.admin_hosts.clone(),
        scrape_needs_token: settings.scrape_needs_token,
    }
}

fn parts(
    dir: &DataDir,
    supervisor: &Supervisor,
    signer: Arc<SignerControl>,
    exporter: Exporter,
) -> Result<Parts, Failure> {
    Ok(Parts {
        supervisor: supervisor.clone(),
        signer,
        exporter: Some(exporter),
        read_only: dir.token_or_new(TokenKind::ReadOnly)?,
        admin: dir.token_or_new(TokenKind::Admin)?,
    })
}

/// Stands in for the node: counts what comes.
async fn count_messages(mut inbox: Inbox, messages: Arc<AtomicU64>) {
    while let Some(inbound) = inbox.recv().await {
        match inbound {
            Inbound::Message(_) => {
                messages.fetch_add(1, Ordering::Relaxed);
            }
            Inbound::Up { .. } | Inbound::Down { .. } => {}
        }
    }
}

/// Adds the configured peers.
async fn add_peers(supervisor: Supervisor, peers: Vec<ConfiguredPeer>) {
    for peer in peers {
        let spec = PeerSpec {
            node_id: peer.id,
            addresses: peer.addresses.into_iter().map(Into::into).collect(),
            tag: Some(peer.tag),
            weight: peer.weight,
        };
        let node_id = spec.node_id;
        match supervisor.add_peer(spec).await {
            Ok(()) => {}
            Err(RosterError::Stopped(_)) => return,
            Err(error) => tracing::warn!(%node_id, %error, "a peer of the settings is not taken"),
        }
    }
}

/// What is said once everything runs.
struct Started {
    dir: DataDir,
    listening: SocketAddr,
    admin: SocketAddr,
    /// Where the signer dials in, if it does.
    signer: Option<SocketAddr>,
    remarks: Vec<String>,
}

impl Started {
    fn announce(&self, output: &Output, supervisor: &Supervisor) {
        let Self {
            listening, admin, ..
        } = self;
        let (version, node, mode) = (
            env!("CARGO_PKG_VERSION"),
            supervisor.node_id().to_string(),
            supervisor.mode(),
        );
        let data_dir = self.dir.path().display().to_string();
        let started = json!({
            "event": "started", "version": version, "node_id": node, "mode": mode.as_str(),
            "listen": listening.to_string(), "admin": admin.to_string(), "data_dir": data_dir,
            "signer_listen": self.signer.map(|address| address.to_string()), "warnings": self.remarks,
        });
        let signer = self.signer.map_or_else(
            || "embedded".to_owned(),
            |address| format!("dials in at {address}"),
        );
        let remarks = [&[String::new()], self.remarks.as_slice()].concat();
        let remarks = remarks.join("\n  warning   ");
        output.answer(&started, |_| {
            format!(
                "pilotlight {version}\n  node id   {node}\n  mode      {mode}\n  peers     {listening}\n  admin     http://{admin}/ (to see it in a browser: pilotlight info --url)\n  signer    {signer}\n  data      {data_dir}{remarks}"
            )
        });
    }
}

fn say(output: &Output, event: &str, text: &str) {
    output.answer(&json!({ "event": event }), |_| text.to_owned());
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(
        error.to_string(),
        "this process",
        "see the log above; if it does not help, please report it",
    )
}

fn not_listening(error: &ListenError) -> Failure {
    Failure::failed(
        error.to_string(),
        format!("--listen {}", error.address),
        "stop whatever has the port, or give another address (port 0: any free one)",
    )
}
