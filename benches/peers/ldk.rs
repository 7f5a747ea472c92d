//! LDK as it comes: a `PeerManager` whose handlers do as little as they can, in memory or with `lightning-net-tokio`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, Scalar};
use bytes::Bytes;
use lightning::ln::msgs::{DecodeError, Init, LightningError};
use lightning::ln::peer_handler::{
    CustomMessageHandler, ErroringMessageHandler, IgnoringMessageHandler, MessageHandler,
    PeerManager, SocketDescriptor,
};
use lightning::ln::wire::{CustomMessageReader, Type};
use lightning::sign::{KeysManager, NodeSigner, Recipient};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::logger::{Logger, Record};
use lightning::util::ser::{LengthLimitedRead, Writeable, Writer};
use pilotlight::node_id::NodeId;
use tokio::sync::Notify;

/// Messages that the far side counts; it answers nothing.
pub(crate) const SINK: u16 = 32_769;
/// Messages that the far side sends back, as the type two above.
pub(crate) const ECHO: u16 = 32_771;
/// The same, counted apart: those of a link that only makes load.
pub(crate) const ECHO_OF_LOAD: u16 = 32_779;
/// What `ECHO` and `ECHO_OF_LOAD` come back as.
pub(crate) const ECHOED: u16 = ECHO + 2;
/// What [`ECHO_OF_LOAD`] comes back as.
pub(crate) const ECHOED_OF_LOAD: u16 = ECHO_OF_LOAD + 2;

pub(crate) type Manager<D> = PeerManager<
    D,
    Arc<ErroringMessageHandler>,
    Arc<IgnoringMessageHandler>,
    Arc<IgnoringMessageHandler>,
    Arc<Silent>,
    Arc<Messages>,
    Arc<Keys>,
    Arc<IgnoringMessageHandler>,
>;

/// Logs nothing.
pub(crate) struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record<'_>) {}
}

/// A whole message, its type first.
pub(crate) struct Whole(pub(crate) u16, pub(crate) Bytes);

impl std::fmt::Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.1.len())
    }
}

impl Writeable for Whole {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), lightning::io::Error> {
        writer.write_all(&self.1[2..])
    }
}

impl Type for Whole {
    fn type_id(&self) -> u16 {
        self.0
    }
}

/// How much has come back, and who waits for it.
#[derive(Default)]
pub(crate) struct Echoes {
    counts: [AtomicU64; 2],
    news: [Notify; 2],
}

impl Echoes {
    pub(crate) fn count(&self, kind: u16) {
        let which = usize::from(kind == ECHOED_OF_LOAD);
        self.counts[which].fetch_add(1, Ordering::Release);
        self.news[which].notify_one();
    }

    /// Waits until so many messages that were sent with `kind` have come back.
    pub(crate) async fn until(&self, kind: u16, count: u64) {
        let which = usize::from(kind == ECHO_OF_LOAD);
        while self.counts[which].load(Ordering::Acquire) < count {
            self.news[which].notified().await;
        }
    }
}

/// Counts what comes, sends what waits, and sends back what shall be.
#[derive(Default)]
pub(crate) struct Messages {
    pub(crate) outgoing: Mutex<Vec<(PublicKey, Whole)>>,
    pub(crate) sunk: AtomicU64,
    pub(crate) echoed: Echoes,
    pub(crate) peers: AtomicU64,
    pub(crate) news: Notify,
}

impl CustomMessageReader for Messages {
    type CustomMessage = Whole;

    /// Takes the bytes without keeping those of a message that is only counted: as cheap as a reader can be.
    fn read<R: LengthLimitedRead>(
        &self,
        kind: u16,
        buffer: &mut R,
    ) -> Result<Option<Whole>, DecodeError> {
        if kind == SINK {
            let mut piece = [0; 4096];
            while buffer.remaining_bytes() > 0 {
                let _ = buffer.read(&mut piece)?;
            }
            return Ok(Some(Whole(kind, Bytes::new())));
        }
        let mut whole = (kind + 2).to_be_bytes().to_vec();
        whole.resize(2 + buffer.remaining_bytes() as usize, 0);
        buffer.read_exact(&mut whole[2..])?;
        Ok(Some(Whole(kind, whole.into())))
    }
}

impl CustomMessageHandler for Messages {
    fn handle_custom_message(&self, message: Whole, from: PublicKey) -> Result<(), LightningError> {
        match message.0 {
            SINK => {
                self.sunk.fetch_add(1, Ordering::Relaxed);
            }
            ECHOED | ECHOED_OF_LOAD => self.echoed.count(message.0),
            kind => {
                let answer = Whole(kind + 2, message.1);
                self.outgoing.lock().unwrap().push((from, answer));
            }
        }
        Ok(())
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, Whole)> {
        std::mem::take(&mut self.outgoing.lock().unwrap())
    }

    fn peer_disconnected(&self, _: PublicKey) {}

    fn peer_connected(&self, _: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
        self.peers.fetch_add(1, Ordering::Release);
        self.news.notify_one();
        Ok(())
    }

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}

/// LDK's own keys, whose ECDH may be made slow: a signer elsewhere, behind LDK's synchronous call.
pub(crate) struct Keys {
    inner: KeysManager,
    pub(crate) slow: AtomicBool,
}

/// How long a slow signer takes.
pub(crate) const SLOW: Duration = Duration::from_millis(200);

impl NodeSigner for Keys {
    fn get_expanded_key(&self) -> lightning::ln::inbound_payment::ExpandedKey {
        self.inner.get_expanded_key()
    }
    fn get_peer_storage_key(&self) -> lightning::sign::PeerStorageKey {
        self.inner.get_peer_storage_key()
    }
    fn get_receive_auth_key(&self) -> lightning::sign::ReceiveAuthKey {
        self.inner.get_receive_auth_key()
    }
    fn get_node_id(&self, recipient: Recipient) -> Result<PublicKey, ()> {
        self.inner.get_node_id(recipient)
    }
    fn ecdh(
        &self,
        recipient: Recipient,
        other: &PublicKey,
        tweak: Option<&Scalar>,
    ) -> Result<SharedSecret, ()> {
        if self.slow.load(Ordering::Relaxed) {
            std::thread::sleep(SLOW);
        }
        self.inner.ecdh(recipient, other, tweak)
    }
    fn sign_invoice(
        &self,
        invoice: &lightning::bolt11_invoice::RawBolt11Invoice,
        recipient: Recipient,
    ) -> Result<bitcoin::secp256k1::ecdsa::RecoverableSignature, ()> {
        self.inner.sign_invoice(invoice, recipient)
    }
    fn sign_bolt12_invoice(
        &self,
        invoice: &lightning::offers::invoice::UnsignedBolt12Invoice,
    ) -> Result<bitcoin::secp256k1::schnorr::Signature, ()> {
        self.inner.sign_bolt12_invoice(invoice)
    }
    fn sign_gossip_message(
        &self,
        message: lightning::ln::msgs::UnsignedGossipMessage<'_>,
    ) -> Result<bitcoin::secp256k1::ecdsa::Signature, ()> {
        self.inner.sign_gossip_message(message)
    }
    fn sign_message(&self, message: &[u8]) -> Result<String, ()> {
        self.inner.sign_message(message)
    }
}

/// One LDK node.
pub(crate) struct Ldk<D: SocketDescriptor> {
    pub(crate) manager: Arc<Manager<D>>,
    pub(crate) messages: Arc<Messages>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) id: PublicKey,
}

impl<D: SocketDescriptor> Ldk<D> {
    pub(crate) fn new(seed: u8) -> Self {
        let messages = Arc::new(Messages::default());
        let handler = MessageHandler {
            chan_handler: Arc::new(ErroringMessageHandler::new()),
            route_handler: Arc::new(IgnoringMessageHandler {}),
            onion_message_handler: Arc::new(IgnoringMessageHandler {}),
            custom_message_handler: Arc::clone(&messages),
            send_only_message_handler: Arc::new(IgnoringMessageHandler {}),
        };
        let keys = Arc::new(Keys {
            inner: KeysManager::new(&[seed; 32], 0, 0, true),
            slow: AtomicBool::new(false),
        });
        let id = keys.get_node_id(Recipient::Node).unwrap();
        let manager =
            PeerManager::new(handler, 0, &[seed; 32], Arc::new(Silent), Arc::clone(&keys));
        Self {
            manager: Arc::new(manager),
            messages,
            keys,
            id,
        }
    }

    pub(crate) fn node_id(&self) -> NodeId {
        NodeId::parse(&self.id.serialize()).unwrap()
    }
}

/// A node id as LDK writes it.
pub(crate) fn ldk_id(id: NodeId) -> PublicKey {
    PublicKey::from_slice(id.as_bytes()).unwrap()
}

/// An end of a connection in memory, which keeps what LDK sends.
#[derive(Clone)]
pub(crate) struct Pipe {
    id: u64,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Pipe {
    pub(crate) fn new(id: u64) -> Self {
        Self {
            id,
            sent: Arc::default(),
        }
    }

    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}

impl PartialEq for Pipe {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Pipe {}

impl std::hash::Hash for Pipe {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl SocketDescriptor for Pipe {
    fn send_data(&mut self, data: &[u8], _continue_read: bool) -> usize {
        self.sent.lock().unwrap().extend_from_slice(data);
        data.len()
    }

    fn disconnect_socket(&mut self) {}
}

/// Two LDK nodes that are connected in memory.
pub(crate) struct Pair {
    pub(crate) alice: Ldk<Pipe>,
    pub(crate) bob: Ldk<Pipe>,
    connections: HashMap<&'static str, u64>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self {
            alice: Ldk::new(1),
            bob: Ldk::new(2),
            connections: HashMap::new(),
        }
    }

    fn pipes(&mut self) -> (Pipe, Pipe) {
        let next = self.connections.entry("made").or_default();
        *next += 2;
        (Pipe::new(*next), Pipe::new(*next + 1))
    }

    /// The three acts, both sides, as `PeerManager` goes through them: until the responder has taken act three.
    pub(crate) fn shake(&mut self) -> (Pipe, Pipe) {
        let (mut a, mut b) = self.pipes();
        let one = self
            .alice
            .manager
            .new_outbound_connection(self.bob.id, a.clone(), None)
            .unwrap();
        self.bob
            .manager
            .new_inbound_connection(b.clone(), None)
            .unwrap();
        self.bob.manager.read_event(&mut b, &one).unwrap();
        self.bob.manager.process_events();
        self.alice.manager.read_event(&mut a, &b.take()).unwrap();
        self.alice.manager.process_events();
        let three = a.take();
        self.bob.manager.read_event(&mut b, &three[..66]).unwrap();
        a.sent.lock().unwrap().extend_from_slice(&three[66..]);
        (a, b)
    }

    pub(crate) fn hang_up(&self, a: &Pipe, b: &Pipe) {
        self.alice.manager.socket_disconnected(a);
        self.bob.manager.socket_disconnected(b);
    }

    /// Goes on after [`shake`](Self::shake) until both `init`s have passed.
    pub(crate) fn introduce(&self, a: &mut Pipe, b: &mut Pipe) {
        loop {
            self.bob.manager.process_events();
            let (from_a, from_b) = (a.take(), b.take());
            if from_a.is_empty() && from_b.is_empty() {
                break;
            }
            self.bob.manager.read_event(b, &from_a).unwrap();
            self.alice.manager.read_event(a, &from_b).unwrap();
            self.alice.manager.process_events();
        }
        assert_eq!(self.alice.manager.list_peers().len(), 1);
        assert_eq!(self.bob.manager.list_peers().len(), 1);
    }
}
