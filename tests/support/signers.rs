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

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pilotlight::clock::{Clock, ManualClock};
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::secret::SharedSecret;
use pilotlight::signer::{EcdhCall, EcdhFuture, Purpose, Signer, SignerError};
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
    /// Says that too many ask.
    Throttle,
    /// Answers once the test has put a permit into the gate, one for each answer.
    Gate(Arc<Semaphore>),
    /// The same, with the ECDH of another key: an answer that nobody must use.
    WrongGate(Arc<Semaphore>),
    /// Answers after so long on that clock.
    Slow(ManualClock, Duration),
}

/// A signer for one key, scripted.
pub(crate) struct Scripted {
    key: LocalKey,
    manner: Mutex<Manner>,
    asked: watch::Sender<usize>,
    calls: Mutex<Vec<EcdhCall>>,
    held: Arc<Load>,
    /// Whose handshakes it would refuse.
    declined: Mutex<Option<IpAddr>>,
}

/// What the signer is busy with.
struct Load {
    held: AtomicUsize,
    /// From how many on it says that it is behind.
    bearable: AtomicUsize,
    behind: watch::Sender<bool>,
}

impl Load {
    fn add(&self, more: isize) {
        let held = if more > 0 {
            self.held.fetch_add(1, SeqCst) + 1
        } else {
            self.held.fetch_sub(1, SeqCst) - 1
        };
        self.behind.send_replace(held >= self.bearable.load(SeqCst));
    }
}

struct Held(Arc<Load>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

impl Scripted {
    /// A signer that answers, until it is told otherwise.
    pub(crate) fn new(key: LocalKey) -> Arc<Self> {
        Arc::new(Self {
            key,
            manner: Mutex::new(Manner::Answer),
            asked: watch::Sender::new(0),
            calls: Mutex::default(),
            held: Arc::new(Load {
                held: AtomicUsize::new(0),
                bearable: AtomicUsize::new(usize::MAX),
                behind: watch::Sender::new(false),
            }),
            declined: Mutex::default(),
        })
    }

    /// From the next question on.
    pub(crate) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// Has nothing for strangers from there.
    pub(crate) fn decline(&self, source: Option<IpAddr>) {
        *self.declined.lock().unwrap_or_else(PoisonError::into_inner) = source;
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
        self.held.held.load(SeqCst)
    }

    /// Ready once no more than so many questions are held.
    pub(crate) async fn until_held(&self, count: usize) {
        let mut news = self.held.behind.subscribe();
        while self.held() > count {
            news.changed().await.expect("the sender is this signer's");
        }
    }

    /// From so many questions on that it has not answered, it says that it is behind.
    pub(crate) fn bears(&self, questions: usize) {
        self.held.bearable.store(questions, SeqCst);
    }

    /// What the questions were for, in the order in which they came.
    pub(crate) fn purposes(&self) -> Vec<Purpose> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().map(|call| call.purpose).collect()
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
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
        self.held.add(1);
        let held = Held(Arc::clone(&self.held));
        self.asked.send_modify(|asked| *asked += 1);
        Box::pin(async move {
            let _held = held;
            match manner {
                Manner::Answer => {}
                Manner::Never => std::future::pending().await,
                Manner::Fail => return Err(SignerError::Refused("policy".into())),
                Manner::Wrong => return Ok(SharedSecret::take(&mut [1; 32])),
                Manner::Throttle => return Err(SignerError::Overloaded("queue".into())),
                Manner::Gate(gate) => pass(&gate).await,
                Manner::WrongGate(gate) => {
                    pass(&gate).await;
                    return Ok(SharedSecret::take(&mut [1; 32]));
                }
                Manner::Slow(clock, wait) => clock.sleep_until(clock.now().after(wait)).await,
            }
            Ok(self.key.ecdh(&call.point))
        })
    }

    fn declines(&self, source: IpAddr) -> bool {
        *self.declined.lock().unwrap_or_else(PoisonError::into_inner) == Some(source)
    }

    fn behind(&self) -> Option<watch::Receiver<bool>> {
        Some(self.held.behind.subscribe())
    }
}

async fn pass(gate: &Semaphore) {
    if let Ok(permit) = gate.acquire().await {
        permit.forget();
    }
}
