#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use actor::Meta;
use actor::testing::{Probe, lease, lease_posted};
use model::{PropertyName, TwinProperty, TwinVersion};
use serde_json::json;
use wire::mqtt::Topic;

use super::{Config, Peers, Twin, TwinMessage};
use crate::communication::testing::{Workbench, body, frame, id, kinds, request, told};
use crate::communication::{CommunicationMessage, Effect};
use crate::membership::MembershipMessage;
use crate::store::pending_report;
use crate::store::testing::{fails_at_every_step, tamper};

pub(super) fn twin(bench: &Workbench) -> Twin {
    let peers = Peers { communication: bench.communication.handle(), membership: bench.membership.handle(), births: bench.births.clone() };
    Twin::new(Config { clock: bench.clock() }, bench.store.clone(), peers)
}

pub(super) fn update(device: &str, twin: &str) -> TwinMessage {
    TwinMessage::Update { device: id(device), request: request(twin) }
}

fn sync(device: &str, twin: &str) -> TwinMessage {
    TwinMessage::CloudSync { device: id(device), request: request(twin), frame: frame("f") }
}

pub(super) fn get(device: &str) -> TwinMessage {
    TwinMessage::Get { device: id(device), event_id: "g".into() }
}

/// Handles a batch; panics if anything of it is left.
pub(super) fn settle(twin: &mut Twin, messages: Vec<TwinMessage>) {
    let (lease, probe) = lease(messages);
    twin.settle(lease);
    assert!(probe.drain().is_empty(), "all messages are settled");
}

fn property(bench: &Workbench, device: &str, name: &str) -> TwinProperty {
    bench.stored(device).unwrap().twin.properties.remove(&PropertyName::new(name).unwrap()).unwrap()
}

#[test]
fn an_update_is_stored_then_answered_in_order_and_waits_for_the_cloud() {
    let bench = Workbench::with(&["lamp"]);
    let set = r#"{"t":{"expected":{"value":"20"},"actual":{"value":"19"},"metadata":{"type":"int"}}}"#;
    settle(&mut twin(&bench), vec![update("lamp", set)]);
    let stored = property(&bench, "lamp", "t");
    assert_eq!(stored.actual.as_ref().unwrap().value, "19");
    assert_eq!(stored.actual_version, Some(TwinVersion { cloud: 0, edge: 1 }));
    let effects = bench.effects();
    let sides = json!({"expected":{"value":"20"},"actual":{"value":"19"},"optional":true,"metadata":{"type":"int"}});
    let [result, document, delta, reports] = &told(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(*result, ("device/lamp/twin/update/result".into(), json!({"event_id":"e","twin":{"t":sides}})));
    let last = json!({"t":{"last":null,"current":sides}});
    assert_eq!(*document, ("device/lamp/twin/update/document".into(), json!({"event_id":"e","twin":last})));
    assert_eq!(delta.1["delta"], json!({"t":"20"}));
    assert_ne!(delta.1["event_id"], "e");
    assert_eq!(reports.0, "reports");
    assert_eq!(bench.pending("lamp"), ["t"]);
}

#[test]
fn an_update_of_an_unknown_device_is_404_on_its_own_topic_and_writes_nothing() {
    let bench = Workbench::with(&[]);
    settle(&mut twin(&bench), vec![update("nobody", r#"{"t":{"actual":{"value":"1"}}}"#), get("nobody")]);
    let effects = bench.effects();
    assert_eq!(
        told(&effects),
        [
            (
                "device/nobody/twin/update/result".to_owned(),
                json!({"event_id":"e","code":404,"reason":"update rejected due to the device is not existed"})
            ),
            ("device/nobody/twin/get/result".to_owned(), json!({"event_id":"g","code":404,"reason":"Device nobody not found while getting twin"})),
        ]
    );
    assert!(bench.stored("nobody").is_none());
}

#[test]
fn a_wrong_value_refuses_its_message_as_a_whole_and_no_other() {
    let bench = Workbench::with(&["lamp"]);
    let mut twin = twin(&bench);
    settle(&mut twin, vec![update("lamp", r#"{"t":{"actual":{"value":"1"},"metadata":{"type":"int"}}}"#)]);
    bench.effects();
    settle(
        &mut twin,
        vec![
            update("lamp", r#"{"a":{"actual":{"value":"x"}},"t":{"actual":{"value":"warm"}}}"#),
            update("lamp", r#"{"t":{"actual":{"value":"2"}}}"#),
        ],
    );
    let told = told(&bench.effects());
    assert_eq!(told[0].1, json!({"event_id":"e","code":400,"reason":"the value is not int or integer"}));
    assert_eq!(told[1].1["twin"]["t"]["actual"], json!({"value":"2"}));
    let stored = bench.stored("lamp").unwrap().twin;
    assert_eq!(stored.properties.len(), 1);
    assert_eq!(property(&bench, "lamp", "t").actual.unwrap().value, "2");
}

#[test]
fn a_batch_is_one_commit_in_which_each_message_sees_those_before_it() {
    let bench = Workbench::with(&["lamp", "fan"]);
    let before = bench.store.stats().commits;
    let messages = (0..100).flat_map(|n| {
        let set = format!(r#"{{"t":{{"actual":{{"value":"{n}"}}}}}}"#);
        [update("lamp", &set), update("fan", &set), get("lamp")]
    });
    settle(&mut twin(&bench), messages.collect());
    assert_eq!(bench.store.stats().commits, before + 1);
    assert_eq!(property(&bench, "lamp", "t").actual_version, Some(TwinVersion { cloud: 0, edge: 100 }));
    let gets: Vec<_> = told(&bench.effects())
        .into_iter()
        .filter(|(topic, _)| topic == "device/lamp/twin/get/result")
        .map(|(_, body)| body["twin"]["t"]["actual"]["value"].as_str().unwrap().parse::<u32>().unwrap())
        .collect();
    assert_eq!(gets, (0..100).collect::<Vec<_>>());
    assert_eq!(bench.pending("lamp"), ["t"], "one row, however often it changed");
}

#[test]
fn a_device_whose_row_is_damaged_costs_only_its_own_messages() {
    let bench = Workbench::with(&["lamp", "fan"]);
    let mut twin = twin(&bench);
    settle(&mut twin, vec![update("lamp", r#"{"t":{"actual":{"value":"1"}}}"#)]);
    bench.effects();
    tamper(&bench.store, "UPDATE device_twin SET actual_version='{'");
    // What is at hand would hide it.
    let mut twin = self::twin(&bench);
    let set = r#"{"t":{"actual":{"value":"2"}}}"#;
    settle(&mut twin, vec![update("fan", set), update("lamp", set), sync("lamp", set), update("fan", set)]);
    let effects = bench.effects();
    let told = told(&effects);
    let codes: Vec<_> = told.iter().filter(|(topic, _)| topic.ends_with("result")).map(|(_, body)| &body["code"]).collect();
    assert_eq!(codes, [&json!(null), &json!(500), &json!(null)]);
    // The cloud hears nothing of the failed one, and sends it again.
    assert!(!kinds(&effects).iter().any(|kind| kind.starts_with("ack") || kind.starts_with("refuse")));
    assert_eq!(property(&bench, "fan", "t").actual_version, Some(TwinVersion { cloud: 0, edge: 2 }));
}

#[test]
fn a_question_for_a_device_whose_row_is_damaged_is_500_and_the_others_are_answered() {
    let bench = Workbench::with(&["lamp", "fan"]);
    let mut twin = twin(&bench);
    settle(&mut twin, vec![update("lamp", r#"{"t":{"actual":{"value":"1"}}}"#)]);
    bench.effects();
    tamper(&bench.store, "UPDATE device_twin SET attr_type='colour'");
    // What is at hand would hide it.
    let mut twin = self::twin(&bench);
    settle(&mut twin, vec![get("lamp"), get("fan")]);
    let told = told(&bench.effects());
    assert_eq!((told[0].0.as_str(), &told[0].1["code"], &told[0].1["event_id"]), ("device/lamp/twin/get/result", &json!(500), &json!("g")));
    assert!(told[0].1["reason"].as_str().unwrap().starts_with("Build state while deal get twin err: "), "{told:?}");
    assert_eq!(told[1], ("device/fan/twin/get/result".to_owned(), json!({"event_id":"g","twin":{}})));
}

#[test]
fn a_request_is_answered_with_what_changed_and_the_delta_is_over_all_properties() {
    let bench = Workbench::with(&["lamp"]);
    let mut twin = twin(&bench);
    let first = r#"{"a":{"expected":{"value":"1"},"actual":{"value":"0"}},"b":{"actual":{"value":"x"},"optional":false}}"#;
    settle(&mut twin, vec![update("lamp", first)]);
    bench.effects();
    for (change, result, has_document) in [
        // Deleting what must stay, a type for what has one, and `optional` back to true are passed over without a word.
        (r#"{"b":null}"#, json!({}), false),
        (r#"{"a":{"metadata":{"type":"int"}}}"#, json!({}), false),
        (r#"{"b":{"optional":true}}"#, json!({}), false),
        ("{}", json!({}), false),
        (r#"{"a":{"optional":false}}"#, json!({"a":{"optional":false}}), true),
        (r#"{"b":{"actual":{"value":"y"}}}"#, json!({"b":{"actual":{"value":"y"}}}), true),
        (r#"{"c":{}}"#, json!({"c":{"optional":true,"metadata":{"type":"string"}}}), true),
        (r#"{"c":null}"#, json!({"c":null}), true),
        (r#"{"c":null}"#, json!({}), false),
    ] {
        settle(&mut twin, vec![update("lamp", change)]);
        let told = told(&bench.effects());
        assert_eq!(told[0], ("device/lamp/twin/update/result".to_owned(), json!({"event_id":"e","twin":result})), "{change}");
        let delta = told.iter().find(|(topic, _)| topic.ends_with("/delta")).expect("`a` is not what is expected of it");
        assert_eq!(delta.1["delta"], json!({"a":"1"}), "{change}");
        let topics: Vec<_> = told.iter().map(|(topic, _)| topic.rsplit('/').next().unwrap()).collect();
        let expected = if has_document { &["result", "document", "delta", "reports"][..] } else { &["result", "delta"] };
        assert_eq!(topics, expected, "{change}");
    }
}

#[test]
fn a_change_of_the_cloud_is_stored_shown_to_the_device_and_acknowledged() {
    let bench = Workbench::with(&["lamp"]);
    let mut twin = twin(&bench);
    settle(&mut twin, vec![update("lamp", r#"{"t":{"actual":{"value":"19"}}}"#)]);
    bench.effects();
    let want = r#"{"t":{"expected":{"value":"20"},"expected_version":{"cloud":7,"edge":0},"metadata":{"type":"string"}}}"#;
    settle(&mut twin, vec![sync("lamp", want)]);
    let effects = bench.effects();
    assert_eq!(kinds(&effects), ["device/lamp/twin/update/document", "device/lamp/twin/update/delta", "ack f device/lamp/twin/cloud_updated"]);
    assert_eq!(body(&effects, &Topic::TwinUpdateDelta(id("lamp")))["delta"], json!({"t":"20"}));
    assert_eq!(property(&bench, "lamp", "t").expected_version, Some(TwinVersion { cloud: 7, edge: 0 }));
    assert_eq!(bench.pending("lamp"), ["t"], "only what the device said before");
}

#[test]
fn a_change_of_the_cloud_that_is_older_than_here_is_not_done_and_the_cloud_hears_what_is_here() {
    let bench = Workbench::with(&["lamp"]);
    let mut twin = twin(&bench);
    settle(&mut twin, vec![update("lamp", r#"{"t":{"expected":{"value":"5"}}}"#)]);
    let sent = bench.read(|read| crate::store::pending_report::of_device(read, &id("lamp")));
    let settled: Vec<_> = sent.properties.iter().map(|(_, change)| change.seq).collect();
    bench.write(|tx| crate::store::pending_report::settle(tx, &settled));
    bench.effects();
    let old = r#"{"t":{"expected":{"value":"20"},"expected_version":{"cloud":7,"edge":0}}}"#;
    settle(&mut twin, vec![sync("lamp", old)]);
    assert_eq!(property(&bench, "lamp", "t").expected.unwrap().value, "5");
    assert_eq!(bench.pending("lamp"), ["t"]);
    let kinds = kinds(&bench.effects());
    assert!(kinds.contains(&"ack f device/lamp/twin/cloud_updated".into()), "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "reports");
}

#[test]
fn a_change_of_the_cloud_for_a_device_that_is_not_here_is_refused() {
    let bench = Workbench::with(&[]);
    settle(&mut twin(&bench), vec![sync("lamp", "{}")]);
    assert_eq!(kinds(&bench.effects()), ["device/lamp/twin/update/result", "refuse f device/lamp/twin/cloud_updated"]);
}

#[test]
fn a_deleted_property_is_kept_as_a_tombstone_reported_and_not_shown() {
    let bench = Workbench::with(&["lamp"]);
    let mut twin = twin(&bench);
    settle(&mut twin, vec![update("lamp", r#"{"t":{"actual":{"value":"1"}}}"#), update("lamp", r#"{"t":null}"#)]);
    bench.effects();
    settle(&mut twin, vec![get("lamp")]);
    assert_eq!(body(&bench.effects(), &Topic::TwinGetResult(id("lamp"))), json!({"event_id":"g","twin":{}}));
    let tombstone = property(&bench, "lamp", "t");
    assert!(tombstone.is_tombstone());
    assert_eq!(tombstone.actual_version, Some(TwinVersion { cloud: 0, edge: 2 }));
    assert_eq!(bench.pending("lamp"), ["t"]);
}

#[test]
fn a_batch_that_only_asks_does_not_take_the_write_connection() {
    let bench = Workbench::with(&["lamp"]);
    let mut twin = twin(&bench);
    settle(&mut twin, vec![update("lamp", r#"{"t":{"actual":{"value":"1"}}}"#)]);
    bench.effects();
    let before = bench.store.stats();
    bench.write(|_| {
        // Whoever holds the write connection does not hold up those who ask.
        settle(&mut twin, vec![get("lamp"), get("default/lamp")]);
        Ok(())
    });
    assert_eq!(bench.store.stats().commits, before.commits + 1);
    let told = told(&bench.effects());
    let twin = json!({"t":{"actual":{"value":"1"},"optional":true,"metadata":{"type":"string"}}});
    assert_eq!(told[1].1, json!({"event_id":"g","twin":twin}));
    assert_eq!(told.len(), 2);
}

#[test]
fn without_room_for_the_effects_nothing_is_written_and_nothing_is_lost() {
    let bench = Workbench::with(&["lamp"]);
    let mut twin = twin(&bench);
    let rooms: Vec<_> = std::iter::from_fn(|| bench.communication.handle().try_reserve().ok()).collect();
    let (lease, probe) = lease(vec![update("lamp", r#"{"t":{"actual":{"value":"1"}}}"#)]);
    twin.settle(lease);
    assert!(bench.stored("lamp").unwrap().twin.properties.is_empty());
    assert_eq!(probe.drain().len(), 1);
    drop(rooms);
    settle(&mut twin, vec![update("lamp", r#"{"t":{"actual":{"value":"1"}}}"#)]);
    assert_eq!(bench.pending("lamp"), ["t"]);
}

#[test]
fn an_incarnation_that_was_replaced_writes_and_tells_nothing() {
    let bench = Workbench::with(&["lamp"]);
    let (lease, probe) = lease(vec![update("lamp", r#"{"t":{"actual":{"value":"1"}}}"#)]);
    let successor = Probe::of(&probe.handle());
    twin(&bench).settle(lease);
    assert!(bench.stored("lamp").unwrap().twin.properties.is_empty());
    assert!(bench.effects().is_empty());
    drop(successor);
}

#[test]
fn a_message_waits_for_the_membership_changes_before_it_and_those_before_them_do_not() {
    actix_rt::System::new().block_on(async {
        let bench = Workbench::with(&["lamp"]);
        let mut twin = twin(&bench);
        let membership = bench.membership.handle();
        let set = r#"{"t":{"actual":{"value":"1"}}}"#;
        let before = Meta::new("mqtt").behind(membership.ticket());
        membership.try_send(MembershipMessage::Get { event_id: String::new() }).unwrap();
        let behind = || Meta::new("cloud").behind(membership.ticket());
        let (lease, probe) = lease_posted(vec![(before, update("lamp", set)), (behind(), update("new", set)), (behind(), update("lamp", set))]);
        twin.settle(lease);
        let waiting: Vec<_> = probe.drain().iter().map(|taken| format!("{:?}", taken.device())).collect();
        assert_eq!(waiting, [r#""new""#, r#""lamp""#]);
        assert_eq!(property(&bench, "lamp", "t").actual_version, Some(TwinVersion { cloud: 0, edge: 1 }));
        bench.effects();
        // A batch of questions waits as well, and without a transaction.
        let (lease, probe) = lease_posted(vec![(behind(), get("lamp"))]);
        twin.settle(lease);
        assert_eq!(probe.drain().len(), 1);
        assert!(bench.effects().is_empty());
        // Membership is done and the device is still not there: then it is unknown.
        let _ = bench.membership.drain();
        let (lease, _probe) = lease_posted(vec![(behind(), update("new", set))]);
        twin.settle(lease);
        assert_eq!(told(&bench.effects())[0].1["code"], 404);
    });
}

#[test]
fn effects_of_one_batch_have_a_limit_and_the_rest_of_the_batch_comes_next() {
    actix_rt::System::new().block_on(async {
        let bench = Workbench::with(&["lamp"]);
        let mut twin = twin(&bench);
        let value = "x".repeat(512);
        let all: Vec<_> = (0..500).map(|n| format!(r#""p{n}":{{"expected":{{"value":"{value}"}}}}"#)).collect();
        settle(&mut twin, vec![update("lamp", &format!("{{{}}}", all.join(",")))]);
        bench.effects();
        let (lease, probe) = lease((0..50).map(|_| get("lamp")).chain([update("lamp", "{}")]).collect());
        twin.settle(lease);
        let told = bench.communication.drain();
        let bytes: usize = told.iter().map(|message| actor::Mail::bytes(&**message)).sum();
        assert!(bytes < 2 * super::super::communication::EFFECTS_BYTES_MAX, "{bytes}");
        assert!(matches!(&*told[0], CommunicationMessage::Effects(effects) if effects.len() < 50));
        assert!(probe.next(Duration::from_secs(1)).await.is_some());
    });
}

#[test]
fn a_mappers_wish_for_a_report_changes_nothing_and_the_cloud_hears_the_stored_value() {
    actix_rt::System::new().block_on(async {
        let bench = Workbench::with(&["lamp"]);
        let mut twin = twin(&bench);
        settle(&mut twin, vec![update("lamp", r#"{"t":{"actual":{"value":"1"}}}"#)]);
        bench.effects();
        let before = property(&bench, "lamp", "t");
        bench.write(|tx| {
            let seqs: Vec<_> = pending_report::of_device(tx, &id("lamp"))?.properties.iter().map(|(_, change)| change.seq).collect();
            pending_report::settle(tx, &seqs)
        });
        let names = || ["t", "not-there"].map(|name| PropertyName::new(name).unwrap()).to_vec();
        let wish = |device: &str| TwinMessage::Report { device: id(device), event_id: "e".into(), names: names() };
        settle(&mut twin, vec![wish("lamp")]);
        assert_eq!(property(&bench, "lamp", "t"), before);
        assert_eq!(bench.pending("lamp"), ["t"]);
        assert!(matches!(&bench.effects()[..], [Effect::ReportsPending]));
        settle(&mut twin, vec![wish("nobody")]);
        assert_eq!(told(&bench.effects())[0].1["code"], 404);
    });
}

/// Manual ch. 10.4.3: properties are added, deleted and updated in one transaction or not at all.
#[test]
fn device_twin_trans() {
    let bench = Workbench::with(&["lamp"]);
    let mut twin = twin(&bench);
    settle(&mut twin, vec![update("lamp", r#"{"gone":{"actual":{"value":"1"}},"other":{"actual":{"value":"1"}}}"#)]);
    bench.effects();
    let change = r#"{"gone":null,"other":{"actual":{"value":"2"}},"new":{"expected":{"value":"3"}},"newer":{"actual":{"value":"4"}}}"#;
    let steps = fails_at_every_step(&bench.store, || {
        settle(&mut twin, vec![update("lamp", change)]);
        let told = told(&bench.effects());
        let code = &told[0].1["code"];
        assert!(code.is_null() || (code == 500 && told.len() == 1), "{told:?}");
        code.is_null()
    });
    // Four properties, and what the cloud must hear of each.
    assert!(steps >= 8, "{steps}");
    let value = |name: &str| property(&bench, "lamp", name).actual.map(|side| side.value);
    assert!(property(&bench, "lamp", "gone").is_tombstone());
    assert_eq!((value("other").unwrap(), value("newer").unwrap()), ("2".into(), "4".into()));
    assert_eq!(property(&bench, "lamp", "new").expected.unwrap().value, "3");
}
