//! How the peers are looked at: order, filter, place; and what the keys do to that. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::lane::Standing;
use super::model::{Model, Peer};
use std::cmp::Ordering;

/// The longest filter, in characters: more than a node id has.
const FILTER: usize = 80;

/// Seconds that a column of the history may stand for.
const STEPS: [u32; 8] = [1, 2, 5, 10, 30, 60, 300, 1800];

/// A key, whatever the terminal calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    /// Ctrl-C.
    Interrupt,
    Char(char),
}

/// By what the peers are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Order {
    /// What is worst first, and among equals those with channels.
    #[default]
    Trouble,
    Id,
    Tag,
    Identity,
    Since,
    In,
    Out,
    Gossip,
}

impl Order {
    /// Every one of them, in the order in which a key goes through them.
    pub(super) const ALL: [Self; 8] = [
        Self::Trouble,
        Self::Id,
        Self::Tag,
        Self::Identity,
        Self::Since,
        Self::In,
        Self::Out,
        Self::Gossip,
    ];

    /// As the foot of the screen names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Id => "id",
            Self::Tag => "tag",
            Self::Identity => "identity",
            Self::Since => "up for",
            Self::In => "in",
            Self::Out => "out",
            Self::Gossip => "gossip",
        }
    }

    fn next(self) -> Self {
        let place = Self::ALL.iter().position(|order| *order == self);
        let next = place.map_or(0, |place| place.saturating_add(1));
        Self::ALL.get(next).copied().unwrap_or_default()
    }

    /// What matters most first.
    fn compare(self, a: &Peer, b: &Peer) -> Ordering {
        // None is the last.
        let newest = |a: Option<f64>, b: Option<f64>| {
            b.unwrap_or(f64::NEG_INFINITY)
                .total_cmp(&a.unwrap_or(f64::NEG_INFINITY))
        };
        match self {
            Self::Trouble => trouble(b)
                .cmp(&trouble(a))
                .then(b.is_channel_bearing().cmp(&a.is_channel_bearing()))
                .then(b.weight.cmp(&a.weight)),
            Self::Id => Ordering::Equal,
            Self::Tag => a.tag.cmp(&b.tag),
            Self::Identity => b.identity.cmp(&a.identity),
            Self::Since => newest(a.since, b.since),
            Self::In => b.frames_in.cmp(&a.frames_in),
            Self::Out => b.frames_out.cmp(&a.frames_out),
            Self::Gossip => newest(a.last_gossip_at, b.last_gossip_at),
        }
        .then_with(|| a.id.cmp(&b.id))
    }
}

/// How bad it is: a peer that nobody wants is no trouble.
fn trouble(peer: &Peer) -> Standing {
    match peer.standing() {
        Standing::Idle => Standing::Unknown,
        standing => standing,
    }
}

/// How the peers are looked at.
#[derive(Debug, Clone)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, on a key of its own"
)]
pub(super) struct Look {
    pub(super) order: Order,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// Keys go into the filter.
    pub(super) editing: bool,
    /// Who is picked out, by id: the order may change around it.
    pub(super) selected: Option<String>,
    /// The first row that is shown, and how many there are; set by what draws.
    pub(super) top: usize,
    pub(super) page: usize,
    step: usize,
    pub(super) help: bool,
    /// More of who is picked out.
    pub(super) detail: bool,
    pub(super) all_events: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            order: Order::default(),
            reversed: false,
            filter: String::new(),
            editing: false,
            selected: None,
            top: 0,
            page: 1,
            step: 3,
            help: false,
            detail: false,
            all_events: false,
        }
    }
}

impl Look {
    /// Seconds that a column of the history stands for.
    pub(super) fn step(&self) -> u32 {
        STEPS.get(self.step).copied().unwrap_or(1)
    }

    /// Those that are looked at, in order.
    pub(super) fn rows<'a>(&self, peers: &'a [Peer]) -> Vec<&'a Peer> {
        let rows = self.order_of(peers).into_iter();
        rows.filter_map(|place| peers.get(place)).collect()
    }

    /// The places in `peers` of those that are looked at, in order.
    fn order_of(&self, peers: &[Peer]) -> Vec<usize> {
        let wanted = self.filter.to_lowercase();
        let words: Vec<&str> = wanted.split_whitespace().collect();
        let mut rows: Vec<(usize, &Peer)> = peers
            .iter()
            .enumerate()
            .filter(|(_, peer)| words.iter().all(|word| matches(peer, word)))
            .collect();
        rows.sort_by(|(_, a), (_, b)| {
            let order = self.order.compare(a, b);
            if self.reversed {
                order.reverse()
            } else {
                order
            }
        });
        rows.into_iter().map(|(place, _)| place).collect()
    }

    fn key(&mut self, key: Key) {
        match key {
            Key::Char('s') => self.order = self.order.next(),
            Key::Char('r') => self.reversed = !self.reversed,
            Key::Char('e') => self.all_events = !self.all_events,
            Key::Char('/') => self.editing = true,
            Key::Char('?' | 'h') => self.help = true,
            Key::Char('+' | '=') => self.step = self.step.saturating_sub(1),
            Key::Char('-') => self.step = self.step.saturating_add(1).min(STEPS.len() - 1),
            Key::Enter => self.detail = self.selected.is_some(),
            Key::Escape if !self.filter.is_empty() => self.filter.clear(),
            Key::Escape => self.selected = None,
            _ => {}
        }
    }

    fn edit(&mut self, key: Key) {
        match key {
            Key::Char(letter) if self.filter.chars().count() < FILTER => self.filter.push(letter),
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.editing = false,
            Key::Escape => {
                self.filter.clear();
                self.editing = false;
            }
            _ => {}
        }
    }
}

fn matches(peer: &Peer, word: &str) -> bool {
    let identity = peer.identity.as_deref().unwrap_or_default();
    let direction = peer.direction.as_deref().unwrap_or_default();
    [&peer.id, &peer.addr, &peer.tag, &peer.state]
        .into_iter()
        .map(String::as_str)
        .chain([identity, direction])
        .any(|text| text.contains(word))
}

impl Model {
    /// Sorts and filters the peers anew. Not at each drawing: ten thousand take their time.
    pub(super) fn arrange(&mut self) {
        self.arranged = self.look.order_of(&self.peers);
    }

    /// Does what a key asks for. `false`: to leave.
    pub(super) fn key(&mut self, key: Key) -> bool {
        let look = &self.look;
        let before = (look.order, look.reversed, look.filter.clone());
        let goes_on = self.obey(key);
        let look = &self.look;
        if before != (look.order, look.reversed, look.filter.clone()) {
            self.arrange();
        }
        goes_on
    }

    fn obey(&mut self, key: Key) -> bool {
        let look = &mut self.look;
        match key {
            Key::Interrupt => return false,
            _ if look.help => look.help = false,
            _ if look.editing => look.edit(key),
            Key::Char('q') => return false,
            Key::Enter | Key::Escape if look.detail => look.detail = false,
            Key::Up | Key::Char('k') => {
                self.select(|here, _| here.map_or(0, |here| here.saturating_sub(1)));
            }
            Key::Down | Key::Char('j') => {
                self.select(|here, _| here.map_or(0, |here| here.saturating_add(1)));
            }
            Key::PageUp => self.select(|here, page| here.unwrap_or(0).saturating_sub(page)),
            Key::PageDown => self.select(|here, page| here.unwrap_or(0).saturating_add(page)),
            Key::Home => self.select(|_, _| 0),
            Key::End => self.select(|_, _| usize::MAX),
            key => look.key(key),
        }
        true
    }

    /// Picks out the row that `place` makes of the present one and of the rows of a page.
    fn select(&mut self, place: impl FnOnce(Option<usize>, usize) -> usize) {
        let rows = self.rows();
        let here = self.look.selected.as_ref();
        let here = here.and_then(|id| rows.iter().position(|peer| peer.id == *id));
        let there = place(here, self.look.page).min(rows.len().saturating_sub(1));
        self.look.selected = rows.get(there).map(|peer| peer.id.clone());
    }

    /// Brings who is picked out into a list of `page` rows.
    pub(super) fn scroll(&mut self, page: usize) {
        let rows = self.rows();
        let selected = self.look.selected.as_ref();
        let place = selected.and_then(|id| rows.iter().position(|peer| peer.id == *id));
        let last = rows.len().saturating_sub(page);
        let mut top = self.look.top.min(last);
        if let Some(place) = place {
            top = top
                .min(place)
                .max(place.saturating_add(1).saturating_sub(page));
        }
        (self.look.top, self.look.page) = (top, page.max(1));
    }
}
