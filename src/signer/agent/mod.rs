//! The signer's end of the stream: holds the node's key, dials a gateway (Pilotlight's or a watch-only lnd's), answers ECDH.
//!
//! ```text
//!   files ─▶ TCP ─▶ TLS, pinned ─▶ h2 ─▶ registration, queued before the call ─▶ requests ─▶ answers, pongs first
//!     ▲                                                                                         │
//!     └────────────────────────── jittered backoff ◀── the stream's end, whatever it was ◀──────┘
//! ```
//!
//! - `policy`: what a request asks for, and whether it is answered. The node key's ECDH is; nothing else is.
//! - `machine`: the stream's order of things: what waits, what goes out next, how long to wait before the next dial.
//! - `transport`: TCP, TLS and HTTP/2 to the one server; `driver`: the tasks.
//! - `report`: what the agent did, in numbers; `error`: why a stream ended; `encoded`: the machine, of messages as bytes.
//!
//! It never listens, never signs, never answers for another key than its own, and never speaks to a server whose certificate
//! is not, to the byte, the one that it was given.

mod driver;
#[doc(hidden)]
pub mod encoded;
mod error;
pub(crate) mod machine;
pub(crate) mod policy;
mod report;
mod transport;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Signer;
use crate::clock::{Clock, SystemClock};
pub use error::AgentError;
use report::Ledger;
pub use report::{AgentReport, AgentState, Refusal};

/// Where an agent dials, and what it shows there.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// `HOST:PORT` of the server.
    pub server: String,
    /// The server's certificate, in PEM: `signer.cert` of a Pilotlight, `tls.cert` of an lnd. Read again at every dial.
    pub certificate: PathBuf,
    /// The macaroon, binary, as `pilotlight bake` and lnd write it. Read again at every dial.
    pub macaroon: PathBuf,
}

/// An agent that runs until it is dropped or stopped.
///
/// ```no_run
/// use pilotlight::signer::EmbeddedSigner;
/// use pilotlight::signer::agent::{Agent, AgentConfig, AgentState};
/// use std::sync::Arc;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let signer = Arc::new(EmbeddedSigner::load("identity.key")?);
/// let agent = Agent::start(
///     AgentConfig {
///         server: "node.example:9740".into(),
///         certificate: "signer.cert".into(),
///         macaroon: "signer.macaroon".into(),
///     },
///     signer,
/// );
/// agent.state().wait_for(|state| *state == AgentState::Attached).await?;
/// println!("{:?}", agent.report());
/// # Ok(()) }
/// ```
#[must_use = "dropping the agent stops it"]
pub struct Agent {
    ledger: Arc<Ledger>,
    state: watch::Receiver<AgentState>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts to dial, and goes on for ever. Must be called on a tokio runtime.
    pub fn start(config: AgentConfig, signer: Arc<dyn Signer>) -> Self {
        Self::start_with(config, signer, Arc::new(SystemClock::new()))
    }

    /// Like [`Agent::start`], with another clock for deadlines and backoff.
    pub fn start_with(config: AgentConfig, signer: Arc<dyn Signer>, clock: Arc<dyn Clock>) -> Self {
        let ledger = Arc::new(Ledger::default());
        let (told, state) = watch::channel(AgentState::Dialing);
        let (stop, stopped) = watch::channel(false);
        let driver = driver::Driver::new(config, signer, clock, Arc::clone(&ledger), told, stopped);
        Self {
            ledger,
            state,
            stop,
            task: Some(tokio::spawn(driver.run())),
        }
    }

    /// What it is doing, to be awaited.
    pub fn state(&self) -> watch::Receiver<AgentState> {
        self.state.clone()
    }

    /// What it has done since it was started.
    pub fn report(&self) -> AgentReport {
        self.ledger.report()
    }

    /// Ends the stream, which the server sees, and returns when nothing of the agent runs any more.
    pub async fn stop(mut self) -> AgentReport {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            // It panicked, or it ended: either way it is gone.
            let _ = task.await;
        }
        self.ledger.report()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}
