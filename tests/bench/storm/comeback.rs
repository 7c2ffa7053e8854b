//! One real `skep-edge` whose cloud is killed: from the moment the cloud listens again until it is connected.

use std::time::Duration;

use model::NodeName;

use crate::Outcome;
use crate::figures::{Figures, Goal};
use crate::hollow::{self, Cloud, Edge, Options};

const RUNS: usize = 9;
/// Long enough for the edge's pauses to have grown to their longest.
const AWAY: Duration = Duration::from_secs(5);

/// Measures it.
///
/// # Errors
/// The edge does not come back.
pub fn run(figures: &mut Figures) -> Outcome {
    let mut cloud = Cloud::start_with(&Options::default())?;
    let mut edge = Edge::start(&NodeName::new("comeback").expect("a valid name"), &cloud.authority()?, cloud.hub_port())?;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        cloud.kill();
        edge.disconnected()?;
        hollow::pause(AWAY);
        cloud.run()?;
        let listened = cloud.listens()?;
        let connected = edge.connected().map_err(|error| cloud.with_log(error))?;
        runs.push(connected.saturating_duration_since(listened).as_secs_f64());
    }
    figures.add("skep-edge after kill -9 of the cloud: cloud listens to connected", "s", &runs).goal(Goal::AtMost(1.0));
    cloud.stop()
}
