//! Docker through the docker-api crate.
//!
//! The crate opens one connection per request over the unix socket. Paths are sent without an API version, so that old
//! engines (API 1.41) and new ones (1.44 at least) both answer.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use docker_api::opts::{
    ContainerCreateOpts, ContainerFilter, ContainerListOpts, ContainerRemoveOpts, ContainerStopOpts, EventFilter, EventFilterType, EventsOpts,
    HostPort, IpcMode, PidMode, PublishPort, PullOpts,
};
use docker_api::{Docker, models};
use futures_util::{StreamExt, stream};
use tokio::sync::OnceCell;

use super::{
    Answer, Container, ContainerRuntime, ContainerSpec, ContainerState, Events, Exit, Network, RuntimeError, RuntimeEvent, RuntimeVersion, Summary,
    label,
};

/// Limit of an ordinary call (manual: Docker calls end after two minutes).
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// Limit of a pull.
const PULL_LIMIT: Duration = Duration::from_secs(900);
/// What a stop may take beyond its grace.
const STOP_SLACK: Duration = Duration::from_secs(30);
/// Longest engine message that is kept, in bytes.
const MESSAGE_MAX: usize = 1024;

/// The Docker engine behind a unix socket.
pub struct DockerRuntime {
    docker: Docker,
    address: String,
    /// CPUs as the engine counts them: it refuses a limit above.
    cpus: OnceCell<u64>,
}

impl DockerRuntime {
    /// Connects lazily: the engine need not be there yet.
    ///
    /// # Errors
    /// An address that is not `unix:///path` (TCP would need TLS that this build has not).
    pub fn new(address: &str) -> Result<Self, RuntimeError> {
        let path = address.strip_prefix("unix://").filter(|path| path.starts_with('/'));
        let Some(path) = path else {
            let message = format!("docker address `{address}` must have the form unix:///var/run/docker.sock");
            return Err(RuntimeError::Refused { code: 0, message });
        };
        Ok(Self { docker: Docker::unix(path), address: address.to_owned(), cpus: OnceCell::new() })
    }

    fn error(&self, error: docker_api::Error) -> RuntimeError {
        use docker_api::Error as E;
        match error {
            E::Fault { code, message } => {
                let message: String = message.chars().take(MESSAGE_MAX).collect();
                match code.as_u16() {
                    404 => RuntimeError::NotFound(message),
                    code => RuntimeError::Refused { code, message },
                }
            }
            E::SerdeJsonError(error) => RuntimeError::Protocol(error.to_string()),
            E::InvalidResponse(text) => RuntimeError::Protocol(text),
            other => RuntimeError::Unreachable { address: self.address.clone(), cause: root_cause(&other) },
        }
    }

    async fn call<T>(&self, what: &'static str, limit: Duration, work: impl Future<Output = docker_api::Result<T>>) -> Result<T, RuntimeError> {
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map_err(|error| self.error(error)),
            Err(_) => Err(RuntimeError::TimedOut { what, limit }),
        }
    }

    async fn cpus(&self) -> Result<u64, RuntimeError> {
        let ask = async {
            let info = self.call("info", CALL_LIMIT, self.docker.info()).await?;
            Ok(info.ncpu.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(1))
        };
        self.cpus.get_or_try_init(|| ask).await.copied()
    }

    async fn create_opts(&self, spec: &ContainerSpec) -> Result<ContainerCreateOpts, RuntimeError> {
        let mut opts = ContainerCreateOpts::builder()
            .name(&spec.name)
            .image(&spec.image)
            .env(&spec.env)
            .labels(spec.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())))
            .restart_policy("no", 0)
            .privileged(spec.privileged);
        if !spec.command.is_empty() {
            opts = opts.entrypoint(&spec.command);
        }
        if !spec.args.is_empty() {
            opts = opts.command(&spec.args);
        }
        if !spec.working_dir.is_empty() {
            opts = opts.working_dir(&spec.working_dir);
        }
        if !spec.binds.is_empty() {
            opts = opts.volumes(spec.binds.iter().map(|bind| {
                let mode = if bind.read_only { "ro" } else { "rw" };
                format!("{}:{}:{mode}", bind.source.display(), bind.target)
            }));
        }
        opts = match &spec.network {
            Network::Host => opts.network_mode("host"),
            Network::Bridge => opts.network_mode("bridge").hostname(&spec.hostname),
            Network::Join(id) => opts.network_mode(format!("container:{id}")),
        };
        for port in &spec.ports {
            let inside = match port.protocol {
                "udp" => PublishPort::udp(port.container_port.into()),
                "sctp" => PublishPort::sctp(port.container_port.into()),
                _ => PublishPort::tcp(port.container_port.into()),
            };
            let outside = match &port.host_ip {
                Some(ip) => HostPort::with_ip(port.host_port.into(), ip.clone()),
                None => HostPort::new(port.host_port.into()),
            };
            opts = opts.expose(inside, outside);
        }
        if let Some(bytes) = spec.memory {
            opts = opts.memory(bytes).memory_swap(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        if let Some(nano) = spec.cpu_nano {
            // More than the machine has is no limit, and the engine would refuse it; below 0.01 likewise.
            let all = self.cpus().await?.saturating_mul(1_000_000_000);
            opts = opts.nano_cpus(nano.clamp(10_000_000, all));
        }
        // The kernel's lowest weight is 2; 1024 is one CPU.
        opts = opts.cpu_shares(u32::try_from((spec.cpu_request_milli * 1024 / 1000).clamp(2, 262_144)).unwrap_or(2));
        if spec.host_pid {
            opts = opts.pid(PidMode::Host);
        }
        if spec.host_ipc {
            opts = opts.ipc(IpcMode::Host);
        }
        Ok(opts.build())
    }
}

/// The innermost reason: "No such file or directory" says more than "error trying to connect".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        text = inner.to_string();
        next = inner.source();
    }
    text.chars().take(MESSAGE_MAX).collect()
}

/// "Already so" (304) and "gone" (404) are what was wanted.
fn settled(result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(RuntimeError::NotFound(_) | RuntimeError::Refused { code: 304, .. }) => Ok(()),
        other => other,
    }
}

fn time(text: Option<&str>) -> jiff::Timestamp {
    // Docker writes year 1 for "never".
    text.and_then(|text| text.parse().ok()).filter(|t: &jiff::Timestamp| t.as_second() > 0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

fn container(found: models::ContainerInspect200Response) -> Container {
    let config = found.config.as_ref();
    let networks = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let ip = networks.and_then(|networks| networks.values().find_map(|network| network.ip_address.clone()).filter(|ip| !ip.is_empty()));
    Container {
        id: found.id.unwrap_or_default(),
        labels: config.and_then(|c| c.labels.clone()).unwrap_or_default().into_iter().collect(),
        image: config.and_then(|c| c.image.clone()).unwrap_or_default(),
        image_id: found.image.unwrap_or_default(),
        ip,
        state: found.state.map_or(ContainerState::Dead, state),
    }
}

fn state(found: models::ContainerState) -> ContainerState {
    let started_at = time(found.started_at.as_deref());
    match found.status.as_deref() {
        Some("running" | "paused" | "restarting") => ContainerState::Running { started_at },
        Some("created") => ContainerState::Created,
        Some("exited" | "stopped") => ContainerState::Exited(Exit {
            code: found.exit_code.map_or(0, |code| code as i64),
            oom_killed: found.oom_killed.unwrap_or(false),
            error: found.error.unwrap_or_default().chars().take(MESSAGE_MAX).collect(),
            started_at,
            finished_at: time(found.finished_at.as_deref()),
        }),
        _ => ContainerState::Dead,
    }
}

/// Splits a reference into what `fromImage` and `tag` want: without a tag the engine would fetch every tag.
fn pull_parts(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    let slash = image.rfind('/').map_or(0, |at| at + 1);
    match image[slash..].rfind(':') {
        Some(colon) => (&image[..slash + colon], &image[slash + colon + 1..]),
        None => (image, "latest"),
    }
}

impl ContainerRuntime for DockerRuntime {
    fn version(&self) -> Answer<'_, RuntimeVersion> {
        Box::pin(async {
            let found = self.call("version", CALL_LIMIT, self.docker.version()).await?;
            Ok(RuntimeVersion { name: "docker", version: found.version.unwrap_or_default() })
        })
    }

    fn list<'a>(&'a self, labels: &'a [(&'a str, &'a str)]) -> Answer<'a, Vec<Summary>> {
        Box::pin(async move {
            let filters = labels.iter().map(|(k, v)| ContainerFilter::Label((*k).to_owned(), (*v).to_owned()));
            let opts = ContainerListOpts::builder().all(true).filter(filters).build();
            let found = self.call("list", CALL_LIMIT, self.docker.containers().list(&opts)).await?;
            let summary = |one: models::ContainerSummary| Summary {
                id: one.id.unwrap_or_default(),
                labels: one.labels.unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>(),
                state: one.state.unwrap_or_default(),
            };
            Ok(found.into_iter().map(summary).collect())
        })
    }

    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Container>> {
        Box::pin(async move {
            match self.call("inspect", CALL_LIMIT, self.docker.containers().get(id).inspect()).await {
                Ok(found) => Ok(Some(container(found))),
                Err(RuntimeError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> Answer<'a, String> {
        Box::pin(async move {
            let opts = self.create_opts(spec).await?;
            let made = self.call("create", CALL_LIMIT, self.docker.containers().create(&opts)).await?;
            Ok(made.id().to_string())
        })
    }

    fn start<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.call("start", CALL_LIMIT, self.docker.containers().get(id).start()).await {
                Err(RuntimeError::Refused { code: 304, .. }) => Ok(()),
                other => other,
            }
        })
    }

    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let opts = ContainerStopOpts::builder().wait(grace).build();
            settled(self.call("stop", grace + STOP_SLACK, self.docker.containers().get(id).stop(&opts)).await)
        })
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let opts = ContainerRemoveOpts::builder().force(true).volumes(true).build();
            settled(self.call("remove", CALL_LIMIT, self.docker.containers().get(id).remove(&opts)).await.map(|_: String| ()))
        })
    }

    fn has_image<'a>(&'a self, image: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            match self.call("image inspect", CALL_LIMIT, self.docker.images().get(image).inspect()).await {
                Ok(_) => Ok(true),
                Err(RuntimeError::NotFound(_)) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    fn pull<'a>(&'a self, image: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let (name, tag) = pull_parts(image);
            let opts = PullOpts::builder().image(name).tag(tag).build();
            let images = self.docker.images();
            let work = async {
                let mut steps = images.pull(&opts);
                while let Some(step) = steps.next().await {
                    match step? {
                        models::ImageBuildChunk::Error { error, .. } => return Ok(Err(error)),
                        _progress => {}
                    }
                }
                Ok(Ok(()))
            };
            match self.call("pull", PULL_LIMIT, work).await? {
                Ok(()) => Ok(()),
                Err(message) => Err(RuntimeError::Refused { code: 500, message: message.chars().take(MESSAGE_MAX).collect() }),
            }
        })
    }

    fn events<'a>(&'a self, node: &'a str) -> Events<'a> {
        let mut filters = vec![EventFilter::Type(EventFilterType::Container), EventFilter::Type(EventFilterType::Image)];
        // Without this list every health check's `exec_start` would come too.
        filters.extend(["start", "die", "destroy", "oom", "pull", "load", "tag", "import"].map(|name| EventFilter::Event(name.to_owned())));
        let opts = EventsOpts::builder().filter(filters).build();
        let node = node.to_owned();
        let events = self.docker.events(&opts).filter_map(move |event| {
            let event = match event {
                Ok(event) => of_node(event, &node).map(Ok),
                Err(error) => Some(Err(self.error(error))),
            };
            std::future::ready(event)
        });
        // The engine went away: say so, instead of a silent end.
        let end = stream::once(async { Err(RuntimeError::Unreachable { address: self.address.clone(), cause: "the event stream ended".into() }) });
        Box::pin(events.chain(end))
    }
}

/// What an event means for a node; `None` for other people's containers.
fn of_node(event: models::EventMessage, node: &str) -> Option<RuntimeEvent> {
    if event.type_.as_deref() == Some("image") {
        return Some(RuntimeEvent::Image);
    }
    let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
    if attributes.get(label::NODE).map(String::as_str) != Some(node) {
        return None;
    }
    let pod_uid = attributes.get(label::POD_UID)?.clone();
    Some(RuntimeEvent::Container { pod_uid, action: event.action.unwrap_or_default() })
}
