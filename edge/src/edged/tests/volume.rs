use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::env::Facts;
use super::super::objects::{KeyedObject, LookupError, OBJECT_BYTES_MAX, ObjectError, Objects};
use super::super::observed::Trouble;
use super::super::pod::{KeyToPath, KeyedVolume, Pod};
use super::super::volume::{self, VolumeError, keyed_files as files, remove, source};
use super::{at, pod};

fn prepare(pods: &Path, pod: &Pod, objects: &Objects) -> Result<(), VolumeError> {
    super::prepare(pods, pod, &Facts::default(), objects)
}

fn objects(data: serde_json::Value) -> Objects {
    let mut objects = Objects::default();
    objects.insert(false, "cfg".into(), KeyedObject::parse(false, &json!({"data": data}).to_string()));
    objects
}

fn with_config_map() -> Pod {
    pod(json!({"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "configMap": {"name": "cfg"}}]}))
}

fn path(pods: &Path, pod: &Pod) -> PathBuf {
    source(pods, pod, &pod.spec.volumes[0]).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| !name.starts_with("..")).collect();
    names.sort();
    names
}

#[test]
fn a_config_map_becomes_files_and_a_change_swaps_them_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pod = with_config_map();
    let volume = path(dir.path(), &pod);
    prepare(dir.path(), &pod, &objects(json!({"a": "1", "b": "2"}))).unwrap();
    assert_eq!(names(&volume), ["a", "b"]);
    assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
    assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o644);
    let before = fs::read_link(volume.join("..data")).unwrap();
    prepare(dir.path(), &pod, &objects(json!({"a": "1", "b": "2"}))).unwrap();
    assert_eq!(fs::read_link(volume.join("..data")).unwrap(), before, "an unchanged object must not be written again");

    prepare(dir.path(), &pod, &objects(json!({"a": "one", "c": "3"}))).unwrap();
    assert_eq!(names(&volume), ["a", "c"]);
    assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "one");
    assert!(!volume.join(before).exists(), "what was replaced is removed");
    // Names are links through `..data`: one rename changes them all.
    assert_eq!(fs::read_link(volume.join("a")).unwrap(), Path::new("..data/a"));
    // Damage is repaired.
    fs::write(volume.join("a"), "tampered").unwrap();
    prepare(dir.path(), &pod, &objects(json!({"a": "one", "c": "3"}))).unwrap();
    assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "one");

    remove(dir.path(), "u-1").unwrap();
    assert!(!dir.path().join("u-1").exists());
    remove(dir.path(), "u-1").unwrap();
}

#[test]
fn items_choose_keys_paths_and_modes() {
    let dir = tempfile::tempdir().unwrap();
    let volume = json!({"name": "v", "configMap": {"name": "cfg", "defaultMode": 0o400, "items": [{"key": "a", "path": "deep/er/a.txt"}, {"key": "b", "path": "b", "mode": 0o755}]}});
    let pod = pod(json!({"containers": [{"name": "c", "image": "i"}], "volumes": [volume]}));
    prepare(dir.path(), &pod, &objects(json!({"a": "1", "b": "2", "c": "3"}))).unwrap();
    let volume = path(dir.path(), &pod);
    assert_eq!(names(&volume), ["b", "deep"]);
    let mode = |name: &str| fs::metadata(volume.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("deep/er/a.txt"), mode("b")), (0o400, 0o755));
}

#[test]
fn hostile_keys_and_paths_are_refused() {
    let object = |key: &str| KeyedObject { data: [(key.to_owned(), b"x".to_vec())].into_iter().collect(), ..KeyedObject::default() };
    for key in ["../x", "..", ".", "..data", "..2024", "a/b", "/etc/passwd", "", "a\0b", "a/../../b", "a//b", "./a", "a/."] {
        let all = files("v", &KeyedVolume::default(), Some(&object(key)));
        assert!(matches!(all, Err(VolumeError::Path { .. })), "key {key:?}");
        if key != "a/b" {
            let item = KeyToPath { key: "k".into(), path: key.into(), mode: None };
            let one = files("v", &KeyedVolume { items: vec![item], ..KeyedVolume::default() }, Some(&object("k")));
            assert!(matches!(one, Err(VolumeError::Path { .. })), "path {key:?}");
        }
    }
    let long = "k".repeat(254);
    assert!(files("v", &KeyedVolume::default(), Some(&object(&long))).is_err());
    let clash = ["a", "a/b"].map(|path| KeyToPath { key: "k".into(), path: path.into(), mode: None }).to_vec();
    assert!(files("v", &KeyedVolume { items: clash, ..KeyedVolume::default() }, Some(&object("k"))).is_err());
    let missing = KeyedVolume { items: vec![KeyToPath { key: "none".into(), path: "p".into(), mode: None }], ..KeyedVolume::default() };
    assert!(matches!(files("v", &missing, Some(&object("k"))), Err(VolumeError::Key { .. })));
}

#[test]
fn a_missing_object_is_named_and_an_optional_one_is_an_empty_volume() {
    let dir = tempfile::tempdir().unwrap();
    let pod = with_config_map();
    let missing = prepare(dir.path(), &pod, &Objects::default()).unwrap_err();
    assert!(matches!(missing, VolumeError::Object(LookupError::Missing { .. })));
    assert_eq!(missing.to_string(), "configmap \"cfg\" not found");
    let optional =
        super::pod(json!({"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "secret": {"secretName": "s", "optional": true}}]}));
    prepare(dir.path(), &optional, &Objects::default()).unwrap();
    assert!(names(&path(dir.path(), &optional)).is_empty());
}

/// A pod with files from the key `k` of `a` and of `b`.
fn with_two() -> Pod {
    let volume = |name: &str| json!({"name": name, "configMap": {"name": name, "items": [{"key": "k", "path": "f"}]}});
    pod(json!({"containers": [{"name": "c", "image": "i"}], "volumes": [volume("a"), volume("b")]}))
}

/// Config maps of these names with this JSON.
fn config_maps(all: &[(&str, serde_json::Value)]) -> Objects {
    let mut objects = Objects::default();
    for (name, data) in all {
        objects.insert(false, (*name).to_owned(), KeyedObject::parse(false, &json!({"data": data}).to_string()));
    }
    objects
}

/// What an event says of each volume that fails, and whether it has its old files.
fn failed(pods: &Path, pod: &Pod, objects: &Objects) -> Vec<(String, bool)> {
    let failed = volume::prepare(pods, pod, &Facts::default(), objects);
    failed.iter().map(|one| (one.words(), one.has_old_files)).collect()
}

#[test]
fn a_volume_that_fails_keeps_its_files_and_the_others_are_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let pod = with_two();
    let read = |number: usize| fs::read_to_string(source(dir.path(), &pod, &pod.spec.volumes[number]).unwrap().join("f")).unwrap();
    let said = |why: &str, has_old_files| vec![(format!("MountVolume.SetUp failed for volume \"a\" : {why}"), has_old_files)];
    // Not there from the beginning: the other one is made all the same.
    assert_eq!(failed(dir.path(), &pod, &config_maps(&[("b", json!({"k": "0"}))])), said("configmap \"a\" not found", false));
    assert_eq!(read(1), "0");
    assert_eq!(failed(dir.path(), &pod, &config_maps(&[("a", json!({"k": "1"})), ("b", json!({"k": "1"}))])), []);
    for (b, a, why) in [
        ("2", None, "configmap \"a\" not found"),
        ("3", Some(json!({"other": "x"})), "references non-existent config key: k"),
        ("4", Some(json!(["no", "map"])), "configmap \"a\": the stored object cannot be read: line 1 column 8"),
    ] {
        let objects: Vec<_> = a.map(|a| ("a", a)).into_iter().chain([("b", json!({"k": b}))]).collect();
        assert_eq!(failed(dir.path(), &pod, &config_maps(&objects)), said(why, true));
        assert_eq!((read(0).as_str(), read(1).as_str()), ("1", b));
    }
    assert_eq!(failed(dir.path(), &pod, &config_maps(&[("a", json!({"k": "5"})), ("b", json!({"k": "5"}))])), []);
    assert_eq!((read(0), read(1)), ("5".into(), "5".into()));
}

#[test]
fn a_volume_that_fails_as_before_is_told_again_only_after_a_pause_that_doubles() {
    let first = Trouble::after(None, "FailedMount", "no".into(), at(0));
    assert!(first.is_known("no", at(0)) && first.is_known("no", at(9)));
    assert!(!first.is_known("no", at(10)) && !first.is_known("something else", at(0)));
    let second = Trouble::after(Some(&first), "FailedMount", "no".into(), at(10));
    assert!(second.is_known("no", at(29)) && !second.is_known("no", at(30)));
}

#[test]
fn files_are_old_files_only_when_all_of_them_were_made() {
    let dir = tempfile::tempdir().unwrap();
    let pod = with_two();
    let (both, only_b) = (config_maps(&[("a", json!({"k": "1"})), ("b", json!({"k": "1"}))]), config_maps(&[("b", json!({"k": "1"}))]));
    let volume = path(dir.path(), &pod);
    let data = volume.join("..data");
    let has_old_files = || failed(dir.path(), &pod, &only_b)[0].1;
    let link_to = |target: &Path| {
        let _ = fs::remove_file(&data);
        std::os::unix::fs::symlink(target, &data).unwrap();
    };
    // Killed before the link was set.
    fs::create_dir_all(volume.join("..0123")).unwrap();
    fs::write(volume.join("..0123/f"), "half").unwrap();
    assert!(!has_old_files());
    let prepared = || {
        prepare(dir.path(), &pod, &both).unwrap();
        assert!(has_old_files());
        volume.join(fs::read_link(&data).unwrap())
    };
    // Killed before the names were there, or one of them leads elsewhere.
    prepared();
    fs::remove_file(volume.join("f")).unwrap();
    assert!(!has_old_files());
    std::os::unix::fs::symlink("/etc/passwd", volume.join("f")).unwrap();
    assert!(!has_old_files());
    // The directory is gone, or is none, or is not one of ours.
    let current = prepared();
    fs::remove_dir_all(&current).unwrap();
    assert!(!has_old_files());
    fs::write(&current, "a file").unwrap();
    assert!(!has_old_files());
    fs::remove_file(&current).unwrap();
    let current = prepared();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "x").unwrap();
    for target in [outside.as_path(), Path::new(".."), Path::new("../b"), Path::new("f")] {
        link_to(target);
        assert!(!has_old_files(), "{}", target.display());
    }
    link_to(Path::new(current.file_name().unwrap()));
    assert!(has_old_files());
    fs::rename(&current, dir.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(&outside, &current).unwrap();
    assert!(!has_old_files());
    prepared();
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "x");
}

#[test]
fn a_path_of_the_machine_that_is_not_as_demanded_is_never_old_files() {
    let dir = tempfile::tempdir().unwrap();
    let (pods, host) = (dir.path().join("pods"), dir.path().join("host"));
    // A directory that looks like a volume of files.
    fs::create_dir_all(host.join("..1")).unwrap();
    std::os::unix::fs::symlink("..1", host.join("..data")).unwrap();
    let volumes = json!([{"name": "h", "hostPath": {"path": host, "type": "File"}}, {"name": "cfg", "configMap": {"name": "cfg"}}]);
    let pod = pod(json!({"containers": [{"name": "c", "image": "i"}], "volumes": volumes}));
    let words = format!("MountVolume.SetUp failed for volume \"h\" : hostPath type check failed: {} is not a file", host.display());
    assert_eq!(failed(&pods, &pod, &objects(json!({"a": "1"}))), [(words, false)]);
    assert!(source(&pods, &pod, &pod.spec.volumes[1]).unwrap().join("a").exists());
}

#[test]
fn objects_are_decoded_and_bounded_and_errors_never_show_a_value() {
    let secret = KeyedObject::parse(true, r#"{"data":{"p":"c2Vj\ncmV0"},"stringData":{"q":"plain"}}"#).unwrap();
    assert_eq!((secret.data["p"].as_slice(), secret.data["q"].as_slice()), (b"secret".as_slice(), b"plain".as_slice()));
    let binary = KeyedObject::parse(false, r#"{"data":{"a":"1"},"binaryData":{"b":"/w=="}}"#).unwrap();
    assert_eq!((binary.data["a"].as_slice(), binary.data["b"].as_slice()), (b"1".as_slice(), [0xff].as_slice()));
    assert_eq!(files("v", &KeyedVolume::default(), Some(&binary)).unwrap().len(), 2, "files are made of both");
    assert_eq!(KeyedObject::parse(true, r#"{"data":{"p":"s3cret!"}}"#), Err(ObjectError::Base64("p".into())));
    let wrong = KeyedObject::parse(true, r#"{"data":{"p":["hunter2"]}}"#).unwrap_err();
    assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
    let huge = json!({"data": {"a": "x".repeat(OBJECT_BYTES_MAX)}}).to_string();
    assert_eq!(KeyedObject::parse(false, &huge), Err(ObjectError::TooLarge(OBJECT_BYTES_MAX + 1)));
}

#[test]
fn an_empty_dir_lives_as_long_as_the_pod_and_host_paths_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join("host");
    let make = |kind: &str, path: &Path| {
        pod(
            json!({"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "h", "hostPath": {"path": path, "type": kind}}, {"name": "e", "emptyDir": {}}]}),
        )
    };
    let none = Objects::default();
    let pods = dir.path().join("pods");
    for (kind, words) in [
        ("Directory", "a directory"),
        ("File", "a file"),
        ("Socket", "a socket file"),
        ("CharDevice", "a character device"),
        ("BlockDevice", "a block device"),
    ] {
        let refused = prepare(&pods, &make(kind, &host), &none).unwrap_err();
        assert_eq!(refused.to_string(), format!("hostPath type check failed: {} is not {words}", host.display()));
    }
    assert!(!host.exists());
    prepare(&pods, &make("DirectoryOrCreate", &host), &none).unwrap();
    prepare(&pods, &make("Directory", &host), &none).unwrap();
    prepare(&pods, &make("CharDevice", Path::new("/dev/null")), &none).unwrap();
    let file = dir.path().join("file");
    assert!(matches!(prepare(&pods, &make("File", &file), &none), Err(VolumeError::HostPath { .. })));
    prepare(&pods, &make("FileOrCreate", &file), &none).unwrap();
    fs::write(&file, "kept").unwrap();
    for kind in ["File", "FileOrCreate", ""] {
        prepare(&pods, &make(kind, &file), &none).unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    assert!(matches!(prepare(&pods, &make("DirectoryOrCreate", &file), &none), Err(VolumeError::HostPath { .. })));
    // Without a type a missing directory is made; below a file nothing can be, which is the engine's to say.
    let implied = dir.path().join("deep/er");
    prepare(&pods, &make("", &implied), &none).unwrap();
    assert!(implied.is_dir());
    prepare(&pods, &make("", &file.join("x")), &none).unwrap();
    let below = prepare(&pods, &make("DirectoryOrCreate", &file.join("x")), &none).unwrap_err();
    assert!(matches!(below, VolumeError::MakeHostPath { .. }), "{below}");
    let pod = make("", &host);
    let empty = source(&pods, &pod, &pod.spec.volumes[1]).unwrap();
    assert_eq!(fs::metadata(&empty).unwrap().permissions().mode() & 0o777, 0o777);
    fs::write(empty.join("kept"), "x").unwrap();
    prepare(&pods, &pod, &none).unwrap();
    assert!(empty.join("kept").exists());
    assert_eq!(fs::metadata(pods.join("u-1")).unwrap().permissions().mode() & 0o777, 0o750);
    fs::write(host.join("survives"), "x").unwrap();
    remove(&pods, "u-1").unwrap();
    assert!(host.join("survives").exists() && !empty.exists());
}

#[test]
fn the_empty_dirs_of_a_pod_that_is_over_go_and_its_other_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = json!([{"name": "cache", "emptyDir": {}}, {"name": "cfg", "configMap": {"name": "cfg"}}]);
    let pod = pod(json!({"containers": [{"name": "c", "image": "i"}], "volumes": volumes}));
    volume::remove_empty_dirs(dir.path(), "u-1").unwrap();
    prepare(dir.path(), &pod, &objects(json!({"a": "1"}))).unwrap();
    let [cache, cfg] = [0, 1].map(|n| source(dir.path(), &pod, &pod.spec.volumes[n]).unwrap());
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, cache.join("link")).unwrap();
    fs::write(cache.join("fat"), "x").unwrap();
    for _ in 0..2 {
        volume::remove_empty_dirs(dir.path(), "u-1").unwrap();
        assert!(!cache.exists() && cfg.join("a").exists() && outside.exists());
    }
    fs::create_dir_all(dir.path().join("volumes/kubernetes.io~empty-dir")).unwrap();
    volume::remove_empty_dirs(dir.path(), ".").unwrap();
    assert!(dir.path().join("volumes/kubernetes.io~empty-dir").exists());
}

#[test]
fn what_is_mounted_in_a_directory_is_found_by_the_kernels_list() {
    let list = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        36 22 0:33 / /var/pods/u-1/volumes/v\\040x/m rw - tmpfs none rw\n\
        37 22 8:1 /home /var/pods/u-2 rw - ext4 /dev/sda1 rw\n";
    let has = |directory: &str| volume::has_mounts(list, Path::new(directory));
    assert!(has("/var/pods/u-1") && has("/var/pods/u-1/volumes/v x") && has("/var/pods/u-2"));
    assert!(!has("/var/pods/u-1/volumes/v") && !has("/var/pods/u-2/volumes") && !has("/var/pods/u") && !has("/var/pods/u-3"));
    assert!(!volume::has_mounts(b"", Path::new("/")));
}

#[test]
fn a_uid_that_is_a_path_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pods = dir.path().join("pods");
    fs::create_dir_all(&pods).unwrap();
    fs::write(dir.path().join("precious"), "x").unwrap();
    for uid in ["..", "../", "", ".", "/"] {
        remove(&pods, uid).unwrap();
    }
    assert!(dir.path().join("precious").exists() && pods.exists());
}
