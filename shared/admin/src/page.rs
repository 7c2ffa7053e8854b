//! The page: one table of actors, what happened lately, no script and nothing from elsewhere.

use std::fmt::Write;

use actor::{Event, Health, State, View};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--ok:#2a9d5c;--warn:#d08700;--bad:#d03535}\
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:72rem;padding:1rem}\
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}\
.wrap{overflow-x:auto}table{border-collapse:collapse;width:100%}\
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}\
th:first-child,td:first-child,.words{text-align:left}.words{white-space:normal;max-width:24rem}\
meter{width:6rem;vertical-align:middle}.up{color:var(--ok)}.down,.backing-off,.hung,.stopped{color:var(--warn)}.gave-up{color:var(--bad)}\
li{margin:.15rem 0}time{color:#888}";

pub(crate) fn render(title: &str, views: &[View], events: &[Event], health: &Health, now_ms: u64) -> String {
    let mut html = String::with_capacity(16 * 1024);
    let health = match health {
        Health::Green => "<span class=up>all actors are up</span>".to_owned(),
        Health::Yellow(why) => format!("<span class=hung>{}</span>", escape(why)),
        Health::Red(why) => format!("<span class=gave-up>{}</span>", escape(why)),
    };
    let title = escape(title);
    let _ = write!(
        html,
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content=2><title>{title}</title><style>{STYLE}</style></head><body>\
         <h1>{title}: {health}</h1><div class=wrap><table><thead><tr><th>actor<th>state<th>mailbox<th>handled<th>in hand\
         <th>idle<th>p50<th>p99<th>restarts<th>refused<th>quarantine<th class=words>last words</tr></thead><tbody>"
    );
    for v in views {
        let (state, in_hand) = (state(v.state), v.in_hand.map_or_else(|| "–".to_owned(), |kind| format!("{kind} {}", span(v.in_hand_ms))));
        let _ = write!(
            html,
            "<tr><td>{}<td class={state}>{state}<td><meter min=0 max={} value={}></meter> {}/{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td class=words>{}</tr>",
            escape(&v.name),
            v.capacity,
            v.depth,
            v.depth,
            v.capacity,
            v.handled,
            escape(&in_hand),
            span(v.idle_ms),
            micros(v.p50_us),
            micros(v.p99_us),
            v.restarts,
            v.refused,
            v.quarantined,
            escape(&v.last_words)
        );
    }
    html.push_str("</tbody></table></div><h2>Lately</h2><ul>");
    for event in events.iter().rev().take(50) {
        let ago = span(now_ms.saturating_sub(event.at_ms));
        let _ = write!(html, "<li><time>{ago} ago</time> <b>{}</b> {}</li>", escape(&event.actor), escape(&event.text));
    }
    html.push_str(
        "</ul><p><a href=/metrics>metrics</a> · <a href=/api/actors>actors as JSON</a> · <a href=/api/events>events as JSON</a></p></body></html>",
    );
    html
}

const fn state(state: State) -> &'static str {
    match state {
        State::Down => "down",
        State::Up => "up",
        State::BackingOff => "backing-off",
        State::Hung => "hung",
        State::GaveUp => "gave-up",
        State::Stopped => "stopped",
        State::Disabled => "disabled",
    }
}

fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

fn micros(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} µs") } else { format!("{:.1} ms", us / 1000.0) }
}

pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_actor_said_cannot_become_markup() {
        assert_eq!(escape("<script>\"&'"), "&lt;script&gt;&quot;&amp;&#39;");
    }
}
