//! Idle: memory of a supervised actor that has nothing to do.

use std::process::Command;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use actix_rt::System;
use actor::{ChildSpec, Handle, Lease, Mail, Policy, Reply, Running, Supervisor};

use crate::figures::{Figures, Goal};
use crate::{Outcome, machine};

/// First argument of the process that is measured.
pub const IDLE_PART: &str = "part:idle-actors";
const ACTORS: usize = 200;
const RUNS: usize = 7;

struct Ask(Reply<()>);
impl Mail for Ask {
    fn kind(&self) -> &'static str {
        "Ask"
    }
}
struct Idle;
impl Actor for Idle {
    type Context = Context<Self>;
}
impl Handler<Lease<Ask>> for Idle {
    type Result = ();
    fn handle(&mut self, lease: Lease<Ask>, _: &mut Self::Context) {
        lease.each(|_, Ask(reply)| {
            reply.send(());
        });
    }
}

/// Starts a process per run: in this one, freed memory of earlier parts would hide what an actor takes.
pub fn run(figures: &mut Figures) -> Outcome {
    let places = [("own", "own arbiter"), ("here", "common arbiter")];
    let mut runs = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for _ in 0..RUNS {
        for ((place, _), (pss, anonymous)) in places.iter().zip(&mut runs) {
            let (p, a) = in_process(place)?;
            pss.push(p);
            anonymous.push(a);
        }
    }
    for ((_, title), (pss, anonymous)) in places.iter().zip(&runs) {
        figures.add(format!("idle actor, {title}: PSS"), "KiB", pss).goal(Goal::AtMost(64.0));
        figures.add(format!("idle actor, {title}: anonymous"), "KiB", anonymous);
    }
    Ok(())
}

/// PSS and anonymous memory per actor in KiB, measured by a fresh process with the daemons' allocator setting.
fn in_process(place: &str) -> Result<(f64, f64), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program).args([IDLE_PART, place]).env("MALLOC_ARENA_MAX", "2").output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (output.status.success(), numbers.next(), numbers.next()) {
        (true, Some(Ok(pss)), Some(Ok(anonymous))) => Ok((pss, anonymous)),
        _ => Err(format!("idle actors: {text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// The measured process: prints PSS and anonymous memory per actor in KiB.
///
/// # Errors
/// Wrong arguments, or an actor that does not answer.
#[allow(clippy::cast_precision_loss, reason = "a small count")]
pub fn part(args: &[&str]) -> Outcome {
    let here = match args {
        ["own"] => false,
        ["here"] => true,
        _ => return Err(format!("{IDLE_PART}: expected `own` or `here`")),
    };
    System::new().block_on(async {
        // Takes what the process pays once.
        let first = start(1, here).await?;
        let before = machine::memory()?;
        let rest = start(ACTORS, here).await?;
        let after = machine::memory()?;
        let each = |before: f64, after: f64| (after - before) / ACTORS as f64;
        println!("{} {}", each(before.pss, after.pss), each(before.anonymous, after.anonymous));
        rest.shutdown().await;
        first.shutdown().await;
        Ok(())
    })
}

/// Starts this many actors; each has answered.
async fn start(count: usize, here: bool) -> Result<Running, String> {
    let mut supervisor = Supervisor::new("bench", Policy::default());
    let handles: Vec<Handle<Ask>> = (0..count).map(|n| actor::mailbox(format!("idle-{count}-{n}").leak(), 1024)).collect();
    for handle in &handles {
        let spec = ChildSpec::new(handle, || Idle);
        supervisor = supervisor.child(if here { spec.here() } else { spec });
    }
    let running = supervisor.start(|why| panic!("{why}"));
    for handle in &handles {
        handle.ask(Duration::from_secs(10), Ask).await.map_err(|error| format!("{handle:?}: {error}"))?;
    }
    Ok(running)
}
