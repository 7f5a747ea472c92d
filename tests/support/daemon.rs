//! A real daemon in a directory of its own, the commands that talk to it, and plain HTTP for what no command would send.
//!
//! Nothing sleeps: a test waits for a line of the daemon or for an answer, and a hang is ended after a minute.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// What never happens in time did not happen.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// The binary, free of the settings of whoever runs the tests.
pub(crate) fn pilotlight() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PILOTLIGHT_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("RUST_LOG")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

/// The command that runs a daemon on free ports.
pub(crate) fn run_on(data: &Path) -> Command {
    let mut command = pilotlight();
    command
        .args(["run", "--json", "--data-dir"])
        .arg(data)
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the binary starts");
        Self {
            code: output.status.code().expect("it ends by itself"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// The JSON that a success prints.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error that a failure prints with `--json`: what, where, what to do.
    #[track_caller]
    pub(crate) fn problem(&self, code: i32) -> (String, String, String) {
        assert_eq!(self.code, code, "{self:?}");
        // What stops after the error may still log.
        let said = |line: &&str| line.starts_with("{\"error\"");
        let last = self.stderr.lines().rfind(said).unwrap_or_default();
        let said: Value =
            serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let part = |name: &str| said["error"][name].as_str().expect("a text").to_owned();
        (part("what"), part("where"), part("what_to_do"))
    }
}

/// A running daemon. Killed, if it still runs, when the test is over.
pub(crate) struct Daemon {
    child: Child,
    lines: Receiver<String>,
    pub(crate) data: PathBuf,
    pub(crate) started: Value,
    folder: Option<tempfile::TempDir>,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    /// Starts one on free ports; `change` adds to the command, and may write files to the folder that holds the data directory.
    pub(crate) fn start_with(change: impl FnOnce(&mut Command, &Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut daemon = Self::start_on(&folder.path().join("data"), change);
        daemon.folder = Some(folder);
        daemon
    }

    /// Starts one on a data directory that outlives it.
    pub(crate) fn start_on(data: &Path, change: impl FnOnce(&mut Command, &Path)) -> Self {
        let mut command = run_on(data);
        change(&mut command, data.parent().expect("a folder"));
        Self::spawn(command, data)
    }

    /// Starts one by a command that is ready.
    pub(crate) fn spawn(mut command: Command, data: &Path) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let lines = lines_of(child.stdout.take().expect("piped"));
        let first = lines
            .recv_timeout(HANG)
            .expect("the daemon says where it listens");
        let started = serde_json::from_str(&first).expect("JSON");
        Self {
            child,
            lines,
            data: data.to_path_buf(),
            started,
            folder: None,
        }
    }

    /// What it says on standard error, where that was asked for with [`Stdio::piped`]; once only.
    #[allow(dead_code, reason = "not every test asks for it")]
    pub(crate) fn stderr(&mut self) -> impl Read + Send + use<> {
        self.child.stderr.take().expect("piped, and not taken")
    }

    /// A command to this daemon.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(
            pilotlight()
                .args(arguments)
                .arg("--data-dir")
                .arg(&self.data),
        )
    }

    /// The same with `--json`, and its answer.
    #[track_caller]
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        Ended::of(
            pilotlight()
                .args(arguments)
                .arg("--json")
                .arg("--data-dir")
                .arg(&self.data),
        )
        .json()
    }

    /// Asks until the answer is as wanted.
    #[track_caller]
    pub(crate) fn ask_until(&self, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let answer = self.ask(arguments);
            if wanted(&answer) {
                return answer;
            }
            assert!(
                started.elapsed() < HANG,
                "{arguments:?} still says {answer}"
            );
        }
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.started[field].as_str().expect("a text")
    }

    pub(crate) fn token(&self, file: &str) -> String {
        let text = std::fs::read_to_string(self.data.join(file)).expect("a token");
        text.trim().to_owned()
    }

    /// One request as it is written, and its answer.
    pub(crate) fn http(&self, request: &str) -> Answer {
        http(self.text("admin"), request)
    }

    /// A request with a token and a body; an empty token sends none.
    pub(crate) fn request(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let address = self.text("admin");
        let authorization = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let length = body.len();
        self.http(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.process().to_string()])
            .status()
            .expect("kill is there");
        assert!(status.success());
    }

    /// The next line that the daemon prints.
    pub(crate) fn next_line(&self) -> Option<String> {
        match self.lines.recv_timeout(HANG) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("the daemon hangs"),
        }
    }

    /// Waits for its end; its output must have ended first.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        while self.next_line().is_some() {}
        self.child.wait().expect("it was started")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Only now: it wrote to that folder until its end.
        drop(self.folder.take());
    }
}

/// The lines of a stream, as they come, on a thread of their own.
pub(crate) fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `what` of an error that has all three parts.
    #[track_caller]
    pub(crate) fn what(&self) -> String {
        let said = self.json();
        for part in ["where", "what_to_do"] {
            assert!(
                said["error"][part]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{part}: {said}"
            );
        }
        said["error"]["what"].as_str().expect("what").to_owned()
    }
}

/// Sends bytes as they are and reads until the other side closes.
pub(crate) fn http(address: &str, request: &str) -> Answer {
    let mut socket = TcpStream::connect(address).expect("the admin address answers");
    socket.set_read_timeout(Some(HANG)).expect("a timeout");
    socket.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    // A refused body may be answered with a reset after the answer.
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.expect("a status"),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}
