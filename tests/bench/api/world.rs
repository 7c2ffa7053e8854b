//! The cluster, the cloud behind a wire that can be cut, and its two edges.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Line, sqlite};
use model::NodeName;
use serde_json::{Value, json};

use super::Mended;
use super::seen::Seen;
use crate::Outcome;
use crate::hollow::{self, Api, Cloud, Edge, Greeting, Manner, Node, Options};
use crate::twin::Client;

/// ConfigMaps that the pod of the hollow edge needs.
const CONFIG_MAPS: usize = 20;
const REAL: &str = "real";
const HOLLOW: &str = "hollow";
const DEVICE: &str = "lamp";
const PROPERTY: &str = "light";
const CORE: &str = "/api/v1/namespaces/default";
const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/real";
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything, in the order in which it ends.
pub struct World {
    edge: Edge,
    hollow: std::thread::JoinHandle<()>,
    stop: tokio::sync::watch::Sender<bool>,
    seen: Arc<Seen>,
    cloud: Cloud,
    wire: Line,
    cluster: Cloud,
}

/// A Node and its lease, at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct NodeSeen {
    ready: String,
    heartbeat: String,
    renewed: String,
}

impl World {
    /// Starts all of it.
    ///
    /// # Errors
    /// A daemon does not start or ends; the first round of objects does not arrive.
    pub fn make() -> Result<Self, String> {
        let cluster = Cloud::start_with(&Options::default())?;
        let wire = Line::tcp(cluster.api_port());
        let path = cluster.dir().join("kubeconfig-through-the-wire");
        let read = std::fs::read_to_string(cluster.kubeconfig()).map_err(|error| error.to_string())?;
        let through = read.replace(&format!(":{}", cluster.api_port()), &format!(":{}", wire.port()));
        if through == read {
            return Err("the kubeconfig of the embedded API has another form".to_owned());
        }
        std::fs::write(&path, through).map_err(|error| format!("{}: {error}", path.display()))?;
        let cloud = Cloud::start_with(&Options { kubeconfig: Some(path), ..Options::default() })?;
        let authority = cloud.authority()?;
        let edge = Edge::start(&NodeName::new(REAL).expect("a valid name"), &authority, cloud.hub_port())?;
        let name = NodeName::new(HOLLOW).expect("a valid name");
        let node = Node::new(0, name.clone(), authority.of_node(&name)?);
        let manner = Arc::new(Manner { port: cloud.hub_port(), one_way: Duration::ZERO, greeting: Greeting::Whole });
        let (seen, (stop, mut stopped)) = (Arc::new(Seen::default()), tokio::sync::watch::channel(false));
        let runtime = hollow::runtime()?;
        let hollow = std::thread::spawn({
            let seen = seen.clone();
            move || {
                runtime.block_on(async {
                    tokio::spawn(node.run(manner, seen));
                    let _ = stopped.wait_for(|stopped| *stopped).await;
                });
            }
        });
        let mut world = Self { edge, hollow, stop, seen, cloud, wire, cluster };
        let filled = hollow::runtime()?.block_on(world.fill());
        filled.map_err(|error| world.with_log(error))?;
        Ok(world)
    }

    /// The first round, with the API there.
    async fn fill(&mut self) -> Outcome {
        let mut api = self.cluster_api().await?;
        for number in 0..CONFIG_MAPS {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{number}")}, "data": {"round": "0"}});
            api.create(&format!("{CORE}/configmaps"), &map).await?;
        }
        let names: Vec<String> = (0..CONFIG_MAPS).map(|number| format!("map-{number}")).collect();
        api.create(&format!("{CORE}/pods"), &pod("pod", &names)).await?;
        api.create(&format!("{CORE}/pods"), &pod("pod-0", &[])).await?;
        let property = json!({"name": PROPERTY, "type": "STRING", "accessMode": "ReadWrite"});
        let model = json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": DEVICE},
            "spec": {"protocol": "mqtt", "properties": [property]},
        });
        api.create(&format!("{DEVICES}/devicemodels"), &model).await?;
        let device = json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": DEVICE},
            "spec": {"deviceModelRef": {"name": DEVICE}, "nodeName": REAL, "protocol": {"protocolName": "mqtt"}, "properties": [desired(0)]},
        });
        api.create(&format!("{DEVICES}/devices"), &device).await?;
        let began = Instant::now();
        while !self.is_changed_at_edge(0)? {
            if began.elapsed() > PATIENCE {
                return Err("the desired value of the device did not reach the edge".to_owned());
            }
            tokio::time::sleep(super::LOOK_EVERY).await;
        }
        self.report(0)?;
        let nothing = NodeSeen { ready: String::new(), heartbeat: String::new(), renewed: String::new() };
        loop {
            let is_there = |name: &str| self.seen.object(name).is_some();
            let objects = is_there("pod/pod") && is_there("pod/pod-0") && is_there(&format!("configmap/map-{}", CONFIG_MAPS - 1));
            if objects && self.is(Mended::Report, &mut api, &nothing, 0).await? && self.is(Mended::Ready, &mut api, &nothing, 0).await? {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("the world is not complete within {} s", PATIENCE.as_secs()));
            }
            tokio::time::sleep(super::LOOK_EVERY).await;
        }
    }

    /// A connection to the cluster that no scissors reach.
    pub async fn cluster_api(&self) -> Result<Api, String> {
        self.cluster.api().await
    }

    /// Takes the API away from the cloud.
    pub fn cut(&self) {
        self.wire.cut();
    }

    /// Gives it back.
    pub fn mend(&self) {
        self.wire.mend();
    }

    /// Changes objects in the cluster and lets the device report.
    pub async fn change(&mut self, api: &mut Api, round: u64) -> Outcome {
        for number in 0..CONFIG_MAPS {
            api.patch(&format!("{CORE}/configmaps/map-{number}"), &json!({"data": {"round": round.to_string()}})).await?;
        }
        let (map, new) = (format!("new-{round}"), format!("pod-{round}"));
        api.create(&format!("{CORE}/configmaps"), &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": &map}})).await?;
        api.create(&format!("{CORE}/pods"), &pod(&new, &[map])).await?;
        api.delete(&format!("{CORE}/pods/pod-{}?gracePeriodSeconds=0", round - 1)).await?;
        api.patch(&format!("{DEVICES}/devices/{DEVICE}"), &json!({"spec": {"properties": [desired(round)]}})).await?;
        self.report(round)
    }

    /// The device reports, and hears that it is durable.
    fn report(&self, round: u64) -> Outcome {
        let topic = format!("$hw/events/device/{DEVICE}/twin/update");
        let mut client = Client::connect(&self.edge.mqtt(), PATIENCE)?;
        client.subscribe(&[format!("{topic}/result")])?;
        let body = json!({"event_id": "report", "timestamp": 0, "twin": {PROPERTY: {"actual": {"value": format!("reported-{round}")}}}});
        client.requests.publish(&topic, body.to_string().as_bytes());
        client.requests.send()?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            client.answers.receive()?;
            if let Some(message) = client.answers.next()? {
                let text = String::from_utf8_lossy(message.payload);
                return if text.contains(r#""code""#) { Err(format!("the device's report was refused: {text}")) } else { Ok(()) };
            }
        }
        Err("the device's report was not answered".to_owned())
    }

    /// The real edge's Node and lease.
    pub async fn node(&self, api: &mut Api) -> Result<NodeSeen, String> {
        let node = api.get(&format!("/api/v1/nodes/{REAL}")).await?;
        let lease = api.get(LEASE).await?;
        let ready = node["status"]["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Ready").cloned();
        let ready = ready.unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(NodeSeen { ready: text(&ready["status"]), heartbeat: text(&ready["lastHeartbeatTime"]), renewed: text(&lease["spec"]["renewTime"]) })
    }

    /// Whether the edge knows what was wanted of its device in this round.
    pub fn is_changed_at_edge(&self, round: u64) -> Result<bool, String> {
        let statement = format!("SELECT expected FROM device_twin WHERE deviceid = '{DEVICE}' AND name = '{PROPERTY}'");
        sqlite::query(&self.edge.database(), &statement).map(|expected| expected == format!("desired-{round}"))
    }

    /// Whether it has come true.
    pub async fn is(&self, what: Mended, api: &mut Api, before: &NodeSeen, round: u64) -> Result<bool, String> {
        match what {
            Mended::Ready => {
                let Ok(node) = self.node(api).await else { return Ok(false) };
                // Without a container engine the edge says itself that it is not; what the API must not say is `Unknown`.
                let wanted = if self.edge.has_engine() { "True" } else { "False" };
                Ok(node.ready == wanted && node.renewed != before.renewed)
            }
            Mended::Status => Ok(self.node(api).await?.heartbeat != before.heartbeat),
            Mended::Report => {
                let Ok(status) = api.get(&format!("{DEVICES}/devicestatuses/{DEVICE}")).await else { return Ok(false) };
                Ok(status["status"]["twins"][0]["reported"]["value"] == format!("reported-{round}"))
            }
            Mended::Desired => self.is_changed_at_edge(round),
            Mended::Objects => {
                let round_text = &round.to_string();
                let changed = (0..CONFIG_MAPS)
                    .all(|number| self.seen.object(&format!("configmap/map-{number}")).is_some_and(|map| map["data"]["round"] == *round_text));
                let new = self.seen.object(&format!("configmap/new-{round}")).is_some() && self.seen.object(&format!("pod/pod-{round}")).is_some();
                Ok(changed && new && self.seen.object(&format!("pod/pod-{}", round - 1)).is_none())
            }
        }
    }

    /// An error if a daemon has ended or an edge has lost its connection.
    pub fn must_run(&mut self) -> Outcome {
        self.cluster.must_run()?;
        self.cloud.must_run()?;
        if let Some(fault) = self.seen.fault() {
            return Err(fault);
        }
        match self.edge.metric("cloud_connected")? > 0.0 {
            true => Ok(()),
            false => Err("skep-edge lost its connection to the cloud".to_owned()),
        }
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// A daemon had ended by itself.
    pub fn stop(self) -> Outcome {
        let Self { edge, hollow, stop, mut cloud, mut cluster, .. } = self;
        drop(edge);
        stop.send_replace(true);
        hollow.join().map_err(|_| "the hollow edge panicked".to_owned())?;
        cloud.stop()?;
        cluster.stop()
    }

    /// An error with the ends of the logs.
    pub fn with_log(&self, error: impl std::fmt::Display) -> String {
        self.edge.with_log(self.cloud.with_log(error))
    }
}

fn pod(name: &str, config_maps: &[String]) -> Value {
    let volumes: Vec<_> = config_maps.iter().map(|name| json!({"name": name, "configMap": {"name": name}})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": HOLLOW, "volumes": volumes, "containers": [{"name": "main", "image": "none"}]},
    })
}

fn desired(round: u64) -> Value {
    json!({"name": PROPERTY, "reportToCloud": true, "desired": {"value": format!("desired-{round}")}})
}
