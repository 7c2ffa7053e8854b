//! The mailbox as its senders see it: bounded, valid before its actor starts and after each restart.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use crate::cell::Cell;
use crate::mail::{Mail, Meta, MsgId, Ticket};
use crate::registry::{EventKind, Observable};
use crate::reply::{AskError, Reply};

/// Default limit of a mailbox in bytes.
pub const BYTES_MAX: usize = 64 << 20;

/// Makes a mailbox for at most `capacity` messages and 64 MiB, and a handle to it.
///
/// # Panics
/// If `capacity` is 0.
#[must_use]
pub fn mailbox<M: Mail>(name: &'static str, capacity: usize) -> Handle<M> {
    mailbox_with_bytes(name, capacity, BYTES_MAX)
}

/// Makes a mailbox with limits in messages and in bytes (by [`Mail::bytes`]). One message above the limit in bytes is
/// taken if the mailbox is empty.
///
/// # Panics
/// If `capacity` is 0.
#[must_use]
pub fn mailbox_with_bytes<M: Mail>(name: &'static str, capacity: usize, bytes_max: usize) -> Handle<M> {
    assert!(capacity > 0, "a mailbox needs room for one message");
    Handle(Arc::new(Cell::new(name, capacity, bytes_max)))
}

/// Sends to one mailbox; valid for the life of the process, whatever happens to the actor behind it.
pub struct Handle<M>(pub(crate) Arc<Cell<M>>);

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> std::fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({})", self.0.name)
    }
}

/// A message that was not taken; it is given back.
#[derive(thiserror::Error)]
pub enum SendError<M> {
    /// No room, in messages or in bytes.
    #[error("the mailbox is full")]
    Full(M),
    /// The actor is stopping.
    #[error("the mailbox is closed")]
    Closed(M),
}

impl<M> std::fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

/// Why no room was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// It comes when the actor has settled something.
    #[error("the mailbox is full")]
    Full,
    /// The actor is stopping.
    #[error("the mailbox is closed")]
    Closed,
}

impl<M: Mail> Handle<M> {
    /// Name of the actor behind the mailbox.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Sends without waiting, from any thread.
    ///
    /// # Errors
    /// `Full` (counted as refused) and `Closed` give the message back.
    pub fn try_send(&self, message: M) -> Result<MsgId, SendError<M>> {
        self.try_post(Meta::new("direct"), message)
    }

    /// Sends without waiting, with a given header.
    ///
    /// # Errors
    /// `Full` (counted as refused) and `Closed` give the message back.
    pub fn try_post(&self, meta: Meta, message: M) -> Result<MsgId, SendError<M>> {
        match self.0.room.try_acquire() {
            Ok(permit) => match self.0.push(meta, message, true) {
                Ok(id) => {
                    permit.forget();
                    Ok(id)
                }
                Err((_, message)) => Err(self.refuse(message)),
            },
            Err(TryAcquireError::NoPermits) => Err(self.refuse(message)),
            Err(TryAcquireError::Closed) => Err(SendError::Closed(message)),
        }
    }

    fn refuse(&self, message: M) -> SendError<M> {
        self.0.stats.refused.fetch_add(1, Ordering::Relaxed);
        SendError::Full(message)
    }

    /// Sends, and waits for room (beehive's `Send`, manual ch. 6.6.1). Never inside a ring of actors.
    ///
    /// # Errors
    /// `Closed` gives the message back.
    pub async fn send(&self, message: M) -> Result<MsgId, SendError<M>> {
        self.post(Meta::new("direct"), message).await
    }

    /// Like [`Self::send`], with a given header.
    ///
    /// # Errors
    /// `Closed` gives the message back.
    pub async fn post(&self, meta: Meta, message: M) -> Result<MsgId, SendError<M>> {
        let (mut meta, mut message) = (meta, message);
        loop {
            let permit = match self.0.room.try_acquire() {
                Ok(permit) => permit,
                Err(TryAcquireError::Closed) => return Err(SendError::Closed(message)),
                Err(TryAcquireError::NoPermits) => match self.0.room.acquire().await {
                    Ok(permit) => permit,
                    Err(_) => return Err(SendError::Closed(message)),
                },
            };
            match self.0.push(meta, message, true) {
                Ok(id) => {
                    permit.forget();
                    return Ok(id);
                }
                // Room for a message, but not for its bytes.
                Err(back) => (meta, message) = back,
            }
            drop(permit);
            let bytes = weight(&meta, &message);
            self.0.watch(|cell| cell.has_bytes(bytes) || cell.is_closed()).await;
        }
    }

    /// Asks, with a deadline that covers the wait for room and for the answer (beehive's `SendSync`, manual ch. 6.6.4).
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask<T>(&self, within: Duration, question: impl FnOnce(Reply<T>) -> M) -> Result<T, AskError> {
        let (reply, answer) = Reply::channel();
        tokio::time::timeout(within, async move {
            self.send(question(reply)).await.map_err(|_| AskError::Closed)?;
            answer.await.map_err(|_| AskError::Dropped)
        })
        .await
        .unwrap_or(Err(AskError::Deadline))
    }

    /// Takes room for one message, to be sent later without fail.
    ///
    /// # Errors
    /// `Full`: there is none yet, see [`Self::room`]; `Closed`: there never will be.
    pub fn try_reserve(&self) -> Result<Room<M>, NoRoom> {
        match self.0.room.clone().try_acquire_owned() {
            Ok(permit) => Ok(Room { permit, cell: self.0.clone() }),
            Err(TryAcquireError::NoPermits) => Err(NoRoom::Full),
            Err(TryAcquireError::Closed) => Err(NoRoom::Closed),
        }
    }

    /// Waits for room for one message. `None` if the mailbox is closed.
    pub async fn reserve(&self) -> Option<Room<M>> {
        let permit = self.0.room.clone().acquire_owned().await.ok()?;
        Some(Room { permit, cell: self.0.clone() })
    }

    /// A future that ends when there is room, or the mailbox is closed; for [`crate::Lease::postpone_from`].
    pub fn room(&self) -> impl Future<Output = ()> + 'static {
        let room = self.0.room.clone();
        async move {
            let _ = room.acquire_owned().await;
        }
    }

    /// Everything that this mailbox has taken so far. Drawn at the border for a message to another actor, it keeps the
    /// order between the two: that actor holds the message back until [`reached`](Self::reached).
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(self.0.accepted())
    }

    /// Whether all that the ticket of this mailbox names is settled, or in quarantine.
    #[must_use]
    pub fn reached(&self, ticket: Ticket) -> bool {
        self.0.settled() >= ticket.0
    }

    /// Ends when the ticket is [reached](Self::reached); for [`crate::Lease::postpone_from`].
    pub fn until(&self, ticket: Ticket) -> impl Future<Output = ()> + 'static
    where
        M: 'static,
    {
        let mailbox = self.clone();
        async move { mailbox.0.watch(|cell| cell.settled() >= ticket.0).await }
    }

    /// Changes how many messages, and how many bytes of them, may wait or be in hand. What is above a smaller limit
    /// stays and is worked off.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn set_limits(&self, capacity: usize, bytes_max: usize) {
        assert!(capacity > 0, "a mailbox needs room for one message");
        self.0.set_limits(capacity, bytes_max);
    }

    /// Notes for the page what happened to this actor; without effect before it has a supervisor. The log is the
    /// caller's.
    pub fn note(&self, kind: EventKind, text: impl Into<String>) {
        if let Some(registry) = self.0.registry.get() {
            registry.note(self.0.name, kind, text);
        }
    }

    /// Whether both are handles of one mailbox.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the mailbox takes no further message.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// What the page reads.
    #[must_use]
    pub fn observe(&self) -> Arc<dyn Observable> {
        self.0.clone()
    }
}

/// Room for one message; goes back when it is dropped unused.
pub struct Room<M> {
    permit: OwnedSemaphorePermit,
    cell: Arc<Cell<M>>,
}

impl<M: Mail> Room<M> {
    /// Sends; cannot fail.
    pub fn send(self, meta: Meta, message: M) -> MsgId {
        self.permit.forget();
        let id = meta.id;
        // Never refused: its room was taken before.
        let _ = self.cell.push(meta, message, false);
        id
    }
}

/// What a message weighs in its mailbox.
pub(crate) fn weight<M: Mail>(meta: &Meta, message: &M) -> usize {
    message.bytes() + meta.ingress.as_ref().map_or(0, |ingress| ingress.bytes())
}
