//! What is answered instead.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};

use super::super::runtime::RuntimeError;
use super::LOGS_MAX;

/// Most names in an answer.
const NAMES_MAX: usize = 20;

/// Why there is no answer; its text is the body.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Edged does not run.
    #[error("no pods run here: the module `edged` is not enabled (`modules.enabled`)")]
    NoEngine,
    /// The node has no such pod.
    #[error("there is no pod {wanted} on this node; there are: {}", names(known))]
    Pod {
        /// `namespace/name`.
        wanted: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// The pod has no such container, or it never started.
    #[error("pod {pod} has no container `{wanted}` that was started; there are: {}", names(known))]
    Container {
        /// `namespace/name`.
        pod: String,
        /// Its name.
        wanted: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// The container was not started before.
    #[error("container `{container}` of pod {pod} has no earlier run whose log is kept: leave `previous` out")]
    Previous {
        /// `namespace/name`.
        pod: String,
        /// Its name.
        container: String,
    },
    /// A parameter of the query.
    #[error("parameter `{name}` {why}")]
    Parameter {
        /// Which.
        name: String,
        /// What is wrong, and what to write.
        why: &'static str,
    },
    /// Too many at once.
    #[error("{LOGS_MAX} logs are being {0} already: end one of them and ask again")]
    Busy(&'static str),
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] RuntimeError),
    /// The store's.
    #[error("the stored pods cannot be read: {0}")]
    Store(String),
}

fn names(known: &[String]) -> String {
    let shown = known.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match known.len() {
        0 => "none".to_owned(),
        count if count > NAMES_MAX => format!("{shown} and {} more", count - NAMES_MAX),
        _ => shown,
    }
}

impl ResponseError for ReadError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Pod { .. } | Self::Container { .. } | Self::Previous { .. } | Self::Engine(RuntimeError::NotFound(_)) => StatusCode::NOT_FOUND,
            Self::Parameter { .. } => StatusCode::BAD_REQUEST,
            Self::NoEngine | Self::Busy(_) | Self::Engine(RuntimeError::Unreachable { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Engine(RuntimeError::TimedOut { .. } | RuntimeError::GoesOn { .. }) => StatusCode::GATEWAY_TIMEOUT,
            Self::Engine(RuntimeError::Refused { .. } | RuntimeError::Protocol(_)) => StatusCode::BAD_GATEWAY,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        // What was asked for is repeated: nothing of it may become a line or a colour of somebody's terminal.
        let text: String = self.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        HttpResponse::build(self.status_code()).content_type("text/plain; charset=utf-8").body(format!("{text}\n"))
    }
}
