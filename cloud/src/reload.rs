//! SIGHUP: the configuration is read again, and what may change at run time is applied.
//!
//! | key | what follows |
//! |---|---|
//! | `log.level` | the log goes on at that level |
//! | `mailbox.*` | every mailbox has that room |
//! | `supervision.*` | the supervisor goes on with those numbers |
//! | `cloudhub.node-limit`, `.keepalive-interval`, `.write-timeout` | from the next look at the sessions on |
//! | every other | is named in the log: it needs a restart |
//!
//! Invariant: a configuration that cannot be used changes nothing, and the service goes on.

use std::sync::Arc;
use std::time::Duration;

use actor::{EventKind, Running};
use admin::settings::differences;
use admin::systemd::{self, Patience};
use admin::{Exit, LogControl};

use crate::cloud_hub::{Hub, Tuning};
use crate::config::CloudConfig;
use crate::limits;
use crate::wiring::Mailboxes;

/// Keys and groups that are applied.
const APPLIED: [&str; 6] = ["log.", "mailbox.", "supervision.", "cloudhub.node-limit", "cloudhub.keepalive-interval", "cloudhub.write-timeout"];
/// Name under which the page shows what was done.
const WHO: &str = "skep-cloud";

/// Gives the configuration anew.
pub type Reread = Box<dyn Fn() -> Result<CloudConfig, Exit>>;

/// The running service, as far as a changed configuration concerns it.
pub struct Reload {
    config: CloudConfig,
    mail: Mailboxes,
    hub: Arc<Hub>,
    running: Running,
    patience: Patience,
    log: LogControl,
    reread: Reread,
}

impl Reload {
    /// Over the modules that run with `config`.
    pub fn new(config: CloudConfig, mail: Mailboxes, hub: Arc<Hub>, running: Running, patience: Patience, log: LogControl, reread: Reread) -> Self {
        Self { config, mail, hub, running, patience, log, reread }
    }

    /// Reads the configuration and applies it.
    pub fn now(&mut self) {
        systemd::reloading();
        let text = match (self.reread)() {
            Ok(new) => self.apply(new),
            Err(refused) => {
                let reason = refused.to_string();
                log::error!(reason = reason.as_str(); "SIGHUP: the configuration cannot be used, nothing is changed");
                format!("nothing is changed: {reason}")
            }
        };
        self.running.registry().note(WHO, EventKind::Configured, text);
        systemd::ready();
    }

    /// Returns what was done, in words.
    fn apply(&mut self, new: CloudConfig) -> String {
        let (now, later): (Vec<String>, Vec<String>) =
            differences(&self.config, &new).into_iter().partition(|key| APPLIED.iter().any(|applied| key.starts_with(applied)));
        let config = &mut self.config;
        if config.supervision != new.supervision {
            config.supervision = new.supervision;
            let policy = config.supervision.policy();
            self.patience.set(&policy);
            self.running.set_policy(policy);
        }
        config.mailbox = new.mailbox;
        self.mail.set_limits(&config.mailbox);
        if config.log != new.log {
            config.log = new.log;
            config.log.apply(&self.log);
        }
        let hub = &mut config.cloudhub;
        hub.keepalive_interval = new.cloudhub.keepalive_interval;
        hub.write_timeout = new.cloudhub.write_timeout;
        if hub.node_limit != new.cloudhub.node_limit {
            hub.node_limit = new.cloudhub.node_limit;
            limits::raise_open_files(hub.node_limit);
        }
        let wanted = tuning(&self.config);
        let tuned = self.hub.tune(wanted);
        if tuned != wanted {
            log::warn!(wanted = wanted.node_limit, applied = tuned.node_limit; "cloudhub.node-limit is raised as far as it can be without a restart");
        }
        let mut text = if now.is_empty() { "nothing to apply".to_owned() } else { format!("applied: {}", now.join(", ")) };
        log::info!(applied = now.join(", ").as_str(); "SIGHUP: configuration read again");
        if !later.is_empty() {
            log::warn!(keys = later.join(", ").as_str(); "these keys have changed and need a restart");
            text = format!("{text}; needs a restart: {}", later.join(", "));
        }
        text
    }
}

/// Of the configuration, what CloudHub takes over at run time.
fn tuning(config: &CloudConfig) -> Tuning {
    Tuning {
        keepalive: Duration::from_secs(config.cloudhub.keepalive_interval),
        write_timeout: Duration::from_secs(config.cloudhub.write_timeout),
        node_limit: config.cloudhub.node_limit,
    }
}
