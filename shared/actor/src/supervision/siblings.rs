//! What the death of a child means for its siblings.

use std::time::Duration;

use actix::{AsyncContext, Context};

use super::{Ending, Phase, Supervision};
use crate::restart::{Restart, Strategy};

impl Supervision {
    pub(super) fn restart_with_siblings(&mut self, key: u64, pause: Duration, ctx: &mut Context<Self>) {
        let at = self.index(key).unwrap_or(0);
        let touched = match self.strategy {
            Strategy::OneForOne => at..at + 1,
            Strategy::RestForOne => at..self.children.len(),
            Strategy::OneForAll => 0..self.children.len(),
        };
        let mut start: Vec<u64> =
            self.children[touched].iter().filter(|c| c.key == key || c.spec.restart != Restart::Temporary).map(|c| c.key).collect();
        if self.strategy == Strategy::OneForOne {
            return self.boot_after(start, pause, ctx);
        }
        // A second death while siblings are being ended: both restart together.
        let mut longest = pause;
        if let Phase::Gathering { start: earlier, pause } = &self.phase {
            start.extend(earlier);
            longest = longest.max(*pause);
        }
        self.phase = Phase::Gathering { start, pause: longest };
        self.gather(ctx);
    }

    /// Ends the last sibling that still lives; its exit leads back here. When none is left, all start again.
    pub(super) fn gather(&mut self, ctx: &mut Context<Self>) {
        let Phase::Gathering { start, pause } = &self.phase else { return };
        let (mut start, pause) = (start.clone(), *pause);
        let touched = self.first_of(&start);
        let last = self.children.iter().enumerate().skip(touched).rev().find(|(_, c)| c.life.is_some());
        match last.map(|(index, child)| (index, child.key)) {
            Some((index, key)) => {
                if self.children[index].ending.is_none() {
                    self.children[index].ending = Some(Ending::WithSibling);
                    self.abort(key, ctx);
                }
            }
            None => {
                start.sort_by_key(|key| self.index(*key));
                start.dedup();
                self.phase = Phase::Running;
                self.boot_after(start, pause, ctx);
            }
        }
    }

    pub(super) fn boot_after(&mut self, keys: Vec<u64>, pause: Duration, ctx: &mut Context<Self>) {
        if pause.is_zero() {
            return keys.into_iter().for_each(|key| self.boot_if_down(key));
        }
        ctx.run_later(pause, move |this, ctx| {
            this.guarded(ctx, |this, _| {
                match &mut this.phase {
                    Phase::Running => keys.into_iter().for_each(|key| this.boot_if_down(key)),
                    // A sibling died during the pause: they start with it.
                    Phase::Gathering { start, .. } => start.extend(keys),
                    Phase::Stopping(_) | Phase::Ending(_) => {}
                }
                this.publish(this.state());
            });
        });
    }

    fn boot_if_down(&mut self, key: u64) {
        if self.index(key).is_some_and(|index| self.children[index].life.is_none()) {
            self.boot(key);
        }
    }

    fn first_of(&self, keys: &[u64]) -> usize {
        keys.iter().filter_map(|key| self.index(*key)).min().unwrap_or(0)
    }

    /// Whether a child is among those that are being ended for a sibling.
    pub(super) fn is_gathered(&self, key: u64) -> bool {
        match &self.phase {
            Phase::Gathering { start, .. } => self.index(key).is_some_and(|index| index >= self.first_of(start)),
            Phase::Running | Phase::Stopping(_) | Phase::Ending(_) => false,
        }
    }

    pub(super) fn start_with_siblings(&mut self, key: u64) {
        if let Phase::Gathering { start, .. } = &mut self.phase {
            start.push(key);
        }
    }
}
