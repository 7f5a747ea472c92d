//! `pilotlight peer import`: reads what other nodes print of their peers, and hands it to the running daemon in batches that fit
//! its requests. What the files look like, the library knows (`book/import.rs`).

use super::client::Client;
use super::failure::{Exit, Failure};
use super::output::Output;
use crate::address::KnownAddress;
use crate::book::PeerRecord;
use crate::book::import::{self, Counts, ImportError};
use crate::limits;
use crate::link::Tag;
use crate::routable::is_routable;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Left for the braces around a batch.
const ENVELOPE: usize = 64;

/// Reads `file` (`-`: standard input) and gives the daemon what is in it.
pub(super) fn run(
    file: &Path,
    private: bool,
    client: impl FnOnce() -> Result<Client, Failure>,
    output: &Output,
) -> Result<Exit, Failure> {
    let json = read(file)?;
    // Malformed or not: that is said before a daemon is looked for.
    import::read(&json, None).map_err(|error| malformed(file, &error))?;
    let client = client()?;
    let info = client.get("/v1/info")?;
    let own = info.pointer("/node_id").and_then(Value::as_str);
    let own = own.and_then(|id| id.parse().ok());
    let mut found = import::read(&json, own).map_err(|error| malformed(file, &error))?;
    let closed = if private {
        0
    } else {
        leave_out_private(&mut found.records)
    };
    // Neither where it is nor what it is: nothing would come of it.
    let (records, empty): (Vec<_>, Vec<_>) = found
        .records
        .into_iter()
        .partition(|peer| !peer.addresses.is_empty() || peer.tag.is_some());
    for batch in batches(&records) {
        client.change(
            "POST",
            "/v1/peers/import",
            Some(&json!({ "peers": batch, "by_hand": private })),
        )?;
    }
    let imported = count_known(&client, &records)?;
    let answer = describe(file, &records, imported, empty.len(), closed, found.counts);
    output.answer(&answer, sentence);
    if imported < records.len() {
        return Err(Failure::failed(
            format!(
                "{} of the peers were not taken: there are {} already",
                records.len().saturating_sub(imported),
                limits::PEERS_MAX
            ),
            "limits::PEERS_MAX",
            "remove peers that are not needed",
        ));
    }
    Ok(Exit::Ok)
}

/// Whoever wrote the list could otherwise have this machine dial into its own network. How many were left out.
fn leave_out_private(records: &mut [PeerRecord]) -> usize {
    let mut left_out = 0_usize;
    for record in records {
        let before = record.addresses.len();
        let private = |known: &KnownAddress| known.address.ip().is_some_and(|ip| !is_routable(ip));
        record.addresses.retain(|known| !private(known));
        left_out = left_out.saturating_add(before.saturating_sub(record.addresses.len()));
    }
    left_out
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let most = u64::try_from(limits::IMPORT_FILE_MAX).unwrap_or(u64::MAX);
    let mut json = Vec::new();
    let opened: io::Result<Box<dyn Read>> = if file == Path::new("-") {
        Ok(Box::new(io::stdin()))
    } else {
        File::open(file).map(|file| Box::new(file) as Box<dyn Read>)
    };
    opened
        .and_then(|source| source.take(most.saturating_add(1)).read_to_end(&mut json))
        .map_err(|error| {
            Failure::usage(
                format!("cannot read the file: {error}"),
                file.display().to_string(),
                "give a file that this user can read, or - for standard input",
            )
        })?;
    Ok(json)
}

fn malformed(file: &Path, error: &ImportError) -> Failure {
    Failure::usage(
        error.to_string(),
        file.display().to_string(),
        format!("give what one of these prints: {}", error.rule()),
    )
}

fn batches(records: &[PeerRecord]) -> Vec<Vec<Value>> {
    let room = limits::ADMIN_BODY_MAX.saturating_sub(ENVELOPE);
    let mut batches: Vec<Vec<Value>> = Vec::new();
    let mut used = room;
    for record in records {
        let addresses = record.addresses.iter();
        let addresses: Vec<_> = addresses.map(|known| known.address.to_string()).collect();
        let peer = json!({
            "node_id": record.node_id.to_string(), "addrs": addresses, "tag": record.tag.map(Tag::as_str),
        });
        let length = peer.to_string().len().saturating_add(1);
        used = used.saturating_add(length);
        if let Some(batch) = batches.last_mut().filter(|_| used <= room) {
            batch.push(peer);
        } else {
            batches.push(vec![peer]);
            used = length;
        }
    }
    batches
}

/// How many of them the daemon knows now.
fn count_known(client: &Client, records: &[PeerRecord]) -> Result<usize, Failure> {
    let peers = client.get("/v1/peers")?;
    let known: BTreeSet<&str> = peers
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|peer| peer.pointer("/node_id")?.as_str())
        .collect();
    let ids = records.iter().map(|record| record.node_id.to_string());
    Ok(ids.filter(|id| known.contains(id.as_str())).count())
}

fn describe(
    file: &Path,
    records: &[PeerRecord],
    imported: usize,
    empty: usize,
    private: usize,
    counts: Counts,
) -> Value {
    let channels = records.iter().filter(|peer| peer.tag.is_some()).count();
    let skipped = counts.skipped;
    json!({
        "file": file.display().to_string(), "entries": counts.entries, "imported": imported, "channel_bearing": channels,
        "left_out": { "own": counts.own, "without_address_or_channel": empty },
        "addresses_left_out": {
            "tor": skipped.tor, "inbound": skipped.inbound, "unusable": skipped.unusable, "surplus": skipped.surplus,
            "private": private,
        },
    })
}

fn sentence(answer: &Value) -> String {
    let number = |path: &str| {
        answer
            .pointer(path)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    };
    let parts = |path: &str| {
        let fields = answer.pointer(path).and_then(Value::as_object);
        let fields = fields.into_iter().flatten();
        let parts: Vec<String> = fields
            .filter(|(_, count)| count.as_u64() != Some(0))
            .map(|(why, count)| format!("{count} {}", why.replace('_', " ")))
            .collect();
        if parts.is_empty() {
            "none".to_owned()
        } else {
            parts.join(", ")
        }
    };
    format!(
        "imported {} peers, {} of them channel-bearing, of {} entries\n  peers left out      {}\n  addresses left out  {}",
        number("/imported"),
        number("/channel_bearing"),
        number("/entries"),
        parts("/left_out"),
        parts("/addresses_left_out"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::address::PeerAddress;
    use crate::node_id::LocalKey;

    #[test]
    fn batches_hold_everything_in_order_and_fit_a_request() {
        let address = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
        let address: PeerAddress = address.parse().unwrap();
        let records: Vec<_> = (1..200)
            .map(|number| PeerRecord {
                node_id: LocalKey::from_bytes(&mut [number; 32]).unwrap().node_id(),
                addresses: vec![
                    KnownAddress::from(address.clone());
                    usize::from(number) % (limits::ADDRESSES_MAX + 1)
                ],
                tag: Some(Tag::ChannelBearing),
                weight: 0,
            })
            .collect();
        let batches = batches(&records);
        for batch in &batches {
            let body = json!({ "peers": batch, "by_hand": false }).to_string();
            assert!(body.len() <= limits::ADMIN_BODY_MAX, "{}", body.len());
        }
        assert!((2..20).contains(&batches.len()), "{}", batches.len());
        let sent: Vec<_> = batches
            .concat()
            .iter()
            .map(|peer| peer["node_id"].to_string())
            .collect();
        let ids: Vec<_> = records
            .iter()
            .map(|peer| format!("\"{}\"", peer.node_id))
            .collect();
        assert_eq!(sent, ids);
    }
}
