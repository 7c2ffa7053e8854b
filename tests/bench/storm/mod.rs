//! Scenario `storm`: thousands of hollow nodes at one real `skep-cloud`, which is killed.
//!
//! Each node has a pod and needs the ConfigMap that all pods share. It connects by the rule of `skep-edge`, says what that
//! says (registration, status, question for its devices), and acknowledges the two objects. The nodes share the machine with
//! the cloud, so a storm costs both halves of each handshake here.

mod comeback;
mod crowd;
mod handshake;
mod options;

use std::time::{Duration, Instant};

use model::NodeName;
use serde_json::json;

use crate::Outcome;
use crate::figures::{Figures, Goal, quantile};
use crate::hollow::{self, Cloud};
use crate::machine;

pub use options::Options;

use crowd::{Crowd, SHARED, Stage};

/// Nodes that connect in a second before the storm.
const CALM_RATE: u32 = 200;
/// A cloud that has just started has listed everything after so long, and its memory has settled.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// How long the idle cloud's CPU is watched.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Between the kill and the start: the nodes' pauses have grown to their longest, then.
const AWAY: Duration = Duration::from_secs(5);
const STORMS: usize = 3;
const HANDSHAKE_RUNS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(300);
/// Connections by which the API is filled.
const WRITERS: usize = 8;

/// Measures memory and storms.
///
/// # Errors
/// A daemon does not start or ends; a node does not come back, or is not sent what it should have.
pub fn run(figures: &mut Figures, options: &Options) -> Outcome {
    let nodes = hollow::raise_open_files(options.nodes);
    if nodes < options.nodes {
        println!(
            "storm: {} nodes were asked for, and the limit of open files allows {nodes} (two in the cloud for each); raise it with `ulimit -Hn`",
            options.nodes
        );
    }
    let mut cloud = Cloud::start_with(&hollow::Options { node_limit: Some(nodes + 1000), ..hollow::Options::default() })?;
    let began = Instant::now();
    fill(&cloud, nodes).map_err(|error| cloud.with_log(error))?;
    println!("storm: {nodes} nodes and pods made in {:.1} s", began.elapsed().as_secs_f64());
    // A cloud that has not made them itself: what that took would hide what nodes take.
    cloud.stop()?;
    cloud.run()?;
    cloud.listens()?;
    hollow::pause(SETTLED_AFTER);
    let crowd = calm(figures, &cloud, nodes)?;
    storms(figures, &mut cloud, &crowd, nodes)?;
    drop(crowd);
    cloud.stop()?;
    let authority = cloud.authority()?;
    let (client, server) = (authority.of_node(&NodeName::new("handshake").expect("a valid name"))?, authority.of_server(&cloud.pki())?);
    let rates: Vec<f64> = (0..HANDSHAKE_RUNS).map(|_| handshake::rate(&client, &server)).collect::<Result<_, _>>()?;
    figures.add("this machine: mutual TLS handshakes, both sides", "1/s", &rates);
    #[allow(clippy::cast_precision_loss, reason = "a count of nodes")]
    let least: Vec<f64> = rates.iter().map(|rate| nodes as f64 / rate).collect();
    figures.add("this machine: so many handshakes and nothing else", "s", &least);
    comeback::run(figures)
}

/// Makes the Nodes, a pod for each, and the ConfigMap.
fn fill(cloud: &Cloud, nodes: usize) -> Outcome {
    hollow::runtime()?.block_on(async {
        let mut api = cloud.api().await?;
        let shared = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": SHARED}, "data": {"key": "value"}});
        api.create("/api/v1/namespaces/default/configmaps", &shared).await?;
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            let mut api = cloud.api().await?;
            tasks.push(tokio::spawn(async move {
                for name in (writer..nodes).step_by(WRITERS).map(crowd::name) {
                    let labels = json!({"node-role.kubernetes.io/edge": "", "kubernetes.io/hostname": &name});
                    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": &name, "labels": labels}});
                    api.create("/api/v1/nodes", &node).await?;
                    let volume = json!({"name": SHARED, "configMap": {"name": SHARED}});
                    let spec = json!({"nodeName": &name, "volumes": [volume], "containers": [{"name": "main", "image": "none"}]});
                    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": &name}, "spec": spec});
                    api.create("/api/v1/namespaces/default/pods", &pod).await?;
                }
                Ok::<_, String>(())
            }));
        }
        for task in tasks {
            task.await.map_err(|error| error.to_string())??;
        }
        Ok(())
    })
}

/// Lets the nodes connect one after the other, and weighs them.
#[allow(clippy::cast_precision_loss, reason = "a count of nodes")]
fn calm(figures: &mut Figures, cloud: &Cloud, nodes: usize) -> Result<Crowd, String> {
    let before = machine::memory_of(cloud.pid())?;
    let crowd = Crowd::connect(nodes, CALM_RATE, &cloud.authority()?, cloud.hub_port())?;
    for stage in [Stage::InSync, Stage::Greeted] {
        crowd.wait_for(stage, 0, PATIENCE, || Ok(())).map_err(|error| cloud.with_log(error))?;
    }
    hollow::pause(SETTLED_AFTER);
    let after = machine::memory_of(cloud.pid())?;
    let (cpu, began) = (machine::cpu_us_of(cloud.pid())?, Instant::now());
    hollow::pause(IDLE_FOR);
    let cores = (machine::cpu_us_of(cloud.pid())? - cpu) / began.elapsed().as_secs_f64() / 1e6;
    figures.add("nodes", "", &[nodes as f64]);
    figures.add("cloud's memory for a connected idle node: PSS", "KiB", &[(after.pss - before.pss) / nodes as f64]).goal(Goal::AtMost(30.0));
    figures.add("cloud's memory for a connected idle node: anonymous", "KiB", &[(after.anonymous - before.anonymous) / nodes as f64]);
    figures.add("cloud's memory before they connect: PSS", "MB", &[before.pss * 1.024 / 1e3]);
    figures.add("cloud's CPU for all idle nodes, leases in the embedded API included", "cores", &[cores]);
    Ok(crowd)
}

/// Kills the cloud, starts it, and waits for all nodes.
#[allow(clippy::cast_precision_loss, reason = "a count of nodes")]
fn storms(figures: &mut Figures, cloud: &mut Cloud, crowd: &Crowd, nodes: usize) -> Outcome {
    const STAGES: [(Stage, &str); 3] =
        [(Stage::Connected, "connected"), (Stage::InSync, "objects acknowledged"), (Stage::Greeted, "status in the API, devices known")];
    let mut times: [[Vec<f64>; 2]; 3] = Default::default();
    let (mut listened, mut counts) = (Vec::new(), <[Vec<f64>; 3]>::default());
    for _ in 0..STORMS {
        cloud.kill();
        hollow::pause(AWAY);
        let (since, before) = (crowd.now(), crowd.counts());
        drop(crowd.reasons());
        cloud.run()?;
        cloud.listens()?;
        listened.push((crowd.now() - since) as f64 / 1e6);
        // The last stage first: when it is reached all are, and a node that was lost meanwhile stands at its last session.
        for (at, (stage, _)) in STAGES.iter().enumerate().rev() {
            let seconds = crowd.wait_for(*stage, since, PATIENCE, || cloud.must_run()).map_err(|error| cloud.with_log(error))?;
            times[at][0].push(quantile(&seconds, 0.99));
            times[at][1].push(quantile(&seconds, 1.0));
        }
        for (why, count) in crowd.reasons() {
            println!("storm: {count} attempts failed: {why}");
        }
        for ((counts, before), after) in counts.iter_mut().zip(before).zip(crowd.counts()) {
            counts.push((after - before) as f64 / nodes as f64);
        }
    }
    figures.add("cloud started to listening", "s", &listened);
    for ((stage, what), times) in STAGES.iter().zip(&times) {
        for (share, times) in ["99 %", "100 %"].iter().zip(times) {
            let figure = figures.add(format!("cloud started to {share} of the nodes: {what}"), "s", times);
            if *stage != Stage::Greeted {
                figure.goal(Goal::AtMost(15.0));
            }
        }
    }
    for (what, counts) in ["sessions", "attempts that failed", "objects (two are needed)"].iter().zip(&counts) {
        figures.add(format!("in a storm, for each node: {what}"), "", counts);
    }
    Ok(())
}
