//! How a peer has stood over time: a list of turns, and what it looks like in columns. It never reads a clock.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::VecDeque;

/// Turns that are kept of one peer: its last half-hundred comings and goings, which is more than a row of a terminal tells apart. 16 bytes
/// each.
const TURNS: usize = 64;

/// How a peer stands. Later ones are worse, and what is worst in a column is what the column shows: an outage of a second must not
/// vanish because the column is a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Not seen yet.
    Unknown,
    /// A link under the node's own identity.
    Up,
    /// A link under a persona.
    Persona,
    /// Nothing is under way, and nothing is to be.
    Idle,
    /// A dial is under way or next.
    Dialing,
    /// It waits for the signer.
    Held,
    /// It has failed, or its link has ended.
    Down,
}

impl Standing {
    /// Of a peer as `/v1/peers` has it.
    pub(super) fn of(state: &str, identity: Option<&str>) -> Self {
        match (state, identity) {
            ("up", Some("persona")) => Self::Persona,
            ("up", _) => Self::Up,
            ("dialing" | "awaited", _) => Self::Dialing,
            ("held" | "parked", _) => Self::Held,
            ("backoff", _) => Self::Down,
            ("idle" | "not_dialable", _) => Self::Idle,
            _ => Self::Unknown,
        }
    }
}

/// The turns of one peer, in order. Times are Unix seconds of the daemon's clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Lane {
    turns: VecDeque<(f64, Standing)>,
}

impl Lane {
    /// From `at` on it stood like this. What happened earlier may be told later.
    pub(super) fn turn(&mut self, at: f64, standing: Standing) {
        let place = self.turns.partition_point(|(then, _)| *then <= at);
        let before = place.checked_sub(1).and_then(|last| self.turns.get(last));
        if before.is_some_and(|(_, before)| *before == standing) {
            return;
        }
        self.turns.insert(place, (at, standing));
        if self.turns.len() > TURNS {
            self.turns.pop_front();
        }
    }

    /// When it last turned.
    pub(super) fn changed(&self) -> Option<f64> {
        self.turns.back().map(|(at, _)| *at)
    }

    /// How it stands by the last turn.
    pub(super) fn last(&self) -> Standing {
        self.turns
            .back()
            .map_or(Standing::Unknown, |(_, standing)| *standing)
    }

    /// The worst that it was from `from` until before `until`.
    fn worst(&self, from: f64, until: f64) -> Standing {
        let after = self.turns.partition_point(|(at, _)| *at <= from);
        let entered = after
            .checked_sub(1)
            .and_then(|last| self.turns.get(last))
            .map_or(Standing::Unknown, |(_, standing)| *standing);
        let within = self.turns.iter().skip(after);
        let within = within.take_while(|(at, _)| *at < until);
        within
            .map(|(_, standing)| *standing)
            .fold(entered, Ord::max)
    }

    /// What it was in each column of `window`, the oldest first.
    pub(super) fn columns(&self, window: &Window) -> Vec<Standing> {
        (0..window.columns)
            .map(|column| {
                let (from, until) = window.span(column);
                self.worst(from, until.min(window.now))
            })
            .collect()
    }
}

/// A stretch of time in columns of `step` seconds, of which the last has `now` in it. Columns begin at whole steps, so that the
/// picture moves on by whole columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) now: f64,
    pub(super) step: u32,
    pub(super) columns: usize,
}

impl Window {
    /// From when until when that column is.
    #[allow(
        clippy::cast_precision_loss,
        reason = "columns are as many as a terminal has"
    )]
    fn span(&self, column: usize) -> (f64, f64) {
        let step = f64::from(self.step.max(1));
        let end = ((self.now / step).floor() + 1.0) * step;
        let from = end - step * (self.columns.saturating_sub(column)) as f64;
        (from, from + step)
    }

    /// In which column that moment is.
    pub(super) fn column(&self, at: f64) -> Option<usize> {
        (0..self.columns).find(|column| {
            let (from, until) = self.span(*column);
            from <= at && at < until
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Down, Held, Persona, Unknown, Up};

    fn window(now: f64, columns: usize) -> Window {
        Window {
            now,
            step: 10,
            columns,
        }
    }

    #[test]
    fn a_column_shows_the_worst_that_was_in_it() {
        let mut lane = Lane::default();
        lane.turn(100.0, Up);
        lane.turn(121.0, Down);
        lane.turn(121.5, Up);
        lane.turn(135.0, Persona);
        assert_eq!(
            lane.columns(&window(139.0, 5)),
            [Unknown, Up, Up, Down, Persona]
        );
        assert_eq!((lane.last(), lane.changed()), (Persona, Some(135.0)));
    }

    #[test]
    fn a_column_does_not_know_what_comes_after_now() {
        let mut lane = Lane::default();
        lane.turn(100.0, Up);
        lane.turn(108.0, Held);
        assert_eq!(lane.columns(&window(105.0, 1)), [Up]);
        assert_eq!(lane.columns(&window(109.0, 1)), [Held]);
    }

    #[test]
    fn what_is_told_late_takes_its_place() {
        let mut lane = Lane::default();
        lane.turn(130.0, Up);
        lane.turn(110.0, Up);
        lane.turn(120.0, Held);
        assert_eq!(
            lane.columns(&window(139.0, 4)),
            [Unknown, Up, Held, Up],
            "{lane:?}"
        );
    }

    #[test]
    fn a_lane_is_bounded_and_keeps_the_newest() {
        let mut lane = Lane::default();
        for turn in 0..1000_u32 {
            let standing = if turn % 2 == 0 { Up } else { Down };
            lane.turn(f64::from(turn), standing);
        }
        assert_eq!((lane.turns.len(), lane.changed()), (TURNS, Some(999.0)));
    }

    #[test]
    fn a_moment_is_in_the_column_that_shows_it() {
        let window = window(139.0, 3);
        assert_eq!(window.column(109.0), None);
        assert_eq!(window.column(110.0), Some(0));
        assert_eq!(window.column(129.9), Some(1));
        assert_eq!(window.column(139.5), Some(2));
        assert_eq!(window.column(140.0), None);
    }

    #[test]
    fn states_of_the_daemon_are_known() {
        for state in crate::supervisor::PeerState::ALL {
            assert_ne!(Standing::of(state.as_str(), None), Unknown, "{state:?}");
        }
        assert_eq!(Standing::of("up", Some("persona")), Persona);
        assert_eq!(Standing::of("up", Some("node")), Up);
    }
}
