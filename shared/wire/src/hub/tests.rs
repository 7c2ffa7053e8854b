#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use model::{DeviceId, ResourceKey, Timestamp};
use proptest::prelude::*;
use serde_json::Value;

use super::codec::{FRAME_BYTES_MAX, decode, encode};
use super::*;
use crate::fixtures;
use crate::json::DEPTH_MAX;
use crate::mqtt::payload::{MembershipDetail, MembershipUpdate};

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn read<B: Body>(text: &str) -> Frame<B> {
    decode(text).unwrap()
}

/// Kind by name of the fixture: the longest kind that the name begins with.
fn kind_of(name: &str) -> &str {
    match name.strip_suffix("_v0").unwrap_or(name) {
        "ack_twin" => "ack",
        "event_update" => "event",
        "twin_report_namespaced" => "twin_report",
        "device_state_report_namespaced" => "device_state_report",
        "pod_insert" | "pod_delete" | "configmap_insert" | "secret_update" | "device_insert" => "object",
        "query_answer_error" | "node_answer" => "query_answer",
        "membership_detail_empty" => "membership_detail",
        "confirm_object" => "confirm",
        other => other,
    }
}

#[test]
fn every_upstream_fixture_is_read_as_its_kind_and_written_back_as_it_was() {
    for (name, text) in fixtures::UPSTREAM {
        let frame = read::<Upstream>(text);
        assert_eq!(frame.body.kind(), kind_of(name), "{name}");
        if !name.ends_with("_v0") {
            assert_eq!(value(&encode(&frame).unwrap()), value(text), "{name}");
        }
        assert_eq!(read::<Upstream>(&encode(&frame).unwrap()), frame, "{name}");
    }
}

#[test]
fn every_downstream_fixture_is_read_as_its_kind_and_written_back_as_it_was() {
    for (name, text) in fixtures::DOWNSTREAM {
        let frame = read::<Downstream>(text);
        assert_eq!(frame.body.kind(), kind_of(name), "{name}");
        if !name.ends_with("_v0") {
            assert_eq!(value(&encode(&frame).unwrap()), value(text), "{name}");
        }
        assert_eq!(read::<Downstream>(&encode(&frame).unwrap()), frame, "{name}");
    }
}

#[test]
fn the_forms_of_kubeedge_0_x_mean_the_same_as_the_newer_ones() {
    for (old, new) in
        [(fixtures::KEEPALIVE_V0, fixtures::KEEPALIVE), (fixtures::UPLOAD_V0, fixtures::UPLOAD), (fixtures::POD_STATUS_V0, fixtures::POD_STATUS)]
    {
        let (old, new) = (read::<Upstream>(old), read::<Upstream>(new));
        // The older pod status names its pod in the resource and carries no list.
        match (&old.body, &new.body) {
            (Upstream::PodStatus { reports: old, .. }, Upstream::PodStatus { reports: new, .. }) => {
                assert_eq!((&old[0].uid, &old[0].name), (&new[0].uid, &new[0].name));
            }
            (old, new) => assert_eq!(old, new),
        }
    }
    let (old, new) = (read::<Downstream>(fixtures::POD_INSERT_V0), read::<Downstream>(fixtures::POD_INSERT));
    let Downstream::Object { key, operation, .. } = old.body else { panic!("{old:?}") };
    let Downstream::Object { key: new_key, operation: new_operation, .. } = new.body else { panic!() };
    assert_eq!((key, operation), (new_key, new_operation));
}

#[test]
fn contents_are_read_as_object_or_as_string_with_json_in_it() {
    let mut envelope: Envelope = serde_json::from_str(fixtures::TWIN_REPORT).unwrap();
    let plain = Frame::<Upstream>::from_envelope(&envelope).unwrap();
    envelope.content = RawJson::from_str_value(envelope.content.as_str());
    assert_eq!(Frame::<Upstream>::from_envelope(&envelope).unwrap(), plain);
}

#[test]
fn an_acknowledgement_names_its_question_and_copies_its_route() {
    let pod = read::<Downstream>(fixtures::POD_INSERT);
    let ack = pod.ack(MsgId::new("a1").unwrap(), Timestamp(1_700_000_000_000)).with_resource_version("4711");
    assert_eq!(value(&encode(&ack).unwrap()), value(fixtures::ACK));
    let refusal = pod.refusal(MsgId::new("a3").unwrap(), Timestamp(1_700_000_000_000), "the pod has no containers");
    assert_eq!(value(&encode(&refusal).unwrap()), value(fixtures::UPSTREAM_REFUSAL));
    let report = read::<Upstream>(fixtures::TWIN_REPORT);
    let confirm = report.confirm(MsgId::new("f1").unwrap(), Timestamp(1_700_000_000_000));
    assert_eq!(value(&encode(&confirm).unwrap()), value(fixtures::CONFIRM));
    let status = read::<Upstream>(fixtures::POD_STATUS);
    let confirm = status.confirm(MsgId::new("f2").unwrap(), Timestamp(1_700_000_000_000));
    assert_eq!(value(&encode(&confirm).unwrap()), value(fixtures::CONFIRM_OBJECT));
}

#[test]
fn a_report_names_its_causes_and_a_peer_that_does_not_know_them_reads_the_rest() {
    let report = read::<Upstream>(fixtures::TWIN_REPORT);
    let causes: Vec<_> = report.cause.iter().map(MsgId::as_str).collect();
    assert_eq!(causes, ["a1b2c3d4-e5f6-4711-8abc-0123456789ab", "a1b2c3d4-e5f6-4711-8abc-0123456789ac"]);
    assert_eq!(report.parent, None, "KubeEdge would take it for an answer");
    let mut without = value(fixtures::TWIN_REPORT);
    without["header"].as_object_mut().unwrap().remove("cause");
    let without = read::<Upstream>(&without.to_string());
    assert_eq!((without.body, without.id), (report.body, report.id));

    let many = Frame::new(MsgId::random(), Timestamp(1), Upstream::Keepalive).with_cause((0..100).map(|n| MsgId::new(&format!("c{n}")).unwrap()));
    assert_eq!((many.cause.len(), many.cause[0].as_str(), many.cause[15].as_str()), (CAUSES_MAX, "c84", "c99"));
}

#[test]
fn the_head_of_a_frame_tells_a_secret_without_reading_it() {
    for (name, text) in fixtures::DOWNSTREAM {
        let head = codec::head(text).unwrap();
        let envelope: Envelope = serde_json::from_str(text).unwrap();
        assert_eq!((head.header, head.route), (envelope.header, envelope.route), "{name}");
        assert_eq!(head.is_secret, *name == "secret_update", "{name}");
    }
    let secret = fixtures::SECRET_UPDATE;
    let resource = "default/secret/tok";
    assert!(secret.contains(resource));
    for (to, is_secret) in [
        ("default\\/secret\\/tok", true),
        ("default/\\u0073ecret/tok", true),
        ("default/secret", true),
        ("default/serviceaccounttoken/tok", true),
        ("default/unheard-of/tok", true),
        ("x", true),
        ("default/configmap/secret", false),
    ] {
        assert_eq!(codec::head(&secret.replace(resource, to)).unwrap().is_secret, is_secret, "{to}");
    }
    for text in ["", "{", "[]", "{\"header\":7}", &"[".repeat(1000)] {
        assert_eq!(codec::head(text), None, "{text}");
    }
}

#[test]
fn an_answer_tells_object_reason_and_ok_apart() {
    let Downstream::QueryAnswer { result: Ok(object), .. } = read(fixtures::NODE_ANSWER).body else { panic!() };
    assert_eq!(object.to::<Value>().unwrap()["metadata"]["name"], "edge-1");
    let Downstream::QueryAnswer { result: Err(reason), .. } = read(fixtures::QUERY_ANSWER_ERROR).body else { panic!() };
    assert_eq!(reason, "configmaps \"cfg\" not found");
    let mut envelope: Envelope = serde_json::from_str(fixtures::NODE_ANSWER).unwrap();
    envelope.content = RawJson::from_text(r#"{"Object":null,"Err":{"ErrStatus":{"code":403}}}"#.into()).unwrap();
    let Downstream::QueryAnswer { result: Err(reason), .. } = Frame::from_envelope(&envelope).unwrap().body else { panic!() };
    assert!(reason.contains("403"));
}

#[test]
fn a_hostile_frame_is_refused_with_a_reason() {
    let deep = format!("{{\"content\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
    assert!(matches!(decode::<Upstream>(&deep), Err(DecodeError::TooDeep)));
    let huge = format!("{{\"content\":\"{}\"}}", "x".repeat(FRAME_BYTES_MAX));
    assert!(matches!(decode::<Upstream>(&huge), Err(DecodeError::TooLarge { .. })));
    for text in [
        "",
        "x",
        "null",
        "7",
        "[]",
        "\"{}\"",
        "{\"header\":7}",
        "{\"header\":[\"a\"]}",
        "{\"header\":{\"msg_id\":7}}",
        "{\"route\":{\"operation\":{}}}",
        "{\"header\":{\"timestamp\":\"1\"}}",
        "{\"header\":{\"timestamp\":1e300}}",
        "{\"header\":{\"msg_id\":\"a\"}",
        "{\"header\":{},\"header\":{}}",
    ] {
        assert!(matches!(decode::<Upstream>(text), Err(DecodeError::Envelope(_))), "{text}");
    }
    for text in ["{}", "{\"header\":{\"msg_id\":\"\"},\"route\":{\"operation\":\"keepalive\",\"resource\":\"node\"}}"] {
        assert!(matches!(decode::<Upstream>(text), Err(DecodeError::Body { .. })), "{text}");
    }
}

#[test]
fn a_frame_that_can_be_read_again_is_one_that_the_depth_limit_lets_through() {
    let nested = format!("{}1{}", "[".repeat(DEPTH_MAX - 1), "]".repeat(DEPTH_MAX - 1));
    let text = fixtures::CONFIGMAP_INSERT.replace("\"v\"", "1").replace("\"k\": 1", &format!("\"k\": {}", &nested[3..nested.len() - 3]));
    let Downstream::Object { object, .. } = read(&text).body else { panic!() };
    assert!(object.to::<Value>().is_ok());
}

#[test]
fn a_message_of_the_other_direction_or_of_no_kind_is_refused_and_keeps_its_id() {
    let Err(DecodeError::Body { envelope, source }) = decode::<Upstream>(fixtures::POD_INSERT) else { panic!() };
    assert_eq!(envelope.header.msg_id, "o1");
    assert!(matches!(source, BodyError::UnknownKind { .. }), "{source}");
    assert!(decode::<Downstream>(fixtures::NODE_STATUS.replace("nodestatus/edge-1", "nodestatus").replace("update", "query").as_str()).is_err());
    let strange = fixtures::POD_INSERT.replace("\"insert\"", "\"ins\\u0000ert\"");
    assert!(decode::<Downstream>(&strange).is_err());
}

#[test]
fn an_answer_without_a_question_is_refused() {
    let text = fixtures::ACK.replace("\"parent_msg_id\": \"o1\",", "");
    assert!(matches!(decode::<Upstream>(&text), Err(DecodeError::Body { source: BodyError::Orphan, .. })));
}

#[test]
fn a_body_that_is_not_what_its_resource_says_is_refused() {
    for (text, from, to) in [
        (fixtures::POD_STATUS, "\"content\": [", "\"content\": [7,"),
        (fixtures::TWIN_REPORT, "\"twin\": {", "\"twin\": 7, \"x\": {"),
        (fixtures::DEVICE_STATE_REPORT, "online", "asleep"),
        (fixtures::MEMBERSHIP_GET, "edge-1", "Edge_1"),
    ] {
        let text = text.replacen(from, to, 1);
        assert!(matches!(decode::<Upstream>(&text), Err(DecodeError::Body { .. })), "{text}");
    }
    for (text, from, to) in [
        (fixtures::MEMBERSHIP_DETAIL, "\"devices\"", "\"device\""),
        (fixtures::TWIN_SYNC, "\"temp\"", "\"t e m p\""),
        (fixtures::TWIN_SYNC, "\"22\"", "22"),
        (fixtures::ATTRIBUTES, "\"m2\"", "2"),
    ] {
        let text = text.replacen(from, to, 1);
        assert!(matches!(decode::<Downstream>(&text), Err(DecodeError::Body { .. })), "{text}");
    }
}

#[test]
fn an_event_is_of_the_object_and_the_namespace_that_its_resource_says() {
    let Upstream::Event { namespace, name, is_update, object } = read(fixtures::EVENT).body else { panic!() };
    assert_eq!((namespace.as_str(), name.as_str(), is_update), ("shop", "web.17979cfe362a0000", false));
    assert_eq!(object.to::<Value>().unwrap()["reason"], "Pulled");
    for (from, to) in [
        ("\"namespace\": \"shop\",\n      \"creation", "\"namespace\": \"kube-system\",\n      \"creation"),
        ("shop/event/web", "kube-system/event/web"),
        ("shop/event/web.17979cfe362a0000", "shop/event/db.17979cfe362a0000"),
    ] {
        let text = fixtures::EVENT.replacen(from, to, 1);
        assert_ne!(text, fixtures::EVENT, "{from}");
        assert!(matches!(decode::<Upstream>(&text), Err(DecodeError::Body { source: BodyError::Misnamed { .. }, .. })), "{to}");
    }
    let long = fixtures::EVENT.replace("Successfully", &"x".repeat(EVENT_BYTES_MAX));
    assert!(matches!(decode::<Upstream>(&long), Err(DecodeError::Body { source: BodyError::TooLarge { .. }, .. })));
    let list = fixtures::EVENT.replace("/web.17979cfe362a0000\"", "\"");
    assert!(matches!(decode::<Upstream>(&list), Err(DecodeError::Body { source: BodyError::UnknownKind { .. }, .. })));
    let mut envelope: Envelope = serde_json::from_str(fixtures::EVENT).unwrap();
    let whole = envelope.content.clone();
    for wrong in ["null", "[]", "7", "\"x\"", r#"{"metadata":[]}"#, r#"{"metadata":{"name":7}}"#] {
        envelope.content = RawJson::from_text(wrong.into()).unwrap();
        assert!(Frame::<Upstream>::from_envelope(&envelope).is_err(), "{wrong}");
    }
    // A patch of KubeEdge's has the Event as it is after the patch.
    envelope.route.operation = Operation::Patch;
    envelope.content = RawJson::from_text(format!(r#"{{"event":{},"patchData":"{{}}"}}"#, whole.as_str())).unwrap();
    let Upstream::Event { is_update: true, object, .. } = Frame::from_envelope(&envelope).unwrap().body else { panic!() };
    assert_eq!(object, whole);
    envelope.content = whole;
    assert!(Frame::<Upstream>::from_envelope(&envelope).is_err());
}

#[test]
fn one_bad_device_does_not_cost_the_list() {
    let text = fixtures::MEMBERSHIP_DETAIL.replace("house/lamp", "a/b/c").replace("unknown", "asleep");
    let Downstream::MembershipDetail(detail) = read(&text).body else { panic!() };
    assert_eq!((detail.devices.len(), detail.skipped.len()), (1, 2));
    assert_eq!(detail.devices[0].id, DeviceId::new("d1").unwrap());
    assert_eq!(detail.devices[0].state, None);
}

#[test]
fn a_message_that_would_be_too_large_is_not_encoded() {
    let object = RawJson::from_str_value(&"x".repeat(FRAME_BYTES_MAX));
    let key: ResourceKey = "default/configmap/big".parse().unwrap();
    let body = Downstream::Object { operation: ObjectOperation::Insert, key, object };
    assert!(encode(&Frame::new(MsgId::random(), Timestamp(1), body)).is_err());
}

#[test]
fn an_object_without_a_name_is_refused() {
    assert!(decode::<Downstream>(&fixtures::POD_INSERT.replace("default/pod/web", "default/pod")).is_err());
}

#[test]
fn a_keepalive_needs_no_resource() {
    let text = fixtures::KEEPALIVE.replace("\"resource\": \"node\"", "\"resource\": \"\"");
    assert_eq!(read::<Upstream>(&text).body, Upstream::Keepalive);
}

#[test]
fn no_message_of_an_edge_weighs_less_than_the_text_that_it_carries() {
    let long = || "x".repeat(1 << 20);
    let side = model::TwinProperty { actual: Some(model::TwinValue { value: long(), timestamp: Timestamp(1) }), ..Default::default() };
    let report = crate::mqtt::payload::TwinReport { properties: [("p".parse().unwrap(), side)].into(), ..Default::default() };
    let device = DeviceId::new("lamp").unwrap();
    let state = r#"{"device":{"name":"N","state":"online"}}"#.replace('N', &long());
    let state = crate::mqtt::payload::DeviceStateReport::parse(state.as_bytes()).unwrap();
    let frame = |body| Frame::new(MsgId::random(), Timestamp(1), body);
    for frame in [
        frame(Upstream::TwinReport { device: device.clone(), report }),
        frame(Upstream::DeviceStateReport { device, report: state }),
        frame(Upstream::MembershipGet { event_id: long(), node: "n".parse().unwrap() }),
        frame(Upstream::Keepalive).with_resource_version(long()),
    ] {
        assert!(frame.bytes() >= 1 << 20, "{}", frame.body.kind());
    }
}

proptest! {
    #[test]
    fn no_cut_or_changed_frame_panics_the_decoder(which in 0_usize..41, at in 0_usize..4000, byte in 0_u8..128, cut in any::<bool>()) {
        let all: Vec<&str> = fixtures::UPSTREAM.iter().chain(fixtures::DOWNSTREAM).map(|(_, text)| *text).collect();
        let mut text = all[which % all.len()].as_bytes().to_vec();
        let at = at % text.len();
        text[at] = byte;
        if cut {
            text.truncate(at);
        }
        let text = String::from_utf8_lossy(&text);
        if let Ok(frame) = decode::<Upstream>(&text) {
            prop_assert_eq!(decode::<Upstream>(&encode(&frame).unwrap()).unwrap(), frame);
        }
        if let Ok(mut frame) = decode::<Downstream>(&text) {
            // What was passed over is for the log; it does not travel.
            if let Downstream::MembershipDetail(MembershipDetail { skipped, .. }) | Downstream::MembershipUpdate(MembershipUpdate { skipped, .. }) =
                &mut frame.body
            {
                skipped.clear();
            }
            prop_assert_eq!(decode::<Downstream>(&encode(&frame).unwrap()).unwrap(), frame);
        }
    }
}
