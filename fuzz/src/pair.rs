//! Sessions of ours, and what faces them, made by honest handshakes.

use super::bolt8::{self, Responder, Transport};
use pilotlight::brontide::{AwaitActOne, InitiatorStart, Session};
use pilotlight::node_id::{LocalKey, NodeId};
use secp256k1::{PublicKey, SecretKey};

/// The same key in the library's type.
pub fn ours(key: &SecretKey) -> LocalKey {
    LocalKey::from_bytes(&mut key.secret_bytes()).unwrap()
}

pub fn node_id(key: &PublicKey) -> NodeId {
    NodeId::parse(&key.serialize()).unwrap()
}

/// Two sessions of ours with one another: who dialled, who was dialled.
pub fn of_ours() -> (Session, Session) {
    let [a, b, c, d] = [1, 2, 3, 4].map(|byte| ours(&bolt8::secret(byte)));
    let (alice, act_one) = InitiatorStart::new(a.node_id(), b.node_id(), c).unwrap();
    let bob = AwaitActOne::new(b.node_id(), d).act_one(&act_one).unwrap();
    let reply = b.ecdh(&bob.request().point);
    let (bob, act_two) = bob.resume(reply).unwrap();
    let alice = alice.act_two(&act_two).unwrap();
    let reply = a.ecdh(&alice.request().point);
    let (act_three, alice) = alice.resume(reply).unwrap();
    let bob = bob.act_three(&act_three).unwrap();
    (alice.into_session(), bob.into_session())
}

/// A session of ours that has dialled the restatement, and the restatement's end.
pub fn with_judge() -> (Session, Transport) {
    let [a, b, c, d] = [1, 2, 3, 4].map(bolt8::secret);
    let (us, them) = (ours(&a), node_id(&bolt8::public(&b)));
    let (alice, act_one) = InitiatorStart::new(us.node_id(), them, ours(&c)).unwrap();
    let mut bob = Responder::new(b, d);
    let alice = alice.act_two(&bob.act_one(&act_one).unwrap()).unwrap();
    let reply = us.ecdh(&alice.request().point);
    let (act_three, alice) = alice.resume(reply).unwrap();
    let (_, bob) = bob.act_three(&act_three).unwrap();
    (alice.into_session(), bob)
}
