use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use actor::eventually;
use serde_json::{Value, json};

use super::super::env::Facts;
use super::super::objects::{KeyedObject, Objects};
use super::super::pod::Pod;
use super::super::runtime::{ContainerRuntime, ContainerState, Mount, MountSource, Propagation, testing};
use super::super::volume::{self, Mounted, VolumeError, source};
use super::pod;

/// A pod with one volume `v` and these mounts of it.
fn with(kind: Value, mounts: &[Value]) -> Pod {
    let mounts: Vec<Value> = mounts
        .iter()
        .enumerate()
        .map(|(number, mount)| {
            let mut mount = mount.clone();
            mount["name"] = json!("v");
            mount["mountPath"] = json!(format!("/m{number}"));
            mount
        })
        .collect();
    let mut volume = kind;
    volume["name"] = json!("v");
    pod(json!({"containers": [{"name": "c", "image": "i", "volumeMounts": mounts}], "volumes": [volume]}))
}

fn mounted(pods: &Path, pod: &Pod) -> Result<Mounted, VolumeError> {
    let values = BTreeMap::from([("WHO".to_owned(), "web".to_owned()), ("UP".to_owned(), "..".to_owned()), ("NO".to_owned(), String::new())]);
    volume::mounts(pods, pod, &pod.spec.containers[0], &values)
}

fn paths(mounted: &Mounted) -> Vec<PathBuf> {
    let path = |mount: &Mount| match &mount.source {
        MountSource::Path(path) | MountSource::PathOrDirectory(path) => path.clone(),
        MountSource::Volume(name) => panic!("the volume {name} is no path"),
    };
    mounted.mounts.iter().map(path).collect()
}

/// A prepared emptyDir.
fn empty(pods: &Path, mounts: &[Value]) -> (Pod, PathBuf) {
    let pod = with(json!({"emptyDir": {}}), mounts);
    super::prepare(pods, &pod, &Facts::default(), &Objects::default()).unwrap();
    let root = source(pods, &pod, &pod.spec.volumes[0]).unwrap();
    (pod, root)
}

#[test]
fn mounts_say_where_from_whether_to_write_and_what_spreads() {
    let dir = tempfile::tempdir().unwrap();
    let first = |kind: Value, mount: Value| {
        let pod = with(kind, &[mount]);
        let root = source(dir.path(), &pod, &pod.spec.volumes[0]);
        (mounted(dir.path(), &pod).unwrap().mounts.into_iter().next().unwrap(), root)
    };
    let (host, _) = first(json!({"hostPath": {"path": "/srv"}}), json!({"mountPropagation": "Bidirectional"}));
    let want = Mount {
        source: MountSource::PathOrDirectory("/srv".into()),
        target: "/m0".into(),
        read_only: false,
        propagation: Propagation::Bidirectional,
    };
    assert_eq!(host, want);
    for (word, want) in [("", Propagation::Private), ("None", Propagation::Private), ("HostToContainer", Propagation::HostToContainer)] {
        assert_eq!(first(json!({"emptyDir": {}}), json!({"mountPropagation": word})).0.propagation, want, "{word}");
    }
    for kind in [json!({"configMap": {"name": "x"}}), json!({"secret": {"secretName": "x"}}), json!({"downwardAPI": {}}), json!({"projected": {}})] {
        let (mount, root) = first(kind.clone(), json!({}));
        assert!(mount.read_only && mount.source == MountSource::Path(root.unwrap()), "{kind}");
    }
    assert!(first(json!({"emptyDir": {}}), json!({"readOnly": true})).0.read_only);
    assert!(!first(json!({"emptyDir": {}}), json!({})).0.read_only);
    let (memory, root) = first(json!({"emptyDir": {"medium": "Memory"}}), json!({}));
    assert_eq!((memory.source, root), (MountSource::Volume("skep_u-1_v".into()), None));
}

#[test]
fn a_sub_path_is_made_with_the_mode_of_its_volume() {
    let dir = tempfile::tempdir().unwrap();
    let (pod, root) = empty(dir.path(), &[json!({"subPath": "a/b"}), json!({"subPathExpr": "logs/$(WHO)"}), json!({"subPath": "./a//b/"})]);
    let found = mounted(dir.path(), &pod).unwrap();
    assert_eq!(paths(&found), [root.join("a/b"), root.join("logs/web"), root.join("a/b")]);
    assert_eq!(fs::metadata(root.join("a")).unwrap().mode() & 0o777, 0o777);
    fs::write(root.join("a/b/file"), "x").unwrap();
    let (pod, _) = empty(dir.path(), &[json!({"subPath": "a/b/file"})]);
    assert_eq!(paths(&mounted(dir.path(), &pod).unwrap()), [root.join("a/b/file")]);
}

#[test]
fn a_sub_path_never_leaves_its_volume() {
    let dir = tempfile::tempdir().unwrap();
    let (_, root) = empty(dir.path(), &[]);
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("file"), "x").unwrap();
    symlink(&outside, root.join("out")).unwrap();
    symlink("../../../..", root.join("up")).unwrap();
    symlink("dir", root.join("in")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("nowhere", root.join("broken")).unwrap();
    for path in
        ["out", "out/x", "up", "up/x", "in", "in/x", "magic", "magic/etc", "broken", "broken/x", "file/x", "..", "../x", "a/../../x", "/etc", "a\0b"]
    {
        for field in ["subPath", "subPathExpr"] {
            let (pod, _) = empty(dir.path(), &[json!({field: path})]);
            let refused = mounted(dir.path(), &pod).unwrap_err();
            assert!(matches!(refused, VolumeError::SubPath { .. }), "{path}: {refused}");
        }
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made through a link");
    assert_eq!(fs::read_dir(root.join("dir")).unwrap().count(), 0);
}

#[test]
fn an_expression_is_checked_after_its_variables_are_in() {
    let dir = tempfile::tempdir().unwrap();
    for (given, want) in [
        ("$(UP)/etc", "volume \"v\": subPath `../etc` must not contain '..'"),
        ("/$(WHO)", "volume \"v\": subPath `/web` must not be an absolute path"),
        ("$(NO)", "volume \"v\": subPath `` is empty: leave it out to mount the whole volume"),
        ("$(NONE)/x", "volume \"v\": subPathExpr `$(NONE)/x`: missing value for \"NONE\""),
    ] {
        let (pod, _) = empty(dir.path(), &[json!({"subPathExpr": given})]);
        assert_eq!(mounted(dir.path(), &pod).unwrap_err().to_string(), want);
    }
    let (pod, root) = empty(dir.path(), &[json!({"subPathExpr": "$$(WHO)"})]);
    assert_eq!(paths(&mounted(dir.path(), &pod).unwrap()), [root.join("$(WHO)")]);
}

#[test]
fn a_directory_that_is_exchanged_for_a_link_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (pod, root) = empty(dir.path(), &[json!({"subPath": "a/b"})]);
    let found = mounted(dir.path(), &pod).unwrap();
    assert!(found.is_unchanged());
    fs::rename(root.join("a"), root.join("kept")).unwrap();
    assert!(!found.is_unchanged());
    symlink("kept", root.join("a")).unwrap();
    assert!(!found.is_unchanged(), "a link that leads to the same directory is one that may lead elsewhere next");
    fs::remove_file(root.join("a")).unwrap();
    fs::create_dir_all(root.join("a/b")).unwrap();
    assert!(!found.is_unchanged());
}

#[test]
fn a_race_with_a_container_that_exchanges_directories_for_links_is_never_lost_by_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let (pod, root) = empty(dir.path(), &[json!({"subPath": "a/made"})]);
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(root.join("real")).unwrap();
    symlink(&outside, root.join("link")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for name in ["real", "link"] {
                    let _ = fs::rename(root.join(name), root.join("a"));
                    let _ = fs::rename(root.join("a"), root.join(name));
                }
            }
        });
        for _ in 0..2000 {
            // Found, made, or refused: all the same, as long as it is inside.
            let _ = mounted(dir.path(), &pod);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_sub_path_of_files_goes_through_our_own_links_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut objects = Objects::default();
    objects.insert(false, "cfg".into(), KeyedObject::parse(false, r#"{"data":{"a":"1"}}"#));
    let config = |path: &str| {
        with(json!({"configMap": {"name": "cfg", "items": [{"key": "a", "path": "d/a"}, {"key": "a", "path": "top"}]}}), &[json!({"subPath": path})])
    };
    let pod = config("d/a");
    super::prepare(dir.path(), &pod, &Facts::default(), &objects).unwrap();
    let root = source(dir.path(), &pod, &pod.spec.volumes[0]).unwrap();
    let current = root.join(fs::read_link(root.join("..data")).unwrap());
    for path in ["d/a", "d", "top"] {
        let found = mounted(dir.path(), &config(path)).unwrap();
        assert_eq!(paths(&found), [current.join(path)]);
        assert!(found.mounts[0].read_only && found.is_unchanged());
    }
    for path in ["none", "d/none", "..data/top"] {
        let refused = mounted(dir.path(), &config(path)).unwrap_err();
        assert!(refused.to_string().ends_with("does not exist in it"), "{path}: {refused}");
    }
    assert!(!current.join("none").exists());
    fs::remove_file(root.join("..data")).unwrap();
    symlink("/etc", root.join("..data")).unwrap();
    let damaged = mounted(dir.path(), &config("passwd")).unwrap_err();
    assert!(damaged.to_string().ends_with("files are damaged"), "{damaged}");
}

/// The end of the chain: what the engine mounts is what was found.
#[actix_rt::test]
async fn the_engine_mounts_a_part_of_a_volume_and_a_single_file() {
    let Some(engine) = testing::engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (pod, root) = empty(dir.path(), &[json!({"subPath": "a/b"}), json!({"subPath": "f", "readOnly": true})]);
    fs::write(root.join("f"), "words").unwrap();
    let found = mounted(dir.path(), &pod).unwrap();
    let script = "cat /m1 > /m0/copy; echo no > /m1 || echo refused >> /m0/copy";
    let mut spec = engine.spec("u-1", &["sh", "-c", script]);
    spec.mounts.clone_from(&found.mounts);
    let id = engine.runtime.create(&spec).await.unwrap();
    engine.runtime.start(&id).await.unwrap();
    assert!(found.is_unchanged());
    let soon = std::time::Duration::from_secs(20);
    eventually!(soon, matches!(engine.runtime.inspect(&id).await.unwrap().unwrap().state, ContainerState::Exited(_)));
    assert_eq!(fs::read_to_string(root.join("a/b/copy")).unwrap(), "wordsrefused\n");
    assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "words");
}
