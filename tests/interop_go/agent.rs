//! The agent, with a watch-only node on grpc-go as its server.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pilotlight::clock::{Clock, Moment, Sleep, SystemClock};
use pilotlight::node_id::NodeId;
use pilotlight::signer::agent::{Agent, AgentConfig, AgentState};
use pilotlight::signer::{EcdhCall, EcdhFuture, EmbeddedSigner, Signer};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::dialer::{key, soon};
use crate::go::{Go, arguments};

/// A key that answers as often as it is allowed to.
struct Held {
    inner: EmbeddedSigner,
    permits: Semaphore,
    asked: AtomicUsize,
}

impl Held {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: EmbeddedSigner::from_key(key(7)),
            permits: Semaphore::new(permits),
            asked: AtomicUsize::new(0),
        })
    }
}

impl Signer for Held {
    fn node_id(&self) -> NodeId {
        self.inner.node_id()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        Box::pin(async move {
            self.asked.fetch_add(1, SeqCst);
            self.permits.acquire().await.unwrap().forget();
            self.inner.ecdh(call).await
        })
    }
}

/// The system's clock, so many times as fast.
struct Fast(SystemClock, u32);

impl Clock for Fast {
    fn now(&self) -> Moment {
        Moment::from_start(self.0.now().since_start() * self.1)
    }

    fn unix(&self) -> Duration {
        self.0.unix()
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        self.0
            .sleep_until(Moment::from_start(at.since_start() / self.1))
    }
}

/// The folder of a watch-only node, and that of its agent.
struct Folders {
    node: tempfile::TempDir,
    agent: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        Self {
            node: tempfile::tempdir().unwrap(),
            agent: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts a watch-only node; where it listens.
    async fn serve(&self, listen: &str) -> (Go, String) {
        let node = key(7).node_id().to_string();
        let folder = self.node.path().to_str().unwrap();
        let given = arguments(&["-listen", listen, "-folder", folder, "-node", &node]);
        let mut server = Go::start("watchonly", &given).await;
        let listening = server.expect("listening").await;
        let address = listening["address"].as_str().unwrap().to_owned();
        (server, address)
    }

    /// Hands the node's certificate and macaroon to the agent.
    fn hand_over(&self) {
        for name in ["signer.macaroon", "tls.cert"] {
            std::fs::copy(self.node.path().join(name), self.file(name)).unwrap();
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.agent.path().join(name)
    }

    fn config(&self, address: &str) -> AgentConfig {
        AgentConfig {
            server: address.to_owned(),
            certificate: self.file("tls.cert"),
            macaroon: self.file("signer.macaroon"),
        }
    }
}

async fn attached(agent: &Agent) {
    let mut state = agent.state();
    soon(
        "attached",
        state.wait_for(|state| *state == AgentState::Attached),
    )
    .await
    .unwrap();
}

/// How the agent's attempt ended that is over, or is over next.
async fn failure(agent: &Agent) -> (&'static str, String) {
    let mut state = agent.state();
    let waiting = state.wait_for(|state| matches!(state, AgentState::Waiting { .. }));
    match soon("an end", waiting).await.unwrap().clone() {
        AgentState::Waiting {
            failure, detail, ..
        } => (failure, detail),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn a_watch_only_node_on_grpc_go_is_served_and_its_pings_pass_two_hundred_ecdh() {
    let folders = Folders::new();
    let (mut server, address) = folders.serve("127.0.0.1:0").await;
    folders.hand_over();
    let signer = Held::new(0);
    let agent = Agent::start(folders.config(&address), signer.clone());
    // The server has sent nothing yet, not even headers.
    let registration = server.expect("registration").await;
    assert_eq!(registration["id"], 1);
    assert_eq!(registration["challenge"], "registrationChallenge");
    assert_eq!(registration["info"], "outboundSigner");
    assert_eq!(
        registration["secured"],
        json!({"alpn": "h2", "tls": 0x0304})
    );
    attached(&agent).await;

    server.tell("ecdh 200").await;
    server.expect("asked").await;
    let mut micros = Vec::new();
    for _ in 0..5 {
        server.tell("ping").await;
        let pong = server.expect("pong").await;
        assert_eq!(
            (&pong["pong"], &pong["outstanding"]),
            (&true.into(), &200.into()),
            "ahead of everything that the key has not answered: {pong}"
        );
        micros.push(pong["micros"].as_u64().unwrap());
    }
    micros.sort_unstable();
    println!(
        "pongs while 200 ECDH wait: {micros:?} µs; the key had been asked {}",
        signer.asked.load(SeqCst)
    );
    // lnd's limit; one that a crowded machine delayed is forgiven.
    assert!(micros[2] < 1_000_000, "{micros:?}");
    signer.permits.add_permits(200);
    let answered = server.expect("answered").await;
    assert_eq!(
        (&answered["right"], &answered["wrong"]),
        (&200.into(), &0.into())
    );

    // Then a key that is quick, and pings in the middle of it.
    signer.permits.add_permits(2000);
    server.tell("ecdh 1000").await;
    server.tell("ping").await;
    let pong = server.until("pong").await;
    println!("a pong among 1,000 ECDH: {pong}");
    let agent_report = agent.report();
    assert_eq!((agent_report.attached, agent_report.proofs), (1, 0));

    // lnd takes one signer only.
    let second = Agent::start(folders.config(&address), signer.clone());
    let (label, detail) = failure(&second).await;
    assert_eq!(label, "denied");
    assert!(
        detail.contains("only one remote signer can be connected"),
        "{detail}"
    );
    second.stop().await;
    assert_eq!(*agent.state().borrow(), AgentState::Attached);

    server.tell("close").await;
    server.until("registration").await;
    attached(&agent).await;
    let report = agent.stop().await;
    assert_eq!((report.attached, report.pings), (2, 6));
    server.until("gone").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn what_a_watch_only_node_must_not_get_is_refused_and_the_stream_goes_on() {
    let folders = Folders::new();
    let (mut server, address) = folders.serve("127.0.0.1:0").await;
    folders.hand_over();
    let agent = Agent::start(
        folders.config(&address),
        Arc::new(EmbeddedSigner::from_key(key(7))),
    );
    attached(&agent).await;
    server.expect("registration").await;
    server.tell("wrong").await;
    let own = "this signer answers for the node's own key only";
    let only = "this signer answers ECDH only";
    for (case, error) in [
        ("another raw key", own),
        ("another index", own),
        ("another family", own),
        ("both locators", "use either key_loc or key_desc, not both"),
        (
            "no point",
            "ephemeral_pubkey is not a compressed point of secp256k1",
        ),
        ("sign message", only),
        ("musig2 session", only),
        ("sign psbt", only),
        ("nothing", "this signer does not know this request"),
        ("the old locator", ""),
    ] {
        let answer = server.expect("answer").await;
        let secret = if error.is_empty() { 32 } else { 0 };
        assert_eq!(
            (&answer["case"], &answer["error"], &answer["secret"]),
            (&case.into(), &error.into(), &secret.into())
        );
    }
    server.expect("asked_all").await;
    server.tell("ecdh 500").await;
    let answered = server.until("answered").await;
    assert_eq!(answered["right"], 500);
    println!("500 ECDH for grpc-go: {answered}");
    let report = agent.stop().await;
    assert_eq!(
        (
            report.ecdh,
            report.refused_key,
            report.refused_signing,
            report.refused_malformed
        ),
        (501, 4, 3, 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn a_node_with_a_new_certificate_is_refused_until_the_agents_file_has_it() {
    let folders = Folders::new();
    let (mut server, address) = folders.serve("127.0.0.1:0").await;
    folders.hand_over();
    let agent = Agent::start(
        folders.config(&address),
        Arc::new(EmbeddedSigner::from_key(key(7))),
    );
    server.expect("registration").await;
    attached(&agent).await;
    server.kill().await;
    failure(&agent).await;

    let (mut server, _) = folders.serve(&address).await;
    let mut state = agent.state();
    let refused = state.wait_for(|state| {
        matches!(state, AgentState::Waiting { failure, .. } if *failure == "other_certificate")
    });
    soon("a refusal", refused).await.unwrap();
    assert_eq!(agent.report().attached, 1);
    // The certificate alone: then it is the server that refuses, in the words of Go's bakery.
    std::fs::copy(
        folders.node.path().join("tls.cert"),
        folders.file("tls.cert"),
    )
    .unwrap();
    let denied = server.expect("denied").await;
    let text = denied["error"].as_str().unwrap();
    assert!(text.contains("verification failed"), "{text}");
    let denied = state.wait_for(
        |state| matches!(state, AgentState::Waiting { failure, .. } if *failure == "denied"),
    );
    soon("a denial", denied).await.unwrap();
    folders.hand_over();
    server.until("registration").await;
    attached(&agent).await;
    server.tell("ecdh 1").await;
    assert_eq!(server.until("answered").await["right"], 1);
}

/// grpc-go breaks a connection on which PINGs come more often than lnd allows, which is every 5 s.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn the_agents_own_pings_are_no_abuse_to_grpc_go() {
    let folders = Folders::new();
    let (mut server, address) = folders.serve("127.0.0.1:0").await;
    folders.hand_over();
    let signer = Arc::new(EmbeddedSigner::from_key(key(7)));
    // Eight times as fast, to see that the server is the judge that it should be: it must not go on like that.
    let hasty = Agent::start_with(
        folders.config(&address),
        signer.clone(),
        Arc::new(Fast(SystemClock::new(), 8)),
    );
    server.until("registration").await;
    attached(&hasty).await;
    let (label, detail) = failure(&hasty).await;
    println!("PINGs every 1.25 s: {label}: {detail}");
    assert!(["http2", "hung_up"].contains(&label), "{label}: {detail}");
    hasty.stop().await;

    let agent = Agent::start(folders.config(&address), signer);
    server.until("registration").await;
    attached(&agent).await;
    // Four PINGs; grpc-go breaks the connection at the third too many. This waits for something not to happen.
    let mut state = agent.state();
    let over = state.wait_for(|state| *state != AgentState::Attached);
    let over = tokio::time::timeout(Duration::from_secs(42), over).await;
    assert!(over.is_err(), "{over:?}");
    server.tell("ping").await;
    assert_eq!(server.until("pong").await["pong"], true);
    assert_eq!(agent.report().attached, 1);
}
