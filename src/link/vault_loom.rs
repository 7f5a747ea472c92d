//! loom's models of the vault beside the fence (P1, P3): a link that enters the vault, is promoted or is demoted while the session lapses
//! and the reaper goes through the vault. In every order the link is torn down, or lives on in the server's scope.
//!
//! Link, vault, context and fence are the real ones, with loom's locks and atomics. `DashMap`'s own locks, which order an insertion and a
//! walk, are one of loom's beside it. The socket is a real one on loopback. What the link's task does around it is `driver.rs` in short.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::brontide::{AwaitActOne, InitiatorStart, Session};
use crate::clock::ManualClock;
use crate::link::SystemResolver;
use crate::link::alarms::Alarms;
use crate::link::catch_up::SyncDesk;
use crate::link::delivery::Deliveries;
use crate::link::driver::{Env, NodeSettings};
use crate::link::reach::{Reach, Ways};
use crate::link::shared::{Birth, Written};
use crate::link::socks::Circuit;
use crate::node_id::LocalKey;
use crate::signer::{EmbeddedSigner, LapseReason, Proof, Signer, SignerContext, SignerSession};
use crate::telemetry::Telemetry;
use crate::wire::Features;
use loom::sync::Mutex as LoomMutex;
use loom::thread;
use std::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Words of a thread's stack: loom's own choice does not hold a handshake.
const STACK: usize = 1 << 17;

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

fn session() -> Session {
    let [ours, theirs] = [key(1), key(2)];
    let (alice, act_one) = InitiatorStart::new(ours.node_id(), theirs.node_id(), key(3)).unwrap();
    let bob = AwaitActOne::new(theirs.node_id(), key(4))
        .act_one(&act_one)
        .unwrap();
    let reply = theirs.ecdh(&bob.request().point);
    let (_, act_two) = bob.resume(reply).unwrap();
    let alice = alice.act_two(&act_two).unwrap();
    let reply = ours.ecdh(&alice.request().point);
    alice.resume(reply).unwrap().1.into_session()
}

/// A node with a live signer session.
struct Node {
    env: Arc<Env>,
    session: SignerSession,
}

impl Node {
    fn new(telemetry: Telemetry) -> Self {
        let signer = Arc::new(EmbeddedSigner::from_key(key(1)));
        let context = SignerContext::new(signer.node_id());
        let session = context.attach(Proof::of(&context), signer).unwrap();
        let ways = Ways {
            resolver: Arc::new(SystemResolver::default()),
            proxy: None,
            everything: false,
            personas: false,
            announced: Vec::new(),
        };
        let env = Env {
            clock: Arc::new(ManualClock::new()),
            telemetry: telemetry.clone(),
            context,
            vault: Vault::default(),
            alarms: Alarms::default(),
            inbox: Deliveries::new(Arc::new(ManualClock::new()), telemetry).0,
            reports: mpsc::channel(1).0,
            lapsed: watch::channel(None).1,
            settings: NodeSettings {
                features: Features::gossip(),
                networks: Vec::new(),
                queries_served: false,
                custom_even_ok: false,
                observe: false,
                max_session_age: None,
                protected: Arc::default(),
                auto_sync: false,
            },
            reach: Reach::new(ways, Circuit::new().unwrap()),
            sync: Arc::new(SyncDesk::new(None)),
            cached: None,
            seed: 1,
        };
        Self {
            env: Arc::new(env),
            session,
        }
    }

    /// A link on loopback, in the signer's scope or in the server's. The far end is dropped: nothing is sent.
    fn link(&self, listener: &TcpListener, leased: bool) -> Arc<LinkShared> {
        let address = listener.local_addr().unwrap();
        let socket = TcpStream::connect(address).unwrap();
        let (far, _) = listener.accept().unwrap();
        socket2::SockRef::from(&far)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        socket.set_nonblocking(true).unwrap();
        let birth = Birth {
            id: LinkId(2),
            peer: key(2).node_id(),
            address: address.into(),
            direction: Direction::Outbound,
            identity: Identity::Node,
            lease: leased.then(|| self.env.context.lease().unwrap()),
        };
        let socket = tokio::net::TcpStream::from_std(socket).unwrap();
        Arc::new(LinkShared::new(
            birth,
            socket,
            session(),
            Arc::clone(&self.env),
        ))
    }

    /// A lapse, and then what the reaper does.
    fn lapse(self) -> TornDown {
        let lapse = self.session.lapse(LapseReason::Requested).unwrap();
        self.env.vault.tear_down(lapse.epoch).0
    }
}

fn is_wiped(link: &LinkShared) -> bool {
    link.session().is_failed()
}

/// As the driver takes a link in.
fn enter(env: &Env, link: &Arc<LinkShared>) {
    let is_wanted = env.vault.insert(Arc::clone(link));
    if !is_wanted || link.state.dead_scope().is_some() {
        link.wipe();
        link.reset(CloseReason::Lapse);
    }
}

fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(body)
        .unwrap()
}

/// Bounded to two preemptions, or as many as `LOOM_MAX_PREEMPTIONS` says: each of its executions makes a link.
fn model(body: impl Fn(Node, &TcpListener) + Send + Sync + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let telemetry = Telemetry::new(Arc::new(ManualClock::new()));
    let body = Arc::new(body);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(move || {
        let (body, listener, telemetry) =
            (Arc::clone(&body), Arc::clone(&listener), telemetry.clone());
        spawn(move || body(Node::new(telemetry), &listener))
            .join()
            .unwrap();
    });
}

#[test]
fn p1_p3_a_link_that_is_promoted_during_a_lapse_is_torn_down() {
    model(|node, listener| {
        let link = node.link(listener, false);
        assert!(node.env.vault.insert(Arc::clone(&link)));
        let promoted = {
            let link = Arc::clone(&link);
            spawn(move || link.follow_tag(Tag::ChannelBearing))
        };
        node.lapse();
        promoted.join().unwrap();
        assert!(
            is_wiped(&link),
            "a channel link keeps its secrets after a lapse"
        );
        assert_eq!(link.state.close_requested(), Some(CloseReason::Lapse));
        let written = link.write(&[0]);
        assert!(link.state.leased_under().is_none() || matches!(written, Written::Fenced));
    });
}

#[test]
fn p3_a_link_that_enters_the_vault_during_a_lapse_is_torn_down() {
    model(|node, listener| {
        let link = node.link(listener, true);
        let entered = {
            let (env, link) = (Arc::clone(&node.env), Arc::clone(&link));
            spawn(move || enter(&env, &link))
        };
        node.lapse();
        entered.join().unwrap();
        assert!(
            is_wiped(&link),
            "the reaper and the link have missed one another"
        );
        assert_eq!(link.state.close_requested(), Some(CloseReason::Lapse));
    });
}

#[test]
fn p2_a_link_that_is_demoted_during_a_lapse_lives_on_or_is_torn_down_whole() {
    model(|node, listener| {
        let link = node.link(listener, true);
        assert!(node.env.vault.insert(Arc::clone(&link)));
        let demoted = {
            let link = Arc::clone(&link);
            spawn(move || link.follow_tag(Tag::GossipOnly))
        };
        let torn = node.lapse();
        demoted.join().unwrap();
        let lives = link.state.leased_under().is_none();
        assert_eq!(is_wiped(&link), !lives);
        assert_eq!(link.state.close_requested().is_some(), !lives);
        assert!(!lives || torn.dropped == 0);
    });
}

#[test]
fn p1_nothing_is_delivered_from_a_leased_link_after_a_lapse() {
    model(|node, listener| {
        let link = node.link(listener, true);
        let over = Arc::new(LoomMutex::new(false));
        let task = {
            let (link, over) = (Arc::clone(&link), Arc::clone(&over));
            spawn(move || {
                let _ = link
                    .state
                    .deliver(|| assert!(!*over.lock().unwrap(), "delivered after the lapse"));
            })
        };
        node.lapse();
        *over.lock().unwrap() = true;
        task.join().unwrap();
        assert!(link.state.deliver(|| ()).is_none());
    });
}

#[test]
fn a_link_that_enters_the_vault_when_it_is_shut_ends_itself_or_is_found() {
    model(|node, listener| {
        let link = node.link(listener, false);
        let entered = {
            let (env, link) = (Arc::clone(&node.env), Arc::clone(&link));
            spawn(move || enter(&env, &link))
        };
        node.env.vault.shut();
        for found in node.env.vault.all() {
            found.state.request_close(CloseReason::Draining);
        }
        entered.join().unwrap();
        assert!(
            link.state.close_requested().is_some(),
            "nobody will come for it"
        );
    });
}
