//! Pods one after the other, from the API's answer to Running, and Docker alone in the same turns.
//!
//! Of a pod's way these moments are known: the API's answer to its creation; the row of the pod visible to another reader of
//! the edge's database (durable); its requests to Docker and their answers; the watch that first shows it running.
//!
//! * *In Docker* is what Docker takes for the requests that make and start the pod's containers (its sandbox, too, where it
//!   has one), each from the first byte of the request to the last byte of the answer. They come one after the other.
//! * *Skep's own share* is the rest from durable to the answer to the last start: its own work, and Docker's answers to
//!   whatever else it asks before a container is started, which is shown beside it.
//! * *Docker alone* is the same requests, those of a pod of that form which stays, with nothing between them; *beyond Docker
//!   alone* is from durable to the last start less that, turn by turn. Who comes first changes from turn to turn.
//!
//! The goal is held against both. What is beyond Docker alone would be the same as the own share if Docker took as long each
//! time; it varies by more than the goal is, so a single run of that figure says little.

use std::time::{Duration, Instant};

use super::bare::{self, id_of};
use super::{Call, Durable, World, manifest, ms};
use crate::Outcome;
use crate::figures::{Figures, Goal};
use crate::hollow;

const PODS: usize = 20;
/// Before them: the first sandbox brings its image, and the first container what the engine may not do.
const WARM_UP: usize = 2;
const OWN_MS: f64 = 30.0;
const RUNNING_MS: f64 = 60.0;
/// After containers have gone: what follows from that is over.
const QUIET: Duration = Duration::from_millis(700);

/// A form of a pod.
struct Form {
    about: &'static str,
    name: &'static str,
    is_on_host_network: bool,
    /// Its own and its sandbox.
    containers: usize,
}

const FORMS: [Form; 2] = [
    Form { about: "pod", name: "own", is_on_host_network: false, containers: 2 },
    Form { about: "pod on the host's network", name: "host", is_on_host_network: true, containers: 1 },
];

/// What was seen of one pod.
struct Seen {
    taken: Instant,
    durable: Instant,
    running: Instant,
    uid: String,
    calls: Vec<Call>,
}

/// One pod, in ms.
#[derive(Clone, Copy, Debug)]
struct Turn {
    to_durable: f64,
    to_first_request: f64,
    to_started: f64,
    in_docker: f64,
    other_answers: f64,
    to_running: f64,
    bare: f64,
}

/// Measures both forms of a pod.
///
/// # Errors
/// A pod does not run, or is made of another number of containers than it has.
pub fn run(figures: &mut Figures, world: &mut World) -> Outcome {
    let mut durable = Durable::open(&world.edge.database())?;
    for form in &FORMS {
        let mut first = Vec::new();
        for number in 0..WARM_UP {
            let seen = start(world, &mut durable, form, &format!("warm-up-{}-{number}", form.name))?;
            first = seen.creates();
        }
        // The last one's, whose directories stay: what was tried in vain before is not repeated.
        let first = first.get(first.len().saturating_sub(form.containers)..).unwrap_or_default();
        hollow::pause(QUIET);
        let mut turns = Vec::new();
        for number in 0..PODS {
            let name = format!("start-{}-{number}", form.name);
            let before = if number % 2 == 1 { Some(alone(world, first)?) } else { None };
            let seen = start(world, &mut durable, form, &name)?;
            world.delete_pod(&name)?;
            hollow::pause(QUIET);
            let bare = before.map_or_else(|| alone(world, first), Ok)?;
            turns.push(seen.turn(form, bare).map_err(|error| format!("{name}: {error}"))?);
        }
        for number in 0..WARM_UP {
            world.delete_pod(&format!("warm-up-{}-{number}", form.name))?;
        }
        show(figures, form, &turns);
    }
    Ok(())
}

fn show(figures: &mut Figures, form: &Form, turns: &[Turn]) {
    type Of = fn(&Turn) -> f64;
    let (own, running) = (Some(Goal::AtMost(OWN_MS)), Some(Goal::AtMost(RUNNING_MS)));
    let all: [(&str, Of, Option<Goal>); 9] = [
        ("Docker alone: create and start", |turn| turn.bare, None),
        ("the API's answer to durable at the edge", |turn| turn.to_durable, None),
        ("durable to the first request to Docker", |turn| turn.to_first_request, None),
        ("durable to started", |turn| turn.to_started, None),
        ("of it in Docker's create and start", |turn| turn.in_docker, None),
        ("of it Skep's own share", |turn| turn.to_started - turn.in_docker, own),
        ("of that Docker's other answers", |turn| turn.other_answers, None),
        ("durable to started, beyond Docker alone", |turn| turn.to_started - turn.bare, own),
        ("started to Running in the API", |turn| turn.to_running, running),
    ];
    for (what, of, goal) in all {
        let values: Vec<f64> = turns.iter().map(of).collect();
        let figure = figures.add(format!("{}: {what}", form.about), "ms", &values);
        if let Some(goal) = goal {
            figure.goal(goal);
        }
    }
}

/// Starts a pod, and waits until it is Running in the API.
fn start(world: &mut World, durable: &mut Durable, form: &Form, name: &str) -> Result<Seen, String> {
    let pod = manifest::sleeper(name, world.edge.node(), form.is_on_host_network);
    world.socket.clear();
    let (created, durable) = std::thread::scope(|scope| {
        let waits = scope.spawn(|| durable.pod(name));
        (world.create("pods", &pod), waits.join())
    });
    let (pod, taken) = created?;
    let durable = durable.map_err(|_| "the thread that asks sqlite3 panicked".to_owned())??;
    let uid = pod["metadata"]["uid"].as_str().ok_or("the API gave the pod no uid")?.to_owned();
    let running = world.running(&[name.to_owned()])?[0];
    Ok(Seen { taken, durable, running, uid, calls: world.socket.calls() })
}

/// Docker alone, and a pause.
fn alone(world: &World, creates: &[Call]) -> Result<f64, String> {
    let spent = bare::again(&world.socket, creates, &format!("{}-alone", world.edge.node()))?;
    hollow::pause(QUIET);
    Ok(spent)
}

impl Seen {
    /// The requests that made its containers.
    fn creates(&self) -> Vec<Call> {
        self.calls.iter().filter(|call| call.is_create() && call.line().contains(&self.uid)).cloned().collect()
    }

    fn turn(&self, form: &Form, bare: f64) -> Result<Turn, String> {
        let creates = self.creates();
        let ids: Vec<String> = creates.iter().filter_map(id_of).collect();
        let starts: Vec<&Call> = self.calls.iter().filter(|call| call.starts().is_some_and(|id| ids.contains(&id))).collect();
        if creates.len() != form.containers || starts.len() != form.containers {
            return Err(format!("Docker was asked for {} containers and {} starts instead of {}", creates.len(), starts.len(), form.containers));
        }
        let mut in_docker = 0.0;
        let mut started = None;
        for call in creates.iter().chain(starts) {
            let answered = call.answered.ok_or_else(|| format!("no answer to {}", call.line()))?;
            in_docker += ms(call.asked, answered);
            started = started.max(Some(answered));
        }
        let started = started.ok_or("nothing was started")?;
        let is_of_pod = |line: &str| line.contains(&self.uid) || line.contains("/images/") || ids.iter().any(|id| line.contains(id));
        let of_pod = || self.calls.iter().filter(|call| is_of_pod(&call.line()));
        let others = of_pod().filter(|call| !call.is_create() && call.starts().is_none() && call.asked < started);
        let others = others.filter_map(|call| Some((call.asked.max(self.durable), call.answered?.min(started)))).collect();
        let first = of_pod().map(|call| call.asked).min().ok_or("nothing was asked")?;
        Ok(Turn {
            to_durable: ms(self.taken, self.durable),
            to_first_request: ms(self.durable, first),
            to_started: ms(self.durable, started),
            in_docker,
            other_answers: union(others),
            to_running: ms(started, self.running),
            bare,
        })
    }
}

/// Length of what at least one of the spans covers, in ms.
fn union(mut spans: Vec<(Instant, Instant)>) -> f64 {
    spans.sort();
    let (mut sum, mut reached) = (0.0, None::<Instant>);
    for (from, to) in spans {
        let from = reached.map_or(from, |reached| reached.max(from));
        sum += ms(from, to);
        reached = Some(reached.map_or(to, |reached| reached.max(to)));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_is_counted_once() {
        let at = |ms: u64, base: Instant| base + Duration::from_millis(ms);
        let base = Instant::now();
        let spans = [(5, 9), (0, 4), (2, 3), (3, 6), (20, 21)].map(|(from, to)| (at(from, base), at(to, base)));
        assert!((union(spans.to_vec()) - 10.0).abs() < 1e-6);
        assert!(union(Vec::new()) == 0.0);
    }
}
