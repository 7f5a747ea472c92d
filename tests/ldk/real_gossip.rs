//! Real messages of mainnet, where they are at hand: through our transport to LDK and back, byte by byte.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::exchange::{filter_of_a_week, linked, send_all};
use crate::live_node::{is_gossip, kind};
use crate::numbered::assert_same;

/// Up to `limit` messages of a `.gsp` file: a four-byte header, then records of length (1 byte, or `fd` and two) and message.
fn read_gsp(path: &Path, limit: usize) -> Option<Vec<Vec<u8>>> {
    let bytes = std::fs::read(path).ok()?;
    let mut rest = bytes.strip_prefix(b"GSP\x01").expect("a gsp file");
    let mut messages = Vec::new();
    while messages.len() < limit && !rest.is_empty() {
        let (length, body) = match *rest {
            [0xfd, high, low, ref body @ ..] => {
                (usize::from(u16::from_be_bytes([high, low])), body)
            }
            [length, ref body @ ..] => (usize::from(length), body),
            [] => unreachable!(),
        };
        let (message, next) = body.split_at(length);
        messages.push(message.to_vec());
        rest = next;
    }
    Some(messages)
}

/// Where a file of `shared/data` is: beside the project, or beside a folder that the project lies in, as a worktree may.
fn data(name: &str) -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(1);
    let mut places = above.map(|folder| folder.join("shared/data").join(name));
    places.find(|place| place.is_file()).unwrap_or_default()
}

/// Real messages of one type from both files; none where they are not at hand.
pub(crate) fn mainnet(wanted: u16, limit: usize) -> Vec<Vec<u8>> {
    let files = [
        "mainnet-gossip-2021-cln.gsp",
        "mainnet-gossip-2025-verified.gsp",
    ];
    let all = files
        .into_iter()
        .filter_map(|name| read_gsp(&data(name), usize::MAX))
        .flatten();
    all.filter(|message| kind(message) == wanted)
        .take(limit)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_real_mainnet_gossip_reaches_ldk_and_comes_back_unchanged() {
    let Some(old) = read_gsp(&data("mainnet-gossip-2021-cln.gsp"), usize::MAX) else {
        println!("real gossip: no data at hand, skipped");
        return;
    };
    let recent = read_gsp(&data("mainnet-gossip-2025-verified.gsp"), 2000).unwrap_or_default();
    let all = [old, recent].concat();
    let (node, ldk, link) = linked(30).await;
    send_all(&link, &all).await;
    ldk.records
        .until_true("all reach LDK", |records| records.gossip.len() >= all.len())
        .await;
    assert_same(
        "mainnet gossip to LDK",
        &ldk.records.read(|records| records.gossip.clone()),
        &all,
    );

    // LDK serves what it has taken in: every channel, whose four signatures it has checked, and nodes that it knows channels of.
    let announced: HashSet<&Vec<u8>> = all.iter().filter(|message| kind(message) == 256).collect();
    let channels = ldk.graph.read_only().channels().len();
    assert_eq!(channels, announced.len());
    send_all(&link, &[filter_of_a_week()]).await;
    let came = node.messages(ldk.id(), is_gossip, channels).await;
    assert!(came.iter().all(|message| all.contains(message)));
    let back: HashSet<&Vec<u8>> = came.iter().filter(|message| kind(message) == 256).collect();
    assert_eq!(back, announced);
    println!(
        "real gossip: {} messages of mainnet to LDK unchanged, {channels} channels verified and back unchanged",
        all.len()
    );
}
