//! Several mailboxes of one kind of message (a beehive group, manual ch. 6.5.2).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;

use crate::cell::lock;
use crate::mail::Mail;
use crate::mailbox::Handle;
use crate::reply::{AskError, Reply};

/// A group of mailboxes, shared by its clones. Members may come and go while it is in use; one whose mailbox was closed
/// (beehive's `CleanUp`, manual ch. 6.5.3) is no member any more.
#[derive(Clone, Debug)]
pub struct Group<M>(Arc<Mutex<Vec<Handle<M>>>>);

/// Not every member of a group answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} of {of} members did not answer: {}", .silent.len(), .silent.iter().map(|(name, why)| format!("{name} ({why})")).collect::<Vec<_>>().join(", "))]
pub struct GroupError {
    /// How many were asked.
    pub of: usize,
    /// Who did not answer, and why.
    pub silent: Vec<(&'static str, AskError)>,
}

impl<M: Mail> Group<M> {
    /// A group of these members.
    #[must_use]
    pub fn new(members: Vec<Handle<M>>) -> Self {
        Self(Arc::new(Mutex::new(members)))
    }

    /// Adds a member (beehive's `AddModuleGroup`, manual ch. 6.5.2); one that is in it already is not added twice.
    pub fn add(&self, member: &Handle<M>) {
        let mut members = lock(&self.0);
        if !members.iter().any(|m| m.is(member)) {
            members.push(member.clone());
        }
    }

    /// Takes a member out; its mailbox stays as it is.
    pub fn remove(&self, member: &Handle<M>) {
        lock(&self.0).retain(|m| !m.is(member));
    }

    /// The members, in the order in which they came.
    #[must_use]
    pub fn members(&self) -> Vec<Handle<M>> {
        let mut members = lock(&self.0);
        members.retain(|member| !member.is_closed());
        members.clone()
    }

    /// Sends to every member that has room and returns how many took it (beehive's `Send2Group`, manual ch. 6.6.2).
    pub fn try_send(&self, message: &M) -> usize
    where
        M: Clone,
    {
        self.members().iter().filter(|member| member.try_send(message.clone()).is_ok()).count()
    }

    /// Asks every member and waits until all have answered, within one deadline (beehive's `Send2GroupSync`, manual
    /// ch. 6.6.5). The answers come in the order of the members.
    ///
    /// # Errors
    /// [`GroupError`] names those that did not answer. An empty group has answered.
    pub async fn ask<T>(&self, within: Duration, question: impl Fn(Reply<T>) -> M) -> Result<Vec<T>, GroupError> {
        let members = self.members();
        let answers = join_all(members.iter().map(|member| member.ask(within, &question))).await;
        let of = answers.len();
        let (mut all, mut silent) = (Vec::with_capacity(of), Vec::new());
        for (member, answer) in members.iter().zip(answers) {
            match answer {
                Ok(answer) => all.push(answer),
                Err(why) => silent.push((member.name(), why)),
            }
        }
        if silent.is_empty() { Ok(all) } else { Err(GroupError { of, silent }) }
    }
}
