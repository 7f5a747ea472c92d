//! What the supervisor's driver does when its machine says so: dials, verdicts, closes, words to whoever waits.
//!
//! It decides nothing and never waits.

use super::super::ConnectError;
use super::super::cause::Cause;
use super::super::machine::Output;
use super::{Dialing, Driver};
use crate::address::KnownAddress;
use crate::link::driver::{DialAs, DialOrder, Persona, Verdict, dial, live_on};
use crate::link::shared::Stage;
use crate::link::{CloseReason, LinkHandle, LinkId, Tag};
use crate::node_id::NodeId;
use crate::signer::Purpose;
use crate::telemetry::Event;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;

impl Driver {
    pub(super) fn act(&mut self, output: Output, cause: Option<&Cause>) {
        match output {
            Output::Dial {
                link,
                peer,
                address,
                tag,
                persona,
            } => {
                let as_whom = match persona {
                    Some(number) => DialAs::Persona(self.persona(number)),
                    None => self.as_node(tag),
                };
                self.dial(link, peer, address, as_whom);
            }
            Output::Admit { link, tag } => self.admit(link, tag),
            Output::Refuse { link, reason } => self.judge(link, Verdict::Refuse(reason)),
            Output::Probe(link) => {
                if let Some(shared) = self.env.vault.get(link) {
                    shared.state.request_probe();
                }
            }
            Output::Close { link, reason } => self.close(link, reason),
            Output::Retag { link, tag } => self.retag(link, tag),
            Output::Save(record) => self.keeper.save(record),
            Output::Forget(peer) => {
                self.keeper.forget(peer);
                self.notes.forget(peer);
                self.answer(peer, |_| Err(ConnectError::Removed));
            }
            Output::Tagged { peer, tag } => self.env.telemetry.emit(Event::Tagged { peer, tag }),
            Output::Failed {
                peer,
                link,
                retry_in,
            } => self.failed(peer, link, retry_in, cause),
            Output::Held(peer) => self.held(peer),
            Output::HeldDown { lapses, wait } => {
                self.env.telemetry.emit(Event::HeldDown { lapses, wait });
            }
            Output::Deadlines(near) => self.env.telemetry.emit(Event::HtlcDeadline(near)),
            Output::FloorMissing { missing, wanted } => {
                let event = Event::GossipFloor { missing, wanted };
                self.env.telemetry.emit(event);
            }
            Output::Relit {
                epoch,
                took,
                up,
                failed,
            } => {
                self.env.telemetry.emit(Event::Relit {
                    epoch,
                    took,
                    up,
                    failed,
                });
            }
        }
    }

    /// A lapse since the machine decided shows in the dial itself: it fails at once.
    fn as_node(&self, tag: Tag) -> DialAs {
        if let (Tag::GossipOnly, false, Some(key)) =
            (tag, self.env.context.is_live(), &self.env.cached)
        {
            return DialAs::Cached(Arc::clone(key));
        }
        let (purpose, lease) = match tag {
            Tag::ChannelBearing => (Purpose::ChannelDial, self.env.context.lease().ok()),
            Tag::GossipOnly => (Purpose::GossipDial, None),
        };
        DialAs::Node { purpose, lease }
    }

    /// The persona with a number, made when it is first asked for. The one before it is forgotten, and wiped as soon as its
    /// last dial is over.
    fn persona(&mut self, number: u64) -> Option<Persona> {
        if self.persona.as_ref().is_none_or(|(of, _)| *of != number) {
            self.persona = Some((number, Persona::new()?));
        }
        self.persona.as_ref().map(|(_, persona)| persona.clone())
    }

    fn dial(&mut self, link: LinkId, peer: NodeId, address: KnownAddress, as_whom: DialAs) {
        let identity = as_whom.identity();
        let (give_up, cancel) = oneshot::channel();
        let authenticated = Arc::new(AtomicBool::new(false));
        let dialing = Dialing {
            address: address.address.clone(),
            identity,
            give_up: Some(give_up),
            authenticated: Arc::clone(&authenticated),
        };
        self.dials.insert(link, dialing);
        self.env.telemetry.emit(Event::Dialing {
            peer,
            address: address.address.clone(),
            identity,
        });
        let order = DialOrder {
            link,
            peer,
            address,
            as_whom,
            authenticated,
        };
        let mut dial = Box::pin(dial(Arc::clone(&self.env), order, cancel));
        // Begun here, up to the first wait: tasks start in any order, often the last one first, and the most urgent peer's SYN
        // shall leave first (P8). The task looks again at once, so nothing is lost with the idle waker.
        let begun = dial.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(admitted) = begun {
            live_on(admitted);
            return;
        }
        let task = self.tasks.spawn(async move { live_on(dial.await) });
        self.dialers.insert(task.id(), link);
    }

    /// Lets a link in, in the scope that its peer's tag asks for: from here on the vault has it as what it is.
    fn admit(&mut self, link: LinkId, tag: Tag) {
        if let Some(shared) = self.env.vault.get(link) {
            shared.state.set_stage(Stage::Admitted);
            shared.follow_tag(tag);
        }
        self.judge(link, Verdict::Admit);
    }

    pub(super) fn judge(&mut self, link: LinkId, verdict: Verdict) {
        if let Some(waiting) = self.verdicts.remove(&link) {
            // A task that has gone reports its own end.
            let _ = waiting.send(verdict);
        }
    }

    fn close(&mut self, link: LinkId, reason: CloseReason) {
        if let Some(shared) = self.env.vault.get(link) {
            // A persona's link that the node has, though the machine is yet to hear that it is up: it stays until the node's own link has
            // taken its place, as each that is up (P7).
            let state = &shared.state;
            let known = self.machine.peer(state.peer);
            let overtaken = state.stage() == Stage::Up
                && known.is_some_and(|peer| peer.up().all(|up| up != link));
            if reason != CloseReason::Persona || !overtaken {
                state.request_close(reason);
            }
        } else if let Some(give_up) = self
            .dials
            .get_mut(&link)
            .and_then(|dial| dial.give_up.take())
        {
            let _ = give_up.send(reason);
        }
    }

    /// Moves a live link into the signer's scope or out of it, as its peer's tag says.
    fn retag(&mut self, link: LinkId, tag: Tag) {
        let Some(shared) = self.env.vault.get(link) else {
            return;
        };
        let before = shared.state.leased_under();
        shared.follow_tag(tag);
        if before.is_none()
            && let Some(epoch) = shared.state.leased_under()
        {
            shared.state.emit(Event::Leased {
                peer: shared.state.peer,
                link,
                epoch,
            });
        }
    }

    fn failed(
        &mut self,
        peer: NodeId,
        link: LinkId,
        retry_in: Option<Duration>,
        cause: Option<&Cause>,
    ) {
        self.seen(peer);
        let (Some(dial), Some(cause)) = (self.dials.get(&link), cause) else {
            return;
        };
        let (address, identity) = (dial.address.clone(), dial.identity);
        let (failure, detail) = (cause.label(), cause.detail());
        self.env.telemetry.emit(Event::DialFailed {
            peer,
            address: Box::new(address),
            identity,
            failure,
            detail: detail.into(),
            retry_in,
        });
        let known = self.machine.peer(peer);
        if known.is_none_or(|peer| peer.up().next().is_none()) {
            self.answer(peer, |_| Err(cause.error()));
        }
    }

    /// Whoever asks for a link with a peer that is held hears at once why (P5).
    fn held(&mut self, peer: NodeId) {
        let now = self.env.clock.now();
        let wait = self.machine.held_down_until().map(|at| at.since(now));
        self.answer(peer, |_| {
            Err(match wait {
                Some(wait) => ConnectError::HeldDown { wait },
                None => ConnectError::SignerAway,
            })
        });
    }

    pub(super) fn answer(
        &mut self,
        peer: NodeId,
        answer: impl Fn(NodeId) -> Result<LinkHandle, ConnectError>,
    ) {
        for waiter in self.waiters.remove(&peer).into_iter().flatten() {
            let _ = waiter.send(answer(peer));
        }
    }
}
