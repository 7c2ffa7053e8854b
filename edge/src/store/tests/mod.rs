#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod batch;
mod damage;
mod file;
mod operations;
mod tables;
mod transaction;

use actor::Fence;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use model::{Device, DeviceId, PropertyName, TwinProperty, TwinType, TwinValue, TwinVersion};
use tempfile::TempDir;

use super::testing::cells;
use super::*;

/// A store in a directory of its own.
struct Fixture {
    store: Store,
    directory: TempDir,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("edge.db")).unwrap();
    Fixture { store, directory }
}

impl Fixture {
    fn write<T>(&self, body: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> T {
        self.store.write(&Fence::unfenced(), body).unwrap()
    }

    /// All cells of a query, as a foreign reader of the file sees them; NULL is `∅`.
    fn cells(&self, sql: &str) -> Vec<String> {
        cells(&mut SqliteConnection::establish(self.store.path().to_str().unwrap()).unwrap(), sql)
    }
}

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

fn name(text: &str) -> PropertyName {
    PropertyName::new(text).unwrap()
}

fn device(id: &str) -> Device {
    Device {
        id: DeviceId::new(id).unwrap(),
        name: "Lamp".into(),
        description: "in the hall".into(),
        state: None,
        last_online: String::new(),
        attributes: Default::default(),
        twin: Default::default(),
    }
}

fn property(expected: &str) -> TwinProperty {
    TwinProperty {
        expected: Some(TwinValue { value: expected.into(), timestamp: model::Timestamp(17) }),
        expected_version: Some(TwinVersion { cloud: 3, edge: 4 }),
        kind: TwinType::Int,
        ..TwinProperty::default()
    }
}
