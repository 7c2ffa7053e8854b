//! The real kubectl, unchanged, through a table of commands.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use actor::testing::{Lack, leave_out};

use super::*;

/// One command, what it reads, and what it has to say.
struct Step {
    command: &'static str,
    input: &'static str,
    succeeds: bool,
    shows: &'static [&'static str],
}

const fn step(command: &'static str, shows: &'static [&'static str]) -> Step {
    Step { command, input: "", succeeds: true, shows }
}

const fn given(input: &'static str, command: &'static str, shows: &'static [&'static str]) -> Step {
    Step { command, input, succeeds: true, shows }
}

const fn refused(command: &'static str, shows: &'static [&'static str]) -> Step {
    Step { command, input: "", succeeds: false, shows }
}

const fn refused_given(input: &'static str, command: &'static str, shows: &'static [&'static str]) -> Step {
    Step { command, input, succeeds: false, shows }
}

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"nodeName": "edge-1",
    "containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]}}"#;
const POD_CHANGED: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"nodeName": "edge-1",
    "containers": [{"name": "a", "image": "x:2"}, {"name": "b", "image": "y:1"}]}}"#;
const POD_FROZEN: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"nodeName": "edge-1",
    "restartPolicy": "Never", "containers": [{"name": "a", "image": "x:2"}, {"name": "b", "image": "y:1"}]}}"#;
const TYPO: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "typo"}, "spec": {"containrs": []}}"#;
const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: \"1\"}\n";
const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {key: abc}\n";
const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: edge-1, labels: {node-role.kubernetes.io/edge: \"\"}}\n";
const DEVICES: &str = include_str!("../../../../deploy/examples/device.yaml");
const STATUS: &str = "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceStatus\nmetadata: {name: thermometer-01}\n\
    status: {state: online, twins: [{propertyName: temperature, reported: {value: \"21\", metadata: {type: string}}}]}\n";
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

static STEPS: &[Step] = &[
    step("version", &["Server Version: v1.33"]),
    step("api-resources", &["pods", "po ", "devicestatuses", "devices.kubeedge.io/v1beta1", "leases"]),
    step("get namespaces", &["default", "kube-system", "skep", "kube-node-lease", "Active"]),
    given(NODE, "apply -f -", &["node/edge-1 created"]),
    step("get nodes", &["edge-1", "edge"]),
    given(MAP, "apply -f -", &["configmap/settings created"]),
    given(MAP, "apply -f -", &["configmap/settings unchanged"]),
    given(SECRET, "create -f -", &["secret/token created"]),
    step("get secret token -o yaml", &["key: YWJj", "type: Opaque"]),
    step("get secrets", &["TYPE", "Opaque"]),
    given(POD, "apply -f -", &["pod/web created"]),
    given(POD_CHANGED, "apply -f -", &["pod/web configured"]),
    given(POD_CHANGED, "apply -f -", &["pod/web unchanged"]),
    refused_given(POD_FROZEN, "apply -f -", &["pod updates may not change fields"]),
    refused_given(TYPO, "apply -f -", &["unknown field \"spec.containrs\""]),
    refused_given(POD, "create -f -", &["AlreadyExists", "already exists"]),
    step("get pods", &["READY", "0/2", "Pending"]),
    step("get pods -A -o wide", &["NAMESPACE", "NOMINATED NODE", "edge-1"]),
    step("get pod web -o json", &["\"terminationGracePeriodSeconds\": 30", "\"phase\": \"Pending\""]),
    step("get pod web -o yaml", &["restartPolicy: Always", "image: x:2", "generation: 2"]),
    step("get pods -o name --field-selector spec.nodeName=edge-1,status.phase!=Running", &["pod/web"]),
    step("get pods -o name -l app in (web,db),!gone", &["pod/web"]),
    step("describe pod web", &["Node:", "edge-1/", "QoS Class:", "BestEffort"]),
    step("describe node edge-1", &["Roles:", "edge", "Non-terminated Pods:", "web"]),
    step("label pod web tier=front", &["pod/web labeled"]),
    step("annotate pod web note=x", &["pod/web annotated"]),
    step("patch pod web -p {\"spec\":{\"containers\":[{\"name\":\"b\",\"image\":\"y:2\"}]}}", &["pod/web patched"]),
    step("patch pod web --type=json -p [{\"op\":\"replace\",\"path\":\"/metadata/labels/tier\",\"value\":\"back\"}]", &["pod/web patched"]),
    step("patch pod web --type=merge -p {\"metadata\":{\"labels\":{\"tier\":null}}}", &["pod/web patched"]),
    step("get pod web -o jsonpath={.spec.containers[*].image},{.metadata.labels}", &["x:2 y:2", "{\"app\":\"web\"}"]),
    refused("patch pod web --type=merge -p {\"spec\":{\"containers\":\"none\"}}", &["cannot be handled as a Pod"]),
    step("cordon edge-1", &["cordoned"]),
    step("get nodes", &["SchedulingDisabled"]),
    step("uncordon edge-1", &["uncordoned"]),
    step("taint nodes edge-1 a=b:NoSchedule", &["tainted"]),
    step("taint nodes edge-1 a-", &["untainted"]),
    step("patch node edge-1 --subresource=status -p {\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}", &["patched"]),
    step("wait node/edge-1 --for=condition=Ready --timeout=10s", &["condition met"]),
    given(DEVICES, "apply -f -", &["devicemodel.devices.kubeedge.io/thermometer created", "thermometer-01 created"]),
    given(DEVICES, "apply -f -", &["thermometer unchanged", "thermometer-01 unchanged"]),
    given(STATUS, "apply -f -", &["created"]),
    step("get devices,devicemodels,devicestatuses", &["thermometer-01", "temperature=21", "online"]),
    step("describe device thermometer-01", &["Node Name:", "Protocol Name:"]),
    step(
        "patch device thermometer-01 --type=merge -p {\"spec\":{\"properties\":[{\"name\":\"temperature\",\"desired\":{\"value\":\"23\"}}]}}",
        &["patched"],
    ),
    step("get device thermometer-01 -o jsonpath={.spec.properties[0].desired.value}/{.metadata.generation}", &["23/2"]),
    refused(
        "patch device thermometer-01 --type=merge -p {\"spec\":{\"properties\":[{\"name\":\"temperature\",\"desired\":{\"value\":23}}]}}",
        &["spec.properties[0].desired.value", "must be of type string"],
    ),
    given(NAMESPACE, "create -f -", &["namespace/shop created"]),
    given(POD, "apply --server-side -n shop -f -", &["serverside-applied"]),
    given(POD_CHANGED, "apply --server-side -n shop -f -", &["serverside-applied"]),
    step("get pod web -n shop -o jsonpath={.spec.containers[*].image}", &["x:2 y:1"]),
    given(MAP, "apply --dry-run=server -n shop -f -", &["created (server dry run)"]),
    refused("get configmap settings -n shop", &["NotFound"]),
    given(MAP, "replace -f -", &["configmap/settings replaced"]),
    refused("logs nothing", &["pods \"nothing\" not found"]),
    refused("logs web -n shop", &["skep-edge logs -n shop web", "node \"edge-1\""]),
    refused("exec web -n shop -- true", &["skep-edge exec -n shop web -- COMMAND"]),
    refused("get --raw /api/v1/namespaces/shop/pods/web/portforward", &["connect to the pod's address on the machine of node"]),
    step("get events", &[]),
    step("delete configmap settings", &["deleted"]),
    step("delete pod web --wait=false", &["deleted"]),
    step("get pods", &["Terminating"]),
    step("delete pod web --force", &["deleted"]),
    refused("get pod web", &["pods \"web\" not found"]),
    step("delete pod web -n shop --force", &["deleted"]),
    step("delete namespace shop --timeout=20s", &["deleted"]),
    refused("delete namespace default", &["may not be deleted"]),
    // Protobuf bodies since kubectl 1.32.
    step("create namespace garden", &["namespace/garden created"]),
    step("create configmap x --from-literal=a=b", &["configmap/x created"]),
    step("create secret generic y --from-literal=a=b", &["secret/y created"]),
    step("get configmap/x secret/y -o jsonpath={.items[*].data.a}", &["b Yg=="]),
    refused("create deployment z --image=z", &["could not find the requested resource"]),
    given(POD, "create -n garden -f -", &["pod/web created"]),
    // It waits for a deletion that a dry run does not make; what counts is that nothing is deleted.
    refused("drain edge-1 --force --dry-run=server --timeout=1s", &["node/edge-1 cordoned (server dry run)"]),
    step("get pods -n garden", &["web", "Pending"]),
    refused("drain edge-1 --force --grace-period=7 --timeout=1s", &["garden/web"]),
    step("get pod web -n garden -o jsonpath={.metadata.deletionGracePeriodSeconds}", &["7"]),
    refused("get services", &["the server doesn't have a resource type"]),
    refused_given(MAP, "create -n nowhere -f -", &["namespaces \"nowhere\" not found"]),
    step("get --raw /readyz", &["ok"]),
];

/// A kubectl for this API, or `None` where there is none.
fn kubectl(fixture: &Fixture, arguments: &[&str]) -> Option<Command> {
    let found = Command::new("kubectl").args(["version", "--client"]).output().is_ok();
    if !found {
        leave_out(Lack::Program, "there is no kubectl on the PATH");
        return None;
    }
    // A kubectl that waits for ever is a failure and not a test that never ends.
    let mut command = Command::new("timeout");
    command.args(["60", "kubectl", "--kubeconfig"]).arg(fixture.kubeconfig("admin"));
    command.arg("--cache-dir").arg(fixture.path("cache")).args(arguments);
    Some(command)
}

/// Splits at blanks outside of brackets, which is enough for the commands here.
fn words(command: &str) -> Vec<&str> {
    let (mut words, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (index, sign) in command.char_indices() {
        match sign {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ' ' if depth == 0 && !command[..index].ends_with(" -l app in") && !command[..index].ends_with(" -l app") => {
                words.push(&command[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    words.push(&command[start..]);
    words
}

#[test]
fn an_unchanged_kubectl_finds_everything_where_it_looks() {
    // No edge speaks for the node, and it stays Ready until the last step.
    let fixture = fixture_with_lease(Duration::from_secs(3600));
    for step in STEPS {
        let Some(mut command) = kubectl(&fixture, &words(step.command)) else { return };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(step.input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.success(), step.succeeds, "kubectl {}\n{text}", step.command);
        for part in step.shows {
            assert!(text.contains(part), "kubectl {} does not show {part:?}\n{text}", step.command);
        }
    }
}

/// Kills the process when the test ends, whichever way it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_watch_of_kubectl_prints_each_change() {
    let fixture = fixture();
    let Some(mut command) = kubectl(&fixture, &["get", "configmaps", "-w", "-o", "name", "--output-watch-events"]) else { return };
    let mut watching = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(watching.0.stdout.take().unwrap()).lines();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut seen = Vec::new();
    // Applied again and again until the watch, which starts when it wants, has seen one.
    for round in 0.. {
        let label = format!("round=r{round}");
        let create = ["create", "configmap", "x", "--dry-run=client", "-o", "yaml"];
        let output = kubectl(&fixture, &create).unwrap().output().unwrap();
        let mut apply = kubectl(&fixture, &["apply", "-f", "-"]).unwrap().stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        apply.stdin.take().unwrap().write_all(&output.stdout).unwrap();
        assert!(apply.wait().unwrap().success());
        assert!(kubectl(&fixture, &["label", "configmap", "x", "--overwrite", &label]).unwrap().output().unwrap().status.success());
        seen.extend(receiver.try_iter());
        if !seen.is_empty() || Instant::now() > deadline {
            break;
        }
    }
    assert!(seen.iter().any(|line| line.contains("configmap/x")), "{seen:?}");
}

#[test]
fn a_node_certificate_is_no_administrator() {
    let fixture = fixture();
    let Some(mut command) = kubectl(&fixture, &["get", "secrets", "--kubeconfig"]) else { return };
    let output = command.arg(fixture.kubeconfig("node")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("Forbidden"), "{text}");
}
