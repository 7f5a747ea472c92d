//! The far sides of the soak: peers with keys and sockets of their own, who talk once a second and check what reaches them.
//!
//! They know nothing of the node but what comes over their sockets.

use super::ledger::{Breaches, CHANNEL, GOSSIP, number_of, numbered};
use super::{SoakError, key};
use crate::link::raw::RawLink;
use crate::node_id::{LocalKey, NodeId};
use crate::wire::{BITCOIN_MAINNET, GossipTimestampFilter, Init, MessageType, Ping};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Between two messages of one peer.
const EVERY: Duration = Duration::from_secs(1);

/// One far side, which answers dials for as long as the soak lasts.
pub(super) struct Far {
    pub(super) id: NodeId,
    pub(super) address: SocketAddr,
    pub(super) bears_channel: bool,
}

/// What each far side needs.
#[derive(Clone)]
struct Life {
    key: Arc<LocalKey>,
    bears_channel: bool,
    /// When in each second it talks, so that not all talk at once.
    phase: Duration,
    breaches: Arc<Breaches>,
}

impl Far {
    /// Opens the port of peer `number`.
    ///
    /// # Errors
    /// The system gives no port, or the seed no key.
    pub(super) async fn start(
        seed: u64,
        number: usize,
        bears_channel: bool,
        breaches: &Arc<Breaches>,
    ) -> Result<Self, SoakError> {
        let key = Arc::new(key(seed, "peer", number)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(SoakError::Port)?;
        let address = listener.local_addr().map_err(SoakError::Port)?;
        let id = key.node_id();
        let step = u32::try_from(number % 100).unwrap_or_default();
        let life = Life {
            key,
            bears_channel,
            phase: EVERY / 100 * step,
            breaches: Arc::clone(breaches),
        };
        tokio::spawn(life.listen(listener));
        Ok(Self {
            id,
            address,
            bears_channel,
        })
    }
}

impl Life {
    async fn listen(self, listener: TcpListener) {
        while let Ok((socket, _)) = listener.accept().await {
            let life = self.clone();
            tokio::spawn(async move {
                if let Ok(link) = RawLink::accept(socket, Arc::clone(&life.key)).await {
                    // Its end is the connection's; the node's side tells why.
                    let _ = life.converse(link).await;
                }
            });
        }
    }

    /// One connection, up to its end.
    async fn converse(&self, mut link: RawLink) -> Option<()> {
        link.send(&Init::gossip(vec![BITCOIN_MAINNET]).encode())
            .await
            .ok()?;
        let filter = GossipTimestampFilter::since(BITCOIN_MAINNET, 0);
        link.send(&filter.encode()).await.ok()?;
        let kind = if self.bears_channel { CHANNEL } else { GOSSIP };
        let mut tick = interval_at(Instant::now() + EVERY + self.phase, EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut said, mut heard) = (0, 0);
        loop {
            tokio::select! {
                message = link.receive() => {
                    let message = message.ok()??;
                    if let Some(pong) = self.take(&message, &mut heard) {
                        link.send(&pong).await.ok()?;
                    }
                }
                _ = tick.tick() => {
                    said += 1;
                    link.send(&numbered(kind, said)).await.ok()?;
                }
            }
        }
    }

    /// Checks a message; what is to be answered.
    fn take(&self, message: &[u8], heard: &mut u64) -> Option<Vec<u8>> {
        let kind = MessageType::of(message).ok()?;
        match kind {
            MessageType::PING => {
                let ping = Ping::decode(message).ok()?;
                return ping.answer().map(|pong| pong.encode());
            }
            MessageType::ERROR => self.breaches.add("P4", "a peer was sent an error"),
            kind if kind.0 == GOSSIP || kind.0 == CHANNEL => {
                *heard += 1;
                if number_of(message) != Some(*heard) {
                    self.breaches
                        .add("P2", "a peer missed a message, or had one twice");
                }
            }
            _ => {}
        }
        None
    }
}
