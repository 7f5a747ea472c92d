//! Both directions of a link against the restatement of BOLT 8, through rotations that nothing aligns.

use super::{bolt8::Transport, feed::Feed, pair};
use bytes::BytesMut;
use pilotlight::brontide::{MESSAGES_PER_KEY, Session};
use std::collections::VecDeque;

/// Messages in one run: a rotation or two each way, which is some milliseconds' work.
const MOST: u64 = 2500;

/// Bursts: of up to 600 messages of a length, by us (1) or by the peer (0), read at once (0) or with a later burst (1).
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let (us, peer) = pair::with_judge();
    let mut link = Link {
        us,
        judge: peer.mirrored(),
        peer,
        out: Way::default(),
        back: Way::default(),
    };
    while !feed.is_empty() && link.out.sent + link.back.sent < MOST {
        let (by_us, later) = (feed.flag(), feed.flag());
        let (many, length) = (feed.u16() % 601, usize::from(feed.u8()));
        for turn in 0..many {
            let [_, byte] = turn.to_be_bytes();
            link.send(by_us, vec![byte; length]);
        }
        if !later {
            link.read();
        }
    }
    link.read();
    assert!(link.out.messages.is_empty() && link.back.messages.is_empty());
    let sent = (link.out.sent, link.back.sent);
    assert_eq!((link.us.sent(), link.us.received()), sent);
    let rotations = (sent.0 / MESSAGES_PER_KEY, sent.1 / MESSAGES_PER_KEY);
    assert_eq!(link.us.rotations(), rotations);
}

/// One direction: what is under way.
#[derive(Default)]
struct Way {
    messages: VecDeque<Vec<u8>>,
    stream: BytesMut,
    sent: u64,
}

struct Link {
    us: Session,
    /// What ours must give, byte for byte.
    judge: Transport,
    peer: Transport,
    out: Way,
    back: Way,
}

impl Link {
    fn send(&mut self, by_us: bool, message: Vec<u8>) {
        let way = if by_us { &mut self.out } else { &mut self.back };
        if by_us {
            let before = way.stream.len();
            self.us.seal(&message, &mut way.stream).unwrap();
            let frame = self.judge.seal(&message);
            assert!(way.stream[before..] == frame, "frame {} differs", way.sent);
        } else {
            way.stream.extend_from_slice(&self.peer.seal(&message));
        }
        way.messages.push_back(message);
        way.sent += 1;
    }

    fn read(&mut self) {
        let mut stream = &self.out.stream[..];
        while let Some(message) = self.peer.open(&mut stream).expect("ours is refused") {
            assert_eq!(Some(message), self.out.messages.pop_front());
        }
        assert!(stream.is_empty());
        self.out.stream.clear();
        while let Some(message) = self.us.open(&mut self.back.stream).expect("ours refuses") {
            assert_eq!(Some(message.to_vec()), self.back.messages.pop_front());
        }
        assert!(self.back.stream.is_empty());
    }
}
