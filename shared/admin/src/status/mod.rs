//! The page in a terminal: asks a running daemon over HTTP and prints the tree, the mailboxes and what happened lately.
//!
//! The client is a hundred lines over a blocking socket: one GET, bounded in time and in bytes. A library would cost the
//! edge's program more than it has left.

mod call;
mod client;
mod text;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::access::{AccessError, read_token};
pub use call::{Call, call};
pub use client::ClientError;

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people: at most 100 columns.
    #[default]
    Text,
    /// One JSON document: title, health, supervisors, actors, events, as `/api/status` has it.
    Json,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Again each second, until the process is interrupted or the output closed; JSON then is one document per line.
    pub watch: bool,
    /// What is printed.
    pub output: Output,
    /// Whether the output is a terminal: each look then replaces the one before.
    pub terminal: bool,
}

/// How the daemon is asked.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// As anybody on this machine.
    #[default]
    None,
    /// With the token in this file.
    Token(PathBuf),
    /// Over TLS, with the client certificate in this configuration; the name is the one in the daemon's certificate.
    Certificate(Arc<rustls::ClientConfig>, rustls::pki_types::ServerName<'static>),
}

/// Why nothing could be printed.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody answers there, or somebody else.
    #[error("the daemon does not answer on {address}: is it running, and is `admin.port` {port}?", port = address.port())]
    NoAnswer {
        /// Where it was asked.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: ClientError,
    },
    /// It answered that it will not.
    #[error("the daemon on {address} refused with status {status}: {reason}")]
    Refused {
        /// Where it was asked.
        address: SocketAddr,
        /// The HTTP status.
        status: u16,
        /// Its sentence.
        reason: String,
    },
    /// What it answered is no status.
    #[error("what answers on {0} is no Skep daemon of this version: compare `version` with that of the running one")]
    NotOurs(SocketAddr),
    /// The token file cannot be used.
    #[error(transparent)]
    Token(#[from] AccessError),
    /// The output was closed.
    #[error("cannot write the status")]
    Write(#[from] io::Error),
}

/// Prints the status of the daemon whose admin page is at `address`; an address that means "all of them" is asked on this
/// machine.
///
/// # Errors
/// See [`StatusError`]. With `watch`, a daemon that goes away ends it, too.
pub fn run(address: SocketAddr, credentials: &Credentials, options: Options, out: &mut impl Write) -> Result<(), StatusError> {
    let address = reachable(address);
    let token = match credentials {
        Credentials::Token(path) => Some(read_token(path)?),
        Credentials::None | Credentials::Certificate(..) => None,
    };
    let tls = match credentials {
        Credentials::Certificate(config, name) => Some((config.clone(), name.clone())),
        Credentials::None | Credentials::Token(_) => None,
    };
    loop {
        let began = Instant::now();
        let answer =
            client::get(address, "/api/status", token.as_deref(), tls.as_ref()).map_err(|source| StatusError::NoAnswer { address, source })?;
        if answer.status != 200 {
            let reason = serde_json::from_slice::<Value>(&answer.body).ok().and_then(|v| v["error"].as_str().map(plain));
            return Err(StatusError::Refused { address, status: answer.status, reason: reason.unwrap_or_else(|| "no reason given".to_owned()) });
        }
        print(&answer.body, address, options, out)?;
        if !options.watch {
            return Ok(());
        }
        std::thread::park_timeout(WATCH_EVERY.saturating_sub(began.elapsed()));
    }
}

fn print(body: &[u8], address: SocketAddr, options: Options, out: &mut impl Write) -> Result<(), StatusError> {
    let not_ours = |_| StatusError::NotOurs(address);
    let seen: text::Seen<'_> = serde_json::from_slice(body).map_err(not_ours)?;
    match options.output {
        Output::Text => {
            if options.watch && options.terminal {
                // Home, then clear what follows: no flicker of an empty screen.
                write!(out, "\x1b[H\x1b[J")?;
            }
            out.write_all(text::render(&seen).as_bytes())?;
            if options.watch && !options.terminal {
                writeln!(out)?;
            }
        }
        Output::Json => {
            let document: Value = serde_json::from_slice(body).map_err(not_ours)?;
            if options.watch { writeln!(out, "{document}")? } else { writeln!(out, "{document:#}")? }
        }
    }
    out.flush()?;
    Ok(())
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Text from elsewhere, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
