//! Takes a sample at the lapse itself, on the thread that lapses, before `lapse` has returned there.
//!
//! The story does not call `lapse`: a stream ends, and the gateway does. To look when the news has come would be to look late,
//! and what a fenced link did in between would pass for done before. So the sample is taken by the *waking*: a lapse says `Away` once
//! its fence is up, and says it by waking who waits for it. The waker here does not wake a task; it looks.

use crate::signer::{Lapse, SignerContext};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use tokio::task::coop::unconstrained;

struct Sentry<T> {
    context: SignerContext,
    look: Box<dyn Fn() -> T + Send + Sync>,
    seen: OnceLock<(Lapse, T)>,
}

impl<T: Send + Sync + 'static> Wake for Sentry<T> {
    fn wake(self: Arc<Self>) {
        if self.context.state().live().is_some() {
            return;
        }
        if let Some(lapse) = self.context.last_lapse() {
            self.seen.get_or_init(|| (lapse, (self.look)()));
        }
    }
}

/// A sentry on duty. It looks once.
pub(super) struct Post<T> {
    sentry: Arc<Sentry<T>>,
    /// Kept, because who no longer waits is not woken.
    _wait: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<T: Send + Sync + 'static> Post<T> {
    /// Puts one up for the session that is live; `None` when none is. `look` runs inside the lapse: it must be quick and must not
    /// touch the signer's context.
    pub(super) fn put_up(
        context: &SignerContext,
        look: impl Fn() -> T + Send + Sync + 'static,
    ) -> Option<Self> {
        let sentry = Arc::new(Sentry {
            context: context.clone(),
            look: Box::new(look),
            seen: OnceLock::new(),
        });
        let mut states = context.subscribe();
        // Polled outside tokio's budget, which would answer "not yet" without waiting for anything.
        let mut wait: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(unconstrained(async move {
                let _ = states.wait_for(|state| state.live().is_none()).await;
            }));
        let waker = Waker::from(Arc::clone(&sentry));
        match wait.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => Some(Self {
                sentry,
                _wait: wait,
            }),
            Poll::Ready(()) => None,
        }
    }

    /// The lapse and what was seen at it, once it has been.
    pub(super) fn seen(&self) -> Option<&(Lapse, T)> {
        self.sentry.seen.get()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::node_id::LocalKey;
    use crate::signer::{EmbeddedSigner, LapseReason, Signer, SignerSession, SignerState};
    use std::thread;

    async fn live() -> (SignerContext, SignerSession) {
        let key = LocalKey::from_bytes(&mut [7; 32]).unwrap();
        let signer = Arc::new(EmbeddedSigner::from_key(key));
        let context = SignerContext::new(signer.node_id());
        let proof = context.prove(&*signer, &mut [9; 32]).await.unwrap();
        let session = context.attach(proof, signer).unwrap();
        (context, session)
    }

    #[tokio::test]
    async fn it_has_looked_when_lapse_returns_on_the_thread_that_lapses_and_with_the_fence_up() {
        let (context, session) = live().await;
        let (lease, there) = (context.lease().unwrap(), context.clone());
        let post = Post::put_up(&context, move || {
            (thread::current().id(), lease.is_live(), there.state())
        })
        .unwrap();
        assert!(post.seen().is_none());
        let lapsing = thread::spawn(move || {
            let lapse = session.lapse(LapseReason::StreamClosed).unwrap();
            // No one else runs in between: what it saw is there already.
            (lapse, post.seen().copied(), thread::current().id())
        });
        let (lapse, seen, thread) = lapsing.join().unwrap();
        let away = SignerState::Away {
            last: lapse.epoch,
            reason: LapseReason::StreamClosed,
        };
        assert_eq!(seen, Some((lapse, (thread, false, away))));
    }

    #[tokio::test]
    async fn without_a_session_there_is_nothing_to_wait_for() {
        let (context, session) = live().await;
        drop(session);
        assert!(Post::put_up(&context, || ()).is_none());
    }
}
