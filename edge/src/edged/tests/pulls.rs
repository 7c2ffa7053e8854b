//! Images of a registry that asks for a login, by tag and by digest, on the real engine.

use std::time::Duration;

use actor::eventually;
use serde_json::{Value, json};

use super::super::runtime::testing::{Engine, Images, engine};
use super::module::{Edge, SOCKET, leave, sleeper, start};
use super::registry::{PASSWORD, Registry};

const SOON: Duration = Duration::from_secs(60);

fn of_registry(engine: &Engine, name: &str, image: &str, secrets: &[&str]) -> Value {
    let mut pod = sleeper(engine, name);
    pod["spec"]["containers"][0]["image"] = json!(image);
    pod["spec"]["imagePullSecrets"] = secrets.iter().map(|secret| json!({"name": secret})).collect();
    pod
}

fn message(edge: &Edge, pod: &str) -> String {
    edge.status(pod)["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned()
}

#[actix_rt::test]
async fn who_has_the_login_gets_the_image_and_who_has_not_is_told() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let registry = Registry::start(&engine.node);
    let image = |tag: &str| format!("{}/app:{tag}", registry.address);
    let _images = Images(&engine, ["right", "second", "corrected"].map(image).to_vec());
    edge.apply("secret", &registry.secret("right", PASSWORD)).await;
    edge.apply("secret", &registry.secret("wrong", "hunter2")).await;
    edge.apply("secret", &registry.secret("later", "hunter3")).await;

    let pods =
        [("right", vec!["right"]), ("second", vec!["wrong", "right"]), ("none", vec![]), ("wrong", vec!["wrong"]), ("corrected", vec!["later"])];
    let pods = pods.map(|(name, secrets)| of_registry(&engine, name, &image(name), &secrets));
    for pod in &pods {
        edge.apply("pod", pod).await;
    }
    for name in ["right", "second"] {
        eventually!(SOON, edge.is_ready(name));
        assert_eq!(edge.status(name)["containerStatuses"][0]["image"], image(name));
        assert_eq!(edge.reasons(name)[..2], ["Pulling", "Pulled"], "{name}");
    }
    for (name, why) in [("none", "no basic auth credentials"), ("wrong", "unauthorized"), ("corrected", "unauthorized")] {
        eventually!(SOON, edge.reasons(name).contains(&"Failed".to_owned()));
        eventually!(SOON, message(&edge, name).contains(why));
        assert!(["ErrImagePull", "ImagePullBackOff"].contains(&edge.waits(name).as_str()), "{}", edge.waits(name));
        assert!(!edge.status(name).to_string().contains("hunter"), "a password is shown: {}", edge.status(name));
    }
    // The Secret is put right: that is found out after the pause of a failed pull, at the latest.
    edge.apply("secret", &registry.secret("later", PASSWORD)).await;
    eventually!(SOON, edge.is_ready("corrected"));
    let mut given = registry.given();
    given.sort();
    given.dedup();
    assert_eq!(given, ["app:corrected", "app:right", "app:second"]);
    for pod in &pods[1..] {
        edge.delete("pod", pod).await;
    }
    leave(&edge, &engine, &pods[0]).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn an_image_is_what_its_digest_says_or_is_not_run() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let registry = Registry::start(&engine.node);
    let exact = format!("{}/app@{}", registry.address, registry.digest);
    let tagged = format!("{}/app:1@{}", registry.address, registry.digest);
    let _images = Images(&engine, vec![exact.clone()]);
    edge.apply("secret", &registry.secret("reg", PASSWORD)).await;
    let pods = [
        ("exact", exact.clone()),
        ("tagged", tagged),
        ("other", format!("{}/app@sha256:{}", registry.address, "0".repeat(64))),
        ("broken", format!("{}/broken:1", registry.address)),
        ("forged", format!("{}/forged:1", registry.address)),
    ];
    let pods = pods.map(|(name, image)| of_registry(&engine, name, &image, &["reg"]));
    for pod in &pods {
        edge.apply("pod", pod).await;
    }
    for name in ["exact", "tagged"] {
        eventually!(SOON, edge.is_ready(name));
    }
    for (name, why) in [("other", "manifest unknown"), ("broken", "schemaVersion"), ("forged", "failed to pull image")] {
        eventually!(SOON, edge.reasons(name).contains(&"Failed".to_owned()));
        eventually!(SOON, message(&edge, name).starts_with("failed to pull image"));
        assert!(message(&edge, name).contains(why), "{}", message(&edge, name));
        assert_eq!(edge.status(name)["phase"], "Pending");
    }
    for pod in &pods[1..] {
        edge.delete("pod", pod).await;
    }
    leave(&edge, &engine, &pods[0]).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn always_asks_the_registry_for_each_start_and_if_not_present_does_not() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let registry = Registry::start(&engine.node);
    let image = format!("{}/app:1", registry.address);
    let _images = Images(&engine, vec![image.clone()]);
    edge.apply("secret", &registry.secret("reg", PASSWORD)).await;
    let made = |name: &str, policy: &str| {
        let mut pod = of_registry(&engine, name, &image, &["reg"]);
        pod["spec"]["containers"][0]["imagePullPolicy"] = json!(policy);
        pod
    };
    let pods = [made("first", "IfNotPresent"), made("again", "Always"), made("here", "IfNotPresent"), made("gone", "Always")];
    edge.apply("pod", &pods[0]).await;
    eventually!(SOON, edge.is_ready("first"));
    let before = registry.given().len();
    edge.apply("pod", &pods[1]).await;
    eventually!(SOON, edge.is_ready("again"));
    let after = registry.given().len();
    assert!(after > before, "the registry was not asked: {:?}", registry.given());
    edge.apply("pod", &pods[2]).await;
    eventually!(SOON, edge.is_ready("here"));
    assert_eq!(registry.given().len(), after, "the registry was asked for what is here");
    // With the registry away what is here still starts for the one, and for the other only the registry could say so.
    registry.stop().await;
    edge.apply("pod", &pods[3]).await;
    eventually!(SOON, edge.waits("gone") == "ErrImagePull");
    for pod in &pods[1..] {
        edge.delete("pod", pod).await;
    }
    leave(&edge, &engine, &pods[0]).await;
    edge.stop().await;
}
