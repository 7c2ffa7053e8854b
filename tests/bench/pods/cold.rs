//! An edge that is started with pods in its store while the cloud is away: a power cut on a machine without a network.

use harness::{docker, names};

use super::{Engine, World, eventually, manifest, ms};
use crate::Outcome;
use crate::figures::{Figures, Goal};
use crate::hollow::Cloud;

const PODS: usize = 50;
const RUNS: usize = 7;
const GOAL_MS: f64 = 200.0;

/// Fills the store of an edge on the engine that runs nothing, takes the cloud away, and starts the edge with Docker.
///
/// # Errors
/// A pod does not get into the store; the edge ends, or asks nothing of Docker, or makes nothing.
pub fn run(figures: &mut Figures, cloud: &mut Cloud) -> Outcome {
    let mut world = World::make(cloud, Engine::Hollow, &names::unique("cold"))?;
    let node = world.edge.node().to_owned();
    let pods: Vec<String> = (0..PODS).map(|number| format!("cold-{number}")).collect();
    for name in &pods {
        world.create("pods", &manifest::sleeper(name, &node, false))?;
    }
    world.running(&pods).map_err(|error| world.edge.with_log(error))?;
    cloud.stop()?;
    let (mut edge, socket) = world.into_edge();
    edge.kill();
    edge.configure(Engine::Docker, &socket.path())?;
    let (mut first, mut made) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        socket.clear();
        let began = edge.run()?;
        let asked = eventually("skep-edge asks Docker for a container of a stored pod", || {
            edge.must_run()?;
            Ok(socket.first(|call| call.is_create()))
        });
        let create = asked.map_err(|error| edge.with_log(error))?;
        edge.kill();
        // More than once: what the edge has asked for, Docker makes.
        eventually("its containers are gone", || {
            docker::remove_all(&node);
            Ok(docker::containers(&node, None)?.is_empty().then_some(()))
        })?;
        first.push(ms(began, socket.first(|_| true).ok_or("nothing was asked")?.asked));
        made.push(ms(began, create.asked));
    }
    figures.add(format!("cold start, {PODS} stored pods, no cloud: first request to Docker"), "ms", &first).goal(Goal::AtMost(GOAL_MS));
    figures.add(format!("cold start, {PODS} stored pods, no cloud: first container asked for"), "ms", &made);
    Ok(())
}
