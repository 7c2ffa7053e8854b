//! The Kubernetes API as the controllers use it: JSON in and out, a deadline on each request, refusals by type.
//!
//! Nothing here can tell a real API server from the embedded one.

use std::time::Duration;

use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, Request, request};
use serde_json::Value;

use crate::standing::Standing;

/// How long one request may take. An edge repeats what was not confirmed, so giving up is safe.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A kind of object: where it lives in the API.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind, as in manifests.
    pub kind: &'static str,
    /// Plural, as in URLs.
    pub plural: &'static str,
}

macro_rules! kind {
    ($name:ident, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        #[doc = concat!("`", $kind, "`")]
        pub const $name: Kind = Kind { group: $group, version: $version, kind: $kind, plural: $plural };
    };
}

kind!(POD, "", "v1", "Pod", "pods");
kind!(CONFIG_MAP, "", "v1", "ConfigMap", "configmaps");
kind!(SECRET, "", "v1", "Secret", "secrets");
kind!(NODE, "", "v1", "Node", "nodes");
kind!(EVENT, "", "v1", "Event", "events");
kind!(NAMESPACE, "", "v1", "Namespace", "namespaces");
kind!(LEASE, "coordination.k8s.io", "v1", "Lease", "leases");
kind!(DEVICE, "devices.kubeedge.io", "v1beta1", "Device", "devices");
kind!(DEVICE_MODEL, "devices.kubeedge.io", "v1beta1", "DeviceModel", "devicemodels");
kind!(DEVICE_STATUS, "devices.kubeedge.io", "v1beta1", "DeviceStatus", "devicestatuses");

impl Kind {
    /// `group/version`, or `version` for the core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The same for `kube`'s dynamic objects.
    pub fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    fn request(&self, namespace: Option<&str>) -> Request {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        let scope = namespace.map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
        Request::new(format!("/{root}/{}/{scope}{}", self.api_version(), self.plural))
    }
}

/// Why a request did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// 404: no such object (or no such kind).
    #[error("not found")]
    NotFound,
    /// 409: exists already, or was changed or replaced meanwhile.
    #[error("conflict: {0}")]
    Conflict(String),
    /// Any other refusal; asking again gives the same answer until somebody changes something.
    #[error("refused with {code}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// What the API said.
        message: String,
    },
    /// The API cannot be reached, is overloaded, or did not answer in time; worth another try.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                404 => Self::NotFound,
                409 => Self::Conflict(status.message.clone()),
                429 | 500.. => Self::Unavailable(format!("{} ({})", status.message, status.code)),
                code => Self::Refused { code, message: status.message.clone() },
            },
            // A request that cannot be built will not be better next time.
            kube::Error::BuildRequest(error) => Self::Refused { code: 0, message: error.to_string() },
            other => Self::Unavailable(actor::chain(&other)),
        }
    }
}

impl From<request::Error> for ClusterError {
    fn from(error: request::Error) -> Self {
        Self::Refused { code: 0, message: error.to_string() }
    }
}

/// Which part of an object a patch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object itself.
    Main,
    /// Its `status` subresource.
    Status,
}

/// A client of one API server. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    standing: Standing,
}

impl Cluster {
    /// Wraps a client.
    pub fn new(client: Client) -> Self {
        Self { client, standing: Standing::default() }
    }

    /// The same, counting where the page looks.
    #[must_use]
    pub fn seen_by(mut self, standing: Standing) -> Self {
        self.standing = standing;
        self
    }

    /// What has been seen of this API.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// A client for the API that `config` describes; no connection is opened yet. Inside a tokio runtime only.
    ///
    /// # Errors
    /// When its certificates or keys cannot be used.
    pub fn connect(config: &kube::Config) -> Result<Self, kube::Error> {
        Client::try_from(config.clone()).map(Self::new)
    }

    /// The client, for watches.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The object as JSON.
    ///
    /// # Errors
    /// `NotFound`, and the others of [`ClusterError`].
    pub async fn get(&self, kind: &Kind, namespace: Option<&str>, name: &str) -> Result<Value, ClusterError> {
        self.within(self.client.request(kind.request(namespace).get(name, &Default::default())?)).await
    }

    /// The object's JSON text, unread.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub async fn get_text(&self, kind: &Kind, namespace: Option<&str>, name: &str) -> Result<String, ClusterError> {
        let request = kind.request(namespace).get(name, &Default::default())?;
        self.within(self.client.request_text(request)).await
    }

    /// Creates an object and returns what is stored.
    ///
    /// # Errors
    /// `Conflict` when it exists.
    pub async fn create(&self, kind: &Kind, namespace: Option<&str>, object: &Value) -> Result<Value, ClusterError> {
        let body = serde_json::to_vec(object).expect("a JSON value always serialises");
        self.within(self.client.request(kind.request(namespace).create(&PostParams::default(), body)?)).await
    }

    /// Applies a JSON merge patch and returns what is stored.
    ///
    /// # Errors
    /// `Conflict` when the patch names another uid or an older resourceVersion than the stored one.
    pub async fn patch(&self, kind: &Kind, namespace: Option<&str>, name: &str, part: Part, patch: &Value) -> Result<Value, ClusterError> {
        let (request, patch, params) = (kind.request(namespace), Patch::Merge(patch), PatchParams::default());
        let request = match part {
            Part::Main => request.patch(name, &params, &patch)?,
            Part::Status => request.patch_subresource("status", name, &params, &patch)?,
        };
        self.within(self.client.request(request)).await
    }

    /// Deletes an object at once, if it still is the one with this uid.
    ///
    /// # Errors
    /// `Conflict` when another object stands there by now.
    pub async fn delete_now(&self, kind: &Kind, namespace: Option<&str>, name: &str, uid: &str) -> Result<(), ClusterError> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Default::default() };
        let params = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
        self.within(self.client.request::<Value>(kind.request(namespace).delete(name, &params)?)).await.map(drop)
    }

    async fn within<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ClusterError> {
        let in_time = async {
            match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
                Ok(result) => result.map_err(ClusterError::from),
                Err(_) => Err(ClusterError::Unavailable(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))),
            }
        };
        self.standing.count(in_time).await
    }
}
