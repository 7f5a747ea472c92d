//! What strangers have done wrong, and who is banned for it, for how long.
//!
//! Two are held to account: the *address* that a connection comes from and the *node* that a handshake has proved. Each has a score
//! that sinks by [`BAN_SCORE`](limits::BAN_SCORE) in [`SCORE_SINKS_IN`](limits::SCORE_SINKS_IN). Who reaches [`BAN_SCORE`](limits::BAN_SCORE) is banned for
//! [`BAN_FIRST`](limits::BAN_FIRST), twice as long each further time, at most [`BAN_MAX`](limits::BAN_MAX); who does nothing wrong for as long
//! again and an hour is a stranger like any other.
//!
//! **What one address may lose.** Many parties may share one (NAT). A ban of it turns away new connections from there, unread, and
//! nothing else: links that stand go on, and whom the node wants it dials itself. What a proven node does counts half against its
//! address, which is not all that node's; what nobody can be shown to have done counts against the address alone, and little when
//! a broken path or an old node id would look the same. This machine's own address, which stands for all who come through a Tor
//! daemon or a proxy here, is never banned.
//!
//! Whoever the node wants or has a channel with is not judged here: its backoff is all that it meets. Pure: `now` is an argument.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::clock::Moment;
use crate::limits;
use crate::link::CloseReason;
use crate::network::Party;
use crate::node_id::NodeId;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// What a stranger did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Offence {
    /// An act of the handshake broke BOLT 8: it costs the signer an ECDH to find out. A peer that knows us by an old key looks so too.
    Handshake,
    /// An act did not come in time: nothing came, or a part of it.
    Silence,
    /// A frame did not authenticate.
    Framing,
    /// A message broke BOLT 1: malformed, out of its turn, of an unknown even type.
    Protocol,
    /// More pings than anybody needs.
    PingFlood,
    /// More gossip queries than anybody needs.
    QueryFlood,
    /// No `init` in time, after a handshake that cost an ECDH.
    NoInit,
}

impl Offence {
    /// Every offence.
    pub const ALL: [Self; 7] = [
        Self::Handshake,
        Self::Silence,
        Self::Framing,
        Self::Protocol,
        Self::PingFlood,
        Self::QueryFlood,
        Self::NoInit,
    ];

    /// The label in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Silence => "silence",
            Self::Framing => "framing",
            Self::Protocol => "protocol",
            Self::PingFlood => "ping_flood",
            Self::QueryFlood => "query_flood",
            Self::NoInit => "no_init",
        }
    }

    /// What it counts against whom: the proven node, and the address.
    pub fn points(self) -> (u32, u32) {
        match self {
            Self::Handshake => (0, 20),
            Self::Silence => (0, 5),
            Self::Framing | Self::Protocol => (20, 10),
            Self::PingFlood | Self::QueryFlood => (50, 25),
            Self::NoInit => (10, 5),
        }
    }

    /// What the end of a link says of its peer.
    pub(crate) fn of_end(reason: CloseReason) -> Option<Self> {
        match reason {
            CloseReason::Transport => Some(Self::Framing),
            CloseReason::Protocol => Some(Self::Protocol),
            CloseReason::PingFlood => Some(Self::PingFlood),
            CloseReason::QueryFlood => Some(Self::QueryFlood),
            CloseReason::InitTimeout => Some(Self::NoInit),
            _ => None,
        }
    }

    /// What a handshake that did not lead to a link says of whoever dialled: by its label.
    pub(crate) fn of_failure(label: &str) -> Option<Self> {
        match label {
            "protocol" => Some(Self::Handshake),
            "timeout" => Some(Self::Silence),
            _ => None,
        }
    }
}

/// Who is held to account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Banned {
    /// An IPv4 address, or an IPv6 /64, written as its first address.
    Address(IpAddr),
    /// A node.
    Node(NodeId),
}

impl Banned {
    /// The label in metrics and JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Node(_) => "node",
        }
    }
}

impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => Party::of(*ip).fmt(f),
            Self::Node(id) => id.fmt(f),
        }
    }
}

/// A ban that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ban {
    pub(crate) who: Banned,
    pub(crate) lasts: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    score: u32,
    /// Up to when the score has sunk.
    since: Moment,
    /// How often it was banned.
    bans: u32,
    banned_until: Option<Moment>,
    /// When it may be forgotten.
    forget: Moment,
}

/// What is held against whom.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    accounts: HashMap<Banned, Account>,
    /// Every account by when it may be forgotten, the soonest first: a flood of offenders must not have all looked through for each.
    order: BTreeSet<(Moment, Banned)>,
}

impl Conduct {
    /// Whether nobody from this address is let in now.
    pub(crate) fn bars_address(&self, now: Moment, ip: IpAddr) -> bool {
        self.bars(now, &address(ip))
    }

    /// Whether this node is not let in now.
    pub(crate) fn bars_node(&self, now: Moment, id: NodeId) -> bool {
        self.bars(now, &Banned::Node(id))
    }

    fn bars(&self, now: Moment, who: &Banned) -> bool {
        let until = self.accounts.get(who).and_then(|it| it.banned_until);
        until.is_some_and(|until| now < until)
    }

    /// Bans that are in force.
    pub(crate) fn in_force(&self, now: Moment) -> usize {
        let bars = |account: &&Account| account.banned_until.is_some_and(|until| now < until);
        self.accounts.values().filter(bars).count()
    }

    /// Holds an offence against an address, and against the node if it was proven. Returns the bans that begin with it.
    pub(crate) fn note(
        &mut self,
        now: Moment,
        ip: IpAddr,
        node: Option<NodeId>,
        offence: Offence,
    ) -> Vec<Ban> {
        let (of_node, of_address) = offence.points();
        let mut bans = Vec::new();
        if let Some(id) = node {
            bans.extend(self.charge(now, Banned::Node(id), of_node));
        }
        if !Party::of(ip).is_many() {
            bans.extend(self.charge(now, address(ip), of_address));
        }
        bans
    }

    fn charge(&mut self, now: Moment, who: Banned, points: u32) -> Option<Ban> {
        if points == 0 {
            return None;
        }
        self.make_room(&who);
        let account = self.accounts.entry(who).or_insert(Account {
            score: 0,
            since: now,
            bans: 0,
            banned_until: None,
            forget: now,
        });
        self.order.remove(&(account.forget, who));
        let lasts = account.charge(now, points);
        self.order.insert((account.forget, who));
        lasts.map(|lasts| Ban { who, lasts })
    }

    /// Bounded: whoever may be forgotten goes first, then whoever would be the soonest. A ban that is cut short so costs its maker as many
    /// offences of others as there are accounts.
    fn make_room(&mut self, who: &Banned) {
        if self.accounts.len() < limits::CONDUCT_ACCOUNTS || self.accounts.contains_key(who) {
            return;
        }
        if let Some((_, soonest)) = self.order.pop_first() {
            self.accounts.remove(&soonest);
        }
    }
}

impl Account {
    /// Adds to the score. Returns how long the ban is that begins with it.
    fn charge(&mut self, now: Moment, points: u32) -> Option<Duration> {
        if now >= self.forget {
            self.bans = 0;
        }
        self.sink(now);
        self.score = self.score.saturating_add(points);
        self.forget = self.forget.max(now.after(limits::SCORE_SINKS_IN));
        if self.score < limits::BAN_SCORE || self.banned_until.is_some_and(|it| now < it) {
            return None;
        }
        self.score = 0;
        let lasts = limits::BAN_FIRST
            .saturating_mul(2_u32.saturating_pow(self.bans))
            .min(limits::BAN_MAX);
        self.bans = self.bans.saturating_add(1);
        self.banned_until = Some(now.after(lasts));
        let memory = lasts
            .saturating_mul(2)
            .saturating_add(limits::SCORE_SINKS_IN);
        self.forget = now.after(memory);
        Some(lasts)
    }

    fn sink(&mut self, now: Moment) {
        let step = limits::SCORE_SINKS_IN
            .checked_div(limits::BAN_SCORE)
            .unwrap_or(Duration::MAX);
        let steps = now
            .since(self.since)
            .as_nanos()
            .checked_div(step.as_nanos())
            .unwrap_or(0);
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.score = self.score.saturating_sub(steps);
        self.since = self.since.after(step.saturating_mul(steps));
    }
}

fn address(ip: IpAddr) -> Banned {
    Banned::Address(Party::of(ip).ip())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::node_id::LocalKey;
    use std::fmt::Write as _;
    use std::net::Ipv4Addr;

    fn ip(host: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, host).into()
    }

    fn node(number: u8) -> NodeId {
        LocalKey::from_bytes(&mut [number; 32]).unwrap().node_id()
    }

    fn later(seconds: u64) -> Moment {
        Moment::START.after(Duration::from_secs(seconds))
    }

    /// What counts, and how much: the whole policy. A change of it is a change of this table.
    #[test]
    fn what_is_held_against_whom_is_the_table_that_was_reviewed() {
        let mut table = String::from("offence     node  address  bans after\n");
        for offence in Offence::ALL {
            let (of_node, of_address) = offence.points();
            let most = limits::BAN_SCORE.div_ceil(of_node.max(of_address));
            let name = offence.as_str();
            writeln!(table, "{name:<11} {of_node:>4} {of_address:>8} {most:>11}").unwrap();
        }
        let reviewed = "\
offence     node  address  bans after
handshake      0       20           5
silence        0        5          20
framing       20       10           5
protocol      20       10           5
ping_flood    50       25           2
query_flood   50       25           2
no_init       10        5          10
";
        assert_eq!(table, reviewed);
    }

    #[test]
    fn p9_who_goes_too_far_is_banned_and_the_ban_ends_by_itself() {
        let mut conduct = Conduct::default();
        let now = Moment::START;
        assert_eq!(
            conduct.note(now, ip(1), Some(node(1)), Offence::PingFlood),
            []
        );
        let bans = conduct.note(now, ip(1), Some(node(1)), Offence::PingFlood);
        let who = Banned::Node(node(1));
        assert_eq!(
            bans,
            [Ban {
                who,
                lasts: limits::BAN_FIRST
            }]
        );
        assert!(conduct.bars_node(now, node(1)) && !conduct.bars_node(now, node(2)));
        assert!(
            !conduct.bars_address(now, ip(1)),
            "half of it is the address's"
        );
        conduct.note(now, ip(1), Some(node(2)), Offence::PingFlood);
        let bans = conduct.note(now, ip(1), Some(node(3)), Offence::PingFlood);
        assert_eq!(bans.first().map(|ban| ban.who), Some(address(ip(1))));
        assert!(conduct.bars_address(now, ip(1)) && !conduct.bars_address(now, ip(2)));
        assert_eq!(conduct.in_force(now), 2);
        let end = now.after(limits::BAN_FIRST);
        assert!(!conduct.bars_address(end, ip(1)) && !conduct.bars_node(end, node(1)));
        assert_eq!(conduct.in_force(end), 0);
    }

    #[test]
    fn a_score_sinks_with_time_and_bans_grow_with_repetition() {
        let mut conduct = Conduct::default();
        let hour = limits::SCORE_SINKS_IN.as_secs();
        // One a quarter of the time that a whole score takes to sink: never banned.
        for turn in 0..100 {
            let bans = conduct.note(later(turn * hour / 4), ip(1), None, Offence::Handshake);
            assert_eq!(bans, []);
        }
        let mut now = later(100 * hour);
        let mut lasted = Vec::new();
        for _ in 0..12 {
            for _ in 0..limits::BAN_SCORE / 20 {
                for ban in conduct.note(now, ip(1), None, Offence::Handshake) {
                    lasted.push(ban.lasts);
                    now = now.after(ban.lasts);
                }
            }
        }
        assert_eq!(lasted.len(), 12);
        assert_eq!(lasted[..2], [limits::BAN_FIRST, limits::BAN_FIRST * 2]);
        assert_eq!(lasted.last(), Some(&limits::BAN_MAX));
        // Good for as long as it was banned: a stranger like any other.
        now = now.after(limits::BAN_MAX * 2);
        let mut again = Vec::new();
        for _ in 0..limits::BAN_SCORE / 20 {
            again.extend(conduct.note(now, ip(1), None, Offence::Handshake));
        }
        assert_eq!(again.first().map(|ban| ban.lasts), Some(limits::BAN_FIRST));
    }

    #[test]
    fn p9_accounts_are_bounded_and_a_ban_outlives_a_flood_of_trifles() {
        let mut conduct = Conduct::default();
        let now = Moment::START;
        for _ in 0..5 {
            conduct.note(now, ip(1), None, Offence::Handshake);
        }
        assert!(conduct.bars_address(now, ip(1)));
        // A ban that lasts longer than a trifle is remembered is not what goes.
        for number in 0..3 * u32::try_from(limits::CONDUCT_ACCOUNTS).unwrap() {
            let ip = Ipv4Addr::from(0x0a00_0000 + number).into();
            conduct.note(now, ip, None, Offence::Silence);
        }
        assert_eq!(conduct.accounts.len(), limits::CONDUCT_ACCOUNTS);
        assert!(conduct.bars_address(now, ip(1)));
        check_order(&conduct);
    }

    /// Whoever goes for a newcomer is found in the order: it must have every account, once, at its time.
    fn check_order(conduct: &Conduct) {
        let mut accounts: Vec<(Moment, Banned)> = conduct
            .accounts
            .iter()
            .map(|(who, account)| (account.forget, *who))
            .collect();
        accounts.sort_unstable();
        let order: Vec<(Moment, Banned)> = conduct.order.iter().copied().collect();
        assert_eq!(order, accounts);
    }

    /// Offenders of all kinds, some again and again, over days: at each step it is the account that may be forgotten the soonest that
    /// goes, and nobody else.
    #[test]
    fn p9_who_may_be_forgotten_the_soonest_goes_and_nobody_else() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut conduct = Conduct::default();
        let (mut now, mut went) = (Moment::START, 0);
        for turn in 0..8_700_u32 {
            now = now.after(Duration::from_millis(random.u64(0..20_000)));
            // Half of them come again: a few hundred addresses, beside new ones.
            let host = if random.bool() {
                turn
            } else {
                random.u32(0..300)
            };
            let ip: IpAddr = Ipv4Addr::from(0x0a00_0000 + host).into();
            let offence = Offence::ALL[random.usize(..Offence::ALL.len())];
            let known = conduct.accounts.contains_key(&address(ip));
            let before = conduct.accounts.len();
            if known || before < limits::CONDUCT_ACCOUNTS {
                conduct.note(now, ip, None, offence);
                assert_eq!(conduct.accounts.len(), before + usize::from(!known));
                continue;
            }
            let forgets: HashMap<Banned, Moment> = conduct
                .accounts
                .iter()
                .map(|(who, account)| (*who, account.forget))
                .collect();
            conduct.note(now, ip, None, offence);
            let stays = |who: &Banned| conduct.accounts.contains_key(who);
            let gone: Vec<Moment> = forgets
                .iter()
                .filter(|(who, _)| !stays(who))
                .map(|(_, forget)| *forget)
                .collect();
            assert_eq!(gone, [*forgets.values().min().unwrap()], "turn {turn}");
            went += 1;
        }
        assert!(went > 100, "{went} went");
    }

    #[test]
    fn the_machines_own_address_is_never_banned() {
        let mut conduct = Conduct::default();
        let now = Moment::START;
        for _ in 0..100 {
            conduct.note(
                now,
                Ipv4Addr::LOCALHOST.into(),
                Some(node(1)),
                Offence::Protocol,
            );
        }
        assert!(!conduct.bars_address(now, Ipv4Addr::LOCALHOST.into()));
        assert!(conduct.bars_node(now, node(1)));
    }
}
