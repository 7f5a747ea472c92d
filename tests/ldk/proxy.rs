//! Real LDK as an onion service: met through a SOCKS5 proxy, by the node and by its persona, each in a circuit of its own.

use pilotlight::address::{OnionService, PeerAddress};
use pilotlight::link::{Identity, Tag};
use pilotlight::supervisor::{ConnectError, Mode, PeerSpec, PeerState};

use crate::exchange::as_ldk_serves;
use crate::ldk_peer::{LdkPeer, ldk_key};
use crate::live_node::{Node, is_gossip};
use crate::numbered::assert_same;
use crate::signed_region::Region;
use crate::socks::Socks;

fn onion() -> PeerAddress {
    PeerAddress::Onion {
        service: OnionService::of_key([161; 32]),
        port: 9735,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_an_ldk_behind_tor_is_met_through_the_proxy_and_a_persona_has_another_circuit() {
    let socks = Socks::start().await;
    let mut node = Node::start_with(61, |builder| {
        let builder = builder.tor_proxy(Some(socks.address));
        builder.gossip_floor(1).auto_sync(true)
    })
    .await;
    let ldk = LdkPeer::new(161);
    let region = Region::new(61, 10, 20);
    ldk.learn(&region.whole());
    socks.leads(&onion(), ldk.listen().await);
    let spec = PeerSpec::new(ldk.id(), onion()).tagged(Tag::GossipOnly);

    // As the node: served, and heard by LDK, through the proxy both ways.
    let link = node.supervisor.connect(spec.clone()).await.unwrap();
    assert_eq!((link.identity(), link.peer()), (Identity::Node, ldk.id()));
    ldk.introduced(1).await;
    let served = as_ldk_serves(&region);
    let came = node.messages(ldk.id(), is_gossip, served.len()).await;
    assert_same("what LDK serves through the proxy", &came, &served);
    let news = region.updates(1);
    ldk.broadcast(&news);
    let came = node
        .messages(ldk.id(), is_gossip, served.len() + news.len())
        .await;
    assert_same("its news", &came[served.len()..], &news);
    let address = |view: &pilotlight::supervisor::PeerView| view.address.clone();
    let peers = node.supervisor.peers().await.unwrap();
    assert_eq!(address(&peers[0]), Some(onion()));

    // The link is lost while no signer is there: a persona takes its place, through the same proxy and not the same circuit.
    let _ = node.lapse();
    assert_eq!(node.supervisor.mode(), Mode::Safe);
    ldk.manager.disconnect_all_peers();
    let (persona, _) = node.link_with(ldk.id(), 2).await;
    assert_eq!(persona.identity(), Identity::Persona);
    ldk.introduced(2).await;
    let keys = ldk.records.read(|records| {
        let peers = records.connected.iter();
        peers.map(|connected| connected.peer).collect::<Vec<_>>()
    });
    assert_eq!(keys[0], ldk_key(node.id()));
    assert_ne!(keys[1], keys[0], "LDK is not told who we are");
    let asked = socks.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|one| one.target == onion().to_string()));
    assert_ne!(asked[0].circuit, asked[1].circuit);

    // Back again: the node's own link goes in the node's own circuit.
    node.attach().await;
    let (own, _) = node.link_with(ldk.id(), 3).await;
    assert_eq!(own.identity(), Identity::Node);
    let asked = socks.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(asked[0].circuit, asked[2].circuit);
    println!(
        "an LDK behind a SOCKS5 proxy: {} messages served and {} told; node, persona and node again in two circuits",
        served.len(),
        news.len()
    );
}

/// Without a proxy an onion service is not dialled, and is said to be out of reach.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_proxy_an_ldk_behind_tor_is_out_of_reach() {
    let node = Node::start(62).await;
    let ldk = LdkPeer::new(162);
    let spec = PeerSpec::new(ldk.id(), onion()).tagged(Tag::GossipOnly);
    let error = node.supervisor.connect(spec).await.unwrap_err();
    assert_eq!(error, ConnectError::NotDialable);
    let peers = node.supervisor.peers().await.unwrap();
    assert_eq!(peers[0].state, PeerState::NotDialable);
    assert_eq!(ldk.peers(), 0);
}
