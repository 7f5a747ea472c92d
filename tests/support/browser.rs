//! A real headless Chromium, driven through chromedriver's `WebDriver` interface. Both are Debian's packages; a machine without them
//! makes the test fail and say so.

use serde_json::{Value, json};
use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use ureq::Agent;

/// What never happens in time did not happen.
const HANG: Duration = Duration::from_secs(60);

/// Chromium as root, without a screen, and without a word to anybody on the Internet.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
    "--lang=en-GB",
];

/// Runs in every page before the page's own scripts: notes what breaks the page's policy, what fails, and what holds up the page.
const WITNESS: &str = "
    globalThis.witness = { violations: [], errors: [], long: [], gaps: [] };
    addEventListener('securitypolicyviolation', (event) => witness.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
    addEventListener('error', (event) => witness.errors.push(String(event.message)));
    addEventListener('unhandledrejection', (event) => witness.errors.push(String(event.reason)));
    new PerformanceObserver((list) => witness.long.push(...list.getEntries().map((task) => task.duration))).observe({ type: 'longtask' });
    let last = performance.now();
    setInterval(() => { const now = performance.now(); witness.gaps.push(now - last); last = now; if (witness.gaps.length > 5000) witness.gaps.shift(); }, 20);
";

/// One browser with one page. It ends with the test.
pub(crate) struct Browser {
    driver: Child,
    base: String,
    agent: Agent,
    profile: tempfile::TempDir,
    /// Width, height, and whether it is a phone's.
    shown: Cell<(u32, u32, bool)>,
}

impl Browser {
    pub(crate) fn start() -> Self {
        // It takes one port of IPv4's and the same of IPv6's, and gives up if the second is not free.
        let (driver, port) = (0..5)
            .find_map(|_| driver())
            .expect("chromedriver finds a port");
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(HANG));
        let mut browser = Self {
            driver,
            base: format!("http://127.0.0.1:{port}"),
            agent: config.build().into(),
            profile: tempfile::tempdir().expect("a folder"),
            shown: Cell::new((1280, 900, false)),
        };
        let mut flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
        flags.push(format!(
            "--user-data-dir={}",
            browser.profile.path().display()
        ));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let session = browser.call("POST", "/session", &wanted);
        let id = session["sessionId"].as_str().expect("a session").to_owned();
        browser.base = format!("{}/session/{id}", browser.base);
        browser.devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            &json!({ "source": WITNESS }),
        );
        browser
    }

    /// One call of the `WebDriver` interface.
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.base);
        let answer = match method {
            "GET" => self.agent.get(&url).call(),
            "DELETE" => self.agent.delete(&url).call(),
            _ => self.agent.post(&url).send_json(body),
        };
        let mut answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let status = answer.status();
        let value: Value = answer
            .body_mut()
            .with_config()
            .limit(1 << 28)
            .read_json()
            .expect("JSON");
        assert!(
            status.is_success(),
            "{method} {path}: {}",
            value["value"]["message"]
        );
        value["value"].clone()
    }

    pub(crate) fn open(&self, url: &str) {
        self.call("POST", "/url", &json!({ "url": url }));
    }

    /// What a function's body returns in the page.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        self.call(
            "POST",
            "/execute/sync",
            &json!({ "script": script, "args": [] }),
        )
    }

    /// The same, until it returns something true.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, script: &str) -> Value {
        let started = Instant::now();
        loop {
            let value = self.run(script);
            let there = !matches!(value, Value::Null | Value::Bool(false));
            if there && value.as_str() != Some("") {
                return value;
            }
            assert!(
                started.elapsed() < HANG,
                "{what}: the page says {}",
                self.run("return document.body.innerText")
            );
        }
    }

    /// The text of the element with this id.
    #[track_caller]
    pub(crate) fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').innerText"));
        text.as_str().expect("a text").to_owned()
    }

    /// Presses keys, wherever the focus is.
    pub(crate) fn press(&self, keys: &[&str]) {
        let downs = keys.iter().flat_map(|key| {
            [
                json!({ "type": "keyDown", "value": key }),
                json!({ "type": "keyUp", "value": key }),
            ]
        });
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": downs.collect::<Vec<_>>() }] });
        self.call("POST", "/actions", &actions);
    }

    /// One command of the `DevTools` protocol.
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.call("POST", "/goog/cdp/execute", &body)
    }

    /// What is in a log since it was last read: `browser` is the console's, `performance` has every request.
    pub(crate) fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.call("POST", "/se/log", &json!({ "type": kind }));
        entries.as_array().expect("a list").clone()
    }

    /// Shows the page as a screen of this size would, dark or light.
    pub(crate) fn screen(&self, width: u32, height: u32, phone: bool, dark: bool) {
        self.shown.set((width, height, phone));
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
        self.resize(width, height, phone);
    }

    fn resize(&self, width: u32, height: u32, phone: bool) {
        let scale = if phone { 2 } else { 1 };
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone });
        self.devtools("Emulation.setDeviceMetricsOverride", &screen);
        self.settle();
    }

    /// Waits for two frames: what was to be drawn has been drawn.
    pub(crate) fn settle(&self) {
        let script = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(true), 0)));";
        self.call(
            "POST",
            "/execute/async",
            &json!({ "script": script, "args": [] }),
        );
    }

    /// Writes the whole page as a picture, from a screen that is as high as the page.
    pub(crate) fn picture(&self, path: &Path) {
        let (width, height, phone) = self.shown.get();
        self.run("scrollTo(0, 0)");
        // Twice: on a higher screen some parts are higher too.
        for _ in 0..2 {
            let high = self.run("return document.documentElement.scrollHeight");
            let high = u32::try_from(high.as_u64().expect("pixels")).expect("few");
            self.resize(width, high, phone);
        }
        let shot = self.devtools("Page.captureScreenshot", &json!({ "format": "png" }));
        let png = unbase64(shot["data"].as_str().expect("a picture"));
        assert!(png.starts_with(b"\x89PNG"), "a PNG");
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, png).expect("written");
        self.resize(width, height, phone);
    }
}

/// A chromedriver, and where it listens.
fn driver() -> Option<(Child, u16)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .expect("chromedriver is there (Debian's packages chromium and chromium-driver)");
    let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        println!("chromedriver: {line}");
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    let Some(port) = port else {
        let _ = driver.wait();
        return None;
    };
    // What else it says is read, so that it never waits for a reader.
    std::thread::spawn(move || lines.count());
    Some((driver, port))
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium; chromedriver, which is ours alone, is then ended by its id.
        let _ = self.agent.delete(&self.base).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn unbase64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit);
        let value = u32::try_from(value.expect("base64")).expect("small");
        held = (held << 6) | value;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xff).expect("a byte"));
        }
    }
    bytes
}
