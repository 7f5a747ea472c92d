//! `pilotlight demo`: what this crate is for, in fifteen seconds, on real sockets.
//!
//! One node with an embedded signer and fourteen peers, each a BOLT 8 peer with a key, a socket and a task of its own, exchange
//! signed gossip over TCP on loopback. The signer is cancelled and returns. Then the promises are checked on what the *far sides*
//! recorded, and the exit code says whether they hold.
//!
//! - `cast`: who plays, with keys from the seed; `gossip`: what they say, numbered;
//! - `far`: the far sides and their records; `node`: the node as an embedder would write it, and its records;
//! - `story`: what happens, in order, on the `stage`; `evidence`: the records, put side by side; `checks`: the verdicts, pure;
//! - `screen` and `report`: what a person and a program read.
//!
//! It waits for events, never for time: the pauses are there for whoever watches, and only pace the story.

mod cast;
mod checks;
mod evidence;
mod far;
mod gossip;
mod node;
mod report;
mod screen;
mod stage;
mod story;

use crate::signer::{AttachError, ProofError};
use crate::supervisor::{ListenError, StartError, Stopped};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    #[error("the signer was not proved: {0}")]
    Proof(#[from] ProofError),
    #[error("the signer was not attached: {0}")]
    Attach(#[from] AttachError),
    #[error("there was no signer session to cancel")]
    NoSession,
    #[error("a peer that the story needs has not come on stage")]
    Absent,
    #[error("waited {seconds} s in vain for {what}")]
    Waited { what: &'static str, seconds: u64 },
}

/// Plays the demo on the current runtime. The exit code is 0 if every check holds, else 1.
pub async fn run(options: Options) -> ExitCode {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..SEEDS));
    let screen = screen::Screen::new(options.json);
    let played = story::play(seed, &screen).await;
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

/// A record whose writer has panicked is as good as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
