//! SIGHUP: a terminal that closes must not end a daemon.

use actix_web::rt;
use actix_web::rt::signal::unix::{SignalKind, signal};

use crate::Exit;

/// From now on SIGHUP is logged and otherwise ignored: by default it would end the process at once, without a word and
/// without an orderly stop. Must be called in an actix runtime.
///
/// # Errors
/// [`Exit::State`] when the operating system refuses to report signals.
pub fn outlive_hangup() -> Result<(), Exit> {
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| Exit::State(format!("cannot listen for SIGHUP: {error}")))?;
    rt::spawn(async move {
        while hangup.recv().await.is_some() {
            log::warn!("SIGHUP: nothing is reloaded, going on; restart to apply a changed configuration");
        }
    });
    Ok(())
}
