//! With twins at hand, Twin says and stores what it would without them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use model::PropertyName;
use proptest::prelude::*;
use serde_json::Value;

use super::Twin;
use super::tests::{get, settle, twin, update};
use crate::communication::testing::{Workbench, id, named, told};
use crate::store::testing::tamper;
use crate::store::{device, twin as rows};

const DEVICES: [&str; 2] = ["lamp", "fan"];
const PROPERTIES: [&str; 2] = ["a", "b"];

/// What happens to a device.
#[derive(Clone, Debug)]
enum Step {
    /// It sets a property, in a batch with so many others of both devices.
    Update(usize, usize, u8, usize),
    /// It asks.
    Get,
    /// Another module writes its twin.
    Foreign(usize, usize, u8),
    /// It goes and comes again.
    Again(usize),
    /// An update of it that the disk refuses.
    Failing(usize, usize, u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let (device, property) = (0..DEVICES.len(), 0..PROPERTIES.len());
    prop_oneof![
        4 => (device.clone(), property.clone(), any::<u8>(), 0_usize..4).prop_map(|(d, p, v, n)| Step::Update(d, p, v, n)),
        4 => Just(Step::Get),
        2 => (device.clone(), property.clone(), any::<u8>()).prop_map(|(d, p, v)| Step::Foreign(d, p, v)),
        1 => device.clone().prop_map(Step::Again),
        2 => (device, property, any::<u8>()).prop_map(|(d, p, v)| Step::Failing(d, p, v)),
    ]
}

fn set(property: &str, value: u8) -> String {
    format!(r#"{{"{property}":{{"actual":{{"value":"{value}"}}}}}}"#)
}

/// What is answered to both devices.
fn answers(twin: &mut Twin, bench: &Workbench) -> Vec<(String, Value)> {
    bench.effects();
    settle(twin, DEVICES.iter().map(|device| get(device)).collect());
    told(&bench.effects())
}

fn take_step(twin: &mut Twin, bench: &Workbench, step: &Step) {
    match *step {
        Step::Update(device, property, value, others) => {
            let more = (0..others).map(|n| update(DEVICES[n % 2], &set(PROPERTIES[n / 2], value.wrapping_add(1))));
            settle(twin, more.chain([update(DEVICES[device], &set(PROPERTIES[property], value))]).collect());
        }
        Step::Get => drop(answers(twin, bench)),
        Step::Foreign(device, property, value) => bench.write(|tx| {
            let (device, name) = (id(DEVICES[device]), PropertyName::new(PROPERTIES[property]).unwrap());
            let mut stored = rows::load(tx, &device)?.properties.remove(&name).unwrap_or_default();
            stored.actual = Some(model::TwinValue { value: format!("foreign {value}"), timestamp: model::Timestamp(1) });
            rows::put(tx, &device, &name, &stored)
        }),
        Step::Again(device) => bench.write(|tx| {
            device::remove(tx, &id(DEVICES[device]))?;
            device::insert(tx, &named(DEVICES[device])).map(drop)
        }),
        Step::Failing(device, property, value) => {
            for event in ["INSERT", "UPDATE"] {
                tamper(&bench.store, &format!("CREATE TRIGGER no_{event} BEFORE {event} ON device_twin BEGIN SELECT RAISE(FAIL, 'no'); END"));
            }
            settle(twin, vec![update(DEVICES[device], &set(PROPERTIES[property], value))]);
            for event in ["INSERT", "UPDATE"] {
                tamper(&bench.store, &format!("DROP TRIGGER no_{event}"));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_the_answers_are_those_of_a_twin_that_has_only_the_store(steps in prop::collection::vec(any_step(), 1..30)) {
        let bench = Workbench::with(&DEVICES);
        let mut with = twin(&bench);
        for step in &steps {
            take_step(&mut with, &bench, step);
            let before = answers(&mut with, &bench);
            prop_assert_eq!(before, answers(&mut twin(&bench), &bench), "after {:?}", step);
        }
    }
}

#[test]
fn a_question_about_what_is_at_hand_needs_no_store_and_what_another_module_commits_is_seen() {
    let bench = Workbench::with(&["lamp", "fan"]);
    let mut twin = twin(&bench);
    settle(&mut twin, vec![update("lamp", &set("a", 1))]);
    answers(&mut twin, &bench);
    // Behind the store's back: only what is read from the file shows it.
    tamper(&bench.store, "UPDATE device_twin SET actual = 'behind'");
    assert!(answers(&mut twin, &bench)[0].1.to_string().contains(r#""value":"1""#));
    bench.write(|tx| device::insert(tx, &named("other")).map(drop));
    assert!(answers(&mut twin, &bench)[0].1.to_string().contains(r#""value":"behind""#));
}

#[test]
fn the_shelf_has_a_limit() {
    let names: Vec<String> = (0..300).map(|number| format!("d{number}")).collect();
    let bench = Workbench::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut twin = twin(&bench);
    let ten: Vec<_> = (0..10).map(|n| format!(r#""p{n}":{{"actual":{{"value":"x"}}}}"#)).collect();
    let mut most = 0;
    for name in &names {
        settle(&mut twin, vec![update(name, &format!("{{{}}}", ten.join(",")))]);
        bench.effects();
        most = most.max(names.iter().filter(|name| twin.shelf.get(&id(name)).is_some()).count());
        assert!(twin.shelf.get(&id(name)).is_some());
    }
    // 2,048 properties; a device counts as one more.
    assert_eq!(most, 2_048 / 11);
}
