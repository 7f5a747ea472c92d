//! An unmodified LDK node on loopback: `PeerManager` over `lightning-net-tokio`, with `P2PGossipSync` over a `NetworkGraph`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{self, MessageSendEvent};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler, PeerManager};
use lightning::routing::gossip::{NetworkGraph, P2PGossipSync};
use lightning::routing::utxo::UtxoLookup;
use lightning::sign::{KeysManager, NodeSigner, Recipient};
use lightning::util::ser::LengthReadable;
use lightning_net_tokio::{SocketDescriptor, setup_inbound, setup_outbound};
use pilotlight::node_id::NodeId;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::ldk_handlers::{Channels, Custom, Graph, LogTap, RawMessage, Records, Routing};
use crate::signed_region;
use crate::watched::Watched;

type Manager = PeerManager<
    SocketDescriptor,
    Arc<Channels>,
    Arc<Routing>,
    Arc<IgnoringMessageHandler>,
    Arc<LogTap>,
    Arc<Custom>,
    Arc<KeysManager>,
    Arc<IgnoringMessageHandler>,
>;

/// One LDK node. Its timer ticks only when a test says so.
pub(crate) struct LdkPeer {
    pub(crate) records: Arc<Watched<Records>>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) manager: Arc<Manager>,
    channels: Arc<Channels>,
    custom: Arc<Custom>,
    id: NodeId,
    accepting: Mutex<Vec<AbortHandle>>,
}

/// A node id as LDK writes it.
pub(crate) fn ldk_key(id: NodeId) -> PublicKey {
    PublicKey::from_slice(id.as_bytes()).unwrap()
}

/// LDK writes message by message and leaves Nagle's algorithm on: over loopback each ping of a long backfill would then wait 40
/// ms for a delayed acknowledgement.
fn without_delay(socket: TcpStream) -> std::net::TcpStream {
    socket.set_nodelay(true).unwrap();
    socket.into_std().unwrap()
}

/// Reads a whole message's body as LDK does.
pub(crate) fn decode<M: LengthReadable>(message: &[u8]) -> M {
    M::read_from_fixed_length_buffer(&mut &message[2..]).expect("LDK decodes it")
}

impl LdkPeer {
    pub(crate) fn new(seed: u8) -> Self {
        let records: Arc<Watched<Records>> = Arc::default();
        let tap = Arc::new(LogTap(Arc::clone(&records)));
        let graph = Arc::new(NetworkGraph::new(Network::Bitcoin, Arc::clone(&tap)));
        let sync = P2PGossipSync::new(
            Arc::clone(&graph),
            None::<Arc<dyn UtxoLookup + Send + Sync>>,
            Arc::clone(&tap),
        );
        let channels = Arc::new(Channels {
            records: Arc::clone(&records),
            outgoing: Mutex::default(),
        });
        let custom = Arc::new(Custom {
            records: Arc::clone(&records),
            outgoing: Mutex::default(),
        });
        let handler = MessageHandler {
            chan_handler: Arc::clone(&channels),
            route_handler: Arc::new(Routing {
                sync,
                records: Arc::clone(&records),
            }),
            onion_message_handler: Arc::new(IgnoringMessageHandler {}),
            custom_message_handler: Arc::clone(&custom),
            send_only_message_handler: Arc::new(IgnoringMessageHandler {}),
        };
        let keys = Arc::new(KeysManager::new(&[seed; 32], 0, 0, true));
        let key = keys.get_node_id(Recipient::Node).unwrap();
        let manager = Arc::new(PeerManager::new(
            handler,
            signed_region::now(),
            &[seed; 32],
            tap,
            keys,
        ));
        let id = NodeId::parse(&key.serialize()).unwrap();
        Self {
            records,
            graph,
            manager,
            channels,
            custom,
            id,
            accepting: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    /// Accepts connections from now on.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let manager = Arc::clone(&self.manager);
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(setup_inbound(Arc::clone(&manager), without_delay(socket)));
            }
        });
        self.accepting
            .lock()
            .unwrap()
            .push(accepting.abort_handle());
        address
    }

    pub(crate) async fn dial(&self, peer: NodeId, address: SocketAddr) {
        let socket = TcpStream::connect(address).await.unwrap();
        tokio::spawn(setup_outbound(
            Arc::clone(&self.manager),
            ldk_key(peer),
            without_delay(socket),
        ));
    }

    /// Waits until this node has been introduced to peers `times` times.
    pub(crate) async fn introduced(&self, times: usize) {
        self.records
            .until_true("LDK has passed init", |records| {
                records.connected.len() >= times
            })
            .await;
    }

    /// Waits until `times` links of this node have ended.
    pub(crate) async fn disconnected(&self, times: usize) {
        self.records
            .until_true("LDK sees the link's end", |records| {
                records.disconnected.len() >= times
            })
            .await;
    }

    pub(crate) fn peers(&self) -> usize {
        self.manager.list_peers().len()
    }

    /// LDK's timer, which pings, and disconnects who has not answered the last ping.
    pub(crate) fn tick(&self) {
        self.manager.timer_tick_occurred();
    }

    /// Puts announcements into the graph as if LDK knew them of old.
    pub(crate) fn learn(&self, gossip: &[Vec<u8>]) {
        for message in gossip {
            match message[1] {
                0 => self
                    .graph
                    .update_channel_from_announcement::<Arc<dyn UtxoLookup>>(
                        &decode(message),
                        &None,
                    )
                    .unwrap(),
                1 => self
                    .graph
                    .update_node_from_announcement(&decode(message))
                    .unwrap(),
                _ => self.graph.update_channel(&decode(message)).unwrap(),
            }
        }
    }

    /// Announces gossip to every peer that has asked for it, as LDK does with its own.
    pub(crate) fn broadcast(&self, gossip: &[Vec<u8>]) {
        let event = |message: &Vec<u8>| match message[1] {
            0 => MessageSendEvent::BroadcastChannelAnnouncement {
                msg: decode(message),
                update_msg: None,
            },
            1 => MessageSendEvent::BroadcastNodeAnnouncement {
                msg: decode(message),
            },
            _ => MessageSendEvent::BroadcastChannelUpdate {
                msg: decode(message),
            },
        };
        self.channels
            .outgoing
            .lock()
            .unwrap()
            .extend(gossip.iter().map(event));
        self.manager.process_events();
    }

    /// Sends a `channel_reestablish` for a channel that the peer does not know.
    pub(crate) fn reestablish(&self, peer: NodeId) {
        let msg = msgs::ChannelReestablish {
            channel_id: lightning::ln::types::ChannelId([7; 32]),
            next_local_commitment_number: 1,
            next_remote_commitment_number: 0,
            your_last_per_commitment_secret: [0; 32],
            my_current_per_commitment_point: ldk_key(self.id),
            next_funding: None,
            my_current_funding_locked: None,
        };
        let event = MessageSendEvent::SendChannelReestablish {
            node_id: ldk_key(peer),
            msg,
        };
        self.channels.outgoing.lock().unwrap().push(event);
        self.manager.process_events();
    }

    /// Sends whole messages of any type, through LDK's custom message handler.
    pub(crate) fn send(&self, peer: NodeId, messages: impl IntoIterator<Item = Vec<u8>>) {
        let messages = messages
            .into_iter()
            .map(|message| (ldk_key(peer), RawMessage(message)));
        self.custom.outgoing.lock().unwrap().extend(messages);
        self.manager.process_events();
    }
}

impl Drop for LdkPeer {
    fn drop(&mut self) {
        for accepting in self.accepting.lock().unwrap().drain(..) {
            accepting.abort();
        }
        self.manager.disconnect_all_peers();
    }
}
