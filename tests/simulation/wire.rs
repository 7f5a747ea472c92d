//! A simulated connection: two pipes that delay and never lose, as TCP does, and a counting fake for BOLT 8: each frame carries the
//! number that its sender's cipher would have, and whoever receives it compares that with his own.

use pilotlight::clock::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes that the kernels take before a writer must wait.
const WINDOW: usize = 64 * 1024;

/// What travels.
#[derive(Debug)]
pub enum Packet {
    /// `forged`: it would not authenticate.
    Frame {
        number: u64,
        forged: bool,
        bytes: Vec<u8>,
    },
    Fin,
    Rst,
}

impl Packet {
    fn len(&self) -> usize {
        match self {
            Self::Frame { bytes, .. } => bytes.len() + 34,
            Self::Fin | Self::Rst => 0,
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub struct Pipe {
    queue: VecDeque<(Moment, Packet)>,
    bytes: usize,
    /// Frames sealed by the one end, and opened by the other.
    sealed: u64,
    pub opened: u64,
    last: Moment,
    /// Its next arrival is on the agenda.
    pub armed: bool,
    /// The writer waits for room.
    pub blocked: bool,
}

impl Pipe {
    pub fn is_full(&self) -> bool {
        self.bytes >= WINDOW
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Seals a message and puts it on its way.
    pub fn seal(&mut self, due: Moment, bytes: Vec<u8>, forged: bool) {
        let number = self.sealed;
        self.sealed += 1;
        self.push(
            due,
            Packet::Frame {
                number,
                forged,
                bytes,
            },
        );
    }

    /// Nothing overtakes what left before it.
    pub fn push(&mut self, due: Moment, packet: Packet) {
        self.last = self.last.max(due);
        self.bytes += packet.len();
        self.queue.push_back((self.last, packet));
    }

    /// When the next packet is there.
    pub fn due(&self) -> Option<Moment> {
        self.queue.front().map(|(due, _)| *due)
    }

    pub fn pop(&mut self, now: Moment) -> Option<Packet> {
        self.due().filter(|due| *due <= now)?;
        let (_, packet) = self.queue.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    /// The end that would read has gone.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
    }
}

/// The far end of a link.
#[derive(Debug, Default)]
pub struct Far {
    /// It has sent its `init`.
    pub began: bool,
    /// It has had ours.
    pub is_up: bool,
    /// It does not answer any more.
    pub mute: bool,
    /// Messages of the node's that it has received, those that our firewall refused included.
    pub heard: u64,
    /// Numbers the messages to the node.
    pub said: u64,
    /// Lengths of the pongs that it waits for.
    pub pongs: VecDeque<u16>,
    /// The link was made by its own dial.
    pub dialled: bool,
}

/// A connection. It outlives the link on either end.
#[derive(Debug)]
pub struct Wire {
    pub peer: usize,
    pub persona: bool,
    pub trip: Duration,
    /// From us, and to us.
    pub out: Pipe,
    pub back: Pipe,
    pub ours_open: bool,
    pub far_open: bool,
    pub far: Far,
    /// The peer takes its time to read.
    pub slow: bool,
    /// Sequence numbers of messages that were refused after they had been queued.
    pub refused: VecDeque<u64>,
}

impl Wire {
    pub fn new(peer: usize, persona: bool, trip: Duration, dialled: bool, slow: bool) -> Self {
        Self {
            peer,
            persona,
            trip,
            out: Pipe::default(),
            back: Pipe::default(),
            ours_open: true,
            far_open: true,
            far: Far {
                dialled,
                ..Far::default()
            },
            slow,
            refused: VecDeque::new(),
        }
    }

    pub fn is_over(&self) -> bool {
        !self.ours_open && (!self.far_open || self.out.is_empty())
    }
}
