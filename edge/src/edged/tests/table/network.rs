use std::net::UdpSocket;

use actor::eventually;
use serde_json::json;

use super::super::super::runtime::testing::{engine, free_port};
use super::super::module::{SOCKET, busybox, leave, running_ids, start};
use super::{SOON, row, run, service};

#[actix_rt::test]
async fn namespaces_names_and_ports() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (tcp, udp, busy) = (free_port(), free_port(), taken.local_addr().unwrap().port());
    run(
        |_| {},
        |_| {
            vec![
                row("host-network", "hostname").spec("/hostNetwork", json!(true)).host("/NetworkMode", json!("host")),
                row("host-two", "while ! [ -e /d/x ]; do sleep 0.1; done; echo both")
                    .with("containers", "other", "touch /d/x", json!({}))
                    .shared()
                    .spec("/hostNetwork", json!(true))
                    .says("both"),
                row("host-pid", "[ $$$$ != 1 ] && echo outside").spec("/hostPID", json!(true)).says("outside").host("/PidMode", json!("host")),
                row("host-ipc", "id").spec("/hostIPC", json!(true)).host("/IpcMode", json!("host")),
                row("loopback", "while ! nc 127.0.0.1 8080 < /dev/null | grep pong; do sleep 0.2; done")
                    .with(
                        "containers",
                        "server",
                        "while ! [ -e /d/end ]; do timeout 1 nc -l -p 8080 -e /bin/busybox echo pong; done; exit 0",
                        json!({}),
                    )
                    .shared()
                    .main("/command/3", json!("while ! nc 127.0.0.1 8080 < /dev/null | grep pong; do sleep 0.2; done; touch /d/end"))
                    .says("pong"),
                row("aliases", "cat /etc/hosts")
                    .spec("/hostAliases", json!([{"ip": "10.9.8.7", "hostnames": ["plc", "plc.local"]}]))
                    .says("10.9.8.7\tplc\n")
                    .says("plc.local"),
                row("resolver", "cat /etc/resolv.conf")
                    .spec("/dnsPolicy", json!("None"))
                    .spec(
                        "/dnsConfig",
                        json!({"nameservers": ["10.9.8.53"], "searches": ["shop.local"], "options": [{"name": "ndots", "value": "3"}]}),
                    )
                    .says("nameserver 10.9.8.53")
                    .says("search shop.local")
                    .says("options ndots:3"),
                row("host-aliases", "cat /etc/hosts")
                    .spec("/hostNetwork", json!(true))
                    .spec("/hostAliases", json!([{"ip": "10.9.8.7", "hostnames": ["plc", "plc.local"]}]))
                    .says("10.9.8.7\tplc\n")
                    .says("localhost"),
                row("host-resolver", "cat /etc/resolv.conf")
                    .spec("/hostNetwork", json!(true))
                    .spec("/dnsPolicy", json!("None"))
                    .spec("/dnsConfig", json!({"nameservers": ["10.9.8.53"], "searches": ["shop.local"]}))
                    .says("nameserver 10.9.8.53")
                    .says("search shop.local"),
                row("search", "cat /etc/resolv.conf").spec("/dnsConfig", json!({"searches": ["added.local"]})).says("added.local"),
                service("tcp", "").main("/ports", json!([{"containerPort": 80, "hostPort": tcp, "hostIP": "127.0.0.1"}])),
                service("udp", "").main("/ports", json!([{"containerPort": 53, "hostPort": udp, "protocol": "UDP", "hostIP": "127.0.0.1"}])),
                service("taken", "").main("/ports", json!([{"containerPort": 80, "hostPort": busy, "hostIP": "127.0.0.1"}])).fails(
                    "Pending",
                    "CreatePodSandboxError",
                    "of this machine is taken",
                ),
                service("unpublished", "").main("/ports", json!([{"containerPort": 80, "name": "http"}])),
            ]
        },
    )
    .await;
    drop(taken);
}

/// The only thing in busybox that listens for datagrams is a DHCP server; what is no question to it, it complains of.
#[actix_rt::test]
async fn a_datagram_to_a_host_port_reaches_the_container() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let server = "mkdir -p /var/run /var/lib/misc; echo interface eth0 > /conf; exec udhcpd -f /conf";
    let mut pod = busybox(&engine, "udp", server);
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 67, "hostPort": port, "protocol": "UDP", "hostIP": "127.0.0.1"}]);
    edge.apply("pod", &pod).await;
    eventually!(SOON, edge.is_ready("udp"));
    let ids = running_ids(&engine, &pod).await;
    assert!(!engine.output(&ids[0]).await.contains("bad magic"), "nobody has sent anything");
    // Again and again: it may not listen yet, and then a refusal comes back.
    eventually!(SOON, {
        let _ = socket.send_to(b"hello", ("127.0.0.1", port));
        engine.output(&ids[0]).await.contains("bad magic")
    });
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}
