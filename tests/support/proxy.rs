//! A TCP proxy on loopback that a test commands: it forwards, delays, falls silent, cuts or closes, all connections at once; and it
//! strikes a single connection with a [`Fault`], at a byte of one direction that the test names.
//!
//! It stands for the network between two real parts. What it holds back is bounded, as a network is: beyond it the senders' TCP
//! pushes back. It never looks at a byte, and changes or reorders none but where it was told to strike. A strike needs no clock: what
//! is late or narrow passes when the test says so.
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
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Bytes that one direction of one connection may hold back: 50 ms of 160 Mbit/s.
const HELD_MAX: usize = 1 << 20;
/// Bytes taken from a socket at a time.
const CHUNK: usize = 16 * 1024;
/// Bytes that drip one by one.
const DRIPPED: usize = 400;
/// Bytes that change places with as many that follow them.
const SWAPPED: usize = 8;
/// Bytes that a narrow direction holds, beyond what the kernel does.
const NARROW_HELD: usize = 4096;

/// A direction of a connection, as seen from whoever dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// To the proxy's target.
    Up,
    /// From it.
    Down,
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The next bytes come one by one.
    Drip,
    /// What comes next is late: it waits until the test [lets it go](Proxy::release).
    Delay,
    /// From here on only as many bytes pass as the test [grants](Proxy::grant).
    Narrow,
    /// A bit changes.
    Flip,
    /// Two writes change places.
    Reorder,
    /// FIN, to both ends.
    Cut,
    /// RST, to both ends.
    Reset,
    /// Nothing passes any more, either way, and both ends stay open.
    HalfOpen,
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::Drip,
        Self::Delay,
        Self::Narrow,
        Self::Flip,
        Self::Reorder,
        Self::Cut,
        Self::Reset,
        Self::HalfOpen,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drip => "drip",
            Self::Delay => "delay",
            Self::Narrow => "narrow",
            Self::Flip => "flip",
            Self::Reorder => "reorder",
            Self::Cut => "cut",
            Self::Reset => "reset",
            Self::HalfOpen => "half-open",
        }
    }

    /// Whether every byte still comes, in its order.
    pub(crate) fn is_mild(self) -> bool {
        matches!(self, Self::Drip | Self::Delay | Self::Narrow)
    }
}

/// Where a fault strikes, once: the first connection that gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// That many bytes after the connection's beginning.
    At(usize),
    /// That many bytes after the beginning of what is said in the n-th turn, from 1: a turn begins when the other end has spoken.
    Turn(usize, usize),
}

#[derive(Debug, Clone, Copy)]
struct Strike {
    way: Way,
    place: Place,
    fault: Fault,
}

/// What the proxy is told to do.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    silent: bool,
    delay: Duration,
    /// How often it has been told to cut, and to close, what is open then.
    cuts: u64,
    closes: u64,
    /// How often it has been told to let go what is late, and how many bytes narrow directions may have passed.
    releases: u64,
    granted: usize,
}

/// A running proxy. Dropping it drops its connections.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    orders: watch::Sender<Orders>,
    open: watch::Receiver<usize>,
    /// Bytes passed on, up and down.
    passed: [Arc<AtomicUsize>; 2],
    blow: Arc<Blow>,
    listening: JoinHandle<()>,
}

/// The strike that is to come, and what is to be known of strikes.
struct Blow {
    aim: Mutex<Aim>,
    /// How many have struck.
    struck: watch::Sender<usize>,
    /// Bytes that have passed where it is narrow.
    squeezed: watch::Sender<usize>,
}

/// One lock for both: who aims ahead of what has come must not be overtaken by what comes.
#[derive(Default)]
struct Aim {
    armed: Option<Strike>,
    /// Bytes that the newest connection has taken in, up and down.
    newest: [usize; 2],
}

impl Blow {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            aim: Mutex::default(),
            struck: watch::Sender::new(0),
            squeezed: watch::Sender::new(0),
        })
    }

    /// A fault has taken effect.
    fn has_struck(&self) {
        self.struck.send_modify(|struck| *struck += 1);
    }

    /// These bytes have come: the fault that strikes in them, and how far in. It will strike nowhere else.
    fn strikes(&self, way: Way, from: usize, length: usize, turn: Turn) -> Option<(usize, Fault)> {
        let mut aim = lock(&self.aim);
        aim.newest[way as usize] = from + length;
        let strike = aim.armed.filter(|strike| strike.way == way)?;
        let at = match strike.place {
            Place::At(at) => at.checked_sub(from)?,
            Place::Turn(number, after) if number == turn.number => {
                (turn.began + after).checked_sub(from)?
            }
            Place::Turn(..) => return None,
        };
        if at >= length {
            return None;
        }
        aim.armed = None;
        Some((at, strike.fault))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens on loopback, and connects to `target` for each connection that it takes.
    pub(crate) fn start(target: SocketAddr) -> Self {
        Self::start_with(target, None)
    }

    /// As [`start`](Self::start). `held_by_kernel`: the receive buffers of its sockets, so that what it does not take stays with who
    /// sends; `None`: the system's, of many megabytes.
    pub(crate) fn start_with(target: SocketAddr, held_by_kernel: Option<u32>) -> Self {
        let socket = move || {
            let socket = TcpSocket::new_v4()?;
            if let Some(bytes) = held_by_kernel {
                // Before there is a connection: it bounds the window from the beginning. Whoever is accepted has the listener's.
                socket.set_recv_buffer_size(bytes)?;
            }
            io::Result::Ok(socket)
        };
        let listening = socket().unwrap();
        listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listening.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, ordered) = watch::channel(Orders::default());
        let (count, open) = watch::channel(0);
        let passed: [Arc<AtomicUsize>; 2] = Default::default();
        let totals = passed.clone();
        let blow = Blow::new();
        let strikes = Arc::clone(&blow);
        let listening = tokio::spawn(async move {
            // They end with the proxy.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((near, _)) = listener.accept().await else {
                    return;
                };
                let far = match socket() {
                    Ok(socket) => socket.connect(target).await,
                    Err(error) => Err(error),
                };
                let Ok(far) = far else {
                    reset(&near);
                    continue;
                };
                while connections.try_join_next().is_some() {}
                lock(&strikes.aim).newest = [0; 2];
                let pair = Pair {
                    near,
                    far,
                    passed: totals.clone(),
                    blow: Arc::clone(&strikes),
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
            blow,
            listening,
        }
    }

    /// Strikes with that fault, once, there.
    pub(crate) fn arm(&self, way: Way, place: Place, fault: Fault) {
        lock(&self.blow.aim).armed = Some(Strike { way, place, fault });
    }

    /// Strikes so many bytes from now, on the newest connection. Of use while nothing is on its way.
    pub(crate) fn arm_ahead(&self, way: Way, ahead: usize, fault: Fault) {
        let mut aim = lock(&self.blow.aim);
        let place = Place::At(aim.newest[way as usize] + ahead);
        aim.armed = Some(Strike { way, place, fault });
    }

    /// How many strikes there have been.
    pub(crate) fn struck(&self) -> usize {
        *self.blow.struck.borrow()
    }

    /// Waits until there have been so many.
    pub(crate) async fn until_struck(&self, count: usize) {
        let mut struck = self.blow.struck.subscribe();
        struck.wait_for(|struck| *struck >= count).await.unwrap();
    }

    /// What a [delay](Fault::Delay) has held back passes on.
    pub(crate) fn release(&self) {
        self.orders.send_modify(|orders| orders.releases += 1);
    }

    /// Narrow directions may pass so many more bytes, together.
    pub(crate) fn grant(&self, bytes: usize) {
        self.orders.send_modify(|orders| orders.granted += bytes);
    }

    /// Waits until so many bytes have passed in narrow directions.
    pub(crate) async fn until_squeezed(&self, bytes: usize) {
        let mut squeezed = self.blow.squeezed.subscribe();
        squeezed
            .wait_for(|squeezed| *squeezed >= bytes)
            .await
            .unwrap();
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
    blow: Arc<Blow>,
}

/// What one connection's directions know of each other.
struct Between {
    /// Which end spoke last, and the turns of each.
    turns: Mutex<(Option<Way>, [Turn; 2])>,
    /// The connection is half-open.
    mute: watch::Sender<bool>,
}

/// What one end says before the other speaks again.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    number: usize,
    /// Where it began, in bytes of its direction.
    began: usize,
}

impl Between {
    /// Somebody speaks, from that byte of the direction on.
    fn speaks(&self, way: Way, at: usize) -> Turn {
        let (last, turns) = &mut *lock(&self.turns);
        let turn = &mut turns[way as usize];
        if *last != Some(way) {
            *last = Some(way);
            *turn = Turn {
                number: turn.number + 1,
                began: at,
            };
        }
        *turn
    }
}

/// How a connection ends before both of its ends have closed it.
enum Ending {
    /// RST to both.
    Reset,
    /// FIN to both.
    Closed,
}

impl From<io::Error> for Ending {
    fn from(_: io::Error) -> Self {
        Self::Reset
    }
}

impl Pair {
    async fn run(self, ordered: watch::Receiver<Orders>) {
        let Self {
            near,
            far,
            passed,
            blow,
        } = self;
        let [up, down] = &passed;
        // A segment is a segment: small ones are passed on at once.
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let between = Between {
            turns: Mutex::default(),
            mute: watch::Sender::new(false),
        };
        let mut ending = ordered.clone();
        let first = *ending.borrow();
        let ended = async {
            let ended = ending.wait_for(|now| now.cuts > first.cuts || now.closes > first.closes);
            match ended.await {
                Ok(now) if now.cuts == first.cuts => Ending::Closed,
                _ => Ending::Reset,
            }
        };
        let line = |way, passed| Line::new(way, &blow, &between, passed);
        let both = async {
            tokio::try_join!(
                pump(&near, &far, line(Way::Up, up), ordered.clone()),
                pump(&far, &near, line(Way::Down, down), ordered.clone())
            )
        };
        let ending = tokio::select! {
            biased;
            ending = ended => ending,
            passed = both => match passed {
                Ok(_) => return,
                Err(ending) => ending,
            },
        };
        if let Ending::Reset = ending {
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

/// What lies on the line.
enum Piece {
    Bytes(Bytes),
    /// Whoever sent has closed its direction.
    Over,
    Fault(Fault),
}

/// One direction of one connection: a line on which every chunk lies until it is due.
struct Line<'a> {
    way: Way,
    blow: &'a Blow,
    between: &'a Between,
    passed: &'a AtomicUsize,
    pieces: VecDeque<(Instant, Piece)>,
    held: usize,
    /// Bytes that have been taken in.
    taken: usize,
    over: bool,
    /// Bytes that are still to drip.
    drips: usize,
    /// What waits to change places.
    swapping: Option<BytesMut>,
    /// The orders when the fault struck.
    since: Orders,
    /// Told to let go so often when it was struck.
    late_since: Option<u64>,
    /// What it has passed of what was granted, since it is narrow.
    narrow: Option<usize>,
}

impl<'a> Line<'a> {
    fn new(way: Way, blow: &'a Blow, between: &'a Between, passed: &'a AtomicUsize) -> Self {
        Self {
            way,
            blow,
            between,
            passed,
            pieces: VecDeque::new(),
            held: 0,
            taken: 0,
            over: false,
            drips: 0,
            swapping: None,
            since: Orders::default(),
            late_since: None,
            narrow: None,
        }
    }

    /// Takes in what has come; nothing is the end, which travels on the line as everything does.
    fn take(&mut self, mut chunk: BytesMut, orders: Orders) {
        let due = Instant::now() + orders.delay;
        if chunk.is_empty() {
            self.over = true;
            self.pieces.push_back((due, Piece::Over));
            return;
        }
        let (from, length) = (self.taken, chunk.len());
        self.taken += length;
        let turn = self.between.speaks(self.way, from);
        let Some((ahead, fault)) = self.blow.strikes(self.way, from, length, turn) else {
            return self.lay(chunk, due);
        };
        self.lay(chunk.split_to(ahead), due);
        self.since = orders;
        match fault {
            Fault::Flip => chunk[0] ^= 1 << (ahead % 8),
            Fault::Drip => self.drips = DRIPPED,
            Fault::Reorder => self.swapping = Some(BytesMut::new()),
            _ => {}
        }
        self.pieces.push_back((due, Piece::Fault(fault)));
        self.lay(chunk, due);
    }

    /// Lays bytes on the line: in their order, but where two writes change places.
    fn lay(&mut self, mut chunk: BytesMut, due: Instant) {
        if let Some(mut waiting) = self.swapping.take() {
            waiting
                .extend_from_slice(&chunk.split_to(chunk.len().min(2 * SWAPPED - waiting.len())));
            if waiting.len() < 2 * SWAPPED {
                self.swapping = Some(waiting);
                return;
            }
            let second = waiting.split_off(SWAPPED);
            self.push(second, due);
            self.push(waiting, due);
        }
        let dripping = chunk.split_to(chunk.len().min(self.drips));
        self.drips -= dripping.len();
        for byte in dripping {
            self.push(BytesMut::from(&[byte][..]), due);
        }
        self.push(chunk, due);
    }

    fn push(&mut self, bytes: BytesMut, due: Instant) {
        if !bytes.is_empty() {
            self.held += bytes.len();
            self.pieces.push_back((due, Piece::Bytes(bytes.freeze())));
        }
    }

    /// How many bytes may pass now.
    fn allowed(&self, orders: &Orders) -> usize {
        if orders.silent || *self.between.mute.borrow() {
            return 0;
        }
        match (self.late_since, self.narrow) {
            (Some(since), _) if orders.releases == since => 0,
            (_, Some(used)) => orders.granted.saturating_sub(used),
            _ => usize::MAX,
        }
    }

    fn has_room(&self) -> bool {
        let most = if self.narrow.is_some() {
            NARROW_HELD
        } else {
            HELD_MAX
        };
        !self.over && self.held < most
    }

    /// Does what is due: writes what the kernel takes of a chunk, at most so many bytes, or strikes.
    fn act(&mut self, to: &TcpStream, most: usize) -> Result<(), Ending> {
        let Some((_, piece)) = self.pieces.front_mut() else {
            return Ok(());
        };
        match piece {
            Piece::Bytes(bytes) => {
                let part = &bytes[..bytes.len().min(most)];
                match to.try_write(part) {
                    Ok(count) => {
                        bytes.advance(count);
                        let done = bytes.is_empty();
                        self.held -= count;
                        self.passed.fetch_add(count, SeqCst);
                        if let Some(used) = &mut self.narrow {
                            *used += count;
                            self.blow.squeezed.send_modify(|bytes| *bytes += count);
                        }
                        if !done {
                            return Ok(());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            Piece::Over => SockRef::from(to).shutdown(Shutdown::Write)?,
            Piece::Fault(fault) => {
                let fault = *fault;
                self.suffer(fault);
                self.blow.has_struck();
                match fault {
                    Fault::Cut => return Err(Ending::Closed),
                    Fault::Reset => return Err(Ending::Reset),
                    _ => {}
                }
            }
        }
        self.pieces.pop_front();
        Ok(())
    }

    fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::HalfOpen => {
                self.between.mute.send_replace(true);
            }
            Fault::Delay => self.late_since = Some(self.since.releases),
            Fault::Narrow => self.narrow = Some(self.since.granted),
            // These end the connection, or have changed the bytes already.
            Fault::Cut | Fault::Reset | Fault::Drip | Fault::Flip | Fault::Reorder => {}
        }
    }
}

/// Runs one direction.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    mut line: Line<'_>,
    mut ordered: watch::Receiver<Orders>,
) -> Result<(), Ending> {
    let mut mute = line.between.mute.subscribe();
    loop {
        let orders = *ordered.borrow_and_update();
        let is_mute = *mute.borrow_and_update();
        if line.over && line.pieces.is_empty() {
            return Ok(());
        }
        let due = line.pieces.front().map(|(due, _)| *due);
        let allowed = line.allowed(&orders);
        let sendable = async {
            // The timer is no finer than a millisecond.
            if let Some(due) = due.filter(|due| *due > Instant::now()) {
                sleep_until(due).await;
            }
            to.writable().await
        };
        tokio::select! {
            biased;
            changed = ordered.changed() => {
                if changed.is_err() {
                    return Err(Ending::Reset);
                }
            }
            _ = mute.changed() => {}
            ready = sendable, if due.is_some() && allowed > 0 => {
                ready?;
                let is_drop = matches!(line.pieces.front(), Some((_, Piece::Bytes(bytes))) if bytes.len() == 1);
                line.act(to, allowed)?;
                if is_drop {
                    // Whoever reads is given the time to see it alone.
                    tokio::task::yield_now().await;
                }
            }
            ready = from.readable(), if line.has_room() && !orders.silent && !is_mute => {
                ready?;
                let mut chunk = BytesMut::with_capacity(CHUNK);
                match from.try_read_buf(&mut chunk) {
                    Ok(_) => line.take(chunk, orders),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}
