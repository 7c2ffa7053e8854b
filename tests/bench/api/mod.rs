//! Scenario `api`: the API server is away, and that costs nothing but time.
//!
//! One `skep-cloud` is the cluster: its embedded API. A second one works with it by a kubeconfig, through a forwarder that is
//! cut. A real `skep-edge` (with a device) and a hollow edge (with a pod) are connected to the second. While the API is away
//! the cluster's objects change and the device reports; then all of it has to be where it belongs.

mod options;
mod seen;
mod world;

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figures::{Figures, Goal};
use crate::hollow;

pub use options::Options;

use world::World;

const RUNS: u64 = 2;
/// Of the time that the API is away, before the changes.
const BEFORE_CHANGES: Duration = Duration::from_millis(500);
/// What is not there so long after the API's return is lost.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What has to come true after the API's return, and the goal for it in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mended {
    /// The node is Ready and its lease has been renewed.
    Ready,
    /// A status that the edge has reported is in the API.
    Status,
    /// What the device has reported while the API was away is in the API.
    Report,
    /// What was wanted of the device while the API was away is known at the edge.
    Desired,
    /// Changed, new and deleted objects are known at the hollow edge.
    Objects,
}

const MENDED: [(Mended, &str, Option<f64>); 5] = [
    (Mended::Ready, "node Ready and its lease renewed", Some(2.0)),
    (Mended::Status, "a fresh status of the node in the API", None),
    (Mended::Report, "the device's report in the API", None),
    (Mended::Desired, "the desired value at the edge", None),
    (Mended::Objects, "changed, new and deleted objects at the edge", None),
];

/// Measures outages.
///
/// # Errors
/// A daemon does not start or ends; something is lost; an edge loses its connection.
pub fn run(figures: &mut Figures, options: &Options) -> Outcome {
    let mut world = World::make()?;
    let mut times: [Vec<f64>; MENDED.len()] = Default::default();
    for number in 1..=RUNS {
        let outcome = hollow::runtime()?.block_on(once(&mut world, number, options.away));
        let seconds = outcome.map_err(|error| world.with_log(error))?;
        times.iter_mut().zip(seconds).for_each(|(times, seconds)| times.push(seconds));
    }
    for ((_, what, goal), times) in MENDED.iter().zip(&times) {
        let figure = figures.add(format!("API away for {} s, from its return: {what}", options.away.as_secs()), "s", times);
        if let Some(goal) = goal {
            figure.goal(Goal::AtMost(*goal));
        }
    }
    world.stop()
}

/// One outage; for each of [`MENDED`] the seconds after its end.
async fn once(world: &mut World, number: u64, away: Duration) -> Result<[f64; MENDED.len()], String> {
    let mut api = world.cluster_api().await?;
    world.cut();
    let cut = Instant::now();
    tokio::time::sleep(BEFORE_CHANGES).await;
    world.change(&mut api, number).await?;
    tokio::time::sleep(away.saturating_sub(cut.elapsed())).await;
    let before = world.node(&mut api).await?;
    if world.is_changed_at_edge(number)? {
        return Err("something arrived while the API was away: the forwarder is not cut".to_owned());
    }
    world.mend();
    let mended = Instant::now();
    let mut at = [None; MENDED.len()];
    loop {
        world.must_run()?;
        for ((what, ..), at) in MENDED.iter().zip(&mut at).filter(|(_, at)| at.is_none()) {
            if world.is(*what, &mut api, &before, number).await? {
                *at = Some(mended.elapsed().as_secs_f64());
            }
        }
        if at.iter().all(Option::is_some) {
            return Ok(at.map(|at| at.expect("all are there")));
        }
        if mended.elapsed() > PATIENCE {
            let missing: Vec<&str> = MENDED.iter().zip(at).filter(|(_, at)| at.is_none()).map(|((_, what, _), _)| *what).collect();
            return Err(format!("not within {} s after the API's return: {}", PATIENCE.as_secs(), missing.join("; ")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
