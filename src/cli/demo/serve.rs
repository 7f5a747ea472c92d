//! The demo without an end: the same node, peers and signer, with the node's status page, metrics and commands, for whoever tries them.
//!
//! Its story repeats: a while with a signer, a lapse, a while without, a return. It checks nothing, and forgets what only the checks
//! would need, so that it can run for days. It ends in good order when it is interrupted.

use super::cast::Cast;
use super::checks::{Absence, millis};
use super::far::Order;
use super::folder::Folder;
use super::screen::{Ink, Screen};
use super::stage::Stage;
use super::story::LEAVER;
use super::{DemoError, interrupted};
use crate::admin::{
    AdminServer, Caller, DataDir, DoorView, Exporter, Parts, Problem, Settings, SignerControl,
    SignerDoor, TokenKind,
};
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use serde_json::json;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two gossip messages of one peer.
const EVERY: Duration = Duration::from_millis(200);

/// What is waited for comes in this time, or is told as not having come.
const PATIENCE: Duration = Duration::from_secs(120);

/// Serves at that address, in rounds of that length, until it is interrupted.
///
/// # Errors
/// The address is taken, or the system refuses what the demo needs.
pub(super) async fn run(
    seed: u64,
    (address, round): (SocketAddr, Duration),
    screen: &Screen,
    json: bool,
) -> Result<ExitCode, Failure> {
    // Before anything that counts.
    let exporter = Exporter::install()?;
    let cast = Arc::new(Cast::new(seed)?);
    // Removed when this ends, in whatever way.
    let folder = Folder::make()?;
    let dir = DataDir::at(folder.path());
    let occupation = dir.occupy()?;
    let settings = Settings {
        address,
        hosts: Vec::new(),
        scrape_needs_token: None,
    };
    let server = AdminServer::bind(settings).await?;
    let bound = server.address();
    let mut stage = Stage::set(cast, &folder, screen).await?;
    let supervisor = stage.node.supervisor.clone();
    let door = Arc::new(Door(Arc::clone(&stage.node)));
    let parts = Parts {
        supervisor: supervisor.clone(),
        signer: Arc::new(SignerControl::dialling_in(
            supervisor.context().clone(),
            door,
        )),
        exporter: Some(exporter),
        read_only: dir.token_or_new(TokenKind::ReadOnly)?,
        admin: dir.token_or_new(TokenKind::Admin)?,
    };
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(server.serve(parts, stopped));
    occupation.announce(bound)?;
    announce(&dir, bound, seed, json.then_some(()), screen)?;
    let ended = tokio::select! {
        ended = story(&mut stage, round) => ended,
        () = interrupted() => Ok(()),
    };
    screen.freeze();
    drop(occupation);
    supervisor.drain().await;
    stop.send_replace(true);
    stage.signer.stop().await;
    // It has answered all, or has panicked, which its own log tells.
    let _ = serving.await;
    ended?;
    if json {
        Output::line(&json!({ "event": "stopped" }).to_string());
    }
    screen.line(Ink::Plain, "Stopped.");
    Ok(ExitCode::SUCCESS)
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        Self::failed(
            format!("the demo cannot go on: {error}"),
            "pilotlight demo",
            "start it again; if it stays, please report it",
        )
    }
}

/// Says where everything is.
fn announce(
    dir: &DataDir,
    address: SocketAddr,
    seed: u64,
    json: Option<()>,
    screen: &Screen,
) -> Result<(), Failure> {
    let url = Client::new(dir.clone()).page_url()?;
    let (metrics, data) = (
        format!("http://{address}/metrics"),
        dir.path().display().to_string(),
    );
    if json.is_some() {
        let serving = json!({
            "event": "serving", "url": url.as_str(), "admin": address.to_string(), "metrics": metrics, "data_dir": data, "seed": seed,
        });
        Output::line(&serving.to_string());
    }
    for (ink, line) in [
        (
            Ink::Bold,
            "Pilotlight: a demo that goes on until you press Ctrl-C".to_owned(),
        ),
        (Ink::Plain, String::new()),
        (Ink::Plain, format!("  status page  {}", url.as_str())),
        (Ink::Plain, format!("  metrics      {metrics}")),
        (
            Ink::Plain,
            format!("  commands     pilotlight top --data-dir {data}"),
        ),
        (Ink::Plain, String::new()),
    ] {
        screen.line(ink, &line);
    }
    Ok(())
}

/// Never ends but with an error. Of a round, 6 parts in 10 are with a signer.
async fn story(stage: &mut Stage<'_>, round: Duration) -> Result<(), DemoError> {
    stage.tempo.send_modify(|tempo| tempo.every = EVERY);
    stage.gather().await?;
    stage.tempo.send_modify(|tempo| tempo.publish = true);
    loop {
        stay(stage, round * 6 / 10).await;
        lapse(stage).await;
        stay(stage, round * 2 / 10).await;
        lose(stage).await;
        let mut absence = Absence::default();
        for act in [
            stage.suitor(&mut absence).await,
            stage.mistagged(&mut absence).await,
        ] {
            if let Err(error) = act {
                stage
                    .screen
                    .say(Ink::Warm, &format!("This time not: {error}."));
            }
        }
        stay(stage, round * 2 / 10).await;
        back(stage).await;
        stage.forget();
    }
}

/// The signer's connection is cut.
async fn lapse(stage: &mut Stage<'_>) {
    stage
        .screen
        .say(Ink::Bold, "The signer's connection is cut.");
    let newest = |stage: &Stage<'_>| stage.node.supervisor.snapshot().last_lapse;
    let before = newest(stage);
    stage.signer.stop().await;
    // It is told once every link is torn down.
    stage
        .within(PATIENCE, |stage| newest(stage) != before)
        .await;
    let Some(lapse) = newest(stage).filter(|lapse| Some(lapse) != before.as_ref()) else {
        stage.screen.say(Ink::Warm, "The node has not seen it end.");
        return;
    };
    stage.screen.add(&format!(
        "fence up in {:.1} µs, teardown {:.1} ms: {} links dropped, {} retained",
        millis(lapse.fence) * 1000.0,
        millis(lapse.teardown),
        lapse.dropped,
        lapse.retained
    ));
}

/// A gossip peer closes its link; the node dials it again under a persona.
async fn lose(stage: &Stage<'_>) {
    let Ok(far) = stage.far(LEAVER) else { return };
    far.order(Order::Leave).await;
    stage
        .screen
        .say(Ink::Plain, &format!("{LEAVER} goes away."));
    let has_persona = |stage: &Stage<'_>| stage.node.supervisor.snapshot().links.persona > 0;
    if stage.within(PATIENCE, has_persona).await {
        stage
            .screen
            .add("the node dials it again under a persona: a throwaway key, for gossip only");
    }
}

/// The signer dials in again.
async fn back(stage: &mut Stage<'_>) {
    stage.signer.dial();
    let relit = |stage: &Stage<'_>| {
        let session = stage.node.session();
        session.is_some_and(|session| stage.relit(session).is_some())
    };
    let (ink, text) = if stage.within(PATIENCE, relit).await {
        (
            Ink::Good,
            "The signer is back, and so are the channel peers.",
        )
    } else {
        (
            Ink::Warm,
            "The signer dials in, and not all channel peers are back yet.",
        )
    };
    stage.screen.say(ink, text);
    if let Some(took) = stage
        .node
        .session()
        .and_then(|session| stage.relit(session))
    {
        stage
            .screen
            .add(&format!("relit in {:.1} ms", millis(took)));
    }
}

/// Lets that time pass; the table lives on meanwhile.
async fn stay(stage: &Stage<'_>, time: Duration) {
    // Nothing holds but the time.
    stage.within(time, |_| false).await;
}

/// The node's door, as its operator sees it. Its credentials are of this run only, and are not renewed.
struct Door(Arc<super::node::Node>);

impl SignerDoor for Door {
    fn view(&self) -> DoorView {
        let node = &self.0;
        let attached = node.gateway.attached().map(|signer| Caller {
            address: signer.address,
            macaroon: signer.macaroon.to_string(),
            software: "pilotlight",
        });
        DoorView {
            listen: node.gateway.local_addr(),
            hosts: Vec::new(),
            behind: node.gateway.is_behind(),
            certificate_sha256: node.credentials.certificate,
            certificate_expires: node.credentials.expires,
            root_key: node.credentials.root_key,
            attached,
            last_refusal: node.supervisor.telemetry().last_refusal(),
        }
    }

    fn reload(&self) -> Result<DoorView, Problem> {
        Err(Problem::new(
            "the demo keeps the credentials that it has made",
            "pilotlight demo --serve",
            "try it with `pilotlight run --signer gateway`",
        ))
    }
}
