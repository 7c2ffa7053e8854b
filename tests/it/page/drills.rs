//! What an administrator sees while something goes wrong: each fault is caused for real, and the page that is already open
//! shows it. The screenshots are kept.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::browser::{self, Viewport};
use harness::mqtt::Broker;
use harness::{Browser, CloudUnderTest, EdgeOptions, EdgeUnderTest, artefacts, eventually, http, names};

use super::{address, alone};
use crate::world::World;

const DRILLS: (&str, &str) = ("SKEP_ADMIN__FAULT_INJECTION", "true");
const MAILBOX: u32 = 16;

#[track_caller]
fn drill(edge: &EdgeUnderTest, path: &str) {
    let (status, body) = http::post(edge.admin_port, &format!("/debug/actors/{path}")).unwrap();
    assert!((200..300).contains(&status), "POST /debug/actors/{path}: {status} {body}");
}

/// Opens a page that is not to be loaded again.
fn watch(edge: &EdgeUnderTest, path: &str) -> Browser {
    let mut browser = Browser::start();
    browser.open(&address(edge, path));
    browser.eval("window.stillTheSame = true");
    browser
}

/// A cell of an actor's row on the overview, as an expression.
fn cell(actor: &str, label: &str) -> String {
    format!("document.querySelector('#actor-{actor} td[data-label=\"{label}\"]').innerText.trim()")
}

fn keep(browser: &mut Browser, name: &str) {
    browser.screenshot(&artefacts().join(format!("{name}.png")));
}

#[test]
fn a_restart_is_on_the_open_page_which_is_not_loaded_again() {
    if !browser::required() {
        return;
    }
    let edge = alone(&[DRILLS]);
    let mut browser = watch(&edge, "/");
    assert_eq!(browser.eval(&cell("twin", "restarts")), "0");
    drill(&edge, "twin/panic");
    browser.wait_for(&format!("{} === '1'", cell("twin", "restarts")), Duration::from_secs(10));
    browser.wait_for("document.querySelector('.events').innerText.includes('twin died')", Duration::from_secs(10));
    browser.wait_for("document.querySelector('.events').innerText.includes('twin is up again')", Duration::from_secs(10));
    assert_eq!(browser.eval("window.stillTheSame"), true, "the page was loaded again");
    keep(&mut browser, "restart");
    browser.viewport(Viewport::Phone);
    keep(&mut browser, "restart-phone");
    assert_eq!(browser.eval(&cell("membership", "restarts")), "0", "its sibling goes on");
    assert_eq!(browser.console_errors(), [""; 0]);
}

/// Publishes the same update again and again over one connection, until it goes.
struct Flood(Child);

impl Flood {
    fn start(port: u16, device: &str, messages: u32) -> Self {
        let topic = format!("$hw/events/device/{device}/twin/update");
        let port = port.to_string();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "mosquitto_pub", "-h", "127.0.0.1", "-q", "1", "-l", "-p", &port, "-t", &topic])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start mosquitto_pub: {error}; run deploy/setup.sh --for test"));
        let mut stdin = child.stdin.take().unwrap();
        for number in 0..messages {
            let body = serde_json::json!({"event_id": format!("{number}"), "timestamp": 1, "twin": {"temperature": {"actual": {"value": format!("{number}.0")}}}});
            writeln!(stdin, "{body}").unwrap();
        }
        Self(child)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_mailbox_that_fills_up_is_a_full_bar_on_the_open_page_and_empties_again() {
    if !browser::required() {
        return;
    }
    let room = MAILBOX.to_string();
    // An external broker: of the embedded one's clients the mailbox never takes more than it holds.
    let outside = Broker::start();
    let server = format!("tcp://127.0.0.1:{}", outside.port);
    let edge = alone(&[DRILLS, ("SKEP_MAILBOX__MESSAGES", &room), ("SKEP_MQTT__MODE", "1"), ("SKEP_MQTT__SERVER", &server)]);
    let mut browser = watch(&edge, "/");
    let bar = "document.querySelector('#actor-twin meter').value";
    assert_eq!(browser.eval(bar), 0);
    drill(&edge, "twin/slow?by=2000");
    let flood = Flood::start(outside.port, &names::unique("device"), 8 * MAILBOX);
    browser.wait_for(&format!("{bar} === 100"), Duration::from_secs(20));
    keep(&mut browser, "full-mailbox");
    let shown = browser.eval(&cell("twin", "mailbox"));
    assert!(shown.as_str().is_some_and(|shown| shown.ends_with(&format!("/ {MAILBOX}"))), "{shown}");
    drill(&edge, "twin/slow?by=0");
    browser.wait_for(&format!("{bar} === 0"), Duration::from_secs(20));
    assert_eq!(browser.eval("window.stillTheSame"), true, "the page was loaded again");
    drop(flood);
}

#[test]
fn a_message_that_kills_its_actor_is_shown_in_quarantine_and_takes_effect_when_it_is_let_in_again() {
    if !browser::required() {
        return;
    }
    let environment = vec![(DRILLS.0.to_owned(), DRILLS.1.to_owned())];
    let world = World::of(CloudUnderTest::start(), EdgeOptions { environment, ..EdgeOptions::default() });
    world.bind_device();
    let (edge, device, value) = (&world.edge, &world.thermometer.device, names::reading(10));
    let mut overview = watch(edge, "/");
    let mut browser = watch(edge, "/actors/twin");
    drill(edge, "twin/panic?in-hand=3");
    edge.report(device, "temperature", &value);

    browser.wait_for("document.querySelectorAll('article.kept form input[value=retry]').length === 1", Duration::from_secs(20));
    overview.wait_for("document.querySelector('.health').innerText.includes('1 message in quarantine')", Duration::from_secs(10));
    overview.wait_for(&format!("{} === '1'", cell("twin", "quarantine")), Duration::from_secs(10));
    overview.wait_for(&format!("{} === '3'", cell("twin", "restarts")), Duration::from_secs(10));
    for page in [&mut browser, &mut overview] {
        assert_eq!(page.eval("window.stillTheSame"), true, "the page was loaded again");
    }
    keep(&mut browser, "quarantine");
    keep(&mut overview, "quarantine-overview");
    let kept = browser.eval("document.querySelector('article.kept').innerText");
    assert!(kept.as_str().is_some_and(|kept| kept.contains(&format!("$hw/events/device/{device}/twin/update"))), "{kept}");
    assert!(edge.twin_is(device, "temperature", "actual", &value).is_err(), "the message had an effect before it was let in again");

    browser.press("article.kept form:has(input[value=retry]) button");
    eventually!(10, "the update takes effect", edge.twin_is(device, "temperature", "actual", &value));
    browser.wait_for("document.querySelector('.notice').innerText.startsWith('Done. twin: let message')", Duration::from_secs(10));
    browser.wait_for("!document.querySelector('article.kept')", Duration::from_secs(10));
    overview.wait_for(&format!("{} === '0'", cell("twin", "quarantine")), Duration::from_secs(10));
    keep(&mut browser, "quarantine-let-in");
}

#[test]
fn an_actor_that_hangs_is_shown_so_and_replaced_while_the_page_goes_on_answering() {
    if !browser::required() {
        return;
    }
    let edge = alone(&[DRILLS, ("SKEP_SUPERVISION__PING_INTERVAL", "2"), ("SKEP_SUPERVISION__SILENT_AFTER", "4")]);
    let mut browser = watch(&edge, "/");
    drill(&edge, "twin/hang?for=120");
    let began = Instant::now();
    // Other pages are served while the actor hangs: its thread is not theirs.
    while began.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        assert_eq!(http::get(edge.admin_port, "/actors/twin").unwrap().0, 200);
        assert!(asked.elapsed() < Duration::from_secs(60), "the page took {:?}, half as long as the actor hangs", asked.elapsed());
        browser.eval("document.querySelector('#actor-twin').innerText");
    }
    browser.wait_for("document.querySelector('.events').innerText.includes('twin fell silent')", Duration::from_secs(20));
    keep(&mut browser, "hang");
    browser.wait_for(&format!("{} === '1'", cell("twin", "restarts")), Duration::from_secs(10));
    browser.wait_for("document.querySelector('#actor-twin .state').innerText.endsWith('up')", Duration::from_secs(10));
    assert_eq!(browser.eval("window.stillTheSame"), true, "the page was loaded again");
    keep(&mut browser, "hang-replaced");
    assert!(began.elapsed() < Duration::from_secs(60), "it was not replaced but came back");
}
