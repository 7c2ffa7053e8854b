//! A hundred changes a second, each to another ConfigMap of one node: from the API's watch to the node's acknowledgement.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::NodeName;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use wire::hub::{Downstream, Frame};

use crate::Outcome;
use crate::figures::{Figures, Goal, quantile};
use crate::hollow::{self, Api, Cloud, Greeting, Manner, Node, Sight};

/// ConfigMaps that take turns: each is changed once a second, so no change can replace another.
pub const CONFIG_MAPS: usize = 100;
const EVERY: Duration = Duration::from_millis(10);
const RUNS: usize = 5;
/// Changes of a run; p99 has five above it.
const CHANGES: usize = 500;
/// Connections that write in turn, so that a slow commit does not hold back the next change.
const WRITERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);
const CONFIG_MAPS_PATH: &str = "/api/v1/namespaces/default/configmaps";

/// When what happened to a change.
#[derive(Clone, Copy, Default)]
struct Times {
    written: Option<Instant>,
    watched: Option<Instant>,
    acknowledged: Option<Instant>,
}

/// The changes of a run by their numbers; 0 is no change.
#[derive(Default)]
struct Changes {
    times: Mutex<Vec<Times>>,
    wrong: Mutex<Vec<String>>,
}

impl Changes {
    fn note(&self, number: u64, what: impl FnOnce(&mut Times)) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = usize::try_from(number).ok().and_then(|number| times.get_mut(number)) {
            what(times);
        }
    }

    fn begin(&self) {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner) = vec![Times::default(); CHANGES + 1];
    }

    fn all(&self) -> Vec<Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)[1..].to_vec()
    }

    fn fault(&self) -> Option<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }
}

/// The number that a ConfigMap carries.
fn number_in(object: &Value) -> u64 {
    object["data"]["number"].as_str().and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl Sight for Changes {
    fn received(&self, _: usize, frame: &Frame<Downstream>) -> u64 {
        match &frame.body {
            Downstream::Object { object, .. } => object.to::<Value>().map_or(0, |object| number_in(&object)),
            _ => 0,
        }
    }

    fn acknowledged(&self, _: usize, number: u64) {
        self.note(number, |times| times.acknowledged = Some(Instant::now()));
    }

    fn lost(&self, _: usize, why: &str) {
        self.wrong(0, format!("the session ended: {why}"));
    }

    fn wrong(&self, _: usize, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

/// Makes the ConfigMaps `<node>-0` … and a pod of `node` that needs them all.
pub async fn fill(api: &mut Api, node: &NodeName, count: usize) -> Outcome {
    for number in 0..count {
        let name = format!("{node}-{number}");
        api.create(CONFIG_MAPS_PATH, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"number": "0"}})).await?;
    }
    let volumes: Vec<_> =
        (0..count).map(|number| format!("{node}-{number}")).map(|name| json!({"name": name, "configMap": {"name": name}})).collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": node.as_str()},
        "spec": {"nodeName": node.as_str(), "volumes": volumes, "containers": [{"name": "main", "image": "none", "imagePullPolicy": "Never"}]},
    });
    api.create("/api/v1/namespaces/default/pods", &pod).await.map(drop)
}

/// Writes `number` into a ConfigMap.
pub async fn change(api: &mut Api, node: &NodeName, config_map: usize, number: u64) -> Outcome {
    api.patch(&format!("{CONFIG_MAPS_PATH}/{node}-{config_map}"), &json!({"data": {"number": number.to_string()}})).await.map(drop)
}

/// Measures changes.
///
/// # Errors
/// A change does not arrive.
pub fn run(figures: &mut Figures, cloud: &Cloud) -> Outcome {
    let measured = hollow::runtime()?.block_on(async {
        let node = NodeName::new("steady").expect("a valid name");
        let changes = Arc::new(Changes::default());
        let manner = Manner { port: cloud.hub_port(), one_way: Duration::ZERO, greeting: Greeting::Registers };
        tokio::spawn(Node::new(0, node.clone(), cloud.authority()?.of_node(&node)?).run(Arc::new(manner), changes.clone()));
        fill(&mut cloud.api().await?, &node, CONFIG_MAPS).await?;
        let mut watch = cloud.api().await?;
        watch.watch(&format!("{CONFIG_MAPS_PATH}?watch=true")).await?;
        tokio::spawn({
            let changes = changes.clone();
            async move {
                while let Ok(events) = watch.event().await {
                    let now = Instant::now();
                    events.iter().for_each(|event| changes.note(number_in(&event["object"]), |times| times.watched = times.watched.or(Some(now))));
                }
            }
        });
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            let (sender, numbers) = mpsc::unbounded_channel();
            tokio::spawn(write(cloud.api().await?, node.clone(), numbers, changes.clone()));
            writers.push(sender);
        }
        // Everything that was made has arrived, then.
        sleep(Duration::from_secs(2)).await;
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(once(&changes, &writers).await?);
        }
        Ok::<_, String>(runs)
    });
    let runs = measured.map_err(|error| cloud.with_log(error))?;
    for (at, (name, of)) in [("p50", 0.5), ("p99", 0.99)].into_iter().enumerate() {
        let each = |pick: fn(&[Vec<f64>; 2]) -> &Vec<f64>| runs.iter().map(|run| quantile(pick(run), of)).collect::<Vec<f64>>();
        let watched = figures.add(format!("100 changes/s to a node: API watch to acknowledged: {name}"), "ms", &each(|run| &run[0]));
        if at == 1 {
            watched.goal(Goal::AtMost(20.0));
        }
        figures.add(format!("100 changes/s to a node: request to the API to acknowledged: {name}"), "ms", &each(|run| &run[1]));
    }
    Ok(())
}

async fn write(mut api: Api, node: NodeName, mut numbers: mpsc::UnboundedReceiver<u64>, changes: Arc<Changes>) {
    while let Some(number) = numbers.recv().await {
        changes.note(number, |times| times.written = Some(Instant::now()));
        if let Err(error) = change(&mut api, &node, usize::try_from(number).unwrap_or(0) % CONFIG_MAPS, number).await {
            return changes.wrong(0, error);
        }
    }
}

/// One run: ms from the watch to the acknowledgement, and from the request.
async fn once(changes: &Changes, writers: &[mpsc::UnboundedSender<u64>]) -> Result<[Vec<f64>; 2], String> {
    changes.begin();
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 1..=CHANGES {
        clock.tick().await;
        let _ = writers[number % writers.len()].send(number as u64);
    }
    let began = Instant::now();
    loop {
        if let Some(wrong) = changes.fault() {
            return Err(wrong);
        }
        let times = changes.all();
        let whole: Option<Vec<[f64; 2]>> = times.iter().map(spans).collect();
        if let Some(whole) = whole {
            return Ok([0, 1].map(|at| whole.iter().map(|spans| spans[at]).collect()));
        }
        if began.elapsed() > PATIENCE {
            let missing = times.iter().filter(|times| times.acknowledged.is_none()).count();
            return Err(format!("{missing} of {CHANGES} changes were not acknowledged within {} s", PATIENCE.as_secs()));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn spans(times: &Times) -> Option<[f64; 2]> {
    let acknowledged = times.acknowledged?;
    let since = |at: Instant| acknowledged.saturating_duration_since(at).as_secs_f64() * 1e3;
    Some([since(times.watched?), since(times.written?)])
}
