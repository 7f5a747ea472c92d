//! The agent over real TLS on loopback: against a scripted watch-only node that behaves as lnd's does, and against Pilotlight's
//! own gateway.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/watch_only.rs"]
mod watch_only;

use pilotlight::clock::{Clock, ManualClock, SystemClock};
use pilotlight::limits;
use pilotlight::node_id::LocalKey;
use pilotlight::secret::{Secret32, SharedSecret};
use pilotlight::signer::agent::{Agent, AgentConfig, AgentState};
use pilotlight::signer::gateway::{
    Gateway, GatewayConfig, Macaroon, Op, RootKey, TlsFiles, TlsIdentity,
};
use pilotlight::signer::{
    EcdhCall, EcdhFuture, EmbeddedSigner, Purpose, Signer, SignerContext, SignerState, bind,
};
use pilotlight::telemetry::Telemetry;
use sha2::{Digest, Sha256};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use watch_only::rpc::registration_response::RegistrationResponseType;
use watch_only::rpc::sign_coordinator_request::SignRequestType;
use watch_only::rpc::sign_coordinator_response::SignResponseType;
use watch_only::rpc::{KeyDescriptor, KeyLocator, ProofRequest, SharedKeyRequest};
use watch_only::{Call, Certificate, Server};

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Every wait of these tests: generous, because only a hang reaches it.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("this hangs")
}

/// The files of an agent.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(certificate: &Certificate) -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        files.write("cert", certificate.pem.as_bytes());
        files.bake(1);
        files
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    /// A new macaroon; its hex.
    fn bake(&self, nonce: u8) -> String {
        let root = RootKey::new(0, Secret32::build(|bytes| bytes.fill(7)));
        let macaroon = Macaroon::bake(&root, [nonce; 16], &[Op::remote_signer()]);
        self.write("macaroon", &macaroon.to_bytes());
        macaroon.to_hex().to_string()
    }

    fn config(&self, server: SocketAddr) -> AgentConfig {
        AgentConfig {
            server: server.to_string(),
            certificate: self.folder.path().join("cert"),
            macaroon: self.folder.path().join("macaroon"),
        }
    }

    fn agent(&self, server: SocketAddr) -> Agent {
        self.agent_with(server, Arc::new(EmbeddedSigner::from_key(key(1))))
    }

    fn agent_with(&self, server: SocketAddr, signer: Arc<dyn Signer>) -> Agent {
        Agent::start(self.config(server), signer)
    }
}

async fn wait_for(agent: &Agent, wanted: impl FnMut(&AgentState) -> bool) -> AgentState {
    soon(agent.state().wait_for(wanted)).await.unwrap().clone()
}

/// The label under which the agent's last attempt ended.
async fn failure(agent: &Agent) -> (&'static str, String) {
    match wait_for(agent, |state| matches!(state, AgentState::Waiting { .. })).await {
        AgentState::Waiting {
            failure, detail, ..
        } => (failure, detail),
        other => panic!("{other:?}"),
    }
}

fn node_key_request(ephemeral: &LocalKey) -> SignRequestType {
    SignRequestType::SharedKeyRequest(SharedKeyRequest {
        ephemeral_pubkey: ephemeral.node_id().as_bytes().to_vec(),
        key_loc: None,
        key_desc: Some(KeyDescriptor {
            raw_key_bytes: key(1).node_id().as_bytes().to_vec(),
            key_loc: Some(KeyLocator {
                key_family: 6,
                key_index: 0,
            }),
        }),
    })
}

async fn next(call: &mut Call) -> (u64, SignResponseType) {
    let answer = soon(call.next()).await.expect("the stream goes on");
    (answer.ref_request_id, answer.sign_response_type.unwrap())
}

/// Its ECDH is done when the test says so.
struct Held {
    inner: EmbeddedSigner,
    asked: AtomicUsize,
    began: Notify,
    permits: Semaphore,
}

impl Held {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: EmbeddedSigner::from_key(key(1)),
            asked: AtomicUsize::new(0),
            began: Notify::new(),
            permits: Semaphore::new(0),
        })
    }
}

impl Signer for Held {
    fn node_id(&self) -> pilotlight::node_id::NodeId {
        self.inner.node_id()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        Box::pin(async move {
            self.asked.fetch_add(1, SeqCst);
            self.began.notify_one();
            self.permits.acquire().await.unwrap().forget();
            self.inner.ecdh(call).await
        })
    }
}

/// What lnd's watch-only side does, in its own bytes: a certificate with CA:TRUE, no headers before the registration has been
/// read, a node-key ECDH as lnd encodes it, a ping.
#[tokio::test]
async fn a_watch_only_lnd_is_served_byte_by_byte() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let macaroon = files.bake(2);
    let agent = files.agent(server.address);
    let mut call = soon(server.accept()).await;
    assert_eq!(call.metadata["macaroon"], macaroon.as_str());
    assert_eq!(call.metadata["content-type"], "application/grpc");
    assert_eq!(call.metadata["te"], "trailers");
    // ref_request_id 1, signer_registration { "registrationChallenge", "outboundSigner" }; our headers are still unsent.
    let registration = soon(call.next_bytes()).await.unwrap();
    let expected = format!(
        "080112270a15{}120e{}",
        hex(b"registrationChallenge"),
        hex(b"outboundSigner")
    );
    assert_eq!(hex(&registration), expected);
    assert_eq!(*agent.state().borrow(), AgentState::Registering);
    // request_id 1, registration_complete { signature "sig" }.
    call.send_bytes(&[0x08, 1, 0x12, 7, 0x0a, 5, 0x0a, 3, b's', b'i', b'g']);
    wait_for(&agent, |state| *state == AgentState::Attached).await;

    let ephemeral = key(3);
    let mut ecdh = vec![0x08, 2, 0x22, 76, 0x0a, 0x21];
    ecdh.extend_from_slice(ephemeral.node_id().as_bytes());
    ecdh.extend_from_slice(&[0x1a, 0x27, 0x0a, 0x21]);
    ecdh.extend_from_slice(key(1).node_id().as_bytes());
    ecdh.extend_from_slice(&[0x12, 0x02, 0x08, 0x06]);
    call.send_bytes(&ecdh);
    let answer = soon(call.next_bytes()).await.unwrap();
    let shared = ephemeral.ecdh(&key(1).point());
    assert_eq!(
        hex(&answer),
        format!("080222220a20{}", hex(shared.expose()))
    );

    call.send_bytes(&[0x08, 3, 0x18, 1]);
    assert_eq!(hex(&soon(call.next_bytes()).await.unwrap()), "08031801");
    let report = agent.stop().await;
    assert_eq!(
        (report.dials, report.attached, report.ecdh, report.pings),
        (1, 1, 1, 1)
    );
    // The end of the agent is the end of the stream.
    assert!(soon(call.next_bytes()).await.is_none());
}

#[tokio::test]
async fn everything_but_the_node_keys_ecdh_gets_a_signer_error_and_the_stream_goes_on() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let agent = files.agent(server.address);
    let mut call = soon(server.accept_registered()).await;
    let other = |key_loc, key_desc| {
        SignRequestType::SharedKeyRequest(SharedKeyRequest {
            ephemeral_pubkey: key(3).node_id().as_bytes().to_vec(),
            key_loc,
            key_desc,
        })
    };
    let node = Some(KeyLocator {
        key_family: 6,
        key_index: 0,
    });
    let descriptor = |raw: &LocalKey, key_family, key_index| {
        Some(KeyDescriptor {
            raw_key_bytes: raw.node_id().as_bytes().to_vec(),
            key_loc: Some(KeyLocator {
                key_family,
                key_index,
            }),
        })
    };
    let refused = [
        other(None, descriptor(&key(2), 6, 0)),
        other(None, descriptor(&key(1), 6, 1)),
        other(None, descriptor(&key(1), 0, 0)),
        other(node, descriptor(&key(1), 6, 0)),
        SignRequestType::SignMessageReq(bytes::Bytes::from_static(b"x")),
        SignRequestType::SignPsbtRequest(bytes::Bytes::new()),
        SignRequestType::MuSig2SignRequest(bytes::Bytes::new()),
    ];
    let count = refused.len() as u64;
    for (id, request) in (2..).zip(refused) {
        call.send(id, request);
    }
    // A kind that this agent has never heard of: field 500.
    call.send_bytes(&[0x08, 90, 0xa2, 0x1f, 0]);
    for id in (2..2 + count).chain([90]) {
        let (answered, answer) = next(&mut call).await;
        assert!(
            matches!(answer, SignResponseType::SignerError(_)),
            "{answer:?}"
        );
        assert_eq!(answered, id);
    }
    call.send(91, node_key_request(&key(3)));
    assert!(matches!(
        next(&mut call).await,
        (91, SignResponseType::SharedKeyResponse(_))
    ));
    let report = agent.report();
    assert_eq!(report.refused_key, 4);
    assert_eq!(report.refused_signing, 3);
    assert_eq!(report.refused_malformed, 1);
    assert_eq!(report.ecdh, 1);
}

#[tokio::test]
async fn a_ping_is_answered_while_four_hundred_ecdh_are_stuck() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let signer = Held::new();
    let agent = files.agent_with(server.address, signer.clone());
    let mut call = soon(server.accept_registered()).await;
    for id in 2..402 {
        call.send(id, node_key_request(&key(3)));
    }
    soon(signer.began.notified()).await;
    call.send(402, SignRequestType::Ping(true));
    assert_eq!(next(&mut call).await, (402, SignResponseType::Pong(true)));
    assert!(signer.asked.load(SeqCst) <= pilotlight::limits::AGENT_ECDH_AT_ONCE);
    signer.permits.add_permits(400);
    let mut answered: Vec<_> = Vec::new();
    while answered.len() < 400 {
        let (id, answer) = next(&mut call).await;
        assert!(matches!(answer, SignResponseType::SharedKeyResponse(_)));
        answered.push(id);
    }
    answered.sort_unstable();
    assert_eq!(answered, (2..402).collect::<Vec<_>>());
    assert_eq!(agent.report().ecdh, 400);
}

#[tokio::test]
async fn a_proof_is_bound_to_the_certificate_that_was_shown() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let agent = files.agent(server.address);
    let mut call = soon(server.accept()).await;
    assert_eq!(call.metadata["pilotlight-agent"], "1");
    let node = key(1).node_id().to_string();
    assert_eq!(call.metadata["pilotlight-node"], node.as_str());
    soon(call.next()).await.unwrap();
    // Before the registration is answered.
    call.send(
        2,
        SignRequestType::ProofRequest(ProofRequest {
            ephemeral_pubkey: key(3).node_id().as_bytes().to_vec(),
        }),
    );
    let (2, SignResponseType::ProofResponse(proof)) = next(&mut call).await else {
        panic!("no proof");
    };
    let shared: SharedSecret = key(3).ecdh(&key(1).point());
    let digest: [u8; 32] = Sha256::digest(&certificate.der).into();
    assert_eq!(proof.answer, bind(&shared, &digest).expose());
    let mut by_hand = Sha256::new();
    by_hand.update(b"pilotlight signer proof v1");
    by_hand.update(shared.expose());
    by_hand.update(digest);
    assert_eq!(proof.answer, by_hand.finalize().as_slice());
    assert_eq!(agent.report().proofs, 1);
}

#[tokio::test]
async fn another_certificate_is_refused_before_anything_is_said() {
    let (pinned, shown) = (
        Certificate::of_an_authority(),
        Certificate::of_an_authority(),
    );
    let server = Server::start(&shown).await;
    let files = Files::new(&pinned);
    let agent = files.agent(server.address);
    assert!(soon(server.accept_tls()).await.is_err());
    assert_eq!(failure(&agent).await.0, "other_certificate");
    // The right one, put into the same file, is found at the next dial.
    files.write("cert", shown.pem.as_bytes());
    let accepted = async {
        loop {
            if let Ok(stream) = server.accept_tls().await {
                return stream;
            }
        }
    };
    soon(accepted).await;
}

#[tokio::test]
async fn a_stream_that_ends_is_followed_by_another_with_the_macaroon_of_the_day() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let agent = files.agent(server.address);
    let first = soon(server.accept_registered()).await;
    wait_for(&agent, |state| *state == AgentState::Attached).await;
    let renewed = files.bake(9);
    drop(first);
    let mut second = soon(server.accept_registered()).await;
    assert_eq!(second.metadata["macaroon"], renewed.as_str());
    second.send(2, SignRequestType::Ping(true));
    assert_eq!(next(&mut second).await, (2, SignResponseType::Pong(true)));
    assert_eq!(agent.report().attached, 2);
}

/// lnd, when its wallet is not ready, takes a signer and hangs up; each time is an attach and a lapse for the whole node.
#[tokio::test]
async fn a_server_that_takes_the_signer_and_hangs_up_is_dialled_less_and_less() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let agent = files.agent(server.address);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let call = soon(server.accept_registered()).await;
        wait_for(&agent, |state| *state == AgentState::Attached).await;
        drop(call);
        match wait_for(&agent, |state| matches!(state, AgentState::Waiting { .. })).await {
            AgentState::Waiting { retry_in, .. } => waits.push(retry_in),
            other => panic!("{other:?}"),
        }
    }
    assert!(waits[3] >= 4 * limits::AGENT_BACKOFF_FIRST, "{waits:?}");
}

#[tokio::test]
async fn refusals_are_named_and_dialled_again() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let agent = files.agent(server.address);
    soon(server.accept()).await.deny(16, "no%0Asuch macaroon");
    let (label, detail) = failure(&agent).await;
    assert_eq!(label, "denied");
    assert!(
        detail.ends_with("unauthenticated: nosuch macaroon"),
        "{detail}"
    );

    let mut call = soon(server.accept()).await;
    soon(call.next()).await.unwrap();
    call.answer_registration(RegistrationResponseType::RegistrationError(
        "not you".into(),
    ));
    let rejected = |state: &AgentState| {
        matches!(
            state,
            AgentState::Waiting {
                failure: "rejected",
                ..
            }
        )
    };
    let AgentState::Waiting { detail, .. } = wait_for(&agent, rejected).await else {
        panic!("not waiting");
    };
    assert!(detail.ends_with("not you"), "{detail}");
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_said() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    files.write("macaroon", b"no macaroon");
    assert_eq!(failure(&files.agent(server.address)).await.0, "macaroon");
    files.write("cert", b"no certificate");
    assert_eq!(failure(&files.agent(server.address)).await.0, "credentials");
    std::fs::remove_file(files.folder.path().join("cert")).unwrap();
    let (label, detail) = failure(&files.agent(server.address)).await;
    assert_eq!(label, "credentials");
    assert!(detail.starts_with("no file at "), "{detail}");
}

/// Moves the clock on until the agent has seen what it should.
async fn advance_until(clock: &ManualClock, agent: &Agent, label: &'static str) {
    let mut state = agent.state();
    let moving = async {
        loop {
            clock.advance(Duration::from_secs(1));
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    };
    let seen = state.wait_for(
        |state| matches!(state, AgentState::Waiting { failure, .. } if *failure == label),
    );
    tokio::select! {
        seen = soon(seen) => drop(seen.unwrap()),
        () = moving => {}
    }
}

#[tokio::test]
async fn a_connection_that_went_silent_is_missed() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let clock = ManualClock::new();
    let signer = Arc::new(EmbeddedSigner::from_key(key(1)));
    let agent = Agent::start_with(
        files.config(server.address),
        signer,
        Arc::new(clock.clone()),
    );
    let mut call = soon(server.accept_registered()).await;
    wait_for(&agent, |state| *state == AgentState::Attached).await;
    call.freeze();
    advance_until(&clock, &agent, "silent").await;
}

#[tokio::test]
async fn a_server_that_never_answers_the_registration_is_left() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let clock = ManualClock::new();
    let signer = Arc::new(EmbeddedSigner::from_key(key(1)));
    let agent = Agent::start_with(
        files.config(server.address),
        signer,
        Arc::new(clock.clone()),
    );
    let mut call = soon(server.accept()).await;
    soon(call.next()).await.unwrap();
    advance_until(&clock, &agent, "late").await;
}

/// Panics on its first question, and answers the others.
struct Shaky {
    inner: EmbeddedSigner,
    asked: AtomicUsize,
}

impl Signer for Shaky {
    fn node_id(&self) -> pilotlight::node_id::NodeId {
        self.inner.node_id()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        assert!(self.asked.fetch_add(1, SeqCst) > 0, "the first question");
        self.inner.ecdh(call)
    }
}

#[tokio::test]
async fn a_panic_of_the_keys_holder_ends_the_stream_and_not_the_agent() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let signer = Shaky {
        inner: EmbeddedSigner::from_key(key(1)),
        asked: AtomicUsize::new(0),
    };
    let agent = files.agent_with(server.address, Arc::new(signer));
    let mut call = soon(server.accept_registered()).await;
    call.send(2, node_key_request(&key(3)));
    assert!(soon(call.next()).await.is_none(), "the stream is over");
    assert_eq!(failure(&agent).await.0, "signer_panicked");
    let mut call = soon(server.accept_registered()).await;
    call.send(2, node_key_request(&key(3)));
    assert!(matches!(
        next(&mut call).await,
        (2, SignResponseType::SharedKeyResponse(_))
    ));
}

#[tokio::test]
async fn p9_a_server_that_floods_and_does_not_read_is_left() {
    let certificate = Certificate::of_an_authority();
    let server = Server::start(&certificate).await;
    let files = Files::new(&certificate);
    let agent = files.agent(server.address);
    let mut call = soon(server.accept_registered()).await;
    for id in 2..20_002 {
        call.send(id, SignRequestType::Ping(true));
    }
    // Whichever bound is met first: that of the answers, or that of the small frames that HTTP/2 holds.
    let (label, detail) = failure(&agent).await;
    assert!(
        ["clogged", "http2", "hung_up"].contains(&label),
        "{label}: {detail}"
    );
}

/// A gateway of ours with fresh credentials, and the agent's files for it.
async fn gateway(context: &SignerContext) -> (Gateway, Files) {
    let folder = tempfile::tempdir().unwrap();
    let tls = TlsFiles::in_directory(folder.path());
    let now = SystemClock::new().unix();
    let (identity, _) = TlsIdentity::load_or_generate(&tls, &[], now).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let telemetry = Telemetry::new(Arc::clone(&clock));
    let config = GatewayConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        identity,
        root_key: RootKey::new(0, Secret32::build(|bytes| bytes.fill(7))),
        liveness_window: Duration::from_secs(60),
    };
    let gateway = Gateway::start(config, context.clone(), telemetry, clock)
        .await
        .unwrap();
    let files = Files { folder };
    files.write("cert", &std::fs::read(&tls.certificate).unwrap());
    files.bake(1);
    (gateway, files)
}

/// The agent's stream is the signer session: it begins with a proof that is bound to the gateway's certificate, carries bursts
/// of ECDH that are larger than what `h2` allows by default, and ends with the agent.
#[tokio::test]
async fn at_pilotlights_gateway_the_stream_is_the_signer_session() {
    const BURST: u8 = 250;
    let context = SignerContext::new(key(1).node_id());
    let (gateway, files) = gateway(&context).await;
    let signer = Held::new();
    // One permit for the proof.
    signer.permits.add_permits(1);
    let agent = files.agent_with(gateway.local_addr(), signer.clone());
    let mut state = context.subscribe();
    let live = |state: &SignerState| matches!(state, SignerState::Live(_));
    soon(state.wait_for(live)).await.unwrap();
    assert_eq!(agent.report().proofs, 1);
    let mut asked = tokio::task::JoinSet::new();
    for byte in 2..BURST {
        let context = context.clone();
        asked.spawn(async move {
            let (answer, lease) = context
                .ecdh(EcdhCall::new(key(byte).point(), Purpose::ChannelDial))
                .await
                .unwrap();
            assert!(lease.is_live() && answer.ct_eq(&key(byte).ecdh(&key(1).point())));
        });
    }
    soon(signer.began.notified()).await;
    signer.permits.add_permits(BURST.into());
    soon(asked.join_all()).await;
    assert_eq!(agent.report().ecdh, u64::from(BURST) - 2);
    soon(agent.stop()).await;
    let away = |state: &SignerState| matches!(state, SignerState::Away { .. });
    soon(state.wait_for(away)).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_stops_is_said_to_have_stopped_and_not_to_have_broken_tls() {
    let context = SignerContext::new(key(1).node_id());
    let (gateway, files) = gateway(&context).await;
    let agent = files.agent(gateway.local_addr());
    wait_for(&agent, |state| *state == AgentState::Attached).await;
    drop(gateway);
    let (label, detail) = failure(&agent).await;
    assert_eq!(label, "hung_up", "{detail}");
}

#[tokio::test]
async fn the_signer_of_another_node_never_attaches() {
    let context = SignerContext::new(key(2).node_id());
    let (gateway, files) = gateway(&context).await;
    let agent = files.agent(gateway.local_addr());
    let (label, detail) = failure(&agent).await;
    assert_eq!(label, "rejected");
    // In words, and whole: what the agent logs.
    let (ours, theirs) = (key(1).node_id(), key(2).node_id());
    let words =
        format!("the signer holds the key of node {ours}, this is node {theirs}; held off for 1 s");
    assert!(detail.ends_with(&words), "{detail}");
    assert_eq!(agent.report().proofs, 0, "it was not asked");
    assert_eq!(agent.report().attached, 0);
    assert_eq!(context.state(), SignerState::Never);
}
