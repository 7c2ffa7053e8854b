//! The mailbox as its senders see it: bounded, valid before its actor starts and after each restart.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use crate::cell::Cell;
use crate::mail::{Mail, Meta, MsgId, Ticket};
use crate::registry::Observable;
use crate::reply::{AskError, Reply};

/// Default limit of a mailbox in bytes.
const BYTES_MAX: usize = 64 << 20;

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
        if !self.0.has_bytes(message.bytes()) {
            self.0.stats.refused.fetch_add(1, Ordering::Relaxed);
            return Err(SendError::Full(message));
        }
        match self.0.room.try_acquire() {
            Ok(permit) => {
                permit.forget();
                Ok(self.0.push(meta, message))
            }
            Err(TryAcquireError::NoPermits) => {
                self.0.stats.refused.fetch_add(1, Ordering::Relaxed);
                Err(SendError::Full(message))
            }
            Err(TryAcquireError::Closed) => Err(SendError::Closed(message)),
        }
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
        let bytes = message.bytes();
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.0.has_bytes(bytes) {
                break;
            }
            freed.await;
        }
        match self.0.room.acquire().await {
            Ok(permit) => {
                permit.forget();
                Ok(self.0.push(meta, message))
            }
            Err(_) => Err(SendError::Closed(message)),
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

    /// Takes room for one message, to be sent later without fail. `None` if there is none.
    #[must_use]
    pub fn try_reserve(&self) -> Option<Room<M>> {
        let permit = self.0.room.clone().try_acquire_owned().ok()?;
        Some(Room { permit, cell: self.0.clone() })
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
        async move {
            loop {
                let freed = mailbox.0.freed.notified();
                tokio::pin!(freed);
                freed.as_mut().enable();
                if mailbox.reached(ticket) {
                    return;
                }
                freed.await;
            }
        }
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
        self.cell.push(meta, message)
    }
}

/// Several mailboxes of one kind of message (a beehive group, manual ch. 6.5.2).
#[derive(Clone, Debug)]
pub struct Group<M>(Vec<Handle<M>>);

impl<M: Mail + Clone> Group<M> {
    /// A group of these members.
    #[must_use]
    pub fn new(members: Vec<Handle<M>>) -> Self {
        Self(members)
    }

    /// Sends to every member that has room and returns how many took it (beehive's `Send2Group`, manual ch. 6.6.2).
    pub fn try_send(&self, message: &M) -> usize {
        self.0.iter().filter(|h| h.try_send(message.clone()).is_ok()).count()
    }
}
