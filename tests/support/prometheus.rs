//! Debian's Prometheus and promtool, run on loopback against what a test brings. Without them the test fails: it never skips.

use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MISSING: &str = "install Debian's package prometheus, or run: bash .ci/run prometheus";

/// Longer than anything here takes on a crowded machine.
const HANG: Duration = Duration::from_secs(90);

/// Between two questions whether Prometheus has scraped what is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Runs promtool, with this on its standard input.
pub(crate) fn promtool(arguments: &[&str], folder: &Path, input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}: {MISSING}"));
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// A running Prometheus. Killed when the test is over.
pub(crate) struct Prometheus {
    child: Child,
    address: String,
    _data: tempfile::TempDir,
}

/// A sample's labels and its values over time.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: serde_json::Map<String, Value>,
    pub(crate) values: Vec<f64>,
}

impl Prometheus {
    /// Starts one that scrapes `target` as job `pilotlight` and evaluates the rules of `rules`, twice a second each.
    pub(crate) fn start(target: &str, rules: &Path) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let config = data.path().join("prometheus.yaml");
        let rules = rules.display();
        fs::write(
            &config,
            format!(
                "global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  evaluation_interval: 500ms\n\
                 rule_files:\n  - {rules}\n\
                 scrape_configs:\n  - job_name: pilotlight\n    static_configs:\n      - targets: ['{target}']\n"
            ),
        )
        .expect("written");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = port.local_addr().expect("an address").to_string();
        drop(port);
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                data.path().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus: {error}: {MISSING}"));
        let prometheus = Self {
            child,
            address,
            _data: data,
        };
        prometheus.until("it is ready", || {
            let (status, _) = prometheus.call("GET", "/-/ready", "").ok()?;
            (status == 200).then_some(())
        });
        prometheus
    }

    /// Asks again and again until there is an answer.
    #[allow(clippy::unused_self, reason = "there must be one to ask")]
    pub(crate) fn until<T>(&self, what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(answer) = answer() {
                return answer;
            }
            assert!(started.elapsed() < HANG, "not within {HANG:?}: {what}");
            // It scrapes by its own clock and tells nobody.
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until a query has an answer.
    pub(crate) fn until_some(&self, query: &str) {
        self.until(query, || {
            let found = self
                .query(query)
                .unwrap_or_else(|error| panic!("{query}: {error}"));
            (!found.is_empty()).then_some(())
        });
    }

    /// Evaluates a query at this moment.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<Series>, String> {
        let body = format!("query={}", encoded(query));
        self.ask("/api/v1/query", &body)
    }

    /// Evaluates a query at every second of the last so many.
    pub(crate) fn query_range(&self, query: &str, seconds: u64) -> Result<Vec<Series>, String> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs()
            + 1;
        let start = now.saturating_sub(seconds);
        let body = format!("query={}&start={start}&end={now}&step=1", encoded(query));
        self.ask("/api/v1/query_range", &body)
    }

    /// What it says of the rules.
    pub(crate) fn rules(&self) -> Value {
        let (_, body) = self.call("GET", "/api/v1/rules", "").expect("it answers");
        serde_json::from_str(&body).expect("JSON")
    }

    fn ask(&self, path: &str, body: &str) -> Result<Vec<Series>, String> {
        let (_, answer) = self
            .call("POST", path, body)
            .map_err(|error| error.to_string())?;
        let answer: Value =
            serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let result = answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if answer["data"]["resultType"] == "scalar" {
            return Err("a scalar: nothing tells whose it is".to_owned());
        }
        Ok(result.iter().map(series).collect())
    }

    /// HTTP/1.0, so that the answer ends where the connection does.
    fn call(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let mut socket = TcpStream::connect(&self.address)?;
        socket.set_read_timeout(Some(HANG))?;
        let length = body.len();
        write!(
            socket,
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}",
            self.address
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.unwrap_or_default(), body.to_owned()))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn series(result: &Value) -> Series {
    let one = result["value"]
        .as_array()
        .map(|pair| vec![Value::Array(pair.clone())]);
    let many = result["values"].as_array().cloned();
    let pairs = many.or(one).unwrap_or_default();
    let value = |pair: &Value| pair[1].as_str().and_then(|text| text.parse().ok());
    Series {
        labels: result["metric"].as_object().cloned().unwrap_or_default(),
        values: pairs.iter().filter_map(value).collect(),
    }
}

fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
