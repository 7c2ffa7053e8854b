//! The edge daemon: pods on Docker, MQTT devices and their twins, autonomous.

pub mod join;
pub mod store;
pub mod tls;
