//! Ours is dialled, by a peer that does everything as it should but what the input says.

use super::bolt8::{self, Initiator, Responder};
use super::feed::Feed;
use super::pair::{node_id, ours};
use super::talk::talk;
use super::twist::{Twist, overwrite};
use pilotlight::brontide::{AwaitActOne, HandshakeError, Role};
use pilotlight::error::Culprit;

/// Four keys; whom the peer thinks it dials; how act one is twisted; whose key the signer answers with; what act three says that the
/// peer's key is; how act three is twisted; then messages.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let [s, e, rs, re] = [(); 4].map(|()| bolt8::secret(feed.u8()));
    let dialled = match feed.u8() {
        0 => rs,
        other => bolt8::secret(other),
    };
    let (caller, honest) = Initiator::dial(s, e, &bolt8::public(&dialled));
    let act_one = Twist::read(&mut feed).apply(&honest);
    let liar = match feed.u8() {
        0 => rs,
        other => bolt8::secret(other),
    };

    let us = AwaitActOne::new(ours(&rs).node_id(), ours(&re));
    let mut judge = Responder::misled(&bolt8::public(&rs), liar, re);
    let expected = judge.act_one(&act_one);
    let us = match us.act_one(&act_one) {
        // Length, version and point are all that can be seen without the signer.
        Err(refused) => return same(refused, expected.expect_err("ours refuses"), 1),
        Ok(us) => us,
    };
    let point = us.request().point;
    assert_eq!(point.as_bytes()[..], act_one[1..34]);
    let us = us.resume(ours(&liar).ecdh(&point));
    let (us, act_two) = match (us, expected) {
        (Ok((us, act_two)), Ok(expected)) => {
            assert_eq!(act_two, expected, "act two is not BOLT 8's");
            (us, act_two)
        }
        (Err(refused), expected) => return same(refused, expected.expect_err("ours refuses"), 1),
        (Ok(_), Err(expected)) => panic!("act one is {expected:?}, and ours takes it"),
    };

    if act_one != honest {
        // Another caller's act one, right in itself, its tag copied (libFuzzer sees what it is compared with): this caller cannot go on with
        // it.
        return;
    }
    assert_eq!(liar, rs, "a wrong answer of the signer goes unnoticed");
    assert_eq!(dialled, rs, "who was not dialled answers");
    let mut caller = caller;
    caller.act_two(&act_two).expect("act two fits act one");
    let mut claimed = bolt8::public(&s).serialize();
    overwrite(&mut claimed, feed.bytes());
    let (honest, peer) = caller.act_three_saying(&claimed);
    let act_three = Twist::read(&mut feed).apply(&honest);
    match (us.act_three(&act_three), judge.act_three(&act_three)) {
        (Ok(us), Ok((remote, _))) => {
            assert_eq!(us.remote(), node_id(&remote));
            assert_eq!(us.local(), ours(&rs).node_id());
            if act_three != honest {
                // A copied tag again: right in itself, and not this caller's.
                return;
            }
            assert_eq!(
                (us.role(), us.remote().as_bytes()),
                (Role::Responder, &claimed)
            );
            assert_eq!(remote, bolt8::public(&s), "who it says that it is not");
            talk(us.into_session(), peer, &mut feed);
        }
        (Err(refused), Err(expected)) => same(refused, expected, 3),
        (Ok(_), Err(expected)) => panic!("act three is {expected:?}, and ours takes it"),
        (Err(refused), Ok(_)) => panic!("act three is right, and ours says {refused}"),
    }
}

/// The same refusal, blamed on the peer.
pub fn same(refused: HandshakeError, expected: bolt8::Refusal, act: u8) {
    assert_eq!(refused.label(), expected.word(act));
    assert_eq!(refused.culprit(), Culprit::Peer);
    assert!(refused.rule().starts_with("BOLT 8 § Act ") && refused.to_string().contains("act"));
    let _ = refused.retry();
}
