//! The gateway, dialled by a signer on grpc-go.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use pilotlight::clock::{Clock, SystemClock};
use pilotlight::node_id::{LocalKey, Point};
use pilotlight::secret::Secret32;
use pilotlight::signer::gateway::{
    Caveat, Macaroon, Op, PassError, RootKey, TlsFiles, TlsIdentity,
};
use pilotlight::signer::{EcdhCall, Epoch, LapseReason, Purpose};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::dialer::{House, key, root, soon};
use crate::go::{Go, arguments};

/// A gateway, and the files that its operator gives to a signer.
struct Site {
    house: House,
    folder: tempfile::TempDir,
}

impl Site {
    async fn open(window: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles::in_directory(folder.path());
        let (identity, _) =
            TlsIdentity::load_or_generate(&files, &[], SystemClock::new().unix()).unwrap();
        let site = Self {
            house: House::with_identity(identity, window).await,
            folder,
        };
        site.write("macaroon", &bake(1, &root(), Op::remote_signer(), None));
        site
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, macaroon: &Macaroon) {
        std::fs::write(self.file(name), macaroon.to_bytes()).unwrap();
    }

    /// How the signer of this key is started; later arguments of a name replace earlier ones.
    fn arguments(&self, key: u8, more: &[&str]) -> Vec<String> {
        let port = self.house.address().port();
        let mut arguments = arguments(&[
            "-server",
            &format!("localhost:{port}"),
            "-cert",
            self.file("signer.cert").to_str().unwrap(),
            "-macaroon",
            self.file("macaroon").to_str().unwrap(),
            "-key",
            &format!("{key:02x}").repeat(32),
            // lnd gives 5 s; a crowded machine may need more.
            "-timeout",
            "30s",
        ]);
        arguments.extend(more.iter().map(|&more| more.to_owned()));
        arguments
    }

    async fn signer(&self, key: u8, more: &[&str]) -> Go {
        Go::start("signer", &self.arguments(key, more)).await
    }

    async fn attached(&self) -> (Go, Epoch) {
        let mut signer = self.signer(7, &[]).await;
        signer.expect("registered").await;
        self.house.until_live().await;
        (signer, self.epoch().unwrap())
    }

    fn epoch(&self) -> Option<Epoch> {
        self.house.context.state().live()
    }

    /// The label of the next refusal of a call. grpc-go dials again as soon as a connection is over, and gives that up when its
    /// program closes the channel: such connections are refused too, at whatever point they had come to.
    async fn refusal(&mut self) -> &'static str {
        loop {
            match self.house.refusal().await {
                "tls_broken" | "http2" | "no_call" => {}
                label => return label,
            }
        }
    }

    fn never_was_live(&self) -> bool {
        self.epoch().is_none() && self.house.context.last_lapse().is_none()
    }

    async fn until_next_epoch(&self, last: Epoch) {
        let mut states = self.house.context.subscribe();
        let next = states.wait_for(|state| state.live().is_some_and(|epoch| epoch > last));
        soon("the next session", next).await.unwrap();
    }

    async fn ecdh(&self, point: Point) -> [u8; 32] {
        let call = EcdhCall::new(point, Purpose::GossipDial);
        let (secret, _) = self.house.context.ecdh(call).await.unwrap();
        *secret.expose()
    }
}

fn bake(nonce: u8, root: &RootKey, op: Op, caveat: Option<Caveat>) -> Macaroon {
    let mut macaroon = Macaroon::bake(root, [nonce; 16], &[op]);
    if let Some(caveat) = caveat {
        macaroon.restrict(&caveat).unwrap();
    }
    macaroon
}

fn peer(number: u16) -> LocalKey {
    let mut scalar = [3; 32];
    scalar[..2].copy_from_slice(&number.to_be_bytes());
    LocalKey::from_bytes(&mut scalar).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn a_grpc_go_signer_attaches_answers_five_hundred_ecdh_and_is_missed_when_it_is_killed() {
    let site = Site::open(Duration::from_secs(20)).await;
    let mut signer = site.signer(7, &[]).await;
    let registered = signer.expect("registered").await;
    assert_eq!(registered["info"], "watchOnlyNode");
    assert_eq!(registered["secured"], json!({"alpn": "h2", "tls": 0x0304}));
    site.house.until_live().await;
    let first = site.epoch().unwrap();
    let ask = |number| {
        let call = EcdhCall::new(peer(number).point(), Purpose::GossipDial);
        let context = site.house.context.clone();
        async move { (number, *context.ecdh(call).await.unwrap().0.expose()) }
    };
    // In a row, then all at once: more than may be in flight.
    for number in 0..20 {
        assert_eq!(
            ask(number).await.1,
            *key(7).ecdh(&peer(number).point()).expose()
        );
    }
    let began = std::time::Instant::now();
    let mut asking: JoinSet<_> = (20..500).map(ask).collect();
    while let Some(answer) = soon("an answer", asking.join_next()).await {
        let (number, secret) = answer.unwrap();
        assert_eq!(secret, *key(7).ecdh(&peer(number).point()).expose());
    }
    println!("480 ECDH at once: {:?}", began.elapsed());
    // What the signer saw: the challenge and 500 requests, each id once, in the order of lnd's own.
    let node = key(7).node_id().to_string();
    for id in 2..=502 {
        let asked = signer.expect("ecdh").await;
        assert_eq!(
            (&asked["id"], &asked["family"], &asked["index"]),
            (&id.into(), &6.into(), &0.into())
        );
        assert_eq!(asked["raw"], node.as_str());
    }
    signer.kill().await;
    assert_eq!(site.house.until_away().await, LapseReason::StreamClosed);
    let call = EcdhCall::new(peer(1).point(), Purpose::GossipDial);
    assert!(site.house.context.ecdh(call).await.is_err());

    let (_signer, second) = site.attached().await;
    assert!(second > first);
    let point = peer(1).point();
    assert_eq!(site.ecdh(point).await, *key(7).ecdh(&point).expose());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn the_nodes_own_requests_reach_a_typed_signer_and_come_back() {
    let site = Site::open(Duration::from_secs(20)).await;
    let (_signer, _) = site.attached().await;
    let handle = site.house.gateway.handle();
    // SignMessageReq { msg = "hello", key_loc { 6, 0 } } → SignMessageResp { signature }.
    let request = Bytes::from_static(b"\x0a\x05hello\x12\x02\x08\x06");
    let answer = soon("a signature", handle.sign_message(request)).await;
    assert_eq!(answer.unwrap(), &b"\x0a\x0dsigned: hello"[..]);
    // Its answer is a message without fields, which is there all the same.
    let request = Bytes::from_static(&[0x0a, 2, 1, 2]);
    let answer = soon("cleanup", handle.musig2_cleanup(request)).await;
    assert_eq!(answer.unwrap(), Bytes::new());
    let refused = soon("a refusal", handle.sign_psbt(Bytes::new())).await;
    assert_eq!(
        refused.unwrap_err(),
        PassError::Refused("unsupported request".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn an_idle_grpc_go_signer_answers_pings() {
    let site = Site::open(Duration::from_secs(3)).await;
    let (mut signer, epoch) = site.attached().await;
    signer.expect("ecdh").await;
    for id in 3..6 {
        let ping = signer.expect("ping").await;
        assert_eq!((&ping["id"], &ping["ping"]), (&id.into(), &true.into()));
    }
    assert_eq!(site.epoch(), Some(epoch));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn a_slow_signer_is_not_lost_because_grpc_go_acknowledges_pings() {
    let site = Site::open(Duration::from_secs(2)).await;
    // The proof is quick; what comes after takes twice the window.
    let mut signer = site.signer(7, &["-quick", "1", "-delay", "4s"]).await;
    site.house.until_live().await;
    let epoch = site.epoch();
    signer.until("ecdh").await;
    let context = site.house.context.clone();
    let call = EcdhCall::new(peer(1).point(), Purpose::GossipDial);
    let asking = tokio::spawn(async move { context.ecdh(call).await.map(|_| ()) });
    signer.until("ecdh").await;
    // The next ping is sent when nothing is in flight any more: the answer has come.
    signer.until("ping").await;
    assert_eq!(site.epoch(), epoch, "no false lapse");
    // In time, unless the machine is crowded; in any case not lost to a lapse.
    let answer = soon("the answer", asking).await.unwrap();
    println!("an ECDH of 4 s, with 5 s to answer: {answer:?}");
}

/// lnd's own watch-only side refuses the second one for up to 80 s.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn a_signer_that_hangs_is_missed_and_another_is_taken_in_its_place() {
    let site = Site::open(Duration::from_secs(2)).await;
    let (mut hung, first) = site.attached().await;
    let began = std::time::Instant::now();
    hung.stop();
    assert_eq!(site.house.until_away().await, LapseReason::LivenessLost);
    println!(
        "a signer that was stopped, with a window of 2 s: missed after {:?}",
        began.elapsed()
    );
    let (_signer, second) = site.attached().await;
    assert!(second > first);
    // Awake again, it finds its stream over, and the one who is in stays in.
    hung.go_on();
    let ended = hung.until("ended").await;
    assert_eq!(ended["step"], "serve");
    let point = peer(1).point();
    assert_eq!(site.ecdh(point).await, *key(7).ecdh(&point).expose());
    assert_eq!(site.epoch(), Some(second));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn a_signer_whose_session_was_ended_dials_again_by_itself() {
    let site = Site::open(Duration::from_secs(20)).await;
    let mut signer = site.signer(7, &["-attempts", "100"]).await;
    for _ in 0..3 {
        signer.until("registered").await;
        site.house.until_live().await;
        let epoch = site.epoch().unwrap();
        assert!(site.house.context.lapse(LapseReason::Requested).is_some());
        let ended = signer.until("ended").await;
        assert_eq!(
            (&ended["step"], &ended["code"]),
            (&"serve".into(), &"OK".into()),
            "{ended}"
        );
        site.until_next_epoch(epoch).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn after_a_renewal_the_signer_comes_back_as_soon_as_its_file_is_the_new_certificate() {
    let site = Site::open(Duration::from_secs(20)).await;
    let old = site.folder.path().join("old.cert");
    std::fs::copy(site.file("signer.cert"), &old).unwrap();
    let given = ["-attempts", "1000", "-timeout", "1s"];
    let more = [&given[..], &["-cert", old.to_str().unwrap()]].concat();
    let mut signer = site.signer(7, &more).await;
    signer.until("registered").await;
    site.house.until_live().await;
    let epoch = site.epoch().unwrap();
    let files = TlsFiles::in_directory(site.folder.path());
    let renewed = TlsIdentity::renew(&files, &[], SystemClock::new().unix()).unwrap();
    site.house.gateway.renew(renewed);
    assert!(
        site.house
            .context
            .lapse(LapseReason::Requested)
            .is_some_and(|lapse| lapse.epoch == epoch),
        "the renewal alone does not end it"
    );
    signer.until("dial_failed").await;
    std::fs::copy(site.file("signer.cert"), &old).unwrap();
    signer.until("registered").await;
    site.until_next_epoch(epoch).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn a_macaroon_that_is_not_good_is_refused_in_words_that_grpc_go_reports() {
    let mut site = Site::open(Duration::from_secs(20)).await;
    let (_signer, epoch) = site.attached().await;
    let now = SystemClock::new().unix();
    let (signs, hour) = (Op::remote_signer, Duration::from_secs(3600));
    let past = Caveat::TimeBefore(now.checked_sub(hour).unwrap());
    let elsewhere = Caveat::IpAddr([192, 0, 2, 1].into());
    let rotated = RootKey::new(1, Secret32::build(|bytes| bytes.fill(7)));
    let forged = RootKey::new(0, Secret32::build(|bytes| bytes.fill(8)));
    let reads = Op::new("info", "read");
    let denied = [
        (
            Some(bake(2, &root(), signs(), Some(past))),
            "Unauthenticated",
            "macaroon_expired",
            "the macaroon has expired",
        ),
        (
            Some(bake(3, &root(), signs(), Some(elsewhere))),
            "PermissionDenied",
            "macaroon_address",
            "the macaroon is for another address",
        ),
        (
            Some(bake(4, &rotated, signs(), None)),
            "Unauthenticated",
            "macaroon_root_key",
            "the macaroon was baked with another root key",
        ),
        (
            Some(bake(5, &forged, signs(), None)),
            "Unauthenticated",
            "macaroon_signature",
            "the macaroon's signature is wrong",
        ),
        (
            Some(bake(6, &root(), reads, None)),
            "PermissionDenied",
            "macaroon_permission",
            "the macaroon does not permit remotesigner:generate",
        ),
        (
            None,
            "Unauthenticated",
            "macaroon_missing",
            "the call carries no macaroon",
        ),
    ];
    for (macaroon, code, label, message) in denied {
        let file = macaroon.map(|macaroon| {
            site.write("denied", &macaroon);
            site.file("denied")
        });
        let file = file.as_ref().map_or("", |file| file.to_str().unwrap());
        let mut signer = site.signer(7, &["-macaroon", file]).await;
        let ended = signer.expect("ended").await;
        assert_eq!(
            (&ended["step"], &ended["code"], &ended["message"]),
            (&"register".into(), &code.into(), &message.into())
        );
        assert_eq!(site.refusal().await, label);
        assert_eq!(site.epoch(), Some(epoch), "the one who is in stays in");
    }
    let good = [
        Caveat::TimeBefore(now + hour),
        Caveat::IpAddr([127, 0, 0, 1].into()),
    ];
    for caveat in good {
        let mut macaroon = bake(7, &root(), signs(), Some(caveat));
        macaroon.restrict(&caveat).unwrap();
        site.write("granted", &macaroon);
        let granted = site.file("granted");
        let mut second = site
            .signer(7, &["-macaroon", granted.to_str().unwrap()])
            .await;
        // Two signers that are in good health do not swap: the newcomer is told that there is one.
        second.expect("registered").await;
        let ended = second.until("ended").await;
        assert_eq!(ended["code"], "AlreadyExists", "{ended}");
        assert_eq!(site.refusal().await, "signer_conflict");
        assert_eq!(site.epoch(), Some(epoch));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn the_signer_of_another_key_is_completed_challenged_closed_and_then_held_off() {
    let mut site = Site::open(Duration::from_secs(20)).await;
    let mut signer = site
        .signer(8, &["-attempts", "1000", "-redial", "1ms"])
        .await;
    signer.expect("registered").await;
    signer.expect("ecdh").await;
    let ended = signer.expect("ended").await;
    assert_eq!(
        (&ended["step"], &ended["code"]),
        (&"serve".into(), &"PermissionDenied".into()),
        "{ended}"
    );
    assert_eq!(site.refusal().await, "proof_wrong");
    // Should it come back so late that the first hold-off is over, the next one is longer.
    let refused = signer.until("registration_error").await;
    let text = refused["error"].as_str().unwrap();
    assert!(text.contains("held off for"), "{text}");
    assert!(site.never_was_live());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: bash .ci/run interop"]
async fn go_refuses_another_certificate_and_another_name() {
    let site = Site::open(Duration::from_secs(20)).await;
    let other = tempfile::tempdir().unwrap();
    let files = TlsFiles::in_directory(other.path());
    TlsIdentity::renew(&files, &[], SystemClock::new().unix()).unwrap();
    let path = files.certificate.to_str().unwrap().to_owned();
    let mut signer = site.signer(7, &["-timeout", "1s", "-cert", &path]).await;
    let failed = signer.expect("dial_failed").await;
    // All that lnd's signer ever says of it.
    assert_eq!(failed["error"], "context deadline exceeded");
    let why = failed["tls"].as_str().unwrap();
    assert!(
        why.contains("x509: certificate signed by unknown authority"),
        "{why}"
    );

    // The same gateway under an address that its certificate does not name.
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let alias = listener.local_addr().unwrap().to_string();
    let gateway = site.house.address();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut to = TcpStream::connect(gateway).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    let mut signer = site.signer(7, &["-timeout", "1s", "-server", &alias]).await;
    let failed = signer.expect("dial_failed").await;
    assert_eq!(failed["error"], "context deadline exceeded");
    let why = failed["tls"].as_str().unwrap();
    assert!(
        why.contains("x509: certificate is valid for") && why.contains("not 127.0.0.2"),
        "{why}"
    );
    assert!(site.never_was_live());

    // All three names of the machine itself are in it.
    for host in ["127.0.0.1", "localhost"] {
        let server = format!("{host}:{}", gateway.port());
        let mut signer = site.signer(7, &["-server", &server]).await;
        signer.expect("registered").await;
        site.house.until_live().await;
        signer.kill().await;
        site.house.until_away().await;
    }
}
