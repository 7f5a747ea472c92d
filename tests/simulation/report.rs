//! What a run shows: how often the gossip floor was there, how much was dialled, how long a relight took.

use super::Scale;
use super::desk::{Desk, Figures};
use pilotlight::clock::Moment;
use std::fmt::Write as _;
use std::time::Duration;

/// The figures of one run.
#[derive(Debug, Clone)]
pub struct Report {
    scale: Scale,
    away: Duration,
    floor_there: Duration,
    /// Time away in which as many honest gossip peers as the floor asks for were up or within reach, and of that with the floor.
    possible: Duration,
    there_when_possible: Duration,
    lasted: Duration,
    /// The share of that of each run, in per cent.
    shares: Vec<f64>,
    /// Looks at the far ends while no signer was there, and how often enough of them lived.
    looks: (u64, u64),
    relights: Vec<Duration>,
    pub figures: Figures,
    /// Frames that arrived, and what became of them: only of runs with links.
    pub frames: u64,
    pub messages: (u64, u64),
    pub refused: u64,
    pub links: u64,
}

impl Report {
    pub fn new(scale: Scale) -> Self {
        Self {
            scale,
            away: Duration::ZERO,
            floor_there: Duration::ZERO,
            possible: Duration::ZERO,
            there_when_possible: Duration::ZERO,
            shares: Vec::new(),
            lasted: Duration::ZERO,
            looks: (0, 0),
            relights: Vec::new(),
            figures: Figures::default(),
            frames: 0,
            messages: (0, 0),
            refused: 0,
            links: 0,
        }
    }

    /// Between two moments nothing happened. `possible`: the floor could be there.
    pub fn pass(&mut self, desk: &Desk, possible: bool, from: Moment, to: Moment) {
        let span = to.since(from);
        self.lasted += span;
        if desk.live {
            return;
        }
        let of = |is: bool| if is { span } else { Duration::ZERO };
        let is_there = desk.missing() == 0;
        self.away += span;
        self.floor_there += of(is_there);
        self.possible += of(possible);
        self.there_when_possible += of(possible && is_there);
    }

    /// The run is over.
    pub fn close(&mut self, figures: Figures) {
        self.figures = figures;
        if !self.possible.is_zero() {
            self.shares
                .push(share(self.there_when_possible, self.possible));
        }
    }

    /// Whether enough gossip links live at both ends.
    pub fn sample(&mut self, enough: bool) {
        self.looks.0 += 1;
        self.looks.1 += u64::from(enough);
    }

    pub fn relit(&mut self, took: Duration) {
        self.relights.push(took);
    }

    /// Adds a run of another seed.
    pub fn add(&mut self, other: &Self) {
        self.away += other.away;
        self.floor_there += other.floor_there;
        self.possible += other.possible;
        self.there_when_possible += other.there_when_possible;
        self.shares.extend(&other.shares);
        self.lasted += other.lasted;
        self.looks.0 += other.looks.0;
        self.looks.1 += other.looks.1;
        self.relights.extend(&other.relights);
        let (all, one) = (&mut self.figures, &other.figures);
        all.inputs += one.inputs;
        all.dials += one.dials;
        all.sought += one.sought;
        all.lapses += one.lapses;
        all.relights += one.relights;
        all.relit_peers += one.relit_peers;
        all.personas += one.personas;
        all.most_dials_an_hour = all.most_dials_an_hour.max(one.most_dials_an_hour);
        all.most_dialing = all.most_dialing.max(one.most_dialing);
        self.frames += other.frames;
        self.messages.0 += other.messages.0;
        self.messages.1 += other.messages.1;
        self.refused += other.refused;
        self.links += other.links;
    }

    /// A line or two for people.
    pub fn text(&self) -> String {
        let mut took = self.relights.clone();
        took.sort_unstable();
        let median = took.get(took.len() / 2).copied().unwrap_or_default();
        let worst = took.last().copied().unwrap_or_default();
        let peer_hours = self.scale.peers as f64 * self.lasted.as_secs_f64() / 3600.0;
        let figures = &self.figures;
        let mut text = format!(
            "away {:.1} % in {} lapses; floor there {:.2} % of that, and {:.2} % of the {:.1} % in which it could be; {} personas; {} dials, {:.2} per peer and hour, {} at most, {} of them before a wait was over; \
             {} at once at most; {} relights of {} peers, those who were there back after {median:.1?} (median), {worst:.1?} (worst); \
             {} inputs",
            share(self.away, self.lasted),
            figures.lapses,
            share(self.floor_there, self.away),
            share(self.there_when_possible, self.possible),
            share(self.possible, self.away),
            figures.personas,
            figures.dials,
            figures.dials as f64 / peer_hours.max(1e-9),
            figures.most_dials_an_hour,
            figures.sought,
            figures.most_dialing,
            figures.relights,
            figures.relit_peers,
            figures.inputs,
        );
        if self.shares.len() > 1 {
            let mut shares = self.shares.clone();
            shares.sort_unstable_by(f64::total_cmp);
            let _ = write!(
                text,
                "; of the seeds, the floor was there when it could be for {:.2} % at least, {:.2} % in the median",
                shares[0],
                shares[shares.len() / 2]
            );
        }
        if self.links > 0 {
            let (out, arrived) = self.messages;
            let _ = write!(
                text,
                "; seen from both ends the floor was there at {:.2} % of the looks; {} links, {} frames; {out} messages to peers and {arrived} from them, none lost, repeated or out of order; {} refused",
                100.0 * self.looks.1 as f64 / (self.looks.0 as f64).max(1.0),
                self.links,
                self.frames,
                self.refused
            );
        }
        text
    }

    pub fn relights(&self) -> usize {
        self.relights.len()
    }
}

fn share(part: Duration, whole: Duration) -> f64 {
    100.0 * part.as_secs_f64() / whole.as_secs_f64().max(1e-9)
}
