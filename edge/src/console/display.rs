//! What kubectl shows of a pod: pure. The rules are those of its printer (`pkg/printers/internalversion`).

use jiff::Timestamp;
use serde_json::Value;

use super::name_of;

/// A line of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Containers that serve, of how many.
    pub ready: String,
    /// One word.
    pub status: String,
    /// How often containers were started again, and when last.
    pub restarts: String,
    /// Since the object was made.
    pub age: String,
    /// Address.
    pub ip: String,
}

/// The line of a pod.
pub fn row(pod: &Value, now: Timestamp) -> Row {
    let (namespace, name) = name_of(pod);
    let summed = sum_up(pod);
    let since =
        |text: Option<&str>| text.and_then(|text| text.parse::<Timestamp>().ok()).map(|time| now.as_second().saturating_sub(time.as_second()));
    let restarts = match since(summed.last_restart.as_deref()) {
        Some(seconds) if summed.restarts > 0 => format!("{} ({} ago)", summed.restarts, age(seconds)),
        _ => summed.restarts.to_string(),
    };
    let made = pod["metadata"]["creationTimestamp"].as_str().or_else(|| pod["status"]["startTime"].as_str());
    Row {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ready: format!("{}/{}", summed.ready, summed.total),
        status: summed.status,
        restarts,
        age: since(made).map_or_else(|| "<unknown>".to_owned(), age),
        ip: pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty()).unwrap_or("<none>").to_owned(),
    }
}

/// What a pod's containers come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summed {
    /// One word.
    pub status: String,
    /// Containers that serve.
    pub ready: usize,
    /// Containers that shall serve.
    pub total: usize,
    /// Starts after the first.
    pub restarts: u64,
    /// When one that was started again had ended.
    pub last_restart: Option<String>,
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// The reason of a state, or its exit code or signal.
fn ended(terminated: &Value) -> String {
    match (terminated["reason"].as_str().unwrap_or_default(), terminated["signal"].as_i64().unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn has_condition(status: &Value, kind: &str) -> bool {
    list(status, "conditions").iter().any(|one| one["type"] == kind && one["status"] == "True")
}

/// Sums a pod up.
pub fn sum_up(pod: &Value) -> Summed {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let inits = list(spec, "initContainers");
    let is_sidecar = |name: &Value| inits.iter().any(|one| &one["name"] == name && one["restartPolicy"] == "Always");
    let phase = status["phase"].as_str().filter(|phase| !phase.is_empty()).unwrap_or("Pending");
    let pod_reason = status["reason"].as_str().unwrap_or_default();
    let mut all = Summed {
        status: if pod_reason.is_empty() { phase.to_owned() } else { pod_reason.to_owned() },
        total: list(spec, "containers").len() + inits.iter().filter(|one| one["restartPolicy"] == "Always").count(),
        ..Summed::default()
    };
    let restarts = |one: &Value| one["restartCount"].as_u64().unwrap_or(0);
    let last = |one: &Value| one["lastState"]["terminated"]["finishedAt"].as_str().map(str::to_owned);
    let (mut of_sidecars, mut last_of_sidecars) = (0, None);
    let mut is_initializing = false;
    for (number, one) in list(status, "initContainerStatuses").iter().enumerate() {
        all.restarts += restarts(one);
        all.last_restart = all.last_restart.max(last(one));
        if is_sidecar(&one["name"]) {
            of_sidecars += restarts(one);
            last_of_sidecars = last_of_sidecars.max(last(one));
        }
        let (terminated, waiting) = (&one["state"]["terminated"], one["state"]["waiting"]["reason"].as_str().unwrap_or_default());
        if terminated.is_object() && terminated["exitCode"] == 0 {
            continue;
        }
        if is_sidecar(&one["name"]) && one["started"] == true {
            all.ready += usize::from(one["ready"] == true);
            continue;
        }
        all.status = match (terminated.is_object(), waiting) {
            (true, _) => format!("Init:{}", ended(terminated)),
            (false, "" | "PodInitializing") => format!("Init:{number}/{}", inits.len()),
            (false, reason) => format!("Init:{reason}"),
        };
        is_initializing = true;
        break;
    }
    if !is_initializing || has_condition(status, "Initialized") {
        (all.restarts, all.last_restart) = (of_sidecars, last_of_sidecars);
        let mut has_running = false;
        for one in list(status, "containerStatuses").iter().rev() {
            all.restarts += restarts(one);
            all.last_restart = all.last_restart.max(last(one));
            let (terminated, waiting) = (&one["state"]["terminated"], one["state"]["waiting"]["reason"].as_str().unwrap_or_default());
            if !waiting.is_empty() {
                all.status = waiting.to_owned();
            } else if terminated.is_object() {
                all.status = ended(terminated);
            } else if one["ready"] == true && one["state"]["running"].is_object() {
                has_running = true;
                all.ready += 1;
            }
        }
        if all.status == "Completed" && has_running {
            all.status = if has_condition(status, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        if pod_reason == "NodeLost" {
            all.status = "Unknown".to_owned();
        } else if !["Succeeded", "Failed"].contains(&phase) {
            all.status = "Terminating".to_owned();
        }
    }
    all
}

/// A time as kubectl writes it: two units at most, the larger the coarser.
pub fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |first: i64, unit: &str, second: i64, small: &str| {
        if second == 0 { format!("{first}{unit}") } else { format!("{first}{unit}{second}{small}") }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 2920 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}
