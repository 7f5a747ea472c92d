//! The daemon's peer book, `peers.db` in the data directory: opened before a peer is dialled, and what it says of tags weighed
//! against the configuration.
//!
//! A peer of the configuration is the operator's word, given anew at each start. A peer that is only in the book is not: until
//! `peers_declared` says that the book is right, or `peer tag` what the peer is, it is channel-bearing. Between the two,
//! channel-bearing wins: a promotion is on record so that a restart does not undo it.

use super::config::ConfiguredPeer;
use super::failure::Failure;
use super::settings::Settings;
use crate::book::{Book, BookError, BookFuture, PeerRecord, Sighting, SqliteBook};
use crate::limits;
use crate::link::Tag;
use crate::node_id::NodeId;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Its file in the data directory.
const FILE: &str = "peers.db";

/// After the supervisor has given up on the book, its file is closed within this time or not at all.
const CLOSING: Duration = Duration::from_secs(1);

/// An open book, and what is concluded from it.
pub(super) struct Kept {
    pub(super) book: Arc<dyn Book>,
    pub(super) tags: Tags,
    pub(super) closing: Closing,
}

/// The end of the book.
pub(super) struct Closing(Pin<Box<dyn Future<Output = ()> + Send>>);

/// What the configuration and the book say together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tags {
    /// The node's channel peers; `None`: the operator has not said that these are all.
    pub(super) declared: Option<Vec<NodeId>>,
    /// Peers that the configuration calls gossip-only and the book does not.
    promoted: BTreeSet<NodeId>,
    /// Peers of the book that the configuration does not name.
    unconfirmed: usize,
}

/// Opens the book.
pub(super) async fn open(settings: &Settings) -> Result<Kept, Failure> {
    let path = settings.data_dir.file(FILE);
    let opening = tokio::task::spawn_blocking(move || SqliteBook::open(path));
    let book = opening.await.unwrap_or(Err(BookError::Closed))?;
    let records = book.load().await?;
    let tags = Tags::weigh(&settings.peers, &records, settings.peers_declared);
    let closing = Closing(Box::pin(book.closed()));
    let book = ReadOnce {
        records: Mutex::new(Some(records)),
        book,
    };
    Ok(Kept {
        book: Arc::new(book),
        tags,
        closing,
    })
}

/// The book, with what has been read of it already: the supervisor need not read it again.
struct ReadOnce {
    records: Mutex<Option<Vec<PeerRecord>>>,
    book: SqliteBook,
}

impl Book for ReadOnce {
    fn load(&self) -> BookFuture<'_, Vec<PeerRecord>> {
        let records = self.records.lock();
        match records.unwrap_or_else(PoisonError::into_inner).take() {
            Some(records) => Box::pin(std::future::ready(Ok(records))),
            None => self.book.load(),
        }
    }

    fn save(&self, record: PeerRecord) -> BookFuture<'_, ()> {
        self.book.save(record)
    }

    fn remove(&self, peer: NodeId) -> BookFuture<'_, ()> {
        self.book.remove(peer)
    }

    fn sightings(&self) -> BookFuture<'_, Vec<Sighting>> {
        self.book.sightings()
    }

    fn note(&self, sightings: Vec<Sighting>) -> BookFuture<'_, ()> {
        self.book.note(sightings)
    }
}

impl Closing {
    /// Waits until the supervisor, drained, has written what was left.
    pub(super) async fn finish(self) {
        let patience = limits::BOOK_DEADLINE.saturating_add(CLOSING);
        if tokio::time::timeout(patience, self.0).await.is_err() {
            tracing::error!("the peer book was not closed in time");
        }
    }
}

impl Tags {
    fn weigh(configured: &[ConfiguredPeer], book: &[PeerRecord], book_is_right: bool) -> Self {
        let named: BTreeSet<NodeId> = configured.iter().map(|peer| peer.id).collect();
        let of_book = book
            .iter()
            .filter(|peer| peer.tag == Some(Tag::ChannelBearing));
        let of_book: BTreeSet<NodeId> = of_book.map(|peer| peer.node_id).collect();
        let (channels, gossip): (Vec<_>, Vec<_>) = configured
            .iter()
            .partition(|peer| peer.tag == Tag::ChannelBearing);
        let unconfirmed = book
            .iter()
            .filter(|peer| !named.contains(&peer.node_id))
            .count();
        let promoted = gossip.iter().map(|peer| peer.id);
        let promoted = promoted.filter(|peer| of_book.contains(peer)).collect();
        let mut all = of_book;
        all.extend(channels.iter().map(|peer| peer.id));
        Self {
            declared: (book_is_right || unconfirmed == 0).then(|| all.into_iter().collect()),
            promoted,
            unconfirmed,
        }
    }

    /// The configured peers, with what they are.
    pub(super) fn apply(&self, peers: Vec<ConfiguredPeer>) -> Vec<ConfiguredPeer> {
        let weighed = |peer: ConfiguredPeer| ConfiguredPeer {
            tag: self.of(&peer),
            ..peer
        };
        peers.into_iter().map(weighed).collect()
    }

    fn of(&self, peer: &ConfiguredPeer) -> Tag {
        if self.promoted.contains(&peer.id) {
            Tag::ChannelBearing
        } else {
            peer.tag
        }
    }

    /// What the operator should know.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self
            .promoted
            .iter()
            .map(|peer| {
                format!(
                    "{peer} is gossip-only in the configuration and channel-bearing in the peer book: it stays channel-bearing; `pilotlight peer tag` changes that"
                )
            })
            .collect();
        if self.declared.is_none() {
            remarks.push(format!(
                "{} peers are in the peer book and not in the configuration: they and strangers count as channel-bearing; peers_declared = true says that the book is right",
                self.unconfirmed
            ));
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::node_id::LocalKey;

    fn id(number: u8) -> NodeId {
        LocalKey::from_bytes(&mut [number; 32]).unwrap().node_id()
    }

    fn written(number: u8, tag: Tag) -> ConfiguredPeer {
        ConfiguredPeer {
            id: id(number),
            addresses: vec!["192.0.2.1:9735".parse().unwrap()],
            tag,
            weight: None,
        }
    }

    fn kept(number: u8, tag: Option<Tag>) -> PeerRecord {
        PeerRecord {
            node_id: id(number),
            addresses: Vec::new(),
            tag,
            weight: 0,
        }
    }

    fn sorted(mut ids: Vec<NodeId>) -> Vec<NodeId> {
        ids.sort_unstable();
        ids
    }

    #[test]
    fn the_configuration_alone_declares_its_channel_peers() {
        let file = [written(1, Tag::GossipOnly), written(2, Tag::ChannelBearing)];
        for book in [vec![], vec![kept(1, None), kept(2, Some(Tag::GossipOnly))]] {
            let tags = Tags::weigh(&file, &book, false);
            assert_eq!(tags.declared, Some(vec![id(2)]));
            assert_eq!(tags.remarks(), [""; 0]);
            assert_eq!(tags.of(&file[0]), Tag::GossipOnly);
        }
    }

    #[test]
    fn a_peer_that_only_the_book_knows_is_unconfirmed_until_the_book_is_said_to_be_right() {
        let file = [written(1, Tag::ChannelBearing)];
        let book = [
            kept(1, Some(Tag::ChannelBearing)),
            kept(2, Some(Tag::GossipOnly)),
            kept(3, Some(Tag::ChannelBearing)),
            kept(4, None),
        ];
        let tags = Tags::weigh(&file, &book, false);
        assert_eq!((tags.declared.clone(), tags.unconfirmed), (None, 3));
        assert!(tags.remarks()[0].contains("3 peers"));
        let tags = Tags::weigh(&file, &book, true);
        assert_eq!(tags.declared, Some(sorted(vec![id(1), id(3)])));
        assert_eq!(tags.remarks(), [""; 0]);
    }

    #[test]
    fn a_promotion_on_record_outlives_a_configuration_that_does_not_know_of_it() {
        let file = [written(1, Tag::GossipOnly), written(2, Tag::GossipOnly)];
        let book = [kept(1, Some(Tag::ChannelBearing)), kept(2, None)];
        let tags = Tags::weigh(&file, &book, false);
        assert_eq!(tags.declared, Some(vec![id(1)]));
        assert_eq!(tags.of(&file[0]), Tag::ChannelBearing);
        assert_eq!(tags.of(&file[1]), Tag::GossipOnly);
        assert!(tags.remarks()[0].contains(&id(1).to_string()));
    }
}
