//! The page: the tree of actors, one actor, and what an action answered. No asset from elsewhere, and no need for a script.
//!
//! The part that changes is one element, `#live`. The same function renders it for the whole page, for the stream
//! ([`crate::stream`]) that a browser watches, and for a browser without scripts, which reloads.

mod actor;
mod overview;
mod parts;
mod svg;

use std::sync::LazyLock;

use ::actor::{Event, Health, Registry, Sample, State, TreeView, View};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ring::digest::{SHA256, digest};

use crate::moment;

pub(crate) use parts::{count, encoded, micros, rate, span, state_words, verb};
use parts::{counted, fill};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Nothing from elsewhere, and of scripts and styles only those two, by their hashes.
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

/// Everything that a rendering shows, as it stood at one moment.
pub(crate) struct Scene {
    now_ms: u64,
    health: Health,
    actors: Vec<View>,
    trees: Vec<TreeView>,
    histories: Vec<(&'static str, Vec<Sample>)>,
    events: Vec<Event>,
}

impl Scene {
    pub(crate) fn of(registry: &Registry) -> Self {
        Self {
            now_ms: moment::now_ms(),
            health: registry.health(),
            actors: registry.views(),
            trees: registry.trees(),
            histories: registry.histories(),
            events: registry.events(),
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.actors.iter().any(|view| view.name == name)
    }

    fn history(&self, name: &str) -> &[Sample] {
        self.histories.iter().find(|(known, _)| *known == name).map_or(&[], |(_, samples)| samples)
    }
}

/// What the pages of one server have in common.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// The daemon's name and node.
    pub(crate) title: &'a str,
    /// The secret of our own forms.
    pub(crate) form_token: &'a str,
    /// The log's filter, where it can be changed.
    pub(crate) log_filter: Option<&'a str>,
    /// Whether actors may be made to fail on purpose.
    pub(crate) drills: bool,
    /// What an action just did.
    pub(crate) notice: Option<&'a str>,
}

/// The overview as a whole page.
pub(crate) fn overview(frame: Frame<'_>, scene: &Scene) -> String {
    document(frame, None, &live_overview(frame.title, scene)).into_string()
}

/// The part of the overview that changes.
pub(crate) fn live_overview(title: &str, scene: &Scene) -> Markup {
    let (class, words) = verdict(scene);
    html! {
        div #live data-stream="/api/stream" data-title={ @if class != "good" { "⚠ " } (title) } {
            (banner(scene, class, &words))
            (overview::render(scene))
        }
    }
}

/// One actor's own page.
pub(crate) fn one_actor(frame: Frame<'_>, scene: &Scene, name: &str, extra: &actor::Extra) -> Option<String> {
    let live = live_actor(frame, scene, name, extra)?;
    Some(document(frame, Some(name), &live).into_string())
}

/// The part of it that changes.
pub(crate) fn live_actor(frame: Frame<'_>, scene: &Scene, name: &str, extra: &actor::Extra) -> Option<Markup> {
    let view = scene.actors.iter().find(|view| view.name == name)?;
    Some(html! {
        div #live data-stream={ "/api/stream?actor=" (encoded(name)) } data-title={ (name) " – " (frame.title) } {
            (actor::render(frame, scene, view, extra))
        }
    })
}

pub(crate) use actor::Extra;

/// A page that only says one sentence: what went wrong with an action.
pub(crate) fn sentence(frame: Frame<'_>, text: &str) -> String {
    let said = html! { p.notice role="alert" { (text) } p { a href="/" { "Back to all actors" } } };
    document(frame, Some("not done"), &said).into_string()
}

fn document(frame: Frame<'_>, below: Option<&str>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                noscript { meta http-equiv="refresh" content="5"; }
                title { @if let Some(below) = below { (below) " – " } (frame.title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    (svg::skep())
                    div {
                        h1 { @if below.is_some() { a href="/" { (frame.title) } } @else { (frame.title) } }
                        p { @if let Some(below) = below { (below) } @else { "its actors and their mailboxes" } }
                    }
                }
                main #main {
                    p #stale .stale role="status" hidden { "The daemon does not answer; these are its last figures." }
                    @if let Some(notice) = frame.notice { p.notice role="status" { (notice) } }
                    (content)
                }
                (footer(frame))
                @if content.0.contains("id=\"live\"") { script { (PreEscaped(SCRIPT)) } }
            }
        }
    }
}

fn footer(frame: Frame<'_>) -> Markup {
    html! {
        footer {
            nav aria-label="the same for programs" {
                a href="/metrics" { "Metrics" }
                a href="/api/status" { "JSON" }
                a href="/api/openapi.json" { "OpenAPI" }
                a href="/livez?verbose" { "Alive?" }
                a href="/readyz?verbose" { "Ready?" }
            }
            @if let Some(filter) = frame.log_filter {
                form method="post" action="/act" {
                    input type="hidden" name="token" value=(frame.form_token);
                    input type="hidden" name="act" value="log-level";
                    label for="filter" { "Log level" }
                    input #filter name="value" value=(filter) maxlength="256" list="levels" autocomplete="off" spellcheck="false";
                    datalist #levels { @for level in ["error", "warn", "info", "debug", "trace"] { option value=(level) {} } }
                    button { "Set" }
                }
            }
        }
    }
}

fn banner(scene: &Scene, class: &str, words: &str) -> Markup {
    let rate: f64 = scene.actors.iter().map(|view| view.per_second).sum();
    let waiting: usize = scene.actors.iter().map(|view| view.depth).sum();
    let kept: usize = scene.actors.iter().map(|view| view.in_quarantine).sum();
    html! {
        div.health.(class) {
            strong { (words) }
            span { (parts::rate(rate)) " messages per second" }
            span { @if waiting == 0 { "nothing waits" } @else { (counted(waiting as u64, "message waits", "messages wait")) } }
            @if kept > 0 { span.warn { (counted(kept as u64, "message", "messages")) " in quarantine" } }
            span { "as of " (moment::clock(scene.now_ms, scene.now_ms)) " UTC" }
        }
    }
}

/// How the process is, in words: its class and a sentence.
fn verdict(scene: &Scene) -> (&'static str, String) {
    let troubled =
        scene.actors.iter().map(|view| (view.name.as_str(), view.state)).chain(scene.trees.iter().map(|tree| (tree.name.as_str(), tree.state)));
    let troubled: Vec<String> = troubled.filter_map(|(name, state)| trouble(state).map(|what| format!("{name} {what}"))).collect();
    let named = match troubled.as_slice() {
        [] => None,
        [one] => Some(format!("{one}.")),
        [one, rest @ ..] => Some(format!("{one}, and {} more.", counted(rest.len() as u64, "is not up", "are not up"))),
    };
    match (&scene.health, named) {
        (Health::Red(why), _) => ("bad", format!("{why}.")),
        (Health::Green, None) => ("good", all_up(&scene.actors)),
        (Health::Yellow(why), None) => ("warn", format!("{why}.")),
        (Health::Green | Health::Yellow(_), Some(named)) => ("warn", named),
    }
}

fn all_up(actors: &[View]) -> String {
    let off = actors.iter().filter(|view| view.state == State::Disabled).count();
    let up = actors.len() - off;
    let mut words = match up {
        0 => "No actor is there yet".to_owned(),
        1 => "The one actor is up".to_owned(),
        2 => "Both actors are up".to_owned(),
        n => format!("All {n} actors are up"),
    };
    if off > 0 {
        words.push_str(&format!("; {off} not enabled"));
    }
    words + "."
}

const fn trouble(state: State) -> Option<&'static str> {
    match state {
        State::Down => Some("is not started yet"),
        State::BackingOff => Some("is backing off"),
        State::Hung => Some("hangs"),
        State::GaveUp => Some("was given up"),
        State::Up | State::Stopped | State::Disabled => None,
    }
}
