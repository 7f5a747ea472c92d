//! The agent's machine of one stream against a server that says anything in any order, and does not always read.
//!
//! What is asked and what must be answered is said again here, in the bytes of `watchonly.proto` and by hand: neither the library's codec nor
//! its policy is its own judge.

use super::feed::Feed;
use super::protobuf::{bytes, integer, present, truth};
use pilotlight::limits::{
    AGENT_ANSWERS, AGENT_BACKOFF_FIRST, AGENT_BACKOFF_MAX, AGENT_ECDH_AT_ONCE, AGENT_JOBS,
};
use pilotlight::node_id::{LocalKey, Point};
use pilotlight::signer::agent::encoded::{EncodedStream, Job, Step, backoff};
use pilotlight::signer::agent::{AgentReport, Refusal};
use pilotlight::signer::bind;
use pilotlight::signer::gateway::machine::{Body, Kind, Registrant};
use pilotlight::signer::gateway::{Saying, read_message, write_message};
use std::collections::VecDeque;

/// Messages in one run: more than wait anywhere.
const MOST: usize = 12_000;

/// SHA-256 of the certificate that the server has shown.
const CERTIFICATE: [u8; 32] = [5; 32];

/// The fields of a response.
const REGISTRATION: u32 = 2;
const PONG: u32 = 3;
const SHARED_KEY: u32 = 4;
const ERROR: u32 = 14;
const PROOF: u32 = 1001;

/// What a message must lead to.
#[derive(Clone)]
enum Due {
    Accepted,
    Denied,
    Pong,
    /// An ECDH with this point, for a proof or not.
    Ecdh([u8; 33], bool),
    Refused(Refusal),
}

struct Server {
    stream: EncodedStream,
    key: LocalKey,
    registered: bool,
    over: bool,
    messages: usize,
    /// What waits at the agent: to be begun, begun, and to be sent.
    jobs: VecDeque<(u64, [u8; 33], bool)>,
    running: Vec<(Job, bool)>,
    pongs: VecDeque<u64>,
    answers: VecDeque<Vec<u8>>,
    tally: AgentReport,
}

/// Ops: 0 a request as our gateway writes it, 1 one for a key by some name, 2 many of one, 3 any bytes to a stream of their own, 4 ECDH
/// are begun, 5 one is done, 6 the server reads, 7 the wait before a dial.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let key = LocalKey::from_bytes(&mut [7; 32]).unwrap();
    let (stream, first) = EncodedStream::open(key.node_id(), CERTIFICATE);
    let registration = [
        bytes(1, b"registrationChallenge"),
        bytes(2, b"outboundSigner"),
    ];
    assert_eq!(
        first,
        [integer(1, 1), bytes(REGISTRATION, &registration.concat())].concat()
    );
    let mut server = Server {
        stream,
        key,
        registered: false,
        over: false,
        messages: 0,
        jobs: VecDeque::new(),
        running: Vec::new(),
        pongs: VecDeque::new(),
        answers: VecDeque::new(),
        tally: AgentReport::default(),
    };
    while !feed.is_empty() && !server.over && server.messages < MOST {
        server.op(&mut feed);
    }
    server.settle();
}

/// A point, or what is none; and its bytes.
fn point(feed: &mut Feed<'_>) -> Vec<u8> {
    match feed.below(8) {
        0 => feed.bytes().to_vec(),
        1 => vec![4; 65],
        2 => vec![3; 32],
        _ => of_key(feed.u8()).as_bytes().to_vec(),
    }
}

fn of_key(byte: u8) -> Point {
    LocalKey::from_bytes(&mut [byte.clamp(1, 254); 32])
        .unwrap()
        .point()
}

fn ecdh_with(point: &[u8], proof: bool) -> Due {
    match Point::parse(point) {
        Ok(point) => Due::Ecdh(*point.as_bytes(), proof),
        Err(_) => Due::Refused(Refusal::NotAPoint),
    }
}

/// A key's locator as it is encoded, and whether it is the node key's.
fn locator(feed: &mut Feed<'_>) -> Option<(Vec<u8>, bool)> {
    let (family, index) = match feed.below(6) {
        0 => return None,
        1 => (6, u64::from(feed.u8())),
        2 => (u64::from(feed.u8()), 0),
        // A negative number takes ten bytes.
        3 => (u64::MAX - 5, 0),
        _ => (6, 0),
    };
    let is_ours = (family, index) == (6, 0);
    Some(([integer(1, family), integer(2, index)].concat(), is_ours))
}

impl Server {
    fn op(&mut self, feed: &mut Feed<'_>) {
        match feed.below(8) {
            0 => {
                let id = u64::from(feed.u16());
                let (message, due) = self.of_our_gateway(feed, id);
                self.say(id, &message, &due);
            }
            1 => {
                let id = feed.u64();
                let (content, due) = self.for_a_key(feed);
                self.say(id, &[integer(1, id), content].concat(), &due);
            }
            2 => {
                let (first, many) = (u64::from(feed.u16()), 16 * u64::from(feed.u8()));
                let (content, due) = match feed.below(3) {
                    0 => (truth(3), Due::Pong),
                    1 => (bytes(5, b"sign this"), Due::Refused(Refusal::Signing)),
                    _ => (
                        bytes(PROOF, &bytes(1, of_key(1).as_bytes())),
                        ecdh_with(of_key(1).as_bytes(), true),
                    ),
                };
                for id in first..first + many {
                    if self.over {
                        break;
                    }
                    self.say(id, &[integer(1, id), content.clone()].concat(), &due);
                }
            }
            3 => anything(feed.bytes()),
            4 => self.begin(usize::from(feed.u8())),
            5 => self.done(feed),
            6 => self.read(16 * usize::from(feed.u8())),
            _ => wait(feed),
        }
    }

    /// What our own gateway says is, to the byte, what lnd's would.
    fn of_our_gateway(&self, feed: &mut Feed<'_>, id: u64) -> (Vec<u8>, Due) {
        let node = self.key.node_id();
        let request = |content: Vec<u8>| [integer(1, id), content].concat();
        let (saying, expected, due) = match feed.below(8) {
            0 => (Saying::Ping, request(truth(3)), Due::Pong),
            1 => {
                let complete = bytes(1, &bytes(2, b"watchOnlyNode"));
                let expected = [integer(1, 1), bytes(2, &complete)].concat();
                (Saying::Complete, expected, Due::Accepted)
            }
            2 => {
                let text = String::from_utf8_lossy(feed.bytes()).into_owned();
                let expected = [integer(1, 1), bytes(2, &present(2, text.as_bytes()))].concat();
                (Saying::Denied(text), expected, Due::Denied)
            }
            3 => {
                let (field, body) = (u32::from(feed.u8()) % 16, feed.bytes());
                let message = write_message(id, Saying::Pass(field, body.to_vec().into()));
                assert_eq!(message.is_some(), (5..=13).contains(&field));
                let Some(message) = message else {
                    return (request(truth(3)), Due::Pong);
                };
                assert_eq!(message, request(present(field, body)));
                return (message, Due::Refused(Refusal::Signing));
            }
            4 => {
                let point = of_key(feed.u8());
                let expected = request(bytes(PROOF, &bytes(1, point.as_bytes())));
                let due = ecdh_with(point.as_bytes(), true);
                (Saying::Proof(point), expected, due)
            }
            _ => {
                let point = of_key(feed.u8());
                let descriptor = [bytes(1, node.as_bytes()), bytes(2, &integer(1, 6))].concat();
                let content = [bytes(1, point.as_bytes()), bytes(3, &descriptor)].concat();
                let due = ecdh_with(point.as_bytes(), false);
                (
                    Saying::Ecdh(point, node),
                    request(bytes(SHARED_KEY, &content)),
                    due,
                )
            }
        };
        let message = write_message(id, saying).unwrap();
        assert_eq!(message, expected, "our gateway writes something else");
        (message, due)
    }

    /// The node's key or another, by locator, by descriptor or both; or a request of no known kind.
    fn for_a_key(&self, feed: &mut Feed<'_>) -> (Vec<u8>, Due) {
        let (point, locator_alone) = (point(feed), locator(feed));
        let mut content = bytes(1, &point);
        let mut due = ecdh_with(&point, false);
        if let Some((locator, is_ours)) = &locator_alone {
            content.extend(present(2, locator));
            if !is_ours {
                due = Due::Refused(Refusal::OtherKey);
            }
        }
        match feed.below(4) {
            0 => {}
            1 => return (present(2, &[]), Due::Denied),
            2 => return (bytes(2000, &point), Due::Refused(Refusal::Unknown)),
            _ => {
                let node = *self.key.node_id().as_bytes();
                let raw = match feed.below(4) {
                    0 => vec![],
                    1 => point.clone(),
                    _ => node.to_vec(),
                };
                let mut descriptor = bytes(1, &raw);
                if !raw.is_empty() && raw != node {
                    due = Due::Refused(Refusal::OtherKey);
                }
                if let Some((locator, is_ours)) = locator(feed) {
                    descriptor.extend(present(2, &locator));
                    if !is_ours {
                        due = Due::Refused(Refusal::OtherKey);
                    }
                }
                content.extend(present(3, &descriptor));
                if locator_alone.is_some() {
                    due = Due::Refused(Refusal::TwoKeys);
                }
            }
        }
        (present(SHARED_KEY, &content), due)
    }

    fn say(&mut self, id: u64, message: &[u8], due: &Due) {
        self.messages += 1;
        let step = self.stream.receive(message).expect("a message");
        if self.registered && matches!(due, Due::Accepted | Due::Denied) {
            assert_eq!(step, Step::Go, "registered twice");
            return;
        }
        match due {
            Due::Accepted => {
                assert_eq!(step, Step::Registered);
                self.registered = true;
                self.tally.attached += 1;
                return assert!(self.stream.is_registered());
            }
            Due::Denied => {
                assert!(matches!(step, Step::Rejected(_)), "{step:?}");
                self.over = true;
                return;
            }
            Due::Pong => self.pongs.push_back(id),
            Due::Ecdh(..) if self.jobs.len() >= AGENT_JOBS => self.refused(id, Refusal::Busy),
            Due::Ecdh(point, proof) => self.jobs.push_back((id, *point, *proof)),
            Due::Refused(refusal) => self.refused(id, *refusal),
        }
        // P9: whoever does not read is left.
        let clogged = self.pongs.len() + self.answers.len() > AGENT_ANSWERS;
        assert_eq!(step, if clogged { Step::Clogged } else { Step::Go });
        self.over = clogged;
    }

    fn refused(&mut self, id: u64, refusal: Refusal) {
        let text = bytes(1, refusal.as_str().as_bytes());
        self.answers
            .push_back([integer(1, id), bytes(ERROR, &text)].concat());
        let counted = match refusal {
            Refusal::OtherKey | Refusal::TwoKeys => &mut self.tally.refused_key,
            Refusal::Signing => &mut self.tally.refused_signing,
            Refusal::NotAPoint | Refusal::Unknown => &mut self.tally.refused_malformed,
            Refusal::Busy => &mut self.tally.refused_busy,
            _ => &mut self.tally.failed,
        };
        *counted += 1;
    }

    /// As many as may run, in the order in which they were asked for.
    fn begin(&mut self, many: usize) {
        for _ in 0..many {
            let room = self.running.len() < AGENT_ECDH_AT_ONCE
                && self.running.len() + self.answers.len() < AGENT_ANSWERS;
            let expected = if room { self.jobs.pop_front() } else { None };
            let job = self.stream.next_job();
            assert_eq!(job.is_some(), expected.is_some());
            let Some((job, (id, point, proof))) = job.zip(expected) else {
                return;
            };
            assert_eq!((job.id, job.point.as_bytes()), (id, &point));
            self.running.push((job, proof));
        }
    }

    fn done(&mut self, feed: &mut Feed<'_>) {
        let (which, fails) = (usize::from(feed.u8()), feed.u8() % 8 == 7);
        if self.running.is_empty() {
            return;
        }
        let (job, proof) = self.running.swap_remove(which % self.running.len());
        if fails {
            self.stream.done(job, None);
            return self.refused(job.id, Refusal::SignerFailed);
        }
        let secret = self.key.ecdh(&job.point);
        let (field, answer) = if proof {
            self.tally.proofs += 1;
            (PROOF, *bind(&secret, &CERTIFICATE).expose())
        } else {
            self.tally.ecdh += 1;
            (SHARED_KEY, *secret.expose())
        };
        self.stream.done(job, Some(secret));
        self.answers
            .push_back([integer(1, job.id), bytes(field, &bytes(1, &answer))].concat());
    }

    /// Pongs first. What the agent says, our gateway reads.
    fn read(&mut self, many: usize) {
        for _ in 0..many {
            let (expected, kind) = match (self.pongs.pop_front(), self.answers.pop_front()) {
                (Some(id), waits) => {
                    self.tally.pings += 1;
                    if let Some(waits) = waits {
                        self.answers.push_front(waits);
                    }
                    (
                        Some([integer(1, id), truth(PONG)].concat()),
                        Some(Kind::Ping),
                    )
                }
                (None, answer) => (answer, None),
            };
            let output = self.stream.next_output();
            assert!(output == expected, "{output:?} instead of {expected:?}");
            let Some(output) = output else { return };
            let (_, body) = read_message(&output, Registrant::Agent).expect("no message");
            match kind {
                Some(kind) => assert_eq!(body, Body::Answer(kind)),
                None => assert!(matches!(
                    body,
                    Body::Error | Body::Answer(Kind::Ecdh | Kind::Proof)
                )),
            }
        }
    }

    /// In the end everything is answered, once.
    fn settle(&mut self) {
        while !self.jobs.is_empty() || !self.running.is_empty() {
            self.read(AGENT_ANSWERS + 1);
            self.begin(AGENT_ECDH_AT_ONCE);
            for _ in 0..self.running.len() {
                // The holder fails: an ECDH costs the fuzzer more than it learns from one more.
                self.done(&mut Feed::new(&[0, 7]));
            }
        }
        self.read(AGENT_ANSWERS + 2);
        assert!(self.pongs.is_empty() && self.answers.is_empty());
        assert_eq!(self.stream.next_output(), None);
        assert_eq!(self.stream.report(), self.tally);
    }
}

/// Whatever the bytes: one message leads to one thing, and a secret is asked for only with a point that stands in it.
fn anything(message: &[u8]) {
    let key = LocalKey::from_bytes(&mut [7; 32]).unwrap();
    let (mut stream, _) = EncodedStream::open(key.node_id(), CERTIFICATE);
    let Some(step) = stream.receive(message) else {
        return;
    };
    let (job, output) = (stream.next_job(), stream.next_output());
    let things = usize::from(step != Step::Go) + usize::from(job.is_some());
    assert_eq!(things + usize::from(output.is_some()), 1, "{step:?}");
    assert_eq!(stream.is_registered(), step == Step::Registered);
    if let Some(job) = job {
        let point = job.point.as_bytes();
        assert!(message.windows(33).any(|window| window == point));
    }
    if let Some(output) = output {
        let (_, body) = read_message(&output, Registrant::Agent).expect("no message");
        assert!(matches!(body, Body::Error | Body::Answer(Kind::Ping)));
    }
}

/// Within its bounds; doubled with each failure, and half of it drawn.
fn wait(feed: &mut Feed<'_>) {
    let (failures, draw) = (u32::from(feed.u8()), feed.u64());
    let wait = backoff(failures, draw);
    let doubled = AGENT_BACKOFF_FIRST.saturating_mul(1 << failures.clamp(1, 17) >> 1);
    let whole = doubled.min(AGENT_BACKOFF_MAX);
    assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
}
