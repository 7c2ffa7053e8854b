//! The table of kinds that the embedded API serves. Everything else in this module is driven by it.

use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;

use super::schema::Definition;
use super::table::{Column, columns};
use super::typed::{self, Checked};

/// Which rule a kind's names follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 label, at most 63 characters: namespaces.
    Label,
    /// RFC 1123 subdomain, at most 253 characters: everything else here.
    Subdomain,
}

/// How a kind's bodies are checked and which list merge rules its patches follow.
#[derive(Debug)]
pub enum Schema {
    /// A type of Kubernetes itself: decoded with `k8s-openapi`, strategic merge patch allowed.
    BuiltIn(fn(serde_json::Value) -> Result<Checked, String>),
    /// A custom resource: checked against its definition, no strategic merge patch.
    Custom(&'static Definition),
}

/// One kind of object: names, scope, subresources, selectable fields and printed columns.
#[derive(Debug)]
pub struct Kind {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// API version within the group.
    pub version: &'static str,
    /// Kind name, such as `Pod`.
    pub kind: &'static str,
    /// Plural in URLs; unique over all groups served, so that it is the key in the store as well.
    pub plural: &'static str,
    /// Singular that kubectl accepts.
    pub singular: &'static str,
    /// Short names that kubectl accepts.
    pub short: &'static [&'static str],
    /// Categories, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Whether `status` is a subresource of its own: writes to one half leave the other alone.
    pub status: bool,
    /// Further subresources that take a POST, such as `binding`.
    pub actions: &'static [&'static str],
    /// Whether `metadata.generation` counts the changes of the specification.
    pub generation: bool,
    /// How bodies are checked.
    pub schema: Schema,
    /// The rule for `metadata.name`.
    pub names: NameRule,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`: label and JSON pointer.
    pub fields: &'static [(&'static str, &'static str)],
    /// Columns of the server-side table.
    pub columns: &'static [Column],
}

impl Kind {
    /// `v1` or `group/version`, as in `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `devices.devices.kubeedge.io`, as error messages name a resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.plural == other.plural
    }
}
impl Eq for Kind {}

static DEVICE_DEFINITION: Definition = Definition::new(include_str!("../../../deploy/cloud/crds/device.yaml"));
static DEVICE_MODEL_DEFINITION: Definition = Definition::new(include_str!("../../../deploy/cloud/crds/devicemodel.yaml"));
static DEVICE_STATUS_DEFINITION: Definition = Definition::new(include_str!("../../../deploy/cloud/crds/devicestatus.yaml"));

const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short: &[],
    categories: &[],
    namespaced: true,
    status: false,
    actions: &[],
    generation: false,
    schema: Schema::BuiltIn(typed::check::<serde_json::Value>),
    names: NameRule::Subdomain,
    fields: &[],
    columns: &[],
};

const DEVICES: Kind = Kind { group: "devices.kubeedge.io", version: "v1beta1", generation: true, ..PLAIN };

/// Namespaces.
pub static NAMESPACES: Kind = Kind {
    kind: "Namespace",
    schema: Schema::BuiltIn(typed::check::<core::Namespace>),
    plural: "namespaces",
    singular: "namespace",
    short: &["ns"],
    namespaced: false,
    status: true,
    names: NameRule::Label,
    fields: &[("status.phase", "/status/phase")],
    columns: columns::NAMESPACE,
    ..PLAIN
};

/// Nodes.
pub static NODES: Kind = Kind {
    kind: "Node",
    schema: Schema::BuiltIn(typed::check::<core::Node>),
    plural: "nodes",
    singular: "node",
    short: &["no"],
    namespaced: false,
    status: true,
    fields: &[("spec.unschedulable", "/spec/unschedulable")],
    columns: columns::NODE,
    ..PLAIN
};

/// Pods.
pub static PODS: Kind = Kind {
    kind: "Pod",
    schema: Schema::BuiltIn(typed::check::<core::Pod>),
    plural: "pods",
    singular: "pod",
    short: &["po"],
    categories: &["all"],
    status: true,
    actions: &["binding"],
    generation: true,
    fields: &[
        ("spec.nodeName", "/spec/nodeName"),
        ("spec.restartPolicy", "/spec/restartPolicy"),
        ("spec.schedulerName", "/spec/schedulerName"),
        ("spec.serviceAccountName", "/spec/serviceAccountName"),
        ("spec.hostNetwork", "/spec/hostNetwork"),
        ("status.phase", "/status/phase"),
        ("status.podIP", "/status/podIP"),
        ("status.nominatedNodeName", "/status/nominatedNodeName"),
    ],
    columns: columns::POD,
    ..PLAIN
};

/// ConfigMaps.
pub static CONFIG_MAPS: Kind = Kind {
    kind: "ConfigMap",
    schema: Schema::BuiltIn(typed::check::<core::ConfigMap>),
    plural: "configmaps",
    singular: "configmap",
    short: &["cm"],
    columns: columns::CONFIG_MAP,
    ..PLAIN
};

/// Secrets.
pub static SECRETS: Kind = Kind {
    kind: "Secret",
    schema: Schema::BuiltIn(typed::check::<core::Secret>),
    plural: "secrets",
    singular: "secret",
    fields: &[("type", "/type")],
    columns: columns::SECRET,
    ..PLAIN
};

/// Events of the core group.
pub static EVENTS: Kind = Kind {
    kind: "Event",
    schema: Schema::BuiltIn(typed::check::<core::Event>),
    plural: "events",
    singular: "event",
    short: &["ev"],
    fields: &[
        ("involvedObject.kind", "/involvedObject/kind"),
        ("involvedObject.namespace", "/involvedObject/namespace"),
        ("involvedObject.name", "/involvedObject/name"),
        ("involvedObject.uid", "/involvedObject/uid"),
        ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
        ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
        ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
        ("reason", "/reason"),
        ("reportingComponent", "/reportingComponent"),
        ("source", "/source/component"),
        ("type", "/type"),
    ],
    columns: columns::EVENT,
    ..PLAIN
};

/// Leases.
pub static LEASES: Kind = Kind {
    group: "coordination.k8s.io",
    kind: "Lease",
    schema: Schema::BuiltIn(typed::check::<coordination::Lease>),
    plural: "leases",
    singular: "lease",
    columns: columns::LEASE,
    ..PLAIN
};

/// KubeEdge's Device (`build/crds/devices/devices_v1beta1_device.yaml`): no status subresource.
pub static DEVICE: Kind =
    Kind { kind: "Device", schema: Schema::Custom(&DEVICE_DEFINITION), plural: "devices", singular: "device", columns: columns::DEVICE, ..DEVICES };

/// KubeEdge's DeviceModel.
pub static DEVICE_MODEL: Kind = Kind {
    kind: "DeviceModel",
    schema: Schema::Custom(&DEVICE_MODEL_DEFINITION),
    plural: "devicemodels",
    singular: "devicemodel",
    columns: columns::DEVICE_MODEL,
    ..DEVICES
};

/// KubeEdge's DeviceStatus: `status` is a plain field, its definition has no status subresource.
pub static DEVICE_STATUS: Kind = Kind {
    kind: "DeviceStatus",
    schema: Schema::Custom(&DEVICE_STATUS_DEFINITION),
    plural: "devicestatuses",
    singular: "devicestatus",
    columns: columns::DEVICE_STATUS,
    ..DEVICES
};

/// Every kind served, in the order of discovery.
pub static KINDS: [&Kind; 10] = [&NAMESPACES, &NODES, &PODS, &CONFIG_MAPS, &SECRETS, &EVENTS, &LEASES, &DEVICE, &DEVICE_MODEL, &DEVICE_STATUS];

/// The kind behind a URL, if it is served.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.into_iter().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The kind with this plural, as the store names it.
pub fn by_plural(plural: &str) -> Option<&'static Kind> {
    KINDS.into_iter().find(|kind| kind.plural == plural)
}

/// Group-versions in the order of discovery, each once.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut seen = Vec::new();
    for kind in KINDS {
        if !seen.contains(&(kind.group, kind.version)) {
            seen.push((kind.group, kind.version));
        }
    }
    seen
}
