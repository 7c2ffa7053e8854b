//! What a supervisor is told to do with one of its children, or passes on to the supervisor below that has it.

use std::sync::Arc;

use actix::{AsyncContext, Context};

use super::end::close;
use super::{Child, Ending, Phase, Supervision};
use crate::cell::lock;
use crate::child::{ChildSpec, What};
use crate::command::{Answer, Command, ControlError};
use crate::drill::{self, Drill};
use crate::registry::EventKind;
use crate::restart::Policy;

impl Supervision {
    pub(super) fn find(&self, name: &str) -> Option<u64> {
        self.children.iter().find(|c| c.spec.name() == name).map(|c| c.key)
    }

    /// The living supervisor below which that name is.
    pub(super) fn below(&self, name: &str) -> Option<&Child> {
        self.children.iter().find(|child| match &child.spec.what {
            What::Tree(tree) => child.life.is_some() && knows(tree, name),
            What::Actor(_) => false,
        })
    }

    pub(super) fn forward(&self, child: &Child, command: Command) {
        if let Some(life) = &child.life {
            life.tell(command);
        }
    }

    /// Finds who a command is for, here or further down; answers those that nobody knows.
    pub(super) fn for_whom(&mut self, name: &str, answer: Answer, down: impl FnOnce(Answer) -> Command) -> Option<(u64, Answer)> {
        if matches!(self.phase, Phase::Stopping(_) | Phase::Ending(_)) {
            let _ = answer.send(Err(ControlError::Stopping));
            return None;
        }
        if let Some(key) = self.find(name) {
            return Some((key, answer));
        }
        match self.below(name) {
            Some(child) => self.forward(child, down(answer)),
            None => {
                let _ = answer.send(Err(ControlError::Unknown(name.to_owned())));
            }
        }
        None
    }

    pub(super) fn restart(&mut self, name: &str, answer: Answer, ctx: &mut Context<Self>) {
        let Some((key, answer)) = self.for_whom(name, answer, |answer| Command::Restart(name.to_owned(), answer)) else { return };
        let Some(index) = self.index(key) else { return };
        let _ = answer.send(Ok(()));
        if self.children[index].life.is_none() {
            return self.boot(key);
        }
        if self.children[index].ending.is_none() {
            self.children[index].ending = Some(Ending::Restart);
            self.abort(key, ctx);
        }
    }

    pub(super) fn add(&mut self, spec: ChildSpec, answer: Answer) {
        let refused = if matches!(self.phase, Phase::Stopping(_) | Phase::Ending(_)) {
            Some(ControlError::Stopping)
        } else if self.find(spec.name()).is_some() || self.registry.knows(spec.name()) {
            Some(ControlError::Taken(spec.name().to_owned()))
        } else {
            None
        };
        if let Some(refused) = refused {
            let _ = answer.send(Err(refused));
            return;
        }
        let spec = Arc::new(spec);
        lock(&self.plan.children).push(spec.clone());
        let key = self.put(spec);
        self.boot(key);
        let _ = answer.send(Ok(()));
    }

    pub(super) fn remove(&mut self, name: &str, answer: Answer, ctx: &mut Context<Self>) {
        let Some((key, answer)) = self.for_whom(name, answer, |answer| Command::Remove(name.to_owned(), answer)) else { return };
        let Some(index) = self.index(key) else { return };
        let child = &mut self.children[index];
        if child.life.is_none() {
            self.forget(key);
            let _ = answer.send(Ok(()));
            return;
        }
        child.ending = Some(Ending::Remove(answer));
        close(child);
        ctx.run_later(self.policy.shutdown_for, move |this, ctx| this.guarded(ctx, |this, ctx| this.abort(key, ctx)));
    }

    pub(super) fn replace(&mut self, spec: ChildSpec, answer: Answer, ctx: &mut Context<Self>) {
        let name = spec.name();
        if self.find(name).is_none()
            && let Some(child) = self.below(name)
            && !matches!(self.phase, Phase::Stopping(_) | Phase::Ending(_))
        {
            return self.forward(child, Command::Replace(Box::new(spec), answer));
        }
        let Some((key, answer)) = self.for_whom(name, answer, |answer| Command::Remove(name.to_owned(), answer)) else { return };
        let Some(index) = self.index(key) else { return };
        let spec = Arc::new(spec);
        if let Some(known) = lock(&self.plan.children).iter_mut().find(|known| Arc::ptr_eq(known, &self.children[index].spec)) {
            *known = spec.clone();
        }
        self.children[index].spec = spec;
        self.restart(name, answer, ctx);
    }

    pub(super) fn drill(&mut self, name: &str, drill: Drill, answer: Answer) {
        if name == self.name && drill == Drill::Panic {
            let _ = answer.send(Ok(()));
            panic!("{}", drill::WORDS);
        }
        let Some((key, answer)) = self.for_whom(name, answer, |answer| Command::Drill(name.to_owned(), drill, answer)) else { return };
        let Some(index) = self.index(key) else { return };
        let child = &self.children[index];
        match &child.spec.what {
            What::Actor(actor) => {
                log::warn!(actor = name, drill:? = drill; "fault drill");
                self.registry.note(name, EventKind::Operator, format!("fault drill: {drill:?}"));
                actor.ward.drill(drill);
                let _ = answer.send(Ok(()));
            }
            What::Tree(_) if drill == Drill::Panic => self.forward(child, Command::Drill(name.to_owned(), drill, answer)),
            What::Tree(_) => {
                let _ = answer.send(Err(ControlError::NotAnActor(name.to_owned())));
            }
        }
    }

    pub(super) fn set_policy(&mut self, policy: Policy) {
        for child in &self.children {
            if let What::Tree(tree) = &child.spec.what {
                // For its next start; and for the one that runs.
                *lock(&tree.0.policy) = policy.clone();
                self.forward(child, Command::Policy(Box::new(policy.clone())));
            }
        }
        self.policy = policy;
    }
}

/// Whether an actor or supervisor of that name is anywhere below.
fn knows(tree: &crate::Supervisor, name: &str) -> bool {
    lock(&tree.0.children).iter().any(|spec| spec.name() == name || matches!(&spec.what, What::Tree(below) if knows(below, name)))
}
