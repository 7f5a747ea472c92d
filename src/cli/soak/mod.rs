//! `pilotlight soak`: a node and many peers on loopback for hours, a signer that goes and returns every half minute, and a watch on the
//! process's memory and descriptors.
//!
//! Each round: all links up, a sample of what the process uses, a lapse, a while without a signer, a return. The promises are checked on
//! what the far sides and the node's inbox see: gossip in order both ways, nothing of a channel link after a lapse, no `error`, no
//! ECDH while away, the floor, the relight. All of it is in one process, so its memory is the far sides' too.
//!
//! - `far`: the peers; `node`: the node; `ledger`: what is written down; `figures`: whether memory and descriptors stayed flat.

mod far;
mod figures;
mod ledger;
mod node;
mod report;

use super::args::SoakArguments;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::signals::Signals;
use super::span;
use crate::admin::usage;
use crate::link::LinkHandle;
use crate::node_id::LocalKey;
use crate::signer::Epoch;
use crate::supervisor::{RosterError, StartError, Stopped};
use far::Far;
use ledger::Breaches;
use node::Node;
use report::{Round, Summary};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Of ten peers so many have a channel with the node.
const CHANNELS_OF_TEN: usize = 2;
/// Rounds that warm the process up, at the most: a quarter of the time if that is less.
const WARM_UP_ROUNDS: u32 = 4;
/// Descriptors beside the three of each peer: its port, and both ends of its link.
const OTHER_DESCRIPTORS: u64 = 128;

/// How the soak runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    peers: usize,
    time: Duration,
    round: Duration,
    seed: u64,
}

impl Options {
    /// As the command line has them.
    ///
    /// # Errors
    /// A duration is malformed or out of its bounds.
    pub(super) fn new(arguments: &SoakArguments) -> Result<Self, Failure> {
        let time = span::parse(&arguments.time, "--for")?;
        let round = span::parse(&arguments.lapse_every, "--lapse-every")?;
        let hour = Duration::from_secs(3600);
        if !(Duration::from_secs(1)..=hour).contains(&round) {
            return Err(Failure::usage(
                format!(
                    "a round of {} is too short or too long",
                    arguments.lapse_every
                ),
                "--lapse-every",
                "write a duration from 1s to 1h",
            ));
        }
        Ok(Self {
            peers: usize::from(arguments.peers),
            time,
            round,
            seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000)),
        })
    }

    fn channels(&self) -> usize {
        (self.peers * CHANNELS_OF_TEN / 10).max(1)
    }

    fn warm_up(&self) -> Duration {
        (self.round * WARM_UP_ROUNDS).min(self.time / 4)
    }
}

/// Why the soak could not go on. That a promise is broken is no error: it is counted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum SoakError {
    #[error("the seed gives no key: try another")]
    Seed,
    #[error("the system gives no randomness")]
    Entropy,
    #[error("the system gives no port on loopback: {0}")]
    Port(std::io::Error),
    #[error("{wanted} descriptors are needed, and the limit is {limit}")]
    Descriptors { wanted: u64, limit: u64 },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Roster(#[from] RosterError),
    #[error("the signer was not taken: {0}")]
    Signer(String),
    #[error("only {up} of {wanted} links came up")]
    NotUp { up: usize, wanted: usize },
}

impl From<SoakError> for Failure {
    fn from(error: SoakError) -> Self {
        let to_do = match error {
            SoakError::Descriptors { .. } => "raise it (ulimit -n), or take fewer --peers",
            _ => "start it again; if it stays, please report it",
        };
        Self::failed(
            format!("the soak cannot go on: {error}"),
            "pilotlight soak",
            to_do,
        )
    }
}

/// Soaks until the time is over or a signal comes. Failed if a promise was broken, or memory or descriptors grew.
///
/// # Errors
/// The system refuses what the soak needs, or the peers do not come up.
pub(super) async fn run(options: Options, output: &Output) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    raise_descriptors(options.peers)?;
    let breaches = Arc::new(Breaches::default());
    let mut fars = Vec::new();
    for number in 0..options.peers {
        let bears_channel = number < options.channels();
        fars.push(Far::start(options.seed, number, bears_channel, &breaches).await?);
    }
    let key = key(options.seed, "node", 0)?;
    let mut node = Node::start(key, options.seed, &fars, &breaches).await?;
    report::begins(output, &options);
    let mut summary = Summary::default();
    let ended = tokio::select! {
        ended = soak(&options, &mut node, &fars, &mut summary, output) => ended,
        () = signals.next() => Ok(()),
    };
    summary.close(&node, &options);
    node.supervisor.drain().await;
    report::ends(output, &options, &summary);
    ended?;
    Ok(if summary.held() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

async fn soak(
    options: &Options,
    node: &mut Node,
    fars: &[Far],
    summary: &mut Summary,
    output: &Output,
) -> Result<(), SoakError> {
    let mut epoch = node.attach().await?;
    node.meet(fars).await?;
    if !node.until_up(options.peers).await {
        let up = node.look(|links| links.live.len());
        let wanted = options.peers;
        return Err(SoakError::NotUp { up, wanted });
    }
    summary.began = Some(Instant::now());
    loop {
        sleep(options.round * 2 / 3).await;
        summary.sample();
        let mut round = Round::new(summary);
        let lapse = node.lapse();
        let written = node.look(ledger::Links::written);
        let Some(lapse) = lapse.filter(|lapse| lapse.epoch == epoch) else {
            return Err(SoakError::Signer("its session was over".to_owned()));
        };
        round.fence = lapse.fence;
        away(options, node, &mut round, epoch).await;
        sleep(options.round / 3).await;
        returned_to(options, node, &written);
        epoch = node.attach().await?;
        let relit = node.relit(epoch).await;
        let channels = options.channels();
        node.breaches
            .check("P8", relit.is_some_and(|(_, up)| up == channels), || {
                format!("{relit:?} of {channels} channel peers came back")
            });
        round.relight = relit.map(|(took, _)| took);
        round.close(node, summary);
        report::round(output, &round);
        if summary.elapsed() >= options.time {
            return Ok(());
        }
    }
}

/// What must hold as soon as the lapse is reported.
async fn away(options: &Options, node: &Node, round: &mut Round, epoch: Epoch) {
    let (channels, gossip) = (options.channels(), options.peers - options.channels());
    let report = node.report(epoch).await;
    let breaches = &node.breaches;
    let Some(report) = report else {
        breaches.add("P3", "the teardown was not reported in a minute");
        return;
    };
    round.teardown = report.teardown;
    breaches.check("P2", report.retained == gossip, || {
        format!("{} of {gossip} gossip links were retained", report.retained)
    });
    breaches.check("P1", report.dropped == channels, || {
        format!(
            "{} of {channels} channel links were dropped",
            report.dropped
        )
    });
}

/// What must have held for as long as the signer was away.
fn returned_to(options: &Options, node: &Node, written: &[(LinkHandle, u64)]) {
    let breaches = &node.breaches;
    let silent = written
        .iter()
        .all(|(link, bytes)| link.bytes_written() == *bytes);
    breaches.check("P1", silent, || {
        "a channel link wrote after the lapse".to_owned()
    });
    let (asked, _, _) = node.told();
    breaches.check("P5", asked == 0, || {
        format!("{asked} ECDHs were asked for without a signer")
    });
    let links = node.supervisor.snapshot().links;
    breaches.check("P6", links.channel_bearing == 0, || {
        format!("{} channel links without a signer", links.channel_bearing)
    });
    let gossip = options.peers - options.channels();
    breaches.check("P7", links.gossip_only == gossip, || {
        format!(
            "{} of {gossip} gossip links without a signer",
            links.gossip_only
        )
    });
}

/// The key of a name and a number, of that seed. It is worth nothing: anybody can make it again.
fn key(seed: u64, what: &str, number: usize) -> Result<LocalKey, SoakError> {
    let mut secret: [u8; 32] =
        Sha256::digest(format!("pilotlight soak {seed} {what} {number}")).into();
    LocalKey::from_bytes(&mut secret).map_err(|_| SoakError::Seed)
}

/// Raises the soft limit on descriptors as far as it is needed.
fn raise_descriptors(peers: usize) -> Result<(), SoakError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = (peers as u64) * 3 + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|current| *current < wanted) else {
        return Ok(());
    };
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    let limit = limit.maximum.unwrap_or(current);
    setrlimit(Resource::Nofile, raised).map_err(|_| SoakError::Descriptors { wanted, limit })
}
