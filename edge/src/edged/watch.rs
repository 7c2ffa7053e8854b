//! What is watched beside the actor, and outlives it: the engine's event stream, and the files of static pods.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actor::Handle;
use futures_util::StreamExt;
use model::NodeName;
use tokio::time::Instant;

use super::message::EdgedMessage;
use super::runtime::{ContainerRuntime, RuntimeEvent};
use super::static_pods;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A stream that stood this long was a good one: the next try comes soon again.
const STABLE: Duration = Duration::from_secs(5);

/// Tells Edged what the engine tells, for ever: connects, follows the events, says when the engine went, connects again.
/// Ends only when Edged's mailbox is closed.
pub async fn watch(runtime: Arc<dyn ContainerRuntime>, node: NodeName, edged: Handle<EdgedMessage>) {
    let mut pause = PAUSE_FIRST;
    let mut told: Option<String> = None;
    loop {
        let began = Instant::now();
        let reason = match runtime.version().await {
            Err(error) => error.to_string(),
            Ok(version) => {
                told = None;
                if edged.send(EdgedMessage::Runtime(RuntimeEvent::Up(version))).await.is_err() {
                    return;
                }
                let mut events = runtime.events(node.as_str());
                loop {
                    match events.next().await {
                        Some(Ok(event)) => {
                            if edged.send(EdgedMessage::Runtime(event)).await.is_err() {
                                return;
                            }
                        }
                        Some(Err(error)) => break error.to_string(),
                        None => break "the event stream ended".to_owned(),
                    }
                }
            }
        };
        if told.as_ref() != Some(&reason) {
            told = Some(reason.clone());
            if edged.send(EdgedMessage::Runtime(RuntimeEvent::Down { reason })).await.is_err() {
                return;
            }
        }
        pause = if began.elapsed() >= STABLE { PAUSE_FIRST } else { (pause * 2).min(PAUSE_MAX) };
        tokio::time::sleep(pause).await;
    }
}

/// Pause between two looks at the files of static pods.
const FILES_EVERY: Duration = Duration::from_secs(5);

/// Tells Edged what the files of static pods say, when that changes. Ends only when Edged's mailbox is closed.
pub async fn watch_files(directory: PathBuf, node: NodeName, edged: Handle<EdgedMessage>) {
    loop {
        let (place, name) = (directory.clone(), node.to_string());
        // A look that panics is one that found nothing new.
        if let Ok(found) = tokio::task::spawn_blocking(move || static_pods::read(&place, &name)).await
            && edged.send(EdgedMessage::StaticPods(Box::new(found))).await.is_err()
        {
            return;
        }
        tokio::time::sleep(FILES_EVERY).await;
    }
}
