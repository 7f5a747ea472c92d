//! What an idle link holds on the heap, counted: five hundred peers that are known get links, and what is allocated then and not freed
//! is divided by them. What grows with the tables of all links, or is kept for all, is in larger pieces and not counted.
//!
//! `cargo bench --bench peers -- idle` measures what the process takes for it. A target of its own: what other tests allocate at the same
//! time would be counted too. The far sides run in this process, on threads of their own, which are not counted.
#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; this one counts and passes on to the system's"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints its figures"
)]

use pilotlight::link::Tag;
use pilotlight::link::raw::RawLink;
use pilotlight::node_id::LocalKey;
use pilotlight::signer::{EmbeddedSigner, Signer, SignerContext};
use pilotlight::supervisor::{Inbound, PeerSpec, Supervisor};
use pilotlight::wire::{Init, Ping};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

const LINKS: u64 = 500;
/// Bytes that a link may hold, as they are asked of the allocator. Debug builds, whose tasks are larger; a tenth for a compiler or a
/// runtime that arranges them otherwise.
const BOUND: i64 = 1_690;
/// A piece of this size or more is not one link's: a table, a ring, a buffer that waits for whoever reads next.
const SHARED: usize = 4_096;

/// Counts what this thread has of the system's allocator, if it is to be counted.
struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);
thread_local!(static COUNTED: Cell<bool> = const { Cell::new(false) });

fn count(size: usize, sign: i64) {
    let counted = COUNTED.try_with(Cell::get).unwrap_or(false);
    if counted && size < SHARED {
        LIVE.fetch_add(sign * i64::try_from(size).unwrap_or(0), Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on as it came, so what `System` promises holds; counting touches an atomic and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn key(number: u64) -> LocalKey {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    LocalKey::from_bytes(&mut bytes).unwrap()
}

fn runtime(counted: bool) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || COUNTED.set(counted))
        .build()
        .unwrap()
}

/// The peers: all at one port of a loopback address, each with its own key. Each pings as often as it is told to, and tells of each pong.
async fn listen(rounds: watch::Receiver<u64>, pongs: mpsc::UnboundedSender<()>) -> SocketAddr {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(socket, rounds.clone(), pongs.clone()));
        }
    });
    address
}

async fn serve(
    socket: TcpStream,
    mut rounds: watch::Receiver<u64>,
    pongs: mpsc::UnboundedSender<()>,
) {
    let SocketAddr::V4(own) = socket.local_addr().unwrap() else {
        panic!("the peers are at IPv4 addresses");
    };
    let key = key(u64::from(u32::from(*own.ip()) & 0x00ff_ffff));
    let mut link = RawLink::accept(socket, Arc::new(key)).await.unwrap();
    link.send(&Init::gossip(vec![]).encode()).await.unwrap();
    loop {
        tokio::select! {
            message = link.receive() => match message {
                Ok(Some(message)) if message.starts_with(&[0, 19]) => pongs.send(()).unwrap(),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            },
            changed = rounds.changed() => {
                if changed.is_err() {
                    return;
                }
                let ping = Ping { num_pong_bytes: 2, ignored: 0 };
                link.send(&ping.encode()).await.unwrap();
            }
        }
    }
}

#[test]
fn p9_an_idle_link_holds_little() {
    let far = runtime(false);
    let (rounds, told) = watch::channel(0);
    let (pong, mut pongs) = mpsc::unbounded_channel();
    let port = far.block_on(listen(told, pong)).port();
    let near = runtime(true);
    let test = near.spawn(async move {
        let signer = Arc::new(EmbeddedSigner::from_key(key(20_000_000)));
        let context = SignerContext::new(signer.node_id());
        let builder = Supervisor::builder(context.clone()).gossip_floor(0);
        let (supervisor, mut inbox) = builder.start().await.unwrap();
        for number in 1..=LINKS {
            let [.., a, b, c] = number.to_be_bytes();
            let address = SocketAddr::from((Ipv4Addr::new(127, a, b, c), port));
            let spec = PeerSpec::new(key(number).node_id(), address).tagged(Tag::GossipOnly);
            supervisor.add_peer(spec).await.unwrap();
        }
        assert_eq!(supervisor.peers().await.unwrap().len() as u64, LINKS);
        let known = LIVE.load(Ordering::Relaxed);
        let proof = context.prove(&*signer, &mut [7; 32]).await.unwrap();
        let _session = context.attach(proof, signer).unwrap();
        let mut links = Vec::new();
        while (links.len() as u64) < LINKS {
            if let Inbound::Up { link, .. } = inbox.recv().await.unwrap() {
                links.push(link);
            }
        }
        // A link has come to rest when it has answered a ping, or, if its thread is held up just then, a moment after.
        let mut each = 0;
        for _ in 0..4 {
            rounds.send_modify(|round| *round += 1);
            for _ in 0..LINKS {
                pongs.recv().await.unwrap();
            }
            each = (LIVE.load(Ordering::Relaxed) - known) / i64::try_from(LINKS).unwrap();
            println!("{each} bytes a link");
            if each <= BOUND {
                return;
            }
        }
        panic!("{each} bytes a link, {BOUND} at most");
    });
    near.block_on(async {
        let hung = tokio::time::timeout(Duration::from_secs(60), test).await;
        hung.expect("hung").unwrap();
    });
}
