//! Real LDK and a persona: accepted, served, and replaced by the node's own link with no gap.

use pilotlight::link::{CloseReason, Identity, Tag};
use pilotlight::supervisor::{Mode, PeerSpec};
use std::collections::HashSet;

use crate::exchange::as_ldk_serves;
use crate::ldk_handlers::Records;
use crate::ldk_peer::{LdkPeer, ldk_key};
use crate::live_node::{Node, is_gossip};
use crate::numbered::assert_same;
use crate::real_gossip::mainnet;
use crate::signed_region::Region;

/// The catch-up is the supervisor's own: nobody sends a filter here.
#[tokio::test(flavor = "multi_thread")]
async fn p7_ldk_takes_a_persona_serves_it_gossip_and_sees_it_replaced_without_a_gap() {
    let mut node = Node::start_with(60, |builder| builder.gossip_floor(1).auto_sync(true)).await;
    let ldk = LdkPeer::new(160);
    let region = Region::new(60, 20, 50);
    ldk.learn(&region.whole());
    // Real channels of mainnet too, where they are at hand: some are known of old, the others LDK learns later. It checks their signatures.
    let all = mainnet(256, usize::MAX);
    let (channels, news) = all.split_at(all.len() / 2);
    ldk.learn(channels);
    let address = ldk.listen().await;
    let _ = node.lapse();
    assert_eq!(node.supervisor.mode(), Mode::Safe);
    let spec = PeerSpec::new(ldk.id(), address).tagged(Tag::GossipOnly);
    let asked = std::time::Instant::now();
    node.supervisor.add_peer(spec).await.unwrap();

    let (persona, _) = node.link_with(ldk.id(), 1).await;
    assert_eq!(persona.identity(), Identity::Persona);
    println!(
        "a persona's link {:?} after the peer was known",
        asked.elapsed()
    );
    ldk.introduced(1).await;
    let key = ldk.records.read(|records| records.connected[0].peer);
    assert_ne!(key, ldk_key(node.id()), "LDK is not told who we are");
    let served = as_ldk_serves(&region);
    let expected = served.len() + channels.len();
    let came = node.messages(ldk.id(), is_gossip, expected).await;
    let (real, ours): (Vec<_>, Vec<_>) = came
        .into_iter()
        .partition(|message| channels.contains(message));
    assert_same("the served graph", &ours, &served);
    assert_eq!(
        real.iter().collect::<HashSet<_>>(),
        channels.iter().collect(),
        "the channels of mainnet"
    );

    // The signer returns: the node's own link stands beside the persona's, and LDK announces on both.
    node.attach().await;
    let (own, _) = node.link_with(ldk.id(), 2).await;
    assert_eq!(own.identity(), Identity::Node);
    ldk.introduced(2).await;
    assert!(persona.closed().is_none(), "make before break");
    let key = ldk.records.read(|records| records.connected[1].peer);
    assert_eq!(key, ldk_key(node.id()));
    let mut announced = Vec::new();
    let mut round = 0;
    let mut real = news.iter();
    // Until the persona's link has gone, and for some rounds after that.
    let mut after = 0;
    while after < 5 {
        round += 1;
        after += u32::from(persona.closed().is_some());
        let mut updates = region.updates(round);
        updates.extend(real.next().cloned());
        ldk.broadcast(&updates);
        let has_come = |come: &crate::live_node::Received| {
            let messages: HashSet<Vec<u8>> = come.from(ldk.id(), is_gossip).into_iter().collect();
            updates.iter().all(|update| messages.contains(update))
        };
        node.received
            .until_true("every update of the round", has_come)
            .await;
        announced.extend(updates);
    }
    assert_eq!(node.end_of(&persona).await, CloseReason::Persona);
    ldk.disconnected(1).await;
    assert!(own.closed().is_none());
    assert!(ldk.records.read(Records::heard_no_complaint));
    let links = node.supervisor.snapshot().links;
    assert_eq!((links.gossip_only, links.persona), (1, 0));
    println!(
        "LDK served {expected} messages to a persona, {} of them channels of mainnet; {} announced in {round} rounds across its replacement, {} of mainnet, none missing",
        channels.len(),
        announced.len(),
        news.len() - real.count()
    );
}
