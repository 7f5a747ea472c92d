//! loom's models of the context and of what it hands out (P1, P6): leases, lapses, takeovers, answers, what subscribers see.
//!
//! The context is the real one, with loom's locks and atomics; so is tokio's watch channel, whose steps loom takes as one each. How to
//! run them is in `.ci/run`, stage `loom`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::node_id::{LocalKey, Point};
use crate::signer::EcdhFuture;
use loom::sync::Mutex as LoomMutex;
use loom::thread;
use std::task::{Context, Poll, Waker};

/// A signer that takes a moment, and answers with its own number.
struct Numbered(NodeId, u8);

impl Signer for Numbered {
    fn node_id(&self) -> NodeId {
        self.0
    }

    fn ecdh(&self, _: EcdhCall) -> EcdhFuture<'_> {
        let number = self.1;
        let mut asked = false;
        Box::pin(std::future::poll_fn(move |_| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(Ok(secret(number)));
            }
            Poll::Pending
        }))
    }
}

fn secret(number: u8) -> SharedSecret {
    SharedSecret::from(crate::secret::Secret32::build(|bytes| bytes.fill(number)))
}

/// A key is computed on a real thread's stack: loom's are small.
fn node() -> NodeId {
    LocalKey::from_bytes(&mut [7; 32]).unwrap().node_id()
}

/// What [`SignerContext::attach`] is given after an honest challenge that was set when `after` was the newest session.
fn attach(context: &SignerContext, after: Option<Epoch>) -> Result<SignerSession, AttachError> {
    let number = after.map_or(1, |after| u8::try_from(after.get()).unwrap() + 1);
    let proof = Proof {
        context: context.clone(),
        after,
    };
    let signer = Arc::new(Numbered(context.node_id(), number));
    context.attach(proof, signer)
}

/// Bounded to three preemptions, or as many as `LOOM_MAX_PREEMPTIONS` says.
fn model(body: impl Fn(SignerContext) + Send + Sync + 'static) {
    let node = node();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(move || body(SignerContext::new(node)));
}

#[test]
fn p1_a_lease_that_is_taken_during_a_lapse_is_dead_when_the_lapse_has_returned() {
    model(|context| {
        let session = attach(&context, None).unwrap();
        let wire = Arc::new(LoomMutex::new((false, 0)));
        let link = {
            let (context, wire) = (context.clone(), Arc::clone(&wire));
            thread::spawn(move || {
                let Ok(lease) = context.lease() else {
                    return;
                };
                let Some(_gate) = lease.enter() else {
                    assert!(!lease.is_live(), "refused, and it looks live");
                    return;
                };
                wire.lock().unwrap().1 += 1;
                assert!(!wire.lock().unwrap().0, "written after the lapse");
            })
        };
        assert!(session.lapse(LapseReason::Requested).is_some());
        wire.lock().unwrap().0 = true;
        assert!(context.lease().is_err(), "a lease after the lapse");
        link.join().unwrap();
    });
}

#[test]
fn p6_who_attaches_during_a_lapse_is_refused_or_finds_the_old_session_fenced() {
    model(|context| {
        let session = attach(&context, None).unwrap();
        let (epoch, old) = (session.epoch(), context.lease().unwrap());
        let lapse = thread::spawn(move || session.lapse(LapseReason::StreamClosed));
        match attach(&context, Some(epoch)) {
            Ok(session) => {
                assert!(
                    !old.is_live() && old.enter().is_none(),
                    "two sessions at once"
                );
                assert!(session.epoch() > epoch);
                assert_eq!(context.lease().unwrap().epoch(), session.epoch());
                assert!(lapse.join().unwrap().is_some());
                assert!(
                    session.is_live(),
                    "the old session's end is not the new one's"
                );
            }
            Err(refused) => {
                assert_eq!(refused, AttachError::Occupied { live: epoch });
                assert!(lapse.join().unwrap().is_some());
            }
        }
    });
}

#[test]
fn p1_of_two_who_lapse_one_does_it_and_both_return_to_a_raised_fence() {
    model(|context| {
        let session = attach(&context, None).unwrap();
        let lease = context.lease().unwrap();
        let operator = {
            let (context, lease) = (context.clone(), lease.clone());
            thread::spawn(move || {
                let lapse = context.lapse(LapseReason::Requested);
                assert!(lease.enter().is_none());
                lapse.is_some()
            })
        };
        let stream = session.lapse(LapseReason::StreamClosed).is_some();
        assert!(lease.enter().is_none());
        assert_ne!(
            operator.join().unwrap(),
            stream,
            "it lapsed twice, or never"
        );
        assert!(matches!(context.state(), SignerState::Away { .. }));
    });
}

#[test]
fn p6_nobody_is_attached_when_the_node_shuts_down() {
    model(|context| {
        let signer = {
            let context = context.clone();
            thread::spawn(move || {
                attach(&context, None).map(|session| {
                    let lease = context.lease();
                    // Kept for ever: only the shutdown can end it.
                    std::mem::forget(session);
                    lease
                })
            })
        };
        context.shut_down();
        match signer.join().unwrap() {
            Ok(lease) => assert!(lease.is_err() || !lease.unwrap().is_live()),
            Err(refused) => assert_eq!(refused, AttachError::Draining),
        }
        assert!(!context.is_live());
        assert_eq!(attach(&context, None).err().map(|_| ()), Some(()));
    });
}

/// Two publications may overtake each other; the last word is right.
#[test]
fn what_subscribers_see_in_the_end_is_what_is() {
    model(|context| {
        let seen = context.subscribe();
        let session = attach(&context, None).unwrap();
        let epoch = session.epoch();
        let lapse = thread::spawn(move || drop(session));
        let next = attach(&context, Some(epoch));
        lapse.join().unwrap();
        assert_eq!(*seen.borrow(), context.state());
        assert_eq!(context.is_live(), next.is_ok());
        drop(next);
        assert_eq!(*seen.borrow(), context.state());
    });
}

/// An answer is of the session that its lease is of, and whoever asks after a lapse gets none of the session before.
#[test]
fn p6_an_answer_is_never_used_under_another_session() {
    model(|context| {
        let session = attach(&context, None).unwrap();
        let epoch = session.epoch();
        let point: Point = context.node_id().try_into().unwrap();
        let lapsed = Arc::new(LoomMutex::new(false));
        let handshake = {
            let (context, lapsed) = (context.clone(), Arc::clone(&lapsed));
            thread::spawn(move || {
                let was_over = *lapsed.lock().unwrap();
                let call = EcdhCall::new(point, Purpose::Proof);
                let mut answer = std::pin::pin!(context.ecdh(call));
                let mut waker = Context::from_waker(Waker::noop());
                loop {
                    match answer.as_mut().poll(&mut waker) {
                        Poll::Pending => thread::yield_now(),
                        Poll::Ready(Ok((answer, lease))) => {
                            let number = u8::try_from(lease.epoch().get()).unwrap();
                            assert!(answer.ct_eq(&secret(number)), "another session's answer");
                            assert!(!was_over || lease.epoch() > epoch);
                            return;
                        }
                        Poll::Ready(Err(_)) => return,
                    }
                }
            })
        };
        drop(session);
        *lapsed.lock().unwrap() = true;
        let _next = attach(&context, Some(epoch)).unwrap();
        handshake.join().unwrap();
    });
}
