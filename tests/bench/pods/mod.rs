//! Scenario `pods`: the real `skep-cloud` (embedded API), the real `skep-edge` and the real Docker, with an image of busybox
//! that is made on the spot.
//!
//! | part | what is measured |
//! |---|---|
//! | `change` | a ConfigMap or Secret changed in the API → its file in the pod's volume |
//! | `start` | a pod created in the API → durable at the edge → its container started → Running in the API; Docker alone beside it |
//! | `idle` | processor and memory of an edge with 100 pods that do nothing, on the engine that runs nothing |
//! | `cold` | an edge that is started with 50 pods in its store and no cloud → its first request to Docker |
//!
//! What the edge asks of Docker and when it is answered is seen by [`Socket`], a forwarder in front of Docker's socket; that
//! a pod is durable is seen by [`Durable`], which reads the edge's database as another program.

mod bare;
mod change;
mod cold;
mod durable;
mod edge;
mod idle;
mod manifest;
mod socket;
mod start;
mod world;

use std::time::{Duration, Instant};

use harness::{docker, names, top};

use crate::Outcome;
use crate::figures::Figures;
use crate::hollow::{self, Cloud, Options};

use durable::Durable;
use edge::{Edge, Engine};
use socket::{Call, Socket};
use world::World;

const DOCKER: &str = "/var/run/docker.sock";
const BUSYBOX: &str = "/bin/busybox";
const IMAGE: &str = "skep/busybox:bench";
/// What has not happened after so long does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something whose own moment is known: nothing depends on it but the length of the run.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Measures pods.
///
/// With `SKEP_SKIP=docker` only what needs no Docker.
///
/// # Errors
/// Docker does not answer; a daemon does not start or ends; a pod does not run; a file does not change.
pub fn run(figures: &mut Figures) -> Outcome {
    let with_docker = has_docker()?;
    let mut cloud = Cloud::start_with(&Options::default())?;
    let measured = parts(figures, &mut cloud, with_docker);
    measured.map_err(|error| cloud.with_log(error))?;
    cloud.stop()
}

fn parts(figures: &mut Figures, cloud: &mut Cloud, with_docker: bool) -> Outcome {
    if with_docker {
        let mut world = World::make(cloud, Engine::Docker, &names::unique("bench"))?;
        let measured = change::run(figures, &mut world).and_then(|()| start::run(figures, &mut world));
        measured.map_err(|error| world.edge.with_log(error))?;
        world.end()?;
    }
    idle::run(figures, cloud)?;
    if with_docker { cold::run(figures, cloud) } else { Ok(()) }
}

/// Whether Docker is to be measured; makes the image.
fn has_docker() -> Result<bool, String> {
    if std::env::var("SKEP_SKIP").is_ok_and(|skip| skip == "docker") {
        return Ok(false);
    }
    docker::docker(&["version", "--format", "{{.Server.Version}}"]).map_err(|words| {
        format!(
            "this scenario needs a Docker engine that answers ({words}): run deploy/setup.sh --for bench-pods, or leave Docker out with SKEP_SKIP=docker"
        )
    })?;
    let made = std::process::Command::new(top().join("deploy/examples/build-image.sh")).args([BUSYBOX, IMAGE]).output();
    let made = made.map_err(|error| format!("build-image.sh: {error}"))?;
    if !made.status.success() {
        return Err(format!("no image of {BUSYBOX} (run deploy/setup.sh --for bench-pods): {}", String::from_utf8_lossy(&made.stderr)));
    }
    Ok(true)
}

/// Looks until `check` gives something; `what` says what that is.
///
/// # Errors
/// The check's, and that it gave nothing in time.
fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<Option<T>, String>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        if let Some(value) = check()? {
            return Ok(value);
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("not within {} s: {what}", PATIENCE.as_secs()));
        }
        hollow::pause(LOOK_EVERY);
    }
}

/// From one moment to a later one, in ms; 0 if it was not later.
fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}
