//! What can go wrong while a machine joins.

use std::io;
use std::path::PathBuf;

use admin::exit;

use crate::tls::TlsError;

/// Why the machine did not join. Nothing was written, an earlier identity is untouched.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// `--cloud` is not an address.
    #[error("`{cloud}` is not the address of a cloud: give it as https://HOST:10002")]
    CloudAddress {
        /// As given.
        cloud: String,
    },
    /// `--token` is not a join token at all.
    #[error("the join token is incomplete: copy the whole line that `skep-cloud token` prints")]
    Token,
    /// `--node` is not a name.
    #[error("`--node`: {0}")]
    NodeName(#[from] model::NameError),
    /// Nobody answers there.
    #[error("cannot connect to {address}: check the address, that skep-cloud runs there and that no firewall stands between")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody answers, but not with TLS that we accept.
    #[error("no TLS connection with {address}: check that this is skep-cloud's port for certificates (10002)")]
    Tls {
        /// Host and port.
        address: String,
        /// What was refused.
        #[source]
        source: io::Error,
    },
    /// The cloud's own certificate does not hold for the name that we called.
    #[error("the cloud's certificate is not for `{host}`: add it to `cloudhub.advertise-address` of skep-cloud and restart it")]
    HostNotAdvertised {
        /// Host as given.
        host: String,
    },
    /// The token is of another cloud, or somebody stands between.
    #[error("the token is not from the cloud at {address}: its certificate authority has fingerprint {found}, the token says {expected}")]
    OtherCloud {
        /// Host and port.
        address: String,
        /// SHA-256 of what was downloaded.
        found: String,
        /// SHA-256 in the token.
        expected: String,
    },
    /// The cloud said no; `reason` is its sentence.
    #[error("the cloud at {address} refuses ({status}): {reason}")]
    Refused {
        /// Host and port.
        address: String,
        /// HTTP status.
        status: u16,
        /// Body of the answer, one line.
        reason: String,
    },
    /// Not an answer of skep-cloud.
    #[error("{address} does not answer as skep-cloud does ({detail}): check the port")]
    Answer {
        /// Host and port.
        address: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The cloud accepted the connection and then stayed silent.
    #[error("{address} did not answer within {seconds} s: try again")]
    Timeout {
        /// Host and port.
        address: String,
        /// The deadline.
        seconds: u64,
    },
    /// The certificate that the cloud sent is of no use.
    #[error("the cloud at {address} sent a certificate that cannot be used")]
    Certificate {
        /// Host and port.
        address: String,
        /// What is wrong with it.
        #[source]
        source: TlsError,
    },
    /// The files cannot be written.
    #[error("cannot {action} `{path}`: check `--data-dir` and its permissions")]
    Write {
        /// "create", "write", …
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The machine's own cryptography failed.
    #[error("cannot make a key and a certificate signing request")]
    Request(#[source] rcgen::Error),
}

impl JoinError {
    /// The exit code that a script can act on: usage, unreachable, files, refused or not trusted (see [`exit`]).
    pub fn exit_code(&self) -> u8 {
        match self {
            JoinError::CloudAddress { .. } | JoinError::Token | JoinError::NodeName(_) => exit::USAGE,
            JoinError::Connect { .. } | JoinError::Timeout { .. } => exit::UNAVAILABLE,
            JoinError::Write { .. } => exit::STATE,
            JoinError::Request(_) => exit::SUPERVISION,
            JoinError::Tls { .. }
            | JoinError::HostNotAdvertised { .. }
            | JoinError::OtherCloud { .. }
            | JoinError::Refused { .. }
            | JoinError::Answer { .. }
            | JoinError::Certificate { .. } => exit::CERTIFICATE,
        }
    }
}
