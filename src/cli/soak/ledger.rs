//! What is written down during a soak: breaches of promises, and of each link what came and went on it.

use crate::link::{LinkHandle, LinkId};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// `channel_update` in type and size: gossip.
pub(super) const GOSSIP: u16 = 258;
/// `revoke_and_ack` in type: a channel message.
pub(super) const CHANNEL: u16 = 133;
/// Bytes of a numbered message's body: those of a `channel_update`.
const BODY: usize = 136;

/// A message of that type with a number in it.
pub(super) fn numbered(kind: u16, number: u64) -> Vec<u8> {
    let mut message = kind.to_be_bytes().to_vec();
    message.extend_from_slice(&number.to_be_bytes());
    message.resize(2 + BODY, 0);
    message
}

/// The number in it.
pub(super) fn number_of(message: &[u8]) -> Option<u64> {
    let (_, rest) = message.split_first_chunk::<2>()?;
    Some(u64::from_be_bytes(*rest.first_chunk()?))
}

/// A record whose writer has panicked is as good as it was.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often each promise was broken, and how for the first time.
#[derive(Default)]
pub(super) struct Breaches(Mutex<BTreeMap<&'static str, (u64, String)>>);

impl Breaches {
    pub(super) fn add(&self, promise: &'static str, how: &str) {
        let mut all = lock(&self.0);
        let entry = all.entry(promise).or_insert_with(|| (0, how.to_owned()));
        entry.0 = entry.0.saturating_add(1);
    }

    /// Breaks the promise unless it holds.
    pub(super) fn check(&self, promise: &'static str, holds: bool, how: impl FnOnce() -> String) {
        if !holds {
            self.add(promise, &how());
        }
    }

    pub(super) fn count(&self) -> u64 {
        lock(&self.0).values().map(|(times, _)| times).sum()
    }

    /// Promise, times, and how it was broken first.
    pub(super) fn all(&self) -> Vec<(&'static str, u64, String)> {
        let all = lock(&self.0);
        all.iter()
            .map(|(promise, (times, how))| (*promise, *times, how.clone()))
            .collect()
    }
}

/// One live link.
pub(super) struct Entry {
    pub(super) handle: LinkHandle,
    pub(super) bears_channel: bool,
    /// The last number that came, and the last that went.
    pub(super) heard: u64,
    pub(super) said: u64,
}

/// The live links, and the lapse that must have silenced those with channels.
#[derive(Default)]
pub(super) struct Links {
    pub(super) live: HashMap<LinkId, Entry>,
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    /// When the newest lapse had returned.
    pub(super) fenced_at: Option<Instant>,
}

impl Links {
    /// A message has come, in a call of `recv` that was polled last at `began`.
    pub(super) fn take(
        &mut self,
        link: LinkId,
        message: &[u8],
        began: Instant,
        breaches: &Breaches,
    ) {
        let Some(entry) = self.live.get_mut(&link) else {
            breaches.add("P2", "a message of a link that is not there");
            return;
        };
        let kind = message.first_chunk().map(|kind| u16::from_be_bytes(*kind));
        if kind != Some(GOSSIP) && kind != Some(CHANNEL) {
            return;
        }
        self.messages_in = self.messages_in.saturating_add(1);
        entry.heard = entry.heard.saturating_add(1);
        breaches.check("P2", number_of(message) == Some(entry.heard), || {
            "the node missed a message, or had one twice".to_owned()
        });
        let late = entry.bears_channel && self.fenced_at.is_some_and(|at| began > at);
        breaches.check("P1", !late, || {
            "a channel message was delivered after the lapse".to_owned()
        });
    }

    /// The node says something on each live link.
    pub(super) fn say_on_all(&mut self) {
        for entry in self.live.values_mut() {
            let kind = if entry.bears_channel { CHANNEL } else { GOSSIP };
            let message = numbered(kind, entry.said.saturating_add(1));
            // A full queue and a link that ends are told to who sends; the number is then used for the next.
            if let Ok(queued) = entry.handle.try_send(message) {
                drop(queued);
                entry.said = entry.said.saturating_add(1);
                self.messages_out = self.messages_out.saturating_add(1);
            }
        }
    }

    /// What each channel link has written.
    pub(super) fn written(&self) -> Vec<(LinkHandle, u64)> {
        let channels = self.live.values().filter(|entry| entry.bears_channel);
        channels
            .map(|entry| (entry.handle.clone(), entry.handle.bytes_written()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_message_has_its_number_and_the_size_of_an_update() {
        let message = numbered(GOSSIP, 7);
        assert_eq!((message.len(), number_of(&message)), (138, Some(7)));
        assert_eq!(number_of(&[1, 2, 3]), None);
    }

    #[test]
    fn breaches_are_counted_by_promise_and_the_first_is_told() {
        let breaches = Breaches::default();
        breaches.check("P1", true, || "never".to_owned());
        breaches.check("P7", false, || "first".to_owned());
        breaches.add("P7", "second");
        assert_eq!(breaches.count(), 2);
        assert_eq!(breaches.all(), [("P7", 2, "first".to_owned())]);
    }
}
