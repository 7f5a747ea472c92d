//! The way to a peer's address: names are looked up, and the answers tried in turn.

use super::handshake::HandshakeFailure;
use crate::address::{KnownAddress, PeerAddress};
use crate::clock::Clock;
use crate::limits;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Connects. Returns what it is connected to, too.
pub(super) async fn reach(
    clock: &dyn Clock,
    known: &KnownAddress,
) -> Result<(TcpStream, PeerAddress), HandshakeFailure> {
    let places = match &known.address {
        PeerAddress::Ip(address) => vec![*address],
        PeerAddress::Dns { name, port } => {
            let found = tokio::net::lookup_host((name.as_str(), *port)).await;
            let found = found.map_err(HandshakeFailure::Connect)?;
            found.take(limits::ADDRESSES_MAX).collect()
        }
        PeerAddress::Onion { .. } => Vec::new(),
    };
    let mut failure = HandshakeFailure::Connect(io::ErrorKind::Unsupported.into());
    for place in places {
        match connect(clock, place).await {
            Ok(socket) => return Ok((socket, place.into())),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect(clock: &dyn Clock, address: SocketAddr) -> Result<TcpStream, HandshakeFailure> {
    let deadline = clock.sleep_until(clock.now().after(limits::CONNECT_DEADLINE));
    tokio::select! {
        result = TcpStream::connect(address) => result.map_err(HandshakeFailure::Connect),
        () = deadline => Err(HandshakeFailure::ConnectTimeout),
    }
}
