//! Everybody on stage, and how the story waits for them, paces itself and shows them.
//!
//! It waits for what is recorded, never for time: a pause is for whoever watches, and shorter when nobody does.

use super::DemoError;
use super::cast::{Cast, Kind, Member};
use super::far::{Far, Surroundings, Tempo};
use super::folder::Folder;
use super::node::{Node, NodeLink};
use super::screen::{Lane, Screen};
use super::signer::Remote;
use crate::signer::Epoch;
use crate::supervisor::{Mode, PeerView};
use crate::telemetry::Event;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

/// A hang becomes an error after this long.
const GUARD: Duration = Duration::from_secs(60);

/// Between two gossip messages of one peer: watched, and not.
const EVERY: (Duration, Duration) = (Duration::from_millis(16), Duration::from_millis(6));

/// The share of each pause that is taken when nobody watches.
const UNWATCHED: f64 = 0.2;

/// Between two drawings of the table.
const FRAME: Duration = Duration::from_millis(100);

/// Everything on stage.
pub(super) struct Stage<'a> {
    pub(super) cast: Arc<Cast>,
    pub(super) node: Arc<Node>,
    pub(super) signer: Remote,
    /// In the order of the cast, the stranger excepted until he comes.
    pub(super) fars: Vec<Arc<Far>>,
    pub(super) screen: &'a Screen,
    pub(super) around: Surroundings,
    pub(super) tempo: watch::Sender<Tempo>,
    /// The peers when the node had been told of them.
    pub(super) opening: Vec<PeerView>,
    pulse: watch::Sender<u64>,
}

impl<'a> Stage<'a> {
    /// Starts the node and opens its door, and gives the signer its key and, in `folder`, its files. Nobody dials yet.
    ///
    /// # Errors
    /// The system refuses a port, a file, a thread or randomness.
    pub(super) async fn set(
        cast: Arc<Cast>,
        folder: &Folder,
        screen: &'a Screen,
    ) -> Result<Self, DemoError> {
        let pulse = watch::Sender::new(0);
        let every = if screen.is_watched() {
            EVERY.0
        } else {
            EVERY.1
        };
        let tempo = watch::Sender::new(Tempo {
            publish: false,
            every,
            rush: false,
        });
        let (node, config) = Node::start(&cast, folder, &pulse).await?;
        let signer = Remote::new(cast.node_key()?, config);
        let door = node
            .supervisor
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await?;
        let around = Surroundings {
            cast: Arc::clone(&cast),
            node: node.supervisor.node_id(),
            door,
            tempo: tempo.subscribe(),
            pulse: pulse.clone(),
        };
        Ok(Self {
            cast,
            node,
            signer,
            fars: Vec::new(),
            screen,
            around,
            tempo,
            opening: Vec::new(),
            pulse,
        })
    }

    /// The signer dials in; waits until it is attached.
    ///
    /// # Errors
    /// It is not within a minute.
    pub(super) async fn dial_in(&mut self) -> Result<Epoch, DemoError> {
        self.signer.dial();
        self.wait_for("the signer to dial in", |stage| {
            stage.node.session().is_some()
        })
        .await?;
        self.node.session().ok_or(DemoError::NoSession)
    }

    /// How long the relight of that session took, once it is complete.
    pub(super) fn relit(&self, session: Epoch) -> Option<Duration> {
        self.node.event(|event| match event {
            Event::Relit { epoch, took, .. } if *epoch == session => Some(took.unwrap_or_default()),
            _ => None,
        })
    }

    /// Gossip messages of each gossip peer: to the node and from it.
    pub(super) fn gossip_counts(&self) -> Vec<(usize, usize)> {
        let gossip = self
            .fars
            .iter()
            .filter(|far| far.member.kind == Kind::Gossip);
        gossip
            .map(|far| {
                let delivered = self
                    .node
                    .newest(far.member.index, |link| link.delivered.len());
                (
                    delivered.unwrap_or(0),
                    far.newest(|seen| seen.received.len()),
                )
            })
            .collect()
    }

    /// Both sides say that the newest link is up.
    pub(super) fn is_linked(&self, member: &Member) -> bool {
        let far = self
            .fars
            .iter()
            .find(|far| far.member.index == member.index);
        self.node.is_up(member.index)
            && far.is_some_and(|far| far.newest(|seen| seen.up && seen.ended.is_none()))
    }

    /// Whether the node was handed a message of that type by that peer.
    pub(super) fn delivered(&self, member: &Member, kind: u16) -> bool {
        self.node.look(|links| {
            links
                .iter()
                .any(|link| link.peer == member.index && link.kinds.contains(&kind))
        })
    }

    /// What the peer at that place in the cast is.
    pub(super) fn kind(&self, peer: usize) -> Option<Kind> {
        self.cast.members.get(peer).map(|member| member.kind)
    }

    /// The far side of that name.
    ///
    /// # Errors
    /// It has not come on stage.
    pub(super) fn far(&self, name: &str) -> Result<Arc<Far>, DemoError> {
        let far = self.fars.iter().find(|far| far.member.name == name);
        far.cloned().ok_or(DemoError::Absent)
    }

    /// Waits until it holds, looking whenever something is recorded.
    ///
    /// # Errors
    /// It does not hold within a minute.
    pub(super) async fn wait_for(
        &self,
        what: &'static str,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<(), DemoError> {
        if self.within(GUARD, holds).await {
            Ok(())
        } else {
            Err(DemoError::Waited {
                what,
                seconds: GUARD.as_secs(),
            })
        }
    }

    /// Waits until it holds, looking whenever something is recorded. `false`: it did not in time.
    pub(super) async fn within(&self, time: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let mut pulse = self.pulse.subscribe();
        let mut frame = interval(FRAME);
        frame.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wait = async {
            loop {
                pulse.mark_unchanged();
                if holds(self) {
                    return true;
                }
                tokio::select! {
                    changed = pulse.changed() => if changed.is_err() { return false },
                    _ = frame.tick() => self.draw(),
                }
            }
        };
        timeout(time, wait).await.unwrap_or(false)
    }

    /// For whoever watches; a fifth of it if nobody does. The table lives on meanwhile.
    pub(super) async fn pause(&self, seconds: f64) {
        let share = if self.screen.is_watched() {
            1.0
        } else {
            UNWATCHED
        };
        let until = Instant::now() + Duration::from_secs_f64(seconds * share);
        loop {
            self.draw();
            let next = Instant::now() + FRAME;
            sleep_until(next.min(until)).await;
            if next >= until {
                return;
            }
        }
    }

    /// Forgets what only the checks would need.
    pub(super) fn forget(&self) {
        self.node.forget();
        for far in &self.fars {
            far.forget();
        }
    }

    /// Draws the table of all peers, where there is a terminal.
    pub(super) fn draw(&self) {
        if self.fars.is_empty() || !self.screen.is_watched() {
            return;
        }
        let mode = self.node.supervisor.mode();
        let lane = |far: &Arc<Far>| {
            let member = &far.member;
            let up = self.node.is_up(member.index);
            let state = match (up, mode) {
                (true, _) => "up",
                (false, Mode::Live) => "dialling",
                (false, _) => "held",
            };
            let count = |link: &NodeLink| {
                let gossip = link.forgotten.saturating_add(link.delivered.len());
                (gossip as u64).saturating_add(link.channel_messages)
            };
            let counts = (
                self.node.newest(member.index, count).unwrap_or(0),
                far.newest(|seen| seen.messages_in),
            );
            Lane {
                name: member.name,
                state,
                up,
                counts,
            }
        };
        let lanes = |kind| {
            self.fars
                .iter()
                .filter(|far| far.member.kind == kind)
                .map(lane)
                .collect::<Vec<_>>()
        };
        self.screen.draw(
            (&format!("channel peers (mode {mode})"), "gossip peers"),
            &lanes(Kind::Channel),
            &lanes(Kind::Gossip),
        );
    }
}
