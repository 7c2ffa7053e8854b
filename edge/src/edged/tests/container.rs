use serde_json::{Value, json};

use super::super::container::{Made, Surroundings, UserError, parse_resolv_conf, sandbox, spec_of, user};
use super::super::pod::Pod;
use super::super::runtime::{ContainerSpec, Mount, MountSource, Namespace, Network, Resolver, label};
use super::{pod, spec};

/// A pod with one container `a`, its spec and container extended.
fn extended(more: Value, container: Value) -> Pod {
    let mut json = spec(&["a"], "Always");
    json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json["containers"][0].as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    pod(json)
}

fn made(pod: &Pod, sandbox: Option<&str>) -> ContainerSpec {
    spec_of(
        pod,
        &pod.spec.containers[0],
        sandbox,
        &Surroundings { memory: 1000 << 20, pids: Some(99) },
        Made { attempt: 3, level: 2, ..Made::default() },
    )
}

#[test]
fn a_container_joins_its_sandbox_and_says_whose_it_is() {
    let spec = made(&extended(json!({}), json!({})), Some("box"));
    assert_eq!(spec.name, "k8s_a_web_default_u-1_3");
    assert_eq!((&spec.network, &spec.ipc, &spec.pid), (&Network::Join("box".into()), &Namespace::Join("box".into()), &Namespace::Own));
    let label = |name: &str| spec.labels[name].clone();
    assert_eq!(
        (label(label::SANDBOX), label(label::KIND), label(label::RESTARTS), label(label::LEVEL)),
        ("box".into(), "container".into(), "3".into(), "2".into())
    );
    assert_eq!((label(label::MESSAGE_PATH), label(label::GRACE)), ("/dev/termination-log".into(), "30".into()));
    assert_eq!(spec.limits.pids, Some(99));
    // What belongs to the network is the sandbox's.
    assert!(spec.ports.is_empty() && spec.hosts.is_empty() && spec.resolver == Resolver::default());
}

#[test]
fn namespaces_of_the_machine_and_shared_ones() {
    for (more, network, pid, ipc) in [
        (json!({"hostNetwork": true}), Network::Host, Namespace::Own, Namespace::Join("box".into())),
        (json!({"hostPID": true}), Network::Join("box".into()), Namespace::Host, Namespace::Join("box".into())),
        (json!({"hostIPC": true}), Network::Join("box".into()), Namespace::Own, Namespace::Host),
        (json!({"shareProcessNamespace": true}), Network::Join("box".into()), Namespace::Join("box".into()), Namespace::Join("box".into())),
    ] {
        let spec = made(&extended(more.clone(), json!({})), Some("box"));
        assert_eq!((spec.network, spec.pid, spec.ipc), (network, pid, ipc), "{more}");
    }
    let alone = made(&extended(json!({"hostNetwork": true, "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x"]}]}), json!({})), None);
    assert_eq!((alone.network, alone.ipc, alone.hosts), (Network::Host, Namespace::Own, vec![("x".to_owned(), "1.2.3.4".to_owned())]));
}

#[test]
fn names_reach_each_container_of_a_pod_in_the_machines_network() {
    let more = json!({"hostNetwork": true, "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x"]}], "dnsConfig": {"options": [{"name": "ndots", "value": "3"}]}});
    for sandbox in [None, Some("box")] {
        let spec = made(&extended(more.clone(), json!({})), sandbox);
        assert_eq!((spec.network, spec.hosts), (Network::Host, vec![("x".to_owned(), "1.2.3.4".to_owned())]), "{sandbox:?}");
        assert_eq!(spec.resolver.options, ["ndots:3"], "{sandbox:?}");
    }
}

#[test]
fn the_sandbox_brings_what_the_containers_share_and_may_do_nothing() {
    let pod = extended(
        json!({"volumes": [{"name": "m", "emptyDir": {"medium": "Memory"}}], "initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always", "ports": [{"containerPort": 1, "hostPort": 2, "protocol": "UDP"}]}],
            "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "9"}]}}),
        json!({"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}),
    );
    let spec = sandbox(&pod, "pause:1", 4, &Resolver::default());
    assert_eq!((spec.name.as_str(), spec.image.as_str(), spec.hostname.as_str()), ("k8s_POD_web_default_u-1_4", "pause:1", "web"));
    assert_eq!(
        spec.ports.iter().map(|port| (port.container_port, port.host_port, port.protocol)).collect::<Vec<_>>(),
        [(1, 2, "udp"), (80, 8080, "tcp")]
    );
    assert!(matches!(&spec.mounts[..], [Mount { source: MountSource::Volume(name), target, .. }] if name == "skep_u-1_m" && target == "/volumes/m"));
    assert_eq!((spec.ipc, spec.network, spec.sysctls["net.core.somaxconn"].as_str()), (Namespace::Shareable, Network::Bridge, "9"));
    assert_eq!((spec.security.cap_drop, spec.security.read_only_root, spec.user.as_str()), (vec!["ALL".to_owned()], true, "65535:65535"));
    assert_eq!(spec.labels[label::CONTAINER], "POD");
}

#[test]
fn who_is_killed_first_follows_the_class_and_the_request() {
    let score = |resources: Value| made(&extended(json!({}), json!({"resources": resources})), None).limits.oom_score_adj;
    assert_eq!(score(json!({})), 1000);
    assert_eq!(score(json!({"limits": {"cpu": "1", "memory": "10Mi"}})), -997);
    assert_eq!(score(json!({"requests": {"memory": "250Mi"}})), 750);
    assert_eq!(score(json!({"requests": {"memory": "1Ki"}})), 999);
    assert_eq!(score(json!({"requests": {"memory": "9000Mi"}})), 3);
}

#[test]
fn rights_become_the_engines_words() {
    let security = |pod: Value, own: Value| {
        let pod = extended(json!({"securityContext": pod}), json!({"securityContext": own}));
        spec_of(&pod, &pod.spec.containers[0], None, &Surroundings::default(), Made { seccomp: Some("{}".into()), ..Made::default() }).security
    };
    let all = security(
        json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}, "appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}}),
        json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["A", "cap_b"], "drop": ["all"]}, "seLinuxOptions": {"type": "t", "level": "s0"}, "procMount": "Unmasked"}),
    );
    assert_eq!(all.options, ["no-new-privileges", "seccomp={}", "apparmor=p", "label=type:t", "label=level:s0"]);
    assert_eq!((all.cap_add, all.cap_drop, all.unmasked_proc), (vec!["A".to_owned(), "CAP_B".to_owned()], vec!["ALL".to_owned()], true));
    // A container's own word counts before the pod's.
    let own = security(json!({"seccompProfile": {"type": "Unconfined"}}), json!({"seccompProfile": {"type": "RuntimeDefault"}, "privileged": true}));
    assert!(own.options.is_empty() && own.privileged);
    assert_eq!(
        security(json!({"appArmorProfile": {"type": "Unconfined"}}), json!({"seccompProfile": {"type": "Unconfined"}})).options,
        ["seccomp=unconfined", "apparmor=unconfined"]
    );
}

#[test]
fn the_user_is_the_containers_then_the_pods_then_the_images() {
    let of = |pod: Value, own: Value, image: &str| {
        let pod = extended(json!({"securityContext": pod}), json!({"securityContext": own}));
        user(&pod, &pod.spec.containers[0], image)
    };
    for (pod, own, image, want) in [
        (json!({}), json!({}), "web", Ok("")),
        (json!({"runAsUser": 5}), json!({}), "web", Ok("5")),
        (json!({"runAsUser": 5, "runAsGroup": 6}), json!({"runAsUser": 7}), "", Ok("7:6")),
        (json!({}), json!({"runAsGroup": 6}), "9:9", Ok("9:6")),
        (json!({}), json!({"runAsGroup": 6}), "", Ok("0:6")),
        (json!({"runAsNonRoot": true}), json!({"runAsUser": 7}), "root", Ok("7")),
        (json!({"runAsNonRoot": true}), json!({}), "7", Ok("")),
        (json!({"runAsNonRoot": true}), json!({"runAsNonRoot": false}), "0", Ok("")),
        (json!({"runAsNonRoot": true}), json!({}), "", Err(UserError::Root)),
        (json!({"runAsNonRoot": true}), json!({}), "0:5", Err(UserError::Root)),
        (json!({"runAsNonRoot": true}), json!({"runAsUser": 0}), "5", Err(UserError::Root)),
        (json!({"runAsNonRoot": true}), json!({}), "web", Err(UserError::Name("web".into()))),
    ] {
        assert_eq!(of(pod.clone(), own.clone(), image), want.map(str::to_owned), "{pod} {own} {image}");
    }
}

#[test]
fn the_resolver_is_the_machines_with_what_the_pod_adds_or_only_the_pods() {
    let machine =
        parse_resolv_conf("# x\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver nonsense\nsearch a.b c.d\noptions ndots:1 edns0\nfuture x\n");
    assert_eq!(
        (&machine.nameservers, &machine.searches, &machine.options),
        (&vec!["10.0.0.1".to_owned()], &vec!["a.b".to_owned(), "c.d".to_owned()], &vec!["ndots:1".to_owned(), "edns0".to_owned()])
    );
    let of = |more: Value| sandbox(&extended(more, json!({})), "p", 0, &machine).resolver;
    assert_eq!(of(json!({})), Resolver::default());
    let added = of(json!({"dnsConfig": {"nameservers": ["9.9.9.9", "10.0.0.1"], "searches": ["x.y"], "options": [{"name": "ndots", "value": "5"}]}}));
    assert_eq!(
        (added.nameservers, added.searches, added.options),
        (
            vec!["10.0.0.1".to_owned(), "9.9.9.9".into()],
            vec!["a.b".to_owned(), "c.d".into(), "x.y".into()],
            vec!["edns0".to_owned(), "ndots:5".into()]
        )
    );
    let own = of(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"]}}));
    // Nothing of the machine's, also where the pod names nothing.
    assert_eq!((own.nameservers, own.searches, own.options), (vec!["9.9.9.9".to_owned()], vec![".".to_owned()], vec!["ndots:1".to_owned()]));
    let own = of(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["x.y"], "options": [{"name": "edns0"}]}}));
    assert_eq!((own.searches, own.options), (vec!["x.y".to_owned()], vec!["edns0".to_owned()]));
}
