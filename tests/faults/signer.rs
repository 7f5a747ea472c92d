//! The gateway and the agent that brings the node's key, a faulty network between them, and peers whose links show what it led to. The
//! table shows what the gateway tells of, and then what the agent does.

use std::sync::Arc;
use std::time::Duration;

use pilotlight::clock::ManualClock;
use pilotlight::limits;
use pilotlight::link::Tag;
use pilotlight::signer::agent::{Agent, AgentError, AgentState};
use pilotlight::signer::{EcdhCall, EcdhError, Epoch, LapseReason, Purpose};
use pilotlight::telemetry::Event;

use crate::dialer;
use crate::failures;
use crate::proxy::{Fault, Place, Proxy, Way};
use crate::station::{Gossip, Log, OneAtATime, Peers, Station, key, read_inbox, soon};
use crate::table::fill;
use crate::watched::{HANG_GUARD, Watched};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The agent's first words in TLS.
    Hello,
    /// The gateway's.
    Answer,
    /// The end of the agent's TLS handshake, and its call with the macaroon.
    Call,
    /// The agent's answer to the challenge.
    Proof,
    /// Nothing is said but an acknowledged PING.
    Idle,
    /// ECDHs are asked and answered.
    Transfer,
    /// The session has been ended on request: the gateway's last words.
    Lapse,
    /// The agent dials again after a lapse: what the gateway asks it.
    Return,
}

const PHASES: [(Phase, &str); 8] = [
    (Phase::Hello, "TLS hello"),
    (Phase::Answer, "TLS answer"),
    (Phase::Call, "call"),
    (Phase::Proof, "proof"),
    (Phase::Idle, "idle"),
    (Phase::Transfer, "transfer"),
    (Phase::Lapse, "lapse"),
    (Phase::Return, "return"),
];

const WINDOW: Duration = limits::LIVENESS_WINDOW;
const STEP: Duration = Duration::from_millis(100);
/// How far into what it strikes: past the head of a TLS record, which says only how long it is and of what kind.
const INSIDE: usize = 7;
/// As far into the first words of either side: past what else says how long something is, into what is random. A wrong length would
/// have who reads wait for the rest, up to a deadline.
const INSIDE_HELLO: usize = 13;
/// The record that TLS 1.3 sends for the sake of middleboxes, before the end of the agent's handshake.
const FOR_MIDDLEBOXES: usize = 6;
/// ECDHs that are asked at once.
const ASKED: usize = 8;
/// What a narrow way passes at a time.
const SHARE: usize = 256;

struct Cell {
    phase: Phase,
    fault: Fault,
    /// The node's clock, and the agent's.
    clock: ManualClock,
    theirs: ManualClock,
    station: Station,
    log: Log,
    channel: Peers,
    gossip: Peers,
    heard: Arc<Watched<Gossip>>,
    /// What the gossip peer has been told to say; 0: the node does not know it yet.
    said: u64,
    proxy: Proxy,
    holder: Arc<OneAtATime>,
    agent: Option<Agent>,
}

impl Cell {
    async fn open(phase: Phase, fault: Fault) -> Self {
        let (clock, theirs) = (ManualClock::new(), ManualClock::new());
        let node = dialer::key(7);
        let (station, inbox) = Station::open(&node, WINDOW, Arc::new(clock.clone())).await;
        let log = Log::of(&station.telemetry);
        let heard = read_inbox(inbox);
        let (channel, gossip) = (Peers::listen(100, 1).await, Peers::listen(200, 1).await);
        station.want(&channel, Tag::ChannelBearing).await;
        let declared = channel.places.iter().map(|(id, _)| *id);
        let declared = station.supervisor.declare_channel_peers(declared);
        declared.await.unwrap();
        let proxy = Proxy::start(station.gateway.local_addr());
        Self {
            phase,
            fault,
            clock,
            theirs,
            station,
            log,
            channel,
            gossip,
            heard,
            said: 0,
            proxy,
            holder: OneAtATime::held(node),
            agent: None,
        }
    }

    /// The agent begins to dial. `answers`: how many questions its key answers before it waits to be allowed more.
    fn dial(&mut self, answers: usize) {
        self.holder.allow(answers);
        let config = self.station.agent_config(self.proxy.address);
        let theirs = Arc::new(self.theirs.clone());
        let holder = Arc::clone(&self.holder);
        self.agent = Some(Agent::start_with(config, holder, theirs));
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("it has been started")
    }

    fn live(&self) -> Option<u64> {
        self.station.context.state().live().map(Epoch::get)
    }

    async fn struck(&self) {
        soon("a strike", self.proxy.until_struck(1)).await;
    }

    /// The agent goes on until the session of that number is live; when it waits, its time passes.
    async fn attached(&self, epoch: u64) {
        let mut state = self.agent().state();
        let live = async {
            while self.live() != Some(epoch) {
                let now = state.borrow_and_update().clone();
                if let AgentState::Waiting { retry_in, .. } = now {
                    while self.theirs.sleepers() == 0 {
                        tokio::task::yield_now().await;
                    }
                    self.theirs.advance(retry_in);
                }
                tokio::select! {
                    _ = state.changed() => {}
                    () = self.station.until_live(epoch) => {}
                }
            }
        };
        soon("a session", live).await;
        let relit = |event: &Event| match event {
            Event::Relit {
                epoch: of,
                up,
                failed,
                ..
            } if of.get() == epoch => Some((*up, *failed)),
            _ => None,
        };
        let (_, relit) = self.log.nth("a relight", 1, relit).await;
        assert_eq!(relit, (1, 0));
    }

    /// The gossip link brings what is said on it: it is the first, and nothing was lost.
    async fn hears(&mut self) {
        if self.said == 0 {
            // Not before there is a signer: it would be met under a persona.
            self.station.want(&self.gossip, Tag::GossipOnly).await;
        }
        self.said += 1;
        self.gossip.gossip_up_to(self.said);
        let (id, said) = (self.gossip.places[0].0, self.said);
        let all = |gossip: &Gossip| gossip.of.get(&id) == Some(&said);
        self.heard.until_true("gossip", all).await;
        assert_eq!(self.heard.read(|gossip| gossip.out_of_turn), 0);
        assert_eq!(self.gossip.seen.read(|seen| (seen.ups, seen.ended)), (1, 0));
    }

    /// Some of the node's time passes, and whoever waited for it waits again.
    async fn pass(&self) {
        let sleepers = self.clock.sleepers();
        self.clock.advance(STEP);
        // A driver that has ended waits for nothing: this is no condition, only time to act.
        for _ in 0..200 {
            if self.clock.sleepers() >= sleepers {
                break;
            }
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
    }

    /// A question to the signer, and its answer.
    async fn ask(&self) {
        let question = EcdhCall::new(key(1).point(), Purpose::ChannelDial);
        drop(self.station.context.ecdh(question).await.unwrap());
    }

    /// Sees a mild fault through, until `done`.
    async fn see_through(&self, done: impl Future<Output = ()>) {
        self.struck().await;
        let help = async {
            match self.fault {
                Fault::Delay => {
                    for _ in 0..5 {
                        self.pass().await;
                    }
                    self.proxy.release();
                    std::future::pending::<()>().await;
                }
                Fault::Narrow => loop {
                    self.proxy.grant(SHARE);
                    tokio::task::yield_now().await;
                },
                _ => std::future::pending::<()>().await,
            }
        };
        tokio::select! {
            biased;
            () = soon("it is seen through", done) => {}
            () = help => {}
        }
        self.proxy.grant(1 << 30);
    }

    /// How the agent learns that its stream is down; of a half-open one, by its own deadlines. It is as this fault can have it.
    async fn agent_is_down(&self) -> &'static str {
        let mut state = self.agent().state();
        let is_down = |state: &AgentState| matches!(state, AgentState::Waiting { .. });
        let down = async {
            loop {
                if let AgentState::Waiting {
                    failure, detail, ..
                } = &*state.borrow_and_update()
                {
                    return (*failure, detail.clone());
                }
                if self.fault == Fault::HalfOpen {
                    // Less than the shortest backoff: no dial begins before its end was seen.
                    self.theirs.advance(limits::AGENT_BACKOFF_FIRST / 4);
                    tokio::task::yield_now().await;
                } else {
                    state.wait_for(is_down).await.unwrap();
                }
            }
        };
        let (label, detail) = soon("the agent sees it", down).await;
        let can_be = failures::of_agent(self.phase, self.fault);
        failures::one_of(can_be, AgentError::label, (label, &detail));
        label
    }

    /// The session of that number has ended by the fault, and took the channel link with it, no other.
    async fn lapsed(&mut self, epoch: u64) -> LapseReason {
        let lapse = async {
            while self.live() == Some(epoch) {
                if self.fault == Fault::HalfOpen {
                    self.pass().await;
                } else {
                    let _ = self.station.until_lapsed(epoch).await;
                }
            }
        };
        soon("a lapse", lapse).await;
        let reason = self.station.context.last_lapse().unwrap().reason;
        let expected = match self.fault {
            Fault::HalfOpen => LapseReason::LivenessLost,
            _ => LapseReason::StreamClosed,
        };
        assert_eq!(reason, expected);
        self.torn_down(epoch).await;
        reason
    }

    async fn torn_down(&mut self, epoch: u64) {
        let report = |event: &Event| match event {
            Event::SignerLapsed(report) if report.epoch.get() == epoch => {
                Some((report.dropped, report.retained))
            }
            _ => None,
        };
        let (_, report) = self.log.nth("the lapse's report", 1, report).await;
        assert_eq!(report, (1, 1));
        let ended = usize::try_from(epoch).unwrap();
        self.channel
            .until("its end", |seen| seen.ended == ended)
            .await;
        self.hears().await;
    }

    /// Of what the fault has ended nothing is left: each peer has one link, and nobody waits for an answer.
    async fn nothing_is_left(&self) {
        let held = || {
            let now = self.station.supervisor.snapshot();
            let links = (now.links.gossip_only, now.links.channel_bearing);
            (links, now.links.persona, now.ecdh_in_flight)
        };
        let wait = async {
            while held() != ((1, 1), 0, 0) {
                tokio::task::yield_now().await;
            }
        };
        let guarded = tokio::time::timeout(HANG_GUARD, wait).await;
        guarded.unwrap_or_else(|_| panic!("links, and questions: {:?}", held()));
    }

    fn refusals(&self) -> usize {
        self.log.count(|event| refused(event).is_some())
    }

    /// The gateway tells of who did not get as far as the seat; of a half-open connection, when its step is late. It is as this
    /// fault can have it.
    async fn refusal(&self) -> &'static str {
        let told = async {
            while self.refusals() == 0 {
                if self.fault == Fault::HalfOpen {
                    self.pass().await;
                    // Its answer is life: the window of the session that is there must not run out while nobody gives it the time
                    // to answer.
                    self.ask().await;
                } else {
                    tokio::task::yield_now().await;
                }
            }
        };
        soon("the gateway tells of it", told).await;
        let (_, refusal) = self.log.nth("a refusal", 1, refused).await;
        let can_be = failures::of_gateway(self.phase, self.fault);
        assert!(
            can_be.contains(&refusal),
            "{refusal:?}: it can only be one of {can_be:?}"
        );
        refusal.0
    }
}

/// The label of a signer that was refused, and whether the macaroon that it showed has a name.
fn refused(event: &Event) -> Option<(&'static str, bool)> {
    match event {
        Event::SignerRefused {
            failure, macaroon, ..
        } => Some((failure, macaroon.is_some())),
        _ => None,
    }
}

/// Strikes before the agent is attached for the first time.
async fn joining(cell: &mut Cell, way: Way, place: Place) -> String {
    cell.proxy.arm(way, place, cell.fault);
    cell.dial(1000);
    joined(cell, 1).await
}

/// The connection that is struck leads to the session of that number, or the next does.
async fn joined(cell: &mut Cell, epoch: u64) -> String {
    cell.struck().await;
    if cell.fault.is_mild() {
        let station = &cell.station;
        cell.see_through(station.until_live(epoch)).await;
        cell.attached(epoch).await;
        let dials = cell.agent().report().dials;
        assert_eq!(dials, epoch, "none in vain");
        return "attached".to_owned();
    }
    let failure = cell.agent_is_down().await;
    assert_eq!(cell.live(), None);
    cell.attached(epoch).await;
    let refusal = cell.refusal().await;
    assert_eq!(cell.live(), Some(epoch), "a false lapse");
    format!("refused ({refusal}; {failure}), attached")
}

/// The agent is attached, all links are up, and nothing is on its way.
async fn settled(cell: &mut Cell) {
    cell.dial(1000);
    cell.attached(1).await;
    cell.hears().await;
}

/// Strikes the answer of the key's holder to the challenge.
async fn proof(cell: &mut Cell) -> String {
    cell.dial(0);
    cell.holder.until_asked(1).await;
    cell.proxy.arm_ahead(Way::Up, INSIDE, cell.fault);
    cell.holder.allow(1000);
    joined(cell, 1).await
}

/// A hard fault has struck an attached agent: the session lapses, and the agent comes back.
async fn lost(cell: &mut Cell) -> String {
    let reason = cell.lapsed(1).await;
    let failure = cell.agent_is_down().await;
    cell.attached(2).await;
    cell.hears().await;
    format!("lapsed ({}; {failure}), attached again", reason.as_str())
}

async fn idle(cell: &mut Cell) -> String {
    settled(cell).await;
    cell.proxy.arm_ahead(Way::Up, INSIDE, cell.fault);
    // Half of the window brings a PING, and no end however late its acknowledgement comes.
    for _ in 0..(WINDOW / 2).as_millis() / STEP.as_millis() {
        cell.pass().await;
    }
    cell.struck().await;
    if !cell.fault.is_mild() {
        return lost(cell).await;
    }
    // Longer than the window, which an acknowledgement ends each time.
    cell.see_through(cell.ask()).await;
    retained(cell).await
}

async fn retained(cell: &mut Cell) -> String {
    assert_eq!(cell.live(), Some(1));
    assert!(cell.station.context.last_lapse().is_none(), "a false lapse");
    assert_eq!(cell.agent().report().dials, 1);
    cell.hears().await;
    "retained".to_owned()
}

async fn transfer(cell: &mut Cell) -> String {
    settled(cell).await;
    cell.proxy.arm_ahead(Way::Up, INSIDE, cell.fault);
    let asking: Vec<_> = (0..ASKED)
        .map(|_| {
            let context = cell.station.context.clone();
            let question = EcdhCall::new(key(1).point(), Purpose::ChannelDial);
            tokio::spawn(async move { context.ecdh(question).await })
        })
        .collect();
    let expected = key(1).ecdh(&dialer::key(7).point());
    let mild = cell.fault.is_mild();
    let answers = async move {
        for asking in asking {
            match asking.await.unwrap() {
                Ok((secret, lease)) => {
                    assert!(secret.ct_eq(&expected));
                    assert!(!mild || lease.is_live());
                }
                Err(EcdhError::SignerAway(_)) => assert!(!mild),
                Err(other) => panic!("{other}"),
            }
        }
    };
    if mild {
        cell.see_through(answers).await;
        return retained(cell).await;
    }
    cell.struck().await;
    let answers = tokio::spawn(answers);
    let outcome = lost(cell).await;
    // A lapse fails at once whoever waits: nothing hangs, and no late answer is used.
    soon("an end of every question", answers).await.unwrap();
    outcome
}

async fn lapse(cell: &mut Cell) -> String {
    settled(cell).await;
    cell.proxy.arm_ahead(Way::Down, INSIDE, cell.fault);
    let lapse = cell.station.context.lapse(LapseReason::Requested).unwrap();
    assert_eq!(lapse.epoch.get(), 1);
    // Whatever becomes of the last words, the fence is up and the links are gone.
    cell.torn_down(1).await;
    cell.struck().await;
    if cell.fault.is_mild() {
        let mut state = cell.agent().state();
        let down = async {
            let down = |state: &AgentState| matches!(state, AgentState::Waiting { .. });
            state.wait_for(down).await.unwrap();
        };
        cell.see_through(down).await;
    }
    let failure = cell.agent_is_down().await;
    cell.attached(2).await;
    cell.hears().await;
    format!("lapsed (requested; {failure}), attached again")
}

async fn returns(cell: &mut Cell) -> String {
    settled(cell).await;
    cell.proxy.cut();
    let _ = cell.station.until_lapsed(1).await;
    cell.torn_down(1).await;
    cell.proxy
        .arm(Way::Down, Place::Turn(2, INSIDE), cell.fault);
    let mut state = cell.agent().state();
    let waits = state.wait_for(|state| matches!(state, AgentState::Waiting { .. }));
    let AgentState::Waiting { retry_in, .. } = soon("it waits", waits).await.unwrap().clone()
    else {
        unreachable!()
    };
    while cell.theirs.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    cell.theirs.advance(retry_in);
    joined(cell, 2).await
}

async fn cell(phase: Phase, fault: Fault) -> String {
    let mut cell = Cell::open(phase, fault).await;
    let cell = &mut cell;
    let outcome = match phase {
        Phase::Hello => joining(cell, Way::Up, Place::At(INSIDE_HELLO)).await,
        Phase::Answer => joining(cell, Way::Down, Place::At(INSIDE_HELLO)).await,
        Phase::Call => {
            let place = Place::Turn(2, FOR_MIDDLEBOXES + INSIDE);
            joining(cell, Way::Up, place).await
        }
        Phase::Proof => proof(cell).await,
        Phase::Idle => idle(cell).await,
        Phase::Transfer => transfer(cell).await,
        Phase::Lapse => lapse(cell).await,
        Phase::Return => returns(cell).await,
    };
    cell.hears().await;
    assert_eq!(cell.proxy.struck(), 1);
    let told = usize::from(!failures::of_gateway(phase, fault).is_empty());
    assert_eq!(cell.refusals(), told, "signers that were refused");
    cell.nothing_is_left().await;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_every_phase_of_the_signers_stream_is_no_more_than_a_lapse() {
    fill("the agent dials the gateway", &PHASES, cell).await;
}
