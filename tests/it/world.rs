//! One cloud, one edge, and a thermometer's names: where most tests begin.

use harness::examples::Thermometer;
use harness::{CloudUnderTest, EdgeOptions, EdgeUnderTest, Kubectl, docker, eventually, names};
use serde_json::Value;

pub struct World {
    // The edge first: fields are dropped in order, and it still talks to the cloud.
    pub edge: EdgeUnderTest,
    pub kubectl: Kubectl,
    pub thermometer: Thermometer,
    pub cloud: CloudUnderTest,
}

impl World {
    /// Starts both daemons and waits until the node is Ready.
    #[track_caller]
    pub fn start() -> Self {
        Self::of(CloudUnderTest::start(), EdgeOptions::default())
    }

    #[track_caller]
    pub fn of(cloud: CloudUnderTest, options: EdgeOptions) -> Self {
        let kubectl = cloud.kubectl();
        Self::with_api(cloud, options, kubectl)
    }

    /// As `of`, for a cloud whose API is another's.
    #[track_caller]
    pub fn with_api(cloud: CloudUnderTest, options: EdgeOptions, kubectl: Kubectl) -> Self {
        let edge = EdgeUnderTest::start_with(&cloud, options);
        let world = Self {
            thermometer: Thermometer {
                node: edge.node.clone(),
                pod: names::unique("pod"),
                device: names::unique("device"),
                broker_port: edge.mqtt_port,
                value: names::reading(10),
            },
            edge,
            kubectl,
            cloud,
        };
        eventually!(30, "the node is Ready", world.node_is("True"));
        world
    }

    pub fn node_is(&self, ready: &str) -> Result<(), String> {
        self.kubectl.value_is("node", &self.edge.node, "{.status.conditions[?(@.type==\"Ready\")].status}", ready)
    }

    /// The thermometer's container, running, as Docker shows it.
    pub fn container(&self) -> Result<Value, String> {
        docker::running(&self.edge.node, &self.thermometer.pod, "thermometer")
    }

    pub fn pod_is(&self, phase: &str) -> Result<(), String> {
        self.kubectl.value_is("pod", &self.thermometer.pod, "{.status.phase}", phase)
    }

    /// Applies the Device and waits until the edge knows it.
    #[track_caller]
    pub fn bind_device(&self) {
        self.kubectl.apply(&self.thermometer.device());
        eventually!(30, "the edge knows the device", self.edge.knows(&self.thermometer.device));
    }

    pub fn topic(&self, suffix: &str) -> String {
        format!("$hw/events/device/{}/twin/{suffix}", self.thermometer.device)
    }

    pub fn reported_is(&self, value: &str) -> Result<(), String> {
        let found = self.kubectl.reported(&self.thermometer.device, "temperature")?;
        if found == value { Ok(()) } else { Err(format!("reported is `{found}`, not `{value}`")) }
    }
}

/// A value in a twin message's JSON: `value_of(&body, "temperature", "actual")`.
pub fn value_of<'a>(body: &'a Value, property: &str, side: &str) -> Option<&'a str> {
    body["twin"][property][side]["value"].as_str()
}
