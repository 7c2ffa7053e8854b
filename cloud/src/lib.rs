//! The cloud service: CloudHub, EdgeController, device controller, embedded API.
//!
//! | actor | duty |
//! |---|---|
//! | [`cloud_hub`] | every edge's WebSocket session, and what it must still be told |
//! | [`edge_controller::downstream`] | what the edges should have, from watches of the API |
//! | [`edge_controller::upstream`] | what the edges say, into the API |
//! | [`device_controller`] | devices: wanted values down, DeviceStatus up |
//!
//! | the rest | is |
//! |---|---|
//! | [`wiring`] | the one place where mailboxes meet: capacities, peers, start order, orderly stop |
//! | [`standing`] | how the API stands, for the page |
//! | [`cluster`], [`watching`] | the Kubernetes API as the controllers use it; they cannot tell a real one from the embedded |
//! | [`embedded`] | the Kubernetes API where there is no cluster: actix-web over SQLite, the only place that knows Diesel |
//! | [`pki`] | the authority, join tokens, the port where an edge gets its certificate |
//! | `reload` | what a SIGHUP changes |
//! | [`config`], [`limits`] | the settings; how many connections the process may hold |

pub mod cloud_hub;
pub mod cluster;
pub mod config;
pub mod device_controller;
pub mod edge_controller;
pub mod embedded;
pub mod limits;
pub mod pki;
mod reload;
pub mod standing;
#[cfg(test)]
mod testing;
pub mod watching;
pub mod wiring;
