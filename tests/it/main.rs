//! Tests over the real programs: one file per promise, each confirmed from outside.
//!
//! `make test` runs all of them; `make edge_integration_test` those below `edge`. A name says what is promised.
#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

mod bad_input;
mod cuts;
mod edge;
mod followed;
mod layering;
mod link;
mod manifests;
mod page;
mod pods;
mod set_aside;
mod setup;
mod steps;
mod world;
