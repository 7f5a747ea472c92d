//! The seeds of what is fuzzed of the signer and of those who speak to it.

use super::seeds::{Named, bytes, named};
use super::targets::feed::Seed;
use pilotlight::secret::Secret32;
use pilotlight::signer::gateway::{Caveat, Macaroon, Op, RootKey};
use std::time::Duration;

pub fn signer_stream() -> Vec<Named> {
    let start = || Seed::default().u16(3000);
    let registered = |agent: u8| start().u8(2).u8(agent);
    // An answer to the newest id, of a kind, and the verdict that it is right, and that the seat is free.
    let answer = |seed: Seed, kind: u8| seed.u8(0).u8(0).u8(3).u8(kind);
    let live = |agent: u8| answer(registered(agent), agent).u8(0).u8(0);
    let ask = |seed: Seed, kind: u8, class: u8| {
        let seed = seed.u8(3).u8(kind);
        if kind == 3 {
            seed.u16(5000)
        } else {
            seed.u8(class).u16(5000)
        }
    };
    let idle = (0..8).fold(live(0), |seed, _| seed.u8(6).u8(9).u16(900));
    let knock = |which: u8| {
        let mut random = fastrand::Rng::with_seed(u64::from(which));
        (0..20).fold(start(), |seed, _| {
            let rest = std::iter::repeat_with(|| random.u8(..)).take(200);
            seed.u8(12)
                .bytes(&[which].into_iter().chain(rest).collect::<Vec<u8>>())
        })
    };
    // Longer than its place is held, by a signer that lives and never answers.
    let patient = live(0).u8(3).u8(0).u8(0).u16(u16::MAX);
    let patient = (0..22).fold(patient, |seed, _| seed.u8(6).u8(9).u16(2900));
    let many = live(0).u8(4).u8(200).u8(0).u8(2).u16(5000);
    let message = bytes("08022a220a20")
        .into_iter()
        .chain([7; 32])
        .collect::<Vec<u8>>();
    vec![
        named("lnd_proves_and_answers", answer(ask(live(0), 0, 0), 0)),
        named("agent_proves_and_answers", answer(ask(live(1), 0, 1), 0)),
        named("proof_is_wrong", answer(registered(0), 0).u8(7)),
        named("refused_the_seat", answer(registered(0), 0).u8(0).u8(7)),
        named("registers_twice", registered(0).u8(2).u8(0)),
        named("answers_before_it_registers", answer(start(), 0)),
        named("answers_of_the_wrong_type", answer(ask(live(0), 0, 0), 2)),
        named("answers_twice", answer(answer(ask(live(0), 0, 0), 0), 0)),
        named(
            "answers_late",
            answer(ask(live(0), 0, 0).u8(6).u8(9).u16(5001), 0),
        ),
        named(
            "a_person_signs_slowly",
            answer(
                ask(ask(live(0), 3, 0), 0, 0)
                    .u8(9)
                    .u16(900)
                    .u8(0)
                    .u8(1)
                    .u8(3)
                    .u8(3)
                    .u8(7),
                0,
            ),
        ),
        named("asked_for_longer_than_a_place_is_held", patient),
        named("seat_contested", knock(0)),
        named("proofs_failed_and_forgiven", knock(1)),
        named("sources_that_ask_often", knock(2)),
        named("many_strangers", many.clone()),
        named("dies_with_much_in_flight", many.u8(9).u16(60_000)),
        named("silent", live(0).u8(8).u8(8).u8(8)),
        named("idle_and_alive", idle),
        named("contested_and_alive", answer(live(0).u8(7), 0).u8(0)),
        named("contested_and_dead", live(0).u8(7).u8(9).u16(2001)),
        named("taken_back", ask(live(0), 0, 0).u8(5).u8(0)),
        named("an_encoded_message", registered(0).u8(11).bytes(&message)),
        named("says_nothing", start().u8(8)),
    ]
}

pub fn agent_stream() -> Vec<Named> {
    let ours = |seed: Seed, id: u16, what: u8| seed.u8(0).u16(id).u8(what);
    let registered = || ours(Seed::default(), 1, 1);
    let answered = |seed: Seed| seed.u8(4).u8(9).u8(5).u8(0).u8(0).u8(6).u8(1);
    let many = |seed: Seed, how_many: u8, what: u8| seed.u8(2).u16(9).u8(how_many).u8(what);
    // An id, a point's key, and how the key is named: by its locator, and by nothing else or by its descriptor.
    let asked = |seed: Seed, locator: &[u8], beside: &[u8]| {
        let seed = seed.u8(1).raw(&[2, 0, 0, 0, 0, 0, 0, 0]).u8(3).u8(9);
        seed.raw(locator).raw(beside)
    };
    let encoded = |seed: Seed, hex: &str| seed.u8(3).bytes(&bytes(hex));
    let every_field = (0..16).fold(registered(), |seed, field| {
        ours(seed, 7, 3).u8(field).bytes(b"a transaction")
    });
    let waits = (0..20).fold(Seed::default(), |seed, failures| {
        seed.u8(7).u8(failures).raw(&[0xa5; 8])
    });
    let busy = (0..9).fold(registered(), |seed, _| many(seed, 255, 2));
    let running = (0..40).fold(registered(), |seed, key| ours(seed, 7, 5).u8(key));
    let point = format!("03{}", "00".repeat(32));
    vec![
        named("registered", registered()),
        named("registered_twice", ours(registered(), 1, 1)),
        named(
            "denied",
            ours(Seed::default(), 1, 2).bytes(b"another signer is there"),
        ),
        named(
            "denied_after_it_was_registered",
            ours(registered(), 1, 2).bytes(b"no"),
        ),
        named("denied_without_a_word", asked(Seed::default(), &[0], &[1])),
        named("pinged", ours(registered(), 2, 0).u8(6).u8(1)),
        named(
            "ecdh_as_lnd_asks_for_it",
            answered(ours(registered(), 2, 5).u8(3)),
        ),
        named(
            "proof_before_the_registration",
            answered(ours(Seed::default(), 2, 4).u8(3)),
        ),
        named("asked_for_signatures", every_field.u8(6).u8(3)),
        named(
            "the_holder_fails",
            ours(registered(), 2, 5).u8(3).u8(4).u8(1).u8(5).u8(0).u8(7),
        ),
        named(
            "node_key_by_locator",
            answered(asked(registered(), &[4], &[0])),
        ),
        named(
            "node_key_by_descriptor",
            answered(asked(registered(), &[0], &[3, 2, 4])),
        ),
        named("another_key_by_locator", asked(registered(), &[1, 1], &[0])),
        named("another_family", asked(registered(), &[2, 7], &[0])),
        named("negative_family", asked(registered(), &[3], &[0])),
        named(
            "another_key_by_descriptor",
            asked(registered(), &[0], &[3, 1, 0]),
        ),
        named(
            "two_names_for_one_key",
            asked(registered(), &[4], &[3, 2, 4]),
        ),
        named("unknown_request", asked(registered(), &[0], &[2])),
        named(
            "no_point",
            registered().u8(1).raw(&[2; 8]).u8(1).u8(0).u8(0),
        ),
        named(
            "pongs_overtake_answers",
            ours(running, 9, 0)
                .u8(4)
                .u8(33)
                .u8(5)
                .u8(0)
                .u8(0)
                .u8(6)
                .u8(1),
        ),
        named("busy", busy.u8(4).u8(255)),
        named(
            "does_not_read_its_pongs",
            many(many(registered(), 255, 0), 255, 0),
        ),
        named(
            "does_not_read_its_refusals",
            many(many(registered(), 255, 1), 255, 1),
        ),
        named("an_encoded_ping", encoded(Seed::default(), "08021801")),
        named(
            "an_encoded_ecdh",
            encoded(Seed::default(), &format!("080222230a21{point}")),
        ),
        named(
            "an_encoded_registration",
            encoded(Seed::default(), "080112040a021200"),
        ),
        named(
            "an_encoded_message_twice_over",
            encoded(Seed::default(), "0802180108032a00"),
        ),
        named("no_message", encoded(Seed::default(), "0a")),
        named(
            "points_of_the_greatest_byte",
            ours(ours(registered(), 2, 5).u8(0xff), 3, 4).u8(0xff),
        ),
        named("waits_before_dials", waits),
    ]
}

pub fn session_ops() -> Vec<Named> {
    let challenged = |seed: Seed| seed.u8(0).u8(9).u8(0);
    let answered = |seed: Seed, manner: u8| challenged(seed).u8(1).u8(0).u8(manner);
    let attached_to =
        |seed: Seed, ours: u8, manner: u8| answered(seed, 5).u8(3).u8(0).u8(ours).u8(manner);
    let live = || attached_to(Seed::default(), 0, 4);
    let asked = |seed: Seed| seed.u8(5).u8(3).u8(0);
    let looked = |seed: Seed| seed.u8(6).u8(0);
    let lapsed = |seed: Seed, reason: u8| seed.u8(10).u8(reason);
    let proved = |manner: u8| Seed::default().u8(2).u8(0).u8(manner);
    let wrong = (0..5).fold(Seed::default(), answered);
    let leases = (0..4).fold(live(), |seed, _| seed.u8(4));
    let returns = (0..9).fold(Seed::default(), |seed, reason| {
        lapsed(attached_to(seed, 0, 4).u8(4), reason)
    });
    vec![
        named("proved_and_attached", live()),
        named("proved_by_asking_it", proved(4).u8(3).u8(0).u8(0).u8(4)),
        named("proved_late", proved(1)),
        named("never_proved", proved(0)),
        named("refuses_to_prove", proved(3)),
        named(
            "another_nodes_signer_proves",
            Seed::default().u8(2).u8(7).u8(4),
        ),
        named(
            "another_nodes_signer_attaches",
            attached_to(Seed::default(), 7, 4),
        ),
        named("wrong_answers_to_challenges", wrong),
        named(
            "no_randomness",
            Seed::default().u8(0).u8(0).u8(0).u8(0).u8(0xff).u8(0),
        ),
        named(
            "proof_of_another_context",
            Seed::default()
                .u8(0)
                .u8(9)
                .u8(7)
                .u8(1)
                .u8(0)
                .u8(5)
                .u8(3)
                .u8(0)
                .u8(0)
                .u8(4),
        ),
        named("occupied", attached_to(live(), 0, 4)),
        named(
            "proof_of_the_last_epoch",
            lapsed(attached_to(answered(Seed::default(), 5), 0, 4), 1)
                .u8(3)
                .u8(0)
                .u8(0)
                .u8(4),
        ),
        named("leases_die_together", lapsed(leases, 3)),
        named("every_reason_and_a_return", returns),
        named("dropped", live().u8(8).u8(0)),
        named("ended_by_its_holder", live().u8(9).u8(6).u8(0)),
        named(
            "ended_twice",
            lapsed(lapsed(live(), 1), 2).u8(9).u8(6).u8(0),
        ),
        named("asked_and_answered", looked(asked(live()))),
        named(
            "asked_for_the_greatest_byte",
            looked(live().u8(5).u8(0xff).u8(0)),
        ),
        named("asked_and_away", looked(asked(Seed::default()))),
        named(
            "asked_and_refused",
            looked(asked(attached_to(Seed::default(), 0, 3))),
        ),
        named(
            "answered_in_time",
            looked(looked(asked(attached_to(Seed::default(), 0, 1)))),
        ),
        named(
            "answered_too_late",
            looked(lapsed(looked(asked(attached_to(Seed::default(), 0, 1))), 4)),
        ),
        named(
            "asked_in_a_session_before",
            looked(attached_to(
                lapsed(looked(asked(attached_to(Seed::default(), 0, 0))), 4),
                0,
                4,
            )),
        ),
        named(
            "given_up",
            looked(asked(attached_to(Seed::default(), 0, 0)))
                .u8(7)
                .u8(0),
        ),
        named("draining", attached_to(live().u8(11).u8(15), 0, 4)),
    ]
}

pub fn credentials() -> Vec<Named> {
    let root = RootKey::new(1, Secret32::build(|bytes| bytes.fill(1)));
    let mut macaroon = Macaroon::bake(&root, [9; 16], &[Op::remote_signer()]);
    for caveat in [
        Caveat::TimeBefore(Duration::from_secs(1)),
        Caveat::IpAddr([192, 0, 2, 1].into()),
    ] {
        macaroon.restrict(&caveat).unwrap();
    }
    let shown = macaroon.to_bytes();
    // Right wherever it is shown, as one with a copied signature is.
    let right = Macaroon::bake(&root, [9; 16], &[Op::remote_signer()]).to_bytes();
    let of = |what: u8, text: &[u8]| Seed::default().u8(what).raw(text);
    let third_party = [&shown[..shown.len() - 35], &[2, 1, b'x', 4, 1, b'y', 0, 0]].concat();
    // Both root keys, what it permits, its nonce, when and whence it is shown; then its caveats, and which bit is changed.
    let baked = |head: &[u8; 7], caveats: &[u8], flip: &[u8; 3]| {
        of(2, head)
            .u8(u8::try_from(caveats.len() / 3).unwrap())
            .raw(caveats)
            .raw(flip)
    };
    let ours = [1, 1, 1, 9, 10, 0, 1];
    let time = "time-before 2030-03-17T17:46:40";
    let certificate = |text: &[u8]| of(6, text);
    let key_file = |text: &[u8]| of(8, text);
    let order = format!("{}\n", "f".repeat(64));
    vec![
        named("macaroon", of(0, &shown)),
        named("macaroon_with_a_copied_signature", of(0, &right)),
        named("macaroon_cut", of(0, &shown[..60])),
        named("macaroon_of_another_version", of(0, &[1, 2, 3])),
        named(
            "macaroon_that_goes_on",
            of(0, &[&shown[..], b"more"].concat()),
        ),
        named("macaroon_with_a_third_party", of(0, &third_party)),
        named(
            "macaroon_with_too_many_caveats",
            of(0, &[&[2, 2, 1, 3, 0][..], &[2, 0, 0].repeat(33)].concat()),
        ),
        named(
            "macaroon_of_no_bakery",
            of(0, &[&[2, 2, 1, 9, 0, 0, 6, 32][..], &[7; 32]].concat()),
        ),
        named(
            "macaroon_with_a_short_signature",
            of(0, &[2, 2, 1, 3, 0, 0, 6, 3, 1, 2, 3]),
        ),
        named(
            "macaroon_with_a_long_length",
            of(0, &[2, 2, 0xff, 0xff, 0xff, 1]),
        ),
        named("macaroon_in_hex", of(1, macaroon.to_hex().as_bytes())),
        named("macaroon_in_no_hex", of(1, b"zz")),
        named("macaroon_too_long", of(1, &[b'0'; 8194])),
        named("macaroon_of_ours", baked(&ours, &[], &[0, 0, 0])),
        named(
            "macaroon_narrowed",
            baked(&ours, &[1, 20, 0, 1, 30, 0], &[100, 0, 3]),
        ),
        named("macaroon_expired", baked(&ours, &[1, 9, 0], &[2, 0, 0])),
        named(
            "macaroon_from_elsewhere",
            baked(&[1, 1, 1, 9, 10, 0, 3], &[0, 1, 0], &[5, 0, 0]),
        ),
        named(
            "macaroon_of_another_root_key",
            baked(&[1, 2, 1, 9, 10, 0, 1], &[], &[90, 0, 0]),
        ),
        named(
            "macaroon_for_something_else",
            baked(&[1, 1, 0, 9, 10, 0, 1], &[], &[90, 0, 0]),
        ),
        named(
            "macaroon_narrowed_often",
            baked(&ours, &[1, 20, 0].repeat(39), &[90, 0, 0]),
        ),
        named("caveat_of_a_time", of(3, format!("{time}Z").as_bytes())),
        named(
            "caveat_of_nanoseconds",
            of(3, format!("{time}.1234567891Z").as_bytes()),
        ),
        named(
            "caveat_east_of_greenwich",
            of(3, format!("{time}+05:30").as_bytes()),
        ),
        named(
            "caveat_west_of_greenwich",
            of(3, format!("{time}-05:30").as_bytes()),
        ),
        named(
            "caveat_of_no_fraction",
            of(3, format!("{time}.Z").as_bytes()),
        ),
        named(
            "caveat_before_the_epoch",
            of(3, b"time-before 1900-02-28T00:00:00Z"),
        ),
        named(
            "caveat_beyond_what_is_written",
            of(3, b"time-before 9999-12-31T23:59:59-23:59"),
        ),
        named(
            "caveat_of_a_leap_day",
            of(3, b"time-before 2024-02-29T00:00:00Z"),
        ),
        named(
            "caveat_of_no_leap_day",
            of(3, b"time-before 2023-02-29T00:00:00Z"),
        ),
        named(
            "caveat_in_april",
            of(3, b"time-before 2023-04-31T00:00:00Z"),
        ),
        named("caveat_of_an_address", of(3, b"ipaddr ::ffff:192.0.2.1")),
        named("caveat_of_another_bakery", of(3, b"declared username")),
        named(
            "pem",
            of(
                4,
                b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            ),
        ),
        named("pem_of_nothing", of(4, b"nothing")),
        named(
            "certificate_of_two_names",
            certificate(
                &[
                    &[2, 3, 4, 0][..],
                    b"node",
                    &[0, 192, 0, 2, 1, 30, 1, 2, 3, 4, 5, 0, 0, 1],
                ]
                .concat(),
            ),
        ),
        named(
            "certificate_with_an_address_of_16_bytes",
            certificate(
                &[
                    &[2, 1][..],
                    &[7; 16],
                    &[2, 2, 0, b'x', b'y', 60, 1, 2, 3, 4, 5, 1, 1, 0],
                ]
                .concat(),
            ),
        ),
        named(
            "certificate_of_a_long_name",
            certificate(
                &[
                    &[1, 3, 200, 0][..],
                    &[b'a'; 200],
                    &[30, 13, 2, 3, 4, 5, 0, 0, 1],
                ]
                .concat(),
            ),
        ),
        named(
            "der_of_an_endless_length",
            of(5, &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ),
        named(
            "der_of_a_length_of_lengths",
            of(5, &[0x30, 0x85, 0, 0, 0, 0, 1]),
        ),
        named("host", of(7, b"node.example")),
        named("host_with_a_port", of(7, b"node.example:9740")),
        named("host_of_an_address", of(7, b"2001:db8::1")),
        named("key_file", key_file(&[&[b'7'; 64][..], b"\r\n"].concat())),
        named("key_file_without_an_end_of_line", key_file(&[b'7'; 64])),
        named(
            "key_file_that_goes_on",
            key_file(&[&[b'7'; 64][..], b"\nand more"].concat()),
        ),
        named(
            "key_file_with_a_letter",
            key_file(&[&[b'7'; 63][..], b"g\n"].concat()),
        ),
        named("key_file_too_long", key_file(&[b'7'; 200])),
        named("key_file_of_zeros", key_file(&[b'0'; 64])),
        named("key_file_beyond_the_order", key_file(order.as_bytes())),
    ]
}
