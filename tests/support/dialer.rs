//! A scripted signer that dials the gateway: TLS and HTTP/2 as they are, gRPC frames and protobuf by hand, so that a test
//! says every byte and the crate's own codec is not checked against itself.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests fail by panicking, and each target uses its share of the helpers"
)]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use pilotlight::clock::{Clock, SystemClock};
use pilotlight::node_id::{LocalKey, NodeId, Point};
use pilotlight::secret::Secret32;
use pilotlight::signer::gateway::{
    Gateway, GatewayConfig, Macaroon, Op, RootKey, TlsFiles, TlsIdentity,
};
use pilotlight::signer::{LapseReason, SignerContext, SignerState};
use pilotlight::telemetry::{Event, EventStream, Next, Telemetry};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longer than anything here takes on a crowded machine; it only turns a hang into a failure.
pub(crate) const HANG_GUARD: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG_GUARD, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {HANG_GUARD:?}"))
}

pub(crate) fn key(number: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [number; 32]).unwrap()
}

pub(crate) fn root() -> RootKey {
    RootKey::new(0, Secret32::build(|bytes| bytes.fill(7)))
}

pub(crate) fn macaroon(nonce: u8) -> String {
    Macaroon::bake(&root(), [nonce; 16], &[Op::remote_signer()])
        .to_hex()
        .to_string()
}

/// A certificate that is new each time.
pub(crate) fn identity() -> TlsIdentity {
    let directory = tempfile::tempdir().unwrap();
    let files = TlsFiles::in_directory(directory.path());
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let now = SystemClock::new().unix();
    TlsIdentity::renew(&files, &hosts, now).unwrap()
}

/// A gateway of node 7's on loopback, and all that a test wants to see of it.
pub(crate) struct House {
    pub(crate) gateway: Gateway,
    pub(crate) context: SignerContext,
    pub(crate) telemetry: Telemetry,
    pub(crate) events: EventStream,
    pub(crate) certificate: Vec<u8>,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::with_window(Duration::from_secs(20)).await
    }

    pub(crate) async fn with_window(liveness_window: Duration) -> Self {
        Self::with_identity(identity(), liveness_window).await
    }

    pub(crate) async fn with_identity(identity: TlsIdentity, liveness_window: Duration) -> Self {
        Self::with(identity, liveness_window, Arc::new(SystemClock::new())).await
    }

    pub(crate) async fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::with(identity(), Duration::from_secs(20), clock).await
    }

    async fn with(identity: TlsIdentity, liveness_window: Duration, clock: Arc<dyn Clock>) -> Self {
        let certificate = identity.certificate().to_vec();
        let telemetry = Telemetry::new(Arc::new(SystemClock::new()));
        let events = telemetry.subscribe();
        let context = SignerContext::new(key(7).node_id());
        let config = GatewayConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            identity,
            root_key: root(),
            liveness_window,
        };
        let gateway = Gateway::start(config, context.clone(), telemetry.clone(), clock)
            .await
            .unwrap();
        Self {
            gateway,
            context,
            telemetry,
            events,
            certificate,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    /// A call of Pilotlight's own agent, over a certificate that it trusts.
    pub(crate) async fn dial_as_agent(&self, certificate: &[u8], nonce: u8) -> Dialer {
        let metadata = [("macaroon", &*macaroon(nonce)), ("pilotlight-agent", "1")];
        Dialer::call(self.address(), certificate, &metadata).await
    }

    pub(crate) async fn dial(&self) -> Dialer {
        Dialer::call(
            self.address(),
            &self.certificate,
            &[("macaroon", &macaroon(1))],
        )
        .await
    }

    /// The same, of one that says that it holds the key of this number.
    pub(crate) async fn dial_as_agent_of(&self, number: u8, nonce: u8) -> Dialer {
        let node = key(number).node_id().to_string();
        let metadata = [
            ("macaroon", &*macaroon(nonce)),
            ("pilotlight-agent", "1"),
            ("pilotlight-node", &node),
        ];
        Dialer::call(self.address(), &self.certificate, &metadata).await
    }

    /// A signer that is attached.
    pub(crate) async fn attached(&self) -> Dialer {
        let mut dialer = self.dial().await;
        dialer.register().await;
        self.until_live().await;
        dialer
    }

    pub(crate) async fn until_live(&self) {
        let mut states = self.context.subscribe();
        soon("live", states.wait_for(|state| state.live().is_some()))
            .await
            .unwrap();
    }

    /// Waits for the session of this number; why the one before it ended.
    pub(crate) async fn until_epoch(&self, number: u64) -> LapseReason {
        let mut states = self.context.subscribe();
        let there = states.wait_for(|state| state.live().is_some_and(|live| live.get() == number));
        soon("the next session", there).await.unwrap();
        self.context.last_lapse().unwrap().reason
    }

    pub(crate) async fn until_away(&self) -> LapseReason {
        let mut states = self.context.subscribe();
        let away = states.wait_for(|state| matches!(state, SignerState::Away { .. }));
        match *soon("away", away).await.unwrap() {
            SignerState::Away { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    /// The next refusal of somebody whose macaroon is ours: its label, words, and the macaroon's name.
    pub(crate) async fn named_refusal(&mut self) -> (&'static str, String, String) {
        self.until("a refusal", |event| match event {
            Event::SignerRefused {
                failure,
                detail,
                macaroon,
                ..
            } => Some((*failure, detail.to_string(), macaroon.as_ref()?.to_string())),
            _ => None,
        })
        .await
    }

    /// The label of the next refusal.
    pub(crate) async fn refusal(&mut self) -> &'static str {
        self.until("a refusal", |event| match event {
            Event::SignerRefused { failure, .. } => Some(*failure),
            _ => None,
        })
        .await
    }

    pub(crate) async fn until<T>(&mut self, what: &str, found: impl Fn(&Event) -> Option<T>) -> T {
        soon(what, async {
            loop {
                match self.events.next().await {
                    Some(Next::Event(recorded)) => {
                        if let Some(found) = found(&recorded.event) {
                            return found;
                        }
                    }
                    other => panic!("{other:?} while waiting for {what}"),
                }
            }
        })
        .await
    }
}

/// TLS to the gateway; the server's certificate is the only root.
pub(crate) async fn tls(
    address: SocketAddr,
    certificate: &[u8],
    name: &str,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let socket = TcpStream::connect(address).await?;
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}

/// One call of `SignCoordinatorStreams`.
pub(crate) struct Dialer {
    send: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    received: BytesMut,
    silent: watch::Sender<bool>,
    closed: watch::Receiver<()>,
    reads: bool,
}

impl Dialer {
    pub(crate) async fn call(
        address: SocketAddr,
        certificate: &[u8],
        metadata: &[(&str, &str)],
    ) -> Self {
        Self::call_with_window(address, certificate, metadata, 65_535).await
    }

    /// With so many bytes to be sent to it before it reads.
    pub(crate) async fn call_with_window(
        address: SocketAddr,
        certificate: &[u8],
        metadata: &[(&str, &str)],
        window: u32,
    ) -> Self {
        let socket = tls(address, certificate, "127.0.0.1", &[b"h2"])
            .await
            .unwrap();
        let (mut client, mut connection) = h2::client::Builder::new()
            .initial_window_size(window)
            // As our agent has it: `h2`'s own hangs up on a gateway that has hundreds to ask before a busy machine reads them.
            .data_frame_budget(pilotlight::limits::SIGNER_FRAME_BUDGET)
            .handshake(socket)
            .await
            .unwrap();
        let (over, closed) = watch::channel(());
        let (silent, mut hush) = watch::channel(false);
        tokio::spawn(async move {
            let _over = over;
            let hushed = tokio::select! {
                biased;
                hushed = hush.wait_for(|silent| *silent) => hushed.is_ok(),
                _ = &mut connection => return,
            };
            if hushed {
                // The socket stays open and nobody reads it: what a network that drops everything looks like.
                let _ = hush.wait_for(|silent| !*silent).await;
            } else {
                let _ = connection.await;
            }
        });
        let mut request = http::Request::builder()
            .method("POST")
            .uri("https://localhost/watchonlyrpc.WatchOnly/SignCoordinatorStreams")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
        let (response, send) = client
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        Self {
            send,
            response: Some(response),
            body: None,
            received: BytesMut::new(),
            silent,
            closed,
            reads: true,
        }
    }

    /// Stops to read, to write and to acknowledge, with the connection open.
    pub(crate) fn fall_silent(&self) {
        self.silent.send_replace(true);
    }

    /// From now on what it hears stays in its window: it acknowledges PINGs, and can be sent nothing once the window is full.
    pub(crate) fn stop_reading(&mut self) {
        self.reads = false;
    }

    /// Waits until the connection itself is gone.
    pub(crate) async fn until_closed(&mut self) {
        let _ = soon("the connection's end", self.closed.changed()).await;
    }

    /// Ends the call in HTTP/2's own words.
    pub(crate) fn reset(&mut self, reason: h2::Reason) {
        self.send.send_reset(reason);
    }

    /// Sends one message.
    pub(crate) fn say(&mut self, message: &[u8]) {
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        self.send.reserve_capacity(frame.len());
        // A gateway that has gone is seen by what is read next.
        let _ = self.send.send_data(frame.into(), false);
    }

    pub(crate) fn hang_up(mut self) {
        let _ = self.send.send_data(Bytes::new(), true);
    }

    async fn opened(&mut self) -> Result<&mut RecvStream, String> {
        if let Some(response) = self.response.take() {
            let response = response.await.map_err(|error| error.to_string())?;
            assert_eq!(response.status(), 200);
            if let Some(status) = response.headers().get("grpc-status") {
                let over = response.body().is_end_stream();
                assert!(over, "grpc-go takes such a status for none at all");
                return Err(format!("status {}", status.to_str().unwrap()));
            }
            self.body = Some(response.into_body());
        }
        self.body.as_mut().ok_or_else(|| "over".to_owned())
    }

    /// Waits until the gateway has taken the call.
    pub(crate) async fn until_taken(&mut self) {
        soon("the call's answer", self.opened()).await.unwrap();
    }

    /// The next message, or how the stream ended: `status N`, or an error of HTTP/2.
    pub(crate) async fn hear(&mut self) -> Result<Vec<u8>, String> {
        soon("a message", self.hear_unguarded()).await
    }

    async fn hear_unguarded(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if self.received.len() >= 5 {
                let length = u32::from_be_bytes(self.received[1..5].try_into().unwrap()) as usize;
                if self.received.len() >= 5 + length {
                    self.received.advance(5);
                    return Ok(self.received.split_to(length).to_vec());
                }
            }
            let reads = self.reads;
            let body = self.opened().await?;
            match body.data().await {
                Some(Ok(data)) => {
                    if reads {
                        body.flow_control().release_capacity(data.len()).unwrap();
                    }
                    self.received.extend_from_slice(&data);
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => {
                    let trailers = body.trailers().await.map_err(|error| error.to_string())?;
                    let trailers = trailers.ok_or("no trailers")?;
                    return Err(format!(
                        "status {}",
                        trailers["grpc-status"].to_str().unwrap()
                    ));
                }
            }
        }
    }

    /// Registers as lnd's signer does, and answers the challenge with node 7's key.
    pub(crate) async fn register(&mut self) {
        self.register_as(7).await;
    }

    pub(crate) async fn register_as(&mut self, number: u8) {
        self.say(&registration());
        assert_eq!(self.hear().await.unwrap(), completed());
        let (id, point) = asked(&self.hear().await.unwrap());
        assert_eq!(id, 2);
        self.say(&shared_key(id, number, point));
    }

    /// Registers as our agent does: proves the key of this number, bound to a certificate.
    pub(crate) async fn register_as_agent(&mut self, number: u8, certificate: &[u8]) {
        self.say(&registration());
        let request = self.hear().await.unwrap();
        let (id, rest) = id_of(&request);
        assert_eq!(rest[..5], [0xca, 0x3e, 0x23, 0x0a, 0x21], "proof_request");
        let point = Point::parse(&rest[5..]).unwrap();
        let mut hash = Sha256::new();
        hash.update(b"pilotlight signer proof v1");
        hash.update(key(number).ecdh(&point).expose());
        hash.update(Sha256::digest(certificate));
        let answer = field(1, &hash.finalize());
        self.say(&[head(id), field(1001, &answer)].concat());
    }

    /// The next ECDH request; pings on the way are answered.
    pub(crate) async fn hear_ecdh(&mut self) -> (u64, Point) {
        let next = soon("a request", self.next_ecdh()).await;
        next.expect("the stream goes on")
    }

    /// The same, for however long it takes; `None` at the stream's end.
    pub(crate) async fn next_ecdh(&mut self) -> Option<(u64, Point)> {
        loop {
            let message = self.hear_unguarded().await.ok()?;
            let (id, rest) = id_of(&message);
            if rest == [0x18, 1] {
                self.say(&[&head(id)[..], &[0x18, 1]].concat());
                continue;
            }
            return Some(asked(&message));
        }
    }
}

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

pub(crate) fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let length = u64::try_from(content.len()).unwrap();
    [varint(number << 3 | 2), varint(length), content.to_vec()].concat()
}

/// `ref_request_id` (or `request_id`) alone.
pub(crate) fn head(id: u64) -> Vec<u8> {
    [vec![8], varint(id)].concat()
}

/// What lnd's signer says first.
pub(crate) fn registration() -> Vec<u8> {
    let content = [
        field(1, b"registrationChallenge"),
        field(2, b"outboundSigner"),
    ]
    .concat();
    [head(1), field(2, &content)].concat()
}

/// `registration_complete`, as the gateway says it.
pub(crate) fn completed() -> Vec<u8> {
    [head(1), field(2, &field(1, &field(2, b"watchOnlyNode")))].concat()
}

/// The answer of the signer that has this key.
pub(crate) fn shared_key(id: u64, number: u8, point: Point) -> Vec<u8> {
    shared_bytes(id, key(number).ecdh(&point).expose())
}

pub(crate) fn shared_bytes(id: u64, bytes: &[u8]) -> Vec<u8> {
    [head(id), field(4, &field(1, bytes))].concat()
}

pub(crate) fn signer_error(id: u64, text: &str) -> Vec<u8> {
    [head(id), field(14, &field(1, text.as_bytes()))].concat()
}

pub(crate) fn pong(id: u64) -> Vec<u8> {
    [head(id), vec![0x18, 1]].concat()
}

fn id_of(message: &[u8]) -> (u64, &[u8]) {
    assert_eq!(message[0], 8);
    let (mut id, mut at) = (0, 1);
    loop {
        id |= u64::from(message[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if message[at - 1] < 0x80 {
            return (id, &message[at..]);
        }
    }
}

/// The id and the point of a node-key ECDH request, which must have the bytes that lnd sends.
pub(crate) fn asked(message: &[u8]) -> (u64, Point) {
    let (id, rest) = id_of(message);
    let node: NodeId = key(7).node_id();
    assert_eq!(rest[..4], [0x22, 76, 0x0a, 0x21], "{rest:02x?}");
    let point = Point::parse(&rest[4..37]).unwrap();
    let locator = [0x12, 2, 8, 6];
    let tail = [&[0x1a, 0x27, 0x0a, 0x21], &node.as_bytes()[..], &locator].concat();
    assert_eq!(rest[37..], tail);
    (id, point)
}
