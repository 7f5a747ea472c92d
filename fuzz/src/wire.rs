//! Every codec of the library, over every message: what decodes is written and read again, and nothing changes by it.

use pilotlight::wire::control::printable;
use pilotlight::wire::gossip::GossipHeader;
use pilotlight::wire::queries::unserved_answer;
use pilotlight::wire::tlv::{self, Known};
use pilotlight::wire::{
    BigSize, ErrorMessage, Features, GossipTimestampFilter, Init, MAX_MESSAGE, MessageType, Ping,
    Pong, QueryChannelRange, QueryShortChannelIds, ReplyChannelRange, ReplyShortChannelIdsEnd,
    ShortChannelId, Warning,
};

/// Decodes with each codec; `type` says which alone may succeed.
macro_rules! settle {
    ($message:expr, $($codec:ty => $kind:expr),+ $(,)?) => {
        $(
            if let Ok(value) = <$codec>::decode($message) {
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
    parts(message);
}

/// What is said of a message, or to it.
fn answers(message: &[u8]) {
    let kind = MessageType::of(message);
    assert_eq!(kind.is_err(), message.len() < 2);
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
    if let Ok((value, rest)) = BigSize::decode(bytes) {
        let mut out = Vec::new();
        value.encode(&mut out);
        out.extend_from_slice(rest);
        assert!(out == bytes, "a number has one form only");
    }
    let mut out = Vec::new();
    let read = tlv::decode(bytes, |kind, value| {
        tlv::encode(kind, value, &mut out);
        Ok(Known::Yes)
    });
    assert!(
        read.is_err() || out == bytes,
        "a record stream has one form only"
    );
    if let Ok(features) = Features::from_wire(bytes) {
        assert_eq!(
            Features::from_wire(&features.to_wire()),
            Ok(features.clone())
        );
        let bits: Vec<u32> = features.bits().collect();
        assert!(bits.is_sorted() && bits.iter().all(|bit| *bit < 8 * 65_535));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = text.parse::<ShortChannelId>()
    {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
