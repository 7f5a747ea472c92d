//! The event stream as server-sent events, one JSON object an event.
//!
//! A client that is too slow fills its own short queue, then falls behind in the supervisor's ring of events, and is told how many
//! it missed. Nothing waits for it but its own task. Events of the kinds that are kept for a while have an `id`; a client that sends
//! the last one that it saw as `Last-Event-ID` is given what came since, and one that sends 0 all that is kept.

use super::views;
use crate::limits;
use crate::telemetry::{EventStream, Next, Telemetry};
use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::timeout;

/// The body of the answer: frames as the task below makes them.
struct EventBody {
    frames: mpsc::Receiver<Bytes>,
}

impl hyper::body::Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frames = &mut self.get_mut().frames;
        frames
            .poll_recv(cx)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Answers with everything that happens from now on, after what the client has not seen of what is kept, until the client leaves or the
/// daemon stops. `place` is given back then.
pub(super) fn respond(
    telemetry: &Telemetry,
    last_seen: Option<&HeaderValue>,
    stop: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) -> Response {
    let run = run_of(telemetry);
    let stream = match last_seen {
        Some(id) => telemetry.subscribe_after(seen(id, &run, telemetry.newest_kept())),
        None => telemetry.subscribe(),
    };
    let (sender, frames) = mpsc::channel(limits::ADMIN_EVENTS);
    let feed = Feed {
        telemetry: telemetry.clone(),
        stream,
        run,
        sender,
        caught_up: last_seen.is_none(),
        _place: place,
    };
    tokio::spawn(feed.run(stop));
    body(frames, "text/event-stream")
}

/// An answer whose body is made piece by piece.
pub(super) fn body(frames: mpsc::Receiver<Bytes>, kind: &'static str) -> Response {
    let mut response = Body::new(EventBody { frames }).into_response();
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A comment between what was kept and what happens: a client that asks for a snapshot after it misses nothing.
const CAUGHT_UP: &[u8] = b": caught up\n\n";

/// What all ids of this process begin with.
fn run_of(telemetry: &Telemetry) -> String {
    format!("{:x}", telemetry.started().as_millis())
}

/// The number in an id of this process's; 0, which is before all, for that of another, and for what makes no sense.
fn seen(id: &HeaderValue, run: &str, newest: u64) -> u64 {
    let text = id.to_str().unwrap_or_default();
    match text.split_once('-') {
        Some((of, number)) if of == run => number
            .parse()
            .ok()
            .filter(|number| *number <= newest)
            .unwrap_or(0),
        _ => 0,
    }
}

/// What feeds one client.
struct Feed {
    telemetry: Telemetry,
    stream: EventStream,
    run: String,
    sender: mpsc::Sender<Bytes>,
    /// What is missed before was kept no longer when the client asked for it: that is no fault of its.
    caught_up: bool,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // Says at once that the stream is there: what happens after the client has seen this is in it.
        let mut frame = Bytes::from_static(b": pilotlight events\n\n");
        while self.hand_on(frame).await.is_some() {
            let next = tokio::select! {
                biased;
                next = self.stream.next() => next,
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.sender.closed() => return,
                () = tokio::time::sleep(limits::ADMIN_EVENTS_KEEPALIVE) => {
                    frame = Bytes::from_static(b":\n\n");
                    continue;
                }
            };
            let Some(next) = next else {
                return;
            };
            frame = self.frame(next);
        }
    }

    /// Waits until there is room for a frame; `None` if the client is gone. One that takes nothing for too long is said to be behind.
    async fn hand_on(&self, frame: Bytes) -> Option<()> {
        let mut room = pin!(self.sender.reserve());
        let in_time = timeout(limits::ADMIN_EVENTS_BEHIND, room.as_mut()).await;
        let room = if let Ok(room) = in_time {
            room
        } else {
            self.telemetry.listener_behind(0);
            room.await
        };
        room.ok()?.send(frame);
        Some(())
    }

    fn frame(&mut self, next: Next) -> Bytes {
        match next {
            Next::Event(recorded) => {
                let id = recorded
                    .number
                    .map(|number| format!("{}-{number}", self.run));
                written(recorded.event.name(), id, &views::event(&recorded))
            }
            Next::Missed(missed) => {
                if self.caught_up {
                    self.telemetry.listener_behind(missed);
                }
                let missed = serde_json::json!({ "event": "missed", "missed": missed });
                written("missed", None, &missed)
            }
            Next::CaughtUp => {
                self.caught_up = true;
                Bytes::from_static(CAUGHT_UP)
            }
        }
    }
}

/// JSON has no line breaks of its own, so an event is one `data` line.
fn written(name: &str, id: Option<String>, value: &serde_json::Value) -> Bytes {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    Bytes::from(format!("{id}event: {name}\ndata: {value}\n\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::ManualClock;
    use crate::telemetry::Event;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    async fn behind(told: &mut EventStream) -> u64 {
        loop {
            if let Some(Next::Event(recorded)) = told.next().await
                && let Event::ListenerBehind { missed } = recorded.event
            {
                return missed;
            }
        }
    }

    /// A client that takes nothing is told of, once a minute at most; what it missed meanwhile is in the next that is told.
    #[tokio::test(start_paused = true)]
    async fn p9_a_reader_that_takes_nothing_is_told_of() {
        let clock = ManualClock::new();
        let telemetry = Telemetry::new(Arc::new(clock.clone()));
        let mut told = telemetry.subscribe();
        let (_stop, stopped) = watch::channel(false);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut frames = {
            let (sender, frames) = mpsc::channel(1);
            let feed = Feed {
                telemetry: telemetry.clone(),
                stream: telemetry.subscribe(),
                run: run_of(&telemetry),
                sender,
                caught_up: true,
                _place: place,
            };
            tokio::spawn(feed.run(stopped));
            frames
        };
        telemetry.emit(Event::Parked { now: 1 });
        assert_eq!(behind(&mut told).await, 0);
        for now in 0..2 * limits::EVENTS_BUFFER {
            telemetry.emit(Event::Parked { now });
            while told.try_next().is_some() {}
        }
        // It reads again, and is told what it missed. The others are told no more of it within a minute.
        let missed = loop {
            let frame = frames.recv().await.unwrap();
            let text = String::from_utf8(frame.to_vec()).unwrap();
            if let Some((_, missed)) = text.split_once("\"missed\":") {
                break missed.trim_end_matches(['}', '\n']).parse::<u64>().unwrap();
            }
        };
        assert!(missed > limits::EVENTS_BUFFER as u64 / 2, "{missed}");
        assert!(told.try_next().is_none());
        clock.advance(limits::LISTENER_BEHIND_INTERVAL);
        telemetry.listener_behind(2);
        assert_eq!(behind(&mut told).await, missed + 2);
    }

    #[test]
    fn only_an_id_of_this_process_and_of_the_past_is_taken() {
        let seen = |id: &'static str| seen(&HeaderValue::from_static(id), "1a2", 7);
        assert_eq!((seen("1a2-5"), seen("1a2-7"), seen("1a2-0")), (5, 7, 0));
        for odd in [
            "",
            "0",
            "5",
            "1a3-5",
            "1a2-8",
            "1a2--1",
            "1a2-x",
            "1a2-99999999999999999999",
        ] {
            assert_eq!(seen(odd), 0, "{odd}");
        }
    }
}
