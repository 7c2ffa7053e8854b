use actor::MsgId;
use model::{Attribute, AttributeName, DeviceState, Namespace, ResourceKey, ResourceKind, Timestamp};

use super::*;
use crate::store::meta::StoredObject;

fn columns(fixture: &Fixture, table: &str) -> Vec<String> {
    fixture.cells(&format!("SELECT name AS value FROM pragma_table_info('{table}') ORDER BY cid"))
}

#[test]
fn the_first_columns_are_those_of_kubeedge_in_its_order() {
    let fixture = fixture();
    for (table, theirs) in [
        ("device", "id name description state last_online"),
        ("device_attr", "id deviceid name description value optional attr_type metadata"),
        (
            "device_twin",
            "id deviceid name description expected actual expected_meta actual_meta expected_version actual_version optional attr_type metadata",
        ),
        ("meta", "key type value"),
    ] {
        let theirs: Vec<_> = theirs.split(' ').collect();
        assert_eq!(columns(&fixture, table)[..theirs.len()], theirs, "{table}");
    }
}

#[test]
fn a_device_comes_back_as_it_was_written() {
    let fixture = fixture();
    let mut lamp = device("shop/lamp");
    lamp.attributes = [(AttributeName::new("model").unwrap(), Attribute { value: "m1".into(), optional: false, kind: "string".into() })].into();
    let mut both = property("20");
    both.actual = Some(TwinValue { value: String::new(), timestamp: Timestamp(9) });
    let tombstone =
        TwinProperty { kind: TwinType::Deleted, optional: false, actual_version: Some(TwinVersion { cloud: 1, edge: 1 }), ..TwinProperty::default() };
    lamp.twin = [(name("both"), both), (name("gone"), tombstone), (name("bare"), TwinProperty::default())].into_iter().collect();
    fixture.write(|tx| {
        device::insert(tx, &lamp)?;
        for (name, attribute) in &lamp.attributes {
            attribute::put(tx, &lamp.id, name, attribute)?;
        }
        for (name, property) in &lamp.twin.properties {
            twin::put(tx, &lamp.id, name, property)?;
        }
        Ok(())
    });
    let stored = fixture.store.read(|read| device::load(read, &lamp.id)).unwrap().unwrap();
    assert_eq!(stored.device, lamp);
    // The form that KubeEdge's tools read: '' where nothing is set, NULL in a tombstone.
    let row = |name: &str| {
        let cells = "coalesce(expected,'∅')||'|'||coalesce(actual,'∅')||'|'||coalesce(expected_meta,'∅')||'|'||coalesce(actual_meta,'∅')||'|'||expected_version||'|'||actual_version||'|'||optional||'|'||attr_type||'|'||metadata";
        fixture.cells(&format!("SELECT {cells} AS value FROM device_twin WHERE name='{name}'")).remove(0)
    };
    assert_eq!(row("both"), r#"20||{"timestamp":17}|{"timestamp":9}|{"cloud":3,"edge":4}||1|int|{}"#);
    assert_eq!(row("gone"), r#"∅|∅|∅|∅||{"cloud":1,"edge":1}|0|deleted|{}"#);
    assert_eq!(row("bare"), "||||||1|string|{}");
}

#[test]
fn a_row_that_is_written_again_keeps_its_id() {
    let fixture = fixture();
    let lamp = device("lamp");
    let ids = "SELECT group_concat(id || name || expected) AS value FROM device_twin";
    fixture.write(|tx| {
        device::insert(tx, &lamp)?;
        twin::put(tx, &lamp.id, &name("a"), &property("1"))?;
        twin::put(tx, &lamp.id, &name("b"), &property("1"))
    });
    fixture.write(|tx| twin::put(tx, &lamp.id, &name("a"), &property("2")));
    assert_eq!(fixture.cells(ids), ["1a2,2b1"]);
}

#[test]
fn a_state_is_stored_as_sent() {
    let fixture = fixture();
    fixture.write(|tx| {
        device::insert(tx, &device("lamp"))?;
        device::set_state(tx, &id("lamp"), &DeviceState::new("OnLine").unwrap(), "2026-01-01T00:00:00Z")
    });
    let stored = fixture.store.read(|read| device::row(read, &id("lamp"))).unwrap().unwrap().device;
    assert_eq!(stored.state.unwrap().as_str(), "OnLine");
    assert_eq!(stored.last_online, "2026-01-01T00:00:00Z");
}

#[test]
fn a_removed_device_leaves_no_row_anywhere_and_its_number_is_not_used_again() {
    let fixture = fixture();
    let lamp = device("lamp");
    let first = fixture.write(|tx| {
        let incarnation = device::insert(tx, &lamp)?;
        twin::put(tx, &lamp.id, &name("a"), &property("1"))?;
        let attribute = Attribute { value: "v".into(), optional: true, kind: "string".into() };
        attribute::put(tx, &lamp.id, &AttributeName::new("x").unwrap(), &attribute)?;
        pending_report::property(tx, &lamp.id, incarnation, &name("a"), Timestamp(1), MsgId::fresh())?;
        pending_report::state(tx, &lamp.id, incarnation, Timestamp(1), MsgId::fresh())?;
        Ok(incarnation)
    });
    assert!(fixture.write(|tx| device::remove(tx, &lamp.id)));
    assert!(!fixture.write(|tx| device::remove(tx, &lamp.id)));
    for table in ["device", "device_attr", "device_twin", "pending_report"] {
        assert_eq!(fixture.cells(&format!("SELECT count(*)||'' AS value FROM {table}")), ["0"], "{table}");
    }
    let second = fixture.write(|tx| device::insert(tx, &lamp));
    assert!(second > first);
    assert_eq!(fixture.store.read(|read| device::incarnation(read, &lamp.id)).unwrap(), Some(second));
}

#[test]
fn a_property_that_changes_often_is_reported_once_and_a_confirmation_settles_no_later_change() {
    let fixture = fixture();
    let (lamp, other) = (id("lamp"), id("other"));
    let note = |device: &DeviceId, property: &str| {
        let cause = MsgId::fresh();
        fixture.write(|tx| {
            let incarnation = device::incarnation(tx, device)?.unwrap();
            pending_report::property(tx, device, incarnation, &name(property), Timestamp(1), cause)
        });
        cause
    };
    let pending = |device: &DeviceId| fixture.store.read(|read| pending_report::of_device(read, device)).unwrap();
    fixture.write(|tx| {
        device::insert(tx, &device("lamp"))?;
        device::insert(tx, &device("other"))
    });
    note(&other, "t");
    for _ in 0..5 {
        note(&lamp, "t");
    }
    let sent: Vec<_> = pending(&lamp).properties.iter().map(|(_, change)| change.seq).collect();
    assert_eq!(sent.len(), 1);
    let last = note(&lamp, "t");
    assert_eq!(pending(&lamp).properties[0].1.cause, Some(last), "the message that changed it last");
    assert_eq!(fixture.write(|tx| pending_report::settle(tx, &sent)), 0);
    let sent: Vec<_> = pending(&lamp).properties.iter().map(|(_, change)| change.seq).collect();
    assert_eq!(fixture.store.read(|read| pending_report::devices(read, 10, |_| true)).unwrap(), [other.clone(), lamp.clone()]);
    assert_eq!(fixture.store.read(|read| pending_report::devices(read, 1, |_| true)).unwrap(), [other]);
    assert_eq!(fixture.write(|tx| pending_report::settle(tx, &sent)), 1);
    assert_eq!(pending(&lamp), Default::default());
    assert_eq!(fixture.store.read(pending_report::count).unwrap(), 1);
}

#[test]
fn a_report_for_an_unknown_device_is_refused() {
    let fixture = fixture();
    let result =
        fixture.store.write(&Fence::unfenced(), |tx| pending_report::state(tx, &id("nobody"), device::Incarnation(1), Timestamp(1), MsgId::fresh()));
    assert!(matches!(result, Err(StoreError::Query { table: "pending_report", .. })));
}

#[test]
fn an_object_is_replaced_listed_by_kind_and_deleted_by_key() {
    let fixture = fixture();
    let object = |key: &str, version: &str| StoredObject {
        key: key.parse().unwrap(),
        value: format!(r#"{{"version":"{version}"}}"#),
        uid: Some("u1".into()),
        resource_version: Some(version.into()),
        stored_at: Timestamp(5),
    };
    let web: ResourceKey = "default/pod/web".parse().unwrap();
    fixture.write(|tx| {
        for (key, version) in [("default/pod/web", "1"), ("shop/pod/web", "2"), ("default/configmap/web", "3"), ("default/pod/web", "4")] {
            meta::put(tx, &object(key, version))?;
        }
        Ok(())
    });
    let read = |namespace: Option<&Namespace>| {
        let pods = fixture.store.read(|read| meta::list(read, ResourceKind::Pod, namespace)).unwrap();
        pods.into_iter().map(|pod| pod.resource_version.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(read(None), ["4", "2"]);
    assert_eq!(read(Some(&Namespace::new("shop").unwrap())), ["2"]);
    assert_eq!(fixture.store.read(|read| meta::get(read, &web)).unwrap(), Some(object("default/pod/web", "4")));
    assert_eq!(fixture.store.read(|read| meta::held(read, ResourceKind::ALL)).unwrap().len(), 3);
    assert_eq!(fixture.cells("SELECT key||'|'||type||'|'||value AS value FROM meta WHERE key LIKE 'shop%'"), [r#"shop/pod/web|pod|{"version":"2"}"#]);
    assert!(fixture.write(|tx| meta::delete(tx, &web)));
    assert!(!fixture.write(|tx| meta::delete(tx, &web)));
}

#[test]
fn a_row_that_cannot_be_understood_is_named() {
    let fixture = fixture();
    fixture.write(|tx| {
        device::insert(tx, &device("lamp"))?;
        twin::put(tx, &id("lamp"), &name("t"), &property("1"))
    });
    for broken in [
        "expected_version = '{\"cloud\":'",
        "actual_meta = '[]', actual = 'x'",
        "attr_type = 'double'",
        "name = 'ü'",
        "expected_version = printf('%.*c', 100000, '[')",
    ] {
        fixture.write(|tx| {
            tx.connection.batch_execute(&format!("UPDATE device_twin SET {broken}")).unwrap();
            Ok(())
        });
        let error = fixture.store.read(|read| twin::load(read, &id("lamp"))).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{broken}: {error}");
        assert!(error.to_string().contains("lamp"), "{error}");
    }
}
