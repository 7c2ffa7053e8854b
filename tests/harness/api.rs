//! The Kubernetes API over plain HTTP, by `kubectl proxy`: for hundreds of changes, and for moments to the millisecond.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::wait::eventually;
use crate::{Kubectl, http, names};

/// Below which the things of the namespace `default` are.
pub const CORE: &str = "/api/v1/namespaces/default";
/// Below which its devices are.
pub const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default";

/// A running `kubectl proxy`. It outlives the API that it leads to, and finds it again.
#[derive(Debug)]
pub struct Api {
    child: Child,
    client: ApiClient,
}

/// Speaks to the API through an [`Api`] that runs.
#[derive(Clone, Copy, Debug)]
pub struct ApiClient {
    port: u16,
}

impl std::ops::Deref for Api {
    type Target = ApiClient;

    fn deref(&self) -> &ApiClient {
        &self.client
    }
}

impl Api {
    /// Starts one and waits until it takes connections.
    ///
    /// # Panics
    /// When `kubectl` cannot be started.
    #[track_caller]
    pub fn start(kubectl: &Kubectl) -> Self {
        let port = names::port();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "kubectl", "proxy", "--port", &port.to_string(), "--kubeconfig"]).arg(kubectl.kubeconfig());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start kubectl: {error}; run deploy/setup.sh --for test"));
        let api = Self { child, client: ApiClient { port } };
        eventually("kubectl proxy answers", Duration::from_secs(20), || api.get("/version"));
        api
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ApiClient {
    /// The object, or the list.
    ///
    /// # Errors
    /// The API's words, for an object that does not exist too.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        read(http::get(self.port, path)?)
    }

    /// Creates an object in the collection `path`, and gives it as it is stored.
    ///
    /// # Errors
    /// The API's words.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value, String> {
        read(http::send(self.port, "POST", path, "application/json", &object.to_string())?)
    }

    /// Changes an object by a merge patch, and gives it as it is stored.
    ///
    /// # Errors
    /// The API's words.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<Value, String> {
        read(http::send(self.port, "PATCH", path, "application/merge-patch+json", &patch.to_string())?)
    }

    /// Deletes an object; one that is not there is as good.
    ///
    /// # Errors
    /// The API's words.
    pub fn delete(&self, path: &str) -> Result<(), String> {
        match http::delete(self.port, path)? {
            (200..=299 | 404, _) => Ok(()),
            (status, body) => Err(format!("{status}: {body:.200}")),
        }
    }
}

fn read((status, body): (u16, String)) -> Result<Value, String> {
    if !(200..300).contains(&status) {
        return Err(format!("{status}: {body:.200}"));
    }
    serde_json::from_str(&body).map_err(|error| format!("{error}: {body:.200}"))
}
