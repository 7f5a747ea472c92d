//! The lease rule on live links (design.md § Link, scope, fence): what puts a link into the signer's scope, and that a link in it does
//! not survive a lapse. Promotion is on record before the first channel message leaves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/node.rs"]
mod node;
#[path = "support/signers.rs"]
mod signers;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use node::{Far, Got, Node, id, message, soon};
use pilotlight::book::{Book, BookError, BookFuture, PeerRecord};
use pilotlight::link::{CloseReason, LinkHandle, SendError, Tag};
use pilotlight::node_id::NodeId;
use pilotlight::telemetry::Event;
use tokio::sync::{Semaphore, watch};

/// Every BOLT 2 message but the two that open a channel.
fn channel_types() -> impl Iterator<Item = u16> {
    [2_u16, 77, 80, 81, 259]
        .into_iter()
        .chain(33..=41)
        .chain(65..=74)
        .chain(127..=137)
}

/// Everything else that passes while the signer is there.
fn other_types() -> impl Iterator<Item = u16> {
    [
        1_u16, 7, 9, 32, 64, 256, 257, 258, 262, 264, 265, 513, 3, 32_769,
    ]
    .into_iter()
}

/// Links over each of which one message of the given types has passed.
async fn links_with(
    node: &mut Node,
    types: impl Iterator<Item = u16>,
    outbound: bool,
) -> Vec<(u16, Far, LinkHandle)> {
    let mut links = Vec::new();
    for (number, kind) in (1..).zip(types) {
        let (mut far, link) = node.accept(number).await;
        let message = message(kind, &[0; 64]);
        if outbound {
            let receipt = link.send(message.clone()).await.unwrap();
            soon("the kernel", receipt.flushed()).await.unwrap();
            assert_eq!(far.expect(kind).await, message);
        } else {
            far.send(&message).await;
            assert_eq!(node.next_message().await.bytes, message);
        }
        links.push((kind, far, link));
    }
    links
}

/// After a lapse the far side sees the connection reset, or at least cut, and the node learns why.
async fn is_gone(node: &mut Node, far: &mut Far, link: &LinkHandle) {
    let (said, end) = far.rest().await;
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(end, Got::Reset);
    assert_eq!(node.watch.link_down(link.id()).await, CloseReason::Lapse);
}

async fn lapse_counts(node: &mut Node) -> (usize, usize) {
    let report = node.lapse().await;
    (report.dropped, report.retained)
}

async fn no_link_survives_a_channel_message(outbound: bool) {
    let mut node = Node::live().await;
    let links = links_with(&mut node, channel_types(), outbound).await;
    assert_eq!(lapse_counts(&mut node).await, (links.len(), 0));
    for (_, mut far, link) in links {
        is_gone(&mut node, &mut far, &link).await;
    }
}

/// BOLT 1: who gets an `error` fails the channels that it names. A lapse resets and a drain closes in peace, and up to its end each peer
/// reads nothing more, whoever dialled.
#[tokio::test]
async fn p4_a_channel_link_that_a_lapse_or_a_drain_tears_down_carries_no_last_word() {
    for drains in [false, true] {
        let mut node = Node::live().await;
        let mut links = vec![node.accept(1).await, node.dial(2).await];
        for (far, link) in &mut links {
            far.send(&message(136, &[0; 64])).await;
            node.next_message().await;
            let receipt = link.send(message(136, &[0; 64])).await.unwrap();
            soon("the kernel", receipt.flushed()).await.unwrap();
            far.expect(136).await;
        }
        let drain = if drains {
            let supervisor = node.supervisor.clone();
            Some(tokio::spawn(async move { supervisor.drain().await }))
        } else {
            assert_eq!(lapse_counts(&mut node).await, (2, 0));
            None
        };
        for (far, _) in &mut links {
            let end = if drains { Got::Eof } else { Got::Reset };
            assert_eq!(far.rest().await, (Vec::new(), end));
        }
        drop(links);
        if let Some(drain) = drain {
            soon("the drain", drain).await.unwrap();
        }
    }
}

#[tokio::test]
async fn p6_a_link_on_which_a_channel_message_came_does_not_survive_a_lapse() {
    no_link_survives_a_channel_message(false).await;
}

#[tokio::test]
async fn p6_a_link_on_which_a_channel_message_left_does_not_survive_a_lapse() {
    no_link_survives_a_channel_message(true).await;
}

#[tokio::test]
async fn p2_a_link_on_which_anything_else_passed_survives_a_lapse() {
    for outbound in [false, true] {
        let mut node = Node::live().await;
        let links = links_with(&mut node, other_types(), outbound).await;
        assert_eq!(lapse_counts(&mut node).await, (0, links.len()));
        for (_, mut far, link) in links {
            assert_eq!(far.settle().await, Vec::<bytes::Bytes>::new());
            assert_eq!(link.closed(), None);
        }
    }
}

#[tokio::test]
async fn a_link_leased_in_one_session_is_gone_in_the_next_and_a_gossip_link_lives_through_both() {
    let mut node = Node::live().await;
    let (mut gossip, gossip_link) = node.accept(1).await;
    for number in 2..5 {
        let (mut channel, channel_link) = node.accept(number).await;
        channel.send(&message(136, &[0; 64])).await;
        node.next_message().await;
        assert_eq!(lapse_counts(&mut node).await, (1, 1));
        is_gone(&mut node, &mut channel, &channel_link).await;
        node.next_down().await;
        node.attach().await;
        assert_eq!(gossip.settle().await, Vec::<bytes::Bytes>::new());
    }
    assert_eq!(gossip_link.closed(), None);
}

#[tokio::test]
async fn until_the_channel_peers_are_declared_an_unknown_peer_is_channel_bearing() {
    let mut node = Node::waiting().await;
    node.attach().await;
    let (mut far, link) = node.accept(1).await;
    assert_eq!(
        node.supervisor.peers().await.unwrap()[0].tag,
        Tag::ChannelBearing
    );
    assert_eq!(lapse_counts(&mut node).await, (1, 0));
    is_gone(&mut node, &mut far, &link).await;
}

#[tokio::test]
async fn a_declaration_moves_a_live_link_out_of_the_signer_s_scope_or_into_it() {
    let mut node = Node::waiting().await;
    node.attach().await;
    let (mut stranger, _) = node.accept(1).await;
    let (mut partner, partner_link) = node.accept(2).await;
    node.supervisor
        .declare_channel_peers([id(2)])
        .await
        .unwrap();
    let tags: Vec<_> = node.supervisor.peers().await.unwrap();
    let tag_of = |peer| tags.iter().find(|view| view.node_id == peer).unwrap().tag;
    assert_eq!(
        (tag_of(id(1)), tag_of(id(2))),
        (Tag::GossipOnly, Tag::ChannelBearing)
    );
    assert_eq!(lapse_counts(&mut node).await, (1, 1));
    is_gone(&mut node, &mut partner, &partner_link).await;
    assert_eq!(stranger.settle().await, Vec::<bytes::Bytes>::new());
}

#[tokio::test]
async fn a_promoted_peer_s_live_link_does_not_survive_a_lapse() {
    let mut node = Node::live().await;
    let (mut far, link) = node.accept(1).await;
    let (mut other, _) = node.accept(2).await;
    node.supervisor.promote(far.id).await.unwrap();
    let epoch = node
        .watch
        .until("the lease", |event| match event {
            Event::Leased {
                link: of, epoch, ..
            } if *of == link.id() => Some(*epoch),
            _ => None,
        })
        .await;
    let report = node.lapse().await;
    assert_eq!(
        (report.epoch, report.dropped, report.retained),
        (epoch, 1, 1)
    );
    is_gone(&mut node, &mut far, &link).await;
    other.settle().await;
}

#[tokio::test]
async fn a_peer_demoted_before_any_channel_traffic_keeps_its_link_across_a_lapse() {
    let mut node = Node::live().await;
    let (mut far, link) = node.accept(1).await;
    node.supervisor.promote(far.id).await.unwrap();
    far.send(&message(32, &[0; 64])).await;
    node.next_message().await;
    node.supervisor.demote(far.id).await.unwrap();
    assert_eq!(lapse_counts(&mut node).await, (0, 1));
    far.settle().await;
    assert_eq!(link.closed(), None);
}

#[tokio::test]
async fn a_peer_demoted_after_channel_traffic_loses_its_link_at_once() {
    for outbound in [false, true] {
        let mut node = Node::live().await;
        let (mut far, link) = node.accept(1).await;
        node.supervisor.promote(far.id).await.unwrap();
        if outbound {
            link.send(message(136, &[0; 64]))
                .await
                .unwrap()
                .flushed()
                .await
                .unwrap();
            far.expect(136).await;
        } else {
            far.send(&message(136, &[0; 64])).await;
            node.next_message().await;
        }
        node.supervisor.demote(far.id).await.unwrap();
        assert_eq!(far.receive().await, Got::Eof);
        assert_eq!(node.next_down().await, (link.id(), CloseReason::Demoted));
        assert_eq!(
            link.send(message(136, &[])).await.err(),
            Some(SendError::Ended {
                reason: CloseReason::Demoted
            })
        );
    }
}

/// Says when it is asked to save, and saves when it may.
struct SlowBook {
    begun: watch::Sender<Vec<PeerRecord>>,
    done: Mutex<Vec<PeerRecord>>,
    gate: Semaphore,
    fails: AtomicBool,
}

impl SlowBook {
    /// One that waits for permits.
    fn held() -> Arc<Self> {
        Arc::new(Self {
            begun: watch::Sender::default(),
            done: Mutex::default(),
            gate: Semaphore::new(0),
            fails: AtomicBool::new(false),
        })
    }

    /// One that does not wait.
    fn open() -> Arc<Self> {
        let book = Self::held();
        book.gate.add_permits(Semaphore::MAX_PERMITS / 2);
        book
    }

    async fn until_asked(&self, peer: NodeId, tag: Tag) {
        let like = |record: &PeerRecord| record.node_id == peer && record.tag == Some(tag);
        let mut begun = self.begun.subscribe();
        let asked = begun.wait_for(|records| records.iter().any(like));
        soon("the book is asked", asked).await.unwrap();
    }

    fn tag_of(&self, peer: NodeId) -> Option<Tag> {
        let done = self.done.lock().unwrap();
        done.iter().rfind(|record| record.node_id == peer)?.tag
    }
}

/// The book that the supervisor holds; the test holds the other end.
struct Shared(Arc<SlowBook>);

impl Book for Shared {
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()> {
        Box::pin(async move {
            self.0.begun.send_modify(|begun| begun.push(record.clone()));
            self.0.gate.acquire().await.unwrap().forget();
            if self.0.fails.load(SeqCst) {
                return Err(BookError::Other("the disk is full".into()));
            }
            self.0.done.lock().unwrap().push(record);
            Ok(())
        })
    }

    fn remove(&self, _: NodeId) -> BookFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

async fn node_with(book: &Arc<SlowBook>) -> Node {
    let book = Arc::new(Shared(Arc::clone(book)));
    Node::live_with(|builder| builder.book(book)).await
}

/// Sends a channel message on `link` while the book hangs: it leaves when the book is done, and not before.
async fn waits_for_the_book(book: &SlowBook, far: &mut Far, link: &LinkHandle) {
    let receipt = link.send(message(136, &[0; 64])).await.unwrap();
    book.until_asked(far.id, Tag::ChannelBearing).await;
    let written = link.bytes_written();
    let mut flushed = Box::pin(receipt.flushed());
    for _ in 0..100 {
        tokio::task::yield_now().await;
        let early = futures_now(&mut flushed);
        assert_eq!(
            (link.bytes_written(), early),
            (written, None),
            "nothing is on record yet"
        );
    }
    book.gate.add_permits(1);
    assert_eq!(soon("the book is done", flushed).await, Ok(()));
    assert_eq!(book.tag_of(far.id), Some(Tag::ChannelBearing));
    far.expect(136).await;
}

/// What a future gives without waiting.
fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_gossip_peer_s_first_channel_message_leaves_when_the_promotion_is_on_record() {
    let book = SlowBook::held();
    let mut node = node_with(&book).await;
    let (mut far, link) = node.accept(1).await;
    waits_for_the_book(&book, &mut far, &link).await;
    assert_eq!(
        node.supervisor.peers().await.unwrap()[0].tag,
        Tag::ChannelBearing
    );
    // Once is enough.
    link.send(message(136, &[0; 64]))
        .await
        .unwrap()
        .flushed()
        .await
        .unwrap();
    far.expect(136).await;
}

#[tokio::test]
async fn a_promoted_peer_s_first_channel_message_leaves_when_the_promotion_is_on_record() {
    let book = SlowBook::held();
    let mut node = node_with(&book).await;
    let (mut far, link) = node.accept(1).await;
    node.supervisor.promote(far.id).await.unwrap();
    waits_for_the_book(&book, &mut far, &link).await;
}

#[tokio::test]
async fn a_declared_peer_s_first_channel_message_leaves_when_the_declaration_is_on_record() {
    let book = SlowBook::held();
    let mut node = node_with(&book).await;
    let (mut far, link) = node.accept(1).await;
    node.supervisor
        .declare_channel_peers([far.id])
        .await
        .unwrap();
    waits_for_the_book(&book, &mut far, &link).await;
}

#[tokio::test]
async fn a_channel_message_does_not_leave_if_the_book_fails_and_the_link_says_so() {
    let book = SlowBook::open();
    let mut node = node_with(&book).await;
    let (mut far, link) = node.accept(1).await;
    book.fails.store(true, SeqCst);
    let receipt = link.send(message(136, &[0; 64])).await.unwrap();
    // What is queued behind it does not leave in its place.
    let behind = [136, 256, 133].map(|kind| link.try_send(message(kind, &[0; 64])));
    let failed = soon("the book fails", receipt.flushed()).await;
    assert_eq!(
        failed,
        Err(SendError::Ended {
            reason: CloseReason::Book
        })
    );
    assert_eq!(far.rest().await, (Vec::new(), Got::Eof));
    assert_eq!(node.next_down().await, (link.id(), CloseReason::Book));
    for receipt in behind.into_iter().flatten() {
        assert!(receipt.flushed().await.is_err());
    }
    let failed = |event: &Event| matches!(event, Event::BookFailed { .. });
    assert!(node.watch.count(failed) > 0);
    assert_eq!(book.tag_of(far.id), None);
}

/// What failed once is not forgotten: the next link waits for the book just the same.
#[tokio::test]
async fn after_the_book_has_failed_the_peer_s_next_link_waits_for_it_again() {
    let book = SlowBook::open();
    let mut node = node_with(&book).await;
    book.fails.store(true, SeqCst);
    for _ in 0..3 {
        let (mut far, link) = node.accept(1).await;
        let receipt = link.send(message(136, &[0; 64])).await.unwrap();
        let failed = soon("the book fails", receipt.flushed()).await;
        assert_eq!(
            failed,
            Err(SendError::Ended {
                reason: CloseReason::Book
            })
        );
        assert_eq!(far.rest().await, (Vec::new(), Got::Eof));
        assert_eq!(node.next_down().await, (link.id(), CloseReason::Book));
    }
    book.fails.store(false, SeqCst);
    let (mut far, link) = node.accept(1).await;
    link.send(message(136, &[0; 64]))
        .await
        .unwrap()
        .flushed()
        .await
        .unwrap();
    far.expect(136).await;
    assert_eq!(book.tag_of(far.id), Some(Tag::ChannelBearing));
}

/// One peer's record that cannot be written is no reason to stop another's channel.
#[tokio::test]
async fn another_peer_s_failed_record_does_not_stop_a_channel_message() {
    let book = SlowBook::open();
    let mut node = node_with(&book).await;
    let (mut far, link) = node.accept(1).await;
    node.supervisor.promote(far.id).await.unwrap();
    link.send(message(136, &[0; 64]))
        .await
        .unwrap()
        .flushed()
        .await
        .unwrap();
    far.expect(136).await;
    book.fails.store(true, SeqCst);
    node.supervisor.promote(id(2)).await.unwrap();
    node.watch
        .until("the book fails", |event| {
            matches!(event, Event::BookFailed { .. }).then_some(())
        })
        .await;
    // A new link of the first peer: its promotion is on record.
    drop((far, link));
    node.next_down().await;
    let (mut far, link) = node.accept(1).await;
    link.send(message(136, &[0; 64]))
        .await
        .unwrap()
        .flushed()
        .await
        .unwrap();
    far.expect(136).await;
}

/// A disk that hangs holds up the message that must wait for it, and no more: after `limits::BOOK_DEADLINE` the promotion counts as
/// not recorded, so the message never leaves and the link ends.
#[tokio::test]
async fn a_link_that_waits_for_the_book_can_still_be_closed() {
    let book = SlowBook::held();
    let mut node = node_with(&book).await;
    let (mut far, link) = node.accept(1).await;
    let receipt = link.send(message(136, &[0; 64])).await.unwrap();
    book.until_asked(far.id, Tag::ChannelBearing).await;
    link.close();
    let end = node.pass_time_until(Duration::from_secs(1), receipt.flushed());
    let reason = CloseReason::Book;
    assert_eq!(end.await, Err(SendError::Ended { reason }));
    assert_eq!(far.rest().await, (Vec::new(), Got::Eof));
    let reason = CloseReason::Requested;
    assert_eq!(node.next_down().await, (link.id(), reason));
}

#[tokio::test]
async fn p1_a_channel_message_that_waits_for_the_book_does_not_leave_after_a_lapse() {
    let book = SlowBook::held();
    let mut node = node_with(&book).await;
    let (mut far, link) = node.accept(1).await;
    let receipt = link.send(message(136, &[0; 64])).await.unwrap();
    book.until_asked(far.id, Tag::ChannelBearing).await;
    node.lapse().await;
    let written = link.bytes_written();
    node.attach().await;
    book.gate.add_permits(1);
    assert!(soon("the end", receipt.flushed()).await.is_err());
    assert_eq!(link.bytes_written(), written);
    is_gone(&mut node, &mut far, &link).await;
}
