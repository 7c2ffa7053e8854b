//! The edge daemon: pods on Docker, MQTT devices and their twins, autonomous.
//!
//! Eight actors, each in a folder with the same rooms: `mod` (duty, who sends what), `message`, `state`, `handlers`, `tests`.
//!
//! | actor | duty | beside it, on threads of their own |
//! |---|---|---|
//! | [`event_bus`] | publishes and subscribes; `ingress` gives what arrives its meaning | embedded broker, MQTT client |
//! | [`membership`] | which devices belong to this node | |
//! | [`twin`] | expected and actual values | |
//! | [`device`] | state and attributes | |
//! | [`communication`] | what follows from their commits: publications, reports to the cloud | |
//! | [`edge_hub`] | the connection to the cloud; gives what arrives its meaning | WebSocket |
//! | [`meta_manager`] | what the cloud says of objects, and the pods' statuses | |
//! | [`edged`] | pods on the container engine, the node's status | event stream, one pass for each pod |
//!
//! | the rest | is |
//! |---|---|
//! | [`daemon`] | the command `run`: configuration, log, exit code |
//! | [`wiring`] | the one place where mailboxes meet: capacities, peers, start order, orderly stop |
//! | [`store`] | SQLite: the only place that knows Diesel |
//! | [`import`] | takes over what a database of KubeEdge, or a damaged one, has |
//! | [`config`] | the settings, checked before anything is opened |
//! | [`join`], [`tls`] | how the node gets its certificate, and reads it |
//! | [`console`] | `pods`, `logs` and `exec` for the person at the machine |
//! | [`mqtt_user`] | the users of the embedded broker, for the command line |
//! | `reload` | what a SIGHUP changes |
//! | [`figures`] | what `/metrics` and systemd are told |
//! | `ids`, `quarantine` | identities of messages and frames; how one that was set aside enters again |
//! | `anybody` | TLS to whoever answers |
//! | `backoff` | when to connect again |
//! | [`last_batch`] | what the pages of the device actors show of their last batch |

mod anybody;
mod backoff;
pub mod communication;
pub mod config;
pub mod console;
pub mod daemon;
pub mod device;
pub mod edge_hub;
pub mod edged;
pub mod event_bus;
pub mod figures;
mod ids;
pub mod import;
pub mod join;
pub mod last_batch;
pub mod membership;
pub mod meta_manager;
pub mod mqtt_user;
mod quarantine;
mod reload;
pub mod store;
pub mod tls;
pub mod twin;
pub mod wiring;
