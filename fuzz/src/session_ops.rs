//! The signer's context, from challenge to lapse, against a plain model of it.
//!
//! One thread: what several may do at the same moment is loom's to find out. Futures are polled by hand, so that a lapse comes
//! between any two steps of a question.

use super::feed::Feed;
use pilotlight::error::{Culprit, Retry};
use pilotlight::node_id::{LocalKey, NodeId, Point};
use pilotlight::secret::SharedSecret;
use pilotlight::signer::{
    AttachError, Challenge, EcdhCall, EcdhError, EcdhFuture, EmbeddedSigner, Epoch, LapseReason,
    Lease, Proof, ProofError, Purpose, Signer, SignerAway, SignerContext, SignerError,
    SignerSession, SignerState, bind,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Events in one run.
const MOST: usize = 300;
/// Of each thing that is held.
const HELD: usize = 8;
/// SHA-256 of a certificate.
const CERTIFICATE: [u8; 32] = [5; 32];

/// How the signer answers.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    AtOnce,
    /// When it is looked at for the second time.
    Later,
    Never,
    Fails,
}

/// A key in this process that takes its time.
struct Slow {
    inner: EmbeddedSigner,
    manner: Manner,
}

impl Signer for Slow {
    fn node_id(&self) -> NodeId {
        self.inner.node_id()
    }

    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
        let (manner, mut looks) = (self.manner, 0);
        let mut answer = self.inner.ecdh(call);
        Box::pin(std::future::poll_fn(move |context| {
            looks += 1;
            match manner {
                Manner::AtOnce => answer.as_mut().poll(context),
                Manner::Later if looks > 1 => answer.as_mut().poll(context),
                Manner::Fails => Poll::Ready(Err(SignerError::Refused("not today".into()))),
                Manner::Later | Manner::Never => Poll::Pending,
            }
        }))
    }
}

type Answer = Result<(SharedSecret, Lease), EcdhError>;

/// What was asked and is not answered.
struct Question {
    future: Pin<Box<dyn Future<Output = Answer>>>,
    point: Point,
    /// The session that was asked, and how it answers; none before the first look.
    asked: Option<(u64, Manner)>,
}

struct World {
    context: SignerContext,
    /// Another context of the same node.
    elsewhere: SignerContext,
    key: LocalKey,
    /// What should be: the newest epoch, whether it is live, how its signer answers, and whether the node is draining.
    newest: u64,
    live: bool,
    manner: Manner,
    draining: bool,
    ended: Option<(u64, LapseReason)>,
    /// With the epoch that they were set after, and whether here or elsewhere.
    challenges: Vec<(Challenge, u64, bool)>,
    proofs: Vec<(Proof, u64, bool)>,
    sessions: Vec<SignerSession>,
    leases: Vec<Lease>,
    questions: Vec<Question>,
}

/// Ops: 0 a challenge, 1 an answer to one, 2 a proof of a signer at hand, 3 a proof is used, 4 a lease, 5 a question, 6 a look at one, 7 one
/// is given up, 8 a session is dropped, 9 one is ended, 10 whichever is live is ended, 11 the node drains.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let key = key(7);
    let mut world = World {
        context: SignerContext::new(key.node_id()),
        elsewhere: SignerContext::new(key.node_id()),
        key,
        newest: 0,
        live: false,
        manner: Manner::AtOnce,
        draining: false,
        ended: None,
        challenges: Vec::new(),
        proofs: Vec::new(),
        sessions: Vec::new(),
        leases: Vec::new(),
        questions: Vec::new(),
    };
    let watched = world.context.subscribe();
    for _ in 0..MOST {
        if feed.is_empty() {
            break;
        }
        world.op(&mut feed);
        world.check();
        assert_eq!(*watched.borrow(), world.context.state());
    }
}

fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte.clamp(1, 254); 32]).unwrap()
}

/// One look at a future.
fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> Poll<T> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// One of those that are held, if any is.
fn one_of<T>(held: &mut Vec<T>, feed: &mut Feed<'_>) -> Option<T> {
    let which = usize::from(feed.u8());
    (!held.is_empty()).then(|| held.swap_remove(which % held.len()))
}

fn keep<T>(held: &mut Vec<T>, one: T) {
    if held.len() < HELD {
        held.push(one);
    }
}

fn reason(feed: &mut Feed<'_>) -> LapseReason {
    let reason = LapseReason::ALL[feed.below(LapseReason::ALL.len())];
    assert_eq!(reason.to_string(), reason.as_str());
    reason
}

impl World {
    fn op(&mut self, feed: &mut Feed<'_>) {
        match feed.below(12) {
            0 => self.challenge(feed),
            1 => self.answer(feed),
            2 => self.prove(feed),
            3 => self.attach(feed),
            4 => {
                let lease = self.context.lease();
                assert_eq!(lease.is_ok(), self.live);
                match lease {
                    Ok(lease) => keep(&mut self.leases, lease),
                    Err(away) => is_away(away),
                }
            }
            5 => self.ask(feed),
            6 => self.look(feed),
            7 => drop(one_of(&mut self.questions, feed)),
            8 => {
                if let Some(session) = one_of(&mut self.sessions, feed) {
                    self.ends(session.epoch().get(), LapseReason::Dropped);
                    drop(session);
                }
            }
            9 => {
                let reason = reason(feed);
                if let Some(session) = one_of(&mut self.sessions, feed) {
                    assert!(format!("{session:?}").contains(&session.epoch().to_string()));
                    let was_live = session.is_live();
                    let ends = self.ends(session.epoch().get(), reason);
                    assert_eq!((was_live, session.lapse(reason).is_some()), (ends, ends));
                }
            }
            10 => {
                let reason = reason(feed);
                let ends = self.ends(self.newest, reason);
                assert_eq!(self.context.lapse(reason).is_some(), ends);
            }
            _ => {
                // Rarely: little happens after it.
                if feed.u8() % 16 == 15 {
                    let ends = self.ends(self.newest, LapseReason::Shutdown);
                    self.draining = true;
                    assert_eq!(self.context.shut_down().is_some(), ends);
                }
            }
        }
    }

    /// Whether that epoch was live, and is not any more.
    fn ends(&mut self, epoch: u64, reason: LapseReason) -> bool {
        let ends = self.live && self.newest == epoch;
        if ends {
            self.live = false;
            self.ended = Some((epoch, reason));
        }
        ends
    }

    fn challenge(&mut self, feed: &mut Feed<'_>) {
        let mut entropy = [feed.u8(); 32];
        let (zero, too_large) = (entropy == [0; 32], entropy == [0xff; 32]);
        let here = feed.u8() % 8 < 7;
        let context = if here { &self.context } else { &self.elsewhere };
        let challenge = context.challenge(&mut entropy);
        assert_eq!(entropy, [0; 32], "the randomness is left behind");
        match challenge {
            Ok(challenge) => {
                assert!(!zero && !too_large);
                assert_eq!(challenge.node_id(), self.key.node_id());
                assert!(!format!("{challenge:?}").contains("expected"));
                let after = if here { self.newest } else { 0 };
                keep(&mut self.challenges, (challenge, after, here));
            }
            Err(error) => {
                assert!((zero || too_large) && error == ProofError::Entropy);
                unproven(&error, Culprit::Us);
            }
        }
    }

    /// The right answer, one bound to a certificate, or that of another key.
    fn answer(&mut self, feed: &mut Feed<'_>) {
        let Some((challenge, after, here)) = one_of(&mut self.challenges, feed) else {
            return;
        };
        let (manner, point) = (feed.below(8), challenge.point());
        let right = self.key.ecdh(&point);
        let bound = bind(&right, &CERTIFICATE);
        let (verdict, is_right) = match manner {
            0 => (challenge.verify(key(8).ecdh(&point)), false),
            1 => (challenge.verify(bound), false),
            2 => (challenge.verify_bound(right, &CERTIFICATE), false),
            3 => (challenge.verify_bound(bound, &[6; 32]), false),
            4 => (challenge.verify_bound(bound, &CERTIFICATE), true),
            _ => (challenge.verify(right), true),
        };
        match verdict {
            Ok(proof) => {
                assert!(is_right, "a wrong answer is a proof");
                assert!(format!("{proof:?}").starts_with("Proof"));
                keep(&mut self.proofs, (proof, after, here));
            }
            Err(error) => {
                assert!(!is_right && error == ProofError::WrongAnswer);
                unproven(&error, Culprit::Signer);
            }
        }
    }

    fn prove(&mut self, feed: &mut Feed<'_>) {
        let (signer, is_ours, manner) = self.signer(feed);
        let (context, mut entropy) = (self.context.clone(), [3; 32]);
        let mut proving: Pin<Box<dyn Future<Output = _>>> =
            Box::pin(async { context.prove(&*signer, &mut entropy).await });
        let mut looked = poll(&mut proving);
        if looked.is_pending() {
            assert!(is_ours && matches!(manner, Manner::Later | Manner::Never));
            looked = poll(&mut proving);
        }
        drop(proving);
        match looked {
            Poll::Ready(Ok(proof)) => {
                assert!(is_ours && matches!(manner, Manner::AtOnce | Manner::Later));
                keep(&mut self.proofs, (proof, self.newest, true));
            }
            Poll::Ready(Err(error)) => {
                assert!(!is_ours || manner == Manner::Fails);
                assert_eq!(!is_ours, matches!(error, ProofError::OtherNode { .. }));
                unproven(&error, Culprit::Signer);
            }
            Poll::Pending => assert!(manner == Manner::Never),
        }
        assert_eq!(entropy, [0; 32]);
    }

    /// Rarely that of another node.
    fn signer(&self, feed: &mut Feed<'_>) -> (Arc<dyn Signer>, bool, Manner) {
        let (is_ours, manner) = (feed.u8() % 8 < 7, feed.below(8));
        let manner = match manner {
            0 => Manner::Never,
            1 | 2 => Manner::Later,
            3 => Manner::Fails,
            _ => Manner::AtOnce,
        };
        let inner = EmbeddedSigner::from_key(key(if is_ours { 7 } else { 8 }));
        assert_eq!(inner.node_id() == self.key.node_id(), is_ours);
        (Arc::new(Slow { inner, manner }), is_ours, manner)
    }

    fn attach(&mut self, feed: &mut Feed<'_>) {
        let Some((proof, after, here)) = one_of(&mut self.proofs, feed) else {
            return;
        };
        let (signer, is_ours, manner) = self.signer(feed);
        let attached = self.context.attach(proof, signer);
        let refused = if !here {
            Some("another context")
        } else if !is_ours {
            Some("this node is")
        } else if self.draining {
            Some("shutting down")
        } else if self.live {
            Some("attached already")
        } else if after != self.newest {
            Some("challenged anew")
        } else {
            None
        };
        match attached {
            Ok(session) => {
                assert_eq!(refused, None, "it should have been refused");
                self.newest += 1;
                (self.live, self.manner) = (true, manner);
                assert_eq!(session.epoch().get(), self.newest);
                // Its holder's place is full: dropped at once, it is over at once.
                if self.sessions.len() >= HELD {
                    self.ends(self.newest, LapseReason::Dropped);
                }
                keep(&mut self.sessions, session);
            }
            Err(error) => {
                let expected = refused.expect("refused for nothing");
                assert!(error.to_string().contains(expected), "{error}");
                assert!(!error.rule().is_empty());
                let ours = matches!(error, AttachError::ProofOfAnother | AttachError::Draining);
                assert_eq!(error.culprit() == Culprit::Us, ours);
                let later = matches!(
                    error,
                    AttachError::Occupied { .. } | AttachError::ProofOutdated { .. }
                );
                assert_eq!(error.retry() == Retry::Later, later);
            }
        }
    }

    fn ask(&mut self, feed: &mut Feed<'_>) {
        let (point, context) = (key(feed.u8()).point(), self.context.clone());
        let purpose = [Purpose::ChannelDial, Purpose::GossipDial][feed.below(2)];
        let future = Box::pin(async move { context.ecdh(EcdhCall::new(point, purpose)).await });
        let question = Question {
            future,
            point,
            asked: None,
        };
        keep(&mut self.questions, question);
    }

    /// P5, P6: what needs the signer fails at once without it, and no answer is used after its session.
    fn look(&mut self, feed: &mut Feed<'_>) {
        let Some(mut question) = one_of(&mut self.questions, feed) else {
            return;
        };
        let first = question.asked.is_none();
        if first && self.live {
            question.asked = Some((self.newest, self.manner));
        }
        let looked = poll(&mut question.future);
        let asked = question
            .asked
            .filter(|(epoch, _)| self.live && *epoch == self.newest);
        match (looked, asked) {
            (Poll::Ready(Err(EcdhError::SignerAway(away))), None) => is_away(away),
            (Poll::Ready(Ok((secret, lease))), Some((epoch, Manner::AtOnce | Manner::Later))) => {
                assert!(lease.is_live() && lease.epoch().get() == epoch);
                assert!(secret.ct_eq(&self.key.ecdh(&question.point)));
                keep(&mut self.leases, lease);
            }
            (Poll::Ready(Err(error @ EcdhError::Signer(_))), Some((_, Manner::Fails))) => {
                assert_eq!(
                    (error.culprit(), error.retry()),
                    (Culprit::Signer, Retry::Never)
                );
                assert!(error.rule().starts_with("BOLT 8") && error.to_string().contains("today"));
            }
            (Poll::Pending, Some((_, manner))) => {
                assert!(manner == Manner::Never || (first && manner == Manner::Later));
                keep(&mut self.questions, question);
            }
            (Poll::Ready(_), _) => panic!("another outcome than the session's"),
            (Poll::Pending, None) => panic!("it waits for a session that is over"),
        }
    }

    fn check(&self) {
        let context = &self.context;
        let (state, newest) = (context.state(), (self.newest > 0).then_some(self.newest));
        assert_eq!(context.is_live(), self.live);
        assert_eq!(state.live().map(Epoch::get), newest.filter(|_| self.live));
        assert_eq!(state.newest().map(Epoch::get), newest);
        assert_eq!(state == SignerState::Never, newest.is_none());
        let ended = context.last_lapse();
        assert_eq!(ended.map(|end| (end.epoch.get(), end.reason)), self.ended);
        for lease in &self.leases {
            let live = self.live && lease.epoch().get() == self.newest;
            assert_eq!(lease.is_live(), live, "{lease:?}");
        }
        let waiting = self.questions.iter().filter(|one| one.asked.is_some());
        assert_eq!(context.ecdh_in_flight(), waiting.count());
        assert!(format!("{context:?}").contains(&self.key.node_id().to_string()));
        assert_eq!(self.elsewhere.state(), SignerState::Never);
    }
}

fn is_away(away: SignerAway) {
    let told = (away.culprit(), away.retry());
    assert_eq!(told, (Culprit::Signer, Retry::WhenSignerReturns));
    let error = EcdhError::from(away);
    assert_eq!((error.culprit(), error.retry()), told);
    assert!(error.rule().starts_with("P5") && error.to_string() == away.to_string());
}

fn unproven(error: &ProofError, culprit: Culprit) {
    assert_eq!(error.culprit(), culprit);
    assert!(!error.rule().is_empty() && !error.to_string().is_empty());
    assert_eq!(error.retry() == Retry::Later, *error == ProofError::Entropy);
}
