//! When the cloud was last heard, and when it last took something: by bytes, because a large frame on a slow line is whole
//! only after long, and nothing else comes or goes between its bytes.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// Notes when something came and when something was taken. Cheap to clone; all clones know the same.
#[derive(Clone, Debug)]
pub struct Ear {
    began: Instant,
    heard_ms: Arc<AtomicU64>,
    taken_ms: Arc<AtomicU64>,
    /// A frame is being written, and the cloud has to take of it before it goes on.
    is_waiting: Arc<AtomicBool>,
}

impl Ear {
    /// As if something had come at this moment.
    pub fn new() -> Self {
        Self { began: Instant::now(), heard_ms: Arc::default(), taken_ms: Arc::default(), is_waiting: Arc::default() }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Something came, or may have come while nothing was read.
    pub fn heard(&self) {
        self.heard_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn taken(&self) {
        self.taken_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Ends when nothing has come for so long. While a large frame is being written no ping goes out, and nothing comes: that
    /// the cloud takes of it is a sign of life, too.
    pub async fn silence(&self, longest: Duration) {
        let last = || {
            let taken = if self.is_waiting.load(Ordering::Relaxed) { self.taken_ms.load(Ordering::Relaxed) } else { 0 };
            taken.max(self.heard_ms.load(Ordering::Relaxed))
        };
        self.quiet(last, longest).await;
    }

    /// Runs `writing` as long as the cloud takes something of it at least every `longest`; `None` when it does not.
    pub async fn while_taken<T>(&self, longest: Duration, writing: impl Future<Output = T>) -> Option<T> {
        let mut writing = pin!(writing);
        // What the system has room for says nothing of the cloud.
        if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await {
            return Some(done);
        }
        self.taken();
        self.is_waiting.store(true, Ordering::Relaxed);
        let done = tokio::select! {
            biased;
            done = writing => Some(done),
            () = self.quiet(|| self.taken_ms.load(Ordering::Relaxed), longest) => None,
        };
        self.is_waiting.store(false, Ordering::Relaxed);
        if done.is_some() {
            self.heard();
        }
        done
    }

    async fn quiet(&self, last_ms: impl Fn() -> u64, longest: Duration) {
        loop {
            let until = self.began + Duration::from_millis(last_ms()) + longest;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A stream with an ear at it.
#[derive(Debug)]
pub struct Heard<S> {
    stream: S,
    ear: Ear,
}

impl<S> Heard<S> {
    /// Puts the ear to the stream.
    pub fn new(stream: S, ear: Ear) -> Self {
        Self { stream, ear }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before {
            self.ear.heard();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(polled, Poll::Ready(Ok(written)) if written > 0) {
            self.ear.taken();
        }
        polled
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        if matches!(polled, Poll::Ready(Ok(written)) if written > 0) {
            self.ear.taken();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
