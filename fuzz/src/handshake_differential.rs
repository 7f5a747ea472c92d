//! Ours and LDK's, unmodified and with its real ciphers, facing the same hostile peer: they take the same acts and the same streams, and
//! both keep talking where the peer is honest.
//!
//! LDK keeps its encryptor to itself, so it is driven through its `PeerManager` over a socket in memory. The ephemeral keys are each
//! side's own, so what is compared is the verdict on every step and that both ends have the keys. What ours takes and refuses is held against
//! the restatement of BOLT 8 too; that it gives its very bytes is for the other handshake targets.

use super::bolt8::{self, Initiator, Refusal, Responder, Transport, public};
use super::feed::Feed;
use super::pair::{node_id, ours};
use super::twist::{Twist, overwrite};
use bitcoin::secp256k1::PublicKey as LdkKey;
use bytes::BytesMut;
use lightning::ln::peer_handler::{
    ErroringMessageHandler, IgnoringMessageHandler, MessageHandler, PeerManager, SocketDescriptor,
};
use lightning::sign::KeysManager;
use lightning::util::logger::{Logger, Record};
use pilotlight::brontide::{AwaitActOne, HandshakeError, InitiatorStart, Session};
use pilotlight::wire::{BITCOIN_MAINNET, Init, MessageType, Ping, Pong};
use secp256k1::SecretKey;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex};

struct Quiet;

impl Logger for Quiet {
    fn log(&self, _: Record<'_>) {}
}

/// What LDK has written.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Vec<u8>>>);

impl PartialEq for Socket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Socket {}

impl Hash for Socket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl SocketDescriptor for Socket {
    fn send_data(&mut self, data: &[u8], _: bool) -> usize {
        self.0.lock().unwrap().extend_from_slice(data);
        data.len()
    }

    fn disconnect_socket(&mut self) {}
}

type Manager = PeerManager<
    Socket,
    ErroringMessageHandler,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
    &'static Quiet,
    IgnoringMessageHandler,
    &'static KeysManager,
    IgnoringMessageHandler,
>;

static KEYS: LazyLock<KeysManager> = LazyLock::new(|| KeysManager::new(&[7; 32], 0, 0, true));

/// The key that both sides under test have.
pub static NODE: LazyLock<SecretKey> = LazyLock::new(|| {
    SecretKey::from_byte_array(KEYS.get_node_secret_key().secret_bytes()).unwrap()
});

/// One LDK node with one connection.
struct Ldk {
    manager: Manager,
    socket: Socket,
    /// How many bytes come at once.
    piece: usize,
}

impl Ldk {
    fn new(piece: u8) -> Self {
        let handler = MessageHandler {
            chan_handler: ErroringMessageHandler::new(),
            route_handler: IgnoringMessageHandler {},
            onion_message_handler: IgnoringMessageHandler {},
            custom_message_handler: IgnoringMessageHandler {},
            send_only_message_handler: IgnoringMessageHandler {},
        };
        Self {
            manager: PeerManager::new(handler, 1, &[9; 32], &Quiet, &*KEYS),
            socket: Socket::default(),
            piece: usize::from(piece) + 1,
        }
    }

    /// Whether it goes on after these bytes, and what it says to them.
    fn read(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        for piece in bytes.chunks(self.piece) {
            self.manager
                .read_event(&mut self.socket.clone(), piece)
                .ok()?;
            self.manager.process_events();
        }
        Some(std::mem::take(&mut *self.socket.0.lock().unwrap()))
    }
}

/// Both sides under test once the handshake is over, with what faces each.
struct Both {
    us: (Session, Transport),
    ldk: (Ldk, Transport),
}

/// Who dials; three keys; how LDK's bytes are cut; the twists; then messages.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let dials = feed.flag();
    let [s, e, our_e] = [(); 3].map(|()| bolt8::secret(feed.u8()));
    let ldk = Ldk::new(feed.u8());
    let both = if dials {
        dialling(&mut feed, [s, e, our_e], ldk)
    } else {
        dialled(&mut feed, [s, e, our_e], ldk)
    };
    if let Some(mut both) = both {
        both.introduce();
        both.talk(&mut feed);
    }
}

/// What of a twisted act can be held against LDK's: the two ends have keys of their own, so what is put into both acts can be right for
/// one of them. A byte of ciphertext or of a tag is what it was before once in 256 times; and an act of the input's bytes alone can have a
/// whole tag, for libFuzzer sees what it is compared with, and copies it.
fn comparable(twist: &Twist, our_honest: bool, ldk_honest: bool, ldk_takes: bool) -> bool {
    if matches!(twist, Twist::Raw(_)) {
        return false;
    }
    assert!(ldk_honest || !ldk_takes, "LDK takes a changed act");
    our_honest == ldk_honest
}

/// Whether both took an act. Ours does what BOLT 8 says of it under our keys, and LDK the same as ours, where that is `comparable`.
fn agreed<T>(
    act: &str,
    comparable: bool,
    right: Result<(), Refusal>,
    ours: Result<T, HandshakeError>,
    ldk: Option<Vec<u8>>,
) -> Option<(T, Vec<u8>)> {
    assert_eq!(
        ours.is_ok(),
        right.is_ok(),
        "{act} is {right:?}; ours: {:?}",
        ours.as_ref().err()
    );
    match (ours, ldk) {
        (Ok(ours), Some(ldk)) => Some((ours, ldk)),
        (Err(_), None) => None,
        _ if !comparable => None,
        (ours, ldk) => panic!("{act}: ours {:?}, LDK {ldk:?}", ours.map(|_| ())),
    }
}

/// The peer dials each with the same act one.
fn dialled(feed: &mut Feed<'_>, [s, e, our_e]: [SecretKey; 3], mut ldk: Ldk) -> Option<Both> {
    let node = ours(&NODE);
    ldk.manager
        .new_inbound_connection(ldk.socket.clone(), None)
        .unwrap();
    let (caller, honest) = Initiator::dial(s, e, &public(&NODE));
    let twist = Twist::read(feed);
    let act_one = twist.apply_within(&honest);
    let us = AwaitActOne::new(node.node_id(), ours(&our_e)).act_one(&act_one);
    let us = us.and_then(|us| {
        let reply = node.ecdh(&us.request().point);
        us.resume(reply)
    });
    let mut judge = Responder::new(*NODE, our_e);
    let right = judge.act_one(&act_one).map(|_| ());
    let theirs = ldk.read(&act_one);
    assert_eq!(us.is_ok(), theirs.is_some(), "one key judges act one");
    let ((us, our_act_two), ldk_act_two) = agreed("act one", true, right, us, theirs)?;
    if act_one != honest {
        // Of a copied tag: right in itself, and this caller cannot go on with it.
        return None;
    }
    let mut claimed = public(&s).serialize();
    overwrite(&mut claimed, feed.bytes());
    let twist = Twist::read(feed);
    let act_three = |act_two: &[u8]| {
        let mut caller = caller.clone();
        caller.act_two(act_two).expect("act two is BOLT 8's");
        let (honest, peer) = caller.act_three_saying(&claimed);
        let act = twist.apply_within(&honest);
        (act == honest, act, peer)
    };
    let (our_honest, act, our_peer) = act_three(&our_act_two);
    let right = judge.act_three(&act).map(|_| ());
    let us = us.act_three(&act);
    let (ldk_honest, act, ldk_peer) = act_three(&ldk_act_two);
    let theirs = ldk.read(&act);
    let comparable = comparable(&twist, our_honest, ldk_honest, theirs.is_some());
    let (us, written) = agreed("act three", comparable, right, us, theirs)?;
    if !(our_honest && ldk_honest) {
        return None;
    }
    assert_eq!(us.remote(), node_id(&public(&s)));
    let mut both = Both {
        us: (us.into_session(), our_peer),
        ldk: (ldk, ldk_peer),
    };
    both.init_of_ldk(&written);
    Some(both)
}

/// Each dials the peer, which answers both with the same twist.
fn dialling(feed: &mut Feed<'_>, [s, e, our_e]: [SecretKey; 3], mut ldk: Ldk) -> Option<Both> {
    let (node, them) = (ours(&NODE), public(&s));
    let key = LdkKey::from_slice(&them.serialize()).unwrap();
    let ldk_act_one = ldk
        .manager
        .new_outbound_connection(key, ldk.socket.clone(), None)
        .unwrap();
    let (us, our_act_one) =
        InitiatorStart::new(node.node_id(), node_id(&them), ours(&our_e)).unwrap();
    let twist = Twist::read(feed);
    let act_two = |act_one: &[u8]| {
        let mut callee = Responder::new(s, e);
        let honest = callee.act_one(act_one).expect("act one is BOLT 8's");
        let act = twist.apply_within(&honest);
        (act == honest, act, callee)
    };
    let (our_honest, act, our_callee) = act_two(&our_act_one);
    let (mut judge, _) = Initiator::dial(*NODE, our_e, &them);
    let right = judge.act_two(&act);
    let us = us.act_two(&act);
    let (ldk_honest, act, ldk_callee) = act_two(&ldk_act_one);
    let theirs = ldk.read(&act);
    let comparable = comparable(&twist, our_honest, ldk_honest, theirs.is_some());
    let (us, written) = agreed("act two", comparable, right, us, theirs)?;
    if !(our_honest && ldk_honest) {
        return None;
    }
    let reply = node.ecdh(&us.request().point);
    let (our_act_three, us) = us.resume(reply).unwrap();
    let (ldk_act_three, rest) = written.split_at(66);
    let (caller, our_peer) = our_callee
        .act_three(&our_act_three)
        .expect("ours is refused");
    let (ldk_caller, ldk_peer) = ldk_callee
        .act_three(ldk_act_three)
        .expect("LDK's is refused");
    assert_eq!((caller, ldk_caller), (public(&NODE), public(&NODE)));
    let mut both = Both {
        us: (us.into_session(), our_peer),
        ldk: (ldk, ldk_peer),
    };
    both.init_of_ldk(rest);
    Some(both)
}

impl Both {
    /// LDK speaks first: what it says is sealed with the keys that the peer has.
    fn init_of_ldk(&mut self, mut written: &[u8]) {
        let init = self.ldk.1.open(&mut written).expect("LDK's keys differ");
        assert!(Init::decode(&init.expect("LDK sends init at once")).is_ok());
        assert!(written.is_empty());
    }

    /// To each the same, sealed for it.
    fn seal(&mut self, message: &[u8]) -> (BytesMut, Vec<u8>) {
        let ours = BytesMut::from(&self.us.1.seal(message)[..]);
        (ours, self.ldk.1.seal(message))
    }

    fn introduce(&mut self) {
        let init = Init::gossip(vec![BITCOIN_MAINNET]).encode();
        let (mut ours, theirs) = self.seal(&init);
        assert_eq!(self.us.0.open(&mut ours).unwrap().unwrap(), init);
        self.ldk.0.read(&theirs).expect("LDK takes an init");
    }

    /// Pings, which both can answer; and at last a changed or foreign frame, which neither takes.
    fn talk(&mut self, feed: &mut Feed<'_>) {
        for _ in 0..8 {
            if feed.is_empty() {
                return;
            }
            let ping = Ping {
                num_pong_bytes: feed.u16(),
                ignored: feed.u16() % 2000,
            };
            let (mut ours, mut theirs) = self.seal(&ping.encode());
            if feed.below(4) == 0 {
                let (at, bit) = (usize::from(feed.u16()), feed.u8() % 8);
                let at = at % theirs.len();
                (ours[at], theirs[at]) = (ours[at] ^ 1 << bit, theirs[at] ^ 1 << bit);
                let mut us = Ok(None);
                while us.as_ref().is_ok_and(Option::is_none) {
                    us = self.us.0.open(&mut ours);
                }
                assert!(us.is_err(), "ours takes a changed frame");
                assert_eq!(self.ldk.0.read(&theirs), None, "LDK takes a changed frame");
                return;
            }
            let opened = self.us.0.open(&mut ours).unwrap().unwrap();
            assert_eq!(Ping::decode(&opened), Ok(ping));
            let written = self.ldk.0.read(&theirs).expect("LDK takes a ping");
            self.pong(&written, ping.answer());
        }
    }

    /// Our pong is LDK's, byte for byte.
    fn pong(&mut self, mut written: &[u8], expected: Option<Pong>) {
        let answer = self.ldk.1.open(&mut written).expect("LDK's keys differ");
        assert_eq!(answer, expected.map(|pong| pong.encode()));
        let kind = answer.map(|answer| MessageType::of(&answer));
        assert!(kind.is_none_or(|kind| kind == Ok(MessageType::PONG)));
    }
}
