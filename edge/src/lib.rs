//! The edge daemon: pods on Docker, MQTT devices and their twins, autonomous.

mod backoff;
pub mod communication;
pub mod config;
pub mod device;
pub mod edge_hub;
pub mod edged;
pub mod event_bus;
pub mod figures;
pub mod join;
pub mod membership;
pub mod meta_manager;
pub mod store;
pub mod systemd;
pub mod tls;
pub mod twin;
pub mod wiring;
