//! What happens in the demo, in order.
//!
//! Each act waits for what it is about to tell, on the records of the node and of the far sides, under a guard that turns a hang
//! into an error. Pauses only pace it.

use super::cast::{Cast, HEIGHT, Kind};
use super::checks::{Absence, Books, millis};
use super::evidence::{self, Aftermath, Cut, CutLink, Outcome};
use super::far::{End, Far, Order};
use super::folder::Folder;
use super::node::FLOOR;
use super::recording::Recording;
use super::screen::{Ink, Screen};
use super::sentry::Post;
use super::signer::median;
use super::stage::Stage;
use super::{DemoError, gossip};
use crate::link::{CloseReason, Identity, LinkHandle, Tag};
use crate::signer::{Epoch, Lapse};
use crate::supervisor::{ConnectError, PeerSpec, PeerState};
use crate::telemetry::Event;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The whole story takes no longer than this, whatever hangs.
const WHOLE: Duration = Duration::from_secs(180);

/// How long the last messages may be on their way once nobody sends new ones. Later they count as lost.
const SETTLE: Duration = Duration::from_secs(20);

/// Gossip messages that each link carries, each way, before the story goes on.
const ENOUGH: usize = 120;

/// Channel messages that each far side has received in the rush before the signer is cut off.
const RUSHED: u64 = 200;

/// Whose link is closed over a `channel_reestablish`, and who asks for a channel.
pub(super) const MISTAGGED: &str = "Willow";
const SUITOR: &str = "Rowan";

/// Who closes its link while no signer is there.
pub(super) const LEAVER: &str = "Maple";

/// Plays the whole story and judges it.
///
/// # Errors
/// The system refuses something, or nothing happens for a minute.
pub(super) async fn play(seed: u64, screen: &Screen) -> Result<Outcome, DemoError> {
    let cast = Arc::new(Cast::new(seed)?);
    introduce(&cast, screen);
    // Removed when this ends, in whatever way.
    let folder = Folder::make()?;
    let mut stage = Stage::set(cast, &folder, screen).await?;
    let whole = tokio::time::timeout(WHOLE, acts(&mut stage)).await;
    whole.unwrap_or(Err(DemoError::Waited {
        what: "the end of the story",
        seconds: WHOLE.as_secs(),
    }))
}

async fn acts(stage: &mut Stage<'_>) -> Result<Outcome, DemoError> {
    stage.gather().await?;
    stage.chat().await?;
    let mut cut = stage.cut().await?;
    let absence = stage.endure(&mut cut).await?;
    let counts = stage.gossip_counts();
    let epoch = stage.relight(&cut).await?;
    let settled = stage.settle().await;
    stage.screen.freeze();
    let leases = evidence::leases(stage, &cut, epoch).await?;
    let links = evidence::collect(stage, &cut, epoch, &counts);
    let recording = Recording::take(stage).await?;
    stage.node.supervisor.drain().await;
    stage.signer.stop().await;
    stage
        .wait_for("the far sides to see the drain", |stage| {
            stage
                .fars
                .iter()
                .all(|far| far.look(|seen| seen.iter().all(|seen| seen.ended.is_some())))
        })
        .await?;
    Ok(Outcome::judge(
        stage,
        cut,
        &absence,
        &leases,
        &links,
        (settled, recording),
    ))
}

fn introduce(cast: &Cast, screen: &Screen) {
    let names = |kind| {
        cast.of(kind)
            .map(|member| member.name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    screen.line(
        Ink::Bold,
        "Pilotlight: a watch-only Lightning node whose signer goes away and comes back",
    );
    screen.line(Ink::Plain, "");
    screen.line(
        Ink::Plain,
        &format!("  channel peers  {}", names(Kind::Channel)),
    );
    screen.line(
        Ink::Plain,
        &format!("  gossip peers   {}", names(Kind::Gossip)),
    );
    screen.line(
        Ink::Plain,
        &format!(
            "  each on a TCP socket of its own, on loopback. Seed {}.",
            cast.seed
        ),
    );
    screen.line(Ink::Plain, "");
}

impl Stage<'_> {
    /// The node is told that it wants those of a kind whom it is to dial.
    pub(super) async fn want(&mut self, kind: Kind) -> Result<(), DemoError> {
        let cast = Arc::clone(&self.cast);
        let supervisor = self.node.supervisor.clone();
        for member in cast.of(kind).filter(|member| !member.dials) {
            let far = Far::start(member, &self.around).await?;
            let tag = if member.kind == Kind::Channel {
                Tag::ChannelBearing
            } else {
                Tag::GossipOnly
            };
            supervisor
                .add_peer(PeerSpec::new(member.node_id(), far.address).tagged(tag))
                .await?;
            supervisor
                .set_urgency(member.node_id(), member.urgency)
                .await?;
            self.fars.push(far);
        }
        Ok(())
    }

    /// Act one: peers are wanted, a signer dials in, links come up.
    pub(super) async fn gather(&mut self) -> Result<(), DemoError> {
        self.want(Kind::Channel).await?;
        let channel = Arc::clone(&self.cast);
        let channel = channel.of(Kind::Channel).map(|member| member.node_id());
        self.node.supervisor.declare_channel_peers(channel).await?;
        let peers = self.node.supervisor.peers().await?;
        let held = peers.iter().filter(|peer| peer.state == PeerState::Held);
        let held = held.count();
        self.opening = peers;
        self.screen.say(
            Ink::Bold,
            "The node starts. It holds no key, and no signer is there.",
        );
        self.screen.add(&format!(
            "mode {}: {held} channel peers wait to be dialled, and nothing fails",
            self.node.supervisor.mode()
        ));
        self.screen.add(&format!(
            "for the signer, it listens on {}",
            self.node.gateway.local_addr()
        ));
        self.pause(0.7).await;
        let epoch = self.dial_in().await?;
        // Only now: without a signer a persona would dial them, and the story has another place for that.
        self.want(Kind::Gossip).await?;
        let told = self.node.supervisor.peers().await?.into_iter();
        self.opening
            .extend(told.filter(|peer| peer.tag == Tag::GossipOnly));
        let cast = Arc::clone(&self.cast);
        for member in cast.peers().filter(|member| member.dials) {
            self.fars.push(Far::start(member, &self.around).await?);
        }
        self.fars.sort_by_key(|far| far.member.index);
        self.wait_for("all peers to be linked", |stage| {
            stage.cast.peers().all(|member| stage.is_linked(member))
        })
        .await?;
        let mode = self.node.supervisor.mode();
        self.screen.say(
            Ink::Bold,
            &format!(
                "A signer dials in over TLS, proves that it has the node's key, and session {epoch} begins."
            ),
        );
        if let Some(signer) = self.node.gateway.attached() {
            self.screen.add(&format!(
                "from {}, with macaroon {}",
                signer.address, signer.macaroon
            ));
        }
        self.screen.add(
            "it takes no certificate but the node's own, and its proof is bound to that certificate",
        );
        let links = self.node.supervisor.snapshot().links;
        self.screen.add(&format!(
            "mode {mode}: {} channel links and {} gossip links are up; 3 peers dialled us, we dialled 11",
            links.channel_bearing, links.gossip_only
        ));
        self.screen.add(&format!(
            "it answered {} ECDHs, one a handshake: {:.1} ms over TLS (median), of which {:.2} ms are arithmetic",
            self.signer.report().ecdh,
            millis(median(self.node.ecdhs().0)),
            millis(self.signer.key.computation())
        ));
        Ok(())
    }

    /// Act two: an ordinary day.
    async fn chat(&self) -> Result<(), DemoError> {
        self.tempo.send_modify(|tempo| tempo.publish = true);
        self.wait_for("gossip on every link", |stage| {
            stage
                .fars
                .iter()
                .all(|far| far.newest(|seen| seen.received.len() >= ENOUGH))
        })
        .await?;
        self.screen.say(
            Ink::Bold,
            "Gossip flows both ways, signed and numbered; channel peers exchange commitments.",
        );
        self.pause(0.4).await;
        Ok(())
    }

    /// Act three: the signer's connection is cut in the middle of traffic.
    async fn cut(&mut self) -> Result<Cut, DemoError> {
        self.rush().await?;
        let handles = self.channel_links();
        let watched: Vec<_> = handles.iter().map(|(_, handle)| handle.clone()).collect();
        let key = Arc::clone(&self.signer.key);
        let look = move || {
            let written = watched.iter().map(LinkHandle::bytes_written);
            (written.collect::<Vec<_>>(), key.uses())
        };
        let post = Post::put_up(self.node.supervisor.context(), look);
        let post = post.ok_or(DemoError::NoSession)?;
        let began = Instant::now();
        let agent = self.signer.stop().await;
        self.wait_for("the gateway to see the signer's stream end", |_| {
            post.seen().is_some()
        })
        .await?;
        // What moves on a channel link beyond these figures breaks P1: they were taken inside the lapse, with the fence just up.
        let (lapse, (written, uses)) = post.seen().cloned().ok_or(DemoError::NoSession)?;
        let links = handles
            .into_iter()
            .zip(written)
            .map(|((peer, handle), written)| {
                let accepted_after =
                    usize::from(handle.try_send(gossip::commitment_signed()).is_ok());
                CutLink {
                    peer,
                    handle,
                    written,
                    accepted_after,
                }
            });
        let links = links.collect();
        let counts = self.gossip_counts();
        let after = self.aftermath(&lapse).await?;
        let cut = Cut {
            lapse,
            noticed: lapse.at.saturating_duration_since(began),
            links,
            uses,
            agent,
            counts,
            after,
            floor_back: None,
        };
        self.tell_cut(&cut);
        self.pause(1.2).await;
        Ok(cut)
    }

    /// The live links with channel peers.
    fn channel_links(&self) -> Vec<(usize, LinkHandle)> {
        self.node.look(|links| {
            let live = links.iter().filter(|link| link.down.is_none());
            live.filter(|link| self.kind(link.peer) == Some(Kind::Channel))
                .map(|link| (link.peer, link.handle.clone()))
                .collect()
        })
    }

    /// Channel peers talk as fast as they are answered, so that the fence meets writes and deliveries under way.
    async fn rush(&self) -> Result<(), DemoError> {
        let received = |far: &Arc<Far>| far.newest(|seen| seen.channel_messages_in);
        let before: Vec<u64> = self.channel_fars().map(received).collect();
        self.tempo.send_modify(|tempo| tempo.rush = true);
        self.wait_for("channel traffic at full speed", |stage| {
            let mut now = stage.channel_fars().map(received).zip(&before);
            now.all(|(now, before)| now.saturating_sub(*before) >= RUSHED)
        })
        .await
    }

    /// Waits for the teardown, here and at the far sides, and records it.
    async fn aftermath(&self, lapse: &Lapse) -> Result<Aftermath, DemoError> {
        self.wait_for("every channel peer to see its link end", |stage| {
            stage
                .channel_fars()
                .all(|far| far.newest(|seen| seen.ended.is_some()))
        })
        .await?;
        let report = |event: &Event| match event {
            Event::SignerLapsed(report) if report.epoch == lapse.epoch => Some(report.clone()),
            _ => None,
        };
        self.wait_for("the report of the lapse", |stage| {
            stage.node.event(report).is_some()
        })
        .await?;
        self.tempo.send_modify(|tempo| tempo.rush = false);
        let ends: Vec<_> = self
            .channel_fars()
            .filter_map(|far| far.newest(|seen| seen.ended))
            .collect();
        let took = ends
            .iter()
            .map(|(at, _)| at.saturating_duration_since(lapse.at));
        Ok(Aftermath {
            report: self.node.event(report).ok_or(DemoError::NoSession)?,
            last_end: took.max().unwrap_or_default(),
            resets: ends.iter().filter(|(_, end)| *end == End::Reset).count(),
        })
    }

    fn channel_fars(&self) -> impl Iterator<Item = &Arc<Far>> {
        self.fars
            .iter()
            .filter(|far| far.member.kind == Kind::Channel)
    }

    fn tell_cut(&self, cut: &Cut) {
        let screen = self.screen;
        screen.say(
            Ink::Bad,
            "The signer's connection is cut, in the middle of traffic.",
        );
        screen.add(&format!(
            "the gateway saw it end after {:.1} ms; fence up in {:.1} µs: nothing leaves or arrives on a channel link now",
            millis(cut.noticed),
            millis(cut.lapse.fence) * 1000.0
        ));
        screen.add(&format!(
            "{} channel links wiped and reset in {:.1} ms; the last of these peers saw it after {:.1} ms",
            cut.after.report.dropped,
            millis(cut.after.report.teardown),
            millis(cut.after.last_end)
        ));
        screen.add(&format!(
            "{} gossip links retained: their session keys need no signer",
            cut.after.report.retained
        ));
    }

    /// Act four: a while without a signer.
    async fn endure(&mut self, cut: &mut Cut) -> Result<Absence, DemoError> {
        let before = self.gossip_counts();
        self.wait_for("gossip without a signer", |stage| {
            let now = stage.gossip_counts();
            now.iter().zip(&before).all(|(now, before)| {
                now.0 >= before.0.saturating_add(ENOUGH) && now.1 >= before.1.saturating_add(ENOUGH)
            })
        })
        .await?;
        let mode = self.node.supervisor.mode();
        self.screen.say(
            Ink::Bold,
            &format!("Mode {mode}. Gossip goes on, in both directions, on every one of them."),
        );
        self.pause(0.3).await;
        let mut absence = Absence::default();
        self.suitor(&mut absence).await?;
        self.mistagged(&mut absence).await?;
        self.leave(cut).await?;
        self.strangers(&mut absence).await?;
        self.close_books(cut, &mut absence);
        Ok(absence)
    }

    /// What was asked of the signer, by everybody's own count.
    fn close_books(&self, cut: &Cut, absence: &mut Absence) {
        let (answered, not) = self.node.ecdhs();
        let agent = cut.agent;
        let refused = [
            agent.refused_key,
            agent.refused_signing,
            agent.refused_malformed,
            agent.refused_busy,
            agent.failed,
        ];
        absence.books = Books {
            node: (answered.len(), not),
            agent_ecdh: agent.ecdh,
            agent_proofs: agent.proofs,
            agent_refused: refused.iter().sum(),
            key: cut.uses,
        };
        absence.signer_calls = self.signer.key.uses().saturating_sub(cut.uses);
        absence.asked = self.node.asked_since(cut.lapse.epoch);
        let (ink, text) = match (absence.asked, absence.signer_calls) {
            (0, 0) => (
                Ink::Plain,
                "All this while, nothing was asked of the signer.",
            ),
            _ => (Ink::Bad, "The signer was asked although it is away."),
        };
        self.screen.say(ink, text);
        self.screen.add(&format!(
            "it had answered {} ECDHs when it went, by its own count; by the node's, {}",
            agent.ecdh,
            answered.len()
        ));
    }

    /// A gossip peer would open a channel.
    pub(super) async fn suitor(&self, absence: &mut Absence) -> Result<(), DemoError> {
        let far = self.far(SUITOR)?;
        far.order(Order::Send(gossip::open_channel())).await;
        self.wait_for("the warning to who would open a channel", |_| {
            far.newest(|seen| !seen.warnings.is_empty())
        })
        .await?;
        let warning = far
            .newest(|seen| seen.warnings.first().cloned())
            .unwrap_or_default();
        self.screen.say(
            Ink::Plain,
            &format!("{SUITOR} sends open_channel: a warning goes back, the node is not bothered."),
        );
        self.screen.add(&format!("\"{warning}\"; the link stays"));
        self.pause(0.6).await;
        absence.open_warnings = far.newest(|seen| seen.warnings.len());
        absence.open_delivered = self.delivered(&far.member, gossip::OPEN_CHANNEL.0);
        absence.open_link_lives = far.newest(|seen| seen.ended.is_none());
        Ok(())
    }

    /// A gossip peer believes that it has a channel with us.
    pub(super) async fn mistagged(&self, absence: &mut Absence) -> Result<(), DemoError> {
        let far = self.far(MISTAGGED)?;
        far.order(Order::Send(gossip::channel_reestablish())).await;
        self.wait_for("the mis-tagged peer's link to end", |_| {
            far.newest(|seen| seen.ended.is_some())
        })
        .await?;
        let id = far.member.node_id();
        let suspected = |event: &Event| {
            matches!(event, Event::MistagSuspected { peer } if *peer == id).then_some(())
        };
        self.wait_for("the suspicion of a wrong tag", |stage| {
            stage.node.event(suspected).is_some()
        })
        .await?;
        let reason = |stage: &Self| {
            stage
                .node
                .newest(far.member.index, |link| link.down)
                .flatten()
        };
        self.wait_for("the node to hear of it", |stage| reason(stage).is_some())
            .await?;
        self.screen.say(
            Ink::Plain,
            &format!("{MISTAGGED} sends channel_reestablish: the link is closed without a word."),
        );
        self.screen
            .add("the operator is told that its tag may be wrong; nothing else changes");
        self.pause(0.6).await;
        absence.mistag_closed = reason(self) == Some(CloseReason::Mistag);
        absence.mistag_warnings = far.newest(|seen| seen.warnings.len());
        absence.mistag_event = self.node.event(suspected).is_some();
        Ok(())
    }

    /// A gossip peer goes away, and one is missing of the floor until a persona has dialled it again.
    async fn leave(&self, cut: &mut Cut) -> Result<(), DemoError> {
        let far = self.far(LEAVER)?;
        let began = Instant::now();
        far.order(Order::Leave).await;
        let cut_now = &*cut;
        self.wait_for("a persona in the place of the lost gossip link", |stage| {
            let missing = evidence::missing(stage, cut_now);
            missing.contains(&1) && missing.last() == Some(&0)
        })
        .await?;
        cut.floor_back = Some(began.elapsed());
        self.wait_for("gossip under the persona", |stage| {
            let come = stage.node.newest(far.member.index, |link| {
                link.handle.identity() == Identity::Persona && !link.delivered.is_empty()
            });
            come == Some(true)
        })
        .await?;
        self.screen.say(
            Ink::Plain,
            &format!("{LEAVER} goes away. The node dials it again under a persona: a throwaway key, for gossip only."),
        );
        let met = far.newest(|seen| seen.remote);
        self.screen.add(&format!(
            "{FLOOR} gossip links again after {:.0} ms; {LEAVER} sees {}, which is not the node's key",
            millis(cut.floor_back.unwrap_or_default()),
            met.map(|id| id.to_string().chars().take(16).collect::<String>() + "…")
                .unwrap_or_default()
        ));
        self.pause(0.6).await;
        Ok(())
    }

    /// The node's own link with who had met a persona is up, and the persona's goes.
    async fn replace_persona(&self) -> Result<(), DemoError> {
        let far = self.far(LEAVER)?;
        let replaced = |stage: &Self| {
            stage.node.look(|links| {
                let of_peer = links.iter().filter(|link| link.peer == far.member.index);
                let mut personas = of_peer
                    .clone()
                    .filter(|link| link.handle.identity() == Identity::Persona);
                let mut own = of_peer.filter(|link| link.handle.identity() == Identity::Node);
                personas.all(|link| link.down.is_some()) && own.any(|link| link.down.is_none())
            })
        };
        self.wait_for("the node's own link in the persona's place", replaced)
            .await?;
        self.screen.say(
            Ink::Plain,
            &format!("{LEAVER} has the node's own link again; the persona's went after it, heard out to the last message."),
        );
        Ok(())
    }

    /// Somebody dials us, and we would dial somebody: neither reaches a signer.
    async fn strangers(&mut self, absence: &mut Absence) -> Result<(), DemoError> {
        let far = self.far(MISTAGGED)?;
        let spec = PeerSpec::new(far.member.node_id(), far.address);
        let asked = Instant::now();
        let outcome = tokio::time::timeout(SETTLE, self.node.supervisor.connect(spec)).await;
        absence.dial_refused =
            matches!(outcome, Ok(Err(ConnectError::SignerAway))).then(|| asked.elapsed());
        let cast = Arc::clone(&self.cast);
        for member in cast.of(Kind::Stranger) {
            self.fars.push(Far::start(member, &self.around).await?);
        }
        let parked = |event: &Event| match event {
            Event::Parked { now } if *now > 0 => Some(*now),
            _ => None,
        };
        self.wait_for("the stranger to be parked", |stage| {
            stage.node.event(parked).is_some()
        })
        .await?;
        absence.parked = self
            .node
            .events(|events| events.iter().filter_map(parked).max())
            .unwrap_or(0);
        self.screen.say(
            Ink::Plain,
            "A stranger dials us: the connection is parked, and costs no call of a signer.",
        );
        let took = absence.dial_refused.unwrap_or_default();
        self.screen.add(&format!(
            "a dial of ours is refused at once ({} µs), and kept for later",
            took.as_micros()
        ));
        Ok(())
    }

    /// Act five: the signer returns.
    async fn relight(&mut self, cut: &Cut) -> Result<Epoch, DemoError> {
        self.pause(0.8).await;
        let epoch = self.dial_in().await?;
        self.wait_for("the channel peers to be back", |stage| {
            stage.relit(epoch).is_some() && stage.cast.peers().all(|member| stage.is_linked(member))
        })
        .await?;
        let screen = self.screen;
        screen.say(
            Ink::Good,
            &format!(
                "The signer dials in again and proves itself anew: session {epoch}, and nothing of session {}.",
                cut.lapse.epoch
            ),
        );
        let took = self.relit(epoch).unwrap_or_default();
        screen.add(&format!(
            "6 channel peers dialled unasked and up in {:.1} ms, the soonest HTLC expiry first, in blocks:",
            millis(took)
        ));
        screen.add(&self.tell_order(epoch));
        self.pause(1.5).await;
        if self
            .fars
            .iter()
            .any(|far| far.member.kind == Kind::Stranger && far.newest(|seen| seen.up))
        {
            screen.say(
                Ink::Plain,
                "The parked stranger was let in. Gossip went on all the while.",
            );
        }
        self.replace_persona().await?;
        self.pause(0.3).await;
        Ok(epoch)
    }

    /// Whom the node dialled, with what made it urgent.
    fn tell_order(&self, epoch: Epoch) -> String {
        let dialled = evidence::dialled(self, epoch);
        let told = dialled.iter().map(|name| {
            let member = self.cast.peers().find(|member| member.name == *name);
            let blocks = member.map_or(0, |member| {
                member.urgency.earliest_expiry_height.saturating_sub(HEIGHT)
            });
            let kind = member.map(|member| member.kind);
            match (kind, blocks) {
                (Some(Kind::Channel), 0) => format!("{name} without one"),
                (Some(Kind::Channel), blocks) => format!("{name} in {blocks}"),
                _ => format!("then {name}"),
            }
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// Nobody sends anything new, and what is on its way arrives. `false`: it did not in time.
    async fn settle(&self) -> bool {
        self.tempo.send_modify(|tempo| tempo.publish = false);
        self.within(SETTLE, evidence::is_settled).await
    }
}
