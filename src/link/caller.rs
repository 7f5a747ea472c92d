//! A connection that somebody made to us, up to the end of its handshake, in steps that a lapse may come between.
//!
//! ```text
//!   connected ──act one──▶ ECDH asked for ──answer──▶ act two, act three ──▶ a link
//!       │  lapse               │  lapse                     │  lapse
//!       └──────────▶ handed back, to be parked              └──────────▶ ended (P6)
//! ```
//!
//! Until it has its ECDH a handshake depends on no session: when the signer goes it is handed back as it stands, and whoever takes
//! inbound connections decides whether it may wait for the next session, which is then asked anew. An answer of the session that
//! ended is never used. It never waits for a signer itself, and reads nothing while none is there (P5).

use super::driver::{Admitted, Connected, Env, Origin, Report, establish, note_handshake, prepare};
use super::handshake::{Acts, Done, HandshakeFailure, Partial, StaticKey, ephemeral};
use super::places::Progress;
use super::turnstile::{Slot, Ticker};
use super::{Direction, Identity, LinkId};
use crate::brontide::{ACT_ONE_LEN, AwaitActOne, ResponderEcdh};
use crate::clock::Moment;
use crate::limits;
use crate::node_id::LocalKey;
use crate::signer::{EcdhCall, EcdhError, Epoch, Purpose};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// Who has connected, and how far the handshake is.
pub(crate) struct Caller {
    env: Arc<Env>,
    link: LinkId,
    socket: TcpStream,
    address: SocketAddr,
    /// Since when the peer may be waiting for act two.
    since: Moment,
    was_parked: bool,
    /// When the handshake began; `None` while no signer was there for it.
    began: Option<Moment>,
    one: Partial<ACT_ONE_LEN>,
    asking: Option<Asking>,
}

/// What has become of a handshake.
#[expect(
    clippy::large_enum_variant,
    reason = "looked at where it is returned, and never kept"
)]
pub(crate) enum Proceeded {
    /// There is no signer, or not any more: it can go on under another session.
    Back(Caller),
    /// There is a link.
    Admitted(Admitted),
    /// It failed, and the supervisor has been told.
    Failed,
}

/// Act one is there, and its ECDH is not.
struct Asking {
    state: ResponderEcdh,
    /// An answer that comes later serves nobody.
    by: Moment,
}

impl Caller {
    pub(crate) fn new(env: Arc<Env>, link: LinkId, socket: TcpStream, address: SocketAddr) -> Self {
        prepare(&socket);
        let since = env.clock.now();
        Self {
            env,
            link,
            socket,
            address,
            since,
            was_parked: false,
            began: None,
            one: Partial::new(),
            asking: None,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// It waits for a signer from now on: until when.
    pub(crate) fn park(&mut self) -> Moment {
        self.was_parked = true;
        let round_trip = self.env.context.round_trip();
        let longest = limits::PARKED_FOR.saturating_sub(round_trip);
        self.since.after(longest)
    }

    fn origin(&self) -> Origin {
        Origin {
            link: self.link,
            address: self.address.into(),
            direction: Direction::Inbound,
            identity: Identity::Node,
        }
    }

    /// It is closed without a handshake, or without the end of one.
    pub(crate) fn turned_away(&self) {
        if let Some(began) = self.began {
            let failure = HandshakeFailure::Lapsed;
            note_handshake(&self.env, &self.origin(), began, Some(&failure));
        }
    }

    /// The handshake and the link's admission. `slot` is the place among the handshakes under way, `unparked` that among those of
    /// sockets that had been parked.
    pub(crate) async fn proceed(
        mut self,
        mut slot: Slot,
        unparked: Option<OwnedSemaphorePermit>,
    ) -> Proceeded {
        let ticker = slot.progress();
        // In memory of its own, and not in that of a socket that is parked.
        let shaking = Box::pin(self.shake(&ticker));
        let result = tokio::select! {
            biased;
            () = slot.lost() => Err(HandshakeFailure::Crowded),
            result = shaking => result,
        };
        drop((slot, unparked));
        let result = match result {
            Ok(None) => return Proceeded::Back(self),
            Ok(Some(done)) => Ok(done),
            Err(failure) => Err(failure),
        };
        let origin = self.origin();
        let Self {
            env,
            link,
            socket,
            address,
            began,
            ..
        } = self;
        let began = began.unwrap_or_else(|| env.clock.now());
        note_handshake(&env, &origin, began, result.as_ref().err());
        let result = match result {
            Ok(done) => {
                let connected = Connected {
                    socket,
                    reached: address.into(),
                    done,
                };
                establish(&env, connected, &origin).await
            }
            Err(failure) => Err(failure),
        };
        match result {
            Ok(admitted) => Proceeded::Admitted(admitted),
            Err(failure) => {
                env.report(Report::InboundFailed {
                    link,
                    address,
                    failure,
                })
                .await;
                Proceeded::Failed
            }
        }
    }

    /// `None`: there is no signer.
    async fn shake(&mut self, ticker: &Ticker) -> Result<Option<Done>, HandshakeFailure> {
        let env = Arc::clone(&self.env);
        let Ok(lease) = env.context.lease() else {
            return match &env.cached {
                Some(key) => self.shake_alone(&env, Arc::clone(key), ticker).await,
                None => Ok(None),
            };
        };
        self.began.get_or_insert_with(|| env.clock.now());
        if self.asking.is_none() {
            self.asking = self.hear(&env, Some(lease.epoch())).await?;
        }
        let Some(asking) = self.asking.take() else {
            return Ok(None);
        };
        ticker.note(Progress::Working);
        let acts = Acts {
            socket: &self.socket,
            clock: &*env.clock,
            observer: Some(&env.telemetry),
        };
        let key = StaticKey::Signer(env.context.clone());
        let source = self.address.ip();
        let call = EcdhCall::new(asking.state.request().point, Purpose::Inbound { source });
        let answer = acts.ecdh(2, &key, &call, asking.by).await;
        let (secret, answered_under) = match answer {
            Err(HandshakeFailure::Ecdh(EcdhError::SignerAway(_))) => {
                self.asking = Some(asking);
                return Ok(None);
            }
            answer => answer?,
        };
        // From here on it is of the session that answered, and dies with it.
        let epoch = answered_under.as_ref().unwrap_or(&lease).epoch();
        ticker.note(Progress::OwesActThree);
        tokio::select! {
            biased;
            () = env.until_lapse(epoch) => Err(HandshakeFailure::Lapsed),
            done = acts.conclude(asking.state, secret, answered_under) => done.map(Some),
        }
    }

    /// Answers with the node's key that is held here: no session gives anything to it, and none ends it.
    async fn shake_alone(
        &mut self,
        env: &Env,
        key: Arc<LocalKey>,
        ticker: &Ticker,
    ) -> Result<Option<Done>, HandshakeFailure> {
        self.began.get_or_insert_with(|| env.clock.now());
        if self.asking.is_none() {
            self.asking = self.hear(env, None).await?;
        }
        let Some(asking) = self.asking.take() else {
            return Ok(None);
        };
        ticker.note(Progress::OwesActThree);
        let acts = Acts {
            socket: &self.socket,
            clock: &*env.clock,
            observer: None,
        };
        let source = self.address.ip();
        let key = StaticKey::Local(key);
        let call = EcdhCall::new(asking.state.request().point, Purpose::Inbound { source });
        let (secret, _) = acts.ecdh(2, &key, &call, asking.by).await?;
        acts.conclude(asking.state, secret, None).await.map(Some)
    }

    /// Reads act one. `None`: the session, if it depends on one, has lapsed; what was read stays.
    async fn hear(
        &mut self,
        env: &Env,
        epoch: Option<Epoch>,
    ) -> Result<Option<Asking>, HandshakeFailure> {
        let lapse = async {
            match epoch {
                Some(epoch) => env.until_lapse(epoch).await,
                None => std::future::pending().await,
            }
        };
        let acts = Acts {
            socket: &self.socket,
            clock: &*env.clock,
            observer: None,
        };
        tokio::select! {
            biased;
            () = lapse => return Ok(None),
            whole = acts.act_one(&mut self.one) => whole?,
        }
        let now = env.clock.now();
        if !self.was_parked {
            // While it was parked its act one may have come at any time.
            self.since = now;
        }
        let start = AwaitActOne::new(env.context.node_id(), ephemeral()?);
        Ok(Some(Asking {
            state: start.act_one(self.one.bytes())?,
            by: now.after(limits::ACT_DEADLINE),
        }))
    }
}
