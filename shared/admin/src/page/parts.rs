//! Small things that both pages are made of.

use std::borrow::Cow;

use actor::{Event, EventKind, State, View};
use maud::{Markup, html};

/// Characters of an event, or of what an actor said when it died, that a page shows; the API has all of them.
pub(super) const TEXT_CHARS_MAX: usize = 400;

/// A state in a word, beside a sign of its own, so that neither colour nor shape alone carries it.
pub(super) fn badge(state: State) -> Markup {
    let (class, sign, word) = state_words(state);
    html! { span.state.(class) { span.sign aria-hidden="true" { (sign) } " " (word) } }
}

pub(crate) const fn state_words(state: State) -> (&'static str, &'static str, &'static str) {
    match state {
        State::Down => ("idle", "◌", "down"),
        State::Up => ("good", "●", "up"),
        State::BackingOff => ("warn", "◐", "backing off"),
        State::Hung => ("warn", "◆", "hung"),
        State::GaveUp => ("bad", "✕", "gave up"),
        State::Stopped => ("idle", "○", "stopped"),
        State::Disabled => ("idle", "–", "not enabled"),
    }
}

/// The mailbox as a bar against its capacity, in messages or, where those weigh more, in bytes.
pub(super) fn mailbox(view: &View) -> Markup {
    let fill = fill(view);
    html! {
        meter min="0" max="100" low="50" high="85" optimum="0" value=(fill) aria-label={ "mailbox of " (view.name) ": " (fill) " percent full" } {}
        span.count { (count(view.depth as u64)) small { " / " (count(view.capacity as u64)) } }
    }
}

pub(crate) fn fill(view: &View) -> u64 {
    let percent = |part: usize, whole: usize| (part as u64).saturating_mul(100).checked_div(whole as u64).unwrap_or(0).min(100);
    percent(view.depth, view.capacity).max(percent(view.bytes, view.bytes_max))
}

/// An actor's own address.
pub(super) fn link(name: &str) -> String {
    format!("/actors/{}", encoded(name))
}

/// Text as one segment or value of an address.
pub(crate) fn encoded(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            safe.push(char::from(byte));
        } else {
            safe.push_str(&format!("%{byte:02X}"));
        }
    }
    safe
}

/// What happened, newest first, as sentences.
pub(super) fn events<'a>(events: impl Iterator<Item = &'a Event>, now_ms: u64, known: impl Fn(&str) -> bool) -> Markup {
    html! {
        ol.events aria-live="polite" aria-relevant="additions" {
            @for event in events {
                li.(kind_class(event.kind)) id={ "e" (event.seq) } {
                    (time(event.at_ms, now_ms))
                    span.what {
                        @if known(&event.actor) { a href=(link(&event.actor)) { (event.actor) } } @else { b { (event.actor) } }
                        " " (verb(event.kind))
                        @if !event.text.is_empty() && event.text != verb(event.kind) { ": " span.said { (cut(&event.text, TEXT_CHARS_MAX)) } }
                    }
                }
            }
        }
    }
}

pub(crate) const fn verb(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Started => "started",
        EventKind::Restarted => "is up again",
        EventKind::Died => "died",
        EventKind::Hung => "fell silent",
        EventKind::GaveUp => "was given up",
        EventKind::Stopped => "stopped",
        EventKind::Quarantined => "put a message into quarantine",
        EventKind::Connected => "connected",
        EventKind::Disconnected => "lost its connection",
        EventKind::Configured => "took a changed configuration",
        EventKind::Operator => "was told by an administrator",
        EventKind::Damaged => "was damaged",
    }
}

const fn kind_class(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Started | EventKind::Restarted | EventKind::Connected => "good",
        EventKind::Hung | EventKind::Quarantined | EventKind::Disconnected => "warn",
        EventKind::Died | EventKind::GaveUp | EventKind::Damaged => "bad",
        EventKind::Stopped | EventKind::Configured | EventKind::Operator => "idle",
    }
}

/// A moment as the clock showed it, and how long ago that is. The latter changes each second and is for the eye only.
pub(super) fn time(at_ms: u64, now_ms: u64) -> Markup {
    let full = crate::moment::rfc3339(at_ms);
    html! {
        time datetime=(full) title={ (full) } {
            (crate::moment::clock(at_ms, now_ms))
            small aria-hidden="true" { (span(now_ms.saturating_sub(at_ms))) " ago" }
        }
    }
}

pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

pub(crate) fn micros(us: f64) -> String {
    match us {
        0.0 => "–".to_owned(),
        ..10.0 => format!("{us:.1} µs"),
        ..1_000.0 => format!("{us:.0} µs"),
        ..100_000.0 => format!("{:.1} ms", us / 1e3),
        ..1_000_000.0 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

pub(crate) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 { format!("{per_second:.1}") } else { count(per_second.round() as u64) }
}

/// A number with thin spaces between thousands.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + 8);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn bytes(number: usize) -> String {
    match number {
        0..1024 => format!("{number} B"),
        1024..1_048_576 => format!("{} KiB", number / 1024),
        _ => format!("{} MiB", number / 1_048_576),
    }
}

/// The beginning of a text.
pub(super) fn cut(text: &str, chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        Some((at, _)) => Cow::Owned(format!("{}…", &text[..at])),
        None => Cow::Borrowed(text),
    }
}

/// `3 things`, `1 thing`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_a_unit() {
        assert_eq!([span(999), span(119_999), span(7_199_999), span(90_000_000)], ["999 ms", "119 s", "119 min", "25 h"]);
        assert_eq!([micros(0.0), micros(1.024), micros(524.3), micros(16_777.0), micros(2.5e6)], ["–", "1.0 µs", "524 µs", "16.8 ms", "2.5 s"]);
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
        assert_eq!([rate(0.0), rate(0.25), rate(9.96), rate(1234.4)], ["0", "0.2", "10", "1\u{202f}234"]);
    }

    #[test]
    fn a_name_becomes_one_segment_of_an_address() {
        assert_eq!(encoded("../a b\"<é"), "%2E%2E%2Fa%20b%22%3C%C3%A9");
    }
}
