//! `/v1/events` for who comes late, reads slowly, or comes too often: what was kept is told in order and once, what is lost is counted,
//! and nobody else is held up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use pilotlight::admin::{AdminServer, DataDir, Parts, Settings, SignerControl, TokenKind};
use pilotlight::limits;
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::SignerContext;
use pilotlight::supervisor::{PeerSpec, Supervisor};
use pilotlight::telemetry::{Event, Next};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

/// What never happens in time did not happen.
const HANG: Duration = Duration::from_secs(60);

fn id(number: u8) -> NodeId {
    LocalKey::from_bytes(&mut [number; 32]).unwrap().node_id()
}

/// A node with an admin address in this process.
struct Node {
    supervisor: Supervisor,
    address: SocketAddr,
    token: String,
    _stop: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::at(folder.path().join("data"));
        dir.prepare().unwrap();
        let context = SignerContext::new(id(1));
        // No floor: that gossip links are missing would be told a moment after the start, among the events that are counted here.
        let builder = Supervisor::builder(context.clone()).seed(1).gossip_floor(0);
        let (supervisor, mut inbox) = builder.start().await.unwrap();
        tokio::spawn(async move { while inbox.recv().await.is_some() {} });
        let settings = Settings {
            address: "127.0.0.1:0".parse().unwrap(),
            hosts: Vec::new(),
            scrape_needs_token: None,
        };
        let server = AdminServer::bind(settings).await.unwrap();
        let address = server.address();
        let (stop, stopped) = watch::channel(false);
        let parts = Parts {
            supervisor: supervisor.clone(),
            signer: Arc::new(SignerControl::remote(context)),
            exporter: None,
            read_only: dir.token_or_new(TokenKind::ReadOnly).unwrap(),
            admin: dir.token_or_new(TokenKind::Admin).unwrap(),
        };
        tokio::spawn(server.serve(parts, stopped));
        let token = std::fs::read_to_string(dir.file("readonly.token")).unwrap();
        // A peer without an address: nothing happens to it by itself.
        let peer = PeerSpec {
            node_id: id(2),
            addresses: Vec::new(),
            tag: None,
            weight: None,
        };
        supervisor.add_peer(peer).await.unwrap();
        supervisor.declare_channel_peers([]).await.unwrap();
        Self {
            supervisor,
            address,
            token: token.trim().to_owned(),
            _stop: stop,
            _folder: folder,
        }
    }

    /// Makes `count` events, each the change of a tag.
    async fn change(&self, count: usize) {
        for number in 0..count {
            let changed = if number % 2 == 0 {
                self.supervisor.promote(id(2)).await
            } else {
                self.supervisor.demote(id(2)).await
            };
            changed.unwrap();
        }
    }

    /// A stream of events that has begun; `more` are headers.
    async fn stream(&self, more: &str) -> Stream {
        let socket = TcpSocket::new_v4().unwrap();
        // Little is held for it here, so that what it does not read is held at the other end, or lost there.
        socket.set_recv_buffer_size(32 * 1024).unwrap();
        let mut socket = socket.connect(self.address).await.unwrap();
        let (address, token) = (self.address, &self.token);
        let request = format!(
            "GET /v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Stream {
            socket,
            bytes: Vec::new(),
        };
        stream
            .until(|text| {
                text.contains("\r\n\r\n: pilotlight events")
                    || text.contains("\r\n: pilotlight events")
            })
            .await;
        stream
    }

    async fn status_of(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let (address, token) = (self.address, &self.token);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let reading = socket.read_to_string(&mut answer);
        tokio::time::timeout(HANG, reading)
            .await
            .expect("an answer")
            .unwrap();
        answer
    }
}

struct Stream {
    socket: TcpStream,
    bytes: Vec<u8>,
}

impl Stream {
    /// Reads until the text of all that has come is as wanted, and gives it.
    async fn until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let reading = async {
            loop {
                let text = String::from_utf8_lossy(&self.bytes).into_owned();
                if wanted(&text) {
                    return text;
                }
                self.more().await;
            }
        };
        tokio::time::timeout(HANG, reading).await.expect("it comes")
    }

    /// Reads what there is, at least something, and of much at least a twentieth more: the whole is looked at after each.
    async fn more(&mut self) {
        let enough = self.bytes.len() + self.bytes.len() / 20;
        let mut piece = vec![0; 1 << 16];
        loop {
            self.socket.readable().await.unwrap();
            match self.socket.try_read(&mut piece) {
                Ok(count) => {
                    assert!(count > 0, "the stream ended");
                    self.bytes.extend_from_slice(&piece[..count]);
                }
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            // Nothing for a while: it may be all.
            let quiet = tokio::time::timeout(Duration::from_millis(5), self.socket.readable());
            if self.bytes.len() > enough || quiet.await.is_err() {
                return;
            }
        }
    }
}

/// The numbers in the ids of a stream's events, and what they begin with.
fn ids(text: &str) -> (Vec<u64>, String) {
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
    let mut runs: Vec<&str> = Vec::new();
    let mut numbers = Vec::new();
    for id in ids {
        let (run, number) = id.split_once('-').unwrap();
        runs.push(run);
        numbers.push(number.parse().unwrap());
    }
    runs.dedup();
    assert_eq!(runs.len(), 1, "one process, one run: {runs:?}");
    (numbers, runs[0].to_owned())
}

/// How many events a stream has told of, those that it lost included.
fn told(text: &str) -> (usize, u64) {
    let events = text.matches("event: tagged").count();
    let missed = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: {\"event\":\"missed\",\"missed\":"))
        .map(|rest| rest.trim_end_matches('}').parse::<u64>().unwrap());
    (events, missed.sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_is_told_what_was_kept_and_who_returns_what_came_since() {
    let node = Node::start().await;
    let before = node.supervisor.telemetry().newest_kept();
    node.change(10).await;
    let mut late = node.stream("Last-Event-ID: 0\r\n").await;
    let text = late.until(|text| text.contains(": caught up")).await;
    let (numbers, run) = ids(&text);
    assert_eq!(numbers, (1..=before + 10).collect::<Vec<_>>());
    // One more than were made here: the declaration changed a tag too.
    assert_eq!(told(&text), (11, 0));
    node.change(2).await;
    let text = late.until(|text| told(text).0 == 13).await;
    assert_eq!(
        ids(&text).0,
        (1..=before + 12).collect::<Vec<_>>(),
        "no gap, and nothing twice"
    );

    let seen = before + 7;
    let mut returns = node
        .stream(&format!("Last-Event-ID: {run}-{seen}\r\n"))
        .await;
    let text = returns.until(|text| text.contains(": caught up")).await;
    assert_eq!(ids(&text).0, (seen + 1..=before + 12).collect::<Vec<_>>());
    // An id of another process, or none that makes sense, has seen nothing.
    for odd in ["1-7", &format!("{run}-999999"), "x", &"9".repeat(4000)] {
        let mut stream = node.stream(&format!("Last-Event-ID: {odd}\r\n")).await;
        let text = stream.until(|text| text.contains(": caught up")).await;
        assert_eq!(ids(&text).0.len() as u64, before + 12, "{odd}");
    }
    // Without the header a stream begins now, as `pilotlight events` wants it.
    let mut plain = node.stream("").await;
    node.change(1).await;
    let text = plain.until(|text| told(text).0 == 1).await;
    assert_eq!((told(&text).0, text.contains(": caught up")), (1, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_what_is_no_longer_kept_is_counted_for_who_returns_and_not_told_to_who_is_new() {
    let node = Node::start().await;
    let before = node.supervisor.telemetry().newest_kept();
    let many = limits::PEER_EVENTS_KEPT + 100;
    node.change(many).await;
    let mut new = node.stream("Last-Event-ID: 0\r\n").await;
    let text = new.until(|text| text.contains(": caught up")).await;
    let (numbers, run) = ids(&text);
    assert!(numbers.len() <= limits::PEER_EVENTS_KEPT + limits::EVENTS_KEPT);
    assert_eq!(told(&text), (limits::PEER_EVENTS_KEPT, 0));
    let mut returns = node
        .stream(&format!("Last-Event-ID: {run}-{}\r\n", before + 1))
        .await;
    let text = returns.until(|text| text.contains(": caught up")).await;
    assert_eq!(
        told(&text),
        (limits::PEER_EVENTS_KEPT, 99),
        "{many} less the first and those that are kept"
    );
}

/// While events are made without a pause, each new listener is given every kept one once, in order, from the first on.
#[tokio::test(flavor = "multi_thread")]
async fn between_what_was_kept_and_what_happens_nothing_is_lost_or_told_twice() {
    let node = Arc::new(Node::start().await);
    let last = node.supervisor.telemetry().newest_kept() + 4000;
    let making = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.change(4000).await }
    });
    let mut listeners = Vec::new();
    while !making.is_finished() {
        let mut stream = node.supervisor.events_after(0);
        listeners.push(tokio::spawn(async move {
            let (mut expected, mut caught_up) = (1, 0);
            while expected <= last {
                match tokio::time::timeout(HANG, stream.next())
                    .await
                    .expect("it comes")
                    .unwrap()
                {
                    Next::Event(recorded) => {
                        let Some(number) = recorded.number else {
                            continue;
                        };
                        assert_eq!(number, expected);
                        expected += 1;
                    }
                    Next::CaughtUp => caught_up += 1,
                    // This machine may be too busy for a listener to keep up; that is another test's.
                    Next::Missed(missed) => expected += missed,
                    _ => {}
                }
            }
            assert_eq!(caught_up, 1);
        }));
        // One after another is enough: each has a hand-over of its own.
        tokio::task::yield_now().await;
        if listeners.len() > 200 {
            break;
        }
    }
    making.await.unwrap();
    assert!(listeners.len() > 3, "{} hand-overs", listeners.len());
    for listener in listeners {
        listener.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_a_reader_that_does_not_read_loses_events_by_count_and_holds_up_nobody() {
    let node = Node::start().await;
    let mut slow = node.stream("").await;
    // More than its queue, the kernel's buffers and the ring of events hold together.
    let many = 4 * limits::EVENTS_BUFFER;
    let mut honest = node.supervisor.events();
    let counting = tokio::spawn(async move {
        let mut count = 0;
        while count < many as u64 {
            match honest.next().await.unwrap() {
                Next::Event(recorded) => {
                    count += u64::from(matches!(recorded.event, Event::Tagged { .. }));
                }
                Next::Missed(missed) => count += missed,
                _ => {}
            }
        }
    });
    for _ in 0..8 {
        node.change(many / 8).await;
        assert!(
            node.status_of("/v1/info").await.starts_with("HTTP/1.1 200"),
            "others are answered"
        );
    }
    tokio::time::timeout(HANG, counting)
        .await
        .expect("other listeners are fed")
        .unwrap();
    // That it is behind may have been told meanwhile, and is then among what it missed.
    let all = |text: &str| {
        let (events, missed) = told(text);
        events as u64 + missed >= many as u64
    };
    let text = slow.until(all).await;
    let (events, missed) = told(&text);
    assert!(
        missed > 0 && events < many && events as u64 + missed <= many as u64 + 1,
        "{events} told, {missed} missed"
    );
    // The operator hears of it.
    let mut late = node.stream("Last-Event-ID: 0\r\n").await;
    let text = late.until(|text| text.contains(": caught up")).await;
    assert!(text.contains("event: listener_behind"), "{text}");
    // The last ones are among those that it was told.
    assert!(text.rfind("event: tagged") > text.rfind("\"event\":\"missed\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_streams_are_bounded_and_leave_room_for_commands() {
    let node = Node::start().await;
    let mut streams = Vec::new();
    for _ in 0..limits::ADMIN_EVENT_STREAMS {
        streams.push(node.stream("").await);
    }
    let refused = node.status_of("/v1/events").await;
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.contains("event streams are open already"),
        "{refused}"
    );
    assert!(node.status_of("/v1/info").await.starts_with("HTTP/1.1 200"));
    node.change(1).await;
    for stream in &mut streams {
        stream.until(|text| told(text).0 == 1).await;
    }
    // One leaves, and there is a place again.
    drop(streams.pop());
    let reopened = async {
        loop {
            let mut socket = TcpStream::connect(node.address).await.unwrap();
            let (address, token) = (node.address, &node.token);
            let request = format!(
                "GET /v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
            );
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut head = [0; 12];
            socket.read_exact(&mut head).await.unwrap();
            if head.ends_with(b"200") {
                return;
            }
        }
    };
    tokio::time::timeout(HANG, reopened).await.expect("a place");
}
