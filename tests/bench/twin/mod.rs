//! Scenario `twin`: durable twin updates, MQTT in to result out, over the real `skep-edge` as it is shipped.
//!
//! The daemon runs alone, with all modules, its embedded broker, no cloud and no container engine; its devices are written
//! into its database before it starts. With `--endpoint` nothing is started: the same client measures another MQTT endpoint
//! whose devices exist already.

mod client;
mod daemon;
mod disk;
mod load;
mod options;

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figures::{Figures, Goal, quantile, ratios};
use crate::machine::{self, Memory};

pub use client::Client;
pub use options::Options;

use daemon::Edge;
use disk::Disk;
use load::{Kind, Load, Measured};

const DEVICES: usize = 16;
const MANY_DEVICES: usize = 10_000;
/// Properties of each device; one of them is updated.
const PROPERTIES: usize = 10;
const TURNS: usize = 5;
/// Updates with one in flight per turn, in blocks between which the disk is measured alone.
const BLOCKS: usize = 10;
const BLOCK: usize = 50;
const IN_FLIGHT: [usize; 3] = [1, 16, 256];
/// How long each rate is measured per turn.
const WINDOW: Duration = Duration::from_millis(1500);
const STARTS: usize = 3;
/// A daemon or endpoint that gives no answer for so long has failed the bench.
const PATIENCE: Duration = Duration::from_secs(20);
const KIB_PER_MB: f64 = 1000.0 / 1.024;

/// Measures the daemon, or the endpoint of the options.
///
/// # Errors
/// The daemon does not start or ends; an answer is missing, has a code, belongs to no request, or does not show the value
/// that was sent.
pub fn run(figures: &mut Figures, options: &Options) -> Outcome {
    match &options.endpoint {
        Some(endpoint) => {
            let mut rates = Rates::default();
            for _ in 0..TURNS {
                let client = Client::connect(endpoint, PATIENCE)?;
                rates.turn(&mut Load::new(client, &options.devices)?, None, None)?;
            }
            rates.tell(figures, false);
        }
        None => {
            sixteen(figures)?;
            many(figures)?;
        }
    }
    Ok(())
}

/// Rates, latencies, CPU and memory with 16 devices.
fn sixteen(figures: &mut Figures) -> Outcome {
    let devices = options::named(daemon::PREFIX, DEVICES);
    let mut edge = Edge::prepare(DEVICES, PROPERTIES)?;
    edge.start()?;
    edge.first_answer(&devices[0], PATIENCE)?;
    let idle = machine::memory_of(edge.pid())?;
    let disk = Disk::open(edge.data())?;
    let mut rates = Rates::default();
    for _ in 0..TURNS {
        let client = Client::connect(&edge.address(), PATIENCE)?;
        let turn = rates.turn(&mut Load::new(client, &devices)?, Some(&disk), Some(edge.pid()));
        turn.map_err(|error| edge.with_log(error))?;
    }
    let busy = machine::memory_of(edge.pid())?;
    edge.stop()?;
    rates.tell(figures, true);
    tell_memory(figures, "16 devices, idle", idle, 15.0);
    tell_memory(figures, "16 devices, after the load", busy, 15.0);
    Ok(())
}

/// Start and memory with 10,000 devices.
fn many(figures: &mut Figures) -> Outcome {
    let devices = options::named(daemon::PREFIX, MANY_DEVICES);
    let mut edge = Edge::prepare(MANY_DEVICES, PROPERTIES)?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        edge.stop()?;
        let began = Instant::now();
        edge.start()?;
        let answered = edge.first_answer(&devices[MANY_DEVICES / 2], PATIENCE)?;
        starts.push(answered.duration_since(began).as_secs_f64());
    }
    let started = machine::memory_of(edge.pid())?;
    let mut load = Load::new(Client::connect(&edge.address(), PATIENCE)?, &devices)?;
    let each = load.count(Kind::Update, 64, MANY_DEVICES).map_err(|error| edge.with_log(error))?;
    let updated = machine::memory_of(edge.pid())?;
    drop(load);
    edge.stop()?;
    figures.add("10,000 devices: start to first answered get", "s", &starts).goal(Goal::AtMost(1.0));
    tell_memory(figures, "10,000 devices, started", started, 40.0);
    tell_memory(figures, "10,000 devices, each updated", updated, 40.0);
    figures.add("10,000 devices: update, 64 in flight", "updates/s", &[each.rate()]);
    Ok(())
}

fn tell_memory(figures: &mut Figures, what: &str, memory: Memory, goal: f64) {
    figures.add(format!("{what}: PSS"), "MB", &[memory.pss / KIB_PER_MB]).goal(Goal::AtMost(goal));
    figures.add(format!("{what}: anonymous"), "MB", &[memory.anonymous / KIB_PER_MB]);
}

/// One value per turn of everything that is measured in turns.
#[derive(Default)]
struct Rates {
    updates: [Vec<f64>; IN_FLIGHT.len()],
    gets: Vec<f64>,
    latency: [Vec<f64>; 2],
    sync: [Vec<f64>; 2],
    daemon_cpu: [Vec<f64>; IN_FLIGHT.len()],
    daemon_cpu_get: Vec<f64>,
    client_cpu: Vec<f64>,
}

/// The quantiles that are shown of a latency.
const QUANTILES: [(&str, f64); 2] = [("p50", 0.5), ("p99", 0.99)];

impl Rates {
    fn turn(&mut self, load: &mut Load<'_>, disk: Option<&Disk>, daemon: Option<u32>) -> Outcome {
        // Connection, caches and the answers' forms are warm, then.
        load.count(Kind::Update, DEVICES, 2 * load.devices())?;
        let (mut syncs, mut latencies) = (Vec::new(), Vec::new());
        for _ in 0..BLOCKS {
            if let Some(disk) = disk {
                syncs.extend(disk.sync(BLOCK)?);
            }
            latencies.extend(load.count(Kind::Update, 1, BLOCK)?.latencies);
        }
        for (at, (_, of)) in QUANTILES.iter().enumerate() {
            self.latency[at].push(quantile(&latencies, *of));
            if disk.is_some() {
                self.sync[at].push(quantile(&syncs, *of));
            }
        }
        for (at, in_flight) in IN_FLIGHT.into_iter().enumerate() {
            let (measured, cpu) = with_cpu(daemon, || load.window(Kind::Update, in_flight, WINDOW))?;
            self.updates[at].push(measured.rate());
            self.daemon_cpu[at].extend(cpu.map(|cpu| cpu / measured.answers()));
            if at + 1 == IN_FLIGHT.len() {
                self.client_cpu.push(measured.own_cpu_us / measured.answers());
            }
        }
        load.last_values_are_shown()?;
        let (measured, cpu) = with_cpu(daemon, || load.window(Kind::Get, 16, WINDOW))?;
        self.gets.push(measured.rate());
        self.daemon_cpu_get.extend(cpu.map(|cpu| cpu / measured.answers()));
        Ok(())
    }

    fn tell(&self, figures: &mut Figures, ours: bool) {
        let goals = [None, Some(Goal::AtLeast(2_000.0)), Some(Goal::AtLeast(10_000.0))];
        for ((in_flight, runs), goal) in IN_FLIGHT.iter().zip(&self.updates).zip(goals) {
            let figure = figures.add(format!("update, {in_flight} in flight"), "updates/s", runs);
            if let Some(goal) = goal.filter(|_| ours) {
                figure.goal(goal);
            }
        }
        let gets = figures.add("get, 16 in flight", "gets/s", &self.gets);
        if ours {
            gets.goal(Goal::AtLeast(20_000.0));
        }
        for (at, (name, _)) in QUANTILES.iter().enumerate() {
            figures.add(format!("update, 1 in flight: {name}"), "ms", &self.latency[at]);
            if !ours {
                continue;
            }
            figures.add(format!("fdatasync of 4 KiB: {name}"), "ms", &self.sync[at]);
            let ratio = figures.add(format!("update / fdatasync: {name}"), "ratio", &ratios(&self.latency[at], &self.sync[at]));
            if *name == "p99" {
                ratio.goal(Goal::AtMost(3.0));
            }
        }
        if ours {
            for (in_flight, runs) in IN_FLIGHT.iter().zip(&self.daemon_cpu) {
                figures.add(format!("daemon's CPU per update, {in_flight} in flight"), "us", runs);
            }
            figures.add("daemon's CPU per get", "us", &self.daemon_cpu_get);
        }
        figures.add("client's CPU per update, 256 in flight", "us", &self.client_cpu);
    }
}

/// What was measured, and the CPU time in µs that the daemon took meanwhile.
fn with_cpu(daemon: Option<u32>, measure: impl FnOnce() -> Result<Measured, String>) -> Result<(Measured, Option<f64>), String> {
    let spent = || daemon.map(machine::cpu_us_of).transpose();
    let before = spent()?;
    let measured = measure()?;
    let after = spent()?;
    Ok((measured, after.zip(before).map(|(after, before)| after - before)))
}
