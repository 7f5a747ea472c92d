//! P9: a hostile peer, and a node that does not receive, meet a bound: reading stops, TCP pushes back, nothing grows, no other link
//! waits, and nothing is lost when it goes on. On real sockets.
//!
//! That a far side is pushed back is seen without a clock: it goes on trying for as long as another link's round trips
//! take, and gets nothing more in. What it got in by then is compared with what the kernel's buffers and ours may hold.
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

mod rig;

use pilotlight::clock::ManualClock;
use pilotlight::limits;
use pilotlight::link::{CloseReason, LinkHandle, Tag};
use pilotlight::supervisor::{Inbound, Inbox, PeerSpec};
use pilotlight::telemetry::{Event, EventStream, Next, Recorded};
use pilotlight::wire::{BITCOIN_MAINNET, Ping, Pong, QueryChannelRange};
use rig::{Buffers, CHANNEL, CUSTOM, Far, GOSSIP, Node, Wire, Writer, number_of, numbered, within};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::TcpListener;

/// More than the kernel's largest default buffers of both ends and ours together.
const FAR_TOO_MUCH: usize = 64 << 20;

/// Small buffers at the far side, so that little has to be sent before it is pushed back.
const SMALL: Buffers = Buffers {
    send: Some(16 * 1024),
    receive: Some(16 * 1024),
};

async fn node(clock: &ManualClock) -> (Node, Inbox) {
    let (mut node, inbox) = Node::start(|builder| builder.clock(Arc::new(clock.clone()))).await;
    node.attach().await;
    node.supervisor.declare_channel_peers([]).await.unwrap();
    (node, inbox)
}

async fn link(node: &Node, number: u64, buffers: Buffers) -> (LinkHandle, Wire) {
    link_tagged(node, number, buffers, Tag::GossipOnly).await
}

async fn link_tagged(node: &Node, number: u64, buffers: Buffers, tag: Tag) -> (LinkHandle, Wire) {
    let far = Far::listen_with(number, buffers);
    let spec = PeerSpec::new(far.id, far.address).tagged(tag);
    let (link, wire) = within("a link", async {
        tokio::join!(node.supervisor.connect(spec), far.accept())
    })
    .await;
    (link.unwrap(), wire)
}

/// One ping and its pong.
async fn round_trip(wire: &mut Wire, bytes: u16) {
    wire.writer
        .send(
            &Ping {
                num_pong_bytes: bytes,
                ignored: 0,
            }
            .encode(),
        )
        .await
        .unwrap();
    let message = within("a pong", wire.reader.next())
        .await
        .expect("the link lives on");
    assert_eq!(message, Pong { ignored: bytes }.encode());
}

/// Writes what `next` gives for as long as the node takes it, and says how many messages and bytes that were. It is pushed back
/// when the node holds all it should and nothing more went in during fifty round trips of another link.
async fn flood(
    writer: &mut Writer,
    other: &mut Wire,
    mut next: impl FnMut(u64) -> Vec<u8>,
    full: impl AsyncFn() -> bool,
) -> (u64, usize) {
    let (mut messages, mut bytes, mut idle) = (0, 0, 0);
    while idle < 50 || !full().await {
        while writer.queued() < 32 * 1024 {
            writer.queue(&next(messages));
            messages += 1;
        }
        let written = writer.flush_now().expect("the link lives on");
        bytes += written;
        assert!(bytes < FAR_TOO_MUCH, "the node goes on reading");
        if written == 0 {
            round_trip(other, 8).await;
            idle += 1;
        } else {
            idle = 0;
        }
    }
    (messages, bytes)
}

/// Messages of the floods below for which the inbox has room.
const ROOM: u64 = (limits::INBOX_PER_LINK / (400 + limits::INBOX_OVERHEAD)) as u64;
const FLOOD_ROOM: u64 = (limits::INBOX_PER_LINK / (430 + limits::INBOX_OVERHEAD)) as u64;

/// Waits until a link has read that many messages.
async fn until_read(node: &Node, link: &LinkHandle, frames: u64) {
    within("messages read", async {
        while frames_in(node, link).await < frames {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn frames_in(node: &Node, link: &LinkHandle) -> u64 {
    let peers = node.supervisor.peers().await.unwrap();
    peers
        .iter()
        .find_map(|peer| peer.link.as_ref().filter(|it| it.id == link.id()))
        .expect("the link lives on")
        .frames_in
}

/// Forty bytes ask for 65,531: a peer that asks for more than anybody needs is closed, and no other link notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_flood_of_pings_closes_its_own_link() {
    let (node, _inbox) = node(&ManualClock::new()).await;
    let (flooded, wire) = link(&node, 1, SMALL).await;
    let (_, mut other) = link(&node, 2, Buffers::default()).await;
    let Wire { reader, mut writer } = wire;
    let ping = Ping {
        num_pong_bytes: 65_531,
        ignored: 0,
    }
    .encode();
    let allowed = limits::PONG_BURST / (65_531 + limits::PONG_OVERHEAD);
    for _ in 0..=allowed {
        writer.queue(&ping);
    }
    writer.flush().await.unwrap();
    within("the flood is closed", async {
        while flooded.closed().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(flooded.closed(), Some(CloseReason::PingFlood));
    let asked = u64::from(allowed) * (65_531 + 4 + 34);
    assert!(
        flooded.bytes_written() <= asked + 1000,
        "{} bytes",
        flooded.bytes_written()
    );
    round_trip(&mut other, 100).await;
    drop((reader, writer));
}

/// Fifty bytes ask for the whole graph: a peer that asks for more than anybody needs is closed, whether the node answers or nobody does,
/// and no other link notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_flood_of_gossip_queries_closes_its_own_link() {
    for (served, number) in [(false, 1), (true, 2)] {
        let clock = ManualClock::new();
        let (mut node, mut inbox) = Node::start(|builder| {
            builder
                .clock(Arc::new(clock.clone()))
                .serves_gossip_queries(served)
        })
        .await;
        node.attach().await;
        node.supervisor.declare_channel_peers([]).await.unwrap();
        let _ = node.lapse();
        node.attach().await;
        let (flooded, wire) = link(&node, number, Buffers::default()).await;
        let (_, mut other) = link(&node, 10, Buffers::default()).await;
        let delivered = tokio::spawn(async move {
            let mut queries = 0;
            while let Some(inbound) = inbox.recv().await {
                queries += u32::from(matches!(inbound, Inbound::Message(_)));
                if matches!(inbound, Inbound::Down { .. }) {
                    break;
                }
            }
            queries
        });
        let Wire {
            mut reader,
            mut writer,
        } = wire;
        let query = QueryChannelRange {
            chain_hash: BITCOIN_MAINNET,
            first_blocknum: 0,
            number_of_blocks: u32::MAX,
        }
        .encode();
        let allowed = limits::QUERY_BURST / limits::QUERY_OF_ALL;
        for _ in 0..=allowed {
            writer.queue(&query);
        }
        writer.flush().await.unwrap();
        within("the end", reader.drain()).await;
        within("the flood is closed", async {
            while flooded.closed().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(flooded.closed(), Some(CloseReason::QueryFlood));
        round_trip(&mut other, 100).await;
        assert_eq!(
            within("the node's end", delivered).await.unwrap(),
            allowed,
            "the last was not delivered"
        );
        drop(writer);
    }
}

/// A flood of gossip on one link, and a node that receives nothing: the flood's link has its share of the inbox and stops. Another link
/// goes on to deliver and to answer: each of its pings stands behind a message for the node, so that a link whose messages found no room
/// would never answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_flood_of_gossip_on_one_link_delays_no_other_links_pong() {
    let (node, mut inbox) = node(&ManualClock::new()).await;
    let (flooding, wire) = link(&node, 1, SMALL).await;
    let (modest, mut other) = link(&node, 2, Buffers::default()).await;
    let (_, mut third) = link(&node, 3, Buffers::default()).await;
    let Wire { reader, mut writer } = wire;
    let (sent, _) = flood(
        &mut writer,
        &mut third,
        |number| numbered(GOSSIP, number, 430),
        async || frames_in(&node, &flooding).await > FLOOD_ROOM,
    )
    .await;
    // Not one message has been received, and none will be until all is answered.
    for turn in 0..1_000 {
        other.writer.queue(&numbered(GOSSIP, turn, 430));
        round_trip(&mut other, 8).await;
    }
    assert!(
        frames_in(&node, &flooding).await < sent,
        "the flood is still pushed back"
    );
    assert_eq!((flooding.closed(), modest.closed()), (None, None));
    let mut seen = 0;
    while seen < 1_000 {
        let Inbound::Message(message) = within("a message", inbox.recv()).await.unwrap() else {
            continue;
        };
        if message.link == modest.id() {
            assert_eq!(number_of(&message.bytes), seen);
            seen += 1;
        }
    }
    drop((reader, writer));
}

/// A peer that asks and takes no answers is not read from any more, and that is its own silence: it is timed out like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_peer_that_takes_no_answers_is_timed_out() {
    let clock = ManualClock::new();
    let (node, _inbox) = node(&clock).await;
    let (stalled, wire) = link(&node, 1, SMALL).await;
    let Wire { reader, mut writer } = wire;
    let ping = Ping {
        num_pong_bytes: 1000,
        ignored: 0,
    }
    .encode();
    // As many as the allowance for pongs has room for.
    let pings = 900;
    for _ in 0..pings {
        writer.queue(&ping);
    }
    let flushing = tokio::spawn(async move {
        let _ = writer.flush().await;
        writer
    });
    // Until so many answers wait that the node reads no more: those in its write buffer, and the most that may wait behind it. Or
    // until it has read all there is: a kernel that is in the mood takes every answer, and then only the pings go unanswered.
    let frame = 1000 + 4 + 34;
    let most = (limits::WRITE_BUFFER / frame + limits::ANSWERS_MAX) as u64 + 1;
    within("the node stops reading", async {
        loop {
            let read = frames_in(&node, &stalled).await;
            if read >= pings || read >= stalled.bytes_written() / frame as u64 + most {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    within("the link is timed out", async {
        while stalled.closed().is_none() {
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(stalled.closed(), Some(CloseReason::PongTimeout));
    drop(reader);
    flushing.abort();
}

/// While nobody receives, links stop reading; pings are answered all the same; nothing is lost once somebody does, however long it
/// took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_an_inbox_that_nobody_reads_stops_the_links_and_loses_nothing() {
    let clock = ManualClock::new();
    let (node, mut inbox) = node(&clock).await;
    let mut told = node.supervisor.events();
    let (stopped, wire) = link(&node, 1, SMALL).await;
    let (_, mut other) = link(&node, 2, Buffers::default()).await;
    let Wire { reader, mut writer } = wire;
    let (sent, bytes) = flood(
        &mut writer,
        &mut other,
        |number| numbered(GOSSIP, number, 400),
        async || frames_in(&node, &stopped).await > ROOM,
    )
    .await;
    let read = frames_in(&node, &stopped).await;
    println!("  {sent} messages sent in {bytes} bytes; {read} read with nobody receiving");
    let batch = (2 * limits::READ_CHUNK / 400) as u64;
    assert!(read <= ROOM + 2 * batch, "{read} messages read");
    // The node is away for ten minutes. The peer sends and answers, and can do nothing about it.
    for _ in 0..20 {
        clock.advance(Duration::from_secs(30));
        answer_pings(&mut other).await;
    }
    assert_eq!(
        stopped.closed(),
        None,
        "a node that does not receive is no fault of the peer"
    );
    assert!(within("a stall", stall(&mut told)).await);
    let flushing = tokio::spawn(async move { writer.flush().await.map(|()| writer) });
    let mut expected = 0;
    while expected < sent {
        match within("the next message", inbox.recv()).await.unwrap() {
            Inbound::Message(message) => {
                assert_eq!(
                    (message.link, number_of(&message.bytes)),
                    (stopped.id(), expected)
                );
                expected += 1;
            }
            Inbound::Up { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    within("the flood's own end", flushing)
        .await
        .unwrap()
        .unwrap();
    // Told once, however often the link waited, and its end once.
    assert!(!within("its end", stall(&mut told)).await);
    while let Some(next) = told.try_next() {
        assert!(
            !matches!(
                next,
                Next::Event(Recorded {
                    event: Event::InboxStalled { .. },
                    ..
                })
            ),
            "{next:?}"
        );
    }
    drop(reader);
}

/// The only link that waits for the node is torn down: that says nothing of the node, which does not receive for all that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_link_that_ends_does_not_say_that_the_node_receives() {
    let clock = ManualClock::new();
    let (mut node, mut inbox) = node(&clock).await;
    let mut told = node.supervisor.events();
    let (stopped, wire) = link_tagged(&node, 1, SMALL, Tag::ChannelBearing).await;
    let (_, mut other) = link(&node, 2, Buffers::default()).await;
    let Wire { reader, mut writer } = wire;
    flood(
        &mut writer,
        &mut other,
        |number| numbered(CHANNEL, number, 400),
        async || frames_in(&node, &stopped).await > ROOM,
    )
    .await;
    let stalled = within("a stall", async {
        tokio::select! {
            stalled = stall(&mut told) => stalled,
            () = async { loop {
                clock.advance(limits::INBOX_STALLED_AFTER / 4);
                answer_pings(&mut other).await;
            } } => unreachable!("it goes on for ever"),
        }
    })
    .await;
    assert!(stalled);
    let _ = node.lapse();
    let down = async {
        loop {
            match told.next().await.expect("the supervisor runs") {
                Next::Event(Recorded { event, .. }) => match event {
                    Event::LinkDown { link, .. } if link == stopped.id() => return,
                    Event::InboxStalled { .. } => panic!("{event:?}"),
                    _ => {}
                },
                other => panic!("{other:?}"),
            }
        }
    };
    within("the link's end", down).await;
    // It receives what is left.
    let _ = within("something", inbox.recv()).await.unwrap();
    assert!(!within("the stall's end", stall(&mut told)).await);
    drop((reader, writer));
}

/// What is said next of a node that does not receive.
async fn stall(told: &mut EventStream) -> bool {
    loop {
        match told.next().await.expect("the supervisor runs") {
            Next::Event(Recorded {
                event: Event::InboxStalled { stalled },
                ..
            }) => return stalled,
            Next::Event(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Answers the node's pings, if there are any before the answer to one of its own.
async fn answer_pings(wire: &mut Wire) {
    wire.writer
        .send(
            &Ping {
                num_pong_bytes: 3,
                ignored: 0,
            }
            .encode(),
        )
        .await
        .unwrap();
    loop {
        let message = within("the node's pong", wire.reader.next())
            .await
            .expect("the link lives on");
        if let Ok(ping) = Ping::decode(&message) {
            wire.writer
                .send(&ping.answer().unwrap().encode())
                .await
                .unwrap();
        } else {
            assert_eq!(message, Pong { ignored: 3 }.encode());
            return;
        }
    }
}

/// One link floods with gossip for as long as it takes: another's messages come through, in order, and the flood goes on too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_flood_on_one_link_does_not_keep_anothers_messages_out() {
    let (node, mut inbox) = node(&ManualClock::new()).await;
    let (flooding, wire) = link(&node, 1, Buffers::default()).await;
    let (modest, mut other) = link(&node, 2, Buffers::default()).await;
    let done = Arc::new(AtomicBool::new(false));
    let flood = tokio::spawn({
        let done = Arc::clone(&done);
        let Wire { reader, mut writer } = wire;
        async move {
            let mut number = 0;
            while !done.load(SeqCst) {
                for _ in 0..64 {
                    writer.queue(&numbered(GOSSIP, number, 430));
                    number += 1;
                }
                writer.flush().await.expect("the link lives on");
            }
            (number, reader, writer)
        }
    });
    let (mut floods, mut before, mut most) = (0, 0, 0);
    for turn in 0..4 {
        // The flood has filled the inbox, and its link holds what finds no room; then the other's message comes and waits.
        until_read(&node, &flooding, floods + FLOOD_ROOM + 1).await;
        let had = frames_in(&node, &modest).await;
        other
            .writer
            .send(&numbered(CUSTOM, turn, 50))
            .await
            .unwrap();
        until_read(&node, &modest, had + 1).await;
        loop {
            let Inbound::Message(message) = within("a message", inbox.recv()).await.unwrap() else {
                continue;
            };
            if message.link == modest.id() {
                assert_eq!(number_of(&message.bytes), turn);
                break;
            }
            assert_eq!(
                (message.link, number_of(&message.bytes)),
                (flooding.id(), floods)
            );
            floods += 1;
        }
        // It stood behind what was in the inbox and the one place that the flood's link waited for; on a busy machine its task
        // may ask for its place a little later. Kept out, it would wait for ever.
        let passed = floods - before;
        most = most.max(passed);
        assert!(
            passed <= 100 * ROOM,
            "{passed} of the flood came before one of the other's"
        );
        assert!(passed > 0, "the flood goes on too");
        before = floods;
    }
    println!(
        "  {floods} messages of the flood were received while the other sent 20; at most {most} between two"
    );
    done.store(true, SeqCst);
    // The flood may wait for room in the inbox: take what is left.
    let mut flood = flood;
    let total = loop {
        tokio::select! {
            total = &mut flood => break total.unwrap().0,
            _ = inbox.recv() => {}
        }
    };
    assert!(total >= floods);
}

/// Dials in vain, more than may be under way at once, and a handful at a time. Each gives its place back, or nobody is dialled ever after.
async fn dialled_in_vain(node: &Node, numbers: std::ops::Range<u64>, address: SocketAddr) {
    let mut events = node.supervisor.events();
    let numbers: Vec<u64> = numbers.collect();
    for some in numbers.chunks(32) {
        for number in some {
            let spec = PeerSpec::new(rig::key(*number).node_id(), address);
            let spec = spec.tagged(Tag::GossipOnly);
            node.supervisor.add_peer(spec).await.unwrap();
        }
        for _ in some {
            let failed = |event| matches!(event, Event::DialFailed { .. }).then_some(());
            rig::event(&mut events, "a dial that fails", failed).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_a_dial_that_fails_gives_its_place_back() {
    const MORE: u64 = limits::DIALS_IN_FLIGHT as u64 + 8;
    // It stands still: nobody is dialled twice.
    let clock = ManualClock::new();
    let (node, _inbox) = node(&clock).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    dialled_in_vain(&node, 1000..1000 + MORE, nobody).await;
    link(&node, 1, Buffers::default()).await;

    let hangs_up = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = hangs_up.local_addr().unwrap();
    tokio::spawn(async move { while hangs_up.accept().await.is_ok() {} });
    dialled_in_vain(&node, 2000..2000 + MORE, address).await;
    link(&node, 2, Buffers::default()).await;
}
