//! The person at the machine while the cloud is away: pods from files, and what `skep-edge` and the read-only port show.

use std::path::Path;
use std::process::Command;

use harness::{EdgeUnderTest, eventually, http};
use serde_json::{Value, json};

use super::{FOREVER, Made, Site, pod_name, shell};

/// What `curl` gets from the read-only port.
fn read(site: &Site, path: &str) -> Result<String, String> {
    let url = format!("http://127.0.0.1:{}{path}", site.edge.pods_port);
    let output = Command::new("curl").args(["--silent", "--show-error", "--fail", "--max-time", "30", &url]).output();
    let output = output.map_err(|error| format!("cannot start curl: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn pods_logs_and_exec_work_while_the_cloud_is_away() {
    let Some(mut site) = Site::start() else { return };
    let name = pod_name("pod");
    let talks = "echo first; echo second; echo third >&2; trap 'exit 0' TERM; sleep 100000 & wait";
    site.apply(&site.pod(&name, &json!([shell("talks", talks), shell("quiet", FOREVER)]), json!({})));
    eventually!(60, "the pod is Ready", site.is_ready(&name));
    site.cloud.stop();

    let pods = site.edge.command(&["pods"]);
    let line = pods.output.lines().find(|line| line.contains(&name)).unwrap_or_default();
    assert!(pods.code == Some(0) && line.contains("2/2") && line.contains("Running"), "{pods:?}");
    let pods = site.edge.command(&["pods", "--output", "json"]);
    let list: Value = serde_json::from_str(&pods.output).unwrap();
    assert_eq!((&list["kind"], &list["items"][0]["metadata"]["name"]), (&json!("PodList"), &json!(name)));

    eventually!(10, "its log is what it wrote", {
        let logs = site.edge.command(&["logs", &name, "-c", "talks"]);
        let mut said: Vec<&str> = logs.output.lines().collect();
        said.sort_unstable();
        if logs.code == Some(0) && said == ["first", "second", "third"] { Ok(()) } else { Err(format!("{logs:?}")) }
    });
    let logs = site.edge.command(&["logs", &name, "-c", "nobody"]);
    assert!(logs.code == Some(69) && logs.output.contains("nobody"), "{logs:?}");

    let exec = |command: &[&str]| site.edge.command(&[&["exec", &name, "-c", "talks", "--"], command].concat());
    let end = exec(&["/bin/sh", "-c", "echo here; exit 7"]);
    assert_eq!((end.code, end.output.trim()), (Some(7), "here"));
    assert_eq!(exec(&["/bin/true"]).code, Some(0));
    let first = site.edge.command(&["exec", &name, "--", "/bin/sh", "-c", "echo here"]);
    assert!(first.code == Some(0) && first.output.contains("here") && first.output.contains("container talks of quiet, talks"), "{first:?}");
}

#[test]
fn the_read_only_port_tells_figures_and_logs_while_the_cloud_is_away() {
    let Some(mut site) = Site::start() else { return };
    let name = pod_name("pod");
    site.apply(&site.pod(&name, &json!([shell("c", &format!("echo hello; {FOREVER}"))]), json!({})));
    eventually!(60, "the pod is Ready", site.is_ready(&name));
    site.cloud.stop();

    let summary: Value = serde_json::from_str(&read(&site, "/stats/summary").unwrap()).unwrap();
    assert_eq!(summary["node"]["nodeName"], site.edge.node.as_str(), "{summary}");
    assert!(summary["node"]["memory"]["workingSetBytes"].as_u64() > Some(0), "{summary}");
    let pod = &summary["pods"][0];
    assert_eq!((&pod["podRef"]["name"], &pod["podRef"]["namespace"]), (&json!(name), &json!("default")), "{summary}");
    assert_eq!((&pod["containers"][0]["name"], pod["containers"].as_array().map(Vec::len)), (&json!("c"), Some(1)), "{summary}");
    assert!(pod["containers"][0]["memory"]["usageBytes"].as_u64() > Some(0), "{summary}");

    eventually!(10, "its log is what it wrote", {
        let log = read(&site, &format!("/containerLogs/default/{name}/c"))?;
        if log == "hello\n" { Ok(()) } else { Err(log) }
    });
    let missing = http::get(site.edge.pods_port, &format!("/containerLogs/default/{name}/other")).unwrap();
    assert_eq!(missing.0, 404, "{missing:?}");
    let stranger = http::get(site.edge.pods_port, "/containerLogs/kube-system/nobody/c").unwrap();
    assert_eq!(stranger.0, 404, "{stranger:?}");
}

/// Writes a pod into the directory as an editor does: under another name first.
fn write(directory: &Path, name: &str, word: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [shell("c", &format!("echo {word}; {FOREVER}"))]},
    });
    std::fs::write(directory.join(".new"), pod.to_string()).unwrap();
    std::fs::rename(directory.join(".new"), directory.join("pod.yaml")).unwrap();
}

/// The only pod of the machine says that word.
fn says(edge: &EdgeUnderTest, pod: &str, word: &str) -> Result<(), String> {
    let said = edge.command(&["logs", pod, "-c", "c"]).output;
    if said.trim() == word { Ok(()) } else { Err(said) }
}

#[test]
fn a_pod_from_a_file_runs_without_a_cloud_follows_its_file_and_outlives_the_edge() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    let Some(mut site) = Site::with(|edge| edge.set_environment("SKEP_EDGED__STATIC_POD_PATH", Some(path))) else { return };
    site.cloud.kill();
    let name = pod_name("file");
    let full = format!("{name}-{}", site.edge.node);
    write(directory.path(), &name, "one");
    let shown = |site: &Site| {
        let pods = site.edge.command(&["pods"]).output;
        match pods.lines().find(|line| line.contains(&full)) {
            Some(line) if line.contains("1/1") && line.contains("Running") => Ok(()),
            _ => Err(pods),
        }
    };
    let whole = |made: Made| {
        let running = made.running()?;
        if made.names() == ["POD", "c"] && running.len() == 2 { Ok(running) } else { Err(format!("{:?}, of which {running:?} run", made.names())) }
    };
    eventually!(30, "it runs", shown(&site));
    eventually!(10, "and works", says(&site.edge, &full, "one"));
    let first = whole(site.made(&full).unwrap()).unwrap();

    site.edge.kill();
    std::fs::write(directory.path().join("bad.yaml"), "apiVersion: v1\nkind: Deployment\n").unwrap();
    site.run_edge();
    eventually!(30, "it is shown again", shown(&site));
    eventually!(10, "what it cannot use is in its log", {
        let log = site.edge.daemon().output();
        let is_said = |line: &str| line.contains("a file of static pods cannot be used") && line.contains("bad.yaml") && line.contains("kind Pod");
        if log.lines().any(is_said) { Ok(()) } else { Err(log) }
    });
    assert_eq!(whole(site.made(&full).unwrap()).unwrap(), first, "it is the same");

    write(directory.path(), &name, "two");
    eventually!(40, "it follows its file", says(&site.edge, &full, "two"));
    let second = eventually!(20, "the first is gone", whole(site.made(&full)?));
    assert!(second["c"] != first["c"] && second["POD"] != first["POD"], "another pod");

    std::fs::write(directory.path().join("pod.yaml"), "apiVersion: v1\nkind: P").unwrap();
    std::fs::write(directory.path().join("other.txt"), ": [ no pod").unwrap();
    harness::wait::never("a file that is being written ends its pod", std::time::Duration::from_secs(8), || {
        let running = site.made(&full)?.running()?;
        if running == second { Ok::<(), String>(()) } else { Err(format!("{running:?}")) }
    });
    std::fs::remove_file(directory.path().join("pod.yaml")).unwrap();
    eventually!(40, "it goes with its file", {
        let made = site.made(&full)?.names();
        if made.is_empty() { Ok(()) } else { Err(format!("{made:?}")) }
    });
    eventually!(10, "and is not shown", {
        let pods = site.edge.command(&["pods"]).output;
        if pods.contains(&full) { Err(pods) } else { Ok(()) }
    });
}
