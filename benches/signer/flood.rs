//! The strangers: a child process that dials the node over and over, sends a good act one on each connection, and never goes on.
//!
//! Each connection is kept open for a while, as a stranger would who wants to hold a place, and then reset, so that neither side
//! is left with a socket that waits for its time to pass.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use pilotlight::brontide::InitiatorStart;
use pilotlight::node_id::NodeId;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::oneshot;

use crate::station::key;

/// In the environment of a child: what it is to do.
pub(crate) const ORDER: &str = "PILOTLIGHT_BENCH_FLOOD";
/// Connections that are kept open.
const OPEN: usize = 2_000;
/// Acts that are made beforehand; a signer cannot tell a repeated one.
const ACTS: u64 = 256;

/// Where the strangers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    One,
    Loopback,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one address",
            Self::Loopback => "all of 127.0.0.0/8",
        })
    }
}

/// A running flood.
pub(crate) struct Child {
    begun: Option<oneshot::Receiver<()>>,
    over: Arc<AtomicBool>,
    report: oneshot::Receiver<String>,
}

impl Child {
    pub(crate) fn start(
        (node, id): (SocketAddr, NodeId),
        spread: Spread,
        rate: u32,
        seconds: u64,
    ) -> Self {
        let spread = u8::from(spread == Spread::Loopback);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ORDER, format!("{node} {id} {spread} {rate} {seconds}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, begun) = oneshot::channel();
        let (end, report) = oneshot::channel();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        thread::spawn(move || {
            let mut out = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            let _ = tell.send(());
            let mut rest = String::new();
            out.read_to_string(&mut rest).unwrap();
            assert!(child.wait().unwrap().success(), "the flood failed");
            ended.store(true, SeqCst);
            let _ = end.send(rest.trim().to_owned());
        });
        Self {
            begun: Some(begun),
            over,
            report,
        }
    }

    /// Waits until acts are sent.
    pub(crate) async fn has_begun(&mut self) {
        self.begun.take().unwrap().await.unwrap();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// What it did.
    pub(crate) async fn ended(self) -> String {
        self.report.await.unwrap()
    }
}

/// The child: does as ordered, and says on standard output what it did.
pub(crate) fn run(order: &str) {
    let words: Vec<&str> = order.split(' ').collect();
    let node: SocketAddr = words[0].parse().unwrap();
    let id: NodeId = words[1].parse().unwrap();
    let spread = words[2] == "1";
    let rate: u32 = words[3].parse().unwrap();
    let time = Duration::from_secs(words[4].parse().unwrap());
    let acts: Vec<_> = (0..ACTS)
        .map(|number| {
            let start = InitiatorStart::new(key(2).node_id(), id, key(1_000_000 + number));
            start.unwrap().1
        })
        .collect();
    println!("begun");
    std::io::stdout().flush().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut open = VecDeque::with_capacity(OPEN + 1);
    let (mut sent, mut refused) = (0_u64, 0_u64);
    let began = Instant::now();
    while began.elapsed() < time {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        // What cannot be kept up with is left out: the rate that was reached is told.
        let burst = due
            .saturating_sub(sent + refused)
            .min(u64::from(rate) / 100);
        for _ in 0..burst {
            let source = if spread {
                Ipv4Addr::new(127, random.u8(1..=254), random.u8(..), random.u8(1..=254))
            } else {
                Ipv4Addr::LOCALHOST
            };
            match stranger(source, node, &acts[random.usize(..acts.len())]) {
                Ok(socket) => {
                    sent += 1;
                    open.push_back(socket);
                }
                Err(_) => refused += 1,
            }
            if open.len() > OPEN {
                open.pop_front();
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{sent} acts sent, {:.0} a second; {refused} connections not taken by the system; {:.1} s of CPU in {took:.1} s",
        sent as f64 / took,
        cpu()
    );
}

/// Never waits: what the node's backlog has no room for is not sent.
fn stranger(source: Ipv4Addr, node: SocketAddr, act: &[u8]) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
    // On loopback the connection stands when the call returns, though it says that it is in progress.
    match socket.connect(&SockAddr::from(node)) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => return Err(error),
        _ => {}
    }
    (&socket).write_all(act)?;
    Ok(socket)
}

/// `EINPROGRESS` of Linux.
const IN_PROGRESS: i32 = 115;

/// Processor time of this process so far, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}
