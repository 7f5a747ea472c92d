//! A supervisor that starts with a book full of peers: what it takes from it, what it does not trust, and what it writes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "support/book_records.rs"]
mod book_records;

use book_records::record;
use pilotlight::book::{Book, BookFuture, MemoryBook, PeerRecord, Sighting, SqliteBook};
use pilotlight::link::Tag;
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::signer::{EmbeddedSigner, LapseReason, Signer, SignerContext};
use pilotlight::supervisor::{PeerSpec, Supervisor};
use pilotlight::telemetry::{Event, Next};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const HANG: Duration = Duration::from_secs(60);

fn key() -> LocalKey {
    LocalKey::from_bytes(&mut [7; 32]).unwrap()
}

fn context() -> SignerContext {
    SignerContext::new(key().node_id())
}

fn tagged(number: u32, tag: Option<Tag>) -> PeerRecord {
    PeerRecord {
        tag,
        ..record(number)
    }
}

/// Counts what is written, and how much of it at once.
#[derive(Default)]
struct Counted {
    book: MemoryBook,
    reads: AtomicUsize,
    writes: AtomicUsize,
    notes: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

struct Shared(Arc<Counted>);

impl Book for Shared {
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>> {
        self.0.reads.fetch_add(1, SeqCst);
        self.0.book.load()
    }

    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()> {
        Box::pin(async move {
            self.0.writes.fetch_add(1, SeqCst);
            let now = self.0.at_once.fetch_add(1, SeqCst) + 1;
            self.0.most_at_once.fetch_max(now, SeqCst);
            // Whoever else waits to be written gets a turn.
            tokio::task::yield_now().await;
            self.0.at_once.fetch_sub(1, SeqCst);
            self.0.book.save(record).await
        })
    }

    fn remove(&self, peer: NodeId) -> BookFuture<'_, ()> {
        self.0.book.remove(peer)
    }

    fn sightings(&self) -> BookFuture<'_, Vec<Sighting>> {
        self.0.reads.fetch_add(1, SeqCst);
        self.0.book.sightings()
    }

    fn note(&self, sightings: Vec<Sighting>) -> BookFuture<'_, ()> {
        self.0.notes.fetch_add(1, SeqCst);
        self.0.book.note(sightings)
    }
}

async fn tags(supervisor: &Supervisor) -> BTreeMap<NodeId, Tag> {
    let peers = supervisor.peers().await.unwrap();
    peers.iter().map(|peer| (peer.node_id, peer.tag)).collect()
}

#[tokio::test]
async fn tags_of_the_book_count_for_nothing_but_caution_until_the_node_has_spoken() {
    let counted = Arc::new(Counted::default());
    let told = [
        tagged(0, Some(Tag::GossipOnly)),
        tagged(1, Some(Tag::ChannelBearing)),
        tagged(2, None),
        tagged(3, Some(Tag::ChannelBearing)),
    ];
    for record in &told {
        counted.book.save(record.clone()).await.unwrap();
    }
    let starting = Supervisor::builder(context()).book(Arc::new(Shared(Arc::clone(&counted))));
    let (supervisor, _inbox) = starting.start().await.unwrap();
    let cautious = tags(&supervisor).await;
    assert_eq!(cautious.len(), 4);
    assert!(cautious.values().all(|tag| *tag == Tag::ChannelBearing));
    assert_eq!(
        counted.writes.load(SeqCst),
        0,
        "what came from the book is not written back"
    );
    let own = told[1].node_id;
    supervisor.declare_channel_peers([own]).await.unwrap();
    for (peer, tag) in tags(&supervisor).await {
        assert_eq!(tag == Tag::ChannelBearing, peer == own, "{peer}");
    }
    supervisor.drain().await;
}

#[tokio::test]
async fn many_new_peers_are_written_many_at_once() {
    let counted = Arc::new(Counted::default());
    let starting = Supervisor::builder(context()).book(Arc::new(Shared(Arc::clone(&counted))));
    let (supervisor, _inbox) = starting.start().await.unwrap();
    let mut adding = JoinSet::new();
    for number in 0..2000 {
        let PeerRecord {
            node_id, addresses, ..
        } = record(number);
        let spec = PeerSpec::new(node_id, addresses[0].clone());
        let supervisor = supervisor.clone();
        adding.spawn(async move { supervisor.add_peer(spec).await });
    }
    for added in adding.join_all().await {
        added.unwrap();
    }
    supervisor.drain().await;
    let begun = Instant::now();
    while counted.book.load().await.unwrap().len() < 2000 {
        assert!(begun.elapsed() < HANG);
        tokio::task::yield_now().await;
    }
    let most = counted.most_at_once.load(SeqCst);
    println!("at most {most} writes at once");
    assert!((2..=pilotlight::limits::BOOK_GROUP).contains(&most));
}

/// What the start costs grows with the peers only in what two questions to the book return: it asks nothing peer by peer, and writes
/// nothing, then or at the end.
#[tokio::test]
async fn a_start_asks_the_book_two_questions_however_many_peers_there_are() {
    for peers in [0, 10_000] {
        let counted = Arc::new(Counted::default());
        for number in 0..peers {
            let record = tagged(number, Some(Tag::ChannelBearing));
            let (node_id, failures) = (record.node_id, number % 3);
            counted.book.save(record).await.unwrap();
            let seen = Sighting {
                node_id,
                last_seen: Some(u64::from(number)),
                failures,
            };
            counted.book.note(vec![seen]).await.unwrap();
        }
        let before = counted.book.sightings().await.unwrap();
        let starting = Supervisor::builder(context()).book(Arc::new(Shared(Arc::clone(&counted))));
        let (supervisor, inbox) = starting.start().await.unwrap();
        supervisor
            .listen("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        assert_eq!(tags(&supervisor).await.len(), before.len());
        supervisor.drain().await;
        drop((supervisor, inbox));
        // The supervisor has let go of the book: nothing is written any more.
        let begun = Instant::now();
        while Arc::strong_count(&counted) > 1 {
            assert!(begun.elapsed() < HANG);
            tokio::task::yield_now().await;
        }
        let count = |counter: &AtomicUsize| counter.load(SeqCst);
        assert_eq!(count(&counted.reads), 2);
        assert_eq!((count(&counted.writes), count(&counted.notes)), (0, 0));
        assert_eq!(counted.book.sightings().await.unwrap(), before);
    }
}

/// How long it takes from nothing until the supervisor listens, and until it dials the first peer once its signer is there.
async fn start(path: &Path, peers: usize, first: &PeerRecord) -> (Duration, Duration) {
    let begun = Instant::now();
    let book = SqliteBook::open(path).unwrap();
    let closed = book.closed();
    let signer = Arc::new(EmbeddedSigner::from_key(key()));
    let context = SignerContext::new(signer.node_id());
    let starting = Supervisor::builder(context.clone()).book(Arc::new(book));
    let (supervisor, inbox) = starting.start().await.unwrap();
    supervisor
        .listen("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    // An answer of the driver's: it has taken all of them in.
    assert!(supervisor.link(first.node_id).await.unwrap().is_none());
    let listening = begun.elapsed();
    assert_eq!(supervisor.peers().await.unwrap().len(), peers);
    if peers == 0 {
        let spec = PeerSpec::new(first.node_id, first.addresses[0].clone());
        supervisor.add_peer(spec).await.unwrap();
    }
    let mut events = supervisor.events();
    let looked = begun.elapsed().saturating_sub(listening);
    let proof = context.prove(&*signer, &mut [9; 32]).await.unwrap();
    let session = context.attach(proof, signer).unwrap();
    let dialled = loop {
        if let Some(Next::Event(recorded)) = events.next().await
            && let Event::Dialing { peer, .. } = recorded.event
        {
            break peer;
        }
    };
    // What the test has looked at is no part of it.
    let dialling = begun.elapsed().saturating_sub(looked);
    assert_eq!(dialled, first.node_id, "the heaviest goes first");
    let _ = session.lapse(LapseReason::Requested);
    supervisor.drain().await;
    drop((supervisor, inbox));
    tokio::time::timeout(HANG, closed).await.unwrap();
    (listening, dialling)
}

/// Nobody listens there.
fn nowhere(number: u32) -> PeerRecord {
    let place: SocketAddr = "127.0.0.1:1".parse().unwrap();
    PeerRecord {
        addresses: vec![place.into()],
        ..tagged(
            number,
            Some(Tag::ALL[usize::from(number.is_multiple_of(2))]),
        )
    }
}

/// With ten thousand known peers, listening and dialling are to begin less than 100 ms later than with none: printed, for a time on a busy
/// machine says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_known_peers_are_taken_in_at_the_start() {
    const KNOWN: u32 = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let (none, many) = (folder.path().join("none.db"), folder.path().join("many.db"));
    let book = Arc::new(SqliteBook::open(&many).unwrap());
    let mut saves = tokio::task::JoinSet::new();
    for number in 0..KNOWN {
        let book = Arc::clone(&book);
        saves.spawn(async move { book.save(nowhere(number)).await });
    }
    while let Some(saved) = saves.join_next().await {
        saved.unwrap().unwrap();
    }
    Arc::into_inner(book).unwrap().close();
    let heaviest = nowhere(KNOWN - 1);
    let mut later = Vec::new();
    for round in 0..5 {
        // Each time with a book that has no peer, though one was wanted before.
        let none = none.with_extension(round.to_string());
        SqliteBook::open(&none).unwrap().close();
        let without = start(&none, 0, &heaviest).await;
        let with = start(&many, KNOWN as usize, &heaviest).await;
        println!("until it listens, and dials: {without:?} with no peers, {with:?} with {KNOWN}");
        later.push((
            with.0.saturating_sub(without.0),
            with.1.saturating_sub(without.1),
        ));
    }
    later.sort_unstable();
    println!("later by, the median of five: {:?}", later[2]);
}
