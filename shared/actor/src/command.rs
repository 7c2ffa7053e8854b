//! What reaches a supervisor.

use tokio::sync::oneshot;

use crate::child::{ChildSpec, Exit};
use crate::drill::Drill;
use crate::restart::Policy;

/// Why a supervisor did not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It has no child of this name.
    #[error("no actor is called `{0}`: see the list of actors")]
    Unknown(String),
    /// It has a child of this name already.
    #[error("an actor is called `{0}` already")]
    Taken(String),
    /// It is stopping, or gone.
    #[error("the supervisor is stopping")]
    Stopping,
    /// A supervisor can only be told to panic or to restart.
    #[error("`{0}` is a supervisor, which knows only the drill `panic`")]
    NotAnActor(String),
}

pub(crate) type Answer = oneshot::Sender<Result<(), ControlError>>;

/// Its channel is unbounded, but holds at most one exit per incarnation and one command per caller.
pub(crate) enum Command {
    Exit(Exit),
    Restart(String, Answer),
    Add(Box<ChildSpec>, Answer),
    Remove(String, Answer),
    Replace(Box<ChildSpec>, Answer),
    Drill(String, Drill, Answer),
    Policy(Box<Policy>),
    /// From the supervisor above: end at once.
    Kill,
    Shutdown(oneshot::Sender<()>),
}
