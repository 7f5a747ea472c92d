//! The log: to standard error, as much as `RUST_LOG` says, as text or as JSON.

use super::failure::Failure;
use super::output;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Starts logging.
pub(super) fn start(format: LogFormat) -> Result<(), Failure> {
    start_at(format, "info")
}

/// Starts logging, at this level unless `RUST_LOG` says otherwise.
pub(super) fn start_at(format: LogFormat, level: &str) -> Result<(), Failure> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives).map_err(|error| {
            Failure::usage(
                format!("RUST_LOG is not a log filter: {error}"),
                "the environment",
                "write a level such as info, or pilotlight=debug",
            )
        })?,
        Err(_) => EnvFilter::new(level),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log
            .with_ansi(output::colours(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| {
        Failure::failed(
            error.to_string(),
            "the log",
            "this is not your doing: please report it",
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use crate::admin::event_json;
    use crate::clock::SystemClock;
    use crate::link::{CloseReason, Direction, Identity, LinkId, Tag};
    use crate::node_id::LocalKey;
    use crate::signer::{Epoch, LapseReason};
    use crate::supervisor::{Banned, DeadlinesNear, HtlcDeadline, Mode, Offence};
    use crate::telemetry::{Event, LapseReport, Recorded, Telemetry};
    use serde_json::Value;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// What is written, for whoever looks.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Those of which an operator reads without asking for more: of the node and its signer.
    fn of_the_node() -> Vec<Event> {
        let address: std::net::SocketAddr = ([192, 0, 2, 1], 9735).into();
        let (epoch, third) = (Epoch::FIRST, Duration::from_nanos(1_234_567));
        let (from, to) = (Mode::Live, Mode::Safe);
        let mut events = vec![
            Event::Listening { address },
            Event::GatewayListening { address },
            Event::ModeChanged { from, to },
            Event::SignerLapsed(LapseReport {
                epoch,
                reason: LapseReason::LivenessLost,
                fence: third,
                teardown: third,
                dropped: 2,
                channel_bearing: 1,
                retained: 3,
            }),
            Event::HeldDown {
                lapses: 2,
                wait: third,
            },
            Event::Relit {
                epoch,
                took: Some(third),
                up: 1,
                failed: 2,
            },
            Event::SignerTakenOver {
                from: address,
                to: address,
            },
            Event::BookFailed {
                detail: "the disk is full".to_owned(),
            },
            Event::Drained {
                closed: 1,
                overran: 0,
            },
        ];
        events.extend([None, Some(third)].map(|away| Event::SignerAttached { epoch, away }));
        events.extend([true, false].map(|stalled| Event::SignerStalled { stalled }));
        events.extend([true, false].map(|stalled| Event::InboxStalled { stalled }));
        events.extend([0, 3].map(|missed| Event::ListenerBehind { missed }));
        events.extend([2, 0].map(|missing| Event::GossipFloor { missing, wanted: 5 }));
        events.extend([None, Some("8a7b")].map(|macaroon| Event::SignerRefused {
            address,
            failure: "macaroon_missing",
            detail: "none came".into(),
            macaroon: macaroon.map(Into::into),
        }));
        events
    }

    /// And of its peers.
    fn of_peers() -> Vec<Event> {
        let peer = LocalKey::from_bytes(&mut [7; 32]).unwrap().node_id();
        let address: std::net::SocketAddr = ([192, 0, 2, 1], 9735).into();
        let (link, tag) = (LinkId(3), Tag::ChannelBearing);
        let (direction, identity) = (Direction::Outbound, Identity::Persona);
        let soonest = HtlcDeadline {
            peer,
            expiry_height: 850_000,
            blocks_left: -7,
        };
        vec![
            Event::HtlcDeadline(DeadlinesNear {
                within: 36,
                peers: 2,
                soonest,
            }),
            Event::AbsencePlanned {
                number: 1,
                htlcs: 2,
                peers: 1,
                soonest: Some(soonest),
            },
            Event::AbsenceOver {
                number: 1,
                outcome: "lapsed",
            },
            Event::LinkUp {
                peer,
                link,
                address: address.into(),
                tag,
                direction,
                identity,
            },
            Event::LinkDown {
                peer,
                link,
                tag,
                direction,
                identity,
                reason: CloseReason::Lapse,
            },
            Event::Tagged { peer, tag },
            Event::MistagSuspected { peer },
            Event::Banned {
                who: Banned::Address(address.ip()),
                offence: Offence::Handshake,
                lasts: Duration::from_secs(600),
            },
        ]
    }

    /// One name for one thing: what an event says in the stream, it says in the log, and nothing else but words for people.
    #[test]
    fn the_log_has_the_fields_of_the_event_stream() {
        for event in of_the_node().into_iter().chain(of_peers()) {
            let written = Written::default();
            let writer = written.clone();
            let log = tracing_subscriber::fmt()
                .json()
                .flatten_event(true)
                .with_max_level(tracing::Level::INFO)
                .with_writer(move || writer.clone())
                .finish();
            let telemetry = Telemetry::new(Arc::new(SystemClock::new()));
            tracing::subscriber::with_default(log, || telemetry.emit(event.clone()));
            let line = written.0.lock().unwrap().clone();
            let Ok(Value::Object(mut logged)) = serde_json::from_slice(&line) else {
                panic!("{event:?}: {}", String::from_utf8_lossy(&line));
            };
            for of_the_log in ["timestamp", "level", "target", "message", "unsaid"] {
                logged.remove(of_the_log);
            }
            let Value::Object(mut told) = event_json(&Recorded {
                at: Duration::ZERO,
                event,
                number: None,
            }) else {
                panic!("no object");
            };
            told.remove("at");
            told.retain(|_, value| !value.is_null());
            assert_eq!(Value::Object(logged), Value::Object(told));
        }
    }
}
