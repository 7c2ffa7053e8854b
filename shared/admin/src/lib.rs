//! What an administrator of a daemon touches: the page over the actor registry, metrics, health endpoints, settings,
//! exit codes, what systemd is told, and one process per database.
//!
//! | endpoint | answers |
//! |---|---|
//! | `/`, `/actors/{name}` | the tree of actors and one actor, as pages that update themselves |
//! | `/api/…` | the same as JSON, and the actions; `/api/openapi.json` describes all of it |
//! | `/metrics` | Prometheus text |
//! | `/livez`, `/readyz`, `/healthz` | `ok`, or 503 with a line for each check, as Kubernetes' own components have it |
//! | `/debug/actors/{name}/…` | fault drills, where `admin.fault-injection` allows them |
//!
//! The server has a worker thread of its own and reads atomics and short locks only: it asks no actor, so it answers
//! while one hangs or floods.
//!
//! Invariant: on an address that is not loopback it does not start without a token file or client certificates.
//! Invariant: a request changes something only if it comes from one of our own forms, or carries a header that a foreign
//! page cannot set; and each change is logged and in the diary.
//! Invariant: what others said (last words, texts, names) is shown as text, and a quarantined payload is not shown at all.

mod access;
mod actions;
mod api;
mod claim;
mod config;
pub mod exit;
mod forms;
mod health;
pub mod keys;
mod logging;
mod metrics;
mod moment;
mod page;
mod server;
pub mod settings;
pub mod status;
mod stream;
pub mod systemd;
#[cfg(test)]
mod tests;
mod tls;
mod view;

pub use access::{AccessError, TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, read_token};
pub use claim::{Claim, claim};
pub use config::{Access, AdminConfig, AdminError};
pub use exit::Exit;
pub use health::Check;
pub use logging::{BadFilter, FILTER_BYTES_MAX, LogControl, LogError};
pub use metrics::Metric;
pub use server::{AdminServer, Bound, bind, serve};
pub use stream::WATCHERS_MAX;
pub use tls::client_certificates;
