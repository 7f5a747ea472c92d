//! `pilotlight events`: what happens in the daemon, a line each; and the stream of server-sent events that it is read from.

use super::args::EventsArguments;
use super::client::Client;
use super::failure::{Exit, Failure, nearest};
use super::output::Output;
use super::words::event_line;
use serde_json::Value;
use std::io::{self, BufRead};
use std::time::Duration;

/// Every kind, as [`Event::name`](crate::telemetry::Event::name) has them, and the stream's own.
const KINDS: &[&str] = &[
    "listening",
    "mode_changed",
    "signer_attached",
    "signer_lapsed",
    "held_down",
    "relit",
    "gossip_floor",
    "dialing",
    "dial_failed",
    "inbound_failed",
    "handshake",
    "gateway_listening",
    "signer_refused",
    "signer_taken_over",
    "signer_stalled",
    "signer_odd",
    "ecdh_throttled",
    "ecdh",
    "link_up",
    "link_down",
    "leased",
    "tagged",
    "refused",
    "mistag_suspected",
    "peer_complained",
    "banned",
    "pong",
    "key_rotated",
    "parked",
    "book_failed",
    "inbox_stalled",
    "listener_behind",
    "drained",
    "absence_planned",
    "absence_over",
    "htlc_deadline",
    MISSED,
];

/// Of events that came too fast: shown whatever the kinds that were asked for, which may have been among them.
const MISSED: &str = "missed";

/// Before a daemon that is gone is looked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Asks for all events that are kept: ids are from 1.
pub(super) const FROM_THE_FIRST: &str = "0";

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// By which the stream can be asked for what came after it, if it has one.
    pub(super) id: Option<String>,
    /// One line of JSON.
    pub(super) data: String,
}

/// The events of a stream (HTML Living Standard § Server-sent events), as far as the daemon uses its form.
pub(super) struct Events<R> {
    lines: io::Lines<R>,
}

impl<R: BufRead> Events<R> {
    pub(super) fn new(stream: R) -> Self {
        Self {
            lines: stream.lines(),
        }
    }
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = io::Result<Told>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut id, mut data) = (None, None);
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            if let Some(text) = line.strip_prefix("data: ") {
                data = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.to_owned());
            } else if line.is_empty()
                && let Some(data) = data.take()
            {
                return Some(Ok(Told { id, data }));
            }
        }
    }
}

/// Prints events until the daemon stops or nobody reads any more.
pub(super) fn run(
    client: &Client,
    arguments: &EventsArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    check(&arguments.kind)?;
    let mut after = arguments.history.then(|| FROM_THE_FIRST.to_owned());
    let (mut was_there, mut said) = (false, String::new());
    loop {
        let ended = match client.events(after.as_deref()) {
            Ok(events) => {
                was_there = true;
                said.clear();
                print(events, &mut after, &arguments.kind, output)
            }
            // One that was there comes back in whatever state; one that never was must be told from a mistake.
            Err(failure) if arguments.follow && (was_there || failure.exit == Exit::NoDaemon) => {
                Err(failure)
            }
            Err(failure) => return Err(failure),
        };
        let why = match ended {
            Ok(Ended::Unread) => return Ok(Exit::Ok),
            Ok(Ended::Stopped) if !arguments.follow => return Ok(Exit::Ok),
            Ok(Ended::Stopped) => "the daemon has ended the stream".to_owned(),
            Err(failure) if !arguments.follow => return Err(failure),
            Err(failure) => failure.problem.what,
        };
        if after.is_none() {
            // From now on nothing is to be missed.
            after = was_there.then(|| FROM_THE_FIRST.to_owned());
        }
        if why != said {
            Output::remark(&format!("{why}; looking for it until it is back"));
            said = why;
        }
        std::thread::sleep(AGAIN);
    }
}

/// Why a stream is read no more.
enum Ended {
    /// The daemon has ended it.
    Stopped,
    /// Nobody reads what is printed.
    Unread,
}

fn print<R: BufRead>(
    events: Events<R>,
    after: &mut Option<String>,
    kinds: &[String],
    output: &Output,
) -> Result<Ended, Failure> {
    for told in events {
        let told = told.map_err(|error| {
            Failure::failed(
                format!("the event stream broke: {error}"),
                "/v1/events",
                "start the command again, or with --follow",
            )
        })?;
        if told.id.is_some() {
            *after = told.id;
        }
        let event: Option<Value> = serde_json::from_str(&told.data).ok();
        if !is_wanted(event.as_ref(), kinds) {
            continue;
        }
        let reads = match event {
            Some(event) if !output.json => Output::line(&event_line(&event)),
            _ => Output::line(&told.data),
        };
        if !reads {
            return Ok(Ended::Unread);
        }
    }
    Ok(Ended::Stopped)
}

fn is_wanted(event: Option<&Value>, kinds: &[String]) -> bool {
    let kind = event.and_then(|event| event.get("event")?.as_str());
    kinds.is_empty()
        || kind.is_none_or(|kind| kind == MISSED || kinds.iter().any(|wanted| wanted == kind))
}

fn check(kinds: &[String]) -> Result<(), Failure> {
    let unknown = kinds.iter().find(|kind| !KINDS.contains(&kind.as_str()));
    let Some(unknown) = unknown else {
        return Ok(());
    };
    let shown: String = unknown.chars().take(40).collect();
    let to_do = nearest(unknown, KINDS).map_or_else(
        || format!("write one of {}", KINDS.join(", ")),
        |nearest| format!("did you mean {nearest}? There are {}", KINDS.join(", ")),
    );
    Err(Failure::usage(
        format!("there is no kind of event {shown:?}"),
        "--kind",
        to_do,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_of_event_can_be_asked_for() {
        let source = include_str!("../telemetry/event.rs");
        let (_, names) = source.split_once("fn name(&self)").unwrap();
        let (names, _) = names.split_once("\n    }\n").unwrap();
        let mut there: BTreeSet<&str> = names.split('"').skip(1).step_by(2).collect();
        there.insert(MISSED);
        assert!(there.len() > 20, "{there:?}");
        assert_eq!(KINDS.iter().copied().collect::<BTreeSet<_>>(), there);
    }

    #[test]
    fn a_kind_that_is_misspelt_is_named_with_the_nearest() {
        let failure = check(&["link_up".to_owned(), "signer_laps".to_owned()]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.problem.what.contains("\"signer_laps\""));
        assert!(
            failure
                .problem
                .what_to_do
                .contains("did you mean signer_lapsed?")
        );
        assert!(check(&["relit".to_owned()]).is_ok() && check(&[]).is_ok());
    }

    #[test]
    fn a_stream_is_read_event_by_event() {
        let stream = ": hello\n\nevent: link_up\nid: 7\ndata: {\"a\":1}\n\n:\n\ndata: {}\nid: 8\n\ndata: torn";
        let told: Vec<Told> = Events::new(stream.as_bytes()).map(Result::unwrap).collect();
        let expected = [("7", "{\"a\":1}"), ("8", "{}")].map(|(id, data)| Told {
            id: Some(id.to_owned()),
            data: data.to_owned(),
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn what_was_missed_is_always_shown() {
        let kinds = ["relit".to_owned()];
        let wanted = |event: &Value, kinds: &[String]| is_wanted(Some(event), kinds);
        assert!(wanted(&json!({ "event": "relit" }), &kinds));
        assert!(!wanted(&json!({ "event": "pong" }), &kinds));
        assert!(wanted(&json!({ "event": "pong" }), &[]));
        assert!(wanted(&json!({ "event": MISSED, "missed": 3 }), &kinds));
    }
}
