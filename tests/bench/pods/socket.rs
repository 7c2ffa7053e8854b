//! A forwarder in front of Docker's socket that notes each request and each answer.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::DOCKER;

/// Kept of a request and of an answer; what is longer is no request or answer that somebody looks at.
const KEPT_MAX: usize = 64 << 10;

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// When its first byte came, before it was passed on.
    pub asked: Instant,
    /// When the last byte of its answer came, before it was passed on.
    pub answered: Option<Instant>,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Call {
    /// `POST /containers/create?name=…`.
    pub fn line(&self) -> String {
        let text = String::from_utf8_lossy(&self.request);
        text.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned()
    }

    /// Whether it asks for a container to be made.
    pub fn is_create(&self) -> bool {
        self.line().contains("/containers/create?")
    }

    /// The id in the path of a request that starts a container.
    pub fn starts(&self) -> Option<String> {
        let line = self.line();
        let path = line.strip_prefix("POST ")?.split('?').next()?.strip_suffix("/start")?;
        path.rsplit_once("/containers/").map(|(_, id)| id.to_owned())
    }

    /// The body of the request, if it is JSON.
    pub fn body(&self) -> Option<Value> {
        json(&self.request)
    }

    /// The body of the answer, if it is JSON with a length.
    pub fn answer(&self) -> Option<Value> {
        json(&self.answer)
    }
}

fn json(message: &[u8]) -> Option<Value> {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n")?;
    serde_json::from_slice(&message[end + 4..]).ok()
}

/// The forwarder. Its threads end with the connections.
pub struct Socket {
    dir: TempDir,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Socket {
    /// Opens it.
    ///
    /// # Errors
    /// No directory, no socket.
    pub fn open() -> Result<Self, String> {
        // The path of a socket has room for 107 bytes, so it is not where the other files are.
        let dir = TempDir::with_prefix("skep-").map_err(|error| error.to_string())?;
        let socket = Self { dir, calls: Arc::default() };
        let listener = UnixListener::bind(socket.path()).map_err(|error| format!("{}: {error}", socket.path().display()))?;
        let calls = socket.calls.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(engine) = UnixStream::connect(DOCKER) else { continue };
                let (Ok(client_too), Ok(engine_too)) = (client.try_clone(), engine.try_clone()) else { continue };
                let current = Arc::new(Mutex::new(None));
                let (calls_too, current_too) = (calls.clone(), current.clone());
                std::thread::spawn(move || pass(client, engine, |bytes| note_request(&calls_too, &current_too, bytes)));
                let calls = calls.clone();
                std::thread::spawn(move || pass(engine_too, client_too, |bytes| note_answer(&calls, &current, bytes)));
            }
        });
        Ok(socket)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Forgets what was noted. Nobody is connected, or what is under way is noted no more.
    pub fn clear(&self) {
        lock(&self.calls).clear();
    }

    /// Everything that was noted, in the order of the requests.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    /// The first request that is looked for, if it was made.
    pub fn first(&self, is_it: impl Fn(&Call) -> bool) -> Option<Call> {
        lock(&self.calls).iter().find(|call| is_it(call)).cloned()
    }
}

/// Sends one request over a connection of its own; waits until the other side closes it.
///
/// # Errors
/// It is not answered by 2xx.
pub fn ask(socket: &Path, path: &str, body: &str) -> Result<(), String> {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| format!("Docker: POST {path}: {error}"))?;
    if answer.starts_with(b"HTTP/1.1 2") { Ok(()) } else { Err(format!("Docker: POST {path}: {}", String::from_utf8_lossy(&answer))) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection's current request, by its number and the moment of its beginning: a cleared list has other ones.
type Current = Mutex<Option<(usize, Instant)>>;

fn call(calls: &mut [Call], current: Option<(usize, Instant)>) -> Option<&mut Call> {
    let (number, asked) = current?;
    calls.get_mut(number).filter(|call| call.asked == asked)
}

fn note_request(calls: &Mutex<Vec<Call>>, current: &Current, bytes: &[u8]) {
    let now = Instant::now();
    let (mut calls, mut current) = (lock(calls), lock(current));
    match call(&mut calls, *current) {
        // Nobody asks again before the answer is there.
        Some(call) if call.answered.is_none() => keep(&mut call.request, bytes),
        _ => {
            *current = Some((calls.len(), now));
            calls.push(Call { asked: now, answered: None, request: bytes[..bytes.len().min(KEPT_MAX)].to_owned(), answer: Vec::new() });
        }
    }
}

fn note_answer(calls: &Mutex<Vec<Call>>, current: &Current, bytes: &[u8]) {
    let now = Instant::now();
    let (mut calls, current) = (lock(calls), lock(current));
    if let Some(call) = call(&mut calls, *current) {
        call.answered = Some(now);
        keep(&mut call.answer, bytes);
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = KEPT_MAX.saturating_sub(kept.len());
    kept.extend(bytes.iter().take(room));
}

fn pass(mut from: UnixStream, mut to: UnixStream, mut note: impl FnMut(&[u8])) {
    let mut buffer = vec![0; KEPT_MAX];
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        note(&buffer[..bytes]);
        if to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    // The other direction may go on: a stream that is only read.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
