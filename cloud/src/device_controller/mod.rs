//! Device controller: what devices should be goes to the edges, what they are comes back.

pub mod crd;
mod message;

pub use message::DeviceControllerMessage;
