//! The tonic service: who may open a stream, and what all streams share.
//!
//! It never attaches anybody: that is the stream's driver, once the machine says so.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::access;
use super::budget::Sources;
use super::call::LiveStream;
use super::http2::Pings;
use super::macaroon::{
    Macaroon, MacaroonError, MacaroonName, Occasion, RootKey, SIGNER_ACTION, SIGNER_ENTITY,
};
use super::machine::{Registrant, Ticket};
use super::places::Place;
use super::proto::watch_only_server::WatchOnly;
use super::proto::{
    AGENT_KEY, AGENT_VALUE, MACAROON_KEY, NODE_KEY, SignCoordinatorRequest, SignCoordinatorResponse,
};
use super::seat::{HoldOffs, MacaroonId, Seat, StreamId, Verdict};
use super::stream::{Control, Driver, Unsent};
use super::tls::TlsIdentity;
use super::told::Told;
use crate::clock::Clock;
use crate::limits;
use crate::node_id::NodeId;
use crate::signer::SignerContext;
use crate::telemetry::{Event, Telemetry};

/// How a stream's driver is told, and where its signer is.
struct Enrolled {
    control: mpsc::Sender<Control>,
    address: SocketAddr,
}

/// What has been said of who was turned away.
#[derive(Default)]
struct Refusals {
    /// Of those with a macaroon of ours: strangers do not drown these.
    of_ours: Told,
    of_strangers: Told,
}

/// What all streams of one gateway share.
pub(super) struct Shared {
    pub(super) context: SignerContext,
    pub(super) telemetry: Telemetry,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) window: Duration,
    /// What the next connection is shown.
    pub(super) identity: Mutex<Arc<TlsIdentity>>,
    pub(super) root_key: Mutex<Arc<RootKey>>,
    pub(super) sources: Mutex<Sources>,
    pub(super) holds: Mutex<HoldOffs>,
    /// The stream that is the signer session.
    pub(super) live: watch::Sender<Option<LiveStream>>,
    /// Whether new dials should wait for the signer.
    pub(super) behind: watch::Sender<bool>,
    refusals: Mutex<Refusals>,
    seat: Mutex<Seat>,
    streams: Mutex<HashMap<StreamId, Enrolled>>,
    next_stream: AtomicU64,
    next_ticket: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        context: SignerContext,
        telemetry: Telemetry,
        clock: Arc<dyn Clock>,
        window: Duration,
        identity: TlsIdentity,
        root_key: RootKey,
    ) -> Self {
        Self {
            context,
            telemetry,
            clock,
            window,
            identity: Mutex::new(Arc::new(identity)),
            root_key: Mutex::new(Arc::new(root_key)),
            sources: Mutex::new(Sources::new()),
            holds: Mutex::new(HoldOffs::new()),
            live: watch::Sender::new(None),
            behind: watch::Sender::new(false),
            refusals: Mutex::default(),
            seat: Mutex::new(Seat::new()),
            streams: Mutex::new(HashMap::new()),
            next_stream: AtomicU64::new(1),
            next_ticket: AtomicU64::new(1),
        }
    }

    pub(super) fn next_ticket(&self) -> Ticket {
        Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts that somebody was turned away, and says it, unless there are too many of them; and who, if he has shown a macaroon of
    /// ours.
    pub(super) fn refuse(
        &self,
        address: SocketAddr,
        failure: &'static str,
        mut detail: String,
        macaroon: Option<MacaroonName>,
    ) {
        let mut refusals = lock(&self.refusals);
        let told = match macaroon {
            Some(_) => &mut refusals.of_ours,
            None => &mut refusals.of_strangers,
        };
        let told = told.tell(self.clock.now());
        drop(refusals);
        let Some(left_out) = told else {
            Telemetry::count_signer_refused(failure);
            return;
        };
        if left_out > 0 {
            let _ = write!(detail, "; {left_out} more before it were counted only");
        }
        self.telemetry.emit(Event::SignerRefused {
            address,
            failure,
            detail: detail.into(),
            macaroon: macaroon.map(|name| name.to_string().into()),
        });
    }

    /// Where the stream that has the seat comes from.
    pub(super) fn incumbent(&self) -> Option<SocketAddr> {
        let holder = lock(&self.seat).holder()?;
        self.address(holder)
    }

    fn address(&self, stream: StreamId) -> Option<SocketAddr> {
        lock(&self.streams)
            .get(&stream)
            .map(|enrolled| enrolled.address)
    }

    pub(super) fn enrol(&self, address: SocketAddr) -> (StreamId, mpsc::Receiver<Control>) {
        let id = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        // A stream hears of one verdict on itself and of one contest at a time.
        let (control, verdicts) = mpsc::channel(8);
        let enrolled = Enrolled { control, address };
        lock(&self.streams).insert(id, enrolled);
        (id, verdicts)
    }

    pub(super) fn contend(&self, stream: StreamId, macaroon: MacaroonId) {
        let verdict = lock(&self.seat).contend(self.clock.now(), stream, macaroon);
        self.tell(verdict);
    }

    pub(super) fn alive(&self, stream: StreamId) {
        let verdict = lock(&self.seat).alive(stream);
        if let Some(verdict) = verdict {
            self.tell(verdict);
        }
    }

    /// The incumbent says of itself that it has lost the contest. `lapse` ends its session: it is called before the newcomer
    /// is told. Whether there is a newcomer.
    pub(super) fn dead(&self, stream: StreamId, lapse: impl FnOnce()) -> bool {
        let Some(newcomer) = lock(&self.seat).dead(self.clock.now(), stream) else {
            return false;
        };
        lapse();
        if let (Some(from), Some(to)) = (self.address(stream), self.address(newcomer)) {
            self.telemetry.emit(Event::SignerTakenOver { from, to });
        }
        self.tell(Verdict::Attach(newcomer));
        true
    }

    /// A stream's driver is gone, and its session with it.
    pub(super) fn left(&self, stream: StreamId) {
        lock(&self.streams).remove(&stream);
        let verdict = lock(&self.seat).left(stream);
        if let Some(verdict) = verdict {
            self.tell(verdict);
        }
    }

    fn tell(&self, verdict: Verdict) {
        let (stream, control) = match verdict {
            Verdict::Attach(stream) => (stream, Control::Attach),
            Verdict::Challenge(stream) => (stream, Control::Contest),
            Verdict::Refuse(stream, refusal) => (stream, Control::Refuse(refusal)),
        };
        if let Some(driver) = lock(&self.streams).get(&stream) {
            // A driver that is gone is about to say so through `left`.
            let _ = driver.control.try_send(control);
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic half-way through a change runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the connection hands to the call on it.
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    /// SHA-256 of the certificate that was shown on it.
    pub(super) certificate: [u8; 32],
    pub(super) pings: Pings,
    pub(super) place: Place,
    pub(super) lifeline: oneshot::Sender<Infallible>,
}

/// What a call says of its caller.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) macaroon: MacaroonId,
    pub(super) name: MacaroonName,
    pub(super) registrant: Registrant,
    /// Whose key it says that it holds. lnd's signer cannot say.
    pub(super) claim: Option<NodeId>,
}

/// An extension of an HTTP request must be `Clone`; this is taken once.
#[derive(Clone)]
pub(super) struct Handover(pub(super) Arc<Mutex<Option<Connection>>>);

/// What goes out on one stream. Taking a message gives back the room of its bytes.
pub(super) struct Requests(mpsc::Receiver<Unsent>);

impl Stream for Requests {
    type Item = Result<SignCoordinatorRequest, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0
            .poll_recv(cx)
            .map(|taken| taken.map(|(message, _room)| message))
    }
}

/// `watchonlyrpc.WatchOnly`.
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl WatchOnly for Service {
    type SignCoordinatorStreamsStream = Requests;

    async fn sign_coordinator_streams(
        &self,
        request: Request<Streaming<SignCoordinatorResponse>>,
    ) -> Result<Response<Self::SignCoordinatorStreamsStream>, Status> {
        let handover = request.extensions().get::<Handover>();
        let connection = handover.and_then(|handover| lock(&handover.0).take());
        let Some(connection) = connection else {
            return Err(Status::internal("the call has no connection"));
        };
        let source = connection.address.ip();
        let caller = self
            .admit(&request, source)
            .map_err(|Denied { error, name }| {
                let (label, detail) = (error.label(), error.to_string());
                self.shared.refuse(connection.address, label, detail, name);
                access::status(&error)
            })?;
        connection.place.vouch();
        let (outgoing, answers) = mpsc::channel(limits::SIGNER_OUTGOING);
        let driver = Driver::new(Arc::clone(&self.shared), connection, caller, outgoing);
        tokio::spawn(driver.run(request.into_inner()));
        Ok(Response::new(Requests(answers)))
    }
}

/// Why a call is denied, and whose macaroon it was: only one with our signature has a name.
struct Denied {
    error: MacaroonError,
    name: Option<MacaroonName>,
}

impl From<MacaroonError> for Denied {
    fn from(error: MacaroonError) -> Self {
        Self { error, name: None }
    }
}

impl Service {
    fn admit<T>(&self, request: &Request<T>, source: IpAddr) -> Result<Caller, Denied> {
        let mut values = request.metadata().get_all(MACAROON_KEY).iter();
        let value = values.next().ok_or(MacaroonError::Missing)?;
        if values.next().is_some() {
            return Err(MacaroonError::Malformed("there is more than one").into());
        }
        let text = value.to_str().map_err(|_| MacaroonError::NotHex)?;
        let macaroon = Macaroon::from_hex(text)?;
        let root = Arc::clone(&lock(&self.shared.root_key));
        let occasion = Occasion {
            entity: SIGNER_ENTITY,
            action: SIGNER_ACTION,
            now: self.shared.clock.unix(),
            source,
        };
        macaroon.verify(&root, &occasion).map_err(|error| Denied {
            name: error.is_of_a_signed_one().then(|| macaroon.name()),
            error,
        })?;
        let metadata = request.metadata();
        let is_agent = metadata
            .get(AGENT_KEY)
            .is_some_and(|value| value == AGENT_VALUE);
        // What is no node id says nothing: the proof decides.
        let claim = metadata.get(NODE_KEY).and_then(|value| value.to_str().ok());
        Ok(Caller {
            macaroon: macaroon.fingerprint(),
            name: macaroon.name(),
            registrant: if is_agent {
                Registrant::Agent
            } else {
                Registrant::Lnd
            },
            claim: claim.and_then(|text| text.parse().ok()),
        })
    }
}
