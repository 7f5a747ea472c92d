//! A planned absence of the signer, through the library: what is pending is reported, the node's word decides, and whatever ends the plan
//! before it leaves everything as it was. Links are real, on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::missing_panics_doc
)]

#[path = "support/node.rs"]
mod node;
#[path = "support/signers.rs"]
mod signers;

use node::{Far, Node, id, soon};
use pilotlight::link::{CloseReason, LinkHandle};
use pilotlight::signer::LapseReason;
use pilotlight::supervisor::{Mode, NoWord, PlanError, PlannedAbsence, Urgency};
use pilotlight::telemetry::Event;

fn urgency(pending_htlcs: u32, earliest_expiry_height: u32) -> Urgency {
    Urgency {
        pending_htlcs,
        earliest_expiry_height,
        csv_delay: 144,
    }
}

/// A node with a signer, a link with channel peer 1, and HTLCs pending with two peers.
async fn node() -> (Node, Far, LinkHandle) {
    let mut node = Node::live().await;
    node.supervisor.promote(id(1)).await.unwrap();
    let (far, link) = node.accept(1).await;
    node.supervisor.set_block_height(800_000).await.unwrap();
    for (number, pending, expiry) in [(1, 2, 800_150), (2, 3, 800_090)] {
        let urgency = urgency(pending, expiry);
        node.supervisor
            .set_urgency(id(number), urgency)
            .await
            .unwrap();
    }
    (node, far, link)
}

async fn plan(node: &Node) -> PlannedAbsence {
    soon("a plan", node.supervisor.plan_absence())
        .await
        .unwrap()
}

/// How the plan with that number ended.
async fn outcome(node: &mut Node, number: u64) -> &'static str {
    let over = |event: &Event| match event {
        Event::AbsenceOver {
            number: of,
            outcome,
        } if *of == number => Some(*outcome),
        _ => None,
    };
    node.watch.until("the plan's end", over).await
}

/// Nothing has changed: the session is live, the channel link too, and another absence may be planned.
async fn is_as_it_was(node: &mut Node, far: &mut Far, link: &LinkHandle) {
    assert_eq!(node.supervisor.mode(), Mode::Live);
    assert_eq!(link.closed(), None);
    far.settle().await;
    assert!(node.supervisor.planned_absence().is_none());
    let next = plan(node).await;
    let number = next.number();
    drop(next);
    assert_eq!(outcome(node, number).await, "withdrawn");
}

#[tokio::test]
async fn what_is_pending_is_reported_and_the_session_ends_on_the_nodes_word() {
    let (mut node, mut far, link) = node().await;
    let mut requests = node.supervisor.absence_requests();
    let mut absence = plan(&node).await;
    let shown: Vec<_> = absence
        .pending()
        .peers
        .iter()
        .map(|peer| (peer.node_id, peer.urgency.pending_htlcs, peer.blocks_left))
        .collect();
    assert_eq!(
        shown,
        [(id(2), 3, Some(90)), (id(1), 2, Some(150))],
        "the soonest first"
    );
    assert_eq!(
        (absence.pending().htlcs, absence.pending().block_height),
        (5, Some(800_000))
    );
    let request = soon("the request", requests.next()).await.unwrap();
    assert_eq!(
        (request.number(), request.pending()),
        (absence.number(), absence.pending())
    );
    // No word yet: nothing happens, however often the node's messages go to and fro meanwhile.
    far.settle().await;
    {
        let mut word = std::pin::pin!(absence.word());
        let mut idle = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(word.as_mut().poll(&mut idle).is_pending());
    }
    assert_eq!((node.supervisor.mode(), link.closed()), (Mode::Live, None));
    // It settles one; the report of now says so.
    node.supervisor
        .set_urgency(id(2), urgency(0, 0))
        .await
        .unwrap();
    assert_eq!(node.supervisor.pending().await.unwrap().htlcs, 2);
    assert!(request.go_ahead());
    assert!(!request.refuse("too late"), "the first word counts");
    soon("the word", absence.word()).await.unwrap();
    assert_eq!(
        node.supervisor.mode(),
        Mode::Live,
        "the word alone ends nothing"
    );
    let (number, epoch) = (absence.number(), absence.epoch());
    let lapse = absence.lapse().unwrap();
    assert_eq!((lapse.epoch, lapse.reason), (epoch, LapseReason::Planned));
    assert_eq!(node.supervisor.mode(), Mode::Safe);
    assert_eq!(outcome(&mut node, number).await, "lapsed");
    assert_eq!(node.next_down().await, (link.id(), CloseReason::Lapse));
    assert_eq!(node.lapsed(epoch).await.reason, LapseReason::Planned);
}

#[tokio::test]
async fn who_withdraws_the_plan_has_changed_nothing() {
    let (mut node, mut far, link) = node().await;
    let absence = plan(&node).await;
    let number = absence.number();
    let request = node.supervisor.planned_absence().unwrap();
    drop(absence);
    assert_eq!(outcome(&mut node, number).await, "withdrawn");
    is_as_it_was(&mut node, &mut far, &link).await;
    // A word on a plan that is over goes nowhere.
    request.go_ahead();
    is_as_it_was(&mut node, &mut far, &link).await;
    // Nor does one that was waited for when the wait was given up.
    let mut absence = plan(&node).await;
    {
        let mut word = std::pin::pin!(absence.word());
        let mut idle = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(word.as_mut().poll(&mut idle).is_pending());
    }
    drop(absence);
    is_as_it_was(&mut node, &mut far, &link).await;
}

#[tokio::test]
async fn a_node_that_refuses_keeps_its_signer() {
    let (mut node, mut far, link) = node().await;
    let mut absence = plan(&node).await;
    let request = node.supervisor.planned_absence().unwrap();
    assert!(request.refuse(&format!("not\n now{}", "x".repeat(1000))));
    let Err(NoWord::Refused(why)) = soon("the word", absence.word()).await else {
        panic!("it was refused");
    };
    assert!(
        why.starts_with("not now") && why.len() == pilotlight::limits::ABSENCE_TEXT_MAX,
        "{why}"
    );
    let number = absence.number();
    drop(absence);
    assert_eq!(outcome(&mut node, number).await, "refused");
    is_as_it_was(&mut node, &mut far, &link).await;
}

#[tokio::test]
async fn one_absence_is_planned_at_a_time_and_none_without_a_session() {
    let (mut node, _far, _link) = node().await;
    let first = plan(&node).await;
    let number = first.number();
    assert_eq!(
        node.supervisor.plan_absence().await.unwrap_err(),
        PlanError::Planned { number }
    );
    assert_eq!(node.supervisor.planned_absence().unwrap().number(), number);
    drop(first);
    // A session that ends by itself takes its plan along; the next session is not what was planned for.
    let mut absence = plan(&node).await;
    node.lapse().await;
    assert_eq!(
        soon("the word", absence.word()).await,
        Err(NoWord::SignerAway)
    );
    node.attach().await;
    let number = absence.number();
    assert!(absence.lapse().is_none(), "another session is not touched");
    assert_eq!(outcome(&mut node, number).await, "signer_away");
    assert_eq!(node.supervisor.mode(), Mode::Live);
    node.lapse().await;
    assert_eq!(
        node.supervisor.plan_absence().await.unwrap_err(),
        PlanError::SignerAway
    );
    node.supervisor.drain().await;
    assert!(matches!(
        node.supervisor.plan_absence().await.unwrap_err(),
        PlanError::Draining | PlanError::Stopped
    ));
}
