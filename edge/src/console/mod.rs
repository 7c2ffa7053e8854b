//! `skep-edge pods`, `logs` and `exec`: for the person who stands at the machine while the cloud is away.
//!
//! Pods and logs come from the daemon's read-only endpoint, so no right on Docker's socket is needed. `exec` goes to the
//! socket itself: the daemon's endpoint changes nothing.
//!
//! | file | duty |
//! |---|---|
//! | `client` | one GET of the read-only endpoint, as a stream |
//! | `display` | what kubectl shows of a pod (pure) |
//! | `pods`, `logs`, `exec` | the commands |
//! | `terminal` | the terminal as it comes, and back |

mod client;
mod display;
mod exec;
mod logs;
mod pods;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;

use admin::Exit;
use clap::Args;
use serde_json::Value;

use crate::config::EdgeConfig;
pub use exec::{ExecArgs, exec};
pub use logs::{LogsArgs, logs};
pub use pods::{PodsArgs, pods};

/// Namespace where none is named.
const NAMESPACE_DEFAULT: &str = "default";

/// Where the daemon's configuration is.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// Configuration file of the daemon; /etc/skep/edge.yaml when it exists, the defaults otherwise.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Why a command did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The configuration switches the endpoint off.
    #[error("the daemon has no read-only endpoint: set `edged.read-only-port` in its configuration and restart it")]
    Off,
    /// Nobody answers there.
    #[error(
        "the daemon does not answer on {address}: is it running (systemctl status skep-edge), is `edged` among `modules.enabled`, and is `edged.read-only-port` {port}?",
        port = address.port()
    )]
    NoAnswer {
        /// Where it was asked.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: client::ClientError,
    },
    /// It broke off in the middle.
    #[error("the daemon on {address} broke off its answer; the log of the daemon says why")]
    BrokenOff {
        /// Where it was asked.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: client::ClientError,
    },
    /// It answered that it will not.
    #[error("{0}")]
    Refused(String),
    /// What it answered is not a list of pods.
    #[error("what answers on {0} is no Skep daemon of this version: compare `skep-edge version` with that of the running one")]
    NotOurs(SocketAddr),
    /// No such pod or container, or several.
    #[error("{0}")]
    NotFound(String),
    /// Docker's.
    #[error("{0}")]
    Engine(String),
    /// Not a terminal, or one that cannot be used.
    #[error("-t needs -i and a terminal on standard input: write -it, or leave -t out")]
    NoTerminal,
    /// Standard output or input.
    #[error("cannot {0}")]
    Stream(&'static str, #[source] io::Error),
}

impl ConsoleError {
    /// As the process ends.
    pub fn exit(&self) -> Exit {
        let text = actor::chain(self);
        match self {
            Self::Off | Self::NoTerminal => Exit::Configuration(text),
            _ => Exit::Unavailable(text),
        }
    }

    /// Whether somebody merely closed the output, as a pager does.
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Stream(_, error) if error.kind() == ErrorKind::BrokenPipe)
    }
}

fn endpoint(config: &EdgeConfig) -> Result<SocketAddr, ConsoleError> {
    config.read_only().ok_or(ConsoleError::Off)
}

/// A name within a pod object.
fn name_of(pod: &Value) -> (&str, &str) {
    let metadata = &pod["metadata"];
    let namespace = metadata["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or(NAMESPACE_DEFAULT);
    (namespace, metadata["name"].as_str().unwrap_or_default())
}

/// Text of somebody else without what would move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[allow(clippy::print_stderr, reason = "a word for the person beside the command's result")]
fn note(text: &str) {
    eprintln!("{}", plain(text));
}
