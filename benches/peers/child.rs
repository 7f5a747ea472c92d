//! Processes of this same program: far sides that are told what to do line by line, and measurements that want a process of their own.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::{bare, crowd, links, node};

/// Where a child finds what it is to be.
const ORDER: &str = "PILOTLIGHT_PEERS_ORDER";

/// What this process is to be, if it is a child.
pub(crate) fn order() -> Option<String> {
    std::env::var(ORDER).ok()
}

pub(crate) fn run(order: &str) {
    let words: Vec<&str> = order.split(' ').collect();
    match words[..] {
        ["node", stack, number] => node::run(node::Stack::named(stack), number.parse().unwrap()),
        ["crowd", peers] => crowd::run(peers.parse().unwrap()),
        ["echo"] => bare::run(bare::Far::Echoes),
        ["opens"] => bare::run(bare::Far::Opens),
        ["sink"] => bare::run(bare::Far::Reads),
        ["measure", what, stack, number] => {
            let figures = links::run(what, node::Stack::named(stack), number.parse().unwrap());
            println!("{}", serde_json::to_string(&figures).unwrap());
        }
        _ => panic!("what is {order}?"),
    }
}

/// A far side.
pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    pub(crate) fn spawn(order: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env(ORDER, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self {
            process,
            input,
            output,
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line that it prints. Blocks.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        let count = self.output.read_line(&mut line).unwrap();
        assert!(count > 0, "the child has ended: {:?}", self.process.wait());
        line.trim_end().to_owned()
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }

    /// Takes its processors from it until [`go_on`](Self::go_on).
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Seconds of processor time that it has used.
    pub(crate) fn processor_time(&self) -> f64 {
        processor_time(&self.process.id().to_string())
    }
}

impl Drop for Child {
    /// A child ends when its input does.
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Seconds of processor time, of the user's and the system's, that a process (`self` or its number) has used.
pub(crate) fn processor_time(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// Seconds of processor time that this thread has used: what a machine that is busy with others does not stretch.
pub(crate) fn thread_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What a process of its own finds.
pub(crate) fn measure(order: &str) -> Vec<f64> {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(ORDER, format!("measure {order}"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "the measurement of '{order}' failed"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// Raises the soft limit on descriptors, or refuses.
pub(crate) fn raise_descriptors(links: u64) {
    let wanted = links + 200;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        assert!(
            setrlimit(Resource::Nofile, raised).is_ok(),
            "{links} links need {wanted} descriptors, and the limit is {limit:?}: ulimit -n {wanted}"
        );
    }
}
