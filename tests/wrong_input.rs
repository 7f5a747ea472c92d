//! Wrong input, in every phase of a connection: it gets the event that names it, the connection alone suffers, nobody is answered
//! during a handshake (BOLT 8 § Handshake Exchange), and the other links and the supervisor go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/acts.rs"]
mod acts;
#[path = "support/node.rs"]
mod node;
#[path = "support/signers.rs"]
mod signers;

use std::net::SocketAddr;

use acts::{Framed, Wire, act_one, act_two};
use node::{Door, Far, Got, INSTANT, Node, id, init, just_before, key, kind_of, message, soon};
use pilotlight::limits;
use pilotlight::link::{CloseReason, LinkHandle};
use pilotlight::node_id::NodeId;
use pilotlight::supervisor::{ConnectError, Inbound, PeerSpec};
use pilotlight::telemetry::Event;
use pilotlight::wire::{BITCOIN_REGTEST, Features, Init, Warning};

/// A live node, and a link that must not notice anything.
struct Bystander {
    node: Node,
    far: Far,
    link: LinkHandle,
    round: u8,
}

impl Bystander {
    async fn new() -> Self {
        let mut node = Node::live().await;
        let (far, link) = node.accept(900).await;
        Self {
            node,
            far,
            link,
            round: 0,
        }
    }

    /// The other link goes on exchanging messages, and the supervisor answers.
    async fn lives(&mut self) {
        self.round += 1;
        let sent = message(256, &[self.round; 400]);
        self.far.send(&sent).await;
        assert_eq!(self.node.next_message().await.bytes, sent);
        let receipt = self
            .link
            .send(message(261, &[self.round; 40]))
            .await
            .unwrap();
        soon("the kernel", receipt.flushed()).await.unwrap();
        assert_eq!(self.far.expect(261).await[2], self.round);
        self.far.settle().await;
        let peers = soon("the supervisor", self.node.supervisor.peers()).await;
        assert!(peers.unwrap().iter().any(|peer| peer.node_id == id(900)));
        self.node.watch.mark();
    }

    /// A stranger's connection has failed like this.
    async fn inbound_failed(&mut self, label: &str, words: &str) {
        let (failure, detail) = self.node.watch.inbound_failed().await;
        assert_eq!(failure, label, "{detail}");
        assert!(detail.contains(words), "{detail}");
        self.lives().await;
    }

    async fn wire(&self) -> Wire {
        Wire::connect(self.node.address).await
    }

    /// A stranger whose acts one and two have passed.
    async fn at_act_three(&self) -> (Wire, [u8; 66]) {
        let mut wire = self.wire().await;
        let (three, _) = wire.reach_act_three(1, self.node.id()).await;
        (wire, three)
    }

    /// A stranger whose handshake is done; no `init` yet.
    async fn framed(&self, number: u16) -> Framed {
        self.wire().await.initiate(number, self.node.id()).await
    }

    /// A stranger whose link is up.
    async fn up(&mut self, number: u16) -> (Framed, LinkHandle) {
        let mut framed = self.framed(number).await;
        framed.send(&init()).await;
        let link = self.node.next_up().await;
        (framed, link)
    }

    /// Whoever waits long enough has waited too long; 1 ns less is no reason.
    async fn pass_the_act_deadline(&mut self, wire: &mut Wire) {
        self.far.settle().await;
        self.node.clock.advance(just_before(limits::ACT_DEADLINE));
        self.far.settle().await;
        let failed = |event: &Event| {
            matches!(
                event,
                Event::InboundFailed { .. } | Event::DialFailed { .. }
            )
        };
        assert_eq!(self.node.watch.count(failed), 0);
        self.node.clock.advance(INSTANT);
        assert_eq!(wire.rest().await, [0_u8; 0]);
    }
}

/// An act with one bit flipped.
fn flipped<const N: usize>(mut act: [u8; N], at: usize) -> [u8; N] {
    act[at] ^= 1;
    act
}

#[tokio::test]
async fn a_wrong_act_one_is_named_and_not_answered() {
    let mut by = Bystander::new().await;
    let (_, one) = act_one(1, by.node.id());
    let mut garbage = [0xff; 50];
    garbage[0] = 0;
    let mut no_point = one;
    no_point[1] = 7;
    let (_, for_another) = act_one(1, id(77));
    let cases = [
        (garbage, "the key in act one is no point"),
        (no_point, "the key in act one is no point"),
        (flipped(one, 0), "act one has the unknown version 1"),
        (flipped(one, 49), "the tag of act one does not fit"),
        (for_another, "the tag of act one does not fit"),
    ];
    for (act, words) in cases {
        let mut wire = by.wire().await;
        wire.write(&act).await;
        assert_eq!(wire.rest().await, [0_u8; 0]);
        by.inbound_failed("protocol", words).await;
    }
}

#[tokio::test]
async fn a_wrong_act_three_is_named_and_not_answered() {
    let mut by = Bystander::new().await;
    for (at, words) in [
        (0, "act three has the unknown version 1"),
        (20, "the encrypted key in act three fails its tag"),
        (65, "the tag of act three does not fit"),
    ] {
        let (mut wire, three) = by.at_act_three().await;
        wire.write(&flipped(three, at)).await;
        assert_eq!(wire.rest().await, [0_u8; 0]);
        by.inbound_failed("protocol", words).await;
    }
}

#[tokio::test]
async fn a_truncated_act_is_named_with_what_there_was_of_it() {
    let mut by = Bystander::new().await;
    let (_, one) = act_one(1, by.node.id());
    for length in [0, 1, 49] {
        let mut wire = by.wire().await;
        wire.write(&one[..length]).await;
        drop(wire);
        let words = format!("in act 1, after {length} of its bytes");
        by.inbound_failed("closed", &words).await;
    }
    for length in [0, 1, 65] {
        let (mut wire, three) = by.at_act_three().await;
        wire.write(&three[..length]).await;
        drop(wire);
        let words = format!("in act 3, after {length} of its bytes");
        by.inbound_failed("closed", &words).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_reset_during_an_act_is_named() {
    let mut by = Bystander::new().await;
    let (_, one) = act_one(1, by.node.id());
    for length in [0, 30] {
        let mut wire = by.wire().await;
        wire.write(&one[..length]).await;
        by.far.settle().await;
        wire.reset();
        by.inbound_failed("io", "the connection broke in act 1")
            .await;
    }
    // While the signer thinks.
    let asked = by.node.signer.asked();
    let gate = by.node.signer.gated();
    let mut wire = by.wire().await;
    wire.write(&one).await;
    soon("it is asked", by.node.signer.until_asked(asked + 1)).await;
    wire.reset();
    by.far.settle().await;
    gate.add_permits(1);
    by.inbound_failed("io", "the connection broke in act 2")
        .await;
    by.node.signer.behave(signers::Manner::Answer);
    for length in [0, 30] {
        let (mut wire, three) = by.at_act_three().await;
        wire.write(&three[..length]).await;
        by.far.settle().await;
        wire.reset();
        by.inbound_failed("io", "the connection broke in act 3")
            .await;
    }
}

#[tokio::test]
async fn p9_a_peer_that_stops_in_the_middle_of_an_act_is_closed_at_the_deadline() {
    let mut by = Bystander::new().await;
    let (_, one) = act_one(1, by.node.id());
    for length in [0, 1, 49] {
        let mut wire = by.wire().await;
        wire.write(&one[..length]).await;
        by.pass_the_act_deadline(&mut wire).await;
        by.inbound_failed("timeout", "act 1 took longer than 5 s")
            .await;
    }
    for length in [0, 1, 65] {
        let (mut wire, three) = by.at_act_three().await;
        wire.write(&three[..length]).await;
        by.pass_the_act_deadline(&mut wire).await;
        by.inbound_failed("timeout", "act 3 took longer than 5 s")
            .await;
    }
}

/// What a dial of the peer with key 5 comes to, when the far side does `act`.
async fn dial(
    by: &mut Bystander,
    answer: impl AsyncFnOnce(Wire, [u8; 50]),
) -> (&'static str, String) {
    let door = Door::open().await;
    let spec = PeerSpec::new(id(5), door.address);
    let supervisor = by.node.supervisor.clone();
    let dial = tokio::spawn(async move { supervisor.connect(spec).await });
    let mut wire = Wire {
        socket: door.socket().await,
    };
    let one = wire.read::<50>().await;
    answer(wire, one).await;
    let (failure, detail) = match soon("an answer", dial).await.unwrap() {
        Err(ConnectError::Failed { failure, detail }) => (failure, detail),
        other => panic!("{other:?}"),
    };
    assert_eq!(by.node.watch.dial_failed().await, (failure, detail.clone()));
    assert!(by.node.supervisor.remove_peer(id(5)).await.unwrap());
    by.lives().await;
    (failure, detail)
}

#[tokio::test]
async fn a_wrong_act_two_is_named_and_not_answered() {
    let mut by = Bystander::new().await;
    // Another node than the one that was dialled cannot even read act one: what it answers is a guess.
    let (_, other) = act_one(6, id(7));
    let (_, another) = act_two(7, &other);
    for (at, words) in [
        (None, "the tag of act two does not fit"),
        (Some(0), "act two has the unknown version 1"),
        (Some(1), "the key in act two is no point"),
        (Some(49), "the tag of act two does not fit"),
    ] {
        let answer = async |mut wire: Wire, one: [u8; 50]| {
            let two = match at {
                None => another,
                Some(1) => {
                    let mut two = act_two(5, &one).1;
                    two[1] = 9;
                    two
                }
                Some(at) => flipped(act_two(5, &one).1, at),
            };
            wire.write(&two).await;
            assert_eq!(wire.rest().await, [0_u8; 0]);
        };
        let (failure, detail) = dial(&mut by, answer).await;
        assert_eq!(failure, "protocol");
        assert!(detail.contains(words), "{detail}");
    }
}

#[tokio::test]
async fn a_dialled_peer_that_closes_or_resets_in_act_two_is_named() {
    let mut by = Bystander::new().await;
    for length in [0, 1, 49] {
        let closes = async |mut wire: Wire, one: [u8; 50]| {
            wire.write(&act_two(5, &one).1[..length]).await;
        };
        let (failure, detail) = dial(&mut by, closes).await;
        assert_eq!(failure, "closed");
        assert!(
            detail.contains(&format!("in act 2, after {length} of")),
            "{detail}"
        );
        let resets = async |mut wire: Wire, one: [u8; 50]| {
            wire.write(&act_two(5, &one).1[..length]).await;
            tokio::task::yield_now().await;
            wire.reset();
        };
        let (failure, detail) = dial(&mut by, resets).await;
        assert_eq!(failure, "io");
        assert!(detail.contains("the connection broke in act 2"), "{detail}");
    }
}

#[tokio::test]
async fn p9_a_dialled_peer_that_is_silent_in_act_two_is_given_up_at_the_deadline() {
    let mut by = Bystander::new().await;
    for length in [0, 30] {
        let door = Door::open().await;
        let spec = PeerSpec::new(id(5), door.address);
        by.node.supervisor.add_peer(spec).await.unwrap();
        let mut wire = Wire {
            socket: door.socket().await,
        };
        let one = wire.read::<50>().await;
        wire.write(&act_two(5, &one).1[..length]).await;
        by.pass_the_act_deadline(&mut wire).await;
        let (failure, detail) = by.node.watch.dial_failed().await;
        assert_eq!(
            (failure, &*detail),
            ("timeout", "act 2 took longer than 5 s")
        );
        by.node.supervisor.remove_peer(id(5)).await.unwrap();
        by.lives().await;
    }
}

#[tokio::test]
async fn a_dial_of_a_port_where_nobody_listens_is_named() {
    let mut by = Bystander::new().await;
    let door = Door::open().await;
    let spec = PeerSpec::new(id(5), door.address);
    drop(door);
    match soon("an answer", by.node.supervisor.connect(spec)).await {
        Err(ConnectError::Failed {
            failure: "connect",
            detail,
        }) => {
            assert!(detail.contains("refused"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    by.lives().await;
}

/// First messages that no link takes, and why.
fn bad_first_messages() -> Vec<(Vec<u8>, &'static str)> {
    let gossip = |networks| Init::gossip(networks).encode();
    let mut long = init();
    // An odd record that nobody knows, as long as it must be.
    long.extend([0xfd, 0x01, 0x01, 0xfd, 0x0f, 0xff]);
    long.resize(4097, 0);
    let mut unknown_even = Init::gossip(Vec::new());
    unknown_even.features = Features::from_bits([200]);
    vec![
        (long, "longer than 4096"),
        (message(16, &[0, 0, 0, 9]), "malformed init"),
        (gossip(vec![BITCOIN_REGTEST]), "no network in common"),
        (unknown_even.encode(), "feature"),
        (message(18, &[0, 0, 0, 0]), "first message"),
        (message(256, b"gossip"), "first message"),
        (message(136, b"channel"), "first message"),
        (message(3, b"odd"), "first message"),
        (vec![16], "two bytes"),
        (Vec::new(), "two bytes"),
    ]
}

#[tokio::test]
async fn a_wrong_first_message_is_named_to_the_peer_and_to_the_node() {
    let mut by = Bystander::new().await;
    // Each by another stranger: who does so again and again is banned.
    for (stranger, (first, words)) in (100..).zip(bad_first_messages()) {
        let mut framed = by.framed(stranger).await;
        framed.send(&first).await;
        let said = framed.rest().await;
        assert_eq!((said.len(), kind_of(&said[0])), (2, 16), "{words}");
        let warning = Warning::decode(&said[1]).unwrap().text();
        assert!(warning.contains(words), "{warning}");
        let kind = if first.len() < 2 { 0 } else { kind_of(&first) };
        assert_eq!(by.node.watch.refused(kind).await, "closed");
        by.inbound_failed("protocol", "before init: protocol").await;
    }
    // The same from a peer that we dialled.
    for (first, words) in bad_first_messages() {
        let answer = async |mut wire: Wire, one: [u8; 50]| {
            let (state, two) = act_two(5, &one);
            wire.write(&two).await;
            let three = wire.read::<66>().await;
            let session = state.act_three(&three).unwrap().into_session();
            let mut framed = Framed { wire, session };
            framed.send(&first).await;
            let said = framed.rest().await;
            let warning = Warning::decode(&said[1]).unwrap().text();
            assert!(warning.contains(words), "{warning}");
        };
        let (failure, detail) = dial(&mut by, answer).await;
        assert_eq!(
            (failure, &*detail),
            ("protocol", "the link ended before init: protocol")
        );
    }
}

#[tokio::test]
async fn p9_an_init_of_exactly_4096_bytes_is_taken() {
    let mut by = Bystander::new().await;
    let mut long = init();
    let record = 4096 - long.len() - 6;
    long.extend([0xfd, 0x01, 0x01, 0xfd]);
    long.extend(u16::try_from(record).unwrap().to_be_bytes());
    long.resize(4096, 0);
    let mut framed = by.framed(1).await;
    framed.send(&long).await;
    match by.node.next().await {
        Inbound::Up { init, .. } => assert_eq!(init, long),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn p9_a_peer_without_an_init_is_closed_at_the_deadline() {
    let mut by = Bystander::new().await;
    let mut framed = by.framed(1).await;
    // The node's own init shows that the link has begun to wait.
    let mut begun = [0; 1];
    soon("init", framed.wire.socket.peek(&mut begun))
        .await
        .unwrap();
    by.node.clock.advance(limits::INIT_DEADLINE);
    let said = framed.rest().await;
    assert_eq!((said.len(), kind_of(&said[0])), (1, 16));
    by.inbound_failed("init_timeout", "before init: init_timeout")
        .await;
}

#[tokio::test]
async fn a_connection_that_ends_before_init_is_named() {
    let mut by = Bystander::new().await;
    let framed = by.framed(1).await;
    by.far.settle().await;
    drop(framed);
    let (failure, _) = by.node.watch.inbound_failed().await;
    // Its unread init makes a reset of the close, on some systems.
    assert!(["peer_closed", "io"].contains(&failure), "{failure}");
    by.lives().await;
    let framed = by.framed(1).await;
    by.far.settle().await;
    framed.wire.reset();
    by.inbound_failed("io", "before init: io").await;
}

/// What a stranger's link ends with after these bytes, and that no other reason is told to the node.
async fn ends(
    by: &mut Bystander,
    mut framed: Framed,
    link: &LinkHandle,
    bytes: &[u8],
    reason: CloseReason,
) {
    framed.wire.write(bytes).await;
    framed.rest().await;
    assert_eq!(by.node.next_down().await, (link.id(), reason));
    assert_eq!(by.node.watch.link_down(link.id()).await, reason);
    by.lives().await;
}

#[tokio::test]
async fn a_frame_that_does_not_authenticate_ends_the_link() {
    let mut by = Bystander::new().await;
    let good = message(256, &[7; 300]);
    // In the length, in its tag, in the message, in its tag.
    for (number, at) in (1..).zip([0, 10, 18, 200, 335]) {
        let (mut framed, link) = by.up(number).await;
        let mut frame = framed.seal(&good);
        frame[at] ^= 0x80;
        ends(&mut by, framed, &link, &frame, CloseReason::Transport).await;
    }
    // A length of garbage, and a whole frame twice.
    let (framed, link) = by.up(10).await;
    ends(&mut by, framed, &link, &[0xa5; 18], CloseReason::Transport).await;
    let (mut framed, link) = by.up(11).await;
    let frame = framed.seal(&good);
    framed.wire.write(&frame).await;
    assert_eq!(by.node.next_message().await.bytes, good);
    ends(&mut by, framed, &link, &frame, CloseReason::Transport).await;
}

/// What came whole and good before the bad frame is the node's.
#[tokio::test]
async fn p2_what_came_before_a_bad_frame_is_delivered() {
    let mut by = Bystander::new().await;
    let (mut framed, link) = by.up(1).await;
    let mut bytes = Vec::new();
    for number in 0..20_u8 {
        bytes.extend(framed.seal(&message(256, &[number])));
    }
    bytes.extend([0; 40]);
    framed.wire.write(&bytes).await;
    for number in 0..20_u8 {
        assert_eq!(by.node.next_message().await.bytes[2], number);
    }
    let reason = CloseReason::Transport;
    assert_eq!(by.node.next_down().await, (link.id(), reason));
    by.lives().await;
}

#[tokio::test]
async fn a_live_link_s_wrong_message_ends_it_and_is_named() {
    let mut by = Bystander::new().await;
    for (number, wrong) in (1..).zip([init(), message(138, b"even"), vec![1], message(18, &[0])]) {
        let (mut framed, link) = by.up(number).await;
        let frame = framed.seal(&wrong);
        ends(&mut by, framed, &link, &frame, CloseReason::Protocol).await;
    }
}

#[tokio::test]
async fn a_live_link_that_is_closed_or_reset_ends_alone() {
    let mut by = Bystander::new().await;
    for (number, length) in (1..).zip([0, 5, 18, 30]) {
        let (mut framed, link) = by.up(number).await;
        let mut said = [0; 1000];
        // Its init is read, so that the close is no reset.
        let _ = tokio::io::AsyncReadExt::read(&mut framed.wire.socket, &mut said).await;
        let frame = framed.seal(&message(256, b"half of it"));
        framed.wire.write(&frame[..length]).await;
        drop(framed);
        let reason = CloseReason::PeerClosed;
        assert_eq!(by.node.next_down().await, (link.id(), reason));
        by.lives().await;
        let (mut framed, link) = by.up(number).await;
        let frame = framed.seal(&message(256, b"half of it"));
        framed.wire.write(&frame[..length]).await;
        by.far.settle().await;
        framed.wire.reset();
        assert_eq!(by.node.next_down().await, (link.id(), CloseReason::Io));
        by.lives().await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let mut by = Bystander::new().await;
    let address = by.node.address;
    let error = by.node.supervisor.listen(address).await.unwrap_err();
    assert_eq!(error.address, address);
    let words = error.to_string();
    assert!(
        words.contains(&address.to_string()) && words.contains("in use"),
        "{words}"
    );
    // Not this machine's.
    let foreign = SocketAddr::from(([192, 0, 2, 1], 9735));
    assert!(by.node.supervisor.listen(foreign).await.is_err());
    by.lives().await;
}

/// All of these come from this machine's own address, which has the share of many.
#[tokio::test]
async fn p9_a_newcomer_takes_the_place_of_the_oldest_silent_stranger() {
    let mut by = Bystander::new().await;
    let mut silent = Vec::new();
    for _ in 0..limits::HANDSHAKES_OF_MANY {
        silent.push(by.wire().await);
    }
    let mut late = by.wire().await;
    by.inbound_failed("crowded", "while it was silent").await;
    assert_eq!(silent.remove(0).rest().await, [0_u8; 0]);
    // A place that comes free can be had.
    silent.pop();
    by.inbound_failed("closed", "in act 1").await;
    let (mut far, _) = by.node.accept(1).await;
    far.settle().await;
    by.node.clock.advance(limits::ACT_DEADLINE);
    for mut wire in silent {
        assert_eq!(wire.rest().await, [0_u8; 0]);
    }
    assert_eq!(late.rest().await, [0_u8; 0]);
    by.lives().await;
}

/// Our own key is no peer: whoever dials with it holds it, or sends our own acts back to us.
#[tokio::test]
async fn a_peer_with_our_own_key_is_not_let_in() {
    let mut by = Bystander::new().await;
    let own: NodeId = key(node::NODE).node_id();
    assert_eq!(own, by.node.id());
    let link = pilotlight::link::raw::RawLink::connect(
        by.node.address,
        std::sync::Arc::new(key(node::NODE)),
        own,
    );
    let mut far = Far::new(node::NODE, soon("acts", link).await.unwrap());
    assert_eq!(far.receive().await, Got::Eof);
    by.inbound_failed("not_admitted", "not admitted").await;
    let spec = PeerSpec::new(own, by.node.address);
    let refused = soon("an answer", by.node.supervisor.connect(spec)).await;
    assert_eq!(refused.err(), Some(ConnectError::OwnKey));
    let dialled = |event: &Event| matches!(event, Event::Dialing { .. });
    assert_eq!(by.node.watch.count(dialled), 0);
}

/// Where a peer dialled from is no address to dial.
#[tokio::test]
async fn a_dial_of_a_peer_without_an_address_is_refused_at_once() {
    let mut by = Bystander::new().await;
    by.node.supervisor.promote(id(1)).await.unwrap();
    let (far, link) = by.node.accept(1).await;
    let mut spec = PeerSpec::new(id(1), by.node.address);
    spec.addresses.clear();
    let kept = soon("an answer", by.node.supervisor.connect(spec.clone())).await;
    assert_eq!(kept.unwrap().id(), link.id());
    drop(far);
    by.node.next_down().await;
    by.node.watch.link_down(link.id()).await;
    while by.node.supervisor.link(id(1)).await.unwrap().is_some() {}
    for spec in [
        spec.clone(),
        PeerSpec {
            node_id: id(2),
            ..spec
        },
    ] {
        let refused = soon("an answer", by.node.supervisor.connect(spec)).await;
        assert_eq!(refused.err(), Some(ConnectError::NoAddress));
    }
}
