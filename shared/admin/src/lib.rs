//! HTTP page, metrics and health endpoints over the actor registry.
