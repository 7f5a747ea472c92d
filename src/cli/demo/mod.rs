//! `pilotlight demo`: what this crate is for, in fifteen seconds, on real sockets.
//!
//! One node and fourteen peers, each a BOLT 8 peer with a key, a socket and a task of its own, exchange signed gossip over TCP on
//! loopback. The node's key is with a signer, which dials the node's gateway over TLS on loopback; its connection is cut, and it dials
//! in again. Then the promises are checked on what the *far sides* recorded, and the exit code says whether they hold.
//!
//! - `cast`: who plays, with keys from the seed; `gossip`: what they say, numbered;
//! - `far`: the far sides and their records; `node`: the node as an embedder would write it, and its records;
//! - `signer`: the key and the agent that dials in with it; `folder`: the files that it is given;
//! - `story`: what happens, in order, on the `stage`; `sentry`: looks at the links at the moment of the lapse;
//! - `evidence`: the records, put side by side; `checks`: the verdicts, pure;
//! - `screen` and `report`: what a person and a program read; `recording`: the run as a page, `target`: the file that it goes to;
//! - `serve`: the same people without an end, for whoever tries the status page and the dashboards.
//!
//! It waits for events, never for time: the pauses are there for whoever watches, and only pace the story.

mod cast;
mod checks;
mod evidence;
mod far;
mod folder;
mod gossip;
mod node;
mod recording;
mod report;
mod screen;
mod sentry;
mod serve;
mod signer;
mod stage;
mod story;
mod target;

use super::args::DemoArguments;
use super::failure::Failure;
use super::span;
use crate::signer::gateway::{CredentialsError, GatewayError};
use crate::supervisor::{ListenError, RosterError, StartError, Stopped};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use target::Target;
use tokio::signal::unix::{SignalKind, signal};

/// Seeds that are drawn are below this, so that they are easily typed again.
const SEEDS: u64 = 1_000_000;

/// How long a round of a demo that goes on may be.
const ROUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// How the demo runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    /// One JSON object at the end instead of the story.
    pub(super) json: bool,
    /// Where all keys, urgencies and gossip come from; drawn if it is not given.
    pub(super) seed: Option<u64>,
    /// A file for the run as the status page shows it.
    pub(super) report: Option<PathBuf>,
    /// Goes on until it is interrupted, with its status page at that address, in rounds of that length.
    pub(super) serve: Option<(SocketAddr, Duration)>,
}

impl Options {
    /// As the command line has them.
    ///
    /// # Errors
    /// A round is too short or too long.
    pub(super) fn new(arguments: DemoArguments, json: bool) -> Result<Self, Failure> {
        let (shortest, longest) = ROUNDS;
        let round = span::parse(&arguments.round, "--round")?;
        if !(shortest..=longest).contains(&round) {
            return Err(Failure::usage(
                format!("a round of {} is too short or too long", arguments.round),
                "--round",
                "write a duration from 1s to 1d",
            ));
        }
        Ok(Self {
            json,
            seed: arguments.seed,
            report: arguments.report,
            serve: arguments.serve.then_some((arguments.admin, round)),
        })
    }
}

/// Why the demo could not be played to its end. That a promise is broken is no error: it is a failed check.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum DemoError {
    #[error("the seed {seed} gives no key: try another")]
    Seed { seed: u64 },
    #[error("a gossip message could not be built")]
    Gossip,
    #[error("the system gives no randomness")]
    Entropy,
    #[error("the system gives no port on loopback: {0}")]
    Port(std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Roster(#[from] RosterError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("no private directory for certificate and macaroon: {path}: {source}")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the signer session was over before the story ended it")]
    NoSession,
    #[error("it was interrupted")]
    Interrupted,
    #[error("a peer that the story needs has not come on stage")]
    Absent,
    #[error("waited {seconds} s in vain for {what}")]
    Waited { what: &'static str, seconds: u64 },
}

/// Plays the demo on the current runtime. The exit code is 0 if every check holds, else 1.
///
/// # Errors
/// The report cannot be written, or the status page cannot be served.
pub(super) async fn run(options: Options) -> Result<ExitCode, Failure> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..SEEDS));
    let screen = screen::Screen::new(options.json);
    if let Some(how) = options.serve {
        return serve::run(seed, how, &screen, options.json).await;
    }
    let target = options.report.as_deref().map(Target::prepare).transpose()?;
    // An interruption is an end like any other: what the demo has made goes with it.
    let played = tokio::select! {
        played = story::play(seed, &screen) => played,
        () = interrupted() => Err(DemoError::Interrupted),
    };
    screen.freeze();
    let (written, refused) = match (target, &played) {
        (Some(target), Ok(outcome)) => {
            let path = target.path().to_owned();
            match target.write(&recording::page(&screen, seed, outcome)) {
                Ok(()) => (Some(path), None),
                Err(failure) => (None, Some(failure)),
            }
        }
        _ => (None, None),
    };
    let passed = match &played {
        Ok(outcome) => outcome.passed(),
        Err(_) => false,
    };
    if options.json {
        report::json(&screen, seed, &played, written.as_deref());
    } else {
        report::print(&screen, seed, &played, written.as_deref());
    }
    match refused {
        Some(failure) => Err(failure),
        None if passed => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::FAILURE),
    }
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted() {
    let caught = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupt), Ok(mut terminate)) = caught else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// A record whose writer has panicked is as good as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
