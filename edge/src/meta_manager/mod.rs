//! MetaManager.

mod message;

pub use message::{Found, MetaManagerMessage, QueryError};
