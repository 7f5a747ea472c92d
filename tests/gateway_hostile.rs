//! Signers that misbehave, and strangers at the gateway's door: each is refused by name and counted, and the live session
//! is untouched. Real TLS on loopback.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/dialer.rs"]
mod dialer;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dialer::*;
use pilotlight::limits;
use pilotlight::node_id::Point;
use pilotlight::signer::gateway::{Caveat, Macaroon, Op};
use pilotlight::signer::{
    EcdhCall, EcdhError, Epoch, LapseReason, Purpose, SignerContext, SignerError,
};
use pilotlight::telemetry::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

type Asking = JoinHandle<Result<[u8; 32], EcdhError>>;

fn ask(context: &SignerContext, point: Point) -> Asking {
    let context = context.clone();
    tokio::spawn(async move {
        context
            .ecdh(EcdhCall::new(point, Purpose::ChannelDial))
            .await
            .map(|(secret, _)| *secret.expose())
    })
}

async fn answered(asking: Asking) -> Result<[u8; 32], EcdhError> {
    soon("an answer", asking).await.unwrap()
}

/// The session of epoch 1 is live and works.
async fn untouched(house: &House, signer: &mut Dialer) {
    assert_eq!(house.context.state().live().map(Epoch::get), Some(1));
    let point = key(200).point();
    let asking = ask(&house.context, point);
    let (id, asked) = signer.hear_ecdh().await;
    signer.say(&shared_key(id, 7, asked));
    assert_eq!(
        answered(asking).await.unwrap(),
        *key(7).ecdh(&point).expose()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_out_of_order_twice_to_unknown_ids_of_the_wrong_type_and_errors() {
    let mut house = House::open().await;
    let mut signer = house.attached().await;
    let mut askings = Vec::new();
    let mut requests = Vec::new();
    for number in 10..15 {
        let point = key(number).point();
        askings.push(ask(&house.context, point));
        requests.push(signer.hear_ecdh().await);
    }
    let odd = |event: &Event| match event {
        Event::SignerOdd { oddity } => Some(*oddity),
        _ => None,
    };
    // Out of order; twice; unknown.
    for at in [2, 0] {
        let (id, point) = requests[at];
        signer.say(&shared_key(id, 7, point));
    }
    let (id, point) = requests[2];
    signer.say(&shared_key(id, 7, point));
    assert_eq!(house.until("repeated", odd).await, "repeated");
    signer.say(&shared_key(4242, 7, point));
    assert_eq!(house.until("unknown", odd).await, "unknown_id");
    signer.say(&head(requests[1].0));
    assert_eq!(house.until("wrong", odd).await, "wrong_type");
    signer.say(&[]);
    assert_eq!(house.until("empty", odd).await, "empty");
    // A key of 31 bytes, and an error.
    signer.say(&shared_bytes(requests[3].0, &[1; 31]));
    signer.say(&signer_error(requests[4].0, "policy"));
    let mut results = Vec::new();
    for asking in askings {
        results.push(answered(asking).await);
    }
    assert_eq!(results[0], Ok(*key(7).ecdh(&key(10).point()).expose()));
    assert!(matches!(
        results[1],
        Err(EcdhError::Signer(SignerError::Malformed(_)))
    ));
    assert_eq!(results[2], Ok(*key(7).ecdh(&key(12).point()).expose()));
    assert!(matches!(
        results[3],
        Err(EcdhError::Signer(SignerError::Malformed(_)))
    ));
    assert!(matches!(
        results[4],
        Err(EcdhError::Signer(SignerError::Refused(_)))
    ));
    untouched(&house, &mut signer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_in_order_with_400_queued_is_no_lapse() {
    let house = House::with_window(Duration::from_secs(1)).await;
    let mut signer = house.attached().await;
    let askings: Vec<_> = (0..400)
        .map(|_| ask(&house.context, key(9).point()))
        .collect();
    let signing = tokio::spawn(async move {
        for _ in 0..400 {
            let (id, point) = signer.hear_ecdh().await;
            // Works for 5 ms, as a slow device does; its connection is another thread's.
            let work = tokio::task::spawn_blocking(move || {
                let began = Instant::now();
                let mut answer = Vec::new();
                while began.elapsed() < Duration::from_millis(5) {
                    answer = shared_key(id, 7, point);
                }
                answer
            });
            let answer = work.await.unwrap();
            signer.say(&answer);
        }
        signer
    });
    for asking in askings {
        assert!(answered(asking).await.is_ok());
    }
    let mut signer = soon("the signer", signing).await.unwrap();
    untouched(&house, &mut signer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_never_answers_is_stalled_and_not_lapsed() {
    let mut house = House::with_window(Duration::from_secs(1)).await;
    let mut signer = house.attached().await;
    let asking = ask(&house.context, key(9).point());
    let (id, point) = signer.hear_ecdh().await;
    let late = answered(asking).await;
    assert!(
        matches!(late, Err(EcdhError::Signer(SignerError::Unavailable(_)))),
        "{late:?}"
    );
    let stalled = |event: &Event| match event {
        Event::SignerStalled { stalled } => Some(*stalled),
        _ => None,
    };
    assert!(house.until("a stall", stalled).await);
    signer.say(&shared_key(id, 7, point));
    assert!(!house.until("its end", stalled).await);
    let odd = house.until("a late answer", |event| match event {
        Event::SignerOdd { oddity } => Some(*oddity),
        _ => None,
    });
    assert_eq!(odd.await, "late");
    untouched(&house, &mut signer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_door_are_refused_by_name_and_the_live_session_is_untouched() {
    let mut house = House::open().await;
    let mut signer = house.attached().await;
    let address = house.address();
    let h2: &[&[u8]] = &[b"h2"];

    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    tls(address, other.cert.der(), "127.0.0.1", h2)
        .await
        .expect_err("another certificate");
    assert_eq!(house.refusal().await, "tls_certificate_refused");
    tls(address, &house.certificate, "example.com", h2)
        .await
        .expect_err("another name");
    assert_eq!(house.refusal().await, "tls_certificate_refused");

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(house.refusal().await, "tls_plaintext");
    let mut rest = Vec::new();
    let _ = soon("the end", plain.read_to_end(&mut rest)).await;

    let _no_alpn = tls(address, &house.certificate, "127.0.0.1", &[]).await;
    assert_eq!(house.refusal().await, "tls_no_alpn");
    let _other_alpn = tls(address, &house.certificate, "127.0.0.1", &[b"http/1.1"]).await;
    assert_eq!(house.refusal().await, "tls_no_alpn");
    drop(TcpStream::connect(address).await.unwrap());
    assert_eq!(house.refusal().await, "tls_broken");

    untouched(&house, &mut signer).await;
}

/// Whoever breaks HTTP/2 with the very call is told of as that, before anybody has looked at the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_a_broken_frame_behind_it_is_refused_as_http2() {
    let mut house = House::open().await;
    let mut socket = tls(house.address(), &house.certificate, "127.0.0.1", &[b"h2"])
        .await
        .unwrap();
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    // GET / over https on stream 1; then DATA on stream 0, which there may not be (RFC 9113 § 6.1).
    let call = b"\0\0\x03\x01\x04\0\0\0\x01\x82\x84\x87";
    let broken = b"\0\0\x01\0\0\0\0\0\0\x07";
    let all = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        settings,
        call,
        broken,
    ]
    .concat();
    socket.write_all(&all).await.unwrap();
    socket.flush().await.unwrap();
    assert_eq!(house.refusal().await, "http2");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_macaroons_are_refused_by_name_with_a_status() {
    let mut house = House::open().await;
    let mut signer = house.attached().await;
    let mut expired = Macaroon::bake(&root(), [3; 16], &[Op::remote_signer()]);
    expired
        .restrict(&Caveat::TimeBefore(Duration::from_secs(1)))
        .unwrap();
    let mut elsewhere = Macaroon::bake(&root(), [3; 16], &[Op::remote_signer()]);
    elsewhere
        .restrict(&Caveat::IpAddr([192, 0, 2, 1].into()))
        .unwrap();
    let permission = Macaroon::bake(&root(), [3; 16], &[Op::new("offchain", "read")]);
    let mut forged = macaroon(3);
    forged.truncate(forged.len() - 2);
    forged.push_str("00");
    for (text, label, status) in [
        (None, "macaroon_missing", "status 16"),
        (Some("no hex".to_owned()), "macaroon_malformed", "status 16"),
        (Some("0201".to_owned()), "macaroon_malformed", "status 16"),
        (Some("00".repeat(6000)), "macaroon_malformed", "status 16"),
        (Some(forged), "macaroon_signature", "status 16"),
        (
            Some(expired.to_hex().to_string()),
            "macaroon_expired",
            "status 16",
        ),
        (
            Some(elsewhere.to_hex().to_string()),
            "macaroon_address",
            "status 7",
        ),
        (
            Some(permission.to_hex().to_string()),
            "macaroon_permission",
            "status 7",
        ),
    ] {
        let metadata: Vec<_> = text
            .iter()
            .map(|text| ("macaroon", text.as_str()))
            .collect();
        let mut caller = Dialer::call(house.address(), &house.certificate, &metadata).await;
        assert_eq!(caller.hear().await.unwrap_err(), status, "{label}");
        assert_eq!(house.refusal().await, label);
    }
    untouched(&house, &mut signer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_registrations_and_a_message_of_4_mib_are_refused_by_name() {
    let mut house = House::open().await;
    let mut signer = house.attached().await;
    let mut wrong_id = registration();
    wrong_id[1] = 2;
    let empty = [head(1), field(2, &[])].concat();
    for (first, label) in [
        (wrong_id, "registration_wrong"),
        (empty, "registration_wrong"),
        (Vec::new(), "registration_wrong"),
        (pong(1), "registration_wrong"),
        (vec![0; 4 << 20], "message_too_large"),
        (vec![0xff; 64], "message_malformed"),
    ] {
        let mut caller = house.dial().await;
        caller.say(&first);
        assert_eq!(house.refusal().await, label);
        if label == "registration_wrong" {
            let said = caller.hear().await.unwrap();
            assert_eq!(said[..3], [8, 1, 0x12], "registration_error");
            assert_eq!(said[4], 0x12, "its text");
        }
    }
    untouched(&house, &mut signer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_for_five_seconds_is_dropped_at_each_step() {
    let mut house = House::open().await;
    let mut signer = house.attached().await;
    let began = Instant::now();
    let _tcp = TcpStream::connect(house.address()).await.unwrap();
    let _tls = tls(house.address(), &house.certificate, "127.0.0.1", &[b"h2"])
        .await
        .unwrap();
    let _call = house.dial().await;
    let mut mute = house.dial().await;
    mute.say(&registration());
    let mut labels = Vec::new();
    for _ in 0..4 {
        labels.push(house.refusal().await);
    }
    labels.sort_unstable();
    assert_eq!(
        labels,
        ["http2_late", "proof_late", "registration_late", "tls_late"]
    );
    assert!(began.elapsed() >= Duration::from_secs(5));
    untouched(&house, &mut signer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signer_of_another_node_is_refused_named_and_held_off() {
    let mut house = House::open().await;
    let mut other = house.dial().await;
    other.register_as(8).await;
    // lnd's signer cannot say whose key it holds: which macaroon it came with is what the operator can follow.
    let (label, detail, shown) = house.named_refusal().await;
    assert_eq!(label, "proof_wrong");
    let node = key(7).node_id().to_string();
    assert!(
        detail.contains("another node's") && detail.contains(&node),
        "{detail}"
    );
    let mine = Macaroon::from_hex(&macaroon(1)).unwrap().name();
    assert_eq!(shown, mine.to_string());
    assert_eq!(other.hear().await.unwrap_err(), "status 7");
    assert!(house.context.state().live().is_none());
    let mut again = house.dial().await;
    again.say(&registration());
    assert_eq!(house.refusal().await, "held_off");
    let said = again.hear().await.unwrap();
    assert!(
        String::from_utf8_lossy(&said).contains("held off for"),
        "understood by lnd's signer"
    );
    // Another macaroon is another candidate.
    let metadata = [("macaroon", &*macaroon(2))];
    let mut right = Dialer::call(house.address(), &house.certificate, &metadata).await;
    right.register().await;
    house.until_live().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_node_is_refused_by_both_ids_before_anything_is_asked() {
    let mut house = House::open().await;
    let (ours, theirs) = (key(7).node_id().to_string(), key(8).node_id().to_string());
    for (label, code) in [("other_node", "status 7"), ("held_off", "status 7")] {
        let mut agent = house.dial_as_agent_of(8, 1).await;
        agent.say(&registration());
        let said = agent.hear().await.unwrap();
        assert_eq!(
            said[..3],
            [8, 1, 0x12],
            "registration_error, and no challenge"
        );
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(&ours) && said.contains(&theirs), "{said}");
        assert_eq!(agent.hear().await.unwrap_err(), code);
        let (failure, detail, _) = house.named_refusal().await;
        assert_eq!(failure, label);
        assert!(
            detail.contains(&ours) && detail.contains(&theirs),
            "{detail}"
        );
    }
    // The right agent with the same macaroon, on the same machine, is another candidate; so is one that says nothing.
    let mut right = house.dial_as_agent_of(7, 1).await;
    right.register_as_agent(7, &house.certificate).await;
    assert_eq!(right.hear().await.unwrap(), completed());
    // Who says that he is ours is asked all the same.
    let mut liar = house.dial_as_agent_of(7, 2).await;
    liar.register_as_agent(8, &house.certificate).await;
    assert_eq!(house.refusal().await, "proof_wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_answers_its_challenge_with_an_error_is_refused_in_its_own_words() {
    let mut house = House::open().await;
    let mut signer = house.dial().await;
    signer.say(&registration());
    assert_eq!(signer.hear().await.unwrap(), completed());
    let (id, _) = asked(&signer.hear().await.unwrap());
    signer.say(&signer_error(id, "wallet is locked"));
    let (label, detail, _) = house.named_refusal().await;
    assert_eq!(label, "proof_refused");
    assert!(detail.ends_with("wallet is locked"), "{detail}");
    assert_eq!(signer.hear().await.unwrap_err(), "status 7");
    let mut again = house.dial().await;
    again.say(&registration());
    assert_eq!(house.refusal().await, "held_off");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_healthy_signers_do_not_swap() {
    let mut house = House::open().await;
    let mut incumbent = house.attached().await;
    for nonce in [1, 2] {
        let metadata = [("macaroon", &*macaroon(nonce))];
        let mut newcomer = Dialer::call(house.address(), &house.certificate, &metadata).await;
        newcomer.register().await;
        // Challenged, the incumbent answers.
        let (id, point) = incumbent.hear_ecdh().await;
        incumbent.say(&shared_key(id, 7, point));
        let (label, detail, shown) = house.named_refusal().await;
        assert_eq!(label, "signer_conflict");
        let address = house.gateway.attached().unwrap().address.to_string();
        assert!(detail.contains(&address), "{detail}");
        let newcomers = Macaroon::from_hex(&macaroon(nonce)).unwrap().name();
        assert_eq!(shown, newcomers.to_string());
        assert_eq!(newcomer.hear().await.unwrap_err(), "status 6");
    }
    untouched(&house, &mut incumbent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_incumbent_is_replaced_by_the_signer_that_returns() {
    let mut house = House::open().await;
    let incumbent = house.attached().await;
    incumbent.fall_silent();
    let from = house.gateway.attached().unwrap().address;
    let mut returned = house.dial().await;
    returned.register().await;
    let mut states = house.context.subscribe();
    let second = states.wait_for(|state| state.live().is_some_and(|epoch| epoch.get() == 2));
    soon("the second epoch", second).await.unwrap();
    assert_eq!(
        house.context.last_lapse().unwrap().reason,
        LapseReason::TakenOver
    );
    let told = house.until("a take-over", |event| match event {
        Event::SignerTakenOver { from, to } => Some((*from, *to)),
        _ => None,
    });
    assert_eq!(
        told.await,
        (from, house.gateway.attached().unwrap().address)
    );
    let asking = ask(&house.context, key(9).point());
    let (id, point) = returned.hear_ecdh().await;
    returned.say(&shared_key(id, 7, point));
    assert!(answered(asking).await.is_ok());

    // At most one take-over a minute and macaroon.
    returned.fall_silent();
    let mut third = house.dial().await;
    third.register().await;
    assert_eq!(house.refusal().await, "take_over_too_soon");
    drop(incumbent);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incumbent_that_answers_its_challenge_wrongly_is_replaced() {
    let house = House::open().await;
    let mut incumbent = house.attached().await;
    let mut newcomer = house.dial().await;
    newcomer.register().await;
    let (id, point) = incumbent.hear_ecdh().await;
    incumbent.say(&shared_key(id, 8, point));
    let mut states = house.context.subscribe();
    let second = states.wait_for(|state| state.live().is_some_and(|epoch| epoch.get() == 2));
    soon("the second epoch", second).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_lapses_within_the_window_and_fails_what_is_in_flight() {
    let house = House::with_window(Duration::from_secs(1)).await;
    let mut signer = house.attached().await;
    let asking = ask(&house.context, key(9).point());
    signer.hear_ecdh().await;
    signer.fall_silent();
    assert_eq!(house.until_away().await, LapseReason::LivenessLost);
    assert!(matches!(
        answered(asking).await,
        Err(EcdhError::SignerAway(_))
    ));
    house.attached().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_in_flight_and_waiting_at_a_drop_all_hear_that_the_signer_is_away() {
    let house = House::open().await;
    let mut signer = house.attached().await;
    let askings: Vec<_> = (0..400)
        .map(|_| ask(&house.context, key(9).point()))
        .collect();
    for _ in 0..limits::ECDH_IN_FLIGHT_FIRST {
        signer.hear_ecdh().await;
    }
    let all_asked = async {
        while house.context.ecdh_in_flight() < askings.len() {
            tokio::task::yield_now().await;
        }
    };
    soon("the others wait", all_asked).await;
    drop(signer);
    for asking in askings {
        // Not that it is unavailable: its session was over before anybody was told.
        let failed = answered(asking).await;
        assert!(
            matches!(failed, Err(EcdhError::SignerAway(_))),
            "{failed:?}"
        );
    }
    assert_eq!(house.until_away().await, LapseReason::StreamClosed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_is_closed_and_has_sent_nothing_malformed() {
    let mut house = House::open().await;
    for reason in [
        h2::Reason::PROTOCOL_ERROR,
        h2::Reason::INTERNAL_ERROR,
        h2::Reason::CANCEL,
    ] {
        let mut signer = house.attached().await;
        signer.reset(reason);
        assert_eq!(house.until_away().await, LapseReason::StreamClosed);
    }
    // What is malformed is still named.
    let mut signer = house.attached().await;
    signer.say(&[0xff; 64]);
    assert_eq!(house.refusal().await, "message_malformed");
    assert_eq!(house.until_away().await, LapseReason::SignerError);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_incumbent_keeps_its_place_through_contests_that_overlap() {
    let mut house = House::open().await;
    let mut incumbent = house.attached().await;
    let askings: Vec<_> = (0..4)
        .map(|number| ask(&house.context, key(20 + number).point()))
        .collect();
    let mut row = VecDeque::new();
    for _ in 0..4 {
        row.push_back(incumbent.hear_ecdh().await);
    }
    // It answers in order and is behind: one is enough for each contest, and the challenges come last.
    for nonce in [1, 2] {
        let metadata = [("macaroon", &*macaroon(nonce))];
        let mut newcomer = Dialer::call(house.address(), &house.certificate, &metadata).await;
        newcomer.register().await;
        row.push_back(incumbent.hear_ecdh().await);
        let (id, point) = row.pop_front().unwrap();
        incumbent.say(&shared_key(id, 7, point));
        assert_eq!(house.refusal().await, "signer_conflict");
    }
    let metadata = [("macaroon", &*macaroon(3))];
    let mut newcomer = Dialer::call(house.address(), &house.certificate, &metadata).await;
    newcomer.register().await;
    row.push_back(incumbent.hear_ecdh().await);
    for (id, point) in row {
        incumbent.say(&shared_key(id, 7, point));
    }
    assert_eq!(house.refusal().await, "signer_conflict");
    for asking in askings {
        answered(asking).await.unwrap();
    }
    untouched(&house, &mut incumbent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapse_on_request_ends_the_stream_and_the_signer_may_come_back() {
    let house = House::open().await;
    let mut signer = house.attached().await;
    assert!(house.context.lapse(LapseReason::Requested).is_some());
    loop {
        match signer.hear().await {
            Ok(_) => {}
            Err(end) => {
                assert_eq!(end, "status 0", "after completion: redial in a second");
                break;
            }
        }
    }
    house.attached().await;
    drop(house.gateway);
    let mut states = house.context.subscribe();
    soon("away", states.wait_for(|state| state.live().is_none()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_newcomers_are_bounded_and_do_not_keep_out_who_is_in() {
    let mut house = House::open().await;
    let mut signer = house.attached().await;
    let mut crowd = Vec::new();
    for _ in 0..40 {
        crowd.push(TcpStream::connect(house.address()).await.unwrap());
    }
    for _ in 0..40 - pilotlight::limits::GATEWAY_NEWCOMERS_PER_SOURCE {
        assert_eq!(house.refusal().await, "newcomers_full");
    }
    untouched(&house, &mut signer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_strangers_meet_their_bucket_before_the_signer_is_asked_and_channel_peers_do_not() {
    let mut house = House::open().await;
    let mut signer = house.attached().await;
    let inbound = |source: [u8; 4]| {
        let source = source.into();
        let call = EcdhCall::new(key(9).point(), Purpose::Inbound { source });
        let context = house.context.clone();
        tokio::spawn(async move { context.ecdh(call).await.map(|_| ()) })
    };
    let burst = pilotlight::limits::ECDH_SOURCE_BURST;
    let from_one: Vec<_> = (0..burst).map(|_| inbound([127, 0, 0, 9])).collect();
    for _ in 0..burst {
        signer.hear_ecdh().await;
    }
    let error = soon("a refusal", inbound([127, 0, 0, 9]))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        error,
        EcdhError::Signer(SignerError::Overloaded("source".into()))
    );
    let scope = house.until("throttled", |event| match event {
        Event::EcdhThrottled { scope } => Some(*scope),
        _ => None,
    });
    assert_eq!(scope.await, "source");
    // From everywhere: as many as half of the places in flight reach the signer, and as many again wait as may.
    let inbound = |source: [u8; 4]| {
        let call = EcdhCall::new(
            key(9).point(),
            Purpose::Inbound {
                source: source.into(),
            },
        );
        let context = house.context.clone();
        tokio::spawn(async move { context.ecdh(call).await.map(|_| ()) })
    };
    let flood: Vec<_> = (0..40)
        .flat_map(|a| (0..50).map(move |b| [127, 1, a, b]))
        .map(inbound)
        .collect();
    let taken = pilotlight::limits::ECDH_IN_FLIGHT_FIRST / 2
        + pilotlight::limits::SIGNER_QUEUE_STRANGERS
        - burst as usize;
    for _ in 0..flood.len() - taken {
        let scope = house.until("throttled", |event| match event {
            Event::EcdhThrottled { scope } => Some(*scope),
            _ => None,
        });
        assert_eq!(scope.await, "strangers");
    }
    for asking in from_one.into_iter().chain(flood) {
        asking.abort();
    }
    // A channel peer's place was free all the time.
    let asking = ask(&house.context, key(200).point());
    let right = loop {
        let (id, point) = signer.hear_ecdh().await;
        if point == key(200).point() {
            break (id, point);
        }
    };
    signer.say(&shared_key(right.0, 7, right.1));
    assert!(answered(asking).await.is_ok());
}
