//! Measurements: `make bench [SCENARIO=name]`.
//!
//! Each scenario writes `target/bench/<scenario>.json` and prints a table. A missed goal is shown, and is no failure: how fast a
//! machine is must not decide whether a change is right. A wrong result (a message lost, an answer that is not the expected
//! one) is a failure: figures of a program that errs say nothing.
//!
//! A scenario is one entry in [`SCENARIOS`] and one file. Contenders take turns run by run, and ratios are formed within a
//! turn, because on a shared machine two figures that were not taken next to each other cannot be compared.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints tables")]

mod actors;
mod api;
mod figures;
mod hollow;
mod link;
mod machine;
mod page;
mod pods;
mod storm;
mod twin;

use std::process::{Command, ExitCode};

use figures::Figures;

/// Exit code for wrong arguments, as the daemons have it (`sysexits.h`).
const USAGE: u8 = 64;

/// What went wrong in a run, in a sentence.
type Outcome = Result<(), String>;

struct Scenario {
    name: &'static str,
    about: &'static str,
    /// `None` while it is only planned.
    run: Option<fn(&mut Figures) -> Outcome>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "actors", about: "mailboxes against tokio and plain actix, restart, memory of an idle actor", run: Some(actors::run) },
    Scenario {
        name: "twin",
        about: "durable twin updates, MQTT in to result out; --endpoint measures another one",
        run: Some(|figures| twin::run(figures, &twin::Options::default())),
    },
    Scenario { name: "page", about: "the admin page while actors are blocked and flooded", run: Some(page::run) },
    Scenario { name: "link", about: "bursts and changes to a node over a slow line, idle traffic of an edge", run: Some(link::run) },
    Scenario {
        name: "storm",
        about: "memory of connected nodes, and all of them coming back at once; --nodes N",
        run: Some(|figures| storm::run(figures, &storm::Options::default())),
    },
    Scenario {
        name: "api",
        about: "the API server is away for a while; --seconds N",
        run: Some(|figures| api::run(figures, &api::Options::default())),
    },
    Scenario { name: "pods", about: "apply to started and Running, changed volumes, idle pods, cold start; with Docker", run: Some(pods::run) },
    Scenario { name: "memory", about: "resident memory of both daemons", run: None },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] => all(),
        [actors::IDLE_PART, rest @ ..] => report(actors::idle_part(rest)),
        ["twin", options @ ..] if !options.is_empty() => match twin::Options::parse(options) {
            // A file of its own: figures of ours are not overwritten with those of another endpoint.
            Ok(options) => report(measure("twin-endpoint", |figures| twin::run(figures, &options))),
            Err(why) => usage(&why),
        },
        ["storm", options @ ..] if !options.is_empty() => match storm::Options::parse(options) {
            Ok(options) => report(measure("storm", |figures| storm::run(figures, &options))),
            Err(why) => usage(&why),
        },
        ["api", options @ ..] if !options.is_empty() => match api::Options::parse(options) {
            Ok(options) => report(measure("api", |figures| api::run(figures, &options))),
            Err(why) => usage(&why),
        },
        [name] => match SCENARIOS.iter().find(|s| s.name == *name) {
            Some(Scenario { run: Some(run), .. }) => report(measure(name, *run)),
            Some(Scenario { run: None, .. }) => usage(&format!("scenario `{name}` is planned and does not exist yet")),
            None => usage(&format!("there is no scenario `{name}`")),
        },
        _ => usage("one scenario at a time, or none for all"),
    }
}

/// Runs every scenario in a process of its own, so that none inherits another's threads and heap.
fn all() -> ExitCode {
    let mut failed = Vec::new();
    for scenario in SCENARIOS.iter().filter(|s| s.run.is_some()) {
        let ended = std::env::current_exe().and_then(|program| Command::new(program).arg(scenario.name).status());
        if !ended.is_ok_and(|status| status.success()) {
            failed.push(scenario.name);
        }
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { report(Err(format!("failed: {}", failed.join(", ")))) }
}

fn measure(name: &str, run: impl FnOnce(&mut Figures) -> Outcome) -> Outcome {
    let mut figures = Figures::new(name);
    println!("{name}: measuring at commit {} on {}", figures.commit, figures.machine);
    run(&mut figures)?;
    let path = figures.write()?;
    println!("{}\nwritten to {}\n", figures.table(), path.display());
    Ok(())
}

fn report(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn usage(why: &str) -> ExitCode {
    eprintln!("bench: {why}");
    for (heading, exists) in [("scenarios:", true), ("planned:", false)] {
        eprintln!("{heading}");
        for scenario in SCENARIOS.iter().filter(|s| s.run.is_some() == exists) {
            eprintln!("  {:<8} {}", scenario.name, scenario.about);
        }
    }
    ExitCode::from(USAGE)
}
