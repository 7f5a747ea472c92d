//! Signers that a test tells how to behave: answering, slow, silent, failing, wrong. Each counts what it is asked.
//!
//! "Slow" is measured on the test's own clock and "held" by a gate that the test opens: nothing here waits for real time.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking, and each target uses its share of the helpers"
)]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pilotlight::clock::{Clock, ManualClock};
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::secret::SharedSecret;
use pilotlight::signer::{EcdhCall, EcdhFuture, Signer, SignerError};
use tokio::sync::{Semaphore, watch};

/// What the signer does with the questions that come from now on.
#[derive(Clone)]
pub(crate) enum Manner {
    /// Answers at once.
    Answer,
    /// Never answers.
    Never,
    /// Says that it will not.
    Fail,
    /// Answers with the ECDH of another key.
    Wrong,
    /// Answers once the test has put a permit into the gate, one for each answer.
    Gate(Arc<Semaphore>),
    /// Answers after so long on that clock.
    Slow(ManualClock, Duration),
}

/// A signer for one key, scripted.
pub(crate) struct Scripted {
    key: LocalKey,
    manner: Mutex<Manner>,
    asked: watch::Sender<usize>,
    held: Arc<AtomicUsize>,
}

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Scripted {
    /// A signer that answers, until it is told otherwise.
    pub(crate) fn new(key: LocalKey) -> Arc<Self> {
        Arc::new(Self {
            key,
            manner: Mutex::new(Manner::Answer),
            asked: watch::Sender::new(0),
            held: Arc::default(),
        })
    }

    /// From the next question on.
    pub(crate) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// Holds every answer from now on; the gate lets one out for each permit.
    pub(crate) fn gated(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.behave(Manner::Gate(Arc::clone(&gate)));
        gate
    }

    /// Questions ever asked.
    pub(crate) fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    /// Questions whose futures are still held by those who asked.
    pub(crate) fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    /// Ready once so many questions have ever been asked.
    pub(crate) async fn until_asked(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        asked
            .wait_for(|asked| *asked >= count)
            .await
            .expect("the sender is this signer's");
    }
}

impl Signer for Scripted {
    fn node_id(&self) -> NodeId {
        self.key.node_id()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        let manner = self
            .manner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.held.fetch_add(1, SeqCst);
        let held = Held(Arc::clone(&self.held));
        self.asked.send_modify(|asked| *asked += 1);
        Box::pin(async move {
            let _held = held;
            match manner {
                Manner::Answer => {}
                Manner::Never => std::future::pending().await,
                Manner::Fail => return Err(SignerError::Refused("policy".into())),
                Manner::Wrong => return Ok(SharedSecret::take(&mut [1; 32])),
                Manner::Gate(gate) => {
                    if let Ok(permit) = gate.acquire().await {
                        permit.forget();
                    }
                }
                Manner::Slow(clock, wait) => clock.sleep_until(clock.now().after(wait)).await,
            }
            Ok(self.key.ecdh(&call.point))
        })
    }
}
