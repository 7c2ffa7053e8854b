//! The controller against the embedded API.

#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

use model::{DeviceId, DeviceState, PropertyName, Timestamp, TwinProperty, TwinType, TwinValue, TwinVersion};
use serde_json::{Value, json};
use wire::hub::{Downstream as Body, Frame, OutboxKey, Upstream as Said};
use wire::mqtt::payload::{DeviceStateReport, TwinReport};

use super::DeviceControllerMessage;
use crate::cluster::{self, Part};
use crate::testing::{World, node, said};

fn lamp() -> DeviceId {
    DeviceId::new("lamp").unwrap()
}

fn report(property: &str, actual: &str) -> Frame<Said> {
    let twin = TwinProperty {
        actual: Some(TwinValue { value: actual.into(), timestamp: Timestamp(5) }),
        actual_version: Some(TwinVersion { cloud: 0, edge: 1 }),
        kind: TwinType::Int,
        ..TwinProperty::default()
    };
    let report = TwinReport { properties: [(PropertyName::new(property).unwrap(), twin)].into(), ..TwinReport::default() };
    said(Said::TwinReport { device: lamp(), report })
}

impl World {
    fn of_device(&self, name: &str, frame: &Frame<Said>) {
        assert!(
            self.devices.try_send(DeviceControllerMessage::FromEdge { node: node(name), frame: frame.clone(), credit: Default::default() }).is_ok()
        );
    }

    async fn ask_of_device(&self, name: &str, frame: &Frame<Said>) -> Body {
        self.of_device(name, frame);
        self.answer(name, frame).await
    }

    async fn lamp(&self) -> Value {
        self.create(&cluster::DEVICE_MODEL, json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "m", "namespace": "default"},
            "spec": {"protocol": "mqtt", "properties": [{"name": "temp", "type": "INT", "accessMode": "ReadWrite"}, {"name": "power", "type": "BOOLEAN", "accessMode": "ReadWrite"}]}}))
            .await;
        self.create(
            &cluster::DEVICE,
            json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "lamp", "namespace": "default"},
            "spec": {"deviceModelRef": {"name": "m"}, "nodeName": "n1", "protocol": {"protocolName": "mqtt"},
                "properties": [{"name": "temp", "desired": {"value": "20"}}, {"name": "power"}]}}),
        )
        .await
    }
}

fn is_lamp(frame: &Frame<Body>) -> bool {
    matches!(&frame.body, Body::MembershipUpdate(update) if update.added.iter().any(|entry| entry.id == lamp() && !entry.twin.is_empty()))
}

#[actix_rt::test]
async fn what_a_device_reports_is_in_its_status_before_it_is_confirmed() {
    let world = World::start().await;
    let device = world.lamp().await;
    world.told("n1", is_lamp).await;
    assert!(matches!(world.ask_of_device("n1", &report("temp", "21")).await, Body::Confirm { .. }));
    let status = world.cluster.get(&cluster::DEVICE_STATUS, Some("default"), "lamp").await.unwrap();
    assert_eq!(status["metadata"]["ownerReferences"][0]["uid"], device["metadata"]["uid"]);
    assert_eq!(
        status["status"]["twins"],
        json!([{"propertyName": "temp", "reported": {"value": "21", "metadata": {"timestamp": "5", "type": "int"}}}])
    );
    // Many at once: one object, each of them confirmed, the last one counts.
    let frames: Vec<Frame<Said>> = (0..20).map(|value| report("temp", &value.to_string())).chain([report("power", "true")]).collect();
    frames.iter().for_each(|frame| world.of_device("n1", frame));
    let mut parents = Vec::new();
    while parents.len() < frames.len() {
        parents.extend(world.told("n1", |frame| matches!(frame.body, Body::Confirm { .. })).await.parent);
    }
    assert!(frames.iter().all(|frame| parents.contains(&frame.id)));
    let status = world.cluster.get(&cluster::DEVICE_STATUS, Some("default"), "lamp").await.unwrap();
    let values: Vec<&str> = status["status"]["twins"].as_array().unwrap().iter().map(|twin| twin["reported"]["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["19", "true"]);

    let state = DeviceStateReport {
        event_id: "e".into(),
        timestamp: Timestamp(1),
        uid: String::new(),
        name: "lamp".into(),
        state: DeviceState::new("online").unwrap(),
        last_online: "2026-01-01T00:00:00Z".into(),
    };
    let state = said(Said::DeviceStateReport { device: lamp(), report: state });
    assert!(matches!(world.ask_of_device("n1", &state).await, Body::Confirm { .. }));
    let status = world.cluster.get(&cluster::DEVICE_STATUS, Some("default"), "lamp").await.unwrap();
    assert_eq!((&status["status"]["state"], &status["status"]["lastOnlineTime"]), (&json!("online"), &json!("2026-01-01T00:00:00Z")));
    assert_eq!(status["status"]["twins"].as_array().unwrap().len(), 2);
    world.stop().await;
}

#[actix_rt::test]
async fn a_status_that_somebody_else_changed_or_deleted_meanwhile_is_written_all_the_same() {
    let world = World::start().await;
    world.lamp().await;
    world.told("n1", is_lamp).await;
    world.ask_of_device("n1", &report("temp", "1")).await;
    let changed = world
        .cluster
        .patch(&cluster::DEVICE_STATUS, Some("default"), "lamp", Part::Main, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .unwrap();
    assert!(matches!(world.ask_of_device("n1", &report("temp", "2")).await, Body::Confirm { .. }));
    let uid = changed["metadata"]["uid"].as_str().unwrap();
    world.cluster.delete_now(&cluster::DEVICE_STATUS, Some("default"), "lamp", uid).await.unwrap();
    assert!(matches!(world.ask_of_device("n1", &report("temp", "3")).await, Body::Confirm { .. }));
    let status = world.cluster.get(&cluster::DEVICE_STATUS, Some("default"), "lamp").await.unwrap();
    assert_eq!(status["status"]["twins"][0]["reported"]["value"], "3");
    world.stop().await;
}

#[actix_rt::test]
async fn a_desired_value_goes_to_the_device_and_its_deletion_removes_it() {
    let world = World::start().await;
    let created = world.lamp().await;
    world.told("n1", is_lamp).await;
    let desired = json!({"spec": {"properties": [{"name": "temp", "desired": {"value": "23"}}, {"name": "power"}]}});
    let patched = world.cluster.patch(&cluster::DEVICE, Some("default"), "lamp", Part::Main, &desired).await.unwrap();
    let (to, key, frame) = world.next_send().await;
    assert_eq!((to.as_str(), key), ("n1", OutboxKey::Twin(lamp())));
    let Body::TwinSync { update, .. } = frame.body else { panic!("{frame:?}") };
    let model::PropertyChange::Set(temp) = &update.change.properties["temp"] else { panic!() };
    let version = patched["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert_eq!(temp.expected_version, Some(TwinVersion { cloud: version, edge: 0 }));
    assert_eq!(temp.expected.as_ref().unwrap().value, "23");

    let get = said(Said::MembershipGet { event_id: "123".into(), node: node("n1") });
    let Body::MembershipDetail(detail) = world.ask_of_device("n1", &get).await else { panic!() };
    assert_eq!((detail.event_id.as_str(), detail.devices.len(), detail.devices[0].twin.properties.len()), ("123", 1, 2));

    let uid = created["metadata"]["uid"].as_str().unwrap();
    world.cluster.delete_now(&cluster::DEVICE, Some("default"), "lamp", uid).await.unwrap();
    world.told("n1", |frame| matches!(&frame.body, Body::MembershipUpdate(update) if update.removed.len() == 1)).await;
    world.stop().await;
}

#[actix_rt::test]
async fn reports_for_foreign_and_unknown_devices_and_questions_of_others_are_refused() {
    let world = World::start().await;
    let answer = world.ask_of_device("n1", &report("temp", "1")).await;
    assert!(matches!(&answer, Body::Refusal { reason, .. } if reason.contains("lamp")), "{answer:?}");
    world.lamp().await;
    world.told("n1", is_lamp).await;
    assert!(matches!(world.ask_of_device("n2", &report("temp", "1")).await, Body::Refusal { .. }));
    assert!(world.cluster.get(&cluster::DEVICE_STATUS, Some("default"), "lamp").await.is_err());
    let get = said(Said::MembershipGet { event_id: "1".into(), node: node("n1") });
    assert!(matches!(world.ask_of_device("n2", &get).await, Body::Refusal { .. }));
    let own = said(Said::MembershipGet { event_id: "1".into(), node: node("n2") });
    let Body::MembershipDetail(detail) = world.ask_of_device("n2", &own).await else { panic!() };
    assert!(detail.devices.is_empty());
    world.stop().await;
}

#[actix_rt::test]
async fn a_late_report_of_a_deleted_device_is_not_in_the_status_of_its_successor() {
    let world = World::start().await;
    let first = world.lamp().await;
    world.told("n1", is_lamp).await;
    let of = |device: &Value, value: &str| {
        let mut frame = report("temp", value);
        let Said::TwinReport { report, .. } = &mut frame.body else { unreachable!() };
        report.uid = device["metadata"]["uid"].as_str().unwrap().to_owned();
        frame
    };
    assert!(matches!(world.ask_of_device("n1", &of(&first, "1")).await, Body::Confirm { .. }));
    let uid = first["metadata"]["uid"].as_str().unwrap();
    // One that the controller may still take for the living device, because it has not seen the deletion.
    world.cluster.delete_now(&cluster::DEVICE, Some("default"), "lamp", uid).await.unwrap();
    world.of_device("n1", &of(&first, "2"));
    let second = world
        .create(
            &cluster::DEVICE,
            json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "lamp", "namespace": "default"},
            "spec": {"deviceModelRef": {"name": "m"}, "nodeName": "n1", "properties": [{"name": "temp"}, {"name": "power"}]}}),
        )
        .await;
    let uid = second["metadata"]["uid"].as_str().unwrap();
    world.told("n1", |frame| matches!(&frame.body, Body::MembershipUpdate(update) if update.added.iter().any(|entry| entry.uid == uid))).await;
    assert!(matches!(world.ask_of_device("n1", &of(&first, "3")).await, Body::Refusal { .. }));
    let mut power = of(&second, "true");
    let Said::TwinReport { report, .. } = &mut power.body else { unreachable!() };
    let value = report.properties.remove("temp").unwrap();
    report.properties.insert(PropertyName::new("power").unwrap(), value);
    assert!(matches!(world.ask_of_device("n1", &power).await, Body::Confirm { .. }));
    let status = world.cluster.get(&cluster::DEVICE_STATUS, Some("default"), "lamp").await.unwrap();
    assert_eq!(status["metadata"]["ownerReferences"][0]["uid"], uid);
    let names: Vec<&str> = status["status"]["twins"].as_array().unwrap().iter().map(|twin| twin["propertyName"].as_str().unwrap()).collect();
    assert_eq!(names, ["power"], "nothing of the device that is gone");
    world.stop().await;
}

#[actix_rt::test]
async fn a_question_that_comes_before_the_devices_are_known_is_answered_when_they_are() {
    let mut world = World::start().await;
    world.lamp().await;
    world.told("n1", is_lamp).await;
    world.stop_api().await;
    world.running.restart("device_controller").await.unwrap();
    let get = said(Said::MembershipGet { event_id: "1".into(), node: node("n1") });
    world.of_device("n1", &get);
    world.restart_api().await;
    let Body::MembershipDetail(detail) = world.answer("n1", &get).await else { panic!() };
    assert_eq!(detail.devices.len(), 1, "never an empty list, which would delete the devices");
    world.stop().await;
}
