//! Floors: what bare sockets take for the same work on the same machine in the same run.
//!
//! Each is the least that does it: connections that are waited on or reset and nothing else, an echo without a cipher. Of the fence it is
//! a bare gate with sealed writes in it and the same competition for processors, in the best of three ways to wait for it.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use pilotlight::brontide::FRAME_OVERHEAD;
use pilotlight::limits::{FENCE_SLEEP_MICROS, FENCE_SPINS, GATE_WRITE_MAX};
use pilotlight::link::raw::RawLink;
use pilotlight::wire::Init;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::child::{Child, raise_descriptors};
use crate::crowd::{address, key};
use crate::links::{Connections, settled};
use crate::node::{Who, runtime, runtime_of};
use crate::shake::{self, shake};

/// A message of 430 bytes as it is on the wire.
const FRAME: usize = 430 + FRAME_OVERHEAD;
/// Dials at once.
const DIALS: u64 = 256;

/// What a far side does with what comes.
#[derive(Clone, Copy)]
pub(crate) enum Far {
    /// Sends every frame back.
    Echoes,
    /// Opens every frame, as a peer does: it wants a processor for that.
    Opens,
    /// Throws it away.
    Reads,
}

/// A far side. Runs until its input ends.
pub(crate) fn run(far: Far) {
    raise_descriptors(1_000);
    let runtime = runtime();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    println!("{}", listener.local_addr().unwrap());
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).unwrap();
            tokio::spawn(serve(socket, far));
        }
    });
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

async fn serve(mut socket: TcpStream, far: Far) {
    let mut session = matches!(far, Far::Opens).then(|| shake(&shake::key(1), &shake::key(2)).1);
    let mut bytes = BytesMut::with_capacity(64 * 1024);
    while socket
        .read_buf(&mut bytes)
        .await
        .is_ok_and(|count| count > 0)
    {
        match far {
            Far::Echoes if bytes.len() < FRAME => {}
            Far::Echoes => socket.write_all(&bytes.split_to(FRAME)).await.unwrap(),
            Far::Opens => {
                let session = session.as_mut().unwrap();
                while session.open(&mut bytes).unwrap().is_some() {}
            }
            Far::Reads => bytes.clear(),
        }
        bytes.reserve(64 * 1024);
    }
}

/// One connection to a far side that echoes.
pub(crate) struct Echo {
    runtime: Runtime,
    socket: Arc<TcpStream>,
    _far: Child,
}

impl Echo {
    pub(crate) fn new() -> Self {
        let mut far = Child::spawn("echo");
        let (runtime, place) = (runtime(), far.hear());
        let socket = runtime.block_on(TcpStream::connect(place)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            runtime,
            socket: Arc::new(socket),
            _far: far,
        }
    }

    /// Round trips of single frames, in µs.
    pub(crate) fn round_trips(&self, who: Who, count: usize) -> Vec<f64> {
        who.runs(&self.runtime, echo(Arc::clone(&self.socket), count))
    }
}

async fn echo(socket: Arc<TcpStream>, count: usize) -> Vec<f64> {
    let (mut frame, mut took) = ([7; FRAME], Vec::with_capacity(count));
    for _ in 0..count {
        let start = Instant::now();
        // There is room: nothing else is on its way.
        assert_eq!(socket.try_write(&frame).unwrap(), FRAME);
        let mut read = 0;
        while read < FRAME {
            socket.readable().await.unwrap();
            match socket.try_read(&mut frame[read..]) {
                Ok(count) => read += count,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        took.push(start.elapsed().as_secs_f64() * 1e6);
    }
    took
}

/// Milliseconds until the far sides of so many connections have seen their ends, when nothing is done but to reset them.
pub(crate) fn measure_resets(links: u64) -> Vec<f64> {
    let mut waited_on = WaitedOn::new(links);
    let start = Instant::now();
    waited_on.reset();
    assert_eq!(waited_on.crowd.ask(&format!("ended {links}")), "yes");
    vec![start.elapsed().as_secs_f64() * 1e3]
}

/// The same until the kernel has closed them all, while the far sides are stopped.
pub(crate) fn measure_closings(links: u64) -> Vec<f64> {
    let waited_on = WaitedOn::new(links);
    waited_on.crowd.stop();
    let open = Connections::count();
    let start = Instant::now();
    waited_on.reset();
    open.until_fewer_by(2 * links);
    vec![start.elapsed().as_secs_f64() * 1e3]
}

/// Connections to a crowd. As in a node, a task waits on each in a runtime; it ends, and that is all.
struct WaitedOn {
    ends: Vec<Arc<RawLink>>,
    crowd: Child,
    _runtime: Runtime,
}

impl WaitedOn {
    fn new(links: u64) -> Self {
        raise_descriptors(links);
        let runtime = runtime();
        let mut crowd = Child::spawn(&format!("crowd {links}"));
        let port = crowd.hear().parse().unwrap();
        let ends = runtime.block_on(connect(links, port));
        assert_eq!(crowd.ask(&format!("up {links}")), "yes");
        for end in &ends {
            let end = Arc::clone(end);
            runtime.spawn(async move { until_over(end.socket()).await });
        }
        thread::sleep(Duration::from_millis(500));
        Self {
            ends,
            crowd,
            _runtime: runtime,
        }
    }

    /// One after the other on each processor.
    fn reset(&self) {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for part in self.ends.chunks(self.ends.len().div_ceil(processors)) {
                scope.spawn(move || {
                    for end in part {
                        // With RST, as a lapse does.
                        rustix::net::connect_unspec(end.socket().as_fd()).unwrap();
                    }
                });
            }
        });
    }
}

/// Waits for the end of a connection on which nothing comes.
async fn until_over(socket: &TcpStream) {
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Resident bytes of a connection and a task that waits on it, of so many.
pub(crate) fn measure_waits(links: u64) -> Vec<f64> {
    raise_descriptors(links);
    let runtime = runtime();
    let mut crowd = Child::spawn(&format!("crowd {links}"));
    let port = crowd.hear().parse().unwrap();
    let before = settled();
    for number in 1..=links {
        let address = address(number, port);
        let socket = runtime.block_on(TcpStream::connect(address)).unwrap();
        runtime.spawn(async move { until_over(&socket).await });
    }
    vec![(settled() - before) / links as f64]
}

async fn connect(links: u64, port: u16) -> Vec<Arc<RawLink>> {
    let mut ends = Vec::new();
    let numbers: Vec<u64> = (1..=links).collect();
    for some in numbers.chunks(DIALS as usize) {
        let dials: Vec<_> = some
            .iter()
            .map(|&number| tokio::spawn(dial(number, port)))
            .collect();
        for dial in dials {
            ends.push(Arc::new(dial.await.unwrap()));
        }
    }
    ends
}

async fn dial(number: u64, port: u16) -> RawLink {
    let peer = key(number).node_id();
    let own = Arc::new(key(20_000_000));
    let link = RawLink::connect(address(number, port), own, peer).await;
    let mut link = link.unwrap();
    link.send(&Init::gossip(vec![]).encode()).await.unwrap();
    let _ = link.receive().await.unwrap();
    link
}

/// How a thread waits for a gate to be empty: after as many looks as the fence's, unless it only looks.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    Spin,
    Yield,
    /// As the fence does.
    Sleep,
}

impl Wait {
    pub(crate) const ALL: [Self; 3] = [Self::Spin, Self::Yield, Self::Sleep];

    /// So many figures of each, those of one wait together.
    fn each(samples: u64, mut take: impl FnMut(Self) -> f64) -> Vec<f64> {
        let of_each = samples as usize / Self::ALL.len();
        let waits = Self::ALL
            .into_iter()
            .flat_map(|wait| std::iter::repeat_n(wait, of_each));
        waits.map(&mut take).collect()
    }
}

/// A gate as the fence has it: `count << 1 | closed`.
#[derive(Default)]
struct Gate(AtomicUsize);

impl Gate {
    fn inside<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        if self.0.load(Ordering::Acquire) & 1 == 1 {
            return None;
        }
        let open = self.0.fetch_add(2, Ordering::Acquire) & 1 == 0;
        let done = open.then(work);
        self.0.fetch_sub(2, Ordering::Release);
        done
    }

    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) < 2
    }

    /// Closes the gate and waits until it is empty.
    fn close(&self, wait: Wait) {
        self.0.fetch_or(1, Ordering::Release);
        let mut spins = FENCE_SPINS;
        while !self.is_empty() {
            match wait {
                Wait::Spin => std::hint::spin_loop(),
                _ if spins > 0 => {
                    spins -= 1;
                    std::hint::spin_loop();
                }
                Wait::Yield => thread::yield_now(),
                Wait::Sleep => thread::sleep(Duration::from_micros(FENCE_SLEEP_MICROS)),
            }
        }
    }

    /// Closes the gate and opens it again. Microseconds until it was closed and empty.
    fn time_close(&self, wait: Wait) -> f64 {
        let start = Instant::now();
        self.close(wait);
        let took = start.elapsed();
        self.0.fetch_and(!1, Ordering::Release);
        took.as_secs_f64() * 1e6
    }
}

/// Microseconds of so many closings of a gate in which as many tasks as there are processors write what they have sealed, 16 KiB at a
/// time, each to a socket of its own, which a process beside this one reads and opens.
pub(crate) fn measure_gates(samples: u64) -> Vec<f64> {
    let mut far = Child::spawn("opens");
    let (runtime, place) = (runtime(), far.hear());
    let gate = Arc::new(Gate::default());
    let processors = thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..processors {
        let socket = runtime.block_on(TcpStream::connect(&place)).unwrap();
        runtime.spawn(write(vec![socket], Arc::clone(&gate), GATE_WRITE_MAX));
    }
    Wait::each(samples, |wait| {
        thread::sleep(Duration::from_millis(25));
        gate.time_close(wait)
    })
}

/// The same where each thread that runs has a processor: one task writes, to as many sockets and a frame at a time, and who would read is
/// stopped.
pub(crate) fn measure_gates_apart(samples: u64, sockets: u64) -> Vec<f64> {
    let mut far = Child::spawn("sink");
    let (runtime, place) = (runtime_of(1), far.hear());
    Wait::each(samples, |wait| {
        let connect = || runtime.block_on(TcpStream::connect(&place)).unwrap();
        let sockets = (0..sockets).map(|_| connect()).collect();
        far.stop();
        let gate = Arc::new(Gate::default());
        let writer = runtime.spawn(write(sockets, Arc::clone(&gate), FRAME));
        thread::sleep(Duration::from_millis(5));
        let took = gate.time_close(wait);
        writer.abort();
        let _ = runtime.block_on(writer);
        far.go_on();
        took
    })
}

/// Seals messages and writes them to the sockets in turn, up to so many bytes at once.
async fn write(sockets: Vec<TcpStream>, gate: Arc<Gate>, most: usize) {
    let (mut session, _) = shake(&shake::key(1), &shake::key(2));
    let message = [7; FRAME - FRAME_OVERHEAD];
    let mut bytes = BytesMut::with_capacity(most);
    loop {
        for socket in &sockets {
            while bytes.len() + FRAME <= most {
                session.seal(&message, &mut bytes).unwrap();
            }
            if let [socket] = &sockets[..] {
                socket.writable().await.unwrap();
            }
            let written = gate.inside(|| socket.try_write(&bytes));
            if let Some(Ok(count)) = written {
                bytes.advance(count);
            }
            tokio::task::yield_now().await;
        }
    }
}
