#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use model::membership::AttributeOutcome;
use model::twin::{Origin, TwinError, merge};
use model::{
    Attribute, AttributeName, Device, DeviceEntry, DeviceId, DeviceState, PropertyChange, PropertyName, SideChange, Timestamp, TwinProperty,
    TwinType, TwinValue, TwinVersion,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::membership::SKIPPED_MAX;
use super::*;
use crate::fixtures;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn written(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

fn refused(body: &str) -> Fault {
    TwinUpdate::parse(body.as_bytes()).unwrap_err().fault
}

/// The device before the golden `twin_update`: `temp` is 18 and should be 20, `old` has no values.
fn device() -> Device {
    let at = |text: &str, ago: i64| Some(TwinValue { value: text.into(), timestamp: Timestamp(NOW.millis() - ago) });
    let version = Some(TwinVersion { cloud: 1, edge: 1 });
    let temp = TwinProperty {
        expected: at("20", 10),
        actual: at("18", 9),
        kind: TwinType::Int,
        expected_version: version,
        actual_version: version,
        ..TwinProperty::default()
    };
    let name = |text: &str| PropertyName::new(text).unwrap();
    Device {
        id: DeviceId::new("d1").unwrap(),
        name: "Dev".into(),
        description: "x".into(),
        state: Some(DeviceState::new("unknown").unwrap()),
        last_online: NOW.rfc3339(),
        attributes: [(AttributeName::new("model").unwrap(), Attribute { value: "m".into(), optional: true, kind: "string".into() })].into(),
        twin: [(name("temp"), temp), (name("old"), TwinProperty::default())].into_iter().collect(),
    }
}

#[test]
fn a_twin_update_is_answered_in_the_form_of_the_golden_bodies() {
    let mut device = device();
    let update = TwinUpdate::parse(fixtures::TWIN_UPDATE.as_bytes()).unwrap();
    let outcome = merge(&mut device.twin, &update.change, Origin::Device, NOW).unwrap();
    let result = answer::twin_update_result(&update.event_id, NOW, &outcome);
    assert_eq!(written(&result), value(fixtures::TWIN_UPDATE_RESULT));
    let document = answer::twin_update_document(&update.event_id, NOW, &outcome);
    assert_eq!(written(&document), value(fixtures::TWIN_UPDATE_DOCUMENT));
    let delta = answer::twin_update_delta("new", NOW, &device.twin.delta());
    assert_eq!(written(&delta), value(fixtures::TWIN_UPDATE_DELTA));
    let get = Get::parse_twin(fixtures::GET.as_bytes()).unwrap();
    assert_eq!(written(&answer::twin_get_result(&get.event_id, NOW, &device.twin)), value(fixtures::TWIN_GET_RESULT));
    assert_eq!(written(&answer::membership_added("new", NOW, &device)), value(fixtures::MEMBERSHIP_ADDED));
}

#[test]
fn the_other_answers_have_the_form_of_the_golden_bodies() {
    let device = device();
    let fault = Fault::UpdateOfUnknownDevice;
    assert_eq!(written(&answer::error_result("e", NOW, &fault)), value(fixtures::ERROR_RESULT));
    let list = answer::membership_get_result("e", NOW, [&device]);
    assert_eq!(written(&list), value(fixtures::MEMBERSHIP_GET_RESULT));
    let none = answer::membership_get_result("", NOW, []);
    assert_eq!(written(&none), json!({"event_id": "", "timestamp": NOW.millis(), "devices": []}));
    let removed = answer::membership_removed("new", NOW, &device.id, None);
    assert_eq!(written(&removed), value(fixtures::MEMBERSHIP_REMOVED));
    let update = StateUpdate::parse(fixtures::STATE_UPDATE.as_bytes()).unwrap();
    let report = DeviceStateReport {
        event_id: "e2".into(),
        timestamp: NOW,
        uid: String::new(),
        name: "d1".into(),
        state: update.state,
        last_online: NOW.rfc3339(),
    };
    assert_eq!(written(&answer::state_update_result(&report)), value(fixtures::STATE_UPDATE_RESULT));
    assert_eq!(DeviceStateReport::parse(fixtures::STATE_UPDATE_RESULT.as_bytes()), Ok(report));
    let name = |text: &str| AttributeName::new(text).unwrap();
    let outcome: AttributeOutcome = [(name("gone"), None), (name("model"), device.attributes.get("model").cloned())].into();
    assert_eq!(written(&answer::device_updated("e", NOW, &outcome)), value(fixtures::DEVICE_UPDATED));
}

#[test]
fn a_twin_update_is_checked_in_kubeedge_s_order_with_its_reasons() {
    for (body, fault) in [
        ("", Fault::UpdateBody),
        ("not json", Fault::UpdateBody),
        ("{\"twin\":{}", Fault::UpdateBody),
        ("7", Fault::UpdateBody),
        ("[\"e\",1,{}]", Fault::UpdateBody),
        ("null", Fault::UpdateBody),
        (r#"{"event_id":7,"twin":{}}"#, Fault::UpdateBody),
        (r#"{"timestamp":"1","twin":{}}"#, Fault::UpdateBody),
        (r#"{"timestamp":1.5,"twin":{}}"#, Fault::UpdateBody),
        (r#"{"timestamp":99999999999999999999,"twin":{}}"#, Fault::UpdateBody),
        (r#"{"twin":[]}"#, Fault::UpdateBody),
        (r#"{"twin":{"a":7}}"#, Fault::UpdateBody),
        (r#"{"twin":{"a":[{"value":"1"}]}}"#, Fault::UpdateBody),
        (r#"{"twin":{"a":{"actual":"1"}}}"#, Fault::UpdateBody),
        (r#"{"twin":{"a":{"actual":{"value":19}}}}"#, Fault::UpdateBody),
        (r#"{"twin":{"a":{"optional":"true"}}}"#, Fault::UpdateBody),
        (r#"{"twin":{"a":{"metadata":{"type":7}}}}"#, Fault::UpdateBody),
        (r#"{"twin":{},"twin":{}}"#, Fault::UpdateBody),
        ("{}", Fault::TwinMissing),
        (r#"{"twin":null}"#, Fault::TwinMissing),
        (r#"{"twin":{"":{}}}"#, Fault::Key),
        (r#"{"twin":{"a b":{"actual":{"value":"ä"}}}}"#, Fault::Key),
        (r#"{"twin":{"a\u0000":null}}"#, Fault::Key),
        (r#"{"twin":{"a":{"actual":{"value":"1 2"}}}}"#, Fault::Value),
        (r#"{"twin":{"a":{"expected":{"value":"\u0000"}}}}"#, Fault::Value),
        (r#"{"twin":{"a b":null,"a":null,"a b":{}}}"#, Fault::Key),
        (r#"{"event_id":"a","event_id":"b","twin":{}}"#, Fault::UpdateBody),
        (r#"{"twin":{"a":{"optional":true,"optional":false}}}"#, Fault::UpdateBody),
    ] {
        assert_eq!(refused(body), fault, "{body}");
        assert_eq!(fault.code(), 400);
    }
    let long = |count: usize| format!(r#"{{"twin":{{"a":{{"actual":{{"value":"{}"}}}}}}}}"#, "x".repeat(count));
    assert_eq!(refused(&long(513)), Fault::Value);
    assert!(TwinUpdate::parse(long(512).as_bytes()).is_ok());
    assert_eq!(refused(&format!(r#"{{"twin":{{"{}":null}}}}"#, "k".repeat(129))), Fault::Key);
    assert_eq!(Fault::TwinMissing.to_string(), "Update twin error, key:twin does not exist");
    assert_eq!(Fault::UpdateBody.to_string(), "Unmarshal update request body failed, please check the request");
}

#[test]
fn what_kubeedge_tolerates_or_panics_on_is_read() {
    let body = r#"{"event_id":null,"timestamp":null,"unknown":[[{}]],"twin":{
        "a":{"expected":{},"actual":{"value":null,"metadata":null},"metadata":null,"expected_version":{"cloud":null}},
        "b":{"actual":{"value":"","metadata":{"timestamp":null}},"metadata":{}},
        "c":null}}"#;
    let update = TwinUpdate::parse(body.as_bytes()).unwrap();
    assert_eq!((update.event_id.as_str(), update.timestamp, update.change.properties.len()), ("", Timestamp::UNKNOWN, 3));
    let PropertyChange::Set(a) = &update.change.properties["a"] else { panic!() };
    assert_eq!((&a.expected, &a.actual, &a.kind), (&None, &None, &None));
    let PropertyChange::Set(b) = &update.change.properties["b"] else { panic!() };
    assert_eq!(b.actual, Some(SideChange::default()));
}

#[test]
fn of_a_name_given_twice_the_last_one_counts_and_nothing_of_the_first() {
    let body = r#"{"twin":{"a":{"expected":{"value":"1"}},"b":null,"a":{"actual":{"value":"2"}},"b":{}}}"#;
    let update = TwinUpdate::parse(body.as_bytes()).unwrap();
    let PropertyChange::Set(a) = &update.change.properties["a"] else { panic!() };
    assert_eq!((&a.expected, a.actual.as_ref().map(|side| side.value.as_str())), (&None, Some("2")));
    assert_ne!(update.change.properties["b"], PropertyChange::Null);
    let update = AttributesUpdate::parse(br#"{"attributes":{"a":{"value":"1"},"a":null}}"#).unwrap();
    assert_eq!(update.attributes, [(AttributeName::new("a").unwrap(), None)].into());
}

#[test]
fn a_body_is_as_long_as_the_limit_and_no_longer_and_a_request_has_any_number_of_properties() {
    let body = |bytes: usize| {
        let mut body = br#"{"event_id":"e","twin":{}"#.to_vec();
        body.resize(bytes - 1, b' ');
        body.push(b'}');
        body
    };
    assert!(TwinUpdate::parse(&body(BODY_BYTES_MAX)).is_ok());
    let fault = TwinUpdate::parse(&body(BODY_BYTES_MAX + 1)).unwrap_err().fault;
    assert_eq!(fault, Fault::TooLarge { bytes: BODY_BYTES_MAX + 1 });
    // How many a device may have is the merge's to say: it knows how many there are.
    let many: Vec<String> = (0..90_000).map(|n| format!(r#""{n:x}":{{}}"#)).collect();
    let body = format!(r#"{{"twin":{{{}}}}}"#, many.join(","));
    assert_eq!(TwinUpdate::parse(body.as_bytes()).unwrap().change.properties.len(), 90_000);
}

#[test]
fn every_time_of_64_bits_is_read_and_one_beyond_is_refused() {
    for time in [i64::MIN, -1, 0, i64::MAX] {
        let body = format!(r#"{{"timestamp":{time},"twin":{{"a":{{"actual":{{"value":"1","metadata":{{"timestamp":{time}}}}}}}}}}}"#);
        assert_eq!(TwinUpdate::parse(body.as_bytes()).unwrap().timestamp, Timestamp(time));
        assert_eq!(StateUpdate::parse(format!(r#"{{"timestamp":{time},"state":"ok"}}"#).as_bytes()).unwrap().timestamp, Timestamp(time));
    }
    for time in ["9223372036854775808", "-9223372036854775809", "1e400", "1.0", "\"1\"", "true", "[]"] {
        assert_eq!(refused(&format!(r#"{{"timestamp":{time},"twin":{{}}}}"#)), Fault::UpdateBody, "{time}");
        let nested = format!(r#"{{"twin":{{"a":{{"actual":{{"value":"1","metadata":{{"timestamp":{time}}}}}}}}}}}"#);
        assert_eq!(refused(&nested), Fault::UpdateBody, "{time}");
    }
}

#[test]
fn a_refusal_echoes_the_event_id_where_one_can_be_read() {
    let id = |body: &str| TwinUpdate::parse(body.as_bytes()).unwrap_err().event_id;
    assert_eq!(id(r#"{"event_id":"e","twin":{"a b":{}}}"#), "e");
    assert_eq!(id(r#"{"event_id":"e","twin":7}"#), "e");
    assert_eq!(id(r#"{"event_id":"e"}"#), "e");
    assert_eq!(id(r#"{"event_id":"e","#), "");
    assert_eq!(id(&format!(r#"{{"event_id":"{}","twin":7}}"#, "x".repeat(2000))), "");
    let long = format!(r#"{{"event_id":"{}","twin":{{}}}}"#, "x".repeat(2000));
    assert_eq!(refused(&long), Fault::EventIdTooLong { bytes: 2000 });
}

#[test]
fn a_body_has_a_size_and_a_depth() {
    let huge = " ".repeat(BODY_BYTES_MAX + 1);
    let fault = Fault::TooLarge { bytes: BODY_BYTES_MAX + 1 };
    assert_eq!(refused(&huge), fault);
    assert_eq!(Get::parse_twin(huge.as_bytes()).unwrap_err().fault, fault);
    assert_eq!(StateUpdate::parse(huge.as_bytes()).unwrap_err().fault, fault);
    for deep in ["[".repeat(500_000), "{\"twin\":".repeat(100_000), format!("{{\"x\":{}", "[".repeat(500_000))] {
        assert_eq!(refused(&deep), Fault::UpdateBody);
    }
    let mut bytes = br#"{"twin":{"a":{"actual":{"value":"x"}}}}"#.to_vec();
    bytes[33] = 0xff;
    assert_eq!(TwinUpdate::parse(&bytes).unwrap_err().fault, Fault::UpdateBody);
}

#[test]
fn a_get_may_be_empty_and_a_bad_one_is_quoted_shortly() {
    assert_eq!(Get::parse_membership(b"{}").unwrap(), Get::default());
    let fault = Get::parse_membership(b"nonsense").unwrap_err().fault;
    assert!(fault.to_string().starts_with("Unmarshal get membership info nonsense failed , err: "), "{fault}");
    let body = format!("\u{0}{}", "x".repeat(100_000));
    let fault = Get::parse_twin(body.as_bytes()).unwrap_err().fault.to_string();
    assert!(fault.starts_with("Unmarshal twin info  x") && fault.len() < 512, "{fault}");
    // A cut in the middle of a character is not a panic.
    assert!(Get::parse_twin("ä".repeat(5000).as_bytes()).is_err());
}

#[test]
fn a_state_is_one_of_five_words() {
    let state = |text: &str| StateUpdate::parse(text.as_bytes()).map(|update| update.state.as_str().to_owned()).map_err(|error| error.fault);
    assert_eq!(state(r#"{"state":"Online"}"#), Ok("Online".into()));
    assert_eq!(state(r#"{"state":"asleep"}"#), Err(Fault::State));
    assert_eq!(state("{}"), Err(Fault::State));
    assert_eq!(state(r#"{"state":1}"#), Err(Fault::StateBody));
    assert_eq!(state("null"), Err(Fault::StateBody));
}

#[test]
fn the_uid_of_a_device_travels_both_ways_and_an_absurd_one_is_left_out() {
    let id: DeviceId = "d1".parse().unwrap();
    for (uid, read) in [("u-1", "u-1"), ("", ""), (&*"x".repeat(1 << 19), "")] {
        let detail =
            MembershipDetail { devices: vec![DeviceEntry { uid: uid.into(), ..DeviceEntry::named(id.clone()) }], ..MembershipDetail::default() };
        assert_eq!(MembershipDetail::parse(&serde_json::to_vec(&detail).unwrap()).unwrap().devices[0].uid, read);
        let wanted = TwinUpdate { uid: uid.into(), ..TwinUpdate::default() };
        assert_eq!(TwinUpdate::parse(&serde_json::to_vec(&wanted).unwrap()).unwrap().uid, read);
        let twin = TwinReport { uid: uid.into(), ..TwinReport::default() };
        assert_eq!(TwinReport::parse(&serde_json::to_vec(&twin).unwrap()).unwrap().uid, read);
        let state = DeviceState::new("online").unwrap();
        let state = DeviceStateReport { event_id: "e".into(), timestamp: NOW, uid: uid.into(), name: "d1".into(), state, last_online: String::new() };
        assert_eq!(DeviceStateReport::parse(&serde_json::to_vec(&state).unwrap()).unwrap().uid, read);
    }
}

#[test]
fn a_detail_without_a_list_is_refused_and_not_taken_for_an_empty_one() {
    for body in ["{}", r#"{"devices":null}"#, "null", "[]"] {
        assert_eq!(MembershipDetail::parse(body.as_bytes()).unwrap_err().fault, Fault::MembershipBody, "{body}");
    }
    assert!(MembershipDetail::parse(br#"{"devices":[]}"#).unwrap().devices.is_empty());
}

#[test]
fn a_listed_device_may_say_little_and_odd_things() {
    let body = r#"{"devices":[null,{"id":"a"},{"id":"b","attributes":{},"twin":null},{"name":"nameless"},
        {"id":"c","attributes":{"x":null,"":{"value":"1"}},"twin":{"bad name":{},"p":{"actual":{"value":"1 2"}},"q":{}}}]}"#;
    let detail = MembershipDetail::parse(body.as_bytes()).unwrap();
    let ids: Vec<&str> = detail.devices.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(detail.devices[0].attributes, None);
    assert_eq!(detail.devices[1].attributes, Some(Default::default()));
    assert_eq!(detail.devices[2].twin.properties.len(), 1);
    assert_eq!(detail.skipped.len(), 4);
    let many = format!(r#"{{"devices":[{}{{"id":"a"}}]}}"#, r#"{"id":"+"},"#.repeat(1000));
    let detail = MembershipDetail::parse(many.as_bytes()).unwrap();
    assert_eq!((detail.devices.len(), detail.skipped.len()), (1, SKIPPED_MAX));
}

#[test]
fn faults_have_kubeedge_s_codes() {
    assert_eq!(Fault::GetOfUnknownDevice { device: DeviceId::new("d").unwrap() }.code(), 404);
    assert_eq!(Fault::Internal("the store is closed".into()).code(), 500);
    assert_eq!((Fault::from(TwinError::NotInt).code(), Fault::from(TwinError::NotInt).to_string()), (400, "the value is not int or integer".into()));
}

proptest! {
    #[test]
    fn no_body_panics_a_parser(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = TwinUpdate::parse(&body);
        let _ = Get::parse_twin(&body);
        let _ = StateUpdate::parse(&body);
        let _ = MembershipDetail::parse(&body);
        let _ = MembershipUpdate::parse(&body);
        let _ = AttributesUpdate::parse(&body);
        let _ = TwinReport::parse(&body);
        let _ = DeviceStateReport::parse(&body);
    }

    #[test]
    fn no_cut_or_changed_body_panics_a_parser(which in 0..fixtures::MQTT.len(), at in 0_usize..2000, byte in any::<u8>(), cut in any::<bool>()) {
        let mut body = fixtures::MQTT[which].1.as_bytes().to_vec();
        let at = at % body.len();
        body[at] = byte;
        if cut {
            body.truncate(at);
        }
        let _ = TwinUpdate::parse(&body);
        let _ = MembershipUpdate::parse(&body);
        let _ = AttributesUpdate::parse(&body);
        let _ = TwinReport::parse(&body);
    }
}
