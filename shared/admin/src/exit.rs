//! How a daemon ends: one code and one sentence for each cause (sysexits.h where it has one).
//!
//! | code | meaning | who starts it again |
//! |---|---|---|
//! | 0 | stopped by SIGTERM or SIGINT | nobody |
//! | 64 | wrong arguments | nobody |
//! | 65 | a file that was named is not what it should be | nobody |
//! | 66 | a file that was named cannot be read | nobody |
//! | 69 | a port is occupied, or something that cannot be done without is not there | systemd, Kubernetes |
//! | 70 | supervision gave up on an actor | systemd, Kubernetes |
//! | 71 | a commit of the store hung for 30 s | systemd, Kubernetes |
//! | 74 | the state directory or the database cannot be used | systemd, Kubernetes |
//! | 76 | a certificate is missing, expired, or of another authority | systemd, Kubernetes |
//! | 78 | the configuration is wrong | nobody: `RestartPreventExitStatus=78` in the unit |

use std::process::ExitCode;

/// Wrong arguments (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// A file that was named is not what it should be (`EX_DATAERR`).
pub const DATA: u8 = 65;
/// A file that was named cannot be read (`EX_NOINPUT`).
pub const NO_INPUT: u8 = 66;
/// A port is occupied, or something that cannot be done without is not there (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// Supervision gave up (`EX_SOFTWARE`).
pub const SUPERVISION: u8 = 70;
/// A commit hung (`EX_OSERR`).
pub const STUCK: u8 = 71;
/// State directory or database (`EX_IOERR`).
pub const STATE: u8 = 74;
/// A certificate (`EX_PROTOCOL`).
pub const CERTIFICATE: u8 = 76;
/// The configuration (`EX_CONFIG`).
pub const CONFIGURATION: u8 = 78;

/// Why a daemon ends, other than by a signal. The text is the whole sentence: what, where, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exit {
    /// The configuration cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// The state directory or the database cannot be used.
    #[error("{0}")]
    State(String),
    /// A port is occupied, or something that cannot be done without is not there.
    #[error("{0}")]
    Unavailable(String),
    /// A certificate is missing, expired, or of another authority.
    #[error("{0}")]
    Certificate(String),
    /// A file that was named is not what it should be.
    #[error("{0}")]
    Data(String),
    /// A file that was named cannot be read.
    #[error("{0}")]
    NoInput(String),
    /// An actor died too often.
    #[error("{0}")]
    Supervision(String),
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Configuration(_) => CONFIGURATION,
            Self::State(_) => STATE,
            Self::Unavailable(_) => UNAVAILABLE,
            Self::Certificate(_) => CERTIFICATE,
            Self::Data(_) => DATA,
            Self::NoInput(_) => NO_INPUT,
            Self::Supervision(_) => SUPERVISION,
        }
    }
}

impl From<&Exit> for ExitCode {
    fn from(exit: &Exit) -> Self {
        Self::from(exit.code())
    }
}
