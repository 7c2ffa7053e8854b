//! What a cloud writes, byte for byte, reaches the module that it is for.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use wire::fixtures::DOWNSTREAM;

use super::tests::{received, scene};

/// Who hears the golden message of this name.
fn reader(name: &str) -> &'static str {
    match name.trim_end_matches("_v0") {
        "pod_insert" | "pod_delete" | "configmap_insert" | "secret_update" | "device_insert" => "meta-manager",
        "query_answer" | "query_answer_error" | "node_answer" | "confirm_object" | "held_get" => "meta-manager",
        "membership_detail" | "membership_detail_empty" | "membership_update" => "membership",
        "twin_sync" => "twin",
        "attributes" => "device",
        "publish" | "subscribe" | "unsubscribe" => "event-bus",
        "confirm" | "refusal" => "communication",
        other => panic!("say who reads the golden message `{other}`"),
    }
}

#[test]
fn every_golden_message_of_a_cloud_reaches_the_module_it_is_for() {
    for (name, text) in DOWNSTREAM {
        let mut scene = scene(8);
        scene.handle(vec![received((*text).to_owned())]);
        let world = &scene.world;
        let heard: Vec<&str> = [
            ("meta-manager", world.meta_manager.drain().len()),
            ("membership", world.membership.drain().len()),
            ("twin", world.twin.drain().len()),
            ("device", world.device.drain().len()),
            ("communication", world.communication.drain().len()),
            ("event-bus", world.event_bus.drain().len()),
            ("edged", world.edged.drain().len()),
        ]
        .into_iter()
        .flat_map(|(module, messages)| std::iter::repeat_n(module, messages))
        .collect();
        assert_eq!(heard, [reader(name)], "{name}");
        assert!(scene.frames.try_recv().is_err(), "{name} was answered at the border");
    }
}
