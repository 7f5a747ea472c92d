//! HTTP/2 under tonic's service: `h2` itself, with one call a connection, so that PING acknowledgements can be seen.
//!
//! tonic's own server and hyper keep `h2`'s `PingPong` to themselves: they tell of a PING that was not acknowledged in time only by
//! breaking the connection, and never of one that was. Here the stream's driver owns it.
//!
//! It never buffers more than the flow-control windows hold, and never decides who may call.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Ping, PingPong, RecvStream, SendStream};
use http_body::{Body, Frame};
use tokio::sync::mpsc;

/// The call's request body. The window is opened again as the data is taken, so that a sender is slowed by who reads.
pub(in crate::signer) struct RequestBody {
    stream: RecvStream,
}

impl RequestBody {
    pub(in crate::signer) fn new(stream: RecvStream) -> Self {
        Self { stream }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                let length = data.len();
                let opened = self.stream.flow_control().release_capacity(length);
                Poll::Ready(Some(opened.map(|()| Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers = ready!(self.stream.poll_trailers(cx));
                Poll::Ready(
                    trailers
                        .transpose()
                        .map(|trailers| trailers.map(Frame::trailers)),
                )
            }
        }
    }
}

/// Sends the call's response body, as fast as the caller's window allows. Ends early when the caller resets the stream.
pub(in crate::signer) async fn send_body(
    mut body: tonic::body::Body,
    mut to: SendStream<Bytes>,
) -> Result<(), h2::Error> {
    loop {
        let frame = tokio::select! {
            biased;
            _ = poll_fn(|cx| to.poll_reset(cx)) => return Ok(()),
            frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)) => frame,
        };
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => send_data(&mut to, data).await?,
            Some(Ok(Err(frame))) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return to.send_trailers(trailers);
                }
            }
            // tonic writes a failure into the trailers; one of the body itself cannot be told.
            Some(Err(_)) | None => return to.send_data(Bytes::new(), true),
        }
    }
}

async fn send_data(to: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        let Some(room) = poll_fn(|cx| to.poll_capacity(cx)).await.transpose()? else {
            return Ok(());
        };
        let room = room.min(data.len());
        to.send_data(data.split_to(room), false)?;
    }
    Ok(())
}

/// One side of a PING: a driver that asks for one, and hears of its acknowledgement.
pub(super) struct Pings {
    ask: mpsc::Sender<()>,
    acknowledged: mpsc::Receiver<()>,
}

impl Pings {
    /// The driver's side, and the work to be polled beside it.
    pub(super) fn new(connection: PingPong) -> (Self, impl Future<Output = ()> + Send) {
        let (ask, asked) = mpsc::channel(1);
        let (acknowledge, acknowledged) = mpsc::channel(1);
        let work = send_pings(connection, asked, acknowledge);
        (Self { ask, acknowledged }, work)
    }

    /// Sends a PING, unless one is unanswered: RFC 9113 allows several, `h2` one.
    pub(super) fn send(&self) {
        let _ = self.ask.try_send(());
    }

    /// Waits for the next acknowledgement; for ever once the connection has broken, which the stream itself reports. Cancel safe.
    pub(super) async fn acknowledged(&mut self) {
        if self.acknowledged.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

async fn send_pings(
    mut connection: PingPong,
    mut asked: mpsc::Receiver<()>,
    acknowledge: mpsc::Sender<()>,
) {
    while asked.recv().await.is_some() {
        if connection.ping(Ping::opaque()).await.is_err() {
            return;
        }
        // A driver that has not yet taken the last one knows as much.
        let _ = acknowledge.try_send(());
    }
}
