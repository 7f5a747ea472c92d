//! The catch-up without links: what is asked for, from when on, and by whom.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::wire::BITCOIN_MAINNET;
use crate::wire::range_details::RangeDetails;

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

fn at(seconds: u64) -> Moment {
    Moment::from_start(Duration::from_secs(seconds))
}

#[test]
fn it_asks_from_before_the_last_gossip_and_from_six_hours_ago_at_the_latest() {
    let now = hours(500_000) + Duration::from_secs(1800);
    // Nothing seen, or lately: six hours and one, down to the hour.
    for last in [None, Some(now), Some(now.saturating_sub(hours(5)))] {
        assert_eq!(u64::from(wanted_since(now, last)), (500_000 - 7) * 3600);
    }
    // Away for two days.
    let last = now.saturating_sub(hours(48));
    assert_eq!(
        u64::from(wanted_since(now, Some(last))),
        (500_000 - 49) * 3600
    );
    // Clocks that are wrong.
    assert_eq!(wanted_since(Duration::ZERO, Some(now)), 0);
    assert_eq!(wanted_since(Duration::MAX, Some(Duration::MAX)), u32::MAX);
}

/// The first link after a gap brings new gossip at once; those that come up after it must not take that for the whole of it.
#[test]
fn links_that_come_up_together_all_ask_from_before_the_gap() {
    let mut plan = Plan::default();
    let now = hours(500_000);
    let lost = now.saturating_sub(hours(48));
    let first = plan.since(at(0), now, Some(lost));
    assert_eq!(u64::from(first), (500_000 - 49) * 3600);
    assert_eq!(plan.since(at(5), now, Some(now)), first);
    let shared = limits::CATCH_UP_SHARED;
    let later = Moment::from_start(shared);
    let recent = plan.since(later, now + shared, Some(now + shared));
    assert!(recent > first, "the gap is closed by then");
}

/// Has every channel whose id is even, up to an update at second 100.
struct Even;

impl ChannelGraph for Even {
    fn lacking(&self, channels: &[ChannelSummary]) -> Vec<ShortChannelId> {
        let lacks = |channel: &&ChannelSummary| {
            let newer = channel
                .timestamps
                .is_some_and(|[one, two]| one.max(two) > 100);
            newer || channel.short_channel_id.as_u64() % 2 == 1
        };
        let lacking = channels.iter().filter(lacks);
        lacking.map(|channel| channel.short_channel_id).collect()
    }
}

fn reply(ids: std::ops::Range<u64>, block: u32, last: bool, newer: Option<u64>) -> Vec<u8> {
    let short_channel_ids: Vec<_> = ids.clone().map(ShortChannelId::from_u64).collect();
    let timestamps = ids.map(|id| [50, if newer == Some(id) { 101 } else { 100 }]);
    let details = RangeDetails {
        timestamps: timestamps.collect(),
        checksums: Vec::new(),
    };
    ReplyChannelRange {
        chain_hash: BITCOIN_MAINNET,
        first_blocknum: block,
        number_of_blocks: 10,
        sync_complete: last,
        short_channel_ids,
    }
    .encode_with(&details)
}

fn end(full_information: bool) -> Vec<u8> {
    ReplyShortChannelIdsEnd {
        chain_hash: BITCOIN_MAINNET,
        full_information,
    }
    .encode()
}

#[test]
fn what_the_node_lacks_is_asked_for_in_batches_each_after_the_end_of_the_last() {
    let (mut sync, query) = RangeSync::begin(BITCOIN_MAINNET, at(0));
    let range = QueryChannelRange::decode(&query).unwrap();
    assert_eq!(
        (range.first_blocknum, range.number_of_blocks),
        (0, u32::MAX)
    );
    assert!(QueryChannelRange::option(&query).unwrap().timestamps);
    assert_eq!(sync.take(at(1), &end(true), &Even), Step::Wait, "not asked");
    let first = reply(0..1200, 0, false, Some(8));
    assert_eq!(sync.take(at(1), &first, &Even), Step::Wait);
    let mut asked = Vec::new();
    let mut step = sync.take(at(2), &reply(1200..2000, 10, true, None), &Even);
    let outcome = loop {
        match step {
            Step::Send(query) => {
                let query = QueryShortChannelIds::decode(&query).unwrap();
                assert!(query.short_channel_ids.len() <= limits::QUERY_BATCH);
                asked.extend(query.short_channel_ids);
                step = sync.take(at(3), &end(true), &Even);
            }
            Step::Over(outcome) => break outcome,
            Step::Wait => panic!("an end is followed by the next query"),
        }
    };
    assert_eq!(outcome, Outcome::Served);
    let odd_or_newer = (0..2000).filter(|id| id % 2 == 1 || *id == 8);
    let expected: Vec<_> = odd_or_newer.map(ShortChannelId::from_u64).collect();
    assert_eq!(asked, expected);
    assert_eq!(sync.deadline(), at(3).after(limits::QUERY_DEADLINE));
}

#[test]
fn p9_a_peer_that_lists_nothing_or_too_much_or_nonsense_is_not_asked_any_more() {
    let unserved = Step::Over(Outcome::Unserved);
    let begin = || RangeSync::begin(BITCOIN_MAINNET, at(0)).0;
    assert_eq!(
        begin().take(at(1), &reply(0..0, 0, true, None), &Even),
        unserved
    );
    // It goes back to blocks that it has covered.
    let mut sync = begin();
    assert_eq!(
        sync.take(at(1), &reply(0..2, 20, false, None), &Even),
        Step::Wait
    );
    assert_eq!(
        sync.take(at(1), &reply(0..2, 10, false, None), &Even),
        unserved
    );
    // It never ends.
    let mut sync = begin();
    let mut replies = 0;
    while sync.take(at(1), &reply(0..1, 0, false, None), &Even) == Step::Wait {
        replies += 1;
    }
    assert_eq!(replies, limits::RANGE_REPLIES_MAX);
    // Cut short, and compressed.
    let whole = reply(0..2, 0, true, None);
    assert_eq!(begin().take(at(1), &whole[..45], &Even), unserved);
    let mut zlib = whole;
    zlib[45] = 1;
    assert_eq!(begin().take(at(1), &zlib, &Even), unserved);
    // It says that it does not keep up to date.
    let mut sync = begin();
    assert!(matches!(
        sync.take(at(1), &reply(0..2, 0, true, None), &Even),
        Step::Send(_)
    ));
    assert_eq!(sync.take(at(1), &end(false), &Even), unserved);
}

/// Lacks whatever it is told of, and a channel more each time that nobody has listed.
struct Nothing;

impl ChannelGraph for Nothing {
    fn lacking(&self, channels: &[ChannelSummary]) -> Vec<ShortChannelId> {
        let ids = channels.iter().map(|channel| channel.short_channel_id);
        ids.chain([ShortChannelId::from_u64(u64::MAX)]).collect()
    }
}

/// Channels in each of the replies below.
const LISTED: u64 = 4000;

fn nth_reply(nth: u64, last: bool) -> Vec<u8> {
    let block = u32::try_from(nth * 10).unwrap();
    reply(nth * LISTED..(nth + 1) * LISTED, block, last, None)
}

#[test]
fn p9_a_peer_that_lists_more_channels_than_there_can_be_is_not_asked_any_more() {
    let (mut sync, _) = RangeSync::begin(BITCOIN_MAINNET, at(0));
    let most = limits::RANGE_IDS_MAX as u64 / LISTED;
    for nth in 0..most {
        assert_eq!(sync.take(at(1), &nth_reply(nth, false), &Even), Step::Wait);
    }
    let outcome = sync.take(at(1), &nth_reply(most, false), &Even);
    assert_eq!(outcome, Step::Over(Outcome::Unserved));
}

/// Of what the node lacks no more is asked for than a catch-up can need, and nothing that the peer has not listed.
#[test]
fn p9_so_many_channels_are_asked_for_and_no_more() {
    let (mut sync, _) = RangeSync::begin(BITCOIN_MAINNET, at(0));
    let replies = 2 * limits::QUERIED_IDS_MAX as u64 / LISTED;
    let mut step = Step::Wait;
    for nth in 0..replies {
        step = sync.take(at(1), &nth_reply(nth, nth + 1 == replies), &Nothing);
    }
    let mut asked = Vec::new();
    while let Step::Send(query) = step {
        asked.extend(
            QueryShortChannelIds::decode(&query)
                .unwrap()
                .short_channel_ids,
        );
        step = sync.take(at(2), &end(true), &Nothing);
    }
    assert_eq!(step, Step::Over(Outcome::Served));
    let expected = (0..limits::QUERIED_IDS_MAX as u64).map(ShortChannelId::from_u64);
    assert!(asked.iter().copied().eq(expected), "{}", asked.len());
}

#[test]
fn answers_of_another_chain_and_answers_out_of_turn_count_for_nothing() {
    let begin = || RangeSync::begin(BITCOIN_MAINNET, at(0)).0;
    let unserved = Step::Over(Outcome::Unserved);
    let mut other = reply(0..2, 0, true, None);
    other[2] ^= 1;
    assert_eq!(begin().take(at(1), &other, &Even), unserved);
    // A reply that comes after the last: what is asked for is settled.
    let mut sync = begin();
    assert!(matches!(
        sync.take(at(1), &reply(0..2, 0, true, None), &Even),
        Step::Send(_)
    ));
    assert_eq!(
        sync.take(at(2), &reply(2..4, 20, true, None), &Even),
        Step::Wait
    );
    assert_eq!(sync.deadline(), at(1).after(limits::QUERY_DEADLINE));
    let mut other = end(true);
    other[2] ^= 1;
    assert_eq!(sync.take(at(3), &other, &Even), unserved);
}

/// A peer may end its answer by its blocks alone: `sync_complete` was once another field (BOLT 7).
#[test]
fn an_answer_that_covers_all_blocks_is_whole() {
    let (mut sync, _) = RangeSync::begin(BITCOIN_MAINNET, at(0));
    let whole = ReplyChannelRange {
        chain_hash: BITCOIN_MAINNET,
        first_blocknum: 0,
        number_of_blocks: u32::MAX,
        sync_complete: false,
        short_channel_ids: vec![ShortChannelId::from_u64(1)],
    };
    assert!(matches!(
        sync.take(at(1), &whole.encode(), &Even),
        Step::Send(_)
    ));
}

/// Once a peer has served the range everything is never asked for, however many do not.
#[test]
fn everything_is_not_asked_for_once_a_range_was_served() {
    let desk = Arc::new(SyncDesk::new(Some(Arc::new(Even))));
    let mut now = at(0);
    let turn = SyncDesk::turn(&desk, now).unwrap();
    assert!(!turn.end(now, Outcome::Served));
    now = now.after(limits::RANGE_AGAIN);
    for _ in 0..2 * limits::DUMP_AFTER {
        let turn = SyncDesk::turn(&desk, now).unwrap();
        assert!(!turn.end(now, Outcome::Unserved));
        now = now.after(limits::RANGE_RETRY);
    }
}

#[test]
fn one_link_at_a_time_asks_for_the_range_and_everything_only_when_nobody_serves_it() {
    let desk = Arc::new(SyncDesk::new(Some(Arc::new(Even))));
    let mut now = at(0);
    let first = SyncDesk::turn(&desk, now).unwrap();
    assert!(SyncDesk::turn(&desk, now).is_none(), "one at a time");
    drop(first);
    assert!(SyncDesk::turn(&desk, now).is_none(), "not at once again");
    let mut dumps = Vec::new();
    for _ in 0..6 {
        now = now.after(limits::RANGE_RETRY);
        let turn = SyncDesk::turn(&desk, now).unwrap();
        dumps.push(turn.end(now, Outcome::Unserved));
    }
    assert_eq!(dumps, [false, false, true, false, false, false]);
    now = now.after(limits::RANGE_RETRY);
    let turn = SyncDesk::turn(&desk, now).unwrap();
    assert!(!turn.end(now, Outcome::Served));
    let soon = now.after(limits::RANGE_AGAIN.saturating_sub(Duration::from_secs(1)));
    assert!(SyncDesk::turn(&desk, soon).is_none(), "filters do the rest");
    assert!(SyncDesk::turn(&desk, now.after(limits::RANGE_AGAIN)).is_some());
    let bare = Arc::new(SyncDesk::new(None));
    assert!(SyncDesk::turn(&bare, now).is_none(), "no graph to fill");
}
