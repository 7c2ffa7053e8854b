//! The admin page of a real daemon in a real browser.

mod drills;

use std::time::Duration;

use harness::browser::{self, Colours, Viewport};
use harness::{Browser, EdgeOptions, EdgeUnderTest, artefacts, eventually, http};

/// An edge that needs no cloud, with an open page.
fn alone(more: &[(&str, &str)]) -> EdgeUnderTest {
    let environment = [("SKEP_MODULES__ENABLED", "eventbus, twin")].iter().chain(more);
    let environment = environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut edge = EdgeUnderTest::prepare(EdgeOptions { environment, ..EdgeOptions::default() });
    edge.run();
    edge.answers();
    is_ready(&edge);
    edge
}

fn is_ready(edge: &EdgeUnderTest) {
    eventually!(
        20,
        "the daemon is ready",
        match http::get(edge.admin_port, "/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    );
}

fn address(edge: &EdgeUnderTest, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", edge.admin_port)
}

/// The overview and one actor's own page.
const PAGES: [(&str, &str); 2] = [("overview", "/"), ("twin", "/actors/twin")];

#[test]
fn the_page_opens_without_an_error_and_asks_nobody_but_its_daemon() {
    if !browser::required() {
        return;
    }
    let edge = alone(&[]);
    let mut browser = Browser::start();
    for (name, path) in PAGES {
        browser.open(&address(&edge, path));
        browser.eval(CHANGES); // it also keeps itself current
        assert_eq!(browser.console_errors(), [""; 0], "{name}");
        assert_eq!(browser.failed_requests(), [""; 0], "{name}");
        assert_eq!(browser.strays(), [""; 0], "{name}");
        assert!(browser.requests().contains(&address(&edge, path)), "{name}: {:?}", browser.requests());
    }
}

/// Comes true when the page has changed by itself three times.
const CHANGES: &str = "new Promise(done => { let times = 0;
    new MutationObserver(() => { times += 1; if (times === 3) done(true) }).observe(document.getElementById('live'), {subtree: true, childList: true, characterData: true}) })";

#[test]
fn nothing_on_the_page_is_wider_than_a_phone() {
    if !browser::required() {
        return;
    }
    let edge = alone(&[]);
    let mut browser = Browser::start();
    browser.viewport(Viewport::Phone);
    for (name, path) in PAGES {
        browser.open(&address(&edge, path));
        browser.screenshot(&artefacts().join(format!("phone-{name}.png")));
        let width = browser.eval("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth].join()");
        let phone = Viewport::Phone.width();
        assert_eq!(width, format!("{phone},{phone},{phone}"), "{name}: document, body, window; wider is {}", browser.eval(WIDER));
    }
}

#[test]
fn no_cell_of_a_table_runs_into_the_next_one_and_no_name_is_broken_into_letters() {
    if !browser::required() {
        return;
    }
    let edge = alone(&[]);
    // Figures get longer when there was something to do.
    for number in 0..50 {
        edge.report("device", "temperature", &number.to_string());
    }
    let mut browser = Browser::start();
    for viewport in [Viewport::Phone, Viewport::Desktop] {
        browser.viewport(viewport);
        browser.open(&address(&edge, "/"));
        browser.wait_for("document.querySelectorAll('tbody td').length > 40", Duration::from_secs(5));
        assert_eq!(browser.eval(CROWDED), serde_json::json!([]), "{viewport:?}");
        let broken = "[...document.querySelectorAll('tbody th a')].filter(one => one.getClientRects().length > 1).map(one => one.textContent)";
        assert_eq!(browser.eval(broken), serde_json::json!([]), "{viewport:?}: broken names");
    }
}

/// Neighbours in a row whose contents are nearer to each other than 4 pixels.
const CROWDED: &str = "[...document.querySelectorAll('tr')].flatMap(row => {
    const cells = [...row.cells].filter(cell => cell.getClientRects().length && cell.innerText.trim()).map(cell => {
        const range = document.createRange(); range.selectNodeContents(cell);
        return [cell, range.getBoundingClientRect()];
    });
    return cells.slice(1).map((next, index) => [cells[index], next])
        .filter(([[, left], [, right]]) => left.top < right.bottom && right.top < left.bottom && left.left < right.right && left.right + 4 > right.left)
        .map(([[left], [right]]) => row.id + ': ' + left.innerText + ' | ' + right.innerText);
})";

/// The elements that reach over the right edge, for whoever has to mend it.
const WIDER: &str = "[...document.body.querySelectorAll('*')].filter(one => one.getBoundingClientRect().right > 390.5)
    .slice(0, 5).map(one => one.outerHTML.slice(0, 120)).join(' | ')";

#[test]
fn the_page_is_dark_for_those_who_want_it_dark_and_can_be_read_either_way() {
    if !browser::required() {
        return;
    }
    let edge = alone(&[]);
    let mut browser = Browser::start();
    let mut backgrounds = Vec::new();
    for (colours, name) in [(Colours::Light, "light"), (Colours::Dark, "dark")] {
        browser.colours(colours);
        browser.open(&address(&edge, "/"));
        browser.screenshot(&artefacts().join(format!("{name}.png")));
        let brightness = browser.eval(&format!("({BRIGHTNESS})(getComputedStyle(document.body).backgroundColor)"));
        backgrounds.push(brightness.as_f64().unwrap());
        for (name, path) in PAGES {
            browser.open(&address(&edge, path));
            assert_eq!(browser.eval(&format!("({FAINT})({BRIGHTNESS})")), serde_json::json!([]), "{name} with {colours:?} colours");
        }
    }
    let [light, dark] = backgrounds[..] else { panic!("{backgrounds:?}") };
    assert!(light > 0.7 && dark < 0.1, "relative luminance of the light background is {light}, of the dark one {dark}");
}

/// Relative luminance of a colour (WCAG 2.2), as a canvas paints it.
const BRIGHTNESS: &str = "colour => {
    const paper = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    paper.fillStyle = colour; paper.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...paper.getImageData(0, 0, 1, 1).data].slice(0, 3).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b }";

/// Texts whose contrast to what is behind them is below 4.5 (WCAG 2.2, 1.4.3).
const FAINT: &str = "brightness => {
    const behind = one => { for (; one; one = one.parentElement) { const c = getComputedStyle(one).backgroundColor; if (!/, 0\\)$|^transparent$/.test(c)) return c } return 'white' };
    const own = one => [...one.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const seen = [...document.body.querySelectorAll('*')].filter(one => own(one) && one.checkVisibility() && !one.closest('script, style, svg, noscript'));
    if (seen.length < 10) return ['only ' + seen.length + ' texts'];
    return seen.map(one => {
        const [a, b] = [brightness(getComputedStyle(one).color), brightness(behind(one))].sort((a, b) => b - a);
        return [(a + 0.05) / (b + 0.05), one];
    }).filter(([contrast]) => contrast < 4.5).slice(0, 5).map(([contrast, one]) => contrast.toFixed(2) + ': ' + one.outerHTML.slice(0, 120)) }";

#[test]
fn the_page_can_be_read_and_used_without_scripts() {
    if !browser::required() {
        return;
    }
    let edge = alone(&[]);
    let mut browser = Browser::start();
    browser.scripts(false);
    browser.open(&address(&edge, "/"));
    let text = browser.text();
    for actor in ["event-bus", "membership", "twin", "communication", "device"] {
        assert!(text.contains(actor), "{actor} is not in:\n{text}");
    }
    browser.screenshot(&artefacts().join("without-scripts.png"));
    browser.press("a[href='/actors/twin']");
    browser.wait_for("location.pathname === '/actors/twin'", Duration::from_secs(10));
    browser.press("form:has(input[value=restart]) button");
    browser.wait_for("document.body.innerText.includes('Done. twin: restart')", Duration::from_secs(10));
}

#[test]
fn the_page_has_a_title_a_language_landmarks_and_a_name_for_everything_that_can_be_used() {
    if !browser::required() {
        return;
    }
    let edge = alone(&[]);
    let mut browser = Browser::start();
    for (name, path) in PAGES {
        browser.open(&address(&edge, path));
        let title = browser.eval("document.title");
        assert!(title.as_str().is_some_and(|title| title.contains(&edge.node)), "{name}: title {title}");
        assert_eq!(browser.eval("document.documentElement.lang"), "en", "{name}");
        let read = browser.accessible();
        for landmark in ["banner", "main", "contentinfo", "navigation"] {
            assert_eq!(read.iter().filter(|one| one.role == landmark).count(), 1, "{name}: landmark {landmark}");
        }
        let used = ["link", "button", "textbox", "meter", "table", "navigation", "region", "combobox"];
        let nameless: Vec<_> = read.iter().filter(|one| used.contains(&one.role.as_str()) && one.name.is_empty()).collect();
        assert!(nameless.is_empty(), "{name}: without a name: {nameless:?}");
        assert!(read.iter().any(|one| one.role == "meter"), "{name}: no mailbox is read out");
        let levels = browser.eval("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => +one.tagName[1])");
        let levels: Vec<u64> = levels.as_array().unwrap().iter().map(|level| level.as_u64().unwrap()).collect();
        assert!(levels.first() == Some(&1) && levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{name}: headings {levels:?}");
    }
    browser.open(&address(&edge, "/"));
    let read = browser.accessible();
    assert!(read.iter().any(|one| one.role == "link" && one.name == "twin"), "{read:?}");
    assert!(read.iter().any(|one| one.role == "meter" && one.name.starts_with("mailbox of twin")), "{read:?}");
}
