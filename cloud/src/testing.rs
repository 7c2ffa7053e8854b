//! For the controllers' tests: the embedded API with real TLS, the controllers under their supervisor, and a probe in
//! place of CloudHub.

#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actor::testing::Probe;
use actor::{ChildSpec, Handle, Policy, Running, Supervisor, mailbox};
use kube::config::{KubeConfigOptions, Kubeconfig};
use model::{NodeName, SystemClock, Timestamp};
use serde_json::Value;
use tempfile::TempDir;
use wire::hub::{Downstream as Body, Frame, MsgId, OutboxKey, Upstream as Said};

use crate::cloud_hub::CloudHubMessage;
use crate::cluster::{Cluster, ClusterError, Kind};
use crate::device_controller::{self, DeviceController, DeviceControllerMessage};
use crate::edge_controller::downstream::{self, Downstream, DownstreamMessage};
use crate::edge_controller::upstream::{self, Upstream, UpstreamMessage};
use crate::embedded::{self, EmbeddedApi, EmbeddedConfig};
use crate::pki::{self, Pki};

/// How long anything may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

pub struct World {
    dir: TempDir,
    address: SocketAddr,
    api: Option<EmbeddedApi>,
    pub cluster: Cluster,
    pub hub: Probe<CloudHubMessage>,
    pub downstream: Handle<DownstreamMessage>,
    known: downstream::Shared,
    pub upstream: Handle<UpstreamMessage>,
    pub said: upstream::state::Shared,
    pub devices: Handle<DeviceControllerMessage>,
    pub running: Running,
}

pub fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// What an edge says.
pub fn said(body: Said) -> Frame<Said> {
    Frame::new(MsgId::random(), Timestamp(1), body)
}

async fn start_api(dir: &Path, port: u16) -> EmbeddedApi {
    let config = EmbeddedConfig {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port,
        database: dir.join("cloud.db"),
        server_certificate: dir.join("pki/server.crt"),
        server_key: dir.join("pki/server.key"),
        client_ca: dir.join("pki/ca.crt"),
        lease_duration: Duration::from_secs(40),
    };
    tokio::task::spawn_blocking(move || embedded::start(config)).await.unwrap().unwrap()
}

impl World {
    pub async fn start() -> Self {
        let _ = env_logger::builder().is_test(true).try_init();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = TempDir::new().unwrap();
        let certificates = Pki::open(pki::Config::new(dir.path().join("pki"))).unwrap();
        let api = start_api(dir.path(), 0).await;
        let kubeconfig = dir.path().join("kubeconfig");
        certificates.write_kubeconfig(&kubeconfig, &format!("https://{}", api.addr)).unwrap();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let kube = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();

        let hub = Probe::new("cloud_hub", 4096);
        let (downstream, upstream, devices) = (mailbox("downstream", 256), mailbox("upstream", 256), mailbox("device_controller", 256));
        let clock = Arc::new(SystemClock);
        let (known, said) = (downstream::Shared::default(), upstream::state::Shared::default());
        let running = Supervisor::new("test", Policy::default())
            .child(ChildSpec::new(&downstream, {
                let peers = downstream::Peers { downstream: downstream.clone(), cloud_hub: hub.handle() };
                let (kube, clock, known) = (kube.clone(), clock.clone(), known.clone());
                move || {
                    Downstream::new(downstream::Config::default(), peers.clone(), Cluster::connect(&kube).unwrap(), clock.clone())
                        .publishing(known.clone())
                }
            }))
            .child(
                ChildSpec::new(&upstream, {
                    let peers = upstream::Peers { upstream: upstream.clone(), downstream: downstream.clone(), cloud_hub: hub.handle() };
                    let (kube, clock, said) = (kube.clone(), clock.clone(), said.clone());
                    move || Upstream::new(peers.clone(), Cluster::connect(&kube).unwrap(), clock.clone()).publishing(said.clone())
                })
                .batch(64),
            )
            .child(
                ChildSpec::new(&devices, {
                    let peers = device_controller::Peers { device_controller: devices.clone(), cloud_hub: hub.handle() };
                    let (kube, clock) = (kube.clone(), clock.clone());
                    move || {
                        DeviceController::new(device_controller::Config::default(), peers.clone(), Cluster::connect(&kube).unwrap(), clock.clone())
                    }
                })
                .batch(64),
            )
            .start(|why| panic!("{why}"));
        let cluster = Cluster::connect(&kube).unwrap();
        Self { dir, address: api.addr, api: Some(api), cluster, hub, downstream, known, upstream, said, devices, running }
    }

    /// The API server goes away.
    pub async fn stop_api(&mut self) {
        self.api.take().unwrap().stop().await;
    }

    /// It is back, with what it had.
    pub async fn restart_api(&mut self) {
        self.api = Some(start_api(self.dir.path(), self.address.port()).await);
    }

    pub async fn stop(mut self) {
        self.running.shutdown().await;
        if self.api.is_some() {
            self.stop_api().await;
        }
    }

    pub async fn create(&self, kind: &Kind, object: Value) -> Value {
        let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
        self.cluster.create(kind, namespace.as_deref(), &object).await.unwrap()
    }

    /// Waits until the object fulfils `condition`; `Value::Null` is an object that is not there.
    pub async fn until(&self, kind: &Kind, namespace: Option<&str>, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let found = match self.cluster.get(kind, namespace, name).await {
                Ok(found) => found,
                Err(ClusterError::NotFound) => Value::Null,
                Err(error) => panic!("{error}"),
            };
            if condition(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "not so in time: {found}");
            actor::testing::breathe().await;
        }
    }

    /// Waits until Downstream has seen so many objects of a kind. Each kind has a watch of its own, so what is created first
    /// need not be seen first.
    pub async fn seen(&self, kind: &str, count: usize) {
        let deadline = Instant::now() + SOON;
        loop {
            let known = self.known.get();
            if known.objects.get(kind) == Some(&count) {
                return;
            }
            assert!(Instant::now() < deadline, "{count} of {kind} not seen in time: {known:?}");
            actor::testing::breathe().await;
        }
    }

    /// The next frame for `to` that fulfils `condition`; what comes before is let go.
    pub async fn told(&self, to: &str, condition: impl Fn(&Frame<Body>) -> bool) -> Frame<Body> {
        let deadline = Instant::now() + SOON;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            let Some(message) = self.hub.next(SOON).await else { break };
            let (CloudHubMessage::Send { node, frame, .. } | CloudHubMessage::Answer { node, frame }) = &*message else { continue };
            if node.as_str() == to && condition(frame) {
                return frame.clone();
            }
            seen.push(format!("{node}: {:?}", frame.body));
        }
        panic!("not told in time, but: {seen:#?}")
    }

    /// The answer to `question`.
    pub async fn answer(&self, to: &str, question: &Frame<Said>) -> Body {
        self.told(to, |frame| frame.parent.as_ref() == Some(&question.id)).await.body
    }

    /// What is sent next for a key.
    pub async fn next_send(&self) -> (String, OutboxKey, Frame<Body>) {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            if let Some(message) = self.hub.next(SOON).await
                && let CloudHubMessage::Send { node, key, frame } = &*message
            {
                return (node.to_string(), key.clone(), frame.clone());
            }
        }
        panic!("nothing was sent in time")
    }
}
