//! Figures of the daemon beside those of its actors, for `/metrics`. Reads atomics only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actor::Registry;
use admin::systemd::{actors_up, count};
use admin::{Check, Metric};

use crate::communication;
use crate::event_bus;
use crate::store::Store;
use crate::wiring::Beside;

/// Where the figures come from.
pub struct Sources {
    /// The database.
    pub store: Store,
    /// What happened to the database before it, if that was damaged.
    pub damage: Option<String>,
    /// The sockets.
    pub beside: Arc<Beside>,
    /// Communication's counters.
    pub reports: communication::Shared,
}

impl Sources {
    /// Every figure as it stands.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut all = Vec::with_capacity(32);
        self.store_figures(&mut all);
        self.report_figures(&mut all);
        if let Some(link) = self.beside.link().as_ref() {
            let f = link.figures();
            all.push(Metric::gauge("cloud_connected", "1 while a session with the cloud stands.", f64::from(u8::from(f.connected))));
            all.push(Metric::counter("cloud_frames_sent_total", "Frames given to the socket.", f.sent));
            all.push(Metric::counter("cloud_frames_received_total", "Frames that arrived from the cloud.", f.received));
            for (reason, count) in [
                ("away", f.dropped_away),
                ("full", f.dropped_full),
                ("too-large", f.dropped_too_large),
                ("no-room", f.dropped_no_room),
                ("unreadable", f.unreadable),
                ("unknown", f.unknown),
            ] {
                all.push(labelled("cloud_frames_dropped_total", "Frames that went no further, by reason.", ("reason", reason), count));
            }
        }
        if let Some(mqtt) = self.beside.mqtt().as_ref() {
            let connections = mqtt.figures();
            let each = |name, help, value: fn(&event_bus::Figures) -> u64| {
                connections.iter().map(move |f| labelled(name, help, ("broker", f.endpoint), value(f))).collect::<Vec<_>>()
            };
            all.extend(each("mqtt_connected", "1 while the broker is connected.", |f| u64::from(f.connected)));
            all.extend(each("mqtt_waiting", "Publications that wait.", |f| f.waiting as u64));
            all.extend(each("mqtt_published_total", "Publications that the broker took.", |f| f.published));
            all.extend(each("mqtt_arrived_total", "Messages that arrived.", |f| f.arrived));
            all.extend(each("mqtt_dropped_total", "Publications dropped or refused.", |f| f.dropped));
            let f = mqtt.ingress_figures();
            for (outcome, count) in [("refused", f.refused), ("busy", f.busy), ("dropped", f.dropped), ("ignored", f.ignored), ("echoed", f.echoed)] {
                all.push(labelled("mqtt_ingress_total", "Messages that went no further, by outcome.", ("outcome", outcome), count));
            }
        }
        all
    }

    /// What has to be well for the node to serve. The cloud is not among it: an edge is made to go on alone.
    pub fn checks(&self) -> Vec<Check> {
        let mut all = vec![Check::ready("store", self.store.fault().map_or(Ok(()), Err))];
        if let Some(mqtt) = self.beside.mqtt().as_ref() {
            let away = |f: &event_bus::Figures| match f.trouble.as_str() {
                "" => format!("not connected to the {} broker", f.endpoint),
                why => format!("not connected to the {} broker: {why}", f.endpoint),
            };
            let away: Vec<_> = mqtt.figures().iter().filter(|f| !f.connected).map(away).collect();
            let result = if away.is_empty() { Ok(()) } else { Err(away.join("; ")) };
            all.push(Check::ready("mqtt", result));
        }
        if let Some(engine) = self.beside.engine().as_ref() {
            let engine = engine.snapshot()();
            all.push(Check::ready(
                "engine",
                match engine.engine_answers {
                    Some(true) => Ok(()),
                    Some(false) => Err(engine.reason),
                    None => Err("the container engine was not asked yet".to_owned()),
                },
            ));
        }
        all
    }

    /// How things stand, in one line for a human.
    pub fn line(&self, registry: &Registry) -> String {
        let views = registry.views();
        let mut parts = vec![actors_up(&views)];
        if let Some(link) = self.beside.link().as_ref() {
            let link = link.snapshot()();
            parts.push(if link.connected { format!("connected to {}", link.cloud) } else { format!("the cloud at {} is away", link.cloud) });
        }
        parts.push(count(self.store.counts().devices, "device", "devices"));
        if let Some(engine) = self.beside.engine().as_ref() {
            let engine = engine.snapshot()();
            parts.push(count(engine.pods(), "pod", "pods"));
            if engine.engine_answers == Some(false) {
                parts.push("the container engine is away".to_owned());
            }
        }
        let in_quarantine: usize = views.iter().map(|view| view.in_quarantine).sum();
        if in_quarantine > 0 {
            parts.push(format!("{in_quarantine} in quarantine"));
        }
        let percent = self.store.size().database_bytes.saturating_mul(100) / self.store.bytes_max().max(1);
        if percent >= 80 {
            parts.push(format!("the database has {percent} % of its full size"));
        }
        parts.extend(self.store.fault());
        parts.extend(self.damage.clone());
        parts.join("; ")
    }

    fn store_figures(&self, all: &mut Vec<Metric>) {
        let (stats, size) = (self.store.stats(), self.store.size());
        all.push(Metric::counter("store_commits_total", "Transactions that became durable.", stats.commits));
        all.push(Metric::counter("store_rollbacks_total", "Transactions that were rolled back.", stats.rollbacks));
        all.push(Metric::counter("store_fenced_total", "Transactions of a replaced actor that were rolled back.", stats.fenced));
        all.push(Metric {
            kind: "counter",
            ..Metric::gauge("store_commit_seconds_total", "Time spent in COMMIT.", stats.commit_total_us as f64 / 1e6)
        });
        all.push(Metric::gauge("store_commit_seconds_max", "Longest COMMIT.", stats.commit_max_us as f64 / 1e6));
        all.push(Metric::gauge("store_database_bytes", "Size of the database file.", size.database_bytes as f64));
        all.push(Metric::gauge("store_wal_bytes", "Size of the write-ahead log.", size.wal_bytes as f64));
        all.push(Metric::gauge("store_database_bytes_max", "Size that the database file may have.", self.store.bytes_max() as f64));
        if let Some(free) = self.store.disk_free_bytes() {
            all.push(Metric::gauge("store_disk_free_bytes", "Free space on the file system of the database.", free as f64));
        }
        let counts = self.store.counts();
        all.push(Metric::gauge("store_reusable_bytes", "Bytes in the database file that hold nothing.", counts.reusable_bytes as f64));
        for (table, rows) in [
            ("device", counts.devices),
            ("device_attr", counts.attributes),
            ("device_twin", counts.properties),
            ("meta", counts.objects.values().sum()),
            ("pending_report", counts.pending_reports),
        ] {
            all.push(labelled("store_rows", "Rows in the table.", ("table", table), rows));
        }
    }

    fn report_figures(&self, all: &mut Vec<Metric>) {
        let f = self.reports.figures();
        for (name, help, count) in [
            ("reports_sent_total", "Device reports given to the link.", &f.reports_sent),
            ("reports_confirmed_total", "Device reports that the cloud confirmed.", &f.reports_confirmed),
            ("reports_refused_total", "Device reports that the cloud refused.", &f.reports_refused),
            ("reports_overdue_total", "Device reports sent again for lack of a confirmation.", &f.reports_overdue),
            ("publications_dropped_total", "Publications for which EventBus had no room.", &f.publications_dropped),
            ("uploads_dropped_total", "Uploads overwritten while the cloud was away.", &f.uploads_dropped),
        ] {
            all.push(Metric::counter(name, help, AtomicU64::load(count, Ordering::Relaxed)));
        }
    }
}

fn labelled(name: &'static str, help: &'static str, (label, of): (&'static str, &'static str), value: u64) -> Metric {
    let metric = if name.ends_with("_total") { Metric::counter(name, help, value) } else { Metric::gauge(name, help, value as f64) };
    metric.of(label, of)
}
