//! Hooks: what is done after a container's start and before its end.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::ask::{PlaceError, Target, shown};
use super::http::{HttpError, Request};
use crate::edged::pod::{Container, Handler};
use crate::edged::runtime::RuntimeError;

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Its program ended with another code than 0.
    #[error("command exited with {code}: {output}")]
    Ended {
        /// Exit code.
        code: i64,
        /// What it wrote, shortened.
        output: String,
    },
    /// The engine did not run its program.
    #[error("command was not run: {0}")]
    NotRun(#[source] RuntimeError),
    /// Its request has nowhere to go.
    #[error("request was not sent: {0}")]
    Place(#[from] PlaceError),
    /// Its request was not answered.
    #[error("Get {url:?}: {source}")]
    Request {
        /// What was asked.
        url: String,
        /// Why there is no answer.
        source: HttpError,
    },
    /// It took too long.
    #[error("hook did not end within {0:?}")]
    TimedOut(Duration),
}

/// Does what a hook says, within `limit`. Of a request any answer will do, as with the kubelet; a hook with `tcpSocket` does
/// nothing.
///
/// # Errors
/// [`HookError`]; after one of `postStart` the container is to be ended.
pub async fn run_hook(handler: &Handler, container: &Container, target: &Target, limit: Duration) -> Result<(), HookError> {
    let Handler { exec, http_get, tcp_socket: _, grpc: _, sleep: pause } = handler;
    if let Some(exec) = exec {
        return match target.runtime.exec(&target.container_id, &exec.command, limit).await {
            Ok(executed) if executed.code == 0 => Ok(()),
            Ok(executed) => Err(HookError::Ended { code: executed.code, output: shown(executed.output.trim_end()) }),
            Err(RuntimeError::TimedOut { .. } | RuntimeError::GoesOn { .. }) => Err(HookError::TimedOut(limit)),
            Err(error) => Err(HookError::NotRun(error)),
        };
    }
    let work = async {
        if let Some(get) = http_get {
            let request = Request::new(get, container, &target.pod_ip)?;
            return match request.status().await {
                Ok(_) => Ok(()),
                Err(source) => Err(HookError::Request { url: request.url(), source }),
            };
        }
        if let Some(pause) = pause {
            sleep(Duration::from_secs(u64::try_from(pause.seconds).unwrap_or(0))).await;
        }
        Ok(())
    };
    timeout(limit, work).await.unwrap_or(Err(HookError::TimedOut(limit)))
}
