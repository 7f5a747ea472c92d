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
//! - `screen` and `report`: what a person and a program read.
//!
//! It waits for events, never for time: the pauses are there for whoever watches, and only pace the story.

mod cast;
mod checks;
mod evidence;
mod far;
mod folder;
mod gossip;
mod node;
mod report;
mod screen;
mod sentry;
mod signer;
mod stage;
mod story;

use crate::signer::gateway::{CredentialsError, GatewayError};
use crate::supervisor::{ListenError, StartError, Stopped};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::signal::unix::{SignalKind, signal};

/// Seeds that are drawn are below this, so that they are easily typed again.
const SEEDS: u64 = 1_000_000;

/// How the demo runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// One JSON object at the end instead of the story.
    pub json: bool,
    /// Where all keys, urgencies and gossip come from; drawn if it is not given.
    pub seed: Option<u64>,
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
pub async fn run(options: Options) -> ExitCode {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..SEEDS));
    let screen = screen::Screen::new(options.json);
    // An interruption is an end like any other: what the demo has made goes with it.
    let played = tokio::select! {
        played = story::play(seed, &screen) => played,
        () = interrupted() => Err(DemoError::Interrupted),
    };
    screen.freeze();
    let passed = match &played {
        Ok(outcome) => outcome.passed(),
        Err(_) => false,
    };
    if options.json {
        report::json(&screen, seed, &played);
    } else {
        report::print(&screen, seed, &played);
    }
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
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
