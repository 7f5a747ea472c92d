//! A watch-only node's server, scripted message by message: TLS, HTTP/2 and gRPC framing by hand, so that a test decides when
//! headers go out and sees the bytes that came in.

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Response};
use prost::Message;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// The test's own copy of the generated code.
#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, dead_code)]
#[path = "../../src/signer/gateway/watchonlyrpc.rs"]
pub(crate) mod rpc;

use rpc::registration_response::RegistrationResponseType;
use rpc::sign_coordinator_request::SignRequestType;
use rpc::{
    RegistrationComplete, RegistrationResponse, SignCoordinatorRequest, SignCoordinatorResponse,
};

impl std::fmt::Debug for rpc::SharedKeyResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedKeyResponse({} bytes)", self.shared_key.len())
    }
}

impl std::fmt::Debug for rpc::ProofResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProofResponse({} bytes)", self.answer.len())
    }
}

/// A certificate and its key, in DER, and the former in PEM.
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    pub(crate) pem: String,
    key: Vec<u8>,
}

impl Certificate {
    /// As lnd makes it: self-signed, CA:TRUE.
    pub(crate) fn of_an_authority() -> Self {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            der: certificate.der().to_vec(),
            pem: certificate.pem(),
            key: key.serialize_der(),
        }
    }
}

/// The listening end.
pub(crate) struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) async fn start(certificate: &Certificate) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.key.clone()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der.clone().into()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        Self {
            listener,
            tls,
            address,
        }
    }

    /// The next connection's TLS handshake, which may fail.
    pub(crate) async fn accept_tls(
        &self,
    ) -> std::io::Result<tokio_rustls::server::TlsStream<tokio::net::TcpStream>> {
        let (socket, _) = self.listener.accept().await?;
        self.tls.accept(socket).await
    }

    /// The next connection, up to its call. Nothing has been sent for the call.
    pub(crate) async fn accept(&self) -> Call {
        let stream = self.accept_tls().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, respond) = connection.accept().await.unwrap().unwrap();
        let (freeze, frozen) = oneshot::channel::<()>();
        tokio::spawn(async move {
            tokio::select! {
                // Told to freeze: the connection stays open, and nobody reads it or acknowledges a PING.
                Ok(()) = frozen => std::future::pending::<()>().await,
                _ = connection.accept() => {}
            }
            drop(connection);
        });
        let (parts, body) = request.into_parts();
        assert_eq!(
            parts.uri.path(),
            "/watchonlyrpc.WatchOnly/SignCoordinatorStreams"
        );
        Call {
            metadata: parts.headers,
            respond,
            send: None,
            body,
            buffer: BytesMut::new(),
            freeze: Some(freeze),
        }
    }

    /// The next connection, up to the accepted registration.
    pub(crate) async fn accept_registered(&self) -> Call {
        let mut call = self.accept().await;
        call.next().await.unwrap();
        call.complete_registration();
        call
    }
}

/// One call of `SignCoordinatorStreams`. Dropping it ends the stream.
pub(crate) struct Call {
    pub(crate) metadata: HeaderMap,
    respond: SendResponse<Bytes>,
    send: Option<h2::SendStream<Bytes>>,
    body: RecvStream,
    buffer: BytesMut,
    freeze: Option<oneshot::Sender<()>>,
}

impl Call {
    /// The bytes of the next message, without their frame; `None` at the stream's end.
    pub(crate) async fn next_bytes(&mut self) -> Option<Bytes> {
        loop {
            if let Some(header) = self.buffer.get(..5) {
                assert_eq!(header[0], 0, "a compressed message");
                let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Some(self.buffer.split_to(length).freeze());
                }
            }
            let data = self.body.data().await?.ok()?;
            self.body
                .flow_control()
                .release_capacity(data.len())
                .unwrap();
            self.buffer.extend_from_slice(&data);
        }
    }

    pub(crate) async fn next(&mut self) -> Option<SignCoordinatorResponse> {
        let bytes = self.next_bytes().await?;
        Some(SignCoordinatorResponse::decode(bytes).unwrap())
    }

    /// Sends raw bytes as one message; the headers first, if they have not gone out.
    pub(crate) fn send_bytes(&mut self, message: &[u8]) {
        let send = self.send.get_or_insert_with(|| {
            let headers = Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            self.respond.send_response(headers, false).unwrap()
        });
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(message);
        send.send_data(frame.into(), false).unwrap();
    }

    pub(crate) fn send(&mut self, request_id: u64, content: SignRequestType) {
        let message = SignCoordinatorRequest {
            request_id,
            sign_request_type: Some(content),
        };
        self.send_bytes(&message.encode_to_vec());
    }

    pub(crate) fn complete_registration(&mut self) {
        self.answer_registration(RegistrationResponseType::RegistrationComplete(
            RegistrationComplete::default(),
        ));
    }

    pub(crate) fn answer_registration(&mut self, answer: RegistrationResponseType) {
        let response = RegistrationResponse {
            registration_response_type: Some(answer),
        };
        self.send(1, SignRequestType::RegistrationResponse(response));
    }

    /// Refuses the call with a status and no message.
    pub(crate) fn deny(mut self, status: u32, message: &str) {
        let headers = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", status.to_string())
            .header("grpc-message", message)
            .body(())
            .unwrap();
        self.respond.send_response(headers, true).unwrap();
    }

    /// From now on nothing is read, written or acknowledged, and nothing is closed.
    pub(crate) fn freeze(&mut self) {
        self.freeze.take().unwrap().send(()).unwrap();
    }
}
