//! Drives one signer's stream: carries messages, time and verdicts to the [machine](super::machine), and does what it says.
//!
//! Its end, in whatever way, drops the signer session, and so is the lapse; only then is the seat given up.
//!
//! It never decides, and never waits for the signer to read: what may be in flight fits into its outgoing queue.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tonic::{Status, Streaming};

use super::access;
use super::call::{
    Answer, Ask, AttachedSigner, COMMANDS, Command, GatewaySigner, LiveStream, Reply,
};
use super::http2::Pings;
use super::machine::{Body, End, Input, Kind, Output, Phase, Registrant, StreamMachine, Ticket};
use super::messages::{self, Content};
use super::places::Place;
use super::proto::{SignCoordinatorRequest, SignCoordinatorResponse};
use super::seat::{Candidate, Refusal, StreamId};
use super::service::{Caller, Connection, Shared, lock};
use crate::clock::{Moment, Sleep};
use crate::limits;
use crate::signer::{Challenge, LapseReason, Proof, SignerSession};
use crate::telemetry::Event;

/// What the seat says to a stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Control {
    Attach,
    Contest,
    Refuse(Refusal),
}

struct Pending {
    ask: Option<Ask>,
    reply: Reply,
}

/// A message on its way to the signer, and the permit for its bytes.
pub(super) type Unsent = (
    Result<SignCoordinatorRequest, Status>,
    Option<OwnedSemaphorePermit>,
);
type Outgoing = mpsc::Sender<Unsent>;

/// The driver of one stream.
pub(super) struct Driver {
    shared: Arc<Shared>,
    id: StreamId,
    address: SocketAddr,
    caller: Caller,
    /// SHA-256 of the certificate that was shown on this connection.
    certificate: [u8; 32],
    pings: Pings,
    /// A newcomer's place; given back when it is attached.
    place: Option<Place>,
    outgoing: Outgoing,
    controls: mpsc::Receiver<Control>,
    commands: mpsc::Receiver<Command>,
    stream: LiveStream,
    machine: StreamMachine,
    pending: HashMap<Ticket, Pending>,
    challenge: Option<Challenge>,
    proof: Option<Proof>,
    session: Option<SignerSession>,
    /// Why it was refused, for the status and the event.
    refused: Option<(&'static str, String)>,
    end: Option<End>,
    /// The outgoing queue was full.
    clogged: bool,
    /// Dropped with this driver: the connection then has little time to say what is left.
    _lifeline: oneshot::Sender<Infallible>,
}

/// What woke the driver.
enum Woken {
    Message(Option<SignCoordinatorResponse>),
    Acknowledged,
    Control(Control),
    Command(Command),
    Lapsed,
    Due,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        connection: Connection,
        caller: Caller,
        outgoing: Outgoing,
    ) -> Self {
        let (id, controls) = shared.enrol(connection.address);
        let (sender, commands) = mpsc::channel(COMMANDS);
        let machine = StreamMachine::new(shared.clock.now(), shared.window);
        let signer = AttachedSigner {
            address: connection.address,
            macaroon: caller.name,
            is_agent: caller.registrant == Registrant::Agent,
        };
        Self {
            id,
            address: connection.address,
            caller,
            certificate: connection.certificate,
            pings: connection.pings,
            place: Some(connection.place),
            outgoing,
            controls,
            commands,
            stream: LiveStream {
                signer,
                commands: sender,
                unsent: Arc::new(Semaphore::new(limits::SIGNING_UNSENT)),
                broken: Arc::default(),
            },
            machine,
            pending: HashMap::new(),
            challenge: None,
            proof: None,
            session: None,
            refused: None,
            end: None,
            clogged: false,
            _lifeline: connection.lifeline,
            shared,
        }
    }

    pub(super) async fn run(mut self, mut incoming: Streaming<SignCoordinatorResponse>) {
        let mut states = self.shared.context.subscribe();
        let mut timer: Option<(Moment, Sleep)> = None;
        while self.end.is_none() {
            let due = self.machine.next_deadline();
            // A wait for an earlier moment than is due is as good: the machine finds nothing to do, and says what is.
            if let Some(due) = due
                && timer.as_ref().is_none_or(|(at, _)| *at > due)
            {
                timer = Some((due, self.shared.clock.sleep_until(due)));
            }
            let epoch = self.session.as_ref().map(SignerSession::epoch);
            let lapsed = states.wait_for(|state| epoch.is_some() && state.live() != epoch);
            let woken = tokio::select! {
                biased;
                _ = lapsed => Woken::Lapsed,
                Some(control) = self.controls.recv() => Woken::Control(control),
                () = self.pings.acknowledged() => Woken::Acknowledged,
                message = incoming.message() => Woken::Message(self.unbroken(message)),
                Some(command) = self.commands.recv() => Woken::Command(command),
                () = wait(&mut timer) => Woken::Due,
            };
            if matches!(woken, Woken::Due) {
                timer = None;
            }
            self.act(woken);
        }
    }

    /// A message that cannot be read ends the stream as its closing does; the event says which it was.
    fn unbroken(
        &mut self,
        message: Result<Option<SignCoordinatorResponse>, Status>,
    ) -> Option<SignCoordinatorResponse> {
        message.unwrap_or_else(|status| {
            self.refused = unreadable(&status).map(|label| (label, status.message().to_owned()));
            None
        })
    }

    fn act(&mut self, woken: Woken) {
        match woken {
            Woken::Lapsed => self.feed(Input::Lapsed, None),
            Woken::Acknowledged => self.feed(Input::PingAcked, None),
            Woken::Due => self.feed(Input::Tick, None),
            Woken::Message(None) => self.feed(Input::Closed, None),
            Woken::Message(Some(message)) => self.received(message),
            Woken::Control(Control::Attach) => self.attach(),
            Woken::Control(Control::Contest) => self.feed(Input::Contest, None),
            Woken::Control(Control::Refuse(refusal)) => {
                self.refused = Some((refusal.as_str(), self.unseated(refusal)));
                self.feed(Input::Refused, None);
            }
            Woken::Command(Command::Cancel(ticket)) => {
                self.pending.remove(&ticket);
                self.feed(Input::Cancel(ticket), None);
            }
            Woken::Command(Command::Submit {
                ticket,
                ask,
                class,
                deadline,
                reply,
            }) => {
                let kind = ask.kind();
                let ask = Some(ask);
                self.pending.insert(ticket, Pending { ask, reply });
                let submit = Input::Submit {
                    ticket,
                    kind,
                    class,
                    deadline,
                };
                self.feed(submit, None);
            }
        }
    }

    /// Why the seat went to another, in words.
    fn unseated(&self, refusal: Refusal) -> String {
        let incumbent = self.shared.incumbent().map_or_else(
            || "another signer is attached".to_owned(),
            |address| format!("another signer is attached, from {address}"),
        );
        let why = match refusal {
            Refusal::Conflict => "it answers: two signers hold this node's key",
            Refusal::Contested => "a third one contends with it just now",
            Refusal::TooSoon => {
                "this macaroon has taken over less than a minute ago, so that it must go by itself"
            }
        };
        // The label too: a signer sees only this text, and its operator looks for the word.
        format!("{}: {incumbent}, and {why}", refusal.as_str())
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            macaroon: self.caller.macaroon,
            source: self.address.ip(),
            claim: self.caller.claim,
        }
    }

    fn received(&mut self, message: SignCoordinatorResponse) {
        let reply_to = message.ref_request_id;
        let (body, content) = messages::read(message, self.caller.registrant);
        if self.machine.phase() == Phase::Registering
            && matches!(body, Body::Registration(_))
            && let Some(barred) = self.barred()
        {
            self.refused = Some(barred);
            return self.feed(Input::Bar, None);
        }
        self.feed(Input::Received { reply_to, body }, content);
    }

    /// Why this caller is not even asked, if it is not.
    fn barred(&self) -> Option<(&'static str, String)> {
        let (candidate, now) = (self.candidate(), self.shared.clock.now());
        let ours = self.shared.context.node_id();
        let other = self.caller.claim.filter(|claim| *claim != ours);
        let mut holds = lock(&self.shared.holds);
        let held = holds.remaining(now, &candidate);
        let (label, left) = match (held, other) {
            (Some(left), _) => ("held_off", left),
            (None, Some(_)) => ("other_node", holds.failed(now, candidate)),
            (None, None) => return None,
        };
        drop(holds);
        let why = match other {
            Some(other) => format!("the signer holds the key of node {other}, this is node {ours}"),
            None => "its proof failed".to_owned(),
        };
        Some((
            label,
            format!("{why}; held off for {} s", left.as_millis().div_ceil(1000)),
        ))
    }

    /// One input, all that follows from it.
    fn feed(&mut self, input: Input, mut content: Option<Content>) {
        let mut next = Some(input);
        let mut out = Vec::new();
        while let Some(input) = next.take() {
            self.machine.step(self.shared.clock.now(), input, &mut out);
            for output in out.drain(..) {
                if let Some(follows) = self.perform(output, &mut content) {
                    next = Some(follows);
                }
            }
            if next.is_none() && std::mem::take(&mut self.clogged) {
                next = Some(Input::Clogged);
            }
        }
        let behind = self.session.is_some() && self.machine.is_behind();
        if self.session.is_some() {
            self.shared
                .behind
                .send_if_modified(|is| std::mem::replace(is, behind) != behind);
        }
    }

    fn perform(&mut self, output: Output, content: &mut Option<Content>) -> Option<Input> {
        match output {
            Output::Complete => self.send(messages::complete()),
            Output::Deny(end) => {
                self.explain(end, content.as_ref());
                self.deny(end);
            }
            Output::SendChallenge(id, kind) => return self.send_challenge(id, kind),
            Output::SendPing(id) => self.send(messages::ping(id)),
            Output::HttpPing => self.pings.send(),
            Output::Send(id, ticket) => self.send_request(id, ticket),
            Output::Verify => return Some(Input::Verified(self.verify(content.take()))),
            Output::Contend => {
                lock(&self.shared.holds).passed(&self.candidate());
                self.shared.contend(self.id, self.caller.macaroon);
            }
            Output::Answered(ticket) => self.answer(ticket, content.take()),
            Output::Failed(ticket, failure) => {
                if let Some(pending) = self.pending.remove(&ticket) {
                    let _ = pending.reply.send(Err(failure));
                }
            }
            Output::Alive => self.shared.alive(self.id),
            Output::Dead => {
                let session = &mut self.session;
                let replaced = self.shared.dead(self.id, || {
                    if let Some(session) = session.take() {
                        let _ = session.lapse(LapseReason::TakenOver);
                    }
                });
                // A newcomer that has left in the meantime leaves things as they were.
                return replaced.then_some(Input::Lapsed);
            }
            Output::Stalled(stalled) => {
                self.shared.telemetry.emit(Event::SignerStalled { stalled });
            }
            Output::Odd(oddity) => {
                let oddity = oddity.as_str();
                self.shared.telemetry.emit(Event::SignerOdd { oddity });
            }
            Output::End(end) => {
                self.explain(end, content.as_ref());
                self.finish(end);
            }
        }
        None
    }

    fn send(&mut self, message: SignCoordinatorRequest) {
        self.send_with(message, None);
    }

    fn send_with(&mut self, message: SignCoordinatorRequest, room: Option<OwnedSemaphorePermit>) {
        // Room for all that may be in flight and more. A signer can acknowledge PINGs and read nothing: that is not life.
        let full = self.outgoing.try_send((Ok(message), room)).is_err();
        self.clogged |= full && !self.outgoing.is_closed();
    }

    /// Finds words for an end that has none yet.
    fn explain(&mut self, end: End, content: Option<&Content>) {
        if self.refused.is_some() {
            return;
        }
        let node = self.shared.context.node_id();
        let detail = match (end, content) {
            (End::ProofWrong, _) => {
                format!("the signer's key is another node's: its answer is not that of node {node}")
            }
            (End::ProofRefused, Some(Content::Error(text))) => {
                format!("the signer refuses to prove that it holds the key of node {node}: {text}")
            }
            (End::ProofRefused, _) => {
                format!("the signer refuses to prove that it holds the key of node {node}")
            }
            (End::ProofLate, _) => "the signer did not answer its challenge in time".to_owned(),
            (End::RegistrationLate, _) => "the signer did not register in time".to_owned(),
            (End::RegistrationWrong, _) => {
                "the first message is no registration under id 1".to_owned()
            }
            (end, _) => format!("the stream ended: {}", end.as_str()),
        };
        self.refused = Some((end.as_str(), detail));
    }

    fn deny(&mut self, end: End) {
        let detail = match &self.refused {
            Some((_, detail)) => detail.clone(),
            None => end.as_str().to_owned(),
        };
        self.send(messages::registration_error(detail));
    }

    fn send_challenge(&mut self, id: u64, kind: Kind) -> Option<Input> {
        let mut entropy = [0; 32];
        let challenge = getrandom::fill(&mut entropy)
            .ok()
            .and_then(|()| self.shared.context.challenge(&mut entropy).ok());
        let Some(challenge) = challenge else {
            self.refused = Some(("no_entropy", "the system gives no randomness".to_owned()));
            return Some(Input::Verified(false));
        };
        let point = challenge.point();
        self.send(match kind {
            Kind::Proof => messages::proof(id, point),
            _ => messages::ecdh(id, point, self.shared.context.node_id()),
        });
        self.challenge = Some(challenge);
        None
    }

    fn send_request(&mut self, id: u64, ticket: Ticket) {
        let ask = self
            .pending
            .get_mut(&ticket)
            .and_then(|pending| pending.ask.take());
        match ask {
            Some(Ask::Ecdh(point)) => {
                self.send(messages::ecdh(id, point, self.shared.context.node_id()));
            }
            Some(Ask::Pass(field, body, room)) => {
                if let Some(message) = messages::pass(id, field, body) {
                    self.send_with(message, Some(room));
                }
            }
            // Cancelled: the machine has been told, so this cannot be.
            None => {}
        }
    }

    fn verify(&mut self, content: Option<Content>) -> bool {
        let Some(challenge) = self.challenge.take() else {
            return false;
        };
        let verified = match content {
            Some(Content::Secret(answer)) => challenge.verify(answer),
            Some(Content::Proof(answer)) => {
                challenge.verify_bound(answer.into(), &self.certificate)
            }
            _ => return false,
        };
        match verified {
            Ok(proof) => {
                if self.session.is_none() {
                    self.proof = Some(proof);
                }
                true
            }
            Err(_) => false,
        }
    }

    fn attach(&mut self) {
        let Some(proof) = self.proof.take() else {
            return;
        };
        let signer = GatewaySigner {
            shared: Arc::clone(&self.shared),
            stream: self.stream.clone(),
        };
        // Before the session is live, so that who hears of it finds the stream.
        self.shared.live.send_replace(Some(self.stream.clone()));
        match self.shared.context.attach(proof, Arc::new(signer)) {
            Ok(session) => {
                self.session = Some(session);
                if let Some(place) = self.place.take() {
                    place.remember();
                }
                self.feed(Input::Seated, None);
            }
            Err(error) => {
                self.refused = Some(("not_attached", error.to_string()));
                self.feed(Input::Refused, None);
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, content: Option<Content>) {
        let Some(pending) = self.pending.remove(&ticket) else {
            return;
        };
        let answer = match content {
            Some(Content::Secret(secret)) => Answer::Secret(secret),
            Some(Content::Pass(body)) => Answer::Pass(body),
            Some(Content::Error(text)) => Answer::Error(text),
            Some(Content::Proof(_)) | None => Answer::Malformed,
        };
        let _ = pending.reply.send(Ok(answer));
    }

    fn finish(&mut self, end: End) {
        self.end = Some(end);
        let (failure, detail) = self
            .refused
            .take()
            .unwrap_or_else(|| (end.as_str(), end.as_str().to_owned()));
        let macaroon = Some(self.caller.name);
        if let Some(session) = self.session.take() {
            // What could not be read has a label of its own; all else is told by the lapse.
            let unread = end == End::Closed && failure != end.as_str();
            let reason = match end {
                End::Silent => LapseReason::LivenessLost,
                End::Odd | End::Clogged => LapseReason::SignerError,
                _ if unread => LapseReason::SignerError,
                _ => LapseReason::StreamClosed,
            };
            if reason == LapseReason::SignerError {
                self.stream.broken.store(true, Ordering::Release);
            }
            let _ = session.lapse(reason);
            if unread {
                self.shared.refuse(self.address, failure, detail, macaroon);
            }
            return;
        }
        if self.place.is_none() {
            return;
        }
        if matches!(end, End::ProofWrong | End::ProofRefused | End::ProofLate) {
            lock(&self.shared.holds).failed(self.shared.clock.now(), self.candidate());
        }
        let farewell = access::farewell(end, detail.clone());
        let _ = self.outgoing.try_send((Err(farewell), None));
        self.shared.refuse(self.address, failure, detail, macaroon);
    }
}

/// However it ends, a panic included: first the session, then the seat.
impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.session.take());
        step_down(
            &self.shared.live,
            &self.shared.behind,
            &self.stream.commands,
        );
        self.shared.left(self.id);
    }
}

/// What was wrong with a message; `None` if it was the connection that broke, which tonic may give the same codes.
fn unreadable(status: &Status) -> Option<&'static str> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<h2::Error>() {
            return None;
        }
        cause = error.source();
    }
    match status.code() {
        tonic::Code::OutOfRange => Some("message_too_large"),
        tonic::Code::Internal => Some("message_malformed"),
        _ => None,
    }
}

/// Nobody is asked through this stream any more. One that has taken over meanwhile is not touched.
fn step_down(
    live: &watch::Sender<Option<LiveStream>>,
    behind: &watch::Sender<bool>,
    ours: &mpsc::Sender<Command>,
) {
    let was_live = live.send_if_modified(|live| {
        live.take_if(|live| live.commands.same_channel(ours))
            .is_some()
    });
    if was_live {
        behind.send_replace(false);
    }
}

async fn wait(timer: &mut Option<(Moment, Sleep)>) {
    match timer {
        Some((_, sleep)) => sleep.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret32;
    use crate::signer::gateway::{Macaroon, RootKey};

    fn live_stream(commands: &mpsc::Sender<Command>) -> LiveStream {
        let root_key = RootKey::new(0, Secret32::build(|bytes| bytes.fill(7)));
        LiveStream {
            signer: AttachedSigner {
                address: ([127, 0, 0, 1], 1).into(),
                macaroon: Macaroon::bake(&root_key, [1; 16], &[]).name(),
                is_agent: false,
            },
            commands: commands.clone(),
            unsent: Arc::new(Semaphore::new(0)),
            broken: Arc::default(),
        }
    }

    #[test]
    fn a_stream_that_was_taken_over_leaves_its_successors_words_alone() {
        let ((ours, _held), (successor, _too)) = (mpsc::channel(1), mpsc::channel(1));
        let live = watch::Sender::new(Some(live_stream(&successor)));
        let behind = watch::Sender::new(true);
        step_down(&live, &behind, &ours);
        assert!(*behind.borrow() && live.borrow().is_some());
        step_down(&live, &behind, &successor);
        assert!(!*behind.borrow() && live.borrow().is_none());
    }

    #[test]
    fn a_connection_that_broke_sent_no_malformed_message() {
        for reason in [
            h2::Reason::NO_ERROR,
            h2::Reason::PROTOCOL_ERROR,
            h2::Reason::INTERNAL_ERROR,
            h2::Reason::CANCEL,
        ] {
            // As tonic makes it of some reasons when any crate of the build turns its `server` on.
            let mut status = Status::internal("h2 protocol error");
            status.set_source(std::sync::Arc::new(h2::Error::from(reason)));
            assert_eq!(unreadable(&status), None, "{status:?}");
        }
        let malformed = Status::internal("failed to decode Protobuf message");
        assert_eq!(unreadable(&malformed), Some("message_malformed"));
        let large = Status::out_of_range("too large");
        assert_eq!(unreadable(&large), Some("message_too_large"));
    }
}
