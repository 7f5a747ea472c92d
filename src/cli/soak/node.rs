//! The node of the soak: a supervisor, a signer that comes and goes, and a ledger of all that it is handed.

use super::SoakError;
use super::far::Far;
use super::ledger::{Breaches, Entry, Links, lock};
use crate::link::Tag;
use crate::node_id::{LocalKey, NodeId};
use crate::signer::{
    EmbeddedSigner, Epoch, Lapse, LapseReason, Signer, SignerContext, SignerSession,
};
use crate::supervisor::{Inbound, Inbox, PeerSpec, Supervisor};
use crate::telemetry::{Event, EventStream, LapseReport, Next};
use std::collections::HashMap;
use std::future::Future;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Between two messages of the node on one link.
const EVERY: Duration = Duration::from_secs(1);
/// What is waited for comes in this time, or counts as a breach.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the event stream has told, as far as the soak looks at it.
#[derive(Default)]
struct Told {
    lapse: Option<LapseReport>,
    relit: Option<(Epoch, Option<Duration>, usize)>,
    /// ECDHs asked for while no signer was there.
    asked_away: u64,
    rotations: u64,
    missed: u64,
    is_away: bool,
}

/// The node.
pub(super) struct Node {
    pub(super) supervisor: Supervisor,
    pub(super) breaches: Arc<Breaches>,
    links: Arc<Mutex<Links>>,
    told: Arc<Mutex<Told>>,
    news: watch::Sender<u64>,
    signer: Arc<EmbeddedSigner>,
    session: Option<SignerSession>,
}

impl Node {
    /// Starts it, without a signer, and tells it of its peers.
    ///
    /// # Errors
    /// The system refuses what the supervisor needs.
    pub(super) async fn start(
        key: LocalKey,
        seed: u64,
        fars: &[Far],
        breaches: &Arc<Breaches>,
    ) -> Result<Self, SoakError> {
        let signer = Arc::new(EmbeddedSigner::from_key(key));
        let context = SignerContext::new(signer.node_id());
        // A lapse every few seconds would otherwise keep channel peers waiting for a minute.
        let builder = Supervisor::builder(context)
            .seed(seed)
            .hold_down(Duration::ZERO);
        let (supervisor, inbox) = builder.start().await?;
        let node = Self {
            breaches: Arc::clone(breaches),
            links: Arc::default(),
            told: Arc::default(),
            news: watch::Sender::new(0),
            signer,
            session: None,
            supervisor,
        };
        tokio::spawn(follow(
            node.supervisor.events(),
            Arc::clone(&node.told),
            node.news.clone(),
        ));
        let bearing = fars.iter().map(|far| (far.id, far.bears_channel));
        let tags: HashMap<_, _> = bearing.collect();
        let (links, breaches) = (Arc::clone(&node.links), Arc::clone(&node.breaches));
        tokio::spawn(receive(inbox, links, breaches, tags, node.news.clone()));
        tokio::spawn(speak(Arc::clone(&node.links)));
        Ok(node)
    }

    /// Tells it of its peers, so that it dials them.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub(super) async fn meet(&self, fars: &[Far]) -> Result<(), SoakError> {
        let channels = fars.iter().filter(|far| far.bears_channel);
        let channels: Vec<_> = channels.map(|far| far.id).collect();
        self.supervisor.declare_channel_peers(channels).await?;
        for far in fars {
            let tag = if far.bears_channel {
                Tag::ChannelBearing
            } else {
                Tag::GossipOnly
            };
            let spec = PeerSpec::new(far.id, far.address).tagged(tag);
            self.supervisor.add_peer(spec).await?;
        }
        Ok(())
    }

    /// The signer comes, with proof.
    ///
    /// # Errors
    /// No randomness, or another signer is there.
    pub(super) async fn attach(&mut self) -> Result<Epoch, SoakError> {
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).map_err(|_| SoakError::Entropy)?;
        let context = self.supervisor.context().clone();
        let proof = context.prove(&*self.signer, &mut entropy).await;
        let proof = proof.map_err(|error| SoakError::Signer(error.to_string()))?;
        // Before it is there: who then asks it does nothing wrong.
        lock(&self.told).is_away = false;
        let signer: Arc<dyn Signer> = Arc::clone(&self.signer) as Arc<dyn Signer>;
        let session = context.attach(proof, signer);
        let session = session.map_err(|error| SoakError::Signer(error.to_string()))?;
        let epoch = session.epoch();
        lock(&self.links).fenced_at = None;
        self.session = Some(session);
        Ok(epoch)
    }

    /// The signer goes. `None`: none was there.
    pub(super) fn lapse(&mut self) -> Option<Lapse> {
        let lapse = self.session.take()?.lapse(LapseReason::Requested)?;
        lock(&self.links).fenced_at = Some(Instant::now());
        Some(lapse)
    }

    /// The report of that lapse, once all is torn down.
    pub(super) async fn report(&self, epoch: Epoch) -> Option<LapseReport> {
        self.until(|told| told.lapse.clone().filter(|lapse| lapse.epoch == epoch))
            .await
    }

    /// How long the relight took, and how many came back.
    pub(super) async fn relit(&self, epoch: Epoch) -> Option<(Duration, usize)> {
        self.until(|told| match told.relit {
            Some((of, took, up)) if of == epoch => Some((took.unwrap_or_default(), up)),
            _ => None,
        })
        .await
    }

    /// Waits for what the events tell. `None`: not in time.
    async fn until<T>(&self, look: impl Fn(&Told) -> Option<T>) -> Option<T> {
        let mut news = self.news.subscribe();
        let wait = async {
            loop {
                if let Some(found) = look(&lock(&self.told)) {
                    return Some(found);
                }
                news.changed().await.ok()?;
            }
        };
        timeout(PATIENCE, wait).await.ok().flatten()
    }

    /// Waits until so many links are up.
    pub(super) async fn until_up(&self, links: usize) -> bool {
        let up = |links: &Mutex<Links>| lock(links).live.len();
        let mut news = self.news.subscribe();
        let wait = async {
            while up(&self.links) < links {
                if news.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        // Thousands of handshakes on a small machine take their time.
        timeout(PATIENCE * 5, wait).await.unwrap_or(false)
    }

    /// Looks at the links.
    pub(super) fn look<T>(&self, with: impl FnOnce(&Links) -> T) -> T {
        with(&lock(&self.links))
    }

    /// ECDHs that were asked for while no signer was there, rotations, and events that were missed.
    pub(super) fn told(&self) -> (u64, u64, u64) {
        let told = lock(&self.told);
        (told.asked_away, told.rotations, told.missed)
    }
}

async fn follow(mut events: EventStream, told: Arc<Mutex<Told>>, news: watch::Sender<u64>) {
    while let Some(next) = events.next().await {
        let mut told = lock(&told);
        match next {
            Next::Event(recorded) => match recorded.event {
                Event::SignerLapsed(report) => {
                    told.is_away = true;
                    told.lapse = Some(report);
                }
                Event::Relit {
                    epoch, took, up, ..
                } => told.relit = Some((epoch, took, up)),
                Event::Ecdh { .. } if told.is_away => told.asked_away += 1,
                Event::KeyRotated { times, .. } => {
                    told.rotations = told.rotations.saturating_add(times);
                }
                _ => {}
            },
            Next::Missed(count) => told.missed = told.missed.saturating_add(count),
            Next::CaughtUp => {}
        }
        drop(told);
        news.send_modify(|beat| *beat = beat.wrapping_add(1));
    }
}

async fn receive(
    mut inbox: Inbox,
    links: Arc<Mutex<Links>>,
    breaches: Arc<Breaches>,
    tags: HashMap<NodeId, bool>,
    news: watch::Sender<u64>,
) {
    loop {
        // A delivery begins when the inbox is polled.
        let mut began = Instant::now();
        let next = {
            let mut receiving = pin!(inbox.recv());
            poll_fn(|context| {
                began = Instant::now();
                receiving.as_mut().poll(context)
            })
            .await
        };
        let mut links = lock(&links);
        match next {
            Some(Inbound::Up { link, .. }) => {
                let bears_channel = tags.get(&link.peer()).copied().unwrap_or(true);
                let entry = Entry {
                    bears_channel,
                    heard: 0,
                    said: 0,
                    handle: link,
                };
                links.live.insert(entry.handle.id(), entry);
                news.send_modify(|beat| *beat = beat.wrapping_add(1));
            }
            Some(Inbound::Message(message)) => {
                links.take(message.link, &message.bytes, began, &breaches);
            }
            Some(Inbound::Down { link, .. }) => {
                let gone = links.live.remove(&link);
                let gossip = gone.is_some_and(|gone| !gone.bears_channel);
                breaches.check("P2", !gossip, || "a gossip link was lost".to_owned());
            }
            None => return,
        }
    }
}

async fn speak(links: Arc<Mutex<Links>>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        lock(&links).say_on_all();
    }
}
