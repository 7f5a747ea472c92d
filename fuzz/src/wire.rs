//! Every codec of the library, over every message: what decodes is written and read again, and nothing changes by it.

use pilotlight::error::{Culprit, Retry};
use pilotlight::node_id::LocalKey;
use pilotlight::wire::control::printable;
use pilotlight::wire::gossip::{
    ChannelAnnouncement, ChannelEnd, ChannelUpdate, Direction, GossipHeader, NodeAnnouncement,
};
use pilotlight::wire::queries::unserved_answer;
use pilotlight::wire::tlv::{self, Known};
use pilotlight::wire::{
    BigSize, ErrorMessage, Features, GossipTimestampFilter, Init, MAX_MESSAGE, MessageType, Ping,
    Plane, Pong, QueryChannelRange, QueryShortChannelIds, ReplyChannelRange,
    ReplyShortChannelIdsEnd, ShortChannelId, Warning, WireError,
};

/// Decodes with each codec; `type` says which alone may succeed.
macro_rules! settle {
    ($message:expr, $($codec:ty => $kind:expr),+ $(,)?) => {
        $(
            if let Err(error) = <$codec>::decode($message) {
                refused(&error, MessageType::of($message).is_ok_and(|kind| kind != $kind));
            } else if let Ok(value) = <$codec>::decode($message) {
                assert_eq!(MessageType::of($message), Ok($kind), "a codec reads another's type");
                let written = value.encode();
                assert!(written.len() <= MAX_MESSAGE && written.len() <= $message.len().max(2));
                assert_eq!(<$codec>::decode(&written), Ok(value), "written, it reads differently");
                let again = <$codec>::decode(&written).unwrap().encode();
                assert!(again == written, "written twice, it is written differently");
            }
        )+
    };
}

/// The input is one message, its type first.
pub fn run(message: &[u8]) {
    if message.len() > MAX_MESSAGE {
        return;
    }
    settle!(
        message,
        Init => MessageType::INIT,
        Ping => MessageType::PING,
        Pong => MessageType::PONG,
        Warning => MessageType::WARNING,
        ErrorMessage => MessageType::ERROR,
        QueryShortChannelIds => MessageType::QUERY_SHORT_CHANNEL_IDS,
        ReplyShortChannelIdsEnd => MessageType::REPLY_SHORT_CHANNEL_IDS_END,
        QueryChannelRange => MessageType::QUERY_CHANNEL_RANGE,
        ReplyChannelRange => MessageType::REPLY_CHANNEL_RANGE,
        GossipTimestampFilter => MessageType::GOSSIP_TIMESTAMP_FILTER,
    );
    answers(message);
    details(message);
    announced(message);
    parts(message);
}

/// Whose fault it is: a codec that is given another type is misused, all else is the sender's. It has a rule and words.
fn refused(error: &WireError, is_of_another_type: bool) {
    let expected = if is_of_another_type {
        Culprit::Us
    } else {
        Culprit::Peer
    };
    assert_eq!(error.culprit(), expected, "{error}");
    assert!(error.rule().starts_with("BOLT ") && !error.to_string().is_empty());
    assert_eq!(error.retry(), Retry::Never);
}

/// What stands beside the ids in a query of a range, and in the reply.
fn details(message: &[u8]) {
    if let (Ok(query), Ok(option)) = (
        QueryChannelRange::decode(message),
        QueryChannelRange::option(message),
    ) {
        let written = query.encode_with(option);
        assert_eq!(QueryChannelRange::option(&written), Ok(option));
        assert_eq!(QueryChannelRange::decode(&written), Ok(query));
    }
    if let (Ok(reply), Ok(details)) = (
        ReplyChannelRange::decode(message),
        ReplyChannelRange::details(message),
    ) {
        let written = reply.encode_with(&details);
        assert_eq!(ReplyChannelRange::details(&written), Ok(details));
        assert_eq!(ReplyChannelRange::decode(&written), Ok(reply));
    }
    if let Ok(filter) = GossipTimestampFilter::decode(message) {
        let (first, range) = (filter.first_timestamp, filter.timestamp_range);
        assert_eq!(filter.wants(first), range > 0);
        assert!(first == 0 || !filter.wants(first - 1));
        let since = GossipTimestampFilter::since(filter.chain_hash, first);
        assert!(since.wants(first) && (first == 0 || since.wants(u32::MAX)));
    }
}

/// What is signed of the input's own numbers reads as what was signed.
fn announced(message: &[u8]) {
    let Some((body, is_announcement)) = message.get(2..66).zip(
        MessageType::of(message)
            .ok()
            .map(MessageType::is_announcement),
    ) else {
        return;
    };
    if !is_announcement {
        return;
    }
    let number =
        |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
    // Neither of none nor beyond the order.
    let key = |byte: u8| LocalKey::from_bytes(&mut [(byte | 1).min(0xfd); 32]).unwrap();
    let (node, other) = (key(body[0]), key(body[1]));
    let (mut chain_hash, timestamp) = ([0; 32], number(4));
    chain_hash.copy_from_slice(&body[32..]);
    let short_channel_id =
        ShortChannelId::from_u64(u64::from(number(8)) << 32 | u64::from(number(12)));
    let refused_ours = |error: WireError| {
        assert!(error.rule().starts_with("BOLT ") && !error.to_string().is_empty());
    };
    let header = |signed: &[u8]| GossipHeader::decode(signed).unwrap().unwrap();
    let update = ChannelUpdate {
        chain_hash,
        short_channel_id,
        timestamp,
        direction: Direction::from_ids(node.node_id().as_bytes(), other.node_id().as_bytes()),
        disabled: body[2] & 1 == 1,
        cltv_expiry_delta: u16::from(body[3]),
        htlc_minimum_msat: u64::from(number(16)),
        fee_base_msat: number(20),
        fee_proportional_millionths: number(24),
        htlc_maximum_msat: u64::from(number(28)),
    };
    assert_eq!(
        header(&update.sign(&node).unwrap()).timestamp(),
        Some(timestamp)
    );
    let features = Features::from_wire(&body[16..16 + usize::from(body[3] % 16)]).unwrap();
    let announcement = ChannelAnnouncement {
        chain_hash,
        short_channel_id,
        features: features.clone(),
    };
    let end = |node, funding| ChannelEnd { node, funding };
    match announcement.sign(end(&node, &other), end(&other, &node)) {
        Ok(signed) => assert!(
            matches!(header(&signed), GossipHeader::Channel { short_channel_id: id, .. } if id == short_channel_id)
        ),
        Err(error) => {
            assert!(error == WireError::SameNode && node.node_id() == other.node_id());
            refused_ours(error);
        }
    }
    let port = u16::from_be_bytes([body[1], body[2]]);
    let alias = String::from_utf8_lossy(&body[..usize::from(body[3] % 40)]).into_owned();
    let described = NodeAnnouncement {
        timestamp,
        features,
        rgb: [body[0], body[1], body[2]],
        addresses: vec![([body[0]; 16], port).into(), ([body[0]; 4], port).into()],
        alias: alias.clone(),
    };
    match described.sign(&node) {
        Ok(signed) => assert_eq!(header(&signed).timestamp(), Some(timestamp)),
        Err(error) => {
            assert!(port == 0 || alias.len() > 32);
            refused_ours(error);
        }
    }
}

/// What is said of a message, or to it.
fn answers(message: &[u8]) {
    let kind = MessageType::of(message);
    assert_eq!(kind.is_err(), message.len() < 2);
    if let Ok(kind) = kind {
        assert!(!kind.needs_signer() || kind.is_known());
        assert_eq!(kind.is_known(), kind.plane() != Plane::Custom);
        assert!(kind.to_string().starts_with(kind.label()) && kind.section().starts_with("BOLT "));
        assert!(!kind.plane().as_str().is_empty() && !kind.plane().to_string().is_empty());
    }
    if let Ok(warning) = Warning::decode(message) {
        let mut as_error = message.to_vec();
        as_error[..2].copy_from_slice(&MessageType::ERROR.0.to_be_bytes());
        let error = ErrorMessage::decode(&as_error).expect("one layout, two types");
        assert_eq!(warning.text(), error.text());
        assert_eq!(warning.is_all_zero(), error.is_all_zero());
    }
    if let Ok(Some(header)) = GossipHeader::decode(message) {
        assert!(kind.is_ok_and(MessageType::is_announcement));
        let _ = header.timestamp();
    }
    if let Ok(Some(answer)) = unserved_answer(message) {
        let end = ReplyShortChannelIdsEnd::decode(&answer).is_ok_and(|end| !end.full_information);
        let none = ReplyChannelRange::decode(&answer)
            .is_ok_and(|reply| reply.sync_complete && reply.short_channel_ids.is_empty());
        assert!(end || none, "an answer that says something");
    }
    if let Ok(ping) = Ping::decode(message)
        && let Some(pong) = ping.answer()
    {
        assert_eq!(pong.encode().len(), usize::from(ping.num_pong_bytes) + 4);
    }
    let text = printable(message, 64);
    assert!(text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) && text.len() < 100);
}

/// The pieces that messages are made of.
fn parts(bytes: &[u8]) {
    match BigSize::decode(bytes) {
        Ok((value, rest)) => {
            let mut out = Vec::new();
            value.encode(&mut out);
            out.extend_from_slice(rest);
            assert!(out == bytes, "a number has one form only");
        }
        Err(error) => refused(&error, false),
    }
    let mut out = Vec::new();
    let read = tlv::decode(bytes, |kind, value| {
        tlv::encode(kind, value, &mut out);
        Ok(Known::Yes)
    });
    match read {
        Ok(()) => assert!(out == bytes, "a record stream has one form only"),
        Err(error) => refused(&error, false),
    }
    if let Ok(features) = Features::from_wire(bytes) {
        assert_eq!(
            Features::from_wire(&features.to_wire()),
            Ok(features.clone())
        );
        let bits: Vec<u32> = features.bits().collect();
        assert_eq!(features.is_empty(), bits.is_empty());
        let printed = format!("{features:?}");
        assert!(
            printed.len() < 600,
            "a peer's features flood a log: {printed}"
        );
        if let Some(first) = bits.first().and_then(|bit| u16::try_from(*bit).ok()) {
            let mut fewer = features.clone();
            fewer.clear(first);
            assert!(!fewer.has(first) && fewer.is_subset_of(&features));
            assert!(features.offers(first) && features.offers(first ^ 1));
        }
        assert!(bits.is_sorted() && bits.iter().all(|bit| *bit < 8 * 65_535));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = text.parse::<ShortChannelId>()
    {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(format!("{id:?}"), id.to_string());
    }
    if let Some([a, b, c, d, e, f, g, h, i, j]) = bytes.first_chunk() {
        let (block, transaction) = ([*a, *b, *c, *d], [*e, *f, *g, *h]);
        let (block, transaction) = (u32::from_be_bytes(block), u32::from_be_bytes(transaction));
        let id = ShortChannelId::new(block, transaction, u16::from_be_bytes([*i, *j]));
        assert_eq!(id.is_some(), *a == 0 && *e == 0, "three bytes each");
        let whole = u64::from_be_bytes([*b, *c, *d, *f, *g, *h, *i, *j]);
        assert!(id.is_none_or(|id| id == ShortChannelId::from_u64(whole)));
    }
}
