//! What the supervisor's driver waits for and may not have: an alarm, a drain's end, news of the signer's backlog.
//!
//! It decides nothing: each wait ends, or is pending for ever because there is nothing to wait for.

use crate::clock::{Moment, Sleep};
use tokio::sync::{oneshot, watch};

/// A drain in progress.
pub(super) struct Drain {
    pub(super) done: Vec<oneshot::Sender<()>>,
    pub(super) deadline: Sleep,
    pub(super) links: usize,
}

pub(super) async fn ring(alarm: &mut Option<(Moment, Sleep)>) {
    match alarm {
        Some((_, sleep)) => sleep.await,
        None => std::future::pending().await,
    }
}

pub(super) async fn overrun(drain: &mut Option<Drain>) {
    match drain {
        Some(drain) => (&mut drain.deadline).await,
        None => std::future::pending().await,
    }
}

/// Ready when the signer has something new to say of whether it is behind. One that has stopped saying so is followed no more: its
/// last word must not hold up dials for ever.
pub(super) async fn changed(behind: &mut Option<watch::Receiver<bool>>) {
    match behind {
        Some(followed) => {
            if followed.changed().await.is_err() {
                *behind = None;
            }
        }
        None => std::future::pending().await,
    }
}
