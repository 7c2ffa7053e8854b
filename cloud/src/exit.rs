//! Exit codes of the daemon: each end of the process has one code and one sentence.
//!
//! | code | meaning | systemd, Kubernetes |
//! |---|---|---|
//! | 0 | stopped by SIGTERM or SIGINT | stays stopped |
//! | 64 | wrong arguments | |
//! | 69 | unavailable: a port is occupied, the API cannot be configured | restarts |
//! | 70 | supervision gave up on an actor | restarts |
//! | 71 | a commit of the store stuck for more than 30 s | restarts |
//! | 74 | input or output: state directory, database | restarts |
//! | 76 | a certificate was refused or belongs to another CA | restarts |
//! | 78 | the configuration is wrong | `RestartPreventExitStatus=78` |

use std::process::ExitCode;

use actor::chain;

use crate::{config::LoadError, pki::PkiError};

/// Why the daemon ended, other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum Exit {
    /// The configuration cannot be used.
    #[error(transparent)]
    Configuration(#[from] LoadError),
    /// The configuration is well-formed and still cannot work.
    #[error("configuration: {0}")]
    Settings(String),
    /// Something outside that the daemon cannot do without is not there.
    #[error("{0}")]
    Unavailable(String),
    /// The state directory or the database cannot be used.
    #[error("{0}")]
    Io(String),
    /// A certificate cannot be used.
    #[error("{0}")]
    Certificate(String),
    /// An actor died too often.
    #[error("supervision gave up: {0}")]
    GaveUp(String),
}

impl Exit {
    /// The code for the operating system (sysexits where one fits).
    pub fn code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::Settings(_) => 78,
            Self::Unavailable(_) => 69,
            Self::Io(_) => 74,
            Self::Certificate(_) => 76,
            Self::GaveUp(_) => 70,
        }
    }
}

impl Exit {
    /// The end that follows from unusable certificates.
    pub fn of_pki(error: &PkiError) -> Self {
        let text = chain(error);
        match error {
            PkiError::Io { .. } => Self::Io(text),
            PkiError::AdvertiseAddress { .. } | PkiError::ForeignKubeconfig { .. } => Self::Settings(text),
            _ => Self::Certificate(text),
        }
    }
}

impl From<&Exit> for ExitCode {
    fn from(exit: &Exit) -> Self {
        Self::from(exit.code())
    }
}
