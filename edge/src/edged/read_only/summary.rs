//! `GET /stats/summary`: what node, pods and containers take, in the kubelet's form.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::runtime::{Summary, Usage, label};
use super::super::status::seconds;
use super::stats::{NodeStats, node_stats};
use super::{ReadError, Reading, Source, all_pods};
use crate::store::Store;

/// How long an answer is given again: each costs a look at every container.
const FRESH: Duration = Duration::from_secs(5);
/// Containers that are looked at at once.
const LOOKS_MAX: usize = 4;
/// How long all looks may take; a container that was not reached has no figures.
const WITHIN: Duration = Duration::from_secs(20);

/// A summary and when it was taken.
pub struct Taken {
    at: Instant,
    value: Value,
}

/// Answers the request.
///
/// # Errors
/// See [`ReadError`].
pub async fn answer(reading: web::Data<Reading>, store: web::Data<Store>) -> Result<HttpResponse, ReadError> {
    // Whoever asks meanwhile waits, and gets the same.
    let mut last = reading.summary.lock().await;
    if let Some(taken) = last.as_ref().filter(|taken| taken.at.elapsed() < FRESH) {
        return Ok(HttpResponse::Ok().json(&taken.value));
    }
    let source = reading.source()?;
    let pods = all_pods(store, &reading).await?;
    let used = usages(&source).await?;
    let dir = source.pods.clone();
    let node = web::block(move || node_stats(&dir)).await.map_err(|error| ReadError::Store(error.to_string()))?;
    let value = summary(&source.node, &node, &pods, &used, Timestamp::now());
    let answer = HttpResponse::Ok().json(&value);
    *last = Some(Taken { at: Instant::now(), value });
    Ok(answer)
}

/// A running container and what it takes.
#[derive(Clone, Debug)]
pub struct Used {
    /// See [`label`].
    pub labels: BTreeMap<String, String>,
    /// What it takes.
    pub usage: Usage,
}

async fn usages(source: &Source) -> Result<Vec<Used>, ReadError> {
    let listed = source.runtime.list(&[(label::NODE, source.node.as_str())]).await?;
    let running = listed.into_iter().filter(|one| one.state == "running");
    let look = |one: Summary| async move {
        // One that ended meanwhile, or that the engine cannot measure, is left out.
        let usage = source.runtime.usage(&one.id).await.ok().flatten()?;
        Some(Used { labels: one.labels, usage })
    };
    let mut looks = stream::iter(running.map(look)).buffer_unordered(LOOKS_MAX);
    let mut all = Vec::new();
    let gather = async {
        while let Some(used) = looks.next().await {
            all.extend(used);
        }
    };
    let _ = tokio::time::timeout(WITHIN, gather).await;
    Ok(all)
}

/// The answer: pure.
pub fn summary(node: &str, stats: &NodeStats, pods: &Value, used: &[Used], now: Timestamp) -> Value {
    let time = seconds(now);
    let mut by_uid: BTreeMap<&str, Vec<&Used>> = BTreeMap::new();
    for one in used {
        by_uid.entry(one.labels.get(label::POD_UID).map_or("", String::as_str)).or_default().push(one);
    }
    let stored: BTreeMap<&str, &Value> =
        pods["items"].as_array().into_iter().flatten().filter_map(|pod| Some((pod["metadata"]["uid"].as_str()?, pod))).collect();
    let pods: Vec<Value> = by_uid.iter().map(|(uid, of_it)| pod_summary(uid, of_it, stored.get(uid).copied(), &time)).collect();
    let mut node = json!({
        "nodeName": node,
        "cpu": {"time": time, "usageCoreNanoSeconds": stats.cpu_nanos},
        "memory": {
            "time": time,
            "availableBytes": stats.memory_available,
            "usageBytes": stats.memory_total.saturating_sub(stats.memory_free),
            "workingSetBytes": stats.memory_total.saturating_sub(stats.memory_available),
        },
    });
    if let Some(fs) = &stats.fs {
        node["fs"] = json!({
            "time": time,
            "availableBytes": fs.available,
            "capacityBytes": fs.capacity,
            "usedBytes": fs.used,
            "inodes": fs.inodes,
            "inodesFree": fs.inodes_free,
            "inodesUsed": fs.inodes.saturating_sub(fs.inodes_free),
        });
    }
    json!({"node": node, "pods": pods})
}

fn pod_summary(uid: &str, used: &[&Used], stored: Option<&Value>, time: &str) -> Value {
    let labelled = |name: &str| used.iter().find_map(|one| one.labels.get(name)).map_or("", String::as_str);
    let is_sandbox = |one: &Used| one.labels.get(label::CONTAINER).is_some_and(|name| name == label::SANDBOX_NAME);
    let statuses = |name: &str| {
        let lists = ["containerStatuses", "initContainerStatuses"].into_iter().filter_map(|list| stored?["status"][list].as_array());
        lists.flatten().find(|status| status["name"] == name)
    };
    let cpu = |nanos: u64| json!({"time": time, "usageCoreNanoSeconds": nanos});
    let memory = |usage: u64, working_set: u64| json!({"time": time, "usageBytes": usage, "workingSetBytes": working_set});
    let mut containers: Vec<Value> = Vec::new();
    for one in used.iter().filter(|one| !is_sandbox(one)) {
        let name = one.labels.get(label::CONTAINER).map_or("", String::as_str);
        let mut container =
            json!({"name": name, "cpu": cpu(one.usage.cpu_nanos), "memory": memory(one.usage.memory_usage, one.usage.memory_working_set)});
        if let Some(since) = statuses(name).and_then(|status| status["state"]["running"]["startedAt"].as_str()) {
            container["startTime"] = json!(since);
        }
        containers.push(container);
    }
    containers.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let sum = |of: fn(&Usage) -> u64| used.iter().map(|one| of(&one.usage)).fold(0, u64::saturating_add);
    let mut pod = json!({
        "podRef": {"name": labelled(label::POD_NAME), "namespace": labelled(label::POD_NAMESPACE), "uid": uid},
        "containers": containers,
        "cpu": cpu(sum(|usage| usage.cpu_nanos)),
        "memory": memory(sum(|usage| usage.memory_usage), sum(|usage| usage.memory_working_set)),
    });
    if let Some(since) = stored.and_then(|pod| pod["status"]["startTime"].as_str()) {
        pod["startTime"] = json!(since);
    }
    // One of them has the network, the others are in it. A pod in the machine's has no figures of its own.
    let is_host = stored.is_some_and(|pod| pod["spec"]["hostNetwork"] == true);
    if !is_host {
        let (received, sent) = (sum(|usage| usage.network_received), sum(|usage| usage.network_sent));
        pod["network"] = json!({"time": time, "name": "eth0", "rxBytes": received, "txBytes": sent});
    }
    pod
}
