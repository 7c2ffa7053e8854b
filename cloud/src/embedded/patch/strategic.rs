//! Strategic merge patch: maps merge, lists merge by the key of their entries.
//!
//! Directives: `$patch` (`merge`, `replace`, `delete`), `$retainKeys`, `$setElementOrder/<list>`,
//! `$deleteFromPrimitiveList/<list>` (Kubernetes, "Update API Objects in Place Using kubectl patch").

use serde_json::{Map, Value};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const REMOVE: &str = "$deleteFromPrimitiveList/";

/// How a list takes a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// Entries with the same values in these fields are the same entry.
    Keys(&'static [&'static str]),
    /// Values are added to the set.
    Set,
    /// The patch's list takes the place of the old one.
    Replace,
}

/// The merge keys of the kinds served here, by the name of the list. All lists of one name agree in these kinds.
fn strategy(list: &str) -> Strategy {
    match list {
        "containers" | "initContainers" | "ephemeralContainers" | "env" | "volumes" | "imagePullSecrets" | "resourceClaims" | "schedulingGates" => {
            Strategy::Keys(&["name"])
        }
        // The port alone is Kubernetes' key; with the protocol beside it DNS on TCP and UDP stays two ports.
        "ports" => Strategy::Keys(&["containerPort", "protocol"]),
        "volumeMounts" => Strategy::Keys(&["mountPath"]),
        "volumeDevices" => Strategy::Keys(&["devicePath"]),
        "hostAliases" | "podIPs" => Strategy::Keys(&["ip"]),
        "topologySpreadConstraints" => Strategy::Keys(&["topologyKey"]),
        "conditions" | "addresses" => Strategy::Keys(&["type"]),
        "ownerReferences" => Strategy::Keys(&["uid"]),
        "finalizers" | "podCIDRs" => Strategy::Set,
        _ => Strategy::Replace,
    }
}

/// Merges `patch` into `target`.
///
/// # Errors
/// A sentence for the client when a directive is unknown or an entry has no key.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Object(patch) = patch else { return Err("the patch must be a JSON object".to_owned()) };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return Ok(()) };
    merge_map(target, patch)
}

fn merge_map(target: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), String> {
    match directive(patch)? {
        Some("replace") => {
            target.clear();
            target.extend(patch.iter().filter(|(field, _)| *field != PATCH).map(|(field, value)| (field.clone(), value.clone())));
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        _ => {}
    }
    for (field, value) in patch {
        if let Some(list) = field.strip_prefix(REMOVE) {
            remove_values(target, list, value)?;
        } else if !field.starts_with('$') {
            merge_field(target, field, value)?;
        }
    }
    for (field, order) in patch {
        if let Some(list) = field.strip_prefix(ORDER) {
            set_order(target, list, order)?;
        }
    }
    if let Some(retain) = patch.get(RETAIN) {
        let retain = retain.as_array().ok_or_else(|| format!("{RETAIN} must be a list"))?;
        target.retain(|field, _| retain.iter().any(|kept| kept == field));
    }
    Ok(())
}

fn directive(patch: &Map<String, Value>) -> Result<Option<&str>, String> {
    match patch.get(PATCH) {
        None => Ok(None),
        Some(Value::String(text)) if matches!(text.as_str(), "merge" | "replace" | "delete") => Ok(Some(text)),
        Some(other) => Err(format!("unknown {PATCH} directive: {other}")),
    }
}

fn merge_field(target: &mut Map<String, Value>, field: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Null => {
            target.remove(field);
        }
        Value::Object(patch) => {
            if directive(patch)? == Some("delete") {
                target.remove(field);
                return Ok(());
            }
            let entry = target.entry(field).or_insert_with(|| Value::Object(Map::new()));
            merge(entry, value)?;
        }
        Value::Array(patch) => {
            let entry = target.entry(field).or_insert_with(|| Value::Array(Vec::new()));
            if !entry.is_array() {
                *entry = Value::Array(Vec::new());
            }
            if let Value::Array(items) = entry {
                merge_list(items, patch, field)?;
            }
        }
        plain => {
            target.insert(field.to_owned(), plain.clone());
        }
    }
    Ok(())
}

fn merge_list(items: &mut Vec<Value>, patch: &[Value], list: &str) -> Result<(), String> {
    let replaces = patch.iter().any(|entry| entry[PATCH] == "replace" && entry.as_object().is_some_and(|map| map.len() == 1));
    let strategy = if replaces { Strategy::Replace } else { strategy(list) };
    match strategy {
        Strategy::Replace => {
            *items = patch.iter().filter(|entry| entry.get(PATCH).is_none()).cloned().collect();
        }
        Strategy::Set => {
            for value in patch {
                if !items.contains(value) {
                    items.push(value.clone());
                }
            }
        }
        Strategy::Keys(keys) => {
            for entry in patch {
                merge_entry(items, entry, keys, list)?;
            }
        }
    }
    Ok(())
}

fn merge_entry(items: &mut Vec<Value>, entry: &Value, keys: &[&str], list: &str) -> Result<(), String> {
    let Value::Object(map) = entry else { return Err(format!("an entry of {list} must be a JSON object")) };
    if entry.get(keys[0]).is_none_or(Value::is_null) {
        return Err(format!("map: an entry of {list} does not contain declared merge key: {}", keys[0]));
    }
    if directive(map)? == Some("delete") {
        items.retain(|item| !same(item, entry, keys));
        return Ok(());
    }
    match items.iter_mut().find(|item| same(item, entry, keys)) {
        Some(item) => merge(item, entry),
        None => {
            let mut added = Value::Object(Map::new());
            merge(&mut added, entry)?;
            items.push(added);
            Ok(())
        }
    }
}

fn same(left: &Value, right: &Value, keys: &[&str]) -> bool {
    // A key after the first one counts only where both name it; a protocol that is left out is TCP.
    let further = |key: &&str| match (left.get(key), right.get(key)) {
        (Some(left), Some(right)) => left == right,
        (Some(one), None) | (None, Some(one)) => *key != "protocol" || one == "TCP",
        (None, None) => true,
    };
    left.get(keys[0]) == right.get(keys[0]) && keys[1..].iter().all(further)
}

fn remove_values(target: &mut Map<String, Value>, list: &str, values: &Value) -> Result<(), String> {
    let values = values.as_array().ok_or_else(|| format!("{REMOVE}{list} must be a list"))?;
    if let Some(Value::Array(items)) = target.get_mut(list) {
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}

/// Brings the entries that `order` names into its order, in the places that they hold together; entries that it does
/// not name (another client's) keep theirs.
fn set_order(target: &mut Map<String, Value>, list: &str, order: &Value) -> Result<(), String> {
    let order = order.as_array().ok_or_else(|| format!("{ORDER}{list} must be a list"))?;
    let Some(Value::Array(items)) = target.get_mut(list) else { return Ok(()) };
    let keys = match strategy(list) {
        Strategy::Keys(keys) => keys,
        Strategy::Set => &[],
        Strategy::Replace => return Ok(()),
    };
    let rank = |item: &Value| order.iter().position(|entry| if keys.is_empty() { item == entry } else { same(item, entry, keys) });
    let places: Vec<usize> = (0..items.len()).filter(|index| rank(&items[*index]).is_some()).collect();
    let mut named: Vec<Value> = places.iter().map(|index| items[*index].clone()).collect();
    named.sort_by_key(|item| rank(item));
    for (place, item) in places.into_iter().zip(named) {
        items[place] = item;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;

    fn merged(mut target: Value, patch: Value) -> Value {
        merge(&mut target, &patch).unwrap();
        target
    }

    #[test]
    fn containers_merge_by_name_and_keep_what_the_patch_does_not_say() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "x:1", "env": [{"name": "E", "value": "1"}]}, {"name": "b", "image": "y"}]}});
        let patch =
            json!({"spec": {"containers": [{"name": "a", "image": "x:2", "env": [{"name": "F", "value": "2"}]}, {"name": "c", "image": "z"}]}});
        assert_eq!(
            merged(pod, patch),
            json!({"spec": {"containers": [
            {"name": "a", "image": "x:2", "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]},
            {"name": "b", "image": "y"}, {"name": "c", "image": "z"}]}})
        );
    }

    #[test]
    fn null_removes_a_field_and_delete_removes_an_entry() {
        let node = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "status": {"conditions": [{"type": "Ready"}, {"type": "Disk"}]}});
        let patch = json!({"metadata": {"labels": {"a": null}}, "status": {"conditions": [{"$patch": "delete", "type": "Disk"}]}});
        assert_eq!(merged(node, patch), json!({"metadata": {"labels": {"b": "2"}}, "status": {"conditions": [{"type": "Ready"}]}}));
    }

    #[test]
    fn replace_takes_the_place_of_a_map_or_a_list() {
        let target = json!({"a": {"x": 1, "y": 2}, "containers": [{"name": "a"}, {"name": "b"}]});
        let patch = json!({"a": {"$patch": "replace", "z": 3}, "containers": [{"$patch": "replace"}, {"name": "c"}]});
        assert_eq!(merged(target, patch), json!({"a": {"z": 3}, "containers": [{"name": "c"}]}));
    }

    #[test]
    fn retain_keys_drops_the_other_volume_source() {
        let target = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        let patch = json!({"volumes": [{"name": "v", "configMap": {"name": "c"}, "$retainKeys": ["name", "configMap"]}]});
        assert_eq!(merged(target, patch), json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}));
    }

    #[test]
    fn order_moves_the_named_entries_and_leaves_the_others_where_they_are() {
        let target = json!({"containers": [{"name": "a"}, {"name": "sidecar"}, {"name": "b"}]});
        let patch = json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "c"}]});
        let names: Vec<Value> = merged(target, patch)["containers"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
        assert_eq!(names, ["c", "sidecar", "b", "a"]);
    }

    #[test]
    fn finalizers_are_a_set() {
        let target = json!({"metadata": {"finalizers": ["a/x", "b/y"]}});
        let patch = json!({"metadata": {"finalizers": ["c/z", "a/x"], "$deleteFromPrimitiveList/finalizers": ["b/y"]}});
        assert_eq!(merged(target, patch), json!({"metadata": {"finalizers": ["a/x", "c/z"]}}));
    }

    #[test]
    fn tolerations_and_taints_are_atomic() {
        let target = json!({"spec": {"tolerations": [{"key": "a"}], "taints": [{"key": "x"}]}});
        let patch = json!({"spec": {"tolerations": [{"key": "b"}], "taints": null}});
        assert_eq!(merged(target, patch), json!({"spec": {"tolerations": [{"key": "b"}]}}));
    }

    #[test]
    fn one_port_on_two_protocols_stays_two_entries() {
        let target = json!({"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]});
        let patch = json!({"ports": [{"containerPort": 53, "name": "dns-tcp"}]});
        assert_eq!(
            merged(target, patch)["ports"],
            json!([{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP", "name": "dns-tcp"}])
        );
    }

    #[test]
    fn malformed_directives_are_refused() {
        for patch in [
            json!({"$patch": "explode"}),
            json!({"containers": [{"image": "x"}]}),
            json!({"containers": ["a"]}),
            json!({"$setElementOrder/containers": 3}),
            json!({"$retainKeys": "name"}),
            json!({"$deleteFromPrimitiveList/finalizers": {}}),
        ] {
            assert!(merge(&mut json!({"containers": []}), &patch).is_err(), "{patch}");
        }
    }
}
