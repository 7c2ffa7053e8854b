//! EdgeController: what Kubernetes wants of the edge goes down, what the edge reports goes up.
//!
//! Two actors. [`downstream`] watches the API server and keeps CloudHub's outboxes filled; [`upstream`] writes what the
//! edges say into the API and answers them. What they know of a kind of object is in [`resource`]; who needs which
//! ConfigMap and Secret is in [`location`].

pub mod downstream;
pub mod location;
pub mod resource;
#[cfg(test)]
mod tests;
pub mod upstream;
