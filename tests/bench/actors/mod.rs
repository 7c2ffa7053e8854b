//! Scenario `actors`: the mailbox against raw tokio channels and plain actix, a restart under load, memory of an idle actor.
//!
//! | part | contenders, taking turns |
//! |---|---|
//! | one way | tokio mpsc; actix `do_send` (unbounded) and `send` (a window of [`one_way::WINDOW`]); ours, batches of 1 and 512 |
//! | round trip | tokio mpsc and oneshot; actix `send`; ours `ask` |
//! | restart | a panic with 10,000 messages waiting |
//! | idle | 200 actors, each on its own arbiter and on a common one |
//!
//! "1 thread": sender and receiver on one arbiter. "2 threads": the receiver on its own.

mod idle;
mod one_way;
mod restart;
mod round_trip;

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

pub use idle::{IDLE_PART, part as idle_part};

use crate::figures::{Figures, Goal, ratios};
use crate::{Outcome, machine};

/// Turns in which each contender runs once.
const TURNS: usize = 15;

/// Measures all parts.
///
/// # Errors
/// A message was lost, repeated or overtaken, or an answer was wrong.
pub fn run(figures: &mut Figures) -> Outcome {
    actor::install_panic_hook();
    for threads in [Threads::One, Threads::Two] {
        one_way::run(figures, threads)?;
    }
    for threads in [Threads::One, Threads::Two] {
        round_trip::run(figures, threads)?;
    }
    restart::run(figures)?;
    idle::run(figures)
}

/// Where the receiver runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threads {
    /// On the sender's arbiter.
    One,
    /// On an arbiter of its own.
    Two,
}

impl Threads {
    const fn text(self) -> &'static str {
        match self {
            Self::One => "1 thread",
            Self::Two => "2 threads",
        }
    }
}

type Job = Pin<Box<dyn Future<Output = Outcome>>>;

/// One way to carry messages.
struct Contender {
    name: String,
    /// Carries this many messages and checks what became of them.
    carry: Box<dyn Fn(u64) -> Job>,
    /// Messages per second, one value per turn.
    rates: Vec<f64>,
    /// Processor time per message in ns, one value per turn.
    costs: Vec<f64>,
}

impl Contender {
    fn new<F: Future<Output = Outcome> + 'static>(name: impl Into<String>, carry: impl Fn(u64) -> F + 'static) -> Self {
        Self { name: name.into(), carry: Box::new(move |count| Box::pin(carry(count))), rates: Vec::new(), costs: Vec::new() }
    }
}

/// Lets the contenders take turns; the first turn warms up and is not counted.
#[allow(clippy::cast_precision_loss, reason = "counts below 2^52")]
async fn take_turns(contenders: &mut [Contender], count: u64) -> Outcome {
    for turn in 0..=TURNS {
        for contender in &mut *contenders {
            let (cpu, began) = (machine::cpu_ns(), Instant::now());
            (contender.carry)(count).await.map_err(|why| format!("{}: {why}", contender.name))?;
            let (took, spent) = (began.elapsed().as_secs_f64(), machine::cpu_ns() - cpu);
            if turn > 0 {
                contender.rates.push(count as f64 / took);
                contender.costs.push(spent / count as f64);
            }
        }
    }
    Ok(())
}

/// Adds rate and cost of each contender, and the ratio of each of ours to each of `rivals`.
fn add_all(figures: &mut Figures, title: &str, contenders: &[Contender], rivals: &[&str], goal: Option<(&str, f64)>) {
    for c in contenders {
        figures.add(format!("{title}: {}", c.name), "messages/s", &c.rates);
    }
    for c in contenders {
        figures.add(format!("{title}: {}, processor", c.name), "ns/message", &c.costs);
    }
    for ours in contenders.iter().filter(|c| c.name.starts_with("skep")) {
        for rival in contenders.iter().filter(|c| rivals.contains(&c.name.as_str())) {
            let figure = figures.add(format!("{title}: {} / {}", ours.name, rival.name), "ratio", &ratios(&ours.rates, &rival.rates));
            if let Some((name, wanted)) = goal
                && name == rival.name
            {
                figure.goal(Goal::AtLeast(wanted));
            }
        }
    }
}
