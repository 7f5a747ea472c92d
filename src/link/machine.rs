//! What a link decides: what an inbound message means, when to ping, when to give up.
//!
//! ```text
//!              init                     close
//!  AwaitInit ────────▶ Up ───────────────────────▶ (the driver ends the link)
//!      │ 5 s            │ 30–60 s of silence: ping;
//!      ▼                │ 30 s without a pong: close
//!    close              └ every message goes through the firewall's table
//! ```
//!
//! Pure: `now`, the mode and the seed are arguments. It never reads a clock, touches a socket or calls the signer. Its
//! transition table is printed and compared by a test.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::CloseReason;
use super::allowance::{Allowance, Rate};
use super::firewall::{self, Inbound, Outbound, Situation};
use crate::clock::Moment;
use crate::limits;
use crate::wire::queries::unserved_answer;
use crate::wire::{ChainHash, Features, Init, MessageType, Pong, Warning};
use std::time::Duration;

/// What the driver knows at the instant of a call.
#[derive(Debug, Clone, Copy)]
pub struct Ambient {
    /// The clock.
    pub now: Moment,
    /// No signer is there: the mode is `Waiting` or `Safe`.
    pub signer_away: bool,
}

/// What a link is, for as long as it lives.
#[derive(Debug, Clone, Copy)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state machine in disguise"
)]
pub struct Settings {
    /// The link was made with a throwaway key.
    pub persona: bool,
    /// The node answers 261 and 263 itself.
    pub queries_served: bool,
    /// The node knows what to do with even types that no BOLT defines.
    pub custom_even_ok: bool,
    /// Without a signer the firewall refuses channel messages only.
    pub observe: bool,
    /// How old the session secrets may become; `None`: any age.
    pub max_age: Option<Duration>,
}

/// What is to be done with an inbound message.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Received {
    /// The peer's `init`: the link is up.
    Up(Box<Init>),
    /// To the node. `lease`: only under a lease, which the link must take first.
    Deliver {
        /// BOLT 2, but neither 32 nor 64.
        lease: bool,
    },
    /// Answer with so many zero bytes, ahead of all other traffic.
    Pong {
        /// `num_pong_bytes` of the ping.
        bytes: u16,
    },
    /// The pong that was waited for.
    PongArrived {
        /// Since the ping.
        rtt: Duration,
    },
    /// Not for the node; this is the answer (262 or 264).
    Answer(Vec<u8>),
    /// Not delivered, counted as `action`; perhaps a warning to the peer.
    Refused {
        /// `dropped` or `warned`.
        action: &'static str,
        /// The whole warning message, unless the peer has had its share.
        warning: Option<Vec<u8>>,
    },
    /// Nothing: BOLT 1 lets an unknown odd type pass unnoticed.
    Ignored,
    /// Close the link.
    Close {
        /// After handing the message to the node.
        deliver: bool,
        /// Why.
        reason: CloseReason,
        /// A last word to the peer: a `warning`, never an `error` (P4).
        warning: Option<Vec<u8>>,
    },
}

/// What is to be done as a deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// Send a ping that asks for so many bytes.
    Ping {
        /// `num_pong_bytes`.
        pong_bytes: u16,
    },
    /// Close the link.
    Close(CloseReason),
}

const WARNINGS: Rate = Rate {
    most: limits::WARNING_BURST,
    regained: 1,
    interval: limits::WARNING_INTERVAL,
};
const PONGS: Rate = Rate {
    most: limits::PONG_BURST,
    regained: limits::PONG_BYTES_A_SECOND,
    interval: Duration::from_secs(1),
};
const QUERIES: Rate = Rate {
    most: limits::QUERY_BURST,
    regained: limits::QUERIES_A_SECOND,
    interval: Duration::from_secs(1),
};

/// The state of one link after its handshake.
pub struct LinkMachine {
    /// All of it but who is there and how far the link has come.
    situation: Situation,
    phase: Phase,
    random: fastrand::Rng,
    /// When a frame last arrived.
    heard: Moment,
    /// Silence after which the next ping is due; drawn anew after each pong.
    patience: Duration,
    outstanding: Option<Outstanding>,
    /// In a box: most nodes let a session live.
    aging: Option<Box<Aging>>,
    warnings: Allowance,
    /// Pong bytes that the peer may still ask for.
    pongs: Allowance,
    /// Gossip that it may still ask for.
    queries: Allowance,
}

enum Phase {
    /// What the peer's `init` is held against is gone once it has come.
    AwaitInit(Box<Expected>),
    Up,
}

/// What is asked of the peer's `init`.
struct Expected {
    until: Moment,
    networks: Vec<ChainHash>,
    /// What a peer may demand of us.
    known: Features,
}

/// How a link's session secrets age.
#[derive(Debug, Clone, Copy)]
struct Aging {
    /// The link may be made anew from then on, if a signer is there.
    renew: Moment,
    /// It must be gone by then.
    end: Moment,
    /// When to look next, and between two looks for a signer.
    look: Moment,
    step: Duration,
}

impl Aging {
    fn new(max_age: Duration, now: Moment, random: &mut fastrand::Rng) -> Self {
        let tenth = max_age / 10;
        let spread = random.u64(0..=u64::try_from(tenth.as_nanos()).unwrap_or(u64::MAX));
        let renew = now
            .after(tenth.saturating_mul(8))
            .after(Duration::from_nanos(spread));
        Self {
            renew,
            end: now.after(max_age),
            look: renew,
            step: max_age / 20,
        }
    }
}

/// A ping that is not answered yet.
#[derive(Debug, Clone, Copy)]
struct Outstanding {
    since: Moment,
    until: Moment,
    pong_bytes: u16,
}

impl LinkMachine {
    /// A link whose handshake is done at `now`. `networks` are those that the node follows (none: any will do); `seed` spreads the
    /// pings of many links.
    pub fn new(settings: Settings, networks: Vec<ChainHash>, now: Moment, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let patience = patience(&mut random);
        let aging = settings
            .max_age
            .map(|max_age| Box::new(Aging::new(max_age, now, &mut random)));
        Self {
            situation: Situation {
                // As if nobody were there: see `situation`.
                signer_away: true,
                persona: settings.persona,
                init_received: false,
                filter_received: false,
                queries_served: settings.queries_served,
                custom_even_ok: settings.custom_even_ok,
                observe: settings.observe,
            },
            phase: Phase::AwaitInit(Box::new(Expected {
                until: now.after(limits::INIT_DEADLINE),
                networks,
                known: Features::assigned(),
            })),
            random,
            heard: now,
            patience,
            outstanding: None,
            aging,
            warnings: Allowance::full(&WARNINGS, now),
            pongs: Allowance::full(&PONGS, now),
            queries: Allowance::full(&QUERIES, now),
        }
    }

    /// The node understands these features too, whether BOLT 9 has assigned them or not.
    #[must_use]
    pub fn knowing(mut self, features: &Features) -> Self {
        if let Phase::AwaitInit(expected) = &mut self.phase {
            expected.known.merge(features);
        }
        self
    }

    /// Whether both sides have sent `init`.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up)
    }

    /// Whether the peer has asked for gossip (265).
    pub fn filter_received(&self) -> bool {
        self.situation.filter_received
    }

    /// Judges one whole message, its 2-byte type first.
    pub fn receive(&mut self, ambient: Ambient, message: &[u8]) -> Received {
        self.heard = ambient.now;
        let Ok(kind) = MessageType::of(message) else {
            return self.protocol_close(
                ambient.now,
                "a message has at least a type of two bytes (BOLT 1)",
            );
        };
        if !self.is_up() {
            return self.receive_first(ambient.now, kind, message);
        }
        let cost = query_cost(kind);
        if cost > 0 && !self.queries.spend(&QUERIES, ambient.now, cost) {
            return self.flooded(
                ambient.now,
                CloseReason::QueryFlood,
                "too many gossip queries: one after the other is enough (BOLT 7)",
            );
        }
        match firewall::inbound(message, &self.situation(ambient.signer_away)) {
            Inbound::Deliver => self.delivered(kind),
            // A second `init` is refused by the table, so this is the pong.
            Inbound::ForLink => self.pong_arrived(ambient.now, message),
            Inbound::Ignore => Received::Ignored,
            Inbound::Pong { num_pong_bytes } => self.pinged(ambient.now, num_pong_bytes),
            Inbound::AnswerUnserved => match unserved_answer(message) {
                Ok(Some(answer)) => Received::Answer(answer),
                Ok(None) => Received::Ignored,
                Err(_) => self.protocol_close(ambient.now, "malformed gossip query (BOLT 7)"),
            },
            Inbound::WarnNotDelivered => Received::Refused {
                action: "warned",
                warning: self.warning(ambient.now, "signer away: open no channel now"),
            },
            Inbound::Drop => Received::Refused {
                action: "dropped",
                warning: None,
            },
            Inbound::CloseAfterDelivery => Received::Close {
                deliver: true,
                reason: CloseReason::ErrorReceived,
                warning: None,
            },
            Inbound::Close(reason) => self.closing(ambient.now, reason),
        }
    }

    /// Judges a message that the node wants to send now. The mode may have changed since it was queued.
    pub fn send(&self, ambient: Ambient, message: &[u8]) -> Outbound {
        firewall::outbound(message, &self.situation(ambient.signer_away))
    }

    /// What the firewall would have done with a message that was delivered because it only observes: a label.
    pub fn would(&self, ambient: Ambient, message: &[u8]) -> Option<&'static str> {
        firewall::would(message, &self.situation(ambient.signer_away))
    }

    /// Whether the firewall would have refused a message that may leave because it only observes.
    pub fn would_refuse(&self, ambient: Ambient, message: &[u8]) -> bool {
        firewall::would_refuse(message, &self.situation(ambient.signer_away))
    }

    /// When [`expire`](Self::expire) and [`age`](Self::age) should be called next.
    pub fn deadline(&self) -> Moment {
        let keepalive = self.keepalive_deadline();
        self.age_deadline()
            .map_or(keepalive, |age| age.min(keepalive))
    }

    /// When [`age`](Self::age) should be called next, whatever the peer does; `None`: never.
    pub fn age_deadline(&self) -> Option<Moment> {
        self.aging.as_ref().map(|aging| aging.look)
    }

    /// Whether the session secrets are too old: as old as they may become, or nearly so when new ones can be had: with a signer, or
    /// under a persona.
    pub fn age(&mut self, ambient: Ambient) -> Option<CloseReason> {
        let aging = self.aging.as_mut()?;
        let now = ambient.now;
        // A persona's link needs no signer to be made anew.
        let can_renew = self.situation.persona || !ambient.signer_away;
        if now >= aging.end || now >= aging.renew && can_renew {
            return Some(CloseReason::SessionAge);
        }
        if now >= aging.look {
            aging.look = now.after(aging.step).min(aging.end);
        }
        None
    }

    fn keepalive_deadline(&self) -> Moment {
        match (&self.phase, self.outstanding) {
            (Phase::AwaitInit(expected), _) => expected.until,
            (Phase::Up, Some(ping)) => ping.until,
            (Phase::Up, None) => self.heard.after(self.patience),
        }
    }

    /// What is due at `now`. A ping that it asks for counts as sent.
    pub fn expire(&mut self, now: Moment) -> Due {
        if now < self.keepalive_deadline() {
            return Due::Nothing;
        }
        match (&self.phase, self.outstanding) {
            (Phase::AwaitInit(_), _) => Due::Close(CloseReason::InitTimeout),
            (Phase::Up, Some(_)) => Due::Close(CloseReason::PongTimeout),
            (Phase::Up, None) => self.ping(now),
        }
    }

    /// Finds out at once whether the peer is alive. The ping that it asks for counts as sent.
    pub fn probe(&mut self, now: Moment) -> Due {
        match (&self.phase, self.outstanding) {
            (Phase::Up, None) => self.ping(now),
            _ => Due::Nothing,
        }
    }

    /// Asks for a pong that comes after everything that the peer has sent until it sees this ping, a ping under way or not: that one's
    /// pong says nothing any more. The ping that it asks for counts as sent.
    pub fn last_call(&mut self, now: Moment) -> Due {
        self.ping(now)
    }

    /// The link is read again after a time in which it was not: what came meanwhile could not be heard, so silence and a missing
    /// pong count from now.
    pub fn resume(&mut self, now: Moment) {
        self.heard = now;
        if let Some(ping) = &mut self.outstanding {
            ping.until = now.after(limits::PONG_DEADLINE);
        }
    }

    /// When a frame last arrived.
    pub fn heard(&self) -> Moment {
        self.heard
    }

    fn situation(&self, signer_away: bool) -> Situation {
        Situation {
            signer_away,
            init_received: self.is_up(),
            ..self.situation
        }
    }

    /// BOLT 1 § The `init` Message: it is the first message, and nothing else may come before it.
    fn receive_first(&mut self, now: Moment, kind: MessageType, message: &[u8]) -> Received {
        if kind != MessageType::INIT {
            return self.protocol_close(now, "init must be the first message (BOLT 1)");
        }
        if message.len() > limits::INIT_MAX {
            return self.protocol_close(now, "init is longer than 4096 bytes");
        }
        let Phase::AwaitInit(expected) = &self.phase else {
            return self.protocol_close(now, "init may be sent only once (BOLT 1)");
        };
        match Init::decode(message) {
            Ok(init) if !init.may_share_a_chain(&expected.networks) => {
                self.protocol_close(now, "no network in common (BOLT 1)")
            }
            Ok(init) if init.features.requires_unknown(&expected.known).is_some() => self
                .protocol_close(
                    now,
                    "init demands a feature that is unknown here (BOLT 1, BOLT 9)",
                ),
            Ok(init) => {
                self.phase = Phase::Up;
                Received::Up(Box::new(init))
            }
            Err(_) => self.protocol_close(now, "malformed init (BOLT 1)"),
        }
    }

    fn delivered(&mut self, kind: MessageType) -> Received {
        if kind == MessageType::GOSSIP_TIMESTAMP_FILTER {
            self.situation.filter_received = true;
        }
        Received::Deliver {
            lease: firewall::needs_lease(kind),
        }
    }

    fn pinged(&mut self, now: Moment, bytes: u16) -> Received {
        if self.pongs.spend(
            &PONGS,
            now,
            u32::from(bytes).saturating_add(limits::PONG_OVERHEAD),
        ) {
            return Received::Pong { bytes };
        }
        self.flooded(
            now,
            CloseReason::PingFlood,
            "too many pings: at most one in 30 s is needed (BOLT 1)",
        )
    }

    fn flooded(&mut self, now: Moment, reason: CloseReason, text: &str) -> Received {
        Received::Close {
            deliver: false,
            reason,
            warning: self.warning(now, text),
        }
    }

    fn pong_arrived(&mut self, now: Moment, message: &[u8]) -> Received {
        let Ok(pong) = Pong::decode(message) else {
            return self.protocol_close(now, "malformed pong (BOLT 1)");
        };
        match self.outstanding {
            // BOLT 1: a pong of another length answers another ping.
            Some(asked) if asked.pong_bytes == pong.ignored => {
                self.outstanding = None;
                self.patience = patience(&mut self.random);
                Received::PongArrived {
                    rtt: now.since(asked.since),
                }
            }
            _ => Received::Ignored,
        }
    }

    fn closing(&mut self, now: Moment, reason: firewall::CloseReason) -> Received {
        use firewall::CloseReason as Rule;
        let (reason, text) = match reason {
            // Never answered: what we say of a channel that we cannot speak for could only do harm.
            Rule::ChannelReestablish => (CloseReason::Mistag, None),
            Rule::ChannelMessage => (
                CloseReason::ChannelMessage,
                Some("signer away: no channel messages now"),
            ),
            Rule::Malformed => (CloseReason::Protocol, Some("malformed message (BOLT 1)")),
            Rule::InitExpected => (
                CloseReason::Protocol,
                Some("init must be the first message (BOLT 1)"),
            ),
            Rule::SecondInit => (
                CloseReason::Protocol,
                Some("init may be sent only once (BOLT 1)"),
            ),
            Rule::UnknownEven => (
                CloseReason::Protocol,
                Some("unknown message of an even type (BOLT 1)"),
            ),
        };
        let warning = text.and_then(|text| self.warning(now, text));
        Received::Close {
            deliver: false,
            reason,
            warning,
        }
    }

    fn protocol_close(&mut self, now: Moment, text: &'static str) -> Received {
        Received::Close {
            deliver: false,
            reason: CloseReason::Protocol,
            warning: self.warning(now, text),
        }
    }

    fn warning(&mut self, now: Moment, text: &str) -> Option<Vec<u8>> {
        self.warnings
            .spend(&WARNINGS, now, 1)
            .then(|| Warning::new(text).encode())
    }

    fn ping(&mut self, now: Moment) -> Due {
        // A length that only this ping asks for tells its pong from others.
        let before = self.outstanding.map(|ping| ping.pong_bytes);
        let drawn = self.random.u16(1..=256);
        let pong_bytes = if before == Some(drawn) {
            drawn ^ 512
        } else {
            drawn
        };
        self.outstanding = Some(Outstanding {
            since: now,
            until: now.after(limits::PONG_DEADLINE),
            pong_bytes,
        });
        Due::Ping { pong_bytes }
    }
}

/// What a message costs of what a peer may ask for: it is cheap to send and dear to answer.
fn query_cost(kind: MessageType) -> u32 {
    match kind {
        MessageType::QUERY_CHANNEL_RANGE | MessageType::GOSSIP_TIMESTAMP_FILTER => {
            limits::QUERY_OF_ALL
        }
        MessageType::QUERY_SHORT_CHANNEL_IDS => 1,
        _ => 0,
    }
}

/// A silence between the shortest and the longest, in whole nanoseconds, so that links spread.
fn patience(random: &mut fastrand::Rng) -> Duration {
    let spread = limits::PING_AFTER_MAX.saturating_sub(limits::PING_AFTER_MIN);
    let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX);
    limits::PING_AFTER_MIN.saturating_add(Duration::from_nanos(random.u64(0..=nanos)))
}
