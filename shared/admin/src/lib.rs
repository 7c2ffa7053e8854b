//! What an administrator of a daemon touches: the page over the actor registry, metrics, health endpoints, settings,
//! exit codes.
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

pub mod exit;
mod metrics;
mod page;
mod server;
pub mod settings;

pub use exit::Exit;
pub use metrics::Metric;
pub use server::{AdminConfig, AdminError, AdminServer, serve};
