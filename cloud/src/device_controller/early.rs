//! What edges say before all devices are known. Pure.

use std::collections::VecDeque;

use model::NodeName;
use wire::hub::{Frame, Upstream};

/// Messages that wait, of all nodes; more are dropped, and the edges repeat them.
pub const FRAMES_MAX: usize = 4096;
/// Messages of one node that wait.
pub const NODE_FRAMES_MAX: usize = 64;
/// Bytes of them.
pub const NODE_BYTES_MAX: usize = 1 << 20;

/// The messages in their order, within limits for all and for each node.
#[derive(Debug, Default)]
pub struct Early(VecDeque<(NodeName, Frame<Upstream>)>);

impl Early {
    /// Keeps a message if there is room. Says whether it is kept.
    pub fn keep(&mut self, node: &NodeName, frame: &Frame<Upstream>) -> bool {
        let of_node = self.0.iter().filter(|(other, _)| other == node);
        let (frames, bytes) = of_node.fold((0, frame.bytes()), |(frames, bytes), (_, kept)| (frames + 1, bytes + kept.bytes()));
        let fits = self.0.len() < FRAMES_MAX && frames < NODE_FRAMES_MAX && bytes <= NODE_BYTES_MAX;
        if fits {
            self.0.push_back((node.clone(), frame.clone()));
        }
        fits
    }

    /// Takes them all out.
    pub fn take(&mut self) -> impl Iterator<Item = (NodeName, Frame<Upstream>)> + use<> {
        std::mem::take(&mut self.0).into_iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;
    use crate::testing::{node, said};

    #[test]
    fn one_node_cannot_take_the_places_of_the_others() {
        let mut early = Early::default();
        let ask = |event_id: String| said(Upstream::MembershipGet { event_id, node: node("n") });
        assert_eq!((0..1000).filter(|_| early.keep(&node("flood"), &ask(String::new()))).count(), NODE_FRAMES_MAX);
        assert!(!early.keep(&node("heavy"), &ask("x".repeat(NODE_BYTES_MAX))));
        assert!(early.keep(&node("other"), &ask(String::new())));
        assert_eq!(early.take().count(), NODE_FRAMES_MAX + 1);
        assert_eq!(early.take().count(), 0);
    }
}
