//! What libraries leave: an answer to an ECDH on its way from the agent through protobuf, gRPC, HTTP/2 and TLS to the gateway and back out.
//!
//! Its copies in the buffers of those are not ours to wipe. They are counted, so that `SECURITY.md` says what there is; what must not
//! be found anywhere in a freed block is the key itself, which none of them ever has.

use std::sync::Arc;

use pilotlight::clock::SystemClock;
use pilotlight::limits;
use pilotlight::node_id::LocalKey;
use pilotlight::signer::{EcdhCall, EmbeddedSigner, Purpose};

use crate::search::search;
use crate::session::{HANDSHAKE, KEY, bytes};
use crate::station::{Station, key};
use crate::watchdog::{Watch, scrub};

const NODE: u8 = 51;
const QUESTIONS: u64 = 8;

#[test]
fn what_the_gateways_and_the_agents_libraries_leave_is_counted_and_the_key_is_not_among_it() {
    let watch = Watch::begin();
    watch.register(KEY, &bytes(NODE));
    let node = || LocalKey::from_bytes(&mut bytes(NODE)).unwrap();
    let public = node().point();
    for number in 0..QUESTIONS {
        watch.register(HANDSHAKE, key(600 + number).ecdh(&public).expose());
    }
    scrub();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(SystemClock::new());
        let (station, _inbox) = Station::open(&node(), limits::LIVENESS_WINDOW_MAX, clock).await;
        let signer = Arc::new(EmbeddedSigner::from_key(node()));
        let agent = station.agent(station.gateway.local_addr(), signer);
        station.until_live(1).await;
        for number in 0..QUESTIONS {
            let call = EcdhCall::new(key(600 + number).point(), Purpose::ChannelDial);
            let (answer, _) = station.context.ecdh(call).await.unwrap();
            assert!(answer.ct_eq(&key(600 + number).ecdh(&public)));
        }
        agent.stop().await;
        station.supervisor.drain().await;
    });
    drop(runtime);
    let found = watch.found();
    let mut sizes: Vec<_> = found
        .iter()
        .filter(|(owner, _)| *owner == HANDSHAKE)
        .map(|(_, size)| *size)
        .collect();
    let (finds, freed) = watch.counts();
    sizes.sort_unstable();
    println!(
        "{QUESTIONS} answers through gateway and agent: {finds} halves in {freed} freed blocks, of the sizes {sizes:?}; left in \
         memory afterwards: {:?}",
        search()
    );
    let of_key = found.iter().filter(|(owner, _)| *owner == KEY);
    assert_eq!(of_key.count(), 0, "the key itself");
    assert_eq!(search().heap_of(KEY), 0, "the key itself");
    // A copy an answer in each of the layers named in SECURITY.md, in whole; more would be a new leak.
    let most = usize::try_from(QUESTIONS).unwrap() * 2 * COPIES;
    assert!(finds <= most, "{finds} halves, {most} at most");
}

/// Copies of an answer that may be left in freed blocks, at the most.
const COPIES: usize = 8;
