//! What is to be seen: fed with the daemon's answers and events and with keys, read by what draws. Pure: the time comes with each call.
//!
//! ```text
//!  /v1/info, /v1/peers ──▶ status()  ┐
//!  /v1/events ───────────▶ event()   ├─▶ Model ──▶ draw, lines
//!  no answer ────────────▶ lost()    │
//!  the keyboard ─────────▶ key()     ┘
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::lane::{Lane, Standing};
use super::look::Look;
use crate::admin::Problem;
use serde_json::Value;
use std::collections::{HashMap, HashSet, VecDeque};

/// Events that are kept to be shown, of those that matter and of all: more than a screen has lines, and some to scroll back to.
const EVENTS: usize = 200;

/// Lapses and attaches that are kept to be marked.
const MARKS: usize = 64;

/// A lane of a peer that the daemon does not list lives on this long, in seconds: its event may come before it is listed.
const UNLISTED: f64 = 60.0;

/// Two reports of one lapse are no further apart, in seconds.
const SAME_LAPSE: f64 = 0.5;

/// Events of one kind and reason that are no further apart, in seconds, are told in one line.
const TOGETHER: f64 = 2.0;

/// Events that come by the hundred and say little by themselves.
const MINOR: &[&str] = &[
    "dialing",
    "ecdh",
    "handshake",
    "key_rotated",
    "parked",
    "pong",
    "refused",
];

/// Whether there is a daemon.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reach {
    /// Nothing has been heard yet, good or bad.
    Asking,
    /// It has answered.
    Answers,
    /// It does not answer: why, and since when.
    Lost { since: f64, problem: Problem },
}

/// One peer, as `/v1/peers` has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) addr: String,
    pub(super) tag: String,
    pub(super) state: String,
    pub(super) weight: u64,
    pub(super) identity: Option<String>,
    pub(super) direction: Option<String>,
    pub(super) since: Option<f64>,
    pub(super) frames_in: Option<u64>,
    pub(super) frames_out: Option<u64>,
    pub(super) last_gossip_at: Option<f64>,
}

impl Peer {
    /// `None` for what has no node id.
    pub(super) fn new(peer: &Value) -> Option<Self> {
        let text = |name: &str| peer.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| peer.get(name).and_then(Value::as_u64);
        let time = |name: &str| peer.get(name).and_then(Value::as_f64);
        Some(Self {
            id: text("node_id")?,
            addr: text("addr").unwrap_or_default(),
            tag: text("tag").unwrap_or_default(),
            state: text("state").unwrap_or_default(),
            weight: number("weight").unwrap_or_default(),
            identity: text("identity"),
            direction: text("direction"),
            since: time("since"),
            frames_in: number("frames_in"),
            frames_out: number("frames_out"),
            last_gossip_at: time("last_gossip_at"),
        })
    }

    pub(super) fn standing(&self) -> Standing {
        Standing::of(&self.state, self.identity.as_deref())
    }

    pub(super) fn is_channel_bearing(&self) -> bool {
        self.tag == "channel-bearing"
    }
}

/// An event, and how many like it have come in a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub(super) event: Value,
    pub(super) times: u64,
}

/// Everything that is known of the daemon, and how it is looked at.
pub(super) struct Model {
    pub(super) reach: Reach,
    /// `/v1/info`, as it was last.
    pub(super) info: Option<Value>,
    /// When that was, by the daemon's clock.
    pub(super) answered: f64,
    /// What the daemon's clock is ahead of ours, in seconds.
    ahead: f64,
    pub(super) peers: Vec<Peer>,
    /// Places in `peers`: those that are looked at, in the order in which they are.
    pub(super) arranged: Vec<usize>,
    lanes: HashMap<String, Lane>,
    /// Lapses, oldest first, and when a signer attached.
    pub(super) lapses: VecDeque<f64>,
    pub(super) attaches: VecDeque<f64>,
    /// The newest last.
    major: VecDeque<Told>,
    all: VecDeque<Told>,
    /// Events that came too fast for us.
    pub(super) missed: u64,
    pub(super) look: Look,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            reach: Reach::Asking,
            info: None,
            answered: 0.0,
            ahead: 0.0,
            peers: Vec::new(),
            arranged: Vec::new(),
            lanes: HashMap::new(),
            lapses: VecDeque::new(),
            attaches: VecDeque::new(),
            major: VecDeque::new(),
            all: VecDeque::new(),
            missed: 0,
            look: Look::default(),
        }
    }

    /// The daemon's time at a time of ours.
    pub(super) fn daemon_time(&self, ours: f64) -> f64 {
        ours + self.ahead
    }

    /// What `/v1/info` and `/v1/peers` said when they were asked, at `asked` by our clock.
    pub(super) fn status(&mut self, asked: f64, info: Value, peers: &Value) {
        let at = info.get("now").and_then(Value::as_f64).unwrap_or(asked);
        self.reach = Reach::Answers;
        (self.answered, self.ahead) = (at, at - asked);
        if let Some(lapse) = info.pointer("/last_lapse/at").and_then(Value::as_f64) {
            self.lapsed(lapse);
        }
        self.info = Some(info);
        let peers = peers.as_array().into_iter().flatten();
        self.peers = peers.filter_map(Peer::new).collect();
        self.arrange();
        for peer in &self.peers {
            let lane = self.lanes.entry(peer.id.clone()).or_default();
            // Whatever has been told of a later time stays as it is: a turn takes its place among the others.
            let standing = peer.standing();
            match peer.since {
                // A link that was up before we came is drawn from when it came up.
                Some(since) if lane.changed().is_none() => lane.turn(since.min(at), standing),
                _ if lane.last() != standing => lane.turn(at, standing),
                _ => {}
            }
        }
        self.forget(at);
    }

    /// The daemon does not answer.
    pub(super) fn lost(&mut self, at: f64, problem: Problem) {
        let since = match self.reach {
            Reach::Lost { since, .. } => since,
            Reach::Asking | Reach::Answers => at,
        };
        self.reach = Reach::Lost { since, problem };
        // What it does meanwhile is not known.
        let at = self.daemon_time(at);
        for lane in self.lanes.values_mut() {
            if lane.changed().is_none_or(|changed| changed < at) {
                lane.turn(at, Standing::Unknown);
            }
        }
    }

    /// Lanes of peers that the daemon does not list end after a while.
    fn forget(&mut self, at: f64) {
        let listed: HashSet<&str> = self.peers.iter().map(|peer| peer.id.as_str()).collect();
        self.lanes.retain(|id, lane| {
            listed.contains(id.as_str())
                || lane
                    .changed()
                    .is_some_and(|changed| changed > at - UNLISTED)
        });
    }

    /// One event of `/v1/events`.
    pub(super) fn event(&mut self, event: Value) {
        let name = event.get("event").and_then(Value::as_str).unwrap_or("");
        if name == "missed" {
            let missed = event.get("missed").and_then(Value::as_u64);
            self.missed = self.missed.saturating_add(missed.unwrap_or_default());
        }
        let is_minor = MINOR.contains(&name);
        if let Some(at) = event.get("at").and_then(Value::as_f64) {
            match name {
                "signer_lapsed" => self.lapsed(at),
                "signer_attached" => mark(&mut self.attaches, at),
                _ => self.turn(name, at, &event),
            }
        }
        if !is_minor {
            push(&mut self.major, event.clone());
        }
        push(&mut self.all, event);
    }

    fn turn(&mut self, name: &str, at: f64, event: &Value) {
        let Some(id) = event.get("node_id").and_then(Value::as_str) else {
            return;
        };
        let is = |field: &str, value: &str| event.get(field).and_then(Value::as_str) == Some(value);
        let standing = match name {
            "link_up" if is("identity", "persona") => Standing::Persona,
            "link_up" => Standing::Up,
            // It waits for the signer, and has not failed.
            "link_down" if is("reason", "lapse") => Standing::Held,
            "dialing" => Standing::Dialing,
            "dial_failed" if event.get("retry_in_ms").is_none_or(Value::is_null) => Standing::Held,
            "link_down" | "dial_failed" => Standing::Down,
            _ => return,
        };
        let lane = self.lanes.entry(id.to_owned()).or_default();
        let is_up = matches!(lane.last(), Standing::Up | Standing::Persona);
        // A dial beside a live link, such as the one that replaces a persona's, changes nothing; nor does the end of a link whose
        // successor is up already.
        if is_up && (name.starts_with("dial") || is("reason", "duplicate")) {
            return;
        }
        lane.turn(at, standing);
    }

    fn lapsed(&mut self, at: f64) {
        let known = self.lapses.iter();
        if known.clone().all(|known| (known - at).abs() > SAME_LAPSE) {
            mark(&mut self.lapses, at);
        }
    }

    /// How that peer has stood.
    pub(super) fn lane(&self, id: &str) -> Option<&Lane> {
        self.lanes.get(id)
    }

    /// The events to be shown, oldest first.
    pub(super) fn events(&self) -> &VecDeque<Told> {
        if self.look.all_events {
            &self.all
        } else {
            &self.major
        }
    }

    /// The peers that are looked at, in the order in which they are.
    pub(super) fn rows(&self) -> Vec<&Peer> {
        let rows = self.arranged.iter();
        rows.filter_map(|place| self.peers.get(*place)).collect()
    }
}

/// A thousand links that end together are one line.
fn push(events: &mut VecDeque<Told>, event: Value) {
    let alike = |field: &str, told: &Told| told.event.get(field) == event.get(field);
    let time = |event: &Value| event.get("at").and_then(Value::as_f64).unwrap_or_default();
    let last = events.back_mut().filter(|told| {
        alike("event", told) && alike("reason", told) && time(&event) - time(&told.event) < TOGETHER
    });
    if let Some(told) = last {
        told.event = event;
        told.times = told.times.saturating_add(1);
        return;
    }
    if events.len() >= EVENTS {
        events.pop_front();
    }
    events.push_back(Told { event, times: 1 });
}

fn mark(marks: &mut VecDeque<f64>, at: f64) {
    let place = marks.partition_point(|mark| *mark <= at);
    marks.insert(place, at);
    if marks.len() > MARKS {
        marks.pop_front();
    }
}
