//! An unsupervised BOLT 8 connection with a key of this process: what tests, tools and the demo's far sides speak.
//!
//! It has no scope, no firewall and no keepalive; it answers nothing by itself. A node's own links are the supervisor's.

use super::handshake::{Acts, HandshakeFailure, StaticKey};
use crate::brontide::{HEADER_LEN, Session, SessionError};
use crate::clock::{Clock, SystemClock};
use crate::error::{Culprit, Retry};
use crate::limits;
use crate::node_id::{LocalKey, NodeId};
use crate::signer::Purpose;
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection whose handshake is done.
pub struct RawLink {
    socket: TcpStream,
    session: Session,
    remote: NodeId,
    read: BytesMut,
    write: BytesMut,
}

/// Why a raw link failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RawError {
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeFailure),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// A frame broke BOLT 8.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl RawError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::Handshake(failure) => failure.culprit(),
            Self::Io(_) => Culprit::Peer,
            Self::Session(error) => error.culprit(),
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Handshake(failure) => failure.rule(),
            Self::Io(_) => "BOLT 8 § Overview",
            Self::Session(error) => error.rule(),
        }
    }

    /// Whether another connection may succeed.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Handshake(failure) => failure.retry(),
            Self::Io(_) | Self::Session(_) => Retry::Later,
        }
    }
}

impl RawLink {
    /// Dials `remote` as `key`.
    ///
    /// # Errors
    /// [`RawError::Handshake`], which says in which act and why.
    pub async fn connect(
        address: SocketAddr,
        key: Arc<LocalKey>,
        remote: NodeId,
    ) -> Result<Self, RawError> {
        let socket = TcpStream::connect(address)
            .await
            .map_err(HandshakeFailure::Connect)?;
        socket.set_nodelay(true)?;
        let clock = SystemClock::new();
        let acts = Acts {
            socket: &socket,
            clock: &clock as &dyn Clock,
            observer: None,
        };
        let key = StaticKey::Local(key);
        let done = acts
            .initiate(&key, remote, Purpose::GossipDial, None)
            .await?;
        Ok(Self::new(socket, remote, done.authenticated.into_session()))
    }

    /// Answers a peer that has connected to `key`'s owner.
    ///
    /// # Errors
    /// [`RawError::Handshake`], which says in which act and why.
    pub async fn accept(socket: TcpStream, key: Arc<LocalKey>) -> Result<Self, RawError> {
        socket.set_nodelay(true)?;
        let clock = SystemClock::new();
        let acts = Acts {
            socket: &socket,
            clock: &clock as &dyn Clock,
            observer: None,
        };
        let done = acts.respond(&StaticKey::Local(key)).await?;
        let remote = done.authenticated.remote();
        Ok(Self::new(socket, remote, done.authenticated.into_session()))
    }

    fn new(socket: TcpStream, remote: NodeId, session: Session) -> Self {
        Self {
            socket,
            session,
            remote,
            read: BytesMut::new(),
            write: BytesMut::new(),
        }
    }

    /// The peer's key, which the handshake has proved.
    pub fn remote(&self) -> NodeId {
        self.remote
    }

    /// The connection underneath, for its addresses and options.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Encrypts and writes one message, its 2-byte type first. Not cancel safe: a dropped call may leave half a frame behind.
    ///
    /// # Errors
    /// The connection broke, or the session has failed.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), RawError> {
        self.queue(message)?;
        self.flush().await
    }

    /// Encrypts one message; [`flush`](Self::flush) writes it.
    ///
    /// # Errors
    /// The session has failed.
    pub fn queue(&mut self, message: &[u8]) -> Result<(), RawError> {
        Ok(self.session.seal(message, &mut self.write)?)
    }

    /// Writes all that is queued. Not cancel safe.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn flush(&mut self) -> Result<(), RawError> {
        self.socket.write_all(&self.write).await?;
        self.write.clear();
        Ok(())
    }

    /// The next message; `None` when the peer has closed the connection between two frames. Cancel safe.
    ///
    /// # Errors
    /// The connection broke, was reset or was closed in the middle of a frame, or a frame broke BOLT 8.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, RawError> {
        loop {
            if let Some(message) = self.session.open(&mut self.read)? {
                return Ok(Some(message.freeze()));
            }
            self.read.reserve(limits::READ_CHUNK);
            if self.socket.read_buf(&mut self.read).await? == 0 {
                let between_frames = self.read.is_empty() && self.session.needed(0) == HEADER_LEN;
                return if between_frames {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }

    /// The connection and what has been read from it but not decrypted, for tools that go on by themselves.
    pub fn into_parts(self) -> (TcpStream, Session, BytesMut) {
        (self.socket, self.session, self.read)
    }
}
