#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use clap::Parser;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::display::{age, row, sum_up};
use super::exec::{ExecArgs, choose, run};
use super::logs::{default_container, parse_since, path};
use super::pods::table;
use super::*;
use crate::edged::runtime::testing;
use crate::edged::runtime::{ContainerRuntime as _, Summary, label};

fn waiting(name: &str, reason: &str) -> Value {
    json!({"name": name, "restartCount": 2, "state": {"waiting": {"reason": reason}}})
}

fn terminated(name: &str, code: i64, reason: &str) -> Value {
    json!({"name": name, "restartCount": 1, "state": {"terminated": {"exitCode": code, "reason": reason}}})
}

fn running(name: &str, ready: bool) -> Value {
    json!({"name": name, "restartCount": 0, "ready": ready, "started": true, "state": {"running": {}}})
}

fn spec(inits: &[&str], sidecars: &[&str], containers: &[&str]) -> Value {
    let plain = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
    let inits = plain(inits).into_iter().chain(sidecars.iter().map(|name| json!({"name": name, "restartPolicy": "Always"})));
    json!({"initContainers": inits.collect::<Vec<_>>(), "containers": plain(containers)})
}

#[test]
fn the_status_of_a_pod_is_what_kubectl_shows() {
    let ready = |is: &str| json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": is}]);
    let one = || spec(&[], &[], &["a"]);
    let two = || spec(&[], &[], &["a", "b"]);
    let with_init = || spec(&["i", "j"], &[], &["a"]);
    let with_sidecar = || spec(&["i"], &["s"], &["a"]);
    let done = || terminated("i", 0, "Completed");
    let table = [
        (one(), json!({}), "Pending 0/1 0"),
        (one(), json!({"phase": "Running", "containerStatuses": [running("a", true)]}), "Running 1/1 0"),
        (one(), json!({"phase": "Running", "containerStatuses": [running("a", false)]}), "Running 0/1 0"),
        (one(), json!({"phase": "Pending", "containerStatuses": [waiting("a", "ContainerCreating")]}), "ContainerCreating 0/1 2"),
        (one(), json!({"phase": "Pending", "containerStatuses": [waiting("a", "ImagePullBackOff")]}), "ImagePullBackOff 0/1 2"),
        (one(), json!({"phase": "Running", "containerStatuses": [waiting("a", "CrashLoopBackOff")]}), "CrashLoopBackOff 0/1 2"),
        (one(), json!({"phase": "Running", "containerStatuses": [terminated("a", 1, "Error")]}), "Error 0/1 1"),
        (one(), json!({"phase": "Running", "containerStatuses": [terminated("a", 137, "OOMKilled")]}), "OOMKilled 0/1 1"),
        (one(), json!({"phase": "Succeeded", "containerStatuses": [terminated("a", 0, "Completed")]}), "Completed 0/1 1"),
        (one(), json!({"phase": "Failed", "containerStatuses": [terminated("a", 3, "")]}), "ExitCode:3 0/1 1"),
        (one(), json!({"phase": "Failed", "reason": "Evicted"}), "Evicted 0/1 0"),
        (one(), json!({"phase": "Failed", "reason": "Unsupported", "containerStatuses": [waiting("a", "Unsupported")]}), "Unsupported 0/1 2"),
        (
            two(),
            json!({"phase": "Running", "conditions": ready("True"), "containerStatuses": [running("a", true), terminated("b", 0, "Completed")]}),
            "Running 1/2 1",
        ),
        (
            two(),
            json!({"phase": "Running", "conditions": ready("False"), "containerStatuses": [running("a", true), terminated("b", 0, "Completed")]}),
            "NotReady 1/2 1",
        ),
        (two(), json!({"phase": "Running", "containerStatuses": [running("a", true), terminated("b", 1, "Error")]}), "Error 1/2 1"),
        (with_init(), json!({"phase": "Pending", "initContainerStatuses": [running("i", false), waiting("j", "PodInitializing")]}), "Init:0/2 0/1 0"),
        (with_init(), json!({"phase": "Pending", "initContainerStatuses": [done(), running("j", false)]}), "Init:1/2 0/1 1"),
        (with_init(), json!({"phase": "Pending", "initContainerStatuses": [done(), waiting("j", "PodInitializing")]}), "Init:1/2 0/1 3"),
        (with_init(), json!({"phase": "Pending", "initContainerStatuses": [waiting("i", "CrashLoopBackOff")]}), "Init:CrashLoopBackOff 0/1 2"),
        (with_init(), json!({"phase": "Pending", "initContainerStatuses": [terminated("i", 1, "Error")]}), "Init:Error 0/1 1"),
        (with_init(), json!({"phase": "Pending", "initContainerStatuses": [terminated("i", 4, "")]}), "Init:ExitCode:4 0/1 1"),
        // Once all have done their work, only the others' restarts count.
        (
            with_init(),
            json!({"phase": "Running", "initContainerStatuses": [done(), done()], "containerStatuses": [running("a", true)]}),
            "Running 1/1 0",
        ),
        (
            with_sidecar(),
            json!({"phase": "Running", "initContainerStatuses": [done(), running("s", true)], "containerStatuses": [running("a", true)]}),
            "Running 2/2 0",
        ),
        (
            with_sidecar(),
            json!({"phase": "Pending", "initContainerStatuses": [done(), waiting("s", "PodInitializing")], "containerStatuses": [waiting("a", "PodInitializing")]}),
            "Init:1/2 0/2 3",
        ),
        (
            with_sidecar(),
            json!({"phase": "Running", "conditions": ready("False"), "initContainerStatuses": [done(), waiting("s", "CrashLoopBackOff")], "containerStatuses": [running("a", true)]}),
            "Init:CrashLoopBackOff 1/2 2",
        ),
    ];
    for (spec, status, want) in table {
        let summed = sum_up(&json!({"spec": spec, "status": status}));
        assert_eq!(format!("{} {}/{} {}", summed.status, summed.ready, summed.total, summed.restarts), want, "{status}");
    }
    let deleted = |phase: &str, reason: &str| {
        let status = json!({"phase": phase, "reason": reason, "containerStatuses": [running("a", true)]});
        sum_up(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": one(), "status": status})).status
    };
    assert_eq!([deleted("Running", ""), deleted("Running", "NodeLost"), deleted("Succeeded", "")], ["Terminating", "Unknown", "Succeeded"]);
    for nonsense in [json!(null), json!([]), json!({"spec": 7, "status": "x"}), json!({"status": {"containerStatuses": [1, null]}})] {
        assert_eq!(sum_up(&nonsense).status, "Pending", "{nonsense}");
    }
}

#[test]
fn times_are_as_coarse_as_kubectls() {
    for (seconds, want) in [
        (-5, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (12_000, "3h20m"),
        (100_000, "27h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (700_000, "8d"),
        (40_000_000, "462d"),
        (70_000_000, "2y80d"),
        (300_000_000, "9y"),
    ] {
        assert_eq!(age(seconds), want, "{seconds}");
    }
}

#[test]
fn the_table_is_sorted_and_shows_no_control_characters() {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let mut restarted = running("a", true);
    restarted["restartCount"] = json!(3);
    restarted["lastState"] = json!({"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}});
    let pods = json!({"items": [
        {"metadata": {"name": "web", "namespace": "b", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec(&[], &[], &["a"]),
            "status": {"phase": "Running", "podIP": "172.17.0.2", "containerStatuses": [restarted]}},
        {"metadata": {"name": "bad\u{1b}[31m"}, "spec": spec(&[], &[], &["a"]), "status": {"reason": "Evicted\n"}}]});
    let want = "\
NAMESPACE   NAME       READY   STATUS     RESTARTS     AGE         IP
b           web        1/1     Running    3 (5m ago)   60m         172.17.0.2
default     bad?[31m   0/1     Evicted?   0            <unknown>   <none>
";
    assert_eq!(table(&pods, now), want);
    assert_eq!(table(&json!({"items": []}), now), "no pods on this node\n");
    assert_eq!(row(&json!({}), now).status, "Pending");
}

#[test]
fn lengths_of_time_are_read() {
    for (text, want) in [("45s", 45), ("10m", 600), ("1h30m", 5400), ("1h0m1s", 3601)] {
        assert_eq!(parse_since(text), Ok(want), "{text}");
    }
    for text in ["", "0s", "10", "m", "1d", "-1s", "1h30", "99999999999h", "1 h"] {
        assert!(parse_since(text).is_err_and(|said| said.contains("1h30m")), "{text}");
    }
}

#[derive(Parser)]
enum Line {
    Logs(LogsArgs),
    Exec(ExecArgs),
    Pods(PodsArgs),
}

fn line(words: &[&str]) -> Result<Line, clap::Error> {
    Line::try_parse_from(std::iter::once("skep-edge").chain(words.iter().copied()))
}

#[test]
fn the_commands_read_what_kubectl_users_type() {
    let Ok(Line::Logs(args)) = line(&["logs", "-f", "--tail", "5", "--since", "10m", "--timestamps", "-p", "-n", "ns", "web", "-c", "a"]) else {
        panic!()
    };
    assert_eq!(path(&args, "a/../b"), "/containerLogs/ns/web/a%2F..%2Fb?follow=true&timestamps=true&previous=true&tailLines=5&sinceSeconds=600");
    let Ok(Line::Logs(args)) = line(&["logs", "web"]) else { panic!() };
    assert_eq!(path(&args, "a"), "/containerLogs/default/web/a");
    let Ok(Line::Exec(args)) = line(&["exec", "-it", "-n", "ns", "web", "--", "ls", "-l"]) else { panic!() };
    assert_eq!((args.stdin, args.tty, args.namespace.as_str(), args.command.as_slice()), (true, true, "ns", &["ls".to_owned(), "-l".to_owned()][..]));
    assert!(matches!(line(&["pods", "-o", "json", "-n", "ns"]), Ok(Line::Pods(args)) if args.output == "json"));
    for wrong in [
        &["exec", "web"][..],
        &["exec", "web", "ls"],
        &["logs"],
        &["logs", "web", "--since", "now"],
        &["logs", "web", "--tail", "-1"],
        &["pods", "-o", "xml"],
    ] {
        assert!(line(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_container_is_the_annotated_or_the_first_one() {
    let pod = |annotation: &str| json!({"metadata": {"annotations": {"kubectl.kubernetes.io/default-container": annotation}}, "spec": spec(&["i"], &[], &["a", "b"])});
    let all = || vec!["a".to_owned(), "b".into(), "i".into()];
    for (annotation, want) in [("b", "b"), ("none", "a"), ("i", "a"), ("", "a")] {
        assert_eq!(default_container(&pod(annotation)), Some((want.to_owned(), all())), "{annotation}");
    }
    assert_eq!(default_container(&json!({})), None);
}

fn exec_args(container: Option<&str>, command: &[&str]) -> ExecArgs {
    ExecArgs {
        pod: "web".into(),
        namespace: "default".into(),
        container: container.map(str::to_owned),
        stdin: false,
        tty: false,
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        place: Place::default(),
    }
}

#[test]
fn exec_chooses_a_running_container_or_says_which_there_are() {
    let one_of = |uid: &str, name: &str, state: &str, created: i64| Summary {
        id: format!("id-{name}{uid}"),
        labels: [(label::CONTAINER.to_owned(), name.to_owned()), (label::POD_UID.to_owned(), uid.to_owned())].into_iter().collect(),
        state: state.into(),
        created,
    };
    let one = |name: &str, state: &str| one_of("", name, state, 1);
    let chosen = |container: Option<&str>, found: &[Summary]| choose(&exec_args(container, &[]), found, None).map_err(|error| error.to_string());
    let sandbox = || one(label::SANDBOX_NAME, "running");
    assert_eq!(chosen(None, &[sandbox(), one("a", "running"), one("b", "exited")]), Ok("id-a".into()));
    let both = [one("a", "running"), one("b", "running")];
    assert_eq!(chosen(Some("b"), &both), Ok("id-b".into()));
    assert_eq!(choose(&exec_args(None, &[]), &both, Some("b")).unwrap(), "id-b");
    assert!(choose(&exec_args(None, &[]), &both, Some("c")).is_err());
    // The earlier pod of this name still ends.
    let two = [one_of("-old", "a", "running", 5), one_of("-new", "a", "running", 9), one_of("-old", "b", "running", 6)];
    assert_eq!(chosen(None, &two), Ok("id-a-new".into()));
    assert!(chosen(Some("b"), &two).unwrap_err().contains("there are: a"));
    let begun = [one_of("-old", "a", "running", 5), one_of("-new", label::SANDBOX_NAME, "created", 9)];
    assert!(chosen(None, &begun).unwrap_err().contains("no container of pod default/web runs"));
    for (container, found, want) in [
        (
            None,
            vec![],
            "there is no container of pod default/web on this node; see `skep-edge pods`, and name the daemon's configuration with --config",
        ),
        (None, vec![sandbox(), one("a", "exited")], "no container of pod default/web runs; `skep-edge logs` may say why"),
        (Some(label::SANDBOX_NAME), vec![sandbox(), one("a", "running")], "pod default/web has no running container `POD`; there are: a"),
        (Some("c"), vec![one("b", "running"), one("a", "running")], "pod default/web has no running container `c`; there are: a, b"),
        (None, vec![one("b", "running"), one("a", "running")], "pod default/web has several containers: name one of a, b with -c"),
    ] {
        assert_eq!(chosen(container, &found), Err(want.to_owned()));
    }
}

#[actix_rt::test]
async fn without_a_daemon_or_a_socket_the_error_says_what_to_do() {
    let mut config = EdgeConfig::default();
    config.edgehub.controller.node_id = "n1".into();
    config.edged.read_only_port = 1;
    let args = PodsArgs { output: "text".into(), ..PodsArgs::default() };
    let error = pods(&args, &config, &mut Vec::new()).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("127.0.0.1:1") && said.contains("systemctl status skep-edge") && said.contains("edged.read-only-port"), "{said}");
    assert_eq!(error.exit().code(), admin::exit::UNAVAILABLE);
    config.edged.read_only_port = 0;
    assert!(matches!(pods(&args, &config, &mut Vec::new()).await, Err(ConsoleError::Off)));
    config.edged.docker_address = "unix:///nowhere.sock".into();
    let said = exec(&exec_args(None, &["true"]), &config).await.unwrap_err().to_string();
    assert!(said.contains("unix:///nowhere.sock does not answer"), "{said}");
    let terminal = ExecArgs { tty: true, ..exec_args(None, &["sh"]) };
    assert!(matches!(exec(&terminal, &config).await, Err(ConsoleError::NoTerminal)));
}

#[actix_rt::test]
async fn a_program_in_a_container_gets_its_input_and_gives_its_code() {
    let Some(engine) = testing::engine().await else { return };
    let id = engine.runtime.create(&engine.spec("u-1", &["sleep", "1000"])).await.unwrap();
    engine.runtime.start(&id).await.unwrap();
    let socket = "/var/run/docker.sock";
    let call = async |command: &[&str], input: Option<&[u8]>| {
        let (send, receive) = mpsc::channel(4);
        let feed = async {
            for piece in input.unwrap_or_default().chunks(16 * 1024) {
                send.send(piece.to_vec()).await.unwrap();
            }
            drop(send);
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = exec_args(None, command);
        let (code, ()) = tokio::join!(run(socket, &id, &args, input.is_some().then_some(receive), &mut out, &mut err), feed);
        (code.unwrap(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    assert_eq!(call(&["/bin/busybox", "sh", "-c", "echo out; echo err >&2; exit 7"], None).await, (7, "out\n".into(), "err\n".into()));
    assert_eq!(call(&["/bin/busybox", "wc", "-c"], Some(b"12345")).await, (0, "5\n".into(), String::new()));
    // More than fits anywhere between, both ways at once.
    let much = vec![b'x'; 1 << 20];
    let (code, out, _) = call(&["/bin/busybox", "cat"], Some(&much)).await;
    assert_eq!((code, out.len()), (0, much.len()));
    let (code, _, said) = call(&["/none"], None).await;
    assert!(code == 126 || code == 127, "{code} {said}");
}
