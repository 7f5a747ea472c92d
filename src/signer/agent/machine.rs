//! One stream, as a machine: requests go in, work and answers come out.
//!
//! ```text
//!   requests ─▶ judge ─┬─ ping ───────────────▶ pongs ───▶ out, first
//!                      ├─ refused ────────────▶ answers ─▶ out
//!                      └─ ECDH, proof ─▶ jobs ─▶ (key) ─▶ answers
//! ```
//!
//! Pongs overtake answers, and nothing waits for an ECDH but its own answer: lnd gives a ping one second. It never computes an
//! ECDH, and never lets a queue grow beyond its bound.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::VecDeque;
use std::time::Duration;

use super::super::gateway::proto::sign_coordinator_request::SignRequestType;
use super::super::gateway::proto::sign_coordinator_response::SignResponseType;
use super::super::gateway::proto::{
    ProofResponse, REGISTRATION_CHALLENGE, REGISTRATION_ID, REGISTRATION_INFO, SharedKeyResponse,
    SignCoordinatorRequest, SignCoordinatorResponse, SignerError as SignerErrorMessage,
    SignerRegistration,
};
use super::policy::{Verdict, judge};
use super::report::{Count, Refusal};
use crate::limits::{
    AGENT_ANSWERS, AGENT_BACKOFF_FIRST, AGENT_BACKOFF_MAX, AGENT_ECDH_AT_ONCE, AGENT_JOBS,
};
use crate::node_id::{NodeId, Point};
use crate::secret::SharedSecret;
use crate::signer::bind;

/// An ECDH to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// The request that it answers.
    pub id: u64,
    /// With which point.
    pub point: Point,
    bound: bool,
}

/// What a request led to, beside what it queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing to be told.
    Go,
    /// The server has accepted the registration.
    Registered,
    /// The server has refused it.
    Rejected(String),
    /// The server asks and does not read: more answers wait than are kept.
    Clogged,
}

/// The state of one stream.
pub(crate) struct StreamMachine {
    node_id: NodeId,
    certificate_digest: [u8; 32],
    registered: bool,
    jobs: VecDeque<Job>,
    running: usize,
    pongs: VecDeque<u64>,
    answers: VecDeque<SignCoordinatorResponse>,
    counts: Vec<Count>,
}

/// The first message of a stream.
pub(crate) fn registration() -> SignCoordinatorResponse {
    let registration = SignerRegistration {
        registration_challenge: REGISTRATION_CHALLENGE.to_vec(),
        registration_info: REGISTRATION_INFO.into(),
    };
    response(
        REGISTRATION_ID,
        SignResponseType::SignerRegistration(registration),
    )
}

fn response(ref_request_id: u64, content: SignResponseType) -> SignCoordinatorResponse {
    SignCoordinatorResponse {
        ref_request_id,
        sign_response_type: Some(content),
    }
}

impl StreamMachine {
    pub(crate) fn new(node_id: NodeId, certificate_digest: [u8; 32]) -> Self {
        Self {
            node_id,
            certificate_digest,
            registered: false,
            jobs: VecDeque::new(),
            running: 0,
            pongs: VecDeque::new(),
            answers: VecDeque::new(),
            counts: Vec::new(),
        }
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.registered
    }

    /// Takes a request in.
    pub(crate) fn receive(&mut self, request: SignCoordinatorRequest) -> Step {
        let id = request.request_id;
        if let Some(SignRequestType::RegistrationResponse(_)) = &request.sign_request_type
            && self.registered
        {
            // A second one says nothing new, and there is nobody to tell.
            return Step::Go;
        }
        match judge(request.sign_request_type, self.node_id) {
            Verdict::Registered => {
                self.registered = true;
                self.counts.push(Count::Attached);
                return Step::Registered;
            }
            Verdict::Rejected(reason) => return Step::Rejected(reason),
            Verdict::Pong => self.pongs.push_back(id),
            Verdict::Ecdh(point) => self.enqueue(id, point, false),
            Verdict::Proof(point) => self.enqueue(id, point, true),
            Verdict::Refuse(refusal) => self.refuse(id, refusal),
        }
        // Jobs are bounded where they are queued, so only a server that does not read gets here.
        if self.pongs.len() + self.answers.len() > AGENT_ANSWERS {
            Step::Clogged
        } else {
            Step::Go
        }
    }

    fn enqueue(&mut self, id: u64, point: Point, bound: bool) {
        if self.jobs.len() >= AGENT_JOBS {
            return self.refuse(id, Refusal::Busy);
        }
        self.jobs.push_back(Job { id, point, bound });
    }

    fn refuse(&mut self, id: u64, refusal: Refusal) {
        self.counts.push(Count::Refused(refusal));
        let error = SignerErrorMessage {
            error: refusal.as_str().into(),
        };
        self.answers
            .push_back(response(id, SignResponseType::SignerError(error)));
    }

    /// The next ECDH to begin, if one more may run, and room for its answer is left.
    pub(crate) fn next_job(&mut self) -> Option<Job> {
        if self.running >= AGENT_ECDH_AT_ONCE || self.answers.len() + self.running >= AGENT_ANSWERS
        {
            return None;
        }
        let job = self.jobs.pop_front()?;
        self.running += 1;
        Some(job)
    }

    /// Takes the outcome of a job. `None`: the key's holder failed; what it said is not the server's to know.
    pub(crate) fn done(&mut self, job: Job, secret: Option<SharedSecret>) {
        self.running = self.running.saturating_sub(1);
        let Some(secret) = secret else {
            return self.refuse(job.id, Refusal::SignerFailed);
        };
        let content = if job.bound {
            self.counts.push(Count::Proof);
            let bound = bind(&secret, &self.certificate_digest);
            SignResponseType::ProofResponse(ProofResponse {
                answer: bound.expose().to_vec(),
            })
        } else {
            self.counts.push(Count::Ecdh);
            SignResponseType::SharedKeyResponse(SharedKeyResponse {
                shared_key: secret.expose().to_vec(),
            })
        };
        self.answers.push_back(response(job.id, content));
    }

    /// Whether anything waits to be sent.
    pub(crate) fn has_output(&self) -> bool {
        !self.pongs.is_empty() || !self.answers.is_empty()
    }

    /// What is to be sent next.
    pub(crate) fn next_output(&mut self) -> Option<SignCoordinatorResponse> {
        if let Some(id) = self.pongs.pop_front() {
            self.counts.push(Count::Ping);
            return Some(response(id, SignResponseType::Pong(true)));
        }
        self.answers.pop_front()
    }

    /// What has happened since the last call, to be counted.
    pub(crate) fn counts(&mut self) -> impl Iterator<Item = Count> + '_ {
        self.counts.drain(..)
    }
}

/// How long to wait before the next dial: doubling from [`AGENT_BACKOFF_FIRST`] to [`AGENT_BACKOFF_MAX`], and of that a
/// random part between a half and the whole, so that signers that were dropped together do not come back together. `failures`
/// in a row, the last included; `draw` is a random number.
pub fn backoff(failures: u32, draw: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = AGENT_BACKOFF_FIRST
        .saturating_mul(1 << doublings)
        .min(AGENT_BACKOFF_MAX);
    let half = whole / 2;
    // In microseconds: a coarser unit would leave nothing to draw from at the beginning.
    let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX - 1);
    half + Duration::from_micros(draw % (span + 1))
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
