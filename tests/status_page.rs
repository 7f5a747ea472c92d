//! The status page in a real headless Chromium, against a real daemon with real peers on loopback.
//!
//! Ignored in a plain `cargo test`, because it needs Debian's `chromium` and `chromium-driver`; `.ci/run` installs them and runs it.
//! What a person must see within a second is measured in real time: the page runs on the browser's clock, and that time is the promise.
//! The screenshots are left in `target/status-page/`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "support/browser.rs"]
mod browser;
#[allow(dead_code, reason = "the peers of other tests stay as they are")]
#[path = "support/crowd.rs"]
mod crowd;
#[allow(dead_code, reason = "tests/daemon.rs uses the rest of it")]
#[path = "support/daemon.rs"]
mod support;
#[path = "status_page/troubles.rs"]
mod troubles;

use browser::Browser;
use crowd::Crowd;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{Daemon, pilotlight};

/// How soon a person must see it, from the daemon's event to the painted page.
const SEEN_WITHIN_MS: f64 = 1000.0;

/// Longest that the page may keep a browser from doing anything else. People notice from some 100 ms on; this machine is shared.
const HELD_UP_MS: f64 = 300.0;

/// Notes when the mode is seen to change, and when that has been painted.
const WATCH: &str = "
    globalThis.seen = [];
    new MutationObserver(() => {
        const one = { mode: document.documentElement.dataset.mode, dom: performance.now() };
        requestAnimationFrame(() => setTimeout(() => seen.push({ ...one, painted: performance.now() }), 0));
    }).observe(document.documentElement, { attributes: true, attributeFilter: ['data-mode'] });
";

/// Where the pictures are kept.
fn pictures() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
        PathBuf::from,
    );
    target.join("status-page")
}

fn daemon_of(crowd: &Crowd) -> Daemon {
    Daemon::start_with(|command, folder| {
        let path = folder.join("p.toml");
        std::fs::write(&path, crowd.configuration()).unwrap();
        command.arg("--config").arg(path);
    })
}

fn url_of(daemon: &Daemon) -> String {
    let answer = daemon.ask(&["info", "--url"]);
    answer["url"].as_str().unwrap().to_owned()
}

/// Opens the page, and waits until it shows so many links.
fn open(browser: &Browser, daemon: &Daemon, links: usize) {
    browser.open(&url_of(daemon));
    until_up(browser, links);
}

fn until_up(browser: &Browser, links: usize) {
    let script = format!("return document.getElementById('links-up').innerText === '{links}'");
    browser.until(&format!("{links} links"), &script);
}

fn until_mode(browser: &Browser, mode: &str) {
    let script = format!("return document.documentElement.dataset.mode === '{mode}'");
    browser.until(mode, &script);
}

/// The change to `mode` was on the page and painted soon after its event, by the daemon's clock, which is the browser's too.
fn assert_seen_in_time(browser: &Browser, mode: &str) {
    let script = format!(
        "const one = seen.find((one) => one.mode === '{mode}');
        const mark = performance.getEntriesByName('mode_changed').find((mark) => mark.detail.to === '{mode}');
        return one && mark && [mark.startTime, one.dom, one.painted].map((at) => performance.timeOrigin + at - mark.detail.at * 1000)"
    );
    let times = browser.until(mode, &script);
    let [came, dom, painted] = [0, 1, 2].map(|at| times[at].as_f64().unwrap());
    println!(
        "{mode}: ms after the daemon's event: {came:.1} it came, {dom:.1} in the page, {painted:.1} painted"
    );
    assert!(
        dom < SEEN_WITHIN_MS && painted < SEEN_WITHIN_MS,
        "{mode}: {times}"
    );
}

/// Nothing failed in the page, and it asked nobody but the daemon for anything, with the token in a header and nowhere else.
fn assert_clean(browser: &Browser, daemon: &Daemon) {
    let complaints: Vec<Value> = browser.log("browser");
    assert!(complaints.is_empty(), "the console: {complaints:?}");
    let witness = browser.run("return [witness.violations, witness.errors]");
    assert_eq!(witness, serde_json::json!([[], []]));
    let own = format!("http://{}/", daemon.text("admin"));
    let token = daemon.token("readonly.token");
    let (mut requests, mut with_token) = (0, 0);
    for entry in browser.log("performance") {
        let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
        let message = &message["message"];
        if message["method"] != "Network.requestWillBeSent" {
            continue;
        }
        let request = &message["params"]["request"];
        let url = request["url"].as_str().unwrap();
        // The browser's own first page, before ours, and icons that are in the page.
        if url.starts_with("chrome") || url.starts_with("data:") {
            continue;
        }
        requests += 1;
        assert!(url.starts_with(&own), "a request to elsewhere: {url}");
        assert!(!url.contains(&token), "a token in a URL");
        let headers = request["headers"].as_object().unwrap();
        for (name, value) in headers {
            let value = value.as_str().unwrap_or_default();
            if name.eq_ignore_ascii_case("authorization") {
                with_token += usize::from(value == format!("Bearer {token}"));
            } else {
                assert!(!value.contains(&token), "a token in {name}");
            }
        }
    }
    assert!(
        requests >= 7 && with_token >= 3,
        "{requests} requests, {with_token} with the token"
    );
    let resources = browser.run("return performance.getEntriesByType('resource').map((one) => one.name).filter((name) => !name.startsWith('data:'))");
    for resource in resources.as_array().unwrap() {
        assert!(resource.as_str().unwrap().starts_with(&own), "{resource}");
    }
}

fn picture(browser: &Browser, name: &str) {
    for (form, width, height, phone) in [("desktop", 1280, 900, false), ("phone", 390, 844, true)] {
        for (colours, dark) in [("light", false), ("dark", true)] {
            browser.screen(width, height, phone, dark);
            browser.picture(&pictures().join(format!("{name}-{form}-{colours}.png")));
        }
    }
    browser.screen(1280, 900, false, false);
}

#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn a_lapse_and_a_return_are_seen_within_a_second_and_nobody_else_is_asked() {
    let crowd = Crowd::listen(4, 6);
    let daemon = daemon_of(&crowd);
    let browser = Browser::start();
    open(&browser, &daemon, 10);
    until_mode(&browser, "live");
    browser.run(WATCH);
    assert_eq!(browser.text("mode"), "Live");
    assert_eq!(browser.text("signer-word"), "Attached");
    let address = browser.run("return location.href");
    assert_eq!(
        address,
        format!("http://{}/", daemon.text("admin")),
        "the token is gone from the address"
    );
    picture(&browser, "live");

    daemon.ask(&["signer", "lapse"]);
    assert_seen_in_time(&browser, "safe");
    until_up(&browser, 6);
    assert_eq!(
        (browser.text("mode"), browser.text("signer-word")),
        ("Safe mode".to_owned(), "Away".to_owned())
    );
    // The word of a mode would be taken for the mode.
    assert_eq!(browser.text("contact-text"), "Connected");
    let lapse = browser.text("lapse");
    for part in [
        "it was requested",
        "Fence",
        "Teardown",
        "Dropped\n4",
        "Retained\n6",
    ] {
        assert!(lapse.contains(part), "{part}: {lapse}");
    }
    // Two gossip peers are lost and come back under a persona, as the floor of five asks.
    crowd.hang_up(4);
    crowd.hang_up(5);
    browser.until(
        "a persona",
        "return /Under a persona\\s+[12]/.test(document.getElementById('links').innerText)",
    );
    picture(&browser, "safe");

    daemon.ask(&["signer", "attach"]);
    assert_seen_in_time(&browser, "live");
    until_up(&browser, 10);
    browser.until("relit", "return document.getElementById('events').innerText.includes('Relit: 4 channel peers back')");
    picture(&browser, "relit");

    // A page that is opened now shows what has been.
    open(&browser, &daemon, 10);
    let events = browser.until("the lapse of before", "const text = document.getElementById('events').innerText; return text.includes('The signer lapsed') && text");
    let events = events.as_str().unwrap();
    assert!(
        events.contains("4 links dropped, 6 retained") && events.contains("Mode: live → safe"),
        "{events}"
    );
    assert_clean(&browser, &daemon);
    the_policy_bites(&browser);
}

/// What the page never does is not possible in it either. This comes last: it fills the logs.
fn the_policy_bites(browser: &Browser) {
    browser.run("
        globalThis.broken = [];
        try { document.body.insertAdjacentHTML('beforeend', '<img src=x>'); broken.push('html'); } catch { }
        const script = document.createElement('script');
        try { script.text = 'broken.push(\"script\")'; document.body.append(script); } catch { }
        const image = new Image();
        image.onload = () => broken.push('image');
        image.src = 'http://127.0.0.1:9/x.png';
        fetch('http://127.0.0.1:9/').then(() => broken.push('fetch'), () => {});
    ");
    browser.until("violations", "return ['img-src', 'connect-src', 'require-trusted-types-for'].every((rule) => witness.violations.some((one) => one.startsWith(rule)))");
    assert_eq!(browser.run("return broken"), serde_json::json!([]));
}

#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn without_a_token_it_asks_for_one_and_what_a_peer_says_is_text() {
    let crowd = Crowd::listen(0, 2);
    let daemon = daemon_of(&crowd);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", daemon.text("admin")));
    let asks =
        "return !document.getElementById('ask').hidden && document.activeElement.id === 'token'";
    browser.until("it asks", asks);
    assert!(browser.text("ask").contains("pilotlight info --url"));
    browser.screen(1280, 900, false, false);
    browser.picture(&pictures().join("ask-desktop-light.png"));

    let give = |token: &str| {
        let enter = "\u{e007}".to_owned();
        let keys: Vec<String> = token.chars().map(String::from).chain([enter]).collect();
        browser.press(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    };
    give("short");
    browser.until(
        "it says what a token is",
        "return document.getElementById('ask-why').innerText.includes('64 hex digits')",
    );
    give(&"0".repeat(64));
    browser.until(
        "it is refused",
        "return document.getElementById('ask-why').innerText.includes('does not take this token')",
    );
    assert_eq!(
        browser.run("return sessionStorage.length"),
        0,
        "a wrong token is not kept"
    );
    browser.until("it asks again", asks);
    give(&daemon.token("readonly.token"));
    until_up(&browser, 2);
    assert_eq!(
        browser.run("return [localStorage.length, document.cookie, sessionStorage.length]"),
        serde_json::json!([0, "", 1])
    );

    crowd.warn(
        0,
        "<img src=x onerror=\"witness.errors.push('ran')\"><b>bold</b>",
    );
    browser.until(
        "the warning",
        "return document.getElementById('events').innerText.includes('<b>bold</b>')",
    );
    let made = browser.run("return [document.querySelectorAll('#events img, #events b').length, witness.errors.length, witness.violations.length]");
    assert_eq!(made, serde_json::json!([0, 0, 0]));

    browser.run("document.getElementById('forget').click()");
    browser.until("it has forgotten", asks);
    assert_eq!(browser.run("return sessionStorage.length"), 0);
}

#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn a_daemon_that_is_gone_is_said_to_be_and_one_that_is_back_is_found() {
    let crowd = Crowd::listen(1, 2);
    let mut daemon = daemon_of(&crowd);
    let (data, admin, listen) = (
        daemon.data.clone(),
        daemon.text("admin").to_owned(),
        daemon.text("listen").to_owned(),
    );
    let config = data.parent().unwrap().join("p.toml");
    let browser = Browser::start();
    open(&browser, &daemon, 3);
    daemon.signal("-KILL");
    daemon.ended();
    until_mode(&browser, "none");
    assert_eq!(browser.text("mode"), "No contact");
    let said = browser.text("broken");
    assert!(
        said.contains("not reachable since") && said.contains("Try"),
        "{said}"
    );
    assert!(
        browser
            .text("mode-since")
            .starts_with("Last known: Live, as of")
    );
    browser.screen(390, 844, true, false);
    browser.picture(&pictures().join("gone-phone-light.png"));
    browser.screen(1280, 900, false, false);

    let mut command = pilotlight();
    command
        .args([
            "run",
            "--json",
            "--admin",
            &admin,
            "--listen",
            &listen,
            "--data-dir",
        ])
        .arg(&data)
        .arg("--config")
        .arg(config);
    let again = Daemon::spawn(command, &data);
    until_mode(&browser, "live");
    until_up(&browser, 3);
    assert_eq!(
        browser.run("return document.getElementById('broken').hidden"),
        true
    );
    drop(again);
}

#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn it_is_read_by_keyboard_by_ear_on_a_small_phone_and_in_both_schemes() {
    let crowd = Crowd::listen(2, 3);
    let daemon = daemon_of(&crowd);
    let browser = Browser::start();
    open(&browser, &daemon, 5);
    // Landmarks, one heading of the first level, and live regions.
    let landmarks = browser.run("return ['header', 'main', 'footer', 'h1'].map((name) => document.querySelectorAll(name).length)");
    assert_eq!(landmarks, serde_json::json!([1, 1, 1, 1]));
    let nameless = browser.run("return [...document.querySelectorAll('button, input, select, canvas:not([aria-hidden]), section')].filter((one) =>
        !(one.textContent.trim() || one.ariaLabel || one.labels?.length || one.getAttribute('aria-labelledby'))).map((one) => one.outerHTML)");
    assert_eq!(nameless, serde_json::json!([]));
    assert_eq!(
        browser.run("return document.getElementById('mode').ariaLive"),
        "assertive"
    );

    // From the start of the page to the lanes by Tab, and from lane to lane by arrows.
    let mut focused = Vec::new();
    for _ in 0..20 {
        browser.press(&["\u{e004}"]);
        let here = browser.run("const one = document.activeElement; return [one.id || one.className, getComputedStyle(one).outlineStyle]");
        assert_eq!(here[1], "solid", "the focus is seen on {here}");
        focused.push(here[0].as_str().unwrap().to_owned());
        if here[0] == "lanes" {
            break;
        }
    }
    assert_eq!(focused, ["skip", "copy", "only", "span", "find", "lanes"]);
    let lane = || browser.text("lane");
    let first = lane();
    assert!(
        first.contains("channel-bearing · up, with a channel since"),
        "{first}"
    );
    browser.press(&["\u{e00f}"]);
    browser.press(&["\u{e010}"]);
    browser.settle();
    let last = lane();
    assert!(
        last.contains("gossip-only · up, gossip only since"),
        "{last}"
    );
    assert_eq!(browser.run("const one = document.getElementById('lane'); return [one.ariaPosInSet, one.ariaSetSize]"), serde_json::json!(["5", "5"]));
    browser.press(&["\u{e013}"]);
    browser.settle();
    assert_ne!(lane(), last);
    assert_eq!(browser.text("detail"), lane());

    // The lanes as a table.
    browser.run("document.getElementById('table-box').open = true");
    browser.until(
        "the table",
        "return document.querySelectorAll('#rows tr').length === 5",
    );
    let table = browser.text("rows");
    for member in &crowd.members {
        let address = member.spec.split_once('@').unwrap().1;
        assert!(
            table.contains(&member.id) && table.contains(address),
            "{table}"
        );
    }
    for (mode, command) in [("safe", "lapse"), ("live", "attach")] {
        daemon.ask(&["signer", command]);
        until_mode(&browser, mode);
        for dark in [false, true] {
            browser.screen(320, 700, true, dark);
            let wide = browser.run("return [document.documentElement.scrollWidth, [...document.querySelectorAll('main > *')].every((one) => one.getBoundingClientRect().right <= 320.5)]");
            assert_eq!(
                wide,
                serde_json::json!([320, true]),
                "no sideways scrolling at 320 pixels"
            );
            let faint = browser.run(FAINT);
            assert_eq!(faint, serde_json::json!([]), "{mode}, dark: {dark}");
        }
    }
    browser.screen(1280, 900, false, false);
    let drawn = browser.run("const canvas = document.getElementById('lanes-canvas');
        const bytes = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let drawn = 0; for (let at = 3; at < bytes.length; at += 4) drawn += bytes[at] > 0; return drawn");
    assert!(drawn.as_u64() > Some(5000), "{drawn} pixels of lanes");
}

/// What the picture is made from, in the browser that draws it: the model without a page around it.
#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn the_picture_is_made_of_events_and_bounded() {
    let crowd = Crowd::listen(0, 1);
    let daemon = daemon_of(&crowd);
    let browser = Browser::start();
    open(&browser, &daemon, 1);
    let run = |script: &str| {
        browser.run(&format!("const model = new Picture.Model(); const spans = (id) => model.lanes.get(id).spans.map(({{ at, state }}) => `${{at}} ${{state}}`); const e = (at, event, more) => model.event({{ at, event, ...more }}); {script}"))
    };
    let up =
        "e(1, 'link_up', { node_id: 'a', link: 1, tag: 'channel-bearing', identity: 'node' });";
    assert_eq!(
        run(&format!("{up} e(2, 'mode_changed', {{ from: 'live', to: 'safe' }}); e(2, 'link_down', {{ node_id: 'a', link: 1, tag: 'channel-bearing', reason: 'lapse' }});
            e(2.5, 'signer_lapsed', {{ teardown_ms: 500, reason: 'requested' }}); e(3, 'mode_changed', {{ from: 'safe', to: 'live' }}); e(4, 'dialing', {{ node_id: 'a' }});
            e(5, 'link_up', {{ node_id: 'a', link: 2, tag: 'channel-bearing', identity: 'node' }}); return [spans('a'), model.lapses[0].at, model.away(9), model.modes.length]")),
        serde_json::json!([["1 channel", "2 held", "4 dialing", "5 channel"], 2, [[2, 3]], 3])
    );
    // A successor's beginning may be told before its predecessor's end.
    assert_eq!(
        run(&format!(
            "{up} e(2, 'link_up', {{ node_id: 'a', link: 2, tag: 'channel-bearing', identity: 'node' }}); e(3, 'link_down', {{ node_id: 'a', link: 1, tag: 'channel-bearing', reason: 'duplicate' }}); return spans('a')"
        )),
        serde_json::json!(["1 channel"])
    );
    // A snapshot that was asked for before an event is older than the event.
    assert_eq!(
        run(&format!(
            "{up} model.peers([{{ node_id: 'a', state: 'dialing', tag: 'channel-bearing' }}], 2, 0.5); model.peers([{{ node_id: 'b', state: 'up', identity: 'persona', tag: 'gossip-only', since: 0.5 }}], 3, 2.5); return [spans('a'), spans('b'), model.counts.channel, model.counts.persona]"
        )),
        serde_json::json!([["1 channel"], ["0.5 persona"], 1, 1])
    );
    // Nothing is made up for a time of which nothing is known.
    assert_eq!(
        run(&format!(
            "{up} model.gap(2); model.peers([{{ node_id: 'a', state: 'up', identity: 'node', tag: 'channel-bearing', since: 1 }}], 5); return spans('a')"
        )),
        serde_json::json!(["1 channel", "2 unknown", "5 channel"])
    );
    let sizes = run("for (let at = 0; at < 30000; at += 1) { e(at, 'link_up', { node_id: 'x', link: at, tag: 'gossip-only', identity: 'node' }); e(at + 0.5, 'link_down', { node_id: 'x', link: at, tag: 'gossip-only', reason: `r${at % 7}` });
        e(at, 'dialing', { node_id: `n${at}` }); e(at, 'signer_lapsed', { teardown_ms: 0 }); e(at, 'mode_changed', { from: 'a', to: 'b' }); }
        return [spans('x').length, model.lanes.size, model.lapses.length, model.modes.length, model.steps.length, model.events.length, model.left > 0, model.counts.dialing]");
    assert_eq!(
        sizes,
        serde_json::json!([256, 5000, 256, 512, 4096, 400, true, 4999])
    );
    let odd = run(
        "for (const event of [{}, { at: 'x', event: 'link_up' }, { at: 1, event: 'link_up' }, { at: 1, event: 'link_down', node_id: 7 }, { at: 1 }]) model.event(event); return model.lanes.size",
    );
    assert_eq!(odd, 0);
}

/// Texts whose contrast with what is behind them is under WCAG's AA, and marks under 3 to 1.
const FAINT: &str = "
    const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
    const over = (top, below) => top.slice(0, 3).map((part, at) => part * top[3] + below[at] * (1 - top[3])).concat(1);
    const behind = (one) => { const layers = []; for (let at = one; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor)); return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]); };
    const light = (colour) => { const [r, g, b] = colour.map((part) => { const c = part / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const contrast = (a, b) => { const [high, low] = [light(a), light(b)].sort((x, y) => y - x); return (high + 0.05) / (low + 0.05); };
    const found = [];
    for (const one of document.querySelectorAll('body *')) {
        if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
        if (!one.checkVisibility() || one.disabled || one.closest('.sr, .skip, option')) continue;
        const style = getComputedStyle(one);
        const ground = behind(one);
        let opacity = 1; for (let at = one; at; at = at.parentElement) opacity *= Number(getComputedStyle(at).opacity);
        const ink = parse(style.color); ink[3] *= opacity;
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        const ratio = contrast(over(ink, ground), ground);
        if (ratio < (large ? 3 : 4.5)) found.push(`${one.tagName} ${one.id || one.className}: ${ratio.toFixed(2)}`);
    }
    const style = getComputedStyle(document.documentElement);
    const probe = document.createElement('i'); document.body.append(probe);
    const named = (name) => { probe.style.color = style.getPropertyValue(name); return parse(getComputedStyle(probe).color); };
    for (const name of ['live', 'safe', 'waiting', 'draining', 'alarm', 'accent', 'lane-channel', 'lane-gossip', 'lane-persona', 'lane-held', 'lane-backoff', 'lane-dialing', 'lane-awaited', 'lane-down', 'lane-not_dialable']) {
        const ratio = contrast(named(`--${name}`), named('--surface'));
        if (ratio < 3) found.push(`--${name}: ${ratio.toFixed(2)}`);
    }
    probe.remove();
    return found;
";

#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn with_a_thousand_peers_it_stays_responsive() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum.or(Some(65_536)),
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let crowd = Crowd::listen(400, 600);
    let daemon = daemon_of(&crowd);
    let browser = Browser::start();
    open(&browser, &daemon, 1000);
    browser.run(WATCH);
    browser.run("witness.long.length = 0; witness.gaps.length = 0;");
    daemon.ask(&["signer", "lapse"]);
    assert_seen_in_time(&browser, "safe");
    until_up(&browser, 600);
    // Through all lanes, as a person would who holds a key down.
    browser.run("document.getElementById('lanes').focus()");
    for _ in 0..20 {
        browser.press(&["\u{e00f}"]);
    }
    assert!(
        browser
            .run("return document.getElementById('lanes').scrollTop")
            .as_f64()
            > Some(1000.0)
    );
    daemon.ask(&["signer", "attach"]);
    assert_seen_in_time(&browser, "live");
    until_up(&browser, 1000);
    let held = browser.run("return [Math.max(0, ...witness.long), Math.max(...witness.gaps), witness.gaps.length, document.querySelectorAll('*').length, document.getElementById('lanes-canvas').height]");
    println!(
        "longest task {} ms, longest gap {} ms of {}, {} elements, canvas {} pixels high",
        held[0], held[1], held[2], held[3], held[4]
    );
    assert!(
        held[0].as_f64() < Some(HELD_UP_MS) && held[1].as_f64() < Some(HELD_UP_MS),
        "{held}"
    );
    assert!(
        held[3].as_u64() < Some(1000) && held[4].as_u64() < Some(2000),
        "only what is seen is made: {held}"
    );
    assert_clean(&browser, &daemon);
    browser.screen(1280, 900, false, true);
    browser.picture(&pictures().join("thousand-desktop-dark.png"));
    // A page that is held up is seen to be.
    browser.run("setTimeout(() => { const end = performance.now() + 400; while (performance.now() < end); })");
    let both =
        "return witness.long.some((long) => long >= 300) && witness.gaps.some((gap) => gap >= 300)";
    browser.until("what holds it up", both);
}

#[test]
#[ignore = "needs chromium and chromedriver: run by .ci/run"]
fn a_report_of_a_demo_opens_from_a_file_and_shows_the_run_and_its_checks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.html");
    let mut demo = pilotlight();
    let demo = demo.args(["demo", "--json", "--seed", "7", "--report"]);
    let output = demo.arg(&path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let browser = Browser::start();
    browser.open(&format!("file://{}", path.display()));
    until_mode(&browser, "live");
    let shown = browser.run(
        "return [document.querySelectorAll('.checks li.kept').length, document.querySelectorAll('.checks li').length, \
         document.getElementById('peers-total').innerText, document.getElementById('contact-text').innerText, \
         document.querySelector('.checks').checkVisibility(), document.getElementById('events').innerText.includes('lapsed')]",
    );
    let checks = shown[1].as_u64().unwrap();
    assert!(checks >= 6, "{shown}");
    let peers = if shown[2] == "15" { "15" } else { "14" };
    assert_eq!(
        shown,
        serde_json::json!([checks, checks, peers, "A recording", true, true])
    );
    // Everybody by name, as a screen reader would read them.
    let opened = browser.run("document.getElementById('table-box').open = true; return true");
    assert_eq!(opened, true);
    for name in ["Alder", "Hazel", "Juniper", "Willow", "Yew"] {
        let script =
            format!("return document.getElementById('rows').innerText.includes('{name} (')");
        browser.until(name, &script);
    }
    assert!(
        browser.log("browser").is_empty(),
        "nothing was refused or failed"
    );
    for entry in browser.log("performance") {
        let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
        let url = message["message"]["params"]["request"]["url"]
            .as_str()
            .unwrap_or("data:");
        let own =
            url.starts_with("file://") || url.starts_with("data:") || url.starts_with("chrome");
        assert!(own, "it asked for {url}");
    }
    browser.screen(1100, 1900, false, false);
    browser.settle();
    std::fs::create_dir_all(pictures()).unwrap();
    browser.picture(&pictures().join("report.png"));
}
