//! What must hold, at each step and at the end.

use std::collections::{BTreeMap, HashSet};

use model::{NodeName, ResourceKey};
use wire::hub::MsgId;

/// Who found something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checker {
    /// What is acknowledged is durable, on either side.
    Durable,
    /// Of a property the values that count never go back, and none counts twice.
    Order,
    /// What was deleted for good stays deleted.
    Deleted,
    /// One session of a node counts, the newest.
    OneSession,
    /// What is kept in memory and in tables is bounded by what there is.
    Bounded,
    /// In the end edge, cloud and API say the same.
    Agree,
    /// What is quiet gets through while other things change all the time.
    Progress,
}

/// The ledger of a run. Unlike the processes it forgets nothing.
#[derive(Default)]
pub struct Checks {
    found: Option<(Checker, String)>,
    /// Frames of the cloud whose transaction an edge committed.
    stored: HashSet<MsgId>,
    /// Frames of edges that the API took.
    in_api: HashSet<MsgId>,
    /// The newest session of each node.
    newest: BTreeMap<NodeName, u64>,
    /// The last value that counted, by place.
    values: BTreeMap<String, u64>,
    /// Objects that the cloud has seen deleted in the API. (Each kind has a watch of its own: before that, one that a pod no
    /// longer needs may go and come again.)
    deleted: HashSet<String>,
    /// Objects that an edge removed after that.
    gone: HashSet<(NodeName, String)>,
}

impl Checks {
    pub fn found(&self) -> Option<&(Checker, String)> {
        self.found.as_ref()
    }

    pub fn take(&mut self) -> Option<(Checker, String)> {
        self.found.take()
    }

    pub fn fail(&mut self, checker: Checker, what: impl Into<String>) {
        self.found.get_or_insert((checker, what.into()));
    }

    pub fn edge_committed(&mut self, frame: &MsgId) {
        self.stored.insert(frame.clone());
    }

    pub fn cloud_was_told_stored(&mut self, frame: &MsgId) {
        if !self.stored.contains(frame) {
            self.fail(Checker::Durable, format!("the edge acknowledged {frame}, which it has not committed"));
        }
    }

    pub fn api_took(&mut self, frame: &MsgId) {
        self.in_api.insert(frame.clone());
    }

    pub fn edge_was_told_confirmed(&mut self, frame: &MsgId) {
        if !self.in_api.contains(frame) {
            self.fail(Checker::Durable, format!("the cloud confirmed {frame}, which the API has not"));
        }
    }

    pub fn session_began(&mut self, node: &NodeName, session: u64) {
        self.newest.insert(node.clone(), session);
    }

    pub fn session_counted(&mut self, node: &NodeName, session: u64) {
        if self.newest.get(node) != Some(&session) {
            self.fail(Checker::OneSession, format!("session {session} of {node} counted, the newest is {:?}", self.newest.get(node)));
        }
    }

    /// `place` has this value now; values are numbers that only grow where they are made.
    pub fn value(&mut self, place: &str, value: u64) {
        let last = self.values.entry(place.to_owned()).or_default();
        if value < *last {
            let what = format!("{place} went back from {last} to {value}");
            return self.fail(Checker::Order, what);
        }
        *last = value;
    }

    pub fn cloud_saw_deleted(&mut self, uid: &str) {
        self.deleted.insert(uid.to_owned());
    }

    pub fn edge_removed(&mut self, node: &NodeName, uid: &str) {
        if self.deleted.contains(uid) {
            self.gone.insert((node.clone(), uid.to_owned()));
        }
    }

    pub fn edge_stored(&mut self, node: &NodeName, key: &ResourceKey, uid: &str) {
        if self.gone.contains(&(node.clone(), uid.to_owned())) {
            self.fail(Checker::Deleted, format!("{node} has {key} of uid {uid} again, which was deleted"));
        }
    }

    pub fn at_most(&mut self, what: &str, is: usize, most: usize) {
        if is > most {
            self.fail(Checker::Bounded, format!("{what}: {is}, at most {most}"));
        }
    }
}
