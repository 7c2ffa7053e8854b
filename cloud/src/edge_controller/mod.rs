//! EdgeController: what Kubernetes wants of the edge goes down, what the edge reports goes up.

pub mod location;
