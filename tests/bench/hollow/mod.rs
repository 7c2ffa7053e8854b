//! Edges without an inside, and what they need around them.
//!
//! | what | is |
//! |---|---|
//! | [`Cloud`], [`Edge`] | the real `skep-cloud` (embedded API, TLS, loopback) and the real `skep-edge`, each with a directory of its own |
//! | [`Authority`] | signs nodes with the cloud's own key, without asking it |
//! | [`Node`] | an edge as the cloud sees it: TCP, TLS with its certificate, WebSocket, envelopes; it acknowledges what it is sent |
//! | [`Api`] | the embedded API as an administrator's program writes and watches it |
//!
//! A hollow edge stores nothing: an acknowledgement says that a frame was read. Thousands of them are tasks of one process.

mod api;
mod authority;
mod cloud;
mod edge;
mod limits;
mod node;

pub use api::Api;
pub use authority::Authority;
pub use cloud::{Cloud, Options};
pub use edge::Edge;
pub use limits::raise_open_files;
pub use node::{Greeting, Manner, Node, Sight};

use std::path::PathBuf;

/// A program beside this one: of the same profile, so what is shipped where this was built for it.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is missing: run `make bench SCENARIO=…`, which builds it", path.display())) }
}

/// A runtime on the calling thread.
///
/// # Errors
/// The operating system gives none.
pub fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| format!("no runtime: {error}"))
}

/// Now, as frames say it.
fn now() -> model::Timestamp {
    use model::Clock as _;
    model::SystemClock.now()
}

/// Waits, for other processes: nothing else is done by this thread meanwhile.
#[allow(clippy::disallowed_methods, reason = "no arbiter is on a thread of a bench")]
pub fn pause(duration: std::time::Duration) {
    std::thread::sleep(duration);
}
