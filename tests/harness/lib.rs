//! The real programs as processes, and the foreign parties that look at them from outside.
//!
//! | what | is |
//! |---|---|
//! | [`CloudUnderTest`], [`EdgeUnderTest`] | the daemons, on free ports and in directories of their own |
//! | [`Kubectl`], [`docker`], [`mqtt`], [`sqlite`], [`http`] | `kubectl`, `docker`, mosquitto's clients and broker, `sqlite3`, plain HTTP: what a test believes |
//! | [`Api`] | `kubectl proxy`: the API over plain HTTP, where kubectl itself would take too long |
//! | [`RawClient`] | an MQTT client without manners, for what mosquitto's clients refuse to send |
//! | [`Browser`] | headless Chromium: what a visitor of a page gets; [`artefacts`] keeps its screenshots |
//! | [`Line`] | a forwarder between two parties that can be cut, refused, half-open, slow or far, and mended |
//! | [`placement`] | the HTTPS server that tells an edge where its cloud is, right or wrong |
//! | [`eventually!`] | waits for what must become true, with a deadline and the last thing seen |
//!
//! Invariant: names are random per test and ports are its own, so tests run side by side, also of two clones.
//! Invariant: a test that cannot run says so and fails; `SKEP_SKIP=docker` leaves the tests that need Docker out, in plain words.
//! A machine without a Chromium leaves those that need one out, as plainly, unless `CI=true`.

pub mod api;
pub mod browser;
pub mod daemon;
pub mod docker;
pub mod examples;
pub mod http;
pub mod images;
pub mod kubectl;
pub mod line;
pub mod mqtt;
pub mod names;
pub mod placement;
pub mod raw_mqtt;
pub mod sources;
pub mod sqlite;
pub mod wait;

mod artefacts;
mod cloud;
mod edge;
#[cfg(test)]
mod line_tests;

pub use api::{Api, ApiClient};
pub use artefacts::artefacts;
pub use browser::Browser;
pub use cloud::{CloudOptions, CloudUnderTest};
pub use daemon::{Daemon, End, program};
pub use edge::{EdgeOptions, EdgeUnderTest};
pub use kubectl::Kubectl;
pub use line::{Fault, Line, Way};
pub use raw_mqtt::RawClient;

use std::path::PathBuf;

/// The repository's top directory.
///
/// # Panics
/// Never: this package is one level below it.
pub fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is below the top").to_owned()
}
