//! A handshake with both sides in one thread, for the benches: keys that are the same in every run.

use pilotlight::brontide::{AwaitActOne, InitiatorStart, Session};
use pilotlight::node_id::LocalKey;

pub(crate) fn key(byte: u8) -> LocalKey {
    LocalKey::from_bytes(&mut [byte; 32]).unwrap()
}

/// Both ephemeral keys, both sides' three ECDHs.
pub(crate) fn shake(alice: &LocalKey, bob: &LocalKey) -> (Session, Session) {
    let (a, one) = InitiatorStart::new(alice.node_id(), bob.node_id(), key(3)).unwrap();
    let b = AwaitActOne::new(bob.node_id(), key(4)).act_one(&one);
    let b = b.unwrap_or_else(|_| unreachable!());
    let reply = bob.ecdh(&b.request().point);
    let (b, two) = b.resume(reply).unwrap();
    let a = a.act_two(&two).unwrap_or_else(|_| unreachable!());
    let reply = alice.ecdh(&a.request().point);
    let (three, a) = a.resume(reply).unwrap();
    let b = b.act_three(&three).unwrap_or_else(|_| unreachable!());
    (a.into_session(), b.into_session())
}
