//! Which refusals of signers are said in the log: strangers must not fill it, and an operator whose signer is locked out must find it.
//!
//! It never looks at a clock: the moment is an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Between two lines for the same reason.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// A signer, or whoever dialled as one, was turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// When, as time since the Unix epoch.
    pub at: Duration,
    /// From where it dialled.
    pub address: SocketAddr,
    /// Why: a label.
    pub reason: &'static str,
    /// The same in words.
    pub detail: String,
}

/// What has been said of refusals, and the last of them. As large as the list of reasons.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    said: BTreeMap<&'static str, Said>,
    last: Option<Refusal>,
}

#[derive(Debug)]
struct Said {
    at: Duration,
    unsaid: u64,
}

impl Refusals {
    /// Takes note of one. `Some`: it is to be said, and so many of its reason were not said since the last that was.
    pub(super) fn note(&mut self, refusal: Refusal) -> Option<u64> {
        let (at, reason) = (refusal.at, refusal.reason);
        self.last = Some(refusal);
        let Some(said) = self.said.get_mut(reason) else {
            self.said.insert(reason, Said { at, unsaid: 0 });
            return Some(0);
        };
        // A clock that is set back must not silence it.
        if at.abs_diff(said.at) < SAY_AGAIN {
            said.unsaid = said.unsaid.saturating_add(1);
            return None;
        }
        said.at = at;
        Some(std::mem::take(&mut said.unsaid))
    }

    pub(super) fn last(&self) -> Option<Refusal> {
        self.last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_said_at_once_and_then_once_a_minute_with_a_count() {
        let mut refusals = Refusals::default();
        let mut note = |at: u64, reason| {
            refusals.note(Refusal {
                at: Duration::from_secs(at),
                address: ([127, 0, 0, 1], 1).into(),
                reason,
                detail: String::new(),
            })
        };
        assert_eq!(note(1000, "a"), Some(0));
        assert_eq!(note(1001, "b"), Some(0));
        assert_eq!(note(1001, "a"), None);
        assert_eq!(note(1059, "a"), None);
        assert_eq!(note(1060, "a"), Some(2));
        assert_eq!(note(1061, "a"), None);
        assert_eq!(note(10, "a"), Some(1), "the clock was set back");
        assert_eq!(refusals.last().map(|last| last.at.as_secs()), Some(10));
    }
}
