//! Both directions of a link against the restatement of BOLT 8, through rotations that nothing aligns.
//!
//! The restatement's cipher is the slow part by far, and a key holds for five hundred messages: so it says every byte of some bursts, and
//! of the others only how many there were. Those go from one end of ours to the other.

use super::{bolt8::Transport, feed::Feed, pair};
use bytes::BytesMut;
use pilotlight::brontide::{MESSAGES_PER_KEY, Session};
use std::collections::VecDeque;
use std::sync::LazyLock;

/// Messages in one run, and how many of them are restated at the most: some rotations, in some milliseconds.
const MOST: u64 = 4000;
const RESTATED: u16 = 300;

/// The restatement's end of the link, facing ours, when the handshake is over.
static FAR: LazyLock<Transport> = LazyLock::new(|| pair::with_judge().1);

/// Bursts: of up to 600 messages of a length, by us (1) or by the peer (0), and restated (0) or only counted (2); read at once (0) or with
/// a later burst (1).
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    // They have the keys that `with_judge` has.
    let (us, peer) = pair::of_ours();
    let mut link = Link {
        out: Way::new(us, FAR.mirrored()),
        back: Way::new(peer, FAR.clone()),
        restated: 0,
    };
    while !feed.is_empty() && link.out.sent + link.back.sent < MOST {
        let (how, later) = (feed.u8(), feed.flag());
        let (many, length) = (feed.u16() % 601, usize::from(feed.u8()));
        link.send(how & 1 == 1, how & 2 == 0, many, length);
        if !later {
            link.read();
        }
    }
    link.read();
    let sent = (link.out.sent, link.back.sent);
    assert_eq!((link.out.from.sent(), link.out.from.received()), sent);
    let rotations = (sent.0 / MESSAGES_PER_KEY, sent.1 / MESSAGES_PER_KEY);
    assert_eq!(link.out.from.rotations(), rotations);
}

/// One direction: who speaks, what it must say byte for byte, and what is under way.
struct Way {
    from: Session,
    judge: Transport,
    messages: VecDeque<Vec<u8>>,
    stream: BytesMut,
    sent: u64,
}

struct Link {
    out: Way,
    back: Way,
    restated: u16,
}

impl Link {
    fn send(&mut self, by_us: bool, restated: bool, many: u16, length: usize) {
        let way = if by_us { &mut self.out } else { &mut self.back };
        for turn in 0..many {
            let [_, byte] = turn.to_be_bytes();
            let restated = restated && self.restated < RESTATED;
            self.restated += u16::from(restated);
            way.send(vec![byte; length], restated);
        }
    }

    fn read(&mut self) {
        let (ours, theirs) = (&mut self.out, &mut self.back);
        reads(&mut theirs.from, &mut ours.stream, &mut ours.messages);
        reads(&mut ours.from, &mut theirs.stream, &mut theirs.messages);
    }
}

impl Way {
    fn new(from: Session, judge: Transport) -> Self {
        Self {
            from,
            judge,
            messages: VecDeque::new(),
            stream: BytesMut::new(),
            sent: 0,
        }
    }

    fn send(&mut self, message: Vec<u8>, restated: bool) {
        let before = self.stream.len();
        self.from.seal(&message, &mut self.stream).unwrap();
        if restated {
            let frame = self.judge.seal(&message);
            assert!(
                self.stream[before..] == frame,
                "frame {} differs",
                self.sent
            );
        } else {
            self.judge.pass_over(1);
        }
        self.messages.push_back(message);
        self.sent += 1;
    }
}

/// All that was sent arrives, as it was sent.
fn reads(to: &mut Session, stream: &mut BytesMut, messages: &mut VecDeque<Vec<u8>>) {
    while let Some(message) = to.open(stream).expect("ours refuses") {
        assert_eq!(Some(&message[..]), messages.pop_front().as_deref());
    }
    assert!(stream.is_empty() && messages.is_empty());
}
