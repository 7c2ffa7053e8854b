//! The registry as Prometheus text (exposition format 0.0.4).

use std::fmt::Write;

use actor::{Health, View};

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
    ("messages_handled_total", "Messages settled.", "counter", |v| v.handled as f64),
    ("messages_failed_total", "Messages whose handler reported an error.", "counter", |v| v.failed as f64),
    ("messages_refused_total", "Messages not taken because the mailbox was full.", "counter", |v| v.refused as f64),
    ("messages_quarantined_total", "Messages that killed their actor three times.", "counter", |v| v.quarantined as f64),
    ("actor_restarts_total", "Incarnations after the first.", "counter", |v| v.restarts as f64),
    ("actor_panics_total", "Deaths by panic.", "counter", |v| v.panics as f64),
    ("actor_hangs_total", "Deaths by silence.", "counter", |v| v.hangs as f64),
    ("actor_up", "1 while the actor handles messages.", "gauge", |v| f64::from(u8::from(v.state == actor::State::Up))),
    ("message_in_hand_seconds", "How long the message in hand has been handled.", "gauge", |v| v.in_hand_ms as f64 / 1000.0),
];

pub(crate) fn render(prefix: &str, views: &[View], health: &Health, extra: &[Metric]) -> String {
    let mut text = String::with_capacity(8192);
    for (name, help, kind, value) in COLUMNS {
        header(&mut text, prefix, name, help, kind);
        for view in views {
            let _ = writeln!(text, "{prefix}_{name}{{actor=\"{}\"}} {}", view.name, value(view));
        }
    }
    header(&mut text, prefix, "message_seconds", "Time per message, quantile within a factor of two.", "gauge");
    for view in views {
        for (quantile, us) in [("0.5", view.p50_us), ("0.99", view.p99_us)] {
            let _ = writeln!(text, "{prefix}_message_seconds{{actor=\"{}\",quantile=\"{quantile}\"}} {}", view.name, us / 1e6);
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
        let labels: Vec<String> = metric.labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "{prefix}_{}{labels} {}", metric.name, metric.value);
    }
    text
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
