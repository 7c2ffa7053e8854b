//! The Chrome DevTools Protocol over its WebSocket: one page, one call at a time, and what happened in between.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket, client};

/// Longest message that is read: a screenshot of a long page, in Base64.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest wait for the answer to one call.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Kept entries of each list below, and characters of each entry.
const KEPT_MAX: usize = 500;
const ENTRY_CHARS_MAX: usize = 1000;

/// What the page did by itself.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Errors on the console: exceptions, `console.error`, refusals of the content security policy.
    pub(super) errors: Vec<String>,
    /// Requests without an answer, or with a status of 400 and above.
    pub(super) failed: Vec<String>,
    /// Addresses of all requests.
    pub(super) requests: Vec<String>,
    /// Loaders of the documents whose `load` event has fired.
    pub(super) loaded: Vec<String>,
    crashed: bool,
    pending: HashMap<String, String>,
}

/// A connection to one page.
#[derive(Debug)]
pub(super) struct Protocol {
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    calls: u64,
    pub(super) seen: Seen,
}

impl Protocol {
    /// Connects to the browser and to a new page of it.
    pub(super) fn connect(port: u16, path: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("port {port} of Chromium: {error}"))?;
        let limit = |stream: &TcpStream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            stream.set_write_timeout(Some(ANSWER_WITHIN))
        };
        limit(&stream).map_err(|error| format!("port {port} of Chromium: {error}"))?;
        let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (socket, _) = client::client_with_config(format!("ws://127.0.0.1:{port}{path}"), stream, Some(config))
            .map_err(|error| format!("Chromium's protocol on port {port}: {error}"))?;
        let mut this = Self { socket, session: None, calls: 0, seen: Seen::default() };
        let target = this.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let session = this.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}))?;
        this.session = Some(session["sessionId"].as_str().ok_or("Chromium gave no session")?.to_owned());
        for domain in ["Page", "Runtime", "Network", "Log", "Inspector", "Accessibility"] {
            this.call(&format!("{domain}.enable"), json!({}))?;
        }
        this.call("Page.setLifecycleEventsEnabled", json!({"enabled": true}))?;
        // A page that believes itself hidden stops watching.
        this.call("Emulation.setFocusEmulationEnabled", json!({"enabled": true}))?;
        Ok(this)
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// Chromium's words, or that it does not answer.
    pub(super) fn call(&mut self, method: &str, parameters: Value) -> Result<Value, String> {
        self.call_within(ANSWER_WITHIN, method, parameters)
    }

    /// As [`call`](Self::call), with a deadline of its own.
    pub(super) fn call_within(&mut self, within: Duration, method: &str, parameters: Value) -> Result<Value, String> {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).map_err(|error| format!("{method}: {error}"))?;
        let until = Instant::now() + within;
        loop {
            let answer = self.read(until).map_err(|error| format!("{method}: {error}"))?;
            let Some(mut answer) = answer else { return Err(format!("{method}: no answer within {} s", within.as_secs())) };
            if answer["id"] == id {
                return match answer["error"]["message"].as_str() {
                    Some(words) => Err(format!("{method}: {words}")),
                    None => Ok(answer["result"].take()),
                };
            }
            if self.seen.crashed {
                return Err(format!("{method}: the page crashed"));
            }
        }
    }

    /// Tells the browser to end. Its answer is not waited for: the connection ends with it.
    pub(super) fn close(&mut self) -> Result<(), String> {
        let message = json!({"id": self.calls + 1, "method": "Browser.close"});
        self.socket.send(Message::text(message.to_string())).map_err(|error| error.to_string())
    }

    /// Takes in one event, if one comes before that moment. False when none did.
    pub(super) fn listen(&mut self, until: Instant) -> Result<bool, String> {
        Ok(self.read(until)?.is_some())
    }

    /// The next message; an event is noted on the way. `None` when the time is over.
    fn read(&mut self, until: Instant) -> Result<Option<Value>, String> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.get_ref().set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).map_err(|error| format!("no JSON from Chromium: {error}"))?;
                    if let Some(method) = message["method"].as_str() {
                        self.seen.note(method, &message["params"]);
                    }
                    return Ok(Some(message));
                }
                Ok(Message::Close(_)) => return Err("Chromium closed the connection".to_owned()),
                Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(tungstenite::Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl Seen {
    fn note(&mut self, event: &str, of: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match event {
            "Runtime.exceptionThrown" => {
                let details = &of["exceptionDetails"];
                let words = details["exception"]["description"].as_str().or(details["text"].as_str());
                keep(&mut self.errors, format!("exception: {}", words.unwrap_or_default()));
            }
            "Runtime.consoleAPICalled" if of["type"] == "error" || of["type"] == "assert" => {
                let words: Vec<String> =
                    of["args"].as_array().into_iter().flatten().map(|one| text(&one["value"]) + &text(&one["description"])).collect();
                keep(&mut self.errors, format!("console.{}: {}", text(&of["type"]), words.join(" ")));
            }
            "Log.entryAdded" if of["entry"]["level"] == "error" => {
                keep(&mut self.errors, format!("{}: {} {}", text(&of["entry"]["source"]), text(&of["entry"]["text"]), text(&of["entry"]["url"])));
            }
            "Network.requestWillBeSent" => {
                let url = text(&of["request"]["url"]);
                keep(&mut self.requests, url.clone());
                if self.pending.len() < KEPT_MAX {
                    self.pending.insert(text(&of["requestId"]), url);
                }
            }
            "Network.responseReceived" => {
                let status = of["response"]["status"].as_u64().unwrap_or_default();
                if status >= 400 {
                    keep(&mut self.failed, format!("{}: status {status}", text(&of["response"]["url"])));
                }
            }
            "Network.loadingFinished" => {
                self.pending.remove(of["requestId"].as_str().unwrap_or_default());
            }
            "Network.loadingFailed" => {
                let url = self.pending.remove(of["requestId"].as_str().unwrap_or_default()).unwrap_or_default();
                // A page that is left gives up what it was waiting for.
                if of["canceled"] != true {
                    keep(&mut self.failed, format!("{url}: {} {}", text(&of["errorText"]), text(&of["blockedReason"])));
                }
            }
            "Page.lifecycleEvent" if of["name"] == "load" => keep(&mut self.loaded, text(&of["loaderId"])),
            "Inspector.targetCrashed" => self.crashed = true,
            _ => {}
        }
    }
}

fn keep(list: &mut Vec<String>, mut entry: String) {
    if let Some((end, _)) = entry.char_indices().nth(ENTRY_CHARS_MAX) {
        entry.truncate(end);
    }
    if list.len() >= KEPT_MAX {
        list.remove(0);
    }
    list.push(entry);
}
