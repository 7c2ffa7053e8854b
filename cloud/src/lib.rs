//! The cloud service: CloudHub, EdgeController, device controller, embedded API.

pub mod cloud_hub;
pub mod cluster;
pub mod config;
pub mod device_controller;
pub mod edge_controller;
pub mod embedded;
pub mod limits;
pub mod pki;
#[cfg(test)]
mod testing;
pub mod watching;
pub mod wiring;
