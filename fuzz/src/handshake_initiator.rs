//! Ours dials, and who answers does everything as it should but what the input says.

use super::bolt8::{self, Initiator, Responder};
use super::feed::Feed;
use super::handshake_responder::same;
use super::pair::{node_id, ours};
use super::talk::talk;
use super::twist::Twist;
use pilotlight::brontide::{InitiatorStart, Role};

/// Four keys; who answers; how act two is twisted; whose key the signer answers with; then messages.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let [s, e, rs, re] = [(); 4].map(|()| bolt8::secret(feed.u8()));
    let dialled = bolt8::public(&rs);
    let (us, act_one) =
        InitiatorStart::new(ours(&s).node_id(), node_id(&dialled), ours(&e)).unwrap();
    let (mut judge, expected) = Initiator::dial(s, e, &dialled);
    assert_eq!(act_one, expected, "act one is not BOLT 8's");

    // Who holds another key than the dialled one cannot open act one, and can but make something up.
    let answers = match feed.u8() {
        0 => rs,
        other => bolt8::secret(other),
    };
    let mut callee = Responder::new(answers, re);
    let honest = callee.act_one(&act_one).unwrap_or([0; 50]);
    let act_two = Twist::read(&mut feed).apply(&honest);
    let us = match (us.act_two(&act_two), judge.act_two(&act_two)) {
        (Ok(us), Ok(())) => us,
        (Err(refused), Err(expected)) => return same(refused, expected, 2),
        (Ok(_), Err(expected)) => panic!("act two is {expected:?}, and ours takes it"),
        (Err(refused), Ok(())) => panic!("act two is right, and ours says {refused}"),
    };
    if act_two != honest {
        // libFuzzer sees what a tag is compared with and can copy it: right in itself, and this callee cannot go on with it.
        return;
    }
    assert_eq!(answers, rs, "an answer by who does not hold the key");

    let point = us.request().point;
    assert_eq!(point.as_bytes()[..], act_two[1..34]);
    let signs = match feed.u8() {
        0 => s,
        other => bolt8::secret(other),
    };
    let (act_three, us) = us.resume(ours(&signs).ecdh(&point)).unwrap();
    let received = callee.act_three(&act_three);
    if signs != s {
        // Nothing shows on this side; the other refuses.
        return assert_eq!(received.err(), Some(bolt8::Refusal::Tag));
    }
    let (expected, _) = judge.act_three();
    assert_eq!(act_three, expected, "act three is not BOLT 8's");
    let (caller, peer) = received.expect("our act three is refused");
    assert_eq!(caller, bolt8::public(&s));
    assert_eq!(
        (us.remote(), us.role()),
        (node_id(&dialled), Role::Initiator)
    );
    talk(us.into_session(), peer, &mut feed);
}
