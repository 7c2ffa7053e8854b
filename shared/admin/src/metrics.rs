//! The registry as Prometheus text (exposition format 0.0.4).

use std::fmt::Write;

use actor::{Bucket, Health, Registry, State, TreeView, View};

/// A further figure of a daemon.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Name without the daemon's prefix; base unit and `_total` last (`store_commit_seconds_total`).
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Labels from enums, never from what a device chose; may be empty.
    pub labels: Vec<(&'static str, &'static str)>,
    /// Its value now.
    pub value: f64,
}

impl Metric {
    /// A value that goes up and down.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, kind: "gauge", labels: Vec::new(), value }
    }

    /// A count since the start of the process.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, kind: "counter", labels: Vec::new(), value: value as f64 }
    }

    /// The same with a label.
    #[must_use]
    pub fn of(mut self, label: &'static str, value: &'static str) -> Self {
        self.labels.push((label, value));
        self
    }
}

type Column = (&'static str, &'static str, &'static str, fn(&View) -> f64);

const COLUMNS: &[Column] = &[
    ("mailbox_depth", "Messages that wait.", "gauge", |v| v.depth as f64),
    ("mailbox_capacity", "Messages that may wait.", "gauge", |v| v.capacity as f64),
    ("mailbox_bytes", "Bytes that wait or are in hand.", "gauge", |v| v.bytes as f64),
    ("mailbox_bytes_max", "Bytes that may wait or be in hand.", "gauge", |v| v.bytes_max as f64),
    ("messages_handled_total", "Messages settled.", "counter", |v| v.handled as f64),
    ("messages_per_second", "Messages settled per second, over the last seconds.", "gauge", |v| v.per_second),
    ("messages_failed_total", "Messages whose handler reported an error.", "counter", |v| v.failed as f64),
    ("messages_refused_total", "Messages not taken because the mailbox was full.", "counter", |v| v.refused as f64),
    ("messages_quarantined_total", "Messages that killed their actor three times.", "counter", |v| v.quarantined as f64),
    ("quarantine_messages", "Messages in quarantine now.", "gauge", |v| v.in_quarantine as f64),
    ("actor_incarnation", "Number of the incarnation.", "gauge", |v| v.epoch as f64),
    ("actor_restarts_total", "Incarnations after the first.", "counter", |v| v.restarts as f64),
    ("actor_panics_total", "Deaths by panic.", "counter", |v| v.panics as f64),
    ("actor_hangs_total", "Deaths by silence.", "counter", |v| v.hangs as f64),
    ("actor_up", "1 while the actor handles messages.", "gauge", |v| f64::from(u8::from(v.state == State::Up))),
    ("actor_idle_seconds", "Time since the last batch.", "gauge", |v| v.idle_ms as f64 / 1000.0),
    ("actor_last_words_timestamp_seconds", "When it last died saying something; 0: never.", "gauge", |v| v.last_words_at_ms as f64 / 1000.0),
    ("message_in_hand_seconds", "How long the message in hand has been handled.", "gauge", |v| v.in_hand_ms as f64 / 1000.0),
];

type TreeColumn = (&'static str, &'static str, fn(&TreeView) -> f64);

const TREE_COLUMNS: &[TreeColumn] = &[
    ("supervisor_up", "1 while the supervisor is at work.", |t| f64::from(u8::from(t.state == State::Up))),
    ("supervisor_deaths", "Deaths within the period, of the child that died most.", |t| t.deaths as f64),
    ("supervisor_deaths_max", "More than this many: it gives up.", |t| t.deaths_max as f64),
    ("supervisor_threads_left_behind", "Blocked threads that were left behind.", |t| t.zombies as f64),
];

const STATES: [(State, &str); 7] = [
    (State::Down, "down"),
    (State::Up, "up"),
    (State::BackingOff, "backing-off"),
    (State::Hung, "hung"),
    (State::GaveUp, "gave-up"),
    (State::Stopped, "stopped"),
    (State::Disabled, "disabled"),
];

pub(crate) fn render(prefix: &str, registry: &Registry, extra: &[Metric], histogram_of: impl Fn(&str) -> Vec<Bucket>) -> String {
    let (views, health) = (registry.views(), registry.health());
    let mut text = String::with_capacity(24 * 1024);
    for (name, help, kind, value) in COLUMNS {
        header(&mut text, prefix, name, help, kind);
        for view in &views {
            let _ = writeln!(text, "{prefix}_{name}{{actor=\"{}\"}} {}", label(&view.name), value(view));
        }
    }
    header(&mut text, prefix, "actor_state", "1 for the state in which the actor is.", "gauge");
    for view in &views {
        for (state, name) in STATES {
            let is = u8::from(view.state == state);
            let _ = writeln!(text, "{prefix}_actor_state{{actor=\"{}\",state=\"{name}\"}} {is}", label(&view.name));
        }
    }
    header(&mut text, prefix, "message_seconds", "Time per message, quantile within a factor of two.", "gauge");
    for view in &views {
        for (quantile, us) in [("0.5", view.p50_us), ("0.99", view.p99_us)] {
            let _ = writeln!(text, "{prefix}_message_seconds{{actor=\"{}\",quantile=\"{quantile}\"}} {}", label(&view.name), us / 1e6);
        }
    }
    histograms(&mut text, prefix, &views, histogram_of);
    for (name, help, value) in TREE_COLUMNS {
        header(&mut text, prefix, name, help, "gauge");
        for tree in registry.trees() {
            let _ = writeln!(text, "{prefix}_{name}{{supervisor=\"{}\"}} {}", label(&tree.name), value(&tree));
        }
    }
    header(&mut text, prefix, "healthy", "0 if the supervisor gave up.", "gauge");
    let _ = writeln!(text, "{prefix}_healthy {}", u8::from(!matches!(health, Health::Red(_))));
    for (name, help, value) in process() {
        header(&mut text, prefix, name, help, "gauge");
        let _ = writeln!(text, "{prefix}_{name} {value}");
    }
    let mut last = "";
    for metric in extra {
        if metric.name != last {
            header(&mut text, prefix, metric.name, metric.help, metric.kind);
            last = metric.name;
        }
        let labels: Vec<String> = metric.labels.iter().map(|(k, v)| format!("{k}=\"{}\"", label(v))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "{prefix}_{}{labels} {}", metric.name, metric.value);
    }
    text
}

/// How long batches took, per message of theirs. There is no sum: what is kept are counts in powers of two.
fn histograms(text: &mut String, prefix: &str, views: &[View], of: impl Fn(&str) -> Vec<Bucket>) {
    header(text, prefix, "message_duration_seconds", "Time per message, in steps of a factor of two.", "histogram");
    for view in views {
        let mut below = 0;
        let actor = label(&view.name);
        for bucket in of(&view.name) {
            below += bucket.count;
            let _ = writeln!(text, "{prefix}_message_duration_seconds_bucket{{actor=\"{actor}\",le=\"{}\"}} {below}", bucket.up_to_us / 1e6);
        }
        let _ = writeln!(text, "{prefix}_message_duration_seconds_bucket{{actor=\"{actor}\",le=\"+Inf\"}} {below}");
        let _ = writeln!(text, "{prefix}_message_duration_seconds_count{{actor=\"{actor}\"}} {below}");
    }
}

/// A label's value, escaped as the format asks.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn header(text: &mut String, prefix: &str, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {prefix}_{name} {help}\n# TYPE {prefix}_{name} {kind}");
}

/// Memory and file descriptors of this process, as Linux tells them; absent where it does not.
pub(crate) fn process() -> Vec<(&'static str, &'static str, u64)> {
    let mut found = Vec::new();
    if let Ok(rollup) = std::fs::read_to_string("/proc/self/smaps_rollup") {
        let kib = |key: &str| rollup.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok());
        if let Some(rss) = kib("Rss:") {
            found.push(("process_resident_bytes", "Resident memory.", rss * 1024));
        }
        if let Some(pss) = kib("Pss:") {
            found.push(("process_pss_bytes", "Proportional memory: shared pages counted in parts.", pss * 1024));
        }
        if let Some(anon) = kib("Anonymous:") {
            found.push(("process_anonymous_bytes", "Memory without a file behind it.", anon * 1024));
        }
    }
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        found.push(("process_open_fds", "Open file descriptors.", fds.count() as u64));
    }
    found
}
