//! `pilotlight top` and `pilotlight events` as a user runs them, on a real daemon: lines and JSON where there is no terminal, and a real
//! terminal that is given back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/daemon.rs"]
#[allow(dead_code)]
mod daemon;

use daemon::{Daemon, Ended, HANG, lines_of, pilotlight};
use pilotlight::node_id::LocalKey;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Instant;

/// A command that lasts, and its lines. Killed when the test is over.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut command = pilotlight();
        let command = command.args(arguments).arg("--data-dir").arg(data);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(HANG).expect("another line")
    }

    /// The next line that is as wanted.
    #[track_caller]
    fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let line = self.line();
            if wanted(&line) {
                return line;
            }
            assert!(
                began.elapsed() < HANG,
                "not within a minute; the last line was {line}"
            );
        }
    }

    /// The next object that is as wanted.
    #[track_caller]
    fn object(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let parsed =
            |line: &str| serde_json::from_str::<Value>(line).expect("a JSON object a line");
        parsed(&self.until(|line| wanted(&parsed(line))))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn id(number: u8) -> String {
    LocalKey::from_bytes(&mut [number; 32])
        .unwrap()
        .node_id()
        .to_string()
}

/// A daemon with two peers that nobody answers for.
fn with_peers() -> Daemon {
    let daemon = Daemon::start();
    for (number, tag) in [(1, "gossip-only"), (2, "channel-bearing")] {
        let spec = format!("{}@127.0.0.1:1", id(number));
        daemon.ask(&["peer", "add", &spec, "--tag", tag]);
    }
    daemon
}

#[test]
fn top_shows_the_daemon_once_as_lines_or_as_one_object() {
    let daemon = with_peers();
    let lines = daemon.run(&["top", "--once"]);
    assert_eq!((lines.code, lines.stderr.as_str()), (0, ""), "{lines:?}");
    assert!(
        !lines.stdout.contains('\u{1b}'),
        "no escape sequence in a pipe"
    );
    for said in [
        "mode        live",
        "embedded, attached",
        &id(1),
        &id(2),
        "channel-bearing",
    ] {
        assert!(
            lines.stdout.contains(said),
            "{said} is not in {}",
            lines.stdout
        );
    }
    let object = daemon.ask(&["top", "--once"]);
    assert_eq!(object["info"]["mode"], "live");
    assert_eq!(object["peers"].as_array().unwrap().len(), 2);
    assert!(object["at"].as_f64().unwrap() > 1e9);
}

#[test]
fn top_gives_an_object_a_refresh_through_a_lapse_and_an_end_of_the_daemon_and_a_new_one() {
    let mut daemon = with_peers();
    let data = daemon.data.clone();
    let watch = Watch::start(&data, &["top", "--json", "--interval", "100ms"]);
    let first = watch.object(|object| object["info"]["mode"] == "live");
    assert_eq!(first["peers"].as_array().unwrap().len(), 2);
    daemon.ask(&["signer", "lapse"]);
    let is_told = |object: &Value| {
        let events = object["events"].as_array();
        events.is_some_and(|events| events.iter().any(|event| event["event"] == "signer_lapsed"))
    };
    let lapsed = watch.object(is_told);
    assert_eq!(
        watch.object(|object| object["info"]["mode"] == "safe")["info"]["last_lapse"]["reason"],
        "requested"
    );
    assert!(lapsed["error"].is_null());
    daemon.signal("-KILL");
    daemon.ended();
    let lost = watch.object(|object| object["info"].is_null());
    let what = lost["error"]["what"].as_str().unwrap();
    assert!(what.starts_with("no daemon runs there"), "{what}");
    let again = Daemon::start_on(&data, |_, _| {});
    watch.object(|object| object["info"]["mode"] == "live");
    drop(again);
}

#[test]
fn top_says_in_plain_lines_that_there_is_no_daemon_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let watch = Watch::start(&data, &["top", "--interval", "100ms"]);
    for _ in 0..2 {
        watch.until(|line| line.starts_with("no daemon runs there"));
    }
    let _daemon = Daemon::start_on(&data, |_, _| {});
    watch.until(|line| line.starts_with("mode") && line.contains("live"));
}

#[test]
fn top_ends_when_nobody_reads_it() {
    let daemon = Daemon::start();
    let mut watch = Watch::start(&daemon.data, &["top", "--interval", "100ms"]);
    watch.line();
    drop(std::mem::replace(
        &mut watch.lines,
        std::sync::mpsc::channel().1,
    ));
    assert!(watch.child.wait().unwrap().success());
}

#[test]
fn arguments_that_make_no_sense_are_named() {
    let run = |arguments: &[&str]| Ended::of(pilotlight().args(arguments).arg("--json"));
    for interval in ["99ms", "2h", "5", "fast"] {
        let (_, place, _) = run(&["top", "--interval", interval]).problem(2);
        assert_eq!(place, "--interval", "{interval}");
    }
    let (what, place, to_do) = run(&["events", "--kind", "link_upp"]).problem(2);
    assert!(
        what.contains("link_upp") && to_do.contains("did you mean link_up?"),
        "{what}; {to_do}"
    );
    assert_eq!(place, "--kind");
}

#[test]
fn events_of_the_kinds_that_are_asked_for_are_shown_with_what_went_before() {
    let daemon = with_peers();
    daemon.ask(&["signer", "lapse"]);
    let watch = Watch::start(
        &daemon.data,
        &[
            "events",
            "--json",
            "--history",
            "--kind",
            "signer_lapsed,mode_changed",
            "--kind",
            "tagged",
        ],
    );
    let mut kinds = Vec::new();
    while kinds.len() < 4 {
        let event: Value = serde_json::from_str(&watch.line()).unwrap();
        kinds.push(event["event"].as_str().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(
        kinds,
        ["mode_changed", "mode_changed", "signer_lapsed", "tagged"]
    );
    daemon.ask(&["signer", "attach"]);
    assert!(watch.line().contains("mode_changed"), "it goes on");
}

#[test]
fn events_can_go_on_in_the_daemon_that_comes_after() {
    let mut daemon = Daemon::start();
    let data = daemon.data.clone();
    let watch = Watch::start(
        &data,
        &["events", "--follow", "--kind", "signer_lapsed,drained"],
    );
    // What is asked for must have begun before there is something to see: a lapse is seen as soon as it has.
    let began = Instant::now();
    while watch.lines.try_recv().is_err() {
        daemon.run(&["signer", "lapse"]);
        daemon.run(&["signer", "attach"]);
        assert!(began.elapsed() < HANG, "no event is shown");
    }
    daemon.signal("-TERM");
    assert!(daemon.ended().success());
    watch.until(|line| line.contains("drained"));
    let again = Daemon::start_on(&data, |_, _| {});
    again.ask(&["signer", "lapse"]);
    watch.until(|line| line.contains("signer_lapsed") && line.contains("reason=requested"));
}

/// `top` on a terminal of its own, made by `script`. What it writes is read to its end.
struct Terminal {
    child: Child,
    output: Receiver<String>,
    seen: String,
}

impl Terminal {
    fn start(data: &Path, pid: &Path) -> Self {
        let shell = format!(
            "stty rows 24 cols 80; echo $$ > '{}'; exec '{}' top --interval 100ms --data-dir '{}'",
            pid.display(),
            env!("CARGO_BIN_EXE_pilotlight"),
            data.display()
        );
        let mut command = Command::new("script");
        let command = command
            .args(["-qec", &shell, "/dev/null"])
            .env("TERM", "xterm")
            .env("LC_ALL", "C");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is there");
        let mut stdout = child.stdout.take().unwrap();
        let (sender, output) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            output,
            seen: String::new(),
        }
    }

    #[track_caller]
    fn until(&mut self, wanted: &str) {
        while !self.seen.contains(wanted) {
            let more = self.output.recv_timeout(HANG);
            self.seen
                .push_str(&more.unwrap_or_else(|_| panic!("no {wanted:?} in {:?}", self.seen)));
        }
    }

    /// Waits until the kernel says that the process is stopped, and `script` with it, and lets both go on. `script` (util-linux, `lib/pty-session.c`) hears
    /// of the stop later than we do, and stops itself then: if it were told to go on before, it would stay stopped.
    fn resume(&self, process: u32) {
        let began = Instant::now();
        let is_stopped = |process: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
        };
        for process in [process, self.child.id()] {
            while !is_stopped(process) {
                assert!(began.elapsed() < HANG, "{process} does not stop");
                std::thread::yield_now();
            }
        }
        for process in [self.child.id(), process] {
            signal("-CONT", process);
        }
    }

    /// The rest of its output, once it has ended.
    fn end(mut self) -> (bool, String) {
        while let Ok(more) = self.output.recv_timeout(HANG) {
            self.seen.push_str(&more);
        }
        (self.child.wait().unwrap().success(), self.seen)
    }
}

#[track_caller]
fn signal(signal: &str, process: u32) {
    let status = Command::new("kill")
        .args([signal, &process.to_string()])
        .status();
    assert!(status.unwrap().success(), "kill {signal} {process}");
}

/// The other screen is left, and after that the cursor is shown: a shell can go on.
#[track_caller]
fn assert_restored(output: &str) {
    let left = output
        .rfind("\u{1b}[?1049l")
        .expect("the other screen is left");
    assert!(
        output[left..].contains("\u{1b}[?25h"),
        "the cursor is shown: {:?}",
        &output[left..]
    );
}

#[test]
#[ignore = "needs the terminal that script (bsdutils) makes; run by .ci/run's stage terminal"]
fn a_terminal_is_taken_and_given_back_on_a_key_and_on_a_signal() {
    let daemon = with_peers();
    let pid = daemon.data.join("pid");
    let mut terminal = Terminal::start(&daemon.data, &pid);
    terminal.until("\u{1b}[?1049h");
    terminal.until("L I V E");
    terminal
        .child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"q")
        .unwrap();
    let (success, output) = terminal.end();
    assert!(success, "{output:?}");
    assert_restored(&output);

    for signal in ["-TERM", "-INT", "-HUP", "-QUIT"] {
        let mut terminal = Terminal::start(&daemon.data, &pid);
        terminal.until("L I V E");
        let number = std::fs::read_to_string(&pid).unwrap();
        assert!(
            Command::new("kill")
                .args([signal, number.trim()])
                .status()
                .unwrap()
                .success()
        );
        let (success, output) = terminal.end();
        assert!(success, "{signal}: {output:?}");
        assert_restored(&output);
    }
}

#[test]
#[ignore = "needs the terminal that script (bsdutils) makes; run by .ci/run's stage terminal"]
fn a_terminal_is_given_back_while_the_process_is_stopped_and_taken_again() {
    const TAKEN: &str = "\u{1b}[?1049h";
    let daemon = with_peers();
    let pid = daemon.data.join("pid");
    let mut terminal = Terminal::start(&daemon.data, &pid);
    terminal.until("L I V E");
    let number = std::fs::read_to_string(&pid).unwrap();
    let number: u32 = number.trim().parse().unwrap();
    for round in 1..=2 {
        // By the signal, and by the key.
        if round == 1 {
            signal("-TSTP", number);
        } else {
            terminal
                .child
                .stdin
                .as_mut()
                .unwrap()
                .write_all(b"\x1a")
                .unwrap();
        }
        terminal.resume(number);
        let seen = std::mem::take(&mut terminal.seen);
        terminal.until(TAKEN);
        let (before, _) = terminal.seen.split_once(TAKEN).unwrap();
        assert_restored(&format!("{seen}{before}"));
        terminal.until("L I V E");
    }
    terminal
        .child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"q")
        .unwrap();
    let (success, output) = terminal.end();
    assert!(success, "{output:?}");
    assert_restored(&output);
}
