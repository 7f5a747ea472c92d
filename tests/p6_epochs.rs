//! Signer sessions as an embedder sees them (promises P5 and P6): proof, attach, lapse, epochs, ECDH across a lapse.
//!
//! Signers that are slow, silent, failing or wrong live here, not in the library. Nothing sleeps and no randomness is drawn: each
//! "late" thing is held back by a channel until the test lets it go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};

use pilotlight::error::{Culprit, Retry};
use pilotlight::node_id::{LocalKey, NodeId, Point};
use pilotlight::secret::SharedSecret;
use pilotlight::signer::{
    AttachError, EcdhCall, EcdhError, EcdhFuture, EmbeddedSigner, LapseReason, Proof, ProofError,
    Purpose, Signer, SignerAway, SignerContext, SignerError, SignerSession, SignerState,
};
use tokio::sync::{Notify, oneshot};

const NODE: u8 = 7;
const ANOTHER: u8 = 8;

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

fn node() -> NodeId {
    key(NODE).node_id()
}

fn point() -> Point {
    key(42).point()
}

fn call() -> EcdhCall {
    EcdhCall::new(point(), Purpose::ChannelDial)
}

fn embedded(byte: u8) -> Arc<dyn Signer> {
    Arc::new(EmbeddedSigner::from_key(key(byte)))
}

fn prove(context: &SignerContext) -> Proof {
    let challenge = context.challenge(&mut [9; 32]).unwrap();
    let answer = key(NODE).ecdh(&challenge.point());
    challenge.verify(answer).unwrap()
}

fn attach(context: &SignerContext, signer: Arc<dyn Signer>) -> SignerSession {
    context.attach(prove(context), signer).unwrap()
}

/// Claims to be the node's signer, says when it is asked, and answers as it was made to.
struct Scripted {
    asked: Arc<Notify>,
    answer: Answer,
    /// Questions begun and questions still held, to see that none is left behind.
    begun: AtomicUsize,
    held: Arc<AtomicUsize>,
}

enum Answer {
    Never,
    Fails,
    Wrong,
    /// When the test says so.
    When(std::sync::Mutex<Option<oneshot::Receiver<()>>>),
}

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Scripted {
    fn new(answer: Answer) -> Arc<Self> {
        Arc::new(Self {
            asked: Arc::new(Notify::new()),
            answer,
            begun: AtomicUsize::new(0),
            held: Arc::new(AtomicUsize::new(0)),
        })
    }

    fn late() -> (Arc<Self>, oneshot::Sender<()>) {
        let (go, when) = oneshot::channel();
        (
            Self::new(Answer::When(std::sync::Mutex::new(Some(when)))),
            go,
        )
    }
}

impl Signer for Scripted {
    fn node_id(&self) -> NodeId {
        node()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        self.begun.fetch_add(1, SeqCst);
        self.held.fetch_add(1, SeqCst);
        let held = Held(Arc::clone(&self.held));
        Box::pin(async move {
            let _held = held;
            self.asked.notify_one();
            match &self.answer {
                Answer::Never => std::future::pending().await,
                Answer::Fails => Err(SignerError::Refused("policy".into())),
                Answer::Wrong => Ok(SharedSecret::take(&mut [1; 32])),
                Answer::When(when) => {
                    let when = when.lock().unwrap().take().unwrap();
                    when.await.unwrap();
                    Ok(key(NODE).ecdh(&call.point))
                }
            }
        })
    }
}

// --- proof and attach ---

#[test]
fn p6_epochs_rise_from_one_and_a_lease_of_an_old_one_is_dead_for_ever() {
    let context = SignerContext::new(node());
    assert_eq!(context.state(), SignerState::Never);
    let mut old = Vec::new();
    for round in 1..=5 {
        let session = attach(&context, embedded(NODE));
        assert_eq!(session.epoch().get(), round);
        assert!(session.is_live() && context.is_live());
        let lease = context.lease().unwrap();
        assert_eq!(lease.epoch(), session.epoch());
        old.push(lease);
        assert!(old.last().unwrap().is_live());
        let lapse = session.lapse(LapseReason::Requested).unwrap();
        assert_eq!(
            (lapse.epoch.get(), lapse.reason),
            (round, LapseReason::Requested)
        );
        assert_eq!(context.lease().unwrap_err(), SignerAway);
        assert!(!context.is_live());
    }
    let _session = attach(&context, embedded(NODE));
    assert!(
        old.iter()
            .all(|lease| !lease.is_live() && !lease.clone().is_live())
    );
}

#[test]
fn a_wrong_answer_is_no_proof() {
    let context = SignerContext::new(node());
    for wrong in [
        |point: &Point| key(ANOTHER).ecdh(point),
        |_: &Point| SharedSecret::take(&mut [0; 32]),
        |point: &Point| {
            let mut right = *key(NODE).ecdh(point).expose();
            right[31] ^= 1;
            SharedSecret::take(&mut right)
        },
    ] {
        let challenge = context.challenge(&mut [9; 32]).unwrap();
        let answer = wrong(&challenge.point());
        let error = challenge.verify(answer).unwrap_err();
        assert_eq!(error, ProofError::WrongAnswer);
        assert_eq!(
            (error.culprit(), error.retry()),
            (Culprit::Signer, Retry::Never)
        );
    }
}

#[test]
fn the_answer_to_one_challenge_is_not_that_to_another() {
    let context = SignerContext::new(node());
    let first = context.challenge(&mut [9; 32]).unwrap();
    let second = context.challenge(&mut [10; 32]).unwrap();
    let overheard = key(NODE).ecdh(&first.point());
    assert_eq!(
        second.verify(overheard).unwrap_err(),
        ProofError::WrongAnswer
    );
}

#[test]
fn a_challenge_wipes_its_entropy_and_refuses_what_is_no_key() {
    let context = SignerContext::new(node());
    let mut entropy = [9; 32];
    let _challenge = context.challenge(&mut entropy).unwrap();
    assert_eq!(entropy, [0; 32]);
    assert_eq!(
        context.challenge(&mut [0; 32]).unwrap_err(),
        ProofError::Entropy
    );
    let mut too_large = [0xff; 32];
    assert_eq!(
        context.challenge(&mut too_large).unwrap_err(),
        ProofError::Entropy
    );
    assert_eq!(too_large, [0; 32]);
}

#[test]
fn what_is_printed_of_a_challenge_does_not_hold_the_answer() {
    let context = SignerContext::new(node());
    let challenge = context.challenge(&mut [9; 32]).unwrap();
    let answer = key(NODE).ecdh(&challenge.point());
    let printed = format!(
        "{challenge:?} {:?}",
        context.challenge(&mut [9; 32]).unwrap()
    );
    let bytes = format!("{:?}", answer.expose());
    assert!(!printed.contains(bytes.trim_matches(['[', ']'])));
}

#[tokio::test]
async fn a_signer_proves_itself_when_asked_directly() {
    let context = SignerContext::new(node());
    let proof = context.prove(&*embedded(NODE), &mut [9; 32]).await.unwrap();
    let _session = context.attach(proof, embedded(NODE)).unwrap();

    let another = embedded(ANOTHER);
    let refused = context.prove(&*another, &mut [9; 32]).await.unwrap_err();
    let (expected, offered) = (node(), another.node_id());
    assert_eq!(refused, ProofError::OtherNode { expected, offered });
    let liar = Scripted::new(Answer::Wrong);
    let refused = context.prove(&*liar, &mut [9; 32]).await.unwrap_err();
    assert_eq!(refused, ProofError::WrongAnswer);
    let failing = Scripted::new(Answer::Fails);
    let refused = context.prove(&*failing, &mut [9; 32]).await.unwrap_err();
    assert_eq!(
        refused,
        ProofError::Signer(SignerError::Refused("policy".into()))
    );
}

#[test]
fn a_proof_of_another_context_is_refused_even_for_the_same_node() {
    let (context, twin) = (SignerContext::new(node()), SignerContext::new(node()));
    let refused = context.attach(prove(&twin), embedded(NODE)).unwrap_err();
    assert_eq!(refused, AttachError::ProofOfAnother);
    assert_eq!(context.state(), SignerState::Never);
    // A clone is the same context.
    let _session = context
        .clone()
        .attach(prove(&context), embedded(NODE))
        .unwrap();
}

#[test]
fn a_signer_of_another_node_is_refused_though_the_proof_is_right() {
    let context = SignerContext::new(node());
    let refused = context
        .attach(prove(&context), embedded(ANOTHER))
        .unwrap_err();
    let (expected, offered) = (node(), key(ANOTHER).node_id());
    assert_eq!(refused, AttachError::OtherNode { expected, offered });
    assert!(!context.is_live());
}

#[test]
fn a_second_signer_is_refused_while_one_is_attached_and_disturbs_nothing() {
    let context = SignerContext::new(node());
    let session = attach(&context, embedded(NODE));
    let lease = context.lease().unwrap();
    let refused = context.attach(prove(&context), embedded(NODE)).unwrap_err();
    assert_eq!(
        refused,
        AttachError::Occupied {
            live: session.epoch()
        }
    );
    assert!(lease.is_live() && session.is_live());
}

#[test]
fn p6_a_take_over_proves_first_and_then_ends_the_incumbent() {
    let context = SignerContext::new(node());
    let incumbent = attach(&context, embedded(NODE));
    let proof = prove(&context);
    assert!(context.lapse(LapseReason::TakenOver).is_some());
    let successor = context.attach(proof, embedded(NODE)).unwrap();
    assert!(!incumbent.is_live());
    // The incumbent's holder notices late; its drop must not end the successor.
    drop(incumbent);
    assert!(successor.is_live());
    assert_eq!(context.state(), SignerState::Live(successor.epoch()));
}

#[test]
fn p6_a_proof_from_before_a_session_does_not_begin_the_one_after_it() {
    let context = SignerContext::new(node());
    let outdated = prove(&context);
    let first = attach(&context, embedded(NODE));
    let last = first.epoch();
    drop(first);
    let refused = context.attach(outdated, embedded(NODE)).unwrap_err();
    assert_eq!(refused, AttachError::ProofOutdated { last });
    assert_eq!(refused.retry(), Retry::Later);
}

#[test]
fn a_context_that_is_shut_down_takes_no_signer() {
    let context = SignerContext::new(node());
    let session = attach(&context, embedded(NODE));
    let lapse = context.shut_down().unwrap();
    assert_eq!(
        (lapse.epoch, lapse.reason),
        (session.epoch(), LapseReason::Shutdown)
    );
    let refused = context.attach(prove(&context), embedded(NODE)).unwrap_err();
    assert_eq!(refused, AttachError::Draining);
    assert!(context.shut_down().is_none());
}

// --- lapse ---

#[test]
fn each_way_to_end_a_session_says_its_reason_once() {
    let context = SignerContext::new(node());
    for reason in LapseReason::ALL {
        let session = attach(&context, embedded(NODE));
        let last = session.epoch();
        assert_eq!(context.lapse(*reason).unwrap().reason, *reason);
        assert_eq!(
            context.state(),
            SignerState::Away {
                last,
                reason: *reason
            }
        );
        assert!(context.lapse(LapseReason::Requested).is_none());
        assert!(session.lapse(LapseReason::StreamClosed).is_none());
        assert_eq!(context.last_lapse().unwrap().reason, *reason);
        assert_eq!(
            context.state(),
            SignerState::Away {
                last,
                reason: *reason
            }
        );
    }
}

#[test]
fn reasons_are_distinct_lower_case_labels() {
    let labels: std::collections::BTreeSet<_> = LapseReason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .collect();
    assert_eq!(labels.len(), LapseReason::ALL.len());
    assert!(labels.iter().all(|label| {
        label
            .bytes()
            .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
    }));
}

#[test]
fn lapse_without_a_session_does_nothing() {
    let context = SignerContext::new(node());
    assert!(context.lapse(LapseReason::Requested).is_none());
    assert_eq!(context.last_lapse(), None);
    assert_eq!(context.state(), SignerState::Never);
}

#[test]
fn dropping_the_session_is_the_lapse() {
    let context = SignerContext::new(node());
    let session = attach(&context, embedded(NODE));
    let (last, lease) = (session.epoch(), context.lease().unwrap());
    drop(session);
    assert!(!lease.is_live());
    let reason = LapseReason::Dropped;
    assert_eq!(context.state(), SignerState::Away { last, reason });
}

#[test]
fn a_panic_of_the_holder_is_the_lapse() {
    let context = SignerContext::new(node());
    let session = attach(&context, embedded(NODE));
    let last = session.epoch();
    let holder = std::thread::spawn(move || {
        let _session = session;
        panic!("in the session's holder (this panic is part of the test)");
    });
    assert!(holder.join().is_err());
    let reason = LapseReason::Panicked;
    assert_eq!(context.state(), SignerState::Away { last, reason });
}

#[tokio::test]
async fn a_panic_in_the_holders_task_is_the_lapse() {
    let context = SignerContext::new(node());
    let session = attach(&context, embedded(NODE));
    let last = session.epoch();
    let (go, when) = oneshot::channel::<()>();
    let holder = tokio::spawn(async move {
        when.await.unwrap();
        assert!(
            !session.is_live(),
            "part of the test: it is live, so this panics"
        );
    });
    go.send(()).unwrap();
    assert!(holder.await.unwrap_err().is_panic());
    let reason = LapseReason::Panicked;
    assert_eq!(context.state(), SignerState::Away { last, reason });
    assert!(context.lease().is_err());
}

#[tokio::test]
async fn a_subscriber_sees_signers_come_and_go() {
    let context = SignerContext::new(node());
    let mut states = context.subscribe();
    assert_eq!(*states.borrow_and_update(), SignerState::Never);
    let session = attach(&context, embedded(NODE));
    let last = session.epoch();
    states.changed().await.unwrap();
    assert_eq!(*states.borrow_and_update(), SignerState::Live(last));
    let _ = session.lapse(LapseReason::StreamClosed);
    states.changed().await.unwrap();
    let reason = LapseReason::StreamClosed;
    assert_eq!(
        *states.borrow_and_update(),
        SignerState::Away { last, reason }
    );
    // What changes nothing wakes nobody.
    assert!(context.lapse(LapseReason::Requested).is_none());
    assert!(!states.has_changed().unwrap());
}

// --- ECDH across a lapse ---

#[tokio::test]
async fn an_ecdh_gives_the_secret_and_a_lease_of_the_same_epoch() {
    let context = SignerContext::new(node());
    let session = attach(&context, embedded(NODE));
    let (secret, lease) = context.ecdh(call()).await.unwrap();
    assert!(secret.ct_eq(&key(NODE).ecdh(&point())));
    assert!(lease.is_live());
    assert_eq!(lease.epoch(), session.epoch());
}

#[tokio::test]
async fn p5_an_ecdh_without_a_signer_fails_at_once() {
    let context = SignerContext::new(node());
    let error = context.ecdh(call()).await.err().unwrap();
    assert_eq!(error, EcdhError::SignerAway(SignerAway));
    assert_eq!(error.retry(), Retry::WhenSignerReturns);
    drop(attach(&context, embedded(NODE)));
    let error = context.ecdh(call()).await.err().unwrap();
    assert_eq!(error, EcdhError::SignerAway(SignerAway));
}

#[tokio::test]
async fn a_failing_signer_fails_the_ecdh_and_nothing_else() {
    let context = SignerContext::new(node());
    let session = attach(&context, Scripted::new(Answer::Fails));
    let error = context.ecdh(call()).await.err().unwrap();
    assert_eq!(
        error,
        EcdhError::Signer(SignerError::Refused("policy".into()))
    );
    assert!(session.is_live());
}

#[tokio::test]
async fn p5_a_lapse_ends_the_wait_for_a_signer_that_never_answers() {
    let context = SignerContext::new(node());
    let signer = Scripted::new(Answer::Never);
    let (asked, held) = (Arc::clone(&signer.asked), Arc::clone(&signer.held));
    let session = attach(&context, signer);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let context = context.clone();
            tokio::spawn(async move { context.ecdh(call()).await.err() })
        })
        .collect();
    asked.notified().await;
    while held.load(SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    drop(session);
    for wait in waiting {
        assert_eq!(wait.await.unwrap(), Some(EcdhError::SignerAway(SignerAway)));
    }
    assert_eq!(held.load(SeqCst), 0, "a question was left behind");
}

/// The answer is there, the session has lapsed, and the task that asked has not run since: it must not get the answer,
/// nor must it under the next epoch.
#[tokio::test]
async fn p6_an_answer_that_comes_with_the_lapse_is_never_returned() {
    let context = SignerContext::new(node());
    let (signer, go) = Scripted::late();
    let asked = Arc::clone(&signer.asked);
    let session = attach(&context, signer);
    let asking = {
        let context = context.clone();
        tokio::spawn(async move { context.ecdh(call()).await.err() })
    };
    asked.notified().await;
    // One thread: the asking task does not run between these two lines.
    go.send(()).unwrap();
    let _ = session.lapse(LapseReason::Requested).unwrap();
    let successor = attach(&context, embedded(NODE));
    assert_eq!(
        asking.await.unwrap(),
        Some(EcdhError::SignerAway(SignerAway))
    );
    assert!(successor.is_live());
    assert!(context.ecdh(call()).await.is_ok());
}

/// The signer ends the session in the very poll in which it answers: the race's last moment.
#[tokio::test]
async fn p6_an_answer_given_in_the_moment_of_the_lapse_is_never_returned() {
    struct Suicidal(SignerContext);
    impl Signer for Suicidal {
        fn node_id(&self) -> NodeId {
            node()
        }
        fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
            Box::pin(async move {
                assert!(self.0.lapse(LapseReason::SignerError).is_some());
                Ok(key(NODE).ecdh(&call.point))
            })
        }
    }
    let context = SignerContext::new(node());
    let session = attach(&context, Arc::new(Suicidal(context.clone())));
    let error = context.ecdh(call()).await.err();
    assert_eq!(error, Some(EcdhError::SignerAway(SignerAway)));
    assert!(!session.is_live());
}

#[test]
fn giving_up_an_ecdh_leaves_nothing_behind() {
    let context = SignerContext::new(node());
    let signer = Scripted::new(Answer::Never);
    let session = attach(&context, Arc::clone(&signer) as Arc<dyn Signer>);
    {
        let mut asking = Box::pin(context.ecdh(call()));
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(matches!(asking.as_mut().poll(&mut nobody), Poll::Pending));
        assert_eq!(signer.held.load(SeqCst), 1);
    }
    assert_eq!(
        (signer.begun.load(SeqCst), signer.held.load(SeqCst)),
        (1, 0)
    );
    assert!(session.is_live());
    drop(session);
    assert_eq!(
        Arc::strong_count(&signer),
        1,
        "somebody still holds the signer"
    );
}

#[tokio::test]
async fn an_ecdh_future_can_move_between_threads() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    let context = SignerContext::new(node());
    assert!(send(context.ecdh(call())).await.is_err());
    assert!(
        send(context.prove(&*embedded(NODE), &mut [9; 32]))
            .await
            .is_ok()
    );
}
