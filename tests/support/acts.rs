//! The acts of BOLT 8 one at a time, for far sides that stop in the middle, or send what no honest peer sends.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking, and each target uses its share of the helpers"
)]

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::BytesMut;
use pilotlight::brontide::{
    ACT_ONE_LEN, ACT_THREE_LEN, ACT_TWO_LEN, Authenticated, AwaitActOne, AwaitActThree,
    AwaitActTwo, InitiatorStart, Session,
};
use pilotlight::node_id::{LocalKey, NodeId};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::node::{id, key, soon};

static EPHEMERAL: AtomicU16 = AtomicU16::new(40_000);

/// A key that nobody else in this process uses.
fn ephemeral() -> LocalKey {
    key(EPHEMERAL.fetch_add(1, Ordering::Relaxed))
}

/// A connection on which the test writes bytes.
pub(crate) struct Wire {
    pub(crate) socket: TcpStream,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = soon("TCP", TcpStream::connect(address)).await;
        Self {
            socket: socket.expect("the node listens"),
        }
    }

    /// From another address of this machine: all of 127.0.0.0/8 is ours.
    pub(crate) async fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(source, 0)).expect("ours");
        let socket = soon("TCP", socket.connect(address)).await;
        Self {
            socket: socket.expect("the node listens"),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let written = soon("the kernel", self.socket.write_all(bytes)).await;
        written.expect("the connection stands");
    }

    /// Exactly so many bytes.
    pub(crate) async fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let read = soon("the node's act", self.socket.read_exact(&mut bytes)).await;
        read.expect("the whole act");
        bytes
    }

    /// All that still comes until the node closes or resets the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // An error is a reset, which is an end too.
        let _ = soon("the node closes", self.socket.read_to_end(&mut bytes)).await;
        bytes
    }

    /// Ends the connection with RST.
    pub(crate) fn reset(self) {
        let linger = Some(std::time::Duration::ZERO);
        SockRef::from(&self.socket)
            .set_linger(linger)
            .expect("ours");
        drop(self.socket);
    }

    /// Acts one and two as the one who dials, with the key of that number.
    pub(crate) async fn to_act_three(
        &mut self,
        number: u16,
        node: NodeId,
    ) -> ([u8; ACT_THREE_LEN], Authenticated) {
        let (state, one) = act_one(number, node);
        self.write(&one).await;
        let two = self.read::<ACT_TWO_LEN>().await;
        act_three(state, &two, number)
    }

    /// The whole handshake as the one who dials.
    pub(crate) async fn initiate(mut self, number: u16, node: NodeId) -> Framed {
        let (three, authenticated) = self.to_act_three(number, node).await;
        self.write(&three).await;
        Framed {
            wire: self,
            session: authenticated.into_session(),
        }
    }
}

/// A connection whose handshake is done, for frames that are well made and others.
pub(crate) struct Framed {
    pub(crate) wire: Wire,
    pub(crate) session: Session,
}

impl Framed {
    /// The frame of a message.
    pub(crate) fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        let mut frame = BytesMut::new();
        self.session.seal(message, &mut frame).expect("it fits");
        frame.to_vec()
    }

    pub(crate) async fn send(&mut self, message: &[u8]) {
        let frame = self.seal(message);
        self.wire.write(&frame).await;
    }

    /// Every whole message until the connection ends.
    pub(crate) async fn rest(&mut self) -> Vec<Vec<u8>> {
        let mut bytes = BytesMut::from(&self.wire.rest().await[..]);
        let mut messages = Vec::new();
        while let Ok(Some(message)) = self.session.open(&mut bytes) {
            messages.push(message.to_vec());
        }
        messages
    }
}

pub(crate) fn act_one(number: u16, node: NodeId) -> (AwaitActTwo, [u8; ACT_ONE_LEN]) {
    InitiatorStart::new(id(number), node, ephemeral()).expect("two good keys")
}

pub(crate) fn act_three(
    state: AwaitActTwo,
    two: &[u8],
    number: u16,
) -> ([u8; ACT_THREE_LEN], Authenticated) {
    let state = state.act_two(two).expect("a good act two");
    let reply = key(number).ecdh(&state.request().point);
    state.resume(reply).expect("a good reply")
}

/// What the far side with the key of that number answers to act one.
pub(crate) fn act_two(number: u16, one: &[u8]) -> (AwaitActThree, [u8; ACT_TWO_LEN]) {
    let state = AwaitActOne::new(id(number), ephemeral());
    let state = state.act_one(one).expect("a good act one");
    let reply = key(number).ecdh(&state.request().point);
    state.resume(reply).expect("act one is for this key")
}
