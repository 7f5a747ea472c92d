//! What a message costs: ours through a [`Session`], the same library's two bare AEAD calls on the same bytes, and LDK's `PeerManager`
//! from `process_events` to the socket and from `read_event` to the handler. In processor time of the thread.

use std::hint::black_box;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use bytes::{Bytes, BytesMut};
use pilotlight::brontide::{FRAME_OVERHEAD, Session};

use crate::Effort;
use crate::child::thread_time;
use crate::handshake::sessions;
use crate::ldk::{Pair, Pipe, SINK, Whole};
use crate::report::{Report, Row, Target};

const SIZES: [usize; 7] = [2, 32, 138, 430, 1_400, 16_384, 65_535];
/// What `lightning-net-tokio` reads at a time.
const LDK_READ: usize = 4096;
/// Turns in a round: enough that each contestant sees the machine's moods.
const TURNS: usize = 12;

/// Nanoseconds a message, each contestant's for each turn.
#[derive(Default)]
struct Figures {
    ours: Vec<f64>,
    floor: Vec<f64>,
    ldk: Vec<f64>,
}

impl Figures {
    fn sum(&self, other: &Self) -> Self {
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect();
        Self {
            ours: sum(&self.ours, &other.ours),
            floor: sum(&self.floor, &other.floor),
            ldk: sum(&self.ldk, &other.ldk),
        }
    }

    fn row(self, what: String, target: Target) -> Row {
        Row::new("messages", what, "ns")
            .ours(self.ours)
            .floor(self.floor)
            .ldk(self.ldk)
            .target(target)
    }
}

pub(crate) fn measure(effort: Effort, report: &mut Report) {
    for size in SIZES {
        let (mut seal, mut open) = (Figures::default(), Figures::default());
        let mut contest = Contest::new(size, effort);
        for _ in 0..effort.rounds * effort.or(TURNS, 1) {
            contest.turn(&mut seal, &mut open);
        }
        let both = seal.sum(&open);
        let against_ldk = match size {
            2 => Target::Better(1.3),
            138 => Target::Better(1.8),
            430 => Target::Better(2.2),
            65_535 => Target::Better(4.0),
            _ => Target::None,
        };
        report.add(&seal.row(format!("encrypt, {size} B"), Target::None));
        report.add(&open.row(format!("decrypt, {size} B"), Target::None));
        if size == 430 {
            let floor = both.sum(&Figures::default_like(&both));
            report.add(&floor.row(
                format!("encrypt and decrypt, {size} B, over the floor"),
                Target::Floor(1.15),
            ));
        }
        report.add(&both.row(format!("encrypt and decrypt, {size} B"), against_ldk));
    }
}

impl Figures {
    /// Zeros, as many as the other has.
    fn default_like(other: &Self) -> Self {
        let zeros = |of: &[f64]| vec![0.0; of.len()];
        Self {
            ours: zeros(&other.ours),
            floor: zeros(&other.floor),
            ldk: zeros(&other.ldk),
        }
    }
}

/// Everything that takes turns at one size.
struct Contest {
    message: Bytes,
    /// Messages in a turn.
    batch: usize,
    ours: (Session, Session),
    floor: (Bare, Bare),
    ldk: Pair,
    pipes: (Pipe, Pipe),
    wire: BytesMut,
    flat: Vec<u8>,
}

impl Contest {
    fn new(size: usize, effort: Effort) -> Self {
        let mut message = vec![7; size];
        message[..2].copy_from_slice(&SINK.to_be_bytes());
        // About a millisecond of LDK's time, and no more than a cache holds.
        let batch = effort.or((1 << 20) / (size + 200), 8).clamp(8, 512);
        let mut ldk = Pair::new();
        let (mut a, mut b) = ldk.shake();
        ldk.introduce(&mut a, &mut b);
        Self {
            message: message.into(),
            batch,
            ours: sessions(),
            floor: (Bare::new(), Bare::new()),
            ldk,
            pipes: (a, b),
            wire: BytesMut::with_capacity(batch * (size + FRAME_OVERHEAD)),
            flat: vec![0; batch * (size + FRAME_OVERHEAD)],
        }
    }

    fn nanos(&self, since: f64) -> f64 {
        (thread_time() - since) * 1e9 / self.batch as f64
    }

    fn turn(&mut self, seal: &mut Figures, open: &mut Figures) {
        self.turn_ours(seal, open);
        self.turn_floor(seal, open);
        self.turn_ldk(seal, open);
    }

    fn turn_ours(&mut self, seal: &mut Figures, open: &mut Figures) {
        self.wire.clear();
        self.wire.reserve(self.flat.len());
        let start = thread_time();
        for _ in 0..self.batch {
            let message = black_box(&self.message);
            self.ours.0.seal(message, &mut self.wire).unwrap();
        }
        seal.ours.push(self.nanos(start));
        let start = thread_time();
        for _ in 0..self.batch {
            black_box(self.ours.1.open(&mut self.wire).unwrap().unwrap());
        }
        open.ours.push(self.nanos(start));
    }

    fn turn_floor(&mut self, seal: &mut Figures, open: &mut Figures) {
        let frame = self.message.len() + FRAME_OVERHEAD;
        let start = thread_time();
        for frame in self.flat.chunks_mut(frame) {
            self.floor.0.seal(black_box(&self.message), frame);
        }
        seal.floor.push(self.nanos(start));
        let start = thread_time();
        for frame in self.flat.chunks_mut(frame) {
            self.floor.1.open(black_box(frame));
        }
        open.floor.push(self.nanos(start));
    }

    fn turn_ldk(&mut self, seal: &mut Figures, open: &mut Figures) {
        let messages = |batch: usize, bob, message: &Bytes| {
            (0..batch)
                .map(|_| (bob, Whole(SINK, message.clone())))
                .collect::<Vec<_>>()
        };
        let (alice, bob) = (&self.ldk.alice, &self.ldk.bob);
        *alice.messages.outgoing.lock().unwrap() = messages(self.batch, bob.id, &self.message);
        let start = thread_time();
        alice.manager.process_events();
        seal.ldk.push(self.nanos(start));
        let wire = self.pipes.0.take();
        assert!(wire.len() >= self.flat.len());
        let start = thread_time();
        for piece in wire.chunks(LDK_READ) {
            bob.manager.read_event(&mut self.pipes.1, piece).unwrap();
        }
        open.ldk.push(self.nanos(start));
        bob.manager.process_events();
    }
}

/// The two AEAD calls of a message, and nothing else: no framing, no rotation, no latch.
struct Bare {
    key: LessSafeKey,
    nonce: u64,
}

impl Bare {
    fn new() -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).unwrap();
        Self {
            key: LessSafeKey::new(key),
            nonce: 0,
        }
    }

    fn next(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
        self.nonce += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, message: &[u8], out: &mut [u8]) {
        let (header, body) = out.split_at_mut(18);
        header[..2].copy_from_slice(&(message.len() as u16).to_be_bytes());
        body[..message.len()].copy_from_slice(message);
        for part in [header, body] {
            let (nonce, (data, tag)) = (self.next(), part.split_at_mut(part.len() - 16));
            let sealed = self
                .key
                .seal_in_place_separate_tag(nonce, Aad::empty(), data);
            tag.copy_from_slice(sealed.unwrap().as_ref());
        }
    }

    fn open(&mut self, frame: &mut [u8]) {
        let (header, body) = frame.split_at_mut(18);
        for part in [header, body] {
            let nonce = self.next();
            self.key.open_in_place(nonce, Aad::empty(), part).unwrap();
        }
    }
}
