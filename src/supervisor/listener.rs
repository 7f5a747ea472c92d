//! Takes inbound connections: a place for each handshake, and a bounded place to wait while no signer is there.
//!
//! A stranger who connects while the signer is away is *parked*: not a byte is read, no signer is asked. So is one whose handshake
//! still lacks its ECDH when the signer goes. If a signer comes in time the handshake goes on under it, after the node's own channel
//! peers have had their start; else the socket is closed. Everything here is bounded (P9) and nothing of it can cause a signer call,
//! a stall or a shutdown while the signer is away (P5).

use super::watchman::Watchman;
use crate::error::is_of_one_connection;
use crate::limits;
use crate::link::LinkId;
use crate::link::caller::{Caller, Proceeded};
use crate::link::driver::{Admitted, Env, live_on};
use crate::link::turnstile::{Slot, Turnstile};
use crate::network::Subnet;
use crate::signer::Epoch;
use crate::telemetry::{Event, Telemetry};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Admits inbound connections for one supervisor.
pub(crate) struct Doorway {
    env: Arc<Env>,
    handshakes: Arc<Turnstile>,
    parking: Arc<Parking>,
    watchman: Arc<Watchman>,
    /// Places for handshakes of sockets that had been parked.
    unparked: Arc<Semaphore>,
    /// The newest session whose channel peers have had their turn.
    relit: watch::Receiver<Option<Epoch>>,
    /// Numbers inbound links: odd ones, while the supervisor's machine numbers outbound links evenly.
    next: AtomicU64,
}

impl Doorway {
    pub(crate) fn new(
        env: Arc<Env>,
        relit: watch::Receiver<Option<Epoch>>,
        watchman: Arc<Watchman>,
    ) -> Self {
        Self {
            env,
            handshakes: Arc::default(),
            parking: Arc::new(Parking::default()),
            watchman,
            unparked: Arc::new(Semaphore::new(limits::UNPARKED_HANDSHAKES)),
            relit,
            next: AtomicU64::new(1),
        }
    }

    /// Accepts until `stop` turns true.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut told = false;
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                // Unread, and before it has a place or a task.
                Ok((_, address)) if self.turns_away(address.ip()) => told = false,
                Ok((socket, address)) => {
                    told = false;
                    self.take(socket, address, &stop);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Once, until a connection can be taken: the next failure is a tenth of a second away.
                    if !told {
                        told = true;
                        self.tell_that_none_is_taken(&listener, &error);
                    }
                    self.env
                        .clock
                        .sleep_until(self.env.clock.now().after(limits::ACCEPT_PAUSE))
                        .await;
                }
            }
        }
    }

    /// For want of descriptors or memory. Those who wait are not refused: the kernel keeps them.
    fn tell_that_none_is_taken(&self, listener: &TcpListener, error: &std::io::Error) {
        tracing::warn!(%error, "no inbound connection can be taken; trying again");
        if let Ok(address) = listener.local_addr() {
            self.env.telemetry.emit(Event::InboundFailed {
                address,
                failure: "accept",
                detail: format!("no connection can be taken: {error}"),
            });
        }
    }

    /// Whether whoever comes from there is banned, or has used up what the signer does for strangers from there: a handshake of theirs
    /// could only fail. Counted, and told by nothing else: a flood must not fill the events.
    fn turns_away(&self, ip: IpAddr) -> bool {
        if self.watchman.turns_away(ip) {
            return true;
        }
        let declined = self.env.context.declines(ip);
        if declined {
            Telemetry::count_inbound_failed(crate::telemetry::THROTTLED);
        }
        declined
    }

    /// Gives a connection its place before the next one is accepted: so that a flood costs no more tasks than there are places, and
    /// places are taken in the order of arrival.
    fn take(
        self: &Arc<Self>,
        socket: TcpStream,
        address: SocketAddr,
        stop: &watch::Receiver<bool>,
    ) {
        let link = LinkId(self.next.fetch_add(2, Ordering::Relaxed));
        let caller = Caller::new(Arc::clone(&self.env), link, socket, address);
        let Some(entry) = self.entry(address) else {
            return;
        };
        let (doorway, stop) = (Arc::clone(self), stop.clone());
        tokio::spawn(async move { live_on(doorway.admit(caller, entry, stop).await) });
    }

    async fn admit(
        self: Arc<Self>,
        mut caller: Caller,
        entry: Entry,
        mut stop: watch::Receiver<bool>,
    ) -> Option<Admitted> {
        let mut entry = Some(entry);
        while let Some(entered) = entry {
            let (slot, unparked) = match entered {
                Entry::Handshake(slot) => (Some(slot), None),
                Entry::Parking(place) => match self.park(&mut caller, place, &mut stop).await {
                    Some(turn) => (self.enter(caller.address()), Some(turn)),
                    None => (None, None),
                },
            };
            let Some(slot) = slot else {
                break;
            };
            match caller.proceed(slot, unparked).await {
                Proceeded::Back(back) => caller = back,
                Proceeded::Admitted(admitted) => return Some(admitted),
                Proceeded::Failed => return None,
            }
            entry = self.entry(caller.address());
        }
        caller.turned_away();
        None
    }

    /// A place for a handshake, if there is a key for it now; else one to wait for a signer.
    fn entry(&self, address: SocketAddr) -> Option<Entry> {
        if self.env.context.is_live() || self.env.cached.is_some() {
            self.enter(address).map(Entry::Handshake)
        } else {
            self.enter_parking(address).map(Entry::Parking)
        }
    }

    /// A place among the handshakes under way.
    fn enter(&self, address: SocketAddr) -> Option<Slot> {
        let slot = Turnstile::enter(&self.handshakes, address.ip());
        if slot.is_none() {
            self.turn_away(
                address,
                "handshakes_full",
                "all places for handshakes are taken by such as wait for the signer",
            );
        }
        slot
    }

    /// A place to wait for a signer.
    fn enter_parking(&self, address: SocketAddr) -> Option<ParkingPlace> {
        let place = Parking::enter(&self.parking, address.ip());
        if place.is_none() {
            self.turn_away(
                address,
                "signer_away",
                "no signer, and no place left to wait for one",
            );
        }
        place
    }

    /// Waits for a signer, and then for a turn. `None`: the connection is to be closed.
    async fn park(
        &self,
        caller: &mut Caller,
        place: ParkingPlace,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<OwnedSemaphorePermit> {
        let address = caller.address();
        self.note_parked();
        let deadline = self.env.clock.sleep_until(caller.park());
        let came = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            () = closed_by_peer(caller.socket()) => None,
            () = deadline => None,
            turn = self.turn() => turn,
        };
        drop(place);
        self.note_parked();
        if came.is_none() {
            self.turn_away(
                address,
                "signer_away",
                "no signer came while the connection was parked",
            );
        }
        came
    }

    /// The turn of one who is parked: a signer is there, its channel peers are back or have had their start, and one of the places
    /// for handshakes that those who waited may take is free. So a returning signer has time for the node's own dials first.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let mut signer = self.env.context.subscribe();
        let mut relit = self.relit.clone();
        let clock = &self.env.clock;
        loop {
            let state = *signer.wait_for(|state| state.live().is_some()).await.ok()?;
            let start = clock.sleep_until(clock.now().after(limits::PARKED_GIVE_WAY));
            tokio::select! {
                biased;
                _ = relit.wait_for(|epoch| *epoch >= state.live()) => {}
                () = start => {}
            }
            let turn = Arc::clone(&self.unparked).acquire_owned().await.ok()?;
            if self.env.context.is_live() {
                return Some(turn);
            }
        }
    }

    /// Inbound sockets that wait for a signer.
    pub(super) fn parked(&self) -> usize {
        self.parking.occupied()
    }

    /// Addresses and nodes that are banned.
    pub(super) fn bans(&self) -> usize {
        self.watchman.bans()
    }

    fn note_parked(&self) {
        self.env.telemetry.emit(Event::Parked {
            now: self.parking.occupied(),
        });
    }

    fn turn_away(&self, address: SocketAddr, failure: &'static str, detail: &str) {
        self.env.telemetry.emit(Event::InboundFailed {
            address,
            failure,
            detail: detail.to_owned(),
        });
    }
}

/// Ready once the peer has closed its side without having sent anything. Peeks: what it has sent stays for the handshake.
async fn closed_by_peer(socket: &TcpStream) {
    let mut first = [0];
    match socket.peek(&mut first).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

/// The places where inbound sockets wait for a signer.
#[derive(Default)]
struct Parking {
    by_subnet: Mutex<HashMap<Subnet, usize>>,
}

/// What a connection is given.
enum Entry {
    /// A place among the handshakes under way.
    Handshake(Slot),
    /// A place to wait for a signer.
    Parking(ParkingPlace),
}

/// A place that is given back when it is dropped.
struct ParkingPlace {
    parking: Arc<Parking>,
    subnet: Subnet,
}

impl Parking {
    fn enter(this: &Arc<Self>, ip: IpAddr) -> Option<ParkingPlace> {
        let subnet = Subnet::of(ip);
        let mut places = this.lock();
        if places.values().sum::<usize>() >= limits::PARKED_MAX {
            return None;
        }
        let here = places.entry(subnet).or_default();
        if *here >= limits::PARKED_PER_SUBNET {
            return None;
        }
        *here += 1;
        drop(places);
        Some(ParkingPlace {
            parking: Arc::clone(this),
            subnet,
        })
    }

    fn occupied(&self) -> usize {
        self.lock().values().sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Subnet, usize>> {
        self.by_subnet
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ParkingPlace {
    fn drop(&mut self) {
        let mut places = self.parking.lock();
        if let Some(here) = places.get_mut(&self.subnet) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                places.remove(&self.subnet);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse()
            .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }

    #[test]
    fn p9_parking_is_bounded_for_each_subnet_and_in_all() {
        let parking = Arc::new(Parking::default());
        let mut places = Vec::new();
        for _ in 0..limits::PARKED_PER_SUBNET {
            places.extend(Parking::enter(&parking, ip("192.0.2.1")));
        }
        assert_eq!(places.len(), limits::PARKED_PER_SUBNET);
        assert!(
            Parking::enter(&parking, ip("192.0.2.200")).is_none(),
            "the same /24"
        );
        assert!(
            Parking::enter(&parking, ip("::ffff:192.0.2.7")).is_none(),
            "the same /24, written as IPv6"
        );
        for third in 0..u8::MAX {
            places.extend(Parking::enter(&parking, ip(&format!("198.51.{third}.1"))));
        }
        assert_eq!(places.len(), limits::PARKED_MAX);
        assert_eq!(parking.occupied(), limits::PARKED_MAX);
        places.clear();
        assert_eq!(parking.occupied(), 0);
        assert!(Parking::enter(&parking, ip("2001:db8:1::1")).is_some());
    }
}
