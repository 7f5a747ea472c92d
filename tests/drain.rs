//! Draining: what is queued is flushed, links are closed with FIN, newcomers are refused, and who does not read is reset at the
//! deadline. And dropping the last handle, which closes everything at once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/acts.rs"]
mod acts;
#[path = "support/node.rs"]
mod node;
#[path = "support/signers.rs"]
mod signers;

use acts::Wire;
use node::{Door, Far, Got, INSTANT, Node, clog, id, just_before, message, number_of, soon};
use pilotlight::clock::{Clock, ManualClock, Moment, Sleep};
use pilotlight::limits;
use pilotlight::link::{CloseReason, LinkHandle, SendError};
use pilotlight::signer::LapseReason;
use pilotlight::supervisor::{ConnectError, Inbound, Mode, PeerSpec};
use pilotlight::telemetry::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

fn drain(node: &Node) -> JoinHandle<()> {
    let supervisor = node.supervisor.clone();
    tokio::spawn(async move { supervisor.drain().await })
}

async fn drained(node: &mut Node) -> (usize, usize) {
    node.watch
        .until("the drain's end", |event| match event {
            Event::Drained { closed, overran } => Some((*closed, *overran)),
            _ => None,
        })
        .await
}

async fn is_draining(node: &mut Node) {
    node.watch
        .until("draining", |event| {
            matches!(
                event,
                Event::ModeChanged {
                    to: Mode::Draining,
                    ..
                }
            )
            .then_some(())
        })
        .await;
    assert_eq!(node.supervisor.mode(), Mode::Draining);
}

/// Numbered messages that wait for a far side that does not read.
async fn queue(link: &LinkHandle, count: u32) {
    for number in 0..count {
        let body = [&number.to_be_bytes()[..], &[0; 1000]].concat();
        let _ = link.send(message(261, &body)).await.unwrap();
    }
}

async fn reads_all_of_it(far: &mut Far, count: u32) {
    for number in 0..count {
        assert_eq!(number_of(&far.expect(261).await), number);
    }
    assert_eq!(far.rest().await, (Vec::new(), Got::Eof));
}

#[tokio::test]
async fn what_is_queued_is_flushed_and_every_link_is_closed_in_good_order() {
    let mut node = Node::live().await;
    let (mut inbound, to_inbound) = node.accept(1).await;
    let (mut outbound, to_outbound) = node.dial(2).await;
    let (mut channel, to_channel) = node.accept(3).await;
    node.supervisor.promote(id(3)).await.unwrap();
    to_channel
        .send(message(136, &[0; 64]))
        .await
        .unwrap()
        .flushed()
        .await
        .unwrap();
    channel.expect(136).await;
    for link in [&to_inbound, &to_outbound, &to_channel] {
        queue(link, 500).await;
    }
    // What is sent to the node while it closes must not cost the peer what it has not read yet.
    inbound.send(&message(256, b"meanwhile")).await;
    outbound.send(&message(256, b"meanwhile")).await;
    let drain = drain(&node);
    is_draining(&mut node).await;
    for far in [&mut inbound, &mut outbound, &mut channel] {
        far.try_send(&message(256, b"meanwhile")).await;
    }
    for far in [&mut inbound, &mut outbound, &mut channel] {
        reads_all_of_it(far, 500).await;
    }
    drop((inbound, outbound, channel));
    soon("the drain", drain).await.unwrap();
    assert_eq!(drained(&mut node).await, (3, 0));
    let mut downs = 0;
    while let Some(inbound) = soon("the inbox ends", node.inbox.recv()).await {
        if let Inbound::Down { reason, .. } = inbound {
            assert_eq!(reason, CloseReason::Draining);
            downs += 1;
        }
    }
    assert_eq!(downs, 3);
    let refused = to_inbound.send(message(261, &[])).await.err();
    assert_eq!(
        refused,
        Some(SendError::Ended {
            reason: CloseReason::Draining
        })
    );
}

/// The session is ended last: no channel link is torn down by it.
#[tokio::test]
async fn channel_links_are_closed_in_peace_and_the_session_ends_last() {
    let mut node = Node::waiting().await;
    node.attach().await;
    let (mut far, link) = node.accept(1).await;
    let drain = drain(&node);
    assert_eq!(far.rest().await, (Vec::new(), Got::Eof));
    assert_eq!(node.next_down().await, (link.id(), CloseReason::Draining));
    drop(far);
    soon("the drain", drain).await.unwrap();
    let lapse = node.supervisor.context().last_lapse().unwrap();
    assert_eq!(lapse.reason, LapseReason::Shutdown);
    assert!(node.supervisor.context().lease().is_err());
    let reset = |event: &Event| {
        matches!(
            event,
            Event::LinkDown {
                reason: CloseReason::Lapse,
                ..
            }
        )
    };
    assert_eq!(node.watch.count(reset), 0);
}

#[tokio::test]
async fn newcomers_and_new_dials_are_refused() {
    let mut node = Node::live().await;
    let (mut slow, link) = node.accept(900).await;
    slow.send(&message(265, &[0; 40])).await;
    node.next_message().await;
    clog(&link).await;
    let drain = drain(&node);
    is_draining(&mut node).await;

    let mut late = Far::dial(node.address, 1, node.id()).await;
    let (said, _) = late.rest().await;
    assert_eq!(said, Vec::<bytes::Bytes>::new(), "not even an init");
    let failed = node.watch.inbound_failed().await;
    assert_eq!(failed, ("not_admitted", "not admitted: draining".into()));
    let door = Door::open().await;
    let spec = PeerSpec::new(id(2), door.address);
    let refused = soon("an answer", node.supervisor.connect(spec)).await;
    assert_eq!(refused.err(), Some(ConnectError::Draining));

    // The slow one reads after all.
    let (said, end) = slow.rest().await;
    assert!(!said.is_empty());
    assert_eq!(end, Got::Eof);
    drop(slow);
    soon("the drain", drain).await.unwrap();
    assert_eq!(drained(&mut node).await, (1, 0));
    // Nobody listens any more, and nothing begins again.
    while TcpStream::connect(node.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let spec = PeerSpec::new(id(2), door.address);
    let refused = soon("an answer", node.supervisor.connect(spec)).await;
    assert_eq!(refused.err(), Some(ConnectError::Stopped));
    soon("a second drain", node.supervisor.drain()).await;
    let dialled = |event: &Event| matches!(event, Event::Dialing { .. });
    assert_eq!(node.watch.count(dialled), 0);
}

#[tokio::test]
async fn p9_a_peer_that_does_not_read_is_reset_at_the_deadline() {
    for inbound in [false, true] {
        let mut node = Node::live().await;
        let (mut slow, link) = if inbound {
            node.accept(900).await
        } else {
            node.dial(900).await
        };
        let (mut good, _) = node.accept(1).await;
        slow.send(&message(265, &[0; 40])).await;
        node.next_message().await;
        let queued = clog(&link).await;
        let drain = drain(&node);
        assert_eq!(good.rest().await, (Vec::new(), Got::Eof));
        drop(good);
        node.next_down().await;
        node.clock.advance(just_before(limits::DRAIN_DEADLINE));
        node.supervisor.peers().await.unwrap();
        assert_eq!(node.supervisor.mode(), Mode::Draining);
        assert!(!drain.is_finished());
        node.clock.advance(INSTANT);
        soon("the drain", drain).await.unwrap();
        assert_eq!(drained(&mut node).await, (1, 1));
        let (said, end) = slow.rest().await;
        assert_eq!(end, Got::Reset);
        assert!(said.len() < queued as usize);
    }
}

#[tokio::test]
async fn a_drain_ends_also_where_no_signer_ever_was_and_with_strangers_waiting() {
    let mut node = Node::waiting().await;
    let mut parked = Wire::connect(node.address).await;
    node.watch
        .until("parked", |event| {
            (*event == Event::Parked { now: 1 }).then_some(())
        })
        .await;
    soon("the drain", node.supervisor.drain()).await;
    assert_eq!(drained(&mut node).await, (0, 0));
    assert_eq!(parked.rest().await, [0_u8; 0]);
    assert!(soon("the inbox ends", node.inbox.recv()).await.is_none());
}

#[tokio::test]
async fn a_drain_gives_up_dials_that_are_under_way() {
    let mut node = Node::live().await;
    let door = Door::open().await;
    let spec = PeerSpec::new(id(1), door.address);
    let supervisor = node.supervisor.clone();
    let dial = tokio::spawn(async move { supervisor.connect(spec).await });
    let mut wire = Wire {
        socket: door.socket().await,
    };
    soon("the drain", node.supervisor.drain()).await;
    let outcome = soon("an answer", dial).await.unwrap();
    assert_eq!(outcome.err(), Some(ConnectError::Draining));
    // Act one, and then no more.
    assert!(wire.rest().await.len() <= 50);
    assert_eq!(drained(&mut node).await, (0, 0));
}

#[tokio::test]
async fn p3_dropping_the_last_handle_closes_every_link() {
    let mut node = Node::live().await;
    let (mut inbound, to_inbound) = node.accept(1).await;
    let (mut outbound, to_outbound) = node.dial(2).await;
    let address = node.address;
    let Node {
        supervisor, inbox, ..
    } = node;
    drop(supervisor);
    for (far, link) in [(&mut inbound, to_inbound), (&mut outbound, to_outbound)] {
        let (said, _) = far.rest().await;
        assert_eq!(said, Vec::<bytes::Bytes>::new());
        assert!(link.closed().is_some());
        assert!(link.send(message(261, &[])).await.is_err());
    }
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(inbox);
}

/// Fills a link's share of the inbox, and then some: the link holds what the node does not receive.
async fn overfill(node: &Node, far: &mut Far) {
    let body = vec![0; 65_000];
    let fit = limits::INBOX_PER_LINK / body.len();
    for _ in 0..fit + 4 {
        far.send(&message(32_769, &body)).await;
    }
    loop {
        let peers = node.supervisor.peers().await.unwrap();
        let peer = peers.iter().find(|peer| peer.node_id == far.id).unwrap();
        if peer.link.as_ref().unwrap().frames_in > fit as u64 + 1 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A node that keeps its inbox and receives nothing must not keep the tasks of links that have ended.
#[tokio::test]
async fn p9_no_task_outlives_a_drain_that_overran() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let mut node = Node::live().await;
    let (mut inbound, _) = node.accept(1).await;
    let (mut outbound, _) = node.dial(2).await;
    overfill(&node, &mut inbound).await;
    overfill(&node, &mut outbound).await;
    let drain = drain(&node);
    is_draining(&mut node).await;
    node.clock.advance(limits::DRAIN_DEADLINE);
    soon("the drain", drain).await.unwrap();
    drop((inbound, outbound));
    let Node {
        supervisor, inbox, ..
    } = node;
    drop(supervisor);
    soon("the last task's end", async {
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(inbox);
}

/// A clock of the embedder's that breaks.
struct Breaking {
    clock: ManualClock,
    is_broken: Arc<AtomicBool>,
}

impl Clock for Breaking {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn unix(&self) -> Duration {
        self.clock.unix()
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        assert!(!self.is_broken.load(Ordering::Relaxed), "as it should");
        self.clock.sleep_until(at)
    }
}

/// If the supervisor's task panics, no link lives on without it.
#[tokio::test]
async fn p3_a_supervisor_that_panics_takes_its_links_with_it() {
    let (clock, is_broken) = (ManualClock::new(), Arc::new(AtomicBool::new(false)));
    let breaking = Breaking {
        clock: clock.clone(),
        is_broken: Arc::clone(&is_broken),
    };
    let mut node = Node::live_with(|builder| builder.clock(Arc::new(breaking))).await;
    let (mut inbound, to_inbound) = node.accept(1).await;
    let (mut outbound, to_outbound) = node.dial(2).await;
    is_broken.store(true, Ordering::Relaxed);
    clock.advance(Duration::from_secs(60));
    for (far, link) in [(&mut inbound, to_inbound), (&mut outbound, to_outbound)] {
        assert_eq!(far.rest().await.1, Got::Reset);
        assert!(link.closed().is_some());
    }
    assert!(node.supervisor.peers().await.is_err());
}
