//! The page in trouble: a daemon that is gone, one that refuses, strangers without number, and events that are alike.

use super::browser::Browser;
use super::crowd::Crowd;
use super::{daemon_of, open, until_mode};
use pilotlight::admin::recorded;
use pilotlight::limits;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Counts what a screen reader would say of by itself: changes in live regions that are to be seen.
const LISTEN: &str = "
    globalThis.said = [];
    const live = document.querySelectorAll('[role=alert], [role=status], [aria-live]');
    const ear = new MutationObserver((changes) => changes.forEach((change) => said.push(change.target.textContent)));
    live.forEach((one) => ear.observe(one, { childList: true, characterData: true, subtree: true }));
    globalThis.waits = new Set();
    new MutationObserver(() => waits.add(document.getElementById('broken-wait').textContent))
        .observe(document.getElementById('broken-wait'), { childList: true, characterData: true, subtree: true });
    return live.length;
";

#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn a_screen_reader_hears_once_that_the_daemon_is_gone_and_no_countdown() {
    let crowd = Crowd::listen(1, 2);
    let mut daemon = daemon_of(&crowd);
    let browser = Browser::start();
    open(&browser, &daemon, 3);
    daemon.signal("-KILL");
    daemon.ended();
    until_mode(&browser, "none");
    browser.until(
        "it says so",
        "return document.getElementById('broken-text').textContent.includes('not reachable since')",
    );
    let regions = browser.run(LISTEN);
    assert!(regions.as_u64() >= Some(4), "{regions} live regions");
    // The countdown has gone on for a while, over more than one attempt.
    browser.until("it counts down", "return waits.size >= 4");
    let said = browser.run("return [said, document.getElementById('broken').checkVisibility()]");
    assert_eq!(said, json!([[], true]), "said again and again");
}

/// A stream of events that somebody else holds.
fn stream(admin: &str, token: &str) -> TcpStream {
    let mut socket = TcpStream::connect(admin).unwrap();
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    socket
}

#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn a_daemon_that_refuses_is_quoted_and_its_token_is_kept() {
    let crowd = Crowd::listen(1, 2);
    let daemon = daemon_of(&crowd);
    let (admin, token) = (daemon.text("admin"), daemon.token("readonly.token"));
    let streams: Vec<TcpStream> = (0..limits::ADMIN_EVENT_STREAMS)
        .map(|_| stream(admin, &token))
        .collect();
    let browser = Browser::start();
    browser.open(&super::url_of(&daemon));
    browser.until(
        "the refusal",
        "return document.getElementById('broken-text').innerText.includes('event streams are open already')",
    );
    let shown = browser.run("return [document.getElementById('broken-text').innerText.startsWith('The daemon has refused since '), document.getElementById('contact-text').innerText, document.getElementById('ask').hidden, sessionStorage.length]");
    assert_eq!(shown, json!([true, "Refused", true, 1]));
    drop(streams);
    until_mode(&browser, "live");
    assert_eq!(
        browser.run("return document.getElementById('broken').hidden"),
        true
    );
}

/// The model alone: who is gone makes room for who is there.
#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn strangers_without_number_keep_no_peer_off_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.html");
    std::fs::write(&path, recorded(&json!({ "from": 1, "until": 2 }), "")).unwrap();
    let browser = Browser::start();
    browser.open(&format!("file://{}", path.display()));
    let seen = browser.run(
        "const model = new Picture.Model();
        const up = (at, id) => { model.event({ at, event: 'link_up', node_id: id, link: at, tag: 'gossip-only', identity: 'node' }); };
        const down = (at, id) => { model.event({ at, event: 'link_down', node_id: id, link: at, tag: 'gossip-only', reason: 'io' }); };
        for (let at = 1; at <= Picture.BOUNDS.lanes; at += 1) { up(at, `s${at}`); if (at > 1) down(at, `s${at}`); }
        // None of them is listed, and the first is up still.
        model.peers([], 6000, 6000);
        const peer = { node_id: 'peer', state: 'up', tag: 'channel-bearing', identity: 'node' };
        model.peers([peer], 6001, 6001);
        const total = Object.values(model.counts).reduce((sum, count) => sum + count);
        const found = [model.lanes.has('peer'), model.lanes.has('s1'), model.lanes.has('s2'), model.lanes.has('s3'), model.lanes.size, total, model.left];
        // Where all are there, one more has no place.
        const full = new Picture.Model();
        full.peers(Array.from({ length: Picture.BOUNDS.lanes + 1 }, (_, at) => ({ node_id: `p${at}`, state: 'up', tag: 'gossip-only' })), 1, 1);
        return [found, full.lanes.size, full.left]",
    );
    assert_eq!(
        seen,
        json!([[true, true, false, true, 5000, 5000, 0], 5000, 1])
    );
}

#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn events_that_are_alike_have_a_row_each_and_an_htlc_that_has_expired_is_said_to_have() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alike.html");
    let complaint = json!({ "at": 1.5, "event": "peer_complained", "node_id": "02ab", "kind": "warning", "text": "again" });
    let expiry = |at: f64, left: i64| json!({ "at": at, "event": "htlc_deadline", "node_id": "02ab", "blocks_left": left, "peers": 1, "within": 36 });
    let page = recorded(
        &json!({
            "from": 1, "until": 9,
            "info": { "mode": "safe", "chain": { "htlc_deadline": { "blocks_left": -7 } } },
            "events": [complaint, complaint, expiry(3.0, 36), expiry(4.0, 1), expiry(5.0, 0), expiry(6.0, -1), expiry(7.0, -7)],
        }),
        "",
    );
    std::fs::write(&path, page).unwrap();
    let browser = Browser::start();
    browser.open(&format!("file://{}", path.display()));
    browser.until(
        "the events",
        "return document.querySelectorAll('#events li').length > 0",
    );
    let rows = browser.run("return [...document.querySelectorAll('#events .text')].map((row) => row.innerText.replace('An HTLC with 02ab…02ab ', '').replace(', and no signer is there', ''))");
    let alike = "02ab…02ab sent a warning: again";
    assert_eq!(
        rows,
        json!([
            "expired 7 blocks ago",
            "expired 1 block ago",
            "expires now",
            "expires in 1 block",
            "expires in 36 blocks",
            alike,
            alike
        ])
    );
    // Rows that were there are taken over when they are drawn again: one element cannot be two of them.
    browser.run("document.getElementById('minor').click()");
    browser.settle();
    let again = browser.run("return document.querySelectorAll('#events li').length");
    assert_eq!(again, 7);
    let signer = browser.text("signer");
    assert!(signer.contains("expired 7 blocks ago"), "{signer}");
}

/// A daemon that drains may have its signer still.
#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn while_the_daemon_drains_its_signer_is_there_if_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let browser = Browser::start();
    for (signer, word) in [
        (json!({ "attached": true }), "Attached"),
        (json!({ "attached": false }), "Away"),
        (json!({}), "Not known"),
    ] {
        let path = folder.path().join(format!("{word}.html"));
        let drains =
            json!({ "at": 1.5, "event": "mode_changed", "from": "live", "to": "draining" });
        let page = json!({ "from": 1, "until": 9, "info": { "mode": "draining", "signer": signer }, "events": [drains] });
        std::fs::write(&path, recorded(&page, "")).unwrap();
        browser.open(&format!("file://{}", path.display()));
        until_mode(&browser, "draining");
        browser.settle();
        assert_eq!(browser.text("signer-word"), word);
    }
}
