//! The life of a gateway: its certificate is renewed, its signers come back, contend and flap. Real TLS on loopback.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/dialer.rs"]
mod dialer;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use dialer::*;
use pilotlight::clock::{Clock, ManualClock, Moment, Sleep, SystemClock};
use pilotlight::limits;
use pilotlight::signer::gateway::{Caveat, Macaroon, Op, PassError};
use pilotlight::signer::{EcdhCall, Epoch, LapseReason, Purpose};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_for_later_connections_and_a_proof_for_the_one_that_was_shown() {
    let mut house = House::open().await;
    let before = house.certificate.clone();
    // Called before the renewal, proves itself after it: what it was shown counts.
    let mut early = house.dial_as_agent(&before, 1).await;
    let renewed = identity();
    let (after, expires) = (renewed.certificate().to_vec(), renewed.expires());
    house.gateway.renew(renewed);
    assert_eq!(house.gateway.certificate_expires(), expires);
    early.register_as_agent(7, &before).await;
    assert_eq!(early.hear().await.unwrap(), completed());
    house.until_live().await;

    tls(house.address(), &before, "127.0.0.1", &[b"h2"])
        .await
        .expect_err("the old certificate is shown no more");
    assert_eq!(house.refusal().await, "tls_certificate_refused");
    // The connection that was open is not touched: it is the signer, and answers.
    let state = house.context.state();
    assert_eq!(state.live().map(Epoch::get), Some(1));
    early.hang_up();
    house.until_away().await;

    let mut outdated = house.dial_as_agent(&after, 2).await;
    outdated.register_as_agent(7, &before).await;
    assert_eq!(house.refusal().await, "proof_wrong");
    let mut late = house.dial_as_agent(&after, 3).await;
    late.register_as_agent(7, &after).await;
    assert_eq!(late.hear().await.unwrap(), completed());
    house.until_live().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_attached_can_be_told() {
    let house = House::open().await;
    assert_eq!(house.gateway.attached(), None);
    let mut agent = house.dial_as_agent(&house.certificate, 9).await;
    agent.register_as_agent(7, &house.certificate).await;
    house.until_live().await;
    let attached = house.gateway.attached().unwrap();
    assert!(attached.is_agent);
    assert!(attached.address.ip().is_loopback());
    let shown = Macaroon::from_hex(&macaroon(9)).unwrap();
    assert_eq!(attached.macaroon, shown.name());
    let name = attached.macaroon.to_string();
    assert!(name.ends_with(" of root key 0"), "{name}");
    assert_ne!(
        name,
        Macaroon::from_hex(&macaroon(8)).unwrap().name().to_string()
    );

    agent.hang_up();
    house.until_away().await;
    assert_eq!(house.gateway.attached(), None);
    let _lnd = house.attached().await;
    assert!(!house.gateway.attached().unwrap().is_agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_attached_signer_sends_and_nobody_can_read_ends_its_session_by_name() {
    let mut house = House::open().await;
    for (message, label) in [
        (vec![0; 4 << 20], "message_too_large"),
        (vec![0xff; 64], "message_malformed"),
    ] {
        let mut signer = house.attached().await;
        signer.say(&message);
        assert_eq!(house.until_away().await, LapseReason::SignerError);
        assert_eq!(house.refusal().await, label);
    }
}

/// A signer whose window holds registration and challenge, and then nothing more: it answers PINGs and reads nothing.
async fn attached_with_a_full_window(house: &House) -> Dialer {
    let metadata = [("macaroon", &*macaroon(1))];
    let mut signer =
        Dialer::call_with_window(house.address(), &house.certificate, &metadata, 150).await;
    signer.stop_reading();
    signer.register().await;
    house.until_live().await;
    signer
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_a_signer_that_reads_nothing_is_hung_up_on_after_its_session() {
    let house = House::open().await;
    let mut signer = attached_with_a_full_window(&house).await;
    let context = house.context.clone();
    let asking = tokio::spawn(async move {
        let call = EcdhCall::new(key(9).point(), Purpose::ChannelDial);
        context.ecdh(call).await.map(|_| ())
    });
    // It is larger than what the window has left: it lies there, and its deadline passes.
    assert!(soon("an end", asking).await.unwrap().is_err());
    assert!(house.context.is_live(), "its PINGs are acknowledged");
    house.context.lapse(LapseReason::Requested);
    signer.until_closed().await;
    house.attached().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_the_nodes_requests_to_a_signer_that_reads_nothing_are_bounded_in_bytes() {
    let house = House::open().await;
    let _signer = attached_with_a_full_window(&house).await;
    let handle = house.gateway.handle();
    let body = Bytes::from(vec![0; limits::GATEWAY_MESSAGE_MAX]);
    let mut taken = 0;
    let refusal = loop {
        // Asked, and not waited for: the caller has lost patience, the bytes are still there.
        tokio::select! {
            biased;
            answer = handle.sign_psbt(body.clone()) => break answer.unwrap_err(),
            () = std::future::ready(()) => taken += 1,
        }
        assert!(taken <= 40, "{taken} MiB and no end");
    };
    assert_eq!(refusal, PassError::Overloaded);
    let most = limits::SIGNING_IN_FLIGHT;
    assert!((most..=most + 2).contains(&taken), "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_request_can_be_answered_by_more_than_it_holds() {
    let house = House::open().await;
    let mut signer = house.attached().await;
    let handle = house.gateway.handle();
    let body = Bytes::from(vec![0; limits::GATEWAY_MESSAGE_MAX]);
    let asking = tokio::spawn(async move { handle.sign_psbt(body).await });
    assert!(signer.hear().await.unwrap().len() > limits::GATEWAY_MESSAGE_MAX);
    let longer = vec![1; 2 * limits::GATEWAY_MESSAGE_MAX];
    signer.say(&[head(3), field(13, &longer)].concat());
    let answer = soon("the answer", asking).await.unwrap();
    assert_eq!(answer.map(|answer| answer.len()), Ok(longer.len()));
    assert_eq!(house.context.state().live().map(Epoch::get), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_brings_its_signer_down_is_repeated_once_and_one_that_breaks_the_protocol_never()
 {
    let house = House::open().await;
    let ask = || {
        let handle = house.gateway.handle();
        tokio::spawn(async move { handle.sign_psbt(Bytes::from_static(b"poison")).await })
    };
    // It hangs up on it, each time.
    let mut signer = house.attached().await;
    let asking = ask();
    signer.hear().await.unwrap();
    signer.hang_up();
    house.until_away().await;
    let mut signer = house.attached().await;
    signer.hear().await.unwrap();
    signer.hang_up();
    let answer = soon("the end", asking).await.unwrap();
    assert_eq!(answer, Err(PassError::Interrupted));
    house.until_away().await;

    // Its answer cannot be read.
    let mut signer = house.attached().await;
    let asking = ask();
    signer.hear().await.unwrap();
    signer.say(&vec![0; 4 << 20]);
    let answer = soon("the end", asking).await.unwrap();
    assert_eq!(answer, Err(PassError::Interrupted));
    assert_eq!(house.until_away().await, LapseReason::SignerError);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_a_request_is_given_back_once_it_is_on_its_way() {
    let house = House::open().await;
    let mut signer = house.attached().await;
    let handle = house.gateway.handle();
    let body = Bytes::from(vec![0; limits::GATEWAY_MESSAGE_MAX]);
    for id in 3..3 + 2 * limits::SIGNING_IN_FLIGHT as u64 {
        let asking = tokio::spawn({
            let (handle, body) = (handle.clone(), body.clone());
            async move { handle.sign_psbt(body).await }
        });
        assert!(signer.hear().await.unwrap().len() > limits::GATEWAY_MESSAGE_MAX);
        signer.say(&[head(id), field(13, b"signed")].concat());
        let answer = soon("the answer", asking).await.unwrap();
        assert_eq!(answer, Ok(Bytes::from_static(b"signed")));
    }
}

/// The way of a signer behind a NAT that forgets it again and again: same macaroon, its old connection half-open each time. It
/// takes over once in the minute, and is in again as soon as its dead predecessor has lapsed by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_flaps_is_locked_out_for_no_longer_than_the_liveness_window() {
    let house = House::with_window(Duration::from_secs(3)).await;
    let mut incumbent = house.attached().await;
    let mut reasons = Vec::new();
    for epoch in 2..=4 {
        incumbent.fall_silent();
        incumbent = loop {
            let mut returned = house.dial().await;
            returned.register().await;
            match returned.hear().await {
                // Refused: it redials, as signers do.
                Err(status) => assert_eq!(status, "status 6"),
                Ok(ping) => {
                    assert_eq!(
                        ping[ping.len() - 2..],
                        [0x18, 1],
                        "idle and pinged: attached"
                    );
                    break returned;
                }
            }
        };
        reasons.push(house.until_epoch(epoch).await);
    }
    let taken_over = reasons
        .iter()
        .filter(|reason| **reason == LapseReason::TakenOver);
    assert!(taken_over.count() <= 1, "{reasons:?}");
    let by_itself = reasons
        .iter()
        .filter(|reason| **reason == LapseReason::LivenessLost);
    assert!(by_itself.count() >= 2, "{reasons:?}");
}

/// Strangers sit on every place that they can have; the signer that was here before comes in all the same.
#[tokio::test(flavor = "multi_thread")]
async fn p9_a_crowd_at_the_door_does_not_keep_out_the_signer_that_returns() {
    let mut house = House::open().await;
    house.attached().await.hang_up();
    house.until_away().await;
    let mut crowd = Vec::new();
    for last in 2..2 + u8::try_from(limits::GATEWAY_NEWCOMERS).unwrap() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        crowd.push(socket.connect(house.address()).await.unwrap());
    }
    for _ in 0..limits::GATEWAY_NEWCOMERS_RESERVED {
        assert_eq!(house.refusal().await, "newcomers_full");
    }
    house.attached().await;
    drop(crowd);
}

/// A signer that nobody knows yet: the daemon has just been started again, or its address is a new one.
#[tokio::test(flavor = "multi_thread")]
async fn p9_a_crowd_at_the_door_does_not_keep_out_a_signer_that_was_never_here() {
    let house = House::with_clock(Arc::new(Still::default())).await;
    let mut crowd = Vec::new();
    for last in 2..5 {
        for _ in 0..limits::GATEWAY_NEWCOMERS_PER_SOURCE {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, last], 0).into()).unwrap();
            crowd.push(socket.connect(house.address()).await.unwrap());
        }
    }
    house.attached().await;
    drop(crowd);
}

/// Behind a proxy or Tor all are one source.
#[tokio::test(flavor = "multi_thread")]
async fn p9_a_crowd_from_the_signers_own_address_does_not_keep_it_out() {
    let house = House::with_clock(Arc::new(Still::default())).await;
    let mut crowd = Vec::new();
    for _ in 0..limits::GATEWAY_NEWCOMERS {
        crowd.push(TcpStream::connect(house.address()).await.unwrap());
    }
    house.attached().await;
    drop(crowd);
}

/// A call without a macaroon, to this path, from somebody who then acknowledges nothing.
async fn call_and_linger(house: &House, path: &str) -> TlsStream<TcpStream> {
    let mut socket = tls(house.address(), &house.certificate, "127.0.0.1", &[b"h2"])
        .await
        .unwrap();
    let mut headers = vec![0x83, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
    headers.extend(path.as_bytes());
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let call = [
        &preface[..],
        &frame(4, 0, 0, &[]),
        &frame(1, 4, 1, &headers),
    ]
    .concat();
    socket.write_all(&call).await.unwrap();
    socket
}

const METHOD: &str = "/watchonlyrpc.WatchOnly/SignCoordinatorStreams";

/// No deadline ever passes: what is closed is closed for another reason.
#[tokio::test(flavor = "multi_thread")]
async fn p9_denied_calls_that_linger_are_as_few_as_newcomers_may_be() {
    /// As many as are all told.
    const CALLS: usize = limits::GATEWAY_REFUSAL_EVENTS as usize;
    let mut house = House::with_clock(Arc::new(Still::default())).await;
    let mut signer = house.attached().await;
    let mut closed = JoinSet::new();
    for number in 0..CALLS {
        let path = if number % 2 == 0 { METHOD } else { "/no/such" };
        let mut socket = call_and_linger(&house, path).await;
        closed.spawn(async move {
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest).await;
        });
        let denied = house.refusal().await;
        assert!(
            ["macaroon_missing", "wrong_call"].contains(&denied),
            "{denied}"
        );
    }
    for _ in 0..CALLS - limits::GATEWAY_NEWCOMERS_PER_SOURCE {
        soon("a connection's end", closed.join_next())
            .await
            .unwrap()
            .unwrap();
    }
    assert!(closed.try_join_next().is_none());
    serves(&house, &mut signer).await;
}

/// Who comes and goes gives his place back: whoever stays is not pushed out for him, a stranger or a caller.
#[tokio::test(flavor = "multi_thread")]
async fn p9_whoever_leaves_the_door_gives_his_place_back() {
    let mut house = House::with_clock(Arc::new(Still::default())).await;
    let stranger = TcpStream::connect(house.address()).await.unwrap();
    let mut signer = house.dial().await;
    signer.until_taken().await;
    for _ in 0..3 * limits::GATEWAY_NEWCOMERS_PER_SOURCE {
        drop(TcpStream::connect(house.address()).await.unwrap());
        assert_eq!(house.refusal().await, "tls_broken");
    }
    for _ in 0..2 * limits::GATEWAY_CALLERS {
        let mut caller = house.dial().await;
        caller.say(&pong(1));
        assert_eq!(house.refusal().await, "registration_wrong");
        while caller.hear().await.is_ok() {}
    }
    let unread = stranger.try_read(&mut [0]).unwrap_err();
    assert_eq!(unread.kind(), std::io::ErrorKind::WouldBlock, "it stands");
    signer.register().await;
    house.until_live().await;
}

/// Reads frames of HTTP/2 until one of this kind with these flags.
async fn until_frame(socket: &mut TlsStream<TcpStream>, kind: u8, flags: u8) {
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        socket.read_exact(&mut payload).await.unwrap();
        if head[3..5] == [kind, flags] {
            return;
        }
    }
}

/// Goes as far as that step of the gateway's, whose time has begun when this returns; no further.
async fn idle_at(step: &str, house: &House, clock: &ManualClock) -> Box<dyn Any> {
    match step {
        "tls_late" => {
            let socket = TcpStream::connect(house.address()).await.unwrap();
            let waits = async {
                while clock.sleepers() == 0 {
                    tokio::task::yield_now().await;
                }
            };
            soon("a newcomer", waits).await;
            Box::new(socket)
        }
        "http2_late" | "call_late" => {
            let shaken = tls(house.address(), &house.certificate, "127.0.0.1", &[b"h2"]);
            let mut socket = shaken.await.unwrap();
            // It says its settings first.
            until_frame(&mut socket, 4, 0).await;
            if step == "call_late" {
                let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
                socket.write_all(preface).await.unwrap();
                socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
                // It acknowledges ours once it waits for the call.
                until_frame(&mut socket, 4, 1).await;
            }
            Box::new(socket)
        }
        _ => {
            let mut dialer = house.dial().await;
            dialer.until_taken().await;
            if step == "proof_late" {
                dialer.say(&registration());
                assert_eq!(dialer.hear().await.unwrap(), completed());
                asked(&dialer.hear().await.unwrap());
            }
            Box::new(dialer)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_a_newcomer_has_five_seconds_for_each_step_and_not_a_moment_more() {
    const MOMENT: Duration = Duration::from_millis(1);
    for step in [
        "tls_late",
        "http2_late",
        "call_late",
        "registration_late",
        "proof_late",
    ] {
        let clock = ManualClock::new();
        let mut house = House::with_clock(Arc::new(clock.clone())).await;
        let idle = idle_at(step, &house, &clock).await;
        clock.advance(limits::GATEWAY_STEP_DEADLINE.saturating_sub(MOMENT));
        // The first to be refused is one that has just come.
        let mut other = TcpStream::connect(house.address()).await.unwrap();
        other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(house.refusal().await, "tls_plaintext", "{step}: too soon");
        clock.advance(MOMENT);
        assert_eq!(house.refusal().await, step);
        drop(idle);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_something_else_is_refused_by_name() {
    let mut house = House::open().await;
    for path in ["/no/such", "/lnrpc.State/SubscribeState", "*"] {
        let _socket = call_and_linger(&house, path).await;
        assert_eq!(house.refusal().await, "wrong_call", "{path}");
    }
}

/// Lapses, attaches and the signers' own refusals are in the same stream of events.
#[tokio::test(flavor = "multi_thread")]
async fn p9_a_flood_at_the_door_is_told_in_part_and_does_not_drown_the_refusal_of_a_signer() {
    let mut house = House::with_clock(Arc::new(Still::default())).await;
    let mut crowd = Vec::new();
    let most = usize::try_from(limits::GATEWAY_REFUSAL_EVENTS).unwrap();
    for _ in 0..2 * most + limits::GATEWAY_NEWCOMERS_PER_SOURCE {
        crowd.push(TcpStream::connect(house.address()).await.unwrap());
    }
    let mut expired = Macaroon::bake(&root(), [3; 16], &[Op::remote_signer()]);
    expired
        .restrict(&Caveat::TimeBefore(Duration::from_secs(1)))
        .unwrap();
    let metadata = [("macaroon", &**expired.to_hex())];
    let mut caller = Dialer::call(house.address(), &house.certificate, &metadata).await;
    caller.hear().await.unwrap_err();
    let mut told = 0;
    while house.refusal().await == "newcomers_full" {
        told += 1;
    }
    assert_eq!(told, most);
}

/// A clock that stands: no deadline passes.
#[derive(Default)]
struct Still(SystemClock);

impl Clock for Still {
    fn now(&self) -> Moment {
        Moment::START
    }

    fn unix(&self) -> Duration {
        self.0.unix()
    }

    fn sleep_until(&self, _: Moment) -> Sleep {
        Box::pin(std::future::pending())
    }
}

/// A clock that panics once, in whoever asks it next.
struct Trap {
    clock: SystemClock,
    armed: Arc<AtomicBool>,
}

impl Clock for Trap {
    fn now(&self) -> Moment {
        assert!(!self.armed.swap(false, SeqCst), "the trap closes");
        self.clock.now()
    }

    fn unix(&self) -> Duration {
        self.clock.unix()
    }

    fn sleep_until(&self, deadline: Moment) -> Sleep {
        self.clock.sleep_until(deadline)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_streams_driver_is_a_lapse_and_the_gateway_goes_on() {
    let armed = Arc::new(AtomicBool::new(false));
    let trap = Trap {
        clock: SystemClock::new(),
        armed: Arc::clone(&armed),
    };
    let house = House::with_clock(Arc::new(trap)).await;
    let mut signer = house.attached().await;
    armed.store(true, SeqCst);
    // The driver, and nobody else, asks for the time when a message comes.
    signer.say(&[]);
    assert_eq!(house.until_away().await, LapseReason::Panicked);
    signer.until_closed().await;
    house.attached().await;
}

/// The signer of epoch 1 is live and works.
async fn serves(house: &House, signer: &mut Dialer) {
    let asking = tokio::spawn({
        let context = house.context.clone();
        async move {
            let call = EcdhCall::new(key(9).point(), Purpose::ChannelDial);
            context.ecdh(call).await.map(|_| ())
        }
    });
    let (id, point) = signer.hear_ecdh().await;
    signer.say(&shared_key(id, 7, point));
    assert_eq!(soon("an answer", asking).await.unwrap(), Ok(()));
    assert_eq!(house.context.state().live().map(Epoch::get), Some(1));
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}
