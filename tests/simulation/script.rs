//! What is drawn from the seed before anything happens: when the signer is there, which parts of the network are cut off when, and
//! how each peer behaves.

use fastrand::Rng;
use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::link::Tag;
use std::time::Duration;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// A duration between two, each order of magnitude as likely as the next.
pub fn between(random: &mut Rng, least: Duration, most: Duration) -> Duration {
    let (low, high) = (least.as_secs_f64().ln(), most.as_secs_f64().ln());
    Duration::from_secs_f64((low + (high - low) * random.f64()).exp())
}

/// A duration up to `most`, evenly.
pub fn up_to(random: &mut Rng, most: Duration) -> Duration {
    Duration::from_nanos(random.u64(0..=u64::try_from(most.as_nanos()).unwrap()))
}

/// When the signer comes (`true`) and goes, until `end`: absent for some 40 % of the time, in bouts of a few milliseconds, of seconds,
/// minutes, hours, and, if there is time for it, days.
pub fn signer(random: &mut Rng, end: Duration) -> Vec<(Moment, bool)> {
    const MILLI: Duration = Duration::from_millis(1);
    let bouts = [
        (MILLI, SECOND / 2, 3..20),
        (SECOND, MINUTE, 2..12),
        (MINUTE, HOUR / 2, 1..6),
        (HOUR / 2, 6 * HOUR, 1..3),
        (6 * HOUR, DAY, 1..2),
        (DAY, 4 * DAY, 1..2),
    ];
    let possible = bouts.iter().filter(|(_, most, _)| *most * 4 <= end).count();
    let mut turns = Vec::new();
    // Half of the runs start without a signer, for a while.
    let mut at = if random.bool() {
        Duration::ZERO
    } else {
        between(random, MILLI, HOUR)
    };
    while at < end {
        let (least, most, times) = bouts[random.usize(..possible)].clone();
        for _ in 0..random.usize(times) {
            turns.push((Moment::from_start(at), true));
            at += between(random, least, most) * 3 / 2;
            turns.push((Moment::from_start(at), false));
            at += between(random, least, most);
        }
    }
    turns.retain(|(at, _)| at.since_start() < end);
    turns
}

/// A time in which some of the peers cannot be reached.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub from: Moment,
    pub to: Moment,
    /// Of 100 peers, so many are cut off.
    percent: u64,
    salt: u64,
}

impl Cut {
    pub fn hits(&self, peer: usize) -> bool {
        mix(self.salt ^ peer as u64) % 100 < self.percent
    }
}

/// Some partitions a day; few of them are of everybody.
pub fn cuts(random: &mut Rng, end: Duration) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let mut at = between(random, MINUTE, DAY);
    while at < end {
        let lasts = between(random, SECOND, HOUR);
        cuts.push(Cut {
            from: Moment::from_start(at),
            to: Moment::from_start(at + lasts),
            percent: [5, 20, 50, 90, 100][random.usize(..5)],
            salt: random.u64(..),
        });
        at += lasts + between(random, HOUR / 4, DAY);
    }
    cuts
}

/// Whether a peer is cut off.
pub fn is_cut(cuts: &[Cut], peer: usize, now: Moment) -> bool {
    let begun = cuts.partition_point(|cut| cut.from <= now);
    cuts[..begun]
        .last()
        .is_some_and(|cut| now < cut.to && cut.hits(peer))
}

/// Spreads the bits of a number.
pub fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// How a peer answers when it is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    Honest,
    /// It is never there: connections are refused at once, or not answered at all.
    Gone {
        refuses: bool,
    },
    /// Somebody else answers at the first of its addresses, or at all of them.
    Elsewhere {
        everywhere: bool,
    },
    /// It accepts, and says nothing.
    Tarpit,
    /// Its handshake is good, and its `init` never comes.
    NoInit,
    /// It does what no peer should.
    Hostile,
}

/// What a peer is.
#[derive(Debug, Clone, Copy)]
pub struct Temper {
    pub tag: Tag,
    /// The node wants a link with it.
    pub wanted: bool,
    pub manners: Manners,
    /// How many addresses the node knows.
    pub addresses: usize,
    pub round_trip: Duration,
    /// It goes and comes back so often; `None`: it is always there.
    pub cycle: Option<Duration>,
    phase: Duration,
    /// Of 100 parts of a cycle it is there in so many.
    percent: u32,
    /// It vanishes without a word, so that links stay half open.
    pub silent: bool,
    /// It dials us whenever it is there and has no link.
    pub dials: bool,
}

impl Temper {
    /// Of 100 peers that would come and go within minutes or hours, `restless` do; the others stay. In a small network all do. In a month of
    /// ten thousand peers as many as that would only repeat themselves, some forty million times.
    pub fn draw(random: &mut Rng, restless: u32) -> Self {
        let manners = match random.u8(..100) {
            0..70 => Manners::Honest,
            70..77 => Manners::Gone {
                refuses: random.bool(),
            },
            77..82 => Manners::Elsewhere {
                everywhere: random.bool(),
            },
            82..86 => Manners::Tarpit,
            86..89 => Manners::NoInit,
            _ => Manners::Hostile,
        };
        let cycle = match random.u8(..10) {
            0..6 => None,
            6 => Some(between(random, 10 * SECOND, MINUTE * 5)),
            7 | 8 => Some(between(random, MINUTE * 5, 2 * HOUR)),
            _ => Some(between(random, 2 * HOUR, DAY)),
        };
        let cycle = cycle
            .filter(|cycle| *cycle >= 2 * HOUR || restless >= 100 || random.u32(..100) < restless);
        Self {
            tag: if random.u8(..10) < 3 {
                Tag::ChannelBearing
            } else {
                Tag::GossipOnly
            },
            wanted: random.u8(..20) > 0,
            manners,
            addresses: random.usize(1..=3),
            round_trip: between(random, Duration::from_millis(1), Duration::from_millis(600)),
            phase: cycle.map_or(Duration::ZERO, |cycle| up_to(random, cycle)),
            cycle,
            percent: random.u32(20..95),
            silent: random.bool(),
            dials: random.u8(..3) == 0,
        }
    }

    /// Whether it is there, for its own part, and until when that stays so.
    pub fn is_there(&self, now: Moment) -> (bool, Moment) {
        let Some(cycle) = self.cycle else {
            return (true, Moment::from_start(Duration::MAX));
        };
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap();
        let (period, up) = (nanos(cycle), nanos(cycle * self.percent / 100));
        let at = nanos(now.since_start() + self.phase) % period;
        let left = if at < up { up - at } else { period - at };
        (at < up, now.after(Duration::from_nanos(left)))
    }

    /// Since when it is there, if it is.
    pub fn since(&self, now: Moment) -> Moment {
        let Some(cycle) = self.cycle else {
            return Moment::START;
        };
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap();
        let gone = nanos(now.since_start() + self.phase) % nanos(cycle);
        let at = nanos(now.since_start()).saturating_sub(gone);
        Moment::from_start(Duration::from_nanos(at))
    }
}

/// What becomes of a connection to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Refused,
    /// Nobody answers at all.
    Lost,
    /// Somebody else answers.
    WrongKey,
    /// It is accepted, and then nothing comes.
    Silent,
    Answered,
}

impl Temper {
    /// What becomes of a dial to one of its addresses, if it is there or not.
    pub fn fate(&self, nth: usize, reachable: bool) -> Fate {
        match self.manners {
            Manners::Gone { refuses: true } => Fate::Refused,
            Manners::Gone { refuses: false } => Fate::Lost,
            _ if !reachable && self.silent => Fate::Lost,
            _ if !reachable => Fate::Refused,
            Manners::Elsewhere { everywhere } if nth == 0 || everywhere => Fate::WrongKey,
            Manners::Tarpit => Fate::Silent,
            _ => Fate::Answered,
        }
    }
}

/// Since when a peer is there, answers and lets us in; `None` if it does not.
pub fn ready_since(temper: &Temper, cuts: &[Cut], peer: usize, now: Moment) -> Option<Moment> {
    let (there, until) = temper.is_there(now);
    // Not whom the next dial would miss.
    if temper.manners != Manners::Honest || !there || until.since(now) < 5 * SECOND {
        return None;
    }
    let mut since = temper.since(now);
    // One follows the other, so the last that has hit it counts.
    let begun = cuts.partition_point(|cut| cut.from <= now);
    if let Some(cut) = cuts[..begun].iter().rev().find(|cut| cut.hits(peer)) {
        if now < cut.to {
            return None;
        }
        since = since.max(cut.to);
    }
    // A dial that began before may have to run out of time first.
    Some(since.after(limits::CONNECT_DEADLINE))
}
