//! What devices and mappers see: topics and JSON bodies on MQTT.

pub mod filter;
pub mod grant;
pub mod payload;
pub mod topic;

pub use topic::{SUBSCRIBE_FILTERS, Topic, TopicError, is_filter};
