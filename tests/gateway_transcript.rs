//! The exact bytes between the gateway and lnd's signer, over real TLS: registration, proof, ECDH, ping, error, pass-through.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/dialer.rs"]
mod dialer;

use bytes::Bytes;
use dialer::*;
use pilotlight::error::Retry;
use pilotlight::signer::gateway::PassError;
use pilotlight::signer::{EcdhCall, EcdhError, LapseReason, Purpose, SignerError};

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lnds_signer_sends_and_expects_byte_for_byte() {
    let house = House::open().await;
    let mut signer = house.dial().await;
    let registration = registration();
    assert_eq!(
        hex(&registration),
        "080112270a15726567697374726174696f6e4368616c6c656e6765120e6f7574626f756e645369676e6572"
    );
    signer.say(&registration);
    let complete = signer.hear().await.unwrap();
    assert_eq!(hex(&complete), "080112110a0f120d77617463684f6e6c794e6f6465");
    assert!(house.context.state().live().is_none(), "no proof yet");

    let challenge = signer.hear().await.unwrap();
    let node = hex(key(7).node_id().as_bytes());
    let text = hex(&challenge);
    assert_eq!(
        text[..12],
        *"0802224c0a21",
        "id 2, shared_key_request, ephemeral_pubkey"
    );
    assert_eq!(
        text[78..],
        format!("1a270a21{node}12020806"),
        "key_desc, and no key_loc beside it"
    );
    let (id, point) = asked(&challenge);
    signer.say(&shared_key(id, 7, point));
    house.until_live().await;

    let context = house.context.clone();
    let peer = key(9).point();
    let asking = tokio::spawn(async move {
        context
            .ecdh(EcdhCall::new(peer, Purpose::GossipDial))
            .await
            .map(|(secret, _)| *secret.expose())
    });
    let request = signer.hear().await.unwrap();
    assert_eq!(
        hex(&request),
        format!("0803224c0a21{}1a270a21{node}12020806", hex(peer.as_bytes()))
    );
    let secret = *key(7).ecdh(&peer).expose();
    let answer = shared_bytes(3, &secret);
    assert_eq!(hex(&answer), format!("080322220a20{}", hex(&secret)));
    signer.say(&answer);
    assert_eq!(soon("the answer", asking).await.unwrap().unwrap(), secret);

    let context = house.context.clone();
    let asking = tokio::spawn(async move {
        context
            .ecdh(EcdhCall::new(peer, Purpose::GossipDial))
            .await
            .map(|_| ())
    });
    let (id, _) = asked(&signer.hear().await.unwrap());
    assert_eq!(id, 4, "ids go up");
    let refusal = signer_error(4, "no");
    assert_eq!(hex(&refusal), "080472040a026e6f");
    signer.say(&refusal);
    let error = soon("the refusal", asking).await.unwrap().unwrap_err();
    assert_eq!(error, EcdhError::Signer(SignerError::Refused("no".into())));

    signer.hang_up();
    assert_eq!(house.until_away().await, LapseReason::StreamClosed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_signer_is_pinged_and_its_pong_is_life() {
    let house = House::with_window(std::time::Duration::from_secs(1)).await;
    let mut signer = house.attached().await;
    let ping = signer.hear().await.unwrap();
    assert_eq!(hex(&ping), "08031801");
    signer.say(&pong(3));
    let next = signer.hear().await.unwrap();
    assert_eq!(hex(&next), "08041801", "pinged again: it lives on");
    assert!(house.context.is_live());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_own_requests_pass_through_unread() {
    let house = House::open().await;
    let handle = house.gateway.handle();
    let body = Bytes::from_static(&[0x0a, 2, 1, 2]);
    let error = handle.sign_message(body.clone()).await.unwrap_err();
    assert!(
        matches!(error, PassError::SignerAway(_)),
        "at once: {error}"
    );

    let mut signer = house.attached().await;
    let asking = tokio::spawn({
        let (handle, body) = (handle.clone(), body.clone());
        async move { handle.musig2_cleanup(body).await }
    });
    assert_eq!(hex(&signer.hear().await.unwrap()), "080362040a020102");
    signer.say(&[&head(3)[..], &[0x62, 0]].concat());
    assert_eq!(
        soon("cleanup", asking).await.unwrap(),
        Ok(Bytes::new()),
        "empty, and present"
    );

    // In flight at a drop: MuSig2 fails, signing a message is repeated on the next session.
    let musig = tokio::spawn({
        let (handle, body) = (handle.clone(), body.clone());
        async move { handle.musig2_sign(body).await }
    });
    assert_eq!(hex(&signer.hear().await.unwrap()), "080452040a020102");
    let message = tokio::spawn(async move { handle.sign_message(body).await });
    assert_eq!(hex(&signer.hear().await.unwrap()), "08052a040a020102");
    signer.hang_up();
    let error = soon("musig2", musig).await.unwrap().unwrap_err();
    assert_eq!(error, PassError::Interrupted);
    assert_eq!(error.retry(), Retry::Never);
    house.until_away().await;
    let mut signer = house.attached().await;
    assert_eq!(hex(&signer.hear().await.unwrap()), "08032a040a020102");
    signer.say(&[&head(3)[..], &[0x2a, 2, 9, 9]].concat());
    let answer = soon("sign_message", message).await.unwrap();
    assert_eq!(answer, Ok(Bytes::from_static(&[9, 9])));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_agent_proves_itself_before_it_is_told_that_it_is_in_bound_to_the_certificate() {
    let mut house = House::open().await;
    for (seen, right) in [
        (b"another one".to_vec(), false),
        (house.certificate.clone(), true),
    ] {
        // The hold-off of the first attempt is for this macaroon; the second agent has another.
        let nonce = if right { 2 } else { 1 };
        let mut agent = house.dial_as_agent(&house.certificate, nonce).await;
        agent.register_as_agent(7, &seen).await;
        if right {
            assert_eq!(agent.hear().await.unwrap(), completed());
            assert!(house.context.is_live());
        } else {
            let denied = agent.hear().await.unwrap();
            assert_eq!(denied[..3], [8, 1, 0x12], "registration_error");
            assert_eq!(house.refusal().await, "proof_wrong");
            assert!(!house.context.is_live());
        }
    }
}
