//! Any split of a stream, any change of it: what arrives is what was sent, up to the first changed byte, and nothing after it.

use super::{feed::Feed, pair};
use bytes::BytesMut;
use pilotlight::brontide::{FRAME_OVERHEAD, HEADER_LEN, Session, SessionError};
use pilotlight::error::{Culprit, Retry};
use std::collections::VecDeque;

/// Bytes in one run: what matters happens at borders, not in the length.
const MOST: usize = 200_000;

/// What is under way from one end to the other.
struct Flight {
    from: Session,
    to: Session,
    /// Sent and not received: where its frame ends in the stream, and the message.
    messages: VecDeque<(usize, Vec<u8>)>,
    wire: BytesMut,
    inbox: BytesMut,
    sent: usize,
    delivered: usize,
    /// Where the first changed byte is in the stream.
    damaged: Option<usize>,
    ended: Option<SessionError>,
}

/// Ops: 0 a message of a length, 1 some bytes arrive, 2 a bit in flight is changed, 3 both ends rest.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let (from, to) = pair::of_ours();
    let mut flight = Flight {
        from,
        to,
        messages: VecDeque::new(),
        wire: BytesMut::new(),
        inbox: BytesMut::new(),
        sent: 0,
        delivered: 0,
        damaged: None,
        ended: None,
    };
    while !feed.is_empty() && flight.sent < MOST {
        match feed.below(4) {
            0 => {
                let length = feed.u16();
                flight.send(usize::from(length), feed.u8());
            }
            1 => flight.arrive(usize::from(feed.u16())),
            2 => flight.damage(usize::from(feed.u16()), feed.u8()),
            _ => {
                flight.from.rest();
                flight.to.rest();
            }
        }
    }
    flight.arrive(usize::MAX);
    assert_eq!(
        flight.ended.is_some(),
        flight.damaged.is_some(),
        "a changed byte ends the session, and nothing else does"
    );
    assert!(flight.ended.is_some() || flight.messages.is_empty() && flight.inbox.is_empty());
    flight.wiped();
}

impl Flight {
    /// Whatever was, nothing goes either way any more, and it is nobody else's fault.
    fn wiped(mut self) {
        let mut out = BytesMut::new();
        let long = vec![0; 65_536];
        let refused = self.from.seal(&long, &mut out).unwrap_err();
        assert_eq!(refused, SessionError::TooLong { length: 65_536 });
        assert!(
            out.is_empty() && !self.from.is_failed(),
            "it goes on after a message of ours that is too long"
        );
        self.from.wipe();
        let wiped = SessionError::Wiped;
        assert_eq!(self.from.seal(b"", &mut out), Err(wiped));
        assert_eq!(self.from.open(&mut self.inbox), Err(wiped));
        assert_eq!(self.from.needed(0), 0);
        for error in [refused, wiped] {
            assert_eq!(
                (error.culprit(), error.retry()),
                (Culprit::Us, Retry::Never)
            );
            assert!(!error.rule().is_empty() && !error.label().is_empty());
        }
    }

    fn send(&mut self, length: usize, byte: u8) {
        let message = vec![byte; length];
        let before = self.wire.len();
        self.from.seal(&message, &mut self.wire).unwrap();
        let frame = self.wire.len() - before;
        assert_eq!(frame, length + FRAME_OVERHEAD);
        self.sent += frame;
        self.messages.push_back((self.sent, message));
    }

    fn damage(&mut self, at: usize, bit: u8) {
        let Some(offset) = at.checked_rem(self.wire.len()) else {
            return;
        };
        // Once only: a second change might undo the first.
        if self.damaged.is_none() {
            self.wire[offset] ^= 1 << (bit % 8);
            self.damaged = Some(self.delivered + offset);
        }
    }

    fn arrive(&mut self, bytes: usize) {
        let some = self.wire.split_to(bytes.min(self.wire.len()));
        self.delivered += some.len();
        self.inbox.extend_from_slice(&some);
        if let Some(why) = self.ended {
            return self.is_over(why);
        }
        loop {
            let before = self.inbox.len();
            let missing = self.to.needed(before);
            match self.to.open(&mut self.inbox) {
                Ok(Some(message)) => {
                    let (end, sent) = self.messages.pop_front().expect("never more than sent");
                    assert!(message == sent, "a message came out changed");
                    assert!(missing == 0 && self.damaged.is_none_or(|at| at >= end));
                }
                Ok(None) => {
                    // A whole header may have been taken off although the body is missing.
                    assert!(missing > 0 || self.inbox.len() == before - HEADER_LEN);
                    assert!(self.to.needed(self.inbox.len()) > 0);
                    return;
                }
                Err(why) => return self.ends(why),
            }
        }
    }

    /// The error names the part of the frame that was changed, and the frame is the right one.
    fn ends(&mut self, why: SessionError) {
        let damaged = self.damaged.expect("an honest stream is refused");
        let (end, message) = self.messages.front().expect("a frame that was sent");
        let start = end - message.len() - FRAME_OVERHEAD;
        assert!(start <= damaged && damaged < *end, "refused elsewhere");
        let expected = if damaged < start + HEADER_LEN {
            SessionError::HeaderTag
        } else {
            SessionError::BodyTag
        };
        assert_eq!(why, expected);
        self.ended = Some(why);
        self.is_over(why);
    }

    /// The same answer to everything, and no byte taken or given.
    fn is_over(&mut self, why: SessionError) {
        assert_eq!((why.culprit(), why.retry()), (Culprit::Peer, Retry::Never));
        assert!(why.rule().starts_with("BOLT 8") && why.label().starts_with("bad_"));
        let (before, mut out) = (self.inbox.len(), BytesMut::new());
        assert_eq!(self.to.open(&mut self.inbox), Err(why));
        assert_eq!(self.to.seal(b"after", &mut out), Err(why));
        assert!(out.is_empty() && self.inbox.len() == before && self.to.is_failed());
    }
}
