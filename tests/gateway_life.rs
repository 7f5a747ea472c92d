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

use dialer::*;
use pilotlight::signer::LapseReason;
use pilotlight::signer::gateway::Macaroon;

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
    assert_eq!(state.live().map(pilotlight::signer::Epoch::get), Some(1));
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
