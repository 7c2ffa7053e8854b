//! Takes over what another database has: KubeEdge's `edge.db` (v0.2 and later), or a damaged one of ours.
//!
//! Read → [`plan`](mod@plan) (pure rules for each row) → one transaction. A row that cannot be taken is left out and named
//! with its reason; nothing else is left out. What the cloud must hear of, because only this node knows it, is noted as
//! not yet reported in the same transaction.

mod plan;
mod report;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;

use actor::{Fence, MsgId, chain};
use admin::Exit;
use model::{Clock as _, SystemClock, Timestamp};

use crate::config::EdgeConfig;
use crate::store::{Damage, Foreign, ForeignError, Store, StoreError, scratch};
use write::Writer;

pub use report::{Report, Tally};

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source.
    #[error(transparent)]
    Source(#[from] ForeignError),
    /// The target.
    #[error("nothing was imported")]
    Target(#[from] StoreError),
}

/// What happens to a row that is in the target already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays.
    Keep,
    /// It is replaced, unless it is a property whose version is newer: versions never go back.
    Replace,
}

/// Takes over everything in `source`, in one transaction.
///
/// # Errors
/// [`ImportError`]; the target then is as it was.
pub fn import(store: &Store, source: &mut Foreign, existing: Existing, now: Timestamp) -> Result<Report, ImportError> {
    let mut report = Report::default();
    let plan = plan::plan(source, now, &mut report)?;
    store.write(&Fence::unfenced(), |tx| Writer { existing, now, cause: MsgId::fresh(), report: &mut report }.write(tx, &plan))?;
    Ok(report)
}

/// `skep-edge import`: checks, claims the database that no daemon may use meanwhile, and imports.
///
/// # Errors
/// [`Exit`] with its code.
pub fn command(config: &EdgeConfig, from: &Path, existing: Existing, damage: Damage) -> Result<Report, Exit> {
    let database = config.database();
    crate::wiring::prepare_directory(&config.data_dir)?;
    let _claim = admin::claim(&database)?;
    let mut source = Foreign::open(from, &scratch(&database), damage).map_err(|error| unusable(&error))?;
    let store = Store::open_limited(&database, config.database_bytes_max()).map_err(|error| Exit::State(chain(&error)))?;
    import(&store, &mut source, existing, SystemClock.now()).map_err(|error| match &error {
        ImportError::Source(error) => unusable(error),
        ImportError::Target(_) => Exit::State(chain(&error)),
    })
}

fn unusable(error: &ForeignError) -> Exit {
    let text = error.to_string();
    match error {
        ForeignError::Unreadable { .. } => Exit::NoInput(text),
        ForeignError::TooLarge { .. } | ForeignError::Damaged { .. } | ForeignError::Stranger { .. } => Exit::Data(text),
        ForeignError::Copy { .. } | ForeignError::Busy { .. } | ForeignError::Query { .. } => Exit::State(text),
    }
}

/// Takes over what can be read of the damaged database that was set aside when `store` was opened, and says so in one
/// sentence; the details are logged. The store is of use whatever comes of it.
pub fn salvage(store: &Store, damaged: &Path, now: Timestamp) -> String {
    let result = Foreign::open(damaged, &scratch(store.path()), Damage::Accept)
        .map_err(ImportError::from)
        .and_then(|mut source| import(store, &mut source, Existing::Keep, now));
    match result {
        Ok(report) => {
            log::warn!("what was taken from the damaged database:\n{report}");
            format!(
                "{} devices, {} properties and {} objects could be taken from it",
                report.devices.imported, report.properties.imported, report.objects.imported
            )
        }
        Err(error) => format!("nothing could be taken from it ({})", chain(&error)),
    }
}
