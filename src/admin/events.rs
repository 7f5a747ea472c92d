//! The event stream as server-sent events, one JSON object an event.
//!
//! A client that is too slow fills its own short queue, then falls behind in the supervisor's ring of events, and is told how many
//! it missed. Nothing waits for it but its own task.

use super::views;
use crate::limits;
use crate::telemetry::{EventStream, Next};
use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, watch};

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

/// Answers with everything that happens from now on, until the client leaves or the daemon stops.
pub(super) fn respond(stream: EventStream, stop: watch::Receiver<bool>) -> Response {
    let (sender, frames) = mpsc::channel(limits::ADMIN_EVENTS);
    tokio::spawn(feed(stream, sender, stop));
    body(frames, "text/event-stream")
}

/// An answer whose body is made piece by piece.
pub(super) fn body(frames: mpsc::Receiver<Bytes>, kind: &'static str) -> Response {
    let mut response = Body::new(EventBody { frames }).into_response();
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn feed(
    mut stream: EventStream,
    sender: mpsc::Sender<Bytes>,
    mut stop: watch::Receiver<bool>,
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
                Some(Next::Event(recorded)) => written(recorded.event.name(), &views::event(&recorded)),
                Some(Next::Missed(missed)) => written("missed", &serde_json::json!({ "event": "missed", "missed": missed })),
                None => return,
            },
            _ = stop.wait_for(|stop| *stop) => return,
            () = sender.closed() => return,
            () = tokio::time::sleep(limits::ADMIN_EVENTS_KEEPALIVE) => Bytes::from_static(b":\n\n"),
        };
    }
}

/// JSON has no line breaks of its own, so an event is one `data` line.
fn written(name: &str, value: &serde_json::Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {value}\n\n"))
}
