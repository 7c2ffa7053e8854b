//! A TCP connection between an edge and the cloud: what is on its way in each direction, in order.

use std::collections::VecDeque;

/// One connection. Each side learns of its end on its own.
#[derive(Debug, Default)]
pub struct Connection {
    pub session: u64,
    /// From cloud to edge.
    pub down: VecDeque<String>,
    /// From edge to cloud.
    pub up: VecDeque<String>,
    /// Whether the edge still takes it for its connection.
    pub edge_holds: bool,
    /// Whether the cloud has not noticed its end.
    pub cloud_holds: bool,
    /// Nothing gets through in this direction.
    pub down_is_black: bool,
    pub up_is_black: bool,
}

/// What the kernel and the peer's buffers take before the writer has to wait.
pub const ON_THE_WAY_MAX: usize = 24;

impl Connection {
    pub fn new(session: u64) -> Self {
        Self { session, edge_holds: true, cloud_holds: true, ..Self::default() }
    }
}
