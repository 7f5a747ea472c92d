//! The way to a peer's address: straight to it, by way of a name's answers, or through a proxy; and what is never dialled.
//!
//! ```text
//!              ours? ──▶ refused
//!                │
//!   onion, or all through the proxy?  ── yes ──▶ proxy, which looks names up
//!                │ no
//!   a name ──▶ resolver ──▶ answers ──▶ each checked as an address is ──▶ tried in turn
//! ```
//!
//! A learned address is dialled only if it is globally routable, and what a name stands for is checked at each dial: a name that has
//! been turned to an address within our own network since it was looked at leads nowhere. It never dials ourselves.

use super::handshake::HandshakeFailure;
use super::resolver::Resolver;
use super::socks::{self, Circuit, ProxyError};
use crate::address::{AddressOrigin, DnsName, KnownAddress, PeerAddress, is_one_machine};
use crate::clock::Clock;
use crate::limits;
use crate::routable::is_routable;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use tokio::net::TcpStream;

/// What the operator has said of the ways out.
#[derive(Clone)]
pub(crate) struct Ways {
    pub(crate) resolver: Arc<dyn Resolver>,
    /// A SOCKS5 proxy to Tor.
    pub(crate) proxy: Option<SocketAddr>,
    /// All dials go through the proxy.
    pub(crate) everything: bool,
    /// Those under a persona do.
    pub(crate) personas: bool,
    /// Where the node says that it is.
    pub(crate) announced: Vec<PeerAddress>,
}

/// Whether whoever comes from an address is banned.
pub(crate) type IsBanned = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// How dials leave this machine.
pub(crate) struct Reach {
    ways: Ways,
    /// The circuits of the node's own key.
    circuit: Circuit,
    /// Where we listen.
    listening: RwLock<Vec<SocketAddr>>,
    /// Who is banned, once it is known whom to ask.
    is_banned: OnceLock<IsBanned>,
}

/// A dial to be made.
pub(super) struct Target<'a> {
    pub(super) known: &'a KnownAddress,
    /// The persona's; `None`: it is made under the node's own key.
    pub(super) persona: Option<&'a Circuit>,
}

impl Reach {
    pub(crate) fn new(ways: Ways, circuit: Circuit) -> Self {
        Self {
            ways,
            circuit,
            listening: RwLock::default(),
            is_banned: OnceLock::new(),
        }
    }

    /// From now on no persona dials an address of which this is true. The first word counts.
    pub(crate) fn personas_avoid(&self, is_banned: IsBanned) {
        let _ = self.is_banned.set(is_banned);
    }

    /// We listen there from now on.
    pub(crate) fn listens(&self, address: SocketAddr) {
        let mut listening = self
            .listening
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if !listening.contains(&address) {
            listening.push(address);
        }
    }

    /// Connects. Returns what it is connected to, too; through a proxy, what the proxy was asked for.
    pub(super) async fn connect(
        &self,
        clock: &dyn Clock,
        target: Target<'_>,
    ) -> Result<(TcpStream, PeerAddress), HandshakeFailure> {
        let (address, origin) = (&target.known.address, target.known.origin);
        if self.ways.announced.contains(address) {
            return Err(HandshakeFailure::OwnAddress(address.clone()));
        }
        if let PeerAddress::Ip(place) = address {
            self.check(*place, origin)?;
            self.check_bans(*place, &target)?;
        }
        let persona = self.ways.personas && target.persona.is_some();
        if address.is_onion() || self.ways.everything || persona {
            let circuit = target.persona.unwrap_or(&self.circuit);
            let socket = self.through_proxy(clock, address, circuit).await?;
            return Ok((socket, address.clone()));
        }
        let places = match address {
            PeerAddress::Ip(place) => vec![*place],
            PeerAddress::Dns { name, port } => self.look_up(clock, name, *port).await?,
            PeerAddress::Onion { .. } => return Err(HandshakeFailure::NoProxy),
        };
        let (socket, place) = self.try_in_turn(clock, &places, &target).await?;
        Ok((socket, place.into()))
    }

    async fn try_in_turn(
        &self,
        clock: &dyn Clock,
        places: &[SocketAddr],
        target: &Target<'_>,
    ) -> Result<(TcpStream, SocketAddr), HandshakeFailure> {
        let mut failure = None;
        let trying = async {
            for place in places {
                let allowed = self
                    .check(*place, target.known.origin)
                    .and_then(|()| self.check_bans(*place, target));
                let tried = match allowed {
                    Ok(()) => connect(clock, *place).await,
                    Err(refused) => Err(refused),
                };
                match tried {
                    Ok(socket) => return Some((socket, *place)),
                    // That one of many must not be dialled says less than that another does not answer.
                    Err(HandshakeFailure::NotRoutable(_) | HandshakeFailure::Banned(_))
                        if failure.is_some() => {}
                    Err(error) => failure = Some(error),
                }
            }
            None
        };
        let deadline = clock.sleep_until(clock.now().after(limits::DIAL_DEADLINE));
        let found = tokio::select! {
            found = trying => found,
            () = deadline => None,
        };
        found.ok_or_else(|| failure.unwrap_or(HandshakeFailure::ConnectTimeout))
    }

    /// At least one address.
    async fn look_up(
        &self,
        clock: &dyn Clock,
        name: &DnsName,
        port: u16,
    ) -> Result<Vec<SocketAddr>, HandshakeFailure> {
        let unresolved = |why: String| HandshakeFailure::Resolve {
            name: name.clone(),
            why,
        };
        let deadline = clock.sleep_until(clock.now().after(limits::RESOLVE_DEADLINE));
        let found = tokio::select! {
            found = self.ways.resolver.resolve(name, port) => {
                found.map_err(|error| unresolved(error.to_string()))?
            }
            () = deadline => {
                let patience = limits::RESOLVE_DEADLINE.as_secs();
                return Err(unresolved(format!("no answer within {patience} s")));
            }
        };
        let mut places: Vec<SocketAddr> = Vec::new();
        for mut place in found {
            place.set_port(port);
            if !places.contains(&place) && places.len() < limits::RESOLVED_MAX {
                places.push(place);
            }
        }
        if places.is_empty() {
            return Err(unresolved("it stands for no address".to_owned()));
        }
        Ok(places)
    }

    async fn through_proxy(
        &self,
        clock: &dyn Clock,
        target: &PeerAddress,
        circuit: &Circuit,
    ) -> Result<TcpStream, HandshakeFailure> {
        let proxy = self.ways.proxy.ok_or(HandshakeFailure::NoProxy)?;
        let deadline = clock.sleep_until(clock.now().after(limits::PROXY_DEADLINE));
        let asking = async {
            let connecting = TcpStream::connect(proxy).await;
            let mut socket =
                connecting.map_err(|source| ProxyError::Unreachable { proxy, source })?;
            socks::connect(&mut socket, target, circuit).await?;
            Ok(socket)
        };
        let asked: Result<_, ProxyError> = tokio::select! {
            asked = asking => asked,
            () = deadline => Err(ProxyError::TimedOut),
        };
        asked.map_err(HandshakeFailure::Proxy)
    }

    /// Whether a persona may dial a place: a ban is of an address, and a key that nobody knows is no way round it.
    fn check_bans(&self, place: SocketAddr, target: &Target<'_>) -> Result<(), HandshakeFailure> {
        let is_banned = self.is_banned.get();
        if target.persona.is_some() && is_banned.is_some_and(|is_banned| is_banned(place.ip())) {
            return Err(HandshakeFailure::Banned(place));
        }
        Ok(())
    }

    /// Whether a place may be dialled.
    fn check(&self, place: SocketAddr, origin: AddressOrigin) -> Result<(), HandshakeFailure> {
        let ip = place.ip();
        let closed = origin == AddressOrigin::Learned && !is_routable(ip);
        if closed || !is_one_machine(ip) || place.port() == 0 {
            return Err(HandshakeFailure::NotRoutable(place));
        }
        let own =
            |address: &PeerAddress| matches!(address, PeerAddress::Ip(own) if same(*own, place));
        let listening = self
            .listening
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if listening.iter().any(|own| listens_at(*own, place))
            || self.ways.announced.iter().any(own)
        {
            return Err(HandshakeFailure::OwnAddress(place.into()));
        }
        Ok(())
    }
}

async fn connect(clock: &dyn Clock, address: SocketAddr) -> Result<TcpStream, HandshakeFailure> {
    let deadline = clock.sleep_until(clock.now().after(limits::CONNECT_DEADLINE));
    tokio::select! {
        result = TcpStream::connect(address) => result.map_err(HandshakeFailure::Connect),
        () = deadline => Err(HandshakeFailure::ConnectTimeout),
    }
}

/// An IPv4 address is the same however it is written.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}

/// Whether who listens on `own` would be met at `place`.
fn listens_at(own: SocketAddr, place: SocketAddr) -> bool {
    if !own.ip().is_unspecified() {
        return same(own, place);
    }
    own.port() == place.port() && is_this_machine(place.ip()).unwrap_or(false)
}

/// Whether an address is one of this machine's: then what is sent there comes from there. Nothing is sent to find out.
fn is_this_machine(ip: IpAddr) -> io::Result<bool> {
    let ip = ip.to_canonical();
    if ip.is_loopback() {
        return Ok(true);
    }
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((ip, 9))?;
    Ok(socket.local_addr()?.ip() == ip)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    use crate::clock::ManualClock;
    use crate::link::resolver::Resolving;
    use std::sync::Mutex;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Answers with the next list each time.
    struct Turning(Mutex<Vec<Vec<SocketAddr>>>);

    impl Resolver for Turning {
        fn resolve<'a>(&'a self, _: &'a DnsName, _: u16) -> Resolving<'a> {
            let next = self.0.lock().unwrap().pop();
            Box::pin(std::future::ready(Ok(next.unwrap_or_default())))
        }
    }

    /// What is asked at each dial, short of the connection: a name that was public may have been turned to our own network since.
    #[tokio::test]
    async fn a_name_that_was_public_and_now_leads_into_our_network_is_refused() {
        let public = ["1.1.1.1:1", "[2606:4700::1111]:1"].map(at);
        let private = [
            "192.168.1.1:1",
            "127.0.0.1:1",
            "169.254.169.254:1",
            "[fd00::1]:1",
        ]
        .map(at);
        let ways = Ways {
            resolver: Arc::new(Turning(Mutex::new(vec![private.to_vec(), public.to_vec()]))),
            proxy: None,
            everything: false,
            personas: false,
            announced: Vec::new(),
        };
        let reach = Reach::new(ways, Circuit::new().unwrap());
        let PeerAddress::Dns { name, port } = "node.example:9735".parse().unwrap() else {
            unreachable!();
        };
        for allowed in [true, false] {
            let found = reach.look_up(&ManualClock::new(), &name, port).await;
            let found = found.unwrap();
            assert!(found.len() >= 2 && found.iter().all(|place| place.port() == port));
            for place in found {
                let learned = reach.check(place, AddressOrigin::Learned);
                assert_eq!(learned.is_ok(), allowed, "{place}");
                assert!(reach.check(place, AddressOrigin::ByHand).is_ok(), "{place}");
            }
        }
        let nothing = reach.look_up(&ManualClock::new(), &name, port).await;
        assert_eq!(nothing.unwrap_err().label(), "resolve");
    }

    /// A persona is a stranger, and does not go where strangers are banned from, by address or by name; the node itself may.
    #[tokio::test]
    async fn p7_a_persona_does_not_dial_an_address_that_is_banned() {
        let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = host.local_addr().unwrap();
        let answers = vec![vec![place]; 3];
        let ways = Ways {
            resolver: Arc::new(Turning(Mutex::new(answers))),
            proxy: None,
            everything: false,
            personas: false,
            announced: Vec::new(),
        };
        let reach = Reach::new(ways, Circuit::new().unwrap());
        let persona = Circuit::new().unwrap();
        let by_name = "node.example:9735".parse::<PeerAddress>().unwrap();
        let PeerAddress::Dns { name, .. } = by_name else {
            unreachable!();
        };
        let port = place.port();
        let addresses = [PeerAddress::Ip(place), PeerAddress::Dns { name, port }];
        let dial = async |persona: Option<&Circuit>, address: &PeerAddress| {
            let known = KnownAddress {
                address: address.clone(),
                origin: AddressOrigin::ByHand,
            };
            let (known, clock) = (&known, ManualClock::new());
            let dialled = reach.connect(&clock, Target { known, persona });
            dialled.await.map(|(_, reached)| reached)
        };
        assert!(dial(Some(&persona), &addresses[0]).await.is_ok());
        reach.personas_avoid(Box::new(move |ip| ip == place.ip()));
        for address in &addresses {
            let refused = dial(Some(&persona), address).await.unwrap_err();
            assert_eq!(
                (refused.label(), refused.was_connected()),
                ("banned", false)
            );
            assert!(dial(None, address).await.is_ok(), "{address}");
        }
    }

    fn ways() -> Ways {
        Ways {
            resolver: Arc::new(Turning(Mutex::default())),
            proxy: None,
            everything: false,
            personas: false,
            announced: Vec::new(),
        }
    }

    async fn dial(
        reach: &Reach,
        clock: &ManualClock,
        address: &str,
        origin: AddressOrigin,
        persona: Option<&Circuit>,
    ) -> Result<PeerAddress, HandshakeFailure> {
        let known = KnownAddress {
            address: address.parse().unwrap(),
            origin,
        };
        let known = &known;
        let dialled = reach.connect(clock, Target { known, persona }).await;
        dialled.map(|(_, reached)| reached)
    }

    /// Where nobody listens any more.
    async fn nobody() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn neither_ourselves_nor_what_is_no_machine_is_dialled_even_by_hand() {
        let mut ways = ways();
        ways.announced = ["192.0.2.1:9735", "me.example:9735"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let reach = Reach::new(ways, Circuit::new().unwrap());
        reach.listens(at("127.0.0.1:9735"));
        for (place, label) in [
            ("192.0.2.1:9735", "own_address"),
            ("[::ffff:192.0.2.1]:9735", "own_address"),
            ("127.0.0.1:9735", "own_address"),
            ("127.0.0.1:0", "not_routable"),
            ("255.255.255.255:9735", "not_routable"),
            ("224.0.0.1:9735", "not_routable"),
            ("0.0.0.0:9735", "not_routable"),
        ] {
            let refused = reach.check(at(place), AddressOrigin::ByHand).unwrap_err();
            assert_eq!(refused.label(), label, "{place}");
        }
        assert!(
            reach
                .check(at("192.0.2.1:9736"), AddressOrigin::ByHand)
                .is_ok()
        );
    }

    /// Through a proxy, too: it is not asked for what must not be dialled. Nobody is there, so whoever asks it fails otherwise.
    #[tokio::test]
    async fn the_proxy_is_not_asked_for_an_address_that_must_not_be_dialled() {
        let mut ways = ways();
        (ways.proxy, ways.everything) = (Some(nobody().await), true);
        ways.announced = vec!["192.0.2.1:9735".parse().unwrap()];
        let reach = Reach::new(ways, Circuit::new().unwrap());
        reach.personas_avoid(Box::new(|ip| ip == at("192.0.2.9:1").ip()));
        let (clock, persona) = (ManualClock::new(), Circuit::new().unwrap());
        let (by_hand, learned) = (AddressOrigin::ByHand, AddressOrigin::Learned);
        for (address, origin, persona, label) in [
            ("192.0.2.1:9735", by_hand, None, "own_address"),
            ("10.0.0.1:9735", learned, None, "not_routable"),
            ("192.0.2.9:9735", by_hand, Some(&persona), "banned"),
            // What may be dialled is asked for.
            ("192.0.2.9:9735", by_hand, None, "proxy"),
            ("10.0.0.1:9735", by_hand, None, "proxy"),
        ] {
            let refused = dial(&reach, &clock, address, origin, persona).await;
            assert_eq!(refused.unwrap_err().label(), label, "{address}");
        }
    }

    #[tokio::test]
    async fn p9_of_a_names_answers_the_first_few_are_tried_each_once() {
        let mut ways = ways();
        let mut answers: Vec<SocketAddr> = (1..=9)
            .map(|host| at(&format!("127.0.0.{host}:1")))
            .collect();
        answers.insert(1, answers[0]);
        ways.resolver = Arc::new(Turning(Mutex::new(vec![answers.clone()])));
        let reach = Reach::new(ways, Circuit::new().unwrap());
        let PeerAddress::Dns { name, .. } = "node.example:1".parse().unwrap() else {
            unreachable!();
        };
        let found = reach.look_up(&ManualClock::new(), &name, 1).await.unwrap();
        answers.remove(1);
        assert_eq!(found, answers[..limits::RESOLVED_MAX]);
    }

    /// That one answer does not take us says more than that another must not be dialled.
    #[tokio::test]
    async fn what_is_told_of_a_name_is_the_failure_of_an_answer_that_was_dialled() {
        let mut ways = ways();
        let port = nobody().await.port();
        let answers = vec![at("127.0.0.1:1"), at("255.255.255.255:1")];
        ways.resolver = Arc::new(Turning(Mutex::new(vec![answers])));
        let reach = Reach::new(ways, Circuit::new().unwrap());
        let address = format!("node.example:{port}");
        let clock = ManualClock::new();
        let failed = dial(&reach, &clock, &address, AddressOrigin::ByHand, None).await;
        assert_eq!(failed.unwrap_err().label(), "connect");
    }

    /// Listens and takes nobody: its queue is full, so the kernel answers no further connection.
    async fn silent(ip: &str, port: u16) -> (tokio::net::TcpListener, TcpStream) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(ip.parse().unwrap(), port))
            .unwrap();
        let listener = socket.listen(0).unwrap();
        let first = TcpStream::connect(listener.local_addr().unwrap()).await;
        (listener, first.unwrap())
    }

    /// A dial ends however silent the other side is: at one address, at all of a name's answers together, at a proxy. The clock is moved by
    /// hand, once the dial waits.
    #[tokio::test]
    async fn p9_a_dial_that_nobody_answers_ends_in_time() {
        let (by_hand, clock) = (AddressOrigin::ByHand, ManualClock::new());
        let after = async |reach: &Reach, address: &str, deadline| {
            let dialling = dial(reach, &clock, address, by_hand, None);
            let moving = async {
                clock.advance(deadline);
            };
            let both = async { tokio::join!(dialling, moving).0 };
            let guard = std::time::Duration::from_secs(60);
            let ended = tokio::time::timeout(guard, both).await;
            ended.expect("it hangs").unwrap_err()
        };
        let first = silent("127.0.0.1", 0).await;
        let place = first.0.local_addr().unwrap();
        let reach = Reach::new(ways(), Circuit::new().unwrap());
        let failed = after(&reach, &place.to_string(), limits::CONNECT_DEADLINE).await;
        assert!(
            matches!(failed, HandshakeFailure::ConnectTimeout),
            "{failed}"
        );

        // As many as are tried; the deadline of all comes before that of the third.
        let others = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];
        let mut silents = Vec::new();
        let mut answers = vec![place];
        for ip in others {
            silents.push(silent(ip, place.port()).await);
            answers.push(SocketAddr::new(ip.parse().unwrap(), place.port()));
        }
        let mut by_name = ways();
        by_name.resolver = Arc::new(Turning(Mutex::new(vec![answers])));
        let reach = Reach::new(by_name, Circuit::new().unwrap());
        let name = format!("node.example:{}", place.port());
        let failed = after(&reach, &name, limits::DIAL_DEADLINE).await;
        assert!(
            matches!(failed, HandshakeFailure::ConnectTimeout),
            "{failed}"
        );

        let mut by_proxy = ways();
        (by_proxy.proxy, by_proxy.everything) = (Some(place), true);
        let reach = Reach::new(by_proxy, Circuit::new().unwrap());
        let failed = after(&reach, "node.example:1", limits::PROXY_DEADLINE).await;
        assert!(
            matches!(failed, HandshakeFailure::Proxy(ProxyError::TimedOut)),
            "{failed}"
        );
    }

    #[test]
    fn we_are_where_we_listen_and_everywhere_on_this_machine_if_we_listen_on_all_of_it() {
        for (own, place, met) in [
            ("192.0.2.1:9735", "192.0.2.1:9735", true),
            ("192.0.2.1:9735", "[::ffff:192.0.2.1]:9735", true),
            ("192.0.2.1:9735", "192.0.2.1:9736", false),
            ("192.0.2.1:9735", "192.0.2.2:9735", false),
            ("0.0.0.0:9735", "127.0.0.1:9735", true),
            ("0.0.0.0:9735", "127.8.0.1:9735", true),
            ("[::]:9735", "[::1]:9735", true),
            ("[::]:9735", "127.0.0.1:9735", true),
            ("0.0.0.0:9735", "127.0.0.1:9736", false),
            ("0.0.0.0:9735", "192.0.2.1:9735", false),
        ] {
            assert_eq!(listens_at(at(own), at(place)), met, "{own} {place}");
        }
    }
}
