//! SIGHUP: the configuration is read again, and what may change at run time is applied.
//!
//! | key | what follows |
//! |---|---|
//! | `log.level` | the log goes on at that level |
//! | `mailbox.*` | every mailbox has that room |
//! | `supervision.*` | the supervisors go on with those numbers |
//! | `modules.enabled` | sockets and engine are started or closed, and the actors behind the mailboxes are replaced |
//! | every other | is named in the log: it needs a restart |
//!
//! Invariant: a configuration that cannot be used changes nothing, and the daemon goes on.
//! Invariant: what waits for a module that is disabled is forgotten, and the log says how much; a module that is enabled
//! starts from the store.

use std::time::Duration;

use actor::{ChildSpec, ControlError, EventKind, Handle, Mail, Running, chain};
use admin::settings::differences;
use admin::systemd::{self, Patience};
use admin::{Exit, LogControl};

use crate::config::{ConfigError, EdgeConfig, Module};
use crate::edge_hub::Link;
use crate::edged::Engine;
use crate::event_bus::Sockets;
use crate::wiring::{Modules, identity, open_engine, start_link, start_mqtt, waiting};

/// How long the last words of a socket may take through the mailbox of its module.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Name under which the page shows what was done.
const WHO: &str = "skep-edge";

/// The running daemon, as far as a changed configuration concerns it.
pub struct Reload {
    modules: Modules,
    running: Running,
    patience: Patience,
    log: LogControl,
    reread: Box<dyn Fn() -> Result<EdgeConfig, ConfigError>>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Module(Exit),
    #[error("the daemon is stopping")]
    Stopping(#[from] ControlError),
}

/// What a module that is to be enabled needs beside its actor. Made before anything is changed.
#[derive(Default)]
struct Prepared {
    mqtt: Option<Sockets>,
    link: Option<Link>,
    engine: Option<Engine>,
}

impl Reload {
    /// Over the modules that run.
    pub fn new(
        modules: Modules,
        running: Running,
        patience: Patience,
        log: LogControl,
        reread: Box<dyn Fn() -> Result<EdgeConfig, ConfigError>>,
    ) -> Self {
        Self { modules, running, patience, log, reread }
    }

    /// Reads the configuration and applies it.
    pub async fn now(&mut self) {
        systemd::reloading();
        let registry = self.running.registry();
        match self.apply().await {
            Ok(text) => registry.note(WHO, EventKind::Configured, text),
            Err(refused) => {
                let reason = chain(&refused);
                log::error!(reason = reason.as_str(); "SIGHUP: the configuration cannot be used, nothing is changed");
                registry.note(WHO, EventKind::Configured, format!("nothing is changed: {reason}"));
            }
        }
        systemd::ready();
    }

    /// Returns what was done, in words.
    async fn apply(&mut self) -> Result<String, Refused> {
        let new = (self.reread)()?;
        let changed = differences(&self.modules.config, &new);
        let (now, later): (Vec<String>, Vec<String>) = changed.into_iter().partition(|key| is_applied(key));
        if now.iter().any(|key| key == "modules.enabled") {
            self.switch(&new).await?;
        }
        let config = &mut self.modules.config;
        if config.supervision != new.supervision {
            config.supervision = new.supervision;
            let policy = config.supervision.policy();
            self.patience.set(&policy);
            self.running.set_policy(policy);
        }
        config.mailbox = new.mailbox;
        self.modules.mail.set_limits(&config.mailbox);
        if config.log != new.log {
            config.log = new.log;
            config.log.apply(&self.log);
        }
        let mut text = match now.is_empty() {
            true => "nothing to apply".to_owned(),
            false => format!("applied: {}", now.join(", ")),
        };
        log::info!(applied = now.join(", ").as_str(); "SIGHUP: configuration read again");
        if !later.is_empty() {
            log::warn!(keys = later.join(", ").as_str(); "these keys have changed and need a restart");
            text = format!("{text}; needs a restart: {}", later.join(", "));
        }
        Ok(text)
    }

    // ---- modules -----------------------------------------------------------------------------------------------------

    async fn switch(&mut self, new: &EdgeConfig) -> Result<(), Refused> {
        let old = self.modules.config.clone();
        let on = |module| new.runs(module) && !old.runs(module);
        let off = |module| !new.runs(module) && old.runs(module);
        let prepared = self.prepare(&on).map_err(Refused::Module)?;

        let (mail, beside) = (self.modules.mail.clone(), self.modules.beside.clone());
        self.modules.config.modules = new.modules.clone();
        // Who gives to others goes first and comes last, as at the end and at the start.
        if off(Module::Edged) {
            beside.leave_engine();
            self.disable(&mail.edged).await?;
        }
        if off(Module::MetaManager) {
            self.disable(&mail.meta_manager).await?;
        }
        if off(Module::WebSocket) {
            beside.close_link().await;
            // That the cloud is away must still reach the others.
            let _ = tokio::time::timeout(LAST_WORDS, mail.edge_hub.until(mail.edge_hub.ticket())).await;
            self.disable(&mail.edge_hub).await?;
        }
        if off(Module::EventBus) {
            beside.close_mqtt().await;
            self.disable(&mail.event_bus).await?;
        }
        if let Some(mqtt) = prepared.mqtt {
            *beside.mqtt() = Some(mqtt);
            self.enable(self.modules.event_bus()).await?;
        }
        let is_moved = |module| on(module) || off(module);
        if let Some(link) = prepared.link {
            *beside.link() = Some(link);
            self.enable(self.modules.edge_hub()).await?;
        } else if new.runs(Module::WebSocket) && (is_moved(Module::EventBus) || is_moved(Module::Edged)) {
            // It has to know who is there.
            self.running.replace(self.modules.edge_hub()).await?;
        }
        if on(Module::MetaManager) {
            self.enable(self.modules.meta_manager()).await?;
        } else if new.runs(Module::MetaManager) && is_moved(Module::Edged) {
            self.running.replace(self.modules.meta_manager()).await?;
        }
        if let Some(engine) = prepared.engine {
            *beside.engine() = Some(engine);
            self.enable(self.modules.edged()).await?;
            beside.watch_engine();
            if self.modules.config.read_only().is_some() {
                log::info!("the read-only endpoint /pods opens at the next start");
            }
        }
        // Who was not there when the session began hears of it.
        if let Some(link) = beside.link().as_ref() {
            link.say_again();
        }
        Ok(())
    }

    /// Whatever can fail, before anything is changed.
    fn prepare(&self, on: &impl Fn(Module) -> bool) -> Result<Prepared, Exit> {
        let (config, mail) = (&self.modules.config, &self.modules.mail);
        let mut prepared = Prepared::default();
        if on(Module::Edged) {
            prepared.engine = Some(open_engine(config, mail)?);
        }
        if on(Module::WebSocket) {
            identity(config)?;
        }
        if on(Module::EventBus) {
            prepared.mqtt = Some(start_mqtt(config, mail, &self.modules.store)?);
        }
        if on(Module::WebSocket) {
            prepared.link = Some(start_link(config, mail)?);
        }
        Ok(prepared)
    }

    async fn enable(&self, spec: ChildSpec) -> Result<(), ControlError> {
        let name = spec.name();
        self.running.replace(spec).await?;
        log::info!(module = name; "module enabled");
        Ok(())
    }

    async fn disable<M: Mail>(&self, mailbox: &Handle<M>) -> Result<(), ControlError> {
        let forgotten = waiting(mailbox);
        self.running.replace(ChildSpec::disabled(mailbox)).await?;
        log::info!(module = mailbox.name(), forgotten = forgotten; "module disabled; what waited for it is forgotten");
        Ok(())
    }
}

/// Whether a change of this key takes effect at run time.
fn is_applied(key: &str) -> bool {
    key == "modules.enabled" || ["log.", "mailbox.", "supervision."].iter().any(|group| key.starts_with(group))
}
