//! The supervisor's one task: feeds [`SupervisorMachine`] with what happens and does what it says.
//!
//! It never waits for a link, a peer, the signer, the book or the node: whatever takes time runs in a task of its own and reports
//! back. So nobody's report to it is held up for long. Beside that it rings the links' alarms.

mod acts;
mod notes;

use self::notes::Notes;
use super::bookkeeper::BookKeeper;
use super::cause::Cause;
use super::commands::{Command, LinkWaiter};
use super::conduct::Offence;
use super::machine::{Input, Policy, SupervisorMachine};
use super::waits::{Drain, changed, overrun, ring};
use super::{
    ConnectError, PeerSpec, PeerView, Pending, PendingPeer, RosterError, Shared, watchman,
};
use crate::address::PeerAddress;
use crate::clock::{Moment, Sleep};
use crate::limits;
use crate::link::alarms;
use crate::link::driver::{Env, Persona, Report, Verdict};
use crate::link::{CloseReason, Direction, HandshakeFailure, Identity, LinkHandle, LinkId, Tag};
use crate::node_id::NodeId;
use crate::signer::{Epoch, SignerState};
use crate::telemetry::Event;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{self, JoinError, JoinSet};

/// The driver's state.
pub(crate) struct Driver {
    env: Arc<Env>,
    shared: Arc<Shared>,
    machine: SupervisorMachine,
    keeper: Arc<BookKeeper>,
    notes: Notes,
    /// Links that wait for a verdict. A tree, as the dials are in: a table would keep the room that a relight took.
    verdicts: BTreeMap<LinkId, oneshot::Sender<Verdict>>,
    /// Dials under way: where to, and how to give them up.
    dials: BTreeMap<LinkId, Dialing>,
    waiters: HashMap<NodeId, Vec<LinkWaiter>>,
    tasks: JoinSet<()>,
    /// Whose dial a task is, in case it panics: the signer's code runs in it.
    dialers: HashMap<task::Id, LinkId>,
    /// The throwaway key in use, and its number.
    persona: Option<(u64, Persona)>,
    epoch: Option<Epoch>,
    /// Whether the signer of that session is behind, if it can say so.
    behind: Option<watch::Receiver<bool>>,
    /// The newest session whose channel peers have had their turn: those who were parked may ask it.
    relit: watch::Sender<Option<Epoch>>,
    away_since: Option<Moment>,
    alarm: Option<(Moment, Sleep)>,
    drain: Option<Drain>,
}

/// A dial under way.
struct Dialing {
    address: PeerAddress,
    identity: Identity,
    /// Gives it up, as long as its handshake is not done.
    give_up: Option<oneshot::Sender<CloseReason>>,
    /// Its handshake is done: it reports its own end.
    authenticated: Arc<AtomicBool>,
}

/// What the driver hears from.
pub(crate) struct Channels {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) signer: watch::Receiver<SignerState>,
}

impl Drop for Driver {
    /// Links have tasks of their own: if this one panicked or was cancelled, none of them may live on without it.
    fn drop(&mut self) {
        if self.env.vault.shut() {
            self.reset_all();
        }
    }
}

impl Driver {
    pub(crate) fn new(
        env: Arc<Env>,
        shared: Arc<Shared>,
        keeper: Arc<BookKeeper>,
        relit: watch::Sender<Option<Epoch>>,
        policy: Policy,
    ) -> Self {
        let machine = SupervisorMachine::new(env.context.node_id(), env.seed)
            .with_policy(policy)
            .protecting(Arc::clone(&env.settings.protected));
        Self {
            env,
            shared,
            machine,
            keeper,
            notes: Notes::default(),
            verdicts: BTreeMap::new(),
            dials: BTreeMap::new(),
            waiters: HashMap::new(),
            tasks: JoinSet::new(),
            dialers: HashMap::new(),
            persona: None,
            epoch: None,
            behind: None,
            relit,
            away_since: None,
            alarm: None,
            drain: None,
        }
    }

    /// Runs until every handle on the supervisor is dropped, or a drain is over. Leaves no link behind.
    pub(crate) async fn run(mut self, channels: Channels) {
        let env = Arc::clone(&self.env);
        let ringing = alarms::ring(&env.alarms, &*env.clock, |link| env.vault.wake(link));
        let overran = tokio::select! {
            // The alarms first: however much there is to serve, it does not hold up the pings of links that have nothing to do with it.
            biased;
            never = ringing => match never {},
            overran = self.serve(channels) => overran,
        };
        self.note_sightings();
        let _ = self.env.vault.shut();
        // Links whose end has not been reported, be it that their peer or that the node does not take what is left.
        let left = self.machine.links_up();
        self.reset_all();
        self.end_drain(if overran { left } else { 0 });
    }

    /// `true`: the drain's deadline has passed.
    async fn serve(&mut self, mut channels: Channels) -> bool {
        loop {
            self.look_at_signer(&mut channels.signer);
            self.feed_due();
            if self.is_drained() {
                return false;
            }
            tokio::select! {
                command = channels.commands.recv() => match command {
                    Some(command) => {
                        // Who attached a signer and then asks for a link must not hear that no signer is there.
                        self.look_at_signer(&mut channels.signer);
                        self.command(command);
                    }
                    None => return false,
                },
                report = channels.reports.recv() => if let Some(report) = report { self.report(report) },
                changed = channels.signer.changed() => if changed.is_err() { return false },
                () = changed(&mut self.behind) => {}
                () = ring(&mut self.alarm) => self.alarm = None,
                () = ring(self.notes.alarm()) => self.note_sightings(),
                () = overrun(&mut self.drain) => return true,
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended),
            }
        }
    }

    fn feed(&mut self, input: Input) {
        self.feed_with(input, None);
    }

    /// `cause`: why a dial failed, if the input says that one did.
    fn feed_with(&mut self, input: Input, cause: Option<&Cause>) {
        let mut outputs = Vec::new();
        self.machine
            .handle(self.env.clock.now(), input, &mut outputs);
        for output in outputs {
            self.act(output, cause);
        }
        let epoch = self.epoch.filter(|_| !self.machine.is_relighting());
        if epoch.is_some() && *self.relit.borrow() < epoch {
            self.relit.send_replace(epoch);
        }
    }

    /// Tells the machine the time when it asked to be told, and sets the alarm for the next time.
    fn feed_due(&mut self) {
        let now = self.env.clock.now();
        if self.machine.deadline().is_some_and(|at| at <= now) {
            self.feed(Input::Tick);
        }
        let next = self.machine.deadline();
        if self.alarm.as_ref().map(|(at, _)| *at) != next {
            self.alarm = next.map(|at| (at, self.env.clock.sleep_until(at)));
        }
    }

    fn look_at_signer(&mut self, signer: &mut watch::Receiver<SignerState>) {
        let state = *signer.borrow_and_update();
        self.signer_changed(state);
        self.look_at_backlog();
    }

    fn look_at_backlog(&mut self) {
        let behind = self.behind.as_mut();
        let behind = behind.is_some_and(|behind| *behind.borrow_and_update());
        if behind != self.machine.is_behind() {
            self.feed(Input::Behind(behind));
        }
    }

    /// The watch may have skipped states: an epoch that is not the known one means that the known one has lapsed.
    fn signer_changed(&mut self, state: SignerState) {
        let live = state.live();
        if live == self.epoch {
            // A session that came and went between two looks leaves no epoch, but perhaps another mode.
            self.shared.note_mode();
            return;
        }
        let now = self.env.clock.now();
        if self.epoch.take().is_some() {
            self.away_since = Some(now);
            self.behind = None;
            self.feed(Input::Lapsed);
        }
        if let Some(epoch) = live {
            self.behind = self.env.context.behind(epoch);
            // Before the attach: it must not set off dials that the signer has no time for.
            self.look_at_backlog();
            self.epoch = Some(epoch);
            let away = self.away_since.take().map(|since| now.since(since));
            self.env
                .telemetry
                .emit(Event::SignerAttached { epoch, away });
            self.feed(Input::Attached(epoch));
        }
        self.shared.note_mode();
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Want { spec, done } => self.want(spec, done),
            Command::Add { spec, done } => {
                let _ = done.send(self.add(spec));
            }
            Command::Unwant { peer, done } => {
                let known = self.machine.peer(peer).is_some();
                self.feed(Input::Unwant(peer));
                self.show_deadline();
                let _ = done.send(known);
            }
            Command::Tag { peer, tag, done } => {
                self.feed(Input::Tag(peer, tag));
                let _ = done.send(());
            }
            Command::Declare { peers, done } => {
                self.feed(Input::Declare(peers));
                let _ = done.send(());
            }
            Command::Urgency {
                peer,
                urgency,
                done,
            } => {
                let answer = self.room_for(peer).map(|()| {
                    self.feed(Input::Urgency(peer, urgency));
                    self.show_deadline();
                });
                let _ = done.send(answer);
            }
            Command::Height { height, done } => {
                self.feed(Input::Height(height));
                self.show_deadline();
                let _ = done.send(());
            }
            Command::Pending { found } => {
                let peers = self.machine.pending().map(PendingPeer::new).collect();
                let _ = found.send(Pending::new(self.machine.block_height(), peers));
            }
            Command::Link { peer, found } => {
                let _ = found.send(self.handle_of(peer));
            }
            Command::Peers { found } => {
                let _ = found.send(self.peers());
            }
            Command::Drain { done } => self.start_drain(done),
        }
    }

    /// For the snapshot, which never waits for this task.
    fn show_deadline(&self) {
        let (height, soonest) = (self.machine.block_height(), self.machine.soonest_deadline());
        self.shared.chain().seen(height, soonest);
    }

    /// Whether a peer is known, or may still be taken in.
    fn room_for(&self, peer: NodeId) -> Result<(), RosterError> {
        if peer == self.env.context.node_id() {
            return Err(RosterError::OwnKey);
        }
        if self.machine.peer(peer).is_none() && self.machine.is_full() {
            return Err(RosterError::RosterFull);
        }
        Ok(())
    }

    fn add(&mut self, spec: PeerSpec) -> Result<(), RosterError> {
        self.room_for(spec.node_id)?;
        self.feed(wish(spec));
        Ok(())
    }

    fn want(&mut self, spec: PeerSpec, done: LinkWaiter) {
        let node_id = spec.node_id;
        if let Err(refused) = self.room_for(node_id) {
            let _ = done.send(Err(refused.into()));
            return;
        }
        // Waits before the machine speaks: what it says may already be the answer.
        let waiters = self.waiters.entry(node_id).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(done);
        self.feed(wish(spec));
        // A link that is closing is no answer: the next one is.
        if let Some(handle) = self
            .handle_of(node_id)
            .filter(|handle| handle.closed().is_none())
        {
            self.answer(node_id, |_| Ok(handle.clone()));
        } else if self.drain.is_some() {
            self.answer(node_id, |_| Err(ConnectError::Draining));
        } else {
            self.answer_stranded(Some(node_id));
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Authenticated {
                link,
                peer,
                address,
                direction,
                verdict,
            } => {
                self.verdicts.insert(link, verdict);
                if direction == Direction::Inbound && self.machine.is_counted(peer) {
                    if self.machine.is_stranger(peer) && self.shared.watchman.bars(peer) {
                        return self.judge(link, Verdict::Refuse(CloseReason::Banned));
                    }
                    // It may cost another stranger its link. Nobody else does: a thousand channel peers that come at once must not have
                    // all links looked through a thousand times.
                    watchman::tell_activity(&mut self.machine, &self.env);
                }
                self.feed(Input::Authenticated {
                    link,
                    peer,
                    direction,
                    address,
                });
            }
            Report::Up { link, handle } => self.up(link, &handle),
            Report::Alive { link } => self.feed(Input::Alive(link)),
            Report::Promote { peer, recorded } => {
                self.feed(Input::Tag(peer, Tag::ChannelBearing));
                self.keeper.flush(peer, recorded);
            }
            Report::DialFailed { link, failure } => self.dial_failed(link, failure),
            Report::InboundFailed {
                link,
                address,
                failure,
            } => {
                self.verdicts.remove(&link);
                let (label, detail) = (failure.label(), failure.to_string());
                self.shared
                    .watchman
                    .note(address.ip(), None, Offence::of_failure(label));
                self.env.telemetry.emit(Event::InboundFailed {
                    address,
                    failure: label,
                    detail,
                });
                self.feed(Input::Withdrawn(link));
            }
            Report::Ended { link, reason } => {
                if let Some((id, ip)) = self.machine.stranger_on(link) {
                    self.shared
                        .watchman
                        .note(ip, Some(id), Offence::of_end(reason));
                }
                let peer = self.machine.owner(link);
                let cause = Cause::Ended(HandshakeFailure::BeforeInit(reason), reason);
                self.feed_with(Input::Ended { link, reason }, Some(&cause));
                self.answer_stranded(peer);
                self.dials.remove(&link);
                peer.inspect(|peer| self.seen(*peer));
            }
        }
    }

    /// Whoever waits for a peer that has no link, no dial and no address waits for nothing.
    fn answer_stranded(&mut self, peer: Option<NodeId>) {
        let Some(id) = peer else {
            return;
        };
        let stranded = |peer: &super::roster::Peer| !peer.is_dialable() && peer.link().is_none();
        let peer = self.machine.peer(id);
        if peer.is_none_or(stranded) {
            let known = peer.is_some_and(super::roster::Peer::is_out_of_reach);
            self.answer(id, |_| {
                Err(if known {
                    ConnectError::NotDialable
                } else {
                    ConnectError::NoAddress
                })
            });
        }
    }

    fn up(&mut self, link: LinkId, handle: &LinkHandle) {
        let peer = handle.peer();
        self.feed(Input::Up(link));
        self.dials.remove(&link);
        self.there(peer);
        self.answer(peer, |_| Ok(handle.clone()));
    }

    fn dial_failed(&mut self, link: LinkId, failure: HandshakeFailure) {
        self.verdicts.remove(&link);
        let blame = Cause::blame(&failure);
        self.feed_with(
            Input::DialFailed {
                link,
                failure: blame,
            },
            Some(&Cause::Failed(failure)),
        );
        self.dials.remove(&link);
    }

    /// A task that panicked before its handshake was done has told nobody.
    fn task_ended(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let (id, panic) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        let link = self.dialers.remove(&id);
        if let (Some(link), Some(error)) = (link, panic) {
            tracing::error!(%error, "the task of a dial panicked");
            let silent = self
                .dials
                .get(&link)
                .is_some_and(|dial| !dial.authenticated.load(Ordering::Acquire));
            if silent {
                self.dial_failed(link, HandshakeFailure::Panicked);
            }
        }
    }

    fn handle_of(&self, peer: NodeId) -> Option<LinkHandle> {
        let link = |link| {
            let state = Arc::clone(&self.env.vault.get(link)?.state);
            Some(LinkHandle { state })
        };
        self.machine.peer(peer)?.up().find_map(link)
    }

    fn peers(&self) -> Vec<PeerView> {
        let now = self.env.clock.now();
        let unix = self.env.clock.unix();
        let view = |(id, peer): (NodeId, &super::roster::Peer)| {
            let link = peer.any_link().and_then(|link| self.env.vault.get(link));
            let link = link.as_ref().map(|link| &*link.state);
            PeerView::new(id, peer, self.machine.tag_of(id), link, now, unix)
        };
        self.machine.peers().map(view).collect()
    }

    fn start_drain(&mut self, done: oneshot::Sender<()>) {
        if let Some(drain) = &mut self.drain {
            drain.done.push(done);
            return;
        }
        self.shared.set_draining();
        let deadline = self
            .env
            .clock
            .sleep_until(self.env.clock.now().after(limits::DRAIN_DEADLINE));
        self.drain = Some(Drain {
            done: vec![done],
            deadline,
            links: self.machine.links_up(),
        });
        self.feed(Input::Drain);
        let waiting: Vec<NodeId> = self.waiters.keys().copied().collect();
        for peer in waiting {
            self.answer(peer, |_| Err(ConnectError::Draining));
        }
    }

    fn is_drained(&self) -> bool {
        self.drain.is_some()
            && self.machine.load().links == 0
            && self.dials.is_empty()
            && self.env.vault.is_empty()
    }

    fn reset_all(&self) {
        for link in self.env.vault.all() {
            // Said first: a session that is wiped looks like the peer's fault to the link's task.
            link.state.request_close(CloseReason::Draining);
            link.wipe();
            link.reset(CloseReason::Draining);
        }
    }

    fn end_drain(&mut self, overran: usize) {
        if let Some(drain) = self.drain.take() {
            // Last, so that channel links were closed in peace and not torn down.
            let _ = self.env.context.shut_down();
            self.env.telemetry.emit(Event::Drained {
                closed: drain.links.saturating_sub(overran),
                overran,
            });
            for done in drain.done {
                let _ = done.send(());
            }
        }
    }
}

fn wish(spec: PeerSpec) -> Input {
    Input::Want {
        peer: spec.node_id,
        addresses: spec.addresses,
        tag: spec.tag,
        weight: spec.weight,
    }
}
