//! The edge daemon: pods on Docker, MQTT devices and their twins, autonomous.

pub mod store;
