//! Exit codes, shared with `deploy/edge/skep-edge.service` (sysexits.h where it has one).

use std::process::ExitCode;

/// Why the daemon ends.
#[derive(Debug, thiserror::Error)]
pub enum Exit {
    /// The configuration or the command line cannot be used. systemd does not restart on this code.
    #[error("{0}")]
    Config(String),
    /// The state directory or the database cannot be used.
    #[error("{0}")]
    State(String),
    /// A port is taken.
    #[error("{0}")]
    Unavailable(String),
    /// A certificate is missing, expired, or of another authority.
    #[error("{0}")]
    Certificate(String),
    /// An actor died too often.
    #[error("{0}")]
    Supervision(String),
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::State(_) => 74,
            Self::Unavailable(_) => 69,
            Self::Certificate(_) => 76,
            Self::Supervision(_) => 70,
        }
    }

    /// The code as `main` returns it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}
