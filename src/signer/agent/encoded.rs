//! One stream of an agent's, of messages as they are encoded, for `fuzz/` only: the codec is private, and an embedder never sees a message.
//!
//! It never decides anything: that is the machine's.

use prost::Message;

pub use super::machine::{Job, Step, backoff};

use super::machine::{StreamMachine, registration};
use super::report::{AgentReport, Ledger};
use crate::node_id::NodeId;
use crate::secret::SharedSecret;
use crate::signer::gateway::proto::SignCoordinatorRequest;

/// The stream, and what has happened on it.
pub struct EncodedStream {
    machine: StreamMachine,
    ledger: Ledger,
}

impl EncodedStream {
    /// A stream to a server that has shown the certificate with this digest, and its first message.
    pub fn open(node_id: NodeId, certificate_digest: [u8; 32]) -> (Self, Vec<u8>) {
        let stream = Self {
            machine: StreamMachine::new(node_id, certificate_digest),
            ledger: Ledger::default(),
        };
        (stream, registration().encode_to_vec())
    }

    /// Takes what the server sent. `None`: no message.
    pub fn receive(&mut self, encoded: &[u8]) -> Option<Step> {
        let request = SignCoordinatorRequest::decode(encoded).ok()?;
        Some(self.machine.receive(request))
    }

    /// The next ECDH to begin, if any may.
    pub fn next_job(&mut self) -> Option<Job> {
        self.machine.next_job()
    }

    /// Takes its outcome. `None`: the key's holder failed.
    pub fn done(&mut self, job: Job, secret: Option<SharedSecret>) {
        self.machine.done(job, secret);
    }

    /// What is to be sent next.
    pub fn next_output(&mut self) -> Option<Vec<u8>> {
        let has_output = self.machine.has_output();
        let output = self.machine.next_output();
        debug_assert_eq!(has_output, output.is_some());
        output.map(|message| message.encode_to_vec())
    }

    /// Whether the server has accepted the registration.
    pub fn is_registered(&self) -> bool {
        self.machine.is_registered()
    }

    /// What has been done since the stream was opened.
    pub fn report(&mut self) -> AgentReport {
        self.machine
            .counts()
            .for_each(|count| self.ledger.add(count));
        self.ledger.report()
    }
}
