//! A thousand objects to one node over a line with a delay of 100 ms there and back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::{NodeName, ResourceKey, ResourceKind};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use wire::hub::{Downstream, Frame};

use crate::Outcome;
use crate::figures::{Figures, Goal};
use crate::hollow::{self, Cloud, Greeting, Manner, Node, Sight};

/// Pods, and ConfigMaps that each needs: with the pods 1,000 objects.
const PODS: usize = 10;
const EACH: usize = 99;
const OBJECTS: usize = PODS * (EACH + 1);
/// What a ConfigMap holds, about.
const VALUE_BYTES: usize = 512;
const ONE_WAY: Duration = Duration::from_millis(50);
const RUNS: usize = 5;
/// A burst that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// After the last acknowledgement: what is sent now is sent twice.
const AFTER: Duration = Duration::from_millis(300);

/// What the node has seen in its session.
#[derive(Default)]
struct Seen {
    state: Mutex<State>,
    progress: Notify,
}

#[derive(Default)]
struct State {
    connected: Option<Instant>,
    arrived: Vec<(ResourceKey, String)>,
    acknowledged: usize,
    last: Option<Instant>,
    wrong: Vec<String>,
}

impl Seen {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sight for Seen {
    fn connected(&self, _: usize) {
        self.state().connected = Some(Instant::now());
    }

    fn received(&self, _: usize, frame: &Frame<Downstream>) -> u64 {
        let mut state = self.state();
        match &frame.body {
            Downstream::Object { key, object, .. } => state.arrived.push((key.clone(), object.as_str().to_owned())),
            other => state.wrong.push(format!("a frame that is no object: {}", other.kind())),
        }
        0
    }

    fn acknowledged(&self, _: usize, _: u64) {
        let mut state = self.state();
        state.acknowledged += 1;
        state.last = Some(Instant::now());
        if state.acknowledged >= OBJECTS {
            self.progress.notify_one();
        }
    }

    fn greeted(&self, _: usize) {
        self.progress.notify_one();
    }

    fn lost(&self, _: usize, why: &str) {
        self.wrong(0, format!("the session ended: {why}"));
    }

    fn wrong(&self, _: usize, what: String) {
        self.state().wrong.push(what);
        self.progress.notify_one();
    }
}

/// Measures the burst.
///
/// # Errors
/// An object is missing, comes twice, or comes after the pod that needs it.
pub fn run(figures: &mut Figures, cloud: &Cloud) -> Outcome {
    let runtime = hollow::runtime()?;
    let measured = runtime.block_on(async {
        let name = NodeName::new("burst").expect("a valid name");
        let tls = cloud.authority()?.of_node(&name)?;
        let node = || Node::new(0, name.clone(), tls.clone());
        register(cloud, node()).await?;
        fill(cloud).await?;
        // Not counted: each kind has a watch of its own, so a ConfigMap that was made just before its pod may be seen after
        // it. Once everything has gone out, everything has been seen.
        once(cloud, node()).await?;
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let state = once(cloud, node()).await?;
            check(&state)?;
            let (connected, last) = state.connected.zip(state.last).ok_or("nothing was acknowledged")?;
            runs.push(last.duration_since(connected).as_secs_f64());
        }
        Ok::<_, String>(runs)
    });
    let runs = measured.map_err(|error| cloud.with_log(error))?;
    figures.add("1,000 objects to a node, 100 ms round trip: connected to last acknowledged", "s", &runs).goal(Goal::AtMost(1.5));
    Ok(())
}

async fn register(cloud: &Cloud, node: Node) -> Outcome {
    let seen = Arc::new(Seen::default());
    let manner = Manner { port: cloud.hub_port(), one_way: Duration::ZERO, greeting: Greeting::Registers };
    let task = tokio::spawn(node.run(Arc::new(manner), seen.clone()));
    let registered = timeout(PATIENCE, seen.progress.notified()).await;
    task.abort();
    let state = seen.state();
    if registered.is_err() || !state.wrong.is_empty() { Err(format!("the node did not register: {}", state.wrong.join("; "))) } else { Ok(()) }
}

async fn fill(cloud: &Cloud) -> Outcome {
    let mut api = cloud.api().await?;
    let value = "x".repeat(VALUE_BYTES);
    for pod in 0..PODS {
        let names: Vec<String> = (0..EACH).map(|number| format!("burst-{pod}-{number}")).collect();
        for name in &names {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}});
            api.create("/api/v1/namespaces/default/configmaps", &object).await?;
        }
        let volumes: Vec<_> = names.iter().map(|name| json!({"name": name, "configMap": {"name": name}})).collect();
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("burst-{pod}")},
            "spec": {"nodeName": "burst", "volumes": volumes, "containers": [{"name": "main", "image": "none"}]},
        });
        api.create("/api/v1/namespaces/default/pods", &object).await?;
    }
    Ok(())
}

/// One connection with everything waiting, until everything is acknowledged.
async fn once(cloud: &Cloud, node: Node) -> Result<State, String> {
    let seen = Arc::new(Seen::default());
    let manner = Manner { port: cloud.hub_port(), one_way: ONE_WAY, greeting: Greeting::Registers };
    let task = tokio::spawn(node.run(Arc::new(manner), seen.clone()));
    let complete = async {
        loop {
            seen.progress.notified().await;
            let state = seen.state();
            if state.acknowledged >= OBJECTS || !state.wrong.is_empty() {
                return;
            }
        }
    };
    let complete = timeout(PATIENCE, complete).await;
    sleep(AFTER).await;
    task.abort();
    let state = std::mem::take(&mut *seen.state());
    if complete.is_err() {
        return Err(format!("{} of {OBJECTS} objects were acknowledged within {} s", state.acknowledged, PATIENCE.as_secs()));
    }
    match state.wrong.first() {
        Some(wrong) => Err(wrong.clone()),
        None => Ok(state),
    }
}

/// Everything, once, and each ConfigMap before the pods that need it.
fn check(state: &State) -> Outcome {
    let mut at = HashMap::new();
    for (index, (key, _)) in state.arrived.iter().enumerate() {
        if at.insert(key, index).is_some() {
            return Err(format!("{key} came twice"));
        }
    }
    if at.len() != OBJECTS {
        return Err(format!("{} different objects came, {OBJECTS} are there", at.len()));
    }
    let config_maps: HashSet<_> = at.keys().filter(|key| key.kind == ResourceKind::ConfigMap).collect();
    if config_maps.len() != PODS * EACH {
        return Err(format!("{} ConfigMaps came, {} are there", config_maps.len(), PODS * EACH));
    }
    for (index, (key, object)) in state.arrived.iter().enumerate().filter(|(_, (key, _))| key.kind == ResourceKind::Pod) {
        let pod: serde_json::Value = serde_json::from_str(object).map_err(|error| format!("{key} is no JSON: {error}"))?;
        let volumes = pod["spec"]["volumes"].as_array().filter(|volumes| volumes.len() == EACH).ok_or_else(|| format!("{key} lost its volumes"))?;
        for volume in volumes {
            let name = volume["configMap"]["name"].as_str().unwrap_or_default();
            let came = state.arrived[..index]
                .iter()
                .any(|(key, _)| key.kind == ResourceKind::ConfigMap && key.name.as_ref().is_some_and(|n| n.as_str() == name));
            if !came {
                return Err(format!("{key} came before the ConfigMap {name} that it needs"));
            }
        }
    }
    Ok(())
}
