//! What LDK's `PeerManager` hands on to: handlers that write down what comes and send what a test asks for. The gossip
//! goes on into LDK's own `P2PGossipSync`; nothing of LDK is changed or left out.

use std::fmt;
use std::sync::{Arc, Mutex};

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::RoutingMessageHandler;
use lightning::ln::msgs::{
    self, BaseMessageHandler, ChannelMessageHandler, LightningError, MessageSendEvent,
};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::types::ChannelId;
use lightning::ln::wire::{CustomMessageReader, Type};
use lightning::routing::gossip::{NetworkGraph, NodeId, P2PGossipSync};
use lightning::routing::utxo::UtxoLookup;
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::logger::{Level, Logger, Record};
use lightning::util::ser::{LengthLimitedRead, Writeable, Writer};

use crate::watched::Watched;

/// A peer as LDK's handlers were told of it.
#[derive(Debug, Clone)]
pub(crate) struct Introduction {
    pub(crate) peer: PublicKey,
    pub(crate) inbound: bool,
    /// The feature bits of the peer's `init`, lowest byte first.
    pub(crate) features: Vec<u8>,
    pub(crate) networks: Option<Vec<ChainHash>>,
}

/// What has come to an LDK node, each list in order.
#[derive(Default)]
pub(crate) struct Records {
    pub(crate) connected: Vec<Introduction>,
    pub(crate) disconnected: Vec<PublicKey>,
    /// `handle_error` was called: the peer sent BOLT 1's `error`.
    pub(crate) errors: Vec<String>,
    /// Calls of the channel handler but `handle_error` and `handle_channel_update`.
    pub(crate) channel_calls: Vec<&'static str>,
    /// Whole announcements from peers, as LDK writes what it has read.
    pub(crate) gossip: Vec<Vec<u8>>,
    /// Why `P2PGossipSync` did not take an announcement in.
    pub(crate) refused: Vec<String>,
    /// Whole custom messages.
    pub(crate) custom: Vec<Vec<u8>>,
    /// Messages of type [`MARKER`] that have come.
    pub(crate) markers: usize,
    /// `Ping`, `Pong`, `Error` and `Warning` messages in and out, as LDK's log shows them.
    pub(crate) control: Vec<String>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.control.len().saturating_sub(6);
        write!(
            f,
            "LDK: connected {}, disconnected {}, errors {:?}, channel calls {:?}, gossip {}, refused {} ({:?}), custom {}, \
             control {} ({:?})",
            self.connected.len(),
            self.disconnected.len(),
            self.errors,
            self.channel_calls,
            self.gossip.len(),
            self.refused.len(),
            self.refused.first(),
            self.custom.len(),
            self.control.len(),
            &self.control[last..],
        )
    }
}

impl Records {
    /// How many control messages in or out match a text such as `Received Pong(Pong { byteslen: 0 })`.
    pub(crate) fn control_count(&self, text: &str) -> usize {
        self.control
            .iter()
            .filter(|line| line.starts_with(text))
            .count()
    }

    /// Whether the peer has never complained: no `error`, no `warning`.
    pub(crate) fn heard_no_complaint(&self) -> bool {
        self.errors.is_empty()
            && self.control_count("Received Error") + self.control_count("Received Warning") == 0
    }
}

/// Reads LDK's trace: the only way to see control messages, which LDK handles itself.
pub(crate) struct LogTap(pub(crate) Arc<Watched<Records>>);

const CONTROL: [(&str, &str); 6] = [
    ("Received message Ping(", "Received Ping("),
    ("Received message Pong(", "Received Pong("),
    ("Received message Error(", "Received Error("),
    ("Received message Warning(", "Received Warning("),
    ("Enqueueing message Ping", "Sent Ping"),
    ("Enqueueing message Pong", "Sent Pong"),
];

impl Logger for LogTap {
    fn log(&self, record: Record<'_>) {
        if record.level != Level::Trace || !record.module_path.ends_with("peer_handler") {
            return;
        }
        let line = record.args.to_string();
        for (prefix, short) in CONTROL {
            if let Some(rest) = line.strip_prefix(prefix) {
                self.0
                    .change(|records| records.control.push(format!("{short}{rest}")));
            }
        }
    }
}

pub(crate) type Graph = NetworkGraph<Arc<LogTap>>;
pub(crate) type Sync =
    P2PGossipSync<Arc<Graph>, Arc<dyn UtxoLookup + Send + std::marker::Sync>, Arc<LogTap>>;

/// `P2PGossipSync`, with a list of what it was given and what it refused.
pub(crate) struct Routing {
    pub(crate) sync: Sync,
    pub(crate) records: Arc<Watched<Records>>,
}

impl Routing {
    fn record(
        &self,
        from: Option<PublicKey>,
        kind: u16,
        message: &impl Writeable,
        verdict: Result<bool, LightningError>,
    ) -> Result<bool, LightningError> {
        // LDK calls with no sender for what it announces itself.
        if from.is_some() {
            let bytes = [&kind.to_be_bytes()[..], &message.encode()].concat();
            self.records.change(|records| {
                records.gossip.push(bytes);
                records
                    .refused
                    .extend(verdict.as_ref().err().map(|error| error.err.clone()));
            });
        }
        verdict
    }
}

impl BaseMessageHandler for Routing {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        self.sync.get_and_clear_pending_msg_events()
    }
    fn peer_disconnected(&self, peer: PublicKey) {
        self.sync.peer_disconnected(peer);
    }
    fn provided_node_features(&self) -> NodeFeatures {
        self.sync.provided_node_features()
    }
    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.sync.provided_init_features(peer)
    }
    fn peer_connected(&self, peer: PublicKey, init: &msgs::Init, inbound: bool) -> Result<(), ()> {
        self.sync.peer_connected(peer, init, inbound)
    }
}

impl RoutingMessageHandler for Routing {
    fn handle_channel_announcement(
        &self,
        from: Option<PublicKey>,
        message: &msgs::ChannelAnnouncement,
    ) -> Result<bool, LightningError> {
        self.record(
            from,
            256,
            message,
            self.sync.handle_channel_announcement(from, message),
        )
    }
    fn handle_node_announcement(
        &self,
        from: Option<PublicKey>,
        message: &msgs::NodeAnnouncement,
    ) -> Result<bool, LightningError> {
        self.record(
            from,
            257,
            message,
            self.sync.handle_node_announcement(from, message),
        )
    }
    fn handle_channel_update(
        &self,
        from: Option<PublicKey>,
        message: &msgs::ChannelUpdate,
    ) -> Result<bool, LightningError> {
        self.record(
            from,
            258,
            message,
            self.sync.handle_channel_update(from, message),
        )
    }
    fn get_next_channel_announcement(
        &self,
        start: u64,
    ) -> Option<(
        msgs::ChannelAnnouncement,
        Option<msgs::ChannelUpdate>,
        Option<msgs::ChannelUpdate>,
    )> {
        self.sync.get_next_channel_announcement(start)
    }
    fn get_next_node_announcement(&self, start: Option<&NodeId>) -> Option<msgs::NodeAnnouncement> {
        self.sync.get_next_node_announcement(start)
    }
    fn handle_reply_channel_range(
        &self,
        from: PublicKey,
        message: msgs::ReplyChannelRange,
    ) -> Result<(), LightningError> {
        self.sync.handle_reply_channel_range(from, message)
    }
    fn handle_reply_short_channel_ids_end(
        &self,
        from: PublicKey,
        message: msgs::ReplyShortChannelIdsEnd,
    ) -> Result<(), LightningError> {
        self.sync.handle_reply_short_channel_ids_end(from, message)
    }
    fn handle_query_channel_range(
        &self,
        from: PublicKey,
        message: msgs::QueryChannelRange,
    ) -> Result<(), LightningError> {
        self.sync.handle_query_channel_range(from, message)
    }
    fn handle_query_short_channel_ids(
        &self,
        from: PublicKey,
        message: msgs::QueryShortChannelIds,
    ) -> Result<(), LightningError> {
        self.sync.handle_query_short_channel_ids(from, message)
    }
    fn processing_queue_high(&self) -> bool {
        self.sync.processing_queue_high()
    }
}

/// A custom type that says only: all that came before me has been dealt with.
pub(crate) const MARKER: u16 = 65_535;

/// A whole message that LDK sends as a custom one, whatever its type; received, one of type 32768 or above.
pub(crate) struct RawMessage(pub(crate) Vec<u8>);

impl fmt::Debug for RawMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "raw message of {} bytes", self.0.len())
    }
}

impl Writeable for RawMessage {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), lightning::io::Error> {
        writer.write_all(&self.0[2..])
    }
}

impl Type for RawMessage {
    fn type_id(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }
}

/// Custom messages: those that come are recorded, those to be sent wait here.
pub(crate) struct Custom {
    pub(crate) records: Arc<Watched<Records>>,
    pub(crate) outgoing: Mutex<Vec<(PublicKey, RawMessage)>>,
}

impl CustomMessageReader for Custom {
    type CustomMessage = RawMessage;

    fn read<R: LengthLimitedRead>(
        &self,
        kind: u16,
        buffer: &mut R,
    ) -> Result<Option<RawMessage>, msgs::DecodeError> {
        let mut whole = kind.to_be_bytes().to_vec();
        whole.resize(2 + usize::try_from(buffer.remaining_bytes()).unwrap(), 0);
        buffer.read_exact(&mut whole[2..])?;
        Ok(Some(RawMessage(whole)))
    }
}

impl CustomMessageHandler for Custom {
    fn handle_custom_message(
        &self,
        message: RawMessage,
        _from: PublicKey,
    ) -> Result<(), LightningError> {
        self.records.change(|records| match message.type_id() {
            MARKER => records.markers += 1,
            _ => records.custom.push(message.0),
        });
        Ok(())
    }
    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, RawMessage)> {
        std::mem::take(&mut self.outgoing.lock().unwrap())
    }
    fn peer_disconnected(&self, _peer: PublicKey) {}
    fn peer_connected(
        &self,
        _peer: PublicKey,
        _init: &msgs::Init,
        _inbound: bool,
    ) -> Result<(), ()> {
        Ok(())
    }
    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }
    fn provided_init_features(&self, _peer: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}

/// Stands where LDK's `ChannelManager` stands: asks of peers what that asks, and writes down every call.
pub(crate) struct Channels {
    pub(crate) records: Arc<Watched<Records>>,
    pub(crate) outgoing: Mutex<Vec<MessageSendEvent>>,
}

impl BaseMessageHandler for Channels {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        std::mem::take(&mut self.outgoing.lock().unwrap())
    }
    fn peer_disconnected(&self, peer: PublicKey) {
        self.records
            .change(|records| records.disconnected.push(peer));
    }
    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }
    /// As `channelmanager::provided_init_features` of LDK 0.2.7 has it, which is private.
    fn provided_init_features(&self, _peer: PublicKey) -> InitFeatures {
        let mut features = InitFeatures::empty();
        features.set_data_loss_protect_required();
        features.set_upfront_shutdown_script_optional();
        features.set_variable_length_onion_required();
        features.set_static_remote_key_required();
        features.set_payment_secret_required();
        features.set_basic_mpp_optional();
        features.set_wumbo_optional();
        features.set_shutdown_any_segwit_optional();
        features.set_channel_type_required();
        features.set_scid_privacy_optional();
        features.set_zero_conf_optional();
        features.set_route_blinding_optional();
        features.set_provide_storage_optional();
        features.set_quiescence_optional();
        features.set_splicing_optional();
        features
    }
    fn peer_connected(&self, peer: PublicKey, init: &msgs::Init, inbound: bool) -> Result<(), ()> {
        let features = init.features.le_flags().to_vec();
        let introduction = Introduction {
            peer,
            inbound,
            features,
            networks: init.networks.clone(),
        };
        self.records
            .change(|records| records.connected.push(introduction));
        Ok(())
    }
}

/// Writes handlers that only note that they were called.
macro_rules! note_calls {
    (by_reference { $($call:ident($message:ty);)* } by_value { $($taking:ident($taken:ty);)* }) => {
        $(fn $call(&self, _from: PublicKey, _message: &$message) {
            self.records.change(|records| records.channel_calls.push(stringify!($call)));
        })*
        $(fn $taking(&self, _from: PublicKey, _message: $taken) {
            self.records.change(|records| records.channel_calls.push(stringify!($taking)));
        })*
    };
}

impl ChannelMessageHandler for Channels {
    note_calls! {
        by_reference {
        handle_open_channel(msgs::OpenChannel);
        handle_open_channel_v2(msgs::OpenChannelV2);
        handle_accept_channel(msgs::AcceptChannel);
        handle_accept_channel_v2(msgs::AcceptChannelV2);
        handle_funding_created(msgs::FundingCreated);
        handle_funding_signed(msgs::FundingSigned);
        handle_channel_ready(msgs::ChannelReady);
        handle_shutdown(msgs::Shutdown);
        handle_closing_signed(msgs::ClosingSigned);
        handle_stfu(msgs::Stfu);
        handle_splice_init(msgs::SpliceInit);
        handle_splice_ack(msgs::SpliceAck);
        handle_splice_locked(msgs::SpliceLocked);
        handle_tx_add_input(msgs::TxAddInput);
        handle_tx_add_output(msgs::TxAddOutput);
        handle_tx_remove_input(msgs::TxRemoveInput);
        handle_tx_remove_output(msgs::TxRemoveOutput);
        handle_tx_complete(msgs::TxComplete);
        handle_tx_signatures(msgs::TxSignatures);
        handle_tx_init_rbf(msgs::TxInitRbf);
        handle_tx_ack_rbf(msgs::TxAckRbf);
        handle_tx_abort(msgs::TxAbort);
        handle_update_add_htlc(msgs::UpdateAddHTLC);
        handle_update_fail_htlc(msgs::UpdateFailHTLC);
        handle_update_fail_malformed_htlc(msgs::UpdateFailMalformedHTLC);
        handle_commitment_signed(msgs::CommitmentSigned);
        handle_revoke_and_ack(msgs::RevokeAndACK);
        handle_update_fee(msgs::UpdateFee);
        handle_announcement_signatures(msgs::AnnouncementSignatures);
        handle_channel_reestablish(msgs::ChannelReestablish);
        }
        by_value {
        handle_peer_storage(msgs::PeerStorage);
        handle_peer_storage_retrieval(msgs::PeerStorageRetrieval);
        handle_update_fulfill_htlc(msgs::UpdateFulfillHTLC);
        }
    }

    fn handle_commitment_signed_batch(
        &self,
        _from: PublicKey,
        _id: ChannelId,
        _batch: Vec<msgs::CommitmentSigned>,
    ) {
        self.records
            .change(|records| records.channel_calls.push("handle_commitment_signed_batch"));
    }
    /// Every `channel_update` comes here too; the routing handler records it.
    fn handle_channel_update(&self, _from: PublicKey, _message: &msgs::ChannelUpdate) {}
    fn handle_error(&self, _from: PublicKey, message: &msgs::ErrorMessage) {
        self.records
            .change(|records| records.errors.push(message.data.clone()));
    }
    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        Some(vec![ChainHash::BITCOIN])
    }
    fn message_received(&self) {}
}
