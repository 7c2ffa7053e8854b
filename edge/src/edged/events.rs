//! What an operator would look for: Events, as `kubectl describe` shows them.
//!
//! [`EventLog`] is the kubelet's recorder in small, and pure: what happens again counts up under the same name, one object
//! may say so much in a time and no more, and the memory is bounded. The rest tells MetaManager.
//!
//! Source: Kubernetes `client-go/tools/record` (`event.go`, `events_cache.go`) and the kubelet's
//! `pkg/kubelet/events`.

use std::collections::HashMap;

use jiff::{Timestamp, ToSpan};
use model::{Namespace, ObjectName, ResourceKey, ResourceKind};
use serde_json::json;
use wire::hub::RawJson;

use super::state::Edged;
use crate::meta_manager::MetaManagerMessage;

/// Name under which this program reports.
const COMPONENT: &str = "skep-edge";
/// Things that happened which are remembered, to count them up; the kubelet remembers 4,096.
pub const REMEMBERED_MAX: usize = 256;
/// Longest message, in bytes (Kubernetes' limit).
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Events of one object at once.
const BURST: u32 = 25;
/// Then one in so many seconds.
const REFILL_SECS: i64 = 300;
/// Longest name of an object in the name of its Event: 253 without a dot and 16 digits.
const STEM_BYTES_MAX: usize = 236;

/// How an Event is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody may have to do something.
    Warning,
}

impl Severity {
    /// Kubernetes' word, in the field `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Kinds of objects that have Events here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A pod.
    Pod,
    /// This node.
    Node,
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct About {
    /// Its kind.
    pub kind: Subject,
    /// Namespace of the pod; the Events of a node are in `default`.
    pub namespace: Namespace,
    /// Its name.
    pub name: ObjectName,
    /// Its uid; of a node its name, because that is what `kubectl describe node` looks for.
    pub uid: String,
    /// Its version, where it is known.
    pub resource_version: Option<String>,
    /// The container: `spec.containers{web}`.
    pub field_path: Option<String>,
}

impl About {
    /// A node.
    pub fn node(name: &ObjectName) -> Self {
        let uid = name.to_string();
        Self { kind: Subject::Node, namespace: Namespace::default(), name: name.clone(), uid, resource_version: None, field_path: None }
    }

    fn object(&self) -> Object {
        Object { kind: self.kind, namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone() }
    }
}

/// An Event to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// `{namespace}/event/{name}`.
    pub key: ResourceKey,
    /// An earlier state of it was told.
    pub is_update: bool,
    /// The Event, `v1`.
    pub object: RawJson,
}

/// What has happened, to count it up, and how much each object may still say.
#[derive(Debug)]
pub struct EventLog {
    host: String,
    happened: HashMap<Happened, Counted>,
    buckets: HashMap<Object, Bucket>,
    last_name: u64,
}

/// What is the same when it happens again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Happened {
    object: Object,
    field_path: Option<String>,
    severity: Severity,
    reason: String,
    message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Object {
    kind: Subject,
    namespace: Namespace,
    name: ObjectName,
    uid: String,
}

#[derive(Debug)]
struct Counted {
    name: ObjectName,
    first: Timestamp,
    last: Timestamp,
    count: u32,
    is_told: bool,
}

/// One object's allowance.
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    filled_at: Timestamp,
}

impl Bucket {
    fn take(&mut self, now: Timestamp) -> bool {
        let refilled = now.as_second().saturating_sub(self.filled_at.as_second()) / REFILL_SECS;
        if refilled != 0 {
            // A clock that was set back refills nothing, and the time runs from there.
            self.tokens = self.tokens.saturating_add(u32::try_from(refilled).unwrap_or(0)).min(BURST);
            self.filled_at = if refilled < 0 { now } else { self.filled_at.checked_add((refilled * REFILL_SECS).seconds()).unwrap_or(now) };
        }
        let is_open = self.tokens > 0;
        self.tokens -= u32::from(is_open);
        is_open
    }
}

impl EventLog {
    /// One that has seen nothing, of this node.
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), happened: HashMap::new(), buckets: HashMap::new(), last_name: 0 }
    }

    /// Takes in that something happened. `None` when the object has said enough lately: it is counted, and told with what
    /// comes later.
    ///
    /// A message is cut after [`MESSAGE_BYTES_MAX`]; it must hold no secret.
    pub fn record(&mut self, now: Timestamp, about: &About, severity: Severity, reason: &str, message: &str) -> Option<Recorded> {
        let message = cut(message).to_owned();
        let key = Happened { object: about.object(), field_path: about.field_path.clone(), severity, reason: reason.to_owned(), message };
        if !self.happened.contains_key(&key) {
            make_room(&mut self.happened, |counted| counted.last);
            let name = self.name(&about.name, now);
            self.happened.insert(key.clone(), Counted { name, first: now, last: now, count: 0, is_told: false });
        }
        if !self.buckets.contains_key(&key.object) {
            make_room(&mut self.buckets, |bucket| bucket.filled_at);
            self.buckets.insert(key.object.clone(), Bucket { tokens: BURST, filled_at: now });
        }
        let is_open = self.buckets.get_mut(&key.object).is_some_and(|bucket| bucket.take(now));
        let counted = self.happened.get_mut(&key)?;
        (counted.count, counted.last) = (counted.count.saturating_add(1).min(i32::MAX as u32), now);
        if !is_open {
            return None;
        }
        let is_update = std::mem::replace(&mut counted.is_told, true);
        let object = event(&self.host, about, &key, counted);
        Some(Recorded { key: ResourceKey::object(about.namespace.clone(), ResourceKind::Event, counted.name.clone()), is_update, object })
    }

    /// As Kubernetes': the object's name and the time in nanoseconds, each time another.
    fn name(&mut self, of: &ObjectName, now: Timestamp) -> ObjectName {
        let nanos = u64::try_from(now.as_nanosecond()).unwrap_or(0);
        self.last_name = nanos.max(self.last_name.saturating_add(1));
        let stem = of.as_str();
        let stem = stem.get(..STEM_BYTES_MAX).unwrap_or(stem).trim_end_matches(['-', '.']);
        ObjectName::new(&format!("{stem}.{:016x}", self.last_name)).expect("a name that was cut, a dot and digits are a name")
    }
}

/// Lets go of the oldest when there are too many.
fn make_room<K: Clone + Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, age: impl Fn(&V) -> Timestamp) {
    if map.len() >= REMEMBERED_MAX {
        let oldest = map.iter().min_by_key(|(_, value)| age(value)).map(|(key, _)| key.clone());
        oldest.map(|key| map.remove(&key));
    }
}

fn event(host: &str, about: &About, happened: &Happened, counted: &Counted) -> RawJson {
    let kind = match about.kind {
        Subject::Pod => "Pod",
        Subject::Node => "Node",
    };
    let mut involved = json!({"kind": kind, "apiVersion": "v1", "name": about.name.as_str(), "uid": about.uid});
    if about.kind == Subject::Pod {
        involved["namespace"] = json!(about.namespace.as_str());
    }
    for (field, value) in [("resourceVersion", &about.resource_version), ("fieldPath", &about.field_path)] {
        if let Some(value) = value {
            involved[field] = json!(value);
        }
    }
    let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let object = json!({
        "kind": "Event", "apiVersion": "v1",
        "metadata": {"name": counted.name.as_str(), "namespace": about.namespace.as_str(), "creationTimestamp": null},
        "involvedObject": involved,
        "reason": happened.reason, "message": happened.message, "type": happened.severity.as_str(),
        "source": {"component": COMPONENT, "host": host},
        "firstTimestamp": time(counted.first), "lastTimestamp": time(counted.last), "count": counted.count,
        "eventTime": null, "reportingComponent": COMPONENT, "reportingInstance": host,
    });
    RawJson::from_value(&object).expect("JSON values always serialise")
}

/// At most [`MESSAGE_BYTES_MAX`], whole characters.
fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

impl Edged {
    /// Tells that something happened to a pod, or in one of its containers. Of a pod that is not stored any more nothing is
    /// told.
    pub(super) fn event(&mut self, uid: &str, container: Option<&str>, severity: Severity, reason: &str, message: &str) {
        // The API has no object of a pod from a file that an event could be about.
        let Some(entry) = self.pods.get(uid).filter(|_| self.statics.get(uid).is_none()) else { return };
        let Some((key, name)) = entry.key.as_ref().and_then(|key| Some((key, key.name.clone()?))) else { return };
        let spec = entry.desired.as_ref().map(|desired| &desired.pod.spec);
        let field_path = container.map(|container| {
            let is_init = spec.is_some_and(|spec| spec.init_containers.iter().any(|init| init.name == container));
            format!("spec.{}{{{container}}}", if is_init { "initContainers" } else { "containers" })
        });
        let about = About { kind: Subject::Pod, namespace: key.namespace.clone(), name, uid: uid.to_owned(), resource_version: None, field_path };
        self.tell_event(&about, severity, reason, message);
    }

    /// Tells that something happened to this node.
    pub(super) fn node_event(&mut self, severity: Severity, reason: &str, message: &str) {
        let name = ObjectName::new(self.config.node.as_str()).expect("node names and object names follow one rule");
        self.tell_event(&About::node(&name), severity, reason, message);
    }

    /// Tells the same of every container that waits for this image.
    pub(super) fn image_event(&mut self, image: &str, severity: Severity, reason: &str, message: &str) {
        let mut waiting = Vec::new();
        for (uid, entry) in &self.pods {
            waiting.extend(entry.images.iter().filter(|(_, wanted)| wanted.image == image).map(|(container, _)| (uid.clone(), container.clone())));
        }
        for (uid, container) in waiting {
            self.event(&uid, Some(&container), severity, reason, message);
        }
    }

    fn tell_event(&mut self, about: &About, severity: Severity, reason: &str, message: &str) {
        let Some(Recorded { key, is_update, object }) = self.events.record(self.shared.now(), about, severity, reason, message) else { return };
        // Full: it is told when it happens again.
        let _ = self.peers.meta_manager.try_send(MetaManagerMessage::Event { key, is_update, object });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use serde_json::Value;
    use wire::hub::{Frame, Upstream, codec};

    use super::*;

    fn about(pod: &str) -> About {
        About {
            kind: Subject::Pod,
            namespace: "shop".parse().unwrap(),
            name: pod.parse().unwrap(),
            uid: format!("u-{pod}"),
            resource_version: Some("7".into()),
            field_path: Some("spec.containers{web}".into()),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn read(recorded: &Recorded) -> Value {
        recorded.object.to().unwrap()
    }

    fn pulled(log: &mut EventLog, seconds: i64, pod: &str, message: &str) -> Option<Recorded> {
        log.record(at(seconds), &about(pod), Severity::Normal, "Pulled", message)
    }

    #[test]
    fn an_event_has_the_form_that_crosses_the_link() {
        let mut log = EventLog::new("edge-1");
        let recorded = pulled(&mut log, 0, "web", "Successfully pulled image \"nginx:1.27\"").unwrap();
        assert!(!recorded.is_update);
        assert_eq!(recorded.key.to_string(), "shop/event/web.17979cfe362a0000");
        let golden: Frame<Upstream> = codec::decode(wire::fixtures::EVENT).unwrap();
        let Upstream::Event { namespace, name, object, .. } = golden.body else { panic!() };
        assert_eq!((&recorded.key.namespace, recorded.key.name.as_ref()), (&namespace, Some(&name)));
        let mut want: Value = object.to().unwrap();
        want["involvedObject"]["resourceVersion"] = json!("7");
        want["involvedObject"]["uid"] = json!("u-web");
        assert_eq!(read(&recorded), want);
        let node = log.record(at(0), &About::node(&"edge-1".parse().unwrap()), Severity::Warning, "NodeNotReady", "m").unwrap();
        assert!(node.key.to_string().starts_with("default/event/edge-1."));
        assert_eq!(read(&node)["involvedObject"], json!({"kind": "Node", "apiVersion": "v1", "name": "edge-1", "uid": "edge-1"}));
    }

    #[test]
    fn what_happens_again_counts_up_under_its_name_and_what_differs_does_not() {
        let mut log = EventLog::new("n");
        let first = pulled(&mut log, 0, "web", "m").unwrap();
        let again = pulled(&mut log, 60, "web", "m").unwrap();
        assert_eq!((&again.key, again.is_update), (&first.key, true));
        let object = read(&again);
        assert_eq!(
            (&object["count"], &object["firstTimestamp"], &object["lastTimestamp"]),
            (&json!(2), &json!("2023-11-14T22:13:20Z"), &json!("2023-11-14T22:14:20Z"))
        );
        let mut other = about("web");
        other.field_path = None;
        for different in [
            pulled(&mut log, 60, "web", "other").unwrap(),
            pulled(&mut log, 60, "db", "m").unwrap(),
            log.record(at(60), &about("web"), Severity::Warning, "Pulled", "m").unwrap(),
            log.record(at(60), &about("web"), Severity::Normal, "Started", "m").unwrap(),
            log.record(at(60), &other, Severity::Normal, "Pulled", "m").unwrap(),
        ] {
            assert!(different.key != first.key && !different.is_update && read(&different)["count"] == 1);
        }
    }

    #[test]
    fn an_object_says_25_at_once_then_one_in_five_minutes_and_the_count_is_kept() {
        let mut log = EventLog::new("n");
        let told = (0..100).filter(|_| pulled(&mut log, 0, "web", "m").is_some()).count();
        assert_eq!(told, 25);
        assert!(log.record(at(1), &about("web"), Severity::Warning, "BackOff", "of the same pod").is_none());
        assert!(pulled(&mut log, 1, "db", "m").is_some(), "another pod has its own");
        assert!(pulled(&mut log, 299, "web", "m").is_none());
        assert_eq!(read(&pulled(&mut log, 300, "web", "m").unwrap())["count"], 102);
        assert!(pulled(&mut log, 301, "web", "m").is_none());
        // A clock that is set back costs nothing but time.
        assert!(pulled(&mut log, -10_000, "web", "m").is_none());
        assert!(pulled(&mut log, -9_700, "web", "m").is_some());
        let after_a_day = (0..100).filter(|_| pulled(&mut log, 86_400, "web", "m").is_some()).count();
        assert_eq!(after_a_day, 25);
    }

    #[test]
    fn memory_names_and_messages_have_a_limit() {
        let mut log = EventLog::new("n");
        let mut names = std::collections::BTreeSet::new();
        for n in 0..1000 {
            names.extend(pulled(&mut log, n / 100, &format!("web-{}", n % 300), &format!("{n}")).map(|recorded| recorded.key));
        }
        assert_eq!((names.len(), log.happened.len(), log.buckets.len()), (1000, REMEMBERED_MAX, REMEMBERED_MAX));
        let long = format!("{}-{}", "a".repeat(STEM_BYTES_MAX - 1), "b".repeat(17));
        let recorded = pulled(&mut log, 9, &long, &"ä".repeat(MESSAGE_BYTES_MAX)).unwrap();
        let name = recorded.key.name.clone().unwrap();
        assert_eq!((long.len(), name.as_str().len()), (253, 252));
        assert_eq!(read(&recorded)["message"].as_str().unwrap().len(), MESSAGE_BYTES_MAX);
    }
}
