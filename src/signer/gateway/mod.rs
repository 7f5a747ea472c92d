//! The signer dials in: a gRPC server that speaks lnd's `SignCoordinatorStreams`, and makes the caller's stream the signer session.
//!
//! ```text
//!   TCP ─▶ place ─▶ TLS ─▶ h2 ─▶ macaroon ─▶ registration ─▶ proof ─▶ seat ─▶ attached
//!          door                  service     └─────── stream: machine, driver ───────┘
//! ```
//!
//! - `credentials`, `tls`: certificate, key and root key on disk, both ends of TLS; `macaroon`, `caveat`: who may call.
//! - `door`, `places`, `told`: the listener, who may stand there, and what is said of who may not; `http2`: `h2` under tonic's service; `service`: who may open a stream; `access`: what is said to others.
//! - `machine`, `terms`, `queue`, `flights`: what one stream does next, and what it is owed; `stream`: its driver; `messages`: what is on the wire; `proto`, `encoded`: as bytes.
//! - `seat`: who has the one place, and who is held off.
//! - `budget`: what the signer's ECDH may be spent on.
//! - `call`: what others ask of the attached signer.
//!
//! It never trusts on first use, never answers for the signer, and never lets who is at the door touch the one who is in.

mod access;
pub mod budget;
mod call;
mod caveat;
pub(super) mod credentials;
mod door;
mod encoded;
mod flights;
pub(super) mod http2;
mod macaroon;
pub mod machine;
mod messages;
mod places;
pub(crate) mod proto;
mod queue;
pub mod seat;
mod service;
mod stream;
mod terms;
pub(crate) mod tls;
mod told;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub use call::{AttachedSigner, PassError, SignerHandle};
pub use caveat::Caveat;
pub use credentials::CredentialsError;
#[doc(hidden)]
pub use encoded::{Saying, read_certificate, read_message, write_message};
pub use macaroon::{
    Macaroon, MacaroonError, MacaroonName, Occasion, Op, RootKey, SIGNER_ACTION, SIGNER_ENTITY,
};
pub use tls::{PinnedCertificate, TlsFiles, TlsIdentity};

use crate::clock::Clock;
use crate::error::{Culprit, Retry};
use crate::limits;
use crate::signer::SignerContext;
use crate::telemetry::{Event, Telemetry};
use service::Shared;

/// What a gateway is started with.
pub struct GatewayConfig {
    /// Where the signer dials in.
    pub listen: SocketAddr,
    /// The certificate that is shown, and its key.
    pub identity: TlsIdentity,
    /// What its macaroons are signed with.
    pub root_key: RootKey,
    /// `signer.liveness_window`: a signer that shows no life for so long is gone. At least [`limits::LIVENESS_WINDOW_MIN`].
    pub liveness_window: Duration,
}

impl fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayConfig")
            .field("listen", &self.listen)
            .field("liveness_window", &self.liveness_window)
            .finish_non_exhaustive()
    }
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The address cannot be listened on.
    #[error("the signer's address {address} cannot be listened on: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

impl GatewayError {
    /// Whose fault it was: the operator's.
    pub fn culprit(&self) -> Culprit {
        Culprit::Operator
    }
    /// What was not met.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "the signer dials in: its address must be free",
        }
    }
    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Listen { .. } => Retry::Later,
        }
    }
}

/// A gateway that listens. Dropping it closes every stream, and so lapses the signer session if one of them is it.
pub struct Gateway {
    shared: Arc<Shared>,
    local: SocketAddr,
    stop: watch::Sender<bool>,
    handle: SignerHandle,
}

impl Gateway {
    /// Listens, and attaches to `context` whoever proves itself.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn start(
        config: GatewayConfig,
        context: SignerContext,
        telemetry: Telemetry,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, GatewayError> {
        let GatewayConfig {
            listen: address,
            identity,
            root_key,
            liveness_window,
        } = config;
        let window = liveness_window.max(limits::LIVENESS_WINDOW_MIN);
        let failed = |source| GatewayError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared::new(
            context, telemetry, clock, window, identity, root_key,
        ));
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(door::listen(Arc::clone(&shared), listener, stopped));
        let address = local;
        shared.telemetry.emit(Event::GatewayListening { address });
        let handle = SignerHandle::new(Arc::clone(&shared));
        Ok(Self {
            shared,
            local,
            stop,
            handle,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Takes another root key: macaroons of the old one are refused from now on. The attached signer stays.
    pub fn rotate(&self, root_key: RootKey) {
        *service::lock(&self.shared.root_key) = Arc::new(root_key);
    }

    /// Shows another certificate from the next connection on. Connections that are open keep theirs, the signer's among them; a
    /// signer that dials again needs the new one in its file.
    pub fn renew(&self, identity: TlsIdentity) {
        *service::lock(&self.shared.identity) = Arc::new(identity);
    }

    /// When the certificate that is shown now ends, as time since the Unix epoch.
    pub fn certificate_expires(&self) -> Duration {
        service::lock(&self.shared.identity).expires()
    }

    /// Who is the signer now; `None` while nobody is.
    pub fn attached(&self) -> Option<AttachedSigner> {
        // The stream is named before its session begins, and forgotten after it has ended.
        if !self.shared.context.is_live() {
            return None;
        }
        let live = self.shared.live.borrow();
        live.as_ref().map(|stream| stream.signer.clone())
    }

    /// For the node's own requests to its signer.
    pub fn handle(&self) -> SignerHandle {
        self.handle.clone()
    }

    /// Whether new dials should wait: what is queued keeps the signer busy for longer than [`limits::ECDH_BACKLOG`].
    pub fn is_behind(&self) -> bool {
        *self.shared.behind.borrow()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
