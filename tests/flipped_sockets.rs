//! A running node on real sockets, a byte of one link changed on its way, by a relay: that link ends as it must, and the link beside it goes
//! on. A sample of what `tests/flipped_session.rs` does for every byte in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "support/node.rs"]
#[allow(unreachable_pub, missing_docs)]
mod node;
#[path = "support/signers.rs"]
#[allow(unreachable_pub, missing_docs)]
mod signers;

use node::{Far, Node, id, init, key, message, soon};
use pilotlight::brontide::{
    ACT_ONE_LEN, ACT_THREE_LEN, ACT_TWO_LEN, FRAME_OVERHEAD, HEADER_LEN, MESSAGES_PER_KEY,
};
use pilotlight::link::CloseReason;
use pilotlight::link::raw::{RawError, RawLink};
use pilotlight::supervisor::Inbound;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

/// A type that nobody has assigned, which the node gets.
const CUSTOM: u16 = 32_769;
/// Messages that each end sends: across a rotation.
const MESSAGES: usize = 504;
const BODY: usize = 2;
const FRAME: usize = 2 + BODY + FRAME_OVERHEAD;

/// Which direction is changed, seen from the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// Passes one connection on to the node, from a loopback address of its own, so that the node takes each for another stranger.
async fn relay(node: SocketAddr, way: Way, offset: usize, case: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        let source = Ipv4Addr::new(127, 7, case, 1);
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        let far = socket.connect(node).await.unwrap();
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let at = |this| (way == this).then_some(offset);
        tokio::join!(
            pass(near_in, far_out, at(Way::In)),
            pass(far_in, near_out, at(Way::Out))
        );
    });
    address
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    offset: Option<usize>,
) {
    let (mut passed, mut chunk) = (0, [0; 4096]);
    while let Ok(length) = from.read(&mut chunk).await
        && length > 0
    {
        if let Some(at) = offset
            && (passed..passed + length).contains(&at)
        {
            chunk[at - passed] ^= 1 << (at % 8);
        }
        passed += length;
        if to.write_all(&chunk[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// The frame that an offset lies in, after the handshake and an `init` of this length: 0 is `init`.
fn frame_of(handshake: usize, init: usize, offset: usize) -> usize {
    let after = offset - handshake;
    let first = init + FRAME_OVERHEAD;
    if after < first {
        return 0;
    }
    1 + (after - first) / FRAME
}

/// Bytes of a stream that are worth a connection: of every part of it, and around the rotation of the key.
fn sample(acts: &[usize], init: usize) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut start = 0;
    for length in acts {
        offsets.extend([start, start + 1, start + 34, start + length - 1]);
        start += length;
    }
    let rotated = usize::try_from(MESSAGES_PER_KEY).unwrap() - 1;
    let frame = |number: usize| start + init + FRAME_OVERHEAD + number * FRAME;
    offsets.extend([
        start,
        start + HEADER_LEN - 1,
        start + HEADER_LEN,
        frame(0) - 1,
    ]);
    for number in [0, 7, rotated - 1, rotated, rotated + 1] {
        let first = frame(number);
        offsets.extend([first, first + HEADER_LEN, first + FRAME - 1]);
    }
    offsets
}

/// The far side talks, as far as it gets.
async fn says_all(far: &mut RawLink) {
    let body = [7; BODY];
    let messages = std::iter::once(init()).chain((0..MESSAGES).map(|_| message(CUSTOM, &body)));
    for message in messages {
        if soon("the kernel's buffer", far.send(&message))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// What the node is given on a link until it ends: messages, and why it ended.
async fn given(node: &mut Node) -> (usize, CloseReason) {
    let mut messages = 0;
    loop {
        match node.next().await {
            Inbound::Message(_) => messages += 1,
            Inbound::Down { reason, .. } => return (messages, reason),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_changed_byte_to_the_node_ends_its_link_there_and_then_and_the_link_beside_goes_on() {
    let mut node = Node::live().await;
    let (mut beside, _) = node.accept(2).await;
    let handshake = ACT_ONE_LEN + ACT_THREE_LEN;
    for (case, offset) in (1..).zip(sample(&[ACT_ONE_LEN, ACT_THREE_LEN], init().len())) {
        let address = relay(node.address, Way::In, offset, case).await;
        let number = 100 + u16::from(case);
        let dial = RawLink::connect(address, Arc::new(key(number)), node.id());
        let far = soon("acts", dial).await;
        assert_eq!(far.is_err(), offset < ACT_ONE_LEN, "byte {offset}");
        if let Ok(mut far) = far {
            says_all(&mut far).await;
        }
        if offset < handshake {
            let (failure, detail) = node.watch.inbound_failed().await;
            println!("byte {offset}: {failure}: {detail}");
        } else {
            let frame = frame_of(handshake, init().len(), offset);
            if frame == 0 {
                // Its link is admitted when `init` is due, and the node is told of it only when it is up.
                let (failure, detail) = node.watch.inbound_failed().await;
                println!("byte {offset}: {failure}: {detail}");
            } else {
                let expected = (frame - 1, CloseReason::Transport);
                assert_eq!(given(&mut node).await, expected, "byte {offset}");
            }
        }
        assert_eq!(beside.settle().await, Vec::<bytes::Bytes>::new());
    }
    assert_eq!(node.supervisor.snapshot().links.gossip_only, 1);
}

#[tokio::test]
async fn a_changed_byte_of_the_nodes_is_refused_by_who_gets_it_and_the_link_beside_goes_on() {
    let mut node = Node::live().await;
    let (mut beside, _) = node.accept(2).await;
    let (_third, theirs) = greeted(&mut node, 3).await;
    let mut refused = 0;
    for (case, offset) in (1..).zip(sample(&[ACT_TWO_LEN], theirs)) {
        let address = relay(node.address, Way::Out, offset, case).await;
        let number = 100 + u16::from(case);
        let dial = RawLink::connect(address, Arc::new(key(number)), node.id());
        let far = soon("acts", dial).await;
        assert_eq!(far.is_err(), offset < ACT_TWO_LEN, "byte {offset}");
        refused += usize::from(far.is_err());
        if let Ok(mut far) = far {
            soon("init", far.send(&init())).await.unwrap();
            let link = node.next_up().await;
            for _ in 0..MESSAGES {
                drop(link.try_send(message(CUSTOM, &[7; BODY])).unwrap());
            }
            let mut received = 0;
            let error = loop {
                match soon("the stream", far.receive()).await {
                    Ok(Some(_)) => received += 1,
                    Ok(None) => panic!("byte {offset}: taken"),
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(error, RawError::Session(_)),
                "byte {offset}: {error}"
            );
            assert_eq!(
                received,
                frame_of(ACT_TWO_LEN, theirs, offset),
                "byte {offset}"
            );
            drop(far);
            let (messages, reason) = given(&mut node).await;
            assert!(messages == 0 && matches!(reason, CloseReason::PeerClosed | CloseReason::Io));
        }
        assert_eq!(beside.settle().await, Vec::<bytes::Bytes>::new());
    }
    assert_eq!(refused, 4, "what the handshake must refuse");
}

/// A link that is up, and how long the node's `init` is.
async fn greeted(node: &mut Node, number: u16) -> (Far, usize) {
    let mut far = Far::dial(node.address, number, node.id()).await;
    far.send(&init()).await;
    let theirs = far.expect(16).await;
    assert_eq!(node.next_up().await.peer(), id(number));
    (far, theirs.len())
}
