//! TCP, TLS and HTTP/2 to the one server that the agent speaks to, under tonic's client.
//!
//! For: a call whose body is sent before its headers are awaited (lnd sends none until its first message), and PINGs of our own.
//! It never speaks to a server with another certificate than the pinned one, and never opens a second call.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::PingPong;
use h2::client::SendRequest;
use http::uri::{Authority, Scheme, Uri};
use http::{Request, Response};
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::error::AgentError;
use crate::limits::SIGNER_FRAME_BUDGET;
use crate::signer::gateway::PinnedCertificate;
use crate::signer::gateway::http2::{RequestBody, send_body};
use crate::signer::gateway::proto::watch_only_client::WatchOnlyClient;
use crate::signer::gateway::tls::{ALPN, is_other_certificate};

/// The server's name, checked to be `HOST:PORT`.
pub(super) fn authority(server: &str) -> Result<Authority, AgentError> {
    let wrong = || AgentError::Server(server.into());
    let authority: Authority = server.parse().map_err(|_| wrong())?;
    let plain = authority.port_u16().is_some()
        && !authority.host().is_empty()
        && !authority.as_str().contains('@');
    plain.then_some(authority).ok_or_else(wrong)
}

/// TLS on a fresh connection, and the SHA-256 of the certificate that the server showed on it.
pub(super) async fn secure(
    socket: TcpStream,
    authority: &Authority,
    pin: &PinnedCertificate,
) -> Result<(TlsStream<TcpStream>, [u8; 32]), AgentError> {
    // Answers are small, and a handshake in the field waits for each.
    socket.set_nodelay(true).map_err(AgentError::Connect)?;
    let host = authority.host().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| AgentError::Server(authority.to_string()))?;
    let stream = TlsConnector::from(pin.client_config()?)
        .connect(name, socket)
        .await
        .map_err(|error| {
            if is_other_certificate(&error) {
                AgentError::OtherCertificate
            } else {
                AgentError::Tls(error)
            }
        })?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(ALPN) {
        return Err(AgentError::NoHttp2);
    }
    // What was shown, not what was pinned, though they are the same: this is what a proof is bound to.
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let digest = Sha256::digest(shown.ok_or(AgentError::OtherCertificate)?).into();
    Ok((stream, digest))
}

/// A connection with HTTP/2 on it. Dropping it closes the connection at once.
pub(super) struct Connection {
    pub(super) client: WatchOnlyClient<OneServer>,
    pub(super) pings: Option<PingPong>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// # Errors
    /// [`AgentError::Http2`], [`AgentError::HungUp`].
    pub(super) async fn open(
        stream: TlsStream<TcpStream>,
        authority: Authority,
    ) -> Result<Self, AgentError> {
        let (requests, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .data_frame_budget(SIGNER_FRAME_BUDGET)
            .handshake(stream)
            .await
            .map_err(|error| AgentError::broken(&error))?;
        let pings = connection.ping_pong();
        let driver = tokio::spawn(async move {
            // The calls on it see the error too, and say so.
            let _ = connection.await;
        });
        let origin = Uri::builder()
            .scheme(Scheme::HTTPS)
            .authority(authority)
            .path_and_query("/")
            .build()
            .map_err(|error| AgentError::Http2(error.to_string()))?;
        let client = WatchOnlyClient::with_origin(OneServer(requests), origin);
        Ok(Self {
            client,
            pings,
            driver,
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// One HTTP/2 connection as tonic wants it.
pub(super) struct OneServer(SendRequest<Bytes>);

impl Service<Request<tonic::body::Body>> for OneServer {
    type Response = Response<RequestBody>;
    type Error = h2::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, h2::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let sent = self.0.send_request(Request::from_parts(parts, ()), false);
        Box::pin(async move {
            let (response, stream) = sent?;
            // Beside the wait for headers, not after it. It ends with the body, or with the connection.
            tokio::spawn(send_body(body, stream));
            Ok(response.await?.map(RequestBody::new))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for right in [
            "localhost:10019",
            "192.0.2.1:1",
            "[2001:db8::1]:9740",
            "node.example:9740",
        ] {
            assert!(authority(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "localhost",
            "localhost:",
            ":9740",
            "2001:db8::1",
            "user@host:1",
            "https://host:1",
            "host:70000",
        ] {
            assert!(authority(wrong).is_err(), "{wrong}");
        }
    }
}
