//! The listener: a bounded place for each newcomer, TLS, HTTP/2, one call; each step with its deadline.
//!
//! It never lets a stranger hold more than a place among [`limits::GATEWAY_NEWCOMERS`], and never touches the attached signer.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use http_body::Body;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tower_service::Service as _;

use super::http2::{Pings, RequestBody, send_body};
use super::places::{Newcomers, Place};
use super::proto::METHOD;
use super::proto::watch_only_server::WatchOnlyServer;
use super::service::{Connection, Handover, Service, Shared, lock};
use super::tls::TlsIdentity;
use crate::clock::Sleep;
use crate::error::is_of_one_connection;
use crate::limits;

/// Accepts until `stop` turns true.
pub(super) async fn listen(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) {
    let newcomers = Newcomers::default();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "the signer's connection cannot be taken; trying again");
                let later = shared.clock.now().after(limits::ACCEPT_PAUSE);
                shared.clock.sleep_until(later).await;
                continue;
            }
        };
        let Some((stay, evicted)) = newcomers.take(address.ip()) else {
            let detail = "too many wait to be let in".to_owned();
            shared.refuse(address, "newcomers_full", detail, None);
            continue;
        };
        let (shared, mut stop) = (Arc::clone(&shared), stop.clone());
        // One and the same for the whole connection: a proof is bound to what was shown on it.
        let tls = Arc::clone(&lock(&shared.identity));
        tokio::spawn(async move {
            let newcomer = Newcomer {
                shared: &shared,
                address,
                place: stay.place(),
                has_called: AtomicBool::new(false),
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                Ok(()) = evicted => newcomer.made_way(),
                result = newcomer.serve(socket, &tls) => {
                    if let Err((failure, detail)) = result {
                        shared.refuse(address, failure, detail, None);
                    }
                }
            }
            // Not before the socket is closed: a connection that lingers counts.
            drop(stay);
        });
    }
}

type Refused = (&'static str, String);

struct Newcomer<'a> {
    shared: &'a Arc<Shared>,
    address: SocketAddr,
    place: Place,
    /// From then on its call says what becomes of it.
    has_called: AtomicBool,
}

impl Newcomer<'_> {
    async fn within<T>(
        &self,
        late: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, Refused> {
        let clock = &self.shared.clock;
        let deadline = clock.sleep_until(clock.now().after(limits::GATEWAY_STEP_DEADLINE));
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = deadline => Err((late, "nothing within the deadline".to_owned())),
        }
    }

    fn made_way(&self) {
        if !self.has_called.load(Ordering::Relaxed) {
            let detail = "too many wait to be let in, and a later one took its place".to_owned();
            self.shared
                .refuse(self.address, "newcomers_full", detail, None);
        }
    }

    async fn serve(&self, socket: TcpStream, tls: &TlsIdentity) -> Result<(), Refused> {
        let _ = socket.set_nodelay(true);
        let socket = self.within("tls_late", tls.accept(socket)).await?;
        let socket = socket.map_err(|refusal| (refusal.label(), refusal.to_string()))?;
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(limits::GATEWAY_WINDOW)
            .initial_connection_window_size(limits::GATEWAY_WINDOW)
            .data_frame_budget(limits::SIGNER_FRAME_BUDGET)
            .max_header_list_size(limits::GATEWAY_HEADERS_MAX)
            .max_send_buffer_size(limits::GATEWAY_SEND_BUFFER)
            .max_concurrent_streams(1);
        let http = |error: h2::Error| ("http2", error.to_string());
        let handshake = builder.handshake::<_, Bytes>(socket);
        let mut connection = self.within("http2_late", handshake).await?.map_err(http)?;
        let call = self.within("call_late", connection.accept()).await?;
        let Some((request, respond)) = call.transpose().map_err(http)? else {
            return Err(("no_call", "the client left without a call".into()));
        };
        let Some(pings) = connection.ping_pong() else {
            return Err(("http2", "no PING".into()));
        };
        let (pings, pinging) = Pings::new(pings);
        let (lifeline, mut driven) = oneshot::channel();
        let handover = Handover(Arc::new(Mutex::new(Some(Connection {
            address: self.address,
            certificate: tls.certificate_digest(),
            pings,
            place: self.place.clone(),
            lifeline,
        }))));
        let mut request = request.map(RequestBody::new);
        request.extensions_mut().insert(handover);
        let mut answering = pin!(self.answer(request, respond));
        let mut pinging = pin!(pinging);
        let (mut answered, mut pings_over) = (false, false);
        // Set once the stream is over: how long its last bytes may take. A caller that does not read would keep them for ever.
        let mut closing = None;
        let begin_closing = || {
            let clock = &self.shared.clock;
            clock.sleep_until(clock.now().after(limits::GATEWAY_STEP_DEADLINE))
        };
        loop {
            tokio::select! {
                biased;
                next = connection.accept() => match next {
                    // A second call, after the first has ended: dropping it refuses it.
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return self.left(http(error)),
                    None => return self.left(("no_call", "the client left with its call".into())),
                },
                () = &mut answering, if !answered => {
                    answered = true;
                    connection.graceful_shutdown();
                    closing.get_or_insert_with(begin_closing);
                }
                _ = &mut driven, if closing.is_none() => closing = Some(begin_closing()),
                () = &mut pinging, if !pings_over => pings_over = true,
                () = wait(&mut closing) => return Ok(()),
            }
        }
    }

    /// The connection is over. If that was before anybody looked at the call, nobody else tells of it.
    fn left(&self, why: Refused) -> Result<(), Refused> {
        if self.has_called.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(why)
    }

    async fn answer(&self, request: http::Request<RequestBody>, mut respond: SendResponse<Bytes>) {
        self.has_called.store(true, Ordering::Relaxed);
        if request.uri().path() != METHOD {
            // tonic answers it, with `Unimplemented`.
            let detail = "it calls something that is not here".to_owned();
            self.shared.refuse(self.address, "wrong_call", detail, None);
        }
        let service = Service {
            shared: Arc::clone(self.shared),
        };
        let mut service =
            WatchOnlyServer::new(service).max_decoding_message_size(limits::GATEWAY_ANSWER_MAX);
        let Ok(response) = service.call(request).await;
        let (head, body) = response.into_parts();
        // A denial has no body: its status ends the stream with its headers, or grpc-go, which wants trailers after data, reports
        // `Internal` in its place.
        let over = body.is_end_stream();
        // A caller that has gone is told nothing; its stream's end is seen by the driver.
        let sent = respond.send_response(http::Response::from_parts(head, ()), over);
        if let (Ok(to), false) = (sent, over) {
            let _ = send_body(body, to).await;
        }
    }
}

async fn wait(sleep: &mut Option<Sleep>) {
    match sleep {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}
