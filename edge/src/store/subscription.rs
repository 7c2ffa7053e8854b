//! Table `sub_topics`: MQTT topic filters that the cloud has subscribed. They stand until the cloud ends them, over any number
//! of restarts (KubeEdge `eventbus/dao/subtopics.go`).

use diesel::prelude::*;

use super::error::query;
use super::schema::sub_topics::dsl;
use super::{Read, StoreError, Tx};

const TABLE: &str = "sub_topics";

/// Keeps a filter. One that is there already stays as it is.
///
/// # Errors
/// [`StoreError::Query`].
pub fn add(tx: &mut Tx<'_>, filter: &str) -> Result<(), StoreError> {
    diesel::insert_or_ignore_into(dsl::sub_topics).values(dsl::topic.eq(filter)).execute(tx.connection).map_err(query("write", TABLE))?;
    Ok(())
}

/// Forgets a filter. One that is not there is no error.
///
/// # Errors
/// [`StoreError::Query`].
pub fn remove(tx: &mut Tx<'_>, filter: &str) -> Result<(), StoreError> {
    diesel::delete(dsl::sub_topics.find(filter)).execute(tx.connection).map_err(query("delete from", TABLE))?;
    Ok(())
}

/// All filters, in the order of their text.
///
/// # Errors
/// [`StoreError::Query`].
pub fn all(read: &mut Read<'_>) -> Result<Vec<String>, StoreError> {
    dsl::sub_topics.select(dsl::topic).order(dsl::topic).load(read.connection).map_err(query("read", TABLE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use actor::Fence;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_filter_is_kept_once_over_a_restart_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path().join("edge.db")).unwrap();
        let store = open();
        for filter in ["b/#", "a/+", "b/#"] {
            store.write(&Fence::unfenced(), |tx| add(tx, filter)).unwrap();
        }
        drop(store);
        let store = open();
        assert_eq!(store.read(all).unwrap(), ["a/+", "b/#"]);
        for filter in ["b/#", "never/there"] {
            store.write(&Fence::unfenced(), |tx| remove(tx, filter)).unwrap();
        }
        assert_eq!(store.read(all).unwrap(), ["a/+"]);
    }
}
