//! What systemd is told: READY, WATCHDOG while the actors are well, STATUS in one line, STOPPING.
//!
//! Without `NOTIFY_SOCKET` nothing is sent.

use std::time::Duration;

use actor::{Health, Registry};
use sd_notify::NotifyState;

/// Says that the daemon is up.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the daemon is going down.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog at half its period as long as the supervisor has not given up, and says how things stand.
pub async fn watch(registry: Registry) {
    let every = sd_notify::watchdog_enabled().map_or(Duration::from_secs(10), |period| (period / 2).max(Duration::from_millis(100)));
    let mut tick = tokio::time::interval(every);
    let mut said = String::new();
    loop {
        tick.tick().await;
        let health = registry.health();
        if !matches!(health, Health::Red(_)) {
            tell(&[NotifyState::Watchdog]);
        }
        let status = match health {
            Health::Green => "all actors are up".to_owned(),
            Health::Yellow(why) | Health::Red(why) => why,
        };
        if status != said {
            tell(&[NotifyState::Status(&status)]);
            said = status;
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!(error = error.to_string().as_str(); "systemd was not told");
    }
}
