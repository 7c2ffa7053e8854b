//! One actor's own page.

use actor::{Bucket, View};
use maud::{Markup, html};
use serde_json::Value;

use super::parts::{TEXT_CHARS_MAX, badge, bytes, count, counted, cut, events, micros, rate, span, time};
use super::{Frame, Scene, fill, svg};
use crate::view::Kept;

/// Entries of the diary that an actor's page shows.
const EVENTS_SHOWN: usize = 25;
/// Quarantined messages that an actor's page shows, the newest.
const KEPT_SHOWN: usize = 20;
/// Nested values of a snapshot that are shown as such.
const NESTED_MAX: usize = 6;
/// Values of one level of a snapshot that are shown.
const VALUES_MAX: usize = 100;

/// What an actor's own page shows beside the overview's figures.
pub(crate) struct Extra {
    pub(crate) histogram: Vec<Bucket>,
    pub(crate) snapshot: Option<Value>,
    pub(crate) quarantine: Vec<Kept>,
}

pub(super) fn render(frame: Frame<'_>, scene: &Scene, view: &View, extra: &Extra) -> Markup {
    let history = scene.history(&view.name);
    let own = scene.events.iter().rev().filter(|event| event.actor == view.name).take(EVENTS_SHOWN);
    html! {
        section aria-labelledby="figures" {
            h2 #figures { (badge(view.state)) }
            dl.facts {
                (fact("mailbox", &html! { (count(view.depth as u64)) small { " of " (count(view.capacity as u64)) }
                    meter min="0" max="100" low="50" high="85" optimum="0" value=(fill(view)) aria-label={ "mailbox: " (fill(view)) " percent full" } {} }))
                (fact("bytes in it", &html! { (bytes(view.bytes)) small { " of " (bytes(view.bytes_max)) } }))
                (fact("handled", &html! { (count(view.handled)) small { ", " (rate(view.per_second)) " per second" } }))
                (fact("in hand", &match view.in_hand {
                    Some(kind) => html! { (kind) small { " for " (span(view.in_hand_ms)) } },
                    None => html! { span.zero { "nothing" } small { " for " (span(view.idle_ms)) } },
                }))
                (fact("time per message", &html! { (micros(view.p50_us)) small { " median, " (micros(view.p99_us)) " p99" } }))
                (fact("restarts", &html! { (count(view.restarts)) small { ": " (counted(view.panics, "panic", "panics")) ", " (counted(view.hangs, "hang", "hangs")) } }))
                (fact("refused", &html! { (count(view.refused)) small { " for lack of room" } }))
                (fact("failed", &html! { (count(view.failed)) small { " answered with an error" } }))
                (fact("quarantine", &html! { (count(view.in_quarantine as u64)) small { " now, " (count(view.quarantined)) " since the start" } }))
                (fact("under", &html! { (view.parent) small { ", incarnation " (view.epoch) } }))
            }
            div.two {
                div.panel { h3 { "handled per second, ten minutes" } (svg::sparkline(history, "wide")) }
                div.panel { h3 { "waiting, ten minutes" } (svg::depths(history, view.capacity)) }
            }
        }
        @if let Some(id) = &view.in_hand_id {
            p { small { "In hand is message " code { (id) } "." } }
        }
        section aria-labelledby="times" {
            h2 #times { "How long messages took" }
            @if extra.histogram.is_empty() { p.zero { "None was handled yet." } } @else { (times(&extra.histogram)) }
        }
        @if !view.last_words.is_empty() {
            section aria-labelledby="words" {
                h2 #words { "Last words" }
                p { (time(view.last_words_at_ms, scene.now_ms)) }
                pre { (view.last_words) }
            }
        }
        @if let Some(snapshot) = &extra.snapshot {
            section aria-labelledby="knows" {
                h2 #knows { "What it knows" }
                div.panel { (value(snapshot, 0)) }
            }
        }
        (quarantine(frame, scene, &extra.quarantine))
        section aria-labelledby="acts" { h2 #acts { "Actions" } (actions(frame, &view.name)) }
        section aria-labelledby="lately" {
            h2 #lately { "What happened to it lately" }
            (events(own, scene.now_ms, |_| false))
        }
    }
}

fn fact(name: &str, is: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (is) } } }
}

fn times(buckets: &[Bucket]) -> Markup {
    html! {
        div.panel {
            (svg::histogram(buckets))
            details {
                summary { "as a table" }
                table role="table" {
                    caption.hide { "time per message" }
                    thead role="rowgroup" { tr role="row" { th.left scope="col" role="columnheader" { "at most" } th scope="col" role="columnheader" { "batches" } } }
                    tbody role="rowgroup" {
                        @for bucket in buckets {
                            tr role="row" { th scope="row" role="rowheader" { (micros(bucket.up_to_us)) } td role="cell" { (count(bucket.count)) } }
                        }
                    }
                }
            }
        }
    }
}

/// What a module says that it knows, whatever its form.
fn value(of: &Value, depth: usize) -> Markup {
    match of {
        Value::Object(map) if depth < NESTED_MAX && !map.is_empty() => html! {
            dl.known {
                @for (key, inner) in map.iter().take(VALUES_MAX) { dt { (key.replace('_', " ")) } dd { (value(inner, depth + 1)) } }
                @if map.len() > VALUES_MAX { dt { "…" } dd { (counted((map.len() - VALUES_MAX) as u64, "more", "more")) } }
            }
        },
        Value::Array(list) if depth < NESTED_MAX && list.iter().any(|inner| inner.is_object() || inner.is_array()) => html! {
            ul { @for inner in list.iter().take(VALUES_MAX) { li { (value(inner, depth + 1)) } } }
            @if list.len() > VALUES_MAX { p { "… " (list.len() - VALUES_MAX) " more" } }
        },
        Value::Array(list) if depth < NESTED_MAX && !list.is_empty() => html! {
            @for (index, inner) in list.iter().take(VALUES_MAX).enumerate() { @if index > 0 { ", " } (value(inner, depth + 1)) }
            @if list.len() > VALUES_MAX { " …" }
        },
        Value::Object(map) if map.is_empty() => html! { span.zero { "none" } },
        Value::Array(list) if list.is_empty() => html! { span.zero { "none" } },
        Value::Null => html! { span.zero { "–" } },
        Value::Bool(yes) => html! { (if *yes { "yes" } else { "no" }) },
        Value::String(text) => html! { (text) },
        Value::Number(_) | Value::Object(_) | Value::Array(_) => html! { (of) },
    }
}

fn quarantine(frame: Frame<'_>, scene: &Scene, kept: &[Kept]) -> Markup {
    html! {
        section aria-labelledby="quarantine" {
            h2 #quarantine { "Quarantine" }
            @if kept.is_empty() { p.zero { "Empty: no message killed it three times." } }
            @for message in kept.iter().rev().take(KEPT_SHOWN) {
                article.panel.kept id={ "q-" (message.id) } aria-label={ "message " (message.id) } {
                    strong { (message.kind) } " from " (message.source) " "
                    (time(message.at_ms, scene.now_ms))
                    p {
                        small {
                            code { (message.id) }
                            @if let Some(border) = &message.border { ", came in by " (border) " as " (message.address.as_deref().unwrap_or_default()) ", " (bytes(message.payload_bytes)) }
                        }
                    }
                    @if message.text != message.kind { pre { (message.text) } }
                    @if !message.last_words.is_empty() { p { "It died saying: " span.said { (cut(&message.last_words, TEXT_CHARS_MAX)) } } }
                    div.actions {
                        @if message.can_retry {
                            (form(frame, "retry", &message.id, &html! { button { "Let it in again" } }))
                        } @else { small { "Its form from outside was not kept, so it cannot enter again." } }
                        details {
                            summary.button { "Drop it …" }
                            (form(frame, "drop", &message.id, &html! { button.grave { "Drop it for good" } }))
                        }
                    }
                }
            }
            @if kept.len() > KEPT_SHOWN {
                p { (counted((kept.len() - KEPT_SHOWN) as u64, "older message is", "older messages are")) " in " a href="/api/quarantine" { "the list for programs" } "." }
            }
        }
    }
}

fn actions(frame: Frame<'_>, name: &str) -> Markup {
    html! {
        div.actions {
            (form(frame, "restart", name, &html! { button { "Restart" } }))
            @if frame.drills {
                (form(frame, "panic", name, &html! { button { "Drill: panic" } }))
                (form(frame, "panic-in-hand", name, &html! {
                    label { span.hide { "how many times" } input.short name="value" value="3" inputmode="numeric"; } button { "Drill: panic with a message in hand" }
                }))
                (form(frame, "hang", name, &html! {
                    label { span.hide { "for how many seconds" } input.short name="value" value="150" inputmode="numeric"; } button { "Drill: hang for seconds" }
                }))
                (form(frame, "slow", name, &html! {
                    label { span.hide { "by how many milliseconds" } input.short name="value" value="100" inputmode="numeric"; } button { "Drill: slow by ms, 0 ends it" }
                }))
            }
        }
    }
}

fn form(frame: Frame<'_>, act: &str, of: &str, inside: &Markup) -> Markup {
    html! {
        form method="post" action="/act" {
            input type="hidden" name="token" value=(frame.form_token);
            input type="hidden" name="act" value=(act);
            input type="hidden" name="of" value=(of);
            (inside)
        }
    }
}
