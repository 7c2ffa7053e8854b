//! Edged.
pub mod env;
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
