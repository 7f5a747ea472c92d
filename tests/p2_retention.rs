//! P2: across lapses and returns a gossip link loses, repeats and reorders nothing, in either direction, through any number of key
//! rotations; a full queue is an error to the sender or a wait, never a skip. On real sockets.
//!
//! Numbered messages go both ways while the signer comes and goes. The far side asks for gossip first, so that the node may relay
//! also while no signer is there. Both receivers expect exactly the next number each time.
//!
//! Seen red: with `Outbox::try_put` dropping the oldest message instead of refusing; with `LinkTask::pump_inbox` giving up a message
//! when the inbox is full; with the vault tearing down every link at a lapse.
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
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

mod rig;

use bytes::Bytes;
use fastrand::Rng;
use pilotlight::limits;
use pilotlight::link::{LinkHandle, SendError, Tag};
use pilotlight::supervisor::{Inbound, Inbox, Mode, PeerSpec};
use rig::{
    Buffers, CUSTOM, Far, GOSSIP, Node, Reader, Wire, Writer, kind_of, number_of, numbered, within,
};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How messages are numbered and sized; both ends compute the same.
#[derive(Clone, Copy)]
struct Traffic {
    messages: u64,
    seed: u64,
    /// Sizes up to this, in bytes, from 2 on: the type and nothing else.
    largest: usize,
}

impl Traffic {
    /// The `number`th message: gossip and custom in turn.
    fn message(self, number: u64) -> Vec<u8> {
        let mut random = Rng::with_seed(self.seed ^ number);
        let kind = if number.is_multiple_of(3) {
            CUSTOM
        } else {
            GOSSIP
        };
        // Mostly small, sometimes the largest that a frame holds.
        let length = match random.u8(..) {
            0..8 => self.largest,
            8..64 => random.usize(10..=self.largest),
            64..70 => random.usize(2..10),
            _ => random.usize(10..=self.largest.min(600)),
        };
        let mut message = numbered(kind, number, length);
        message.truncate(length);
        message
    }

    fn check(self, number: u64, message: &[u8]) {
        if message.len() < 10 {
            assert_eq!(
                message,
                self.message(number),
                "lost, repeated or out of order"
            );
            return;
        }
        assert_eq!(number_of(message), number, "lost, repeated or out of order");
        assert_eq!(
            kind_of(message),
            if number.is_multiple_of(3) {
                CUSTOM
            } else {
                GOSSIP
            }
        );
        // The whole of it costs time, so one in 16 is compared byte by byte.
        assert!(
            !number.is_multiple_of(16) || message == self.message(number),
            "message {number} was changed"
        );
    }
}

/// A node with one gossip link, up and asked for gossip.
async fn linked(buffers: Buffers) -> (Node, Inbox, LinkHandle, Wire) {
    let (mut node, mut inbox) = Node::start(|builder| builder).await;
    node.attach().await;
    node.supervisor.declare_channel_peers([]).await.unwrap();
    let far = Far::listen_with(1, buffers);
    let spec = PeerSpec::new(far.id, far.address).tagged(Tag::GossipOnly);
    let (link, mut wire) = within("the link", async {
        tokio::join!(node.supervisor.connect(spec), far.accept())
    })
    .await;
    let link = link.unwrap();
    wire.ask_for_gossip().await;
    loop {
        match within("the filter", inbox.recv()).await.unwrap() {
            Inbound::Message(message) => {
                assert_eq!(message.kind(), 265);
                return (node, inbox, link, wire);
            }
            Inbound::Up { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn send_all(link: LinkHandle, traffic: Traffic) {
    let mut random = Rng::with_seed(traffic.seed);
    for number in 0..traffic.messages {
        let message = Bytes::from(traffic.message(number));
        // Both ways to send: a refusal means that the message was not taken, so it is sent again, by waiting.
        let sent = if random.bool() {
            link.try_send(message.clone())
        } else {
            Err(SendError::Full)
        };
        match sent {
            Ok(_) => {}
            Err(SendError::Full) => drop(link.send(message).await.expect("a gossip link lives on")),
            Err(other) => panic!("message {number}: {other:?}"),
        }
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn far_send_all(mut writer: Writer, traffic: Traffic) -> Writer {
    for number in 0..traffic.messages {
        writer.queue(&traffic.message(number));
        if writer.queued() > 32 * 1024 {
            writer.flush().await.expect("a gossip link lives on");
        }
    }
    writer.flush().await.unwrap();
    writer
}

async fn far_receive_all(mut reader: Reader, traffic: Traffic) -> Reader {
    for number in 0..traffic.messages {
        let message = reader.next().await.expect("a gossip link lives on");
        traffic.check(number, &message);
    }
    reader
}

/// Receives all, and lapses and brings back the signer at `switches` points spread over it. `pause` may wait at each message.
async fn receive_all(
    node: &mut Node,
    inbox: &mut Inbox,
    traffic: Traffic,
    switches: u64,
    mut pause: impl AsyncFnMut(u64),
) -> u64 {
    let every = traffic.messages / (switches + 1);
    let mut lapses = 0;
    for number in 0..traffic.messages {
        pause(number).await;
        let Some(Inbound::Message(message)) = inbox.recv().await else {
            panic!("the link must live on")
        };
        traffic.check(number, &message.bytes);
        if number % every == every - 1 && lapses < switches {
            let _ = node.lapse();
            lapses += 1;
        } else if number % every == every / 2 && node.session.is_none() {
            node.attach().await;
        }
    }
    lapses
}

/// Runs the traffic of both directions over one link and reports the throughput.
async fn exchange(traffic: Traffic, switches: u64, buffers: Buffers, paused: bool) {
    let (mut node, mut inbox, link, wire) = linked(buffers).await;
    let started = Instant::now();
    let Wire { reader, writer } = wire;
    let far_sending = tokio::spawn(far_send_all(writer, traffic));
    let far_receiving = tokio::spawn(far_receive_all(reader, traffic));
    let sending = tokio::spawn(send_all(link.clone(), traffic));
    let mut random = Rng::with_seed(traffic.seed);
    let supervisor = node.supervisor.clone();
    let pause = async |number: u64| {
        if !paused || random.u16(..) >= 64 {
            return;
        }
        // Until the inbox is full and the link holds what finds no room, or all is there. `init` and the filter count too.
        let full = (number + (limits::INBOX_PER_LINK / (16 + limits::INBOX_OVERHEAD)) as u64 + 1)
            .min(traffic.messages)
            + 2;
        loop {
            let peers = supervisor.peers().await.unwrap();
            if peers[0].link.as_ref().expect("the link lives on").frames_in >= full {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let hang = Duration::from_secs(300);
    let receiving = receive_all(&mut node, &mut inbox, traffic, switches, pause);
    let lapses = tokio::time::timeout(hang, receiving)
        .await
        .expect("hung: the node's receiver");
    within("the node's sender", sending).await.unwrap();
    let writer = within("the far side's sender", far_sending).await.unwrap();
    let reader = within("the far side's receiver", far_receiving)
        .await
        .unwrap();
    let took = started.elapsed();
    assert_eq!(lapses, switches);
    let rotations = reader.rotations();
    let least = traffic.messages / 500;
    assert!(
        rotations.0 >= least && rotations.1 >= least,
        "rotations: {rotations:?}"
    );
    assert!(link.closed().is_none());
    assert!(matches!(node.supervisor.mode(), Mode::Live | Mode::Safe));
    assert!(inbox.try_recv().is_none(), "nothing more came");
    println!(
        "  {} messages each way in {took:?}: {:.0} a second both ways together, rotations {rotations:?}, {lapses} lapses",
        traffic.messages,
        2.0 * traffic.messages as f64 / took.as_secs_f64(),
    );
    drop(writer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_gossip_link_loses_repeats_and_reorders_nothing_across_twenty_lapses() {
    let seed = rig::seed("p2_hundred_thousand", 2);
    let traffic = Traffic {
        messages: 100_000,
        seed,
        largest: 430,
    };
    exchange(traffic, 20, Buffers::default(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_messages_of_every_size_pass_across_lapses() {
    let seed = rig::seed("p2_every_size", 3);
    let traffic = Traffic {
        messages: 5_000,
        seed,
        largest: 65_535,
    };
    exchange(traffic, 5, Buffers::default(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_nothing_is_lost_when_the_node_pauses_and_the_buffers_are_tiny() {
    let seed = rig::seed("p2_pauses", 4);
    let traffic = Traffic {
        messages: 20_000,
        seed,
        largest: 10,
    };
    let tiny = Buffers {
        send: Some(4096),
        receive: Some(4096),
    };
    exchange(traffic, 5, tiny, false).await;
    exchange(
        Traffic {
            largest: 2000,
            ..traffic
        },
        5,
        tiny,
        false,
    )
    .await;
    exchange(traffic, 5, Buffers::default(), true).await;
}

/// A full outbox is an error to who will not wait and a wait to who will; what was taken arrives, in order, and nothing else.
#[tokio::test]
async fn p2_a_full_outbox_refuses_or_waits_and_skips_nothing() {
    let (_node, _inbox, link, wire) = linked(Buffers {
        send: None,
        receive: Some(4096),
    })
    .await;
    let Wire { mut reader, writer } = wire;
    // Nobody reads: the kernel's buffers fill up, then the outbox.
    let mut taken = 0;
    let mut refusals = 0;
    // The link's task runs between two tries, until many in a row have been refused: then nothing moves any more.
    while refusals < 1000 {
        match link.try_send(numbered(GOSSIP, taken, 60_000)) {
            Ok(_) => (taken, refusals) = (taken + 1, 0),
            Err(SendError::Full) => refusals += 1,
            Err(other) => panic!("{other:?}"),
        }
        tokio::task::yield_now().await;
    }
    let mut waiting = Box::pin(link.send(numbered(GOSSIP, taken, 60_000)));
    let mut nobody = Context::from_waker(Waker::noop());
    assert!(
        matches!(waiting.as_mut().poll(&mut nobody), Poll::Pending),
        "send waits for room"
    );
    // A wait that is given up has queued nothing.
    drop(waiting);
    let waiting = tokio::spawn({
        let link = link.clone();
        async move {
            link.send(numbered(GOSSIP, taken, 60_000))
                .await
                .unwrap()
                .flushed()
                .await
        }
    });
    for number in 0..=taken {
        let message = within("the rest", reader.next())
            .await
            .expect("the link lives on");
        assert_eq!(number_of(&message), number);
    }
    within("the one that waited", waiting)
        .await
        .unwrap()
        .unwrap();
    println!("  {taken} messages of 60,000 bytes were taken before the first refusal");
    drop(writer);
}
