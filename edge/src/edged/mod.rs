//! Edged.
mod check;
pub mod env;
mod message;
pub mod node;
pub mod objects;
pub mod observed;
pub mod plan;
pub mod pod;
pub mod quantity;
pub mod runtime;
pub mod status;
#[cfg(test)]
mod tests;
pub mod volume;
pub mod worker;

pub use message::EdgedMessage;
