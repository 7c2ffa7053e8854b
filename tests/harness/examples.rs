//! The manifests of `deploy/examples`, with a test's own names and values in them.

use crate::{images, top};

/// What a test puts into the examples.
#[derive(Clone, Debug)]
pub struct Thermometer {
    /// Node of pod and device.
    pub node: String,
    /// Name of the Pod and of its ConfigMap.
    pub pod: String,
    /// Name of the Device.
    pub device: String,
    /// Port of the broker the program talks to.
    pub broker_port: u16,
    /// What it reports until another value is asked of it.
    pub value: String,
}

impl Thermometer {
    /// `deploy/examples/thermometer.yaml`: ConfigMap and Pod.
    ///
    /// # Panics
    /// When the example does not have what is to be replaced.
    #[track_caller]
    pub fn workload(&self) -> String {
        let broker = format!("tcp://127.0.0.1:{}", self.broker_port);
        adapt(
            "deploy/examples/thermometer.yaml",
            &[
                ("tcp://127.0.0.1:1884", &broker),
                ("device: thermometer-01", &format!("device: {}", self.device)),
                ("value: \"21.5\"", &format!("value: \"{}\"", self.value)),
                ("period_ms: 1000", "period_ms: 300"),
                ("  name: thermometer\n", &format!("  name: {}\n", self.pod)),
                ("nodeName: demo-edge", &format!("nodeName: {}", self.node)),
                ("image: skep/thermometer:demo", &format!("image: {}", images::thermometer())),
            ],
        )
    }

    /// `deploy/examples/device.yaml`: DeviceModel and Device.
    ///
    /// # Panics
    /// When the example does not have what is to be replaced.
    #[track_caller]
    pub fn device(&self) -> String {
        adapt(
            "deploy/examples/device.yaml",
            &[("name: thermometer-01", &format!("name: {}", self.device)), ("nodeName: demo-edge", &format!("nodeName: {}", self.node))],
        )
    }
}

#[track_caller]
fn adapt(example: &str, changes: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(top().join(example)).unwrap_or_else(|error| panic!("{example}: {error}"));
    for (from, to) in changes {
        assert!(text.contains(from), "{example} has no `{from}`; the tests rely on it");
        text = text.replace(from, to);
    }
    text
}
