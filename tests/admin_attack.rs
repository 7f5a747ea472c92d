//! The admin address under attack: by tokens that are not the right ones, by requests that are none, by clients that hold on to it, by
//! other sites' pages. All are refused or bounded; who has something to ask is answered, and the links notice nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[allow(dead_code, reason = "tests/daemon.rs uses the rest of it")]
#[path = "support/daemon.rs"]
mod support;

use pilotlight::limits;
use pilotlight::link::raw::RawLink;
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::wire::{BITCOIN_MAINNET, Features, GossipTimestampFilter, Init, MessageType, Ping};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;
use support::{Answer, Daemon, HANG};

fn key(number: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [number; 32]).unwrap()
}

fn id(number: u8) -> NodeId {
    key(number).node_id()
}

/// Paths by what they need, with a method each and, where one is needed, a body that would be taken.
const READS: [(&str, &str); 3] = [
    ("GET", "/v1/info"),
    ("GET", "/v1/peers"),
    ("GET", "/v1/events"),
];

fn changes() -> Vec<(&'static str, String, String)> {
    let peer = id(9);
    let body = format!(r#"{{"node_id":"{peer}","addr":"127.0.0.1:1","tag":"gossip-only"}}"#);
    let many =
        format!(r#"{{"peers":[{{"node_id":"{peer}","addrs":["127.0.0.1:1"],"tag":null}}]}}"#);
    let one = format!("/v1/peers/{peer}");
    vec![
        ("POST", "/v1/peers".to_owned(), body),
        ("POST", "/v1/peers/import".to_owned(), many),
        (
            "PATCH",
            one.clone(),
            r#"{"tag":"channel-bearing"}"#.to_owned(),
        ),
        ("DELETE", one, String::new()),
        ("POST", "/v1/signer/lapse".to_owned(), String::new()),
        ("POST", "/v1/signer/attach".to_owned(), String::new()),
        ("POST", "/v1/signer/reload".to_owned(), String::new()),
        (
            "POST",
            "/v1/signer/word".to_owned(),
            r#"{"absence":1,"go":true}"#.to_owned(),
        ),
        (
            "POST",
            "/v1/chain".to_owned(),
            r#"{"height":850000}"#.to_owned(),
        ),
    ]
}

/// One request with these headers; the connection is closed after it.
fn ask(daemon: &Daemon, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let (admin, length) = (daemon.text("admin"), body.len());
    let host = if headers.to_ascii_lowercase().contains("host: ") {
        String::new()
    } else {
        format!("Host: {admin}\r\n")
    };
    daemon.http(&format!(
        "{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

/// Nothing that was asked has been done: the signer is there, there are no peers but these, and the node has said nothing of the chain.
#[track_caller]
fn untouched(daemon: &Daemon, peers: usize) {
    let info = daemon.ask(&["info"]);
    assert_eq!((&info["mode"], &info["epoch"]), (&"live".into(), &1.into()));
    assert_eq!(info["peers"]["total"], peers);
    assert!(info["chain"]["height"].is_null(), "{info}");
}

/// A peer with a gossip link to the daemon, which asks on it for a pong and sends gossip.
struct Peer {
    link: RawLink,
    pongs: u16,
}

impl Peer {
    async fn connect(daemon: &Daemon) -> Self {
        let node = daemon.text("node_id").parse().unwrap();
        let address = daemon.text("listen").parse().unwrap();
        let mut link = RawLink::connect(address, Arc::new(key(1)), node)
            .await
            .unwrap();
        let init = Init::with_features(Features::gossip(), vec![BITCOIN_MAINNET]);
        link.send(&init.encode()).await.unwrap();
        daemon.ask_until(&["info"], |info| info["links"]["gossip_only"] == 1);
        Self { link, pongs: 0 }
    }

    /// A ping is answered, and gossip is taken: the link lives and works.
    async fn works(&mut self) {
        let filter = GossipTimestampFilter::since(BITCOIN_MAINNET, 1);
        self.link.send(&filter.encode()).await.unwrap();
        self.pongs += 1;
        let ping = Ping {
            num_pong_bytes: self.pongs,
            ignored: 0,
        };
        self.link.send(&ping.encode()).await.unwrap();
        let answered = async {
            loop {
                let message = self.link.receive().await.unwrap().expect("the link lives");
                if MessageType::of(&message).unwrap() == MessageType::PONG {
                    return message.len();
                }
            }
        };
        let length = tokio::time::timeout(HANG, answered).await.expect("a pong");
        assert_eq!(length, 4 + usize::from(self.pongs));
    }

    /// The link is the one that it was, and all that was sent on it has come.
    fn unaffected(&self, daemon: &Daemon) {
        let peers = daemon.ask(&["peer", "list"]);
        let ours = &peers
            .as_array()
            .unwrap()
            .iter()
            .find(|peer| peer["node_id"] == id(1).to_string())
            .unwrap();
        assert_eq!(ours["state"], "up");
        // Its init, and a filter and a ping each time.
        assert_eq!(ours["frames_in"], 1 + 2 * u64::from(self.pongs), "{ours}");
    }
}

#[test]
fn wrong_missing_and_cross_scope_tokens_open_nothing() {
    let daemon = Daemon::start();
    let (reads, changes_token) = (daemon.token("readonly.token"), daemon.token("admin.token"));
    let flipped = |token: &str| {
        let last = if token.ends_with('0') { "1" } else { "0" };
        format!("{}{last}", &token[..63])
    };
    let wrong: Vec<String> = [
        String::new(),
        "Authorization: \r\n".to_owned(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: {changes_token}\r\n"),
        format!("Authorization: Basic {changes_token}\r\n"),
        format!("Authorization: Token {changes_token}\r\n"),
        format!("Authorization: Bearer {}\r\n", flipped(&changes_token)),
        format!("Authorization: Bearer {}\r\n", &changes_token[..63]),
        format!("Authorization: Bearer {changes_token}0\r\n"),
        format!("Authorization: Bearer {} \u{7f}\r\n", &changes_token[1..]),
        format!(
            "Authorization: Bearer {}\r\n",
            changes_token.to_ascii_uppercase() + "A"
        ),
        format!("Authorization: Bearer {reads}{changes_token}\r\n"),
        format!("Authorization: Bearer {reads}, Bearer {changes_token}\r\n"),
        format!(
            "Authorization: Bearer {flipped}\r\nAuthorization: Bearer {changes_token}\r\n",
            flipped = flipped(&reads)
        ),
        format!("X-Authorization: Bearer {changes_token}\r\n"),
        format!("Cookie: token={changes_token}\r\n"),
        format!("Authorization: Bearer {}\r\n", "a".repeat(8000)),
    ]
    .into();
    for headers in &wrong {
        for (method, path) in READS {
            let answer = ask(&daemon, method, path, headers, "");
            assert!(
                [400, 401].contains(&answer.status),
                "{method} {path} {headers}: {answer:?}"
            );
        }
        for (method, path, body) in changes() {
            let answer = ask(&daemon, method, &path, headers, &body);
            assert!(
                [400, 401].contains(&answer.status),
                "{method} {path} {headers}: {answer:?}"
            );
        }
    }
    let reading = format!("Authorization: Bearer {reads}\r\n");
    for (method, path, body) in changes() {
        assert_eq!(
            ask(&daemon, method, &path, &reading, &body).status,
            403,
            "{method} {path}"
        );
        for token in [&reads, &changes_token] {
            let inside = ask(
                &daemon,
                method,
                &format!("{path}?token={token}"),
                &reading,
                &body,
            );
            assert_eq!(inside.status, 400, "a token in a URL: {method} {path}");
        }
    }
    untouched(&daemon, 0);
    // No answer shows what it was compared with.
    for headers in &wrong {
        let answer = ask(&daemon, "GET", "/v1/info", headers, "");
        assert!(!answer.body.contains(&reads) && !answer.body.contains(&changes_token));
    }
}

#[test]
fn other_sites_pages_and_names_are_refused_before_anything_is_done() {
    let daemon = Daemon::start();
    let admin = daemon.text("admin").to_owned();
    let token = format!("Authorization: Bearer {}\r\n", daemon.token("admin.token"));
    let port = admin.rsplit_once(':').unwrap().1;
    let sites = [
        "Origin: http://evil.example\r\n".to_owned(),
        "Origin: null\r\n".to_owned(),
        // Another server on this machine, and this one by a name that a page may have made.
        "Origin: http://127.0.0.1:1\r\n".to_owned(),
        format!("Origin: http://evil.example:{port}\r\n"),
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: empty\r\n"
            .to_owned(),
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\n".to_owned(),
    ];
    let names = [
        format!("Host: evil.example:{port}\r\n"),
        "Host: 127.0.0.1.evil.example\r\n".to_owned(),
        format!("Host: localhost:{port}\r\nHost: evil.example\r\n"),
        "Host: 0.0.0.0\r\n".to_owned(),
    ];
    let open = [
        "/",
        "/status.js",
        "/picture.js",
        "/status.css",
        "/healthz",
        "/readyz",
        "/metrics",
    ];
    let all = changes()
        .into_iter()
        .chain(READS.map(|(method, path)| (method, path.to_owned(), String::new())))
        .chain(open.map(|path| ("GET", path.to_owned(), String::new())));
    for (method, path, body) in all {
        for (headers, status) in sites
            .iter()
            .map(|site| (site, 403))
            .chain(names.iter().map(|name| (name, 421)))
        {
            let answer = ask(&daemon, method, &path, &format!("{headers}{token}"), &body);
            assert_eq!(answer.status, status, "{method} {path} {headers}");
            assert!(!answer.head.contains("access-control-"), "{}", answer.head);
        }
        // What a browser asks before it lets a page send a token: it gets no leave.
        let asks = "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n";
        let answer = ask(&daemon, "OPTIONS", &path, asks, "");
        assert!(
            answer.status >= 400 && !answer.head.contains("access-control-"),
            "{answer:?}"
        );
    }
    untouched(&daemon, 0);
    // A link that somebody follows opens the page, and the page itself may ask.
    let link =
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(ask(&daemon, "GET", "/", link, "").status, 200);
    let own = format!("Origin: http://{admin}\r\nSec-Fetch-Site: same-origin\r\n{token}");
    assert_eq!(
        ask(&daemon, "POST", "/v1/signer/lapse", &own, "").status,
        200
    );
}

/// Requests that are none, too much, or ambiguous, as bytes; and whether the daemon may answer any of them with success.
fn malformed(admin: &str, token: &str) -> Vec<Vec<u8>> {
    let head = format!("Host: {admin}\r\nAuthorization: Bearer {token}\r\n");
    let post = |rest: &str| format!("POST /v1/peers HTTP/1.1\r\n{head}{rest}").into_bytes();
    let mut list = vec![
        b"\r\n\r\n\r\n\r\n".to_vec(),
        b"\0\0\0\0\0\0\0\0\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello, this is TLS\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /v1/info\r\n\r\n".to_vec(),
        format!("GET /v1/info HTTP/9.9\r\n{head}\r\n").into_bytes(),
        format!("GET  /v1/info  HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("G\x01T /v1/info HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /v1/info HTTP/1.1\r\n{head}X: a\0b\r\n\r\n").into_bytes(),
        format!("GET /v1/info HTTP/1.1\r\n{head} folded: yes\r\n\r\n").into_bytes(),
        format!("GET /v1/info HTTP/1.1\r\n{head}no colon\r\n\r\n").into_bytes(),
        format!(
            "GET /{} HTTP/1.1\r\n{head}\r\n",
            "a".repeat(2 * limits::ADMIN_HEAD_MAX)
        )
        .into_bytes(),
        format!(
            "GET /v1/info HTTP/1.1\r\n{head}X: {}\r\n\r\n",
            "a".repeat(2 * limits::ADMIN_HEAD_MAX)
        )
        .into_bytes(),
        format!(
            "GET /v1/info HTTP/1.1\r\n{head}{}\r\n",
            "X: a\r\n".repeat(1000)
        )
        .into_bytes(),
        format!("CONNECT 127.0.0.1:22 HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET http://evil.example/v1/info HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /../../etc/passwd HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /%2e%2e/%00/v1%2finfo HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /v1/peers?limit=-1 HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /v1/peers?limit=1&limit=2 HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /v1/peers?limit=99999999999999999999999 HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("PATCH /v1/peers/%FF HTTP/1.1\r\n{head}Content-Length: 2\r\n\r\n{{}}").into_bytes(),
        post("Content-Length: -1\r\n\r\n{}"),
        post("Content-Length: 99999999999999999999\r\n\r\n{}"),
        post("Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}"),
        post("Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        post("Transfer-Encoding: gzip, identity\r\nContent-Length: 2\r\n\r\n{}"),
        post(&format!(
            "Content-Length: {}\r\n\r\n",
            limits::ADMIN_BODY_MAX * 1000
        )),
        post(&format!(
            "Content-Length: 40000\r\n\r\n{}",
            " ".repeat(40_000)
        )),
        post(
            &format!(
                "Transfer-Encoding: chunked\r\n\r\n{}",
                "400\r\n".to_owned() + &" ".repeat(1024) + "\r\n"
            )
            .repeat(1),
        ),
        post(&format!(
            "Content-Length: 16000\r\n\r\n{}",
            "[".repeat(16_000)
        )),
    ];
    let mut not_text = post("Content-Length: 16\r\n\r\n");
    not_text.extend_from_slice(b"{\"node_id\":\"\xff\xfe\"}");
    list.push(not_text);
    list
}

/// What comes back before the other side closes; nothing more is sent after the request.
fn throw(admin: &str, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(admin).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    // It may be refused, and closed, before it is all sent.
    let _ = socket.write_all(request);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_or_too_large_is_refused_and_the_next_request_answered() {
    let daemon = Daemon::start();
    let mut peer = Peer::connect(&daemon).await;
    let (admin, token) = (daemon.text("admin").to_owned(), daemon.token("admin.token"));
    for request in malformed(&admin, &token) {
        let answer = throw(&admin, &request);
        let said = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
        let status: Option<u16> = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        // Some get no answer at all: they never were a request.
        assert!(
            status.is_none_or(|status| (400..506).contains(&status)),
            "{said:?}: {answer}"
        );
        assert!(
            !answer.contains("panicked") && !answer.contains(&token),
            "{answer}"
        );
        assert_eq!(
            daemon.request("GET", "/healthz", "", "").status,
            200,
            "after {said:?}"
        );
    }
    for (length, status) in [
        (limits::ADMIN_BODY_MAX, 400),
        (limits::ADMIN_BODY_MAX + 1, 413),
    ] {
        let answer = daemon.request("POST", "/v1/peers", &token, &" ".repeat(length));
        assert_eq!(answer.status, status, "{length} bytes");
    }
    let long = format!(
        "GET /healthz HTTP/1.1\r\nHost: {admin}\r\nX: {}\r\n\r\n",
        "a".repeat(2 * limits::ADMIN_HEAD_MAX)
    );
    assert!(throw(&admin, long.as_bytes()).starts_with("HTTP/1.1 431"));
    peer.works().await;
    peer.unaffected(&daemon);
    untouched(&daemon, 1);
}

/// Descriptors of a process that are sockets.
fn sockets(process: u32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// For every path that needs no token, and one that does. Who has waited until silent clients ran into their deadline has been kept out:
/// half of that is allowed, some hundred times what it takes.
fn honest(daemon: &Daemon) {
    let started = Instant::now();
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        assert_eq!(daemon.request("GET", path, "", "").status, 200, "{path}");
    }
    let info: Value = daemon
        .request("GET", "/v1/info", &daemon.token("readonly.token"), "")
        .json();
    assert_eq!(info["mode"], "live");
    let took = started.elapsed();
    assert!(took < limits::ADMIN_HEAD_DEADLINE / 2, "kept out: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_a_thousand_clients_that_say_nothing_keep_out_nobody() {
    const CLIENTS: usize = 1000;
    let daemon = Daemon::start();
    let mut peer = Peer::connect(&daemon).await;
    let before = sockets(daemon.process());
    let admin = daemon.text("admin").to_owned();
    // Some say nothing, some begin a request and go on by a byte now and then, some have asked and stay.
    let openings = [
        String::new(),
        "GET /v1/info HTTP/1.1\r\nHost: ".to_owned(),
        format!("GET /healthz HTTP/1.1\r\nHost: {admin}\r\n\r\n"),
        format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\n\r\n"),
    ];
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = TcpStream::connect(&admin).unwrap();
        // One that has lost its place may not write any more.
        let _ = client.write_all(openings[number % openings.len()].as_bytes());
        clients.push(client);
        if number % 100 == 99 {
            honest(&daemon);
            peer.works().await;
            let held = sockets(daemon.process());
            assert!(
                held <= before + limits::ADMIN_CONNECTIONS + 1,
                "{held} sockets, {before} before"
            );
            for client in &mut clients {
                let _ = client.write_all(b"x");
            }
        }
    }
    // A command that changes something comes through as well, and so do many in a row.
    for _ in 0..20 {
        honest(&daemon);
    }
    peer.works().await;
    peer.unaffected(&daemon);
    let lapse = daemon.ask(&["signer", "lapse"]);
    assert_eq!(lapse["epoch"], 1);
    peer.works().await;
    drop(clients);
}

/// Who has shown a token keeps its place until it has read its answer, whoever else comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_a_crowd_of_silent_clients() {
    let daemon = Daemon::start();
    let (admin, token) = (
        daemon.text("admin").to_owned(),
        daemon.token("readonly.token"),
    );
    let mut stream = TcpStream::connect(&admin).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    let mut read_until = |wanted: &str| {
        while !text.contains(wanted) {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    };
    read_until(": pilotlight events");
    let clients: Vec<_> = (0..4 * limits::ADMIN_CONNECTIONS)
        .map(|_| TcpStream::connect(&admin).unwrap())
        .collect();
    honest(&daemon);
    daemon.ask(&["signer", "lapse"]);
    read_until("event: signer_lapsed");
    drop(clients);
}
