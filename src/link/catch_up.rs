//! What a gossip link asks for as it comes up, so that the node learns what it has missed.
//!
//! ```text
//!  every link:        265 from before the last gossip
//!  one link a time,   263 (timestamps) ──264…──▶ what does the node lack? ──▶ 261 ──…262──▶ 261 … ──▶ over
//!  if there is a graph
//! ```
//!
//! The whole graph (a filter from 0) is asked for once at most, when no peer answers a range query. Pure but for the desk's lock: the
//! time is an argument, and what the node has is the embedder's to say.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::clock::Moment;
use crate::limits;
use crate::wire::range_details::RangeOption;
use crate::wire::{
    ChainHash, GossipTimestampFilter, MessageType, QueryChannelRange, QueryShortChannelIds,
    ReplyChannelRange, ReplyShortChannelIdsEnd, ShortChannelId, WireError,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the node knows of the network: the embedder's. It is asked in a link's task, so it must answer from memory.
pub trait ChannelGraph: Send + Sync + 'static {
    /// Which of these channels the node does not have, or has older updates of.
    fn lacking(&self, channels: &[ChannelSummary]) -> Vec<ShortChannelId>;
}

/// A channel as a peer lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Which.
    pub short_channel_id: ShortChannelId,
    /// When its two updates were made, in Unix seconds, the one of `node_id_1` first; 0: there is none. `None`: the peer does not say.
    pub timestamps: Option<[u32; 2]>,
}

/// From when on gossip is wanted at `now`, when the last came at `last` (both since the Unix epoch): from the earlier of `last` and six
/// hours ago, for LDK serves what it has only to a filter that begins before that; an hour before, for clocks differ; on the hour, so
/// that it does not say when this node went away.
pub fn wanted_since(now: Duration, last: Option<Duration>) -> u32 {
    let served = now.saturating_sub(limits::CATCH_UP_AT_LEAST);
    let from = last.map_or(served, |last| last.min(served));
    let from = from.saturating_sub(limits::CATCH_UP_MARGIN).as_secs();
    u32::try_from(from / 3600 * 3600).unwrap_or(u32::MAX)
}

/// A range query under way on one link, and what follows from it.
pub struct RangeSync {
    chain: ChainHash,
    asks_ids: bool,
    /// No answer by then: nobody serves it.
    by: Moment,
    replies: usize,
    channels: usize,
    /// The first block that the next reply may begin with.
    next_block: u32,
    missing: VecDeque<ShortChannelId>,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for the peer.
    Wait,
    /// Send this.
    Send(Vec<u8>),
    /// Nothing more.
    Over(Outcome),
}

/// How a range query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The peer listed channels, and all that the node lacked has been asked for.
    Served,
    /// The peer knows nothing, does not answer, or breaks BOLT 7.
    Unserved,
}

impl RangeSync {
    /// Begins: what to keep, and the message to send.
    pub fn begin(chain: ChainHash, now: Moment) -> (Self, Vec<u8>) {
        let sync = Self {
            chain,
            asks_ids: false,
            by: now.after(limits::QUERY_DEADLINE),
            replies: 0,
            channels: 0,
            next_block: 0,
            missing: VecDeque::new(),
        };
        let query = QueryChannelRange {
            chain_hash: chain,
            first_blocknum: 0,
            number_of_blocks: u32::MAX,
        };
        let timestamps = RangeOption {
            timestamps: true,
            checksums: false,
        };
        (sync, query.encode_with(timestamps))
    }

    /// When the peer must have answered.
    pub fn deadline(&self) -> Moment {
        self.by
    }

    /// Takes a whole message of the peer's.
    pub fn take(&mut self, now: Moment, message: &[u8], graph: &dyn ChannelGraph) -> Step {
        let step = match MessageType::of(message) {
            Ok(MessageType::REPLY_CHANNEL_RANGE) if !self.asks_ids => {
                self.take_range(message, graph)
            }
            Ok(MessageType::REPLY_SHORT_CHANNEL_IDS_END) if self.asks_ids => self.take_end(message),
            _ => return Step::Wait,
        };
        self.by = now.after(limits::QUERY_DEADLINE);
        // Whoever breaks BOLT 7 here is only not asked any more.
        step.unwrap_or(Step::Over(Outcome::Unserved))
    }

    fn take_range(&mut self, message: &[u8], graph: &dyn ChannelGraph) -> Result<Step, WireError> {
        let reply = ReplyChannelRange::decode(message)?;
        let details = ReplyChannelRange::details(message)?;
        self.replies = self.replies.saturating_add(1);
        self.channels = self.channels.saturating_add(reply.short_channel_ids.len());
        let strays = reply.chain_hash != self.chain || reply.first_blocknum < self.next_block;
        if strays
            || self.replies > limits::RANGE_REPLIES_MAX
            || self.channels > limits::RANGE_IDS_MAX
        {
            return Ok(Step::Over(Outcome::Unserved));
        }
        self.next_block = reply.first_blocknum;
        let mut timestamps = details.timestamps.into_iter();
        let listed = reply.short_channel_ids.iter();
        let listed: Vec<ChannelSummary> = listed
            .map(|id| ChannelSummary {
                short_channel_id: *id,
                timestamps: timestamps.next(),
            })
            .collect();
        if !listed.is_empty() {
            let room = limits::QUERIED_IDS_MAX.saturating_sub(self.missing.len());
            let lacking = graph.lacking(&listed);
            // More than was listed nobody can lack.
            let most = room.min(listed.len());
            self.missing.extend(lacking.into_iter().take(most));
        }
        let end = reply.first_blocknum.checked_add(reply.number_of_blocks);
        let is_last = reply.sync_complete || end.is_none_or(|end| end == u32::MAX);
        if !is_last {
            return Ok(Step::Wait);
        }
        if self.channels == 0 {
            return Ok(Step::Over(Outcome::Unserved));
        }
        self.asks_ids = true;
        Ok(self.next_query())
    }

    fn take_end(&mut self, message: &[u8]) -> Result<Step, WireError> {
        let end = ReplyShortChannelIdsEnd::decode(message)?;
        if end.chain_hash != self.chain || !end.full_information {
            return Ok(Step::Over(Outcome::Unserved));
        }
        Ok(self.next_query())
    }

    /// BOLT 7: a further query only after the end of the last.
    fn next_query(&mut self) -> Step {
        let count = self.missing.len().min(limits::QUERY_BATCH);
        if count == 0 {
            return Step::Over(Outcome::Served);
        }
        let query = QueryShortChannelIds {
            chain_hash: self.chain,
            short_channel_ids: self.missing.drain(..count).collect(),
        };
        Step::Send(query.encode())
    }
}

/// What the links of one supervisor agree on: from when on they ask, and who asks for the range.
pub(crate) struct SyncDesk {
    graph: Option<Arc<dyn ChannelGraph>>,
    plan: Mutex<Plan>,
}

/// What has been asked for. Plain data.
#[derive(Default)]
struct Plan {
    /// A time without gossip ended at the first moment: links that come up soon after ask from before it too.
    gap: Option<(Moment, Duration)>,
    under_way: bool,
    served_at: Option<Moment>,
    failed_at: Option<Moment>,
    /// In a row.
    failures: u32,
    dumped: bool,
}

impl Plan {
    fn since(&mut self, now: Moment, unix: Duration, last: Option<Duration>) -> u32 {
        let quiet = last.filter(|last| unix.saturating_sub(*last) >= limits::GOSSIP_GAP);
        if let Some(last) = quiet {
            self.gap = Some((now, last));
        }
        self.gap
            .take_if(|(at, _)| now.since(*at) >= limits::CATCH_UP_SHARED);
        let gap = self.gap.map(|(_, last)| last);
        wanted_since(unix, last.into_iter().chain(gap).min())
    }

    fn takes_turn(&mut self, now: Moment) -> bool {
        let recent = |at: Option<Moment>, wait| at.is_some_and(|at| now.since(at) < wait);
        if self.under_way
            || recent(self.served_at, limits::RANGE_AGAIN)
            || recent(self.failed_at, limits::RANGE_RETRY)
        {
            return false;
        }
        self.under_way = true;
        true
    }

    /// `true`: nobody serves ranges, so everything is asked for, this once.
    fn ended(&mut self, now: Moment, outcome: Outcome) -> bool {
        self.under_way = false;
        if outcome == Outcome::Served {
            (self.served_at, self.failures) = (Some(now), 0);
            return false;
        }
        self.failed_at = Some(now);
        self.failures = self.failures.saturating_add(1);
        let dumps = self.failures >= limits::DUMP_AFTER && self.served_at.is_none() && !self.dumped;
        self.dumped |= dumps;
        dumps
    }
}

impl SyncDesk {
    pub(crate) fn new(graph: Option<Arc<dyn ChannelGraph>>) -> Self {
        Self {
            graph,
            plan: Mutex::default(),
        }
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The filter for a link that has come up.
    pub(crate) fn filter(
        &self,
        chain: ChainHash,
        now: Moment,
        unix: Duration,
        last: Option<Duration>,
    ) -> Vec<u8> {
        let since = self.plan().since(now, unix, last);
        GossipTimestampFilter::since(chain, since).encode()
    }

    /// A turn at the range query, if there is something to ask for and nobody has it.
    pub(crate) fn turn(this: &Arc<Self>, now: Moment) -> Option<Turn> {
        let graph = Arc::clone(this.graph.as_ref()?);
        this.plan().takes_turn(now).then(|| Turn {
            desk: Arc::clone(this),
            graph,
            taken: now,
            is_over: false,
        })
    }
}

/// The turn of one link. Dropped without an outcome it was a failure.
pub(crate) struct Turn {
    desk: Arc<SyncDesk>,
    pub(crate) graph: Arc<dyn ChannelGraph>,
    taken: Moment,
    is_over: bool,
}

impl Turn {
    /// `true`: everything is to be asked for.
    pub(crate) fn end(mut self, now: Moment, outcome: Outcome) -> bool {
        self.is_over = true;
        self.desk.plan().ended(now, outcome)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            let mut plan = self.desk.plan();
            // The link ended: that says nothing of the peers.
            plan.under_way = false;
            plan.failed_at = Some(self.taken);
        }
    }
}

#[cfg(test)]
#[path = "catch_up_tests.rs"]
mod tests;
