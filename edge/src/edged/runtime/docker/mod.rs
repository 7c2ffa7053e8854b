//! Docker through the docker-api crate.
//!
//! The crate opens one connection per request over the unix socket. Paths are sent without an API version, so that old
//! engines (API 1.41) and new ones (1.44 at least) both answer.

mod body;
mod raw;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use docker_api::opts::{
    ContainerFilter, ContainerListOpts, ContainerRemoveOpts, ContainerStopOpts, EventFilter, EventFilterType, EventsOpts, ExecStartOpts,
    ImageRemoveOpts, PullOpts, RegistryAuth, VolumeCreateOpts, VolumeFilter, VolumeListOpts,
};
use docker_api::{Docker, Exec, models};
use futures_util::{StreamExt, stream};
use tokio::sync::OnceCell;

use super::{
    Answer, Container, ContainerRuntime, ContainerSpec, ContainerState, EXEC_OUTPUT_MAX, Events, Executed, Exit, Image, LogQuery, LogStream, Login,
    Memory, RuntimeError, RuntimeEvent, RuntimeVersion, Summary, Usage, label,
};
use raw::RawClient;

/// Limit of an ordinary call (manual: Docker calls end after two minutes).
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// Limit of a pull. One that goes on may take hours over a thin link, and the kubelet lets it: this is only for an engine that
/// speaks of progress for ever.
const PULL_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// A pull that has said nothing for this long is given up: a registry that takes connections and never answers must not keep
/// the others waiting (the kubelet's value).
const PULL_SILENCE: Duration = Duration::from_secs(60);
/// What a stop may take beyond its grace.
const STOP_SLACK: Duration = Duration::from_secs(30);
/// Longest engine message that is kept, in bytes.
const MESSAGE_MAX: usize = 1024;

/// The Docker engine behind a unix socket.
pub struct DockerRuntime {
    docker: Docker,
    raw: RawClient,
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
        Ok(Self { docker: Docker::unix(path), raw: RawClient::new(path), address: address.to_owned(), cpus: OnceCell::new() })
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

    async fn open_logs<'a>(&'a self, id: &'a str, query: &LogQuery) -> Result<LogStream<'a>, RuntimeError> {
        let found = self.call("inspect", CALL_LIMIT, self.docker.containers().get(id).inspect()).await?;
        let is_terminal = found.config.and_then(|config| config.tty).unwrap_or(false);
        let bytes = Box::pin(self.raw.logs(id, query)).map(|chunk| chunk.map_err(|error| self.error(error)));
        Ok(if is_terminal { Box::pin(bytes.map(|chunk| chunk.map(Into::into))) } else { Box::pin(raw::frames(bytes)) })
    }

    async fn cpus(&self) -> Result<u64, RuntimeError> {
        let ask = async {
            let info = self.call("info", CALL_LIMIT, self.docker.info()).await?;
            Ok(info.ncpu.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(1))
        };
        self.cpus.get_or_try_init(|| ask).await.copied()
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
        // Somebody else asked for the same removal a moment before.
        Err(RuntimeError::Refused { code: 409, message }) if message.contains("already in progress") => Ok(()),
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
        created_at: time(found.created.as_deref()),
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
        Some("removing") => ContainerState::Removing,
        _ => ContainerState::Dead,
    }
}

fn inspected(found: models::ImageInspect) -> Image {
    Image {
        id: found.id.unwrap_or_default(),
        names: found.repo_tags.into_iter().flatten().chain(found.repo_digests.into_iter().flatten()).collect(),
        user: found.config.and_then(|config| config.user).unwrap_or_default(),
        bytes: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        created: time(found.created.as_deref()),
    }
}

/// Reads the progress of a pull or load to its end; the inner error is the engine's word for what went wrong.
async fn last_step(
    mut steps: impl stream::Stream<Item = docker_api::Result<models::ImageBuildChunk>> + Unpin,
) -> docker_api::Result<Result<(), String>> {
    loop {
        match tokio::time::timeout(PULL_SILENCE, steps.next()).await {
            Ok(Some(step)) => {
                if let models::ImageBuildChunk::Error { error, .. } = step? {
                    return Ok(Err(error));
                }
            }
            Ok(None) => return Ok(Ok(())),
            Err(_) => return Ok(Err(format!("no progress for {} s", PULL_SILENCE.as_secs()))),
        }
    }
}

fn settle_steps(end: Result<(), String>) -> Result<(), RuntimeError> {
    end.map_err(|message| RuntimeError::Refused { code: 500, message: message.chars().take(MESSAGE_MAX).collect() })
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
                created: one.created.unwrap_or_default(),
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
            let cpus = if spec.limits.cpu_nano.is_some() { self.cpus().await? } else { 0 };
            let body = body::create(spec, cpus);
            self.call("create", CALL_LIMIT, self.raw.create(&spec.name, &body)).await
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

    fn exec<'a>(&'a self, id: &'a str, command: &'a [String], limit: Duration) -> Answer<'a, Executed> {
        Box::pin(async move {
            let mut program = None;
            let work = async {
                let exec = self.raw.exec(id, command).await?;
                let exec = Exec::get(self.docker.clone(), program.insert(exec).as_str());
                let mut output = Vec::new();
                let mut chunks = exec.start(&ExecStartOpts::builder().build()).await?;
                while let Some(chunk) = chunks.next().await {
                    let room = EXEC_OUTPUT_MAX.saturating_sub(output.len());
                    output.extend(chunk.map_err(docker_api::Error::from)?.iter().take(room));
                }
                let code = exec.inspect().await?.exit_code.unwrap_or(-1);
                Ok(Executed { code: code as i64, output: String::from_utf8_lossy(&output).into_owned() })
            };
            match (self.call("exec", limit, work).await, program) {
                (Err(RuntimeError::TimedOut { limit, .. }), Some(program)) => Err(RuntimeError::GoesOn { program, limit }),
                (answer, _) => answer,
            }
        })
    }

    fn goes_on<'a>(&'a self, program: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            match self.call("exec inspect", CALL_LIMIT, Exec::get(self.docker.clone(), program).inspect()).await {
                Ok(found) => Ok(found.running.unwrap_or(false)),
                Err(RuntimeError::NotFound(_)) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    fn logs<'a>(&'a self, id: &'a str, query: &'a LogQuery) -> LogStream<'a> {
        Box::pin(stream::once(self.open_logs(id, query)).flat_map(|opened| match opened {
            Ok(lines) => lines,
            Err(error) => Box::pin(stream::once(async { Err(error) })),
        }))
    }

    fn usage<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Usage>> {
        Box::pin(async move {
            match self.call("stats", CALL_LIMIT, self.raw.stats(id)).await {
                Ok(found) => Ok(raw::usage(&found)),
                Err(RuntimeError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn layer_bytes<'a>(&'a self, id: &'a str) -> Answer<'a, Option<u64>> {
        Box::pin(async move {
            match self.call("inspect with size", CALL_LIMIT, self.raw.layer_bytes(id)).await {
                Err(RuntimeError::NotFound(_)) => Ok(None),
                other => other,
            }
        })
    }

    fn image<'a>(&'a self, image: &'a str) -> Answer<'a, Option<Image>> {
        Box::pin(async move {
            match self.call("image inspect", CALL_LIMIT, self.docker.images().get(image).inspect()).await {
                Ok(found) => Ok(Some(inspected(found))),
                Err(RuntimeError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn images(&self) -> Answer<'_, Vec<Image>> {
        Box::pin(async { self.call("images", CALL_LIMIT, self.raw.images()).await })
    }

    fn pull<'a>(&'a self, image: &'a str, login: Option<&'a Login>) -> Answer<'a, ()> {
        Box::pin(async move {
            let (name, tag) = pull_parts(image);
            let mut opts = PullOpts::builder().image(name).tag(tag);
            if let Some(login) = login {
                let auth = RegistryAuth::builder().username(&login.username).password(&login.password).server_address(&login.server).build();
                opts = opts.auth(auth);
            }
            let opts = opts.build();
            let images = self.docker.images();
            settle_steps(self.call("pull", PULL_LIMIT, last_step(images.pull(&opts))).await?)
        })
    }

    fn load_image(&self, archive: Vec<u8>) -> Answer<'_, ()> {
        Box::pin(async move {
            let images = self.docker.images();
            settle_steps(self.call("image load", CALL_LIMIT, last_step(images.import(std::io::Cursor::new(archive)))).await?)
        })
    }

    fn remove_image<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let names = match self.image(id).await? {
                // An image of several names cannot be removed by its id: each name is, and the image goes with the last.
                Some(found) if found.names.len() > 1 => found.names,
                Some(_) => vec![id.to_owned()],
                None => return Ok(()),
            };
            for name in names {
                let opts = ImageRemoveOpts::builder().build();
                settled(self.call("image remove", CALL_LIMIT, self.docker.images().get(name).remove(&opts)).await.map(|_| ()))?;
            }
            Ok(())
        })
    }

    fn root_dir(&self) -> Answer<'_, PathBuf> {
        Box::pin(async {
            let info = self.call("info", CALL_LIMIT, self.docker.info()).await?;
            info.docker_root_dir.map(PathBuf::from).ok_or_else(|| RuntimeError::Protocol("no DockerRootDir".into()))
        })
    }

    fn create_volume<'a>(&'a self, name: &'a str, memory: Memory, labels: &'a [(&'a str, &'a str)]) -> Answer<'a, ()> {
        Box::pin(async move {
            let options = body::tmpfs(memory);
            let driver = [("type", "tmpfs"), ("device", "tmpfs"), ("o", options.as_str())];
            let opts = VolumeCreateOpts::builder().name(name).driver("local").driver_opts(driver).labels(labels.iter().copied()).build();
            self.call("volume create", CALL_LIMIT, self.docker.volumes().create(&opts)).await.map(|_| ())
        })
    }

    fn volumes<'a>(&'a self, labels: &'a [(&'a str, &'a str)]) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            // The crate joins key and value of its own label filter with a colon, which no engine understands.
            let filters = labels.iter().map(|(k, v)| VolumeFilter::LabelKey(format!("{k}={v}")));
            let opts = VolumeListOpts::builder().filter(filters).build();
            let found = self.call("volumes", CALL_LIMIT, self.docker.volumes().list(&opts)).await?;
            Ok(found.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect())
        })
    }

    fn remove_volume<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let result = self.call("volume remove", CALL_LIMIT, self.docker.volumes().get(name).delete()).await;
            settled(result.map(|_| ()))
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
