//! What leaves a process: MQTT topics and payloads, the cloud link's envelope.
//!
//! | module | is |
//! |---|---|
//! | [`mqtt::topic`] | every topic as an enum: a topic string becomes a meaning here and nowhere else |
//! | [`mqtt::payload`] | the JSON bodies: requests checked on the way in, answers with KubeEdge's field names |
//! | [`hub::envelope`] | the JSON envelope of the WebSocket, both of KubeEdge's forms |
//! | [`hub::resource`] | the resource strings as an enum |
//! | [`hub::upstream`], [`hub::downstream`] | what the edge says to the cloud, and the cloud to the edge |
//! | [`hub::codec`] | one text frame to one typed frame and back, with limits |
//! | [`hub::outbox`] | what one peer must still be told: keyed, windowed, resent; pure |
//! | [`link`] | the rules of the connection between cloud and edge as pure machines |
//! | [`field`] | which field of an object a decoder could not take |
//! | [`identity`] | the subject of a node's certificate |
//! | [`fixtures`] | one golden example of each message, for the tests of both sides |
//!
//! # Layers
//! Bytes → [`json`] (size and depth) → [`hub::Envelope`] (fields that any KubeEdge may have left out) →
//! [`hub::Frame`] of [`hub::Upstream`] or [`hub::Downstream`] (names are valid, bodies are typed). Each layer refuses
//! with its own typed error, and nothing past the last one holds a string that has to be looked at again.
//! Objects of Kubernetes stay text ([`RawJson`]): only the module that reads them parses them.
//!
//! No sockets, no clocks, no database, no actor: everything can be tested and simulated without a process.

pub mod field;
pub mod fixtures;
pub mod hub;
pub mod identity;
pub mod json;
pub mod link;
pub mod mqtt;

pub use json::RawJson;
