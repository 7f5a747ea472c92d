//! The listener: bounded connections, a deadline and a size for every request's head, and an end.

use super::access::{self, Needs, Shown, Tokens, allowed_hosts};
use super::control::SignerControl;
use super::data_dir::Token;
use super::error::AdminError;
use super::exporter::Exporter;
use super::seats::{Seat, Seats, kept_until_read};
use super::{absence, handlers, import, page};
use crate::limits;
use crate::supervisor::Supervisor;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, patch, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How the admin address is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 for any.
    pub address: SocketAddr,
    /// Names under which it may be addressed, beside loopback's and the address itself.
    pub hosts: Vec<String>,
    /// Whether `/metrics` and `/readyz` need a token; `None`: only if the address is not loopback.
    pub scrape_needs_token: Option<bool>,
}

/// What the address speaks for.
pub struct Parts {
    /// The peers.
    pub supervisor: Supervisor,
    /// The signer.
    pub signer: Arc<SignerControl>,
    /// The metrics; `None` where an embedder keeps its own recorder.
    pub exporter: Option<Exporter>,
    /// For reading.
    pub read_only: Token,
    /// For reading and changing.
    pub admin: Token,
}

/// What the handlers share.
pub(super) struct Admin {
    pub(super) supervisor: Supervisor,
    pub(super) signer: Arc<SignerControl>,
    pub(super) exporter: Option<Exporter>,
    pub(super) tokens: Tokens,
    pub(super) hosts: Vec<String>,
    pub(super) scrape_is_open: bool,
    /// Places for event streams.
    pub(super) streams: Arc<Semaphore>,
    pub(super) stop: watch::Receiver<bool>,
}

/// A bound admin address.
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    settings: Settings,
}

/// How often histograms are gathered between scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// After an accept has failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl AdminServer {
    /// Binds the address. Nothing is answered before [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`AdminError::Bind`].
    pub async fn bind(settings: Settings) -> Result<Self, AdminError> {
        let address = settings.address;
        let failed = |source| AdminError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            settings,
        })
    }

    /// Where it listens, with the port that 0 stood for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` turns true or its sender is gone. Requests that are being answered then are answered first, within
    /// [`ADMIN_FAREWELL`](limits::ADMIN_FAREWELL).
    pub async fn serve(self, parts: Parts, mut stop: watch::Receiver<bool>) {
        let exporter = parts.exporter.clone();
        let router = router(&Arc::new(self.admin(parts, &stop)));
        let mut doorstep = Doorstep::new(self.listener);
        let mut upkeep = tokio::time::interval(UPKEEP);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stopping(&mut stop) => break,
                _ = upkeep.tick() => if let Some(exporter) = &exporter { exporter.upkeep() },
                Some((socket, seat)) = doorstep.next() => {
                    connections.spawn(connection(socket, seat, router.clone(), stop.clone()));
                }
                // A connection that panicked harmed nobody but its client.
                Some(_ended) = connections.join_next() => {}
            }
        }
        drop(doorstep);
        let farewell = async { while connections.join_next().await.is_some() {} };
        // Who has not gone by then is cut off, as the set is dropped.
        let _ = tokio::time::timeout(limits::ADMIN_FAREWELL, farewell).await;
    }

    fn admin(&self, parts: Parts, stop: &watch::Receiver<bool>) -> Admin {
        let needs_token = self
            .settings
            .scrape_needs_token
            .unwrap_or(!self.address.ip().is_loopback());
        Admin {
            supervisor: parts.supervisor,
            signer: parts.signer,
            exporter: parts.exporter,
            tokens: Tokens {
                read_only: parts.read_only,
                admin: parts.admin,
            },
            hosts: allowed_hosts(self.address.ip(), &self.settings.hosts),
            scrape_is_open: !needs_token,
            streams: Arc::new(Semaphore::new(limits::ADMIN_EVENT_STREAMS)),
            stop: stop.clone(),
        }
    }
}

fn router(admin: &Arc<Admin>) -> Router {
    let layer = |needs| from_fn_with_state((Arc::clone(admin), needs), access::authorise);
    let scraped = Router::new()
        .route("/metrics", get(handlers::metrics))
        .route("/readyz", get(handlers::readyz))
        .route_layer(layer(Needs::Scrape));
    let read = Router::new()
        .route("/v1/info", get(handlers::info))
        .route("/v1/peers", get(handlers::peers))
        .route("/v1/events", get(handlers::event_stream))
        .route_layer(layer(Needs::Read));
    let changed = Router::new()
        .route("/v1/peers", post(handlers::add_peer))
        .route("/v1/peers/import", post(import::import_peers))
        .route(
            "/v1/peers/{id}",
            patch(handlers::change_peer).delete(handlers::remove_peer),
        )
        .route("/v1/chain", post(absence::chain))
        .route("/v1/signer/lapse", post(handlers::lapse))
        .route("/v1/signer/word", post(absence::word))
        .route("/v1/signer/attach", post(handlers::attach))
        .route("/v1/signer/reload", post(handlers::reload))
        .route_layer(layer(Needs::Change));
    Router::new()
        .route("/", get(page::html))
        .route("/status.css", get(page::style))
        .route("/picture.js", get(page::picture))
        .route("/status.js", get(page::script))
        .route("/healthz", get(handlers::healthz))
        .merge(scraped)
        .merge(read)
        .merge(changed)
        .fallback(handlers::not_found)
        .method_not_allowed_fallback(handlers::wrong_method)
        .layer(DefaultBodyLimit::max(limits::ADMIN_BODY_MAX))
        .layer(from_fn_with_state(Arc::clone(admin), access::guard))
        .with_state(Arc::clone(admin))
}

/// Where connections come in.
struct Doorstep {
    listener: TcpListener,
    seats: Arc<Seats>,
    /// One that has come in and has no place yet; all others wait in the kernel's queue.
    waits: Option<TcpStream>,
}

impl Doorstep {
    fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            seats: Seats::new(limits::ADMIN_CONNECTIONS),
            waits: None,
        }
    }

    /// The next connection, with its place. Cancel safe.
    async fn next(&mut self) -> Option<(TcpStream, Arc<Seat>)> {
        if self.waits.is_none() {
            match self.listener.accept().await {
                Ok((socket, _)) => self.waits = Some(socket),
                Err(error) => {
                    tracing::debug!(%error, "no admin connection can be taken; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    return None;
                }
            }
        }
        let seat = self.seats.take().await?;
        self.waits.take().map(|socket| (socket, seat))
    }
}

async fn connection(
    socket: TcpStream,
    seat: Arc<Seat>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    bound(&socket);
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_HEAD_DEADLINE)
        .max_buf_size(limits::ADMIN_HEAD_MAX);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let busy = seat.busy();
        let answering = router.call(request);
        async move {
            let answer = answering.await?;
            Ok::<_, Infallible>(if answer.extensions().get::<Shown>().is_some() {
                kept_until_read(answer, busy)
            } else {
                answer
            })
        }
    });
    let connection = server.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        // First: a request that has arrived makes the connection busy.
        ended = connection.as_mut() => Some(ended),
        () = seat.must_leave() => {
            tracing::debug!("a silent admin connection has lost its place to a newcomer");
            return;
        }
        () = stopping(&mut stop) => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

async fn stopping(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say so: the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Bounds what the kernel holds for a client, and for how long it holds it for one that reads nothing.
#[cfg(target_os = "linux")]
fn bound(socket: &TcpStream) {
    use rustix::net::sockopt;
    let stall = u32::try_from(limits::ADMIN_STALL.as_millis()).unwrap_or(u32::MAX);
    let bounded = sockopt::set_tcp_user_timeout(socket, stall)
        .and_then(|()| sockopt::set_socket_send_buffer_size(socket, limits::ADMIN_SEND_BUFFER));
    if let Err(error) = bounded {
        tracing::debug!(%error, "an admin connection's buffer or wait is not bounded");
    }
}

#[cfg(not(target_os = "linux"))]
fn bound(_: &TcpStream) {}
