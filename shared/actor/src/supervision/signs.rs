//! Signs of life: asked for, and looked for.

use std::sync::atomic::Ordering;

use actix::Context;

use super::Supervision;
use crate::child::What;
use crate::registry::{EventKind, State};
use crate::stats::PING;

impl Supervision {
    pub(super) fn ping(&self) {
        for child in self.children.iter().filter(|c| c.life.is_some()) {
            if let What::Actor(actor) = &child.spec.what {
                actor.ward.stats().signals.fetch_or(PING, Ordering::Release);
                actor.ward.wake();
            }
        }
    }

    pub(super) fn sweep(&mut self, ctx: &mut Context<Self>) {
        if self.is_root() {
            self.beat();
        }
        let silent_for = self.policy.silent_for.as_millis();
        let mut hung = Vec::new();
        for child in self.children.iter().filter(|c| c.life.is_some() && c.ending.is_none()) {
            let What::Actor(actor) = &child.spec.what else { continue };
            let stats = actor.ward.stats();
            let silent = stats.silent();
            let up = stats.state.load(Ordering::Relaxed) == State::Up as u32;
            if up && u128::from(silent) > silent_for {
                stats.state.store(State::Hung as u32, Ordering::Relaxed);
                stats.hangs.fetch_add(1, Ordering::Relaxed);
                hung.push((child.key, child.spec.name(), silent));
            }
        }
        for (key, name, silent) in hung {
            self.note(name, EventKind::Hung, format!("no sign of life for {} s", silent / 1000));
            // A handler that awaits ends by the abort, and its exit is reported. A blocked thread does not: it is fenced.
            self.abort(key, ctx);
        }
        self.publish(self.state());
    }
}
