use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::env::{Capacity, Facts};
use super::super::objects::{KeyedObject, LookupError, Objects};
use super::super::pod::{Pod, ProjectedVolume};
use super::super::runtime::Memory;
use super::super::volume::{self, File, MESSAGE_BYTES_MAX, VolumeError, projected_files, source};
use super::pod_json;

fn objects() -> Objects {
    let mut objects = Objects::default();
    objects.insert(false, "cfg".into(), KeyedObject::parse(false, r#"{"data":{"a":"cfg-a","b":"cfg-b"}}"#));
    objects.insert(true, "tok".into(), KeyedObject::parse(true, r#"{"stringData":{"a":"tok-a"}}"#));
    objects
}

fn facts() -> Facts {
    Facts { machine: Capacity { cpu_nano: 4_000_000_000, memory: 8 << 30 }, ..Facts::default() }
}

/// A pod with this volume, a label `app: x`, and this group.
fn pod(volume: Value, group: Option<u32>) -> Pod {
    let containers = json!([{"name": "c", "image": "i", "resources": {"limits": {"memory": "64Mi"}}}]);
    let mut json = pod_json(json!({"containers": containers, "volumes": [volume], "securityContext": {"fsGroup": group}}));
    json["metadata"]["labels"] = json!({"app": "x", "tier": "\"front\""});
    Pod::parse(&json.to_string()).unwrap()
}

fn made(sources: Value) -> Result<BTreeMap<PathBuf, File>, VolumeError> {
    let pod = pod(json!({"name": "v"}), None);
    let projected: ProjectedVolume = serde_json::from_value(json!({"sources": sources, "defaultMode": 0o600})).unwrap();
    projected_files("v", &projected, &pod, &facts(), &objects())
}

fn texts(files: &BTreeMap<PathBuf, File>) -> Vec<(String, String, u32)> {
    files.iter().map(|(path, file)| (path.display().to_string(), String::from_utf8(file.bytes.clone()).unwrap(), file.mode)).collect()
}

#[test]
fn a_projected_volume_has_all_sources_and_the_later_one_wins() {
    let files = made(json!([
        {"configMap": {"name": "cfg"}},
        {"secret": {"name": "tok", "items": [{"key": "a", "path": "a", "mode": 0o400}]}},
        {"secret": {"name": "none", "optional": true}},
        {"downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "d/memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}},
            {"path": "d/cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}]}},
    ]));
    let want = [
        ("a", "tok-a", 0o400),
        ("b", "cfg-b", 0o600),
        ("d/cpu", "4", 0o600),
        ("d/memory", "64", 0o600),
        ("labels", "app=\"x\"\ntier=\"\\\"front\\\"\"", 0o600),
    ];
    assert_eq!(texts(&files.unwrap()), want.map(|(path, text, mode)| (path.to_owned(), text.to_owned(), mode)));
}

#[test]
fn a_projected_volume_that_cannot_be_is_an_error() {
    let item = |path: &str| json!({"configMap": {"name": "cfg", "items": [{"key": "a", "path": path}]}});
    // One as a file and as a directory, from different sources.
    assert!(matches!(made(json!([item("x"), item("x-y"), item("x/y")])), Err(VolumeError::Path { path, .. }) if path == "x/y"));
    for path in ["../x", "/etc/passwd", "..data", "a\0b", "", "a//b", "a/../../b"] {
        assert!(matches!(made(json!([item(path)])), Err(VolumeError::Path { .. })), "{path:?}");
        let field = json!([{"downwardAPI": {"items": [{"path": path, "fieldRef": {"fieldPath": "metadata.name"}}]}}]);
        assert!(matches!(made(field), Err(VolumeError::Path { .. })), "{path:?}");
    }
    assert!(matches!(made(json!([{"secret": {"name": "none"}}])), Err(VolumeError::Object(LookupError::Missing { .. }))));
    let missing = json!([{"configMap": {"name": "cfg", "items": [{"key": "none", "path": "p"}]}}]);
    assert!(matches!(made(missing), Err(VolumeError::Key { .. })));
}

#[test]
fn a_key_that_is_asked_for_under_many_names_does_not_fill_the_memory() {
    let mut objects = Objects::default();
    objects.insert(false, "cfg".into(), KeyedObject::parse(false, &json!({"data": {"k": "x".repeat((1 << 20) - 1)}}).to_string()));
    let items: Vec<Value> = (0..4096).map(|n| json!({"key": "k", "path": format!("f{n}")})).collect();
    let projected: ProjectedVolume = serde_json::from_value(json!({"sources": [{"configMap": {"name": "cfg", "items": items}}]})).unwrap();
    let refused = projected_files("v", &projected, &pod(json!({"name": "v"}), None), &facts(), &objects).unwrap_err();
    assert_eq!(refused.to_string(), "volume \"v\": its files have more than 64 MiB");
}

#[test]
fn a_path_that_the_kernel_would_not_take_is_refused_before_anything_is_written() {
    let long = |bytes: usize| format!("{}x", "d/".repeat(bytes / 2));
    let item = |path: &str| made(json!([{"configMap": {"name": "cfg", "items": [{"key": "a", "path": path}]}}]));
    assert!(item(&long(3070)).is_ok());
    let refused = item(&long(3072)).unwrap_err();
    assert_eq!(refused.to_string(), format!("volume \"v\": the path `{}…` has more than 3072 bytes", "d/".repeat(32)));
}

/// The directories of a volume that no name of the pod leads to.
fn hidden(volume: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(volume).unwrap().map(|entry| entry.unwrap().path());
    found.filter(|path| path.is_dir() && !path.is_symlink() && path.file_name().unwrap().as_bytes().starts_with(b"..")).collect()
}

#[test]
fn a_volume_that_cannot_be_written_leaves_nothing_behind_and_keeps_what_it_had() {
    let root = tempfile::tempdir().unwrap();
    let volume = |path: &str| {
        let items = json!([{"key": "b", "path": "b"}, {"key": "a", "path": path}]);
        pod(json!({"name": "v", "configMap": {"name": "cfg", "items": items}}), None)
    };
    let short = volume("a");
    // So deep that a path which the checks let pass is one of more than 4096 bytes here.
    let deep = (0..6).fold(root.path().to_owned(), |path, _| path.join("p".repeat(200)));
    let path = source(&deep, &short, &short.spec.volumes[0]).unwrap();
    super::prepare(&deep, &short, &facts(), &objects()).unwrap();
    let before = hidden(&path);
    fs::create_dir(path.join("..left-by-a-power-cut")).unwrap();
    let long = volume(&format!("c/{}x", "d/".repeat(1500)));
    for _ in 0..3 {
        let failed = super::prepare(&deep, &long, &facts(), &objects()).unwrap_err();
        assert!(matches!(failed, VolumeError::Io { .. }), "{failed}");
        assert_eq!(hidden(&path), before);
    }
    assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "cfg-a");
}

#[test]
fn a_downward_volume_follows_its_pod_and_stands_apart_from_other_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let volume = json!({"name": "v", "downwardAPI": {"items": [{"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]}});
    let mut pod = pod(volume, None);
    let path = source(dir.path(), &pod, &pod.spec.volumes[0]).unwrap();
    assert!(path.ends_with("u-1/volumes/kubernetes.io~downward-api/v"));
    super::prepare(dir.path(), &pod, &facts(), &Objects::default()).unwrap();
    assert_eq!(fs::read_to_string(path.join("app")).unwrap(), "x");
    pod.metadata.labels.insert("app".into(), "y".into());
    super::prepare(dir.path(), &pod, &facts(), &Objects::default()).unwrap();
    assert_eq!(fs::read_to_string(path.join("app")).unwrap(), "y");
}

#[test]
fn a_name_that_was_put_over_by_something_else_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(json!({"name": "v", "configMap": {"name": "cfg"}}), None);
    let path = source(dir.path(), &pod, &pod.spec.volumes[0]).unwrap();
    let prepare = || super::prepare(dir.path(), &pod, &facts(), &objects()).unwrap();
    prepare();
    fs::remove_file(path.join("a")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path.join("a")).unwrap();
    fs::remove_file(path.join("b")).unwrap();
    fs::create_dir(path.join("b")).unwrap();
    prepare();
    assert_eq!([fs::read_to_string(path.join("a")).unwrap(), fs::read_to_string(path.join("b")).unwrap()], ["cfg-a", "cfg-b"]);
}

fn mode_and_group(path: &Path) -> (u32, u32) {
    let found = fs::metadata(path).unwrap();
    (found.mode() & 0o7777, found.gid())
}

/// Only root gives files away.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_group_of_the_pods_files_may_read_them_and_write_in_empty_directories() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let prepare = |pod: &Pod| super::prepare(dir.path(), pod, &facts(), &objects()).unwrap();
    let with = pod(json!({"name": "v", "secret": {"secretName": "tok", "defaultMode": 0o600, "items": [{"key": "a", "path": "d/a"}]}}), Some(1234));
    let path = source(dir.path(), &with, &with.spec.volumes[0]).unwrap();
    prepare(&with);
    assert_eq!(mode_and_group(&path.join("d/a")), (0o640, 1234));
    assert_eq!(mode_and_group(&path), (0o2755, 1234));
    assert_eq!(mode_and_group(&path.join("d")), (0o2755, 1234));
    let link = fs::read_link(path.join("..data")).unwrap();
    prepare(&with);
    assert_eq!(fs::read_link(path.join("..data")).unwrap(), link, "nothing differs");
    // A file that lost its group is written again.
    std::os::unix::fs::chown(path.join("d/a"), None, Some(0)).unwrap();
    prepare(&with);
    assert_eq!(mode_and_group(&path.join("d/a")), (0o640, 1234));

    let empty = pod(json!({"name": "e", "emptyDir": {}}), Some(1234));
    let path = source(dir.path(), &empty, &empty.spec.volumes[0]).unwrap();
    prepare(&empty);
    assert_eq!(mode_and_group(&path), (0o2777, 1234));
    // A database makes its directory private; that is left alone.
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    prepare(&empty);
    assert_eq!(mode_and_group(&path).0, 0o700);
}

#[test]
fn volumes_in_memory_are_named_with_their_limits_and_leave_the_disk_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pod = super::pod(json!({"containers": [{"name": "c", "image": "i"}], "volumes": [
        {"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}, {"name": "b", "emptyDir": {"medium": "Memory"}}, {"name": "c", "emptyDir": {}}]}));
    let memory = |bytes, group| Memory { bytes, group };
    assert_eq!(volume::memory(&pod), [("a".to_owned(), memory(Some(64 << 20), None)), ("b".to_owned(), memory(None, None))]);
    let with_group = self::pod(json!({"name": "a", "emptyDir": {"medium": "Memory"}}), Some(7));
    assert_eq!(volume::memory(&with_group), [("a".to_owned(), memory(None, Some(7)))]);
    super::prepare(dir.path(), &pod, &Facts::default(), &Objects::default()).unwrap();
    let found: Vec<_> =
        fs::read_dir(dir.path().join("u-1/volumes/kubernetes.io~empty-dir")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(found, ["c"]);
}

#[test]
fn the_last_words_of_a_container_are_the_end_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let make = |attempt| volume::make_termination_file(dir.path(), "u-1", "c", attempt).unwrap();
    let read = |attempt| volume::read_termination_file(dir.path(), "u-1", "c", attempt);
    let path = make(0);
    assert_eq!(path, volume::termination_file(dir.path(), "u-1", "c", 0));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o666);
    assert_eq!(read(0), None);
    fs::write(&path, "out of paper\n").unwrap();
    assert_eq!(read(0).as_deref(), Some("out of paper\n"));
    fs::write(&path, [b"x".repeat(10_000), "ü".repeat(2048).into_bytes(), b"!".to_vec()].concat()).unwrap();
    // One byte of the first character does not fit.
    assert_eq!(read(0).unwrap(), "ü".repeat(2047) + "!");
    assert!(read(0).unwrap().len() as u64 <= MESSAGE_BYTES_MAX);
    fs::write(&path, b"\xff\xfeend").unwrap();
    assert_eq!(read(0).as_deref(), Some("\u{fffd}\u{fffd}end"));
    // The same attempt begins with an empty file; the one before the last is not kept.
    make(0);
    assert_eq!(read(0), None);
    make(1);
    assert!(path.exists());
    make(2);
    assert!(!path.exists() && read(0).is_none() && volume::termination_file(dir.path(), "u-1", "c", 1).exists());
}

#[test]
fn last_words_are_read_from_a_plain_file_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = volume::make_termination_file(dir.path(), "u-1", "c", 0).unwrap();
    let read = || volume::read_termination_file(dir.path(), "u-1", "c", 0);
    fs::write(dir.path().join("shadow"), "secret").unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(dir.path().join("shadow"), &path).unwrap();
    assert_eq!(read(), None);
    volume::make_termination_file(dir.path(), "u-1", "c", 0).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("shadow")).unwrap(), "secret", "the link is replaced, not written through");
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert_eq!(read(), None);
}
