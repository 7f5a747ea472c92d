//! P3: every copy of a torn-down link's secrets that this crate owns is wiped before the teardown is reported.
//!
//! Seen red: with `Vault::tear_down` not wiping; with `tear_down` reporting before the vault has been gone through.
#![allow(
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::similar_names,
    clippy::match_wild_err_arm,
    clippy::needless_pass_by_value,
    clippy::single_match_else,
    clippy::unchecked_time_subtraction,
    reason = "a test prints its seed and its figures, and tells its story in one go"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use super::*;
use crate::brontide::SessionError;
use crate::link::raw::RawLink;
use crate::link::shared::LinkShared;
use crate::link::{CloseReason, Tag};
use crate::node_id::{LocalKey, NodeId};
use crate::signer::{EmbeddedSigner, LapseReason, Signer, SignerContext};
use crate::supervisor::{Inbox, PeerSpec, Supervisor};
use crate::telemetry::{EventStream, Next};
use crate::wire::Init;
use bytes::BytesMut;
use std::sync::mpsc;
use std::time::Duration;
use tokio::net::TcpListener;

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(output) => output,
        Err(_) => panic!("hung: {what}"),
    }
}

/// One peer in four is gossip-only.
fn tag_of(byte: u8) -> Tag {
    if byte.is_multiple_of(4) {
        Tag::GossipOnly
    } else {
        Tag::ChannelBearing
    }
}

/// A node with a live signer session.
async fn node() -> (Supervisor, Inbox, crate::signer::SignerSession) {
    let signer = Arc::new(EmbeddedSigner::from_key(key(1)));
    let context = SignerContext::new(signer.node_id());
    let proof = context.prove(&*signer, &mut [9; 32]).await.unwrap();
    let session = context.attach(proof, signer).unwrap();
    let (supervisor, inbox) = Supervisor::builder(context)
        .networks([])
        .seed(1)
        .start()
        .await
        .unwrap();
    (supervisor, inbox, session)
}

/// A link with a peer whose far side does nothing but hold the connection.
async fn link(
    supervisor: &Supervisor,
    byte: u8,
    tag: Tag,
) -> (NodeId, tokio::task::JoinHandle<RawLink>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = key(byte).node_id();
    let far = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut link = RawLink::accept(socket, Arc::new(key(byte))).await.unwrap();
        link.send(&Init::gossip(vec![]).encode()).await.unwrap();
        link
    });
    within(
        "a link",
        supervisor.connect(PeerSpec::new(peer, address).tagged(tag)),
    )
    .await
    .unwrap();
    (peer, far)
}

async fn report(events: &mut EventStream) -> LapseReport {
    within("the report", async {
        loop {
            if let Some(Next::Event(recorded)) = events.next().await
                && let Event::SignerLapsed(report) = recorded.event
            {
                return report;
            }
        }
    })
    .await
}

async fn down(events: &mut EventStream, peer: NodeId) {
    within("the link's end", async {
        loop {
            if let Some(Next::Event(recorded)) = events.next().await
                && matches!(recorded.event, Event::LinkDown { peer: down, .. } if down == peer)
            {
                return;
            }
        }
    })
    .await;
}

/// Sealing needs the sending key, opening the receiving one: a wiped session has neither, whoever still holds it.
fn is_wiped(link: &LinkShared) -> bool {
    let mut session = link.session();
    if !session.is_failed() {
        return false;
    }
    let sealed = session.seal(&[0, 0], &mut BytesMut::new());
    let opened = session.open(&mut BytesMut::zeroed(100));
    sealed == Err(SessionError::Wiped) && opened == Err(SessionError::Wiped)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_every_torn_session_is_wiped_before_the_lapse_is_reported_and_no_other_is() {
    let (supervisor, _inbox, session) = node().await;
    let mut fars = Vec::new();
    for byte in 10..30 {
        fars.push(link(&supervisor, byte, tag_of(byte)).await);
    }
    let links = supervisor.shared.env.vault.all();
    let (leased, gossip): (Vec<_>, Vec<_>) = links
        .into_iter()
        .partition(|link| link.state.leased_under().is_some());
    assert_eq!((leased.len(), gossip.len()), (15, 5));
    let mut events = supervisor.events();

    // A task in the midst of a batch holds one link's session: the last that the reaper comes to. The fence does not wait for it.
    let (held, is_held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (busy, others) = leased.split_last().unwrap();
    let busy = Arc::clone(busy);
    let holder = thread::spawn(move || {
        let session = busy.session();
        held.send(()).unwrap();
        let _ = released.recv();
        assert!(!session.is_failed(), "nobody wipes what is in use");
    });
    is_held.recv().unwrap();
    let lapse = session.lapse(LapseReason::Requested).unwrap();
    let reported = || *supervisor.shared.env.lapsed.borrow() >= Some(lapse.epoch);
    within("all others wiped", async {
        while !others.iter().all(|link| link.session().is_failed()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!reported(), "reported with a session in use");
    while let Some(next) = events.try_next() {
        let Next::Event(recorded) = next else {
            panic!("events missed")
        };
        assert!(
            !matches!(recorded.event, Event::SignerLapsed(_)),
            "reported with a session in use"
        );
    }
    release.send(()).unwrap();
    holder.join().unwrap();
    let report = report(&mut events).await;
    assert_eq!(
        (report.epoch, report.dropped, report.retained),
        (lapse.epoch, leased.len(), gossip.len())
    );
    for link in &leased {
        assert!(
            is_wiped(link),
            "link {} has secrets after the report",
            link.state.id
        );
        assert_eq!(link.state.close_requested(), Some(CloseReason::Lapse));
    }
    for link in &gossip {
        assert!(
            !link.session().is_failed(),
            "a gossip link keeps its session"
        );
        assert_eq!(link.state.close_requested(), None);
    }
}

/// However a link ends, its secrets are wiped before anybody hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_link_that_ends_by_itself_is_wiped_before_its_end_is_told() {
    let (supervisor, _inbox, session) = node().await;
    let (peer, far) = link(&supervisor, 40, Tag::ChannelBearing).await;
    let held = supervisor.shared.env.vault.all().remove(0);
    let mut events = supervisor.events();
    drop(far.await.unwrap());
    down(&mut events, peer).await;
    assert!(is_wiped(&held));
    drop(session);
}

/// What a handle keeps of a link that has ended is its state: neither the task's memory nor an alarm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_link_that_has_ended_leaves_no_alarm_and_no_task() {
    let (supervisor, _inbox, _session) = node().await;
    let (peer, far) = link(&supervisor, 60, Tag::GossipOnly).await;
    let held = supervisor.shared.env.vault.all().remove(0);
    let alarms = || supervisor.shared.env.alarms.count();
    within("the link at rest", async {
        while alarms() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(alarms(), 1, "one for a link");
    let mut events = supervisor.events();
    drop(far.await.unwrap());
    down(&mut events, peer).await;
    assert_eq!(alarms(), 0);
    assert!(!held.state.wake.takes_task(), "its task is held");
}

/// Whoever drops the last supervisor leaves no session behind, whoever still holds one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_the_end_of_the_supervisor_wipes_every_session() {
    let (supervisor, mut inbox, _session) = node().await;
    let (_, far) = link(&supervisor, 50, Tag::GossipOnly).await;
    let held = supervisor.shared.env.vault.all().remove(0);
    assert!(!held.session().is_failed());
    drop(supervisor);
    within("the supervisor's end", async {
        while inbox.recv().await.is_some() {}
    })
    .await;
    assert!(is_wiped(&held));
    drop(far);
}
