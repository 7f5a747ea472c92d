//! What others ask of the attached signer: ECDH for handshakes, and the node's own requests, passed through.
//!
//! It never waits for a signer to come, save to repeat what was in flight at a drop and is safe to repeat.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::macaroon::MacaroonName;
use super::machine::{Class, Failure, Kind, Ticket};
use super::service::{Shared, lock};
use crate::clock::Moment;
use crate::error::{Culprit, Retry};
use crate::limits;
use crate::node_id::{NodeId, Point};
use crate::secret::SharedSecret;
use crate::signer::{EcdhCall, EcdhFuture, Purpose, Signer, SignerError};
use crate::telemetry::Event;

/// What the signer is asked.
pub(super) enum Ask {
    Ecdh(Point),
    /// The permit is for its bytes, until the connection has taken them.
    Pass(u32, Bytes, OwnedSemaphorePermit),
}

impl Ask {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Ecdh(_) => Kind::Ecdh,
            Self::Pass(field, ..) => Kind::Pass(*field),
        }
    }
}

/// What it said.
pub(super) enum Answer {
    Secret(SharedSecret),
    Pass(Bytes),
    /// `signer_error`.
    Error(String),
    /// A shared key that is not 32 bytes long.
    Malformed,
}

pub(super) type Reply = oneshot::Sender<Result<Answer, Failure>>;

/// To the driver of a stream.
pub(super) enum Command {
    Submit {
        ticket: Ticket,
        ask: Ask,
        class: Class,
        deadline: Moment,
        reply: Reply,
    },
    Cancel(Ticket),
}

/// Who is the signer, as far as its connection tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachedSigner {
    /// Where it dials from.
    pub address: SocketAddr,
    /// Which macaroon it showed.
    pub macaroon: MacaroonName,
    /// Whether it is Pilotlight's own agent, whose proof is bound to the certificate; else it is taken to be lnd.
    pub is_agent: bool,
}

/// The stream that is the signer session.
#[derive(Clone)]
pub(super) struct LiveStream {
    pub(super) signer: AttachedSigner,
    pub(super) commands: mpsc::Sender<Command>,
    /// Bytes of the node's own requests that may wait to be sent.
    pub(super) unsent: Arc<Semaphore>,
    /// Set before its session ends if the signer broke the protocol: what it was asked may be why.
    pub(super) broken: Arc<AtomicBool>,
}

type Awaited = oneshot::Receiver<Result<Answer, Failure>>;

impl LiveStream {
    /// One question, one answer. Dropping the future cancels it.
    async fn ask(
        &self,
        shared: &Shared,
        ask: Ask,
        class: Class,
        deadline: Moment,
    ) -> Result<Answer, Failure> {
        let submitted = self.submit(shared, ask, class, deadline)?;
        self.answer(submitted).await
    }

    /// The first half. After a failure the signer has seen nothing.
    fn submit(
        &self,
        shared: &Shared,
        ask: Ask,
        class: Class,
        deadline: Moment,
    ) -> Result<(Ticket, Awaited), Failure> {
        let ticket = shared.next_ticket();
        let (reply, answer) = oneshot::channel();
        let submit = Command::Submit {
            ticket,
            ask,
            class,
            deadline,
            reply,
        };
        self.commands
            .try_send(submit)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    Failure::Throttled(super::budget::Throttle::Queue)
                }
                mpsc::error::TrySendError::Closed(_) => Failure::Away,
            })?;
        Ok((ticket, answer))
    }

    async fn answer(&self, (ticket, answer): (Ticket, Awaited)) -> Result<Answer, Failure> {
        let mut cancel = CancelOnDrop {
            commands: &self.commands,
            ticket: Some(ticket),
        };
        let answer = answer.await.unwrap_or(Err(Failure::Away));
        cancel.ticket = None;
        answer
    }
}

struct CancelOnDrop<'a> {
    commands: &'a mpsc::Sender<Command>,
    ticket: Option<Ticket>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            // A full queue loses it: the request's deadline is there too.
            let _ = self.commands.try_send(Command::Cancel(ticket));
        }
    }
}

/// The signer at the other end of one stream.
pub(super) struct GatewaySigner {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: LiveStream,
}

impl GatewaySigner {
    async fn ecdh_for(
        &self,
        point: Point,
        class: Class,
        source: Option<IpAddr>,
    ) -> Result<SharedSecret, SignerError> {
        let shared = &self.shared;
        let now = shared.clock.now();
        if let Some(source) = source {
            let taken = lock(&shared.sources).take(now, source);
            if let Err(throttle) = taken {
                return Err(refused(shared, Failure::Throttled(throttle)));
            }
        }
        let deadline = now.after(limits::ACT_DEADLINE);
        let answer = self
            .stream
            .ask(shared, Ask::Ecdh(point), class, deadline)
            .await;
        match answer.map_err(|failure| refused(shared, failure))? {
            Answer::Secret(secret) => Ok(secret),
            Answer::Error(text) => Err(SignerError::Refused(text.into())),
            Answer::Pass(_) | Answer::Malformed => {
                Err(SignerError::Malformed("not 32 bytes of shared key".into()))
            }
        }
    }
}

fn refused(shared: &Shared, failure: Failure) -> SignerError {
    match failure {
        Failure::Throttled(scope) => {
            let scope = scope.as_str();
            shared.telemetry.emit(Event::EcdhThrottled { scope });
            SignerError::Overloaded(scope.into())
        }
        Failure::Late => SignerError::Unavailable("no answer within the act's deadline".into()),
        Failure::WrongType => SignerError::Malformed("an answer of another type".into()),
        Failure::Away => SignerError::Unavailable("its stream has ended".into()),
    }
}

impl Signer for GatewaySigner {
    fn node_id(&self) -> NodeId {
        self.shared.context.node_id()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        let (class, source) = match call.purpose {
            Purpose::Proof | Purpose::ChannelDial => (Class::ChannelDial, None),
            Purpose::GossipDial => (Class::GossipDial, None),
            Purpose::Inbound { source } => (Class::Inbound, Some(source)),
        };
        Box::pin(self.ecdh_for(call.point, class, source))
    }

    fn declines(&self, source: IpAddr) -> bool {
        let now = self.shared.clock.now();
        !lock(&self.shared.sources).has(now, source)
    }

    fn behind(&self) -> Option<watch::Receiver<bool>> {
        Some(self.shared.behind.subscribe())
    }
}

/// Why a request of the node's was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// No signer is attached. It has not seen the request.
    #[error(transparent)]
    SignerAway(#[from] crate::signer::SignerAway),
    /// The signer left while it may have had the request: nobody knows whether it was carried out.
    #[error("the signer left while it may have been working on the request")]
    Interrupted,
    /// The signer says no.
    #[error("the signer refuses: {0}")]
    Refused(String),
    /// The signer answered something else.
    #[error("the signer's answer is of another type")]
    Malformed,
    /// No answer within [`limits::SIGNING_DEADLINE`].
    #[error("the signer did not answer within {} s", limits::SIGNING_DEADLINE.as_secs())]
    Late,
    /// Too many requests at once.
    #[error("too many requests wait for the signer")]
    Overloaded,
    /// Larger than [`limits::GATEWAY_MESSAGE_MAX`].
    #[error("the request is larger than {} bytes", limits::GATEWAY_MESSAGE_MAX)]
    TooLarge,
}

impl PassError {
    /// Whose fault it was.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::Overloaded | Self::TooLarge => Culprit::Us,
            Self::SignerAway(_)
            | Self::Interrupted
            | Self::Refused(_)
            | Self::Malformed
            | Self::Late => Culprit::Signer,
        }
    }
    /// The rule that was broken, or the bound that was met.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::SignerAway(away) => away.rule(),
            Self::Interrupted | Self::Refused(_) | Self::Malformed => {
                "signer protocol: SignCoordinatorStreams"
            }
            Self::Late => "limits: SIGNING_DEADLINE",
            Self::Overloaded => "limits: SIGNING_IN_FLIGHT, SIGNING_UNSENT, SIGNER_QUEUE",
            Self::TooLarge => "limits: GATEWAY_MESSAGE_MAX",
        }
    }
    /// Whether the same request may be made again. One that was late or interrupted may have been carried out: `musig2_sign` must not
    /// be repeated, and what ends a signer's stream will end the next one's.
    pub fn retry(&self) -> Retry {
        match self {
            Self::SignerAway(away) => away.retry(),
            Self::Overloaded => Retry::Later,
            Self::Interrupted
            | Self::Refused(_)
            | Self::Malformed
            | Self::Late
            | Self::TooLarge => Retry::Never,
        }
    }
}

/// The node's own requests to its signer, on the stream that it has: no second channel is needed. Requests and answers are the
/// encoded messages of lnd's `signrpc` and `walletrpc`, passed through unread.
#[derive(Clone)]
pub struct SignerHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) places: Arc<Semaphore>,
}

macro_rules! passes {
    ($($(#[$doc:meta])* $name:ident = $field:literal, $repeat:literal;)*) => {
        impl SignerHandle {
            $($(#[$doc])*
            ///
            /// # Errors
            /// [`PassError`]; [`PassError::SignerAway`] at once while no signer is attached.
            pub async fn $name(&self, request: Bytes) -> Result<Bytes, PassError> {
                self.pass($field, request, $repeat).await
            })*
        }
    };
}

passes! {
    /// `signrpc.SignMessageReq` → `SignMessageResp`. Repeated once, on the next session, if the signer leaves meanwhile.
    sign_message = 5, true;
    /// `signrpc.MuSig2SessionRequest` → `MuSig2SessionResponse`. Never repeated.
    musig2_session = 6, false;
    /// `signrpc.MuSig2RegisterNoncesRequest` → `…Response`. Never repeated.
    musig2_register_nonces = 7, false;
    /// `signrpc.MuSig2RegisterCombinedNonceRequest` → `…Response`. Never repeated.
    musig2_register_combined_nonce = 8, false;
    /// `signrpc.MuSig2GetCombinedNonceRequest` → `…Response`. Never repeated.
    musig2_get_combined_nonce = 9, false;
    /// `signrpc.MuSig2SignRequest` → `…Response`. Never repeated: a nonce used twice gives the key away.
    musig2_sign = 10, false;
    /// `signrpc.MuSig2CombineSigRequest` → `…Response`. Never repeated.
    musig2_combine_sig = 11, false;
    /// `signrpc.MuSig2CleanupRequest` → `…Response`. Never repeated.
    musig2_cleanup = 12, false;
    /// `walletrpc.SignPsbtRequest` → `SignPsbtResponse`. Repeated once, on the next session, if the signer leaves meanwhile.
    sign_psbt = 13, true;
}

impl SignerHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let places = Arc::new(Semaphore::new(limits::SIGNING_IN_FLIGHT));
        Self { shared, places }
    }

    async fn pass(&self, field: u32, request: Bytes, mut repeat: bool) -> Result<Bytes, PassError> {
        if request.len() > limits::GATEWAY_MESSAGE_MAX {
            return Err(PassError::TooLarge);
        }
        let Ok(_place) = self.places.try_acquire() else {
            return Err(PassError::Overloaded);
        };
        let shared = &self.shared;
        let deadline = shared.clock.now().after(limits::SIGNING_DEADLINE);
        let over = shared.clock.sleep_until(deadline);
        let work = async {
            let mut live = shared.live.subscribe();
            let mut stream = live
                .borrow_and_update()
                .clone()
                .ok_or(crate::signer::SignerAway)?;
            // Whether any signer may have seen it.
            let mut seen = false;
            let unseen = |seen, error| if seen { PassError::Interrupted } else { error };
            loop {
                let room = u32::try_from(request.len()).unwrap_or(u32::MAX);
                let room = Arc::clone(&stream.unsent).try_acquire_many_owned(room);
                let room = room.map_err(|_| unseen(seen, PassError::Overloaded))?;
                let ask = Ask::Pass(field, request.clone(), room);
                let submitted = stream.submit(shared, ask, Class::Node, deadline);
                let sent = submitted.is_ok();
                let answer = match submitted {
                    Ok(submitted) => stream.answer(submitted).await,
                    Err(failure) => Err(failure),
                };
                match answer {
                    Ok(Answer::Pass(answer)) => return Ok(answer),
                    Ok(Answer::Error(text)) => return Err(PassError::Refused(text)),
                    Ok(Answer::Secret(_) | Answer::Malformed) | Err(Failure::WrongType) => {
                        return Err(PassError::Malformed);
                    }
                    Err(Failure::Late) => return Err(PassError::Late),
                    Err(Failure::Throttled(_)) => {
                        return Err(unseen(seen, PassError::Overloaded));
                    }
                    // This one has not seen it.
                    Err(Failure::Away) if !sent => {
                        return Err(unseen(seen, crate::signer::SignerAway.into()));
                    }
                    Err(Failure::Away) if !repeat => return Err(PassError::Interrupted),
                    Err(Failure::Away) => (repeat, seen) = (false, true),
                }
                let stays = |now: &Option<LiveStream>| {
                    let now = now.as_ref();
                    now.is_some_and(|now| now.commands.same_channel(&stream.commands))
                };
                // How it ended is known once it has left the place.
                let left = live.wait_for(|now| !stays(now)).await.is_ok();
                if !left || stream.broken.load(Ordering::Acquire) {
                    return Err(PassError::Interrupted);
                }
                let next = live.wait_for(Option::is_some).await;
                let next = next.ok().and_then(|next| next.clone());
                stream = next.ok_or(PassError::Interrupted)?;
            }
        };
        tokio::select! {
            biased;
            answer = work => answer,
            () = over => Err(PassError::Late),
        }
    }
}

/// Commands that may wait for a stream's driver before callers are refused: as many as may wait for the signer.
pub(super) const COMMANDS: usize = limits::SIGNER_QUEUE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_a_passed_request_says_whose_fault_it_was() {
        let away = PassError::SignerAway(crate::signer::SignerAway);
        for (error, culprit, retry) in [
            (away, Culprit::Signer, Retry::WhenSignerReturns),
            (
                PassError::Refused(String::new()),
                Culprit::Signer,
                Retry::Never,
            ),
            (PassError::Interrupted, Culprit::Signer, Retry::Never),
            (PassError::Malformed, Culprit::Signer, Retry::Never),
            (PassError::Late, Culprit::Signer, Retry::Never),
            (PassError::Overloaded, Culprit::Us, Retry::Later),
            (PassError::TooLarge, Culprit::Us, Retry::Never),
        ] {
            assert_eq!(
                (error.culprit(), error.retry()),
                (culprit, retry),
                "{error}"
            );
            assert!(!error.rule().is_empty());
        }
    }
}
