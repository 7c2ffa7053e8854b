//! Discovery: which groups, versions and resources there are, in the old form and in the aggregated one.

use serde_json::{Value, json};

use super::kind::{self, KINDS, Kind};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The content type of aggregated discovery.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether a client takes aggregated discovery (kubectl 1.26 and later).
pub fn accepts_aggregated(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let has = |part: &str| range.split(';').any(|given| given.trim() == part);
        has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    })
}

/// `/version`. The version is the API's that is spoken here, so that clients choose the right dialect.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": concat!("v1.33.0+skep-", env!("CARGO_PKG_VERSION")), "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    })
}

/// The name that Go, and so Kubernetes, has for this processor.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/api`.
pub fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`.
pub fn groups() -> Value {
    let groups: Vec<Value> = kind::group_versions()
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(name, version)| {
            let mut entry = group_fields(name, version);
            entry["name"] = name.into();
            entry
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`, if it is served.
pub fn group(name: &str) -> Option<Value> {
    let (_, version) = kind::group_versions().into_iter().find(|(group, _)| *group == name && !name.is_empty())?;
    let mut found = group_fields(name, version);
    found["kind"] = "APIGroup".into();
    found["apiVersion"] = "v1".into();
    found["name"] = name.into();
    Some(found)
}

fn group_fields(group: &str, version: &str) -> Value {
    let one = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"versions": [one.clone()], "preferredVersion": one})
}

/// `/api/v1` and `/apis/<group>/<version>`, if served.
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let kinds = kinds_of(group, version)?;
    let mut resources = Vec::new();
    for kind in &kinds {
        resources.push(json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": VERBS, "shortNames": kind.short, "categories": kind.categories,
        }));
        for (name, answer, verbs) in subresources(kind) {
            resources.push(json!({
                "name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": answer, "verbs": verbs,
            }));
        }
    }
    let version = kinds.first()?.api_version();
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}))
}

fn kinds_of(group: &str, version: &str) -> Option<Vec<&'static Kind>> {
    let kinds: Vec<&Kind> = KINDS.into_iter().filter(|kind| kind.group == group && kind.version == version).collect();
    (!kinds.is_empty()).then_some(kinds)
}

/// Name, kind of its body, and verbs.
fn subresources(kind: &Kind) -> Vec<(&'static str, &'static str, &'static [&'static str])> {
    let mut found: Vec<(&str, &'static str, &'static [&'static str])> = Vec::new();
    if kind.status {
        found.push(("status", kind.kind, &["get", "patch", "update"]));
    }
    found.extend(kind.actions.iter().map(|action| (*action, "Binding", &["create"] as &[_])));
    found
}

/// Aggregated discovery of the core group (`/api`) or of all others (`/apis`).
pub fn aggregated(core: bool) -> Value {
    let items: Vec<Value> = kind::group_versions()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, version)| {
            let metadata = if core { json!({"creationTimestamp": null}) } else { json!({"name": group, "creationTimestamp": null}) };
            let resources: Vec<Value> = kinds_of(group, version).into_iter().flatten().map(aggregated_kind).collect();
            json!({"metadata": metadata, "versions": [{"version": version, "freshness": "Current", "resources": resources}]})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_kind(kind: &Kind) -> Value {
    let response = |name: &str| json!({"group": kind.group, "version": kind.version, "kind": name});
    let subresources: Vec<Value> = subresources(kind)
        .into_iter()
        .map(|(name, answer, verbs)| json!({"subresource": name, "responseKind": response(answer), "verbs": verbs}))
        .collect();
    json!({
        "resource": kind.plural, "responseKind": response(kind.kind), "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular, "verbs": VERBS, "shortNames": kind.short, "categories": kind.categories,
        "subresources": subresources,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn both_forms_of_discovery_name_every_kind() {
        let aggregated = format!("{}{}", aggregated(true), aggregated(false));
        for kind in KINDS {
            let plain = resources(kind.group, kind.version).unwrap().to_string();
            let name = format!("\"{}\"", kind.plural);
            assert!(plain.contains(&name) && aggregated.contains(&name), "{}", kind.plural);
            assert_eq!(plain.contains(&format!("{}/status", kind.plural)), kind.status, "{}", kind.plural);
        }
        assert!(resources("apps", "v1").is_none());
        assert!(group("").is_none());
    }

    #[test]
    fn an_old_client_gets_the_old_form() {
        assert!(!accepts_aggregated("application/json, */*"));
        assert!(!accepts_aggregated("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"));
        assert!(accepts_aggregated("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"));
    }
}
