//! How a supervisor ends: gives up, is told to, or stops in order.

use actix::{ActorContext, AsyncContext, Context};
use tokio::sync::oneshot;

use super::{Child, Ending, Phase, Supervision};
use crate::child::{ChildSpec, What, Why};
use crate::command::Command;
use crate::registry::{EventKind, State};

impl Supervision {
    /// The root tells the process and goes on watching the others, so that it ends in order; a supervisor below ends its
    /// children and leaves the decision to the one above.
    pub(super) fn escalate(&mut self, spec: &ChildSpec, why: String, ctx: &mut Context<Self>) {
        self.note(spec.name(), EventKind::GaveUp, why.clone());
        let why = format!("{}: {why}", self.name);
        if !self.is_root() {
            return self.end(Why::Escalated(why), ctx);
        }
        let tell = self.on_escalate.borrow_mut().take();
        if let Some(tell) = tell {
            tell(why);
        }
    }

    pub(super) fn end(&mut self, why: Why, ctx: &mut Context<Self>) {
        if matches!(self.phase, Phase::Ending(_)) {
            return;
        }
        self.phase = Phase::Ending(why);
        self.stop_next(ctx);
    }

    pub(super) fn shutdown(&mut self, done: oneshot::Sender<()>, ctx: &mut Context<Self>) {
        match &mut self.phase {
            Phase::Stopping(waiting) => return waiting.push(done),
            Phase::Ending(_) => return, // Dropping `done` ends the caller's wait.
            Phase::Running | Phase::Gathering { .. } => {}
        }
        self.phase = Phase::Stopping(vec![done]);
        ctx.run_later(self.policy.shutdown_for, |this, ctx| {
            for child in this.children.iter().filter(|c| c.life.is_some()) {
                log::warn!(actor = child.spec.name(); "did not stop within the deadline: aborted");
                if let Some(life) = &child.life {
                    life.abort();
                    life.leave_behind();
                }
            }
            this.finish(ctx);
        });
        self.stop_next(ctx);
    }

    /// Ends the last living child, in order or at once; its exit leads back here.
    pub(super) fn stop_next(&mut self, ctx: &mut Context<Self>) {
        let Some(index) = self.children.iter().rposition(|c| c.life.is_some()) else { return self.finish(ctx) };
        match self.phase {
            Phase::Stopping(_) => close(&mut self.children[index]),
            Phase::Ending(_) => {
                let key = self.children[index].key;
                self.children[index].ending.get_or_insert(Ending::WithSibling);
                self.abort(key, ctx);
            }
            Phase::Running | Phase::Gathering { .. } => {}
        }
    }

    pub(super) fn finish(&mut self, ctx: &mut Context<Self>) {
        let why = match std::mem::replace(&mut self.phase, Phase::Stopping(Vec::new())) {
            Phase::Stopping(waiting) => {
                for done in waiting {
                    let _ = done.send(());
                }
                self.publish(State::Stopped);
                Why::Normal
            }
            Phase::Ending(why) => why,
            Phase::Running | Phase::Gathering { .. } => Why::Normal,
        };
        if self.is_root() && why == Why::Normal {
            self.registry.rest();
        }
        self.close_with(why, ctx);
    }

    pub(super) fn close_with(&mut self, why: Why, ctx: &mut Context<Self>) {
        self.end.borrow_mut().get_or_insert(why);
        ctx.terminate();
    }
}

pub(super) fn close(child: &mut Child) {
    match &child.spec.what {
        What::Actor(actor) => actor.ward.close(),
        What::Tree(_) => {
            if let Some(life) = &child.life {
                let (done, _) = oneshot::channel();
                life.tell(Command::Shutdown(done));
            }
        }
    }
}
