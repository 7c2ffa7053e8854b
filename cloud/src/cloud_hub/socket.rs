//! The socket of one session, after the upgrade: frames from it, bytes to it.
//!
//! The HTTP server has no part in it any more. Its dispatcher, and the stream that `actix-web-actors` makes of a request,
//! keep 18 KiB of buffers for each connection, whether or not anything is in them; here a buffer is there while something is.
//!
//! Both directions belong to one task. The session's actor is polled for bytes when the socket has taken the last ones, and
//! reads frames only then: whoever does not read is not read either, until CloudHub cuts it.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_codec::Decoder as _;
use actix_http::ws::{Codec, Frame, Message, ProtocolError};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wire::hub::codec::FRAME_BYTES_MAX;

use super::link::Link;

/// What is read at a time, on the stack: what a TLS record holds at the most.
const READ_BYTES: usize = 16 * 1024;
/// How long the other end has to take the last bytes and to close.
const LINGER: Duration = Duration::from_secs(2);

/// What a node must say within its keepalive interval to count as one that says something, if it is in the midst of a frame:
/// a large one on a slow line is whole only after long. Fewer are those of one that only wants to hold its place.
const WORD_BYTES: usize = 4 * 1024;

/// What a WebSocket client says.
pub struct Frames<S> {
    stream: Rc<RefCell<S>>,
    codec: Codec,
    unread: BytesMut,
    link: Arc<Link>,
    /// Bytes since the last that counted.
    unheard: usize,
}

impl<S> Frames<S> {
    /// `unread` came behind the request.
    pub fn new(stream: Rc<RefCell<S>>, unread: BytesMut, link: Arc<Link>) -> Self {
        Self { stream, codec: Codec::new().max_size(FRAME_BYTES_MAX), unread, link, unheard: 0 }
    }
}

impl<S: AsyncRead + Unpin> Stream for Frames<S> {
    type Item = Result<Message, ProtocolError>;

    /// Nothing more is read while a whole frame is here.
    fn poll_next(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { stream, codec, unread, link, unheard } = self.get_mut();
        loop {
            if let Some(frame) = codec.decode(unread)? {
                if unread.is_empty() {
                    // Emptied it would keep its heap.
                    *unread = BytesMut::new();
                }
                return Poll::Ready(Some(message(frame)));
            }
            match ready!(poll_read(&mut *stream.borrow_mut(), task, unread)) {
                Ok(0) => return Poll::Ready(None),
                Ok(bytes) => {
                    *unheard += bytes;
                    if *unheard >= WORD_BYTES {
                        *unheard = 0;
                        link.heard();
                    }
                }
                Err(error) => return Poll::Ready(Some(Err(ProtocolError::Io(error)))),
            }
        }
    }
}

fn message(frame: Frame) -> Result<Message, ProtocolError> {
    Ok(match frame {
        Frame::Text(text) => Message::Text(text.try_into().map_err(|error| ProtocolError::Io(io::Error::new(io::ErrorKind::InvalidData, error)))?),
        Frame::Binary(bytes) => Message::Binary(bytes),
        Frame::Continuation(item) => Message::Continuation(item),
        Frame::Ping(bytes) => Message::Ping(bytes),
        Frame::Pong(bytes) => Message::Pong(bytes),
        Frame::Close(reason) => Message::Close(reason),
    })
}

/// Puts what is there, or comes, behind what is in `bytes`; 0 at the end.
fn poll_read(stream: &mut (impl AsyncRead + Unpin), task: &mut Context<'_>, bytes: &mut BytesMut) -> Poll<io::Result<usize>> {
    let mut space = [MaybeUninit::uninit(); READ_BYTES];
    let mut space = ReadBuf::uninit(&mut space);
    ready!(Pin::new(stream).poll_read(task, &mut space))?;
    bytes.extend_from_slice(space.filled());
    Poll::Ready(Ok(space.filled().len()))
}

/// Writes `first`, then what `source` has until that has no more, and closes. `source` is asked when the socket has taken
/// all there was, and dropped before the socket is closed.
pub async fn serve<S>(stream: Rc<RefCell<S>>, first: Bytes, mut source: impl FnMut(&mut Context<'_>) -> Poll<Option<io::Result<Bytes>>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut rest, mut unflushed) = (first, false);
    let written: io::Result<()> = std::future::poll_fn(|task| {
        loop {
            if !rest.is_empty() {
                let count = ready!(Pin::new(&mut *stream.borrow_mut()).poll_write(task, &rest))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                rest.advance(count);
                unflushed = true;
            } else if unflushed {
                ready!(Pin::new(&mut *stream.borrow_mut()).poll_flush(task))?;
                unflushed = false;
            } else {
                match ready!(source(task)) {
                    Some(bytes) => rest = bytes?,
                    None => return Poll::Ready(Ok(())),
                }
            }
        }
    })
    .await;
    drop(source);
    if written.is_ok() {
        let _ = tokio::time::timeout(LINGER, close(&stream)).await;
    }
}

/// Says that nothing more comes, and reads to the end: a socket that is closed with something unread is reset, and its last
/// bytes are lost.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &RefCell<S>) -> io::Result<()> {
    std::future::poll_fn(|task| Pin::new(&mut *stream.borrow_mut()).poll_shutdown(task)).await?;
    let mut unread = BytesMut::new();
    std::future::poll_fn(|task| {
        while ready!(poll_read(&mut *stream.borrow_mut(), task, &mut unread))? > 0 {
            unread.clear();
        }
        Poll::Ready(Ok(()))
    })
    .await
}
