//! The reaper: after each lapse it wipes the secrets and resets the connections of every link in the signer's scope.
//!
//! It has a thread of its own, so that it runs even when every worker of the node's runtime is stuck in the node's code. It comes
//! after the fence (P1 does not need it) and off the caller of `lapse`. It never waits for a link's task.

use crate::link::driver::Env;
use crate::signer::{Epoch, Lapse, SignerState};
use crate::telemetry::{Event, LapseReport};
use crate::vault::TornDown;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use tokio::sync::watch;

/// The newest lapse's report, for snapshots.
pub(crate) type LastLapse = Arc<Mutex<Option<(std::time::Duration, LapseReport)>>>;

/// Starts the reaper's thread. It ends when `stop` turns true or its sender is dropped.
pub(crate) fn start(
    env: Arc<Env>,
    lapsed: watch::Sender<Option<Epoch>>,
    newest: LastLapse,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    // Subscribed before the thread starts: no lapse after this call is missed.
    let changes = env.context.subscribe();
    // A runtime without drivers: it only waits on channels.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    thread::Builder::new()
        .name("pilotlight-reaper".into())
        .spawn(move || {
            runtime.block_on(reap(&env, changes, &lapsed, &newest, stop));
        })?;
    Ok(())
}

async fn reap(
    env: &Env,
    mut changes: watch::Receiver<SignerState>,
    lapsed: &watch::Sender<Option<Epoch>>,
    newest: &LastLapse,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        changes.borrow_and_update();
        // Asked of the context: a watcher may have slept through several sessions.
        if let Some(lapse) = env.context.last_lapse()
            && *lapsed.borrow() < Some(lapse.epoch)
        {
            let (torn_down, doomed) = env.vault.tear_down(lapse.epoch);
            // Handshakes of that session are told after: the fence already stops what they could write. The links' tasks are woken last, so
            // that they find all of it done, and their ends are told after the lapse.
            lapsed.send_replace(Some(lapse.epoch));
            report(env, lapse, torn_down, newest);
            drop(doomed);
        }
        tokio::select! {
            news = changes.changed() => if news.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn report(env: &Env, lapse: Lapse, torn_down: TornDown, newest: &LastLapse) {
    let report = LapseReport {
        epoch: lapse.epoch,
        reason: lapse.reason,
        fence: lapse.fence,
        teardown: lapse.at.elapsed(),
        dropped: torn_down.dropped,
        channel_bearing: torn_down.channel_bearing,
        retained: torn_down.retained,
    };
    *newest.lock().unwrap_or_else(PoisonError::into_inner) =
        Some((env.clock.unix(), report.clone()));
    env.telemetry.emit(Event::SignerLapsed(report));
}

#[cfg(test)]
#[path = "reaper_tests.rs"]
mod tests;
