//! What an administrator of a daemon touches: the page over the actor registry, metrics, health endpoints, settings,
//! exit codes, what systemd is told, and one process per database.
//!
//! | endpoint | answers |
//! |---|---|
//! | `/` | the actors and their mailboxes, as a page that reloads itself |
//! | `/api/actors`, `/api/actors/{name}`, `/api/events` | the same as JSON |
//! | `/metrics` | Prometheus text |
//! | `/healthz`, `/livez`, `/readyz` | `ok`, or 503 with the reason |
//!
//! The server has a worker thread of its own and reads atomics only: it asks no actor, so it answers while one hangs or
//! floods. It listens on loopback addresses only, and refuses a request whose `Host` is no loopback name (DNS
//! rebinding). Nothing here changes anything.

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
