//! `pilotlight run`: puts the daemon together from the library's parts, runs it, and ends it on a signal.
//!
//! The daemon has no node: it keeps links up and gossip flowing, and counts what arrives.

use super::args::SignerChoice;
use super::config::ConfiguredPeer;
use super::demo;
use super::failure::{Exit, Failure};
use super::logging;
use super::output::Output;
use super::settings::Settings;
use crate::admin::{self, AdminServer, DataDir, Exporter, Parts, SignerControl, TokenKind};
use crate::link::Tag;
use crate::signer::{EmbeddedSigner, KeyFileError, Signer, SignerContext};
use crate::supervisor::{Inbound, Inbox, ListenError, PeerSpec, Supervisor};
use crate::wire::{BITCOIN_MAINNET, GossipTimestampFilter};
use serde_json::json;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Between two attempts to resolve the name of a configured peer.
const RESOLVE_AGAIN: Duration = Duration::from_secs(60);

/// Runs until a signal says to stop.
pub(super) fn run(settings: Settings, output: &Output) -> Result<Exit, Failure> {
    if settings.signer == SignerChoice::Gateway {
        return Err(Failure::usage(
            "this build has no gateway for a signer that dials in: it comes in a later version",
            "--signer gateway",
            "use --signer embedded, or embed the crate and attach a signer of your own",
        ));
    }
    logging::start(settings.log)?;
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
    Ok(runtime.block_on(demo::run(options)))
}

async fn daemon(settings: Settings, output: &Output) -> Result<Exit, Failure> {
    let occupation = settings.data_dir.occupy()?;
    let mut signals = Signals::new().map_err(|error| refused(&error))?;
    let signer = load_signer(&settings)?;
    let exporter = Exporter::install()?;
    let context = SignerContext::new(signer.node_id());
    let server = AdminServer::bind(admin_settings(&settings)).await?;
    let admin_address = server.address();
    let starting = Supervisor::builder(context.clone()).start().await;
    let (supervisor, inbox) = starting.map_err(|error| refused(&error))?;
    let messages = Arc::new(AtomicU64::new(0));
    tokio::spawn(count_messages(inbox, Arc::clone(&messages)));

    let channel_peers = settings
        .peers
        .iter()
        .filter(|peer| peer.tag == Tag::ChannelBearing)
        .map(|peer| peer.id);
    supervisor
        .declare_channel_peers(channel_peers)
        .await
        .map_err(|error| refused(&error))?;
    let listening = supervisor
        .listen(settings.listen)
        .await
        .map_err(|error| not_listening(&error))?;
    let control = Arc::new(SignerControl::embedded(context, signer));
    control.attach().await.map_err(|error| refused(&error))?;

    let (stop, stopped) = watch::channel(false);
    let parts = parts(&settings.data_dir, &supervisor, control, exporter)?;
    let serving = tokio::spawn(server.serve(parts, stopped));
    tokio::spawn(add_peers(supervisor.clone(), settings.peers));
    occupation.announce(admin_address)?;
    announce(
        output,
        &settings.data_dir,
        &supervisor,
        listening,
        admin_address,
    );

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
    let counted = messages.load(Ordering::Relaxed);
    say(
        output,
        "stopped",
        &format!("stopped; {counted} messages had come for the node"),
    );
    Ok(Exit::Ok)
}

fn load_signer(settings: &Settings) -> Result<Arc<EmbeddedSigner>, Failure> {
    let path = &settings.key_file;
    let (signer, made) =
        EmbeddedSigner::load_or_generate(path).map_err(|error| bad_key(settings, &error))?;
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

fn bad_key(settings: &Settings, error: &KeyFileError) -> Failure {
    let path = settings.key_file.display();
    let to_do = match error {
        KeyFileError::Unreadable { .. } | KeyFileError::Unwritable { .. } => format!(
            "let the user that runs this own {path} and its directory, or give another file with --key-file"
        ),
        KeyFileError::TooOpen { .. } => {
            format!("run `chmod 600 {path}`, and think of the key as known if others could read it")
        }
        KeyFileError::NoEntropy(_) => {
            "start again; if it stays, the system's randomness is broken".to_owned()
        }
        _ => format!(
            "restore {path} from a copy; or move it away, and a new key is made, with which the node has another id"
        ),
    };
    Failure::usage(error.to_string(), path.to_string(), to_do)
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

/// Stands in for the node: asks each new link for gossip from now on, and counts what comes.
async fn count_messages(mut inbox: Inbox, messages: Arc<AtomicU64>) {
    while let Some(inbound) = inbox.recv().await {
        match inbound {
            Inbound::Message(_) => {
                messages.fetch_add(1, Ordering::Relaxed);
            }
            Inbound::Up { link, .. } => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_secs();
                let filter = GossipTimestampFilter::since(
                    BITCOIN_MAINNET,
                    u32::try_from(now).unwrap_or(u32::MAX),
                );
                if let Err(error) = link.try_send(filter.encode()) {
                    tracing::debug!(%error, peer = %link.peer(), "no gossip was asked for");
                }
            }
            Inbound::Down { .. } => {}
        }
    }
}

/// Adds the configured peers. Those whose names do not resolve now are tried again.
async fn add_peers(supervisor: Supervisor, mut peers: Vec<ConfiguredPeer>) {
    while !peers.is_empty() {
        let mut unresolved = Vec::new();
        for peer in peers {
            match peer.address.resolve().await {
                Ok(addresses) => {
                    let spec = PeerSpec {
                        node_id: peer.id,
                        addresses,
                        tag: Some(peer.tag),
                        weight: peer.weight,
                    };
                    if supervisor.add_peer(spec).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, peer = %peer.id, "a configured peer cannot be dialled yet; its name is resolved again in a minute");
                    unresolved.push(peer);
                }
            }
        }
        peers = unresolved;
        if !peers.is_empty() {
            tokio::time::sleep(RESOLVE_AGAIN).await;
        }
    }
}

fn announce(
    output: &Output,
    dir: &DataDir,
    supervisor: &Supervisor,
    listening: SocketAddr,
    admin: SocketAddr,
) {
    let (version, node, mode) = (
        env!("CARGO_PKG_VERSION"),
        supervisor.node_id().to_string(),
        supervisor.mode(),
    );
    let data_dir = dir.path().display().to_string();
    let started = json!({
        "event": "started", "version": version, "node_id": node, "mode": mode.as_str(),
        "listen": listening.to_string(), "admin": admin.to_string(), "data_dir": data_dir,
    });
    output.answer(&started, |_| {
        format!(
            "pilotlight {version}\n  node id   {node}\n  mode      {mode}\n  peers     {listening}\n  admin     http://{admin}\n  data      {data_dir}"
        )
    });
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

/// SIGTERM and SIGINT, which mean the same.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
