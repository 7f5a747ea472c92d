//! Records to put into a peer book: any number of peers, the same ones each time.

use pilotlight::book::PeerRecord;
use pilotlight::limits;
use pilotlight::node_id::LocalKey;
use std::net::{Ipv4Addr, SocketAddr};

/// Peer `number`, with the same weight.
pub(crate) fn record(number: u32) -> PeerRecord {
    let mut key = [0x42; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let port = |more: usize| 9735 + u16::try_from(more).unwrap();
    PeerRecord {
        node_id: LocalKey::from_bytes(&mut key).unwrap().node_id(),
        addresses: (0..limits::ADDRESSES_MAX / 2)
            .map(|more| SocketAddr::from((Ipv4Addr::from_bits(0xc000_0200 + number), port(more))))
            .map(Into::into)
            .collect(),
        tag: None,
        weight: number,
    }
}
