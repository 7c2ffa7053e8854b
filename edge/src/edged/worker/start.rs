//! The start of one container.

use super::super::check::shown;
use super::super::container::{self, Made, has_names, localhost_seccomp, spec_of};
use super::super::env::{self, EnvError};
use super::super::objects::LookupError;
use super::super::observed::{Observed, Trouble};
use super::super::pod::{Container, Pod, PullPolicy};
use super::super::pull_secret::{self, PullSecretError};
use super::super::runtime::{ContainerSpec, Mount, MountSource, Propagation, Resolver, RuntimeError, label};
use super::super::volume::{self, Mounted, VolumeError};
use super::make::MakeError;
use super::sandbox::machine_resolver;
use super::{CREATING, Desired, End, Pass, Pull, is_lost};
use jiff::Timestamp;

/// Longest seccomp profile that is read.
const SECCOMP_BYTES_MAX: u64 = 1024 * 1024;
/// Where a container leaves its last words when the pod names no other place (Kubernetes' default).
const MESSAGE_PATH: &str = "/dev/termination-log";
/// A setting of the pod or of an object that it reads does not fit.
const CONFIG: &str = "CreateContainerConfigError";

/// Which one of its name a container is.
#[derive(Clone, Copy)]
pub(super) struct Number {
    /// How often it was started before.
    pub attempt: u32,
    /// Depth of its back-off.
    pub level: u32,
}

impl Pass {
    /// Starts a container. Only an engine that does not answer is an error; all else becomes trouble of this container.
    pub(super) async fn start(
        &mut self,
        name: &str,
        number: Number,
        sandbox: Option<&str>,
        seen: &Observed,
        end: &mut End,
    ) -> Result<(), RuntimeError> {
        let Some(desired) = self.desired.clone() else { return Ok(()) };
        let pod = desired.pod.clone();
        let Some(container) = pod.container(name) else { return Ok(()) };
        let shared = self.shared.clone();
        if !container.has_reference() {
            return self.has_no_image(container, None);
        }
        let is_asked = container.pull_policy() == PullPolicy::Always && !self.fresh.contains(name);
        let image = match self.images.remove(&container.image) {
            _ if is_asked => None,
            Some(known) => Some(known),
            None => match shared.call(shared.runtime.image(&container.image)).await {
                Err(error) if !is_lost(&error) => return self.has_no_image(container, Some(&error)),
                found => found?,
            },
        };
        let Some(image) = image else {
            self.want_image(&desired, container, end);
            return Ok(());
        };
        let (spec, mounted) = match self.spec(&desired, container, number, sandbox, seen, &image.user, end).await {
            Ok(made) => made,
            Err(message) => {
                self.note(true, "Failed", Some(name), format!("Error: {message}"));
                self.troubles.insert(name.to_owned(), self.pause(CONFIG, message));
                return Ok(());
            }
        };
        let id = match self.make(spec).await {
            Ok(id) => id,
            Err(MakeError::Lost(error)) => return Err(error),
            Err(MakeError::Create(error)) => {
                self.note(true, "Failed", Some(name), format!("Error: {error}"));
                self.fails(name, "CreateContainerError", error.to_string());
                return Ok(());
            }
            Err(MakeError::Start(error)) => {
                self.note(false, "Created", Some(name), format!("Created container {name}"));
                self.note(true, "Failed", Some(name), format!("Error: {error}"));
                self.fails(name, "RunContainerError", error.to_string());
                return Ok(());
            }
        };
        self.note(false, "Created", Some(name), format!("Created container {name}"));
        if !mounted.is_unchanged() {
            // Another container of the pod put a link where a directory was: this one may have what is not the pod's.
            shared.call(shared.runtime.remove(&id)).await?;
            let message = "a subPath was exchanged while the container was made".to_owned();
            self.note(true, "Failed", Some(name), format!("Error: {message}"));
            self.fails(name, "CreateContainerConfigError", message);
            return Ok(());
        }
        self.fresh.remove(name);
        end.started.insert(name.to_owned());
        self.note(false, "Started", Some(name), format!("Started container {name}"));
        log::info!(pod = pod.full_name().as_str(), container = name, restarts = number.attempt; "container started");
        if let Some(id) = self.cause {
            log::debug!(id:% = id, pod = pod.full_name().as_str(), container = name; "container follows from a message of the cloud");
        }
        self.after_start(&pod, container, &id).await
    }

    /// Nobody can say whether the image is here; the other containers of the pod do not mind.
    fn has_no_image(&mut self, container: &Container, error: Option<&RuntimeError>) -> Result<(), RuntimeError> {
        let (reason, message) = image_trouble(&container.image, error);
        self.note(true, "InspectFailed", Some(&container.name), message.clone());
        self.fails(&container.name, reason, message);
        Ok(())
    }

    /// The image is not here, or shall be asked for.
    fn want_image(&mut self, desired: &Desired, container: &Container, end: &mut End) {
        let name = &container.name;
        if container.pull_policy() == PullPolicy::Never {
            let message = format!("Container image \"{}\" is not present with pull policy of Never", container.image);
            self.note(true, "ErrImageNeverPull", Some(name), message.clone());
            return self.fails(name, "ErrImageNeverPull", message);
        }
        let logins = pull_secret::logins(&desired.pod.spec.image_pull_secrets, &desired.objects, &container.image);
        for problem in logins.problems {
            if let PullSecretError::Object(LookupError::Missing { name, .. }) = &problem {
                end.objects.insert((true, name.clone()));
            }
            self.note(true, "FailedToRetrieveImagePullSecret", Some(name), problem.to_string());
        }
        end.images.insert(name.clone(), Pull { image: container.image.clone(), logins: logins.found });
        let waits = Trouble { retry_at: Timestamp::MAX, ..self.pause(CREATING, format!("pulling image \"{}\"", container.image)) };
        // While it is tried again, the last failure is what a person wants to see.
        let earlier = self.troubles.remove(name).filter(|trouble| trouble.reason == "ErrImagePull");
        self.troubles.insert(name.clone(), earlier.map_or(waits, |trouble| Trouble { retry_at: Timestamp::MAX, ..trouble }));
    }

    /// What the engine is to make, or what is wrong with the settings.
    #[allow(clippy::too_many_arguments, reason = "each is another part of what a container is made from")]
    async fn spec(
        &self,
        desired: &Desired,
        container: &Container,
        number: Number,
        sandbox: Option<&str>,
        seen: &Observed,
        image_user: &str,
        end: &mut End,
    ) -> Result<(ContainerSpec, Mounted), String> {
        let (pod, shared) = (&desired.pod, &self.shared);
        let process = env::process(pod, container, &self.facts(pod, seen), &desired.objects).map_err(|error| {
            if let EnvError::Object(LookupError::Missing { kind, name }) = &error {
                end.objects.insert((*kind == "secret", name.clone()));
            }
            error.to_string()
        })?;
        let user = container::user(pod, container, image_user).map_err(|error| error.to_string())?;
        let seccomp = self.seccomp(pod, container).await?;
        let Number { attempt, level } = number;
        let (mut mounted, words) = {
            let (pods, uid, pod, container) = (shared.pods.clone(), self.uid.clone(), pod.clone(), container.clone());
            let values = process.values;
            let work = move || {
                let mounted = volume::mounts(&pods, &pod, &container, &values)?;
                Ok::<_, VolumeError>((mounted, volume::make_termination_file(&pods, &uid, &container.name, attempt)?))
            };
            let done = tokio::task::spawn_blocking(work).await.map_err(|error| format!("the volumes were not made: {error}"))?;
            done.map_err(|error| actor::chain(&error))?
        };
        let mut mounts = std::mem::take(&mut mounted.mounts);
        let target = Some(&container.termination_message_path).filter(|path| !path.is_empty()).map_or(MESSAGE_PATH, String::as_str);
        if !mounts.iter().any(|mount| mount.target == target) {
            let (source, propagation) = (MountSource::Path(words), Propagation::Private);
            mounts.push(Mount { source, target: target.to_owned(), read_only: false, propagation });
        }
        let machine_resolver = if has_names(pod, sandbox) { machine_resolver() } else { Resolver::default() };
        let made = Made { env: process.env, command: process.command, args: process.args, mounts, user, machine_resolver, seccomp, attempt, level };
        let mut spec = spec_of(pod, container, sandbox, &shared.surroundings, made);
        spec.labels.insert(label::NODE.to_owned(), shared.node.clone());
        Ok((spec, mounted))
    }

    /// The text of a profile below the profiles' directory. The name has passed the checks: relative, no `..`.
    async fn seccomp(&self, pod: &Pod, container: &Container) -> Result<Option<String>, String> {
        let Some(name) = localhost_seccomp(pod, container) else { return Ok(None) };
        let path = self.shared.seccomp.join(name);
        let read = async {
            let size = tokio::fs::metadata(&path).await?.len();
            if size > SECCOMP_BYTES_MAX {
                return Err(std::io::Error::other(format!("{size} bytes, at most {SECCOMP_BYTES_MAX} are possible")));
            }
            tokio::fs::read_to_string(&path).await
        };
        let text = read.await.map_err(|error| format!("cannot load seccomp profile {}: {error}", path.display()))?;
        // The engine wants it on one line, and says of a broken one only that it is.
        let profile: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("seccomp profile {}: {error}", path.display()))?;
        Ok(Some(profile.to_string()))
    }
}

/// Reason and message, in the kubelet's words, where an image cannot be asked for: the engine failed, or there is no reference.
fn image_trouble(image: &str, error: Option<&RuntimeError>) -> (&'static str, String) {
    let image = shown(image);
    let why = match error {
        None => "invalid reference format",
        Some(RuntimeError::Refused { code: 400, message }) => message,
        Some(error) => return ("ImageInspectError", format!("Failed to inspect image \"{image}\": {error}")),
    };
    ("InvalidImageName", format!("Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_cannot_be_asked_for_is_told_in_the_kubelets_words() {
        let refused = |code, message: &str| RuntimeError::Refused { code, message: message.into() };
        for (error, want) in [
            (None, ("InvalidImageName", "couldn't parse image name \"a:1:2\": invalid reference format")),
            (
                Some(refused(400, "no such image: a:1:2: invalid reference format")),
                ("InvalidImageName", "no such image: a:1:2: invalid reference format"),
            ),
            (Some(refused(500, "disk on fire")), ("ImageInspectError", "Failed to inspect image \"a:1:2\": disk on fire")),
            (Some(RuntimeError::Protocol("x".into())), ("ImageInspectError", "Failed to inspect image \"a:1:2\": unexpected answer")),
        ] {
            let (reason, message) = image_trouble("a:1:2", error.as_ref());
            assert!(reason == want.0 && message.contains(want.1), "{reason}: {message}");
        }
    }
}
