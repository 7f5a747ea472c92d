//! The context from inside: what only the crate can see of it, gates and the order of a lapse's steps.
//!
//! What an embedder sees is in `tests/p6_epochs.rs`. Not for loom: see `fence_tests.rs`.
#![cfg(not(pilotlight_loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::*;
use crate::node_id::LocalKey;
use crate::secret::assert_not_impl;
use crate::signer::{EcdhFuture, EmbeddedSigner, bind};

assert_not_impl!(SignerSession: Clone, Copy);
assert_not_impl!(Proof: Clone, Copy);
assert_not_impl!(Challenge: Clone, Copy);

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

fn embedded() -> Arc<EmbeddedSigner> {
    Arc::new(EmbeddedSigner::from_key(key(7)))
}

fn proof(context: &SignerContext) -> Proof {
    let challenge = context.challenge(&mut [9; 32]).unwrap();
    let answer = key(7).ecdh(&challenge.point());
    challenge.verify(answer).unwrap()
}

fn live() -> (SignerContext, SignerSession) {
    let context = SignerContext::new(key(7).node_id());
    let session = context.attach(proof(&context), embedded()).unwrap();
    (context, session)
}

#[test]
fn p1_no_gate_of_a_lapsed_lease_opens() {
    let (context, session) = live();
    let leases: Vec<_> = (0..100).map(|_| context.lease().unwrap()).collect();
    assert!(leases.iter().all(|lease| lease.enter().is_some()));
    let _ = session.lapse(LapseReason::Requested).unwrap();
    assert!(leases.iter().all(|lease| lease.enter().is_none()));
    let _second = context.attach(proof(&context), embedded()).unwrap();
    assert!(
        leases
            .iter()
            .all(|lease| lease.enter().is_none() && !lease.is_live())
    );
}

#[test]
fn a_lapse_of_an_old_session_leaves_the_new_one_and_its_own_ends_it() {
    let (context, session) = live();
    let old = session.epoch();
    drop(session);
    let session = context.attach(proof(&context), embedded()).unwrap();
    assert!(context.lapse_of(old, LapseReason::Planned).is_none());
    assert!(session.is_live());
    let lapse = context.lapse_of(session.epoch(), LapseReason::Planned);
    assert_eq!(lapse.unwrap().epoch, session.epoch());
    assert!(!session.is_live());
}

/// A section holds the lapse up. Meanwhile no lease is given, the state does not yet say `Away`, and whoever else ends the
/// session waits for the same fence.
#[test]
fn p1_lapse_returns_after_the_running_sections_and_so_do_its_rivals() {
    let (context, session) = live();
    let lease = context.lease().unwrap();
    let (inside, left) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
    let section = {
        let (context, lease) = (context.clone(), lease.clone());
        let (inside, left) = (Arc::clone(&inside), Arc::clone(&left));
        thread::spawn(move || {
            let gate = lease.enter().unwrap();
            inside.wait();
            while lease.is_live() {
                thread::yield_now();
            }
            assert!(!context.is_live());
            assert!(context.lease().is_err());
            assert_eq!(context.state(), SignerState::Live(lease.epoch()));
            assert_eq!(
                *context.subscribe().borrow(),
                SignerState::Live(lease.epoch())
            );
            left.store(true, SeqCst);
            drop(gate);
        })
    };
    inside.wait();
    let rivals: Vec<_> = (0..3)
        .map(|_| {
            let (context, left) = (context.clone(), Arc::clone(&left));
            thread::spawn(move || {
                let lapse = context.lapse(LapseReason::Requested);
                assert!(
                    left.load(SeqCst),
                    "lapse returned while a section was running"
                );
                assert_eq!(context.state().live(), None);
                lapse.is_some()
            })
        })
        .collect();
    let mine = session.lapse(LapseReason::StreamClosed).is_some();
    assert!(left.load(SeqCst));
    let lapses = rivals
        .into_iter()
        .map(|rival| rival.join().unwrap())
        .chain([mine])
        .filter(|lapsed| *lapsed)
        .count();
    assert_eq!(lapses, 1, "one caller, and only one, is told of the lapse");
    section.join().unwrap();
}

/// Who would end an older session has nothing to wait for, though the present one's lapse is held up by a section.
#[test]
fn a_lapse_of_another_epoch_does_not_wait_for_the_one_in_progress() {
    const HANG: Duration = Duration::from_secs(30);
    let (context, session) = live();
    let old = session.epoch();
    drop(session);
    let session = context.attach(proof(&context), embedded()).unwrap();
    let (epoch, lease) = (session.epoch(), context.lease().unwrap());
    let gate = lease.enter().unwrap();
    let ending = thread::spawn(move || session.lapse(LapseReason::Requested));
    while context.is_live() {
        thread::yield_now();
    }
    let (say, said) = mpsc::channel();
    let other = context.clone();
    thread::spawn(move || say.send(other.lapse_of(old, LapseReason::Planned)));
    assert!(said.recv_timeout(HANG).unwrap().is_none());
    assert_eq!(context.state(), SignerState::Live(epoch), "not yet up");
    drop(gate);
    assert_eq!(ending.join().unwrap().unwrap().epoch, epoch);
}

/// Threads take leases and write under them, a promoter stores leases and asks again, while sessions come and go: nothing
/// is ever written for an epoch that has lapsed.
#[test]
fn p1_p6_nothing_is_written_for_a_lapsed_epoch_while_sessions_come_and_go() {
    const ROUNDS: u64 = 500;
    let context = SignerContext::new(key(7).node_id());
    let lapsed = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (context, lapsed, done) = (context.clone(), Arc::clone(&lapsed), Arc::clone(&done));
            thread::spawn(move || {
                let mut written = 0_usize;
                while !done.load(SeqCst) {
                    let Ok(lease) = context.lease() else {
                        thread::yield_now();
                        continue;
                    };
                    let epoch = usize::try_from(lease.epoch().get()).unwrap();
                    while let Some(_gate) = lease.enter() {
                        assert!(lapsed.load(SeqCst) < epoch, "a write under a lapsed epoch");
                        written += 1;
                    }
                }
                written
            })
        })
        .collect();
    for round in 1..=ROUNDS {
        let session = context.attach(proof(&context), embedded()).unwrap();
        assert_eq!(session.epoch().get(), round);
        for _ in 0..round % 5 {
            thread::yield_now();
        }
        drop(session);
        lapsed.store(usize::try_from(round).unwrap(), SeqCst);
    }
    done.store(true, SeqCst);
    let written: usize = writers
        .into_iter()
        .map(|writer| writer.join().unwrap())
        .sum();
    assert!(written > 0);
}

/// The signer's destructor is somebody else's code: it runs after the lapse is complete, outside all locks, and its panic
/// stays its own.
#[test]
fn the_signer_is_dropped_last_outside_locks_and_its_panic_is_contained() {
    struct Rude {
        context: SignerContext,
        seen: Arc<std::sync::Mutex<Vec<SignerState>>>,
    }
    impl Signer for Rude {
        fn node_id(&self) -> NodeId {
            self.context.node_id()
        }
        fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
            Box::pin(std::future::ready(Ok(key(7).ecdh(&call.point))))
        }
    }
    impl Drop for Rude {
        fn drop(&mut self) {
            self.seen.lock().unwrap().push(self.context.state());
            assert!(self.context.lapse(LapseReason::Requested).is_none());
            panic!("in a signer's destructor (this panic is part of the test)");
        }
    }
    let context = SignerContext::new(key(7).node_id());
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let rude = Arc::new(Rude {
        context: context.clone(),
        seen: Arc::clone(&seen),
    });
    let session = context.attach(proof(&context), rude).unwrap();
    let lapse = session.lapse(LapseReason::LivenessLost).unwrap();
    let away = SignerState::Away {
        last: lapse.epoch,
        reason: LapseReason::LivenessLost,
    };
    assert_eq!(*seen.lock().unwrap(), vec![away]);
    assert_eq!(context.state(), away);
}

#[test]
#[cfg(debug_assertions)]
fn a_lapse_from_inside_a_gate_is_caught_in_debug_builds() {
    let (context, session) = live();
    let lease = context.lease().unwrap();
    let gate = lease.enter().unwrap();
    let caught =
        std::panic::catch_unwind(AssertUnwindSafe(|| context.lapse(LapseReason::Requested)));
    assert!(caught.is_err());
    assert!(
        lease.is_live() && context.is_live(),
        "and nothing was changed"
    );
    drop(gate);
    assert!(session.lapse(LapseReason::Requested).is_some());
}

#[test]
fn the_last_epoch_is_not_followed_by_another() {
    let (context, session) = live();
    let last = Epoch::LAST;
    drop(session);
    context.slot().state = SignerState::Away {
        last,
        reason: LapseReason::Dropped,
    };
    let refused = context.attach(proof(&context), embedded());
    assert_eq!(refused.unwrap_err(), AttachError::EpochsExhausted);
}

#[test]
fn a_bound_answer_is_right_for_its_certificate_only() {
    let mut secret = [7; 32];
    let key = LocalKey::from_bytes(&mut secret).unwrap();
    let context = SignerContext::new(key.node_id());
    let ask = || context.challenge(&mut [9; 32]).unwrap();
    let answer = |digest| {
        let plain = key.ecdh(&ask().point());
        bind(&plain, digest)
    };
    assert!(ask().verify_bound(answer(&[1; 32]), &[1; 32]).is_ok());
    for wrong in [
        ask().verify_bound(answer(&[2; 32]), &[1; 32]),
        ask().verify_bound(key.ecdh(&ask().point()), &[1; 32]),
        ask().verify(answer(&[1; 32])),
    ] {
        assert_eq!(wrong.unwrap_err(), ProofError::WrongAnswer);
    }
}

/// A signer that never answers, refuses callers from one address, and says when it is behind.
struct Silent {
    unwanted: IpAddr,
    behind: watch::Sender<bool>,
}

impl Signer for Silent {
    fn node_id(&self) -> NodeId {
        key(7).node_id()
    }
    fn ecdh(&self, _: EcdhCall) -> EcdhFuture<'_> {
        Box::pin(std::future::pending())
    }
    fn declines(&self, source: IpAddr) -> bool {
        source == self.unwanted
    }
    fn behind(&self) -> Option<watch::Receiver<bool>> {
        Some(self.behind.subscribe())
    }
}

fn silent() -> (SignerContext, SignerSession, Arc<Silent>) {
    let context = SignerContext::new(key(7).node_id());
    let signer = Arc::new(Silent {
        unwanted: [192, 0, 2, 1].into(),
        behind: watch::Sender::new(false),
    });
    let session = context.attach(proof(&context), Arc::clone(&signer) as Arc<dyn Signer>);
    (context, session.unwrap(), signer)
}

fn call() -> EcdhCall {
    EcdhCall::new(key(42).point(), Purpose::ChannelDial)
}

#[test]
fn questions_are_counted_from_the_asking_to_their_end_whichever_that_is() {
    let (context, session, _) = silent();
    let mut nobody = Context::from_waker(Waker::noop());
    let mut first = Box::pin(context.ecdh(call()));
    let mut second = Box::pin(context.ecdh(call()));
    assert_eq!(context.ecdh_in_flight(), 0, "nothing is asked yet");
    assert!(first.as_mut().poll(&mut nobody).is_pending());
    assert_eq!(context.ecdh_in_flight(), 1);
    assert!(second.as_mut().poll(&mut nobody).is_pending());
    assert_eq!(context.ecdh_in_flight(), 2);
    drop(first);
    assert_eq!(context.ecdh_in_flight(), 1, "one was given up");
    drop(session);
    assert!(second.as_mut().poll(&mut nobody).is_ready());
    drop(second);
    assert_eq!(context.ecdh_in_flight(), 0, "the other ended by the lapse");

    let _session = context.attach(proof(&context), embedded()).unwrap();
    let mut third = Box::pin(context.ecdh(call()));
    let answered = third.as_mut().poll(&mut nobody);
    assert!(matches!(answered, Poll::Ready(Ok(_))));
    drop(third);
    assert_eq!(context.ecdh_in_flight(), 0, "it was answered");
}

#[test]
fn the_round_trip_is_the_shortest_answer_of_the_newest_session_that_gave_one() {
    let (context, session) = live();
    let old = session.epoch();
    drop(session);
    let session = context.attach(proof(&context), embedded()).unwrap();
    let new = session.epoch();
    let millis = Duration::from_millis;
    assert_eq!(context.round_trip(), Duration::ZERO);
    for (of, took, shortest) in [
        (old, 30, 30),
        (old, 50, 30),
        (old, 20, 20),
        (new, 40, 40), // longer, but of a newer session
        (old, 10, 40), // shorter, but late: of a session that is over
        (new, 60, 40),
        (new, 35, 35),
    ] {
        context.answered_in(of, millis(took));
        assert_eq!(context.round_trip(), millis(shortest), "{of:?} {took}");
    }
}

#[test]
fn whom_the_signer_declines_and_whether_it_is_behind_is_said_while_its_session_is_live() {
    let (context, session, signer) = silent();
    let (epoch, other) = (session.epoch(), IpAddr::from([192, 0, 2, 2]));
    assert!(context.declines(signer.unwanted));
    assert!(!context.declines(other));
    let behind = context.behind(epoch).unwrap();
    assert!(!*behind.borrow());
    signer.behind.send_replace(true);
    assert!(*behind.borrow(), "the signer's own word is followed");
    drop(session);
    assert!(!context.declines(signer.unwanted));
    assert!(context.behind(epoch).is_none());

    let successor = context.attach(proof(&context), embedded()).unwrap();
    assert!(context.behind(epoch).is_none(), "that one is over");
    assert!(
        context.behind(successor.epoch()).is_none(),
        "an embedded signer never is"
    );
    drop(successor);
    let third = context.attach(proof(&context), signer).unwrap();
    assert!(*context.behind(third.epoch()).unwrap().borrow());
    assert!(context.behind(epoch).is_none(), "of the older session");
}

#[test]
fn what_is_printed_says_which_session_and_whether_it_is_live() {
    let (context, session) = live();
    let lease = context.lease().unwrap();
    let epoch = format!("epoch: {:?}", session.epoch());
    let node = format!("node_id: {:?}", context.node_id());
    assert!(format!("{context:?}").contains(&node));
    assert!(format!("{context:?}").contains(&format!("state: {:?}", context.state())));
    assert!(format!("{session:?}").contains(&epoch));
    assert!(format!("{lease:?}").contains(&epoch));
    assert!(format!("{lease:?}").contains("live: true"));
    drop(session);
    assert!(format!("{lease:?}").contains("live: false"));
}
