//! Round trips between a node and an LDK: when one is over, each has dealt with all that the other had sent before.

use pilotlight::link::LinkHandle;

use crate::ldk_handlers::MARKER;
use crate::ldk_peer::LdkPeer;
use crate::live_node::Node;

/// Goes to LDK and back `times` times. After the first, LDK has dealt with all that came before, pongs included; after the
/// third it has also done all that it does upon that, such as ending its service of the graph.
pub(crate) async fn round_trips(node: &Node, ldk: &LdkPeer, link: &LinkHandle, times: usize) {
    let marker = MARKER.to_be_bytes().to_vec();
    let is_marker = |kind| kind == MARKER;
    for _ in 0..times {
        let come = ldk.records.read(|records| records.markers);
        let gone = node
            .received
            .read(|received| received.from(ldk.id(), is_marker).len());
        link.send(marker.clone())
            .await
            .unwrap()
            .flushed()
            .await
            .unwrap();
        ldk.records
            .until_true("our marker reaches LDK", |records| records.markers > come)
            .await;
        ldk.send(node.id(), [marker.clone()]);
        node.messages(ldk.id(), is_marker, gone + 1).await;
    }
}
