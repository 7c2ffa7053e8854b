//! What can be wrong with the cluster's own certificates.

use std::io;
use std::path::PathBuf;

use actor::chain;
use admin::Exit;

use super::token::TokenError;

/// Why the certificates cannot be used. Every message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// One file of a set that was complete before is gone.
    #[error("`{path}` is missing: {advice}")]
    Missing {
        /// The file that is not there.
        path: PathBuf,
        /// What the operator can do.
        advice: &'static str,
    },
    /// No certificate authority was ever made here.
    #[error("there is no certificate authority in `{dir}`: start `skep-cloud run` once, it makes one")]
    NotCreated {
        /// The directory that was searched.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} `{path}`: check the path and its permissions")]
    Io {
        /// What was tried: "read", "create", …
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The file is there but is not what its name says.
    #[error("`{path}` is not a valid {expected}: restore it from a backup ({detail})")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// "PEM certificate", "PEM private key", …
        expected: &'static str,
        /// What the parser said.
        detail: String,
    },
    /// Certificate and key were not made for each other.
    #[error("`{certificate}` does not belong to the key in `{key}`: restore the pair from the same backup")]
    KeyMismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key that does not fit.
        key: PathBuf,
    },
    /// A leaf certificate was signed by a different authority.
    #[error("`{path}` was not signed by this directory's ca.crt: restore it, or delete it and its key to have a new pair made")]
    OtherAuthority {
        /// The certificate.
        path: PathBuf,
    },
    /// The authority is too old. Leaf certificates are renewed instead.
    #[error("the certificate authority `{path}` expired on {not_after}: move the directory away to make a new one; every edge must then join again")]
    Expired {
        /// The certificate.
        path: PathBuf,
        /// When, RFC 2822.
        not_after: String,
    },
    /// A configured address cannot stand in a certificate.
    #[error("advertise address `{address}` is neither an IP address nor a DNS name: correct it in the configuration")]
    AdvertiseAddress {
        /// As configured.
        address: String,
    },
    /// A kubeconfig that somebody else wrote stands where ours should go.
    #[error("`{path}` exists and was not written by skep-cloud: choose another path for the kubeconfig, or move the file away")]
    ForeignKubeconfig {
        /// The file that was left alone.
        path: PathBuf,
    },
    /// The cryptography library refused (wrong request parameters; never an operator's fault).
    #[error("cannot {action}")]
    Crypto {
        /// "sign the server certificate", …
        action: &'static str,
        /// What it said.
        #[source]
        source: rcgen::Error,
    },
    /// The TLS library refused a pair that passed our own checks.
    #[error("cannot use the certificates in `{dir}` for TLS: restore the directory from a backup")]
    Tls {
        /// The pki directory.
        dir: PathBuf,
        /// What it said.
        #[source]
        source: rustls::Error,
    },
}

impl From<&PkiError> for Exit {
    fn from(error: &PkiError) -> Self {
        let text = chain(error);
        match error {
            PkiError::Io { .. } => Self::State(text),
            PkiError::AdvertiseAddress { .. } | PkiError::ForeignKubeconfig { .. } => Self::Configuration(text),
            PkiError::Missing { .. }
            | PkiError::NotCreated { .. }
            | PkiError::Malformed { .. }
            | PkiError::KeyMismatch { .. }
            | PkiError::OtherAuthority { .. }
            | PkiError::Expired { .. }
            | PkiError::Crypto { .. }
            | PkiError::Tls { .. } => Self::Certificate(text),
        }
    }
}

/// Why a node gets no certificate. The text is the whole answer body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Neither token nor certificate proves who asks.
    #[error("the join token is refused: {0}; get a new one with `skep-cloud token`")]
    Token(#[from] TokenError),
    /// A certificate was presented, but it is another node's.
    #[error("the presented certificate is for `{found}`, it cannot renew the one of node `{asked}`")]
    OtherNode {
        /// Identity in the presented certificate.
        found: String,
        /// Name in the header.
        asked: String,
    },
    /// Header `NodeName` is missing or not a valid node name.
    #[error("header NodeName is missing or is not a valid node name (lower case DNS name, at most 253 characters)")]
    NodeName,
    /// Header `ExtKeyUsages` asks for more than a client certificate.
    #[error("header ExtKeyUsages must be [2]: only client certificates are signed here")]
    Usage,
    /// The body is not a certificate signing request that proves possession of its key.
    #[error("the body is not a valid certificate signing request in DER form: {0}")]
    Request(String),
    /// The request's subject is another node than the header says.
    #[error("the request is for `{found}`, header NodeName says `{asked}`: make them agree")]
    Subject {
        /// Common name in the request.
        found: String,
        /// Common name that the header implies.
        asked: String,
    },
    /// More bytes than any request needs.
    #[error("the body is larger than {max} bytes")]
    TooLarge {
        /// The limit, bytes.
        max: usize,
    },
    /// Our side failed; the reason is in the log only.
    #[error("the certificate could not be signed, see the log of skep-cloud")]
    Internal,
}
