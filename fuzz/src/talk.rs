//! A session of ours against the restatement's, once the handshake is over: the peer is honest until it is not.

use super::bolt8::{Broken, Transport};
use super::feed::Feed;
use bytes::BytesMut;
use pilotlight::brontide::{Session, SessionError};

/// Messages in one run: what counts here is that the keys are the right ones.
const MOST: usize = 16;

/// Ops: 0 the peer encrypts a plaintext of the input's, 1 we do; 2 what is left of the input comes as it is, encrypted by nobody.
pub fn talk(mut us: Session, mut peer: Transport, feed: &mut Feed<'_>) {
    for _ in 0..MOST {
        let op = feed.below(3);
        let message = match op {
            0 | 1 => feed.bytes(),
            _ => break,
        };
        if op == 0 {
            let mut frame = BytesMut::from(&peer.seal(message)[..]);
            let opened = us.open(&mut frame).expect("an honest frame is refused");
            assert_eq!(opened.as_deref(), Some(message));
        } else {
            let mut frame = BytesMut::new();
            let expected = peer.mirrored().seal(message);
            us.seal(message, &mut frame).unwrap();
            assert!(frame == expected, "our frame is not BOLT 8's");
            let opened = peer.open(&mut &frame[..]).expect("our frame is refused");
            assert_eq!(opened.as_deref(), Some(message));
        }
    }
    // How the peer would judge the same bytes if they came to it with our keys.
    let mut judge = peer.mirrored();
    let noise = feed.rest();
    let (mut left, mut inbox) = (noise, BytesMut::from(noise));
    let verdict = judge.open(&mut left);
    let ours = us.open(&mut inbox);
    assert_eq!(us.is_failed(), verdict.is_err());
    match verdict {
        Ok(message) => assert_eq!(ours.unwrap().map(|ours| ours.to_vec()), message),
        Err(Broken::Header) => assert_eq!(ours, Err(SessionError::HeaderTag)),
        Err(Broken::Body) => assert_eq!(ours, Err(SessionError::BodyTag)),
    }
}
