//! What other nodes say of their peers, of any text: an error with its place, or records that keep every bound and survive a second reading.

use super::bolt8;
use super::pair::ours;
use pilotlight::book::PeerRecord;
use pilotlight::book::import::{self, Import, ImportError};
use pilotlight::limits;
use pilotlight::node_id::NodeId;
use std::sync::LazyLock;

static OWN: LazyLock<NodeId> = LazyLock::new(|| ours(&bolt8::secret(1)).node_id());

pub fn run(json: &[u8]) {
    let import = match import::read(json, Some(*OWN)) {
        Ok(import) => import,
        Err(ImportError::Malformed {
            line,
            column,
            detail,
        }) => {
            let lines = json.split(|byte| *byte == b'\n').count();
            assert!(line <= lines && column <= json.len() + 1 && !detail.is_empty());
            return;
        }
        Err(_) => return,
    };
    let Import { records, counts } = &import;
    assert!(
        records.is_sorted_by(|a, b| a.node_id < b.node_id),
        "each peer once, in order"
    );
    assert!(records.iter().all(|record| record.node_id != *OWN));
    assert!(records.len() + counts.repeated + counts.own == counts.entries);
    let bare = records.iter().filter(|record| record.addresses.is_empty());
    assert_eq!(bare.count(), counts.without_address);
    for record in records {
        well_kept(record);
    }
    // The same file without its own node's place in it: nobody is lost.
    let all = import::read(json, None).expect("it was read before");
    let known = |id: NodeId| all.records.iter().any(|record| record.node_id == id);
    assert!(records.iter().all(|record| known(record.node_id)));
}

fn well_kept(record: &PeerRecord) {
    let addresses = &record.addresses;
    assert!(addresses.len() <= limits::ADDRESSES_MAX);
    for (index, known) in addresses.iter().enumerate() {
        let text = known.address.to_string();
        assert_eq!(
            text.parse().as_ref(),
            Ok(&known.address),
            "{text} reads as another"
        );
        let again = addresses[..index]
            .iter()
            .any(|other| other.address == known.address);
        assert!(!again, "{text} is there twice");
    }
}
