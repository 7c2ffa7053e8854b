//! The link under a bad network: whatever happened on it, edge and cloud are in step soon after.
//!
//! | file | what happens to the link |
//! |---|---|
//! | `half_open` | it stands, and nothing passes: both ways, or one |
//! | `cuts` | it is cut again and again |
//! | `slow_reader` | one node takes a thousand bytes in a second |
//! | `kills` | cloud and edge are killed in turn |
//! | `offline` | the cloud is away for long |
//! | `two_clouds` | another cloud answers |
//! | `placement` | who knows where the cloud is cannot be asked |

mod changes;
mod cuts;
mod half_open;
mod kills;
mod offline;
mod placement;
mod slow_reader;
mod two_clouds;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::api::{CORE, DEVICES};
use harness::{Api, ApiClient, CloudOptions, CloudUnderTest, EdgeOptions, EdgeUnderTest, Kubectl, Line, eventually, http, names, sqlite};
use serde_json::{Value, json};

/// Within which edge and cloud are in step when nothing is in the way any more, on a machine that is busy.
const IN_STEP_SECS: u64 = 20;
/// Seconds between two keepalives of the edge; it takes the cloud for gone after two.
const HEARTBEAT_SECS: u64 = 1;
/// Seconds after which the cloud takes a silent node for gone.
const KEEPALIVE_SECS: u64 = 3;

/// ConfigMaps that a node's pod names.
const MAPS: usize = 4;
/// Properties of a node's device.
const PROPERTIES: usize = 4;

fn environment(pairs: &[(&str, u64)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect()
}

/// A cloud that soon misses a node.
fn attentive_cloud() -> CloudOptions {
    CloudOptions { environment: environment(&[("SKEP_CLOUDHUB__KEEPALIVE_INTERVAL", KEEPALIVE_SECS)]), ..CloudOptions::default() }
}

/// An edge that soon misses its cloud, which is behind this port.
fn attentive_edge(hub_port: u16) -> EdgeOptions {
    edge_that_waits(hub_port, HEARTBEAT_SECS)
}

/// An edge with so many seconds between two keepalives.
fn edge_that_waits(hub_port: u16, heartbeat_secs: u64) -> EdgeOptions {
    let environment = environment(&[
        ("SKEP_EDGEHUB__CONTROLLER__HEARTBEAT", heartbeat_secs),
        ("SKEP_EDGEHUB__WEBSOCKET__READ_DEADLINE", heartbeat_secs),
        ("SKEP_EDGEHUB__WEBSOCKET__WRITE_DEADLINE", 2 * heartbeat_secs),
        ("SKEP_EDGEHUB__WEBSOCKET__HANDSHAKE_TIMEOUT", 2 * heartbeat_secs),
    ]);
    EdgeOptions { hub_port, environment, ..EdgeOptions::default() }
}

/// A cloud, and an edge behind a line.
struct Linked {
    // The edge first: fields are dropped in order, and it still talks to the cloud.
    node: Node,
    line: Line,
    api: Api,
    kubectl: Kubectl,
    cloud: CloudUnderTest,
}

/// An edge with a pod, the ConfigMaps that this names, and a device.
struct Node {
    edge: EdgeUnderTest,
    pod: String,
    device: String,
}

impl Linked {
    /// Starts both, and waits until they are in step.
    #[track_caller]
    fn start() -> Self {
        Self::over(true, HEARTBEAT_SECS)
    }

    /// As `start`, with an edge that a moment without a word does not let give up.
    #[track_caller]
    fn patient() -> Self {
        Self::over(true, 2 * HEARTBEAT_SECS)
    }

    /// As `start`, with the line beside the link: where the cloud is away, the machine says so and no line hides it.
    #[track_caller]
    fn direct() -> Self {
        Self::over(false, HEARTBEAT_SECS)
    }

    #[track_caller]
    fn over(the_line: bool, heartbeat_secs: u64) -> Self {
        let cloud = CloudUnderTest::start_with(attentive_cloud());
        let line = Line::tcp(cloud.hub_port);
        let kubectl = cloud.kubectl();
        let api = Api::start(&kubectl);
        let node = Node::start(&cloud, &api, edge_that_waits(if the_line { line.port() } else { cloud.hub_port }, heartbeat_secs));
        Self { node, line, api, kubectl, cloud }
    }

    fn is_in_step(&self) -> Result<(), String> {
        self.node.is_in_step(&self.api)
    }

    #[track_caller]
    fn must_be_in_step_soon(&self) {
        eventually!(IN_STEP_SECS, "edge and cloud are in step", self.is_in_step());
    }

    /// Whether the cloud says that so many nodes are connected.
    fn cloud_sees(&self, nodes: u32) -> Result<(), String> {
        let seen = http::metric(self.cloud.admin_port, "skep_cloud_nodes_connected")?;
        if seen == f64::from(nodes) { Ok(()) } else { Err(format!("the cloud sees {seen} nodes, not {nodes}")) }
    }
}

impl Node {
    /// Joins the cloud, creates the objects, and waits until they are there.
    #[track_caller]
    fn start(cloud: &CloudUnderTest, api: &ApiClient, options: EdgeOptions) -> Self {
        let edge = EdgeUnderTest::start_with(cloud, options);
        let node = Self { edge, pod: names::unique("pod"), device: names::unique("device") };
        let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
        eventually!(30, "the node is Ready", cloud.kubectl().value_is("node", &node.edge.node, ready, "True"));
        node.create_objects(api);
        eventually!(30, "edge and cloud are in step", node.is_in_step(api));
        node
    }

    #[track_caller]
    fn create_objects(&self, api: &ApiClient) {
        for number in 0..MAPS {
            api.create(&format!("{CORE}/configmaps"), &config_map(&self.map(number), "0")).unwrap();
        }
        api.create(&format!("{CORE}/pods"), &pod(&self.pod, &self.edge.node, &self.maps())).unwrap();
        let properties = |extra: Value| {
            (0..PROPERTIES)
                .map(|number| {
                    let mut property = json!({"name": property(number)});
                    property.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
                    property
                })
                .collect::<Vec<_>>()
        };
        let model = json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": self.device},
            "spec": {"protocol": "mqtt", "properties": properties(json!({"type": "STRING", "accessMode": "ReadWrite"}))},
        });
        api.create(&format!("{DEVICES}/devicemodels"), &model).unwrap();
        let device = json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": self.device},
            "spec": {
                "deviceModelRef": {"name": self.device}, "nodeName": self.edge.node, "protocol": {"protocolName": "mqtt"},
                "properties": properties(json!({"reportToCloud": true, "desired": {"value": "0"}})),
            },
        });
        api.create(&format!("{DEVICES}/devices"), &device).unwrap();
    }

    /// Name of one of the ConfigMaps.
    fn map(&self, number: usize) -> String {
        format!("{}-map-{number}", self.pod)
    }

    fn maps(&self) -> Vec<String> {
        (0..MAPS).map(|number| self.map(number)).collect()
    }

    /// Asks a value of the device.
    fn desire(&self, api: &ApiClient, property: &str, value: &str) -> Result<(), String> {
        desire(api, &self.device, property, value)
    }

    /// Whether the edge says that a session stands.
    fn is_connected(&self) -> Result<(), String> {
        self.says_connected(1.0)
    }

    /// Whether the edge says that none stands.
    fn is_disconnected(&self) -> Result<(), String> {
        self.says_connected(0.0)
    }

    fn says_connected(&self, wanted: f64) -> Result<(), String> {
        let found = http::metric(self.edge.admin_port, "skep_edge_cloud_connected")?;
        if found == wanted { Ok(()) } else { Err(format!("cloud_connected is {found}, not {wanted}")) }
    }

    /// Whether edge and API have the same pods, ConfigMaps, and values of the device.
    fn is_in_step(&self, api: &ApiClient) -> Result<(), String> {
        self.has_what_is_wanted(api)?;
        same("reported values", &reported_in_api(api, &self.device)?, &self.column("actual")?)
    }

    /// Whether the edge has the pods, ConfigMaps and desired values of the API, and no others.
    fn has_what_is_wanted(&self, api: &ApiClient) -> Result<(), String> {
        same("objects", &objects_of_api(api, &self.edge.node)?, &objects_of_edge(&self.edge)?)?;
        same("desired values", &desired_in_api(api, &self.device)?, &self.column("expected")?)
    }

    fn column(&self, column: &str) -> Result<BTreeMap<String, String>, String> {
        let rows = format!("SELECT json_group_object(name, {column}) FROM device_twin WHERE deviceid = '{}' AND {column} <> ''", self.device);
        texts(&sqlite::query(&self.edge.database(), &rows)?)
    }
}

/// Asks a value of a device. The list of properties is replaced as a whole, so the others are read first.
fn desire(api: &ApiClient, device: &str, property: &str, value: &str) -> Result<(), String> {
    let path = format!("{DEVICES}/devices/{device}");
    let mut properties = api.get(&path)?["spec"]["properties"].clone();
    for entry in properties.as_array_mut().into_iter().flatten().filter(|entry| entry["name"] == property) {
        entry["desired"] = json!({"value": value});
    }
    api.patch(&path, &json!({"spec": {"properties": properties}})).map(drop)
}

fn property(number: usize) -> String {
    format!("p{number}")
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, in_api: &T, at_edge: &T) -> Result<(), String> {
    if in_api == at_edge { Ok(()) } else { Err(format!("{what}: the API has {in_api:?}, the edge {at_edge:?}")) }
}

fn texts(json: &str) -> Result<BTreeMap<String, String>, String> {
    serde_json::from_str(json).map_err(|error| format!("{error}: {json:.200}"))
}

/// A ConfigMap with one value.
fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}})
}

/// A pod that names these ConfigMaps. There is no such image, so nothing runs; it is an object like any other.
fn pod(name: &str, node: &str, maps: &[String]) -> Value {
    let volumes: Vec<Value> = maps.iter().map(|map| json!({"name": map, "configMap": {"name": map, "optional": true}})).collect();
    let container = json!({"name": "c", "image": "skep.test/none:none", "imagePullPolicy": "Never"});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {"value": "0"}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container], "volumes": volumes},
    })
}

/// What of an object must be the same on both sides: which one it is, what is in it, whether it is going.
fn essence(object: &Value) -> String {
    let metadata = &object["metadata"];
    format!("{} {} {} deleted={}", metadata["uid"], object["data"], metadata["annotations"]["value"], metadata["deletionTimestamp"].is_string())
}

/// Pods of a node and the ConfigMaps that they name, as the API has them, by the edge's keys.
fn objects_of_api(api: &ApiClient, node: &str) -> Result<BTreeMap<String, String>, String> {
    let items = |list: Value| list["items"].as_array().cloned().unwrap_or_default();
    let mut pods = items(api.get(&format!("{CORE}/pods"))?);
    pods.retain(|pod| pod["spec"]["nodeName"] == node);
    let named = |map: &Value| {
        let name = &map["metadata"]["name"];
        let volumes = pods.iter().flat_map(|pod| pod["spec"]["volumes"].as_array().into_iter().flatten());
        volumes.map(|volume| &volume["configMap"]["name"]).any(|wanted| wanted == name)
    };
    let maps: Vec<Value> = items(api.get(&format!("{CORE}/configmaps"))?).into_iter().filter(named).collect();
    let keyed = |kind: &str, objects: &[Value]| {
        let key = |object: &Value| format!("default/{kind}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
        objects.iter().map(|object| (key(object), essence(object))).collect::<Vec<_>>()
    };
    Ok(keyed("pod", &pods).into_iter().chain(keyed("configmap", &maps)).collect())
}

/// Pods and ConfigMaps in the edge's table.
fn objects_of_edge(edge: &EdgeUnderTest) -> Result<BTreeMap<String, String>, String> {
    let rows = "SELECT json_group_object(key, json(value)) FROM meta WHERE type IN ('pod', 'configmap')";
    let text = sqlite::query(&edge.database(), rows)?;
    let objects: BTreeMap<String, Value> = serde_json::from_str(&text).map_err(|error| format!("{error}: {text:.200}"))?;
    Ok(objects.iter().map(|(key, object)| (key.clone(), essence(object))).collect())
}

fn desired_in_api(api: &ApiClient, device: &str) -> Result<BTreeMap<String, String>, String> {
    let found = api.get(&format!("{DEVICES}/devices/{device}"))?;
    Ok(values(&found["spec"]["properties"], "name", "desired"))
}

fn reported_in_api(api: &ApiClient, device: &str) -> Result<BTreeMap<String, String>, String> {
    // It appears with the first report.
    match api.get(&format!("{DEVICES}/devicestatuses/{device}")) {
        Ok(found) => Ok(values(&found["status"]["twins"], "propertyName", "reported")),
        Err(words) if words.starts_with("404") => Ok(BTreeMap::new()),
        Err(words) => Err(words),
    }
}

fn values(list: &Value, name: &str, side: &str) -> BTreeMap<String, String> {
    let one = |entry: &Value| Some((entry[name].as_str()?.to_owned(), entry[side]["value"].as_str()?.to_owned()));
    list.as_array().into_iter().flatten().filter_map(one).collect()
}

/// Lets time pass while a daemon must not end.
#[track_caller]
fn pass(edge: &mut EdgeUnderTest, time: Duration) {
    harness::wait::never("the edge ends", time, || edge.daemon().must_run());
}

/// Memory that a process has resident now, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
