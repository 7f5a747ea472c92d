//! A running node on real sockets: what is left of a channel link when its teardown is reported, and of everything when the node has gone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use pilotlight::link::LinkHandle;
use pilotlight::node_id::{LocalKey, NodeId, Point};
use pilotlight::signer::{EmbeddedSigner, LapseReason, Signer, SignerContext};
use pilotlight::supervisor::{Inbound, Inbox, Supervisor};
use pilotlight::telemetry::{Event, Next};
use pilotlight::wire::{BITCOIN_MAINNET, Init};
use secp256k1::{PublicKey, SecretKey};

use crate::bolt8;
use crate::search::{Residue, search};
use crate::session::{KEY, bytes, register_as};
use crate::watchdog::Watch;
use crate::watched::HANG_GUARD;

const NODE: u8 = 21;
/// Owners of what the two links have.
const CHANNEL: u8 = 30;
const GOSSIP: u8 = 40;
/// Enough for a rotation each way.
const MESSAGES: usize = 510;

/// A far side with blocking sockets, on the test's own thread: nothing of its secrets is in a task, or in the heap.
struct Far {
    socket: TcpStream,
    transport: bolt8::Transport,
    read: Vec<u8>,
}

impl Far {
    /// Dials the node with the keys of these numbers, and registers all that both ends then have.
    fn dial(watch: &Watch, owner: u8, address: SocketAddr, node: NodeId, [s, e]: [u8; 2]) -> Self {
        let of = |number| SecretKey::from_byte_array(bytes(number)).unwrap();
        let rs = PublicKey::from_slice(node.as_bytes()).unwrap();
        let (mut initiator, act_one) = bolt8::Initiator::dial(of(s), of(e), &rs);
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(HANG_GUARD)).unwrap();
        let local = |number| LocalKey::from_bytes(&mut bytes(number)).unwrap();
        socket.write_all(&act_one).unwrap();
        let mut act_two = [0; 50];
        socket.read_exact(&mut act_two).unwrap();
        let re = Point::parse(&act_two[1..34]).unwrap();
        let ecdhs = [
            *local(e).ecdh(&Point::try_from(node).unwrap()).expose(),
            *local(e).ecdh(&re).expose(),
            *local(s).ecdh(&re).expose(),
        ];
        register_as(watch, owner, ecdhs, 2);
        initiator.act_two(&act_two).unwrap();
        let (act_three, transport) = initiator.act_three();
        socket.write_all(&act_three).unwrap();
        let mut far = Self {
            socket,
            transport,
            read: Vec::new(),
        };
        far.send(&Init::gossip(vec![BITCOIN_MAINNET]).encode());
        assert_eq!(far.receive()[..2], [0, 16]);
        far
    }

    fn send(&mut self, message: &[u8]) {
        let frame = self.transport.seal(message);
        self.socket.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        loop {
            let mut stream = &self.read[..];
            if let Some(message) = self.transport.open(&mut stream).unwrap() {
                self.read = stream.to_vec();
                return message;
            }
            self.read = stream.to_vec();
            let mut chunk = [0; 4096];
            let count = self.socket.read(&mut chunk).unwrap();
            assert!(count > 0, "the node has closed the link");
            self.read.extend_from_slice(&chunk[..count]);
        }
    }

    /// A rotation each way.
    fn talk(&mut self, link: &LinkHandle, inbox: &mut Node) {
        let message = [&[0x80, 1][..], &[7; 20]].concat();
        for _ in 0..MESSAGES {
            self.send(&message);
            assert_eq!(inbox.message(), message);
            let _ = link.try_send(message.clone()).unwrap();
            assert_eq!(self.receive(), message);
        }
    }
}

/// The runtime, and the node's inbox on it.
struct Node {
    runtime: tokio::runtime::Runtime,
    inbox: Inbox,
}

impl Node {
    fn next(&mut self) -> Inbound {
        let inbox = &mut self.inbox;
        let next = async { tokio::time::timeout(HANG_GUARD, inbox.recv()).await };
        self.runtime.block_on(next).unwrap().unwrap()
    }

    fn message(&mut self) -> Vec<u8> {
        match self.next() {
            Inbound::Message(message) => message.bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn up(&mut self) -> LinkHandle {
        match self.next() {
            Inbound::Up { link, .. } => link,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn p3_a_torn_down_link_is_gone_from_memory_when_its_teardown_is_reported() {
    let watch = Watch::begin();
    watch.register(KEY, &bytes(NODE));
    let signer = Arc::new(EmbeddedSigner::from_key(
        LocalKey::from_bytes(&mut bytes(NODE)).unwrap(),
    ));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let context = SignerContext::new(signer.node_id());
    let builder = Supervisor::builder(context.clone());
    let (supervisor, inbox) = runtime.block_on(builder.start()).unwrap();
    let mut events = supervisor.events();
    let address = runtime.block_on(supervisor.listen(([127, 0, 0, 1], 0).into()));
    let address = address.unwrap();
    let channel_peer = LocalKey::from_bytes(&mut bytes(31)).unwrap().node_id();
    let declared = runtime.block_on(supervisor.declare_channel_peers([channel_peer]));
    declared.unwrap();
    let proof = runtime.block_on(context.prove(&*signer, &mut [9; 32]));
    let session = context.attach(proof.unwrap(), signer).unwrap();
    let mut node = Node { runtime, inbox };

    let id = supervisor.node_id();
    let mut channel = Far::dial(&watch, CHANNEL, address, id, [31, 32]);
    let channel_link = node.up();
    channel.talk(&channel_link, &mut node);
    let mut gossip = Far::dial(&watch, GOSSIP, address, id, [41, 42]);
    let gossip_link = node.up();
    gossip.talk(&gossip_link, &mut node);
    let live = search();
    let of = |residue: &Residue, owner: u8| {
        (owner..owner + 3)
            .map(|owner| residue.heap_of(owner))
            .sum::<usize>()
    };
    assert!(
        of(&live, CHANNEL) > 0 && of(&live, GOSSIP) > 0,
        "the search must see what live links hold: {live:?}"
    );
    // The far sides hold the same secrets, on this thread's stack, which is no concern.
    let lapse = session.lapse(LapseReason::Requested).unwrap();
    let reported = async {
        loop {
            match tokio::time::timeout(HANG_GUARD, events.next())
                .await
                .unwrap()
            {
                Some(Next::Event(recorded)) => match recorded.event {
                    Event::SignerLapsed(report) if report.epoch == lapse.epoch => return report,
                    _ => {}
                },
                Some(_) => {}
                None => panic!("no more events"),
            }
        }
    };
    let report = node.runtime.block_on(reported);
    assert_eq!((report.dropped, report.retained), (1, 1));
    let away = search();
    println!("when the teardown was reported: {away:?}");
    assert_eq!(of(&away, CHANNEL), 0, "P3: {away:?}");
    assert!(of(&away, GOSSIP) > 0, "the gossip link lives on");
    assert!(matches!(node.next(), Inbound::Down { .. }));
    gossip.talk(&gossip_link, &mut node);

    // A link that its peer ends.
    drop(gossip);
    assert!(matches!(node.next(), Inbound::Down { .. }));
    let closed = search();
    println!("when the gossip link had ended: {closed:?}");
    assert_eq!(of(&closed, GOSSIP), 0, "P3: {closed:?}");
    node.runtime.block_on(supervisor.drain());
    drop((supervisor, context, node, channel_link, gossip_link));
    let (_, freed) = watch.counts();
    let gone = search();
    println!("when the node had gone: {gone:?}; {freed} blocks freed");
    assert_eq!(watch.found(), [], "secrets in freed blocks: owner and size");
    assert_eq!(gone.heap(), 0, "{gone:?}");
}
