//! Keys that both daemons have: supervision, and who may use the admin page.

use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use actor::Policy;
use serde::{Deserialize, Serialize};

use crate::{Access, AccessError, LogControl, LogError, client_certificates};

/// A key whose value cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is {value}: {advice}")]
pub struct Invalid {
    /// The key, dotted.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What to write instead.
    pub advice: String,
}

impl Invalid {
    /// With the value between backquotes.
    pub fn new(key: &'static str, value: impl std::fmt::Display, advice: impl Into<String>) -> Self {
        Self { key, value: format!("`{value}`"), advice: advice.into() }
    }
}

/// `supervision.*`: when an actor counts as silent or hopeless. All durations are seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Supervision {
    /// How often each actor is asked for a sign of life (manual ch. 10.2.4).
    pub ping_interval: u64,
    /// An actor that is silent for longer is fenced and replaced (manual ch. 10.2.4).
    pub silent_after: u64,
    /// More deaths of one actor than this within the period end the process.
    pub restarts_max: usize,
    /// See `restarts_max`.
    pub restart_period: u64,
    /// How long the actors may take to work off what is queued at the end.
    pub shutdown_deadline: u64,
}

impl Default for Supervision {
    fn default() -> Self {
        Self { ping_interval: 60, silent_after: 120, restarts_max: 5, restart_period: 600, shutdown_deadline: 10 }
    }
}

impl Supervision {
    /// The first value that cannot work.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        for (key, value, (least, most)) in [
            ("supervision.ping-interval", self.ping_interval, (1, 3600)),
            ("supervision.silent-after", self.silent_after, (2, 86_400)),
            ("supervision.restarts-max", self.restarts_max as u64, (1, 1000)),
            ("supervision.restart-period", self.restart_period, (1, 86_400)),
            ("supervision.shutdown-deadline", self.shutdown_deadline, (1, 300)),
        ] {
            if !(least..=most).contains(&value) {
                return Err(Invalid::new(key, value, format!("write a number between {least} and {most}")));
            }
        }
        if self.silent_after <= self.ping_interval {
            let advice = format!("write more than supervision.ping-interval ({}), else an actor is replaced before it was asked", self.ping_interval);
            return Err(Invalid::new("supervision.silent-after", self.silent_after, advice));
        }
        Ok(())
    }

    /// The numbers by which a supervisor acts.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let standard = Policy::default();
        let ping_every = Duration::from_secs(self.ping_interval);
        Policy {
            ping_every,
            silent_for: Duration::from_secs(self.silent_after),
            sweep_every: standard.sweep_every.min(ping_every),
            shutdown_for: Duration::from_secs(self.shutdown_deadline),
            intensity: self.restarts_max,
            period: Duration::from_secs(self.restart_period),
            ..standard
        }
    }
}

/// A daemon, as far as its page differs from another one's.
pub trait Daemon: Clone + std::fmt::Debug + PartialEq + Eq {
    /// Where its page is when the configuration does not say.
    const PORT: u16;
}

/// `admin.*`: where the page listens and who may use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default, bound = "D: Daemon")]
pub struct Admin<D> {
    /// A loopback address, or another one with `token_file` or `client_ca_file`.
    pub address: IpAddr,
    /// Its port; 0 lets the system choose.
    pub port: u16,
    /// Whether faults may be caused on purpose through the page.
    pub fault_injection: bool,
    /// File with the token that a request has to carry; empty: none.
    pub token_file: PathBuf,
    /// PEM certificate of the page; empty: no TLS. Goes with `client_ca_file`.
    pub tls_cert_file: PathBuf,
    /// Its key.
    pub tls_key_file: PathBuf,
    /// PEM authority of the administrators' certificates; empty: none is asked for.
    pub client_ca_file: PathBuf,
    /// Further host names by which the page may be called.
    pub hosts: Vec<String>,
    #[serde(skip)]
    daemon: PhantomData<D>,
}

impl<D: Daemon> Default for Admin<D> {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: D::PORT,
            fault_injection: false,
            token_file: PathBuf::new(),
            tls_cert_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            client_ca_file: PathBuf::new(),
            hosts: Vec::new(),
            daemon: PhantomData,
        }
    }
}

impl<D: Daemon> Admin<D> {
    /// The first value that cannot work.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        let given = |path: &PathBuf| !path.as_os_str().is_empty();
        let (token, clients) = (given(&self.token_file), given(&self.client_ca_file));
        if !self.address.is_loopback() && !token && !clients {
            let advice = "whoever reaches this address could use the page: write a loopback address such as 127.0.0.1, or set admin.token-file, \
                          or admin.client-ca-file";
            return Err(Invalid::new("admin.address", self.address, advice));
        }
        if token && clients {
            let advice = "a visitor has one way in: set admin.client-ca-file or admin.token-file, and empty the other";
            return Err(Invalid::new("admin.token-file", self.token_file.display(), advice));
        }
        match (given(&self.tls_cert_file), given(&self.tls_key_file)) {
            (true, false) => {
                return Err(Invalid::new("admin.tls-key-file", "", "name the key of admin.tls-cert-file, or empty both"));
            }
            (false, true) => {
                return Err(Invalid::new("admin.tls-cert-file", "", "name the certificate of admin.tls-key-file, or empty both"));
            }
            (false, false) if clients => {
                let advice = "certificates of administrators need TLS: set admin.tls-cert-file and admin.tls-key-file too";
                return Err(Invalid::new("admin.client-ca-file", self.client_ca_file.display(), advice));
            }
            (true, true) if !clients => {
                let advice = "the page has TLS together with certificates of administrators only: set admin.client-ca-file too, or empty \
                              admin.tls-cert-file and admin.tls-key-file and put a proxy in front of the page";
                return Err(Invalid::new("admin.client-ca-file", "", advice));
            }
            (false, false) | (true, true) => {}
        }
        let is_host = |host: &str| !host.is_empty() && host.len() <= 253 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
        if let Some(host) = self.hosts.iter().find(|host| !is_host(host)) {
            return Err(Invalid::new("admin.hosts", host, "write host names or addresses, without port and path"));
        }
        Ok(())
    }

    /// Where the page listens.
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Who may come in.
    ///
    /// # Errors
    /// [`AccessError::Certificates`]. The token's file is read when the page is bound.
    pub fn access(&self) -> Result<Access, AccessError> {
        if !self.client_ca_file.as_os_str().is_empty() {
            return client_certificates(&self.tls_cert_file, &self.tls_key_file, &self.client_ca_file);
        }
        if !self.token_file.as_os_str().is_empty() {
            return Ok(Access::Token(self.token_file.clone()));
        }
        Ok(Access::Loopback)
    }
}

/// `log.*`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or env_logger's `module=level,…`. `RUST_LOG` wins.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}

impl Log {
    /// Whether the level can be understood.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        crate::logging::check(self.level.trim()).map_err(|why| {
            Invalid::new("log.level", &self.level, format!("{why}; write error, warn, info, debug, trace or off, or pairs module=level"))
        })
    }

    /// Sets up the log of this process at this level, or as `RUST_LOG` says. `quiet`: see [`LogControl::init`].
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn init(&self, quiet: &'static str) -> Result<LogControl, LogError> {
        let Some(wanted) = rust_log() else { return LogControl::init(&self.level, quiet) };
        match LogControl::init(&wanted, quiet) {
            Err(LogError::Filter(why)) => {
                let control = LogControl::init(&self.level, quiet)?;
                log::warn!(reason:% = why; "RUST_LOG cannot be used, log.level is");
                Ok(control)
            }
            done => done,
        }
    }

    /// Goes on at this level, unless `RUST_LOG` holds the log. The level has been [checked](Self::check).
    pub fn apply(&self, control: &LogControl) {
        if rust_log().is_some() {
            log::warn!("log.level has changed, but RUST_LOG is set and wins");
        } else if let Err(error) = control.set(&self.level) {
            log::error!(error:% = error; "log.level was not applied");
        }
    }
}

fn rust_log() -> Option<String> {
    std::env::var("RUST_LOG").ok().filter(|wanted| !wanted.trim().is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Tested;
    impl Daemon for Tested {
        const PORT: u16 = 1;
    }

    #[test]
    fn an_actor_must_be_asked_before_it_counts_as_silent() {
        let keys = Supervision { ping_interval: 60, silent_after: 60, ..Supervision::default() };
        assert_eq!(keys.check().unwrap_err().key, "supervision.silent-after");
        assert_eq!(Supervision { silent_after: 61, ..keys }.check(), Ok(()));
        assert_eq!(Supervision { ping_interval: 0, ..Supervision::default() }.check().unwrap_err().key, "supervision.ping-interval");
        assert_eq!(Supervision { restarts_max: 0, ..Supervision::default() }.check().unwrap_err().key, "supervision.restarts-max");
        assert_eq!(Supervision { shutdown_deadline: 301, ..Supervision::default() }.check().unwrap_err().key, "supervision.shutdown-deadline");
    }

    #[test]
    fn the_default_keys_are_the_default_policy() {
        assert_eq!(Supervision::default().policy(), Policy::default());
        let quick = Supervision { ping_interval: 1, silent_after: 2, ..Supervision::default() };
        assert_eq!(quick.policy().sweep_every, Duration::from_secs(1), "silence is found within the time in which it counts");
    }

    #[test]
    fn a_page_that_others_reach_needs_a_token_or_certificates() {
        let open = Admin::<Tested> { address: [0, 0, 0, 0].into(), ..Admin::default() };
        assert_eq!(open.check().unwrap_err().key, "admin.address");
        assert_eq!(Admin { token_file: "/t".into(), ..open.clone() }.check(), Ok(()));
        let clients = Admin { client_ca_file: "/ca".into(), ..open };
        assert_eq!(clients.check().unwrap_err().key, "admin.client-ca-file");
        let half = Admin { tls_cert_file: "/c".into(), ..clients };
        assert_eq!(half.check().unwrap_err().key, "admin.tls-key-file");
        let whole = Admin { tls_key_file: "/k".into(), ..half };
        assert_eq!(whole.check(), Ok(()));
        assert_eq!(Admin { token_file: "/t".into(), ..whole.clone() }.check().unwrap_err().key, "admin.token-file");
        assert_eq!(Admin { client_ca_file: "".into(), token_file: "/t".into(), ..whole }.check().unwrap_err().key, "admin.client-ca-file");
        assert_eq!(Admin::<Tested> { hosts: vec!["edge-1".into(), "a/b".into()], ..Admin::default() }.check().unwrap_err().key, "admin.hosts");
    }

    #[test]
    fn a_level_is_a_word_or_pairs() {
        for level in ["info", "DEBUG", "off", "warn,skep_edge::twin=trace", "skep_edge=debug,mqtt5=warn"] {
            assert_eq!(Log { level: level.into() }.check(), Ok(()), "{level}");
        }
        for level in ["", "loud", "skep_edge", "skep_edge=loud", "=info", "info,"] {
            assert!(Log { level: level.into() }.check().is_err(), "{level}");
        }
    }
}
