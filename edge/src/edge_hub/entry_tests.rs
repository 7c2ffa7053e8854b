//! What enters at this border, and what of it is set aside.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use actor::testing::{Probe, lease_posted};
use actor::{ChildSpec, Drill, Ingress, Mail as _, MsgId, Policy, Quarantine, Registry, RetryError, Supervisor, eventually};
use model::{Namespace, NodeName};
use wire::hub::{CAUSES_MAX, Downstream, Frame, ObjectOperation, RawJson, Resource, Upstream, codec};

use super::tests::{World, hub_of, scene};
use super::{EdgeHubMessage, entry};
use crate::meta_manager::{self, MetaManager, MetaManagerMessage};
use crate::store::Store;
use crate::wiring::{Beside, Mailboxes};

const SOON: Duration = Duration::from_secs(20);
const VALUE: &str = "aHVudGVyMg==";

fn frame(key: &str, object: &str) -> Frame<Downstream> {
    let object = RawJson::from_text(object.into()).unwrap();
    let body = Downstream::Object { operation: ObjectOperation::Insert, key: key.parse().unwrap(), object };
    let id = wire::hub::MsgId::new(&MsgId::fresh().to_string()).unwrap();
    Frame::new(id, model::Timestamp(1), body)
}

fn secret() -> Frame<Downstream> {
    frame("default/secret/tok", &format!(r#"{{"metadata":{{"name":"tok","uid":"u-1"}},"data":{{"password":"{VALUE}"}}}}"#))
}

#[test]
fn a_frame_and_its_message_are_one_and_its_text_is_kept_unless_it_may_be_a_secret() {
    let cause = wire::hub::MsgId::new(&MsgId::fresh().to_string()).unwrap();
    let pod = frame("default/pod/web", r#"{"metadata":{"name":"web"}}"#).with_cause([cause.clone()]);
    let text = codec::encode(&pod).unwrap();
    let meta = entry::meta_of(&text);
    assert_eq!((meta.id.to_string().as_str(), meta.parent.unwrap().to_string().as_str()), (pod.id.as_str(), cause.as_str()));
    let whole = Ingress { border: "cloud".into(), address: "default/pod/web".into(), payload: Some(text.into()) };
    assert_eq!(meta.ingress.as_deref(), Some(&whole));

    for (key, object) in [("default/secret/tok", "{}"), ("default/serviceaccounttoken/x", "{}")] {
        let ingress = entry::meta_of(&codec::encode(&frame(key, object)).unwrap()).ingress.unwrap();
        assert_eq!((ingress.address.as_str(), &ingress.payload), (key, &None), "{key}");
    }
    let large = format!(r#"{{"data":"{}"}}"#, "x".repeat(actor::Quarantined::PAYLOAD_MAX));
    assert_eq!(entry::meta_of(&codec::encode(&frame("default/pod/web", &large)).unwrap()).ingress.unwrap().payload, None);
    // Of a peer that calls its frames otherwise, and of what is no frame, it is a fresh one.
    for text in [r#"{"header":{"msg_id":"o1"}}"#, "no frame"] {
        assert_eq!(entry::meta_of(text).parent, None);
    }
    assert!(pod.cause.len() <= CAUSES_MAX);
}

#[tokio::test]
async fn a_message_has_the_frames_identity_and_form_in_its_module() {
    let mut scene = scene(8);
    let text = codec::encode(&frame("default/pod/web", r#"{"metadata":{"name":"web"}}"#)).unwrap();
    let meta = entry::meta_of(&text);
    let (id, ingress) = (meta.id, meta.ingress.clone());
    scene.handle_posted(vec![(meta, EdgeHubMessage::Received { session: 1, text })]);
    let taken = scene.world.meta_manager.try_next().unwrap();
    assert_eq!((taken.meta().id, &taken.meta().ingress), (id, &ingress));
}

#[test]
fn nothing_describes_a_secret_but_by_its_key_and_uid() {
    let text = codec::encode(&secret()).unwrap();
    let Downstream::Object { operation, key, object } = secret().body else { panic!("an object") };
    let message = MetaManagerMessage::FromCloud { id: secret().id, operation, key, resource_version: None, object };
    for text in [EdgeHubMessage::Received { session: 1, text }.describe(), message.describe()] {
        assert!(text.contains("default/secret/tok") && !text.contains(VALUE) && text.len() < 1024, "{text}");
    }
    assert!(message.describe().contains("u-1"));
}

#[test]
fn a_secret_that_is_set_aside_leaves_no_byte_of_its_value_on_disk_and_is_refused_to_the_cloud() {
    actix_rt::System::new().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("quarantine");
        let quarantine = Quarantine::open(&kept).unwrap();
        let mail = Mailboxes::new(&crate::config::EdgeConfig::default().mailbox);
        crate::quarantine::attach(&quarantine, &mail, &Arc::new(Beside::default()));
        let cloud = Probe::of(&mail.edge_hub);

        let store = Store::open(dir.path().join("edge.db")).unwrap();
        let peers = meta_manager::Peers { edge_hub: Probe::new("other", 64).handle(), edged: None, own: mail.meta_manager.clone() };
        let config = meta_manager::Config::new(NodeName::new("n1").unwrap(), Namespace::new("default").unwrap(), Duration::from_secs(3600));
        let make = move || MetaManager::new(store.clone(), config.clone(), peers.clone());
        let registry = Registry::with_quarantine(quarantine.clone());
        let running = Supervisor::new("test", Policy::default())
            .registered(&registry)
            .child(ChildSpec::new(&mail.meta_manager, make))
            .start(|why| panic!("{why}"));
        running.drill("meta-manager", Drill::PanicInHand(3)).await.unwrap();

        let secret = secret();
        let text = codec::encode(&secret).unwrap();
        let mut hub = hub_of(&World::new(8), |peers| peers.meta_manager = mail.meta_manager.clone());
        hub.settle(lease_posted(vec![(entry::meta_of(&text), EdgeHubMessage::Received { session: 1, text })]).0);

        eventually!(SOON, quarantine.list().len() == 1);
        let entry = quarantine.list().remove(0);
        assert_eq!((entry.id.as_str(), entry.actor.as_str()), (secret.id.as_str(), "meta-manager"));
        assert!(entry.text.contains("default/secret/tok") && entry.text.contains("u-1"), "{}", entry.text);
        let ingress = entry.ingress.unwrap();
        assert_eq!((ingress.address.as_str(), ingress.payload), ("default/secret/tok", None));
        assert_eq!(quarantine.retry(&entry.id), Err(RetryError::Internal(entry.id.clone())));

        let told = cloud.next(SOON).await.unwrap();
        let EdgeHubMessage::Send(refusal) = &*told else { panic!("{:?}", *told) };
        assert_eq!(refusal.parent.as_ref(), Some(&secret.id));
        let Upstream::Refusal { resource, reason } = &refusal.body else { panic!("{refusal:?}") };
        assert_eq!(resource, &Resource::Object("default/secret/tok".parse().unwrap()));
        assert!(reason.contains(&entry.id), "{reason}");

        quarantine.flush();
        let files: Vec<_> = std::fs::read_dir(&kept).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        assert!(files.len() == 1 && files[0].contains("default/secret/tok"), "{files:?}");
        assert!(!files[0].contains(VALUE) && !files[0].contains("hunter2") && !files[0].contains("password"), "{files:?}");
        running.shutdown().await;
    });
}
