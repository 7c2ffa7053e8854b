//! What the API shows of a process; the page shows the same.

use actor::{Bucket, Details, Event, Health, Quarantined, Registry, Sample, TreeView, View};
use serde::Serialize;
use serde_json::Value;

use crate::moment;

/// The whole process at one moment.
#[derive(Serialize)]
pub(crate) struct Status {
    /// The daemon's name and node.
    title: String,
    /// When this was true, in ms since 1970.
    at_ms: u64,
    health: HealthView,
    supervisors: Vec<TreeView>,
    actors: Vec<View>,
    events: Vec<Event>,
}

impl Status {
    pub(crate) fn of(title: &str, registry: &Registry) -> Self {
        Self {
            title: title.to_owned(),
            at_ms: moment::now_ms(),
            health: HealthView::from(registry.health()),
            supervisors: registry.trees(),
            actors: registry.views(),
            events: registry.events(),
        }
    }
}

/// How the process is.
#[derive(Serialize)]
pub(crate) struct HealthView {
    state: &'static str,
    /// Absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<Health> for HealthView {
    fn from(health: Health) -> Self {
        match health {
            Health::Green => Self { state: "green", reason: None },
            Health::Yellow(why) => Self { state: "yellow", reason: Some(why) },
            Health::Red(why) => Self { state: "red", reason: Some(why) },
        }
    }
}

/// A message in quarantine. The payload itself is not shown: it may be somebody's secret.
#[derive(Clone, Serialize)]
pub(crate) struct Kept {
    pub(crate) id: String,
    pub(crate) parent: Option<String>,
    pub(crate) actor: String,
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) text: String,
    pub(crate) last_words: String,
    pub(crate) at_ms: u64,
    pub(crate) border: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) payload_bytes: usize,
    pub(crate) can_retry: bool,
}

impl From<Quarantined> for Kept {
    fn from(q: Quarantined) -> Self {
        let payload = q.ingress.as_ref().and_then(|ingress| ingress.payload.as_ref());
        let (can_retry, payload_bytes) = (payload.is_some(), payload.map_or(0, |bytes| bytes.len()));
        let (border, address) = q.ingress.map(|ingress| (ingress.border.into_owned(), ingress.address)).unzip();
        let Quarantined { id, parent, actor, kind, source, text, last_words, at_ms, ingress: _ } = q;
        Self { id, parent, actor, kind, source, text, last_words, at_ms, border, address, payload_bytes, can_retry }
    }
}

/// One actor with everything that can be seen of it.
#[derive(Serialize)]
pub(crate) struct OneActor {
    pub(crate) actor: View,
    pub(crate) histogram: Vec<Bucket>,
    pub(crate) snapshot: Option<Value>,
    pub(crate) history: Vec<Sample>,
    pub(crate) quarantine: Vec<Kept>,
}

impl From<Details> for OneActor {
    fn from(details: Details) -> Self {
        let Details { actor, histogram, snapshot, history, quarantine } = details;
        Self { actor, histogram, snapshot, history, quarantine: quarantine.into_iter().map(Kept::from).collect() }
    }
}
