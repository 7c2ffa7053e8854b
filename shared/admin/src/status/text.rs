//! The status as text: a tree with a bar for each mailbox, and the last events; at most 100 columns.

use std::borrow::Cow;
use std::fmt::Write as _;

use actor::{EventKind, State};
use serde::Deserialize;

use super::plain;
use crate::moment;
use crate::page::{count, micros, rate, span, state_words, verb};

/// Columns that are used at most.
pub(super) const COLUMNS: usize = 100;
/// Entries of the diary that are printed.
const EVENTS_SHOWN: usize = 12;
/// Cells of a bar.
const BAR: usize = 8;
/// Columns of the tree.
const TREE: usize = 24;
/// Supervisors within supervisors that are followed.
const DEPTH_MAX: usize = 16;

/// What `/api/status` answers, as far as it is printed.
#[derive(Deserialize)]
pub(super) struct Seen<'a> {
    #[serde(borrow)]
    title: Cow<'a, str>,
    at_ms: u64,
    health: Health<'a>,
    supervisors: Vec<Supervisor<'a>>,
    actors: Vec<Actor<'a>>,
    events: Vec<Event<'a>>,
}

#[derive(Deserialize)]
struct Health<'a> {
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Supervisor<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    parent: Cow<'a, str>,
    #[serde(borrow)]
    strategy: Cow<'a, str>,
    state: State,
    #[serde(borrow)]
    children: Vec<Cow<'a, str>>,
    deaths: usize,
    deaths_max: usize,
    zombies: usize,
}

#[derive(Deserialize)]
struct Actor<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    state: State,
    depth: usize,
    capacity: usize,
    per_second: f64,
    #[serde(borrow)]
    in_hand: Option<Cow<'a, str>>,
    in_hand_ms: u64,
    idle_ms: u64,
    p50_us: f64,
    p99_us: f64,
    restarts: u64,
    refused: u64,
    in_quarantine: usize,
}

#[derive(Deserialize)]
struct Event<'a> {
    at_ms: u64,
    #[serde(borrow)]
    actor: Cow<'a, str>,
    kind: EventKind,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

pub(super) fn render(seen: &Seen<'_>) -> String {
    let mut lines = vec![headline(seen), String::new()];
    lines.push(format!(
        "{:TREE$} {:12} {:>17} {:>6} {:>15} {:>4} {:>4} {:>4}  now",
        "ACTOR", "STATE", "MAILBOX", "MSG/S", "P50 / P99", "RST", "REF", "QUAR"
    ));
    let roots = seen.supervisors.iter().filter(|tree| !seen.supervisors.iter().any(|above| above.name == tree.parent));
    for root in roots {
        tree(seen, root, "", "", 0, &mut lines);
    }
    for stray in seen.actors.iter().filter(|a| !seen.supervisors.iter().any(|tree| tree.children.contains(&a.name))) {
        lines.push(row(stray, ""));
    }
    lines.push(String::new());
    lines.push("LATELY (UTC)".to_owned());
    if seen.events.is_empty() {
        lines.push("nothing yet".to_owned());
    }
    for event in seen.events.iter().rev().take(EVENTS_SHOWN) {
        let said = if event.text.is_empty() || event.text == verb(event.kind) { String::new() } else { format!(": {}", event.text) };
        lines.push(format!("{} {} {}{said}", moment::clock(event.at_ms, seen.at_ms), event.actor, verb(event.kind)));
    }
    lines.iter().fold(String::with_capacity(4096), |text, line| text + &cut(&plain(line), COLUMNS) + "\n")
}

fn headline(seen: &Seen<'_>) -> String {
    let words = match (seen.health.state.as_ref(), &seen.health.reason) {
        ("green", _) => "everything is up".to_owned(),
        (_, Some(why)) => why.to_string(),
        (state, None) => state.to_owned(),
    };
    let waiting = seen.actors.iter().fold(0, |sum: usize, a| sum.saturating_add(a.depth));
    let sum: f64 = seen.actors.iter().map(|a| a.per_second).sum();
    let kept = seen.actors.iter().fold(0, |sum: usize, a| sum.saturating_add(a.in_quarantine));
    format!("{}: {words} · {} msg/s · {} waiting · {} in quarantine", seen.title, rate(sum), count(waiting as u64), count(kept as u64))
}

fn tree(seen: &Seen<'_>, of: &Supervisor<'_>, before: &str, below: &str, depth: usize, lines: &mut Vec<String>) {
    let mut notes = of.strategy.to_string();
    if of.deaths > 0 {
        let _ = write!(notes, ", {} of {} deaths", of.deaths, of.deaths_max);
    }
    if of.zombies > 0 {
        let _ = write!(notes, ", {} blocked threads left behind", of.zombies);
    }
    let (_, sign, word) = state_words(of.state);
    lines.push(format!("{} {} {notes}", fit(&format!("{before}{}", of.name), TREE), fit(&format!("{sign} {word}"), 12)));
    for (index, child) in of.children.iter().enumerate() {
        let last = index + 1 == of.children.len();
        let (branch, trunk) = if last { ("└ ", "  ") } else { ("├ ", "│ ") };
        if let Some(actor) = seen.actors.iter().find(|a| a.name == *child) {
            lines.push(row(actor, &format!("{below}{branch}")));
        } else if let Some(inner) = seen.supervisors.iter().find(|tree| tree.name == *child && tree.parent == of.name)
            && depth < DEPTH_MAX
        {
            tree(seen, inner, &format!("{below}{branch}"), &format!("{below}{trunk}"), depth + 1, lines);
        }
    }
}

fn row(actor: &Actor<'_>, before: &str) -> String {
    let (_, sign, word) = state_words(actor.state);
    let now = match &actor.in_hand {
        Some(kind) => format!("{kind} {}", span(actor.in_hand_ms)),
        None if actor.state == State::Up => format!("idle {}", span(actor.idle_ms)),
        None => String::new(),
    };
    format!(
        "{} {} {} {:>8} {:>6} {:>15} {:>4} {:>4} {:>4}  {now}",
        fit(&format!("{before}{}", actor.name), TREE),
        fit(&format!("{sign} {word}"), 12),
        bar(actor.depth, actor.capacity),
        format!("{}/{}", actor.depth, actor.capacity),
        rate(actor.per_second),
        format!("{} / {}", micros(actor.p50_us), micros(actor.p99_us)),
        actor.restarts,
        actor.refused,
        actor.in_quarantine,
    )
}

/// How full a mailbox is, in eighths of a cell.
fn bar(depth: usize, capacity: usize) -> String {
    const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = depth.saturating_mul(BAR * 8).div_ceil(capacity.max(1)).min(BAR * 8);
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(PARTS[eighths % 8]);
    }
    let missing = BAR - bar.chars().count();
    bar + &"·".repeat(missing)
}

/// Exactly that wide.
fn fit(text: &str, columns: usize) -> String {
    format!("{:columns$}", cut(text, columns))
}

fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns - 1).chain(['…']).collect()
}
