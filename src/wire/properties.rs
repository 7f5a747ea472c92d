//! Properties of every codec: no bytes make one panic, and what is written is read back.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use proptest::collection::vec;
use proptest::prelude::*;

use crate::node_id::LocalKey;

use super::control::{NO_PONG_FROM, printable};
use super::gossip::{ChannelAnnouncement, ChannelEnd, GossipHeader, NodeAnnouncement};
use super::queries::unserved_answer;
use super::tlv::{self, Known};
use super::{
    BITCOIN_MAINNET, BigSize, ErrorMessage, Features, GossipTimestampFilter, Init, MessageType,
    Ping, Pong, QueryChannelRange, QueryShortChannelIds, ReplyChannelRange,
    ReplyShortChannelIdsEnd, ShortChannelId, Warning, WireError,
};

/// Decodes with one codec and, when that works, checks that writing and reading again changes nothing, and that what was
/// written is never longer than what a peer could have sent.
macro_rules! settle {
    ($message:expr, $($codec:ty),+) => {
        $(
            if let Ok(value) = <$codec>::decode($message) {
                let written = value.encode();
                prop_assert_eq!(<$codec>::decode(&written), Ok(value));
                prop_assert!(written.len() <= super::MAX_MESSAGE);
            }
        )+
    };
}

fn settle_all(message: &[u8]) -> Result<(), TestCaseError> {
    settle!(
        message,
        Init,
        Ping,
        Pong,
        Warning,
        ErrorMessage,
        QueryShortChannelIds,
        ReplyShortChannelIdsEnd,
        QueryChannelRange,
        ReplyChannelRange,
        GossipTimestampFilter
    );
    let _ = GossipHeader::decode(message);
    let _ = unserved_answer(message);
    let _ = MessageType::of(message);
    let _ = BigSize::decode(message);
    let _ = tlv::decode(message, |_, _| Ok(Known::No));
    let _ = printable(message, 64);
    Ok(())
}

/// A type that some decoder reads.
fn read_type() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![
        1_u16, 16, 17, 18, 19, 256, 257, 258, 261, 262, 263, 264, 265,
    ])
}

/// Bodies whose length fields are often right: bytes mostly zero.
fn sparse_body() -> impl Strategy<Value = Vec<u8>> {
    vec(
        prop_oneof![8 => Just(0_u8), 2 => 0_u8..40, 1 => any::<u8>()],
        0..400,
    )
}

fn features() -> impl Strategy<Value = Features> {
    vec(0_u16..600, 0..12).prop_map(Features::from_bits)
}

fn ids() -> impl Strategy<Value = Vec<ShortChannelId>> {
    vec(any::<u64>().prop_map(ShortChannelId::from_u64), 0..20)
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(message in vec(any::<u8>(), 0..600)) {
        settle_all(&message)?;
    }

    #[test]
    fn no_body_of_a_type_that_is_read_makes_its_decoder_panic(
        kind in read_type(),
        body in prop_oneof![vec(any::<u8>(), 0..400), sparse_body()],
    ) {
        settle_all(&[&kind.to_be_bytes()[..], &body].concat())?;
    }

    #[test]
    fn every_cut_of_a_message_is_an_error_or_a_shorter_message(
        features in features(),
        networks in vec(any::<[u8; 32]>(), 0..4),
        at in any::<prop::sample::Index>(),
    ) {
        let whole = Init::with_features(features, networks).encode();
        settle_all(&whole[..at.index(whole.len())])?;
    }

    #[test]
    fn bigsize_reads_what_it_writes(value in any::<u64>(), shift in 0_u32..64, tail in vec(any::<u8>(), 0..4)) {
        let value = value >> shift;
        let mut out = Vec::new();
        BigSize(value).encode(&mut out);
        out.extend_from_slice(&tail);
        prop_assert_eq!(BigSize::decode(&out), Ok((BigSize(value), tail.as_slice())));
    }

    #[test]
    fn bigsize_bytes_that_read_are_the_bytes_that_are_written(bytes in vec(any::<u8>(), 0..12)) {
        if let Ok((value, rest)) = BigSize::decode(&bytes) {
            let mut out = Vec::new();
            value.encode(&mut out);
            out.extend_from_slice(rest);
            prop_assert_eq!(out, bytes);
        }
    }

    #[test]
    fn a_stream_that_reads_is_the_stream_that_is_written(bytes in vec(prop_oneof![0_u8..6, any::<u8>()], 0..60)) {
        let mut out = Vec::new();
        let read = tlv::decode(&bytes, |kind, value| {
            tlv::encode(kind, value, &mut out);
            Ok(Known::Yes)
        });
        if read.is_ok() {
            prop_assert_eq!(out, bytes);
        }
    }

    #[test]
    fn init_reads_what_it_writes(
        features in features(),
        networks in vec(any::<[u8; 32]>(), 0..5),
        remote_addr in prop::option::of(vec(any::<u8>(), 0..40)),
    ) {
        let init = Init { features, networks, remote_addr };
        let written = init.encode();
        let read = Init::decode(&written).unwrap();
        prop_assert_eq!(read.encode(), written);
        prop_assert_eq!(read, init);
    }

    #[test]
    fn ping_and_pong_read_what_they_write(num_pong_bytes in any::<u16>(), ignored in 0..=65_529_u16) {
        let ping = Ping { num_pong_bytes, ignored };
        let written = ping.encode();
        prop_assert_eq!(written.len(), usize::from(ignored) + 6);
        prop_assert_eq!(Ping::decode(&written), Ok(ping));
        match ping.answer() {
            Some(pong) => {
                let written = pong.encode();
                prop_assert!(num_pong_bytes < NO_PONG_FROM);
                prop_assert_eq!(written.len(), usize::from(num_pong_bytes) + 4);
                prop_assert!(written[4..].iter().all(|byte| *byte == 0));
                prop_assert_eq!(Pong::decode(&written), Ok(pong));
            }
            None => prop_assert!(num_pong_bytes >= NO_PONG_FROM),
        }
    }

    #[test]
    fn warning_and_error_read_what_they_write(channel_id in any::<[u8; 32]>(), data in vec(any::<u8>(), 0..300)) {
        let warning = Warning { channel_id, data: data.clone() };
        prop_assert_eq!(Warning::decode(&warning.encode()), Ok(warning));
        let error = ErrorMessage { channel_id, data };
        prop_assert_eq!(ErrorMessage::decode(&error.encode()), Ok(error));
    }

    #[test]
    fn queries_read_what_they_write(
        chain_hash in any::<[u8; 32]>(),
        short_channel_ids in ids(),
        first in any::<u32>(),
        count in any::<u32>(),
        flag in any::<bool>(),
    ) {
        let query = QueryShortChannelIds { chain_hash, short_channel_ids: short_channel_ids.clone() };
        prop_assert_eq!(QueryShortChannelIds::decode(&query.encode()), Ok(query));
        let end = ReplyShortChannelIdsEnd { chain_hash, full_information: flag };
        prop_assert_eq!(ReplyShortChannelIdsEnd::decode(&end.encode()), Ok(end));
        let range = QueryChannelRange { chain_hash, first_blocknum: first, number_of_blocks: count };
        prop_assert_eq!(QueryChannelRange::decode(&range.encode()), Ok(range));
        let reply = ReplyChannelRange {
            chain_hash,
            first_blocknum: first,
            number_of_blocks: count,
            sync_complete: flag,
            short_channel_ids,
        };
        prop_assert_eq!(ReplyChannelRange::decode(&reply.encode()), Ok(reply));
        let filter = GossipTimestampFilter { chain_hash, first_timestamp: first, timestamp_range: count };
        prop_assert_eq!(GossipTimestampFilter::decode(&filter.encode()), Ok(filter));
    }

    #[test]
    fn a_query_that_nobody_serves_is_answered_for_its_own_chain_and_range(
        chain_hash in any::<[u8; 32]>(),
        short_channel_ids in ids(),
        first_blocknum in any::<u32>(),
        number_of_blocks in any::<u32>(),
    ) {
        let ids = QueryShortChannelIds { chain_hash, short_channel_ids }.encode();
        let answer = unserved_answer(&ids).unwrap().unwrap();
        prop_assert_eq!(
            ReplyShortChannelIdsEnd::decode(&answer),
            Ok(ReplyShortChannelIdsEnd { chain_hash, full_information: false })
        );
        let range = QueryChannelRange { chain_hash, first_blocknum, number_of_blocks }.encode();
        let answer = unserved_answer(&range).unwrap().unwrap();
        let reply = ReplyChannelRange::decode(&answer).unwrap();
        prop_assert_eq!(reply.chain_hash, chain_hash);
        prop_assert_eq!(reply.first_blocknum, first_blocknum);
        prop_assert_eq!(reply.number_of_blocks, number_of_blocks.max(1));
        prop_assert!(reply.sync_complete && reply.short_channel_ids.is_empty());
    }

    #[test]
    fn features_are_sets_whatever_the_padding(bits in vec(0_u16..600, 0..12), padding in 0_usize..9) {
        let features = Features::from_bits(bits.iter().copied());
        let padded = [vec![0; padding], features.to_wire()].concat();
        prop_assert_eq!(Features::from_wire(&padded), Ok(features.clone()));
        prop_assert!(features.to_wire().first() != Some(&0));
        for bit in 0..700 {
            prop_assert_eq!(features.has(bit), bits.contains(&bit));
        }
        let mut sorted: Vec<u32> = bits.iter().map(|bit| u32::from(*bit)).collect();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(features.bits().collect::<Vec<_>>(), sorted);
        let mut emptied = features;
        for bit in bits {
            emptied.clear(bit);
        }
        prop_assert!(emptied.is_empty() && emptied == Features::empty());
    }

    #[test]
    fn merging_is_the_union_and_a_subset_merges_into_nothing_new(a in features(), b in features()) {
        let mut both = a.clone();
        both.merge(&b);
        prop_assert!(a.is_subset_of(&both) && b.is_subset_of(&both));
        prop_assert_eq!(both == a, b.is_subset_of(&a));
        let union: std::collections::BTreeSet<u32> = a.bits().chain(b.bits()).collect();
        prop_assert_eq!(both.bits().collect::<Vec<_>>(), union.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn text_for_a_log_is_printable_and_bounded(data in vec(any::<u8>(), 0..2_000), limit in 0_usize..300) {
        let text = printable(&data, limit);
        prop_assert!(text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
        prop_assert!(text.len() <= limit + "... (65535 bytes more)".len());
    }

    #[test]
    fn a_short_channel_id_reads_what_it_writes(id in any::<u64>()) {
        let id = ShortChannelId::from_u64(id);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }
}

#[test]
fn a_short_channel_id_is_written_as_bolt_7_writes_it() {
    let id = ShortChannelId::new(539_268, 845, 1).unwrap();
    assert_eq!(id.as_u64(), 0x083a_8400_034d_0001);
    assert_eq!(id.to_string(), "539268x845x1");
    assert_eq!(
        (id.block(), id.transaction(), id.output()),
        (539_268, 845, 1)
    );
    assert_eq!(ShortChannelId::new(1 << 24, 0, 0), None);
    assert_eq!(ShortChannelId::new(0, 1 << 24, 0), None);
    for text in [
        "",
        "1x2",
        "1x2x3x4",
        "1x2x65536",
        "16777216x0x0",
        "+1x2x3",
        "1x-2x3",
        "1x2x",
    ] {
        assert!(text.parse::<ShortChannelId>().is_err(), "{text}");
    }
}

#[test]
fn a_known_message_without_its_fields_is_an_error_that_names_the_field() {
    assert_eq!(
        Ping::decode(&[0, 18, 0, 1, 0, 2, 0]),
        Err(WireError::Truncated {
            message: "ping",
            field: "ignored"
        })
    );
    assert_eq!(MessageType::of(&[1]), Err(WireError::NoType { length: 1 }));
    assert_eq!(
        Pong::decode(&[0, 18, 0, 0]),
        Err(WireError::WrongType {
            expected: MessageType::PONG,
            got: MessageType::PING
        })
    );
}

#[test]
fn an_error_with_a_length_beyond_its_end_is_read_for_what_is_there() {
    let mut message = vec![0, 17];
    message.extend_from_slice(&[0; 32]);
    message.extend_from_slice(&[0xff, 0xff]);
    message.extend_from_slice(b"no\x1b[2J");
    let error = ErrorMessage::decode(&message).unwrap();
    assert!(error.is_all_zero());
    assert_eq!(error.data, b"no\x1b[2J");
    assert_eq!(error.text(), r"no\x1b[2J");
}

#[test]
fn what_would_not_fit_a_message_is_cut_to_what_does() {
    let long = Warning {
        channel_id: [1; 32],
        data: vec![b'a'; 70_000],
    };
    assert_eq!(long.encode().len(), super::MAX_MESSAGE);
    assert!(Warning::decode(&long.encode()).is_ok());
    assert!(!long.is_all_zero() && Warning::new("signer away").is_all_zero());
    assert_eq!(
        Ping {
            num_pong_bytes: 0,
            ignored: u16::MAX
        }
        .encode()
        .len(),
        super::MAX_MESSAGE
    );
    assert_eq!(
        Pong { ignored: u16::MAX }.encode().len(),
        super::MAX_MESSAGE
    );
    let ids = vec![ShortChannelId::from_u64(7); 9_000];
    let query = QueryShortChannelIds {
        chain_hash: [0; 32],
        short_channel_ids: ids.clone(),
    };
    let read = QueryShortChannelIds::decode(&query.encode()).unwrap();
    assert_eq!(read.short_channel_ids.len(), 8_187);
    assert_eq!(QueryShortChannelIds::decode(&read.encode()), Ok(read));
    let reply = ReplyChannelRange {
        chain_hash: [0; 32],
        first_blocknum: 0,
        number_of_blocks: 1,
        sync_complete: true,
        short_channel_ids: ids,
    };
    let read = ReplyChannelRange::decode(&reply.encode()).unwrap();
    assert_eq!(read.short_channel_ids.len(), 8_186);
    assert_eq!(ReplyChannelRange::decode(&read.encode()), Ok(read));
}

#[test]
fn ids_in_another_encoding_or_in_part_are_refused() {
    let message = |ids: &[u8]| {
        let mut message = vec![1, 5];
        message.extend_from_slice(&[9; 32]);
        message.extend_from_slice(&u16::try_from(ids.len()).unwrap().to_be_bytes());
        message.extend_from_slice(ids);
        message
    };
    for ids in [&[][..], &[1, 0, 0], &[0, 1, 2, 3]] {
        assert!(
            QueryShortChannelIds::decode(&message(ids)).is_err(),
            "{ids:?}"
        );
        // What cannot be read can still be answered: nothing is known of it.
        assert!(unserved_answer(&message(ids)).unwrap().is_some());
    }
    assert!(QueryShortChannelIds::decode(&message(&[0])).is_ok());
}

#[test]
fn a_demand_is_unknown_only_if_neither_bit_of_its_pair_is_known() {
    let known = Features::gossip();
    assert_eq!(
        Features::from_bits([0, 6, 8, 12, 14, 44, 27]).requires_unknown(&known),
        None
    );
    assert_eq!(
        Features::from_bits([0, 22, 24]).requires_unknown(&known),
        Some(22)
    );
    assert_eq!(
        Features::from_bits([22, 24, 62]).requires_unknown(&Features::assigned()),
        None
    );
    assert_eq!(
        Features::from_bits([100]).requires_unknown(&Features::assigned()),
        Some(100)
    );
    let far = Features::from_wire(&[vec![1], vec![0; 65_534]].concat()).unwrap();
    assert_eq!(far.requires_unknown(&known), Some(524_272));
    assert!(Features::from_wire(&vec![0; 65_536]).is_err());
}

#[test]
fn a_filter_wants_its_first_second_and_not_its_last() {
    let filter = GossipTimestampFilter {
        chain_hash: [0; 32],
        first_timestamp: 100,
        timestamp_range: 10,
    };
    let wanted: Vec<u32> = (90..120).filter(|at| filter.wants(*at)).collect();
    assert_eq!(wanted, (100..110).collect::<Vec<_>>());
    assert!(GossipTimestampFilter::since([0; 32], u32::MAX - 1).wants(u32::MAX));
}

/// No message of a peer's can hold so much; the node's own words can.
#[test]
fn what_does_not_fit_a_message_is_refused_before_it_is_sent() {
    let full = vec![1; 65_535];
    assert!(matches!(
        Features::from_wire(&[&full[..], &[1]].concat()),
        Err(WireError::TooLong { length: 65_536, .. })
    ));
    let key = LocalKey::from_bytes(&mut [7; 32]).unwrap();
    let other = LocalKey::from_bytes(&mut [8; 32]).unwrap();
    let announced = ChannelAnnouncement {
        chain_hash: BITCOIN_MAINNET,
        short_channel_id: ShortChannelId::from_u64(7),
        features: Features::from_wire(&full).unwrap(),
    };
    let end = |node| ChannelEnd {
        node,
        funding: node,
    };
    assert!(matches!(
        announced.sign(end(&key), end(&other)),
        Err(WireError::TooLong {
            what: "message",
            ..
        })
    ));
    let described = NodeAnnouncement {
        timestamp: 1,
        features: Features::empty(),
        rgb: [0; 3],
        alias: String::new(),
        addresses: vec![([1; 4], 9735).into(); 9363],
    };
    assert!(matches!(
        described.sign(&key),
        Err(WireError::TooLong { length: 65_541, .. })
    ));
}
