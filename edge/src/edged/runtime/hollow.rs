//! An engine that runs nothing, for measuring and for tests of scale: containers are entries in a map. It forgets them when
//! the process ends. Never the default: `edged.container-runtime: hollow` asks for it, and the node says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream;
use jiff::Timestamp;
use tokio::sync::broadcast;

use super::{
    Answer, Container, ContainerRuntime, ContainerSpec, ContainerState, Events, Executed, Exit, Image, LogQuery, LogStream, Login, Memory, Network,
    RuntimeError, RuntimeEvent, RuntimeVersion, Summary, Usage, label,
};

/// Events that a slow listener may be behind.
const EVENTS_KEPT: usize = 4096;

/// The engine.
pub struct HollowRuntime {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<(String, RuntimeEvent)>,
}

#[derive(Default)]
struct Inner {
    containers: BTreeMap<String, Hollow>,
    volumes: BTreeMap<String, BTreeMap<String, String>>,
    made: u64,
}

struct Hollow {
    container: Container,
    name: String,
}

impl Default for HollowRuntime {
    fn default() -> Self {
        Self { inner: Arc::default(), events: broadcast::channel(EVENTS_KEPT).0 }
    }
}

fn ready<'a, T: Send + 'a>(answer: Result<T, RuntimeError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(answer))
}

fn labelled(labels: &BTreeMap<String, String>, wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(name, value)| labels.get(*name).is_some_and(|found| found == value))
}

impl HollowRuntime {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Under this lock entries are put in and taken out whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, container: &Container, action: &str) {
        let label = |name: &str| container.labels.get(name).cloned();
        if let (Some(node), Some(pod_uid)) = (label(label::NODE), label(label::POD_UID)) {
            // Nobody listens: nobody misses it.
            let _ = self.events.send((node, RuntimeEvent::Container { pod_uid, action: action.to_owned() }));
        }
    }

    /// Changes the state of a container that is there; `true` if it was of the state that `from` accepts.
    fn change(&self, id: &str, action: &str, change: impl FnOnce(&mut Container) -> bool) -> Result<bool, RuntimeError> {
        let changed = {
            let mut inner = self.inner();
            let Some(found) = inner.containers.get_mut(id) else { return Err(RuntimeError::NotFound(format!("No such container: {id}"))) };
            change(&mut found.container).then(|| found.container.clone())
        };
        if let Some(container) = &changed {
            self.tell(container, action);
        }
        Ok(changed.is_some())
    }
}

impl ContainerRuntime for HollowRuntime {
    fn version(&self) -> Answer<'_, RuntimeVersion> {
        ready(Ok(RuntimeVersion { name: "hollow", version: env!("CARGO_PKG_VERSION").into() }))
    }

    fn list<'a>(&'a self, labels: &'a [(&'a str, &'a str)]) -> Answer<'a, Vec<Summary>> {
        let summary = |(id, one): (&String, &Hollow)| Summary {
            id: id.clone(),
            labels: one.container.labels.clone(),
            state: match one.container.state {
                ContainerState::Created => "created",
                ContainerState::Running { .. } => "running",
                ContainerState::Exited(_) => "exited",
                ContainerState::Removing => "removing",
                ContainerState::Dead => "dead",
            }
            .into(),
            created: one.container.created_at.as_second(),
        };
        ready(Ok(self.inner().containers.iter().filter(|(_, one)| labelled(&one.container.labels, labels)).map(summary).collect()))
    }

    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Container>> {
        ready(Ok(self.inner().containers.get(id).map(|one| one.container.clone())))
    }

    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> Answer<'a, String> {
        let mut inner = self.inner();
        if inner.containers.values().any(|one| one.name == spec.name) {
            return ready(Err(RuntimeError::Refused { code: 409, message: format!("The name {} is taken", spec.name) }));
        }
        inner.made += 1;
        let id = format!("{:064x}", inner.made);
        let ip = (spec.network == Network::Bridge).then(|| format!("10.255.{}.{}", inner.made / 250 % 256, inner.made % 250 + 2));
        let container = Container {
            id: id.clone(),
            labels: spec.labels.clone(),
            state: ContainerState::Created,
            image: spec.image.clone(),
            image_id: "sha256:hollow".into(),
            ip,
            created_at: Timestamp::now(),
        };
        inner.containers.insert(id.clone(), Hollow { container, name: spec.name.clone() });
        ready(Ok(id))
    }

    fn start<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        let started = self.change(id, "start", |container| {
            let is_new = !matches!(container.state, ContainerState::Running { .. });
            container.state = ContainerState::Running { started_at: Timestamp::now() };
            is_new
        });
        ready(started.map(|_| ()))
    }

    fn stop<'a>(&'a self, id: &'a str, _grace: Duration) -> Answer<'a, ()> {
        let stopped = self.change(id, "die", |container| {
            let ContainerState::Running { started_at } = container.state else { return false };
            let exit = Exit { code: 143, oom_killed: false, error: String::new(), started_at, finished_at: Timestamp::now() };
            container.state = ContainerState::Exited(exit);
            true
        });
        ready(match stopped {
            Ok(_) | Err(RuntimeError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        })
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        let removed = self.inner().containers.remove(id);
        if let Some(one) = removed {
            self.tell(&one.container, "destroy");
        }
        ready(Ok(()))
    }

    fn exec<'a>(&'a self, _id: &'a str, _command: &'a [String], _limit: Duration) -> Answer<'a, Executed> {
        ready(Ok(Executed::default()))
    }

    fn logs<'a>(&'a self, _id: &'a str, _query: &'a LogQuery) -> LogStream<'a> {
        Box::pin(stream::empty())
    }

    fn usage<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Usage>> {
        let runs = self.inner().containers.get(id).is_some_and(|one| matches!(one.container.state, ContainerState::Running { .. }));
        ready(Ok(runs.then(Usage::default)))
    }

    fn image<'a>(&'a self, image: &'a str) -> Answer<'a, Option<Image>> {
        ready(Ok(Some(Image { id: "sha256:hollow".into(), names: vec![image.to_owned()], ..Image::default() })))
    }

    fn images(&self) -> Answer<'_, Vec<Image>> {
        ready(Ok(Vec::new()))
    }

    fn pull<'a>(&'a self, _image: &'a str, _login: Option<&'a Login>) -> Answer<'a, ()> {
        ready(Ok(()))
    }

    fn load_image(&self, _archive: Vec<u8>) -> Answer<'_, ()> {
        ready(Ok(()))
    }

    fn remove_image<'a>(&'a self, _id: &'a str) -> Answer<'a, ()> {
        ready(Ok(()))
    }

    fn root_dir(&self) -> Answer<'_, PathBuf> {
        ready(Ok(PathBuf::from("/")))
    }

    fn create_volume<'a>(&'a self, name: &'a str, _memory: Memory, labels: &'a [(&'a str, &'a str)]) -> Answer<'a, ()> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.inner().volumes.insert(name.to_owned(), labels);
        ready(Ok(()))
    }

    fn volumes<'a>(&'a self, labels: &'a [(&'a str, &'a str)]) -> Answer<'a, Vec<String>> {
        ready(Ok(self.inner().volumes.iter().filter(|(_, found)| labelled(found, labels)).map(|(name, _)| name.clone()).collect()))
    }

    fn remove_volume<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        self.inner().volumes.remove(name);
        ready(Ok(()))
    }

    fn events<'a>(&'a self, node: &'a str) -> Events<'a> {
        let next = move |mut events: broadcast::Receiver<(String, RuntimeEvent)>| async move {
            loop {
                match events.recv().await {
                    Ok((of, event)) if of == node => return Some((Ok(event), events)),
                    Ok(_) => {}
                    // What was missed is found by the next comparison, as after any gap.
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        let error = RuntimeError::Protocol(format!("{missed} events were missed"));
                        return Some((Err(error), events));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        };
        Box::pin(stream::unfold(self.events.subscribe(), next))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use futures_util::StreamExt;

    fn spec(name: &str) -> ContainerSpec {
        let labels = [(label::NODE, "n1"), (label::POD_UID, "u-1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        ContainerSpec { name: name.into(), labels, ..ContainerSpec::default() }
    }

    #[actix_rt::test]
    async fn it_behaves_as_an_engine_does() {
        let engine = HollowRuntime::default();
        let mut events = engine.events("n1");
        let id = engine.create(&spec("a")).await.unwrap();
        assert!(matches!(engine.create(&spec("a")).await, Err(RuntimeError::Refused { code: 409, .. })));
        engine.start(&id).await.unwrap();
        engine.start(&id).await.unwrap();
        assert!(engine.inspect(&id).await.unwrap().unwrap().ip.is_some());
        assert_eq!(engine.list(&[(label::NODE, "n1")]).await.unwrap()[0].state, "running");
        assert!(engine.list(&[(label::NODE, "n2")]).await.unwrap().is_empty());
        engine.stop(&id, Duration::ZERO).await.unwrap();
        assert!(engine.usage(&id).await.unwrap().is_none());
        engine.remove(&id).await.unwrap();
        engine.remove(&id).await.unwrap();
        engine.stop(&id, Duration::ZERO).await.unwrap();
        assert!(engine.start(&id).await.is_err());
        for action in ["start", "die", "destroy"] {
            assert_eq!(events.next().await.unwrap().unwrap(), RuntimeEvent::Container { pod_uid: "u-1".into(), action: action.into() });
        }
    }
}
