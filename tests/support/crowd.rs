//! Peers on loopback, any number of them: each listens at an address of its own, takes whoever dials, says `init`, answers pings, and
//! hangs up when it is told to.

use pilotlight::link::raw::RawLink;
use pilotlight::node_id::LocalKey;
use pilotlight::wire::{BITCOIN_MAINNET, Features, Init, MessageType, Ping, Warning};
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

/// What one of them is told to do on its link.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    HangUp(usize),
    Warn(usize, String),
}

/// One of them.
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) spec: String,
    pub(crate) tag: &'static str,
}

/// All of them. They are gone when this is.
pub(crate) struct Crowd {
    pub(crate) members: Vec<Member>,
    tell: broadcast::Sender<Told>,
    runtime: Runtime,
}

impl Crowd {
    /// `channel` peers with channels, then `gossip` peers without.
    pub(crate) fn listen(channel: usize, gossip: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (tell, _) = broadcast::channel(64);
        let members = (0..channel + gossip).map(|number| {
            let tag = if number < channel {
                "channel-bearing"
            } else {
                "gossip-only"
            };
            runtime.block_on(member(number, tag, &tell))
        });
        let members = members.collect();
        Self {
            members,
            tell,
            runtime,
        }
    }

    /// The part of a daemon's configuration that names them all.
    pub(crate) fn configuration(&self) -> String {
        let mut text = "peers_declared = true\n".to_owned();
        for member in &self.members {
            let (id, address) = member.spec.split_once('@').expect("ID@ADDRESS");
            let tag = member.tag;
            writeln!(
                text,
                "[[peers]]\nid = \"{id}\"\naddress = \"{address}\"\ntag = \"{tag}\""
            )
            .expect("a String takes all");
        }
        text
    }

    /// One of them closes its link. It takes the next that dials.
    pub(crate) fn hang_up(&self, number: usize) {
        self.tell.send(Told::HangUp(number)).expect("they listen");
    }

    /// One of them sends a warning.
    pub(crate) fn warn(&self, number: usize, text: &str) {
        let told = Told::Warn(number, text.to_owned());
        self.tell.send(told).expect("they listen");
    }

    /// Where their links run.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

/// The key of a member, which is never that of the tests' own nodes.
fn key(number: usize) -> LocalKey {
    let mut bytes = [0x5a; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    LocalKey::from_bytes(&mut bytes).expect("a key")
}

async fn member(number: usize, tag: &'static str, tell: &broadcast::Sender<Told>) -> Member {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let key = Arc::new(key(number));
    let id = key.node_id().to_string();
    let tell = tell.clone();
    tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                return;
            };
            let Ok(link) = RawLink::accept(socket, Arc::clone(&key)).await else {
                continue;
            };
            tokio::spawn(serve(link, number, tell.subscribe()));
        }
    });
    Member {
        spec: format!("{id}@{address}"),
        id,
        tag,
    }
}

/// Until either side has enough.
async fn serve(mut link: RawLink, number: usize, mut told: broadcast::Receiver<Told>) {
    let init = Init::with_features(Features::gossip(), vec![BITCOIN_MAINNET]);
    let mut answer = Some(init.encode());
    loop {
        if let Some(message) = answer.take()
            && link.send(&message).await.is_err()
        {
            return;
        }
        tokio::select! {
            received = link.receive() => match received {
                Ok(Some(message)) if MessageType::of(&message) == Ok(MessageType::PING) => {
                    answer = Ping::decode(&message).ok().and_then(|ping| ping.answer()).map(|pong| pong.encode());
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            },
            told = told.recv() => match told {
                Ok(Told::HangUp(who)) if who == number => return,
                Ok(Told::Warn(who, text)) if who == number => answer = Some(Warning::new(&text).encode()),
                _ => {}
            },
        }
    }
}
