//! What stands before a signer's stream, as plain models: the seat, who is held off, how often a source may ask. Called by
//! [`signer_stream`](super::signer_stream).

use super::feed::Feed;
use pilotlight::clock::Moment;
use pilotlight::limits;
use pilotlight::signer::gateway::budget::Sources;
use pilotlight::signer::gateway::seat::{Candidate, HoldOffs, Seat, StreamId, Verdict};
use std::net::IpAddr;
use std::time::Duration;

/// One of them.
pub fn knock(feed: &mut Feed<'_>) {
    match feed.below(3) {
        0 => seat(feed),
        1 => hold_offs(feed),
        _ => sources(feed),
    }
}

pub fn source(feed: &mut Feed<'_>) -> IpAddr {
    let byte = feed.u8();
    if byte & 1 == 1 {
        [192, 0, 2, byte].into()
    } else {
        [0x2001, 0xdb8, u16::from(byte), 0, 0, 0, 0, 1].into()
    }
}

/// Whoever is told to attach holds the seat, and nobody else does.
fn seat(feed: &mut Feed<'_>) {
    let (mut seat, mut now) = (Seat::new(), Moment::START);
    let mut contested: Option<(StreamId, StreamId)> = None;
    for _ in 0..feed.below(40) {
        now = now.after(Duration::from_secs(u64::from(feed.u8())));
        let (op, stream) = (feed.below(4), StreamId(u64::from(feed.u8() % 4)));
        let before = seat.holder();
        let verdict = match op {
            0 => Some(seat.contend(now, stream, [feed.u8() % 2; 32])),
            1 => seat.alive(stream),
            2 => seat.dead(now, stream).map(Verdict::Attach),
            _ => seat.left(stream),
        };
        match verdict {
            Some(Verdict::Attach(id)) => assert_eq!(seat.holder(), Some(id)),
            Some(Verdict::Challenge(id)) => {
                assert!(before == Some(id) && seat.holder() == Some(id) && contested.is_none());
                contested = Some((id, stream));
            }
            Some(Verdict::Refuse(id, refusal)) => {
                assert!(seat.holder() != Some(id) && !refusal.as_str().is_empty());
            }
            None => assert!(op > 0, "who contends hears a verdict"),
        }
        if let Some((incumbent, newcomer)) = contested {
            let over = op > 0 && (stream == incumbent || (stream == newcomer && op == 3));
            assert!(
                over || seat.holder() == Some(incumbent),
                "the incumbent lost its seat unheard"
            );
            contested = contested.filter(|_| !over);
        }
    }
}

/// 1, 2, 4 … 60 s, forgiven by a proof; as many as there may be, and no more.
fn hold_offs(feed: &mut Feed<'_>) {
    let (mut holds, mut now) = (HoldOffs::new(), Moment::START);
    for _ in 0..feed.below(60) {
        now = now.after(Duration::from_secs(u64::from(feed.u8())));
        let candidate = Candidate {
            macaroon: [feed.u8() % 2; 32],
            source: source(feed),
            claim: None,
        };
        if feed.flag() {
            let wait = holds.failed(now, candidate);
            assert!(wait >= limits::HOLD_OFF_FIRST && wait <= limits::HOLD_OFF_MAX);
            assert_eq!(holds.remaining(now, &candidate), Some(wait));
            assert_eq!(holds.remaining(now.after(wait), &candidate), None);
        } else {
            holds.passed(&candidate);
            assert_eq!(holds.remaining(now, &candidate), None);
        }
        assert!(holds.len() <= limits::HOLD_OFFS);
    }
}

/// A burst for each source, and then one in each interval: never more, whatever the order.
fn sources(feed: &mut Feed<'_>) {
    let (mut sources, mut now) = (Sources::new(), Moment::START);
    let ip = source(feed);
    let mut taken = 0_u32;
    for _ in 0..feed.below(200) {
        now = now.after(Duration::from_millis(u64::from(feed.u8()) * 4));
        let has = sources.has(now, ip);
        let other = source(feed);
        let whose = if feed.flag() { ip } else { other };
        let may = sources.take(now, whose);
        if whose == ip {
            assert_eq!(may.is_ok(), has, "what it has it may take");
            taken += u32::from(may.is_ok());
        }
        if let Err(throttle) = may {
            assert!(!throttle.as_str().is_empty());
        }
        let elapsed = now.since_start().as_nanos() / limits::ECDH_SOURCE_INTERVAL.as_nanos();
        assert!(u128::from(taken) <= elapsed + u128::from(limits::ECDH_SOURCE_BURST) + 1);
        assert!(sources.len() <= limits::ECDH_SOURCES && !sources.is_empty());
    }
}
