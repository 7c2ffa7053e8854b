//! CloudHub: the WebSocket server that every edge is connected to.

mod message;

pub use message::CloudHubMessage;
