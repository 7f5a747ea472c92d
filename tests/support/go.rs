//! The Go programs of `tests/interop`: built with Debian's packages alone, run, and read line by line.
//!
//! It never fetches anything, and never skips: without Go or one of the packages it fails and says what to install.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::dialer::soon;

const PACKAGES: &str = "golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev golang-google-protobuf-dev \
    protobuf-compiler protoc-gen-go-1-5 protoc-gen-go-grpc golang-gopkg-macaroon.v2-dev \
    golang-github-go-macaroon-bakery-macaroon-bakery-dev golang-github-btcsuite-btcd-btcec-dev";

/// Where Debian's Go packages lie.
const DEBIAN: &str = "/usr/share/gocode";

fn run(what: &str, command: &mut std::process::Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}: install {PACKAGES}"));
    assert!(
        output.status.success(),
        "{what}:\n{}\nIf something is missing, install {PACKAGES}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Builds all programs, once a run; the folder that they are in.
fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
        let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-go");
        let tree = work.join("src/pilotlight.test");
        // What an earlier run left may be gone from the sources.
        let _ = std::fs::remove_dir_all(&tree);
        for package in ["shared", "signer", "watchonly", "macaroons"] {
            std::fs::create_dir_all(tree.join(package)).unwrap();
            for file in std::fs::read_dir(sources.join(package)).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), tree.join(package).join(file.file_name())).unwrap();
            }
        }
        let out = work.join("src");
        run(
            "protoc",
            std::process::Command::new("protoc")
                .arg("-I")
                .arg(&sources)
                .arg(format!("--go_out={}", out.display()))
                .arg(format!("--go-grpc_out={}", out.display()))
                .arg("lnd.proto"),
        );
        let programs = work.join("bin");
        std::fs::create_dir_all(&programs).unwrap();
        run(
            "go build",
            std::process::Command::new("go")
                .args(["build", "-o"])
                .arg(&programs)
                .args(
                    ["signer", "watchonly", "macaroons"]
                        .map(|name| format!("pilotlight.test/{name}")),
                )
                .current_dir(&work)
                .env("GOPATH", format!("{}:{DEBIAN}", work.display()))
                .env("GOCACHE", work.join("cache"))
                .env("GO111MODULE", "off")
                .env("GOFLAGS", "")
                .env("CGO_ENABLED", "0"),
        );
        programs
    })
}

/// Text as a child process takes it.
pub(crate) fn arguments(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Runs a program to its end; the lines of its report.
pub(crate) async fn finish(program: &str, arguments: &[String]) -> Vec<Value> {
    let mut running = Go::start(program, arguments).await;
    let mut lines = Vec::new();
    while let Some(line) = running.line().await {
        lines.push(line);
    }
    let status = soon("its end", running.child.wait()).await.unwrap();
    assert!(status.success(), "{program}: {status}, after {lines:?}");
    lines
}

/// A program that runs. Dropping it kills it.
pub(crate) struct Go {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Go {
    pub(crate) async fn start(program: &str, arguments: &[String]) -> Self {
        let programs = tokio::task::spawn_blocking(programs).await.unwrap();
        let mut child = Command::new(programs.join(program))
            .args(arguments)
            // No proxy of the machine's, and no colour of grpc-go's own.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            stdin,
            lines,
        }
    }

    async fn line(&mut self) -> Option<Value> {
        let line = soon("a line", self.lines.next_line()).await.unwrap()?;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// The next line of the report.
    pub(crate) async fn next(&mut self) -> Value {
        self.line().await.expect("the program goes on")
    }

    /// The next line, which must be of this event.
    pub(crate) async fn expect(&mut self, event: &str) -> Value {
        let line = self.next().await;
        assert_eq!(line["event"], event, "{line}");
        line
    }

    /// The next line of this event, and whatever was said before it.
    pub(crate) async fn until(&mut self, event: &str) -> Value {
        loop {
            let line = self.next().await;
            if line["event"] == event {
                return line;
            }
        }
    }

    pub(crate) async fn tell(&mut self, command: &str) {
        self.stdin
            .write_all(format!("{command}\n").as_bytes())
            .await
            .unwrap();
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// It runs no more, and its sockets stay open: what a machine that hangs looks like.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL: nothing is closed but by the kernel.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}
