//! The signer of the demo: the node's key and an agent that dials the node's gateway with it, in tasks of their own.
//!
//! It knows of the node what an operator would give it: an address, a certificate and a macaroon. It never listens.

use super::lock;
use crate::node_id::{LocalKey, NodeId};
use crate::signer::agent::{Agent, AgentConfig, AgentReport};
use crate::signer::{EcdhCall, EcdhFuture, EmbeddedSigner, Signer};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The key, with a record of its use: one entry an ECDH, how long its computation took.
pub(super) struct Key {
    inner: EmbeddedSigner,
    uses: Mutex<Vec<Duration>>,
}

impl Key {
    /// How often it was used, proofs included.
    pub(super) fn uses(&self) -> usize {
        lock(&self.uses).len()
    }

    /// What a use took, as [`median`].
    pub(super) fn computation(&self) -> Duration {
        median(lock(&self.uses).clone())
    }
}

impl Signer for Key {
    fn node_id(&self) -> NodeId {
        self.inner.node_id()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        let began = Instant::now();
        // Computed in the call; the future only carries it.
        let answer = self.inner.ecdh(call);
        lock(&self.uses).push(began.elapsed());
        answer
    }
}

/// The signer, attached or not.
pub(super) struct Remote {
    pub(super) key: Arc<Key>,
    config: AgentConfig,
    agent: Option<Agent>,
    /// What those agents did that are gone.
    gone: Vec<AgentReport>,
}

impl Remote {
    pub(super) fn new(key: LocalKey, config: AgentConfig) -> Self {
        Self {
            key: Arc::new(Key {
                inner: EmbeddedSigner::from_key(key),
                uses: Mutex::default(),
            }),
            config,
            agent: None,
            gone: Vec::new(),
        }
    }

    /// Starts an agent, which dials until it is attached.
    pub(super) fn dial(&mut self) {
        let key: Arc<dyn Signer> = Arc::clone(&self.key) as Arc<dyn Signer>;
        self.agent = Some(Agent::start(self.config.clone(), key));
    }

    /// What the agent has done so far, or the last one did.
    pub(super) fn report(&self) -> AgentReport {
        let now = self.agent.as_ref().map(Agent::report);
        now.or_else(|| self.gone.last().copied())
            .unwrap_or_default()
    }

    /// What each of the agents did that are gone.
    pub(super) fn gone(&self) -> &[AgentReport] {
        &self.gone
    }

    /// Stops the agent as the end of its process would: nothing is agreed with the node, the connection is just closed. Returns when
    /// nothing of it runs any more, with its last word.
    pub(super) async fn stop(&mut self) -> AgentReport {
        if let Some(agent) = self.agent.take() {
            self.gone.push(agent.stop().await);
        }
        self.report()
    }
}

/// The one in the middle; zero of nothing.
pub(super) fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}
