//! The far sides: peers with keys, sockets and tasks of their own, who record what really reaches them.
//!
//! They speak BOLT 8 through `RawLink` and read their sockets themselves, so that they can count every byte. They know nothing of
//! the node but its address and key: what the checks say of the node, they say from these records.

use super::DemoError;
use super::cast::{Cast, Kind, Member};
use super::gossip::{self, Publisher, Stamp};
use super::lock;
use crate::brontide::Session;
use crate::limits;
use crate::link::raw::RawLink;
use crate::node_id::NodeId;
use crate::wire::queries::GossipTimestampFilter;
use crate::wire::{BITCOIN_MAINNET, Init, MessageType, Ping, Warning};
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Commitments that may be unanswered when a peer talks as fast as it can.
const WINDOW: usize = 16;

/// A far side makes no more gossip while this much of it is not in the kernel.
const UNWRITTEN_MAX: usize = 64 * 1024;

/// How the far sides behave at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tempo {
    /// They make gossip.
    pub(super) publish: bool,
    /// Between two gossip messages of one peer.
    pub(super) every: Duration,
    /// Channel peers send commitments as fast as they are answered.
    pub(super) rush: bool,
}

/// How a connection ended, seen from the far side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// RST.
    Reset,
    /// FIN after a whole frame.
    Closed,
    /// Bytes that are no frame, or an end inside a frame.
    Broken,
}

/// What one far side saw of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// When the TCP connection was there.
    pub(super) began: Option<Instant>,
    /// The key of whoever is at the other end.
    pub(super) remote: Option<NodeId>,
    /// Ciphertext, from the byte after the handshake on.
    pub(super) bytes_in: u64,
    pub(super) messages_in: u64,
    /// Messages of type 17.
    pub(super) errors_in: u64,
    pub(super) channel_messages_in: u64,
    pub(super) warnings: Vec<String>,
    /// The node has sent its `init`.
    pub(super) up: bool,
    /// It makes gossip at the moment.
    pub(super) publishes: bool,
    /// Gossip handed to the connection, and gossip that came, in order.
    pub(super) sent: Vec<Stamp>,
    pub(super) received: Vec<Stamp>,
    pub(super) ended: Option<(Instant, End)>,
}

/// What a far side is told to do on its newest connection.
pub(super) enum Order {
    Send(Vec<u8>),
    /// Close it.
    Leave,
}

/// One far side.
pub(super) struct Far {
    pub(super) member: Arc<Member>,
    /// Where it listens.
    pub(super) address: SocketAddr,
    seen: Mutex<Vec<Seen>>,
    /// To its newest connection.
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    pulse: watch::Sender<u64>,
}

/// What a far side needs beside its own state.
pub(super) struct Surroundings {
    pub(super) cast: Arc<Cast>,
    pub(super) node: NodeId,
    /// Where the node listens.
    pub(super) door: SocketAddr,
    pub(super) tempo: watch::Receiver<Tempo>,
    /// Told of everything that is recorded.
    pub(super) pulse: watch::Sender<u64>,
}

impl Far {
    /// Opens its port; those who dial do so now.
    ///
    /// # Errors
    /// The system gives no port.
    pub(super) async fn start(
        member: &Arc<Member>,
        around: &Surroundings,
    ) -> Result<Arc<Self>, DemoError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(DemoError::Port)?;
        let far = Arc::new(Self {
            member: Arc::clone(member),
            address: listener.local_addr().map_err(DemoError::Port)?,
            seen: Mutex::default(),
            orders: Mutex::default(),
            pulse: around.pulse.clone(),
        });
        let life = Life {
            far: Arc::clone(&far),
            cast: Arc::clone(&around.cast),
            tempo: around.tempo.clone(),
            workshop: Arc::new(Mutex::new(Workshop {
                publisher: Publisher::new(&around.cast, member)?,
                made: VecDeque::new(),
                forgotten: 0,
            })),
        };
        if member.dials {
            tokio::spawn(life.dial(around.door, around.node));
        } else {
            tokio::spawn(life.listen(listener));
        }
        Ok(far)
    }

    /// Has it do something on its newest connection.
    pub(super) async fn order(&self, order: Order) {
        let orders = lock(&self.orders).clone();
        if let Some(orders) = orders {
            // A connection that has ended does nothing any more.
            let _ = orders.send(order).await;
        }
    }

    /// Forgets what only the checks would need: the gossip that went and came, and warnings.
    pub(super) fn forget(&self) {
        for seen in lock(&self.seen).iter_mut() {
            (seen.sent, seen.received, seen.warnings) = (Vec::new(), Vec::new(), Vec::new());
        }
    }

    /// Looks at all connections so far.
    pub(super) fn look<T>(&self, with: impl FnOnce(&[Seen]) -> T) -> T {
        with(&lock(&self.seen))
    }

    /// Looks at the newest connection; the default if there was none.
    pub(super) fn newest<T>(&self, with: impl FnOnce(&Seen) -> T) -> T {
        self.look(|seen| with(seen.last().unwrap_or(&Seen::default())))
    }

    fn note(&self, link: usize, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = lock(&self.seen).get_mut(link) {
            change(seen);
        }
        self.pulse.send_modify(|beat| *beat = beat.wrapping_add(1));
    }
}

/// What one far side's connections share. It may have two at a time: a persona's, and the node's own that takes its place.
#[derive(Clone)]
struct Life {
    far: Arc<Far>,
    cast: Arc<Cast>,
    tempo: watch::Receiver<Tempo>,
    workshop: Arc<Mutex<Workshop>>,
}

/// One far side's gossip: made once, sent on every connection that wants it.
struct Workshop {
    publisher: Publisher,
    /// The newest, and how many have been forgotten.
    made: VecDeque<(Stamp, Vec<u8>)>,
    forgotten: usize,
}

/// Made messages that are kept: far more than a connection is behind.
const KEPT: usize = 4096;

impl Workshop {
    fn len(&self) -> usize {
        self.forgotten.saturating_add(self.made.len())
    }

    fn make(&mut self) -> Result<(), DemoError> {
        let made = self.publisher.next()?;
        self.made.push_back(made);
        if self.made.len() > KEPT {
            self.made.pop_front();
            self.forgotten = self.forgotten.saturating_add(1);
        }
        Ok(())
    }

    /// What was made from number `next` on.
    fn since(&self, next: usize) -> Vec<(Stamp, Vec<u8>)> {
        let skip = next.saturating_sub(self.forgotten);
        self.made.iter().skip(skip).cloned().collect()
    }
}

impl Life {
    async fn listen(self, listener: TcpListener) {
        while let Ok((socket, _)) = listener.accept().await {
            let began = Instant::now();
            let mut life = self.clone();
            tokio::spawn(async move {
                if let Ok(raw) = RawLink::accept(socket, Arc::clone(&life.far.member.key)).await {
                    life.converse(raw, began).await;
                }
            });
        }
    }

    async fn dial(mut self, door: SocketAddr, node: NodeId) {
        let began = Instant::now();
        if let Ok(raw) = RawLink::connect(door, Arc::clone(&self.far.member.key), node).await {
            self.converse(raw, began).await;
        }
    }

    async fn converse(&mut self, raw: RawLink, began: Instant) {
        let remote = raw.remote();
        let (socket, session, read) = raw.into_parts();
        let (orders, ordered) = mpsc::channel(16);
        let link = {
            let mut seen = lock(&self.far.seen);
            seen.push(Seen {
                began: Some(began),
                remote: Some(remote),
                bytes_in: read.len() as u64,
                ..Seen::default()
            });
            *lock(&self.far.orders) = Some(orders);
            seen.len().saturating_sub(1)
        };
        let tick = ticker(self.tempo.borrow_and_update().every);
        let conversation = Conversation {
            life: self,
            socket,
            session,
            read,
            write: BytesMut::new(),
            link,
            tick,
            orders: ordered,
            next: 0,
            unanswered: 0,
            established: false,
            wanted: false,
            willing: false,
            reset: false,
        };
        let (far, link, end) = conversation.run().await;
        far.note(link, |seen| {
            seen.publishes = false;
            seen.ended = Some((Instant::now(), end));
        });
    }
}

fn ticker(every: Duration) -> Interval {
    let mut tick = interval(every.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// One connection of a far side.
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state machine in disguise"
)]
struct Conversation<'a> {
    life: &'a mut Life,
    socket: TcpStream,
    session: Session,
    read: BytesMut,
    write: BytesMut,
    link: usize,
    tick: Interval,
    orders: mpsc::Receiver<Order>,
    /// The next of what was made that this connection has not sent.
    next: usize,
    /// Commitments that the node has not answered.
    unanswered: usize,
    /// The node has sent its `channel_reestablish`.
    established: bool,
    /// The node has sent its `gossip_timestamp_filter`.
    wanted: bool,
    /// It makes gossip, as far as its record says.
    willing: bool,
    /// A write has met a reset; the next read says only that there is no more.
    reset: bool,
}

impl Conversation<'_> {
    async fn run(mut self) -> (Arc<Far>, usize, End) {
        let end = match self.talk().await {
            Ok(()) => End::Broken,
            Err(_) if self.reset => End::Reset,
            Err(end) => end,
        };
        (Arc::clone(&self.life.far), self.link, end)
    }

    /// Ends only with an error: the end of the connection.
    async fn talk(&mut self) -> Result<(), End> {
        self.queue(&Init::gossip(vec![BITCOIN_MAINNET]).encode())?;
        self.queue(&GossipTimestampFilter::since(BITCOIN_MAINNET, 0).encode())?;
        if self.life.far.member.kind == Kind::Channel {
            self.queue(&gossip::channel_reestablish())?;
        }
        loop {
            let tempo = *self.life.tempo.borrow_and_update();
            while tempo.rush && self.established && self.unanswered < WINDOW {
                self.commit()?;
            }
            self.flush();
            let willing = tempo.publish && self.wanted;
            if willing != self.willing {
                self.willing = willing;
                self.note(|seen| seen.publishes = willing);
            }
            let publishes = willing && self.write.len() < UNWRITTEN_MAX;
            let life = &mut *self.life;
            tokio::select! {
                ready = self.socket.readable() => {
                    ready.map_err(|_| End::Reset)?;
                    self.read_some()?;
                }
                _ = self.socket.writable(), if !self.write.is_empty() => {}
                _ = self.tick.tick(), if publishes => self.publish()?,
                Some(order) = self.orders.recv() => match order {
                    Order::Send(message) => self.queue(&message)?,
                    Order::Leave => return Err(End::Closed),
                },
                Ok(()) = life.tempo.changed() => self.tick = ticker(life.tempo.borrow().every),
            }
        }
    }

    fn read_some(&mut self) -> Result<(), End> {
        self.read.reserve(limits::READ_CHUNK);
        match self.socket.try_read_buf(&mut self.read) {
            Ok(0) if self.read.is_empty() => return Err(End::Closed),
            Ok(0) => return Err(End::Broken),
            Ok(count) => {
                self.note(|seen| seen.bytes_in = seen.bytes_in.saturating_add(count as u64));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(End::Reset),
        }
        while let Some(message) = self.session.open(&mut self.read).map_err(|_| End::Broken)? {
            self.take(&message)?;
        }
        Ok(())
    }

    fn take(&mut self, message: &[u8]) -> Result<(), End> {
        let kind = MessageType::of(message).map_err(|_| End::Broken)?;
        let stamp = gossip::stamp_of(&self.life.cast, message);
        let warning = (kind == MessageType::WARNING)
            .then(|| Warning::decode(message))
            .and_then(Result::ok);
        self.note(|seen| {
            seen.messages_in = seen.messages_in.saturating_add(1);
            seen.errors_in = seen
                .errors_in
                .saturating_add(u64::from(kind == MessageType::ERROR));
            seen.channel_messages_in = seen
                .channel_messages_in
                .saturating_add(u64::from(gossip::is_channel_message(kind)));
            seen.up |= kind == MessageType::INIT;
            seen.warnings.extend(warning.map(|warning| warning.text()));
            seen.received.extend(stamp);
        });
        match kind {
            MessageType::GOSSIP_TIMESTAMP_FILTER => {
                let wanted = self.life.far.member.kind != Kind::Stranger;
                if wanted && !self.wanted {
                    self.next = lock(&self.life.workshop).len();
                }
                self.wanted = wanted;
            }
            MessageType::CHANNEL_REESTABLISH => self.established = true,
            MessageType::PING => {
                let pong = Ping::decode(message).ok().and_then(|ping| ping.answer());
                if let Some(pong) = pong {
                    // A pong comes after all that was made before it.
                    self.hand_out()?;
                    self.queue(&pong.encode())?;
                }
            }
            kind if gossip::is_commitment_signed(kind) => self.queue(&gossip::revoke_and_ack())?,
            kind if gossip::is_revoke_and_ack(kind) => {
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            _ => {}
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), End> {
        if self
            .life
            .far
            .look(|seen| seen.len() == self.link.saturating_add(1))
        {
            let made = lock(&self.life.workshop).make();
            made.map_err(|_| End::Broken)?;
        }
        self.hand_out()?;
        if self.established && self.unanswered < WINDOW {
            self.commit()?;
        }
        Ok(())
    }

    /// Sends what was made and not sent here, if the node wants it.
    fn hand_out(&mut self) -> Result<(), End> {
        if !self.wanted {
            return Ok(());
        }
        let fresh: Vec<_> = {
            let workshop = lock(&self.life.workshop);
            let fresh = workshop.since(self.next);
            self.next = workshop.len();
            fresh
        };
        for (stamp, message) in fresh {
            self.queue(&message)?;
            self.note(|seen| seen.sent.push(stamp));
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), End> {
        self.unanswered = self.unanswered.saturating_add(1);
        self.queue(&gossip::commitment_signed())
    }

    fn queue(&mut self, message: &[u8]) -> Result<(), End> {
        self.session
            .seal(message, &mut self.write)
            .map_err(|_| End::Broken)
    }

    fn flush(&mut self) {
        while !self.write.is_empty() {
            match self.socket.try_write(&self.write) {
                Ok(count) => self.write.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // What has arrived before the reset is still to be read.
                    self.reset = true;
                    self.write.clear();
                }
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        self.life.far.note(self.link, change);
    }
}
