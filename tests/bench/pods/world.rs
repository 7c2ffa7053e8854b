//! One edge, the API beside it, and when its pods were seen running there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{Edge, Engine, Socket, eventually};
use crate::Outcome;
use crate::hollow::{self, Api, Cloud};

const CORE: &str = "/api/v1/namespaces/default";
/// What an edge and its cloud say to each other at the beginning is over after so long.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// See [`Client`]; well before that.
const CLOSED_AFTER: Duration = Duration::from_secs(2);

/// What the watch has shown of the pods.
#[derive(Default)]
struct Seen {
    /// When each was first seen with phase Running and all its containers running.
    running: HashMap<String, Instant>,
    ready: HashMap<String, bool>,
    ended: Option<String>,
}

/// The API, by one connection as long as it is used: the API closes one on which nothing is asked for five seconds.
struct Client {
    runtime: Runtime,
    port: u16,
    tls: Arc<ClientConfig>,
    api: Api,
    used: Instant,
}

impl Client {
    fn connect(cloud: &Cloud) -> Result<Self, String> {
        let (runtime, port, tls) = (hollow::runtime()?, cloud.api_port(), cloud.authority()?.of_administrator(&cloud.pki())?);
        let api = runtime.block_on(Api::connect(port, tls.clone()))?;
        Ok(Self { runtime, port, tls, api, used: Instant::now() })
    }

    fn ask<T>(&mut self, question: impl AsyncFnOnce(&mut Api) -> Result<T, String>) -> Result<T, String> {
        if self.used.elapsed() > CLOSED_AFTER {
            self.api = self.runtime.block_on(Api::connect(self.port, self.tls.clone()))?;
        }
        let answer = self.runtime.block_on(question(&mut self.api));
        self.used = Instant::now();
        answer
    }
}

/// A node with its API.
pub struct World {
    pub edge: Edge,
    pub socket: Socket,
    api: Client,
    seen: Arc<Mutex<Seen>>,
}

impl World {
    /// Starts the edge, connects it, and watches the pods.
    ///
    /// # Errors
    /// A daemon does not start or connect.
    pub fn make(cloud: &Cloud, engine: Engine, node: &str) -> Result<Self, String> {
        let socket = Socket::open()?;
        let mut edge = Edge::prepare(node, &cloud.authority()?, cloud.hub_port())?;
        edge.configure(engine, &socket.path())?;
        edge.run()?;
        edge.connected()?;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        watch(cloud, seen.clone())?;
        let api = Client::connect(cloud)?;
        hollow::pause(SETTLED_AFTER);
        Ok(Self { edge, socket, api, seen })
    }

    /// Creates an object of the namespace; gives it, and the moment of the API's answer.
    ///
    /// # Errors
    /// The API's words.
    pub fn create(&mut self, kind: &str, object: &Value) -> Result<(Value, Instant), String> {
        let created = self.api.ask(async |api| api.create(&format!("{CORE}/{kind}"), object).await)?;
        Ok((created, Instant::now()))
    }

    /// Changes an object by a merge patch; tells the moment of the API's answer.
    ///
    /// # Errors
    /// The API's words.
    pub fn patch(&mut self, path: &str, patch: &Value) -> Result<Instant, String> {
        self.api.ask(async |api| api.patch(&format!("{CORE}/{path}"), patch).await)?;
        Ok(Instant::now())
    }

    /// Deletes a pod, and waits until Docker has nothing of it.
    ///
    /// # Errors
    /// The API's words; it does not go.
    pub fn delete_pod(&mut self, name: &str) -> Outcome {
        self.api.ask(async |api| api.delete(&format!("{CORE}/pods/{name}")).await)?;
        let (edge, api) = (&mut self.edge, &mut self.api);
        eventually(&format!("pod {name} is gone"), || {
            edge.must_run()?;
            // Docker's command line is slow: it is asked once the API says that the edge is through.
            let is_there = api.ask(async |api| api.get(&format!("{CORE}/pods/{name}")).await).is_ok();
            Ok((!is_there && harness::docker::containers(edge.node(), Some(name))?.is_empty()).then_some(()))
        })
    }

    /// Waits until the API shows these pods running; tells when it first did, for each.
    ///
    /// # Errors
    /// A daemon ended; a pod does not run.
    pub fn running(&mut self, pods: &[String]) -> Result<Vec<Instant>, String> {
        let (edge, seen) = (&mut self.edge, &self.seen);
        eventually(&format!("Running in the API: {} pods, the last of them {}", pods.len(), pods.last().map_or("none", String::as_str)), || {
            edge.must_run()?;
            let seen = lock(seen);
            match &seen.ended {
                Some(error) => Err(error.clone()),
                None => Ok(pods.iter().map(|name| seen.running.get(name).copied()).collect()),
            }
        })
    }

    /// Waits until the API shows these pods ready.
    ///
    /// # Errors
    /// A daemon ended; a pod does not become ready.
    pub fn ready(&mut self, pods: &[String]) -> Outcome {
        let (edge, seen) = (&mut self.edge, &self.seen);
        eventually(&format!("Ready in the API: {} pods", pods.len()), || {
            edge.must_run()?;
            let seen = lock(seen);
            Ok(pods.iter().all(|name| seen.ready.get(name) == Some(&true)).then_some(()))
        })
    }

    /// The edge, with nothing beside it.
    pub fn into_edge(self) -> (Edge, Socket) {
        (self.edge, self.socket)
    }

    /// Ends the edge in order, and removes its containers.
    ///
    /// # Errors
    /// It had ended by itself.
    pub fn end(mut self) -> Outcome {
        self.edge.stop()
    }
}

/// Watches the pods until the API ends, on a thread of its own: the moments do not depend on what is waited for here.
fn watch(cloud: &Cloud, seen: Arc<Mutex<Seen>>) -> Outcome {
    let runtime = hollow::runtime()?;
    let mut watch = runtime.block_on(cloud.api())?;
    runtime.block_on(watch.watch(&format!("{CORE}/pods?watch=true")))?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            loop {
                match watch.event().await {
                    Ok(events) => {
                        let now = Instant::now();
                        events.iter().for_each(|event| lock(&seen).take(&event["object"], now));
                    }
                    Err(error) => return lock(&seen).ended = Some(error),
                }
            }
        });
    });
    Ok(())
}

impl Seen {
    fn take(&mut self, pod: &Value, now: Instant) {
        let (name, status) = (pod["metadata"]["name"].as_str().unwrap_or_default(), &pod["status"]);
        let containers = status["containerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
        let run = status["phase"] == "Running" && !containers.is_empty() && containers.iter().all(|one| one["state"]["running"].is_object());
        if run {
            self.running.entry(name.to_owned()).or_insert(now);
        }
        self.ready.insert(name.to_owned(), run && containers.iter().all(|one| one["ready"] == true));
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
