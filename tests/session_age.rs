//! `vault.max_session_age` on real sockets: with a signer a link is made anew before its secrets are too old; without, it lives to that
//! age and is closed. The node's clock moves only when a test moves it.
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

use node::{Door, Far, Got, Node, id, message, soon};
use pilotlight::link::{CloseReason, LinkHandle};
use pilotlight::supervisor::PeerSpec;
use std::time::Duration;

/// Shorter than the shortest silence after which a link is pinged, which these far sides would not answer.
const AGE: Duration = Duration::from_secs(20);

async fn node() -> Node {
    Node::live_with(|builder| builder.max_session_age(Some(AGE))).await
}

/// A link with peer 1, which the node dials at `door`.
async fn dial(node: &mut Node, door: &Door) -> (Far, LinkHandle) {
    let spec = PeerSpec::new(id(1), door.address);
    let answer = async {
        let mut far = door.accept(1).await;
        far.greet().await;
        far
    };
    let (far, link) = tokio::join!(answer, soon("the dial", node.supervisor.connect(spec)));
    node.next_up().await;
    (far, link.unwrap())
}

#[tokio::test]
async fn a_link_is_made_anew_before_its_secrets_are_too_old() {
    let mut node = node().await;
    let door = Door::open().await;
    let (mut far, link) = dial(&mut node, &door).await;
    node.clock.advance(Duration::from_secs(15));
    far.settle().await;
    assert_eq!(link.closed(), None);
    // What is queued at that moment still arrives.
    let _ = link.try_send(message(32_769, b"last")).unwrap();
    node.clock.advance(Duration::from_secs(3));
    let (said, end) = far.rest().await;
    assert_eq!(end, Got::Eof, "closed in peace");
    assert_eq!(said, [message(32_769, b"last")]);
    assert_eq!(node.next_down().await, (link.id(), CloseReason::SessionAge));
    let again = async {
        let mut far = door.accept(1).await;
        far.greet().await;
        far
    };
    let mut far = node.pass_time_until(Duration::from_millis(10), again).await;
    let anew = node.next_up().await;
    assert_ne!(anew.id(), link.id());
    far.settle().await;
}

#[tokio::test]
async fn without_a_signer_a_link_lives_to_that_age_and_no_longer() {
    let mut node = node().await;
    let door = Door::open().await;
    let (mut far, link) = dial(&mut node, &door).await;
    node.lapse().await;
    for at in [18, 19] {
        let now = Duration::from_secs(at);
        node.clock.advance(if at == 18 {
            now
        } else {
            Duration::from_secs(1)
        });
        far.settle().await;
        assert_eq!(link.closed(), None, "{now:?}");
    }
    node.clock.advance(Duration::from_secs(1));
    assert_eq!(far.rest().await.1, Got::Eof);
    assert_eq!(node.next_down().await, (link.id(), CloseReason::SessionAge));
}

/// A persona's link is made anew without a signer, before its secrets are too old, so that the gossip goes on.
#[tokio::test]
async fn a_personas_link_is_made_anew_without_a_signer() {
    let mut node = node().await;
    let door = Door::open().await;
    let (far, _link) = dial(&mut node, &door).await;
    node.lapse().await;
    drop(far);
    node.next_down().await;
    let persona = async |node: &mut Node| {
        let met = async {
            let mut far = door.accept(1).await;
            far.greet().await;
            far
        };
        let far = node.pass_time_until(Duration::from_millis(10), met).await;
        assert_ne!(far.link.remote(), node.id(), "under a throwaway key");
        (far, node.next_up().await)
    };
    let (mut far, link) = persona(&mut node).await;
    node.clock.advance(Duration::from_secs(15));
    far.settle().await;
    assert_eq!(link.closed(), None);
    node.clock.advance(Duration::from_secs(3));
    assert_eq!(far.rest().await.1, Got::Eof);
    assert_eq!(node.next_down().await, (link.id(), CloseReason::SessionAge));
    let (mut far, anew) = persona(&mut node).await;
    assert_ne!(anew.id(), link.id());
    far.settle().await;
}
