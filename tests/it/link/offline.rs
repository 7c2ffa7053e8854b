//! A long time without the cloud, in little time: much happens on both sides, and is told once.

use harness::api::CORE;
use harness::{RawClient, eventually, http, names, sqlite};
use serde_json::json;

use super::{Linked, MAPS, PROPERTIES, config_map, pod, property, resident};

/// Updates of the device while the cloud is away, after those that warm the daemon up.
const UPDATES: usize = 12_000;
const WARM: usize = 6_000;
/// What the edge may take more at the end than when it was warm, in KiB.
const GROWN_KIB_MAX: u64 = 4 << 10;

#[test]
fn after_long_without_the_cloud_both_are_in_step_and_each_property_was_reported_once() {
    long_without_the_cloud(false);
}

#[test]
fn after_long_without_the_cloud_what_was_deleted_at_once_is_gone_at_the_edge() {
    long_without_the_cloud(true);
}

/// `at_once`: whether what the edge knows is also deleted so that it is not asked first.
#[track_caller]
#[allow(clippy::print_stdout, reason = "how much it was is for whoever reads the output")]
fn long_without_the_cloud(at_once: bool) {
    let mut linked = Linked::start();
    let pid = linked.node.edge.daemon().pid();
    let node = &linked.node;
    // Known to the edge before, and deleted while it is away.
    let going = names::unique("going");
    linked.api.create(&format!("{CORE}/configmaps"), &config_map(&going, "0")).unwrap();
    linked.api.create(&format!("{CORE}/pods"), &pod(&going, &node.edge.node, std::slice::from_ref(&going))).unwrap();
    linked.must_be_in_step_soon();
    linked.line.refuse();
    eventually!(10, "the edge sees it", node.is_disconnected());
    eventually!(10, "the cloud sees it", linked.cloud_sees(0));
    let sent = || http::metric(node.edge.admin_port, "skep_edge_reports_sent_total");
    let sent_before = sent().unwrap();

    let mut device = RawClient::connect(node.edge.mqtt_port, &names::unique("mapper"));
    let topic = format!("$hw/events/device/{}/twin/update", node.device);
    let mut update = |number: usize| {
        let body = json!({"event_id": "e", "timestamp": 1, "twin": {property(number % PROPERTIES): {"actual": {"value": number.to_string()}}}});
        device.publish(topic.as_bytes(), body.to_string().as_bytes()).unwrap();
    };
    let waiting = || sqlite::query(&node.edge.database(), "SELECT count(*) FROM pending_report").map(|rows| rows.parse::<usize>().unwrap());
    (0..WARM).for_each(&mut update);
    let warm = resident(pid);
    for number in WARM..WARM + UPDATES {
        update(number);
        // The operator's day: one thing after the other.
        match number - WARM {
            1_000 => linked.kubectl.apply(&config_map(&node.map(0), "changed").to_string()),
            3_000 => {
                let new = names::unique("new");
                linked.kubectl.apply(&config_map(&new, "1").to_string());
                linked.kubectl.apply(&pod(&new, &node.edge.node, &[new.clone(), node.map(1)]).to_string());
            }
            5_000 => {
                let never = names::unique("never");
                linked.kubectl.apply(&pod(&never, &node.edge.node, &node.maps()).to_string());
                linked.kubectl.run(&["delete", "pod", &never, "--force", "--grace-period=0"]).unwrap();
            }
            7_000 => drop(linked.kubectl.run(&["delete", "pod", &going, "--wait=false"]).unwrap()),
            9_000 if at_once => drop(linked.kubectl.run(&["delete", "configmap", &going]).unwrap()),
            10_000 => node.desire(&linked.api, &property(0), "wanted").unwrap(),
            11_000 => (0..MAPS).for_each(|map| linked.kubectl.apply(&config_map(&node.map(map), "last").to_string())),
            _ => {}
        }
        if number % 50 == 0 {
            let rows = waiting().unwrap();
            assert!(rows <= PROPERTIES, "{rows} rows wait for {PROPERTIES} properties");
        }
    }
    // PUBACK says that it was received; it is stored a moment later.
    let last = (0..PROPERTIES).map(|number| (property(number), (WARM + UPDATES - PROPERTIES + number).to_string())).collect();
    eventually!(20, "the last values are stored", super::same("values", &last, &node.column("actual")?));
    assert_eq!(waiting().unwrap(), PROPERTIES);
    assert!(linked.is_in_step().is_err(), "nothing passed");
    let grown = resident(pid).saturating_sub(warm);
    println!("warm {warm} KiB, grown by {grown} KiB");
    assert!(grown < GROWN_KIB_MAX, "the edge took {grown} KiB more");

    linked.line.mend();
    linked.must_be_in_step_soon();
    assert_eq!(super::reported_in_api(&linked.api, &node.device).unwrap(), last);
    eventually!(
        20,
        "nothing waits any more",
        match waiting()? {
            0 => Ok(()),
            rows => Err(format!("{rows} rows")),
        }
    );
    let reports = sent().unwrap() - sent_before;
    // Once more if the connection was made again before they were confirmed.
    assert!((1.0..=2.0 * PROPERTIES as f64).contains(&reports), "{reports} reports for {PROPERTIES} properties");
    linked.node.edge.daemon().must_run().unwrap();
}
