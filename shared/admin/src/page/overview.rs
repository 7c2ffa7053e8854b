//! The tree of actors, and what happened lately.

use actor::{State, TreeView, View};
use maud::{Markup, html};

use super::parts::{badge, bytes, count, counted, events, link, mailbox, micros, rate, span};
use super::{Scene, svg};

/// Entries of the diary that the overview shows.
const EVENTS_SHOWN: usize = 40;
/// Supervisors within supervisors that are shown.
const DEPTH_MAX: usize = 16;

pub(super) fn render(scene: &Scene) -> Markup {
    let roots = scene.trees.iter().filter(|tree| !scene.trees.iter().any(|above| above.name == tree.parent));
    let strays: Vec<&View> = scene.actors.iter().filter(|view| !scene.trees.iter().any(|tree| tree.children.contains(&view.name))).collect();
    html! {
        section aria-labelledby="actors" {
            h2 #actors { "Actors" }
            @for root in roots { (group(scene, root, 0)) }
            @if !strays.is_empty() { div.group { (table(scene, "without a supervisor", &strays)) } }
        }
        section aria-labelledby="lately" {
            h2 #lately { "What happened lately" }
            @if scene.events.is_empty() { p.zero { "Nothing yet." } }
            (events(scene.events.iter().rev().take(EVENTS_SHOWN), scene.now_ms, |name| scene.knows(name)))
        }
    }
}

fn group(scene: &Scene, tree: &TreeView, depth: usize) -> Markup {
    let actors: Vec<&View> = tree.children.iter().filter_map(|name| scene.actors.iter().find(|view| view.name == *name)).collect();
    let below = tree.children.iter().filter_map(|name| scene.trees.iter().find(|below| below.name == *name && below.parent == tree.name));
    let level = (depth + 3).min(6);
    html! {
        section.group aria-label={ "supervisor " (tree.name) } {
            header {
                @if level == 3 { h3 { (tree.name) } } @else { h3 aria-level=(level) { (tree.name) } }
                (badge(tree.state))
                p {
                    (strategy(&tree.strategy))
                    @if tree.deaths > 0 { ", " span.warn { (counted(tree.deaths as u64, "death", "deaths")) " of " (tree.deaths_max) " allowed" } }
                    @if tree.zombies > 0 { ", " span.warn { (counted(tree.zombies as u64, "blocked thread", "blocked threads")) " left behind" } }
                }
            }
            @if !actors.is_empty() { (table(scene, &format!("actors under {}", tree.name), &actors)) }
            @if depth < DEPTH_MAX { @for below in below { (group(scene, below, depth + 1)) } }
        }
    }
}

fn strategy(name: &str) -> &str {
    match name {
        "one-for-one" => "restarts each alone (one-for-one)",
        "rest-for-one" => "restarts one with those started after it (rest-for-one)",
        "one-for-all" => "restarts all together (one-for-all)",
        other => other,
    }
}

fn table(scene: &Scene, caption: &str, actors: &[&View]) -> Markup {
    // The roles are said because a small screen shows rows as cards, and `display` would take them away.
    html! {
        table role="table" {
            caption.hide { (caption) }
            thead role="rowgroup" {
                tr role="row" {
                    th scope="col" role="columnheader" class="left" { "actor" }
                    th scope="col" role="columnheader" class="left" { "state" }
                    th scope="col" role="columnheader" class="left" { "mailbox" }
                    th scope="col" role="columnheader" { span.hide { "handled " } "per second" }
                    th scope="col" role="columnheader" class="left" { "in hand" }
                    th scope="col" role="columnheader" { "p50 / p99" }
                    th scope="col" role="columnheader" { "idle" }
                    th scope="col" role="columnheader" { "restarts" }
                    th scope="col" role="columnheader" { "refused" }
                    th scope="col" role="columnheader" { "quarantine" }
                }
            }
            tbody role="rowgroup" { @for view in actors { (row(scene, view)) } }
        }
    }
}

fn row(scene: &Scene, view: &View) -> Markup {
    html! {
        tr role="row" id={ "actor-" (view.name) } {
            th scope="row" role="rowheader" { a href=(link(&view.name)) { (view.name) } }
            td.left.state-cell role="cell" { (badge(view.state)) }
            td.left.full role="cell" data-label="mailbox" title={ (bytes(view.bytes)) " of " (bytes(view.bytes_max)) } { (mailbox(view)) }
            td.full role="cell" data-label="handled per second" title={ (count(view.handled)) " in all" } {
                (figure(&rate(view.per_second), view.per_second == 0.0)) (svg::sparkline(scene.history(&view.name), "small"))
            }
            td.left.flow role="cell" data-label="in hand" { (in_hand(view)) }
            td role="cell" data-label="p50 / p99" { (micros(view.p50_us)) span.zero { " / " } (micros(view.p99_us)) }
            td role="cell" data-label="idle" { @if view.in_hand.is_some() || view.state != State::Up { (figure("–", true)) } @else { (span(view.idle_ms)) } }
            td role="cell" data-label="restarts" { (figure(&count(view.restarts), view.restarts == 0)) }
            td role="cell" data-label="refused" { (figure(&count(view.refused), view.refused == 0)) }
            td role="cell" data-label="quarantine" { (figure(&count(view.in_quarantine as u64), view.in_quarantine == 0)) }
        }
    }
}

/// A figure; one that says nothing is quieter.
fn figure(text: &str, quiet: bool) -> Markup {
    html! { span.zero[quiet] { (text) } }
}

fn in_hand(view: &View) -> Markup {
    match view.in_hand {
        Some(kind) => html! { (kind) " " small.one { "for " (span(view.in_hand_ms)) } },
        None => figure("–", true),
    }
}
