//! Images that are being fetched: each once, whoever waits for it.

use super::events::Severity;
use super::message::EdgedMessage;
use super::runtime::{ContainerRuntime, RuntimeError};
use super::state::Edged;
use super::worker::Pull;

impl Edged {
    pub(super) fn pull(&mut self, pull: &Pull) {
        if !self.pulling.insert(pull.clone()) {
            return;
        }
        let image = &pull.image;
        self.image_event(image, Severity::Normal, "Pulling", &format!("Pulling image \"{image}\""));
        let (shared, pull) = (self.shared.clone(), pull.clone());
        actix_rt::spawn(async move {
            log::info!(image = pull.image.as_str(), logins = pull.logins.len(); "pulling image");
            let result = {
                let _permit = shared.pulls.acquire().await;
                fetch(&*shared.runtime, &pull).await
            };
            let _ = shared.edged.send(EdgedMessage::Pulled { pull, result }).await;
        });
    }

    pub(super) fn pulled(&mut self, pull: &Pull, result: &Result<(), RuntimeError>) {
        self.pulling.remove(pull);
        let outcome = result.clone().map_err(|error| error.to_string());
        let image = &pull.image;
        match &outcome {
            Ok(()) => self.image_event(image, Severity::Normal, "Pulled", &format!("Successfully pulled image \"{image}\"")),
            Err(error) => self.image_event(image, Severity::Warning, "Failed", &format!("Failed to pull image \"{image}\": {error}")),
        }
        let mut waiting = Vec::new();
        for (uid, entry) in &mut self.pods {
            if entry.images.values().any(|wanted| wanted == pull) {
                entry.pulled.push((pull.clone(), outcome.clone()));
                waiting.push(uid.clone());
            }
        }
        waiting.iter().for_each(|uid| self.pass(uid));
    }
}

/// Asks the registry with each login until one is let in; the last refusal is told.
async fn fetch(runtime: &dyn ContainerRuntime, pull: &Pull) -> Result<(), RuntimeError> {
    if pull.logins.is_empty() {
        return runtime.pull(&pull.image, None).await;
    }
    let mut last = Ok(());
    for login in &pull.logins {
        last = runtime.pull(&pull.image, Some(login)).await;
        if last.is_ok() {
            break;
        }
    }
    last
}
