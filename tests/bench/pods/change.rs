//! A changed ConfigMap or Secret, from the API's answer to the file in the pod's volume.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{PATIENCE, World, manifest, ms};
use crate::Outcome;
use crate::figures::{Figures, Goal};
use crate::hollow;

const CHANGES: usize = 25;
const GOAL_MS: f64 = 200.0;
const KEY: &str = "key";
/// Between two looks at the file: an error of the figure, so small, and not none, to leave the processor to the daemons.
const LOOK_EVERY: Duration = Duration::from_micros(100);
/// From one change to the next, and so much longer each time, so that they meet whatever repeats at different moments.
const PAUSE: Duration = Duration::from_millis(300);
const PAUSE_LONGER: Duration = Duration::from_millis(17);

/// Measures changes of both.
///
/// # Errors
/// The pod does not run; a file has other content than the last two that were written, or does not change.
pub fn run(figures: &mut Figures, world: &mut World) -> Outcome {
    let node = world.edge.node().to_owned();
    world.create("configmaps", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map"}, "data": {KEY: content(0)}}))?;
    world.create(
        "secrets",
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}, "data": {KEY: STANDARD.encode(content(0))}}),
    )?;
    let (pod, _) = world.create("pods", &manifest::reader("reader", &node, "map", "secret"))?;
    let uid = pod["metadata"]["uid"].as_str().ok_or("the API gave the pod no uid")?.to_owned();
    world.running(&["reader".to_owned()])?;
    for (what, kind, name) in [("ConfigMap", "configmap", "map"), ("Secret", "secret", "secret")] {
        let file = world.edge.volume(&uid, kind, name).join(KEY);
        arrived(world, &file, 0, 0)?;
        let mut times = Vec::new();
        for number in 1..=CHANGES {
            hollow::pause(PAUSE + PAUSE_LONGER * u32::try_from(number).unwrap_or(0));
            let value = content(number);
            let value = if kind == "secret" { STANDARD.encode(value) } else { value };
            let taken = world.patch(&format!("{kind}s/{name}"), &json!({"data": {KEY: value}}))?;
            times.push(ms(taken, arrived(world, &file, number - 1, number)?));
        }
        let slowest = times.iter().copied().fold(0.0, f64::max);
        figures.add(format!("a changed {what}: the API's answer to the file in the pod's volume"), "ms", &times).goal(Goal::AtMost(GOAL_MS));
        figures.add(format!("a changed {what}: the slowest of them"), "ms", &[slowest]).goal(Goal::AtMost(GOAL_MS));
    }
    world.delete_pod("reader")
}

fn content(number: usize) -> String {
    format!("content {number}\n")
}

/// Waits until the file has what was written last.
fn arrived(world: &mut World, file: &Path, before: usize, number: usize) -> Result<Instant, String> {
    let (before, wanted, began) = (content(before), content(number), Instant::now());
    loop {
        let found = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        if found == wanted {
            return Ok(Instant::now());
        }
        if found != before {
            return Err(format!("{} has `{found}`, which is neither the old nor the new content", file.display()));
        }
        if began.elapsed() > PATIENCE {
            world.edge.must_run()?;
            return Err(format!("{} has not changed within {} s", file.display(), PATIENCE.as_secs()));
        }
        hollow::pause(LOOK_EVERY);
    }
}
