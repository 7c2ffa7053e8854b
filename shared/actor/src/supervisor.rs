//! A supervisor as it is put together, and the handle of one that runs.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use crate::cell::lock;
use crate::child::ChildSpec;
use crate::command::{Answer, Command, ControlError};
use crate::drill::Drill;
use crate::registry::Registry;
use crate::restart::{Policy, Strategy};
use crate::supervision::{self, Above};

/// A supervisor with its children, to be [started](Self::start) or put under another one with [`ChildSpec::tree`].
///
/// It restarts each child that dies, by its [`Restart`](crate::Restart) and the [`Strategy`]; siblings need not learn
/// anything, because their handles stay valid. One-for-one is right nearly everywhere; the others are for a sibling that
/// keeps what an elder one knew.
#[derive(Clone)]
pub struct Supervisor(pub(crate) Arc<Plan>);

/// What a supervisor starts with, and starts with again after it was restarted itself.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) policy: Mutex<Policy>,
    pub(crate) strategy: Mutex<Strategy>,
    pub(crate) children: Mutex<Vec<Arc<ChildSpec>>>,
    registry: Mutex<Registry>,
}

impl Supervisor {
    /// A supervisor without children, one-for-one.
    #[must_use]
    pub fn new(name: &'static str, policy: Policy) -> Self {
        Self(Arc::new(Plan {
            name,
            policy: Mutex::new(policy),
            strategy: Mutex::new(Strategy::OneForOne),
            children: Mutex::default(),
            registry: Mutex::default(),
        }))
    }

    /// What the death of a child means for its siblings.
    #[must_use]
    pub fn strategy(self, strategy: Strategy) -> Self {
        *lock(&self.0.strategy) = strategy;
        self
    }

    /// Where its actors are seen and where their quarantine is; a registry of its own if not said.
    #[must_use]
    pub fn registered(self, registry: &Registry) -> Self {
        *lock(&self.0.registry) = registry.clone();
        self
    }

    /// Adds a child. Children start in this order and stop in reverse.
    #[must_use]
    pub fn child(self, spec: ChildSpec) -> Self {
        lock(&self.0.children).push(Arc::new(spec));
        self
    }

    pub(crate) fn name(&self) -> &'static str {
        self.0.name
    }

    /// The registry of its children.
    #[must_use]
    pub fn registry(&self) -> Registry {
        lock(&self.0.registry).clone()
    }

    /// Starts all children on the running actix system. `on_escalate` is called once, with the reason, when an actor
    /// died too often, too many threads are stuck, or the supervisor itself panicked; the process should then end with a
    /// stated code.
    pub fn start(self, on_escalate: impl FnOnce(String) + 'static) -> Running {
        let registry = self.registry();
        let commands = supervision::start(self.0, registry.clone(), Above::Process(Box::new(on_escalate)));
        Running { commands, registry }
    }
}

/// A running tree of supervisors. Cheap to clone; may be used from any thread.
#[derive(Clone)]
pub struct Running {
    commands: mpsc::UnboundedSender<Command>,
    registry: Registry,
}

impl Running {
    /// What can be seen of the children.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Ends the current incarnation of an actor or a supervisor anywhere in the tree; the next one starts at once. It
    /// does not count as a death.
    ///
    /// # Errors
    /// `Unknown`, `Stopping`.
    pub async fn restart(&self, name: &str) -> Result<(), ControlError> {
        self.tell(|answer| Command::Restart(name.to_owned(), answer)).await
    }

    /// Starts a further child of the root at run time (beehive's `AddModule`, manual ch. 6.5.1).
    ///
    /// # Errors
    /// `Taken`, `Stopping`.
    pub async fn add(&self, spec: ChildSpec) -> Result<(), ControlError> {
        self.tell(|answer| Command::Add(Box::new(spec), answer)).await
    }

    /// Ends a child for good (beehive's `CleanUp`, manual ch. 6.5.3): its mailbox is closed, what is queued is handled,
    /// the actor ends. Waits for that, [`Policy::shutdown_for`] at most; then it is aborted.
    ///
    /// # Errors
    /// `Unknown`, `Stopping`.
    pub async fn remove(&self, name: &str) -> Result<(), ControlError> {
        self.tell(|answer| Command::Remove(name.to_owned(), answer)).await
    }

    /// Puts another actor behind the mailbox of a child: what is queued goes to the new one. So a module is enabled or
    /// [disabled](ChildSpec::disabled) at run time (manual ch. 6.3), or started with a changed configuration.
    ///
    /// # Errors
    /// `Unknown`, `Stopping`.
    pub async fn replace(&self, spec: ChildSpec) -> Result<(), ControlError> {
        self.tell(|answer| Command::Replace(Box::new(spec), answer)).await
    }

    /// Makes an actor, or (a panic only) a supervisor, fail on purpose. Bounded by [`Drill::bounded`].
    ///
    /// # Errors
    /// `Unknown`, `NotAnActor`, `Stopping`.
    pub async fn drill(&self, name: &str, drill: Drill) -> Result<(), ControlError> {
        self.tell(|answer| Command::Drill(name.to_owned(), drill.bounded(), answer)).await
    }

    /// Goes on with other numbers, in the whole tree.
    pub fn set_policy(&self, policy: Policy) {
        let _ = self.commands.send(Command::Policy(Box::new(policy)));
    }

    /// Stops the children in reverse start order: each mailbox is closed, drained, and its actor ended, all within
    /// [`Policy::shutdown_for`]; what is left then is aborted.
    pub async fn shutdown(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).is_ok() {
            let _ = wait.await;
        }
    }

    async fn tell(&self, command: impl FnOnce(Answer) -> Command) -> Result<(), ControlError> {
        let (answer, wait) = oneshot::channel();
        self.commands.send(command(answer)).map_err(|_| ControlError::Stopping)?;
        wait.await.unwrap_or(Err(ControlError::Stopping))
    }
}
