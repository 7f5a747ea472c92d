//! The node and an unmodified LDK, a faulty network between them, and a second LDK beside it whose link must feel nothing.

use std::sync::Arc;

use pilotlight::link::{
    CloseReason, Direction, HandshakeFailure, Identity, LinkHandle, SendError, Tag,
};
use pilotlight::signer::Epoch;
use pilotlight::supervisor::Mode;
use pilotlight::telemetry::Event;

use crate::failures::{self, INSIDE};
use crate::ldk_cell::{Cell, STEP, failed, up_of};
use crate::ldk_handlers::Records;
use crate::ldk_round_trips::round_trips;
use crate::live_node::{Events, Received, is_custom};
use crate::numbered::{assert_same, numbered, stream};
use crate::proxy::Fault;
use crate::table::fill;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The node dials LDK.
    WeDial,
    /// LDK dials the node.
    TheyDial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    ActOne,
    ActTwo,
    ActThree,
    Init,
    /// Nothing is said but a ping.
    Idle,
    TransferIn,
    TransferOut,
    /// Around the last message under a key: message 500.
    RotationIn,
    RotationOut,
    /// Gossip goes on, and no signer is there.
    Lapse,
    /// The channel link's handshake as the signer has come back.
    Return,
}

const PHASES: [(Phase, &str); 11] = [
    (Phase::ActOne, "act 1"),
    (Phase::ActTwo, "act 2"),
    (Phase::ActThree, "act 3"),
    (Phase::Init, "init"),
    (Phase::Idle, "idle"),
    (Phase::TransferIn, "transfer in"),
    (Phase::TransferOut, "transfer out"),
    (Phase::RotationIn, "rotation in"),
    (Phase::RotationOut, "rotation out"),
    (Phase::Lapse, "lapse"),
    (Phase::Return, "return"),
];

/// What a narrow way passes in a tenth of a second, of a transfer.
const WIDER_SHARE: usize = 4096;
/// And of one that the kernel does not take at once.
const WIDEST_SHARE: usize = 128 * 1024;
/// Messages of 60,000 bytes: more than any kernel takes of them.
const FLOOD: u32 = 500;
const LARGE: usize = 60_000;
/// Messages of a transfer, and how far into them the fault strikes.
const MESSAGES: u32 = 300;
const INTO: usize = 20_000;
/// BOLT 8: a message uses two nonces of a thousand.
const MESSAGES_PER_KEY: u64 = 500;

/// Strikes while hands are shaken.
async fn shaking(cell: &mut Cell, direction: Direction, at: usize) -> String {
    cell.arm(direction, at);
    cell.begin(Tag::GossipOnly).await;
    shaken(cell).await
}

/// A handshake that has begun and is struck: how it ends.
async fn shaken(cell: &mut Cell) -> String {
    cell.struck().await;
    if cell.fault.is_mild() {
        let peer = cell.ldk.id();
        cell.see_through_to("the link is up", up_of(peer, Identity::Node))
            .await;
        assert_eq!(cell.seen(failed), None);
        let link = cell.up(Identity::Node).await;
        // What was narrow is wide enough for a talk.
        cell.proxy.grant(1 << 20);
        cell.talk(&link).await;
        return "up".to_owned();
    }
    cell.ldk_gives_up();
    let (label, detail) = cell.consequence("a handshake fails", failed).await;
    let can_be = failures::of_handshake(cell.role, cell.phase, cell.fault);
    let failure = failures::one_of(can_be, HandshakeFailure::label, (label, &detail));
    let (result, shown) = counted_and_shown(label, &failure);
    assert_eq!(cell.counted(), result, "what is counted");
    // Who dials again may have got through by now.
    let up = up_of(cell.ldk.id(), Identity::Node);
    let has_failed = |event: &Event| failed(event).map(|_| true).or(up(event).map(|_| false));
    assert_eq!(cell.seen(has_failed), Some(true), "it was never up");
    let link = cell.again(Identity::Node).await;
    cell.talk(&link).await;
    format!("refused ({shown}), up again")
}

/// How a failed handshake is counted, and shown in the table.
fn counted_and_shown(label: &'static str, failure: &HandshakeFailure) -> (&'static str, String) {
    match failure {
        HandshakeFailure::BeforeInit(_) => ("ok", label.to_owned()),
        HandshakeFailure::Closed { act, received } => {
            (label, format!("{label}, {received} of act {act}"))
        }
        HandshakeFailure::Io { act, .. } | HandshakeFailure::Timeout { act } => {
            (label, format!("{label}, act {act}"))
        }
        HandshakeFailure::Protocol(error) => (label, format!("{label}, {}", error.act())),
        other => panic!("{other}"),
    }
}

/// A link that only keeps itself alive: the fault strikes its ping.
async fn idle(cell: &mut Cell) -> String {
    let link = cell.settled(Tag::GossipOnly).await;
    cell.mark();
    cell.arm_ahead(Direction::Outbound, 0);
    while cell.proxy.struck() == 0 {
        cell.pass(STEP).await;
    }
    if cell.fault.is_mild() {
        let peer = cell.ldk.id();
        let pong = move |event: &Event| match event {
            Event::Pong { peer: of, .. } if *of == peer => Some(()),
            _ => None,
        };
        cell.see_through_to("the pong", pong).await;
        cell.proxy.grant(1 << 20);
        cell.talk(&link).await;
        assert!(link.closed().is_none());
        return "retained".to_owned();
    }
    let reason = cell.loss(&link, Direction::Outbound).await;
    let link = cell.again(Identity::Node).await;
    cell.talk(&link).await;
    format!("lost ({reason}), up again")
}

/// Strikes a transfer of these messages in one direction, so many bytes into it. `identity`: whose link takes the place of one that is
/// lost; `None`: nobody's, for now.
async fn transfer(
    cell: &mut Cell,
    link: &LinkHandle,
    direction: Direction,
    ahead: usize,
    messages: Vec<Vec<u8>>,
) -> Option<&'static str> {
    cell.mark();
    let (come, gone) = cell.counts();
    cell.arm_ahead(direction, ahead);
    let inbound = direction == Direction::Inbound;
    if inbound {
        cell.ldk.send(cell.node.id(), messages.clone());
    } else {
        let (link, messages) = (link.clone(), messages.clone());
        // Whoever sends on a link that ends is told so.
        tokio::spawn(async move {
            for message in messages {
                if link.send(message).await.is_err() {
                    return;
                }
            }
        });
    }
    cell.struck().await;
    let all = messages.len();
    if cell.fault.is_mild() {
        let (received, records) = (
            Arc::clone(&cell.node.received),
            Arc::clone(&cell.ldk.records),
        );
        let peer = cell.ldk.id();
        let done = tokio::spawn(async move {
            if inbound {
                let whole = |r: &Received| r.from(peer, is_custom).len() >= come + all;
                received.until_true("the transfer", whole).await;
            } else {
                let whole = |r: &Records| r.custom.len() >= gone + all;
                records.until_true("the transfer", whole).await;
            }
        });
        cell.see_through(WIDER_SHARE, done).await;
        let (theirs, ours) = (cell.come()[come..].to_vec(), cell.gone()[gone..].to_vec());
        assert_same(
            "the transfer",
            if inbound { &theirs } else { &ours },
            &messages,
        );
        cell.proxy.grant(1 << 20);
        cell.talk(link).await;
        assert!(link.closed().is_none());
        return None;
    }
    let reason = cell.loss(link, direction).await;
    let (theirs, ours) = (cell.come()[come..].to_vec(), cell.gone()[gone..].to_vec());
    let arrived = if inbound { theirs } else { ours };
    assert!(arrived.len() < all, "the fault has struck nothing");
    assert_same("what came before", &arrived, &messages[..arrived.len()]);
    Some(reason)
}

async fn plain_transfer(cell: &mut Cell, direction: Direction) -> String {
    let link = cell.settled(Tag::GossipOnly).await;
    let messages = stream(3, MESSAGES);
    match transfer(cell, &link, direction, INTO, messages).await {
        None => "retained".to_owned(),
        Some(reason) => {
            let link = cell.again(Identity::Node).await;
            cell.talk(&link).await;
            format!("lost ({reason}), up again")
        }
    }
}

/// A flood on a narrow way: the kernel takes no more, the outbox is full, whoever sends waits, and all else goes on. Then it gets
/// through, all of it and in order.
async fn flood(cell: &mut Cell) -> String {
    let link = cell.settled(Tag::GossipOnly).await;
    let large = |number| {
        let mut message = numbered(6, number);
        message.resize(LARGE, 0);
        message
    };
    let (come, gone) = cell.counts();
    cell.arm_ahead(Direction::Outbound, INTO);
    let (mut queued, mut heard, mut theirs) = (0, 0, stream(3, FLOOD).into_iter());
    loop {
        match link.try_send(large(queued)).map(drop) {
            Ok(()) => queued += 1,
            Err(SendError::Full) => {
                let before = link.bytes_written();
                cell.ldk.send(cell.node.id(), theirs.next());
                heard += 1;
                cell.node
                    .messages(cell.ldk.id(), is_custom, come + heard)
                    .await;
                // What came has been read, and before it was handed on the kernel was asked to take more: it has refused.
                if link.bytes_written() == before {
                    break;
                }
            }
            Err(other) => panic!("{other}"),
        }
        assert!(queued < FLOOD, "the kernel takes it all");
    }
    cell.struck().await;
    let sent = stream(3, FLOOD);
    assert_same("while it waited", &cell.come()[come..], &sent[..heard]);
    // Whoever sends waits, while all else goes on.
    let waits = link.clone();
    let mut last = Box::pin(async move { waits.send(large(queued)).await.map(drop) });
    tokio::select! {
        biased;
        sent = &mut last => panic!("it has not waited for room: {sent:?}"),
        () = round_trips(&cell.node, &cell.beside, &cell.beside_link, 1) => {}
    }
    let last = tokio::spawn(last);
    let ours: Vec<_> = (0..=queued).map(large).collect();
    let records = Arc::clone(&cell.ldk.records);
    let all = gone + ours.len();
    let done = tokio::spawn(async move {
        let whole = |records: &Records| records.custom.len() >= all;
        records.until_true("the flood", whole).await;
    });
    cell.see_through(WIDEST_SHARE, done).await;
    last.await.unwrap().unwrap();
    assert_same("the flood", &cell.gone()[gone..], &ours);
    cell.proxy.grant(1 << 20);
    cell.talk(&link).await;
    assert!(link.closed().is_none());
    "waited, retained".to_owned()
}

/// How often a key of that direction has been replaced, on any link.
fn rotations(cell: &Cell, direction: Direction) -> u64 {
    cell.node.events.read(|events| events.rotations(direction))
}

/// Messages that the first link has carried in that direction: `init`, and all that the other end was handed.
fn frames(cell: &Cell, direction: Direction) -> u64 {
    let peer = cell.ldk.id();
    let handed = match direction {
        // LDK pings by itself among many messages.
        Direction::Inbound => {
            let pings = cell.ldk.records.read(|all| all.control_count("Sent Ping"));
            pings
                + cell
                    .node
                    .received
                    .read(|all| all.from(peer, |_| true).len())
        }
        Direction::Outbound => cell
            .ldk
            .records
            .read(|all| all.markers + all.custom.len() + all.control_count("Received Pong")),
    };
    1 + u64::try_from(handed).unwrap()
}

/// The fault strikes half in the last message under a key, and half in the first under the next.
async fn rotation(cell: &mut Cell, direction: Direction) -> String {
    let link = cell.settled(Tag::GossipOnly).await;
    let small = |number: u64| [&32_769_u16.to_be_bytes()[..], &number.to_be_bytes()].concat();
    let frame = 18 + small(0).len() + 16;
    let mut number = 0;
    loop {
        let left = MESSAGES_PER_KEY - 1 - frames(cell, direction);
        if left == 0 {
            break;
        }
        let some: Vec<_> = (number..number + left.min(20)).map(small).collect();
        number += left.min(20);
        let (come, gone) = cell.counts();
        if direction == Direction::Inbound {
            let come = come + some.len();
            cell.ldk.send(cell.node.id(), some);
            cell.arrive(come, gone).await;
        } else {
            let gone = gone + some.len();
            for message in some {
                drop(link.send(message).await.unwrap());
            }
            cell.arrive(come, gone).await;
        }
        let answered =
            |all: &Records| all.control_count("Sent Ping") == all.control_count("Received Pong");
        cell.ldk.records.until_true("pongs", answered).await;
    }
    assert_eq!(rotations(cell, direction), 0, "499 do not replace it");
    let last_and_first: Vec<_> = (0..2).map(small).collect();
    let outcome = transfer(cell, &link, direction, frame - INSIDE, last_and_first).await;
    match outcome {
        None => {
            let replaced =
                |events: &Events| Some(events.rotations(direction)).filter(|times| *times > 0);
            let times = cell.node.events.until("a rotation", replaced).await;
            assert_eq!(times, 1, "the 500th replaces it");
            "retained".to_owned()
        }
        Some(reason) => {
            let link = cell.again(Identity::Node).await;
            cell.talk(&link).await;
            format!("lost ({reason}), up again")
        }
    }
}

/// The signer has gone; gossip goes on, until the fault strikes it.
async fn lapse(cell: &mut Cell) -> String {
    let link = cell.settled(Tag::GossipOnly).await;
    cell.mark();
    let lapsed = cell.node.lapse().epoch;
    let report = cell.until("the lapse", report_of(lapsed)).await;
    assert_eq!(report, (0, 2), "dropped and retained");
    assert_eq!(cell.node.supervisor.mode(), Mode::Safe);
    let messages = stream(4, MESSAGES);
    let outcome = transfer(cell, &link, Direction::Inbound, INTO, messages).await;
    match (outcome, cell.role) {
        (None, _) => "retained".to_owned(),
        (Some(reason), Role::WeDial) => {
            cell.again(Identity::Persona).await;
            cell.hears().await;
            cell.mark();
            cell.signer_returns().await;
            let own = cell.redialled(Identity::Node).await;
            cell.talk(&own).await;
            format!("lost ({reason}), persona, up again")
        }
        (Some(reason), Role::TheyDial) => {
            cell.mark();
            cell.ldk.dial(cell.node.id(), cell.proxy.address).await;
            let parked = |event: &Event| matches!(event, Event::Parked { now: 1 }).then_some(());
            cell.until("it waits for the signer", parked).await;
            cell.signer_returns().await;
            let own = cell.up(Identity::Node).await;
            cell.talk(&own).await;
            format!("lost ({reason}), parked, up again")
        }
    }
}

/// Links that were dropped and retained.
fn report_of(lapsed: Epoch) -> impl Fn(&Event) -> Option<(usize, usize)> {
    move |event| match event {
        Event::SignerLapsed(report) if report.epoch == lapsed => {
            Some((report.dropped, report.retained))
        }
        _ => None,
    }
}

/// The channel link comes back with the signer, and is struck where it has just been leased.
async fn returns(cell: &mut Cell) -> String {
    let declared = cell.node.supervisor.declare_channel_peers([cell.ldk.id()]);
    declared.await.unwrap();
    let link = cell.settled(Tag::ChannelBearing).await;
    cell.mark();
    let lapsed = cell.node.lapse().epoch;
    let report = cell.until("the lapse", report_of(lapsed)).await;
    assert_eq!(report, (1, 1), "dropped and retained");
    assert_eq!(cell.node.end_of(&link).await, CloseReason::Lapse);
    cell.ldk.disconnected(1).await;
    // Act three of who dials, act two of who answers: written under the new lease.
    let at = match cell.role {
        Role::WeDial => 50 + INSIDE,
        Role::TheyDial => INSIDE,
    };
    cell.arm(Direction::Outbound, at);
    cell.mark();
    cell.signer_returns().await;
    if cell.role == Role::TheyDial {
        cell.ldk.dial(cell.node.id(), cell.proxy.address).await;
    }
    let outcome = shaken(cell).await;
    if cell.role == Role::WeDial {
        let relit = |event: &Event| match event {
            Event::Relit { up, failed, .. } => Some((*up, *failed)),
            _ => None,
        };
        let newest = |events: &Events| events.0.iter().rev().find_map(relit);
        let relit = cell.node.events.until("a relight", newest).await;
        let expected = if cell.fault.is_mild() { (1, 0) } else { (0, 1) };
        assert_eq!(relit, expected, "P8 says how it went");
    }
    outcome
}

async fn cell(role: Role, phase: Phase, fault: Fault) -> String {
    use Direction::{Inbound, Outbound};
    let mut cell = Cell::open(role, phase, fault).await;
    let we_dial = role == Role::WeDial;
    let (initiator, responder) = if we_dial {
        (Outbound, Inbound)
    } else {
        (Inbound, Outbound)
    };
    let cell = &mut cell;
    let outcome = match phase {
        Phase::ActOne => shaking(cell, initiator, INSIDE).await,
        Phase::ActTwo => shaking(cell, responder, INSIDE).await,
        Phase::ActThree => shaking(cell, initiator, 50 + INSIDE).await,
        Phase::Init => {
            let acts = if we_dial { 50 } else { 50 + 66 };
            shaking(cell, Inbound, acts + INSIDE).await
        }
        Phase::Idle => idle(cell).await,
        Phase::TransferIn => plain_transfer(cell, Inbound).await,
        Phase::TransferOut if fault == Fault::Narrow => flood(cell).await,
        Phase::TransferOut => plain_transfer(cell, Outbound).await,
        Phase::RotationIn => rotation(cell, Inbound).await,
        Phase::RotationOut => rotation(cell, Outbound).await,
        Phase::Lapse => lapse(cell).await,
        Phase::Return => returns(cell).await,
    };
    cell.check(1).await;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_every_phase_of_a_link_that_the_node_dials_hurts_that_link_alone() {
    let title = "the node dials LDK";
    fill(title, &PHASES, |phase, fault| {
        cell(Role::WeDial, phase, fault)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_every_phase_of_a_link_that_ldk_dials_hurts_that_link_alone() {
    let title = "LDK dials the node";
    fill(title, &PHASES, |phase, fault| {
        cell(Role::TheyDial, phase, fault)
    })
    .await;
}
