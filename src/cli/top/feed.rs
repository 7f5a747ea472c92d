//! Where the news come from: the daemon, the keyboard and signals, each on a thread of its own that ends with the process.

use super::look::Key;
use super::terminal;
use crate::admin::Problem;
use crate::cli::client::Client;
use crate::cli::events::FROM_THE_FIRST;
use crate::cli::failure::Failure;
use crate::cli::words::unix_now;
use rustix::process::Signal;
use serde_json::Value;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// News that wait to be taken in. Whoever has more waits; the daemon then counts what its event stream has missed.
const WAITING: usize = 1024;

/// A daemon with very many peers is asked less often: asking takes at most one part in so many of its time.
const SHARE: u32 = 5;

/// Before an event stream that has ended is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Something that `top` has to know of.
#[derive(Debug)]
pub(super) enum News {
    /// What `/v1/info` and `/v1/peers` say, and when they were asked, by our clock.
    Status {
        asked: f64,
        info: Value,
        peers: Value,
    },
    /// One of `/v1/events`.
    Event(Value),
    /// The daemon does not answer.
    Lost { at: f64, problem: Problem },
    /// The user pressed a key.
    Key(Key),
    /// The terminal has another size.
    Resized,
    /// The terminal is wanted for something else for a while: Ctrl-Z, or the signal that stands for it.
    Suspend,
    /// A signal says to leave, or the terminal is gone, or a thread has panicked.
    Stop,
}

/// Starts all of them.
pub(super) fn start(client: &Client, interval: Duration) -> Result<Receiver<News>, Failure> {
    let (sender, news) = sync_channel(WAITING);
    let (asking, following) = (client.clone(), client.clone());
    spawn(&sender, "top-asks", move |sender| {
        ask(&asking, interval, sender);
    })?;
    spawn(&sender, "top-events", move |sender| {
        follow(&following, sender);
    })?;
    spawn(&sender, "top-keys", terminal::read)?;
    spawn(&sender, "top-signals", wait_for_signals)?;
    Ok(news)
}

/// The events alone, for where there is no terminal.
pub(super) fn events(client: &Client) -> Result<Receiver<News>, Failure> {
    let (sender, news) = sync_channel(WAITING);
    let following = client.clone();
    spawn(&sender, "top-events", move |sender| {
        follow(&following, sender);
    })?;
    Ok(news)
}

/// Says `Stop` when it goes, however it does.
struct Farewell(SyncSender<News>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody is left to tell if it fails.
        let _ = self.0.send(News::Stop);
    }
}

fn spawn(
    sender: &SyncSender<News>,
    name: &str,
    work: impl FnOnce(&SyncSender<News>) + Send + 'static,
) -> Result<(), Failure> {
    let farewell = Farewell(sender.clone());
    let started = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(&farewell.0));
    started.map(drop).map_err(|error| {
        Failure::failed(
            format!("no thread is to be had: {error}"),
            "this process",
            "see what limits the number of threads",
        )
    })
}

/// Asks again and again, until nobody wants to know.
fn ask(client: &Client, interval: Duration, sender: &SyncSender<News>) {
    loop {
        let began = Instant::now();
        if sender.send(status(client)).is_err() {
            return;
        }
        thread::sleep(interval.max(began.elapsed().saturating_mul(SHARE)));
    }
}

/// How the daemon is at the moment, or that it does not say.
pub(super) fn status(client: &Client) -> News {
    let asked = unix_now();
    let answers = client
        .get("/v1/info")
        .and_then(|info| Ok((info, client.get("/v1/peers")?)));
    match answers {
        Ok((info, peers)) => News::Status { asked, info, peers },
        Err(Failure { problem, .. }) => News::Lost {
            at: unix_now(),
            problem,
        },
    }
}

/// Follows the events, first those that are kept. That a stream ends or cannot be had is said by who asks for the status.
fn follow(client: &Client, sender: &SyncSender<News>) {
    let mut after = FROM_THE_FIRST.to_owned();
    loop {
        for told in client.events(Some(&after)).into_iter().flatten() {
            let Ok(told) = told else { break };
            if let Some(id) = told.id {
                after = id;
            }
            let Ok(event) = serde_json::from_str(&told.data) else {
                continue;
            };
            if sender.send(News::Event(event)).is_err() {
                return;
            }
        }
        thread::sleep(AGAIN);
    }
}

/// What would end the process, or stop it for a while, does so in good order instead.
fn wait_for_signals(sender: &SyncSender<News>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let caught = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut hangup = signal(SignalKind::hangup())?;
            let mut quit = signal(SignalKind::quit())?;
            let mut stop = signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = hangup.recv() => break,
                    _ = quit.recv() => break,
                    _ = stop.recv() => if sender.send(News::Suspend).is_err() { break },
                }
            }
            Ok(())
        })
    });
    if caught.is_err() {
        // They keep their usual effect.
        loop {
            thread::park();
        }
    }
    // Leaving is said by whoever started this.
    let _ = sender;
}
