//! A TCP proxy on loopback that a test commands: it forwards, delays, falls silent, cuts or closes.
//!
//! It stands for the network between two real parts. What it holds back is bounded, as a network is: beyond it the senders' TCP
//! pushes back. It never looks at a byte and never reorders one.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests fail by panicking, and each target uses its share of the helpers"
)]

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Bytes that one direction of one connection may hold back: 50 ms of 160 Mbit/s.
const HELD_MAX: usize = 1 << 20;
/// Bytes taken from a socket at a time.
const CHUNK: usize = 16 * 1024;

/// What the proxy is told to do.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    silent: bool,
    delay: Duration,
    /// How often it has been told to cut, and to close, what is open then.
    cuts: u64,
    closes: u64,
}

/// A running proxy. Dropping it drops its connections.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    orders: watch::Sender<Orders>,
    open: watch::Receiver<usize>,
    /// Bytes passed on, up and down.
    passed: [Arc<AtomicUsize>; 2],
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Listens on loopback, and connects to `target` for each connection that it takes.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, ordered) = watch::channel(Orders::default());
        let (count, open) = watch::channel(0);
        let passed: [Arc<AtomicUsize>; 2] = Default::default();
        let totals = passed.clone();
        let listening = tokio::spawn(async move {
            // They end with the proxy.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((near, _)) = listener.accept().await else {
                    return;
                };
                let Ok(far) = TcpStream::connect(target).await else {
                    reset(&near);
                    continue;
                };
                while connections.try_join_next().is_some() {}
                let pair = Pair {
                    near,
                    far,
                    passed: totals.clone(),
                };
                let (ordered, count) = (ordered.clone(), count.clone());
                count.send_modify(|open| *open += 1);
                connections.spawn(async move {
                    pair.run(ordered).await;
                    count.send_modify(|open| *open -= 1);
                });
            }
        });
        Self {
            address,
            orders,
            open,
            passed,
            listening,
        }
    }

    /// From now on nothing passes, and everything stays open: what a half-open connection looks like from both ends.
    pub(crate) fn fall_silent(&self) {
        self.orders.send_modify(|orders| orders.silent = true);
    }

    /// What was held back passes on.
    pub(crate) fn speak(&self) {
        self.orders.send_modify(|orders| orders.silent = false);
    }

    /// Every byte that comes from now on is passed on so much later, in each direction; no fewer of them in a second.
    pub(crate) fn delay(&self, each_way: Duration) {
        self.orders.send_modify(|orders| orders.delay = each_way);
    }

    /// Ends all connections with RST, at both ends.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// Ends all connections with FIN, at both ends. What is held back is lost.
    pub(crate) fn close(&self) {
        self.orders.send_modify(|orders| orders.closes += 1);
    }

    /// Waits until so many connections are open.
    pub(crate) async fn until_open(&self, count: usize) {
        let mut open = self.open.clone();
        open.wait_for(|open| *open == count).await.unwrap();
    }

    /// Bytes passed on so far: to the target, and from it.
    pub(crate) fn passed(&self) -> [usize; 2] {
        let [up, down] = &self.passed;
        [up.load(SeqCst), down.load(SeqCst)]
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Two sockets that are one connection.
struct Pair {
    near: TcpStream,
    far: TcpStream,
    passed: [Arc<AtomicUsize>; 2],
}

impl Pair {
    async fn run(self, ordered: watch::Receiver<Orders>) {
        let Self { near, far, passed } = self;
        let [up, down] = &passed;
        // A segment is a segment: small ones are passed on at once.
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let mut ending = ordered.clone();
        let first = *ending.borrow();
        let ended = async {
            let ended = ending.wait_for(|now| now.cuts > first.cuts || now.closes > first.closes);
            ended.await.map(|now| now.cuts > first.cuts)
        };
        let both = async {
            tokio::try_join!(
                pump(&near, &far, up, ordered.clone()),
                pump(&far, &near, down, ordered.clone())
            )
        };
        let cut = tokio::select! {
            biased;
            cut = ended => cut.unwrap_or(true),
            passed = both => {
                // One end was reset: so is the other.
                if passed.is_err() {
                    reset(&near);
                    reset(&far);
                }
                return;
            }
        };
        if cut {
            reset(&near);
            reset(&far);
            return;
        }
        for socket in [&near, &far] {
            let _ = SockRef::from(socket).shutdown(Shutdown::Write);
        }
        // Unread bytes at a close would make a reset of it.
        tokio::join!(discard(&near), discard(&far));
    }
}

/// The drop that follows sends RST.
fn reset(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

async fn discard(socket: &TcpStream) {
    let mut sink = [0; 4096];
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut sink) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// One direction: a line on which every chunk lies until it is due.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    passed: &AtomicUsize,
    mut ordered: watch::Receiver<Orders>,
) -> io::Result<()> {
    let mut line: VecDeque<(Instant, Bytes)> = VecDeque::new();
    let (mut held, mut over) = (0, false);
    loop {
        let orders = *ordered.borrow_and_update();
        if over && line.is_empty() {
            return Ok(());
        }
        let due = line.front().map(|(due, _)| *due);
        let sendable = async {
            if let Some(due) = due {
                sleep_until(due).await;
            }
            to.writable().await
        };
        tokio::select! {
            biased;
            changed = ordered.changed() => {
                if changed.is_err() {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
            ready = sendable, if due.is_some() && !orders.silent => {
                ready?;
                held -= push(&mut line, to, passed)?;
            }
            ready = from.readable(), if !over && held < HELD_MAX && !orders.silent => {
                ready?;
                let mut chunk = BytesMut::with_capacity(CHUNK);
                match from.try_read_buf(&mut chunk) {
                    // The end travels on the line as everything does.
                    Ok(count) => {
                        over = count == 0;
                        held += count;
                        line.push_back((Instant::now() + orders.delay, chunk.freeze()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// Writes what the kernel takes of the chunk that is due; an empty one is the end. How many bytes that were.
fn push(
    line: &mut VecDeque<(Instant, Bytes)>,
    to: &TcpStream,
    passed: &AtomicUsize,
) -> io::Result<usize> {
    let Some((_, chunk)) = line.front_mut() else {
        return Ok(0);
    };
    if chunk.is_empty() {
        line.pop_front();
        SockRef::from(to).shutdown(Shutdown::Write)?;
        return Ok(0);
    }
    match to.try_write(chunk) {
        Ok(count) => {
            chunk.advance(count);
            if chunk.is_empty() {
                line.pop_front();
            }
            passed.fetch_add(count, SeqCst);
            Ok(count)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}
