//! A real Docker engine for tests: an image of busybox made on the spot, and everything removed afterwards.

#![allow(clippy::unwrap_used, missing_docs, reason = "test support: a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actor::testing::{Lack, leave_out};
use docker_api::Docker;
use docker_api::models::ImageBuildChunk;
use docker_api::opts::{ContainerFilter, ContainerListOpts, ContainerRemoveOpts, ImageBuildOpts, ImageRemoveOpts};
use futures_util::StreamExt;

use super::docker::DockerRuntime;
use super::{ContainerRuntime, ContainerSpec, label};

const SOCKET: &str = "/var/run/docker.sock";
const BUSYBOX: &str = "/bin/busybox";

/// One test's share of the engine: a node name and an image of its own.
pub struct Engine {
    pub runtime: Arc<DockerRuntime>,
    pub docker: Docker,
    pub node: String,
    pub image: String,
}

/// The engine, or `None` with a loud word when none answers here.
pub async fn engine() -> Option<Engine> {
    if std::env::var("SKEP_SKIP").is_ok_and(|skip| skip == "docker") {
        leave_out(Lack::Machine, "this test needs Docker, and SKEP_SKIP=docker is set");
        return None;
    }
    let docker = Docker::unix(SOCKET);
    if let Err(error) = docker.version().await {
        leave_out(Lack::Program, format!("no Docker engine answers at {SOCKET}: {error}"));
        return None;
    }
    if !std::path::Path::new(BUSYBOX).exists() {
        leave_out(Lack::Program, format!("there is no {BUSYBOX} (Debian package busybox-static)"));
        return None;
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    let (node, image) = (format!("test-{id}"), format!("skep-test-{id}:1"));
    let engine = Engine { runtime: Arc::new(DockerRuntime::new(&format!("unix://{SOCKET}")).unwrap()), docker, node, image };
    engine.build(&engine.image).await;
    Some(engine)
}

impl Engine {
    /// Builds the busybox image under this name.
    pub async fn build(&self, image: &str) {
        self.build_with(image, "").await;
    }

    /// The same with further lines of its Dockerfile.
    pub async fn build_with(&self, image: &str, lines: &str) {
        let context = tempfile::tempdir().unwrap();
        std::fs::copy(BUSYBOX, context.path().join("busybox")).unwrap();
        // Another content for each name: of what two tests build together one would take away the other's.
        std::fs::write(context.path().join("stamp"), image).unwrap();
        let file = format!(
            "FROM scratch
COPY busybox stamp /bin/
ENV PATH=/bin
{lines}"
        );
        std::fs::write(context.path().join("Dockerfile"), file).unwrap();
        let images = self.docker.images();
        let opts = ImageBuildOpts::builder(context.path()).tag(image).build();
        let mut steps = images.build(&opts);
        while let Some(step) = steps.next().await {
            built(step);
        }
    }

    /// A container that runs a busybox applet.
    pub fn spec(&self, uid: &str, command: &[&str]) -> ContainerSpec {
        let labels = [(label::MANAGED, "true"), (label::NODE, &self.node), (label::POD_UID, uid), (label::CONTAINER, "c")];
        ContainerSpec {
            name: format!("{}-{uid}", self.node),
            image: self.image.clone(),
            command: std::iter::once("/bin/busybox").chain(command.iter().copied()).map(str::to_owned).collect(),
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect::<BTreeMap<_, _>>(),
            hostname: "box".into(),
            ..ContainerSpec::default()
        }
    }

    /// What a container has written so far.
    pub async fn output(&self, id: &str) -> String {
        let container = self.docker.containers().get(id);
        let opts = docker_api::opts::LogsOpts::builder().stdout(true).stderr(true).build();
        let mut text = String::new();
        let mut chunks = container.logs(&opts);
        while let Some(chunk) = chunks.next().await {
            text.push_str(&String::from_utf8_lossy(&chunk.unwrap().to_vec()));
        }
        text
    }

    /// This test's containers, running or not, without sandboxes.
    pub async fn containers(&self) -> Vec<super::Summary> {
        let found = self.runtime.list(&[(label::NODE, &self.node)]).await.unwrap();
        found.into_iter().filter(|one| one.labels.get(label::CONTAINER).is_none_or(|name| name != label::SANDBOX_NAME)).collect()
    }

    /// What this test has at the engine, sandboxes and volumes included.
    pub async fn things(&self) -> usize {
        let labels = [(label::NODE, self.node.as_str())];
        self.runtime.list(&labels).await.unwrap().len() + self.runtime.volumes(&labels).await.unwrap().len()
    }
}

/// Below those that the kernel gives to connections.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A port of the loopback that is free now, TCP and UDP, and that no connection of another test gets meanwhile.
pub fn free_port() -> u16 {
    let of = |number: u16| PORTS.start + number % (PORTS.end - PORTS.start);
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok() && std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(rand::random).map(of).find(is_free).unwrap()
}

/// A step of a build, which must have gone well.
pub fn built(step: docker_api::Result<ImageBuildChunk>) {
    if let ImageBuildChunk::Error { error, .. } = step.unwrap() {
        panic!("an image cannot be built: {error}");
    }
}

/// Names of further images, removed when the test ends, however it does.
pub struct Images<'a>(pub &'a Engine, pub Vec<String>);

impl Drop for Images<'_> {
    fn drop(&mut self) {
        let (docker, images) = (self.0.docker.clone(), std::mem::take(&mut self.1));
        at_the_end(async move {
            for image in images {
                let _ = docker.images().get(image).remove(&ImageRemoveOpts::builder().force(true).build()).await;
            }
        });
    }
}

/// Runs this on a thread of its own: where a test ends, nothing can be awaited.
fn at_the_end(work: impl Future<Output = ()> + Send + 'static) {
    let cleaner = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await });
    });
    let _ = cleaner.join();
}

impl Drop for Engine {
    fn drop(&mut self) {
        let (docker, node, image) = (self.docker.clone(), self.node.clone(), self.image.clone());
        at_the_end(async move {
            let filter = [ContainerFilter::Label(label::NODE.into(), node)];
            let found = docker.containers().list(&ContainerListOpts::builder().all(true).filter(filter).build()).await.unwrap_or_default();
            for id in found.into_iter().filter_map(|one| one.id) {
                let _ = docker.containers().get(id).remove(&ContainerRemoveOpts::builder().force(true).volumes(true).build()).await;
            }
            let _ = docker.images().get(image).delete().await;
        });
    }
}
