//! The agent's tasks: dial, register, answer; and again.
//!
//! It never decides what is answered (`policy`) or in which order (`machine`), and never gives up.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Status, Streaming};
use zeroize::Zeroizing;

use super::AgentConfig;
use super::error::AgentError;
use super::machine::{Job, Step, StreamMachine, backoff, registration};
use super::report::{AgentState, Count, Ledger};
use super::transport::{Connection, authority, secure};
use crate::clock::{Clock, Moment};
use crate::limits::{
    AGENT_PING_DEADLINE, AGENT_PING_INTERVAL, AGENT_PIPE, AGENT_REGISTRATION_DEADLINE,
    AGENT_STABLE, CONNECT_DEADLINE,
};
use crate::secret::SharedSecret;
use crate::signer::gateway::credentials::read_public;
use crate::signer::gateway::proto::{
    AGENT_KEY, AGENT_VALUE, MACAROON_KEY, NODE_KEY, SignCoordinatorRequest, SignCoordinatorResponse,
};
use crate::signer::gateway::{Macaroon, PinnedCertificate};
use crate::signer::{EcdhCall, Purpose, Signer};

pub(super) struct Driver {
    config: AgentConfig,
    signer: Arc<dyn Signer>,
    clock: Arc<dyn Clock>,
    ledger: Arc<Ledger>,
    state: watch::Sender<AgentState>,
    stopped: watch::Receiver<bool>,
}

impl Driver {
    pub(super) fn new(
        config: AgentConfig,
        signer: Arc<dyn Signer>,
        clock: Arc<dyn Clock>,
        ledger: Arc<Ledger>,
        state: watch::Sender<AgentState>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            config,
            signer,
            clock,
            ledger,
            state,
            stopped,
        }
    }

    /// Dials until it is told to stop.
    pub(super) async fn run(self) {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            // Its sender is the agent: gone without a word is told to stop as well.
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = self.dial_for_ever() => {}
        }
        self.state.send_replace(AgentState::Stopped);
    }

    async fn dial_for_ever(&self) {
        let mut draws = fastrand::Rng::new();
        let mut failures = 0_u32;
        loop {
            self.ledger.add(Count::Dial);
            self.state.send_replace(AgentState::Dialing);
            let mut attached = None;
            let end = match self.attempt(&mut attached).await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            let now = self.clock.now();
            let held = attached.is_some_and(|at: Moment| now.since(at) >= AGENT_STABLE);
            // A server that takes the signer and hangs up is not dialled at the fastest pace for ever: each time is a lapse there.
            failures = if held { 1 } else { failures.saturating_add(1) };
            let retry_in = backoff(failures, draws.u64(..));
            report(&end, retry_in);
            self.state.send_replace(AgentState::Waiting {
                failure: end.label(),
                detail: end.to_string(),
                retry_in,
            });
            self.clock
                .sleep_until(self.clock.now().after(retry_in))
                .await;
        }
    }

    /// One connection, from the files to its end.
    async fn attempt(
        &self,
        attached: &mut Option<Moment>,
    ) -> Result<std::convert::Infallible, AgentError> {
        let (pin, macaroon) = self.credentials()?;
        let authority = authority(&self.config.server)?;
        let dial = async {
            TcpStream::connect(authority.as_str())
                .await
                .map_err(AgentError::Connect)
        };
        let socket = self.within("connecting", CONNECT_DEADLINE, dial).await?;
        let handshakes = async {
            let (stream, digest) = secure(socket, &authority, &pin).await?;
            let connection = Connection::open(stream, authority.clone()).await?;
            Ok((connection, digest))
        };
        let (mut connection, digest) = self
            .within("the TLS handshake", CONNECT_DEADLINE, handshakes)
            .await?;
        self.state.send_replace(AgentState::Registering);
        let (answers, body) = mpsc::channel(AGENT_PIPE);
        // Queued before the call is made: a server may send nothing, not even headers, until it has read this.
        answers
            .try_send(registration())
            .map_err(|_| AgentError::Ended)?;
        let mut request = Request::new(ReceiverStream::new(body));
        request.metadata_mut().insert(MACAROON_KEY, macaroon);
        request
            .metadata_mut()
            .insert(AGENT_KEY, AsciiMetadataValue::from_static(AGENT_VALUE));
        if let Ok(node) = AsciiMetadataValue::try_from(self.signer.node_id().to_string()) {
            request.metadata_mut().insert(NODE_KEY, node);
        }
        let pings = connection.pings.take();
        let client = &mut connection.client;
        let machine = StreamMachine::new(self.signer.node_id(), digest);
        let stream = async {
            let call = async {
                client
                    .sign_coordinator_streams(request)
                    .await
                    .map_err(|status| ended(&status))
            };
            let registration = AGENT_REGISTRATION_DEADLINE;
            let requests = self.within("the registration", registration, call).await?;
            self.serve(machine, requests.into_inner(), answers, attached)
                .await
        };
        tokio::select! {
            end = stream => end,
            end = self.keep_alive(pings) => Err(end),
        }
    }

    /// Certificate and macaroon as they are on disk now: whoever renews them need not restart the agent.
    fn credentials(&self) -> Result<(PinnedCertificate, AsciiMetadataValue), AgentError> {
        let pin = PinnedCertificate::from_pem(&read_public(&self.config.certificate)?)?;
        let macaroon = Macaroon::parse(&read_public(&self.config.macaroon)?)?;
        let text: Zeroizing<String> = macaroon.to_hex();
        let mut value = AsciiMetadataValue::try_from(text.as_str())
            .map_err(|_| AgentError::Macaroon(crate::signer::gateway::MacaroonError::NotHex))?;
        // Never in a compression table, never in a debug print.
        value.set_sensitive(true);
        Ok((pin, value))
    }

    async fn within<T>(
        &self,
        step: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        let late = self.clock.sleep_until(self.clock.now().after(limit));
        tokio::select! {
            done = work => done,
            () = late => Err(AgentError::Late { step, limit }),
        }
    }

    /// Answers until the stream ends.
    async fn serve(
        &self,
        mut machine: StreamMachine,
        mut requests: Streaming<SignCoordinatorRequest>,
        answers: mpsc::Sender<SignCoordinatorResponse>,
        attached: &mut Option<Moment>,
    ) -> Result<std::convert::Infallible, AgentError> {
        let limit = AGENT_REGISTRATION_DEADLINE;
        let mut late = self.clock.sleep_until(self.clock.now().after(limit));
        let mut jobs: JoinSet<(Job, Option<SharedSecret>)> = JoinSet::new();
        loop {
            while let Some(job) = machine.next_job() {
                let signer = Arc::clone(&self.signer);
                // On tasks of their own: a key that takes its time must not keep a ping waiting.
                // What for is not on the wire; the key's holder is told the weightier of what it can be.
                let call = EcdhCall::new(job.point, Purpose::ChannelDial);
                jobs.spawn(async move { (job, signer.ecdh(call).await.ok()) });
            }
            machine.counts().for_each(|count| self.ledger.add(count));
            tokio::select! {
                biased;
                room = answers.reserve(), if machine.has_output() => {
                    let Ok(room) = room else {
                        let why = why_it_ended(&mut machine, &mut requests);
                        let step = "the stream's end";
                        return self.within(step, AGENT_PING_DEADLINE, why).await;
                    };
                    if let Some(answer) = machine.next_output() {
                        room.send(answer);
                    }
                }
                request = requests.message() => {
                    let request = request.map_err(|status| ended(&status))?;
                    match machine.receive(request.ok_or(AgentError::Ended)?) {
                        Step::Go => {}
                        Step::Registered => {
                            *attached = Some(self.clock.now());
                            machine.counts().for_each(|count| self.ledger.add(count));
                            self.state.send_replace(AgentState::Attached);
                        }
                        Step::Rejected(reason) => return Err(AgentError::rejected(&reason)),
                        Step::Clogged => return Err(AgentError::Clogged),
                    }
                }
                Some(done) = jobs.join_next() => {
                    let (job, secret) = done.map_err(|_| AgentError::SignerPanicked)?;
                    machine.done(job, secret);
                }
                () = &mut late, if !machine.is_registered() => {
                    return Err(AgentError::Late { step: "the registration", limit });
                }
            }
        }
    }

    /// Ends when a PING is not acknowledged. A connection that a middlebox has forgotten is otherwise never missed.
    async fn keep_alive(&self, pings: Option<h2::PingPong>) -> AgentError {
        let Some(mut pings) = pings else {
            return AgentError::Http2("no PING".into());
        };
        loop {
            let next = self.clock.now().after(AGENT_PING_INTERVAL);
            self.clock.sleep_until(next).await;
            let ping = async {
                let pong = pings.ping(h2::Ping::opaque()).await;
                pong.map_err(|error| AgentError::Http2(error.to_string()))
            };
            match self.within("a PING", AGENT_PING_DEADLINE, ping).await {
                Ok(_) => {}
                Err(AgentError::Late { .. }) => return AgentError::Silent,
                // The stream sees it too, and knows more.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// What somebody must see to is a warning; a stream that ends is not.
fn report(end: &AgentError, retry_in: Duration) {
    let label = end.label();
    if end.needs_an_operator() {
        tracing::warn!(end = label, detail = %end, ?retry_in, "the node does not take this signer, or is not the one that was given");
    } else {
        tracing::info!(end = label, detail = %end, ?retry_in, "the signer's stream is down");
    }
}

/// Nothing can be sent any more: the other direction knows why, in a message that is still on its way or by how it ends.
async fn why_it_ended(
    machine: &mut StreamMachine,
    requests: &mut Streaming<SignCoordinatorRequest>,
) -> Result<std::convert::Infallible, AgentError> {
    loop {
        match requests.message().await {
            Ok(Some(request)) => {
                if let Step::Rejected(reason) = machine.receive(request) {
                    return Err(AgentError::rejected(&reason));
                }
            }
            Ok(None) => return Err(AgentError::Ended),
            Err(status) => return Err(ended(&status)),
        }
    }
}

/// What a status says of a stream's end. One with a cause is ours: the connection broke. One without is the server's word.
fn ended(status: &Status) -> AgentError {
    match std::error::Error::source(status) {
        Some(cause) => match cause.downcast_ref::<h2::Error>() {
            Some(error) => AgentError::broken(error),
            None => AgentError::Http2(cause.to_string()),
        },
        None => AgentError::denied(status),
    }
}
