//! Pods from files on this machine (`edged.static-pod-path`): they run whether or not there was ever a cloud, and no cloud
//! can change them.
//!
//! As the kubelet: one pod a file, JSON or YAML; the node's name is added to the pod's; its uid is of its content, so that a
//! changed file is another pod. Unlike the kubelet no mirror of it appears in the API: `skep-edge pods` and `GET /pods` show it.

use std::collections::BTreeMap;
use std::path::Path;

use model::{Namespace, ObjectName, ResourceKey, ResourceKind};
use serde_json::{Value, json};

/// Largest file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most files that are read.
const FILES_MAX: usize = 256;

/// A pod from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticPod {
    /// Its key, with the node's name in it.
    pub key: ResourceKey,
    /// As the store would have it.
    pub json: String,
    /// Name of the file.
    pub file: String,
}

/// Why a file is no pod.
#[derive(Debug, thiserror::Error)]
pub enum StaticError {
    /// Neither JSON nor YAML.
    #[error("cannot be read: {0}")]
    Form(String),
    /// Not a Pod, or without a usable name.
    #[error("{0}")]
    Content(&'static str),
    /// Too large, or not readable.
    #[error("{0}")]
    File(String),
}

/// What the directory holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StaticPods {
    /// By uid.
    pub pods: BTreeMap<String, StaticPod>,
    /// Pods whose file is gone or says something else, while they end. Another pod of the same name waits for that.
    pub ending: BTreeMap<String, StaticPod>,
    /// Files that are no pods, by name, each with the reason.
    pub errors: BTreeMap<String, String>,
    /// Why the directory itself cannot be read.
    pub unreadable: Option<String>,
}

impl StaticPods {
    /// With the pods of an earlier look whose files cannot be read now: a file that is being written, or a disk that is
    /// away, ends no pod.
    #[must_use]
    pub fn keeping(mut self, before: &Self) -> Self {
        let is_other = |pod: &StaticPod| self.pods.values().any(|found| found.key == pod.key);
        let is_kept = |pod: &StaticPod| self.unreadable.is_some() || self.errors.contains_key(&pod.file) && !is_other(pod);
        let kept: Vec<_> = before.pods.iter().filter(|(_, pod)| is_kept(pod)).map(|(uid, pod)| (uid.clone(), pod.clone())).collect();
        self.pods.extend(kept);
        self
    }

    /// With the pods of an earlier look that are no more wanted: they are as an object in the API that somebody deleted.
    #[must_use]
    pub fn ending_those_of(mut self, before: &Self, now: &str) -> Self {
        let marked = |(uid, pod): (&String, &StaticPod)| {
            let mut object: Value = serde_json::from_str(&pod.json).ok()?;
            object["metadata"]["deletionTimestamp"] = json!(now);
            Some((uid.clone(), StaticPod { json: object.to_string(), ..pod.clone() }))
        };
        // One that waited for its name has not begun.
        let begun = before.present().filter(|(uid, _)| before.pods.contains_key(*uid));
        self.ending = begun.filter_map(marked).chain(before.ending.clone()).filter(|(uid, _)| !self.pods.contains_key(uid)).collect();
        self
    }

    /// The pod of this uid, also while it ends.
    pub fn get(&self, uid: &str) -> Option<&StaticPod> {
        self.pods.get(uid).or_else(|| self.ending.get(uid))
    }

    /// The pods that are worked on, with those that end and without those that wait for that.
    pub fn present(&self) -> impl Iterator<Item = (&String, &StaticPod)> {
        let waits = |pod: &StaticPod| self.ending.values().any(|other| other.key == pod.key);
        self.ending.iter().chain(self.pods.iter().filter(move |(_, pod)| !waits(pod)))
    }

    /// Says in the log what cannot be used and could be, or was not there, before. There is no cloud to say it to.
    pub fn complain(&self, before: &Self) {
        for (file, error) in self.errors.iter().filter(|(file, error)| before.errors.get(*file) != Some(*error)) {
            log::warn!(file = file.as_str(), reason = error.as_str(); "a file of static pods cannot be used");
        }
        if let Some(reason) = self.unreadable.as_ref().filter(|reason| before.unreadable.as_ref() != Some(*reason)) {
            log::warn!(reason = reason.as_str(); "the directory of static pods cannot be read; its pods stay");
        }
    }
}

/// Reads all files of a directory. One that is not there holds nothing. Blocks on the disk.
pub fn read(directory: &Path, node: &str) -> StaticPods {
    let mut found = StaticPods::default();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return found,
        Err(error) => {
            found.unreadable = Some(error.to_string());
            return found;
        }
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).filter(|name| !name.as_encoded_bytes().starts_with(b".")).collect();
    names.sort();
    for name in names.into_iter().take(FILES_MAX) {
        let path = directory.join(&name);
        if path.is_dir() {
            continue;
        }
        match read_file(&path).and_then(|text| parse(&text, &name.to_string_lossy(), node)) {
            Ok((_, pod)) if found.pods.values().any(|other| other.key == pod.key) => {
                let error = StaticError::Content("is the second file of a pod of this name; the first in the order of the files' names counts");
                drop(found.errors.insert(name.to_string_lossy().into_owned(), error.to_string()));
            }
            Ok((uid, pod)) => drop(found.pods.insert(uid, pod)),
            Err(error) => drop(found.errors.insert(name.to_string_lossy().into_owned(), error.to_string())),
        }
    }
    found
}

fn read_file(path: &Path) -> Result<String, StaticError> {
    let file = |error: std::io::Error| StaticError::File(error.to_string());
    let metadata = std::fs::metadata(path).map_err(file)?;
    if !metadata.is_file() {
        return Err(StaticError::File("is no file".into()));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(StaticError::File(format!("has {} bytes, at most {FILE_BYTES_MAX} are possible", metadata.len())));
    }
    std::fs::read_to_string(path).map_err(file)
}

/// The pod of a file, and its uid.
///
/// # Errors
/// See [`StaticError`].
pub fn parse(text: &str, file: &str, node: &str) -> Result<(String, StaticPod), StaticError> {
    // Kubernetes reads YAML 1.1, where `defaultMode: 0400` is octal, and its documentation writes it so.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let mut pod: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| StaticError::Form(error.to_string().lines().next().unwrap_or_default().into()))?;
    if pod["kind"] != "Pod" || pod["apiVersion"] != "v1" {
        return Err(StaticError::Content("must be one object with apiVersion v1 and kind Pod"));
    }
    if !pod["metadata"].is_object() || !pod["spec"].is_object() {
        return Err(StaticError::Content("must have metadata and spec"));
    }
    let name = pod["metadata"]["name"].as_str().map(|name| format!("{name}-{node}"));
    let name = name.and_then(|name| ObjectName::new(&name).ok()).ok_or(StaticError::Content("must have a metadata.name that is a DNS name"))?;
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
    let namespace = Namespace::new(&namespace).map_err(|_| StaticError::Content("must have a metadata.namespace that is a DNS label"))?;
    let content = ring::digest::digest(&ring::digest::SHA256, format!("{node}\0{file}\0{pod}").as_bytes());
    let uid: String = content.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let metadata = &mut pod["metadata"];
    (metadata["name"], metadata["namespace"], metadata["uid"]) = (json!(name.as_str()), json!(namespace.as_str()), json!(uid));
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    metadata["annotations"]["kubernetes.io/config.source"] = json!("file");
    metadata["annotations"]["kubernetes.io/config.hash"] = json!(uid);
    pod["spec"]["nodeName"] = json!(node);
    let key = ResourceKey::object(namespace, ResourceKind::Pod, name);
    Ok((uid, StaticPod { key, json: pod.to_string(), file: file.to_owned() }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::super::pod::Pod;
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: i:1\n";

    #[test]
    fn a_file_is_a_pod_of_this_node_whose_uid_is_of_its_content() {
        let (uid, pod) = parse(POD, "web.yaml", "n1").unwrap();
        assert_eq!(pod.key.to_string(), "default/pod/web-n1");
        let read = Pod::parse(&pod.json).unwrap();
        assert_eq!((read.check(), read.metadata.uid.as_str(), read.spec.node_name.as_str()), (Ok(()), uid.as_str(), "n1"));
        assert_eq!(parse(POD, "web.yaml", "n1").unwrap().0, uid);
        for (text, file, node) in [(POD.replace("i:1", "i:2"), "web.yaml", "n1"), (POD.into(), "b.yaml", "n1"), (POD.into(), "web.yaml", "n2")] {
            assert_ne!(parse(&text, file, node).unwrap().0, uid);
        }
        let as_json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"w","namespace":"ns"},"spec":{"containers":[]}}"#;
        assert_eq!(parse(as_json, "w.json", "n1").unwrap().1.key.to_string(), "ns/pod/w-n1");
    }

    #[test]
    fn a_mode_with_a_leading_zero_is_octal_and_what_is_in_quotes_is_text() {
        let of = |mode: &str| {
            let text = format!("{POD}  volumes:\n  - name: v\n    secret:\n      secretName: '0400'\n      defaultMode: {mode}\n");
            serde_json::from_str::<Value>(&parse(&text, "web.yaml", "n1").unwrap().1.json).unwrap()["spec"]["volumes"][0]["secret"].take()
        };
        for (mode, want) in [("0400", json!(256)), ("0o400", json!(256)), ("256", json!(256)), ("0", json!(0)), ("\"0400\"", json!("0400"))] {
            let found = of(mode);
            assert_eq!((&found["defaultMode"], &found["secretName"]), (&want, &json!("0400")), "{mode}");
        }
        let text = format!("{POD}  volumes: [{{name: v, secret: {{secretName: s, defaultMode: 0400}}}}]\n");
        assert_eq!(Pod::parse(&parse(&text, "web.yaml", "n1").unwrap().1.json).unwrap().check(), Ok(()));
    }

    #[test]
    fn what_is_no_pod_is_named_and_the_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("a.yaml", POD);
        write("b.yaml", ": [ no");
        write("c.yaml", &POD.replace("Pod", "Deployment"));
        write("d.yaml", &POD.replace("web", "../../etc"));
        write("e.yaml", &"#".repeat(2 << 20));
        write("f.yaml", "");
        write("g.yaml", &format!("{POD}---\n{POD}"));
        write(".hidden.yaml", POD);
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("h.yaml")).unwrap();
        let found = read(dir.path(), "n1");
        assert_eq!(found.pods.len(), 1);
        let names: Vec<&str> = found.errors.keys().map(String::as_str).collect();
        assert_eq!(names, ["b.yaml", "c.yaml", "d.yaml", "e.yaml", "f.yaml", "g.yaml", "h.yaml"], "{:?}", found.errors);
        assert!(read(&dir.path().join("none"), "n1").pods.is_empty());
    }

    #[test]
    fn one_file_of_a_pods_name_counts_the_first_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("b.yaml", POD);
        let before = read(dir.path(), "n1");
        write("a.yaml", &POD.replace("i:1", "i:2"));
        let found = read(dir.path(), "n1").keeping(&before).ending_those_of(&before, "now");
        let files = |pods: &BTreeMap<String, StaticPod>| pods.values().map(|pod| pod.file.clone()).collect::<Vec<_>>();
        assert_eq!((files(&found.pods), files(&found.ending)), (vec!["a.yaml".into()], vec!["b.yaml".to_owned()]));
        assert!(found.errors["b.yaml"].contains("second file"));
    }

    #[test]
    fn a_pod_whose_file_has_changed_ends_and_the_next_of_its_name_waits_for_that() {
        let dir = tempfile::tempdir().unwrap();
        let look = |text: &str, before: &StaticPods| {
            std::fs::write(dir.path().join("web.yaml"), text).unwrap();
            read(dir.path(), "n1").keeping(before).ending_those_of(before, "2026-01-01T00:00:00Z")
        };
        let uids = |found: &StaticPods| found.present().map(|(uid, _)| uid.clone()).collect::<Vec<_>>();
        let first = look(POD, &StaticPods::default());
        let old = uids(&first);
        let second = look(&POD.replace("i:1", "i:2"), &first);
        assert_eq!(uids(&second), old, "the next one waits");
        assert!(Pod::parse(&second.get(&old[0]).unwrap().json).unwrap().is_deleting());
        // A third one meanwhile: the second was never begun, and does not keep the third waiting for longer than the first.
        let third = look(&POD.replace("i:1", "i:3"), &second);
        assert_eq!((third.pods.len(), &third.ending), (1, &second.ending));
        // As it was: it need not end.
        let again = look(POD, &third);
        assert!(uids(&again) == old && !Pod::parse(&again.get(&old[0]).unwrap().json).unwrap().is_deleting());
        std::fs::remove_file(dir.path().join("web.yaml")).unwrap();
        let gone = read(dir.path(), "n1").keeping(&first).ending_those_of(&first, "2026-01-01T00:00:00Z");
        assert_eq!((gone.pods.len(), uids(&gone)), (0, old));
    }

    #[test]
    fn a_pod_whose_file_is_being_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("web.yaml"), text).unwrap();
        write(POD);
        let before = read(dir.path(), "n1");
        write(&POD[..POD.len() - 20]);
        write(": [");
        assert_eq!(read(dir.path(), "n1").keeping(&before).pods, before.pods);
        std::fs::remove_file(dir.path().join("web.yaml")).unwrap();
        assert!(read(dir.path(), "n1").keeping(&before).pods.is_empty());
        let away = StaticPods { unreadable: Some("input/output error".into()), ..StaticPods::default() };
        assert_eq!(away.keeping(&before).pods, before.pods);
    }
}
