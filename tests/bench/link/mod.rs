//! Scenario `link`: frames between the real `skep-cloud` and hollow edges, and what the real `skep-edge` says while idle.

mod burst;
mod idle;
mod real;
mod steady;

use crate::Outcome;
use crate::figures::Figures;
use crate::hollow::{Cloud, Options};

/// Measures the link.
///
/// # Errors
/// A daemon does not start or ends; an object is lost, comes twice or out of order.
pub fn run(figures: &mut Figures) -> Outcome {
    let mut cloud = Cloud::start_with(&Options::default())?;
    let idle = idle::Idle::begin(&cloud)?;
    burst::run(figures, &cloud)?;
    steady::run(figures, &cloud)?;
    real::run(figures, &cloud)?;
    idle.finish(figures)?;
    cloud.stop()
}
