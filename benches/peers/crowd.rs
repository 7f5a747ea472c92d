//! The far sides of many links, in a process of their own: peers that answer dials and pings, and count the ends that they see.
//!
//! All listen at one port of all loopback addresses, and each has one of them, so that 10,000 peers take no more than their links'
//! descriptors.

use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pilotlight::link::raw::RawLink;
use pilotlight::node_id::{LocalKey, NodeId};
use pilotlight::wire::{Init, Ping, Pong};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use crate::child::raise_descriptors;

/// Connections that may wait to be accepted: more than are dialled at once. Linux grants as many by default (`somaxconn`).
const BACKLOG: u32 = 4096;

/// The key of a peer by its number, from 1.
pub(crate) fn key(number: u64) -> LocalKey {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    LocalKey::from_bytes(&mut bytes).unwrap()
}

/// Where a peer listens.
pub(crate) fn address(number: u64, port: u16) -> SocketAddr {
    let [.., a, b, c] = number.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, a, b, c), port))
}

fn number_at(address: SocketAddr) -> u64 {
    let IpAddr::V4(ip) = address.ip() else {
        panic!("{address} is not of IPv4")
    };
    u64::from(u32::from(ip) & 0x00ff_ffff)
}

/// How often to ping, and where the round trips go, in µs. `None`: until told to stop.
struct Pings {
    count: Option<usize>,
    stop: oneshot::Receiver<()>,
    round_trips: oneshot::Sender<Vec<f64>>,
}

struct Crowd {
    up: AtomicUsize,
    ended: AtomicUsize,
    news: Notify,
    /// For the first peer.
    orders: Mutex<mpsc::Receiver<Pings>>,
}

pub(crate) fn run(peers: u64) {
    raise_descriptors(peers);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (pings, orders) = mpsc::channel(1);
    let crowd = Arc::new(Crowd {
        up: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        news: Notify::new(),
        orders: Mutex::new(orders),
    });
    let inside = runtime.enter();
    let listener = listen(Arc::clone(&crowd));
    drop(inside);
    println!("{}", listener.port());
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = runtime.block_on(async {
            match words[..] {
                ["up", wanted] => until(&crowd.up, wanted, &crowd.news).await,
                ["ended", wanted] => until(&crowd.ended, wanted, &crowd.news).await,
                ["ping", count] => ping(&pings, count.parse().unwrap()).await,
                ["strangers", address, id, count] => {
                    let (address, id) = (address.parse().unwrap(), id.parse().unwrap());
                    strangers(&pings, address, id, count.parse().unwrap()).await
                }
                _ => panic!("what is {line}?"),
            }
        });
        println!("{answer}");
    }
}

/// Waits for a counter to reach `wanted`.
async fn until(counter: &AtomicUsize, wanted: &str, news: &Notify) -> String {
    let wanted: usize = wanted.parse().unwrap();
    loop {
        let changed = news.notified();
        if counter.load(Ordering::Acquire) >= wanted {
            return "yes".to_owned();
        }
        changed.await;
    }
}

async fn ping(orders: &mpsc::Sender<Pings>, count: usize) -> String {
    let (round_trips, measured) = oneshot::channel();
    let (_stop, stop) = oneshot::channel();
    let count = Some(count);
    let pings = Pings {
        count,
        stop,
        round_trips,
    };
    assert!(orders.send(pings).await.is_ok());
    serde_json::to_string(&measured.await.unwrap()).unwrap()
}

/// The round trips of pings for as long as so many strangers' handshakes with `node` take.
async fn strangers(
    orders: &mpsc::Sender<Pings>,
    address: SocketAddr,
    node: NodeId,
    count: u64,
) -> String {
    let (round_trips, measured) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let pings = Pings {
        count: None,
        stop: stopped,
        round_trips,
    };
    assert!(orders.send(pings).await.is_ok());
    let dials: Vec<_> = (0..count)
        .map(|number| {
            let key = Arc::new(key(1_000_000 + number));
            tokio::spawn(RawLink::connect(address, key, node))
        })
        .collect();
    for dial in dials {
        // LDK's answers come too late for some: those have failed when they are over too.
        let _ = dial.await.unwrap();
    }
    let _ = stop.send(());
    serde_json::to_string(&measured.await.unwrap()).unwrap()
}

/// Within a runtime.
fn listen(crowd: Arc<Crowd>) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("0.0.0.0:0".parse().unwrap()).unwrap();
    // A thousand peers each have a queue of their own. Here they share one, and a SYN that finds it full is repeated after a second.
    let listener = socket.listen(BACKLOG).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(socket, Arc::clone(&crowd)));
        }
    });
    address
}

async fn serve(socket: TcpStream, crowd: Arc<Crowd>) {
    let number = number_at(socket.local_addr().unwrap());
    let Ok(mut link) = RawLink::accept(socket, Arc::new(key(number))).await else {
        return;
    };
    if link.send(&Init::gossip(vec![]).encode()).await.is_err() {
        return;
    }
    let mut orders = match number {
        1 => Some(crowd.orders.lock().await),
        _ => None,
    };
    loop {
        let order = async {
            match &mut orders {
                Some(orders) => orders.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = link.receive() => {
                let Ok(Some(message)) = message else { break };
                answer(&mut link, &message, &crowd).await;
            }
            Some(pings) = order => measure(&mut link, pings).await,
        }
    }
    crowd.ended.fetch_add(1, Ordering::Release);
    crowd.news.notify_one();
}

async fn answer(link: &mut RawLink, message: &[u8], crowd: &Crowd) {
    match message {
        [0, 16, ..] => {
            crowd.up.fetch_add(1, Ordering::Release);
            crowd.news.notify_one();
        }
        [0, 18, ..] => {
            let bytes = Ping::decode(message).map_or(0, |ping| ping.num_pong_bytes);
            let _ = link.send(&Pong { ignored: bytes }.encode()).await;
        }
        _ => {}
    }
}

async fn measure(link: &mut RawLink, mut pings: Pings) {
    let ping = Ping {
        num_pong_bytes: 8,
        ignored: 0,
    };
    let ping = ping.encode();
    let mut round_trips = Vec::new();
    while pings.count.is_none_or(|count| round_trips.len() < count) {
        let start = Instant::now();
        link.send(&ping).await.unwrap();
        while !link.receive().await.unwrap().unwrap().starts_with(&[0, 19]) {}
        round_trips.push(start.elapsed().as_secs_f64() * 1e6);
        if pings.count.is_none() {
            // BOLT 1's limit on pings is a node's own; a thousand a second are enough to see a stall.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // After the first: on a machine that is busy, all may be over before it.
        if pings.stop.try_recv().is_ok() {
            break;
        }
    }
    let _ = pings.round_trips.send(round_trips);
}
