//! The cloud service: CloudHub, EdgeController, device controller, embedded API.

pub mod config;
pub mod edge_controller;
pub mod embedded;
pub mod exit;
pub mod pki;
pub mod wiring;
