//! An edge with a hundred pods that do nothing, on the engine that runs nothing: what remains is Skep's own work.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use harness::names;

use super::{Engine, World, manifest};
use crate::Outcome;
use crate::figures::{Figures, Goal, median};
use crate::hollow::{self, Cloud};
use crate::machine;

const PODS: usize = 100;
/// Of them have a readiness probe every ten seconds.
const PROBED: usize = 20;
/// After a change: statuses and events of it are sent, and the comparisons with the engine have become rare.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// Half a minute each, so that two of them hold everything that repeats (statuses: a minute).
const WINDOW: Duration = Duration::from_secs(30);
const WINDOWS: usize = 4;
const CPU_PERCENT: f64 = 1.0;
const MEMORY_MB: f64 = 12.0;
const MB_PER_KIB: f64 = 1.024e-3;

/// Measures one daemon before and after.
///
/// # Errors
/// A pod is not Running, or one with a probe not Ready; the edge ends.
pub fn run(figures: &mut Figures, cloud: &Cloud) -> Outcome {
    let mut world = World::make(cloud, Engine::Hollow, &names::unique("idle"))?;
    let measured = measure(figures, &mut world);
    measured.map_err(|error| world.edge.with_log(error))?;
    world.end()
}

fn measure(figures: &mut Figures, world: &mut World) -> Outcome {
    let node = world.edge.node().to_owned();
    let port = listen()?;
    let without = windows(world)?;
    let names: Vec<String> = (0..PODS).map(|number| format!("idle-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let pod = if number < PROBED { manifest::probed(name, &node, port) } else { manifest::sleeper(name, &node, false) };
        world.create("pods", &pod)?;
    }
    world.running(&names)?;
    world.ready(&names)?;
    let with = windows(world)?;
    world.ready(&names)?;
    let more: Vec<f64> = with.cpu.iter().map(|cpu| cpu - median(&without.cpu)).collect();
    figures.add("edge without pods: processor", "% of a core", &without.cpu);
    figures.add(format!("edge with {PODS} idle pods, {PROBED} probed: processor"), "% of a core", &with.cpu).goal(Goal::AtMost(CPU_PERCENT));
    figures.add(format!("{PODS} idle pods: processor more than without"), "% of a core", &more);
    figures.add("edge without pods: PSS", "MB", &[without.pss]);
    figures.add(format!("{PODS} idle pods: PSS more than without"), "MB", &[with.pss - without.pss]).goal(Goal::AtMost(MEMORY_MB));
    figures.add(format!("{PODS} idle pods: anonymous memory more than without"), "MB", &[with.anonymous - without.anonymous]);
    Ok(())
}

struct Spent {
    /// Of a core, per window.
    cpu: Vec<f64>,
    pss: f64,
    anonymous: f64,
}

/// Waits until nothing happens, and looks for a while.
fn windows(world: &mut World) -> Result<Spent, String> {
    hollow::pause(SETTLED_AFTER);
    let pid = world.edge.pid();
    let mut cpu = Vec::new();
    for _ in 0..WINDOWS {
        let (before, began) = (machine::cpu_us_of(pid)?, Instant::now());
        hollow::pause(WINDOW);
        cpu.push((machine::cpu_us_of(pid)? - before) / (began.elapsed().as_secs_f64() * 1e6) * 100.0);
        world.edge.must_run()?;
    }
    let memory = machine::memory_of(pid)?;
    Ok(Spent { cpu, pss: memory.pss * MB_PER_KIB, anonymous: memory.anonymous * MB_PER_KIB })
}

/// A port of this machine that takes each connection and closes it.
fn listen() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(drop));
    Ok(port)
}
