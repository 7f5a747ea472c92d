//! The seeds of the corpora: BOLT 8's vectors, honest runs, and what each target can be made to meet, named by behaviour.
//!
//! Inputs that a fuzzer found lie beside them and are made by nobody: see `fuzz/README.md`.

use super::signer_seeds;
use super::targets::bolt8::{Initiator, Responder, public, secret};
use super::targets::feed::Seed;
use super::targets::handshake_differential::NODE;
use super::vectors;
use pilotlight::node_id::LocalKey;
use pilotlight::wire::control::{ErrorMessage, Ping, Pong, Warning};
use pilotlight::wire::gossip::{
    ChannelAnnouncement, ChannelEnd, ChannelUpdate, Direction, NodeAnnouncement, ShortChannelId,
};
use pilotlight::wire::range_details::{RangeDetails, RangeOption};
use pilotlight::wire::{
    BITCOIN_MAINNET, Features, GossipTimestampFilter, Init, QueryChannelRange,
    QueryShortChannelIds, ReplyChannelRange, ReplyShortChannelIdsEnd,
};
use secp256k1::PublicKey;

pub type Named = (String, Vec<u8>);

pub fn of(target: &str) -> Vec<Named> {
    let mut seeds = match target {
        "framer" => framer(),
        "wire" => wire(),
        "cipher_rotation" => cipher_rotation(),
        "handshake_initiator" => handshake_initiator(),
        "handshake_responder" => handshake_responder(),
        "firewall" => firewall(),
        "handshake_differential" => handshake_differential(),
        "link_ops" => link_ops(),
        "roster_ops" => roster_ops(),
        "signer_stream" => signer_seeds::signer_stream(),
        "agent_stream" => signer_seeds::agent_stream(),
        "session_ops" => signer_seeds::session_ops(),
        "credentials" => signer_seeds::credentials(),
        "config" => config(),
        "book" => book(),
        _ => Vec::new(),
    };
    seeds.push(named("nothing", Seed::default()));
    seeds
}

pub fn named(name: &str, seed: Seed) -> Named {
    (name.to_owned(), seed.0)
}

pub fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn framer() -> Vec<Named> {
    let message = |seed: Seed, length: u16| seed.u8(0).u16(length).u8(0xa5);
    let piece = |seed: Seed, length: u16| seed.u8(1).u16(length);
    let flip = |seed: Seed, at: u16| seed.u8(2).u16(at).u8(3);
    let two = || message(message(Seed::default(), 5), 40);
    let byte_by_byte = (0..39 + 5).fold(two(), |seed, _| piece(seed, 1));
    vec![
        named("messages_at_once", two()),
        named("empty_message", message(Seed::default(), 0)),
        named(
            "longest_message_in_two",
            piece(message(Seed::default(), 65_535), 40_000),
        ),
        named("byte_by_byte", byte_by_byte),
        named("cut_within_a_header", piece(two(), 17)),
        named("cut_after_a_header", piece(two(), 18)),
        named("flipped_length", flip(two(), 0)),
        named("flipped_tag_of_length", flip(two(), 17)),
        named("flipped_message", flip(two(), 18)),
        named("flipped_in_the_second", flip(two(), 60)),
        named(
            "nothing_after_a_flip",
            message(piece(flip(two(), 3), 100), 9),
        ),
        named(
            "rest_between",
            piece(message(message(Seed::default(), 9).u8(3), 9), 50),
        ),
    ]
}

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

/// A message of every type that a codec reads or makes.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let chain_hash = BITCOIN_MAINNET;
    let scid = ShortChannelId::new(539_268, 845, 1).unwrap();
    let short_channel_ids = vec![scid, ShortChannelId::from_u64(7)];
    let keys = [1, 2, 3, 4].map(key);
    let end = |node, funding| ChannelEnd {
        node: &keys[node],
        funding: &keys[funding],
    };
    let announced = ChannelAnnouncement {
        chain_hash,
        short_channel_id: scid,
        features: Features::empty(),
    };
    let node = NodeAnnouncement {
        timestamp: 1,
        features: Features::gossip(),
        rgb: [1, 2, 3],
        alias: "pilot".into(),
        addresses: vec!["192.0.2.7:9735".parse().unwrap()],
    };
    let update = ChannelUpdate {
        chain_hash,
        short_channel_id: scid,
        timestamp: 1,
        direction: Direction::from_ids(&[2; 33], &[3; 33]),
        disabled: false,
        cltv_expiry_delta: 80,
        htlc_minimum_msat: 1,
        fee_base_msat: 1000,
        fee_proportional_millionths: 1,
        htlc_maximum_msat: 1_000_000,
    };
    let mut with_address = Init::gossip(vec![chain_hash]);
    with_address.remote_addr = Some(vec![1, 192, 0, 2, 7, 0x26, 0x07]);
    vec![
        ("init", Init::gossip(vec![chain_hash]).encode()),
        ("init_with_address", with_address.encode()),
        (
            "ping",
            Ping {
                num_pong_bytes: 8,
                ignored: 4,
            }
            .encode(),
        ),
        (
            "ping_without_answer",
            Ping {
                num_pong_bytes: 65_532,
                ignored: 0,
            }
            .encode(),
        ),
        ("pong", Pong { ignored: 8 }.encode()),
        ("warning", Warning::new("hm").encode()),
        (
            "error_of_all",
            ErrorMessage {
                channel_id: [0; 32],
                data: b"oh".to_vec(),
            }
            .encode(),
        ),
        (
            "error_of_one",
            ErrorMessage {
                channel_id: [1; 32],
                data: vec![],
            }
            .encode(),
        ),
        (
            "query_scids",
            QueryShortChannelIds {
                chain_hash,
                short_channel_ids: short_channel_ids.clone(),
            }
            .encode(),
        ),
        (
            "reply_scids_end",
            ReplyShortChannelIdsEnd {
                chain_hash,
                full_information: false,
            }
            .encode(),
        ),
        (
            "query_range",
            QueryChannelRange {
                chain_hash,
                first_blocknum: 1,
                number_of_blocks: 9,
            }
            .encode(),
        ),
        (
            "reply_range",
            ReplyChannelRange {
                chain_hash,
                first_blocknum: 1,
                number_of_blocks: 9,
                sync_complete: true,
                short_channel_ids,
            }
            .encode(),
        ),
        (
            "filter",
            GossipTimestampFilter::since(chain_hash, 1).encode(),
        ),
        (
            "channel_announcement",
            announced.sign(end(0, 1), end(2, 3)).unwrap(),
        ),
        ("node_announcement", node.sign(&keys[0]).unwrap()),
        ("channel_update", update.sign(&keys[0]).unwrap()),
    ]
}

fn wire() -> Vec<Named> {
    let whole = messages()
        .into_iter()
        .map(|(name, message)| (name.to_owned(), message));
    let cut = messages().into_iter().map(|(name, message)| {
        let most = message.len() - 1;
        (format!("{name}_cut_short"), message[..most].to_vec())
    });
    let numbers = [
        named(
            "bigsize_of_nine_bytes",
            Seed::default().raw(&bytes("ff0000000100000000")),
        ),
        named(
            "bigsize_not_shortest",
            Seed::default().raw(&bytes("fd00fc")),
        ),
        named(
            "bigsize_of_three_bytes",
            Seed::default().raw(&bytes("fd00fd")),
        ),
        named(
            "bigsize_of_five_bytes",
            Seed::default().raw(&bytes("fe00010000")),
        ),
        named("scid_as_text", Seed::default().raw(b"539268x845x1")),
        named("scid_with_a_sign", Seed::default().raw(b"539268x+45x1")),
        named(
            "scid_of_three_bytes_each",
            Seed::default().raw(&bytes("00083a840000034d0001")),
        ),
    ];
    whole
        .chain(cut)
        .chain(numbers)
        .chain(malformed())
        .chain(of_every_plane())
        .chain(announced())
        .chain(ranges_with_details())
        .collect()
}

/// What a codec refuses.
fn malformed() -> impl Iterator<Item = Named> {
    let chain = "6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000";
    let messages = [
        (
            "init_of_half_a_network",
            format!("0010000000000110{}", "07".repeat(16)),
        ),
        (
            "init_of_an_unknown_even_record",
            "00100000000004010a".into(),
        ),
        ("init_of_an_unknown_odd_record", "00100000000005010a".into()),
        (
            "init_of_records_out_of_order",
            "001000000000030003010a".into(),
        ),
        ("ids_compressed", format!("0105{chain}000101")),
        ("ids_of_an_unknown_encoding", format!("0105{chain}000107")),
        (
            "ids_that_are_no_whole_number",
            format!("0105{chain}00040001020304"),
        ),
        (
            "range_with_an_unknown_record",
            format!("0107{chain}00000001000000090301aa"),
        ),
        (
            "range_with_a_long_option",
            format!("0107{chain}000000010000000901020000"),
        ),
        (
            "reply_with_an_unknown_record",
            format!("0108{chain}00000001000000090100010007010a"),
        ),
        (
            "reply_with_half_a_checksum",
            format!("0108{chain}000000010000000901000100030401020304"),
        ),
        ("tlv_of_a_long_length", "05fd0200".into()),
    ];
    messages
        .into_iter()
        .map(|(name, hex)| (name.to_owned(), bytes(&hex)))
}

/// A type of every plane, and of none.
fn of_every_plane() -> impl Iterator<Item = Named> {
    [2_u16, 7, 34, 513, 1000, 1001, 32_768, 32_769]
        .into_iter()
        .map(|kind| (format!("type_{kind}"), kind.to_be_bytes().to_vec()))
}

/// What the body signs of these bytes: whose keys, and at which port.
fn announced() -> impl Iterator<Item = Named> {
    let of = |kind: u16, nodes: [u8; 2], port: u8| {
        [&kind.to_be_bytes()[..], &nodes, &[port, 3], &[1; 60]].concat()
    };
    let messages = [
        ("announced_between_two", of(258, [1, 3], 1)),
        ("announced_between_one_and_itself", of(256, [1, 1], 1)),
        ("announced_at_no_port", of(257, [0, 0], 0)),
    ];
    messages
        .into_iter()
        .map(|(name, message)| (name.to_owned(), message))
}

/// A query that asks for more than ids, its reply, and a reply whose details are one short.
fn ranges_with_details() -> Vec<Named> {
    let query = QueryChannelRange {
        chain_hash: BITCOIN_MAINNET,
        first_blocknum: 1,
        number_of_blocks: 9,
    };
    let option = RangeOption {
        timestamps: true,
        checksums: true,
    };
    let reply = ReplyChannelRange {
        chain_hash: BITCOIN_MAINNET,
        first_blocknum: 1,
        number_of_blocks: 9,
        sync_complete: true,
        short_channel_ids: vec![ShortChannelId::from_u64(7), ShortChannelId::from_u64(8)],
    };
    let details = |timestamps: usize| RangeDetails {
        timestamps: vec![[1, 2]; timestamps],
        checksums: vec![[3, 4]; 2],
    };
    let seed = |name, message: Vec<u8>| named(name, Seed::default().raw(&message));
    vec![
        seed("query_for_details", query.encode_with(option)),
        seed("reply_with_details", reply.encode_with(&details(2))),
        seed("reply_with_a_detail_short", reply.encode_with(&details(1))),
    ]
}

/// Who sends and how it is checked, when it is read, and how many; see the target.
fn burst(seed: Seed, how: u8, later: bool, many: u16) -> Seed {
    seed.u8(how).u8(u8::from(later)).u16(many).u8(5)
}

fn cipher_rotation() -> Vec<Named> {
    const PEER: u8 = 0;
    const WE: u8 = 1;
    const COUNTED: u8 = 2;
    // The first key of one direction is used up but for this many messages; then so many are restated.
    let near = |who: u8, left: u16, many: u16| {
        let seed = burst(Seed::default(), who | COUNTED, false, 500 - left);
        burst(seed, who, false, many)
    };
    let alternating = (0..12).fold(Seed::default(), |seed, turn: u8| {
        let who = turn % 2;
        let seed = burst(seed, who | COUNTED, turn.is_multiple_of(3), 318);
        burst(seed, who, turn.is_multiple_of(5), 15)
    });
    let under_way = [WE, PEER].into_iter().fold(Seed::default(), |seed, who| {
        let seed = burst(seed, who | COUNTED, true, 495);
        burst(seed, who, true, 10)
    });
    let far_on = [WE, PEER].into_iter().fold(Seed::default(), |seed, who| {
        let seed = (0..3).fold(seed, |seed, _| burst(seed, who | COUNTED, false, 498));
        burst(seed, who, false, 20)
    });
    vec![
        named("up_to_the_rotation", near(WE, 10, 10)),
        named("one_past_the_rotation", near(WE, 10, 11)),
        named("one_past_the_peers_rotation", near(PEER, 10, 11)),
        named("both_rotate_under_way", under_way),
        named("third_rotation", far_on),
        named("rotations_interleaved", alternating),
        named(
            "restated_from_the_first",
            burst(burst(Seed::default(), WE, false, 120), PEER, false, 120),
        ),
    ]
}

/// The vectors' keys: initiator's static and ephemeral, responder's static and ephemeral.
fn keys() -> Seed {
    Seed::default().u8(0x11).u8(0x12).u8(0x21).u8(0x22)
}

fn word(error: &str) -> String {
    error.to_lowercase()
}

fn chat(seed: Seed) -> Seed {
    seed.u8(0)
        .bytes(b"hello")
        .u8(1)
        .bytes(b"")
        .u8(0)
        .bytes(&[0; 40])
        .u8(2)
}

fn handshake_initiator() -> Vec<Named> {
    let raw = |act: &str| keys().u8(0).u8(5).bytes(&bytes(act));
    let honest = || keys().u8(0).u8(0).u8(0);
    // Right in itself, as whoever knows the dialled key answers the vectors' act one with another ephemeral key.
    let copied = Responder::new(secret(0x21), secret(9))
        .act_one(&bytes(vectors::ACT_ONE))
        .unwrap();
    let mut seeds: Vec<Named> = vectors::INITIATOR_REFUSALS
        .iter()
        .map(|refusal| (word(refusal.error), raw(refusal.acts[refusal.act - 2]).0))
        .collect();
    seeds.extend([
        named("vector_act_two", raw(vectors::ACT_TWO).u8(0)),
        named("honest_then_messages", chat(honest())),
        named("honest_then_noise", chat(honest()).raw(&[7; 60])),
        named("another_answers", keys().u8(9).u8(0)),
        named(
            "another_answers_with_a_copied_tag",
            keys().u8(9).u8(5).bytes(&bytes(vectors::ACT_TWO)),
        ),
        named(
            "another_ephemeral_with_a_copied_tag",
            keys().u8(0).u8(5).bytes(&copied),
        ),
        named("signer_answers_wrongly", keys().u8(0).u8(0).u8(9)),
        named("foreign_ephemeral", keys().u8(0).u8(6).u8(9)),
        named("flipped_tag", keys().u8(0).u8(3).u16(49).u8(0)),
    ]);
    seeds
}

fn handshake_responder() -> Vec<Named> {
    let raw = |act: &str| keys().u8(0).u8(5).bytes(&bytes(act));
    let to_act_three = || keys().u8(0).u8(0).u8(0);
    // Each right in itself, and not what this caller says: another ephemeral key, one for whom the signer answers with another key, and
    // another caller's act three.
    let (ours, liar) = (public(&secret(0x21)), public(&secret(9)));
    let (_, another) = Initiator::dial(secret(0x11), secret(9), &ours);
    let (_, misled) = Initiator::dial_misled(secret(0x11), secret(9), &ours, &liar);
    let of_another_caller = act_three_of(9, 0x12, &ours, &bytes(vectors::ACT_TWO));
    let mut seeds: Vec<Named> = vectors::RESPONDER_REFUSALS
        .iter()
        .map(|refusal| {
            let act = refusal.acts[refusal.act / 2];
            let seed = match refusal.act {
                1 => raw(act).u8(0),
                _ => to_act_three().bytes(&[]).u8(5).bytes(&bytes(act)),
            };
            (word(refusal.error), seed.0)
        })
        .collect();
    let vector = raw(vectors::ACT_ONE)
        .u8(0)
        .bytes(&[])
        .u8(5)
        .bytes(&bytes(vectors::ACT_THREE));
    seeds.extend([
        named("vector_acts", vector),
        named(
            "honest_then_messages",
            chat(to_act_three().bytes(&[]).u8(0)),
        ),
        named(
            "honest_then_noise",
            chat(to_act_three().bytes(&[]).u8(0)).raw(&[7; 60]),
        ),
        named("dials_another_key", keys().u8(9).u8(0).u8(0)),
        named("signer_answers_wrongly", keys().u8(0).u8(0).u8(9)),
        named(
            "another_ephemeral_with_a_copied_tag",
            keys().u8(0).u8(5).bytes(&another).u8(0),
        ),
        named(
            "misled_by_its_signer_and_a_copied_tag",
            keys().u8(0).u8(5).bytes(&misled).u8(9),
        ),
        named(
            "act_three_with_a_copied_tag",
            to_act_three().bytes(&[]).u8(5).bytes(&of_another_caller),
        ),
        named("encrypts_no_point", to_act_three().bytes(&[4; 33]).u8(0)),
        named(
            "encrypts_anothers_key",
            to_act_three().bytes(&bytes(vectors::RESPONDER_ID)).u8(0),
        ),
    ]);
    seeds
}

/// What another caller says to act two, whose act one was the same: that has the ephemeral key only.
fn act_three_of(s: u8, e: u8, rs: &PublicKey, act_two: &[u8]) -> [u8; 66] {
    let (mut caller, _) = Initiator::dial(secret(s), secret(e), rs);
    caller.act_two(act_two).unwrap();
    caller.act_three().0
}

fn firewall() -> Vec<Named> {
    let rows = [
        1, 2, 7, 16, 17, 18, 19, 32, 34, 64, 66, 77, 80, 127, 132, 136, 137, 256, 257, 258, 259,
        261, 262, 263, 264, 265, 513, 1000, 1001, 32_768, 32_769,
    ];
    let mut seeds = Vec::new();
    for kind in rows {
        let message = messages()
            .into_iter()
            .find(|(_, message)| message[..2] == u16::to_be_bytes(kind))
            .map_or_else(
                || [&kind.to_be_bytes()[..], &[0; 34]].concat(),
                |(_, message)| message,
            );
        for (facts, situation) in [(0, "live"), (1, "away"), (2, "persona")] {
            let seed = Seed::default().u8(facts).raw(&message);
            seeds.push(named(&format!("type_{kind}_{situation}"), seed));
        }
    }
    let observed = Seed::default().u8(0x41).raw(&[2, 1, 0, 0]);
    seeds.push(named("onion_message_observed", observed));
    seeds.push(named("before_init", Seed::default().u8(5).raw(&[1, 2])));
    seeds
}

fn handshake_differential() -> Vec<Named> {
    let start = |dials: u8, piece: u8| {
        Seed::default()
            .u8(dials)
            .u8(0x11)
            .u8(0x12)
            .u8(0x22)
            .u8(piece)
    };
    let ping = |seed: Seed, pong: u16| seed.u16(pong).u16(3).u8(1);
    let changed = |seed: Seed| seed.u16(8).u16(3).u8(0).u16(20).u8(1);
    let dialled = |piece| start(0, piece).u8(0).bytes(&[]).u8(0);
    // Acts that are right in themselves, and come from nobody who is there. Of acts two and three each is right for one end only.
    let node = public(&NODE);
    let (_, act_one) = Initiator::dial(secret(0x11), secret(9), &node);
    let (_, honest) = Initiator::dial(secret(0x11), secret(0x12), &node);
    let our_act_two = Responder::new(*NODE, secret(0x22))
        .act_one(&honest)
        .unwrap();
    let act_three = act_three_of(9, 0x12, &node, &our_act_two);
    let (_, our_act_one) = Initiator::dial(*NODE, secret(0x22), &public(&secret(0x11)));
    let act_two = Responder::new(secret(0x11), secret(9))
        .act_one(&our_act_one)
        .unwrap();
    vec![
        named(
            "dialled_with_a_copied_tag",
            start(0, 9).u8(5).bytes(&act_one).bytes(&[]).u8(0),
        ),
        named(
            "dialled_act_three_with_a_copied_tag",
            start(0, 9).u8(0).bytes(&[]).u8(5).bytes(&act_three),
        ),
        // The byte that is put into both is the one that ours had there.
        named(
            "dialled_act_three_changed_for_one",
            Seed(vec![0, 0, 2, 0x3b, 0xd0, 0, 0, 0, 2, 0x3b, 0xd0, 0x6a]),
        ),
        named(
            "dials_and_the_tag_is_copied",
            start(1, 9).u8(5).bytes(&act_two),
        ),
        named("dialled_honest", ping(ping(dialled(255), 8), 65_532)),
        named("dialled_byte_by_byte", ping(dialled(0), 65_531)),
        named("dialled_then_changed", changed(ping(dialled(49), 8))),
        named("dialled_wrong_version", start(0, 9).u8(1).u8(1)),
        named("dialled_foreign_ephemeral", start(0, 9).u8(6).u8(9)),
        named("dialled_flipped_tag", start(0, 9).u8(3).u16(40).u8(1)),
        named(
            "dialled_encrypts_no_point",
            start(0, 9).u8(0).bytes(&[4; 33]).u8(0),
        ),
        named(
            "dialled_act_three_flipped",
            start(0, 9).u8(0).bytes(&[]).u8(3).u16(60).u8(1),
        ),
        named("dials_honest", ping(start(1, 255).u8(0), 8)),
        named("dials_byte_by_byte", ping(start(1, 0).u8(0), 8)),
        named("dials_then_changed", changed(start(1, 20).u8(0))),
        named("dials_wrong_version", start(1, 9).u8(1).u8(1)),
        named("dials_flipped_tag", start(1, 9).u8(3).u16(40).u8(1)),
    ]
}

fn link_ops() -> Vec<Named> {
    let start = |facts: u8| Seed::default().u8(facts).u8(7).u8(1).u8(0);
    let message = |seed: Seed, away: u8, kind: u16| {
        seed.u8(0)
            .u8(away)
            .bytes(&[&kind.to_be_bytes()[..], &[0; 34]].concat())
    };
    let ping = |seed: Seed, pong: u16| seed.u8(2).u8(1).u16(pong).u8(0);
    // But those that would close the link.
    let of_every_type = |seed: Seed, away: u8| {
        let kinds = [
            1, 7, 18, 32, 34, 64, 128, 256, 257, 258, 261, 263, 265, 513, 1001, 32_769,
        ];
        let closing = |kind: u16| away == 1 && matches!(kind, 34 | 128);
        let kinds = kinds.into_iter().filter(|kind| !closing(*kind));
        kinds.fold(seed, |seed, kind| {
            let seed = message(seed, away, kind).u8(6).u8(away).u16(9000);
            seed.u8(10)
                .u8(away)
                .bytes(&[&kind.to_be_bytes()[..], &[0; 34]].concat())
        })
    };
    // Whole ones: one that is cut would end the link.
    let queries = |facts: u8| {
        let query = [&263_u16.to_be_bytes()[..], &[0; 40]].concat();
        (0..70).fold(start(facts), |seed, _| seed.u8(0).u8(1).bytes(&query))
    };
    let first = |message: &[u8]| Seed::default().u8(0).u8(7).u8(0).u8(0).bytes(message);
    // Bit 130, which no BOLT has assigned.
    let demanding = [&[0, 16, 0, 0, 0, 17, 4][..], &[0; 16]].concat();
    let idle = (0..4).fold(start(0), |seed, _| seed.u8(5).u8(0).u8(3).u8(0));
    let flood = (0..40).fold(start(0), |seed, _| ping(seed, 65_531));
    let refused = (0..20).fold(start(0), |seed, _| message(seed, 1, 32));
    let aged = (0..60).fold(start(16), |seed, _| {
        seed.u8(6).u8(1).u16(60_000).u8(3).u8(1)
    });
    vec![
        named("channel_message_live", message(start(0), 0, 34)),
        named("channel_message_away", message(start(0), 1, 34)),
        named("channel_message_persona", message(start(1), 0, 34)),
        named("reestablish_away", message(start(0), 1, 136)),
        named(
            "gossip_both_ways",
            message(start(0), 1, 258).u8(10).u8(1).bytes(&[1, 2]),
        ),
        named("pings_answered_for_hours", idle),
        named("ping_unanswered", start(0).u8(5).u8(0).u8(5).u8(0)),
        named("ping_flood", flood),
        named("warned_in_a_burst", refused),
        named("no_init", Seed::default().u8(0).u8(7).u8(5).u8(0)),
        named(
            "message_before_init",
            message(Seed::default().u8(0).u8(7), 0, 258),
        ),
        named("secrets_age", aged),
        named(
            "a_last_call_then_silence",
            start(0).u8(7).u8(0).u8(8).u8(0).u8(9).u8(0).u8(5).u8(0),
        ),
        named("every_type_in_turn_live", of_every_type(start(0), 0)),
        named("every_type_in_turn_away", of_every_type(start(0), 1)),
        named("every_type_in_turn_observed", of_every_type(start(8), 1)),
        named("every_type_in_turn_persona", of_every_type(start(1), 1)),
        named("every_type_in_turn_served", of_every_type(start(2), 1)),
        named("a_type_of_one_byte", start(0).u8(0).u8(0).bytes(&[1])),
        named("init_twice", start(0).u8(1).u8(0)),
        named(
            "init_too_long",
            first(&[&[0, 16, 16, 0][..], &[0; 4097]].concat()),
        ),
        named("init_cut", first(&[0, 16, 0])),
        named(
            "init_of_another_chain",
            first(&[&[0, 16, 0, 0, 0, 0, 1, 32][..], &[7; 32]].concat()),
        ),
        named("init_that_demands_the_unknown", first(&demanding)),
        named(
            "init_that_demands_what_we_also_know",
            Seed::default().u8(32).u8(7).u8(0).u8(0).bytes(&demanding),
        ),
        named("pong_malformed", start(0).u8(0).u8(0).bytes(&[0, 19, 0])),
        named("unknown_even", message(start(0), 0, 1000)),
        named("custom_even", message(start(4), 0, 32_768)),
        named("error_for_all_channels", message(start(0), 0, 17)),
        named("query_malformed", start(0).u8(0).u8(1).bytes(&[1, 7, 0])),
        named("query_flood", queries(0)),
        named("query_flood_served", queries(2)),
        named(
            "last_call_beside_a_ping",
            start(0).u8(7).u8(0).u8(8).u8(0).u8(3).u8(0),
        ),
    ]
}

/// Histories by seed, and short ones by hand: `want`, then whatever happens to links.
fn roster_ops() -> Vec<Named> {
    let want = |seed: Seed, peer: u8| seed.u8(0).u8(peer).u8(1).u8(0).u8(0);
    let progress = |seed: Seed| (0..12_u8).fold(seed, |seed, link| seed.u8(50).u8(link % 4).u8(9));
    let switch = |seed: Seed| seed.u8(20);
    let start = |facts: u8| Seed::default().u8(facts).u8(1).u8(1).u8(0);
    let four = |facts: u8| (0..4).fold(start(facts), want);
    let mut seeds = vec![
        named("wanted_before_a_signer", progress(switch(four(1)))),
        named(
            "lapse_and_return",
            progress(switch(progress(switch(progress(switch(four(1))))))),
        ),
        named("floor_under_personas", progress(four(9))),
        named(
            "strangers_at_the_door",
            (0..8).fold(switch(four(1)), |seed, peer| progress(seed.u8(40).u8(peer))),
        ),
        named("flapping", (0..20).fold(four(1), |seed, _| switch(seed))),
        named(
            "unwanted_while_dialling",
            switch(four(1)).u8(8).u8(0).u8(8).u8(1),
        ),
        named(
            "drained_in_the_middle",
            Seed::default()
                .u8(1)
                .u8(1)
                .u8(0)
                .u8(1)
                .raw(&progress(switch(four(1))).0[4..]),
        ),
    ];
    for number in 0..6_u64 {
        let mut random = fastrand::Rng::with_seed(number);
        let ops = std::iter::repeat_with(|| random.u8(..))
            .take(700)
            .collect::<Vec<u8>>();
        seeds.push((format!("history_{number}"), ops));
    }
    seeds
}

fn config() -> Vec<Named> {
    let id = vectors::INITIATOR_ID;
    let of = |name: &str, text: String| (name.to_owned(), text.into_bytes());
    vec![
        of(
            "every_setting",
            format!(
                "data_dir = \"/d\"\nlisten = \"127.0.0.1:9735\"\nadmin = \"[::1]:9736\"\nadmin_hosts = [\"node\"]\nscrape_needs_token = true\n\
             node_id = \"{id}\"\nkey_file = \"/k\"\nlog = \"json\"\nfirewall = \"observe\"\npeers_declared = true\nprotected = [\"192.0.2.0/24\"]\n\
             [signer]\nkind = \"gateway\"\nlisten = \"0.0.0.0:9740\"\nhosts = [\"a.example\"]\nliveness_window = \"3s\"\n\
             [vault]\nmax_session_age = \"30d\"\n[metrics]\nper_peer = true\n\
             [[peers]]\nid = \"{id}\"\naddresses = [\"192.0.2.7:9735\", \"[2001:db8::7]:9735\", \"a.example:9735\"]\ntag = \"gossip-only\"\nweight = 3\n"
            ),
        ),
        of("signer_as_a_word", "signer = \"embedded\"\n".into()),
        of("misspelt_key", "listne = \"127.0.0.1:1\"\n".into()),
        of(
            "misspelt_key_of_a_peer",
            format!("[[peers]]\nid = \"{id}\"\nadress = \"a:1\"\ntag = \"gossip-only\"\n"),
        ),
        of("wrong_type", "listen = 5\n".into()),
        of("no_toml", "listen = \"\n".into()),
        of(
            "window_too_short",
            "[signer]\nliveness_window = \"1ms\"\n".into(),
        ),
        of(
            "age_too_great",
            "[vault]\nmax_session_age = \"99999999999999999999d\"\n".into(),
        ),
        of(
            "network_of_nonsense",
            "protected = [\"192.0.2.0/99\"]\n".into(),
        ),
        of("node_id_of_nonsense", "\n\nnode_id = \"zz\"\n".into()),
        of(
            "peer_without_address",
            format!("[[peers]]\nid = \"{id}\"\ntag = \"channel-bearing\"\n"),
        ),
        of(
            "onion_peer",
            format!(
                "[[peers]]\nid = \"{id}\"\naddress = \"pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:9735\"\ntag = \"gossip-only\"\n"
            ),
        ),
    ]
}

fn book() -> Vec<Named> {
    let file = |name: &str, json: &str| (name.to_owned(), json.as_bytes().to_vec());
    vec![
        file(
            "lncli_listpeers",
            include_str!("../import/lncli-listpeers.json"),
        ),
        file(
            "lncli_listchannels",
            include_str!("../import/lncli-listchannels.json"),
        ),
        file(
            "lncli_describegraph",
            include_str!("../import/lncli-describegraph.json"),
        ),
        file(
            "lightning_cli_listpeers",
            include_str!("../import/lightning-cli-listpeers.json"),
        ),
        file(
            "lightning_cli_listpeerchannels",
            include_str!("../import/lightning-cli-listpeerchannels.json"),
        ),
        file("no_json", "{"),
        file("two_lists", "{ \"peers\": [], \"channels\": [] }"),
        file("deep", &"[".repeat(300)),
    ]
}
