//! The cloud service: CloudHub, EdgeController, device controller, embedded API.

pub mod pki;
