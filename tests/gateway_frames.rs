//! Floods of HTTP/2 frames at the gateway's door, and what they cost in memory: alone in its process, so that what is measured is
//! theirs. Real TLS on loopback.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "support/dialer.rs"]
mod dialer;

use dialer::*;
use pilotlight::signer::{EcdhCall, Epoch, Purpose};
use tokio::io::AsyncWriteExt;

/// The signer of epoch 1 is live and works.
async fn serves(house: &House, signer: &mut Dialer) {
    let asking = tokio::spawn({
        let context = house.context.clone();
        async move {
            let call = EcdhCall::new(key(9).point(), Purpose::ChannelDial);
            context.ecdh(call).await.map(|_| ())
        }
    });
    let (id, point) = signer.hear_ecdh().await;
    signer.say(&shared_key(id, 7, point));
    assert_eq!(soon("an answer", asking).await.unwrap(), Ok(()));
    assert_eq!(house.context.state().live().map(Epoch::get), Some(1));
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Frames without end, of kinds that HTTP/2 servers were brought down with, from somebody who reads nothing: the connection is
/// closed, the memory stays, and the attached signer does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn p9_floods_of_http2_frames_are_cut_off() {
    const SETTINGS: u8 = 4;
    let house = House::open().await;
    let mut signer = house.attached().await;
    let header = b"\x00\x01a\x01b".repeat(3000);
    let floods: [(&str, Vec<u8>, Vec<u8>); 4] = [
        ("PING", Vec::new(), frame(6, 0, 0, &[7; 8]).repeat(1000)),
        (
            "SETTINGS",
            Vec::new(),
            frame(SETTINGS, 0, 0, &[]).repeat(1000),
        ),
        (
            "CONTINUATION",
            frame(1, 0, 1, b"\x82"),
            frame(9, 0, 1, &header),
        ),
        ("RST_STREAM", Vec::new(), Vec::new()),
    ];
    let before = resident();
    for (name, opening, repeated) in floods {
        let mut socket = tls(house.address(), &house.certificate, "127.0.0.1", &[b"h2"])
            .await
            .unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = frame(SETTINGS, 0, 0, &[]);
        socket
            .write_all(&[&preface[..], &settings, &opening].concat())
            .await
            .unwrap();
        let mut stream = 1;
        let flood = async {
            loop {
                let chunk = if repeated.is_empty() {
                    let mut chunk = Vec::new();
                    for _ in 0..100 {
                        chunk.extend(frame(1, 5, stream, b"\x82\x84\x87"));
                        chunk.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
                        stream += 2;
                    }
                    chunk
                } else {
                    repeated.clone()
                };
                if socket.write_all(&chunk).await.is_err() || socket.flush().await.is_err() {
                    return;
                }
            }
        };
        soon(name, flood).await;
    }
    let grown = resident().saturating_sub(before);
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < 64 << 20, "{grown} bytes");
    serves(&house, &mut signer).await;
}
