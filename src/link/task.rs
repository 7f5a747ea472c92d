//! A live link's loop: waits for the socket, the outbox, the inbox and an alarm, and does what [`LinkMachine`] says.
//!
//! ```text
//!  socket ──▶ decrypt in place ──▶ machine ──▶ pending ──▶ inbox (the node)
//!                                     │ pong, answer, warning
//!  socket ◀── gate ◀── write buffer ◀─┴──◀ outbox (the node)
//! ```
//!
//! Bounded: it reads no more while what it has read is not delivered, or while what it must answer is not written. An idle link
//! holds no buffer. It never waits for another link.

mod leaving;
mod sending;
mod syncing;
mod waiting;

use super::allowance::{Allowance, Rate};
use super::buffers::{self, Workspace};
use super::delivery::{Delivery, Room};
use super::driver::{Env, Report};
use super::machine::{Ambient, Due, LinkMachine, Received, Settings};
use super::shared::{LinkShared, LinkState, Stage};
use super::{CloseReason, Direction, Identity, LinkHandle, Tag};
use crate::clock::Moment;
use crate::limits;
use crate::telemetry::{Event, Telemetry};
use crate::wire::{ErrorMessage, Features, Init, MessageType, Ping, Plane, Warning};
use bytes::{Bytes, BytesMut};
use leaving::Leaving;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use syncing::Syncing;
use tokio::task::coop::consume_budget;

/// A place in the inbox that is being waited for. Kept between rounds of the loop, so that the link keeps its turn.
type Place = Pin<Box<dyn Future<Output = Room> + Send>>;

/// Refusals and complaints that are told as events.
const REFUSALS: Rate = Rate {
    most: limits::REFUSAL_EVENTS,
    regained: 1,
    interval: limits::WARNING_INTERVAL,
};

/// The task of one link.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that do not depend on one another: no two of them make one state"
)]
pub(crate) struct LinkTask {
    shared: Arc<LinkShared>,
    machine: LinkMachine,
    /// `None` while there is nothing to do.
    work: Option<Box<Workspace>>,
    place: Option<Place>,
    /// When the task is woken although nothing happens.
    alarm: Option<Moment>,
    /// The supervisor wants to hear of the next sign of life.
    probing: bool,
    /// Both `init`s have passed, and the supervisor has yet to hear of it.
    risen: bool,
    /// The socket was not read in the last round, because the node does not receive.
    deaf: bool,
    /// Refusals that may still be told as events.
    refusals: Allowance,
    /// The peer is on record as channel-bearing: its channel messages may leave.
    on_record: bool,
    ending: Ending,
    /// A persona's link that hears its peer out before it ends.
    leaving: Option<Box<Leaving>>,
    /// A range query may be made here.
    may_query: bool,
    syncing: Option<Box<Syncing>>,
}

/// How a link ends, once it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Not yet.
    No,
    /// With what the kernel takes at once.
    Quick,
    /// When the kernel has taken all that is queued.
    Patient,
}

impl LinkTask {
    pub(crate) fn new(shared: Arc<LinkShared>) -> Self {
        let env = &shared.state.env;
        let persona = shared.state.identity == Identity::Persona;
        let settings = Settings {
            persona,
            queries_served: env.settings.queries_served,
            custom_even_ok: env.settings.custom_even_ok,
            observe: env.settings.observe,
            max_age: env.settings.max_session_age,
        };
        // Spreads the pings; predictable is good enough, and it must not fail.
        let seed = shared.state.id.get() ^ env.seed;
        let machine = LinkMachine::new(
            settings,
            env.settings.networks.clone(),
            env.clock.now(),
            seed,
        );
        let refusals = Allowance::full(&REFUSALS, env.clock.now());
        let features = if persona {
            Features::gossip()
        } else {
            env.settings.features.clone()
        };
        let machine = machine.knowing(&features);
        let init = Init::with_features(features, env.settings.networks.clone()).encode();
        let mut work = buffers::workspace();
        work.control.push_back(init);
        Self {
            machine,
            work: Some(work),
            place: None,
            alarm: None,
            probing: false,
            risen: false,
            deaf: false,
            refusals,
            on_record: false,
            ending: Ending::No,
            leaving: None,
            may_query: false,
            syncing: None,
            shared,
        }
    }

    /// Runs until the link must end, and says why.
    pub(crate) async fn run(&mut self) -> CloseReason {
        loop {
            if let Err(reason) = self.round().await {
                // A lapse ends the link whatever else is seen: the reaper wipes and resets before it says so, and secrets that are
                // gone or a connection that is reset look like the peer's fault from here. Else whoever asked for the end knows.
                let lapsed = self.state().dead_scope().map(|_| CloseReason::Lapse);
                return self.state().close_requested().or(lapsed).unwrap_or(reason);
            }
        }
    }

    /// What is rare is awaited in a box: the task has room for its largest step for as long as it lives.
    async fn round(&mut self) -> Result<(), CloseReason> {
        // A peer that never stops sending takes its turn with the other links of this thread.
        consume_budget().await;
        if let Some(reason) = self.state().close_requested()
            && Box::pin(self.may_go(reason)).await?
        {
            return Err(reason);
        }
        if let Some(reason) = self.machine.age(self.ambient()) {
            return Err(reason);
        }
        if self.state().take_probe() {
            Box::pin(self.probe()).await?;
        }
        self.pump_out().await?;
        self.pump_inbox();
        if self.holds_up() {
            // Silence that we do not listen to is not the peer's. That it does not take our answers is.
            self.deaf = true;
        } else if std::mem::take(&mut self.deaf) {
            self.machine.resume(self.now());
        } else {
            self.give_up_sync();
            let due = self.machine.expire(self.now());
            if due != Due::Nothing {
                return self.act(due);
            }
        }
        self.wait().await
    }

    /// Finds out whether the peer is alive. If it is we who do not listen, it is given the benefit of the doubt.
    async fn probe(&mut self) -> Result<(), CloseReason> {
        if self.holds_up() {
            return self.alive().await;
        }
        self.probing = true;
        let due = self.machine.probe(self.now());
        self.act(due)
    }

    async fn alive(&mut self) -> Result<(), CloseReason> {
        self.probing = false;
        let link = self.state().id;
        self.env().report(Report::Alive { link }).await;
        Ok(())
    }

    /// Whether there is room for what the socket brings. A few answers may wait: two ends that both stop reading until they have
    /// written would wait for each other.
    fn listens(&self) -> bool {
        self.work.as_ref().is_none_or(|work| {
            let answers = work.pongs.len() + work.control.len();
            work.pending.is_empty() && answers < limits::ANSWERS_MAX
        })
    }

    /// What the link has at hand; nothing, until it takes something up.
    fn work(&mut self) -> &mut Workspace {
        at_hand(&mut self.work)
    }

    /// Whether something waits that the node does not receive.
    fn holds_up(&self) -> bool {
        let work = self.work.as_ref();
        work.is_some_and(|work| !work.pending.is_empty())
    }

    /// Whether something waits for the kernel to take it.
    fn has_to_write(&self) -> bool {
        let work = self.work.as_ref();
        work.is_some_and(|work| !work.write.is_empty())
    }

    async fn read_some(&mut self) -> Result<(), CloseReason> {
        let work = at_hand(&mut self.work);
        let needed = self.shared.session().needed(work.read.len());
        make_room(&mut work.read, needed.max(limits::READ_CHUNK));
        let count = match self.shared.socket.try_read_buf(&mut work.read) {
            Ok(0) => return Err(CloseReason::PeerClosed),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(CloseReason::Io),
        };
        self.take_read(count).await
    }

    /// Takes what has been read: so many more bytes.
    async fn take_read(&mut self, count: usize) -> Result<(), CloseReason> {
        let (taken, failed) = self.take_frames(count);
        if std::mem::take(&mut self.risen) {
            Box::pin(self.report_up()).await;
        }
        taken?;
        self.keep_little();
        if self.probing {
            Box::pin(self.alive()).await?;
        }
        if failed {
            Err(CloseReason::Transport)
        } else {
            Ok(())
        }
    }

    /// Decrypts every whole frame and takes its message. What became of the messages, and whether the transport failed after them.
    fn take_frames(&mut self, count: usize) -> (Result<(), CloseReason>, bool) {
        self.state()
            .counters
            .bytes_in
            .fetch_add(count as u64, Ordering::Relaxed);
        let mut frames = buffers::frames();
        let work = self.work();
        if work.pending.capacity() == 0 {
            work.pending = buffers::deliveries();
        }
        let failed = self.decrypt(&mut frames);
        let ambient = self.ambient();
        let mut taken = Ok(());
        for frame in frames.drain(..) {
            taken = self.take_message(ambient, frame.freeze());
            if taken.is_err() {
                break;
            }
        }
        buffers::done_with_frames(frames);
        self.settle_counts();
        (taken, failed)
    }

    /// What waits for the node is a slice of the buffer that was read. If it is a small part of it, and the node does not take what
    /// comes at once, it is copied out: a peer must not make the node hold a buffer for each short message, between others that are not
    /// delivered.
    fn keep_little(&mut self) {
        let bytes = |delivery: &Delivery| match delivery {
            Delivery::Message { bytes, .. } => bytes.len(),
            Delivery::Up { .. } | Delivery::Down { .. } => 0,
        };
        let work = at_hand(&mut self.work);
        let kept: usize = work.pending.iter().map(bytes).sum();
        // The buffer, or what is left of it behind a frame's beginning.
        let held = work.read.capacity().max(buffers::READ_BUFFER);
        let inbox = &self.shared.state.env.inbox;
        if kept.saturating_mul(limits::KEEP_SHARE) >= held || inbox.is_nearly_empty() {
            return;
        }
        for delivery in &mut work.pending {
            if let Delivery::Message { bytes, .. } = delivery {
                *bytes = Bytes::copy_from_slice(bytes);
            }
        }
    }

    /// Decrypts every whole frame under one lock. `true`: the transport failed, after the frames that were good.
    fn decrypt(&mut self, frames: &mut Vec<BytesMut>) -> bool {
        let read = &mut at_hand(&mut self.work).read;
        let mut session = self.shared.session();
        let (_, before) = session.rotations();
        let failed = loop {
            match session.open(read) {
                Ok(Some(message)) => frames.push(message),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        let (_, received) = session.rotations();
        drop(session);
        if received > before {
            self.rotated(Direction::Inbound, received - before);
        }
        failed
    }

    fn take_message(&mut self, ambient: Ambient, message: Bytes) -> Result<(), CloseReason> {
        let kind = MessageType::of(&message).unwrap_or(MessageType(0));
        self.work()
            .tally
            .count(Direction::Inbound, kind.plane(), message.len());
        if kind.plane() != Plane::Control {
            let now = u64::try_from(ambient.now.since_start().as_nanos()).unwrap_or(u64::MAX);
            self.state().counters.active.store(now, Ordering::Relaxed);
        }
        // Read for each message: the mode may change within a batch.
        let ambient = Ambient {
            signer_away: self.signer_away(),
            ..ambient
        };
        if ambient.signer_away && self.state().dead_scope().is_some() {
            // The firewall is for links that live on; this one only waits for the reaper.
            return Err(CloseReason::Lapse);
        }
        match self.machine.receive(ambient, &message) {
            Received::Up(init) => {
                self.up(message);
                self.catch_up(&init);
            }
            Received::Deliver { lease } => {
                if let Some(action) = self.machine.would(ambient, &message) {
                    Telemetry::count_refused(kind.label(), action);
                }
                self.answered(kind, &message);
                self.deliver(kind, lease, message)?;
            }
            Received::Pong { bytes } => self.work().pongs.push_back(bytes),
            Received::PongArrived { rtt } => {
                self.heard_out();
                self.ask_for_range();
                self.emit(Event::Pong {
                    peer: self.state().peer,
                    rtt,
                });
            }
            Received::Answer(answer) => self.work().control.push_back(answer),
            Received::Refused { action, warning } => {
                self.refused(kind, action);
                self.work().control.extend(warning);
            }
            Received::Ignored => Telemetry::count_refused(kind.label(), "ignored"),
            Received::Close {
                deliver,
                reason,
                warning,
            } => return self.close_on(kind, message, deliver, reason, warning),
        }
        Ok(())
    }

    fn close_on(
        &mut self,
        kind: MessageType,
        message: Bytes,
        deliver: bool,
        reason: CloseReason,
        warning: Option<Vec<u8>>,
    ) -> Result<(), CloseReason> {
        if deliver {
            self.deliver(kind, false, message)?;
        } else {
            self.refused(kind, "closed");
        }
        if reason == CloseReason::Mistag && self.state().tag() == Tag::GossipOnly {
            self.emit(Event::MistagSuspected {
                peer: self.state().peer,
            });
        }
        self.work().control.extend(warning);
        Err(reason)
    }

    fn up(&mut self, init: Bytes) {
        self.state().set_stage(Stage::Up);
        let state = Arc::clone(&self.shared.state);
        self.emit(Event::LinkUp {
            peer: state.peer,
            link: state.id,
            address: state.address.clone(),
            tag: state.tag(),
            direction: state.direction,
            identity: state.identity,
        });
        self.work().pending.push_back(Delivery::Up { state, init });
        self.risen = true;
    }

    async fn report_up(&mut self) {
        let state = Arc::clone(&self.shared.state);
        let (link, handle) = (state.id, LinkHandle { state });
        self.env().report(Report::Up { link, handle }).await;
    }

    /// Queues a message for the node, under the lease rule.
    fn deliver(&mut self, kind: MessageType, lease: bool, bytes: Bytes) -> Result<(), CloseReason> {
        if lease && self.take_lease().is_err() {
            self.refused(kind, "closed");
            return Err(CloseReason::SignerAway);
        }
        if kind.is_announcement() {
            self.work().tally.announce();
        }
        if kind == MessageType::GOSSIP_TIMESTAMP_FILTER {
            self.state().set_filter_received();
        }
        if kind == MessageType::WARNING || kind == MessageType::ERROR {
            self.complained(kind, &bytes);
        }
        let state = Arc::clone(&self.shared.state);
        let message = Delivery::Message { state, bytes };
        self.work().pending.push_back(message);
        Ok(())
    }

    /// The lease rule: a channel message passes, so from here on the link lives and dies with the signer session.
    fn take_lease(&self) -> Result<(), CloseReason> {
        let state = self.state();
        let before = state.leased_under();
        let epoch = state
            .take_lease(true)
            .map_err(|_| CloseReason::SignerAway)?;
        if before.is_none() {
            self.emit(Event::Leased {
                peer: state.peer,
                link: state.id,
                epoch,
            });
        }
        Ok(())
    }

    /// Moves what waits into the inbox as far as there is room, then asks for a place.
    fn pump_inbox(&mut self) {
        let Some(work) = self.work.as_mut().filter(|_| self.place.is_none()) else {
            return;
        };
        let inbox = &self.shared.state.env.inbox;
        while let Some(delivery) = work.pending.pop_front() {
            if let Err(delivery) = inbox.try_send(delivery) {
                self.place = Some(Box::pin(inbox.room_for(&delivery)));
                work.pending.push_front(delivery);
                return;
            }
        }
    }

    fn act(&mut self, due: Due) -> Result<(), CloseReason> {
        match due {
            Due::Nothing => Ok(()),
            Due::Ping { pong_bytes } => {
                self.work().control.push_back(
                    Ping {
                        num_pong_bytes: pong_bytes,
                        ignored: 0,
                    }
                    .encode(),
                );
                Ok(())
            }
            Due::Close(reason) => Err(reason),
        }
    }

    fn state(&self) -> &LinkState {
        &self.shared.state
    }

    fn env(&self) -> &Arc<Env> {
        &self.shared.state.env
    }

    fn now(&self) -> Moment {
        self.env().clock.now()
    }

    fn signer_away(&self) -> bool {
        !self.env().context.is_live()
    }

    fn ambient(&self) -> Ambient {
        Ambient {
            now: self.now(),
            signer_away: self.signer_away(),
        }
    }

    fn emit(&self, event: Event) {
        self.state().emit(event);
    }

    fn refused(&mut self, kind: MessageType, action: &'static str) {
        let (peer, link) = (self.state().peer, self.state().id);
        if self.refusals.spend(&REFUSALS, self.now(), 1) {
            self.emit(Event::Refused {
                peer,
                link,
                kind: kind.0,
                name: kind.label(),
                action,
            });
        } else {
            Telemetry::count_refused(kind.label(), action);
        }
    }

    fn complained(&mut self, kind: MessageType, message: &[u8]) {
        let text = match kind {
            MessageType::ERROR => ErrorMessage::decode(message).map(|error| error.text()),
            _ => Warning::decode(message).map(|warning| warning.text()),
        };
        let peer = self.state().peer;
        if !self.refusals.spend(&REFUSALS, self.now(), 1) {
            return;
        }
        self.emit(Event::PeerComplained {
            peer,
            error: kind == MessageType::ERROR,
            text: text.unwrap_or_default(),
        });
    }

    fn rotated(&self, direction: Direction, times: u64) {
        self.emit(Event::KeyRotated { direction, times });
    }

    /// Puts what a batch has brought into the counters that others read, once for all of it.
    fn settle_counts(&mut self) {
        let Some(tally) = self.work.as_mut().map(|work| &mut work.tally) else {
            return;
        };
        if tally.is_empty() {
            return;
        }
        let state = &self.shared.state;
        let (counters, meters) = (&state.counters, state.env.telemetry.frames());
        for (direction, counter) in [
            (Direction::Inbound, &counters.frames_in),
            (Direction::Outbound, &counters.frames_out),
        ] {
            counter.fetch_add(tally.frames(direction), Ordering::Relaxed);
        }
        meters.add(tally);
        if tally.take_announced() {
            let now = state.env.clock.unix().as_secs();
            counters.last_gossip.store(now, Ordering::Relaxed);
            meters.gossip_came(now);
        }
    }
}

impl Drop for LinkTask {
    fn drop(&mut self) {
        self.clear_alarm();
    }
}

/// What a link has at hand, or what a thread has for it.
fn at_hand(work: &mut Option<Box<Workspace>>) -> &mut Workspace {
    work.get_or_insert_with(buffers::workspace)
}

/// Room to read so much more: in the buffer at hand if what was read into it before is gone, or else in another, to which a frame's
/// beginning is moved.
fn make_room(read: &mut BytesMut, more: usize) {
    if !read.try_reclaim(more) {
        let mut other = buffers::to_read(read.len().saturating_add(more));
        other.extend_from_slice(read);
        buffers::done_reading(std::mem::replace(read, other));
    }
}
