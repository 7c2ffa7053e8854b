//! The `kube` crate, as the controllers of this program use it.

use futures_util::StreamExt as _;
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;

use super::*;

fn config_map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..ConfigMap::default() }
}

fn devices(client: kube::Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("devices.kubeedge.io", "v1beta1", "Device");
    Api::namespaced_with(client, "default", &ApiResource::from_gvk(&kind))
}

#[test]
fn a_watcher_sees_what_is_there_and_what_happens() {
    let fixture = fixture();
    block_on(async {
        let maps: Api<ConfigMap> = Api::namespaced(fixture.client().await, "default");
        maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
        let mut stream = Box::pin(watcher(maps.clone(), watcher::Config::default()).default_backoff());
        let mut names = Vec::new();
        while let Some(event) = stream.try_next().await.unwrap() {
            match event {
                watcher::Event::InitDone => {
                    maps.create(&PostParams::default(), &config_map("b")).await.unwrap();
                    maps.delete("a", &DeleteParams::default()).await.unwrap();
                }
                watcher::Event::InitApply(map) => names.push(format!("there {}", map.metadata.name.unwrap())),
                watcher::Event::Apply(map) => names.push(format!("applied {}", map.metadata.name.unwrap())),
                watcher::Event::Delete(map) => {
                    names.push(format!("deleted {}", map.metadata.name.unwrap()));
                    break;
                }
                watcher::Event::Init => {}
            }
        }
        assert_eq!(names, ["there a", "applied b", "deleted a"]);
    });
}

#[test]
fn a_streaming_list_ends_with_its_bookmark() {
    let fixture = fixture();
    block_on(async {
        let maps: Api<ConfigMap> = Api::namespaced(fixture.client().await, "default");
        for index in 0..150 {
            maps.create(&PostParams::default(), &config_map(&format!("m{index}"))).await.unwrap();
        }
        let mut stream = Box::pin(watcher(maps, watcher::Config::default().streaming_lists()));
        let mut seen = 0;
        loop {
            match stream.try_next().await.unwrap().unwrap() {
                watcher::Event::InitApply(_) => seen += 1,
                watcher::Event::InitDone => break,
                _ => {}
            }
        }
        assert_eq!(seen, 150);
    });
}

#[test]
fn pages_of_a_long_list_hold_every_object_once() {
    let fixture = fixture();
    block_on(async {
        let maps: Api<ConfigMap> = Api::namespaced(fixture.client().await, "skep");
        let creates = (0..620).map(|index| {
            let maps = maps.clone();
            async move { maps.create(&PostParams::default(), &config_map(&format!("m{index:03}"))).await.unwrap() }
        });
        futures_util::stream::iter(creates).buffer_unordered(32).collect::<Vec<_>>().await;
        // Without a limit the list is streamed over several pages of the store.
        let all = maps.list(&ListParams::default()).await.unwrap();
        assert_eq!(all.items.len(), 620);
        let (mut names, mut token) = (Vec::new(), None::<String>);
        loop {
            let parameters = ListParams { limit: Some(100), continue_token: token, ..ListParams::default() };
            let page = maps.list(&parameters).await.unwrap();
            assert!(page.items.len() <= 100);
            names.extend(page.items.into_iter().filter_map(|map| map.metadata.name));
            token = page.metadata.continue_.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        names.dedup();
        assert_eq!(names.len(), 620);
    });
}

#[test]
fn a_watch_follows_objects_into_its_selection_and_out_of_it() {
    let fixture = fixture();
    block_on(async {
        let maps: Api<ConfigMap> = Api::namespaced(fixture.client().await, "default");
        let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
        let label = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"on": value}}}));
        for value in ["yes", "no"] {
            maps.patch("a", &PatchParams::default(), &label(value)).await.unwrap();
        }
        let mut stream = Box::pin(maps.watch(&WatchParams::default().labels("on=yes"), &version).await.unwrap());
        assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
        assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Deleted(_))));
    });
}

#[test]
fn a_version_before_the_restart_is_gone() {
    let mut fixture = fixture();
    block_on(async {
        let maps: Api<ConfigMap> = Api::namespaced(fixture.client().await, "default");
        maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
        fixture.api.take().unwrap().stop().await;
    });
    fixture.api = Some(start(config(fixture.folder.path())).unwrap());
    block_on(async {
        let maps: Api<ConfigMap> = Api::namespaced(fixture.client().await, "default");
        let error = maps.watch(&WatchParams::default(), "2").await.err().unwrap().to_string();
        assert!(error.contains("too old resource version"), "{error}");
        let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        assert!(maps.watch(&WatchParams::default(), &version).await.is_ok());
    });
}

#[test]
fn a_watch_with_a_timeout_ends_with_a_bookmark() {
    let fixture = fixture();
    block_on(async {
        let maps: Api<ConfigMap> = Api::namespaced(fixture.client().await, "default");
        let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        let stream = maps.watch(&WatchParams::default().timeout(1), &version).await.unwrap();
        let events: Vec<_> = stream.try_collect().await.unwrap();
        assert!(matches!(events.as_slice(), [WatchEvent::Bookmark(_)]), "{events:?}");
    });
}

#[test]
fn a_replace_with_an_old_version_is_a_conflict() {
    let fixture = fixture();
    block_on(async {
        let maps: Api<ConfigMap> = Api::namespaced(fixture.client().await, "default");
        let old = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
        let mut new = old.clone();
        new.data = Some([("k".to_owned(), "v".to_owned())].into());
        maps.replace("a", &PostParams::default(), &new).await.unwrap();
        let error = maps.replace("a", &PostParams::default(), &new).await.unwrap_err();
        assert!(matches!(&error, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"), "{error}");
    });
}

#[test]
fn a_status_is_written_beside_the_object() {
    let fixture = fixture();
    block_on(async {
        let client = fixture.client().await;
        let nodes: Api<Node> = Api::all(client.clone());
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-1"}});
        nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"unschedulable": true}});
        let node = nodes.patch_status("edge-1", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        assert_eq!(node.status.unwrap().conditions.unwrap()[0].status, "True");
        assert_eq!(node.spec.and_then(|spec| spec.unschedulable), None);
        let device =
            json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "d"}, "spec": {"nodeName": "edge-1"}});
        let devices = devices(client);
        devices.create(&PostParams::default(), &serde_json::from_value(device).unwrap()).await.unwrap();
        let missing = devices.patch_status("d", &PatchParams::default(), &Patch::Merge(json!({"status": {}}))).await.unwrap_err();
        assert!(matches!(&missing, kube::Error::Api(status) if status.code == 404), "{missing}");
    });
}

#[test]
fn server_side_apply_creates_and_merges() {
    let fixture = fixture();
    block_on(async {
        let pods: Api<Pod> = Api::namespaced(fixture.client().await, "default");
        let apply = |image: &str| {
            Patch::Apply(
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": image}]}}),
            )
        };
        let parameters = PatchParams::apply("test").force();
        pods.patch("p", &parameters, &apply("x:1")).await.unwrap();
        let pod = pods.patch("p", &parameters, &apply("x:2")).await.unwrap();
        assert_eq!(pod.spec.unwrap().containers[0].image.as_deref(), Some("x:2"));
        let metadata = pods.get_metadata("p").await.unwrap();
        assert_eq!(metadata.metadata.name.as_deref(), Some("p"));
    });
}
