//! Pods that are refused or fail, many at once: no other pod notices, and nothing of them is left.

use std::collections::BTreeSet;
use std::net::TcpListener;

use harness::{docker, eventually, names};
use serde_json::{Value, json};

use super::{FOREVER, IMAGE, Site, pod_name, shell, shell_with};

/// Of each kind of bad pod so many.
const EACH: usize = 3;

/// A bad pod's containers, the rest of its spec, and a word of the status that it comes to.
type Bad = (&'static str, Value, Value, &'static str);

/// Ten ways to be bad. `port` is one that somebody has.
fn bad(port: u16) -> Vec<Bad> {
    let memory = json!([{"name": "v", "emptyDir": {"medium": "Memory"}}]);
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let with = |script: &str, more: Value| json!([shell_with("c", script, more)]);
    let plain = || json!([shell("c", FOREVER)]);
    let mounted = |volume: Value| (with(FOREVER, mounts.clone()), json!({"volumes": [volume]}));
    let (nfs, nfs_spec) = mounted(json!({"name": "v", "nfs": {"server": "192.0.2.1", "path": "/"}}));
    let (map, map_spec) = mounted(json!({"name": "v", "configMap": {"name": "there-is-none"}}));
    let (path, path_spec) = mounted(json!({"name": "v", "hostPath": {"path": "/etc/hostname", "type": "Directory"}}));
    let escape = with(FOREVER, json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "../../../etc"}]}));
    vec![
        ("nfs", nfs, nfs_spec, "Unsupported"),
        ("escape", escape, json!({"volumes": [{"name": "v", "emptyDir": {}}]}), "subPath"),
        ("image", with(FOREVER, json!({"image": "skep.test/none:none"})), json!({}), "ErrImageNeverPull"),
        ("program", with("", merged(&mounts, json!({"command": ["/no/such/program"]}))), json!({"volumes": memory}), "RunContainerError"),
        ("falls", with("echo no > /v/file; exit 1", mounts.clone()), json!({"volumes": memory}), "CrashLoopBackOff"),
        ("port", with(FOREVER, json!({"ports": [{"containerPort": 80, "hostPort": port}]})), json!({}), "is taken"),
        ("map", map, map_spec, "there-is-none"),
        ("init", plain(), json!({"initContainers": [shell("i", "exit 1")], "restartPolicy": "Never"}), "Failed"),
        ("path", path, path_spec, "hostPath"),
        ("sysctl", plain(), json!({"securityContext": {"sysctls": [{"name": "kernel.panic", "value": "1"}]}}), "sysctls"),
    ]
}

fn merged(one: &Value, other: Value) -> Value {
    let mut all = one.clone();
    super::merge(&mut all, other);
    all
}

/// Open files of a process.
fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// What this edge has at the engine and on the disk.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    containers: BTreeSet<String>,
    volumes: Vec<String>,
    networks: BTreeSet<String>,
    directories: BTreeSet<String>,
}

impl Left {
    fn look(site: &Site) -> Result<Self, String> {
        let directories = std::fs::read_dir(site.edge.file("pods")).map_err(|error| error.to_string())?;
        Ok(Self {
            containers: docker::containers(&site.edge.node, None)?.into_iter().collect(),
            volumes: docker::volumes(&site.edge.node)?,
            networks: docker::docker(&["network", "ls", "--quiet"])?.split_whitespace().map(str::to_owned).collect(),
            directories: directories.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
        })
    }
}

/// Names of all volumes that containers of this node use, whoever made them.
fn used_volumes(site: &Site) -> BTreeSet<String> {
    let ids = docker::containers(&site.edge.node, None).unwrap();
    let mounts = ids.iter().filter_map(|id| docker::inspect(id).ok()).flat_map(|one| one["Mounts"].as_array().cloned().unwrap_or_default());
    mounts.filter(|mount| mount["Type"] == "volume").filter_map(|mount| mount["Name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn thirty_pods_that_cannot_run_leave_nothing_behind_and_the_good_one_alone() {
    let Some(mut site) = Site::start() else { return };
    let good = pod_name("good");
    site.apply(&site.pod(&good, &json!([shell("c", FOREVER)]), json!({})));
    eventually!(60, "the good pod is Ready", site.is_ready(&good));
    let pid = site.edge.daemon().pid();
    let (before, running, files) = (Left::look(&site).unwrap(), site.made(&good).unwrap().running().unwrap(), open_files(pid));

    let port = names::port();
    let taken = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let mut pods = Vec::new();
    for (kind, containers, more, word) in bad(port) {
        for _ in 0..EACH {
            let name = pod_name(kind);
            site.apply(&site.pod(&name, &containers, more.clone()));
            pods.push((name, word));
        }
    }
    for (pod, word) in &pods {
        eventually!(90, &format!("{pod} says {word}"), {
            let status = site.status(pod)?.to_string();
            if status.contains(word) { Ok(()) } else { Err(status) }
        });
    }
    assert_eq!(site.made(&good).unwrap().running().unwrap(), running, "the good pod is left alone");
    let volumes = used_volumes(&site);
    assert!(volumes.len() >= 2 * EACH, "those with memory have volumes: {volumes:?}");

    site.delete(&pods.iter().map(|(pod, _)| pod.as_str()).collect::<Vec<_>>());
    for (pod, _) in &pods {
        eventually!(90, "it is gone", site.kubectl.is_gone("pod", pod));
    }
    eventually!(60, "nothing is left of them", {
        let left = Left::look(&site)?;
        if left == before { Ok(()) } else { Err(format!("{left:?}, before {before:?}")) }
    });
    let all = docker::docker(&["volume", "ls", "--quiet"]).unwrap();
    assert!(all.split_whitespace().all(|name| !volumes.contains(name)), "volumes of {volumes:?} are left in {all}");
    // Idle connections to the engine are closed after a time.
    eventually!(120, "no file is left open", {
        let now = open_files(pid);
        // Fewer than one for each pod of a kind: what is opened once, such as another reader of the store.
        if now < files + EACH { Ok(()) } else { Err(format!("{now}, before {files}")) }
    });
    assert_eq!(site.made(&good).unwrap().running().unwrap(), running, "the good pod is left alone");
    site.is_ready(&good).unwrap();
    let status = site.container_status(&good, "c").unwrap();
    assert_eq!((&status["restartCount"], &status["image"]), (&json!(0), &json!(IMAGE)), "{status}");
    drop(taken);
}
