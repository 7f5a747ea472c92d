//! BOLT 8 against its floor: a handshake with both sides in one thread, and messages through a [`Session`] beside the bare two AEAD calls
//! of the same library on the same bytes, in one run, so that the ratio can be read whatever the machine is doing.
//!
//! `cargo bench --bench brontide`; one group with `-- seal/430`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

#[path = "peers/shake.rs"]
mod shake;

use shake::{key, shake};
use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pilotlight::brontide::FRAME_OVERHEAD;

/// Empty, a short control message, a `channel_update`, an average gossip message, a large one, the largest TLS record, the largest message.
const SIZES: [usize; 7] = [2, 32, 138, 430, 1_400, 16_384, 65_535];
/// Frames opened in a row: enough that making the input is not what is measured, few enough that it fits the cache.
const FRAMES: usize = 16;

/// Both ephemeral keys, both sides' three ECDHs, both static keys' included.
fn handshakes(c: &mut Criterion) {
    let (alice, bob) = (key(1), key(2));
    let mut group = c.benchmark_group("handshake");
    group.bench_function("both_sides", |b| b.iter(|| shake(&alice, &bob)));
    // What no implementation can do without: 2 keys made, 6 ECDHs, and the points decoded (act one, act two, act three, the dialled id).
    let (one, two) = (alice.point(), bob.point());
    group.bench_function("floor_curve", |b| {
        b.iter(|| {
            let (e, f) = (key(3), key(4));
            for (local, point) in [
                (&e, &two),
                (&bob, &one),
                (&f, &one),
                (&e, &one),
                (&alice, &one),
                (&f, &one),
            ] {
                drop(black_box(local.ecdh(black_box(point))));
            }
            for _ in 0..4 {
                black_box(pilotlight::node_id::Point::parse(black_box(one.as_bytes())).unwrap());
            }
        });
    });
    group.finish();
}

fn sealing(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    for size in SIZES {
        let message = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        let (mut session, _) = shake(&key(1), &key(2));
        let mut out = BytesMut::with_capacity(size + FRAME_OVERHEAD);
        group.bench_function(BenchmarkId::new("session", size), |b| {
            b.iter(|| {
                out.clear();
                session.seal(black_box(&message), &mut out).unwrap();
            });
        });
        let mut out = vec![0; size + FRAME_OVERHEAD];
        let mut floor = floor::Aead::new();
        group.bench_function(BenchmarkId::new("floor", size), |b| {
            b.iter(|| floor.seal(black_box(&message), &mut out));
        });
        // The same, with the key object made anew for each message: what not keeping it would cost.
        let mut out = BytesMut::with_capacity(size + FRAME_OVERHEAD);
        group.bench_function(BenchmarkId::new("session_rested", size), |b| {
            b.iter(|| {
                out.clear();
                session.rest();
                session.seal(black_box(&message), &mut out).unwrap();
            });
        });
    }
    group.finish();
}

fn opening(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    for size in SIZES {
        let message = vec![7; size];
        group.throughput(Throughput::Bytes((size * FRAMES) as u64));
        let (mut sender, mut receiver) = shake(&key(1), &key(2));
        group.bench_function(BenchmarkId::new("session", size), |b| {
            b.iter_batched_ref(
                || {
                    let mut wire = BytesMut::with_capacity(FRAMES * (size + FRAME_OVERHEAD));
                    for _ in 0..FRAMES {
                        sender.seal(&message, &mut wire).unwrap();
                    }
                    wire
                },
                |wire| {
                    for _ in 0..FRAMES {
                        black_box(receiver.open(wire).unwrap().unwrap());
                    }
                },
                BatchSize::NumIterations(1),
            );
        });
        let mut floor = floor::Aead::new();
        let mut frames = vec![0; FRAMES * (size + FRAME_OVERHEAD)];
        let mut first = 0;
        group.bench_function(BenchmarkId::new("floor", size), |b| {
            b.iter_batched_ref(
                || {
                    first = floor.nonce;
                    for frame in frames.chunks_mut(size + FRAME_OVERHEAD) {
                        floor.seal(&message, frame);
                    }
                    (floor::Aead::at(first), frames.clone())
                },
                |(floor, frames)| {
                    for frame in frames.chunks_mut(size + FRAME_OVERHEAD) {
                        floor.open(frame);
                    }
                },
                BatchSize::NumIterations(1),
            );
        });
    }
    group.finish();
}

/// The two AEAD calls of a message, and nothing else: no framing, no rotation, no latch.
#[cfg(feature = "aead-aws-lc")]
mod floor {
    use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    pub(super) struct Aead {
        key: LessSafeKey,
        pub(super) nonce: u64,
    }

    impl Aead {
        pub(super) fn new() -> Self {
            Self::at(0)
        }

        pub(super) fn at(nonce: u64) -> Self {
            let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).unwrap();
            Self {
                key: LessSafeKey::new(key),
                nonce,
            }
        }

        fn next(&mut self) -> Nonce {
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
            self.nonce += 1;
            Nonce::assume_unique_for_key(nonce)
        }

        pub(super) fn seal(&mut self, message: &[u8], out: &mut [u8]) {
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

        pub(super) fn open(&mut self, frame: &mut [u8]) {
            let (header, body) = frame.split_at_mut(18);
            for part in [header, body] {
                let nonce = self.next();
                self.key.open_in_place(nonce, Aad::empty(), part).unwrap();
            }
        }
    }
}

#[cfg(not(feature = "aead-aws-lc"))]
mod floor {
    use chacha20poly1305::{
        ChaCha20Poly1305, KeyInit as _,
        aead::{AeadInOut as _, Nonce},
    };

    pub(super) struct Aead {
        key: ChaCha20Poly1305,
        pub(super) nonce: u64,
    }

    impl Aead {
        pub(super) fn new() -> Self {
            Self::at(0)
        }

        pub(super) fn at(nonce: u64) -> Self {
            Self {
                key: ChaCha20Poly1305::new(&[7; 32].into()),
                nonce,
            }
        }

        fn next(&mut self) -> Nonce<ChaCha20Poly1305> {
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
            self.nonce += 1;
            nonce.into()
        }

        pub(super) fn seal(&mut self, message: &[u8], out: &mut [u8]) {
            let (header, body) = out.split_at_mut(18);
            header[..2].copy_from_slice(&(message.len() as u16).to_be_bytes());
            body[..message.len()].copy_from_slice(message);
            for part in [header, body] {
                let (nonce, (data, tag)) = (self.next(), part.split_at_mut(part.len() - 16));
                let sealed = self.key.encrypt_inout_detached(&nonce, &[], data.into());
                tag.copy_from_slice(&sealed.unwrap());
            }
        }

        pub(super) fn open(&mut self, frame: &mut [u8]) {
            let (header, body) = frame.split_at_mut(18);
            for part in [header, body] {
                let (nonce, (data, tag)) = (self.next(), part.split_at_mut(part.len() - 16));
                let tag = (&*tag).try_into().unwrap();
                self.key
                    .decrypt_inout_detached(&nonce, &[], data.into(), &tag)
                    .unwrap();
            }
        }
    }
}

criterion_group!(benches, handshakes, sealing, opening);
criterion_main!(benches);
