//! A real browser: headless Chromium, driven by the Chrome DevTools Protocol.
//!
//! Invariant: every wait has a deadline, and nothing of it is left behind when this value goes, also by a panic.

mod chromium;
mod protocol;

use std::path::Path;
use std::time::{Duration, Instant};

use actor::testing::{Lack, leave_out};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use self::chromium::Chromium;
use self::protocol::Protocol;
use crate::wait::pause;

/// A page is loaded within this time.
const LOAD_WITHIN: Duration = Duration::from_secs(20);
/// Highest screenshot, in CSS pixels: what is below is cut off.
const SHOT_HEIGHT_MAX: f64 = 6000.0;
/// Characters of the page's text that an error shows.
const TEXT_SHOWN: usize = 4000;
/// Wait for the last screenshot of a test that fails.
const LAST_SHOT_WITHIN: Duration = Duration::from_secs(5);

/// True when there is a Chromium that can be driven. Where there is none, says loudly that the test is left out.
///
/// # Panics
/// When there is none and `CI=true`: there, nothing is left out.
#[track_caller]
pub fn required() -> bool {
    if chromium::find().is_some() {
        return true;
    }
    let reason = "no Chromium is installed (chromium, chromium-browser that is no snap, or google-chrome), and this test needs one: \
                  run deploy/setup.sh --for test; on Ubuntu, which has it as a snap only, install google-chrome by hand";
    leave_out(Lack::Program, reason);
    false
}

/// A kind of screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewport {
    /// 390 × 844, two device pixels for each, touched.
    Phone,
    /// 1280 × 900.
    Desktop,
}

impl Viewport {
    /// Its width in CSS pixels.
    pub const fn width(self) -> u32 {
        match self {
            Self::Phone => 390,
            Self::Desktop => 1280,
        }
    }

    /// Its height in CSS pixels.
    pub const fn height(self) -> u32 {
        match self {
            Self::Phone => 844,
            Self::Desktop => 900,
        }
    }
}

/// What the visitor prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Dark text on light.
    Light,
    /// Light text on dark.
    Dark,
}

/// An element as a screen reader gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accessible {
    /// `heading`, `link`, `main`, …
    pub role: String,
    /// What is read out.
    pub name: String,
}

/// A Chromium with one page. Ends with this value.
#[derive(Debug)]
pub struct Browser {
    // The connection first: fields are dropped in order.
    protocol: Protocol,
    chromium: Chromium,
    origin: String,
}

impl Browser {
    /// Starts one with an empty page of a desktop's size.
    ///
    /// # Panics
    /// When it cannot be started, with its words.
    #[track_caller]
    pub fn start() -> Self {
        Self::try_start().unwrap_or_else(|words| panic!("{words}"))
    }

    fn try_start() -> Result<Self, String> {
        let (chromium, port, path) = Chromium::start()?;
        let protocol = Protocol::connect(port, &path).map_err(|words| format!("{words}; Chromium said:\n{}", chromium.words()))?;
        let mut this = Self { protocol, chromium, origin: String::new() };
        this.try_viewport(Viewport::Desktop)?;
        Ok(this)
    }

    /// Opens an address and waits until the page has loaded. What was seen on an earlier page is forgotten.
    ///
    /// # Panics
    /// When it cannot be reached or does not load within 20 s.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        self.try_open(url).unwrap_or_else(|words| panic!("{url} does not open: {words}"));
    }

    fn try_open(&mut self, url: &str) -> Result<(), String> {
        self.protocol.seen = protocol::Seen::default();
        origin_of(url).clone_into(&mut self.origin);
        let answer = self.protocol.call("Page.navigate", json!({"url": url}))?;
        if let Some(words) = answer["errorText"].as_str() {
            return Err(words.to_owned());
        }
        let loader = answer["loaderId"].as_str().unwrap_or_default().to_owned();
        let until = Instant::now() + LOAD_WITHIN;
        while !self.protocol.seen.loaded.contains(&loader) {
            if !self.protocol.listen(until)? && Instant::now() >= until {
                return Err(format!("not loaded within {} s; its text: {}", LOAD_WITHIN.as_secs(), self.shown()));
            }
        }
        Ok(())
    }

    /// Value of an expression in the page; a promise's when it has come true.
    ///
    /// # Panics
    /// When it throws.
    #[track_caller]
    pub fn eval(&mut self, js: &str) -> Value {
        self.try_eval(js).unwrap_or_else(|words| panic!("`{js}`: {words}"))
    }

    fn try_eval(&mut self, js: &str) -> Result<Value, String> {
        let asked = json!({"expression": js, "returnByValue": true, "awaitPromise": true, "timeout": 10_000});
        let mut answer = self.protocol.call("Runtime.evaluate", asked)?;
        if let Some(details) = answer.get("exceptionDetails") {
            let words = details["exception"]["description"].as_str().or(details["text"].as_str());
            return Err(words.unwrap_or("it threw").to_owned());
        }
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression is true in the page, also across a navigation.
    ///
    /// # Panics
    /// After `within`, with what it was last, and the page's text.
    #[track_caller]
    pub fn wait_for(&mut self, condition: &str, within: Duration) {
        let began = Instant::now();
        loop {
            let last = self.try_eval(condition);
            if last == Ok(Value::Bool(true)) {
                return;
            }
            if began.elapsed() >= within {
                let last = last.map_or_else(|words| words, |value| value.to_string());
                panic!("not within {} s: `{condition}`; last: {last}; the page says:\n{}", within.as_secs(), self.shown());
            }
            pause();
        }
    }

    /// What a visitor reads on the page.
    #[track_caller]
    pub fn text(&mut self) -> String {
        self.eval("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    fn shown(&mut self) -> String {
        let text = self.try_eval("document.body ? document.body.innerText : '(no body)'");
        text.map_or_else(|words| words, |text| text.as_str().unwrap_or_default().chars().take(TEXT_SHOWN).collect())
    }

    /// Presses the element of a CSS selector with the mouse; waits for it while the page is being read.
    ///
    /// # Panics
    /// When there is none in time, or something else is in front of it.
    #[track_caller]
    pub fn press(&mut self, selector: &str) {
        self.wait_for(&format!("document.querySelector({}) !== null", json!(selector)), Duration::from_secs(10));
        self.try_press(selector).unwrap_or_else(|words| panic!("cannot press `{selector}`: {words}; the page says:\n{}", self.shown()));
    }

    fn try_press(&mut self, selector: &str) -> Result<(), String> {
        let place = format!(
            "(() => {{ const one = document.querySelector({}); if (!one) return 'there is none'; \
             one.scrollIntoView({{block: 'center', behavior: 'instant'}}); const box = one.getBoundingClientRect(); \
             const x = box.x + box.width / 2, y = box.y + box.height / 2, top = document.elementFromPoint(x, y); \
             return one.contains(top) ? [x, y] : 'in front of it is ' + (top && top.outerHTML.slice(0, 200)); }})()",
            json!(selector)
        );
        let found = self.try_eval(&place)?;
        let (Some(x), Some(y)) = (found[0].as_f64(), found[1].as_f64()) else { return Err(found.to_string()) };
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            self.protocol.call("Input.dispatchMouseEvent", json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": 1}))?;
        }
        Ok(())
    }

    /// Writes a PNG of the whole page.
    ///
    /// # Panics
    /// When it cannot be taken or written.
    #[track_caller]
    pub fn screenshot(&mut self, path: &Path) {
        self.try_screenshot(path, Duration::from_secs(30)).unwrap_or_else(|words| panic!("no screenshot {}: {words}", path.display()));
    }

    fn try_screenshot(&mut self, path: &Path, within: Duration) -> Result<(), String> {
        let metrics = self.protocol.call_within(within, "Page.getLayoutMetrics", json!({}))?;
        let size = |key: &str| metrics["cssContentSize"][key].as_f64().unwrap_or(1.0).max(1.0);
        let clip = json!({"x": 0, "y": 0, "width": size("width"), "height": size("height").min(SHOT_HEIGHT_MAX), "scale": 1});
        let asked = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let answer = self.protocol.call_within(within, "Page.captureScreenshot", asked)?;
        let bytes = BASE64_STANDARD.decode(answer["data"].as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
        std::fs::write(path, bytes).map_err(|error| error.to_string())
    }

    /// Changes the screen.
    ///
    /// # Panics
    /// When Chromium refuses.
    #[track_caller]
    pub fn viewport(&mut self, viewport: Viewport) {
        self.try_viewport(viewport).unwrap_or_else(|words| panic!("{words}"));
    }

    fn try_viewport(&mut self, viewport: Viewport) -> Result<(), String> {
        let phone = viewport == Viewport::Phone;
        let scale = if phone { 2 } else { 1 };
        let screen = json!({"width": viewport.width(), "height": viewport.height(), "deviceScaleFactor": scale, "mobile": phone});
        self.protocol.call("Emulation.setDeviceMetricsOverride", screen)?;
        self.protocol.call("Emulation.setTouchEmulationEnabled", json!({"enabled": phone})).map(drop)
    }

    /// Changes the visitor's preference.
    ///
    /// # Panics
    /// When Chromium refuses.
    #[track_caller]
    pub fn colours(&mut self, colours: Colours) {
        let value = match colours {
            Colours::Light => "light",
            Colours::Dark => "dark",
        };
        let wish = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.protocol.call("Emulation.setEmulatedMedia", wish).unwrap_or_else(|words| panic!("{words}"));
    }

    /// Whether the scripts of the next page run. Ours do in any case.
    ///
    /// # Panics
    /// When Chromium refuses.
    #[track_caller]
    pub fn scripts(&mut self, run: bool) {
        self.protocol.call("Emulation.setScriptExecutionDisabled", json!({"value": !run})).unwrap_or_else(|words| panic!("{words}"));
    }

    /// Errors on the console since the page was opened.
    #[track_caller]
    pub fn console_errors(&mut self) -> Vec<String> {
        self.seen().errors.clone()
    }

    /// Requests since the page was opened that failed or were refused.
    #[track_caller]
    pub fn failed_requests(&mut self) -> Vec<String> {
        self.seen().failed.clone()
    }

    /// Addresses of all requests since the page was opened.
    #[track_caller]
    pub fn requests(&mut self) -> Vec<String> {
        self.seen().requests.clone()
    }

    /// Those of them that went elsewhere than to the page's own origin. What an address holds in itself (`data:`) goes nowhere.
    #[track_caller]
    pub fn strays(&mut self) -> Vec<String> {
        let origin = self.origin.clone();
        self.requests().into_iter().filter(|url| !url.starts_with("data:") && origin_of(url) != origin).collect()
    }

    /// What Chromium has noticed, after everything that it had to tell.
    #[track_caller]
    fn seen(&mut self) -> &protocol::Seen {
        self.eval("0");
        &self.protocol.seen
    }

    /// The page as a screen reader gets it, in order, without what it leaves out.
    ///
    /// # Panics
    /// When Chromium refuses.
    #[track_caller]
    pub fn accessible(&mut self) -> Vec<Accessible> {
        let tree = self.protocol.call("Accessibility.getFullAXTree", json!({})).unwrap_or_else(|words| panic!("{words}"));
        let nodes = tree["nodes"].as_array().into_iter().flatten().filter(|node| node["ignored"] != true);
        let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
        nodes.map(|node| Accessible { role: text(node, "role"), name: text(node, "name") }).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
            // Only an aid to whoever looks for the reason; a second panic would end the whole run.
            if let Ok(dir) = crate::artefacts::try_artefacts() {
                let _ = self.try_screenshot(&dir.join(format!("failed-{test}.png")), LAST_SHOT_WITHIN);
            }
        }
        self.chromium.close(&mut self.protocol);
    }
}

/// `http://127.0.0.1:80` of `http://127.0.0.1:80/path`.
fn origin_of(url: &str) -> &str {
    let after = url.find("://").map_or(0, |at| at + 3);
    let end = url[after..].find(['/', '?', '#']).map_or(url.len(), |at| after + at);
    &url[..end]
}

#[cfg(test)]
mod tests;
