//! The cloud service: CloudHub, EdgeController, device controller, embedded API.

pub mod config;
pub mod exit;
pub mod pki;
