//! The one place where mailboxes meet: capacities, peers, start order, and the orderly stop.
//!
//! Start order: certificates → embedded API → kube client → actors under their supervisor → CloudHub → certificate
//! port → admin page. Stop order is the reverse: nobody new comes in while what is queued is still worked off.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::CloudConfig,
    exit::{Exit, chain},
    pki::{self, Pki},
};

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// See [`Exit`]; each ends the process with a stated code.
pub fn run(config: CloudConfig) -> Result<(), Exit> {
    actix_rt::System::new().block_on(serve(config))
}

/// A token with which an edge machine may join this cloud.
///
/// # Errors
/// [`Exit::Certificate`] where no service has run with this data directory.
pub fn token(config: &CloudConfig) -> Result<String, Exit> {
    let settings = pki_settings(config);
    Pki::token_from(&settings.dir, settings.token_life).map_err(|error| Exit::of_pki(&error))
}

fn pki_settings(config: &CloudConfig) -> pki::Config {
    let mut settings = pki::Config::new(config.pki_dir());
    settings.advertise.clone_from(&config.cloudhub.advertise_address);
    settings
}

async fn serve(config: CloudConfig) -> Result<(), Exit> {
    // First, so that a signal during start-up is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Exit::Io(format!("cannot listen for SIGTERM: {error}")))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Exit::Io(format!("cannot listen for SIGINT: {error}")))?;

    let certificates = Arc::new(Pki::open(pki_settings(&config)).map_err(|error| Exit::of_pki(&error))?);
    let (https, https_address) =
        pki::https::start(&config.https_address().to_string(), certificates.clone()).map_err(|error| Exit::Unavailable(chain(&error)))?;
    let https_handle = https.handle();
    actix_rt::spawn(https);
    log::info!(address = https_address.to_string().as_str(); "certificate port open");

    tokio::select! {
        _ = terminate.recv() => log::info!("stopping on SIGTERM"),
        _ = interrupt.recv() => log::info!("stopping on SIGINT"),
    }
    https_handle.stop(true).await;
    Ok(())
}
