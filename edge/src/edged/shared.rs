//! What stands beside the actor and is shared by everything that works for it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actor::Handle;
use jiff::Timestamp;
use model::{Clock, NodeName, SystemClock};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::container::Surroundings;
use super::env::Capacity;
use super::housekeeping::{self, House};
use super::message::EdgedMessage;
use super::node::{self, Address};
use super::page::Snapshot;
use super::runtime::{ContainerRuntime, RuntimeError};
use super::static_pods::StaticPods;

/// Short calls to the engine at once.
const CALLS_MAX: usize = 8;
/// Pulls at once.
const PULLS_MAX: usize = 3;

/// What all passes share.
pub struct Shared {
    /// The engine.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// Edged's mailbox.
    pub edged: Handle<EdgedMessage>,
    /// Value of the node label.
    pub node: String,
    /// Where the machine was when it was last looked for.
    address: Mutex<Address>,
    /// Looks where it is now, given where it was.
    finds: Box<dyn Fn(Address) -> Address + Send + Sync>,
    /// Where the directories of the pods are.
    pub pods: PathBuf,
    /// What this machine adds to each container.
    pub surroundings: Surroundings,
    /// What stands for a limit that a pod does not set.
    pub capacity: Capacity,
    /// What the configuration says about the node.
    pub node_settings: node::Settings,
    /// What is watched and cleared of the machine.
    pub housekeeping: housekeeping::Settings,
    /// What housekeeping remembers.
    pub house: Mutex<House>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Short calls that may be open at the engine at once.
    pub calls: Semaphore,
    /// Pulls that may run at once.
    pub pulls: Semaphore,
    /// What the module knows, for the page and for its next incarnation.
    pub page: Mutex<Snapshot>,
    /// The sandbox's image is there; asked once, and again after a sandbox could not be made of it.
    pub pause: tokio::sync::Mutex<bool>,
    /// When the daemon began.
    pub began: Instant,
    /// The engine may not protect anything from the out-of-memory killer.
    pub unprotected: AtomicBool,
    /// Pods from files with their status, by uid: the API has none of them, so they are kept for readers on this machine.
    pub local: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Pods from files, as they were read last.
    pub statics: Mutex<StaticPods>,
    /// Directory of the seccomp profiles that pods may name.
    pub seccomp: PathBuf,
}

impl Shared {
    /// What the passes of all incarnations share. `data_dir` is the daemon's; the pods are in `pods` below it.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(
        runtime: Arc<dyn ContainerRuntime>,
        edged: Handle<EdgedMessage>,
        node: &NodeName,
        address: Address,
        data_dir: &Path,
    ) -> std::io::Result<Self> {
        Self::with_clock(runtime, edged, node, address, data_dir, Arc::new(SystemClock))
    }

    /// As [`Shared::open`], with a clock.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn with_clock(
        runtime: Arc<dyn ContainerRuntime>,
        edged: Handle<EdgedMessage>,
        node: &NodeName,
        address: Address,
        data_dir: &Path,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        // Docker wants absolute paths to mount.
        let pods: PathBuf = std::path::absolute(data_dir)?.join("pods");
        node::prepare_dir(&pods)?;
        let seccomp = std::path::absolute(data_dir)?.join("seccomp");
        Ok(Self {
            runtime,
            edged,
            node: node.to_string(),
            address: Mutex::new(address),
            finds: Box::new(|known| known),
            pods,
            surroundings: Surroundings::default(),
            capacity: Capacity::default(),
            node_settings: node::Settings::default(),
            housekeeping: housekeeping::Settings::default(),
            house: Mutex::default(),
            clock,
            calls: Semaphore::new(CALLS_MAX),
            pulls: Semaphore::new(PULLS_MAX),
            page: Mutex::default(),
            pause: tokio::sync::Mutex::default(),
            began: Instant::now(),
            unprotected: AtomicBool::new(false),
            local: Arc::default(),
            statics: Mutex::default(),
            seccomp,
        })
    }

    /// On this machine, which gives pods so much.
    #[must_use]
    pub fn on(self, surroundings: Surroundings, capacity: Capacity) -> Self {
        Self { surroundings, capacity, ..self }
    }

    /// As configured.
    #[must_use]
    pub fn with(self, node_settings: node::Settings, housekeeping: housekeeping::Settings) -> Self {
        Self { node_settings, housekeeping, ..self }
    }

    /// On a machine that may move: this looks where it is, at once and without a wait.
    #[must_use]
    pub fn found_by(self, finds: impl Fn(Address) -> Address + Send + Sync + 'static) -> Self {
        Self { finds: Box::new(finds), ..self }
    }

    /// Looks where the machine is now; where it was, if that is somewhere else.
    pub(super) fn locate(&self) -> Option<Ipv4Addr> {
        let mut address = self.address();
        let before = *address;
        *address = before.or((self.finds)(before));
        (address.ip != before.ip).then_some(before.ip)
    }

    /// Where the machine is.
    pub(super) fn address(&self) -> MutexGuard<'_, Address> {
        // Under this lock one value is set at once.
        self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Address of the machine, as its pods tell it.
    pub fn host_ip(&self) -> String {
        self.address().ip.to_string()
    }

    /// Where what runs on the machine's own network is asked from here.
    pub fn home_ip(&self) -> String {
        let address = *self.address();
        address.at_home().to_string()
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.clock.now().millis()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// A short call to the engine, when it is its turn.
    ///
    /// # Errors
    /// The call's.
    pub async fn call<T>(&self, answer: impl Future<Output = Result<T, RuntimeError>>) -> Result<T, RuntimeError> {
        // The semaphore is never closed; without it the call would still be right.
        let _permit = self.calls.acquire().await;
        answer.await
    }
}
