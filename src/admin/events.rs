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
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

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
    tokio::spawn(feed(stream, run, sender, stop, place));
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

async fn feed(
    mut stream: EventStream,
    run: String,
    sender: mpsc::Sender<Bytes>,
    mut stop: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    // Says at once that the stream is there: what happens after the client has seen this is in it.
    let mut frame = Bytes::from_static(b": pilotlight events\n\n");
    loop {
        if sender.send(frame).await.is_err() {
            return;
        }
        frame = tokio::select! {
            biased;
            next = stream.next() => match next {
                Some(Next::Event(recorded)) => {
                    let id = recorded.number.map(|number| format!("{run}-{number}"));
                    written(recorded.event.name(), id, &views::event(&recorded))
                }
                Some(Next::Missed(missed)) => written("missed", None, &serde_json::json!({ "event": "missed", "missed": missed })),
                Some(Next::CaughtUp) => Bytes::from_static(CAUGHT_UP),
                None => return,
            },
            _ = stop.wait_for(|stop| *stop) => return,
            () = sender.closed() => return,
            () = tokio::time::sleep(limits::ADMIN_EVENTS_KEEPALIVE) => Bytes::from_static(b":\n\n"),
        };
    }
}

/// JSON has no line breaks of its own, so an event is one `data` line.
fn written(name: &str, id: Option<String>, value: &serde_json::Value) -> Bytes {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    Bytes::from(format!("{id}event: {name}\ndata: {value}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
