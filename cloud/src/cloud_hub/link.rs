//! The part of a session that others may touch: atomics, a waker, and the socket as a last resort.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::Error;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::task::AtomicWaker;
use model::NodeName;

use super::message::SessionId;
use super::state::{End, Vitals};

/// What is handed to the socket at a time. Progress is seen per slice, so a large frame on a slow link is not taken for a
/// stuck one.
const SLICE_BYTES: usize = 32 * 1024;

/// One session, seen from outside.
#[derive(Debug)]
pub struct Link {
    pub session: SessionId,
    pub node: NodeName,
    began: Instant,
    heard_ms: AtomicU64,
    written_ms: AtomicU64,
    unwritten: AtomicBool,
    waits_for_us: AtomicBool,
    /// The socket asks for more: the session may hand out once.
    turn: AtomicBool,
    waker: AtomicWaker,
    end: OnceLock<End>,
    ended_ms: AtomicU64,
    gone: AtomicBool,
    /// A second descriptor of the connection: the session itself cannot close it while it is frozen.
    socket: Option<Arc<TcpStream>>,
}

impl Link {
    pub fn new(session: SessionId, node: NodeName, began: Instant, socket: Option<Arc<TcpStream>>) -> Self {
        let link = Self {
            session,
            node,
            began,
            heard_ms: AtomicU64::new(0),
            written_ms: AtomicU64::new(0),
            unwritten: AtomicBool::new(false),
            waits_for_us: AtomicBool::new(false),
            turn: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            end: OnceLock::new(),
            ended_ms: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            socket,
        };
        link.heard();
        link
    }

    /// Milliseconds of the hub's clock.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A frame came.
    pub fn heard(&self) {
        self.heard_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The session waits for room in a mailbox of ours, or does so no longer.
    pub fn waits_for_us(&self, waits: bool) {
        self.waits_for_us.store(waits, Ordering::Relaxed);
        self.heard();
    }

    pub fn vitals(&self) -> Vitals {
        Vitals {
            heard_ms: self.heard_ms.load(Ordering::Relaxed),
            written_ms: self.written_ms.load(Ordering::Relaxed),
            unwritten: self.unwritten.load(Ordering::Acquire),
            waits_for_us: self.waits_for_us.load(Ordering::Relaxed),
        }
    }

    /// There may be something to hand out, or to end.
    pub fn wake(&self) {
        self.waker.wake();
    }

    pub fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Takes the right to hand out once since the socket last asked.
    pub fn take_turn(&self) -> bool {
        self.turn.swap(false, Ordering::Relaxed)
    }

    /// Marks the session as ended; the first reason counts.
    pub fn cut(&self, end: End) {
        if self.end.set(end).is_ok() {
            self.ended_ms.store(self.now_ms(), Ordering::Relaxed);
        }
        self.wake();
    }

    /// Why it has ended, once it has.
    pub fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// When it was cut.
    pub fn ended_ms(&self) -> u64 {
        self.ended_ms.load(Ordering::Relaxed)
    }

    /// The session's actor is no more.
    pub fn set_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Ends the connection whatever its session does.
    pub fn close_socket(&self) {
        if let Some(socket) = &self.socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// What the session has to say, with the socket's progress noted.
///
/// It is asked for the next piece when the socket has taken the last; that is the only sign of it.
pub struct Metered<S> {
    inner: S,
    link: Arc<Link>,
    rest: Bytes,
}

impl<S> Metered<S> {
    pub fn new(inner: S, link: Arc<Link>) -> Self {
        Self { inner, link, rest: Bytes::new() }
    }

    fn slice(&mut self) -> Bytes {
        self.link.written_ms.store(self.link.now_ms(), Ordering::Relaxed);
        self.link.unwritten.store(true, Ordering::Release);
        self.rest.split_to(self.rest.len().min(SLICE_BYTES))
    }
}

impl<S: Stream<Item = Result<Bytes, Error>> + Unpin> Metered<S> {
    pub fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.slice())));
        }
        self.link.turn.store(true, Ordering::Relaxed);
        match Pin::new(&mut self.inner).poll_next(task) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.rest = bytes;
                Poll::Ready(Some(Ok(self.slice())))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(io::Error::other(error.to_string())))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                // After the session was polled, so that what came meanwhile has been heard.
                self.link.unwritten.store(false, Ordering::Release);
                Poll::Pending
            }
        }
    }
}
